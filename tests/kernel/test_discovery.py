"""Nodes that find each other in a local network, which here is this machine's loopback with real multicast."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zeroconf.asyncio
from zeroconf import DNSAddress, DNSOutgoing, DNSPointer, DNSService, DNSText, const

from outlast.kernel import discovery, neighbours
from outlast.kernel.discovery import Discovery, Lookout
from outlast.kernel.links import beacon, lan
from outlast.kernel.person import Person
from tests.kernel.society import Society, befriend, friends, hears, society, story, until, write

pytestmark = pytest.mark.serial

LOOPBACK = ipaddress.IPv4Interface("127.0.0.1/8")
NOWHERE = 1
"""A port at which nothing listens."""


async def look(person: Person, mode: Discovery = Discovery.NEIGHBOURS) -> int:
    """Let that node listen and look around; its port."""
    person.node.lookout = Lookout(person.node, lambda: [LOOPBACK])
    port = await person.node.listen("127.0.0.1", 0)
    await person.node.lookout.look(mode, port)
    return port


async def add(one: Person, other: Person) -> None:
    """The one has added the other's node, which has moved since."""
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", NOWHERE)


def is_connected(person: Person) -> bool:
    return any(live.in_step for live in person.node.neighbours._live)


@asynccontextmanager
async def listening() -> AsyncIterator[dict[str, lan.Heard]]:
    """Somebody else who hears all that is announced here, by name."""
    heard: dict[str, lan.Heard] = {}
    segment = await lan.Segment.open(LOOPBACK, lambda one: heard.update({one.name: one}))
    try:
        yield heard
    finally:
        await segment.close()


async def added(nodes: Society) -> tuple[Person, Person]:
    """Friends whose nodes have added each other."""
    anna, boris = await friends(nodes)
    await add(anna, boris)
    await add(boris, anna)
    return anna, boris


@story
async def test_neighbours_that_were_added_find_each_other_wherever_they_are_now(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await added(nodes)
        for person in (anna, boris):
            await look(person)
        await write(anna, boris, "found you")
        await hears(boris, "found you")
        (peer,) = anna.node.peers()
        assert (peer.node, peer.port) == (boris.node.transport_id, NOWHERE), "the address that was given stays"


@story
async def test_nobody_is_found_or_announced_by_a_node_that_was_not_told_to_look(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await added(nodes)
        assert anna.node.discovery is Discovery.OFF
        async with listening() as heard:
            await look(boris)
            await until(lambda: bool(boris.node.lookout._segments), boris)
            while not heard:
                await asyncio.sleep(0)
            assert len(heard) == 1
        assert not anna.node.lookout._segments
        assert not is_connected(anna)


@story
async def test_an_observer_sees_other_names_and_other_beacons_each_time(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await added(nodes)
        seen: list[lan.Heard] = []
        async with listening() as heard:
            for _ in range(2):
                await look(anna)
                while not heard.keys() - {one.name for one in seen}:
                    await asyncio.sleep(0)
                seen += [one for name, one in heard.items() if name not in {other.name for other in seen}]
                await anna.node.lookout.stop()
        first, second = (beacon.read_fields(one.fields) for one in seen)
        assert first is not None
        assert second is not None
        assert first.nonce != second.nonce
        assert not first.beacons & second.beacons
        secret = {anna.node.transport_id, boris.node.transport_id, b"anna", anna.id.encode()}
        for one in seen:
            told = b"".join(value or b"" for value in one.fields.values()) + one.name.encode()
            assert not any(word in told for word in secret)


@story
async def test_a_new_neighbour_is_announced_to_without_a_restart(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
        for person in (anna, boris):
            await look(person)
        await befriend(anna, boris)
        await add(anna, boris)
        await add(boris, anna)
        await write(anna, boris, "now you know me")
        await hears(boris, "now you know me")


@story
async def test_a_neighbour_whose_key_is_none_does_not_make_a_node_announce_itself_again_and_again(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        await anna.node.peer_add(bytes(32), "127.0.0.1", NOWHERE)
        await look(anna)
        lookout = anna.node.lookout
        await until(lambda: bool(lookout._own), anna)
        for _ in range(5):
            await lookout._match()
        assert len(lookout._own) == 1


@story
async def test_a_network_that_was_gone_when_a_node_was_announced_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        with monkeypatch.context() as gone:
            gone.setattr(zeroconf.asyncio.AsyncZeroconf, "async_register_service", refuse)
            await look(anna)
            lookout = anna.node.lookout
            await lookout._match()
            assert not lookout._segments
        await lookout._match()
        (segment,) = lookout._segments.values()
        assert lookout._own == {segment.name}


async def refuse(*_: object, **__: object) -> None:
    raise zeroconf.NotRunningException


@pytest.mark.parametrize("both", [True, False])
def test_strangers_meet_only_where_both_sides_allow_it(tmp_path: Path, both: bool) -> None:
    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
            await befriend(anna, boris)
            await write(anna, boris, "through whoever is here")
            port = await look(boris, Discovery.STRANGERS if both else Discovery.NEIGHBOURS)
            await look(anna, Discovery.STRANGERS)
            if both:
                await hears(boris, "through whoever is here")
                assert anna.node.peers() == boris.node.peers() == [], "nobody's name is known"
                await boris.node.lookout.stop()
                await until(lambda: not boris.node.neighbours._live, boris)
            else:
                # Whoever calls all the same is not let in.
                anna.node.neighbours.visit("127.0.0.1", port)
                await asyncio.gather(*anna.node.neighbours._visits.values())
                assert not boris.node.neighbours._live
                assert boris.node.open_store.usage().entries == 0

    run()


@story
async def test_a_flood_of_announcements_costs_little_and_hides_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "LOOK_S", 0.5)
    async with society(tmp_path) as nodes:
        anna, boris = await added(nodes)
        await look(anna, Discovery.STRANGERS)
        await until(lambda: bool(anna.node.lookout._segments), anna)
        said = beacon.announce(
            boris.node.transport_id,
            beacon.pair_keys(boris.node.transport, [anna.node.transport_id]).values(),
            (LOOPBACK.ip, NOWHERE),
            os.urandom,
            strangers=True,
        )
        own = next(iter(anna.node.lookout._segments.values())).name
        for number in range(10_000):
            fields = beacon.to_fields(said)
            match number % 4:
                case 0:
                    fields = {b"n": os.urandom(16), b"b0": os.urandom(64), b"s": b"1"}
                case 1:
                    fields = {os.urandom(3): os.urandom(200), b"b0": os.urandom(number % 249)}
                case 2:
                    fields = beacon.to_fields(said) | {b"s": b"1"}
            name = own if number % 7 == 0 else os.urandom(8).hex()
            anna.node.lookout._heard(lan.Heard(name, LOOPBACK.ip, 2 + number % 60_000, fields))
        shell = anna.node.neighbours
        assert 0 < len(shell._visits) <= neighbours.VISITS_MAX
        assert anna.node.lookout._calls_left == 0
        assert not shell._found, "what was said for another port is not believed"
        assert anna.node.lookout._heard_left == 0
        # With the next look there is attention again.
        await look(boris)
        await write(anna, boris, "all the same")
        await hears(boris, "all the same")


@story
async def test_a_node_that_hears_itself_over_another_way_does_not_call_itself(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        await look(anna, Discovery.STRANGERS)
        async with listening() as heard:
            while not heard:
                await asyncio.sleep(0)
        lookout = anna.node.lookout
        (own,) = heard.values()
        lookout._heard(own)
        assert not anna.node.neighbours._visits
        lookout._heard(own._replace(name="z" * 16))
        assert anna.node.neighbours._visits.keys() == {("127.0.0.1", own.port)}, (
            "whoever else has such a name is called"
        )
        lookout._heard(own._replace(name="!", port=own.port % 60_000 + 1))
        assert len(anna.node.neighbours._visits) == 1, "of two strangers one calls"


def packet(name: str, text: bytes) -> bytes:
    """A whole announcement of somebody, as it comes over the network."""
    full, host = f"{name}.{lan.SERVICE}", f"{name}.local."
    out = DNSOutgoing(const._FLAGS_QR_RESPONSE | const._FLAGS_AA)
    out.add_answer_at_time(DNSPointer(lan.SERVICE, const._TYPE_PTR, const._CLASS_IN, 4500, full), 0)
    out.add_answer_at_time(DNSService(full, const._TYPE_SRV, const._CLASS_IN, 4500, 0, 0, NOWHERE, host), 0)
    out.add_answer_at_time(DNSText(full, const._TYPE_TXT, const._CLASS_IN, 4500, text), 0)
    out.add_answer_at_time(DNSAddress(host, const._TYPE_A, const._CLASS_IN, 4500, LOOPBACK.ip.packed), 0)
    (made,) = out.packets()
    return made


@story
async def test_packets_of_any_number_and_kind_fill_no_memory_and_keep_nobody_from_being_heard(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await added(nodes)
        await look(anna)
        await until(lambda: bool(anna.node.lookout._segments), anna)
        (segment,) = anna.node.lookout._segments.values()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as air:
            air.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, LOOPBACK.ip.packed)
            for number in range(10_000):
                text = os.urandom(number % 200)
                whole = packet(segment.name if number % 9 == 0 else os.urandom(8).hex(), text)
                cut = whole if number % 5 else whole[: number % len(whole)]
                air.sendto(cut, ("224.0.0.251", 5353))
                await asyncio.sleep(0)
        cache = segment._zeroconf.zeroconf.cache
        assert sum(len(records) for records in cache.cache.values()) <= const._MAX_CACHE_RECORDS
        assert not anna.node.neighbours._found
        await look(boris)
        await write(anna, boris, "all the same")
        await hears(boris, "all the same")
