"""What goes first when room is short: strangers', then the fullest neighbour's, the least, the weakest, the oldest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import Header
from outlast.kernel.parcel import PARCEL_SPACE
from outlast.kernel.quota import (
    CAPACITY_MIN_BYTES,
    EARLIER,
    PARCELS_PART,
    PAYERS_MAX,
    POOLED,
    RESERVE_BYTES,
    SPACE_MAX_BYTES,
    Holding,
    Payers,
    capacity,
    excess,
    rank_of,
    space_limit,
    worst_first,
)
from outlast.kernel.stamp import mint, strength
from tests.unit.kernel.entries import post

A, B, C = (bytes([i]) * 32 for i in range(3))


def header(**changes: object) -> Header:
    return msgspec.structs.replace(post().header, **changes)


def test_strangers_entries_go_before_all_others_and_low_priorities_before_high_ones() -> None:
    ranks = [rank_of(header(priority=priority), pooled) for pooled in (False, True) for priority in range(8)]
    assert ranks == sorted(set(ranks))
    assert [rank >= POOLED for rank in ranks] == [False] * 8 + [True] * 8


def test_a_stamp_counts_within_one_priority_only() -> None:
    entry = header()
    nonce = mint(entry.space, entry.expires_day, entry.author, entry.payload_hash, 6)
    stamped = header(stamp_nonce=nonce)
    assert strength(stamped) >= 6
    assert strength(entry) == 0
    assert rank_of(stamped, False) <= rank_of(entry, False) - 6
    assert rank_of(header(priority=entry.priority - 1), False) < rank_of(stamped, False)


@pytest.mark.parametrize("changes", [{"space": B}, {"payload_hash": B}, {"author": B}, {"expires_day": 20_900}])
def test_a_stamp_is_no_good_for_any_other_entry(changes: dict[str, object]) -> None:
    entry = header()
    nonce = mint(entry.space, entry.expires_day, entry.author, entry.payload_hash, 12)
    assert strength(header(stamp_nonce=nonce)) >= 12
    assert strength(header(stamp_nonce=nonce, **changes)) < 12


@given(st.integers(0, 2**40), st.integers(1, 2**40))
def test_what_is_over_a_quota_goes_and_a_little_more(held: int, limit: int) -> None:
    over = excess(held, limit)
    assert (over > 0) == (held > limit)
    if over:
        assert limit - limit // 16 <= held - over <= limit


def test_the_store_leaves_a_reserve_and_a_full_disk_is_no_reason_to_let_go_of_a_little_mail() -> None:
    gib = 1 << 30
    assert capacity(gib, 4 * gib) == 5 * gib - RESERVE_BYTES
    assert capacity(100, 0) == CAPACITY_MIN_BYTES
    assert capacity(2 * gib, 0) == 2 * gib - RESERVE_BYTES
    assert capacity(0, 2**50) == 32 * gib


@pytest.mark.parametrize("gib", [1, 2, 32])
def test_files_between_people_may_take_a_part_of_the_store_and_any_channel_so_many_bytes(gib: int) -> None:
    store_bytes = gib << 30
    assert space_limit(A, store_bytes) == SPACE_MAX_BYTES
    assert space_limit(PARCEL_SPACE, store_bytes) == max(SPACE_MAX_BYTES, store_bytes // PARCELS_PART) < store_bytes


def test_the_lowest_priority_goes_first_then_the_oldest() -> None:
    held = [Holding(1, 128, 50), Holding(2, 448, 70), Holding(3, 128, 40), Holding(4, 448, 60)]
    assert worst_first(held) == [4, 2, 3, 1]


def test_the_fullest_neighbour_loses_first_until_it_is_fullest_no_more() -> None:
    payers = Payers(0)
    for number in range(1, 9):
        payers.charge(A if number <= 6 else B, number, 10)
    first = payers.fullest(80, 1, ())
    assert first is not None
    assert payers.numbers(first, 0, 4) == [1, 2, 3, 4]
    for number in payers.numbers(first, 0, 5):
        payers.release(number, 10, whole=True)
    second = payers.fullest(30, 1, ())
    assert second not in (first, None)
    assert payers.numbers(first, 0, 5) == [6], "what is gone is gone from the books"
    assert payers.fullest(30, 1, {first, second}) == EARLIER
    assert payers.fullest(30, 1, {first, second, EARLIER}) is None


def test_what_came_before_this_run_does_not_pay_for_the_flood_of_today() -> None:
    payers = Payers(100)
    for number in range(101, 201):
        payers.charge(C, number, 10)
    assert payers.fullest(1000 + 3000, 4, ()) != EARLIER
    assert payers.fullest(1000 + 5000, 4, ()) == EARLIER
    assert payers.is_earlier(100)
    assert not payers.is_earlier(101)
    assert payers.is_earlier(201)


def test_whoever_comes_with_a_new_key_for_each_letter_pays_for_all_that_do() -> None:
    payers = Payers(0)
    for number in range(1, PAYERS_MAX + 1001):
        payers.charge(number.to_bytes(32, "big"), number, 10)
    assert len(payers.held_bytes) == PAYERS_MAX
    assert payers.fullest(10 * (PAYERS_MAX + 1000), 1, ()) == PAYERS_MAX
    assert payers.numbers(PAYERS_MAX, 0, 5000) == list(range(PAYERS_MAX, PAYERS_MAX + 1001))
    payers.charge((7).to_bytes(32, "big"), PAYERS_MAX + 1001, 10)
    assert payers.held_bytes[7] == 20, "who came before keeps an account"


@given(st.lists(st.sampled_from([None, A, B]), max_size=40), st.integers(0, 9), st.integers(1, 5))
def test_what_a_neighbour_brought_is_found_window_by_window(
    sources: list[bytes | None], before: int, limit: int
) -> None:
    payers = Payers(before)
    for number, source in enumerate(sources, before + 1):
        payers.charge(source, number, 10)
    found: list[int] = []
    for payer in payers.held_bytes:
        after = 0
        while window := payers.numbers(payer, after, limit):
            assert len(window) <= limit
            found += window
            after = window[-1]
    assert sorted(found) == [number for number, source in enumerate(sources, before + 1) if source is not None]


@given(st.lists(st.tuples(st.sampled_from([None, A, B, C]), st.integers(1, 9), st.integers(1, 5)), max_size=60))
def test_the_books_balance(arrivals: list[tuple[bytes | None, int, int]]) -> None:
    payers, number, brought = Payers(7), 7, {}
    for source, size, step in arrivals:
        number += step
        payers.charge(source, number, size)
        if source is not None:
            brought[number] = size
    assert sum(payers.held_bytes.values()) == sum(brought.values())
    found = [one for payer in payers.held_bytes for one in payers.numbers(payer, 0, 100)]
    assert sorted(found) == sorted(brought)
    for one, size in brought.items():
        payers.release(one, size - 1, whole=False)
        assert not payers.is_earlier(one), "of what lost its payload it is known who brought the rest"
        payers.release(one, 1, whole=True)
    assert not any(payers.held_bytes.values())
    assert all(payers.is_earlier(one) for one in (*brought, 3, number + 1))
