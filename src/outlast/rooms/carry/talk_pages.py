"""What pages of people, groups and channels have in common: muting, lifetimes, drafts, removing; and notifications."""

from __future__ import annotations

import contextlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.errors import StorageError, UsageError
from outlast.kernel import Person
from outlast.rooms.carry import attention, forgetting, places
from outlast.rooms.carry.attention import Where
from outlast.rooms.carry.bubbles import LATEST, read_bytes
from outlast.ui.page import fields, go, render


def routes() -> list[Route]:
    """All of them; a place is named by 64 hex digits."""
    return [
        Route("/carry/place/{place}/mute", mute, methods=["POST"]),
        Route("/carry/place/{place}/life", set_life, methods=["POST"]),
        Route("/carry/place/{place}/draft", keep_draft, methods=["POST"]),
        Route("/carry/place/{place}/forget", forget, methods=["POST"]),
        Route("/carry/place/{place}/restore", restore, methods=["POST"]),
        Route("/carry/notices", show_notices, methods=["GET"]),
        Route("/carry/notices", set_notices, methods=["POST"]),
    ]


async def mute(request: Request) -> Response:
    """Mute a place, or no more."""
    where = _where(request)
    muted = (await fields(request)).get("muted") == "on"
    await places.mute(request.state.node, request.state.person, where.place, muted)
    return go(where.page)


async def set_life(request: Request) -> Response:
    """Set how long what is written in a conversation is shown."""
    where = _where(request)
    life_ms = read_life((await fields(request)).get("life", ""))
    await places.set_life(request.state.node, request.state.person, where.place, life_ms)
    return go(where.page)


async def keep_draft(request: Request) -> Response:
    """Keep what is being typed; a page that does so by itself shows no answer."""
    where = _where(request)
    text = (await fields(request)).get("text", "")
    await places.keep_draft(request.state.node, request.state.person, where.place, text)
    return Response(status_code=204)


async def forget(request: Request) -> Response:
    """Remove one letter of a conversation, or all, from the person's own vault."""
    where = _where(request)
    letter = (await fields(request)).get("letter", "")
    if letter:
        await forgetting.remove(request.state.node, request.state.person, read_bytes(letter))
    else:
        await forgetting.remove_all(request.state.node, request.state.person, where.place)
    return go(where.page + LATEST)


async def restore(request: Request) -> Response:
    """Bring back what was removed of a conversation."""
    where = _where(request)
    await forgetting.restore(request.state.node, request.state.person, where.place)
    return go(where.page + LATEST)


async def show_notices(request: Request) -> Response:
    """How the person hears of what comes."""
    person: Person = request.state.person
    return render(request, "carry/notices.html", quiet=attention.is_quiet(person))


async def set_notices(request: Request) -> Response:
    """Let open pages tell of what comes, or not."""
    quiet = (await fields(request)).get("quiet") == "on"
    await attention.set_quiet(request.state.node, request.state.person, quiet)
    return go("/carry/notices")


async def save_draft(request: Request, place: bytes, text: str) -> None:
    """Keep what could not be sent, unless the disk is full."""
    with contextlib.suppress(StorageError):
        await places.keep_draft(request.state.node, request.state.person, place, text)


def read_life(name: str) -> int:
    """The life (ms) that a form names; 0 for the empty one; raises UsageError."""
    if name and name not in places.LIVES:
        raise UsageError("This page cannot be used like that.")
    return places.LIVES.get(name, 0)


def life_name(life_ms: int) -> str:
    """The name of a life in forms; empty for none."""
    return next((name for name, one in places.LIVES.items() if one == life_ms), "")


def _where(request: Request) -> Where:
    return attention.where(request.state.node, request.state.person, read_bytes(request.path_params["place"]))
