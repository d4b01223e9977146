"""A disk that others have filled to the last byte: the node opens by what it held in reserve, and lets people read."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.kernel import Home
from outlast.kernel import home as home_module
from tests.crash.toy import house, make


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 12 MiB, where 6 free ones are plenty."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("this user may mount no disk")
    monkeypatch.setattr(home_module, "PLENTY_BYTES", 6 << 20)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    left = os.statvfs(disk)
    with open(disk / "others", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize)
    assert os.statvfs(disk).f_bavail == 0


async def write(home: Home) -> bytes:
    """A channel with a post in it."""
    async with house(home) as own:
        space = await own.node.new_space(own.person, "news")
        await own.say(space, "before")
        await own.node._tidy()
        return space


async def read(home: Home) -> list[str]:
    async with house(home) as own:
        return own.posts()


def test_a_node_opens_and_shows_what_it_has_on_a_disk_without_a_free_byte(disk: Path) -> None:
    home = asyncio.run(make(disk / "home"))
    space = asyncio.run(write(home))
    fill(disk)
    assert asyncio.run(read(home)) == ["before"]

    async def leave() -> int:
        """And there is room for what makes room."""
        async with house(home) as own:
            await own.node.unfollow(space)
            return len(own.posts())

    assert asyncio.run(leave()) == 0
    (disk / "others").unlink()
    asyncio.run(write(home))
    fill(disk)
    assert asyncio.run(read(home)) == ["before"], "what was given back is held again when there is room"


def test_a_reserve_is_given_back_when_the_disk_is_full_and_not_before(disk: Path) -> None:
    home = asyncio.run(make(disk / "home"))
    assert not home.release_reserve()
    home.keep_reserve()
    assert not home.release_reserve(), "there is room"
    fill(disk)
    assert home.release_reserve()
    assert not home.release_reserve(), "it was given back"


def test_a_small_disk_is_not_filled_by_a_reserve(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = asyncio.run(make(disk / "home"))
    monkeypatch.setattr(home_module, "PLENTY_BYTES", 24 << 20)
    home.keep_reserve()
    fill(disk)
    assert not home.release_reserve()
    with pytest.raises(StorageError, match="make room"):
        asyncio.run(read(home))
