"""Memory that was freed is used again, and not given back to the system at every turn."""

from __future__ import annotations

import sys
from typing import Final

_OPTIONS: Final = {
    -1: 16 << 20,  # M_TRIM_THRESHOLD: what may lie free at the end of the heap
    -3: 8 << 20,  # M_MMAP_THRESHOLD: larger blocks are mapped apart
    -8: 1,  # M_ARENA_MAX: one heap for all threads, which seldom allocate at a time
}


def reuse_freed_memory() -> None:
    """Let this process keep some MiB that it has freed. Call it before there are threads.

    Files move in blocks of a few MiB. The GNU C library gives each back to the system when it is freed, and takes it
    anew for the next one, page by page: a tenth of the work on a large file. Other libraries are left as they are.
    """
    if sys.platform == "linux":
        import ctypes

        if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
            for option, value in _OPTIONS.items():
                mallopt(option, value)
