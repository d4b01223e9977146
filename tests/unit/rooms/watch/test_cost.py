"""Costs: published rates applied to World Bank data, figures that can be checked by hand, and honest ranges."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.watch import data
from outlast.rooms.watch.data.make import make
from outlast.rooms.watch.proto.cost import (
    METHODS,
    Cost,
    Indicators,
    cost_so_far,
    costs,
    find_country,
    parse_indicators,
)
from tests.real import real

COUNTRIES = parse_indicators(data.read("worldbank.csv"))
BELARUS = find_country(COUNTRIES, "BY")
SMALL = Indicators("SL", "SML", ("Small",), {2015: 365_000_000, 2018: 730_000_000}, {2015: 10_000_000})


def named(found: list[Cost]) -> dict[str, Cost]:
    return {cost.method: cost for cost in found}


@pytest.mark.parametrize(
    ("year", "day_usd", "implied"), [(2018, 164.5e6, 0.343), (2019, 176.5e6, 0.320), (2020, 168.1e6, 0.335)]
)
def test_what_was_reported_of_belarus_is_a_third_of_its_gdp(year: int, day_usd: float, implied: float) -> None:
    found = costs(BELARUS, days=1, year=year, share=1, reported_usd=56.4e6)
    assert named(found)["gdp-share"].mid == pytest.approx(day_usd, abs=0.05e6)
    (share,) = {cost.implied_share for cost in found}
    assert share == pytest.approx(implied, abs=0.0005)


def test_no_published_method_but_one_comes_near_what_was_reported() -> None:
    reached = [cost.method for cost in costs(BELARUS, days=1, year=2020) if cost.high > 0.75 * 56.4e6]
    assert reached == ["icrier-2018"]


def test_each_method_is_its_rate_times_days_times_what_it_is_applied_to() -> None:
    found = named(costs(SMALL, days=2, year=2015, affected=0.5, share=0.25))
    assert {name: (cost.low, cost.mid, cost.high) for name, cost in found.items()} == {
        "gdp-share": (500_000, 500_000, 500_000),
        "deloitte-2016-gdp": (4_000, 10_000, 19_000),
        "deloitte-2016-people": (600_000, 6_600_000, 23_600_000),
        "brookings-2016": (14_000, 69_000, 124_000),
        "oecd-2011": (30_000, 35_000, 40_000),
        "icrier-2018": (160_000, 235_000, 310_000),
    }
    assert all(cost.implied_share is None for cost in found.values())


def test_what_is_known_narrows_the_range() -> None:
    found = named(costs(SMALL, days=1, year=2015, connectivity="medium", internet_share=0.05))
    assert (found["deloitte-2016-gdp"].low, found["deloitte-2016-gdp"].high) == (10_000, 10_000)
    assert found["deloitte-2016-people"].low == found["deloitte-2016-people"].high == 6_600_000
    assert found["brookings-2016"].low == found["brookings-2016"].high == 50_000
    assert found["brookings-2016"].inputs["internet_share"] == 0.05


def test_every_row_names_its_inputs_their_years_and_its_source() -> None:
    for cost in costs(BELARUS, days=3, year=2020):
        assert {"country", "days", "affected", "rates", "source", "source_year", "data"} <= cost.inputs.keys()
        assert cost.inputs.get("gdp_year", cost.inputs.get("population_year")) == 2020
        assert "year_note" not in cost.inputs


def test_a_missing_year_is_replaced_by_the_nearest_before_and_says_so() -> None:
    inputs = named(costs(SMALL, days=1, year=2017))["oecd-2011"].inputs
    assert (inputs["gdp_usd"], inputs["gdp_year"]) == (365_000_000, 2015)
    assert "2017 is not in the table" in inputs["year_note"]
    with pytest.raises(NotFoundError, match="nothing is known"):
        costs(SMALL, days=1, year=2014)


def test_a_country_without_gdp_has_the_rows_that_need_none() -> None:
    korea = find_country(COUNTRIES, "North Korea")
    found = costs(korea, days=1, year=2020, reported_usd=1e6, share=0.1)
    assert [cost.method for cost in found] == ["deloitte-2016-people"]
    assert {cost.implied_share for cost in found} == {None}


def test_a_reported_figure_is_an_input_and_no_method() -> None:
    found = costs(BELARUS, days=1, year=2020, reported_usd=56.4e6)
    assert {cost.inputs["reported_usd"] for cost in found} == {56.4e6}
    asked = [cost.method for cost in costs(BELARUS, days=1, year=2020)]
    assert [cost.method for cost in found] == asked


@pytest.mark.parametrize(
    ("name", "iso3"),
    [("by", "BLR"), ("BLR", "BLR"), ("belarus", "BLR"), ("Iran", "IRN"), ("Iran, Islamic Rep.", "IRN"),
     ("turkey", "TUR"), ("Türkiye", "TUR"), ("DRC", "COD"), ("Republic of Congo", "COG"), ("eSwatini", "SWZ"),
     ("myanmar", "MMR"), ("Cote d'Ivoire", "CIV"),
     ("CÔTE D’IVOIRE", "CIV"), ("Kosovo", "XKX"), ("xk", "XKX"), ("USA", "USA"),
     ("Iran (Islamic Republic Of)", "IRN"), ("Republic of Korea", "KOR"), ("Korea, Republic of", "KOR"),
     ("The Gambia", "GMB"), ("Saint Lucia", "LCA"), ("Trinidad & Tobago", "TTO"), ("Trinidad and Tobago", "TTO"),
     ("and", "AND"), ("Burma", "MMR"), ("Hong Kong", "HKG"), ("Venezuela (Bolivarian Republic of)", "VEN")],
)  # fmt: skip
def test_countries_are_found_by_code_and_name(name: str, iso3: str) -> None:
    assert find_country(COUNTRIES, name).iso3 == iso3


@pytest.mark.parametrize(("name", "near"), [("Belrus", "Belarus"), ("Myanmr", "Myanmar"), ("Arab World", "ISO code")])
def test_an_unknown_country_is_answered_with_near_names(name: str, near: str) -> None:
    with pytest.raises(NotFoundError, match=near):
        find_country(COUNTRIES, name)


@pytest.mark.parametrize("wanted", ["", "\0", "x" * 10_000, "١"])
def test_no_name_makes_it_fail(wanted: str) -> None:
    with pytest.raises(NotFoundError):
        find_country(COUNTRIES, wanted)


@pytest.mark.parametrize(
    "wrong",
    [{"days": 0}, {"days": -1}, {"days": math.nan}, {"days": 1e9}, {"share": 1.5}, {"affected": -0.1},
     {"internet_share": math.inf}, {"connectivity": "good"}, {"reported_usd": -5}, {"reported_usd": math.nan}],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        costs(BELARUS, **{"days": 1, "year": 2020, **wrong})  # type: ignore[arg-type]


@given(st.sampled_from(COUNTRIES), st.floats(0.01, 400), st.integers(2000, 2030), st.floats(0, 1))
def test_ranges_are_in_order_and_no_more_than_what_a_country_makes(
    country: Indicators, days: float, year: int, affected: float
) -> None:
    for cost in costs(country, days=days, year=year, affected=affected):
        assert 0 <= cost.low <= cost.mid <= cost.high
        if "gdp_usd" in cost.inputs:
            assert cost.high <= cost.inputs["gdp_usd"] / 365 * days * 0.32 + 0.01


def test_while_an_outage_runs_its_cost_grows_by_the_hour() -> None:
    day = named(costs(SMALL, days=1, year=2015))["oecd-2011"]
    running = [cost_so_far(day, 1_000, 1_000 + hours * 3600) for hours in (0, 1, 12, 24, 48)]
    assert [round(cost.high) for cost in running] == [0, 1_667, 20_000, 40_000, 80_000]
    assert running[2].inputs["hours"] == 12
    assert cost_so_far(day, 1_000, 0).high == 0


def test_the_table_holds_all_countries_and_says_whose_it_is() -> None:
    text = data.read("worldbank.csv")
    assert "CC BY 4.0" in text.split("\n# A line")[0]
    assert len(COUNTRIES) == 217
    assert all(country.population for country in COUNTRIES)
    assert len({country.iso3 for country in COUNTRIES if country.gdp_usd}) > 210
    assert [country.iso3 for country in COUNTRIES if not country.iso2] == ["CHI"]


def test_the_table_is_what_its_maker_makes_of_the_source() -> None:
    assert data.read("worldbank.csv") == make(real("watch/cost"))


def test_rates_are_those_that_were_published() -> None:
    """A rate is changed here and there together, with its source at hand."""
    assert {method.name: method.rates for method in METHODS} == {
        "deloitte-2016-gdp": (0.004, 0.01, 0.019),
        "deloitte-2016-people": (0.06, 0.66, 2.36),
        "brookings-2016": (0.014, 0.069, 0.124),
        "oecd-2011": (0.03, 0.035, 0.04),
        "icrier-2018": (0.16, 0.235, 0.31),
    }
