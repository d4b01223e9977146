"""Groups in a person's vault: what was said in them, who was seen to belong, who has what the person said.

Texts of groups stand sealed in the node's store and in clear only here. Whose texts and removals count is asked of the
membership when they are shown: it may change with every act that arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from outlast.errors import ProtocolError
from outlast.kernel import Letter, Put, RowChanges, Rows, Said, Value
from outlast.rooms.carry import file_view
from outlast.rooms.carry.entries import HEARD, HEARD_MAX, HIDE, POST, clean, is_blank, read_file, shown_until
from outlast.rooms.carry.words import Index

SAID: Final = file_view.SAID
REMOVAL: Final = "local_carry_removal"
HEARING: Final = "local_carry_heard"
MEMBER: Final = "local_carry_member"
CALLED: Final = "local_carry_called"
TEXTS: Final = Index(SAID, "local_carry_said_search")
"""Where words are looked for in groups."""
UNREAD_MAX: Final = 200
"""Unread texts of a group are counted up to here."""

TEXT: Final = "text"
"""The event of a row that somebody wrote; the others tell of members."""

MIGRATIONS: Final = (
    # event: "text", or what became of whom ("joined", "left", "leads", "follows"; then author is who, device is empty).
    f"CREATE TABLE {SAID} (n INTEGER PRIMARY KEY, id BLOB UNIQUE, space BLOB, event TEXT, device BLOB, author BLOB,"
    " seq BLOB, clock INTEGER, at_ms INTEGER, came_ms INTEGER, read_ms INTEGER, hidden_ms INTEGER, text TEXT,"
    " reply_to BLOB)",
    f"CREATE INDEX {SAID}_order ON {SAID} (space, clock, at_ms, n)",
    f"CREATE INDEX {SAID}_unread ON {SAID} (space) WHERE read_ms IS NULL AND event = '{TEXT}'",
    *TEXTS.migrations,
    TEXTS.rewritten,
    f"CREATE TABLE {REMOVAL} (id BLOB PRIMARY KEY, space BLOB, device BLOB, seq BLOB, said BLOB)",
    f"CREATE INDEX {REMOVAL}_said ON {REMOVAL} (space, said)",
    f"CREATE TABLE {HEARING} (said BLOB, identity BLOB, at_ms INTEGER, PRIMARY KEY (said, identity)) WITHOUT ROWID",
    f"CREATE TABLE {MEMBER} (space BLOB, identity BLOB, role TEXT, PRIMARY KEY (space, identity)) WITHOUT ROWID",
    f"CREATE TABLE {CALLED} (space BLOB PRIMARY KEY, name TEXT)",
)


LIVES: Final = (
    f"ALTER TABLE {SAID} ADD COLUMN until_ms INTEGER",
    f"CREATE INDEX {SAID}_until ON {SAID} (until_ms) WHERE until_ms IS NOT NULL",
)
"""Further migrations: from ``until_ms`` on a text is not shown;"""
CLAIMS: Final = (f"ALTER TABLE {SAID} ADD COLUMN said_ms INTEGER",)
"""``said_ms`` is the writer's claim as it is, by which texts of one clock stand in the same order in every vault."""
_PLACE: Final = "clock, ifnull(said_ms, at_ms), ifnull(id, x''), n"
_NEWEST_FIRST: Final = "clock DESC, ifnull(said_ms, at_ms) DESC, ifnull(id, x'') DESC, n DESC"


@dataclass(frozen=True, slots=True)
class Line:
    """What stands in a group: a text, or that somebody joined, left, or changed their role (``event``)."""

    n: int  # grows in the order of arrival in this vault
    id: bytes | None  # 32 B, of a text's entry
    space: bytes  # 32 B
    event: str
    device: bytes | None  # 32 B
    author: bytes | None  # 32 B, identity: who wrote it, or of whom it tells; None while the device is not known
    seq: int
    clock: int
    at_ms: int  # the writer's claim, and never later than it came
    came_ms: int
    read_ms: int | None
    hidden_ms: int | None  # when it was taken away; then the text is gone
    text: str
    reply_to: bytes | None
    until_ms: int | None  # from then on it is not shown any more; None when it stays

    def is_over(self, now_ms: int) -> bool:
        """Whether it has disappeared."""
        return self.until_ms is not None and self.until_ms <= now_ms


_COLUMNS: Final = (
    "n, id, space, event, device, author, seq, clock, at_ms, came_ms, read_ms, hidden_ms, text, reply_to, until_ms"
)


_OF_S: Final = ", ".join(f"s.{column}" for column in _COLUMNS.split(", "))


def text_row(said: Said, space: bytes, me: bytes, now_ms: int) -> Put | None:
    """The row of a text that came, of oneself (identity ``me``) as read; None when it shows nothing, or no more."""
    try:
        body = POST.decode(said.body)
    except ProtocolError:
        return None
    text = clean(body.text)
    return None if is_blank(text) else _row(said, space, me, now_ms, text, body.reply_to, body.life_ms)


def _row(
    said: Said, space: bytes, me: bytes, now_ms: int, text: str, reply_to: bytes | None, life_ms: int
) -> Put | None:
    at_ms = min(said.at_ms, now_ms)
    until_ms = shown_until(at_ms, life_ms)
    if until_ms is not None and until_ms <= now_ms:
        return None
    row: dict[str, Value] = {
        "n": None,
        "id": said.id,
        "space": space,
        "event": TEXT,
        "device": said.device,
        "author": said.author,
        "seq": _seq(said.seq),
        "clock": said.clock,
        "at_ms": at_ms,
        "said_ms": said.at_ms,
        "came_ms": now_ms,
        "until_ms": until_ms,
        "read_ms": now_ms if said.author == me else None,
        "text": text,
        "reply_to": reply_to,
    }
    return Put(SAID, row)


def file_rows(said: Said, space: bytes, me: bytes, now_ms: int) -> tuple[Put, Put] | None:
    """The rows of a file that came: as a text with its name, and as a file; None when it is malformed, or over."""
    file = read_file(said.body)
    text = _row(said, space, me, now_ms, file.name, None, file.life_ms) if file else None
    if file is None or text is None:
        return None
    return text, file_view.file_row(said.id, space, file, min(said.at_ms, now_ms), outgoing=said.author == me)


def removal_row(said: Said, space: bytes) -> Put | None:
    """The row of a removal that came; None when it is malformed."""
    try:
        body = HIDE.decode(said.body)
    except ProtocolError:
        return None
    row: dict[str, Value] = {"id": said.id, "space": space, "device": said.device, "seq": _seq(said.seq)}
    return Put(REMOVAL, row | {"said": body.post})


def event_row(space: bytes, event: str, identity: bytes, clock: int, now_ms: int) -> Put:
    """The row that tells of a member."""
    row: dict[str, Value] = {"n": None, "space": space, "event": event, "author": identity, "clock": clock, "text": ""}
    return Put(SAID, row | {"at_ms": now_ms, "came_ms": now_ms, "read_ms": now_ms})


def receive_heard(letter: Letter, rows: Rows) -> RowChanges:
    """The rows of a letter that says which of the person's own texts have arrived."""
    try:
        said = HEARD.decode(letter.body).texts
    except ProtocolError:
        return ()
    return [
        Put(HEARING, {"said": id, "identity": letter.sender, "at_ms": letter.received_ms})
        for id in said[:HEARD_MAX]
        if rows.query(f"SELECT 1 FROM {SAID} WHERE id = ?", (id,))
    ]


# ---- questions to a vault ----


def lines(vault: Rows, space: bytes, *, before: int | None = None, limit: int = -1) -> list[Line]:
    """The newest lines of a group, oldest first; only those before the one with number ``before``."""
    older = ""
    args: list[Value] = [space]
    if before is not None:
        older, args = f" AND ({_PLACE}) < (SELECT {_PLACE} FROM {SAID} WHERE n = ?)", [space, before]
    rows = vault.query(
        f"SELECT {_COLUMNS} FROM {SAID} WHERE space = ?{older} ORDER BY {_NEWEST_FIRST} LIMIT ?",
        (*args, limit),
    )
    return [_line(row) for row in reversed(rows)]


def find(vault: Rows, id: bytes) -> Line | None:
    """The text of that id."""
    rows = vault.query(f"SELECT {_COLUMNS} FROM {SAID} WHERE id = ?", (id,))
    return _line(rows[0]) if rows else None


def unread(vault: Rows, space: bytes, devices: Collection[bytes] | None = None) -> list[Line]:
    """The texts of a group that wait to be read, at most ``UNREAD_MAX``; only by these devices (32 B) if given."""
    by = "" if devices is None else f" AND device IN ({', '.join('?' * len(devices))})"
    rows = vault.query(
        f"SELECT {_COLUMNS} FROM {SAID} WHERE space = ? AND read_ms IS NULL AND event = '{TEXT}'"
        f" AND hidden_ms IS NULL{by} ORDER BY n LIMIT ?",
        (space, *(devices or ()), UNREAD_MAX),
    )
    return [_line(row) for row in rows]


def search(vault: Rows, words: Sequence[str], is_shown: Callable[[Line], bool]) -> list[Line]:
    """The texts of groups that hold all of these words and are shown, the newest first."""

    def read(row: Sequence[Any]) -> Line | None:
        line = _line(row[1:])
        return line if is_shown(line) else None

    return TEXTS.find(vault, f"text, {_COLUMNS}", read, words)


def over(vault: Rows, now_ms: int) -> list[bytes]:
    """The ids of the texts that are shown no more at that time."""
    return [bytes(row[0]) for row in vault.query(f"SELECT id FROM {SAID} WHERE until_ms <= ?", (now_ms,))]


def known(vault: Rows, space: bytes) -> set[bytes]:
    """The ids of all texts and removals of a group that are here."""
    rows = vault.query(
        f"SELECT id FROM {SAID} WHERE space = ? AND id IS NOT NULL UNION SELECT id FROM {REMOVAL} WHERE space = ?",
        (space, space),
    )
    return {bytes(row[0]) for row in rows}


def due(vault: Rows, space: bytes) -> list[tuple[Line, bytes, bytes, int]]:
    """Texts that are here and that a removal names: with its id, device (32 B each) and seq."""
    rows = vault.query(
        f"SELECT r.id, r.device, r.seq, {_OF_S} FROM {REMOVAL} r"
        f" JOIN {SAID} s ON s.id = r.said AND s.space = r.space WHERE r.space = ? AND s.hidden_ms IS NULL",
        (space,),
    )
    return [(_line(row[3:]), bytes(row[0]), bytes(row[1]), int.from_bytes(row[2], "big")) for row in rows]


def members(vault: Rows, space: bytes) -> dict[bytes, str]:
    """The members of a group, by identity, with their roles, as they were seen last; empty before the first look."""
    rows = vault.query(f"SELECT identity, role FROM {MEMBER} WHERE space = ?", (space,))
    return {bytes(identity): role for identity, role in rows}


def newest_clock(vault: Rows, space: bytes) -> int:
    """The Lamport time of the last line of a group."""
    return int(vault.query(f"SELECT ifnull(max(clock), 0) FROM {SAID} WHERE space = ?", (space,))[0][0])


def heard(vault: Rows, space: bytes) -> list[bytes]:
    """The texts of a group that somebody is known to have."""
    rows = vault.query(
        f"SELECT DISTINCT h.said FROM {HEARING} h JOIN {SAID} s ON s.id = h.said WHERE s.space = ?", (space,)
    )
    return [bytes(row[0]) for row in rows]


def hearing(vault: Rows, id: bytes) -> dict[bytes, int]:
    """Who is known to have a text, by identity, and since when this is known (ms)."""
    return {bytes(i): at for i, at in vault.query(f"SELECT identity, at_ms FROM {HEARING} WHERE said = ?", (id,))}


def called(vault: Rows, space: bytes) -> str | None:
    """The name that the person has given a group for themself."""
    rows = vault.query(f"SELECT name FROM {CALLED} WHERE space = ?", (space,))
    return rows[0][0] if rows else None


def spaces(vault: Rows) -> set[bytes]:
    """The groups of which anything is here."""
    rows = vault.query(f"SELECT space FROM {MEMBER} UNION SELECT space FROM {SAID} UNION SELECT space FROM {CALLED}")
    return {bytes(row[0]) for row in rows}


def _line(row: Sequence[Any]) -> Line:
    n, id, space, event, device, author, seq, *rest = row
    return Line(n, id, space, event, device, author, int.from_bytes(seq or b"", "big"), *rest)


def _seq(seq: int) -> bytes:
    return seq.to_bytes(8, "big")
