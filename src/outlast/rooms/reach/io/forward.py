"""A port on this machine that leads to one target through a carrier: a bridge, reached through a neighbour's uplink.

Every transport can then go through a hop without knowing of it: it dials the port in the place of the bridge. What
passes is the bridge's own ciphertext, and other programs of this machine reach nothing there but the bridge.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

from outlast.address import Target
from outlast.rooms.reach.io.carrier import Carrier, Refusal
from outlast.rooms.reach.io.gate import listen

ACCEPTED_AT_ONCE: Final = 16
PAUSE_S: Final = 0.5


class Forward:
    """One port; ``at`` is where."""

    def __init__(self, loop: asyncio.AbstractEventLoop, carrier: Carrier, target: Target) -> None:
        """Listen on loopback; the carrier stays the caller's."""
        self._loop = loop
        self._carrier = carrier
        self._target = target
        self._listener = listen(Target("127.0.0.1", 0))
        self.at = Target("127.0.0.1", int(self._listener.getsockname()[1]))
        self._listen()

    def close(self) -> None:
        """Take no more; what runs ends with the carrier."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                one, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no more files: the listener stays readable, and without a pause all else would wait
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(PAUSE_S, self._listen)
                return
            one.setblocking(False)
            with suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._carrier.carry(_Stream(one, self._target))


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
