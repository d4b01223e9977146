"""Records: the JSON objects of a file that others wrote, one after another, whatever its size.

A file is one JSON object, however it is laid out, or one object a line (JSONL). In a file that is not one object, a
record begins at a line whose first byte is ``{`` and is complete when that line ends with ``}``, else at the next line
that begins with ``}``; so a cut line costs itself and nothing else, and a damaged object of a thousand lines is not
told a thousand times. Memory stays at one record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

import msgspec

from outlast.errors import OutlastError

RECORD_MAX_BYTES: Final = 16 << 20
"""The longest record that is read; OONI's collector takes less."""
PARTS_MAX: Final = 1_000_000
"""So many braces and brackets at most: each stands for up to a hundred bytes of memory once it is decoded."""
STRAYS_AT_ONCE: Final = 1000
"""So many lines in a row that belong to no record are told as one."""
_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = b" \t\r\n"
_BREAKS: Final = re.compile(rb"\n[\r\n]*")


class Damage(msgspec.Struct, frozen=True):
    """A record that cannot be read: the line where it begins (from 1), and what is wrong with it."""

    line: int
    problem: str


def records(
    chunks: Iterable[bytes], max_bytes: int = RECORD_MAX_BYTES
) -> Iterator[tuple[int, dict[str, Any]] | Damage]:
    """Each object of a stream with the line where it begins (from 1), or what is wrong with it.

    Holds at most ``max_bytes`` of the stream and one decoded object. Where ``chunks`` raises, what came before is
    answered first, but for the record that was cut; then it is raised.
    """
    broken: list[OutlastError] = []
    left = _to_the_damage(chunks, broken)
    head: list[bytes] = []
    size = 0
    for chunk in left:
        head.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            break
    else:
        whole = b"".join(head).removeprefix(_BOM)
        if _is_object(whole):
            found = decode(whole)
            if not isinstance(found, str):
                yield 1, found
            elif not broken:
                yield Damage(1, found)
            if broken:
                raise broken[0]
            return
        head = [whole]
    if head:
        head[0] = head[0].removeprefix(_BOM)
    held: Damage | None = None
    strays = 0
    for line, data in _by_lines(chain(head, left), max_bytes):
        if held is not None:
            yield held
            held = None
        found = f"it is longer than {max_bytes} bytes" if data is None else decode(data)
        strays = strays + 1 if isinstance(found, str) and data is not None and not data.startswith(b"{") else 0
        if strays and (strays - 1) % STRAYS_AT_ONCE:
            continue
        if not isinstance(found, str):
            yield line, found
        elif broken:
            held = Damage(line, found)  # if it is the last, it was cut, and what is raised says so
        else:
            yield Damage(line, found)
    if broken:
        raise broken[0]


def _to_the_damage(chunks: Iterable[bytes], broken: list[OutlastError]) -> Iterator[bytes]:
    """The chunks; what they raise goes into ``broken``, and they are at their end."""
    try:
        yield from chunks
    except OutlastError as error:
        broken.append(error)


def decode(data: bytes) -> dict[str, Any] | str:
    """The JSON object that ``data`` is, or what is wrong with it.

    What older writers left in is forgiven: bytes that are no UTF-8, halves of surrogate pairs, raw control characters.
    """
    if data.count(b"{") + data.count(b"[") > PARTS_MAX:
        return f"it has more than {PARTS_MAX} parts"
    try:
        found = msgspec.json.decode(data)
    except RecursionError:
        return "it is nested too deeply"
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        try:
            found = json.loads(data.decode(errors="replace"), strict=False)
        except RecursionError:
            return "it is nested too deeply"
        except ValueError:
            return f"it is no JSON: {error}"
    return found if isinstance(found, dict) else "it is no JSON object"


def _is_object(data: bytes) -> bool:
    """Whether it is one JSON object and nothing else; its values are passed over, not built."""
    try:
        msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data.count(b"\n", 0, len(data.rstrip(_BLANK))) == 0 and bool(data.strip(_BLANK))
    return True


def _by_lines(chunks: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Each record of several with the line where it begins; None for one that is too long."""
    open_at = 0
    held = bytearray()
    for number, line in _lines(chunks, max_bytes):
        if line is None:
            # Of a line that is too long nothing is known; an open record cannot be completed by it.
            yield open_at or number, None
            open_at = 0
        elif line.startswith(b"{") or not open_at:
            if open_at:
                yield open_at, bytes(held)
            open_at = 0
            if not line.startswith(b"{") or line.rstrip(_BLANK).endswith(b"}"):
                yield number, line
            else:
                open_at, held = number, bytearray(line)
        elif len(held) + len(line) >= max_bytes:
            yield open_at, None
            open_at = 0
        else:
            held += b"\n" + line
            if line.startswith(b"}"):
                yield open_at, bytes(held)
                open_at = 0
    if open_at:
        yield open_at, bytes(held)


def _lines(chunks: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Each line that is not blank with its number, without its end; None for one of more than ``max_bytes``."""
    number = 1
    held = bytearray()
    dropped = False
    for chunk in chunks:
        at = 0
        if not (held or dropped or chunk.strip(_BLANK)):
            number += chunk.count(b"\n")  # a file of nothing but blank lines must not take long either
            continue
        for breaks in _BREAKS.finditer(chunk):
            held += chunk[at : breaks.start()]
            if dropped or len(held) > max_bytes:
                yield number, None
            elif held.strip(_BLANK):
                yield number, bytes(held)
            held, dropped = bytearray(), False
            number += chunk.count(b"\n", *breaks.span())
            at = breaks.end()
        held += chunk[at:]
        if len(held) > max_bytes:
            held, dropped = bytearray(), True
    if dropped:
        yield number, None
    elif held.strip(_BLANK):
        yield number, bytes(held)
