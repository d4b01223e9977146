"""Two places over a real TCP link that somebody cuts at any byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from outlast.errors import OutlastError
from outlast.kernel.identity import SealingKey
from outlast.kernel.links.channel import Channel
from outlast.kernel.links.tcp import Listener, connect, serve
from outlast.kernel.steps import Close, CutOff, Event, InStep, LinkClosed, MessageArrived, Send, Started
from outlast.testing import Place, Town

HERE = SealingKey.from_secret(b"h" * 32)
THERE = SealingKey.from_secret(b"t" * 32)


async def converse(place: Place, channel: Channel, peer: bytes) -> bool:
    """One session over a channel, until both sides are in step or the link is gone; whether they are."""
    session = place.session(initiator=channel.initiator, key=channel.session_key, peer=peer)
    events: list[Event] = [Started()]
    while True:
        while events:
            for command in session.step(events.pop(0)):
                match command:
                    case Send(data):
                        try:
                            await channel.send(data)
                        except OutlastError:
                            return False
                    case InStep():
                        return True
                    case Close() | CutOff():
                        return False
                    case _:
                        answer = place.answer(command, peer)
                        if answer is not None:
                            events.append(answer)
        message = await channel.receive()
        events.append(LinkClosed() if message is None else MessageArrived(message))
        if message is None:
            session.step(events.pop())
            return False


@asynccontextmanager
async def cutting(listener: Listener, cut: int | None) -> AsyncIterator[tuple[int, Callable[[], int]]]:
    """Somebody in the middle who passes on ``cut`` bytes of both directions together; yields port and count."""
    passed = 0
    tasks: set[asyncio.Task[None]] = set()

    async def middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", listener.port)

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            nonlocal passed
            while data := await read_some(source):
                if cut is not None and passed + len(data) >= cut:
                    target.write(data[: max(0, cut - passed)])
                    passed = cut
                    break
                passed += len(data)
                target.write(data)
            for end in (writer, onward):
                end.close()

        await asyncio.gather(carry(reader, onward), carry(onward_reader, writer))

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(middle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], lambda: passed
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


async def meet_over_tcp(a: Place, b: Place, cut: int | None) -> tuple[bool, int]:
    """Let two places meet once; whether they parted in step, and the bytes that passed."""
    called: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answering() -> Callable[[Channel], Awaitable[None]]:
        async def answer(channel: Channel) -> None:
            called.set_result(await converse(b, channel, a.transport))

        return answer

    listener = await serve("127.0.0.1", 0, static=THERE.secret, on_channel=answering())
    try:
        async with cutting(listener, cut) as (port, passed):
            try:
                channel = await connect("127.0.0.1", port, static=HERE.secret, remote=THERE.public)
            except OutlastError:
                return False, passed()
            in_step = await converse(a, channel, b.transport)
            await channel.close()
            return in_step, passed()
    finally:
        await listener.close()


def two_towns_apart() -> Town:
    town = Town(2, 1)
    a, b = town.places
    space = a.found("news")
    town.follow(space)
    for number in range(6):
        town.clock.advance(1000)
        note = a.post(space, f"shared {number}")
        b.entries.update({**a.entries, note.id: note})
    for number in range(4):
        a.post(space, f"a {number} " + "long " * 300 * (number % 2))
        b.post(space, f"b {number} " + "long " * 300 * (number % 2))
    return town


def test_a_tcp_link_cut_at_any_byte_loses_nothing_and_sends_nothing_kept_again(soaking: bool) -> None:
    async def run() -> None:
        whole = two_towns_apart()
        in_step, total = await meet_over_tcp(*whole.places, None)
        assert in_step
        assert total > 5000
        for cut in range(0, total, 1 if soaking else 173):
            town = two_towns_apart()
            a, b = town.places
            posted = {**a.entries, **b.entries}
            await meet_over_tcp(a, b, cut)
            kept = set(a.copies), set(b.copies)
            held = set(a.entries), set(b.entries)
            assert kept[0] <= held[1]
            assert kept[1] <= held[0]
            received = a.received, b.received
            in_step, _ = await meet_over_tcp(a, b, None)
            assert in_step
            assert a.entries.keys() == b.entries.keys() == posted.keys()
            assert all(entry.payload is not None for place in town.places for entry in place.entries.values())
            # What came in the second meeting is what was missing: entries, their long payloads apart from
            # them, and up to two payloads whose header had come before the cut.
            for place, before, count in zip(town.places, held, received, strict=True):
                long = sum(len(posted[one].payload or b"") > 1024 for one in posted.keys() - before)
                assert place.received - count <= len(posted.keys() - before) + long + 2

    asyncio.run(run())
