"""What gate, carriers and exit say to each other: a client has a target, and a carrier takes it there.

All of it runs on one event loop, by callbacks, without a task for each stream: a stream costs what its bytes cost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from outlast.address import Target


class Refusal(Enum):
    """Why a stream is not opened; those that are about the target have their numbers in SOCKS 5 (RFC 1928 §6)."""

    LOST = -1
    """The way itself is broken, or silent: nothing is known of the target. It never comes from the far end."""
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TIMED_OUT = 6

    @property
    def code(self) -> int:
        """What a program is told, as a number of SOCKS 5."""
        return max(1, self.value)


class Client(Protocol):
    """A connection whose request was read, until somebody takes it."""

    @property
    def target(self) -> Target:
        """Where it is to go."""
        ...

    @property
    def isolation(self) -> bytes:
        """Streams of different isolation share no outer connection; what SOCKS 5 gave as credentials."""
        ...

    def take(self) -> tuple[socket.socket, bytes]:
        """Say that the way is open; the socket (non-blocking, unwatched) is now the caller's, with what came."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Say that there is no way, and close."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the client has hung up while it waited."""
        ...


class Association(Protocol):
    """Datagrams of one client."""

    def send(self, target: Target, data: bytes) -> None:
        """Pass one on, or drop it."""
        ...

    def close(self) -> None:
        """End it; nothing is delivered any more."""
        ...


class Carrier(Protocol):
    """A way out that works now: one bridge, an upstream proxy, or the network itself."""

    def carry(self, client: Client) -> None:
        """Take the client to its target, or refuse it; returns at once."""
        ...

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Open a way for datagrams; what comes back is delivered with where it came from. None: this way takes none."""
        ...

    def close(self) -> None:
        """End it with all its streams; at once."""
        ...
