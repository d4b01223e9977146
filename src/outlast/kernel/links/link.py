"""Link: what carries bytes to one other node; TCP is one, and a room can bring others (``Room.links``).

A link is trusted with nothing. Everything on it is sealed by Noise (``channel.py``), so it has only to keep the
order and to lose nothing without saying so: what does lose packets, as radios do, repeats them by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from outlast.errors import OutlastError


class LinkError(OutlastError):
    """No link to another node could be opened, or it broke; try again later."""

    status = 502


class Duplex(Enum):
    """Whether both ends can send at a time."""

    FULL = "full"
    HALF = "half"
    """One end sends at a time, and who waits for an answer waits for both ways."""


class Cost(Enum):
    """What the bytes of a link cost somebody."""

    FREE = "free"
    METERED = "metered"
    """Somebody pays by the byte, or has few of them."""


class Link(Protocol):
    """An open way to one other node: bytes go in at one end and come out at the other in order.

    How they are cut means nothing: what was sent in two pieces may arrive in one. One task sends and one receives at a
    time.
    """

    @property
    def kind(self) -> str:
        """What is counted together, such as ``tcp``; the same for all links of a kind."""
        ...

    @property
    def mtu(self) -> int:
        """The most bytes that ``send`` takes at once, from 1 on."""
        ...

    @property
    def bits_per_s(self) -> int:
        """About what the link carries one way, from 1 on; a guess decides what is offered, not what arrives."""
        ...

    @property
    def duplex(self) -> Duplex:
        """Whether both ends can send at a time."""
        ...

    @property
    def cost(self) -> Cost:
        """What its bytes cost."""
        ...

    @property
    def address(self) -> str:
        """Where the other end is, for people."""
        ...

    async def send(self, data: bytes) -> None:
        """Take 1 to ``mtu`` bytes; returns when the link can take more. Raises LinkError when it is closed or broke."""
        ...

    async def drained(self) -> None:
        """Wait until what was sent has left this end as far as can be told, so that little goes before what comes next.

        Raises LinkError when the link is closed or broke.
        """
        ...

    async def receive(self) -> bytes:
        """The next bytes, however many; none when the other end has closed the link or it broke."""
        ...

    async def close(self) -> None:
        """Close it; ``receive`` and ``send`` of either end, also such as wait, come to their end. Never fails."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """How a room brings links: a way that the node opens, and opens again when the link has ended.

    With ``remote``, the transport key (32 B) of the node at the other end, this end calls: ``opens`` opens a link to
    it, or raises LinkError. Without, this end answers: ``opens`` waits for the next link that somebody else has
    opened, and is asked for another while that one lives. One of the two ends calls and the other one answers.

    A room that has its ways asked for again (``Node.ways_changed``) gives those that are to go on under the same name
    and ``remote``.
    """

    name: str
    opens: Callable[[], Awaitable[Link]]
    remote: bytes | None = None
