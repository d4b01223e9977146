"""A port on this machine that leads to one target through a carrier: a bridge, reached through a neighbour's uplink.

Every transport can then go through a hop without knowing of it: it dials the port in the place of the bridge. What
passes is the bridge's own ciphertext, and other programs of this machine reach nothing there but the bridge.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from outlast.address import Target
from outlast.rooms.reach.io.carrier import Carrier, Refusal
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.listener import Listener


class Forward:
    """One port; ``at`` is where."""

    def __init__(self, loop: asyncio.AbstractEventLoop, carrier: Carrier, target: Target) -> None:
        """Listen on loopback; the carrier stays the caller's."""
        sock = listen(Target("127.0.0.1", 0))
        self.at = Target("127.0.0.1", int(sock.getsockname()[1]))
        self._listener = Listener(loop, sock, lambda one, _: carrier.carry(_Stream(one, target)))

    def close(self) -> None:
        """Take no more; what runs ends with the carrier."""
        self._listener.close()


class _Stream:
    """A connection to the port, as a client of the carrier."""

    isolation = b""

    def __init__(self, one: socket.socket, target: Target) -> None:
        self.target = target
        self._one = one

    @property
    def gone(self) -> bool:
        return self._one.fileno() < 0

    def take(self) -> tuple[socket.socket, bytes]:
        return self._one, b""

    def refuse(self, refusal: Refusal) -> None:
        # A refusal is a reset: a bridge that cannot be reached says nothing else.
        with suppress(OSError):
            self._one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._one.close()
