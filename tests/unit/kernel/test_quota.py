"""What goes first when room is short: strangers', then the fullest neighbour's, the least, the weakest, the oldest."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import Header
from outlast.kernel.quota import (
    CAPACITY_MIN_BYTES,
    POOLED,
    RESERVE_BYTES,
    SLICE,
    Holdings,
    Payers,
    capacity,
    excess,
    order,
    rank_of,
)
from outlast.kernel.stamp import mint, strength
from tests.unit.kernel.entries import post

A, B, C = (bytes([i]) * 32 for i in range(3))


def header(**changes: object) -> Header:
    return msgspec.structs.replace(post().header, **changes)


def holdings(*rows: tuple[int, int, int]) -> Holdings:
    """Rows of (number, rank, time)."""
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Holdings(columns[:, 0], columns[:, 1], columns[:, 2])


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


def test_the_lowest_priority_goes_first_then_the_oldest() -> None:
    held = holdings((1, 128, 50), (2, 448, 70), (3, 128, 40), (4, 448, 60))
    assert list(order(held, Payers(0), 1000, 1)) == [[4, 2, 3, 1]]


def test_the_fullest_neighbour_loses_first_until_it_is_fullest_no_more() -> None:
    payers, rows = Payers(0), []
    for number in range(1, 4 * SLICE + 1):
        source = A if number <= 3 * SLICE else B
        payers.charge(source, number, 10)
        rows.append((number, 128, number))
    slices = []
    for numbers in order(holdings(*rows), payers, 40 * SLICE, 1):
        slices.append(numbers)
        for number in numbers:
            payers.release(number, 10)
    whose = [{payers.of(number) for number in numbers} for numbers in slices]
    assert whose[:2] == [{1}, {1}], "the first neighbour has most"
    assert {1} in whose[2:]
    assert {2} in whose[2:]
    assert sorted(number for numbers in slices for number in numbers) == list(range(1, 4 * SLICE + 1))


def test_what_came_before_this_run_does_not_pay_for_the_flood_of_today() -> None:
    payers = Payers(100)
    rows = [(number, 128, number) for number in range(1, 201)]
    for number in range(101, 201):
        payers.charge(C, number, 10)
    first = next(order(holdings(*rows), payers, 2000, 4))
    assert first[0] == 101


@given(st.lists(st.tuples(st.sampled_from([None, A, B, C]), st.integers(1, 9), st.integers(1, 5)), max_size=60))
def test_the_books_balance(arrivals: list[tuple[bytes | None, int, int]]) -> None:
    payers, number, brought = Payers(7), 7, {}
    for source, size, step in arrivals:
        number += step
        payers.charge(source, number, size)
        if source is not None:
            brought[number] = size
    assert sum(payers.held_bytes.values()) == sum(brought.values())
    for one, size in brought.items():
        payers.release(one, size)
    assert not any(payers.held_bytes.values())
    assert payers.of(3) == payers.of(number + 1) == 0
