"""Files on their way from a browser: they wait on this disk block by block, each sealed under a key in the vault.

A block stands there only whole, so what was acknowledged is never sealed again: a cut costs at most one block.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.errors import StorageError
from outlast.secrecy import make_private

BLOCK_BYTES: Final = 256 * 1024
_NONCE_BYTES: Final = 12
_RECORD_BYTES: Final = _NONCE_BYTES + BLOCK_BYTES + 16


class Waiting:
    """One file that waits. All but ``held_bytes`` belongs on a thread; raises StorageError."""

    def __init__(self, path: Path, key: bytes, size_bytes: int) -> None:
        """``key`` has 32 B at random and is used for this file only; ``size_bytes`` is its whole size."""
        self._path = path
        self._cipher = ChaCha20Poly1305(key)
        self.size_bytes = size_bytes
        self._last = (-1, b"")

    @property
    def held_bytes(self) -> int:
        """How much of it is here, from its beginning on: whole blocks, or all."""
        try:
            records = self._path.stat().st_size // _RECORD_BYTES
        except OSError:
            return 0
        return min(records * BLOCK_BYTES, self.size_bytes)

    def append(self, block: bytes) -> None:
        """The next block: of 256 KiB, only the last one may be shorter."""
        number = self.held_bytes // BLOCK_BYTES
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, block.ljust(BLOCK_BYTES, b"\0"), _name(number))
        try:
            make_private(self._path.parent)
            with open(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
                file.seek(number * _RECORD_BYTES)
                file.write(nonce + sealed)
        except OSError as error:
            raise StorageError("this part could not be kept: %(error)s", error=error) from error

    def settle(self) -> None:
        """Return when what was appended is durable."""
        try:
            with open(self._path, "r+b") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError("this part could not be kept: %(error)s", error=error) from error

    def read(self, start: int, size: int) -> bytes:
        """So many bytes from ``start`` on, fewer at the end."""
        end = min(start + size, self.size_bytes)
        parts = []
        while start < end:
            number, at = divmod(start, BLOCK_BYTES)
            part = self._block(number)[at : at + end - start]
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def drop(self) -> None:
        """Forget it."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError("cannot remove %(path)s: %(error)s", path=self._path.name, error=error) from error

    def _block(self, number: int) -> bytes:
        if self._last[0] == number:
            return self._last[1]
        try:
            with open(self._path, "rb") as file:
                file.seek(number * _RECORD_BYTES)
                record = file.read(_RECORD_BYTES)
            block = self._cipher.decrypt(record[:_NONCE_BYTES], record[_NONCE_BYTES:], _name(number))
        except (OSError, InvalidTag, ValueError) as error:
            raise StorageError("a part of this file is damaged on this disk: drop it, and send it anew") from error
        self._last = number, block
        return block


def _name(number: int) -> bytes:
    return number.to_bytes(8, "big")
