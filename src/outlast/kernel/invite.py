"""Invitations: links and QR text by which people and channels are found.

A contact link holds what the first letter needs: a certified device, its prekey signed by that
device, and the secret of introductions. A channel link holds the channel's id and the name it went
by. Both are text of one scheme, ``outlast://``, with msgpack in base64url behind it
(docs/spec/mail.md); a QR code holds the same text. Whoever sees a contact link can write to its
owner, and learns the owner's identity.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from outlast.errors import ProtocolError, UsageError
from outlast.kernel.identity import (
    Device,
    IdentityError,
    check_name,
    is_usable,
    parse_space,
    read_certificate,
    space_text,
    verify_prekey,
)

LINK_MAX_CHARS: Final = 2000
LINK_LIFE_DAYS: Final = 90
"""How long after its prekey's day a contact link is taken."""
LINK_VERSION: Final = 1
INTRO_SECRET_BYTES: Final = 16

_SCHEME: Final = "outlast://"
_CONTACT: Final = "outlast://contact/"
_CHANNEL: Final = "outlast://channel/"
# What mail programs and people put around and into a link, and no link contains.
_AROUND: Final = "<>()[]{}\"'`“”„«».,;:!"


class InviteError(ProtocolError):
    """A link is damaged, or signed by another than it says."""


class Invitation(NamedTuple):
    """What a contact link says; every signature in it holds."""

    device: Device
    prekey: bytes  # 32 B, X25519
    prekey_day: int
    intro_secret: bytes  # 16 B


class ChannelInvitation(NamedTuple):
    """What a channel link says. The name is a claim of whoever made the link."""

    space: bytes  # 32 B
    name: str


class _Contact(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: int
    certificate: bytes
    prekey: bytes
    prekey_day: int
    signature: bytes
    intro_secret: bytes


class _Channel(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    version: int
    space: bytes
    name: str


_Body = TypeVar("_Body", _Contact, _Channel)


def make_link(certificate: bytes, prekey: bytes, prekey_day: int, prekey_signature: bytes, intro_secret: bytes) -> str:
    """The contact link of a device: its certificate, signed prekey (32 B), intro secret (16 B)."""
    body = _Contact(LINK_VERSION, certificate, prekey, prekey_day, prekey_signature, intro_secret)
    return _to_text(_CONTACT, body)


def read_link(text: str, *, today: int) -> Invitation:
    """What a contact link says; white space and line breaks from mail programs are passed over.

    Raises UsageError when the text is no contact link, is incomplete, or expired before ``today``
    (days since 1970); InviteError when a signature in it does not hold.
    """
    body = _from_text(_CONTACT, text, _Contact)
    try:
        device = read_certificate(body.certificate)
    except IdentityError as error:
        raise InviteError("the contact link is not usable: %(error)s", error=error) from None
    if not verify_prekey(device.device, body.prekey, body.prekey_day, body.signature):
        raise InviteError("the contact link is damaged: its device did not sign it; ask for a new link")
    if len(body.prekey) != 32 or len(body.intro_secret) != INTRO_SECRET_BYTES or not is_usable(body.prekey):
        raise InviteError("the contact link is damaged: its keys are not usable")
    if today > body.prekey_day + LINK_LIFE_DAYS:
        raise UsageError("this contact link has expired; ask for a new link")
    return Invitation(device, body.prekey, body.prekey_day, body.intro_secret)


def make_channel_link(space: bytes, name: str) -> str:
    """The link of a channel (32 B) with the name it goes by; raises UsageError for a bad name."""
    return _to_text(_CHANNEL, _Channel(LINK_VERSION, space, check_name(name)))


def read_channel_link(text: str) -> ChannelInvitation:
    """What a channel link says; raises UsageError when the text is none or is incomplete."""
    body = _from_text(_CHANNEL, text, _Channel)
    if len(body.space) != 32:
        raise InviteError("the channel link is damaged: its id has the wrong length")
    return ChannelInvitation(body.space, check_name(body.name))


def parse_channel(text: str) -> ChannelInvitation:
    """What a channel's link says, or its ID with the name that an ID gives; raises UsageError when it is neither."""
    if _SCHEME in text.lower():
        return read_channel_link(text)
    space = parse_space(text.strip())
    return ChannelInvitation(space, space_text(space)[:8])


def _to_text(prefix: str, body: msgspec.Struct) -> str:
    text = prefix + base64.urlsafe_b64encode(msgspec.msgpack.encode(body)).decode().rstrip("=")
    if len(text) > LINK_MAX_CHARS:
        raise UsageError(
            "a link has at most %(most)s characters, this has %(size)s", most=LINK_MAX_CHARS, size=len(text)
        )
    return text


def _from_text(prefix: str, text: str, form: type[_Body]) -> _Body:
    try:
        return _from_link(prefix, text, form)
    except UsageError:
        # In a message with words before or after it, the link is one of the words.
        word = next((word for word in text.split() if prefix in word.lower()), text)
        if word == text.strip():
            raise
        return _from_link(prefix, word, form)


def _from_link(prefix: str, text: str, form: type[_Body]) -> _Body:
    # Programs break long lines, and put "=", soft hyphens or zero-width characters where they do.
    text = "".join(c for c in text if c.isprintable() and c not in " =")
    found = re.search(re.escape(prefix), text, re.ASCII | re.IGNORECASE)
    if found is None:
        raise UsageError("this is not the link: it begins with %(prefix)s; copy it whole", prefix=prefix)
    text = text[found.start() :].strip(_AROUND)
    if len(text) > LINK_MAX_CHARS:
        raise UsageError(
            "a link has at most %(most)s characters, this has %(size)s", most=LINK_MAX_CHARS, size=len(text)
        )
    data = text[len(prefix) :].encode()
    try:
        raw = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
        fields = msgspec.msgpack.decode(raw, type=list[Any])
        if fields and isinstance(fields[0], int) and fields[0] > LINK_VERSION:
            raise UsageError("this link was made by a newer Outlast: update this one to read it")
        body = msgspec.convert(fields, type=form)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, RecursionError):
        raise UsageError("this link is incomplete or damaged; copy it whole") from None
    if body.version != LINK_VERSION:
        raise UsageError("this link is incomplete or damaged; copy it whole")
    return body
