"""Quotas: what is let go when room is short, and in which order.

What strangers brought lies in a pool of its own: it stands outside the sets that neighbours reconcile, and goes first.
Behind it, whose neighbour takes the most room loses first, so that a flood pays for itself; of one neighbour's entries
those of the lowest priority go first, then those with the weakest stamp, then the oldest. What people here and their
verified contacts wrote is spared while anything else is left. Who brought what is known in memory only: the store,
should it be taken, does not tell.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from outlast.kernel.entry import Header
from outlast.kernel.stamp import STAMP_MAX_BITS, strength

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POOL_PART: Final = 8
"""Strangers' entries may take one such part of the store's capacity together."""
SPACE_MAX_BYTES: Final = 256 << 20
"""What one channel or group may take."""
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
SLICE: Final = 500
"""Entries that go before it is asked again whose neighbour takes the most."""
_PAYERS_MAX: Final = 2**16 - 1


def rank_of(header: Header, pooled: bool) -> int:
    """How soon an entry goes, 0 to 1023, the highest first: of the pool, of low priority, with a weak stamp."""
    return POOLED * pooled | header.priority << 6 | STAMP_MAX_BITS - strength(header)


def excess(held_bytes: int, limit_bytes: int) -> int:
    """Bytes to let go of, 0 while the quota is kept."""
    return held_bytes - (limit_bytes - limit_bytes // SLACK) if held_bytes > limit_bytes else 0


def capacity(used_bytes: int, free_bytes: int) -> int:
    """Bytes that the entries may take on a disk with ``free_bytes`` left beside the ``used_bytes`` they take now."""
    return min(CAPACITY_MAX_BYTES, max(CAPACITY_MIN_BYTES, used_bytes + free_bytes - RESERVE_BYTES))


class Holdings(NamedTuple):
    """Columns of shape (n,): entries by their numbers in the store, their ranks and times in ms."""

    numbers: NDArray[np.int64]
    ranks: NDArray[np.int64]
    times_ms: NDArray[np.int64]


class Payers:
    """Which neighbour brought which entry, and how many bytes each, since the node was opened.

    Payer 0 stands for the people here and for all that came before. Takes 2 bytes for each number of the change log.
    """

    def __init__(self, after: int) -> None:
        """``after`` is the last number of the change log; entries up to it came before."""
        self._after = after
        self._of = array("H")
        self._numbers: dict[bytes, int] = {}
        self.held_bytes: dict[int, int] = {}
        """Bytes held of each payer but 0."""

    def charge(self, source: bytes | None, number: int, size_bytes: int) -> None:
        """An entry of ``size_bytes`` that ``source`` brought stands in the store under ``number``."""
        if source is None:
            return
        payer = self._numbers.setdefault(source, len(self._numbers) % _PAYERS_MAX + 1)
        self._of.extend([0] * (number - self._after - len(self._of)))
        self._of[number - self._after - 1] = payer
        self.held_bytes[payer] = self.held_bytes.get(payer, 0) + size_bytes

    def release(self, number: int, size_bytes: int) -> None:
        """An entry, or its payload, is gone from the store."""
        payer = self.of(number)
        if payer:
            self.held_bytes[payer] -= size_bytes

    def of(self, number: int) -> int:
        """The payer of an entry."""
        place = number - self._after - 1
        return self._of[place] if 0 <= place < len(self._of) else 0


def order(held: Holdings, payers: Payers, held_bytes: int, shares: int) -> Iterator[list[int]]:
    """Numbers of entries in the order in which they go, by slices of one payer; ask for the next when these are gone.

    ``held_bytes`` is what all of ``held`` take. What no payer is known of counts as ``shares`` equal shares: what came
    before this run came from many.
    """
    import numpy as np

    worst_first = held.numbers[np.lexsort((held.numbers, held.times_ms, -held.ranks))]
    of = np.fromiter((payers.of(int(number)) for number in worst_first), np.uint16, len(worst_first))
    queues = {int(payer): worst_first[of == payer] for payer in np.unique(of)}

    def fullness(payer: int) -> int:
        if payer:
            return payers.held_bytes[payer]
        return (held_bytes - sum(payers.held_bytes[one] for one in queues if one)) // shares

    while queues:
        payer = max(queues, key=fullness)
        slice_, queues[payer] = queues[payer][:SLICE], queues[payer][SLICE:]
        if not len(queues[payer]):
            del queues[payer]
        yield [int(number) for number in slice_]
