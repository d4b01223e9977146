"""Pluggable transports as our children: obfs4proxy, lyrebird, snowflake-client and their like, without any tor.

A child ends with us: its standard input closes when this process ends, however it ends, and where ``setpriv`` is there
the kernel ends it, too. What it says is read at a bounded pace.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from outlast.address import Target
from outlast.errors import Sentence
from outlast.rooms.reach.io.children import ChildError, Kept, end, lines, start
from outlast.rooms.reach.io.upstream import Proxy, dialled
from outlast.rooms.reach.proto.bridge import ProxyBridge
from outlast.rooms.reach.proto.pluggable import (
    CMethod,
    Contract,
    Demand,
    Log,
    PluggableError,
    SMethod,
    encode_args,
    write_demand,
)
from outlast.rooms.reach.proto.request import Credentials

PROGRAMS: Final = {
    "obfs4": ("lyrebird", "obfs4proxy"),
    "meek_lite": ("lyrebird", "obfs4proxy"),
    "webtunnel": ("lyrebird", "webtunnel-client"),
    "snowflake": ("snowflake-client", "lyrebird"),
}
"""Who speaks a transport, the best kept first. No others are started: a link from a stranger names the transport, and
``reboot`` would be a good name for one."""
READY_S: Final = 30.0
UNASKED: Final = Sentence("it was not asked for it")


def find_program(transport: str) -> str:
    """The path of a program that speaks the transport; raises ChildError."""
    candidates = PROGRAMS.get(transport)
    if candidates is None:
        raise ChildError(
            "the transport %(transport)r is not known here; there are %(known)s",
            transport=transport[:40],
            known=", ".join(PROGRAMS),
        )
    for candidate in candidates:
        if (path := shutil.which(candidate)) is not None:
            return path
    raise ChildError(
        "%(transport)s needs a program that is not here: install %(known)s",
        transport=transport,
        known=" or ".join(candidates),
    )


class Child:
    """A program that speaks pluggable transports, kept running."""

    def __init__(self, command: Sequence[str], demand: Demand) -> None:
        """Begin to keep it running; ``command`` is a path and its arguments. Needs a running loop."""
        self._command = tuple(command)
        self._name = os.path.basename(command[0])
        self._demand = demand
        self._kept = Kept(self._name, self._run)

    async def method(self, transport: str) -> CMethod | SMethod:
        """Where the transport listens now; raises ChildError when there is no such place, or none at present."""
        contract = await self._kept.ready()
        found = contract.methods.get(transport)
        if found is None:
            raise ChildError(
                "%(name)s does not offer %(transport)s: %(reason)s",
                name=self._name,
                transport=transport,
                reason=contract.errors.get(transport, UNASKED),
            )
        return found

    async def dial(self, transport: str, at: Target, args: Mapping[str, str]) -> socket.socket:
        """A stream to the server at ``at``, through the child; non-blocking. Raises ChildError."""
        user, password = encode_args(args)
        method = await self.method(transport)
        proxy = Proxy(asyncio.get_running_loop(), ProxyBridge(method.at, "socks5"))
        try:
            return await dialled(proxy, at, Credentials(user, password))
        except ConnectionError:
            raise ChildError("%(name)s does not get through to the bridge; try another one", name=self._name) from None

    async def close(self) -> None:
        """End the child and wait until it has ended, at most a few seconds."""
        await self._kept.close()

    async def _run(self, ready: Callable[[Contract], None]) -> ChildError:
        """Run it until it ends; returns why it did."""
        try:
            process = await start(self._command, write_demand(self._demand))
        except OSError as error:
            return ChildError("%(name)s cannot be started: %(error)s", name=self._name, error=error)
        told = code = None
        try:
            told = await self._listen(process, ready)
        except TimeoutError:
            return ChildError("%(name)s was not ready within %(time_s).0f s", name=self._name, time_s=READY_S)
        except (PluggableError, ChildError) as error:
            return ChildError(
                "%(name)s breaks the contract of pluggable transports: %(error)s", name=self._name, error=error
            )
        finally:
            code = await end(process, by_stdin=True)
        if told:
            return ChildError("%(name)s ended (exit code %(code)s): %(told)s", name=self._name, code=code, told=told)
        return ChildError("%(name)s ended (exit code %(code)s)", name=self._name, code=code)

    async def _listen(self, process: Process, ready: Callable[[Contract], None]) -> str:
        """Hear it out; returns the last trouble that it told."""
        contract = Contract(self._demand)
        told = ""
        async with asyncio.timeout(READY_S) as limit:
            async for line in lines(process):
                match contract.take(line):
                    case Log("error" | "warning", text):
                        told = text
                if contract.ready and limit.when() is not None:
                    limit.reschedule(None)
                    ready(contract)
        return told
