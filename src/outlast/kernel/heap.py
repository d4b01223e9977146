"""Heap: the file beside the store's that holds the chunks of large content, each sealed in a slot of its own.

    slot = nonce 12 B || ChaCha20-Poly1305(length u32 || chunk, and zeros up to 65,540 B) 65,556 B

SQLite would write each chunk twice, page by page: into its log, then into its file. Here it is written once, and the
store knows which chunk stands in which slot. The order makes it durable: ``put``, ``sync``, then the store's commit; a
slot is put anew only after a commit by which nothing names it. The hash of a chunk is authenticated with its slot: one
that was put anew meanwhile, moved or taken from an older file shows. All slots look alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

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


class Heap:
    """An open heap. One thread puts, any may get; methods raise StorageError when the disk is full or fails."""

    def __init__(self, path: Path, descriptor: int, key: bytes) -> None:
        """Made by ``open`` alone."""
        self._path = path
        self._descriptor = descriptor
        self._cipher = ChaCha20Poly1305(derive(key, _LABEL))
        self._synced = True

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

    def put(self, slot: int, hash: bytes, chunk: bytes | memoryview) -> None:
        """Write a chunk of at most 64 KiB with its hash (32 B) into a slot, numbered from 1; durable after ``sync``."""
        nonce = os.urandom(_NONCE_BYTES)
        plain = b"".join((len(chunk).to_bytes(_LENGTH_BYTES, "big"), chunk, bytes(CHUNK_BYTES - len(chunk))))
        sealed, at = nonce + self._cipher.encrypt(nonce, plain, hash), (slot - 1) * _SLOT_BYTES
        self._synced = False
        try:
            while sealed:  # what is cut short by a disk that fills up fails as a whole the next time
                written = os.pwrite(self._descriptor, sealed, at)
                sealed, at = sealed[written:], at + written
        except OSError as error:
            complain(error, self._path)

    def sync(self) -> None:
        """All that was put is durable when this returns."""
        if not self._synced:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                complain(error, self._path)
            self._synced = True

    def get(self, slot: int, hash: bytes) -> bytes | None:
        """The chunk with this hash (32 B) in a slot; None when another one is there, or it is damaged."""
        try:
            sealed = os.pread(self._descriptor, _SLOT_BYTES, (slot - 1) * _SLOT_BYTES)
        except OSError as error:
            complain(error, self._path)
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], memoryview(sealed)[_NONCE_BYTES:], hash)
        except (InvalidTag, ValueError):
            return None
        return plain[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(plain[:_LENGTH_BYTES], "big")]

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
