"""Key slots: a 32-byte key wrapped under a passphrase, as a small file.

::

    slot = "outlast slot 1\\n" || passes u32 || KiB u32 || salt 16 B || nonce 24 B || XChaCha20-Poly1305(key) 48 B

The wrapping key is Argon2id (RFC 9106, version 1.3, one lane) of the passphrase in Unicode's NFC; everything before the
ciphertext is its associated data, so that nobody can lower the cost unseen.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outlast.errors import LockedError, StorageError, UsageError
from outlast.kernel.database import KEY_BYTES, sync_folder

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
MEMORY_MAX_KIB: Final = 1024 * 1024
"""A file that demands more than 1 GiB is refused: it was made to exhaust this machine."""
PASSES_MAX: Final = 64

_MAGIC: Final = b"outlast slot 1\n"
_COST: Final = struct.Struct(">II")
_HEAD_BYTES: Final = len(_MAGIC) + _COST.size + SALT_BYTES + NONCE_BYTES
_SLOT_BYTES: Final = _HEAD_BYTES + KEY_BYTES + 16


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: passes over ``memory_kib`` KiB."""

    passes: int = 3
    memory_kib: int = 256 * 1024


def cost_for(ram_bytes: int) -> Cost:
    """The cost on a machine with that much memory: 3 passes over 256 MiB, over 64 MiB below 2 GiB."""
    return Cost() if ram_bytes >= 2 * 1024**3 else Cost(memory_kib=64 * 1024)


def local_cost() -> Cost:
    """The cost on this machine."""
    return cost_for(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def stretch(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    """The 32-byte key of a passphrase; takes a second and ``cost.memory_kib`` of memory, and releases the GIL.

    Raises StorageError for a cost that no honest file has, and when the memory is not there.
    """
    from nacl.exceptions import CryptoError
    from nacl.pwhash import argon2id

    if not (1 <= cost.passes <= PASSES_MAX and 8 <= cost.memory_kib <= MEMORY_MAX_KIB):
        raise StorageError("this file demands more than 1 GiB of memory to open: it is not from an honest Outlast")
    try:
        return argon2id.kdf(
            KEY_BYTES,
            unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass"),
            salt,
            opslimit=cost.passes,
            memlimit=cost.memory_kib * 1024,
        )
    except (CryptoError, MemoryError):
        raise StorageError(f"opening this needs {cost.memory_kib // 1024} MiB of free memory: close programs") from None


def seal_slot(key: bytes, passphrase: str, *, salt: bytes, nonce: bytes, cost: Cost) -> bytes:
    """The slot (111 B, see the module) that holds ``key`` (32 B) under a passphrase.

    ``salt`` (16 B) and ``nonce`` (24 B) must be random. Raises UsageError for an empty passphrase.
    """
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

    if not passphrase:
        raise UsageError("an empty passphrase protects nothing: choose one of several words")
    if (len(key), len(salt), len(nonce)) != (KEY_BYTES, SALT_BYTES, NONCE_BYTES):
        raise ValueError("key, salt and nonce have 32, 16 and 24 bytes")
    head = _MAGIC + _COST.pack(cost.passes, cost.memory_kib) + salt + nonce
    return head + encrypt(key, head, nonce, stretch(passphrase, salt, cost))


def open_slot(slot: bytes, passphrase: str) -> bytes:
    """The 32-byte key of a slot; raises LockedError when the passphrase is wrong, StorageError when it is no slot."""
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
    from nacl.exceptions import CryptoError

    if len(slot) != _SLOT_BYTES or not slot.startswith(_MAGIC):
        raise StorageError("the key slot is damaged: restore from the backup file")
    head = slot[:_HEAD_BYTES]
    at = len(_MAGIC)
    cost = Cost(*_COST.unpack_from(head, at))
    at += _COST.size
    salt, nonce = head[at : at + SALT_BYTES], head[at + SALT_BYTES :]
    try:
        return decrypt(slot[_HEAD_BYTES:], head, nonce, stretch(passphrase, salt, cost))
    except CryptoError:
        raise LockedError("wrong passphrase: try again") from None


def write_secret(path: Path, data: bytes) -> None:
    """Write a small secret file whole or not at all, mode 0600, durable when this returns; raises StorageError."""
    draft = path.with_name(path.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; make room or check whose folder it is") from error


def wipe_secret(path: Path) -> None:
    """Overwrite a small secret file with random bytes, then zeros, make that durable, and remove it.

    On a disk with magnets this destroys the key. On flash (SSD, SD card, stick) the medium may keep the old bytes
    elsewhere: there only a passphrase nobody tells, or destroying the medium, protects. Raises StorageError.
    """
    try:
        size = path.stat().st_size
        with open(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0) as file:
            for content in (os.urandom(size), bytes(size)):
                file.seek(0)
                file.write(content)
                os.fsync(file.fileno())
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot wipe {path}: {error.strerror}; destroy the medium it is on") from error
