"""A tap on the wire to a bridge, while that bridge is tested: how far each connection comes, and what stops it.

A carrier that is tested is given the tap's address in place of the bridge's. The tap looks the name up, connects, and
passes bytes on as they are, ends and resets too. So every transport is observed in the same way, those of child
processes as well, and nothing of it is needed for streams of people: their carrier goes to the bridge itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final

from outlast.address import Target
from outlast.rooms.reach.io.listener import Listener
from outlast.rooms.reach.io.names import look_up
from outlast.rooms.reach.io.outer import dial
from outlast.rooms.reach.proto.failures import Observed, Step, Stop

ADDRESSES_MAX: Final = 6
CONNECTIONS_MAX: Final = 64
STAGGER_S: Final = 0.25
READ_BYTES: Final = 16 * 1024
_SIOCOUTQ: Final = 0x5411
_RESET: Final = struct.pack("ii", 1, 0)


class Wire:
    """One connection through the tap."""

    def __init__(self, step: Step) -> None:
        """It begins with what is not known yet."""
        self.step = step
        self.stop: Stop | None = None  # None while it stands
        self.sent_bytes = 0
        self.received_bytes = 0
        self.first = b""  # the first bytes that came, at most 16
        self.far: socket.socket | None = None
        self.unacked_bytes: int | None = None
        self.acked_bytes = 0

    def look(self) -> bool:
        """Ask the kernel how much of what was sent is not acknowledged; whether more is than before."""
        if self.far is None:
            return False
        try:
            answer = fcntl.ioctl(self.far.fileno(), _SIOCOUTQ, bytes(4))
        except OSError:
            return False
        self.unacked_bytes = int.from_bytes(answer, sys.byteorder)
        before, self.acked_bytes = self.acked_bytes, self.sent_bytes - self.unacked_bytes
        return self.acked_bytes > before


class Tap:
    """The tap for one bridge; ``async with`` it, and connect to ``at``."""

    def __init__(self, bridge: Target, known: str = "") -> None:
        """``known`` is an address by which the bridge last worked: it is tried too when the name leads elsewhere."""
        self._bridge = bridge
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._nears: list[socket.socket] = []
        self._began_s = time.monotonic()
        self.wires: list[Wire] = []
        self.moved_s = self._began_s  # when something last came closer: a connection, a byte of the bridge's
        self.address = ""  # by which the bridge answered last; while it has not, what its name led to first
        self.new_address = False  # the name leads to others than the known one
        sock = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS_MAX)
        sock.setblocking(False)
        self.at = Target("127.0.0.1", sock.getsockname()[1])
        self._listener = Listener(self._loop, sock, self._took)

    async def __aenter__(self) -> Tap:
        """The tap, which listens already."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection."""
        self._listener.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for near in self._nears:  # of tasks that had not begun
            near.close()

    def observed(self, stop: Stop, *, looks_random: bool, speaks_http: bool, taken: bool) -> Observed | None:
        """What was seen of the connection that came farthest; ``stop`` is how it ended if it still stands.

        ``taken`` says that the bridge had taken a stream. None when nothing connected to the tap.
        """
        if not self.wires:
            return None
        order = list(Step)
        wire = max(self.wires, key=lambda wire: (order.index(wire.step), wire.received_bytes))
        if wire.stop is None:
            wire.look()
        step, sent, received = wire.step, wire.sent_bytes, wire.received_bytes
        if step is Step.HELLO and received:
            step = Step.STREAM if taken else Step.KEYS
        # Where bytes still came when the time was over, others went on after what ended this one.
        found = stop if stop is Stop.SLOW and received else wire.stop or stop
        if step is Step.KEYS and not looks_random and _is_portal(wire.first, speaks_http=speaks_http):
            step, found = Step.HELLO, Stop.PLAIN
        elapsed_ms = round((time.monotonic() - self._began_s) * 1000)
        return Observed(
            step, found, sent, received, wire.unacked_bytes, elapsed_ms, looks_random, new_address=self.new_address
        )

    def look(self) -> None:
        """Take note of what was acknowledged since the last time."""
        if any([wire.look() for wire in self.wires]):
            self._move()

    # ---- connections ----

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _took(self, near: socket.socket, _address: object) -> None:
        if len(self.wires) >= CONNECTIONS_MAX:
            near.close()
            return
        self._nears.append(near)
        self.wires.append(Wire(Step.NAME))
        self._start(self._join(near, self.wires[-1]))

    async def _join(self, near: socket.socket, wire: Wire) -> None:
        with ExitStack() as stack:
            stack.enter_context(near)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far = await self._connect(wire)
            if far is None:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return
            stack.enter_context(far)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.step, wire.far = Step.HELLO, far
            self._move()
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(near, far, wire, outward=True))
                    both.create_task(self._pass(far, near, wire, outward=False))
            except* OSError:
                for one in (near, far):
                    with suppress(OSError):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            finally:
                wire.look()
                wire.far = None

    async def _pass(self, source: socket.socket, sink: socket.socket, wire: Wire, *, outward: bool) -> None:
        buffer = bytearray(READ_BYTES)
        while True:
            try:
                size = await self._loop.sock_recv_into(source, buffer)
            except OSError:
                if not outward:
                    wire.look()
                    wire.stop = wire.stop or Stop.RESET
                raise
            if not size:
                break
            if outward:
                wire.sent_bytes += size
            else:
                wire.first = (wire.first + buffer[:16])[:16]
                wire.received_bytes += size
                self._move()
            try:
                await self._loop.sock_sendall(sink, memoryview(buffer)[:size])
            except OSError:
                if outward:
                    wire.stop = wire.stop or Stop.RESET
                raise
        if not outward:
            wire.look()
            wire.stop = wire.stop or Stop.CLOSED
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _connect(self, wire: Wire) -> socket.socket | None:
        """A connection to the bridge by whichever of its addresses answers first (RFC 8305); None, and why, if none."""
        try:
            addresses = await self._addresses()
        except OSError:
            wire.stop = Stop.NO_NAME
            return None
        wire.step = Step.CONNECT
        tries = [self._loop.create_task(self._dial(address, STAGGER_S * place)) for place, address in addresses]
        found: socket.socket | None = None
        try:
            for done in asyncio.as_completed(tries):
                try:
                    found = await done
                    break
                except (ConnectionRefusedError, ConnectionResetError):
                    wire.stop = Stop.REFUSED
                except OSError:
                    wire.stop = wire.stop or Stop.UNREACHABLE
        finally:
            for task in tries:
                task.cancel()
            for result in await asyncio.gather(*tries, return_exceptions=True):
                if isinstance(result, socket.socket) and result is not found:
                    result.close()
        if found is not None:
            wire.stop = None
            self.address = str(found.getpeername()[0])
            self.new_address = bool(self._known) and self.address != self._known
        return found

    async def _addresses(self) -> Iterator[tuple[int, str]]:
        host = self._bridge.host
        try:
            return enumerate([str(ip_address(host))])
        except ValueError:
            pass
        try:
            answer = await look_up(host)
        except OSError:
            if not self._known:
                raise
            answer = ()
        found = list(answer[: ADDRESSES_MAX - 1])
        self.address = self.address or next(iter(found), "")
        self.new_address = bool(self._known) and self._known not in found
        return enumerate(dict.fromkeys([*found, self._known] if self._known else found))

    async def _dial(self, address: str, after_s: float) -> socket.socket:
        if after_s:
            await asyncio.sleep(after_s)
        return await dial(self._loop, address, self._bridge.port)

    def _move(self) -> None:
        self.moved_s = time.monotonic()


def _is_portal(first: bytes, *, speaks_http: bool) -> bool:
    """Whether the first bytes (16 at most) that came are those of something on the way that wants one to sign in.

    A proxy speaks HTTP itself, but answers CONNECT neither with another place nor with 511 (RFC 6585 §6).
    """
    if speaks_http:
        return first[:7] == b"HTTP/1." and (first[9:10] == b"3" or first[9:12] == b"511")
    return first[:5] in (b"HTTP/", b"<html", b"<!DOC")
