"""Spaces: what the genesis entry of a channel or group says, and whom it lets write.

A space is named by the id of its genesis, an entry of kind ``genesis`` whose own space field is
zeros. Open spaces can be read and carried by everybody. Spaces of other types name members; a node
that does not know their rules neither follows nor carries them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from outlast.errors import UsageError
from outlast.kernel.entry import (
    VERSION,
    Entry,
    Header,
    encode_header,
    entry_id,
    signing_input,
)
from outlast.kernel.identity import IdentityError, SigningKey, check_name, read_certificate
from outlast.kernel.kinds import Kind, KindError

NO_SPACE: Final = bytes(32)
"""The space field of a genesis."""
OPEN: Final = "open"
ANYONE: Final = "anyone"
WRITERS: Final = ("owner", ANYONE)
SIGNERS_MAX: Final = 16
NONCE_BYTES: Final = 16


class SpaceBody(msgspec.Struct, array_like=True, frozen=True):
    """What the owner says of a space once and for ever."""

    type: str  # "open", "members" or "sealed"
    name: str
    owner: bytes  # the device certificate of the genesis' author
    writers: str  # "owner" or "anyone": whose entries the view shows
    signers: tuple[bytes, ...]  # 32 B each: identities that confirm changes of the space
    nonce: bytes  # 16 B at random: two spaces of one owner and name differ


GENESIS: Final = Kind("genesis", SpaceBody, max_bytes=4096, max_life_days=0, priority=0)


def space_of(entry: Entry) -> bytes:
    """The space (32 B) that an entry belongs to: a genesis names its own by its id."""
    return entry.id if entry.header.space == NO_SPACE else entry.header.space


def make_genesis(owner: SigningKey, body: SpaceBody, ts_ms: int) -> Entry:
    """The genesis of a new space, signed by the device ``owner``; its ``id`` names the space.

    Raises UsageError when ``body`` is none that ``is_valid_genesis`` accepts.
    """
    payload = GENESIS.encode(body)
    header = Header(
        version=VERSION,
        space=NO_SPACE,
        kind=GENESIS.name,
        author=owner.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=0,
        priority=GENESIS.priority,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(),
        stamp_nonce=0,
    )
    data = encode_header(header)
    entry = Entry(header, data, owner.sign(signing_input(data)), entry_id(data), payload)
    if not is_valid_genesis(entry, body):
        raise UsageError("a channel needs a name, its owner's certificate and at most 16 signers")
    return entry


def read_genesis(entry: Entry) -> SpaceBody:
    """The body of a genesis whose payload is at hand; raises KindError when it is malformed."""
    if entry.header.kind != GENESIS.name or entry.payload is None:
        raise KindError("this is no genesis of a space")
    body: SpaceBody = GENESIS.decode(entry.payload)
    return body


def is_valid_genesis(entry: Entry, body: SpaceBody) -> bool:
    """Whether the genesis of an open space is whole and by the device that its certificate names.

    The signature over the entry itself is not checked here (see ``admit``).
    """
    h = entry.header
    try:
        fits = check_name(body.name) == body.name
        owner = read_certificate(body.owner).device
    except (UsageError, IdentityError):
        return False
    return (
        fits
        and owner == h.author
        and h.expires_day == h.seq == h.clock == 0
        and body.writers in WRITERS
        and len(body.nonce) == NONCE_BYTES
        and len(body.signers) <= SIGNERS_MAX
        and all(len(signer) == 32 for signer in body.signers)
    )
