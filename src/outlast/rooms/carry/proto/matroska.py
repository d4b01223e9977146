"""Matroska and WebM (RFC 9559, in EBML, RFC 8794): tags, attachments, titles, dates and programs become empty space."""

from __future__ import annotations

from typing import Final

from outlast.rooms.carry.proto.patch import MediaError, Patch, Read

ELEMENTS_MAX: Final = 200_000
_VOID: Final = 0xEC
_SEGMENT: Final = 0x18538067
_INFO: Final = 0x1549A966
_CLUSTER: Final = 0x1F43B675
_INSIDE: Final = frozenset((_SEGMENT, _INFO, 0x1654AE6B, 0xAE))  # and Tracks, TrackEntry
_TOLD: Final = frozenset(
    (
        0x1254C367,  # Tags
        0x1941A469,  # Attachments
        0x1043A770,  # Chapters
        0x4461,  # DateUTC
        0x7BA9,  # Title
        0x7384,  # SegmentFilename
        0x73A4,  # SegmentUUID
        0x536E,  # Name of a track
        _VOID,
    )
)
_NAMED: Final = frozenset((0x4D80, 0x5741))  # MuxingApp, WritingApp: they must be there


def patches(read: Read, size: int) -> list[Patch]:
    """What is to be overwritten in a file of ``size`` bytes; raises MediaError."""
    found: list[Patch] = []
    at = 0
    for _ in range(ELEMENTS_MAX):
        if at >= size:
            return found
        id_, id_bytes = _number(read(at, 4), 4, marked=True)
        length, length_bytes = _number(read(at + id_bytes, 8), 8, marked=False)
        content = at + id_bytes + length_bytes
        is_unknown = length == (1 << 7 * length_bytes) - 1
        if is_unknown and id_ not in (_SEGMENT, _CLUSTER):
            raise MediaError("an element of this recording has no end")
        if not is_unknown and content + length > size:
            raise MediaError("this recording is cut off")
        end = content + length
        if id_ in _TOLD:
            found.append(_void(at, end))
        elif id_ in _NAMED:
            found.append(Patch(content, length))
        elif id_ in _INSIDE or is_unknown:
            at = content
            continue
        at = end
    raise MediaError("too many elements are in this recording")


def _void(start: int, end: int) -> Patch:
    """The same bytes as an element that means nothing."""
    size = end - start
    wide = 8 if size >= 9 else 1
    rest = size - 1 - wide
    return Patch(start, size, bytes([_VOID]) + ((1 << 7 * wide) | rest).to_bytes(wide, "big"))


def _number(data: bytes, wide_max: int, *, marked: bool) -> tuple[int, int]:
    """A number of variable length, with its length marker or without, and how many bytes it takes."""
    wide = 9 - data[0].bit_length() if data and data[0] else 9
    if wide > wide_max or wide > len(data):
        raise MediaError("a number in this recording is damaged")
    value = int.from_bytes(data[:wide], "big")
    return (value if marked else value & ((1 << 7 * wide) - 1)), wide
