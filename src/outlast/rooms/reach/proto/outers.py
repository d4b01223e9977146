"""Which outer connections a client has and when it changes them: a policy, without sockets, clock or chance.

One outer carries everything; before its random life ends, another one takes over. After a cut a second one stands by.
Where outers freeze or are cut after few bytes (the 16 KB curtain), none carries more than a budget that stays below
(short hops), and the next ones are opened ahead; now and then one without budget tries whether the curtain is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from outlast.rooms.reach.proto.session import Ending

OUTERS_MAX: Final = 3
LIFE_MIN_S: Final = 60.0
LIFE_MAX_S: Final = 240.0
LEAD_S: Final = 10.0  # how long before its end an outer's successor is opened
IDLE_S: Final = 600.0  # without streams; then outers are let go
CUT_MEMORY_S: Final = 60.0
CURTAIN_MAX_BYTES: Final = 64 * 1024  # who froze with more did not meet the curtain
CURTAIN_MIN_BYTES: Final = 4 * 1024
CURTAIN_YOUNG_S: Final = 30.0
CUT_YOUNG_S: Final = 5.0
USED_BYTES: Final = 8 * 1024  # who carried less than this only stood by
CUTS_MAX: Final = 4  # so many early ones in a row may be a curtain that cuts
HOP_BYTES: Final = 12 * 1024
HOP_MIN_BYTES: Final = 4 * 1024
WELL_MIN: Final = 16
PASSED_BYTES: Final = 2 * CURTAIN_MAX_BYTES
TRY_MIN_S: Final = 30.0
TRY_MAX_S: Final = 600.0
BACKOFF_MIN_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0


class Open(NamedTuple):
    """Open another outer; over its whole life at most so many bytes in each direction (0: no bound)."""

    number: int
    budget_bytes: int


class Retire(NamedTuple):
    """Use an outer no more."""

    number: int


@dataclass(slots=True)
class _Outer:
    begun_at: float
    ends_at: float
    budget_bytes: int
    up: bool = False


class Outers:
    """The policy of one session."""

    def __init__(self, chance: Callable[[], float], now: float = 0.0, hop_bytes: int = 0) -> None:
        """``chance`` gives numbers from 0 to 1; ``hop_bytes`` is what another session found out, 0 for nothing."""
        self._chance = chance
        self._outers: dict[int, _Outer] = {}
        self._next = 1
        self._retry_at = 0.0
        self._backoff_s = BACKOFF_MIN_S
        self._cut_at = -CUT_MEMORY_S
        self._cuts = 0  # one after another, each early
        self._carried = 0  # by the last outer that froze or was cut, if that was soon
        self._used_at: float | None = None
        self._try_s = TRY_MIN_S
        self._try_at = now + TRY_MIN_S if hop_bytes else 0.0
        self.hop_bytes = hop_bytes  # 0: outers are not bounded
        self._ceiling_bytes = HOP_BYTES  # to which that grows again
        self._well = 0  # bounded outers, one after another, that were done in order
        self.frozen_at_bytes: int | None = None  # what the last that froze had carried

    def plan(self, now: float, streams: int, usable: Mapping[int, int]) -> list[Open | Retire]:
        """What to do now; ``usable`` are outers that take something new, and how many bytes each has carried."""
        if streams or self._used_at is None:
            self._used_at = now
        for number, carried in usable.items():
            outer = self._outers.get(number)
            if (
                self.hop_bytes
                and outer is not None
                and not outer.budget_bytes
                and carried >= 4 * self.hop_bytes + PASSED_BYTES
            ):
                self.hop_bytes = 0
                self._try_s = TRY_MIN_S
        idle = now - self._used_at > IDLE_S
        commands: list[Open | Retire] = []
        fresh = [number for number in usable if self._ends_at(number) - now > LEAD_S]
        if fresh or idle:
            over = [n for n in usable if n not in fresh or (not self.hop_bytes and self._bounded(n))]
            if len(over) < len(usable) or idle:
                commands += [Retire(number) for number in over]
        opening = sum(not outer.up for outer in self._outers.values())
        wanted = self._wanted(now, streams, idle) - len(fresh) - opening
        wanted = min(wanted, OUTERS_MAX - len(self._outers))
        if now >= self._retry_at:
            commands += [self._open(now) for _ in range(wanted)]
        return commands

    def wake_at(self, now: float) -> float:
        """When ``plan`` is wanted again if nothing happens."""
        return max(now + 0.05, self._retry_at if self._retry_at > now else now + 1.0)

    def up(self, number: int) -> None:
        """The outer is established and greeted."""
        outer = self._outers.get(number)
        if outer is not None:
            outer.up = True
        self._backoff_s = BACKOFF_MIN_S

    def failed(self, number: int, now: float) -> None:
        """It could not be opened."""
        self._outers.pop(number, None)
        self._retry_at = now + self._backoff_s * (0.5 + self._chance())
        self._backoff_s = min(BACKOFF_MAX_S, 2 * self._backoff_s)

    def over(self, number: int, now: float, least_bytes: int, most_bytes: int, ending: Ending) -> None:
        """It is over; it surely carried so much in a direction, and at most so much."""
        outer = self._outers.pop(number, None)
        if outer is None:
            return
        if ending is Ending.DONE:
            self._grow(outer)
            return
        self._well = 0
        self._cut_at = now
        if least_bytes > CURTAIN_MAX_BYTES or now - outer.begun_at >= CUT_YOUNG_S:
            self._cuts = 0
        elif most_bytes >= USED_BYTES:
            self._cuts += 1
        carried = most_bytes
        if ending is Ending.FROZEN:
            self.frozen_at_bytes = carried = least_bytes
        before, self._carried = self._carried, carried
        young = carried >= CURTAIN_MIN_BYTES and now - outer.begun_at < CURTAIN_YOUNG_S
        if self._cuts >= CUTS_MAX and not self.hop_bytes:
            self._bound(now, outer, HOP_BYTES)
        elif not young:
            self._carried = 0
        elif carried > CURTAIN_MAX_BYTES:
            # Who froze twice after as much will freeze again; cuts may have any reason.
            if ending is Ending.FROZEN and abs(carried - before) <= carried // 4:
                self._bound(now, outer, carried * 3 // 4)
        elif ending is Ending.FROZEN:
            self._bound(now, outer, min(HOP_BYTES, carried * 3 // 4))
        elif CURTAIN_MIN_BYTES <= before <= CURTAIN_MAX_BYTES:
            self._bound(now, outer, HOP_BYTES if not outer.budget_bytes else outer.budget_bytes * 3 // 4)

    def _grow(self, outer: _Outer) -> None:
        # The curtain also counts what no stream sees, and the more the more there is to acknowledge: the first that
        # froze may have carried far less than the next ones can.
        self._well += bool(outer.budget_bytes)
        if self._well >= WELL_MIN and self.hop_bytes:
            self._well = 0
            self.hop_bytes = max(self.hop_bytes, min(self._ceiling_bytes, self.hop_bytes * 5 // 4))

    def _bound(self, now: float, outer: _Outer, budget_bytes: int) -> None:
        if not self.hop_bytes:
            self.hop_bytes = max(HOP_MIN_BYTES, budget_bytes)
            self._try_at = now + self._try_s
        elif outer.budget_bytes:
            self.hop_bytes = self._ceiling_bytes = max(HOP_MIN_BYTES, min(self.hop_bytes, budget_bytes))
        else:
            self._try_s = min(TRY_MAX_S, 2 * self._try_s)
            self._try_at = now + self._try_s

    def _wanted(self, now: float, streams: int, idle: bool) -> int:
        if idle:
            return 0
        if self.hop_bytes:
            return OUTERS_MAX if streams else 1
        return 2 if now - self._cut_at < CUT_MEMORY_S else 1

    def _open(self, now: float) -> Open:
        number = self._next
        self._next += 1
        budget = self.hop_bytes
        if budget and now >= self._try_at and all(outer.budget_bytes for outer in self._outers.values()):
            self._try_at = now + self._try_s
            budget = 0
        life_s = LIFE_MIN_S + self._chance() * (LIFE_MAX_S - LIFE_MIN_S)
        self._outers[number] = _Outer(now, now + life_s, budget)
        return Open(number, budget)

    def _ends_at(self, number: int) -> float:
        outer = self._outers.get(number)
        return outer.ends_at if outer is not None else 0.0

    def _bounded(self, number: int) -> bool:
        outer = self._outers.get(number)
        return outer is not None and bool(outer.budget_bytes)
