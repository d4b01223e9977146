"""Reading files of route collectors, beside pybgpkit-parser on the same files: the same counts, and how long they take.

Both read from the disk, unpack, decode every attribute, and count elements and distinct prefixes. Ours has no part in
another language than Python and what comes with it. Best of several; the two take turns.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outlast.rooms.watch.io.files import open_capped, pieces
from outlast.rooms.watch.proto.mrt import Summary, summarise
from tests.real import DATA

PEER = Path(__file__).with_name("peer_pybgpkit.py")
REPEATS = 7
TURNS = 3
SPEED_BAR = 4.0
MAX_BYTES = 1 << 30


def run(peer_python: str | None) -> Iterator[dict[str, Any]]:
    """For each file how many times as fast we are, and whether the counts are the same."""
    for file in sorted((DATA / "watch" / "bgp").glob("*.*")):
        ours, theirs = float("inf"), float("inf")
        there: dict[str, Any] = {}
        for _ in range(TURNS):
            summary, took = count(file)
            ours = min(ours, took)
            if peer_python:
                printed = subprocess.run([peer_python, PEER, file], capture_output=True, check=True, text=True)
                there = json.loads(printed.stdout)
                theirs = min(theirs, there["best_s"])
        ratio = theirs / ours if there else None
        yield row(f"{file.name}: read", "ms", ours * 1000, theirs * 1000 if there else None, ratio, SPEED_BAR)
        for what in ("announced", "withdrawn", "prefixes"):
            mine = getattr(summary, what)
            yield row(
                f"{file.name}: {what}", "count", mine, there.get(what), mine / there[what] if there else None, 1.0
            )


def count(file: Path) -> tuple[Summary, float]:
    """What is in a file, and the best time in seconds."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        with open_capped(file, MAX_BYTES) as source:
            summary = summarise(pieces(source))
        best = min(best, time.perf_counter() - began)
    return summary, best


def row(work: str, unit: str, ours: float, peer: float | None, ratio: float | None, bar: float) -> dict[str, Any]:
    """One row as ``tests.bench`` wants it: counts must be equal, speed at least the bar."""
    holds = None if ratio is None else (ratio == bar if unit == "count" else ratio >= bar)
    return {
        "work": work,
        "unit": unit,
        "ours": round(ours, 2),
        "peer": None if peer is None else round(peer, 2),
        "peer_name": "pybgpkit-parser 0.6.2",
        "ratio": None if ratio is None else round(ratio, 2),
        "bar": bar,
        "holds": holds,
    }
