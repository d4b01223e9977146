"""Tor as our child: plain, or by bridges, with the programs that their transports need; a carrier.

Its configuration goes through its standard input, so that bridges stand in no file of ours; what tor itself remembers
in its folder names them, too, and whoever gives the folder decides how long it stays. What it logs is read for its
progress and for what stops it, and is not kept.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from outlast.errors import OutlastError, UsageError
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.children import ChildError, Kept, end, lines, start
from outlast.rooms.reach.io.direct import Dialled
from outlast.rooms.reach.io.pluggable import find_program
from outlast.rooms.reach.io.upstream import Proxy
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.bootstrap import Bootstrap
from outlast.rooms.reach.proto.bridge import ProxyBridge, TorBridge
from outlast.rooms.reach.proto.failures import BridgeError
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.proto.request import Credentials

OUTLAST: Final = "outlast"
"""The transport that we are ourselves (``managed``)."""
LOOK_S: Final = 1.0
"""So often it is asked whether tor still comes further."""

Progressed = Callable[[int, str], None]
"""Hears how far the start is, in percent, and what tor does now."""


class Tor:
    """A tor that is kept running; streams of different isolation take different circuits."""

    def __init__(
        self,
        bridges: Sequence[TorBridge],
        folder: Path,
        *,
        progressed: Progressed = lambda percent, step: None,
        more: str = "",
    ) -> None:
        """Begin; ``folder`` is tor's own, ``more`` are further lines for it, as for a network of one's own.

        Needs a running loop. Raises ChildError when a program is not here, UsageError for a bridge it cannot be told.
        """
        self._loop = asyncio.get_running_loop()
        path = shutil.which("tor")
        if path is None:
            raise ChildError("bridges of Tor need tor, which is not here: install tor")
        self._command = (path, "--defaults-torrc", os.devnull, "-f", "-")
        self._torrc = write_torrc(bridges, folder, os.getpid(), _transport_command) + more
        self._folder = folder
        self._progressed = progressed
        self._dialled = Dialled(self._loop, self._nowhere)
        self._kept = Kept("tor", self._run)

    async def ready(self) -> None:
        """Wait until it takes streams; raises BridgeError when it will not soon, ChildError when it cannot run."""
        await self._kept.ready()

    def carry(self, client: Client) -> None:
        """Take the client to its target through tor."""
        proxy = self._kept.now
        if proxy is None:
            client.refuse(Refusal.FAILED)
            return
        # What keeps streams apart may be people's passwords; tor keeps its own in memory and needs none.
        name = sha256(b"isolation" + client.isolation).hexdigest().encode()
        self._dialled.take(client, partial(proxy.dial, credentials=Credentials(name, b"-")))

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Tor carries no datagrams."""
        return None

    def close(self) -> None:
        """End all streams at once, and tor soon."""
        self._dialled.close()
        self._closing = self._loop.create_task(self._kept.close())

    async def closed(self) -> None:
        """Wait until tor has ended, after ``close``."""
        await self._closing

    def _nowhere(self, *_: object) -> Callable[[], None]:
        raise AssertionError("every stream of tor has a dial of its own")

    async def _run(self, ready: Callable[[Proxy], None]) -> OutlastError:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            process = await start(self._command, {})
        except OSError as error:
            return ChildError(f"tor cannot be started: {error.strerror}")
        bootstrap = Bootstrap(self._loop.time())
        looking = self._loop.call_later(LOOK_S, self._look)
        self._process, self._bootstrap, self._looking = process, bootstrap, looking
        try:
            return await self._listen(process, bootstrap, ready)
        except ChildError:
            return ChildError("what runs as tor does not speak like tor")
        finally:
            self._looking.cancel()
            await end(process, by_stdin=False)

    async def _listen(self, process: Process, bootstrap: Bootstrap, ready: Callable[[Proxy], None]) -> OutlastError:
        assert process.stdin is not None
        process.stdin.write(self._torrc.encode())
        process.stdin.close()
        percent, told = -1, False
        async for line in lines(process):
            bootstrap.take(line, self._loop.time())
            if bootstrap.percent > percent:
                percent = bootstrap.percent
                self._progressed(percent, bootstrap.step)
            if bootstrap.done and not told and bootstrap.socks is not None:
                told = True
                ready(Proxy(self._loop, ProxyBridge(bootstrap.socks, "socks5")))
        return BridgeError(bootstrap.stalled(self._loop.time()) or bootstrap.ended())

    def _look(self) -> None:
        if self._bootstrap.stalled(self._loop.time()) is None:
            self._looking = self._loop.call_later(LOOK_S, self._look)
        else:
            with suppress(ProcessLookupError):
                self._process.terminate()


def write_torrc(bridges: Sequence[TorBridge], folder: Path, owner: int, find: Callable[[str], Sequence[str]]) -> str:
    """Tor's configuration; ``owner`` is the process without which it ends, ``find`` gives a transport's command.

    Raises UsageError for what tor's lines cannot hold, and what ``find`` raises.
    """
    text = [
        f"DataDirectory {_quoted(folder)}",
        "SocksPort 127.0.0.1:auto IsolateSOCKSAuth",
        "SocksPolicy accept 127.0.0.1",
        "SocksPolicy reject *",
        "ClientOnly 1",
        "AvoidDiskWrites 1",
        "Log notice stdout",
        "SafeLogging 1",
        f"__OwningControllerProcess {owner}",
    ]
    if bridges:
        text.append("UseBridges 1")
    for transport in sorted({bridge.transport for bridge in bridges if bridge.transport}):
        command = find(transport)
        if any(char.isspace() for part in command for char in part):
            raise UsageError(f"tor cannot start {command[0]!r}: there is a space in its path")
        text.append(f"ClientTransportPlugin {transport} exec {' '.join(command)}")
    for bridge in bridges:
        line = write_bridge(bridge)
        if not line.isprintable():
            raise UsageError("a bridge line has characters that tor does not read")
        text.append(f"Bridge {line}")
    return "\n".join(text) + "\n"


def _transport_command(transport: str) -> Sequence[str]:
    if transport == OUTLAST:
        return (sys.executable, "-m", f"{__package__}.managed")
    return (find_program(transport),)


def _quoted(path: Path) -> str:
    text = str(path)
    if not text.isprintable():
        raise UsageError("tor's folder has a name that tor does not read")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
