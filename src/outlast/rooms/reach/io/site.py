"""The site that a bridge is: a folder, served here, or another server that is already there."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from outlast.errors import UsageError
from outlast.rooms.reach.io.web_server import Site

PATIENCE_S: Final = 60.0
"""For so long nothing may move on a visitor's connection to a folder: nginx's ``client_header_timeout`` and others."""


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
    files = Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True))])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # TLS ended before this, and redirects must name what the visitor sees.
        await files({**scope, "scheme": "https"}, receive, send)

    private = Path(tempfile.mkdtemp(prefix="outlast-site-"))  # mode 0700
    try:
        path = str(private / "s")
        async with serve_pages(app, path=path):
            yield Site(path, patience_s=PATIENCE_S)
    finally:
        shutil.rmtree(private, ignore_errors=True)


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
