"""The process of ``outlast up``: the node, its pages, its sync listener and its local API, until it is told to stop.

SIGINT and SIGTERM end it cleanly: the pages first, then the local API, then sessions and files; a second one ends it
at once. What was acknowledged is durable anyway. It stays in the foreground, needs no terminal, and says on stdout
where it listens, a line for each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn

from outlast.address import show
from outlast.edges.api import LocalApi
from outlast.edges.client import socket_path
from outlast.edges.config import Config
from outlast.edges.stick import watch
from outlast.edges.web import Server, serving
from outlast.errors import StorageError
from outlast.kernel import Discovery, Home, Node
from outlast.memory import reuse_freed_memory
from outlast.secrecy import no_core_dumps
from outlast.ui.command import read_passphrase
from outlast.ui.faults import be_discreet, tell_faults_of

ANYWHERE: Final = ("0.0.0.0", 0)

Announce = Callable[[str, str], None]
"""Told of each listener: what it is for (page, phones, commands, nodes), and where it is."""


def run(path: Path, config: Config, announce: Announce) -> None:
    """Run the node in ``path`` until a signal comes or its home is wiped; without a home, the first run makes one.

    Raises what keeps it from starting, such as StorageError for a port or a home that is taken, and the fault by which
    a part of the node ended: whoever started the process starts it again.
    """
    no_core_dumps()
    reuse_freed_memory()
    be_discreet()
    asyncio.run(up(Home(path), config, announce))


async def up(home: Home, config: Config, announce: Announce) -> None:
    """The same within a running loop. Everything that can listen listens before the first line is told."""
    stop = asyncio.Event()
    tell_faults_of(asyncio.get_running_loop())
    async with AsyncExitStack() as stack:
        stack.enter_context(told_by_signals(stop))
        node = (
            await stack.enter_async_context(await Node.open(home, files_auto_bytes=config.files_auto_bytes))
            if home.exists()
            else None
        )
        listener = _Listener(config.listen_address)
        if node is not None:
            _configure(node, config)
            await stack.enter_async_context(local_api(home, node))
            if config.passphrase_file and not node.people:
                await node.unlock(read_passphrase(Path(config.passphrase_file)))
            await listener.match(node)
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
            _configure(node, config)
            await stack.enter_async_context(local_api(home, node))
        # What is uploaded waits on the disk of the home, not in a folder that may be memory.
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = str(home.path)
        announce("commands", str(home.socket_path))
        # A part of the node that failed ends all of it: half a node would take letters and send none.
        await _first(
            stop.wait(), _until_wiped(node), listener.follow(node, announce), _failure(node), watch.follow(node)
        )


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
            listener.listen()  # who calls from now on waits for the server
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
    server = Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        with suppress(FileNotFoundError):
            home.socket_path.unlink()


def _configure(node: Node, config: Config) -> None:
    """Tell a node, also one that the first run has just made, what its settings say."""
    node.files_auto_bytes = config.files_auto_bytes
    node.fixed_discovery = Discovery(config.discovery) if config.discovery else None


async def _failure(node: Node) -> None:
    await asyncio.shield(node.failed)


async def _until_wiped(node: Node) -> None:
    revision = node.revision
    while node.home.exists():
        revision = await node.wait(revision)


class _Listener:
    """Lets other nodes connect, and looks for them, whenever the node is unlocked: locking it closes the listener."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        self._wanted = address
        self._address: tuple[str, int] | None = None
        self._listens = False
        self._told = False

    async def match(self, node: Node) -> None:
        if node.locked:
            self._listens = False
            return
        mode = node.discovery
        # Who is to be found has to listen somewhere.
        wanted = self._wanted or (None if mode is Discovery.OFF else self._address or ANYWHERE)
        if self._listens and wanted is None:
            await node.stop_listening()
            self._address, self._listens = None, False
        elif not self._listens and wanted is not None:
            host, port = self._address or wanted
            self._address = host, await node.listen(host, port)
            self._listens = True
        await node.lookout.look(mode, self._address[1] if self._address else 0)

    async def follow(self, node: Node, announce: Announce) -> None:
        revision = -1
        while True:
            await self.match(node)
            if self._listens and self._address is not None and not self._told:
                announce("nodes", show(self._address))
                self._told = True
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
def told_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Within the block the first SIGINT or SIGTERM sets ``stop``, and a second one ends the process at once."""
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
