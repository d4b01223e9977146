"""Discovery: nodes that find each other in a local network, when their people have said so.

Neighbours that were added are recognised by beacons (``links/beacon.py``) and called where they are now. Strangers are
called only where both sides allow it, under throwaway keys, and share the strangers' budget.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Final

from outlast.kernel.links import beacon, lan
from outlast.kernel.links.link import LinkError

if TYPE_CHECKING:
    from outlast.kernel.node import Node

log = logging.getLogger("outlast")

LOOK_S: Final = 30.0
"""How often it is seen whether this machine is in other networks by now."""
HEARD_MAX: Final = 1000
"""Announcements that are looked at between two looks; a flood of more costs nothing and hides what comes in it."""
CALLS_MAX: Final = 16
"""Strangers that are called between two looks: nobody can make this node knock at every door of a network."""


class Discovery(StrEnum):
    """Whom a node looks for in the local network."""

    OFF = "off"
    NEIGHBOURS = "neighbours"
    STRANGERS = "strangers"
    """Neighbours, and every other node that looks for strangers."""


class Lookout:
    """Looks around in the networks of this machine."""

    def __init__(self, node: Node, networks: Callable[[], list[IPv4Interface]] = lan.networks) -> None:
        """Nothing is announced and nobody heard before ``look``."""
        self.mode = Discovery.OFF
        self._node = node
        self._networks = networks
        self._port = 0
        self._task: asyncio.Task[None] | None = None
        self._segments: dict[IPv4Interface, lan.Segment] = {}
        self._keys: dict[bytes, bytes] = {}
        self._neighbours: set[bytes] = set()
        """Whom ``_keys`` are for, and those that can share none."""
        self._own: set[str] = set()
        """All names that this node had since it looks."""
        self._heard_left = HEARD_MAX
        self._calls_left = CALLS_MAX
        self._news = asyncio.Event()

    async def look(self, mode: Discovery, port: int) -> None:
        """Look around from now on. ``port`` is where this node listens; without one (0) it hears and says nothing."""
        if (mode, port) == (self.mode, self._port):
            return
        await self.stop()
        self.mode, self._port = mode, port
        if mode is Discovery.STRANGERS:
            self._node.neighbours.strangers = True
        if mode is not Discovery.OFF:
            self._task = self._node.loop.create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._node.neighbours.leave_strangers()
        self.mode, self._task = Discovery.OFF, None

    def refresh(self) -> None:
        """There are other neighbours than before: announce this node anew, to them."""
        self._news.set()

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._match()
                except Exception:
                    log.exception("looking around in the local network failed")  # and is tried again
                self._heard_left, self._calls_left = HEARD_MAX, CALLS_MAX
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
        finally:
            await self._close()

    async def _match(self) -> None:
        """Be announced, by this node's present neighbours, in the networks that there are now."""
        neighbours = {peer.node for peer in self._node.open_store.peers()}
        networks = set(self._networks())
        if neighbours != self._neighbours:
            await self._close()
            self._neighbours = neighbours
            self._keys = beacon.pair_keys(self._node.transport, sorted(neighbours, key=lambda _: os.urandom(8)))
        for network in self._segments.keys() - networks:
            await self._segments.pop(network).close()
        for network in networks - self._segments.keys():
            with contextlib.suppress(LinkError):  # it is tried again with the next look
                segment = self._segments[network] = await lan.Segment.open(network, self._heard)
                try:
                    await self._announce(segment)
                except LinkError:
                    await self._segments.pop(network).close()
                    raise

    async def _announce(self, segment: lan.Segment) -> None:
        if not self._port:
            return
        said = beacon.announce(
            self._node.transport_id,
            self._keys.values(),
            (segment.network.ip, self._port),
            os.urandom,
            strangers=self.mode is Discovery.STRANGERS,
        )
        await segment.announce(self._port, beacon.to_fields(said))
        self._own.add(segment.name)

    async def _close(self) -> None:
        for network in list(self._segments):
            await self._segments.pop(network).close()

    def _heard(self, heard: lan.Heard) -> None:
        if self._heard_left <= 0 or heard.name in self._own:
            return
        self._heard_left -= 1
        said = beacon.read_fields(heard.fields)
        if said is None:
            return
        neighbour = beacon.recognise(said, self._keys, (heard.address, heard.port))
        if neighbour is not None:
            self._node.neighbours.found(neighbour, str(heard.address), heard.port)
        elif said.strangers and self._calls_left and self.mode is Discovery.STRANGERS and self._calls(heard):
            self._calls_left -= 1
            self._node.neighbours.visit(str(heard.address), heard.port)

    def _calls(self, heard: lan.Heard) -> bool:
        """Of two strangers the one with the lower name calls; one that is not announced calls always."""
        own = [s.name for network, s in self._segments.items() if heard.address in network.network and s.name]
        return all(name < heard.name for name in own)
