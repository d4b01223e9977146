"""The store keeps what it was given, numbers every change once, and lets rooms write their own tables only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from outlast.errors import StorageError
from outlast.kernel.entry import Entry, pack_header
from outlast.kernel.room import Change, Delete, Event, Put, Room, RowChange, RowChanges, Update
from outlast.kernel.store import HELD_MAX, HELD_MAX_BYTES, Incoming, Peer, Store
from tests.unit.kernel.entries import DAY, KEY, SPACE, TOY, post
from tests.unit.kernel.people import NOW_MS, secret


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with the toy room."""
    opened = Store.open(tmp_path / "store.db", KEY, rooms=[TOY])
    yield opened
    opened.close()


def add(store: Store, *entries: Entry) -> list[Change]:
    """Append the entries in one batch."""
    return store.append([Incoming(entry) for entry in entries])


def same(a: Entry | None, b: Entry | None) -> bool:
    """Whether two entries are equal in all their parts."""
    return (a and (a.header, a.header_bytes, a.signature, a.id, a.payload)) == (
        b and (b.header, b.header_bytes, b.signature, b.id, b.payload)
    )


def fold_all(store: Store, room: str = "toy") -> None:
    """Fold until nothing is left."""
    while store.fold(room, 3):
        pass


def posts(store: Store) -> set[bytes]:
    """The ids in the toy room's view."""
    return {row[0] for row in store.query("SELECT id FROM view_toy_post")}


# ---- entries ----


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 65_536])
def test_an_entry_comes_back_as_it_went_in(store: Store, size: int) -> None:
    entry = post(payload=bytes(size), tags=(b"a", b"b" * 32), seq=2**64 - 1)
    add(store, entry)
    assert same(store.get(entry.id), entry)
    assert [same(change.entry, entry) for change in store.changes(0)] == [True]
    assert store.load([secret("none"), entry.id, entry.id])[1].id == entry.id
    assert store.query("SELECT count(*) FROM payload") == [(int(size > 1024),)], "large ones stand apart"


def test_everything_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    entries = [post(n, payload=bytes(n * 20), tags=(secret(n),), seq=n) for n in range(100)]
    store = Store.open(path, KEY)
    add(store, *entries)
    store.close()
    store.close()
    again = Store.open(path, KEY)
    assert all(same(again.get(entry.id), entry) for entry in entries)
    assert again.cursor() == 100
    assert again.by_tags([secret(7)]) == [(secret(7), entries[7].id)]
    again.close()


def test_an_id_already_held_is_skipped_also_within_a_batch(store: Store) -> None:
    one, two = post(1), post(2)
    assert [change.entry.id for change in add(store, one, one)] == [one.id]
    assert [change.entry.id for change in add(store, one, two, one)] == [two.id]
    assert add(store) == []
    assert store.usage().entries == 2


def test_ids_that_begin_alike_are_told_apart(store: Store) -> None:
    one = post(1)
    twin = msgspec.structs.replace(post(2), id=one.id[:8] + secret("other")[:24])
    assert len(add(store, one)) == len(add(store, twin)) == 1
    assert store.known([one.id, twin.id, one.id[:8] + bytes(24)]) == {one.id, twin.id}
    assert store.known([one.id[:8] + bytes(24)]) == set()
    store.drop_payload(twin.id)
    assert same(store.get(one.id), one)
    assert store.incomplete([one.id, twin.id]) == {twin.id}
    assert store.remove([one.id[:8] + bytes(24)]) == 0
    assert store.remove([one.id]) == 1
    assert store.known([one.id, twin.id]) == {twin.id}


def test_a_genesis_is_reconciled_in_the_space_it_founds(store: Store) -> None:
    genesis = post(space=bytes(32), day=0)
    member = post(1, space=genesis.id)
    add(store, genesis, member)
    assert store.buckets(genesis.id) == [(0, 1), (DAY, 1)]
    assert store.buckets(bytes(32)) == []


def test_tags_find_their_entries_and_only_theirs(store: Store) -> None:
    mine, alike, short = b"12345678-mine", b"12345678-alike", b"1"
    one, two, three = post(1, tags=(mine, short)), post(2, tags=(alike,)), post(3, tags=(mine, alike))
    add(store, one, two, three)
    assert store.by_tags([mine]) == [(mine, one.id), (mine, three.id)]
    assert store.by_tags([alike]) == [(alike, two.id), (alike, three.id)]
    assert store.by_tags([short, b"1\0", b"none"]) == [(short, one.id)]
    assert sorted(store.by_tags([mine, alike]))[0] == (alike, min(two.id, three.id))
    assert store.by_tags([]) == []
    store.remove([one.id, three.id])
    assert store.by_tags([mine, alike, short]) == [(alike, two.id)]
    assert store.query("SELECT count(*) FROM tag") == [(1,)]


def test_a_second_branch_of_a_chain_is_kept_and_told(store: Store) -> None:
    first, other, elsewhere = post(1, seq=5), post(2, seq=5), post(3, seq=5, space=secret("elsewhere"))
    later, third = post(4, seq=6), post(5, seq=5)
    loose = [post(6), post(7)]
    assert [c.event for c in add(store, first, elsewhere, *loose)] == [Event.ADMITTED] * 4
    changes = add(store, later, other, third)
    assert [(c.event, c.entry.id) for c in changes] == [
        (Event.ADMITTED, later.id),
        (Event.ADMITTED, other.id),
        (Event.ADMITTED, third.id),
        (Event.FORKED, other.id),
        (Event.FORKED, third.id),
    ]
    assert [(c.cursor, c.event, c.entry.id) for c in store.changes(4)] == [
        (c.cursor, c.event, c.entry.id) for c in changes
    ]
    assert store.head(SPACE, secret("author")) == (6, later.id)
    store.remove([later.id])
    assert store.head(SPACE, secret("author")) == (5, first.id)


def test_the_head_of_a_chain_orders_all_64_bits(store: Store) -> None:
    ends = [1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]
    for seq in ends:
        entry = post(seq, seq=seq)
        add(store, entry)
        assert store.head(SPACE, secret("author")) == (seq, entry.id)
    assert store.head(SPACE, secret("nobody")) is None
    assert store.head(secret("nowhere"), secret("author")) is None


# ---- payloads ----


@pytest.mark.parametrize("size", [0, 300, 1025, 65_536])
def test_a_payload_can_come_later_and_go_again(store: Store, size: int) -> None:
    content = bytes(size)
    entry = post(payload=None, content=content)
    add(store, entry)
    header_only = store.usage()
    assert store.incomplete([entry.id, secret("none")]) == {entry.id}
    assert [e.id for e in store.bare()] == [entry.id]

    assert add(store, post(payload=content + b"x", content=content)) == [], "this is not its payload"
    (arrived,) = add(store, post(payload=content))
    assert arrived.event is Event.PAYLOAD_ARRIVED
    assert arrived.entry.payload == content
    assert add(store, post(payload=content)) == []
    assert (store.incomplete([entry.id]), store.bare()) == (set(), [])
    assert store.usage().bytes - header_only.bytes == size

    dropped = store.drop_payload(entry.id)
    assert dropped is not None
    assert (dropped.event, dropped.entry.payload) == (Event.PAYLOAD_DROPPED, None)
    assert store.drop_payload(entry.id) is None
    assert store.drop_payload(secret("none")) is None
    assert store.usage() == header_only
    assert store.bare() == [], "what was dropped is not asked for again"
    assert [c.event for c in add(store, post(payload=content))] == [Event.PAYLOAD_ARRIVED]
    assert [c.event for c in store.changes(0)] == [
        Event.ADMITTED,
        Event.PAYLOAD_ARRIVED,
        Event.PAYLOAD_DROPPED,
        Event.PAYLOAD_ARRIVED,
    ]


def test_an_entry_that_comes_again_with_its_payload_is_completed(store: Store) -> None:
    header = post(1, payload=None, content=b"hello")
    add(store, header)
    changes = add(store, post(1), post(2))
    assert [(c.event, c.entry.payload) for c in changes] == [
        (Event.ADMITTED, b"hello"),
        (Event.PAYLOAD_ARRIVED, b"hello"),
    ]
    assert store.usage().entries == 2


# ---- what sync asks ----


def test_a_bucket_is_sorted_by_time_and_id(store: Store) -> None:
    entries = [post(n, ts_ms=NOW_MS + n % 3) for n in range(40)] + [post(90, day=0), post(91, day=DAY + 1)]
    add(store, *entries)
    expected = sorted((e.header.ts_ms, e.id) for e in entries if e.header.expires_day == DAY)
    times, ids = store.bucket(SPACE, DAY)
    assert list(zip(times.tolist(), map(bytes, ids), strict=True)) == expected
    assert (times.dtype, ids.dtype, ids.shape) == ("uint64", "uint8", (40, 32))
    assert store.buckets(SPACE) == [(0, 1), (DAY, 40), (DAY + 1, 1)]
    empty_times, empty_ids = store.bucket(secret("nowhere"), DAY)
    assert (empty_times.shape, empty_ids.shape) == ((0,), (0, 32))


def test_a_bucket_larger_than_one_slice_is_whole(store: Store) -> None:
    entries = [post(n, ts_ms=NOW_MS + n // 7) for n in range(20_001)]
    add(store, *entries)
    times, ids = store.bucket(SPACE, DAY)
    assert list(zip(times.tolist(), map(bytes, ids), strict=True)) == sorted((e.header.ts_ms, e.id) for e in entries)


def test_usage_counts_what_is_stored(store: Store) -> None:
    entries = [post(n, payload=bytes(n * 300)) for n in range(6)]
    other = post(9, space=secret("other"))
    add(store, *entries, other)
    size = {e.id: len(e.header_bytes) + 64 + len(e.payload or b"") for e in [*entries, other]}
    assert store.usage() == (sum(size.values()), 7)
    assert store.usage_of(secret("other")) == (size[other.id], 1)
    assert store.usage_of(secret("nowhere")) == (0, 0)
    store.remove([entries[5].id])
    assert store.usage_of(SPACE) == (sum(size[e.id] for e in entries[:5]), 5)


# ---- the change log ----


def test_cursors_grow_and_never_come_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = Store.open(path, KEY, rooms=[TOY])
    seen: list[int] = []

    def look() -> None:
        seen.append(store.cursor())
        assert all(a < b for a, b in pairwise(seen))

    add(store, post(1), post(2))
    look()
    assert store.remove([post(2).id]) == 1
    look()
    fold_all(store)
    store.expire(DAY)
    assert [c.cursor for c in store.changes(0)] == [1], "what everybody has folded is forgotten"
    add(store, post(3))
    look()
    store.rebuild()
    store.close()
    store = Store.open(path, KEY, rooms=[TOY])
    assert store.cursor() == seen[-1]
    store.remove([post(1).id, post(3).id])
    look()
    fold_all(store)
    store.expire(DAY)
    assert store.changes(0) == []
    assert store.cursor() == seen[-1]
    add(store, post(4))
    look()
    store.close()


def test_changes_are_read_behind_a_cursor(store: Store) -> None:
    add(store, *(post(n) for n in range(10)))
    assert [c.cursor for c in store.changes(0, 4)] == [1, 2, 3, 4]
    assert [c.cursor for c in store.changes(8, 4)] == [9, 10]
    assert store.changes(10) == []


def test_changes_with_large_payloads_come_a_few_at_a_time(store: Store) -> None:
    add(store, *(post(n, payload=bytes(65_536)) for n in range(250)))
    seen: list[int] = []
    while part := store.changes(seen[-1] if seen else 0, 1000):
        assert sum(len(c.entry.payload or b"") for c in part) < 11 * 1024 * 1024
        seen += [c.cursor for c in part]
    assert seen == list(range(1, 251))
    fold_all(store)
    assert len(posts(store)) == 250


def test_expiry_takes_only_what_is_due(store: Store) -> None:
    never, due, last, later = post(1, day=0), post(2, day=DAY - 1), post(3, day=DAY), post(4, day=DAY + 1)
    add(store, never, due, last, later)
    assert store.expire(DAY) == 1
    assert store.known([e.id for e in (never, due, last, later)]) == {never.id, last.id, later.id}
    assert store.expire(DAY + 1) == 1
    assert store.expire(DAY + 1) == 0
    gone = [c for c in store.changes(0) if c.event is Event.EXPIRED]
    assert [c.entry.id for c in gone] == [due.id, last.id]
    assert [pack_header(c.entry) for c in gone] == [pack_header(due), pack_header(last)]
    assert [c.entry.payload for c in gone] == [None, None]
    assert store.buckets(SPACE) == [(0, 1), (DAY + 1, 1)]


def test_expiry_goes_on_where_its_limit_stopped_it(store: Store) -> None:
    add(store, *(post(n, space=secret(n % 3)) for n in range(30)), post(99, day=0))
    removed = [store.expire(DAY + 1, limit=8) for _ in range(6)]
    assert removed == [8, 8, 8, 6, 0, 0]
    assert store.usage().entries == 1


def test_an_expired_change_stays_until_every_room_has_folded_it(tmp_path: Path) -> None:
    slow = replace(TOY, name="slow", views=(), fold=lambda change, rows: ())
    store = Store.open(tmp_path / "store.db", KEY, rooms=[TOY, slow])
    add(store, post(1), post(2, seq=3), post(3, seq=3))
    store.expire(DAY + 1)
    fold_all(store)
    store.expire(DAY + 1)
    assert [c.event for c in store.changes(0)] == [Event.EXPIRED] * 3
    fold_all(store, "slow")
    store.expire(DAY + 1)
    assert store.changes(0) == []
    store.close()


def test_a_closed_space_stays_closed_whoever_follows_it(store: Store) -> None:
    store.put_space(SPACE, type="sealed")
    store.put_space(secret("open"))
    store.put_space(SPACE)
    assert store.closed() == {SPACE: "sealed"}
    store.remove_space(SPACE)
    assert store.closed() == {}
    store.put_space(SPACE)
    assert store.closed() == {SPACE: "sealed"}


def test_what_never_expires_is_found_in_the_order_in_which_it_came(store: Store) -> None:
    lasting = [post(number, day=0, seq=number) for number in (3, 1, 2)]
    before = store.lasting_mark(SPACE)
    add(store, lasting[0], post(9), post(8, day=0), *lasting[1:])
    assert [id for _, id in store.lasting(SPACE)] == [entry.id for entry in lasting]
    assert store.lasting_mark(SPACE) != before
    marked = store.lasting_mark(SPACE)
    add(store, post(10))
    assert store.lasting_mark(SPACE) == marked
    store.remove([lasting[0].id])
    assert store.lasting_mark(SPACE) != marked


def test_a_space_can_be_left_and_its_entries_removed(store: Store) -> None:
    other = post(9, space=secret("other"))
    store.put_space(SPACE)
    store.put_space(secret("other"))
    add(store, *(post(n, payload=bytes(2000)) for n in range(5)), other)
    assert store.spaces() == [SPACE, secret("other")]
    assert [store.remove_space(SPACE, limit=3) for _ in range(3)] == [3, 2, 0]
    assert store.remove_space(secret("nowhere")) == 0
    assert store.spaces() == [secret("other")]
    assert store.usage().entries == 1
    assert store.query("SELECT count(*) FROM payload") == [(0,)]
    add(store, post(1))
    assert store.usage_of(SPACE).entries == 1


# ---- rooms ----


def test_a_room_folds_every_change_once(store: Store) -> None:
    one, two, fork = post(1), post(2, seq=2), post(3, seq=2)
    add(store, one, two, fork)
    assert [store.fold("toy", 3) for _ in range(3)] == [1, 0, 0]
    assert posts(store) == {one.id, two.id, fork.id}
    assert store.query("SELECT id FROM view_toy_fork") == [(fork.id,)]
    store.drop_payload(one.id)
    store.remove([two.id])
    fold_all(store)
    assert dict(store.query("SELECT id, body FROM view_toy_post")) == {one.id: None, fork.id: b"hello"}


def test_a_fold_reads_what_the_changes_before_it_wrote(tmp_path: Path) -> None:
    def number(change: Change, rows: object) -> RowChanges:
        ((held,),) = rows.query("SELECT count(*) FROM view_toy_number")  # type: ignore[attr-defined]
        return [Put("view_toy_number", {"id": change.entry.id, "n": held})]

    room = replace(TOY, views=("CREATE TABLE view_toy_number (id BLOB PRIMARY KEY, n INTEGER)",), fold=number)
    store = Store.open(tmp_path / "store.db", KEY, rooms=[room])
    entries = [post(n) for n in range(5)]
    add(store, *entries)
    store.fold("toy")
    assert store.query("SELECT id, n FROM view_toy_number ORDER BY n") == [(e.id, n) for n, e in enumerate(entries)]
    store.close()


def test_a_fold_that_fails_writes_nothing_and_keeps_its_place(tmp_path: Path) -> None:
    broken = [True]

    def fold(change: Change, rows: object) -> RowChanges:
        if broken and change.cursor == 3:
            raise RuntimeError("this room has a defect")
        return [Put("view_toy_post", {"id": change.entry.id})]

    store = Store.open(tmp_path / "store.db", KEY, rooms=[replace(TOY, fold=fold)])
    entries = [post(n) for n in range(5)]
    add(store, *entries)
    with pytest.raises(RuntimeError, match="defect"):
        store.fold("toy")
    assert posts(store) == set()
    broken.clear()
    fold_all(store)
    assert posts(store) == {e.id for e in entries}
    store.close()


def test_a_rebuilt_view_is_the_view(store: Store) -> None:
    add(store, *(post(n, seq=n % 4, day=DAY + n % 2) for n in range(20)))
    fold_all(store)
    store.drop_payload(post(3, seq=3, day=DAY + 1).id)
    store.expire(DAY + 1)
    fold_all(store)
    tables = ("SELECT * FROM view_toy_post ORDER BY id", "SELECT * FROM view_toy_fork ORDER BY id")
    before, cursor = [store.query(sql) for sql in tables], store.cursor()
    assert before[0]
    store.rebuild()
    # A fork whose entry has expired is in no log any more; the toy room never removes it.
    left = {row[0] for row in store.query("SELECT id FROM entry")}
    assert store.query(tables[0]) == before[0]
    assert store.query(tables[1]) == [row for row in before[1] if row[0] in left]
    assert store.cursor() == cursor


def test_a_view_of_another_version_is_folded_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = Store.open(path, KEY, rooms=[TOY])
    add(store, post(1))
    fold_all(store)
    store.close()
    newer = replace(
        TOY,
        version=2,
        views=("CREATE TABLE view_toy_title (id BLOB PRIMARY KEY)",),
        fold=lambda change, rows: [Put("view_toy_title", {"id": change.entry.id})],
    )
    store = Store.open(path, KEY, rooms=[newer])
    assert store.query("SELECT name FROM sqlite_schema WHERE name GLOB 'view_*'") == [("view_toy_title",)]
    fold_all(store)
    assert store.query("SELECT id FROM view_toy_title") == [(post(1).id,)]
    store.close()


def test_a_room_that_was_away_misses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for rooms, entries in (([TOY], [post(1)]), ([], [post(2)]), ([TOY], [post(3)])):
        store = Store.open(path, KEY, rooms=rooms)
        if not rooms:
            assert store.query("SELECT 1 FROM sqlite_schema WHERE name GLOB 'view_*'") == []
            assert store.remove([post(1).id]) == 1
            store.expire(DAY)
        add(store, *entries)
        if rooms:
            fold_all(store)
        store.close()
    store = Store.open(path, KEY, rooms=[TOY])
    assert posts(store) == {post(2).id, post(3).id}
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        Put("entry", {"n": 1}),
        Put("meta", {"name": "transport", "value": b""}),
        Put("view_toyshop_post", {"id": b""}),
        Put("local_toy_note", {"id": 1}),
        Put("VIEW_TOY_POST", {"id": b""}),
        Put("view_toy_missing", {"id": b""}),
        Put("view_toy_post_body", {"id": b""}),
        Put("view_toy_post\" (id) VALUES (x'00'); --", {"id": b""}),
        Put("view_toy_post", {"id": b"", "ID": b""}),
        Put("view_toy_post", {"id": b"", 'body") VALUES (1, 2); --': b""}),
        Put("view_toy_post", {"body": b"a key is missing"}),
        Put("view_toy_post", {}),
        Delete("entry", {}),
        Delete("view_toy_post; DROP TABLE entry", {}),
        Delete("view_toy_post", {"1 = 1 OR id": b""}),
        Update("entry", {"id": b""}, {"ts_ms": 1}),
        Update("view_toy_post", {}, {"body": b"every row"}),
        Update("view_toy_post", {"id": b""}, {"body = 1; --": b""}),
        Update("view_toy_post", {"id": b"", "1 = 1 OR id": b""}, {"body": b""}),
    ],
    ids=lambda change: f"{type(change).__name__} {change[0]} {list(change[1])}"[:60],
)
def test_a_room_writes_its_own_tables_and_columns_only(tmp_path: Path, change: RowChange) -> None:
    good = Put("view_toy_post", {"id": b"good"})
    bad = replace(TOY, fold=lambda _change, _rows: [good, change])
    shop = Room("toyshop", 1, views=("CREATE TABLE view_toyshop_post (id BLOB PRIMARY KEY)",))
    store = Store.open(tmp_path / "store.db", KEY, rooms=[bad, shop])
    add(store, post(1))
    with pytest.raises(StorageError, match=r"table|column|key"):
        store.fold("toy")
    assert posts(store) == set()
    assert same(store.get(post(1).id), post(1))
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE entries (id)",
        "CREATE TABLE view_shop_post (id)",
        "CREATE INDEX view_toy_steals ON entry (ts_ms)",
        "CREATE TRIGGER view_toy_trigger AFTER INSERT ON entry BEGIN DELETE FROM entry; END",
        "DROP TABLE peer",
        "ALTER TABLE peer ADD COLUMN view_toy_note",
        "CREATE TABLE view_toy_good (id); CREATE TABLE bad (id)",
    ],
)
def test_a_room_makes_its_own_tables_only(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "store.db"
    with pytest.raises(StorageError, match="view_toy_"):
        Store.open(path, KEY, rooms=[replace(TOY, views=(statement,))])
    store = Store.open(path, KEY)
    assert store.query("SELECT 1 FROM sqlite_schema WHERE name IN ('entries', 'bad') OR name GLOB 'view_*'") == []
    assert store.peers() == []
    store.close()


def test_a_room_cannot_smuggle_sql_in_by_the_name_of_a_table_it_made(tmp_path: Path) -> None:
    name = 'view_toy_x" DEFAULT VALUES; DELETE FROM "entry'
    put = replace(
        TOY,
        views=('CREATE TABLE "{}" (id)'.format(name.replace('"', '""')),),
        fold=lambda _change, _rows: [Put(name, {"id": 1}), Delete(name, {})],
    )
    store = Store.open(tmp_path / "store.db", KEY, rooms=[put])
    add(store, post(1))
    with pytest.raises(StorageError, match="does not exist"):
        store.fold("toy")
    assert store.usage().entries == 1
    store.close()


@pytest.mark.parametrize("name", ["", "Toy", "toy_shop", "to y", "toy%", "тоу"])
def test_names_of_rooms_that_could_run_into_each_other_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="name"):
        Store.open(tmp_path / "store.db", KEY, rooms=[replace(TOY, name=name)])


def test_rows_are_replaced_by_their_key_and_deleted_by_what_equals(tmp_path: Path) -> None:
    steps: list[RowChanges] = []
    room = replace(
        TOY,
        views=("CREATE TABLE view_toy_pair (a, b, c DEFAULT 'kept', PRIMARY KEY (a, b)) WITHOUT ROWID",),
        fold=lambda change, rows: steps[change.cursor - 1],
    )
    store = Store.open(tmp_path / "store.db", KEY, rooms=[room])

    def step(number: int, *changes: Put | Delete) -> list[tuple[object, ...]]:
        steps.append(changes)
        add(store, post(number))
        store.fold("toy")
        return store.query("SELECT * FROM view_toy_pair ORDER BY a, b")

    row = {"a": 1, "b": "x"}
    assert step(1, Put("view_toy_pair", row)) == [(1, "x", "kept")]
    assert step(2, Put("view_toy_pair", {**row, "c": None})) == [(1, "x", None)]
    assert step(3, Put("view_toy_pair", row)) == [(1, "x", None)]
    assert step(4, Put("view_toy_pair", {"b": "y", "a": 1, "c": b"z"})) == [(1, "x", None), (1, "y", b"z")]
    assert step(5, Delete("view_toy_pair", {"a": 1, "c": None})) == [(1, "y", b"z")]
    assert step(6, Delete("view_toy_pair", {"a": 2})) == [(1, "y", b"z")]
    assert step(7, Put("view_toy_pair", row), Delete("view_toy_pair", {})) == []
    store.close()


# ---- the rest of a node ----


def test_held_entries_come_back_oldest_first_and_only_once(store: Store) -> None:
    for packed in (b"one", b"two", b"one"):
        store.hold(packed, "space", SPACE)
    store.hold(b"other", "space", secret("other"))
    assert store.release(SPACE) == [b"one", b"two"]
    assert store.release(SPACE) == []
    assert store.release(secret("other")) == [b"other"]


def test_held_entries_are_bounded_in_number_and_bytes(store: Store) -> None:
    def hold_all() -> None:
        for n in range(HELD_MAX + 5):
            store.hold(n.to_bytes(4, "big"), "space", SPACE)

    store.together(hold_all)
    assert store.release(SPACE) == [n.to_bytes(4, "big") for n in range(5, HELD_MAX + 5)]
    large = [bytes([n]) * (HELD_MAX_BYTES // 4) for n in range(6)]
    for packed in large:
        store.hold(packed, "space", SPACE)
    assert store.release(SPACE) == large[2:]


def test_meta_peers_and_spaces_are_kept(store: Store) -> None:
    assert (store.meta("x"), store.peers(), store.spaces()) == (None, [], [])
    store.set_meta("x", b"1")
    store.set_meta("x", b"2")
    store.put_peer(secret("a"), "host", 1)
    store.put_peer(secret("a"), "other", 2)
    store.put_peer(secret("b"), "host", 3)
    add(store, post(1))
    assert store.spaces() == [], "what was merely brought is not followed"
    store.put_space(SPACE)
    assert store.meta("x") == b"2"
    assert set(store.peers()) == {Peer(secret("a"), "other", 2), Peer(secret("b"), "host", 3)}
    assert store.spaces() == [SPACE]
    assert [store.remove_peer(secret("a")), store.remove_peer(secret("a"))] == [True, False]
    store.remove_space(SPACE)
    assert store.spaces() == []


def test_shares_and_refusals_last_for_their_day(store: Store) -> None:
    neighbour = secret("neighbour")
    store.spend(neighbour, DAY, 100)
    store.spend(neighbour, DAY, 50)
    store.spend(neighbour, DAY + 1, 7)
    store.remember_refused(secret(1), DAY)
    store.remember_refused(secret(1), DAY - 1)
    store.remember_refused(secret(2), DAY + 5)
    shares = "SELECT neighbour, day, bytes FROM spent ORDER BY day"
    assert store.query(shares) == [(neighbour, DAY, 150), (neighbour, DAY + 1, 7)]
    store.expire(DAY)
    assert len(store.query("SELECT * FROM refused")) == 2
    store.expire(DAY + 1)
    assert store.query("SELECT digest FROM refused") == [(secret(2),)]
    assert store.query(shares) == [(neighbour, DAY + 1, 7)]


def test_what_is_written_together_is_there_together_or_not_at_all(store: Store) -> None:
    def write(fail: bool) -> None:
        store.put_space(secret("new"))
        add(store, post(1, space=secret("new")))
        store.fold("toy")
        store.spend(SPACE, DAY, 1)
        assert store.usage().entries == 0, "readers see nothing yet"
        if fail:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.together(lambda: write(True))
    assert (store.cursor(), store.spaces(), posts(store)) == (0, [], set())
    add(store, post(2, space=secret("third")))
    store.remove([post(2, space=secret("third")).id])
    store.together(lambda: write(False))
    assert store.usage_of(secret("new")).entries == 1
    assert store.spaces() == [secret("new")]
    assert posts(store) == {post(1, space=secret("new")).id}


def test_other_threads_read_while_the_writer_writes(store: Store) -> None:
    wrong: list[object] = []

    def read() -> None:
        last = 0
        try:
            while last < 500:
                entries = store.usage().entries
                (admitted,) = store.query("SELECT count(*) FROM change")[0]
                assert last <= entries <= admitted
                assert entries % 10 == 0
                last = entries
        except BaseException as error:
            wrong.append(error)

    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(0, 500, 10):
        add(store, *(post(n) for n in range(start, start + 10)))
    for reader in readers:
        reader.join()
    assert wrong == []


# ---- against a model ----


class StoreMachine(RuleBasedStateMachine):
    """The store and a dict see the same calls and must tell the same."""

    numbers = st.integers(0, 25)

    def __init__(self) -> None:
        """An empty store and an empty model."""
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.store = Store.open(self.path, KEY, rooms=[TOY])
        self.held: dict[bytes, Entry] = {}
        self.place: dict[bytes, int] = {}
        self.view: dict[bytes, bytes | None] = {}
        self.last = 0

    def make(self, number: int, whole: bool) -> Entry:
        """One of 26 entries: three spaces, four days (one is never), payloads on both sides of 1 KiB."""
        content = bytes([number]) * (number % 4 * 500)
        return post(
            number,
            payload=content if whole else None,
            content=content,
            space=secret("space", number % 3),
            day=(0, DAY, DAY + 1, DAY + 2)[number % 4],
            tags=(secret(number), secret("shared")),
            seq=number % 5,
        )

    @rule(batch=st.lists(st.tuples(numbers, st.booleans()), max_size=8))
    def append(self, batch: list[tuple[int, bool]]) -> None:
        """Append some, perhaps again, perhaps without payload."""
        entries = [self.make(*item) for item in batch]
        fresh: dict[bytes, Entry] = {}
        expected: list[tuple[Event, bytes]] = []
        for entry in entries:
            if entry.id not in self.held and entry.id not in fresh:
                fresh[entry.id] = entry
                expected.append((Event.ADMITTED, entry.id))
        for entry in fresh.values():
            where = (entry.header.space, entry.header.seq)
            others = [*self.held.values(), *fresh.values()]
            earlier = others[: next(i for i, o in enumerate(others) if o is entry)]
            if entry.header.seq and any((o.header.space, o.header.seq) == where for o in earlier):
                expected.append((Event.FORKED, entry.id))
        late = {e.id: e for e in entries if e.payload is not None}
        first = {e.id: e for e in reversed(entries)}
        for entry in first.values():
            known = self.held.get(entry.id)
            if known is not None and known.payload is None and entry.payload is not None:
                expected.append((Event.PAYLOAD_ARRIVED, entry.id))
                self.held[entry.id] = late[entry.id]
        self.held |= fresh
        changes = add(self.store, *entries)
        assert sorted((c.event, c.entry.id) for c in changes) == sorted(expected)
        assert [c.cursor for c in changes] == list(range(self.last + 1, self.last + 1 + len(changes)))

    @rule(number=numbers)
    def drop(self, number: int) -> None:
        """Drop the payload of one."""
        entry = self.make(number, False)
        known = self.held.get(entry.id)
        change = self.store.drop_payload(entry.id)
        assert (change is not None) == (known is not None and known.payload is not None)
        if change:
            self.held[entry.id] = entry

    @rule(day=st.integers(DAY - 1, DAY + 4), limit=st.integers(1, 5))
    def expire(self, day: int, limit: int) -> None:
        """Expire some or all that is due."""
        due = {i for i, e in self.held.items() if 0 < e.header.expires_day < day}
        assert self.store.expire(day, limit) == min(limit, len(due))
        left = self.store.known(list(self.held))
        assert set(self.held) - left <= due
        self.held = {i: e for i, e in self.held.items() if i in left}

    @rule(batch=st.lists(numbers, max_size=4))
    def remove(self, batch: list[int]) -> None:
        """Remove some."""
        ids = [self.make(n, False).id for n in batch]
        assert self.store.remove(ids) == len({*ids} & self.held.keys())
        for id in ids:
            self.held.pop(id, None)

    @rule(limit=st.integers(1, 9))
    def fold(self, limit: int) -> None:
        """Fold a little."""
        self.store.fold("toy", limit)

    @rule()
    def fold_all_and_compare(self) -> None:
        """After folding everything the view holds what the store holds."""
        fold_all(self.store)
        view = dict(self.store.query("SELECT id, body FROM view_toy_post"))
        assert view == {i: e.payload for i, e in self.held.items()}

    @rule()
    def rebuild(self) -> None:
        """Fold anew."""
        self.store.rebuild()

    @rule()
    def reopen(self) -> None:
        """Close and open."""
        self.store.close()
        self.store = Store.open(self.path, KEY, rooms=[TOY])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def look_up(self, data: st.DataObject) -> None:
        """One entry by id and by tag."""
        entry = self.held[data.draw(st.sampled_from(sorted(self.held)))]
        assert same(self.store.get(entry.id), entry)
        number = entry.header.stamp_nonce
        assert self.store.by_tags([secret(number)]) == [(secret(number), entry.id)]

    @invariant()
    def tells_the_same(self) -> None:
        """Counts, buckets, heads and lacking payloads agree; the cursor only grows."""
        assert self.store.cursor() >= self.last
        self.last = self.store.cursor()
        sizes = [len(e.header_bytes) + 64 + len(e.payload or b"") for e in self.held.values()]
        assert self.store.usage() == (sum(sizes), len(sizes))
        assert self.store.incomplete(list(self.held)) == {i for i, e in self.held.items() if e.payload is None}
        assert {i for _, i in self.store.by_tags([secret("shared")])} == self.held.keys()
        for n in range(3):
            space = secret("space", n)
            mine = [e for e in self.held.values() if e.header.space == space]
            for day, count in self.store.buckets(space):
                _, ids = self.store.bucket(space, day)
                due = sorted(e.id for e in mine if e.header.expires_day == day)
                assert (sorted(map(bytes, ids)), count) == (due, len(due))
            assert len(self.store.buckets(space)) == len({e.header.expires_day for e in mine})
            head = self.store.head(space, secret("author"))
            assert (head and head[0]) == (max((e.header.seq for e in mine if e.header.seq), default=None))

    def teardown(self) -> None:
        """Remove the files."""
        self.store.close()
        self.folder.cleanup()


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@given(st.binary(max_size=40))
def test_prefixes_keep_short_and_long_tags_apart(tag: bytes) -> None:
    from outlast.kernel.store import _prefix

    assert -(2**63) <= _prefix(tag) < 2**63
    assert _prefix(tag).to_bytes(8, "big", signed=True) == tag[:8].ljust(8, b"\0")
