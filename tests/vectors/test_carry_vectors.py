"""What people say stays what it is: carry.json, read by the program and from the words of docs/spec/carry.md."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlast.errors import ProtocolError
from outlast.kernel.kinds import Kind
from outlast.kernel.outbox import Receipt
from outlast.rooms.carry.entries import KINDS, LETTERS

FILE = Path(__file__).parents[2] / "vectors" / "carry.json"
MADE: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
KNOWN: dict[str, Kind] = {kind.name: kind for kind in (*LETTERS, *KINDS)}


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return [plain(one) for one in value] if isinstance(value, list) else value


def read(case: dict[str, Any]) -> msgspec.Struct:
    """The body as the program reads it."""
    body = bytes.fromhex(case["body"])
    if case["kind"] == "receipt":
        return msgspec.msgpack.decode(body, type=Receipt)
    found: msgspec.Struct = KNOWN[case["kind"]].decode(body)
    return found


def again(case: dict[str, Any]) -> bytes:
    """What the program read, as it would write it."""
    return msgspec.msgpack.encode(read(case))


@pytest.mark.parametrize("case", [*MADE["letters"], *MADE["entries"]], ids=lambda case: case["kind"])
def test_a_body_is_an_array_of_exactly_its_elements(case: dict[str, Any]) -> None:
    body = bytes.fromhex(case["body"])
    assert plain(msgspec.msgpack.decode(body)) == case["fields"]
    assert again(case) == body


def test_a_receipt_counts_letters_as_received_or_read() -> None:
    received, seen = (read(case) for case in MADE["letters"] if case["kind"] == "receipt")
    assert isinstance(received, Receipt)
    assert isinstance(seen, Receipt)
    assert (received.event, len(received.letters)) == (1, 2)
    assert (seen.event, seen.letters) == (2, received.letters[:1])


@pytest.mark.parametrize("case", MADE["short"], ids=lambda case: case["kind"])
def test_in_letters_elements_at_the_end_may_be_missing(case: dict[str, Any]) -> None:
    assert plain(msgspec.msgpack.decode(again(case)))[: len(case["fields"])] == case["fields"]


@pytest.mark.parametrize("case", MADE["refused"], ids=lambda case: str(case["fields"])[-24:])
def test_a_body_in_a_channel_has_one_form(case: dict[str, Any]) -> None:
    with contextlib.suppress(ProtocolError):
        assert again(case) != bytes.fromhex(case["body"])
