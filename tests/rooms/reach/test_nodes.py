"""Whole nodes with relaying processes of their own: one serves a bridge, the other comes in by it, and they sync."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from outlast.address import Target
from outlast.rooms.carry import ROOM as CARRY
from outlast.rooms.carry import service as carry
from outlast.rooms.reach import ROOM, service
from outlast.rooms.reach.serving import Served
from outlast.rooms.watch import ROOM as WATCH
from outlast.rooms.watch import service as watch
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.reach.towns import houses

DEAD = "socks5://127.0.0.1:1"

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


def processes(house: House) -> list[int]:
    """The relaying processes that the node has started."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    ours = [int(one) for one in children]
    return [one for one in ours if b"rooms.reach.io.child" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_a_relaying_process_that_is_killed_is_started_again_and_ends_with_the_node(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Bob", relay=True) as (bob,):
            await service.set_gate(bob.node, bob.person, ["127.0.0.1:0"], "", "", [])
            await service.switch(bob.node, bob.person, on=True)
            async with asyncio.timeout(30):
                await bob.until(lambda: len(service.relaying(bob.node, bob.person).listens) == 2)
            (first,) = processes(bob)
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(30):
                await bob.until(lambda: service.state(bob.node, bob.person).code == "failed")
                assert "ended" in str(service.state(bob.node, bob.person).problem)
                await bob.until(lambda: len(service.relaying(bob.node, bob.person).listens) == 2)
            (second,) = processes(bob)
            assert second != first
            assert service.state(bob.node, bob.person).code == "no-bridge"
        assert processes(bob) == []

    asyncio.run(story())


def test_a_gate_whose_port_is_taken_says_so_and_opens_elsewhere_without_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Bob", relay=True) as (bob,):
            with socket.create_server(("127.0.0.1", 0)) as taken:
                at = f"127.0.0.1:{taken.getsockname()[1]}"
                await service.set_gate(bob.node, bob.person, [at], "", "", [])
                await service.switch(bob.node, bob.person, on=True)
                async with asyncio.timeout(30):
                    await bob.until(
                        lambda: "in use by another program" in str(service.state(bob.node, bob.person).problem)
                    )
                assert service.state(bob.node, bob.person).code == "gate-closed"
                assert service.state(bob.node, bob.person).closed == (at,)
                before = processes(bob)
                await service.set_gate(bob.node, bob.person, ["127.0.0.1:0"], "", "", [])
                async with asyncio.timeout(30):
                    await bob.until(lambda: service.state(bob.node, bob.person).listens)
                assert service.state(bob.node, bob.person).problem is None
                assert processes(bob) == before

    asyncio.run(story())


def test_another_member_ends_no_stream_of_the_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Ann", "Bob", "Cat", rooms=ROOMS, relay=True) as (ann, bob, cat):
            await service.serve(ann.node, ann.person, web(tmp_path / "site"))
            await service.invite(ann.node, ann.person, bob.person.identity)
            await ann.carry_to(bob)
            await bob.until(lambda: service.bridges(bob.person))
            await switched_on(bob)
            async with asyncio.timeout(30):
                await bob.until(lambda: any(peer.connected for peer in bob.node.peers()))
            sessions = bob.node.metrics.sessions
            await service.invite(ann.node, ann.person, cat.person.identity)
            await ann.carry_to(cat)
            await cat.until(lambda: service.bridges(cat.person))
            await switched_on(cat)
            await carry.send(ann.node, ann.person, bob.person.identity, "still there")
            async with asyncio.timeout(30):
                await bob.until(lambda: [one.text for one in carry.inbox(bob.person)] == ["still there"])
            assert bob.node.metrics.sessions == sessions
            # Who is revoked is out at once, although nobody told their node yet, and Bob stays.
            await service.revoke(ann.node, ann.person, cat.person.identity)
            async with asyncio.timeout(60):
                await cat.until(lambda: service.state(cat.node, cat.person).code != "working")
            assert bob.node.metrics.sessions == sessions

    asyncio.run(story())


def test_what_fails_is_published_by_its_class_alone_and_remembered_for_who_gave_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Bob", rooms=(ROOM, WATCH), relay=True) as (bob,):
            channel = await watch.found_channel(bob.node, bob.person, "we watch")
            await service.set_place(bob.node, bob.person, "BY", 6697)
            await service.publish(bob.node, bob.person, on=True, channel=watch.link_of(channel))
            [held], _ = await service.add_bridges(bob.node, bob.person, DEAD)
            await service.set_gate(bob.node, bob.person, ["127.0.0.1:0"], "", "", [])
            await service.switch(bob.node, bob.person, on=True)
            routes = "SELECT transport, outcome, country, asn FROM view_watch_route"
            async with asyncio.timeout(30):
                await bob.until(lambda: bob.node.query(routes))
            assert bob.node.query(routes) == [("proxy", "refused", "BY", 6697)]
            assert service.find_bridge(bob.person, held.id).outcome == "refused"
            [step] = service.state(bob.node, bob.person).steps
            assert (step.state, step.outcome) == ("failed", "refused")
            assert step.next_ms is not None
            assert service.state(bob.node, bob.person).code == "nothing-works"

    asyncio.run(story())


def test_a_bridge_of_shadowsocks_lets_each_member_in_by_their_own_key_until_they_are_revoked(tmp_path: Path) -> None:
    async def story() -> None:
        async with houses(tmp_path, now_ms, "Ann", "Bob", "Cat", relay=True) as (ann, bob, cat):
            port = free_port()
            await service.serve(ann.node, ann.person, Served("ss", f"127.0.0.1:{port}", Target("127.0.0.1", port)))
            for other in (bob, cat):
                await service.invite(ann.node, ann.person, other.person.identity)
                await ann.carry_to(other)
                await other.until(lambda other=other: service.bridges(other.person))
                await switched_on(other)
            [step] = service.state(bob.node, bob.person).steps
            assert (step.transport, step.proof) == ("ss", True)
            await service.revoke(ann.node, ann.person, cat.person.identity)
            [held] = service.bridges(bob.person)

            def links() -> list[str]:
                return [link for one in service.relaying(ann.node, ann.person).serving.values() for link in one.links]

            async with asyncio.timeout(30):
                await ann.until(lambda: links() == [held.link])

    asyncio.run(story())
