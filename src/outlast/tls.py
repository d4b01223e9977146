"""What of TLS (RFC 8446, 6066, 7301, 5246) can be read without keys: the ClientHello, alerts, the ServerHello.

The handshake itself is Python's ``ssl``. ``read_flight`` looks at the raw bytes that came instead of, or before, a
failure: whoever injects an alert or a page that is no TLS shows there. ``protocols_of`` and ``name_at`` read a whole
ClientHello, for who answers it or sends it. Pure; it reads hostile bytes and raises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

ALERT, HANDSHAKE = 21, 22
CLIENT_HELLO, SERVER_HELLO = 1, 2
UNRECOGNIZED_NAME: Final = 112
VERSIONS: Final = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
RECORD_MAX_BYTES: Final = 1 << 14 | 256

_RECORD: Final = Struct("!BHH")
_MESSAGE_BYTES: Final = 4  # the header of a handshake message
_SERVER_NAME, _GROUPS, _SIGNATURES, _ALPN, _VERSIONS, _KEY_SHARE, _QUIC = 0, 10, 13, 16, 43, 51, 57
_X25519: Final = 0x001D


@dataclass(frozen=True, slots=True)
class Flight:
    """What the first bytes of one side hold.

    ``kind`` is "" (nothing), "server_hello", "client_hello", "alert", "handshake" (another message), or "not_tls".
    ``alert`` is its description's number; ``version`` the one that a ServerHello chose; ``server_name`` what a
    ClientHello asked for, None when it names none.
    """

    kind: str
    alert: int | None = None
    version: str = ""
    server_name: str | None = None


def read_flight(data: bytes) -> Flight:
    """Read the first record of a side's bytes, however few of them came."""
    if not data:
        return Flight("")
    if len(data) < _RECORD.size or data[0] not in (ALERT, HANDSHAKE) or data[1] != 3:
        return Flight("not_tls")
    kind, _, size = _RECORD.unpack_from(data)
    if size > RECORD_MAX_BYTES:
        return Flight("not_tls")
    body = data[_RECORD.size : _RECORD.size + size]
    if kind == ALERT:
        return Flight("alert", alert=body[1] if len(body) == 2 else None)
    return read_handshake(body)


def read_handshake(body: bytes) -> Flight:
    """Read a handshake message without its record, as QUIC's CRYPTO frames carry it (RFC 9001, 4.1.3)."""
    if len(body) < _MESSAGE_BYTES or body[0] not in (CLIENT_HELLO, SERVER_HELLO):
        return Flight("handshake")
    kind, body = body[0], body[_MESSAGE_BYTES:][: int.from_bytes(body[1:_MESSAGE_BYTES])]
    if kind == SERVER_HELLO:
        found = _extensions(body, _skip(body, 34, 1) + 3)
        chosen = int.from_bytes(body[found.get(_VERSIONS, slice(0))]) or int.from_bytes(body[:2])
        return Flight("server_hello", version=VERSIONS.get(chosen, ""))
    at = _name_in(body)
    return Flight("client_hello", server_name=None if at is None else body[at].decode("ascii", "backslashreplace"))


def protocols_of(first: bytes | bytearray) -> list[bytes] | None:
    """The application protocols (ALPN) that a whole ClientHello offers; None: none, or it is broken."""
    hello = _whole_hello(bytes(first))
    found = _offered(hello).get(_ALPN)
    if found is None or found.stop > len(hello):
        return None
    names, at = [], found.start + 2
    while at < found.stop:
        end = _skip(hello, at, 1)
        if end > found.stop:
            return None
        names.append(hello[at + 1 : end])
        at = end
    return names


def name_at(first: bytes) -> tuple[int, int] | None:
    """Where in a whole ClientHello of one record the server's name begins and ends; None: nowhere."""
    hello, before = _whole_hello(first), _RECORD.size + _MESSAGE_BYTES
    found = _name_in(hello)
    if found is None or not found.start < found.stop <= len(hello) or before + len(hello) != len(first):
        return None
    return before + found.start, before + found.stop


def client_hello(
    server_name: str | None, random: bytes, public_key: bytes, *, alpn: tuple[str, ...] = (), quic: bytes | None = None
) -> bytes:
    """A TLS 1.3 ClientHello without its record, for QUIC: 32 random bytes, an X25519 public key of 32.

    ``quic`` are the transport parameters, encoded.
    """
    names = b"" if server_name is None else _short(b"\0" + _short(server_name.encode("ascii")))
    protocols = b"".join(len(one).to_bytes(1) + one.encode("ascii") for one in alpn)
    extensions = [
        (_SERVER_NAME, names),
        (_GROUPS, _short(_X25519.to_bytes(2))),
        (_SIGNATURES, _short(bytes.fromhex("0403080408050401"))),
        (_ALPN, _short(protocols) if protocols else b""),
        (_VERSIONS, bytes.fromhex("020304")),
        (_KEY_SHARE, _short(_X25519.to_bytes(2) + _short(public_key))),
        (_QUIC, quic or b""),
    ]
    encoded = b"".join(kind.to_bytes(2) + _short(content) for kind, content in extensions if content)
    suites = bytes.fromhex("130113021303")
    body = b"\x03\x03" + random + b"\0" + _short(suites) + b"\x01\0" + _short(encoded)
    return CLIENT_HELLO.to_bytes(1) + len(body).to_bytes(3) + body


def _whole_hello(raw: bytes) -> bytes:
    """A ClientHello without its header, out of as many records as it takes; b"" when it is broken or not whole."""
    message, at = b"", 0
    while len(message) < _MESSAGE_BYTES or len(message) < _MESSAGE_BYTES + int.from_bytes(message[1:_MESSAGE_BYTES]):
        end = _skip(raw, at + 3, 2)
        if raw[at : at + 1] != b"\x16" or end > len(raw) or message[:1] not in (b"", b"\x01"):
            return b""
        message += raw[at + _RECORD.size : end]
        at = end
    return message[_MESSAGE_BYTES:][: int.from_bytes(message[1:_MESSAGE_BYTES])] if message[0] == CLIENT_HELLO else b""


def _offered(hello: bytes) -> dict[int, slice]:
    """Where the extensions of a ClientHello stand."""
    return _extensions(hello, _skip(hello, _skip(hello, _skip(hello, 34, 1), 2), 1))


def _name_in(hello: bytes) -> slice | None:
    """Where the server's name stands: behind its list's length, its type and its own length. It may be cut off."""
    found = _offered(hello).get(_SERVER_NAME)
    if found is None or min(found.stop, len(hello)) < found.start + 5 or hello[found.start + 2] != 0:
        return None
    return slice(found.start + 5, _skip(hello, found.start + 3, 2))


def _extensions(body: bytes, at: int) -> dict[int, slice]:
    """Where each extension's content stands; that of the last one may reach beyond the body."""
    found: dict[int, slice] = {}
    end = min(len(body), _skip(body, at, 2))
    at += 2
    while at + 4 <= end:
        after = _skip(body, at + 2, 2)
        found.setdefault(int.from_bytes(body[at : at + 2]), slice(at + 4, after))
        at = after
    return found


def _skip(body: bytes, at: int, width: int) -> int:
    return at + width + int.from_bytes(body[at : at + width])


def _short(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content
