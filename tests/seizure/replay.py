"""Whether a store knows more than what came, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from outlast.kernel.entry import Entry, decode_header, entry_id
from outlast.kernel.node import COMMON_SPACES, find_rooms
from outlast.kernel.quota import POOLED
from outlast.kernel.room import Event
from outlast.kernel.store import Incoming, Store
from tests.seizure.taken import Opened, Row, open_file

KEY = bytes(32)
ITS_OWN = frozenset({"meta", "peer"})
"""What the node says of itself; looked at by other tests."""


def entries_of(store: Opened) -> dict[int, Entry]:
    """By number: each entry in a store, with its payload if it is here."""
    long = {row[0]: row[1] for row in _rows(store, "payload", "n", "data")}
    found: dict[int, Entry] = {}
    for n, header, signature, payload in _rows(store, "entry", "n", "header", "signature", "payload"):
        whole = payload if payload is not None else long.get(n)
        found[n] = Entry(decode_header(header), header, signature, entry_id(header), whole)
    return found


def differences(store: Opened, folder: Path) -> list[str]:
    """What a taken store has that a new one lacks to which the same headers and payloads came in the same order.

    The new one is told nothing else but whether a stranger brought an entry: not who did, nor when, nor who has it now.
    What both have says no more than that and the order of the entries.
    """
    arrivals = list(_arrivals(store))
    new = Store.open(folder / "again.db", KEY, rooms=find_rooms())
    try:
        for space in COMMON_SPACES:  # as in every new store
            new.put_space(space)
        new.together(lambda: [new.append([arrival]) for arrival in arrivals])
        for room in find_rooms():
            while new.fold(room.name):
                pass
    finally:
        new.close()
    again = open_file(folder / "again.db", KEY)
    return [
        f"{table} has {len(set(store.tables.get(table, [])) ^ set(again.tables.get(table, [])))} rows of its own"
        for table in sorted((store.tables.keys() | again.tables.keys()) - ITS_OWN)
        if store.tables.get(table) != again.tables.get(table)
    ]


def _arrivals(store: Opened) -> Iterator[Incoming]:
    """What came, in order: entries, some without their payload, and payloads that came behind."""
    entries = entries_of(store)
    pooled = {n for n, rank in _rows(store, "entry", "n", "rank") if rank >= POOLED}
    changes = _rows(store, "change", "cursor", "event", "n", "gone")
    late = {n for _, event, n, _ in changes if event == Event.PAYLOAD_ARRIVED}
    for cursor, _, n, gone in changes:
        assert gone is None, "a change keeps what is gone"
        entry = entries[cursor if n is None else n]
        if n is None and cursor in late:
            entry = Entry(entry.header, entry.header_bytes, entry.signature, entry.id, None)
        yield Incoming(entry, (cursor if n is None else n) in pooled)


def _rows(store: Opened, table: str, *columns: str) -> Sequence[Row]:
    places = [store.columns[table].index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in store.tables[table]]
