"""What a cut costs: every published method for itself, with its inputs, its year and its source, as a range.

No method measures a cut; each multiplies a country's GDP or population with a rate that somebody published. They differ
by a factor of a hundred, and nothing here decides between them. docs/spec/watch-cost.md says where each rate stands.

Money is US dollars of the year of the GDP; Deloitte's amounts for each person are dollars of 2016. Shares and rates are
fractions of one. Data comes from data/worldbank.csv (World Bank, CC BY 4.0).
"""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from outlast.errors import NotFoundError, Sentence, UsageError

DAYS_OF_YEAR: Final = 365  # as West and NetBlocks count, in leap years too
DAYS_MAX: Final = 36_500
SOURCE: Final = "World Bank, CC BY 4.0"
CONNECTIVITY: Final = ("low", "medium", "high")
ANY_CONNECTIVITY: Final = Sentence("unknown: the range is from low to high")
YOUR_SHARE: Final = Sentence("the share that you gave")


class Indicators(msgspec.Struct, frozen=True):
    """What is known of one country: values by year, in US dollars and people."""

    iso2: str
    iso3: str
    names: tuple[str, ...]
    gdp_usd: dict[int, int]
    population: dict[int, int]


class Method(msgspec.Struct, frozen=True):
    """A published method: low, middle and high rate of what it is applied to, and where it was published.

    ``of`` is ``gdp_usd`` (the rate is a share of a day's GDP) or ``population`` (dollars a day for each person). With
    ``classes`` the three are those of low, medium and high connectivity; else the range is all that is known.
    """

    name: str
    of: str
    rates: tuple[float, float, float]
    year: int
    source: str
    note: Sentence
    classes: bool = False


class Cost(msgspec.Struct, frozen=True):
    """What one method says, in US dollars; ``inputs`` is all that went in, as JSON holds it.

    ``implied_share`` is the share of the GDP of these days that a reported figure would be; None when there is none.
    """

    method: str
    low: float
    mid: float
    high: float
    inputs: dict[str, Any]
    implied_share: float | None = None


METHODS: Final = (
    Method(
        "deloitte-2016-gdp",
        "gdp_usd",
        (0.004, 0.010, 0.019),
        2016,
        "Deloitte for Facebook: The economic impact of disruptions to Internet connectivity, October 2016",
        Sentence("an average country of low, medium and high connectivity, all services cut"),
        classes=True,
    ),
    Method(
        "deloitte-2016-people",
        "population",
        (0.06, 0.66, 2.36),  # 0.6, 6.6 and 23.6 million dollars for 10 million people
        2016,
        "Deloitte for Facebook: The economic impact of disruptions to Internet connectivity, October 2016",
        Sentence("the same estimate for each person, in dollars of 2016"),
        classes=True,
    ),
    Method(
        "brookings-2016",
        "gdp_usd",
        (0.014, 0.069, 0.124),
        2016,
        "D. West: Internet shutdowns cost countries $2.4 billion last year, Brookings Institution, October 2016",
        Sentence(
            "the internet's share of the economy, between the least and the most that West quotes (Indonesia, United"
            " Kingdom; Boston Consulting Group); its mean in the middle"
        ),
    ),
    Method(
        "oecd-2011",
        "gdp_usd",
        (0.03, 0.035, 0.04),
        2011,
        "OECD: The economic impact of shutting down Internet and mobile phone services in Egypt, February 2011",
        Sentence("the share of telecommunications and internet services in Egypt's GDP; telephones were cut too"),
    ),
    Method(
        "icrier-2018",
        "gdp_usd",
        (0.16, 0.235, 0.31),
        2018,
        "R. Kathuria and others: The anatomy of an Internet blackout, ICRIER, April 2018",
        Sentence(
            "elasticity of India's GDP per head to mobile (low) and to all internet traffic (high); estimated from"
            " growth over years, here stretched to the loss of all traffic"
        ),
    ),
)


def parse_indicators(text: str) -> list[Indicators]:
    """The countries of data/worldbank.csv."""
    found: dict[str, Indicators] = {}
    for iso2, iso3, names, indicator, first, *values in csv.reader(
        line for line in text.splitlines() if line and not line.startswith("#")
    ):
        country = found.setdefault(iso3, Indicators(iso2, iso3, tuple(names.split("|")), {}, {}))
        series = {int(first) + at: int(value) for at, value in enumerate(values) if value}
        (country.gdp_usd if indicator == "gdp_usd" else country.population).update(series)
    return list(found.values())


def find_country(countries: list[Indicators], wanted: str) -> Indicators:
    """The country of that ISO 3166-1 code (of two or three letters) or English name.

    Raises NotFoundError, with names that are near, when there is none.
    """
    known: dict[str, Indicators] = {}
    for country in countries:
        for name in (country.iso2, country.iso3, *country.names):
            if name:
                known.setdefault(_plain(name), country)
    found = known.get(_plain(wanted))
    if found is not None:
        return found
    near = dict.fromkeys(known[name].names[0] for name in get_close_matches(_plain(wanted), known, n=5, cutoff=0.6))
    if near:
        names = ", ".join(near)
        raise NotFoundError(
            "there is no country %(name)r in the table; the nearest are: %(names)s", name=wanted[:80], names=names
        )
    raise NotFoundError(
        "there is no country %(name)r in the table; give its ISO code or its English name", name=wanted[:80]
    )


def costs(
    country: Indicators,
    *,
    days: float,
    year: int,
    share: float | None = None,
    affected: float = 1.0,
    connectivity: str | None = None,
    internet_share: float | None = None,
    reported_usd: float | None = None,
) -> list[Cost]:
    """What each method says about ``days`` without internet in a country.

    ``share`` of a day's GDP is the user's own estimate, a row of its own. ``affected`` is the share of the country that
    was cut off; ``internet_share`` the internet's share of the economy, where it is known; ``reported_usd`` a figure
    for all of these days by somebody else. Raises UsageError for what cannot be, NotFoundError where nothing is known.
    """
    _check(days, Sentence("the number of days"), DAYS_MAX)
    for value, name in ((share, "--share"), (affected, "--affected"), (internet_share, "--internet-share")):
        if value is not None:
            _check(value, name, 1.0)
    if reported_usd is not None:
        _check(reported_usd, "--reported", 1e15)
    if connectivity is not None and connectivity not in CONNECTIVITY:
        raise UsageError("--connectivity is one of %(known)s", known=", ".join(CONNECTIVITY))
    known = {name: _of_year(getattr(country, name), year) for name in ("gdp_usd", "population")}
    if not any(known.values()):
        raise NotFoundError(
            "nothing is known of %(country)s for %(year)s or a year before", country=country.names[0], year=year
        )
    implied = None
    if reported_usd is not None and (gdp := known["gdp_usd"]):
        implied = reported_usd / (gdp[0] / DAYS_OF_YEAR * days)
    return [
        _round(one, implied)
        for one in _rows(country, known, days, year, share, affected, connectivity, internet_share, reported_usd)
    ]


def cost_so_far(day: Cost, started_s: int, now_s: int) -> Cost:
    """What a method says of an outage that still runs: ``day`` is its row for one day (``costs`` with ``days=1``).

    Hours count as parts of a day, with all of the country's internet down; nothing is lost before the start.
    """
    hours = max(now_s - started_s, 0) / 3600
    part = hours / 24
    inputs = {**day.inputs, "hours": round(hours, 2)}
    return msgspec.structs.replace(day, low=day.low * part, mid=day.mid * part, high=day.high * part, inputs=inputs)


def _rows(
    country: Indicators,
    known: dict[str, tuple[int, int] | None],
    days: float,
    year: int,
    share: float | None,
    affected: float,
    connectivity: str | None,
    internet_share: float | None,
    reported_usd: float | None,
) -> Iterator[Cost]:
    common: dict[str, Any] = {"country": country.iso3, "days": days}
    if reported_usd is not None:
        common["reported_usd"] = reported_usd
    if share is not None and (gdp := known["gdp_usd"]):
        cost = gdp[0] / DAYS_OF_YEAR * days * share
        inputs = {**common, **_told("gdp_usd", gdp, year), "share": share, "source": str(YOUR_SHARE)}
        yield Cost("gdp-share", cost, cost, cost, inputs)
    for method in METHODS:
        base = known[method.of]
        if base is None:
            continue
        low, mid, high = method.rates
        inputs = {**common, **_told(method.of, base, year), "affected": affected}
        if method.classes:
            inputs["connectivity"] = connectivity or str(ANY_CONNECTIVITY)
            if connectivity is not None:
                low = mid = high = method.rates[CONNECTIVITY.index(connectivity)]
        elif method.name == "brookings-2016" and internet_share is not None:
            low = mid = high = inputs["internet_share"] = internet_share
        inputs |= {
            "rates": [low, mid, high],
            "source": method.source,
            "source_year": method.year,
            "note": str(method.note),
        }
        day = base[0] / DAYS_OF_YEAR if method.of == "gdp_usd" else base[0]
        all_days = day * days * affected
        yield Cost(method.name, all_days * low, all_days * mid, all_days * high, inputs)


def _told(name: str, value: tuple[int, int], year: int) -> dict[str, Any]:
    """A value with its year, and a word when that is another year than was asked for."""
    told: dict[str, Any] = {name: value[0], f"{name.partition('_')[0]}_year": value[1], "data": SOURCE}
    if value[1] != year:
        told["year_note"] = str(nearest(year, value[1]))
    return told


def nearest(year: int | str, known: int | str) -> Sentence:
    """That a value is of another year than was asked for."""
    return Sentence(
        "%(year)s is not in the table: %(known)s is the nearest year before", {"year": year, "known": known}
    )


def _of_year(values: dict[int, int], year: int) -> tuple[int, int] | None:
    """(value, its year) of a year, else of the nearest one before."""
    at = max((known for known in values if known <= year), default=None)
    return None if at is None else (values[at], at)


def _check(value: float, what: str | Sentence, most: float) -> None:
    if not math.isfinite(value) or not 0 <= value <= most:
        raise UsageError("%(what)s must lie between 0 and %(most)g", what=what, most=most)
    if value == 0 and most > 1:
        raise UsageError("%(what)s must be more than 0", what=what)


def percent_of(share: float) -> float:
    """A share in percent, in three digits that count."""
    return float(f"{share * 100:.3g}")


def _round(cost: Cost, implied: float | None) -> Cost:
    """Cents, and four digits of a share: more would say more than is known, and fewer of a small share that it is 0."""
    low, mid, high = (round(value, 2) for value in (cost.low, cost.mid, cost.high))
    share = None if implied is None else float(f"{implied:.4g}")
    return msgspec.structs.replace(cost, low=low, mid=mid, high=high, implied_share=share)


def _plain(name: str) -> str:
    """A name without case, accents, marks, articles and "and"; Saint is St."""
    letters = "".join(one for one in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(one))
    words = "".join(one if one.isalnum() else " " for one in letters).split()
    if len(words) > 1:  # AND alone is Andorra
        words = ["st" if word == "saint" else word for word in words if word not in ("the", "and")]
    return "".join(words)
