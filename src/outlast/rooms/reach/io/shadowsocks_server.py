"""A server of Shadowsocks, streams and datagrams: for the free side.

Whoever does not know the key learns nothing from how it behaves: it reads on, without an answer and without a limit of
its own, until they hang up.
"""

from __future__ import annotations

import socket
from base64 import b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from outlast.address import Target, household
from outlast.errors import UsageError
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.ciphers import has_aes
from outlast.rooms.reach.io.exit import DATAGRAMS_MAX, SPARE, Exit
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.listener import Listener
from outlast.rooms.reach.io.pump import Meter, Pump, yard_of
from outlast.rooms.reach.io.shadowsocks import DATAGRAM_MAX_BYTES, DATAGRAMS_AT_ONCE, cipher_of
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.proto.shadowsocks import ClockError, ReplayError, Request, ShadowsocksError
from outlast.rooms.reach.proto.shadowsocks_2022 import Sip022

UNKNOWN_MAX: Final = 2048
"""Connections that have asked for nothing that is understood; the oldest goes for the newest."""
STREAMS_OF_USER_MAX: Final = 8192
SOURCES_MAX: Final = DATAGRAMS_MAX + SPARE  # no more than that go on at an exit
SILENCE_S: Final = 100.0  # less than an exit's: what it ended is not asked again
_READ_BYTES: Final = 1 << 16


class ShadowsocksListener:
    """One listener; ``at`` is where, ``turned_away`` counts what was not let in, by its class."""

    def __init__(
        self,
        exit_: Exit,
        at: Target,
        method: str,
        password: str,
        name: str,
        users: tuple[bytes, ...] = (),
        meter: Meter | None = None,
    ) -> None:
        """Listen; ``name`` is the host in the link, ``meter`` counts its streams. Raises UsageError.

        With ``users``, their keys, nobody is let in by ``password`` alone, and there is a link for each.
        """
        self.meter = meter
        self.loop, self.exit = exit_.loop, exit_
        self.cipher = cipher_of(method, password, users)
        self.seen = self.cipher.replays()
        self.turned_away: Counter[str] = Counter()
        self.unknown: OrderedDict[_Caller, None] = OrderedDict()
        self.pumps: dict[Pump, bytes] = {}  # with whose they are
        self.streams: Counter[bytes] = Counter()  # by whose they are, with those that are being made
        sock = listen(at)
        host, port, *_ = sock.getsockname()
        self.at = Target(host, port)
        self._bridge = ShadowsocksBridge(Target(name, port), method, password)
        self.links = self._links(users)
        try:
            self._datagrams = _Datagrams(self, sock.family)
        except OSError as error:
            sock.close()
            raise UsageError(
                "cannot listen for datagrams at %(host)s:%(port)s: %(error)s", host=host, port=port, error=error
            ) from None
        self._listener = Listener(self.loop, sock, self._took)

    def admit(self, users: tuple[bytes, ...]) -> None:
        """From now on these users' keys let in, and who has another one is out.

        For a server that has had users from the start.
        """
        assert isinstance(self.cipher, Sip022)
        self.cipher.admit(users)
        self.links = self._links(users)
        for pump, user in tuple(self.pumps.items()):
            if not self.knows(user):
                pump.close()

    def knows(self, user: bytes) -> bool:
        """Whether a user is one still."""
        return not isinstance(self.cipher, Sip022) or self.cipher.knows(user)

    def _links(self, users: tuple[bytes, ...]) -> tuple[str, ...]:
        password = self._bridge.password
        whole = [f"{password}:{b64encode(key).decode()}" for key in users] or [password]
        return tuple(write_bridge(replace(self._bridge, password=one)) for one in whole)

    async def close(self) -> None:
        """End it with all its streams."""
        self.end()

    def end(self) -> None:
        """The same, at once."""
        self._listener.close()
        self._datagrams.close()
        for caller in tuple(self.unknown):
            caller.close()
        for pump in tuple(self.pumps):
            pump.close()

    def turn_away(self, wrong: ShadowsocksError) -> None:
        """Count what was not let in."""
        match wrong:
            case ClockError():
                self.turned_away["wrong-clock"] += 1
            case ReplayError():
                self.turned_away["replay"] += 1
            case _:
                self.turned_away["wrong-key"] += 1

    def _took(self, one: socket.socket, _address: object) -> None:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _Caller(self, one)
        if len(self.unknown) > UNKNOWN_MAX:
            self.unknown.popitem(last=False)[0].close()


class _Caller:
    """A connection until its request is understood, and for ever if it never is."""

    __slots__ = ("_acceptor", "_cancel", "_one", "_server", "_user")

    def __init__(self, server: ShadowsocksListener, one: socket.socket) -> None:
        self._server, self._one = server, one
        self._acceptor = server.cipher.acceptor(server.seen)
        self._cancel: Callable[[], None] | None = None
        self._user: bytes | None = None
        server.unknown[self] = None
        server.loop.add_reader(one.fileno(), self._readable)

    def close(self) -> None:
        self._server.unknown.pop(self, None)
        if self._cancel:
            self._cancel()
        if self._user is not None:
            self._server.streams[self._user] -= 1
        self._server.loop.remove_reader(self._one.fileno())
        self._one.close()

    def _readable(self) -> None:
        try:
            data = self._one.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        yard = yard_of(self._server.loop)
        try:
            request = self._acceptor.feed(data, yard.into, yard.out)
        except ShadowsocksError as wrong:
            self._server.turn_away(wrong)
            self._acceptor = _Silence()
            return
        if request and not self._server.knows(request.user):
            self._acceptor = _Silence()
        elif request and self._server.streams[request.user] >= STREAMS_OF_USER_MAX:
            self.close()
        elif request:
            self._user = request.user
            self._server.streams[request.user] += 1
            self._server.loop.remove_reader(self._one.fileno())
            self._cancel = self._server.exit.open(
                request.target, lambda far: self._join(far, request), self._failed, request.user
            )

    def _join(self, far: socket.socket, request: Request) -> None:
        server = self._server
        if not server.knows(request.user):
            self._cancel = None
            far.close()
            self.close()
            return
        del server.unknown[self]
        if server.meter is not None:
            server.meter(len(request.said))  # the pump counts what it reads itself

        def done(_: Exception | None) -> None:
            server.streams[server.pumps.pop(pump)] -= 1

        pump = Pump(
            server.loop,
            *(self._one, far, request.opener, request.sealer, request.said),
            done=done,
            meter=server.meter,
        )
        server.pumps[pump] = request.user

    def _failed(self, why: Refusal) -> None:
        self._cancel = None
        self.close()


class _Silence:
    """What reads on after bytes that were nobody's."""

    def feed(self, data: bytes, into: memoryview, out: memoryview) -> Request | None:
        return None


class _Source:
    """Somebody's datagrams: the way they take, and where answers go."""

    __slots__ = ("address", "association", "used_s", "whose")

    def __init__(self, address: tuple[str, int], used_s: float, whose: bytes) -> None:
        self.address, self.used_s, self.whose = address, used_s, whose
        self.association: Association | None = None


class _Datagrams:
    """The socket for datagrams."""

    def __init__(self, server: ShadowsocksListener, family: int) -> None:
        self._server = server
        self._packets = server.cipher.packet_server()
        self._sources: OrderedDict[bytes | tuple[str, int], _Source] = OrderedDict()
        self._one = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._one.bind((server.at.host, server.at.port))
        except OSError:
            self._one.close()
            raise
        self._one.setblocking(False)
        server.loop.add_reader(self._one.fileno(), self._readable)

    def close(self) -> None:
        self._server.loop.remove_reader(self._one.fileno())
        self._one.close()
        for source in self._sources.values():
            if source.association:
                source.association.close()
        self._sources.clear()

    def _readable(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                packet, address = self._one.recvfrom(DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier answer met on its way
            now = self._server.loop.time()
            try:
                session, target, data = self._packets.open(packet, now)
            except ShadowsocksError as wrong:
                self._server.turn_away(wrong)
                continue
            source = self._source(address, session, now)
            if source:
                source.address, source.used_s = address, now
                if source.association:
                    source.association.send(target, data)

    def _source(self, address: tuple[str, int], session: bytes, now: float) -> _Source | None:
        key = session or address
        source = self._sources.get(key)
        if source and now - source.used_s < SILENCE_S:
            self._sources.move_to_end(key)
            return source
        if source or len(self._sources) >= SOURCES_MAX:  # the one whose last datagram is oldest has ended by itself
            self._end(key if source else next(iter(self._sources)))
        # Who has no key of their own is known by where they are.
        whose = self._packets.user_of(session) or household(address[0]).encode()
        found = _Source(address, now, whose)

        def deliver(origin: Target, data: bytes) -> None:
            found.used_s = self._server.loop.time()
            with suppress(OSError, ShadowsocksError):  # a datagram may be lost
                self._one.sendto(self._packets.seal(session, origin, data), found.address)

        found.association = self._server.exit.datagrams(deliver, whose)
        if found.association is None:
            own = next((key for key, source in self._sources.items() if source.whose == whose), None)
            if own is not None:
                self._end(own)
                found.association = self._server.exit.datagrams(deliver, whose)
        if found.association is None:
            return None
        self._sources[key] = found
        return found

    def _end(self, key: bytes | tuple[str, int]) -> None:
        association = self._sources.pop(key).association
        if association:
            association.close()


def best_method() -> str:
    """The method for a new server: AES where this processor has it, since elsewhere ChaCha20 is faster."""
    return "2022-blake3-aes-256-gcm" if has_aes() else "2022-blake3-chacha20-poly1305"
