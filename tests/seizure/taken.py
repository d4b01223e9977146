"""What somebody with the key reads in a taken home: every page and every file, also what was deleted.

SQLite3 Multiple Ciphers encrypts each page by ChaCha20 and authenticates it by Poly1305; the last 32 bytes of a page
are its nonce and tag. Taking the pages apart here, without SQLite, shows free pages, free room inside pages, and all
that is still in the write-ahead log, commits that were overwritten since included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.poly1305 import Poly1305

from outlast.kernel.home import Home

PAGE_BYTES = 4096
KEPT_BYTES = 32
"""Nonce and tag at the end of each page."""
CLEAR_BYTES = 24
"""The beginning of the first page: the salt, and what SQLite must know before it can decrypt."""
LOG_HEAD_BYTES = 32
FRAME_HEAD_BYTES = 24

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Opened:
    """An encrypted file, opened."""

    pages: list[bytes]
    """Each page of the file and each frame of its log, decrypted and authenticated."""
    tables: dict[str, list[Row]]
    """By table: all its rows, in the order of their columns."""
    columns: dict[str, list[str]]

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All bytes in it, each with a name of the place."""
        for number, page in enumerate(self.pages):
            yield f"page or frame {number}", page
        for table, rows in self.tables.items():
            for row in rows:
                yield f"table {table}", b"\0".join(_raw(value) for value in row)


@dataclass(frozen=True)
class Taken:
    """A home in other hands, with its passphrase."""

    store: Opened
    vaults: list[Opened]
    files: dict[str, bytes]
    """By path: every file as it lies there."""

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All bytes that can be had, each with a name of the place."""
        for opened in (self.store, *self.vaults):
            yield from opened.everything()
        for path, data in self.files.items():
            yield f"file {path}", path.encode() + b"\0" + data


def take(home: Path, passphrase: str | None) -> Taken:
    """Open a home as it was left, also by a process that was killed. The files are looked at before SQLite is."""
    files = {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    taken = Home(home)
    store = open_file(taken.store_path, taken.open_key(None, passphrase))
    vaults = [open_file(taken.vault_path(person), taken.open_key(person, passphrase)) for person in taken.people()]
    return Taken(store, vaults, files)


def open_file(path: Path, key: bytes) -> Opened:
    """Everything in an encrypted file and its log."""
    pages = list(_pages(path, key))
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("cipher", "chacha20")
        connection.pragma("key", f"raw:{key.hex()}")
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        tables: dict[str, list[Row]] = {}
        columns: dict[str, list[str]] = {}
        for name in ["sqlite_schema", *names]:
            columns[name] = [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (name,))]
            order = ", ".join(f'"{column}"' for column in columns[name])
            tables[name] = connection.execute(f'SELECT {order} FROM "{name}" ORDER BY {order}').fetchall()
    finally:
        connection.close(True)
    return Opened(pages, tables, columns)


def decrypt(page: bytes, number: int, key: bytes) -> bytes:
    """The content of a page; raises InvalidSignature when it is not one of this key at this place."""
    nonce = page[-KEPT_BYTES:-16]
    counter = int.from_bytes(nonce[12:], "little") ^ number
    once = _chacha(key, nonce, counter, bytes(64))
    Poly1305.verify_tag(once[:32], page[:-16], page[-16:])
    clear = CLEAR_BYTES if number == 1 else 0
    return page[:clear] + _chacha(once[32:], nonce, counter + 1, page[clear:-KEPT_BYTES])


def _pages(path: Path, key: bytes) -> Iterator[bytes]:
    data = path.read_bytes()
    for number in range(1, len(data) // PAGE_BYTES + 1):
        yield decrypt(data[(number - 1) * PAGE_BYTES : number * PAGE_BYTES], number, key)
    log = path.with_name(path.name + "-wal")
    frames = log.read_bytes() if log.exists() else b""
    size = FRAME_HEAD_BYTES + PAGE_BYTES
    for start in range(LOG_HEAD_BYTES, len(frames) - size + 1, size):
        number = int.from_bytes(frames[start : start + 4], "big")
        yield decrypt(frames[start + FRAME_HEAD_BYTES : start + size], number, key)


def _chacha(key: bytes, nonce: bytes, counter: int, data: bytes) -> bytes:
    start = (counter & 0xFFFFFFFF).to_bytes(4, "little") + nonce[:12]
    return Cipher(algorithms.ChaCha20(key, start), None).encryptor().update(data)


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
