"""HTTP as a proxy speaks it (RFC 9110 §7, §9.3.6, RFC 9112 §3.2): CONNECT, and requests with a whole URL; both sides.

A request with a whole URL is rewritten for its origin, and has a stream of its own: the origin is told that it closes.
The program may go on with its next request, to any origin, when the answer has ended. Pure.
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
from outlast.rooms.reach.proto.http_message import (
    HEAD_MAX_BYTES,
    Answer,
    Body,
    Fields,
    HttpError,
    end_of_head,
    end_to_end,
    may_begin,
    only,
    read_request_head,
    words_of,
    write_head,
)
from outlast.rooms.reach.proto.request import Credentials, Ended, Request, isolation_of
from outlast.socks import Command, Reached, SocksError

_ANSWER_HEAD_MAX_BYTES: Final = 16 << 10
_REST: Final = re.compile(rb"[^\x00-\x20\x7f]*")
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
_BEHIND_MAX_BYTES: Final = HEAD_MAX_BYTES


class Exchange:
    """One request that is forwarded, and its answer; ``behind`` is what the program sent after the request already."""

    __slots__ = ("_answer", "_body", "behind", "failed")

    def __init__(self, body: Body, answer: Answer) -> None:
        """``failed`` says whether the origin answered something else than HTTP."""
        self._body = body
        self._answer = answer
        self.behind = b""
        self.failed = False

    @property
    def over(self) -> bool:
        """Whether the program may go on with its next request: then ``behind`` is the beginning of it."""
        return self._answer.ended and self._body.ended and len(self.behind) <= _BEHIND_MAX_BYTES

    def outward(self, data: bytes) -> bytes:
        """What the origin gets of what the program sent; raises HttpError."""
        passed = self._body.passed(data)
        if len(self.behind) <= _BEHIND_MAX_BYTES:
            self.behind += data[len(passed) :]
        return passed

    def inward(self, data: bytes) -> bytes:
        """What the program gets of what the origin answered; raises HttpError when there is no honest end to it."""
        if self.failed:
            return b""
        try:
            return self._answer.passed(data)
        except HttpError:
            if self._answer.begun:
                raise
            return self._fail()

    def end(self) -> bytes:
        """What the program gets when nothing more comes."""
        return b"" if self._answer.begun or self.failed else self._fail()

    def _fail(self) -> bytes:
        self.failed = True
        return _page(b"502 Bad Gateway", text=b"The site does not answer in HTTP.")


class HttpProxy:
    """A server's side: reads one request."""

    __slots__ = ("_at", "_credentials", "_held", "_here", "exchange")

    def __init__(self, here: Target, credentials: Credentials | None = None) -> None:
        """``here`` is the gate's address as the program sees it; ``exchange`` is None but for what is forwarded."""
        self._here = here
        self._credentials = credentials
        self._held = b""
        self._at = 0
        self.exchange: Exchange | None = None

    def receive(self, data: bytes) -> tuple[bytes, Request | Ended | None]:
        """Take bytes; see ``Reader``."""
        self._held = held = (self._held + data).lstrip(b"\r\n")  # RFC 9112 §2.2
        if not may_begin(held):  # TLS mostly: a program that is answered in plain HTTP knows what is wrong
            return _page(b"400 Bad Request"), Ended("no HTTP")
        end = end_of_head(held, self._at)
        self._at = max(0, len(held) - 3)
        if end > HEAD_MAX_BYTES or (not end and len(held) > HEAD_MAX_BYTES):
            return _page(b"431 Request Header Fields Too Large"), Ended("too long a head")
        if not end:
            return b"", None
        try:
            return self._judge(held[:end], held[end:])
        except HttpError:
            return _page(b"400 Bad Request"), Ended("no request that a proxy takes")

    def granted(self) -> bytes:
        """The way is open; the answer to a forwarded request is the origin's."""
        return b"HTTP/1.1 200 Connection established\r\n\r\n" if self.exchange is None else b""

    def refused(self, code: int) -> bytes:
        """There is no way, and why, as a page."""
        return _page(_STATUS.get(code, _STATUS[1]), text=_WHY.get(code, _WHY[1]))

    def _judge(self, head: bytes, rest: bytes) -> tuple[bytes, Request | Ended | None]:
        method, where, version, fields = read_request_head(head)
        if where.startswith(b"/"):
            return self._own_page(method, where, fields), Ended("a page of the gate's own")
        user, password = _basic(only(fields, b"proxy-authorization"))
        if self._credentials is not None and not self._credentials.match(user, password):
            challenge = b'Proxy-Authenticate: Basic realm="proxy", charset="UTF-8"\r\n'
            ended = Ended("no credentials, or wrong ones", guessed=bool(user or password))
            return _page(b"407 Proxy Authentication Required", challenge), ended
        isolation = isolation_of(user, password) if user or password else b""
        if method == b"CONNECT":
            target, path = _split_authority(where, None)
            if path:
                raise HttpError
            return b"", Request(Command.CONNECT, target, isolation, rest)
        if where[:7].lower() != b"http://":
            raise HttpError
        target, path = _split_authority(where[7:], 80)
        if version == b"HTTP/1.0" and words_of(fields, b"transfer-encoding"):
            raise HttpError
        keep = version == b"HTTP/1.1" and not any(
            b"close" in words_of(fields, name) for name in (b"connection", b"proxy-connection")
        )
        exchange = Exchange(Body(fields), Answer(method, keep))
        early = _origin_form(method, path, version, target, fields) + exchange.outward(rest)
        self.exchange = exchange
        return b"", Request(Command.CONNECT, target, isolation, early)

    def _own_page(self, method: bytes, where: bytes, fields: Fields) -> bytes:
        # Pages of the web must not find out from within a browser that a gate runs here.
        # A name may have been made to lead here by whoever's page asks (DNS rebinding): that counts as same site.
        foreign = (
            only(fields, b"origin")
            or only(fields, b"sec-fetch-site") not in (b"", b"none", b"same-origin")
            or not _is_own_name(only(fields, b"host"))
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
        end = end_of_head(held, 0)
        if not end:
            if len(held) > _ANSWER_HEAD_MAX_BYTES:
                raise SocksError("the proxy's answer is too long")
            return b"", None
        status = held[9:12]
        if status[:1] == b"2":
            return b"", Reached(Target("0.0.0.0", 0), held[end:])
        if status in (b"407", b"401"):  # some say to wrong credentials what a site would say
            raise SocksError("the proxy wants other credentials", 2)
        raise SocksError("the proxy refuses", _CODE.get(status, 1))


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
    except HttpError:
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
            raise HttpError
        port = int(number)
    if port is None or port > 65535 or not _REST.fullmatch(path):
        raise HttpError
    try:
        if host[:1] == b"[":
            if host[-1:] != b"]" or b"%" in host:  # a zone means nothing at the far end
                raise HttpError
            return Target(str(IPv6Address(host[1:-1].decode("ascii"))), port), path
        found = address.decode(bytes((3, min(len(host), 255))) + host + port.to_bytes(2, "big"))
    except (AddressError, ValueError):
        raise HttpError from None
    if found is None or b":" in host or found[0].host.encode() != host:
        raise HttpError
    return found[0], path


def _origin_form(method: bytes, path: bytes, version: bytes, target: Target, fields: Fields) -> bytes:
    path = path.partition(b"#")[0]
    if not path.startswith(b"/"):
        path = b"*" if method == b"OPTIONS" and not path else b"/" + path
    kept = [field for field in end_to_end(fields) if field[0].lower() not in (b"host", b"proxy-authorization")]
    host = (b"Host", show(target, 80).encode("ascii"))
    # In the program's version: of chunks HTTP/1.0 knows nothing.
    return write_head(b"%b %b %b" % (method, path, version), [host, *kept, (b"Connection", b"close")])


def _page(status: bytes, more: bytes = b"", text: bytes = b"") -> bytes:
    text = (text or status.partition(b" ")[2]) + b"\n"
    return _head(status, b"Content-Type: text/plain\r\n" + more, len(text)) + text


def _head(status: bytes, fields: bytes, length: int) -> bytes:
    return b"HTTP/1.1 %b\r\n%bX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (
        status,
        fields,
        length,
    )
