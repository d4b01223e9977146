"""Space on disk: what fills it by kind, how much is left, and letting go of what may go."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import msgspec

from outlast.kernel import Node, Person, Taken, let_go_of_carried, measure_disk
from outlast.ui.languages import marked
from outlast.ui.operation import Call, Nothing, Operation


class Part(msgspec.Struct, frozen=True):
    """Something that takes room: a code, what it is, and bytes; ``carried`` is what ``space.free`` lets go of."""

    kind: str
    what: str
    bytes: int


class Space(msgspec.Struct, frozen=True):
    """What the node takes of its disk, how much is left there, and the parts, the largest first.

    ``limit``: how much of it others' letters and files, and channels, may take before the oldest of them go.
    """

    bytes: int
    free: int
    limit: int
    parts: list[Part]


class Freed(msgspec.Struct, frozen=True):
    """Bytes of files that are here no more."""

    bytes: int


async def look(node: Node, person: Person) -> tuple[Space, list[Taken]]:
    """What fills the disk, and the parts as the page shows them; what others who live here keep is in the rest."""
    found = await node.read(partial(measure_disk, node, person))
    rooms = [one for room in node.rooms.values() if room.space for one in room.space(node, person)]
    vault = found.vault - sum(one.bytes for one in rooms if one.in_vault)
    parts = [
        Taken("vault", marked("Your messages, contacts and settings"), max(0, vault)),
        Taken("mail", marked("Sealed letters, of everybody and for everybody"), found.mail, "/help/travel"),
        Taken("spaces", marked("Channels and groups"), found.spaces),
        Taken("carried", marked("Files that this node carries for others"), found.carried),
        *rooms,
    ]
    parts = sorted((one for one in parts if one.bytes), key=lambda one: -one.bytes)
    rest = max(0, found.home - sum(one.bytes for one in parts))
    parts.append(Taken("rest", marked("Everything else: indexes, keys, what others who live here keep"), rest))
    told = [Part(one.kind, one.what, one.bytes) for one in parts]
    return Space(found.home, found.free, found.limit, told), parts


async def tell_space(call: Call[Nothing]) -> Space:
    """What fills the disk."""
    return (await look(call.node, call.person))[0]


async def let_go(call: Call[Nothing]) -> Freed:
    """Let go of what is carried for others."""
    _ = call.person
    return Freed(await let_go_of_carried(call.node))


OPERATIONS: Final[list[Operation[Any, Any]]] = [
    Operation("space", Nothing, Space, tell_space, "What fills the disk, by kind, and how much is free"),
    Operation("space.free", Nothing, Freed, let_go, "Let go of files that are carried for others", unsafe=True),
]
