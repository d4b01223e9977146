"""Costs as pages and reports show them: what was asked for, by the hour while an outage lasts, and as a picture."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final

from markupsafe import Markup

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.watch import data
from outlast.rooms.watch.proto.cost import Cost, Indicators, cost_so_far, costs, find_country, parse_indicators
from outlast.rooms.watch.timeline import short
from outlast.rooms.watch.view import Cut

_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
_AMOUNT: Final = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(,[0-9]{3}){1,4})(\.[0-9]{1,6})?")
"""Dollars also in groups of three digits. Elsewhere a comma is half of the world's point: 2,5 days are not 25."""
PICTURE_WIDTH: Final = 340
_LEFT: Final = 8
_ROW: Final = 34


@dataclass(frozen=True, slots=True)
class Running:
    """What one outage costs: how long it was so far (h), and for each method an hour's range and that of all of it."""

    hours: float
    rows: Sequence[tuple[str, Cost, Cost]]  # method, of an hour, so far


@cache
def countries() -> list[Indicators]:
    """The indicators that come with the program."""
    return parse_indicators(data.read("worldbank.csv"))


def asked(form: Mapping[str, str]) -> list[Cost]:
    """The costs that a form asks for; raises UsageError for what is no number, NotFoundError for an unknown country."""
    numbers = {name: _number(form[name], _NUMBER) for name in ("days", "year", "share")}
    numbers["reported"] = _number(form["reported"], _AMOUNT)
    percent = numbers["share"]
    return costs(
        find_country(countries(), form["country"]),
        days=1 if numbers["days"] is None else numbers["days"],
        year=int(numbers["year"] or 0),
        reported_usd=numbers["reported"],
        share=None if percent is None else percent / 100,
    )


def of_cut(cut: Cut, now_s: int) -> Running | None:
    """What an outage of a country costs, as far as it has come; None when nothing is known of that country."""
    end_s = now_s if cut.end_s is None else cut.end_s
    try:
        found = costs(find_country(countries(), cut.entity), days=1, year=datetime.fromtimestamp(cut.start_s, UTC).year)
    except (NotFoundError, UsageError):
        return None
    rows = [(one.method, cost_so_far(one, 0, 3600), cost_so_far(one, cut.start_s, end_s)) for one in found]
    return Running(max(end_s - cut.start_s, 0) / 3600, rows)


def of_lasting(code: str, cuts: Sequence[Cut], now_s: int) -> Running | None:
    """The same of the longest of a country's outages that last; None when none does."""
    lasting = [cut for cut in cuts if cut.end_s is None and cut.entity == code]
    return of_cut(min(lasting, key=lambda cut: cut.start_s), now_s) if lasting else None


def money(value: float) -> str:
    """Dollars with the digits that mean something: ``34,000``, ``1.2 million``, ``176 million``, ``1.3 billion``."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{_digits(value / size)}\u00a0{name}"
    return _digits(value)


def _digits(value: float) -> str:
    """Three digits that count, in groups: 1.38, 64.4, 706,000."""
    if value <= 0:
        return "0"
    places = 2 - math.floor(math.log10(value))
    return f"{round(value, places):,.{max(places, 0)}f}".removesuffix(".00").removesuffix(".0")


def picture(rows: Sequence[Cost], summary: str, short: Callable[[float], str] = short) -> Markup:
    """The methods' ranges beside each other, on a scale where each mark is ten times the one before; empty for none.

    ``summary`` says the same for who does not see it; ``short`` writes a mark in few characters.
    """
    shown = [one for one in rows if one.high > 0]
    if not shown:
        return Markup("")
    low = 10 ** math.floor(math.log10(min(max(one.low, 1.0) for one in shown)))
    high = 10 ** math.ceil(math.log10(max(one.high for one in shown)))
    high = max(high, low * 10)
    height = _ROW * len(shown) + 24
    inner = PICTURE_WIDTH - 2 * _LEFT

    def x(value: float) -> float:
        return _LEFT + inner * math.log10(max(value, low) / low) / math.log10(high / low)

    parts = []
    mark = float(low)
    while mark <= high:
        parts.append(Markup('<path class="grid" d="M{0:.1f} 4V{1}"/>').format(x(mark), height - 20))
        anchor = "start" if mark == low else "end" if mark >= high else "middle"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                x(mark), height - 6, anchor, short(mark)
            )
        )
        mark *= 10
    for number, one in enumerate(shown):
        y = 10 + _ROW * number
        parts.append(Markup('<text class="name" x="{}" y="{}">{}</text>').format(_LEFT, y + 2, one.method))
        parts.append(Markup('<path class="range" d="M{:.1f} {}H{:.1f}"/>').format(x(one.low), y + 13, max(x(one.high), x(one.low) + 1)))  # fmt: skip # noqa: E501
        parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{}" r="4"/>').format(x(one.mid), y + 13))
    return Markup(
        '<svg class="plot ranges" viewBox="0 0 {} {}" role="img" aria-label="{}" direction="ltr">{}</svg>'
    ).format(PICTURE_WIDTH, height, summary, Markup("").join(parts))


def _number(text: str, form: re.Pattern[str]) -> float | None:
    text = text.strip().replace("%", "")
    if not text:
        return None
    if not form.fullmatch(text):
        raise UsageError("%(text)r is no number: write one as 2 or 2.5", text=text[:40])
    return float(text.replace(",", ""))
