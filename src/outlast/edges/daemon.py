"""The process of ``outlast up``: the node, its pages, its sync listener and its local API, until it is told to stop.

SIGINT and SIGTERM end it cleanly: the local API first, then the pages, then sessions and files; a second one ends it
at once. What was acknowledged is durable anyway. It stays in the foreground, needs no terminal, and says on stdout
where it listens, a line for each.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from outlast.edges.api import LocalApi
from outlast.edges.client import socket_path
from outlast.edges.config import Config, format_address, no_core_dumps
from outlast.edges.web import serving
from outlast.errors import StorageError
from outlast.kernel import Home, Node
from outlast.ui.command import read_passphrase

Announce = Callable[[str, str], None]
"""Told of each listener: what it is for (page, phones, commands, nodes), and where it is."""


def run(path: Path, config: Config, announce: Announce) -> None:
    """Run the node in ``path`` until a signal comes or its home is wiped; without a home, the first run makes one.

    Raises what keeps it from starting, such as StorageError for a port or a home that is taken.
    """
    no_core_dumps()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="outlast: %(message)s")
    asyncio.run(up(Home(path), config, announce))


async def up(home: Home, config: Config, announce: Announce) -> None:
    """The same within a running loop."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(_told_by_signals(stop))
        node = await stack.enter_async_context(await Node.open(home)) if home.exists() else None
        if node is not None and config.passphrase_file and not node.people:
            await node.unlock(read_passphrase(Path(config.passphrase_file)))
        pages = await stack.enter_async_context(serving(home, node, config.port, lan=config.lan))
        announce("page", pages.launch_url)
        for url in pages.lan_urls:
            announce("phones", url)
        if node is None:
            node = await _first(stop.wait(), pages.node())
            if not isinstance(node, Node):
                return
            # The pages use the node, so they close before it does.
            stack.push_async_exit(node)
            stack.push_async_callback(pages.close)
        await stack.enter_async_context(local_api(home, node))
        announce("commands", str(home.socket_path))
        work: list[Coroutine[Any, Any, Any]] = [stop.wait(), _until_wiped(node)]
        if config.listen_address is not None:
            work.append(_listen(node, *config.listen_address, announce))
        await _first(*work)


@asynccontextmanager
async def local_api(home: Home, node: Node) -> AsyncIterator[None]:
    """Answer at ``api.sock`` (0600) within the block. The caller holds the home's lock: an old socket is a dead one."""
    with suppress(FileNotFoundError):
        home.socket_path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with socket_path(home.path) as path:
            listener.bind(path)
    except OSError as error:
        listener.close()
        raise StorageError(
            f"cannot make {home.socket_path}: {error.strerror}; --home on another disk may help"
        ) from error
    finally:
        os.umask(before)
    settings = uvicorn.Config(
        LocalApi(node), http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = _Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        with suppress(FileNotFoundError):
            home.socket_path.unlink()


class _Server(uvicorn.Server):
    """A server that leaves the signals to ``up``."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def _until_wiped(node: Node) -> None:
    revision = node.revision
    while node.home.exists():
        revision = await node.wait(revision)


async def _listen(node: Node, host: str, port: int, announce: Announce) -> None:
    """Listen for other nodes whenever the node is unlocked: locking it closes the listener."""
    listening = False
    revision = -1
    while True:
        if node.locked:
            listening = False
        elif not listening:
            port = await node.listen(host, port)
            listening = True
            announce("nodes", format_address(host, port))
        revision = await node.wait(revision)


async def _first(*work: Coroutine[Any, Any, Any]) -> Any:
    """Run all until one ends, and end the others; what the one returned or raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _told_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def tell() -> None:
        stop.set()
        for one in signals:
            loop.remove_signal_handler(one)

    for one in signals:
        loop.add_signal_handler(one, tell)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
