"""The map: countries as SVG paths; what is known of one is marked by pattern, letters and words, never by colour alone.

Outlines and marks in, escaped text out. Classes stand in the text; the page's style sheet gives both themes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from outlast.rooms.watch.places import Outlines

MARGIN: Final = 12
CLOSE_MIN: Final = 90
RING: Final = 16
"""A ring of this radius, on the map of the world, shows where a small country with a mark is."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a country: its ``light`` ("ok", "warn", "bad", "old"), and that in words, after its name."""

    light: str
    words: str


def draw(
    outlines: Outlines,
    marks: Mapping[str, Mark],
    names: Mapping[str, str],
    *,
    label: str,
    focus: str = "",
) -> Markup:
    """The map of the world, or around the country ``focus``; each country leads to its page.

    Countries without a mark can be clicked but are not stops of the keyboard: pages have a list besides.
    """
    box = around(outlines, focus) if focus else (0, 0, outlines.width, outlines.height)
    plain = [code for code in outlines.countries if code not in marks]
    parts = [_patterns()]
    parts += [_country(outlines, code, None, names) for code in plain]
    parts += [
        _country(outlines, code, mark, names) for code, mark in sorted(marks.items()) if code in outlines.countries
    ]
    size = max(box[2] / outlines.width, 0.12)
    for code, at in outlines.dots.items():
        mark = marks.get(code)
        if mark or code == focus:
            parts.append(_dot(code, at, mark, names, 4 * size))
    for code, mark in sorted(marks.items()):
        if mark.light in ("warn", "bad") or code == focus:
            parts.append(_code(outlines, code, mark, size))
    view = " ".join(f"{number:.0f}" for number in box)
    return Markup('<svg class="map" viewBox="{}" role="group" aria-label="{}">{}</svg>').format(
        view, label, Markup("").join(parts)
    )


def around(outlines: Outlines, code: str) -> tuple[float, float, float, float]:
    """The part of the map around a country: x, y, width, height, in the proportions of the whole."""
    bounds = place(outlines, code)
    if bounds is None:
        return 0, 0, outlines.width, outlines.height
    left, top, right, bottom = bounds
    ratio = outlines.width / outlines.height
    width = max(right - left + 4 * MARGIN, (bottom - top + 4 * MARGIN) * ratio, CLOSE_MIN)
    width = min(width, outlines.width)
    height = width / ratio
    x = min(max((left + right - width) / 2, 0), outlines.width - width)
    y = min(max((top + bottom - height) / 2, 0), outlines.height - height)
    return x, y, width, height


def place(outlines: Outlines, code: str) -> tuple[int, int, int, int] | None:
    """Where a country is: left, top, right, bottom of its largest part; None for one that is not on the map."""
    if code in outlines.dots:
        return (*outlines.dots[code], *outlines.dots[code])
    return _bounds(_largest(outlines.countries[code])) if code in outlines.countries else None


def _country(outlines: Outlines, code: str, mark: Mark | None, names: Mapping[str, str]) -> Markup:
    name = names.get(code, code)
    if mark is None:
        return Markup(
            '<a href="/watch/country/{0}" tabindex="-1" aria-label="{1}"><path class="land" d="{2}">'
            "<title>{1}</title></path></a>"
        ).format(code, name, outlines.countries[code])
    words = f"{name}: {mark.words}"
    return Markup(
        '<a href="/watch/country/{0}" aria-label="{1}"><path class="land {2}" fill="url(#map-{2})" d="{3}">'
        "<title>{1}</title></path></a>"
    ).format(code, words, mark.light, outlines.countries[code])


def _dot(code: str, at: tuple[int, int], mark: Mark | None, names: Mapping[str, str], radius: float) -> Markup:
    words = f"{names.get(code, code)}: {mark.words}" if mark else names.get(code, code)
    return Markup(
        '<a href="/watch/country/{0}" aria-label="{1}"><circle class="land {2}" cx="{3}" cy="{4}" r="{5:.1f}">'
        "<title>{1}</title></circle></a>"
    ).format(code, words, mark.light if mark else "", at[0], at[1], radius)


def _code(outlines: Outlines, code: str, mark: Mark, size: float) -> Markup:
    bounds = place(outlines, code)
    if bounds is None:
        return Markup("")
    left, top, right, bottom = bounds
    x, radius = (left + right) / 2, RING * size
    small = max(right - left, bottom - top) < radius
    ring = Markup('<circle class="ring {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(
        mark.light, x, (top + bottom) / 2, radius
    )
    above = ((top + bottom) / 2 - radius if small else top) - 4 * size
    return (ring if small else Markup("")) + Markup(
        '<text class="letters {}" x="{:.1f}" y="{:.1f}" font-size="{:.1f}" text-anchor="middle" aria-hidden="true">{}'
        "</text>"
    ).format(mark.light, x, above if above > 26 * size else bottom + 28 * size, 30 * size, code)


def _largest(path: str) -> str:
    return max(path.split("M"), key=len)


def _bounds(ring: str) -> tuple[int, int, int, int]:
    numbers = [int(one) for one in re.findall(r"-?\d+", ring)]
    x, y = numbers[0], numbers[1]
    xs, ys = [x], [y]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=False):
        x, y = x + dx, y + dy
        xs.append(x)
        ys.append(y)
    return min(xs), min(ys), max(xs), max(ys)


def _patterns() -> Markup:
    return Markup(
        '<defs><pattern id="map-bad" width="5" height="5" patternUnits="userSpaceOnUse">'
        '<rect class="ground bad" width="5" height="5"/>'
        '<path class="hatch bad" d="M-1 1l2-2M0 5l5-5M4 6l2-2"/></pattern>'
        '<pattern id="map-warn" width="4" height="4" patternUnits="userSpaceOnUse">'
        '<rect class="ground warn" width="4" height="4"/>'
        '<circle class="hatch warn" cx="2" cy="2" r=".7"/></pattern></defs>'
    )
