"""Probes that contacts ask of each other, as rows of the vault: who may ask, what was asked, what was told. Pure.

Nobody's wish is even kept before the person has allowed that contact: a probe endangers whoever makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from outlast.errors import OutlastError, ProtocolError
from outlast.kernel import DAY_MS, Delete, Letter, Put, RowChange, RowChanges, Rows
from outlast.rooms.watch.entries import ASK, ASK_NUMBER_BYTES, TARGET_MAX_BYTES, TOLD, TOLD_RAW_MAX_BYTES
from outlast.rooms.watch.proto.http import parse_url
from outlast.rooms.watch.proto.probe import is_address, is_of_the_web, is_public

ASKED: Final = "local_watch_asked"
ALLOWED: Final = "local_watch_allowed"
A_DAY_MAX: Final = 20
"""So many wishes of one contact are kept within a day."""
PROBLEM_MAX_CHARS: Final = 200
MIGRATIONS: Final = (
    f"CREATE TABLE {ASKED} (number BLOB PRIMARY KEY, peer BLOB, target TEXT, at_ms INTEGER, mine INTEGER,"
    " done_ms INTEGER, problem TEXT, raw BLOB)",
    f"CREATE TABLE {ALLOWED} (peer BLOB PRIMARY KEY, since_ms INTEGER)",
)


class Wish(NamedTuple):
    """A probe that was asked for: by us of the ``peer`` (``mine``), or by the peer of us."""

    number: bytes
    peer: bytes  # 32 B, identity
    target: str
    at_ms: int
    mine: bool
    done_ms: int | None
    problem: str
    raw: bytes  # the measurement, packed; empty for none


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """What a letter asks or tells: kept when its sender may ask, or was asked."""
    try:
        if letter.kind == ASK.name:
            return _asked(letter, rows)
        return _told(letter, rows)
    except ProtocolError:
        return ()


def _asked(letter: Letter, rows: Rows) -> RowChanges:
    body = ASK.decode(letter.body)
    recent = f"SELECT count(*) FROM {ASKED} WHERE peer = ? AND mine = 0 AND at_ms > ?"
    if (
        len(body.number) != ASK_NUMBER_BYTES
        or not is_target(body.target)
        or not rows.query(f"SELECT 1 FROM {ALLOWED} WHERE peer = ?", (letter.sender,))
        or rows.query(f"SELECT 1 FROM {ASKED} WHERE number = ?", (body.number,))
        or rows.query(recent, (letter.sender, letter.received_ms - DAY_MS))[0][0] >= A_DAY_MAX
    ):
        return ()
    return [row(Wish(body.number, letter.sender, body.target, letter.received_ms, False, None, "", b""))]


def _told(letter: Letter, rows: Rows) -> RowChanges:
    body = TOLD.decode(letter.body)
    if len(body.raw) > TOLD_RAW_MAX_BYTES:
        return ()
    waiting = f"SELECT 1 FROM {ASKED} WHERE number = ? AND peer = ? AND mine = 1 AND done_ms IS NULL"
    if not rows.query(waiting, (body.number, letter.sender)):
        return ()
    problem = "".join(one for one in body.problem if one.isprintable())[:PROBLEM_MAX_CHARS]
    changes = {"number": body.number, "done_ms": letter.received_ms, "problem": problem, "raw": body.raw}
    return [Put(ASKED, changes)]


def is_target(text: str) -> bool:
    """Whether a text names what can be asked for: a URL of the public web, no address of anybody's own network."""
    try:
        url = parse_url(text)
    except OutlastError:
        return False
    public = not is_address(url.host) or is_public(url.host)
    return len(text.encode()) <= TARGET_MAX_BYTES and public and is_of_the_web(url)


def row(wish: Wish) -> RowChange:
    """The row of a wish."""
    return Put(ASKED, {**wish._asdict(), "mine": int(wish.mine)})


def allow_row(peer: bytes, now_ms: int, *, allowed: bool) -> RowChange:
    """The row by which a contact may ask, or may not any more."""
    return Put(ALLOWED, {"peer": peer, "since_ms": now_ms}) if allowed else Delete(ALLOWED, {"peer": peer})


def wishes(vault: Rows, *, mine: bool) -> Sequence[Wish]:
    """All wishes of one side, the newest first."""
    columns = ", ".join(Wish._fields)
    found = vault.query(f"SELECT {columns} FROM {ASKED} WHERE mine = ? ORDER BY at_ms DESC, number", (int(mine),))
    return [Wish(*one)._replace(mine=bool(one[4])) for one in found]


def due(vault: Rows, now_ms: int) -> Wish | None:
    """The oldest wish of an allowed contact that is to be fulfilled: nothing was begun, and it is no day old."""
    allowed = {peer for (peer,) in vault.query(f"SELECT peer FROM {ALLOWED}")}
    open_ones = [one for one in wishes(vault, mine=False) if one.done_ms is None and one.peer in allowed]
    return next((one for one in reversed(open_ones) if one.at_ms > now_ms - DAY_MS), None)
