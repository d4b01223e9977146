"""A vault's tables of reach, in memory, and letters that come to it."""

from __future__ import annotations

import itertools
from typing import Any

import apsw
import msgspec

from outlast.kernel import Delete, Kind, Letter, RowChanges, Update, Value
from outlast.rooms.reach import view
from tests.unit.rooms.reach.towns import NOW_MS

_numbers = itertools.count()


class Tables:
    """The tables that ``MIGRATIONS`` make."""

    def __init__(self) -> None:
        self._db = apsw.Connection(":memory:")
        for statement in view.MIGRATIONS:
            self._db.execute(statement)

    def query(self, sql: str, args: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return self._db.execute(sql, tuple(args)).fetchall()

    def apply(self, changes: RowChanges) -> None:
        """Write row changes, as a vault does."""
        for change in changes:
            if isinstance(change, Delete):
                where = " AND ".join(f"{name} IS ?" for name in change.where) or "1"
                self._db.execute(f"DELETE FROM {change.table} WHERE {where}", tuple(change.where.values()))
                continue
            if isinstance(change, Update):
                sets = ", ".join(f"{name} = ?" for name in change.row)
                where = " AND ".join(f"{name} IS ?" for name in change.where)
                sql = f"UPDATE {change.table} SET {sets} WHERE {where}"
                self._db.execute(sql, (*change.row.values(), *change.where.values()))
                continue
            names = list(change.row)
            [key] = self.query("SELECT group_concat(name) FROM pragma_table_info(?) WHERE pk > 0", (change.table,))
            updates = ", ".join(f"{name} = excluded.{name}" for name in names)
            self._db.execute(
                f"INSERT INTO {change.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
                f" ON CONFLICT ({key[0]}) DO UPDATE SET {updates}",
                tuple(change.row.values()),
            )

    def rows(self) -> dict[str, list[tuple[Value, ...]]]:
        """All that stands in the tables."""
        names = [row[0] for row in self.query("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: self.query(f"SELECT * FROM {name}") for name in names}

    def hear(self, kind: Kind, body: msgspec.Struct, sender: bytes) -> bool:
        """Take a letter; whether it changed anything."""
        changes = view.receive(letter(kind.name, kind.encode(body), sender), self)
        self.apply(changes)
        return bool(changes)


def letter(kind: str, body: bytes, sender: bytes) -> Letter:
    """A letter as the kernel opens it."""
    return Letter(next(_numbers).to_bytes(16, "big"), kind, body, NOW_MS, sender, b"d" * 32, NOW_MS)
