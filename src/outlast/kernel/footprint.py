"""Footprint: how much of the disk a node takes and by what, and letting go of files that it carries for others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from outlast.errors import LockedError
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.parcel import PARCEL_SPACE

if TYPE_CHECKING:
    from outlast.kernel.node import Node
    from outlast.kernel.person import Person

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are (POSIX, sys/stat.h)


class Footprint(NamedTuple):
    """Bytes on the disk of the home."""

    home: int
    """All files of the node."""
    free: int
    """Left on that disk."""
    limit: int
    """What the store may take: others' letters, channels, and files that nobody here asked for."""
    vault: int
    """The person's own vault."""
    mail: int
    """Sealed letters of everybody, which cannot be told apart."""
    spaces: int
    """Channels and groups, with what was put into them."""
    carried: int
    """Sealed files that nobody here has sent or is to get, as far as their letters tell."""


def measure_disk(node: Node, person: Person) -> Footprint:
    """What takes how much; for a thread that reads. Raises LockedError."""
    store = node.open_store
    mail, parcels = store.usage_of(MAIL_SPACE).bytes, store.usage_of(PARCEL_SPACE).bytes
    return Footprint(
        home=_size(node.home.path),
        free=node.space_left(),
        limit=node.door.capacity(store),
        vault=_size(node.home.vault_path(person.key).parent),
        mail=mail,
        spaces=store.usage().bytes - mail - parcels + store.chunk_bytes(without=PARCEL_SPACE),
        carried=sum(_carried(node).values()),
    )


async def let_go_of_carried(node: Node) -> int:
    """Let go of the files that are carried for others; returns the bytes freed. They are not fetched again unasked.

    Raises LockedError while somebody's vault is locked: nobody knows then which files are theirs.
    """
    if len(node.people) < len(node.home.people()):
        raise LockedError(
            "somebody who lives here is locked, and some of these files may be theirs: ask them to unlock"
        )
    found = await node.read(lambda: _carried(node))
    for entry in found:
        await node.drop_content(entry)
    await node.free_chunks(node.open_store)
    node.touch()
    return sum(found.values())


def _carried(node: Node) -> dict[bytes, int]:
    ours = node.spared()
    return {id: size for id, size in node.open_store.unasked(PARCEL_SPACE).items() if id not in ours}


def _size(folder: Path) -> int:
    return sum(_blocks(folder)) * _BLOCK_BYTES


def _blocks(folder: Path) -> Iterator[int]:
    for place, _folders, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name)).st_blocks
            except FileNotFoundError:  # files come and go meanwhile
                continue
