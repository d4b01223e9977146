"""A server of Shadowsocks as a carrier: one connection for each stream, and datagrams."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from outlast.address import AddressError, Target
from outlast.errors import UsageError
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.pump import Loop, Pump, yard_of
from outlast.rooms.reach.io.upstream import NEAR
from outlast.rooms.reach.proto import shadowsocks, shadowsocks_2022
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge
from outlast.rooms.reach.proto.shadowsocks import (
    Cipher,
    Opener,
    Packets,
    Sealer,
    ShadowsocksError,
    Sip004,
    turn_whole,
)
from outlast.rooms.reach.proto.shadowsocks_2022 import Sip022

FIRST_WORDS_S: Final = 0.02
"""So long the head waits for the first bytes of the client, so that both are one packet; some servers speak first."""
DATAGRAM_MAX_BYTES: Final = 65_536
DATAGRAMS_AT_ONCE: Final = 16
WAITING_MAX: Final = 16


def cipher_of(method: str, password: str, users: tuple[bytes, ...] = ()) -> Cipher:
    """The edition of Shadowsocks that has this method; raises UsageError for a method or password that is none.

    ``users`` are the keys of a server's users, where they have keys of their own (SIP022's identity headers).
    """
    if method in shadowsocks.METHODS:
        return Sip004(method, password, secrets.token_bytes, time.time)
    if method in shadowsocks_2022.METHODS:
        return Sip022(method, password, secrets.token_bytes, time.time, users)
    known = ", ".join((*shadowsocks_2022.METHODS, *shadowsocks.METHODS))
    raise UsageError(
        "Shadowsocks method %(method)r is not supported: use one of %(known)s", method=method[:40], known=known
    )


class Shadowsocks:
    """The carrier that a server of Shadowsocks is."""

    def __init__(self, loop: Loop, bridge: ShadowsocksBridge) -> None:
        """Raises UsageError for a method or password that is none."""
        self._loop, self._at = loop, bridge.at
        self._cipher = cipher_of(bridge.method, bridge.password)
        self._exit = Exit(loop, NEAR)
        self._waiting: dict[Client, Callable[[], None]] = {}
        self._pumps: set[Pump] = set()
        self._associations: set[_Datagrams] = set()

    def carry(self, client: Client) -> None:
        """Connect to the server, which learns the target with the client's first bytes."""
        try:
            sealer, opener = self._cipher.request(client.target)
        except AddressError:
            client.refuse(Refusal.NOT_ALLOWED)
            return

        def opened(far: socket.socket) -> None:
            del self._waiting[client]
            self._join(client, far, sealer, opener)

        def failed(why: Refusal) -> None:
            del self._waiting[client]
            client.refuse(Refusal.LOST)  # it is the server that is not reached; of targets nothing is ever said

        self._waiting[client] = self._exit.open(self._at, opened, failed)

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Datagrams: each association is a session of its own."""
        association = _Datagrams(self._loop, self._cipher.packets(), deliver, self._associations)
        self._exit.look_up(self._at.host, lambda found: association.begin(found, self._at.port))
        return association

    def close(self) -> None:
        """End all."""
        for client, cancel in self._waiting.items():
            cancel()
            client.refuse(Refusal.LOST)
        self._waiting.clear()
        for pump in tuple(self._pumps):
            pump.close()
        for association in tuple(self._associations):
            association.close()
        self._exit.close()

    def _join(self, client: Client, far: socket.socket, sealer: Sealer, opener: Opener) -> None:
        near, early = client.take()
        yard = yard_of(self._loop)
        first = turn_whole(sealer, early, yard.into, yard.out)
        pump = Pump(self._loop, near, far, sealer, opener, first, lambda _: self._pumps.discard(pump))
        self._pumps.add(pump)
        if not first:
            self._loop.call_later(FIRST_WORDS_S, pump.nudge)


class _Datagrams:
    """One association: a socket to the server."""

    def __init__(
        self, loop: Loop, packets: Packets, deliver: Callable[[Target, bytes], None], all_: set[_Datagrams]
    ) -> None:
        self._loop, self._packets, self._deliver, self._all = loop, packets, deliver, all_
        self._one: socket.socket | None = None
        self._early: list[bytes] = []
        all_.add(self)

    def begin(self, addresses: Sequence[str], port: int) -> None:
        """Open the socket, now that the server's addresses are known."""
        if self not in self._all or not addresses:
            return
        host = addresses[0]
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        one.setblocking(False)
        try:
            one.connect((host, port))
        except OSError:
            one.close()
            return
        self._one = one
        self._loop.add_reader(one.fileno(), self._readable)
        for packet in self._early:
            self._send(packet)
        self._early.clear()

    def send(self, target: Target, data: bytes) -> None:
        """Seal one and pass it on, or drop it."""
        try:
            packet = self._packets.seal(target, data)
        except (ShadowsocksError, AddressError):
            return
        if self._one is not None:
            self._send(packet)
        elif len(self._early) < WAITING_MAX:
            self._early.append(packet)

    def close(self) -> None:
        """End it."""
        self._all.discard(self)
        if self._one is not None:
            self._loop.remove_reader(self._one.fileno())
            self._one.close()
            self._one = None

    def _send(self, packet: bytes) -> None:
        if self._one is not None:
            with suppress(OSError):  # a datagram may be lost
                self._one.send(packet)

    def _readable(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            if self._one is None:
                return
            try:
                packet = self._one.recv(DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier datagram met on its way
            with suppress(ShadowsocksError):
                self._deliver(*self._packets.open(packet))
