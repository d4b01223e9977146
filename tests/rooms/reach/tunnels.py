"""A tunnel and a hub on loopback, with whatever stands between them; and clients that have no gate."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from outlast.rooms.reach.io.carrier import Association, Refusal
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.outer import Outer, TcpOuter, open_tcp
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.proto.address import Target


class Local:
    """An exit that leads to loopback and nowhere else."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def open(
        self, target: Target, opened: Callable[[socket.socket], None], failed: Callable[[Refusal], None]
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

    def datagrams(self, deliver: Callable[[Target, bytes], None]) -> Association | None:
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

    def __init__(self, target: Target, isolation: bytes = b"", early: bytes = b"") -> None:
        self.target = target
        self.isolation = isolation
        self.gone = False
        self._early = early
        self.way: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    def take(self) -> tuple[socket.socket, bytes]:
        """The way is open."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
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

    async def __aenter__(self) -> Bridge:
        self._echo = await asyncio.start_server(_echo, "127.0.0.1", 0, limit=1 << 20, backlog=2048)
        self.echo = Target("127.0.0.1", self._echo.sockets[0].getsockname()[1])
        self.tunnel = Tunnel(self.open_outer, self.secret)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tunnel.close()
        self.hub.close()
        self.loop.remove_reader(self._listener)
        self._listener.close()
        self._echo.close()

    async def open_outer(self) -> Outer:
        """Plain TCP to the hub; a harness puts what it likes in between."""
        return await open_tcp(self.at)

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
