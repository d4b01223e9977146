"""Pluggable transports as our children: obfs4proxy, lyrebird, snowflake-client and their like, without any tor.

A child is started when it is first wanted, kept running, and ends with us: its standard input closes when this process
ends however it ends, and where ``setpriv`` is there the kernel ends it, too. What it says is read at a bounded pace.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from outlast.errors import OutlastError
from outlast.rooms.reach.proto.address import Target, encode
from outlast.rooms.reach.proto.pluggable import (
    LINE_MAX_BYTES,
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
RETRY_FIRST_S: Final = 1.0
RETRY_LAST_S: Final = 60.0
PACE_BYTES: Final = 1 << 16
"""What is read of a child's words in a second; one that says more waits."""
END_S: Final = 2.0
UNASKED: Final = "it was not asked for it"


class ChildError(OutlastError):
    """A child cannot be had or cannot do what it is for; the text says which program and what to do."""


def find_program(transport: str) -> str:
    """The path of a program that speaks the transport; raises ChildError."""
    (name,) = names_of((transport,))
    candidates = PROGRAMS.get(name, (name, f"{name}-client"))
    for candidate in candidates:
        if (path := shutil.which(candidate)) is not None:
            return path
    raise ChildError(f"{name} needs a program that is not here: install {' or '.join(candidates)}")


class Child:
    """A program that speaks pluggable transports, run again when it ends: sooner at first, then every minute."""

    def __init__(self, command: Sequence[str], demand: Demand) -> None:
        """Begin to keep it running; ``command`` is a path and its arguments. Needs a running loop."""
        self._command = tuple(command)
        self._name = os.path.basename(command[0])
        self._demand = demand
        self._contract: Contract | None = None
        self._why = ""
        self._waiting: set[asyncio.Future[Contract]] = set()
        self._keeping = asyncio.create_task(self._keep(), name=f"keeps {self._name}")

    async def method(self, transport: str) -> CMethod | SMethod:
        """Where the transport listens now; raises ChildError when there is no such place, or none at present."""
        contract = await self._ready()
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
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _ready(self) -> Contract:
        if self._contract is not None:
            return self._contract
        if self._why or self._keeping.done():
            raise ChildError(self._why or f"{self._name} was ended")
        waiter: asyncio.Future[Contract] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = RETRY_FIRST_S
        try:
            while True:
                began = loop.time()
                self._why = ""
                why = await self._run_once()
                self._fail(why)
                if loop.time() - began > RETRY_LAST_S:
                    delay = RETRY_FIRST_S
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_LAST_S)
        finally:
            self._fail(f"{self._name} was ended")

    def _fail(self, why: str) -> None:
        self._contract = None
        self._why = why
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ChildError(why))

    async def _run_once(self) -> str:
        """Run it until it ends; returns why it did."""
        try:
            process = await start(self._command, write_demand(self._demand))
        except OSError as error:
            return f"{self._name} cannot be started: {error.strerror}"
        try:
            return await self._listen(process)
        except PluggableError as error:
            return f"{self._name} breaks the contract of pluggable transports: {error}"
        finally:
            await end(process)

    async def _listen(self, process: Process) -> str:
        assert process.stdout is not None
        contract = Contract(self._demand)
        said = ""
        try:
            async with asyncio.timeout(READY_S) as limit:
                read = 0
                while line := await _line(process.stdout):
                    if (read := read + len(line)) > PACE_BYTES:
                        read = 0
                        await asyncio.sleep(1)
                    told = contract.take(line.rstrip(b"\r\n"))
                    if isinstance(told, Log) and told.severity in ("error", "warning"):
                        said = told.text
                    if contract.ready and self._contract is None:
                        limit.reschedule(None)
                        self._contract = contract
                        for waiter in self._waiting:
                            if not waiter.done():
                                waiter.set_result(contract)
        except TimeoutError:
            return f"{self._name} was not ready within {READY_S:.0f} s"
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S)
        code = "it closed its output" if process.returncode is None else f"exit code {process.returncode}"
        return f"{self._name} ended ({code})" + (f": {said}" if said else "")


async def start(command: Sequence[str], variables: Mapping[str, str]) -> Process:
    """Start a program that ends with us, with ``variables`` and little else in its environment; raises OSError."""
    # The kernel's own means, without code of ours between fork and exec.
    setpriv = shutil.which("setpriv")
    leash = (setpriv, "--pdeathsig", "KILL", "--") if setpriv is not None else ()
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *leash, *command, env=kept | dict(variables), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=LINE_MAX_BYTES
    )


async def end(process: Process) -> None:
    """End a program: by its closed input, then by asking, then by force (pt-spec §3.4)."""
    if process.stdin is not None:
        process.stdin.close()
    for ask in (None, process.terminate, process.kill):
        if ask is not None:
            with suppress(ProcessLookupError):
                ask()
        try:
            await asyncio.wait_for(_drain(process), END_S)
        except TimeoutError:
            continue
        return


async def _drain(process: Process) -> None:
    """Wait for its end; a child that has something left to say would else never end."""
    while process.stdout is not None and await process.stdout.read(PACE_BYTES):
        pass
    await process.wait()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise PluggableError("a line is too long") from None


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
