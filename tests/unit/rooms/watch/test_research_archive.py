"""Archives: files in, rows out, the same on DuckDB and on ClickHouse's engine, whatever is damaged or repeated."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import NotFoundError
from outlast.rooms.watch.research import archive, expressions
from outlast.testing.measurements import BEGIN, BLOCK_PAGE, drawn, measurement
from tests.real import real

# ibis uses what DuckDB and pandas are about to give up.
pytestmark = [
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*infer_string:DeprecationWarning"),
]

QUESTIONS: list[Callable[[Any], Any]] = [
    expressions.anomaly_rates,
    lambda table: expressions.anomaly_rates(table, by=("country", "asn", "domain")),
    lambda table: expressions.anomaly_rates(table, by=("month", "test")),
    expressions.first_blocked,
    lambda table: expressions.first_blocked(table, by=("domain", "asn"), least=3),
    expressions.layer_shares,
    expressions.confirmed,
    expressions.across_networks,
    lambda table: expressions.across_networks(table, by=("domain",), least=1),
]


def duck() -> Any:
    return archive.connect(":memory:")


def clickhouse() -> Any:
    """ClickHouse's engine in this process, through ibis' backend of ClickHouse; its tables begin empty."""
    if sys.platform == "win32":
        pytest.skip("chdb has no wheel for this system")
    import clickhouse_connect

    backend = ibis.clickhouse.from_connection(clickhouse_connect.create_client(interface="chdb"))
    for name in backend.list_tables():
        backend.drop_table(name)
    return backend


ENGINES = pytest.mark.parametrize("engine", [duck, clickhouse])


def write(folder: Path, name: str, lines: Iterator[bytes] | list[bytes]) -> Path:
    path = folder / name
    content = b"\n".join(lines)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def rows(expression: Any) -> list[dict[str, Any]]:
    return list(expression.to_pyarrow().to_pylist())


def count(backend: Any) -> int:
    return int(archive.verdicts(backend).count().to_pyarrow().as_py())


def test_a_row_says_where_when_what_and_how(tmp_path: Path) -> None:
    backend = duck()
    path = write(tmp_path, "a.jsonl", [json.dumps(measurement("example.org", "XA", 64501, BEGIN, "tls")).encode()])
    archive.ingest([path], backend)
    [row] = rows(archive.verdicts(backend))
    assert row == {
        "file": 1,
        "test": "web_connectivity",
        "input": "https://example.org/",
        "domain": "example.org",
        "country": "XA",
        "asn": 64501,
        "started": datetime(2024, 1, 1),
        "blocking": "http-failure",
        "accessible": False,
        "dns": "ok",
        "tcp": "ok",
        "tls": "blocked",
        "http": "unknown",
        "throttled": "unknown",
        "fingerprint": None,
    }


@ENGINES
def test_a_repeated_run_adds_nothing_under_whatever_name(engine: Callable[[], Any], tmp_path: Path) -> None:
    backend = engine()
    files = [write(tmp_path, f"{seed}.jsonl.gz", drawn(seed, 30)) for seed in (1, 2)]
    assert [one.new for one in archive.ingest(files, backend)] == [True, True]
    copy = tmp_path / "copy.jsonl.gz"
    copy.write_bytes(files[0].read_bytes())
    assert [one.new for one in archive.ingest([*files, copy], backend)] == [False] * 3
    assert count(backend) == 60


@ENGINES
def test_a_file_that_has_grown_takes_the_place_of_its_former_self(engine: Callable[[], Any], tmp_path: Path) -> None:
    backend = engine()
    archive.ingest([write(tmp_path, "a.jsonl", drawn(1, 30)), write(tmp_path, "b.jsonl", drawn(2, 5))], backend)
    archive.ingest([write(tmp_path, "a.jsonl", drawn(1, 50))], backend)
    assert count(backend) == 55


@ENGINES
def test_rows_of_a_file_that_was_cut_short_go_with_the_next_run(engine: Callable[[], Any], tmp_path: Path) -> None:
    backend = engine()
    path = write(tmp_path, "a.jsonl", drawn(1, 30))
    archive.ingest([path], backend)
    backend.raw_sql(f"DELETE FROM {archive.FILES} WHERE file = 1")  # its rows came, its own did not
    archive.ingest([path], backend)
    assert count(backend) == 30


KILLED = """
import os, sys
from outlast.rooms.watch.research import archive
archive.BATCH_ROWS = 10  # so that each file is written for itself
archive.ingest(sys.argv[2:], archive.connect(sys.argv[1]), tell=lambda one: one.measurements == 31 and os._exit(9))
"""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{seed}.jsonl", drawn(seed, 30 + seed)) for seed in range(4)]
    folder = {**os.environ, "TMPDIR": str(tmp_path)}  # what the killed one leaves goes with the test
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.duckdb", *files], env=folder, check=False)
    assert done.returncode == 9
    backend = archive.connect(tmp_path / "a.duckdb")
    assert [one.new for one in archive.ingest(files, backend)] == [False, False, True, True]
    assert count(backend) == 30 + 31 + 32 + 33


def test_small_files_are_written_together_and_each_has_its_number(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{seed}.jsonl", drawn(seed, 9)) for seed in range(20)]
    backend = duck()
    told: list[archive.Ingested] = []
    assert archive.ingest([*files, files[0]], backend, tell=told.append) == told
    assert [one.new for one in told] == [True] * 20 + [False]
    per_file = archive.verdicts(backend).group_by("file").agg(rows=lambda table: table.count()).order_by("file")
    assert expressions.arrays(per_file)["rows"].tolist() == [9] * 20


@ENGINES
def test_an_answer_is_a_dataframe_as_well(engine: Callable[[], Any], tmp_path: Path) -> None:
    backend = engine()
    archive.ingest([write(tmp_path, "a.jsonl", drawn(1, 60))], backend)
    answer = expressions.anomaly_rates(archive.verdicts(backend), by=("country",))
    assert answer.to_pandas().country.tolist() == expressions.arrays(answer)["country"].tolist() == ["XA", "XB", "XC"]


def test_what_is_damaged_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    backend = duck()
    good = list(drawn(1, 20))
    hostile = [b"{broken}", b"[]", b'{"a":' * 100_000, json.dumps({"test_name": "x"}).encode()]
    some = write(tmp_path, "some.jsonl", [*good[:10], *hostile, *good[10:]])
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"\n".join(drawn(2, 400)))[:-500])
    told: list[archive.Ingested] = []
    nameless = write(tmp_path, os.fsdecode(b"\xff.jsonl"), good)
    found = archive.ingest([tmp_path / "none.jsonl", some, cut, tmp_path, nameless], backend, tell=told.append)
    assert found == told
    assert [one.new for one in found] == [False, True, True, False, False]
    assert (found[1].measurements, found[1].damaged, found[1].problem) == (20, 4, None)
    assert found[0].problem == "No such file or directory"
    assert found[2].problem is not None
    assert "damaged or cut" in found[2].problem
    assert found[2].measurements < 400
    assert count(backend) == 20 + found[2].measurements


def test_values_that_no_probe_writes_fill_no_column(tmp_path: Path) -> None:
    backend = duck()
    odd = measurement("example.org", "XA", 64500, BEGIN)
    odd |= {
        "probe_cc": "A" * 5000,
        "probe_asn": "AS" + "9" * 30,
        "measurement_start_time": "9999-99-99",
        "input": "https://" + "x" * 9000,
    }
    odd["test_name"] = "\ud800" * 200
    archive.ingest([write(tmp_path, "a.jsonl", [json.dumps(odd).encode()])], backend)
    [row] = rows(archive.verdicts(backend))
    assert (row["country"], row["asn"], row["started"]) == ("", 0, None)
    assert len(row["input"]) <= archive.INPUT_MAX
    assert len(row["domain"]) <= archive.DOMAIN_MAX
    assert len(row["test"]) <= archive.NAME_MAX


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{seed}.jsonl", drawn(seed, 20)) for seed in range(5)]
    one, two = duck(), duck()
    assert archive.ingest(files, one) == archive.ingest(files, two, processes=2)
    assert rows(archive.verdicts(one)) == rows(archive.verdicts(two))


@ENGINES
def test_block_pages_are_recognised_by_the_lists_of_a_folder(engine: Callable[[], Any], tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "fingerprints_http.csv").write_text(
        "name,scope,other_names,location_found,pattern_type,pattern,confidence_no_fp,expected_countries,source,"
        f"exp_url,notes\naa.order,nat,,body,contains,{BLOCK_PAGE[-30:-14]},9,XA,,,\n"
    )
    blocked = [json.dumps(measurement("example.org", "XA", 64500, BEGIN, "http")).encode()] * 3
    backend = engine()
    archive.ingest([write(tmp_path, "a.jsonl", blocked)], backend, fingerprints=lists)
    [row] = rows(expressions.confirmed(archive.verdicts(backend)))
    assert (row["country"], row["domain"], row["fingerprint"], row["measurements"]) == (
        "XA",
        "example.org",
        "aa.order",
        3,
    )
    with pytest.raises(NotFoundError):
        archive.ingest([], backend, fingerprints=tmp_path / "none")


def test_the_questions_find_what_was_drawn(tmp_path: Path) -> None:
    backend = duck()
    archive.ingest([write(tmp_path, "a.jsonl", drawn(7, 1200))], backend)
    table = archive.verdicts(backend)

    blocked = {(row["country"], row["domain"]) for row in rows(expressions.first_blocked(table, least=10))}
    assert blocked == {("XA", "example.org"), ("XB", "example.org")}
    [first] = [row["first"] for row in rows(expressions.first_blocked(table, by=("domain",), least=20))]
    assert datetime(2024, 1, 1) <= first <= datetime(2024, 1, 17)

    shares = {row["country"]: row for row in rows(expressions.layer_shares(table))}
    assert shares["XA"]["dns"] > 0.3
    assert shares["XA"]["tls"] > 0.3
    assert shares["XB"]["http"] > 0.6
    assert shares["XC"]["tcp"] == 1.0

    late = table.filter(table.started >= datetime(2024, 1, 16), table.domain == "example.org")
    networks = {row["country"]: row for row in rows(expressions.across_networks(late))}
    assert (networks["XA"]["networks"], networks["XA"]["blocking"], networks["XA"]["share"]) == (2, 2, 1.0)
    assert networks["XC"]["blocking"] == 0
    rates = expressions.arrays(expressions.anomaly_rates(late, by=("country",)))
    assert rates["country"].tolist() == ["XA", "XB", "XC"]
    assert rates["rate"][0] == 1.0
    assert rates["rate"][2] < 0.2


def test_where_nothing_is_decided_there_is_no_rate(tmp_path: Path) -> None:
    nothing = {"test_name": "ndt", "test_keys": {}, "probe_cc": "XA", "measurement_start_time": "2024-01-01 00:00:00"}
    backend = duck()
    archive.ingest([write(tmp_path, "a.jsonl", [json.dumps(nothing).encode()])], backend)
    rates = expressions.arrays(expressions.anomaly_rates(archive.verdicts(backend)))
    assert rates["decided"].tolist() == [0]
    assert np.isnan(rates["rate"]).all()


def test_an_empty_archive_answers_every_question_with_no_rows() -> None:
    for engine, question in itertools.product((duck, clickhouse), QUESTIONS):
        assert rows(question(archive.verdicts(engine()))) == []


def same_rows(files: list[Path]) -> None:
    ours, theirs = duck(), clickhouse()
    assert archive.ingest(files, ours) == archive.ingest(files, theirs)
    assert count(ours) == count(theirs) > 0
    for question in QUESTIONS:
        assert rows(question(archive.verdicts(ours))) == rows(question(archive.verdicts(theirs)))


def test_both_engines_give_the_same_rows_on_a_drawn_archive(tmp_path: Path) -> None:
    same_rows([write(tmp_path, f"{seed}.jsonl", drawn(seed, 400)) for seed in range(3)])


def test_both_engines_give_the_same_rows_on_real_measurements() -> None:
    same_rows(sorted(real("watch/ooni").glob("*/**/*.json")))


OUTCOMES = st.sampled_from([None, "dns", "tcp", "tls", "http"])
WHO = st.tuples(st.sampled_from(["XA", "XB", "zz", "", "\x00'"]), st.integers(0, 3))
STARTS = st.sampled_from(["2024-01-01 00:00:00", "2024-01-31 23:59:59", "2023-12-31 12:00:00", "1969-01-01", ""])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a.example", "b.example"]), WHO, STARTS, OUTCOMES), min_size=1, max_size=30))
def test_both_engines_give_the_same_rows_on_any_measurements(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, tuple[str, int], str, str | None]]
) -> None:
    lines = []
    for domain, (country, asn), started, how in drawn:
        one = measurement(domain, country, asn, BEGIN, how)
        lines.append(json.dumps(one | {"measurement_start_time": started}).encode())
    same_rows([write(tmp_path_factory.mktemp("drawn"), "a.jsonl", lines)])
