"""Bundles are found among whatever else is on a stick, and erased however many there are."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.stick import files, pages, service
from outlast.edges.stick.media import Medium
from outlast.edges.stick.memory import Targets
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


def test_of_a_file_with_holes_what_has_a_place_on_the_disk_is_overwritten(tmp_path: Path) -> None:
    async def erase() -> int:
        async with houses(tmp_path / "homes", "ala") as [ala]:
            return await service.erase(ala.person, Medium(stick), lambda done, _total: told.append(done))

    stick, size, told = tmp_path / "stick", 1 << 34, list[int]()
    stick.mkdir()
    with (stick / "0123abcd.bin").open("wb") as file:
        file.write(BUNDLE_MAGIC)
        file.seek(size - 1)
        file.write(b"!")
    assert asyncio.run(erase()) == 1
    assert list(stick.iterdir()) == []
    assert told[-1] == size, "its last byte, too"
    assert len(told) < 5, "and not what lies between"


def test_a_known_stick_waits_until_another_one_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path / "homes", "ala", "boris") as [ala, boris]:
            contact = await ala.person.add_contact(await boris.person.link())
            first, second = Medium(tmp_path / "first"), Medium(tmp_path / "second")
            for medium in (first, second):
                medium.folder.mkdir()
                await service.set_auto(ala.person, medium, Targets([contact.identity], []))
            begun, may_end, write = asyncio.Event(), asyncio.Event(), service.write

            async def slow(*args: Any) -> service.Given:
                begun.set()
                await may_end.wait()
                return await write(*args)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(service, "write", slow)
                async with asyncio.TaskGroup() as both:
                    both.create_task(pages.come(ala.person, first))
                    await begun.wait()
                    other = both.create_task(pages.come(ala.person, second))
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert not other.done()
                    may_end.set()
            done = pages.work_of(ala.person)
            assert done is not None
            await done.ended.wait()
            assert (done.stick, done.error) == ("second", None)
            assert done.given is not None

    asyncio.run(story())
