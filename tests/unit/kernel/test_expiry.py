"""Pruning and time by clocks of which none is trusted alone."""

from __future__ import annotations

from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import DAY_MS
from outlast.kernel.expiry import JUMP_MAX_DAYS, LATE_DAYS, Now, Prune, Stopped, prune_before, sane_now

DAY = 20_800
days = st.integers(0, 40_000)


def test_pruning_goes_by_the_earlier_of_the_own_date_and_the_contacts() -> None:
    assert prune_before(DAY, DAY - 1, [DAY]) == Prune(DAY)
    assert prune_before(DAY, DAY - 1, [DAY - 3, DAY, DAY - 2]) == Prune(DAY - 2)
    assert prune_before(DAY, DAY - 1, [DAY + 5, DAY + 5]) == Prune(DAY)


def test_a_minority_of_wrong_clocks_moves_nothing() -> None:
    assert prune_before(DAY, DAY, [DAY, DAY, 0]) == Prune(DAY)
    assert prune_before(DAY, DAY, [DAY, 10**6, 10**6, DAY, DAY]) == Prune(DAY)


def test_between_two_claims_the_earlier_counts() -> None:
    assert prune_before(DAY, DAY, [DAY - 9, DAY]) == Prune(DAY - 9)


@pytest.mark.parametrize(("jump", "stops"), [(0, False), (1, False), (JUMP_MAX_DAYS, False), (JUMP_MAX_DAYS + 1, True)])
def test_a_clock_that_leapt_stops_pruning_until_the_owner_has_looked(jump: int, stops: bool) -> None:
    found = prune_before(DAY + jump, DAY, [DAY + jump])
    assert isinstance(found, Stopped) is stops
    assert prune_before(DAY + jump, DAY, [DAY + jump], confirmed_day=DAY + jump) == Prune(DAY + jump)


def test_a_confirmation_does_not_last() -> None:
    leapt = DAY + 400
    assert isinstance(prune_before(leapt, DAY, [leapt], confirmed_day=DAY), Stopped)
    assert isinstance(prune_before(DAY, None, [], confirmed_day=leapt), Stopped)


def test_a_clock_that_ran_backwards_only_keeps_things_longer() -> None:
    assert prune_before(DAY - 500, DAY, [DAY]) == Prune(DAY - 500)


def test_alone_a_clock_prunes_only_on_the_owners_word() -> None:
    assert isinstance(prune_before(DAY, DAY, []), Stopped)
    assert prune_before(DAY, DAY, [], confirmed_day=DAY) == Prune(DAY)


@given(days, st.none() | days, st.lists(days, max_size=6), st.none() | days)
def test_nothing_is_pruned_that_is_not_over_by_both(
    local: int, last: int | None, claims: list[int], confirmed: int | None
) -> None:
    match prune_before(local, last, claims, confirmed):
        case Prune(before):
            assert before <= local
            assert not claims or before <= median_low(claims)
            assert claims or confirmed is not None
        case Stopped(reason):
            assert "\n" not in str(reason)
            assert "confirm" in str(reason)


def test_the_time_never_lies_before_what_has_certainly_passed() -> None:
    floor = DAY * DAY_MS
    assert sane_now(floor + 5, floor) == Now(floor + 5, None)
    behind = sane_now(0, floor)
    assert behind.ms == floor
    assert behind.warning is not None
    assert "1970-01-01" in str(behind.warning)
    assert "2026-12-13" in str(behind.warning)


def test_others_can_warn_about_a_clock_and_not_set_it() -> None:
    now = DAY * DAY_MS
    for claims, warned in (([DAY], False), ([DAY + 2], False), ([DAY + 3], True), ([DAY - 900] * 3, True)):
        found = sane_now(now, 0, claims)
        assert found.ms == now
        assert (found.warning is not None) is warned


def test_a_letter_that_was_long_on_its_way_is_no_reason_to_doubt_the_clock() -> None:
    now = DAY * DAY_MS
    for claims, letters, warned in (
        ([], [DAY - LATE_DAYS], False),
        ([], [DAY + JUMP_MAX_DAYS], False),
        ([], [DAY + JUMP_MAX_DAYS + 1], True),
        ([], [DAY - LATE_DAYS - JUMP_MAX_DAYS - 1], True),
        ([DAY], [DAY - LATE_DAYS] * 3, False),
        ([DAY - 3], [], True),
    ):
        assert (sane_now(now, 0, claims, letters).warning is not None) is warned
    assert "2025-" in str(sane_now(now, 0, [], [DAY - 400]).warning), "the date that they claimed is shown"


def test_a_date_no_calendar_has_is_still_told() -> None:
    found = sane_now(10**17, 0, [DAY])
    assert found.warning is not None
    assert str(10**17 // DAY_MS) in str(found.warning)
