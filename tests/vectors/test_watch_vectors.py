"""What watch says has the bytes of ``vectors/watch.json``, and is admitted and read as they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from outlast.kernel import Change, Event, Letter
from outlast.kernel.admit import AdmissionState, Admitted, admit
from outlast.kernel.entry import DAY_MS, pack, unpack
from outlast.kernel.identity import SigningKey, verify
from outlast.kernel.kinds import Kinds
from outlast.kernel.log import loose_entry
from outlast.rooms.watch import ROOM
from tests.architecture.tree import ROOT

VECTORS = json.loads((ROOT / "vectors" / "watch.json").read_text(encoding="utf-8"))
KINDS = {kind.name: kind for kind in ROOM.kinds}


class NoRows:
    """Empty tables."""

    def query(self, _sql: str, _args: Any = ()) -> list[Any]:
        """Nothing."""
        return []


@pytest.mark.parametrize("vector", VECTORS["entries"], ids=lambda vector: vector["kind"])
def test_an_entry_is_made_admitted_and_read_byte_for_byte(vector: dict[str, Any]) -> None:
    kind, payload = KINDS[vector["kind"]], bytes.fromhex(vector["body"])
    assert kind.encode(kind.decode(payload)) == payload
    made = loose_entry(
        SigningKey.from_seed(bytes.fromhex(VECTORS["seed"])),
        space=bytes.fromhex(VECTORS["space"]),
        kind=kind.name,
        payload=payload,
        ts_ms=VECTORS["ts_ms"],
        life_ms=vector["life_days"] * DAY_MS,
        priority=kind.priority,
    )
    assert pack(made).hex() == vector["packed"]
    entry, _ = unpack(bytes.fromhex(vector["packed"]))
    assert (entry.header.seq, entry.header.prev, entry.header.clock) == (0, None, 0)
    state = AdmissionState(Kinds(ROOM.kinds), {entry.header.space}, 0)
    [verdict] = admit([bytes.fromhex(vector["packed"])], state, lambda signed: [verify(*one) for one in signed])
    assert isinstance(verdict, Admitted)
    assert ROOM.fold(Change(1, Event.ADMITTED, entry), NoRows()), "it makes a row"


def test_the_letter_vouches_for_the_key() -> None:
    letter = VECTORS["letter"]
    key = SigningKey.from_seed(bytes.fromhex(VECTORS["seed"])).public
    came = Letter(bytes(16), letter["kind"], bytes.fromhex(letter["body"]), 0, b"p" * 32, b"d" * 32, VECTORS["ts_ms"])
    [row] = ROOM.receive(came, NoRows())
    assert row.row["key"] == key  # type: ignore[union-attr]
    assert msgspec.msgpack.decode(came.body)[0] == key
