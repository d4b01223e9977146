"""Carry's pages: conversations, channels, search. They parse forms, call the service and show; all works without JS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Contact, Custody, Node, Person, id_text, parse_id, parse_space, space_text
from outlast.rooms.carry import service, view
from outlast.rooms.carry.entries import LETTER_TEXT_MAX_BYTES, POST_TEXT_MAX_BYTES
from outlast.rooms.carry.service import Channel
from outlast.rooms.carry.view import ChannelPost, Message
from outlast.ui.page import Card, fields, go, render, translator

PAGE: Final = 50
"""How many messages a page shows."""
QUOTE_CHARS: Final = 80
LATE_MS: Final = 10 * 60 * 1000
"""From this delay on a message says when it came."""
LATEST: Final = "#latest"


@dataclass(frozen=True, slots=True)
class Stage:
    """One station of a message: ``event`` as in custody, when it first happened, and how often."""

    event: str
    at_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class Bubble:
    """A message as the page shows it."""

    id: str  # hex
    text: str
    mine: bool
    at_ms: int
    came_ms: int | None = None  # when it came, if that was noticeably later
    unread: bool = False
    quote: str = ""  # the beginning of what it answers
    journey: tuple[Stage, ...] = ()
    can_be_taken_back: bool = False
    by: str = ""  # who wrote a post, when it is not the channel's owner
    doubt: str = ""  # why a letter may not be by whom it says, as a code


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
    ]


def card(request: Request) -> Card:
    """Carry on the home page: what waits to be read."""
    _ = translator(request)
    person: Person = request.state.person
    letters = len(view.unread(person))
    posts = sum(channel.unread for channel in service.channels(request.state.node, person))
    parts = []
    if letters:
        parts.append(_.ngettext("%(n)d new message", "%(n)d new messages", letters))
    if posts:
        parts.append(_.ngettext("%(n)d new post in channels", "%(n)d new posts in channels", posts))
    text = " · ".join(parts) or _("Nothing new. What you write waits here until it can travel.")
    href = "/carry/channels" if posts and not letters else "/carry/"
    return Card(href, _("Messages"), text, letters + posts, "messages")


# ---- conversations ----


async def show_conversations(request: Request) -> Response:
    """Everybody with whom there are letters, and everybody one could write to."""
    person: Person = request.state.person
    contacts = {contact.identity: contact for contact in person.contacts()}
    begun = [one for one in service.conversations(person) if one.peer in contacts]
    latest = _bubbles(person, [one.last for one in begun])
    known = {one.peer for one in begun}
    return render(
        request,
        "carry/conversations.html",
        conversations=[(contacts[one.peer], bubble, one.unread) for one, bubble in zip(begun, latest, strict=True)],
        others=[one for one in contacts.values() if one.identity not in known and not one.blocked],
    )


async def show_conversation(request: Request) -> Response:
    """The letters from and to one person, with where each has been."""
    return _conversation(request, _contact(request))


async def send(request: Request) -> Response:
    """Send a letter; what was typed stays on the page when it cannot be sent."""
    person: Person = request.state.person
    contact = _contact(request)
    form = await fields(request)
    text = form.get("text", "")
    try:
        answered = _bytes(form["reply_to"]) if form.get("reply_to") else None
        await service.send(request.state.node, person, contact.identity, text, answered)
    except OutlastError as error:
        return _conversation(request, contact, draft=text, error=error)
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
    letter = _bytes((await fields(request)).get("letter", ""))
    try:
        await service.take_back(request.state.node, request.state.person, letter)
    except OutlastError as error:
        return _conversation(request, contact, error=error)
    return go(f"/carry/with/{contact.id}{LATEST}")


def _conversation(
    request: Request, contact: Contact, *, draft: str = "", error: OutlastError | None = None
) -> Response:
    person: Person = request.state.person
    query = request.query_params
    at = view.find_message(person, _bytes(query["at"])) if "at" in query else None
    if at is not None and at.peer == contact.identity:
        found = [*service.conversation(person, contact.identity, at.letter, PAGE), at]
    else:
        found = service.conversation(person, contact.identity, limit=PAGE + 1)
    shown = found[-PAGE:]
    answered = view.find_message(person, _bytes(query["reply"])) if "reply" in query else None
    return render(
        request,
        "carry/conversation.html",
        status=error.status if error else 200,
        contact=contact,
        messages=_bubbles(person, shown),
        older=found[0].letter.hex() if len(found) > PAGE else "",
        earlier="at" in query,
        shown=" ".join(message.letter.hex() for message in shown if message.unread),
        answered=answered.letter.hex() if answered and answered.peer == contact.identity else "",
        quote=_beginning(answered.text) if answered and answered.peer == contact.identity else "",
        draft=draft,
        wrong=_line(request, error),
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
        wrong = _line(request, error)
        return render(request, "carry/search.html", status=400, words=words, found=None, wrong=wrong, live=False)
    contacts = {contact.identity: contact for contact in person.contacts()}
    rows = [
        (contacts[message.peer], bubble)
        for message, bubble in zip(found, _bubbles(person, found), strict=True)
        if message.peer in contacts
    ]
    # A page that answers a form cannot be fetched again, so it is not kept up to date.
    return render(request, "carry/search.html", words=words, found=rows, wrong="", live=False)


# ---- channels ----


async def show_channels(request: Request) -> Response:
    """The channels that are followed; forms to follow one and to found one."""
    return _channels(request)


async def create_channel(request: Request) -> Response:
    """Found a channel."""
    name = (await fields(request)).get("name", "")
    try:
        channel = await service.create_channel(request.state.node, request.state.person, name)
    except OutlastError as error:
        return _channels(request, name=name, error=error)
    return go(f"/carry/channels/{channel.id}")


async def follow_channel(request: Request) -> Response:
    """Follow a channel by its link or ID."""
    link = (await fields(request)).get("link", "")
    try:
        channel = await service.follow(request.state.node, request.state.person, link)
    except OutlastError as error:
        return _channels(request, link=link, error=error)
    return go(f"/carry/channels/{channel.id}")


def _channels(request: Request, *, name: str = "", link: str = "", error: OutlastError | None = None) -> Response:
    return render(
        request,
        "carry/channels.html",
        status=error.status if error else 200,
        channels=service.channels(request.state.node, request.state.person),
        most_unread=view.UNREAD_MAX,
        name=name,
        link=link,
        wrong=_line(request, error),
    )


async def show_channel(request: Request) -> Response:
    """A channel's posts."""
    return _show_channel(request, _channel(request))


async def post(request: Request) -> Response:
    """Post in one's own channel; what was typed stays on the page when that cannot be done."""
    channel = _channel(request)
    form = await fields(request)
    text = form.get("text", "")
    try:
        answered = _bytes(form["reply_to"]) if form.get("reply_to") else None
        await service.post(request.state.node, request.state.person, channel.space, text, answered)
    except OutlastError as error:
        return _show_channel(request, channel, draft=text, error=error)
    return go(f"/carry/channels/{channel.id}{LATEST}")


async def mark_channel_read(request: Request) -> Response:
    """Remember up to where the channel was read."""
    channel = _channel(request)
    upto = _number((await fields(request)).get("upto", ""))
    await service.mark_channel_read(request.state.node, request.state.person, channel.space, upto)
    return go(f"/carry/channels/{channel.id}{LATEST}")


async def remove_post(request: Request) -> Response:
    """Remove a post from one's own channel."""
    channel = _channel(request)
    one = _bytes((await fields(request)).get("post", ""))
    try:
        await service.retract(request.state.node, request.state.person, one)
    except OutlastError as error:
        return _show_channel(request, channel, error=error)
    return go(f"/carry/channels/{channel.id}{LATEST}")


async def unfollow_channel(request: Request) -> Response:
    """Stop following a channel."""
    await service.unfollow(request.state.node, request.state.person, _channel(request).space)
    return go("/carry/channels")


def _show_channel(
    request: Request, channel: Channel, *, draft: str = "", error: OutlastError | None = None
) -> Response:
    person: Person = request.state.person
    node: Node = request.state.node
    query = request.query_params
    at = view.find_post(node, _bytes(query["at"]), node.now_ms()) if "at" in query else None
    if at is not None and at.space == channel.space:
        found = [*service.read_channel(node, person, channel.space, at.id, PAGE), at]
    else:
        found = service.read_channel(node, person, channel.space, limit=PAGE + 1)
    shown = found[-PAGE:]
    answered = view.find_post(node, _bytes(query["reply"]), node.now_ms()) if "reply" in query else None
    if answered is not None and answered.space != channel.space:
        answered = None
    names = {contact.identity: contact.name for contact in person.contacts()}
    return render(
        request,
        "carry/channel.html",
        status=error.status if error else 200,
        channel=channel,
        owner=id_text(channel.owner) if channel.owner in names else "",
        owner_name=names.get(channel.owner, "") if channel.owner else "",
        mine=channel.owner == person.identity,
        messages=_posts(request, channel, shown, names),
        older=found[0].id.hex() if len(found) > PAGE else "",
        earlier="at" in query,
        upto=max((one.n for one in shown), default=0),
        answered=answered.id.hex() if answered else "",
        quote=_beginning(answered.text) if answered else "",
        draft=draft,
        wrong=_line(request, error),
        max_length=POST_TEXT_MAX_BYTES,
    )


# ---- what pages show ----


def _bubbles(person: Person, messages: Sequence[Message]) -> list[Bubble]:
    custody = service.custody(person, messages)
    return [_bubble(person, message, custody.get(message.letter, ())) for message in messages]


def _bubble(person: Person, message: Message, custody: Sequence[Custody]) -> Bubble:
    answered = view.find_message(person, message.reply_to) if message.reply_to else None
    late = message.received_ms is not None and message.received_ms - message.at_ms > LATE_MS
    return Bubble(
        id=message.letter.hex(),
        text=message.text,
        mine=message.outgoing,
        at_ms=message.at_ms,
        came_ms=message.received_ms if late else None,
        unread=message.unread,
        quote=_beginning(answered.text) if answered and answered.peer == message.peer else "",
        journey=stages(custody),
        can_be_taken_back=message.outgoing and [one.event for one in custody] == ["kept"],
        doubt=service.doubts(person, message),
    )


def stages(custody: Sequence[Custody]) -> tuple[Stage, ...]:
    """The stations of a letter by when they were first reached; each once. ``custody`` is in order."""
    first: dict[str, int] = {}
    for one in custody:
        first.setdefault(one.event, one.at_ms)
    return tuple(Stage(event, at_ms, sum(one.event == event for one in custody)) for event, at_ms in first.items())


def _posts(
    request: Request, channel: Channel, posts: Sequence[ChannelPost], names: Mapping[bytes, str]
) -> list[Bubble]:
    _ = translator(request)
    node: Node = request.state.node
    person: Person = request.state.person
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
                quote=_beginning(answered.text) if answered and answered.space == one.space else "",
                by=by,
            )
        )
    return bubbles


def _beginning(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= QUOTE_CHARS else line[: QUOTE_CHARS - 1] + "…"


def _line(request: Request, error: OutlastError | None) -> str:
    line = translator(request)(str(error)) if error else ""
    return line[:1].upper() + line[1:]


# ---- what addresses and forms name ----


def _contact(request: Request) -> Contact:
    person: Person = request.state.person
    return person.contact(parse_id(request.path_params["id"]))


def _channel(request: Request) -> Channel:
    space = space_text(parse_space(request.path_params["id"]))
    return service.find_channel(request.state.node, request.state.person, space)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise NotFoundError("there is no such message here") from None


def _many(text: str) -> list[bytes]:
    return [_bytes(one) for one in text.split()[:PAGE]]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
