"""Towns in the soak: a hundred of places on real stores with a view folded live, and some of whole nodes over TCP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.town.nodes import live_through
from tests.town.telling import check_story

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""What is durable here need not outlive the machine: a disk's pace would be all that is measured."""


def test_a_hundred_towns_come_to_hold_what_they_must(soaking: bool) -> None:
    seeds = range(100) if soaking else range(100, 102)
    for seed in seeds:
        with TemporaryDirectory(dir=MEMORY) as folder:
            check_story(seed, Path(folder))
        print(f"town {seed}: all that can meet hold what they must, and views are those folded anew", flush=True)


def test_letters_and_posts_arrive_in_towns_of_whole_nodes(soaking: bool) -> None:
    seeds = range(50) if soaking else range(100, 102)
    for seed in seeds:
        with TemporaryDirectory(dir=MEMORY) as folder:
            asyncio.run(live_through(Path(folder), seed))
        print(f"nodes {seed}: all that was written has arrived, and its writers know", flush=True)
