"""Releases stay what they are: release.json, read a second time from the words of docs/spec/release.md."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mnemonic import Mnemonic

from outlast.edges.spread.install import read_manifest
from outlast.edges.spread.shelf import write_manifest
from outlast.edges.spread.signing import check_renewal, signers, words_of_release
from outlast.errors import OutlastError

FILE = Path(__file__).parents[2] / "vectors" / "release.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
MANIFEST = VECTORS["manifest"].encode()
PINNED = [bytes.fromhex(key) for key in VECTORS["pinned"]]


def good(row: dict[str, str]) -> bool:
    """Whether a signature is its key's, by another library than the program's."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(row["key"]))
    try:
        key.verify(bytes.fromhex(row["signature"]), b"outlast/release/1" + MANIFEST)
    except InvalidSignature:
        return False
    return True


def test_the_manifest_is_written_as_it_was() -> None:
    read = read_manifest(MANIFEST)
    assert write_manifest(read.version, read.files) == MANIFEST


def test_the_words_are_the_first_66_bits_of_two_hashes() -> None:
    inner = sha256(b"outlast/release/1" + MANIFEST).digest()
    bits = "".join(f"{byte:08b}" for byte in sha256(b"outlast/words/1" + inner).digest())
    known = Mnemonic("english").wordlist
    words = [known[int(bits[at : at + 11], 2)] for at in range(0, 66, 11)]
    assert " ".join(words) == VECTORS["words"] == words_of_release(MANIFEST)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"{len(case['signed_by'])} keys")
def test_signatures_count_as_its_page_says(case: dict[str, Any]) -> None:
    rows = json.loads(case["signatures"])["signatures"] if case["signatures"] else []
    assert sorted(row["key"] for row in rows if good(row) and row["key"] in VECTORS["pinned"]) == case["signed_by"]
    signatures = case["signatures"].encode()
    assert sorted(key.hex() for key in signers(MANIFEST, signatures, PINNED)) == case["signed_by"]
    assert case["taken"] == (len(case["signed_by"]) >= 2) == is_taken(signatures, "0.0.1")


@pytest.mark.parametrize(("installed", "taken"), VECTORS["newer_than"].items())
def test_only_newer_versions_are_taken(installed: str, taken: bool) -> None:
    assert is_taken(VECTORS["cases"][-1]["signatures"].encode(), installed) == taken


def is_taken(signatures: bytes, installed: str) -> bool:
    """Whether the program takes the release where that version is installed."""
    try:
        return check_renewal(MANIFEST, signatures, PINNED, installed).version == "1.2.3"
    except OutlastError:
        return False
