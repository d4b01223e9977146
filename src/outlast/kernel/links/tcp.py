"""TCP links: ``connect`` and ``serve`` open channels over a stream."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from outlast.errors import ProtocolError, port_taken
from outlast.kernel.links.channel import Channel, answer, call
from outlast.kernel.links.link import Cost, Duplex, LinkError
from outlast.kernel.noise import Pattern

CONNECT_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 5.0
BITS_PER_S: Final = 10_000_000
"""What a network is taken to carry: how fast it is shows itself."""
BACKLOG_MAX_BYTES: Final = 8 * 1024 * 1024
"""What may wait to be written; above it ``send`` waits. It is more than two honest sessions ever owe
each other, so that two ends which both write before they read never wait for each other."""
UNSENT_MAX_BYTES: Final = 128 * 1024
"""What the operating system may hold of a link and has not sent yet."""
OPENING_MAX: Final = 64
"""Callers that may be in the middle of their handshake at a time."""

_READ_BYTES: Final = 256 * 1024
_NOTSENT_LOWAT: Final = 25  # Linux's TCP_NOTSENT_LOWAT; Python 3.11 has no name for it
_Closed = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)


class TcpLink:
    """A TCP connection, as a ``Link``."""

    mtu: Final = 1 << 20
    duplex: Final = Duplex.FULL

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        kind: str = "tcp",
        address: str = "",
        bits_per_s: int = BITS_PER_S,
        cost: Cost = Cost.FREE,
        first: bytes = b"",
    ) -> None:
        """Take over an open stream; ``first`` was read from it already.

        A room whose links are streams says of what kind they are and where the other end is (empty: where the
        connection leads).
        """
        self.kind = kind
        self.address = address or _address(writer)
        self.bits_per_s = bits_per_s
        self.cost = cost
        self._first = first
        self._reader = reader
        self._writer = writer
        if sys.platform == "linux":
            # What the system has queued cannot be overtaken any more.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_MAX_BYTES)

    async def send(self, data: bytes) -> None:
        """Take up to 1 MiB; waits while more than 8 MiB are still to be written."""
        if self._writer.is_closing():
            raise LinkError("the link to %(address)s is closed", address=self.address)
        self._writer.write(data)
        await self._wait(BACKLOG_MAX_BYTES, BACKLOG_MAX_BYTES - _READ_BYTES)

    async def drained(self) -> None:
        """Wait until nothing waits to be written here; the system then holds at most 128 KiB that it has not sent."""
        await self._wait(0, 0)

    async def _wait(self, high: int, low: int) -> None:
        """Wait while there is more than ``high`` to be written, and then until no more than ``low`` is."""
        transport = self._writer.transport
        try:
            while transport.get_write_buffer_size() > high:
                transport.set_write_buffer_limits(high, low)
                await self._writer.drain()
        except _Closed:
            raise LinkError("the link to %(address)s broke", address=self.address) from None

    async def receive(self) -> bytes:
        """What has arrived, at most 256 KiB."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await self._reader.read(_READ_BYTES)
        except _Closed:
            return b""

    async def close(self) -> None:
        """Close the connection, once what was sent is out or 5 s have passed."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except _Closed:
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Close it at once; what was sent may be lost."""
        # A transport that was closed with a backlog has no loop any more, and cannot be aborted then.
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()


class Listener:
    """A listening socket; ``host`` is the one that was asked for, ``port`` the one it got."""

    def __init__(self, host: str, server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> None:
        """Made by ``serve``."""
        self.host = host
        self.port: int = server.sockets[0].getsockname()[1]
        self._server = server
        self._tasks = tasks

    async def close(self) -> None:
        """Take no more calls, and end the links that were opened by calls."""
        self._server.close()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def connect(
    host: str,
    port: int,
    *,
    static: bytes | None = None,
    remote: bytes | None = None,
    psk: bytes | None = None,
) -> Channel:
    """Call a node and open a channel.

    ``static`` is this node's private transport key (32 B). With ``remote``, the public one of the
    node to reach, the link is XK; with ``psk``, the 32-byte secret of a pairing code, XXpsk0; with
    neither it is a stranger's (XX) with throwaway keys, and ``static`` is not used.

    Raises LinkError with one line for a person when the node cannot be reached, and HandshakeError
    when it is not the one that was meant.
    """
    where = _where(host, port)
    pattern = Pattern.XK if remote is not None else Pattern.XXPSK0 if psk else Pattern.XX
    if pattern is Pattern.XX:
        static = os.urandom(32)
    elif static is None:
        raise ValueError("a link to a node that is known needs the own transport key")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, limit=_READ_BYTES)
    except TimeoutError:
        raise LinkError("%(where)s does not answer: check address and network", where=where) from None
    except socket.gaierror:
        raise LinkError("%(host)s is no address that can be found: check its spelling", host=host) from None
    except ConnectionRefusedError:
        raise LinkError("nothing listens at %(where)s: is the other node up?", where=where) from None
    except OSError as error:
        raise LinkError("%(where)s cannot be reached: %(error)s", where=where, error=error) from None
    return await call(TcpLink(reader, writer), pattern, static=static, remote=remote, psk=psk)


async def serve(
    host: str,
    port: int,
    *,
    static: bytes,
    on_channel: Callable[[Channel], Awaitable[None]],
    pairing: Callable[[], bytes | None] = lambda: None,
    strangers: Callable[[], bool] = lambda: False,
) -> Listener:
    """Take calls at ``host`` and ``port`` (0: any free one) and run ``on_channel`` for each link.

    ``static`` is this node's private transport key (32 B). ``pairing`` returns the secret of the
    pairing code shown now, if any. Calls of strangers (XX) are taken only while ``strangers`` says so.
    The link is closed when ``on_channel`` returns. A caller that breaks the rules is dropped in silence,
    and so is the slowest when there are too many.

    Raises StorageError when the port is taken, LinkError when it cannot be had for another reason.
    """
    opening: dict[TcpLink, None] = {}

    async def called(link: TcpLink) -> None:
        if len(opening) >= OPENING_MAX:
            # The one that has dawdled longest makes room: idle callers cannot keep others out.
            slowest = next(iter(opening))
            del opening[slowest]
            slowest.abort()
        opening[link] = None
        try:
            channel = await answer(link, static=static, pairing=pairing, strangers=strangers())
        except (ProtocolError, LinkError):
            return
        finally:
            opening.pop(link, None)
        try:
            await on_channel(channel)
        finally:
            await channel.close()

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(called(TcpLink(reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        server = await asyncio.start_server(begin, host, port, limit=_READ_BYTES)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(_where(host, port)) from None
        raise LinkError("cannot listen at %(where)s: %(error)s", where=_where(host, port), error=error) from None
    return Listener(host, server, tasks)


def _address(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return _where(name[0], name[1]) if isinstance(name, tuple) else "the other node"


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
