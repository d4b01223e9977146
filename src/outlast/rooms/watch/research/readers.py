"""What the commands ``outlast watch ...`` say of one file, for a program: arrays of numpy, and values as structs.

Errors are those of ``outlast.errors``: NotFoundError when there is no such file, ProtocolError when it is damaged,
UsageError for what cannot be.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outlast.rooms.watch import data
from outlast.rooms.watch.io import measurements as files
from outlast.rooms.watch.io import series as series_files
from outlast.rooms.watch.io.collector import open_mrt
from outlast.rooms.watch.io.files import pieces
from outlast.rooms.watch.proto import cost, fusion
from outlast.rooms.watch.proto.classify import Verdict, classify
from outlast.rooms.watch.proto.mrt import Summary, summarise
from outlast.rooms.watch.proto.records import Damage
from outlast.rooms.watch.proto.series import Point, checked

Arrays = dict[str, NDArray[Any]]
"""Columns by name, all of one length: what ``pandas.DataFrame`` and ``polars.DataFrame`` take as it is."""
SeriesColumns = ("source", "entity", "signal", "t", "value", "step_s")


def classify_file(
    path: str | os.PathLike[str], fingerprints: str | os.PathLike[str] | None = None
) -> Iterator[Verdict]:
    """The verdict on each OONI measurement of a file (JSON or JSONL, packed or not), one at a time.

    ``fingerprints`` is a folder with OONI's lists of block pages. A record that cannot be read is a warning, and the
    rest of the file is read.
    """
    known = None if fingerprints is None else files.fingerprints(Path(fingerprints))
    for found in files.measurements(Path(path)):
        if isinstance(found, Damage):
            warnings.warn(f"{Path(path).name}: line {found.line}: {found.problem}", stacklevel=2)
        else:
            yield classify(found, known)


def read_series(path: str | os.PathLike[str], utc_offset_h: float | None = None) -> Arrays:
    """The rows of a file of IODA, Tor Metrics, OONI or Monash, known by its content.

    Columns: source, entity and signal (text), t (``datetime64[s]``, UTC), value (float; NaN where nothing was measured,
    which is not 0) and step_s (length of the interval that begins at t). ``utc_offset_h`` is for files in local time.
    """
    points = series_files.read_series(Path(path), utc_offset_h)
    return {
        "source": np.array([point.source for point in points], dtype=np.str_),
        "entity": np.array([point.entity for point in points], dtype=np.str_),
        "signal": np.array([point.signal for point in points], dtype=np.str_),
        "t": np.array([point.t_s for point in points], dtype="datetime64[s]"),
        "value": np.array([np.nan if point.value is None else point.value for point in points], dtype=np.float64),
        "step_s": np.array([point.step_s for point in points], dtype=np.int64),
    }


def detect(series: Mapping[str, Any], *, regions: bool = False) -> list[fusion.Report]:
    """The alarms of each signal in columns as ``read_series`` gives them, in any order, also as a DataFrame.

    The first report of each country is of all its signals together; ``regions`` adds each region's own.
    """
    columns = [np.asarray(series[name]) for name in SeriesColumns]
    columns[3] = columns[3].astype("datetime64[s]").astype(np.int64)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return fusion.detect(
        (
            Point(source, entity, signal, t_s, checked(value), step_s)
            for source, entity, signal, t_s, value, step_s in rows
        ),
        regions=regions,
    )


def costs(country: str, *, days: float, year: int, **more: Any) -> list[cost.Cost]:
    """What each published method says about ``days`` without internet in a country, by its ISO code or English name.

    ``more`` are ``share``, ``affected``, ``connectivity``, ``internet_share`` and ``reported_usd`` of
    ``proto.cost.costs``.
    """
    known = cost.parse_indicators(data.read("worldbank.csv"))
    return cost.costs(cost.find_country(known, country), days=days, year=year, **more)


def mrt_counts(path: str | os.PathLike[str]) -> Summary:
    """What a file of a route collector announces and withdraws; ``damage`` says where it could not be read further."""
    with open_mrt(Path(path)) as source:
        return summarise(pieces(source))
