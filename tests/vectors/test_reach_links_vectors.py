"""Texts of bridges name what ``vectors/reach-links.json`` says, and its ids are what the page says they are."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from outlast.errors import UsageError
from outlast.rooms.reach.proto.bridge import Bridge
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, write_bridge
from tests.architecture.tree import ROOT

VECTORS = json.loads((ROOT / "vectors" / "reach-links.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["links"], ids=lambda vector: vector["text"][:30])
def test_a_text_names_its_bridge(vector: dict[str, Any]) -> None:
    bridge = msgspec.convert(vector["bridge"], type=Bridge)
    for text in (vector["text"], vector["canonical"]):
        assert read_bridge(text) == bridge
    assert write_bridge(bridge) == vector["canonical"]
    assert bridge_id(bridge) == vector["id"]


@pytest.mark.parametrize("vector", VECTORS["links"], ids=lambda vector: vector["text"][:30])
def test_an_id_is_the_hash_of_the_canonical_text_without_its_label(vector: dict[str, Any]) -> None:
    text = vector["canonical"].partition("#")[0]
    if text.startswith("outlast://bridge/"):
        packed = text.removeprefix("outlast://bridge/")
        *fields, _label = msgspec.msgpack.decode(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        packed = base64.urlsafe_b64encode(msgspec.msgpack.encode([*fields, ""])).decode().rstrip("=")
        text = "outlast://bridge/" + packed
    assert sha256(text.encode()).hexdigest()[:16] == vector["id"]


@pytest.mark.parametrize("text", VECTORS["refused"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_bridge(text)
