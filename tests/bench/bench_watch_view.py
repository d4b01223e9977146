"""Ten thousand published observations into watch's view, as they come from a neighbour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from outlast.kernel.store import Incoming, Store
from outlast.rooms.watch import ROOM, view
from tests.unit.kernel.entries import KEY
from tests.unit.kernel.people import NOW_MS
from tests.unit.rooms.watch.said import NEWS, observation

OBSERVATIONS = 10_000
BAR_S = 2.0
RAW_BYTES = 600


def run() -> Iterator[dict[str, Any]]:
    """A row for folding, and one for what the page then asks."""
    entries = [
        observation(f"https://site-{number}.example.org/", by=f"key {number % 100}", raw=bytes(RAW_BYTES))
        for number in range(OBSERVATIONS)
    ]
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.db", KEY, rooms=[ROOM])
        for start in range(0, len(entries), 500):
            store.append([Incoming(one) for one in (NEWS, *entries)[start : start + 500]])
        begun = time.perf_counter()
        while store.fold("watch"):
            pass
        folded_s = time.perf_counter() - begun
        begun = time.perf_counter()
        shown = view.observations(store, [NEWS.id], NOW_MS, limit=500)
        asked_ms = (time.perf_counter() - begun) * 1000
        store.close()
    assert len(shown) == 500
    yield _row(f"folding {OBSERVATIONS} observations into the view", "s", round(folded_s, 3), BAR_S)
    yield _row(f"the newest 500 of {OBSERVATIONS} observations", "ms", round(asked_ms, 2), None)


def _row(work: str, unit: str, ours: float, bar: float | None) -> dict[str, Any]:
    return {
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": None,
        "peer_name": None,
        "ratio": None,
        "bar": bar,
        "holds": None if bar is None else ours <= bar,
    }
