"""A process that dies while it fetches or takes in a file goes on where it was."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.kernel import Home
from outlast.kernel.chunks import Loaded, Manifest, places
from outlast.kernel.entry import CHUNK_BYTES
from tests.architecture.tree import ROOT
from tests.crash.disk import Disk
from tests.crash.toy import FILE, MONTH_MS, House, house, make

CHUNKS = 240
CONTENT = random.Random(1).randbytes(CHUNKS * CHUNK_BYTES - 77)


async def parts(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 1 << 20):
        yield content[at : at + (1 << 20)]


async def fetch_and_die(home: Path, source: House, port: int, stop: int) -> int:
    """Let a process fetch until it stops or has all, kill it, and return how much it said it holds."""
    arguments = (str(home), source.node.transport_id.hex(), "127.0.0.1", str(port), str(stop))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.fetching", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    held = 0
    try:
        async with asyncio.timeout(60):
            while line := (await child.stdout.readline()).split():
                if line == [b"stopped"]:
                    break
                held = int(line[1])
                if held == len(CONTENT):
                    break
    finally:
        child.kill()
        await child.wait()
    return held


async def held_places(home: Path, entry: bytes) -> set[int]:
    """The chunks that a closed node holds; each is the one of the manifest."""
    async with house(Home(home)) as own:
        store = own.node.open_store
        found = store.load([entry])
        manifest = Manifest.of(found[0]) if found else None
        if manifest is None:
            return set()
        held = {*places(store.holding(entry))}
        for place in held:
            data = store.chunk(entry, place).data
            assert data is not None
            assert sha256(data).digest() == manifest.hash_at(place)
        progress = store.progress(entry)
        assert progress is not None
        assert progress.held_bytes == sum(map(manifest.size_at, held))
        return held


def test_a_node_killed_while_it_fetches_holds_what_it_said_and_never_asks_for_it_again(tmp_path: Path) -> None:
    async def run() -> None:
        source_home, home = await make(tmp_path / "source"), await make(tmp_path / "own")
        async with house(source_home) as source:
            space = await source.node.new_space(source.person, "films")
            async with house(home) as own:
                await own.node.follow(space)
            entry = await source.node.append_content(source.person, space, FILE, parts(CONTENT), life_ms=MONTH_MS)
            port = await source.node.listen("127.0.0.1", 0)
            asked: list[int] = []
            load = source.node.open_store.chunk

            def recorded(id: bytes, place: int) -> Loaded:
                asked.append(place)
                return load(id, place)

            source.node.open_store.chunk = recorded  # type: ignore[method-assign]
            chance = random.Random(2)
            durable: set[int] = set()
            partial = 0
            for stop in [*(chance.randint(4, 40) for _ in range(6)), 0]:
                asked.clear()
                said = await fetch_and_die(home.path, source, port, stop)
                assert not durable.intersection(asked)
                before, durable = durable, await held_places(home.path, entry.id)
                assert before <= durable
                assert len(durable) * CHUNK_BYTES >= said
                partial += 0 < len(durable) < CHUNKS
            assert partial >= 2, "the kills came too early or too late to show anything"
            async with house(home) as own:
                assert b"".join(own.node.read_content(entry.id)) == CONTENT

    asyncio.run(run())


@pytest.mark.parametrize("room", range(0, 72, 6))
def test_a_file_that_the_disk_has_no_room_for_is_refused_or_whole(tmp_path: Path, room: int) -> None:
    async def run() -> None:
        home = await make(tmp_path / "own")
        content = CONTENT[: 24 * CHUNK_BYTES]
        async with house(home) as own:
            space = await own.node.new_space(own.person, "films")
            with Disk() as disk:
                disk.fill(room + 1)
                try:
                    entry = await own.node.append_content(own.person, space, FILE, parts(content), life_ms=MONTH_MS)
                except StorageError:
                    entry = None
                disk.make_room()
                await own.person.outbox.flush()
                files = own.node.query("SELECT e.id FROM entry e JOIN file f ON f.n = e.n")
                assert files == ([] if entry is None else [(entry.id,)])
                if entry is not None:
                    assert b"".join(own.node.read_content(entry.id)) == content
        async with house(home) as own:
            files = own.node.query("SELECT e.id FROM entry e JOIN file f ON f.n = e.n")
            assert files == ([] if entry is None else [(entry.id,)])
            if entry is not None:
                assert b"".join(own.node.read_content(entry.id)) == content

    asyncio.run(run())
