"""Keys of servers, kept in the home, so that a bridge's link stays the same when it is started again."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from outlast.errors import StorageError
from outlast.secrecy import make_private


def folder_of(home: Path) -> Path:
    """The folder for reach's keys, made when it is not there, for its owner alone; raises StorageError."""
    folder = home / "rooms" / "reach"
    make_private(folder)
    return folder


def kept_secret(home: Path, name: str, size: int) -> bytes:
    """The secret of that name, ``size`` random bytes, made when it is not there; raises StorageError."""
    file = folder_of(home) / f"{name}.key"
    try:
        try:
            fresh = secrets.token_bytes(size)
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as target:
                target.write(fresh)
        except FileExistsError:
            fresh = file.read_bytes()
    except OSError as error:
        raise StorageError("%(file)s cannot be used: %(error)s", file=file, error=error) from None
    if len(fresh) != size:
        raise StorageError("%(file)s is damaged: delete it, and the bridge gets another link", file=file)
    return fresh
