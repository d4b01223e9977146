"""One piece of work goes on while the next one is prepared."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from outlast.kernel.overlap import Overlap


def test_a_piece_goes_on_while_the_next_is_prepared_and_waits_for_the_one_before() -> None:
    async def act() -> list[str]:
        said: list[str] = []
        gates = [asyncio.Event() for _ in range(3)]

        async def work(number: int) -> None:
            said.append(f"begin {number}")
            await gates[number].wait()
            said.append(f"end {number}")

        async with Overlap() as overlap:
            await overlap.begin(partial(work, 0))
            asyncio.get_running_loop().call_soon(gates[0].set)
            await overlap.begin(partial(work, 1))
            assert said == ["begin 0", "end 0"]
            gates[1].set()
            await overlap.begin(partial(work, 2))
            gates[2].set()
        return said

    assert asyncio.run(act()) == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]


def test_an_error_of_the_last_piece_comes_at_the_end() -> None:
    async def fail() -> None:
        raise OSError("the disk")

    async def act() -> None:
        async with Overlap() as overlap:
            await overlap.begin(fail)

    with pytest.raises(OSError, match="the disk"):
        asyncio.run(act())


def test_when_the_preparation_fails_what_goes_on_is_waited_for_and_its_error_hides_nothing() -> None:
    finished: list[bool] = []

    async def finish() -> None:
        await asyncio.sleep(0)
        finished.append(True)
        raise OSError("the disk")

    async def act() -> None:
        async with Overlap() as overlap:
            await overlap.begin(finish)
            raise ValueError("the file")

    with pytest.raises(ValueError, match="the file"):
        asyncio.run(act())
    assert finished
