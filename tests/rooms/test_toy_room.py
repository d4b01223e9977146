"""A room that the kernel never heard of: its own kinds, tables, folds and operations, added from outside alone."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path

import msgspec

from outlast.edges.api import operations_of
from outlast.kernel import (
    DAY_MS,
    Change,
    Event,
    Home,
    Kind,
    Letter,
    Level,
    Node,
    Person,
    Put,
    Room,
    RowChanges,
    Rows,
    Status,
)
from outlast.ui.operation import Call, Nothing, Operation


class Bell(msgspec.Struct, array_like=True, frozen=True):
    """A bell was rung, so many times."""

    times: int


RUNG = Kind("toy.rung", Bell, max_bytes=16)
ASKED = Kind("toy.asked", Bell, max_bytes=16)


class Rung(msgspec.Struct, frozen=True):
    """How often the bell was rung, by everybody."""

    times: int


def fold(change: Change, _rows: Rows) -> RowChanges:
    """A row for each ringing."""
    if change.entry.header.kind != RUNG.name or change.event is not Event.ADMITTED or change.entry.payload is None:
        return ()
    return [Put("view_toy_rung", {"id": change.entry.id, "times": RUNG.decode(change.entry.payload).times})]


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """A running count of what was asked for."""
    before = rows.query("SELECT max(total) FROM local_toy_asked")[0][0] or 0
    return [Put("local_toy_asked", {"id": letter.id, "total": before + ASKED.decode(letter.body).times})]


async def total(call: Call[Nothing]) -> Rung:
    """All ringing that this node knows of."""
    return Rung(call.node.query("SELECT ifnull(sum(times), 0) FROM view_toy_rung")[0][0])


async def run(node: Node) -> None:
    """Note that the node runs."""
    started.append(node.home.path)


started: list[Path] = []
OPERATIONS = [Operation("toy.total", Nothing, Rung, total, "How often the bell was rung.")]
TOY = Room(
    "toy",
    1,
    kinds=[RUNG],
    letters=[ASKED],
    views=["CREATE TABLE view_toy_rung (id BLOB PRIMARY KEY, times INTEGER)"],
    migrations=["CREATE TABLE local_toy_asked (id BLOB PRIMARY KEY, total INTEGER)"],
    fold=fold,
    receive=receive,
    run=run,
    status=lambda _node, _person: Status(Level.OK, None, "ringing"),
    api=f"{__name__}:OPERATIONS",
)


async def open_home(folder: Path) -> Node:
    """A node that has the toy room and no other."""
    await Node.create(Home(folder), folder.name, passphrase=None, rooms=[TOY])
    return await Node.open(Home(folder), rooms=[TOY])


def person_of(node: Node) -> Person:
    """Who lives there."""
    return next(iter(node.people.values()))


def test_a_room_from_outside_has_its_entries_letters_tables_and_operations(tmp_path: Path) -> None:
    async def story() -> None:
        async with await open_home(tmp_path / "ann") as ann, await open_home(tmp_path / "ben") as ben:
            space = await ann.new_space(person_of(ann), "Bells")
            await ben.follow(space)
            await ann.append(person_of(ann), space, RUNG.name, Bell(3), life_ms=DAY_MS)
            await ann.append(person_of(ann), space, RUNG.name, Bell(4), life_ms=DAY_MS)
            await person_of(ann).add_contact(await person_of(ben).link())
            for times in (1, 2):
                await person_of(ann).send(person_of(ben).identity, ASKED.name, Bell(times))

            for way in ({"space": space}, {"to": person_of(ben).identity}):
                stick = io.BytesIO()
                await person_of(ann).write_bundle(stick, **way)
                stick.seek(0)
                await person_of(ben).read_bundle(stick)

            async with asyncio.timeout(30):
                while person_of(ben).query("SELECT max(total) FROM local_toy_asked") != [(3,)]:
                    await ben.wait(ben.revision)
            operation = operations_of([TOY])["toy.total"]
            for node in (ann, ben):
                assert await operation.answer(Call(node, Nothing())) == {"times": 7}
                await node.rebuild()
                assert await operation.answer(Call(node, Nothing())) == {"times": 7}
                assert node.home.path in started
                assert ("toy", Status(Level.OK, None, "ringing")) in node.status(person_of(node))

    asyncio.run(story())


def test_a_node_without_the_room_carries_its_entries_from_one_that_has_it_to_another(tmp_path: Path) -> None:
    async def story() -> None:
        home = Home(tmp_path / "relay")
        await Node.create(home, "relay", passphrase=None, rooms=[])
        async with (
            await open_home(tmp_path / "ann") as ann,
            await open_home(tmp_path / "ben") as ben,
            await Node.open(home, rooms=[]) as relay,
        ):
            space = await ann.new_space(person_of(ann), "Bells")
            early = await ann.append(person_of(ann), space, RUNG.name, Bell(3), life_ms=DAY_MS)
            for node in (relay, ben):
                await node.follow(space)
            port = await relay.listen("127.0.0.1", 0)
            for node in (ann, ben):
                await node.peer_add(relay.transport_id, "127.0.0.1", port)
            await holds(ben, early.id)  # by reconciliation
            late = await ann.append(person_of(ann), space, RUNG.name, Bell(4), life_ms=DAY_MS)
            await holds(ben, late.id)  # as news
            assert relay.open_store.known([early.id, late.id]) == {early.id, late.id}
            assert relay.query("SELECT name FROM pragma_table_list WHERE name GLOB 'view_*'") == []
            assert await operations_of([TOY])["toy.total"].answer(Call(ben, Nothing())) == {"times": 7}

    asyncio.run(story())


async def holds(node: Node, entry: bytes) -> None:
    """Wait until a node holds an entry."""
    async with asyncio.timeout(30):
        while not node.open_store.known([entry]):
            await node.wait(node.revision)


def test_a_room_is_found_by_its_entry_point(tmp_path: Path) -> None:
    package = tmp_path / "bell_room.py"
    package.write_text("from outlast.kernel import Room\nROOM = Room('bell', 1)\n")
    info = tmp_path / "bell_room-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bell-room\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[outlast.rooms]\nbell = bell_room:ROOM\n")
    look = "from outlast.kernel import find_rooms; print([room.name for room in find_rooms()])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r}); {look}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'bell'" in done.stdout
