"""A tunnel in hard weather for long: connects, hang-ups, freezes and cuts leave no socket and no memory behind."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import tracemalloc
from contextlib import suppress
from random import Random

import pytest

from tests.rooms.reach.tunnels import Border, Bridge

pytestmark = pytest.mark.serial


async def weather(bridge: Bridge, random: Random, rounds: int) -> int:
    """Streams of all sizes come and go while outers freeze and are cut; how many were right to the last byte."""
    right = 0

    async def one() -> None:
        nonlocal right
        if random.random() < 0.2:
            await bridge.hang_up()
            return
        await bridge.send_and_compare(random.randbytes(random.choice([0, 10, 3000, 200_000])))
        right += 1

    for _ in range(rounds):
        assert bridge.border is not None
        bridge.border.change(
            freeze_bytes=random.choice([None, None, 16_384, 900_000]), cut_s=random.choice([None, 0.05, 0.5])
        )
        await asyncio.gather(*(one() for _ in range(20)))
    bridge.border.change(freeze_bytes=None, cut_s=None)
    bridge.border.shut()
    await bridge.send_and_compare(random.randbytes(100_000))
    return right


def files() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.timeout(3600)
def test_nothing_is_left_after_long_hard_weather(soaking: bool) -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at)
            random = Random(7)
            await weather(bridge, random, 3)
            gc.collect()
            tracemalloc.start()
            opened, (used, _) = files(), tracemalloc.get_traced_memory()
            right = await weather(bridge, random, 300 if soaking else 6)
            assert right > (3000 if soaking else 60)
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    while files() > opened + 6 or bridge.hub.streams:
                        await asyncio.sleep(0.05)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - used
            tracemalloc.stop()
            assert not bridge.hub.streams
            assert files() <= opened + 6
            assert grown < 24 * 1024 * 1024, resource.getrusage(resource.RUSAGE_SELF)

    asyncio.run(story())
