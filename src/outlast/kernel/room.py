"""What a room hands the node, and what the node hands a room's pure functions.

A room is found by the entry point group ``outlast.rooms``. Its ``fold`` turns each change of the node's store into
row changes of its public view; its ``receive`` turns each opened letter into row changes of the person's vault. Both
are pure: they read through ``Rows`` and return what is to be written; the node writes it together with its cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from outlast.kernel.entry import Entry
from outlast.kernel.kinds import Kind
from outlast.kernel.links.link import Way

if TYPE_CHECKING:
    from outlast.kernel.node import Node
    from outlast.kernel.person import Person

Value = bytes | str | int | float | None


class Event(IntEnum):
    """What happened to an entry; the numbers stand in the change log."""

    ADMITTED = 1
    PAYLOAD_ARRIVED = 2
    PAYLOAD_DROPPED = 3
    FORKED = 5
    EXPIRED = 6


class Change(NamedTuple):
    """One line of the change log: ``cursor`` grows and is never used again."""

    cursor: int
    event: Event
    entry: Entry


class Put(NamedTuple):
    """Insert this row, or replace the one with its primary key."""

    table: str
    row: Mapping[str, Value]


class Delete(NamedTuple):
    """Delete the rows whose columns equal all of ``where``."""

    table: str
    where: Mapping[str, Value]


class Update(NamedTuple):
    """Overwrite these columns in the rows whose columns equal all of ``where``; what is gone meanwhile stays gone."""

    table: str
    where: Mapping[str, Value]
    row: Mapping[str, Value]


RowChange = Put | Delete | Update
RowChanges = Sequence[RowChange]


class Rows(Protocol):
    """Read access to a database: the store for ``fold``, the person's vault for ``receive``."""

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        ...


class Letter(NamedTuple):
    """An opened envelope's content, authenticated as coming from ``device`` of ``sender``."""

    id: bytes  # 16 B, chosen by the sender; the same for all of the receiver's devices
    kind: str
    body: bytes
    sent_ms: int  # the sender's claim
    sender: bytes  # 32 B, identity
    device: bytes  # 32 B
    received_ms: int  # local clock
    life_ms: int = 0  # how long it is shown from when it was written; 0: no limit

    @property
    def is_over(self) -> bool:
        """Whether it came when it was to be shown no more."""
        return 0 < self.life_ms <= self.received_ms - self.sent_ms


class Level(IntEnum):
    """How a room is doing, worst last."""

    OFF = 0
    OK = 1
    WARN = 2
    CUT = 3


class Status(NamedTuple):
    """A room's state as codes; sentences are made when it is shown."""

    level: Level
    since_ms: int | None
    reason_code: str
    evidence: Mapping[str, Value] = {}


class Taken(NamedTuple):
    """What takes room on the disk: a code, the same in English for people, bytes, and the page about it, if any.

    ``in_vault``: it is part of the person's vault file.
    """

    kind: str
    what: str
    bytes: int
    href: str = ""
    in_vault: bool = False


def _no_rows(_thing: Any, _rows: Rows) -> RowChanges:
    return ()


@dataclass(frozen=True, slots=True)
class Room:
    """A room: kinds, tables, pure folds, and where its edges are found.

    ``views`` are the CREATE statements of tables ``view_*`` in the node's store: dropped and folded again when
    ``version`` changes. ``migrations`` are numbered CREATE/ALTER statements of tables ``local_*`` in each vault; they
    are only ever added to. ``passing`` names, by table of a vault, the rows (a condition in SQL) that pass too soon to
    be in a backup. ``space`` tells what the room keeps for a person beside entries. ``follows`` names the open spaces
    that a person follows through this room. ``cli``, ``api`` and ``web`` are ``"module:attribute"``, imported when an
    edge first needs them.
    """

    name: str
    version: int
    kinds: Sequence[Kind] = ()
    letters: Sequence[Kind] = ()
    views: Sequence[str] = ()
    migrations: Sequence[str] = ()
    passing: Mapping[str, str] = field(default_factory=dict)
    fold: Callable[[Change, Rows], RowChanges] = _no_rows
    receive: Callable[[Letter, Rows], RowChanges] = _no_rows
    run: Callable[[Node], Coroutine[Any, Any, None]] | None = None
    status: Callable[[Node, Person], Status] | None = None
    space: Callable[[Node, Person], Sequence[Taken]] | None = None
    links: Callable[[Node], Sequence[Way]] | None = None
    follows: Callable[[Node, Person], Sequence[bytes]] | None = None
    cli: str = ""
    api: str = ""
    web: str = ""
