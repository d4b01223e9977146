"""A hundred towns: losses, restarts, forks, clock errors, partitions; on real stores with a view folded live."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.town.telling import check_story


def test_a_hundred_towns_come_to_hold_what_they_must(soaking: bool) -> None:
    seeds = range(100) if soaking else range(100, 102)
    for seed in seeds:
        with TemporaryDirectory() as folder:
            check_story(seed, Path(folder))
        print(f"town {seed}: all that can meet hold what they must, and views are those folded anew", flush=True)
