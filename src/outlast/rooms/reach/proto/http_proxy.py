"""HTTP as a proxy speaks it (RFC 9110 §7, §9.3.6, RFC 9112 §3.2): CONNECT, and requests with a whole URL; both sides.

A request with a whole URL is rewritten for its origin. There is one for each connection: origin and program are both
told that it closes. What the program sends behind its request's body belongs to no origin and is dropped. Pure.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from ipaddress import IPv6Address
from typing import Final

from outlast import address
from outlast.address import AddressError, Target, show
from outlast.rooms.reach.proto import pac
from outlast.rooms.reach.proto.request import Credentials, Ended, Request, isolation_of
from outlast.socks import Command, Reached, SocksError

HEAD_MAX_BYTES: Final = 64 << 10
_ANSWER_HEAD_MAX_BYTES: Final = 16 << 10
_CHUNK_LINE_MAX_BYTES: Final = 4096
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_VERSION: Final = re.compile(rb"HTTP/1\.[01]")
_REST: Final = re.compile(rb"[^\x00-\x20\x7f]*")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
# RFC 9110 §7.6.1, and what programs say to proxies alone. Transfer-Encoding stays: the body is passed on as it is.
_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"te", b"trailer", b"upgrade", b"host")
)
_STATUS: Final = {
    1: b"502 Bad Gateway",
    2: b"403 Forbidden",
    3: b"502 Bad Gateway",
    4: b"502 Bad Gateway",
    5: b"502 Bad Gateway",
    6: b"504 Gateway Timeout",
}
_WHY: Final = {
    1: b"There is no way there at the moment.",
    2: b"This target is refused.",
    3: b"No way leads into that network.",
    4: b"The site is not reached: it has no address, or does not answer.",
    5: b"The site refuses the connection.",
    6: b"The way there took too long.",
}
_CODE: Final = {b"403": 2, b"502": 4, b"503": 4, b"504": 6}
_LINES: Final = re.compile(rb"\r?\n")


class _Bad(Exception):
    """This request is none."""


class HttpProxy:
    """A server's side: reads one request."""

    __slots__ = ("_at", "_body", "_credentials", "_held", "_here")

    def __init__(self, here: Target, credentials: Credentials | None = None) -> None:
        """``here`` is the address of the gate as the program sees it."""
        self._here = here
        self._credentials = credentials
        self._held = b""
        self._at = 0
        self._body: Body | None = None

    @property
    def body(self) -> Body:
        """What lets the rest of a forwarded request's body through."""
        assert self._body is not None
        return self._body

    def receive(self, data: bytes) -> tuple[bytes, Request | Ended | None]:
        """Take bytes; see ``Reader``."""
        self._held = held = self._held + data
        end = _end_of_head(held, self._at)
        self._at = max(0, len(held) - 3)
        if end > HEAD_MAX_BYTES or (not end and len(held) > HEAD_MAX_BYTES):
            return _page(b"431 Request Header Fields Too Large"), Ended("too long a head")
        if not end:
            return b"", None
        try:
            return self._judge(held[:end], held[end:])
        except _Bad:
            return _page(b"400 Bad Request"), Ended("no request that a proxy takes")

    def granted(self) -> bytes:
        """The way is open; the answer to a forwarded request is the origin's."""
        return b"HTTP/1.1 200 Connection established\r\n\r\n" if self._body is None else b""

    def refused(self, code: int) -> bytes:
        """There is no way, and why, as a page."""
        return _page(_STATUS.get(code, _STATUS[1]), text=_WHY.get(code, _WHY[1]))

    def _judge(self, head: bytes, rest: bytes) -> tuple[bytes, Request | Ended | None]:
        method, where, fields = _read_head(head)
        if where.startswith(b"/"):
            return self._own_page(method, where, fields), Ended("a page of the gate's own")
        user, password = _basic(_only(fields, b"proxy-authorization"))
        if self._credentials is not None and not self._credentials.match(user, password):
            challenge = b'Proxy-Authenticate: Basic realm="proxy", charset="UTF-8"\r\n'
            ended = Ended("no credentials, or wrong ones", guessed=bool(user or password))
            return _page(b"407 Proxy Authentication Required", challenge), ended
        isolation = isolation_of(user, password) if user or password else b""
        if method == b"CONNECT":
            target, path = _split_authority(where, None)
            if path:
                raise _Bad
            return b"", Request(Command.CONNECT, target, isolation, rest)
        if where[:7].lower() != b"http://":
            raise _Bad
        target, path = _split_authority(where[7:], 80)
        body = Body(fields)
        origin_form = _origin_form(method, path, target, fields)
        self._body = body
        return b"", Request(Command.CONNECT, target, isolation, origin_form + body.passed(rest), forwarded=True)

    def _own_page(self, method: bytes, where: bytes, fields: list[tuple[bytes, bytes]]) -> bytes:
        # Pages of the web must not find out from within a browser that a gate runs here.
        # A name may have been made to lead here by whoever's page asks (DNS rebinding): that counts as same site.
        foreign = (
            _only(fields, b"origin")
            or _only(fields, b"sec-fetch-site") not in (b"", b"none", b"same-origin")
            or not _is_own_name(_only(fields, b"host"))
        )
        if where.partition(b"?")[0] != pac.PATH.encode() or method not in (b"GET", b"HEAD") or foreign:
            return _page(b"400 Bad Request")
        text = pac.pac(*self._here)
        head = _head(
            b"200 OK",
            b"Content-Type: %b\r\nCross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n"
            % pac.MEDIA_TYPE.encode(),
            len(text),
        )
        return head if method == b"HEAD" else head + text


class Body:
    """The body of one request (RFC 9112 §6), passed on as it comes, and nothing behind it."""

    __slots__ = ("_chunked", "_left", "_line", "_trailer")

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        encoding, length = _only(fields, b"transfer-encoding"), _only(fields, b"content-length")
        if (encoding and (length or encoding.lower() != b"chunked")) or (length and not _DIGITS.fullmatch(length)):
            raise _Bad  # whoever reads them differently could be fed a second request
        self._chunked = bool(encoding)
        self._left = int(length or b"0")  # of the body, or of the chunk with its line's end
        self._line = b""
        self._trailer = False

    @property
    def ended(self) -> bool:
        """Whether all of it has been passed on."""
        return not self._chunked and not self._left

    def passed(self, data: bytes) -> bytes:
        """As much of ``data`` as belongs to the body."""
        if not self._chunked:
            taken = data[: self._left]
            self._left -= len(taken)
            return taken
        at = 0
        while self._chunked and at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            line_end = data.find(b"\n", at) + 1
            self._line += data[at : line_end or len(data)]
            at = line_end or len(data)
            if not line_end and len(self._line) <= _CHUNK_LINE_MAX_BYTES:
                break
            self._take_line(self._line.rstrip(b"\r\n"))
            self._line = b""
        return data[:at]

    def _take_line(self, line: bytes) -> None:
        if self._trailer:
            self._chunked = bool(line)
            return
        size = line.partition(b";")[0].strip()
        if not _HEX.fullmatch(size):
            self._chunked = False  # damaged: the origin sees as much as came, and judges it
            return
        count = int(size, 16)
        self._trailer = count == 0
        self._left = count + 2 if count else 0


class Answer:
    """The answer to a forwarded request: says that the connection closes behind it, also where the origin does not.

    The program would send its next request on the same connection otherwise, for whichever origin.
    """

    __slots__ = ("_at", "_held", "_passing")

    def __init__(self) -> None:
        self._held = b""
        self._at = 0
        self._passing = False

    def passed(self, data: bytes) -> bytes:
        """What the program gets of what came; a head is kept back until it is whole."""
        if self._passing:
            return data
        self._held += data
        interim = b""
        while end := _end_of_head(self._held, self._at):
            head, self._held, self._at = self._held[:end], self._held[end:], 0
            if head[9:10] == b"1":  # 100 Continue, 103 Early Hints: the answer follows
                interim += head
                continue
            self._passing = True
            return interim + _closing(head) + self.rest()
        self._at = max(0, len(self._held) - 3)
        if len(self._held) > HEAD_MAX_BYTES:
            self._passing = True
            return interim + self.rest()
        return interim

    def rest(self) -> bytes:
        """What was kept back, when no more comes."""
        rest, self._held = self._held, b""
        return rest


class HttpAsking:
    """A client's side: asks a proxy for a tunnel by CONNECT."""

    __slots__ = ("_first", "_held")

    def __init__(self, target: Target, credentials: Credentials | None = None) -> None:
        address.encode(target)  # raises AddressError for what is none
        at = show(target).encode("ascii")
        admission = b""
        if credentials is not None:
            word = b64encode(credentials.user + b":" + credentials.password)
            admission = b"Proxy-Authorization: Basic " + word + b"\r\n"
        self._first = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (at, at, admission)
        self._held = b""

    def first(self) -> bytes:
        """What is sent first."""
        return self._first

    def receive(self, data: bytes) -> tuple[bytes, Reached | None]:
        """Take bytes; nothing is to be sent, and at last the target is reached. Raises SocksError."""
        self._held = held = self._held + data
        if not held.startswith(b"HTTP/1."[: len(held)]):
            raise SocksError("the proxy speaks no HTTP")
        end = _end_of_head(held, 0)
        if not end:
            if len(held) > _ANSWER_HEAD_MAX_BYTES:
                raise SocksError("the proxy's answer is too long")
            return b"", None
        status = held[9:12]
        if status[:1] == b"2":
            return b"", Reached(Target("0.0.0.0", 0), held[end:])
        if status == b"407":
            raise SocksError("the proxy wants other credentials", 2)
        raise SocksError("the proxy refuses", _CODE.get(status, 1))


def _end_of_head(held: bytes, start: int) -> int:
    """Where the empty line ends, or 0."""
    crlf, lf = held.find(b"\r\n\r\n", start), held.find(b"\n\n", start)
    if crlf < 0 and lf < 0:
        return 0
    return crlf + 4 if lf < 0 or 0 <= crlf < lf else lf + 2


def _read_head(head: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    first, *lines = _LINES.split(head.rstrip(b"\r\n"))
    words = first.split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _VERSION.fullmatch(words[2]):
        raise _Bad
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _Bad
        fields.append((name, value))
    return words[0], words[1], fields


def _closing(head: bytes) -> bytes:
    first, *lines = _LINES.split(head.rstrip(b"\r\n"))
    kept = [line for line in lines if line.partition(b":")[0].lower() not in (b"connection", b"keep-alive")]
    return b"\r\n".join((first, *kept, b"Connection: close", b"", b""))


def _only(fields: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """A field's value, or nothing; a field that is given twice with different values makes the request a bad one."""
    found = {value for field, value in fields if field.lower() == name}
    if len(found) > 1:
        raise _Bad
    return next(iter(found), b"")


def _basic(value: bytes) -> tuple[bytes, bytes]:
    scheme, _, word = value.partition(b" ")
    if scheme.lower() != b"basic":
        return b"", b""
    try:
        user, _, password = b64decode(word.strip(), validate=True).partition(b":")
    except (ValueError, binascii.Error):
        return b"", b""
    return user, password


def _is_own_name(host: bytes) -> bool:
    """Whether a gate may be called so: by an address, or as this machine calls itself."""
    try:
        name = _split_authority(host, 80)[0].host
    except _Bad:
        return not host
    return name.lower() == "localhost" or address.parse(name) is not None


def _split_authority(text: bytes, port: int | None) -> tuple[Target, bytes]:
    """The target in ``HOST[:PORT][/PATH...]``, and what follows it."""
    end = next((at for at, byte in enumerate(text) if byte in b"/?#"), len(text))
    authority, path = text[:end].rpartition(b"@")[2], text[end:]
    host, colon, number = authority.rpartition(b":")
    if not colon or number.endswith(b"]"):
        host, number = authority, b""
    if number:
        if not number.isdigit() or len(number) > 5:
            raise _Bad
        port = int(number)
    if port is None or port > 65535 or not _REST.fullmatch(path):
        raise _Bad
    try:
        if host[:1] == b"[":
            if host[-1:] != b"]" or b"%" in host:  # a zone means nothing at the far end
                raise _Bad
            return Target(str(IPv6Address(host[1:-1].decode("ascii"))), port), path
        found = address.decode(bytes((3, min(len(host), 255))) + host + port.to_bytes(2, "big"))
    except (AddressError, ValueError):
        raise _Bad from None
    if found is None or b":" in host or found[0].host.encode() != host:
        raise _Bad
    return found[0], path


def _origin_form(method: bytes, path: bytes, target: Target, fields: list[tuple[bytes, bytes]]) -> bytes:
    path = path.partition(b"#")[0]
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    dropped = _HOP_BY_HOP.union(
        word.strip().lower() for name, value in fields if name.lower() == b"connection" for word in value.split(b",")
    ) - {b"transfer-encoding", b"content-length"}
    kept = [name + b": " + value + b"\r\n" for name, value in fields if name.lower() not in dropped]
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path, show(target, 80).encode("ascii"))
    return b"".join((first, *kept, b"Connection: close\r\n\r\n"))


def _page(status: bytes, more: bytes = b"", text: bytes = b"") -> bytes:
    text = (text or status.partition(b" ")[2]) + b"\n"
    return _head(status, b"Content-Type: text/plain\r\n" + more, len(text)) + text


def _head(status: bytes, fields: bytes, length: int) -> bytes:
    return b"HTTP/1.1 %b\r\n%bX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (
        status,
        fields,
        length,
    )
