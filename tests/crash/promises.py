"""What a node acknowledged, kept outside of it, and what must hold of its files whatever happened to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from outlast.kernel import Change, Event
from tests.crash.toy import House


@dataclass
class Promises:
    """Acknowledgements, noted as soon as the call returned."""

    letters: dict[bytes, str] = field(default_factory=dict)
    """Letters sent: id and text."""
    posts: dict[bytes, str] = field(default_factory=dict)
    """Posts: id of the entry, and text."""
    received: set[str] = field(default_factory=set)
    """Texts of the letters in bundles whose import was acknowledged."""
    asked_back: set[bytes] = field(default_factory=set)
    """Letters that somebody began to take back: they are there whole or not at all."""
    taken_back: set[bytes] = field(default_factory=set)
    """Letters that are taken back."""
    forgettable: set[bytes] = field(default_factory=set)
    """Letters whose journey ended so long ago, by its dates, that it may be forgotten as a whole."""
    numbers: dict[int, tuple[Event, bytes]] = field(default_factory=dict)
    """The change log as it was seen: cursor, event and entry."""
    newest: int = 0

    @property
    def count(self) -> int:
        """How many acknowledgements there are."""
        return len(self.letters) + len(self.posts) + len(self.received) + len(self.taken_back)

    def note_posted(self, entry: bytes, cursor: int) -> None:
        """A post's number in the change log was told to somebody."""
        self.numbers[cursor] = (Event.ADMITTED, entry)

    async def broken(self, house: House) -> list[str]:
        """One line for each thing that does not hold of an open node; none when all is well."""
        await house.person.inbox.read()
        problems = [*self.lost(house), *_halves(house, self.forgettable), *self._renumbered(house)]
        views = house.views()
        await house.node.rebuild()
        if house.views() != views:
            problems.append("the views are not what a rebuild makes of the change log")
        return problems

    def lost(self, house: House) -> Iterator[str]:
        """What was acknowledged and is not there."""
        person, node = house.person, house.node
        sent = dict(person.query("SELECT letter, text FROM local_toy_sent"))
        kept = {row[0] for row in person.query("SELECT letter FROM custody WHERE event = 'kept'")}
        held = {row[0] for row in node.query("SELECT id FROM entry")}
        sealed = {row[0] for row in person.query("SELECT letter, entry FROM sent") if row[1] in held}
        for letter, text in self.letters.items():
            if letter in self.taken_back or (letter in self.asked_back and letter not in sent):
                if letter in sent or letter in kept or letter in sealed:
                    yield f"the letter {text[:20]!r} was taken back and is there in part"
                continue
            if sent.get(letter) != text:
                yield f"the letter {text[:20]!r} is not in the vault"
            if letter not in kept and letter not in self.forgettable:
                yield f"the letter {text[:20]!r} lost its custody"
            if letter not in sealed:
                yield f"the letter {text[:20]!r} is in no envelope of the store"
        posts = dict(node.query("SELECT id, text FROM view_toy_post"))
        for entry, text in self.posts.items():
            if entry not in held or posts.get(entry) != text:
                yield f"the post {text[:20]!r} is lost"
        for text in self.received - set(house.got()):
            yield f"the received letter {text[:20]!r} is lost"

    def _renumbered(self, house: House) -> Iterator[str]:
        newest = house.node.open_store.cursor()
        if newest < self.newest:
            yield f"the change log went back from {self.newest} to {newest}"
        for change in changes_of(house):
            what = change.event, change.entry.id
            known = self.numbers.setdefault(change.cursor, what)
            if known != what:
                yield f"number {change.cursor} of the change log was given twice"
        self.newest = newest


def changes_of(house: House) -> Iterator[Change]:
    """The whole change log."""
    cursor = 0
    while changes := house.node.open_store.changes(cursor):
        yield from changes
        cursor = changes[-1].cursor


def _halves(house: House, forgettable: set[bytes]) -> Iterator[str]:
    """What is there in part, or twice."""
    person, node = house.person, house.node
    if person.query("PRAGMA integrity_check") != [("ok",)] or node.query("PRAGMA integrity_check") != [("ok",)]:
        yield "a file is damaged"
    for table, column in (("local_toy_sent", "letter"), ("local_toy_got", "letter"), ("local_toy_said", "text")):
        rows = person.query(f"SELECT {column}, count(*) FROM {table} GROUP BY 1 HAVING count(*) > 1")
        if rows:
            yield f"{len(rows)} rows of {table} are there twice"
    remembered = {row[0] for row in person.query("SELECT letter FROM local_toy_sent")}
    kept = {row[0] for row in person.query("SELECT letter FROM custody WHERE event = 'kept'")}
    sealed = dict(person.query("SELECT entry, letter FROM sent"))
    if not remembered - forgettable <= kept <= remembered or not kept <= set(sealed.values()):
        yield "a letter is in the vault in part"
    known = node.open_store.known(list(sealed))
    if known != set(sealed):
        yield f"{len(sealed) - len(known)} sealed letters never reached the store"
    outbox = [row[0] for row in person.query("SELECT entry_id FROM outbox")]
    if node.open_store.known(outbox) != set(outbox):
        yield "the outbox was not handed on"
    said = [row[0] for row in person.query("SELECT text FROM local_toy_said ORDER BY text")]
    own = node.query("SELECT text FROM view_toy_post WHERE author = ? ORDER BY text", (person.device,))
    if said != [row[0] for row in own]:
        yield "a post is in the vault and not in the view, or the other way round"
    if any(count != 1 for count in Counter(row[0] for row in node.query("SELECT id FROM entry")).values()):
        yield "an entry is in the store twice"
    events = Counter((change.event, change.entry.id) for change in changes_of(house))
    if any(event is Event.FORKED for event, _ in events) or any(count > 1 for count in events.values()):
        yield "the change log tells something twice, or a fork"
    chains: dict[bytes, list[int]] = {}
    for change in changes_of(house):
        header = change.entry.header
        if change.event is Event.ADMITTED and header.author == person.device and header.seq:
            chains.setdefault(header.space, []).append(header.seq)
    if any(sorted(chain) != list(range(1, len(chain) + 1)) for chain in chains.values()):
        yield "the chain of posts has a gap"
    tags = Counter(
        tag for change in changes_of(house) for tag in change.entry.header.tags if change.event is Event.ADMITTED
    )
    if any(count > 1 for count in tags.values()):
        yield "a tag was used twice"
