"""Outers: established byte streams to a bridge, which the mux runs over; TCP is one, TLS of the web transport another.

Whoever owns an outer is called back by it, on the event loop and never from within ``write``, ``close`` or ``attach``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from outlast.errors import OutlastError

READ_BYTES: Final = 256 * 1024
# What was read last from any plain outer of this process; its owner is done with it when ``received`` returns.
_scratch = memoryview(bytearray(READ_BYTES))


class Owner(Protocol):
    """Who is told what becomes of an outer."""

    def received(self, data: memoryview) -> None:
        """Bytes came; the view is valid only during the call.

        Every call costs a walk through the mux, so an outer hands over in one call all that one read of its socket
        brought: TLS opens its records into one buffer, up to 64 KiB and more, and calls once.
        """
        ...

    def drained(self) -> None:
        """All that was written is with the kernel; called when ``unsent`` falls from something to nothing."""
        ...

    def ended(self, error: OutlastError | None) -> None:
        """The other side closed (None) or the connection broke; called once, nothing after it, not after ``close``."""
        ...


class Outer(Protocol):
    """An established byte stream to the other side of a bridge, authenticated as far as its transport does that."""

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        ...

    @property
    def sent_bytes(self) -> int:
        """All bytes that this connection put on the wire so far, those of its handshakes included."""
        ...

    @property
    def received_bytes(self) -> int:
        """All bytes that this connection took from the wire so far, those of its handshakes included."""
        ...

    def attach(self, owner: Owner) -> None:
        """Name the owner; only from now on bytes are read, and what came before it is handed over on the next turn."""
        ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take all of it; what the kernel does not take at once is copied before this returns.

        Nothing bounds what waits: a writer looks at ``unsent`` and stops until ``drained``. When the connection is
        broken or closed, the bytes are dropped, and ``ended`` says so or has said so.
        """
        ...

    def pause(self) -> None:
        """Read no more until ``resume``; what was already read may still be handed over."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    def close(self) -> None:
        """End the connection at once; what is unsent is dropped, and the owner hears nothing more. May be repeated."""
        ...


OpenOuter = Callable[[], Awaitable[Outer]]
"""Opens a new connection to the bridge; raises an OutlastError that says what class of failure it was."""


class TcpOuter:
    """An outer that is a TCP connection as it stands: for tests, and for transports whose child does the rest."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Take a connected socket, which becomes non-blocking and this outer's own."""
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._sock = sock
        self._owner: Owner | None = None
        self._tail = bytearray()
        self._reading = False
        self._closed = False
        self.sent_bytes = 0
        self.received_bytes = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait for the kernel."""
        return len(self._tail)

    def attach(self, owner: Owner) -> None:
        """Begin to read."""
        self._owner = owner
        self.resume()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, and copy what the kernel does not take."""
        if self._closed:
            return
        if self._tail:
            self._tail += data
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._loop.call_soon(self._end, broken(error))
            return
        self.sent_bytes += sent
        if sent < len(data):
            self._tail += memoryview(data)[sent:]
            self._loop.add_writer(self._sock, self._writable)

    def pause(self) -> None:
        """Stop the reader."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Start the reader."""
        if not self._reading and not self._closed:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def close(self) -> None:
        """Close the socket."""
        if self._closed:
            return
        self.pause()
        self._closed = True
        if self._tail:
            self._tail.clear()
            self._loop.remove_writer(self._sock)
        self._sock.close()

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(_scratch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(broken(error))
            return
        if not size:
            self._end(None)
            return
        self.received_bytes += size
        if self._owner is not None:
            self._owner.received(_scratch[:size])
        # uvloop calls once for data with a reset behind it, and never again: the data was read, look for it.
        if size == len(_scratch) or self._closed:
            return
        if fault := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(broken(OSError(fault, os.strerror(fault))))

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._tail)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(broken(error))
            return
        self.sent_bytes += sent
        del self._tail[:sent]
        if not self._tail:
            self._loop.remove_writer(self._sock)
            if self._owner is not None:
                self._owner.drained()

    def _end(self, error: OutlastError | None) -> None:
        if self._closed:
            return
        self.close()
        if self._owner is not None:
            self._owner.ended(error)


def broken(error: OSError) -> OutlastError:
    """What a socket's error means for whoever owns the connection; no address stands in it."""
    return OutlastError("the connection to the bridge broke (%(error)s)", error=error)


async def dial(loop: asyncio.AbstractEventLoop, address: str, port: int) -> socket.socket:
    """A TCP connection to an address, as a non-blocking socket; raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
