"""The wire of closed groups stays what it is: space.json, made again, and computed anew from the specification."""

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
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from outlast.kernel.circular import CIRCULAR
from outlast.kernel.entry import pack, unpack
from outlast.kernel.epoch import open_entry
from outlast.kernel.space import open_genesis

FOLDER = Path(__file__).parents[2] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "space.json").read_text(encoding="utf-8"))
KEY = VECTORS["key"]
SECRETS = {bytes.fromhex(epoch): bytes.fromhex(one) for epoch, one in KEY["secrets"].items()}
SPACE = bytes.fromhex(KEY["space"])


def maker() -> ModuleType:
    """vectors/make_space.py, which writes the file."""
    spec = importlib.util.spec_from_file_location("make_space", FOLDER / "make_space.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def derive(secret: bytes, label: bytes, context: bytes = b"") -> bytes:
    """HKDF-SHA-256 with an empty salt and one block of output (RFC 5869)."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), label + context + b"\x01", "sha256")


def test_the_file_is_what_the_program_writes() -> None:
    assert json.loads(json.dumps(maker().make())) == VECTORS


@pytest.mark.parametrize("found", VECTORS["geneses"], ids=lambda found: found["type"])
def test_a_genesis_opens_by_its_secret(found: dict[str, Any]) -> None:
    packed, secret = bytes.fromhex(found["packed"]), bytes.fromhex(found["secret"])
    genesis, _ = unpack(packed)
    body = open_genesis(genesis, secret)
    assert (genesis.id.hex(), body.name, body.owner.hex()) == (found["space"], found["name"], found["owner"])
    fields = msgspec.msgpack.decode(genesis.payload or b"")
    assert fields[0] == found["type"]
    assert fields[6] == sha256(b"outlast/epoch/1" + secret).digest() == bytes.fromhex(found["commitment"])
    if found["type"] == "sealed":
        key = derive(secret, b"outlast/space/box/1", fields[5])
        plain = crypto_aead_xchacha20poly1305_ietf_decrypt(fields[7], genesis.header.author, bytes(24), key)
        inner = msgspec.msgpack.decode(plain[2 : 2 + int.from_bytes(plain[:2], "big")])
        assert (inner[0], inner[1], inner[2].hex()) == ("members", found["name"], found["owner"])


def test_keys_follow_from_secrets_as_it_is_written() -> None:
    joined = b"".join(epoch + SECRETS[epoch] for epoch in sorted(SECRETS))
    key = derive(joined, b"outlast/epoch/key/1", SPACE)
    assert key.hex() == KEY["key"]
    assert derive(key, b"outlast/epoch/access/1").hex() == KEY["access"]
    assert derive(key, b"outlast/epoch/seal/1").hex() == KEY["seal"]


def test_a_sealed_entry_opens_as_it_is_written() -> None:
    found = VECTORS["sealed_entry"]
    entry, _ = unpack(bytes.fromhex(found["packed"]))
    payload = entry.payload or b""
    count = payload[0]
    epochs = [payload[1 + 32 * n : 33 + 32 * n] for n in range(count)]
    assert epochs == sorted(SECRETS)
    start = 1 + 32 * count
    fields = msgspec.msgpack.decode(entry.header_bytes)
    fields[10] = bytes(32)
    bound = msgspec.msgpack.encode(fields)
    plain = crypto_aead_xchacha20poly1305_ietf_decrypt(
        payload[start + 24 :], bound, payload[start : start + 24], bytes.fromhex(KEY["seal"])
    )
    kind, ts_ms, body = msgspec.msgpack.decode(plain[4 : 4 + int.from_bytes(plain[:4], "big")])
    assert (kind, ts_ms, body.hex()) == (found["kind"], found["ts_ms"], found["body"])
    assert open_entry(entry, SECRETS).body.hex() == found["body"]


@pytest.mark.parametrize("role", ["i", "r"])
def test_a_closed_space_is_named_by_its_access_key(role: str) -> None:
    named = b"outlast/space/1" + role.encode() + SPACE + bytes.fromhex(KEY["access"])
    mac = hmac.digest(bytes.fromhex(VECTORS["hello"]["session_key"]), named, "sha256")[:16]
    assert mac.hex() == VECTORS["hello"][role]


def test_a_circular_holds_what_it_brings() -> None:
    said = CIRCULAR.decode(bytes.fromhex(VECTORS["circular"]))
    (sealed,) = said.entries
    assert sealed.hex() == VECTORS["sealed_entry"]["packed"]
    assert said.genesis.hex() == VECTORS["geneses"][1]["packed"]
    assert dict(said.secrets) == SECRETS
    assert pack(unpack(said.genesis)[0]) == said.genesis


def test_the_histories_say_who_belongs() -> None:
    """Worked out by hand from the rules of docs/spec/space.md."""
    expected = {
        "three are added": ("olga anna boris clara", ["genesis"], False),
        "a removal": ("olga anna boris", ["4"], False),
        "a plain member removes nobody": ("olga anna boris clara", ["genesis"], False),
        "a removal beats what the removed does at the same time": ("olga anna clara", ["4"], False),
        "two remove each other, and one of them another": ("olga clara", ["4", "5"], True),
        "two removals at the same time, and a renewal behind both": ("olga anna", ["6"], False),
        "removed and added again": ("olga anna boris clara", ["4"], False),
        "an ended device": ("olga anna boris clara", ["genesis"], True),
    }
    found = {one["title"]: (set(one["members"]), one["epochs"], one["renewal_due"]) for one in VECTORS["histories"]}
    assert found == {title: (set(names.split()), *rest) for title, (names, *rest) in expected.items()}
