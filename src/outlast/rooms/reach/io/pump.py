"""Joins two sockets: what comes out of one goes, turned by a codec, into the other, both ways.

A stream has no task. Its bytes go from the kernel into the loop's one pair of buffers, through the codec, and back to
the kernel; only what a socket does not take at once is copied, and while such a rest waits, nothing more is read from
the other side. So a stream holds at most one rest each way, whoever is slow, and soon a small one: after a rest little
is read at once, then more and more.

The end of one direction is passed on as the end of that direction (TCP's half-close), a reset as a reset. RFC 5382 §5
says how long a stream may be silent: two hours and four minutes, or four minutes once one direction has ended.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from outlast.errors import ProtocolError

READ_BYTES: Final = 1 << 18  # asked of the kernel at once, where all goes on at once too
SLOW_READ_BYTES: Final = 1 << 15  # where a rest had to wait
KEPT_BYTES: Final = 1 << 17  # what a codec may put before what it reads: the begin of a unit that is not yet whole
GROWTH_BYTES: Final = 1 << 14  # what codecs may add to one reading
ROUNDS: Final = 4  # full readings in a row, until others get their turn
SWEEP_S: Final = 30.0
OPEN_SWEEPS: Final = 248  # 2 h 4 min
HALF_CLOSED_SWEEPS: Final = 8  # 4 min
KEEPALIVE_S: Final = 300  # so long silent, the other machine is asked whether it is still there
_KEEPALIVE: Final[int] = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]
_RESET: Final = struct.pack("ii", 1, 0)  # linger no time at all: closing sends RST

Loop = asyncio.AbstractEventLoop
Meter = Callable[[int], float]
"""Is told how many bytes were read; returns for how many seconds nothing more is to be read from that side."""


class Codec(Protocol):
    """Turns what one side says into what the other is to hear; keeps no view of the buffers between two calls."""

    def room(self, into: memoryview) -> memoryview:
        """Return the part of ``into`` (READ_BYTES + KEPT_BYTES) for the kernel to write to, READ_BYTES at most."""
        ...

    def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview | bytes:
        """Return what is to be written, after ``size`` bytes came into the room; it may lie in ``into`` or ``out``.

        ``out`` has READ_BYTES + KEPT_BYTES + GROWTH_BYTES. A size of 0 asks for what need not wait for more. Raises
        ProtocolError for bytes that cannot be; the stream is then reset on both sides.
        """
        ...

    def end(self) -> bytes:
        """Return what is to be written at the end; raises ProtocolError where no end may be."""
        ...


class Plain:
    """The codec that changes nothing."""

    def room(self, into: memoryview) -> memoryview:
        """As much as is read at once."""
        return into[:READ_BYTES]

    def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview | bytes:
        """What came."""
        return into[:size]

    def end(self) -> bytes:
        """Nothing."""
        return b""


class _Yard:
    """What all streams of a loop share: the two buffers, and one timer that finds the silent ones."""

    def __init__(self, loop: Loop) -> None:
        self.into = memoryview(bytearray(READ_BYTES + KEPT_BYTES))
        self.out = memoryview(bytearray(READ_BYTES + KEPT_BYTES + GROWTH_BYTES))
        self.pumps: set[Pump] = set()
        self._loop = weakref.ref(loop)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, pump: Pump) -> None:
        self.pumps.add(pump)
        if self._timer is None and (loop := self._loop()):
            self._timer = loop.call_later(SWEEP_S, self.sweep)

    def sweep(self) -> None:
        self._timer = None
        for pump in tuple(self.pumps):
            pump.swept()
        if self.pumps and (loop := self._loop()):
            self._timer = loop.call_later(SWEEP_S, self.sweep)


_yards: weakref.WeakKeyDictionary[Loop, _Yard] = weakref.WeakKeyDictionary()


def yard_of(loop: Loop) -> _Yard:
    """Return what the streams of this loop share."""
    yard = _yards.get(loop)
    if yard is None:
        yard = _yards[loop] = _Yard(loop)
    return yard


class Pump:
    """Two joined sockets; both are closed by it, at the latest when it is.

    ``outward`` turns what ``near`` says for ``far``, ``inward`` what ``far`` says for ``near``. ``early`` is written to
    ``far`` first, as it is. ``done`` is called once, when both sockets are closed, with None after both sides ended in
    order, else with what was wrong; never from within the constructor. Both sockets are non-blocking and unwatched.
    """

    __slots__ = ("__weakref__", "_done", "_flows", "_loop", "_silent", "_sockets", "_yard", "moved", "released")

    def __init__(
        self,
        loop: Loop,
        near: socket.socket,
        far: socket.socket,
        outward: Codec,
        inward: Codec,
        early: bytes = b"",
        done: Callable[[Exception | None], None] | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._loop = loop
        self._sockets: tuple[socket.socket, ...] = (near, far)
        self._done = done
        self._yard = yard_of(loop)
        self._silent = 0
        self.moved = True
        self.released = False
        for one in (near, far):
            watch_over(one)
        self._flows = (
            _Flow(self, loop, self._yard, near, far, outward, meter),
            _Flow(self, loop, self._yard, far, near, inward, meter),
        )
        self._yard.add(self)
        if early:
            self._flows[0].wait(early)
        else:
            self._flows[0].resume()
        self._flows[1].resume()

    def nudge(self) -> None:
        """Write outward what the codec has and need not wait for more from near."""
        self._flows[0].nudge()

    def close(self) -> None:
        """End the stream at once: both sides see a reset."""
        self.stop(ConnectionAbortedError("the stream was ended"))

    def release(self) -> None:
        """End the stream, and keep near: it is open and the caller's again when ``done`` says that it took all."""
        if self._sockets and not self.released:
            self.released = True
            self._sockets = self._sockets[1:]
            self._flows[1].end()
            self._loop.call_soon(self.half_closed)

    def half_closed(self) -> None:
        """Take note that a direction ended; the stream has when both have."""
        if all(flow.ended and not flow.rest for flow in self._flows[1 if self.released else 0 :]):
            self.stop(None)

    def stop(self, wrong: Exception | None) -> None:
        """Close both sockets, with a reset unless nothing is wrong."""
        if not self._sockets:
            return
        for flow in self._flows:
            flow.leave()
        for one in self._sockets:
            if wrong is not None:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()
        self._sockets = ()
        self._yard.pumps.discard(self)
        if self._done:
            self._loop.call_soon(self._done, wrong)
            self._done = None

    def swept(self) -> None:
        """Count one more sweep, and end what was silent for too many."""
        self._silent = 0 if self.moved else self._silent + 1
        self.moved = False
        if self._silent >= (HALF_CLOSED_SWEEPS if any(flow.ended for flow in self._flows) else OPEN_SWEEPS):
            self.stop(TimeoutError("nothing was said for too long"))


class _Flow:
    """One direction of a pump."""

    __slots__ = (
        "_codec", "_from", "_gone", "_loop", "_meter", "_most", "_option", "_pause", "_pump", "_reading", "_recv_into",
        "_send", "_sink", "_to", "_writing", "_yard", "ended", "rest",
    )  # fmt: skip

    def __init__(
        self,
        pump: Pump,
        loop: Loop,
        yard: _Yard,
        source: socket.socket,
        sink: socket.socket,
        codec: Codec,
        meter: Meter | None,
    ) -> None:
        self._pump, self._loop, self._yard, self._codec, self._meter = pump, loop, yard, codec, meter
        self._from, self._to, self._sink = source.fileno(), sink.fileno(), sink
        self._recv_into, self._send, self._option = source.recv_into, sink.send, source.getsockopt
        self._reading = self._writing = self._gone = False
        self._pause: asyncio.TimerHandle | None = None
        self._most = SLOW_READ_BYTES
        self.ended = False
        self.rest: bytes | memoryview = b""

    def resume(self) -> None:
        """Read, if there is no reason to wait."""
        if not (self._reading or self.ended or self._gone or self.rest or self._pause):
            self._reading = True
            self._loop.add_reader(self._from, self._readable)

    def nudge(self) -> None:
        if not (self.ended or self._gone or self.rest):
            yard = self._yard
            try:
                out = self._codec.turn(yard.into, 0, yard.out)
            except ProtocolError as wrong:
                self._pump.stop(wrong)
                return
            if out:
                self._write(out)

    def wait(self, rest: bytes | memoryview) -> None:
        """Read nothing until the other side has taken ``rest``, which is the caller's to give."""
        self._halt()
        self.rest = rest
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._to, self._writable)

    def leave(self) -> None:
        """Watch nothing any more."""
        self._gone = True
        self._halt()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._to)
        if self._pause:
            self._pause.cancel()
            self._pause = None
        self.rest = b""

    def _halt(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._from)

    def _readable(self) -> None:
        pump, yard, codec = self._pump, self._yard, self._codec
        pump.moved = True
        into = yard.into
        for _ in range(ROUNDS):
            room = codec.room(into)
            if self._most < READ_BYTES:
                room = room[: self._most]
                self._most *= 2
            try:
                size = self._recv_into(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as wrong:
                pump.stop(wrong)
                return
            try:
                out = codec.turn(into, size, yard.out) if size else self._end()
            except ProtocolError as wrong:
                pump.stop(wrong)
                return
            if size and self._meter and (seconds := self._meter(size)) > 0:
                self._halt()
                self._pause = self._loop.call_later(seconds, self._unpause)
            if (out and not self._write(out)) or self.ended:
                break
            if size < len(room) or self._pause:
                # uvloop calls once for data with a reset behind it, and never again: the data was read, look for it.
                if fault := self._option(socket.SOL_SOCKET, socket.SO_ERROR):
                    pump.stop(OSError(fault, os.strerror(fault)))
                return
        if self.ended and not self.rest:
            self._finish()

    def _write(self, out: bytes | memoryview) -> bool:
        """Write; False when a rest has to wait, or when nothing can be written any more."""
        try:
            sent = self._send(out)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as wrong:
            self._pump.stop(wrong)
            return False
        if sent == len(out):
            return True
        self._most = SLOW_READ_BYTES
        self.wait(bytes(out[sent:]))
        return False

    def _writable(self) -> None:
        self._pump.moved = True
        try:
            sent = self._send(self.rest)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as wrong:
            self._pump.stop(wrong)
            return
        self.rest = memoryview(self.rest)[sent:]
        if self.rest:
            return
        self.rest = b""
        self._writing = False
        self._loop.remove_writer(self._to)
        if self.ended:
            self._finish()
        else:
            self.resume()

    def _unpause(self) -> None:
        self._pause = None
        self.resume()

    def end(self) -> None:
        """Read nothing more; what waits is still written."""
        self.ended = True
        self._halt()

    def _end(self) -> bytes:
        self.end()
        return self._codec.end()

    def _finish(self) -> None:
        if not self._gone and not self._pump.released:
            with suppress(OSError):  # the other side may have gone already; then its own direction says so
                self._sink.shutdown(socket.SHUT_WR)
        self._pump.half_closed()


def watch_over(one: socket.socket) -> None:
    """Send small writes at once, and let the kernel find out when the other machine is gone."""
    with suppress(OSError):  # a socket of another family has no such options
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.IPPROTO_TCP, _KEEPALIVE, KEEPALIVE_S)
