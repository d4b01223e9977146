"""Records of a file: each comes once, what is damaged costs itself alone, and memory stays at one."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.rooms.watch.proto.records import PARTS_MAX, Damage, decode, records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


def found(data: bytes, piece: int = 7, max_bytes: int = 1 << 20) -> list[Any]:
    """What comes of ``data`` in pieces: objects, and for damage its line."""
    chunks = (data[at : at + piece] for at in range(0, len(data), piece))
    return [one.line if isinstance(one, Damage) else one[1] for one in records(chunks, max_bytes)]


@given(objects=st.lists(OBJECTS, max_size=6), piece=st.integers(1, 99), indent=st.sampled_from([None, 2, "\t"]))
def test_every_object_comes_once_however_it_is_laid_out(
    objects: list[dict[str, Any]], piece: int, indent: int | str | None
) -> None:
    assert found("\n".join(json.dumps(one, indent=indent) for one in objects).encode(), piece) == objects


@given(one=OBJECTS, indent=st.sampled_from([None, 0, 1, 4]))
def test_a_file_that_is_one_object_is_read_whole_with_any_line_ends(one: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(one, indent=indent)
    assert found(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\n") == [one]


@given(data=st.binary(max_size=300), piece=st.integers(1, 50), max_bytes=st.integers(1, 100))
def test_any_bytes_are_answered_and_none_raises(data: bytes, piece: int, max_bytes: int) -> None:
    found(data, piece, max_bytes)


@given(
    lines=st.lists(
        st.sampled_from([b'{"a": 1}', b'{"cut": ', b"noise", b"", b'["list"]', b'{"bad" 1}', b'{"b": {"c": []}}'])
    )
)
def test_damage_costs_itself_and_no_whole_record(lines: list[bytes]) -> None:
    whole = [json.loads(line) for line in lines if line in (b'{"a": 1}', b'{"b": {"c": []}}')]
    assert [one for one in found(b"\n".join(lines)) if isinstance(one, dict)] == whole


def test_damage_is_told_by_the_line_where_it_begins() -> None:
    assert found(b'{"a": 1}\nnoise\n\n{"b": 2}\n{"cut": [\n{"c": 3}\n') == [{"a": 1}, 2, {"b": 2}, 5, {"c": 3}]


def test_lines_in_a_row_that_belong_to_no_record_are_one_damage_for_each_thousand() -> None:
    noise = b"noise\n" * 1000
    assert found(noise) == [1]
    assert found(noise + b'x\n{"a": 1}\n' + noise) == [1, 1001, {"a": 1}, 1003]
    assert found(b"noise\n\nnoise\n{\nnoise") == [1, 4]


def test_a_line_that_is_too_long_is_dropped_and_the_next_is_read() -> None:
    assert found(b'{"a": "' + b"x" * 200 + b'"}\n{"b": 2}\n', max_bytes=100) == [1, {"b": 2}]


def test_an_object_that_never_ends_is_given_up_at_the_cap() -> None:
    assert found(b'{"a":\n' + b"1,\n" * 100 + b'{"b": 2}\n', max_bytes=60)[0] == 1


def endless(chunk: bytes, times: int) -> Iterator[bytes]:
    """The same bytes again and again."""
    return (chunk for _ in range(times))


@pytest.mark.parametrize(
    "chunks",
    [
        endless(b"x" * 65536, 1000),
        endless(b'{"a":' * 13000, 1000),
        endless(b'{"test_name": "web_connectivity"}\n' * 2000, 1000),
        endless(b'{\n"a": [\n' * 7000, 1000),
        endless(b"\n" * 65536, 1000),
        chain([b'{"a": ['], endless(b"1,\n" * 10000, 5)),
    ],
    ids=["one line", "nesting", "records", "open records", "blank lines", "an open record of short lines"],
)
def test_an_endless_stream_needs_no_more_memory_than_its_cap(chunks: Iterable[bytes]) -> None:
    tracemalloc.start()
    try:
        for number, _ in enumerate(records(chunks, 1 << 17)):
            if number > 200:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": [' + b"[]," * (PARTS_MAX + 1) + b"[]]}", "parts"),
        (b"[1]", "no JSON object"),
        (b'{"a": ' + b"1" * 100_000 + b"}", "no JSON"),
        (b"", "no JSON"),
    ],
)
def test_what_is_no_record_is_told_why(data: bytes, problem: str) -> None:
    said = decode(data)
    assert isinstance(said, str)
    assert problem in said


@pytest.mark.parametrize("data", [b'{"a": "\xff"}', b'{"a": "\\ud800"}', b'{"a": "\x01"}'])
def test_what_old_probes_left_in_text_is_forgiven(data: bytes) -> None:
    assert isinstance(decode(data), dict)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b'{"a": 1}\n{"b": 2}\n{"c', [{"a": 1}, {"b": 2}]),
        (b'{"a": 1}\n{"b": 2}', [{"a": 1}, {"b": 2}]),
        (b'{\n "a": {\n}\n}', [{"a": {}}]),
        (b'noise\n{"a": 1}\n{"a": [', [1, {"a": 1}]),
        (b'{"a": [', []),
        (b"", []),
    ],
    ids=[
        "within a line",
        "after the last line",
        "after an object of many lines",
        "after other damage",
        "within the only one",
        "at once",
    ],
)
def test_what_came_before_the_damage_is_answered_and_then_the_damage_is_told(
    before: bytes, expected: list[Any]
) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (before[at : at + 3] for at in range(0, len(before), 3))
        raise ProtocolError("cut")

    got: list[Any] = []

    def collect() -> None:
        for one in records(chunks(), 1 << 20):
            got.append(one.line if isinstance(one, Damage) else one[1])

    with pytest.raises(ProtocolError, match="cut"):
        collect()
    assert got == expected


def test_damage_after_the_head_costs_no_line_before_it() -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b'{"a": 1}\n'] * 20
        yield b'{"b": 2}'
        raise ProtocolError("cut")

    left = records(chunks(), 50)
    assert [found[1] for found in islice(left, 21) if not isinstance(found, Damage)] == [{"a": 1}] * 20 + [{"b": 2}]
    with pytest.raises(ProtocolError, match="cut"):
        next(left)
