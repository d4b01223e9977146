"""A pump carries every byte both ways, however slow or rude the two sides are, and keeps little while it waits."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pytest
import uvloop

from outlast.errors import ProtocolError
from outlast.rooms.reach.io import pump as pump_module
from outlast.rooms.reach.io.pump import Codec, Meter, Plain, Pump, yard_of

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


def tcp_pair(buffer_bytes: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, non-blocking."""
    with closing(socket.socket()) as listener:
        if buffer_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.socket()
        if buffer_bytes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
    if buffer_bytes:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


class Joined:
    """A pump between two connections; ``left`` and ``right`` are their outer ends."""

    def __init__(
        self,
        outward: Codec | None = None,
        inward: Codec | None = None,
        early: bytes = b"",
        meter: Meter | None = None,
        buffer_bytes: int | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.left, near = tcp_pair(buffer_bytes)
        self.right, far = tcp_pair(buffer_bytes)
        self.done: asyncio.Future[Exception | None] = loop.create_future()
        self.sockets = near, far
        self.pump = Pump(loop, near, far, outward or Plain(), inward or Plain(), early, self.done.set_result, meter)

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        self.pump.close()
        self.left.close()
        self.right.close()


async def read_all(source: socket.socket, most: int = 1 << 16) -> bytes:
    loop = asyncio.get_running_loop()
    parts = []
    while part := await loop.sock_recv(source, most):
        parts.append(part)
    return b"".join(parts)


async def say(sink: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sink, data)
    sink.shutdown(socket.SHUT_WR)


class Doubled(Plain):
    """Says every byte twice, and "." at the end."""

    def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview:
        size = min(size, len(out) // 2)
        out[: 2 * size : 2] = out[1 : 2 * size : 2] = into[:size]
        return out[: 2 * size]

    def room(self, into: memoryview) -> memoryview:
        return into[: 1 << 16]

    def end(self) -> bytes:
        return b"."


@pytest.mark.parametrize("buffer_bytes", [None, 4096])
def test_every_byte_arrives_both_ways_and_each_end_is_passed_on(
    runner: asyncio.Runner, buffer_bytes: int | None
) -> None:
    there, back = (random.Random(seed).randbytes(3_000_000) for seed in (1, 2))

    async def main() -> None:
        with Joined(early=b"first", buffer_bytes=buffer_bytes) as joined:
            answers = await asyncio.gather(
                say(joined.left, there), say(joined.right, back), read_all(joined.left), read_all(joined.right)
            )
            assert answers[2] == back
            assert answers[3] == b"first" + there
            assert await joined.done is None
            assert all(one.fileno() == -1 for one in joined.sockets)

    runner.run(asyncio.wait_for(main(), 60))


def test_one_direction_goes_on_after_the_other_has_ended(runner: asyncio.Runner) -> None:
    async def main() -> None:
        with Joined() as joined:
            await say(joined.left, b"a question")
            assert await read_all(joined.right) == b"a question"
            for _ in range(3):
                await asyncio.get_running_loop().sock_sendall(joined.right, b"an answer")
                assert await asyncio.get_running_loop().sock_recv(joined.left, 100) == b"an answer"
            assert not joined.done.done()
            joined.right.shutdown(socket.SHUT_WR)
            assert await read_all(joined.left) == b""
            assert await joined.done is None

    runner.run(asyncio.wait_for(main(), 60))


def test_codecs_see_every_byte_and_say_what_comes_at_the_end(runner: asyncio.Runner) -> None:
    said = random.Random(3).randbytes(1_000_003)

    async def main() -> None:
        with Joined(outward=Doubled(), buffer_bytes=4096) as joined:
            _, heard = await asyncio.gather(say(joined.left, said), read_all(joined.right, 1))
            assert heard[:-1:2] == heard[1:-1:2] == said
            assert heard[-1:] == b"."

    said = said[:100_003]
    runner.run(asyncio.wait_for(main(), 60))


def test_while_one_side_does_not_listen_the_other_is_not_read(runner: asyncio.Runner) -> None:
    async def main() -> None:
        with Joined(buffer_bytes=4096) as joined:
            sent = await fill(joined.left)
            assert sent < 4 * pump_module.READ_BYTES
            joined.left.shutdown(socket.SHUT_WR)
            assert len(await read_all(joined.right)) == sent

    runner.run(asyncio.wait_for(main(), 60))


async def fill(sink: socket.socket) -> int:
    """Write until nothing is taken any more for a while."""
    loop, sent = asyncio.get_running_loop(), 0
    while True:
        ready = asyncio.Event()
        loop.add_writer(sink, ready.set)
        try:
            await asyncio.wait_for(ready.wait(), 0.5)
        except TimeoutError:
            return sent
        finally:
            loop.remove_writer(sink)
        sent += sink.send(bytes(4096))


def test_a_reset_is_passed_on_as_a_reset(runner: asyncio.Runner) -> None:
    async def main() -> None:
        with Joined() as joined:
            joined.left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            joined.left.close()
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(joined.right, 1)
            assert isinstance(await joined.done, ConnectionResetError)

    runner.run(asyncio.wait_for(main(), 60))


def test_bytes_that_a_codec_refuses_reset_both_sides(runner: asyncio.Runner) -> None:
    class Strict(Plain):
        def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview:
            raise ProtocolError("no")

    async def main() -> None:
        with Joined(inward=Strict()) as joined:
            joined.right.send(b"?")
            for one in (joined.left, joined.right):
                with pytest.raises(ConnectionResetError):
                    await asyncio.get_running_loop().sock_recv(one, 1)
            assert str(await joined.done) == "no"

    runner.run(asyncio.wait_for(main(), 60))


def test_an_end_that_a_codec_refuses_is_no_end_for_the_other_side(runner: asyncio.Runner) -> None:
    class Cut(Plain):
        def end(self) -> bytes:
            raise ProtocolError("cut short")

    async def main() -> None:
        with Joined(outward=Cut()) as joined:
            joined.left.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(joined.right, 1)

    runner.run(asyncio.wait_for(main(), 60))


def test_what_a_codec_holds_back_goes_out_when_it_is_nudged(runner: asyncio.Runner) -> None:
    class Held(Plain):
        def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview | bytes:
            return into[:size] if size else b"held back"

    async def main() -> None:
        with Joined(outward=Held()) as joined:
            joined.pump.nudge()
            assert await asyncio.get_running_loop().sock_recv(joined.right, 100) == b"held back"

    runner.run(asyncio.wait_for(main(), 60))


def test_a_meter_is_told_of_every_byte_and_can_make_a_side_wait(runner: asyncio.Runner) -> None:
    metered: list[tuple[float, int]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def meter(size: int) -> float:
            metered.append((loop.time(), size))
            return 0.02

        with Joined(meter=meter) as joined:
            _, heard = await asyncio.gather(say(joined.left, bytes(1 << 20)), read_all(joined.right))
            assert len(heard) == sum(size for _, size in metered) == 1 << 20

    runner.run(asyncio.wait_for(main(), 60))
    assert len(metered) >= 5
    assert all(later - earlier >= 0.015 for (earlier, _), (later, _) in pairwise(metered))


def test_a_stream_that_is_silent_for_too_long_ends_and_one_that_speaks_does_not(runner: asyncio.Runner) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Joined() as joined:
            for _ in range(2 * pump_module.OPEN_SWEEPS):
                joined.pump.swept()
                joined.pump.moved = True
            assert not joined.done.done()
            joined.left.shutdown(socket.SHUT_WR)
            assert await read_all(joined.right) == b""
            for _ in range(pump_module.HALF_CLOSED_SWEEPS + 1):
                assert not joined.done.done()
                yard_of(loop).sweep()
            assert isinstance(await joined.done, TimeoutError)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(joined.left, 1)

    runner.run(asyncio.wait_for(main(), 60))


def test_small_writes_go_at_once_and_machines_that_vanished_are_noticed(runner: asyncio.Runner) -> None:
    async def main() -> None:
        with Joined() as joined:
            for one in joined.sockets:
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == pump_module.KEEPALIVE_S

    runner.run(asyncio.wait_for(main(), 60))


def test_closing_a_pump_resets_both_sides_and_forgets_it(runner: asyncio.Runner) -> None:
    async def main() -> None:
        with Joined() as joined:
            joined.pump.close()
            joined.pump.close()
            assert isinstance(await joined.done, ConnectionAbortedError)
            assert not yard_of(asyncio.get_running_loop()).pumps

    runner.run(asyncio.wait_for(main(), 60))
