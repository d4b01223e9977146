"""The commands ``mrt`` and ``cost``: documented keys for programs, tables for people, exit codes; no node is needed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from outlast.edges.main import run
from outlast.errors import StorageError
from tests.unit.rooms.watch import mrt_files as write

FILE = b"".join(write.everything().values())
COUNTS = {"records": 30, "announced": 53, "withdrawn": 16, "prefixes": 8}


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["watch", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_a_file_is_counted_however_it_is_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pack: type[bytes]
) -> None:
    (tmp_path / "file").write_bytes(pack(FILE))
    code, out, _ = asked(capsys, "mrt", str(tmp_path / "file"), "--json")
    assert (code, json.loads(out)) == (0, COUNTS)
    code, out, _ = asked(capsys, "mrt", str(tmp_path / "file"))
    assert out.split()[:4] == ["RECORDS", "ANNOUNCED", "WITHDRAWN", "PREFIXES"]


def test_standard_input_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(FILE)))))
    code, out, _ = asked(capsys, "mrt", "-", "--json")
    assert (code, json.loads(out)) == (0, COUNTS)


def test_damage_ends_with_6_after_the_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(FILE[:-5])
    code, out, err = asked(capsys, "mrt", str(tmp_path / "file"), "--json")
    assert code == 6
    assert json.loads(out)["records"] == 29
    assert "record 30 is cut" in err


def test_a_file_that_is_not_there_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, "mrt", str(tmp_path / "nothing"))[0] == 4


def test_a_file_that_nobody_can_ask_about_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "mrt", "x" * 5000]) == StorageError("").exit_code
    assert "cannot be read" in capsys.readouterr().err


def test_costs_are_one_line_each_with_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, "cost", "BY", "--days", "1", "--year", "2020", "--reported", "56400000", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {tuple(row) for row in rows} == {("method", "low", "mid", "high", "inputs", "implied_share")}
    assert {row["inputs"]["reported_usd"] for row in rows} == {56_400_000}
    assert {row["implied_share"] for row in rows} == {0.3354}


def test_people_read_a_table_and_the_implied_share(capsys: pytest.CaptureFixture[str]) -> None:
    out = asked(capsys, "cost", "belarus", "--days", "1", "--year", "2020", "--reported", "56400000")[1]
    assert "deloitte-2016-gdp" in out
    assert "33.5% of the GDP" in out


def test_a_reported_cost_that_is_small_for_a_large_country_is_not_none(capsys: pytest.CaptureFixture[str]) -> None:
    query = ("cost", "IN", "--days", "64", "--year", "2022", "--reported", "184300000")
    assert "The reported 184,300,000 are 0.0313% of the GDP of these days." in asked(capsys, *query)[1]
    assert {json.loads(line)["implied_share"] for line in asked(capsys, *query, "--json")[1].splitlines()} == {
        0.0003134
    }


def test_an_unknown_country_ends_with_4_and_a_wrong_number_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = asked(capsys, "cost", "Belrus", "--days", "1", "--year", "2020")
    assert (code, "Belarus" in err) == (4, True)
    assert asked(capsys, "cost", "BY", "--days", "-1", "--year", "2020")[0] == 2
