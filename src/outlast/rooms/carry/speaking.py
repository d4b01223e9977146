"""Who follows channels here, and for whom a device speaks there."""

from __future__ import annotations

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Node, Person
from outlast.rooms.carry import view
from outlast.rooms.carry.entries import DEVICE, OUTLIVING_MS, POST_LIFE_MS, ChannelDevice
from outlast.rooms.carry.view import Follow


def is_followed(person: Person, space: bytes) -> bool:
    """Whether the person follows a channel."""
    return any(one.space == space for one in view.follows(person))


def check_followed(person: Person, space: bytes) -> Follow:
    """How the person follows a channel; raises NotFoundError when they do not."""
    for one in view.follows(person):
        if one.space == space:
            return one
    raise NotFoundError("you do not follow this channel: follow it by its link or ID first")


async def speak_for(node: Node, person: Person, space: bytes) -> None:
    """See to it that this device speaks in the channel for its owner, for as long as what it says now is shown."""
    head = view.channel_head(node, space)
    if head is None:
        raise UsageError("this channel's beginning has not arrived yet: wait for it, or bring it by a bundle")
    needed_ms = node.now_ms() + POST_LIFE_MS
    if head.writers == "anyone" or view.author_of(node, space, person.device, needed_ms) is not None:
        return
    if not view.is_signer(node, space, person.identity):
        raise UsageError("only this channel's owner, and whom they named when they founded it, write in it")
    await node.append(person, space, DEVICE.name, ChannelDevice(person.certificate), life_ms=OUTLIVING_MS)
