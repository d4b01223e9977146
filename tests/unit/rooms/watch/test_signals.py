"""Which rows of a file are kept as a country's own."""

from __future__ import annotations

import pytest

from outlast.errors import UsageError
from outlast.rooms.watch import signals
from outlast.rooms.watch.proto.ioda import read_json
from outlast.rooms.watch.proto.series import Origin, Point
from tests.unit.rooms.watch.test_series import ioda_series

AT_S = 1_767_889_800


def kept(country: str, *entities: str) -> set[str]:
    """Under which names rows of these entities are kept as the country's."""
    points = [Point("ioda", entity, "bgp", AT_S, 5.0, 600) for entity in entities]
    return {one.entity for one in signals.stored(points, country, AT_S * 1000, b"")}


def test_rows_of_the_country_and_rows_that_name_none_are_its_own() -> None:
    assert kept("IR", "IR") == kept("IR", "IRN") == kept("IR", "") == {"IR"}
    assert kept("XK", "XKO") == {"XK"}  # Kosovo, as Monash's maps name it
    assert kept("IR", "IRN/Fars", "/region/1226", "IQ/Fars") == {"IR", "IR/Fars", "IR/region/1226"}


@pytest.mark.parametrize("turned", [False, True])
def test_rows_under_a_code_that_is_no_more_do_not_replace_the_country_s_own(turned: bool) -> None:
    own, old = ([Point("tor", code, "users", AT_S + day * 86_400, value, 86_400) for day in days]
                for code, value, days in (("RU", 9000.0, (-3, -2)), ("SU", 3.0, (-4, -3, -2))))  # fmt: skip
    rows = [*old, *own] if turned else [*own, *old]
    [series] = signals.stored(rows, "RU", AT_S * 1000, b"")
    assert [value for _, value in series.points] == [3.0, 9000.0, 9000.0]


@pytest.mark.parametrize("entity", ["IQ", "IRQ/Fars", "AS58224", "ir", "IRNA"])
def test_what_is_about_something_else_is_no_news_of_the_country(entity: str) -> None:
    with pytest.raises(UsageError, match=rf"says nothing of IR: it is about {entity.partition('/')[0]}$"):
        kept("IR", entity)


def test_of_many_other_countries_some_are_named() -> None:
    with pytest.raises(UsageError, match=r"it is about AE, AF, AL, AM, AO…$"):
        kept("IR", "AO", "AR", "AE", "AF", "AL", "AM")


def test_a_continent_is_no_country_of_the_same_two_letters() -> None:
    points = read_json([[[ioda_series(entityType="continent", entityCode="SA")]]], Origin())
    with pytest.raises(UsageError, match=r"it is about continent SA$"):
        signals.stored(points, "SA", AT_S * 1000, b"")  # South America, and Saudi Arabia


def test_times_to_come_are_no_news_but_what_a_wrong_clock_may_explain() -> None:
    points = [Point("ioda", "IR", "bgp", AT_S + hours * 3600, 5.0, 3600) for hours in range(-24, 24 * 400)]
    [series] = signals.stored(points, "IR", AT_S * 1000, b"")
    assert [series.points[0][0] - AT_S, series.points[-1][0] - AT_S] == [-86_400, 86_400]
    with pytest.raises(UsageError, match="all of this file is dated in the future"):
        signals.stored(points[49:], "IR", AT_S * 1000, b"")
