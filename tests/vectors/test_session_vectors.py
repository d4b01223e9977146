"""The session's wire stays what it is: session.json, read by its rules and replayed."""

from __future__ import annotations

import hmac
import importlib.util
import json
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from outlast.kernel.chunks import Manifest, Splitter
from outlast.kernel.entry import unpack, unpack_all
from outlast.kernel.links.channel import session_key
from outlast.kernel.steps import MessageArrived, Started
from outlast.kernel.wire import Type, decode, space_mac

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "session.json").read_text(encoding="utf-8"))
KEY = bytes.fromhex(VECTORS["key"])
LOG = [(role, bytes.fromhex(data)) for role, data in VECTORS["session"]["log"]]


def maker() -> ModuleType:
    """vectors/make_session.py, which writes the file."""
    spec = importlib.util.spec_from_file_location("make_session", FOLDER / "make_session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", VECTORS["spaces"])
def test_a_space_is_named_as_written(case: dict[str, Any]) -> None:
    space, initiator = bytes.fromhex(case["space"]), case["initiator"]
    expected = bytes.fromhex(case["mac"])
    assert space_mac(KEY, initiator=initiator, space=space) == expected
    text = b"outlast/space/1" + (b"i" if initiator else b"r") + space
    assert hmac.digest(KEY, text, "sha256")[:16] == expected


@pytest.mark.parametrize("case", VECTORS["session_keys"])
def test_the_key_of_a_session_is_derived_from_the_handshake(case: dict[str, Any]) -> None:
    digest, expected = bytes.fromhex(case["transcript_hash"]), bytes.fromhex(case["key"])
    assert session_key(digest) == expected
    extracted = hmac.digest(bytes(32), digest, "sha256")
    assert hmac.digest(extracted, b"outlast/session/1" + b"\x01", "sha256") == expected


def test_a_greeting_without_a_priority_asks_for_all() -> None:
    hellos = [bytes.fromhex(case["bytes"]) for case in VECTORS["messages"] if case["name"] == "HELLO"]
    assert [decode(data)[1].priority_max for data in hellos] == [7, 1]


@pytest.mark.parametrize("case", VECTORS["messages"])
def test_a_message_is_its_type_and_an_array(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    assert Type(data[0]).name == case["name"]
    assert maker().plain(msgspec.msgpack.decode(data[1:])) == case["fields"]


def test_what_is_urgent_is_confirmed_as_written() -> None:
    (told,) = [data for role, data in LOG if role == "r" and data[0] == Type.CONFIRM]
    packed = [unpack(bytes.fromhex(data))[0] for data in VECTORS["session"]["entries"]]
    (urgent,) = [entry for entry in packed if entry.header.priority == 0]
    text = b"outlast/urgent/1" + urgent.header.space + urgent.id
    assert msgspec.msgpack.decode(told[1:]) == [[[0, hmac.digest(KEY, text, "sha256")[:16]]]]


def test_content_is_cut_as_written() -> None:
    said = VECTORS["content"]
    size = said["size_bytes"]
    blocks = [sha256(f"outlast/vectors/1/content {number}".encode()).digest() for number in range(size // 32 + 1)]
    content = b"".join(blocks)[:size]
    assert sha256(content).hexdigest() == said["sha256"]
    manifest = b"".join(sha256(content[at : at + 65_536]).digest() for at in range(0, size, 65_536))
    assert manifest.hex() == said["manifest"]
    assert sha256(manifest).hexdigest() == said["payload_hash"]
    splitter = Splitter(size)
    chunks = splitter.feed(content)
    last, found = splitter.finish()
    assert found == Manifest(size, manifest)
    assert b"".join(chunk.data for chunk in [*chunks, last]) == content


def test_there_is_a_vector_for_every_type() -> None:
    assert {Type[case["name"]] for case in VECTORS["messages"]} | {Type.ENTRIES} == set(Type)
    assert {Type(data[0]) for _, data in LOG} >= {
        Type.HELLO,
        Type.SUMMARY,
        Type.RECON,
        Type.PULL,
        Type.END,
        Type.WANT,
        Type.ENTRIES,
        Type.WANT_PAYLOAD,
        Type.PAYLOAD,
        Type.KEPT,
        Type.DONE,
        Type.CONFIRM,
    }


def test_the_responder_answers_the_recorded_initiator_as_recorded_and_ends_with_all_entries() -> None:
    side = maker().Side("r")
    said = side.hear(Started())
    for sender, data in LOG:
        if sender == "i":
            said += side.hear(MessageArrived(data))
    assert said == [data for sender, data in LOG if sender == "r"]
    entries = {unpack(bytes.fromhex(data))[0].id for data in VECTORS["session"]["entries"]}
    assert side.entries.keys() == entries
    assert all(entry.payload is not None for entry in side.entries.values())


def test_entries_cross_once_and_only_where_they_are_missing() -> None:
    packed = [unpack(bytes.fromhex(data))[0] for data in VECTORS["session"]["entries"]]
    stores = {role: {packed[i].id for i in indexes} for role, indexes in VECTORS["session"]["stores"].items()}
    sent = {
        role: [e.id for r, data in LOG if r == role and data[0] == Type.ENTRIES for e in unpack_all(data[1:])]
        for role in "ir"
    }
    assert sorted(sent["i"]) == sorted(stores["i"] - stores["r"])
    assert sorted(sent["r"]) == sorted(stores["r"] - stores["i"])
