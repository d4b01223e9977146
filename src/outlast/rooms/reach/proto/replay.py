"""Remembers which salts were seen, in bounded memory: what somebody recorded opens nothing a second time.

Two Bloom filters take turns. Only what proved that it knows the key is remembered, so strangers cannot fill them. A
filter of a million salts wrongly takes a new one for an old one once in a million; such a client simply tries again.
"""

from __future__ import annotations

from hashlib import blake2b
from math import ceil, log
from typing import Final

_WRONG: Final = 1e-6  # how often a new salt may look like one that was seen, with full filters
_HASHES: Final = round(-log(_WRONG, 2))
_BITS_EACH: Final = -log(_WRONG) / log(2) ** 2


class Replays:
    """What was seen: at least the last ``capacity`` salts or, with ``lasting_s``, all of the last so many seconds.

    With ``lasting_s`` time alone makes it forget: when more come than it has room for, new ones look old ever more
    often, and none that is old passes. ``key`` is by chance, so that nobody knows which salts collide.
    """

    def __init__(self, key: bytes, *, capacity: int = 1 << 20, lasting_s: float | None = None) -> None:
        self._key, self._capacity, self._lasting_s = key, capacity, lasting_s
        self._bits = ceil(capacity * _BITS_EACH)
        self._new, self._old = self._empty(), self._empty()
        self._count, self._since = 0, 0.0

    def first(self, salt: bytes, now: float) -> bool:
        """Whether this salt was not seen yet; from now on it was. ``now`` is in seconds of any steady clock."""
        self._turn(now)
        digest = blake2b(salt, digest_size=16, key=self._key).digest()
        start, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1
        places = [divmod((start + turn * step) % self._bits, 8) for turn in range(_HASHES)]
        if any(all(bits[byte] >> bit & 1 for byte, bit in places) for bits in (self._new, self._old)):
            return False
        for byte, bit in places:
            self._new[byte] |= 1 << bit
        self._count += 1
        return True

    def _turn(self, now: float) -> None:
        if self._lasting_s is None:
            if self._count >= self._capacity:
                self._forget(now)
        elif now - self._since >= self._lasting_s:
            if now - self._since >= 2 * self._lasting_s:
                self._forget(now)
            self._forget(now)

    def _forget(self, now: float) -> None:
        self._old, self._new = self._new, self._empty()
        self._count, self._since = 0, now

    def _empty(self) -> bytearray:
        return bytearray(self._bits // 8 + 1)
