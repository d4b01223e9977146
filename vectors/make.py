"""Writes entry.json, identity.json, mail.json and bundle.json: python vectors/make.py

All keys and random bytes are SHA-256 of short texts, so that every run writes the same files. A
change of a file is a change of the wire, and needs a new version there.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from outlast.kernel import mail
from outlast.kernel.bundle import BundleWriter, Content
from outlast.kernel.entry import (
    Entry,
    Header,
    encode_header,
    entry_id,
    pack,
    pack_header,
    signing_input,
)
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Certificate,
    Device,
    DeviceBody,
    SigningKey,
    certify,
    derive,
    fingerprint_words,
    id_text,
    identity_key,
    node_text,
    read_certificate,
    sign_prekey,
    space_text,
    words_of,
)
from outlast.kernel.invite import make_channel_link, make_link
from outlast.kernel.revocation import RevocationBody, SignedRevocation, Told, read_revocation, revoke, tell

HERE = Path(__file__).parent
NOW_MS = 1_795_305_912_345
DAY = NOW_MS // 86_400_000


def secret(text: str) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + text.encode()).digest()


class Chance:
    """A source of bytes that remembers what it gave, in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.given: list[str] = []
        self._numbers = count()

    def __call__(self, size: int) -> bytes:
        data = secret(f"{self.text} {next(self._numbers)}")[:size]
        self.given.append(data.hex())
        return data


class Person:
    """Somebody with a device."""

    def __init__(self, name: str, entropy: bytes | None = None) -> None:
        self.name = name
        self.entropy = entropy or secret(f"{name} entropy")
        self.identity = identity_key(self.entropy)
        self.signing = SigningKey.from_seed(secret(f"{name} signing"))
        self.seal = OpeningKey.from_secret(secret(f"{name} seal"))
        self.prekey = OpeningKey.from_secret(secret(f"{name} prekey"))
        self.certificate = certify(self.identity, self.signing, self.seal.public, DAY - 10, name)
        self.device: Device = read_certificate(self.certificate)

    def keys(self) -> dict[str, str]:
        """What a reader of the vectors needs of this person."""
        return {
            "identity": self.identity.public.hex(),
            "device_seed": self.signing.seed.hex(),
            "device": self.signing.public.hex(),
            "seal_secret": self.seal.secret.hex(),
            "seal": self.seal.public.hex(),
            "prekey_secret": self.prekey.secret.hex(),
            "prekey": self.prekey.public.hex(),
            "certificate": self.certificate.hex(),
        }


ALICE, BOB, CAROL = Person("Alice"), Person("Боб"), Person("Carol")


def make_entry(payload: bytes | None = b"hello", **changed: Any) -> Entry:
    """A signed entry by Alice's device; `payload` None leaves out what the header names."""
    content = payload if payload is not None else b""
    header = msgspec.structs.replace(
        Header(
            version=1,
            space=secret("space"),
            kind="carry.post",
            author=ALICE.signing.public,
            seq=0,
            prev=None,
            clock=0,
            ts_ms=NOW_MS,
            expires_day=DAY + 31,
            priority=2,
            payload_hash=sha256(content).digest(),
            payload_size=len(content),
            tags=(),
            stamp_nonce=0,
        ),
        **changed,
    )
    return sign(encode_header(header), header, payload)


def sign(data: bytes, header: Header, payload: bytes | None) -> Entry:
    """The entry of header bytes, whatever they are."""
    return Entry(header, data, ALICE.signing.sign(signing_input(data)), entry_id(data), payload)


def shown(value: object) -> object:
    """A value as it stands in JSON: bytes in hex."""
    match value:
        case bytes():
            return value.hex()
        case tuple():
            return [shown(item) for item in value]
    return value


def entry_vectors() -> dict[str, Any]:
    """Entries that are well formed, and bytes that look like some and are not."""
    first = make_entry(b"first", seq=1, clock=4)
    long_text = "длинное сообщение ".encode() * 60
    tags = tuple(sorted(secret(f"tag {n}")[: 4 * n] for n in range(1, 9)))
    plain = make_entry()
    newer = make_entry(version=2)
    more = msgspec.msgpack.encode(secret("more"))
    later = sign(b"\x9f" + newer.header_bytes[1:] + more, newer.header, b"hello")
    largest: dict[str, Any] = {
        "version": 127,
        "kind": "k" * 32,
        "seq": 2**64 - 1,
        "prev": secret("prev"),
        "clock": 2**64 - 1,
        "ts_ms": 2**53 - 1,
        "expires_day": 2**31 - 1,
        "priority": 7,
        "payload_size": 128 * 1024 * 1024,
        "tags": tuple(sorted(secret(f"tag {n}") for n in range(8))),
        "stamp_nonce": 2**64 - 1,
    }
    entries = {
        "a post": plain,
        "the first of a chain": first,
        "the second of a chain": make_entry(b"second", seq=2, prev=first.id, clock=5),
        "an empty payload": make_entry(b""),
        "a payload above 1 KiB": make_entry(long_text),
        "a header whose payload stays behind": make_entry(
            None, payload_size=70_000_000, payload_hash=secret("manifest")
        ),
        "tags": make_entry(tags=tags),
        "an entry that never expires": make_entry(expires_day=0, priority=0),
        "the largest values": make_entry(None, **largest),
        "a later version, which carries one element more": later,
    }
    data = plain.header_bytes

    def altered(head: bytes, tail: bytes) -> str:
        """The header with its first element's bytes `head` and bytes added behind."""
        return pack(sign(head + data[2:] + tail, plain.header, b"hello")).hex()

    kind = msgspec.msgpack.encode("carry.post")
    assert data.count(kind) == 1
    texts = b"\x92\xa0\xa1a"

    def with_kind(encoded: bytes) -> str:
        return pack(sign(data.replace(kind, encoded), plain.header, b"hello")).hex()

    def with_field(name: str, value: object) -> str:
        header = msgspec.structs.replace(plain.header, **{name: value})
        return pack(sign(msgspec.msgpack.encode(header), header, b"hello")).hex()

    refused = {
        "the version in two bytes": altered(b"\x9e\xcc\x01", b""),
        "the array with a 16-bit length": altered(b"\xdc\x00\x0e\x01", b""),
        "an element more in version 1": altered(b"\x9f\x01", b"\x00"),
        "an element less": pack(sign(b"\x9d\x01" + data[2:-1], plain.header, b"hello")).hex(),
        "bytes behind the array": altered(b"\x9e\x01", b"\x00"),
        "the kind with an 8-bit length": with_kind(b"\xd9\x0acarry.post"),
        "the kind as bytes": with_kind(b"\xc4\x0acarry.post"),
        "the kind in capitals": with_field("kind", "Carry.post"),
        "the kind empty": with_field("kind", ""),
        "the kind too long": with_field("kind", "k" * 33),
        "version 0": with_field("version", 0),
        "version 128": with_field("version", 128),
        "a number below zero": with_field("clock", -1),
        "a space of 31 bytes": with_field("space", bytes(31)),
        "an author of 33 bytes": with_field("author", bytes(33)),
        "the second of a chain without the first": with_field("seq", 2),
        "a chain of none with one before": with_field("prev", bytes(32)),
        "a time of 2^53 ms": with_field("ts_ms", 2**53),
        "priority 8": with_field("priority", 8),
        "tags out of order": with_field("tags", (b"b", b"a")),
        "a tag twice": with_field("tags", (b"a", b"a")),
        "an empty tag": with_field("tags", (b"",)),
        "a tag of 33 bytes": with_field("tags", (bytes(33),)),
        "nine tags": with_field("tags", tuple(bytes([n]) for n in range(9))),
        "tags as text": pack(sign(data[:-2] + texts + data[-1:], plain.header, b"hello")).hex(),
        "a payload with another hash": pack(plain)[:-1].hex() + "21",
        "a payload cut short": pack(plain)[:-1].hex(),
        "a signature cut short": pack_header(plain)[:-1].hex(),
        "nothing": "",
    }
    return {
        "about": "Packed entries of docs/spec/entry.md. Bytes are in hex. `refused` are packed "
        "entries that no reader may take, although each is signed by its author.",
        "author_seed": ALICE.signing.seed.hex(),
        "entries": [
            {
                "name": name,
                "header": {k: shown(v) for k, v in msgspec.structs.asdict(e.header).items()},
                "header_bytes": e.header_bytes.hex(),
                "id": e.id.hex(),
                "signature": e.signature.hex(),
                "payload": None if e.payload is None else e.payload.hex(),
                "packed": pack(e).hex(),
            }
            for name, e in entries.items()
        ],
        "refused": [{"why": why, "packed": packed} for why, packed in refused.items()],
    }


def identity_vectors() -> dict[str, Any]:
    """Keys, certificates, prekeys and texts."""
    people = [ALICE, BOB, Person("Zero", bytes(32))]
    old = SigningKey.from_seed(secret("old device"))
    crossed = certify(ALICE.identity, ALICE.signing, ALICE.seal.public, DAY, "Alice", cross=old)
    body = DeviceBody(ALICE.identity.public, ALICE.signing.public, ALICE.seal.public, DAY, "Alice")

    def certificate(
        signer: SigningKey, domain: bytes = b"outlast/device/1", device: SigningKey = ALICE.signing, **changed: Any
    ) -> str:
        data = msgspec.msgpack.encode(msgspec.structs.replace(body, **changed))
        return msgspec.msgpack.encode(Certificate(data, signer.sign(domain + data), device.sign(domain + data))).hex()

    def revocation(signer: SigningKey = ALICE.identity, domain: bytes = b"outlast/revocation/1", **changed: Any) -> str:
        ended = RevocationBody(ALICE.identity.public, old.public, secret("space"), 7, secret("entry"))
        data = msgspec.msgpack.encode(msgspec.structs.replace(ended, **changed))
        return msgspec.msgpack.encode(SignedRevocation(data, signer.sign(domain + data))).hex()

    prekey = sign_prekey(ALICE.signing, ALICE.prekey.public, DAY)
    told = tell(
        [Told(crossed, ALICE.prekey.public, DAY, prekey)],
        [revoke(ALICE.identity, old.public), revoke(BOB.identity, old.public)],
    )
    text = id_text(ALICE.identity.public)
    return {
        "about": "Keys, certificates and texts of docs/spec/entry.md. Bytes are in hex.",
        "derive": [
            {
                "secret": material.hex(),
                "label": label,
                "context": context.hex(),
                "derived": derive(material, label.encode(), context).hex(),
            }
            for material, label, context in (
                (secret("material"), "outlast/identity/1", b""),
                (b"", "", b""),
                (secret("material")[:16], "outlast/mail/intro/1", secret("context")),
            )
        ],
        "identities": [
            {
                "entropy": p.entropy.hex(),
                "words": " ".join(words_of(p.entropy)),
                "seed": p.identity.seed.hex(),
                "identity": p.identity.public.hex(),
                "id": id_text(p.identity.public),
                "fingerprint": " ".join(fingerprint_words(p.identity.public)),
            }
            for p in people
        ],
        "certificates": [
            {
                "name": device.name,
                "identity": device.identity.hex(),
                "device": device.device.hex(),
                "seal": device.seal.hex(),
                "created_day": device.created_day,
                "cross": None if device.cross is None else device.cross.hex(),
                "certificate": device.certificate.hex(),
            }
            for device in (ALICE.device, BOB.device, read_certificate(crossed))
        ],
        "prekeys": [
            {
                "device_seed": ALICE.signing.seed.hex(),
                "device": ALICE.signing.public.hex(),
                "prekey": ALICE.prekey.public.hex(),
                "day": DAY,
                "signature": prekey.hex(),
            }
        ],
        "texts": [
            {"of": of, "key": secret("key").hex(), "text": write(secret("key"))}
            for of, write in (("identity", id_text), ("node", node_text), ("space", space_text))
        ],
        "revocations": [
            {
                "identity_seed": ALICE.identity.seed.hex(),
                "identity": one.identity.hex(),
                "device": one.device.hex(),
                "space": one.space.hex(),
                "seq": one.seq,
                "last": None if one.last is None else one.last.hex(),
                "signed": one.signed.hex(),
            }
            for one in (
                read_revocation(revoke(ALICE.identity, old.public)),
                read_revocation(revoke(ALICE.identity, old.public, secret("space"), 7, secret("entry"))),
                read_revocation(revoke(ALICE.identity, old.public, secret("space"), 2**64 - 1, secret("entry"))),
            )
        ],
        "ended": [
            {"seq": seq, "id": name.hex(), "ended": ended}
            for seq, name, ended in (
                (6, secret("before"), False),
                (7, secret("entry"), False),
                (7, secret("another branch"), True),
                (8, secret("behind"), True),
                (0, secret("outside of chains"), True),
            )
        ],
        "devices_letter": {
            "from": ALICE.identity.public.hex(),
            "body": told.hex(),
            "added": [ALICE.signing.public.hex()],
            "revoked": [old.public.hex()],
        },
        "refused_revocations": [
            {"why": why, "signed": data}
            for why, data in {
                "signed by another identity": revocation(BOB.identity),
                "signed for another purpose": revocation(domain=b"outlast/device/1"),
                "a last entry without a number": revocation(seq=0),
                "a number without a last entry": revocation(last=None),
                "numbers in the mail space": revocation(space=mail.MAIL_SPACE),
                "a device of 31 bytes": revocation(device=bytes(31)),
                "an id of 33 bytes": revocation(last=bytes(33)),
                "a number below zero": revocation(seq=-1),
                "one element more": msgspec.msgpack.encode(
                    [*msgspec.msgpack.decode(bytes.fromhex(revocation())), None]
                ).hex(),
                "not in the shortest form": (b"\xdc\x00\x02" + bytes.fromhex(revocation())[1:]).hex(),
                "nothing": "",
            }.items()
        ],
        "refused_certificates": [
            {"why": why, "certificate": data}
            for why, data in {
                "signed by another identity": certificate(BOB.identity),
                "signed for another purpose": certificate(ALICE.identity, b"outlast/prekey/1"),
                "signed by another device": certificate(ALICE.identity, device=BOB.signing),
                "somebody else's device": certificate(
                    BOB.identity, device=BOB.signing, identity=BOB.identity.public, seal=BOB.seal.public
                ),
                "a seal key of zeros": certificate(ALICE.identity, seal=bytes(32)),
                "a seal key of order eight": certificate(
                    ALICE.identity,
                    seal=bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
                ),
                "a name of two lines": certificate(ALICE.identity, name="Alice\nBob"),
                "a name with a space before it": certificate(ALICE.identity, name=" Alice"),
                "no name": certificate(ALICE.identity, name=""),
                "a name of 65 characters": certificate(ALICE.identity, name="a" * 65),
                "a seal key of 31 bytes": certificate(ALICE.identity, seal=bytes(31)),
                "a day below zero": certificate(ALICE.identity, created_day=-1),
                "an older device that has not signed": msgspec.msgpack.encode(
                    msgspec.structs.replace(msgspec.msgpack.decode(crossed, type=Certificate), by_cross=bytes(64))
                ).hex(),
                "cut short": ALICE.certificate[:-1].hex(),
                "nothing": "",
            }.items()
        ],
        "refused_prekeys": [
            {
                "why": why,
                "device": device.hex(),
                "prekey": key.hex(),
                "day": day,
                "signature": prekey.hex(),
            }
            for why, device, key, day in (
                ("another day", ALICE.signing.public, ALICE.prekey.public, DAY + 1),
                ("another key", ALICE.signing.public, BOB.prekey.public, DAY),
                ("another device", BOB.signing.public, ALICE.prekey.public, DAY),
            )
        ],
        "refused_ids": [
            {"why": why, "text": refused}
            for why, refused in {
                "one character wrong": ("b" if text[0] == "a" else "a") + text[1:],
                "one character less": text[:-1],
                "a node's": node_text(ALICE.identity.public),
                "nothing": "",
            }.items()
        ],
    }


def mail_vectors() -> dict[str, Any]:
    """Envelopes from Alice to Bob, and links."""
    intro_secret = secret("intro")[:16]
    there = mail.direction_key(ALICE.seal, ALICE.device, BOB.device)
    back = mail.direction_key(ALICE.seal, BOB.device, ALICE.device)
    intro = mail.intro_key(intro_secret, BOB.device)

    def letter(size: int, kind: str = "carry.text", **changed: Any) -> mail.SealedLetter:
        return mail.SealedLetter(
            id=secret(f"letter {size}")[:16],
            kind=kind,
            sent_ms=NOW_MS,
            body=bytes(n % 251 for n in range(size)),
            **changed,
        )

    prekey: dict[str, Any] = {"prekey": ALICE.prekey.public, "prekey_day": DAY}
    letters = {
        "a text with a prekey": (letter(300, life_ms=30 * 86_400_000, **prekey), 0),
        "a receipt": (letter(20, kind="receipt"), 1),
        "the next class": (letter(600), 2),
        "4 KiB": (letter(3000), 70_000),
        "the largest": (letter(mail.LETTER_MAX_BYTES), 2**32 - 1),
    }

    def fields(what: mail.SealedLetter) -> dict[str, object]:
        return {name: shown(value) for name, value in msgspec.structs.asdict(what).items()}

    envelopes = []
    for name, (what, counter) in letters.items():
        chance = Chance(name)
        entry = mail.seal_letter(
            what,
            key=there,
            counter=counter,
            sender=ALICE.device,
            sender_seal=ALICE.seal,
            receiver=BOB.device,
            prekey=BOB.prekey.public,
            now_ms=NOW_MS,
            rand=chance,
        )
        envelopes.append(
            {
                "name": name,
                "letter": fields(what),
                "counter": counter,
                "random": dict(zip(("author_seed", "ephemeral"), chance.given, strict=True)),
                "packed": pack(entry).hex(),
            }
        )
    introductions = []
    for number, (name, what) in enumerate(
        (
            ("a first text", letter(300, **prekey)),
            ("a large one", letter(9000, **prekey)),
        )
    ):
        chance = Chance(name)
        counter = mail.intro_counter(ALICE.seal.secret, BOB.device, DAY, number)
        entry = mail.seal_introduction(
            what,
            intro_secret=intro_secret,
            sender=ALICE.device,
            sender_seal=ALICE.seal,
            receiver=BOB.device,
            counter=counter,
            prekey=BOB.prekey.public,
            now_ms=NOW_MS,
            rand=chance,
        )
        parts = ("author_seed", "inner_ephemeral", "outer_ephemeral")
        introductions.append(
            {
                "name": name,
                "letter": fields(what),
                "counter": counter,
                "random": dict(zip(parts, chance.given, strict=True)),
                "packed": pack(entry).hex(),
            }
        )
    bodies = []
    for name, size in (("a long text", 3000), ("an empty body", 0)):
        chance = Chance(name)
        body = bytes(n % 251 for n in range(size))
        entry, place = mail.seal_body(body, now_ms=NOW_MS, rand=chance)
        bodies.append(
            {
                "name": name,
                "body": body.hex(),
                "random": dict(zip(("author_seed", "tag", "key"), chance.given, strict=True)),
                "place": mail.apart(letter(size), place).body.hex(),
                "packed": pack(entry).hex(),
            }
        )
    prekey_signature = sign_prekey(BOB.signing, BOB.prekey.public, DAY)
    link = make_link(BOB.certificate, BOB.prekey.public, DAY, prekey_signature, intro_secret)
    forged = make_link(BOB.certificate, ALICE.prekey.public, DAY, prekey_signature, intro_secret)
    return {
        "about": "Envelopes and links of docs/spec/mail.md, from Alice's device to Bob's at `now_ms`. "
        "Bytes are in hex. `refused` are changes to one envelope or its reader after which it must "
        "not open: `payload` are byte offsets of the payload to invert in turn.",
        "mail_genesis": encode_header(mail.MAIL_GENESIS).hex(),
        "mail_space": mail.MAIL_SPACE.hex(),
        "now_ms": NOW_MS,
        "alice": ALICE.keys(),
        "bob": BOB.keys(),
        "carol": CAROL.keys(),
        "intro_secret": intro_secret.hex(),
        "direction_keys": {"alice_to_bob": there.hex(), "bob_to_alice": back.hex()},
        "intro_key": intro.hex(),
        "tags": [
            {"key": key.hex(), "day": day, "counter": n, "tag": mail.tag(key, day, n).hex()}
            for key, day, n in ((there, DAY, 0), (there, 0, 2**32 - 1), (intro, DAY, 1023))
        ],
        "letters": envelopes,
        "introductions": introductions,
        "bodies": bodies,
        "refused": {
            "letter": "a text with a prekey",
            "payload": [0, 31, 32, 200, 495, 496, 511],
            "senders": ["bob", "carol"],
            "receivers": ["alice", "carol"],
        },
        "links": [
            {"link": link, "prekey_day": DAY},
        ],
        "channel_links": [
            {
                "link": make_channel_link(secret("space"), "Nexta Live"),
                "space": secret("space").hex(),
                "name": "Nexta Live",
            }
        ],
        "refused_links": [
            {"why": why, "link": text, "today": today}
            for why, text, today in (
                ("expired", link, DAY + 91),
                ("the last character is missing", link[:-1], DAY),
                ("the prekey is another's", forged, DAY),
                ("a channel's", make_channel_link(secret("space"), "Nexta Live"), DAY),
                ("a later version", "outlast://contact/kQI", DAY),
                ("nothing", "", DAY),
            )
        ],
    }


def runs(data: bytes) -> list[str | int]:
    """The bytes as hex, with runs of 64 zero bytes and more as their number."""
    parts: list[str | int] = []
    at = 0
    for match in re.finditer(rb"\0{64,}", data):
        if match.start() > at:
            parts.append(data[at : match.start()].hex())
        parts.append(match.end() - match.start())
        at = match.end()
    if at < len(data):
        parts.append(data[at:].hex())
    return parts


def bundle_vectors() -> dict[str, Any]:
    """A sealed bundle for two devices, and an open one of three chunks."""
    small = [make_entry(b"hello"), make_entry(b""), make_entry(None, payload_size=5)]
    chance = Chance("bundle")
    writer = BundleWriter.sealed(
        [(BOB.device.device, BOB.prekey.public), (CAROL.device.device, CAROL.seal.public)],
        certificate=ALICE.certificate,
        signer=ALICE.signing,
        number=3,
        made_day=DAY,
        rand=chance,
        acks={BOB.device.device: [1, 2]},
        entries=len(small),
    )
    sealed = written(writer, small)
    large = [make_entry(bytes(size), clock=size) for size in (60_000, 6_000, 65_536, 64)]
    in_clear = written(BundleWriter.open(made_day=DAY), large)
    content = bytes(range(256)) * 300
    film = make_entry(sha256(content[:65_536]).digest() + sha256(content[65_536:]).digest(), payload_size=len(content))
    showing = BundleWriter.open(made_day=DAY)
    parts = [Content.of(film.id, 0, content[:65_536]), Content.of(film.id, 1, content[65_536:])]
    with_content = b"".join([showing.start(), showing.add(film), *map(showing.add_content, parts), *showing.finish()])
    chunk = 65_552
    return {
        "about": "Bundles of docs/spec/bundle.md. Bytes are in hex, the sealed file is in base64; "
        "in the open one a number stands for so many zero bytes. `damaged` are byte offsets to "
        "invert, with the entries that are still to be found and the chunks that are not. `content` is an "
        "open one of an entry and the content that it names: `repeated`, so many times.",
        "alice": ALICE.keys(),
        "bob": BOB.keys(),
        "carol": CAROL.keys(),
        "sealed": {
            "file": base64.b64encode(sealed).decode(),
            "random": chance.given,
            "file_key": chance.given[0],
            "receivers": {
                BOB.device.device.hex(): BOB.prekey.public.hex(),
                CAROL.device.device.hex(): CAROL.seal.public.hex(),
            },
            "number": 3,
            "made_day": DAY,
            "acks": {BOB.device.device.hex(): [1, 2]},
            "entries": [pack(e).hex() for e in small],
        },
        "open": {
            "file": runs(in_clear),
            "made_day": DAY,
            "entries": [runs(pack(e)) for e in large],
            "damaged": [
                {"at": [10], "found": [2, 3], "chunks": [0]},
                {"at": [10 + chunk], "found": [0, 3], "chunks": [1]},
                {"at": [10 + 2 * chunk, 10 + 2 * chunk + 5], "found": [0, 1], "chunks": [2]},
                {"at": [10, 10 + chunk, 10 + 2 * chunk], "found": [], "chunks": [0, 1, 2]},
            ],
            "truncated": [
                {"size": len(in_clear) - 1, "found": [0, 1]},
                {"size": 10 + chunk, "found": [0]},
                {"size": 10, "found": []},
            ],
        },
        "content": {
            "file_sha256": sha256(with_content).hexdigest(),
            "file_size": len(with_content),
            "made_day": DAY,
            "entry": pack(film).hex(),
            "repeated": bytes(range(256)).hex(),
            "times": 300,
        },
        "refused": [
            {"why": why, "file": data.hex()}
            for why, data in {
                "nothing": b"",
                "another file": b"PK\x03\x04" + bytes(400),
                "cut off in its header": sealed[:329],
                "a later version": sealed[:8] + b"\x02" + sealed[9:400],
                "unknown flags": sealed[:9] + b"\x02" + sealed[10:400],
                "for nobody here": sealed[:10] + bytes(range(1, 81)) * 4,
            }.items()
        ],
    }


def written(writer: BundleWriter, entries: list[Entry]) -> bytes:
    """A whole file."""
    return b"".join([writer.start(), *map(writer.add, entries), *writer.finish()])


MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "entry": entry_vectors,
    "identity": identity_vectors,
    "mail": mail_vectors,
    "bundle": bundle_vectors,
}


def as_text(vectors: dict[str, Any]) -> str:
    """The text of a file of vectors."""
    return json.dumps(vectors, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    for name, make in MAKERS.items():
        (HERE / f"{name}.json").write_text(as_text(make()), encoding="utf-8")
