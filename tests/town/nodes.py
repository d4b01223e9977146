"""A town of whole nodes over TCP: letters, posts, sticks, restarts and lost links by chance, and what must be then."""

from __future__ import annotations

import asyncio
import io
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

from outlast.kernel.entry import DAY_MS
from outlast.kernel.person import Person
from tests.kernel.society import POST, Note, Society, befriend, bundle, events, notes, society, write
from tests.kernel.test_groups import group, say, texts

NAMES = ("anna", "boris", "clara", "darek")
STEPS = 40
PATIENCE_S = 60.0
_TURNS_MAX = 12


class NodeTown:
    """Some nodes, who is to be linked with whom, and what was said."""

    def __init__(self, nodes: Society, seed: int) -> None:
        self.nodes = nodes
        self.random = Random(f"nodes/{seed}")
        self.links: set[tuple[str, str]] = set()
        self.ports: dict[str, int] = {}
        self.letters: list[tuple[str, str, str, bytes]] = []
        self.posts: set[bytes] = set()
        self.space = b""
        self.said: dict[bytes, list[str]] = {}
        """In each closed group, by its space."""
        self.script: list[str] = []

    def person(self, name: str) -> Person:
        return self.nodes.person(name)

    async def found(self) -> None:
        """All know each other, follow one channel and belong to two closed groups; nobody is linked."""
        people = [await self.nodes.join(name) for name in NAMES]
        for one, other in combinations(people, 2):
            await befriend(one, other)
        self.space = await people[0].node.new_space(people[0], "Town")
        for person in people[1:]:
            await person.node.follow(self.space)
        for kind in ("members", "sealed"):
            self.said[await group(kind, *people)] = []
        for name in NAMES:
            self.ports[name] = await self.person(name).node.listen("127.0.0.1", 0)

    async def happen(self) -> None:
        """One thing, and a little time for what goes on beside it."""
        one, other = self.random.sample(NAMES, 2)
        what = self.random.choice(
            ("letter", "letter", "post", "post", "group", "group", "link", "link", "part", "restart", "stick")
        )
        self.script.append(f"{what} {one} {other}")
        match what:
            case "letter":
                text = f"{len(self.letters):03d} from {one} to {other}" + " and on" * self.random.choice((0, 0, 300))
                letter = await write(self.person(one), self.person(other), text)
                self.letters.append((one, other, text, letter))
            case "post":
                text = "post" + " and on" * self.random.choice((0, 0, 500))
                person = self.person(one)
                entry = await person.node.append(person, self.space, POST.name, Note(text), life_ms=20 * DAY_MS)
                self.posts.add(entry.id)
            case "group":
                space = self.random.choice(list(self.said))
                self.said[space].append(f"{len(self.said[space])} from {one}")
                await say(self.person(one), space, self.said[space][-1])
            case "link":
                await self.link(one, other)
            case "part":
                for pair in ((one, other), (other, one)):
                    if pair in self.links:
                        self.links.discard(pair)
                        await self.person(pair[0]).node.peer_remove(self.person(pair[1]).node.transport_id)
            case "restart":
                await self.restart(one)
            case _:
                file, _ = await bundle(self.person(one), self.person(other))
                await self.person(other).read_bundle(io.BytesIO(file))
        for _ in range(self.random.randrange(_TURNS_MAX)):
            await self.person(self.random.choice(NAMES)).node.write(lambda: None)

    async def link(self, one: str, other: str) -> None:
        """One calls the other from now on."""
        self.links.add((one, other))
        await self.person(one).node.peer_add(self.person(other).node.transport_id, "127.0.0.1", self.ports[other])

    async def restart(self, name: str) -> None:
        """A node ends and begins again, at another port, which those who call it learn."""
        person = await self.nodes.come_back(name)
        self.ports[name] = await person.node.listen("127.0.0.1", 0)
        for one, other in sorted(self.links):
            if other == name:
                await self.link(one, other)

    def missing(self) -> list[str]:
        """What has not come where it must."""
        lines = []
        for name in NAMES:
            person = self.person(name)
            lacks = self.posts - person.node.open_store.known(sorted(self.posts))
            lines += [f"{name} lacks {len(lacks)} posts"] if lacks else []
            due = sorted(text for _, to, text, _ in self.letters if to == name)
            came = notes(person)
            lines += [f"{name} has {len(came)} letters of {len(due)}"] if came != due else []
            for space, said in self.said.items():
                heard = texts(person, space)
                lines += [f"{name} has {len(heard)} of {len(said)} in a group"] if sorted(heard) != sorted(said) else []
        for sender, to, text, letter in self.letters:
            if "received" not in events(self.person(sender), letter):
                lines.append(f"{sender} does not know that {to} has {text[:3]}")
        return lines

    async def settle(self) -> None:
        """A street of links from the first to the last, until nothing is missing."""
        for one, other in pairwise(NAMES):
            await self.link(one, other)
        while self.missing():
            waits = [asyncio.ensure_future(p.node.wait(p.node.revision)) for p in map(self.person, NAMES)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()


async def live_through(folder: Path, seed: int) -> None:
    """A seed's town from its founding to the end; raises AssertionError with what is wrong and what happened."""
    async with society(folder) as nodes:
        town = NodeTown(nodes, seed)
        await town.found()
        for _ in range(STEPS):
            await town.happen()
        try:
            await asyncio.wait_for(town.settle(), PATIENCE_S)
        except TimeoutError:
            told = "\n".join([f"seed {seed}:", *town.missing(), "after:", *town.script])
            raise AssertionError(told) from None
        for name in NAMES:
            node = town.person(name).node
            live = node.query("SELECT * FROM view_toy_post ORDER BY id")
            await node.rebuild()
            assert node.query("SELECT * FROM view_toy_post ORDER BY id") == live
            assert {id for id, space in live if space == town.space} == town.posts
            assert not node.failed.done()
