"""Files that others wrote, read with a cap: plain, gzip or bzip2, told apart by their first bytes.

A few kilobytes of gzip can stand for many gigabytes, so it is the bytes that come *out* that are counted. Nothing is
read ahead of what was asked for; memory stays at the size of one buffer, whatever the file claims to be.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, Self

from outlast.errors import NotFoundError, ProtocolError, StorageError, UsageError

GZIP: Final = b"\x1f\x8b"
BZIP2: Final = b"BZh"
OTHERS: Final = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}
"""How files begin that must be unpacked before they are given: no reader here has such content unpacked."""
BUFFER_BYTES: Final = 1 << 16
LINE_MAX_BYTES: Final = 1 << 20


@contextmanager
def open_capped(path: Path, max_bytes: int) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked when it is gzip or bzip2 (several members too); closed after the block.

    Reading past ``max_bytes`` of unpacked content raises ProtocolError, as does damaged or cut compression. Raises
    NotFoundError when there is no such file, UsageError when it is a folder or packed in another way, StorageError when
    it cannot be read.
    """
    name = path.name or str(path)
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise NotFoundError("there is no file %(path)s", path=name) from None
    except IsADirectoryError:
        raise UsageError("%(name)s is a folder: name a file", name=name) from None
    except (OSError, ValueError) as error:
        raise StorageError("%(name)s cannot be read: %(error)s", name=name, error=error) from None
    with raw, unpack_capped(raw, name, max_bytes) as capped:
        yield capped


@contextmanager
def unpack_capped(raw: io.BufferedReader, name: str, max_bytes: int) -> Iterator[BinaryIO]:
    """What ``open_capped`` does for a file, for a stream that is open already, as standard input is."""
    try:
        head = raw.peek(max(map(len, OTHERS)))
    except OSError as error:
        raise StorageError("%(name)s cannot be read: %(error)s", name=name, error=error) from None
    for begins, packer in OTHERS.items():
        if head.startswith(begins):
            raise UsageError(
                "%(name)s is packed by %(packer)s: unpack it first; gzip and bzip2 are read as they are",
                name=name,
                packer=packer,
            )
    with _unpacked(raw, head) as source, io.BufferedReader(_Capped(source, name, max_bytes)) as capped:
        yield capped


def size_of(path: Path) -> int:
    """The bytes of a file as it lies there; 0 where nobody can say, for opening it tells what is wrong."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def pieces(source: BinaryIO) -> Iterator[bytes]:
    """The content of an open file, piece by piece; what comes before damage is given before ProtocolError is raised."""
    while piece := source.read1(BUFFER_BYTES):  # type: ignore[attr-defined]  # every buffered reader has it
        yield piece


def read_capped(path: Path, max_bytes: int) -> bytes:
    """All of a file as ``open_capped`` reads it; the same errors."""
    with open_capped(path, max_bytes) as source:
        return source.read()


def lines(source: BinaryIO, max_bytes: int = LINE_MAX_BYTES) -> Iterator[bytes]:
    r"""The lines of an open file, without their ``\r\n``; raises ProtocolError at one longer than ``max_bytes``."""
    number = 0
    while line := source.readline(max_bytes + 2):
        number += 1
        bare = line.rstrip(b"\r\n")
        if len(bare) > max_bytes:
            raise ProtocolError("line %(number)s is longer than %(most)s bytes", number=number, most=max_bytes)
        yield bare


class _Readable(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: Any) -> None: ...
    def read1(self, size: int, /) -> bytes: ...


def _unpacked(raw: io.BufferedReader, head: bytes) -> _Readable:
    if head.startswith(GZIP):
        return gzip.GzipFile(fileobj=raw)
    if head.startswith(BZIP2):
        return bz2.BZ2File(raw)
    return raw


class _Capped(io.RawIOBase):
    """Hands bytes on until more come out than allowed."""

    def __init__(self, source: _Readable, name: str, max_bytes: int) -> None:
        self._source = source
        self._name = name
        self._max = max_bytes
        self._left = max_bytes

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the only buffer that comes
        """Fill at most one buffer; raises ProtocolError at the cap and at damage."""
        wanted = min(len(buffer), BUFFER_BYTES)
        try:
            piece = self._source.read1(wanted)  # what came out before damage is handed on
        except (EOFError, zlib.error, ValueError, gzip.BadGzipFile) as error:
            raise ProtocolError("%(name)s is damaged or cut: %(error)s", name=self._name, error=error) from None
        except OSError as error:
            # bz2 reports damage as an OSError without a number; the disk's own errors have one.
            if error.errno is None:
                raise ProtocolError("%(name)s is damaged or cut: %(error)s", name=self._name, error=error) from None
            raise StorageError("%(name)s cannot be read: %(error)s", name=self._name, error=error) from None
        self._left -= len(piece)
        if self._left < 0:
            raise ProtocolError(
                "%(name)s holds more than %(most)s bytes when unpacked", name=self._name, most=self._max
            )
        buffer[: len(piece)] = piece
        return len(piece)
