"""Eviction: keeps the store within its quotas, in the order that ``quota`` says, and never at the cost of one's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence
from functools import partial
from typing import Literal

from outlast.kernel.entry import Entry
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.metrics import Metrics
from outlast.kernel.quota import EARLIER, POOL_PART, WINDOW, Holding, Payers, excess, space_limit, worst_first
from outlast.kernel.space import NO_SPACE
from outlast.kernel.store import Store

Spares = Callable[[Sequence[Entry]], set[bytes]]


class Eviction:
    """Makes room in one store, on the writer's thread. It remembers in memory who brought what."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        """For a store that was just opened."""
        self._store = store
        self._metrics = metrics
        self.payers = Payers(store.cursor())
        self._stuck: dict[bytes | str, int] = {}
        """By quota: the bytes above it that may not go."""

    def make_room(
        self,
        capacity_bytes: int,
        neighbours: int,
        own: Collection[bytes],
        letters: Callable[[], Container[bytes]],
        contacts: Container[bytes],
    ) -> int:
        """Let go of what exceeds the quotas; returns the bytes freed.

        ``own`` are the devices of people here, and ``letters`` tells the ids of their mail on its way and of parcels
        for them: that stays whatever happens. ``contacts`` are the devices of verified contacts, whose entries go last.
        ``neighbours`` is how many were added.
        """
        store = self._store

        def all_but_own(entries: Sequence[Entry]) -> set[bytes]:
            return {
                one.id
                for one in entries
                if one.header.author in own or one.header.space == NO_SPACE or one.id in letters()
            }

        def strangers_and_followed(entries: Sequence[Entry]) -> set[bytes]:
            return all_but_own(entries) | {one.id for one in entries if one.header.author in contacts}

        turns = (strangers_and_followed, all_but_own)
        freed = self._keep_within(capacity_bytes // POOL_PART, store.pool_usage().bytes, 1, turns, "pool")
        for space in store.spaces():
            if space != MAIL_SPACE:
                limit_bytes = space_limit(space, capacity_bytes)
                freed += self._keep_within(limit_bytes, store.used_bytes(own, space), neighbours + 1, turns, space)
        return freed + self._keep_within(capacity_bytes, store.used_bytes(own), neighbours + 1, turns, "all")

    def _keep_within(
        self,
        limit_bytes: int,
        used_bytes: int,
        shares: int,
        turns: Sequence[Spares],
        scope: bytes | Literal["pool", "all"],
    ) -> int:
        # Where nothing more may go it is not looked for again until there is something new.
        over = excess(used_bytes - self._stuck.get(scope, 0), limit_bytes)
        if not over:
            return 0
        freed = 0
        for spares in turns:
            for pooled in (True,) if scope == "pool" else (True, False):
                if over := excess(used_bytes - freed, limit_bytes):
                    space = scope if isinstance(scope, bytes) else None
                    freed += self._shrink(over, used_bytes - freed, shares, spares, pooled=pooled, space=space)
        self._stuck[scope] = max(0, used_bytes - freed - limit_bytes)
        return freed

    def _shrink(
        self, over: int, held_bytes: int, shares: int, spares: Spares, *, pooled: bool, space: bytes | None = None
    ) -> int:
        """Free ``over`` bytes if that much may go: payloads first, then whole entries; returns the bytes freed."""
        freed = 0
        for large, act in ((True, self._store.drop_payloads), (False, self._store.let_go)):
            seen: dict[int, int] = {}  # by payer: up to which number its entries were looked at
            through: set[int] = set()
            while freed < over and (payer := self.payers.fullest(held_bytes - freed, shares, through)) is not None:
                window, seen[payer] = self._window(payer, seen.get(payer, 0), pooled, space, large)
                if not window:
                    through.add(payer)
                    continue
                gone = act(worst_first(window), spares, over - freed)
                for number, size in gone.items():
                    self.payers.release(number, size, whole=not large)
                freed += sum(gone.values())
                if large:
                    self._metrics.payloads_dropped += len(gone)
                else:
                    self._metrics.evicted += len(gone)
        return freed

    def _window(
        self, payer: int, after: int, pooled: bool, space: bytes | None, large: bool
    ) -> tuple[list[Holding], int]:
        """What of a payer's entries could be let go of next, and up to which number they were looked at."""
        find = partial(self._store.holdings, pooled=pooled, space=space, large=large)
        while True:
            if payer == EARLIER:
                found = find(after=after, limit=WINDOW)
                numbers = [one.number for one in found]
                found = [one for one in found if self.payers.is_earlier(one.number)]
            else:
                numbers = self.payers.numbers(payer, after, WINDOW)
                found = find(among=numbers)
            if found or not numbers:
                return found, numbers[-1] if numbers else after
            after = numbers[-1]
