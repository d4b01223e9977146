"""Which format of series a file is, by its content alone, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from outlast.rooms.watch.proto import ioda, monash, ooni_aggregation, tor_metrics
from outlast.rooms.watch.proto.series import Origin, Point, SeriesError, rows_of


def read_series(lines: Iterable[bytes], origin: Origin, utc_offset_h: float | None = None) -> list[Point]:
    """The rows of a file given as lines; raises SeriesError when it is none of the known formats.

    Known: IODA (CSV of the dashboard, JSON of API v2), Tor Metrics (users by country), OONI (aggregation, CSV and
    JSON), Monash IP Observatory (connectivity, latency, answers). ``utc_offset_h`` is for local times without a zone.
    """
    source = iter(lines)
    first = next((line for line in source if line.strip()), b"")
    whole = chain([first], source)
    found = (
        _json(whole, origin)
        if first.lstrip(b"\xef\xbb\xbf \t")[:1] in (b"{", b"[")
        else _csv(whole, origin, utc_offset_h)
    )
    if not any(point.value is not None for point in found):
        raise SeriesError("there is no measured value in this file")
    return found


def _csv(lines: Iterable[bytes], origin: Origin, utc_offset_h: float | None) -> list[Point]:
    rows: Iterator[list[str]] = rows_of(lines)
    header = next(rows, [])
    table = chain([header], rows)
    if ioda.is_csv(header):
        return ioda.read_csv(table, origin)
    if tor_metrics.is_csv(header):
        return tor_metrics.read_csv(table, origin)
    if ooni_aggregation.is_csv(header):
        return ooni_aggregation.read_csv(table, origin)
    if monash.is_csv(header):
        return monash.read_csv(table, origin, utc_offset_h)
    raise SeriesError("this is no series known here: of IODA, Tor Metrics, OONI or the Monash IP Observatory")


def _json(lines: Iterable[bytes], origin: Origin) -> list[Point]:
    try:
        data: Any = msgspec.json.decode(b"\n".join(lines).removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SeriesError("this is no JSON document: %(error)s", error=error) from None
    if ooni_aggregation.is_json(data):
        return ooni_aggregation.read_json(data, origin)
    return ioda.read_json(data, origin)
