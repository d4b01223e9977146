"""Announcements stay what they are: lan.json, read a second time from the words of docs/spec/link.md."""

from __future__ import annotations

import hmac
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from outlast.kernel.identity import SealingKey
from outlast.kernel.links.beacon import pair_keys, read_fields, recognise

FILE = Path(__file__).parents[2] / "vectors" / "lan.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["announcements"]


def fields(case: dict[str, Any]) -> dict[bytes, bytes]:
    return {name.encode(): bytes.fromhex(value) for name, value in case["fields"].items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['neighbours'])} neighbours")
def test_an_announcement_is_made_as_its_page_says(case: dict[str, Any]) -> None:
    said = fields(case)
    packed = b"".join(said.get(f"b{number}".encode(), b"") for number in range(4))
    beacons = [packed[at : at + 8] for at in range(0, len(packed), 8)]
    assert len(packed) % 64 == 0
    assert beacons == sorted(beacons)
    assert len(beacons) == max(8, -(-len(case["neighbours"]) // 8) * 8)
    own = bytes.fromhex(case["public"])
    where = IPv4Address(case["address"]).packed + case["port"].to_bytes(2, "big")
    for neighbour in case["neighbours"]:
        secret = X25519PrivateKey.from_private_bytes(bytes.fromhex(neighbour["secret"]))
        shared = secret.exchange(X25519PublicKey.from_public_bytes(own))
        key = HKDF(SHA256(), 32, None, b"outlast/lan/1").derive(shared)
        assert key.hex() == neighbour["key"]
        assert hmac.digest(key, own + said[b"n"] + where, "sha256")[:8] in beacons


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['neighbours'])} neighbours")
def test_each_neighbour_recognises_the_announcer_and_nobody_else_does(case: dict[str, Any]) -> None:
    said, own = read_fields(fields(case)), bytes.fromhex(case["public"])
    assert said is not None
    assert said.strangers is (case["fields"].get("s") == "31")
    where = IPv4Address(case["address"]), case["port"]
    for neighbour in case["neighbours"]:
        keys = pair_keys(SealingKey.from_secret(bytes.fromhex(neighbour["secret"])), [own])
        assert recognise(said, keys, where) == own
    other = pair_keys(SealingKey.from_secret(bytes(range(32))), [own])
    assert recognise(said, other, where) is None
