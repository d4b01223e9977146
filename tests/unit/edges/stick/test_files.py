"""Bundles are found among whatever else is on a stick, and erased however many there are."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from outlast.edges.stick import files, service
from outlast.edges.stick.media import Medium
from outlast.kernel import BUNDLE_MAGIC
from tests.unit.rooms.carry.houses import houses


def test_a_bundle_is_found_among_more_files_than_are_opened(tmp_path: Path) -> None:
    for number in range(5 * files.OPENED_MAX):
        (tmp_path / f"IMG_{number}.jpg").touch()
    ours = [f"{secrets.token_hex(4)}.{end}" for end in ("bin", "e1f", "0a3", "1a3", "2b7")]
    for name in ours:
        (tmp_path / name).write_bytes(BUNDLE_MAGIC)
    assert {one.path.name for one in files.find(tmp_path)} == set(ours)


def test_all_bundles_are_erased_however_many_there_are(tmp_path: Path) -> None:
    async def erase() -> int:
        async with houses(tmp_path / "homes", "ala") as [ala]:
            return await service.erase(ala.person, Medium(stick), lambda _done, _total: None)

    stick = tmp_path / "stick"
    stick.mkdir()
    for number in range(2 * files.FILES_MAX + 1):
        (stick / f"{number:08x}.bin").write_bytes(BUNDLE_MAGIC)
    (stick / "holiday.jpg").write_bytes(b"mine")
    assert asyncio.run(erase()) == 2 * files.FILES_MAX + 1
    assert [one.name for one in stick.iterdir()] == ["holiday.jpg"]
