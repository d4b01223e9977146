"""Where a process hands the program on: what is on its shelf, and how many take of it at this moment.

A node that hands nothing on, as most do, loads nothing of what making and reading a shelf takes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlast.edges.spread.shelf import Shelf


class Counter:
    """What a process hands on while it runs, and to how many at this moment."""

    def __init__(self, shelf: Shelf | None = None, *, always: bool = False) -> None:
        """Without a shelf this installation's own is opened when it is first asked for."""
        self._shelf = shelf
        self._opening = asyncio.Lock()
        self.always = always
        """Whether it is handed on whatever a node's setting says: ``outlast share`` has no node."""
        self.served = 0

    async def shelf(self) -> Shelf:
        """What is handed on; raises NotFoundError or StorageError when this copy has nothing to hand on."""
        async with self._opening:
            if self._shelf is None:
                self._shelf = await asyncio.to_thread(_open)
            return self._shelf


def _open() -> Shelf:
    from outlast.edges.spread.shelf import open_shelf

    return open_shelf()
