"""``outlast reach pt`` under a parent: ours, which is proved beside obfs4proxy, in the place of tor's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from outlast.address import Target
from outlast.rooms.reach.io.children import ChildError
from outlast.rooms.reach.io.managed import bridge_of
from outlast.rooms.reach.io.pluggable import Child
from outlast.rooms.reach.proto.pluggable import ClientDemand, Proxy, ServerDemand, SMethod
from tests.rooms.reach.gates import curl
from tests.rooms.reach.through import Echoes, echoes

PT = [sys.executable, "-m", "outlast.rooms.reach.io.managed"]
LOOPBACK = Target("127.0.0.1", 0)
CLIENT = {
    "TOR_PT_MANAGED_TRANSPORT_VER": "1",
    "TOR_PT_STATE_LOCATION": "/nonexistent",
    "TOR_PT_CLIENT_TRANSPORTS": "outlast",
}


def answer(variables: Mapping[str, str], *, stdin: int = subprocess.DEVNULL) -> tuple[list[str], int]:
    """What ``outlast reach pt`` says in such an environment, and its exit code."""
    command = [sys.executable, "-c", "from outlast.edges.main import main; main()", "reach", "pt"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TOR_PT_")}
    done = subprocess.run(command, env=environ | dict(variables), stdin=stdin, capture_output=True, text=True)
    assert done.stderr.count("\n") <= 1
    return done.stdout.splitlines(), done.returncode


def offering(folder: Path, or_port: Target, listen: Target = LOOPBACK, **options: str) -> ServerDemand:
    given = {"outlast": options} if options else {}
    return ServerDemand(str(folder), True, ("outlast",), or_port, {"outlast": listen}, given)


@asynccontextmanager
async def running(*demands: ServerDemand | ClientDemand) -> AsyncIterator[list[Child]]:
    children = [Child(PT, demand) for demand in demands]
    try:
        yield children
    finally:
        await asyncio.gather(*(child.close() for child in children))


async def exchange(near: Child, at: Target, args: Mapping[str, str], data: bytes) -> None:
    sock = await near.dial("outlast", at, args)
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    writer.close()


def test_streams_go_through_it_to_the_orport_and_the_bridges_port_is_a_website(
    tmp_path: Path, born: Callable[[], object]
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("A site about bees.")

    async def story(target: Echoes) -> None:
        far_demand = offering(tmp_path / "far", target.streams, site=str(tmp_path / "site"))
        near_demand = ClientDemand(str(tmp_path / "near"), True, ("outlast",))
        async with running(far_demand, near_demand) as (far, near):
            method = await far.method("outlast")
            assert isinstance(method, SMethod)
            await asyncio.gather(*(exchange(near, method.at, method.args, os.urandom(1 << 20)) for _ in range(4)))
            shown = await asyncio.to_thread(curl, "-k", f"https://127.0.0.1:{method.at.port}/")
            assert shown.stdout == b"A site about bees."
            for wrong in ({"key": "A" * 43}, {"cert": "A" * 43}, {"key": "x"}):
                with pytest.raises(ChildError, match="try another one"):
                    await near.dial("outlast", method.at, dict(method.args) | wrong)
        # It keeps its keys: lines stay good.
        async with running(offering(tmp_path / "far", target.streams, method.at)) as (far,):
            assert await far.method("outlast") == method

    async def whole() -> None:
        async with echoes() as target:
            await story(target)

    asyncio.run(whole())
    assert not born()


class HttpProxy:
    """A proxy by CONNECT: what it was asked, and the connections that it has."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.near: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        self.near.append(writer)
        host, _, port = self.asked[-1].split()[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(self.copy(reader, far_writer), self.copy(far_reader, writer))

    async def copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()


def test_the_proxy_that_the_parent_names_is_the_only_way_out_and_streams_outlive_its_connections(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        proxy = HttpProxy()
        async with echoes() as target, await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            at = Target("127.0.0.1", server.sockets[0].getsockname()[1])
            through = ClientDemand(str(tmp_path), True, ("outlast",), Proxy("http", at, "user", "word"))
            async with running(offering(tmp_path / "far", target.streams), through) as (far, near):
                method = await far.method("outlast")
                assert isinstance(method, SMethod)
                sock = await near.dial("outlast", method.at, method.args)
                reader, writer = await asyncio.open_connection(sock=sock)
                for turn in range(3):
                    data = os.urandom(300_000)
                    writer.write(data)
                    assert await reader.readexactly(len(data)) == data
                    assert len(proxy.near) > turn
                    for connection in proxy.near:
                        connection.transport.abort()
                writer.close()
                assert all(f"CONNECT 127.0.0.1:{method.at.port} ".encode() in one for one in proxy.asked)
                server.close()
                with pytest.raises(ChildError):
                    await near.dial("outlast", method.at._replace(host="127.0.0.2"), method.args)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sight": "http://127.0.0.1:1"}, "'sight' is no option; there are cert, key, name, site"),
        ({"site": "/nonexistent"}, "there is no folder /nonexistent with a site"),
        ({"cert": "/nonexistent", "key": "/nonexistent", "name": "example.org"}, "cannot be used"),
    ],
)
def test_what_keeps_a_bridge_from_serving_is_told_to_tor(options: dict[str, str], why: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(offering(tmp_path, LOOPBACK._replace(port=9), **options)) as (far,):
            with pytest.raises(ChildError, match=why):
                await far.method("outlast")

    asyncio.run(story())


def test_a_parent_that_makes_no_sense_is_told_so_in_its_own_words() -> None:
    lines, code = answer({})
    assert lines == ["ENV-ERROR no TOR_PT_MANAGED_TRANSPORT_VER: this is started by tor, not by a person"]
    assert code == 2
    assert answer(CLIENT | {"TOR_PT_MANAGED_TRANSPORT_VER": "7"}) == (["VERSION-ERROR no-version"], 2)
    lines, code = answer(CLIENT | {"TOR_PT_PROXY": "socks4a://127.0.0.1:1"})
    assert lines[0] == "VERSION 1"
    assert lines[-1].startswith("PROXY-ERROR SOCKS 4 cannot be used")
    assert code == 2


def test_transports_that_are_not_ours_are_passed_over_and_it_ends_with_its_input() -> None:
    lines, code = answer(CLIENT | {"TOR_PT_CLIENT_TRANSPORTS": "obfs4,x", "TOR_PT_EXIT_ON_STDIN_CLOSE": "1"})
    assert [line.split()[0] for line in lines] == ["VERSION", "STATUS", "CMETHODS"]
    assert code == 0


def test_a_bridge_line_says_whom_to_meet_and_how_one_is_known() -> None:
    at, key = Target("192.0.2.1", 443), "A" * 42 + "E"
    bridge = bridge_of(at, {"key": key, "cert": key})
    assert (bridge.at, bridge.name, len(bridge.secret), bridge.pin) == (at, "192.0.2.1", 32, bridge.secret)
    assert bridge_of(at, {"key": key, "name": "example.org"}).name == "example.org"


@pytest.mark.parametrize("args", [{}, {"key": "A" * 43}, {"cert": "A" * 43}, {"key": "é" * 43, "cert": "A" * 43}])
def test_a_bridge_line_that_was_not_copied_whole_is_refused(args: dict[str, str]) -> None:
    with pytest.raises(Exception, match="copy the whole line"):
        bridge_of(Target("192.0.2.1", 443), args)
