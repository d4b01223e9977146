"""Files in channels: public like all that stands there, in clear, as contents of the channel's space.

They stand once on a node, for all who follow the channel there, and nothing of them is written down for one person. As
with posts, whoever holds the channel holds the small ones; a large one comes when somebody here asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable

from outlast.errors import NotFoundError, OutlastError
from outlast.kernel import Entry, Node, Person, RowChanges
from outlast.rooms.carry import file_view, speaking, view
from outlast.rooms.carry.entries import CONTENT, POST_LIFE_MS, SHARED, TYPE_FORM, Shared, file_name
from outlast.rooms.carry.file_view import FileRow
from outlast.rooms.carry.view import SharedFile


async def share(
    node: Node,
    person: Person,
    space: bytes,
    parts: AsyncIterable[bytes],
    *,
    name: str,
    type: str,
    preview: bytes,
    life_ms: int,
    also: RowChanges = (),
) -> bytes:
    """Put a file into a channel of one's own; returns the id (32 B) of the post that names it.

    Raises UsageError (too large, not one's own channel), NotFoundError (not followed) and StorageError.
    """
    speaking.check_followed(person, space)
    await speaking.speak_for(node, person, space)
    entry_life_ms = life_ms or POST_LIFE_MS
    content = await node.append_content(person, space, CONTENT.name, parts, life_ms=entry_life_ms)
    size_bytes = content.header.payload_size
    file = Shared(file_name(name), type if TYPE_FORM(type) else "", size_bytes, content.id, preview, life_ms)
    try:
        clock = view.newest_clock(node, space)
        post = await node.append(person, space, SHARED.name, file, life_ms=entry_life_ms, local=also, clock=clock)
    except BaseException:
        with contextlib.suppress(OutlastError):
            await asyncio.shield(node.end(person, space, [content.id]))
        raise
    return post.id


async def end(node: Node, person: Person, file: FileRow) -> None:
    """Drop a file's bytes wherever this arrives, if they are known here."""
    with contextlib.suppress(NotFoundError):
        await node.end(person, file.peer, file.parcels)


def is_its(content: Entry, space: bytes, device: bytes) -> bool:
    """Whether an entry is a content that a device (32 B) put into a channel.

    Whoever writes a post chooses the id in it: by one that stands elsewhere nothing is shown, fetched or dropped.
    """
    header = content.header
    return (header.space, header.author, header.kind) == (space, device, CONTENT.name)


def listing(node: Node, person: Person, space: bytes | None = None) -> list[FileRow]:
    """The files in the channels that the person follows, or in one of them."""
    spaces = [one.space for one in view.follows(person) if space in (None, one.space)]
    files = [file for one in spaces for file in view.shared_files(node, one, node.now_ms())]
    return [_row(person, file) for file in files if _may_be_its(node, file)]


def find(node: Node, person: Person, post: bytes) -> FileRow | None:
    """The file that a post names in a channel that the person follows."""
    file = view.find_shared(node, post, node.now_ms())
    if file is None or not speaking.is_followed(person, file.space) or not _may_be_its(node, file):
        return None
    return _row(person, file)


def _may_be_its(node: Node, file: SharedFile) -> bool:
    content = node.open_store.get(file.content)
    return content is None or is_its(content, file.space, file.device)


def _row(person: Person, file: SharedFile) -> FileRow:
    return FileRow(
        letter=file.id,
        peer=file.space,
        outgoing=file.device == person.device or file.author == person.identity,
        name=file.name,
        type=file.type,
        size_bytes=file.size_bytes,
        key=b"",
        parcels=(file.content,),
        preview=file.preview,
        at_ms=file.at_ms,
        state=file_view.NEW,
    )
