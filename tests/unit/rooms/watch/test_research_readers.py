"""What researchers call in Python for one file says what the commands say, as arrays and values."""

from __future__ import annotations

import gzip
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas
import pytest

from outlast.errors import NotFoundError, ProtocolError
from outlast.rooms.watch import research
from outlast.testing.measurements import drawn
from tests.real import real

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)


def ioda_csv(folder: Path) -> Path:
    """Three weeks of one signal by the half-hour: usual, missing once, and gone from the twentieth day on."""
    rows = ["Time (UTC),BGP (#Visible /24s)"]
    for step in range(21 * 48):
        value = "" if step == 100 else "3" if step >= 20 * 48 else "98"
        rows.append(f"{(BEGIN + timedelta(minutes=30 * step)).strftime('%Y-%m-%d %H:%M:%S')},{value}")
    path = folder / "ioda-aaland-normalized.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_verdicts_come_one_for_each_measurement_packed_or_not(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed.jsonl.gz"
    lines = b"\n".join(drawn(1, 40))
    plain.write_bytes(lines)
    packed.write_bytes(gzip.compress(lines))
    verdicts = list(research.classify_file(plain))
    assert len(verdicts) == 40
    assert verdicts == list(research.classify_file(packed))
    assert {verdict.accessible for verdict in verdicts} == {True, False}


def test_a_record_that_cannot_be_read_is_a_warning_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    first, second = drawn(1, 2)
    path.write_bytes(b"\n".join((first, b"{broken", second)))
    with pytest.warns(UserWarning, match=r"some\.jsonl: line 2: it is no JSON"):
        assert len(list(research.classify_file(path))) == 2


def test_a_file_that_is_not_there_or_damaged_is_an_error_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        list(research.classify_file(tmp_path / "none.jsonl"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"\n".join(drawn(1, 40)))[:-20])
    with pytest.raises(ProtocolError, match="damaged or cut"):
        list(research.classify_file(cut))


def test_a_series_is_columns_of_one_length_and_what_is_missing_is_no_number(tmp_path: Path) -> None:
    columns = research.read_series(ioda_csv(tmp_path))
    assert {len(column) for column in columns.values()} == {21 * 48}
    assert columns["t"][0] == np.datetime64("2024-03-01T00:00:00")
    assert np.flatnonzero(np.isnan(columns["value"])).tolist() == [100]
    assert set(columns["step_s"].tolist()) == {1800}


def test_alarms_are_those_of_the_columns_in_any_order(tmp_path: Path) -> None:
    columns = research.read_series(ioda_csv(tmp_path))
    reports = research.detect(columns)
    (alarm,) = reports[-1].alarms
    assert alarm.end_s is None
    assert np.datetime64(alarm.start_s, "s") == np.datetime64("2024-03-21T00:00:00")
    turned = {name: column[::-1] for name, column in columns.items()}
    assert research.detect(turned) == reports


def test_a_dataframe_does_as_well_as_columns(tmp_path: Path) -> None:
    columns = research.read_series(ioda_csv(tmp_path))
    assert research.detect(pandas.DataFrame(columns)) == research.detect(columns)
    given = [None if np.isnan(value) else value for value in columns["value"]]
    assert research.detect(columns | {"value": np.array(given, dtype=object)}) == research.detect(columns)


def test_costs_are_those_of_every_method() -> None:
    found = research.costs("BY", days=1, year=2020, reported_usd=56_400_000)
    assert len({one.method for one in found}) == len(found) > 4
    assert found[0].implied_share == pytest.approx(0.335, abs=0.001)


def test_a_country_that_is_none_is_refused() -> None:
    with pytest.raises(NotFoundError):
        research.costs("Atlantis", days=1, year=2020)


def test_the_counts_of_a_real_file_of_a_collector() -> None:
    counts = research.mrt_counts(real("watch/bgp/routeviews_jinx_updates.20150401.0000.bz2"))
    assert (counts.records, counts.announced, counts.withdrawn, counts.prefixes) == (1756, 8160, 451, 6220)
    assert counts.damage is None


def test_the_real_series_of_iran_gives_the_alarm_of_the_command() -> None:
    reports = research.detect(research.read_series(real("watch/outage/ioda_iran_2025-12-01_2026-01-12.csv")))
    (alarm,) = reports[0].alarms
    assert np.datetime64(alarm.start_s, "s") == np.datetime64("2026-01-08T16:30:00")


WITHOUT_EXTRA = """
import sys
sys.modules["ibis"] = None  # as where it is not installed
from outlast.rooms.watch import research
assert research.costs("BY", days=1, year=2020)
assert not {"ibis", "pandas", "pyarrow", "duckdb"} & {name for name, found in sys.modules.items() if found}
try:
    from outlast.rooms.watch.research import archive
except ImportError as error:
    print(error)
"""


def test_without_the_extra_files_are_read_and_archives_say_what_they_need() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRA], capture_output=True, text=True)
    assert done.stdout.strip() == "archives need the extra: pip install 'outlast[research]'", done.stderr
