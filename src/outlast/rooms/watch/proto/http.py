"""HTTP/1.1 of the probe: one GET or POST on a connection, an answer read within bounds; the grammar is h11's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from outlast.address import show
from outlast.errors import UsageError

BODY_MAX_BYTES: Final = 1 << 19
"""As much of a body as OONI's probe keeps."""
HEAD_MAX_BYTES: Final = 1 << 16
URL_MAX_CHARS: Final = 8192
INFORMATIONAL_MAX: Final = 16
"""So many 1xx answers may come before the answer."""
MALFORMED: Final = "unknown_failure: malformed HTTP response"
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
USER_AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.3"
)
_ABSOLUTE: Final = re.compile(r"https?://", re.IGNORECASE).match
HEADERS: Final = (
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("User-Agent", USER_AGENT),
)
"""What a target sees: as many a browser and OONI's probe send, so that they do not stand out."""


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL in its parts; ``host`` in punycode, without brackets."""

    text: str
    scheme: str
    host: str
    port: int
    target: str
    explicit_port: bool

    @property
    def origin(self) -> str:
        """The Host header's value."""
        return show((self.host, self.port), 443 if self.scheme == "https" else 80)


def parse_url(text: str) -> Url:
    """Read a URL; raises UsageError when it is none that can be fetched."""
    if len(text) > URL_MAX_CHARS or " " in text or not text.isprintable():
        raise UsageError("%(text)r is no URL", text=text[:80])
    try:
        parts: SplitResult = urlsplit(text)
        port = parts.port
        name = parts.hostname or ""
        host = str(IPv6Address(name)) if ":" in name else name.encode("idna").decode("ascii")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        (host + target).encode("ascii")
        if any(ord(each) <= 32 for each in host):  # what IDNA makes of other blanks
            raise ValueError
    except (ValueError, UnicodeError):
        raise UsageError("%(text)r is no URL", text=text[:80]) from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or port == 0:
        raise UsageError("%(text)r is no URL that can be probed: write http://HOST/ or https://HOST/", text=text[:80])
    standard = 443 if parts.scheme == "https" else 80
    return Url(text, parts.scheme, host, port or standard, target, port is not None)


def redirect_of(url: Url, status: int, location: str | None) -> Url | None:
    """Where an answer sends the client; None when nowhere, raises UsageError when to no URL."""
    if status not in REDIRECTS or not location:
        return None
    try:
        # urljoin would take an absolute URL without a host for a relative one.
        return parse_url(location if _ABSOLUTE(location) else urljoin(url.text, location))
    except ValueError:
        raise UsageError("%(location)r is no URL", location=location[:80]) from None


class Exchange:
    """One request and its answer over bytes: ``send`` first, then ``feed`` until ``done``.

    ``failure`` is a string of df-007 once the answer broke the rules or a bound.
    """

    def __init__(self, body_max_bytes: int = BODY_MAX_BYTES) -> None:
        """Begin; an answer's body is kept up to the bound and ``truncated`` there."""
        self._client = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
        self._max = body_max_bytes
        self._body = bytearray()
        self._informational = 0
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.truncated = False
        self.done = False
        self.failure: str | None = None

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return bytes(self._body)

    def send(self, method: str, url: Url, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
        """The request's bytes."""
        fields = [("Host", url.origin), *headers, ("Connection", "close")]
        if body:
            fields.append(("Content-Length", str(len(body))))
        head = self._client.send(h11.Request(method=method, target=url.target, headers=fields))
        return (head or b"") + (self._client.send(h11.Data(data=body)) or b"" if body else b"") + self._end()

    def _end(self) -> bytes:
        return self._client.send(h11.EndOfMessage()) or b""

    def feed(self, data: bytes) -> None:
        """Take what came; b"" is the end of the stream."""
        try:
            self._client.receive_data(data)
            while not self.done:
                event = self._client.next_event()
                if event is h11.NEED_DATA:
                    return
                self._take(event)
        except h11.RemoteProtocolError:
            # An end within the answer, or bytes that are no HTTP.
            self.done, self.failure = True, "eof_error" if data == b"" else MALFORMED

    def _take(self, event: object) -> None:
        match event:
            case h11.InformationalResponse():
                self._informational += 1
                if self._informational > INFORMATIONAL_MAX:
                    self.done, self.failure = True, MALFORMED
            case h11.Response():
                self.status = event.status_code
                self.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers.raw_items()]
            case h11.Data():
                room = self._max - len(self._body)
                self._body += event.data[:room]
                if len(event.data) > room:
                    self.truncated = self.done = True
            case h11.EndOfMessage() | h11.ConnectionClosed() | h11.PAUSED:
                self.done = True
                if not self.status:
                    self.failure = "eof_error"

    def header(self, name: str) -> str | None:
        """The first value of an answer's header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)
