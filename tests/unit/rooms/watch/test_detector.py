"""The machine of one series: quiet through cycles, holidays and gaps; quick at a cut; steadfast while it lasts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.rooms.watch.proto.detector import (
    ACCEPT_POINTS,
    HISTORY_S,
    PROBING,
    Change,
    Detector,
    Ended,
    FellAgain,
    LevelAccepted,
    Raised,
    Restoring,
    Silent,
    State,
    kind_of,
)
from outlast.rooms.watch.proto.series import DAY_S, HOUR_S, Point
from tests.unit.rooms.watch.made_series import (
    BEGIN_S,
    CITIES,
    CONNECTIVITY,
    DARKNET,
    MAKINGS,
    Making,
    make,
)
from tests.unit.rooms.watch.made_series import (
    PROBING as MADE_PROBING,
)
from tests.unit.rooms.watch.made_series import (
    ROUTES as MADE_ROUTES,
)
from tests.unit.rooms.watch.made_series import (
    TRAFFIC as MADE_TRAFFIC,
)

SEEDS = st.integers(0, 2**32 - 1)


def run(rows: list[Point]) -> tuple[Detector, list[Change]]:
    machine = Detector(kind_of(rows[0].signal), rows[0].step_s)
    return machine, [change for row in rows for change in machine.step(row)]


def raised(changes: Iterable[Change]) -> list[Raised]:
    return [change for change in changes if isinstance(change, Raised)]


def steady(values: Iterable[float | None], *, signal: str = "ping-slash24", begin_s: int = BEGIN_S) -> list[Point]:
    return [Point("made", "XX", signal, begin_s + place * HOUR_S, value, HOUR_S) for place, value in enumerate(values)]


@pytest.mark.parametrize("making", MAKINGS, ids=lambda making: making.signal)
def test_uneventful_series_raise_less_than_one_alarm_in_a_thousand_days(making: Making) -> None:
    seeds = range(max(6, 1000 // making.days))
    alarms = sum(len(raised(run(make(making, seed).rows())[1])) for seed in seeds)
    assert alarms <= max(1, len(seeds) * making.days / 1000)


@pytest.mark.parametrize(
    "making", [one for one in MAKINGS if one.signal != "latency-index"], ids=lambda one: one.signal
)
@settings(max_examples=8, deadline=None)
@given(seed=SEEDS, where=st.floats(0.5, 0.9))
def test_a_cut_is_seen_at_its_first_or_second_value_and_held_to_the_end(
    making: Making, seed: int, where: float
) -> None:
    made = make(making, seed)
    begin = int(len(made.t_s) * where)
    rows = made.cut(begin, None, 0.02).rows()
    machine, changes = run(rows)
    first = min(change.t_s for change in raised(changes) if change.t_s >= rows[begin].t_s)
    measured = [row.t_s for row in rows[begin:] if row.value is not None]
    assert first in measured[:2]
    assert machine.alarm_since == first


@pytest.mark.parametrize("hours", [1, 1.5, 2, 3, 4, 6, 12, 24])
@pytest.mark.parametrize("making", [MADE_TRAFFIC, MADE_PROBING, CITIES], ids=lambda making: making.signal)
def test_other_steps_are_as_quiet_and_as_quick(making: Making, hours: float) -> None:
    other = replace(making, step_s=int(hours * HOUR_S), days=28 if hours < 12 else 90)
    for seed in range(3):
        made = make(other, seed)
        begin = len(made.t_s) * 3 // 4
        rows = made.cut(begin, None, 0.02).rows()
        first, *_ = raised(run(rows)[1])
        assert first.t_s in [row.t_s for row in rows[begin:] if row.value is not None][:2]


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_tenth_of_the_routes_lost_is_an_alarm_at_once_and_a_fiftieth_after_three_values(seed: int) -> None:
    made = make(MADE_ROUTES, seed)
    begin = len(made.t_s) * 2 // 3
    for left, most in ((0.9, 1), (0.98, 3)):
        rows = made.cut(begin, None, left).rows()
        measured = [row.t_s for row in rows[begin:] if row.value is not None]
        first = min(change.t_s for change in raised(run(rows)[1]) if change.t_s >= rows[begin].t_s)
        assert first in measured[:most]


@settings(max_examples=6, deadline=None)
@given(seed=SEEDS)
def test_a_decline_over_a_week_is_an_alarm_before_half_is_gone(seed: int) -> None:
    made = make(MADE_PROBING, seed)
    begin, week = len(made.t_s) // 2, 7 * DAY_S // MADE_PROBING.step_s
    machine, changes = run(made.ramp(begin, begin + week, 0.3).rows())
    first = raised(changes)[0]
    assert made.t_s[begin] < first.t_s <= made.t_s[begin] + 5 * DAY_S
    assert machine.alarm_since == first.t_s


def test_an_alarm_is_held_longer_than_the_history_is_long_and_ends_with_the_cut() -> None:
    made = make(MADE_PROBING, 7)
    begin, end = 500, 500 + (HISTORY_S + 3 * DAY_S) // MADE_PROBING.step_s
    assert end < len(made.t_s) - 100
    machine, changes = run(made.cut(begin, end, 0.1).rows())
    (one,) = raised(changes)
    (ended,) = [change for change in changes if isinstance(change, Ended)]
    assert one.t_s == made.t_s[begin]
    assert made.t_s[end] <= ended.t_s <= made.t_s[end] + HOUR_S
    assert machine.state is State.NORMAL


def test_a_permanent_loss_stays_an_alarm_until_the_operator_accepts_the_level() -> None:
    values = [100.0] * 240 + [60.0] * 600
    rows = steady(values)
    machine, changes = run(rows)
    assert len(raised(changes)) == 1
    assert machine.alarm_since is not None
    accepted = machine.step(LevelAccepted(rows[-1].t_s))
    assert accepted == [Ended(rows[-1].t_s, accepted=True)]
    assert not machine.learning  # it learnt from the last values of the alarm
    later = steady([60.0] * 100, begin_s=rows[-1].t_s + HOUR_S)
    assert [change for row in later for change in machine.step(row)] == []
    (again,) = machine.step(steady([20.0], begin_s=later[-1].t_s + HOUR_S)[0])
    assert isinstance(again, Raised)
    assert again.usual == 60.0
    assert ACCEPT_POINTS >= 2 * 24


def test_accepting_without_an_alarm_learns_anew() -> None:
    machine, _ = run(steady([100.0] * 240))
    assert machine.step(LevelAccepted(BEGIN_S)) == []
    assert machine.learning


def test_missing_is_not_zero_and_changes_no_state() -> None:
    quiet: list[float | None] = [100.0] * 240 + [None] * 200 + [100.0] * 50
    machine, changes = run(steady(quiet))
    assert changes == [Silent(BEGIN_S + 240 * HOUR_S)]
    assert machine.state is State.NORMAL
    cut: list[float | None] = [100.0] * 240 + [5.0] + [None] * 200
    machine, changes = run(steady(cut))
    assert machine.state is State.BLACKOUT
    assert machine.silent_since == BEGIN_S + 241 * HOUR_S
    assert not any(isinstance(change, Ended) for change in changes)


def test_a_series_with_holes_of_old_is_not_called_silent() -> None:
    holes: list[float | None] = [100.0, None, None, None] * 120
    _, changes = run(steady(holes))
    assert changes == []


def test_states_follow_the_depth_and_the_return() -> None:
    values = [100.0] * 240 + [70.0] * 3 + [10.0] * 10 + [60.0] * 10 + [15.0] * 5 + [99.0] * 10
    machine = Detector(PROBING, HOUR_S)
    states, told = [], []
    for row in steady(values):
        told += [type(change) for change in machine.step(row)]
        states.append(machine.state)
    assert told == [Raised, Restoring, FellAgain, Ended]
    assert states[241] is State.DEGRADED
    assert states[245] is State.BLACKOUT
    assert states[258] is State.RESTORING
    assert states[266] is State.BLACKOUT
    assert states[-1] is State.NORMAL


def test_older_and_doubled_rows_are_ignored() -> None:
    rows = steady([100.0] * 240)
    machine, _ = run(rows)
    zeros = [Point(row.source, row.entity, row.signal, row.t_s, 0.0, row.step_s) for row in rows]
    assert [change for row in zeros for change in machine.step(row)] == []
    assert machine.state is State.NORMAL


def test_nothing_is_judged_in_the_first_day() -> None:
    machine, changes = run(steady([100.0] * 12 + [0.0] * 11))
    assert changes == []
    assert machine.learning


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from([1.0, 1.5, 2.0]))
def test_counts_of_a_few_are_not_judged_and_raise_nothing(seed: int, mean: float) -> None:
    counts = np.random.default_rng(seed).poisson(mean, 288 * 10)
    rows = [Point("made", "XX", "merit-nt", BEGIN_S + at * 300, float(n), 300) for at, n in enumerate(counts)]
    machine, changes = run(rows)
    assert not raised(changes)
    assert not machine.judging
    more = [n + 20.0 if at < 288 * 9 else 0.0 for at, n in enumerate(counts)]
    rows = [Point("made", "XX", "merit-nt", BEGIN_S + at * 300, n, 300) for at, n in enumerate(more)]
    machine, changes = run(rows)
    assert machine.judging
    assert [one.t_s for one in raised(changes)] == [BEGIN_S + 288 * 9 * 300]


def test_one_grain_of_a_coarse_scale_is_no_news() -> None:
    rng = random.Random(5)
    coarse = [rng.choice([100.0, 100.0, 100.0, 90.0]) for _ in range(240)]
    machine, changes = run(steady([*coarse, *[80.0] * 2, *coarse]))
    assert changes == []
    assert machine.state is State.NORMAL


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.floats(0, 1e12), st.sampled_from([0.0, 1e-300, 1e300, 5.0])), min_size=1, max_size=400
    ),
    st.sampled_from([60, 1800, HOUR_S, 3 * HOUR_S, 7 * HOUR_S, DAY_S, 7 * DAY_S]),
    st.sampled_from(sorted({making.signal for making in MAKINGS})),
)
def test_any_values_at_any_step_keep_the_machine_sane(values: list[float | None], step_s: int, signal: str) -> None:
    machine = Detector(kind_of(signal), step_s)
    changes: list[Change] = []
    for place, value in enumerate(values):
        changes += machine.step(Point("x", "XX", signal, BEGIN_S + place * step_s, value, step_s))
        assert (machine.state is State.NORMAL) == (machine.alarm_since is None)
    turns = [change for change in changes if isinstance(change, Raised | Ended)]
    assert all(type(one) is not type(other) for one, other in pairwise(turns))


def test_history_stays_bounded() -> None:
    machine = Detector(PROBING, HOUR_S)
    for place in range(2_000):
        machine.step(Point("x", "XX", "ping-slash24", BEGIN_S + place * HOUR_S, 100.0 + place % 7, HOUR_S))
    assert len(machine._history._kept) == HISTORY_S // HOUR_S


def test_short_series_work_flat_for_three_days_and_by_the_hour_after() -> None:
    made = make(CONNECTIVITY, 3)
    for begin in (40, 100, 200):
        machine, changes = run(made.cut(begin, None, 0.4).rows())
        assert [change.t_s for change in raised(changes)] == [made.t_s[begin]]
        assert machine.alarm_since is not None


@pytest.mark.parametrize("making", [MADE_TRAFFIC, DARKNET], ids=lambda making: making.signal)
def test_the_night_is_no_outage_even_in_the_first_days(making: Making) -> None:
    for seed in range(20):
        rows = make(making, seed).rows()[: 6 * 48]
        assert raised(run(rows)[1]) == []


def test_made_series_are_what_they_say() -> None:
    made = make(MADE_TRAFFIC, 1)
    assert np.array_equal(made.values, make(MADE_TRAFFIC, 1).values, equal_nan=True)
    assert np.nanmin(made.values) < np.nanmax(made.values) / 2
