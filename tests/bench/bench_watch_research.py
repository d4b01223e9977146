"""An archive of 200,000 drawn measurements: taking it in, asking it on DuckDB and ClickHouse's engine, the memory.

A tenth of it is taken in first: memory that does not grow with the archive is that of the tenth. Each part runs in a
process of its own, whose peak is its own.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from outlast.testing.measurements import drawn

MEASUREMENTS = 200_000
FILES = 20
PEAK_RATIO = 1.5  # of the peak with the whole archive to that with a tenth
QUESTIONS = ("anomaly_rates", "first_blocked", "layer_shares", "confirmed", "across_networks")


def run() -> Iterator[dict[str, Any]]:
    """Rates, times and peaks of memory; the two engines must give the same number of rows."""
    with tempfile.TemporaryDirectory(prefix="outlast-bench-") as name:
        folder = Path(name)
        write(folder)
        tenth = part(ingest, folder, "tenth.duckdb", FILES // 10)
        whole = part(ingest, folder, "whole.duckdb", FILES)
        rate = MEASUREMENTS / whole["seconds"]
        yield row("measurements taken in by one process", "a second", rate)
        peaks = whole["peak_mb"], tenth["peak_mb"]
        yield {
            **row("peak of memory with 200,000 measurements, with 20,000", "MB", peaks[0]),
            "peer": peaks[1],
            "peer_name": "a tenth of it",
            "ratio": round(peaks[0] / peaks[1], 2),
            "bar": PEAK_RATIO,
            "holds": peaks[0] <= PEAK_RATIO * peaks[1],
        }
        yield row("the archive as a file of DuckDB", "MB", (folder / "whole.duckdb").stat().st_size / 1e6)
        found = {engine: part(ask, folder, "whole.duckdb", engine) for engine in ("duckdb", "clickhouse")}
        for engine, answers in found.items():
            for question in QUESTIONS:
                ms, rows = answers[question]
                same = rows == found["duckdb"][question][1]
                yield row(f"{question} on {engine}, {rows} rows", "ms", ms, holds=None if same else False)


def row(work: str, unit: str, ours: float, holds: bool | None = None) -> dict[str, Any]:
    """A row without a peer."""
    nobody = dict.fromkeys(("peer", "peer_name", "ratio"))
    return {"work": work, "unit": unit, "ours": round(ours, 1), **nobody, "bar": None, "holds": holds}


def write(folder: Path) -> None:
    """The archive in packed files, always the same."""
    lines = drawn(1, MEASUREMENTS, days=365)
    for number in range(FILES):
        with gzip.open(folder / f"{number:02}.jsonl.gz", "wb", compresslevel=1) as target:
            for line in islice(lines, MEASUREMENTS // FILES):
                target.write(line + b"\n")


def ingest(folder: str, name: str, files: int) -> dict[str, float]:
    """Take the first files in."""
    from outlast.rooms.watch.research import archive

    backend = archive.connect(Path(folder) / name)
    begun = time.perf_counter()
    archive.ingest(sorted(Path(folder).glob("*.jsonl.gz"))[:files], backend)
    seconds = time.perf_counter() - begun
    backend.disconnect()
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


def ask(folder: str, name: str, engine: str) -> dict[str, tuple[float, int]]:
    """Every question: ms for its rows as arrows, and how many there are."""
    import ibis

    from outlast.rooms.watch.research import archive, expressions

    backend = archive.connect(Path(folder) / name)
    if engine == "clickhouse":
        import clickhouse_connect

        held = archive.verdicts(backend).to_pyarrow()
        backend = ibis.clickhouse.from_connection(clickhouse_connect.create_client(interface="chdb"))
        archive.verdicts(backend)
        backend.insert(archive.VERDICTS, held)
    archive.verdicts(backend).count().to_pyarrow()  # the first query of a process pays for the engine's start
    answers = {}
    for question in QUESTIONS:
        expression = getattr(expressions, question)(archive.verdicts(backend))
        begun = time.perf_counter()
        rows = expression.to_pyarrow().num_rows
        answers[question] = ((time.perf_counter() - begun) * 1000, rows)
    return answers


def part(function: Any, folder: Path, *arguments: Any) -> Any:
    """Run one of the functions above in a fresh process."""
    order = f"from {__name__} import *; print(json.dumps({function.__name__}(*json.loads(sys.argv[1]))))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", order, json.dumps([str(folder), *arguments])],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
