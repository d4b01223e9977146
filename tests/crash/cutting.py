"""A link that breaks after any byte of a session: the nodes meet again, and nothing is lost or there twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

from tests.crash.promises import Promises
from tests.crash.toy import House, befriend, house, make

ROUNDS_A_PAIR = 100
"""So many sessions are cut between two nodes before two new ones begin: what they hold makes sessions longer."""


@dataclass
class Count:
    """What happened at all cuts."""

    cuts: int = 0
    whole: int = 0
    """Sessions that were over before the byte to break after."""
    session_bytes: int = 0
    """Bytes of a session that was not cut."""
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"cuts {self.cuts} in a session of {self.session_bytes} bytes, not cut {self.whole},"
            f" acknowledgements {self.acknowledged},"
            f" lost or twice {len(self.broken)}"
        )


class Cable:
    """Carries bytes between callers of its port and another port; breaks once after so many, both ways together."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._left: int | None = None
        self.carried = 0
        self.broke = asyncio.Event()
        self.used = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Take calls."""
        self._server = await asyncio.start_server(self._called, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Break for good."""
        self._server.close()
        self._break(reset=True)

    def break_after(self, size: int | None) -> None:
        """Count from now; None: carry everything."""
        self._left, self.carried = size, 0
        self.broke.clear()
        self.used.clear()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        for end in (writer, far_writer):
            self._writers.discard(end)
            end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.used.set()
                passes = data if self._left is None else data[: self._left]
                self.carried += len(passes)
                writer.write(passes)
                if self._left is not None:
                    self._left -= len(passes)
                    if not self._left:
                        self._left = None
                        # Every other time the ends see an orderly end, which brings all that was carried.
                        self._break(reset=self.carried % 2 == 0)
                        self.broke.set()
                        return
                await writer.drain()
        writer.close()

    def _break(self, *, reset: bool) -> None:
        for writer in self._writers:
            if reset:
                writer.transport.abort()
            else:
                writer.close()
        self._writers.clear()


class Pair:
    """Two nodes on a cable, and what they promised."""

    def __init__(self, one: House, other: House, cable: Cable, space: bytes) -> None:
        self.one, self.other, self.cable, self.space = one, other, cable, space
        self.promises = Promises(), Promises()

    async def round(self, number: int, cut: int | None) -> None:
        """Write on both sides while apart, meet on a cable that breaks, write meanwhile, meet again."""
        one, other, cable = self.one, self.other, self.cable
        await self._send(f"{number} apart")
        text = f"{number} post"
        self.promises[0].posts[await one.say(self.space, text)] = text
        cable.break_after(cut)
        await one.node.peer_add(other.node.transport_id, "127.0.0.1", cable.port)
        await cable.used.wait()
        await self._send(f"{number} meanwhile")
        await other.until(lambda: other.got() == one.sent() and other.posts() == one.posts())
        await one.until(lambda: one.got() == other.sent())
        for end in (one, other):
            sent = set(end.sent())
            await end.until(lambda end=end, sent=sent: end.confirmed("received") == sent)  # type: ignore[misc]
            await end.until(lambda end=end, sent=sent: end.confirmed("copied") == sent)  # type: ignore[misc]
        await one.node.peer_remove(other.node.transport_id)

    async def _send(self, text: str) -> None:
        ends = (self.one, self.other), (self.other, self.one)
        for (end, to), promises in zip(ends, self.promises, strict=True):
            promises.letters[await end.send(to.person.identity, text)] = text

    async def broken(self) -> list[str]:
        """What does not hold on either side."""
        for end, promises, far in ((self.one, self.promises[0], self.other), (self.other, self.promises[1], self.one)):
            promises.received.update(far.sent())
            if broken := await promises.broken(end):
                return broken
        return []


async def _session_size(folder: Path) -> int:
    async with AsyncExitStack() as stack:
        pair = await _pair(stack, folder)
        await pair.round(0, None)
        return pair.cable.carried


async def _pair(stack: AsyncExitStack, folder: Path) -> Pair:
    one, other = [await stack.enter_async_context(house(await make(folder / name), dial=True)) for name in "ab"]
    await befriend(one, other)
    space = await one.node.new_space(one.person, "news")
    await other.node.follow(space)
    cable = await stack.enter_async_context(Cable(await other.node.listen("127.0.0.1", 0)))
    return Pair(one, other, cable, space)


async def cut_and_look(folder: Path, choose: Callable[[int], Iterable[int]]) -> Count:
    """Break a session after each number of bytes that ``choose`` takes out of all of its length."""
    count = Count(session_bytes=await _session_size(folder / "whole"))
    cuts = iter(choose(count.session_bytes))
    number = 0
    while batch := list(islice(cuts, ROUNDS_A_PAIR)):
        number += 1
        await _cut(folder / str(number), batch, count)
    return count


async def _cut(folder: Path, cuts: Sequence[int], count: Count) -> None:
    async with AsyncExitStack() as stack:
        pair = await _pair(stack, folder)
        for number, cut in enumerate(cuts):
            try:
                async with asyncio.timeout(60):
                    await pair.round(number, cut)
            except TimeoutError:
                one, other = pair.one, pair.other
                count.broken.append(
                    f"cut at {cut}: {len(one.sent())} letters sent, {len(other.got())} there, {len(other.sent())} back,"
                    f" {len(one.got())} there, {len(one.confirmed('received'))} confirmed,"
                    f" {len(one.confirmed('copied'))} copied, {len(other.confirmed('copied'))} copied there;"
                    f" {one.node.peers()}"
                )
                return
            count.cuts += pair.cable.broke.is_set()
            count.whole += not pair.cable.broke.is_set()
        count.broken += [f"cuts {cuts[0]} to {cuts[-1]}: {line}" for line in await pair.broken()]
        count.acknowledged += sum(promises.count for promises in pair.promises)
