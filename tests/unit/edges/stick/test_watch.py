"""A stick that comes is noticed without asking again and again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outlast.edges.stick.watch import mount_changes
from tests.e2e.disks import stick

pytestmark = pytest.mark.serial


def test_mounting_and_unmounting_are_told_and_nothing_else_is(tmp_path: Path) -> None:
    async def watch() -> None:
        with mount_changes() as changed:
            assert changed is not None
            for _ in range(5):
                await asyncio.sleep(0)
            assert not changed.is_set()
            with stick(tmp_path, "ext4", 16):
                await asyncio.wait_for(changed.wait(), 20)
                changed.clear()
            await asyncio.wait_for(changed.wait(), 20)

    asyncio.run(watch())
