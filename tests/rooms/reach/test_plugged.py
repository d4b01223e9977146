"""Bridges of Outlast's behind Debian's obfs4proxy, which both sides run as a child: streams, restarts, commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from outlast.address import Target
from outlast.errors import OutlastError, StorageError
from outlast.rooms.reach.io import children, plugged
from outlast.rooms.reach.io.attempt import attempt
from outlast.rooms.reach.io.children import ChildError
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.plugged import Plugged, PluggedListener, PluggedServer
from outlast.rooms.reach.io.relay import carrier_of
from outlast.rooms.reach.proto.bridge import PluggedBridge
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.links import bridge_id, read_bridge
from tests.rooms.reach.gates import curl
from tests.rooms.reach.pages import PAGE, serving_page
from tests.rooms.reach.programs import program
from tests.rooms.reach.through import connect, echo_hashes, echoes

ANY = Target("127.0.0.1", 0)
OUTLAST = [sys.executable, "-c", "from outlast.edges.main import main; main()"]


@pytest.fixture(autouse=True)
def _obfs4proxy() -> None:
    program("obfs4proxy")


def server_at(folder: Path, at: Target, transport: str = "obfs4") -> PluggedServer:
    return PluggedServer(at, "127.0.0.1", transport, (bytes(range(32)),), str(folder))


@asynccontextmanager
async def serving(folder: Path, at: Target = ANY) -> AsyncIterator[tuple[PluggedListener, PluggedBridge]]:
    exit_ = Exit(asyncio.get_running_loop(), allowing_private())
    server = await PluggedListener.start(exit_, server_at(folder, at))
    try:
        (link,) = server.links
        bridge = read_bridge(link)
        assert isinstance(bridge, PluggedBridge)
        yield server, bridge
    finally:
        await server.close()
        exit_.close()


@asynccontextmanager
async def through(bridge: PluggedBridge, told: list[OutlastError]) -> AsyncIterator[Gate]:
    carrier = Plugged(bridge, told.append)
    gate = Gate(asyncio.get_running_loop(), ANY, carrier.carry, carrier.associate)
    try:
        yield gate
    finally:
        gate.close()
        carrier.close()
        assert carrier._ending is not None
        await carrier._ending


def test_streams_go_both_ways_through_obfs4proxy_with_equal_hashes(tmp_path: Path) -> None:
    async def story() -> None:
        told: list[OutlastError] = []
        async with echoes() as target, serving(tmp_path) as (_, bridge), through(bridge, told) as gate:
            await asyncio.gather(*(echo_hashes(gate.at, target.streams, 3_000_000 + extra) for extra in range(4)))
        assert told == []

    asyncio.run(story())


def test_streams_outlive_the_child_that_carried_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, born: Callable[[], set[psutil.Process]]
) -> None:
    monkeypatch.setattr(children, "RETRY_FIRST_S", 0.1)

    async def story() -> None:
        async with echoes() as target, serving(tmp_path) as (_, bridge), through(bridge, []) as gate:
            reader, writer = await connect(gate.at, target.streams)
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            near = [child for child in born() if "TOR_PT_CLIENT_TRANSPORTS" in child.environ()]
            assert len(near) == 1
            near[0].kill()
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"
            writer.close()

    asyncio.run(story())


def test_a_bridge_keeps_its_keys_and_a_stranger_gets_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path) as (server, first):
            at = server.at
        async with serving(tmp_path, at) as (_, again):
            assert again == first
            stranger = PluggedBridge(again.at, "obfs4", again.args, bytes(32))
            tried = await attempt(stranger, carrier_of)
            assert tried.failure is not None
            tried = await attempt(again, carrier_of)
            assert tried.failure is None
            assert tried.proof

    asyncio.run(story())


def test_on_the_port_behind_the_child_only_the_child_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugged, "INTRODUCTION_S", 0.3)

    async def story() -> None:
        async with serving(tmp_path) as (server, _):
            inner = server._listener._sock.getsockname()
            for said in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\1" + bytes(64)):
                reader, writer = await asyncio.open_connection(*inner)
                writer.write(said)
                assert len(await reader.read()) in (2, 66)
                writer.close()
            assert (tmp_path / "obfs4" / "extended_orport_auth_cookie").stat().st_mode & 0o777 == 0o600

    asyncio.run(story())


def test_what_keeps_a_bridge_from_serving_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        exit_ = Exit(asyncio.get_running_loop(), allowing_private())
        with socket.create_server(ANY) as taken:
            at = Target(*taken.getsockname())
            with pytest.raises(StorageError, match="in use by another program"):
                await PluggedListener.start(exit_, server_at(tmp_path, at))
        with pytest.raises(ChildError, match="'nosuch' is not known here"):
            await PluggedListener.start(exit_, server_at(tmp_path, ANY, "nosuch"))
        exit_.close()

    asyncio.run(story())


@contextmanager
def running(*arguments: str) -> Iterator[dict[str, Any]]:
    """A command; its first event."""
    command = [*OUTLAST, "--json", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            event: dict[str, Any] = json.loads(process.stdout.readline())
            yield event
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.stdout.read()


def test_the_commands_serve_and_use_a_bridge_behind_obfs4(tmp_path: Path) -> None:
    with ExitStack() as stack:
        page = stack.enter_context(serving_page())
        home = ("--home", str(tmp_path / "far"))
        serve = (*home, "reach", "serve", "--transport", "obfs4", "--listen", "127.0.0.1:0", "--allow-private")
        served = stack.enter_context(running(*serve))
        assert (served["type"], served["transport"]) == ("serving", "obfs4")
        (link,) = served["links"]
        near = ("--home", str(tmp_path / "near"))
        gate = stack.enter_context(running(*near, "reach", "connect", "--listen", "127.0.0.1:0", "--bridge", link))
        got = curl("-x", f"socks5h://{gate['at']}", page)
        assert got.returncode == 0
        assert got.stdout == PAGE
        tested = subprocess.run(
            [*OUTLAST, "--json", *near, "reach", "test", "--bridge", link], capture_output=True, check=True
        )
        row = json.loads(tested.stdout)
        assert (row["bridge"], row["ok"], row["class"]) == (bridge_id(read_bridge(link)), True, None)
