"""Nodes with carry and one person each, and sticks that go between them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from outlast.kernel import Home, Node, Person
from outlast.rooms.carry import ROOM, groups


@dataclass(frozen=True)
class House:
    """A node and who lives there."""

    node: Node
    person: Person

    async def carry_to(self, other: House, *, space: bytes | None = None) -> None:
        """One trip of a stick, for the other person or of a channel."""
        stick = io.BytesIO()
        report = await self.person.write_bundle(stick, to=None if space else other.person.identity, space=space)
        await self.person.bundle_left(report)
        stick.seek(0)
        await other.person.read_bundle(stick)

    async def settled(self) -> None:
        """Return when the node has opened its mail, and its groups are as they follow from it."""
        while True:
            revision = self.node.revision
            await self.person.inbox.read()
            await groups.catch_up(self.node, self.person)
            for _ in range(6):
                await self.node.write(lambda: None)
            if self.node.revision == revision:
                return

    async def until(self, holds: Callable[[], object]) -> None:
        """Return when something holds that news of the node can bring about."""
        async with asyncio.timeout(30):
            while not holds():
                await self.node.wait(self.node.revision)


@asynccontextmanager
async def houses(folder: Path, *names: str, now_ms: Callable[[], int] | None = None) -> AsyncIterator[list[House]]:
    """Open nodes of these people, who have each other's links; their clocks show ``now_ms``, else the right time."""
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            home = Home(folder / name)
            if not home.exists():
                await Node.create(home, name, passphrase=None, rooms=[ROOM])
            node = await stack.enter_async_context(await Node.open(home, rooms=[ROOM], system_ms=now_ms))
            made.append(House(node, next(iter(node.people.values()))))
        for one in made:
            for other in made:
                known = {contact.identity for contact in one.person.contacts()}
                if other is not one and other.person.identity not in known:
                    await one.person.add_contact(await other.person.link())
        yield made
