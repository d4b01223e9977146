"""What several of carry's operations take and answer."""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.carry import places

Life = Literal["hour", "day", "week", "always"]
LETTER_HEX = 32
POST_HEX = 64


class CustodyEvent(msgspec.Struct, frozen=True):
    """Where a message has been: ``kept``, ``copied``, ``received`` or ``read``, and when."""

    event: str
    at_ms: int


class Message(msgspec.Struct, frozen=True):
    """A letter, a post, or a text of a group.

    ``from`` and ``to`` are IDs; a post is ``to`` its channel, a text to its group. A letter is ``verified`` when the
    six words of the other person were compared and its device is one that was accepted and that they have not ended, a
    post when a device signed it that the channel's owner vouches for, a text of a group when its writer's words were
    compared. ``name`` is what the person calls the other one, or else what they call themself. The custody of a text
    has one ``received`` for each member who is known to have it. From ``until_ms`` on one that disappears is gone.
    """

    id: str
    from_: str = msgspec.field(name="from")
    to: str
    text: str
    at_ms: int
    verified: bool
    custody: list[CustodyEvent]
    name: str
    unread: bool = False
    until_ms: int | None = None


class Sent(msgspec.Struct, frozen=True):
    """The id of what was written."""

    id: str


class Marked(msgspec.Struct, frozen=True):
    """How many letters are read now that were not before."""

    read: int


def life_of(life: Life | None) -> int | None:
    """A life in ms, 0 for ever; None where nothing is said."""
    return None if life is None else places.LIVES.get(life, 0)


def at_most(limit: int | None) -> int:
    """A limit as questions to tables take it; raises UsageError below 1."""
    if limit is None:
        return -1
    if limit < 1:
        raise UsageError("a limit is at least 1")
    return min(limit, sys.maxsize)  # more than a column can count


def read_hex(text: str, digits: int) -> bytes:
    """The bytes of an id; raises NotFoundError when it is none of so many digits."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(text) != digits or len(found) * 2 != digits:
        raise NotFoundError("there is nothing with this id: copy it whole")
    return found
