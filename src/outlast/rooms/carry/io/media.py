"""What a file is, and what it tells beside what one sees or hears: taken out before it leaves.

Pictures are made anew by a program in a process of its own. In films and recordings that what tells of place, time and
maker is overwritten where it stands. Of anything else nothing is known.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, Protocol

import msgspec

from outlast.errors import UsageError
from outlast.rooms.carry.entries import file_name
from outlast.rooms.carry.proto import id3, isobmff, matroska, ogg
from outlast.rooms.carry.proto.patch import MediaError, Patch, Read, patched
from outlast.ui import limited

PROGRAM: Final = Path(__file__).with_name("picture.py")
PICTURE_MAX_BYTES: Final = 64 << 20
SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}
INLINE: Final = frozenset(("image/jpeg", "image/png", "image/webp", "image/gif"))
"""Pictures that a page may show, made anew."""
HEAD_BYTES: Final = 16
PIECE_BYTES: Final = 256 * 1024
_STILL_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"jxl ")
_FILMS: Final[dict[str, Callable[[Read, int], list[Patch]]]] = {
    "video/mp4": isobmff.patches,
    "video/quicktime": isobmff.patches,
    "video/3gpp": isobmff.patches,
    "audio/mp4": isobmff.patches,
    "video/webm": matroska.patches,
    "audio/ogg": ogg.patches,
    "audio/mpeg": id3.patches,
    "audio/amr": lambda _read, _size: [],  # it has no place for anything beside the sound
}


class Source(Protocol):
    """A file as it came; ``read(start, size)`` gives fewer bytes at its end, and belongs on a thread."""

    size_bytes: int

    def read(self, start: int, size: int, /) -> bytes:
        """So many bytes from ``start`` on."""
        ...


class Opened:
    """A file of this computer, as a source."""

    def __init__(self, file: BinaryIO) -> None:
        """``file`` is open for reading, and nobody else reads it meanwhile."""
        self._file = file
        self._state = self._look()
        self.size_bytes = self._state.st_size

    def read(self, start: int, size: int, /) -> bytes:
        """So many bytes from ``start`` on, fewer at the end; raises UsageError when somebody writes to the file.

        What was found in it need not stand there any more, and what would be sent is nothing that there ever was.
        """
        self._file.seek(start)
        data = self._file.read(max(0, min(size, self.size_bytes - start)))
        now = self._look()
        if (now.st_size, now.st_mtime_ns) != (self._state.st_size, self._state.st_mtime_ns):
            raise UsageError("this file changed while it was read, so it was not sent: wait until it is whole")
        return data

    def _look(self) -> os.stat_result:
        return os.fstat(self._file.fileno())


class _Head(msgspec.Struct, frozen=True):
    type: str
    preview: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A file as it may leave: its type, a small picture of it (perhaps empty), its size, its pieces."""

    type: str
    preview: bytes
    size_bytes: int
    pieces: Iterator[bytes]


def type_of(head: bytes) -> str:
    """The media type of a file by its first 16 bytes; empty when it is none of those that can be cleaned."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] in isobmff.FIRST:
        return _film(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"#!AMR"):
        return "audio/amr"
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return ""


def _film(head: bytes) -> str:
    brand = head[8:12] if head[4:8] == b"ftyp" else b"qt  "
    if brand in _STILL_BRANDS:
        return ""
    if brand == b"qt  ":
        return "video/quicktime"
    if brand[:3] in (b"M4A", b"M4B"):
        return "audio/mp4"
    return "video/3gpp" if brand[:2] == b"3g" else "video/mp4"


def renamed(name: str, type_: str) -> str:
    """A file's name with the suffix of what the picture was made into."""
    suffix = SUFFIXES.get(type_, "")
    known = {".jpg": (".jpg", ".jpeg", ".jpe")}.get(suffix, (suffix,))
    if not suffix or name.lower().endswith(known):
        return name
    stem, dot, _old = name.rpartition(".")
    return file_name((stem if dot and stem else name) + suffix)


async def as_it_is(file: Source) -> Cleaned:
    """The file with all that it tells."""
    type_ = type_of(await asyncio.to_thread(file.read, 0, HEAD_BYTES))
    return Cleaned(type_, b"", file.size_bytes, pieces(file))


async def clean(file: Source, preview_bytes: int) -> Cleaned | None:
    """The file without what it tells; None when it is of no kind that this can be done for.

    Its small picture, if it is one, has at most ``preview_bytes``.
    Raises MediaError when it should be possible and is not, and StorageError.
    """
    head = await asyncio.to_thread(file.read, 0, HEAD_BYTES)
    type_ = type_of(head)
    if type_ in INLINE:
        return await _anew(file, preview_bytes)
    if type_ not in _FILMS:
        return None
    patches = await asyncio.to_thread(_FILMS[type_], file.read, file.size_bytes)
    return Cleaned(type_, b"", file.size_bytes, patched(pieces(file), patches))


async def _anew(file: Source, preview_bytes: int) -> Cleaned:
    if file.size_bytes > PICTURE_MAX_BYTES:
        raise MediaError("this picture is too large to be made anew")
    data = await asyncio.to_thread(file.read, 0, file.size_bytes)
    out = await limited.run(PROGRAM, data, "send", str(preview_bytes))
    line, found, rest = (out or b"").partition(b"\n")
    if not found:
        raise MediaError("this picture cannot be read")
    made = msgspec.json.decode(line, type=_Head)
    picture = rest[made.preview :]
    return Cleaned(made.type, rest[: made.preview], len(picture), iter((picture,)))


def pieces(file: Source) -> Iterator[bytes]:
    """A file as it came, from its beginning."""
    for start in range(0, file.size_bytes, PIECE_BYTES):
        yield file.read(start, PIECE_BYTES)


async def threaded(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces as they are read on a thread."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


async def shown(picture: bytes, purpose: Literal["preview", "show"]) -> bytes | None:
    """Somebody's picture made anew for a page (WebP): no byte of theirs reaches the browser. None when it is none."""
    return await limited.run(PROGRAM, picture, purpose)
