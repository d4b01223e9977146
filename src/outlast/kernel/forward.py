"""Forwarding: what is offered to which neighbour, in which order, within what budget.

Alarms go before letters and letters before files; within one class what is one's own goes first,
then contacts', then followed channels', then strangers'; within one tier the newest. Each paired
neighbour may deliver an equal share of a day's bytes, and all unpaired ones together one more, so
that strangers, however many, cost as much as one friend.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from enum import IntEnum
from itertools import accumulate
from typing import Final, NamedTuple

from outlast.kernel.entry import Entry
from outlast.kernel.space import space_of

SLOW_BITS_PER_S: Final = 64_000
"""A link that carries less is slow."""
SLOW_PRIORITY_MAX: Final = 1
"""Over a slow or a metered link go alarms, keys, letters and their receipts, and nothing else."""
METERED_DAY_BYTES: Final = 8 * 1024 * 1024
ALL_PRIORITIES: Final = 7

_DAY_S: Final = 86_400
_TURN_S: Final = 20
_TURN_MIN_BYTES: Final = 4096
_TURN_MAX_BYTES: Final = 1024 * 1024
_STEP_MIN_BYTES: Final = 2048
_STEP_MAX_BYTES: Final = 60_000
_STALL_MS: Final = 120_000


class Tier(IntEnum):
    """How near an entry is to the people of this node; low numbers are kept and sent first."""

    OWN = 0
    CONTACT = 1
    FOLLOWED = 2
    STRANGER = 3


class Offer(NamedTuple):
    """An entry that became whole here: admitted with its payload, or completed by it."""

    entry: Entry
    tier: Tier = Tier.FOLLOWED
    source: bytes | None = None  # the neighbour that brought it, None when made here


Rank = tuple[int, int, int, bytes]
"""Sorts what goes out: priority, tier, newest first, and the id so that ranks are never equal."""


class Carriage(NamedTuple):
    """What a session may make a link carry."""

    priority_max: int
    """Entries of greater numbers are neither compared nor offered."""
    step_bytes: int
    """Largest message that could wait: an alarm has to wait until it is through."""
    turn_bytes: int
    """What may be on the way and not acknowledged, each way."""
    day_bytes: int | None
    """What may be sent in a day; None: no bound but the link's own."""
    stall_ms: int
    """How long the other side may owe an answer."""


def carriage(bits_per_s: int, *, half_duplex: bool = False, metered: bool = False) -> Carriage:
    """What goes over a link that carries so many bits a second (from 1), and may cost somebody money.

    A slow link carries half of a day: the other half is for what comes back. Where one end sends at a time, both share
    what it carries.
    """
    if half_duplex:
        bits_per_s //= 2
    bytes_per_s = max(1, bits_per_s // 8)
    slow = bits_per_s < SLOW_BITS_PER_S
    day_bytes = bytes_per_s * _DAY_S // 2 if slow else None
    if metered:
        day_bytes = min(day_bytes or METERED_DAY_BYTES, METERED_DAY_BYTES)
    turn = min(max(bytes_per_s * _TURN_S, _TURN_MIN_BYTES), _TURN_MAX_BYTES)
    return Carriage(
        priority_max=SLOW_PRIORITY_MAX if slow or metered else ALL_PRIORITIES,
        step_bytes=min(max(turn // 4, _STEP_MIN_BYTES), _STEP_MAX_BYTES),
        turn_bytes=turn,
        day_bytes=day_bytes,
        # Both sides' turns, and as much again for what repeats itself on the way.
        stall_ms=_STALL_MS + 4 * turn * 1000 // bytes_per_s if slow else _STALL_MS,
    )


def tier_of(entry: Entry, own: Container[bytes], contacts: Container[bytes]) -> Tier:
    """The tier of an entry that no stranger brought, by the devices of one's own people and of verified contacts.

    An envelope's author is a key used once: mail counts as followed.
    """
    author = entry.header.author
    return Tier.OWN if author in own else Tier.CONTACT if author in contacts else Tier.FOLLOWED


def rank(entry: Entry, tier: Tier = Tier.FOLLOWED) -> Rank:
    """The place of an entry among all that wait for one neighbour; the lowest goes first."""
    return entry.header.priority, tier, -entry.header.ts_ms, entry.id


class Choice:
    """The best of what waits, as much as there is room for; what is left out begins where the room ends.

    It holds little more than that in memory, however much waits.
    """

    def __init__(self, room_bytes: int) -> None:
        """Nothing waits yet."""
        self._room_bytes = room_bytes
        self._best: list[tuple[Rank, int]] = []
        self._size_bytes = 0
        self._end: Rank | None = None  # the best that there was no room for
        self.left_out = 0
        """How many there is no room for, once ``ids`` was asked."""

    def add(self, rank: Rank, size_bytes: int) -> None:
        """Something waits that takes so much room."""
        if self._end is not None and rank > self._end:
            self.left_out += 1
            return
        self._best.append((rank, size_bytes))
        self._size_bytes += size_bytes
        if self._size_bytes > 2 * self._room_bytes:
            self._cut()

    def ids(self) -> set[bytes]:
        """What there is room for."""
        self._cut()
        return {rank[-1] for rank, _ in self._best}

    def _cut(self) -> None:
        self._best.sort()
        ends = list(accumulate(size for _, size in self._best))
        fits = bisect_right(ends, self._room_bytes)
        if fits < len(ends):
            self._end = self._best[fits][0]
        self.left_out += len(ends) - fits
        self._size_bytes = ends[fits - 1] if fits else 0
        del self._best[fits:]


def offered(
    offers: Iterable[Offer],
    peer: bytes,
    spaces: Container[bytes],
    floor_day: int,
    priority_max: int = ALL_PRIORITIES,
) -> list[Offer]:
    """What of ``offers`` a neighbour is told: of its spaces, alive there, for this link, and not its own news."""
    return [
        offer
        for offer in offers
        if offer.source != peer
        and offer.entry.header.priority <= priority_max
        and space_of(offer.entry) in spaces
        and not 0 < offer.entry.header.expires_day < floor_day
    ]


def in_turn(sources: Sequence[bytes | None]) -> list[int]:
    """The order in which what waits at the door goes in, given whose each one is: the places in ``sources``.

    What is made or brought here (None) goes first, then one of each neighbour by turns: who brings much makes those
    who bring little wait for one of its own, and no more.
    """
    turns: Counter[bytes] = Counter()
    keys = []
    for place, source in enumerate(sources):
        if source is not None:
            turns[source] += 1
        keys.append((0 if source is None else turns[source], place))
    return [place for _, place in sorted(keys)]


def share_left(neighbour: bytes, paired: Collection[bytes], spent: Mapping[bytes, int], day_bytes: int) -> int:
    """Bytes that ``neighbour`` may still deliver today out of ``day_bytes`` for all neighbours.

    ``spent`` maps neighbours, paired or not, to the bytes they delivered today.
    """
    share = day_bytes // (len(paired) + 1)
    if neighbour in paired:
        used = spent.get(neighbour, 0)
    else:
        used = sum(count for name, count in spent.items() if name not in paired)
    return max(0, share - used)
