"""ISO base media files (ISO/IEC 14496-12): MP4, M4A, 3GP, and QuickTime's MOV, which has the same form.

Such a file is boxes in boxes. What phones write beside picture and sound: user data and metadata with place, camera and
owner; the times of creation; names of the makers' programs; and whole tracks of measurements. Boxes keep their length
and become free space, so that nothing else in the file moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from outlast.rooms.carry.proto.patch import MediaError, Patch, Read

BOXES_MAX: Final = 100_000
DEPTH_MAX: Final = 10
TABLE_MAX_BYTES: Final = 8 << 20
"""Of a track of measurements: its table of places."""
CHUNKS_MAX: Final = 200_000
FIRST: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""With one of these a file begins."""

_INSIDE: Final = frozenset(
    (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"dinf", b"mfra")
)
_TOLD: Final = frozenset((b"udta", b"meta", b"uuid", b"free", b"skip", b"wide", b"pnot"))
_TIMED: Final = frozenset((b"mvhd", b"tkhd", b"mdhd"))
_SEEN: Final = frozenset((b"vide", b"soun", b"text", b"sbtl", b"subt", b"clcp"))
"""Handlers of tracks that are seen or heard."""
_KNOWN: Final[Mapping[bytes, Set[bytes]]] = {
    b"": frozenset((b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"ssix", b"mfra", b"pdin")),
    b"moov": frozenset((b"mvhd", b"trak", b"mvex", b"iods", b"clip", b"ctab")),
}
"""What a file, and a film in it, are made of. Cameras write boxes of their own beside that, with place and owner."""


class Box(NamedTuple):
    """A box: its type, where it starts, where its content starts, where it ends."""

    type: bytes
    start: int
    content: int
    end: int


@dataclass(slots=True)
class _Walk:
    read: Read
    patches: list[Patch] = field(default_factory=list)
    boxes: int = 0
    is_fragmented: bool = False
    has_measurements: bool = False


def patches(read: Read, size: int) -> list[Patch]:
    """What is to be overwritten in a file of ``size`` bytes. Raises MediaError."""
    walk = _Walk(read)
    types = _level(walk, b"", 0, size, 0)
    if b"moov" not in types:
        raise MediaError("no film is in this file")
    if walk.is_fragmented and walk.has_measurements:
        raise MediaError("a track of measurements stands in pieces")
    return walk.patches


def _level(walk: _Walk, inside: bytes, start: int, end: int, depth: int) -> set[bytes]:
    types = set()
    for box in _boxes(walk, start, end):
        types.add(box.type)
        if box.type in _TOLD:
            _free(walk, box)
        elif box.type in _TIMED:
            _blank_times(walk, box)
        elif box.type == b"hdlr":
            _blank_name(walk, box)
        elif box.type == b"trak" and not _is_seen(walk, box):
            walk.has_measurements = True
            _blank_samples(walk, box)
            _free(walk, box)
        elif box.type in _INSIDE:
            if depth == DEPTH_MAX:
                raise MediaError("too many boxes stand in one another")
            walk.is_fragmented |= box.type == b"moof"
            _level(walk, box.type, box.content, box.end, depth + 1)
        elif box.type not in _KNOWN.get(inside, types):
            _free(walk, box)
    return types


def _free(walk: _Walk, box: Box) -> None:
    walk.patches += (Patch(box.start + 4, 4, b"free"), Patch(box.content, box.end - box.content))


def _boxes(walk: _Walk, start: int, end: int) -> Iterator[Box]:
    while end - start >= 8:
        walk.boxes += 1
        if walk.boxes > BOXES_MAX:
            raise MediaError("too many boxes are in this file")
        head = walk.read(start, 16)
        if len(head) < 8:
            raise MediaError("the file ends within a box")
        size, type_, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        elif size == 0:
            if start == 0 and not any(type_):
                raise MediaError("this is no film")
            if not any(type_):  # QuickTime ends user data with four zeros
                break
            size = end - start
        if content - start > size or size > end - start:
            raise MediaError("a box is larger than what it stands in")
        yield Box(type_, start, content, start + size)
        start += size
    # What is left over is no box; it may say anything.
    if start < end:
        walk.patches.append(Patch(start, end - start))


def _blank_times(walk: _Walk, box: Box) -> None:
    version = walk.read(box.content, 1)
    wide = 16 if version == b"\x01" else 8
    if box.end - box.content < 4 + wide:
        raise MediaError("a header is cut off")
    walk.patches.append(Patch(box.content + 4, wide))


def _blank_name(walk: _Walk, box: Box) -> None:
    # Version, flags, component type, handler type; then the maker in QuickTime, and the name.
    if box.end - box.content > 12:
        walk.patches.append(Patch(box.content + 12, box.end - box.content - 12))


def _is_seen(walk: _Walk, track: Box) -> bool:
    handler = _find(walk, track, b"mdia", b"hdlr")
    return handler is not None and walk.read(handler.content + 8, 4) in _SEEN


def _find(walk: _Walk, box: Box, *path: bytes) -> Box | None:
    for type_ in path:
        found = next((one for one in _children(walk, box) if one.type == type_), None)
        if found is None:
            return None
        box = found
    return box


def _children(walk: _Walk, box: Box) -> list[Box]:
    # Leftovers are noted once, by _level; a track that is not seen is blanked as a whole.
    noted = len(walk.patches)
    found = list(_boxes(walk, box.content, box.end))
    del walk.patches[noted:]
    return found


def _blank_samples(walk: _Walk, track: Box) -> None:
    """Overwrite what a track says, chunk by chunk."""
    table = _find(walk, track, b"mdia", b"minf", b"stbl")
    if table is None:
        return
    parts = {one.type: one for one in _children(walk, table)}
    places = parts.get(b"stco") or parts.get(b"co64")
    if places is None:
        return
    wide = 8 if places.type == b"co64" else 4
    starts = _numbers(walk, places, 4, 1, wide)
    sizes = _sizes(walk, parts.get(b"stsz"))
    runs = parts.get(b"stsc")
    groups = _numbers(walk, runs, 4, 3, 4) if runs else []
    if len(starts) > CHUNKS_MAX or len(groups) % 3:
        raise MediaError("a track of measurements has too many parts")
    firsts = {first: count for first, count in zip(groups[::3], groups[1::3], strict=True)}
    count, sample = 0, 0
    for number, start in enumerate(starts, 1):
        count = firsts.get(number, count)
        length = sizes.sum(sample, count)
        sample += count
        if length:
            walk.patches.append(Patch(start, length))


@dataclass(frozen=True, slots=True)
class _Sizes:
    same: int
    each: list[int]
    samples: int

    def sum(self, first: int, count: int) -> int:
        """The bytes of so many samples."""
        if self.same:
            return self.same * max(0, min(count, self.samples - first))
        return sum(self.each[first : first + count])


def _sizes(walk: _Walk, box: Box | None) -> _Sizes:
    if box is None:
        raise MediaError("a track of measurements does not say how long its parts are")
    head = walk.read(box.content, 12)
    same, count = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    return _Sizes(same, [] if same else _numbers(walk, box, 8, 1, 4), count)


def _numbers(walk: _Walk, box: Box, at: int, columns: int, wide: int) -> list[int]:
    """A table of numbers that follows its length, which stands ``at`` bytes into the box."""
    count = int.from_bytes(walk.read(box.content + at, 4), "big") * columns
    size = count * wide
    if size > min(TABLE_MAX_BYTES, box.end - box.content - at - 4):
        raise MediaError("a table is larger than its box")
    data = walk.read(box.content + at + 4, size)
    return [int.from_bytes(data[n : n + wide], "big") for n in range(0, len(data), wide)]
