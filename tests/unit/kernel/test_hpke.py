"""HPKE does as RFC 9180 says, which a second implementation checks, and fails in one way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from outlast.kernel.hpke import OVERHEAD_BYTES, OpeningKey, seal, unseal
from tests.unit.kernel.people import secret
from tests.unit.kernel.test_noise import LOW_ORDER
from tests.vectors import rfc9180

SENDER = OpeningKey.from_secret(secret("sender"))
RECEIVER = OpeningKey.from_secret(secret("receiver"))
OTHER = OpeningKey.from_secret(secret("other"))
PSK = {"psk": secret("psk"), "psk_id": b"id"}

PUBLISHED = json.loads((Path(__file__).parents[3] / "vectors" / "hpke.json").read_text())["vectors"]

keys = st.binary(min_size=32, max_size=32)
short = st.binary(max_size=100)
psks = st.sampled_from([{}, PSK])


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["mode"])
def test_it_seals_and_opens_the_rfc_s_own_vectors(vector: dict[str, str]) -> None:
    v = {name: bytes.fromhex(value) for name, value in vector.items() if name != "mode"}
    receiver = OpeningKey.from_secret(v["receiver_secret"])
    sender = OpeningKey.from_secret(v["sender_secret"]) if v["sender_secret"] else None
    under = {"info": v["info"], "aad": v["aad"], "psk": v["psk"], "psk_id": v["psk_id"]}
    sealed = seal(receiver.public, v["plaintext"], ephemeral=v["ephemeral_secret"], sender=sender, **under)
    assert sealed == v["sealed"]
    assert unseal(receiver, sealed, sender=sender.public if sender else None, **under) == v["plaintext"]


@given(keys, short, short, short, st.booleans(), psks)
def test_it_speaks_with_another_program(
    ephemeral: bytes, plaintext: bytes, info: bytes, aad: bytes, auth: bool, psk: Mapping[str, bytes]
) -> None:
    peer = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.CHACHA20_POLY1305)
    load = KEMKey.from_pyca_cryptography_key
    theirs = (load(SENDER.private), load(SENDER.private.public_key())) if auth else (None, None)
    sealed = seal(
        RECEIVER.public, plaintext, info=info, aad=aad, ephemeral=ephemeral, sender=SENDER if auth else None, **psk
    )
    assert sealed is not None
    opened = peer.create_recipient_context(sealed[:32], load(RECEIVER.private), info, theirs[1], **psk)
    assert opened.open(sealed[32:], aad) == plaintext
    enc, sealing = peer.create_sender_context(load(RECEIVER.private.public_key()), info, theirs[0], **psk)
    back = enc + sealing.seal(plaintext, aad)
    assert unseal(RECEIVER, back, info=info, aad=aad, sender=SENDER.public if auth else None, **psk) == plaintext


@given(keys, short, short, short, st.booleans(), psks)
def test_what_it_seals_the_other_opens(
    ephemeral: bytes,
    plaintext: bytes,
    info: bytes,
    aad: bytes,
    auth: bool,
    psk: Mapping[str, bytes],
) -> None:
    sealed = seal(
        RECEIVER.public,
        plaintext,
        info=info,
        aad=aad,
        ephemeral=ephemeral,
        sender=SENDER if auth else None,
        **psk,
    )
    by_hand = rfc9180.seal(
        RECEIVER.public,
        plaintext,
        info,
        aad,
        ephemeral,
        sender=SENDER.secret if auth else None,
        **psk,
    )
    assert sealed == by_hand
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    sender = SENDER.public if auth else None
    assert unseal(RECEIVER, sealed, info=info, aad=aad, sender=sender, **psk) == plaintext
    assert rfc9180.unseal(RECEIVER.secret, sealed, info, aad, sender, **psk) == plaintext


def test_it_opens_only_under_everything_it_was_sealed_under() -> None:
    right = {"info": b"info", "aad": b"aad"}
    sealed = seal(RECEIVER.public, b"text", ephemeral=secret("e"), sender=SENDER, **right, **PSK)
    assert sealed is not None
    opening = {**right, **PSK, "sender": SENDER.public}
    assert unseal(RECEIVER, sealed, **opening) == b"text"
    assert unseal(OTHER, sealed, **opening) is None
    for name, wrong in {
        "info": b"other",
        "aad": b"other",
        "psk": secret("other psk"),
        "psk_id": b"other",
        "sender": OTHER.public,
    }.items():
        assert unseal(RECEIVER, sealed, **{**opening, name: wrong}) is None
    assert unseal(RECEIVER, sealed, **right, sender=SENDER.public) is None
    assert unseal(RECEIVER, sealed, **right, **PSK) is None


def test_no_bit_of_it_can_be_changed() -> None:
    sealed = seal(RECEIVER.public, b"text", info=b"", aad=b"", ephemeral=secret("e"))
    assert sealed is not None
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        assert unseal(RECEIVER, bytes(altered), info=b"", aad=b"") is None


@pytest.mark.parametrize("point", LOW_ORDER)
def test_keys_of_low_order_are_refused(point: bytes) -> None:
    assert seal(point, b"text", info=b"", aad=b"", ephemeral=secret("e")) is None
    assert unseal(RECEIVER, point + bytes(16), info=b"", aad=b"") is None
    sealed = seal(RECEIVER.public, b"text", info=b"", aad=b"", ephemeral=secret("e"))
    assert sealed is not None
    assert unseal(RECEIVER, sealed, info=b"", aad=b"", sender=point) is None


@given(st.binary(max_size=100))
def test_hostile_bytes_open_as_nothing(data: bytes) -> None:
    assert unseal(RECEIVER, data, info=b"", aad=b"") is None
    assert unseal(RECEIVER, data, info=b"", aad=b"", sender=SENDER.public, **PSK) is None


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_length_are_refused(size: int) -> None:
    assert seal(bytes([9] * size), b"", info=b"", aad=b"", ephemeral=secret("e")) is None
