"""The process of a node: of a part that failed it ends, with the fault's kind and place; it listens where it is to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outlast.edges.config import Config
from outlast.edges.daemon import _configure, _Listener, up
from outlast.errors import UsageError
from outlast.kernel import Discovery, Home, Node
from outlast.kernel.discovery import Lookout
from outlast.rooms.carry import view
from outlast.ui.faults import fault


def test_a_node_of_which_a_part_failed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("Ada wrote to Bela")

    async def run() -> None:
        await Node.create(Home(tmp_path / "home"), "Ada", passphrase=None)
        monkeypatch.setattr(view, "due_to_drop", fail)
        await up(Home(tmp_path / "home"), Config(port=0, lan=False), lambda _what, _at: None)

    with pytest.raises(ExceptionGroup) as failure:
        asyncio.run(asyncio.wait_for(run(), 60))
    assert fault(failure.value).startswith("this program has a fault: ValueError at test_daemon.py:")
    assert not (tmp_path / "home" / "api.sock").exists()


def test_a_node_that_is_to_be_found_listens_somewhere_until_it_is_not_any_more(tmp_path: Path) -> None:
    async def run() -> None:
        home = Home(tmp_path / "home")
        await Node.create(home, "Ada", passphrase=None)
        async with await Node.open(home) as node:
            node.lookout = Lookout(node, lambda: [])
            listener = _Listener(None)
            await listener.match(node)
            assert node.lookout.mode is Discovery.OFF
            assert not node.neighbours._servers
            await node.set_discovery(Discovery.STRANGERS)
            await listener.match(node)
            assert node.lookout.mode is Discovery.STRANGERS
            (server,) = node.neighbours._servers
            assert node.neighbours.strangers
            await listener.match(node)
            assert node.neighbours._servers == [server], "nothing has changed"
            await node.set_discovery(Discovery.OFF)
            await listener.match(node)
            assert node.lookout.mode is Discovery.OFF
            assert not node.neighbours._servers
            assert not node.neighbours.strangers

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_the_settings_say_of_discovery_goes_over_what_the_page_says(tmp_path: Path) -> None:
    async def run() -> None:
        home = Home(tmp_path / "home")
        await Node.create(home, "Ada", passphrase=None)
        async with await Node.open(home) as node:
            node.lookout = Lookout(node, lambda: [])
            await node.set_discovery(Discovery.STRANGERS)
            _configure(node, Config(discovery="off"))
            await _Listener(("127.0.0.1", 0)).match(node)
            assert node.lookout.mode is Discovery.OFF
            assert len(node.neighbours._servers) == 1
            assert node.discovery is Discovery.OFF, "the page says what is so"
            with pytest.raises(UsageError, match="its config"):
                await node.set_discovery(Discovery.NEIGHBOURS)
            assert node.discovery is Discovery.OFF

    asyncio.run(asyncio.wait_for(run(), 60))
