"""Our ranges beside what Top10VPN published for whole years: a report without a bar, for nothing is fitted to it.

Their totals count every kind of restriction, also of single services and regions, by NetBlocks' tool. Ours take their
hours as days without any internet for their number of users, so that ours come out too high where only social media
was blocked. The years' GDP is that of the year.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from outlast.errors import NotFoundError
from outlast.rooms.watch import data
from outlast.rooms.watch.proto.cost import METHODS, costs, find_country, parse_indicators
from tests.real import DATA


def run() -> Iterator[dict[str, Any]]:
    """For each method, and for the range from the lowest to the highest of all, how many totals lie within."""
    countries = parse_indicators(data.read("worldbank.csv"))
    within = dict.fromkeys([*(method.name for method in METHODS), "lowest to highest of all"], 0)
    totals = 0
    for path in sorted((DATA / "watch" / "cost").glob("top10vpn_*.csv")):
        with path.open(encoding="utf-8", newline="") as source:
            for row in csv.DictReader(source):
                try:
                    country = find_country(countries, row["country"])
                except NotFoundError:
                    continue  # a region of a country
                year, users = int(row["year"]), float(row["users_affected"] or 0)
                people = country.population[min(year, max(country.population))]
                found = costs(
                    country,
                    days=max(float(row["duration_hours"]), 1) / 24,
                    year=year,
                    affected=min(users / people, 1.0),
                )
                totals += 1
                theirs = float(row["cost_usd"])
                for cost in found:
                    within[cost.method] += cost.low <= theirs <= cost.high
                within["lowest to highest of all"] += (
                    min(cost.low for cost in found) <= theirs <= max(cost.high for cost in found)
                )
    for name, count in within.items():
        yield {
            "work": f"Top10VPN's totals of 2019 to 2022 within: {name}",
            "unit": f"of {totals}",
            "ours": count,
            "peer": None,
            "peer_name": None,
            "ratio": None,
            "bar": None,
            "holds": None,
        }
