"""Which outers a client has, and when it changes them."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from outlast.rooms.reach.proto.outers import (
    HOP_BYTES,
    HOP_MIN_BYTES,
    IDLE_S,
    LEAD_S,
    LIFE_MAX_S,
    LIFE_MIN_S,
    OUTERS_MAX,
    TRY_MIN_S,
    WELL_MIN,
    Open,
    Outers,
    Retire,
)
from outlast.rooms.reach.proto.session import Ending


def opened(outers: Outers, now: float, streams: int = 1, usable: dict[int, int] | None = None) -> list[Open]:
    """What is to be opened now; it succeeds at once."""
    found = [one for one in outers.plan(now, streams, usable or {}) if isinstance(one, Open)]
    for one in found:
        outers.up(one.number)
    return found


def test_one_outer_lives_a_while_by_chance_and_is_replaced_before_its_end() -> None:
    lives = []
    for seed in range(20):
        outers = Outers(Random(seed).random)
        assert opened(outers, 0.0) == [Open(1, 0)]
        now = 1.0
        while not (found := opened(outers, now, usable={1: 0})):
            now += 1.0
        assert found == [Open(2, 0)]
        assert outers.plan(now, 1, {1: 0, 2: 0}) == [Retire(1)]
        lives.append(now + LEAD_S)
    assert min(lives) >= LIFE_MIN_S
    assert max(lives) <= LIFE_MAX_S + 1
    assert len(set(lives)) > 10


def test_an_outer_that_ends_later_than_its_successor_is_there_is_not_left_alone() -> None:
    outers = Outers(lambda: 0.0)
    opened(outers, 0.0)
    assert opened(outers, 55.0, usable={1: 0}) == [Open(2, 0)]
    outers.over(2, 55.5, 0, 0, Ending.CUT)
    assert not [one for one in outers.plan(59.0, 1, {1: 0}) if isinstance(one, Retire)]


def test_after_a_cut_another_one_stands_by() -> None:
    outers = Outers(lambda: 0.5)
    opened(outers, 0.0)
    outers.over(1, 40.0, 900_000, 900_000, Ending.CUT)
    assert len(opened(outers, 40.0)) == 2
    assert outers.hop_bytes == 0


@pytest.mark.parametrize(("froze_at", "budget"), [(16_384, HOP_BYTES), (9_000, 6_750), (4_500, HOP_MIN_BYTES)])
def test_where_an_outer_freezes_after_few_bytes_the_next_ones_stay_below(froze_at: int, budget: int) -> None:
    outers = Outers(lambda: 0.5)
    opened(outers, 0.0)
    outers.over(1, 2.0, froze_at, 80_000, Ending.FROZEN)
    assert outers.frozen_at_bytes == froze_at
    assert [one.budget_bytes for one in opened(outers, 2.0)] == [budget] * OUTERS_MAX
    outers.over(2, 2.5, budget, budget, Ending.DONE)
    assert [one.budget_bytes for one in opened(outers, 2.5, usable={3: 0, 4: 0})] == [budget]


def test_who_froze_twice_after_as_much_is_bounded_too_and_who_froze_late_is_not() -> None:
    outers = Outers(lambda: 0.5)
    for number in (1, 2):
        assert outers.hop_bytes == 0
        opened(outers, float(number))
        outers.over(number, float(number), 1_000_000, 1_000_000, Ending.FROZEN)
    assert outers.hop_bytes == 750_000
    patient = Outers(lambda: 0.5)
    opened(patient, 0.0)
    patient.over(1, 100.0, 20_000, 20_000, Ending.FROZEN)
    assert patient.hop_bytes == 0


def test_cuts_that_come_early_again_and_again_are_a_curtain_as_well() -> None:
    outers = Outers(lambda: 0.5)
    now = 0.0
    while not outers.hop_bytes:
        for one in opened(outers, now):
            outers.over(one.number, now + 0.5, 0, 300_000, Ending.CUT)
        now += 1.0
    assert 2.0 <= now <= 4.0
    assert outers.hop_bytes == HOP_BYTES


def test_outers_that_only_stood_by_when_they_were_cut_are_no_sign_of_a_curtain() -> None:
    outers = Outers(lambda: 0.5)
    for second in range(0, 60, 3):
        first, *others = opened(outers, float(second))
        outers.over(first.number, second + 3.0, 40_000_000, 41_000_000, Ending.CUT)
        for one in others:
            outers.over(one.number, second + 3.0, 3000, 3500, Ending.CUT)
    assert outers.hop_bytes == 0


def test_now_and_then_one_outer_tries_whether_the_curtain_is_still_there() -> None:
    outers = Outers(lambda: 0.5)
    opened(outers, 0.0)
    outers.over(1, 1.0, 16_384, 16_384, Ending.FROZEN)
    tries: list[int] = []
    now = 1.0
    while now < 1.0 + 3 * TRY_MIN_S and not tries:
        for one in opened(outers, now):
            if one.budget_bytes:
                outers.over(one.number, now + 0.5, HOP_BYTES, HOP_BYTES, Ending.DONE)
            else:
                tries.append(one.number)
        now += 1.0
    assert len(tries) == 1
    assert now >= 1.0 + TRY_MIN_S
    outers.plan(now, 1, {tries[0]: 1_000_000})
    assert outers.hop_bytes == 0


def test_attempts_that_fail_are_made_more_and_more_rarely() -> None:
    outers = Outers(lambda: 0.5)
    now, times = 0.0, []
    while now < 60.0:
        for one in outers.plan(now, 1, {}):
            times.append(now)
            assert isinstance(one, Open)
            outers.failed(one.number, now)
        now = outers.wake_at(now)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert 9.0 < gaps[-1] < 12.0


def test_without_streams_for_long_outers_are_let_go_and_none_is_opened() -> None:
    outers = Outers(lambda: 0.99)
    opened(outers, 0.0)
    assert outers.plan(IDLE_S + 1, 0, {1: 0}) == [Retire(1)]
    outers.over(1, IDLE_S + 2, 0, 0, Ending.DONE)
    assert outers.plan(IDLE_S + 3, 0, {}) == []
    assert opened(outers, IDLE_S + 4, streams=1) == [Open(2, 0)]


def test_there_are_never_more_than_three() -> None:
    random = Random(4)
    outers, living, now = Outers(random.random), dict[int, int](), 0.0
    for _ in range(3000):
        now += random.random()
        for one in outers.plan(now, random.randrange(2), living):
            match one:
                case Open(number, _):
                    if random.random() < 0.8:
                        outers.up(number)
                        living[number] = 0
                    else:
                        outers.failed(number, now)
                case Retire(number):
                    del living[number]
                    outers.over(number, now, 5000, 5000, Ending.DONE)
        assert len(living) <= OUTERS_MAX
        if living and random.random() < 0.1:
            number = random.choice(list(living))
            del living[number]
            least = random.choice([0, 16_000, 90_000])
            outers.over(number, now, least, least, random.choice(list(Ending)))


def freeze(outers: Outers, now: float, carried: int) -> None:
    (first, *_) = opened(outers, now)
    outers.over(first.number, now + 2, carried, carried, Ending.FROZEN)


def do_well(outers: Outers) -> None:
    for _ in range(20 * WELL_MIN):
        for one in opened(outers, 103.0):
            outers.over(one.number, 103.0, one.budget_bytes, one.budget_bytes, Ending.DONE)


def test_a_bound_grows_while_outers_within_it_do_well_and_not_beyond_where_one_froze() -> None:
    outers = Outers(lambda: 0.5)
    freeze(outers, 100.0, 6000)
    assert outers.hop_bytes == 4500
    do_well(outers)
    assert outers.hop_bytes == HOP_BYTES
    freeze(outers, 104.0, 10_000)
    assert outers.hop_bytes == 7500
    do_well(outers)
    assert outers.hop_bytes == 7500


def test_what_another_session_found_out_bounds_the_first_outer() -> None:
    assert [one.budget_bytes for one in opened(Outers(lambda: 0.5, 100.0, 6000), 100.0)] == [6000] * 3
    assert [one.budget_bytes for one in opened(Outers(lambda: 0.5, 100.0), 100.0)] == [0]
