"""Carriers that have one connection for each stream: the network itself, and what other ones dial."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from outlast.address import Target
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.pump import Plain, Pump

PLAIN = Plain()


class Dial(Protocol):
    """How a stream is opened; the contract is ``Exit.open``'s."""

    def __call__(
        self, target: Target, opened: Callable[[socket.socket], None], failed: Callable[[Refusal], None], /
    ) -> Callable[[], None]:
        """Connect; returns what calls it off."""
        ...


class Dialled:
    """Takes each client to its target by a connection of its own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dial: Dial,
        datagrams: Callable[[Callable[[Target, bytes], None]], Association | None] | None = None,
    ) -> None:
        self._loop = loop
        self._dial = dial
        self._datagrams = datagrams
        self._waiting: dict[Client, Callable[[], None]] = {}
        self._pumps: set[Pump] = set()

    def carry(self, client: Client) -> None:
        """Connect, and join the two."""
        self.take(client, self._dial)

    def take(self, client: Client, dial: Dial) -> None:
        """Connect this client in a way of its own, and join the two."""

        def opened(far: socket.socket) -> None:
            del self._waiting[client]
            near, early = client.take()
            pump = Pump(self._loop, near, far, PLAIN, PLAIN, early, lambda _: self._pumps.discard(pump))
            self._pumps.add(pump)

        def failed(why: Refusal) -> None:
            del self._waiting[client]
            client.refuse(why)

        self._waiting[client] = dial(client.target, opened, failed)

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Datagrams, where there is a way for them."""
        return None if self._datagrams is None else self._datagrams(deliver)

    def close(self) -> None:
        """End all."""
        for client, cancel in self._waiting.items():
            cancel()
            client.refuse(Refusal.LOST)
        self._waiting.clear()
        for pump in tuple(self._pumps):
            pump.close()


def direct(exit_: Exit) -> Dialled:
    """The network itself as a carrier."""
    return Dialled(exit_.loop, exit_.open, exit_.datagrams)
