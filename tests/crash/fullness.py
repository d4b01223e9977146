"""A disk that is full from any write of a run on: every call keeps its word or says in one line that it cannot."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from outlast.errors import StorageError
from outlast.kernel import Home, Node
from tests.crash.disk import Disk
from tests.crash.promises import Promises
from tests.crash.toy import TOY, House, befriend, house, make


@dataclass
class Count:
    """What happened in all runs."""

    runs: int = 0
    acknowledged: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"runs with a full disk {self.runs}, acknowledgements {self.acknowledged}, refusals {self.refused},"
            f" lost {len(self.broken)}"
        )


@dataclass
class Town:
    """Closed homes to copy, and what is needed to work in them."""

    folder: Path
    peer: bytes
    stranger_link: str
    space: bytes
    bundle: bytes
    bundle_texts: list[str]


async def found(folder: Path) -> Town:
    """Two who know each other, a stranger's link, a channel, and a bundle that one has not read."""
    homes = [await make(folder / name, name) for name in ("own", "peer", "stranger")]
    async with house(homes[0]) as own, house(homes[1]) as peer, house(homes[2]) as stranger:
        await befriend(own, peer)
        space = await own.node.new_space(own.person, "news")
        await peer.node.follow(space)
        await own.send(peer.person.identity, "before")
        await own.say(space, "before")
        texts = [f"from the peer {number}" for number in range(20)]
        await asyncio.gather(*(peer.send(own.person.identity, text) for text in texts))
        bundle = await peer.bundle(to=own.person.identity)
        return Town(folder, peer.person.identity, await stranger.person.link(), space, bundle, texts)


class Visit:
    """One run in a copy of the town."""

    def __init__(self, town: Town, count: Count, number: str) -> None:
        self.town, self.count, self.number = town, count, number
        self.promises = Promises()
        self.facts: dict[str, Callable[[House], bool]] = {}
        """What is to hold from now on, by what was acknowledged last of it."""

    async def attempt(self, name: str, call: Awaitable[Callable[[House], bool]]) -> bool:
        """One call: its fact counts from now on, or it refuses in one line; whether it was acknowledged."""
        try:
            self.facts[name] = await call
        except StorageError as error:
            self.count.refused += 1
            if "\n" in str(error) or "make room" not in str(error):
                self.count.broken.append(f"{self.number}: {name}: no clear line: {error}")
            return False
        self.count.acknowledged += 1
        return True

    async def work(self, own: House) -> None:
        """Some of everything that writes."""
        town, person, node = self.town, own.person, own.node

        async def send(to: bytes, text: str) -> Callable[[House], bool]:
            letter = await own.send(to, text)
            self.promises.letters[letter] = text
            return lambda _: True  # the promise tells

        async def take_back(letter: bytes) -> Callable[[House], bool]:
            self.promises.asked_back.add(letter)
            if await person.take_back(letter, local=own.forgetting(letter)):
                self.promises.taken_back.add(letter)
            return lambda _: True

        async def say(text: str) -> Callable[[House], bool]:
            self.promises.posts[await own.say(town.space, text)] = text
            return lambda _: True

        async def read() -> Callable[[House], bool]:
            await own.read(town.bundle)
            self.promises.received.update(town.bundle_texts)
            return lambda _: True

        async def add() -> Callable[[House], bool]:
            contact = await person.add_contact(town.stranger_link)
            return lambda h: h.person.contact(contact.identity).name == "stranger"

        async def write() -> Callable[[House], bool]:
            await own.bundle(to=town.peer)
            return lambda _: True

        async def verify() -> Callable[[House], bool]:
            await person.verify(town.peer)
            return lambda h: h.person.contact(town.peer).verified_ms is not None

        async def block(blocked: bool) -> Callable[[House], bool]:
            await person.block(town.peer, blocked)
            return lambda h: h.person.contact(town.peer).blocked == blocked

        async def found_space() -> Callable[[House], bool]:
            space = await node.new_space(person, "more")
            return lambda h: space in h.node.spaces() and space in h.node.open_store.known([space])

        async def mark_read() -> Callable[[House], bool]:
            letters = [row[0] for row in person.query("SELECT letter FROM local_toy_got")]
            await person.mark_read(letters)
            return lambda _: True

        async def peer_add(port: int) -> Callable[[House], bool]:
            await node.peer_add(bytes(range(32)), "127.0.0.1", port)
            return lambda h: port in [one.port for one in h.node.peers()]

        async def confirm() -> Callable[[House], bool]:
            await node.confirm_clock()
            return lambda h: h.node.clock_warning() is None

        async def rebuild() -> Callable[[House], bool]:
            await node.rebuild()
            return lambda h: "before" in h.posts()

        await self.attempt("send", send(town.peer, "one letter"))
        await asyncio.gather(*(self.attempt(f"many {n}", send(town.peer, f"many {n}")) for n in range(4)))
        await self.attempt("say", say("a post " + "z" * 5000))
        await self.attempt("read", read())
        await self.attempt("read again", read())
        if await self.attempt("add", add()):
            await self.attempt("greet", send(person.find("stranger").identity, "to the stranger"))
        await self.attempt("say more", say("another post"))
        for letter in list(self.promises.letters)[:1]:
            await self.attempt("take back", take_back(letter))
        await self.attempt("write", write())
        await self.attempt("verify", verify())
        await self.attempt("block", block(True))
        await self.attempt("block", block(False))
        await self.attempt("found", found_space())
        await self.attempt("mark", mark_read())
        await self.attempt("peer", peer_add(9))
        await self.attempt("confirm", confirm())
        await self.attempt("rebuild", rebuild())

    async def look(self, own: House, when: str) -> None:
        """Note what does not hold."""
        broken = await self.promises.broken(own)
        broken += [f"{name} was acknowledged and does not hold" for name, holds in self.facts.items() if not holds(own)]
        if own.node.failed.done():
            broken.append(f"a part of the node ended: {own.node.failed.exception()!r}")
        self.count.broken += [f"{self.number}, {when}: {line}" for line in broken]


async def fill_and_look(folder: Path, choose: Callable[[int], Iterable[int]], *, lasting: bool) -> Count:
    """One run for each write chosen out of all writes of a run: that one fails, and if ``lasting`` all after it."""
    town, count = await found(folder / "town"), Count()

    async def run(number: int, disk: Disk) -> None:
        visit = Visit(town, count, f"write {number}")
        place = Path(shutil.copytree(town.folder, folder / "visit"))
        if number:
            disk.fill(number, None if lasting else number)
        node: Node | None = None
        try:
            node = await Node.open(Home(place / "own"), rooms=[TOY], dial=False)
        except StorageError:
            count.refused += 1
            disk.make_room()
            node = await Node.open(Home(place / "own"), rooms=[TOY], dial=False)
        async with node:
            (person,) = node.people.values()
            own = House(node, person)
            await visit.work(own)
            disk.make_room()
            # There is room again: the node goes on, and what waited goes with it.
            await person.block(town.peer, False)
            visit.facts.pop("block", None)
            visit.promises.letters[await own.send(town.peer, "after")] = "after"
            await visit.look(own, "when there was room again")
        async with house(Home(place / "own")) as own, house(Home(place / "peer")) as peer:
            await visit.look(own, "after a restart")
            await peer.read(await own.bundle(to=town.peer))
            await peer.read(await own.bundle(space=town.space))
            mine = {row[0] for row in own.person.query("SELECT text FROM local_toy_sent")} - {"to the stranger"}
            if peer.got() != sorted(mine) or set(peer.posts()) != set(own.posts()):
                count.broken.append(f"write {number}: not everything arrived: {mine ^ set(peer.got())}")
        shutil.rmtree(place)
        count.runs += 1

    with Disk() as disk:
        await run(0, disk)
        for number in choose(disk.writes):
            await run(number, disk)
    return count
