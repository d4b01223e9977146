"""Where streams and datagrams leave for their targets: looks names up, refuses what the policy refuses, connects.

The address that was judged is the one that is connected to, so a name that changes its mind gains nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Final, Protocol

import ifaddr

from outlast import address
from outlast.address import Target
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.names import Names
from outlast.rooms.reach.io.ready import watcher_of
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.fair import Fair

ECHO: Final = Target("echo.outlast.invalid", 7)
"""Answered inside of every server of ours by what it is sent: so a way is tried without anybody else."""
ECHO_MAX_BYTES: Final = 1 << 20
SYNC: Final = Target("sync.outlast.invalid", 1)
"""The sync listener of the server's own node, where it has one."""
CONNECT_S: Final = 10.0
SWEEP_S: Final = 0.5
STAGGER_S: Final = 0.25
"""So long one address is tried alone, then the next beside it (RFC 8305 §5)."""
ADDRESSES_MAX: Final = 6
OWN_S: Final = 60.0
LINK_MIN_BITS: Final = 48
"""A network of IPv6 that is wider than a site's is no link."""
STREAMS_MAX: Final = 4096
"""Connections that are being made."""
DATAGRAMS_MAX: Final = 512
"""Ways for datagrams that are open."""
SPARE: Final = 128
"""So many of each more, for who has none."""
DATAGRAM_MAX_BYTES: Final = 65_536
PEERS_MAX: Final = 256
WAITING_MAX_BYTES: Final = 65_536
"""Datagrams of one way that wait for the address of a name; each counts as _LEAST_BYTES at least."""
SILENCE_S: Final = 120.0
ANSWER_FACTOR: Final = 8
ANSWER_FREE_BYTES: Final = 4096
_LEAST_BYTES: Final = 512
_NO_WAY: Final = {
    errno.ECONNREFUSED: Refusal.REFUSED,
    errno.ETIMEDOUT: Refusal.TIMED_OUT,
    errno.ENETUNREACH: Refusal.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Refusal.HOST_UNREACHABLE,
    errno.EADDRNOTAVAIL: Refusal.NETWORK_UNREACHABLE,
    errno.EACCES: Refusal.NOT_ALLOWED,
    errno.EPERM: Refusal.NOT_ALLOWED,
}

Opened = Callable[[socket.socket], None]
Failed = Callable[[Refusal], None]


class LooksUp(Protocol):
    """Who knows the addresses of names."""

    def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
        """Find the addresses of a host; ``found`` is called later, or at once for what is remembered; none: no such.

        ``whose`` question it is says with whom the asker shares.
        """
        ...

    def close(self) -> None:
        """Forget what is asked."""
        ...


class Exit:
    """One process's way to its targets; ``sync_at`` is where SYNC leads.

    All users share it. ``whose`` something is decides how much of it there may be (``proto.fair``): None has no others.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: Policy,
        sync_at: Target | None = None,
        names: LooksUp | None = None,
    ) -> None:
        """Names are asked of ``names``, else of the system's resolver."""
        self.loop = loop
        self.watcher = watcher_of(loop)
        self.policy = policy
        self._sync_at = sync_at
        self._names = names or Names(loop)
        self._own: frozenset[str] = frozenset()
        self._links: tuple[str, ...] = ()
        self._own_until_s = 0.0
        self._openings: dict[_Opening, float] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._connecting = Fair(STREAMS_MAX, SPARE)
        self.associations = Fair(DATAGRAMS_MAX, SPARE)

    def open(self, target: Target, opened: Opened, failed: Failed, whose: bytes | None = None) -> Callable[[], None]:
        """Connect; one of the two is called, never before this returns, with a non-blocking socket that nobody watches.

        Returns what calls it off: then neither is called.
        """
        return _Opening(self, target, opened, failed, whose).cancel

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        """Open a way for datagrams; None when there are too many.

        Somebody's ends by itself after SILENCE_S, and is answered some times as much as it sent. This machine's own
        (None) lasts until it is closed, and is answered whatever comes: nobody else bears it.
        """
        return _Datagrams(self, deliver, whose) if self.associations.take(whose) else None

    def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
        """Find the addresses of a host; ``found`` is called later, or at once for what is remembered; none: no such."""
        self._names.look_up(host, found, whose)

    def refuses(self, address: str) -> bool:
        """Whether the policy refuses an address."""
        self._look_around()
        return self.policy.refuses(address, self._own, self._links)

    def close(self) -> None:
        """Look no more names up."""
        self._names.close()

    def begin(self, opening: _Opening, whose: bytes | None) -> bool:
        """Count a connection that is being made; False when there are too many."""
        if not self._connecting.take(whose):
            return False
        self._openings[opening] = self.loop.time()
        if self._sweep is None:  # one timer for all: a timer costs as much as a good part of a connection
            self._sweep = self.loop.call_later(SWEEP_S, self._end_slow)
        return True

    def end(self, opening: _Opening, whose: bytes | None) -> None:
        """It is made, or will not be."""
        if self._openings.pop(opening, None) is not None:
            self._connecting.give(whose)

    def _end_slow(self) -> None:
        oldest = self.loop.time() - CONNECT_S
        for opening, since in tuple(self._openings.items()):
            if since > oldest:
                break
            opening.fail(Refusal.TIMED_OUT)
        self._sweep = self.loop.call_later(SWEEP_S, self._end_slow) if self._openings else None

    def redirected(self, target: Target) -> Target | None:
        """Where SYNC leads."""
        return self._sync_at if target == SYNC else None

    def _look_around(self) -> None:
        # A service that only this machine may reach often listens at its public address too, behind a firewall that
        # does not stand between the machine and itself.
        if self.loop.time() >= self._own_until_s:
            self._own_until_s = self.loop.time() + OWN_S
            ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
            self._own = frozenset(ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in ips)
            six = [(ip.ip[0], ip.network_prefix) for ip in ips if not isinstance(ip.ip, str)]
            self._links = tuple(
                str(ip_network(f"{host}/{prefix}", strict=False)) for host, prefix in six if prefix >= LINK_MIN_BITS
            )


class _Opening:
    """One connection that is being made: the addresses one after another, staggered; the first to answer wins."""

    __slots__ = ("_addresses", "_exit", "_failed", "_next", "_opened", "_port", "_trying", "_whose", "_why")

    def __init__(self, exit_: Exit, target: Target, opened: Opened, failed: Failed, whose: bytes | None) -> None:
        self._exit = exit_
        self._whose = whose
        self._opened: Opened | None = opened
        self._failed = failed
        self._trying: set[socket.socket] = set()
        self._addresses: list[str] = []
        self._next: asyncio.TimerHandle | None = None
        self._why = Refusal.HOST_UNREACHABLE
        loop = exit_.loop
        self._port = target.port
        if not exit_.begin(self, whose):
            loop.call_soon(self.fail, Refusal.FAILED)
        elif target == ECHO:
            loop.call_soon(self._echo)
        elif (other := exit_.redirected(target)) is not None:
            self._port = other.port
            self._begin([other.host])
        elif target == SYNC or exit_.policy.refuses_port(target.port):
            loop.call_soon(self.fail, Refusal.NOT_ALLOWED)
        elif address.parse(target.host) is not None:
            self._judge((target.host,))
        else:
            exit_.look_up(target.host, self._judge, whose)

    def cancel(self) -> None:
        if self._opened is not None:
            self._end()

    def _judge(self, addresses: Sequence[str]) -> None:
        if self._opened is None:
            return
        fit = [one for one in addresses if not self._exit.refuses(one)]
        if addresses and not fit:
            self._exit.loop.call_soon(self.fail, Refusal.NOT_ALLOWED)
        else:
            self._begin(fit[:ADDRESSES_MAX])

    def _begin(self, addresses: list[str]) -> None:
        if self._opened is not None:
            self._addresses = addresses[::-1]
            self._try_next()

    def _try_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if not self._addresses:
            if not self._trying:
                self._exit.loop.call_soon(self.fail, self._why)
            return
        host = self._addresses.pop()
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            self._exit.loop.call_soon(self.fail, Refusal.FAILED)  # no more files may be opened
            return
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a key that is pressed waits for no acknowledgement
        code = one.connect_ex((host, self._port))
        if code not in (0, errno.EINPROGRESS):
            one.close()
            self._why = _NO_WAY.get(code, Refusal.FAILED)
            self._exit.loop.call_soon(self._go_on)
            return
        self._trying.add(one)
        self._exit.watcher.add_writer(one.fileno(), self._answered, one)
        if self._addresses:
            self._next = self._exit.loop.call_later(STAGGER_S, self._try_next)

    def _go_on(self) -> None:
        if self._opened is not None:
            self._try_next()

    def _answered(self, one: socket.socket) -> None:
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._trying.discard(one)
        if code == 0:
            self._exit.watcher.remove_writer(one.fileno())
            opened = self._end()
            opened(one)
            return
        self._exit.watcher.forget(one.fileno())
        one.close()
        self._why = _NO_WAY.get(code, Refusal.FAILED)
        self._try_next()

    def _echo(self) -> None:
        if self._opened is None:
            return
        try:
            here, there = socket.socketpair()
        except OSError:
            self.fail(Refusal.FAILED)
            return
        here.setblocking(False)
        there.setblocking(False)
        _Echo(self._exit.loop, there)
        self._end()(here)

    def fail(self, why: Refusal) -> None:
        """It will not be made."""
        if self._opened is not None:
            self._end()
            self._failed(why)

    def _end(self) -> Opened:
        opened = self._opened
        assert opened is not None
        self._opened = None
        self._exit.end(self, self._whose)
        if self._next is not None:
            self._next.cancel()
        for one in self._trying:
            self._exit.watcher.forget(one.fileno())
            one.close()
        self._trying.clear()
        return opened


class _Echo:
    """Gives back what it is sent, ECHO_MAX_BYTES at most."""

    __slots__ = ("_left", "_loop", "_one", "_rest")

    def __init__(self, loop: asyncio.AbstractEventLoop, one: socket.socket) -> None:
        self._loop = loop
        self._one = one
        self._left = ECHO_MAX_BYTES
        self._rest = b""
        loop.add_reader(one.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._one.recv(min(self._left, 1 << 16))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._left -= len(data)
        if not data:
            self._close()
            return
        self._rest = data
        self._loop.remove_reader(self._one.fileno())
        self._write()

    def _write(self) -> None:
        try:
            sent = self._one.send(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        waited = len(self._rest)
        self._rest = self._rest[sent:]
        fd = self._one.fileno()
        if self._rest:
            self._loop.add_writer(fd, self._write)
            return
        if waited:
            self._loop.remove_writer(fd)
        if self._left:
            self._loop.add_reader(fd, self._readable)
        else:
            self._close()

    def _close(self) -> None:
        self._loop.remove_reader(self._one.fileno())
        self._loop.remove_writer(self._one.fileno())
        self._one.close()


class _Peer:
    """Somebody that datagrams were sent to, and how much they may still answer."""

    __slots__ = ("may_bytes",)

    def __init__(self) -> None:
        self.may_bytes = ANSWER_FREE_BYTES


class _Datagrams:
    """One association: answers come only from whom it spoke to; somebody's are some times as much as they sent."""

    def __init__(self, exit_: Exit, deliver: Callable[[Target, bytes], None], whose: bytes | None) -> None:
        self._exit = exit_
        self._whose = whose
        self._deliver = deliver
        self._sockets: dict[int, socket.socket] = {}
        self._peers: OrderedDict[tuple[str, int], _Peer] = OrderedDict()
        self._used_s = time.monotonic()
        self._closed = False
        self._waiting_bytes = 0
        self._timer = None if whose is None else exit_.loop.call_later(SILENCE_S, self._look)

    def send(self, target: Target, data: bytes) -> None:
        """Pass one on, or drop it."""
        if self._closed or self._exit.policy.refuses_port(target.port):
            return
        self._used_s = time.monotonic()
        if address.parse(target.host) is not None:
            self._send((target.host,), target.port, data)
        elif (waiting_bytes := self._waiting_bytes + max(_LEAST_BYTES, len(data))) <= WAITING_MAX_BYTES:
            self._waiting_bytes = waiting_bytes
            self._exit.look_up(target.host, lambda found: self._found(found, target.port, data), self._whose)

    def close(self) -> None:
        """End it."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._exit.associations.give(self._whose)
        for one in self._sockets.values():
            self._exit.loop.remove_reader(one.fileno())
            one.close()
        self._sockets.clear()

    def _found(self, addresses: Sequence[str], port: int, data: bytes) -> None:
        self._waiting_bytes -= max(_LEAST_BYTES, len(data))
        self._send(addresses, port, data)

    def _send(self, addresses: Sequence[str], port: int, data: bytes) -> None:
        host = next((one for one in addresses if not self._exit.refuses(one)), None)
        if self._closed or host is None:
            return
        peer = self._peers.get((host, port))
        if peer is None:
            peer = self._peers[host, port] = _Peer()
            if len(self._peers) > PEERS_MAX:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end((host, port))
        peer.may_bytes += ANSWER_FACTOR * len(data)
        with suppress(OSError):  # a datagram may be lost
            self._socket(socket.AF_INET6 if ":" in host else socket.AF_INET).sendto(data, (host, port))

    def _socket(self, family: int) -> socket.socket:
        one = self._sockets.get(family)
        if one is None:
            one = self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
            one.setblocking(False)
            self._exit.loop.add_reader(one.fileno(), self._readable, one)
        return one

    def _readable(self, one: socket.socket) -> None:
        for _ in range(16):
            try:
                data, (host, port, *_rest) = one.recvfrom(DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier datagram met on its way
            peer = self._peers.get((host, port))
            if peer is None or (self._whose is not None and peer.may_bytes < len(data)):
                continue
            peer.may_bytes -= len(data)
            self._used_s = time.monotonic()
            self._deliver(Target(host, port), data)
            if self._closed:
                return

    def _look(self) -> None:
        silent_s = time.monotonic() - self._used_s
        if silent_s >= SILENCE_S:
            self.close()
        else:
            self._timer = self._exit.loop.call_later(SILENCE_S - silent_s, self._look)
