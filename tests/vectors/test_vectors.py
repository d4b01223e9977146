"""The vectors are what the program writes, what it reads, and what the specification says.

Each file is made again and compared: a difference is a change of the wire. What can be computed
from the specification alone is computed here a second time, without the program.
"""

from __future__ import annotations

import base64
import hmac
import json
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from outlast.errors import OutlastError, UsageError
from outlast.kernel.bundle import BundleError, BundleReader, BundleWriter, Content, Manifest
from outlast.kernel.entry import Entry, EntryError, pack, unpack
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Device,
    IdentityError,
    SigningKey,
    derive,
    entropy_of,
    fingerprint_words,
    id_text,
    identity_key,
    parse_id,
    parse_node,
    parse_space,
    read_certificate,
    verify,
    verify_prekey,
    words_of,
)
from outlast.kernel.invite import read_channel_link, read_link
from outlast.kernel.mail import (
    MAIL_GENESIS,
    MAIL_SPACE,
    MailError,
    SealedLetter,
    direction_key,
    intro_key,
    is_wellformed_envelope,
    open_body,
    open_introduction,
    open_letter,
    read_place,
    tag,
)
from outlast.kernel.revocation import is_ended, read_revocation, read_told, revoke
from tests.vectors import rfc9180
from vectors import make

FOLDER = Path(__file__).parents[2] / "vectors"
ENTRY, IDENTITY, MAIL, BUNDLE = (
    json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("entry", "identity", "mail", "bundle")
)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def named(cases: list[dict[str, Any]]) -> list[Any]:
    """The cases as parameters, under their names."""
    return [pytest.param(case, id=case.get("name") or case.get("why")) for case in cases]


@pytest.mark.parametrize("name", make.MAKERS)
def test_the_program_still_writes_the_same(name: str) -> None:
    kept = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    same = make.as_text(make.MAKERS[name]()) == kept
    assert same, f"{name}.json is no longer what vectors/make.py writes: the wire has changed"


class TestEntry:
    @pytest.mark.parametrize("case", named(ENTRY["entries"]))
    def test_it_is_read(self, case: dict[str, Any]) -> None:
        packed = unhex(case["packed"])
        entry, end = unpack(packed)
        assert end == len(packed)
        assert pack(entry) == packed
        assert entry.id == unhex(case["id"])
        fields = msgspec.structs.asdict(entry.header)
        assert {name: make.shown(value) for name, value in fields.items()} == case["header"]

    @pytest.mark.parametrize("case", named(ENTRY["entries"]))
    def test_it_is_as_specified(self, case: dict[str, Any]) -> None:
        header = unhex(case["header_bytes"])
        values = msgspec.msgpack.decode(header)
        told = case["header"]
        for value, (name, said) in zip(values, told.items(), strict=False):
            assert make.shown(tuple(value) if isinstance(value, list) else value) == said, name
        assert unhex(case["id"]) == sha256(b"outlast/id/1" + header).digest()
        signature = unhex(case["signature"])
        public, secret = crypto_sign_seed_keypair(unhex(ENTRY["author_seed"]))
        assert public == unhex(told["author"])
        assert signature == crypto_sign(b"outlast/entry/1" + header, secret)[:64]
        payload = case["payload"]
        word = len(header) | (0 if payload is None else 0x8000)
        rest = header + signature + unhex(payload or "")
        assert unhex(case["packed"]) == word.to_bytes(2, "big") + rest
        if payload is not None:
            assert sha256(unhex(payload)).hexdigest() == told["payload_hash"]

    @pytest.mark.parametrize("case", named(ENTRY["refused"]))
    def test_others_are_refused(self, case: dict[str, Any]) -> None:
        with pytest.raises(EntryError):
            unpack(unhex(case["packed"]))


class TestIdentity:
    @pytest.mark.parametrize("case", IDENTITY["derive"])
    def test_keys_are_derived(self, case: dict[str, str]) -> None:
        secret, context = unhex(case["secret"]), unhex(case["context"])
        derived = derive(secret, case["label"].encode(), context)
        assert derived == unhex(case["derived"])
        extracted = hmac.digest(bytes(32), secret, "sha256")
        expanded = hmac.digest(extracted, case["label"].encode() + context + b"\x01", "sha256")
        assert derived == expanded

    @pytest.mark.parametrize("case", IDENTITY["identities"])
    def test_a_person_is_made_of_words(self, case: dict[str, str]) -> None:
        entropy = unhex(case["entropy"])
        assert " ".join(words_of(entropy)) == case["words"]
        assert entropy_of(case["words"]) == entropy
        key = identity_key(entropy)
        assert (key.seed.hex(), key.public.hex()) == (case["seed"], case["identity"])
        assert id_text(key.public) == case["id"]
        assert parse_id(case["id"]) == key.public
        assert " ".join(fingerprint_words(key.public)) == case["fingerprint"]
        check = sha256(b"outlast/text/1/id" + key.public).digest()[:3]
        assert base64.b32decode(case["id"].upper()) == key.public + check

    @pytest.mark.parametrize("case", IDENTITY["certificates"])
    def test_a_certificate_is_read(self, case: dict[str, Any]) -> None:
        device = read_certificate(unhex(case["certificate"]))
        said = {name: make.shown(getattr(device, name)) for name in case if name != "certificate"}
        assert said == {name: value for name, value in case.items() if name != "certificate"}
        body, by_identity, by_device, by_cross, cross = msgspec.msgpack.decode(unhex(case["certificate"]))
        message = b"outlast/device/1" + body
        assert crypto_sign_open(by_identity + message, device.identity) == message
        assert crypto_sign_open(by_device + message, device.device) == message
        if cross is not None:
            assert crypto_sign_open(by_cross + message, cross) == message
        assert msgspec.msgpack.decode(body) == [
            device.identity,
            device.device,
            device.seal,
            device.created_day,
            device.name,
        ]

    @pytest.mark.parametrize("case", IDENTITY["prekeys"])
    def test_a_prekey_is_signed(self, case: dict[str, Any]) -> None:
        prekey, signature = unhex(case["prekey"]), unhex(case["signature"])
        assert verify_prekey(unhex(case["device"]), prekey, case["day"], signature)
        message = b"outlast/prekey/1" + case["day"].to_bytes(4, "big") + prekey
        assert SigningKey.from_seed(unhex(case["device_seed"])).sign(message) == signature

    @pytest.mark.parametrize("case", IDENTITY["revocations"])
    def test_a_revocation_is_read(self, case: dict[str, Any]) -> None:
        signed = unhex(case["signed"])
        found = read_revocation(signed)
        said = {name: make.shown(getattr(found, name)) for name in case if name != "identity_seed"}
        assert said == {name: value for name, value in case.items() if name != "identity_seed"}
        body, by_identity = msgspec.msgpack.decode(signed)
        assert crypto_sign_open(by_identity + b"outlast/revocation/1" + body, found.identity)
        assert msgspec.msgpack.decode(body) == [found.identity, found.device, found.space, found.seq, found.last]
        identity = SigningKey.from_seed(unhex(case["identity_seed"]))
        assert revoke(identity, found.device, found.space, found.seq, found.last or b"") == signed

    @pytest.mark.parametrize("case", IDENTITY["ended"])
    def test_what_lies_beyond_the_last_valid_entry_is_ended(self, case: dict[str, Any]) -> None:
        found = read_revocation(unhex(IDENTITY["revocations"][1]["signed"]))
        header = msgspec.structs.replace(MAIL_GENESIS, author=found.device, space=found.space, seq=case["seq"])
        assert is_ended(header, unhex(case["id"]), found.identity, [found]) is case["ended"]

    def test_a_letter_tells_of_its_senders_devices_alone(self) -> None:
        case = IDENTITY["devices_letter"]
        added, revoked = read_told(unhex(case["body"]), unhex(case["from"]))
        assert [one.device.hex() for one, _, _ in added] == case["added"]
        assert [one.device.hex() for one in revoked] == case["revoked"]

    @pytest.mark.parametrize("case", named(IDENTITY["refused_revocations"]))
    def test_other_revocations_are_refused(self, case: dict[str, str]) -> None:
        with pytest.raises(IdentityError):
            read_revocation(unhex(case["signed"]))

    @pytest.mark.parametrize("case", IDENTITY["texts"])
    def test_texts_name_keys(self, case: dict[str, str]) -> None:
        parse = {"identity": parse_id, "node": parse_node, "space": parse_space}[case["of"]]
        assert parse(case["text"]) == unhex(case["key"])

    @pytest.mark.parametrize("case", named(IDENTITY["refused_certificates"]))
    def test_other_certificates_are_refused(self, case: dict[str, str]) -> None:
        with pytest.raises(IdentityError):
            read_certificate(unhex(case["certificate"]))

    @pytest.mark.parametrize("case", named(IDENTITY["refused_prekeys"]))
    def test_other_prekeys_are_refused(self, case: dict[str, Any]) -> None:
        device, prekey = unhex(case["device"]), unhex(case["prekey"])
        assert not verify_prekey(device, prekey, case["day"], unhex(case["signature"]))

    @pytest.mark.parametrize("case", named(IDENTITY["refused_ids"]))
    def test_other_texts_are_refused(self, case: dict[str, str]) -> None:
        with pytest.raises(UsageError):
            parse_id(case["text"])


class Reader:
    """One of the people of the vectors, as the program sees them."""

    def __init__(self, keys: dict[str, str]) -> None:
        self.seal = OpeningKey.from_secret(unhex(keys["seal_secret"]))
        self.prekey = OpeningKey.from_secret(unhex(keys["prekey_secret"]))
        self.device: Device = read_certificate(unhex(keys["certificate"]))
        self.party = self.device.identity + self.device.device


PEOPLE = {name: Reader(MAIL[name]) for name in ("alice", "bob", "carol")}
ALICE, BOB = PEOPLE["alice"], PEOPLE["bob"]


def envelope(packed: str) -> Entry:
    """The envelope, as admission lets it through."""
    entry, end = unpack(unhex(packed))
    assert end == len(packed) // 2
    assert is_wellformed_envelope(entry.header)
    assert verify(entry.header.author, entry.signature, b"outlast/entry/1" + entry.header_bytes)
    return entry


def letter(fields: dict[str, Any]) -> SealedLetter:
    raw = {"id", "prekey", "body"}
    return SealedLetter(**{k: unhex(v) if k in raw and v is not None else v for k, v in fields.items()})


def unframed(plaintext: bytes) -> list[Any]:
    """The letter's elements behind its length; all that follows is zero."""
    size = int.from_bytes(plaintext[:2], "big")
    assert not any(plaintext[2 + size :])
    decoded: list[Any] = msgspec.msgpack.decode(plaintext[2 : 2 + size])
    return decoded


class TestMail:
    def test_the_space_is_named_by_a_constant(self) -> None:
        genesis = unhex(MAIL["mail_genesis"])
        assert sha256(b"outlast/id/1" + genesis).digest() == unhex(MAIL["mail_space"]) == MAIL_SPACE
        page = FOLDER.parent / "docs" / "spec" / "mail.md"
        assert MAIL["mail_space"] in page.read_text(encoding="utf-8")

    def test_both_devices_derive_the_direction_keys(self) -> None:
        shared = crypto_scalarmult(ALICE.seal.secret, BOB.device.seal)
        for one, other, name in ((ALICE, BOB, "alice_to_bob"), (BOB, ALICE, "bob_to_alice")):
            key = unhex(MAIL["direction_keys"][name])
            assert direction_key(ALICE.seal, one.device, other.device) == key
            assert direction_key(BOB.seal, one.device, other.device) == key
            assert derive(shared, b"outlast/mail/direction/1", one.party + other.party) == key
        key = intro_key(unhex(MAIL["intro_secret"]), BOB.device)
        assert key == unhex(MAIL["intro_key"])

    @pytest.mark.parametrize("case", MAIL["tags"])
    def test_tags_follow_from_them(self, case: dict[str, Any]) -> None:
        key, day, counter = unhex(case["key"]), case["day"], case["counter"]
        assert tag(key, day, counter) == unhex(case["tag"])
        message = day.to_bytes(4, "big") + counter.to_bytes(4, "big")
        assert hmac.digest(key, message, "sha256")[:16] == unhex(case["tag"])

    @pytest.mark.parametrize("case", named(MAIL["letters"]))
    def test_an_envelope_opens(self, case: dict[str, Any]) -> None:
        entry = envelope(case["packed"])
        opened = open_letter(entry, prekeys=[BOB.prekey], sender=ALICE.device, receiver=BOB.device)
        assert opened == letter(case["letter"])
        key = unhex(MAIL["direction_keys"]["alice_to_bob"])
        day = entry.header.ts_ms // 86_400_000
        assert entry.header.tags == (tag(key, day, case["counter"]),)

    @pytest.mark.parametrize("case", named(MAIL["letters"]))
    def test_an_envelope_is_as_specified(self, case: dict[str, Any]) -> None:
        entry = envelope(case["packed"])
        assert entry.payload is not None
        author, secret = crypto_sign_seed_keypair(unhex(case["random"]["author_seed"]))
        assert entry.header.author == author
        assert crypto_sign(b"outlast/entry/1" + entry.header_bytes, secret)[:64] == entry.signature
        expires = entry.header.expires_day.to_bytes(4, "big")
        aad = ALICE.party + BOB.party + MAIL_SPACE + author + expires
        plaintext = rfc9180.unseal(BOB.prekey.secret, entry.payload, b"outlast/mail/1", aad, sender=ALICE.device.seal)
        fields = list(letter(case["letter"]).__struct_fields__)
        assert unframed(plaintext) == [getattr(letter(case["letter"]), name) for name in fields]
        assert entry.payload == rfc9180.seal(
            BOB.prekey.public,
            plaintext,
            b"outlast/mail/1",
            aad,
            unhex(case["random"]["ephemeral"]),
            sender=ALICE.seal.secret,
        )

    @pytest.mark.parametrize("case", named(MAIL["bodies"]))
    def test_a_body_that_lies_apart_is_as_specified(self, case: dict[str, Any]) -> None:
        entry = envelope(case["packed"])
        payload, key = entry.payload or b"", unhex(case["random"]["key"])
        place = read_place(unhex(case["place"]))
        assert msgspec.msgpack.decode(unhex(case["place"])) == [entry.header.tags[0], sha256(payload).digest(), key]
        assert (place.tag, open_body(entry, place)) == (unhex(case["random"]["tag"]), unhex(case["body"]))
        author, _ = crypto_sign_seed_keypair(unhex(case["random"]["author_seed"]))
        aad = MAIL_SPACE + author + entry.header.expires_day.to_bytes(4, "big")
        cipher = ChaCha20Poly1305(derive(key, b"outlast/mail/body/1"))
        plaintext = cipher.decrypt(bytes(12), payload[32:], aad)
        assert payload[:32] == crypto_scalarmult_base(key)
        assert plaintext == (len(unhex(case["body"])).to_bytes(2, "big") + unhex(case["body"])).ljust(
            len(payload) - 48, b"\0"
        )

    @pytest.mark.parametrize("case", named(MAIL["introductions"]))
    def test_an_introduction_opens(self, case: dict[str, Any]) -> None:
        entry = envelope(case["packed"])
        opened = open_introduction(
            entry,
            intro_secret=unhex(MAIL["intro_secret"]),
            prekeys=[BOB.prekey],
            receiver=BOB.device,
        )
        assert opened.device == ALICE.device
        assert opened.letter == letter(case["letter"])
        day = entry.header.ts_ms // 86_400_000
        assert entry.header.tags == (tag(unhex(MAIL["intro_key"]), day, case["counter"]),)

    @pytest.mark.parametrize("case", named(MAIL["introductions"]))
    def test_an_introduction_is_as_specified(self, case: dict[str, Any]) -> None:
        entry = envelope(case["packed"])
        assert entry.payload is not None
        behind = MAIL_SPACE + entry.header.author + entry.header.expires_day.to_bytes(4, "big")
        outer = rfc9180.unseal(
            BOB.prekey.secret,
            entry.payload,
            b"outlast/mail/intro/1",
            BOB.party + behind,
            psk=derive(unhex(MAIL["intro_secret"]), b"outlast/mail/psk/1", BOB.party),
            psk_id=b"outlast/intro",
        )
        end = 2 + int.from_bytes(outer[:2], "big")
        assert outer[2:end] == ALICE.device.certificate
        plaintext = rfc9180.unseal(
            BOB.prekey.secret,
            outer[end:],
            b"outlast/mail/1",
            ALICE.party + BOB.party + behind,
            sender=ALICE.device.seal,
        )
        assert unframed(plaintext)[7] == unhex(case["letter"]["body"])

    @pytest.mark.parametrize("place", MAIL["refused"]["payload"])
    def test_an_altered_envelope_stays_shut(self, place: int) -> None:
        entry = self.refused()
        assert entry.payload is not None
        payload = bytearray(entry.payload)
        payload[place] ^= 0xFF
        altered = msgspec.structs.replace(entry, payload=bytes(payload))
        with pytest.raises(MailError):
            open_letter(altered, prekeys=[BOB.prekey], sender=ALICE.device, receiver=BOB.device)

    @pytest.mark.parametrize("sender", MAIL["refused"]["senders"])
    def test_an_envelope_is_from_nobody_else(self, sender: str) -> None:
        with pytest.raises(MailError):
            open_letter(
                self.refused(),
                prekeys=[BOB.prekey],
                sender=PEOPLE[sender].device,
                receiver=BOB.device,
            )

    @pytest.mark.parametrize("receiver", MAIL["refused"]["receivers"])
    def test_an_envelope_is_for_nobody_else(self, receiver: str) -> None:
        for prekeys in ([PEOPLE[receiver].prekey], [BOB.prekey]):
            with pytest.raises(MailError):
                open_letter(
                    self.refused(),
                    prekeys=prekeys,
                    sender=ALICE.device,
                    receiver=PEOPLE[receiver].device,
                )

    def refused(self) -> Entry:
        name = MAIL["refused"]["letter"]
        return next(envelope(c["packed"]) for c in MAIL["letters"] if c["name"] == name)


class TestLinks:
    @pytest.mark.parametrize("case", MAIL["links"])
    def test_a_contact_link_is_read(self, case: dict[str, Any]) -> None:
        invitation = read_link(case["link"], today=case["prekey_day"])
        assert invitation.device == BOB.device
        assert invitation.prekey == BOB.prekey.public
        assert invitation.prekey_day == case["prekey_day"]
        assert invitation.intro_secret == unhex(MAIL["intro_secret"])
        text = case["link"].removeprefix("outlast://contact/")
        fields = msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        assert fields[:4] == [
            1,
            BOB.device.certificate,
            BOB.prekey.public,
            case["prekey_day"],
        ]

    @pytest.mark.parametrize("case", MAIL["channel_links"])
    def test_a_channel_link_is_read(self, case: dict[str, str]) -> None:
        invitation = read_channel_link(case["link"])
        assert (invitation.space.hex(), invitation.name) == (case["space"], case["name"])

    @pytest.mark.parametrize("case", named(MAIL["refused_links"]))
    def test_other_links_are_refused(self, case: dict[str, Any]) -> None:
        with pytest.raises(OutlastError):
            read_link(case["link"], today=case["today"])


def unrun(parts: list[str | int]) -> bytes:
    return b"".join(bytes(part) if isinstance(part, int) else unhex(part) for part in parts)


SEALED = base64.b64decode(BUNDLE["sealed"]["file"])
OPEN = unrun(BUNDLE["open"]["file"])
OPEN_ENTRIES = [unrun(parts) for parts in BUNDLE["open"]["entries"]]


def read_open(data: bytes) -> tuple[list[int], Any]:
    """The numbers of the entries that are found, and the summary."""
    reader = BundleReader()
    items = reader.feed(data)
    found = [OPEN_ENTRIES.index(pack(item)) for item in items if isinstance(item, Entry)]
    return found, reader.finish()


class TestBundle:
    @pytest.mark.parametrize(("name", "key"), [("bob", "prekey_secret"), ("carol", "seal_secret")])
    def test_a_sealed_one_is_read_by_each_receiver(self, name: str, key: str) -> None:
        secret = OpeningKey.from_secret(unhex(BUNDLE[name][key]))
        reader = BundleReader([secret], unhex(BUNDLE[name]["device"]))
        manifest, *entries = reader.feed(SEALED)
        assert isinstance(manifest, Manifest)
        said = BUNDLE["sealed"]
        assert [r.device.hex() for r in manifest.receivers] == list(said["receivers"])
        assert (manifest.number, manifest.made_day) == (said["number"], said["made_day"])
        acks = {r.device.hex(): list(r.acks) for r in manifest.receivers if r.acks}
        assert acks == said["acks"]
        packed = [pack(entry).hex() for entry in entries if isinstance(entry, Entry)]
        assert packed == said["entries"]
        assert manifest.entries == len(packed)
        summary = reader.finish()
        assert summary.whole
        assert summary.signature_ok

    def test_a_sealed_one_is_as_specified(self) -> None:
        prefix, slots, chunk = SEALED[:10], SEALED[10:330], SEALED[330:]
        assert prefix == b"OUTLAST\n\x01\x00"
        opened = []
        for at in range(0, 320, 80):
            for name, key in (("bob", "prekey_secret"), ("carol", "seal_secret")):
                secret = unhex(BUNDLE[name][key])
                try:
                    file_key = rfc9180.unseal(secret, slots[at : at + 80], b"outlast/bundle/1", prefix)
                except CryptoError:
                    continue
                opened.append(name)
                assert file_key == unhex(BUNDLE["sealed"]["file_key"])
        assert sorted(opened) == ["bob", "carol"]
        assert len(chunk) == 65_536 + 16
        key = derive(unhex(BUNDLE["sealed"]["file_key"]), b"outlast/bundle-chunk/1")
        nonce = bytes(11) + b"\x01"
        plaintext = crypto_aead_chacha20poly1305_ietf_decrypt(chunk, prefix, nonce, key)
        records = self.records(plaintext)
        assert [kind for kind, _, _ in records] == [1, 2, 2, 2, 3]
        assert [body.hex() for _, body, _ in records[1:-1]] == BUNDLE["sealed"]["entries"]
        digest = sha256(b"".join(encoded for _, _, encoded in records[:-1])).digest()
        message = b"outlast/bundle-sign/1" + sha256(records[0][1]).digest() + digest
        assert records[-1][1][:32] == digest
        signature = records[-1][1][32:]
        assert crypto_sign_open(signature + message, unhex(BUNDLE["alice"]["device"])) == message
        assert msgspec.msgpack.decode(records[0][1]) == [
            1,
            unhex(BUNDLE["alice"]["certificate"]),
            [[unhex(device), BUNDLE["sealed"]["acks"].get(device, [])] for device in BUNDLE["sealed"]["receivers"]],
            3,
            BUNDLE["sealed"]["made_day"],
            3,
        ]

    def test_content_follows_its_entry(self) -> None:
        said = BUNDLE["content"]
        entry = unhex(said["entry"])
        content = unhex(said["repeated"]) * said["times"]
        found, _ = unpack(entry)
        writer = BundleWriter.open(made_day=said["made_day"])
        parts = [Content.of(found.id, place, content[at : at + 65_536]) for place, at in ((0, 0), (1, 65_536))]
        file = b"".join([writer.start(), writer.add(found), *map(writer.add_content, parts), *writer.finish()])
        assert len(file) == said["file_size"]
        assert sha256(file).hexdigest() == said["file_sha256"]
        reader = BundleReader()
        _, read, *rest = reader.feed(file)
        assert isinstance(read, Entry)
        assert read.payload == b"".join(sha256(part.data).digest() for part in parts)
        assert rest == parts
        assert reader.finish().whole
        stream = b"".join(file[at + 2 : at + 65_536] for at in range(10, len(file), 65_552))
        records, digest = self.records(b"\0\0" + stream), sha256()
        assert [kind for kind, _, _ in records] == [1, 2, 4, 4, 3]
        for kind, body, encoded in records[:-1]:
            digest.update(encoded[:39] + sha256(body[34:]).digest() if kind == 4 else encoded)
        assert records[-1][1] == digest.digest()

    def test_an_open_one_is_read_and_as_specified(self) -> None:
        found, summary = read_open(OPEN)
        assert found == [0, 1, 2, 3]
        assert summary.whole
        prefix, chunks = OPEN[:10], [OPEN[a:b] for a, b in pairwise(range(10, len(OPEN) + 1, 65_552))]
        assert prefix == b"OUTLAST\n\x01\x01"
        assert len(chunks) == 3
        for index, chunk in enumerate(chunks):
            nonce = index.to_bytes(11, "big") + bytes([index == 2])
            key = sha256(b"outlast/bundle-open/1" + prefix).digest()
            assert chunk[65_536:] == crypto_aead_chacha20poly1305_ietf_encrypt(b"", chunk[:65_536], nonce, key)

    @pytest.mark.parametrize("case", BUNDLE["open"]["damaged"])
    def test_damage_loses_what_it_touches(self, case: dict[str, Any]) -> None:
        data = bytearray(OPEN)
        for at in case["at"]:
            data[at] ^= 0xFF
        found, summary = read_open(bytes(data))
        assert found == case["found"]
        assert list(summary.damaged_chunks) == case["chunks"]
        assert not summary.whole

    @pytest.mark.parametrize("case", BUNDLE["open"]["truncated"])
    def test_truncation_is_noticed(self, case: dict[str, Any]) -> None:
        found, summary = read_open(OPEN[: case["size"]])
        assert found == case["found"]
        assert summary.truncated
        assert not summary.whole

    @pytest.mark.parametrize("case", named(BUNDLE["refused"]))
    def test_other_files_are_refused(self, case: dict[str, str]) -> None:
        keys = [OpeningKey.from_secret(unhex(BUNDLE["bob"]["prekey_secret"]))]
        reader = BundleReader(keys, unhex(BUNDLE["bob"]["device"]))
        with pytest.raises(BundleError):
            reader.feed(unhex(case["file"])) or reader.finish()

    def records(self, plaintext: bytes) -> list[tuple[int, bytes, bytes]]:
        """Type, body and whole encoding of each record up to the trailer."""
        at = 2 + int.from_bytes(plaintext[:2], "big")
        records = []
        while not records or records[-1][0] != 3:
            end = at + 5 + int.from_bytes(plaintext[at : at + 4], "big")
            records.append((plaintext[at + 4], plaintext[at + 5 : end], plaintext[at:end]))
            at = end
        assert not any(plaintext[at:])
        return records
