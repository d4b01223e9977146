"""Tricks with the first flight of TLS, for filters that look for a server's name in one segment or one record.

The names are Outline's (its transport configuration): ``split:N`` sends the first N bytes in a TCP segment of their
own, ``tlsfrag:N`` cuts the first record into two after N bytes of what it holds (RFC 8446 §5.1 lets a message span
records). ``sni`` in place of N means the middle of the server's name. Joined by ``|``, the record is cut first, and
``split:sni`` then sends the two records apart. Servers see the same handshake; nothing of it is hidden from who puts it
together.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from outlast.tls import name_at

FLIGHT_MAX_BYTES: Final = 5 + (1 << 14)
"""A record has at most so many bytes."""
_HEADER: Final = 5
_HANDSHAKE: Final = 22
# Second-level labels under which countries give names to everybody; what is remembered by a domain may be too much or
# too little, and costs one more attempt then.
_SECOND: Final = frozenset(
    {"ac", "co", "com", "edu", "gov", "info", "ltd", "mil", "msk", "net", "ne", "nom", "or", "org"}
)


class Trick(NamedTuple):
    """How a first flight is sent; the middle of the name is -1, nothing of the kind 0."""

    record_at: int = 0
    segment_at: int = 0

    def __str__(self) -> str:
        """As Outline writes it; ``direct`` is none at all."""
        parts = [
            f"{name}:{'sni' if at < 0 else at}"
            for name, at in (("tlsfrag", self.record_at), ("split", self.segment_at))
            if at
        ]
        return "|".join(parts) or "direct"


NAME: Final = -1
TRICKS: Final = (Trick(), Trick(record_at=NAME), Trick(segment_at=NAME), Trick(NAME, NAME), Trick(segment_at=1))
"""In the order in which they are tried where nothing is known."""


def flight_size(data: bytes | bytearray) -> int | None:
    """How long the record is that begins here; None when more bytes are needed to say; 0: it is no handshake of TLS."""
    if data and (data[0] != _HANDSHAKE or (len(data) > 1 and data[1] != 3)):
        return 0
    if len(data) < _HEADER:
        return None
    size = _HEADER + int.from_bytes(data[3:5], "big")
    return size if size <= FLIGHT_MAX_BYTES else 0


def cut(flight: bytes, trick: Trick) -> list[bytes]:
    """The segments in which a whole first record is sent; those of a record without a name are cut in its middle."""
    begin, end = name_at(flight) or (_HEADER, len(flight))
    middle = (begin + end) // 2
    records = [flight]
    size = len(flight) - _HEADER
    if trick.record_at and size > 1:
        at = middle - _HEADER if trick.record_at == NAME else trick.record_at
        at = min(max(1, at), size - 1)
        body = flight[_HEADER:]
        records = [_record(flight, part) for part in (body[:at], body[at:])]
    if not trick.segment_at:
        return [b"".join(records)]
    if trick.segment_at == NAME and len(records) == 2:
        return records
    data = b"".join(records)
    at = middle if trick.segment_at == NAME else trick.segment_at
    at = min(max(1, at), len(data) - 1)
    return [data[:at], data[at:]]


def name_of(flight: bytes) -> str | None:
    """The server's name in a whole first record, when it has one in ASCII."""
    found = name_at(flight)
    if found is None:
        return None
    name = flight[slice(*found)]
    return name.decode().lower() if name.isascii() and len(name) <= 253 else None


def domain_of(name: str) -> str:
    """What of a name stands for the site that it belongs to: its last two labels, or three under such as co.uk."""
    labels = name.lower().rstrip(".").split(".")
    wide = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND
    return ".".join(labels[-3 if wide else -2 :])


def _record(flight: bytes, body: bytes) -> bytes:
    return flight[:3] + len(body).to_bytes(2, "big") + body
