"""Carry's private rows, as the services of its subjects write them into a person's vault."""

from __future__ import annotations

from typing import Final

from outlast.kernel import Node, Person, RowChanges

ROOM_NAME: Final = "carry"


async def remember(node: Node, person: Person, changes: RowChanges) -> None:
    """Write rows of carry into the person's vault, all or none; raises StorageError."""
    await node.write(lambda: person.vault.transaction(changes, ROOM_NAME))
    node.touch()


def is_here(node: Node, person: Person) -> bool:
    """Whether the person's vault is still open."""
    # Vaults are closed by the thread that writes, after what it was given before.
    return node.people.get(person.key) is person
