"""The node sees to its relaying process: whatever becomes of what it tells, it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from outlast.address import Target
from outlast.errors import Sentence, StorageError
from outlast.rooms.reach.io.relay import Config, Down, Event, Profile, Serving, Using
from outlast.rooms.reach.supervisor import Child, Supervisor


class Telling:
    """A child that tells two things and then runs on."""

    def __init__(self) -> None:
        self.closed = False

    async def configure(self, config: Config) -> None:
        """Take it."""

    async def events(self) -> AsyncIterator[Event]:
        """Two, and no end."""
        yield Using("first")
        yield Using("second")
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Note it."""
        self.closed = True


def test_a_disk_that_is_full_ends_no_stream() -> None:
    async def story() -> None:
        children: list[Telling] = []
        heard: list[Event | None] = []
        both = asyncio.Event()

        async def start() -> Child:
            children.append(Telling())
            return children[-1]

        async def keep(event: Event | None) -> None:
            heard.append(event)
            if len(heard) == 2:
                both.set()
            raise StorageError("the disk is full")

        supervisor = Supervisor(start, keep, lambda: 1)
        supervisor.want(Config(profiles=(Profile(Target("127.0.0.1", 0)),)))
        task = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(20):
            await both.wait()
        assert heard == [Using("first"), Using("second")]
        assert supervisor.now.using == "second"
        assert [child.closed for child in children] == [False]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert children[0].closed

    asyncio.run(story())


def test_what_is_not_there_is_told_until_it_is() -> None:
    async def never() -> Child:
        raise AssertionError("nothing is wanted")

    async def keep(event: Event | None) -> None:
        """Nobody listens."""

    supervisor = Supervisor(never, keep, lambda: 1)
    busy = Sentence("the port is in use")
    for event, lacking in (
        (Down("localhost:443", busy), busy),
        (Serving("web", "127.0.0.1:8443", ()), busy),
        (Down("localhost:443", None), None),
    ):
        supervisor.take(event)
        assert supervisor.now.lacking == lacking
