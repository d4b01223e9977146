"""``outlast watch classify``: one line for each measurement, damage told by its line, nothing of a home needed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.main import run
from outlast.errors import ProtocolError
from outlast.rooms.watch.io.measurements import DAMAGED_MAX, fingerprints, measurements_in
from tests.real import real

GOOD = {"test_name": "ndt", "input": "a\u20ac", "test_keys": {}}
ROW = {
    "input": "a\u20ac",
    "blocking": None,
    "accessible": None,
    "layers": {layer: "unknown" for layer in ("dns", "tcp", "tls", "http", "throttled")},
    "fingerprint": None,
}
LIST = "name,scope,location_found,pattern_type,pattern,confidence_no_fp,expected_countries\n"


class Line:
    """The command line of a machine without a home."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Take a place where nothing is."""
        self.home, self._capsys = home, capsys

    def __call__(self, *arguments: object) -> tuple[int, list[str], list[str]]:
        """The exit code, the lines printed, the lines of complaint."""
        code = run(["--home", str(self.home), "watch", "classify", *map(str, arguments)])
        said = self._capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    def json(self, *arguments: object) -> tuple[int, list[Any], list[str]]:
        """The same, as programs read it."""
        code, rows, complaints = self(*arguments, "--json")
        return code, [json.loads(row) for row in rows], complaints


@pytest.fixture
def line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Line:
    return Line(tmp_path / "home", capsys)


def test_each_measurement_is_one_line_with_the_documented_keys(line: Line, tmp_path: Path) -> None:
    one, many, packed = tmp_path / "one.json", tmp_path / "many.jsonl", tmp_path / "packed.jsonl.gz"
    one.write_text(json.dumps(GOOD, indent=2))
    many.write_text(f"{json.dumps(GOOD)}\n" * 3)
    packed.write_bytes(gzip.compress(f"{json.dumps(GOOD)}\n".encode() * 2))
    code, rows, complaints = line.json(one, many, packed)
    assert (code, complaints) == (0, [])
    assert rows == [{"file": str(path), **ROW} for path in (one, many, many, many, packed, packed)]
    assert list(rows[0]) == ["file", "input", "blocking", "accessible", "layers", "fingerprint"]
    assert not line.home.exists()


def test_standard_input_is_read_for_a_dash(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(json.dumps(GOOD).encode()))))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", stdin)
    assert line.json("-") == (0, [{"file": "-", **ROW}], [])


def test_a_damaged_measurement_is_told_by_its_line_and_the_others_are_answered(line: Line, tmp_path: Path) -> None:
    path, cut, whole = tmp_path / "some.jsonl", tmp_path / "cut.gz", tmp_path / "whole.json"
    path.write_text(f'{json.dumps(GOOD)}\n{{"test_name": \n{json.dumps(GOOD)}\n{{"test_name": "tor"}}\n')
    cut.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 100)[:-20])
    whole.write_text(json.dumps(GOOD))
    code, rows, complaints = line.json(path, cut, whole)
    assert code == 6
    assert [row["file"] for row in rows] == [str(path), str(path), str(whole)]
    assert complaints[0].startswith(f"{path}: line 2: it is no JSON")
    assert complaints[1] == f"{path}: line 4: it has no test_keys: nothing was measured"
    assert complaints[2].startswith(f"{cut}: cut.gz is damaged or cut")
    assert json.loads(complaints[3]) == {"error": "2 measurements could not be read; the others are above", "code": 6}


def test_of_a_cut_archive_what_can_be_unpacked_is_answered_and_then_the_damage_told(line: Line, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    rows = "".join(json.dumps(GOOD | {"input": f"{number:x}" * 9}) + "\n" for number in range(5000))
    cut.write_bytes(gzip.compress(rows.encode())[:-3000])
    code, answered, complaints = line.json(cut)
    assert code == 6
    assert len(answered) > 1000
    assert answered[-1]["input"] == f"{len(answered) - 1:x}" * 9
    assert complaints[0].startswith(f"{cut}: cut.jsonl.gz is damaged or cut")


def test_of_much_damage_the_first_is_told_and_the_rest_counted(line: Line, tmp_path: Path) -> None:
    (tmp_path / "noise").write_text('{"cut": \n' * 100)
    code, _, complaints = line(tmp_path / "noise")
    assert (code, len(complaints)) == (6, 22)
    assert complaints[20].endswith("noise: 80 more could not be read")


def test_of_a_damaged_measurement_of_many_lines_one_is_told(line: Line, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("x" + json.dumps(GOOD, indent=1))
    (tmp_path / "utf-16").write_text(json.dumps(GOOD, indent=1), encoding="utf-16")
    for name in ("one", "utf-16"):
        code, rows, complaints = line(tmp_path / name)
        assert (code, rows, len(complaints)) == (6, [], 2)
        assert complaints[0].startswith(f"{tmp_path / name}: line 1: it is no JSON")
        assert complaints[1] == "outlast: 1 measurement could not be read"


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_a_file_without_a_measurement_is_no_answer(line: Line, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty").write_bytes(content)
    code, rows, complaints = line(tmp_path / "empty")
    assert (code, rows) == (6, [])
    assert "there is no measurement in it" in complaints[0]


def test_a_file_that_is_not_there_is_told_after_the_others_were_answered(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(GOOD))
    code, rows, complaints = line.json(tmp_path / "none.json", path)
    assert (code, len(rows)) == (4, 1)
    assert "there is no file none.json" in complaints[0]


def test_people_get_a_table(line: Line, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(GOOD | {"input": "a\u202e\nb"}))
    code, rows, _ = line(path)
    assert code == 0
    assert rows[0].split() == ["DNS", "TCP", "TLS", "HTTP", "THROTTLED", "BLOCKING", "FINGERPRINT", "INPUT", "FILE"]
    assert rows[1].split()[:7] == ["unknown"] * 5 + ["-", "-"]
    assert len(rows) == 2


def test_fingerprints_come_from_a_folder_or_the_home_and_never_with_the_program(line: Line, tmp_path: Path) -> None:
    measured = tmp_path / "one.json"
    page = {
        "failure": None,
        "request": {"url": "http://a.example/"},
        "response": {"code": 200, "body": "it is forbidden"},
    }
    measured.write_text(json.dumps(GOOD | {"test_keys": {"requests": [page]}}))
    own = line.home / "rooms" / "watch" / "fingerprints"
    own.mkdir(parents=True)
    (own / "pages.csv").write_text(f"{LIST}own,nat,body,contains,is forbidden,5,\nbad,nat,body,regexp,(a+)+b,5,\n")
    named = tmp_path / "named"
    named.mkdir()
    (named / "pages.csv").write_text(f"{LIST}named,isp,body,regexp,it.*forbidden,10,\n")
    code, [row], complaints = line.json(measured)
    assert (code, row["fingerprint"], row["layers"]["http"]) == (0, "own", "blocked")
    assert [one.startswith("a fingerprint is not used: pages.csv, line 3") for one in complaints] == [True]
    assert line.json(measured, "--fingerprints", named)[1][0]["fingerprint"] == "named"
    assert line.json(measured, "--fingerprints", tmp_path / "none")[0] == 4
    (own / "pages.csv").unlink()
    own.rmdir()
    assert line.json(measured)[1][0]["fingerprint"] is None


def test_what_is_no_file_of_measurements_is_given_up() -> None:
    noise = io.BytesIO(b"{}\n" * (DAMAGED_MAX + 10))
    with pytest.raises(ProtocolError, match="the rest was not read"):
        list(measurements_in(noise))
    good = json.dumps(GOOD).encode()
    assert len(list(measurements_in(io.BytesIO((good + b"\n{}\n") * (DAMAGED_MAX + 10))))) == 2 * (DAMAGED_MAX + 10)


def test_the_real_files_are_answered_and_one_is_refused(line: Line) -> None:
    files = sorted(real("watch/ooni/real").glob("*.json"))
    code, rows, complaints = line.json(*files, "--fingerprints", real("watch/ooni/fingerprints"))
    assert (code, len(rows)) == (6, len(files) - 1)
    assert [one for one in complaints if "test_keys_none.json" in one]
    by_name = {Path(row["file"]).name: row for row in rows}
    assert by_name["bug_352.json"]["blocking"] == "dns"
    assert by_name["bug_352.json"]["fingerprint"].startswith("ooni.ir_")


def test_the_real_lists_are_read() -> None:
    assert len(fingerprints(real("watch/ooni/fingerprints"))) > 1900
