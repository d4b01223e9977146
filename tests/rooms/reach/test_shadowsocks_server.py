"""Who does not know the key of our Shadowsocks server learns nothing; who does gets no further than the policy."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import pytest
import uvloop

from outlast.address import Target
from outlast.rooms.reach.io import exit as exits
from outlast.rooms.reach.io import shadowsocks_server
from outlast.rooms.reach.io.exit import ECHO, Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.pump import yard_of
from outlast.rooms.reach.io.shadowsocks import Shadowsocks, cipher_of
from outlast.rooms.reach.io.shadowsocks_server import ShadowsocksListener
from outlast.rooms.reach.io.upstream import NEAR
from outlast.rooms.reach.proto import shadowsocks_2022
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.proto.shadowsocks import Packets, ReplayError, ShadowsocksError, turn_whole
from outlast.rooms.reach.proto.shadowsocks_2022 import Sip022
from tests.rooms.reach.through import connect, echo_datagrams, echo_hashes, echoes

PASSWORDS = {"aes-256-gcm": "secret", "2022-blake3-aes-128-gcm": "8JCsPssfgS8tiRwiMlhARg=="}
NEW = "2022-blake3-aes-128-gcm"
SILENT_S = 0.2


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(coroutine, 60))


@asynccontextmanager
async def serving(method: str, policy: Policy = NEAR) -> AsyncIterator[ShadowsocksListener]:
    exit_ = Exit(asyncio.get_running_loop(), policy)
    server = ShadowsocksListener(exit_, Target("127.0.0.1", 0), method, PASSWORDS[method], "127.0.0.1")
    try:
        yield server
    finally:
        await server.close()
        exit_.close()


@asynccontextmanager
async def gate_to(server: ShadowsocksListener) -> AsyncIterator[Target]:
    loop = asyncio.get_running_loop()
    bridge = read_bridge(server.links[0])
    assert isinstance(bridge, ShadowsocksBridge)
    carrier = Shadowsocks(loop, bridge)
    gate = Gate(loop, Target("127.0.0.1", 0), carrier.carry, carrier.associate)
    try:
        yield gate.at
    finally:
        gate.close()
        carrier.close()


def hello(method: str, target: Target = ECHO, said: bytes = b"hello", *, ahead_s: float = 0) -> bytes:
    """The first bytes of a client."""
    cipher = cipher_of(method, PASSWORDS[method])
    if ahead_s:
        cipher = Sip022(method, PASSWORDS[method], secrets.token_bytes, lambda: time.time() + ahead_s)
    yard = yard_of(asyncio.get_running_loop())
    return turn_whole(cipher.request(target)[0], said, yard.into, yard.out)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    """Whether neither a byte nor an end comes."""
    try:
        await asyncio.wait_for(reader.read(1), SILENT_S)
    except TimeoutError:
        return True
    return False


def changed(wire: bytes, at: int) -> bytes:
    return wire[:at] + bytes((wire[at] ^ 1,)) + wire[at + 1 :]


def test_who_is_no_user_any_more_is_out_with_all_that_they_have_open_or_begun() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        exit_ = Exit(loop, NEAR)
        method, password = "2022-blake3-aes-256-gcm", b64encode(bytes(32)).decode()
        users = (bytes([1]) * 32, bytes([2]) * 32)
        server = ShadowsocksListener(exit_, Target("127.0.0.1", 0), method, password, "127.0.0.1", users)
        yard = yard_of(loop)

        def greeting(user: bytes) -> bytes:
            cipher = cipher_of(method, f"{password}:{b64encode(user).decode()}")
            return turn_whole(cipher.request(ECHO)[0], b"hello", yard.into, yard.out)

        try:
            streams = []
            for user in users:
                reader, writer = await asyncio.open_connection(*server.at)
                writer.write(greeting(user))
                await reader.readexactly(32)
                streams.append((reader, writer))
            begun, rest = greeting(users[0]), 20
            half, half_writer = await asyncio.open_connection(*server.at)
            half_writer.write(begun[:-rest])
            while not any(caller._acceptor._header_bytes for caller in server.unknown):  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            server.admit(users[1:])
            half_writer.write(begun[-rest:])
            assert await is_silent(half)
            with suppress(ConnectionResetError):
                await asyncio.wait_for(streams[0][0].read(-1), 5)
            assert len(server.pumps) == 1
            for _, writer in (*streams, (half, half_writer)):
                writer.transport.abort()
        finally:
            await server.close()
            exit_.close()

    run(story())


def test_one_user_s_streams_leave_room_for_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowsocks_server, "STREAMS_OF_USER_MAX", 3)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        exit_ = Exit(loop, NEAR)
        method, password = "2022-blake3-aes-256-gcm", b64encode(bytes(32)).decode()
        users = (bytes([1]) * 32, bytes([2]) * 32)
        server = ShadowsocksListener(exit_, Target("127.0.0.1", 0), method, password, "127.0.0.1", users)
        yard = yard_of(loop)
        held = []

        async def answered(user: bytes) -> bool:
            cipher = cipher_of(method, f"{password}:{b64encode(user).decode()}")
            reader, writer = await asyncio.open_connection(*server.at)
            held.append(writer)
            writer.write(turn_whole(cipher.request(ECHO)[0], b"hello", yard.into, yard.out))
            return bool(await asyncio.wait_for(reader.read(1), 5))

        try:
            assert [await answered(users[0]) for _ in range(5)] == [True] * 3 + [False] * 2
            assert await answered(users[1])
            held[0].transport.abort()
            while len(server.pumps) > 3:
                await asyncio.sleep(0.01)
            assert await answered(users[0])
            for writer in held:
                writer.transport.abort()
        finally:
            await server.close()
            exit_.close()

    run(story())


def test_one_user_s_datagrams_leave_room_for_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "DATAGRAMS_MAX", 8)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        exit_ = Exit(loop, NEAR)
        method, password = "2022-blake3-aes-256-gcm", b64encode(bytes(32)).decode()
        users = (bytes([1]) * 32, bytes([2]) * 32)
        server = ShadowsocksListener(exit_, Target("127.0.0.1", 0), method, password, "127.0.0.1", users)

        async def answered(one: socket.socket, packets: Packets) -> bool:
            one.send(packets.seal(there.datagrams, b"hello"))
            try:
                packet = await asyncio.wait_for(loop.sock_recv(one, 2000), 5)
            except TimeoutError:
                return False
            return packets.open(packet) == (there.datagrams, b"hello")

        def session(user: bytes) -> Packets:
            return cipher_of(method, f"{password}:{b64encode(user).decode()}").packets()

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.connect(tuple(server.at))
            async with echoes() as there:
                mine = session(users[1])
                assert await answered(one, mine)
                for _ in range(20):
                    assert await answered(one, session(users[0]))
                before = exit_.associations.taken
                assert await answered(one, mine)
                assert exit_.associations.taken == before == 5  # nobody's was ended for another's
        await server.close()
        exit_.close()

    run(story())


def test_datagrams_of_who_is_no_user_any_more_are_not_answered() -> None:
    method, password = "2022-blake3-aes-256-gcm", b64encode(bytes(32)).decode()
    users = (bytes([1]) * 32, bytes([2]) * 32)
    cipher = Sip022(method, password, secrets.token_bytes, time.time, users)
    packets = cipher.packet_server()
    mine = cipher_of(method, f"{password}:{b64encode(users[0]).decode()}").packets()
    session, target, _ = packets.open(mine.seal(Target("192.0.2.1", 53), b"x"), 0)
    assert packets.seal(session, target, b"y")
    cipher.admit(users[1:])
    with pytest.raises(ShadowsocksError):
        packets.seal(session, target, b"y")


def test_one_user_s_sessions_of_datagrams_push_nobody_else_s_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadowsocks_2022, "SESSIONS_MAX", 8)
    method, password = "2022-blake3-aes-256-gcm", b64encode(bytes(32)).decode()
    users = (bytes([1]) * 32, bytes([2]) * 32)
    cipher = Sip022(method, password, secrets.token_bytes, time.time, users)
    server = cipher.packet_server()

    def packet(user: bytes) -> bytes:
        client = cipher_of(method, f"{password}:{b64encode(user).decode()}").packets()
        return client.seal(Target("192.0.2.1", 53), b"x")

    mine = packet(users[0])
    session, target, _ = server.open(mine, 0)
    theirs = [server.open(packet(users[1]), 0)[0] for _ in range(20)]
    assert server.seal(session, target, b"y")
    with pytest.raises(ReplayError):  # what was seen is still known
        server.open(mine, 0)
    for one in theirs[-4:]:
        assert server.seal(one, target, b"y")
    with pytest.raises(ShadowsocksError):
        server.seal(theirs[0], target, b"y")
    cipher.admit(users[:1])
    assert isinstance(server, shadowsocks_2022._PacketServer)
    server.open(packet(users[0]), 0)
    cipher.admit((*users[:1], bytes([3]) * 32))
    server.open(packet(bytes([3]) * 32), 0)
    assert len(server._sessions) == 3  # and what is of nobody any more was forgotten


PROBES: dict[str, Callable[[str], bytes]] = {
    "chance": lambda method: Random(1).randbytes(600),
    "http": lambda method: b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n",
    "short": lambda method: b"\0" * 10,
    "changed salt": lambda method: changed(hello(method), 0),
    "changed header": lambda method: changed(hello(method), 45),
    "changed end": lambda method: changed(hello(method), -1),
}


@pytest.mark.parametrize("method", PASSWORDS)
@pytest.mark.parametrize("probe", PROBES)
def test_strangers_get_no_byte_and_no_end_until_they_end(method: str, probe: str) -> None:
    async def main() -> None:
        async with serving(method) as server:
            reader, writer = await asyncio.open_connection(*server.at)
            writer.write(PROBES[probe](method))
            assert await is_silent(reader)
            writer.write(Random(2).randbytes(300_000))
            await writer.drain()
            assert await is_silent(reader)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 5) == b""  # an end, and no reset
            writer.close()
            assert not server.unknown

    run(main())


@pytest.mark.parametrize("method", PASSWORDS)
def test_a_replay_of_a_client_gets_no_byte(method: str) -> None:
    async def main() -> None:
        async with serving(method) as server:
            wire = hello(method)
            reader, writer = await asyncio.open_connection(*server.at)
            writer.write(wire)
            assert await reader.read(100)
            again, other = await asyncio.open_connection(*server.at)
            other.write(wire)
            assert await is_silent(again)
            assert server.turned_away == {"replay": 1}
            writer.close()
            other.close()

    run(main())


@pytest.mark.parametrize("ahead_s", [-40, 40])
def test_a_client_whose_clock_is_wrong_is_counted_as_such(ahead_s: int) -> None:
    async def main() -> None:
        async with serving(NEW) as server:
            reader, writer = await asyncio.open_connection(*server.at)
            writer.write(hello(NEW, ahead_s=ahead_s))
            assert await is_silent(reader)
            assert server.turned_away == {"wrong-clock": 1}
            writer.close()

    run(main())


@pytest.mark.parametrize("method", PASSWORDS)
def test_a_first_packet_may_come_byte_by_byte(method: str) -> None:
    async def main() -> None:
        async with serving(method) as server:
            reader, writer = await asyncio.open_connection(*server.at)
            for byte in hello(method):
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0)
            assert await reader.read(100)
            writer.close()

    run(main())


@pytest.mark.parametrize("method", PASSWORDS)
def test_who_knows_the_key_still_gets_into_no_private_network(method: str) -> None:
    async def main() -> None:
        async with serving(method, Policy()) as server, gate_to(server) as gate, echoes() as there:
            reader, writer = await connect(gate, there.streams)
            writer.write(b"hello")
            assert await reader.read() == b""
            writer.close()
            with pytest.raises(AssertionError):
                await echo_datagrams(gate, there.datagrams, (10,), attempts=1)
            await echo_hashes(gate, ECHO, 64 << 10)

    run(main())


def test_connections_that_say_nothing_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.rooms.reach.io.shadowsocks_server.UNKNOWN_MAX", 10)

    async def main() -> None:
        async with serving(NEW) as server:
            silent = [await asyncio.open_connection(*server.at) for _ in range(15)]
            for reader, _ in silent[:5]:
                assert await asyncio.wait_for(reader.read(), 5) == b""
            assert len(server.unknown) == 10
            for _, writer in silent:
                writer.close()

    run(main())


@pytest.mark.serial
def test_a_thousand_streams_at_once_arrive_and_leave_nothing_behind() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(NEW) as server, gate_to(server) as gate:
            await echo_hashes(gate, ECHO, 100)  # what is opened once is open
            before = open_files()
            together = asyncio.Barrier(1000)

            async def one(number: int) -> None:
                reader, writer = await connect(gate, ECHO)
                said = number.to_bytes(4, "big") * 1000
                writer.write(said[:8])
                assert await reader.readexactly(8) == said[:8]
                await together.wait()  # now all of them are open
                writer.write(said[8:])
                writer.write_eof()
                assert await reader.read() == said[8:]
                writer.close()

            await asyncio.gather(*map(one, range(1000)))
            async with asyncio.timeout(10):
                while yard_of(loop).pumps or server.pumps or open_files() > before:
                    await asyncio.sleep(0)

    run(main())


def open_files() -> int:
    """How many files and sockets this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_closing_ends_streams_and_frees_the_port() -> None:
    async def main() -> None:
        async with serving(NEW) as server, gate_to(server) as gate:
            reader, writer = await connect(gate, ECHO)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            at = server.at
        with pytest.raises(OSError, match="reset"):
            assert await reader.read() == b""
        writer.close()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind(at)

    run(main())
