"""Database: one encrypted SQLite file with one writing and one reading connection; what store and vault stand on.

The file is encrypted as a whole, its write-ahead log with it (SQLite3 Multiple Ciphers, ChaCha20-Poly1305 for each
page, a raw 32-byte key). A commit is durable when ``write`` returns: write-ahead log, ``synchronous=FULL``. The writing
connection belongs to one thread; any thread may use the reading one. Readers never wait for the writer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar

from outlast.errors import LockedError, OutlastError, StorageError
from outlast.kernel.keyslot import KEY_BYTES
from outlast.kernel.room import Delete, Put, RowChanges, Update, Value

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")

_PAGE_BYTES: Final = 4096
_WRITER_CACHE_KIB: Final = 16 * 1024
_READER_CACHE_KIB: Final = 4 * 1024
_CHECKPOINT_PAGES: Final = 4000
_LOG_KEPT_BYTES: Final = 64 * 1024 * 1024
_BUSY_MS: Final = 10_000
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


class _Table:
    """What row changes may name of one table."""

    __slots__ = ("columns", "key", "puts")

    def __init__(self, columns: frozenset[str], key: tuple[str, ...]) -> None:
        self.columns = columns
        self.key = key
        self.puts: dict[tuple[str, ...], str] = {}

    def put(self, name: str, columns: tuple[str, ...]) -> str:
        """The statement that writes these columns of a row; made once for each set of columns."""
        sql = self.puts.get(columns)
        if sql is None:
            sql = f'INSERT INTO "{name}" ({", ".join(map(_quoted, columns))}) VALUES ({", ".join("?" * len(columns))})'
            if self.key:
                rest = [c for c in map(_quoted, columns) if c.strip('"') not in self.key]
                does = f"UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in rest)}" if rest else "NOTHING"
                sql += f" ON CONFLICT ({', '.join(map(_quoted, self.key))}) DO {does}"
            self.puts[columns] = sql
        return sql


class Transaction:
    """The open transaction of the writing connection; valid only inside the function that ``write`` was given."""

    __slots__ = ("_cursor", "_scope", "_tables")

    def __init__(self, cursor: apsw.Cursor, scope: str, tables: dict[str, _Table]) -> None:
        """Made by ``Database.write`` alone."""
        self._cursor = cursor
        self._scope = scope
        self._tables = tables

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement, with what this transaction has written so far."""
        return self._cursor.execute(sql, args).fetchall()

    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Run an INSERT, UPDATE or DELETE; how many rows it touched, without those of triggers."""
        self._cursor.execute(sql, args)
        return self._cursor.connection.changes()

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of arguments."""
        self._cursor.executemany(sql, rows)

    def apply(self, changes: RowChanges, room: str | None = None) -> None:
        """Write row changes to the tables of a room, or with none named to those of any room.

        They are called ``view_<room>_*`` in the store and ``local_<room>_*`` in a vault. ``Put`` inserts the row or
        overwrites the one with its primary key; columns it does not name keep their value. Raises StorageError, before
        that change is written, when a change names another table or a column the table lacks; names never reach SQL
        unless the schema has them.
        """
        prefix = self.prefix(room)
        for change in changes:
            table = self._table(change.table, prefix)
            names: Mapping[str, Value]
            match change:
                case Put(name, names):
                    columns = tuple(names)
                    self._check(table, name, columns, need=table.key)
                    self._cursor.execute(table.put(name, columns), tuple(names.values()))
                case Delete(name, names):
                    self._check(table, name, tuple(names))
                    where = " AND ".join(f"{_quoted(column)} IS ?" for column in names)
                    sql = f'DELETE FROM "{name}"' + (f" WHERE {where}" if where else "")
                    self._cursor.execute(sql, tuple(names.values()))
                case Update(name, which, names):
                    self._check(table, name, (*which, *names), need=table.key)
                    sets = ", ".join(f"{_quoted(column)} = ?" for column in names)
                    where = " AND ".join(f"{_quoted(column)} IS ?" for column in which)
                    sql = f'UPDATE "{name}" SET {sets} WHERE {where}'
                    self._cursor.execute(sql, (*names.values(), *which.values()))

    def prefix(self, room: str | None) -> str:
        """What the names of a room's tables here begin with."""
        return self._scope if room is None else f"{self._scope}{room}_"

    def create(self, statements: Iterable[str], room: str) -> None:
        """Run a room's CREATE or ALTER statements; raises StorageError when one makes or drops anything else.

        Everything new must bear the room's prefix, and nothing of the others may change.
        """
        prefix = self.prefix(room)
        before = self._others(prefix)
        for statement in statements:
            self._cursor.execute(statement)
        if self._others(prefix) != before:
            raise StorageError(
                "a room may only make what is named %(prefix)s*: remove that room or update it", prefix=prefix
            )
        self._tables.clear()

    def drop(self, room: str) -> None:
        """Drop every table and view of a room, with indexes and triggers."""
        prefix = self.prefix(room)
        rows = self.query("SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'")
        for name, kind in rows:
            if name.startswith(prefix):
                self._cursor.execute(f'DROP {"VIEW" if kind == "view" else "TABLE"} IF EXISTS "{name}"')
        self._tables.clear()

    def _others(self, prefix: str) -> list[tuple[Any, ...]]:
        # An index that SQLite makes by itself belongs to its table; sqlite_sequence comes with AUTOINCREMENT.
        rows = self.query("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
        return [
            row
            for row in rows
            if not (row[1].startswith(prefix) and row[2].startswith(prefix))
            and not (row[1].startswith("sqlite_autoindex_") and row[2].startswith(prefix))
            and row[1] != "sqlite_sequence"
        ]

    def _table(self, name: str, prefix: str) -> _Table:
        if not name.startswith(prefix):
            raise StorageError(
                "a room tried to write the table %(name)r, but only %(prefix)s* are its own",
                name=name[:80],
                prefix=prefix,
            )
        table = self._tables.get(name)
        if table is None:
            rows = self.query("SELECT name, pk FROM pragma_table_info(?)", (name,))
            exists = self.query("SELECT 1 FROM sqlite_schema WHERE name = ? AND type = 'table'", (name,))
            if not rows or not exists or not _SAFE.issuperset(name):
                raise StorageError("a room tried to write the table %(name)r, which does not exist", name=name[:80])
            key = sorted((pk, column) for column, pk in rows if pk)
            table = _Table(frozenset(c for c, _ in rows if _SAFE.issuperset(c)), tuple(c for _, c in key))
            self._tables[name] = table
        return table

    @staticmethod
    def _check(table: _Table, name: str, columns: tuple[str, ...], need: tuple[str, ...] = ()) -> None:
        if not table.columns.issuperset(columns):
            wrong = next(column for column in columns if column not in table.columns)
            raise StorageError("the table %(name)s has no column %(wrong)r", name=name, wrong=str(wrong)[:80])
        if not set(need) <= set(columns):
            raise StorageError("a row for %(name)s must name its key: %(keys)s", name=name, keys=", ".join(need))


class Database:
    """An open encrypted file: ``write`` and ``read`` on the writer's thread, ``query`` on any."""

    def __init__(self, path: Path, scope: str, writer: apsw.Connection, reader: apsw.Connection) -> None:
        """Made by ``open`` alone."""
        self.path = path
        self._scope = scope
        self._writer = writer
        self._reader = reader
        self._tables: dict[str, _Table] = {}
        self._reading = Lock()  # one statement at a time on a connection
        self._is_open = True

    @classmethod
    def open(
        cls,
        path: Path,
        key: bytes,
        *,
        application_id: int,
        schema: Sequence[str],
        scope: str,
        secure_delete: Literal["on", "fast"] = "fast",
    ) -> Self:
        """Open the file with its 32-byte key, or make it (mode 0600) when there is none.

        ``schema`` holds one script for each version of the kernel's own tables; those the file lacks are run. Names of
        rooms' tables begin with ``scope``. Raises StorageError when the file is damaged, has another key, is another
        kind of file, or of a newer version of this program.
        """
        import apsw

        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        opened: list[apsw.Connection] = []
        try:
            if not path.exists():
                _make(path, key, application_id, schema)
            elif path.stat().st_size < _PAGE_BYTES:
                raise apsw.CorruptError("SQLite would take it for a new file")
            writer = _connect(path, key, apsw.SQLITE_OPEN_READWRITE, _WRITER_CACHE_KIB)
            opened.append(writer)
            if writer.pragma("application_id") != application_id:
                raise StorageError("%(path)s is another kind of file: name the right one", path=path)
            if writer.pragma("user_version") > len(schema):
                raise StorageError("%(path)s was written by a newer Outlast: update this program", path=path)
            _update(writer, schema)
            writer.pragma("journal_mode", "wal")
            writer.pragma("synchronous", "full")
            writer.pragma("secure_delete", secure_delete)
            writer.pragma("journal_size_limit", _LOG_KEPT_BYTES)
            writer.wal_autocheckpoint(_CHECKPOINT_PAGES)
            reader = _connect(path, key, apsw.SQLITE_OPEN_READONLY, _READER_CACHE_KIB)
            opened.append(reader)
            return cls(path, scope, writer, reader)
        except (apsw.Error, OSError, StorageError) as error:
            for connection in opened:
                connection.close(True)
            complain(error, path)

    def write(self, act: Callable[[Transaction], T]) -> T:
        """Run ``act`` in one transaction; all of it is durable when this returns, nothing of it when it raises.

        Raises StorageError when the disk is full or fails, or the file is damaged; the file stays usable for what the
        disk then allows. Whatever ``act`` itself raises passes through after the rollback. Inside ``act`` a further
        ``write`` joins its transaction.
        """
        import apsw

        self._check_open()
        connection = self._writer
        if connection.in_transaction:
            return act(Transaction(connection.cursor(), self._scope, self._tables))
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            result = act(Transaction(cursor, self._scope, self._tables))
            cursor.execute("COMMIT")
        except BaseException as error:
            # After some failures SQLite has rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, (apsw.Error, MemoryError)):
                complain(error, self.path)
            raise
        return result

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT on the reading connection.

        Raises StorageError when the file is damaged, LockedError when it was closed.
        """
        with self._reading:
            self._check_open()
            return self._select(self._reader, sql, args)

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT on the writing connection, for the writer's thread; raises like ``query``."""
        self._check_open()
        return self._select(self._writer, sql, args)

    def _select(self, connection: apsw.Connection, sql: str, args: Sequence[Any]) -> list[tuple[Any, ...]]:
        import apsw

        try:
            return connection.execute(sql, args).fetchall()
        except (apsw.Error, MemoryError) as error:
            complain(error, self.path)

    def is_sound(self) -> bool:
        """Whether no page of the file is damaged, on the writer's thread; reads all of it, which may take seconds."""
        try:
            return self.read("PRAGMA quick_check(1)") == [("ok",)]
        except StorageError:
            return False

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it, on the writer's thread; raises StorageError."""
        import apsw

        self._check_open()
        try:
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.Error, MemoryError) as error:
            complain(error, self.path)

    def close(self) -> None:
        """Close both connections; the last commit is durable already. Closing twice is harmless."""
        with self._reading:  # what another thread reads at this moment is read to its end
            self._is_open = False
            self._reader.close(True)
        self._writer.close(True)

    def _check_open(self) -> None:
        if not self._is_open:
            raise LockedError("the node was locked meanwhile: unlock it and try again")


def check_room_name(name: str) -> str:
    """The name, if table prefixes made of it cannot run into those of another room; else StorageError."""
    if not name or not name.isascii() or not name.isalnum() or name != name.lower():
        raise StorageError("a room's name has only a-z and 0-9, %(name)r has not: update that room", name=name[:80])
    return name


def _quoted(name: str) -> str:
    return f'"{name}"'


def _make(path: Path, key: bytes, application_id: int, schema: Sequence[str]) -> None:
    """Make the file under another name and give it its own when it is whole, so that an empty one means damage."""
    import apsw

    draft = path.with_name(path.name + ".new")
    for leftover in (draft, Path(f"{draft}-journal"), Path(f"{path}-wal"), Path(f"{path}-shm")):
        leftover.unlink(missing_ok=True)  # a log would be taken for the new file's
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = _connect(draft, key, apsw.SQLITE_OPEN_READWRITE, _READER_CACHE_KIB)
    try:
        connection.pragma("application_id", application_id)
        _update(connection, schema)
    finally:
        connection.close(True)
    draft.replace(path)
    sync_folder(path.parent)


def _update(connection: apsw.Connection, schema: Sequence[str]) -> None:
    version = connection.pragma("user_version")
    if version < len(schema):
        with connection:
            for script in schema[version:]:
                connection.execute(script)
            connection.pragma("user_version", len(schema))


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path, key: bytes, flags: int, cache_kib: int) -> apsw.Connection:
    import apsw

    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.pragma("cipher", "chacha20")
        connection.pragma("key", f"raw:{key.hex()}")
        connection.set_busy_timeout(_BUSY_MS)
        connection.pragma("temp_store", "memory")
        connection.pragma("page_size", _PAGE_BYTES)
        connection.pragma("cache_size", -cache_kib)
        connection.pragma("trusted_schema", False)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except BaseException:
        connection.close(True)
        raise
    return connection


def complain(error: BaseException, path: Path) -> NoReturn:
    """Raise what a person can act on in place of SQLite's error; programming errors pass as they are."""
    import apsw

    if isinstance(error, OutlastError):
        raise error
    found: StorageError | None = None
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno == 28):
        found = StorageError(
            "the disk that holds %(path)s is full: nothing acknowledged is lost; make room and try again", path=path
        )
    elif isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        found = StorageError(
            "%(path)s is damaged, or its key belongs to another file: move it away and restore from the backup file; "
            "bundles and other nodes bring the messages back",
            path=path,
        )
    elif isinstance(error, (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)):
        found = StorageError(
            "%(path)s cannot be opened or written: check that the folder is yours and the disk is there", path=path
        )
    elif isinstance(error, (apsw.IOError, OSError)):
        found = StorageError(
            "the disk that holds %(path)s refuses (%(error)s): nothing acknowledged is lost; make room or change it",
            path=path,
            error=error,
        )
    elif isinstance(error, (apsw.NoMemError, MemoryError)):
        found = StorageError("there is too little memory for %(path)s: close other programs and try again", path=path)
    elif isinstance(error, (apsw.BusyError, apsw.LockedError)):
        found = StorageError("%(path)s is in use by another program: end that and try again", path=path)
    if found is None:
        raise error
    raise found from error
