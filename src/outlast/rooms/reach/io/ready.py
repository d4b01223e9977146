"""Which sockets of streams are ready: one epoll for all of a loop, which the loop itself watches as one file.

A stream is short, and each time that a socket is watched and left again uvloop asks the kernel six times. Here it is
once: what is left stays with the kernel until somebody watches it again, it is closed, or something happens to it. What
is told is told again while it is so: of data with a reset behind it, uvloop tells once.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

EVENTS_MAX: Final = 256
"""So many are told in one turn, until others get theirs."""
_IN: Final = getattr(select, "EPOLLIN", 1)
_OUT: Final = getattr(select, "EPOLLOUT", 4)
_BOTH: Final = _IN | _OUT


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

    def forget(self, fd: int, /) -> None:
        """Call nothing of it any more: it is closed next."""
        ...

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call this once, behind whatever is ready now."""
        ...


class Ready:
    """A watcher of many files that come and go."""

    __slots__ = (
        "__weakref__", "_after", "_left", "_loop", "_modify", "_new", "_poll", "_readers", "_register", "_turning",
        "_unregister", "_writers",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop watch it, for as long as there is that loop, which it does not keep."""
        epoll = select.epoll()
        self._poll, self._register = epoll.poll, epoll.register
        self._modify, self._unregister = epoll.modify, epoll.unregister
        self._readers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._writers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._left: set[int] = set()  # with the kernel, and nobody's
        self._new: set[int] = set()  # watched since the events of this turn were asked for
        self._turning = False
        self._after: list[Callable[[], None]] = []
        self._loop = weakref.ref(loop)
        loop.add_reader(epoll.fileno(), self._turn)

    def add_reader(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be read."""
        if fd not in self._readers:
            if fd in self._writers:
                self._modify(fd, _BOTH)
            else:
                self._watch(fd, _IN)
        self._readers[fd] = callback, args

    def remove_reader(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        if self._readers.pop(fd, None) is None:
            return False
        if fd in self._writers:
            self._modify(fd, _OUT)
        else:
            self._left.add(fd)
        return True

    def add_writer(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be written to."""
        if fd not in self._writers:
            if fd in self._readers:
                self._modify(fd, _BOTH)
            else:
                self._watch(fd, _OUT)
        self._writers[fd] = callback, args

    def remove_writer(self, fd: int, /) -> bool:
        """Call it no more; False when nothing was to be called. To be done before the file is closed."""
        if self._writers.pop(fd, None) is None:
            return False
        if fd in self._readers:
            self._modify(fd, _IN)
        else:
            self._left.add(fd)
        return True

    def forget(self, fd: int, /) -> None:
        """Call nothing of it any more: it is closed next, which the kernel takes for its end."""
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        self._left.discard(fd)

    def _watch(self, fd: int, mask: int) -> None:
        self._new.add(fd)
        if fd in self._left:
            self._left.remove(fd)
            try:
                self._modify(fd, mask)
                return
            except FileNotFoundError:  # it was closed, and this is another one
                pass
        self._register(fd, mask)

    def _drop(self, fd: int) -> None:
        self._left.remove(fd)
        with suppress(OSError):  # it was closed
            self._unregister(fd)

    def call_soon(self, callback: Callable[[], None], /) -> None:
        """Call this once, behind whatever is ready now: in this turn, while there is one."""
        if self._turning:
            self._after.append(callback)
        elif loop := self._loop():
            loop.call_soon(callback)

    def _turn(self) -> None:
        new, left, readers, writers = self._new, self._left, self._readers, self._writers
        new.clear()
        self._turning = True
        try:
            for fd, mask in self._poll(0, EVENTS_MAX):
                # What one callback closes, and another opens under the same number, is not what the event was about.
                if fd in new:
                    continue
                if fd in left:
                    self._drop(fd)
                    continue
                if mask != _OUT and (call := readers.get(fd)):
                    call[0](*call[1])
                if mask != _IN and (call := writers.get(fd)) and fd not in new:
                    call[0](*call[1])
        finally:
            self._turning = False
            if self._after:
                self._finish()

    def _finish(self) -> None:
        after = self._after
        try:
            while after:
                after.pop(0)()
        finally:  # one that fails leaves the others
            if after and (loop := self._loop()):
                loop.call_soon(self._finish)


class ByLoop:
    """A loop as a watcher, where there is no epoll."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the loop itself."""
        self.add_reader, self.remove_reader = loop.add_reader, loop.remove_reader
        self.add_writer, self.remove_writer = loop.add_writer, loop.remove_writer
        self.call_soon = loop.call_soon

    def forget(self, fd: int, /) -> None:
        """Call nothing of it any more."""
        self.remove_reader(fd)
        self.remove_writer(fd)


_ready: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Ready] = weakref.WeakKeyDictionary()


def watcher_of(loop: asyncio.AbstractEventLoop) -> Watcher:
    """What watches the sockets of a loop's streams: the loop itself, where there is no epoll."""
    if not hasattr(select, "epoll"):
        return ByLoop(loop)
    found = _ready.get(loop)
    if found is None:
        found = _ready[loop] = Ready(loop)
    return found
