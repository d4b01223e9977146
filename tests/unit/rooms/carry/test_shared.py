"""Files in channels: who signs puts them in, whoever follows gets them; small ones unasked, large ones if asked."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import CONTENT_MAX_BYTES, Person
from outlast.rooms.carry import files, service, shared, view
from outlast.rooms.carry.entries import POST_LIFE_MS, SHARED, Shared, read_shared
from outlast.rooms.carry.places import HOUR_MS
from tests.unit.rooms.carry.houses import House, houses
from tests.unit.rooms.carry.test_files import content, is_here, meet, read, stream
from tests.unit.rooms.carry.test_forgetting import Clock

CHUNK = 65_536


async def channel(owner: House, *readers: House) -> bytes:
    """A channel of the first, which the others follow and whose beginning they have."""
    made = await service.create_channel(owner.node, owner.person, "News")
    for reader in readers:
        await service.follow(reader.node, reader.person, made.link)
        await owner.carry_to(reader, space=made.space)
    return made.space


async def put(house: House, space: bytes, data: bytes, name: str = "map.png") -> bytes:
    return await files.send(
        house.node, house.person, space, stream(data), name=name, type="image/png", preview=b"small"
    )


def names(house: House) -> list[tuple[str, str]]:
    return [(one.file.name, one.state) for one in files.listing(house.node, house.person)]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 300_000])
async def test_a_file_of_any_size_reaches_who_follows_the_channel_by_stick(tmp_path: Path, size: int) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await channel(ann, ben)
        data = content(size)
        post = await put(ann, space, data)
        assert read(ann, post) == data
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: is_here(ben, post))
        assert read(ben, post) == data
        for start in {0, 1, CHUNK - 1, CHUNK, CHUNK + 5, size - 1, size}:
            assert read(ben, post, max(0, start)) == data[max(0, start) :]
        [shown] = service.read_channel(ben.node, ben.person, space)
        assert (shown.id, shown.text, shown.author) == (post, "map.png", ann.person.identity)
        held = files.find(ben.node, ben.person, post)
        assert (held.file.type, held.file.preview, held.file.outgoing) == ("image/png", b"small", False)
        assert files.find(ann.node, ann.person, post).file.outgoing


async def test_a_large_file_waits_to_be_asked_for_and_can_be_let_go(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        ben.node.files_auto_bytes = 100_000
        space = await channel(ann, ben)
        small, large = content(90_000), content(400_000)
        first, second = await put(ann, space, small, "small.png"), await put(ann, space, large, "large.png")
        await meet(ann, ben)
        await ben.until(lambda: is_here(ben, first))
        await ben.until(lambda: ("large.png", "offered") in names(ben))
        with pytest.raises(NotFoundError):
            read(ben, second)
        assert (await files.ask(ben.node, ben.person, second)).state == "coming"
        assert (await files.wait(ben.node, ben.person, second)).state == "here"
        assert read(ben, second) == large
        await files.let_go(ben.node, ben.person, second)
        assert names(ben) == [("small.png", "here"), ("large.png", "offered")]
        assert files.space_bytes(ben.node, ben.person) == len(small)
        await files.ask(ben.node, ben.person, second)
        await ben.until(lambda: is_here(ben, second))


async def test_nothing_is_written_down_for_a_reader(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await channel(ann, ben)
        post = await put(ann, space, content(200_000))
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: is_here(ben, post))

        def rows() -> list[object]:
            return [ben.person.query(f"SELECT count(*) FROM {table}") for (table,) in tables]

        tables = ben.person.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'local_%'")
        before, wanted = rows(), ben.node.query("SELECT wanted FROM file")
        await files.ask(ben.node, ben.person, post)
        assert read(ben, post)
        assert (rows(), ben.node.query("SELECT wanted FROM file")) == (before, wanted)


async def test_who_removes_a_file_frees_its_bytes_wherever_that_arrives(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await channel(ann, ben)
        post = await put(ann, space, content(200_000))
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: is_here(ben, post))
        await service.retract(ann.node, ann.person, post)
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: not service.read_channel(ben.node, ben.person, space))
        for house in (ann, ben):
            assert files.listing(house.node, house.person) == []
            with pytest.raises(NotFoundError):
                files.find(house.node, house.person, post)
            while house.node.query("SELECT 1 FROM chunk"):
                await house.node.write(lambda: None)


async def test_who_does_not_sign_for_a_channel_puts_no_file_into_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await channel(ann, ben)
        with pytest.raises(UsageError, match="only this channel's owner"):
            await put(ben, space, b"x")
        forged = Shared("map.png", "", 1, bytes(32))
        await ben.node.append(ben.person, space, SHARED.name, forged, life_ms=POST_LIFE_MS)
        assert files.listing(ben.node, ben.person) == []
        await service.unfollow(ben.node, ben.person, space)
        with pytest.raises(NotFoundError):
            await put(ben, space, b"x")


async def test_a_post_shows_fetches_and_frees_nothing_that_stands_elsewhere_on_a_node(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "News", [ben.person.identity])
        await service.follow(ben.node, ben.person, news.link)
        await ann.carry_to(ben, space=news.space)
        shown = {await put(ann, space, content(100_000)) for space in (news.space, await channel(ann))}
        await service.send(ben.node, ben.person, ann.person.identity, "a letter")
        await ben.carry_to(ann)
        await service.post(ben.node, ben.person, news.space, "by who may sign")

        def held() -> dict[bytes, object]:
            store = ann.node.open_store
            return {id: (store.load([id])[0].payload, store.progress(id)) for id in ids}

        ids = [row[0] for row in ann.node.query("SELECT id FROM entry")]
        before = held()
        hostile = [
            await ben.node.append(
                ben.person, news.space, SHARED.name, Shared("x", "", 1, id, life_ms=HOUR_MS), life_ms=POST_LIFE_MS
            )
            for id in ids
        ]
        await ben.carry_to(ann, space=news.space)
        await ann.until(lambda: len(service.read_channel(ann.node, ann.person, news.space)) == 2 + len(hostile))
        assert {one.file.letter for one in files.listing(ann.node, ann.person)} == shown
        for post in hostile:
            with pytest.raises(NotFoundError):
                read(ann, post.id)
            with pytest.raises(NotFoundError):
                await files.ask(ann.node, ann.person, post.id)
            with pytest.raises(NotFoundError):
                await files.let_go(ann.node, ann.person, post.id)
        clock.at_ms += HOUR_MS
        assert len(view.due_to_drop(ann.node, clock.at_ms)) == len(hostile)
        await service.drop_due(ann.node)
        assert view.due_to_drop(ann.node, clock.at_ms) == []
        assert held() == before


async def test_what_breaks_off_on_its_way_into_a_channel_leaves_nothing(tmp_path: Path) -> None:
    async def breaks() -> object:
        yield content(200_000)
        raise ConnectionError

    async with houses(tmp_path, "ann") as (ann,):
        space = await channel(ann)
        before = ann.node.open_store.usage_of(space).entries
        with pytest.raises(ConnectionError):
            await files.send(ann.node, ann.person, space, breaks(), name="film")
        with pytest.raises(UsageError, match="preview"):
            await files.send(ann.node, ann.person, space, stream(b"x"), name="film", preview=bytes(9000))
        assert service.read_channel(ann.node, ann.person, space) == []
        assert ann.node.open_store.usage_of(space).entries == before
        while ann.node.query("SELECT 1 FROM chunk"):
            await ann.node.write(lambda: None)


async def test_a_post_that_cannot_be_kept_takes_its_bytes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        space = await channel(ann)
        append = ann.node.append

        async def refuses(person: Person, space: bytes, kind: str, *rest: object, **more: object) -> object:
            if kind == SHARED.name:
                raise UsageError("no")
            return await append(person, space, kind, *rest, **more)

        monkeypatch.setattr(ann.node, "append", refuses)
        with pytest.raises(UsageError):
            await put(ann, space, content(200_000))
        while ann.node.query("SELECT 1 FROM chunk"):
            await ann.node.write(lambda: None)


def test_a_post_that_names_a_file_as_none_can_be_is_passed_over() -> None:
    good = Shared("a/b.png", "image/png", 5, bytes(32), b"small")
    found = read_shared(SHARED.encode(good))
    assert found is not None
    assert found.name == "b.png"
    for bad in (
        Shared("b", "", -1, bytes(32)),
        Shared("b", "", CONTENT_MAX_BYTES + 1, bytes(32)),
        Shared("b", "", 5, bytes(31)),
        Shared("b", "", 5, bytes(32), bytes(8193)),
    ):
        assert read_shared(SHARED.encode(bad)) is None
    assert read_shared(b"\xc1") is None


async def test_another_person_of_the_node_who_does_not_follow_sees_no_file(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await channel(ann, ben)
        post = await put(ann, space, content(10))
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: is_here(ben, post))
        follow = view.follows(ben.person)
        await ben.node.write(lambda: ben.person.vault.write(lambda tx: tx.execute(f"DELETE FROM {view.FOLLOW}")))
        assert follow
        assert view.find_shared(ben.node, post, ben.node.now_ms()) is not None
        assert shared.find(ben.node, ben.person, post) is None
        assert files.files_of(ben.node, ben.person, [post]) == {}


async def test_a_channel_s_file_is_written_down_by_its_id(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        space = await channel(ann)
        post = await put(ann, space, content(100_000))
        out = io.BytesIO()
        await files.write(ann.node, ann.person, post, out)
        assert out.getvalue() == content(100_000)
