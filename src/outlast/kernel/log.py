"""One author's chain in one space: what comes next in it, what is beyond its head, and what has no place in any.

``seq`` and ``prev`` are evidence for people. They never block delivery, and of a fork both branches
are kept: every node that holds both can show the proof itself.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec

from outlast.kernel.entry import VERSION, Entry, Header, expiry_day, sign_entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.stamp import mint


class Head(NamedTuple):
    """The highest entry of a chain that is held here."""

    seq: int
    id: bytes  # 32 B


def is_beyond(head: Head | None, seq: int, id: bytes) -> bool:
    """Whether an entry of a chain is news to who knows its ``head``: behind it, or another one of the same number."""
    return head is None or seq > head.seq or (seq == head.seq and id != head.id)


def next_entry(
    author: SigningKey,
    head: Head | None,
    *,
    space: bytes,
    kind: str,
    payload: bytes,
    size_bytes: int | None = None,
    clock: int,
    ts_ms: int,
    life_ms: int,
    priority: int,
    stamp_bits: int = 0,
) -> Entry:
    """The signed entry that follows ``head`` in the author's chain of a space (32 B).

    ``size_bytes`` is that of the content whose manifest the ``payload`` is, None when it is the content itself.
    ``clock`` is its Lamport time, ``life_ms`` how long it is to be kept from ``ts_ms`` on; 0 = for ever.
    ``stamp_bits`` of work are spent on it (see ``stamp.mint``).
    """
    header = next_header(
        author.public,
        head,
        space=space,
        kind=kind,
        payload_size=len(payload) if size_bytes is None else size_bytes,
        clock=clock,
        ts_ms=ts_ms,
        life_ms=life_ms,
        priority=priority,
    )
    return finish_entry(author, header, payload, stamp_bits)


def next_header(
    author: bytes,
    head: Head | None,
    *,
    space: bytes,
    kind: str,
    payload_size: int,
    clock: int,
    ts_ms: int,
    life_ms: int,
    priority: int,
) -> Header:
    """The header of such an entry before its payload is known: zeros stand for the hash."""
    return Header(
        version=VERSION,
        space=space,
        kind=kind,
        author=author,
        seq=head.seq + 1 if head else 1,
        prev=head.id if head else None,
        clock=clock,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, life_ms) if life_ms else 0,
        priority=priority,
        payload_hash=bytes(32),
        payload_size=payload_size,
        tags=(),
        stamp_nonce=0,
    )


def loose_entry(
    author: SigningKey,
    *,
    space: bytes,
    kind: str,
    payload: bytes,
    size_bytes: int | None = None,
    ts_ms: int,
    life_ms: int,
    priority: int,
    stamp_bits: int = 0,
) -> Entry:
    """A signed entry outside of every chain: nothing in it says what else its author signed; see ``next_entry``."""
    header = next_header(
        author.public,
        None,
        space=space,
        kind=kind,
        payload_size=len(payload) if size_bytes is None else size_bytes,
        clock=0,
        ts_ms=ts_ms,
        life_ms=life_ms,
        priority=priority,
    )
    return finish_entry(author, msgspec.structs.replace(header, seq=0), payload, stamp_bits)


def finish_entry(author: SigningKey, header: Header, payload: bytes, stamp_bits: int = 0) -> Entry:
    """The entry of a header that stands but for its payload's hash, and its stamp if ``stamp_bits`` are to be spent."""
    payload_hash = sha256(payload).digest()
    nonce = mint(header.space, header.expires_day, header.author, payload_hash, stamp_bits) if stamp_bits else 0
    header = msgspec.structs.replace(header, payload_hash=payload_hash, stamp_nonce=nonce)
    return sign_entry(header, author, payload)
