"""Heap: the file beside the store's that holds the chunks of large content, each sealed in a slot of its own.

    slot = nonce 12 B || ChaCha20-Poly1305(length u32 || chunk, and zeros up to 65,540 B) 65,556 B

SQLite would write each chunk twice, page by page: into its log, then into its file. Here it is written once, and the
store knows which chunk stands in which slot. The order makes it durable: ``put``, then the store's commit; a slot is
put anew only after a commit by which nothing names it. The hash of a chunk is authenticated with its slot: one that was
put anew meanwhile, moved or taken from an older file shows. All slots look alike.

What is put leaves the system's page cache as soon as it is durable: films would push out what the node reads all the
time, and on a virtual machine that borrows its memory page by page each new page costs more than what is done with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, Self, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.kernel.database import complain, sync_folder
from outlast.kernel.entry import CHUNK_BYTES
from outlast.kernel.identity import derive

_LENGTH_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_PLAIN_BYTES: Final = _LENGTH_BYTES + CHUNK_BYTES
_SLOT_BYTES: Final = _NONCE_BYTES + _PLAIN_BYTES + 16
_LABEL: Final = b"outlast/heap/1"
_TOGETHER: Final = 16  # slots that are read or written at a time, where they follow each other: each call costs a turn
T = TypeVar("T")


class Heap:
    """An open heap, for any threads that put into different slots; a full or failing disk is StorageError."""

    def __init__(self, path: Path, descriptor: int, key: bytes) -> None:
        """Made by ``open`` alone."""
        self._path = path
        self._descriptor = descriptor
        self._cipher = ChaCha20Poly1305(derive(key, _LABEL))
        self._syncing = Lock()
        self._failures = 0

    @classmethod
    def open(cls, path: Path, key: bytes) -> Self:
        """Open the file, or make it (mode 0600); ``key`` is the store's (32 B)."""
        try:
            is_new = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if is_new:
                sync_folder(path.parent)
        except OSError as error:
            complain(error, path)
        return cls(path, descriptor, key)

    def put(self, chunks: Iterable[tuple[int, bytes, bytes | memoryview]]) -> None:
        """Write chunks of at most 64 KiB with their hashes (32 B) into slots, numbered from 1; durable on return."""
        failures = self._failures
        laid: list[int] = []
        plain, slots = bytearray(_PLAIN_BYTES), memoryview(bytearray(_TOGETHER * _SLOT_BYTES))
        try:
            for first, run in _runs((slot, (hash, chunk)) for slot, hash, chunk in chunks):
                nonces = os.urandom(_NONCE_BYTES * len(run))
                for number, (hash, chunk) in enumerate(run):
                    end = _LENGTH_BYTES + len(chunk)
                    plain[:_LENGTH_BYTES] = len(chunk).to_bytes(_LENGTH_BYTES, "big")
                    plain[_LENGTH_BYTES:end] = chunk
                    plain[end:] = bytes(_PLAIN_BYTES - end)
                    nonce = nonces[number * _NONCE_BYTES :][:_NONCE_BYTES]
                    slot = slots[number * _SLOT_BYTES :][:_SLOT_BYTES]
                    slot[:_NONCE_BYTES] = nonce
                    self._cipher.encrypt_into(nonce, plain, hash, slot[_NONCE_BYTES:])
                self._write(slots[: len(run) * _SLOT_BYTES], (first - 1) * _SLOT_BYTES)
                laid += range(first, first + len(run))
            with self._syncing:
                # The system tells one caller alone that something could not be written, whoever put it.
                if self._failures != failures:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                try:
                    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._descriptor)  # macOS has the latter
                except OSError:
                    self._failures += 1
                    raise
        except OSError as error:
            complain(error, self._path)
        self.let_go(laid)

    def _write(self, data: memoryview, at: int) -> None:
        while data:  # what is cut short by a disk that fills up fails as a whole the next time
            written = os.pwrite(self._descriptor, data, at)
            data, at = data[written:], at + written

    def get(self, chunks: Iterable[tuple[int, bytes]]) -> list[memoryview | None]:
        """The chunks with these hashes (32 B) in their slots; None where another one is, or it is damaged."""
        found: list[memoryview | None] = []
        for first, run in _runs(chunks):
            try:
                slots = memoryview(os.pread(self._descriptor, len(run) * _SLOT_BYTES, (first - 1) * _SLOT_BYTES))
            except OSError as error:
                complain(error, self._path)
            found += [self._open(slots[n * _SLOT_BYTES :][:_SLOT_BYTES], hash) for n, hash in enumerate(run)]
        return found

    def _open(self, slot: memoryview, hash: bytes) -> memoryview | None:
        try:
            plain = memoryview(self._cipher.decrypt(slot[:_NONCE_BYTES], slot[_NONCE_BYTES:], hash))
        except (InvalidTag, ValueError):
            return None
        return plain[_LENGTH_BYTES:][: int.from_bytes(plain[:_LENGTH_BYTES], "big")]

    def let_go(self, slots: Iterable[int]) -> None:
        """Say that what stands in these slots, which is durable, is not read again soon."""
        if not hasattr(os, "posix_fadvise"):
            return
        spans: list[list[int]] = []
        for slot in sorted(slots):
            if spans and slot == spans[-1][1]:
                spans[-1][1] += 1
            else:
                spans.append([slot, slot + 1])
        for first, end in spans:
            with suppress(OSError):  # filesystems need not listen
                at, size = (first - 1) * _SLOT_BYTES, (end - first) * _SLOT_BYTES
                os.posix_fadvise(self._descriptor, at, size, os.POSIX_FADV_DONTNEED)

    def shorten(self, slots: int) -> None:
        """Give the disk what stands behind so many slots."""
        try:
            if os.fstat(self._descriptor).st_size > slots * _SLOT_BYTES:
                os.ftruncate(self._descriptor, slots * _SLOT_BYTES)
        except OSError as error:
            complain(error, self._path)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _runs(slots: Iterable[tuple[int, T]]) -> Iterator[tuple[int, list[T]]]:
    """The slots that follow each other, as the first one and what belongs to each from there on."""
    first, run = 0, list[T]()
    for slot, content in slots:
        if run and (slot != first + len(run) or len(run) == _TOGETHER):
            yield first, run
            run = []
        first = slot if not run else first
        run.append(content)
    if run:
        yield first, run
