"""A share of the own uplink on this machine: own traffic goes first, and what the line carries is read from Linux."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable

import msgspec
import pytest

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.lending import METHOD, Lending, Lent, Share, Shares, counted
from outlast.rooms.reach.io.pump import yard_of
from outlast.rooms.reach.io.relay import Config, Relay
from outlast.rooms.reach.io.shadowsocks import cipher_of
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.shadowsocks import turn_whole
from outlast.rooms.reach.proto.token_bucket import LEFT_MIN_PER_S, OWN_QUIET_PER_S, leftover_per_s

HERE = "127.0.0.1"
ROUTES = "Iface\tDestination\tGateway\nwlan0\t0000FEA9\t00000000\neth0\t00000000\t0101A8C0\n"
COUNTERS = """Inter-|   Receive  |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  999999 10 0 0 0 0 0 0 999999 10 0 0 0 0 0 0
  eth0:    1000 10 0 0 0 0 0 0    234 10 0 0 0 0 0 0
"""


class Line:
    """What the interface has carried, and who hears that it was looked at."""

    def __init__(self) -> None:
        self.carried = 0
        self._looked = asyncio.Event()

    def __call__(self) -> int:
        self._looked.set()
        return self.carried

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for what a look brings about."""
        async with asyncio.timeout(10):
            while not true():
                self._looked.clear()
                await self._looked.wait()


def share(number: int = 0, port: int = 0) -> Share:
    """What one member gets."""
    return Share(bytes([number]) * 16, bytes([number]) * 32, port, (Target("192.0.2.1", 443),), 0)


def test_the_line_is_the_one_of_the_default_route_and_counts_both_ways() -> None:
    assert counted(ROUTES, COUNTERS) == 1234
    assert counted(ROUTES.replace("eth0", "ppp0"), COUNTERS) is None
    assert counted("", "") is None
    assert counted(ROUTES, COUNTERS.replace("1000", "many")) is None


def test_others_get_a_quarter_of_what_the_owner_takes_and_always_enough_for_letters() -> None:
    assert leftover_per_s(OWN_QUIET_PER_S - 1) is None
    assert leftover_per_s(OWN_QUIET_PER_S) == LEFT_MIN_PER_S
    assert leftover_per_s(4_000_000) == 1_000_000


def test_while_the_owner_uses_the_line_members_wait_and_afterwards_no_more() -> None:
    async def story() -> None:
        line, told = Line(), list[Lent]()
        lending = Lending(asyncio.get_running_loop(), Shares((HERE,), (share(),)), told.append, line)
        (member,) = lending._members
        try:
            assert member._meter(100_000) == 0.0, "the line is free"
            line.carried += 50_000_000
            await line.until(lambda: lending.bucket is not None)
            assert lending.bucket is not None
            assert lending.bucket.per_s > OWN_QUIET_PER_S
            assert member._meter(10_000_000) > 0.2
            await line.until(lambda: lending.bucket is None)
            assert member._meter(100_000) == 0.0
        finally:
            await lending.close()
        assert told[-1].spent == 10_200_000

    asyncio.run(story())


def test_what_members_themselves_take_holds_them_not_back() -> None:
    async def story() -> None:
        line = Line()
        lending = Lending(asyncio.get_running_loop(), Shares((HERE,), (share(),)), lambda _: None, line)
        (member,) = lending._members
        try:
            seen = lending._seen
            member._meter(5_000_000)
            line.carried += 2 * 5_000_000
            await line.until(lambda: lending._seen is not seen)
            assert lending.bucket is None
        finally:
            await lending.close()

    asyncio.run(story())


def test_each_member_has_a_port_of_their_own_and_a_taken_one_is_replaced() -> None:
    async def story() -> None:
        with listen(Target(HERE, 0)) as taken:
            port = int(taken.getsockname()[1])
            told: list[Lent] = []
            shares = Shares((HERE,), (share(1, port), share(2)))
            lending = Lending(asyncio.get_running_loop(), shares, told.append)
            await lending.close()
        ports = {one.number: one.port for one in told}
        assert len(set(ports.values()) | {port}) == 3

    asyncio.run(story())


def test_an_address_that_this_machine_does_not_have_is_refused_and_nothing_stays_open() -> None:
    async def story() -> None:
        with pytest.raises(UsageError, match="cannot listen"):
            Lending(asyncio.get_running_loop(), Shares(("192.0.2.1",), (share(),)), lambda _: None)

    asyncio.run(story())


def test_a_member_who_names_other_targets_has_used_what_they_used_and_ends_no_stream_of_another() -> None:
    async def story() -> None:
        told: list[Lent] = []
        relay = Relay(lambda event: told.append(event) if isinstance(event, Lent) else None)
        first, second = share(1), share(2)
        try:
            await relay.start(Config(shares=Shares((HERE,), (first, second), day_bytes=1000)))
            ports = {one.number: one.port for one in told}
            reader, writer = await asyncio.open_connection(HERE, ports[second.number])
            async with asyncio.timeout(10):
                assert relay._lending is not None
                while not all(listener.unknown for listener in relay._lending._members[1]._listeners):
                    await asyncio.sleep(0)
            relay._lending._members[0]._meter(900)
            elsewhere = msgspec.structs.replace(first, targets=(Target("192.0.2.2", 443),))
            await relay.start(Config(shares=Shares((HERE,), (elsewhere, second), day_bytes=1000)))
            assert {one.number: (one.port, one.spent) for one in told} == {
                first.number: (ports[first.number], 900),
                second.number: (ports[second.number], 0),
            }
            assert relay._lending.all.spent == 900
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(1)
            moved = msgspec.structs.replace(elsewhere, key=b"n" * 32)
            await relay.start(Config(shares=Shares((HERE,), (moved,), day_bytes=1000)))
            assert told[-1].spent == 900, "also under another key"
            await relay.start(Config())
            told.clear()
            await relay.start(Config(shares=Shares((HERE,), (moved,), day_bytes=1000)))
            assert told[-1].spent == 900, "also when nothing was lent meanwhile"
            assert await reader.read(1) == b"", "who is no member any more is sent away"
            writer.close()
        finally:
            await relay.close()

    asyncio.run(story())


def test_bytes_that_come_with_a_request_count_as_all_others_do() -> None:
    async def story() -> None:
        loop, told, heard = asyncio.get_running_loop(), list[Lent](), list[bytes]()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readexactly(30_000))
            writer.close()

        server = await asyncio.start_server(hear, HERE, 0)
        target = Target(*server.sockets[0].getsockname()[:2])
        mine = msgspec.structs.replace(share(1), targets=(target,))
        lending = Lending(loop, Shares((HERE,), (mine,), policy=allowing_private()), told.append)
        sealer, _ = cipher_of(METHOD, b64encode(mine.key).decode()).request(target)
        yard = yard_of(loop)
        try:
            _, writer = await asyncio.open_connection(HERE, told[0].port)
            writer.write(turn_whole(sealer, bytes(30_000), yard.into, yard.out))
            async with asyncio.timeout(10):
                while not heard:
                    await asyncio.sleep(0)
            assert lending.all.spent >= 30_000
            writer.close()
        finally:
            await lending.close()
            server.close()

    asyncio.run(story())
