"""Public servers that tell of a country's network: what to ask them, and whether an answer is one. Pure.

The shapes are those of IODA's API v2 (https://api.ioda.inetintel.cc.gatech.edu/v2/), of the files behind the graphs of
Tor Metrics (https://metrics.torproject.org/userstats-relay-country.html), of OONI's aggregation API
(https://api.ooni.io/apidocs/) and of RIPE RIS (https://ris.ripe.net/docs/mrt/). None wants a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct

from outlast.errors import UsageError
from outlast.rooms.watch.proto import ioda, ooni_aggregation, recognise, tor_metrics
from outlast.rooms.watch.proto.series import DAY_S, Origin, Point, SeriesError, country_of

SOURCES: Final = ("ioda", "tor", "ooni")
"""What is asked when nothing is named; collectors of RIS (``rrc00`` and so on) are asked only when they are named."""
DAYS: Final = 28
"""Four of every weekday."""
DAYS_MAX: Final = 60
"""IODA refuses much longer stretches of time, and two months of its values are some megabytes."""
STEP_S: Final = 300
"""IODA's quickest step: an end on its grid tells no server what the clock here says."""
MIB: Final = 1 << 20
_COUNTRY: Final = re.compile(r"[A-Z]{2}\Z")
_COLLECTOR: Final = re.compile(r"rrc[0-9]{2}\Z")
_MRT: Final = "mrt"


class Endpoint(Struct, frozen=True):
    """One request.

    ``source`` is its name on the command line; ``adapter`` the source that its rows name, "mrt" for a collector's
    file, which holds no rows; ``max_bytes`` as many as the answer may have; ``file`` the name it is kept under.
    """

    source: str
    url: str
    max_bytes: int
    adapter: str
    file: str

    @property
    def is_series(self) -> bool:
        """Whether the answer is rows of series."""
        return self.adapter != _MRT


def endpoints(country: str, now_s: int, days: int = DAYS, sources: Sequence[str] = ()) -> list[Endpoint]:
    """The requests for a country's last days, of the named sources or of SOURCES; raises UsageError."""
    if not _COUNTRY.match(country):
        raise UsageError("a country is named by two letters, as in BY")
    if not 1 <= days <= DAYS_MAX:
        raise UsageError("from 1 to %(most)s days can be asked for", most=DAYS_MAX)
    until_s = now_s - now_s % STEP_S
    return [_endpoint(one, country, until_s - days * DAY_S, until_s) for one in dict.fromkeys(sources or SOURCES)]


def _endpoint(source: str, country: str, from_s: int, until_s: int) -> Endpoint:
    since, until = _day(from_s), _day(until_s)
    match source:
        case "ioda":
            asked = {"from": from_s, "until": until_s}
            place = f"https://api.ioda.inetintel.cc.gatech.edu/v2/signals/raw/country/{country}"
            return Endpoint(source, f"{place}?{urlencode(asked)}", 32 * MIB, ioda.SOURCE, f"ioda-{country}.json")
        case "tor":
            asked_tor = {"start": since, "end": until, "country": country.lower(), "events": "off"}
            place = "https://metrics.torproject.org/userstats-relay-country.csv"
            return Endpoint(source, f"{place}?{urlencode(asked_tor)}", MIB, tor_metrics.SOURCE, f"tor-{country}.csv")
        case "ooni":
            # OONI leaves out the day that ``until`` names: the present one, which is not whole.
            asked_ooni = {
                "probe_cc": country,
                "since": since,
                "until": until,
                "axis_x": ooni_aggregation.TIME,
                "test_name": "web_connectivity",
            }
            place = "https://api.ooni.io/api/v1/aggregation"
            url = f"{place}?{urlencode(asked_ooni)}"
            return Endpoint(source, url, MIB, ooni_aggregation.SOURCE, f"ooni-{country}.json")
        case collector if _COLLECTOR.match(collector):
            url = f"https://data.ris.ripe.net/{collector}/latest-update.gz"
            return Endpoint(collector, url, 64 * MIB, _MRT, f"{collector}-latest-update.gz")
        case _:
            raise UsageError(
                "%(source)r is no source: there are %(known)s, and rrc00 for a collector",
                source=source[:40],
                known=", ".join(SOURCES),
            )


def read_answer(asked: Endpoint, country: str, lines: Iterable[bytes], origin: Origin) -> list[Point]:
    """The rows of an answer; raises SeriesError when it is no answer to this question."""
    points = recognise.read_series(lines, origin)
    if any(point.source != asked.adapter for point in points):
        raise SeriesError("this is no answer to what was asked: it is of another publisher's form")
    if any(country_of(point.entity) not in ("", country) for point in points):
        raise SeriesError("this is no answer to what was asked: it is of another country")
    return points


def _day(t_s: int) -> str:
    return datetime.fromtimestamp(t_s, UTC).strftime("%Y-%m-%d")
