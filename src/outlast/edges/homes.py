"""Making, restoring, testing and destroying a home that no process has open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from outlast.edges.operations import Device, Identity, identity, own_devices
from outlast.errors import NotFoundError, StorageError, UsageError
from outlast.kernel import BACKUP_MAX_BYTES, BackupBody, Home, Node, count_backup, entropy_of, open_backup
from outlast.secrecy import no_core_dumps
from outlast.ui.file import existing_file
from outlast.ui.operation import Call, Nothing


class Restored(Identity, frozen=True):
    """Who is there again, and which devices were theirs: to be revoked when they are in nobody's or the wrong hands."""

    old_devices: list[Device]


def refuse_existing(path: Path) -> None:
    """Raise UsageError when a node is there already, before anybody types a passphrase."""
    if Home(path).exists():
        raise UsageError("%(path)s has a node already: use it, or name another folder by --home", path=path)


def refuse_missing(path: Path) -> None:
    """Raise NotFoundError when there is no node, nor what a wipe left of one: another folder is never wiped."""
    home = Home(path)
    if not home.exists() and not home.store_path.exists():
        raise NotFoundError("there is no node in %(path)s", path=path)


def make(path: Path, name: str, passphrase: str | None, words: str | None) -> dict[str, Any]:
    """Make a node and its person; returns who they are, as ``outlast id --json`` tells it."""
    no_core_dumps()
    entropy = None if words is None else entropy_of(words)
    return asyncio.run(_make(Home(path), name, passphrase, entropy=entropy))


def restore(path: Path, file: Path, passphrase: str, *, unattended: bool) -> dict[str, Any]:
    """Make a node from a backup file, under the backup's passphrase or unattended; returns who is there again."""
    no_core_dumps()
    body = _open(file, passphrase)
    return asyncio.run(_make(Home(path), body.name, None if unattended else passphrase, backup=body))


def test_backup(file: Path, passphrase: str) -> dict[str, Any]:
    """Open a backup file and count what it holds; nothing is restored."""
    counts: dict[str, Any] = msgspec.to_builtins(count_backup(_open(file, passphrase)))
    return counts


def wipe(path: Path) -> dict[str, Any]:
    """Destroy a home, open or locked, without its passphrase; raises StorageError while a process has it open."""
    home = Home(path)
    with home.lock():
        home.wipe()
    return {}


def _open(file: Path, passphrase: str) -> BackupBody:
    with existing_file(file) as source:
        data = source.read(BACKUP_MAX_BYTES + 1)
    if len(data) > BACKUP_MAX_BYTES:
        raise StorageError(
            "%(file)s is too large for a backup file: choose the one that `outlast backup` wrote", file=file
        )
    return open_backup(data, passphrase)


async def _make(
    home: Home, name: str, passphrase: str | None, *, entropy: bytes | None = None, backup: BackupBody | None = None
) -> dict[str, Any]:
    await Node.create(home, name, passphrase=passphrase, entropy=entropy, backup=backup)
    async with await Node.open(home) as node:
        if passphrase is not None:
            await node.unlock(passphrase)
        call = Call(node, Nothing())
        made: dict[str, Any] = msgspec.to_builtins(await identity(call))
        if backup is not None:
            old = [one for one in own_devices(call.person) if one.state == "earlier"]
            made = msgspec.to_builtins(Restored(**made, old_devices=old))
        return made
