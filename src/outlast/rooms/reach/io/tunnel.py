"""The client's end of the mux: a carrier whose streams share few outer connections and outlive each of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.end import End, Greeting
from outlast.rooms.reach.io.outer import OpenOuter, Outer
from outlast.rooms.reach.proto.mux import (
    NONCE_BYTES,
    SESSION_BYTES,
    Hello,
    Status,
    Welcome,
    read_welcome,
    write_hello,
)
from outlast.rooms.reach.proto.outers import Open, Outers, Retire
from outlast.rooms.reach.proto.session import Ending, Session

WAYS_MAX: Final = 16
OPEN_TIMEOUT_S: Final = 20.0  # of a stream, while there is no outer
GREET_TIMEOUT_S: Final = 10.0
NO_ROOM: Final = Refusal.NETWORK_UNREACHABLE
"""What is refused for want of room here says nothing about the bridge."""
TIME_MAX_S: Final = 1 << 40
"""No bridge's clock is believed beyond that: what is reckoned from it has to fit a greeting."""
ALONE_MAX_S: Final = 120.0  # without any outer; then the server has forgotten the session

_chance = SystemRandom()


@dataclass(slots=True)
class _Waiting:
    client: Client
    until: float


class Tunnel:
    """A carrier over one bridge. Streams of different isolation are in sessions of their own."""

    def __init__(
        self,
        open_outer: OpenOuter,
        secret: bytes,
        *,
        changed: Callable[[bool, OutlastError | None], None] = lambda up, error: None,
        hop_bytes: int = 0,
    ) -> None:
        """``secret`` has 32 B; ``changed`` hears whether there is an outer, and else why the last attempt failed.

        ``hop_bytes`` is what another tunnel to the bridge found out.
        """
        self._loop = asyncio.get_running_loop()
        self._open_outer = open_outer
        self._secret = secret
        self._changed = changed
        self._ways: dict[bytes, _Way] = {}
        self._clock_off_s = 0
        self._hop_bytes = hop_bytes
        self._closed = False

    def carry(self, client: Client) -> None:
        """Take the client to its target; it hears that the way is open when the target has answered, not before."""
        way = self._way(client.isolation)
        if way is None:
            client.refuse(Refusal.LOST if self._closed else NO_ROOM)
        else:
            way.carry(client)

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Open a way for datagrams through the mux."""
        way = self._way(isolation)
        return way.associate(deliver) if way is not None else None

    def warm(self) -> None:
        """Open an outer although there is no stream yet."""
        way = self._way(b"")
        if way is not None:
            way.plan()

    @property
    def frozen_at_bytes(self) -> int | None:
        """After how many bytes an outer froze last, if one did."""
        found = [way.outers.frozen_at_bytes for way in self._ways.values() if way.outers.frozen_at_bytes is not None]
        return min(found, default=None)

    @property
    def hop_bytes(self) -> int:
        """How much one outer is given at most, for what froze before; 0: nothing did, or it no longer does."""
        if self._ways:
            self._hop_bytes = max(way.outers.hop_bytes for way in self._ways.values())
        return self._hop_bytes

    def close(self) -> None:
        """End all sessions."""
        self._closed = True
        for way in list(self._ways.values()):
            way.close()
        self._ways.clear()

    def _way(self, isolation: bytes) -> _Way | None:
        if self._closed:
            return None
        way = self._ways.get(isolation)
        if way is None:
            if len(self._ways) >= WAYS_MAX:
                idle = next((key for key, way in self._ways.items() if not way.busy), None)
                if idle is None:
                    return None
                self._ways.pop(idle).close()
            way = self._ways[isolation] = _Way(self._loop, self, isolation)
        return way

    # --- for its ways

    async def open(self, hello: Callable[[int, Outer], Hello]) -> tuple[Outer, Welcome, bytes, float]:
        """Open and greet an outer: what was answered, what came after that, and how long the answer took."""
        outer = await self._open_outer()
        try:
            return await self._greet(outer, hello)
        except BaseException:
            outer.close()
            raise

    async def _greet(self, outer: Outer, hello: Callable[[int, Outer], Hello]) -> tuple[Outer, Welcome, bytes, float]:
        answer: asyncio.Future[tuple[bytes, bytes]] = self._loop.create_future()

        def done(data: bytes, rest: bytes) -> None:
            if not answer.done():
                outer.pause()
                answer.set_result((data, rest))

        def failed(error: OutlastError | None) -> None:
            if not answer.done():
                answer.set_exception(error or OutlastError("the bridge closed the connection before it answered"))

        begun = self._loop.time()
        greeting = hello(int(time.time()) + self._clock_off_s, outer)
        data = write_hello(greeting, self._secret, _chance.randrange(100, 500))
        Greeting(outer, done, failed)
        outer.write(data)
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                body, rest = await answer
        except TimeoutError:
            raise OutlastError("the bridge does not answer; try another one") from None
        welcome = read_welcome(body, self._secret, data[-32:])
        if welcome.status is Status.CLOCK:
            self._clock_off_s = min(welcome.time_s, TIME_MAX_S) - int(time.time())
        return outer, welcome, rest, self._loop.time() - begun

    def told(self, up: bool, error: OutlastError | None) -> None:
        """A way has an outer, or could not open one."""
        self._changed(up, error)

    def forget(self, isolation: bytes) -> None:
        """A way is over."""
        self._ways.pop(isolation, None)


class _Way:
    """One session with its clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tunnel: Tunnel, isolation: bytes) -> None:
        self._loop = loop
        self._tunnel = tunnel
        self._isolation = isolation
        self.outers = Outers(_chance.random, loop.time(), tunnel.hop_bytes)
        self._waiting: dict[int, _Waiting] = {}
        self._associations: dict[int, Callable[[Target, bytes], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._id = secrets.token_bytes(SESSION_BYTES)
        self._established = False
        self._opening_first = False
        self._alone_since = self._loop.time()
        self._end = End(self._loop, Session(client=True), self)

    @property
    def busy(self) -> bool:
        """Whether anybody uses it."""
        return bool(self._end.session.streams or self._associations)

    def carry(self, client: Client) -> None:
        """Open a stream for the client."""
        stream = self._end.open(client.target)
        if stream is None:
            client.refuse(NO_ROOM)
            return
        self._waiting[stream] = _Waiting(client, self._loop.time() + OPEN_TIMEOUT_S)
        if not self._end.session.lines or self._timer is None:
            self.plan()

    def associate(self, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Begin an association."""
        number = self._end.session.associate()
        while number in self._associations:  # since before the session began anew, which counts from the first again
            number = self._end.session.associate()
        if number is None:
            return None
        self._associations[number] = deliver
        self.plan()
        return _Association(self, number)

    def send_datagram(self, number: int, target: Target, data: bytes) -> None:
        """Pass a datagram on."""
        if number in self._associations:
            self._end.datagram(number, target, data)

    def end_association(self, number: int) -> None:
        """Deliver nothing more."""
        self._associations.pop(number, None)

    def close(self) -> None:
        """End the session."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._end.close()
        self._lose_all()

    def plan(self) -> None:
        """Open and retire outers as the policy says, and look whether somebody waits too long."""
        if self._closed:
            return
        now = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        lines = self._end.lines
        usable = {
            number: max(lines[number].received_bytes, line.acknowledged)
            for number, line in self._end.session.lines.items()
            if line.usable and number in lines
        }
        users = self._end.session.streams + len(self._associations)
        for command in self.outers.plan(now, users, usable):
            match command:
                case Open(number, budget_bytes):
                    task = self._loop.create_task(self._open(number, budget_bytes))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                case Retire(number):
                    self._end.retire(number)
        for stream in [stream for stream, waiting in self._waiting.items() if waiting.until < now]:
            self._waiting.pop(stream).client.refuse(Refusal.LOST)
            self._end.reset(stream)
        if lines:
            self._alone_since = now
        elif self._established and now - self._alone_since > ALONE_MAX_S:
            self._start_anew()
        self._timer = self._loop.call_at(self.outers.wake_at(now), self.plan)

    async def _open(self, number: int, budget_bytes: int) -> None:
        end = self._end
        new = not self._established
        told: tuple[tuple[int, int], ...] = ()
        server_budget = own_budget = 0
        if new and self._opening_first:
            # Only one may begin a session.
            self.outers.failed(number, self._loop.time())
            return
        self._opening_first = new

        def hello(time_s: int, outer: Outer) -> Hello:
            nonlocal told, server_budget, own_budget
            told = end.session.lost_counts()
            if budget_bytes:
                server_budget = max(1024, budget_bytes - outer.received_bytes - 256)
                own_budget = max(1024, budget_bytes - outer.sent_bytes - 512)
            nonce = secrets.token_bytes(NONCE_BYTES)
            return Hello(self._id, new, number, nonce, time_s, server_budget, told)

        try:
            outer, welcome, rest, took_s = await self._tunnel.open(hello)
        except OutlastError as error:
            self._failed(number, error)
            return
        except OSError:
            self._failed(number, OutlastError("the bridge cannot be reached; try another one"))
            return
        finally:
            if new:
                self._opening_first = False
        if self._closed or end is not self._end:
            outer.close()
            return
        match welcome.status:
            case Status.NEW | Status.RESUMED:
                self._established = True
                self.outers.up(number)
                shapes = () if budget_bytes else tuple(_chance.randrange(300, 1200) for _ in range(4))
                listed = {lost for lost, _ in welcome.counts}
                counts = welcome.counts + tuple((lost, 0) for lost, _ in told if lost not in listed)
                end.add_line(number, outer, rest, budget_bytes=own_budget, counts=counts, rtt_s=took_s, shapes=shapes)
                outer.resume()
                self._tunnel.told(True, None)
                self.plan()
            case Status.GONE:
                outer.close()
                self.outers.over(number, self._loop.time(), 0, 0, Ending.DONE)
                self._start_anew()
                self.plan()
            case Status.CLOCK | Status.BUSY:
                outer.close()
                self._failed(number, OutlastError("the bridge is busy; try again later"))

    def _failed(self, number: int, error: OutlastError) -> None:
        self.outers.failed(number, self._loop.time())
        if not self._end.lines:
            self._tunnel.told(False, error)
        self.plan()

    def _start_anew(self) -> None:
        """The server has no such session any more: its streams are over, and who still waits is asked for again."""
        end, waiting = self._end, self._waiting
        self._begin()
        end.close()
        self._waiting = {}
        for one in waiting.values():
            stream = self._end.open(one.client.target)
            if stream is None or self._closed:
                one.client.refuse(Refusal.LOST)
            else:
                self._waiting[stream] = one

    def _lose_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.client.refuse(Refusal.LOST)

    # --- what the session says

    def opened(self, stream: int, target: Target) -> None:
        """Never at the client's end."""

    def accepted(self, stream: int) -> None:
        """The stream leads to its target."""
        waiting = self._waiting.pop(stream, None)
        if waiting is not None:  # if the client has hung up, its socket says so
            self._end.attach(stream, *waiting.client.take())

    def refused(self, stream: int, refusal: int) -> None:
        """It does not."""
        waiting = self._waiting.pop(stream, None)
        if waiting is not None:
            with suppress(ValueError):
                waiting.client.refuse(Refusal(refusal))
                return
            waiting.client.refuse(Refusal.FAILED)

    def reset(self, stream: int) -> None:
        """A stream ended before it led anywhere."""
        self.refused(stream, Refusal.FAILED.value)

    def datagram(self, stream: int, target: Target, data: bytes) -> None:
        """A datagram for an association."""
        deliver = self._associations.get(stream)
        if deliver is not None:
            deliver(target, data)

    def line_over(self, outer: Outer, number: int, ending: Ending, moved_bytes: int) -> None:
        """An outer is gone."""
        now = self._loop.time()
        least_bytes = max(outer.received_bytes, moved_bytes)
        self.outers.over(number, now, least_bytes, max(least_bytes, outer.sent_bytes), ending)
        if not self._end.lines:
            self._alone_since = now
        self._loop.call_soon(self.plan)

    def over(self, error: OutlastError | None) -> None:
        """The server ended the session."""
        self._established = True
        self._start_anew()
        if error is not None:
            self._tunnel.told(False, error)


class _Association:
    """One client's datagrams."""

    def __init__(self, way: _Way, number: int) -> None:
        self._way = way
        self._number = number

    def send(self, target: Target, data: bytes) -> None:
        """Pass one on."""
        self._way.send_datagram(self._number, target, data)

    def close(self) -> None:
        """End it."""
        self._way.end_association(self._number)
