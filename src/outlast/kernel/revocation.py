"""Revocations: how a person ends a device of theirs, and tells contacts of another one.

A revocation is signed by the identity. It names the device, one space, and the last entry of the device that still
counts there; one for each space, since which spaces somebody speaks in is nobody's business. The one for the mail space
names no entry: it travels in letters, and from then on nothing is sealed to the device. Those for other spaces travel
there as entries of kind ``revoke``. A revocation is never taken back; of two the stricter one holds.

A letter of kind ``devices`` brings contacts what an identity says of its devices: new ones, and revocations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from outlast.kernel.entry import VERSION, Entry, Header
from outlast.kernel.identity import (
    Device,
    IdentityError,
    SigningKey,
    is_usable,
    read_certificate,
    verify,
    verify_prekey,
)
from outlast.kernel.kinds import Kind, KindError
from outlast.kernel.mail import CERTIFICATE_MAX_BYTES, MAIL_SPACE

REVOCATION_MAX_BYTES: Final = 256
TOLD_MAX: Final = 8
"""Devices, and revocations, in one letter."""

_DOMAIN: Final = b"outlast/revocation/1"
_U64: Final = 2**64


class RevocationBody(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What an identity says of a device that is no longer its own."""

    identity: bytes  # 32 B
    device: bytes  # 32 B
    space: bytes  # 32 B
    seq: int  # of the last entry of the device in the space that counts; 0 = none
    last: bytes | None  # 32 B, its id; nil exactly when seq is 0


class SignedRevocation(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A revocation's body, and the identity's signature over it."""

    body: bytes
    by_identity: bytes  # 64 B


class Revoke(msgspec.Struct, array_like=True, frozen=True):
    """An entry that carries a revocation into the space that it is for."""

    revocation: bytes


class Told(msgspec.Struct, array_like=True, frozen=True):
    """A device as its owner tells contacts of it."""

    certificate: bytes
    prekey: bytes  # 32 B
    prekey_day: int
    signature: bytes  # 64 B, of the prekey, by the device


class Devices(msgspec.Struct, array_like=True, frozen=True):
    """What a letter says of the devices of its sender."""

    added: list[Told]
    revoked: list[bytes]


REVOKE: Final = Kind("revoke", Revoke, max_bytes=REVOCATION_MAX_BYTES + 8, max_life_days=0, priority=0)
DEVICES: Final = Kind(
    "devices", Devices, max_bytes=TOLD_MAX * (CERTIFICATE_MAX_BYTES + 128 + REVOCATION_MAX_BYTES) + 16
)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revocation whose signature holds."""

    identity: bytes  # 32 B
    device: bytes  # 32 B
    space: bytes  # 32 B
    seq: int
    last: bytes | None  # 32 B
    signed: bytes  # as encoded

    def ends(self, author: bytes, device: bytes, seq: int, entry_id: bytes) -> bool:
        """Whether an entry of its space lies beyond it, by the identity and device (32 B each) that it is of."""
        is_theirs = (self.identity, self.device) == (author, device)
        return is_theirs and (seq == 0 or seq > self.seq or (seq == self.seq and entry_id != self.last))


_encode = msgspec.msgpack.Encoder().encode
_decode_signed = msgspec.msgpack.Decoder(SignedRevocation).decode
_decode_body = msgspec.msgpack.Decoder(RevocationBody).decode


def revoke(identity: SigningKey, device: bytes, space: bytes = MAIL_SPACE, seq: int = 0, last: bytes = b"") -> bytes:
    """An encoded revocation of a device (32 B) in a space; ``seq`` and ``last`` (32 B) name its last valid entry."""
    body = _encode(RevocationBody(identity.public, device, space, seq, last or None))
    return _encode(SignedRevocation(body, identity.sign(_DOMAIN + body)))


def read_revocation(data: bytes) -> Revocation:
    """The revocation in its encoding; raises IdentityError unless its form is the one form and its signature holds."""
    try:
        signed = _decode_signed(data) if len(data) <= REVOCATION_MAX_BYTES else None
        body = _decode_body(signed.body) if signed is not None else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        signed = body = None
    if signed is None or body is None or _encode(signed) != data or _encode(body) != signed.body:
        raise IdentityError("this is no revocation")
    is_sized = len(body.identity) == len(body.device) == len(body.space) == 32
    if not is_sized or not 0 <= body.seq < _U64 or (body.seq == 0) != (body.last is None):
        raise IdentityError("this is no revocation")
    if body.last is not None and (len(body.last) != 32 or body.space == MAIL_SPACE):
        raise IdentityError("this is no revocation")
    if not verify(body.identity, signed.by_identity, _DOMAIN + signed.body):
        raise IdentityError("the revocation is not signed by its identity")
    return Revocation(body.identity, body.device, body.space, body.seq, body.last, data)


def revocation_in(entry: Entry) -> Revocation | None:
    """The revocation that an entry of kind ``revoke`` carries into its space; None when it carries none for it.

    Who wrote the entry does not matter: the identity signed.
    """
    if entry.header.kind != REVOKE.name or entry.header.version != VERSION or entry.payload is None:
        return None
    return revocation_of(entry.payload, entry.header.space)


def revocation_of(payload: bytes, space: bytes) -> Revocation | None:
    """The revocation in the payload of a ``revoke`` of that space (32 B); None when there is none for it."""
    try:
        body: Revoke = REVOKE.decode(payload)
        found = read_revocation(body.revocation)
    except (KindError, IdentityError):
        return None
    return found if found.space == space else None


def is_ended(header: Header, entry_id: bytes, author: bytes, revocations: Iterable[Revocation]) -> bool:
    """Whether an entry lies beyond what a revocation leaves to its device, and so has no authority.

    ``author`` is the identity (32 B) that the entry's device speaks for: only its own revocations count. An entry
    outside of chains (``seq`` 0) shows no place, so none is left. The order of the revocations does not matter.
    """
    return any(
        one.space == header.space and one.ends(author, header.author, header.seq, entry_id) for one in revocations
    )


def tell(added: Sequence[Told], revoked: Sequence[bytes]) -> bytes:
    """The body of a letter ``devices``; raises KindError when there is too much for one."""
    if max(len(added), len(revoked)) > TOLD_MAX:
        raise KindError("a letter tells of at most %(most)s devices", most=TOLD_MAX)
    return DEVICES.encode(Devices(list(added), list(revoked)))


def read_told(body: bytes, identity: bytes) -> tuple[list[tuple[Device, bytes, int]], list[Revocation]]:
    """What a letter ``devices`` by somebody (identity, 32 B) says: (device, prekey, its day) of each, and revocations.

    What is malformed, or of another identity, is left out.
    """
    added: list[tuple[Device, bytes, int]] = []
    revoked: list[Revocation] = []
    try:
        told: Devices = DEVICES.decode(body)
    except KindError:
        return added, revoked
    for one in told.added[:TOLD_MAX]:
        try:
            device = read_certificate(one.certificate) if len(one.certificate) <= CERTIFICATE_MAX_BYTES else None
        except IdentityError:
            continue
        if device is None or device.identity != identity or len(one.prekey) != 32 or not is_usable(one.prekey):
            continue
        if one.prekey_day < 2**31 and verify_prekey(device.device, one.prekey, one.prekey_day, one.signature):
            added.append((device, one.prekey, one.prekey_day))
    for data in told.revoked[:TOLD_MAX]:
        try:
            found = read_revocation(data)
        except IdentityError:
            continue
        if found.identity == identity and found.space == MAIL_SPACE:
            revoked.append(found)
    return added, revoked
