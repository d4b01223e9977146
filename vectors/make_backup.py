"""Writes backup.json: python vectors/make_backup.py

Key slots and backup files, which must open for as long as somebody keeps one. A change of the file is a change of their
format, and needs a new version there.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import msgspec

from outlast.kernel.backup import (
    BackupBody,
    BackupContact,
    BackupDevice,
    BackupHead,
    BackupRevocation,
    RoomRows,
    TableRows,
    seal_backup,
)
from outlast.kernel.keyslot import Cost, seal_slot

HERE = Path(__file__).parent
MADE_MS = 1_795_305_912_345
COST = Cost(3, 64 * 1024)


def secret(text: str) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + text.encode()).digest()


BODY = BackupBody(
    version=1,
    made_ms=MADE_MS,
    entropy=secret("entropy"),
    name="Алена",
    devices=[secret("own certificate") * 8],
    contacts=[
        BackupContact(
            secret("friend"),
            "Ян",
            MADE_MS - 1,
            False,
            MADE_MS - 2,
            secret("intro")[:16],
            [
                BackupDevice(secret("old") * 8, True, None, secret("prekey"), 20_000),
                BackupDevice(secret("new") * 8, False, "unknown_device", None, None),
            ],
        ),
        BackupContact(secret("stranger"), "Jan", None, True, MADE_MS - 3, None, []),
    ],
    rooms={
        "carry": RoomRows(
            2,
            {
                "local_carry_note": TableRows(
                    ["id", "text", "extra"], [[-(2**63), "да", None], [2**63 - 1, "", b"\0\xff"], [0, "x", 0.5]]
                ),
                "local_carry_empty": TableRows(["id"], []),
            },
        )
    },
    revoked=[BackupRevocation(secret("revocation") * 5, MADE_MS - 4)],
    heads=[BackupHead(secret("own device"), secret("space"), 2**64 - 1, 7, secret("entry"))],
)


def vectors() -> dict[str, object]:
    """Everything in backup.json."""
    passphrase = "верныя сло\u0432ы и \u0439"
    slot = seal_slot(
        secret("key"), passphrase, salt=secret("slot salt")[:16], nonce=secret("slot nonce")[:24], cost=COST
    )
    backup = seal_backup(
        BODY, passphrase, salt=secret("backup salt")[:16], nonce=secret("backup nonce")[:24], cost=COST
    )
    return {
        "about": "A key slot and a backup file under one passphrase. Bytes are in hex.",
        "passphrase": passphrase,
        "same_passphrase_decomposed": passphrase.replace("\u0439", "\u0438\u0306"),
        "cost": asdict(COST),
        "slot": {"key": secret("key").hex(), "sealed": slot.hex()},
        "backup": {"body": msgspec.msgpack.encode(BODY).hex(), "sealed": backup.hex()},
    }


if __name__ == "__main__":
    text = json.dumps(vectors(), indent=1, ensure_ascii=False)
    (HERE / "backup.json").write_text(text + "\n", encoding="utf-8")
