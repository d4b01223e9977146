"""Names are looked up by the system's resolver, in threads that nothing waits for.

asyncio's own ``getaddrinfo`` uses threads that the process waits for at its end: where a network swallows the questions
that takes a quarter of a minute for each.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Final

LOOKUPS_AT_ONCE: Final = 16
LOOKUPS_MAX: Final = 512
REMEMBERED_S: Final = 30.0
REMEMBERED_FAILURE_S: Final = 3.0
REMEMBERED_MAX: Final = 2048

_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Names] = weakref.WeakKeyDictionary()


async def look_up(host: str) -> tuple[str, ...]:
    """The addresses of a host, of which there is at least one; raises OSError when there is none."""
    loop = asyncio.get_running_loop()
    names = _of_loops.get(loop)
    if names is None:
        names = _of_loops[loop] = Names(loop)
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def found(addresses: Sequence[str]) -> None:
        if not answer.done():
            answer.set_result(addresses)

    names.look_up(host, found)
    if not (addresses := await answer):
        raise OSError("the name leads to no address")
    return tuple(addresses)


class Names:
    """Looks names up by the system's resolver, each once at a time, and remembers answers for a little while."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = 0
        self._work: SimpleQueue[str | None] = SimpleQueue()
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._asked: dict[str, list[Callable[[Sequence[str]], None]]] = {}

    def look_up(self, host: str, found: Callable[[Sequence[str]], None]) -> None:
        """Find the addresses of a host."""
        known = self._known.get(host)
        if known is not None and known[0] > self._loop.time():
            found(known[1])
        elif host in self._asked:
            self._asked[host].append(found)
        elif len(self._asked) >= LOOKUPS_MAX:
            found(())
        else:
            self._asked[host] = [found]
            if len(self._asked) > self._threads and self._threads < LOOKUPS_AT_ONCE:
                self._threads += 1
                # As a daemon: the process must not wait at its end for a resolver that is cut off.
                Thread(target=self._answer, name="lookup", daemon=True).start()
            self._work.put(host)

    def close(self) -> None:
        """Forget what is asked."""
        self._asked.clear()
        for _ in range(self._threads):
            self._work.put(None)

    def _answer(self) -> None:
        while (host := self._work.get()) is not None:
            addresses = _addresses(host)
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._remember, host, addresses)

    def _remember(self, host: str, addresses: tuple[str, ...]) -> None:
        lasting_s = REMEMBERED_S if addresses else REMEMBERED_FAILURE_S
        self._known[host] = (self._loop.time() + lasting_s, addresses)
        self._known.move_to_end(host)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        for found in self._asked.pop(host, ()):
            found(addresses)


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
