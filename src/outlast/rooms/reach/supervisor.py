"""The relaying process of one person, as the node sees to it: started when there is something to relay, told what,
heard, started again when it ends, and ended with the node.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Protocol

from outlast.errors import OutlastError, Sentence, reason_of
from outlast.rooms.reach.io.choosing import Attempted, Remembered, Stand, Standings
from outlast.rooms.reach.io.lending import Lent
from outlast.rooms.reach.io.relay import Closed, Config, Down, Event, Failed, Listening, Serving, Starting, Using

log = logging.getLogger("outlast")

RESTART_S: Final = (1.0, 60.0)
STEADY_S: Final = 60.0
"""A child that lived so long is started again at once when it ends."""


class Child(Protocol):
    """The relaying process."""

    async def configure(self, config: Config) -> None:
        """Say what it is to do from now on."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """What it tells, until it has ended."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class Attempt(NamedTuple):
    """An attempt at a bridge that is over."""

    event: Attempted
    at_ms: int


@dataclass(slots=True)
class Now:
    """How the child stands."""

    config: Config = field(default_factory=Config)
    """What it was told last."""
    since_ms: int | None = None
    """Since when it runs; None while it does not."""
    using: str | None = None
    using_since_ms: int | None = None
    standings: tuple[Stand, ...] = ()
    """How each bridge stands, in the order in which they would be tried."""
    listens: list[Listening] = field(default_factory=list)
    """The gates, in the order of the configuration."""
    closed: dict[str, Sentence] = field(default_factory=dict)
    """Gates that could not be opened yet, by where they are to listen, and why."""
    serving: dict[str, Serving] = field(default_factory=dict)
    """Servers by where they listen."""
    down: dict[str, Sentence] = field(default_factory=dict)
    """Servers that cannot be had yet, by where they are to listen, and why."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """How the last attempt at each bridge ended, by id."""
    starting: dict[str, Starting] = field(default_factory=dict)
    """How far the programs are that bridges need, while these are tried, by id."""
    lent: dict[bytes, Lent] = field(default_factory=dict)
    """Shares of the own uplink, by the offer's number."""
    problem: Sentence | None = None
    """Why the child does not run, or does not do what it was told."""

    @property
    def lacking(self) -> Sentence | None:
        """What of all of it is not there, if anything is not."""
        return self.problem or next(iter((*self.closed.values(), *self.down.values())), None)


class Supervisor:
    """Sees to one child. ``heard`` is called with each event, after ``now`` has taken it in."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Child]],
        heard: Callable[[Event | None], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        """Nothing runs before ``run``."""
        self.now = Now()
        self._start = start
        self._heard = heard
        self._now_ms = now_ms
        self._wanted = Config()
        self._news = asyncio.Event()

    def want(self, config: Config) -> None:
        """Relay this from now on; nothing to relay needs no child."""
        if config != self._wanted:
            self._wanted = config
            self._news.set()

    async def run(self) -> None:
        """Until it is cancelled; then the child is ended."""
        wait_s = RESTART_S[0]
        loop = asyncio.get_running_loop()
        while True:
            if not _is_something(self._wanted):
                self._news.clear()
                await self._news.wait()
                continue
            began_s = loop.time()
            try:
                await self._live()
            except (OutlastError, OSError) as error:
                self.now = Now(problem=reason_of(error))
            if not _is_something(self._wanted):
                continue
            if loop.time() - began_s > STEADY_S:
                wait_s = RESTART_S[0]
            log.warning("the relaying process ended and is started again: %s", self.now.problem or "no reason is known")
            await self._heard(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):
                    self._news.clear()
                    await self._news.wait()
            wait_s = min(wait_s * 2, RESTART_S[1])

    async def _live(self) -> None:
        """One child from its start to its end: because it ended, or there is nothing more to relay."""
        child = await self._start()
        told: asyncio.Task[None] | None = None
        try:
            self.now = Now(since_ms=self._now_ms())
            told = asyncio.get_running_loop().create_task(self._tell(child))
            heard = asyncio.get_running_loop().create_task(self._hear(child))
            try:
                await asyncio.wait((told, heard), return_when=asyncio.FIRST_COMPLETED)
                if heard.done():
                    heard.result()
                    self.now = Now(problem=self.now.problem or Sentence("the relaying process ended by itself"))
                else:
                    told.result()
            finally:
                for task in (told, heard):
                    task.cancel()
                await asyncio.gather(told, heard, return_exceptions=True)
        finally:
            await child.close()
        if not _is_something(self._wanted):
            self.now = Now()
            await self._heard(None)

    async def _tell(self, child: Child) -> None:
        """Say what is to be done whenever it changes; returns when that is nothing."""
        while _is_something(self._wanted):
            self._news.clear()
            config = self._wanted
            if config != self.now.config:
                # All that stays is told again.
                self.now = replace(
                    self.now, config=config, listens=[], closed={}, serving={}, down={}, lent={}, problem=None
                )
                await child.configure(config)
            await self._news.wait()

    async def _hear(self, child: Child) -> None:
        async for event in child.events():
            self.take(event)
            try:
                await self._heard(event)
            except (OutlastError, OSError) as error:  # such as a full disk: that ends no stream of anybody's
                log.warning("what the relaying process told cannot be kept: %s", error)

    def take(self, event: Event) -> None:
        """Let ``now`` say what an event tells."""
        now = self.now
        match event:
            case Listening():
                now.listens.append(event)
            case Closed(at, error):
                now.closed.pop(at, None)
                if error is not None:
                    now.closed[at] = error
            case Using(bridge):
                if bridge != now.using:
                    now.using, now.using_since_ms = bridge, None if bridge is None else self._now_ms()
            case Starting(bridge):
                now.starting[bridge] = event
            case Attempted():
                now.starting.pop(event.bridge, None)
                now.attempts[event.bridge] = Attempt(event, self._now_ms())
            case Standings(bridges):
                now.standings = bridges
            case Remembered():
                pass  # the service keeps it
            case Serving():
                now.serving[event.at] = event
            case Down(at, error):
                now.down.pop(at, None)
                if error is not None:
                    now.down[at] = error
            case Lent():
                now.lent[event.number] = event
            case Failed(error):
                now.problem = error


def _is_something(config: Config) -> bool:
    return bool(config.profiles or config.servers or config.shares)
