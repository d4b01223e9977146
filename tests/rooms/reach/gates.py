"""Gates, and what stands behind them, in a thread of their own, so that a test can be plain sockets and programs."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import uvloop

from outlast.address import Target, decode, encode
from outlast.rooms.reach.io.carrier import Carrier
from outlast.rooms.reach.io.direct import direct
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private
from outlast.rooms.reach.proto.request import Credentials
from outlast.socks import NOWHERE, unwrap_datagram, wrap_datagram

T = TypeVar("T")
ANY = Target("127.0.0.1", 0)


class Place:
    """A loop in a thread; what is opened in it is closed with it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._closing: list[Callable[[], object]] = []
        self._thread.start()

    def do(self, work: Callable[[], T]) -> T:
        """Run within the loop."""

        async def running() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(running(), self.loop).result(20)

    def gate(
        self,
        carrier: Carrier | None = None,
        credentials: Credentials | None = None,
        at: Target = ANY,
        policy: Policy | None = None,
    ) -> Gate:
        """Open a gate; without a carrier the network itself is behind it, private networks included."""

        def opened() -> Gate:
            way = carrier
            if way is None:
                exit_ = Exit(self.loop, policy or allowing_private())
                way = direct(exit_)
                self._closing.append(exit_.close)
            gate = Gate(self.loop, at, way.carry, way.associate, credentials)
            self._closing += [way.close, gate.close]
            return gate

        return self.do(opened)

    def close(self) -> None:
        """End it all."""
        for one in reversed(self._closing):
            self.do(one)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def place() -> Iterator[Place]:
    """A place for the time of the block."""
    made = Place()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def serving(serve: Callable[[socket.socket], Any], host: str = "127.0.0.1") -> Iterator[Target]:
    """A TCP server on a free port whose connections are each served in a thread, and closed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        ended = threading.Event()

        def one(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(20)
                with suppress(OSError):
                    serve(connection)

        def accept() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield Target(host, listener.getsockname()[1])
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def dialled(gate: Gate | Target) -> socket.socket:
    """A connection to a gate or a server."""
    at = gate.at if isinstance(gate, Gate) else gate
    return socket.create_connection(at, 20)


def through(gate: Gate | Target, target: Target) -> socket.socket:
    """A connection to a target through a gate, by SOCKS 5; raises ConnectionError with the gate's code."""
    one = dialled(gate)
    one.sendall(b"\x05\x01\x00")
    assert exactly(one, 2) == b"\x05\x00"
    one.sendall(b"\x05\x01\x00" + encode(target))
    reply = exactly(one, 10)
    if reply[1]:
        one.close()
        raise ConnectionError(reply[1])
    return one


def associated(
    gate: Gate | Target, sends_from: Target = NOWHERE
) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
    """UDP ASSOCIATE: the connection, a socket to send from, and where to send to."""
    control = dialled(gate)
    control.sendall(b"\x05\x01\x00\x05\x03\x00" + encode(sends_from))
    reply = exactly(control, 12)[2:]
    assert reply[1] == 0, reply
    found = decode(reply, 3)
    assert found is not None
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(10)
    return control, udp, found[0]


def datagram_through(gate: Target) -> bytes:
    """What comes back to a datagram that is sent through a gate."""
    with ExitStack() as stack:
        control, udp, at = associated(gate)
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for one in (control, udp, far):
            stack.enter_context(one)
        far.bind(("127.0.0.1", 0))
        far.settimeout(20)
        udp.settimeout(20)
        udp.sendto(wrap_datagram(Target("localhost", far.getsockname()[1]), b"ping"), at)
        data, whose = far.recvfrom(100)
        assert data == b"ping"
        far.sendto(b"pong", whose)
        found = unwrap_datagram(udp.recv(1000))
        assert found is not None
        return found[1]


def exactly(one: socket.socket, size: int) -> bytes:
    """So many bytes, or as many as come before the end."""
    data = b""
    while len(data) < size and (more := one.recv(size - len(data))):
        data += more
    return data


def until_end(one: socket.socket) -> bytes:
    """All that comes."""
    data = b""
    while more := one.recv(65_536):
        data += more
    return data


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl; its exit code says what became of it."""
    return subprocess.run(["curl", "-q", "-sS", "--max-time", "20", *arguments], capture_output=True, timeout=30)
