"""Files of route collectors, as RIS and RouteViews publish them: opened with a cap by how densely they are packed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from outlast.rooms.watch.io.files import open_capped, size_of

RATIO_MAX: Final = 100  # the early tables of many peers are the densest; bzip2 packs them to a fiftieth or so
MIN_MAX_BYTES: Final = 1 << 28
MAX_BYTES: Final = 1 << 34


@contextmanager
def open_mrt(path: Path) -> Iterator[BinaryIO]:
    """Open a file of MRT records, packed or not; the errors are those of ``open_capped``."""
    with open_capped(path, min(max(size_of(path) * RATIO_MAX, MIN_MAX_BYTES), MAX_BYTES)) as source:
        yield source
