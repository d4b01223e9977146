"""What a person does with a stick: see what it holds, take what is for them, write for others, erase, take it out."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from msgspec.structs import replace

from outlast.edges.stick import files
from outlast.edges.stick.files import Found, Progress
from outlast.edges.stick.media import DiskOf, Medium, disk_in_sys, media
from outlast.edges.stick.memory import KnownStick, Targets, memory, note, remember, remember_carried
from outlast.errors import NotFoundError, OutlastError, Sentence, StorageError, UsageError
from outlast.kernel import BundleError, Person

LOOK_S: Final = 10.0
"""A stick that does not say in this time what it holds is slow or broken; the rest of the page goes on."""

State = Literal["mine", "followed", "read", "channel", "written", "other", "damaged", "half"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file on a stick as far as this node can tell: whose it is, which channel's, or for whom it was written here."""

    found: Found
    state: State
    target: bytes | None = None  # the contact or channel, where it is known
    is_for_contact: bool = False

    @property
    def wanted(self) -> bool:
        """Whether it brings something for here that was not read yet."""
        return self.state in ("mine", "followed")


@dataclass(frozen=True, slots=True)
class Stick:
    """A medium with what it holds, or the one line that says why that cannot be seen."""

    medium: Medium
    bundles: tuple[Bundle, ...] = ()
    free: int = 0
    size: int = 0
    auto: bool = False
    error: Sentence | None = None


@dataclass(slots=True)
class Taken:
    """What was read of a stick: files, entries, how many of them were new here, and what was wrong."""

    files: int = 0
    entries: int = 0
    new: int = 0
    problems: list[Sentence] = field(default_factory=list)


@dataclass(slots=True)
class Given:
    """What was written on a stick: files and bytes, how much there was no room for, and what could not be written."""

    files: int = 0
    size: int = 0
    left_out: int = 0
    problems: list[Sentence] = field(default_factory=list)


async def sticks(person: Person, *, disk_of: DiskOf = disk_in_sys) -> list[Stick]:
    """The media that are there, each with what it holds."""
    found = await found_media(person, disk_of)
    return list(await asyncio.gather(*(_stick(person, medium) for medium in found)))


async def found_media(person: Person, disk_of: DiskOf = disk_in_sys) -> list[Medium]:
    """The media that are there, without a look at what they hold."""
    known = memory(person)

    def there() -> list[Medium]:
        # Where nothing is mounted any more the folder is this computer's own: what is written there has gone nowhere.
        folders = [folder for one in known.folders if (folder := Path(one)).is_mount() or one not in known.mounted]
        return media(folders, home=person.node.home.path, disk_of=disk_of)

    return await asyncio.to_thread(there)


async def _stick(person: Person, medium: Medium) -> Stick:
    try:
        async with asyncio.timeout(LOOK_S):
            return await look(person, medium)
    except TimeoutError:
        return Stick(medium, error=Sentence("the stick does not answer: it is slow or failing"))
    except OutlastError as error:
        return Stick(medium, error=error.line)


async def look(person: Person, medium: Medium) -> Stick:
    """What a stick holds; raises StorageError when that cannot be seen."""
    known, followed = memory(person), person.node.followed_by(person)
    people = {contact.identity for contact in person.contacts()}

    def tell(found: Found) -> Bundle:
        if found.draft:
            return Bundle(found, "half")
        met = known.met(found.digest)
        if met is not None:
            if met.target is None:
                return Bundle(found, "read")
            return Bundle(found, "written", met.target, met.target in people)
        try:
            glance = person.glance(found.beginning)
        except BundleError:
            return Bundle(found, "damaged")
        if glance.mine:
            return Bundle(found, "mine")
        if glance.is_open:
            # Of a channel that is followed here it is taken along; others are told of, no more.
            return Bundle(found, "followed" if glance.space in followed else "channel", glance.space)
        return Bundle(found, "other")

    def see() -> Stick:
        bundles = tuple(map(tell, files.find(medium.folder)))
        marks = files.marks(medium.folder)
        with files.stick_errors():
            usage = shutil.disk_usage(medium.folder)
        auto = any(one.mark in marks for one in known.known)
        return Stick(medium, bundles, usage.free, usage.total, auto)

    return await asyncio.to_thread(see)


async def read(person: Person, medium: Medium, progress: Progress) -> Taken:
    """Take in all bundles on a stick that are for this person, and those of channels that are followed here.

    Those that were read without a flaw before are passed over. Raises StorageError when the stick cannot be read.
    """
    stick = await look(person, medium)
    wanted = [one.found for one in stick.bundles if one.wanted]
    total, done, taken = sum(one.size for one in wanted), 0, Taken()
    for one in wanted:
        with files.stick_errors(), files.open_plain(one.path) as source:
            try:
                report = await person.read_bundle(source, progress=_behind(progress, done, total))
            except BundleError as error:
                taken.problems.append(error.line)
                continue
            finally:
                done += one.size
        taken.files += 1
        taken.entries += report.entries
        taken.new += report.new
        taken.problems += report.problems
        await note(person, report, "", outward=False)
        if not report.problems:
            await remember_carried(person, one.digest, None)
    return taken


def _from_thread(progress: Progress) -> Progress:
    loop = asyncio.get_running_loop()

    def tell(done: int, total: int | None) -> None:
        loop.call_soon_threadsafe(progress, done, total)

    return tell


def _behind(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one file among others."""
    return lambda done, _: progress(before + done, total)


async def write(person: Person, medium: Medium, targets: Targets, progress: Progress) -> Given:
    """Write a bundle for each contact and channel, durable and read back; older ones for the same are replaced.

    Where the stick is small, what matters most goes. Raises UsageError when nobody was named, StorageError for what is
    wrong with the stick: what was written before that stays.
    """
    chosen = [*((one, True) for one in targets.contacts), *((one, False) for one in targets.channels)]
    if not chosen:
        raise UsageError("choose for whom: contacts, channels or both")
    if medium.read_only:
        raise StorageError("the stick is read-only: move its lock switch, or take another one")
    before = (await look(person, medium)).bundles
    await asyncio.to_thread(files.clean, [one.found for one in before], person.node.now_ms())
    given = Given()
    for at, (target, is_contact) in enumerate(chosen):
        limit = await asyncio.to_thread(files.room, medium)
        try:
            await _write_one(person, medium, target, is_contact, limit // (len(chosen) - at), before, given, progress)
        except (UsageError, NotFoundError) as error:
            given.problems.append(error.line)
    await asyncio.to_thread(files.settle, medium)
    await remember(person, replace(memory(person), chosen=targets))
    return given


async def _write_one(
    person: Person,
    medium: Medium,
    target: bytes,
    is_contact: bool,
    limit: int,
    before: Sequence[Bundle],
    given: Given,
    progress: Progress,
) -> None:
    # Made on the node's own disk first: a slow stick, or one that is pulled, then holds up a thread and not the node.
    with tempfile.TemporaryFile(dir=person.node.home.path) as staged:
        to, space = (target, None) if is_contact else (None, target)
        report = await person.write_bundle(staged, to=to, space=space, max_bytes=limit)
        size = staged.tell()
        staged.seek(0)
        digest = await asyncio.to_thread(files.put, medium, staged, size, _from_thread(progress))
    # Durable: from here on it counts.
    await person.bundle_left(report)
    await note(person, report, person.contact(target).name if is_contact else "", outward=True)
    await remember_carried(person, digest, target)
    if not report.left_out:
        older = [old.found for old in before if old.state == "written" and old.target == target]
        await asyncio.to_thread(files.remove, older)
    given.files += 1
    given.size += size
    given.left_out += report.left_out


async def erase(person: Person, medium: Medium, progress: Progress) -> int:
    """Overwrite and delete Outlast's files on a stick, whoever wrote them, and this node's mark; how many bundles."""
    await set_auto(person, medium, None)
    erased = 0
    while found := await asyncio.to_thread(files.find, medium.folder):
        erased += await asyncio.to_thread(files.erase, medium, found, _from_thread(progress))
    return erased


async def take_out(medium: Medium) -> bool:
    """Finish writing and unmount; whether it is safe now to pull the stick out (see ``files.take_out``)."""
    return await asyncio.to_thread(files.take_out, medium)


async def set_auto(person: Person, medium: Medium, targets: Targets | None) -> None:
    """Let a stick take and give by itself whenever it comes, for ``targets``; None ends that and removes the mark."""
    known = memory(person)
    marks = await asyncio.to_thread(files.marks, medium.folder)
    mine = {one.mark for one in known.known} & marks.keys()
    others = [one for one in known.known if one.mark not in mine]
    if targets is None:
        await asyncio.to_thread(files.unmark, [marks[mark] for mark in mine])
    else:
        mark = min(mine) if mine else await asyncio.to_thread(files.make_mark, medium)
        others.append(KnownStick(mark, targets))
    if targets is not None or mine:
        await remember(person, replace(known, known=others))


async def is_known(person: Person, medium: Medium) -> bool:
    """Whether something was agreed for this stick."""
    known = {one.mark for one in memory(person).known}
    return bool(known) and bool(known & (await asyncio.to_thread(files.marks, medium.folder)).keys())


async def come(person: Person, medium: Medium, progress: Progress) -> tuple[Taken, Given] | None:
    """Take and give as was agreed for this stick; None when nothing was."""
    marks = await asyncio.to_thread(files.marks, medium.folder)
    agreed = next((one for one in memory(person).known if one.mark in marks), None)
    if agreed is None:
        return None
    taken = await read(person, medium, progress)
    return taken, await write(person, medium, agreed.targets, progress)


async def add_folder(person: Person, folder: str) -> None:
    """Use a folder as if it were a stick, from now on; raises UsageError."""
    path = Path(folder).expanduser()
    if not path.is_absolute() or not path.is_dir():
        raise UsageError("name a folder that is there, by its whole path")
    if person.node.home.path.absolute().is_relative_to(path.absolute()):
        raise UsageError("the node itself lives in that folder: name another one")
    name, known = str(path), memory(person)
    folders = known.folders if name in known.folders else [*known.folders, name]
    mounted = [one for one in known.mounted if one != name] + [name] * path.is_mount()
    await remember(person, replace(known, folders=folders, mounted=mounted))


async def remove_folder(person: Person, folder: str) -> None:
    """Use a folder as a stick no longer; nothing in it changes."""
    known = memory(person)
    await remember(person, replace(known, folders=[one for one in known.folders if one != folder]))
