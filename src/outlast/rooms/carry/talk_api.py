"""What the local API can be asked of places where people talk: to mute them, let letters disappear, remove them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from outlast.errors import UsageError
from outlast.rooms.carry import attention, forgetting, places
from outlast.rooms.carry.shapes import LETTER_HEX, read_hex
from outlast.ui.operation import Call, Nothing, Operation


class MuteParams(msgspec.Struct, frozen=True):
    """``where`` is a contact, group or channel: link, ID, name, or the beginning of an ID."""

    where: str
    muted: bool = True


class LifeParams(msgspec.Struct, frozen=True):
    """How long is shown what is written from now on ``with`` a contact, group or channel; null: as long as can be."""

    with_: str = msgspec.field(name="with")
    life: Literal["hour", "day", "week"] | None = None


class ForgetParams(msgspec.Struct, frozen=True):
    """A letter's ``id`` (32 hex digits), or all letters ``with`` a contact."""

    id: str | None = None
    with_: str | None = msgspec.field(name="with", default=None)


class WithParams(msgspec.Struct, frozen=True):
    """A contact: ID, name, or the beginning of an ID."""

    with_: str = msgspec.field(name="with")


class Letters(msgspec.Struct, frozen=True):
    """How many letters it was."""

    letters: int


async def _mute(call: Call[MuteParams]) -> Nothing:
    where = attention.find(call.node, call.person, call.params.where)
    await places.mute(call.node, call.person, where.place, call.params.muted)
    return Nothing()


async def _life(call: Call[LifeParams]) -> Nothing:
    where = attention.find(call.node, call.person, call.params.with_)
    life_ms = places.LIVES[call.params.life] if call.params.life else 0
    await places.set_life(call.node, call.person, where.place, life_ms)
    return Nothing()


async def _forget(call: Call[ForgetParams]) -> Letters:
    params = call.params
    if (params.id is None) == (params.with_ is None):
        raise UsageError("say which message is to be removed, or with whom all of them")
    if params.with_ is not None:
        peer = call.person.find(params.with_).identity
        return Letters(await forgetting.remove_all(call.node, call.person, peer))
    await forgetting.remove(call.node, call.person, read_hex(params.id or "", LETTER_HEX))
    return Letters(1)


async def _restore(call: Call[WithParams]) -> Letters:
    peer = call.person.find(call.params.with_).identity
    return Letters(await forgetting.restore(call.node, call.person, peer))


OPERATIONS: list[Operation[Any, Any]] = [
    Operation(
        "carry.mute", MuteParams, Nothing, _mute, "Count and tell of nothing there, or do so again.", unsafe=True
    ),
    Operation("carry.life", LifeParams, Nothing, _life, "Let what is written there disappear.", unsafe=True),
    Operation("carry.forget", ForgetParams, Letters, _forget, "Remove messages from one's own vault.", unsafe=True),
    Operation(
        "carry.restore",
        WithParams,
        Letters,
        _restore,
        "Bring back what was removed of a conversation in the last ten minutes.",
        unsafe=True,
    ),
]
