"""A room whose rows show when something was applied twice, and nodes of people who use it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outlast.kernel import Change, Delete, Event, Home, Kind, Letter, Node, Person, Put, Room, RowChanges, Rows

LETTER = "toy.letter"
POST = "toy.post"
FILE = "toy.file"
VIEWS = ("view_toy_post", "view_toy_count")
MONTH_MS = 30 * 86_400_000


class Note(msgspec.Struct, array_like=True, frozen=True):
    """The body of letters and posts."""

    text: str


def _fold(change: Change, rows: Rows) -> RowChanges:
    entry = change.entry
    if entry.header.kind != POST:
        return []
    if change.event is Event.EXPIRED:
        return [Delete("view_toy_post", {"id": entry.id})]
    if change.event not in (Event.ADMITTED, Event.PAYLOAD_ARRIVED) or entry.payload is None:
        return []
    text = msgspec.msgpack.decode(entry.payload, type=Note).text
    author = entry.header.author
    found = rows.query("SELECT posts FROM view_toy_count WHERE author = ?", (author,))
    return [
        Put("view_toy_post", {"id": entry.id, "author": author, "text": text}),
        Put("view_toy_count", {"author": author, "posts": (found[0][0] if found else 0) + 1}),
    ]


def _receive(letter: Letter, _rows: Rows) -> RowChanges:
    text = msgspec.msgpack.decode(letter.body, type=Note).text
    return [Put("local_toy_got", {"letter": letter.id, "sender": letter.sender, "text": text})]


# No table of letters has a key that would hide a second row; the count goes wrong when a change is folded twice.
TOY = Room(
    "toy",
    1,
    kinds=[Kind(POST, Note, 60_000), Kind(FILE, None, 64 << 20, priority=7)],
    letters=[Kind(LETTER, Note, 15_000)],
    views=[
        "CREATE TABLE view_toy_post (id BLOB PRIMARY KEY, author BLOB NOT NULL, text TEXT NOT NULL)",
        "CREATE TABLE view_toy_count (author BLOB PRIMARY KEY, posts INTEGER NOT NULL)",
    ],
    migrations=[
        "CREATE TABLE local_toy_sent (letter BLOB NOT NULL, text TEXT NOT NULL)",
        "CREATE TABLE local_toy_got (letter BLOB NOT NULL, sender BLOB NOT NULL, text TEXT NOT NULL)",
        "CREATE TABLE local_toy_said (text TEXT NOT NULL)",
    ],
    fold=_fold,
    receive=_receive,
)


@dataclass(frozen=True)
class House:
    """An open node and who lives there."""

    node: Node
    person: Person

    async def send(self, to: bytes, text: str) -> bytes:
        """Send a letter; its id."""
        return await self.person.send(
            to, LETTER, Note(text), local=lambda id: [Put("local_toy_sent", {"letter": id, "text": text})]
        )

    def forgetting(self, letter: bytes) -> RowChanges:
        """What goes with a letter that is taken back."""
        return [Delete("local_toy_sent", {"letter": letter})]

    async def say(self, space: bytes, text: str) -> bytes:
        """Post into a channel; the id of the entry."""
        said = [Put("local_toy_said", {"text": text})]
        entry = await self.node.append(self.person, space, POST, Note(text), life_ms=MONTH_MS, local=said)
        return entry.id

    async def bundle(self, *, to: bytes | None = None, space: bytes | None = None) -> bytes:
        """A whole bundle that has left."""
        file = io.BytesIO()
        await self.person.bundle_left(await self.person.write_bundle(file, to=to, space=space))
        return file.getvalue()

    async def read(self, bundle: bytes) -> None:
        """Take in a bundle, and open the mail that came with it."""
        await self.person.read_bundle(io.BytesIO(bundle))
        await self.person.inbox.read()

    def got(self) -> list[str]:
        """The texts of all received letters, sorted; one that was taken in twice stands here twice."""
        return [row[0] for row in self.person.query("SELECT text FROM local_toy_got ORDER BY text")]

    def sent(self) -> list[str]:
        """The texts of all letters that were sent, sorted."""
        return [row[0] for row in self.person.query("SELECT text FROM local_toy_sent ORDER BY text")]

    def posts(self) -> list[str]:
        """The texts of all posts in the view, sorted."""
        return [row[0] for row in self.node.query("SELECT text FROM view_toy_post ORDER BY text")]

    def confirmed(self, event: str) -> set[str]:
        """The texts of sent letters of which this is known."""
        rows = self.person.query(
            "SELECT text FROM local_toy_sent JOIN custody USING (letter) WHERE event = ?",
            (event,),
        )
        return {row[0] for row in rows}

    def views(self) -> list[list[tuple[Any, ...]]]:
        """All rows of the room's views."""
        return [self.node.query(f"SELECT * FROM {view} ORDER BY 1") for view in VIEWS]

    async def until(self, holds: Callable[[], object], timeout_s: float = 30) -> None:
        """Return when something holds that news of the node can bring about."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self.node.wait(self.node.revision)


async def make(path: Path, name: str = "somebody", rooms: Sequence[Room] = (TOY,)) -> Home:
    """An unattended home with one person."""
    home = Home(path)
    await Node.create(home, name, passphrase=None, rooms=rooms)
    return home


@asynccontextmanager
async def house(home: Home, *, system_ms: Callable[[], int] | None = None, dial: bool = False) -> AsyncIterator[House]:
    """The home's node, open, with its one person."""
    async with await Node.open(home, rooms=[TOY], system_ms=system_ms, dial=dial) as node:
        (person,) = node.people.values()
        yield House(node, person)


async def befriend(one: House, other: House) -> None:
    """Each adds the other's link and hears from them: from now on their letters go by the pair's own tags."""
    await one.person.add_contact(await other.person.link())
    await other.person.add_contact(await one.person.link())
    await one.send(other.person.identity, "hello")
    await other.read(await one.bundle(to=other.person.identity))
    await other.send(one.person.identity, "hello, too")
    await one.read(await other.bundle(to=one.person.identity))
