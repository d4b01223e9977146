"""Judging measurements, and finding block pages: patterns in one look beside looking for each in turn.

With the data set its own lists and cases; without it patterns and a page of the same number and size.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.fingerprints import Fingerprint, Fingerprints, read_list
from outlast.rooms.watch.proto.measurement import read
from tests.real import DATA

PATTERNS = 1311
PAGE_BYTES = 54_000
PAGE_BAR_MS = 10.0


def run() -> Iterator[dict[str, Any]]:
    """A row for one page under all body patterns, and one for measurements a second."""
    patterns = body_patterns()
    page = page_of(PAGE_BYTES)
    known = Fingerprints(patterns)
    texts = [row.pattern.encode() for row in patterns if row.kind == "contains"]
    ours, peer = best_ms(lambda: known.of_response({}, page)), best_ms(lambda: [text for text in texts if text in page])
    yield {
        "work": f"{len(known)} body patterns over a page of {len(page)} bytes",
        "unit": "ms",
        "ours": round(ours, 3),
        "peer": round(peer, 3),
        "peer_name": "each pattern in turn",
        "ratio": round(peer / ours, 1),
        "bar": PAGE_BAR_MS,
        "holds": ours <= PAGE_BAR_MS,
    }
    cases = [path.read_bytes() for path in sorted((DATA / "watch" / "ooni" / "qa").glob("*/measurement.json"))]
    if cases:
        took = best_ms(lambda: [classify(read(case)) for case in cases])
        yield {
            "work": f"reading and judging measurements of {sum(map(len, cases)) // len(cases)} bytes",
            "unit": "a second",
            "ours": round(len(cases) / took * 1000),
            "peer": None,
            "peer_name": None,
            "ratio": None,
            "bar": None,
            "holds": None,
        }


def body_patterns() -> list[Fingerprint]:
    """Those of the data set, or as many that were made up."""
    path = DATA / "watch" / "ooni" / "fingerprints" / "fingerprints_http.csv"
    if path.exists():
        rows = read_list(path.read_text(encoding="utf-8").splitlines(keepends=True))
        return [row for row in rows if isinstance(row, Fingerprint) and row.location == "body"]
    words = random.Random(1)
    made = ("".join(words.choices("abcdefghijklmnop <>/", k=words.randint(8, 80))) for _ in range(PATTERNS))
    return [Fingerprint(text, "nat", "body", "contains", text, 5, frozenset()) for text in made]


def page_of(size: int) -> bytes:
    """A page of words and tags."""
    words = random.Random(2)
    return b" ".join(
        f"<p class={words.choice('abc')}>{''.join(words.choices('etaoinshrdlu', k=7))}</p>".encode()
        for _ in range(size)
    )[:size]


def best_ms(work: Callable[[], object], times: int = 20) -> float:
    """The least that it took, in milliseconds."""
    work()

    def once() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1000

    return min(once() for _ in range(times))
