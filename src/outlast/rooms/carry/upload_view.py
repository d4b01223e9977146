"""Files on their way from a browser, in a person's vault: for whom they are, and what opens what waits on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from outlast.errors import Sentence
from outlast.kernel import Rows

UPLOAD: Final = "local_carry_upload"
COMING: Final = 0
"""States: its bytes come from the browser;"""
WHOLE: Final = 1
"""all of it is here, and it is made ready to leave;"""
ASKING: Final = 2
"""what it tells cannot be taken out, so its owner is asked;"""
AS_IT_IS: Final = 3
"""it is to leave as it came, as its owner said;"""
FAILED: Final = 4
"""it cannot leave, for a reason."""

MIGRATIONS: Final = (
    f"CREATE TABLE {UPLOAD} (id BLOB PRIMARY KEY, target BLOB, name TEXT, size_bytes INTEGER, mark TEXT, key BLOB,"
    " at_ms INTEGER, state INTEGER, reason TEXT) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way."""

    id: bytes  # 16 B
    target: bytes  # 32 B, identity, group or channel
    name: str
    size_bytes: int
    mark: str  # by which the browser knows the same file again
    key: bytes  # 32 B
    at_ms: int
    state: int
    reason: str  # a Sentence as JSON, where it FAILED

    @property
    def why(self) -> Sentence:
        """Why it cannot leave."""
        return msgspec.json.decode(self.reason, type=Sentence)


_COLUMNS: Final = "id, target, name, size_bytes, mark, key, at_ms, state, reason"


def uploads(vault: Rows) -> list[Upload]:
    """All files on their way, oldest first."""
    return [_upload(row) for row in vault.query(f"SELECT {_COLUMNS} FROM {UPLOAD} ORDER BY at_ms, id")]


def find(vault: Rows, id: bytes) -> Upload | None:
    """The one of that id."""
    rows = vault.query(f"SELECT {_COLUMNS} FROM {UPLOAD} WHERE id = ?", (id,))
    return _upload(rows[0]) if rows else None


def _upload(row: Sequence[Any]) -> Upload:
    return Upload(*row)
