"""``kill -9`` again and again: one process works, this one listens to what it acknowledges, kills it and looks."""

from __future__ import annotations

import asyncio
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.architecture.tree import ROOT
from tests.crash.child import Plan, text_of
from tests.crash.promises import Promises
from tests.crash.toy import House, befriend, house, make

LETTERS_A_BUNDLE = 120


@dataclass
class Count:
    """What happened in all runs."""

    kills: int = 0
    in_transaction: int = 0
    """Died with a transaction open or half written, as the process itself told."""
    in_import: int = 0
    in_either: int = 0
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"kills {self.kills}, in a transaction {self.in_transaction}, in an import {self.in_import}, in either"
            f" {self.in_either}, acknowledgements {self.acknowledged}, lost {len(self.broken)}"
        )


@dataclass
class _Phase:
    """Where the child was, as far as it told."""

    transaction: bool = False
    importing: bool = False
    stopped: bool = False

    def follow(self, word: str) -> None:
        """One line of the child."""
        match word:
            case "tx+":
                self.transaction = True
            case "tx-":
                self.transaction = False
            case "import+":
                self.importing = True
            case "import-":
                self.importing = False
            case "stopped":
                self.stopped = True


async def kill_and_look(folder: Path, kills: int, seed: int) -> Count:
    """Kill a node ``kills`` times; what is found broken after each stands in ``Count.broken``."""
    chance = random.Random(seed)
    count, promises = Count(), Promises()
    home, peer_home = await make(folder / "own", "own"), await make(folder / "peer", "peer")
    async with house(home) as own, house(peer_home) as peer:
        await befriend(own, peer)
        space = await own.node.new_space(own.person, "news")
        await peer.node.follow(space)
        me, them = own.person.identity, peer.person.identity
        bundles = [await _prepare(peer, me, folder, number) for number in range(max(4, kills // 4))]
    for run in range(kills):
        plan = _plan(chance, run, them, space, [str(folder / name) for name in bundles])
        phase = _Phase()
        for line in _killed(home.path, plan, chance, phase):
            _note(promises, bundles, line)
        count.kills += 1
        count.in_transaction += phase.transaction
        count.in_import += phase.importing
        count.in_either += phase.transaction or phase.importing
        async with house(home) as own:
            count.broken += [f"kill {run}: {line}" for line in await promises.broken(own)]
            newest = promises.newest = own.node.open_store.cursor()
        async with house(home) as own:
            await own.person.inbox.read()
            if own.node.open_store.cursor() != newest:
                count.broken.append(f"kill {run}: the outbox was replayed twice")
    count.acknowledged = promises.count
    async with house(home) as own, house(peer_home) as peer:
        count.broken += await _delivered(own, peer, space, promises)
    return count


async def _prepare(peer: House, to: bytes, folder: Path, number: int) -> str:
    for i in range(0, LETTERS_A_BUNDLE, 40):
        await asyncio.gather(*(peer.send(to, f"from the peer {number} {i + n}") for n in range(40)))
    name = f"bundle{number:03d}"
    (folder / name).write_bytes(await peer.bundle(to=to))
    return name


def _plan(chance: random.Random, run: int, peer: bytes, space: bytes, bundles: list[str]) -> Plan:
    stop = chance.choice(("statement", "write", "write", "never"))
    importing = stop != "never" and chance.random() < 0.5
    nth = chance.randint(1, 250 if importing else 600)
    # Bundles that were read already go fast; each run begins with one that may be new.
    first = min(run // 4, len(bundles) - 1)
    return Plan(run, peer, space, bundles[first:], stop, nth, importing)  # type: ignore[arg-type]


def _killed(home: Path, plan: Plan, chance: random.Random, phase: _Phase) -> Iterator[list[str]]:
    """Run the child and kill it; all lines that it wrote, cut into words."""
    command = [sys.executable, "-m", "tests.crash.child", str(home), msgspec.json.encode(plan).decode()]
    rest = chance.randint(5, 120) if plan.stop == "never" else 1_000_000
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        try:
            pending = b""
            with selectors.DefaultSelector() as pipe:
                pipe.register(child.stdout, selectors.EVENT_READ)
                deadline = time.monotonic() + 60
                while rest > 0 and not phase.stopped:
                    assert pipe.select(deadline - time.monotonic()), f"the child went silent: {plan}"
                    data = child.stdout.read1(65536)  # type: ignore[attr-defined]
                    assert data, f"the child ended by itself: {plan}"
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        words = line.decode().split(" ")
                        phase.follow(words[0])
                        rest -= 1
                        yield words
        finally:
            child.send_signal(signal.SIGKILL)
        *lines, torn = (pending + child.stdout.read()).split(b"\n")
        assert not torn
        for line in lines:
            words = line.decode().split(" ")
            phase.follow(words[0])
            yield words


def _note(promises: Promises, bundles: list[str], words: list[str]) -> None:
    match words:
        case ["letter", id, run, number, size]:
            promises.letters[bytes.fromhex(id)] = text_of("letter", int(run), int(number), int(size))
        case ["post", id, cursor, run, number, size]:
            promises.posts[bytes.fromhex(id)] = text_of("post", int(run), int(number), int(size))
            promises.note_posted(bytes.fromhex(id), int(cursor))
        case ["asked", id]:
            promises.asked_back.add(bytes.fromhex(id))
        case ["back", id]:
            promises.taken_back.add(bytes.fromhex(id))
        case ["import", name]:
            # A bundle holds what those before it held, as long as nobody confirmed them.
            for earlier in range(bundles.index(name) + 1):
                promises.received.update(f"from the peer {earlier} {n}" for n in range(LETTERS_A_BUNDLE))


async def _delivered(own: House, peer: House, space: bytes, promises: Promises) -> list[str]:
    """In the end one trip of a stick there and back: everything arrives, once, and is confirmed."""
    problems = []
    await peer.read(await own.bundle(to=peer.person.identity))
    await peer.read(await own.bundle(space=space))
    if peer.got() != own.sent():
        problems.append(f"of {len(own.sent())} letters the peer got {len(peer.got())}")
    if {promises.letters[letter] for letter in promises.taken_back}.intersection(peer.got()):
        problems.append("a letter that was taken back arrived")
    if peer.posts() != own.posts():
        problems.append("the peer's channel is not the own one")
    await own.read(await peer.bundle(to=own.person.identity))
    if own.got() != peer.sent():
        problems.append(f"of {len(peer.sent())} letters of the peer {len(own.got())} arrived")
    await peer.read(await own.bundle(to=peer.person.identity))
    if own.confirmed("received") != set(own.sent()):
        problems.append("letters arrived and are not confirmed")
    if peer.confirmed("received") != set(peer.sent()):
        problems.append("letters of the peer arrived and are not confirmed")
    return problems
