"""Beacons: who is recognised in a local network, and what everybody else can tell, which is nothing."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.identity import SealingKey
from outlast.kernel.links.beacon import (
    BEACONS_MAX,
    NONCE_BYTES,
    Announcement,
    announce,
    pair_keys,
    read_fields,
    recognise,
    to_fields,
)

WHERE = (IPv4Address("192.168.1.20"), 8485)
ANNA, BORIS, VERA = (SealingKey.from_secret(bytes([n]) * 32) for n in (1, 2, 3))


def said_by(who: SealingKey, *neighbours: SealingKey, strangers: bool = False) -> Announcement:
    keys = pair_keys(who, [one.public for one in neighbours])
    return announce(who.public, keys.values(), WHERE, os.urandom, strangers=strangers)


def keys_of(who: SealingKey, *neighbours: SealingKey) -> dict[bytes, bytes]:
    return pair_keys(who, [one.public for one in neighbours])


def test_neighbours_recognise_each_other_whoever_announces_itself() -> None:
    assert recognise(said_by(ANNA, BORIS, VERA), keys_of(BORIS, VERA, ANNA), WHERE) == ANNA.public
    assert recognise(said_by(BORIS, ANNA), keys_of(ANNA, VERA, BORIS), WHERE) == BORIS.public


def test_who_was_not_added_on_both_sides_recognises_nobody() -> None:
    assert recognise(said_by(ANNA, BORIS), keys_of(VERA, ANNA, BORIS), WHERE) is None
    assert recognise(said_by(ANNA), keys_of(BORIS, ANNA), WHERE) is None
    assert recognise(said_by(ANNA, BORIS), keys_of(BORIS, VERA), WHERE) is None


def test_an_announcement_played_elsewhere_or_back_is_nobodys() -> None:
    said = said_by(ANNA, BORIS)
    for where in ((IPv4Address("192.168.1.66"), WHERE[1]), (WHERE[0], WHERE[1] + 1)):
        assert recognise(said, keys_of(BORIS, ANNA), where) is None
    assert recognise(said, keys_of(ANNA, BORIS), WHERE) is None, "one's own announcement is not a neighbour's"
    other = said_by(ANNA, BORIS)
    mixed = Announcement(other.nonce, said.beacons, strangers=False)
    assert recognise(mixed, keys_of(BORIS, ANNA), WHERE) is None


def test_two_announcements_of_one_node_have_nothing_in_common() -> None:
    one, other = said_by(ANNA, BORIS, VERA), said_by(ANNA, BORIS, VERA)
    assert one.nonce != other.nonce
    assert not one.beacons & other.beacons


@given(st.integers(0, BEACONS_MAX + 20))
def test_how_many_neighbours_there_are_shows_in_steps_of_8_alone(count: int) -> None:
    said = announce(ANNA.public, [os.urandom(32) for _ in range(count)], WHERE, os.urandom, strangers=False)
    assert len(said.beacons) == min(BEACONS_MAX, max(8, -(-count // 8) * 8))


@given(st.integers(0, BEACONS_MAX), st.booleans(), st.integers())
def test_what_is_announced_is_read_and_fits_into_a_packet(count: int, strangers: bool, seed: int) -> None:
    random = Random(seed)
    keys = [random.randbytes(32) for _ in range(count)]
    said = announce(ANNA.public, keys, WHERE, random.randbytes, strangers=strangers)
    fields = to_fields(said)
    assert read_fields(fields) == said
    assert all(len(name) + 1 + len(value) <= 255 for name, value in fields.items())
    assert sum(len(name) + 2 + len(value) for name, value in fields.items()) < 1100


@given(
    st.dictionaries(
        st.sampled_from([b"n", b"b0", b"b1", b"b2", b"b3", b"s", b"x"]), st.none() | st.binary(max_size=300), max_size=7
    )
)
def test_whatever_fields_there_are_an_announcement_has_its_form_or_is_none(fields: dict[bytes, bytes | None]) -> None:
    said = read_fields(fields)
    if said is not None:
        assert len(said.nonce) == NONCE_BYTES
        assert 1 <= len(said.beacons) <= BEACONS_MAX
        assert {len(one) for one in said.beacons} == {8}


def test_a_neighbour_whose_key_can_share_no_secret_is_left_out() -> None:
    assert pair_keys(ANNA, [bytes(32), BORIS.public]).keys() == {BORIS.public}
