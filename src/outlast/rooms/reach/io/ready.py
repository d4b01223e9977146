"""Which sockets of streams are ready: one epoll for all of a loop, which the loop itself watches as one file.

A stream is short, and each time that a socket is watched and left again uvloop asks the kernel six times. Here it is
twice. What is told is told again while it is so: of data with a reset behind it, uvloop tells once.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

EVENTS_MAX: Final = 256
"""So many are told in one turn, until others get theirs."""


class Watcher(Protocol):
    """What calls back when a file is ready, as loops of asyncio do."""

    def add_reader(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be read."""
        ...

    def remove_reader(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        ...

    def add_writer(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be written to."""
        ...

    def remove_writer(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        ...


class Ready:
    """A watcher of many files that come and go."""

    __slots__ = ("__weakref__", "_epoll", "_new", "_readers", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop watch it, for as long as there is that loop; no reference to the loop is kept."""
        self._epoll = select.epoll()
        self._readers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._writers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._new: set[int] = set()  # watched since the events of this turn were asked for
        loop.add_reader(self._epoll.fileno(), self._turn)

    def add_reader(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be read."""
        if fd not in self._readers:
            self._add(fd, select.EPOLLIN, also=fd in self._writers)
        self._readers[fd] = callback, args

    def remove_reader(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        if self._readers.pop(fd, None) is None:
            return False
        self._remove(fd, select.EPOLLOUT, still=fd in self._writers)
        return True

    def add_writer(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be written to."""
        if fd not in self._writers:
            self._add(fd, select.EPOLLOUT, also=fd in self._readers)
        self._writers[fd] = callback, args

    def remove_writer(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        if self._writers.pop(fd, None) is None:
            return False
        self._remove(fd, select.EPOLLIN, still=fd in self._readers)
        return True

    def _add(self, fd: int, mask: int, *, also: bool) -> None:
        if also:
            self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._epoll.register(fd, mask)
            self._new.add(fd)

    def _remove(self, fd: int, other: int, *, still: bool) -> None:
        if still:
            self._epoll.modify(fd, other)
        else:
            self._epoll.unregister(fd)

    def _turn(self) -> None:
        # What one callback closes, and another one opens under the same number, is not what the event was about.
        new, readers, writers = self._new, self._readers, self._writers
        new.clear()
        for fd, mask in self._epoll.poll(0, EVENTS_MAX):
            if mask != select.EPOLLOUT and (call := readers.get(fd)) and fd not in new:
                call[0](*call[1])
            if mask != select.EPOLLIN and (call := writers.get(fd)) and fd not in new:
                call[0](*call[1])


_ready: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Ready] = weakref.WeakKeyDictionary()


def watcher_of(loop: asyncio.AbstractEventLoop) -> Watcher:
    """What watches the sockets of a loop's streams: the loop itself, where there is no epoll."""
    if not hasattr(select, "epoll"):
        return loop
    found = _ready.get(loop)
    if found is None:
        found = _ready[loop] = Ready(loop)
    return found
