"""A web bridge on loopback for tests: its site, its server, and what tests do with outers."""

from __future__ import annotations

import asyncio
import datetime
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.folder import folder_app, serve_pages
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.web_server import Site, WebServer
from outlast.rooms.reach.proto.bridge import WebBridge

NAME = "site.example"
SECRET = bytes(range(32))


class Collector:
    """An owner that keeps what comes."""

    def __init__(self, outer: Outer) -> None:
        self.outer = outer
        self.data = bytearray()
        self.drains = 0
        self.over: list[OutlastError | None] = []
        self._news = asyncio.Event()
        outer.attach(self)

    def received(self, data: memoryview) -> None:
        self.data += data
        self._news.set()

    def drained(self) -> None:
        self.drains += 1
        self._news.set()

    def ended(self, error: OutlastError | None) -> None:
        self.over.append(error)
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                self._news.clear()
                await self._news.wait()


class Echo(Collector):
    """Sends back what comes."""

    def received(self, data: memoryview) -> None:
        self.outer.write(data)
        if self.outer.unsent > 1 << 20:
            self.outer.pause()

    def drained(self) -> None:
        self.outer.resume()


@dataclass
class Running:
    """A bridge that runs."""

    server: WebServer
    certificate: Certificate
    port: int
    users: list[str] = field(default_factory=list)
    outers: list[Outer] = field(default_factory=list)

    def bridge(self, secret: bytes = SECRET, **changes: object) -> WebBridge:
        fields = {"at": Target("127.0.0.1", self.port), "name": NAME, "secret": secret, "pin": self.certificate.pin}
        return WebBridge(**{**fields, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def running_bridge(
    folder: Path,
    site: Site | None = None,
    *,
    users: dict[str, bytes] | None = None,
    accept: Callable[[Outer], object] = Echo,
    clock: Callable[[], float] = time.time,
    now: datetime.datetime | None = None,
) -> AsyncIterator[Running]:
    """A bridge with a self-signed certificate; its site is that one, or a folder with a few files."""
    certificate = self_signed(folder / "keys", NAME, now)
    if site is None:
        pages = folder / "site"
        write_site(pages)
        with tempfile.TemporaryDirectory() as near:
            path = f"{near}/s"
            async with (
                serve_pages(folder_app(pages), path=path),
                running_bridge(folder, Site(path), users=users, accept=accept, clock=clock, now=now) as running,
            ):
                yield running
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    running: Running

    def taken(outer: Outer, user: str) -> None:
        running.users.append(user)
        running.outers.append(outer)
        accept(outer)

    server = WebServer(
        asyncio.get_running_loop(), certificate.context, site, {"one": SECRET} if users is None else users, taken, clock
    )
    running = Running(server, certificate, listener.getsockname()[1])
    server.listen(listener)
    try:
        yield running
    finally:
        server.close()
        for outer in running.outers:
            outer.close()


def write_site(folder: Path) -> None:
    """A small site: a page, a folder with a page, and a file of 1 MiB."""
    (folder / "news").mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text("<!doctype html><title>Bread</title><p>Recipes for bread.\n")
    (folder / "news" / "index.html").write_text("<!doctype html><title>News</title><p>Rye is back.\n")
    (folder / "bread.bin").write_bytes(bytes(range(256)) * 4096)
