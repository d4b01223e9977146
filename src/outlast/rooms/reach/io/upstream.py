"""Somebody's proxy as a carrier: SOCKS 5, or CONNECT of HTTP; and how the SOCKS port of a child is dialled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from outlast.address import AddressError, Target
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.direct import Dialled
from outlast.rooms.reach.io.exit import DATAGRAM_MAX_BYTES, Exit, Failed, Opened
from outlast.rooms.reach.io.pump import watch_over
from outlast.rooms.reach.proto.bridge import ProxyBridge
from outlast.rooms.reach.proto.exit_policy import EVERYTHING, Policy
from outlast.rooms.reach.proto.http_proxy import HttpAsking
from outlast.rooms.reach.proto.request import Credentials
from outlast.socks import NOWHERE, Asking, Command, SocksError, unwrap_datagram, wrap_datagram

ANSWER_S: Final = 30.0
"""A proxy answers when its own connection stands, which may go through several others."""
NEAR: Final = Policy(allowed=EVERYTHING, ports_refused=())
"""What a person named as their proxy may stand anywhere."""
EARLY_MAX: Final = 16
"""Datagrams that wait until the proxy has answered."""
DATAGRAMS_AT_ONCE: Final = 16
_READ_BYTES: Final = 4096


class Proxy:
    """One proxy: dials targets through it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bridge: ProxyBridge) -> None:
        self._exit = Exit(loop, NEAR)
        self._at = bridge.at
        self._asking = Asking if bridge.scheme == "socks5" else HttpAsking
        named = bool(bridge.user or bridge.password)
        self._credentials = Credentials(bridge.user.encode(), bridge.password.encode()) if named else None
        self._takes_datagrams = bridge.scheme == "socks5"

    def dial(
        self, target: Target, opened: Opened, failed: Failed, credentials: Credentials | None = None
    ) -> Callable[[], None]:
        """Connect to a target through the proxy, with other credentials if need be; the contract is ``Exit.open``'s."""
        try:
            asking = self._asking(target, credentials or self._credentials)
        except AddressError:
            return self._exit.loop.call_soon(failed, Refusal.NOT_ALLOWED).cancel
        return _Dialling(self._exit, self._at, asking, opened, failed).cancel

    def associate(self, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """A way for datagrams by SOCKS 5's UDP ASSOCIATE, where the proxy may have one: it has not refused one yet."""
        if not self._takes_datagrams:
            return None
        return _Datagrams(self._exit, self._at, self._credentials, deliver, self._failed)

    def _failed(self, why: Refusal) -> None:
        if why in (Refusal.FAILED, Refusal.NOT_ALLOWED):  # its own word, or its end instead of one
            self._takes_datagrams = False


async def dialled(proxy: Proxy, target: Target, credentials: Credentials | None = None) -> socket.socket:
    """The same for who can wait; raises ConnectionError when the proxy does not lead there."""
    connected: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    def failed(why: Refusal) -> None:
        connected.set_exception(ConnectionError(why.name))

    cancel = proxy.dial(target, connected.set_result, failed, credentials)
    try:
        return await connected
    except asyncio.CancelledError:
        if connected.done() and not connected.cancelled() and connected.exception() is None:
            connected.result().close()
        else:
            cancel()
        raise


def upstream(loop: asyncio.AbstractEventLoop, bridge: ProxyBridge) -> Dialled:
    """The carrier that a proxy is."""
    proxy = Proxy(loop, bridge)
    return Dialled(loop, proxy.dial, proxy.associate)


class _Dialling:
    """One stream that is being asked for."""

    __slots__ = ("_asking", "_cancel", "_failed", "_limit", "_loop", "_one", "_opened")

    def __init__(self, exit_: Exit, proxy: Target, asking: Asking | HttpAsking, opened: Opened, failed: Failed) -> None:
        self._loop = exit_.loop
        self._asking = asking
        self._opened = opened
        self._failed = failed
        self._one: socket.socket | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._cancel = exit_.open(proxy, self._connected, lambda _: failed(Refusal.LOST))

    def cancel(self) -> None:
        if self._one is None:
            self._cancel()
        else:
            self._leave().close()

    def _connected(self, one: socket.socket) -> None:
        self._one = one
        self._limit = self._loop.call_later(ANSWER_S, self._end, Refusal.TIMED_OUT)
        self._loop.add_reader(one.fileno(), self._readable)
        with suppress(OSError):  # a reset is seen by the reader
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.send(self._asking.first())

    def _readable(self) -> None:
        one = self._one
        assert one is not None
        try:
            # What comes behind the answer is the target's, and stays in the socket.
            data = one.recv(_READ_BYTES, socket.MSG_PEEK)
            if not data:
                self._end(Refusal.FAILED)
                return
            say, reached = self._asking.receive(data)
            one.recv(len(data) - (len(reached.early) if reached else 0))
            if say:
                one.send(say)
        except BlockingIOError:
            return
        except SocksError as error:
            self._end(_REFUSALS.get(error.code, Refusal.FAILED))
        except OSError:
            self._end(Refusal.FAILED)
        else:
            if reached:
                self._opened(self._leave())

    def _end(self, why: Refusal) -> None:
        self._leave().close()
        self._failed(why)

    def _leave(self) -> socket.socket:
        one, limit = self._one, self._limit
        assert one is not None
        assert limit is not None
        limit.cancel()
        self._loop.remove_reader(one.fileno())
        return one


class _Datagrams:
    """One association: datagrams go while the connection stands by which it was asked for, and then by another one."""

    def __init__(
        self,
        exit_: Exit,
        proxy: Target,
        credentials: Credentials | None,
        deliver: Callable[[Target, bytes], None],
        failed: Failed,
    ) -> None:
        self._exit = exit_
        self._loop = exit_.loop
        self._proxy = proxy
        self._credentials = credentials
        self._deliver = deliver
        self._tell = failed
        self._control: socket.socket | None = None
        self._udp: socket.socket | None = None
        self._early: list[bytes] = []
        self._closed = False
        self._ask()

    def send(self, target: Target, data: bytes) -> None:
        """Pass one on, or drop it."""
        try:
            datagram = wrap_datagram(target, data)
        except AddressError:
            return
        if self._udp is not None:
            with suppress(OSError):  # a datagram may be lost
                self._udp.send(datagram)
        elif not self._closed:
            if self._cancel is None:
                self._ask()
            if len(self._early) < EARLY_MAX:
                self._early.append(datagram)

    def close(self) -> None:
        """End it."""
        if not self._closed:
            self._closed = True
            self._leave()

    def _ask(self) -> None:
        self._asking = Asking(NOWHERE, self._credentials, Command.ASSOCIATE)
        self._cancel: Callable[[], None] | None = _Dialling(
            self._exit, self._proxy, self._asking, self._opened, self._failed
        ).cancel

    def _leave(self) -> None:
        """Have no way, nor ask for one."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        for one in (self._control, self._udp):
            if one is not None:
                self._loop.remove_reader(one.fileno())
                one.close()
        self._control = self._udp = None

    def _failed(self, why: Refusal) -> None:
        self._closed = True
        self._tell(why)

    def _opened(self, control: socket.socket) -> None:
        self._control, self._cancel = control, None
        watch_over(control)
        self._loop.add_reader(control.fileno(), self._control_readable)
        try:
            # Where the proxy says that it listens is often an address that only it can reach: it is taken at its port.
            self._udp = socket.socket(control.family, socket.SOCK_DGRAM)
            self._udp.setblocking(False)
            self._udp.connect((control.getpeername()[0], self._asking.bound.port))
        except OSError:
            self.close()
            return
        self._loop.add_reader(self._udp.fileno(), self._readable)
        early, self._early = self._early, []
        for datagram in early:
            with suppress(OSError):
                self._udp.send(datagram)

    def _control_readable(self) -> None:
        assert self._control is not None
        try:
            if self._control.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._leave()  # many a proxy ends it after a silence

    def _readable(self) -> None:
        for _ in range(DATAGRAMS_AT_ONCE):
            if self._udp is None:
                return
            try:
                datagram = self._udp.recv(DATAGRAM_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier datagram met on its way
            if (found := unwrap_datagram(datagram)) is not None:
                self._deliver(*found)


_REFUSALS: Final = {one.value: one for one in Refusal}
