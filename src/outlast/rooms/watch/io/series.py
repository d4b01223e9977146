"""Files of measured series, as they were downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from outlast.rooms.watch.io.files import lines, open_capped
from outlast.rooms.watch.proto import recognise
from outlast.rooms.watch.proto.series import Origin, Point

SERIES_MAX_BYTES: Final = 1 << 26  # Tor's users by country of all days so far are 50 MB


def read_series(path: Path, utc_offset_h: float | None = None) -> list[Point]:
    """The rows of a file, plain, gzip or bzip2, known by its content; errors of ``open_capped`` and SeriesError."""
    with open_capped(path, SERIES_MAX_BYTES) as source:
        # A document of JSON is one line, so lines may be as long as the file.
        return recognise.read_series(lines(source, SERIES_MAX_BYTES), Origin(), utc_offset_h)
