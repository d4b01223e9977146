"""Overlap: one piece of work goes on while the next one is prepared, so that disk, threads and loop work at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class Overlap:
    """Work that is begun in order, so many pieces at a time; at the end of the ``async with`` all of it is done.

    An error of a piece comes at a later ``begin`` or at the end, unless the body has failed itself.
    """

    def __init__(self, pieces: int = 1) -> None:
        """Nothing goes on yet; with one piece at a time each begins when the one before is done."""
        self._pieces = pieces
        self._tasks: deque[asyncio.Task[None]] = deque()

    async def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin this piece as soon as there is room for it, and return then."""
        if len(self._tasks) == self._pieces:
            await self._tasks[0]
            self._tasks.popleft()
        self._tasks.append(asyncio.create_task(work()))

    async def __aenter__(self) -> Self:
        """This."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last pieces, also when something has failed: what they use may be let go of now."""
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for failure in ended:
            if error is None and isinstance(failure, BaseException):
                raise failure
