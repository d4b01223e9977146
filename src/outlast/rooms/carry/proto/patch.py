"""Patches: what is overwritten in a file so that it tells less, at the same places and without changing its length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

Read = Callable[[int, int], bytes]
"""``read(start, size)``: so many bytes of a file, fewer at its end."""


class MediaError(ValueError):
    """A file is not what its first bytes say, or is built so that what it tells cannot be found."""


class Patch(NamedTuple):
    """From the byte ``start`` on ``size`` bytes become ``data`` followed by zeros."""

    start: int
    size: int
    data: bytes = b""


def patched(pieces: Iterable[bytes], patches: Iterable[Patch]) -> Iterator[bytes]:
    """A file, given piece by piece from its beginning, with the patches applied; where they overlap the later wins."""
    todo = sorted(patches, key=lambda patch: patch.start)
    begun: list[Patch] = []
    at = 0
    for piece in pieces:
        end = at + len(piece)
        while todo and todo[0].start < end:
            begun.append(todo.pop(0))
        begun = [patch for patch in begun if patch.start + patch.size > at]
        yield _apply(piece, at, begun) if begun else piece
        at = end


def _apply(piece: bytes, at: int, patches: Iterable[Patch]) -> bytes:
    out = bytearray(piece)
    for start, size, data in patches:
        first, last = max(start, at), min(start + size, at + len(piece))
        written = data[first - start : last - start]
        out[first - at : last - at] = written.ljust(last - first, b"\0")
    return bytes(out)
