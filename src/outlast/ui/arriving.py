"""Files that arrive by a form, passed on as they come: nothing of them touches the disk in clear."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from outlast.errors import Sentence, UsageError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELDS_MAX: Final = 16
FIELD_MAX_BYTES: Final = 4096
_MALFORMED: Final = Sentence("This page cannot be used like that.")


@dataclass(frozen=True, slots=True)
class Arriving:
    """A file of a form: its name, the text fields before it, its bytes as they come."""

    name: str
    fields: dict[str, str]
    data: AsyncIterator[bytes]


async def arriving(request: Request) -> Arriving:
    """The first file that was chosen in a form of this kind (multipart/form-data, RFC 7578).

    Raises UsageError when there is none, or the form is malformed; ``data`` raises it too, and when the form is cut.
    """
    events = _events(request)
    fields: dict[str, str] = {}
    async for event in events:
        if isinstance(event, _Part) and event.filename:
            return Arriving(event.filename, fields, _data(events))
        if isinstance(event, _Part) and event.filename is None:
            fields[event.name] = bytes(event.text).decode(errors="replace").strip()
    raise UsageError("Choose a file first.")


async def _data(events: AsyncIterator[_Part | bytes | None]) -> AsyncIterator[bytes]:
    is_open = True
    async for event in events:  # to the end of the form, so that one that was cut is noticed
        if event is None:
            is_open = False
        elif isinstance(event, bytes) and is_open:
            yield event
    if is_open:
        raise UsageError("What you sent did not arrive whole: send it again.")


class _Part:
    """A part of the form: a field if it has no ``filename``, told once it is whole; else a file, told at its start."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.name = ""
        self.filename: str | None = None
        self.text = bytearray()


class _Reader:
    """What ``python_multipart`` calls back."""

    def __init__(self) -> None:
        self.events: list[_Part | bytes | None] = []
        self._part = _Part()
        self._name = bytearray()
        self._value = bytearray()
        self._parts = 0

    def on_part_begin(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > FIELDS_MAX:
            raise UsageError(_MALFORMED)

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._part.headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _kind, options = parse_options_header(self._part.headers.get(b"content-disposition", b""))
        self._part.name = options.get(b"name", b"").decode(errors="replace")
        filename = options.get(b"filename")
        if filename is not None:
            self._part.filename = filename.decode(errors="replace")
            self.events.append(self._part)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is not None:
            self.events.append(data[start:end])
            return
        self._part.text += data[start:end]
        if len(self._part.text) > FIELD_MAX_BYTES:
            raise UsageError(_MALFORMED)

    def on_part_end(self) -> None:
        self.events.append(self._part if self._part.filename is None else None)


async def _events(request: Request) -> AsyncIterator[_Part | bytes | None]:
    """Fields, files, the bytes of a file; None where a file ends."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UsageError(_MALFORMED)
    reader = _Reader()
    callbacks: MultipartCallbacks = {
        "on_part_begin": reader.on_part_begin,
        "on_part_data": reader.on_part_data,
        "on_part_end": reader.on_part_end,
        "on_header_field": reader.on_header_field,
        "on_header_value": reader.on_header_value,
        "on_header_end": reader.on_header_end,
        "on_headers_finished": reader.on_headers_finished,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        async for data in request.stream():
            parser.write(data)
            found, reader.events = reader.events, []
            for event in found:
                yield event
        parser.finalize()
    except FormParserError:
        raise UsageError(_MALFORMED) from None
