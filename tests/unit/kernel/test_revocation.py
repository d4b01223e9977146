"""Revocations: what a device had said stays, what it says afterwards does not count, and nobody can end another's."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.identity import IdentityError, SigningKey, sign_prekey
from outlast.kernel.kinds import KindError
from outlast.kernel.log import Head, next_entry
from outlast.kernel.mail import CERTIFICATE_MAX_BYTES, MAIL_SPACE
from outlast.kernel.revocation import (
    DEVICES,
    REVOCATION_MAX_BYTES,
    REVOKE,
    TOLD_MAX,
    Devices,
    Revocation,
    Revoke,
    SignedRevocation,
    Told,
    is_ended,
    read_revocation,
    read_told,
    revocation_in,
    revoke,
    tell,
)
from tests.unit.kernel.people import Person, person

NOW_MS = 1_795_305_912_345
SPACE, OTHER_SPACE = sha256(b"space").digest(), sha256(b"other space").digest()
IDENTITY, STRANGER = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(b"s" * 32)
DEVICE, NEW_DEVICE = SigningKey.from_seed(b"d" * 32), SigningKey.from_seed(b"n" * 32)


def said(number: int, head: Head | None, by: SigningKey = DEVICE, payload: bytes = b"x", kind: str = "post") -> Entry:
    """The next entry of a device's chain."""
    entry = next_entry(
        by,
        head,
        space=SPACE,
        kind=kind,
        payload=payload,
        clock=number,
        ts_ms=NOW_MS + number,
        life_ms=DAY_MS,
        priority=2,
    )
    return entry


def chain(length: int) -> list[Entry]:
    """The first entries of the device."""
    entries: list[Entry] = []
    for number in range(length):
        entries.append(said(number, Head(number, entries[-1].id) if entries else None))
    return entries


def ending(last: Entry | None, identity: SigningKey = IDENTITY, space: bytes = SPACE) -> Revocation:
    """The revocation that leaves everything up to ``last``."""
    if last is None:
        return read_revocation(revoke(identity, DEVICE.public, space))
    return read_revocation(revoke(identity, DEVICE.public, space, last.header.seq, last.id))


def carried(signed: bytes, space: bytes = SPACE) -> Entry:
    """An entry that brings a revocation into a space, by a device that nobody knows."""
    payload = REVOKE.encode(Revoke(signed))
    return next_entry(
        NEW_DEVICE, None, space=space, kind="revoke", payload=payload, clock=1, ts_ms=NOW_MS, life_ms=0, priority=0
    )


@given(length=st.integers(1, 8), kept=st.integers(0, 8))
def test_what_stood_up_to_the_last_valid_entry_stays_and_no_more(length: int, kept: int) -> None:
    entries = chain(length)
    one = ending(entries[min(kept, length) - 1] if kept else None)
    left = [not is_ended(e.header, e.id, IDENTITY.public, [one]) for e in entries]
    assert left == [number < kept for number in range(length)]


@given(kept=st.lists(st.integers(0, 5), min_size=1, max_size=4), chance=st.randoms())
def test_of_several_revocations_the_strictest_holds_in_whatever_order_they_come(
    kept: list[int], chance: object
) -> None:
    entries = chain(5)
    several = [ending(entries[number - 1] if number else None) for number in kept]
    left = sum(not is_ended(e.header, e.id, IDENTITY.public, several) for e in entries)
    chance.shuffle(several)  # type: ignore[attr-defined]
    assert left == sum(not is_ended(e.header, e.id, IDENTITY.public, several) for e in entries) == min(kept)


def test_of_two_branches_the_one_that_the_revocation_names_stays() -> None:
    first = said(1, None)
    one, other = said(2, Head(1, first.id)), said(2, Head(1, first.id), payload=b"y")
    ended = [ending(one)]
    assert not is_ended(one.header, one.id, IDENTITY.public, ended)
    assert is_ended(other.header, other.id, IDENTITY.public, ended)


def test_what_stands_outside_of_chains_has_no_place_before_the_end() -> None:
    header = msgspec.structs.replace(said(1, None).header, seq=0)
    assert is_ended(header, bytes(32), IDENTITY.public, [ending(said(1, None))])


def test_a_strangers_revocation_ends_nothing() -> None:
    entry = said(1, None)
    assert not is_ended(entry.header, entry.id, IDENTITY.public, [ending(None, STRANGER)])


def test_a_revocation_of_one_space_says_nothing_of_another() -> None:
    entry = said(1, None)
    assert not is_ended(entry.header, entry.id, IDENTITY.public, [ending(None, space=OTHER_SPACE)])
    assert revocation_in(carried(ending(None).signed, OTHER_SPACE)) is None


def test_whoever_carries_it_it_is_the_identitys_word() -> None:
    one = ending(said(1, None))
    assert revocation_in(carried(one.signed)) == one


def test_only_a_whole_entry_of_its_kind_and_of_todays_version_brings_one() -> None:
    entry = carried(ending(None).signed)
    assert revocation_in(entry) is not None
    for changed in ({"kind": "post"}, {"version": 2}):
        header = msgspec.structs.replace(entry.header, **changed)
        assert revocation_in(msgspec.structs.replace(entry, header=header)) is None
    assert revocation_in(msgspec.structs.replace(entry, payload=None)) is None


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_revocation_is_refused(at: int, bit: int) -> None:
    data = bytearray(ending(said(1, None)).signed)
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(IdentityError):
        read_revocation(bytes(data))
    assert revocation_in(carried(bytes(data[:REVOCATION_MAX_BYTES]))) is None


def longer(data: bytes) -> bytes:
    """The same array, its head in a longer form."""
    assert data[0] & 0xF0 == 0x90
    return b"\xdc\x00" + bytes((data[0] & 0x0F,)) + data[1:]


def test_of_the_forms_that_say_the_same_only_the_shortest_is_a_revocation() -> None:
    signed = msgspec.msgpack.decode(ending(None).signed, type=SignedRevocation)
    read_revocation(msgspec.msgpack.encode(signed))
    body = longer(signed.body)
    by_identity = IDENTITY.sign(b"outlast/revocation/1" + body)
    for data in (longer(msgspec.msgpack.encode(signed)), msgspec.msgpack.encode(SignedRevocation(body, by_identity))):
        with pytest.raises(IdentityError, match="no revocation"):
            read_revocation(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(IdentityError):
        read_revocation(data)
    assert read_told(data, IDENTITY.public) == ([], [])


def test_the_largest_revocation_fits_an_entry_and_a_letter() -> None:
    largest = revoke(IDENTITY, DEVICE.public, SPACE, 2**64 - 1, b"\xff" * 32)
    assert len(largest) <= REVOCATION_MAX_BYTES
    assert read_revocation(largest).seq == 2**64 - 1
    assert len(read_told(tell([], [revoke(IDENTITY, DEVICE.public)] * TOLD_MAX), IDENTITY.public)[1]) == TOLD_MAX


def test_a_letter_tells_of_few_devices() -> None:
    signed = [revoke(IDENTITY, DEVICE.public)] * (TOLD_MAX + 1)
    with pytest.raises(KindError, match="at most"):
        tell([], signed)
    many = msgspec.msgpack.encode(Devices([], signed))
    assert len(many) < DEVICES.max_bytes
    assert len(read_told(many, IDENTITY.public)[1]) == TOLD_MAX


ANNA, BORIS = person("anna"), person("boris")
ANNA_ID = ANNA.identity.public


def told(of: Person = ANNA, by: Person = ANNA, prekey: bytes = ANNA.prekeys[0].public, day: int = 20_000) -> Told:
    """What somebody says of a device: its certificate, and a prekey that the device of ``by`` signed."""
    signed = sign_prekey(by.signing, prekey, day) if 0 <= day < 2**32 else bytes(64)
    return Told(of.device.certificate, prekey, day, signed)


@pytest.mark.parametrize("day", [0, 20_000, 2**31 - 1])
def test_a_letter_brings_a_device_with_the_prekey_that_it_signed(day: int) -> None:
    one = told(day=day)
    added, _ = read_told(tell([one], []), ANNA_ID)
    assert [(device.device, prekey, of) for device, prekey, of in added] == [(ANNA.device.device, one.prekey, day)]


@pytest.mark.parametrize(
    "wrong",
    [
        told(BORIS, BORIS),
        told(by=BORIS),
        told(prekey=bytes(32)),  # of low order: whoever seals to it seals to everybody
        told(prekey=bytes(31)),
        told(prekey=b"p" * 33),
        told(day=-1),
        told(day=2**31),
        told(day=2**40),
        msgspec.structs.replace(told(), prekey_day=20_001),
        msgspec.structs.replace(told(), certificate=b"no certificate"),
        msgspec.structs.replace(told(), certificate=ANNA.device.certificate.ljust(CERTIFICATE_MAX_BYTES + 1, b"x")),
        msgspec.structs.replace(told(), signature=b""),
    ],
)
def test_what_is_malformed_or_of_somebody_else_is_left_out_and_the_rest_counts(wrong: Told) -> None:
    added, revoked = read_told(tell([wrong, told()], [b"none", revoke(ANNA.identity, DEVICE.public)]), ANNA_ID)
    assert [device.device for device, _, _ in added] == [ANNA.device.device]
    assert [one.device for one in revoked] == [DEVICE.public]


def test_of_the_devices_in_one_letter_the_first_few_count() -> None:
    many = msgspec.msgpack.encode(Devices([told()] * (TOLD_MAX + 1), []))
    assert len(read_told(many, ANNA_ID)[0]) == TOLD_MAX


def test_a_letter_ends_no_device_in_a_space_and_none_of_somebody_else() -> None:
    """In a space an entry says so, for all to see alike."""
    told = tell([], [ending(said(1, None)).signed, revoke(STRANGER, DEVICE.public), revoke(IDENTITY, DEVICE.public)])
    assert [one.space for one in read_told(told, IDENTITY.public)[1]] == [MAIL_SPACE]
