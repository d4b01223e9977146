"""The wire of a session: its messages, each a type byte and a msgpack array (ENTRIES: packed entries, back to back)."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from outlast.errors import ProtocolError
from outlast.kernel.chunks import ASKED_MAX, PLACES_MAX
from outlast.kernel.entry import CHUNK_BYTES
from outlast.kernel.forward import ALL_PRIORITIES

VERSIONS: Final = (1,)
"""Session versions spoken here, rising."""
ENTRIES_MAX_BYTES: Final = 60_000
"""Largest ENTRIES message: one Noise frame."""
PIECE_MAX_BYTES: Final = 32 * 1024
"""Largest piece of a payload."""
RECON_MAX_BYTES: Final = 256 * 1024
"""Largest negentropy message inside a RECON."""
SPACES_MAX: Final = 4096
BUCKETS_MAX: Final = 32_768
WANT_IDS_MAX: Final = 1000
"""Ids in one WANT; twice as many may be unanswered."""
POOL_OFFERS_MAX: Final = 16_384
"""Ids in all OFFER messages of one session together."""
URGENT_MAX: Final = 65_536
"""Ids in all URGENT messages of one session together."""
MESSAGE_MAX_BYTES: Final = 1024 * 1024
SPACES_STEP: Final = 8
MAC_BYTES: Final = 16
CREDIT_CAP: Final = 2**40


class Reason(IntEnum):
    """Why a session ends; the numbers travel in BYE."""

    FINISHED = 0
    NO_COMMON_VERSION = 1
    BROKE_RULES = 2
    STALLED = 3


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
_Bytes = Annotated[int, Meta(ge=0, le=CREDIT_CAP)]
_Place = Annotated[int, Meta(ge=0, lt=PLACES_MAX)]
_Index = Annotated[int, Meta(ge=0, lt=2**62)]


class Message(msgspec.Struct, array_like=True, frozen=True):
    """What follows the type byte; elements that a later version adds are ignored."""


class Hello(Message, frozen=True):
    """What a side speaks and when it thinks it is, which spaces it can name, and its first credit in bytes."""

    versions: Annotated[list[Annotated[int, Meta(ge=1, le=255)]], Meta(min_length=1, max_length=16)]
    today: _Day
    spaces: Annotated[
        list[Annotated[bytes, Meta(min_length=MAC_BYTES, max_length=MAC_BYTES)]],
        Meta(max_length=SPACES_MAX + SPACES_STEP),
    ]
    credit: _Bytes
    priority_max: Annotated[int, Meta(ge=0, le=ALL_PRIORITIES)] = ALL_PRIORITIES


class Summary(Message, frozen=True):
    """The buckets that a side has something in: space by its place, day, number of ids."""

    buckets: Annotated[list[tuple[_Ref, _Day, Annotated[int, Meta(gt=0, lt=2**31)]]], Meta(max_length=BUCKETS_MAX)]


class Recon(Message, frozen=True):
    """A reconciliation message about one bucket."""

    ref: _Ref
    day: _Day
    message: Annotated[bytes, Meta(max_length=RECON_MAX_BYTES)]  # empty: finished with the bucket


class BucketName(Message, frozen=True):
    """A bucket: of which all is wanted, or was sent."""

    ref: _Ref
    day: _Day


class IdList(Message, frozen=True):
    """Ids: of entries, payloads or contents."""

    ids: _Ids


class Taken(Message, frozen=True):
    """What was chosen of the last OFFER."""

    ids: Annotated[list[_Id], Meta(max_length=WANT_IDS_MAX)]


class Confirm(Message, frozen=True):
    """For each space in which a side holds alarms or keys, a digest of them."""

    digests: Annotated[
        list[tuple[_Ref, Annotated[bytes, Meta(min_length=MAC_BYTES, max_length=MAC_BYTES)]]],
        Meta(max_length=SPACES_MAX),
    ]


class Urgent(Message, frozen=True):
    """Alarms and keys that a side holds in one space."""

    ref: _Ref
    ids: _Ids


class Piece(Message, frozen=True):
    """A piece of a payload."""

    id: _Id
    offset: Annotated[int, Meta(ge=0, lt=2**17)]
    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE_MAX_BYTES)]


class Kept(Message, frozen=True):
    """What became of the first ``count`` entries: which were refused, and which are not whole."""

    count: _Index
    refused: list[_Index]
    partial: list[_Index]


class Credit(Message, frozen=True):
    """So many bytes more may be sent."""

    size_bytes: Annotated[int, Meta(gt=0, le=CREDIT_CAP)]


class Done(Message, frozen=True):
    """All that the start asked for is settled."""


class Bye(Message, frozen=True):
    """Why the session ends: see ``Reason``."""

    reason: Annotated[int, Meta(ge=0, le=255)]


class WantChunks(Message, frozen=True):
    """Chunks that are wanted of one content, by their places."""

    id: _Id
    places: Annotated[list[_Place], Meta(min_length=1, max_length=ASKED_MAX)]


class ChunkPiece(Message, frozen=True):
    """A chunk, or a piece of one: what a text that is in a hurry has to wait for at most."""

    id: _Id
    place: _Place
    offset: Annotated[int, Meta(ge=0, lt=CHUNK_BYTES)]
    data: Annotated[memoryview, Meta(min_length=1, max_length=CHUNK_BYTES)]  # within the message: it is not copied


class HoldsBody(Message, frozen=True):
    """Chunks that were asked for in vain, and those that are here."""

    id: _Id
    lacked: Annotated[list[_Place], Meta(max_length=ASKED_MAX)]
    held: Annotated[bytes, Meta(max_length=PLACES_MAX // 8)]  # bit p % 8 of byte p // 8: place p


_BODIES: Final[dict[Type, type[Message]]] = {
    Type.HELLO: Hello,
    Type.SUMMARY: Summary,
    Type.RECON: Recon,
    Type.PULL: BucketName,
    Type.END: BucketName,
    Type.WANT: IdList,
    Type.LACK: IdList,
    Type.WANT_PAYLOAD: IdList,
    Type.PAYLOAD: Piece,
    Type.KEPT: Kept,
    Type.CREDIT: Credit,
    Type.DONE: Done,
    Type.BYE: Bye,
    Type.WANT_CHUNKS: WantChunks,
    Type.CHUNK: ChunkPiece,
    Type.HOLDS: HoldsBody,
    Type.WHOLE: IdList,
    Type.OFFER: IdList,
    Type.TAKE: Taken,
    Type.CONFIRM: Confirm,
    Type.URGENT: Urgent,
}
_decoders: Final = {kind: msgspec.msgpack.Decoder(body) for kind, body in _BODIES.items()}
_encoder: Final = msgspec.msgpack.Encoder()


class SyncError(ProtocolError):
    """The peer broke a rule of the session."""


def encode(kind: Type, body: Message) -> bytes:
    """A message as it travels."""
    return bytes((kind,)) + _encoder.encode(body)


def decode(data: bytes) -> tuple[Type, Any]:
    """A message other than ENTRIES: its type and body; raises SyncError when it is none."""
    try:
        kind = Type(data[0])
        return kind, _decoders[kind].decode(memoryview(data)[1:])
    except (ValueError, UnicodeError, RecursionError):
        raise SyncError("it sends what is no message of a session") from None


def space_mac(key: bytes, *, initiator: bool, space: bytes, access: bytes = b"") -> bytes:
    """How a side names a space in its HELLO: 16 bytes that only who knows the space can tell.

    A closed space is named by its access key (32 B) too, which only members know. The role is in it, so that nobody can
    pass off what it was sent as its own.
    """
    role = b"i" if initiator else b"r"
    return hmac.digest(key, b"outlast/space/1" + role + space + access, "sha256")[:MAC_BYTES]


def urgent_digest(key: bytes, space: bytes, ids: Iterable[bytes]) -> bytes:
    """16 bytes over the ids (32 B each) of what has priority 0 in a space, which mean nothing outside this session.

    Who made entries before the session began could not aim at it, as one can at the sums of reconciliation.
    """
    return hmac.digest(key, b"outlast/urgent/1" + space + b"".join(sorted(ids)), "sha256")[:MAC_BYTES]
