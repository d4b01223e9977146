"""A room from outside with very many changes: it folds, rebuilds and migrates, and an update that fails leaves all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from outlast.kernel import DAY_MS, Change, Delete, Event, Home, Kind, Node, Person, Put, Room, RowChanges, Rows
from outlast.kernel.admit import Admitted
from outlast.kernel.entry import Entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import Head, next_entry
from outlast.kernel.node import BUILT_MS

MANY = 100_000
FEW = 2_000
NAMES = 50
BATCH = 1_000
FOLD_BAR_S = 60
"""For ``MANY`` changes on an idle machine; it takes a tenth of that."""
MEMORY_BAR_BYTES = 96 * 1024 * 1024


class Paid(msgspec.Struct, array_like=True, frozen=True):
    """Somebody was paid so much."""

    to: str
    amount: int


PAID = Kind("ledger.paid", Paid, max_bytes=64)


def fold(change: Change, rows: Rows) -> RowChanges:
    """A row for each payment and a sum for each name; what a change takes away is found in the view itself."""
    entry = change.entry
    if entry.header.kind != PAID.name or change.event is Event.FORKED:
        return ()
    if change.event is Event.ADMITTED:
        body: Paid = PAID.decode(entry.payload or b"")
        row: dict[str, Any] = {"id": entry.id, "name": body.to, "amount": body.amount}
        return [Put("view_ledger_paid", row), *_moved(rows, body.to, body.amount, 1)]
    found = rows.query("SELECT name, amount FROM view_ledger_paid WHERE id = ?", (entry.id,))
    if change.event is not Event.EXPIRED or not found:
        return ()
    name, amount = found[0]
    return [Delete("view_ledger_paid", {"id": entry.id}), *_moved(rows, name, -amount, -1)]


def _moved(rows: Rows, name: str, amount: int, payments: int) -> RowChanges:
    before = rows.query("SELECT total, payments FROM view_ledger_sum WHERE name = ?", (name,))
    total, number = before[0] if before else (0, 0)
    return [Put("view_ledger_sum", {"name": name, "total": total + amount, "payments": number + payments})]


FIRST = Room(
    "ledger",
    1,
    kinds=[PAID],
    views=[
        "CREATE TABLE view_ledger_paid (id BLOB PRIMARY KEY, name TEXT, amount INTEGER)",
        "CREATE TABLE view_ledger_sum (name TEXT PRIMARY KEY, total INTEGER, payments INTEGER)",
    ],
    migrations=["CREATE TABLE local_ledger_note (id INTEGER PRIMARY KEY, text TEXT)"],
    fold=fold,
)


def fold_by_author(change: Change, rows: Rows) -> RowChanges:
    """What the second version shows besides: who paid."""
    author = change.entry.header.author
    return [
        Put(one.table, {**one.row, "author": author}) if isinstance(one, Put) and one.table.endswith("_paid") else one
        for one in fold(change, rows)
    ]


SECOND = replace(
    FIRST,
    version=2,
    views=[
        "CREATE TABLE view_ledger_paid (id BLOB PRIMARY KEY, name TEXT, amount INTEGER, author BLOB)",
        "CREATE INDEX view_ledger_paid_author ON view_ledger_paid (author)",
        FIRST.views[1],
    ],
    migrations=[
        *FIRST.migrations,
        "ALTER TABLE local_ledger_note ADD COLUMN seen INTEGER DEFAULT 0",
        "CREATE TABLE local_ledger_seen (id INTEGER PRIMARY KEY, length INTEGER)",
        "INSERT INTO local_ledger_seen SELECT id, length(text) FROM local_ledger_note",
        "CREATE INDEX local_ledger_note_seen ON local_ledger_note (seen)",
    ],
    fold=fold_by_author,
)


class Watch:
    """Tells how long each part took, and how much memory it had at most beyond what was there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.before = resident()

    def lap(self, name: str, start: float) -> None:
        self.seconds[name] = time.perf_counter() - start
        print(f"{name}: {self.seconds[name]:.2f} s, {(resident() - self.before) / 1e6:.0f} MB above the start")


def resident() -> int:
    """Bytes in memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def payments(count: int, space: bytes, now_ms: int) -> list[Entry]:
    """A chain of payments, of which every tenth lives a day and the others a month."""
    author, head, made = SigningKey.from_seed(sha256(b"ledger").digest()), None, []
    for number in range(count):
        entry = next_entry(
            author,
            head,
            space=space,
            kind=PAID.name,
            payload=PAID.encode(Paid(f"name {number % NAMES}", number)),
            clock=number,
            ts_ms=now_ms,
            life_ms=DAY_MS if number % 10 == 0 else 30 * DAY_MS,
            priority=2,
        )
        head = Head(entry.header.seq, entry.id)
        made.append(entry)
    return made


def sums(numbers: Sequence[int]) -> list[tuple[str, int, int]]:
    """What the view shows of payments by their numbers."""
    shown: dict[str, tuple[int, int]] = {}
    for number in numbers:
        total, count = shown.get(f"name {number % NAMES}", (0, 0))
        shown[f"name {number % NAMES}"] = total + number, count + 1
    return sorted((name, *both) for name, both in shown.items())


def shown(node: Node) -> list[tuple[str, int, int]]:
    """The view's sums, without names of whom nothing is left."""
    rows = node.query("SELECT name, total, payments FROM view_ledger_sum WHERE payments > 0 ORDER BY name")
    return [(str(name), int(total), int(count)) for name, total, count in rows]


def person_of(node: Node) -> Person:
    return next(iter(node.people.values()))


def test_very_many_changes_fold_and_rebuild_and_a_new_version_folds_them_anew(tmp_path: Path, soaking: bool) -> None:
    count = MANY if soaking else FEW
    kept = [number for number in range(count) if number % 10]
    watch = Watch()

    async def first() -> None:
        await Node.create(Home(tmp_path / "home"), "Ledger", passphrase=None, rooms=[FIRST])
        async with await Node.open(Home(tmp_path / "home"), rooms=[FIRST]) as node:
            space = await node.new_space(person_of(node), "Payments")
            entries = payments(count, space, node.now_ms())
            watch.before = resident()
            start = time.perf_counter()
            for at in range(0, count, BATCH):
                verdicts = await node.ingest(entries[at : at + BATCH])
                assert all(isinstance(verdict, Admitted) for verdict in verdicts)
            watch.lap(f"ingest and fold {count} changes", start)
            assert shown(node) == sums(range(count))
            start = time.perf_counter()
            await node.rebuild()
            watch.lap("rebuild", start)
            assert shown(node) == sums(range(count))
            notes = [Put("local_ledger_note", {"id": number, "text": f"note {number}"}) for number in range(count)]
            await node.write(lambda: person_of(node).vault.transaction(notes, "ledger"))
            store = node.open_store
            while await node.write(lambda: store.expire(node.today() + 10)):
                while await node.write(lambda: store.fold("ledger")):
                    pass
            assert shown(node) == sums(kept)

    async def second() -> None:
        start = time.perf_counter()
        async with await Node.open(Home(tmp_path / "home"), rooms=[SECOND]) as node:
            watch.lap("open with a new version of views and private tables", start)
            assert shown(node) == sums(kept)
            assert node.query("SELECT count(*), count(DISTINCT author) FROM view_ledger_paid") == [(len(kept), 1)]
            person = person_of(node)
            assert person.query("SELECT count(*), sum(seen) FROM local_ledger_note") == [(count, 0)]
            assert person.query("SELECT text FROM local_ledger_note WHERE id = 7") == [("note 7",)]
            assert person.query("SELECT sum(length) FROM local_ledger_seen") == [
                (sum(len(f"note {number}") for number in range(count)),)
            ]

    asyncio.run(first())
    asyncio.run(second())
    assert all(seconds < FOLD_BAR_S for seconds in watch.seconds.values())
    assert resident() - watch.before < MEMORY_BAR_BYTES


def test_the_view_after_many_changes_is_that_of_the_same_changes_at_once(tmp_path: Path) -> None:
    async def story() -> list[list[tuple[Any, ...]]]:
        views, now_ms = [], BUILT_MS
        for name, steps in (("one", 1), ("many", 7)):
            await Node.create(Home(tmp_path / name), name, passphrase=None, rooms=[FIRST])
            async with await Node.open(Home(tmp_path / name), rooms=[FIRST]) as node:
                space = sha256(b"anywhere").digest()
                await node.follow(space)
                entries = payments(210, space, now_ms)
                for step in range(steps):
                    await node.ingest(entries[step::steps])
                views.append(node.query("SELECT * FROM view_ledger_paid ORDER BY id"))
                views.append(node.query("SELECT * FROM view_ledger_sum ORDER BY name"))
        return views

    views = asyncio.run(story())
    assert views[:2] == views[2:]
    assert len(views[0]) == 210


def broken_view(change: Change, rows: Rows) -> RowChanges:
    """A fold that fails half-way through."""
    if change.cursor == 40:
        raise RuntimeError("this version has a defect")
    return fold_by_author(change, rows)


BROKEN: list[tuple[str, Room, type[Exception]]] = [
    (
        "a migration",
        replace(SECOND, migrations=[*SECOND.migrations[:3], "INSERT INTO local_ledger_missing VALUES (1)"]),
        apsw.SQLError,
    ),
    ("a view", replace(SECOND, views=[*SECOND.views, "CREATE TABLE view_ledger_paid (again)"]), apsw.SQLError),
    ("a fold", replace(SECOND, fold=broken_view), RuntimeError),
]


@pytest.mark.parametrize(("room", "error"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_an_update_that_fails_half_way_leaves_what_people_have_and_the_old_version_goes_on(
    tmp_path: Path, room: Room, error: type[Exception]
) -> None:
    home = Home(tmp_path / "home")

    async def with_room(room: Room, act: Callable[[Node], Any]) -> Any:
        async with await Node.open(home, rooms=[room]) as node:
            result = act(node)
            return await result if asyncio.iscoroutine(result) else result

    async def begin(node: Node) -> None:
        space = await node.new_space(person_of(node), "Payments")
        await node.ingest(payments(100, space, node.now_ms()))
        notes = [Put("local_ledger_note", {"id": number, "text": f"note {number}"}) for number in range(100)]
        await node.write(lambda: person_of(node).vault.transaction(notes, "ledger"))

    def look(node: Node) -> list[Any]:
        return [
            shown(node),
            node.query("SELECT * FROM view_ledger_paid ORDER BY id"),
            person_of(node).query("SELECT * FROM local_ledger_note ORDER BY id"),
            person_of(node).query("SELECT name FROM pragma_table_list WHERE name GLOB 'local_ledger*' ORDER BY name"),
        ]

    asyncio.run(Node.create(home, "Ledger", passphrase=None, rooms=[FIRST]))
    asyncio.run(with_room(FIRST, begin))
    before = asyncio.run(with_room(FIRST, look))
    assert before[0] == sums(range(100))
    for _ in range(2):
        with pytest.raises(error):
            asyncio.run(with_room(room, look))
        assert asyncio.run(with_room(FIRST, look)) == before
    after = asyncio.run(with_room(SECOND, look))
    assert after[0] == before[0]
    assert len(after[3]) == 2
