"""Somebody with keys of their own and no node, who follows no rule but those of the formats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import msgspec

from outlast.kernel import mail
from outlast.kernel.entry import Entry, day_of
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Certificate,
    Device,
    DeviceBody,
    SigningKey,
    certify,
    identity_key,
    read_certificate,
    sign_prekey,
)
from outlast.kernel.invite import make_link, read_link
from tests.kernel.society import NOTE, Note


class Forger:
    """A person without a program: what the formats can say, this one can write."""

    def __init__(self, name: str = "Mallory", identity: SigningKey | None = None) -> None:
        self.identity = identity or identity_key(os.urandom(32))
        self.signing = SigningKey.from_seed(os.urandom(32))
        self.seal = OpeningKey.from_secret(os.urandom(32))
        self.prekey = OpeningKey.from_secret(os.urandom(32))
        self.name = name
        self.device = self.certified()

    def certified(self, cross: SigningKey | None = None) -> Device:
        """The device as its certificate says, cross-signed by ``cross`` if given."""
        return read_certificate(certify(self.identity, self.signing, self.seal.public, 20_000, self.name, cross))

    def posing(self, device: bytes, seal: bytes) -> Device:
        """Somebody else's device key under this identity; that device has not signed."""
        body = msgspec.msgpack.encode(DeviceBody(self.identity.public, device, seal, 20_000, self.name))
        message = b"outlast/device/1" + body
        certificate = Certificate(body, self.identity.sign(message), self.signing.sign(message))
        return Device(self.identity.public, device, seal, 20_000, self.name, None, msgspec.msgpack.encode(certificate))

    def letter(self, body: bytes, now_ms: int, kind: str = NOTE.name, **more: object) -> mail.SealedLetter:
        """A letter of any contents."""
        fields: dict[str, object] = {
            "id": os.urandom(16),
            "kind": kind,
            "sent_ms": now_ms,
            "prekey": self.prekey.public,
            "prekey_day": day_of(now_ms),
            "body": body,
        }
        return mail.SealedLetter(**(fields | more))  # type: ignore[arg-type]

    def introduce(self, letter: mail.SealedLetter, link: str, now_ms: int, sender: Device | None = None) -> Entry:
        """The introduction of a letter to whoever gave the link."""
        invitation = read_link(link, today=day_of(now_ms))
        return mail.seal_introduction(
            letter,
            intro_secret=invitation.intro_secret,
            sender=sender or self.device,
            sender_seal=self.seal,
            receiver=invitation.device,
            counter=int.from_bytes(os.urandom(2), "big") % mail.INTRO_TAGS,
            prekey=invitation.prekey,
            now_ms=now_ms,
            rand=os.urandom,
        )

    def write(self, letter: mail.SealedLetter, link: str, now_ms: int, counter: int = 0) -> Entry:
        """A letter to somebody who knows this forger."""
        invitation = read_link(link, today=day_of(letter.sent_ms))
        return mail.seal_letter(
            letter,
            key=mail.direction_key(self.seal, self.device, invitation.device),
            counter=counter,
            sender=self.device,
            sender_seal=self.seal,
            receiver=invitation.device,
            prekey=invitation.prekey,
            now_ms=now_ms,
            rand=os.urandom,
        )

    def link(self, day: int, prekey: bytes | None = None, seal: bytes | None = None) -> str:
        """A contact link, with any keys in it."""
        key = prekey if prekey is not None else self.prekey.public
        certificate = self.device.certificate
        if seal is not None:
            body = msgspec.msgpack.encode(
                DeviceBody(self.identity.public, self.signing.public, seal, 20_000, self.name)
            )
            message = b"outlast/device/1" + body
            certificate = msgspec.msgpack.encode(
                Certificate(body, self.identity.sign(message), self.signing.sign(message))
            )
        return make_link(certificate, key, day, sign_prekey(self.signing, key, day), os.urandom(16))


def note(text: str) -> bytes:
    """The body of a note."""
    return msgspec.msgpack.encode(Note(text))


def garbage(like: Entry, count: int, size_bytes: int = 512) -> list[Entry]:
    """Well-formed envelopes with the tag and time of a real one, that nobody can open."""
    made = []
    for _ in range(count):
        author, payload = SigningKey.from_seed(os.urandom(32)), os.urandom(size_bytes)
        made.append(envelope(author, payload, like.header.tags[0], like.header.ts_ms))
    return made


def envelope(author: SigningKey, payload: bytes, tag: bytes, ts_ms: int) -> Entry:
    """An envelope around anything."""
    return mail._envelope(author, ts_ms, tag, payload)


@contextmanager
def unchecked() -> Iterator[None]:
    """Within the block letters are sealed that an honest program refuses to seal."""
    with patch.object(mail, "_check_letter", lambda _: None):
        yield
