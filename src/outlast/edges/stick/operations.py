"""The operations on sticks, for the command line and the local API."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from outlast.edges.stick import files, service
from outlast.edges.stick.media import Medium
from outlast.edges.stick.memory import Targets
from outlast.kernel import id_text, parse_space, space_text
from outlast.ui.operation import Call, Nothing, Operation


class OneStick(msgspec.Struct, frozen=True):
    """A stick by its name, folder or device; it may be left out when there is one."""

    stick: str | None = None


class Writing(msgspec.Struct, frozen=True):
    """For whom something is written on a stick: contacts by ID or name, channels by ID."""

    to: list[str] = []
    channels: list[str] = []
    stick: str | None = None


class StickFile(msgspec.Struct, frozen=True):
    """A file on a stick, as far as this node can tell.

    ``holds``: ``mine`` (for you, not read yet), ``followed`` (a channel that you follow), ``read`` (read here before),
    ``channel`` (another channel, open to all), ``written`` (written here, ``for`` whom), ``other`` (for somebody else),
    ``damaged``, ``half`` (what a pulled stick left).
    """

    file: str
    holds: service.State
    bytes: int
    changed_ms: int
    for_: str | None = msgspec.field(default=None, name="for")


class StickState(msgspec.Struct, frozen=True):
    """A stick and what it holds; ``error`` when that cannot be seen."""

    name: str
    folder: str
    device: str
    filesystem: str
    read_only: bool
    bytes: int
    free: int
    auto: bool
    error: str
    files: list[StickFile]


class StickTaken(msgspec.Struct, frozen=True):
    """What was read: files and entries, how many were new, what was wrong."""

    files: int
    entries: int
    new: int
    problems: list[str]


class StickGiven(msgspec.Struct, frozen=True):
    """What was written and is durable: files and bytes, how many entries had no room, what was not written."""

    files: int
    bytes: int
    left_out: int
    problems: list[str]


class StickErased(msgspec.Struct, frozen=True):
    """How many files of Outlast were overwritten and deleted."""

    files: int


class StickOut(msgspec.Struct, frozen=True):
    """All is written. ``unmounted``: it is safe to pull the stick out now; else the system has to be told first."""

    unmounted: bool


async def stick_list(call: Call[Nothing]) -> list[StickState]:
    """The sticks that are there."""
    return [_state(one) for one in await service.sticks(call.person)]


async def stick_read(call: Call[OneStick]) -> StickTaken:
    """Take in what is for the caller."""
    taken = await service.read(call.person, await _medium(call), call.progress)
    return StickTaken(taken.files, taken.entries, taken.new, [str(one) for one in taken.problems])


async def stick_write(call: Call[Writing]) -> StickGiven:
    """Write for those who were named."""
    person, params = call.person, call.params
    contacts = [person.find(one).identity for one in params.to]
    targets = Targets(contacts, [parse_space(one) for one in params.channels])
    given = await service.write(person, await _medium(call), targets, call.progress)
    return StickGiven(given.files, given.size, given.left_out, [str(one) for one in given.problems])


async def stick_erase(call: Call[OneStick]) -> StickErased:
    """Erase Outlast's files."""
    return StickErased(await service.erase(call.person, await _medium(call), call.progress))


async def stick_out(call: Call[OneStick]) -> StickOut:
    """Make all durable and unmount."""
    return StickOut(await service.take_out(await _medium(call)))


async def _medium(call: Call[OneStick] | Call[Writing]) -> Medium:
    return files.one_of(await service.found_media(call.person), call.params.stick)


def _state(stick: service.Stick) -> StickState:
    medium = stick.medium
    listed = [_file(medium, one) for one in stick.bundles]
    return StickState(
        medium.name,
        str(medium.folder),
        medium.device,
        medium.filesystem,
        medium.read_only,
        stick.size,
        stick.free,
        stick.auto,
        str(stick.error or ""),
        listed,
    )


def _file(medium: Medium, bundle: service.Bundle) -> StickFile:
    found, target = bundle.found, bundle.target
    # Names of files are bytes; what is no text in them is shown as such.
    name = str(found.path.relative_to(medium.folder)).encode(errors="replace").decode()
    shown = None if target is None else (id_text(target) if bundle.is_for_contact else space_text(target))
    return StickFile(name, bundle.state, found.size, found.changed_ms, shown)


OPERATIONS: Final[list[Operation[Any, Any]]] = [
    Operation("stick.list", Nothing, list[StickState], stick_list, "The sticks that are there, and what they hold"),
    Operation("stick.read", OneStick, StickTaken, stick_read, "Take in what a stick brings for you", unsafe=True),
    Operation("stick.write", Writing, StickGiven, stick_write, "Write a stick for contacts, channels", unsafe=True),
    Operation("stick.erase", OneStick, StickErased, stick_erase, "Erase Outlast's files on a stick", unsafe=True),
    Operation("stick.out", OneStick, StickOut, stick_out, "Make a stick safe to be pulled out", unsafe=True),
]
