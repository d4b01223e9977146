"""How long a person waits for the command line to answer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def run() -> list[dict[str, Any]]:
    """Time `outlast --help` (seconds of wall clock, best of 5; the first reads the disk)."""
    command = [Path(sys.executable).with_name("outlast"), "--help"]
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    row: dict[str, Any] = {"work": "outlast --help", "unit": "s", "ours": round(min(seconds), 3)}
    row |= {"peer": None, "peer_name": None, "ratio": None, "bar": 0.3, "holds": min(seconds) < 0.3}
    return [row]
