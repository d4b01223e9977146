"""Makes ``reach-letters.json``: what reach publishes, and a body of each of its letters. Run it as a script."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import msgspec

from outlast.kernel import DAY_MS, Kind
from outlast.kernel.entry import pack
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import loose_entry
from outlast.rooms.reach.entries import (
    FAILED,
    HANDED,
    REVOKED,
    THROUGH,
    UPLINK,
    WANTED,
    Failed,
    Handed,
    Revoked,
    Through,
    Uplink,
    Wanted,
)
from outlast.terms import ROUTE, Route

HOUR_MS = 1_795_305_600_000
SEED = sha256(b"a key of one week").digest()
SPACE = sha256(b"a channel").digest()
LINK = "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:8388#mine"


def made() -> dict[str, Any]:
    """The vectors."""
    number, request = sha256(b"a number").digest()[:16], sha256(b"a request").digest()[:16]
    key = sha256(b"a member").digest()
    today = HOUR_MS // DAY_MS
    route = ROUTE.encode(Route("web", "rst-after-hello", HOUR_MS // 1000, "BY", 6697))
    entry = loose_entry(
        SigningKey.from_seed(SEED),
        space=SPACE,
        kind=ROUTE.name,
        payload=route,
        ts_ms=HOUR_MS,
        life_ms=ROUTE.max_life_days * DAY_MS,
        priority=ROUTE.priority,
    )
    letters: list[tuple[Kind, msgspec.Struct]] = [
        (HANDED, Handed(number, LINK, today + 90, True, request)),
        (WANTED, Wanted(request, number)),
        (FAILED, Failed(number, "freeze")),
        (REVOKED, Revoked(number)),
        (UPLINK, Uplink(number, ("192.168.1.7", "fd00::7"), 8388, key, 1 << 30, True, today + 30)),
        (THROUGH, Through(number, (("bridge.example", 443), ("192.0.2.9", 8388)))),
    ]
    return {
        "seed": SEED.hex(),
        "space": SPACE.hex(),
        "ts_ms": HOUR_MS,
        "entry": {"kind": ROUTE.name, "body": route.hex(), "packed": pack(entry).hex()},
        "letters": [{"kind": kind.name, "body": kind.encode(body).hex()} for kind, body in letters],
    }


if __name__ == "__main__":
    target = Path(__file__).with_name("reach-letters.json")
    target.write_text(json.dumps(made(), indent=2) + "\n", encoding="utf-8")
