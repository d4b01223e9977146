"""A release counts when two of the keys signed it that were pinned before, and only a newer one."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.spread.shelf import write_manifest
from outlast.edges.spread.signing import (
    SIGNATURES_MAX,
    check_renewal,
    number,
    pinned_keys,
    read_keys,
    sign,
    signers,
    words_of_release,
)
from outlast.errors import OutlastError, ProtocolError, UsageError
from outlast.kernel import SigningKey

KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(3)]
PINNED = [key.public for key in KEYS]
MANIFEST = write_manifest("1.2.3", [])
STRANGER = SigningKey.from_seed(bytes([9]) * 32)


def signed(*keys: SigningKey, manifest: bytes = MANIFEST) -> bytes:
    """``manifest.sig`` by these keys."""
    found = b""
    for key in keys:
        found = sign(key, manifest, found)
    return found


@pytest.mark.parametrize("pair", list(combinations(KEYS, 2)))
def test_any_two_of_three_keys_are_enough(pair: tuple[SigningKey, SigningKey]) -> None:
    assert check_renewal(MANIFEST, signed(*pair), PINNED, "1.2.2").version == "1.2.3"


@pytest.mark.parametrize(
    "signatures",
    [
        b"",
        signed(KEYS[0]),
        signed(KEYS[0], KEYS[0]),
        signed(KEYS[0], STRANGER),
        signed(*KEYS, manifest=MANIFEST + b" "),
    ],
    ids=["none", "one", "one twice", "one and a stranger", "of another manifest"],
)
def test_fewer_are_refused(signatures: bytes) -> None:
    with pytest.raises(ProtocolError, match="are needed"):
        check_renewal(MANIFEST, signatures, PINNED, "1.2.2")


def test_one_key_listed_twice_by_hand_counts_once() -> None:
    first = signed(KEYS[0]).decode()
    row = first[first.index("{", 1) : first.rindex("]")]
    doubled = f'{{"signatures": [{row}, {row}]}}'.encode()
    assert signers(MANIFEST, doubled, PINNED) == {KEYS[0].public}


@pytest.mark.parametrize("installed", ["1.2.3", "1.2.4", "1.10.0", "2.0.0"])
def test_an_older_version_or_the_same_is_refused_whoever_signed_it(installed: str) -> None:
    with pytest.raises(UsageError, match="only newer"):
        check_renewal(MANIFEST, signed(*KEYS), PINNED, installed)


def test_versions_are_compared_as_numbers() -> None:
    assert number("0.9.0") < number("0.10.0") < number("1.0.0")
    assert number("nightly") < number("0.0.1")


def test_a_program_without_pinned_keys_takes_nothing() -> None:
    for keys in ([], PINNED[:1]):
        with pytest.raises(UsageError, match="without release keys"):
            check_renewal(MANIFEST, signed(*KEYS), keys, "1.2.2")


def test_signed_rubbish_is_refused_as_well() -> None:
    with pytest.raises(ProtocolError):
        check_renewal(b"{}", signed(*KEYS, manifest=b"{}"), PINNED, "0.0.1")


def test_a_key_that_signs_again_takes_the_place_of_its_signature() -> None:
    twice = signed(KEYS[0], KEYS[1], KEYS[0])
    assert twice.count(KEYS[0].public.hex().encode()) == 1
    assert len(signers(MANIFEST, twice, PINNED)) == 2


@given(st.binary(max_size=300))
def test_signatures_from_anywhere_raise_only_what_is_told(data: bytes) -> None:
    with suppress(OutlastError):
        assert signers(MANIFEST, data, PINNED) == set()


def test_only_the_first_signatures_are_looked_at() -> None:
    row = f'{{"key": "{PINNED[0].hex()}", "signature": "00"}}'
    first = signed(KEYS[0]).decode()
    good = first[first.index("{", 1) : first.rindex("]")]
    for before, seen in ((SIGNATURES_MAX - 1, set(PINNED[:1])), (SIGNATURES_MAX, set())):
        assert signers(MANIFEST, f'{{"signatures": [{", ".join([*[row] * before, good])}]}}'.encode(), PINNED) == seen


def test_the_words_are_those_of_the_bytes() -> None:
    assert len(words_of_release(MANIFEST).split()) == 6
    assert words_of_release(MANIFEST) != words_of_release(MANIFEST + b" ")


def test_keys_are_read_from_the_list_beside_their_owners() -> None:
    text = f"# keys\n{PINNED[0].hex()} somebody\n\n{PINNED[1].hex()}\nnot a key\n"
    assert read_keys(text) == PINNED[:2]


def test_the_pinned_keys_are_different_ones() -> None:
    keys = pinned_keys()
    assert len(set(keys)) == len(keys)
    assert len(keys) in (0, 3)
