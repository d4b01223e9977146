"""Files that operations read and write: named by absolute paths, opened by the process that carries the operation out.

What is written appears whole under its name or not at all.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from outlast.errors import NotFoundError, StorageError, UsageError

STEP_BYTES: Final = 8 << 20
"""What the system may hold of a file that is being written: progress is the disk's then, and not the memory's."""


class _Steady(FileIO):
    """A file that reaches the disk while it is written: a slow stick is waited for by who writes, not at the end."""

    _held_bytes = 0

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self._held_bytes += written
        if self._held_bytes >= STEP_BYTES:
            os.fsync(self.fileno())
            self._held_bytes = 0
        return written


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file to write that takes its name, in place of an older one, once it is whole and durable.

    Who writes much of it, in a thread, waits for the disk there: little is left to be written at the end.
    Raises StorageError when the disk is full or does not allow it; nothing is left behind then. Raises UsageError for a
    name that is taken by what is no file: a device, a pipe or a link would be replaced and not written to.
    """
    draft = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise UsageError("%(path)s is no file", path=path)
        with BufferedWriter(_Steady(draft, "x", opener=lambda name, flags: os.open(name, flags, mode))) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        except OSError as error:
            # Some filesystems of sticks, mostly in user space, know no fsync of folders.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(
            "cannot write %(path)s: %(error)s; nothing of it was kept", path=path, error=error
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def existing_file(path: Path) -> Iterator[BinaryIO]:
    """A file to read; raises NotFoundError, UsageError for what is no file, and StorageError."""
    try:
        # Not waiting: a pipe without a writer would hold the node up.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise UsageError("%(path)s is no file", path=path)
            yield source
    except FileNotFoundError:
        raise NotFoundError("there is no file %(path)s", path=path) from None
    except IsADirectoryError:
        raise UsageError("%(path)s is a folder: name the file in it", path=path) from None
    except OSError as error:
        raise StorageError(
            "cannot read %(path)s: %(error)s; is the stick still there?", path=path, error=error
        ) from error
