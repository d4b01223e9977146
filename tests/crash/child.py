"""A node that works without end, says what it did over a pipe, and can be stopped anywhere for the kill.

``python -m tests.crash.child HOME PLAN`` with PLAN as JSON (see ``Plan``). One line goes to standard output for every
acknowledgement, as soon as the call of the node has returned, and one whenever a phase begins or ends:

    letter ID RUN NUMBER SIZE    post ID CURSOR RUN NUMBER SIZE            acknowledged
    import NAME    back ID                                                 acknowledged
    asked ID                                                               a letter is about to be taken back
    tx+  tx!  tx-                                                          a transaction opens, commits, is over
    import+  import-                                                       a bundle is being taken in
    stopped WHERE                                                          nothing is written any more; kill me
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from outlast.kernel import Home
from outlast.kernel.database import Database, Transaction
from tests.crash.disk import Disk, Write
from tests.crash.toy import House, house

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")


class Plan(msgspec.Struct, frozen=True):
    """What the child does and where it stops by itself.

    ``stop`` "statement": inside a transaction, before its ``nth`` statement; "write": in the middle of the ``nth``
    write to the disk; "never": only the kill ends it. ``importing``: statements and writes count only while a bundle is
    taken in.
    """

    run: int
    peer: bytes
    space: bytes
    bundles: list[str]
    stop: Literal["statement", "write", "never"]
    nth: int
    importing: bool


def tell(*words: object) -> None:
    """One line, whole, to the process that keeps the ledger."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Stopper:
    """Counts what happens and stops the thread that writes where the plan says."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._count = 0
        self.importing = False

    def reached(self, what: str) -> bool:
        """Count one thing; whether it is the one to stop at."""
        if self._plan.stop != what or self._plan.importing > self.importing:
            return False
        self._count += 1
        return self._count == self._plan.nth

    def stop(self, where: str) -> None:
        """Stand still until the kill."""
        tell("stopped", where)
        threading.Event().wait()

    def on_write(self, write: Write) -> bool:
        """Half of the write reaches the disk, and nothing after it."""
        if self.reached("write"):
            write.put(write.size // 2)
            self.stop("write")
        return False


def watch(stopper: Stopper) -> None:
    """Make every transaction of this process tell when it opens, commits and is over."""
    plain = Database.write

    def write(self: Database, act: Callable[[Transaction], T]) -> T:
        connection: apsw.Connection = self._writer
        if connection.in_transaction:
            return plain(self, act)

        def traced(_cursor: Any, _sql: str, _bindings: Any) -> bool:
            if connection.in_transaction and stopper.reached("statement"):
                stopper.stop("statement")
            return True

        def commits() -> bool:
            tell("tx!")
            return False

        def opened(transaction: Transaction) -> T:
            tell("tx+")
            return act(transaction)

        connection.set_exec_trace(traced)
        connection.set_commit_hook(commits)
        try:
            return plain(self, opened)
        finally:
            tell("tx-")

    Database.write = write  # type: ignore[method-assign]


def text_of(kind: str, run: int, number: int, size: int) -> str:
    """The text of a letter or post, which is not told whole: a line of the pipe must go out in one piece."""
    return f"{kind} {run} {number} ".ljust(size, "x")


async def letters(own: House, plan: Plan, chance: random.Random) -> None:
    """Letters alone and many at once; some are taken back."""

    async def one(number: int, size: int) -> bytes:
        letter = await own.send(plan.peer, text_of("letter", plan.run, number, size))
        tell("letter", letter.hex(), plan.run, number, size)
        return letter

    number = 0
    while True:
        count = chance.choice((1, 1, 7))
        sent = await asyncio.gather(*(one(number + i, chance.choice((0, 600, 3000))) for i in range(count)))
        number += count
        if chance.random() < 0.2:
            letter = chance.choice(sent)
            tell("asked", letter.hex())
            if await own.person.take_back(letter, local=own.forgetting(letter)):
                tell("back", letter.hex())


async def posts(own: House, plan: Plan, chance: random.Random) -> None:
    """Posts, one after another."""
    number = 0
    while True:
        size = chance.choice((0, 300, 2000, 30_000))
        entry = await own.say(plan.space, text_of("post", plan.run, number, size))
        (cursor,) = own.node.query("SELECT n FROM entry WHERE id = ?", (entry,))[0]
        tell("post", entry.hex(), cursor, plan.run, number, size)
        number += 1


async def imports(own: House, plan: Plan, stopper: Stopper, chance: random.Random) -> None:
    """Bundles, each as often as it takes and with pauses between them; the last one again and again."""
    for number in range(1_000_000):
        for _ in range(chance.randint(0, 40)):
            await own.node.wait(own.node.revision)
        bundle = Path(plan.bundles[min(number, len(plan.bundles) - 1)])
        data = bundle.read_bytes()
        stopper.importing = True
        tell("import+")
        await own.person.read_bundle(io.BytesIO(data))
        await own.person.inbox.read()
        tell("import-")
        stopper.importing = False
        tell("import", bundle.name)


async def work(home: Path, plan: Plan) -> None:
    """Everything at once, without end."""
    stopper = Stopper(plan)
    watch(stopper)
    chance = random.Random(plan.run)
    async with house(Home(home)) as own:
        tell("open")
        with Disk(stopper.on_write):
            await asyncio.gather(
                letters(own, plan, chance), posts(own, plan, chance), imports(own, plan, stopper, chance)
            )


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Plan)))
