"""What people do with carry: send, read, search; found channels, follow them, post and remove there.

Pages, commands and the local API call these functions and decide nothing themselves. What returns is durable; what is
refused is an OutlastError with one line.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from outlast.errors import LockedError, NotFoundError, StorageError, UsageError
from outlast.kernel import (
    SIGNERS_MAX,
    Custody,
    Delete,
    Node,
    Person,
    Put,
    RowChanges,
    Transaction,
    Update,
    make_channel_link,
    parse_channel,
    space_text,
)
from outlast.rooms.carry import files, forgetting, group_view, groups, places, shared, speaking, uploads, view
from outlast.rooms.carry.entries import (
    HIDE,
    OUTLIVING_MS,
    POST,
    POST_LIFE_MS,
    TEXT,
    Hide,
    Post,
    Text,
    letter_text,
    post_text,
)
from outlast.rooms.carry.private import ROOM_NAME, is_here, remember
from outlast.rooms.carry.view import ChannelPost, Conversation, Follow, Message

LOOK_S: Final = 3600.0
QUIET_S: Final = 1.0
"""So long nothing must have happened before letters are indexed,"""
INDEX_BATCH: Final = 50
"""so many at a time."""
LINK_PREFIX: Final = "outlast://"
PREFIX_MIN_CHARS: Final = 4
STATIONS: Final = ("kept", "copied", "received", "read")
"""Where a letter can have been, in the order in which it comes there."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that a person follows. ``owner`` is None until the channel's beginning has arrived."""

    space: bytes  # 32 B
    name: str
    owner: bytes | None  # 32 B, identity
    may_post: bool
    unread: int
    last: ChannelPost | None
    forked: bool  # two people write with a signer's key, or a copied device does
    signers: tuple[bytes, ...] = ()  # 32 B each, identities who may write beside the owner

    @property
    def id(self) -> str:
        """The channel's id as people copy it."""
        return space_text(self.space)

    @property
    def link(self) -> str:
        """The link by which others follow it."""
        return make_channel_link(self.space, self.name)


# ---- letters ----


async def send(
    node: Node, person: Person, to: bytes, text: str, reply_to: bytes | None = None, life_ms: int | None = None
) -> bytes:
    """Send a letter to a contact (identity, 32 B); returns its id (16 B) once it is durable here.

    It is shown for ``life_ms`` from now on, here and there, 0: until it is removed; without it for as long as is set
    for this conversation. Raises UsageError (empty, too long, blocked, no such life), NotFoundError (no such contact,
    or no such letter to answer) and StorageError; then nothing was kept.
    """
    text = letter_text(text)
    if reply_to is not None:
        answered = view.find_message(person, reply_to, node.now_ms())
        if answered is None or answered.peer != to:
            raise NotFoundError("the message that this answers is not in this conversation")
    life_ms = places.life_for(person, to, life_ms)
    at_ms = node.now_ms()

    def rows(letter: bytes) -> RowChanges:
        return [view.message_row(letter, to, text, reply_to, at_ms, None, life_ms=life_ms), places.sent(to)]

    return await person.send(to, TEXT.name, Text(text, reply_to), life_ms=life_ms, local=rows)


def inbox(person: Person, limit: int = -1) -> list[Message]:
    """The newest letters that came, oldest first."""
    return view.messages(person, person.node.now_ms(), outgoing=False, limit=limit)


def sent(person: Person, limit: int = -1) -> list[Message]:
    """The newest letters that the person sent, oldest first."""
    return view.messages(person, person.node.now_ms(), outgoing=True, limit=limit)


def conversations(person: Person) -> list[Conversation]:
    """Everybody with whom there are letters, the latest first."""
    return view.conversations(person, person.node.now_ms())


def conversation(person: Person, identity: bytes, before: bytes | None = None, limit: int = -1) -> list[Message]:
    """The newest letters from and to one person, oldest first; only those before the letter ``before``."""
    return view.conversation(person, identity, person.node.now_ms(), before=before, limit=limit)


def search(person: Person, text: str) -> list[Message]:
    """The letters with all words of ``text`` in them, the newest first; raises UsageError when there is no word."""
    words = text.split()
    if not words:
        raise UsageError("say what to look for")
    return view.search(person, words, person.node.now_ms())


async def mark_read(node: Node, person: Person, letters: Sequence[bytes]) -> int:
    """Mark letters as read and tell their senders; how many were unread."""
    now = node.now_ms()
    found = [m for letter in letters if (m := view.find_message(person, letter, now)) is not None and m.unread]
    if found:
        # Told first: a kill between the two repeats a receipt, in the other order it would lose one.
        await person.mark_read([m.letter for m in found])
        await remember(node, person, [Update(view.MESSAGE, {"n": m.n}, {"read_ms": now}) for m in found])
    return len(found)


async def take_back(node: Node, person: Person, letter: bytes) -> None:
    """Destroy a letter that never left this node; raises NotFoundError, or UsageError when it may have left."""
    message = view.find_message(person, letter, node.now_ms())
    if message is None or not message.outgoing:
        raise NotFoundError("there is no such message of yours")
    if not await person.take_back(letter, local=[Delete(table, {"letter": letter}) for table in view.OF_LETTERS]):
        raise UsageError("this message may have left already: it cannot be taken back")
    await node.write(person.vault.forget_deleted)


def doubts(person: Person, message: Message) -> str:
    """Why a letter may be by somebody else: ``revoked`` or ``unknown_device``; empty when nothing speaks for that."""
    if message.device is None or message.received_ms is None:
        return ""
    return person.doubts(message.device, message.received_ms)


def custody(person: Person, messages: Sequence[Message]) -> dict[bytes, list[Custody]]:
    """Where the person's own letters among these have been; what one stick told at once stands in its natural order."""
    found = person.custody([message.letter for message in messages if message.outgoing])
    return {
        letter: sorted(events, key=lambda one: (one.at_ms, STATIONS.index(one.event)))
        for letter, events in found.items()
    }


# ---- channels ----


async def create_channel(node: Node, person: Person, name: str, signers: Sequence[bytes] = ()) -> Channel:
    """Found a channel that everybody may read, and the person and some contacts (identities, 32 B) write.

    Who signs is said once and for ever. Raises UsageError for a bad name or too many, NotFoundError for no contact.
    """
    for identity in signers:
        if person.contact(identity).blocked:
            raise UsageError("somebody who is blocked here cannot sign for your channel")
    if len({person.identity, *signers}) > SIGNERS_MAX:
        raise UsageError("a channel has at most %(most)s signers, you among them", most=SIGNERS_MAX)
    space = await node.new_space(person, name, signers=signers)
    await remember(node, person, [_follow_row(node, space, " ".join(name.split()))])
    return channel(node, person, space)


async def follow(node: Node, person: Person, text: str) -> Channel:
    """Follow a channel by its link or ID: hold it, exchange it; raises UsageError when it is neither."""
    space, name = parse_channel(text)
    await node.follow(space)
    if not speaking.is_followed(person, space):
        await remember(node, person, [_follow_row(node, space, name)])
    return channel(node, person, space)


async def unfollow(node: Node, person: Person, space: bytes) -> None:
    """Stop following a channel; what is here of it goes, unless somebody else on this node may want it."""
    if not speaking.is_followed(person, space):
        raise NotFoundError("you do not follow this channel")
    await remember(node, person, [Delete(view.FOLLOW, {"space": space}), places.forget(space)])
    await node.let_go(space)


def channels(node: Node, person: Person) -> list[Channel]:
    """The channels that the person follows, the one with the latest post first."""
    found = [_channel(node, person, one) for one in view.follows(person)]
    return sorted(found, key=lambda channel: channel.last.n if channel.last else 0, reverse=True)


def channel(node: Node, person: Person, space: bytes) -> Channel:
    """The followed channel of that id (32 B); raises NotFoundError."""
    return _channel(node, person, speaking.check_followed(person, space))


def find_channel(node: Node, person: Person, text: str) -> Channel:
    """The followed channel meant by a link, an ID, a name, or the beginning of an ID.

    Raises NotFoundError, and UsageError when several are meant.
    """
    text = text.strip()
    if text.lower().startswith(LINK_PREFIX):
        text = space_text(parse_channel(text).space)
    everything = [_channel(node, person, one) for one in view.follows(person)]
    found = [channel for channel in everything if channel.id == text.lower()]
    found = found or [channel for channel in everything if channel.name.casefold() == text.casefold()]
    if not found and len(text) >= PREFIX_MIN_CHARS:
        found = [channel for channel in everything if channel.id.startswith(text.lower())]
    if not found:
        raise NotFoundError("you follow no channel %(text)r: follow it by its link or ID first", text=text[:80])
    if len(found) > 1:
        raise UsageError("%(n)s channels match %(text)r: use the whole ID", n=len(found), text=text[:80])
    return found[0]


def read_channel(
    node: Node, person: Person, space: bytes, before: bytes | None = None, limit: int = -1
) -> list[ChannelPost]:
    """The newest posts of a followed channel, oldest first; raises NotFoundError when it is not followed."""
    speaking.check_followed(person, space)
    return view.posts(node, space, node.now_ms(), before=before, limit=limit)


async def post(
    node: Node,
    person: Person,
    space: bytes,
    text: str,
    reply_to: bytes | None = None,
    life_ms: int | None = None,
) -> bytes:
    """Post in a channel of one's own; returns the post's id (32 B). ``life_ms`` as for letters.

    Raises UsageError (empty, too long, not one's own channel), NotFoundError (not followed, nothing there to answer)
    and StorageError.
    """
    text = post_text(text)
    speaking.check_followed(person, space)
    if reply_to is not None:
        answered = view.find_post(node, reply_to, node.now_ms())
        if answered is None or answered.space != space:
            raise NotFoundError("the post that this answers is not in this channel")
    await speaking.speak_for(node, person, space)
    life_ms = places.life_for(person, space, life_ms)
    body, local = Post(text, reply_to, life_ms), [places.sent(space)]
    clock = view.newest_clock(node, space)
    entry = await node.append(person, space, POST.name, body, life_ms=life_ms or POST_LIFE_MS, local=local, clock=clock)
    return entry.id


async def retract(node: Node, person: Person, id: bytes) -> None:
    """Remove a post from one's own channel: hidden at once wherever this arrives, and dropped there three days later.

    The bytes of a file are dropped at once.
    Raises NotFoundError, and UsageError when the channel is not one's own. Copies in other hands cannot be forced away.
    """
    found = view.find_post(node, id, node.now_ms())
    if found is None or not speaking.is_followed(person, found.space):
        raise NotFoundError("there is no such post in the channels that you follow")
    if found.device != person.device:
        await speaking.speak_for(node, person, found.space)
    file = shared.find(node, person, id)
    await node.append(person, found.space, HIDE.name, Hide(id), life_ms=OUTLIVING_MS)
    if file is not None:
        await shared.end(node, person, file)


async def mark_channel_read(node: Node, person: Person, space: bytes, upto_n: int) -> None:
    """Remember that the posts of a followed channel were read up to number ``upto_n``."""
    for one in view.follows(person):
        if one.space == space and one.read_n < upto_n:
            await remember(node, person, [Update(view.FOLLOW, {"space": space}, {"read_n": upto_n})])


# ---- by itself ----


async def run(node: Node) -> None:
    """While the node is open: hold the channels of whoever unlocks it, follow groups, drop what was removed, index."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_hold_channels(node))
        tasks.create_task(_drop_removed(node))
        tasks.create_task(files.run(node))
        tasks.create_task(forgetting.run(node))
        tasks.create_task(uploads.run(node))
        tasks.create_task(_index_texts(node))
        tasks.create_task(groups.run(node))


async def _hold_channels(node: Node) -> None:
    """Follow what the vaults name: after a restore the node's store does not know it yet."""
    here: set[str] = set()
    while True:
        revision = node.revision
        with contextlib.suppress(StorageError, LockedError):  # with the next news there may be room, or nobody
            for person in [person for key, person in node.people.items() if key not in here]:
                await _hold_channels_of(node, person)
            here = set(node.people)
        await node.wait(revision)


async def _hold_channels_of(node: Node, person: Person) -> None:
    for one in view.follows(person):
        if one.space not in node.spaces():
            await node.follow(one.space)
            if is_here(node, person):
                await remember(node, person, [Update(view.FOLLOW, {"space": one.space}, {"read_n": 0})])


async def _drop_removed(node: Node) -> None:
    while True:
        with contextlib.suppress(StorageError):
            await drop_due(node)
        await asyncio.sleep(LOOK_S)


async def drop_due(node: Node) -> None:
    """Drop the payloads of posts that were removed three days ago, or have disappeared, and their contents."""
    if due := view.due_to_drop(node, node.now_ms()):
        await node.write(partial(_drop, node, [one.post for one in due] + list(_contents(node, due))))
        await _fold(node)


def _contents(node: Node, due: Sequence[view.Due]) -> Iterator[bytes]:
    for one in due:
        content = node.open_store.get(one.content) if one.content else None
        if content is not None and shared.is_its(content, one.space, one.device):
            yield content.id


def _drop(node: Node, ids: Sequence[bytes]) -> None:
    for id in ids:
        node.open_store.drop_payload(id)


async def _index_texts(node: Node) -> None:
    """Make new texts quick to find, whenever nothing else is going on."""
    while True:
        revision = node.revision
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await node.wait(revision)
                continue
        with contextlib.suppress(StorageError, LockedError):
            for person in list(node.people.values()):
                while is_here(node, person) and node.revision == revision and await _index_some(node, person):
                    pass
        await node.wait(revision)


async def _index_some(node: Node, person: Person) -> bool:
    def fill(t: Transaction) -> int:
        return sum(t.execute(index.fill, (INDEX_BATCH,)) for index in (view.LETTERS, group_view.TEXTS))

    return await node.write(lambda: person.vault.write(fill)) > 0


async def _fold(node: Node) -> None:
    """Bring the view up to date with what was just removed; what arrives does so by itself."""
    while await node.write(lambda: node.open_store.fold(ROOM_NAME)):
        pass
    node.log_grew()


def _follow_row(node: Node, space: bytes, name: str) -> Put:
    return Put(view.FOLLOW, {"space": space, "name": name, "added_ms": node.now_ms(), "read_n": 0})


def _channel(node: Node, person: Person, one: Follow) -> Channel:
    now = node.now_ms()
    head = view.channel_head(node, one.space)
    latest = view.posts(node, one.space, now, limit=1)
    return Channel(
        space=one.space,
        name=head.name if head else one.name,
        owner=head.owner if head else None,
        may_post=head is not None and (head.writers == "anyone" or view.is_signer(node, one.space, person.identity)),
        unread=view.unread_posts(node, head, one.read_n, person.device, person.identity, now),
        last=latest[0] if latest else None,
        forked=head is not None and head.forked,
        signers=tuple(who for who in view.signers(node, one.space) if head is not None and who != head.owner),
    )
