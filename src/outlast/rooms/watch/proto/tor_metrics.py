"""Tor Metrics: estimated users a day of a country, ``userstats-relay-country.csv`` and ``-bridge-country.csv``.

Comment lines begin with ``#``; then ``date,country,users[,lower,upper],frac`` in any order of columns. The first row of
a day has an empty country and is the world; ``??`` is unknown. https://metrics.torproject.org/stats.html (CC0).
Only the file of the relays has ``lower`` and ``upper``: that tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from outlast.rooms.watch.proto.series import DAY_S, Origin, Point, name_of, number_of, stepped, time_of

SOURCE: Final = "tor-metrics"
FRAC_MIN: Final = 10.0
"""Below 10 % of directory activity seen, Tor itself publishes no estimate."""


def is_csv(header: Sequence[str]) -> bool:
    """Whether a table with this first row is one of these files."""
    return {"date", "country", "users"} <= {name.strip().lower() for name in header}


def read_csv(rows: Iterable[Sequence[str]], origin: Origin) -> list[Point]:
    """Rows, the header as the first; one series a country, the world and the unknown left out."""
    table = iter(rows)
    header = [name.strip().lower() for name in next(table, [])]
    at_date, at_country, at_users = (header.index(name) for name in ("date", "country", "users"))
    at_frac = header.index("frac") if "frac" in header else None
    signal = "tor-relay-users" if "lower" in header else "tor-bridge-users"
    widest = max(at_date, at_country, at_users)
    found: list[Point] = []
    for row in table:
        if len(row) <= widest:
            continue
        at, country = time_of(row[at_date]), name_of(row[at_country]).upper()
        if at is None or not country or country == "??":
            continue
        users = number_of(row[at_users])
        if at_frac is not None and at_frac < len(row) and (number_of(row[at_frac]) or FRAC_MIN) < FRAC_MIN:
            users = None
        found.append(Point(SOURCE, country, signal, at, users, DAY_S, origin.fetched_at, origin.sha256))
    return stepped(found)
