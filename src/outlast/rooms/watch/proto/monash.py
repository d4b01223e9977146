"""Open data of the Monash University IP Observatory: connectivity or latency of regions, in several layouts.

Its README names the columns: regions are ``name_1`` (state) and ``name_2`` (county) or ``adm1_name``; time is
``time_e_utc`` (UTC), ``time_e`` or ``time_e_str`` (an epoch, but of *local* time) or ``time_local`` with
``timezone_offset``. ``connectivity`` goes from 0 (offline) to 100 or 10 (normal); ``latency_indx`` compares latency
with the long run (100) and is no connectivity; ``rtt`` rows are single answers of single addresses.
"""

from __future__ import annotations

from calendar import isleap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from outlast.rooms.watch.proto.series import (
    HOUR_S,
    Origin,
    Point,
    SeriesError,
    name_of,
    number_of,
    stepped,
    time_of,
)

SOURCE: Final = "monash"
COUNTRY: Final = ("iso", "country_iso_three_char_code")
REGION: Final = ("name_1", "adm1_name", "name_2")
VALUES: Final = (("connectivity", "connectivity"), ("latency_indx", "latency-index"), ("rtt", "answers"))
TIMES: Final = (
    ("time_e_utc", True),
    ("time_e_utc_str", True),
    ("time_e", False),
    ("time_e_str", False),
    ("time_local", False),
    ("time_local_str", False),
)
ANSWERS_STEP_S: Final = 24 * HOUR_S
"""Single answers are counted by day: the addresses are asked a few times a day each. The first day and the last are
left out: nobody knows from which hour on and until when rows were written down."""

OFFSETS_H: Final = {
    "AFG": 4.5, "AGO": 1, "ARE": 4, "ARM": 4, "AZE": 4, "BDI": 2, "BEN": 1, "BFA": 0, "BGD": 6, "BHR": 3, "BLR": 3,
    "BOL": -4, "BTN": 6, "BWA": 2, "CAF": 1, "CHN": 8, "CIV": 0, "CMR": 1, "COG": 1, "COL": -5, "COM": 3, "CRI": -6,
    "DJI": 3, "DZA": 1, "ERI": 3, "ETH": 3, "GAB": 1, "GEO": 4, "GHA": 0, "GIN": 0, "GMB": 0, "GNB": 0,
    "GNQ": 1, "GTM": -6, "HND": -6, "IND": 5.5, "IRQ": 3, "JPN": 9, "KEN": 3, "KGZ": 6, "KHM": 7, "KWT": 3, "LAO": 7,
    "LBR": 0, "LKA": 5.5, "LSO": 2, "MDG": 3, "MDV": 5, "MLI": 0, "MMR": 6.5, "MOZ": 2, "MRT": 0, "MWI": 2, "MYS": 8,
    "NER": 1, "NGA": 1, "NIC": -6, "NPL": 5.75, "OMN": 4, "PAK": 5, "PAN": -5, "PER": -5, "PHL": 8, "PRK": 9, "QAT": 3,
    "RWA": 2, "SAU": 3, "SDN": 2, "SEN": 0, "SGP": 8, "SLE": 0, "SLV": -6, "SOM": 3, "SWZ": 2, "TCD": 1,
    "TGO": 0, "THA": 7, "TJK": 5, "TKM": 5, "TUN": 1, "TUR": 3, "TZA": 3, "UGA": 3, "UZB": 5, "VEN": -4, "VNM": 7,
    "YEM": 3, "ZMB": 2, "ZWE": 2,
}  # fmt: skip
"""Hours east of UTC of countries with one zone and no summer time (IANA time zone database, since May 2018)."""


def is_csv(header: Sequence[str]) -> bool:
    """Whether a table with this first row is one of these files."""
    names = {name.strip().lower() for name in header}
    return any(value in names for value, _ in VALUES) and any(time in names for time, _ in TIMES)


def read_csv(rows: Iterable[Sequence[str]], origin: Origin, utc_offset_h: float | None = None) -> list[Point]:
    """Rows, the header as the first; ``utc_offset_h`` is for local times of a country with several zones.

    Raises SeriesError when times are local and neither the file nor the table of offsets says where.
    """
    table = iter(rows)
    header = [name.strip().lower() for name in next(table, [])]
    at_value, signal = next((header.index(name), signal) for name, signal in VALUES if name in header)
    at_time, utc = next((header.index(name), utc) for name, utc in TIMES if name in header)
    at_country = next((header.index(name) for name in COUNTRY if name in header), None)
    at_regions = [header.index(name) for name in REGION if name in header]
    at_offset = header.index("timezone_offset") if "timezone_offset" in header else None
    widest = max([at_value, at_time, at_country or 0, at_offset or 0, *at_regions])

    def points() -> Iterator[Point]:
        for row in table:
            local = time_of(row[at_time]) if len(row) > widest else None
            if local is None:
                continue
            country = name_of(row[at_country]).upper() if at_country is not None else ""
            offset_h: float | None = 0.0
            if not utc:
                said = _offset(row[at_offset]) if at_offset is not None else None
                offset_h = said if said is not None else utc_offset_h
                offset_h = offset_h if offset_h is not None else offset_of(country, local)
            if offset_h is None:
                raise SeriesError(
                    "the times are local, and the offset of %(country)s is not known here", country=country or "?"
                )
            entity = "/".join([country, *(name_of(row[at]).replace("/", "-") for at in at_regions)])
            value = number_of(row[at_value])
            at = local - round(offset_h * HOUR_S)
            yield Point(SOURCE, entity, signal, at, value, 0, origin.fetched_at, origin.sha256)

    return _daily(points()) if signal == "answers" else stepped(points())


def offset_of(country: str, local_s: int) -> float | None:
    """Hours east of UTC of a country at a local time; None where it has several zones or is not in the table."""
    if country == "IRN":
        # Summer time (+1 h) from 22 March to 21 September, in leap years a day earlier; abolished after 2022.
        at = datetime.fromtimestamp(local_s, UTC)
        day = 21 if isleap(at.year) else 22
        return 4.5 if at.year <= 2022 and (3, day) <= (at.month, at.day) < (9, day) else 3.5
    return OFFSETS_H.get(country)


def _offset(text: str) -> float | None:
    try:
        hours = float(text)
    except ValueError:
        return None
    return hours if -12 <= hours <= 14 else None


def _daily(points: Iterable[Point]) -> list[Point]:
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    last: Point | None = None
    for point in points:
        last = point
        counts[point.entity, point.t_s // ANSWERS_STEP_S * ANSWERS_STEP_S] += point.value is not None
    if last is None:
        return []
    cut = {min(day for _, day in counts), max(day for _, day in counts)}
    return stepped(
        Point(SOURCE, entity, last.signal, day, float(count), ANSWERS_STEP_S, last.fetched_at, last.sha256)
        for (entity, day), count in counts.items()
        if day not in cut
    )
