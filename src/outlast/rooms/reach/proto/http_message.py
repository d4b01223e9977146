"""HTTP/1 messages on their way through a proxy (RFC 9112): their heads, and where their bodies end.

Behind the end of one message stands the next one of its connection, perhaps of another site. So what two readers could
read differently is refused in a request, and where an answer is so, nothing follows it on its connection. Pure.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from outlast.errors import ProtocolError

HEAD_MAX_BYTES: Final = 64 << 10
_CHUNK_LINE_MAX_BYTES: Final = 4096
_LOOKED_AT_MAX_BYTES: Final = 8 << 10
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_LINES: Final = re.compile(rb"\r?\n")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_VERSION: Final = re.compile(rb"HTTP/1\.[01]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( [^\x00-\x08\x0a-\x1f\x7f]*)?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_FRAMING: Final = frozenset((b"transfer-encoding", b"content-length"))
# RFC 9110 §7.6.1. Transfer-Encoding stays: the body is passed on as it is.
_HOP_BY_HOP: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"upgrade"))

Fields = list[tuple[bytes, bytes]]


class HttpError(ProtocolError):
    """This is no message that a proxy passes on. (Nobody is shown why: programs get a status, or are cut off.)"""


def end_of_head(held: bytes | bytearray, start: int) -> int:
    """Where the empty line ends, or 0; looked for from ``start`` on."""
    found = _END_OF_HEAD.search(held, start)
    return found.end() if found else 0


def may_begin(held: bytes) -> bool:
    """Whether a request can begin with these bytes: the first are its method's."""
    return not held or _TOKEN.match(held) is not None


def read_request_head(head: bytes) -> tuple[bytes, bytes, bytes, Fields]:
    """Method, target, version and fields; raises HttpError."""
    first, *lines = _LINES.split(head.rstrip(b"\r\n"))
    words = first.split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _VERSION.fullmatch(words[2]):
        raise HttpError
    return words[0], words[1], words[2], [_field(line) for line in lines]


def only(fields: Fields, name: bytes) -> bytes:
    """A field's value, or nothing; raises HttpError when it is given twice."""
    found = [value for field, value in fields if field.lower() == name]
    if len(found) > 1:
        raise HttpError
    return found[0] if found else b""


def words_of(fields: Fields, name: bytes) -> set[bytes]:
    """All words of a field that is a list, in lower case."""
    return {word.strip().lower() for field, value in fields if field.lower() == name for word in value.split(b",")} - {
        b""
    }


def end_to_end(fields: Fields) -> Fields:
    """The fields that are not for the next machine alone."""
    dropped = (_HOP_BY_HOP | words_of(fields, b"connection")) - _FRAMING
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def write_head(first: bytes, fields: Fields) -> bytes:
    """A head, with its empty line."""
    return b"".join((first, b"\r\n", *(b"%b: %b\r\n" % field for field in fields), b"\r\n"))


class _Chunk(Enum):
    SIZE = 0
    DATA = 1
    TRAILER = 2


class Body:
    """One body (RFC 9112 §6), passed on as it comes, and nothing behind it."""

    __slots__ = ("_at", "_left", "_line", "ended")

    def __init__(self, fields: Fields) -> None:
        """Raises HttpError when it is not clear where it ends; ``ended`` says whether all of it was passed on."""
        self._at: _Chunk | None = None  # of which part of a chunk the next line is the end
        self._left = 0  # of the body, or of the chunk's data
        self._line = b""
        match [(name.lower(), value) for name, value in fields if name.lower() in _FRAMING]:
            case []:
                pass
            case [(b"content-length", length)] if _DIGITS.fullmatch(length):
                self._left = int(length)
            case [(b"transfer-encoding", coding)] if coding.lower() == b"chunked":
                self._at = _Chunk.SIZE
            case _:
                raise HttpError
        self.ended = self._at is None and not self._left

    def passed(self, data: bytes) -> bytes:
        """As much of ``data`` as belongs to the body; raises HttpError for chunks that are none."""
        at = 0
        while not self.ended and at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                self.ended = self._at is None and not self._left
                continue
            end = data.find(b"\n", at, at + _CHUNK_LINE_MAX_BYTES) + 1
            line = self._line + data[at : end or len(data)]
            if len(line) > _CHUNK_LINE_MAX_BYTES:
                raise HttpError
            at = end or len(data)
            self._line = b"" if end else line
            if end:
                self._take_line(line)
        return data[:at]

    def _take_line(self, line: bytes) -> None:
        text = line[:-2]
        if line[-2:] != b"\r\n" or b"\r" in text:
            raise HttpError
        match self._at:
            case _Chunk.SIZE:
                size = text.partition(b";")[0].rstrip(b" \t")
                if not _HEX.fullmatch(size):
                    raise HttpError
                self._left = int(size, 16)
                self._at = _Chunk.DATA if self._left else _Chunk.TRAILER
            case _Chunk.DATA:
                if text:
                    raise HttpError
                self._at = _Chunk.SIZE
            case _:
                if text:
                    _field(text)
                self.ended = not text


class Place(Enum):
    """Where in its requests a connection is."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2
    UNKNOWN = 3
    """Behind what is no request, or one with a longer head than websites mostly take."""


class Requests:
    """Looks on as one connection says its requests; ``place`` is where it is."""

    __slots__ = ("_body", "_head", "place")

    def __init__(self) -> None:
        self._body: Body | None = None
        self._head = bytearray()
        self.place = Place.BETWEEN

    def said(self, data: bytes) -> bool:
        """Take note; whether any of it was of a head, or can be."""
        is_head = False
        try:
            while data and self.place is not Place.UNKNOWN:
                if self._body is not None:
                    data = data[len(self._body.passed(data)) :]
                    self._settle(self._body)
                else:
                    is_head = True
                    data = self._take_head(data)
        except HttpError:
            self.place = Place.UNKNOWN
        return is_head or self.place is Place.UNKNOWN

    def _take_head(self, data: bytes) -> bytes:
        """What is behind the head, once it is whole."""
        self.place = Place.HEAD
        before = len(self._head)
        self._head += data if before else data.lstrip(b"\r\n")  # RFC 9112 §2.2
        end = end_of_head(self._head, max(0, before - 3))
        if (end or len(self._head)) > _LOOKED_AT_MAX_BYTES:
            raise HttpError
        if not end:
            return b""
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head.clear()
        self._settle(Body(read_request_head(head)[3]))
        return rest

    def _settle(self, body: Body) -> None:
        self._body, self.place = (None, Place.BETWEEN) if body.ended else (body, Place.BODY)


class Answer:
    """The answer to one request that was forwarded, as the program gets it.

    Whether its connection goes on behind it is told here: where the program wants that, and the end is clear.
    """

    __slots__ = ("_at", "_bodyless", "_held", "_keep", "_passing", "body")

    def __init__(self, method: bytes, keep: bool) -> None:
        """``keep`` says whether the program would go on; ``body`` is None until it is known to have a clear end."""
        self._bodyless = method == b"HEAD"
        self._keep = keep
        self._held = b""
        self._at = 0
        self._passing = False
        self.body: Body | None = None

    @property
    def begun(self) -> bool:
        """Whether the head was passed on."""
        return self._passing

    @property
    def ended(self) -> bool:
        """Whether all of it was passed on, and the connection goes on."""
        return self.body is not None and self.body.ended

    def passed(self, data: bytes) -> bytes:
        """What the program gets of what came; a head is kept back until it is whole. Raises HttpError."""
        if self._passing:
            return self.body.passed(data) if self.body is not None else data
        self._held += data
        interim = b""
        while end := end_of_head(self._held, self._at):
            if end > HEAD_MAX_BYTES:
                break
            head, self._held, self._at = self._held[:end], self._held[end:], 0
            said, final = self._read(head)
            if not final:  # 100 Continue, 103 Early Hints: the answer follows
                interim += said
                continue
            rest, self._held = self._held, b""
            self._passing = True
            return interim + said + self.passed(rest)
        if len(self._held) > HEAD_MAX_BYTES:
            raise HttpError
        self._at = max(0, len(self._held) - 3)
        return interim

    def _read(self, head: bytes) -> tuple[bytes, bool]:
        """What is said of a head, and whether it is the answer's own."""
        first, *lines = _LINES.split(head.rstrip(b"\r\n"))
        status = _STATUS_LINE.fullmatch(first)
        if status is None or status[2] == b"101":  # nothing asks for another protocol
            raise HttpError
        fields = end_to_end(_unfolded(lines))
        first = b"HTTP/1.1 %b%b" % (status[2], status[3] or b" ")
        if status[2][:1] == b"1":
            return write_head(first, fields), False
        coded = words_of(fields, b"transfer-encoding")
        if coded:  # which overrides the length (RFC 9112 §6.3)
            fields = [field for field in fields if field[0].lower() != b"content-length"]
        if self._keep:
            self.body = self._clear_body(status, fields, coded)
        if self.body is None:
            fields.append((b"Connection", b"close"))
        return write_head(first, fields), True

    def _clear_body(self, status: re.Match[bytes], fields: Fields, coded: set[bytes]) -> Body | None:
        """The body, if it is clear where it ends; else that is where its connection does."""
        if self._bodyless or status[2] in (b"204", b"304"):
            return Body([])
        if (coded and status[1] == b"0") or not (coded or words_of(fields, b"content-length")):
            return None
        try:
            return Body(fields)
        except HttpError:
            return None


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise HttpError
    return name, value


def _unfolded(lines: list[bytes]) -> Fields:
    """The fields of an answer: lines that go on (RFC 9112 §5.2) in one, and without those that are none."""
    fields: Fields = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and fields and _VALUE.fullmatch(line):
            name, value = fields[-1]
            fields[-1] = name, value + b" " + line.strip(b" \t")
            continue
        try:
            fields.append(_field(line))
        except HttpError:
            continue
    return fields
