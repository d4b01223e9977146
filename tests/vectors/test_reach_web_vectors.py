"""The transport ``web`` stays what it is: reach-web.json, read once more from the words of docs/spec/reach-web.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from outlast.rooms.reach.proto.web import DAY_S, Accepted, Doors, key_asked, path_asked, path_of, read_answer

FILE = Path(__file__).parents[2] / "vectors" / "reach-web.json"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
FOLDERS = ["assets", "static", "media", "files", "images", "uploads", "cache", "data"]


@pytest.mark.parametrize("case", VECTORS["paths"], ids=lambda case: case["path"][:16])
def test_a_path_is_made_as_the_page_says(case: dict[str, Any]) -> None:
    secret = bytes.fromhex(case["secret"])
    mac = hmac.digest(secret, b"outlast reach web path 1" + case["day"].to_bytes(8, "big"), "sha256")
    assert case["path"] == f"/{FOLDERS[mac[20] % 8]}/{mac[:20].hex()}"
    assert path_of(secret, case["day"]) == case["path"].encode()
    assert Doors({"user": secret}, bytes(32)).user_of(case["path"].encode(), case["day"] * DAY_S) == "user"


@pytest.mark.parametrize("case", VECTORS["exchanges"], ids=lambda case: case["host"])
def test_a_request_and_its_answer_are_read_as_they_are_written(case: dict[str, Any]) -> None:
    request, key = case["request"].encode(), bytes.fromhex(case["key"])
    assert path_asked(request) == case["path"].encode()
    assert key_asked(request) == base64.b64encode(key)
    assert f"\r\nHost: {case['host']}\r\n" in case["request"]
    accept = base64.b64encode(
        hashlib.sha1(base64.b64encode(key) + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    ).decode()
    assert f"\r\nSec-WebSocket-Accept: {accept}\r\n" in case["answer"]
    assert read_answer(case["answer"].encode(), key) == Accepted(b"")
