"""The gate: one port for SOCKS 4, 4a and 5 and HTTP, told apart by the first byte; where programs come in.

Nothing is looked up here: names go to the far end as they came. A listener on an address that others can reach serves
only those who know its credentials.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from outlast import address
from outlast.address import Target, household
from outlast.errors import UsageError, port_taken
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.listener import Listener
from outlast.rooms.reach.io.pump import Plain, Pump, watch_over
from outlast.rooms.reach.io.ready import watcher_of
from outlast.rooms.reach.proto.http_proxy import Exchange, HttpProxy
from outlast.rooms.reach.proto.request import Credentials, Ended, Reader, Request
from outlast.rooms.reach.proto.socks import Socks4, Socks5, reply
from outlast.rooms.reach.proto.token_bucket import TokenBucket
from outlast.socks import Command, unwrap_datagram, wrap_datagram

BACKLOG: Final = 1024
HANDSHAKE_S: Final = 10.0
HALF_OPEN_MAX: Final = 512
"""Connections that have not yet said what they want; the oldest goes for the newest."""
ASSOCIATIONS_MAX: Final = 256
GUESSES_AT_ONCE: Final = 16
GUESS_S: Final = 2.0
"""One address may give so many wrong passwords at once, and then one in so many seconds; its next ones are not read."""
GUESSERS_MAX: Final = 1024
SWEEP_S: Final = 1.0
_READ_BYTES: Final = 16 << 10
_DATAGRAM_MAX_BYTES: Final = 65_536

Carry = Callable[[Client], None]
Associate = Callable[[bytes, Callable[[Target, bytes], None]], Association | None]


class Gate:
    """One listener."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        at: Target,
        carry: Carry,
        associate: Associate,
        credentials: Credentials | None = None,
    ) -> None:
        """Listen; raises UsageError when the address cannot be had, or would let everybody in."""
        if credentials is None and not _is_loopback(at.host):
            raise UsageError(
                "%(host)s can be reached by others: give --user NAME and --password-file FILE, or listen at 127.0.0.1",
                host=at.host,
            )
        self.loop = loop
        self.watcher = watcher_of(loop)
        self.carry = carry
        self.associate = associate
        self.credentials = credentials
        self.associations = 0
        sock = listen(at)
        host, port, *_ = sock.getsockname()
        self.at = Target(host, port)
        """Where it listens."""
        self._half_open: dict[_Caller, float] = {}
        self._guessers: OrderedDict[str, TokenBucket] = OrderedDict()  # by address
        self._sweep: asyncio.TimerHandle | None = None
        self._associated: set[_Datagrams] = set()
        self._forwards: set[Pump] = set()
        self._listener = Listener(loop, sock, self._took)

    def close(self) -> None:
        """Stop listening, and end what has not been handed on; streams are their carriers'."""
        self._listener.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for caller in tuple(self._half_open):
            caller.drop()
        self.end_datagrams()
        for pump in tuple(self._forwards):
            pump.close()

    def end_datagrams(self) -> None:
        """End all associations: their way is another one now, and programs that still need one ask again."""
        for association in tuple(self._associated):
            association.close()

    def guessed(self, whose: str) -> None:
        """Somebody gave a wrong password."""
        now_s = self.loop.time()
        if whose not in self._guessers:
            self._guessers[whose] = TokenBucket(1 / GUESS_S, GUESSES_AT_ONCE, now_s)
            if len(self._guessers) > GUESSERS_MAX:
                self._guessers.popitem(last=False)
        self._guessers[whose].take(1, now_s)

    def wait_s(self, whose: str) -> float:
        """How long it is until somebody may try a password again."""
        bucket = self._guessers.get(whose)
        return 0.0 if bucket is None else bucket.wait_s(self.loop.time())

    def settled(self, caller: _Caller) -> None:
        """A connection has said what it wants, or is gone."""
        self._half_open.pop(caller, None)

    def forward(self, near: socket.socket, exchange: Exchange, whose: str) -> socket.socket:
        """Stand between a program and what carries its request: it alone leaves, and the next one is read here."""
        inner, outer = socket.socketpair()
        inner.setblocking(False)
        outer.setblocking(False)

        def over() -> None:
            pump.release()

        def done(wrong: Exception | None) -> None:
            self._forwards.discard(pump)
            if not pump.released:
                return
            if wrong is not None or self._listener.closed:
                near.close()
            elif exchange.over:
                self._await(near, whose).go_on(exchange.behind)
            else:
                _hang_up(near)

        pump = Pump(self.loop, near, inner, _Outward(exchange, over), _Inward(exchange, over), done=done)
        self._forwards.add(pump)
        return outer

    def open_datagrams(self, control: socket.socket, request: Request) -> None:
        """Serve UDP ASSOCIATE for as long as its connection stands."""
        if len(self._associated) >= ASSOCIATIONS_MAX:
            _say(control, reply(1))
            control.close()
            return
        try:
            _Datagrams(self, control, request, self._associated)
        except OSError:  # it is gone again, or no more files may be opened
            control.close()

    def _took(self, one: socket.socket, peer: tuple[str, int]) -> None:
        caller = self._await(one, "" if self.credentials is None else household(peer[0]))
        caller.readable()  # who connects speaks at once: it is there, or soon

    def _await(self, one: socket.socket, whose: str) -> _Caller:
        """Let a connection say what it wants."""
        half_open = self._half_open
        if len(half_open) >= HALF_OPEN_MAX:
            next(iter(half_open)).drop()
        caller = _Caller(self, one, whose)
        half_open[caller] = self.loop.time()
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP_S, self._drop_slow)
        return caller

    def _drop_slow(self) -> None:
        oldest = self.loop.time() - HANDSHAKE_S
        for caller, since in tuple(self._half_open.items()):
            if since > oldest:
                break
            caller.drop()
        self._sweep = self.loop.call_later(SWEEP_S, self._drop_slow) if self._half_open else None


class _Caller:
    """One connection: until its request is read a reader of sockets, then a client that waits for a carrier."""

    __slots__ = ("_gate", "_one", "_reader", "_request", "_whose")

    def __init__(self, gate: Gate, one: socket.socket, whose: str) -> None:
        """``whose`` address it comes from counts only where a password is asked for."""
        self._gate = gate
        self._whose = whose
        self._one: socket.socket | None = one
        self._reader: Reader | None = None
        self._request: Request | None = None
        gate.watcher.add_reader(one.fileno(), self.readable)

    @property
    def target(self) -> Target:
        assert self._request is not None
        return self._request.target

    @property
    def isolation(self) -> bytes:
        assert self._request is not None
        return self._request.isolation

    @property
    def gone(self) -> bool:
        if self._one is None:
            return True
        try:
            return not self._one.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def take(self) -> tuple[socket.socket, bytes]:
        one, reader, request = self._one, self._reader, self._request
        assert one is not None
        assert reader is not None
        assert request is not None
        self._one = None
        _say(one, reader.granted())
        if isinstance(reader, HttpProxy) and reader.exchange is not None:
            return self._gate.forward(one, reader.exchange, self._whose), request.early
        return one, request.early

    def refuse(self, refusal: Refusal) -> None:
        if self._one is not None and self._reader is not None:
            _say(self._one, self._reader.refused(refusal.code))
            self._gate.watcher.forget(self._one.fileno())
            _hang_up(self._one)
            self._one = None

    def drop(self) -> None:
        """End it before it has said what it wants."""
        if self._one is not None:
            self._gate.watcher.forget(self._one.fileno())
            self._gate.settled(self)
            self._one.close()
            self._one = None

    def _leave(self) -> None:
        assert self._one is not None
        self._gate.watcher.remove_reader(self._one.fileno())
        self._gate.settled(self)

    def _read_on(self) -> None:
        if self._one is not None and self._request is None:
            self._gate.watcher.add_reader(self._one.fileno(), self.readable)

    def readable(self) -> None:
        """Take what came, if anything did."""
        one = self._one
        assert one is not None
        if self._whose and (wait_s := self._gate.wait_s(self._whose)):
            # Read later, or never: what is right is not told sooner than what is wrong.
            self._gate.watcher.remove_reader(one.fileno())
            self._gate.loop.call_later(wait_s, self._read_on)
            return
        try:
            data = one.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        self._take_in(one, data)

    def go_on(self, data: bytes) -> None:
        """Take what a program of HTTP said behind its last request."""
        one = self._one
        assert one is not None
        self._reader = self._reader_of_http(one)
        if data:
            self._take_in(one, data)

    def _take_in(self, one: socket.socket, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = self._reader_for(data[0], one)
        say, outcome = reader.receive(data)
        if say:
            _say(one, say)
        if outcome is None:
            return
        self._leave()
        if isinstance(outcome, Ended):
            if outcome.guessed:
                self._gate.guessed(self._whose)
            _hang_up(one)
            self._one = None
            return
        self._request = outcome
        if outcome.command is Command.CONNECT:
            self._gate.carry(self)
        else:
            self._one = None
            self._gate.open_datagrams(one, outcome)

    def _reader_for(self, first: int, one: socket.socket) -> Reader:
        credentials = self._gate.credentials
        match first:
            case 5:
                return Socks5(credentials)
            case 4:
                return Socks4(credentials)
            case _:
                return self._reader_of_http(one)

    def _reader_of_http(self, one: socket.socket) -> HttpProxy:
        host, port, *_ = one.getsockname()
        return HttpProxy(Target(host, port), self._gate.credentials)


class _Outward(Plain):
    """What of a program's bytes is for its request's origin."""

    def __init__(self, exchange: Exchange, over: Callable[[], None]) -> None:
        self._exchange, self._over = exchange, over

    def turn(self, into: memoryview, size: int, out: memoryview) -> bytes:
        """What of it belongs to the request's body."""
        passed = self._exchange.outward(bytes(into[:size]))
        if self._exchange.over:
            self._over()
        return passed


class _Inward(Plain):
    """What of an origin's bytes is the answer."""

    def __init__(self, exchange: Exchange, over: Callable[[], None]) -> None:
        self._exchange, self._over = exchange, over

    def turn(self, into: memoryview, size: int, out: memoryview) -> bytes:
        """The answer, as it is told."""
        passed = self._exchange.inward(bytes(into[:size]))
        if self._exchange.over or self._exchange.failed:
            self._over()
        return passed

    def end(self) -> bytes:
        """What is said instead of an answer that does not come."""
        return self._exchange.end()


class _Datagrams:
    """UDP ASSOCIATE (RFC 1928 §7): a socket of its own beside the connection that asked for it, and for its address."""

    def __init__(self, gate: Gate, control: socket.socket, request: Request, all_: set[_Datagrams]) -> None:
        self._gate = gate
        self._control = control
        self._all = all_
        self._whose: tuple[str, int] | None = None
        self._peer_host = control.getpeername()[0]
        # Where it means to send from; some name their first target in its place (v2ray 4), or an address behind NAT.
        self._peer_port = request.target.port if request.target.host in (self._peer_host, "0.0.0.0", "::") else 0
        here = control.getsockname()
        self._udp = socket.socket(control.family, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.bind((here[0], 0))
        watch_over(control)  # it says nothing, and a phone that left the network would hold its place for ever
        self._way = gate.associate(request.isolation, self._deliver)
        all_.add(self)
        gate.loop.add_reader(control.fileno(), self._control_readable)
        if self._way is None:
            _say(control, reply(7))
            self.close()
            return
        gate.loop.add_reader(self._udp.fileno(), self._readable)
        host, port, *_ = self._udp.getsockname()
        _say(control, reply(0, Target(host, port)))

    def close(self) -> None:
        if self in self._all:
            self._all.discard(self)
            self._gate.loop.remove_reader(self._control.fileno())
            self._gate.loop.remove_reader(self._udp.fileno())
            self._control.close()
            self._udp.close()
            if self._way is not None:
                self._way.close()

    def _control_readable(self) -> None:
        try:
            if self._control.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def _readable(self) -> None:
        assert self._way is not None
        for _ in range(16):
            try:
                datagram, whose = self._udp.recvfrom(_DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue
            if self._whose is None and whose[0] == self._peer_host and self._peer_port in (0, whose[1]):
                self._whose = whose
            if whose != self._whose or (found := unwrap_datagram(datagram)) is None:
                continue
            self._way.send(*found)

    def _deliver(self, source: Target, data: bytes) -> None:
        if self._whose is not None:
            with suppress(OSError):  # a datagram may be lost
                self._udp.sendto(wrap_datagram(source, data), self._whose)


def listen(at: Target) -> socket.socket:
    """A listening, non-blocking socket; raises UsageError or StorageError, with what to do, when there can be none."""
    where = address.show(at)
    try:
        one = socket.create_server(
            (at.host, at.port), family=socket.AF_INET6 if ":" in at.host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(where) from None
        if error.errno == errno.EACCES:
            raise UsageError("%(where)s needs more rights: choose a port above 1023", where=where) from None
        raise UsageError("cannot listen at %(where)s: %(error)s", where=where, error=error) from None
    except OverflowError:
        raise UsageError("there is no port %(port)s: ports go up to 65535", port=at.port) from None
    one.setblocking(False)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for what is accepted
    return one


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(one: socket.socket, data: bytes) -> None:
    """Send a few bytes to somebody who has been sent nothing yet; a connection that cannot take them is broken."""
    if data:
        try:
            one.send(data)
        except OSError:
            return


def _hang_up(one: socket.socket) -> None:
    """Close so that what was said last arrives: unread bytes would turn the end into a reset."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_WR)
        one.recv(_READ_BYTES)
    one.close()
