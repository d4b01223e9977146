"""What a person's vault remembers of trips: the last ones, the files that were written and read, and known sticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from outlast.edges.residents import keep
from outlast.errors import Sentence
from outlast.kernel import BundleReport, Person

TRIPS_ROW: Final = "web/trips"
TRIPS_MAX: Final = 10
STICKS_ROW: Final = "web/sticks"
CARRIED_MAX: Final = 500
FOLDERS_MAX: Final = 8
KNOWN_MAX: Final = 16


class Trip(msgspec.Struct, array_like=True, frozen=True):
    """One bundle written or read here."""

    at_ms: int
    outward: bool
    who: str
    entries: int
    new: int
    damaged: int
    problems: list[Sentence]


class Targets(msgspec.Struct, array_like=True, frozen=True):
    """For whom something is written: identities of contacts and IDs of channels, 32 bytes each."""

    contacts: list[bytes] = []
    channels: list[bytes] = []


class Carried(msgspec.Struct, array_like=True, frozen=True):
    """A file that was written here for ``target`` (a contact or channel), or read here without a flaw (None)."""

    digest: bytes
    at_ms: int
    target: bytes | None = None


class KnownStick(msgspec.Struct, array_like=True, frozen=True):
    """A stick that takes and gives by itself, by the mark on it, and for whom."""

    mark: bytes
    targets: Targets


class Memory(msgspec.Struct, array_like=True, frozen=True):
    """Folders named by hand, files that left or came, sticks that work by themselves, for whom was written last.

    ``mounted`` are those of the folders where something was mounted when they were named.
    """

    folders: list[str] = []
    carried: list[Carried] = []
    known: list[KnownStick] = []
    chosen: Targets = Targets()
    mounted: list[str] = []

    def met(self, digest: bytes) -> Carried | None:
        """What is known of a file, by its beginning."""
        return next((one for one in self.carried if one.digest == digest), None)


def memory(person: Person) -> Memory:
    """What is remembered of sticks."""
    row = person.vault.meta(STICKS_ROW)
    return msgspec.msgpack.decode(row, type=Memory) if row else Memory()


async def remember(person: Person, changed: Memory) -> None:
    """Keep what is remembered of sticks; of too much the oldest goes."""
    folders = changed.folders[-FOLDERS_MAX:]
    kept = msgspec.structs.replace(
        changed,
        folders=folders,
        mounted=[one for one in changed.mounted if one in folders],
        carried=changed.carried[-CARRIED_MAX:],
        known=changed.known[-KNOWN_MAX:],
    )
    await keep(person, STICKS_ROW, msgspec.msgpack.encode(kept))


async def remember_carried(person: Person, digest: bytes, target: bytes | None) -> None:
    """Note that a file was written for ``target``, or read."""
    known = memory(person)
    others = [one for one in known.carried if one.digest != digest]
    carried = [*others, Carried(digest, person.node.now_ms(), target)]
    await remember(person, msgspec.structs.replace(known, carried=carried))


def trips(person: Person) -> Sequence[Trip]:
    """The last trips, newest first."""
    row = person.vault.meta(TRIPS_ROW)
    return msgspec.msgpack.decode(row, type=list[Trip]) if row else []


async def note(person: Person, report: BundleReport, who: str, *, outward: bool) -> None:
    """Remember a trip."""
    trip = Trip(
        person.node.now_ms(), outward, who, report.entries, report.new, report.damaged, list(report.problems)[:5]
    )
    await keep(person, TRIPS_ROW, msgspec.msgpack.encode([trip, *trips(person)][:TRIPS_MAX]))
