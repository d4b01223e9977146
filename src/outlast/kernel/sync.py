"""One session with one neighbour, as a machine: ``Session.step(event)`` returns commands.

    both           HELLO      what each speaks, its date, the spaces both can name, first credit
    both           SUMMARY    how many entries lie in each common bucket (space, expires_day)
    initiator <->  RECON      negentropy on buckets both have; the initiator learns what differs
    either         PULL, END  the whole of a bucket that one side has nothing of
    either         WANT, WANT_PAYLOAD, LACK
    either         ENTRIES, PAYLOAD, KEPT, CREDIT
    either         WANT_CHUNKS, CHUNK, HOLDS, WHOLE
    both           DONE       all that the start of the session asked for is durable
    both           CONFIRM, URGENT  that both hold the same alarms and keys, by a digest that only this session has
    either         OFFER, TAKE  what strangers brought, newest first, for the other side to choose from
    either         BYE

After DONE the session stays open and what is new is pushed as it comes. The wire is
docs/spec/sync.md.

The machine touches nothing: the shell carries out the commands (load from the store, append to it,
write to the link) and brings what came of them as events, in any order but the one it got several
``Ingest`` in. Bytes from outside raise nothing: who breaks a rule is cut off.

What a hostile peer can cost. It can send no more than it was granted (1 MiB at a time, each byte
paid back only when what it carried is durable or refused, and never more than the day's share), no
ids but those asked of it, one unfinished payload at a time, and rounds of reconciliation in number
bounded by the sizes of both sets. Chunks of large content (``chunks``) come only when they were asked
for, at most 4 MiB that are not durable. It can make this side hold 4 snapshots of its own buckets,
4,096 ids it asked for, 1.5 MiB that wait for its credit and 4 chunks that wait for the link.

Chunks go last: this side hands the link one piece at a time, by ``SendBulk``, and the next one when
the link has taken it. So a text waits behind one piece at most.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from hashlib import sha256
from heapq import heappop, heappush
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, TypeVar, assert_never

import msgspec
from msgspec import Meta

from outlast.errors import ProtocolError
from outlast.kernel.chunks import (
    ASKED_MAX,
    PIECE_MAX_BYTES,
    PLACES_MAX,
    Chunk,
    Downloads,
    Fetching,
    Holds,
    Loaded,
    Serving,
    Wanted,
    to_bytes,
)
from outlast.kernel.entry import (
    CHUNK_BYTES,
    INLINE_MAX_BYTES,
    Entry,
    pack,
    pack_header,
    travel_size,
    unpack_all,
)
from outlast.kernel.forward import ALL_PRIORITIES, Carriage, Offer, Rank, Tier, offered, rank
from outlast.kernel.setrec import FRAME_LIMIT_MIN_BYTES, SEED_BYTES, Initiator, Responder, SetView
from outlast.kernel.space import space_of

VERSIONS: Final = (1,)
"""Session versions spoken here, rising."""
ENTRIES_MAX_BYTES: Final = 60_000
"""Largest ENTRIES message: one Noise frame."""
CREDIT_BYTES: Final = 1024 * 1024
"""What a peer may send before anything of it must be durable here."""
WINDOW_BYTES: Final = CREDIT_BYTES
"""What may be on the way and not acknowledged, however much credit the peer gives."""
RECON_MAX_BYTES: Final = 256 * 1024
"""Largest negentropy message inside a RECON."""
RECON_OPEN_MAX: Final = 4
"""Buckets under reconciliation at a time."""
SPACES_MAX: Final = 4096
BUCKETS_MAX: Final = 32_768
WANT_IDS_MAX: Final = 1000
"""Ids in one WANT; twice as many may be unanswered."""
WANTED_MAX: Final = 4096
"""Ids that a peer may have asked for and not been sent."""
LACKED_MAX: Final = 65_536
"""Ids that a peer may ask for in vain."""
PAYLOADS_ASKED_MAX: Final = 64
PAYLOADS_NEEDED_MAX: Final = 16_384
"""Payloads that wait to be asked for; those beyond are found missing by the next session."""
TOLD_MAX: Final = 262_144
"""Ids that one pass over a bucket may turn up before it is begun anew with what has arrived."""
LIVE_MAX: Final = 4096
"""News held in memory for a slow link; what exceeds it is loaded from the store again."""
POOL_BYTES: Final = 16 * 1024 * 1024
"""Of what strangers brought, how much a peer may take in one session."""
URGENT_MAX: Final = 65_536
"""Ids of alarms and keys that a peer may list in one session."""
POOL_OFFERS_MAX: Final = 16_384
"""Ids that a peer may offer so in one session."""
STALL_MS: Final = 120_000
"""A peer that owes an answer and sends none for so long is cut off."""

_MESSAGE_MAX: Final = 1024 * 1024
_LOAD_IDS: Final = 128
_LOAD_PAYLOADS: Final = 8
_READY_BYTES: Final = 2 * ENTRIES_MAX_BYTES
_SPACES_STEP: Final = 8
_ROUNDS_MIN: Final = 64
_MAC_BYTES: Final = 16
_CREDIT_CAP: Final = 2**40


class Reason(IntEnum):
    """Why a session ends; the numbers travel in BYE."""

    FINISHED = 0
    NO_COMMON_VERSION = 1
    BROKE_RULES = 2
    STALLED = 3


class Fate(IntEnum):
    """What became of an entry that the peer sent."""

    KEPT = 0
    """It is durable here, or was before, with its payload."""
    WANTS_PAYLOAD = 1
    """Its header is durable here; its payload is wanted and not at hand."""
    REFUSED = 2
    """It is not kept."""
    WANTS_CONTENT = 3
    """Its header and its manifest are durable here, and not all of its chunks."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of this side that is not empty."""

    space: bytes
    day: int
    count: int


# Events


@dataclass(frozen=True, slots=True)
class Started:
    """The link is up."""


@dataclass(frozen=True, slots=True)
class MessageArrived:
    """The peer sent one whole message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BucketsLoaded:
    """Answers LoadBuckets: the buckets that are not empty, and headers whose payload is wanted."""

    buckets: Sequence[Bucket]
    missing: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class BucketLoaded:
    """Answers LoadBucket.

    A store that declined or evicted entries may leave their ids in the view: they are then never
    asked for again, and never sent.
    """

    space: bytes
    day: int
    view: SetView


@dataclass(frozen=True, slots=True)
class EntriesLoaded:
    """Answers LoadEntries, in any order; what is no longer held is left out."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Ingested:
    """Answers the oldest open Ingest, when all that it keeps is durable: one fate for each."""

    fates: Sequence[Fate]


@dataclass(frozen=True, slots=True)
class LocalAppended:
    """Entries became whole here, from wherever; they are durable."""

    offers: Sequence[Offer]


@dataclass(frozen=True, slots=True)
class UrgentLoaded:
    """Answers LoadUrgent: by space the ids of what has priority 0; spaces that have none may be left out."""

    ids: Mapping[bytes, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class PoolLoaded:
    """What strangers brought here, as (id, bytes), newest first; comes once, after InStep, and not to strangers."""

    items: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class OfferWeighed:
    """Answers WeighOffer: those of the ids that are wanted."""

    ids: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class TakenByLink:
    """The link took all that was to be sent; comes when ``Session.has_more`` says that there is more."""


@dataclass(frozen=True, slots=True)
class BulkSent:
    """Answers SendBulk: the link has taken it, and nothing waits to be written."""


@dataclass(frozen=True, slots=True)
class WantedLoaded:
    """Answers LoadWanted; None: there is nothing to fetch."""

    wanted: Wanted | None


@dataclass(frozen=True, slots=True)
class ChunksLoaded:
    """Answers LoadChunks; ``holdings`` has the places of what is here of each content that lacks a chunk."""

    chunks: Sequence[Loaded]
    holdings: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class ChunksIngested:
    """The oldest ``count`` chunks of IngestChunk commands are durable."""

    count: int


@dataclass(frozen=True, slots=True)
class ContentGrew:
    """Content is here that was not, from wherever it came."""

    holdings: Mapping[bytes, int]
    """The places of what is here of contents that grew."""
    whole: Collection[bytes]
    """Those of them that are whole."""


@dataclass(frozen=True, slots=True)
class MoreWanted:
    """There may be more content to fetch, or some that was asked of another neighbour is free again."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; any clock that does not run backwards, about once in 10 s."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """This side wants to end the session."""


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The link is gone."""


Event = (
    Started
    | MessageArrived
    | BucketsLoaded
    | BucketLoaded
    | EntriesLoaded
    | Ingested
    | LocalAppended
    | UrgentLoaded
    | PoolLoaded
    | OfferWeighed
    | TakenByLink
    | BulkSent
    | WantedLoaded
    | ChunksLoaded
    | ChunksIngested
    | ContentGrew
    | MoreWanted
    | Tick
    | Stopping
    | LinkClosed
)


# Commands


@dataclass(frozen=True, slots=True)
class Send:
    """Write this message to the link, after those before it; at most 1 MiB."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendBulk:
    """Write this message to the link like any other; answered by BulkSent when all that was written is out."""

    data: bytes


@dataclass(frozen=True, slots=True)
class LoadBuckets:
    """Count what is held of these spaces: buckets of ``floor_day`` and later, and of day 0.

    Only entries up to ``priority_max`` count, here and in LoadBucket.
    """

    spaces: frozenset[bytes]
    floor_day: int
    priority_max: int = ALL_PRIORITIES


@dataclass(frozen=True, slots=True)
class LoadBucket:
    """Take a snapshot of one bucket."""

    space: bytes
    day: int
    priority_max: int = ALL_PRIORITIES


@dataclass(frozen=True, slots=True)
class LoadEntries:
    """Load these entries, with their payloads where they are at hand."""

    ids: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Ingest:
    """Send these entries of the peer through the one door and make what is admitted durable."""

    entries: Sequence[Entry]
    offered: frozenset[bytes] = frozenset()
    """Ids of those that the peer has from strangers."""


@dataclass(frozen=True, slots=True)
class LoadUrgent:
    """Find what has priority 0 in these buckets: (space, day)."""

    buckets: frozenset[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class WeighOffer:
    """The peer offers what strangers brought it: which of it is neither held nor declined here?"""

    ids: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class LoadWanted:
    """Look for content of these spaces that is wanted and not whole, but none of those passed over."""

    spaces: frozenset[bytes]
    passed: Collection[bytes]


@dataclass(frozen=True, slots=True)
class LoadChunks:
    """Load chunks, by entry and place."""

    places: Sequence[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class IngestChunk:
    """Make this chunk durable; it is what its manifest names."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Copied:
    """The peer has these entries durably and whole."""

    ids: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class InStep:
    """Both sides have all that the other one offered at the start; comes once."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the link; the session ended well."""

    reason: str


@dataclass(frozen=True, slots=True)
class CutOff:
    """Close the link at once; the peer lies, stalls or floods."""

    reason: str


Command = (
    Send
    | SendBulk
    | LoadBuckets
    | LoadBucket
    | LoadEntries
    | LoadUrgent
    | LoadWanted
    | LoadChunks
    | Ingest
    | IngestChunk
    | WeighOffer
    | Copied
    | InStep
    | Close
    | CutOff
)


# Messages: a type byte, then a msgpack array (ENTRIES: packed entries, back to back)


class Type(IntEnum):
    """The first byte of a message."""

    HELLO = 1
    SUMMARY = 2
    RECON = 3
    PULL = 4
    END = 5
    WANT = 6
    LACK = 7
    ENTRIES = 8
    WANT_PAYLOAD = 9
    PAYLOAD = 10
    KEPT = 11
    CREDIT = 12
    DONE = 13
    BYE = 14
    WANT_CHUNKS = 15
    CHUNK = 16
    HOLDS = 17
    WHOLE = 18
    OFFER = 19
    TAKE = 20
    CONFIRM = 21
    URGENT = 22


_Id = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Ids = Annotated[list[_Id], Meta(min_length=1, max_length=WANT_IDS_MAX)]
_Day = Annotated[int, Meta(ge=0, lt=2**31)]
_Ref = Annotated[int, Meta(ge=0, lt=SPACES_MAX)]
_Bytes = Annotated[int, Meta(ge=0, le=_CREDIT_CAP)]
_Place = Annotated[int, Meta(ge=0, lt=PLACES_MAX)]
_Index = Annotated[int, Meta(ge=0, lt=2**62)]


class _Message(msgspec.Struct, array_like=True, frozen=True):
    """What follows the type byte; elements that a later version adds are ignored."""


class _Hello(_Message, frozen=True):
    versions: Annotated[list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=16)]
    today: _Day
    spaces: Annotated[
        list[Annotated[bytes, Meta(min_length=_MAC_BYTES, max_length=_MAC_BYTES)]],
        Meta(max_length=SPACES_MAX + _SPACES_STEP),
    ]
    credit: _Bytes
    priority_max: Annotated[int, Meta(ge=0, le=ALL_PRIORITIES)] = ALL_PRIORITIES


class _Summary(_Message, frozen=True):
    buckets: Annotated[list[tuple[_Ref, _Day, Annotated[int, Meta(gt=0, lt=2**31)]]], Meta(max_length=BUCKETS_MAX)]


class _Recon(_Message, frozen=True):
    ref: _Ref
    day: _Day
    message: Annotated[bytes, Meta(max_length=RECON_MAX_BYTES)]  # empty: finished with the bucket


class _BucketName(_Message, frozen=True):
    ref: _Ref
    day: _Day


class _IdList(_Message, frozen=True):
    ids: _Ids


class _Taken(_Message, frozen=True):
    ids: Annotated[list[_Id], Meta(max_length=WANT_IDS_MAX)]


class _Confirm(_Message, frozen=True):
    digests: Annotated[
        list[tuple[_Ref, Annotated[bytes, Meta(min_length=_MAC_BYTES, max_length=_MAC_BYTES)]]],
        Meta(max_length=SPACES_MAX),
    ]


class _Urgent(_Message, frozen=True):
    ref: _Ref
    ids: _Ids


class _Piece(_Message, frozen=True):
    id: _Id
    offset: Annotated[int, Meta(ge=0, lt=2**17)]
    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE_MAX_BYTES)]


class _Kept(_Message, frozen=True):
    count: _Index
    refused: list[_Index]
    partial: list[_Index]


class _Credit(_Message, frozen=True):
    size_bytes: Annotated[int, Meta(gt=0, le=_CREDIT_CAP)]


class _Done(_Message, frozen=True):
    pass


class _Bye(_Message, frozen=True):
    reason: Annotated[int, Meta(ge=0, le=255)]


class _WantChunks(_Message, frozen=True):
    id: _Id
    places: Annotated[list[_Place], Meta(min_length=1, max_length=ASKED_MAX)]


class _ChunkPiece(_Message, frozen=True):
    id: _Id
    place: _Place
    offset: Annotated[int, Meta(ge=0, lt=CHUNK_BYTES)]
    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE_MAX_BYTES)]


class _Holds(_Message, frozen=True):
    id: _Id
    lacked: Annotated[list[_Place], Meta(max_length=ASKED_MAX)]
    held: Annotated[bytes, Meta(max_length=PLACES_MAX // 8)]  # bit p % 8 of byte p // 8: place p


_BODIES: Final[dict[Type, type[_Message]]] = {
    Type.HELLO: _Hello,
    Type.SUMMARY: _Summary,
    Type.RECON: _Recon,
    Type.PULL: _BucketName,
    Type.END: _BucketName,
    Type.WANT: _IdList,
    Type.LACK: _IdList,
    Type.WANT_PAYLOAD: _IdList,
    Type.PAYLOAD: _Piece,
    Type.KEPT: _Kept,
    Type.CREDIT: _Credit,
    Type.DONE: _Done,
    Type.BYE: _Bye,
    Type.WANT_CHUNKS: _WantChunks,
    Type.CHUNK: _ChunkPiece,
    Type.HOLDS: _Holds,
    Type.WHOLE: _IdList,
    Type.OFFER: _IdList,
    Type.TAKE: _Taken,
    Type.CONFIRM: _Confirm,
    Type.URGENT: _Urgent,
}
_decoders: Final = {kind: msgspec.msgpack.Decoder(body) for kind, body in _BODIES.items()}
_encoder: Final = msgspec.msgpack.Encoder()
_NO_PROGRESS: Final = frozenset((Type.CREDIT, Type.HOLDS, Type.WHOLE))
"""Messages that settle nothing of what a peer owes: it could send them for ever."""
_Key = tuple[bytes, int]  # a bucket: space, day
_T = TypeVar("_T")


class SyncError(ProtocolError):
    """The peer broke a rule of the session."""


def _encode(kind: Type, body: _Message) -> bytes:
    return bytes((kind,)) + _encoder.encode(body)


def space_mac(key: bytes, *, initiator: bool, space: bytes, access: bytes = b"") -> bytes:
    """How a side names a space in its HELLO: 16 bytes that only who knows the space can tell.

    A closed space is named by its access key (32 B) too, which only members know. The role is in it, so that nobody can
    pass off what it was sent as its own.
    """
    role = b"i" if initiator else b"r"
    return hmac.digest(key, b"outlast/space/1" + role + space + access, "sha256")[:_MAC_BYTES]


def urgent_digest(key: bytes, space: bytes, ids: Iterable[bytes]) -> bytes:
    """16 bytes over the ids (32 B each) of what has priority 0 in a space, which mean nothing outside this session.

    Who made entries before the session began could not aim at it, as one can at the sums of reconciliation.
    """
    return hmac.digest(key, b"outlast/urgent/1" + space + b"".join(sorted(ids)), "sha256")[:_MAC_BYTES]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may take; tests and slow links narrow it."""

    intake_bytes: int = 2**62
    """Left of the peer's daily share: what it may send."""
    output_bytes: int = 2**62
    """What may be sent to it."""
    credit_bytes: int = CREDIT_BYTES
    pool_bytes: int = POOL_BYTES
    turn_bytes: int = 2**62
    """What one step sends of entries and payloads; more at the next TakenByLink, behind what is more urgent by then."""
    step_bytes: int = ENTRIES_MAX_BYTES
    """Largest message of entries, pieces or reconciliation that this side makes, where one entry is no longer."""
    priority_max: int = ALL_PRIORITIES
    """Entries of greater numbers are neither compared nor offered."""
    stall_ms: int = STALL_MS

    def over(self, carriage: Carriage) -> Limits:
        """These limits over a link that carries no more than this."""
        return replace(
            self,
            turn_bytes=min(self.turn_bytes, carriage.turn_bytes),
            step_bytes=min(self.step_bytes, carriage.step_bytes),
            priority_max=min(self.priority_max, carriage.priority_max),
            stall_ms=max(self.stall_ms, carriage.stall_ms),
        )


class _Outbox:
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
        return self.idle and not self._choice and not (self._pool and self._pool_left > 0)

    def next_offer(self) -> bytes | None:
        """The OFFER that is due: one at a time, and within what the peer may still take."""
        while self._pool and not self._choice and self._pool_left > 0:
            left = self._pool_left
            for one, size in _take(self._pool, WANT_IDS_MAX):
                if size <= left:
                    left -= size
                    self._choice[one] = size
            if self._choice:
                return _encode(Type.OFFER, _IdList(list(self._choice)))
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
        return _encode(Type.LACK, _IdList(list(missing)))

    def next_load(self) -> LoadEntries | None:
        """What is to be loaded now, if anything."""
        if self._loading is not None or self._ready_bytes >= _READY_BYTES:
            return None
        if self._wanted:
            return self._load(Type.WANT, _take(self._wanted, _LOAD_IDS))
        if self._offered:
            return self._load(Type.ENTRIES, _take(self._offered, _LOAD_IDS))
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
            return self._load(Type.WANT_PAYLOAD, _take(self._payloads, _LOAD_PAYLOADS))
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
            message = _encode(Type.PAYLOAD, _Piece(entry_id, self._offset, payload[self._offset : end]))
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
        self._credit = min(self._credit + size_bytes, _CREDIT_CAP)

    def kept(self, kept: _Kept) -> list[bytes]:
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
        landed = _take(self._flying, count)
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


class _Inbox:
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
        self._taken: set[bytes] = set()

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
        return _encode(Type.TAKE, _Taken(list(ids)))

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
            ids = _take(self._needed, WANT_IDS_MAX)
            self._asked.update(ids)
            yield _encode(Type.WANT, _IdList(ids))
        if self._payloads and len(self._payloads_asked) <= PAYLOADS_ASKED_MAX // 2:
            ids = list(islice(self._payloads, PAYLOADS_ASKED_MAX // 2))
            self._payloads_asked.update((one, self._payloads.pop(one)) for one in ids)
            yield _encode(Type.WANT_PAYLOAD, _IdList(ids))

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
        self._open.append((len(entries), len(message)))
        offered_ids = frozenset(entry.id for entry in entries if entry.id in self._taken)
        self._taken -= offered_ids
        return Ingest(entries, offered_ids)

    def piece(self, message: bytes, piece: _Piece) -> Ingest | None:
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
        self._open.append((1, cost))
        return Ingest([Entry(entry.header, entry.header_bytes, entry.signature, entry.id, payload)])

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
        yield _encode(Type.KEPT, _Kept(self._decided, found[Fate.REFUSED], partial))
        self._returned += cost
        if self._returned >= self._threshold and self._budget:
            grant = min(self._returned, self._budget)
            self._budget -= grant
            self._credit += grant
            self._returned = 0
            yield _encode(Type.CREDIT, _Credit(grant))

    def _pay(self, size_bytes: int) -> None:
        self._credit -= size_bytes
        if self._credit < 0:
            raise SyncError("it sends more than it was allowed to")


class _Pass(NamedTuple):
    """One pass of the initiator over a bucket; ``machine`` is None until the bucket is loaded."""

    machine: Initiator | None
    told: int


class Session:
    """One session of one link. Feed it events; carry out the commands in order.

    ``key`` is 32 bytes that only the two ends of this link know. ``peer`` names the neighbour (its
    transport key). ``spaces`` are those that this node follows, the mail space among them, and
    ``access`` has the access keys (32 B) of those that are closed: only who has them too shares them.
    ``today`` is the local date in days since 1970, ``pruned_day`` the day before which this store
    has pruned. ``rand`` returns random bytes. ``downloads`` is what all sessions of this node fetch. With a
    ``stranger``, a peer that nobody here added, what strangers brought is reconciled like all else; to others it is
    offered apart.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        key: bytes,
        peer: bytes,
        spaces: Iterable[bytes],
        today: int,
        pruned_day: int,
        rand: Callable[[int], bytes],
        downloads: Downloads,
        limits: Limits = Limits(),
        access: Mapping[bytes, bytes] | None = None,
        stranger: bool = False,
    ) -> None:
        self.peer_today: int | None = None
        """The date that the peer claims, once its HELLO is here."""
        self.spaces: frozenset[bytes] = frozenset()
        """The spaces that both sides follow, once the peer's HELLO is here."""
        self.closed = False
        """Whether the session is over; events change nothing any more."""
        self.stranger = stranger
        self._initiator = initiator
        self._key = key
        self._peer = peer
        self._own_spaces = sorted(set(spaces))[:SPACES_MAX]
        self._access = access or {}
        self._today = today
        self._floor = self._pruned_day = pruned_day
        self._rand = rand
        self._limits = limits
        self._priority_max = limits.priority_max

        self._refs: list[bytes] = []
        self._ref_of: dict[bytes, int] = {}
        self._outbox = _Outbox((), 0, limits)
        self._inbox = _Inbox((), limits)
        self._ingests: deque[Sequence[Entry]] = deque()
        self._fetching = Fetching(downloads)
        self._serving = Serving((), PIECE_MAX_BYTES)
        self._bulk_on_way = False
        self._ours: dict[_Key, int] | None = None
        self._theirs: dict[_Key, int] | None = None

        self._to_reconcile: deque[_Key] = deque()
        self._passes: dict[_Key, _Pass] = {}
        self._replies: deque[tuple[_Key, bytes]] = deque()
        self._again: list[_Key] = []
        self._responders: dict[_Key, Responder | None] = {}
        self._questions: dict[_Key, bytes] = {}
        self._rounds: dict[_Key, int] = {}
        self._to_pull: deque[_Key] = deque()
        self._pulling: set[_Key] = set()
        self._served: set[_Key] = set()
        self._pushed: set[bytes] | None = set()  # None once nothing more is reconciled

        self._urgent: dict[bytes, frozenset[bytes]] | None = None  # ours, once it is loaded
        self._confirm: dict[bytes, bytes] | None = None  # the peer's digests
        self._unlike: set[bytes] = set()  # spaces of which the peer may list what is urgent
        self._urgent_listed = 0

        self._done = self._peer_done = self._in_step = False
        self._now_ms: int | None = None
        self._progress_ms: int | None = None
        self._out: list[Command] = []

    @property
    def has_more(self) -> bool:
        """Whether more is to be sent once the link has taken what was."""
        return not self.closed and self._outbox.has_more

    @property
    def unacknowledged(self) -> list[bytes]:
        """Ids that were sent and whose KEPT has not come, also after the link has died.

        The peer may hold them or not, and reconciliation will not tell the shell which: offered
        again in the next session as news, they are sent once more at most, and confirmed.
        """
        return self._outbox.unacknowledged

    @property
    def pool_settled(self) -> bool:
        """Whether the peer has chosen from all that strangers brought here, and has what it chose."""
        return self._in_step and self._outbox.pool_settled

    def step(self, event: Event) -> list[Command]:
        """What is to be done about an event. Raises nothing for any bytes of the peer."""
        if self.closed:
            return []
        try:
            self._take(event)
            if not self.closed:
                self._advance()
        except ProtocolError as error:
            self._cut_off(Reason.BROKE_RULES, str(error))
        out, self._out = self._out, []
        return out

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._send(Type.HELLO, self._hello())
            case MessageArrived(data):
                self._message(data)
            case BucketsLoaded(buckets, missing):
                self._summarise(buckets)
                self._inbox.need_payloads(e for e in missing if e.header.priority <= self._priority_max)
            case BucketLoaded(space, day, view):
                self._bucket_loaded((space, day), view)
            case EntriesLoaded(entries):
                lack = self._outbox.loaded(entries)
                if lack is not None:
                    self._out.append(Send(lack))
            case Ingested(fates):
                for message in self._inbox.ingested(self._ingests.popleft(), fates):
                    self._out.append(Send(message))
            case LocalAppended(offers):
                self._push(offers)
            case UrgentLoaded(ids):
                self._urgent = {space: frozenset(found) for space, found in ids.items() if found}
                digests = [
                    (self._ref_of[space], urgent_digest(self._key, space, found))
                    for space, found in self._urgent.items()
                ]
                self._send(Type.CONFIRM, _Confirm(digests))
                self._compare()
            case PoolLoaded(items):
                self._outbox.pool(reversed(items))
            case OfferWeighed(ids):
                self._out.append(Send(self._inbox.weighed(ids)))
            case TakenByLink():
                self._outbox.begin_turn()
            case BulkSent():
                self._bulk_on_way = False
            case WantedLoaded(wanted):
                self._fetching.loaded(wanted)
            case ChunksLoaded(chunks, holdings):
                self._say_holds(self._serving.loaded(chunks, holdings))
            case ChunksIngested(count):
                self._fetching.durable(count)
            case ContentGrew(holdings, whole):
                self._content_grew(holdings, whole)
            case MoreWanted():
                self._fetching.look_again()
            case Tick(now_ms):
                self._tick(now_ms)
            case Stopping():
                self._send(Type.BYE, _Bye(Reason.FINISHED))
                self._close("this side ended the session")
            case LinkClosed():
                self._end()
            case _:
                assert_never(event)

    # Start: HELLO and SUMMARY

    def _hello(self) -> _Hello:
        macs = [self._mac(space, own=True) for space in self._own_spaces]
        # Filled up to a multiple of 8 and sorted, so that little shows of their number and order.
        macs += [self._rand(_MAC_BYTES) for _ in range(-len(macs) % _SPACES_STEP)]
        return _Hello(list(VERSIONS), self._today, sorted(macs), self._inbox.grant, self._priority_max)

    def _mac(self, space: bytes, *, own: bool) -> bytes:
        access = self._access.get(space, b"")
        return space_mac(self._key, initiator=self._initiator is own, space=space, access=access)

    def _hello_arrived(self, hello: _Hello) -> None:
        if not set(VERSIONS) & set(hello.versions):
            self._send(Type.BYE, _Bye(Reason.NO_COMMON_VERSION))
            self._close("the two nodes share no version of the session: update the older one")
            return
        named = set(hello.spaces)
        self._refs = [s for s in self._own_spaces if self._mac(s, own=False) in named]
        self._ref_of = {space: ref for ref, space in enumerate(self._refs)}
        self.spaces = frozenset(self._refs)
        self.peer_today = hello.today
        if abs(hello.today - self._today) <= 2:
            self._floor = max(self._pruned_day, hello.today)
        self._outbox = _Outbox(self.spaces, hello.credit, self._limits)
        self._inbox = _Inbox(self.spaces, self._limits)
        self._serving = Serving(self.spaces, min(PIECE_MAX_BYTES, self._limits.step_bytes))
        # Both sides compare the same part of their buckets.
        self._priority_max = min(self._priority_max, hello.priority_max)
        self._out.append(LoadBuckets(self.spaces, self._floor, self._priority_max))

    def _summarise(self, buckets: Sequence[Bucket]) -> None:
        ours = {
            (bucket.space, bucket.day): bucket.count
            for bucket in buckets
            if bucket.space in self.spaces and bucket.count and self._is_alive(bucket.day)
        }
        # Space by space, what never expires first, then what was written last.
        order = sorted(ours, key=lambda key: (key[1] != 0, -key[1], key[0]))[:BUCKETS_MAX]
        self._ours = {key: ours[key] for key in order}
        self._send(
            Type.SUMMARY,
            _Summary([(self._ref_of[space], day, ours[space, day]) for space, day in order]),
        )
        self._plan()

    def _summary_arrived(self, summary: _Summary) -> None:
        if self._theirs is not None:
            raise SyncError("it summarises twice")
        theirs = {(self._space(ref), day): count for ref, day, count in summary.buckets}
        if len(theirs) != len(summary.buckets):
            raise SyncError("it summarises a bucket twice")
        self._theirs = theirs
        self._plan()

    def _plan(self) -> None:
        if self._ours is None or self._theirs is None:
            return
        for key in self._theirs:
            if not self._is_alive(key[1]):
                continue
            if key not in self._ours:
                self._to_pull.append(key)
            elif self._initiator:
                self._to_reconcile.append(key)

    def _is_alive(self, day: int) -> bool:
        return day == 0 or day >= self._floor

    def _space(self, ref: int) -> bytes:
        if ref >= len(self._refs):
            raise SyncError("it names a space that was not agreed on")
        return self._refs[ref]

    # Reconciliation

    def _recon_arrived(self, key: _Key, message: bytes) -> None:
        if self._initiator:
            current = self._passes.get(key)
            if current is None or current.machine is None or self._is_queued(key):
                raise SyncError("it answers what it was not asked")
            self._count_round(key)
            self._replies.append((key, message))
        elif not message:
            if key not in self._responders or key in self._questions:
                raise SyncError("it ends what it did not begin")
            del self._responders[key]
        else:
            if key in self._questions:
                raise SyncError("it asks again before it was answered")
            self._count_round(key)
            if key not in self._responders:
                if len(self._responders) >= RECON_OPEN_MAX:
                    raise SyncError("it opens too many buckets at once")
                self._responders[key] = None
                self._out.append(LoadBucket(*key, self._priority_max))
            self._questions[key] = message
            self._answer(key)

    def _is_queued(self, key: _Key) -> bool:
        return any(key == queued for queued, _ in self._replies)

    def _count_round(self, key: _Key) -> None:
        """Refuse reconciliation without end: ids travel a few times at most, and splits are few."""
        ours, theirs = (self._ours or {}).get(key), (self._theirs or {}).get(key)
        if ours is None or theirs is None:
            raise SyncError("it reconciles a bucket that not both sides have")
        rounds = self._rounds[key] = self._rounds.get(key, 0) + 1
        if rounds > _ROUNDS_MIN + (ours + theirs) * 256 // RECON_MAX_BYTES:
            raise SyncError("its reconciliation does not end")

    def _answer(self, key: _Key) -> None:
        responder = self._responders.get(key)
        if responder is not None and key in self._questions:
            self._send_recon(key, responder.step(self._questions.pop(key)))

    def _bucket_loaded(self, key: _Key, view: SetView) -> None:
        if key in self._passes:
            machine = Initiator(view, seed=self._rand(SEED_BYTES), frame_size_limit=self._recon_bytes)
            self._passes[key] = _Pass(machine, 0)
            self._send_recon(key, machine.initiate())
        elif key in self._responders:
            self._responders[key] = Responder(view, frame_size_limit=self._recon_bytes)
            self._answer(key)
        elif key in self._served:
            self._outbox.pull(_encode(Type.END, _BucketName(self._ref_of[key[0]], key[1])), view)

    def _digest_reply(self, key: _Key, message: bytes) -> None:
        machine, told = self._passes[key]
        assert machine is not None
        step = machine.step(message)
        self._outbox.offer(one for one in reversed(step.have) if one not in (self._pushed or ()))
        self._inbox.need(reversed(step.need))
        told += len(step.have) + len(step.need)
        if step.reply is not None and told <= TOLD_MAX:
            self._passes[key] = _Pass(machine, told)
            self._send_recon(key, step.reply)
            return
        if step.reply is not None:
            self._again.append(key)
        del self._passes[key]
        self._send_recon(key, b"")

    @property
    def _recon_bytes(self) -> int:
        """Largest message of reconciliation that this side makes."""
        whole = self._limits.step_bytes >= ENTRIES_MAX_BYTES
        return RECON_MAX_BYTES if whole else max(self._limits.step_bytes, FRAME_LIMIT_MIN_BYTES)

    def _send_recon(self, key: _Key, message: bytes) -> None:
        self._send(Type.RECON, _Recon(self._ref_of[key[0]], key[1], message))

    # Messages

    def _message(self, data: bytes) -> None:
        if not 1 <= len(data) <= _MESSAGE_MAX:
            raise SyncError("a message is empty or too long")
        if data[0] == Type.ENTRIES:
            self._require_hello(Type.ENTRIES)
            self._ingest(self._inbox.entries(data))
            self._progress_ms = self._now_ms
            return
        try:
            kind = Type(data[0])
            body = _decoders[kind].decode(memoryview(data)[1:])
        except (ValueError, UnicodeError, RecursionError):
            raise SyncError("it sends what is no message of a session") from None
        self._require_hello(kind)
        if kind not in _NO_PROGRESS:
            self._progress_ms = self._now_ms
        self._dispatch(kind, body, data)

    def _require_hello(self, kind: Type) -> None:
        if (kind is Type.HELLO) is (self.peer_today is not None) and kind is not Type.BYE:
            raise SyncError("it does not begin with a greeting, or greets twice")

    def _dispatch(self, kind: Type, body: Any, data: bytes) -> None:
        match kind:
            case Type.HELLO:
                self._hello_arrived(body)
            case Type.SUMMARY:
                self._summary_arrived(body)
            case Type.RECON:
                self._recon_arrived((self._space(body.ref), body.day), body.message)
            case Type.PULL:
                self._pull_arrived((self._space(body.ref), body.day))
            case Type.END:
                key = self._space(body.ref), body.day
                if key not in self._pulling:
                    raise SyncError("it ends what was not asked of it")
                self._pulling.remove(key)
            case Type.WANT | Type.WANT_PAYLOAD:
                self._outbox.want(kind, body.ids)
            case Type.LACK:
                self._inbox.lacked(body.ids)
            case Type.PAYLOAD:
                self._ingest(self._inbox.piece(data, body))
            case Type.KEPT:
                self._copied(self._outbox.kept(body))
            case Type.CREDIT:
                self._outbox.grant(body.size_bytes)
            case Type.CONFIRM:
                if not self._in_step or self._confirm is not None:
                    raise SyncError("it confirms twice, or before both sides are done")
                self._confirm = {self._space(ref): digest for ref, digest in body.digests}
                self._compare()
            case Type.URGENT:
                self._urgent_arrived(self._space(body.ref), body.ids)
            case Type.OFFER:
                if not self._in_step:
                    raise SyncError("it offers before both sides are done")
                self._out.append(self._inbox.offered(body.ids))
            case Type.TAKE:
                self._outbox.taken(body.ids)
            case Type.DONE:
                if self._peer_done:
                    raise SyncError("it is done twice")
                self._peer_done = True
            case Type.WANT_CHUNKS:
                if self._priority_max < ALL_PRIORITIES:
                    raise SyncError("it asks for chunks over a link that carries none")
                self._serving.want(body.id, body.places)
            case Type.CHUNK:
                self._chunk_arrived(body)
            case Type.HOLDS:
                held = int.from_bytes(body.held, "little")
                self._inbox.spend(-self._fetching.holds(Holds(body.id, body.lacked, held)))
            case Type.WHOLE:
                self._copied(self._outbox.whole(body.ids))
            case Type.BYE:
                self._close(_BYE_LINES.get(body.reason, "the other node ended the session"))
            case Type.ENTRIES:
                raise AssertionError("entries are no msgpack")
            case _:
                assert_never(kind)

    def _copied(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._out.append(Copied(ids))

    def _ingest(self, ingest: Ingest | None) -> None:
        if ingest is not None:
            self._ingests.append(ingest.entries)
            self._out.append(ingest)

    def _pull_arrived(self, key: _Key) -> None:
        if key not in (self._ours or ()) or key in self._served:
            raise SyncError("it pulls a bucket that it was not offered, or pulls one twice")
        self._served.add(key)
        self._out.append(LoadBucket(*key, self._priority_max))

    def welcome(self, offers: Iterable[Offer]) -> list[Offer]:
        """What of some news is for this session."""
        return offered(offers, self._peer, self.spaces, self._floor, self._priority_max)

    def _compare(self) -> None:
        """List what is urgent in spaces where the two sides differ."""
        if self._urgent is None or self._confirm is None:
            return
        for space in self._urgent.keys() | self._confirm.keys():
            ours = self._urgent.get(space, frozenset())
            if self._confirm.get(space) == urgent_digest(self._key, space, ours):
                continue
            self._unlike.add(space)
            listed = sorted(ours)[:URGENT_MAX]
            for at in range(0, len(listed), WANT_IDS_MAX):
                self._send(Type.URGENT, _Urgent(self._ref_of[space], listed[at : at + WANT_IDS_MAX]))

    def _urgent_arrived(self, space: bytes, ids: Sequence[bytes]) -> None:
        if self._urgent is None or space not in self._unlike:
            raise SyncError("it lists what both sides have")
        self._urgent_listed += len(ids)
        if self._urgent_listed > URGENT_MAX:
            raise SyncError("it lists more alarms and keys than there can be")
        ours = self._urgent.get(space, frozenset())
        self._inbox.need(one for one in ids if one not in ours)

    def _push(self, offers: Sequence[Offer]) -> None:
        if self.peer_today is None:
            return  # the snapshots, not taken yet, will hold them
        fresh = self.welcome(offers)
        if not self.stranger:
            of_strangers = [offer.entry for offer in fresh if offer.tier is Tier.STRANGER]
            self._outbox.pool((one.id, len(pack_header(one)) + len(one.payload or b"")) for one in of_strangers)
            fresh = [offer for offer in fresh if offer.tier is not Tier.STRANGER]
        self._outbox.push(fresh)
        if self._pushed is not None and len(self._pushed) < TOLD_MAX:
            self._pushed.update(offer.entry.id for offer in fresh)

    # Chunks

    def _chunk_arrived(self, piece: _ChunkPiece) -> None:
        chunk = self._fetching.piece(piece.id, piece.place, piece.offset, piece.data)
        if chunk is not None:
            self._out.append(IngestChunk(chunk))

    def _content_grew(self, holdings: Mapping[bytes, int], whole: Collection[bytes]) -> None:
        self._say_holds(self._serving.grown(holdings))
        told = self._inbox.whole(whole)
        for at in range(0, len(told), WANT_IDS_MAX):
            self._send(Type.WHOLE, _IdList(told[at : at + WANT_IDS_MAX]))

    def _say_holds(self, holds: Iterable[Holds]) -> None:
        for one in holds:
            self._send(Type.HOLDS, _Holds(one.id, list(one.lacked), to_bytes(one.held)))

    def _move_chunks(self) -> None:
        if self.peer_today is None or self._priority_max < ALL_PRIORITIES:
            return
        if self._fetching.begin_load():
            self._out.append(LoadWanted(self.spaces, self._fetching.passed))
        for id, asked, size in self._fetching.asks(self._inbox.budget):
            self._inbox.spend(size)
            self._send(Type.WANT_CHUNKS, _WantChunks(id, asked))
        load = self._serving.next_load()
        if load:
            self._out.append(LoadChunks(load))
        if not self._bulk_on_way and (piece := self._serving.piece(self._outbox.room_bulk)) is not None:
            message = _encode(Type.CHUNK, _ChunkPiece(*piece))
            self._outbox.bulk_sent(len(message))
            self._bulk_on_way = True
            self._out.append(SendBulk(message))

    # What follows from the state after any event

    def _advance(self) -> None:
        while self._replies and self._outbox.backlog + self._inbox.backlog < TOLD_MAX:
            self._digest_reply(*self._replies.popleft())
        if self._again and self._inbox.idle and self._outbox.idle:
            self._to_reconcile.extend(self._again)
            self._again.clear()
        while self._to_reconcile and len(self._passes) < RECON_OPEN_MAX:
            key = self._to_reconcile.popleft()
            self._passes[key] = _Pass(None, 0)
            self._out.append(LoadBucket(*key, self._priority_max))
        while self._to_pull and len(self._pulling) < RECON_OPEN_MAX:
            key = self._to_pull.popleft()
            self._pulling.add(key)
            self._send(Type.PULL, _BucketName(self._ref_of[key[0]], key[1]))
        for message in self._inbox.requests():
            self._out.append(Send(message))
        for message in self._outbox.messages():
            self._out.append(Send(message))
        load = self._outbox.next_load()
        if load is not None:
            self._out.append(load)
        # A bucket that was pulled and is empty by now leaves its END behind.
        for message in self._outbox.messages():
            self._out.append(Send(message))
        if self._ours is not None and self._theirs is not None:
            self._finish()
        if self._in_step and (offer := self._outbox.next_offer()) is not None:
            self._out.append(Send(offer))
        self._move_chunks()

    def _finish(self) -> None:
        reconciling = self._passes or self._to_reconcile or self._again or self._replies
        if not reconciling and self._pushed is not None:
            # What the two sides pushed meanwhile need not be kept apart from differences any more.
            self._pushed = None
            self._inbox.forget_news()
        pulling = self._to_pull or self._pulling
        waiting = not self._initiator and not self._peer_done
        idle = self._inbox.idle and self._outbox.idle
        if not self._done and not reconciling and not pulling and not waiting and idle:
            self._done = True
            self._send(Type.DONE, _Done())
        if self._done and self._peer_done and not self._in_step:
            self._in_step = True
            assert self._ours is not None
            assert self._theirs is not None
            # Of buckets that only one side named the other has pruned the day, or got all of it at once.
            self._out.append(LoadUrgent(frozenset(self._ours.keys() & self._theirs.keys())))
            self._out.append(InStep())

    def _tick(self, now_ms: int) -> None:
        self._now_ms = now_ms
        if self._progress_ms is None or self._inbox.busy or self._fetching.busy or not self._awaits():
            self._progress_ms = now_ms
        elif now_ms - self._progress_ms > self._limits.stall_ms:
            self._cut_off(Reason.STALLED, "it owes an answer and sends nothing")

    def _awaits(self) -> bool:
        """Whether the peer owes anything."""
        return (
            self._theirs is None
            or any(not self._is_queued(key) for key, one in self._passes.items() if one.machine)
            or (bool(self._pulling) and not self._inbox.exhausted)
            or self._inbox.awaits
            or self._outbox.awaits
            or self._fetching.awaits
        )

    def _send(self, kind: Type, body: _Message) -> None:
        self._out.append(Send(_encode(kind, body)))

    def _close(self, reason: str) -> None:
        self._end()
        self._out.append(Close(reason))

    def _end(self) -> None:
        self.closed = True
        self._fetching.leave()

    def _cut_off(self, reason: Reason, line: str) -> None:
        self._end()
        self._out = [Send(_encode(Type.BYE, _Bye(reason))), CutOff(line)]


_BYE_LINES: Final = {
    Reason.NO_COMMON_VERSION: "the two nodes share no version of the session: update the older one",
    Reason.BROKE_RULES: "the other node says that this one broke the rules: update both",
    Reason.STALLED: "the other node waited too long for this one",
}


def as_news(entry: Entry) -> Entry:
    """An entry as it waits to be pushed: without a payload that is asked for apart, which would fill the memory."""
    if entry.payload is None or len(entry.payload) <= INLINE_MAX_BYTES:
        return entry
    return Entry(entry.header, entry.header_bytes, entry.signature, entry.id, None)


def _inline(entry: Entry) -> bytes:
    """An entry as it travels in ENTRIES: payloads above 1 KiB are asked for apart."""
    payload = entry.payload
    return pack(entry) if payload is None or len(payload) <= INLINE_MAX_BYTES else pack_header(entry)


def _take(queue: deque[_T], count: int) -> list[_T]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]
