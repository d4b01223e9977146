"""Nothing that was acknowledged is lost: nodes killed, disks full, files torn, links cut. Each test prints its counts.

In the suite each is done often enough to bite, in `dev.py soak crash` at every place there is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from outlast.kernel import neighbours
from tests.crash import cutting, fullness, kills, tearing

SEED = 20261121


def some(places: range, count: int) -> Iterable[int]:
    """So many of these places, or all if there are fewer; the same ones in every run."""
    return sorted(random.Random(SEED).sample(places, min(count, len(places))))


@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, soaking: bool) -> None:
    rounds = 200 if soaking else 25
    count = asyncio.run(kills.kill_and_look(tmp_path, rounds, SEED))
    print(f"\ncrash: {count}")
    assert count.broken == []
    assert count.kills == rounds
    assert count.in_either * 2 >= count.kills, "at least half die in a transaction or an import"
    assert count.in_transaction > rounds // 4
    assert count.in_import > rounds // 4
    assert count.acknowledged > rounds * 10


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "passing"])
def test_a_disk_full_at_any_write_breaks_no_promise(tmp_path: Path, soaking: bool, lasting: bool) -> None:
    def choose(writes: int) -> Iterable[int]:
        return range(1, writes + 1) if soaking else some(range(1, writes + 1), 30)

    count = asyncio.run(fullness.fill_and_look(tmp_path, choose, lasting=lasting))
    print(f"\ncrash: {count}")
    assert count.broken == []
    assert count.runs > 30
    assert count.acknowledged > count.runs
    assert count.refused > (count.runs if lasting else count.runs // 10)


@pytest.mark.timeout(3600)
def test_a_node_opens_from_files_torn_at_any_sector(tmp_path: Path, soaking: bool) -> None:
    def choose(_name: str, places: range) -> Iterable[int]:
        return places if soaking else some(places, 60)

    count = asyncio.run(tearing.tear_and_look(tmp_path, choose))
    print(f"\ncrash: {count}")
    assert count.broken == []
    assert count.torn >= 6 * 60
    assert count.acknowledged > count.torn


@pytest.mark.timeout(7200)
def test_a_link_cut_at_any_byte_loses_nothing_and_brings_nothing_twice(
    tmp_path: Path, soaking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "RETRY_MIN_S", 0.01)

    def choose(size: int) -> Iterable[int]:
        return range(1, size) if soaking else some(range(1, size), 170)

    count = asyncio.run(cutting.cut_and_look(tmp_path, choose))
    print(f"\ncrash: {count}")
    assert count.broken == []
    assert count.cuts >= 150
    assert count.whole * 10 <= count.cuts
    assert count.acknowledged > count.cuts * 4
