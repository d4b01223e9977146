"""Forwarding: what is offered to which neighbour, in which order, within what budget.

Alarms go before letters and letters before files; within one class what is one's own goes first,
then contacts', then followed channels', then strangers'; within one tier the newest. Each paired
neighbour may deliver an equal share of a day's bytes, and all unpaired ones together one more, so
that strangers, however many, cost as much as one friend.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from outlast.kernel.entry import Entry
from outlast.kernel.space import space_of


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


def tier_of(entry: Entry, own: Container[bytes], contacts: Container[bytes]) -> Tier:
    """The tier of an entry that no stranger brought, by the devices of one's own people and of verified contacts.

    An envelope's author is a key used once: mail counts as followed.
    """
    author = entry.header.author
    return Tier.OWN if author in own else Tier.CONTACT if author in contacts else Tier.FOLLOWED


def rank(entry: Entry, tier: Tier = Tier.FOLLOWED) -> Rank:
    """The place of an entry among all that wait for one neighbour; the lowest goes first."""
    return entry.header.priority, tier, -entry.header.ts_ms, entry.id


def offered(offers: Iterable[Offer], peer: bytes, spaces: Container[bytes], floor_day: int) -> list[Offer]:
    """What of ``offers`` a neighbour is told: of its spaces, alive there, and not its own news."""
    return [
        offer
        for offer in offers
        if offer.source != peer
        and space_of(offer.entry) in spaces
        and not 0 < offer.entry.header.expires_day < floor_day
    ]


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
