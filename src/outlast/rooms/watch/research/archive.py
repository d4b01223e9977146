"""Archives: OONI measurements of any size as one table of verdicts, in a file of DuckDB or on a server of ClickHouse.

Measurements are read as a stream and classified; kept of each is its verdict, and where, when and what it was of.
Memory stays at some batches of rows and one record. A file's own row is written after its verdicts: what was cut short
leaves rows of a file that the table of files does not know, and the next run removes them.

Needs the extra: ``pip install 'outlast[research]'``; for a server also ``ibis-framework[clickhouse]``.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from outlast.errors import OutlastError
from outlast.rooms.watch.io import measurements as files
from outlast.rooms.watch.proto.classify import Verdict, classify
from outlast.rooms.watch.proto.fingerprints import Fingerprints
from outlast.rooms.watch.proto.measurement import Measurement, host_of
from outlast.rooms.watch.proto.records import Damage
from outlast.rooms.watch.proto.series import time_of

try:
    import ibis
    import pyarrow
    import pyarrow.parquet
except ModuleNotFoundError as error:
    raise ImportError("archives need the extra: pip install 'outlast[research]'") from error

VERDICTS: Final = "verdicts"
FILES: Final = "files"
BATCH_ROWS: Final = 5000
AHEAD_FILES: Final = 2  # for each process: so many may wait to be taken in
INPUT_MAX: Final = 2048
DOMAIN_MAX: Final = 253
NAME_MAX: Final = 64
_ASN: Final = re.compile(r"(?:AS)?([0-9]{1,10})\Z")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}\Z")

COLUMNS: Final = ibis.schema(
    {
        "file": "!int64",
        "test": "!string",
        "input": "!string",
        "domain": "!string",
        "country": "!string",
        "asn": "!int64",
        "started": "timestamp",
        "blocking": "string",
        "accessible": "boolean",
        "dns": "!string",
        "tcp": "!string",
        "tls": "!string",
        "http": "!string",
        "throttled": "!string",
        "fingerprint": "string",
    }
)
"""A row for each measurement.

``file`` is a number in the table of files; ``country`` and ``asn`` of the probe, "" and 0 where they are not said;
``started`` is UTC; ``blocking`` is "no", a layer's name, or null where nothing can be said; the layers are "ok",
"blocked", "down" or "unknown"; ``fingerprint`` is null where no block page was recognised.
"""
FILE_COLUMNS: Final = ibis.schema(
    {
        "file": "!int64",
        "name": "!string",
        "sha256": "!string",
        "measurements": "!int64",
        "damaged": "!int64",
        "problem": "string",
    }
)
"""A row for each file; ``problem`` says why it could not be read to its end, null where it could."""
_ARROW: Final = COLUMNS.to_pyarrow().remove(0)


class Ingested(msgspec.Struct, frozen=True):
    """What became of one file: ``new`` is False where its content was in the archive already.

    ``damaged`` counts records that could not be read; ``problem`` says why the file was not read to its end.
    """

    name: str
    sha256: str
    new: bool
    measurements: int = 0
    damaged: int = 0
    problem: str | None = None


def connect(path: str | os.PathLike[str]) -> Any:
    """An archive in a file of DuckDB, made if it is not there: a backend of ibis. For ClickHouse see docs/howto."""
    return ibis.duckdb.connect(path)


def verdicts(backend: Any) -> Any:
    """The table of verdicts (see COLUMNS), as an expression of ibis."""
    _make(backend)
    return backend.table(VERDICTS)


def ingest(
    paths: Iterable[str | os.PathLike[str]],
    backend: Any,
    *,
    fingerprints: str | os.PathLike[str] | None = None,
    processes: int = 1,
    tell: Callable[[Ingested], object] | None = None,
) -> list[Ingested]:
    """Take files of OONI measurements (JSON or JSONL, packed or not) into an archive; one writer at a time.

    A file is known by its content: what is in the archive already is passed over, so a run that was cut short goes on
    when it is repeated. A file of the same name with other content takes the place of the earlier one.
    ``fingerprints`` is a folder with OONI's lists of block pages (other lists are for another archive: what is in stays
    as it is); ``processes`` read so many files at once; ``tell`` hears of each file when it is in. A file that is
    damaged or not there is told of, and the others are read.
    """
    known = None if fingerprints is None else Path(fingerprints)
    _fingerprints.cache_clear()
    if known is not None:
        _fingerprints(known)  # a wrong folder is an error now, not one for each file
    writer = _Writer(backend)
    done: list[Ingested] = []
    told = 0
    with tempfile.TemporaryDirectory(prefix="outlast-") as folder:
        jobs = _jobs(map(Path, paths), writer.present, Path(folder), known)
        for one in _classified(jobs, processes):
            if one.new:
                writer.add(one, _rows_file(Path(folder), one.sha256))
            done.append(one)
            if not one.new or writer.waiting >= BATCH_ROWS:
                writer.flush()
                told = _tell(done, told, tell)
        writer.flush()
    _tell(done, told, tell)
    return done


def _tell(done: list[Ingested], told: int, tell: Callable[[Ingested], object] | None) -> int:
    if tell is not None:
        for one in done[told:]:
            tell(one)
    return len(done)


class _Job(msgspec.Struct, frozen=True):
    """One file to classify: what is known of it, where its rows go, the folder of fingerprints."""

    file: Ingested
    rows: Path
    known: Path | None


def _jobs(paths: Iterable[Path], present: Iterable[str], folder: Path, known: Path | None) -> Iterator[_Job]:
    present = set(present)
    names = set()
    for path in paths:
        name = os.path.abspath(path)
        try:
            name.encode()  # a name that is no text fits into no column
            with path.open("rb") as source:
                sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            yield _Job(Ingested(name, "", False, problem=problem), folder, known)
            continue
        new = sha256 not in present and name not in names
        yield _Job(Ingested(name, sha256, new), _rows_file(folder, sha256), known)
        present.add(sha256)
        names.add(name)


def _rows_file(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.parquet"


def _classified(jobs: Iterable[_Job], processes: int) -> Iterator[Ingested]:
    """The files in their order, each when its rows lie ready; a few are worked on ahead of the one that is wanted."""
    if processes == 1:
        yield from map(_classify, jobs)
        return
    # Not by fork: the engine's threads would be cut off in the middle of what they do.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        ahead: deque[Future[Ingested]] = deque()
        for job in jobs:
            ahead.append(pool.submit(_classify, job))
            if len(ahead) == processes * AHEAD_FILES:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _classify(job: _Job) -> Ingested:
    """Write the rows of a file, batch by batch; count them."""
    if not job.file.new:
        return job.file
    known = None if job.known is None else _fingerprints(job.known)
    measurements = damaged = 0
    problem = None
    found = files.measurements(Path(job.file.name))
    with pyarrow.parquet.ParquetWriter(job.rows, _ARROW) as writer:
        while problem is None:
            rows: list[dict[str, Any]] = []
            taken = 0
            try:
                for one in islice(found, BATCH_ROWS):
                    taken += 1
                    if isinstance(one, Damage):
                        damaged += 1
                    else:
                        rows.append(_row(one, classify(one, known)))
            except OutlastError as error:
                problem = str(error)
            if rows:
                measurements += len(rows)
                writer.write_table(pyarrow.Table.from_pylist(rows, _ARROW))
            if taken < BATCH_ROWS:
                break
    return msgspec.structs.replace(job.file, measurements=measurements, damaged=damaged, problem=problem)


def _row(measurement: Measurement, verdict: Verdict) -> dict[str, Any]:
    started = time_of(measurement.started)
    asn = _ASN.match(measurement.probe_asn)
    return {
        "test": measurement.test_name[:NAME_MAX],
        "input": verdict.input[:INPUT_MAX],
        "domain": host_of(verdict.input).lower()[:DOMAIN_MAX],
        "country": measurement.probe_cc.upper() if _COUNTRY.match(measurement.probe_cc) else "",
        "asn": int(asn[1]) if asn else 0,
        "started": None if started is None else datetime.fromtimestamp(started, UTC).replace(tzinfo=None),
        "blocking": "no" if verdict.blocking is False else verdict.blocking,
        "accessible": verdict.accessible,
        **msgspec.structs.asdict(verdict.layers),
        "fingerprint": verdict.fingerprint,
    }


@lru_cache(maxsize=1)
def _fingerprints(folder: Path) -> Fingerprints:
    return files.fingerprints(folder)


def _make(backend: Any) -> None:
    there = backend.list_tables()
    for name, columns in ((VERDICTS, COLUMNS), (FILES, FILE_COLUMNS)):
        if name not in there:
            backend.create_table(name, schema=columns)


class _Writer:
    """Puts rows in, those of small files together: what an engine does once for each call costs more than a row."""

    def __init__(self, backend: Any) -> None:
        _make(backend)
        self._backend = backend
        backend.raw_sql(f"DELETE FROM {VERDICTS} WHERE file NOT IN (SELECT file FROM {FILES})")
        files = backend.table(FILES).select("file", "name", "sha256").to_pyarrow().to_pydict()
        self._numbers: dict[str, int] = dict(zip(files["name"], files["file"], strict=True))
        self._next = max(self._numbers.values(), default=0) + 1
        self._waiting: dict[int, tuple[Ingested, Path]] = {}
        self.present: list[str] = files["sha256"]
        self.waiting = 0

    def add(self, one: Ingested, rows: Path) -> None:
        """Take a file whose rows lie ready; ``waiting`` counts the rows until ``flush``."""
        self._waiting[self._next] = one, rows
        self._next += 1
        self.waiting += one.measurements

    def flush(self) -> None:
        """Put in what waits: rows, then their files in the place of what had their names, whose rows then go."""
        if not self._waiting:
            return
        held: list[Any] = []
        for table in self._tables():
            held.append(table)
            if sum(map(len, held)) >= BATCH_ROWS:
                self._backend.insert(VERDICTS, pyarrow.concat_tables(held))
                held = []
        if held:
            self._backend.insert(VERDICTS, pyarrow.concat_tables(held))
        own = [
            {"file": number, **{name: getattr(one, name) for name in FILE_COLUMNS.names[1:]}}
            for number, (one, _) in self._waiting.items()
        ]
        gone = [self._numbers[row["name"]] for row in own if row["name"] in self._numbers]
        self._remove(FILES, gone)
        self._backend.insert(FILES, pyarrow.Table.from_pylist(own, FILE_COLUMNS.to_pyarrow()))
        self._remove(VERDICTS, gone)
        self._numbers |= {row["name"]: row["file"] for row in own}
        self._waiting.clear()
        self.waiting = 0

    def _tables(self) -> Iterator[Any]:
        for number, (_, rows) in self._waiting.items():
            with pyarrow.parquet.ParquetFile(rows) as source:
                for batch in source.iter_batches(BATCH_ROWS):
                    column = pyarrow.array([number] * len(batch), pyarrow.int64())
                    yield pyarrow.Table.from_batches([batch]).add_column(0, "file", column)
            rows.unlink()

    def _remove(self, table: str, numbers: list[int]) -> None:
        if numbers:
            self._backend.raw_sql(f"DELETE FROM {table} WHERE file IN ({', '.join(map(str, numbers))})")
