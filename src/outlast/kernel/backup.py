"""Backup: one file under a passphrase with what a person cannot get back from anybody else.

The file is a msgpack ``BackupBody``, padded with zeros so that its size tells little, sealed as in ``keyslot``::

    body = length u32 || msgpack || zeros up to the next multiple of 1/16 of its highest power of two, at least 4 KiB

It holds the secret behind the 24 words, contacts and the rooms' private rows. It holds no device's key: a restore
starts a new device, so that it can never fork what the old one wrote, and lists the old ones to revoke.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from outlast.errors import StorageError
from outlast.kernel import keyslot

ENTROPY_BYTES: Final = 32
BODY_MAX_BYTES: Final = 2**31
FILE_MAX_BYTES: Final = BODY_MAX_BYTES + BODY_MAX_BYTES // 8
"""More than the largest backup file has."""
VERSION: Final = 1

_MAGIC: Final = b"outlast backup\n\0"
_BLOCK_BYTES: Final = 4096
_LENGTH_BYTES: Final = 4


class TableRows(msgspec.Struct, array_like=True, frozen=True):
    """All rows of one table; a cell is bytes, str, a 64-bit int, float or None."""

    columns: list[str]
    rows: list[list[Any]]


class RoomRows(msgspec.Struct, array_like=True, frozen=True):
    """A room's private rows by table, and the number of migrations that made the tables."""

    migrated: int
    tables: dict[str, TableRows]


class BackupDevice(msgspec.Struct, array_like=True, frozen=True):
    """A contact's device."""

    certificate: bytes
    accepted: bool
    warning: str | None
    prekey: bytes | None
    prekey_day: int | None


class BackupContact(msgspec.Struct, array_like=True, frozen=True):
    """A contact and their devices."""

    identity: bytes  # 32 B
    name: str
    verified_ms: int | None
    blocked: bool
    added_ms: int
    intro: bytes | None  # the intro secret of their link: by it a restored device makes itself known again
    devices: list[BackupDevice]


class BackupRevocation(msgspec.Struct, array_like=True, frozen=True):
    """A revocation of a device, own or of a contact, and when it came."""

    signed: bytes
    at_ms: int


class BackupHead(msgspec.Struct, array_like=True, frozen=True):
    """The last entry of an own device in a space."""

    device: bytes  # 32 B
    space: bytes  # 32 B
    seq: int
    clock: int
    id: bytes  # 32 B


class BackupBody(msgspec.Struct, array_like=True, frozen=True):
    """What is in a backup. Later versions append fields."""

    version: int
    made_ms: int
    entropy: bytes  # 32 B, the secret behind the 24 words
    name: str
    devices: list[bytes]  # certificates of this person's own devices, to be revoked after a restore
    contacts: list[BackupContact]
    rooms: dict[str, RoomRows]
    revoked: list[BackupRevocation]
    heads: list[BackupHead]


@dataclass(frozen=True, slots=True)
class BackupCounts:
    """What a trial restore reports: how much there is, and nothing of what it says."""

    made_ms: int
    name: str
    devices: int
    contacts: int
    rows: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BackupBody)


def seal_backup(body: BackupBody, passphrase: str, *, salt: bytes, nonce: bytes, cost: keyslot.Cost) -> bytes:
    """The backup file; ``salt`` (16 B) and ``nonce`` (24 B) must be random. Takes about a second at the usual cost.

    Raises UsageError for an empty passphrase, StorageError when there is too much for one file (2 GiB) or for memory.
    """
    data = _encoder.encode(body)
    if len(data) > BODY_MAX_BYTES:
        raise StorageError("there is more than 2 GiB to back up: delete old messages first")
    padded = len(data).to_bytes(_LENGTH_BYTES, "big") + data
    padded += bytes(_padded_size(len(padded)) - len(padded))
    return keyslot.seal(_MAGIC, padded, passphrase, salt=salt, nonce=nonce, cost=cost)


def open_backup(data: bytes, passphrase: str) -> BackupBody:
    """What a backup file holds.

    Raises LockedError when the passphrase is wrong; StorageError when the file is none, damaged, demands over 1 GiB of
    memory, or was made by a later version.
    """
    if data[: len(_MAGIC)] != _MAGIC:
        raise StorageError("this is no backup file: choose the one that `outlast backup` wrote")
    padded = keyslot.unseal(_MAGIC, data, passphrase)
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    body = padded[_LENGTH_BYTES : _LENGTH_BYTES + length]
    try:
        backup = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise StorageError("this backup was made by a newer Outlast: update this program") from None
    if backup.version != VERSION or len(backup.entropy) != ENTROPY_BYTES or len(body) != length:
        raise StorageError("this backup was made by a newer Outlast: update this program")
    for table in _tables(backup):
        if any(len(row) != len(table.columns) or not all(map(_is_cell, row)) for row in table.rows):
            raise StorageError("this backup has rows that no Outlast wrote: take another copy")
    return backup


def count(body: BackupBody) -> BackupCounts:
    """How much a backup holds, for a trial that restores nothing."""
    rows = sum(len(table.rows) for table in _tables(body))
    return BackupCounts(body.made_ms, body.name, len(body.devices), len(body.contacts), rows)


def _tables(body: BackupBody) -> Iterator[TableRows]:
    for room in body.rooms.values():
        yield from room.tables.values()


def _is_cell(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, (bytes, str, float))


def _padded_size(size: int) -> int:
    step = max(_BLOCK_BYTES, 1 << max(0, size.bit_length() - 5))
    return -(-size // step) * step
