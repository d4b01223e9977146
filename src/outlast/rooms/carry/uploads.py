"""Files from a browser: they come in parts, wait sealed on this disk, lose what they tell, and are sent.

A part that was acknowledged stays when the connection is cut, the page is closed or the node is killed; the browser
asks how much is here and goes on. What cannot be cleaned leaves only when its owner says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from outlast.errors import NotFoundError, OutlastError, Sentence, StorageError, UsageError
from outlast.kernel import CONTENT_MAX_BYTES, DAY_MS, FILE_MAX_BYTES, Delete, Node, Person, Put, Update
from outlast.rooms.carry import files, speaking, upload_view
from outlast.rooms.carry.entries import file_name
from outlast.rooms.carry.io import media
from outlast.rooms.carry.io.waiting import BLOCK_BYTES, Waiting
from outlast.rooms.carry.private import is_here, remember
from outlast.rooms.carry.proto.patch import MediaError
from outlast.rooms.carry.upload_view import UPLOAD, Upload

KEPT_DAYS: Final = 7
"""So long something waits for the rest of it, or for an answer."""
WAITING_MAX: Final = 20
"""Files on their way, of one person."""
DISK_KEPT_BYTES: Final = 256 << 20
MARK_MAX: Final = 100
LOOK_S: Final = 3600.0
_NO_ROOM: Final = Sentence("this file is too large, or the disk of the node has too little room for it")
_TOLD_S: Final = 0.5


class ElsewhereError(UsageError):
    """A file goes on from another place than was said."""

    status = 409


@dataclass(slots=True)
class _Desk:
    """What a node knows of files on their way while it runs."""

    taking: dict[bytes, object] = field(default_factory=dict)  # who may append to a file
    turns: dict[bytes, asyncio.Lock] = field(default_factory=dict)
    done: dict[bytes, int] = field(default_factory=dict)  # bytes that were made ready


_desks: WeakKeyDictionary[Node, _Desk] = WeakKeyDictionary()


def _desk(node: Node) -> _Desk:
    return _desks.setdefault(node, _Desk())


# ---- what there is ----


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """A file on its way, how much of it is here, and how much was made ready of it to leave."""

    file: Upload
    held_bytes: int
    ready_bytes: int

    @property
    def until_ms(self) -> int:
        """When it is dropped by itself."""
        return self.file.at_ms + KEPT_DAYS * DAY_MS


def listing(node: Node, person: Person, target: bytes | None = None) -> list[OnItsWay]:
    """The files on their way, to all or to one person, group or channel; oldest first."""
    return [
        _on_its_way(node, person, one) for one in upload_view.uploads(person) if target is None or one.target == target
    ]


def find(node: Node, person: Person, id: bytes) -> OnItsWay:
    """One of them; raises NotFoundError."""
    return _on_its_way(node, person, _find(person, id))


def room_bytes(node: Node, person: Person, target: bytes) -> int:
    """How large a file may be now: it waits here, and then stands here a second time, ready to leave."""
    most = CONTENT_MAX_BYTES if speaking.is_followed(person, target) else FILE_MAX_BYTES
    return max(0, min(most, (node.space_left() - DISK_KEPT_BYTES) // 2))


def _on_its_way(node: Node, person: Person, one: Upload) -> OnItsWay:
    return OnItsWay(one, _waiting(person, one).held_bytes, _desk(node).done.get(one.id, 0))


def _find(person: Person, id: bytes) -> Upload:
    found = upload_view.find(person, id)
    if found is None:
        raise NotFoundError("this file is not on its way any more: it was sent, dropped, or waited too long")
    return found


def _waiting(person: Person, one: Upload) -> Waiting:
    return Waiting(_folder(person) / one.id.hex(), one.key, one.size_bytes)


def _folder(person: Person) -> Path:
    return person.node.home.path / "rooms" / "carry" / "waiting" / person.key


# ---- coming ----


async def begin(node: Node, person: Person, target: bytes, name: str, size_bytes: int, mark: str = "") -> OnItsWay:
    """Take in a file for a contact, group or channel; one of the same name, size and ``mark`` goes on.

    Raises UsageError (too large, too many, not while blocked), StorageError.
    """
    name, mark = file_name(name), mark[:MARK_MAX]
    there = upload_view.uploads(person)
    for one in there:
        same = (one.target, one.name, one.size_bytes, one.mark) == (target, name, size_bytes, mark)
        if same and mark and one.state == upload_view.COMING:
            return _on_its_way(node, person, one)
    if size_bytes > room_bytes(node, person, target):
        raise UsageError(_NO_ROOM)
    if len(there) >= WAITING_MAX:
        raise UsageError("too many files are on their way: wait until some have left, or drop some")
    state = upload_view.COMING if size_bytes else upload_view.WHOLE
    row = Upload(os.urandom(16), target, name, size_bytes, mark, os.urandom(32), node.now_ms(), state, "")
    await _put(node, person, row)
    return _on_its_way(node, person, row)


async def take(node: Node, person: Person, id: bytes, start: int, parts: AsyncIterable[bytes]) -> OnItsWay:
    """Bytes of a file from ``start`` on, which must be where what is here ends.

    Whole blocks are kept also when ``parts`` ends with an error, which is raised again. Who comes later goes on alone.
    Raises ElsewhereError when ``start`` is elsewhere or somebody else goes on, UsageError when too much comes.
    """
    desk, mine = _desk(node), object()
    file = _find(person, id)
    if file.state != upload_view.COMING:
        raise ElsewhereError("all of this file is here already")
    waiting = _waiting(person, file)
    desk.taking[id] = mine
    turn = desk.turns.setdefault(id, asyncio.Lock())
    at, rest = start, bytearray()

    async def keep(block: bytes) -> None:
        nonlocal at
        async with turn:
            if desk.taking.get(id) is not mine or waiting.held_bytes != at:
                raise ElsewhereError("this file goes on from elsewhere: look how much of it is here")
            await asyncio.to_thread(waiting.append, block)
        at += len(block)

    try:
        async for data in parts:
            rest += data
            if at + len(rest) > file.size_bytes:
                raise UsageError("more came than the file was said to have: drop it, and send it anew")
            while len(rest) >= BLOCK_BYTES:
                await keep(bytes(rest[:BLOCK_BYTES]))
                del rest[:BLOCK_BYTES]
        if rest and at + len(rest) == file.size_bytes:
            await keep(bytes(rest))
    finally:
        await asyncio.to_thread(waiting.settle)
        if desk.taking.get(id) is mine:
            del desk.taking[id]
        node.touch()
    if waiting.held_bytes == file.size_bytes:
        await _change(node, person, id, state=upload_view.WHOLE)
    return find(node, person, id)


async def take_whole(
    node: Node, person: Person, target: bytes, name: str, most_bytes: int, parts: AsyncIterable[bytes]
) -> OnItsWay:
    """A file of at most so many bytes that comes at once, by a form; nothing of it is kept when it is cut.

    Raises UsageError (too large, too many), StorageError, and what ``parts`` raises.
    """
    if most_bytes <= 0:  # it would begin as an empty file, which is whole at once
        raise UsageError(_NO_ROOM)
    size = 0
    one = await begin(node, person, target, name, most_bytes)

    async def filled() -> AsyncIterator[bytes]:
        nonlocal size
        async for data in parts:
            size += len(data)
            if size > most_bytes:
                raise UsageError(_NO_ROOM)
            yield data
        yield bytes(min(-size % BLOCK_BYTES, most_bytes - size))

    try:
        await take(node, person, one.file.id, 0, filled())
        await _change(node, person, one.file.id, size_bytes=size, state=upload_view.WHOLE)
    except BaseException:
        await asyncio.shield(drop(node, person, one.file.id))
        raise
    return find(node, person, one.file.id)


async def go_on(node: Node, person: Person, id: bytes) -> None:
    """Let a file leave as it is, when its owner was asked; try again with one that failed. Raises NotFoundError."""
    match _find(person, id).state:
        case upload_view.ASKING:
            await _change(node, person, id, state=upload_view.AS_IT_IS)
        case upload_view.FAILED:
            await _change(node, person, id, state=upload_view.WHOLE, reason="")


async def drop(node: Node, person: Person, id: bytes) -> None:
    """Forget a file on its way, with all that is here of it; raises NotFoundError, StorageError."""
    one = _find(person, id)
    _desk(node).taking.pop(id, None)
    _desk(node).turns.pop(id, None)
    await asyncio.to_thread(_waiting(person, one).drop)
    await remember(node, person, [Delete(UPLOAD, {"id": id})])


# ---- leaving ----


async def run(node: Node) -> None:
    """While the node is open: make ready and send what is whole, and drop what waited too long."""
    swept: set[str] = set()
    while True:
        revision = node.revision
        for person in list(node.people.values()):
            with contextlib.suppress(OutlastError):  # the disk is full, or the person was locked: with the next news
                if person.key not in swept:
                    await _sweep(person)
                    swept.add(person.key)
                await _look(node, person)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await node.wait(revision)


async def _sweep(person: Person) -> None:
    """Remove what a kill left between a file's sending and its end here, and what people left who live here no more."""
    folder = _folder(person)
    # Listed before it is asked whose they are: what begins meanwhile is not in the lists.
    here, folders = await asyncio.to_thread(lambda: (_names(folder), _names(folder.parent)))
    over = here - {one.id.hex() for one in upload_view.uploads(person)}
    left = folders - set(person.node.home.people())

    def remove() -> None:
        for name in over:
            (folder / name).unlink(missing_ok=True)
        for name in left:
            shutil.rmtree(folder.parent / name)

    try:
        await asyncio.to_thread(remove)
    except OSError as error:
        raise StorageError("cannot remove %(path)s: %(error)s", path=error.filename, error=error) from error


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


async def _look(node: Node, person: Person) -> None:
    for one in upload_view.uploads(person):
        if not is_here(node, person):
            return
        if one.state in (upload_view.WHOLE, upload_view.AS_IT_IS):
            await _leave(node, person, one)
        elif node.now_ms() >= one.at_ms + KEPT_DAYS * DAY_MS:
            await drop(node, person, one.id)


async def _leave(node: Node, person: Person, one: Upload) -> None:
    waiting = _waiting(person, one)
    try:
        if one.state == upload_view.AS_IT_IS:
            ready: media.Cleaned | None = await media.as_it_is(waiting)
        else:
            ready = await media.clean(waiting, files.preview_bytes(person, one.target))
        if ready is None:
            await _change(node, person, one.id, state=upload_view.ASKING)
            return
        await files.send(
            node,
            person,
            one.target,
            _told(node, one.id, ready.pieces),
            name=media.renamed(one.name, ready.type),
            type=ready.type,
            preview=ready.preview,
            also=[Delete(UPLOAD, {"id": one.id})],
        )
    except MediaError:
        await _fail(
            node, person, one, Sentence("What this file tells about you could not be taken out, so it was not sent.")
        )
        return
    except (UsageError, NotFoundError, StorageError) as error:
        await _fail(node, person, one, error.line)
        return
    finally:
        _desk(node).done.pop(one.id, None)
        _desk(node).turns.pop(one.id, None)
    with contextlib.suppress(StorageError):
        await asyncio.to_thread(waiting.drop)
    node.touch()


async def _told(node: Node, id: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    done, told = _desk(node).done, time.monotonic()
    async for piece in media.threaded(pieces):
        yield piece
        done[id] = done.get(id, 0) + len(piece)
        if time.monotonic() - told > _TOLD_S:
            told = time.monotonic()
            node.touch()


async def _fail(node: Node, person: Person, one: Upload, reason: Sentence) -> None:
    text = msgspec.json.encode(reason).decode()
    await _change(node, person, one.id, state=upload_view.FAILED, reason=text)


async def _change(node: Node, person: Person, id: bytes, **columns: int | str) -> None:
    """Change a row, unless it was dropped meanwhile."""
    await remember(node, person, [Update(UPLOAD, {"id": id}, columns)])


async def _put(node: Node, person: Person, row: Upload) -> None:
    names = ("id", "target", "name", "size_bytes", "mark", "key", "at_ms", "state", "reason")
    await remember(node, person, [Put(UPLOAD, {name: getattr(row, name) for name in names})])
