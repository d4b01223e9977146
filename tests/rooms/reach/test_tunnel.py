"""The mux between a tunnel and a hub over real sockets."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.proto.mux import Hello, write_hello
from tests.rooms.reach.tunnels import Border, Bridge, Local, Visitor


def test_what_is_sent_through_the_mux_comes_back_as_it_was() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            for size in (0, 1, 70_000, 5_000_000):
                await bridge.send_and_compare(os.urandom(size))
            assert bridge.accepted == 1
            assert not bridge.hub.streams

    asyncio.run(story())


def test_a_thousand_streams_share_one_outer_connection() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            await asyncio.gather(*(bridge.send_and_compare(os.urandom(3000)) for _ in range(1000)))
            assert bridge.accepted == 1
            assert not bridge.hub.streams

    asyncio.run(story())


def test_a_client_hears_success_only_when_the_target_has_answered() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.echo = bridge.echo._replace(port=1)
            with pytest.raises(ConnectionRefusedError, match="REFUSED"):
                await bridge.visit()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("border", "size"),
    [({"freeze_bytes": 16_384}, 8), ({"cut_bytes": 300_000}, 20), ({"cut_s": 0.3}, 60), ({"cut_bytes": 16_384}, 2)],
    ids=["frozen after 16 KB", "cut after 300 KB", "cut every 0.3 s", "cut after 16 KB"],
)
def test_a_stream_survives_a_border_that_freezes_or_cuts_its_connections(border: dict[str, int], size: int) -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at, **border)
            await bridge.send_and_compare(os.urandom(size * 1_000_000))
            assert bridge.border.frozen + bridge.border.cut > 0
            assert bridge.most_at_once <= 3

    asyncio.run(story())


def test_short_hops_keep_below_what_an_outer_froze_at() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at, freeze_bytes=16_384)
            await bridge.send_and_compare(os.urandom(2_000_000))
            assert bridge.border.frozen == 1
            assert bridge.tunnel.frozen_at_bytes == 16_384

    asyncio.run(story())


def test_datagrams_find_their_association() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            came: asyncio.Queue[tuple[int, Target, bytes]] = asyncio.Queue()
            await bridge.send_and_compare(b"the way is open")
            for number in range(3):
                association = bridge.tunnel.associate(
                    b"", lambda source, data, number=number: came.put_nowait((number, source, data))
                )
                assert association is not None
                association.send(Target("192.0.2.7", number), bytes([number]))
            found = {await came.get() for _ in range(3)}
            assert found == {(number, Target("192.0.2.7", number), bytes([number])) for number in range(3)}

    asyncio.run(story())


def test_streams_of_different_isolation_share_no_outer_connection() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            for isolation in (b"", b"one", b"two", b"one"):
                _, writer = await bridge.visit(isolation=isolation)
                writer.close()
            assert bridge.accepted == bridge.hub.sessions == 3

    asyncio.run(story())


def test_each_direction_of_a_stream_ends_for_itself() -> None:
    async def story() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"all of " + await reader.read(-1))
            writer.close()

        async with Bridge() as bridge, await asyncio.start_server(answer, "127.0.0.1", 0) as target:
            reader, writer = await bridge.visit(Target("127.0.0.1", target.sockets[0].getsockname()[1]))
            writer.write(b"it")
            writer.write_eof()
            assert await reader.read(-1) == b"all of it"
            writer.close()

    asyncio.run(story())


def test_a_client_that_reads_nothing_holds_its_own_stream_up_and_no_other() -> None:
    async def story() -> None:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            while True:
                writer.write(bytes(65_536))
                sent += 65_536
                try:
                    await asyncio.wait_for(writer.drain(), 0.5)
                except (TimeoutError, ConnectionError):
                    stuck.set()
                    writer.transport.abort()
                    return

        stuck = asyncio.Event()
        async with Bridge() as bridge, await asyncio.start_server(flood, "127.0.0.1", 0) as target:
            visitor = Visitor(Target("127.0.0.1", target.sockets[0].getsockname()[1]))
            bridge.tunnel.carry(visitor)
            with await visitor.way:
                await stuck.wait()
                assert sent < 40_000_000
                await bridge.send_and_compare(os.urandom(1_000_000))

    asyncio.run(story())


def test_small_buffers_and_reads_of_one_byte_change_nothing() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            visitor = Visitor(bridge.echo, small=True)
            bridge.tunnel.carry(visitor)
            near = await visitor.way
            data, came = os.urandom(200_000), bytearray()
            with near:
                sending = asyncio.ensure_future(bridge.loop.sock_sendall(near, data))
                while len(came) < 1000:
                    came += await bridge.loop.sock_recv(near, 1)
                while len(came) < len(data):
                    came += await bridge.loop.sock_recv(near, 777)
                await sending
            assert bytes(came) == data

    asyncio.run(story())


def test_a_session_that_the_server_no_longer_has_begins_anew_and_its_streams_are_cut() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            reader, writer = await bridge.visit()
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            bridge.hub.close()
            bridge.hub = Hub(Local(bridge.loop))
            assert await reader.read(1) == b""
            writer.close()
            await bridge.send_and_compare(b"anew")

    asyncio.run(story())


def test_an_association_outlives_its_session_and_shares_its_number_with_no_other() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            target, heard = Target("192.0.2.7", 53), asyncio.Queue[tuple[str, bytes]]()
            first = bridge.tunnel.associate(b"", lambda _, data: heard.put_nowait(("first", data)))
            assert first is not None
            reader, writer = await bridge.visit()
            bridge.hub.close()
            bridge.hub = Hub(Local(bridge.loop))
            assert await reader.read(1) == b""
            writer.close()
            await bridge.send_and_compare(b"anew")
            second = bridge.tunnel.associate(b"", lambda _, data: heard.put_nowait(("second", data)))
            assert second is not None
            for association, data in ((first, b"a"), (second, b"b")):
                association.send(target, data)
            async with asyncio.timeout(10):
                assert {await heard.get(), await heard.get()} == {("first", b"a"), ("second", b"b")}
            first.close()
            second.send(target, b"c")
            async with asyncio.timeout(10):
                assert await heard.get() == ("second", b"c")

    asyncio.run(story())


def test_a_link_with_a_wrong_secret_or_a_wrong_clock() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            hour = 3600
            bridge.hub.close()
            bridge.hub = Hub(Local(bridge.loop), clock=lambda: time.time() + 48 * hour)
            await bridge.send_and_compare(b"told the time, and once more")
            assert bridge.accepted == 2

            bridge.secret = os.urandom(32)
            heard: asyncio.Queue[OutlastError | None] = asyncio.Queue()
            wrong = Tunnel(_closing(bridge), os.urandom(32), changed=lambda up, error: heard.put_nowait(error))
            wrong.warm()
            assert "closed" in str(await heard.get())
            wrong.close()

    asyncio.run(story())


def test_a_bridge_that_says_it_is_the_end_of_time_is_one_that_fails_and_is_asked_again() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.hub.close()
            bridge.hub = Hub(Local(bridge.loop), clock=lambda: 2**64 - 1)
            heard: asyncio.Queue[OutlastError | None] = asyncio.Queue()
            tunnel = Tunnel(bridge.open_outer, bridge.secret, changed=lambda up, error: heard.put_nowait(error))
            tunnel.warm()
            for _ in range(2):
                assert "busy" in str(await asyncio.wait_for(heard.get(), 20))
            tunnel.close()

    asyncio.run(story())


def _closing(bridge: Bridge) -> Callable[[], Awaitable[Outer]]:
    """Outers that end as the hub's patience with strangers does."""

    async def opened() -> Outer:
        outer = await bridge.open_outer()
        bridge.loop.call_later(0.2, bridge.send_strangers_away)
        return outer

    return opened


def test_a_recorded_greeting_is_answered_once() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            hello = Hello(os.urandom(16), True, 1, os.urandom(16), int(time.time()), 0)
            recorded = write_hello(hello, bridge.secret)
            answers = []
            for _ in range(2):
                reader, writer = await asyncio.open_connection(bridge.at.host, bridge.at.port)
                writer.write(recorded)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        answers.append(await reader.read(7))
                writer.close()
            assert [answer[4] for answer in answers] == [2]

    asyncio.run(story())


def test_nothing_is_left_of_streams_and_outers_that_ended() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            await bridge.send_and_compare(b"first")
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(5):
                await asyncio.gather(*(bridge.send_and_compare(os.urandom(20_000)) for _ in range(40)))
                await asyncio.gather(*(bridge.hang_up() for _ in range(20)))
            while bridge.hub.streams:
                await asyncio.sleep(0.01)
            while len(os.listdir("/proc/self/fd")) > before + 2:
                await asyncio.sleep(0.01)
            assert bridge.accepted == 1

    asyncio.run(story())


def test_who_asks_for_a_way_when_the_server_has_forgotten_the_session_gets_one() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at)
            await bridge.send_and_compare(b"before")
            bridge.border.shut()
            bridge.hub.close()
            bridge.hub = Hub(Local(bridge.loop))
            asking = asyncio.ensure_future(bridge.send_and_compare(b"after"))
            await asyncio.sleep(0)
            await asking

    asyncio.run(story())
