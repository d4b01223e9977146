"""Parcels: how a file for one person or a few travels without saying for whom. The wire is docs/spec/parcel.md.

A *parcel* is an entry of the one parcel space in which everything is constant or random, as in mail: its content is a
file, or a part of one, sealed under a key that a letter tells. The letter also tells name, size and which parcels there
are: their ids stand for every byte, so that nobody can exchange one. Parcels have few sizes. All nodes carry the
headers; the chunks travel like those of any content (``chunks``).

A file is cut into pieces of 65,520 bytes, filled up with zeros; each is sealed into a chunk of 64 KiB by
ChaCha20-Poly1305 with its number in the file as nonce. 2,048 chunks make a parcel, what is left over makes the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.errors import ProtocolError
from outlast.kernel.chunks import PLACES_MAX, Cut, padded
from outlast.kernel.entry import (
    CHUNK_BYTES,
    DAY_MS,
    HOUR_MS,
    Entry,
    Header,
    common_genesis,
    encode_header,
    entry_id,
    expiry_day,
)
from outlast.kernel.identity import SigningKey, derive
from outlast.kernel.log import loose_entry

PARCEL_KIND: Final = "parcel"
PARCEL_PRIORITY: Final = 7
PARCEL_LIFE_DAYS: Final = 30
PARCELS_MAX: Final = 64
"""Parcels of the largest file."""
KEY_BYTES: Final = 32
PLAIN_BYTES: Final = CHUNK_BYTES - 16
"""Of the file in each chunk."""
FILE_MAX_BYTES: Final = PARCELS_MAX * PLACES_MAX * PLAIN_BYTES
"""The largest file: 8 GiB but for the tags."""

PARCEL_GENESIS: Final = common_genesis(b"outlast/parcels/1")
"""The header that names the parcel space."""
PARCEL_SPACE: Final = entry_id(encode_header(PARCEL_GENESIS))

_LABEL: Final = b"outlast/parcel/1"
_LIFE_MS: Final = PARCEL_LIFE_DAYS * DAY_MS


class ParcelError(ProtocolError):
    """A parcel is altered, is another one than its letter names, or its key is wrong."""


def counts_of(size_bytes: int) -> list[int]:
    """How many chunks each parcel of a file of this size has."""
    full, rest = divmod(max(1, -(-size_bytes // PLAIN_BYTES)), PLACES_MAX)
    return [PLACES_MAX] * full + ([padded(rest)] if rest else [])


def is_wellformed_parcel(header: Header) -> bool:
    """Whether a header is as every parcel's: the admission rule of the parcel space."""
    count, rest = divmod(header.payload_size, CHUNK_BYTES)
    return (
        header.version == 1
        and header.kind == PARCEL_KIND
        and header.space == PARCEL_SPACE
        and header.seq == 0
        and header.prev is None
        and header.clock == 0
        and header.ts_ms % HOUR_MS == 0
        and header.expires_day == expiry_day(header.ts_ms, _LIFE_MS)
        and header.priority == PARCEL_PRIORITY
        and rest == 0
        and 0 < count <= PLACES_MAX
        and padded(count) == count
        and not header.tags
        and header.stamp_nonce == 0
    )


class Sealer:
    """Seals and opens the chunks of one file."""

    def __init__(self, key: bytes) -> None:
        """``key`` has 32 B at random, and is used for one file only."""
        self._cipher = ChaCha20Poly1305(derive(key, _LABEL))

    def seal(self, plain: bytes | memoryview, first: int) -> list[Cut]:
        """The chunks from number ``first`` of the file on, of pieces of 65,520 B; the last is filled up with zeros."""
        cuts: list[Cut] = []
        for at in range(0, len(plain), PLAIN_BYTES):
            piece = bytes(plain[at : at + PLAIN_BYTES])
            number = first + len(cuts)
            data = self._cipher.encrypt(_nonce(number), piece.ljust(PLAIN_BYTES, b"\0"), None)
            cuts.append(Cut(sha256(data).digest(), data))
        return cuts

    def open(self, chunk: bytes | memoryview, number: int) -> bytes:
        """The 65,520 B in the chunk of that number of the file; raises ParcelError."""
        try:
            return self._cipher.decrypt(_nonce(number), chunk, None)
        except (InvalidTag, ValueError):
            raise ParcelError("a part of this file is not what its sender sealed") from None


def make_parcel(author: SigningKey, chunks: Sequence[bytes], payload: bytes, now_ms: int) -> Entry:
    """The entry of a parcel, signed by a key that is used once; ``chunks`` are their hashes.

    ``payload`` is the manifest, or of a single chunk the chunk itself.
    """
    return loose_entry(
        author,
        space=PARCEL_SPACE,
        kind=PARCEL_KIND,
        payload=payload,
        size_bytes=len(chunks) * CHUNK_BYTES,
        ts_ms=now_ms - now_ms % HOUR_MS,
        life_ms=_LIFE_MS,
        priority=PARCEL_PRIORITY,
    )


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
