"""Spaces: what the genesis entry of a channel or group says, and whom it lets write.

A space is named by the id of its genesis, an entry of kind ``genesis`` whose own space field is zeros. *Open* spaces
can be read and carried by everybody who knows their id. *Closed* ones are for members (``membership``), and sync only
between nodes of members: what *members* spaces hold stands readable in these nodes' stores, what *sealed* ones hold is
encrypted (``epoch``), their name and owner too.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from outlast.errors import UsageError
from outlast.kernel.entry import (
    HOUR_MS,
    VERSION,
    Entry,
    Header,
    sign_entry,
)
from outlast.kernel.epoch import SECRET_BYTES, commitment
from outlast.kernel.identity import IdentityError, SigningKey, check_name, derive, read_certificate
from outlast.kernel.kinds import Kind, KindError

NO_SPACE: Final = bytes(32)
"""The space field of a genesis."""
OPEN: Final = "open"
MEMBERS: Final = "members"
SEALED: Final = "sealed"
CLOSED: Final = (MEMBERS, SEALED)
"""Types of spaces that are for members."""
ANYONE: Final = "anyone"
WRITERS: Final = ("owner", ANYONE)
SIGNERS_MAX: Final = 16
NONCE_BYTES: Final = 16

_BOX_LABEL: Final = b"outlast/space/box/1"
_BOX_BYTES: Final = 1024
_BOX_NONCE: Final = bytes(24)


class SpaceBody(msgspec.Struct, array_like=True, frozen=True):
    """What the owner says of a space once and for ever.

    In a sealed space name, owner and signers are empty, and stand in ``box`` alone.
    """

    type: str  # "open", "members" or "sealed"
    name: str
    owner: bytes  # the device certificate of the genesis' author
    writers: str  # "owner" or "anyone": whose entries the view shows; in closed spaces "anyone" means any member
    signers: tuple[bytes, ...]  # 32 B each: identities that confirm changes of the space
    nonce: bytes  # 16 B at random: two spaces of one owner and name differ
    commitment: bytes = b""  # of a closed space: 32 B, to the secret of its first epoch
    box: bytes = b""  # of a sealed space: the body of a members-only one, padded and encrypted


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
    entry = sign_entry(header, owner, payload)
    if not is_valid_genesis(entry, body):
        raise UsageError("a channel needs a name, its owner's certificate and at most 16 signers")
    return entry


def make_closed_genesis(
    owner: SigningKey, certificate: bytes, name: str, type: str, ts_ms: int, *, secret: bytes, nonce: bytes
) -> Entry:
    """The genesis of a closed space of that type, whose first epoch has this secret (32 B); ``nonce`` has 16 B."""
    body = SpaceBody(MEMBERS, check_name(name), certificate, "anyone", (), nonce, commitment(secret))
    if type == SEALED:
        plain = msgspec.msgpack.encode(body)
        padded = (len(plain).to_bytes(2, "big") + plain).ljust(_BOX_BYTES, b"\0")
        box = crypto_aead_xchacha20poly1305_ietf_encrypt(
            padded, owner.public, _BOX_NONCE, derive(secret, _BOX_LABEL, nonce)
        )
        body = SpaceBody(SEALED, "", b"", "anyone", (), nonce, commitment(secret), box)
        ts_ms -= ts_ms % HOUR_MS
    return make_genesis(owner, body, ts_ms)


def read_genesis(entry: Entry) -> SpaceBody:
    """The body of a genesis whose payload is at hand; raises KindError when it is malformed, or stands in a space."""
    if (entry.header.kind, entry.header.space) != (GENESIS.name, NO_SPACE) or entry.payload is None:
        raise KindError("this is no genesis of a space")
    body: SpaceBody = GENESIS.decode(entry.payload)
    return body


def open_genesis(entry: Entry, secret: bytes) -> SpaceBody:
    """The body of a closed space's genesis by the secret (32 B) of its first epoch, of a sealed one what is in its box.

    Raises KindError when it is no valid one, or the secret is another one.
    """
    body = read_genesis(entry)
    if body.type not in CLOSED or not is_valid_genesis(entry, body) or body.commitment != commitment(secret):
        raise KindError("this is no genesis of a closed group, or its secret is another one")
    if body.type == MEMBERS:
        return body
    key = derive(secret, _BOX_LABEL, body.nonce)
    try:
        plain = crypto_aead_xchacha20poly1305_ietf_decrypt(body.box, entry.header.author, _BOX_NONCE, key)
    except (CryptoError, ValueError):
        raise KindError("the group's beginning is altered") from None
    inner: SpaceBody = GENESIS.decode(plain[2 : 2 + int.from_bytes(plain[:2], "big")])
    same = (inner.nonce, inner.commitment, inner.box) == (body.nonce, body.commitment, b"")
    if inner.type != MEMBERS or not same or not is_valid_genesis(entry, inner):
        raise KindError("the group's beginning is malformed")
    return inner


def is_valid_genesis(entry: Entry, body: SpaceBody) -> bool:
    """Whether a genesis is whole and by the device that its certificate names.

    The signature over the entry itself is not checked here (see ``admit``), nor what is in the box of a sealed one.
    """
    h = entry.header
    if body.type == SEALED:
        named = (
            (body.name, body.owner, body.signers) == ("", b"", ())
            and len(body.box) == _BOX_BYTES + 16
            and h.ts_ms % HOUR_MS == 0
        )
    else:
        try:
            named = check_name(body.name) == body.name and read_certificate(body.owner).device == h.author
        except (UsageError, IdentityError):
            return False
        named = named and not body.box
    return (
        named
        and body.type in (OPEN, *CLOSED)
        and len(body.commitment) == (SECRET_BYTES if body.type in CLOSED else 0)
        and h.expires_day == h.seq == h.clock == 0
        and body.writers in WRITERS
        and len(body.nonce) == NONCE_BYTES
        and len(body.signers) <= SIGNERS_MAX
        and all(len(signer) == 32 for signer in body.signers)
    )
