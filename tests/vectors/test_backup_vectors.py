"""Key slots and backup files of today open for ever: backup.json, and the format read a second time from its words."""

from __future__ import annotations

import json
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt

from outlast.kernel.backup import BackupBody, open_backup, seal_backup
from outlast.kernel.keyslot import Cost, open_slot, seal_slot

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "backup.json").read_text(encoding="utf-8")
)
PASSPHRASES = [VECTORS["passphrase"], VECTORS["same_passphrase_decomposed"]]
SLOT = bytes.fromhex(VECTORS["slot"]["sealed"])
BACKUP = bytes.fromhex(VECTORS["backup"]["sealed"])
BODY = bytes.fromhex(VECTORS["backup"]["body"])
COST = Cost(**VECTORS["cost"])


def opened_by_the_words_of_the_format(data: bytes, magic: bytes) -> bytes:
    """What is sealed in a file, by another Argon2 and without the program."""
    assert data[:16] == magic
    assert data[-8:] == sha256(data[:-8]).digest()[:8]
    passes, memory_kib = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert (passes, memory_kib) == (VECTORS["cost"]["passes"], VECTORS["cost"]["memory_kib"])
    salt, nonce = data[24:40], data[40:64]
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=1, memory_cost=memory_kib)
    key = kdf.derive(unicodedata.normalize("NFC", VECTORS["passphrase"]).encode())
    return decrypt(data[64:-8], data[:64], nonce, key)


@pytest.mark.parametrize("passphrase", PASSPHRASES, ids=["composed", "decomposed"])
def test_the_slot_and_the_backup_of_the_vectors_open(passphrase: str) -> None:
    assert open_slot(SLOT, passphrase).hex() == VECTORS["slot"]["key"]
    assert open_backup(BACKUP, passphrase) == msgspec.msgpack.decode(BODY, type=BackupBody)


def test_the_slot_and_the_backup_of_the_vectors_are_made_again() -> None:
    key, body = bytes.fromhex(VECTORS["slot"]["key"]), msgspec.msgpack.decode(BODY, type=BackupBody)
    assert seal_slot(key, PASSPHRASES[1], salt=SLOT[24:40], nonce=SLOT[40:64], cost=COST) == SLOT
    assert seal_backup(body, PASSPHRASES[1], salt=BACKUP[24:40], nonce=BACKUP[40:64], cost=COST) == BACKUP


def test_the_format_is_what_its_words_say() -> None:
    assert opened_by_the_words_of_the_format(SLOT, b"outlast slot 1\n\0").hex() == VECTORS["slot"]["key"]
    padded = opened_by_the_words_of_the_format(BACKUP, b"outlast backup\n\0")
    length = int.from_bytes(padded[:4], "big")
    assert padded[4 : 4 + length] == BODY
    assert set(padded[4 + length :]) == {0}
    assert len(padded) == 4096
