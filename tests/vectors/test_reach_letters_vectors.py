"""What reach says has the bytes of ``vectors/reach-letters.json``, and is admitted and read as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from outlast.kernel import Change, Event
from outlast.kernel.admit import AdmissionState, Admitted, admit
from outlast.kernel.entry import unpack
from outlast.kernel.identity import verify
from outlast.kernel.kinds import Kinds
from outlast.rooms.reach import ROOM
from outlast.rooms.watch import ROOM as WATCH
from outlast.terms import ROUTE
from tests.architecture.tree import ROOT
from tests.vectors.test_watch_vectors import NoRows
from vectors.make_reach_letters import made

VECTORS = json.loads((ROOT / "vectors" / "reach-letters.json").read_text(encoding="utf-8"))
LETTERS = {kind.name: kind for kind in ROOM.letters}


def test_the_same_is_made_again_byte_for_byte() -> None:
    assert made() == VECTORS


def test_what_is_published_is_admitted_and_makes_a_row_of_watch() -> None:
    vector = VECTORS["entry"]
    payload = bytes.fromhex(vector["body"])
    assert ROUTE.encode(ROUTE.decode(payload)) == payload
    packed = bytes.fromhex(vector["packed"])
    entry, _ = unpack(packed)
    state = AdmissionState(Kinds(ROOM.kinds), {entry.header.space}, 0)
    [verdict] = admit([packed], state, lambda signed: [verify(*one) for one in signed])
    assert isinstance(verdict, Admitted)
    [row] = WATCH.fold(Change(1, Event.ADMITTED, entry), NoRows())
    assert row.table == "view_watch_route"


@pytest.mark.parametrize("vector", VECTORS["letters"], ids=lambda vector: vector["kind"])
def test_a_letter_is_read_and_written_byte_for_byte(vector: dict[str, Any]) -> None:
    kind, body = LETTERS[vector["kind"]], bytes.fromhex(vector["body"])
    assert kind.encode(kind.decode(body)) == body
    assert {one["kind"] for one in VECTORS["letters"]} == set(LETTERS)
