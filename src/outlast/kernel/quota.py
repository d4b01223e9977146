"""Quotas: what is let go when room is short, and in which order.

What strangers brought lies in a pool of its own: it stands outside the sets that neighbours reconcile, and goes first.
Behind it, whose neighbour takes the most room loses first, so that a flood pays for itself; of one neighbour's entries
those of the lowest priority go first, then those with the weakest stamp, then the oldest. What people here and their
verified contacts wrote is spared while anything else is left. Who brought what is known in memory only: the store,
should it be taken, does not tell.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from typing import Final, NamedTuple

from outlast.kernel.entry import Header
from outlast.kernel.parcel import PARCEL_SPACE
from outlast.kernel.stamp import STAMP_MAX_BITS, strength

POOL_PART: Final = 8
"""Strangers' entries may take one such part of the store's capacity together."""
SPACE_MAX_BYTES: Final = 256 << 20
"""What one channel or group may take."""
PARCELS_PART: Final = 4
"""The files that people send to each other may take one such part of the store's capacity together."""
CAPACITY_MAX_BYTES: Final = 32 << 30
"""What the store takes at most of any disk."""
CAPACITY_MIN_BYTES: Final = 512 << 20
"""What it holds however little is free: others may fill the disk, and that is no reason to let go of mail."""
RESERVE_BYTES: Final = 256 << 20
"""What it leaves free, so that neighbours can go on bringing; see also ``SPACE_LOW_BYTES`` of the node."""
POOLED: Final = 1 << 9
"""Ranks from here on are of the pool."""
SLACK: Final = 32
"""Room is made for the next 1/32 of a quota as well, so that it is not made anew for every entry."""
WEIGH_BYTES: Final = 4 << 20
"""So much comes in before the quotas are looked at again."""
WINDOW: Final = 2000
"""Of the entries of who takes the most room, the oldest so many are looked at, before it is asked again who does."""
EARLIER: Final = 0
"""The payer of what came before this run, and of what people here brought."""
PAYERS_MAX: Final = 2**16 - 1
"""So many neighbours have accounts of their own but the last one."""


def rank_of(header: Header, pooled: bool) -> int:
    """How soon an entry goes, 0 to 1023, the highest first: of the pool, of low priority, with a weak stamp."""
    return POOLED * pooled | header.priority << 6 | STAMP_MAX_BITS - strength(header)


def excess(held_bytes: int, limit_bytes: int) -> int:
    """Bytes to let go of, 0 while the quota is kept."""
    return held_bytes - (limit_bytes - limit_bytes // SLACK) if held_bytes > limit_bytes else 0


def capacity(used_bytes: int, free_bytes: int) -> int:
    """Bytes that the entries may take on a disk with ``free_bytes`` left beside the ``used_bytes`` they take now."""
    return min(CAPACITY_MAX_BYTES, max(CAPACITY_MIN_BYTES, used_bytes + free_bytes - RESERVE_BYTES))


def space_limit(space: bytes, capacity_bytes: int) -> int:
    """Bytes that a space other than mail may take in a store of this capacity."""
    return max(SPACE_MAX_BYTES, capacity_bytes // PARCELS_PART) if space == PARCEL_SPACE else SPACE_MAX_BYTES


class Holding(NamedTuple):
    """An entry that could be let go."""

    number: int  # in the store
    rank: int
    ts_ms: int


class Payers:
    """Which neighbour brought which entry, and how many bytes each, since the node was opened.

    Takes 2 bytes for each number of the change log, and about 100 for each payer. Those beyond ``PAYERS_MAX`` share
    one account: whoever comes with a key of its own for each letter pays for all that do.
    """

    def __init__(self, after: int) -> None:
        """``after`` is the last number of the change log; entries up to it came before."""
        self._after = after
        self._of = array("H")
        self._numbers: dict[bytes, int] = {}
        self.held_bytes: dict[int, int] = {}
        """Bytes held of each payer but EARLIER."""

    def charge(self, source: bytes | None, number: int, size_bytes: int) -> None:
        """An entry of ``size_bytes`` that ``source`` brought stands in the store under ``number``."""
        if source is None:
            return
        payer = self._numbers.get(source, min(len(self._numbers) + 1, PAYERS_MAX))
        if payer < PAYERS_MAX:
            self._numbers[source] = payer
        self._of.extend([0] * (number - self._after - len(self._of)))
        self._of[number - self._after - 1] = payer
        self.held_bytes[payer] = self.held_bytes.get(payer, 0) + size_bytes

    def release(self, number: int, size_bytes: int, *, whole: bool) -> None:
        """So many bytes of an entry are gone from the store, or the ``whole`` entry is."""
        place = number - self._after - 1
        if not 0 <= place < len(self._of) or not (payer := self._of[place]):
            return
        self.held_bytes[payer] = max(0, self.held_bytes[payer] - size_bytes)
        if whole:
            self._of[place] = 0

    def fullest(self, used_bytes: int, shares: int, without: Container[int]) -> int | None:
        """Who takes most of ``used_bytes`` and is not in ``without``; None when all are.

        What came before this run came from many: it counts as ``shares`` equal shares.
        """
        earlier = max(0, used_bytes - sum(self.held_bytes.values())) // shares
        fullness = {EARLIER: earlier, **self.held_bytes}
        left = (payer for payer in fullness if payer not in without)
        return max(left, key=lambda payer: (fullness[payer], payer), default=None)

    def numbers(self, payer: int, after: int, limit: int) -> list[int]:
        """Numbers above ``after`` of entries that a payer brought, the oldest first."""
        import numpy as np

        start = max(0, after - self._after)
        places = np.flatnonzero(np.frombuffer(self._of, np.uint16)[start:] == payer)[:limit]
        return [int(place) + start + self._after + 1 for place in places]

    def is_earlier(self, number: int) -> bool:
        """Whether nobody is known to have brought this entry."""
        place = number - self._after - 1
        return not 0 <= place < len(self._of) or self._of[place] == EARLIER


def worst_first(holdings: Sequence[Holding]) -> list[int]:
    """The numbers of entries in the order in which they go: the highest rank first, of one rank the oldest."""
    return [one.number for one in sorted(holdings, key=lambda one: (-one.rank, one.ts_ms, one.number))]
