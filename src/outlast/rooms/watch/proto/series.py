"""Rows of measured series, whatever they came from: one kind of row, sorted, no doubles, missing kept apart from 0.

A value that nobody measured is None and never 0: a monitor that lost its own feed must not look like a country that
lost its network. Values that no measurement can have (NaN, above VALUE_MAX, negative) are None as well.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from msgspec import Struct

from outlast.errors import ProtocolError

DAY_S: Final = 86_400
HOUR_S: Final = 3600
POINTS_MAX: Final = 2_000_000
"""Rows taken from one file; three years of five-minute values of six signals are fewer."""
SERIES_MAX: Final = 20_000
"""Series in one file; counties of a large country times a handful of signals are fewer."""
NAME_MAX: Final = 200
VALUE_MAX: Final = 1e15
"""Nobody counts so many of anything; of two values near a float's end the mean is infinite."""
_EARLIEST_S: Final = 631_152_000  # 1990: no series of the internet is older
_LATEST_S: Final = 4_102_444_800  # 2100
_EPOCH = re.compile(r"\d{1,14}(?:\.\d{1,9})?\Z")
_LINE: Final = re.compile(rb"[^\r\n]+")
_LAYOUTS: Final = ("%d-%b-%Y %H:%M:%S", "%d-%b-%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S")


class Origin(Struct, frozen=True):
    """Where rows came from: ``sha256`` (hex) is of the bytes, ``fetched_at`` is s UTC."""

    fetched_at: int = 0
    sha256: str = ""


class Point(Struct, frozen=True, gc=False):
    """One row of a series.

    ``entity`` is a country ("IR", "IRN", "" where the file does not say) or a region below it ("IRN/Fars/Shiraz");
    ``t_s`` is s UTC at the beginning of the interval of ``step_s`` seconds; ``value`` is None when it is missing.
    """

    source: str
    entity: str
    signal: str
    t_s: int
    value: float | None
    step_s: int
    fetched_at: int = 0
    sha256: str = ""


Key = tuple[str, str, str]
"""(source, entity, signal): what the rows of one series have in common."""


class SeriesError(ProtocolError):
    """Bytes that claim to be a series and break its format."""


def key_of(point: Point) -> Key:
    """The series that a row belongs to."""
    return point.source, point.entity, point.signal


def country_of(entity: str) -> str:
    """The country of an entity: what stands before the first slash."""
    return entity.partition("/")[0]


def gather(points: Iterable[Point]) -> dict[Key, list[Point]]:
    """The rows by series, each in order of time; of two rows of one time the later in the file stands.

    Raises SeriesError at more than POINTS_MAX rows or SERIES_MAX series.
    """
    series: defaultdict[Key, dict[int, Point]] = defaultdict(dict)
    for number, point in enumerate(points, start=1):
        if number > POINTS_MAX:
            raise SeriesError("more than %(most)s rows", most=POINTS_MAX)
        series[key_of(point)][point.t_s] = point
        if len(series) > SERIES_MAX:
            raise SeriesError("more than %(most)s series", most=SERIES_MAX)
    return {key: [rows[at] for at in sorted(rows)] for key, rows in series.items()}


def on_own_grid(rows: Sequence[Point]) -> list[Point]:
    """The sorted rows of a series on the grid that its own values show.

    A table of several signals has the rows of its quickest one; in a slower one's column most rows are empty and not
    missing. The step is the commonest gap between values; rows of None between two steps are left out. Rows that have
    a step already stay as they are.
    """
    if not rows or rows[0].step_s:
        return list(rows)
    present = [row.t_s for row in rows if row.value is not None]
    gaps = Counter(later - earlier for earlier, later in pairwise(present))
    if not gaps:
        return list(rows)
    step_s = max(gaps, key=lambda gap: (gaps[gap], -gap))
    phase = Counter(at % step_s for at in present).most_common(1)[0][0]
    return [
        Point(row.source, row.entity, row.signal, row.t_s, row.value, step_s, row.fetched_at, row.sha256)
        for row in rows
        if row.value is not None or row.t_s % step_s == phase
    ]


def stepped(points: Iterable[Point]) -> list[Point]:
    """All rows, series after series, each on its own grid; raises SeriesError as ``gather``."""
    return [point for rows in gather(points).values() for point in on_own_grid(rows)]


def number_of(text: str) -> float | None:
    """A measured value: None when empty, no number, NaN, above VALUE_MAX or negative."""
    if not text or len(text) > 40:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return checked(value)


def checked(value: float | None) -> float | None:
    """The value, None when no measurement can have it; JSON can name whole numbers beyond every float."""
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:
        return None
    return number if 0 <= number <= VALUE_MAX else None


def time_of(text: str) -> int | None:
    """A time in s since 1970 as it stands there, read as UTC where it names no zone; None when it is none.

    Takes epochs (s or ms), ISO 8601 with a blank or T, and ``16-Nov-2019 22:00:00``.
    """
    text = text.strip()
    if not text or len(text) > 40:
        return None
    if _EPOCH.match(text):
        return in_range(float(text))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        for layout in _LAYOUTS:
            try:
                at = datetime.strptime(text, layout)
                break
            except ValueError:
                continue
        else:
            return None
    try:
        return in_range((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, ValueError):
        return None


def in_range(t_s: float) -> int | None:
    """Whole seconds of a time between 1990 and 2100, epochs of ms brought down; else None."""
    if not math.isfinite(t_s):
        return None
    if t_s > _LATEST_S:
        t_s /= 1000
    return int(t_s) if _EARLIEST_S <= t_s < _LATEST_S else None


def iso(t_s: int) -> str:
    """A time (s UTC) as ``2026-01-08T16:30:00Z``."""
    return datetime.fromtimestamp(t_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name_of(text: str) -> str:
    """A name out of a file: one line of what can be seen, at most NAME_MAX characters."""
    return "".join(one for one in " ".join(text.split()) if one.isprintable())[:NAME_MAX]


def rows_of(lines: Iterable[bytes]) -> Iterator[list[str]]:
    r"""The rows of a CSV file without its comment lines (``#``) and empty ones; some programs end a line by ``\r``.

    Raises SeriesError at a broken one, and at more than POINTS_MAX and the header.
    """
    parts = (part[0] for line in lines for part in _LINE.finditer(line))
    texts = (part.decode("utf-8", "replace").lstrip("\ufeff") for part in parts)
    try:
        for number, row in enumerate(csv.reader(text for text in texts if text.strip() and not text.startswith("#"))):
            if number > POINTS_MAX:
                raise SeriesError("more than %(most)s rows", most=POINTS_MAX)
            yield row
    except csv.Error as error:
        raise SeriesError("this is no table: %(error)s", error=error) from None
