"""Sneakernet: bundles carried by hand, on a stick or in a phone's downloads, and what each trip brought."""

import secrets
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from typing import IO, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from outlast.edges.gate import Access, route
from outlast.edges.stick import pages, service
from outlast.edges.stick.memory import memory, note, trips
from outlast.errors import NotFoundError, ProtocolError, UsageError
from outlast.kernel import BundleReport, Person, parse_id, parse_space, read_genesis, space_text
from outlast.ui.languages import marked
from outlast.ui.page import attachment, fields, go, render, upload

BUNDLE_MAX_BYTES: Final = 4 << 30
BLOCK_BYTES: Final = 256 * 1024
NOTICES: Final = {"read": marked("Read. What it brought stands below.")}


def routes() -> list[Route]:
    """The pages of the stick."""
    return [
        route("/stick", "GET", stick, Access.PERSON),
        route("/stick/write", "POST", write, Access.PERSON),
        route("/stick/read", "POST", read, Access.PERSON, BUNDLE_MAX_BYTES),
        *pages.routes(),
    ]


async def stick(request: Request) -> Response:
    """What waits to leave, for whom a bundle can be written, and the last trips."""
    person: Person = request.state.person
    contacts = [contact for contact in person.contacts() if not contact.blocked]
    listed = channels(person)
    names = {contact.identity: contact.name for contact in person.contacts()}
    names |= {parse_space(id): name for id, name in listed}
    return render(
        request,
        "stick.html",
        contacts=contacts,
        channels=listed,
        sticks=await service.sticks(person),
        work=pages.work_of(person),
        chosen_targets=memory(person).chosen,
        names=defaultdict(str, names),
        waiting=waiting_to_leave(person),
        trips=trips(person),
        chosen=request.query_params.get("to", ""),
        brought=request.query_params.get("said") == "read",
    )


def channels(person: Person) -> list[tuple[str, str]]:
    """The public channels that a person follows and whose beginning is known: their IDs and names."""
    named: list[tuple[str, str]] = []
    for entry in person.node.open_store.load(person.node.followed_by(person)):
        with suppress(ProtocolError):
            named.append((space_text(entry.id), read_genesis(entry).name))
    return sorted(named, key=lambda channel: channel[1].casefold())


def waiting_to_leave(person: Person) -> int:
    """How many letters are nowhere but here."""
    rows = person.query(
        "SELECT count(*) FROM custody AS kept WHERE event = 'kept' AND NOT EXISTS"
        " (SELECT 1 FROM custody WHERE letter = kept.letter AND event IN ('copied', 'received', 'read'))"
    )
    return int(rows[0][0])


async def write(request: Request) -> Response:
    """Download a bundle for a contact, or an open one of a channel."""
    person: Person = request.state.person
    form = await fields(request)
    if form.get("space"):
        to, space, who = None, parse_space(form["space"]), ""
        if space not in person.node.followed_by(person):
            raise NotFoundError("you do not follow this channel")
    else:
        if not form.get("to"):
            raise UsageError("Choose for whom the file is.")
        to, space = parse_id(form["to"]), None
        who = person.contact(to).name
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=person.node.home.path))
        report = await person.write_bundle(file, to=to, space=space)
        length = file.tell()
        file.seek(0)
        stack.pop_all()  # the answer closes it
    name = f"{secrets.token_hex(4)}.{secrets.token_hex(2)[:3]}"
    headers = attachment(name) | {"content-length": str(length)}
    return StreamingResponse(leaving(person, file, report, who), media_type="application/octet-stream", headers=headers)


async def leaving(person: Person, file: IO[bytes], report: BundleReport, who: str) -> AsyncIterator[bytes]:
    """The bytes of a bundle in turn. Once the browser took the last one, its letters have one more copy."""
    with file:
        while block := await run_in_threadpool(file.read, BLOCK_BYTES):
            yield block
    await person.bundle_left(report)
    await note(person, report, who, outward=True)


async def read(request: Request) -> Response:
    """Take in a bundle: what is whole is kept, the rest is named."""
    person: Person = request.state.person
    file, _form = await upload(request, "bundle")
    report = await person.read_bundle(file.file)
    await note(person, report, "", outward=False)
    return go("/stick", "read")
