"""What can be asked of groups through the local API and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from outlast.errors import NotFoundError
from outlast.kernel import Person, id_text, space_text
from outlast.rooms.carry import group_view, groups
from outlast.rooms.carry.group_view import Line
from outlast.rooms.carry.groups import Group as JoinedGroup
from outlast.rooms.carry.shapes import (
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
from outlast.ui.operation import Call, Nothing, Operation


class Group(msgspec.Struct, frozen=True):
    """A group that the person has joined; ``role`` is owner, admin or member, empty when they were removed."""

    id: str
    name: str
    role: str
    members: int
    unread: int


class Invitation(msgspec.Struct, frozen=True):
    """A group that waits for an answer; ``from`` is what the person calls who asked."""

    id: str
    name: str
    from_: str = msgspec.field(name="from")


class Member(msgspec.Struct, frozen=True):
    """Somebody in a group.

    ``name`` is what the person calls them when they are a ``contact``, else what they call themself. Who has not
    ``joined`` was asked and has not answered yet.
    """

    id: str
    name: str
    role: str
    joined: bool
    contact: bool
    verified: bool


class CreateParams(msgspec.Struct, frozen=True):
    """What the group is to be called, and contacts (ID, name, or the beginning of an ID) to ask in."""

    name: str
    members: list[str] = []


class GroupParams(msgspec.Struct, frozen=True):
    """A group: ID, name, or the beginning of an ID."""

    group: str


class MemberParams(msgspec.Struct, frozen=True):
    """A group, and a member of it or a contact."""

    group: str
    who: str


class InviteParams(msgspec.Struct, frozen=True):
    """A group and a contact. Who ``leads`` may add and remove others, and take any message away."""

    group: str
    who: str
    leads: bool = False


class NameParams(msgspec.Struct, frozen=True):
    """A group, and what it is to be called here."""

    group: str
    name: str


class PostParams(msgspec.Struct, frozen=True):
    """A group, and what to say there; ``reply_to`` is the id of the text that it answers, ``life`` as for letters."""

    group: str
    text: str
    reply_to: str | None = None
    life: Life | None = None


class ReadParams(msgspec.Struct, frozen=True):
    """A group; only its newest ``limit`` texts."""

    group: str
    limit: int | None = None


def messages(person: Person, lines: Sequence[Line]) -> list[Message]:
    """Texts of groups as operations answer them."""
    verified = {contact.identity for contact in person.contacts() if contact.verified_ms is not None}
    scenes = {space: groups.scene(person, space) for space in {line.space for line in lines}}
    answer = []
    for line in lines:
        scene = scenes[line.space]
        author = scene.author(line)
        if line.event != group_view.TEXT or line.id is None or author is None:
            continue
        mine = author == person.identity
        custody = [CustodyEvent("kept", line.at_ms)] if mine else [CustodyEvent("received", line.came_ms)]
        if mine:
            custody += [CustodyEvent("received", at) for at in sorted(group_view.hearing(person, line.id).values())]
        answer.append(
            Message(
                id=line.id.hex(),
                from_=id_text(author),
                to=space_text(line.space),
                text=line.text,
                at_ms=line.at_ms,
                verified=mine or author in verified,
                custody=custody,
                name=scene.name(author),
                unread=line.read_ms is None,
                until_ms=line.until_ms,
            )
        )
    return answer


async def _create(call: Call[CreateParams]) -> Group:
    asked = [call.person.find(who).identity for who in call.params.members]
    return _group(await groups.create(call.node, call.person, call.params.name, asked))


async def _list(call: Call[Nothing]) -> list[Group]:
    await groups.catch_up(call.node, call.person)
    return [_group(one) for one in groups.groups(call.person)]


async def _invitations(call: Call[Nothing]) -> list[Invitation]:
    return [Invitation(one.id, one.name, one.sender) for one in groups.invitations(call.person)]


async def _invite(call: Call[InviteParams]) -> Nothing:
    space = groups.find(call.person, call.params.group).space
    who = call.person.find(call.params.who).identity
    await groups.add(call.node, call.person, space, who, groups.ADMIN if call.params.leads else groups.MEMBER)
    return Nothing()


async def _join(call: Call[GroupParams]) -> Group:
    try:
        space = groups.find_invitation(call.person, call.params.group)
    except NotFoundError:
        return _group(groups.find(call.person, call.params.group))  # who asks once more is in it already
    return _group(await groups.join(call.node, call.person, space))


async def _leave(call: Call[GroupParams]) -> Nothing:
    await groups.leave(call.node, call.person, groups.find_any(call.person, call.params.group))
    return Nothing()


async def _members(call: Call[GroupParams]) -> list[Member]:
    await groups.catch_up(call.node, call.person)
    space = groups.find(call.person, call.params.group).space
    return [
        Member(
            one.id,
            one.name,
            one.role,
            one.has_joined,
            one.contact is not None,
            one.contact is not None and one.contact.verified_ms is not None,
        )
        for one in groups.members(call.person, space)
    ]


async def _remove(call: Call[MemberParams]) -> Nothing:
    space = groups.find(call.person, call.params.group).space
    who = groups.find_member(call.person, space, call.params.who).identity
    await groups.remove(call.node, call.person, space, who)
    return Nothing()


async def _rename(call: Call[NameParams]) -> Group:
    space = groups.find(call.person, call.params.group).space
    await groups.rename(call.node, call.person, space, call.params.name)
    return _group(groups.get(call.person, space))


async def _post(call: Call[PostParams]) -> Sent:
    space = groups.find(call.person, call.params.group).space
    answered = read_hex(call.params.reply_to, POST_HEX) if call.params.reply_to else None
    life_ms = life_of(call.params.life)
    return Sent((await groups.post(call.node, call.person, space, call.params.text, answered, life_ms)).hex())


async def _read(call: Call[ReadParams]) -> list[Message]:
    await groups.catch_up(call.node, call.person)
    space = groups.find(call.person, call.params.group).space
    limit = at_most(call.params.limit)
    found = messages(call.person, groups.read(call.person, space))
    return found if limit < 0 else found[-limit:]


async def _mark_read(call: Call[GroupParams]) -> Marked:
    space = groups.find(call.person, call.params.group).space
    return Marked(await groups.mark_read(call.node, call.person, space))


OPERATIONS: list[Operation[Any, Any]] = [
    Operation("carry.group.create", CreateParams, Group, _create, "Found a group and ask contacts in.", unsafe=True),
    Operation("carry.group.list", Nothing, list[Group], _list, "The groups that were joined."),
    Operation(
        "carry.group.invitations", Nothing, list[Invitation], _invitations, "The groups that wait for an answer."
    ),
    Operation(
        "carry.group.invite",
        InviteParams,
        Nothing,
        _invite,
        "Ask a contact into a group, let a member lead it, or tell them everything once more.",
        unsafe=True,
    ),
    Operation("carry.group.join", GroupParams, Group, _join, "Join a group that one was asked into.", unsafe=True),
    Operation(
        "carry.group.leave", GroupParams, Nothing, _leave, "Leave a group, or decline an invitation.", unsafe=True
    ),
    Operation("carry.group.members", GroupParams, list[Member], _members, "Who belongs to a group."),
    Operation("carry.group.remove", MemberParams, Nothing, _remove, "Remove a member of a group.", unsafe=True),
    Operation(
        "carry.group.rename", NameParams, Group, _rename, "Call a group by another name, here alone.", unsafe=True
    ),
    Operation("carry.group.post", PostParams, Sent, _post, "Say something in a group.", unsafe=True),
    Operation("carry.group.read", ReadParams, list[Message], _read, "What was said in a group, oldest first."),
    Operation("carry.group.mark_read", GroupParams, Marked, _mark_read, "Mark a group as read.", unsafe=True),
]


def _group(one: JoinedGroup) -> Group:
    return Group(one.id, one.name, one.role, one.members, one.unread)
