"""The transport ``web``: a website's own port, where a request for a secret path is answered by the bridge.

    client                                                    server
    ------                                                    ------
    TLS to the site, its certificate checked
    one record: GET <path of user and day>, Upgrade ------->  the path is known: 101
                                               <-------
    frames of the mux, inside TLS             <------------>  frames of the mux, inside TLS

Everything else is the site's: the server lets it through as it came. A client's request is one record of TLS, which
arrives whole or not at all. So the server decides by the first thing that it reads, and never holds anything back.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from hashlib import sha1, sha256
from typing import Final, NamedTuple

from outlast.errors import ProtocolError

SECRET_BYTES: Final = 32
DAY_S: Final = 86_400
REQUEST_MAX_BYTES: Final = 4096
ANSWER_MAX_BYTES: Final = 16_384
PADDING_MAX: Final = 512
"""Bytes of chance that ``write_request`` and ``write_accept`` use at most as padding."""

_CONTEXT: Final = b"outlast reach web path 1"
# Where sites keep what has a hash for a name.
_FOLDERS: Final = (b"assets", b"static", b"media", b"files", b"images", b"uploads", b"cache", b"data")
_PATH: Final = re.compile(rb"GET (/[a-z]+/[0-9a-f]{40}) HTTP/1\.1\r\n")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_AGENT: Final = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class WebError(ProtocolError):
    """What should be an answer to an Upgrade request is none."""


class Accepted(NamedTuple):
    """The bridge took the request; frames of the mux follow."""

    rest: bytes  # what came behind the answer


class Declined(NamedTuple):
    """The site answered, not the bridge."""

    status: int
    day: int | None  # the site's day, by its Date header


def path_of(secret: bytes, day: int) -> bytes:
    """The path of a user (secret of 32 B) on a day (days since 1970-01-01, UTC): 160 bits by HMAC-SHA256."""
    mac = hmac.digest(secret, _CONTEXT + day.to_bytes(8, "big", signed=True), sha256)
    return b"/%b/%b" % (_FOLDERS[mac[20] % len(_FOLDERS)], mac[:20].hex().encode())


class Doors:
    """The paths that lead in today. What is looked up is a keyed hash, so the time it takes tells nothing of a path."""

    def __init__(self, users: Mapping[str, bytes], key: bytes) -> None:
        """Users by what they are called, with their secrets of 32 B; ``key`` are 32 B of chance, never shown."""
        self._users = dict(users)
        self._key = key
        self._day: int | None = None
        self._known: dict[bytes, str] = {}

    def user_of(self, path: bytes, now_s: float) -> str | None:
        """Whose path this is yesterday, today or tomorrow."""
        day = int(now_s // DAY_S)
        if day != self._day:
            self._day = day
            self._known = {
                self._hash(path_of(secret, near)): user
                for user, secret in self._users.items()
                for near in (day - 1, day, day + 1)
            }
        return self._known.get(self._hash(path))

    def _hash(self, path: bytes) -> bytes:
        return hmac.digest(self._key, path, sha256)


def write_request(host: str, path: bytes, key: bytes, padding: bytes) -> bytes:
    """An Upgrade request as a browser writes it (RFC 6455 §4.1).

    ``host`` is the Host header's value; ``key`` are 16 B of chance; ``padding`` goes into a cookie.
    """
    name = host.encode("ascii")
    lines = [
        b"GET %b HTTP/1.1" % path,
        b"Host: %b" % name,
        b"Connection: Upgrade",
        b"Pragma: no-cache",
        b"Cache-Control: no-cache",
        b"User-Agent: %b" % _AGENT,
        b"Upgrade: websocket",
        b"Origin: https://%b" % name,
        b"Sec-WebSocket-Version: 13",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-US,en;q=0.9",
        b"Cookie: session=%b" % base64.urlsafe_b64encode(padding).rstrip(b"="),
        b"Sec-WebSocket-Key: %b" % base64.b64encode(key),
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def path_asked(data: bytes) -> bytes | None:
    """The path of what could be a client's whole Upgrade request, by its form alone."""
    if len(data) > REQUEST_MAX_BYTES or not data.endswith(b"\r\n\r\n"):
        return None
    found = _PATH.match(data)
    return found.group(1) if found else None


def key_asked(data: bytes) -> bytes | None:
    """The Sec-WebSocket-Key of a whole Upgrade request, and nothing else; None when it is no such request."""
    if data.find(b"\r\n\r\n") != len(data) - 4:
        return None
    fields = _fields(data)
    key = fields.get(b"sec-websocket-key", b"")
    if (
        fields.get(b"upgrade", b"").lower() != b"websocket"
        or fields.get(b"connection", b"").lower() != b"upgrade"
        or fields.get(b"sec-websocket-version") != b"13"
        or len(key) != 24
    ):
        return None
    return key


def write_accept(key: bytes, date: bytes, padding: bytes) -> bytes:
    """The answer that opens the tunnel (RFC 6455 §4.2.2) to a Sec-WebSocket-Key; ``date`` is an HTTP date."""
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Date: %b" % date,
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Accept: %b" % accept_of(key),
        b"Set-Cookie: session=%b; Path=/; Secure; HttpOnly" % base64.urlsafe_b64encode(padding).rstrip(b"="),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def accept_of(key: bytes) -> bytes:
    """What a server answers to a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    return base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def read_answer(data: bytes, key: bytes) -> Accepted | Declined | None:
    """What has come so far in answer to a request with ``key`` (16 B); None: more is needed; raises WebError."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > ANSWER_MAX_BYTES or (len(data) >= 16 and not _STATUS.match(data)):
            raise WebError("the bridge's site does not answer as a website does; try another bridge")
        return None
    found = _STATUS.match(data)
    if found is None:
        raise WebError("the bridge's site does not answer as a website does; try another bridge")
    fields = _fields(data[: end + 4])
    status = int(found.group(1))
    if status == 101:
        if fields.get(b"sec-websocket-accept") != accept_of(base64.b64encode(key)):
            raise WebError("somebody answers for the bridge who does not know what was asked; try another bridge")
        return Accepted(data[end + 4 :])
    return Declined(status, day_of(fields.get(b"date", b"")))


def day_of(date: bytes) -> int | None:
    """The day of an HTTP date; None when it is no date."""
    try:
        return int(parsedate_to_datetime(date.decode("ascii")).timestamp() // DAY_S)
    except (ValueError, TypeError, OverflowError):
        return None


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Header fields by lower-case names; the last of a name counts."""
    lines: Iterable[bytes] = head.split(b"\r\n")[1:-2]
    pairs = (line.partition(b":") for line in lines)
    return {name.lower(): value.strip(b" \t") for name, colon, value in pairs if colon}
