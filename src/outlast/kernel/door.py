"""The door: the one way into a node's store, for entries made here and entries from outside alike.

What arrives waits in one queue; neighbours take turns. A batch is examined and verified by ``admit``, appended, charged
to who brought it and folded into the rooms' views in one transaction; then news goes to the sessions, and room is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, assert_never

from outlast.errors import LockedError, OutlastError, StorageError, UsageError
from outlast.kernel import endings, forward, mail, quota
from outlast.kernel.admit import (
    UNLIMITED,
    AdmissionState,
    Admitted,
    Held,
    Known,
    Refused,
    Signed,
    Verdict,
    admit,
    examine,
)
from outlast.kernel.chunks import is_chunked
from outlast.kernel.entry import INLINE_MAX_BYTES, Entry, EntryError, pack, unpack
from outlast.kernel.eviction import Eviction
from outlast.kernel.identity import verify
from outlast.kernel.parcel import PARCEL_SPACE
from outlast.kernel.room import Change, Event
from outlast.kernel.space import space_of
from outlast.kernel.store import REFUSED_MAX, Incoming, Store

if TYPE_CHECKING:
    from outlast.kernel.node import Node

BATCH_MAX: Final = 2000
"""Entries that pass the door in one transaction."""
DAY_SHARE_BYTES: Final = 1 << 30
"""What all neighbours together may bring in a day, beside the content that people here asked for."""
SPENT_STEP_BYTES: Final = 16 << 20
"""What neighbours bring is written down in such steps: who opens the store does not see who brought a few letters."""
STRANGERS: Final = bytes(32)
"""Stands for all neighbours that were not added."""
SPACE_LOW_BYTES: Final = 64 << 20
"""With less free disk nothing is taken of neighbours, and with twice as much nothing of strangers."""
HEARD_MAX_BYTES: Final = 4 << 20
"""Payloads that people's inboxes take from here; of larger batches they read from the store, a part at a time."""
VERIFY_SPLIT: Final = 64
"""Batches from this size on are verified on two threads."""


class _Standing(NamedTuple):
    """Whose entries are near: devices of the people here, of their verified contacts, and of channels' founders."""

    own: frozenset[bytes]
    contacts: frozenset[bytes]
    owners: frozenset[bytes]
    closed: frozenset[bytes]
    """Spaces that only members bring anything of."""
    paired: frozenset[bytes]
    """Transport keys of the neighbours that were added."""


@dataclass(slots=True)
class _Arrival:
    """Entries waiting at the door, and who waits for their verdicts."""

    batch: Sequence[bytes | Entry]
    source: bytes | None
    offered: Container[bytes]
    own: bool
    done: asyncio.Future[list[Verdict]]


class Door:
    """What one node lets in. Its methods run on the event loop; what writes is handed to the writer's thread."""

    def __init__(self, node: Node) -> None:
        """Shut until ``open``."""
        self._node = node
        self._arrivals: list[_Arrival] = []
        self._arrived = asyncio.Event()
        self._refused: set[bytes] = set()
        self._spent: dict[bytes, int] = {}
        self._spent_day = 0
        self._eviction: Eviction
        self._unweighed_bytes = 0
        self._owners: dict[bytes, bytes] = {}
        self._verifiers = ThreadPoolExecutor(1, "outlast-verify")

    def open(self, store: Store) -> None:
        """Let in what comes from now on, into this store."""
        self._refused = {bytes(row[0]) for row in store.query("SELECT digest FROM refused")}
        self._eviction = Eviction(store, self._node.metrics)

    def close(self) -> None:
        """Nothing comes in any more."""
        self._verifiers.shutdown()

    def waiting(self) -> int:
        """How many entries wait."""
        return sum(len(arrival.batch) for arrival in self._arrivals)

    async def ingest(
        self, batch: Sequence[bytes | Entry], source: bytes | None, offered: Container[bytes]
    ) -> list[Verdict]:
        """See ``Node.ingest``."""
        return await self._enter(batch, source, offered, own=False)

    async def admit_own(self, entries: Sequence[Entry]) -> None:
        """Let entries of this node's people in by the same door; raises StorageError when the disk refuses.

        What the door turns away now (its time is over, its channel was left meanwhile) it would turn away always.
        """
        await self._enter(entries, None, (), own=True)

    def check_own(self, entries: Sequence[Entry]) -> None:
        """Raise UsageError when the door would turn away one of these, before anybody is promised anything."""
        spaces, closed = frozenset(self._node.open_store.spaces()), self._node.open_store.closed()
        for entry in entries:
            verdict = examine(
                entry,
                AdmissionState(kinds=self._node.kinds, spaces=spaces, closed=closed, pruned_day=self._node.pruned_day),
            )
            if isinstance(verdict, Refused | Held):
                raise UsageError("this cannot be kept: %(line)s", line=verdict.rule.line)

    async def _enter(
        self, batch: Sequence[bytes | Entry], source: bytes | None, offered: Container[bytes], *, own: bool
    ) -> list[Verdict]:
        if not batch:
            return []
        self._node.open_store  # noqa: B018  locked nodes say so at once
        verdicts: list[Verdict] = []
        for start in range(0, len(batch), BATCH_MAX):
            arrival = _Arrival(batch[start : start + BATCH_MAX], source, offered, own, self._node.loop.create_future())
            self._arrivals.append(arrival)
            self._arrived.set()
            verdicts += await arrival.done
        return verdicts

    async def run(self) -> None:
        """Let in what waits, batch by batch, until this is cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._arrivals:
                taken: list[_Arrival] = []
                size = 0
                waiting = [self._arrivals[place] for place in forward.in_turn([one.source for one in self._arrivals])]
                while waiting and size < BATCH_MAX:
                    taken.append(waiting.pop(0))
                    size += len(taken[-1].batch)
                self._arrivals = waiting
                try:
                    results = await self._admit(taken)
                except Exception as error:
                    for arrival in taken:
                        if not arrival.done.done():
                            arrival.done.set_exception(error)
                    if not isinstance(error, OutlastError):
                        raise
                    continue
                except asyncio.CancelledError:
                    self._turn_away(taken)
                    raise
                for arrival, verdicts in zip(taken, results, strict=True):
                    if not arrival.done.done():
                        arrival.done.set_result(verdicts)

    def turn_away(self) -> None:
        """The node is locked: who waits is told so."""
        self._turn_away(self._arrivals)

    def _turn_away(self, arrivals: list[_Arrival]) -> None:
        for arrival in arrivals:
            if not arrival.done.done():
                arrival.done.set_exception(LockedError("the node was locked meanwhile: unlock it and try again"))
        arrivals.clear()

    async def _admit(self, arrivals: Sequence[_Arrival]) -> list[list[Verdict]]:
        store = self._node.open_store
        states: list[tuple[list[bytes | Entry], AdmissionState]] = []
        spaces, closed = frozenset(store.spaces()), store.closed()
        standing = self._standing(spaces, closed)
        for arrival in arrivals:
            states.append(
                (
                    [_unpacked(data) for data in arrival.batch],
                    AdmissionState(
                        kinds=self._node.kinds,
                        spaces=spaces,
                        closed=closed,
                        pruned_day=self._node.pruned_day,
                        refused=self._refused,
                        share_left=UNLIMITED if arrival.source is None else self.share_left(arrival.source),
                    ),
                )
            )

        def act() -> tuple[list[list[Verdict]], set[bytes], Counter[bytes], list[Change]]:
            # One transaction for all of it: entries, what was refused or spent, and the rooms' views.
            done = store.together(lambda: self._admit_on_writer(store, arrivals, states, standing))
            if self._unweighed_bytes >= quota.WEIGH_BYTES:
                with contextlib.suppress(StorageError):  # what came is durable; room is made with the next batch
                    self._make_room(store, standing)
                    self._unweighed_bytes = 0
            return done

        results, promoted, spent, changes = await self._node.write(act)
        for payer, size in spent.items():
            self._spent[payer] = self._spent.get(payer, 0) + size
        for verdicts in results:
            self._node.metrics.admitted += sum(isinstance(verdict, Admitted) for verdict in verdicts)
            self._node.metrics.refused.update(str(verdict.rule) for verdict in verdicts if isinstance(verdict, Refused))
        if sum(len(change.entry.payload or b"") for change in changes) <= HEARD_MAX_BYTES:
            for person in self._node.people.values():
                person.inbox.hear(changes)
        self._node.log_grew()
        if not self._node.neighbours.hears:
            return results
        late = [v.entry.id for verdicts in results for v in verdicts if isinstance(v, Admitted) and v.completes]
        pooled = store.pooled(late) if late else set()
        offers = [
            forward.Offer(
                verdict.entry,
                forward.Tier.STRANGER if verdict.entry.id in pooled else self._tier(verdict.entry, arrival, standing),
                arrival.source,
            )
            for arrival, verdicts in zip(arrivals, results, strict=True)
            for verdict in verdicts
            # A header is no news yet: who asked for its payload now would be told that it is not here.
            if (isinstance(verdict, Admitted) and verdict.entry.payload is not None)
            or (isinstance(verdict, Known) and verdict.entry.id in promoted)
        ]
        if offers:
            self._node.neighbours.offer(offers)
            if any(is_chunked(offer.entry.header) for offer in offers):
                self._node.neighbours.more_wanted()
        return results

    def _standing(self, spaces: Iterable[bytes], closed: Iterable[bytes]) -> _Standing:
        """Whose entries are near, as it is now."""
        store = self._node.open_store
        return _Standing(
            self._node.devices(),
            frozenset(device for person in self._node.people.values() for device in person.verified_devices()),
            frozenset(author for space in spaces if (author := self._owner(space)) is not None),
            frozenset(closed),
            frozenset(peer.node for peer in store.peers()),
        )

    def _owner(self, space: bytes) -> bytes | None:
        """The device that founded a space, None while its genesis is not here."""
        if space not in self._owners and (genesis := self._node.open_store.get(space)) is not None:
            self._owners[space] = genesis.header.author
        return self._owners.get(space)

    def _tier(self, entry: Entry, arrival: _Arrival, standing: _Standing) -> forward.Tier:
        """How near an entry is; what a stranger brought, or offered to who brought it, is a stranger's."""
        if arrival.own:
            return forward.Tier.OWN
        tier = forward.tier_of(entry, standing.own, standing.contacts)
        by_stranger = arrival.source is not None and arrival.source not in standing.paired
        if tier is forward.Tier.FOLLOWED and (by_stranger or entry.id in arrival.offered):
            near = entry.header.author in standing.owners or space_of(entry) in standing.closed
            return tier if near else forward.Tier.STRANGER
        return tier

    def capacity(self, store: Store) -> int:
        """Bytes that entries, and contents that may go, may take."""
        return quota.capacity(store.used_bytes(self._node.devices()), self._node.space_left())

    def _make_room(self, store: Store, standing: _Standing) -> None:
        """Keep the store within its quotas, on the writer's thread."""
        letters = cache(self._node.spared)
        if self._eviction.make_room(
            self.capacity(store), len(standing.paired), standing.own, letters, standing.contacts
        ):
            for name in self._node.rooms:
                while store.fold(name):
                    pass
            while store.free_chunks():
                pass

    def _admit_on_writer(
        self,
        store: Store,
        arrivals: Sequence[_Arrival],
        states: Sequence[tuple[list[bytes | Entry], AdmissionState]],
        standing: _Standing,
    ) -> tuple[list[list[Verdict]], set[bytes], Counter[bytes], list[Change]]:
        """The verdicts, which of those known left the pool, what each neighbour spent, and what changed."""
        results: list[list[Verdict]] = []
        incoming: list[Incoming] = []
        sources: dict[bytes, bytes] = {}
        known: list[bytes] = []
        declined: list[Entry] = []
        spent: Counter[bytes] = Counter()
        day = self._node.today()
        held: set[bytes] = set()
        for arrival, (batch, state) in zip(arrivals, states, strict=True):
            entries = [one for one in batch if isinstance(one, Entry)]
            state.known = store.held(one.id for one in entries)
            large = [one.id for one in entries if one.header.payload_size > INLINE_MAX_BYTES and one.id in state.known]
            state.incomplete = store.incomplete(large) if large else frozenset()
            held |= state.known
            verdicts = admit(batch, state, self._verify_many)
            results.append(verdicts)
            is_paired = arrival.source is None or arrival.source in standing.paired
            may_be_pooled = not is_paired or arrival.own or bool(arrival.offered)
            size = 0
            for data, verdict in zip(batch, verdicts, strict=True):
                if not isinstance(verdict, Known):
                    size += _size(data)  # what is refused has cost as much
                if isinstance(verdict, Admitted):  # most are, and a match takes its time
                    entry = verdict.entry
                    pooled = may_be_pooled and self._is_pooled(store, entry, arrival, standing)
                    incoming.append(Incoming(entry, pooled))
                    if arrival.source is not None:
                        sources.setdefault(entry.id, arrival.source)
                    continue
                match verdict:
                    case Known(entry):
                        if is_paired and entry.id not in arrival.offered:
                            known.append(entry.id)
                    case Held(entry, rule):
                        store.hold(pack(entry), rule, space_of(entry))
                    case Refused(rule, digest, turned_away):
                        if rule.lasting and self._remembers(digest):
                            store.remember_refused(digest, day + mail.MAIL_LIFE_DAYS)
                        if rule.by_id and is_paired and turned_away is not None:
                            declined.append(turned_away)
                    case _:
                        assert_never(verdict)
            self._unweighed_bytes += size
            if arrival.source is not None and size:
                spent[arrival.source if is_paired else STRANGERS] += size
        for payer, size in spent.items():
            before = self._spent.get(payer, 0)
            steps = (before + size) // SPENT_STEP_BYTES - before // SPENT_STEP_BYTES
            if steps:
                store.spend(payer, day, steps * SPENT_STEP_BYTES)
        if declined:
            store.decline(declined)
        promoted = store.promote(known) if known else set()
        changes: list[Change] = []
        if incoming:
            changes = store.append(incoming, held)
            for change in changes if sources else ():
                source = sources.get(change.entry.id)
                if change.event is Event.ADMITTED and source is not None:
                    self._eviction.payers.charge(source, change.cursor, _size(change.entry))
            endings.carry_out(store, changes)
            for name in self._node.rooms:
                while store.fold(name, fresh=changes):
                    pass
        return results, promoted, spent, changes

    def _is_pooled(self, store: Store, entry: Entry, arrival: _Arrival, standing: _Standing) -> bool:
        """Whether an entry looks in the store as if a stranger had brought it."""
        if arrival.own and entry.header.space in (mail.MAIL_SPACE, PARCEL_SPACE):
            # Written here or brought by whomever: in the store all mail looks alike, and all parcels do.
            return store.looks_pooled(entry.header.space, random.randint(1, self._node.cursor + 1))
        return self._tier(entry, arrival, standing) is forward.Tier.STRANGER

    def _remembers(self, digest: bytes) -> bool:
        """Take note of what was refused, within bounds; whether it was new."""
        if digest in self._refused or len(self._refused) >= REFUSED_MAX:
            return False
        self._refused.add(digest)
        return True

    def _verify_many(self, signed: list[Signed]) -> list[bool]:
        if len(signed) < VERIFY_SPLIT:
            return [verify(*one) for one in signed]
        half = len(signed) // 2
        second = self._verifiers.submit(lambda: [verify(*one) for one in signed[half:]])
        return [verify(*one) for one in signed[:half]] + second.result()

    def share_left(self, neighbour: bytes) -> int:
        """Bytes that a neighbour may still bring today."""
        day = self._node.today()
        if self._spent_day != day:
            rows = self._node.open_store.query("SELECT neighbour, bytes FROM spent WHERE day = ?", (day,))
            self._spent, self._spent_day = {bytes(name): size for name, size in rows}, day
        paired = [peer.node for peer in self._node.open_store.peers()]
        # What is left of the disk is for what people here write; strangers are the first to be turned away.
        if self._node.space_left() < (SPACE_LOW_BYTES if neighbour in paired else 2 * SPACE_LOW_BYTES):
            return 0
        return forward.share_left(neighbour, paired, self._spent, DAY_SHARE_BYTES)

    async def charge(self, store: Store, source: bytes, size: int) -> None:
        """Count what a neighbour brought outside of the door against its share of the day."""
        day = self._node.today()
        payer = source if source in {peer.node for peer in store.peers()} else STRANGERS
        before = self._spent.get(payer, 0)
        self._spent[payer] = before + size
        if steps := (before + size) // SPENT_STEP_BYTES - before // SPENT_STEP_BYTES:
            await self._node.write(lambda: store.spend(payer, day, steps * SPENT_STEP_BYTES))


def _size(data: bytes | Entry) -> int:
    """Bytes of a packed entry."""
    return len(data) if isinstance(data, bytes) else 66 + len(data.header_bytes) + len(data.payload or b"")


def _unpacked(data: bytes | Entry) -> bytes | Entry:
    if isinstance(data, Entry):
        return data
    try:
        entry, end = unpack(data)
    except EntryError:
        return data
    return entry if end == len(data) else data
