"""Large content on real nodes: put in as it comes, fetched by its size or when asked for, and freed with its entry."""

from __future__ import annotations

import errno
import io
import os
import tracemalloc
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import BinaryIO, cast

import msgspec
import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel.bundle import BundleWriter, Content
from outlast.kernel.chunks import Cut
from outlast.kernel.door import DAY_SHARE_BYTES
from outlast.kernel.entry import CHUNK_BYTES, DAY_MS, PAYLOAD_MAX_BYTES, Entry
from outlast.kernel.node import FILES_AUTO_BYTES, Node
from outlast.kernel.person import Person
from outlast.kernel.room import Event
from outlast.kernel.store import Progress
from tests.kernel.society import FILE, POST, Society, society, story, until
from tests.kernel.test_neighbours import link

WEEK_MS = 7 * DAY_MS


def some_bytes(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


async def parts(content: bytes, step: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), step):
        yield content[at : at + step]


class FullStick(io.RawIOBase):
    """Takes 5 MB, and then says what a full disk says."""

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.taken > 5_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.taken += len(data)
        return len(data)


async def put(person: Person, space: bytes, content: bytes) -> Entry:
    return await person.node.append_content(person, space, FILE.name, parts(content), life_ms=WEEK_MS)


def read(node: Node, entry: Entry) -> bytes:
    return b"".join(node.read_content(entry.id))


def is_whole(person: Person, entry: Entry) -> bool:
    progress = person.node.open_store.progress(entry.id)
    return progress is not None and progress.is_whole


def chunks_stored(person: Person) -> int:
    count: int = person.node.query("SELECT count(*) FROM chunk")[0][0]
    return count


async def swept(person: Person, count: int) -> None:
    """Wait until so many chunks are left."""
    while chunks_stored(person) != count:
        await person.node.write(lambda: None)


async def two(nodes: Society) -> tuple[Person, Person, bytes]:
    """Two people whose nodes follow one channel, not connected yet."""
    anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
    space = await anna.node.new_space(anna, "news")
    await boris.node.follow(space)
    return anna, boris, space


@pytest.mark.parametrize("size", [0, 5, PAYLOAD_MAX_BYTES, PAYLOAD_MAX_BYTES + 1, 3_000_000])
def test_content_of_any_size_comes_over_and_is_read_as_it_was(size: int, tmp_path: Path) -> None:
    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna, boris, space = await two(nodes)
            content = some_bytes(size)
            entry = await put(anna, space, content)
            assert read(anna.node, entry) == content
            await link(boris, anna)
            await until(lambda: is_whole(boris, entry), boris)
            assert read(boris.node, entry) == content
            assert boris.node.content(entry.id) == (size, size)

    run()


@story
async def test_a_file_from_the_disk_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space = await anna.node.new_space(anna, "news")
        path = tmp_path / "film"
        path.write_bytes(some_bytes(40 << 20))
        tracemalloc.start()
        entry = await anna.node.append_content(anna, space, FILE.name, path, life_ms=WEEK_MS)
        size = sum(map(len, anna.node.read_content(entry.id)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size == 40 << 20
        # Two batches of 3 MiB are on their way and a third is cut, and a late thread still holds on to a fourth.
        assert peak < 16 << 20
        assert anna.node.query("SELECT count(*) FROM stage") == [(0,)]


@story
async def test_a_room_is_told_when_the_content_is_whole(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        entry = await put(anna, space, some_bytes(1_000_000))
        await link(boris, anna)
        await until(lambda: is_whole(boris, entry), boris)
        for person in (anna, boris):
            changes = person.node.open_store.changes(0)
            assert [c.event for c in changes if c.entry.id == entry.id] == [Event.ADMITTED, Event.PAYLOAD_ARRIVED]


@story
async def test_content_above_the_limit_comes_when_somebody_asks_for_it(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        boris.node.files_auto_bytes = 500_000
        large = await put(anna, space, some_bytes(2_000_000))
        small = await put(anna, space, some_bytes(400_000))
        await link(boris, anna)
        await until(lambda: is_whole(boris, small), boris)
        assert boris.node.content(large.id) == (0, 2_000_000)
        with pytest.raises(NotFoundError, match="fetch"):
            read(boris.node, large)
        assert await boris.node.fetch(large.id) == (0, 2_000_000)
        await until(lambda: is_whole(boris, large), boris)
        assert read(boris.node, large) == some_bytes(2_000_000)
        # What was dropped does not come back by itself.
        await boris.node.drop_content(small.id)
        assert boris.node.content(small.id) == (0, 400_000)
        boris.node.neighbours.more_wanted()
        third = await put(anna, space, some_bytes(300_000, 3))
        await until(lambda: is_whole(boris, third), boris)
        assert boris.node.content(small.id).held_bytes == 0
        await boris.node.fetch(small.id)
        await until(lambda: is_whole(boris, small), boris)


@story
async def test_content_can_be_asked_for_before_its_manifest_is_here_and_after_it_was_dropped(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        boris.node.files_auto_bytes = 0
        entry = await put(anna, space, some_bytes(3_000_000))
        bare = msgspec.structs.replace(entry, payload=None)
        await boris.node.ingest([anna.node.open_store.load([space])[0], bare])
        assert await boris.node.fetch(entry.id) == (0, 3_000_000)
        await link(boris, anna)
        await until(lambda: is_whole(boris, entry), boris)
        await boris.node.write(lambda: boris.node.open_store.drop_payload(entry.id))
        await boris.node.free_chunks(boris.node.open_store)
        assert (await boris.node.fetch(entry.id), chunks_stored(boris)) == ((0, 3_000_000), 0)
        await until(lambda: is_whole(boris, entry), boris)
        assert read(boris.node, entry) == some_bytes(3_000_000)


@story
async def test_what_was_asked_for_is_remembered_by_a_node_that_starts_anew(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        content = some_bytes(FILES_AUTO_BYTES + 1)
        entry = await put(anna, space, content)
        await boris.node.ingest(anna.node.open_store.load([space, entry.id]))
        await boris.node.fetch(entry.id)
        boris = await nodes.come_back("boris")
        await link(boris, anna)
        await until(lambda: is_whole(boris, entry), boris)
        assert read(boris.node, entry) == content


@story
async def test_two_files_of_one_channel_share_their_equal_chunks_and_two_channels_share_none(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        spaces = [await anna.node.new_space(anna, name) for name in ("news", "films")]
        content = some_bytes(10 * CHUNK_BYTES)
        first = await put(anna, spaces[0], content)
        await put(anna, spaces[0], content[: 5 * CHUNK_BYTES])
        assert chunks_stored(anna) == 10
        await put(anna, spaces[1], content)
        assert chunks_stored(anna) == 20
        await anna.node.remove([first.id])
        await swept(anna, 15)
        await anna.node.unfollow(spaces[0])
        await swept(anna, 10)
        assert anna.node.query("SELECT count(*) FROM file") == [(1,)]


@story
async def test_an_open_bundle_carries_the_files_of_its_channel_and_what_is_false_in_it_is_not_taken(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        boris.node.files_auto_bytes = 0
        content = some_bytes(3_000_000)
        entry = await put(anna, space, content)
        file = io.BytesIO()
        await anna.bundle_left(await anna.write_bundle(file, space=space))
        data = file.getvalue()
        report = await boris.read_bundle(io.BytesIO(data[: len(data) // 2]))
        assert any("too early" in str(problem) for problem in report.problems)
        assert 0 < boris.node.content(entry.id).held_bytes < 3_000_000
        report = await boris.read_bundle(io.BytesIO(data))
        assert report.problems == ()
        assert read(boris.node, entry) == content
        # Somebody else's parts, in a bundle of good form.
        cleo = await nodes.join("cleo")
        await cleo.node.follow(space)
        writer = BundleWriter.open(made_day=cleo.node.today())
        false = [Content.of(entry.id, 0, content[:CHUNK_BYTES]), Content.of(entry.id, 1, bytes(CHUNK_BYTES))]
        false += [Content.of(entry.id, 2047, b"x"), Content.of(b"n" * 32, 0, b"x")]
        whole = anna.node.open_store.load([space, entry.id])
        parts = [writer.start(), *map(writer.add, whole), *map(writer.add_content, false), *writer.finish()]
        report = await cleo.read_bundle(io.BytesIO(b"".join(parts)))
        assert any("parts of a file" in str(problem) for problem in report.problems)
        assert cleo.node.content(entry.id).held_bytes == CHUNK_BYTES


@story
async def test_a_disk_that_is_full_when_the_files_of_a_bundle_are_written_is_told(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, _, space = await two(nodes)
        await put(anna, space, some_bytes(9_000_000))

        stick = FullStick()
        with pytest.raises(OSError, match="No space left"):
            await anna.write_bundle(cast(BinaryIO, stick), space=space)
        assert stick.taken > 5_000_000


@story
async def test_of_files_a_small_bundle_carries_those_that_fit_as_a_whole(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        boris.node.files_auto_bytes = 0
        small, large = await put(anna, space, some_bytes(200_000)), await put(anna, space, some_bytes(900_000, 2))
        file = io.BytesIO()
        report = await anna.write_bundle(file, space=space, max_bytes=600_000)
        assert report.left_out == 1
        assert len(file.getvalue()) == report.size_bytes <= 600_000
        assert small.id in report.written
        assert large.id not in report.written
        await boris.read_bundle(io.BytesIO(file.getvalue()))
        assert is_whole(boris, small)
        assert boris.node.content(large.id).held_bytes == 0
        report = await anna.write_bundle(io.BytesIO(), space=space, max_bytes=2_000_000)
        assert report.left_out == 0
        assert {small.id, large.id} <= set(report.written)


@story
async def test_a_file_that_is_too_large_or_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space = await anna.node.new_space(anna, "news")

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(8 << 20)

        async def broken() -> AsyncIterator[bytes]:
            yield some_bytes(3 << 20)
            raise ConnectionError

        with pytest.raises(UsageError, match="larger"):
            await anna.node.append_content(anna, space, FILE.name, endless(), life_ms=WEEK_MS)
        with pytest.raises(ConnectionError):
            await anna.node.append_content(anna, space, FILE.name, broken(), life_ms=WEEK_MS)
        with pytest.raises(UsageError, match="body"):
            await anna.node.append_content(anna, space, POST.name, parts(b"x"), life_ms=WEEK_MS)
        for table in ("chunk", "piece", "stage", "file"):
            assert anna.node.query(f"SELECT count(*) FROM {table}") == [(0,)]
        assert [c.entry.header.kind for c in anna.node.open_store.changes(0)] == ["genesis"]


@story
async def test_what_was_staged_when_the_entry_is_kept_is_there_when_the_disk_has_room_again(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space = await anna.node.new_space(anna, "news")
        store, content = anna.node.open_store, some_bytes(1_000_000)
        # The entry is in the vault's outbox and the process dies before it is in the store.
        entry = await put(anna, space, content)
        stage = store.open_stage(space, anna.node.today())
        chunks = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
        cuts = [Cut(sha256(chunk).digest(), chunk) for chunk in chunks]
        await anna.node.stage_chunks(stage, 0, cuts)
        whole = store.load([entry.id])
        await anna.node.remove([entry.id])
        await anna.node.free_chunks(store)
        assert chunks_stored(anna) == len(cuts)
        await anna.node.ingest(whole)
        assert read(anna.node, entry) == content
        await anna.node.write(lambda: store.close_stages(anna.node.today()))
        assert anna.node.query("SELECT count(*) FROM stage") == [(1,)]
        await anna.node.write(lambda: store.close_stages(anna.node.today() + 1))
        assert anna.node.query("SELECT count(*) FROM stage") == [(0,)]
        assert read(anna.node, entry) == content


@story
async def test_chunks_count_as_what_the_neighbour_brought(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        entry = await put(anna, space, some_bytes(3_000_000))
        await link(boris, anna)
        await until(lambda: is_whole(boris, entry), boris)
        neighbour, peers = anna.node.transport_id, [anna.node.transport_id]
        await until(
            lambda: DAY_SHARE_BYTES // (len(peers) + 1) - boris.node.door.share_left(neighbour) >= 3_000_000, boris
        )


@story
async def test_what_a_person_asked_for_comes_beyond_the_share_and_takes_nothing_of_it(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        boris.node.files_auto_bytes = 0
        entry = await put(anna, space, some_bytes(3_000_000))
        await link(boris, anna)
        await until(lambda: boris.node.open_store.progress(entry.id) is not None, boris)
        door, neighbour = boris.node.door, anna.node.transport_id
        await door.charge(boris.node.open_store, neighbour, door.share_left(neighbour) - 1_000_000)
        boris.node.neighbours.refresh()  # sessions learn what is left when they begin
        await boris.node.fetch(entry.id)
        await until(lambda: is_whole(boris, entry), boris)
        assert door.share_left(neighbour) > 900_000


@story
async def test_the_room_of_a_file_that_went_is_used_again_and_that_of_the_last_goes_back_to_the_disk(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space, heap = await anna.node.new_space(anna, "news"), nodes.home("anna").path / "store.chunks"
        contents = [some_bytes(5 * CHUNK_BYTES, seed) for seed in range(4)]
        first, second = [await put(anna, space, content) for content in contents[:2]]
        size = heap.stat().st_size
        await anna.node.remove([first.id])
        await swept(anna, 5)
        third = await put(anna, space, contents[2])
        assert heap.stat().st_size == size
        assert [read(anna.node, entry) for entry in (second, third)] == contents[1:3]
        await anna.node.remove([second.id])
        await swept(anna, 5)
        await anna.node.free_chunks(anna.node.open_store)
        assert heap.stat().st_size == size // 2
        assert anna.node.query("SELECT count(*) FROM gap") == [(0,)]
        fourth = await put(anna, space, contents[3])
        assert [read(anna.node, entry) for entry in (third, fourth)] == contents[2:]


@story
async def test_what_a_crash_left_behind_the_last_chunk_goes_back_to_the_disk_with_the_next_start(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space, heap = await anna.node.new_space(anna, "news"), nodes.home("anna").path / "store.chunks"
        entry = await put(anna, space, some_bytes(5 * CHUNK_BYTES))
        size = heap.stat().st_size
        with heap.open("ab") as file:
            file.write(bytes(3 * CHUNK_BYTES))
        anna = await nodes.come_back("anna")
        assert heap.stat().st_size == size
        assert read(anna.node, entry) == some_bytes(5 * CHUNK_BYTES)


@story
async def test_a_chunk_that_the_disk_damaged_is_said_and_never_handed_on(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, space = await two(nodes)
        other = await put(anna, space, some_bytes(5 * CHUNK_BYTES, 7))
        entry = await put(anna, space, some_bytes(5 * CHUNK_BYTES))
        assert await anna.node.is_sound()
        with (nodes.home("anna").path / "store.chunks").open("r+b") as heap:
            heap.seek(8 * CHUNK_BYTES)
            heap.write(b"damage")
        with pytest.raises(NotFoundError, match="damaged"):
            read(anna.node, entry)
        assert not await anna.node.is_sound()
        await link(boris, anna)
        all_but_one = Progress(4 * CHUNK_BYTES, 5 * CHUNK_BYTES)
        await until(lambda: boris.node.open_store.progress(entry.id) == all_but_one, boris)
        await until(lambda: is_whole(boris, other), boris)
        assert boris.node.content(entry.id) == all_but_one
        assert [peer.connected for peer in boris.node.peers()] == [True]
