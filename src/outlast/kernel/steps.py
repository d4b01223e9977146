"""What a session is told and what it says is to be done: the events and commands of ``sync``, and its limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from outlast.errors import Sentence
from outlast.kernel.chunks import Chunk, Loaded, Wanted
from outlast.kernel.entry import Entry
from outlast.kernel.forward import ALL_PRIORITIES, Carriage, Offer
from outlast.kernel.setrec import SetView
from outlast.kernel.wire import ENTRIES_MAX_BYTES

CREDIT_BYTES: Final = 1024 * 1024
"""What a peer may send before anything of it must be durable here."""
POOL_BYTES: Final = 16 * 1024 * 1024
"""Of what strangers brought, how much a peer may take in one session."""
STALL_MS: Final = 120_000
"""A peer that owes an answer and sends none for so long is cut off."""


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
    """Answers all SendBulk so far: the link has taken them, and nothing waits to be written.

    ``quick``: it took no longer than a person's text may well wait, so that more can go at a time.
    """

    quick: bool = False


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
    """Answers IngestChunk, of any number of chunks and in any order: these are durable."""

    chunks: Sequence[Chunk]


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

    requested: bytes | None = None
    """What a person here asks for, by its entry."""


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
    """Write these messages to the link like any other; answered by BulkSent when all that was written is out."""

    messages: Sequence[bytes]


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

    reason: Sentence


@dataclass(frozen=True, slots=True)
class CutOff:
    """Close the link at once; the peer lies, stalls or floods."""

    reason: Sentence


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


UNLIMITED: Final = Limits()
"""What a session takes that nothing narrows."""
