"""The fuzzer finds what it is to find: an undocumented error, a slow input, one without end, one that takes memory."""

from __future__ import annotations

import os
from importlib.util import find_spec

import msgspec
import pytest

from tests.fuzz.engine import run
from tests.fuzz.faults import FAULTY
from tests.fuzz.mutate import mutate

SIGNS = {
    "falls": "KeyError: 'planted'",
    "lingers": "of processor time",
    "hangs": "libFuzzer: timeout",
    "swells": "MemoryError",
}


def test_planted_faults_are_found() -> None:
    if find_spec("atheris") is None and os.environ.get("CI") != "true":
        pytest.skip("atheris has no wheel for this machine")
    found = {one.name: one.failure for one in run(FAULTY, seed=1, seconds=20)}
    assert found.keys() == SIGNS.keys()
    assert {name for name, sign in SIGNS.items() if sign in found[name]} == SIGNS.keys()


def test_mutations_keep_the_form_and_reach_every_part_of_it() -> None:
    seed = msgspec.msgpack.encode([1, b"\x08" + msgspec.msgpack.encode(["inner", 7]), {"key": [b"x"]}, "text"])

    def flip(data: bytes, room: int) -> bytes:
        return (data + b"!")[:room]

    changed = [mutate(seed, 20_000, number, flip) for number in range(2000)]
    assert changed == [mutate(seed, 20_000, number, flip) for number in range(2000)]
    assert all(len(mutate(seed, 30, number, flip)) <= 30 for number in range(200))
    formed = []
    for data in changed:
        try:
            formed.append(msgspec.msgpack.decode(data))
        except (msgspec.MsgspecError, RecursionError):
            continue
    assert len(formed) > 1000
    whole = [one for one in formed if len(one) == 4]
    for part in range(4):
        assert len({repr(one[part]) for one in whole}) > 5, part
    inner = [one[1][1:] for one in whole if isinstance(one[1], bytes) and one[1][:1] == b"\x08"]
    assert len({data for data in inner if data[:1] == b"\x92"}) > 5
    assert any(b"\x91" * 100 in data for data in changed)
