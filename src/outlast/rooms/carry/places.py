"""What a person sets for each place where they talk: a person, a group or a channel, by its identity or space (32 B).

Whether it is muted (it counts nowhere and nothing tells of it), how long what they write there is shown, and what they
have typed and not sent. It stands in their vault alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outlast.errors import UsageError
from outlast.kernel import DAY_MS, Delete, Node, Person, Put, Rows
from outlast.rooms.carry.private import remember

PLACE: Final = "local_carry_place"
HOUR_MS: Final = 3_600_000
LIVES: Final = {"hour": HOUR_MS, "day": DAY_MS, "week": 7 * DAY_MS}
"""How long letters may be shown that disappear, ms."""
LONGEST_MS: Final = max(LIVES.values())
DRAFT_MAX_CHARS: Final = 16_384

MIGRATIONS: Final = (
    f"CREATE TABLE {PLACE} (place BLOB PRIMARY KEY, muted INTEGER DEFAULT 0, life_ms INTEGER DEFAULT 0,"
    " draft TEXT DEFAULT '') WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Place:
    """What is set for one place. ``life_ms`` is 0 where letters stay, ``draft`` empty where nothing waits."""

    muted: bool = False
    life_ms: int = 0
    draft: str = ""


def find(vault: Rows, place: bytes) -> Place:
    """What is set for a place."""
    rows = vault.query(f"SELECT muted, life_ms, draft FROM {PLACE} WHERE place = ?", (place,))
    return Place(bool(rows[0][0]), *rows[0][1:]) if rows else Place()


def muted(vault: Rows) -> set[bytes]:
    """The places that are muted."""
    return {bytes(row[0]) for row in vault.query(f"SELECT place FROM {PLACE} WHERE muted")}


def drafts(vault: Rows) -> set[bytes]:
    """The places where something was typed and not sent."""
    return {bytes(row[0]) for row in vault.query(f"SELECT place FROM {PLACE} WHERE draft <> ''")}


def life(life_ms: int) -> int:
    """A time for which letters are shown; raises UsageError for any but an hour, a day, a week, and 0: for ever."""
    if life_ms and life_ms not in LIVES.values():
        raise UsageError("messages can disappear after an hour, a day or a week")
    return life_ms


def life_for(vault: Rows, place: bytes, life_ms: int | None) -> int:
    """How long what is written in a place now is shown: as is said, else as is set there; raises UsageError."""
    return find(vault, place).life_ms if life_ms is None else life(life_ms)


async def mute(node: Node, person: Person, place: bytes, muted: bool = True) -> None:
    """Count and tell of nothing that comes in a place; or do so again."""
    await remember(node, person, [Put(PLACE, {"place": place, "muted": int(muted)})])


async def set_life(node: Node, person: Person, place: bytes, life_ms: int) -> None:
    """From now on what the person writes there is shown for so long; raises UsageError as ``life`` does."""
    await remember(node, person, [Put(PLACE, {"place": place, "life_ms": life(life_ms)})])


async def keep_draft(node: Node, person: Person, place: bytes, text: str) -> None:
    """Keep what was typed and not sent; an empty text forgets it."""
    text = text[:DRAFT_MAX_CHARS]
    if find(person, place).draft != text:
        await remember(node, person, [Put(PLACE, {"place": place, "draft": text})])
        if not text:
            await node.write(person.vault.forget_deleted)


def sent(place: bytes) -> Put:
    """The row by which a draft is forgotten, together with what is sent."""
    return Put(PLACE, {"place": place, "draft": ""})


def forget(place: bytes) -> Delete:
    """The row by which a place that was left is forgotten."""
    return Delete(PLACE, {"place": place})
