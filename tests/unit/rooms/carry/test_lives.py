"""What is said in groups and channels for a while: hidden at its end, then destroyed, never shown to who comes late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from outlast.kernel import Delete, Node, Person, open_backup
from outlast.rooms.carry import file_view, files, forgetting, group_view, groups, places, service, view
from outlast.rooms.carry.places import HOUR_MS
from outlast.rooms.carry.private import remember
from tests.unit.rooms.carry.houses import House, houses
from tests.unit.rooms.carry.test_files import content, is_here, read, stream
from tests.unit.rooms.carry.test_forgetting import SECRET, Clock, holding
from tests.unit.rooms.carry.test_groups import circle, texts, trips
from tests.unit.rooms.carry.test_shared import channel

End = Callable[[Node, Person, bytes], Awaitable[None]]


def found(house: House, space: bytes) -> list[str]:
    """Every way in which a text of a group is shown, but for counts."""
    last = groups.get(house.person, space).last
    lines = [*groups.read(house.person, space), *groups.search(house.person, SECRET[5:]), *([last] if last else [])]
    return [line.text for line in lines if line.text]


def rows(house: House) -> int:
    """How many texts of groups the vault still holds, shown or not."""
    sql = f"SELECT count(*) FROM {group_view.SAID} WHERE event = '{group_view.TEXT}'"
    count: int = house.person.query(sql)[0][0]
    return count


async def test_a_text_of_a_group_with_a_life_is_hidden_at_its_end_and_then_destroyed(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        space = await circle(ann, ben)
        text = await groups.post(ann.node, ann.person, space, SECRET, life_ms=HOUR_MS)
        clock.at_ms += 20 * 60_000
        await ann.carry_to(ben)
        await ben.until(lambda: texts(ben, space) == [SECRET])
        for house in (ann, ben):
            assert found(house, space) == [SECRET] * 3
            line = groups.find_line(house.person, text)
            assert line is not None
            assert line.until_ms == line.at_ms + HOUR_MS
        assert groups.get(ben.person, space).unread == 1
        clock.at_ms += 40 * 60_000
        for house in (ann, ben):
            assert found(house, space) == []
            assert groups.find_line(house.person, text) is None
            assert groups.get(house.person, space).unread == 0
            house.node.touch()
            await house.until(lambda house=house: rows(house) == 0)
            kept = house.node.open_store.get(text)
            assert kept is not None
            assert kept.payload is None
        await groups.look(ben.node, ben.person, space)
        assert rows(ben) == 0
    assert [place for name in ("ann", "ben") for place in holding(tmp_path / name)] == []


async def test_who_comes_late_is_not_shown_what_is_over_in_a_group(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        space = await circle(ann, ben)
        await places.set_life(ann.node, ann.person, space, HOUR_MS)
        await groups.post(ann.node, ann.person, space, SECRET)
        file = await files.send(ann.node, ann.person, space, stream(content(1000)), name="bakery.txt")
        await groups.post(ann.node, ann.person, space, "stays", life_ms=0)
        clock.at_ms += HOUR_MS
        assert files.listing(ann.node, ann.person) == []
        await ann.carry_to(ben)
        await ben.until(lambda: texts(ben, space) == ["stays"])
        assert rows(ben) == 1
        assert files.files_of(ben.node, ben.person, [file]) == {}
        assert not ben.person.query(f"SELECT 1 FROM {file_view.FILE}")


async def test_a_post_with_a_life_is_shown_no_longer_and_its_payload_and_content_go(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", now_ms=clock) as (ann, ben):
        space = await channel(ann, ben)
        await places.set_life(ann.node, ann.person, space, HOUR_MS)
        post = await service.post(ann.node, ann.person, space, SECRET)
        file = await files.send(ann.node, ann.person, space, stream(content(200_000)), name="bakery.txt")
        [content_id] = files.find(ann.node, ann.person, file).file.parcels
        stays = await service.post(ann.node, ann.person, space, "stays", life_ms=0)
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: len(service.read_channel(ben.node, ben.person, space)) == 3)
        assert view.due_to_drop(ben.node, clock.at_ms) == []
        clock.at_ms += HOUR_MS
        for house in (ann, ben):
            assert [one.id for one in service.read_channel(house.node, house.person, space)] == [stays]
            assert files.listing(house.node, house.person) == []
            due = {one.post: one.content for one in view.due_to_drop(house.node, clock.at_ms)}
            assert due == {post: None, file: content_id}
            await service.drop_due(house.node)
            kept = house.node.open_store.get(post)
            assert kept is not None
            assert kept.payload is None
            while house.node.query("SELECT 1 FROM chunk"):
                await house.node.write(lambda: None)
            assert view.due_to_drop(house.node, clock.at_ms) == []


async def test_a_backup_has_no_texts_of_groups_that_disappear(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        await groups.post(ann.node, ann.person, space, "stays")
        await groups.post(ann.node, ann.person, space, SECRET, life_ms=HOUR_MS)
        await files.send(ann.node, ann.person, space, stream(b"x"), name="bakery.txt", life_ms=HOUR_MS)
        tables = open_backup(await ann.person.backup("a long passphrase"), "a long passphrase").rooms["carry"].tables
        said = tables[group_view.SAID]
        column = said.columns.index("text")
        assert [row[column] for row in said.rows if row[column]] == ["stays"]
        assert tables[file_view.FILE].rows == []


async def in_a_group(ann: House, ben: House, *, name: str = "Reading circle") -> tuple[bytes, bytes, bytes]:
    """A group of two with a text and a file of Ann's that Ben has, which she knows."""
    space = await circle(ann, ben, name=name)
    text = await groups.post(ann.node, ann.person, space, SECRET)
    file = await files.send(ann.node, ann.person, space, stream(content(200_000)), name="bakery.txt")
    await trips(ann, ben, until=lambda: is_here(ben, file) and group_view.hearing(ann.person, file))
    return space, text, file


async def holds_no_file(house: House) -> None:
    await house.until(lambda: not house.person.query(f"SELECT 1 FROM {file_view.FILE} UNION SELECT 1 FROM parcel"))
    while house.node.query("SELECT 1 FROM chunk"):
        await house.node.write(lambda: None)


async def test_what_was_taken_away_in_a_group_is_gone_from_vaults_and_so_are_the_bytes_of_files(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space, text, file = await in_a_group(ann, ben)
        for one in (text, file):
            await groups.hide(ann.node, ann.person, one)
        assert files.listing(ann.node, ann.person) == []
        await trips(ann, ben, until=lambda: not texts(ben, space))
        assert files.listing(ben.node, ben.person) == []
        for house in (ann, ben):
            await holds_no_file(house)
        assert [place for name in ("ann", "ben") for place in holding(tmp_path / name)] == []


async def test_of_a_group_that_was_left_nothing_stays_not_even_its_name(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space, *_ = await in_a_group(ann, ben, name=SECRET)
        for house in (ben, ann):
            await groups.leave(house.node, house.person, space)
            assert files.listing(house.node, house.person) == []
            await holds_no_file(house)
            assert not house.person.query(f"SELECT 1 FROM {group_view.HEARING}")
        assert [place for name in ("ann", "ben") for place in holding(tmp_path / name)] == []


@pytest.mark.parametrize("end", [files.let_go, groups.leave])
async def test_what_somebody_who_is_locked_has_in_the_same_group_stays_theirs(end: End, tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        cleo = House(ben.node, await ben.node.add_person("cleo", "words of cleo's"))
        for one, other in ((ann, cleo), (cleo, ann), (ben, cleo), (cleo, ben)):
            await one.person.add_contact(await other.person.link())
        space = await circle(ann, ben, cleo)
        data = content(200_000)
        file = await files.send(ann.node, ann.person, space, stream(data), name="map.png")
        await trips(ann, ben, cleo, until=lambda: is_here(ben, file) and is_here(cleo, file))
        await ben.node.lock_person(cleo.person.key)
        await end(ben.node, ben.person, file if end is files.let_go else space)
        await ben.until(lambda: not ben.person.query("SELECT 1 FROM parcel"))
        await forgetting.destroy(ben.node, ben.person)
        cleo = House(ben.node, await ben.node.unlock("words of cleo's"))
        assert read(cleo, file) == data


async def test_what_is_gone_meanwhile_is_not_brought_back_by_letting_go_of_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        file = await files.send(ann.node, ann.person, space, stream(content(1000)), name="map.png")
        go_on = threading.Event()
        async with asyncio.TaskGroup() as tasks:  # what is written first is what was asked for first
            tasks.create_task(ann.node.write(go_on.wait))
            tasks.create_task(remember(ann.node, ann.person, [Delete(file_view.FILE, {"letter": file})]))
            await asyncio.sleep(0)
            tasks.create_task(files.let_go(ann.node, ann.person, file))
            for _ in range(20):
                await asyncio.sleep(0)
            go_on.set()
        assert ann.person.query(f"SELECT 1 FROM {file_view.FILE}") == []


async def test_what_disappears_while_it_is_marked_as_read_is_not_brought_back(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        await ann.person.add_contact(await ben.person.link())
        await ben.person.add_contact(await ann.person.link())
        letter = await service.send(ben.node, ben.person, ann.person.identity, SECRET)
        await trips(
            ben, ann, until=lambda: ann.person.query(f"SELECT 1 FROM {view.MESSAGE} WHERE letter = ?", (letter,))
        )
        go_on = threading.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ann.node.write(go_on.wait))
            reading = tasks.create_task(service.mark_read(ann.node, ann.person, [letter]))
            await asyncio.sleep(0)
            tasks.create_task(remember(ann.node, ann.person, [Delete(view.MESSAGE, {"letter": letter})]))
            await asyncio.sleep(0)
            go_on.set()
        assert reading.result() == 1
        assert ann.person.query(f"SELECT 1 FROM {view.MESSAGE}") == []
