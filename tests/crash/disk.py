"""The writes of SQLite and of heaps in this process: counted, refused, or stopped in their middle.

The functions that SQLite's own file layer and Python write by are replaced, below the encryption, so that what a test
meets is what the disk would do: nothing of SQLite or of the program is left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Self

_NAMES = ("pwrite64", "pwrite")
_PWRITE = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_longlong, use_errno=True
)


class Write(NamedTuple):
    """A write that is about to reach the disk."""

    number: int  # from 1
    path: str
    size: int  # bytes
    put: Callable[[int], object]
    """Bring its first so many bytes to the disk."""


class Disk:
    """Every such write passes through ``on_write``; when that returns True the disk says that it is full."""

    def __init__(self, on_write: Callable[[Write], bool] = lambda _: False) -> None:
        """Nothing is replaced before the block is entered."""
        self.writes = 0
        self.on_write = on_write
        self._layer: Any = None
        self._real: dict[str, int] = {}

    def fill(self, first: int, last: int | None = None) -> None:
        """From write ``first`` (to ``last``), counted from now, there is no room; half of the first one still fits."""
        begin, end = self.writes + first, None if last is None else self.writes + last

        def refuse(write: Write) -> bool:
            if write.number == begin:
                write.put(write.size // 2)
            return write.number >= begin and (end is None or write.number <= end)

        self.on_write = refuse

    def make_room(self) -> None:
        """The disk takes everything again."""
        self.on_write = lambda _: False

    def __enter__(self) -> Self:
        """Replace the functions."""
        import apsw

        put_back = self._pwrite = os.pwrite

        def python_write(file: int, data: bytes, offset: int) -> int:
            path = os.readlink(f"/proc/self/fd/{file}")
            if path.endswith(".chunks"):
                self.writes += 1
                if self.on_write(Write(self.writes, path, len(data), lambda part: put_back(file, data[:part], offset))):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return put_back(file, data, offset)

        os.pwrite = python_write

        self._layer = apsw.VFS("disk", "unix")
        self._real = {name: at for name in _NAMES if (at := self._layer.xGetSystemCall(name))}
        real = _PWRITE(next(iter(self._real.values())))

        def write(file: int, data: int, size: int, offset: int) -> int:
            self.writes += 1
            if not self.on_write(
                Write(
                    self.writes, os.readlink(f"/proc/self/fd/{file}"), size, lambda part: real(file, data, part, offset)
                )
            ):
                return int(real(file, data, size, offset))
            ctypes.set_errno(errno.ENOSPC)
            return -1

        self._write = _PWRITE(write)  # what C calls must live as long as it is set
        for name in self._real:
            self._layer.xSetSystemCall(name, ctypes.cast(self._write, ctypes.c_void_p).value)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the functions back."""
        os.pwrite = self._pwrite
        for name, at in self._real.items():
            self._layer.xSetSystemCall(name, at)
        self._layer.unregister()
