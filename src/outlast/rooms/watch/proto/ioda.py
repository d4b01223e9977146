"""IODA (Internet Outage Detection and Analysis): its dashboard's CSV and its API's JSON.

The CSV is what "download" on the dashboard gives: first column ``Time (UTC)``, then one for each signal, raw or
normalised to 100. The JSON is what ``/v2/signals/raw/...`` answers: ``data`` holds lists of lists of series with
``entityType, entityCode, datasource, subtype, from, until, step, nativeStep, values``; value i is of time
``from + i * step``. IODA asks to be named where its data are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from outlast.rooms.watch.proto.series import (
    DAY_S,
    POINTS_MAX,
    Origin,
    Point,
    SeriesError,
    checked,
    in_range,
    name_of,
    number_of,
    stepped,
    time_of,
)

SOURCE: Final = "ioda"
TIME_COLUMN: Final = "time (utc)"
DERIVED: Final = frozenset(("gtr-norm", "gtr-sarima"))
"""What IODA computes out of ``gtr``: no measurements of their own, and the same loss must not count twice."""


class _Series(Struct):
    entityType: str
    entityCode: str | int
    datasource: str
    from_: int = msgspec.field(name="from")
    step: int
    values: list[Any]
    subtype: str | None = None


def is_csv(header: Sequence[str]) -> bool:
    """Whether a table with this first row is the dashboard's export."""
    return len(header) > 1 and header[0].strip().lower() == TIME_COLUMN


def read_csv(rows: Iterable[Sequence[str]], origin: Origin) -> list[Point]:
    """Rows after the header included as the first; the entity is "", since the file does not name it."""
    table = iter(rows)
    names = [name_of(name) for name in next(table, [])]

    def points() -> Iterator[Point]:
        for row in table:
            at = time_of(row[0])
            if at is None:
                continue
            for name, text in zip(names[1:], row[1:], strict=False):
                yield Point(SOURCE, "", name, at, number_of(text), 0, origin.fetched_at, origin.sha256)

    return stepped(points())


def read_json(data: Any, origin: Origin) -> list[Point]:
    """The decoded document or its ``data`` alone; raises SeriesError when it holds no series of IODA."""
    found: list[Point] = []
    for raw in _leaves(data.get("data") if isinstance(data, dict) else data, depth=0):
        try:
            series = msgspec.convert(raw, _Series, strict=True)
        except msgspec.ValidationError as error:
            raise SeriesError("this is no series of IODA: %(error)s", error=error) from None
        if series.datasource in DERIVED:
            continue
        begin = in_range(series.from_)
        if begin is None or not 0 < series.step <= 31 * DAY_S or len(found) + len(series.values) > POINTS_MAX:
            raise SeriesError("a series of IODA has an impossible beginning, step or length")
        kind, code = name_of(series.entityType), name_of(str(series.entityCode))
        entity = _entity(kind, code)
        signal = name_of(series.datasource if not series.subtype else f"{series.datasource} {series.subtype}")
        for number, value in enumerate(series.values):
            at = begin + number * series.step
            measured = checked(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
            found.append(Point(SOURCE, entity, signal, at, measured, series.step, origin.fetched_at, origin.sha256))
    if not found:
        raise SeriesError("there is no series of IODA in this document")
    return stepped(found)


def _entity(kind: str, code: str) -> str:
    match kind:
        case "country":
            return code
        case "asn":
            return f"AS{code}"
        case "continent":  # its two letters are some country's: SA is South America and Saudi Arabia
            return f"continent {code}"
        case _:
            return f"/{kind}/{code}"


def _leaves(data: Any, depth: int) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
    elif isinstance(data, list) and depth < 3:
        for part in data:
            yield from _leaves(part, depth + 1)
