"""Sending: what goes to the peer of one session, in which order, and within its credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import islice
from typing import Final, TypeVar

from outlast.kernel.entry import INLINE_MAX_BYTES, Entry, pack, pack_header
from outlast.kernel.forward import Offer, Rank, rank
from outlast.kernel.setrec import SetView
from outlast.kernel.space import space_of
from outlast.kernel.steps import CREDIT_BYTES, Limits, LoadEntries
from outlast.kernel.wire import (
    CREDIT_CAP,
    ENTRIES_MAX_BYTES,
    PIECE_MAX_BYTES,
    POOL_OFFERS_MAX,
    WANT_IDS_MAX,
    IdList,
    Kept,
    Piece,
    SyncError,
    Type,
    encode,
)

WINDOW_BYTES: Final = CREDIT_BYTES
"""What may be on the way and not acknowledged, however much credit the peer gives."""
WANTED_MAX: Final = 4096
"""Ids that a peer may have asked for and not been sent."""
LACKED_MAX: Final = 65_536
"""Ids that a peer may ask for in vain."""
LIVE_MAX: Final = 4096
"""News held in memory for a slow link; what exceeds it is loaded from the store again."""
_LOAD_IDS: Final = 128
_LOAD_PAYLOADS: Final = 8
_READY_BYTES: Final = 2 * ENTRIES_MAX_BYTES
_T = TypeVar("_T")


class Sending:
    """What goes to the peer: in which order, and within its credit."""

    def __init__(self, spaces: Collection[bytes], credit: int, limits: Limits) -> None:
        self._credit = credit
        self._left = limits.output_bytes
        self._step = limits.step_bytes
        self._spaces = spaces
        self._live: list[tuple[Rank, int, Entry]] = []
        self._pushed = 0  # tells two offers of one entry apart
        self._wanted: deque[bytes] = deque()
        self._offered: deque[bytes] = deque()
        self._pulled: deque[tuple[bytes, SetView, int]] = deque()  # END message, view, next rank
        self._payloads: deque[bytes] = deque()
        self._loading: tuple[Type, Sequence[bytes]] | None = None
        self._ready: deque[tuple[bytes | None, bytes]] = deque()  # id and packed; None: a message
        self._ready_bytes = 0
        self._pieces: deque[tuple[bytes, bytes]] = deque()  # id, payload
        self._offset = 0
        self._flying: deque[tuple[bytes, int]] = deque()  # id, and bytes that its KEPT frees
        self._window = WINDOW_BYTES
        self._turn = self._turn_left = limits.turn_bytes
        self._partly_sent = 0  # bytes of the payload in the making
        self._kept = 0
        self._lacked = 0
        self._partial: set[bytes] = set()  # not whole at the peer when it acknowledged them
        self._pool: deque[tuple[bytes, int]] = deque(maxlen=LIVE_MAX)  # id and bytes, newest first
        self._pool_left = limits.pool_bytes
        self._offers_left = POOL_OFFERS_MAX
        self._choice: dict[bytes, int] = {}  # what was offered last and is not answered yet

    @property
    def backlog(self) -> int:
        """Number of ids that wait to be loaded because the peer lacks them."""
        return len(self._offered)

    @property
    def unacknowledged(self) -> list[bytes]:
        """The ids that were sent and of which the peer has not said that they are whole there, or refused."""
        return [*(one for one, _ in self._flying), *self._partial]

    @property
    def awaits(self) -> bool:
        """Whether the peer owes a KEPT or a TAKE."""
        return bool(self._flying or self._choice)

    @property
    def idle(self) -> bool:
        """Whether all that was to be sent is sent and acknowledged."""
        return not (
            self._live
            or self._wanted
            or self._offered
            or self._pulled
            or self._payloads
            or self._loading
            or self._ready
            or self._pieces
            or self._flying
        )

    @property
    def has_more(self) -> bool:
        """Whether something waits for the next turn alone."""
        return self._turn_left <= 0 and bool(self._live or self._ready or self._pieces) and self._room > 0

    def begin_turn(self) -> None:
        """The link can take more."""
        self._turn_left = self._turn

    def push(self, offers: Iterable[Offer]) -> None:
        """News; an alarm overtakes all that waits."""
        for offer in offers:
            if len(self._live) < LIVE_MAX:
                self._pushed += 1
                heappush(self._live, (rank(offer.entry, offer.tier), self._pushed, as_news(offer.entry)))
            else:
                self._offered.append(offer.entry.id)

    def pool(self, items: Iterable[tuple[bytes, int]]) -> None:
        """What strangers brought, as (id, bytes), oldest first."""
        self._pool.extendleft(items)

    @property
    def pool_settled(self) -> bool:
        """Whether all that strangers brought was offered, as far as it may be, and what was chosen has landed."""
        return self.idle and not self._choice and not self._may_offer

    def next_offer(self) -> bytes | None:
        """The OFFER that is due: one at a time, and within what the peer may still take."""
        while self._may_offer and not self._choice:
            left = self._pool_left
            for one, size in take(self._pool, min(WANT_IDS_MAX, self._offers_left)):
                if size <= left:
                    left -= size
                    self._choice[one] = size
            if self._choice:
                self._offers_left -= len(self._choice)
                return encode(Type.OFFER, IdList(list(self._choice)))
        return None

    def taken(self, ids: Sequence[bytes]) -> None:
        """What the peer chose of the last OFFER."""
        if not self._choice or not self._choice.keys() >= set(ids) or len(set(ids)) < len(ids):
            raise SyncError("it takes what it was not offered")
        self._pool_left -= sum(self._choice[one] for one in ids)
        self._choice = {}
        self.want(Type.WANT, ids)

    def offer(self, ids: Iterable[bytes]) -> None:
        """What reconciliation found the peer to lack."""
        self._offered.extend(ids)

    def pull(self, end: bytes, view: SetView) -> None:
        """A whole bucket, and the message that closes it."""
        self._pulled.append((end, view, 0))

    def want(self, kind: Type, ids: Sequence[bytes]) -> None:
        """What the peer asks for."""
        queue = self._payloads if kind is Type.WANT_PAYLOAD else self._wanted
        if len(queue) + len(ids) > WANTED_MAX:
            raise SyncError("it asks for more at once than it can take")
        queue.extend(ids)

    def loaded(self, entries: Iterable[Entry]) -> bytes | None:
        """What was asked of the store; returns a LACK for what the peer wants in vain."""
        if self._loading is None:
            return None
        purpose, ids = self._loading
        self._loading = None
        missing = dict.fromkeys(ids)
        for entry in sorted(entries, key=rank):
            if space_of(entry) not in self._spaces:
                continue
            payload = entry.payload
            if purpose is not Type.WANT_PAYLOAD or (payload is not None and len(payload) <= INLINE_MAX_BYTES):
                self._make_ready(entry)
            elif payload is not None:
                self._pieces.append((entry.id, payload))
            else:
                continue
            missing.pop(entry.id, None)
        if not missing or purpose is Type.ENTRIES:
            return None
        self._lacked += len(missing)
        if self._lacked > LACKED_MAX:
            raise SyncError("it asks for what is not here, again and again")
        return encode(Type.LACK, IdList(list(missing)))

    def next_load(self) -> LoadEntries | None:
        """What is to be loaded now, if anything."""
        if self._loading is not None or self._ready_bytes >= _READY_BYTES:
            return None
        if self._wanted:
            return self._load(Type.WANT, take(self._wanted, _LOAD_IDS))
        if self._offered:
            return self._load(Type.ENTRIES, take(self._offered, _LOAD_IDS))
        while self._pulled:
            end, view, at = self._pulled.popleft()
            if at >= len(view):
                self._ready.append((None, end))
                continue
            upper = min(at + _LOAD_IDS, len(view))
            self._pulled.appendleft((end, view, upper))
            packed = view.ids(at, upper)
            return self._load(Type.ENTRIES, [packed[i : i + 32] for i in range(0, len(packed), 32)])
        if self._payloads and not self._pieces:
            return self._load(Type.WANT_PAYLOAD, take(self._payloads, _LOAD_PAYLOADS))
        return None

    def messages(self) -> Iterator[bytes]:
        """All that the credit allows to send now: entries first, then pieces of payloads."""
        batch, ids = bytearray((Type.ENTRIES,)), list[bytes]()
        blocked = False
        while (item := self._first()) is not None:
            if self._turn_left <= 0 and not ids:
                return
            entry_id, data = item
            fits = len(batch) + len(data) <= (self._step if ids else ENTRIES_MAX_BYTES)
            if entry_id is not None and fits and len(batch) + len(data) <= self._room:
                batch += data
                ids.append(entry_id)
                self._drop_first(data)
                continue
            if ids:
                yield self._sent(bytes(batch), ids)
                batch, ids = bytearray((Type.ENTRIES,)), []
            elif entry_id is None:
                self._drop_first(data)
                yield data
            else:
                blocked = True
                break
        if ids:
            yield self._sent(bytes(batch), ids)
        while self._pieces and not blocked and self._turn_left > 0:
            entry_id, payload = self._pieces[0]
            end = self._offset + min(PIECE_MAX_BYTES, self._step)
            message = encode(Type.PAYLOAD, Piece(entry_id, self._offset, payload[self._offset : end]))
            if len(message) > self._room:
                break
            self._offset = end
            if end >= len(payload):
                self._offset = 0
                self._pieces.popleft()
                yield self._sent(message, [entry_id])
            else:
                yield self._sent(message, [])

    def grant(self, size_bytes: int) -> None:
        """More credit."""
        self._credit = min(self._credit + size_bytes, CREDIT_CAP)

    def kept(self, kept: Kept) -> list[bytes]:
        """The ids that the peer now holds whole, of those it acknowledges."""
        first, count = self._kept, kept.count - self._kept
        if not 0 < count <= len(self._flying):
            raise SyncError("it acknowledges what it was not sent")
        without = {*kept.refused, *kept.partial}
        if len(without) != len(kept.refused) + len(kept.partial) or any(
            not first <= index < kept.count for index in without
        ):
            raise SyncError("it acknowledges what it was not sent")
        self._kept = kept.count
        landed = take(self._flying, count)
        self._window += sum(size for _, size in landed)
        partial = {landed[index - first][0] for index in kept.partial}
        whole = [one for index, (one, _) in enumerate(landed, first) if index not in without]
        self._partial.difference_update(whole)
        self._partial.update(islice(partial, max(0, LIVE_MAX - len(self._partial))))
        return whole

    def whole(self, ids: Iterable[bytes]) -> list[bytes]:
        """Those of the ids that this side sent, and that the peer did not hold whole so far."""
        found = [one for one in ids if one in self._partial]
        self._partial.difference_update(found)
        return found

    @property
    def room_bulk(self) -> int:
        """Bytes of chunks that may be sent now: they were asked for, and need no credit."""
        return self._left

    def bulk_sent(self, size_bytes: int) -> None:
        """A piece of a chunk went out."""
        self._left -= size_bytes

    @property
    def _may_offer(self) -> bool:
        return bool(self._pool) and self._pool_left > 0 and self._offers_left > 0

    @property
    def _room(self) -> int:
        """Bytes that may be sent now."""
        return min(self._credit, self._left, self._window)

    def _load(self, purpose: Type, ids: Sequence[bytes]) -> LoadEntries:
        self._loading = purpose, ids
        return LoadEntries(ids)

    def _make_ready(self, entry: Entry) -> None:
        data = _inline(entry)
        self._ready.append((entry.id, data))
        self._ready_bytes += len(data)

    def _first(self) -> tuple[bytes | None, bytes] | None:
        if self._live:
            entry = self._live[0][2]
            return entry.id, _inline(entry)
        return self._ready[0] if self._ready else None

    def _drop_first(self, data: bytes) -> None:
        if self._live:
            heappop(self._live)
        elif self._ready.popleft()[0] is not None:
            self._ready_bytes -= len(data)

    def _sent(self, message: bytes, ids: list[bytes]) -> bytes:
        size = len(message)
        self._turn_left -= size
        self._credit -= size
        self._left -= size
        self._window -= size
        if ids:
            self._flying.extend((one, 0) for one in ids[:-1])
            self._flying.append((ids[-1], size + self._partly_sent))
            self._partly_sent = 0
        else:
            self._partly_sent += size
        return message


def as_news(entry: Entry) -> Entry:
    """An entry as it waits to be pushed: without a payload that is asked for apart, which would fill the memory."""
    if entry.payload is None or len(entry.payload) <= INLINE_MAX_BYTES:
        return entry
    return Entry(entry.header, entry.header_bytes, entry.signature, entry.id, None)


def _inline(entry: Entry) -> bytes:
    """An entry as it travels in ENTRIES: payloads above 1 KiB are asked for apart."""
    payload = entry.payload
    return pack(entry) if payload is None or len(payload) <= INLINE_MAX_BYTES else pack_header(entry)


def take(queue: deque[_T], count: int) -> list[_T]:
    """The first ``count`` of a queue, or all there are, taken out of it."""
    return [queue.popleft() for _ in range(min(count, len(queue)))]
