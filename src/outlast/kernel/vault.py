"""Vault: one person's SQLite file: keys, contacts, messages, custody; and the private rows of the rooms.

Same engine as the store, opened by that person's key. ``write``, ``transaction`` and ``read`` belong to the writer
thread, ``query`` to the thread of the event loop; what was written is durable when they return. All raise StorageError
when the disk is full, fails, or the file is damaged, and then nothing of that call is written.

Rooms keep their private rows in tables ``local_<room>_*``, made by numbered migrations that are only ever added to.
These rows are in the backup file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from outlast.errors import StorageError
from outlast.kernel.backup import RoomRows, TableRows
from outlast.kernel.database import Database, Transaction, check_room_name
from outlast.kernel.room import Put, Room, RowChanges, Value

APPLICATION_ID: Final = 0x4F4C564C  # "OLVL"

_SCHEMA: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE contact (
        identity BLOB PRIMARY KEY, name TEXT NOT NULL, verified_ms INTEGER, blocked INTEGER NOT NULL DEFAULT 0,
        added_ms INTEGER NOT NULL, intro BLOB
    );
    CREATE TABLE device (
        device BLOB PRIMARY KEY, identity BLOB NOT NULL, seal BLOB NOT NULL, created_day INTEGER NOT NULL,
        certificate BLOB NOT NULL, accepted INTEGER NOT NULL DEFAULT 0, warning TEXT,
        prekey BLOB, prekey_day INTEGER, told BLOB, used BLOB
    );
    CREATE INDEX device_identity ON device (identity);
    -- Of contacts and of the person alone: what an identity ended, whether the device was known here or not.
    CREATE TABLE revoked (
        device BLOB NOT NULL, identity BLOB NOT NULL, signed BLOB NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (device, identity)
    ) WITHOUT ROWID;
    -- Contacts who have not acknowledged what they are to know of the person's devices: in which letter they were told
    -- last, and when; 0 when nothing could be sealed to them.
    CREATE TABLE untold (identity BLOB PRIMARY KEY, letter BLOB NOT NULL, told_ms INTEGER NOT NULL) WITHOUT ROWID;
    -- The person's earlier devices; with seal those that renewed themselves here: mail is still sealed to them.
    CREATE TABLE own_device (
        device BLOB PRIMARY KEY, certificate BLOB NOT NULL, seal BLOB, ended_day INTEGER NOT NULL
    );
    -- The last entry of each own device in each space: seq and clock (8 B each, so that all 64 bits fit), id.
    CREATE TABLE head (
        device BLOB NOT NULL, space BLOB NOT NULL, seq BLOB NOT NULL, clock BLOB NOT NULL, id BLOB NOT NULL,
        PRIMARY KEY (device, space)
    ) WITHOUT ROWID;
    CREATE TABLE prekey (
        public BLOB PRIMARY KEY, secret BLOB NOT NULL, made_day INTEGER NOT NULL, superseded_day INTEGER
    );
    CREATE TABLE counter (
        device BLOB NOT NULL, day INTEGER NOT NULL, direction INTEGER NOT NULL, next INTEGER NOT NULL,
        PRIMARY KEY (device, day, direction)
    ) WITHOUT ROWID;
    CREATE TABLE opened (entry BLOB PRIMARY KEY, expires_day INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE sent (
        entry BLOB PRIMARY KEY, letter BLOB NOT NULL, to_identity BLOB NOT NULL, device BLOB NOT NULL,
        expires_day INTEGER NOT NULL
    );
    CREATE INDEX sent_letter ON sent (letter);
    CREATE TABLE custody (
        letter BLOB NOT NULL, event TEXT NOT NULL, at_ms INTEGER NOT NULL, PRIMARY KEY (letter, event)
    ) WITHOUT ROWID;
    CREATE TABLE seen_letter (
        letter BLOB PRIMARY KEY, sender BLOB NOT NULL, sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
        expires_day INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE outbox (entry_id BLOB PRIMARY KEY, packed BLOB NOT NULL);
    CREATE TABLE bundle_out (
        device BLOB NOT NULL, number INTEGER NOT NULL, upto_cursor INTEGER NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (device, number)
    ) WITHOUT ROWID;
    CREATE TABLE bundle_in (
        device BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (device, number)
    ) WITHOUT ROWID;
    CREATE TABLE held_by (
        device BLOB NOT NULL, entry BLOB NOT NULL, expires_day INTEGER NOT NULL, PRIMARY KEY (device, entry)
    ) WITHOUT ROWID;
    CREATE TABLE invite (secret BLOB PRIMARY KEY, made_day INTEGER NOT NULL, kind TEXT NOT NULL);
    CREATE TABLE room (name TEXT PRIMARY KEY, migrated INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    -- The parcels that letters of this person name, and with whom; copied: 1 whole at some other node, of those
    -- sent; 2 acknowledged by whom they are for.
    CREATE TABLE parcel (
        letter BLOB NOT NULL, entry BLOB NOT NULL, peer BLOB NOT NULL, outgoing INTEGER NOT NULL,
        copied INTEGER NOT NULL DEFAULT 0, expires_day INTEGER NOT NULL, PRIMARY KEY (letter, entry)
    ) WITHOUT ROWID;
    CREATE INDEX parcel_entry ON parcel (entry);
    """,
    """
    -- The places of chunks that the other one was heard to hold, of parcels sent (see ``chunks.to_bytes``).
    ALTER TABLE parcel ADD COLUMN held BLOB;
    """,
    """
    -- What was in bundles that had no room for all: their receiver holds it once they acknowledge the number.
    CREATE TABLE bundle_part (
        device BLOB NOT NULL, number INTEGER NOT NULL, entry BLOB NOT NULL, expires_day INTEGER NOT NULL,
        PRIMARY KEY (device, number, entry)
    ) WITHOUT ROWID;
    """,
    """
    -- Of a letter whose body lies apart one row stands for that, with an empty device; copied: at some other node.
    ALTER TABLE sent ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;
    -- Letters that were opened and wait for their bodies; envelope is theirs, tag that of the body's.
    CREATE TABLE awaited (
        envelope BLOB PRIMARY KEY, tag BLOB NOT NULL, place BLOB NOT NULL, letter BLOB NOT NULL, kind TEXT NOT NULL,
        sent_ms INTEGER NOT NULL, life_ms INTEGER NOT NULL, sender BLOB NOT NULL, device BLOB NOT NULL,
        expires_day INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX awaited_tag ON awaited (tag);
    """,
    """
    -- Its sender chooses the id of a letter, and all members of a group see that of one to all: two may take the same.
    ALTER TABLE seen_letter RENAME TO seen_letter_before;
    CREATE TABLE seen_letter (
        letter BLOB NOT NULL, sender BLOB NOT NULL, sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL,
        expires_day INTEGER NOT NULL, PRIMARY KEY (letter, sender)
    ) WITHOUT ROWID;
    INSERT INTO seen_letter SELECT * FROM seen_letter_before;
    DROP TABLE seen_letter_before;
    CREATE INDEX awaited_sender ON awaited (sender);
    """,
)

T = TypeVar("T")

__all__ = ["RoomRows", "TableRows", "Transaction", "Vault"]


class Vault:
    """A person's vault, open. See the module for which thread calls what."""

    def __init__(self, database: Database, rooms: Sequence[Room]) -> None:
        """Made by ``open`` alone."""
        self._database = database
        self._rooms = {check_room_name(room.name): room for room in rooms}

    @classmethod
    def open(
        cls, path: Path, key: bytes, *, rooms: Sequence[Room] = (), restore: Mapping[str, RoomRows] | None = None
    ) -> Self:
        """Open the vault with its 32-byte key, or make it, and bring the rooms' tables up to date.

        ``restore`` fills a new vault with the rows of a backup, through the migrations made since. Raises StorageError
        when the file is damaged, has another key, or is of a newer version of this program or of a room.
        """
        database = Database.open(
            path, key, application_id=APPLICATION_ID, schema=_SCHEMA, scope="local_", secure_delete="on"
        )
        try:
            vault = cls(database, rooms)
            database.write(lambda t: vault._migrate(t, restore or {}))
        except BaseException:
            database.close()
            raise
        return vault

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._database.close()

    def forget_deleted(self) -> None:
        """Empty the write-ahead log, on the writer thread: what was deleted still stands in its older pages."""
        self._database.checkpoint()

    def is_sound(self) -> bool:
        """Whether no page of the file is damaged, on the writer's thread; reads all of it."""
        return self._database.is_sound()

    def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` in one transaction on the writer thread; what it raises passes through after the rollback."""
        return self._database.write(act)

    def transaction(self, changes: RowChanges, room: str | None = None) -> None:
        """Write row changes to ``local_<room>_*``, or with no room named to any ``local_*``, all or none."""
        self._database.write(lambda t: t.apply(changes, room))

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        return self._database.query(sql, args)

    def read(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT, on the writer thread."""
        return self._database.read(sql, args)

    def meta(self, name: str) -> bytes | None:
        """A named value of the person."""
        rows = self._database.query("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def room_rows(self) -> dict[str, RoomRows]:
        """Every room's private rows, for the backup, without those that pass; also of rooms not installed now."""
        backup: dict[str, RoomRows] = {}
        for name, migrated in self._database.query("SELECT name, migrated FROM room ORDER BY name"):
            tables: dict[str, TableRows] = {}
            for (table,) in self._database.query(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name GLOB ? || '*'"
                " ORDER BY name",
                (f"local_{name}_",),
            ):
                columns = [row[0] for row in self._database.query("SELECT name FROM pragma_table_info(?)", (table,))]
                names = ", ".join(f'"{column}"' for column in columns)
                passing = self._rooms[name].passing.get(table, "0") if name in self._rooms else "0"
                rows = self._database.query(f'SELECT {names} FROM "{table}" WHERE NOT ({passing})')
                tables[table] = TableRows(columns, [list(row) for row in rows])
            backup[name] = RoomRows(migrated, tables)
        return backup

    def _migrate(self, t: Transaction, restore: Mapping[str, RoomRows]) -> None:
        done = dict(t.query("SELECT name, migrated FROM room"))
        for name, room in self._rooms.items():
            at = done.get(name, 0)
            rows = restore.get(name)
            if max(at, rows.migrated if rows else 0) > len(room.migrations):
                raise StorageError(
                    "these rows were written by a newer version of %(name)s: update this program", name=name
                )
            if rows is not None:
                if at:
                    raise StorageError("a backup can only be restored into a new vault")
                at = rows.migrated
                t.create(room.migrations[:at], name)
                for table, content in rows.tables.items():
                    t.apply([Put(table, dict(zip(content.columns, row, strict=True))) for row in content.rows], name)
            t.create(room.migrations[at:], name)
            t.execute("INSERT OR REPLACE INTO room VALUES (?, ?)", (name, len(room.migrations)))
