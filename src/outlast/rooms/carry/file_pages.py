"""The pages of files: choosing one and following it on its way, those that are here, playing and saving them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal
from weakref import WeakKeyDictionary

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import FILE_MAX_BYTES, Node, Person, parse_id, parse_space
from outlast.rooms.carry import attention, files, groups, service, uploads
from outlast.rooms.carry.bubbles import Shown, read_bytes, read_number
from outlast.rooms.carry.files import Held
from outlast.rooms.carry.io import media
from outlast.ui.arriving import arriving
from outlast.ui.page import attachment, error_line, fields, go, render, takes_files

PART_BYTES: Final = 4 << 20
"""Of a file in one request of a browser with JavaScript."""
FORM_BYTES: Final = 64 * 1024
"""Of a form around it."""
PIECES: Final = 16
"""Of 64 KiB, that are read and sent at a time."""
SHOWN_MAX_BYTES: Final = 32 << 20
SHOWN_KEPT_BYTES: Final = 8 << 20
"""Of pictures that were made anew for pages: kept for who looks again."""
PLAYED: Final = frozenset(
    ("audio/mp4", "audio/ogg", "audio/mpeg", "video/mp4", "video/quicktime", "video/webm", "video/3gpp")
)
"""What a page may play; whether the browser can is its own affair."""
_SIZE = re.compile(r"[0-9]{1,18}").fullmatch
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})").fullmatch

_shown: WeakKeyDictionary[Node, dict[tuple[str, bytes, str], bytes]] = WeakKeyDictionary()


def routes() -> list[Route]:
    """All pages of files."""
    return [
        Route("/carry/files", show_files, methods=["GET"]),
        Route("/carry/files/{file}/get", get, methods=["POST"]),
        Route("/carry/files/{file}/remove", let_go, methods=["POST"]),
        Route("/carry/files/{file}/save", save, methods=["GET"]),
        Route("/carry/files/{file}/play", play, methods=["GET"]),
        Route("/carry/files/{file}/small", show_small, methods=["GET"]),
        Route("/carry/files/{file}/picture", show_picture, methods=["GET"]),
        Route("/carry/waiting/{upload}", show_waiting, methods=["GET"]),
        Route("/carry/waiting/{upload}", take, methods=["POST"]),
        Route("/carry/waiting/{upload}/go", go_on, methods=["POST"]),
        Route("/carry/waiting/{upload}/drop", drop, methods=["POST"]),
        Route("/carry/{where}/{id}/files", show_form, methods=["GET"]),
        Route("/carry/{where}/{id}/files", take_whole, methods=["POST"]),
        Route("/carry/{where}/{id}/files/begin", begin, methods=["POST"]),
    ]


# ---- as pages show them ----


def shown(held: Held) -> Shown:
    """A file as pages show it."""
    file = held.file
    look: Literal["picture", "audio", "video", ""] = ""
    if held.state == "here" and file.type in media.INLINE and file.size_bytes <= SHOWN_MAX_BYTES:
        look = "picture"
    elif held.state == "here" and file.type in PLAYED:
        look = "audio" if file.type.startswith("audio/") else "video"
    percent = 100 * held.held_bytes // max(1, file.size_bytes)
    return Shown(
        held.id.hex(), file.name, file.size_bytes, file.outgoing, held.state, percent, bool(file.preview), look
    )


def files_of(request: Request, letters: Sequence[bytes]) -> dict[bytes, Shown]:
    """Those of the letters, or entries of groups, that name a file, with it."""
    found = files.files_of(request.state.node, request.state.person, letters)
    return {letter: shown(held) for letter, held in found.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A file in the list: with whom or which group it is, and where that stands."""

    file: Shown
    who: str
    href: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class _To:
    """For whom a file is."""

    id: bytes
    name: str
    href: str
    is_public: bool = False


# ---- choosing one, and following it ----


async def show_form(request: Request) -> Response:
    """The form to send a file, and those on their way."""
    return _form(request, _to(request))


@takes_files(FILE_MAX_BYTES)
async def take_whole(request: Request) -> Response:
    """A file by a plain form."""
    to = _to(request)
    node, person = request.state.node, request.state.person
    most = uploads.room_bytes(node, person, to.id)
    if (length := request.headers.get("content-length")) is not None:  # there is none when a form comes in chunks
        most = min(most, read_number(length))
    try:
        coming = await arriving(request)
        await uploads.take_whole(node, person, to.id, coming.name, most, coming.data)
    except OutlastError as error:
        return _form(request, to, error)
    return go(to.href + "/files")


async def begin(request: Request) -> Response:
    """A file that comes in parts: what it is called here, and how much of it is here already."""
    to = _to(request)
    form = await fields(request)
    node, person = request.state.node, request.state.person
    size = form.get("size", "")
    try:
        if not _SIZE(size):  # an empty file is one that is said to be empty
            raise UsageError("This page cannot be used like that.")
        one = await uploads.begin(node, person, to.id, form.get("name", ""), int(size), form.get("mark", ""))
    except OutlastError as error:
        return _told(error=error_line(request, error), status=error.status)
    return _told(one)


async def show_waiting(request: Request) -> Response:
    """How much of a file is here."""
    return _told(uploads.find(request.state.node, request.state.person, _upload(request)))


@takes_files(PART_BYTES + FORM_BYTES)
async def take(request: Request) -> Response:
    """A part of a file."""
    node, person, id = request.state.node, request.state.person, _upload(request)
    try:
        part = await arriving(request)
        one = await uploads.take(node, person, id, read_number(part.fields.get("start", "")), part.data)
    except ClientDisconnect:
        return Response(status_code=400)
    except OutlastError as error:
        return _told(error=error_line(request, error), status=error.status)
    return _told(one)


async def go_on(request: Request) -> Response:
    """Send a file as it is, or try again."""
    node, person, id = request.state.node, request.state.person, _upload(request)
    back = _back(request, uploads.find(node, person, id).file.target)
    await uploads.go_on(node, person, id)
    return go(back)


async def drop(request: Request) -> Response:
    """Drop a file on its way."""
    node, person, id = request.state.node, request.state.person, _upload(request)
    back = _back(request, uploads.find(node, person, id).file.target)
    await uploads.drop(node, person, id)
    return go(back)


def _form(request: Request, to: _To, error: OutlastError | None = None) -> Response:
    node, person = request.state.node, request.state.person
    return render(
        request,
        "carry/send_file.html",
        status=error.status if error else 200,
        to=to,
        here=to.href + "/files",
        waiting=uploads.listing(node, person, to.id),
        room_bytes=uploads.room_bytes(node, person, to.id),
        part_bytes=PART_BYTES,
        kept_days=uploads.KEPT_DAYS,
        wrong=error_line(request, error),
    )


def _told(one: uploads.OnItsWay | None = None, *, error: str = "", status: int = 200) -> Response:
    told: dict[str, str | int] = {"error": error}
    if one is not None:
        told |= {"at": f"/carry/waiting/{one.file.id.hex()}", "held": one.held_bytes, "size": one.file.size_bytes}
    return Response(msgspec.json.encode(told), status, media_type="application/json")


# ---- those that are here ----


async def show_files(request: Request) -> Response:
    """All files that were sent and that came, and what they take here."""
    node, person = request.state.node, request.state.person
    rows = []
    for held in reversed(files.listing(node, person)):
        to = _named(request, held.file.peer)
        rows.append(Row(shown(held), to.name if to else "", to.href if to else "", held.file.at_ms))
    return render(
        request,
        "carry/files.html",
        files=rows,
        waiting=[(one, _named(request, one.file.target)) for one in uploads.listing(node, person)],
        taken_bytes=files.space_bytes(node, person),
        free_bytes=node.space_left(),
        kept_days=uploads.KEPT_DAYS,
    )


async def get(request: Request) -> Response:
    """Fetch a file from whoever has it."""
    held = await files.ask(request.state.node, request.state.person, _file(request))
    return go(_back(request, held.file.peer, held.id))


async def let_go(request: Request) -> Response:
    """Free what a file takes here."""
    await files.let_go(request.state.node, request.state.person, _file(request))
    return go("/carry/files")


async def save(request: Request) -> Response:
    """Download a file."""
    held = _whole(request)
    return _answer(request, held, "application/octet-stream", attachment(held.file.name))


async def play(request: Request) -> Response:
    """A recording or a film, for the player of a page."""
    held = _whole(request)
    if held.file.type not in PLAYED:
        raise NotFoundError("this file cannot be played here: save it")
    head = next(files.read(request.state.node, request.state.person, held.id), b"")
    if media.type_of(head[: media.HEAD_BYTES]) != held.file.type:
        raise NotFoundError("this file cannot be played here: save it")
    return _answer(request, held, held.file.type, {"content-security-policy": "default-src 'none'; sandbox"})


async def show_small(request: Request) -> Response:
    """The small picture of a file."""
    held = files.find(request.state.node, request.state.person, _file(request))
    return await _picture(request, held, "preview", held.file.preview)


async def show_picture(request: Request) -> Response:
    """A picture, as large as a screen."""
    node, person, held = request.state.node, request.state.person, _whole(request)
    if held.file.type not in media.INLINE or held.file.size_bytes > SHOWN_MAX_BYTES:
        raise NotFoundError("this file cannot be shown here: save it")
    data = await node.read(lambda: b"".join(files.read(node, person, held.id)))
    return await _picture(request, held, "show", data)


async def _picture(request: Request, held: Held, purpose: Literal["preview", "show"], data: bytes) -> Response:
    key = request.state.person.key, held.id, purpose
    kept = _shown.setdefault(request.state.node, {})
    made = kept.pop(key, None) or await media.shown(data, purpose)
    if not made:
        raise NotFoundError("this file cannot be shown here: save it")
    kept[key] = made
    while sum(map(len, kept.values())) > SHOWN_KEPT_BYTES:
        del kept[next(iter(kept))]
    return Response(made, media_type="image/webp", headers={"content-security-policy": "default-src 'none'; sandbox"})


def _answer(request: Request, held: Held, type_: str, headers: dict[str, str]) -> Response:
    """A file, or the part of it that was asked for (RFC 9110 §14)."""
    size = held.file.size_bytes
    start, end, status = 0, size, 200
    asked = _RANGE(request.headers.get("range", ""))
    if asked and (asked[1] or asked[2]):
        status = 206
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        end = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
        if start >= end:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        headers |= {"content-range": f"bytes {start}-{end - 1}/{size}"}
    headers |= {"accept-ranges": "bytes", "content-length": str(end - start)}
    body = _pieces(request.state.node, request.state.person, held, start, end)
    return StreamingResponse(body, status, headers, type_)


async def _pieces(node: Node, person: Person, held: Held, start: int, end: int) -> AsyncIterator[bytes]:
    pieces = files.read(node, person, held.id, start)
    while start < end:
        data = await node.read(lambda: b"".join(islice(pieces, PIECES)))
        if not data:
            return
        yield data[: end - start]
        start += len(data)


# ---- what addresses name ----


def _upload(request: Request) -> bytes:
    return read_bytes(request.path_params["upload"])


def _file(request: Request) -> bytes:
    return read_bytes(request.path_params["file"])


def _whole(request: Request) -> Held:
    held = files.find(request.state.node, request.state.person, _file(request))
    if held.state != "here":
        raise NotFoundError("not all of this file is here: ask for it and wait until it is")
    return held


def _to(request: Request) -> _To:
    person: Person = request.state.person
    where, id = request.path_params["where"], request.path_params["id"]
    if where == "with":
        contact = person.contact(parse_id(id))
        if contact.blocked:
            raise UsageError("this person is blocked: unblock them first")
        return _To(contact.identity, contact.name, f"/carry/with/{contact.id}")
    if where == "groups":
        group = groups.get(person, parse_space(id))
        return _To(group.space, group.name, f"/carry/groups/{group.id}")
    if where == "channels":
        channel = service.channel(request.state.node, person, parse_space(id))
        if not channel.may_post:
            raise UsageError("only this channel's owner, and whom they named when they founded it, write in it")
        return _To(channel.space, channel.name, f"/carry/channels/{channel.id}", is_public=True)
    raise NotFoundError("there is no such page here")


def _named(request: Request, target: bytes) -> _To | None:
    """What an identity, or a group's or channel's space means; None when it is not known any more."""
    with contextlib.suppress(NotFoundError):
        where = attention.where(request.state.node, request.state.person, target)
        return _To(target, where.name, where.page)
    return None


def _back(request: Request, target: bytes, message: bytes | None = None) -> str:
    """Where a form of a file's bubble leads, or one of a file on its way."""
    to = _named(request, target)
    if to is None:
        return "/carry/files"
    return f"{to.href}?at={message.hex()}#m{message.hex()}" if message else f"{to.href}/files"
