"""Files on their way: what was acknowledged stays, whatever ends in between; what waits too long goes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import DAY_MS
from outlast.rooms.carry import files, upload_view, uploads
from outlast.rooms.carry.uploads import BLOCK_BYTES, ElsewhereError
from tests.unit.rooms.carry.houses import House, houses

DATA = b"#!AMR\n" + random.Random(3).randbytes(2 * BLOCK_BYTES)


async def some(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def cut(*parts: bytes) -> AsyncIterator[bytes]:
    """Parts, then the connection is gone."""
    for part in parts:
        yield part
    raise ConnectionResetError


async def begin(ann: House, ben: House) -> uploads.OnItsWay:
    return await uploads.begin(ann.node, ann.person, ben.person.identity, "note.amr", len(DATA), "1")


async def test_a_file_goes_on_after_the_node_started_anew_and_is_then_sent(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        one = await begin(ann, ben)
        with pytest.raises(ConnectionResetError):
            await uploads.take(ann.node, ann.person, one.file.id, 0, cut(DATA[: BLOCK_BYTES + 5]))
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        again = await begin(ann, ben)
        assert (again.file.id, again.held_bytes) == (one.file.id, BLOCK_BYTES)
        await uploads.take(ann.node, ann.person, one.file.id, BLOCK_BYTES, some(DATA[BLOCK_BYTES:]))
        await ann.until(lambda: files.listing(ann.node, ann.person))
        [held] = files.listing(ann.node, ann.person)
        assert b"".join(files.read(ann.node, ann.person, held.id)) == DATA
        assert (held.file.name, held.file.type) == ("note.amr", "audio/amr")
        assert uploads.listing(ann.node, ann.person) == []


async def test_who_comes_later_goes_on_alone(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        id = (await begin(ann, ben)).file.id

        async def overtaken() -> AsyncIterator[bytes]:
            yield DATA[:BLOCK_BYTES]
            await uploads.take(ann.node, ann.person, id, BLOCK_BYTES, some(DATA[BLOCK_BYTES : 2 * BLOCK_BYTES]))
            yield b"x" * BLOCK_BYTES

        with pytest.raises(ElsewhereError):
            await uploads.take(ann.node, ann.person, id, 0, overtaken())
        await uploads.take(ann.node, ann.person, id, 2 * BLOCK_BYTES, some(DATA[2 * BLOCK_BYTES :]))
        await ann.until(lambda: files.listing(ann.node, ann.person))
        [held] = files.listing(ann.node, ann.person)
        assert b"".join(files.read(ann.node, ann.person, held.id)) == DATA


async def test_more_than_was_said_is_refused(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        id = (await begin(ann, ben)).file.id
        with pytest.raises(UsageError, match="more came"):
            await uploads.take(ann.node, ann.person, id, 0, some(DATA, b"x"))
        assert uploads.find(ann.node, ann.person, id).file.state == upload_view.COMING


async def test_what_is_not_finished_in_seven_days_is_dropped_with_its_bytes(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        one = await begin(ann, ben)
        await uploads.take(ann.node, ann.person, one.file.id, 0, some(DATA[:BLOCK_BYTES]))
        waiting = ann.node.home.path / "rooms" / "carry" / "waiting" / ann.person.key
        assert [path.name for path in waiting.iterdir()] == [one.file.id.hex()]
        past = ann.node.now_ms() - uploads.KEPT_DAYS * DAY_MS
        sql = f"UPDATE {upload_view.UPLOAD} SET at_ms = ?"
        await ann.node.write(lambda: ann.person.vault.write(lambda tx: tx.execute(sql, (past,))))
        ann.node.touch()
        await ann.until(lambda: not uploads.listing(ann.node, ann.person))
        assert list(waiting.iterdir()) == []
        with pytest.raises(NotFoundError):
            await uploads.take(ann.node, ann.person, one.file.id, BLOCK_BYTES, some(b""))


async def test_too_many_files_on_their_way_are_refused(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        for number in range(uploads.WAITING_MAX):
            await uploads.begin(ann.node, ann.person, ben.person.identity, "a", 5, str(number))
        with pytest.raises(UsageError, match="too many"):
            await begin(ann, ben)


async def test_what_a_kill_left_of_files_that_were_sent_goes_at_the_next_start(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        one = await begin(ann, ben)
        await uploads.take(ann.node, ann.person, one.file.id, 0, some(DATA[:BLOCK_BYTES]))
        waiting = ann.node.home.path / "rooms" / "carry" / "waiting"
        own = waiting / ann.person.key
    (own / bytes(16).hex()).write_bytes(b"sent, and not removed yet")
    (waiting / "somebody-who-left").mkdir()
    (waiting / "somebody-who-left" / "file").write_bytes(b"of theirs")
    async with houses(tmp_path, "ann", "ben") as (ann, _):
        await ann.until(lambda: sorted(path.name for path in waiting.iterdir()) == [ann.person.key])
        await ann.until(lambda: [path.name for path in own.iterdir()] == [one.file.id.hex()])
        assert uploads.find(ann.node, ann.person, one.file.id).held_bytes == BLOCK_BYTES
