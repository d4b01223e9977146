"""Tor as our child: plain, or by bridges, with the programs that their transports need; and carriers over it.

Its configuration goes through its standard input, so that bridges stand in no file of ours; what tor itself remembers
in its folder names them, too, so the folder goes when tor ends. What it logs is read for its progress and for what
stops it, and is not kept.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from outlast.address import Target
from outlast.errors import OutlastError, UsageError
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.children import ChildError, Kept, PrivateFolder, end, lines, own_program, start
from outlast.rooms.reach.io.direct import Dialled
from outlast.rooms.reach.io.pluggable import find_program
from outlast.rooms.reach.io.upstream import Proxy
from outlast.rooms.reach.proto.bootstrap import Bootstrap
from outlast.rooms.reach.proto.bridge import ProxyBridge, TorBridge
from outlast.rooms.reach.proto.failures import BridgeError
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.proto.request import Credentials

OUTLAST: Final = "outlast"
"""The transport that we are ourselves (``managed``)."""
LOOK_S: Final = 1.0
"""So often it is asked whether tor still comes further."""

LINGER_S: Final = 60.0
"""So long a tor runs on that nobody uses: what tested it is often followed by who uses it."""

Progressed = Callable[[int, str], None]
"""Hears how far the start is, in percent, and what tor does now."""


class Tor:
    """A tor that is kept running; ``Through`` are the carriers over it."""

    def __init__(
        self,
        bridges: Sequence[TorBridge],
        progressed: Progressed = lambda percent, step: None,
        *,
        folder: Path | None = None,
        more: str = "",
    ) -> None:
        """Begin; ``folder`` is tor's own, a private one without it. ``more`` are further lines for tor.

        Needs a running loop. Raises ChildError when a program is not here, UsageError for a bridge it cannot be told.
        """
        self._loop = asyncio.get_running_loop()
        path = shutil.which("tor")
        if path is None:
            raise ChildError("bridges of Tor need tor, which is not here: install tor")
        self._command = (path, "--defaults-torrc", os.devnull, "-f", "-")
        self._own = None if folder else PrivateFolder()
        self._folder = folder or (self._own.path / "tor" if self._own else Path())
        self._torrc = write_torrc(bridges, self._folder, os.getpid(), _transport_command) + more
        self._progressed = progressed
        self._kept = Kept("tor", self._run)

    @property
    def proxy(self) -> Proxy | None:
        """Its SOCKS port, while it takes streams."""
        return self._kept.now

    async def ready(self) -> Proxy:
        """Wait until it takes streams; raises BridgeError when it will not soon, ChildError when it cannot run."""
        return await self._kept.ready()

    async def close(self) -> None:
        """End it, and wait until it has ended."""
        await self._kept.close()
        if self._own is not None:
            self._own.close()

    async def _run(self, ready: Callable[[Proxy], None]) -> OutlastError:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            process = await start(self._command, {})
        except OSError as error:
            return ChildError("tor cannot be started: %(error)s", error=error)
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


class Through:
    """A carrier over a tor; streams of different isolation take different circuits."""

    def __init__(self, tor: Tor, done: Callable[[], None] = lambda: None) -> None:
        """``done`` is called when the carrier is closed."""
        self._tor = tor
        self._done = done
        self._dialled = Dialled(asyncio.get_running_loop(), _nowhere)

    def carry(self, client: Client) -> None:
        """Take the client to its target through tor."""
        proxy = self._tor.proxy
        if proxy is None:
            client.refuse(Refusal.LOST)
            return
        # What keeps streams apart may be people's passwords; tor has no need to know them.
        name = sha256(b"isolation" + client.isolation).hexdigest().encode()
        self._dialled.take(client, partial(proxy.dial, credentials=Credentials(name, b"-")))

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Tor carries no datagrams."""
        return None

    def close(self) -> None:
        """End all streams."""
        self._dialled.close()
        self._done()


def _nowhere(*_: object) -> Callable[[], None]:
    raise AssertionError("every stream through tor has a dial of its own")


class Tors:
    """The tors of one process: one for each bridge, that lingers for who comes next, since a start takes long."""

    def __init__(self) -> None:
        self.told: Callable[[TorBridge, int, str], None] = lambda bridge, percent, step: None
        """Hears how far the start of each is, as ``Progressed``."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget()

    def _forget(self) -> None:
        self._lent: dict[str, tuple[Tor, int]] = {}
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def carrier(self, bridge: TorBridge) -> Through:
        """A carrier through a bridge, once tor takes streams; raises BridgeError or ChildError, and UsageError."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what ran on another one ended with it
            self._loop = loop
            self._forget()
        key = write_bridge(bridge)
        if (ending := self._ending.get(key)) is not None:
            await asyncio.gather(ending, return_exceptions=True)
        if (leaving := self._leaving.pop(key, None)) is not None:
            leaving.cancel()
        tor, users = self._lent.get(key) or (Tor((bridge,), partial(self._tell, bridge)), 0)
        self._lent[key] = tor, users + 1
        try:
            await tor.ready()
        except BaseException:
            self._give_back(key)
            raise
        return Through(tor, partial(self._give_back, key))

    def _tell(self, bridge: TorBridge, percent: int, step: str) -> None:
        self.told(bridge, percent, step)

    def _give_back(self, key: str) -> None:
        tor, users = self._lent[key]
        self._lent[key] = tor, users - 1
        if users == 1:
            wait_s = LINGER_S if tor.proxy is not None else 0
            assert self._loop is not None
            self._leaving[key] = self._loop.call_later(wait_s, self._end, key)

    def _end(self, key: str) -> None:
        del self._leaving[key]
        tor, _ = self._lent.pop(key)
        task = self._ending[key] = asyncio.get_running_loop().create_task(tor.close())
        task.add_done_callback(lambda _: self._ending.pop(key, None))


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
        command = _without_spaces(find(transport), folder / f"{transport}.sh")
        text.append(f"ClientTransportPlugin {transport} exec {' '.join(command)}")
    for bridge in bridges:
        line = write_bridge(bridge)
        if not line.isprintable():
            raise UsageError("a bridge line has characters that tor does not read")
        text.append(f"Bridge {line}")
    return "\n".join(text) + "\n"


def _without_spaces(command: Sequence[str], script: Path) -> Sequence[str]:
    """The command, or one that runs it from a script: tor splits at spaces here, and knows no quotes."""
    if not any(char.isspace() for part in command for char in part):
        return command
    if any(char.isspace() for char in str(script)):
        raise UsageError("tor can start no transport from a folder with a space in its name: set TMPDIR to another")
    script.parent.mkdir(mode=0o700, exist_ok=True)
    script.write_text(f"exec {shlex.join(command)}\n")
    return "/bin/sh", str(script)


def _transport_command(transport: str) -> Sequence[str]:
    if transport == OUTLAST:
        return own_program(f"{__package__}.managed")
    return (find_program(transport),)


def _quoted(path: Path) -> str:
    text = str(path)
    if not text.isprintable():
        raise UsageError("tor's folder has a name that tor does not read")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
