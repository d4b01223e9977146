"""A clock that stands until it is told to move."""

from __future__ import annotations

from typing import Final

from outlast.kernel.entry import day_of

START_MS: Final = 1_800_000_000_000
"""15 January 2027, 08:00 UTC."""


class FakeClock:
    """Call it for the time in ms; it moves by ``advance`` alone."""

    def __init__(self, now_ms: int = START_MS) -> None:
        """Start at ``now_ms`` (UTC since 1970)."""
        self.now_ms = now_ms

    def __call__(self) -> int:
        """The time in ms."""
        return self.now_ms

    @property
    def today(self) -> int:
        """The day number (days since 1970, UTC)."""
        return day_of(self.now_ms)

    def advance(self, ms: int = 0, *, days: int = 0) -> None:
        """Let time pass."""
        self.now_ms += ms + days * 86_400_000
