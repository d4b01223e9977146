"""Bridges of Outlast's behind somebody else's pluggable transport, such as obfs4: both ends, without any tor.

The child at the client gives a stream to the child at the bridge, which brings it to a port of loopback, an Extended
ORPort as tor has one: only who can read its cookie is heard there. On the stream runs the mux, whose greeting shows
who is a user.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final

import msgspec
from msgspec.structs import replace

from outlast.address import Target
from outlast.errors import OutlastError, StorageError
from outlast.rooms.reach.io.carrier import Association, Client
from outlast.rooms.reach.io.children import PrivateFolder
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.listener import Listener
from outlast.rooms.reach.io.outer import Outer, TcpOuter
from outlast.rooms.reach.io.pluggable import Child, find_program
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.proto.bridge import PluggedBridge
from outlast.rooms.reach.proto.ext_or_port import ExtOrPortError, Receiver, make_cookie
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.proto.pluggable import ClientDemand, ServerDemand, SMethod

INTRODUCING_MAX: Final = 256
INTRODUCTION_S: Final = 10.0


class PluggedServer(msgspec.Struct, frozen=True, tag="plugged"):
    """A bridge behind a pluggable transport that a child speaks."""

    listen: Target
    name: str  # the host in its link
    transport: str  # such as "obfs4"
    secrets: tuple[bytes, ...]  # 32 B each, one for each user
    folder: str  # where the child keeps its keys, so that links stay good


class Plugged:
    """The carrier that such a bridge is."""

    def __init__(self, bridge: PluggedBridge, tell: Callable[[OutlastError], None], hop_bytes: int = 0) -> None:
        """Start the child; ``tell`` hears each time why there is no way. Raises ChildError for want of a program."""
        self._bridge = bridge
        self._folder = PrivateFolder()
        demand = ClientDemand(str(self._folder.path / bridge.transport), True, (bridge.transport,))
        self._child = Child([find_program(bridge.transport)], demand)

        def changed(up: bool, error: OutlastError | None) -> None:
            if error is not None:
                tell(error)

        self.tunnel = Tunnel(self._open, bridge.secret, changed=changed, hop_bytes=hop_bytes)
        self._ending: asyncio.Task[None] | None = None

    def carry(self, client: Client) -> None:
        """Take the client to its target through the mux."""
        self.tunnel.carry(client)

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        """Open a way for datagrams through the mux."""
        return self.tunnel.associate(isolation, deliver)

    def close(self) -> None:
        """End all streams, and then the child."""
        self.tunnel.close()
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _open(self) -> Outer:
        sock = await self._child.dial(self._bridge.transport, self._bridge.at, self._bridge.args)
        return TcpOuter(asyncio.get_running_loop(), sock)

    async def _end(self) -> None:
        await self._child.close()
        self._folder.close()


class PluggedListener:
    """A bridge behind a child's transport: ``at`` is where the child listens, ``links`` has one for each user."""

    def __init__(self, hub: Hub, sock: socket.socket, cookie: bytes) -> None:
        """Use ``start``."""
        self._cookie = cookie
        self._introducing: set[_Introduced] = set()
        self.at = Target("", 0)
        self.links: tuple[str, ...] = ()
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._secrets: tuple[bytes, ...] = ()
        self._pattern: PluggedBridge | None = None
        self._child: Child | None = None
        self._listener = Listener(self._loop, sock, self._took)

    @classmethod
    async def start(cls, exit_: Exit, server: PluggedServer) -> PluggedListener:
        """Serve; raises OutlastError with what to do."""
        transport = server.transport
        program = find_program(transport)
        state = Path(server.folder, transport).absolute()
        cookie, file = token_bytes(32), state / "extended_orport_auth_cookie"
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as target:
                target.write(make_cookie(cookie))
        except OSError as error:
            raise StorageError("%(state)s cannot be written: %(error)s", state=state, error=error) from None
        with listen(server.listen) as probe:  # what is wrong with an address is told better here than by the child
            at = Target(*probe.getsockname()[:2])
        sock = listen(Target("127.0.0.1", 0))
        inner = Target(*sock.getsockname()[:2])
        served = cls(Hub(exit_), sock, cookie)
        try:
            demand = ServerDemand(
                str(state), True, (transport,), None, {transport: at}, extended=inner, cookie=str(file)
            )
            served._child = Child([program], demand)
            method = await served._child.method(transport)
            assert isinstance(method, SMethod)
            served.at = method.at
            to = Target(server.name, method.at.port)
            served._pattern = PluggedBridge(to, transport, dict(method.args), b"")
            served.admit(server.secrets)
        except BaseException:
            await served.close()
            raise
        return served

    def admit(self, secrets: tuple[bytes, ...]) -> None:
        """From now on these secrets (32 B each) let in, and whoever has another one is out."""
        assert self._pattern is not None
        self._secrets = secrets
        self._hub.keep(secrets)
        self.links = tuple(write_bridge(replace(self._pattern, secret=secret)) for secret in secrets)

    async def close(self) -> None:
        """End it with all its streams."""
        self._listener.close()
        for one in tuple(self._introducing):
            one.drop()
        self._hub.close()
        if self._child is not None:
            await self._child.close()

    def _took(self, sock: socket.socket, _address: object) -> None:
        if len(self._introducing) >= INTRODUCING_MAX:
            sock.close()
        else:
            self._introducing.add(_Introduced(self, self._loop, sock, Receiver(self._cookie, token_bytes(32))))

    def introduced(self, one: _Introduced, sock: socket.socket | None) -> None:
        """A connection has shown that the child made it, or it is gone (None)."""
        self._introducing.discard(one)
        if sock is not None:
            self._hub.accept(TcpOuter(self._loop, sock), self._secrets)


class _Introduced:
    """A connection to the Extended ORPort that we are to a child, until the child has said all."""

    def __init__(
        self, listener: PluggedListener, loop: asyncio.AbstractEventLoop, sock: socket.socket, receiver: Receiver
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._sock = sock
        self._receiver = receiver
        sock.setblocking(False)
        self._limit = loop.call_later(INTRODUCTION_S, self.drop)
        loop.add_reader(sock, self._readable)
        self._say(receiver.first())

    def drop(self) -> None:
        """End it."""
        self._leave()
        self._sock.close()
        self._listener.introduced(self, None)

    def _leave(self) -> None:
        self._limit.cancel()
        self._loop.remove_reader(self._sock)

    def _say(self, data: bytes) -> None:
        with suppress(OSError):  # who takes not even this much is seen by the reader, or when the time is over
            self._sock.send(data)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(4096)
            answer = self._receiver.take(data)
        except BlockingIOError:
            return
        except (ExtOrPortError, OSError):
            data, answer = b"", b""
        if not data:
            self.drop()
            return
        self._say(answer)
        if self._receiver.done:
            self._leave()
            self._listener.introduced(self, self._sock)
