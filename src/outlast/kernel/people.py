"""People: how a person comes into a vault, new or from a backup, and from a vault into a backup file."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from outlast.kernel import backup as backups
from outlast.kernel import keyslot
from outlast.kernel.database import Transaction
from outlast.kernel.entry import day_of
from outlast.kernel.home import local_cost
from outlast.kernel.identity import SealingKey, SigningKey, certify, check_name, identity_key, read_certificate
from outlast.kernel.revocation import read_revocation
from outlast.kernel.vault import Vault

if TYPE_CHECKING:
    from outlast.kernel.person import Person


def new_prekey(tx: Transaction, today: int) -> None:
    """Make a prekey for today and mark the earlier ones superseded."""
    key = SealingKey.from_secret(os.urandom(32))
    tx.execute("UPDATE prekey SET superseded_day = ? WHERE superseded_day IS NULL", (today,))
    tx.execute(
        "INSERT INTO prekey(public, secret, made_day, superseded_day) VALUES (?, ?, ?, NULL)",
        (key.public, key.secret, today),
    )


def new_person(vault: Vault, name: str, entropy: bytes, today: int) -> None:
    """Write a new person's keys into an empty vault: identity from ``entropy``, a new device, its first prekey."""
    identity, device, seal = (
        identity_key(entropy),
        SigningKey.from_seed(os.urandom(32)),
        SealingKey.from_secret(os.urandom(32)),
    )
    name = check_name(name)
    meta = {
        "entropy": entropy,
        "name": name.encode(),
        "device": device.seed,
        "seal": seal.secret,
        "certificate": certify(identity, device, seal.public, today, name),
    }

    def write(tx: Transaction) -> None:
        tx.executemany("INSERT INTO meta(name, value) VALUES (?, ?)", list(meta.items()))
        tx.execute("INSERT INTO invite(secret, made_day, kind) VALUES (?, ?, 'intro')", (os.urandom(16), today))
        new_prekey(tx, today)

    vault.write(write)


def restore_person(vault: Vault, body: backups.BackupBody) -> None:
    """Write a backup's contacts into a new person's vault; room rows were restored when the vault was opened."""

    def write(tx: Transaction) -> None:
        for certificate in body.devices:
            tx.execute(
                "INSERT OR IGNORE INTO own_device(device, certificate, seal, ended_day) VALUES (?, ?, NULL, ?)",
                (read_certificate(certificate).device, certificate, day_of(body.made_ms)),
            )
        for ended in body.revoked:
            one = read_revocation(ended.signed)
            tx.execute(
                "INSERT OR IGNORE INTO revoked(device, identity, signed, at_ms) VALUES (?, ?, ?, ?)",
                (one.device, one.identity, ended.signed, ended.at_ms),
            )
        tx.executemany(
            "INSERT OR IGNORE INTO head(device, space, seq, clock, id) VALUES (?, ?, ?, ?, ?)",
            [(h.device, h.space, h.seq.to_bytes(8, "big"), h.clock.to_bytes(8, "big"), h.id) for h in body.heads],
        )
        for contact in body.contacts:
            tx.execute(
                "INSERT INTO contact(identity, name, verified_ms, blocked, added_ms, intro) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    contact.identity,
                    contact.name,
                    contact.verified_ms,
                    int(contact.blocked),
                    contact.added_ms,
                    contact.intro,
                ),
            )
            for kept in contact.devices:
                device = read_certificate(kept.certificate)
                tx.execute(
                    "INSERT INTO device"
                    "(device, identity, seal, created_day, certificate, accepted, warning, prekey, prekey_day)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        device.device,
                        device.identity,
                        device.seal,
                        device.created_day,
                        kept.certificate,
                        int(kept.accepted),
                        kept.warning or "",
                        # Without their link nothing tells them of the new device, and they would not find the letter.
                        kept.prekey if contact.intro is not None else None,
                        kept.prekey_day if contact.intro is not None else None,
                    ),
                )

    vault.write(write)


async def backup(person: Person, passphrase: str) -> bytes:
    """The backup file under its own passphrase: identity, contacts, the rooms' private rows; no device's keys."""
    devices: dict[bytes, list[backups.BackupDevice]] = {}
    for identity, certificate, accepted, warning, prekey, day in person.query(
        "SELECT identity, certificate, accepted, warning, prekey, prekey_day FROM device ORDER BY created_day"
    ):
        devices.setdefault(bytes(identity), []).append(
            backups.BackupDevice(certificate, bool(accepted), warning, prekey, day)
        )
    contacts = [
        backups.BackupContact(i, name, verified, bool(blocked), added, intro, devices.get(bytes(i), []))
        for i, name, verified, blocked, added, intro in person.query(
            "SELECT identity, name, verified_ms, blocked, added_ms, intro FROM contact ORDER BY added_ms"
        )
    ]
    old = [bytes(row[0]) for row in person.query("SELECT certificate FROM own_device ORDER BY ended_day, rowid")]
    revoked = [
        backups.BackupRevocation(signed, at_ms)
        for signed, at_ms in person.query("SELECT signed, at_ms FROM revoked ORDER BY at_ms")
    ]
    heads = [
        backups.BackupHead(device, space, int.from_bytes(seq, "big"), int.from_bytes(clock, "big"), id)
        for device, space, seq, clock, id in person.query("SELECT device, space, seq, clock, id FROM head")
    ]
    body = backups.BackupBody(
        backups.VERSION,
        person.node.now_ms(),
        person.entropy,
        person.name,
        [*old, person.certificate],
        contacts,
        person.vault.room_rows(),
        revoked,
        heads,
    )
    salt, nonce = os.urandom(keyslot.SALT_BYTES), os.urandom(keyslot.NONCE_BYTES)
    return await asyncio.to_thread(backups.seal_backup, body, passphrase, salt=salt, nonce=nonce, cost=local_cost())
