"""What a member of a bridge who keeps no rule can do to it, and to the others on it, over real sockets."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import pytest

from outlast import address
from outlast.address import Target
from outlast.rooms.reach.io import exit as exits
from outlast.rooms.reach.io import hub as hubs
from outlast.rooms.reach.io.direct import direct
from outlast.rooms.reach.io.exit import ECHO, Exit
from outlast.rooms.reach.io.forward import Forward
from outlast.rooms.reach.io.hub import SESSIONS_MAX, Hub
from outlast.rooms.reach.io.listener import Listener
from outlast.rooms.reach.io.outer import TcpOuter
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.mux import HEADER_BYTES, Hello, Status, Type, data_frame, frame, write_hello
from tests.rooms.reach.test_exit import silent
from tests.rooms.reach.through import echoes

OURS, THEIRS = bytes(32), bytes(range(32))


class Served:
    """A hub with an exit, on loopback; each user has a port of their own, as each has a path of their own."""

    def __init__(self, users: Sequence[bytes]) -> None:
        self.loop = asyncio.get_running_loop()
        self.exit = Exit(self.loop, allowing_private())
        self.hub = Hub(self.exit)
        self.outers: list[TcpOuter] = []
        self.ports: dict[bytes, int] = {}
        self._listeners = []
        for user in users:
            listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            listener.setblocking(False)
            self.loop.add_reader(listener, self._accept, listener, user)
            self.ports[user] = listener.getsockname()[1]
            self._listeners.append(listener)

    def _accept(self, listener: socket.socket, user: bytes) -> None:
        outer = TcpOuter(self.loop, listener.accept()[0])
        self.outers.append(outer)
        self.hub.accept(outer, (user,))

    def close(self) -> None:
        self.hub.close()
        self.exit.close()
        for listener in self._listeners:
            self.loop.remove_reader(listener)
            listener.close()


@asynccontextmanager
async def served(*users: bytes) -> AsyncIterator[Served]:
    server = Served(users)
    try:
        yield server
    finally:
        server.close()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(server: Served, user: bytes) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.ports[user], limit=1 << 20)


async def hear(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """The next frame that is not padding."""
    async with asyncio.timeout(10):
        while True:
            head = await reader.readexactly(HEADER_BYTES)
            body = await reader.readexactly(int.from_bytes(head[5:7], "big"))
            if head[4] not in (Type.PADDING, Type.ACK):
                return int.from_bytes(head[:4], "big"), head[4], body


async def greet(streams: Streams, user: bytes, *, new: bool = True) -> Status:
    reader, writer = streams
    writer.write(write_hello(Hello(os.urandom(16), new, 1, os.urandom(16), int(time.time()), 0), user))
    _, kind, body = await hear(reader)
    assert kind == Type.WELCOME
    return Status(body[1])


async def member(server: Served, user: bytes) -> Streams:
    streams = await dial(server, user)
    assert await greet(streams, user) is Status.NEW
    return streams


def opening(stream: int, target: Target, early: bytes = b"") -> bytes:
    return frame(stream, Type.OPEN, address.encode(target) + early)


def test_who_asks_and_reads_no_answer_is_not_remembered_without_bound() -> None:
    async def story() -> None:
        async with served(OURS) as server:
            _, writer = await member(server, OURS)
            asked = frame(0, Type.PING, bytes(64)) * 1000
            most, sent = 0, 0
            while sent < 60 << 20 and not server.outers[0]._closed:
                writer.write(asked)
                sent += len(asked)
                most = max(most, server.outers[0].unsent)
                await asyncio.sleep(0)
            assert most < 3 << 20
            writer.transport.abort()

    asyncio.run(story())


def test_who_opens_streams_and_acknowledges_nothing_is_not_remembered_without_bound() -> None:
    async def story() -> None:
        async with served(OURS) as server:
            reader, writer = await member(server, OURS)
            (kept,) = server.hub._sessions.values()
            reading = asyncio.ensure_future(reader.read(-1))
            for first in range(1, 600_000, 1000):
                writer.write(b"".join(frame(stream, Type.OPEN, b"\7") for stream in range(first, first + 1000)))
                await asyncio.sleep(0)
                if reader.at_eof() or not server.hub.sessions:
                    break
                await asyncio.sleep(0)
            assert sum(len(line.log) for line in kept.end.session.lines.values()) < 300_000
            reading.cancel()
            writer.transport.abort()

    asyncio.run(story())


def test_first_bytes_of_many_streams_are_bounded_as_later_ones_are() -> None:
    async def story() -> None:
        with silent("127.0.0.1") as port:
            async with served(OURS) as server:
                reader, writer = await member(server, OURS)
                (kept,) = server.hub._sessions.values()
                early = bytes(65_000)
                for stream in range(1, 1300):
                    writer.write(opening(stream, Target("127.0.0.1", port), early))
                    await writer.drain()
                number, kind, _ = await hear(reader)
                assert (number > 900, kind) == (True, Type.REFUSED)
                assert kept.end.session._undelivered < 65 << 20
                writer.transport.abort()

    asyncio.run(story())


def test_who_was_shut_out_does_not_come_in_by_an_outer_that_was_there_before() -> None:
    async def story() -> None:
        async with served(OURS, THEIRS) as server:
            waiting = await dial(server, OURS)
            other = await dial(server, THEIRS)
            while len(server.outers) < 2:
                await asyncio.sleep(0)
            server.hub.keep([THEIRS])
            assert await greet(other, THEIRS) is Status.NEW
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await greet(waiting, OURS)
            assert server.hub.sessions == 1
            for _, writer in (waiting, other):
                writer.close()

    asyncio.run(story())


@pytest.mark.parametrize("greeting", [b"", b"for a session that is none"], ids=["silent", "refused"])
def test_outers_of_one_member_that_lead_to_no_session_keep_no_other_member_out(
    greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "STRANGERS_MAX", 20)
    monkeypatch.setattr(hubs, "STRANGERS_ALIKE_MAX", 10)

    async def story() -> None:
        async with served(OURS, THEIRS) as server:
            held = []
            for count in range(30):
                held.append(await dial(server, OURS))
                while len(server.outers) <= count:
                    await asyncio.sleep(0)
                if greeting:
                    assert await greet(held[-1], OURS, new=False) is Status.GONE
            held += [await member(server, user) for user in (THEIRS, OURS)]
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(story())


def test_one_member_s_waiting_streams_leave_room_for_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "STREAMS_MAX", 40)

    async def story() -> None:
        with silent("127.0.0.1") as port:
            async with served(OURS, THEIRS) as server:
                reader, writer = await member(server, OURS)
                again, second = await member(server, OURS)
                for one in (writer, second):
                    one.write(b"".join(opening(stream, Target("127.0.0.1", port)) for stream in range(1, 31)))
                assert (await hear(reader))[1] == (await hear(again))[1] == Type.REFUSED
                heard, other = await member(server, THEIRS)
                other.write(opening(1, ECHO))
                assert (await hear(heard))[1] == Type.ACCEPTED
                for one in (writer, second, other):
                    one.transport.abort()

    asyncio.run(story())


def test_what_one_member_s_targets_do_not_take_is_bounded_over_all_their_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hubs, "UNDELIVERED_OF_USER_BYTES", 4 << 20)
    size, piece = 240_000, bytes(16_000)

    def upload(stream: int, port: int) -> bytes:
        pieces = (data_frame(stream, at, memoryview(piece)) for at in range(0, size, len(piece)))
        return opening(stream, Target("127.0.0.1", port)) + b"".join(pieces)

    async def story() -> None:
        with silent("127.0.0.1") as port:
            async with served(OURS, THEIRS) as server, echoes() as target:
                small, few = await member(server, OURS)
                few.write(upload(1, port))
                hogs = [await member(server, OURS) for _ in range(3)]
                for _, writer in hogs:
                    for stream in range(1, 31):
                        writer.write(upload(stream, port))
                for reader, _ in hogs:
                    assert (await hear(reader))[1] in (Type.RESET, Type.REFUSED)
                one, *others = [kept.end.session for kept in server.hub._of_user[sha256(OURS).digest()]]
                assert one._undelivered == size
                assert sum(other._undelivered for other in others) < 8 << 20
                few.write(opening(2, target.streams, b"hello"))
                assert (await hear(small))[:2] == (2, Type.ACCEPTED)
                heard, other = await member(server, THEIRS)
                other.write(upload(1, port) + opening(2, target.streams))
                assert (await hear(heard))[:2] == (2, Type.ACCEPTED)
                stock = one._stock
                for writer in (few, other, *(writer for _, writer in hogs)):
                    writer.write(frame(0, Type.GOODBYE))
                while server.hub.sessions:
                    await asyncio.sleep(0)
                assert stock.held_bytes == 0

    asyncio.run(story())


def test_one_member_s_streams_are_bounded_over_all_their_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "STREAMS_OF_USER_MAX", 20)

    async def story() -> None:
        async with served(OURS) as server:
            kinds: list[int] = []
            for _ in range(2):
                reader, writer = await member(server, OURS)
                writer.write(b"".join(opening(stream, ECHO) for stream in range(1, 16)))
                kinds += [(await hear(reader))[1] for _ in range(15)]
            assert (kinds.count(Type.ACCEPTED), kinds.count(Type.REFUSED)) == (20, 10)

    asyncio.run(story())


def test_clients_who_share_one_secret_are_not_bounded_as_one_member(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("STREAMS_OF_USER_MAX", "STRANGERS_ALIKE_MAX"):
        monkeypatch.setattr(hubs, bound, 20)

    async def story() -> None:
        async with served(OURS) as server:
            server.hub = Hub(server.exit, sessions_of_user_max=SESSIONS_MAX)
            held = [await dial(server, OURS) for _ in range(30)]
            for streams in held:
                assert await greet(streams, OURS) is Status.NEW
                streams[1].write(opening(1, ECHO))
                assert (await hear(streams[0]))[1] == Type.ACCEPTED
            for _, writer in held:
                writer.transport.abort()

    asyncio.run(story())


def test_one_member_s_datagrams_leave_room_for_another_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "DATAGRAMS_MAX", 40)

    async def story() -> None:
        async with served(OURS, THEIRS) as server, echoes() as target:
            to = address.encode(target.datagrams)
            many = b"".join(frame((1 << 31) + one, Type.DATAGRAM, to + b"x") for one in range(30))
            for _ in range(2):
                reader, writer = await member(server, OURS)
                writer.write(many)
                await hear(reader)
            heard, other = await member(server, THEIRS)
            other.write(frame(1 << 31, Type.DATAGRAM, to + b"hello"))
            assert (await hear(heard))[2].endswith(b"hello")
            other.close()

    asyncio.run(story())


def test_datagrams_go_on_after_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "SILENCE_S", 0.2)
    monkeypatch.setattr(hubs, "SILENCE_S", 0.1)

    async def story() -> None:
        async with served(OURS) as server, echoes() as target:
            reader, writer = await member(server, OURS)
            asked = frame(1 << 31, Type.DATAGRAM, address.encode(target.datagrams) + b"hello")
            writer.write(asked)
            assert (await hear(reader))[1] == Type.DATAGRAM
            while server.exit.associations.taken:
                await asyncio.sleep(0.02)
            writer.write(asked)
            assert (await hear(reader))[1] == Type.DATAGRAM
            writer.close()

    asyncio.run(story())


def test_a_forward_without_files_to_open_rests_until_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    class Watched(Listener):
        def _accept(self) -> None:
            nonlocal turns
            turns += 1
            super()._accept()

    async def story() -> None:
        monkeypatch.setattr("outlast.rooms.reach.io.forward.Listener", Watched)
        exit_ = Exit(asyncio.get_running_loop(), allowing_private())
        forward = Forward(asyncio.get_running_loop(), direct(exit_), ECHO)
        one = socket.socket()
        one.settimeout(5)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        held = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
            with suppress(OSError):
                while True:
                    held.append(os.dup(0))
            one.connect(forward.at)
            await asyncio.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for number in held:
                os.close(number)
        assert 0 < turns < 10
        one.sendall(b"hello")
        assert await asyncio.to_thread(one.recv, 5) == b"hello"
        one.close()
        forward.close()
        exit_.close()

    asyncio.run(story())
