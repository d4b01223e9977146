"""Files: what people send each other beside text, sealed into parcels that any node may carry, or public in channels.

A file belongs to the letter, or the entry of a group or a channel, that names it, and is known by the id of that. What
a person sends is packed as it comes; what comes for them is fetched by itself while it is small, and else when they ask
for it. Its sender is told that it was received when all of it is here; of a file in a channel nobody is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import BinaryIO, Final, Literal

import msgspec

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import (
    DAY_MS,
    PARCEL_LIFE_DAYS,
    Node,
    Packing,
    Person,
    RowChanges,
    parcels_here,
    progress_of,
    read_parcels,
    strange_parcels,
)
from outlast.rooms.carry import file_view, group_view, groups, places, shared, speaking, view
from outlast.rooms.carry.entries import (
    FILE,
    GROUP_PREVIEW_MAX_BYTES,
    ID_BYTES,
    POST_LIFE_MS,
    PREVIEW_MAX_BYTES,
    TYPE_FORM,
    File,
    file_name,
)
from outlast.rooms.carry.file_view import FileRow
from outlast.rooms.carry.private import pause, remember

READ_BYTES: Final = 1 << 20
WRITE_PIECES: Final = 64
"""Pieces of up to 64 KiB that are opened and written at a time."""
TOLD_S: Final = 5.0
State = Literal["offered", "coming", "here", "gone"]
Progress = Callable[[int, int | None], None]


def silent(_done: int, _total: int | None) -> None:
    """The progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Held:
    """A file, and how much of it is here.

    ``offered``: it is large and waits to be asked for; ``coming``: it is fetched when a neighbour or a stick has it;
    ``here``: it can be opened; ``gone``: it was let go of, or its time is over.
    """

    file: FileRow
    state: State
    held_bytes: int
    until_ms: int
    """When it goes from here by itself."""

    @property
    def id(self) -> bytes:
        """The letter (16 B), or the entry of a group or a channel (32 B), that names it."""
        return self.file.letter


# ---- sending ----


async def send(
    node: Node,
    person: Person,
    to: bytes,
    source: BinaryIO | AsyncIterable[bytes],
    *,
    name: str,
    type: str = "",
    preview: bytes = b"",
    size_bytes: int | None = None,
    life_ms: int | None = None,
    progress: Progress = silent,
    also: RowChanges = (),
) -> bytes:
    """Send a file, or bytes as they come, to a contact, a group or a channel (32 B); returns the file's id.

    Some MiB are in memory at a time. All of it is durable here when this returns; when it raises or is cancelled,
    nothing is kept. ``type`` is a media type, ``preview`` a small picture, ``size_bytes`` how much will come,
    ``life_ms`` as for ``service.send``. ``also`` is written into the vault together with
    the letter.
    Raises UsageError (too large, blocked, not one's own channel), NotFoundError (no such contact) and StorageError.
    """
    if speaking.is_followed(person, to):
        _check(person, to, preview)
        life = places.life_for(person, to, life_ms)
        parts = _told(_parts(source), progress, size_bytes)
        return await shared.share(
            node, person, to, parts, name=name, type=type, preview=preview, life_ms=life, also=also
        )
    if not _is_group(person, to):
        person.contact(to)
    async with Packing(node, size_bytes or 0) as packing:
        async for data in _parts(source):
            await packing.feed(data)
            progress(packing.size_bytes, size_bytes)
        return await send_packed(
            node, person, to, packing, name=name, type=type, preview=preview, life_ms=life_ms, also=also
        )


async def send_packed(
    node: Node,
    person: Person,
    to: bytes,
    packing: Packing,
    *,
    name: str,
    type: str = "",
    preview: bytes = b"",
    life_ms: int | None = None,
    also: RowChanges = (),
) -> bytes:
    """Send what was fed to ``packing``; for files that come in several requests. Returns and raises as ``send``."""
    life = places.life_for(person, to, life_ms)
    _check(person, to, preview)
    await packing.finish()
    ids = tuple(parcel.id for parcel in packing.parcels)
    file = File(file_name(name), type if TYPE_FORM(type) else "", packing.size_bytes, packing.key, ids, preview)
    if _is_group(person, to):
        file = msgspec.structs.replace(file, life_ms=life)
        return await groups.put_file(node, person, to, packing, file, also)
    at_ms = node.now_ms()

    def rows(letter: bytes) -> RowChanges:
        message = view.message_row(letter, to, file.name, None, at_ms, None, life_ms=life)
        return [message, file_view.file_row(letter, to, file, at_ms, outgoing=True), *also]

    return await person.send_parcels(to, FILE.name, file, packing, life_ms=life, local=rows)


def preview_bytes(person: Person, to: bytes) -> int:
    """Largest small picture of a file that goes there."""
    return GROUP_PREVIEW_MAX_BYTES if _is_group(person, to) else PREVIEW_MAX_BYTES


def _check(person: Person, to: bytes, preview: bytes) -> None:
    if len(preview) > (most := preview_bytes(person, to)):
        raise UsageError("a preview has at most %(most)s bytes here", most=most)


def _is_group(person: Person, to: bytes) -> bool:
    return any(one.space == to for one in person.groups.held(groups.JOINED))


async def _parts(source: BinaryIO | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(source, AsyncIterable):
        async for data in source:
            yield data
    else:
        while data := await asyncio.to_thread(source.read, READ_BYTES):
            yield data


async def _told(parts: AsyncIterator[bytes], progress: Progress, size_bytes: int | None) -> AsyncIterator[bytes]:
    done = 0
    async for data in parts:
        yield data
        done += len(data)
        progress(done, size_bytes)


# ---- what there is ----


def held(node: Node, file: FileRow) -> Held:
    """How much of a file is here."""
    until_ms = _until_ms(file)
    if file.is_public:
        return _held_public(node, file, until_ms)
    if file.state == file_view.GONE:
        return Held(file, "gone", 0, until_ms)
    found = progress_of(node, file.parcels, file.size_bytes)
    state: State = "coming"
    if found.is_whole:
        state = "here"
    elif node.now_ms() >= until_ms or file.outgoing:
        state = "gone"
    elif file.state == file_view.NEW and file.size_bytes > node.files_auto_bytes:
        state = "offered"
    return Held(file, state, found.held_bytes, until_ms)


def _held_public(node: Node, file: FileRow, until_ms: int) -> Held:
    [content] = file.parcels
    found = node.open_store.progress(content)
    if found is None:
        small = file.size_bytes <= node.files_auto_bytes
        return Held(file, "coming" if small else "offered", 0, until_ms)
    state: State = "coming" if node.open_store.is_awaited(content, node.files_auto_bytes) else "offered"
    return Held(file, "here" if found.is_whole else state, found.held_bytes, until_ms)


def listing(node: Node, person: Person, *, peer: bytes | None = None, limit: int = -1) -> list[Held]:
    """The newest files that were sent and that came, of all or of one person, group or channel; oldest first."""
    found = _shown(person, file_view.files(person, node.now_ms(), peer=peer)) + shared.listing(node, person, peer)
    found.sort(key=lambda one: one.at_ms)
    return [held(node, one) for one in (found if limit < 0 else found[-limit:])]


def files_of(node: Node, person: Person, letters: Sequence[bytes]) -> dict[bytes, Held]:
    """Those of the letters, or entries of groups and channels, that name a file, with it."""
    found = ((letter, _find(node, person, letter)) for letter in letters)
    return {letter: held(node, one) for letter, one in found if one is not None}


def _find(node: Node, person: Person, letter: bytes) -> FileRow | None:
    if (file := file_view.find(person, letter, node.now_ms())) is not None:
        return file if _shown(person, [file]) else None
    return shared.find(node, person, letter)


def _shown(person: Person, found: Sequence[FileRow]) -> list[FileRow]:
    """Those of letters, and those of groups that stand in a text which is shown there."""
    lines = {file.letter: group_view.find(person, file.letter) for file in found if len(file.letter) == ID_BYTES}
    if not lines:
        return list(found)
    is_shown = groups.showing(person)
    return [file for file in found if file.letter not in lines or ((line := lines[file.letter]) and is_shown(line))]


def find(node: Node, person: Person, letter: bytes) -> Held:
    """The file that a letter (16 B), or an entry of a group or a channel (32 B), names; raises NotFoundError."""
    file = _find(node, person, letter)
    if file is None:
        raise NotFoundError("there is no such file: `outlast carry file list` shows those that there are")
    return held(node, file)


def space_bytes(node: Node, person: Person) -> int:
    """What the person's files take on this disk, without what padding adds."""
    return sum(one.held_bytes for one in listing(node, person))


# ---- getting ----


async def ask(node: Node, person: Person, letter: bytes) -> Held:
    """Fetch a file from whoever has it, whatever its size; goes on after a restart, until it is here."""
    one = find(node, person, letter)
    if one.state == "here":
        return one
    if one.file.is_public:
        await node.fetch(*one.file.parcels)
        return find(node, person, letter)
    if one.file.outgoing or node.now_ms() >= one.until_ms:
        raise NotFoundError("the time of this file is over: ask for it to be sent again")
    await _move(node, person, letter, file_view.ASKED)
    await _fetch(node, one.file)
    return find(node, person, letter)


async def wait(node: Node, person: Person, letter: bytes, progress: Progress = silent) -> Held:
    """Return when a file is here, or gone; tells its progress meanwhile."""
    while True:
        revision = node.revision
        one = find(node, person, letter)
        progress(one.held_bytes, one.file.size_bytes)
        if one.state in ("here", "gone"):
            return one
        await node.wait(revision)


async def told(node: Node, person: Person, letter: bytes) -> None:
    """Return when the sender of a file that is here is told so, as ``run`` does by itself, or in TOLD_S at most."""
    with contextlib.suppress(TimeoutError, NotFoundError):  # or it is removed meanwhile
        async with asyncio.timeout(TOLD_S):
            while find(node, person, letter).file.state in (file_view.NEW, file_view.ASKED):
                await node.wait(node.revision)


def read(node: Node, person: Person, letter: bytes, start: int = 0) -> Iterator[bytes]:
    """A file's bytes from ``start`` on, verified, in pieces of at most 64 KiB.

    Raises NotFoundError while not all of it is here, and ProtocolError when it is not what its sender says.
    """
    one = find(node, person, letter)
    if one.state != "here":
        raise NotFoundError("not all of this file is here: ask for it and wait until it is")
    if one.file.is_public:
        [content] = one.file.parcels
        return node.read_content(content, start)
    return read_parcels(node, one.file.key, one.file.parcels, one.file.size_bytes, start)


async def write(node: Node, person: Person, letter: bytes, out: BinaryIO, progress: Progress = silent) -> None:
    """Write a file's bytes, verified; raises as ``read`` does, and OSError."""
    pieces, done = read(node, person, letter), 0
    total = find(node, person, letter).file.size_bytes

    def some() -> int:
        return sum(out.write(piece) for piece in islice(pieces, WRITE_PIECES))

    while size := await node.read(some):
        done += size
        progress(done, total)


async def let_go(node: Node, person: Person, letter: bytes) -> None:
    """Stop fetching a file, and free what it takes here; its letter stays, and it can be asked for again.

    One in a channel goes for all who follow it on this node.
    """
    one = find(node, person, letter)
    if one.file.is_public:
        await node.drop_content(*one.file.parcels)
        return
    await _move(node, person, letter, file_view.GONE)
    await free(node, person, [one.file])


async def free(node: Node, person: Person, gone: Sequence[FileRow]) -> None:
    """Free what files of letters and groups take here; what they name and is somebody else's stays."""
    spare = {parcel for file in gone for parcel in await _strange(node, file)}
    # Before an entry of a group names its parcels they are noted under the first of them.
    noted = [file.parcels[0] if file.outgoing and len(file.letter) == ID_BYTES else file.letter for file in gone]
    await person.forget_parcels(noted, spare)


# ---- by itself ----


async def run(node: Node) -> None:
    """While the node is open: fetch what is to come, and tell senders what has come."""
    sound: set[bytes] = set()
    while True:
        revision, began = node.revision, node.loop.time()
        for person in list(node.people.values()):
            with contextlib.suppress(OutlastError):  # the disk is full, or the person was locked: with the next news
                await _look(node, person, sound)
        await pause(node, began)
        await node.wait(revision)


async def _look(node: Node, person: Person, sound: set[bytes]) -> None:
    """``sound``: the letters whose files were looked into."""
    for file in _shown(person, file_view.awaited(person)):
        if node.now_ms() >= _until_ms(file):
            await _settle(node, person, file, file_view.GONE)
            continue
        found = parcels_here(node, file.parcels, file.size_bytes)
        if file.letter not in sound and node.open_store.known(file.parcels):
            # Everybody's node carries parcels: who names those of others is not told whether they are here.
            if await _strange(node, file):
                await person.forget_parcels([file.letter], file.parcels)
                await _settle(node, person, file, file_view.GONE)
                continue
            if len(found) == len(file.parcels) and all(one.held_bytes for one in found.values()):
                sound.add(file.letter)
        here = found.keys()
        noted = {bytes(row[0]) for row in person.query("SELECT entry FROM parcel WHERE letter = ?", (file.letter,))}
        if here - noted:
            await person.expect_parcels(file.letter, file.peer, list(here))
            if file.state == file_view.ASKED or (_is_welcome(node, person, file) and node.open_store.pooled(here)):
                await _fetch(node, file)  # what strangers brought is not fetched by itself
        if progress_of(node, file.parcels, file.size_bytes).is_whole:
            await node.keep_content(file.parcels)
            if _is_group(person, file.peer):
                await groups.acknowledge_file(person, file.peer, file.letter)
            else:
                await person.mark_received([file.letter])
            await _settle(node, person, file, file_view.WHOLE)


def _until_ms(file: FileRow) -> int:
    return file.at_ms + (POST_LIFE_MS if file.is_public else PARCEL_LIFE_DAYS * DAY_MS)


def _is_welcome(node: Node, person: Person, file: FileRow) -> bool:
    """Whether a file is fetched whoever has brought it here: a small one, of somebody who was verified."""
    with contextlib.suppress(NotFoundError):
        return file.size_bytes <= node.files_auto_bytes and person.contact(file.peer).verified_ms is not None
    return False


async def _fetch(node: Node, file: FileRow) -> None:
    for parcel in parcels_here(node, file.parcels, file.size_bytes):
        await node.fetch(parcel)


async def _strange(node: Node, file: FileRow) -> set[bytes]:
    return await node.read(partial(strange_parcels, node, file.key, file.parcels, file.size_bytes))


async def _settle(node: Node, person: Person, file: FileRow, state: int) -> None:
    """A file is awaited no more, unless somebody has said otherwise meanwhile."""
    await remember(node, person, [file_view.settle(file, state)])


async def _move(node: Node, person: Person, letter: bytes, state: int) -> None:
    await node.write(lambda: person.vault.write(lambda tx: tx.execute(file_view.MOVE, (state, letter))))
    node.touch()
