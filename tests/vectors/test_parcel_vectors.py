"""Files to a person stay what they are: parcel.json, read a second time from the words of docs/spec/parcel.md."""

from __future__ import annotations

import json
from hashlib import sha256
from math import floor, log2
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from outlast.kernel.chunks import padded
from outlast.kernel.entry import decode_header, entry_id
from outlast.kernel.parcel import PARCEL_SPACE, is_wellformed_parcel
from outlast.rooms.carry.entries import read_file

FILE = Path(__file__).parents[2] / "vectors" / "parcel.json"
MADE: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


def content(size: int) -> bytes:
    return b"".join(sha256(number.to_bytes(4, "big")).digest() for number in range(-(-size // 32)))[:size]


def is_padded(count: int) -> bool:
    bits = floor(log2(count))
    free = bits - (floor(log2(bits)) + 1) if bits else 0
    return count % (1 << max(0, free)) == 0


def test_the_space_is_the_id_of_its_genesis() -> None:
    assert entry_id(bytes.fromhex(MADE["genesis"])).hex() == MADE["space"] == PARCEL_SPACE.hex()


def test_counts_are_padded_as_the_page_says() -> None:
    for count in range(1, 2049):
        assert padded(count) == next(more for more in range(count, 4096) if is_padded(more))
        assert padded(count) <= max(count * 1.12, count + 0.99)
    for size, counts in MADE["counts"].items():
        assert sum(counts) * 65_520 >= int(size)
        assert all(count == 2048 for count in counts[:-1])


@pytest.mark.parametrize("case", MADE["files"], ids=lambda case: f"{case['size']} bytes")
def test_a_file_is_sealed_as_its_page_says(case: dict[str, Any]) -> None:
    key = HKDF(SHA256(), 32, None, b"outlast/parcel/1").derive(bytes.fromhex(case["key"]))
    plain, number = content(case["size"]), 0
    ids = []
    for count, header_hex in zip(case["counts"], case["headers"], strict=True):
        chunks = []
        for _ in range(count):
            piece = plain[number * 65_520 : (number + 1) * 65_520].ljust(65_520, b"\0")
            chunks.append(ChaCha20Poly1305(key).encrypt(number.to_bytes(12, "big"), piece, None))
            number += 1
        payload = chunks[0] if count == 1 else b"".join(sha256(chunk).digest() for chunk in chunks)
        header = decode_header(bytes.fromhex(header_hex))
        assert is_wellformed_parcel(header)
        assert (header.payload_hash, header.payload_size) == (sha256(payload).digest(), count * 65_536)
        ids.append(entry_id(bytes.fromhex(header_hex)))
    letter = bytes.fromhex(case["letter"])
    name, type_, size, key, named, preview, life = msgspec.msgpack.decode(letter)
    assert (name, size, key.hex(), named, preview, life) == ("файл.bin", case["size"], case["key"], ids, b"", 0)
    found = read_file(letter)
    assert found == read_file(msgspec.msgpack.encode([name, type_, size, key, named, preview]))
    assert found is not None
    assert (found.name, found.type, list(found.parcels)) == (name, type_, ids)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "parcels"},
        {"seq": 1},
        {"clock": 1},
        {"ts_ms": 1_795_302_000_001},
        {"expires_day": 0},
        {"priority": 6},
        {"payload_size": 65_537},
        {"payload_size": 9 * 65_536},
        {"payload_size": 0},
        {"tags": (b"tag",)},
        {"stamp_nonce": 1},
    ],
    ids=str,
)
def test_a_header_that_stands_out_is_no_parcel(change: dict[str, Any]) -> None:
    header = decode_header(bytes.fromhex(MADE["files"][3]["headers"][0]))
    assert is_wellformed_parcel(header)
    assert not is_wellformed_parcel(msgspec.structs.replace(header, **change))


def test_a_letter_whose_parts_do_not_fit_its_size_names_no_file() -> None:
    name, type_, size, key, named, preview, _ = msgspec.msgpack.decode(bytes.fromhex(MADE["files"][0]["letter"]))
    for wrong in (
        [name, type_, 1 << 28, key, named, preview],
        [name, type_, -1, key, named, preview],
        [name, type_, size, key[:31], named, preview],
        [name, type_, size, key, [*named, bytes(32)], preview],
        [name, type_, size, key, [named[0][:31]], preview],
        [name, type_, size, key, named, bytes(8193)],
        [name, type_, size, key],
    ):
        assert read_file(msgspec.msgpack.encode(wrong)) is None
    odd = read_file(msgspec.msgpack.encode(["../../.bash\u202erc\n", "text/html; x", size, key, named, preview]))
    assert odd is not None
    assert (odd.name, odd.type) == ("bashrc", "")
