"""Stamps: work that an entry's author spent on it (Hashcash, Back 2002).

    bits = leading zero bits of SHA-256("outlast/stamp/1" || space || expires_day || author || payload_hash || nonce)

A stamp never opens the door: it only says what is let go later when room is short. It is bound to one entry, so that
it cannot be used again. Envelopes bear none, for all of them must look alike.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from outlast.kernel.entry import Header

STAMP_MAX_BITS: Final = 63
"""More is not counted."""
STAMP_BITS: Final = 12
"""What a node spends on an entry of its own where strangers may write: some 4,000 hashes."""
_DOMAIN: Final = b"outlast/stamp/1"


def strength(header: Header) -> int:
    """The strength of a header's stamp, 0 to 63; 0 without one."""
    if header.stamp_nonce == 0:
        return 0
    return _bits(
        sha256(
            _bound(header.space, header.expires_day, header.author, header.payload_hash)
            + header.stamp_nonce.to_bytes(8, "big")
        ).digest()
    )


def mint(space: bytes, expires_day: int, author: bytes, payload_hash: bytes, bits: int) -> int:
    """A nonce (1 to 2**64 - 1) whose stamp has at least ``bits``; takes about 2**bits hashes of 0.5 µs."""
    bound = sha256(_bound(space, expires_day, author, payload_hash))
    nonce = 0
    while True:
        nonce += 1
        digest = bound.copy()
        digest.update(nonce.to_bytes(8, "big"))
        if _bits(digest.digest()) >= bits:
            return nonce


def _bound(space: bytes, expires_day: int, author: bytes, payload_hash: bytes) -> bytes:
    return b"".join((_DOMAIN, space, expires_day.to_bytes(4, "big"), author, payload_hash))


def _bits(digest: bytes) -> int:
    return min(STAMP_MAX_BITS, 256 - int.from_bytes(digest, "big").bit_length())
