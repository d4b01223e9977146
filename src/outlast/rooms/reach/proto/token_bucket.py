"""Token buckets: how many bytes may pass, over time and at once. Pure; time is an argument.

A bucket fills at ``per_s`` up to ``burst``. What passes is taken out; it may go below nothing by what one read brought,
and whoever reads waits until it is filled again, so that a quota costs no second look at each byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class TokenBucket:
    """Tokens are bytes; ``per_s`` more come each second, and no more than ``burst`` wait to be used."""

    __slots__ = ("_at_s", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        """Begins full; ``per_s`` and ``burst`` are above 0. ``now_s`` is a clock that never goes back."""
        if per_s <= 0 or burst <= 0:
            raise ValueError("a token bucket needs a rate and room for something")
        self.per_s, self.burst = per_s, burst
        self._tokens, self._at_s = burst, now_s

    def left(self, now_s: float) -> float:
        """What may pass now; below 0 when more has passed than had come."""
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._tokens = min(self.burst, self._tokens + passed_s * self.per_s)
        return self._tokens

    def take(self, count: int, now_s: float) -> None:
        """So many bytes have passed."""
        self.left(now_s)
        self._tokens -= count

    def wait_s(self, now_s: float, least: float = 1.0) -> float:
        """How long until ``least`` bytes (at most ``burst``) may pass; 0 when they may now."""
        return max(0.0, (min(least, self.burst) - self.left(now_s)) / self.per_s)


class Allowance:
    """So many bytes in a day, counted from when the day began for whoever uses it; ``spent`` is kept over restarts."""

    __slots__ = ("_day", "per_day", "spent")

    def __init__(self, per_day: int, day: int, spent: int = 0) -> None:
        """``day`` is counted since 1970, UTC."""
        self.per_day, self.spent, self._day = per_day, spent, day

    def take(self, count: int, day: int) -> bool:
        """Note that so many bytes passed on this day; whether any more may."""
        if day != self._day:
            self._day, self.spent = day, 0
        self.spent += count
        return self.spent < self.per_day


OWN_QUIET_PER_S: Final = 32_768.0
"""A line that carries less than this of its owner's own is free for others."""
LEFT_SHARE: Final = 0.25
LEFT_MIN_PER_S: Final = 16_384.0


def leftover_per_s(own_per_s: float) -> float | None:
    """How many bytes a second others may have while the owner has so many; None = as many as there is room for.

    A quarter of what the owner takes, and always enough for letters: who shares a line is served first on it.
    """
    return None if own_per_s < OWN_QUIET_PER_S else max(LEFT_MIN_PER_S, LEFT_SHARE * own_per_s)


def wait_s(buckets: Sequence[TokenBucket], now_s: float, least: float = 1.0) -> float:
    """How long until all of several buckets let ``least`` bytes pass: a member's own, and that of all together."""
    return max((bucket.wait_s(now_s, least) for bucket in buckets), default=0.0)
