"""Which sockets of streams are ready: one epoll for all of a loop, which the loop itself watches as one file.

A stream is short, and each time that a socket is watched and left again uvloop asks the kernel six times. Here it is
once: what is left stays with the kernel until somebody watches it again, it is closed, or something happens to it. What
is told is told again while it is so: of data with a reset behind it, uvloop tells once.

What a connection to another machine brings is passed on last (``call_last``), when what this one has to say to it was
sent: so both work at a time, and do not wait for each other in turn.
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
_END: Final = getattr(select, "EPOLLRDHUP", 0x2000)
_READ: Final = _IN | _END
_BOTH: Final = _READ | _OUT


class Watcher(Protocol):
    """What calls back when a file is ready, as loops of asyncio do."""

    at_end: bool
    """While a reader is called: whether the other side's end is surely behind what can be read."""

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

    def end_reader(self, fd: int, /) -> None:
        """Its end was read, and would be told for ever: call what reads it no more."""
        ...

    def forget(self, fd: int, /) -> None:
        """Call nothing of it any more: it is closed next."""
        ...

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call this once, behind whatever is ready now."""
        ...

    def call_last(self, fd: int, /) -> None:
        """From now on, and until it is forgotten, call what reads it behind what others of the same turn asked for."""
        ...


class Ready:
    """A watcher of many files that come and go."""

    __slots__ = (
        "__weakref__", "_after", "_last", "_left", "_loop", "_modify", "_new", "_poll", "_readers", "_register",
        "_turning", "_unregister", "_writers", "at_end",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop watch it, for as long as there is that loop, which it does not keep."""
        epoll = select.epoll()
        self._poll, self._register = epoll.poll, epoll.register
        self._modify, self._unregister = epoll.modify, epoll.unregister
        self._readers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._writers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._last: set[int] = set()
        self._left: set[int] = set()  # with the kernel, and nobody's
        self._new: set[int] = set()  # watched since the events of this turn were asked for
        self._turning = self.at_end = False
        self._after: list[Callable[[], None]] = []
        self._loop = weakref.ref(loop)
        loop.add_reader(epoll.fileno(), self._turn)

    def add_reader(self, fd: int, callback: Callable[..., None], /, *args: Any) -> None:
        """From now on call this, and nothing else, whenever the file can be read."""
        if fd not in self._readers:
            if fd in self._writers:
                self._modify(fd, _BOTH)
            else:
                self._watch(fd, _READ)
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
            self._modify(fd, _READ)
        else:
            self._left.add(fd)
        return True

    def end_reader(self, fd: int, /) -> None:
        """Its end was read, and would be told for ever: call what reads it no more."""
        if self.remove_reader(fd) and fd in self._left:
            self._drop(fd)

    def forget(self, fd: int, /) -> None:
        """Call nothing of it any more: it is closed next, which the kernel takes for its end."""
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)
        self._left.discard(fd)
        self._last.discard(fd)

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

    def call_last(self, fd: int, /) -> None:
        """From now on, and until it is forgotten, call what reads it behind what others of the same turn asked for."""
        self._last.add(fd)

    def _turn(self) -> None:
        self._new.clear()
        self._turning = True
        try:
            events = self._poll(0, EVENTS_MAX)
            last = [event for event in events if event[0] in self._last]
            try:
                self._tell([event for event in events if event[0] not in self._last])
                self._finish()
            finally:  # one that fails leaves the others
                self._tell(last)
        finally:
            self._turning = self.at_end = False
            self._finish()

    def _tell(self, events: list[tuple[int, int]]) -> None:
        new, left, readers, writers = self._new, self._left, self._readers, self._writers
        for fd, mask in events:
            # What one callback closes, and another opens under the same number, is not what the event was about.
            if fd in new:
                continue
            if fd in left:
                self._drop(fd)
                continue
            self.at_end = bool(mask & _END)
            if mask != _OUT and (call := readers.get(fd)):
                call[0](*call[1])
            if mask & ~_READ and (call := writers.get(fd)) and fd not in new:
                call[0](*call[1])

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

    at_end = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask the loop itself."""
        self.add_reader, self.remove_reader = loop.add_reader, loop.remove_reader
        self.add_writer, self.remove_writer = loop.add_writer, loop.remove_writer
        self.call_soon = loop.call_soon

    def end_reader(self, fd: int, /) -> None:
        """Call what reads it no more."""
        self.remove_reader(fd)

    def call_last(self, fd: int, /) -> None:
        """Loops have an order of their own."""

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
