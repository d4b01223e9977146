"""Reach on both sides of the border: bridges of the server's, and a gate of the client's with their links."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from outlast.rooms.reach.proto.links import bridge_id, read_bridge
from tests.rooms.reach.border import BRIDGES, Border, page_of

NAMED = "bridge2.example.net"  # the bridge that has a name


@dataclass
class Way:
    """A gate of the client's, while it is open."""

    land: Border
    program: subprocess.Popen[str]
    began_s: float = 0.0
    at: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    def page(self, url: str, size: int, *, limit_s: float = 20) -> float | None:
        """Fetch a page by curl through the gate: the seconds since the gate was opened; None: it failed."""
        with TemporaryDirectory() as folder:
            file = Path(folder, "page")
            done = self.curl("-o", str(file), f"{url}/{size}", limit_s=limit_s)
            if done.returncode:
                return None
            assert file.read_bytes() == page_of(size)
        return time.monotonic() - self.began_s

    def curl(self, *arguments: str, limit_s: float = 20) -> subprocess.CompletedProcess[str]:
        """Ask for something through the gate."""
        return self.land.curl("--proxy", f"socks5h://{self.at}", *arguments, limit_s=limit_s)

    def listen(self) -> None:
        """Read what the program tells, until it ends."""
        assert self.program.stdout is not None
        for line in self.program.stdout:
            self.events.append(json.loads(line))


@contextmanager
def serving(land: Border, *arguments: str | Path, place: str = "server") -> Iterator[str]:
    """A bridge; its link."""
    home = Path(mkdtemp(dir=land.folder))
    program = land.outlast(place, home, "--json", "reach", "serve", *map(str, arguments))
    try:
        yield first(program, "serving")["links"][0]
    finally:
        land.end(program)


@contextmanager
def website(land: Border, at: str, *arguments: str | Path) -> Iterator[str]:
    """A bridge of the transport web, a folder with a page; its link."""
    folder = Path(mkdtemp(dir=land.folder))
    (folder / "index.html").write_text("<title>Bees</title>A site about bees.")
    with serving(land, "--transport", "web", "--site", folder, "--listen", at, *arguments) as link:
        yield link


@contextmanager
def connected(land: Border, links: Sequence[str], *arguments: str, place: str = "client") -> Iterator[Way]:
    """A gate with these ways out, as soon as it is open; whether one of them works is not waited for."""
    home = Path(mkdtemp(dir=land.folder))
    bridges = [word for link in links for word in ("--bridge", link)]
    program = land.outlast(place, home, "--json", "reach", "connect", "--listen", "127.0.0.1:0", *bridges, *arguments)
    way = Way(land, program)
    try:
        way.at = first(program, "listening")["at"]
        way.began_s = time.monotonic()
        reader = threading.Thread(target=way.listen, daemon=True)
        reader.start()
        yield way
    finally:
        program.terminate()
        reader.join(20)
        land.end(program)


def tried(land: Border, links: Sequence[str], *arguments: str) -> list[dict[str, Any]]:
    """What ``outlast reach test`` says about each of these ways."""
    home = Path(mkdtemp(dir=land.folder))
    bridges = [word for link in links for word in ("--bridge", link)]
    program = land.outlast("client", home, "--json", "reach", "test", *bridges, *arguments)
    said, told = program.communicate(timeout=60)
    land.programs.remove(program)
    rows = {row["bridge"]: row for row in map(json.loads, said.splitlines())}
    assert len(rows) == len(links), (said, told)
    return [rows[bridge_id(read_bridge(link))] for link in links]


def first(program: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The first event of a kind that a program tells."""
    assert program.stdout is not None
    told = []
    for line in program.stdout:
        told.append(line)
        event: dict[str, Any] = json.loads(line)
        if event.get("type") == kind:
            return event
    raise AssertionError((told, program.communicate(timeout=20)))


@contextmanager
def upstream(land: Border) -> Iterator[str]:
    """Somebody's SOCKS 5 proxy on the server: a stock one."""
    own = ["-s", "127.0.0.1", "-p", "8399", "-k", "kingfisher", "-m", "aes-256-gcm"]
    started = [
        land.start("server", "ss-server", *own),
        land.start("server", "ss-local", *own, "-b", BRIDGES[3], "-l", "1080"),
    ]
    try:
        for one in started:
            land.until(one, "listening at")
        yield f"socks5://{BRIDGES[3]}:1080"
    finally:
        for one in started:
            land.end(one)


@contextmanager
def stock_shadowsocks(land: Border, address: str, port: int) -> Iterator[str]:
    """A stock server of Shadowsocks (SIP004); its link (SIP002)."""
    method, password = "aes-256-gcm", "kingfisher"
    server = land.start("server", "ss-server", "-s", address, "-p", str(port), "-m", method, "-k", password)
    try:
        land.until(server, "listening at")
        user = base64.urlsafe_b64encode(f"{method}:{password}".encode()).decode().rstrip("=")
        yield f"ss://{user}@{address}:{port}"
    finally:
        land.end(server)
