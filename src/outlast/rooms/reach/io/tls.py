"""TLS on a non-blocking socket by callbacks: both ends of the transport ``web``, and an outer of the mux.

OpenSSL works in memory here. One read of the socket goes through it into one buffer and to whoever listens in one
call; what is written becomes records that are sent in one call. Both buffers are shared by all connections of the
loop: nobody keeps a view of them after a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios
import weakref
from collections.abc import Callable
from typing import Final, Protocol

from outlast.address import Target
from outlast.rooms.reach.io.outer import Owner, broken

READ_BYTES: Final = 256 * 1024
SEND_BYTES: Final = 1024 * 1024
RECORD_BYTES: Final = 16_384
SLICE_BYTES: Final = 3 * RECORD_BYTES
"""So much is sealed and sent at a time; a quarter of a MiB at a time costs a tenth more of the processor."""
FIRST_MAX_BYTES: Final = 1 << 17
"""A ClientHello is no longer than this, by OpenSSL's own bound; what follows it before we answer is not kept."""
LONG_BYTES: Final = 8_192
"""A ClientHello that is longer is no web client's: theirs have 2 KB, with keys against quantum computers too."""

_HANDSHAKE: Final = 22  # RFC 8446 §5.1


class _Scratch:
    """What all connections of a loop share."""

    def __init__(self) -> None:
        self.raw = memoryview(bytearray(READ_BYTES))
        # What the raw bytes hold, with what was left of a record before them.
        self.plain = memoryview(bytearray(READ_BYTES + 4 * RECORD_BYTES))


_scratches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Scratch] = weakref.WeakKeyDictionary()


class Side(Protocol):
    """Who is told what becomes of a connection whose handshake is done."""

    def received(self, data: memoryview) -> None:
        """Bytes came; the view is valid only during the call."""
        ...

    def drained(self) -> None:
        """All that was written is with the kernel."""
        ...

    def finished(self) -> None:
        """The other side sends no more; it may still read."""
        ...

    def broke(self, error: OSError) -> None:
        """The connection broke and is closed."""
        ...


class Tls:
    """A connection; ``begin`` shakes hands, then ``listen`` or ``attach`` says who reads. It is an ``Outer``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Take a connected non-blocking socket, which becomes this connection's own."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop = loop
        self._sock = sock
        self._scratch = _scratches.get(loop) or _scratches.setdefault(loop, _Scratch())
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine: ssl.SSLObject | None = None
        self._side: Side | None = None
        self._shaken: Callable[[], None] | None = None
        self._unshaken: Callable[[OSError], None] | None = None
        self._rest = self._held = b""
        self._may_be_long: Callable[[], bool] | None = None
        self._tail = memoryview(b"")
        self._writing = self._reading = self._paused = False
        self._ending = self._ended = self._deaf = False
        self.closed = self.failed = False
        self.first: bytearray | None = bytearray()
        """All that came before anything was answered to it; None: something was, or too much came."""
        self.sent_bytes = 0
        self.received_bytes = 0

    # The handshake

    def begin(
        self,
        context: ssl.SSLContext,
        shaken: Callable[[], None],
        failed: Callable[[OSError], None],
        *,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
        may_be_long: Callable[[], bool] | None = None,
    ) -> None:
        """Shake hands: as a client with the server ``name``, else as a server.

        ``may_be_long`` is asked before much memory is spent for a ClientHello; if not, ``go_on`` lets it.

        Then one of the two is called, once. At a failure nothing was sent of what OpenSSL has to say to it, and the
        connection is open: ``abort`` and ``part`` end it.
        """
        self._shaken, self._unshaken = shaken, failed
        self._may_be_long = may_be_long
        self._engine = context.wrap_bio(
            self._incoming, self._outgoing, server_side=name is None, server_hostname=name, session=session
        )
        self._read_on()
        if name is not None:
            self._shake()
            self.first = bytearray()

    def go_on(self) -> None:
        """Read on in a ClientHello that might not be long."""
        held, self._held = self._held, b""
        if not self.closed:
            self._incoming.write(held)
            self._read_on()
            self._shake()

    @property
    def peer(self) -> Target | None:
        """The address of the other side; None: it has gone, or has none."""
        try:
            found = self._sock.getpeername()
        except OSError:
            return None
        return Target(*found[:2]) if isinstance(found, tuple) else None

    @property
    def engine(self) -> ssl.SSLObject:
        """What knows certificate, session and cipher."""
        assert self._engine is not None
        return self._engine

    def _shake(self) -> None:
        try:
            self.engine.do_handshake()
        except ssl.SSLWantReadError:
            self._answer()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._answer()
        shaken, self._shaken, self._unshaken = self._shaken, None, None
        if shaken is not None and not self.closed:
            shaken()
        if self._side is None:
            self._read_off()
        self._deliver()

    def _answer(self) -> None:
        if self._outgoing.pending:
            self.first = None
            self._flush()

    def _fail(self, error: OSError) -> None:
        failed, self._shaken, self._unshaken = self._unshaken, None, None
        self._read_off()
        self.failed = True
        if failed is not None and not self.closed:
            failed(error)

    def part(self) -> None:
        """Say what is still to be said of a handshake that failed, and close."""
        if not self.closed:
            self._flush()
            self.close()

    def take(self) -> tuple[socket.socket, bytes]:
        """The socket, unwatched, with all that came, while nothing was answered; this connection is over."""
        first = bytes(self.first or b"")
        self._read_off()
        self.closed = True
        return self._sock, first

    # Who reads

    def listen(self, side: Side) -> None:
        """Name who is told from now on."""
        self._side = side

    def leave(self, rest: bytes) -> None:
        """Nobody is told from now on, until an owner is; that one gets the rest first."""
        self._side, self._rest = None, rest
        self._read_off()

    def attach(self, owner: Owner) -> None:
        """Name the owner of this outer; what came before is handed over on the next turn."""
        self._side = _Owned(self, owner)
        self._loop.call_soon(self._hand_on)

    def _hand_on(self) -> None:
        rest, self._rest = self._rest, b""
        if rest and self._side is not None and not self.closed:
            self._side.received(memoryview(rest))
        self._deliver()
        if self._deaf and self._side is not None and not self.closed:
            self._side.finished()
        elif not self._paused:
            self.resume()

    def pause(self) -> None:
        """Read no more until ``resume``."""
        self._paused = True
        self._read_off()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)
        if not self._deaf:
            self._read_on()

    def _read_on(self) -> None:
        if not self._reading and not self.closed:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def _read_off(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        raw = self._scratch.raw
        if self.first is not None:
            raw = raw[:LONG_BYTES]
        try:
            size = self._sock.recv_into(raw)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break(error)
            return
        if not size:
            self._hear_end()
            return
        self.received_bytes += size
        if self.first is not None:
            self.first += raw[:size]
            if self._may_be_long is not None and _is_long(self.first):
                may_be_long, self._may_be_long = self._may_be_long, None
                if not may_be_long():
                    self._held = bytes(raw[:size])
                    self._read_off()
                    return
            if len(self.first) > FIRST_MAX_BYTES:
                self.first = None
        self._incoming.write(raw[:size])
        if self._shaken is not None:
            self._shake()
        else:
            self._deliver()
        # uvloop calls once for data with a reset behind it, and never again: the data was read, look for it.
        if size < len(raw) and not self.closed and (fault := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self._break(OSError(fault, os.strerror(fault)))

    def _deliver(self) -> None:
        """Open what is there and hand it over in one call; while nobody listens it stays where it is."""
        side, incoming = self._side, self._incoming
        if side is None or self.closed or self._shaken is not None:
            return
        read: Callable[[int, memoryview], int] = self.engine.read  # type: ignore[assignment]
        plain, at, ended, error = self._scratch.plain, 0, False, None
        try:
            while incoming.pending and not ended:
                size = read(RECORD_BYTES, plain[at:])
                ended = not size
                at += size
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as wrong:
            error = wrong
        if self._outgoing.pending:
            self._flush()
        if at:
            side.received(plain[:at])
        if error is not None:
            self._break(error)
        elif ended:
            self._hear_end()

    def _hear_end(self) -> None:
        """The other side sends no more: by TLS's close_notify, or by TCP alone."""
        if self._deaf or self.closed:
            return
        self._deaf = True
        self._read_off()
        if self._shaken is not None:
            self._fail(ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)))
        elif self._side is not None:
            self._side.finished()

    def _break(self, error: OSError) -> None:
        if self.closed:
            return
        if self._shaken is not None:
            self._fail(error)
            return
        if isinstance(error, ssl.SSLError):
            self.close()
        else:
            self.abort()
        if self._side is not None:
            self._side.broke(error)

    # Writing

    @property
    def unsent(self) -> int:
        """Bytes, sealed, that wait for the kernel."""
        return len(self._tail) + self._outgoing.pending

    @property
    def unacked_bytes(self) -> int | None:
        """Bytes that the other side's kernel has not acknowledged; None where this system does not say."""
        try:
            return int.from_bytes(fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Seal all of it, and send what the kernel takes."""
        if self.closed or self._ending:
            return
        view = memoryview(data)
        size = len(view)
        try:
            for at in range(0, size, SLICE_BYTES):
                self.engine.write(view[at : at + SLICE_BYTES])
                if not self._writing:
                    self._flush()
        except ssl.SSLError as error:
            self._loop.call_soon(self._break, error)

    def finish(self, *, notify: bool = True) -> None:
        """Send what is written, then TLS's close_notify, then TCP's end; what the other side sends is still read."""
        if self.closed or self._ending:
            return
        self._ending = True
        if notify:
            # It wants to read the other side's answer, which comes or does not.
            with contextlib.suppress(ssl.SSLError):
                self.engine.unwrap()
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        """Send what is sealed; the rest waits, here and in OpenSSL's memory."""
        while not self._writing and not self.closed:
            data = self._outgoing.read(SEND_BYTES)
            if not data:
                self._shut()
                return
            self._send(memoryview(data))

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._tail = memoryview(b"")
            self._loop.call_soon(self._break, error)
            self._outgoing.read()
            return
        self.sent_bytes += sent
        self._tail = data[sent:]
        if self._tail and not self._writing:
            self._writing = True
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        self._send(self._tail)
        if not self._tail:
            self._write_off()
            self._flush()
            if not self.unsent and self._side is not None and not self.closed:
                self._side.drained()

    def _write_off(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)

    def _shut(self) -> None:
        if self._ending and not self._ended:
            self._ended = True
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    # The end

    def close(self) -> None:
        """Close at once; what is unsent is dropped and nobody is told."""
        if self.closed:
            return
        self._read_off()
        self._write_off()
        self.closed = True
        self._tail = memoryview(b"")
        self._sock.close()

    def abort(self) -> None:
        """The same by a reset."""
        if not self.closed:
            reset(self._sock)
            self.close()


class _Owned:
    """The owner of an outer, as a side."""

    def __init__(self, tls: Tls, owner: Owner) -> None:
        self._tls = tls
        self._owner = owner
        self.received = owner.received
        self.drained = owner.drained

    def finished(self) -> None:
        self._tls.close()
        self._owner.ended(None)

    def broke(self, error: OSError) -> None:
        self._owner.ended(broken(error))


def _is_long(first: bytearray) -> bool:
    """Whether a ClientHello of which this came is longer than LONG_BYTES, or might be.

    OpenSSL makes room for a message once it knows its length (RFC 8446 §4), which the first record says, unless it is
    made to hide it.
    """
    if first[0] != _HANDSHAKE:
        return False
    hides = len(first) >= 5 and int.from_bytes(first[3:5], "big") < 4
    return hides or len(first) > LONG_BYTES or int.from_bytes(first[6:9], "big") > LONG_BYTES


def reset(sock: socket.socket) -> None:
    """Let the coming ``close`` of a TCP socket be a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
