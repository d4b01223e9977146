"""What a process knows and keeps is its owner's alone: no core files, folders that nobody else looks into."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from outlast.errors import StorageError

_PR_SET_DUMPABLE: Final = 4
_SUID_DUMP_DISABLE: Final = 0


def no_core_dumps() -> None:
    """Keep this process's memory, with its keys, out of core files and away from other processes' debuggers."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, _SUID_DUMP_DISABLE, 0, 0, 0)


def make_private(folder: Path) -> None:
    """Make a folder, and what is missing above it, with mode 0700; one that is there gets it.

    Raises StorageError, also where a disk keeps no permissions, as FAT and exFAT do not.
    """
    try:
        missing = [one for one in folder.parents if not one.exists()]
        for one in (*reversed(missing), folder):
            one.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        is_private = not folder.stat().st_mode & 0o077
    except OSError as error:
        raise StorageError(
            "cannot make %(folder)s: %(error)s; name another folder by --home", folder=folder, error=error
        ) from None
    if not is_private:
        raise StorageError(
            "anybody at this computer could read %(folder)s: its disk keeps no permissions;"
            " name a folder on another disk by --home",
            folder=folder,
        )
