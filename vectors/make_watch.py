"""Makes ``watch.json``: an entry of each kind of the room watch, and a body of a letter. Run it as a script."""

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
from outlast.rooms.watch.entries import (
    HEARTBEAT,
    KEY,
    OBSERVATION,
    WITNESS,
    Heartbeat,
    Observation,
    WatchKey,
    Witness,
)
from outlast.terms import OUTAGE, Fact, Outage

HOUR_MS = 1_795_305_600_000
SEED = sha256(b"a key of one week").digest()
SPACE = sha256(b"a channel").digest()
START_S = HOUR_MS // 1000 - 7200


def made() -> dict[str, Any]:
    """The vectors."""
    key = SigningKey.from_seed(SEED)
    layers = ("blocked", "ok", "unknown", "down", "unknown")
    observed = Observation(
        "web_connectivity",
        "https://example.org/",
        HOUR_MS // 1000,
        "BY",
        6697,
        "dns",
        False,
        layers,
        "page-7",
        "outlast",
    )
    evidence = (
        Fact("changed", ("ping-slash24", -0.97, START_S, -0.98)),
        Fact("own-line", (True, False, None)),
        "somebody's own words",
    )
    cut = Outage("BY", "routes-up-traffic-down", START_S, None, evidence, (sha256(b"a witness").digest(),))
    bodies: list[tuple[Kind, msgspec.Struct]] = [
        (OBSERVATION, observed),
        (HEARTBEAT, Heartbeat("BY", 6697)),
        (WITNESS, Witness("BY", "blackout", START_S, "BY", 6697)),
        (OUTAGE, cut),
    ]
    entries = [
        {
            "kind": kind.name,
            "body": kind.encode(body).hex(),
            "life_days": kind.max_life_days,
            "packed": pack(
                loose_entry(
                    key,
                    space=SPACE,
                    kind=kind.name,
                    payload=kind.encode(body),
                    ts_ms=HOUR_MS,
                    life_ms=kind.max_life_days * DAY_MS,
                    priority=kind.priority,
                )
            ).hex(),
        }
        for kind, body in bodies
    ]
    return {
        "seed": SEED.hex(),
        "space": SPACE.hex(),
        "ts_ms": HOUR_MS,
        "entries": entries,
        "letter": {"kind": KEY.name, "body": KEY.encode(WatchKey(key.public, HOUR_MS // DAY_MS)).hex()},
    }


if __name__ == "__main__":
    target = Path(__file__).with_name("watch.json")
    target.write_text(json.dumps(made(), indent=2) + "\n", encoding="utf-8")
