"""A tunnel and a hub on loopback, with whatever stands between them; and clients that have no gate."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

from outlast.address import Target
from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.outer import Outer, TcpOuter, broken, dial
from outlast.rooms.reach.io.tunnel import Tunnel


class Local:
    """An exit that leads to loopback and nowhere else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self,
        target: Target,
        opened: Callable[[socket.socket], None],
        failed: Callable[[Refusal], None],
        whose: bytes | None = None,
    ) -> Callable[[], None]:
        """Connect."""

        async def connect() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            try:
                await self._loop.sock_connect(sock, (target.host, target.port))
            except OSError:
                sock.close()
                failed(Refusal.REFUSED)
            else:
                opened(sock)

        task = self._loop.create_task(connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        """Whatever is sent comes back from where it went."""
        return _Mirror(self._loop, deliver)


class _Mirror:
    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Target, bytes], None]) -> None:
        self._loop = loop
        self._deliver = deliver

    def send(self, target: Target, data: bytes) -> None:
        self._loop.call_soon(self._deliver, target, data)

    def close(self) -> None:
        pass


class Visitor:
    """A client that waits for its way."""

    def __init__(self, target: Target, isolation: bytes = b"", early: bytes = b"", small: bool = False) -> None:
        self.target = target
        self._small = small
        self.isolation = isolation
        self.gone = False
        self._early = early
        self.way: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    def take(self) -> tuple[socket.socket, bytes]:
        """The way is open."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        if self._small:
            for one in (near, far):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        if self.way.done():
            near.close()
        else:
            self.way.set_result(near)
        return far, self._early

    def refuse(self, refusal: Refusal) -> None:
        """There is none."""
        if not self.way.done():
            self.way.set_exception(ConnectionRefusedError(refusal.name))


class Bridge:
    """A hub that listens on loopback, a tunnel to it, and an echo behind it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.secret = os.urandom(32)
        self.hub = Hub(Local(self.loop))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.at = Target(*self._listener.getsockname()[:2])
        self.loop.add_reader(self._listener, self._accept)
        self.accepted = 0
        self.tunnel: Tunnel
        self.border: Border | None = None
        self._outers: list[TcpOuter] = []
        self.most_at_once = 0  # outers of the client

    async def __aenter__(self) -> Bridge:
        self._echo = await asyncio.start_server(_echo, "127.0.0.1", 0, limit=1 << 20, backlog=2048)
        self.echo = Target("127.0.0.1", self._echo.sockets[0].getsockname()[1])
        self.tunnel = Tunnel(self.open_outer, self.secret)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tunnel.close()
        self.hub.close()
        if self.border is not None:
            self.border.close()
        self.loop.remove_reader(self._listener)
        self._listener.close()
        self._echo.close()

    async def open_outer(self) -> Outer:
        """Plain TCP to the hub, or to what stands in between."""
        at = self.border.at if self.border is not None else self.at
        try:
            outer = TcpOuter(self.loop, await dial(self.loop, at.host, at.port))
        except OSError as error:
            raise broken(error) from None
        self._outers = [one for one in self._outers if not one._closed] + [outer]
        self.most_at_once = max(self.most_at_once, len(self._outers))
        return outer

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self.accepted += 1
        self.hub.accept(TcpOuter(self.loop, sock), (os.urandom(32), self.secret))

    async def visit(
        self, target: Target | None = None, isolation: bytes = b"", early: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stream to the echo, or elsewhere."""
        visitor = Visitor(target or self.echo, isolation, early)
        self.tunnel.carry(visitor)
        return await asyncio.open_connection(sock=await visitor.way, limit=1 << 20)

    def send_strangers_away(self) -> None:
        """Those that have not greeted wait no longer."""
        self.hub.close()

    async def hang_up(self) -> None:
        """A client that leaves in the middle."""
        reader, writer = await self.visit()
        writer.write(os.urandom(50_000))
        await reader.read(1)
        writer.transport.abort()

    async def send_and_compare(self, data: bytes) -> None:
        """What is sent to the echo comes back as it was."""
        reader, writer = await self.visit()

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        came = await reader.read(-1)
        await sending
        writer.close()
        assert came == data


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Border:
    """A censor's box between tunnel and hub: freezes or cuts each connection after so many bytes, or seconds."""

    def __init__(
        self, to: Target, *, freeze_bytes: int | None = None, cut_bytes: int | None = None, cut_s: float | None = None
    ) -> None:
        self._to = to
        self._freeze_bytes = freeze_bytes
        self._cut_bytes = cut_bytes
        self._cut_s = cut_s
        self._loop = asyncio.get_running_loop()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        self.at = Target(*self._listener.getsockname()[:2])
        self._pairs: set[_Pair] = set()
        self.connections = self.frozen = self.cut = 0

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for pair in list(self._pairs):
            pair.close()

    def change(self, *, freeze_bytes: int | None, cut_s: float | None) -> None:
        """Do otherwise with what comes now."""
        self._freeze_bytes = freeze_bytes
        self._cut_s = cut_s

    def shut(self) -> None:
        """Reset all that is open now."""
        for pair in list(self._pairs):
            pair.cut()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection((self._to.host, self._to.port))
        self.connections += 1
        pair = _Pair(self, near, far)
        self._pairs.add(pair)
        if self._cut_s is not None:
            self._loop.call_later(self._cut_s, pair.cut)

    def beyond(self, carried: int) -> int:
        """How many of so many bytes of a direction are too many: those are swallowed."""
        return max(0, carried - self._freeze_bytes) if self._freeze_bytes is not None else 0

    def cuts(self, carried: int) -> bool:
        """Whether a connection that carried so much is reset."""
        return self._cut_bytes is not None and carried > self._cut_bytes

    def gone(self, pair: _Pair) -> None:
        self._pairs.discard(pair)


class _Pair:
    """One connection through the border."""

    def __init__(self, border: Border, near: socket.socket, far: socket.socket) -> None:
        self._border = border
        self._loop = asyncio.get_running_loop()
        self._socks = (near, far)
        self._carried = {near: 0, far: 0}
        self._closed = False
        self._frozen = False
        for one, other in ((near, far), (far, near)):
            one.setblocking(False)
            self._loop.add_reader(one, self._move, one, other)

    def _move(self, one: socket.socket, other: socket.socket, waiting: bytes = b"") -> None:
        try:
            data = waiting or one.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self.cut()
            return
        if not data:
            self.close()
            return
        self._carried[one] += len(data) if not waiting else 0
        if over := self._border.beyond(self._carried[one]):
            self._border.frozen += not self._frozen
            self._frozen = True
            data = data[:-over]
            if not data:
                return
        if self._border.cuts(self._carried[one]):
            self.cut()
            return
        try:
            sent = other.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut()
            return
        if sent < len(data):
            rest = data[sent:]
            self._loop.remove_reader(one)
            self._loop.add_writer(other, self._again, one, other, rest)

    def _again(self, one: socket.socket, other: socket.socket, rest: bytes) -> None:
        self._loop.remove_writer(other)
        self._loop.add_reader(one, self._move, one, other)
        self._move(one, other, rest)

    def cut(self) -> None:
        """Reset both sides."""
        if not self._closed:
            self._border.cut += 1
            for sock in self._socks:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._border.gone(self)
            for sock in self._socks:
                self._loop.remove_reader(sock)
                self._loop.remove_writer(sock)
                sock.close()
