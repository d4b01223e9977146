"""The timeline and the map: nothing that comes in can leave its place, gaps stay gaps, no dip is lost."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.rooms.watch import worldmap
from outlast.rooms.watch.places import country_codes, country_names, entity_name, outlines
from outlast.rooms.watch.timeline import Band, Line, Words, draw, gaps, nice, runs, short, span, thin, ticks
from outlast.rooms.watch.worldmap import Mark

HOSTILE = "\"><script>alert(1)</script>&'<"
points = st.lists(
    st.tuples(st.integers(0, 10**6), st.one_of(st.none(), st.floats(0, 1e15, allow_nan=False))),
    unique_by=lambda one: one[0],
).map(sorted)


@given(points, st.integers(0, 10**6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_whatever_the_points_the_plot_is_wellformed_and_lies_within_its_frame(
    values: list[tuple[int, float | None]], start: int, end: int
) -> None:
    picture = draw(
        [Line(HOSTILE, values, 3600)], [Band(start, None, HOSTILE)], start, end, width=340, words=Words(), id="p"
    )
    tree = ElementTree.fromstring(picture)
    assert "<script" not in picture
    for path in tree.iter("path"):
        numbers = [float(one) for one in re.findall(r"-?[\d.]+", path.get("d", ""))]
        assert all(-10 <= one <= 400 for one in numbers), path.get("d")


def test_a_missing_value_is_a_gap_and_no_zero() -> None:
    line = Line("bgp", [(0, 5.0), (60, 6.0), (120, None), (180, 7.0), (400, 8.0)], 60)
    assert runs(line) == [[(0, 5.0), (60, 6.0)], [(180, 7.0)], [(400, 8.0)]]
    assert gaps(line) == [(60, 180), (180, 400)]
    assert gaps(Line("bgp", [(0, None), (60, 1.0), (120, None)], 60)) == [(0, 60), (60, 180)]
    assert gaps(Line("bgp", [], 60)) == []
    picture = draw([line], [], 0, 400, width=340, words=Words(), id="p")
    assert picture.count('class="missing"') == 2
    assert "no data" in draw([Line("bgp", [(0, None)], 60)], [], 0, 400, width=340, words=Words(), id="p")


def test_no_dip_is_lost_when_many_points_share_one_column() -> None:
    run = [(at, 0.0 if at == 555 else 100.0) for at in range(1000)]
    thinned = thin(run, lambda at: at / 500)
    assert (555, 0.0) in thinned
    assert len(thinned) < 20


def test_the_name_of_a_band_is_drawn_over_the_lines_and_numbers_in_the_readers_digits() -> None:
    line = Line("bgp", [(0, 5.0), (7200, 6.0)], 7200)
    band = Band(0, None, "cut off")
    words = Words(digits="<{}>".format, number="<{:g}>".format)
    picture = draw([line], [band], 0, 7200, width=340, words=words, id="p")
    assert picture.index('class="line"') < picture.index("cut off")
    assert all(f"&lt;{text}&gt;</text>" in picture for text in ("0", "10", "1 Jan", "01:00"))


def test_who_does_not_see_the_plot_is_told_of_it() -> None:
    picture = draw([Line("bgp", [(0, 5.0), (60, 6.0)], 60)], [], 0, 60, width=340, words=Words(), id="p")
    label = ElementTree.fromstring(picture).get("aria-label")
    assert label == "bgp from 1 Jan 1970 00:00 to 1 Jan 1970 00:01: lowest 5, highest 6, last 6."


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12.5, "12.5"), (1234, "1.23K"), (5.6e6, "5.6M"), (2e9, "2B"), (3e12, "3T")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_dates_and_numbers_stand_in_the_readers_order() -> None:
    words = Words(months="1月 " * 12, day="%(month)s%(day)s日", month="%(year)s年%(month)s", number="{:g}だ".format)
    days = draw([Line("bgp", [(0, 5.0)], 60)], [], 0, 4 * 86_400, width=340, words=words, id="p")
    assert all(text in days for text in ("1月2日</text>", "5だ</text>"))
    years = draw([Line("bgp", [(0, 5.0)], 60)], [], 0, 800 * 86_400, width=340, words=words, id="p")
    assert "1971年1月</text>" in years


@given(st.floats(1e-6, 1e15))
def test_a_scale_holds_its_highest_value_and_wastes_at_most_three_fifths(value: float) -> None:
    assert value * 0.999 <= nice(value) <= value * 2.6


@given(st.integers(0, 4 * 10**9), st.integers(900, 4 * 10**8), st.integers(2, 12))
@settings(deadline=None)
def test_ticks_are_few_and_inside(start: int, length: int, most: int) -> None:
    found = ticks(start, start + length, most)
    assert len(found) <= most + 1
    assert all(start <= one <= start + length for one in found)


def test_ticks_end_with_the_calendar() -> None:
    last = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    for start in (0, last - 10**9, last - 10**8, last - 10**6):
        assert all(start <= one <= last for one in ticks(start, last, 10))


def test_a_signal_without_rows_has_no_part_in_the_span() -> None:
    assert span([Line("a", [], 60)]) is None
    assert span([Line("a", [], 60), Line("b", [(7, None), (9, 1.0)], 60)]) == (7, 9)


def test_each_country_of_the_map_has_a_name_and_leads_to_its_page() -> None:
    shapes = outlines()
    assert set(shapes.countries) | set(shapes.dots) <= country_codes()
    picture = worldmap.draw(shapes, {"BY": Mark("bad", HOSTILE)}, country_names("en"), label="Map")
    tree = ElementTree.fromstring(picture)
    links = {link.get("href"): link for link in tree.iter("a")}
    assert len(links) == len(shapes.countries)
    assert links["/watch/country/BY"].get("aria-label", "").startswith("Belarus: ")
    assert [href for href, link in links.items() if link.get("tabindex") != "-1"] == ["/watch/country/BY"]
    assert [one.text for one in tree.iter("text")] == ["BY"], "letters beside the pattern"


@pytest.mark.parametrize("code", sorted([*outlines().countries, *outlines().dots]))
def test_the_map_can_go_close_to_each_country(code: str) -> None:
    x, y, width, height = worldmap.around(outlines(), code)
    assert 0 <= x <= x + width <= outlines().width + 1
    assert 0 <= y <= y + height <= outlines().height + 1
    place = worldmap.place(outlines(), code)
    assert place is not None
    left, top, right, bottom = place
    assert x <= (left + right) / 2 <= x + width
    assert y <= (top + bottom) / 2 <= y + height


def test_no_outline_leaps_over_the_map() -> None:
    leaps = [
        (code, step)
        for code, path in outlines().countries.items()
        for ring in path.split("M")[1:]
        for step in ring.partition("l")[2].rstrip("z").split()
        if abs(int(step)) > 120
    ]
    assert leaps == []


def test_places_are_named_in_the_readers_language() -> None:
    assert entity_name("BY", "en") == "Belarus"
    assert entity_name("BY", "fa") == "بلاروس"
    assert entity_name("BY-HM", "en") == "Belarus (HM)"
    assert entity_name("AS6697", "en") == "AS6697"
    assert entity_name("BY", "no-such-language") == "Belarus"
    assert "EU" not in country_codes()
