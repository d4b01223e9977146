"""Where a place of a town keeps its entries: in memory, or in a real store file with a room's view on it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from outlast.kernel.entry import Entry
from outlast.kernel.forward import ALL_PRIORITIES
from outlast.kernel.log import Head
from outlast.kernel.room import Change, Delete, Event, Put, Room, RowChanges, Rows
from outlast.kernel.setrec import SetView
from outlast.kernel.space import space_of
from outlast.kernel.store import Incoming, Scope, Store


def fold_entries(change: Change, _rows: Rows) -> RowChanges:
    """A row for each entry that is held, with its payload, and one for each that forks its author's chain."""
    key = {"id": change.entry.id}
    h = change.entry.header
    match change.event:
        case Event.EXPIRED:
            return [Delete("view_town_entry", key), Delete("view_town_fork", key)]
        case Event.FORKED:
            return [Put("view_town_fork", {**key, "author": h.author, "seq": h.seq})]
        case _:
            row = {**key, "author": h.author, "kind": h.kind, "at_ms": h.ts_ms, "payload": change.entry.payload}
            return [Put("view_town_entry", row)]


VIEWER: Final = Room(
    "town",
    1,
    views=(
        "CREATE TABLE view_town_entry (id BLOB PRIMARY KEY, author BLOB, kind TEXT, at_ms INTEGER, payload BLOB)",
        "CREATE TABLE view_town_fork (id BLOB PRIMARY KEY, author BLOB, seq INTEGER)",
    ),
    fold=fold_entries,
)
"""The room whose view a ``FileShelf`` keeps."""

View = list[list[tuple[object, ...]]]


class Shelf(Protocol):
    """What a place asks of its store. All that was appended is durable."""

    @property
    def entries(self) -> Mapping[bytes, Entry]:
        """All that is held, by id."""
        ...

    def append(self, entries: Sequence[Entry]) -> None:
        """Keep admitted entries, and payloads of those that are held without."""
        ...

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these are held."""
        ...

    def incomplete(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these are held without their payload."""
        ...

    def bare(self) -> list[Entry]:
        """What is held whose payload has not come yet."""
        ...

    def load(self, ids: Iterable[bytes]) -> list[Entry]:
        """Those of these that are held."""
        ...

    def buckets(self, space: bytes, priority_max: int = ALL_PRIORITIES) -> list[tuple[int, int]]:
        """The days of a space on which something up to this priority expires, and how much."""
        ...

    def bucket(self, space: bytes, day: int, priority_max: int = ALL_PRIORITIES) -> SetView:
        """A snapshot of one bucket, up to this priority."""
        ...

    def urgent(self, buckets: Collection[tuple[bytes, int]]) -> dict[bytes, list[bytes]]:
        """By space the ids of what has priority 0 in these buckets."""
        ...

    def head(self, space: bytes, author: bytes) -> Head | None:
        """The head of an author's chain."""
        ...

    def expire(self, before_day: int) -> None:
        """Remove what expires before a day."""
        ...

    def drop_payload(self, id: bytes) -> None:
        """Forget a payload, keep its header, and do not ask for it again."""
        ...

    def let_go(self, ids: Collection[bytes]) -> None:
        """Remove entries for want of room, and remember not to ask for them again."""
        ...

    def reopen(self) -> None:
        """Start again from what is durable."""
        ...

    def views(self) -> tuple[View, View] | None:
        """The view as it was folded change by change, and folded anew; None where there is none."""
        ...


class MemoryShelf:
    """Entries in a dict."""

    def __init__(self) -> None:
        """An empty shelf."""
        self.entries: dict[bytes, Entry] = {}
        self.dropped: set[bytes] = set()
        self.declined: dict[bytes, Entry] = {}
        """What was let go: it stands in the buckets, so that nobody offers it again."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Put them in."""
        for entry in entries:
            self.entries[entry.id] = entry
            self.dropped.discard(entry.id)

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those in the dict."""
        return {one for one in ids if one in self.entries}

    def incomplete(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those without a payload."""
        return {one for one in self.known(ids) if self.entries[one].payload is None}

    def bare(self) -> list[Entry]:
        """Those without a payload that was not dropped here."""
        return [entry for entry in self.entries.values() if entry.payload is None and entry.id not in self.dropped]

    def load(self, ids: Iterable[bytes]) -> list[Entry]:
        """Those in the dict."""
        return [self.entries[one] for one in ids if one in self.entries]

    def buckets(self, space: bytes, priority_max: int = ALL_PRIORITIES) -> list[tuple[int, int]]:
        """Counted at each call."""
        counts: dict[int, int] = {}
        for entry in self._named():
            if space_of(entry) == space and entry.header.priority <= priority_max:
                counts[entry.header.expires_day] = counts.get(entry.header.expires_day, 0) + 1
        return sorted(counts.items())

    def bucket(self, space: bytes, day: int, priority_max: int = ALL_PRIORITIES) -> SetView:
        """Sorted at each call."""
        return SetView.from_items(
            (entry.header.ts_ms, entry.id)
            for entry in self._named()
            if space_of(entry) == space and entry.header.expires_day == day and entry.header.priority <= priority_max
        )

    def urgent(self, buckets: Collection[tuple[bytes, int]]) -> dict[bytes, list[bytes]]:
        """Looked for at each call."""
        found: dict[bytes, list[bytes]] = {}
        for entry in self._named():
            if entry.header.priority == 0 and (space_of(entry), entry.header.expires_day) in buckets:
                found.setdefault(space_of(entry), []).append(entry.id)
        return found

    def head(self, space: bytes, author: bytes) -> Head | None:
        """The highest number; of a fork the branch that came first."""
        chain = [
            (-entry.header.seq, number, entry.id)
            for number, entry in enumerate(self.entries.values())
            if entry.header.seq and entry.header.author == author and space_of(entry) == space
        ]
        return Head(-min(chain)[0], min(chain)[2]) if chain else None

    def expire(self, before_day: int) -> None:
        """Take them out."""
        self.entries, self.declined = (
            {one: entry for one, entry in entries.items() if not 0 < entry.header.expires_day < before_day}
            for entries in (self.entries, self.declined)
        )
        self.dropped &= self.entries.keys()

    def drop_payload(self, id: bytes) -> None:
        """Leave the header."""
        if id in self.entries and self.entries[id].payload is not None:
            self.entries[id] = msgspec.structs.replace(self.entries[id], payload=None)
            self.dropped.add(id)

    def let_go(self, ids: Collection[bytes]) -> None:
        """Keep what stands in the buckets."""
        self.declined.update((one, self.entries.pop(one)) for one in ids if one in self.entries)

    def _named(self) -> Collection[Entry]:
        """All that is held or was let go."""
        return {**self.declined, **self.entries}.values()

    def reopen(self) -> None:
        """Nothing is lost."""

    def views(self) -> None:
        """A dict has no views."""
        return


class FileShelf:
    """A real store, on which ``VIEWER`` folds each change when it comes."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Make or open the file with its 32-byte key."""
        self._path = path
        self._key = key
        self._store = Store.open(path, key, rooms=[VIEWER])

    @property
    def entries(self) -> Mapping[bytes, Entry]:
        """Read from the file at each call."""
        ids = [row[0] for row in self._store.query("SELECT id FROM entry ORDER BY n")]
        return {entry.id: entry for entry in self._store.load(ids)}

    def append(self, entries: Sequence[Entry]) -> None:
        """Append and fold in one transaction, as the node does."""
        store = self._store

        def act() -> None:
            changes = store.append([Incoming(entry) for entry in entries])
            while store.fold(VIEWER.name, fresh=changes):
                pass

        store.together(act)

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Asked of the file."""
        return self._store.known(ids)

    def incomplete(self, ids: Sequence[bytes]) -> set[bytes]:
        """Asked of the file."""
        return self._store.incomplete(ids)

    def bare(self) -> list[Entry]:
        """Asked of the file."""
        return self._store.bare()

    def load(self, ids: Iterable[bytes]) -> list[Entry]:
        """Read from the file."""
        return self._store.load(ids)

    def buckets(self, space: bytes, priority_max: int = ALL_PRIORITIES) -> list[tuple[int, int]]:
        """Asked of the file."""
        return self._store.buckets(space, Scope(priority_max))

    def bucket(self, space: bytes, day: int, priority_max: int = ALL_PRIORITIES) -> SetView:
        """Read from the file."""
        return SetView.from_sorted(*self._store.bucket(space, day, Scope(priority_max)))

    def urgent(self, buckets: Collection[tuple[bytes, int]]) -> dict[bytes, list[bytes]]:
        """Asked of the file."""
        return self._store.urgent(buckets)

    def head(self, space: bytes, author: bytes) -> Head | None:
        """Asked of the file."""
        found = self._store.head(space, author)
        return Head(*found) if found else None

    def expire(self, before_day: int) -> None:
        """Remove and fold until nothing is left to remove."""
        while self._store.expire(before_day):
            self._fold()

    def drop_payload(self, id: bytes) -> None:
        """Drop and fold."""
        self._store.drop_payload(id)
        self._fold()

    def let_go(self, ids: Collection[bytes]) -> None:
        """Remove and fold."""
        found = [self._store.query("SELECT n FROM entry WHERE id = ?", (one,)) for one in ids]
        self._store.let_go([row[0] for rows in found for row in rows], lambda _: set(), sys.maxsize)
        self._fold()

    def reopen(self) -> None:
        """Close the file and open it again."""
        self._store.close()
        self._store = Store.open(self._path, self._key, rooms=[VIEWER])
        self._fold()

    def views(self) -> tuple[View, View]:
        """The rows of both tables, before and after ``rebuild``."""
        live = self._view()
        self._store.rebuild()
        return live, self._view()

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _fold(self) -> None:
        while self._store.fold(VIEWER.name):
            pass

    def _view(self) -> View:
        return [
            self._store.query(f"SELECT * FROM {table} ORDER BY id") for table in ("view_town_entry", "view_town_fork")
        ]
