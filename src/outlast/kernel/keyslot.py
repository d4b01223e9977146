"""Key slots: a 32-byte key, or a larger secret, sealed under a passphrase.

::

    head   = magic 16 B || passes u32 || memory in KiB u32 || salt 16 B || nonce 24 B
    sealed = head || XChaCha20-Poly1305(secret, key, nonce, associated data = head) || SHA-256(all before)[:8]
    key    = Argon2id (RFC 9106, version 1.3, one lane) of the passphrase in Unicode's NFC as UTF-8

The cost of a guess is thus authenticated: nobody can lower it unseen. The check at the end tells damage from a wrong
passphrase and protects nothing. A slot of one key has 120 bytes, one of two 152.
"""

from __future__ import annotations

import struct
import unicodedata
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from outlast.errors import LockedError, StorageError, UsageError

KEY_BYTES: Final = 32
SLOT_BYTES: Final = 120
PASSPHRASE_MIN_CHARS: Final = 8
MAGIC_BYTES: Final = 16
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
MEMORY_MAX_KIB: Final = 1024 * 1024
"""A file that demands more than 1 GiB is refused: it was made to exhaust this machine."""
PASSES_MAX: Final = 16

_SLOT_MAGIC: Final = b"outlast slot 1\n\0"
_COST: Final = struct.Struct(">II")
_SALT_AT: Final = MAGIC_BYTES + _COST.size
_NONCE_AT: Final = _SALT_AT + SALT_BYTES
_HEAD_BYTES: Final = _NONCE_AT + NONCE_BYTES
_TAG_BYTES: Final = 16
_CHECK_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: ``passes`` over ``memory_kib`` KiB."""

    passes: int = 3
    memory_kib: int = 256 * 1024


def cost_for(ram_bytes: int) -> Cost:
    """The cost on a machine with that much memory: 3 passes over 256 MiB, over 64 MiB below 2 GiB."""
    return Cost() if ram_bytes >= 2 * 1024**3 else Cost(memory_kib=64 * 1024)


def check_passphrase(passphrase: str) -> None:
    """Raise UsageError for one that is too short to be chosen: under 8 characters."""
    if len(passphrase) < PASSPHRASE_MIN_CHARS:
        raise UsageError(
            "a passphrase has at least %(least)s characters; several words are best", least=PASSPHRASE_MIN_CHARS
        )


def seal_slot(key: bytes, passphrase: str, *, salt: bytes, nonce: bytes, cost: Cost) -> bytes:
    """The slot that holds one key (32 B), or two, under a passphrase; see ``seal``."""
    if len(key) not in (KEY_BYTES, 2 * KEY_BYTES):
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    return seal(_SLOT_MAGIC, key, passphrase, salt=salt, nonce=nonce, cost=cost)


def open_slot(slot: bytes, passphrase: str) -> bytes:
    """The key of a slot, or both; raises LockedError when the passphrase is wrong, StorageError when it is no slot."""
    key = unseal(_SLOT_MAGIC, slot, passphrase)
    if len(key) not in (KEY_BYTES, 2 * KEY_BYTES):
        raise StorageError("this is no key slot: restore from the backup file")
    return key


def seal(magic: bytes, secret: bytes, passphrase: str, *, salt: bytes, nonce: bytes, cost: Cost) -> bytes:
    """A secret sealed under a passphrase, 88 bytes longer than it; takes about a second at the usual cost.

    ``magic`` (16 B) names the kind of file; ``salt`` (16 B) and ``nonce`` (24 B) must be random. Raises UsageError for
    an empty passphrase, StorageError when the memory is not there.
    """
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

    if not passphrase:
        raise UsageError("an empty passphrase protects nothing: choose one of several words")
    if (len(magic), len(salt), len(nonce)) != (MAGIC_BYTES, SALT_BYTES, NONCE_BYTES):
        raise ValueError("magic, salt and nonce have 16, 16 and 24 bytes")
    head = magic + _COST.pack(cost.passes, cost.memory_kib) + salt + nonce
    body = head + encrypt(secret, head, nonce, _stretch(passphrase, salt, cost))
    return body + sha256(body).digest()[:_CHECK_BYTES]


def unseal(magic: bytes, data: bytes, passphrase: str) -> bytes:
    """What was sealed; takes as long as sealing it did.

    Raises LockedError when the passphrase is wrong, StorageError when ``data`` is something else, damaged, or demands
    more memory than an honest file does.
    """
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
    from nacl.exceptions import CryptoError

    if data[:MAGIC_BYTES] != magic:
        raise StorageError("this file is not what it should be, or damaged: take another copy")
    body = data[:-_CHECK_BYTES]
    if len(body) < _HEAD_BYTES + _TAG_BYTES or sha256(body).digest()[:_CHECK_BYTES] != data[-_CHECK_BYTES:]:
        raise StorageError("this file is damaged or cut short: take another copy")
    head = body[:_HEAD_BYTES]
    cost = Cost(*_COST.unpack_from(head, MAGIC_BYTES))
    salt, nonce = head[_SALT_AT:_NONCE_AT], head[_NONCE_AT:]
    key = _stretch(passphrase, salt, cost)
    try:
        return decrypt(body[_HEAD_BYTES:], head, nonce, key)
    except CryptoError:
        raise LockedError("wrong passphrase: try again") from None


def _stretch(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    from nacl.exceptions import CryptoError
    from nacl.pwhash import argon2id

    if not (1 <= cost.passes <= PASSES_MAX and 8 <= cost.memory_kib <= MEMORY_MAX_KIB):
        raise StorageError("this file demands more than 1 GiB of memory: it is not from an honest Outlast")
    text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass")
    try:
        return argon2id.kdf(KEY_BYTES, text, salt, opslimit=cost.passes, memlimit=cost.memory_kib * 1024)
    except (CryptoError, MemoryError):
        raise StorageError(
            "this needs %(mib)s MiB of free memory: close other programs", mib=cost.memory_kib // 1024
        ) from None
