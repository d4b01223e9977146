"""The detector on real series (tests/real.py), beside the published rule of IODA, and how fast it is."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outlast.rooms.watch.proto.detector import Detector, kind_of
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.proto.fusion import Alarm, detect
from outlast.rooms.watch.proto.recognise import read_series
from outlast.rooms.watch.proto.series import HOUR_S, Origin, Point, gather, time_of
from tests.real import DATA
from tests.unit.rooms.watch.ioda_rule import PUBLISHED, published_alerts

OUTAGES = DATA / "watch" / "outage"
IODA = OUTAGES / "ioda_iran_2025-12-01_2026-01-12.csv"
IODA_ONSET_S = time_of("2026-01-08T16:30:00Z") or 0
IRAN = OUTAGES / "monash_irn-2019-11-11_gif.csv"
IRAN_ONSET_S = time_of("2019-11-16T20:00:00+03:30") or 0  # the hour before the fall
IRAN_BAR_S = time_of("2019-11-16T22:00:00+03:30") or 0
VENEZUELA = OUTAGES / "monash_ven-2019-07-22_gif.csv"
UKRAINE = OUTAGES / "monash_ukr-2022-01-18_border-regions.csv"
POINTS = 10_000


def run() -> list[dict[str, Any]]:
    """Minutes from the onset to the first alarm, false alarms before, held to the end; points in a second."""
    rows = [_speed()]
    if OUTAGES.is_dir():
        rows += [*_iran_2026(), *_iran_2019(), *_controls()]
    return rows


def _row(work: str, unit: str, ours: float | None, holds: bool | None = None, **more: Any) -> dict[str, Any]:
    empty = {"peer": None, "peer_name": None, "ratio": None, "bar": None}
    return {"work": work, "unit": unit, "ours": ours} | empty | {"holds": holds} | more


def _points(path: Path) -> list[Point]:
    with path.open("rb") as file:
        return read_series(file, Origin())


def _first(starts: Sequence[int], onset_s: int) -> float | None:
    return min(((start - onset_s) / 60 for start in starts if start >= onset_s), default=None)


def _judged(name: str, alarms: Sequence[Alarm], onset_s: int, bar_min: float | None) -> list[dict[str, Any]]:
    starts = [alarm.start_s for alarm in alarms]
    late, false = _first(starts, onset_s), sum(start < onset_s for start in starts)
    held = bool(alarms) and alarms[-1].end_s is None
    on_time = None if bar_min is None else late is not None and late <= bar_min
    return [
        _row(f"{name}: first alarm after the onset", "min", late, on_time, bar=bar_min),
        _row(f"{name}: alarms before the onset", "alarms", false, false == 0, bar=0),
        _row(f"{name}: held to the end", "1 = yes", float(held), held, bar=1),
    ]


def _iran_2026() -> list[dict[str, Any]]:
    points = _points(IODA)
    series = gather(points)
    reports = {report.signal: report.alarms for report in detect(points)}
    before = sum(row.t_s < IODA_ONSET_S for row in series["ioda", "", "BGP (#Visible /24s)"])
    rows = [_row("IODA Iran: half hours before the onset", "points", before)]
    rows += _judged("IODA Iran, country", reports["country"], IODA_ONSET_S, 30)
    theirs_first: list[float] = []
    theirs_false = 0
    for (_, _, signal), values in series.items():
        rows += _judged(f"IODA Iran, {signal}", reports[signal], IODA_ONSET_S, None)
        rule = PUBLISHED.get(kind_of(signal).name)
        if rule is None:
            continue
        alerts = published_alerts(values, rule)
        ours, theirs = rows[-3], _first([begin for begin, _ in alerts], IODA_ONSET_S)
        theirs_first += [] if theirs is None else [theirs]
        theirs_false += sum(begin < IODA_ONSET_S for begin, _ in alerts)
        never_later = theirs is None or (ours["ours"] is not None and ours["ours"] <= theirs)
        ours.update(peer=theirs, peer_name="IODA's published rule", bar=theirs, holds=never_later)
        held = bool(alerts) and alerts[-1][1] is None and sum(begin >= IODA_ONSET_S for begin, _ in alerts) == 1
        rows[-1].update(peer=float(held), peer_name="IODA's published rule, without a break")
    rows[1].update(peer=min(theirs_first, default=None), peer_name="IODA's published rule")
    rows[2].update(peer=theirs_false, peer_name="IODA's published rule")
    return rows


def _iran_2019() -> list[dict[str, Any]]:
    bar_min = (IRAN_BAR_S - IRAN_ONSET_S) / 60
    alarms = {report.signal: report.alarms for report in detect(_points(IRAN))}["country"]
    return _judged("Monash Iran 2019, from 20:00 local", alarms, IRAN_ONSET_S, bar_min)


def _controls() -> list[dict[str, Any]]:
    venezuela = {report.signal: report.alarms for report in detect(_points(VENEZUELA))}["country"]
    ordered = sum("ordered" in english(line) for alarm in venezuela for line in alarm.evidence)
    ukraine = sum(len(report.alarms) for report in detect(_points(UKRAINE)))
    return [
        _row("Venezuela 2019: alarms", "alarms", len(venezuela), len(venezuela) == 1, bar=1),
        _row("Venezuela 2019: called ordered", "times", ordered, ordered == 0, bar=0),
        _row("Ukraine 2022: alarms", "alarms", ukraine, ukraine == 0, bar=0),
    ]


def _speed() -> dict[str, Any]:
    chance = random.Random(1)
    rows = [Point("x", "XX", "bgp", at * HOUR_S, 100 + chance.gauss(0, 1), HOUR_S) for at in range(POINTS)]
    begun = time.perf_counter()
    machine = Detector(kind_of("bgp"), HOUR_S)
    for row in rows:
        machine.step(row)
    took = time.perf_counter() - begun
    return _row(f"{POINTS} points of one signal", "s", took, took < 1, bar=1)
