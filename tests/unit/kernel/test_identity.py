"""Keys, certificates, and the words and texts by which people read them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from outlast.errors import UsageError
from outlast.kernel.identity import (
    NAME_MAX_CHARS,
    Certificate,
    DeviceBody,
    IdentityError,
    SealingKey,
    SigningKey,
    certify,
    check_name,
    derive,
    entropy_of,
    fingerprint_words,
    id_text,
    identity_key,
    is_usable,
    node_text,
    parse_id,
    parse_node,
    parse_space,
    read_certificate,
    sign_prekey,
    space_text,
    spelled,
    verify,
    verify_prekey,
    without_joiners,
    words_of,
)
from tests.unit.kernel.people import person, secret

ALICE, MALLORY = person("alice"), person("mallory")
OLD_DEVICE = SigningKey.from_seed(secret("alice", "old device"))

keys = st.binary(min_size=32, max_size=32)
names = st.text(min_size=1, max_size=NAME_MAX_CHARS).filter(
    lambda name: name.isprintable() and name == " ".join(name.split()) and name != ""
)


class TestKeys:
    @given(keys, st.binary(max_size=100))
    def test_a_signature_holds_for_its_key_and_message_alone(self, seed: bytes, message: bytes) -> None:
        key = SigningKey.from_seed(seed)
        signature = key.sign(message)
        assert len(signature) == 64
        assert verify(key.public, signature, message)
        assert not verify(key.public, signature, message + b"!")
        assert not verify(MALLORY.signing.public, signature, message)

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_a_public_key_of_another_length_signs_nothing(self, size: int) -> None:
        assert not verify(bytes(size), ALICE.signing.sign(b"message"), b"message")

    @given(st.binary(max_size=80))
    def test_bytes_of_any_length_are_no_signature(self, signature: bytes) -> None:
        assert not verify(ALICE.signing.public, signature, b"message")

    @given(keys, keys)
    def test_two_sides_of_an_exchange_share_a_secret(self, one: bytes, other: bytes) -> None:
        a, b = SealingKey.from_secret(one), SealingKey.from_secret(other)
        assert a.exchange(b.public) == b.exchange(a.public)

    @pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes(31), bytes(33)])
    def test_an_exchange_with_an_unusable_key_is_refused(self, public: bytes) -> None:
        with pytest.raises(IdentityError, match="not usable"):
            ALICE.seal.exchange(public)

    def test_no_key_shows_its_secret_in_a_traceback_or_a_log(self) -> None:
        for key, secrets in (
            (ALICE.signing, (ALICE.signing.seed, ALICE.signing._secret)),
            (ALICE.seal, (ALICE.seal.secret,)),
            (SealingKey.from_secret(ALICE.seal.secret), (ALICE.seal.secret,)),
        ):
            assert repr(key.public) in repr(key)
            assert not any(repr(secret) in repr(key) for secret in secrets)

    @given(st.binary(max_size=100), st.binary(max_size=40), st.binary(max_size=40))
    def test_derivation_is_hkdf(self, material: bytes, label: bytes, context: bytes) -> None:
        hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=label + context)
        assert derive(material, label, context) == hkdf.derive(material)


BODY = DeviceBody(ALICE.identity.public, ALICE.signing.public, ALICE.seal.public, 1, "Alice")
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
"""RFC 7748 §6.1: the points whose multiples are zero."""


def signed(body: DeviceBody, domain: bytes = b"outlast/device/1") -> bytes:
    """A certificate by Alice and her device of whatever it says."""
    data = msgspec.msgpack.encode(body)
    return msgspec.msgpack.encode(
        Certificate(data, ALICE.identity.sign(domain + data), ALICE.signing.sign(domain + data))
    )


class TestCertificate:
    @given(keys, keys, keys, st.integers(0, 2**31 - 1), names, st.booleans())
    def test_it_says_what_the_identity_signed(
        self, seed: bytes, device_seed: bytes, seal_secret: bytes, day: int, name: str, crossed: bool
    ) -> None:
        identity, device = SigningKey.from_seed(seed), SigningKey.from_seed(device_seed)
        seal = SealingKey.from_secret(seal_secret).public
        data = certify(identity, device, seal, day, name, OLD_DEVICE if crossed else None)
        read = read_certificate(data)
        assert read.identity == identity.public
        assert (read.device, read.seal, read.created_day) == (device.public, seal, day)
        assert read.name == name
        assert read.cross == (OLD_DEVICE.public if crossed else None)
        assert read.certificate == data

    @pytest.mark.parametrize("cross", [None, OLD_DEVICE])
    def test_no_bit_of_it_can_be_changed(self, cross: SigningKey | None) -> None:
        data = certify(ALICE.identity, ALICE.signing, ALICE.seal.public, 1, "Alice", cross)
        for bit in range(len(data) * 8):
            altered = bytearray(data)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(IdentityError):
                read_certificate(bytes(altered))

    def test_cut_at_any_byte_it_is_refused(self) -> None:
        data = ALICE.device.certificate
        for size in range(len(data)):
            with pytest.raises(IdentityError):
                read_certificate(data[:size])

    @given(st.binary(max_size=300))
    def test_hostile_bytes_are_refused_with_one_kind_of_error(self, data: bytes) -> None:
        with pytest.raises(IdentityError):
            read_certificate(data)

    @pytest.mark.parametrize(
        "changed",
        [
            {"identity": ALICE.identity.public[:31]},
            {"device": bytes(31)},
            {"seal": bytes(33)},
            {"created_day": -1},
            {"created_day": 2**31},
            {"name": ""},
            {"name": " Alice"},
            {"name": "Alice\nyour bank"},
            {"name": "Al" + " " * 1000 + "ice"},
            {"name": "Al\u202eice"},
            {"name": "a" * (NAME_MAX_CHARS + 1)},
        ],
    )
    def test_a_signed_body_out_of_bounds_is_refused(self, changed: dict[str, object]) -> None:
        with pytest.raises(IdentityError, match="no device certificate"):
            read_certificate(signed(msgspec.structs.replace(BODY, **changed)))

    @given(st.binary(min_size=32, max_size=32) | st.sampled_from(LOW_ORDER))
    def test_a_key_is_usable_exactly_when_it_shares_a_secret(self, public: bytes) -> None:
        for key in (public, bytes((*public[:31], public[31] ^ 0x80))):
            try:
                ALICE.seal.exchange(key)
            except IdentityError:
                assert not is_usable(key)
            else:
                assert is_usable(key)

    @pytest.mark.parametrize("seal", LOW_ORDER, ids=bytes.hex)
    def test_a_key_that_nothing_can_be_sealed_to_is_refused(self, seal: bytes) -> None:
        with pytest.raises(IdentityError, match="nothing can be sealed to"):
            read_certificate(signed(msgspec.structs.replace(BODY, seal=seal)))

    def test_nobody_can_certify_a_device_that_is_not_theirs(self) -> None:
        data = msgspec.msgpack.encode(msgspec.structs.replace(BODY, identity=MALLORY.identity.public))
        message = b"outlast/device/1" + data
        for by_device in (MALLORY.signing.sign(message), MALLORY.identity.sign(message), bytes(64), b""):
            forged = Certificate(data, MALLORY.identity.sign(message), by_device)
            with pytest.raises(IdentityError, match="not signed by its device"):
                read_certificate(msgspec.msgpack.encode(forged))

    def test_an_older_device_counts_only_by_its_own_signature(self) -> None:
        message = b"outlast/device/1" + msgspec.msgpack.encode(BODY)
        whole = msgspec.msgpack.decode(signed(BODY), type=Certificate)
        for by_cross in (MALLORY.signing.sign(message), whole.by_device, b"", None):
            forged = msgspec.structs.replace(whole, by_cross=by_cross, cross=OLD_DEVICE.public)
            with pytest.raises(IdentityError, match="older device"):
                read_certificate(msgspec.msgpack.encode(forged))

    def test_a_signature_for_another_purpose_is_none(self) -> None:
        with pytest.raises(IdentityError, match="not signed by its identity"):
            read_certificate(signed(BODY, b"outlast/prekey/1"))


class TestPrekey:
    @given(keys, st.integers(0, 2**32 - 1))
    def test_it_holds_for_its_device_and_day_alone(self, prekey: bytes, day: int) -> None:
        signature = sign_prekey(ALICE.signing, prekey, day)
        device = ALICE.device.device
        assert verify_prekey(device, prekey, day, signature)
        assert not verify_prekey(device, prekey, (day + 1) % 2**32, signature)
        assert not verify_prekey(MALLORY.device.device, prekey, day, signature)
        assert not verify_prekey(device, secret("other"), day, signature)

    @pytest.mark.parametrize("day", [-1, 2**32])
    def test_a_day_that_cannot_be_signed_is_refused(self, day: int) -> None:
        assert not verify_prekey(ALICE.device.device, bytes(32), day, bytes(64))


class TestNames:
    @given(st.text(max_size=200))
    def test_a_name_is_one_short_printable_line_or_refused(self, name: str) -> None:
        try:
            checked = check_name(name)
        except UsageError:
            return
        assert 1 <= len(checked) <= NAME_MAX_CHARS
        assert without_joiners(checked).isprintable()
        assert check_name(checked) == checked

    def test_space_around_and_between_is_trimmed(self) -> None:
        assert check_name("  Анна \n Ивановна ") == "Анна Ивановна"

    @pytest.mark.parametrize("name", ["علی\u200cرضا", "ক্\u200dষ", "\U0001f468\u200d\U0001f469\u200d\U0001f467"])
    def test_it_may_have_what_its_script_is_written_with(self, name: str) -> None:
        assert check_name(f" {name} ") == name
        assert spelled(name) == spelled(name.replace("\u200c", "").replace("\u200d", ""))

    @pytest.mark.parametrize(
        "name",
        ["", "  ", "a\x07b", "a\u202eb", "a" * (NAME_MAX_CHARS + 1), "\u200c", "a\u200d", "\u200cb", "a\u200c\u200db"],
    )
    def test_others_are_refused(self, name: str) -> None:
        with pytest.raises(UsageError, match="printable"):
            check_name(name)


TEXTS: list[tuple[Callable[[bytes], str], Callable[[str], bytes]]] = [
    (id_text, parse_id),
    (node_text, parse_node),
    (space_text, parse_space),
]


class TestTexts:
    @pytest.mark.parametrize(("write", "parse"), TEXTS)
    @given(key=keys)
    def test_a_key_comes_back_from_its_text(
        self, write: Callable[[bytes], str], parse: Callable[[str], bytes], key: bytes
    ) -> None:
        text = write(key)
        assert len(text) == 56
        assert parse(text) == parse(f" {text.upper()}\n") == key

    @given(keys, st.data())
    def test_a_slip_of_one_character_is_noticed(self, key: bytes, data: st.DataObject) -> None:
        text = id_text(key)
        at = data.draw(st.integers(0, 55))
        slip = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(text[at].__ne__))
        with pytest.raises(UsageError, match="copy it whole"):
            parse_id(text[:at] + slip + text[at + 1 :])

    @given(keys)
    def test_texts_for_different_things_are_not_mistaken(self, key: bytes) -> None:
        for write, _ in TEXTS:
            for other, parse in TEXTS:
                if other is not write:
                    with pytest.raises(UsageError, match="copy it whole"):
                        parse(write(key))

    @given(st.text(max_size=80))
    def test_other_text_is_refused_in_one_line(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse_id(text)
        assert str(caught.value).isprintable()


class TestWords:
    @given(keys)
    def test_the_secret_comes_back_from_its_words(self, entropy: bytes) -> None:
        words = words_of(entropy)
        assert len(words) == 24
        assert entropy_of("  ".join(words).upper()) == entropy

    def test_numbers_and_headings_are_no_words(self) -> None:
        words = words_of(secret("entropy"))
        rows = [f"{number}. {word}" for number, word in enumerate(words, 1)]
        assert entropy_of("My words:\r\n" + "\r\n".join(rows)) == secret("entropy")
        assert entropy_of(" ".join(f"{number}){word}" for number, word in enumerate(words, 1))) == secret("entropy")

    def test_they_are_those_of_bip39(self) -> None:
        assert words_of(bytes(32)) == ["abandon"] * 23 + ["art"]
        assert words_of(b"\xff" * 32) == ["zoo"] * 23 + ["vote"]

    def test_a_word_that_is_in_no_list_is_named_by_its_place(self) -> None:
        with pytest.raises(UsageError, match="word 3 is not in the list"):
            entropy_of(" ".join(["abandon", "abandon", "abandom", *["abandon"] * 20, "art"]))

    def test_too_few_words_are_counted(self) -> None:
        with pytest.raises(UsageError, match="24 words are needed, 23 were given"):
            entropy_of("abandon " * 23)

    def test_swapped_words_are_noticed(self) -> None:
        words = words_of(secret("entropy"))
        words[0], words[1] = words[1], words[0]
        with pytest.raises(UsageError, match="do not fit together"):
            entropy_of(" ".join(words))

    def test_a_person_is_made_of_their_secret(self) -> None:
        assert identity_key(bytes(32)) == identity_key(bytes(32))
        assert identity_key(bytes(32)).public != identity_key(secret("other")).public

    @given(keys)
    def test_six_words_stand_for_66_bits_of_the_identity(self, identity: bytes) -> None:
        known = Mnemonic("english").wordlist
        words = fingerprint_words(identity)
        bits = "".join(f"{known.index(word):011b}" for word in words)
        digest = int.from_bytes(sha256(b"outlast/words/1" + identity).digest(), "big")
        assert bits == f"{digest:0256b}"[:66]
