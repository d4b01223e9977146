"""What of TLS (RFC 8446, 6066, 5246) can be read without keys: the ClientHello's server name, alerts, the ServerHello.

The handshake itself is Python's ``ssl``. ``read_flight`` looks at the raw bytes that came instead of, or before, a
failure: whoever injects an alert or a page that is no TLS shows there. Pure; it reads hostile bytes and raises nothing.
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
    if len(body) < 4 or body[0] not in (CLIENT_HELLO, SERVER_HELLO):
        return Flight("handshake")
    kind, body = body[0], body[4 : 4 + int.from_bytes(body[1:4])]
    version, at = int.from_bytes(body[:2]), 34
    at = _skip(body, at, 1)
    if kind == SERVER_HELLO:
        extensions = _extensions(body, at + 3)
        chosen = int.from_bytes(extensions.get(_VERSIONS, b"")) or version
        return Flight("server_hello", version=VERSIONS.get(chosen, ""))
    extensions = _extensions(body, _skip(body, _skip(body, at, 2), 1))
    return Flight("client_hello", server_name=_server_name(extensions.get(_SERVER_NAME)))


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


def _server_name(content: bytes | None) -> str | None:
    if content is None or len(content) < 5 or content[2] != 0:
        return None
    return content[5 : 5 + int.from_bytes(content[3:5])].decode("ascii", "backslashreplace")


def _extensions(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    end = min(len(body), at + 2 + int.from_bytes(body[at : at + 2]))
    at += 2
    while at + 4 <= end:
        size = int.from_bytes(body[at + 2 : at + 4])
        found[int.from_bytes(body[at : at + 2])] = body[at + 4 : min(end, at + 4 + size)]
        at += 4 + size
    return found


def _skip(body: bytes, at: int, width: int) -> int:
    return at + width + int.from_bytes(body[at : at + width])


def _short(content: bytes) -> bytes:
    return len(content).to_bytes(2) + content
