"""Links that a room brings: two whole nodes sync through them, and a slow one carries what is urgent alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from outlast.kernel import forward
from outlast.kernel import neighbours as shells
from outlast.kernel.home import Home
from outlast.kernel.links.link import Cost, Link, LinkError, Way
from outlast.kernel.node import Node
from outlast.kernel.person import Person
from outlast.kernel.room import Room
from outlast.testing import FakeClock, Pipe, pipe
from tests.kernel.society import POST, TOY, Note, befriend, events, hears, notes, story, until, write

ALARM = replace(POST, name="toy.alarm", priority=0)
DAY_MS = 86_400_000


class Road:
    """What both nodes' rooms share: each link that one opens comes out at the other."""

    def __init__(self, **kind: object) -> None:
        self.kind = kind
        self.pipes: list[tuple[Pipe, Pipe]] = []
        self.closed = False
        self.faults = 0
        """How many times opening a link is to fail as nothing should."""
        self._called: asyncio.Queue[Link] = asyncio.Queue()

    async def opens(self) -> Link:
        if self.closed:
            raise LinkError("the road is closed")
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        here, there = pipe(**self.kind)  # type: ignore[arg-type]
        self.pipes.append((here, there))
        self._called.put_nowait(there)
        return here

    async def takes(self) -> Link:
        return await self._called.get()

    @property
    def sent_bytes(self) -> int:
        return sum(one.sent_bytes + other.sent_bytes for one, other in self.pipes)


def room(*ways: Way) -> Room:
    return replace(TOY, kinds=(POST, ALARM), links=lambda _node: ways)


@dataclass
class Two:
    """Two nodes, and the person of each."""

    anna: Person
    boris: Person


async def settled(home: Home, name: str, rooms: Sequence[Room]) -> bytes:
    """Make a node; its transport key."""
    await Node.create(home, name, passphrase=None, rooms=rooms)
    async with await Node.open(home, rooms=rooms, dial=False) as node:
        return node.transport_id


@asynccontextmanager
async def two(folder: Path, road: Road, clock: Callable[[], int] | None = None) -> AsyncIterator[Two]:
    """Anna's node calls, Boris's answers; nothing is exchanged before they are friends."""
    homes = [Home(folder / name) for name in ("anna", "boris")]
    keys = [await settled(home, name, [room()]) for home, name in zip(homes, ("anna", "boris"), strict=True)]
    road.closed = True
    calls, answers = room(Way("road", road.opens, keys[1])), room(Way("road", road.takes))
    async with (
        await Node.open(homes[0], rooms=[calls], system_ms=clock) as one,
        await Node.open(homes[1], rooms=[answers], system_ms=clock) as other,
    ):
        people = Two(next(iter(one.people.values())), next(iter(other.people.values())))
        await befriend(people.anna, people.boris)
        yield people


def is_linked(person: Person) -> bool:
    return any(live.in_step for live in person.node.neighbours._live)


async def open_road(road: Road, nodes: Two, *, in_step: bool = True) -> None:
    road.closed = False
    if in_step:
        await until(lambda: is_linked(nodes.anna) and is_linked(nodes.boris), nodes.anna, nodes.boris)


def posts(person: Person) -> int:
    return int(person.node.query("SELECT count(*) FROM view_toy_post")[0][0])


def alarms(person: Person) -> int:
    kinds = [change.entry.header.kind for change in person.node.open_store.changes(0)]
    return kinds.count(ALARM.name)


@story
async def test_two_nodes_write_to_each_other_over_a_link_of_small_pieces_that_a_room_brings(tmp_path: Path) -> None:
    road = Road()
    async with two(tmp_path, road) as nodes:
        before = await write(nodes.anna, nodes.boris, "written before there was a link")
        await open_road(road, nodes)
        await hears(nodes.boris, "written before there was a link")
        await write(nodes.boris, nodes.anna, "and back, " + "at length " * 1000)
        await hears(nodes.anna, "and back, " + "at length " * 1000)
        await until(lambda: "received" in events(nodes.anna, before), nodes.anna)
        assert all(end.longest_bytes <= 230 for ends in road.pipes for end in ends)
        assert nodes.anna.node.metrics.link_bytes_out["pipe"] > 0


@story
async def test_a_link_that_ends_is_opened_again(tmp_path: Path) -> None:
    road = Road()
    async with two(tmp_path, road) as nodes:
        await open_road(road, nodes)
        await road.pipes[0][0].close()
        await write(nodes.anna, nodes.boris, "over the second one")
        await hears(nodes.boris, "over the second one")
        assert len(road.pipes) == 2


@story
async def test_ways_come_and_go_while_the_node_is_open(tmp_path: Path) -> None:
    homes = [Home(tmp_path / name) for name in ("anna", "boris")]
    keys = [await settled(home, name, [room()]) for home, name in zip(homes, ("anna", "boris"), strict=True)]
    first, second, ways = Road(), Road(), list[Way]()
    calls = replace(room(), links=lambda _node: tuple(ways))
    async with (
        await Node.open(homes[0], rooms=[calls]) as one,
        await Node.open(homes[1], rooms=[room(Way("first", first.takes), Way("second", second.takes))]) as other,
    ):
        nodes = Two(next(iter(one.people.values())), next(iter(other.people.values())))
        await befriend(nodes.anna, nodes.boris)
        assert not is_linked(nodes.anna)
        ways.append(Way("first", first.opens, keys[1]))
        one.ways_changed()
        await until(lambda: is_linked(nodes.anna) and is_linked(nodes.boris), nodes.anna, nodes.boris)
        # The same again changes nothing; a way that is gone ends its session, and another one takes its place.
        one.ways_changed()
        await write(nodes.anna, nodes.boris, "by the first")
        await hears(nodes.boris, "by the first")
        assert len(first.pipes) == 1
        ways[:] = [Way("second", second.opens, keys[1])]
        one.ways_changed()
        await until(lambda: second.pipes and is_linked(nodes.anna), nodes.anna, nodes.boris)
        await write(nodes.anna, nodes.boris, "by the second")
        await hears(nodes.boris, "by the first", "by the second")
        assert len(first.pipes) == 1
        ways.clear()
        one.ways_changed()
        await until(lambda: not is_linked(nodes.anna), nodes.anna, nodes.boris)


def test_what_somebody_follows_now_comes_without_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @story
    async def run() -> None:
        road = Road(bits_per_s=1_000_000)
        async with two(tmp_path, road) as nodes:
            await open_road(road, nodes)
            monkeypatch.setattr(shells, "RETRY_MIN_S", 1000.0)  # of those who cannot be reached
            for number in (1, 2):
                space = await nodes.anna.node.new_space(nodes.anna, "News")  # the session begins anew here,
                await nodes.boris.node.follow(space)  # and there, where it has hardly begun
                await nodes.anna.node.append(nodes.anna, space, POST.name, Note("bread"), life_ms=DAY_MS)
                await until(lambda least=number: posts(nodes.boris) == least, nodes.boris)

    run()


def test_who_ends_each_session_to_have_another_one_is_not_called_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @story
    async def run() -> None:
        road = Road()
        async with two(tmp_path, road) as nodes:
            await open_road(road, nodes)
            monkeypatch.setattr(shells, "RETRY_MIN_S", 1000.0)
            pauses: list[float] = []

            def pause(_: float, most: float) -> float:
                pauses.append(most)
                nodes.anna.node.touch()
                return most

            monkeypatch.setattr(shells.random, "uniform", pause)
            while not pauses:
                before = len(road.pipes)
                nodes.boris.node.neighbours.refresh()
                await until(
                    lambda pipes=before: pauses or (len(road.pipes) > pipes and is_linked(nodes.boris)), nodes.anna
                )
            assert 2 < len(road.pipes) <= shells.CALLS_AT_ONCE + 1
            assert not is_linked(nodes.anna)

    run()


@story
async def test_a_way_that_may_lead_somewhere_now_is_tried_at_once(tmp_path: Path) -> None:
    road = Road()
    async with two(tmp_path, road) as nodes:
        neighbours = nodes.anna.node.neighbours
        await until(lambda: neighbours._errors, nodes.anna)
        # It is patient by now, and is told that it need not be.
        await until(lambda: neighbours._wakes, nodes.anna)
        road.closed = False
        nodes.anna.node.ways_changed()
        async with asyncio.timeout(5):
            await until(lambda: is_linked(nodes.anna), nodes.anna)


@story
async def test_a_room_whose_link_fails_as_nothing_should_is_asked_again(tmp_path: Path) -> None:
    road = Road()
    async with two(tmp_path, road) as nodes:
        road.faults = 1
        await open_road(road, nodes)
        assert road.faults == 0
        await write(nodes.anna, nodes.boris, "all the same")
        await hears(nodes.boris, "all the same")
        assert not nodes.anna.node.failed.done()


@pytest.mark.parametrize(
    ("kind", "is_urgent_alone"),
    [
        ({"bits_per_s": 2400}, True),
        ({"bits_per_s": 1_000_000, "cost": Cost.METERED}, True),
        ({"bits_per_s": 1_000_000}, False),
    ],
)
def test_a_slow_or_metered_link_carries_letters_and_alarms_alone(
    tmp_path: Path, kind: dict[str, object], is_urgent_alone: bool
) -> None:
    @story
    async def run() -> None:
        road = Road(**kind)
        async with two(tmp_path, road) as nodes:
            anna, boris = nodes.anna, nodes.boris
            space = await anna.node.new_space(anna, "News")
            await boris.node.follow(space)
            for number in range(30):
                await anna.node.append(anna, space, POST.name, Note(f"news {number} " * 40), life_ms=DAY_MS)
            await anna.node.append(anna, space, ALARM.name, Note("the bridge is gone"), life_ms=DAY_MS)
            await write(anna, boris, "hello")
            await open_road(road, nodes)
            await hears(boris, "hello")
            assert alarms(boris) == 1
            assert posts(boris) == (0 if is_urgent_alone else 30)
            cost = road.sent_bytes
            assert (cost < 12_000) is is_urgent_alone, cost
            # What comes later goes by the same rule.
            await anna.node.append(anna, space, POST.name, Note("later"), life_ms=DAY_MS)
            await anna.node.append(anna, space, ALARM.name, Note("the second bridge is gone"), life_ms=DAY_MS)
            await until(lambda: alarms(boris) == 2, boris)
            assert posts(boris) == (0 if is_urgent_alone else 31)

    run()


@story
async def test_a_metered_link_carries_a_days_bytes_and_goes_on_the_next_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "METERED_DAY_BYTES", 20_000)
    clock = FakeClock(int(time.time() * 1000))
    road = Road(bits_per_s=10_000_000, cost=Cost.METERED)
    async with two(tmp_path, road, clock) as nodes:
        anna, boris = nodes.anna, nodes.boris
        for number in range(20):
            await write(anna, boris, f"letter {number} ".ljust(3000, "."))
        await open_road(road, nodes, in_step=False)
        await until(lambda: len(notes(boris)) >= 2, boris)
        await road.pipes[-1][0].close()
        await until(lambda: len(road.pipes) == 2, anna)
        await until(lambda: bool(anna.node.neighbours._live), anna)
        first = road.pipes[0][0].sent_bytes
        assert first <= 20_000 + 10_000, first
        arrived = len(notes(boris))
        assert arrived < 10
        clock.advance(DAY_MS)
        await road.pipes[-1][0].close()
        await until(lambda: len(notes(boris)) > arrived, boris)


@story
async def test_a_link_over_which_somebody_else_answers_is_not_used(tmp_path: Path) -> None:
    road = Road()
    async with two(tmp_path, road) as nodes:
        stranger = await Node.open(await stranger_home(tmp_path), rooms=[room(Way("road", road.takes))])
        async with stranger:
            # Boris's node is busy elsewhere: the next call is answered by the stranger, who has another key.
            for task in nodes.boris.node.neighbours._ways.values():
                task.cancel()
            await asyncio.gather(*nodes.boris.node.neighbours._ways.values(), return_exceptions=True)
            road.closed = False
            await until(lambda: bool(road.pipes) and not is_linked(nodes.anna), nodes.anna)
            await road.pipes[0][0]._closed.wait()
            assert not nodes.anna.node.neighbours._live
            assert stranger.metrics.sessions == 0


async def stranger_home(folder: Path) -> Home:
    home = Home(folder / "stranger")
    await Node.create(home, "stranger", passphrase=None, rooms=[room()])
    return home
