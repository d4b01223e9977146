"""What can be asked of carry through the local API and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import msgspec

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Person, id_text, space_text
from outlast.rooms.carry import attention, files, group_api, group_view, groups, service, talk_api
from outlast.rooms.carry.io import media
from outlast.rooms.carry.proto.patch import MediaError
from outlast.rooms.carry.service import Channel as FollowedChannel
from outlast.rooms.carry.shapes import (
    LETTER_HEX,
    POST_HEX,
    CustodyEvent,
    Life,
    Marked,
    Message,
    Sent,
    at_most,
    life_of,
    read_hex,
)
from outlast.rooms.carry.view import ChannelPost
from outlast.rooms.carry.view import Message as Letter
from outlast.ui.file import existing_file, new_file
from outlast.ui.operation import Call, Nothing, Operation


class Channel(msgspec.Struct, frozen=True):
    """A channel that the person follows; ``owner`` is an ID, null until the channel's beginning has arrived.

    ``signers`` are the IDs of whom the owner named to write in it, too.
    """

    id: str
    name: str
    link: str
    owner: str | None
    may_post: bool
    unread: int
    signers: tuple[str, ...] = ()


class SendParams(msgspec.Struct, frozen=True):
    """``to`` is a contact: ID, name, or the beginning of an ID.

    It is shown there and here for ``life``; without it as is set for this contact (``carry.life``).
    """

    to: str
    text: str
    reply_to: str | None = None
    life: Life | None = None


class ListParams(msgspec.Struct, frozen=True):
    """Only the newest ``limit``; all without it."""

    limit: int | None = None


class FoundParams(msgspec.Struct, frozen=True):
    """What the channel is to be called, and the contacts who are to write in it, too: said once and for ever."""

    name: str
    signers: tuple[str, ...] = ()


class ChannelParams(msgspec.Struct, frozen=True):
    """A channel: link, ID, name, or the beginning of an ID."""

    channel: str


class PostParams(msgspec.Struct, frozen=True):
    """A channel of one's own, and what to post there; ``life`` as for letters."""

    channel: str
    text: str
    reply_to: str | None = None
    life: Life | None = None


class ReadParams(msgspec.Struct, frozen=True):
    """A followed channel; only its newest ``limit`` posts."""

    channel: str
    limit: int | None = None


class SearchParams(msgspec.Struct, frozen=True):
    """Words that must all occur, in whatever case."""

    text: str


class IdParams(msgspec.Struct, frozen=True):
    """A letter's id (32 hex digits), or that of a post or a text in a group (64)."""

    id: str


class IdsParams(msgspec.Struct, frozen=True):
    """Letters that came; all unread ones without ids."""

    ids: list[str] | None = None


class File(msgspec.Struct, frozen=True):
    """A file, known by the ``id`` of the letter, or the entry of a group or channel, that names it.

    ``state``: ``offered`` (large, and waits to be asked for), ``coming``, ``here`` or ``gone``; ``held`` of its
    ``bytes`` are on this node. A file of one's own is ``received`` when all of it is at whom it is for; of one in a
    channel that is told to nobody.
    """

    id: str
    from_: str = msgspec.field(name="from")
    to: str
    name: str
    type: str
    bytes: int
    held: int
    state: str
    at_ms: int
    until_ms: int
    custody: list[CustodyEvent]
    who: str


class FileSendParams(msgspec.Struct, frozen=True):
    """``to`` is a contact, group or channel, ``file`` an absolute path; ``name`` is what it is called there.

    What photos, films and recordings tell beside what one sees and hears is taken out, of others nothing can be: those
    leave only ``as_it_is``, and so does everything that is to keep what it tells.
    """

    to: str
    file: str
    name: str | None = None
    as_it_is: bool = False


class FileSent(msgspec.Struct, frozen=True):
    """The id of a file, and what it is called there; it was ``cleaned`` unless it left as it is."""

    id: str
    name: str
    cleaned: bool


class FileGetParams(msgspec.Struct, frozen=True):
    """A file's id, and the absolute path to write it to; a folder takes it under its own name.

    With ``wait`` the answer comes when all of it is here.
    """

    id: str
    file: str
    wait: bool = False


class FileListParams(msgspec.Struct, frozen=True):
    """Only with the contact, group or channel ``peer``, only the newest ``limit``."""

    peer: str | None = None
    limit: int | None = None


class Written(msgspec.Struct, frozen=True):
    """A file that was written, and its size."""

    file: str
    bytes: int


def _file_id(text: str) -> bytes:
    return read_hex(text, POST_HEX if len(text) == POST_HEX else LETTER_HEX)


async def _file_send(call: Call[FileSendParams]) -> FileSent:
    params = call.params
    to = attention.find(call.node, call.person, params.to).place
    path = Path(params.file)
    with existing_file(path) as opened:
        ready = await _ready(media.Opened(opened), files.preview_bytes(call.person, to), params.as_it_is)
        name = media.renamed(params.name or path.name, ready.type)
        letter = await files.send(
            call.node,
            call.person,
            to,
            media.threaded(ready.pieces),
            name=name,
            type=ready.type,
            preview=ready.preview,
            size_bytes=ready.size_bytes,
            progress=call.progress,
        )
    return FileSent(letter.hex(), name, not params.as_it_is)


async def _ready(source: media.Source, preview_bytes: int, as_it_is: bool) -> media.Cleaned:
    """A file as it may leave; raises UsageError when that is not known to be so."""
    if as_it_is:
        return await media.as_it_is(source)
    try:
        ready = await media.clean(source, preview_bytes)
    except MediaError:
        raise UsageError(
            "what this file tells about you could not be taken out, so it was not sent:"
            " --as-it-is sends it all the same"
        ) from None
    if ready is None:
        raise UsageError(
            "Outlast cannot remove what this file tells about you, perhaps your name, the place, the time, the device: "
            "--as-it-is sends it all the same"
        )
    return ready


async def _file_list(call: Call[FileListParams]) -> list[File]:
    await groups.catch_up(call.node, call.person)
    peer = None if call.params.peer is None else attention.find(call.node, call.person, call.params.peer).place
    return _files(call, files.listing(call.node, call.person, peer=peer, limit=at_most(call.params.limit)))


async def _file_get(call: Call[FileGetParams]) -> Written:
    letter = _file_id(call.params.id)
    one = await files.ask(call.node, call.person, letter)
    if call.params.wait:
        one = await files.wait(call.node, call.person, letter, call.progress)
    if one.state != "here":
        raise NotFoundError(
            f"{one.held_bytes} of {one.file.size_bytes} bytes are here; the rest is fetched as soon as somebody has it"
        )
    path = Path(call.params.file)
    if path.is_dir():
        path = _free_name(path, one.file.name)  # its sender chose the name: it must not take another file's place
    with new_file(path, 0o600) as out:
        await files.write(call.node, call.person, letter, out, call.progress)
    if not one.file.is_public:
        await files.told(call.node, call.person, letter)  # a command's node is closed now, whatever else it has to do
    return Written(str(path), one.file.size_bytes)


def _free_name(folder: Path, name: str) -> Path:
    stem, dot, suffix = name.rpartition(".")
    names = (f"{stem or suffix} {number}{dot and stem and dot + suffix}" for number in count(2))
    return next(path for path in (folder / one for one in chain([name], names)) if not path.exists())


async def _file_let_go(call: Call[IdParams]) -> Nothing:
    await files.let_go(call.node, call.person, _file_id(call.params.id))
    return Nothing()


async def _send(call: Call[SendParams]) -> Sent:
    to = call.person.find(call.params.to)
    answered = read_hex(call.params.reply_to, LETTER_HEX) if call.params.reply_to else None
    life_ms = life_of(call.params.life)
    letter = await service.send(call.node, call.person, to.identity, call.params.text, answered, life_ms)
    return Sent(letter.hex())


async def _inbox(call: Call[ListParams]) -> list[Message]:
    return _letters(call.person, service.inbox(call.person, at_most(call.params.limit)))


async def _sent(call: Call[ListParams]) -> list[Message]:
    return _letters(call.person, service.sent(call.person, at_most(call.params.limit)))


async def _search(call: Call[SearchParams]) -> list[Message]:
    letters = _letters(call.person, service.search(call.person, call.params.text))
    texts = group_api.messages(call.person, groups.search(call.person, call.params.text))
    return sorted([*letters, *texts], key=lambda one: one.at_ms, reverse=True)


async def _mark_read(call: Call[IdsParams]) -> Marked:
    ids = call.params.ids
    if ids is None:
        letters = [letter.letter for letter in service.inbox(call.person) if letter.unread]
    else:
        letters = [read_hex(one, LETTER_HEX) for one in ids]
    return Marked(await service.mark_read(call.node, call.person, letters))


async def _create(call: Call[FoundParams]) -> Channel:
    signers = [call.person.find(signer).identity for signer in call.params.signers]
    return _channel(await service.create_channel(call.node, call.person, call.params.name, signers))


async def _follow(call: Call[ChannelParams]) -> Channel:
    return _channel(await service.follow(call.node, call.person, call.params.channel))


async def _unfollow(call: Call[ChannelParams]) -> Nothing:
    channel = service.find_channel(call.node, call.person, call.params.channel)
    await service.unfollow(call.node, call.person, channel.space)
    return Nothing()


async def _channels(call: Call[Nothing]) -> list[Channel]:
    return [_channel(one) for one in service.channels(call.node, call.person)]


async def _post(call: Call[PostParams]) -> Sent:
    channel = service.find_channel(call.node, call.person, call.params.channel)
    answered = read_hex(call.params.reply_to, POST_HEX) if call.params.reply_to else None
    life_ms = life_of(call.params.life)
    return Sent((await service.post(call.node, call.person, channel.space, call.params.text, answered, life_ms)).hex())


async def _read(call: Call[ReadParams]) -> list[Message]:
    channel = service.find_channel(call.node, call.person, call.params.channel)
    posts = service.read_channel(call.node, call.person, channel.space, limit=at_most(call.params.limit))
    return _posts(call.person, channel, posts)


async def _retract(call: Call[IdParams]) -> Nothing:
    if len(call.params.id) == LETTER_HEX:
        await service.take_back(call.node, call.person, read_hex(call.params.id, LETTER_HEX))
        return Nothing()
    id = read_hex(call.params.id, POST_HEX)
    if group_view.find(call.person, id) is not None:
        await groups.hide(call.node, call.person, id)
    else:
        await service.retract(call.node, call.person, id)
    return Nothing()


OPERATIONS: list[Operation[Any, Any]] = [
    Operation("carry.send", SendParams, Sent, _send, "Send a message to a contact.", unsafe=True),
    Operation("carry.inbox", ListParams, list[Message], _inbox, "The messages that came, oldest first."),
    Operation("carry.sent", ListParams, list[Message], _sent, "The messages that were sent, oldest first."),
    Operation("carry.search", SearchParams, list[Message], _search, "Messages with all of some words, newest first."),
    Operation(
        "carry.mark_read", IdsParams, Marked, _mark_read, "Mark messages as read and tell the senders.", unsafe=True
    ),
    Operation("carry.channel.create", FoundParams, Channel, _create, "Found a channel.", unsafe=True),
    Operation("carry.follow", ChannelParams, Channel, _follow, "Follow a channel by its link or ID.", unsafe=True),
    Operation("carry.unfollow", ChannelParams, Nothing, _unfollow, "Stop following a channel.", unsafe=True),
    Operation("carry.channels", Nothing, list[Channel], _channels, "The channels that are followed."),
    Operation("carry.post", PostParams, Sent, _post, "Post in a channel of one's own.", unsafe=True),
    Operation("carry.read", ReadParams, list[Message], _read, "The posts of a channel, oldest first."),
    Operation(
        "carry.retract",
        IdParams,
        Nothing,
        _retract,
        "Take back a message that never left, or remove a post from one's own channel or a message from a group.",
        unsafe=True,
    ),
    Operation(
        "carry.file.send",
        FileSendParams,
        FileSent,
        _file_send,
        "Send a file to a contact, a group or a channel.",
        unsafe=True,
    ),
    Operation("carry.file.list", FileListParams, list[File], _file_list, "The files that were sent and that came."),
    Operation("carry.file.get", FileGetParams, Written, _file_get, "Fetch a file, and write it down.", unsafe=True),
    Operation("carry.file.remove", IdParams, Nothing, _file_let_go, "Let go of a file here.", unsafe=True),
    *group_api.OPERATIONS,
    *talk_api.OPERATIONS,
]


def _files(call: Call[Any], found: Sequence[files.Held]) -> list[File]:
    person = call.person
    names = {contact.identity: contact.name for contact in person.contacts()}
    spaces = {group.space: group.name for group in groups.groups(person)}
    spaces |= {channel.space: channel.name for channel in service.channels(call.node, person)}
    custody = person.custody([one.id for one in found if one.file.outgoing])
    me = id_text(person.identity)
    answer = []
    for one in found:
        file = one.file
        peer = space_text(file.peer) if file.peer in spaces else id_text(file.peer)
        answer.append(
            File(
                id=one.id.hex(),
                from_=me if file.outgoing else peer,
                to=peer if file.outgoing else me,
                name=file.name,
                type=file.type,
                bytes=file.size_bytes,
                held=one.held_bytes,
                state=one.state,
                at_ms=file.at_ms,
                until_ms=one.until_ms,
                custody=[CustodyEvent(event.event, event.at_ms) for event in custody.get(one.id, ())],
                who=(names | spaces).get(file.peer, peer),
            )
        )
    return answer


def _letters(person: Person, letters: Sequence[Letter]) -> list[Message]:
    contacts = {contact.identity: contact for contact in person.contacts()}
    custody = service.custody(person, letters)
    me = id_text(person.identity)
    answer = []
    for letter in letters:
        contact = contacts.get(letter.peer)
        peer = id_text(letter.peer)
        events = [CustodyEvent(one.event, one.at_ms) for one in custody.get(letter.letter, ())]
        if letter.received_ms is not None:
            events.append(CustodyEvent("received", letter.received_ms))
        if letter.read_ms is not None:
            events.append(CustodyEvent("read", letter.read_ms))
        answer.append(
            Message(
                id=letter.letter.hex(),
                from_=me if letter.outgoing else peer,
                to=peer if letter.outgoing else me,
                text=letter.text,
                at_ms=letter.at_ms,
                verified=contact is not None and contact.verified_ms is not None and not service.doubts(person, letter),
                custody=events,
                name=contact.name if contact else peer,
                unread=letter.unread,
                until_ms=letter.until_ms,
            )
        )
    return answer


def _posts(person: Person, channel: FollowedChannel, posts: Sequence[ChannelPost]) -> list[Message]:
    names = {contact.identity: contact.name for contact in person.contacts()} | {person.identity: person.name}
    to = space_text(channel.space)
    return [
        Message(
            id=post.id.hex(),
            from_=id_text(post.author or post.device),
            to=to,
            text=post.text,
            at_ms=post.at_ms,
            verified=post.author is not None,
            custody=[],
            name=names.get(post.author, channel.name) if post.author else "",
            until_ms=post.until_ms,
        )
        for post in posts
    ]


def _channel(one: FollowedChannel) -> Channel:
    owner = id_text(one.owner) if one.owner else None
    signers = tuple(id_text(signer) for signer in one.signers)
    return Channel(one.id, one.name, one.link, owner, one.may_post, one.unread, signers)
