"""Expected tags: which envelopes of a day are for a person, and what each tag stands for, in 16 bytes each.

Thousands of contacts, each with some devices, have millions of tags over the days that mail lives: kept as objects they
would fill the memory of a small computer, and whoever knows a link could make it so. Here stands the beginning of each
tag, in order, beside the number of its key and its counter; the rest is reckoned again for a tag that is found.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from outlast.kernel import mail

LOOSE_MIN: Final = 1024
"""Tags of a day that came one by one and wait to be put in order,"""
LOOSE_PART: Final = 8
"""or one such part of those that are."""
_COUNTER_BITS: Final = 32


class Expected:
    """The tags (16 B each) of one day. ``keys`` (32 B each) make them; they are shared by all days and only grow."""

    def __init__(self, day: int, keys: list[bytes]) -> None:
        """None yet."""
        self._day = day
        self._keys = keys
        self._loose: dict[bytes, int] = {}
        self._heads, self._codes = array("Q"), array("Q")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._loose) + len(self._codes)

    def __iter__(self) -> Iterator[bytes]:
        """All of them; each is reckoned."""
        yield from self._loose
        yield from map(self._tag, self._codes)

    def __contains__(self, tag: bytes) -> bool:
        """Whether it is expected."""
        return self._find(tag) is not None

    def get(self, tag: bytes) -> tuple[int, int] | None:
        """The number of the key that makes it, and its counter."""
        code = self._find(tag)
        return None if code is None else (code >> _COUNTER_BITS, _counter(code))

    def add(self, number: int, counters: Iterable[int]) -> list[bytes]:
        """Expect the tags of the key of that number with these counters; returns them."""
        key = self._keys[number]
        tags = {mail.tag(key, self._day, counter): number << _COUNTER_BITS | counter for counter in counters}
        self._loose.update((tag, code) for tag, code in tags.items() if tag not in self)
        if len(self._loose) > max(LOOSE_MIN, len(self._codes) // LOOSE_PART):
            both = [
                *(_head(tag) << 64 | code for tag, code in self._loose.items()),
                *(head << 64 | code for head, code in zip(self._heads, self._codes, strict=True)),
            ]
            both.sort()
            self._heads = array("Q", (one >> 64 for one in both))
            self._codes = array("Q", (one & 2**64 - 1 for one in both))
            self._loose = {}
        return list(tags)

    def _find(self, tag: bytes) -> int | None:
        code = self._loose.get(tag)
        if code is not None:
            return code
        head = _head(tag)
        at = bisect_left(self._heads, head)
        while at < len(self._heads) and self._heads[at] == head:
            if self._tag(self._codes[at]) == tag:
                return self._codes[at]
            at += 1
        return None

    def _tag(self, code: int) -> bytes:
        return mail.tag(self._keys[code >> _COUNTER_BITS], self._day, _counter(code))


def _head(tag: bytes) -> int:
    return int.from_bytes(tag[:8], "big")


def _counter(code: int) -> int:
    return code & (1 << _COUNTER_BITS) - 1
