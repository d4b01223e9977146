"""The website that is a bridge: TLS ends here, and all of it is the site's but for who knows a path.

Every connection gets one to the site at once, and what comes goes through as it comes, both ways: the site alone says
what is answered, when it has waited long enough, and when it is over. One thing is looked at: what a connection says
first. A client's request is one record (``proto.web``), so it is there as a whole or not at all, and nothing is held
back for it. What comes later on a connection, or in pieces, is never an Upgrade of ours.

Before TLS is there, the site can speak too, if it listens with TLS itself somewhere behind (``Site.with_tls``): a
connection that begins with something else than TLS that OpenSSL takes is then handed over with all its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
import ssl
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from hashlib import blake2s
from typing import Final, NamedTuple

from outlast.address import household
from outlast.rooms.reach.io.pump import Plain, Pump
from outlast.rooms.reach.io.tls import Tls, reset
from outlast.rooms.reach.proto.http_message import Place, Requests
from outlast.rooms.reach.proto.web import PADDING_MAX, REQUEST_MAX_BYTES, Doors, key_asked, path_asked, write_accept
from outlast.tls import protocols_of

READ_BYTES: Final = 65_536
UNSENT_MAX_BYTES: Final = 262_144
CONNECTIONS_MAX: Final = 4_096
CONNECTIONS_EACH: Final = 256
"""Connections of one address that are served at a time; the next ones wait, as in the queue of a busy server."""
WAITING_MAX: Final = 1_024
LONG_MAX: Final = 64
"""Handshakes whose ClientHello is long, at a time: OpenSSL and we keep 300 KB for one. The next ones wait."""
PATIENCE_S: Final = 120.0
"""For a handshake, and for a turn. No server that is much used waits so long by itself, so its end comes before."""
LINGER_S: Final = 60.0
"""So long the rest of a connection is read after the site has ended it; what a kernel waits in FIN-WAIT-2.

Who takes something of the site's last words meanwhile is waited for as long again, as with nginx's ``send_timeout``.
"""
BACKLOG: Final = 511  # nginx's
REACTION_S: Final = 1.0
"""A site that ends a connection later than so long after the last word on it does so because none followed."""
_ACCEPTED_AT_ONCE: Final = 16
_RETRY_S: Final = 1.0
_LOOKS: Final = 4
_SWEEP_S: Final = 5.0
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # Linux: the port is chosen when the other side is known
_NO_APPLICATION_PROTOCOL: Final = 120  # RFC 7301 §3.2
PROTOCOLS: Final = ("http/1.1", "http/1.0", "http/0.9")  # what nginx takes that speaks no HTTP/2
_OURS: Final = frozenset(one.encode() for one in PROTOCOLS)

_scratch = memoryview(bytearray(READ_BYTES))


class Site(NamedTuple):
    """Where the site listens behind the bridge: an address and port, or the path of a Unix socket."""

    plain: tuple[str, int] | str
    with_tls: tuple[str, int] | None = None
    patience_s: float | None = None
    """For how long nothing may move on a connection, within a quarter more; None: the site sees to that."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 as websites have it; raises OSError or ssl.SSLError for files that are no certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key, _no_passphrase)
    context.set_alpn_protocols(list(PROTOCOLS))
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE  # the client's order decides, as with nginx
    return context


def _no_passphrase() -> str:
    """Else OpenSSL asks whoever sits at the terminal, and all stands until they answer."""
    raise OSError(errno.EACCES, "the key has a passphrase")


class WebServer:
    """Listeners of one site. Who knocks rightly is given to ``accept(outer, user)``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[], ssl.SSLContext],
        site: Site,
        users: Mapping[str, bytes],
        accept: Callable[[Tls, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``context`` gives what is in force now; ``users`` are secrets of 32 B by what their owners are called."""
        self.loop = loop
        self.site = site
        self.clock = clock
        self.accept = accept
        self.context = context
        self.shaking: dict[ssl.SSLObject, Visit] = {}
        self._long: set[Visit] = set()
        self._waiting_long: OrderedDict[Visit, None] = OrderedDict()
        self._waiting: dict[str, deque[tuple[float, socket.socket]]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._prepared: ssl.SSLContext | None = None
        self._lookup_key = secrets.token_bytes(32)
        self._listening: list[socket.socket] = []
        self._visits: set[Visit] = set()
        self._pumps: set[Pump] = set()
        self._each: Counter[str] = Counter()
        self.admit(users)

    def admit(self, users: Mapping[str, bytes]) -> None:
        """From now on these are the users; who is in stays in."""
        self.doors = Doors(users, self._lookup_key)

    def listen(self, sock: socket.socket) -> None:
        """Take connections of a listening socket, which becomes this server's own."""
        sock.setblocking(False)
        self._listening.append(sock)
        self.loop.add_reader(sock, self._take, sock)

    def close(self) -> None:
        """End all but the outers that were given away."""
        for sock in self._listening:
            self.loop.remove_reader(sock)
            sock.close()
        self._listening.clear()
        self._let_go(self.loop.time())
        if self._sweep is not None:
            self._sweep.cancel()
        for visit in tuple(self._visits):
            visit.end()
        for pump in tuple(self._pumps):
            pump.close()

    @property
    def connections(self) -> int:
        """How many visitors are being served."""
        return len(self._visits) + len(self._pumps)

    def _take(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                visitor, address = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no more files: those that wait do so with the kernel
                self._rest()
                return
            visitor.setblocking(False)
            whose = household(str(address[0])) if address else ""
            if self._each[whose] < CONNECTIONS_EACH:
                self._serve(visitor, whose)
            else:
                self._let_wait(visitor, whose)
            if self.connections >= CONNECTIONS_MAX:
                self._rest()
                return

    def _serve(self, visitor: socket.socket, whose: str) -> None:
        self._each[whose] += 1
        visit = Visit(self, visitor, whose)
        self._visits.add(visit)
        visit.begin()
        self._sweep_later()

    def _let_wait(self, visitor: socket.socket, whose: str) -> None:
        """As if it were in the kernel's queue still: a reset would tell what the site alone never does."""
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:
            reset(visitor)
            visitor.close()
            return
        self._waiting.setdefault(whose, deque()).append((self.loop.time(), visitor))
        self._sweep_later()

    def _turn_of(self, whose: str) -> None:
        waiting = self._waiting.get(whose)
        if waiting and self._each[whose] < CONNECTIONS_EACH:
            _, visitor = waiting.popleft()
            if not waiting:
                del self._waiting[whose]
            self._serve(visitor, whose)

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = self.loop.call_later(_SWEEP_S, self._end_slow)

    def _end_slow(self) -> None:
        """End what has waited for too long, without a word, as a site does."""
        oldest_s = self.loop.time() - PATIENCE_S
        for visit in tuple(self.shaking.values()):
            if visit.began_s > oldest_s:
                break
            visit.end()
        self._let_go(oldest_s)
        self._sweep = None
        if self.shaking or self._waiting:
            self._sweep_later()

    def _let_go(self, oldest_s: float) -> None:
        """Close those that wait since then or before."""
        for whose, waiting in tuple(self._waiting.items()):
            while waiting and waiting[0][0] <= oldest_s:
                waiting.popleft()[1].close()
            if not waiting:
                del self._waiting[whose]

    def may_be_long(self, visit: Visit) -> bool:
        """Whether there is memory for a long ClientHello now; if not, the visit goes on when there is."""
        if len(self._long) < LONG_MAX:
            self._long.add(visit)
            return True
        self._waiting_long[visit] = None
        return False

    def shaken(self, visit: Visit) -> None:
        """A visit's handshake is over."""
        if self.shaking.pop(visit.tls.engine, None) is None:
            return
        self._waiting_long.pop(visit, None)
        if visit in self._long:
            self._long.remove(visit)
            if self._waiting_long:
                other, _ = self._waiting_long.popitem(last=False)
                self._long.add(other)
                self.loop.call_soon(other.tls.go_on)

    def stand_in(self, whose: str) -> str:
        """An address of this computer's for whoever it is, the same each time while this server runs.

        What a site shows to 127.0.0.1 alone is not for visitors, and its limits for each address are to hold. It learns
        no visitor's address, also not of those who come for the bridge.
        """
        one, two, three = blake2s(whose.encode(), digest_size=3, key=self._lookup_key).digest()
        return f"127.{1 + one % 254}.{two}.{1 + three % 254}"

    def _rest(self) -> None:
        for sock in self._listening:
            self.loop.remove_reader(sock)
        self.loop.call_later(_RETRY_S, self._go_on)

    def _go_on(self) -> None:
        if self.connections >= CONNECTIONS_MAX:
            self.loop.call_later(_RETRY_S, self._go_on)
            return
        for sock in self._listening:
            self.loop.add_reader(sock, self._take, sock)

    def context_in_force(self) -> ssl.SSLContext:
        """The certificate's context, with our eye on what clients say first."""
        context = self.context()
        if context is not self._prepared:
            context.sni_callback = self._examine
            self._prepared = context
        return context

    def _examine(self, engine: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        """Refuse who offers protocols and none of ours: so does nginx, and Python's ``ssl`` by itself does not."""
        visit = self.shaking.get(engine)
        offered = protocols_of(visit.tls.first) if visit is not None and visit.tls.first else None
        if offered is None or any(one in _OURS for one in offered):
            return None
        return _NO_APPLICATION_PROTOCOL

    def left(self, visit: Visit) -> None:
        """A visit is over, or its connection belongs to somebody else now."""
        if visit in self._visits:
            self._visits.discard(visit)
            self._forget(visit.whose)

    def _forget(self, whose: str) -> None:
        self._each[whose] -= 1
        if not self._each[whose]:
            del self._each[whose]
        if whose in self._waiting:
            self.loop.call_soon(self._turn_of, whose)

    def hand_over(self, visit: Visit, visitor: socket.socket, first: bytes, far: socket.socket) -> None:
        """Join a visitor whose TLS is not for us with the site's own TLS."""
        self._visits.discard(visit)

        def done(_: Exception | None) -> None:
            self._pumps.discard(pump)
            self._forget(visit.whose)

        pump = Pump(self.loop, visitor, far, Plain(), Plain(), first, done)
        self._pumps.add(pump)


class Visit:
    """One connection: its TLS, and its connection to the site."""

    def __init__(self, server: WebServer, visitor: socket.socket, whose: str) -> None:
        """Begin both."""
        self.whose = whose
        self.began_s = server.loop.time()
        self._server = server
        self._loop = server.loop
        self.tls = Tls(self._loop, visitor)
        self._site: socket.socket | None = None
        self._for_site = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._shaken = self._heard = self._over = False
        self._connected = self._reading = self._writing = False  # the site
        self._visitor_done = self._site_done = self._site_deaf = self._site_lost = False
        self._requests = Requests()
        self._unanswered = False  # the site was told something of a request's head since it last said anything
        self._moved_s = 0.0  # when either last said something

    def begin(self) -> None:
        """Shake hands with the visitor, and call the site."""
        server = self._server
        self.tls.begin(server.context_in_force(), self._shook, self._failed, may_be_long=self._may_be_long)
        server.shaking[self.tls.engine] = self
        if (patience_s := self._server.site.patience_s) is not None:
            self._wait(patience_s / _LOOKS, 0, -1)
        self._call(self._server.site.plain)

    def _wait(self, look_s: float, looks: int, moved: int) -> None:
        """End it when it was looked at often enough and nothing had moved; cheaper than a mark at each byte."""
        now_moved = self.tls.sent_bytes + self.tls.received_bytes
        looks = looks + 1 if now_moved == moved else 0
        if looks == _LOOKS:
            self.end()
        else:
            self._timer = self._loop.call_later(look_s, self._wait, look_s, looks, now_moved)

    # The visitor

    def _may_be_long(self) -> bool:
        return self._server.may_be_long(self)

    def _shook(self) -> None:
        self._shaken = True
        self._server.shaken(self)
        self.tls.listen(self)

    def _failed(self, error: OSError) -> None:
        self._server.shaken(self)
        if self._server.site.with_tls is None or self.tls.first is None:
            self.tls.part()
            self.end()
            return
        self._hang_up()
        self._call(self._server.site.with_tls)

    def received(self, data: memoryview) -> None:
        """The visitor said something."""
        if not self._heard:
            self._heard = True
            if self._let_in(data):
                return
        self._pass(data)

    def drained(self) -> None:
        """The visitor took all that the site said."""
        if self._site_lost:
            self.tls.abort()
            self.end()
        elif self._site_done and self._visitor_done:
            self.end()
        elif self._connected and not self._site_done:
            self._read_on()

    def finished(self) -> None:
        """The visitor says no more."""
        self._visitor_done = True
        if self._site_lost or (self._site_done and not self.tls.unsent):
            self.end()
        elif self._connected and not self._for_site:
            self._end_saying()

    def broke(self, error: OSError) -> None:
        """The visitor's connection is no more."""
        if self._site is not None and not isinstance(error, ssl.SSLError):
            reset(self._site)
        self.end()

    def _let_in(self, data: memoryview) -> bool:
        if len(data) > REQUEST_MAX_BYTES:
            return False
        asked = bytes(data)
        path = path_asked(asked)
        user = path and self._server.doors.user_of(path, self._server.clock())
        key = key_asked(asked) if user else None
        if not user or key is None:
            return False
        self._hang_up()
        self._over = True
        self._server.left(self)
        padding = secrets.token_bytes(secrets.randbelow(PADDING_MAX))
        self.tls.write(write_accept(key, formatdate(self._server.clock(), usegmt=True).encode(), padding))
        self._server.accept(self.tls, user)
        return True

    # The site

    def _call(self, where: tuple[str, int] | str) -> None:
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        try:
            self._site = site = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no more files
            self._lose()
            return
        if family != socket.AF_UNIX:
            site.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if where[0].startswith("127."):
                with contextlib.suppress(OSError):  # some systems have one such address alone
                    site.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                    site.bind((self._server.stand_in(self.whose), 0))
        problem = site.connect_ex(where)
        if problem == errno.EINPROGRESS:
            self._write_on()
        elif problem:
            self._lose()
        else:
            self._reached()

    def _reached(self) -> None:
        self._connected = True
        if not self._shaken and self.tls.first is not None and self.tls.failed:
            self._give_away()
            return
        self._read_on()
        if self._for_site:
            self._write_on()
        elif self._visitor_done:
            self._end_saying()

    def _give_away(self) -> None:
        assert self._site is not None
        far, self._site = self._site, None
        self._over = True
        visitor, first = self.tls.take()
        self._server.hand_over(self, visitor, first, far)

    def _pass(self, data: memoryview) -> None:
        if self._site_deaf or self._over:
            return
        if self._site_lost:
            self.tls.abort()
            self.end()
            return
        self._moved_s = self._loop.time()
        if self._requests.said(bytes(data)):
            self._unanswered = True
        if self._for_site or not self._connected:
            self._for_site += data
        else:
            sent = self._send(data)
            if sent < len(data) and not self._site_deaf and not self._over:
                self._for_site += data[sent:]
                self._write_on()
        if self._for_site:
            self.tls.pause()

    def _send(self, data: memoryview | bytearray) -> int:
        assert self._site is not None
        try:
            sent = self._site.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            # The site listens no more; what it said before is still to be read.
            self._site_deaf = True
            self._for_site.clear()
            sent = 0
        # A site that has ended its side reads on, or is gone: then who goes on speaking is told so by a reset.
        if self._site_done and (self._site_deaf or self._site.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
            self._lose()
        return sent

    def _site_writable(self) -> None:
        assert self._site is not None
        if not self._connected:
            self._write_off()
            if self._site.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._lose()
            else:
                self._reached()
            return
        del self._for_site[: self._send(self._for_site)]
        if not self._for_site and not self._over:
            self._write_off()
            self.tls.resume()
            if self._visitor_done:
                self._end_saying()

    def _site_readable(self) -> None:
        assert self._site is not None
        try:
            size = self._site.recv_into(_scratch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._read_off()
            self._lose()
            return
        if not self._shaken:
            self.end()  # it has waited long enough
        elif size:
            self._unanswered = False
            self._moved_s = self._loop.time()
            self.tls.write(_scratch[:size])
            if self.tls.unsent > UNSENT_MAX_BYTES:
                self._read_off()
            # uvloop calls once for data with a reset behind it, and never again: the data was read, look for it.
            site = self._site
            if size < READ_BYTES and site is not None and site.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._read_off()
                self._lose()
        else:
            self._read_off()
            self._site_done = True
            # As nginx does it: who was too slow, or has ended their own side, is told of the end by TCP alone.
            self.tls.finish(notify=not self._is_too_slow() and not self._visitor_done)
            if self._visitor_done and not self.tls.unsent:
                self.end()
            else:
                self._linger()

    def _is_too_slow(self) -> bool:
        """Whether the site ends it because the visitor does not go on with a request, as far as that can be told."""
        is_within = self._requests.place in (Place.HEAD, Place.BODY)
        return self._unanswered or (is_within and self._loop.time() > self._moved_s + REACTION_S)

    def _lose(self) -> None:
        """The site refused the connection or reset it."""
        self._site_lost = True
        if self.tls.failed or (self._heard and not self.tls.unsent):
            self.tls.abort()
            self.end()
        elif self._timer is None:
            self._linger()  # there is no site that would see to it

    def _linger(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LINGER_S, self._lingered, self.tls.sent_bytes)

    def _lingered(self, sent_bytes: int) -> None:
        if self.tls.unsent and self.tls.sent_bytes != sent_bytes:
            self._linger()
        else:
            self.end()

    def _end_saying(self) -> None:
        if self._site is not None:
            with contextlib.suppress(OSError):
                self._site.shutdown(socket.SHUT_WR)

    def _read_on(self) -> None:
        if not self._reading and self._site is not None:
            self._reading = True
            self._loop.add_reader(self._site, self._site_readable)

    def _read_off(self) -> None:
        if self._reading and self._site is not None:
            self._reading = False
            self._loop.remove_reader(self._site)

    def _write_on(self) -> None:
        if not self._writing and self._site is not None:
            self._writing = True
            self._loop.add_writer(self._site, self._site_writable)

    def _write_off(self) -> None:
        if self._writing and self._site is not None:
            self._writing = False
            self._loop.remove_writer(self._site)

    def _hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._site is not None:
            self._read_off()
            self._write_off()
            self._site.close()
            self._site, self._connected = None, False

    def end(self) -> None:
        """Close both connections."""
        if self._over:
            return
        self._over = True
        self._hang_up()
        self._server.shaken(self)
        self.tls.close()
        self._server.left(self)
