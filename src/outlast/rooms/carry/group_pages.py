"""The pages of groups: reading and writing in them, who belongs, founding, invitations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Set

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.errors import OutlastError
from outlast.kernel import Node, Person, parse_id, parse_space
from outlast.rooms.carry import file_pages, group_view, groups, places, talk_pages, uploads
from outlast.rooms.carry.bubbles import (
    LATE_MS,
    LATEST,
    PAGE,
    Bubble,
    Stage,
    beginning,
    read_bytes,
    read_number,
    time_left,
)
from outlast.rooms.carry.entries import GROUP_TEXT_MAX_BYTES
from outlast.rooms.carry.group_view import Line
from outlast.rooms.carry.groups import Group, Scene
from outlast.ui.page import alike, error_line, fields, go, render, translator


def routes() -> list[Route]:
    """All pages of groups."""
    return [
        Route("/carry/groups/new", show_new, methods=["GET"]),
        Route("/carry/groups/new", create, methods=["POST"]),
        Route("/carry/groups/{id}", show_group, methods=["GET"]),
        Route("/carry/groups/{id}", post, methods=["POST"]),
        Route("/carry/groups/{id}/read", mark_read, methods=["POST"]),
        Route("/carry/groups/{id}/remove", remove_text, methods=["POST"]),
        Route("/carry/invitations", answer, methods=["POST"]),
        Route("/carry/groups/{id}/leave", leave, methods=["POST"]),
        Route("/carry/groups/{id}/name", rename, methods=["POST"]),
        Route("/carry/groups/{id}/members", show_members, methods=["GET"]),
        Route("/carry/groups/{id}/members/add", add_member, methods=["POST"]),
        Route("/carry/groups/{id}/members/remove", remove_member, methods=["POST"]),
        Route("/carry/groups/{id}/members/role", change_role, methods=["POST"]),
    ]


def bubble(request: Request, line: Line, scene: Scene | None = None) -> Bubble:
    """A line of a group as pages show it; ``scene`` is that group's."""
    _ = translator(request)
    person: Person = request.state.person
    scene = scene or groups.scene(person, line.space)
    author = scene.author(line)
    name = scene.name(author) if author else _("somebody unknown")
    mine = author == person.identity
    if line.event != group_view.TEXT:
        return Bubble("", "", False, line.at_ms, event=_event(request, line.event, name, mine))
    answered = groups.find_shown(person, line.space, line.reply_to) if line.reply_to else None
    note = ""
    if mine:
        known, others = scene.received(line)
        note = (
            _("received by %(n)d of %(all)d", n=known, all=others) if known else _("no member is known to have it yet")
        )
    return Bubble(
        id=(line.id or b"").hex(),
        text=line.text,
        mine=mine,
        at_ms=line.at_ms,
        came_ms=line.came_ms if line.came_ms - line.at_ms > LATE_MS else None,
        unread=line.read_ms is None,
        quote=beginning(answered.text) if answered else "",
        journey=(Stage("kept", line.at_ms, 1),) if mine else (),
        by="" if mine else name,
        note=note,
        left=time_left(line.until_ms - person.node.now_ms(), _) if line.until_ms else "",
        file=file_pages.files_of(request, [line.id]).get(line.id) if line.id else None,
    )


def _event(request: Request, event: str, name: str, mine: bool) -> str:
    _ = translator(request)
    match event:
        case "asked":
            return _("%(name)s was asked to join.", name=name)
        case "joined":
            return _("%(name)s joined.", name=name)
        case "leads":
            return _("You lead this group now.") if mine else _("%(name)s leads this group now.", name=name)
        case "follows":
            return (
                _("You do not lead this group any more.") if mine else _("%(name)s does not lead any more.", name=name)
            )
    return _("You were removed.") if mine else _("%(name)s is not in this group any more.", name=name)


# ---- a group ----


@alike
async def show_group(request: Request) -> Response:
    """What was said in a group."""
    return _show(request, _group(request), {})


async def post(request: Request) -> Response:
    """Say something; what was typed stays on the page when that cannot be done."""
    node, person, group = request.state.node, request.state.person, _group(request)
    form = await fields(request)
    text = form.get("text", "")
    try:
        answered = read_bytes(form["reply_to"]) if form.get("reply_to") else None
        life_ms = talk_pages.read_life(form["life"]) if "life" in form else None
        await groups.post(node, person, group.space, text, answered, life_ms)
    except OutlastError as error:
        await talk_pages.save_draft(request, group.space, text)
        return _show(request, group, form, error)
    # Who writes has read what the page showed.
    await groups.mark_read(node, person, group.space, read_number(form.get("upto", "")))
    return go(_address(group) + LATEST)


async def mark_read(request: Request) -> Response:
    """Remember up to where the group was read."""
    group = _group(request)
    upto = read_number((await fields(request)).get("upto", ""))
    await groups.mark_read(request.state.node, request.state.person, group.space, upto)
    return go(_address(group) + LATEST)


async def remove_text(request: Request) -> Response:
    """Take a text away."""
    group = _group(request)
    one = read_bytes((await fields(request)).get("line", ""))
    try:
        await groups.hide(request.state.node, request.state.person, one)
    except OutlastError as error:
        return _show(request, group, {}, error)
    return go(_address(group) + LATEST)


async def answer(request: Request) -> Response:
    """Join a group that one was asked into, or decline."""
    node, person, form = request.state.node, request.state.person, await fields(request)
    if "join" in form:
        return go(_address(await groups.join(node, person, parse_space(form["join"]))))
    await groups.leave(node, person, parse_space(form.get("decline", "")))
    return go("/carry/")


async def leave(request: Request) -> Response:
    """Leave a group."""
    await groups.leave(request.state.node, request.state.person, _space(request))
    return go("/carry/")


def _show(request: Request, group: Group, form: Mapping[str, str], error: OutlastError | None = None) -> Response:
    """The page; ``form`` has what could not be said, and how it was to be."""
    person: Person = request.state.person
    query = request.query_params
    at = groups.find_shown(person, group.space, read_bytes(query["at"])) if "at" in query else None
    if at is not None:
        found = [*groups.read(person, group.space, at.id, PAGE), at]
    else:
        found = groups.read(person, group.space, limit=PAGE + 1)
    shown = found[-PAGE:]
    reply = form.get("reply_to") or query.get("reply")
    answered = groups.find_shown(person, group.space, read_bytes(reply)) if reply else None
    texts = [line for line in shown if line.id is not None]
    scene, settings = groups.scene(person, group.space), places.find(person, group.space)
    draft = form.get("text") or settings.draft
    if not group.role:  # there is no field that it could come back in
        request.state.unsent = draft
    return render(
        request,
        "carry/group.html",
        status=error.status if error else 200,
        group=group,
        messages=[bubble(request, line, scene) for line in shown],
        waiting=uploads.listing(request.state.node, person, group.space),
        older=texts[0].id.hex() if len(found) > PAGE and texts and texts[0].id else "",
        earlier="at" in query,
        upto=max((line.n for line in shown), default=0),
        unread=any(line.read_ms is None for line in shown),
        answered=answered.id.hex() if answered and answered.id else "",
        quote=beginning(answered.text) if answered else "",
        draft=draft,
        settings=settings,
        place=group.space.hex(),
        life=talk_pages.life_name(settings.life_ms),
        life_of_this=form.get("life", talk_pages.life_name(settings.life_ms)),
        wrong=error_line(request, error),
        max_length=GROUP_TEXT_MAX_BYTES,
    )


# ---- founding ----


async def show_new(request: Request) -> Response:
    """The form to found a group."""
    return _show_new(request)


async def create(request: Request) -> Response:
    """Found a group with the contacts that were chosen."""
    person: Person = request.state.person
    form = await fields(request)
    name = form.get("name", "")
    chosen = [contact.identity for contact in person.contacts() if contact.id in form]
    try:
        group = await groups.create(request.state.node, person, name, chosen)
    except OutlastError as error:
        return _show_new(request, name=name, chosen=set(form), error=error)
    return go(_address(group))


def _show_new(
    request: Request, *, name: str = "", chosen: Set[str] = frozenset(), error: OutlastError | None = None
) -> Response:
    person: Person = request.state.person
    return render(
        request,
        "carry/group_new.html",
        status=error.status if error else 200,
        contacts=[contact for contact in person.contacts() if not contact.blocked],
        name=name,
        chosen=chosen,
        wrong=error_line(request, error),
    )


# ---- members ----


async def show_members(request: Request) -> Response:
    """Who belongs to a group, and what may be done about that."""
    return _show_members(request, _group(request))


async def add_member(request: Request) -> Response:
    """Ask a contact in, or tell a member everything once more."""
    return await _change(request, groups.add)


async def remove_member(request: Request) -> Response:
    """Remove a member."""
    return await _change(request, groups.remove)


async def change_role(request: Request) -> Response:
    """Let a member lead the group, or no longer."""
    return await _change(request, _set_role)


async def rename(request: Request) -> Response:
    """Call the group by another name, here alone."""
    group = _group(request)
    try:
        name = (await fields(request)).get("name", "")
        await groups.rename(request.state.node, request.state.person, group.space, name)
    except OutlastError as error:
        return _show_members(request, group, error)
    return go(_address(group) + "/members")


async def _set_role(node: Node, person: Person, space: bytes, identity: bytes) -> None:
    role = person.groups.membership(space).roles.get(identity)
    if role == groups.ADMIN:
        await groups.demote(node, person, space, identity)
    else:
        await groups.add(node, person, space, identity, groups.ADMIN)


async def _change(request: Request, act: Callable[[Node, Person, bytes, bytes], Awaitable[None]]) -> Response:
    group = _group(request)
    who = (await fields(request)).get("who", "")
    try:
        await act(request.state.node, request.state.person, group.space, parse_id(who))
    except OutlastError as error:
        return _show_members(request, group, error)
    return go(_address(group) + "/members")


def _show_members(request: Request, group: Group, error: OutlastError | None = None) -> Response:
    person: Person = request.state.person
    members = groups.members(person, group.space)
    inside = {member.identity for member in members}
    return render(
        request,
        "carry/group_members.html",
        status=error.status if error else 200,
        group=group,
        members=members,
        me=person.identity,
        strangers=sum(one.contact is None and one.identity != person.identity for one in members),
        others=[one for one in person.contacts() if one.identity not in inside and not one.blocked],
        wrong=error_line(request, error),
    )


# ---- what addresses name ----


def _space(request: Request) -> bytes:
    return parse_space(request.path_params["id"])


def _group(request: Request) -> Group:
    return groups.get(request.state.person, _space(request))


def _address(group: Group) -> str:
    return f"/carry/groups/{group.id}"
