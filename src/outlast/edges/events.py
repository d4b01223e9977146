"""News for open pages: server-sent events (HTML Living Standard §9.2) that say when to look again, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from outlast.edges.doors import STREAMS_MAX, Session
from outlast.edges.gate import TooOftenError, Web
from outlast.kernel import Node

HEARTBEAT_S: Final = 20.0


async def events(request: Request) -> Response:
    """A stream with the node's revision as ``id``: one for each change, until the session ends or the node locks."""
    session: Session = request.state.session
    if len(session.watchers) >= STREAMS_MAX:
        raise TooOftenError("Too many pages are open in this browser: close some.")
    return StreamingResponse(
        news(request.state.web, session, last_event(request)),
        media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},
    )


def last_event(request: Request) -> int | None:
    """The revision that the browser saw last: before it lost the connection, or when its page was made."""
    seen = request.headers.get("last-event-id") or request.query_params.get("since", "")
    return int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 16 else None


async def news(web: Web, session: Session, seen: int | None) -> AsyncIterator[str]:
    """The lines of one browser's stream."""
    node: Node = web.node
    ended = asyncio.Event()
    session.watchers.add(ended.set)
    ending = asyncio.create_task(ended.wait())
    # A revision of an earlier run may be higher than ours, and says only that the page is old.
    revision = node.revision if seen is None else seen if seen <= node.revision else -1
    try:
        # No id: a browser that loses the stream before it is told of what it missed must still ask for that.
        yield "retry: 1500\nevent: status\ndata: open\n\n"
        while True:
            change = asyncio.create_task(node.wait(revision))
            try:
                await asyncio.wait({change, ending}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if node.revision > revision:
                    await asyncio.wait({ending}, timeout=web.turns.take(asyncio.get_running_loop().time()))
            finally:
                change.cancel()
            if ended.is_set() or web.person_of(session) is None or not web.is_in(session):
                return
            if node.revision > revision:
                revision = node.revision
                yield f"id: {revision}\nevent: fragment\ndata: {revision}\n\n"
            else:
                yield ": still here\n\n"
    finally:
        ending.cancel()
        session.watchers.discard(ended.set)
