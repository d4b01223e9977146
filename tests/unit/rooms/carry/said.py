"""Channels, posts and letters for carry's tests: signed by people whose keys come from their names."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from outlast.kernel.entry import DAY_MS, Entry, Header, expiry_day, sign_entry
from outlast.kernel.identity import SigningKey, certify
from outlast.kernel.revocation import REVOKE, Revoke, revoke
from outlast.kernel.room import Letter
from outlast.kernel.space import OPEN, SpaceBody, make_genesis
from outlast.rooms.carry.entries import DEVICE, HIDE, POST, TEXT, ChannelDevice, Hide, Post, Text
from tests.unit.kernel.people import NOW_MS, Person, person, secret

OWNER = person("owner")
STRANGER = person("stranger")
SECOND = SigningKey.from_seed(secret("owner", "second device"))
SECOND_CERTIFICATE = certify(OWNER.identity, SECOND, secret("seal"), 20_000, "owner")


def channel(
    name: str = "News",
    *,
    owner: Person = OWNER,
    writers: str = "owner",
    at_ms: int = NOW_MS,
    signers: Sequence[Person] | None = None,
) -> Entry:
    """The genesis of a channel; unless others are named, its one signer is its owner."""
    named = tuple(one.identity.public for one in ((owner,) if signers is None else signers))
    body = SpaceBody(OPEN, name, owner.device.certificate, writers, named, secret(name)[:16])
    return make_genesis(owner.signing, body, at_ms)


def entry(
    author: SigningKey,
    space: bytes,
    kind: str,
    payload: bytes | None,
    *,
    number: int = 0,
    clock: int = 1,
    at_ms: int = NOW_MS,
    life_days: int = 30,
    seq: int = 0,
) -> Entry:
    """A signed entry; ``number`` makes it another one."""
    content = payload or b""
    header = Header(
        version=1,
        space=space,
        kind=kind,
        author=author.public,
        seq=seq,
        prev=None if seq <= 1 else secret("prev"),
        clock=clock,
        ts_ms=at_ms,
        expires_day=expiry_day(at_ms, life_days * DAY_MS),
        priority=2,
        payload_hash=sha256(content).digest(),
        payload_size=len(content),
        tags=(),
        stamp_nonce=number,
    )
    return sign_entry(header, author, payload)


def post(
    space: Entry | bytes,
    text: str = "hello",
    *,
    author: SigningKey = OWNER.signing,
    clock: int = 1,
    at_ms: int = NOW_MS,
    reply_to: bytes | None = None,
    seq: int = 0,
) -> Entry:
    """A post in a channel."""
    where = space if isinstance(space, bytes) else space.id
    payload = POST.encode(Post(text, reply_to))
    return entry(author, where, POST.name, payload, clock=clock, at_ms=at_ms, seq=seq)


def hide(space: Entry, what: Entry, *, author: SigningKey = OWNER.signing, at_ms: int = NOW_MS, seq: int = 0) -> Entry:
    """The removal of a post."""
    return entry(author, space.id, HIDE.name, HIDE.encode(Hide(what.id)), at_ms=at_ms, life_days=60, seq=seq)


def ended(space: Entry, last: Entry | None, *, identity: SigningKey = OWNER.identity, number: int = 0) -> Entry:
    """The owner's first device is ended behind ``last``, as an entry by the second one says."""
    at = (last.header.seq, last.id) if last else (0, b"")
    payload = REVOKE.encode(Revoke(revoke(identity, OWNER.signing.public, space.id, *at)))
    return entry(SECOND, space.id, REVOKE.name, payload, number=number)


def device(
    space: Entry, certificate: bytes = SECOND_CERTIFICATE, *, author: SigningKey = SECOND, seq: int = 0
) -> Entry:
    """A device of the owner's comes to speak for them."""
    return entry(author, space.id, DEVICE.name, DEVICE.encode(ChannelDevice(certificate)), life_days=60, seq=seq)


def letter(
    number: int,
    text: str = "hello",
    *,
    sender: bytes = OWNER.identity.public,
    sent_ms: int = NOW_MS,
    received_ms: int = NOW_MS + 1000,
    reply_to: bytes | None = None,
) -> Letter:
    """An opened letter of the kind that carry reads."""
    body = msgspec.msgpack.encode(Text(text, reply_to))
    return Letter(secret("letter", number)[:16], TEXT.name, body, sent_ms, sender, OWNER.device.device, received_ms)
