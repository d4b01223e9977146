"""What the operator agreed to, in the home: ``rooms/watch/consent.json``; and the control's word beside it.

Whoever takes the home sees that there is a consent, hence that this computer probed; it is destroyed with the home.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Final

from outlast.errors import UsageError
from outlast.kernel import wipe_secret, write_secret
from outlast.secrecy import make_private
from outlast.ui.languages import marked

RISKS: Final = (
    marked(
        "Probing is not anonymous. Your provider, and whoever watches it, sees that this computer asks for each target"
        " by name, sends TLS handshakes with names that nobody uses by hand, and packets that look like no browser's."
    ),
    marked("In some countries asking for a banned page, or measuring censorship, is punished. Nothing here hides you."),
    marked("The control that you name learns what you probe and from which address. Nothing is published by itself."),
    marked(
        "Risky categories of target lists are off. Probe only what you could also explain to have opened in a browser."
    ),
)
VERSION: Final = 1
"""Grows when the risks do; an older consent then no longer counts."""
TOKEN_BYTES: Final = 24


def has_consented(home: Path) -> bool:
    """Whether the operator of this home has agreed to these risks."""
    try:
        record = json.loads((_folder(home) / "consent.json").read_bytes()[:4096])
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("version") == VERSION


def consent(home: Path, at_ms: int) -> None:
    """Keep that the operator agreed; raises StorageError."""
    _write(home, "consent.json", json.dumps({"version": VERSION, "at_ms": at_ms}))


def withdraw(home: Path) -> None:
    """Forget that they agreed; raises StorageError."""
    wipe_secret(_folder(home) / "consent.json")


def control_token(home: Path) -> str:
    """The word by which those who may ask this node's control are known: made when it is first needed."""
    file = token_file(home)
    try:
        return read_token(file)
    except UsageError:
        if file.exists():
            raise
    token = secrets.token_urlsafe(TOKEN_BYTES)
    _write(home, file.name, token + "\n")
    return token


def token_file(home: Path) -> Path:
    """Where that word stands."""
    return _folder(home) / "control-token"


def read_token(file: Path) -> str:
    """The first line of a file, for a header; raises UsageError."""
    try:
        with file.open("rb") as source:
            token = source.readline(257).strip().decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise UsageError("no token can be read from %(file)s", file=file) from None
    if not token or len(token) > 256 or not token.isprintable() or " " in token:
        raise UsageError("the first line of %(file)s is no token", file=file)
    return token


def _folder(home: Path) -> Path:
    return home / "rooms" / "watch"


def _write(home: Path, name: str, text: str) -> None:
    folder = _folder(home)
    make_private(folder)
    write_secret(folder / name, text.encode())
