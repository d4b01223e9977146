"""Envelopes: only the right device opens them, and nothing outside tells one from another."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.kernel import hpke, mail
from outlast.kernel.entry import (
    DAY_MS,
    HOUR_MS,
    Entry,
    EntryError,
    Header,
    day_of,
    decode_header,
    encode_header,
    entry_id,
    pack,
    sign_entry,
    signing_input,
    unpack,
)
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    NAME_MAX_CHARS,
    Certificate,
    DeviceBody,
    IdentityError,
    SigningKey,
    certify,
    derive,
    read_certificate,
    verify,
)
from outlast.kernel.mail import (
    INTRO_TAGS,
    LETTER_MAX_BYTES,
    MAIL_LIFE_DAYS,
    MAIL_SPACE,
    PAYLOAD_CLASSES,
    Introduction,
    MailError,
    Place,
    SealedLetter,
    apart,
    direction_key,
    intro_counter,
    intro_key,
    is_better_apart,
    is_wellformed_envelope,
    open_body,
    open_introduction,
    open_letter,
    place_of,
    read_place,
    seal_body,
    seal_introduction,
    seal_letter,
    tag,
)
from tests.unit.kernel.people import NOW_MS, Person, person, secret, stream

ALICE, BOB, MALLORY = person("alice"), person("bob"), person("mallory")
INTRO_SECRET = secret("intro")[:16]

bodies = st.binary(max_size=2000)


def letter(body: bytes = b"hello", **changed: Any) -> SealedLetter:
    return msgspec.structs.replace(
        SealedLetter(
            id=secret("letter")[:16],
            kind="carry.text",
            sent_ms=NOW_MS,
            life_ms=30 * DAY_MS,
            prekey=ALICE.prekeys[0].public,
            prekey_day=day_of(NOW_MS),
            body=body,
        ),
        **changed,
    )


def seal(
    what: SealedLetter | None = None,
    sender: Person = ALICE,
    receiver: Person = BOB,
    *,
    prekey: OpeningKey | None = None,
    counter: int = 0,
    now_ms: int = NOW_MS,
    rand: Callable[[int], bytes] | None = None,
) -> Entry:
    return seal_letter(
        what or letter(),
        key=direction_key(sender.seal, sender.device, receiver.device),
        counter=counter,
        sender=sender.device,
        sender_seal=sender.seal,
        receiver=receiver.device,
        prekey=(prekey or receiver.prekeys[0]).public,
        now_ms=now_ms,
        rand=rand or stream("seal"),
    )


def unseal(entry: Entry, sender: Person = ALICE, receiver: Person = BOB) -> SealedLetter:
    return open_letter(entry, prekeys=receiver.prekeys, sender=sender.device, receiver=receiver.device)


def introduce(
    what: SealedLetter | None = None,
    sender: Person = ALICE,
    rand: Callable[[int], bytes] | None = None,
    counter: int = 5,
) -> Entry:
    return seal_introduction(
        what or letter(),
        intro_secret=INTRO_SECRET,
        sender=sender.device,
        sender_seal=sender.seal,
        receiver=BOB.device,
        counter=counter,
        prekey=BOB.prekeys[0].public,
        now_ms=NOW_MS,
        rand=rand or stream("introduce"),
    )


def meet(entry: Entry, receiver: Person = BOB, intro_secret: bytes = INTRO_SECRET) -> Introduction:
    return open_introduction(
        entry,
        intro_secret=intro_secret,
        prekeys=receiver.prekeys,
        receiver=receiver.device,
    )


def forge(payload: bytes, author: SigningKey, **changed: Any) -> Entry:
    """An envelope with that payload, as anybody can sign one."""
    header = msgspec.structs.replace(
        seal().header,
        author=author.public,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        **changed,
    )
    return sign_entry(header, author, payload)


class TestSpace:
    def test_its_id_is_that_of_its_genesis(self) -> None:
        data = encode_header(mail.MAIL_GENESIS)
        assert decode_header(data) == mail.MAIL_GENESIS
        assert entry_id(data) == MAIL_SPACE


class TestTags:
    @given(st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_a_tag_is_an_hmac_of_day_and_counter(self, key: bytes, day: int, counter: int) -> None:
        message = day.to_bytes(4, "big") + counter.to_bytes(4, "big")
        assert tag(key, day, counter) == hmac.new(key, message, sha256).digest()[:16]

    def test_both_sides_find_the_same_key_for_a_direction(self) -> None:
        there = direction_key(ALICE.seal, ALICE.device, BOB.device)
        assert there == direction_key(BOB.seal, ALICE.device, BOB.device)
        assert there != direction_key(BOB.seal, BOB.device, ALICE.device)
        assert there != direction_key(MALLORY.seal, ALICE.device, MALLORY.device)

    def test_somebody_elses_device_under_ones_own_identity_has_other_keys(self) -> None:
        fake = replace(ALICE.device, identity=MALLORY.device.identity)
        assert direction_key(BOB.seal, fake, BOB.device) != direction_key(BOB.seal, ALICE.device, BOB.device)

    def test_a_device_with_an_unusable_key_has_no_direction(self) -> None:
        with pytest.raises(IdentityError):
            direction_key(ALICE.seal, ALICE.device, replace(BOB.device, seal=bytes(32)))

    def test_no_two_of_a_key_are_alike(self) -> None:
        key = secret("key")
        assert len({tag(key, day, counter) for day in range(20) for counter in range(50)}) == 1000

    def test_the_receiver_finds_a_letter_by_the_tag_it_expects(self) -> None:
        key = direction_key(BOB.seal, ALICE.device, BOB.device)
        assert seal(counter=7).header.tags == (tag(key, day_of(NOW_MS), 7),)

    def test_the_receiver_finds_every_introduction_by_its_link(self) -> None:
        key = intro_key(INTRO_SECRET, BOB.device)
        for counter in (0, 1, INTRO_TAGS - 1):
            assert introduce(counter=counter).header.tags == (tag(key, day_of(NOW_MS), counter),)

    def test_a_sender_takes_every_tag_of_introductions_before_one_twice(self) -> None:
        for day in (0, day_of(NOW_MS)):
            order = [intro_counter(secret("own"), BOB.device, day, number) for number in range(2 * INTRO_TAGS)]
            assert set(order[:INTRO_TAGS]) == set(range(INTRO_TAGS))
            assert order[INTRO_TAGS:] == order[:INTRO_TAGS]

    def test_in_an_order_that_only_the_sender_knows(self) -> None:
        orders = [
            tuple(intro_counter(own, device, day, number) for number in range(64))
            for own in (secret("own"), secret("another"))
            for device in (BOB.device, MALLORY.device)
            for day in (1, 2)
        ]
        assert len(set(orders)) == len(orders)
        steps = [(b - a) % INTRO_TAGS for a, b in itertools.pairwise(orders[0])]
        assert len(set(steps)) > 50


class TestLetters:
    @given(bodies, st.integers(0, 2**53 - 1), st.booleans())
    def test_a_letter_comes_back(self, body: bytes, life_ms: int, with_prekey: bool) -> None:
        what = letter(body, life_ms=life_ms)
        if not with_prekey:
            what = letter(body, life_ms=life_ms, prekey=None, prekey_day=None)
        sealed = seal(what)
        assert is_wellformed_envelope(sealed.header)
        read, end = unpack(pack(sealed))
        assert end == len(pack(sealed))
        assert verify(read.header.author, read.signature, signing_input(read.header_bytes))
        assert unseal(read) == what

    def test_it_opens_by_an_older_prekey(self) -> None:
        assert unseal(seal(prekey=BOB.prekeys[1])) == letter()

    def test_it_opens_for_nobody_else(self) -> None:
        sealed = seal()
        with pytest.raises(MailError, match="none of the prekeys"):
            unseal(sealed, receiver=MALLORY)
        with pytest.raises(MailError, match="none of the prekeys"):
            unseal(sealed, sender=MALLORY)
        with pytest.raises(MailError, match="none of the prekeys"):
            open_letter(sealed, prekeys=(), sender=ALICE.device, receiver=BOB.device)

    def test_nobody_can_write_as_another(self) -> None:
        posing = replace(MALLORY, device=ALICE.device)
        with pytest.raises(MailError):
            unseal(seal(sender=posing))

    def test_the_receiver_cannot_turn_it_on_others(self) -> None:
        """Who may open a letter cannot make it look like one to somebody else or by another."""
        sealed = seal()
        assert sealed.payload is not None
        for sender, receiver in (
            (ALICE.device, MALLORY.device),
            (ALICE.device, replace(BOB.device, identity=MALLORY.device.identity)),
            (replace(ALICE.device, identity=MALLORY.device.identity), BOB.device),
            (replace(ALICE.device, device=MALLORY.device.device), BOB.device),
        ):
            with pytest.raises(MailError):
                open_letter(sealed, prekeys=BOB.prekeys, sender=sender, receiver=receiver)

    def test_its_payload_cannot_travel_in_another_envelope(self) -> None:
        sealed = seal()
        assert sealed.payload is not None
        with pytest.raises(MailError):
            unseal(forge(sealed.payload, MALLORY.signing))
        day_later = {
            "ts_ms": sealed.header.ts_ms + DAY_MS,
            "expires_day": sealed.header.expires_day + 1,
        }
        same_author = SigningKey.from_seed(stream("seal")(32))
        assert unseal(forge(sealed.payload, same_author)) == letter()
        with pytest.raises(MailError):
            unseal(forge(sealed.payload, same_author, **day_later))

    def test_no_bit_of_the_packed_envelope_can_be_changed(self) -> None:
        whole = seal()
        packed = pack(whole)
        for bit in range(len(packed) * 8):
            altered = bytearray(packed)
            altered[bit // 8] ^= 1 << bit % 8
            try:
                read, _ = unpack(bytes(altered))
            except EntryError:
                continue
            message = signing_input(read.header_bytes)
            if verify(read.header.author, read.signature, message):
                with pytest.raises(MailError, match="not arrived"):
                    unseal(read)

    def test_no_byte_of_the_payload_can_be_changed(self) -> None:
        whole = seal()
        assert whole.payload is not None
        for at in range(len(whole.payload)):
            altered = bytearray(whole.payload)
            altered[at] ^= 1 << at % 8
            with pytest.raises(MailError):
                unseal(msgspec.structs.replace(whole, payload=bytes(altered)))

    @given(st.sampled_from(PAYLOAD_CLASSES), st.binary(min_size=1, max_size=64))
    def test_hostile_payloads_are_refused_with_one_kind_of_error(self, size: int, seed: bytes) -> None:
        payload = (seed * size)[:size]
        with pytest.raises(MailError):
            unseal(forge(payload, MALLORY.signing))
        with pytest.raises(MailError):
            meet(forge(payload, MALLORY.signing))

    @given(st.integers(0, 464), st.binary(max_size=464))
    def test_hostile_plaintexts_of_a_contact_are_refused_with_one_kind_of_error(self, length: int, rest: bytes) -> None:
        with pytest.raises(MailError):
            unseal(self.envelope_of(length.to_bytes(2, "big") + rest))

    @pytest.mark.parametrize(
        "changed",
        [
            {"version": 3},
            {"version": 2},
            {"version": 0},
            {"id": bytes(15)},
            {"kind": ""},
            {"kind": "k" * 33},
            {"sent_ms": -1},
            {"sent_ms": 2**53},
            {"life_ms": -1},
            {"prekey": None},
            {"prekey_day": None},
            {"prekey": bytes(31)},
            {"prekey_day": -1},
            {"prekey_day": 2**31},
            {"body": bytes(LETTER_MAX_BYTES + 1)},
        ],
    )
    def test_malformed_letters_are_refused_in_both_directions(self, changed: dict[str, Any]) -> None:
        malformed = letter(**changed)
        with pytest.raises(MailError):
            seal(malformed)
        data = msgspec.msgpack.encode(malformed)
        if len(data) < 460:
            with pytest.raises(MailError):
                unseal(self.envelope_of(len(data).to_bytes(2, "big") + data))

    def test_padding_holds_nothing(self) -> None:
        data = msgspec.msgpack.encode(letter())
        framed = len(data).to_bytes(2, "big") + data
        assert unseal(self.envelope_of(framed)) == letter()
        with pytest.raises(MailError, match="padding"):
            unseal(self.envelope_of(framed + b"\0\0hidden"))

    def test_more_elements_are_refused(self) -> None:
        data = b"\x99" + msgspec.msgpack.encode(letter())[1:] + b"\x01"
        with pytest.raises(MailError):
            unseal(self.envelope_of(len(data).to_bytes(2, "big") + data))

    def test_a_prekey_of_low_order_is_refused(self) -> None:
        with pytest.raises(MailError, match="prekey is not usable"):
            seal(prekey=replace(BOB.prekeys[0], public=bytes(32)))

    def test_a_header_without_its_payload_waits(self) -> None:
        with pytest.raises(MailError, match="not arrived"):
            unseal(msgspec.structs.replace(seal(), payload=None))

    def test_every_failure_is_a_protocol_error(self) -> None:
        assert issubclass(MailError, ProtocolError)

    def envelope_of(self, plaintext: bytes) -> Entry:
        """What Alice's device can seal when its program is broken or hostile."""
        author = SigningKey.from_seed(secret("author"))
        header = seal().header
        aad = (
            ALICE.device.identity
            + ALICE.device.device
            + BOB.device.identity
            + BOB.device.device
            + MAIL_SPACE
            + author.public
            + header.expires_day.to_bytes(4, "big")
        )
        payload = hpke.seal(
            BOB.prekeys[0].public,
            plaintext.ljust(464, b"\0")[:464],
            info=b"outlast/mail/1",
            aad=aad,
            ephemeral=secret("ephemeral"),
            sender=ALICE.seal,
        )
        assert payload is not None
        return forge(payload, author)


class TestSizes:
    def test_a_text_of_300_bytes_with_prekey_fits_the_smallest_class(self) -> None:
        sealed = seal(letter(bytes(377), kind="carry.text"))
        assert sealed.payload is not None
        assert len(sealed.payload) == 512
        assert len(pack(sealed)) == 726

    @pytest.mark.parametrize(
        ("size", "size_class"),
        [(0, 512), (377, 512), (378, 1024), (889, 1024), (890, 4096), (3961, 4096), (3962, 16384)],
    )
    def test_the_smallest_class_that_fits_is_taken(self, size: int, size_class: int) -> None:
        assert seal(letter(bytes(size))).header.payload_size == size_class

    def test_the_largest_letter_fits_in_every_form(self) -> None:
        largest = letter(
            bytes(LETTER_MAX_BYTES),
            kind="k" * 32,
            sent_ms=2**53 - 1,
            life_ms=2**53 - 1,
            prekey_day=2**31 - 1,
        )
        assert seal(largest).header.payload_size == 16384
        named = replace(
            ALICE,
            device=read_certificate(
                certify(
                    ALICE.identity,
                    ALICE.signing,
                    ALICE.seal.public,
                    2**31 - 1,
                    "\U0001f600" * NAME_MAX_CHARS,
                    MALLORY.signing,
                )
            ),
        )
        entry = introduce(largest, sender=named)
        assert entry.header.payload_size == 16384
        assert meet(entry).letter == largest

    def test_a_larger_one_is_refused_with_its_size(self) -> None:
        for make in (seal, introduce):
            with pytest.raises(MailError, match="at most 15360 bytes, this has 15361"):
                make(letter(bytes(LETTER_MAX_BYTES + 1)))


class TestIntroductions:
    @given(bodies)
    def test_it_brings_the_sender_and_the_first_letter(self, body: bytes) -> None:
        entry = introduce(letter(body))
        assert is_wellformed_envelope(entry.header)
        read, _ = unpack(pack(entry))
        assert meet(read) == (ALICE.device, ALICE.prekeys[0].public, day_of(NOW_MS), letter(body))

    def test_it_opens_for_nobody_else(self) -> None:
        entry = introduce()
        with pytest.raises(MailError, match="none of the prekeys"):
            meet(entry, receiver=MALLORY)
        with pytest.raises(MailError, match="none of the prekeys"):
            meet(entry, intro_secret=secret("other")[:16])
        posing = replace(BOB, device=replace(BOB.device, identity=MALLORY.device.identity))
        with pytest.raises(MailError, match="none of the prekeys"):
            meet(entry, receiver=posing)

    def test_nobody_can_introduce_another(self) -> None:
        """Mallory knows Bob's link and Alice's certificate, but not her device's key."""
        with pytest.raises(MailError, match="not written by the device"):
            meet(introduce(sender=replace(MALLORY, device=ALICE.device)))

    def test_nobody_can_pass_off_anothers_device_as_their_own(self) -> None:
        """Mallory certifies Alice's device, which has not signed that, and puts her sealed letter behind it."""
        body = msgspec.msgpack.encode(
            DeviceBody(MALLORY.identity.public, ALICE.device.device, ALICE.device.seal, 20_000, "alice")
        )
        signature = MALLORY.identity.sign(b"outlast/device/1" + body)
        fake = msgspec.msgpack.encode(Certificate(body, signature, MALLORY.signing.sign(b"outlast/device/1" + body)))
        author = SigningKey.from_seed(stream("introduce")(32))
        opened = self.outer(introduce())
        assert meet(self.wrap(opened, author)).device == ALICE.device
        swapped = opened.replace(ALICE.device.certificate, fake)
        assert len(swapped) == len(opened)
        with pytest.raises(MailError, match="not signed by its device"):
            meet(self.wrap(swapped, author))

    def test_it_must_carry_a_prekey(self) -> None:
        bare = letter(prekey=None, prekey_day=None)
        with pytest.raises(MailError, match="prekey"):
            introduce(bare)
        author = SigningKey.from_seed(secret("author"))
        data = msgspec.msgpack.encode(bare)
        certificate = ALICE.device.certificate
        inner = hpke.seal(
            BOB.prekeys[0].public,
            (len(data).to_bytes(2, "big") + data).ljust(1024 - 98 - len(certificate), b"\0"),
            info=b"outlast/mail/1",
            aad=self.parties() + MAIL_SPACE + author.public + self.expires(),
            ephemeral=secret("inner"),
            sender=ALICE.seal,
        )
        assert inner is not None
        entry = self.wrap(len(certificate).to_bytes(2, "big") + certificate + inner, author)
        with pytest.raises(MailError, match="holds no prekey"):
            meet(entry)

    @given(st.binary(max_size=464))
    def test_hostile_plaintexts_of_who_has_the_link_are_refused_with_one_kind_of_error(self, plaintext: bytes) -> None:
        with pytest.raises(MailError):
            meet(self.wrap(plaintext.ljust(464, b"\0"), MALLORY.signing))

    def test_a_certificate_that_does_not_hold_is_refused(self) -> None:
        forged = bytearray(ALICE.device.certificate)
        forged[-10] ^= 1
        with pytest.raises(MailError, match="not signed by its device"):
            meet(introduce(sender=replace(ALICE, device=self.with_certificate(bytes(forged)))))
        with pytest.raises(MailError, match="at most 700"):
            introduce(sender=replace(ALICE, device=self.with_certificate(bytes(701))))

    def test_no_byte_of_the_payload_can_be_changed(self) -> None:
        whole = introduce()
        assert whole.payload is not None
        for at in range(len(whole.payload)):
            altered = bytearray(whole.payload)
            altered[at] ^= 1 << at % 8
            with pytest.raises(MailError):
                meet(msgspec.structs.replace(whole, payload=bytes(altered)))

    def with_certificate(self, certificate: bytes) -> Any:
        return replace(ALICE.device, certificate=certificate)

    def parties(self) -> bytes:
        alice, bob = ALICE.device, BOB.device
        return alice.identity + alice.device + bob.identity + bob.device

    def expires(self) -> bytes:
        return (day_of(NOW_MS) + MAIL_LIFE_DAYS + 1).to_bytes(4, "big")

    def outer_sealing(self, author: bytes) -> dict[str, bytes]:
        party = BOB.device.identity + BOB.device.device
        return {
            "info": b"outlast/mail/intro/1",
            "aad": party + MAIL_SPACE + author + self.expires(),
            "psk": derive(INTRO_SECRET, b"outlast/mail/psk/1", party),
            "psk_id": b"outlast/intro",
        }

    def outer(self, entry: Entry) -> bytes:
        assert entry.payload is not None
        opened = hpke.unseal(BOB.prekeys[0], entry.payload, **self.outer_sealing(entry.header.author))
        assert opened is not None
        return opened

    def wrap(self, plaintext: bytes, author: SigningKey) -> Entry:
        payload = hpke.seal(
            BOB.prekeys[0].public,
            plaintext,
            ephemeral=secret("outer"),
            **self.outer_sealing(author.public),
        )
        assert payload is not None
        return forge(payload, author)


class TestWhatAnEnvelopeShows:
    """An observer who holds every envelope sees no difference between kinds of letters."""

    KINDS = (
        letter(bytes(300)),
        letter(b"", kind="receipt", prekey=None, prekey_day=None, life_ms=0),
        letter(b"\x01", kind="prekey", life_ms=0, sent_ms=0),
    )
    RANDOM = ("author", "payload_hash", "tags")

    def envelopes(self, what: SealedLetter, number: int) -> list[Entry]:
        return [
            seal(
                what,
                counter=n,
                now_ms=NOW_MS + n * HOUR_MS // 7,
                rand=stream(what.kind, "rand", n),
            )
            for n in range(number)
        ]

    def test_all_fields_but_the_random_ones_are_the_same(self) -> None:
        def shown(entry: Entry) -> tuple[object, ...]:
            assert entry.payload is not None
            fields = msgspec.structs.asdict(entry.header)
            for name in self.RANDOM:
                del fields[name]
            return (
                *fields.values(),
                len(entry.payload),
                len(pack(entry)),
                len(entry.header.tags[0]),
            )

        seen = [[shown(e) for e in self.envelopes(what, 60)] for what in self.KINDS]
        assert seen[0] == seen[1] == seen[2]

    def test_the_random_fields_are_spread_alike(self) -> None:
        """Every bit is set about half the time, for every kind; 6 sigma of 400 draws are 60."""
        for what in self.KINDS:
            columns: list[bytes] = []
            for entry in self.envelopes(what, 400):
                assert entry.payload is not None
                # Neither an X25519 nor an Ed25519 point fills its top bits evenly: bytes 31 of
                # enc and of the author are left out.
                columns.append(
                    entry.header.author[:31]
                    + entry.header.payload_hash
                    + entry.header.tags[0]
                    + entry.payload[:31]
                    + entry.payload[32:]
                )
            for place in range(len(columns[0])):
                for bit in range(8):
                    ones = sum(column[place] >> bit & 1 for column in columns)
                    assert 140 < ones < 260, (what.kind, place, bit)

    def test_no_two_share_a_field_that_could_link_them(self) -> None:
        envelopes = [entry for what in self.KINDS for entry in self.envelopes(what, 50)]
        for field in ("author", "payload_hash"):
            assert len({getattr(e.header, field) for e in envelopes}) == len(envelopes)
        encs = {e.payload[:32] for e in envelopes if e.payload is not None}
        assert len(encs) == len(envelopes)

    def test_the_time_is_that_of_the_hour(self) -> None:
        ts = {seal(now_ms=NOW_MS - NOW_MS % HOUR_MS + ms).header.ts_ms for ms in (0, 1, 3_599_999)}
        assert ts == {NOW_MS - NOW_MS % HOUR_MS}

    @pytest.mark.parametrize(
        "changed",
        [
            {"version": 2},
            {"space": bytes(32)},
            {"kind": "mails"},
            {"seq": 1},
            {"seq": 2, "prev": bytes(32)},
            {"clock": 1},
            {"ts_ms": seal().header.ts_ms + 1},
            {"ts_ms": seal().header.ts_ms + DAY_MS},
            {"expires_day": seal().header.expires_day + 1},
            {"expires_day": 0},
            {"priority": 0},
            {"payload_size": 511},
            {"payload_size": 0},
            {"payload_size": 65536},
            {"tags": ()},
            {"tags": (bytes(15),)},
            {"tags": (bytes(16), bytes([1] * 16))},
            {"stamp_nonce": 1},
        ],
    )
    def test_whatever_differs_is_no_envelope(self, changed: dict[str, Any]) -> None:
        sealed = seal()
        assert is_wellformed_envelope(sealed.header)
        header: Header = msgspec.structs.replace(sealed.header, **changed)
        assert not is_wellformed_envelope(header)
        with pytest.raises(MailError, match="no envelope"):
            unseal(msgspec.structs.replace(sealed, header=header))


def test_sealing_asks_for_all_its_chance() -> None:
    """Two envelopes of the same letter differ only by what `rand` gave."""
    assert pack(seal(rand=stream(1))) == pack(seal(rand=stream(1)))
    assert pack(seal(rand=stream(1))) != pack(seal(rand=stream(2)))


class TestApart:
    """Bodies that lie apart."""

    @given(st.binary(max_size=LETTER_MAX_BYTES))
    def test_the_body_opens_by_what_the_letter_says(self, body: bytes) -> None:
        once, place = seal_body(body, now_ms=NOW_MS, rand=stream(body))
        opened = unseal(seal(apart(letter(b"anything"), place)))
        assert place_of(opened) == place
        assert open_body(once, place) == body
        assert is_wellformed_envelope(once.header)
        assert len(pack(once)) == once.header.payload_size + 214

    def test_a_body_that_lies_in_its_letter_has_no_place(self) -> None:
        assert place_of(unseal(seal(letter()))) is None

    def test_it_begins_with_a_public_key_that_only_its_own_key_fits(self) -> None:
        once, place = seal_body(b"hello", now_ms=NOW_MS, rand=stream("once"))
        payload = once.payload or b""
        assert payload[:32] == OpeningKey.from_secret(place.key).public
        other = OpeningKey.from_secret(secret("other")).public + payload[32:]
        entry = forge(other, SigningKey.from_seed(stream("once")(32)), tags=(place.tag,))
        with pytest.raises(MailError):
            open_body(entry, Place(place.tag, sha256(other).digest(), place.key))

    def test_no_byte_of_it_can_be_changed(self) -> None:
        once, place = seal_body(b"hello", now_ms=NOW_MS, rand=stream("once"))
        payload = once.payload or b""
        for at in range(len(payload)):
            changed = payload[:at] + bytes((payload[at] ^ 1,)) + payload[at + 1 :]
            entry = forge(changed, SigningKey.from_seed(stream("once")(32)), tags=(place.tag,))
            with pytest.raises(MailError):
                open_body(entry, place)
            if at >= 32:
                with pytest.raises(MailError):
                    open_body(entry, Place(place.tag, sha256(changed).digest(), place.key))

    def test_another_body_under_the_same_tag_and_key_is_not_taken(self) -> None:
        _, place = seal_body(b"hello", now_ms=NOW_MS, rand=stream("once"))
        given_ = iter((secret("author"), place.tag, place.key))
        forged, _ = seal_body(b"farewell", now_ms=NOW_MS, rand=lambda _: next(given_))
        with pytest.raises(MailError, match="not the body"):
            open_body(forged, place)

    def test_too_much_is_refused(self) -> None:
        with pytest.raises(MailError, match="at most"):
            seal_body(bytes(LETTER_MAX_BYTES + 1), now_ms=NOW_MS, rand=stream("once"))

    @pytest.mark.parametrize("place", [Place(b"", bytes(32), bytes(32)), Place(bytes(16), bytes(31), bytes(32))])
    def test_a_place_of_another_form_is_refused(self, place: Place) -> None:
        with pytest.raises(MailError, match="where its body is"):
            read_place(msgspec.msgpack.encode(place))

    @given(
        st.integers(0, LETTER_MAX_BYTES),
        st.lists(st.booleans(), min_size=1, max_size=60),
        st.sampled_from([None, ALICE.prekeys[0].public]),
    )
    def test_it_is_chosen_exactly_where_it_takes_fewer_bytes(
        self, size: int, introduces: list[bool], prekey: bytes | None
    ) -> None:
        what = letter(bytes(size), prekey=prekey, prekey_day=day_of(NOW_MS) if prekey else None)
        if prekey is None:
            introduces = [False] * len(introduces)
        once, place = seal_body(bytes(size), now_ms=NOW_MS, rand=stream("once"))

        def together(one: SealedLetter) -> int:
            sizes = {new: len(pack(introduce(one) if new else seal(one))) for new in set(introduces)}
            return sum(sizes[new] for new in introduces)

        takes_less = len(pack(once)) + together(apart(what, place)) < together(what)
        assert is_better_apart(what, introduces, len(ALICE.device.certificate)) == takes_less

    def test_a_group_of_fifty_takes_little_more_than_one_envelope_for_each(self) -> None:
        for size, most in ((800, 37_000), (4400, 53_000)):
            what = letter(bytes(size))
            once, place = seal_body(what.body, now_ms=NOW_MS, rand=stream("once"))
            assert len(pack(once)) + 49 * len(pack(seal(apart(what, place)))) < most
