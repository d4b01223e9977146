"""Nodes with reach and one person each, who know each other as told, and sticks that go between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from outlast.kernel import Home, Node, Room
from outlast.rooms.reach import ROOM
from tests.unit.rooms.carry.houses import House

NOW_MS = 1_800_000_000_000


@dataclass
class Clock:
    """A clock that the test turns."""

    ms: int = NOW_MS

    def __call__(self) -> int:
        return self.ms


@asynccontextmanager
async def houses(
    folder: Path,
    clock: Callable[[], int],
    *names: str,
    rooms: Sequence[Room] = (ROOM,),
    apart: Collection[str] = (),
    relay: bool = False,
) -> AsyncIterator[list[House]]:
    """Nodes of these people, who have verified each other; ``apart`` holds pairs such as "AnnCat" who do not.

    Only with ``relay`` they have relaying processes; else letters are all that leaves them.
    """
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            home = Home(folder / name)
            await Node.create(home, name, passphrase=None, rooms=rooms)
            node = await stack.enter_async_context(await Node.open(home, rooms=rooms, system_ms=clock, dial=relay))
            made.append(House(node, next(iter(node.people.values()))))
        for one, other in permutations(made, 2):
            if {one.person.name + other.person.name, other.person.name + one.person.name}.isdisjoint(apart):
                contact = await one.person.add_contact(await other.person.link())
                await one.person.verify(contact.identity)
        yield made
