"""The mux between a tunnel and a hub over real sockets."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.rooms.reach.tunnels import Border, Bridge


def test_what_is_sent_through_the_mux_comes_back_as_it_was() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            for size in (0, 1, 70_000, 5_000_000):
                await bridge.send_and_compare(os.urandom(size))
            assert bridge.accepted == 1
            assert not bridge.hub.streams

    asyncio.run(story())


def test_a_thousand_streams_share_one_outer_connection() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            await asyncio.gather(*(bridge.send_and_compare(os.urandom(3000)) for _ in range(1000)))
            assert bridge.accepted == 1
            assert not bridge.hub.streams

    asyncio.run(story())


def test_a_client_hears_success_only_when_the_target_has_answered() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.echo = bridge.echo._replace(port=1)
            with pytest.raises(ConnectionRefusedError, match="REFUSED"):
                await bridge.visit()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("border", "size"),
    [({"freeze_bytes": 16_384}, 8), ({"cut_bytes": 300_000}, 20), ({"cut_s": 0.3}, 60), ({"cut_bytes": 16_384}, 2)],
    ids=["frozen after 16 KB", "cut after 300 KB", "cut every 0.3 s", "cut after 16 KB"],
)
def test_a_stream_survives_a_border_that_freezes_or_cuts_its_connections(border: dict[str, int], size: int) -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at, **border)
            await bridge.send_and_compare(os.urandom(size * 1_000_000))
            assert bridge.border.frozen + bridge.border.cut > 0
            assert bridge.border.most_at_once <= 3

    asyncio.run(story())


def test_short_hops_keep_below_what_an_outer_froze_at() -> None:
    async def story() -> None:
        async with Bridge() as bridge:
            bridge.border = Border(bridge.at, freeze_bytes=16_384)
            await bridge.send_and_compare(os.urandom(2_000_000))
            assert bridge.border.frozen == 1
            assert bridge.tunnel.frozen_at_bytes == 16_384

    asyncio.run(story())
