"""One end of a session of the mux, as a machine: streams that outlive the outer connections they run over.

What keeps bytes right whatever happens to outers:

- Every DATA frame says at which offset of its stream it begins. Who receives it takes what continues the stream, drops
  what it has, and holds what comes too early: cut, doubled and reordered outers change nothing.
- Frames that must arrive stay in the log of the outer they were sent on until the other side says how many bytes of it
  were received. When an outer is lost, what is left of its log is sent again on another one, as it stands.
- Numbers of streams and outers are never used twice, and every frame that is kept in a log may come twice.
- Until the other side has seen a stream's OPEN, the stream keeps to the outer of that OPEN.

Times are seconds of any clock that never goes back. What comes out of here for the caller to do is a list of events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from typing import Final, NamedTuple

from outlast.address import AddressError, Target
from outlast.address import decode as decode_address
from outlast.address import encode as encode_address
from outlast.rooms.reach.proto.mux import (
    COUNTS_MAX,
    DATA_HEADER,
    DATA_HEADER_BYTES,
    HEADER,
    HEADER_BYTES,
    NUMBER,
    PIECE_MAX_BYTES,
    MuxError,
    Type,
    count_frame,
    data_frame,
    frame,
    read_count,
    read_number,
)

STREAMS_MAX: Final = 4096
FIRST_ASSOCIATION: Final = 1 << 31  # numbers of streams are below; those of datagrams can be lost and leave no gap
FIRST_WINDOW_BYTES: Final = 256 * 1024
WINDOW_BYTES: Final = 4 * 1024 * 1024  # 300 ms at 50 Mbit/s are 1.9 MB
RETAINED_MAX_BYTES: Final = 8 * 1024 * 1024
TIGHT_BYTES: Final = 16 * 1024 * 1024  # received and not consumed; from here on windows shrink
UNDELIVERED_MAX_BYTES: Final = 64 * 1024 * 1024
UNDELIVERED_LEAST_BYTES: Final = 1024 * 1024  # so much of it is every session's, whatever others of the same stock have
HELD_MAX: Final = 4096  # pieces that came too early
KEPT_LEAST_BYTES: Final = 32  # so much counts a frame at least that the other side has not acknowledged
ACK_BYTES: Final = 3 * 1024 * 1024  # one stream's CREDIT comes sooner and takes the acknowledgement along
ACK_DELAY_S: Final = 0.05
FROZEN_MIN_S: Final = 1.5
QUIET_MIN_S: Final = 0.3
QUIET_MAX_S: Final = 20.0
IDLE_MAX_S: Final = 90.0
UNBOUNDED: Final = 1 << 62
BLOCK_FRAMES: Final = 4
# Headers included, and with what TLS adds to each 16 KiB, this fits into one read of 256 KiB at the other side.
BLOCK_MAX_BYTES: Final = BLOCK_FRAMES * PIECE_MAX_BYTES - 512
RESERVE_BYTES: Final = 160  # of an outer's budget: for the last acknowledgements and DONE

_DATA: Final = Type.DATA
_BLOCK_HEADERS_BYTES: Final = BLOCK_FRAMES * DATA_HEADER_BYTES
_NOT_KEPT: Final = frozenset({Type.ACK, Type.PING, Type.PONG, Type.PADDING, Type.DONE, Type.DATAGRAM})


class Opened(NamedTuple):
    """Server: a client wants a stream to a target; ``early`` are its first bytes."""

    stream: int
    target: Target
    early: bytes


class Accepted(NamedTuple):
    """Client: the stream leads to its target."""

    stream: int


class Refused(NamedTuple):
    """Client: it does not; a number of RFC 1928 §6."""

    stream: int
    refusal: int


class Arrived(NamedTuple):
    """The next bytes of a stream, in pieces; views are valid until the buffer they came in is used again."""

    stream: int
    pieces: list[memoryview | bytes]


class Finished(NamedTuple):
    """The other side sends no more on the stream; all it sent has arrived."""

    stream: int


class Reset(NamedTuple):
    """The stream is over."""

    stream: int


class Room(NamedTuple):
    """There is room again for what was held back: of one stream, or of any (0)."""

    stream: int


class Datagram(NamedTuple):
    """A datagram of an association."""

    stream: int
    target: Target
    data: bytes


class Ending(Enum):
    """Why an outer is over."""

    DONE = 1  # both sides were done with it
    FROZEN = 2
    CUT = 3


class LineOver(NamedTuple):
    """Close this outer; so much surely went over it, in the direction that had more."""

    number: int
    ending: Ending
    moved_bytes: int  # what is only with a kernel is not moved


class Over(NamedTuple):
    """The other side ended the session."""


Event = (
    Opened | Accepted | Refused | Arrived | Finished | Reset | Room | Datagram | LineOver | Over
)  # what the caller is to do


class Stock:
    """What was received and not consumed by all sessions that share room for it, such as all that one user has."""

    __slots__ = ("held_bytes", "max_bytes", "tight_bytes")

    def __init__(self, max_bytes: int = UNDELIVERED_MAX_BYTES) -> None:
        """Nothing yet. From a quarter of ``max_bytes`` on windows shrink; beyond all of it streams are reset."""
        self.max_bytes = max_bytes
        self.tight_bytes = max_bytes // 4
        self.held_bytes = 0


@dataclass(slots=True, eq=False)
class Line:
    """One outer connection of the session, as both directions see it."""

    number: int
    budget: int  # bytes that may still be sent on it
    usable: bool = True
    # What was sent: bytes so far, what the other side may not have, and since when it owes an answer.
    written: int = 0
    log: deque[tuple[int, bytes | memoryview]] = field(default_factory=deque)
    out: list[bytes | memoryview] = field(default_factory=list)
    flushed: int = 0
    acknowledged: int = 0
    waiting_since: float = 0.0
    done_sent: bool = False
    shapes: deque[int] = field(default_factory=deque)
    # What was received.
    received: int = 0
    told: int = 0
    owed_since: float | None = None
    heard_at: float = 0.0
    done_received: bool = False
    rtt_s: float = 0.25
    ping_sent_at: float | None = None
    quiet_s: float = QUIET_MIN_S
    # Where in a frame it stands: bytes of a header or a small frame, or of which DATA how much is left.
    part: bytearray = field(default_factory=bytearray)
    stream: int = 0
    offset: int = 0
    left: int = 0

    @property
    def patience_s(self) -> float:
        """How long it may owe an answer before it counts as frozen."""
        return max(FROZEN_MIN_S, 4 * self.rtt_s)


@dataclass(slots=True, eq=False)
class _Stream:
    number: int
    line: Line | None
    settled: bool  # whether the other side surely knows the stream
    # Outward.
    sent: int = 0
    limit: int = FIRST_WINDOW_BYTES
    finished: bool = False
    # Inward.
    received: int = 0
    consumed: int = 0
    granted: int = FIRST_WINDOW_BYTES
    final: int | None = None
    ended: bool = False
    held: list[tuple[int, bytes]] = field(default_factory=list)


class Session:
    """Streams over outer connections; every method takes what happened, and says by return what is to be done."""

    def __init__(
        self,
        *,
        client: bool,
        streams_max: int = STREAMS_MAX,
        retained_max_bytes: int = RETAINED_MAX_BYTES,
        stock: Stock | None = None,
    ) -> None:
        """Begin without outers and streams; the client opens streams, the server accepts them.

        Who gives a ``stock`` that others share calls ``leave`` at the end.
        """
        self._client = client
        self._streams_max = streams_max
        self.retained_max_bytes = retained_max_bytes
        self.lines: dict[int, Line] = {}
        self._lost: dict[int, Line] = {}  # until the other side has said how much it received of them
        self._past: dict[int, int] = {}  # of lost outers, how much was received
        self._streams: dict[int, _Stream] = {}
        self._backlog: deque[bytes | memoryview] = deque()
        self._retained = 0
        self._stock = stock or Stock()
        self._stocked = 0  # of the stock
        self._undelivered = 0
        self._undelivered_max = UNDELIVERED_MAX_BYTES
        self._held = 0
        self._next_stream = 1
        self._next_association = FIRST_ASSOCIATION
        self._opened_below = 1  # server: every number below has been opened
        self._opened_above: set[int] = set()
        self._dirty: set[int] = set()
        self._closing: set[int] = set()  # done with, when what ``take`` gives is written
        self.freed: list[memoryview] = []  # blocks given to ``send`` that are no longer needed; the caller empties it

    # --- outer connections

    def line_up(
        self,
        number: int,
        now: float,
        *,
        budget_bytes: int = 0,
        counts: tuple[tuple[int, int], ...] = (),
        rtt_s: float = 0.25,
        shapes: tuple[int, ...] = (),
    ) -> list[Event]:
        """Go on over a new outer, greeted on both sides; ``counts`` are those that the other side told of lost ones.

        ``budget_bytes`` is how much may be sent on it (0: no bound), ``shapes`` how many bytes its first records have
        at least.
        """
        events: list[Event] = []
        for lost, received in counts:
            self._count(lost, received, now, events)
            self._lose(lost, events, now, known=True)
        line = Line(number, budget_bytes or UNBOUNDED, heard_at=now, waiting_since=now, rtt_s=rtt_s)
        line.shapes.extend(shapes)
        self.lines[number] = line
        for lost, _ in reversed(counts):
            self._send_again(lost, now)
        for other in self._lost.values():
            self._ask(other, now)
        self._pump(now)
        events.append(Room(0))
        return events

    def line_lost(self, number: int, now: float) -> list[Event]:
        """Go on without an outer that ended."""
        events: list[Event] = []
        self._lose(number, events, now)
        return events

    def retire(self, number: int, now: float) -> None:
        """Send nothing new on an outer; when the other side does the same and has all, its end comes as LineOver."""
        line = self.lines.get(number)
        if line is not None:
            self._exhaust(line, now)

    def lost_counts(self) -> tuple[tuple[int, int], ...]:
        """What a greeting tells of lost outers: number, and how many bytes were received on it."""
        return tuple((line.number, line.received) for line in self._lost.values())[:COUNTS_MAX]

    def received_on(self, number: int) -> int:
        """How much was received on an outer, as far as that is still known."""
        line = self.lines.get(number)
        return line.received if line is not None else self._past.get(number, 0)

    def _lose(
        self, number: int, events: list[Event], now: float, ending: Ending = Ending.CUT, *, known: bool = False
    ) -> None:
        """An outer is over; unless the other side knows that, it is asked how much it received."""
        line = self.lines.pop(number, None)
        if line is None:
            return
        line.usable = False
        line.out.clear()
        self._dirty.discard(number)
        self._remember(line)
        done = line.done_sent and line.done_received
        events.append(LineOver(number, Ending.DONE if done else ending, max(line.received, line.acknowledged)))
        if not done or line.log:
            self._lost[number] = line
            if not known:
                self._ask(line, now)
        if len(self._lost) > COUNTS_MAX:
            self._send_again(next(iter(self._lost)), now)

    def _ask(self, lost: Line, now: float) -> None:
        on = self._line()
        if on is not None:
            self._append(on, count_frame(Type.LOST, lost.number, lost.received), now)

    def _remember(self, line: Line) -> None:
        self._past[line.number] = line.received
        if len(self._past) > 2 * COUNTS_MAX:
            del self._past[next(iter(self._past))]

    def _send_again(self, number: int, now: float) -> None:
        """Put what a lost outer still owes before everything that waits."""
        lost = self._lost.pop(number, None)
        if lost is None:
            return
        again = [piece for _, entry in lost.log for piece in self._frames(entry)]
        unknown = {HEADER.unpack_from(entry)[0] for entry in again if entry[4] == Type.OPEN}
        for stream in self._streams.values():
            if stream.line is lost:
                stream.line = None
                stream.settled = stream.settled or stream.number not in unknown
        self._backlog.extendleft(reversed(again))
        self._pump(now)

    def _frames(self, entry: bytes | memoryview) -> Iterator[bytes]:
        """The frames of an entry of a log; a block, which can have several, is copied and free."""
        if isinstance(entry, bytes):
            yield entry
            return
        at = 0
        while at < len(entry):
            end = at + HEADER_BYTES + int.from_bytes(entry[at + 5 : at + 7], "big")
            yield bytes(entry[at:end])
            at = end
        self.freed.append(entry)

    # --- streams: what the caller wants

    def open(self, target: Target, early: bytes, now: float) -> int | None:
        """Client: open a stream to a target; its number, or None when there are too many."""
        if len(self._streams) >= self._streams_max or self._next_stream >= FIRST_ASSOCIATION:
            return None
        number = self._next_stream
        self._next_stream += 1
        stream = self._streams[number] = _Stream(number, None, settled=False)
        early = early[:16384]
        stream.sent = len(early)
        self._emit(frame(number, Type.OPEN, encode_address(target) + early), now, stream)
        return number

    def associate(self) -> int | None:
        """Client: a number for an association of datagrams; None when there are too many."""
        if self._next_association >= 1 << 32:
            return None
        self._next_association += 1
        return self._next_association - 1

    def accept(self, number: int, now: float) -> None:
        """Server: the stream leads to its target."""
        stream = self._streams.get(number)
        if stream is not None:
            self._emit(frame(number, Type.ACCEPTED), now, stream)

    def refuse(self, number: int, refusal: int, now: float) -> None:
        """Server: it does not."""
        stream = self._forget(number)
        if stream is not None:
            self._emit(frame(number, Type.REFUSED, bytes((refusal,))), now, stream)

    def finish(self, number: int, now: float) -> None:
        """Send no more on the stream."""
        stream = self._streams.get(number)
        if stream is not None and not stream.finished:
            stream.finished = True
            self._emit(frame(number, Type.FINISH, NUMBER.pack(stream.sent)), now, stream)
            self._settle(stream)

    def reset(self, number: int, now: float) -> None:
        """End the stream in both directions."""
        stream = self._forget(number)
        if stream is not None:
            self._emit(frame(number, Type.RESET), now, stream)

    def consumed(self, number: int, size: int, now: float) -> None:
        """So many bytes that arrived have been passed on, or dropped after the stream's end: as many may follow."""
        self._undelivered -= size
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.consumed += size
        window = WINDOW_BYTES if stream.consumed >= FIRST_WINDOW_BYTES // 2 else FIRST_WINDOW_BYTES
        if self._undelivered > TIGHT_BYTES or self._stock.held_bytes > self._stock.tight_bytes:
            window = FIRST_WINDOW_BYTES // 4
        if not stream.ended and stream.final is None and stream.granted - stream.consumed < window // 2:
            stream.granted = stream.consumed + window
            self._emit(frame(number, Type.CREDIT, NUMBER.pack(stream.granted)), now, stream)
            for line in self.lines.values():
                if line.received - line.told >= ACK_BYTES // 3 and not line.done_sent:
                    self._acknowledge(line)  # in the same record

    def datagram(self, number: int, target: Target, data: bytes) -> bool:
        """Send a datagram if an outer can take it now; whether it was sent."""
        line = self._line()
        body = encode_address(target) + data
        if line is None or self._backlog or len(body) > PIECE_MAX_BYTES or not self._fits(line, len(body)):
            return False
        self._append(line, frame(number, Type.DATAGRAM, body), 0.0)
        return True

    def room(self, number: int, now: float) -> int:
        """How many bytes ``send`` takes now for a stream; 0 until an event Room says otherwise."""
        stream = self._streams.get(number)
        if stream is None or self._backlog or self._retained >= self.retained_max_bytes:
            return 0
        line = stream.line
        if line is None or (not line.usable and stream.settled):
            line = self._line()
        while line is not None and line.usable and line.budget <= RESERVE_BYTES + _BLOCK_HEADERS_BYTES:
            self._exhaust(line, now)
            if stream.settled:
                line = self._line()
        if line is None or not line.usable:
            return 0
        stream.line = line
        most = min(stream.limit - stream.sent, line.budget - RESERVE_BYTES - _BLOCK_HEADERS_BYTES)
        return most if most < BLOCK_MAX_BYTES else BLOCK_MAX_BYTES

    def send(self, number: int, block: memoryview, size: int, now: float) -> int:
        """Send a block with at most ``room`` bytes, and say on which outer ``take`` gives it to the caller.

        A block is one or several frames back to back: before each PIECE_MAX_BYTES of what is to be sent it has
        DATA_HEADER_BYTES of room, into which the headers are written. What was used of it is retained as it is: its
        buffer may not change until the block appears in ``freed``.
        """
        stream = self._streams[number]
        line = stream.line
        assert line is not None
        at = 0
        while size > 0:
            piece = size if size < PIECE_MAX_BYTES else PIECE_MAX_BYTES
            DATA_HEADER.pack_into(block, at, number, Type.DATA, piece + 8, stream.sent)
            stream.sent += piece
            size -= piece
            at += DATA_HEADER_BYTES + piece
        sent = block[:at]
        total = at
        line.written += total
        line.budget -= total
        if not line.log:
            line.waiting_since = now
        line.log.append((line.written, sent))
        line.out.append(sent)
        self._retained += total
        self._dirty.add(line.number)
        if line.budget <= RESERVE_BYTES + _BLOCK_HEADERS_BYTES:
            self._exhaust(line, now)
        return line.number

    def line_of(self, number: int) -> int:
        """The outer that a stream is sent on, as ``room`` chose it; 0 when there is none."""
        stream = self._streams.get(number)
        return stream.line.number if stream is not None and stream.line is not None else 0

    @property
    def line_for_new(self) -> int:
        """The outer that what belongs to no stream is sent on; 0 when there is none."""
        line = self._line()
        return line.number if line is not None else 0

    # --- what is to be written

    def dirty(self) -> list[int]:
        """Outers for which something is to be written."""
        return list(self._dirty) if self._dirty else []

    def take(self, number: int) -> list[bytes | memoryview]:
        """What is to be written on an outer now, in this order."""
        self._dirty.discard(number)
        line = self.lines.get(number)
        if line is None or not line.out:
            return []
        out, line.out = line.out, []
        if line.shapes:
            lacking = line.shapes.popleft() - sum(map(len, out)) - HEADER_BYTES
            if 0 <= lacking < min(PIECE_MAX_BYTES, line.budget - RESERVE_BYTES):
                padding = frame(0, Type.PADDING, bytes(lacking))
                line.written += len(padding)
                line.budget -= len(padding)
                out.append(padding)
        line.flushed = line.written
        return out

    def close_written(self) -> list[Event]:
        """Outers that both sides were done with: to be called when what ``take`` gave has been written."""
        events: list[Event] = []
        for number in list(self._closing):
            self._closing.discard(number)
            line = self.lines.get(number)
            if line is not None:
                self._close_if_done(line, events)
        return events

    def goodbye(self, now: float) -> None:
        """End the session on every outer; the caller writes what ``take`` gives and closes them."""
        for line in self.lines.values():
            self._append(line, frame(0, Type.GOODBYE), now)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def retained(self) -> int:
        """Bytes kept because the other side may not have them."""
        return self._retained

    @property
    def _kept(self) -> int:
        """How many frames or blocks are kept."""
        kept = len(self._backlog)
        for line in self.lines.values():
            kept += len(line.log)
        for line in self._lost.values():
            kept += len(line.log)
        return kept

    def _emit(self, entry: bytes, now: float, stream: _Stream | None = None) -> None:
        if not self._backlog:
            line = stream.line if stream is not None else None
            if line is None or (not line.usable and stream is not None and stream.settled):
                line = self._line()
            if line is not None and line.usable and line.budget - RESERVE_BYTES >= len(entry):
                self._append(line, entry, now)
                if stream is not None and stream.line is None:
                    stream.line = line
                return
        self._backlog.append(entry)
        self._retained += len(entry)
        self._pump(now)

    def _pump(self, now: float) -> None:
        """Move what waits to outers, in order."""
        backlog = self._backlog
        while backlog:
            entry = backlog[0]
            number, kind, _ = HEADER.unpack_from(entry)
            stream = self._streams.get(number)
            line = stream.line if stream is not None and not stream.settled and kind != Type.OPEN else None
            if line is None:
                line = self._line()
            if line is None or not line.usable:
                return
            backlog.popleft()
            self._retained -= len(entry)
            if not self._fits(line, len(entry) - HEADER_BYTES):
                spare = line.budget - RESERVE_BYTES - DATA_HEADER_BYTES
                if kind == Type.DATA and spare > 0:
                    *_, offset = DATA_HEADER.unpack_from(entry)
                    body = memoryview(entry)[DATA_HEADER_BYTES:]
                    backlog.appendleft(data_frame(number, offset + spare, body[spare:]))
                    self._retained += len(backlog[0])
                    entry = data_frame(number, offset, body[:spare])
                else:
                    backlog.appendleft(entry)
                    self._retained += len(entry)
                    self._exhaust(line, now)
                    continue
            self._append(line, entry, now)
            if stream is not None and kind == Type.OPEN:
                stream.line = line

    def _fits(self, line: Line, size: int) -> bool:
        return line.budget - RESERVE_BYTES >= HEADER_BYTES + size

    def _append(self, line: Line, entry: bytes | memoryview, now: float) -> None:
        size = len(entry)
        line.written = written = line.written + size
        line.budget -= size
        if entry[4] not in _NOT_KEPT:
            log = line.log
            if not log:
                line.waiting_since = now
            log.append((written, entry))
            self._retained += size
        line.out.append(entry)
        self._dirty.add(line.number)

    def _line(self) -> Line | None:
        """The outer for what is new: the oldest that still may be used."""
        for line in self.lines.values():
            if line.usable:
                return line
        return None

    def _exhaust(self, line: Line, now: float) -> None:
        line.usable = False
        if not line.done_sent:
            line.done_sent = True
            self._acknowledge(line)
            self._append(line, frame(0, Type.DONE), now)

    def _acknowledge(self, line: Line) -> None:
        """Tell how much was received on an outer: on itself, or on another one when its budget is spent."""
        line.told = line.received
        line.owed_since = None
        entry = count_frame(Type.ACK, line.number, line.received)
        on = line if not line.done_sent or line.budget >= 2 * len(entry) else self._line()
        if on is not None and on.budget >= len(entry):
            self._append(on, entry, 0.0)

    # --- what comes in

    def receive(self, number: int, data: memoryview, now: float) -> list[Event]:
        """Take bytes that came on an outer after its greeting; raises MuxError when they keep no rule."""
        line = self.lines.get(number)
        events: list[Event] = []
        if line is None:
            return events
        end = len(data)
        line.received += end
        line.heard_at = now
        if self._kept > self.retained_max_bytes // KEPT_LEAST_BYTES:
            raise MuxError("the other side of the mux acknowledges nothing")
        if line.received - line.told >= ACK_BYTES:
            self._acknowledge(line)
        if self._undelivered or self._stock.held_bytes:  # else one read is no more than any session may have
            self._take_stock()
        most = self._undelivered_max
        at = 0
        part = line.part
        if line.left and line.owed_since is None:
            line.owed_since = now
            line.quiet_s = QUIET_MIN_S
        streams = self._streams
        pieces: list[memoryview | bytes] | None = None  # of the last event, if that is what arrived of ``last``
        last = 0
        while at < end:
            left = line.left
            if left:
                size = left if left <= end - at else end - at
                number, offset = line.stream, line.offset
                line.offset = offset + size
                line.left = left - size
                stream = streams.get(number)
                if (
                    stream is None
                    or offset != stream.received
                    or stream.held
                    or stream.final is not None
                    or offset + size > stream.granted
                    or self._undelivered > most
                ):
                    self._data(number, offset, data[at : at + size], now, events)
                    pieces = None
                else:  # what continues the stream, as nearly all does
                    stream.received = offset + size
                    self._undelivered += size
                    if pieces is not None and number == last:
                        pieces.append(data[at : at + size])
                    else:
                        pieces, last = [data[at : at + size]], number
                        events.append(Arrived(number, pieces))
                at += size
            elif not part and end - at >= DATA_HEADER_BYTES and data[at + 4] == _DATA:
                line.stream, _, size, line.offset = DATA_HEADER.unpack_from(data, at)
                if size < 8:
                    raise MuxError("a frame of the mux is too short")
                line.left = size - 8
                at += DATA_HEADER_BYTES
                if line.owed_since is None:
                    line.owed_since = now
                    line.quiet_s = QUIET_MIN_S
            else:
                pieces = None
                if not part and end - at >= HEADER_BYTES:
                    number, kind, size = HEADER.unpack_from(data, at)
                    after = at + HEADER_BYTES + size
                    if kind != _DATA and after <= end:  # whole, as nearly all are
                        if line.owed_since is None and kind not in _NOT_KEPT:
                            line.owed_since = now
                        self._control(line, number, kind, bytes(data[at + HEADER_BYTES : after]), now, events)
                        at = after
                        continue
                at = self._gather(line, data, at, now, events)
        return events

    def _take_stock(self) -> None:
        """Count what is here in the stock, and see how much may be here: at every read, and now and then."""
        stock, undelivered = self._stock, self._undelivered
        stock.held_bytes += undelivered - self._stocked
        self._stocked = undelivered
        most = undelivered + stock.max_bytes - stock.held_bytes
        self._undelivered_max = min(UNDELIVERED_MAX_BYTES, max(UNDELIVERED_LEAST_BYTES, most))

    def leave(self) -> None:
        """The session is over: what it held of the stock is others'."""
        self._stock.held_bytes -= self._stocked
        self._stocked = 0

    def _gather(self, line: Line, data: memoryview, at: int, now: float, events: list[Event]) -> int:
        """Collect a header, or a small frame, over several reads; where it went on to."""
        part = line.part
        wanted = HEADER_BYTES
        if len(part) >= HEADER_BYTES:
            wanted = DATA_HEADER_BYTES if part[4] == Type.DATA else HEADER_BYTES + int.from_bytes(part[5:7], "big")
        take = min(wanted - len(part), len(data) - at)
        part += data[at : at + take]
        at += take
        if len(part) < HEADER_BYTES:
            return at
        number, kind, size = HEADER.unpack_from(part)
        if kind == Type.DATA:
            if size < 8:
                raise MuxError("a frame of the mux is too short")
            if len(part) == DATA_HEADER_BYTES:
                line.stream, _, _, line.offset = DATA_HEADER.unpack_from(part)
                line.left = size - 8
                part.clear()
                if line.owed_since is None:
                    line.owed_since = now
                    line.quiet_s = QUIET_MIN_S
        elif len(part) == HEADER_BYTES + size:
            body = bytes(part[HEADER_BYTES:])
            part.clear()
            if kind not in _NOT_KEPT and line.owed_since is None:
                line.owed_since = now
            self._control(line, number, kind, body, now, events)
        return at

    def _data(self, number: int, offset: int, data: memoryview, now: float, events: list[Event]) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            return
        have = stream.received
        end = offset + len(data)
        if end > stream.granted:
            raise MuxError("the other side of the mux sends more than it may")
        if stream.final is not None and end > stream.final:
            raise MuxError("the other side of the mux sends more after a stream's end")
        if end <= have:
            return
        if self._undelivered > self._undelivered_max or self._held > HELD_MAX:
            self.reset(number, now)
            events.append(Reset(number))
            return
        if offset > have:
            self._held += 1
            self._undelivered += len(data)
            heappush(stream.held, (offset, bytes(data)))
            return
        if offset < have:
            data = data[have - offset :]
        stream.received = end
        self._undelivered += end - have
        _arrived(number, data, events)
        if stream.held:
            self._release(stream, events)
        if stream.final == stream.received:
            self._finish_inward(stream, events)

    def _release(self, stream: _Stream, events: list[Event]) -> None:
        """Hand on what came too early and now continues the stream."""
        while stream.held and stream.held[0][0] <= stream.received:
            offset, data = heappop(stream.held)
            self._held -= 1
            fresh = data[stream.received - offset :]
            self._undelivered -= len(data) - len(fresh)
            if fresh:
                stream.received += len(fresh)
                _arrived(stream.number, fresh, events)

    def _finish_inward(self, stream: _Stream, events: list[Event]) -> None:
        stream.ended = True
        events.append(Finished(stream.number))
        self._settle(stream)

    def _control(self, line: Line, number: int, kind: int, body: bytes, now: float, events: list[Event]) -> None:
        match kind:
            case Type.FINISH:
                self._finished(number, read_number(body), events)
            case Type.OPEN if not self._client:
                self._opened(line, number, body, now, events)
            case Type.ACCEPTED if self._client:
                if number in self._streams:
                    self._settled(number, now, events)
                    events.append(Accepted(number))
            case Type.REFUSED if self._client:
                if len(body) != 1:
                    raise MuxError("a refusal of the mux has the wrong size")
                if self._forget(number) is not None:
                    events.append(Refused(number, body[0]))
            case Type.RESET:
                if not self._client:
                    self._first_seen(number)
                if self._forget(number) is not None:
                    events.append(Reset(number))
            case Type.CREDIT:
                limit = read_number(body)
                stream = self._streams.get(number)
                if stream is not None and limit > stream.limit:
                    stream.limit = limit
                    events.append(Room(number))
            case Type.ACK:
                other, received = read_count(body)
                self._count(other, received, now, events)
                if other in self._lost:
                    self._send_again(other, now)
                    events.append(Room(0))
            case Type.LOST:
                other, received = read_count(body)
                self._count(other, received, now, events)
                self._lose(other, events, now, known=True)
                self._append(line, count_frame(Type.ACK, other, self._past.get(other, 0)), now)
                self._send_again(other, now)
                events.append(Room(0))
            case Type.PADDING:
                pass
            case Type.PING:
                if len(body) > 64:
                    raise MuxError("a ping of the mux is too long")
                if self._fits(line, len(body)) and not line.done_sent:
                    self._append(line, frame(0, Type.PONG, body), now)
            case Type.PONG:
                if line.ping_sent_at is not None:
                    line.rtt_s += (now - line.ping_sent_at - line.rtt_s) / 4
                    line.ping_sent_at = None
            case Type.DONE:
                line.done_received = True
                self._exhaust(line, now)
                self._acknowledge(line)
                events.append(Room(0))
                self._close_if_done(line, events)
            case Type.DATAGRAM:
                try:
                    found = decode_address(body)
                except AddressError:
                    found = None
                if found is not None:
                    events.append(Datagram(number, found[0], body[found[1] :]))
            case Type.GOODBYE:
                events.append(Over())
            case _:
                raise MuxError("a frame of the mux stands where it may not")

    def _opened(self, line: Line, number: int, body: bytes, now: float, events: list[Event]) -> None:
        if not 0 < number < FIRST_ASSOCIATION:
            raise MuxError("a stream of the mux has a number that is none")
        if not self._first_seen(number):
            return
        try:
            found = decode_address(body)
        except AddressError:
            found = None
        if found is None or len(self._streams) >= self._streams_max or self._undelivered > self._undelivered_max:
            self._emit(frame(number, Type.REFUSED, b"\x01"), now)
            return
        target, at = found
        stream = self._streams[number] = _Stream(number, line, settled=True)
        stream.received = len(body) - at
        if stream.received > stream.granted:
            raise MuxError("the other side of the mux sends more than it may")
        self._undelivered += stream.received
        events.append(Opened(number, target, body[at:]))

    def _first_seen(self, number: int) -> bool:
        """Server: whether this stream was never heard of; numbers are taken in order, but outers mix them."""
        if number < self._opened_below or number in self._opened_above:
            return False
        self._opened_above.add(number)
        while self._opened_below in self._opened_above:
            self._opened_above.remove(self._opened_below)
            self._opened_below += 1
        if len(self._opened_above) > 16 * self._streams_max:
            raise MuxError("the other side of the mux leaves out numbers of streams")
        return True

    def _finished(self, number: int, final: int, events: list[Event]) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            return
        if final < stream.received or stream.final not in (None, final) or final > stream.granted:
            raise MuxError("a stream of the mux ends where it cannot")
        stream.final = final
        if final == stream.received:
            self._finish_inward(stream, events)

    def _settle(self, stream: _Stream) -> None:
        """Forget a stream that is over in both directions; its last frames are in the logs."""
        if stream.ended and stream.finished:
            self._forget(stream.number)

    def _forget(self, number: int) -> _Stream | None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            for _, data in stream.held:
                self._held -= 1
                self._undelivered -= len(data)
        return stream

    def _count(self, number: int, received: int, now: float, events: list[Event]) -> None:
        """The other side received so much on an outer."""
        line = self.lines.get(number) or self._lost.get(number)
        if line is None:
            return
        if received > line.flushed:
            raise MuxError("the other side of the mux acknowledges what was not sent")
        if received > line.acknowledged:
            line.acknowledged = received
            line.waiting_since = now
            log = line.log
            full = self._retained >= self.retained_max_bytes
            while log and log[0][0] <= received:
                entry = log.popleft()[1]
                self._retained -= len(entry)
                if isinstance(entry, memoryview):
                    self.freed.append(entry)
                elif entry[4] == Type.OPEN:
                    self._settled(HEADER.unpack_from(entry)[0], now, events)
            if full and self._retained < self.retained_max_bytes:
                events.append(Room(0))
        self._close_if_done(line, events)

    def _settled(self, number: int, now: float, events: list[Event]) -> None:
        """The other side knows the stream: it may use any outer."""
        stream = self._streams.get(number)
        if stream is not None and not stream.settled:
            stream.settled = True
            if self._backlog:
                self._pump(now)
                events.append(Room(0))
            elif stream.line is not None and not stream.line.usable:
                events.append(Room(number))

    def _close_if_done(self, line: Line, events: list[Event]) -> None:
        if line.done_sent and line.done_received and not line.log and line.number in self.lines and self._client:
            if line.out:
                self._closing.add(line.number)  # the other side waits for the acknowledgement that is in there
                return
            del self.lines[line.number]
            self._closing.discard(line.number)
            self._dirty.discard(line.number)
            self._remember(line)
            events.append(LineOver(line.number, Ending.DONE, max(line.received, line.acknowledged)))

    # --- time

    def tick(self, now: float) -> list[Event]:
        """What time alone brings: acknowledgements that are due, questions to quiet outers, frozen outers."""
        events: list[Event] = []
        self._take_stock()
        for line in list(self.lines.values()):
            if line.owed_since is not None and now - line.owed_since >= ACK_DELAY_S:
                if line.received > line.told:
                    self._acknowledge(line)
                line.owed_since = None
            self._watch(line, now, events)
        return events

    def _watch(self, line: Line, now: float, events: list[Event]) -> None:
        patience_s = line.patience_s if self._client else 2 * line.patience_s + 1
        silent_s = now - line.heard_at
        asked_s = now - line.ping_sent_at if line.ping_sent_at is not None else 0.0
        owing_s = now - line.waiting_since if line.log else 0.0
        if (
            min(silent_s, max(asked_s, owing_s)) > patience_s
            or owing_s > 2 * patience_s + 1
            or (line.done_sent and silent_s > 10)
            or (not self._client and silent_s > IDLE_MAX_S)
        ):
            self._lose(line.number, events, now, Ending.DONE if line.done_sent else Ending.FROZEN)
        elif (
            self._client
            and line.ping_sent_at is None
            and not line.done_sent
            and silent_s > max(line.quiet_s, line.rtt_s)
            and self._fits(line, 8)
        ):
            line.ping_sent_at = now
            line.quiet_s = min(QUIET_MAX_S, 2 * line.quiet_s) if self._streams else QUIET_MAX_S
            self._append(line, frame(0, Type.PING, NUMBER.pack(int(now * 1e6) & (1 << 63) - 1)), now)

    @property
    def wake_s(self) -> float:
        """In how many seconds ``tick`` is wanted again at the latest."""
        for line in self.lines.values():
            if line.owed_since is not None or line.log or line.ping_sent_at is not None:
                return ACK_DELAY_S
        return QUIET_MIN_S if self._streams and self._client else 1.0


def _arrived(stream: int, data: memoryview | bytes, events: list[Event]) -> None:
    last = events[-1] if events else None
    if type(last) is Arrived and last.stream == stream:
        last.pieces.append(data)
    else:
        events.append(Arrived(stream, [data]))
