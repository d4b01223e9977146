"""A link within one process between two nodes, of pieces as small and a rate as low as a radio's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from outlast.kernel.links.link import Cost, Duplex, LinkError

T = TypeVar("T")

QUEUED_MAX = 16
"""Pieces that one end may have sent and the other not taken."""


class Pipe:
    """One end of a link, made with its other end by ``pipe``. Nothing on it waits for a clock."""

    kind = "pipe"
    address = "the other end"

    def __init__(self, mtu: int, bits_per_s: int, duplex: Duplex, cost: Cost) -> None:
        """Half a pipe; see ``pipe``."""
        self.mtu = mtu
        self.bits_per_s = bits_per_s
        self.duplex = duplex
        self.cost = cost
        self.other = self
        self.sent_bytes = 0
        """What went in here."""
        self.longest_bytes = 0
        """The largest piece that was sent here."""
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_MAX)
        self._closed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        """Put one piece in; waits while the other end takes none. Raises LinkError when the pipe is closed."""
        if not 1 <= len(data) <= self.mtu:
            raise ValueError(f"a piece has 1 to {self.mtu} B, not {len(data)}")
        if not await self._unless_closed(self._put(data)):
            raise LinkError("the pipe is closed")
        self.sent_bytes += len(data)
        self.longest_bytes = max(self.longest_bytes, len(data))

    async def drained(self) -> None:
        """A piece that was put in lies at the other end."""

    async def receive(self) -> bytes:
        """The next piece; none when the pipe is closed."""
        return await self._unless_closed(self._arrived.get()) or b""

    async def close(self) -> None:
        """Close both ends; what is on the way is lost."""
        self._closed.set()
        self.other._closed.set()

    async def _put(self, data: bytes) -> bool:
        await self.other._arrived.put(data)
        return True

    async def _unless_closed(self, act: Coroutine[Any, Any, T]) -> T | None:
        """What this returns, or None when the pipe is closed before."""
        doing, closing = asyncio.ensure_future(act), asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((doing, closing), return_when=asyncio.FIRST_COMPLETED)
            return None if closing.done() else doing.result()
        finally:
            doing.cancel()
            closing.cancel()


def pipe(
    *, mtu: int = 230, bits_per_s: int = 2400, duplex: Duplex = Duplex.HALF, cost: Cost = Cost.FREE
) -> tuple[Pipe, Pipe]:
    """Both ends of an open link."""
    one, other = (Pipe(mtu, bits_per_s, duplex, cost) for _ in range(2))
    one.other, other.other = other, one
    return one, other
