"""Overlap: one piece of work goes on while the next one is prepared, so that disk, threads and loop work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class Overlap:
    """Work that is done in order, one piece at a time; at the end of the ``async with`` all of it is done.

    An error of a piece comes at the next ``begin`` or at the end, unless the body has failed itself.
    """

    def __init__(self) -> None:
        """Nothing goes on yet."""
        self._task: asyncio.Task[None] | None = None

    async def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin this piece as soon as the one before is done, and return then."""
        if self._task is not None:
            await self._task
        self._task = asyncio.create_task(work())

    async def __aenter__(self) -> Self:
        """This."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last piece, also when the body has failed: what it uses may be let go of now."""
        if self._task is None:
            return
        if error is None:
            await self._task
        else:
            await asyncio.gather(self._task, return_exceptions=True)
