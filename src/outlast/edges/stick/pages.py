"""Sticks on the page: what is plugged in, taking and giving in one press, erasing, taking out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.gate import Access, route
from outlast.edges.stick import files, service
from outlast.edges.stick.files import Progress
from outlast.edges.stick.media import Medium
from outlast.edges.stick.memory import Targets, memory
from outlast.errors import OutlastError, Sentence, UsageError
from outlast.kernel import Node, Person, parse_id, parse_space
from outlast.ui.page import fields, go

AT_ONCE_S: Final = 3.0
"""Work that is done within this time is told at once; of longer work the page tells how far it is."""
TOLD_S: Final = 0.5

Kind = Literal["read", "write", "erase", "out", "both"]


@dataclass(slots=True)
class Work:
    """What is being done with a stick, or was done last: for whom, how far it is in bytes, and how it ended."""

    person: str
    stick: str
    kind: Kind
    done: int = 0
    total: int = 0
    error: Sentence | None = None
    taken: service.Taken | None = None
    given: service.Given | None = None
    erased: int = 0
    unmounted: bool = False
    told_s: float = field(default=0.0, repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.ended.is_set()


_work: Final[WeakKeyDictionary[Node, Work]] = WeakKeyDictionary()
_tasks: Final[set[asyncio.Task[None]]] = set()


def routes() -> list[Route]:
    """What can be done with a stick that is plugged in."""
    return [
        route("/stick/take", "POST", take, Access.PERSON),
        route("/stick/give", "POST", give, Access.PERSON),
        route("/stick/out", "POST", out, Access.PERSON),
        route("/stick/erase", "POST", erase, Access.OWNER),
        route("/stick/auto", "POST", auto, Access.OWNER),
        route("/stick/folder", "POST", folder, Access.OWNER),
    ]


def work_of(person: Person) -> Work | None:
    """What is being done with a stick for this person, or was done last."""
    found = _work.get(person.node)
    return found if found is not None and found.person == person.key else None


async def take(request: Request) -> Response:
    """Take in what is for this person."""
    person, medium, _form = await _asked(request)

    async def job(work: Work, progress: Progress) -> None:
        work.taken = await service.read(person, medium, progress)

    return await _begin(person, medium, "read", job)


async def give(request: Request) -> Response:
    """Write for the contacts and channels that were ticked."""
    person, medium, form = await _asked(request)
    targets = Targets(
        [parse_id(name.removeprefix("to-")) for name in form if name.startswith("to-")],
        [parse_space(name.removeprefix("of-")) for name in form if name.startswith("of-")],
    )
    if not targets.contacts and not targets.channels:
        raise UsageError("choose for whom: contacts, channels or both")

    async def job(work: Work, progress: Progress) -> None:
        work.given = await service.write(person, medium, targets, progress)

    return await _begin(person, medium, "write", job)


async def out(request: Request) -> Response:
    """Finish writing and unmount."""
    person, medium, _form = await _asked(request)

    async def job(work: Work, _progress: Progress) -> None:
        work.unmounted = await service.take_out(medium)

    return await _begin(person, medium, "out", job)


async def erase(request: Request) -> Response:
    """Erase Outlast's files, once that was confirmed."""
    person, medium, form = await _asked(request)
    if form.get("sure") != "on":
        raise UsageError("nothing was erased: tick that you are sure")

    async def job(work: Work, progress: Progress) -> None:
        work.erased = await service.erase(person, medium, progress)

    return await _begin(person, medium, "erase", job)


async def auto(request: Request) -> Response:
    """Let this stick take and give by itself from now on, for those for whom was written last; or no longer."""
    person, medium, form = await _asked(request)
    await service.set_auto(person, medium, memory(person).chosen if form.get("on") == "on" else None)
    person.node.touch()
    return go("/stick")


async def folder(request: Request) -> Response:
    """Use a folder as a stick, or no longer."""
    person: Person = request.state.person
    form = await fields(request)
    if form.get("forget"):
        await service.remove_folder(person, form["forget"])
    else:
        await service.add_folder(person, form.get("folder", ""))
    return go("/stick")


async def come(person: Person, medium: Medium) -> None:
    """A stick was plugged in: take and give, when that was agreed for it; after what is being done with another one."""

    async def job(work: Work, progress: Progress) -> None:
        if done := await service.come(person, medium, progress):
            work.taken, work.given = done

    while await service.is_known(person, medium):
        running = _work.get(person.node)
        if running is None or running.over:
            await _begin(person, medium, "both", job)
            return
        await running.ended.wait()


async def _asked(request: Request) -> tuple[Person, Medium, dict[str, str]]:
    """Who asks, and the stick that the form names: one that is there now."""
    person: Person = request.state.person
    form = await fields(request)
    name = form.get("stick", "")
    found = [one for one in await service.found_media(person) if str(one.folder) == name]
    return person, files.one_of(found, None), form


async def _begin(
    person: Person, medium: Medium, kind: Kind, job: Callable[[Work, Progress], Awaitable[None]]
) -> Response:
    node = person.node
    running = _work.get(node)
    if running is not None and not running.over:
        raise UsageError("a stick is being read or written: wait until that is done")
    work = _work[node] = Work(person.key, medium.name, kind)

    def tell(done: int, total: int | None) -> None:
        work.done, work.total = done, total or 0
        if time.monotonic() - work.told_s > TOLD_S:
            work.told_s = time.monotonic()
            node.touch()

    async def run() -> None:
        try:
            await job(work, tell)
        except OutlastError as error:
            work.error = error.line
        finally:
            work.ended.set()
            node.touch()

    task = asyncio.create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    await asyncio.wait({task}, timeout=AT_ONCE_S)
    return go("/stick")
