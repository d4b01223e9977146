"""A first run that ends anywhere leaves a node that opens, or a place in which the next one is made."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.kernel import Home
from tests.architecture.tree import ROOT
from tests.crash.disk import Disk
from tests.crash.toy import house, make

MAKER = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.crash.disk import Disk
from tests.crash.toy import make

def die(write):
    if write.number == int(sys.argv[2]):
        write.put(write.size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return False

with Disk(die):
    asyncio.run(make(Path(sys.argv[1])))
"""


async def goes_on(path: Path) -> None:
    """Make the node if there is none, open it, and write."""
    home = Home(path)
    if not home.exists():
        await make(path)
    async with house(home) as own:
        await own.say(await own.node.new_space(own.person, "news"), "here")
    async with house(home) as own:
        assert own.posts() == ["here"]


@pytest.mark.parametrize("write", [1, 20, 60, 75, 90, 130])
def test_a_first_run_killed_in_a_write_is_run_again(tmp_path: Path, write: int) -> None:
    command = [sys.executable, "-c", MAKER, str(tmp_path / "home"), str(write)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    asyncio.run(goes_on(tmp_path / "home"))


@pytest.mark.parametrize("write", [1, 20, 60, 75, 90, 130])
def test_a_first_run_without_room_says_so_and_is_run_again(tmp_path: Path, write: int) -> None:
    with Disk() as disk:
        disk.fill(write)
        with pytest.raises(StorageError, match="make room") as error:
            asyncio.run(make(tmp_path / "home"))
    assert "\n" not in str(error.value)
    asyncio.run(goes_on(tmp_path / "home"))
