"""Whole nodes with relaying processes of their own: one serves a bridge, the other comes in by it, and they sync."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from outlast.rooms.carry import ROOM as CARRY
from outlast.rooms.carry import service as carry
from outlast.rooms.reach import ROOM, service
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.serving import Served
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.reach.towns import houses

ROOMS = (ROOM, CARRY)


def now_ms() -> int:
    """The real time: TLS and paths of a day go by it."""
    return int(time.time() * 1000)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def site(folder: Path) -> str:
    """A website."""
    folder.mkdir()
    (folder / "index.html").write_text("<h1>News of the village</h1>")
    return str(folder)


def web(folder: Path) -> Served:
    """A bridge on this machine."""
    port = free_port()
    return Served("web", f"127.0.0.1:{port}", Target("127.0.0.1", port), "news.example", site(folder))


async def switched_on(house: House) -> service.State:
    """It has a way out."""
    await service.set_gate(house.node, house.person, ["127.0.0.1:0"], "", "", [])
    await service.switch(house.node, house.person, on=True)
    async with asyncio.timeout(30):
        await house.until(lambda: service.state(house.node, house.person).code == "working")
    return service.state(house.node, house.person)


def test_two_nodes_sync_through_a_bridge_that_one_of_them_serves(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Ann", "Bob", rooms=ROOMS, relay=True) as (ann, bob):
            await service.serve(ann.node, ann.person, web(tmp_path / "site"))
            await service.invite(ann.node, ann.person, bob.person.identity)
            await ann.carry_to(bob)
            await bob.until(lambda: service.bridges(bob.person))
            now = await switched_on(bob)
            assert now.using == service.bridges(bob.person)[0].id
            await carry.send(ann.node, ann.person, bob.person.identity, "it works")
            async with asyncio.timeout(30):
                await bob.until(lambda: [one.text for one in carry.inbox(bob.person)] == ["it works"])
            await carry.send(bob.node, bob.person, ann.person.identity, "and back")
            async with asyncio.timeout(30):
                await ann.until(lambda: [one.text for one in carry.inbox(ann.person)] == ["and back"])
            assert bob.node.metrics.link_bytes_in["reach"] > 0
            await service.switch(bob.node, bob.person, on=False)
            async with asyncio.timeout(30):
                await bob.until(lambda: service.relaying(bob.node, bob.person).since_ms is None)
                await bob.until(lambda: not any(peer.connected for peer in bob.node.peers()))
            host, _, port = now.listens[0].rpartition(":")
            with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), 5):
                pass

    asyncio.run(story())
