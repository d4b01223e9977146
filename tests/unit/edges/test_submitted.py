"""A form that comes twice is done once; what was refused is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from outlast.edges.submitted import REMEMBERED, Submitted

Done = Callable[[], Awaitable[Response]]


async def submit(submitted: Submitted, form: bytes, act: Done) -> tuple[int, str]:
    """The status and the ``location`` that a browser gets."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (await act())(scope, receive, send)

    async def send(message: Any) -> None:
        told.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await submitted.once(form, app, {"type": "http"}, receive, send)
    start, body = told
    assert not body.get("more_body")
    return start["status"], dict(start["headers"]).get(b"location", b"").decode()


def test_who_submits_again_while_it_is_being_done_waits_for_the_one_answer() -> None:
    async def work() -> None:
        submitted, goes_on, done = Submitted(), asyncio.Event(), 0

        async def act() -> Response:
            nonlocal done
            done += 1
            await goes_on.wait()
            return RedirectResponse(f"/sent/{done}", 303)

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(submit(submitted, b"form", act)) for _ in range(2)]
            await asyncio.sleep(0)
            goes_on.set()
        assert [one.result() for one in both] == [(303, "/sent/1")] * 2
        assert await submit(submitted, b"form", act) == (303, "/sent/1")
        assert await submit(submitted, b"another", act) == (303, "/sent/2")

    asyncio.run(work())


def test_what_was_refused_or_failed_is_tried_again_also_by_who_waited() -> None:
    async def work() -> None:
        submitted, answers = Submitted(), [PlainTextResponse("no", 400), RedirectResponse("/", 303)]

        async def act() -> Response:
            await asyncio.sleep(0)
            return answers.pop(0)

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(submit(submitted, b"form", act)) for _ in range(2)]
        assert [one.result()[0] for one in both] == [400, 303]

        async def fail() -> Response:
            raise ConnectionError

        try:
            await submit(submitted, b"fails", fail)
        except ConnectionError:
            answers.append(PlainTextResponse("tried again"))
        assert await submit(submitted, b"fails", act) == (200, "")

    asyncio.run(work())


def test_only_the_latest_are_remembered() -> None:
    async def work() -> None:
        submitted, done = Submitted(), []

        async def act() -> Response:
            done.append(1)
            return RedirectResponse("/", 303)

        for number in range(REMEMBERED + 1):
            await submit(submitted, b"%d" % number, act)
        await submit(submitted, b"1", act)
        assert len(done) == REMEMBERED + 1, "the second one is remembered"
        await submit(submitted, b"0", act)
        assert len(done) == REMEMBERED + 2, "the first one no longer"

    asyncio.run(work())
