"""Where real data that nobody here wrote lies: OUTLAST_DATA, or ../shared/data beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("OUTLAST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def real(name: str) -> Path:
    """A file or folder of the data set, as ``watch/bgp``; without it the test is skipped, with CI=true it fails."""
    path = DATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is not here: with CI=true nothing is skipped")
        pytest.skip(f"the data set is not here: {path}")
    return path
