"""The mux between a tunnel and a hub over real sockets."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.rooms.reach.tunnels import Bridge


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
