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

from outlast.rooms.reach.io.children import ChildError, Kept, end, lines, start
from outlast.rooms.reach.proto.address import Target, encode
from outlast.rooms.reach.proto.pluggable import (
    CMethod,
    Contract,
    Demand,
    Log,
    PluggableError,
    SMethod,
    encode_args,
    names_of,
    write_demand,
)

PROGRAMS: Final = {
    "obfs4": ("lyrebird", "obfs4proxy"),
    "meek_lite": ("lyrebird", "obfs4proxy"),
    "webtunnel": ("lyrebird", "webtunnel-client"),
    "snowflake": ("snowflake-client", "lyrebird"),
}
"""Who speaks a transport as a client, the best kept first; other transports are looked for under their own name."""
READY_S: Final = 30.0
DIAL_S: Final = 30.0
UNASKED: Final = "it was not asked for it"


def find_program(transport: str) -> str:
    """The path of a program that speaks the transport; raises ChildError."""
    (name,) = names_of((transport,))
    candidates = PROGRAMS.get(name, (name, f"{name}-client"))
    for candidate in candidates:
        if (path := shutil.which(candidate)) is not None:
            return path
    raise ChildError(f"{name} needs a program that is not here: install {' or '.join(candidates)}")


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
            raise ChildError(f"{self._name} does not offer {transport}: {contract.errors.get(transport, UNASKED)}")
        return found

    async def dial(self, transport: str, at: Target, args: Mapping[str, str]) -> socket.socket:
        """A stream to the server at ``at``, through the child; non-blocking. Raises ChildError."""
        user, password = encode_args(args)
        method = await self.method(transport)
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET6 if ":" in method.at.host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(DIAL_S):
                await loop.sock_connect(sock, method.at)
                await _socks(loop, sock, at, user, password)
        except TimeoutError:
            sock.close()
            raise ChildError(f"the bridge does not answer through {self._name}; try another one") from None
        except OSError:
            sock.close()
            raise ChildError(f"{self._name} hung up; the bridge may be gone, try another one") from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def close(self) -> None:
        """End the child and wait until it has ended, at most a few seconds."""
        await self._kept.close()

    async def _run(self, ready: Callable[[Contract], None]) -> ChildError:
        """Run it until it ends; returns why it did."""
        try:
            process = await start(self._command, write_demand(self._demand))
        except OSError as error:
            return ChildError(f"{self._name} cannot be started: {error.strerror}")
        told = code = None
        try:
            told = await self._listen(process, ready)
        except TimeoutError:
            return ChildError(f"{self._name} was not ready within {READY_S:.0f} s")
        except (PluggableError, ChildError) as error:
            return ChildError(f"{self._name} breaks the contract of pluggable transports: {error}")
        finally:
            code = await end(process, by_stdin=True)
        return ChildError(f"{self._name} ended (exit code {code})" + (f": {told}" if told else ""))

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


async def _socks(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, at: Target, user: bytes, password: bytes
) -> None:
    """RFC 1928 and 1929 towards the child; whatever is wrong there raises ConnectionError."""
    await loop.sock_sendall(sock, b"\5\1\2")
    if await _exactly(loop, sock, 2) != b"\5\2":
        raise ConnectionError
    await loop.sock_sendall(sock, bytes((1, len(user))) + user + bytes((len(password),)) + password)
    if (await _exactly(loop, sock, 2))[1]:
        raise ConnectionError
    await loop.sock_sendall(sock, b"\5\1\0" + encode(at))
    version, reply, _, kind = await _exactly(loop, sock, 4)
    size = {1: 4, 4: 16}.get(kind, 0)
    if kind == 3:
        (size,) = await _exactly(loop, sock, 1)
    await _exactly(loop, sock, size + 2)
    if version != 5 or reply:
        raise ConnectionError


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data
