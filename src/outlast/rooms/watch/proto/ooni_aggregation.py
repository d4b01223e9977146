"""OONI's aggregation API: counts of measurements by day or hour, as JSON (``{"v", "result": [...]}``) or CSV.

Two series come out for each country: how many measurements there were, and which share of those that worked out
were neither anomalous nor confirmed blocked. Volunteers measure when they like, so both are weak by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from outlast.rooms.watch.proto.series import (
    POINTS_MAX,
    Origin,
    Point,
    SeriesError,
    checked,
    name_of,
    number_of,
    stepped,
    time_of,
)

SOURCE: Final = "ooni"
TIME: Final = "measurement_start_day"
COUNTS: Final = ("anomaly_count", "confirmed_count", "failure_count", "ok_count", "measurement_count")
JUDGED_MIN: Final = 20
"""A share of fewer measurements than this says nothing: one more anomaly would move it by 5 %."""


def is_csv(header: Sequence[str]) -> bool:
    """Whether a table with this first row is an aggregation over time."""
    return {TIME, "measurement_count"} <= {name.strip().lower() for name in header}


def read_csv(rows: Iterable[Sequence[str]], origin: Origin) -> list[Point]:
    """Rows, the header as the first."""
    table = iter(rows)
    header = [name.strip().lower() for name in next(table, [])]
    return _points((dict(zip(header, row, strict=False)) for row in table), origin)


def is_json(data: Any) -> bool:
    """Whether a decoded document is an answer of the aggregation API."""
    return isinstance(data, dict) and "result" in data and "data" not in data


def read_json(data: Any, origin: Origin) -> list[Point]:
    """The decoded document; raises SeriesError when it holds no counts over time."""
    result = data["result"]
    rows = result if isinstance(result, list) else [result]
    if len(rows) > POINTS_MAX:
        raise SeriesError("more than %(most)s rows", most=POINTS_MAX)
    found = _points((row for row in rows if isinstance(row, dict)), origin)
    if not found:
        raise SeriesError("this answer of OONI holds no counts over time: ask for axis_x=measurement_start_day")
    return found


def _points(rows: Iterable[Mapping[str, Any]], origin: Origin) -> list[Point]:
    # Rows of other axes (domain, network) of one country and time are added up.
    sums: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        at = time_of(str(row.get(TIME, "")))
        if at is None:
            continue
        total = sums.setdefault((name_of(str(row.get("probe_cc") or "")).upper(), at), [0.0] * len(COUNTS))
        for place, name in enumerate(COUNTS):
            total[place] += _count(row.get(name)) or 0.0
    found: list[Point] = []
    for (country, at), (anomaly, confirmed, _, ok, count) in sums.items():
        judged = anomaly + confirmed + ok
        share = ok / judged if judged >= JUDGED_MIN else None
        for signal, value in (("ooni-measurements", count), ("ooni-ok-share", share)):
            found.append(Point(SOURCE, country, signal, at, value, 0, origin.fetched_at, origin.sha256))
    return stepped(found)


def _count(value: Any) -> float | None:
    if isinstance(value, str):
        return number_of(value)
    return checked(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
