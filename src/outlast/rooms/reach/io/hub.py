"""The server's end of the mux: sessions of known users, over a few outer connections each; streams go to the exit."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from random import SystemRandom
from typing import Final, Protocol

from outlast.address import Target
from outlast.errors import OutlastError
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.end import End, Greeting
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.proto.mux import (
    CLOCK_TOLERANCE_S,
    Hello,
    MuxError,
    Status,
    Welcome,
    proves,
    read_hello,
    write_welcome,
)
from outlast.rooms.reach.proto.session import RETAINED_MAX_BYTES, STREAMS_MAX, Ending, Session, Stock

SESSIONS_MAX: Final = 4096
SESSIONS_OF_USER_MAX: Final = 64
OUTERS_OF_SESSION_MAX: Final = 8
STRANGERS_MAX: Final = 512  # outers that have not greeted
STRANGERS_ALIKE_MAX: Final = 128  # of them, with the same secrets to prove: the oldest goes for the newest
STRANGER_MIN_S: Final = 30.0
STRANGER_MAX_S: Final = 90.0
ALONE_MAX_S: Final = 120.0  # a session without any outer is kept so long
ASSOCIATIONS_MAX: Final = 64  # of a session
STREAMS_OF_USER_MAX: Final = 8192  # over all sessions
SILENCE_S: Final = 100.0  # less than an exit's: what it ended is not asked again
RETAINED_OF_ALL_BYTES: Final = 512 * 1024 * 1024
RETAINED_OF_USER_BYTES: Final = 32 * 1024 * 1024
RETAINED_LEAST_BYTES: Final = 256 * 1024  # of a session
UNDELIVERED_OF_USER_BYTES: Final = 64 * 1024 * 1024
UNDELIVERED_OF_ALL_BYTES: Final = 512 * 1024 * 1024  # where all share a secret
SEEN_MAX: Final = 100_000  # greetings that were used, so that none is used twice

_chance = SystemRandom()


class Way(Protocol):
    """Where streams and datagrams leave: ``io.exit.Exit``."""

    def open(
        self,
        target: Target,
        opened: Callable[[socket.socket], None],
        failed: Callable[[Refusal], None],
        whose: bytes | None = None,
    ) -> Callable[[], None]:
        """Connect to the target; one of the two is called later; the returned function gives up.

        ``whose`` it is says with whom what there is of a way is shared.
        """
        ...

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        """Open a way for datagrams; None when there are too many."""
        ...


class Hub:
    """All sessions of one server, or of several that share them."""

    def __init__(
        self, way: Way, clock: Callable[[], float] = time.time, sessions_of_user_max: int = SESSIONS_OF_USER_MAX
    ) -> None:
        """``clock`` is the wall clock, against greetings that somebody recorded long ago.

        ``sessions_of_user_max`` bounds what one user takes; where all of them share a secret, that is one user, and
        with more than usual nothing else is bounded for each user.
        """
        self._loop = asyncio.get_running_loop()
        self.way = way
        self._clock = clock
        self._sessions_of_user_max = sessions_of_user_max
        self._is_shared = sessions_of_user_max > SESSIONS_OF_USER_MAX
        self._sessions: OrderedDict[tuple[bytes, bytes], _Kept] = OrderedDict()
        self._of_user: dict[bytes, list[_Kept]] = {}
        self._strangers: dict[Outer, asyncio.TimerHandle] = {}
        self._alike: dict[Outer, tuple[bytes, ...]] = {}  # what strangers, and those who were refused, may prove
        self._let_in: frozenset[bytes] | None = None  # users that are no longer shut out; None: nobody ever was
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._closed = False

    def accept(self, outer: Outer, users: Sequence[bytes], way: Way | None = None) -> None:
        """Serve an outer: of the user that the transport knows already, or of whoever proves one of these secrets.

        Streams of a session that begins with this outer leave by ``way``; without it by the hub's.
        """
        secrets = tuple(users)
        alike = [other for other, theirs in self._alike.items() if theirs == secrets]
        if len(alike) >= (STRANGERS_MAX if self._is_shared else STRANGERS_ALIKE_MAX):
            self._send_away(alike[0])
        if self._closed or len(self._strangers) >= STRANGERS_MAX:
            outer.close()
            return
        self._alike[outer] = secrets
        patience_s = _chance.uniform(STRANGER_MIN_S, STRANGER_MAX_S)
        self._strangers[outer] = self._loop.call_later(patience_s, self._send_away, outer)

        def done(data: bytes, rest: bytes) -> None:
            self._greeted(outer, users, way or self.way, data, rest)

        def failed(error: OutlastError | None) -> None:
            if not isinstance(error, MuxError):
                self._send_away(outer)

        Greeting(outer, done, failed)

    @property
    def sessions(self) -> int:
        """How many sessions are kept."""
        return len(self._sessions)

    @property
    def streams(self) -> int:
        """How many streams are open in all of them."""
        return sum(kept.end.session.streams for kept in self._sessions.values())

    def close(self) -> None:
        """End everything."""
        self._closed = True
        for outer in list(self._strangers):
            self._send_away(outer)
        for kept in list(self._sessions.values()):
            kept.close()

    def keep(self, users: Sequence[bytes]) -> None:
        """End the sessions of all users but those with these secrets: whoever was shut out is out at once."""
        self._let_in = frozenset(sha256(secret).digest() for secret in users)
        for (user, _), one in list(self._sessions.items()):
            if user not in self._let_in:
                one.close()

    def has_room(self, user: bytes) -> bool:
        """Whether the stream that a user has just opened is not one too many over all their sessions."""
        if self._is_shared:
            return True
        own = self._of_user.get(user, ())
        if len(own) * STREAMS_MAX <= STREAMS_OF_USER_MAX:
            return True  # so many as one session may have would not be too many in each
        return sum(kept.end.session.streams for kept in own) <= STREAMS_OF_USER_MAX

    def make_way(self, user: bytes) -> bool:
        """End an association of a user's, of the session that has most of them; whether there was one."""
        most = max(self._of_user[user], key=lambda kept: kept.associations)
        return most.dissociate()

    def whose(self, user: bytes, session: bytes) -> bytes:
        """With whom a session shares what all use: with its user's others, if its user is one person."""
        return user + session if self._is_shared else user

    def _send_away(self, outer: Outer) -> None:
        timer = self._strangers.pop(outer, None)
        self._alike.pop(outer, None)
        if timer is not None:
            timer.cancel()
        outer.close()

    def _greeted(self, outer: Outer, users: Sequence[bytes], way: Way, data: bytes, rest: bytes) -> None:
        try:
            hello, proof = read_hello(data)
        except MuxError:
            return
        secret = next((secret for secret in users if proves(data, secret)), None)
        user = sha256(secret or b"").digest()
        shut_out = self._let_in is not None and user not in self._let_in  # perhaps since the outer came
        if secret is None or shut_out or not self._first_use(proof):
            return  # whoever it is sees an outer that says nothing, until its time is over
        self._strangers.pop(outer).cancel()
        now_s = int(self._clock())

        def answer(status: Status, counts: tuple[tuple[int, int], ...] = ()) -> None:
            padding = _chance.randrange(600, 1400) if not hello.budget_bytes else 0
            outer.write(write_welcome(Welcome(status, now_s, counts), secret, proof, padding))

        if abs(now_s - hello.time_s) > CLOCK_TOLERANCE_S:
            self._refuse(outer, answer, Status.CLOCK)
            return
        kept = self._sessions.get((user, hello.session))
        if kept is None:
            if not hello.new:
                self._refuse(outer, answer, Status.GONE)
                return
            if not self._make_room(user):
                self._refuse(outer, answer, Status.BUSY)
                return
            kept = self._sessions[user, hello.session] = _Kept(self._loop, self, way, (user, hello.session))
            self._of_user.setdefault(user, []).append(kept)
            self._share(self._of_user.values())
            answer(Status.NEW)
        elif hello.new or not kept.takes(hello):
            self._refuse(outer, answer, Status.GONE)
            return
        else:
            answer(Status.RESUMED, kept.counts(hello))
        del self._alike[outer]
        kept.add(outer, hello, rest)

    def _refuse(self, outer: Outer, answer: Callable[[Status], None], status: Status) -> None:
        """Say why not; the client closes."""
        answer(status)
        self._strangers[outer] = self._loop.call_later(STRANGER_MIN_S, self._send_away, outer)

    def _first_use(self, proof: bytes) -> bool:
        if proof in self._seen:
            return False
        self._seen[proof] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return True

    def _make_room(self, user: bytes) -> bool:
        own = list(self._of_user.get(user, ()))
        if len(own) < self._sessions_of_user_max and len(self._sessions) < SESSIONS_MAX:
            return True
        for kept in own:
            if not kept.end.lines or not kept.end.session.streams:
                kept.close()
                return True
        return False

    def stock_of(self, user: bytes) -> Stock:
        """The room that a user's sessions share."""
        own = self._of_user.get(user)
        if own:
            return own[0].stock
        return Stock(UNDELIVERED_OF_ALL_BYTES if self._is_shared else UNDELIVERED_OF_USER_BYTES)

    def _share(self, users: Iterable[Sequence[_Kept]]) -> None:
        """What may be retained is shared by all sessions, and by those of each user."""
        of_all = min(RETAINED_MAX_BYTES, RETAINED_OF_ALL_BYTES // max(1, len(self._sessions)))
        for own in users:
            share = of_all if self._is_shared else min(of_all, RETAINED_OF_USER_BYTES // max(1, len(own)))
            for kept in own:
                kept.end.session.retained_max_bytes = max(RETAINED_LEAST_BYTES, share)

    def forget(self, key: tuple[bytes, bytes]) -> None:
        """A session is over."""
        kept = self._sessions.pop(key, None)
        if kept is not None:
            own = self._of_user[key[0]]
            own.remove(kept)
            if not own:
                del self._of_user[key[0]]
            elif not self._is_shared:
                self._share((own,))


class _Kept:
    """One session at the server."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub, way: Way, key: tuple[bytes, bytes]) -> None:
        self._loop = loop
        self._hub = hub
        self._way = way
        self._key = key
        self._whose = hub.whose(*key)
        self.stock = hub.stock_of(key[0])
        self.end = End(loop, Session(client=False, stock=self.stock), self)
        self._newest = 0
        self._numbers: set[int] = set()
        self._openings: dict[int, Callable[[], None]] = {}
        self._associations: dict[int, Association] = {}
        self._used_s: dict[int, float] = {}  # when associations last had something to carry
        self._alone: asyncio.TimerHandle | None = None

    @property
    def associations(self) -> int:
        """How many associations there are."""
        return len(self._associations)

    def takes(self, hello: Hello) -> bool:
        """Whether the outer has a number of its own and there is room for it."""
        known = hello.number in self._numbers or hello.number + 64 <= self._newest
        lost = {number for number, _ in hello.counts}
        living = sum(number not in lost for number in self.end.lines)
        return not known and living < OUTERS_OF_SESSION_MAX

    def counts(self, hello: Hello) -> tuple[tuple[int, int], ...]:
        """How much was received on those outers that the client holds for lost; they are given up."""
        self.end.lose(tuple(number for number, _ in hello.counts))
        return tuple((number, self.end.session.received_on(number)) for number, _ in hello.counts)

    def add(self, outer: Outer, hello: Hello, rest: bytes) -> None:
        """Go on over another outer."""
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self._newest = max(self._newest, hello.number)
        self._numbers.add(hello.number)
        self._numbers = {number for number in self._numbers if number + 64 > self._newest}
        shapes = () if hello.budget_bytes else tuple(_chance.randrange(600, 4000) for _ in range(3))
        self.end.add_line(
            hello.number, outer, rest, budget_bytes=hello.budget_bytes, counts=hello.counts, shapes=shapes
        )

    def close(self) -> None:
        """End it."""
        self.end.close()
        self._clear()

    def _clear(self) -> None:
        self._hub.forget(self._key)
        if self._alone is not None:
            self._alone.cancel()
        for cancel in self._openings.values():
            cancel()
        self._openings.clear()
        for association in self._associations.values():
            association.close()
        self._associations.clear()

    # --- what the session says

    def opened(self, stream: int, target: Target) -> None:
        """Lead a stream to its target."""

        def opened(sock: socket.socket) -> None:
            if self._openings.pop(stream, None) is None:
                sock.close()
            else:
                self.end.accept(stream, sock)

        def failed(refusal: Refusal) -> None:
            if self._openings.pop(stream, None) is not None:
                self.end.refuse(stream, refusal.value)

        if not self._hub.has_room(self._key[0]):
            self.end.refuse(stream, Refusal.FAILED.value)
            return
        self._openings[stream] = self._way.open(target, opened, failed, self._whose)

    def reset(self, stream: int) -> None:
        """The client wants it no more."""
        cancel = self._openings.pop(stream, None)
        if cancel is not None:
            cancel()

    def accepted(self, stream: int) -> None:
        """Never at the server's end."""

    def refused(self, stream: int, refusal: int) -> None:
        """Never at the server's end."""

    def datagram(self, stream: int, target: Target, data: bytes) -> None:
        """Pass a datagram on."""
        now = self._loop.time()
        association = self._associations.get(stream)
        if association is not None and now - self._used_s[stream] >= SILENCE_S:
            self._dissociate(stream)
            association = None
        if association is None:
            if len(self._associations) >= ASSOCIATIONS_MAX:
                self.dissociate()

            def deliver(source: Target, answer: bytes) -> None:
                self._used_s[stream] = self._loop.time()
                self.end.datagram(stream, source, answer)

            association = self._way.datagrams(deliver, self._whose)
            if association is None and self._hub.make_way(self._key[0]):
                association = self._way.datagrams(deliver, self._whose)
            if association is None:
                return
            self._associations[stream] = association
        self._used_s[stream] = now
        association.send(target, data)

    def dissociate(self) -> bool:
        """End the oldest association; whether there was one."""
        oldest = next(iter(self._associations), None)
        if oldest is not None:
            self._dissociate(oldest)
        return oldest is not None

    def _dissociate(self, stream: int) -> None:
        del self._used_s[stream]
        self._associations.pop(stream).close()

    def line_over(self, outer: Outer, number: int, ending: Ending, moved_bytes: int) -> None:
        """An outer is gone; without any, the session waits for the client."""
        if not self.end.lines and self._alone is None:
            self._alone = self._loop.call_later(ALONE_MAX_S, self.close)

    def over(self, error: OutlastError | None) -> None:
        """The client ended it, or kept no rule."""
        self._clear()
