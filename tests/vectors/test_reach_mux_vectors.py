"""The mux stays what it is: reach-mux.json, read once more from the words of docs/spec/reach-mux.md."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from outlast.address import Target
from outlast.rooms.reach.proto.mux import MuxError, Welcome, proves, read_hello, read_welcome
from outlast.rooms.reach.proto.session import Accepted, Arrived, Event, Finished, Opened, Reset, Session

FILE = Path(__file__).parents[2] / "vectors" / "reach-mux.json"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))


def proof(secret: bytes, side: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"outlast mux 1 " + side + hashlib.sha256(body).digest(), "sha256")


def data_of(frame: bytes, kind: int) -> bytes:
    stream, found, size = struct.unpack(">IBH", frame[:7])
    assert (stream, found, size) == (0, kind, len(frame) - 7)
    return frame[7:]


@pytest.mark.parametrize("case", VECTORS["greetings"], ids=lambda case: f"status {case['status']}")
def test_greetings_are_made_as_the_page_says(case: dict[str, Any]) -> None:
    secret = bytes.fromhex(case["secret"])
    counts = b"".join(struct.pack(">IQ", *count) for count in case["counts"])
    fields = bytes([1, case["new"]]) + bytes.fromhex(case["session"]) + struct.pack(">I", case["number"])
    fields += bytes.fromhex(case["nonce"]) + struct.pack(
        ">QIB", case["time_s"], case["budget_bytes"], len(counts) // 12
    )
    body = fields + counts + bytes(case["padding_bytes"])
    hello = data_of(bytes.fromhex(case["hello"]), 1)
    assert hello == body + proof(secret, b"client", body)
    read, said = read_hello(hello)
    assert [list(count) for count in read.counts] == case["counts"]
    assert (read.number, read.new, read.budget_bytes) == (case["number"], case["new"], case["budget_bytes"])
    assert proves(hello, secret)
    assert not proves(hello, bytes(32))

    answer = data_of(bytes.fromhex(case["welcome"]), 2)
    assert answer[-32:] == proof(secret, b"server" + hello[-32:], answer[:-32])
    welcome = read_welcome(answer, secret, said)
    assert welcome == Welcome(case["status"], case["welcome_time_s"], tuple(map(tuple, case["welcome_counts"])))
    for wrong in (bytes(32), bytes(range(32))):
        with pytest.raises(MuxError, match="does not know this link's secret"):
            read_welcome(answer, wrong, said)


def test_what_a_session_says_over_two_outers_is_understood_by_a_server() -> None:
    server = Session(client=False)
    events: list[Event] = []
    server.line_up(1, 0.0)
    for step in VECTORS["session"]:
        data = bytes.fromhex(step["bytes"])
        if step["side"] == "client":
            if step["outer"] == 2 and 2 not in server.lines:
                server.line_lost(1, 0.0)
                server.line_up(2, 0.0)
            # Of the second DATA on the first outer the last four bytes are lost.
            kept = data[: len(data) - 4] if step["what"] == "DATA, DATA" else data
            events += server.receive(step["outer"], memoryview(kept), 0.0)
        elif step["what"] == "ACCEPTED":
            server.accept(1, 0.0)
            assert b"".join(server.take(1)) == data
    assert [type(event) for event in events if not isinstance(event, Arrived)] == [Opened, Finished, Reset]
    came = [piece for event in events if isinstance(event, Arrived) for piece in event.pieces]
    assert b"".join(came) == b"first and second"


def test_the_first_bytes_of_a_stream_may_come_with_its_opening_and_count() -> None:
    opened, data = (bytes.fromhex(step["bytes"]) for step in VECTORS["first_bytes"])
    assert opened[7:] == bytes([1, 192, 0, 2, 7, 0, 80]) + b"first"
    assert data[7:] == struct.pack(">Q", 5) + b" and second"
    server = Session(client=False)
    server.line_up(1, 0.0)
    came = [event for step in (opened, data) for event in server.receive(1, memoryview(step), 0.0)]
    early = [event.early for event in came if isinstance(event, Opened)]
    late = [piece for event in came if isinstance(event, Arrived) for piece in event.pieces]
    assert b"".join([*early, *late]) == b"first and second"


def test_what_a_server_says_is_understood_by_a_client() -> None:
    client = Session(client=True)
    client.line_up(1, 0.0)
    first, second, *_ = VECTORS["session"]
    assert client.open(Target("bread.example", 443), b"", 0.0) == 1
    assert b"".join(client.take(1)).hex() == first["bytes"]
    assert client.receive(1, memoryview(bytes.fromhex(second["bytes"])), 0.0) == [Accepted(1)]
