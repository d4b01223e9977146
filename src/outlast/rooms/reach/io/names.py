"""Names are looked up by the system's resolver, in threads that nothing waits for.

asyncio's own ``getaddrinfo`` uses threads that the process waits for at its end: where a network swallows the questions
that takes a quarter of a minute for each.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, NamedTuple

from outlast.rooms.reach.proto.fair import Fair

LOOKUPS_AT_ONCE: Final = 32
LOOKUPS_SPARE: Final = 224
"""A thread each for so many users more, when others hold all that there are."""
RESOLVER: Final = "timeout:1 attempts:3"
"""For glibc, which else asks three servers that are silent for 30 s and more: so it has ended within LOOKUP_S."""
_SETTINGS: Final = Path("/etc/resolv.conf")
LOOKUP_S: Final = 10.0
"""So long somebody waits for an answer; the resolver may take longer."""
SWEEP_S: Final = 0.5
ASKERS_MAX: Final = 4096
REMEMBERED_S: Final = 30.0
REMEMBERED_FAILURE_S: Final = 3.0
REMEMBERED_MAX: Final = 2048

_of_loops: dict[asyncio.AbstractEventLoop, Names] = {}


async def look_up(host: str) -> tuple[str, ...]:
    """The addresses of a host, of which there is at least one; raises OSError when there is none."""
    loop = asyncio.get_running_loop()
    names = _of_loops.get(loop)
    if names is None:
        for ended in [one for one in _of_loops if one.is_closed()]:
            _of_loops.pop(ended).close()
        names = _of_loops[loop] = Names(loop)
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def found(addresses: Sequence[str]) -> None:
        if not answer.done():
            answer.set_result(addresses)

    names.look_up(host, found)
    if not (addresses := await answer):
        raise OSError("the name leads to no address")
    return tuple(addresses)


class _Asker(NamedTuple):
    """Somebody who waits for the addresses of a host."""

    since_s: float
    whose: bytes | None
    found: Callable[[Sequence[str]], None]


class Names:
    """Looks names up by the system's resolver, each once at a time, and remembers answers for a little while.

    A question whose servers never answer holds a thread for long, and nothing can end it. So threads are shared
    (``proto.fair``): who has names looked up that hang waits for their own, and others find a thread, also where some
    let names hang together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = 0
        self._work: SimpleQueue[str | None] = SimpleQueue()
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._asked: dict[str, list[_Asker]] = {}
        self._askers = Fair(ASKERS_MAX)
        self._running: dict[str, bytes | None] = {}  # hosts that threads are at, by whose share
        self._lookups = Fair(LOOKUPS_AT_ONCE, LOOKUPS_SPARE)
        # Hosts that wait for a thread, by who waits for them; a host can be in several.
        self._queues: OrderedDict[bytes | None, OrderedDict[str, None]] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None

    def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
        """Find the addresses of a host, in LOOKUP_S or not at all; ``whose`` question it is decides who waits."""
        known = self._known.get(host)
        if known is not None and known[0] > self._loop.time():
            found(known[1])
        elif not self._askers.take(whose):
            found(())
        else:
            if self._sweep is None:
                self._sweep = self._loop.call_later(SWEEP_S, self._end_old)
            asker = _Asker(self._loop.time(), whose, found)
            self._asked.setdefault(host, []).append(asker)
            if host not in self._running:
                self._wait(host, asker)
                self._begin()

    def close(self) -> None:
        """Forget what is asked."""
        self._asked.clear()
        self._queues.clear()
        if self._sweep is not None:
            self._sweep.cancel()
        for _ in range(self._threads):
            self._work.put(None)

    def _wait(self, host: str, asker: _Asker) -> None:
        # Also when it waits for others already: in their queue it may wait for long.
        self._queues.setdefault(asker.whose, OrderedDict()).setdefault(host)

    def _begin(self) -> None:
        """Look up what there are threads for, users in turn."""
        for whose, queue in tuple(self._queues.items()):
            while queue:
                host = next(iter(queue))
                if host not in self._running:
                    if not self._lookups.take(whose):
                        break
                    self._run(host, whose)
                del queue[host]
            if queue:
                self._queues.move_to_end(whose)
            else:
                del self._queues[whose]

    def _run(self, host: str, whose: bytes | None) -> None:
        self._running[host] = whose
        if self._threads < len(self._running):
            self._threads += 1
            # As a daemon: the process must not wait at its end for a resolver that is cut off.
            Thread(target=self._answer, name="lookup", daemon=True).start()
        self._work.put(host)

    def _answer(self) -> None:
        while (host := self._work.get()) is not None:
            addresses = _addresses(host)
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._remember, host, addresses)

    def _remember(self, host: str, addresses: tuple[str, ...]) -> None:
        self._lookups.give(self._running.pop(host))
        lasting_s = REMEMBERED_S if addresses else REMEMBERED_FAILURE_S
        self._known[host] = (self._loop.time() + lasting_s, addresses)
        self._known.move_to_end(host)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        self._tell(host, self._asked.pop(host, ()), addresses)
        self._begin()

    def _tell(self, host: str, askers: Sequence[_Asker], addresses: Sequence[str]) -> None:
        for asker in askers:
            self._askers.give(asker.whose)
            if asker.whose in self._queues:
                self._queues[asker.whose].pop(host, None)
        for asker in askers:
            asker.found(addresses)

    def _end_old(self) -> None:
        """Who has waited long enough is told that there is no such host."""
        oldest_s = self._loop.time() - LOOKUP_S
        for host, askers in tuple(self._asked.items()):
            if askers[0].since_s <= oldest_s:
                gone = [asker for asker in askers if asker.since_s <= oldest_s]
                del askers[: len(gone)]
                if not askers:
                    del self._asked[host]
                self._tell(host, gone, ())
                if host not in self._running:
                    for asker in askers:
                        self._wait(host, asker)
        self._sweep = self._loop.call_later(SWEEP_S, self._end_old) if self._asked else None


def end_in_time() -> None:
    """Let this process's resolver give up in time, unless the machine says when; to be called before it is asked."""
    said = ""
    with suppress(OSError, UnicodeError):
        said = _SETTINGS.read_text()
    if "timeout:" not in said:
        os.environ.setdefault("RES_OPTIONS", RESOLVER)


def _addresses(host: str) -> tuple[str, ...]:
    """The addresses that the system finds, the families taking turns (RFC 8305 §4); runs in a thread."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    first = found[0][0] if found else 0
    ones = [list(dict.fromkeys(str(at[4][0]) for at in found if (at[0] == first) is same)) for same in (True, False)]
    turns = max(map(len, ones))
    return tuple(one[turn] for turn in range(turns) for one in ones if turn < len(one))
