"""Carry's pages: conversations, channels, search. They parse forms, call the service and show; all works without JS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.errors import OutlastError, UsageError
from outlast.kernel import Contact, Custody, Node, Person, id_text, parse_id, parse_space, space_text
from outlast.rooms.carry import (
    attention,
    file_pages,
    forgetting,
    group_pages,
    groups,
    places,
    service,
    talk_pages,
    uploads,
    view,
)
from outlast.rooms.carry.bubbles import (
    LATE_MS,
    LATEST,
    PAGE,
    Bubble,
    Shown,
    beginning,
    read_bytes,
    read_number,
    stages,
    time_left,
)
from outlast.rooms.carry.entries import LETTER_TEXT_MAX_BYTES, POST_TEXT_MAX_BYTES
from outlast.rooms.carry.service import Channel
from outlast.rooms.carry.view import ChannelPost, Message
from outlast.ui.page import Card, News, alike, error_line, fields, go, render, translator


def routes() -> list[Route]:
    """All pages of carry."""
    return [
        Route("/carry/", show_conversations, methods=["GET"]),
        Route("/carry/search", show_search, methods=["GET"]),
        Route("/carry/search", search, methods=["POST"]),
        Route("/carry/with/{id}", show_conversation, methods=["GET"]),
        Route("/carry/with/{id}", send, methods=["POST"]),
        Route("/carry/with/{id}/read", mark_read, methods=["POST"]),
        Route("/carry/with/{id}/back", take_back, methods=["POST"]),
        Route("/carry/channels", show_channels, methods=["GET"]),
        Route("/carry/channels/create", create_channel, methods=["POST"]),
        Route("/carry/channels/follow", follow_channel, methods=["POST"]),
        Route("/carry/channels/{id}", show_channel, methods=["GET"]),
        Route("/carry/channels/{id}", post, methods=["POST"]),
        Route("/carry/channels/{id}/read", mark_channel_read, methods=["POST"]),
        Route("/carry/channels/{id}/remove", remove_post, methods=["POST"]),
        Route("/carry/channels/{id}/leave", unfollow_channel, methods=["POST"]),
        *group_pages.routes(),
        *talk_pages.routes(),
        *file_pages.routes(),
    ]


def card(request: Request) -> Card:
    """Carry on the home page: what waits to be read."""
    _ = translator(request)
    waits = attention.waiting(request.state.node, request.state.person)
    parts = []
    if waits.letters:
        parts.append(_.ngettext("%(n)d new message", "%(n)d new messages", waits.letters))
    if waits.invitations:
        parts.append(_.ngettext("%(n)d invitation to a group", "%(n)d invitations to groups", waits.invitations))
    if waits.posts:
        parts.append(_.ngettext("%(n)d new post in channels", "%(n)d new posts in channels", waits.posts))
    text = " · ".join(parts) or _("Nothing new. What you write waits here until it can travel.")
    href = "/carry/channels" if waits.posts and not waits.talk else "/carry/"
    return Card(href, _("Messages"), text, waits.talk + waits.posts, "messages")


def news(request: Request) -> News:
    """What waits at carry's places in the bottom bar."""
    person: Person = request.state.person
    waits = attention.waiting(request.state.node, person)
    return News({"/carry/": waits.talk, "/carry/channels": waits.posts}, attention.is_quiet(person))


# ---- conversations ----


@alike
async def show_conversations(request: Request) -> Response:
    """Everybody with whom there are letters, and everybody one could write to."""
    person: Person = request.state.person
    contacts = {contact.identity: contact for contact in person.contacts()}
    begun = [one for one in service.conversations(person) if one.peer in contacts]
    latest = _bubbles(request, [one.last for one in begun])
    known = {one.peer for one in begun}
    muted, drafts = places.muted(person), places.drafts(person)
    rows = [
        _Row(
            f"/carry/with/{contact.id}",
            contact.name,
            bubble,
            one.unread,
            bubble.at_ms,
            _mark(request, contact),
            muted=contact.identity in muted or contact.blocked,
            draft=contact.identity in drafts,
        )
        for one, bubble in zip(begun, latest, strict=True)
        if (contact := contacts.get(one.peer)) is not None
    ]
    for group in groups.groups(person):
        last = group_pages.bubble(request, group.last) if group.last else None
        at_ms = max(last.at_ms if last else 0, group.since_ms)
        rows.append(
            _Row(
                f"/carry/groups/{group.id}",
                group.name,
                last,
                group.unread,
                at_ms,
                members=group.members,
                muted=group.space in muted,
                draft=group.space in drafts,
            )
        )
    return render(
        request,
        "carry/conversations.html",
        rows=sorted(rows, key=lambda row: row.at_ms, reverse=True),
        invitations=groups.invitations(person),
        others=[one for one in contacts.values() if one.identity not in known and not one.blocked],
        drafts=drafts,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """Somebody, or a group, in the list of conversations: where it leads, and what was said last."""

    href: str
    name: str
    last: Bubble | None
    unread: int
    at_ms: int
    mark: tuple[str, str] | None = None  # a warning: its level, and its word
    members: int = 0  # of a group
    muted: bool = False
    draft: bool = False


def _mark(request: Request, contact: Contact) -> tuple[str, str] | None:
    _ = translator(request)
    if contact.blocked:
        return "bad", _("blocked")
    return ("warn", _("new device")) if contact.warnings else None


@alike
async def show_conversation(request: Request) -> Response:
    """The letters from and to one person, with where each has been."""
    return _conversation(request, _contact(request), {})


async def send(request: Request) -> Response:
    """Send a letter; what was typed stays on the page when it cannot be sent."""
    person: Person = request.state.person
    contact = _contact(request)
    form = await fields(request)
    text = form.get("text", "")
    try:
        answered = read_bytes(form["reply_to"]) if form.get("reply_to") else None
        life_ms = talk_pages.read_life(form["life"]) if "life" in form else None
        await service.send(request.state.node, person, contact.identity, text, answered, life_ms)
    except OutlastError as error:
        await talk_pages.save_draft(request, contact.identity, text)
        return _conversation(request, contact, form, error)
    # Who answers has read what the page showed.
    await service.mark_read(request.state.node, person, _many(form.get("shown", "")))
    return go(f"/carry/with/{contact.id}{LATEST}")


async def mark_read(request: Request) -> Response:
    """Mark as read what the page showed, and tell the sender."""
    contact = _contact(request)
    shown = _many((await fields(request)).get("shown", ""))
    await service.mark_read(request.state.node, request.state.person, shown)
    return go(f"/carry/with/{contact.id}{LATEST}")


async def take_back(request: Request) -> Response:
    """Take back a letter that never left."""
    contact = _contact(request)
    letter = read_bytes((await fields(request)).get("letter", ""))
    try:
        await service.take_back(request.state.node, request.state.person, letter)
    except OutlastError as error:
        return _conversation(request, contact, {}, error)
    return go(f"/carry/with/{contact.id}{LATEST}")


def _conversation(
    request: Request, contact: Contact, form: Mapping[str, str], error: OutlastError | None = None
) -> Response:
    """The page; ``form`` has what could not be sent, and how it was to be."""
    person: Person = request.state.person
    node: Node = request.state.node
    query = request.query_params
    at = view.find_message(person, read_bytes(query["at"]), node.now_ms()) if "at" in query else None
    if at is not None and at.peer == contact.identity:
        found = [*service.conversation(person, contact.identity, at.letter, PAGE), at]
    else:
        found = service.conversation(person, contact.identity, limit=PAGE + 1)
    shown = found[-PAGE:]
    settings = places.find(person, contact.identity)
    if contact.blocked:  # there is no field that it could come back in
        request.state.unsent = form.get("text", "")
    reply = form.get("reply_to") or query.get("reply")
    answered = view.find_message(person, read_bytes(reply), node.now_ms()) if reply else None
    return render(
        request,
        "carry/conversation.html",
        status=error.status if error else 200,
        contact=contact,
        messages=_bubbles(request, shown),
        waiting=uploads.listing(request.state.node, person, contact.identity),
        older=found[0].letter.hex() if len(found) > PAGE else "",
        earlier="at" in query,
        shown=" ".join(message.letter.hex() for message in shown if message.unread),
        answered=answered.letter.hex() if answered and answered.peer == contact.identity else "",
        quote=beginning(answered.text) if answered and answered.peer == contact.identity else "",
        draft=form.get("text") or settings.draft,
        settings=settings,
        place=contact.identity.hex(),
        life=talk_pages.life_name(settings.life_ms),
        life_of_this=form.get("life", talk_pages.life_name(settings.life_ms)),
        removed=forgetting.removed(person, contact.identity, node.now_ms())[0],
        wrong=error_line(request, error),
        max_length=LETTER_TEXT_MAX_BYTES,
    )


# ---- search ----


async def show_search(request: Request) -> Response:
    """The form to look for words."""
    return render(request, "carry/search.html", words="", found=None, wrong="", live=False)


async def search(request: Request) -> Response:
    """What holds the words; they travel in the body, so that no history or log keeps them."""
    person: Person = request.state.person
    words = (await fields(request)).get("words", "")
    try:
        found = service.search(person, words)
    except UsageError as error:
        wrong = error_line(request, error)
        return render(request, "carry/search.html", status=400, words=words, found=None, wrong=wrong, live=False)
    _ = translator(request)
    contacts = {contact.identity: contact for contact in person.contacts()}
    rows = [
        _Found(
            f"/carry/with/{contact.id}?at={bubble.id}#m{bubble.id}",
            _("to") if bubble.mine else _("from"),
            contact.name,
            bubble,
        )
        for message, bubble in zip(found, _bubbles(request, found), strict=True)
        if (contact := contacts.get(message.peer)) is not None
    ]
    for line in groups.search(person, words):
        group, bubble = groups.get(person, line.space), group_pages.bubble(request, line)
        rows.append(
            _Found(f"/carry/groups/{group.id}?at={bubble.id}#m{bubble.id}", _("in the group"), group.name, bubble)
        )
    rows.sort(key=lambda row: row.message.at_ms, reverse=True)
    # A page that answers a form cannot be fetched again, so it is not kept up to date.
    return render(request, "carry/search.html", words=words, found=rows, wrong="", live=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """A message that was looked for: where it stands, and with whom or in which group."""

    href: str
    label: str
    name: str
    message: Bubble


# ---- channels ----


@alike
async def show_channels(request: Request) -> Response:
    """The channels that are followed; forms to follow one and to found one."""
    return _channels(request)


async def create_channel(request: Request) -> Response:
    """Found a channel, with the contacts that were chosen to write in it, too."""
    node, person, form = request.state.node, request.state.person, await fields(request)
    name = form.get("name", "")
    chosen = [contact.identity for contact in person.contacts() if contact.id in form]
    try:
        channel = await service.create_channel(node, person, name, chosen)
    except OutlastError as error:
        return _channels(request, name=name, chosen=set(form), error=error)
    return go(f"/carry/channels/{channel.id}")


async def follow_channel(request: Request) -> Response:
    """Follow a channel by its link or ID."""
    link = (await fields(request)).get("link", "")
    try:
        channel = await service.follow(request.state.node, request.state.person, link)
    except OutlastError as error:
        return _channels(request, link=link, error=error)
    return go(f"/carry/channels/{channel.id}")


def _channels(
    request: Request,
    *,
    name: str = "",
    link: str = "",
    chosen: Set[str] = frozenset(),
    error: OutlastError | None = None,
) -> Response:
    return render(
        request,
        "carry/channels.html",
        status=error.status if error else 200,
        channels=service.channels(request.state.node, request.state.person),
        muted=places.muted(request.state.person),
        contacts=[contact for contact in request.state.person.contacts() if not contact.blocked],
        chosen=chosen,
        most_unread=view.UNREAD_MAX,
        name=name,
        link=link,
        wrong=error_line(request, error),
    )


@alike
async def show_channel(request: Request) -> Response:
    """A channel's posts."""
    return _show_channel(request, _channel(request), {})


async def post(request: Request) -> Response:
    """Post in one's own channel; what was typed stays on the page when that cannot be done."""
    space = parse_space(request.path_params["id"])
    form = await fields(request)
    text = form.get("text", "")
    try:
        answered = read_bytes(form["reply_to"]) if form.get("reply_to") else None
        life_ms = talk_pages.read_life(form["life"]) if "life" in form else None
        await service.post(request.state.node, request.state.person, space, text, answered, life_ms)
    except OutlastError as error:
        channel = _channel(request)
        await talk_pages.save_draft(request, space, text)
        return _show_channel(request, channel, form, error)
    return go(f"/carry/channels/{space_text(space)}{LATEST}")


async def mark_channel_read(request: Request) -> Response:
    """Remember up to where the channel was read."""
    channel = _channel(request)
    upto = read_number((await fields(request)).get("upto", ""))
    await service.mark_channel_read(request.state.node, request.state.person, channel.space, upto)
    return go(f"/carry/channels/{channel.id}{LATEST}")


async def remove_post(request: Request) -> Response:
    """Remove a post from one's own channel."""
    channel = _channel(request)
    one = read_bytes((await fields(request)).get("post", ""))
    try:
        await service.retract(request.state.node, request.state.person, one)
    except OutlastError as error:
        return _show_channel(request, channel, {}, error)
    return go(f"/carry/channels/{channel.id}{LATEST}")


async def unfollow_channel(request: Request) -> Response:
    """Stop following a channel."""
    await service.unfollow(request.state.node, request.state.person, _channel(request).space)
    return go("/carry/channels")


def _show_channel(
    request: Request, channel: Channel, form: Mapping[str, str], error: OutlastError | None = None
) -> Response:
    """The page; ``form`` has what could not be posted, and how it was to be."""
    person: Person = request.state.person
    node: Node = request.state.node
    query = request.query_params
    at = view.find_post(node, read_bytes(query["at"]), node.now_ms()) if "at" in query else None
    if at is not None and at.space == channel.space:
        found = [*service.read_channel(node, person, channel.space, at.id, PAGE), at]
    else:
        found = service.read_channel(node, person, channel.space, limit=PAGE + 1)
    shown = found[-PAGE:]
    reply = form.get("reply_to") or query.get("reply")
    answered = view.find_post(node, read_bytes(reply), node.now_ms()) if reply else None
    if answered is not None and answered.space != channel.space:
        answered = None
    settings = places.find(person, channel.space)
    names = {contact.identity: contact.name for contact in person.contacts()}
    if not channel.may_post:
        request.state.unsent = form.get("text", "")
    return render(
        request,
        "carry/channel.html",
        status=error.status if error else 200,
        channel=channel,
        owner=id_text(channel.owner) if channel.owner in names else "",
        owner_name=names.get(channel.owner, "") if channel.owner else "",
        mine=channel.owner == person.identity,
        signers=[
            names.get(one, "") if one != person.identity else translator(request)("you") for one in channel.signers
        ],
        messages=_posts(request, channel, shown, names),
        waiting=uploads.listing(node, person, channel.space),
        older=found[0].id.hex() if len(found) > PAGE else "",
        earlier="at" in query,
        upto=max((one.n for one in shown), default=0),
        answered=answered.id.hex() if answered else "",
        quote=beginning(answered.text) if answered else "",
        draft=form.get("text") or settings.draft,
        settings=settings,
        place=channel.space.hex(),
        life=talk_pages.life_name(settings.life_ms),
        life_of_this=form.get("life", talk_pages.life_name(settings.life_ms)),
        wrong=error_line(request, error),
        max_length=POST_TEXT_MAX_BYTES,
    )


# ---- what pages show ----


def _bubbles(request: Request, messages: Sequence[Message]) -> list[Bubble]:
    person: Person = request.state.person
    custody = service.custody(person, messages)
    files = file_pages.files_of(request, [message.letter for message in messages])
    return [_bubble(request, one, custody.get(one.letter, ()), files.get(one.letter)) for one in messages]


def _bubble(request: Request, message: Message, custody: Sequence[Custody], file: Shown | None) -> Bubble:
    _ = translator(request)
    person: Person = request.state.person
    answered = view.find_message(person, message.reply_to, person.node.now_ms()) if message.reply_to else None
    late = message.received_ms is not None and message.received_ms - message.at_ms > LATE_MS
    return Bubble(
        id=message.letter.hex(),
        text=message.text,
        mine=message.outgoing,
        at_ms=message.at_ms,
        came_ms=message.received_ms if late else None,
        unread=message.unread,
        quote=beginning(answered.text) if answered and answered.peer == message.peer else "",
        journey=stages(custody),
        can_be_taken_back=message.outgoing and [one.event for one in custody] == ["kept"],
        doubt=service.doubts(person, message),
        left=time_left(message.until_ms - person.node.now_ms(), _) if message.until_ms else "",
        file=file,
    )


def _posts(
    request: Request, channel: Channel, posts: Sequence[ChannelPost], names: Mapping[bytes, str]
) -> list[Bubble]:
    _ = translator(request)
    node: Node = request.state.node
    person: Person = request.state.person
    files = file_pages.files_of(request, [one.id for one in posts])
    bubbles = []
    for one in posts:
        answered = view.find_post(node, one.reply_to, node.now_ms()) if one.reply_to else None
        by = "" if one.author == channel.owner else names.get(one.author or b"", _("somebody unknown"))
        bubbles.append(
            Bubble(
                id=one.id.hex(),
                text=one.text,
                mine=one.author == person.identity or one.device == person.device,
                at_ms=one.at_ms,
                quote=beginning(answered.text) if answered and answered.space == one.space else "",
                by=by,
                left=time_left(one.until_ms - node.now_ms(), _)
                if one.until_ms - one.at_ms <= places.LONGEST_MS
                else "",
                file=files.get(one.id),
            )
        )
    return bubbles


# ---- what addresses and forms name ----


def _contact(request: Request) -> Contact:
    person: Person = request.state.person
    return person.contact(parse_id(request.path_params["id"]))


def _channel(request: Request) -> Channel:
    return service.channel(request.state.node, request.state.person, parse_space(request.path_params["id"]))


def _many(text: str) -> list[bytes]:
    return [read_bytes(one) for one in text.split()[:PAGE]]
