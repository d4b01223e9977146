"""Files of measurements and lists of fingerprints, as an operator has them: read with caps, damage told by its line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from outlast.errors import NotFoundError, ProtocolError, StorageError
from outlast.rooms.watch.io.files import open_capped, pieces, read_capped, size_of
from outlast.rooms.watch.proto.fingerprints import LIST_MAX_BYTES, Fingerprint, Fingerprints, Refused, read_list
from outlast.rooms.watch.proto.measurement import Measurement, MeasurementError, from_object
from outlast.rooms.watch.proto.records import Damage, records

UNPACKED_MIN_MAX_BYTES: Final = 1 << 28
UNPACKED_RATIO_MAX: Final = 64
"""So many times a file's size may come out of it, or the bytes above: JSON is packed to a tenth or a twentieth."""
STREAM_MAX_BYTES: Final = 16 << 30
"""Of standard input, which nobody can tell from a bomb by its size; more than that is read from a file."""
DAMAGED_MAX: Final = 1000
LISTS_MAX: Final = 16
FOLDER: Final = Path("rooms", "watch", "fingerprints")
"""Where in a home the operator's own lists of block pages lie."""


def measurements(path: Path) -> Iterator[Measurement | Damage]:
    """The measurements of a file: one JSON object or JSONL, packed by gzip or bzip2 or not.

    What is damaged comes as such and the rest of the file is read. Raises NotFoundError, UsageError, StorageError as
    ``open_capped`` does, ProtocolError when the packing is damaged or holds more than it can.
    """
    with open_capped(path, max(UNPACKED_MIN_MAX_BYTES, size_of(path) * UNPACKED_RATIO_MAX)) as source:
        yield from measurements_in(source)


def measurements_in(source: BinaryIO) -> Iterator[Measurement | Damage]:
    """The measurements of an open file, as ``measurements`` gives them.

    Raises ProtocolError when there is nothing, or more than DAMAGED_MAX are damaged and fewer are not: then it is no
    file of measurements.
    """
    good = damaged = 0
    for found in records(pieces(source)):
        one = found if isinstance(found, Damage) else _measurement(*found)
        if isinstance(one, Damage):
            damaged += 1
            if damaged > max(DAMAGED_MAX, good):
                raise ProtocolError("damaged records, more than %(n)s: the rest was not read", n=damaged - 1)
        else:
            good += 1
        yield one
    if not good and not damaged:
        raise ProtocolError("there is no measurement in it")


def _measurement(line: int, data: dict[str, Any]) -> Measurement | Damage:
    try:
        return from_object(data)
    except MeasurementError as error:
        return Damage(line, str(error))


def own_fingerprints(home: Path) -> Fingerprints | None:
    """The operator's own lists, in ``rooms/watch/fingerprints`` of a home; None where there is no such folder.

    They are read once, and again when a file of the folder is another. Errors as ``fingerprints`` has them.
    """
    folder = home / FOLDER
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError("%(name)s cannot be read: %(error)s", name=folder.name, error=error) from None
    return _read_once(folder, tuple(map(_stamp, paths)))


def _stamp(path: Path) -> tuple[str, int, int]:
    """What changes when a file does; a link that leads nowhere is no reason to go without the lists beside it."""
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, 0
    return path.name, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _read_once(folder: Path, _stamp: tuple[tuple[str, int, int], ...]) -> Fingerprints:
    return fingerprints(folder)


def fingerprints(folder: Path) -> Fingerprints:
    """All lists (``*.csv``) of a folder, made ready.

    Raises NotFoundError when there is no such folder or no list in it, ProtocolError when a list is no text in UTF-8 or
    larger than LIST_MAX_BYTES, StorageError when it cannot be read.
    """
    try:
        lists = sorted(folder.glob("*.csv"))
    except OSError as error:
        raise StorageError("%(name)s cannot be read: %(error)s", name=folder.name, error=error) from None
    if not lists:
        raise NotFoundError("there is no list of fingerprints (*.csv) in %(name)s", name=folder.name)
    if len(lists) > LISTS_MAX:
        raise ProtocolError("%(name)s has more than %(most)s lists", name=folder.name, most=LISTS_MAX)
    return Fingerprints(row for path in lists for row in _rows(path))


def _rows(path: Path) -> Iterator[Fingerprint | Refused]:
    try:
        text = read_capped(path, LIST_MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProtocolError("%(name)s is no text in UTF-8", name=path.name) from None
    for row in read_list(text.splitlines(keepends=True)):
        yield Refused(row.line, f"{path.name}, line {row.line}: {row.reason}") if isinstance(row, Refused) else row
