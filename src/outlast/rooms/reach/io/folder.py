"""Serves a folder as a website does, on a Unix socket, as a program of its own: ``python -P folder.py FOLDER SOCKET``.

It imports nothing of Outlast, so that the process is small and begins at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send


class Server(uvicorn.Server):
    """A server that leaves the process's signals to who runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


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
