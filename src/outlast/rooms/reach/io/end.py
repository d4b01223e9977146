"""One end of a mux session on sockets: the machine ``proto.session``, its outers on one side, sockets on the other.

Bytes move in callbacks. What is read from a local socket is read behind room for the frame's header, so that one buffer
is at once the frame, what is written to the outer, and what is retained until the other side has it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import pack
from typing import Final, Protocol

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.ready import watcher_of
from outlast.rooms.reach.proto.mux import (
    DATA_HEADER_BYTES,
    FRAME_MAX_BYTES,
    GREETING_MAX_BYTES,
    HEADER,
    PIECE_MAX_BYTES,
    MuxError,
)
from outlast.rooms.reach.proto.session import (
    ACK_DELAY_S,
    BLOCK_FRAMES,
    BLOCK_MAX_BYTES,
    Accepted,
    Arrived,
    Datagram,
    Ending,
    Event,
    Finished,
    LineOver,
    Opened,
    Over,
    Refused,
    Reset,
    Room,
    Session,
)

UNSENT_MAX_BYTES: Final = 256 * 1024  # on one outer; nothing more is read for it from local sockets
UNREAD_MAX_BYTES: Final = 1024 * 1024  # beyond twice what is retained: who reads has not so much waiting for them
_SMALL_BYTES: Final = 8 * 1024  # pieces up to this wait for others until the loop's turn is over
_SPARE_BLOCKS: Final = 64


class _Block:
    """A buffer of frames: room for headers, and between that where a socket's bytes go."""

    __slots__ = ("data", "parts", "view")

    def __init__(self) -> None:
        self.data = bytearray(BLOCK_FRAMES * FRAME_MAX_BYTES)
        self.view = memoryview(self.data)
        self.parts = self.parts_for(BLOCK_MAX_BYTES)

    def parts_for(self, size: int) -> list[memoryview]:
        """Where so many bytes go."""
        ends = range(0, BLOCK_FRAMES * FRAME_MAX_BYTES, FRAME_MAX_BYTES)
        parts = [self.view[at + DATA_HEADER_BYTES : at + FRAME_MAX_BYTES] for at in ends]
        return [part[: size - i * PIECE_MAX_BYTES] for i, part in enumerate(parts) if size > i * PIECE_MAX_BYTES]

    def fill(self, data: bytes) -> int:
        """Put bytes there as if they had been read."""
        for i, part in enumerate(self.parts_for(len(data))):
            part[:] = data[i * PIECE_MAX_BYTES : (i + 1) * PIECE_MAX_BYTES]
        return len(data)


# Blocks that hold nothing now, shared by all sessions of the process.
_spare: list[_Block] = []


class Keeper(Protocol):
    """Who decides for a session: where streams lead, and what becomes of outers."""

    def opened(self, stream: int, target: Target) -> None:
        """Server: take the stream to its target; then ``accept`` or ``refuse``."""
        ...

    def accepted(self, stream: int) -> None:
        """Client: the stream leads to its target; ``attach`` its socket."""
        ...

    def refused(self, stream: int, refusal: int) -> None:
        """Client: it does not."""
        ...

    def reset(self, stream: int) -> None:
        """A stream ended that has no socket yet."""
        ...

    def datagram(self, stream: int, target: Target, data: bytes) -> None:
        """A datagram came."""
        ...

    def line_over(self, outer: Outer, number: int, ending: Ending, moved_bytes: int) -> None:
        """An outer of the session is gone; it is closed."""
        ...

    def over(self, error: OutlastError | None) -> None:
        """The session is over; its outers and sockets are closed."""
        ...


class _Joint:
    """A stream and its local socket."""

    __slots__ = ("early", "ended", "finished", "much", "reading", "sock", "stream", "tail")

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.sock: socket.socket | None = None
        self.tail = bytearray()  # for the socket, which did not take it yet
        self.early = b""  # from the client, before its socket is read
        self.reading = False
        self.much = False  # its socket had more than one piece
        self.ended = False  # nothing more comes for the socket
        self.finished = False  # nothing more comes from it


class _Line:
    """The owner of one outer: passes on what it says."""

    def __init__(self, end: End, number: int, outer: Outer) -> None:
        self._end = end
        self.number = number
        self.outer = outer

    def received(self, data: memoryview) -> None:
        self._end.line_received(self.number, data)

    def drained(self) -> None:
        self._end.unblock()

    def ended(self, error: OutlastError | None) -> None:
        self._end.line_ended(self.number, error)


class End:
    """A session with its outers and sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session, keeper: Keeper) -> None:
        """Begin without outers."""
        self._loop = loop
        self._watcher = watcher_of(loop)
        self.session = session
        self._keeper = keeper
        self._lines: dict[int, _Line] = {}
        self._joints: dict[int, _Joint] = {}
        self._blocked: dict[int, _Joint] = {}
        self._lent: dict[int, _Block] = {}  # retained by the session
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slow = False
        self._closed = False

    @property
    def lines(self) -> dict[int, Outer]:
        """The outers that live."""
        return {number: line.outer for number, line in self._lines.items()}

    # --- outers

    def add_line(
        self,
        number: int,
        outer: Outer,
        rest: bytes,
        *,
        budget_bytes: int = 0,
        counts: tuple[tuple[int, int], ...] = (),
        rtt_s: float = 0.25,
        shapes: tuple[int, ...] = (),
    ) -> None:
        """Take a greeted outer, with what came on it after the greeting; the rest is as in ``Session.line_up``."""
        now = self._loop.time()
        line = self._lines[number] = _Line(self, number, outer)
        outer.attach(line)
        try:
            events = self.session.line_up(
                number, now, budget_bytes=budget_bytes, counts=counts, rtt_s=rtt_s, shapes=shapes
            )
        except MuxError as error:
            self._fail(error)
            return
        self._carry_out(events)
        if rest:
            self.line_received(number, memoryview(rest))
        self._flush_soon()
        self._arm()

    def retire(self, number: int) -> None:
        """Use an outer no more; it ends when all on it has arrived."""
        self.session.retire(number, self._loop.time())
        self._flush_soon()

    def lose(self, numbers: tuple[int, ...]) -> None:
        """Give up outers that the other side holds for lost."""
        for number in numbers:
            self._carry_out(self.session.line_lost(number, self._loop.time()))

    def line_received(self, number: int, data: memoryview) -> None:
        """Bytes came on an outer."""
        try:
            events = self.session.receive(number, data, self._loop.time())
        except MuxError as error:
            self._fail(error)
            return
        self._carry_out(events)
        freed = self.session.freed
        if freed:
            for piece in freed:
                block = self._lent.pop(id(piece.obj), None)
                if block is not None and len(_spare) < _SPARE_BLOCKS:
                    _spare.append(block)
            freed.clear()
        line = self._lines.get(number)
        if line is not None and line.outer.unsent > UNSENT_MAX_BYTES and self._is_unread():
            self._fail(MuxError("the other side of the mux asks, and reads no answer"))
            return
        if not self._flushing and self.session.dirty():
            self._flush_soon()
        if self._timer_slow:
            self._arm()

    def _is_unread(self) -> bool:
        """Whether more waits for the other side than what it is sent, which is retained: all that it asked for."""
        unsent = sum(line.outer.unsent for line in self._lines.values())
        return unsent > 2 * self.session.retained + UNREAD_MAX_BYTES

    def line_ended(self, number: int, error: OutlastError | None) -> None:
        """An outer broke."""
        self._carry_out(self.session.line_lost(number, self._loop.time()))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._watcher.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        session = self.session
        for number in session.dirty():
            out = session.take(number)
            line = self._lines.get(number)
            if line is None:
                continue
            if len(out) == 1:
                line.outer.write(out[0])
                continue
            small: list[bytes | memoryview] = []
            for piece in out:
                if len(piece) <= _SMALL_BYTES:
                    small.append(piece)
                    continue
                if small:
                    line.outer.write(b"".join(small))
                    small.clear()
                line.outer.write(piece)
            if small:
                line.outer.write(b"".join(small))
        self._carry_out(session.close_written())
        if self._timer_slow:
            self._arm()

    # --- what the machine says

    def _carry_out(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is Arrived:  # nearly all are
                stream, pieces = event
                joint = self._joints.get(stream)
                if joint is None:
                    self.session.consumed(stream, sum(map(len, pieces)), self._loop.time())
                else:
                    self._deliver(joint, pieces)
                continue
            match event:
                case Finished(stream):
                    joint = self._joints.get(stream)
                    if joint is not None:
                        joint.ended = True
                        self._end_writing(joint)
                case Opened(stream, target, early):
                    joint = self._joints[stream] = _Joint(stream)
                    joint.tail += early
                    self._keeper.opened(stream, target)
                case Accepted(stream):
                    if stream in self._joints:
                        self._keeper.accepted(stream)
                case Room(stream):
                    if not stream:
                        self.unblock()
                    elif stream in self._blocked:
                        self._readable(self._blocked.pop(stream))
                case Refused(stream, refusal):
                    self._drop(stream)
                    self._keeper.refused(stream, refusal)
                case Reset(stream):
                    joint = self._joints.get(stream)
                    waiting = joint is not None and joint.sock is None
                    self._drop(stream)
                    if waiting:
                        self._keeper.reset(stream)
                case Datagram(stream, target, payload):
                    self._keeper.datagram(stream, target, payload)
                case LineOver(number, ending, moved_bytes):
                    line = self._lines.pop(number, None)
                    if line is not None:
                        line.outer.close()
                        self._keeper.line_over(line.outer, number, ending, moved_bytes)
                case Over():
                    self._finish(None)
                    return

    def _fail(self, error: OutlastError) -> None:
        self._finish(error)

    def _finish(self, error: OutlastError | None) -> None:
        if not self._closed:
            self.close()
            self._keeper.over(error)

    def close(self) -> None:
        """End the session, its streams and its outers, at once."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.session.goodbye(self._loop.time())
        self._flush()
        for line in self._lines.values():
            line.outer.close()
        self._lines.clear()
        for stream in list(self._joints):
            self._drop(stream)
        self.session.leave()

    # --- streams

    def open(self, target: Target) -> int | None:
        """Client: open a stream; its number, or None when there are too many."""
        stream = self.session.open(target, b"", self._loop.time())
        if stream is not None:
            self._joints[stream] = _Joint(stream)
            self._flush_soon()
        return stream

    def refuse(self, stream: int, refusal: int) -> None:
        """Server: the stream leads nowhere."""
        self.session.refuse(stream, refusal, self._loop.time())
        self._drop(stream)
        self._flush_soon()

    def reset(self, stream: int) -> None:
        """End a stream on both sides."""
        self.session.reset(stream, self._loop.time())
        self._drop(stream)
        self._flush_soon()

    def accept(self, stream: int, sock: socket.socket) -> None:
        """Server: the stream leads to the other end of this socket (non-blocking)."""
        self.session.accept(stream, self._loop.time())
        self._flush_soon()
        self.attach(stream, sock)

    def attach(self, stream: int, sock: socket.socket, early: bytes = b"") -> None:
        """Join a stream and its socket (non-blocking), from which ``early`` was read before."""
        joint = self._joints.get(stream)
        if joint is None:
            _cut(sock)
            return
        joint.sock = sock
        joint.early = early
        if joint.tail:
            tail, joint.tail = joint.tail, bytearray()
            self._deliver(joint, [tail])
        if joint.ended:
            self._end_writing(joint)
        if early:
            self._readable(joint)
        elif joint.sock is not None:
            joint.reading = True
            self._watcher.add_reader(sock.fileno(), self._readable, joint)

    def datagram(self, stream: int, target: Target, data: bytes) -> None:
        """Send a datagram, or drop it."""
        line = self._lines.get(self.session.line_for_new)
        if line is not None and line.outer.unsent <= UNSENT_MAX_BYTES and self.session.datagram(stream, target, data):
            self._flush_soon()

    def unblock(self) -> None:
        """Read on from the sockets that had to wait, the longest-waiting first, until there is no room again."""
        for _ in range(len(self._blocked)):
            stream, joint = next(iter(self._blocked.items()))
            del self._blocked[stream]
            self._readable(joint)
            if stream in self._blocked and self._congested(stream):
                return

    def _congested(self, stream: int) -> bool:
        line = self._lines.get(self.session.line_of(stream))
        return line is None or line.outer.unsent > UNSENT_MAX_BYTES

    def _readable(self, joint: _Joint) -> None:
        sock = joint.sock
        if sock is None or joint.finished:
            return
        session = self.session
        stream = joint.stream
        now = self._loop.time()
        room = session.room(stream, now)
        line = self._lines.get(session.line_of(stream)) if room > 0 else None
        if line is None or line.outer.unsent > UNSENT_MAX_BYTES:
            if joint.reading:
                joint.reading = False
                self._watcher.remove_reader(sock.fileno())
            self._blocked[stream] = joint
            self._flush_soon()  # of what ``room`` may have said about an outer
            return
        block = _spare.pop() if _spare else _Block()
        if joint.early:
            early, joint.early = joint.early[:room], joint.early[room:]
            size = block.fill(early)
        else:
            try:
                if joint.much:
                    size = sock.recvmsg_into(block.parts if room == BLOCK_MAX_BYTES else block.parts_for(room))[0]
                else:
                    size = sock.recv_into(block.parts[0], room if room < PIECE_MAX_BYTES else 0)
            except (BlockingIOError, InterruptedError):
                size = -1
            except OSError:
                _spare.append(block)
                self.reset(stream)
                return
        if not joint.reading:
            joint.reading = True
            self._watcher.add_reader(sock.fileno(), self._readable, joint)
        if size <= 0:
            _spare.append(block)
            if size == 0:
                self._end_reading(joint)
        elif size <= PIECE_MAX_BYTES:
            joint.much = size == PIECE_MAX_BYTES
            session.send(stream, memoryview(block.data[: DATA_HEADER_BYTES + size]), size, now)
            _spare.append(block)
            if size <= _SMALL_BYTES:
                self._flush_soon()
            else:
                self._flush()
        else:
            self._lent[id(block.data)] = block
            number = session.send(stream, block.view, size, now)
            write = line.outer.write
            for piece in session.take(number):
                write(piece)

    def _end_reading(self, joint: _Joint) -> None:
        """The socket's other side sends no more."""
        sock = joint.sock
        joint.finished = True
        if sock is not None and joint.reading:
            joint.reading = False
            self._watcher.remove_reader(sock.fileno())
        self.session.finish(joint.stream, self._loop.time())
        self._flush_soon()
        self._end_writing(joint)

    def _deliver(self, joint: _Joint, pieces: Sequence[memoryview | bytes | bytearray]) -> None:
        sock = joint.sock
        if sock is None or joint.tail:
            for piece in pieces:
                joint.tail += piece
            return
        size = 0
        for piece in pieces:
            size += len(piece)
        try:
            sent = sock.send(pieces[0]) if len(pieces) == 1 else sock.sendmsg(pieces)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.session.consumed(joint.stream, size, self._loop.time())
            self.reset(joint.stream)
            return
        if sent:
            self.session.consumed(joint.stream, sent, self._loop.time())
        if sent < size:
            for piece in pieces:
                if sent < len(piece):
                    joint.tail += memoryview(piece)[sent:]
                sent = max(0, sent - len(piece))
            self._watcher.add_writer(sock.fileno(), self._writable, joint)

    def _writable(self, joint: _Joint) -> None:
        sock = joint.sock
        if sock is None:
            return
        try:
            sent = sock.send(joint.tail)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.reset(joint.stream)
            return
        del joint.tail[:sent]
        self.session.consumed(joint.stream, sent, self._loop.time())
        self._flush_soon()
        if not joint.tail:
            self._watcher.remove_writer(sock.fileno())
            self._end_writing(joint)

    def _end_writing(self, joint: _Joint) -> None:
        """When all has come and gone, say so to the socket; when both directions are over, close it."""
        sock = joint.sock
        if sock is None or joint.tail or not joint.ended:
            return
        if joint.finished:
            joint.sock = None
            self._joints.pop(joint.stream, None)
            self._watcher.forget(sock.fileno())
            sock.close()
            return
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    def _drop(self, stream: int) -> None:
        """Forget a stream; whoever holds the other end of its socket sees that it was cut."""
        joint = self._joints.pop(stream, None)
        self._blocked.pop(stream, None)
        if joint is None:
            return
        sock, joint.sock = joint.sock, None
        if joint.tail:
            self.session.consumed(stream, len(joint.tail), self._loop.time())
        if sock is None:
            return
        self._watcher.forget(sock.fileno())
        _cut(sock)

    # --- time

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wake_s = self.session.wake_s
        self._timer_slow = wake_s > ACK_DELAY_S
        self._timer = self._loop.call_later(wake_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._carry_out(self.session.tick(self._loop.time()))
        if not self._closed:
            self._flush()
            self._arm()


class Greeting:
    """Owns an outer until its first frame has come whole."""

    def __init__(
        self,
        outer: Outer,
        done: Callable[[bytes, bytes], None],
        failed: Callable[[OutlastError | None], None],
    ) -> None:
        """``done`` gets the frame's data and what came after it; ``failed`` why there is none."""
        self._outer = outer
        self._done: Callable[[bytes, bytes], None] | None = done
        self._failed = failed
        self._came = bytearray()
        outer.attach(self)

    def received(self, data: memoryview) -> None:
        """Gather the frame."""
        if self._done is None:
            return  # a greeting that was none: read on in silence
        self._came += data
        if len(self._came) < HEADER.size:
            return
        stream, kind, size = HEADER.unpack_from(self._came)
        if stream or kind not in (1, 2) or size > GREETING_MAX_BYTES:
            self._done = None
            self._failed(MuxError("what answers there is no bridge of Outlast, or something changes what it says"))
        elif len(self._came) >= HEADER.size + size:
            done, self._done = self._done, None
            came = bytes(self._came)
            done(came[HEADER.size : HEADER.size + size], came[HEADER.size + size :])

    def drained(self) -> None:
        """Nothing waits for that."""

    def ended(self, error: OutlastError | None) -> None:
        """The other side closed before it greeted."""
        self._done = None
        self._failed(error)


def _cut(sock: socket.socket) -> None:
    """Close a socket so that its other end sees an error, not an end."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    sock.close()
