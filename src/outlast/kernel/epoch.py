"""Epochs: the keys of a closed space, and what is sealed under them.

Each epoch has a secret of 32 random bytes, made by whoever begins it and told to the members by mail; its act (or the
genesis) carries a commitment to it, so that nobody can pass on a wrong one. A *key* is made of the secrets of all
epochs that are current together (``membership``). Of a key come the access key, by which nodes of members show each
other that they may speak of the space (``sync``), and the sealing key of its entries.

A sealed entry shows its author's device, its place in that device's chain, the hour and the rough size; its kind, its
priority and all else are the same for all. Sealed together with its content are the true kind and time. The header is
bound to it: no part of one entry can stand in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from outlast.errors import ProtocolError
from outlast.kernel.entry import (
    DAY_MS,
    HOUR_MS,
    PAYLOAD_MAX_BYTES,
    VERSION,
    Entry,
    Header,
    encode_header,
    expiry_day,
)
from outlast.kernel.identity import SigningKey, derive
from outlast.kernel.log import Head, finish_entry, next_header

SECRET_BYTES: Final = 32
SEALED_KIND: Final = "sealed"
SEALED_PRIORITY: Final = 1
SEALED_LIFE_DAYS: Final = 90
SEALED_CLASSES: Final = (512, 1024, 4096, 16384, PAYLOAD_MAX_BYTES)
"""The sizes that a sealed payload can have, in bytes."""
LASTING_MAX_BYTES: Final = 4096
"""Largest payload of a sealed entry that never expires: membership is small, and nothing else lasts."""
EPOCHS_MAX: Final = 16
"""Epochs whose secrets one key is made of."""

_NONCE_BYTES: Final = 24
_TAG_BYTES: Final = 16
_COMMIT_DOMAIN: Final = b"outlast/epoch/1"
_KEY_LABEL: Final = b"outlast/epoch/key/1"
_ACCESS_LABEL: Final = b"outlast/epoch/access/1"
_SEAL_LABEL: Final = b"outlast/epoch/seal/1"

Rand = Callable[[int], bytes]
"""Returns that many random bytes; ``os.urandom`` outside of tests."""


class EpochError(ProtocolError):
    """Something sealed is malformed, altered, or of an epoch whose secret is not known here."""


class Inner(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What is sealed in an entry."""

    kind: str
    ts_ms: int
    body: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_inner_decoder: Final = msgspec.msgpack.Decoder(Inner)


def commitment(secret: bytes) -> bytes:
    """What the act that begins an epoch says of its secret: 32 bytes that fit no other one."""
    return sha256(_COMMIT_DOMAIN + secret).digest()


def epoch_key(space: bytes, secrets: Mapping[bytes, bytes]) -> bytes:
    """The key (32 B) of epochs (ids, 32 B each) that are current together, by the secret of each."""
    joined = b"".join(epoch + secret for epoch, secret in sorted(secrets.items()))
    return derive(joined, _KEY_LABEL, space)


def access_key(key: bytes) -> bytes:
    """What members' nodes name the space by (32 B); of an ``epoch_key``."""
    return derive(key, _ACCESS_LABEL)


def is_wellformed_sealed(header: Header) -> bool:
    """Whether a header is as every one in a sealed space: the admission rule there."""
    if header.expires_day:
        lasts = header.expires_day <= expiry_day(header.ts_ms, SEALED_LIFE_DAYS * DAY_MS)
    else:
        lasts = header.payload_size <= LASTING_MAX_BYTES
    return (
        lasts
        and header.version == VERSION
        and header.kind == SEALED_KIND
        and header.priority == SEALED_PRIORITY
        and header.seq > 0
        and header.ts_ms % HOUR_MS == 0
        and header.payload_size in SEALED_CLASSES
        and header.tags == ()
        and header.stamp_nonce == 0
    )


def seal_entry(
    author: SigningKey,
    head: Head | None,
    inner: Inner,
    *,
    space: bytes,
    secrets: Mapping[bytes, bytes],
    clock: int,
    life_ms: int,
    rand: Rand,
) -> Entry:
    """The signed entry that follows ``head`` in the author's chain of a sealed space, with ``inner`` in it.

    ``secrets`` are those of the current epochs, by their ids. Raises EpochError when the content is too large.
    """
    plain = _encoder.encode(inner)
    epochs = sorted(secrets)
    if not 0 < len(epochs) <= EPOCHS_MAX:
        raise EpochError("the members of this group changed too often at once: an admin must renew its key first")
    around = 1 + 32 * len(epochs) + _NONCE_BYTES + 4 + _TAG_BYTES
    size = next((size for size in SEALED_CLASSES if around + len(plain) <= size), None)
    if size is None or (not life_ms and size > LASTING_MAX_BYTES):
        raise EpochError(
            "an entry of a sealed group holds less: this has %(size)s bytes, make it shorter", size=len(plain)
        )
    header = next_header(
        author.public,
        head,
        space=space,
        kind=SEALED_KIND,
        payload_size=size,
        clock=clock,
        ts_ms=inner.ts_ms - inner.ts_ms % HOUR_MS,
        life_ms=life_ms,
        priority=SEALED_PRIORITY,
    )
    nonce = rand(_NONCE_BYTES)
    padded = (len(plain).to_bytes(4, "big") + plain).ljust(size - around + 4, b"\0")
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
        padded, _bound(header), nonce, derive(epoch_key(space, secrets), _SEAL_LABEL)
    )
    return finish_entry(author, header, bytes((len(epochs),)) + b"".join(epochs) + nonce + sealed)


def epochs_of(entry: Entry) -> Sequence[bytes]:
    """The epochs (32 B each) under which an entry is sealed; raises EpochError when it is no sealed one."""
    payload = entry.payload
    if payload is None or not is_wellformed_sealed(entry.header):
        raise EpochError("this is no sealed entry, or its content has not arrived yet")
    count = payload[0]
    epochs = [payload[1 + 32 * n : 33 + 32 * n] for n in range(min(count, EPOCHS_MAX))]
    if not 0 < count <= EPOCHS_MAX or epochs != sorted(set(epochs)):
        raise EpochError("the sealed entry names no epochs")
    return epochs


def open_entry(entry: Entry, secrets: Mapping[bytes, bytes]) -> Inner:
    """What is sealed in an entry, by the secrets of the epochs that are known here.

    The entry's signature must have been verified (``admit``). Raises EpochError.
    """
    epochs = epochs_of(entry)
    if not all(epoch in secrets for epoch in epochs):
        raise EpochError("the key of this entry is not known here")
    payload, start = entry.payload or b"", 1 + 32 * len(epochs)
    key = epoch_key(entry.header.space, {epoch: secrets[epoch] for epoch in epochs})
    try:
        plain = crypto_aead_xchacha20poly1305_ietf_decrypt(
            payload[start + _NONCE_BYTES :],
            _bound(entry.header),
            payload[start : start + _NONCE_BYTES],
            derive(key, _SEAL_LABEL),
        )
        end = 4 + int.from_bytes(plain[:4], "big")
        if end > len(plain) or any(plain[end:]):
            raise EpochError("the sealed entry is malformed")
        inner = _inner_decoder.decode(plain[4:end])
    except (CryptoError, ValueError, msgspec.MsgspecError, UnicodeError, RecursionError):
        raise EpochError("the sealed entry is altered or malformed") from None
    if not 0 <= inner.ts_ms - entry.header.ts_ms < HOUR_MS:
        raise EpochError("the sealed entry is dated outside of its hour")
    return inner


def _bound(header: Header) -> bytes:
    """All of a header but what only the finished payload determines."""
    return encode_header(msgspec.structs.replace(header, payload_hash=bytes(32)))
