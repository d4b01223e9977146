"""Receiving: what comes from the peer of one session, within its credit, and what is still to be asked of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

from outlast.kernel.entry import INLINE_MAX_BYTES, Entry, travel_size, unpack_all
from outlast.kernel.sending import LIVE_MAX, take
from outlast.kernel.space import space_of
from outlast.kernel.steps import Fate, Ingest, Limits, WeighOffer
from outlast.kernel.wire import (
    ENTRIES_MAX_BYTES,
    POOL_OFFERS_MAX,
    WANT_IDS_MAX,
    Credit,
    IdList,
    Kept,
    Piece,
    SyncError,
    Taken,
    Type,
    encode,
)

PAYLOADS_ASKED_MAX: Final = 64
PAYLOADS_NEEDED_MAX: Final = 16_384
"""Payloads that wait to be asked for; those beyond are found missing by the next session."""
TOLD_MAX: Final = 262_144
"""Ids that one pass over a bucket may turn up before it is begun anew with what has arrived."""


class Receiving:
    """What comes from the peer: within its credit, what is still to be asked, what is owed."""

    def __init__(self, spaces: Collection[bytes], limits: Limits) -> None:
        self._spaces = spaces
        self.grant = min(limits.credit_bytes, limits.intake_bytes)
        """The first credit, in bytes."""
        self._credit = self.grant
        self._budget = limits.intake_bytes - self.grant
        self._threshold = limits.credit_bytes // 4
        self._returned = 0
        self._open: deque[tuple[int, int]] = deque()  # entries and message bytes of each Ingest
        self._decided = 0
        self._needed: deque[bytes] = deque()
        self._asked: set[bytes] = set()
        self._payloads: dict[bytes, Entry] = {}
        self._payloads_asked: dict[bytes, Entry] = {}
        self._assembly = bytearray()
        self._assembled: bytes | None = None  # the id of the payload in the making
        self._assembly_cost = 0
        self._news: set[bytes] | None = set()  # None: nothing will be found needed any more
        self._partial: set[bytes] = set()  # acknowledged as not whole
        self._weighing = False
        self._offers = 0
        self._taken: set[bytes] = set()  # of strangers, in this session; one of them may come twice

    @property
    def budget(self) -> int:
        """Bytes of the peer's share that are promised to nobody yet."""
        return self._budget

    def spend(self, size_bytes: int) -> None:
        """Take what is asked for in chunks from the peer's share; a negative number gives back what did not come."""
        self._budget -= size_bytes

    def whole(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of the ids that the peer was told are not whole here."""
        found = [one for one in ids if one in self._partial]
        self._partial.difference_update(found)
        return found

    @property
    def backlog(self) -> int:
        """Number of ids that wait to be asked for."""
        return len(self._needed)

    @property
    def exhausted(self) -> bool:
        """Whether the peer's share is used up: what is asked for may not come today."""
        return not self._budget and self._credit < ENTRIES_MAX_BYTES

    @property
    def awaits(self) -> bool:
        """Whether the peer owes entries or payloads."""
        return bool(self._asked or self._payloads_asked) and not self.exhausted

    @property
    def busy(self) -> bool:
        """Whether this side still has to make durable what came."""
        return bool(self._open)

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is here and durable."""
        return not (self._open or self._needed or self._asked or self._payloads or self._payloads_asked)

    def forget_news(self) -> None:
        """Reconciliation is over: nothing will be found needed any more."""
        self._news = None

    def need(self, ids: Iterable[bytes]) -> None:
        """What reconciliation found this side to lack."""
        self._needed.extend(one for one in ids if one not in (self._news or ()))

    def offered(self, ids: Sequence[bytes]) -> WeighOffer:
        """What the peer has from strangers."""
        self._offers += len(ids)
        if self._weighing or self._offers > POOL_OFFERS_MAX:
            raise SyncError("it offers more than one can weigh")
        self._weighing = True
        return WeighOffer(ids)

    def weighed(self, ids: Sequence[bytes]) -> bytes:
        """The TAKE for those that are wanted."""
        self._weighing = False
        self._asked.update(ids)
        self._taken.update(ids)
        return encode(Type.TAKE, Taken(list(ids)))

    def need_payloads(self, entries: Iterable[Entry]) -> None:
        """Headers whose payload is wanted."""
        for entry in entries:
            if (
                len(self._payloads) < PAYLOADS_NEEDED_MAX
                and entry.id not in self._payloads_asked
                and space_of(entry) in self._spaces
            ):
                self._payloads[entry.id] = entry

    def requests(self) -> Iterator[bytes]:
        """The WANT and WANT_PAYLOAD that are due."""
        while self._needed and len(self._asked) <= WANT_IDS_MAX:
            ids = take(self._needed, WANT_IDS_MAX)
            self._asked.update(ids)
            yield encode(Type.WANT, IdList(ids))
        if self._payloads and len(self._payloads_asked) <= PAYLOADS_ASKED_MAX // 2:
            ids = list(islice(self._payloads, PAYLOADS_ASKED_MAX // 2))
            self._payloads_asked.update((one, self._payloads.pop(one)) for one in ids)
            yield encode(Type.WANT_PAYLOAD, IdList(ids))

    def entries(self, message: bytes) -> Ingest:
        """Take an ENTRIES message."""
        if len(message) > ENTRIES_MAX_BYTES:
            raise SyncError("a message of entries is too long")
        self._pay(len(message))
        entries = list(unpack_all(message[1:]))
        for entry in entries:
            if space_of(entry) not in self._spaces:
                raise SyncError("it sends entries of a space that was not agreed on")
            if entry.payload is not None and len(entry.payload) > INLINE_MAX_BYTES:
                raise SyncError("it sends a payload that was not asked for")
            self._asked.discard(entry.id)
            if entry.payload is not None:
                self._payloads.pop(entry.id, None)
                self._payloads_asked.pop(entry.id, None)
            if self._news is not None and len(self._news) < TOLD_MAX:
                self._news.add(entry.id)
        if not entries:
            raise SyncError("it sends messages that hold nothing")
        return self._ingest(entries, len(message))

    def piece(self, message: bytes, piece: Piece) -> Ingest | None:
        """Take a PAYLOAD message; the entry is whole with its last piece."""
        self._pay(len(message))
        entry = self._payloads_asked.get(piece.id)
        if entry is None or self._assembled not in (None, piece.id):
            raise SyncError("it sends a payload that was not asked for")
        size = travel_size(entry.header.payload_size)
        if piece.offset != len(self._assembly) or piece.offset + len(piece.data) > size:
            raise SyncError("it sends pieces that do not fit together")
        self._assembled = piece.id
        self._assembly += piece.data
        self._assembly_cost += len(message)
        if len(self._assembly) < size:
            return None
        payload, cost = bytes(self._assembly), self._assembly_cost
        if sha256(payload).digest() != entry.header.payload_hash:
            raise SyncError("it sends a payload that does not match its hash")
        self._assembly, self._assembled, self._assembly_cost = bytearray(), None, 0
        del self._payloads_asked[piece.id]
        return self._ingest([Entry(entry.header, entry.header_bytes, entry.signature, entry.id, payload)], cost)

    def lacked(self, ids: Iterable[bytes]) -> None:
        """The peer does not have what was asked for."""
        for one in ids:
            self._asked.discard(one)
            self._taken.discard(one)
            if one != self._assembled:
                self._payloads_asked.pop(one, None)

    def ingested(self, ingest: Sequence[Entry], fates: Sequence[Fate]) -> Iterator[bytes]:
        """Acknowledge what became of an Ingest, and pay back its credit."""
        count, cost = self._open.popleft()
        if count != len(fates):
            raise ValueError(f"{count} entries were to be ingested, not {len(fates)}")
        first = self._decided
        self._decided += count
        found: dict[Fate, list[int]] = {fate: [] for fate in Fate}
        for index, (entry, fate) in enumerate(zip(ingest, fates, strict=True), first):
            found[fate].append(index)
            if fate is Fate.WANTS_PAYLOAD and entry.payload is None:
                self.need_payloads((entry,))
            if fate is Fate.WANTS_CONTENT and len(self._partial) < LIVE_MAX:
                self._partial.add(entry.id)
        partial = sorted(found[Fate.WANTS_PAYLOAD] + found[Fate.WANTS_CONTENT])
        yield encode(Type.KEPT, Kept(self._decided, found[Fate.REFUSED], partial))
        self._returned += cost
        if self._returned >= self._threshold and self._budget:
            grant = min(self._returned, self._budget)
            self._budget -= grant
            self._credit += grant
            self._returned = 0
            yield encode(Type.CREDIT, Credit(grant))

    def _ingest(self, entries: Sequence[Entry], cost_bytes: int) -> Ingest:
        self._open.append((len(entries), cost_bytes))
        return Ingest(entries, frozenset(entry.id for entry in entries if entry.id in self._taken))

    def _pay(self, size_bytes: int) -> None:
        self._credit -= size_bytes
        if self._credit < 0:
            raise SyncError("it sends more than it was allowed to")
