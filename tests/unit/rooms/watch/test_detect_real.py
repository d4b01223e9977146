"""The bars of the detector, on series that nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from outlast.edges.main import run
from outlast.rooms.watch.proto.detector import State, kind_of
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.proto.fusion import Report, detect
from outlast.rooms.watch.proto.recognise import read_series
from outlast.rooms.watch.proto.series import DAY_S, Origin, Point, gather, iso, time_of
from tests.real import real
from tests.unit.rooms.watch.ioda_rule import PUBLISHED, published_alerts

IODA = "watch/outage/ioda_iran_2025-12-01_2026-01-12.csv"
IRAN = "watch/outage/monash_irn-2019-11-11_gif.csv"
VENEZUELA = "watch/outage/monash_ven-2019-07-22_gif.csv"
UKRAINE = "watch/outage/monash_ukr-2022-01-18_border-regions.csv"
ONSET = "2026-01-08T16:30:00Z"


def points_of(path: Path) -> list[Point]:
    with path.open("rb") as file:
        return read_series(file, Origin())


def reports_of(name: str) -> dict[str, Report]:
    return {report.signal: report for report in detect(points_of(real(name)))}


def said(report: Report) -> str:
    return " ".join(line for alarm in report.alarms for line in map(english, alarm.evidence))


def test_iran_2026_is_an_alarm_at_the_onset_never_before_and_to_the_end() -> None:
    (alarm,) = reports_of(IODA)["country"].alarms
    assert iso(alarm.start_s) == ONSET
    assert alarm.end_s is None
    assert alarm.state is State.ROUTES_UP


def test_iran_2026_no_signal_raises_a_false_alarm_and_each_holds_to_the_end() -> None:
    reports = reports_of(IODA)
    assert len(reports) == 6
    for report in reports.values():
        (alarm,) = report.alarms
        assert iso(alarm.start_s) >= ONSET
        assert alarm.end_s is None


def test_iran_2026_the_missing_telescope_is_evidence() -> None:
    reports = reports_of(IODA)
    missing = "Telescope (# Unique Source IPs): no values since 2026-01-08T19:00:00Z while 4 other signals report"
    assert missing in said(reports["country"])
    assert "ordered" in said(reports["country"])


@pytest.mark.parametrize("every", [2, 3, 4, 12])
def test_iran_2026_in_coarser_steps_has_no_false_alarm_either(every: int) -> None:
    step_s = 1800 * every
    coarse = [
        Point(one.source, one.entity, one.signal, one.t_s, one.value, max(one.step_s, step_s))
        for one in points_of(real(IODA))
        if one.t_s % step_s == 0
    ]
    reports = detect(coarse)
    assert all(iso(alarm.start_s) >= ONSET for report in reports for alarm in report.alarms)
    (alarm,) = reports[0].alarms
    assert alarm.start_s <= (time_of(ONSET) or 0) + step_s
    assert alarm.end_s is None


@pytest.mark.parametrize("days", [2, 3, 4, 7, 14, 28])
def test_iran_2026_is_found_at_once_however_little_came_before(days: int) -> None:
    begin_s = (time_of(ONSET) or 0) - days * DAY_S
    reports = detect(point for point in points_of(real(IODA)) if point.t_s >= begin_s)
    assert all(iso(alarm.start_s) >= ONSET for report in reports for alarm in report.alarms)
    (alarm,) = reports[0].alarms
    assert iso(alarm.start_s) == ONSET


def first_since(starts: Iterable[int]) -> str:
    return min(start for start in map(iso, starts) if start >= ONSET)


def test_iran_2026_no_signal_is_later_than_the_rule_of_ioda_which_lets_go() -> None:
    points = points_of(real(IODA))
    reports = {report.signal: report for report in detect(points)}
    let_go = 0
    for (_, _, signal), rows in gather(points).items():
        rule = PUBLISHED.get(kind_of(signal).name)
        if rule is None:
            continue
        theirs = published_alerts(rows, rule)
        ours = reports[signal].alarms
        assert first_since(alarm.start_s for alarm in ours) <= first_since(begin for begin, _ in theirs)
        assert ours[-1].end_s is None
        let_go += theirs[-1][1] is not None
    assert let_go >= 2


def test_iran_2019_is_an_alarm_by_22_local_never_before_and_to_the_end() -> None:
    reports = reports_of(IRAN)
    for report in reports.values():
        (alarm,) = report.alarms
        assert "2019-11-16T16:30:00Z" <= iso(alarm.start_s) <= "2019-11-16T18:30:00Z"
        assert alarm.end_s is None
        assert alarm.state is State.BLACKOUT
    assert "hint" not in said(reports["country"])  # of routes this file knows nothing


def test_venezuela_is_detected_ends_and_is_not_called_ordered() -> None:
    reports = reports_of(VENEZUELA)
    (alarm,) = reports["country"].alarms
    assert "2019-07-22T18:00:00Z" <= iso(alarm.start_s) <= "2019-07-22T20:00:00Z"
    assert alarm.end_s is not None
    assert "ordered" not in said(reports["country"])
    assert "power" in said(reports["country"])


def test_ukraine_has_no_alarm() -> None:
    assert all(not report.alarms for report in reports_of(UKRAINE).values())


def test_the_command_prints_one_line_a_signal_with_exactly_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "detect", str(real(IODA)), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 6
    for row in rows:
        assert set(row) == {"signal", "alarms"}
        for alarm in row["alarms"]:
            assert set(alarm) == {"start", "end", "state", "evidence"}


def test_the_command_shows_one_signal_or_region_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "detect", str(real(IODA)), "--signal", "active probing", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["signal"] == "Active Probing (#/24s Up)"
    assert run(["watch", "detect", str(real(IRAN)), "--signal", "Zanjan", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["signal"] == "connectivity: IRN/Zanjan/Zanjan"
