"""Store: the node's SQLite file: entries, change log, public views of the rooms, peers; one writer; and its heap.

Every entry gets a number that grows: it is the cursor of the change that says Admitted, and the row it stands in.
Changes about it later get numbers of their own from the same counter, which never goes back: not by expiry, not by
``rebuild``. Rooms follow the changes by cursors; row changes and cursor are written in one transaction.

Methods under "writer" belong to the one writer thread, those under "reader" to any, one at a time. Everything
written is durable when the method returns. Every method raises StorageError when the disk is full, fails, or the file
is damaged; nothing of that call is then written, and the store works on as soon as there is room.

The store holds no person's private key, contact or clear text.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

import msgspec

from outlast.kernel.chunks import PLACES_MAX, Chunk, Cut, Loaded, Manifest, Wanted, is_chunked
from outlast.kernel.database import Database, Transaction, check_room_name
from outlast.kernel.entry import CHUNK_BYTES, PAYLOAD_MAX_BYTES, Entry, Header, pack_header, unpack
from outlast.kernel.forward import ALL_PRIORITIES
from outlast.kernel.heap import Heap
from outlast.kernel.mail import MAIL_PRIORITY, MAIL_SPACE
from outlast.kernel.quota import POOLED, Holding, rank_of
from outlast.kernel.room import Change, Event, Room, Value
from outlast.kernel.space import NO_SPACE, OPEN, space_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

APPLICATION_ID: Final = 0x4F4C5354  # "OLST"
HELD_MAX: Final = 1000
HELD_MAX_BYTES: Final = 4 * 1024 * 1024
REFUSED_MAX: Final = 100_000
DECLINED_MAX: Final = 500_000
"""Ids that are remembered so that they are not asked for again; the oldest are forgotten first."""
_INLINE_MAX_BYTES: Final = 1024
_SEQ_ZERO: Final = 2**63  # seq has 64 bits, SQLite's integers have a sign: 2**63 stands as 0
_CHANGES_SLICE: Final = 100
_CHANGES_MAX_BYTES: Final = 4 * 1024 * 1024
_SLICE: Final = 10_000
_PIECES_SLICE: Final = 20_000

_SCHEMA: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE room (name TEXT PRIMARY KEY, version INTEGER NOT NULL, cursor INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE space (
        n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, followed INTEGER NOT NULL, type TEXT NOT NULL DEFAULT 'open'
    );

    -- n is the cursor of the entry's ADMITTED change. prefix is the first 8 bytes of the id: indexes over random bytes
    -- cost most of a commit, and short ones less. author and seq are NULL outside chains. Payloads above 1 KiB stand in
    -- a table of their own, so that a walk over entries need not step over them. whole: 0 the payload has not come yet,
    -- 1 it is here, 2 it was here and was dropped, 3 a tombstone has ended it and it is not taken again. rank: how soon
    -- it goes when room is short, from 512 on of the pool.
    CREATE TABLE entry (
        n INTEGER PRIMARY KEY, prefix INTEGER NOT NULL, id BLOB NOT NULL, space INTEGER NOT NULL,
        expires_day INTEGER NOT NULL, ts_ms INTEGER NOT NULL, author BLOB, seq INTEGER, rank INTEGER NOT NULL,
        whole INTEGER NOT NULL, header BLOB NOT NULL, signature BLOB NOT NULL, payload BLOB
    );
    CREATE INDEX entry_prefix ON entry (prefix);
    CREATE INDEX entry_order ON entry (space, expires_day, ts_ms, id, rank);
    CREATE INDEX entry_urgent ON entry (space, expires_day, id) WHERE rank < 64;
    CREATE INDEX entry_pool ON entry (n) WHERE rank >= 512;
    CREATE INDEX entry_chain ON entry (author, space, seq) WHERE author IS NOT NULL;
    CREATE INDEX entry_bare ON entry (n) WHERE whole = 0;
    CREATE TABLE payload (n INTEGER PRIMARY KEY, data BLOB NOT NULL);

    -- Content in chunks. file: one row for each entry whose manifest is here, or is waited for because somebody asked
    -- for the content; wanted: 0 if its size allows, 1 somebody asked for it, -1 it was dropped. piece: which chunk
    -- stands at a place of an entry, only for those that are here; negative entries are stages. Equal chunks of one
    -- space are held once, those of two spaces twice: else who shares one space with this node could find out what it
    -- holds of another. refs: how many pieces name the chunk. n is also its slot in the heap. gap: slots before the
    -- last one that are free.
    CREATE TABLE file (
        n INTEGER PRIMARY KEY, size_bytes INTEGER NOT NULL, held_bytes INTEGER NOT NULL, wanted INTEGER NOT NULL
    );
    CREATE INDEX file_partial ON file (n) WHERE held_bytes < size_bytes;
    CREATE TABLE piece (
        entry INTEGER NOT NULL, place INTEGER NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (entry, place)
    ) WITHOUT ROWID;
    CREATE TABLE chunk (
        n INTEGER PRIMARY KEY, space INTEGER NOT NULL, hash BLOB NOT NULL, refs INTEGER NOT NULL, UNIQUE (space, hash)
    );
    CREATE INDEX chunk_loose ON chunk (n) WHERE refs = 0;
    CREATE TABLE gap (n INTEGER PRIMARY KEY);
    CREATE TABLE stage (n INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, day INTEGER NOT NULL);

    -- Entries (n) about others that may not be here yet. Of a tombstone: an id that it names, and who says so, by
    -- device and by identity. Of a revocation: the device, and the identity.
    CREATE TABLE ending (
        target BLOB NOT NULL, who BLOB NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (target, who, n)
    ) WITHOUT ROWID;
    CREATE TABLE tag (prefix INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (prefix, n)) WITHOUT ROWID;
    CREATE TABLE bucket (
        space INTEGER NOT NULL, expires_day INTEGER NOT NULL, pooled INTEGER NOT NULL, entries INTEGER NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY (space, expires_day, pooled)
    ) WITHOUT ROWID;
    -- What was let go or turned away and is not to be asked for again. n grows: the first rows are the oldest.
    CREATE TABLE declined (
        n INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, expires_day INTEGER NOT NULL,
        ts_ms INTEGER NOT NULL, id BLOB NOT NULL, rank INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX declined_order ON declined (space, expires_day, ts_ms, id, rank);
    CREATE INDEX declined_id ON declined (id);

    -- n is the entry of a later change, NULL in ADMITTED; gone is the packed header of one that is here no more.
    CREATE TABLE change (cursor INTEGER PRIMARY KEY AUTOINCREMENT, event INTEGER NOT NULL, n INTEGER, gone BLOB);
    CREATE INDEX change_later ON change (n) WHERE n IS NOT NULL;

    CREATE TABLE held (
        n INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, space BLOB NOT NULL, reason TEXT NOT NULL,
        packed BLOB NOT NULL
    );
    CREATE INDEX held_space ON held (space);
    -- told: the cursor up to which that neighbour has chosen from what strangers brought.
    CREATE TABLE peer (
        node BLOB PRIMARY KEY, host TEXT NOT NULL, port INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE refused (digest BLOB PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX refused_day ON refused (day);
    CREATE TABLE spent (
        day INTEGER NOT NULL, neighbour BLOB NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (day, neighbour)
    ) WITHOUT ROWID;
    """,
)

_PUT_ENTRY: Final = "INSERT INTO entry VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
_ENTRY: Final = "e.header, e.signature, e.id, ifnull(e.payload, (SELECT data FROM payload WHERE n = e.n))"
_BY_ID: Final = "e.prefix = ? AND e.id = ?"
_SPACE: Final = "(SELECT n FROM space WHERE id = ?)"
_SIZE: Final = (
    "length(e.header) + length(e.signature)"
    " + ifnull(length(e.payload), ifnull((SELECT length(data) FROM payload WHERE n = e.n), 0))"
)

T = TypeVar("T")
_Bucket = tuple[int, int, bool]  # number of the space, expires_day, pooled
Laid = dict[tuple[int, bytes], int]
"""Slots of the heap into which chunks were put that no commit names yet, by space and hash."""

# What stands in the store was canonical when it came in, and the file's encryption authenticates it.
_decode = msgspec.msgpack.Decoder(Header).decode
_EVENTS: Final = {event.value: event for event in Event}
_first_8 = struct.Struct(">q").unpack_from


class Incoming(NamedTuple):
    """An admitted entry on its way into the store, which is not told who brought it."""

    entry: Entry
    pooled: bool = False  # brought by a stranger: held outside the sets that neighbours reconcile


class Peer(NamedTuple):
    """A neighbour to connect to."""

    node: bytes  # 32 B, transport key
    host: str
    port: int


class Progress(NamedTuple):
    """How much of an entry's content is here."""

    held_bytes: int
    size_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether all of it is."""
        return self.held_bytes == self.size_bytes


class Grown(NamedTuple):
    """What came of chunks that were put: changes, and of each content that grew the places of what is here."""

    changes: list[Change]
    holdings: dict[bytes, int]
    whole: list[bytes]


class Usage(NamedTuple):
    """What is stored: bytes of headers, signatures and payloads (manifests, not chunks), and the number of entries."""

    bytes: int
    entries: int


class Scope(NamedTuple):
    """Which entries of a bucket count as its set."""

    priority_max: int = ALL_PRIORITIES  # not those of greater numbers
    pool: bool = False  # with all that strangers brought
    also: frozenset[bytes] = frozenset()  # of what strangers brought, these ids


SETS: Final = Scope()
"""What both sides of a link are to hold."""
ALL: Final = Scope(pool=True)


class Store:
    """The node's store, open. See the module for which thread calls what."""

    def __init__(self, database: Database, heap: Heap, rooms: Sequence[Room]) -> None:
        """Made by ``open`` alone."""
        self._database = database
        self._heap = heap
        self._reserving = Lock()
        self._reserved: set[int] = set()  # slots of the heap that are being put, and no commit names yet
        self._rooms = {check_room_name(room.name): room for room in rooms}
        self._spaces: dict[bytes, int] = {}
        self._rebuilding: set[str] = set()
        self._removals = 0

    @classmethod
    def open(cls, path: Path, key: bytes, *, rooms: Sequence[Room] = ()) -> Self:
        """Open the store with its 32-byte key, or make it; views of another version are dropped, to be folded anew.

        Its heap stands beside it, named ``*.chunks``. Raises StorageError when the file is damaged, has another key, or
        is of a newer version of this program.
        """
        database = Database.open(path, key, application_id=APPLICATION_ID, schema=_SCHEMA, scope="view_")
        heap = None
        try:
            heap = Heap.open(path.with_suffix(".chunks"), key)
            store = cls(database, heap, rooms)
            database.write(store._prepare_views)
            heap.shorten(_last_chunk(database))  # behind it is what a crash left, or another store
        except BaseException:
            database.close()
            if heap is not None:
                heap.close()
            raise
        return store

    def close(self) -> None:
        """Close the files. Closing twice is harmless."""
        self._database.close()
        self._heap.close()

    # ---- writer ----

    def together(self, act: Callable[[], T]) -> T:
        """Run ``act``, and what it writes to this store by any methods in one transaction; a raise undoes all of it.

        Readers see none of it before this returns.
        """
        return self._write(lambda _: act())

    def held(self, ids: Iterable[bytes]) -> set[bytes]:
        """Which of these ids are held, as the writer's open transaction has it."""
        return self._write(lambda t: _held(t, set(ids)))

    def append(self, items: Sequence[Incoming], held: Collection[bytes] | None = None) -> list[Change]:
        """Store admitted entries in one transaction; the changes they made, in the order of their cursors.

        An id already held is skipped, unless it comes with the payload that was missing. A second entry in one place of
        a chain (space, author, seq) is kept and adds a FORKED change. The caller has verified everything, and knows
        which of the ids are held if it asked ``held`` in the same transaction (see ``together``).
        """
        if not items:
            return []

        def act(t: Transaction) -> list[Change]:
            fresh: dict[bytes, Incoming] = {item.entry.id: item for item in reversed(items)}
            known = _held(t, set(fresh)) if held is None else fresh.keys() & held
            late = [fresh.pop(i).entry for i in known]
            changes = self._insert(t, [item for item in items if fresh.get(item.entry.id) is item])
            for entry in late:
                if entry.payload is not None:
                    changes += self._attach(t, entry.id, entry.payload)
            return changes

        return self._write(act)

    def drop_payload(self, id: bytes) -> Change | None:
        """Forget an entry's payload and keep its header; None when there is nothing to drop."""

        def act(t: Transaction) -> Change | None:
            rows = _with_place(t, id)
            if not rows or rows[0][3] is None:
                return None
            header, signature, _, payload, n, *bucket = rows[0]
            t.execute("UPDATE entry SET payload = NULL, whole = 2 WHERE n = ?", (n,))
            t.execute("DELETE FROM payload WHERE n = ?", (n,))
            _count(t, {_bucket(*bucket): (0, -len(payload))})
            _let_go(t, n)
            t.execute("DELETE FROM file WHERE n = ?", (n,))
            return _log(t, Event.PAYLOAD_DROPPED, n, _entry(header, signature, id, None))

        return self._write(act)

    def note_endings(self, entry: bytes, about: Iterable[tuple[bytes, bytes]]) -> None:
        """Remember that a held entry, by its id, is about these ids or devices, each with who says so (32 B both)."""
        rows = [(target, who, _prefix(entry), entry) for target, who in about]
        if rows:
            self._write(
                lambda t: t.executemany(
                    "INSERT OR IGNORE INTO ending SELECT ?, ?, n FROM entry WHERE prefix = ? AND id = ?", rows
                )
            )

    def end(self, id: bytes) -> Change | None:
        """Drop an entry's payload for good: it is not taken again; None when it was not here."""

        def act(t: Transaction) -> Change | None:
            change = self.drop_payload(id)
            t.execute("UPDATE entry SET whole = 3 WHERE prefix = ? AND id = ?", (_prefix(id), id))
            return change

        return self._write(act)

    def get_now(self, id: bytes) -> Entry | None:
        """The entry of that id, as ``get`` does, within the present transaction too."""
        rows = self._database.read(f"SELECT {_ENTRY} FROM entry e WHERE {_BY_ID}", (_prefix(id), id))
        return _entry(*rows[0]) if rows else None

    def endings(self, target: bytes, whose: Iterable[bytes]) -> Iterator[Entry]:
        """The held entries that are about this id or device, by any of these, within the present transaction too."""
        for who in whose:
            rows = self._database.read("SELECT n FROM ending WHERE target = ? AND who = ? ORDER BY n", (target, who))
            for row in rows:
                for found in self._database.read(f"SELECT {_ENTRY} FROM entry e WHERE n = ?", row):
                    yield _entry(*found)

    def is_alone(self, entry: Entry) -> bool:
        """Whether a held entry is the only one here of its number in its chain, within the present transaction too."""
        h = entry.header
        rows = self._database.read(
            f"SELECT count(*) FROM entry WHERE author = ? AND space = {_SPACE} AND seq = ?",
            (h.author, h.space, h.seq - _SEQ_ZERO),
        )
        return int(rows[0][0]) <= 1

    def named(self, ids: Sequence[bytes], spaces: Sequence[bytes] = ()) -> list[Entry]:
        """The held entries that some entry is about and none has ended, of these ids or spaces; without payloads."""
        if not self._database.read("SELECT 1 FROM ending LIMIT 1"):
            return []
        found = "SELECT e.header, e.signature, e.id, NULL FROM entry e WHERE whole <> 3"
        named = " AND EXISTS (SELECT 1 FROM ending x WHERE x.target = e.id)"
        rows = self._database.read(f"{found} AND e.prefix IN carray(?){named}", (_prefixes(ids),))
        for space in spaces:
            rows += self._database.read(f"{found} AND e.space = {_SPACE}{named}", (space,))
        return [_entry(*row) for row in rows]

    @contextmanager
    def laying(self) -> Iterator[Laid]:
        """Slots of the heap for chunks that are to be stored within this block, on any thread.

        At its end they are free again, unless a commit names them. First ``reserve_chunks`` or ``reserve_stage``, then
        ``lay`` while the writer is at something else, then ``put_chunks`` or ``stage_chunks``, which lays what was not.
        """
        laid: Laid = {}
        try:
            yield laid
        finally:
            with self._reserving:
                self._reserved.difference_update(laid.values())

    def reserve_chunks(self, laid: Laid, chunks: Sequence[Chunk]) -> None:
        """Find slots for what is to be put by ``put_chunks`` and is not here."""

        def act(t: Transaction) -> None:
            for id, its in _by_entry(chunks).items():
                for (space,) in t.query(f"SELECT space FROM entry e WHERE {_BY_ID}", (_prefix(id), id)):
                    self._reserve(t, laid, space, [chunk.hash for chunk in its])

        self._write(act)

    def reserve_stage(self, laid: Laid, stage: int, chunks: Sequence[Cut]) -> None:
        """Find slots for what is to be put by ``stage_chunks`` and is not here."""

        def act(t: Transaction) -> None:
            space = t.query("SELECT space FROM stage WHERE n = ?", (stage,))[0][0]
            self._reserve(t, laid, space, [chunk.hash for chunk in chunks])

        self._write(act)

    def lay(self, laid: Laid, chunks: Sequence[Chunk] | Sequence[Cut]) -> None:
        """Put chunks into the slots reserved for them, durable, on any thread."""
        data = {chunk.hash: chunk.data for chunk in chunks}
        self._heap.put((slot, hash, data[hash]) for (_, hash), slot in laid.items())

    def put_chunks(self, laid: Laid, chunks: Sequence[Chunk]) -> Grown:
        """Store chunks, each at all its places in its entry; what is here already is skipped.

        The caller has compared them with the manifest. A content that becomes whole adds a PAYLOAD_ARRIVED change.
        Entries that are gone meanwhile are passed over. Not to be called in ``together``: slots may be let go of only
        after the commit.
        """

        def act(t: Transaction) -> Grown:
            changes: list[Change] = []
            holdings: dict[bytes, int] = {}
            whole: list[bytes] = []
            for id, its in _by_entry(chunks).items():
                rows = _with_place(t, id)
                if not rows or not (file := _file(t, rows[0][4])) or rows[0][3] is None:
                    continue
                header, signature, _, payload, n, space, *_ = rows[0]
                manifest = Manifest(file.size_bytes, payload)
                numbers = self._put_chunks(t, laid, space, {chunk.hash: chunk.data for chunk in its})
                found = [(at, numbers[hash]) for at, hash in manifest.places_of(numbers)]
                fresh = _put_pieces(t, n, found)
                if not fresh:
                    continue
                if _grow(t, n, manifest, fresh):
                    changes.append(_log(t, Event.PAYLOAD_ARRIVED, n, _entry(header, signature, id, payload)))
                    whole.append(id)
                holdings[id] = _holding(t, n)
            return Grown(changes, holdings, whole)

        return self._write(act)

    def want(self, id: bytes) -> bool:
        """Fetch this entry's content, whatever its size; whether a payload has to come first that was dropped."""

        def act(t: Transaction) -> bool:
            _set_wanted(t, id, 1)
            return t.execute(f"UPDATE entry AS e SET whole = 0 WHERE {_BY_ID} AND whole = 2", (_prefix(id), id)) > 0

        return self._write(act)

    def open_content(self, id: bytes) -> tuple[Wanted | None, Grown]:
        """What is missing of an entry's content, once what its space holds already is taken from there."""

        def act(t: Transaction) -> tuple[Wanted | None, Grown]:
            rows = _with_place(t, id)
            if not rows or not (file := _file(t, rows[0][4])) or rows[0][3] is None or file.is_whole:
                return None, Grown([], {}, [])
            header, signature, _, payload, n, space, *_ = rows[0]
            manifest = Manifest(file.size_bytes, payload)
            changes = _link(t, n, space, _entry(header, signature, id, payload))
            if changes:
                return None, Grown(changes, {id: _holding(t, n)}, [id])
            held, first = _holding(t, n), dict[bytes, int]()
            for place in range(len(manifest)):
                first.setdefault(manifest.hash_at(place), place)
            missing = sum(1 << place for place in first.values() if not held >> place & 1)
            requested = t.query("SELECT wanted = 1 FROM file WHERE n = ?", (n,))[0][0]
            return Wanted(id, manifest, missing, bool(requested)), Grown([], {id: held}, [])

        return self._write(act)

    def drop_content(self, id: bytes) -> Change | None:
        """Forget an entry's chunks and keep its manifest; they are fetched again only when somebody asks for it."""

        def act(t: Transaction) -> Change | None:
            rows = _with_place(t, id)
            if not rows or not (file := _file(t, rows[0][4])):
                return None
            header, signature, _, payload, n, *_ = rows[0]
            _set_wanted(t, id, -1)
            if not file.held_bytes:
                return None
            _let_go(t, n)
            return _log(t, Event.PAYLOAD_DROPPED, n, _entry(header, signature, id, payload))

        return self._write(act)

    def open_stage(self, space: bytes, day: int) -> int:
        """A place for the chunks of an entry that is being made: its number."""

        def act(t: Transaction) -> int:
            t.execute("INSERT INTO stage (space, day) VALUES (?, ?)", (self._space(t, space), day))
            return int(t.query("SELECT max(n) FROM stage")[0][0])

        return self._write(act)

    def stage_chunks(self, laid: Laid, stage: int, first: int, chunks: Sequence[Cut]) -> None:
        """Keep chunks from a place on; the entry that names them takes them from there. See ``put_chunks``."""

        def act(t: Transaction) -> None:
            space = t.query("SELECT space FROM stage WHERE n = ?", (stage,))[0][0]
            numbers = self._put_chunks(t, laid, space, dict(chunks))
            _put_pieces(t, -stage, [(place, numbers[chunk.hash]) for place, chunk in enumerate(chunks, first)])

        self._write(act)

    def close_stage(self, stage: int) -> None:
        """The entry is in the store, or will never be."""

        def act(t: Transaction) -> None:
            _let_go(t, -stage)
            t.execute("DELETE FROM stage WHERE n = ?", (stage,))

        self._write(act)

    def close_stages(self, before_day: int) -> None:
        """Forget stages that were opened before that day and never closed: a crash was in between."""
        for (stage,) in self.query("SELECT n FROM stage WHERE day < ?", (before_day,)):
            self.close_stage(stage)

    def free_chunks(self, limit: int = 512) -> int:
        """Remove chunks that no entry names any more, at most ``limit``: call again while it removes some.

        Not to be called in ``together``: a slot of the heap may be put anew only after the commit that freed it.
        """

        def act(t: Transaction) -> tuple[int, int]:
            loose = t.query("SELECT n FROM chunk WHERE refs = 0 LIMIT ?", (limit,))
            t.executemany("DELETE FROM chunk WHERE n = ?", loose)
            t.executemany("INSERT INTO gap VALUES (?)", loose)
            last = _last_chunk(t)
            t.execute("DELETE FROM gap WHERE n > ?", (last,))
            return len(loose), last

        freed, last = self._write(act)
        if freed:
            with self._reserving:
                self._heap.shorten(max((last, *self._reserved)))
        return freed

    def expire(self, before_day: int, limit: int = 2000) -> int:
        """Remove entries with 0 < expires_day < ``before_day``; at most ``limit``: call again while it removes some.

        Each leaves an EXPIRED change that carries its header, until every room has folded it. What was refused or spent
        before that day is forgotten too.
        """

        def act(t: Transaction) -> int:
            removed = 0
            for (space,) in t.query("SELECT n FROM space"):
                if removed < limit:
                    removed += self._remove(
                        t, "space = ? AND expires_day BETWEEN 1 AND ?", (space, before_day - 1), limit - removed
                    )
            if not removed:
                t.execute("DELETE FROM refused WHERE day < ?", (before_day,))
                t.execute("DELETE FROM spent WHERE day < ?", (before_day,))
                t.execute("DELETE FROM declined WHERE expires_day BETWEEN 1 AND ?", (before_day - 1,))
                t.execute("DELETE FROM ending WHERE n NOT IN (SELECT n FROM entry)")
                self._forget_gone(t)
            return removed

        return self._write(act)

    def remove(self, ids: Sequence[bytes]) -> int:
        """Remove these entries, as ``expire`` would; how many there were."""
        return self._write(lambda t: sum(self._remove(t, _BY_ID, (_prefix(id), id), 1) for id in ids))

    def promote(self, ids: Sequence[bytes]) -> set[bytes]:
        """Take entries out of the pool and into the sets, for somebody who is no stranger has them; which they were."""

        def act(t: Transaction) -> set[bytes]:
            rows = t.query(
                f"SELECT id, n, space, expires_day, rank, {_SIZE} FROM entry e WHERE prefix IN carray(?)"
                f" AND rank >= {POOLED}",
                (_prefixes(ids),),
            )
            found = [row for row in rows if row[0] in ids]
            t.executemany("UPDATE entry SET rank = rank - ? WHERE n = ?", [(POOLED, row[1]) for row in found])
            for _, _, space, day, _, size in found:
                _count(t, {(space, day, True): (-1, -size), (space, day, False): (1, size)})
            return {row[0] for row in found}

        return self._write(act)

    def decline(self, entries: Sequence[Entry]) -> None:
        """Remember ids that are not to be asked for again, until their buckets expire."""

        def act(t: Transaction) -> None:
            self._removals += 1
            _decline(
                t,
                [
                    (self._space(t, space_of(e)), e.header.expires_day, e.header.ts_ms, e.id, rank_of(e.header, False))
                    for e in entries
                ],
            )

        self._write(act)

    def let_go(
        self, numbers: Sequence[int], spares: Callable[[Sequence[Entry]], set[bytes]], enough_bytes: int
    ) -> dict[int, int]:
        """Remove entries by their numbers, in that order, until ``enough_bytes`` are free; number -> bytes freed.

        ``spares`` names ids that stay. Each that goes leaves an EXPIRED change, as by ``expire``, and is not to be
        asked for again.
        """

        def act(t: Transaction) -> dict[int, int]:
            freed = _freed(t, numbers, _SIZE, spares, enough_bytes)
            gone = list(freed)
            for at in range(0, len(gone), _CHANGES_SLICE):
                part = _numbers(gone[at : at + _CHANGES_SLICE])
                rows = t.query("SELECT space, expires_day, ts_ms, id, rank FROM entry WHERE n IN carray(?)", (part,))
                _decline(t, rows)
                while self._remove(t, "e.n IN carray(?)", (part,), _CHANGES_SLICE):
                    pass
            return freed

        return self._write(act)

    def drop_payloads(
        self, numbers: Sequence[int], spares: Callable[[Sequence[Entry]], set[bytes]], enough_bytes: int
    ) -> dict[int, int]:
        """Drop payloads above 1 KiB and contents in chunks, as ``let_go`` removes whole entries; number -> bytes freed.

        Chunks that nothing names any more are still to be removed by ``free_chunks``.
        """

        def act(t: Transaction) -> dict[int, int]:
            size = (
                "ifnull((SELECT length(data) FROM payload WHERE n = e.n), 0)"
                " + ifnull((SELECT held_bytes FROM file WHERE n = e.n), 0)"
            )
            freed = _freed(t, numbers, size, spares, enough_bytes)
            for (id,) in t.query("SELECT id FROM entry WHERE n IN carray(?)", (_numbers(freed),)):
                self.drop_payload(id)
            return freed

        return self._write(act)

    def fold(self, room: str, limit: int = 1000, fresh: Sequence[Change] = ()) -> int:
        """Fold up to ``limit`` changes into a room's view, in one transaction; how many are left: call until 0.

        ``fresh`` are the newest changes, as ``append`` returned them: they need not be read again if they come next,
        and they wait for the others while the view is ``rebuilding``. Whatever the room's ``fold`` raises passes
        through and nothing is written.
        """
        if fresh and room in self._rebuilding:
            return 0
        return self._write(lambda t: self._fold(t, self._rooms[room], limit, fresh))

    @contextmanager
    def rebuilding(self, room: str) -> Iterator[None]:
        """Within this block a room's view may lag: ``drop_view``, then ``fold``, each in a turn of the writer."""
        self._rebuilding.add(room)
        try:
            yield
        finally:
            self._rebuilding.discard(room)

    def drop_view(self, room: str) -> None:
        """Empty a room's view, to fold every change anew. Cursors of the change log stay as they are."""
        self._write(partial(_create_views, room=self._rooms[room]))

    def rebuild(self) -> None:
        """Drop the rooms' views and fold every change anew, in one turn."""
        for name in self._rooms:
            self.drop_view(name)
            while self.fold(name):
                pass

    def hold(self, packed: bytes, reason: str, space: bytes) -> None:
        """Keep a packed entry that cannot be judged yet; the oldest go first beyond 1000 of them or 4 MiB."""

        def act(t: Transaction) -> None:
            t.execute(
                "INSERT INTO held (digest, space, reason, packed) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (sha256(packed).digest(), space, reason, packed),
            )
            t.execute(
                "DELETE FROM held WHERE n <= ifnull((SELECT max(n) FROM (SELECT n, row_number() OVER w AS place,"
                " sum(length(packed)) OVER w AS total FROM held WINDOW w AS (ORDER BY n DESC))"
                " WHERE place > ? OR total > ?), 0)",
                (HELD_MAX, HELD_MAX_BYTES),
            )

        self._write(act)

    def release(self, space: bytes) -> list[bytes]:
        """Take out what was held for a space, oldest first, to be judged again."""

        def act(t: Transaction) -> list[bytes]:
            packed = [row[0] for row in t.query("SELECT packed FROM held WHERE space = ? ORDER BY n", (space,))]
            t.execute("DELETE FROM held WHERE space = ?", (space,))
            return packed

        return self._write(act)

    def set_meta(self, name: str, value: bytes) -> None:
        """Keep a named value of the node, or replace it."""
        self._write(
            lambda t: t.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
            )
        )

    def put_peer(self, node: bytes, host: str, port: int) -> None:
        """Remember a neighbour (transport key, 32 B), or its new address."""
        self._write(
            lambda t: t.execute(
                "INSERT INTO peer (node, host, port) VALUES (?, ?, ?)"
                " ON CONFLICT (node) DO UPDATE SET host = excluded.host, port = excluded.port",
                (node, host, port),
            )
        )

    def remove_peer(self, node: bytes) -> bool:
        """Forget a neighbour; whether there was one."""
        return self._write(lambda t: t.execute("DELETE FROM peer WHERE node = ?", (node,))) > 0

    def tell_peer(self, node: bytes, cursor: int) -> None:
        """Remember that a neighbour has chosen from all that strangers brought up to ``cursor``."""
        self._write(lambda t: t.execute("UPDATE peer SET told = ? WHERE node = ?", (cursor, node)))

    def put_space(self, space: bytes, type: str = OPEN) -> None:
        """Follow a space; what is closed is never opened again."""
        self._write(
            lambda t: t.execute(
                "INSERT INTO space (id, followed, type) VALUES (?, 1, ?) ON CONFLICT (id) DO UPDATE"
                " SET followed = 1, type = iif(excluded.type = ?, type, excluded.type)",
                (space, type, OPEN),
            )
        )

    def remove_space(self, space: bytes, limit: int = 2000) -> int:
        """Stop following a space and remove its entries, at most ``limit``: call again while it removes some."""

        def act(t: Transaction) -> int:
            rows = t.query("SELECT n FROM space WHERE id = ?", (space,))
            if not rows:
                return 0
            t.execute("UPDATE space SET followed = 0 WHERE n = ?", rows[0])
            t.execute("DELETE FROM declined WHERE space = ?", rows[0])
            return self._remove(t, "space = ?", rows[0], limit)

        return self._write(act)

    def remember_refused(self, digest: bytes, day: int) -> None:
        """Remember until ``day`` what is not to be taken again: 32 B over header, signature and payload."""

        def act(t: Transaction) -> None:
            t.execute(
                "INSERT INTO refused VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET day = max(day, excluded.day)",
                (digest, day),
            )
            if t.query("SELECT count(*) FROM refused")[0][0] > REFUSED_MAX:
                t.execute(
                    "DELETE FROM refused WHERE digest IN (SELECT digest FROM refused ORDER BY day LIMIT ?)",
                    (REFUSED_MAX // 10,),
                )

        self._write(act)

    def spend(self, neighbour: bytes, day: int, size_bytes: int) -> None:
        """Charge bytes to a neighbour's share of a day."""
        self._write(
            lambda t: t.execute(
                "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
                (day, neighbour, size_bytes),
            )
        )

    def is_sound(self) -> bool:
        """Whether no page of the database is damaged; reads all of it, which may take seconds."""
        return self._database.is_sound()

    def look_at_chunks(self, after: int, limit: int = 128) -> tuple[int, bool]:
        """The number of the last of the ``limit`` chunks behind ``after``, 0 without any, and whether all are sound.

        A heap of many GiB takes minutes: it is looked at a few MiB at a time.
        """
        rows = self._database.read("SELECT n, hash FROM chunk WHERE n > ? ORDER BY n LIMIT ?", (after, limit))
        return rows[-1][0] if rows else 0, None not in self._heap.get(rows)

    # ---- reader ----

    def holdings(
        self,
        *,
        pooled: bool,
        space: bytes | None = None,
        large: bool = False,
        among: Sequence[int] | None = None,
        after: int = 0,
        limit: int = -1,
    ) -> list[Holding]:
        """What could be let go: of the pool or of the sets, of one space or of all, in the order in which it came.

        Nothing whose content in chunks somebody here asked for. ``large``: what has more than 1 KiB. ``among``: of
        these numbers; else ``limit`` of those after ``after``. Runs on the writer's thread.
        """
        # Such a content counts in no quota: with its entry all of it would go, and little room would be found by that.
        asked = "SELECT 1 FROM file WHERE file.n = entry.n AND wanted = 1"
        where = f"(rank >= {POOLED}) = ? AND n > ? AND NOT EXISTS ({asked})"
        args: list[Any] = [pooled, after]
        if pooled:
            where += f" AND rank >= {POOLED}"  # said once more as the index says it
        if space is not None:
            where += f" AND space = {_SPACE}"
            args.append(space)
        if large:
            where += " AND n IN (SELECT n FROM payload UNION SELECT n FROM file WHERE held_bytes > 0)"
        if among is not None:
            where += " AND n IN carray(?)"
            args.append(_numbers(among))
        sql = f"SELECT n, rank, ts_ms FROM entry WHERE {where} ORDER BY n LIMIT ?"
        return [Holding(*row) for row in self._database.read(sql, (*args, limit))]

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return self._database.query(sql, args)

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these ids are held."""
        return _held(self._database, set(ids))

    def incomplete(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these ids are held without their payload."""
        asked = set(ids)
        rows = self._database.query(
            "SELECT id FROM entry WHERE prefix IN carray(?) AND whole IN (0, 2)", (_prefixes(asked),)
        )
        return {row[0] for row in rows} & asked

    def get(self, id: bytes) -> Entry | None:
        """The entry of that id, with its payload if it is here."""
        rows = self._database.query(f"SELECT {_ENTRY} FROM entry e WHERE {_BY_ID}", (_prefix(id), id))
        return _entry(*rows[0]) if rows else None

    def load(self, ids: Iterable[bytes]) -> list[Entry]:
        """The entries of these ids that are held, in the order asked for."""
        return [entry for id in ids if (entry := self.get(id)) is not None]

    def buckets(self, space: bytes, scope: Scope = SETS) -> list[tuple[int, int]]:
        """The buckets of a space as (expires_day, ids), by day; what was declined counts like what is held."""
        counted = "SELECT expires_day, entries AS ids FROM bucket WHERE pooled <= ?"
        if not _is_all(space, scope.priority_max):
            counted = "SELECT expires_day, 1 AS ids FROM entry WHERE (rank >= 512) <= ?"
        low = "TRUE" if _is_all(space, scope.priority_max) else _is_low(scope)
        return self._database.query(
            f"SELECT expires_day, sum(ids) FROM ({counted} AND space = {_SPACE} AND {low}"
            f" UNION ALL SELECT expires_day, 1 FROM entry WHERE prefix IN carray(?) AND rank >= {POOLED}"
            f" AND space = {_SPACE} UNION ALL SELECT expires_day, 1 FROM declined WHERE (rank >= {POOLED}) <= ?"
            f" AND space = {_SPACE} AND {low}) GROUP BY expires_day",
            (scope.pool, space, _prefixes(scope.also), space, scope.pool, space),
        )

    def bucket(
        self, space: bytes, expires_day: int, scope: Scope = SETS
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """A bucket's set, sorted by (ts, id): times in ms, shape (n,), and ids, shape (n, 32)."""
        return in_order(self.slices(space, expires_day, scope))

    def slices(self, space: bytes, expires_day: int, scope: Scope = SETS) -> Iterator[tuple[list[int], bytes]]:
        """A bucket's set piece by piece: times in ms, and ids, 32 B each; every piece in order, the held ones first.

        What was declined is part of it, so that nobody offers it again. What changes between two pieces may be in it or
        not.
        """
        for table in ("entry", "declined"):
            after: tuple[int, bytes] = (-1, b"")
            while True:
                # Pieces keep the memory for rows small; each begins behind the last one in the index.
                rows = self._database.query(
                    f"SELECT ts_ms, id FROM {table} WHERE space = {_SPACE} AND expires_day = ? AND (ts_ms, id) > (?, ?)"
                    f" AND (rank >= {POOLED}) <= ? AND {_is_low(scope)} ORDER BY ts_ms, id LIMIT ?",
                    (space, expires_day, *after, scope.pool, _SLICE),
                )
                if rows:
                    yield [row[0] for row in rows], b"".join([row[1] for row in rows])
                    after = rows[-1]
                if len(rows) < _SLICE:
                    break
        if scope.also:
            rows = self._database.query(
                f"SELECT ts_ms, id FROM entry WHERE prefix IN carray(?) AND space = {_SPACE} AND expires_day = ?"
                " ORDER BY ts_ms, id",
                (_prefixes(scope.also), space, expires_day),
            )
            if rows:
                yield [row[0] for row in rows], b"".join([row[1] for row in rows])

    def version(self, space: bytes, expires_day: int) -> tuple[Value, ...]:
        """Another one whenever a bucket's set is another one, within one run of the program."""
        rows = self._database.query(
            f"SELECT * FROM bucket WHERE space = {_SPACE} AND expires_day = ?", (space, expires_day)
        )
        return (self._removals, *(value for row in rows for value in row))

    def urgent(self, buckets: Iterable[tuple[bytes, int]]) -> dict[bytes, list[bytes]]:
        """By space the ids of alarms and keys, which have priority 0, in these buckets; declined ones too."""
        found: dict[bytes, list[bytes]] = {}
        for space, day in buckets:
            rows = self._database.query(
                f"SELECT id FROM entry WHERE space = {_SPACE} AND expires_day = ? AND rank < 64"
                f" UNION SELECT id FROM declined WHERE space = {_SPACE} AND expires_day = ? AND rank < 64",
                (space, day, space, day),
            )
            found.setdefault(space, []).extend(row[0] for row in rows)
        return found

    def pool(self, spaces: Iterable[bytes], peer: bytes) -> list[tuple[bytes, int]]:
        """What strangers brought to these spaces and a neighbour was not told of: the newest 1000, as (id, bytes)."""
        numbers = [n for n, id in self._database.query("SELECT n, id FROM space") if id in set(spaces)]
        return self._database.query(
            f"SELECT id, {_SIZE} FROM entry e WHERE rank >= {POOLED} AND whole = 1"
            " AND n > ifnull((SELECT told FROM peer WHERE node = ?), 0) AND space IN carray(?)"
            " ORDER BY n DESC LIMIT 1000",
            (peer, _numbers(numbers)),
        )

    def looks_pooled(self, space: bytes, number: int) -> bool:
        """Whether the first entry of a space from this number on lies in the pool; False where there is none."""
        rows = self._database.query(
            f"SELECT rank FROM entry WHERE n >= ? AND space = {_SPACE} ORDER BY n LIMIT 1", (number, space)
        )
        return bool(rows) and rows[0][0] >= POOLED

    def pooled(self, ids: Iterable[bytes]) -> set[bytes]:
        """Which of these ids lie in the pool."""
        asked = set(ids)
        rows = self._database.query(
            f"SELECT id FROM entry WHERE prefix IN carray(?) AND rank >= {POOLED}", (_prefixes(asked),)
        )
        return {row[0] for row in rows} & asked

    def unwanted(self, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these ids are not to be asked for: held, unless their payload has yet to come, or declined."""
        found = self._database.query("SELECT id FROM entry WHERE prefix IN carray(?) AND whole <> 0", (_prefixes(ids),))
        return {row[0] for row in found} & set(ids) | self.declined(ids)

    def declined(self, ids: Iterable[bytes]) -> set[bytes]:
        """Which of these ids are not to be asked for again."""
        return {id for id in ids if self._database.query("SELECT 1 FROM declined WHERE id = ? LIMIT 1", (id,))}

    def bare(self, limit: int = 10_000) -> list[Entry]:
        """Entries whose payload has not come yet, newest first; those whose payload was dropped are not among them."""
        rows = self._database.query(
            "SELECT header, signature, id FROM entry WHERE whole = 0 ORDER BY n DESC LIMIT ?", (limit,)
        )
        return [_entry(header, signature, id, None) for header, signature, id in rows]

    def wanted(self, auto_bytes: int) -> list[tuple[bytes, bytes, int, bool]]:
        """Followed content that is not whole and was asked for, or has at most ``auto_bytes`` and is no stranger's.

        The newest 4096 of it, what came last first, as (id, space, bytes that are missing, whether somebody asked).
        """
        return self._database.query(
            "SELECT e.id, s.id, f.size_bytes - f.held_bytes, f.wanted FROM file f JOIN entry e ON e.n = f.n"
            " JOIN space s ON s.n = e.space WHERE f.held_bytes < f.size_bytes AND e.whole = 1 AND s.followed"
            f" AND (f.wanted = 1 OR f.wanted = 0 AND f.size_bytes <= ? AND e.rank < {POOLED})"
            " ORDER BY f.n DESC LIMIT 4096",
            (auto_bytes,),
        )

    def progress(self, id: bytes, space: bytes | None = None) -> Progress | None:
        """How much of an entry's content is here; None when the entry is not, or stands in another space."""
        rows = self._database.query(
            f"SELECT e.header, e.whole, f.held_bytes FROM entry e LEFT JOIN file f ON f.n = e.n WHERE {_BY_ID}",
            (_prefix(id), id),
        )
        if not rows:
            return None
        header, whole, held = _decode(rows[0][0]), *rows[0][1:]
        if space not in (None, header.space):
            return None
        size = header.payload_size
        return Progress(held if held is not None else size if whole == 1 and size <= PAYLOAD_MAX_BYTES else 0, size)

    def is_awaited(self, id: bytes, auto_bytes: int) -> bool:
        """Whether an entry's content is fetched from whoever has it: as ``wanted`` says, or its payload is to come."""
        rows = self._database.query(
            "SELECT e.header, e.whole, e.rank, f.wanted FROM entry e LEFT JOIN file f ON f.n = e.n"
            f" WHERE {_BY_ID} AND e.whole < 2",
            (_prefix(id), id),
        )
        if not rows:
            return False
        header, whole, rank, asked = rows[0]
        size = _decode(header).payload_size
        if size <= PAYLOAD_MAX_BYTES:
            return not whole
        return bool(asked == 1) if asked else bool(size <= auto_bytes and rank < POOLED)

    def content_size(self, id: bytes) -> int:
        """The bytes of a held entry's content, here or not; 0 when there is no such entry."""
        found = self.progress(id)
        return found.size_bytes if found is not None else 0

    def chunk(self, id: bytes, place: int) -> Loaded:
        """A chunk of an entry's content, with its entry's space; see ``Loaded`` for what is not here."""
        missed = None
        while rows := self._database.query(
            "SELECT s.id, c.n, c.hash FROM entry e JOIN space s ON s.n = e.space LEFT JOIN piece p"
            " ON p.entry = e.n AND p.place = ? LEFT JOIN chunk c ON c.n = p.chunk"
            f" WHERE {_BY_ID}",
            (place, _prefix(id), id),
        ):
            space, number, hash = rows[0]
            data = self._heap.get([(number, hash)])[0] if number is not None else None
            if data is not None or number is None or rows == missed:
                return Loaded(id, place, space, data, hash or b"")
            missed = rows  # damaged, or its slot was given to another one meanwhile
        return Loaded(id, place, None, None)

    def chunks(self, places: Iterable[tuple[bytes, int]], *, once: bool = False) -> list[Loaded]:
        """Chunks, by entry and place; ``once``: they are not asked for again soon."""
        asked: dict[bytes, list[int]] = {}
        for id, place in places:
            asked.setdefault(id, []).append(place)
        found: list[Loaded] = []
        for id, wanted in asked.items():
            rows = self._database.query(
                "SELECT p.place, s.id, c.n, c.hash FROM entry e JOIN space s ON s.n = e.space JOIN piece p"
                f" ON p.entry = e.n JOIN chunk c ON c.n = p.chunk WHERE {_BY_ID} AND p.place IN carray(?)",
                (_prefix(id), id, _numbers(wanted)),
            )
            read = self._heap.get((n, hash) for _, _, n, hash in rows)
            here = {row[0]: Loaded(id, row[0], row[1], data, row[3]) for row, data in zip(rows, read, strict=True)}
            if once:
                self._heap.let_go(n for _, _, n, _ in rows)
            for place in wanted:
                one = here.get(place)
                # What is not here, is damaged, or was moved meanwhile is looked for once more by itself.
                found.append(one if one is not None and one.data is not None else self.chunk(id, place))
        return found

    def has_loose_chunks(self) -> bool:
        """Whether ``free_chunks`` has something to remove."""
        return bool(self._database.query("SELECT 1 FROM chunk WHERE refs = 0 LIMIT 1"))

    def holding(self, id: bytes) -> int:
        """The places of an entry's chunks that are here, as a set (see ``chunks``)."""
        rows = self._database.query(f"SELECT n FROM entry e WHERE {_BY_ID}", (_prefix(id), id))
        return _holding(self._database, rows[0][0]) if rows else 0

    def by_tags(self, tags: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
        """The entries that bear any of these tags, as (tag, id)."""
        wanted = set(tags)
        rows = self._database.query(
            "SELECT DISTINCT e.id, e.header FROM tag t JOIN entry e ON e.n = t.n WHERE t.prefix IN carray(?)"
            " ORDER BY t.n",
            (_prefixes(wanted),),
        )
        return [(tag, id) for id, header in rows for tag in _decode(header).tags if tag in wanted]

    def changes(self, after: int, limit: int = 1000) -> list[Change]:
        """Up to ``limit`` changes behind a cursor, oldest first: fewer when payloads are large, none at the end."""
        return _changes(self._database, after, limit)

    def cursor(self) -> int:
        """The cursor of the latest change there ever was; 0 before the first."""
        return _last_cursor(self._database)

    def behind(self) -> int:
        """How many changes the view that lags most has not folded yet."""
        sql = "SELECT count(*) FROM change WHERE cursor > (SELECT min(cursor) FROM room)"
        return int(self._database.query(sql)[0][0])

    def usage(self) -> Usage:
        """What all entries take."""
        return Usage(*self._database.query("SELECT ifnull(sum(bytes), 0), ifnull(sum(entries), 0) FROM bucket")[0])

    def pool_usage(self) -> Usage:
        """What strangers' entries take."""
        return Usage(
            *self._database.query("SELECT ifnull(sum(bytes), 0), ifnull(sum(entries), 0) FROM bucket WHERE pooled")[0]
        )

    def content_bytes(self, own: Collection[bytes], space: bytes | None = None) -> int:
        """What is here of the contents in chunks that may go, of a space or of all; not part of ``Usage``.

        These are the ones that nobody here asked for and none of the devices ``own`` wrote. Chunks that several
        contents share count for each.
        """
        sql = (
            "SELECT ifnull(sum(f.held_bytes), 0) FROM file f JOIN entry e ON e.n = f.n WHERE f.held_bytes > 0"
            f" AND f.wanted = 0 AND (e.author IS NULL OR e.author NOT IN ({', '.join('?' * len(own))}))"
        )
        if space is None:
            return int(self._database.query(sql, tuple(own))[0][0])
        return int(self._database.query(f"{sql} AND e.space = {_SPACE}", (*own, space))[0][0])

    def chunk_bytes(self, *, without: bytes) -> int:
        """What is here of all contents in chunks, but for those of one space."""
        sql = "SELECT ifnull(sum(f.held_bytes), 0) FROM file f JOIN entry e ON e.n = f.n"
        return int(self._database.query(f"{sql} WHERE e.space IS NOT {_SPACE}", (without,))[0][0])

    def unasked(self, space: bytes) -> dict[bytes, int]:
        """What is here of a space beyond 1 KiB each that nobody here asked for: the entries' ids, and bytes of each."""
        rows = self._database.query(
            "SELECT e.id, f.held_bytes FROM file f JOIN entry e ON e.n = f.n"
            f" WHERE f.held_bytes > 0 AND f.wanted = 0 AND e.space = {_SPACE}"
            " UNION ALL SELECT e.id, length(p.data) FROM payload p JOIN entry e ON e.n = p.n"
            f" WHERE e.space = {_SPACE} AND NOT EXISTS (SELECT 1 FROM file WHERE n = e.n)",
            (space, space),
        )
        return dict(rows)

    def used_bytes(self, own: Collection[bytes], space: bytes | None = None) -> int:
        """What counts against the quotas, of a space or of all: entries, and what ``content_bytes`` counts."""
        usage = self.usage() if space is None else self.usage_of(space)
        return usage.bytes + self.content_bytes(own, space)

    def usage_of(self, space: bytes) -> Usage:
        """What the entries of a space take."""
        return Usage(
            *self._database.query(
                f"SELECT ifnull(sum(bytes), 0), ifnull(sum(entries), 0) FROM bucket WHERE space = {_SPACE}", (space,)
            )[0]
        )

    def meta(self, name: str) -> bytes | None:
        """A named value of the node."""
        rows = self._database.query("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def peers(self) -> list[Peer]:
        """The neighbours to connect to."""
        return [Peer(*row) for row in self._database.query("SELECT node, host, port FROM peer ORDER BY node")]

    def spaces(self) -> list[bytes]:
        """The spaces that are followed."""
        return [row[0] for row in self._database.query("SELECT id FROM space WHERE followed ORDER BY n")]

    def closed(self) -> dict[bytes, str]:
        """Those of the followed spaces that are for members, with their types."""
        return dict(self._database.query("SELECT id, type FROM space WHERE followed AND type <> ?", (OPEN,)))

    def arrived(self, space: bytes, after: int) -> list[tuple[int, bytes]]:
        """A space's entries that expire, as (n, id), in the order in which they came: those behind number ``after``."""
        return self._database.query(
            f"SELECT n, id FROM entry WHERE space = {_SPACE} AND expires_day > 0 AND n > ? ORDER BY n", (space, after)
        )

    def lasting(
        self, space: bytes, after: int = 0, limit: int = -1, authors: Iterable[bytes] | None = None
    ) -> list[tuple[int, bytes]]:
        """A space's entries in chains that never expire, as (n, id), in the order in which they came.

        Those behind number ``after``, and only by these ``authors`` if given.
        """
        import apsw

        where, args = "", list[Any]((space, after))
        if authors is not None:
            where = " AND author IN carray(?)"
            args.append(apsw.carray(tuple(authors) or (b"",)))
        return self._database.query(
            f"SELECT n, id FROM entry WHERE space = {_SPACE} AND expires_day = 0 AND n > ? AND author IS NOT NULL"
            f"{where} ORDER BY n LIMIT ?",
            (*args, limit),
        )

    def lasting_mark(self, space: bytes) -> tuple[int, int]:
        """Differs as soon as what ``lasting`` returns does."""
        count, last = self._database.query(
            f"SELECT count(*), ifnull(max(n), 0) FROM entry WHERE space = {_SPACE} AND expires_day = 0", (space,)
        )[0]
        return count, last

    def head(self, space: bytes, author: bytes) -> tuple[int, bytes] | None:
        """The highest (seq, id) of an author's chain in a space; of a fork the branch that came first."""
        rows = self._database.query(
            f"SELECT seq, id FROM entry WHERE author = ? AND space = {_SPACE} ORDER BY seq DESC, n LIMIT 1",
            (author, space),
        )
        return (rows[0][0] + _SEQ_ZERO, rows[0][1]) if rows else None

    # ---- inside the writer's transaction ----

    def _write(self, act: Callable[[Transaction], T]) -> T:
        try:
            return self._database.write(act)
        except BaseException:
            self._spaces.clear()  # a number given in the lost transaction would be wrong
            raise

    def _put_chunks(
        self, t: Transaction, laid: Laid, space: int, chunks: Mapping[bytes, bytes | memoryview]
    ) -> dict[bytes, int]:
        """Name chunks, by their hashes, that are in the heap or are put there now: their numbers."""
        numbers = _chunk_numbers(t, space, chunks)
        late = self._reserve(t, laid, space, [hash for hash in chunks if hash not in numbers])
        if late:  # nobody has laid them, or they were here when the others were laid
            self._heap.put((slot, hash, chunks[hash]) for hash, slot in late.items())
        made = {hash: laid[space, hash] for hash in chunks if hash not in numbers}
        last, slots = _last_chunk(t), set(made.values())
        t.executemany("DELETE FROM gap WHERE n = ?", [(n,) for n in slots if n < last])
        # What stands between is being put by others, and is free unless they commit.
        between = set(range(last + 1, max(slots, default=0))) - slots
        t.executemany("INSERT INTO gap VALUES (?)", [(n,) for n in between])
        t.executemany("INSERT INTO chunk VALUES (?, ?, ?, 0)", [(n, space, hash) for hash, n in made.items()])
        return numbers | made

    def _reserve(self, t: Transaction, laid: Laid, space: int, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Find slots for those of these chunks that are not here, and have none yet."""
        here = _chunk_numbers(t, space, hashes)
        wanted = [hash for hash in dict.fromkeys(hashes) if hash not in here and (space, hash) not in laid]
        if not wanted:
            return {}
        with self._reserving:
            # Others' slots look free until their commit, which comes before they let go of them.
            rows = t.query("SELECT n FROM gap ORDER BY n LIMIT ?", (len(wanted) + len(self._reserved),))
            slots = [n for (n,) in rows if n not in self._reserved][: len(wanted)]
            last = max((_last_chunk(t), *self._reserved, *slots))
            slots += range(last + 1, last + 1 + len(wanted) - len(slots))
            self._reserved.update(slots)
        found = dict(zip(wanted, slots, strict=True))
        laid.update(((space, hash), slot) for hash, slot in found.items())
        return found

    def _prepare_views(self, t: Transaction) -> None:
        present = dict(t.query("SELECT name, version FROM room"))
        for name in present.keys() - self._rooms.keys():
            # It would miss changes while it is away; should it come back, it folds anew.
            t.drop(name)
            t.execute("DELETE FROM room WHERE name = ?", (name,))
        changed = [room for name, room in self._rooms.items() if present.get(name) != room.version]
        for room in changed:
            _create_views(t, room)
        if changed:
            # A newer room may take what an older one turned away.
            t.execute("DELETE FROM declined")

    def _space(self, t: Transaction, id: bytes) -> int:
        number = self._spaces.get(id)
        if number is None:
            t.execute("INSERT INTO space (id, followed) VALUES (?, 0) ON CONFLICT DO NOTHING", (id,))
            number = self._spaces[id] = int(t.query("SELECT n FROM space WHERE id = ?", (id,))[0][0])
        return number

    def _insert(self, t: Transaction, items: Sequence[Incoming]) -> list[Change]:
        before = n = _last_cursor(t)
        rows: list[tuple[Any, ...]] = []
        large: list[tuple[int, bytes]] = []
        tags: list[tuple[int, int]] = []
        counts: dict[_Bucket, tuple[int, int]] = {}
        changes: list[Change] = []
        files: list[Change] = []
        chained = False
        spaces = self._spaces
        for entry, pooled in items:
            n += 1
            h = entry.header
            home = entry.id if h.space == NO_SPACE else h.space
            space = spaces.get(home) or self._space(t, home)
            payload = entry.payload
            size = len(entry.header_bytes) + len(entry.signature)
            whole = payload is not None
            if payload is not None:
                size += len(payload)
                if len(payload) > _INLINE_MAX_BYTES:
                    large.append((n, payload))
                    payload = None
            author, seq = (h.author, h.seq - _SEQ_ZERO) if h.seq else (None, None)
            chained = chained or author is not None
            rows.append(
                (
                    n,
                    _first_8(entry.id)[0],
                    entry.id,
                    space,
                    h.expires_day,
                    h.ts_ms,
                    author,
                    seq,
                    rank_of(h, pooled),
                    whole,
                    entry.header_bytes,
                    entry.signature,
                    payload,
                )
            )
            for tag in h.tags:
                tags.append((_prefix(tag), n))
            bucket = (space, h.expires_day, pooled)
            number, total = counts.get(bucket, (0, 0))
            counts[bucket] = (number + 1, total + size)
            changes.append(Change(n, Event.ADMITTED, entry))
            if whole and is_chunked(h):
                files.append(changes[-1])
        t.executemany(_PUT_ENTRY, rows)
        t.executemany("INSERT INTO payload VALUES (?, ?)", large)
        t.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", tags)
        t.execute(f"INSERT INTO change (cursor, event) SELECT n, {Event.ADMITTED:d} FROM entry WHERE n > ?", (before,))
        _count(t, counts)
        if chained:
            forks = t.query(
                "SELECT n FROM entry e WHERE n > ? AND author IS NOT NULL AND EXISTS (SELECT 1 FROM entry o"
                " WHERE o.author = e.author AND o.space = e.space AND o.seq = e.seq AND o.n < e.n)",
                (before,),
            )
            changes += [_log(t, Event.FORKED, n, changes[n - before - 1].entry) for (n,) in forks]
        for n, _, entry in files:
            changes += _open_file(t, n, entry)
        return changes

    def _attach(self, t: Transaction, id: bytes, payload: bytes) -> list[Change]:
        rows = _with_place(t, id)
        if not rows or rows[0][3] is not None or not _is_open(t, rows[0][4]):
            return []
        header, signature, _, _, n, *bucket = rows[0]
        entry = _entry(header, signature, id, payload)
        if sha256(payload).digest() != entry.header.payload_hash:
            return []
        large = len(payload) > _INLINE_MAX_BYTES
        if large:
            t.execute("INSERT INTO payload VALUES (?, ?)", (n, payload))
        t.execute("UPDATE entry SET payload = ?, whole = 1 WHERE n = ?", (None if large else payload, n))
        _count(t, {_bucket(*bucket): (0, len(payload))})
        changes = [_log(t, Event.PAYLOAD_ARRIVED, n, entry)]
        return changes + _open_file(t, n, entry) if is_chunked(entry.header) else changes

    def _remove(self, t: Transaction, where: str, args: tuple[Any, ...], limit: int) -> int:
        rows = t.query(
            "SELECT e.header, e.signature, e.id, e.n, e.space, e.expires_day, e.rank,"
            " ifnull(length(e.payload), (SELECT length(data) FROM payload WHERE n = e.n)), f.held_bytes"
            f" FROM entry e LEFT JOIN file f ON f.n = e.n WHERE {where} LIMIT ?",
            (*args, limit),
        )
        self._removals += bool(rows)
        counts: dict[_Bucket, tuple[int, int]] = {}
        numbers, tags, gone = [], [], []
        removed = pieces = 0
        for header, signature, id, n, space, day, rank, payload_size, held in rows:
            if held is not None:
                pieces += held // CHUNK_BYTES
                if removed and pieces > _PIECES_SLICE:
                    break
                _let_go(t, n)
            removed += 1
            entry = _entry(header, signature, id, None)
            numbers.append((n,))
            tags += [(_prefix(tag), n) for tag in entry.header.tags]
            gone.append((pack_header(entry),))
            size = len(header) + len(signature) + (payload_size or 0)
            bucket = _bucket(space, day, rank)
            number, total = counts.get(bucket, (0, 0))
            counts[bucket] = (number - 1, total - size)
        t.executemany("DELETE FROM tag WHERE prefix = ? AND n = ?", tags)
        t.executemany("DELETE FROM payload WHERE n = ?", numbers)
        t.executemany("DELETE FROM change WHERE cursor = ?", numbers)
        t.executemany("DELETE FROM change WHERE n = ?", numbers)
        t.executemany("DELETE FROM entry WHERE n = ?", numbers)
        t.executemany(f"INSERT INTO change (event, gone) VALUES ({Event.EXPIRED:d}, ?)", gone)
        t.executemany("DELETE FROM file WHERE n = ?", numbers)
        _count(t, counts)
        return removed

    def _forget_gone(self, t: Transaction) -> None:
        t.execute(
            "DELETE FROM change WHERE gone IS NOT NULL"
            " AND cursor <= (SELECT ifnull(min(cursor), 9223372036854775807) FROM room)"
        )

    def _fold(self, t: Transaction, room: Room, limit: int, fresh: Sequence[Change]) -> int:
        cursor = t.query("SELECT cursor FROM room WHERE name = ?", (room.name,))[0][0]
        folded = fresh if fresh and fresh[0].cursor == cursor + 1 else _changes(t, cursor, limit)
        if not folded:
            return 0
        for change in folded:
            if rows := room.fold(change, t):  # most rooms have nothing to say of most changes
                t.apply(rows, room.name)
        cursor = folded[-1].cursor
        t.execute("UPDATE room SET cursor = ? WHERE name = ?", (cursor, room.name))
        return int(t.query("SELECT ifnull(max(cursor), 0) FROM change")[0][0]) - cursor


def _create_views(t: Transaction, room: Room) -> None:
    t.drop(room.name)
    t.create(room.views, room.name)
    t.execute(
        "INSERT INTO room VALUES (?, ?, 0) ON CONFLICT (name) DO UPDATE SET version = excluded.version, cursor = 0",
        (room.name, room.version),
    )


def _entry(header: bytes, signature: bytes, id: bytes, payload: bytes | None) -> Entry:
    return Entry(_decode(header), header, signature, id, payload)


def in_order(slices: Iterable[tuple[list[int], bytes]]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """A set out of pieces that may overlap: times in ms, shape (n,), and ids, shape (n, 32), by (ts, id), each once.

    Every piece is in order and has something in it.
    """
    import numpy as np

    parts = list(slices)
    times = np.fromiter((ts_ms for part, _ in parts for ts_ms in part), np.uint64)
    ids = np.frombuffer(b"".join(ids for _, ids in parts), np.uint8).reshape(-1, 32)
    if all((a[0][-1], a[1][-32:]) < (b[0][0], b[1][:32]) for a, b in pairwise(parts)):
        return times, ids  # as nearly always: sorting a million takes most of a second
    heads = ids.view(">u8")
    order = np.lexsort((heads[:, 3], heads[:, 2], heads[:, 1], heads[:, 0], times))
    times, ids = times[order], ids[order]
    fresh = np.ones(len(times), bool)
    fresh[1:] = (ids[1:] != ids[:-1]).any(axis=1)
    return times[fresh], ids[fresh]


def _is_low(scope: Scope) -> str:
    """The condition on ``rank`` that says that an entry's priority is within a scope."""
    return f"(rank >> 6 & 7) <= {scope.priority_max:d}" if scope.priority_max < ALL_PRIORITIES else "TRUE"


def _is_all(space: bytes, priority_max: int) -> bool:
    """Whether no entry of a space is above this priority: all mail has one."""
    return priority_max >= (MAIL_PRIORITY if space == MAIL_SPACE else ALL_PRIORITIES)


def _prefix(data: bytes) -> int:
    """The first 8 bytes as SQLite's integer; shorter ones as if zeros followed."""
    return int(_first_8(data if len(data) >= 8 else data.ljust(8, b"\0"))[0])


def _prefixes(ids: Iterable[bytes]) -> Any:
    import apsw

    # An empty array has no address that carray takes; all callers look at whole ids afterwards.
    return apsw.carray(array("q", map(_prefix, ids)) or array("q", [0]))


def _held(rows: Database | Transaction, ids: set[bytes]) -> set[bytes]:
    found = rows.query("SELECT id FROM entry WHERE prefix IN carray(?)", (_prefixes(ids),))
    return {row[0] for row in found} & ids


def _numbers(numbers: Iterable[int]) -> Any:
    import apsw

    return apsw.carray(array("q", numbers) or array("q", [0]))


def _freed(
    t: Transaction,
    numbers: Sequence[int],
    size: str,
    spares: Callable[[Sequence[Entry]], set[bytes]],
    enough_bytes: int,
) -> dict[int, int]:
    """Which of these entries to free for ``enough_bytes``, in their order, and the bytes of each."""
    rows = t.query(
        f"SELECT e.header, e.signature, e.id, e.n, {size} FROM entry e WHERE n IN carray(?)", (_numbers(numbers),)
    )
    spared = spares([_entry(header, signature, id, None) for header, signature, id, *_ in rows])
    sizes = {n: freed for _, _, id, n, freed in rows if id not in spared}
    chosen: dict[int, int] = {}
    total = 0
    for number in numbers:
        if total >= enough_bytes:
            break
        if number in sizes:
            chosen[number] = sizes[number]
            total += sizes[number]
    return chosen


def _decline(t: Transaction, rows: Sequence[tuple[int, int, int, bytes, int]]) -> None:
    t.executemany("INSERT OR IGNORE INTO declined (space, expires_day, ts_ms, id, rank) VALUES (?, ?, ?, ?, ?)", rows)
    t.execute("DELETE FROM declined WHERE n <= (SELECT max(n) FROM declined) - ?", (DECLINED_MAX,))


def _with_place(t: Transaction, id: bytes) -> list[tuple[Any, ...]]:
    return t.query(
        f"SELECT {_ENTRY}, e.n, e.space, e.expires_day, e.rank FROM entry e WHERE {_BY_ID}", (_prefix(id), id)
    )


def _bucket(space: int, day: int, rank: int) -> _Bucket:
    return space, day, rank >= POOLED


def _is_open(t: Transaction, n: int) -> bool:
    """Whether the payload of an entry may still come: no tombstone has ended it."""
    return not t.query("SELECT 1 FROM entry WHERE n = ? AND whole = 3", (n,))


def _open_file(t: Transaction, n: int, entry: Entry) -> list[Change]:
    """The manifest came; what its space holds of its chunks is here, too."""
    t.execute("INSERT OR IGNORE INTO file VALUES (?, ?, 0, 0)", (n, entry.header.payload_size))
    return _link(t, n, t.query("SELECT space FROM entry WHERE n = ?", (n,))[0][0], entry)


def _link(t: Transaction, n: int, space: int, entry: Entry) -> list[Change]:
    """Name the chunks of an entry that are here because of another one."""
    manifest = Manifest.of(entry)
    assert manifest is not None
    found = [
        (place, number)
        for place in range(len(manifest))
        for (number,) in t.query("SELECT n FROM chunk WHERE space = ? AND hash = ?", (space, manifest.hash_at(place)))
    ]
    if _grow(t, n, manifest, _put_pieces(t, n, found)):
        return [_log(t, Event.PAYLOAD_ARRIVED, n, entry)]
    return []


def _grow(t: Transaction, n: int, manifest: Manifest, fresh: Sequence[int]) -> bool:
    """Count what came; whether the content became whole by it."""
    if not fresh:
        return False
    size = sum(map(manifest.size_at, fresh))
    t.execute("UPDATE file SET held_bytes = held_bytes + ? WHERE n = ?", (size, n))
    file = _file(t, n)
    return file is not None and file.is_whole


def _file(t: Transaction, n: int) -> Progress | None:
    rows = t.query("SELECT held_bytes, size_bytes FROM file WHERE n = ?", (n,))
    return Progress(*rows[0]) if rows else None


def _set_wanted(t: Transaction, id: bytes, wanted: int) -> None:
    for n, header in t.query(f"SELECT n, header FROM entry e WHERE {_BY_ID}", (_prefix(id), id)):
        h = _decode(header)
        if is_chunked(h):
            t.execute(
                "INSERT INTO file VALUES (?, ?, 0, ?) ON CONFLICT (n) DO UPDATE SET wanted = excluded.wanted",
                (n, h.payload_size, wanted),
            )


def _by_entry(chunks: Iterable[Chunk]) -> dict[bytes, list[Chunk]]:
    found: dict[bytes, list[Chunk]] = {}
    for chunk in chunks:
        found.setdefault(chunk.id, []).append(chunk)
    return found


def _chunk_numbers(t: Transaction, space: int, hashes: Iterable[bytes]) -> dict[bytes, int]:
    """Those of these chunks that a space holds, and their numbers."""
    import apsw

    wanted = apsw.carray(tuple(hashes) or (b"",))
    return dict(t.query("SELECT hash, n FROM chunk WHERE space = ? AND hash IN carray(?)", (space, wanted)))


def _last_chunk(rows: Database | Transaction) -> int:
    return int(rows.query("SELECT ifnull(max(n), 0) FROM chunk")[0][0])


def _put_pieces(t: Transaction, n: int, found: Sequence[tuple[int, int]]) -> list[int]:
    """Note that chunks, as (place, number), stand in an entry; the places that were not noted before."""
    noted = t.query(
        "SELECT place FROM piece WHERE entry = ? AND place IN carray(?)", (n, _numbers(place for place, _ in found))
    )
    fresh = dict(found)
    for (place,) in noted:
        del fresh[place]
    t.executemany("INSERT INTO piece VALUES (?, ?, ?)", [(n, place, chunk) for place, chunk in fresh.items()])
    t.executemany("UPDATE chunk SET refs = refs + 1 WHERE n = ?", [(chunk,) for chunk in fresh.values()])
    return list(fresh)


def _let_go(t: Transaction, n: int) -> None:
    """Forget which chunks stand in an entry; ``free_chunks`` removes those that stand in no other."""
    t.executemany(
        "UPDATE chunk SET refs = refs - 1 WHERE n = ?", t.query("SELECT chunk FROM piece WHERE entry = ?", (n,))
    )
    t.execute("DELETE FROM piece WHERE entry = ?", (n,))
    t.execute("UPDATE file SET held_bytes = 0 WHERE n = ?", (n,))


def _holding(rows: Database | Transaction, n: int) -> int:
    bits = bytearray(PLACES_MAX // 8)
    for (place,) in rows.query("SELECT place FROM piece WHERE entry = ?", (n,)):
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")


def _last_cursor(rows: Database | Transaction) -> int:
    found = rows.query("SELECT seq FROM sqlite_sequence WHERE name = 'change'")
    return found[0][0] if found else 0


def _log(t: Transaction, event: Event, n: int, entry: Entry) -> Change:
    t.execute("INSERT INTO change (event, n) VALUES (?, ?)", (int(event), n))
    return Change(_last_cursor(t), event, entry)


def _changes(rows: Database | Transaction, after: int, limit: int) -> list[Change]:
    changes: list[Change] = []
    size = 0
    while len(changes) < limit and size < _CHANGES_MAX_BYTES:
        part = min(_CHANGES_SLICE, limit - len(changes))
        found = rows.query(
            f"SELECT c.cursor, c.event, c.gone, {_ENTRY} FROM change c"
            " LEFT JOIN entry e ON e.n = ifnull(c.n, c.cursor) WHERE c.cursor > ? ORDER BY c.cursor LIMIT ?",
            (after, part),
        )
        for after, event, gone, *columns in found:
            entry = _entry(*columns) if gone is None else unpack(gone)[0]
            changes.append(Change(after, _EVENTS[event], entry))
            size += len(entry.payload or b"")
        if len(found) < part:
            break
    return changes


def _count(t: Transaction, counts: Mapping[_Bucket, tuple[int, int]]) -> None:
    t.executemany(
        "INSERT INTO bucket VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET entries = entries + excluded.entries, bytes = bytes + excluded.bytes",
        [(*bucket, *change) for bucket, change in counts.items()],
    )
    t.execute("DELETE FROM bucket WHERE entries = 0")
