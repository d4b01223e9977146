"""Files in a person's vault: those that letters to and from them name, and those that were put into their groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from outlast.kernel import Put, Rows, Update, Value
from outlast.rooms.carry.entries import ID_BYTES, File

FILE: Final = "local_carry_file"
LETTERS: Final = "local_carry_message"
"""The table of letters, see ``view``,"""
SAID: Final = "local_carry_said"
"""and of texts in groups, see ``group_view``."""
NEW: Final = 0
"""States of files: one that came and is fetched if that costs little;"""
ASKED: Final = 1
"""that somebody here asked for;"""
WHOLE: Final = 2
"""that is here, or was sent from here;"""
GONE: Final = 3
"""that was let go of, or whose time is over;"""
ENDED: Final = 4
"""of a text that was taken away, or of a group that was left: it is not shown any more, and freed next."""

AWAITED_MAX: Final = 500
"""So many are looked at whenever there is news: a contact may name any number of files that there are not."""

MIGRATIONS: Final = (
    f"CREATE TABLE {FILE} (letter BLOB PRIMARY KEY, peer BLOB, outgoing INTEGER, name TEXT, type TEXT,"
    " size_bytes INTEGER, key BLOB, parcels BLOB, preview BLOB, at_ms INTEGER, state INTEGER) WITHOUT ROWID",
    f"CREATE INDEX {FILE}_state ON {FILE} (state)",
)


def file_row(letter: bytes, peer: bytes, file: File, at_ms: int, *, outgoing: bool) -> Put:
    """The row of a file that a letter names."""
    row: dict[str, Value] = {
        "letter": letter,
        "peer": peer,
        "outgoing": int(outgoing),
        "name": file.name,
        "type": file.type,
        "size_bytes": file.size_bytes,
        "key": file.key,
        "parcels": b"".join(file.parcels),
        "preview": file.preview,
        "at_ms": at_ms,
        "state": WHOLE if outgoing else NEW,
    }
    return Put(FILE, row)


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file that a letter of this vault names, or a post; see ``File`` and the states."""

    letter: bytes  # that names it: 16 B, of an entry of a group or a post 32 B
    peer: bytes  # 32 B, identity, group or channel
    outgoing: bool
    name: str
    type: str
    size_bytes: int
    key: bytes  # 32 B; empty in a channel
    parcels: tuple[bytes, ...]  # ids, 32 B each; in a channel that of the entry whose content it is
    preview: bytes
    at_ms: int
    state: int

    @property
    def is_public(self) -> bool:
        """Whether it stands in a channel."""
        return not self.key


_FILE_COLUMNS: Final = "letter, peer, outgoing, name, type, size_bytes, key, parcels, preview, at_ms, state"


_SHOWN: Final = (
    f"state <> {ENDED}"
    f" AND NOT EXISTS (SELECT 1 FROM {LETTERS} m WHERE m.letter = {FILE}.letter AND m.until_ms IS NOT NULL"
    " AND (m.until_ms <= ? OR m.back_ms IS NOT NULL))"
    f" AND NOT EXISTS (SELECT 1 FROM {SAID} s WHERE s.id = {FILE}.letter AND s.until_ms <= ?)"
)
"""Whether what names a file has not disappeared at that time (twice), and was not removed."""


def files(vault: Rows, now_ms: int, *, peer: bytes | None = None) -> list[FileRow]:
    """The files, of all or of one person or group; oldest first."""
    rows = vault.query(
        f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE peer = ifnull(?, peer) AND {_SHOWN} ORDER BY at_ms, letter DESC",
        (peer, now_ms, now_ms),
    )
    return [_file(row) for row in rows]


def find(vault: Rows, letter: bytes, now_ms: int) -> FileRow | None:
    """The file that the letter of that id names, if it is shown at that time."""
    rows = vault.query(f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE letter = ? AND {_SHOWN}", (letter, now_ms, now_ms))
    return _file(rows[0]) if rows else None


def named(vault: Rows, letters: Sequence[bytes]) -> list[FileRow]:
    """The files that these letters name, also those that are not shown any more."""
    found = (vault.query(f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE letter = ?", (letter,)) for letter in letters)
    return [_file(row) for rows in found for row in rows]


def of(vault: Rows, peer: bytes) -> list[FileRow]:
    """All files from or to one person, or of a group, also those that are not shown any more."""
    return [_file(row) for row in vault.query(f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE peer = ?", (peer,))]


def end(letter: bytes) -> Update:
    """The row by which a file is ended."""
    return Update(FILE, {"letter": letter}, {"state": ENDED})


def ended(vault: Rows) -> list[FileRow]:
    """The files that are to be freed."""
    return [_file(row) for row in vault.query(f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE state = {ENDED}")]


def awaited(vault: Rows) -> list[FileRow]:
    """The newest files that came and are not whole yet, as far as known; first those that were asked for.

    The newest of each go before the older ones of anybody: however many one names, others do not wait for it.
    """
    rows = vault.query(
        f"SELECT {_FILE_COLUMNS} FROM {FILE} WHERE state IN ({NEW}, {ASKED})"
        " ORDER BY state DESC, row_number() OVER (PARTITION BY peer ORDER BY state DESC, at_ms DESC), at_ms DESC"
        " LIMIT ?",
        (AWAITED_MAX,),
    )
    return [_file(row) for row in rows]


def _file(row: Sequence[Any]) -> FileRow:
    letter, peer, outgoing, name, type_, size_bytes, key, parcels, preview, at_ms, state = row
    ids = tuple(parcels[at : at + ID_BYTES] for at in range(0, len(parcels), ID_BYTES))
    return FileRow(letter, peer, bool(outgoing), name, type_, size_bytes, key, ids, preview, at_ms, state)


MOVE: Final = f"UPDATE {FILE} SET state = ? WHERE letter = ? AND state <> {ENDED}"
"""Brings a file into another state, if it is still there."""


def settle(file: FileRow, state: int) -> Update:
    """The row by which a file comes into another state, if it still is in this one."""
    return Update(FILE, {"letter": file.letter, "state": file.state}, {"state": state})
