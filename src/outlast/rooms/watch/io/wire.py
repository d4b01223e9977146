"""Connections of watch: TCP, TLS on it or not, and what becomes of them in the words of OONI's data format df-007."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from outlast.errors import StorageError
from outlast.rooms.watch.proto.http import Exchange, Url
from outlast.rooms.watch.proto.probe import is_address
from outlast.rooms.watch.proto.web_connectivity import SLOT_S

READ_BYTES: Final = 1 << 14
FIRST_BYTES: Final = 1 << 11
"""So much of what a TLS server says first is looked at when the handshake fails."""
_VERIFY: Final = {
    # X509_V_ERR_*: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
    9: "ssl_invalid_certificate",
    10: "ssl_invalid_certificate",
    62: "ssl_invalid_hostname",
    63: "ssl_invalid_hostname",
    64: "ssl_invalid_hostname",
}
_ERRNO: Final = {
    errno.ECONNABORTED: "connection_aborted",
    errno.ECONNREFUSED: "connection_refused",
    errno.ECONNRESET: "connection_reset",
    errno.EPIPE: "connection_reset",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETDOWN: "network_down",
    errno.ENETRESET: "network_reset",
    errno.ENETUNREACH: "network_unreachable",
    errno.ETIMEDOUT: "generic_timeout_error",
}
_GAI: Final = {
    socket.EAI_NONAME: "dns_nxdomain_error",
    socket.EAI_NODATA: "dns_no_answer",
    socket.EAI_AGAIN: "dns_temporary_failure",
    socket.EAI_FAIL: "dns_non_recoverable_failure",
}


class End(Exception):
    """The other side ended the connection before it was done."""


class Refused(Exception):
    """The other side answered, but not as it should."""

    def __init__(self, failure: str) -> None:
        super().__init__(failure)
        self.failure = failure


def failure_of(error: BaseException) -> str:
    """The failure string of df-007 for what a socket or TLS raised."""
    match error:
        case TimeoutError():
            return "generic_timeout_error"
        case End():
            return "eof_error"
        case Refused():
            return error.failure
        case socket.gaierror():
            return _GAI.get(error.errno or 0, "dns_server_misbehaving")
        case ssl.SSLCertVerificationError():
            return _VERIFY.get(error.verify_code, "ssl_unknown_authority")
        case ssl.SSLError():
            return "ssl_failed_handshake"
        case OSError():
            return _ERRNO.get(error.errno or 0, f"unknown_failure: {errno.errorcode.get(error.errno or 0, 'OSError')}")
        case _:
            return f"unknown_failure: {type(error).__name__}"


@dataclass(slots=True)
class Slots:
    """Bytes received in all, noted every SLOT_S."""

    clock: Callable[[], float]
    total: int = 0
    notes: list[tuple[float, int]] = field(default_factory=list)
    due: float = 0.0

    def count(self, size: int) -> None:
        """So many came just now."""
        if size == 0:
            return
        self.total += size
        now = self.clock()
        if now >= self.due:
            self.notes.append((now, self.total))
            self.due = now + SLOT_S

    def taken(self) -> tuple[tuple[float, int], ...]:
        """The notes, with the end."""
        last = [(self.clock(), self.total)] if self.total else []
        return tuple(self.notes + last)


class Wire:
    """A TCP connection, with TLS on it or not."""

    def __init__(self, sock: socket.socket, clock: Callable[[], float]) -> None:
        self.sock = sock
        self._clock = clock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: ssl.SSLObject | None = None
        self.first = bytearray()
        self.io: list[tuple[str, float, int]] = []

    def close(self) -> None:
        """Close it; nothing is said to the other side."""
        self.sock.close()

    async def shake(self, context: ssl.SSLContext, name: str | None) -> None:
        """TLS; raises OSError, also ssl.SSLError, or End."""
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self.io.append(("tls_handshake_start", self._clock(), 0))
        while True:
            try:
                self.tls.do_handshake()
                await self._flush()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
        self.io.append(("tls_handshake_done", self._clock(), 0))

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        if self.tls is None:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        else:
            self.tls.write(data)
            await self._flush()

    async def receive(self, exchange: Exchange, slots: Slots | None) -> None:
        """Feed an exchange until it is done."""
        while not exchange.done:
            exchange.feed(await self.read(slots))

    async def read(self, slots: Slots | None = None) -> bytes:
        """What comes next, b"" at the end."""
        if self.tls is None:
            data = await receive(self.sock, READ_BYTES)
            if slots is not None:
                slots.count(len(data))
            return data
        while True:
            try:
                return self.tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                # Counted as they come: TLS hands them out by records of up to 16 KiB.
                try:
                    came = await self._fill()
                except End:
                    return b""
                if slots is not None:
                    slots.count(came)
            except ssl.SSLZeroReturnError:
                return b""

    async def _flush(self) -> None:
        if self._out.pending:
            data = self._out.read()
            self.io.append(("write", self._clock(), len(data)))
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def _fill(self) -> int:
        data = await receive(self.sock, READ_BYTES)
        if not data:
            raise End
        if self.tls is not None and len(self.first) < FIRST_BYTES:
            self.io.append(("read", self._clock(), len(data)))
            self.first += data[:FIRST_BYTES]
        self._in.write(data)
        return len(data)


async def getaddrinfo(host: str) -> tuple[tuple[str, ...], str | None]:
    """The system's resolver: addresses and the canonical name; raises OSError.

    In a thread that the process does not wait for: the C library cannot be interrupted.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(done: Callable[[Any], None], value: Any) -> None:
        def call() -> None:
            if not future.done():
                done(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(call)

    def work() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        except (OSError, UnicodeError) as error:
            settle(future.set_exception, error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME))
        else:
            settle(future.set_result, found)

    threading.Thread(target=work, name="getaddrinfo", daemon=True).start()
    found = await future
    addresses = tuple(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))
    return addresses, next((one[3] for one in found if one[3]), None)


async def dial(ip: str, port: int, clock: Callable[[], float]) -> Wire:
    """Connect to an address; raises OSError."""
    sock = open_socket(ip, socket.SOCK_STREAM)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (ip, port))
    except BaseException:
        sock.close()
        raise
    return Wire(sock, clock)


async def secured(wire: Wire, context: ssl.SSLContext, name: str) -> Wire:
    """The wire with TLS on it; it is closed when that fails, with what ``shake`` raises."""
    try:
        await wire.shake(context, name)
    except BaseException:
        wire.close()
        raise
    return wire


async def reach(
    url: Url, connect_s: float, dial: Callable[[str, int], Awaitable[Wire]], context: Callable[[], ssl.SSLContext]
) -> Wire:
    """A connection to the first address of a URL's host that takes one, with TLS for https.

    ``connect_s`` is how long each address may take. Raises OSError, End and Refused.
    """
    found = (url.host,) if is_address(url.host) else (await getaddrinfo(url.host))[0]
    for ip in found:
        try:
            async with asyncio.timeout(connect_s):
                wire = await dial(ip, url.port)
                return await secured(wire, context(), url.host) if url.scheme == "https" else wire
        except OSError:
            if ip == found[-1]:
                raise
    raise Refused("dns_no_answer")


def strict_context() -> ssl.SSLContext:
    """TLS that takes only certificates of authorities which this machine trusts."""
    context = ssl.create_default_context()
    # From 3.13 on Python asks more of a chain than browsers do: a site that all others open would seem intercepted.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def need_authorities() -> None:
    """Raise StorageError when this machine trusts no certificate authority: every site would look intercepted."""
    paths = ssl.get_default_verify_paths()
    folder = paths.capath and os.path.isdir(paths.capath) and os.listdir(paths.capath)
    if not (paths.cafile and os.path.exists(paths.cafile)) and not folder:
        raise StorageError("this machine trusts no certificate authority: install the package ca-certificates")


async def receive(sock: socket.socket, size: int) -> bytes:
    """What comes next, b"" at the end of a stream; raises OSError."""
    # Others first: bytes that are there already are read without a pause, so whoever sends faster than they are looked
    # at would hold the whole program, and no time limit would end it.
    await asyncio.sleep(0)
    return await asyncio.get_running_loop().sock_recv(sock, size)


def open_socket(ip: str, kind: socket.SocketKind) -> socket.socket:
    """A socket of an address's kind, for a loop."""
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock
