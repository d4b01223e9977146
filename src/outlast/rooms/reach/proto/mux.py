"""The mux's wire: ``u32 stream | u8 type | u16 length | data``, and the two greetings that begin an outer connection.

The client says HELLO, the server WELCOME; each proves that it has the user's 32-byte secret. What follows are frames of
one session, which outlives its outer connections (``session``). docs/spec/reach-mux.md is the whole format.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from struct import Struct
from typing import Final

from outlast.errors import ProtocolError

VERSION: Final = 1
HEADER: Final = Struct(">IBH")
HEADER_BYTES: Final = HEADER.size
DATA_HEADER: Final = Struct(">IBHQ")
DATA_HEADER_BYTES: Final = DATA_HEADER.size
FRAME_MAX_BYTES: Final = 65536  # header included: four records of TLS
PIECE_MAX_BYTES: Final = FRAME_MAX_BYTES - DATA_HEADER_BYTES
SECRET_BYTES: Final = 32
SESSION_BYTES: Final = 16
NONCE_BYTES: Final = 16
CLOCK_TOLERANCE_S: Final = 3600
COUNTS_MAX: Final = 32  # lost outers that a greeting tells of

_MAC_BYTES: Final = 32
_HELLO: Final = Struct(">BB16sI16sQIB")
_WELCOME: Final = Struct(">BBQB")
_COUNT: Final = Struct(">IQ")
NUMBER: Final = Struct(">Q")
GREETING_MAX_BYTES: Final = 4096


class MuxError(ProtocolError):
    """Bytes of a peer that keep no rule of the mux; its session ends."""


class Type:
    """What a frame is. Those of a session as a whole have the stream 0. (Numbers, and no enum: each frame asks.)"""

    PADDING = 0  # anything; ignored
    HELLO = 1
    WELCOME = 2
    OPEN = 3  # client: an address (``address.encode``), then the stream's first bytes
    ACCEPTED = 4  # server: the stream leads to its target
    REFUSED = 5  # server: u8, a number of SOCKS 5 (RFC 1928 §6); the stream is over
    DATA = 6  # u64 offset of the first byte, then bytes
    FINISH = 7  # u64 how many bytes this direction had: no more follow
    RESET = 8  # the stream is over in both directions
    CREDIT = 9  # u64 how many bytes of the other direction may be sent, counted from the stream's beginning
    ACK = 10  # u32 outer, u64 how many bytes after the greeting were received on it
    LOST = 11  # the same of an outer that whoever says it holds for lost
    PING = 12  # at most 64 B
    PONG = 13  # the same bytes
    DONE = 14  # nothing more is sent on this outer
    DATAGRAM = 15  # an address, then one datagram to it or from it; the stream number names the association
    GOODBYE = 16  # the session is over, with all its streams


class Status(IntEnum):
    """What the server says to a HELLO."""

    NEW = 0  # the session begins
    RESUMED = 1
    GONE = 2  # no such session; its streams are over
    CLOCK = 3  # the client's clock is off: begin again with the time told here
    BUSY = 4  # too many sessions


@dataclass(frozen=True, slots=True)
class Hello:
    """What the client says first on an outer connection."""

    session: bytes  # 16 B of chance
    new: bool  # whether the session begins with this
    number: int  # u32 of this outer connection, never used before in the session
    nonce: bytes  # 16 B of chance
    time_s: int  # since 1970
    budget_bytes: int  # how much the server may send on this outer after its WELCOME; 0: as much as it likes
    counts: tuple[tuple[int, int], ...] = ()  # outers held for lost: number, and how much was received on it


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the server answers."""

    status: Status
    time_s: int
    counts: tuple[tuple[int, int], ...] = ()  # how much the server received on each outer that the HELLO told of


def frame(stream: int, kind: int, data: bytes = b"") -> bytes:
    """One frame; ``data`` has at most 65,529 bytes."""
    return HEADER.pack(stream, kind, len(data)) + data


def data_frame(stream: int, offset: int, data: bytes | memoryview) -> bytes:
    """One DATA frame with at most PIECE_MAX_BYTES."""
    return DATA_HEADER.pack(stream, Type.DATA, 8 + len(data), offset) + data


def count_frame(kind: int, number: int, received: int) -> bytes:
    """ACK or LOST."""
    return frame(0, kind, _COUNT.pack(number, received))


def read_count(data: bytes) -> tuple[int, int]:
    """What ACK or LOST says: the outer's number and how many bytes were received on it; raises MuxError."""
    if len(data) != _COUNT.size:
        raise MuxError("an acknowledgement of the mux has the wrong size")
    number, received = _COUNT.unpack(data)
    return number, received


def read_number(data: bytes) -> int:
    """What FINISH or CREDIT says; raises MuxError."""
    if len(data) != NUMBER.size:
        raise MuxError("a number of the mux has the wrong size")
    (number,) = NUMBER.unpack(data)
    return int(number)


def write_hello(hello: Hello, secret: bytes, padding_bytes: int = 0) -> bytes:
    """The HELLO frame, which proves the user's secret; with so many bytes that say nothing."""
    fields = _HELLO.pack(
        VERSION,
        hello.new,
        hello.session,
        hello.number,
        hello.nonce,
        hello.time_s,
        hello.budget_bytes,
        len(hello.counts),
    )
    body = fields + b"".join(_COUNT.pack(*count) for count in hello.counts) + bytes(padding_bytes)
    return frame(0, Type.HELLO, body + _proof(secret, b"client", body))


def read_hello(data: bytes) -> tuple[Hello, bytes]:
    """The HELLO in a frame's data and its proof, which ``proves`` checks; raises MuxError for what is none."""
    if len(data) < _HELLO.size + _MAC_BYTES:
        raise MuxError("a greeting of the mux is too short")
    version, new, session, number, nonce, time_s, budget_bytes, size = _HELLO.unpack_from(data)
    if version != VERSION:
        raise MuxError("version %(version)s of the mux is not known here; update Outlast", version=version)
    counts = _read_counts(data, _HELLO.size, size)
    return Hello(session, bool(new), number, nonce, time_s, budget_bytes, counts), data[-_MAC_BYTES:]


def proves(data: bytes, secret: bytes) -> bool:
    """Whether the HELLO in a frame's data was written by somebody with the secret; in constant time."""
    return compare_digest(data[-_MAC_BYTES:], _proof(secret, b"client", data[:-_MAC_BYTES]))


def write_welcome(welcome: Welcome, secret: bytes, proof: bytes, padding_bytes: int = 0) -> bytes:
    """The WELCOME frame to the HELLO with that proof; with so many bytes that say nothing."""
    body = _WELCOME.pack(VERSION, welcome.status, welcome.time_s, len(welcome.counts))
    body += b"".join(_COUNT.pack(*count) for count in welcome.counts) + bytes(padding_bytes)
    return frame(0, Type.WELCOME, body + _proof(secret, b"server" + proof, body))


def read_welcome(data: bytes, secret: bytes, proof: bytes) -> Welcome:
    """The WELCOME in a frame's data; raises MuxError when whoever wrote it has not the secret."""
    if len(data) < _WELCOME.size + _MAC_BYTES:
        raise MuxError("a greeting of the mux is too short")
    if not compare_digest(data[-_MAC_BYTES:], _proof(secret, b"server" + proof, data[:-_MAC_BYTES])):
        raise MuxError("the bridge does not know this link's secret: ask for a new link")
    version, status, time_s, size = _WELCOME.unpack_from(data)
    if version != VERSION or status not in iter(Status):
        raise MuxError("version %(version)s of the mux is not known here; update Outlast", version=version)
    return Welcome(Status(status), time_s, _read_counts(data, _WELCOME.size, size))


def _read_counts(data: bytes, at: int, size: int) -> tuple[tuple[int, int], ...]:
    if size > COUNTS_MAX or len(data) < at + size * _COUNT.size + _MAC_BYTES:
        raise MuxError("a greeting of the mux has the wrong size")
    return tuple(_COUNT.unpack_from(data, at + i * _COUNT.size) for i in range(size))


def _proof(secret: bytes, side: bytes, body: bytes) -> bytes:
    return hmac_digest(secret, b"outlast mux 1 " + side + sha256(body).digest(), "sha256")
