"""The site that a bridge is: a folder, served here, or another server that is already there."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from outlast.errors import StorageError, UsageError
from outlast.rooms.reach.io.web_server import Site

PATIENCE_S: Final = 60.0
"""For so long nothing may move on a visitor's connection to a folder: nginx's ``client_header_timeout`` and others."""
RESTART_S: Final = 1.0


class Server(uvicorn.Server):
    """A server that leaves the process's signals to who runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def open_site(where: str, with_tls: str = "") -> AsyncIterator[Site]:
    """A site by the path of its folder, or by the URL of a server on this computer; raises UsageError.

    ``with_tls`` is ``HOST:PORT`` where that server also listens with TLS, for what only TLS itself can answer.
    """
    if where.startswith("http://"):
        yield Site(_address_of(where, 80), _address_of(f"//{with_tls}", 443) if with_tls else None)
    elif "://" in where:
        raise UsageError(f"a site is a folder or http://HOST:PORT, not {where}: TLS ends in the bridge")
    elif not Path(where).is_dir():
        raise UsageError(f"there is no folder {where} with a site; name one, or http://HOST:PORT")
    else:
        async with _folder(Path(where)) as site:
            yield site


def _address_of(url: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        found = (parts.hostname, parts.port or port)
    except ValueError:
        found = (None, 0)
    host, port = found
    if not host or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"{url.removeprefix('//')} is not HOST:PORT of a site; write it without a path")
    return host, port


@asynccontextmanager
async def _folder(folder: Path) -> AsyncIterator[Site]:
    """A process of its own serves it: while this one relays, pages are as quick as ever."""
    private = Path(tempfile.mkdtemp(prefix="outlast-site-"))  # mode 0700
    try:
        path = str(private / "s")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(_keep_serving(folder, path, ready))
        try:
            await asyncio.wait((ready, keeping), return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
            yield Site(path, patience_s=PATIENCE_S)
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError, StorageError):
                await keeping
    finally:
        shutil.rmtree(private, ignore_errors=True)


async def _keep_serving(folder: Path, path: str, ready: asyncio.Future[None]) -> None:
    """Serve it until this is cancelled, with another process when one died; raises StorageError if the first does."""
    while True:
        command = (sys.executable, "-m", __name__, str(folder), path)
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            if await child.stdout.readline() and not ready.done():
                ready.set_result(None)
            await child.wait()
        finally:
            child.stdin.close()  # it ends when that does, also when this process is killed
            await child.wait()
        if not ready.done():
            raise StorageError(f"the site {folder} cannot be served; see whether the disk is full")
        await asyncio.sleep(RESTART_S)


def folder_app(folder: Path) -> ASGIApp:
    """What a folder answers: its files, and ``index.html`` for a folder in it."""
    files = Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True))])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # TLS ended before this, and redirects must name what the visitor sees.
        await files({**scope, "scheme": "https"}, receive, send)

    return app


@asynccontextmanager
async def serve_pages(
    app: ASGIApp, *, path: str | None = None, sockets: list[socket.socket] | None = None
) -> AsyncIterator[None]:
    """Serve HTTP/1.1 on a Unix socket or on listening ones, as a site does it and without a word in any log."""
    config = uvicorn.Config(
        app,
        uds=path,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=3,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def _serve_folder(folder: str, path: str) -> None:
    """Serve a folder on a Unix socket until whoever started this closes its end of our input."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(0, over.set)
    for one in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C in a terminal is for the parent
        loop.add_signal_handler(one, lambda: None)
    async with serve_pages(folder_app(Path(folder)), path=path):
        print(flush=True)
        await over.wait()


if __name__ == "__main__":
    asyncio.run(_serve_folder(*sys.argv[1:3]))
