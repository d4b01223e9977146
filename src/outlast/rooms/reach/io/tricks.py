"""The network itself as a way out, for filters that can be confused: the first flight of TLS is sent in pieces.

It hides nothing: who is visited stands in every connection, and whoever looks with care reads it. So it is used only
where a person chose it. Names are asked of one resolver over HTTPS, never of the network's own. Which trick works is
found out for each site (``domain_of``) by its own first stream: the flight is sent anew, over another connection, until
the server answers, which costs the client nothing but time. What was found out is a list of sites that somebody visits:
it is kept in memory only.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.direct import PLAIN
from outlast.rooms.reach.io.doh import Doh
from outlast.rooms.reach.io.exit import ECHO, Exit
from outlast.rooms.reach.io.pump import Pump
from outlast.rooms.reach.proto.bridge import Tricks
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.fragment import FLIGHT_MAX_BYTES, TRICKS, Trick, cut, domain_of, flight_size, name_of

FIRST_S: Final = 0.3
"""So long the client's first bytes are awaited; of some protocols the server speaks first."""
ANSWER_S: Final = 2.5
"""So long a server may take for its first byte, before the next trick is tried."""
SITES_MAX: Final = 512
_SERVER_HELLO: Final = 22
_RESET: Final = struct.pack("ii", 1, 0)


class Tricking:
    """The carrier that such a way is."""

    def __init__(
        self,
        way: Tricks,
        policy: Policy = Policy(ports_refused=()),  # noqa: B008, it is frozen
        *,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """``trust`` is for a resolver that a private authority vouches for."""
        self._loop = asyncio.get_running_loop()
        self._doh = Doh(self, way, trust or ssl.create_default_context())
        self._exit = Exit(self._loop, policy, names=self._doh)
        self._streams: set[_Stream] = set()
        self._pumps: set[Pump] = set()
        self._works: OrderedDict[str, Trick] = OrderedDict()
        self._last = TRICKS[1]

    def carry(self, client: Client) -> None:
        """Connect, and send the first flight in the way that works for the site."""
        if client.target == ECHO:
            client.refuse(Refusal.NOT_ALLOWED)  # what this machine answers itself proves nothing
        else:
            self._streams.add(_Stream(self, client))

    def associate(self, isolation: bytes, deliver: object) -> Association | None:
        """There is no trick for datagrams."""
        return None

    async def look_up(self, host: str) -> Sequence[str]:
        """What the resolver says: addresses of a host, none when it knows none or is not reached."""
        answer: asyncio.Future[Sequence[str]] = self._loop.create_future()
        self._doh.look_up(host, lambda found: None if answer.done() else answer.set_result(found))
        return await answer

    def close(self) -> None:
        """End all."""
        for stream in tuple(self._streams):
            stream.end(Refusal.FAILED)
        for pump in tuple(self._pumps):
            pump.close()
        self._exit.close()

    def tricks_for(self, site: str) -> list[Trick]:
        """In which order to try them: what worked for the site, nothing at all, what worked last elsewhere."""
        first = [self._works[site]] if site in self._works else []
        return list(dict.fromkeys([*first, TRICKS[0], self._last, *TRICKS]))

    def worked(self, site: str, trick: Trick | None) -> None:
        """Remember what works for a site; None: nothing does."""
        self._works.pop(site, None)
        if trick is None:
            return
        self._works[site] = trick
        if trick != TRICKS[0]:
            self._last = trick
        if len(self._works) > SITES_MAX:
            self._works.popitem(last=False)


class _Stream:
    """One stream until the server has answered its first flight."""

    def __init__(self, tricking: Tricking, client: Client) -> None:
        self._tricking = tricking
        self._loop = tricking._loop
        self._client: Client | None = client
        self._target = client.target
        self._near: socket.socket | None = None
        self._far: socket.socket | None = None
        self._flight = bytearray()
        self._site = ""
        self._tricks: list[Trick] = []
        self._limit: asyncio.TimerHandle | None = None
        self._cancel = self._open()

    def _open(self) -> Callable[[], None]:
        return self._tricking._exit.open(self._target, self._connected, self._refused)

    def end(self, why: Refusal) -> None:
        """End it: a client that waits for its way is refused, another one sees a reset."""
        self._cancel()
        self._rest()
        self._tricking._streams.discard(self)
        for one in (self._near, self._far):
            if one is not None:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.close()
        self._near = self._far = None
        if self._client is not None:
            self._client.refuse(why)
            self._client = None

    def _refused(self, why: Refusal) -> None:
        self._next() if self._tricks else self.end(why)

    def _connected(self, far: socket.socket) -> None:
        self._far = far
        with suppress(OSError):
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._client is None:
            self._send()
            return
        self._near, early = self._client.take()
        self._client = None
        self._flight += early
        self._limit = self._loop.call_later(FIRST_S, self._pump)
        self._loop.add_reader(self._near.fileno(), self._readable)
        self._look()

    # ---- the client's first flight ----

    def _readable(self) -> None:
        assert self._near is not None
        wanted = (flight_size(self._flight) or FLIGHT_MAX_BYTES) - len(self._flight)
        try:
            data = self._near.recv(wanted)
        except BlockingIOError:
            return
        except OSError:
            self.end(Refusal.FAILED)
            return
        self._flight += data
        self._look() if data else self._pump()

    def _look(self) -> None:
        size = flight_size(self._flight)
        if size == 0:
            self._pump()
        elif size is not None and len(self._flight) >= size:
            self._site = domain_of(name_of(bytes(self._flight[:size])) or self._target.host)
            self._tricks = self._tricking.tricks_for(self._site)
            self._send()

    # ---- the server's answer ----

    def _send(self) -> None:
        far = self._far
        assert far is not None
        self._rest()
        size = flight_size(self._flight) or 0
        parts = [*cut(bytes(self._flight[:size]), self._tricks[0]), bytes(self._flight[size:])]
        try:
            # Each part is a segment of its own; a new connection's buffer has room for all of them.
            whole = all(far.send(part) == len(part) for part in parts if part)
        except OSError:
            whole = False
        if not whole:
            self._next()
            return
        self._limit = self._loop.call_later(ANSWER_S, self._next)
        self._loop.add_reader(far.fileno(), self._answered)

    def _answered(self) -> None:
        assert self._far is not None
        try:
            first = self._far.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        if first[:1] != bytes((_SERVER_HELLO,)):
            self._next()  # a reset, an end, an alert, or a page that somebody put there
            return
        self._tricking.worked(self._site, self._tricks[0])
        self._flight.clear()
        self._pump()

    def _next(self) -> None:
        """Try the next trick over another connection."""
        self._rest()
        if self._far is not None:
            self._far.close()
            self._far = None
        del self._tricks[0]
        if self._tricks:
            self._cancel = self._open()
        else:
            self._tricking.worked(self._site, None)
            self.end(Refusal.FAILED)

    # ---- what both have in common ----

    def _pump(self) -> None:
        """Join the two; the client's bytes that were read and not sent go first."""
        self._rest()
        near, far, pumps = self._near, self._far, self._tricking._pumps
        assert near is not None
        assert far is not None
        self._near = self._far = None
        self._tricking._streams.discard(self)
        pump = Pump(self._loop, near, far, PLAIN, PLAIN, bytes(self._flight), lambda _: pumps.discard(pump))
        pumps.add(pump)

    def _rest(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        for one in (self._near, self._far):
            if one is not None:
                self._loop.remove_reader(one.fileno())
