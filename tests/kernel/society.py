"""Real nodes with real files in one process: who lives where, and what is carried between them."""

from __future__ import annotations

import asyncio
import io
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import msgspec

from outlast.kernel.backup import open_backup
from outlast.kernel.entry import CONTENT_MAX_BYTES, Entry
from outlast.kernel.groups import Said
from outlast.kernel.home import Home
from outlast.kernel.kinds import Kind
from outlast.kernel.node import Node
from outlast.kernel.person import Person
from outlast.kernel.room import Change, Event, Letter, Put, Room, RowChanges, Rows
from outlast.kernel.trips import BundleReport
from outlast.testing.clock import FakeClock

P = ParamSpec("P")

PATIENCE_S = 60.0
QUIET_ROUNDS = 6
"""Turns of the writer in which nothing was left to do; work goes from thread to loop and back a few times."""


class Note(msgspec.Struct, array_like=True, frozen=True):
    """The toy room's letters and posts."""

    text: str


NOTE = Kind("toy.note", Note, max_bytes=15_000)
POST = Kind("toy.post", Note, max_bytes=70_000, max_life_days=30)
FILE = Kind("toy.file", None, max_bytes=CONTENT_MAX_BYTES, max_life_days=30, priority=7)


def receive(letter: Letter, _rows: Rows) -> RowChanges:
    """Keep each letter; the kernel has seen to it that the body is one of its kind."""
    text = msgspec.msgpack.decode(letter.body, type=Note).text
    return [Put("local_toy_note", {"letter": letter.id, "sender": letter.sender, "text": text})]


def fold(change: Change, _rows: Rows) -> RowChanges:
    """Count what is here."""
    if change.event is not Event.ADMITTED or change.entry.header.kind != POST.name:
        return ()
    return [Put("view_toy_post", {"id": change.entry.id, "space": change.entry.header.space})]


TOY = Room(
    "toy",
    1,
    kinds=(POST, FILE),
    letters=(NOTE,),
    views=("CREATE TABLE view_toy_post (id BLOB PRIMARY KEY, space BLOB)",),
    migrations=("CREATE TABLE local_toy_note (letter BLOB PRIMARY KEY, sender BLOB, text TEXT)",),
    fold=fold,
    receive=receive,
)


def story(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """A test that runs in a loop of its own, and ends."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE_S))

    return run


class Society:
    """The nodes of a test: one person each."""

    def __init__(self, folder: Path, rooms: Sequence[Room]) -> None:
        self.clock = FakeClock(int(time.time() * 1000))
        self._folder = folder
        self.rooms = rooms
        self._clocks: dict[str, FakeClock] = {}
        self._open: dict[str, Node] = {}

    def home(self, name: str) -> Home:
        """Where that person's node is."""
        return Home(self._folder / name)

    async def join(
        self,
        name: str,
        *,
        clock: FakeClock | None = None,
        passphrase: str | None = None,
        called: str | None = None,
        backup: bytes | None = None,
    ) -> Person:
        """A new node with a person of that name; from a ``backup`` under the passphrase "backup words"."""
        body = open_backup(backup, "backup words") if backup is not None else None
        await Node.create(self.home(name), called or name, passphrase=passphrase, backup=body, rooms=self.rooms)
        self._clocks[name] = clock or self.clock
        return await self.come_back(name, passphrase=passphrase)

    def person(self, name: str) -> Person:
        """Who lives on that open node."""
        (person,) = self._open[name].people.values()
        return person

    async def leave(self, name: str) -> None:
        """Close that person's node."""
        await self._open.pop(name).close()

    async def come_back(self, name: str, *, passphrase: str | None = None) -> Person:
        """Open that person's node, after it was closed if it was open."""
        if name in self._open:
            await self.leave(name)
        node = self._open[name] = await Node.open(self.home(name), rooms=self.rooms, system_ms=self._clocks[name])
        if passphrase is not None:
            return await node.unlock(passphrase)
        (person,) = node.people.values()
        return person

    async def copy(self, name: str, to: str) -> Person:
        """Copy a node's home as it stands, stopped for that while; both are open afterwards."""
        await self.leave(name)
        shutil.copytree(self.home(name).path, self.home(to).path)
        self._clocks[to] = self._clocks[name]
        await self.come_back(name)
        return await self.come_back(to)

    async def close(self) -> None:
        """Close all nodes."""
        for name in list(self._open):
            await self.leave(name)


@asynccontextmanager
async def society(folder: Path, rooms: Sequence[Room] = (TOY,)) -> AsyncIterator[Society]:
    """Nodes under ``folder``, closed at the end."""
    nodes = Society(folder, rooms)
    try:
        yield nodes
    finally:
        await nodes.close()


async def until(holds: Callable[[], bool], *people: Person) -> None:
    """Wait until something holds that changes when these people's nodes do."""
    while not holds():
        waits = [asyncio.ensure_future(person.node.wait(person.node.revision)) for person in people]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


async def befriend(one: Person, other: Person) -> None:
    """Both have the other's link and have compared words."""
    for me, you in ((one, other), (other, one)):
        await me.add_contact(await you.link())
        await me.verify(you.identity)


async def friends(nodes: Society, one: str = "anna", other: str = "boris") -> tuple[Person, Person]:
    """Two who have each other's link and have compared words, each at a node of their own."""
    first, second = await nodes.join(one), await nodes.join(other)
    await befriend(first, second)
    return first, second


async def write(sender: Person, receiver: Person, text: str) -> bytes:
    """Send a note; its letter's id."""
    return await sender.send(receiver.identity, NOTE.name, Note(text))


def notes(person: Person) -> list[str]:
    """The texts that have come to this person, sorted."""
    return [row[0] for row in person.query("SELECT text FROM local_toy_note ORDER BY text")]


async def hears(person: Person, *texts: str) -> None:
    """Wait until exactly these notes have come."""
    await until(lambda: len(notes(person)) >= len(texts), person)
    assert notes(person) == sorted(texts)


def events(person: Person, letter: bytes) -> list[str]:
    """What this person is told of a letter."""
    return [one.event for one in person.custody([letter])[letter]]


def envelopes(person: Person) -> list[Entry]:
    """All mail in this person's node, in the order in which it came."""
    entries: list[Entry] = []
    cursor = 0
    while changes := person.node.open_store.changes(cursor):
        cursor = changes[-1].cursor
        entries += [c.entry for c in changes if c.event is Event.ADMITTED and c.entry.header.kind == "mail"]
    return entries


def entries_of(person: Person) -> list[Entry]:
    """Everything in this person's node, in the order in which it came."""
    store = person.node.open_store
    return store.load(bytes(row[0]) for row in store.query("SELECT id FROM entry ORDER BY n"))


def said_in(person: Person, space: bytes) -> list[Said]:
    """What this person can open of a joined group, in order."""
    return person.groups.open(space, [entry.id for entry in entries_of(person)])


async def hand_over(entries: Iterable[Entry], receiver: Person) -> None:
    """Let entries in at somebody's node, and wait until what is for its person was opened."""
    await receiver.node.ingest(list(entries))
    await settle(receiver)


async def settle(*people: Person) -> None:
    """Wait until every node has looked at all its mail, and has said what there was to say."""
    quiet = 0
    while quiet < QUIET_ROUNDS:
        for person in people:
            await person.node.write(lambda: None)
        quiet = quiet + 1 if all(map(_is_quiet, people)) else 0


def _is_quiet(person: Person) -> bool:
    waits = (
        person.outbox._queue or person.outbox._pending or person.inbox._later or person.inbox._later_arrived.is_set()
    )
    return person.inbox.cursor >= person.node.open_store.cursor() and not waits


async def meet(one: Person, other: Person) -> None:
    """All mail of each goes to the other, receipts included."""
    for _ in range(2):
        await hand_over(envelopes(one), other)
        await hand_over(envelopes(other), one)


async def bundle(sender: Person, receiver: Person) -> tuple[bytes, BundleReport]:
    """A stick for somebody: the file, safe on its medium, and what the writer says of it."""
    file = io.BytesIO()
    report = await sender.write_bundle(file, to=receiver.identity)
    await sender.bundle_left(report)
    return file.getvalue(), report


async def carry(sender: Person, receiver: Person) -> BundleReport:
    """A stick is written here and read there."""
    file, _ = await bundle(sender, receiver)
    report = await receiver.read_bundle(io.BytesIO(file))
    await settle(receiver)
    return report


def ids(entries: Sequence[Entry]) -> set[bytes]:
    """Their ids."""
    return {entry.id for entry in entries}
