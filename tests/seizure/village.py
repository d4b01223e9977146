"""People on nodes of their own who write to each other, by a clock of their own, through whoever is between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from outlast.kernel import mail
from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry, day_of
from outlast.kernel.home import Home
from outlast.kernel.node import BUILT_MS, Node
from outlast.kernel.person import Person
from outlast.kernel.room import Event
from outlast.rooms.carry import service

Clock = Callable[[], int]


@dataclass(frozen=True)
class Truth:
    """What really is in an envelope: only the people themselves know."""

    sender: str
    receiver: str
    kind: str
    """text, receipt or introduction"""

    @property
    def pair(self) -> frozenset[str]:
        """The two, in no order."""
        return frozenset((self.sender, self.receiver))


class Village:
    """Who lives there, each on a node of their own, open."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Nobody yet."""
        self._folder = folder
        self._clock = clock
        self.people: dict[str, Person] = {}

    async def join(self, name: str) -> Person:
        """A new person."""
        await Node.create(self.home(name), name, passphrase=None)
        return await self.come(name)

    def home(self, name: str) -> Home:
        """Where that person's node is."""
        return Home(self._folder / name.split()[0])

    async def come(self, name: str) -> Person:
        """Open a node that was closed."""
        node = await Node.open(self.home(name), system_ms=self._clock)
        (self.people[name],) = node.people.values()
        return self.people[name]

    async def go(self, name: str) -> None:
        """Close a node: what others write to it waits elsewhere."""
        await self.people.pop(name).node.close()

    def truth(self) -> dict[bytes, Truth]:
        """By entry: what each envelope of these people is."""
        return {entry: truth for person in self.people.values() for entry, truth in self._sent(person).items()}

    def _sent(self, person: Person) -> dict[bytes, Truth]:
        by_identity = {other.identity: other for other in self.people.values()}
        texts = {message.letter for message in service.sent(person)}
        found: dict[bytes, Truth] = {}
        for entry, letter, to in person.query("SELECT entry, letter, to_identity FROM sent"):
            receiver, envelope = by_identity[to], person.node.open_store.get(entry)
            assert envelope is not None
            day = day_of(envelope.header.ts_ms)
            keys = [mail.intro_key(secret, receiver.own) for secret in receiver.inbox.intros]
            first = {mail.tag(key, day, counter) for key in keys for counter in range(mail.INTRO_TAGS)}
            kind = "introduction" if envelope.header.tags[0] in first else "text" if letter in texts else "receipt"
            found[entry] = Truth(person.name, receiver.name, kind)
        return found


@asynccontextmanager
async def village(folder: Path, clock: Clock) -> AsyncIterator[Village]:
    """An empty one; all nodes are closed at the end."""
    place = Village(folder, clock)
    try:
        yield place
    finally:
        for name in list(place.people):
            await place.go(name)


async def befriend(one: Person, other: Person) -> None:
    """Both have the other's link."""
    await one.add_contact(await other.link())
    await other.add_contact(await one.link())


async def write(sender: Person, to: bytes, *texts: str) -> list[bytes]:
    """Send texts to an identity, all at once; their letters' ids."""
    return await asyncio.gather(*(service.send(sender.node, sender, to, text) for text in texts))


async def read_all(person: Person) -> None:
    """Look at all that came, two by two, so that its senders hear of it by many receipts."""
    letters = [message.letter for message in service.inbox(person) if message.unread]
    twos = [letters[at : at + 2] for at in range(0, len(letters), 2)]
    await asyncio.gather(*(service.mark_read(person.node, person, two) for two in twos))


def mail_at(node: Node) -> list[Entry]:
    """All envelopes in a store, in the order in which they came; each with its payload."""
    entries: dict[bytes, Entry] = {}
    cursor = 0
    while changes := node.open_store.changes(cursor):
        cursor = changes[-1].cursor
        for change in changes:
            if change.event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED) and change.entry.header.kind == mail.MAIL_KIND:
                entries[change.entry.id] = change.entry
    return list(entries.values())


def is_known(person: Person, letters: Sequence[bytes], event: str) -> bool:
    """Whether this person knows that of all these letters."""
    known = person.custody(letters)
    return all(event in {one.event for one in known[letter]} for letter in letters)


def first_morning() -> int:
    """Nine o'clock tomorrow, UTC, and odd minutes, so that a time that is not rounded shows."""
    now_ms = max(int(time.time() * 1000), BUILT_MS)
    return now_ms - now_ms % DAY_MS + DAY_MS + 9 * HOUR_MS + 1_234_567
