"""A country out of its signals and witnesses: the best signal speaks, none is outvoted, nobody speaks for many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.watch.proto.detector import GRAVITY, State
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.proto.fusion import (
    Controls,
    Nation,
    Report,
    Statement,
    detect,
    own_state,
    without_own_outage,
    witnessed,
)
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, FOREIGN
from outlast.rooms.watch.proto.series import HOUR_S, Point, iso

BEGIN_S = 1_700_006_400
NOW_S = 1_800_000_000
CUT = 200
"""The hour in which something happens in these stories."""


def series(signal: str, after: Sequence[float | None], level: float = 100.0, entity: str = "XX") -> list[Point]:
    values = [*[level] * CUT, *after]
    return [Point("made", entity, signal, BEGIN_S + at * HOUR_S, value, HOUR_S) for at, value in enumerate(values)]


def country(*several: list[Point]) -> Report:
    return detect([point for rows in several for point in rows])[0]


def state_after(*several: list[Point]) -> State:
    nation = Nation("XX")
    by_time: dict[int, list[Point]] = {}
    for point in (point for rows in several for point in rows):
        by_time.setdefault(point.t_s, []).append(point)
    for at in sorted(by_time):
        nation.step(by_time[at])
    return nation.state


GONE = [3.0] * 20
WELL = [100.0] * 20


def test_routes_up_and_traffic_down_is_told_from_a_blackout() -> None:
    assert state_after(series("ping-slash24", GONE), series("bgp", WELL)) is State.ROUTES_UP
    assert state_after(series("ping-slash24", GONE), series("bgp", GONE)) is State.BLACKOUT
    assert state_after(series("ping-slash24", GONE)) is State.BLACKOUT
    assert state_after(series("ping-slash24", WELL), series("bgp", WELL)) is State.NORMAL
    assert state_after(series("ping-slash24", [70.0] * 20), series("bgp", WELL)) is State.DEGRADED
    assert state_after(series("ping-slash24", WELL), series("bgp", [90.0] * 20)) is State.DEGRADED


def test_domestic_up_and_foreign_down_is_a_whitelist() -> None:
    down, up = [0.0] * 20, [1.0] * 20
    foreign, domestic = series(FOREIGN, [*down], 1.0), series(DOMESTIC, [*up], 1.0)
    assert state_after(foreign, domestic, series("ping-slash24", GONE)) is State.WHITELIST
    assert state_after(foreign, series(DOMESTIC, [*down], 1.0), series("ping-slash24", GONE)) is State.BLACKOUT
    silent: list[float | None] = [None] * 20
    assert state_after(foreign, series(DOMESTIC, silent, 1.0), series("ping-slash24", GONE)) is State.BLACKOUT


def test_heartbeats_speak_alone_where_one_half_is_gone_and_the_other_goes_on() -> None:
    def after(foreign: Sequence[float | None], domestic: Sequence[float | None]) -> State:
        return state_after(series(FOREIGN, foreign, 1.0), series(DOMESTIC, domestic, 1.0))

    down, up, half = [0.0] * 20, [1.0] * 20, [0.4] * 20
    silent: list[float | None] = [None] * 20
    assert after(down, up) is State.WHITELIST
    assert after(up, down) is State.DEGRADED, "not more: small counts, and this node itself is there"
    assert after(half, up) is after(up, half) is State.NORMAL, "a half is no country"
    assert after(down, down) is State.NORMAL, "the own line may be the one that is down"
    assert after(down, silent) is after(silent, down) is State.NORMAL
    assert after([*down, *silent], [*up, *silent]) is State.WHITELIST, "deaf within the alarm: nothing new is known"
    assert after([*down, *up], [*up, *up]) is State.NORMAL
    assert after([*up, *down], [*down, *down]) is State.DEGRADED, "it does not end because more is gone"
    learning = series(DOMESTIC, up, 1.0)[-20:]
    assert state_after(series(FOREIGN, down, 1.0), learning) is State.NORMAL


def test_both_halves_of_the_heartbeats_are_one_voice_beside_others() -> None:
    both = series(FOREIGN, [0.0] * 20, 1.0), series(DOMESTIC, [0.0] * 20, 1.0)
    assert state_after(*both, series("ping-slash24", WELL)) is State.NORMAL
    assert state_after(*both, series("telescope", GONE)) is State.BLACKOUT


def test_one_weak_signal_is_no_country_two_are() -> None:
    assert state_after(series("telescope", GONE), series("ping-slash24", WELL)) is State.NORMAL
    assert state_after(series("telescope", GONE), series("mozilla", GONE)) is State.BLACKOUT
    tor = series("tor-relay-users", GONE), series("ooni-ok-share", [0.1] * 20, 0.9)
    assert state_after(*tor) is State.DEGRADED  # its tools are blocked, its people are not cut off


def test_the_country_begins_with_the_first_signal_and_ends_with_the_last() -> None:
    probing = series("ping-slash24", [3.0] * 20 + [100.0] * 40)
    traffic = series("google search", [100.0] * 3 + [3.0] * 40 + [100.0] * 17)
    (alarm,) = country(probing, traffic).alarms
    assert alarm.start_s == BEGIN_S + CUT * HOUR_S
    assert alarm.end_s == BEGIN_S + (CUT + 43) * HOUR_S
    assert alarm.state is State.BLACKOUT


def test_one_signal_that_never_returns_does_not_hide_that_it_is_restored_unless_it_speaks() -> None:
    back = [3.0] * 20 + [100.0] * 20
    lost: list[float | None] = [3.0] + [None] * 39
    assert state_after(series("ping-slash24", back), series("telescope", lost)) is State.NORMAL
    assert state_after(series("ping-slash24", back), series("google search", [3.0] * 40)) is State.BLACKOUT


def test_restoring_is_when_all_have_half_of_their_loss_back() -> None:
    half = [3.0] * 20 + [60.0] * 20
    assert state_after(series("ping-slash24", half), series("google search", half)) is State.RESTORING
    assert state_after(series("ping-slash24", half), series("google search", [3.0] * 40)) is State.BLACKOUT


def test_regions_make_up_the_country_and_stay_to_be_seen() -> None:
    regions = [
        series("connectivity", GONE if number < 6 else WELL, entity=f"XX/Province {number}") for number in range(10)
    ]
    rows = [point for region in regions for point in region]
    (fused, whole) = detect(rows)
    assert whole.signal == "connectivity"
    assert whole.alarms[0].state is State.DEGRADED
    assert any("6 of 10 regions" in english(line) for line in fused.alarms[0].evidence)
    each = {report.signal: report for report in detect(rows, regions=True)[2:]}
    assert len(each) == 10
    assert sum(bool(report.alarms) for report in each.values()) == 6


def test_regions_that_do_not_report_make_the_mean_missing_and_no_outage() -> None:
    silent: list[float | None] = [None] * 20
    regions = [
        series("connectivity", WELL if number < 3 else silent, 100.0 if number > 2 else 50.0, f"XX/P{number}")
        for number in range(10)
    ]
    assert all(not report.alarms for report in detect([point for region in regions for point in region]))


def test_countries_in_one_file_stay_apart() -> None:
    other = [Point("made", "YY", "bgp", row.t_s, row.value, row.step_s) for row in series("bgp", WELL)]
    reports = {report.signal: report for report in detect([*series("bgp", GONE), *other])}
    assert set(reports) == {"country XX", "bgp XX", "country YY", "bgp YY"}
    assert reports["bgp XX"].alarms
    assert not reports["bgp YY"].alarms


def test_the_operator_s_word_ends_an_alarm() -> None:
    nation = Nation("XX")
    for point in series("ping-slash24", [50.0] * 60):
        nation.step([point])
    assert nation.state is State.DEGRADED
    nation.accept(BEGIN_S + 300 * HOUR_S, "ping-slash24")
    (fused, own) = nation.reports()
    assert fused.alarms[0].end_s == own.alarms[0].end_s == BEGIN_S + 300 * HOUR_S
    assert any("operator" in english(line) for line in own.alarms[0].evidence)


def test_a_signal_that_falls_silent_is_not_called_well() -> None:
    reports = detect([*series("bgp", [None] * 9), *series("ping-slash24", [98.0, *[None] * 8])])
    silent = {report.signal: report.silent_since_s for report in reports}
    bgp, probing = BEGIN_S + CUT * HOUR_S, BEGIN_S + (CUT + 1) * HOUR_S
    assert silent == {"country": probing, "bgp": bgp, "ping-slash24": probing}
    one = detect([*series("bgp", [None] * 9), *series("ping-slash24", [98.0] * 9)])
    assert [report.silent_since_s for report in one] == [None, bgp, None]
    other = [Point("made", "YY", "bgp", row.t_s, row.value, row.step_s) for row in series("bgp", WELL)]
    assert {report.silent_since_s for report in detect([*series("bgp", [None] * 9), *other])} == {bgp, None}


def hint_of(report: Report) -> str:
    return " ".join(line for alarm in report.alarms for line in map(english, alarm.evidence) if "hint" in line)


def test_hints_need_their_course_and_say_on_what_they_rest() -> None:
    ordered = hint_of(country(series("ping-slash24", [3.0] * 40), series("bgp", [98.0] * 40)))
    assert "ordered" in ordered
    assert "routes stayed up" in ordered
    climbing = [40.0, 15.0, 10.0, 12.0, *[15.0 + 4 * at for at in range(22)], *WELL]
    power = hint_of(
        country(
            series("ping-slash24", climbing), series("bgp", [60.0, 40.0, *[50.0 + 3 * at for at in range(17)], *WELL])
        )
    )
    assert "power" in power
    assert "ordered" not in power
    cable = hint_of(country(series("ping-slash24", [60.0] * 12), series("latency-index", [400.0] * 12)))
    assert "cable" in cable
    assert hint_of(country(series("ping-slash24", [60.0] * 12))) == ""
    assert hint_of(country(series("ping-slash24", [3.0] * 40))) == ""  # without routes nobody can tell
    assert hint_of(country(series("ping-slash24", [3.0] * 40), series("bgp", [70.0] * 40))) == ""
    drained = [80.0, 60.0, 40.0, 20.0, *[4.0] * 40]
    assert hint_of(country(series("ping-slash24", drained), series("bgp", [98.0] * 44))) == ""
    assert hint_of(country(series("ping-slash24", [3.0] * 4))) == ""  # too early to say
    uneven = [*[30.0] * 10, *[38.0] * 40]  # a flat loss with a weekend in it comes back from nothing
    assert hint_of(country(series("ping-slash24", uneven))) == ""


def test_evidence_says_figures_and_what_is_missing() -> None:
    gone: list[float | None] = [3.0] + [None] * 10
    fused, _, telescope = detect([*series("ping-slash24", [3.0] * 11), *series("telescope", gone)])
    assert "telescope: no values since" in " ".join(map(english, fused.alarms[0].evidence))
    assert english(telescope.alarms[0].evidence[0]).startswith("3 where 100 is usual at this hour: 97% lower")
    assert iso(BEGIN_S + (CUT + 1) * HOUR_S) in english(telescope.alarms[0].evidence[-1])


@pytest.mark.parametrize(
    ("controls", "state"),
    [
        (Controls(True, True, True), State.NORMAL),
        (Controls(True, True, False), State.WHITELIST),
        (Controls(True, False, True), State.DEGRADED),
        (Controls(True, False, False), State.BLACKOUT),
    ],
)
def test_a_node_speaks_of_what_lies_beyond_its_gateway(controls: Controls, state: State) -> None:
    assert own_state(controls) is state


def test_a_node_without_its_gateway_or_with_anything_untried_says_nothing() -> None:
    told = [own_state(Controls(*three)) for three in product((True, False, None), repeat=3)]
    assert sum(state is not None for state in told) == 4
    assert own_state(Controls(False, False, False)) is None
    assert own_state(Controls(None, False, False)) is None


def says(witness: str, network: str, state: State = State.BLACKOUT, ago_s: int = 0, trust: float = 1.0) -> Statement:
    return Statement(witness, network, NOW_S - ago_s, state, trust)


def test_three_networks_make_an_alarm_two_do_not() -> None:
    three = [says("a", "AS1"), says("b", "AS2"), says("c", "AS3")]
    assert witnessed(three, NOW_S).state is State.BLACKOUT
    assert witnessed(three, NOW_S).agreeing == ("AS1", "AS2", "AS3")
    assert witnessed(three[:2], NOW_S).state is State.NORMAL
    assert witnessed([], NOW_S).state is None


def test_many_keys_in_one_network_and_one_key_in_many_networks_count_once() -> None:
    sybils = [says(f"s{number}", "AS666") for number in range(1000)]
    assert witnessed(sybils, NOW_S).state is State.NORMAL
    roaming = [says("a", f"AS{number}", ago_s=number) for number in range(1000)]
    assert witnessed(roaming, NOW_S).state is State.NORMAL
    assert witnessed(roaming, NOW_S).reporting == ("AS0",)


def test_more_than_half_of_all_weight_must_say_it() -> None:
    down = [says(f"d{number}", f"AS{number}") for number in range(3)]
    well = [says(f"w{number}", f"AS1{number}", State.NORMAL) for number in range(3)]
    assert witnessed(down + well, NOW_S).state is State.NORMAL
    assert witnessed(down + well[:2], NOW_S).state is State.BLACKOUT
    faint = [says(f"d{number}", f"AS{number}", trust=0.1) for number in range(3)]
    assert witnessed(faint + well[:1], NOW_S).state is State.NORMAL
    loud = [says("w", "AS99", State.NORMAL, trust=1e9)]
    assert witnessed(down + loud, NOW_S).state is State.BLACKOUT


def test_old_words_and_words_from_the_future_do_not_count() -> None:
    old = [says(f"d{number}", f"AS{number}", ago_s=3601) for number in range(5)]
    early = [says(f"d{number}", f"AS{number}", ago_s=-301) for number in range(5)]
    assert witnessed(old + early, NOW_S).state is None
    changed = [says("d0", "AS0", ago_s=50), says("d0", "AS0", State.NORMAL, ago_s=10)]
    assert witnessed(changed + [says(f"e{n}", f"AS{n + 1}") for n in range(2)], NOW_S).state is State.NORMAL


def test_graver_words_support_a_milder_state() -> None:
    mixed = [says("a", "AS1"), says("b", "AS2", State.WHITELIST), says("c", "AS3", State.DEGRADED)]
    assert witnessed(mixed, NOW_S).state is State.DEGRADED


STATEMENTS = st.lists(
    st.builds(
        Statement,
        st.sampled_from("abcdefgh"),
        st.sampled_from(["AS1", "AS2", "AS3", "AS4", "AS5"]),
        st.integers(NOW_S - 5000, NOW_S + 500),
        st.sampled_from(list(State)),
        st.floats(allow_nan=True),
    ),
    max_size=12,
)


@given(STATEMENTS)
def test_any_words_in_any_order_give_one_answer_with_its_witnesses(said: list[Statement]) -> None:
    found = witnessed(said, NOW_S)
    assert set(found.agreeing) <= set(found.reporting)
    if found.state not in (None, State.NORMAL):
        assert len(found.agreeing) >= 3
        assert GRAVITY[found.state] > 0
    if len({(one.witness, one.t_s, one.network) for one in said}) == len(said):
        assert witnessed(said[::-1], NOW_S) == found


def test_one_s_own_outage_is_taken_out_of_one_s_own_rows() -> None:
    rows = series(FOREIGN, [0.0] * 5, 1.0)
    begin = BEGIN_S + CUT * HOUR_S
    cleared = without_own_outage(rows, [(begin + 60, begin + 5 * HOUR_S)])
    assert [row.value for row in cleared[CUT:]] == [None] * 5
    assert cleared[:CUT] == rows[:CUT]
    assert state_after(cleared) is State.NORMAL


def test_a_slight_loss_of_one_signal_is_its_own_and_of_two_the_country_s() -> None:
    slight = [85.0] * 20
    own = detect(series("ping-slash24", slight))
    assert [bool(report.alarms) for report in own] == [False, True]
    both = detect([*series("ping-slash24", slight), *series("bgp", [98.0] * 20)])
    assert [bool(report.alarms) for report in both] == [True, True, True]


def test_a_province_cut_off_shows_in_the_share_of_the_regions_where_the_mean_hides_it() -> None:
    rows = [
        point
        for number in range(40)
        for point in series("connectivity", [50.0] * 20 if number < 9 else WELL, entity=f"XX/P{number}")
    ]
    reports = {report.signal: report for report in detect(rows)}
    assert reports["connectivity: regions up"].alarms[0].start_s == BEGIN_S + CUT * HOUR_S
    assert reports["country"].alarms[0].state is State.DEGRADED
    few = [point for point in rows if int(point.entity.partition("P")[2]) < 9 or point.entity.endswith("1")]
    assert "connectivity: regions up" not in {report.signal for report in detect(few)}


def test_a_company_that_is_blocked_is_not_a_country_that_is_cut_off() -> None:
    assert state_after(series("google search", GONE), series("ping-slash24", WELL)) is State.DEGRADED
    assert state_after(series("google search", GONE), series("bgp", WELL)) is State.ROUTES_UP
    assert state_after(series("gtr YOUTUBE", GONE), series("ping-slash24", WELL)) is State.NORMAL
