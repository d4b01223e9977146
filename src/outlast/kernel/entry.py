"""Entry: one signed header with its payload apart; canonical encoding and decoding.

A header is a msgpack array of 14 elements in fixed order, in msgpack's shortest forms::

    [version, space, kind, author, seq, prev, clock, ts_ms, expires_day,
     priority, payload_hash, payload_size, tags, stamp_nonce]

    id        = SHA-256("outlast/id/1" || header)
    signature = Ed25519(author, "outlast/entry/1" || header)

On a wire or in a file an entry is *packed*: ``u16 flag-and-length || header || signature || payload``. The top bit of
the first word says that the payload follows; its length is known from the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec

from outlast.errors import ProtocolError

if TYPE_CHECKING:
    from outlast.kernel.identity import SigningKey

VERSION: Final = 1
HEADER_MAX_BYTES: Final = 1024
PAYLOAD_MAX_BYTES: Final = 64 * 1024
"""Largest payload that travels as one piece; above it the payload is a manifest."""
INLINE_MAX_BYTES: Final = 1024
"""Largest payload that travels together with its header."""
CHUNK_BYTES: Final = 64 * 1024
CONTENT_MAX_BYTES: Final = CHUNK_BYTES * (PAYLOAD_MAX_BYTES // 32)
"""128 MiB: a manifest of 32-byte chunk hashes must fit into one payload."""
KIND_MAX_BYTES: Final = 32
TAGS_MAX: Final = 8
TAG_MAX_BYTES: Final = 32
CLOCK_MAX: Final = 2**53
"""No clock that somebody claims raises or outranks others beyond this: order then follows the times."""
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000

_ID_DOMAIN: Final = b"outlast/id/1"
_SIGN_DOMAIN: Final = b"outlast/entry/1"
_HAS_PAYLOAD: Final = 0x8000
_SIGNATURE_BYTES: Final = 64
_U64: Final = 2**64
_KIND = re.compile(r"[a-z][a-z0-9._-]*").fullmatch


class EntryError(ProtocolError):
    """The bytes are no canonical entry."""


class Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The signed part of an entry. Field order is the wire order."""

    version: int
    space: bytes  # 32 B, SHA-256 of the space's genesis header; zeros in a genesis itself
    kind: str
    author: bytes  # 32 B, Ed25519 device key
    seq: int  # 1, 2, ... for each author and space; 0 = no chain
    prev: bytes | None  # 32 B, id of seq - 1
    clock: int  # Lamport clock; a claim
    ts_ms: int  # UTC since 1970; a claim
    expires_day: int  # days since 1970, UTC; 0 = never
    priority: int  # 0 (alarms, keys) to 7
    payload_hash: bytes  # 32 B, SHA-256 of what travels as the payload
    payload_size: int  # bytes of content
    tags: tuple[bytes, ...]  # sorted, unique
    stamp_nonce: int


class Entry(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A header as decoded and as received, its signature, its id, and the payload if it is at hand."""

    header: Header
    header_bytes: bytes
    signature: bytes  # 64 B
    id: bytes  # 32 B
    payload: bytes | None


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_list_decoder = msgspec.msgpack.Decoder(list[object])


def day_of(ts_ms: int) -> int:
    """The UTC day number (days since 1970) of a time in milliseconds."""
    return ts_ms // DAY_MS


def expiry_day(ts_ms: int, life_ms: int) -> int:
    """The ``expires_day`` of something made at ``ts_ms`` that lives ``life_ms``: the first day on which it may go."""
    return (ts_ms + life_ms) // DAY_MS + 1


def travel_size(payload_size: int) -> int:
    """Bytes that travel as the payload: the content up to 64 KiB, above it the manifest (32 B for each 64 KiB)."""
    if payload_size <= PAYLOAD_MAX_BYTES:
        return payload_size
    return 32 * -(-payload_size // CHUNK_BYTES)


def encode_header(header: Header) -> bytes:
    """The canonical bytes of a header; raises EntryError when a field is out of its bounds."""
    _check(header)
    return _encoder.encode(header)


def entry_id(header_bytes: bytes) -> bytes:
    """The id of an entry: 32 bytes, SHA-256 of the domain and the header."""
    return sha256(_ID_DOMAIN + header_bytes).digest()


def common_genesis(payload: bytes) -> Header:
    """The header that names a space which every node has. It has no author and never travels."""
    return Header(
        version=1,
        space=bytes(32),
        kind="genesis",
        author=bytes(32),
        seq=0,
        prev=None,
        clock=0,
        ts_ms=0,
        expires_day=0,
        priority=0,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(),
        stamp_nonce=0,
    )


def signing_input(header_bytes: bytes) -> bytes:
    """The bytes that the author signs."""
    return _SIGN_DOMAIN + header_bytes


def sign_entry(header: Header, author: SigningKey, payload: bytes | None) -> Entry:
    """The entry of a header by the author whom it names; ``payload`` is None when it travels apart."""
    data = encode_header(header)
    return Entry(header, data, author.sign(signing_input(data)), entry_id(data), payload)


def decode_header(data: bytes) -> Header:
    """Decode a header and check that ``data`` is its one canonical form; raises EntryError.

    Headers of a higher version must keep the first 14 elements; what follows them is carried, not understood.
    """
    if len(data) > HEADER_MAX_BYTES:
        raise EntryError(
            "entry header has %(size)s bytes, at most %(most)s are allowed", size=len(data), most=HEADER_MAX_BYTES
        )
    try:
        header = _header_decoder.decode(data)
        if header.version == VERSION:
            canonical = _encoder.encode(header)
        else:
            canonical = _encoder.encode(_list_decoder.decode(data))
    except (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        raise EntryError("entry header cannot be decoded: %(error)s", error=error) from None
    if canonical != data:
        raise EntryError("entry header is not in its shortest form")
    _check(header)
    return header


def pack(entry: Entry) -> bytes:
    """The entry as it travels, with its payload if it is at hand."""
    word = len(entry.header_bytes) | (_HAS_PAYLOAD if entry.payload is not None else 0)
    return b"".join((word.to_bytes(2, "big"), entry.header_bytes, entry.signature, entry.payload or b""))


def pack_header(entry: Entry) -> bytes:
    """The entry as it travels without its payload."""
    return len(entry.header_bytes).to_bytes(2, "big") + entry.header_bytes + entry.signature


def unpack(data: bytes, offset: int = 0) -> tuple[Entry, int]:
    """The packed entry at ``offset`` and the offset behind it; raises EntryError, also when the bytes end too early.

    The payload's hash is checked, the signature is not (see ``admit``).
    """
    start = offset + 2
    word = int.from_bytes(data[offset:start], "big")
    header_end = start + (word & ~_HAS_PAYLOAD)
    body = header_end + _SIGNATURE_BYTES
    if len(data) < body or body == offset + 2 + _SIGNATURE_BYTES:
        raise EntryError("packed entry ends too early")
    header_bytes = data[start:header_end]
    header = decode_header(header_bytes)
    payload = None
    end = body
    if word & _HAS_PAYLOAD:
        end += travel_size(header.payload_size)
        payload = data[body:end]
        if len(data) < end:
            raise EntryError("packed entry ends too early")
        if sha256(payload).digest() != header.payload_hash:
            raise EntryError("payload does not match its hash")
    return Entry(header, header_bytes, data[header_end:body], entry_id(header_bytes), payload), end


def unpack_all(data: bytes) -> Iterator[Entry]:
    """All packed entries of a buffer in turn; raises EntryError at the first broken one."""
    offset = 0
    while offset < len(data):
        entry, offset = unpack(data, offset)
        yield entry


def _check(h: Header) -> None:
    if not 1 <= h.version < 128:
        raise EntryError("entry version must be 1 to 127")
    if len(h.space) != 32 or len(h.author) != 32 or len(h.payload_hash) != 32:
        raise EntryError("entry space, author and payload hash must be 32 bytes each")
    if len(h.kind) > KIND_MAX_BYTES or not _KIND(h.kind):
        raise EntryError("entry kind must be 1 to 32 characters of a-z 0-9 . _ - and begin with a letter")
    if (h.prev is None) != (h.seq <= 1) or (h.prev is not None and len(h.prev) != 32):
        raise EntryError("entry prev must be the 32-byte id of the entry before, and absent in the first")
    if not (0 <= h.seq < _U64 and 0 <= h.clock < _U64 and 0 <= h.ts_ms < 2**53 and 0 <= h.stamp_nonce < _U64):
        raise EntryError("entry numbers are out of range")
    if not (0 <= h.expires_day < 2**31 and 0 <= h.priority <= 7 and 0 <= h.payload_size <= CONTENT_MAX_BYTES):
        raise EntryError("entry expiry, priority or payload size is out of range")
    tags = h.tags
    if tags:
        if len(tags) > TAGS_MAX or any(not 1 <= len(tag) <= TAG_MAX_BYTES for tag in tags):
            raise EntryError(
                "entry has at most %(most)s tags of 1 to %(size)s bytes", most=TAGS_MAX, size=TAG_MAX_BYTES
            )
        if any(a >= b for a, b in pairwise(tags)):
            raise EntryError("entry tags must be sorted and unique")
