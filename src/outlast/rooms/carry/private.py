"""Carry's private rows, as the services of its subjects write them into a person's vault."""

from __future__ import annotations

import asyncio
from typing import Final

from outlast.kernel import Node, Person, RowChanges

ROOM_NAME: Final = "carry"
PAUSE: Final = 4
"""For each second spent on looking, so many are left to everything else,"""
PAUSE_MAX_S: Final = 1.0
"""but no more than this."""


async def remember(node: Node, person: Person, changes: RowChanges) -> None:
    """Write rows of carry into the person's vault, all or none; raises StorageError."""
    await node.write(lambda: person.vault.transaction(changes, ROOM_NAME))
    node.touch()


async def pause(node: Node, began_s: float) -> None:
    """Leave the loop to everything else for a while, after looking through something since ``began_s``."""
    await asyncio.sleep(min((node.loop.time() - began_s) * PAUSE, PAUSE_MAX_S))


def is_here(node: Node, person: Person) -> bool:
    """Whether the person's vault is still open."""
    # Vaults are closed by the thread that writes, after what it was given before.
    return node.people.get(person.key) is person
