"""The timeline: signals over time as SVG, one panel each. Values and words in, escaped text out; nothing is fetched.

What is missing is a gap with a mark of its own on the ground line, never a zero. Outages are hatched bands with their
name. Classes, not colours, stand in the text: the page's style sheet, or that of a report, gives both themes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime
from itertools import pairwise
from typing import Final

from markupsafe import Markup, escape

LEFT: Final = 52
RIGHT: Final = 8
TOP: Final = 20
PANEL: Final = 72
GAP: Final = 34
AXIS: Final = 22
CHAR: Final = 6.1
"""Width of a small letter, about: labels that would not fit are left out."""
BOLD: Final = 1.15
"""How much wider the letters of titles are, about."""
MONTHS: Final = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
MOMENT: Final = "%(day)s %(month)s %(year)s %(clock)s"
Scale = Callable[[float], float]
_STEPS_S: Final = (
    *(900, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600),
    *(2_629_746, 7_889_238, 31_556_952),  # a month, a quarter, a year
)


@dataclass(frozen=True, slots=True)
class Line:
    """One signal: its name, and points (UTC seconds, value or None where nothing came), in order."""

    name: str
    points: Sequence[tuple[int, float | None]]
    step_s: int


@dataclass(frozen=True, slots=True)
class Band:
    """A time that is to stand out, with a short name: ``end_s`` None = it lasts. ``light`` is "bad" or "warn"."""

    start_s: int
    end_s: int | None
    name: str
    light: str = "bad"


@dataclass(frozen=True, slots=True)
class Words:
    """What the plot says in the reader's language; ``months`` are twelve short names with blanks between.

    ``day``, ``month`` and ``moment`` say in which order dates are written; ``number`` writes one in few characters.
    """

    missing: str = "no data"
    summary: str = "%(name)s from %(start)s to %(end)s: lowest %(low)s, highest %(high)s, last %(last)s."
    nothing: str = "%(name)s: nothing was measured in this time."
    months: str = MONTHS
    day: str = "%(day)s %(month)s"
    month: str = "%(month)s %(year)s"
    moment: str = MOMENT
    digits: Callable[[object], str] = str
    number: Callable[[float], str] = lambda value: short(value)


def draw(
    lines: Sequence[Line], bands: Sequence[Band], from_s: int, to_s: int, *, width: int, words: Words, id: str
) -> Markup:
    """All signals below each other on one axis of time, ``width`` units wide; ``id`` is unique on the page."""
    to_s = max(to_s, from_s + 60)
    height = TOP + len(lines) * PANEL + max(0, len(lines) - 1) * GAP + AXIS
    inner = width - LEFT - RIGHT

    def x(at_s: float) -> float:
        return LEFT + inner * (min(max(at_s, from_s), to_s) - from_s) / (to_s - from_s)

    shown = [_within(line, from_s, to_s) for line in lines]
    parts = [_patterns(id)]
    bottom = height - AXIS
    name = Markup("")
    for band in bands:
        end_s = to_s if band.end_s is None else band.end_s
        if end_s < from_s or band.start_s > to_s:
            continue
        left, right = x(band.start_s), max(x(end_s), x(band.start_s) + 1.5)
        parts.append(
            Markup(
                '<rect class="band {0}" x="{1:.1f}" y="{2}" width="{3:.1f}" height="{4}" fill="url(#{5}-{0})"/>'
            ).format(band.light, left, TOP, right - left, bottom - TOP, id)
        )
        if right - left > len(band.name) * CHAR and not name:
            name = _text(left + 3, TOP + 11, band.name, "start", "name")
    for number, line in enumerate(shown):
        top = TOP + number * (PANEL + GAP)
        parts.append(_panel(line, top, inner, x, words))
    parts += (_time_axis(from_s, to_s, bottom, inner, x, words), name)
    label = " ".join(describe(line, from_s, to_s, words) for line in shown)
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}" direction="ltr">{}</svg>').format(
        width, height, label, Markup("").join(parts)
    )


def describe(line: Line, from_s: int, to_s: int, words: Words) -> str:
    """The line in a sentence, for who does not see it."""
    values = [value for _at, value in line.points if value is not None]
    if not values:
        return words.nothing % {"name": line.name}
    return words.summary % {
        "name": line.name,
        "start": words.digits(day_text(from_s, words.months, words.moment)),
        "end": words.digits(day_text(to_s, words.months, words.moment)),
        "low": words.number(min(values)),
        "high": words.number(max(values)),
        "last": words.number(values[-1]),
    }


def day_text(at_s: int, months: str = MONTHS, order: str = MOMENT) -> str:
    """A time as a reader in UTC has it: ``8 Jan 2026 16:30``, or what ``order`` names of it."""
    at = datetime.fromtimestamp(at_s, UTC)
    return order % {"day": at.day, "month": months.split()[at.month - 1], "year": at.year, "clock": f"{at:%H:%M}"}


def short(value: float) -> str:
    """A number in few characters: ``0``, ``12.5``, ``980``, ``1.2K``, ``3.4M``."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def ticks(from_s: int, to_s: int, most: int) -> list[int]:
    """At most ``most`` round times between two, in UTC."""
    step = next((one for one in _STEPS_S if (to_s - from_s) / one <= most), _STEPS_S[-1])
    if step == 604_800:
        first = -(-(from_s - 345_600) // step) * step + 345_600  # Mondays
        return list(range(first, to_s + 1, step))
    if step < 2_629_746:
        return list(range(-(-from_s // step) * step, to_s + 1, step))
    months = {2_629_746: 1, 7_889_238: 3}.get(step, 12)
    at = datetime.fromtimestamp(from_s, UTC)
    found = []
    after = min(at.year + 2 + (to_s - from_s) // 31_556_952, MAXYEAR + 1)
    for month in range(at.year * 12, after * 12, months):
        when = int(datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())
        if from_s <= when <= to_s:
            found.append(when)
    return found[:most]


def nice(value: float) -> float:
    """The next round number that is not smaller: 1, 2, 5 or 10 times a power of ten."""
    if value < sys.float_info.min:  # nothing, or so little that no power of ten is as small
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999_999)


def _within(line: Line, from_s: int, to_s: int) -> Line:
    return Line(line.name, [(at, value) for at, value in line.points if from_s <= at <= to_s], line.step_s)


def _panel(line: Line, top: int, inner: int, x: Scale, words: Words) -> Markup:
    values = [value for _at, value in line.points if value is not None]
    most = nice(max(values, default=1.0))
    base = top + PANEL

    def y(value: float) -> float:
        return base - PANEL * min(max(value / most, 0.0), 1.0)

    right = LEFT + inner
    parts = [_text(LEFT, top - 6, _fitting(line.name, inner / BOLD), "start", "title")]
    for share in (0.0, 0.5, 1.0):
        at = base - PANEL * share
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, at, right))
        parts.append(_text(LEFT - 4, at + 3.5, words.number(most * share), "end", "tick"))
    for start_s, end_s in gaps(line):
        parts.append(
            Markup('<path class="missing" d="M{:.1f} {}H{:.1f}"/>').format(
                x(start_s), base, max(x(end_s), x(start_s) + 2)
            )
        )
    if not values:
        parts.append(_text(LEFT + inner / 2, base - PANEL / 2, words.missing, "middle", "name"))
    for run in runs(line):
        thinned = thin(run, x)
        if len(thinned) == 1:
            at, value = thinned[0]
            parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="1.5"/>').format(x(at), y(value)))
            continue
        path = "M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in thinned)
        parts.append(Markup('<path class="line" d="{}"/>').format(path))
    return Markup("").join(parts)


def runs(line: Line) -> list[list[tuple[int, float]]]:
    """The stretches without a gap: a value that is None, or rows that are left out, end one."""
    found: list[list[tuple[int, float]]] = []
    last_s: int | None = None
    for at, value in line.points:
        if value is None:
            last_s = None
            continue
        if last_s is None or at - last_s > max(line.step_s, 1) * 1.5:
            found.append([])
        found[-1].append((at, value))
        last_s = at
    return found


def gaps(line: Line) -> list[tuple[int, int]]:
    """From when to when a signal said nothing, between its first row and its last."""
    found = []
    stretches = runs(line)
    ends = [(line.points[0][0], line.points[0][0])] if line.points and line.points[0][1] is None else []
    marks = [*ends, *((run[0][0], run[-1][0]) for run in stretches)]
    for (_, end), (start, _) in pairwise(marks):
        found.append((end, start))
    if line.points and line.points[-1][1] is None:
        found.append((marks[-1][1] if marks else line.points[0][0], line.points[-1][0] + line.step_s))
    return [(start, end) for start, end in found if end > start]


def thin(run: Sequence[tuple[int, float]], x: Scale) -> list[tuple[int, float]]:
    """Of many points within one unit of width the first, the lowest, the highest and the last: no dip is lost."""
    found: list[tuple[int, float]] = []
    column: list[tuple[int, float]] = []

    def close() -> None:
        if column:
            kept = {column[0], min(column, key=_value), max(column, key=_value), column[-1]}
            found.extend(sorted(kept))
            column.clear()

    place = -1
    for point in run:
        here = int(x(point[0]))
        if here != place:
            close()
            place = here
        column.append(point)
    close()
    return found


def _value(point: tuple[int, float]) -> float:
    return point[1]


def _fitting(text: str, width: float) -> str:
    most = int(width / CHAR)
    return text if len(text) <= most else text[: most - 1] + "…"


def _time_axis(from_s: int, to_s: int, bottom: int, inner: int, x: Scale, words: Words) -> Markup:
    parts = [Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, bottom, LEFT + inner)]
    for at_s in ticks(from_s, to_s, max(2, int(inner // 62))):
        order = words.month if to_s - from_s > 300 * 86_400 else words.day if at_s % 86_400 == 0 else "%(clock)s"
        text = day_text(at_s, words.months, order)
        half = len(text) * CHAR / 2
        place = min(max(x(at_s), LEFT - 20 + half), LEFT + inner - half)
        parts.append(Markup('<path class="axis" d="M{:.1f} {}v4"/>').format(x(at_s), bottom))
        parts.append(_text(place, bottom + 16, words.digits(text), "middle", "tick"))
    return Markup("").join(parts)


def _patterns(id: str) -> Markup:
    return Markup(
        '<defs><pattern id="{0}-bad" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<rect class="ground bad" width="6" height="6"/>'
        '<path class="hatch bad" d="M-1 1l2-2M0 6l6-6M5 7l2-2"/></pattern>'
        '<pattern id="{0}-warn" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<rect class="ground warn" width="6" height="6"/>'
        '<circle class="hatch warn" cx="3" cy="3" r=".8"/></pattern></defs>'
    ).format(id)


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(text)
    )


def span(lines: Iterable[Line]) -> tuple[int, int] | None:
    """From the first to the last row of all signals; None when there is none."""
    times = [at for line in lines if line.points for at in (line.points[0][0], line.points[-1][0])]
    return (min(times), max(times)) if times else None
