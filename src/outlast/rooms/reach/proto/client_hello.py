"""What a TLS client says first (RFC 8446 §4.1.2), as far as a server has to know it before it answers."""

from __future__ import annotations

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _ALPN = 22, 1, 0, 16
_HEADERS_BYTES = 5 + 4  # of the record and of the message


def protocols_of(first: bytes | bytearray) -> list[bytes] | None:
    """The application protocols (ALPN, RFC 7301) that a whole ClientHello offers; None: none, or it is broken."""
    try:
        hello = _hello(bytes(first))
        found = _extension(hello, _ALPN)
        return None if found is None else _names(hello[slice(*found)])
    except IndexError:
        return None


def name_at(first: bytes) -> tuple[int, int] | None:
    """Where in a whole ClientHello of one record the server's name (RFC 6066 §3) begins and ends; None: nowhere."""
    try:
        hello = _hello(first)
        found = _extension(hello, _SERVER_NAME)
        # A list's length, the type of its only entry, and that one's length stand before the name.
        if found is None or len(first) != _HEADERS_BYTES + len(hello) or found[1] - found[0] <= 5:
            return None
    except IndexError:
        return None
    return _HEADERS_BYTES + found[0] + 5, _HEADERS_BYTES + found[1]


def _hello(raw: bytes) -> bytes:
    """The message without its header, out of as many records as it takes."""
    message, at = b"", 0
    while True:
        if raw[at] != _HANDSHAKE:
            raise IndexError
        message += _slice(raw, at + 5, int.from_bytes(_slice(raw, at + 3, 2), "big"))
        at += 5 + int.from_bytes(raw[at + 3 : at + 5], "big")
        if len(message) >= 4:
            if message[0] != _CLIENT_HELLO:
                raise IndexError
            size = int.from_bytes(message[1:4], "big")
            if len(message) >= 4 + size:
                return message[4 : 4 + size]


def _extension(hello: bytes, wanted: int) -> tuple[int, int] | None:
    """Where an extension's body begins and ends."""
    at = 2 + 32
    at += 1 + hello[at]  # session
    at += 2 + int.from_bytes(_slice(hello, at, 2), "big")  # cipher suites
    at += 1 + hello[at]  # compressions
    if at == len(hello):
        return None
    end = at + 2 + int.from_bytes(_slice(hello, at, 2), "big")
    at += 2
    while at < end:
        kind, size = int.from_bytes(_slice(hello, at, 2), "big"), int.from_bytes(_slice(hello, at + 2, 2), "big")
        _slice(hello, at + 4, size)
        if kind == wanted:
            return at + 4, at + 4 + size
        at += 4 + size
    return None


def _names(body: bytes) -> list[bytes]:
    names, at = [], 2
    while at < len(body):
        names.append(_slice(body, at + 1, body[at]))
        at += 1 + body[at]
    return names


def _slice(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
