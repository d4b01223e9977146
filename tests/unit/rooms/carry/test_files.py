"""Files between people: what one sends arrives whole at the other, and what is said of it is so."""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, StorageError, UsageError
from outlast.kernel.parcel import FILE_MAX_BYTES, PARCEL_SPACE, PLAIN_BYTES
from outlast.rooms.carry import files, group_view, groups, service
from tests.crash.disk import Disk
from tests.unit.rooms.carry.houses import House, houses
from tests.unit.rooms.carry.test_groups import circle


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def stream(data: bytes, step: int = 100_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


async def send(sender: House, to: House, data: bytes, name: str = "photo.jpg") -> bytes:
    return await files.send(sender.node, sender.person, to.person.identity, stream(data), name=name)


async def meet(one: House, other: House) -> None:
    """The two nodes are neighbours from now on."""
    await other.node.peer_add(one.node.transport_id, "127.0.0.1", 9)  # nobody is there: only the other one calls
    port = await other.node.listen("127.0.0.1", 0)
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", port)


def events(house: House, letter: bytes) -> list[str]:
    return [one.event for one in house.person.custody([letter])[letter]]


def is_here(house: House, letter: bytes) -> bool:
    found = files.files_of(house.node, house.person, [letter])
    return letter in found and found[letter].state == "here"


def read(house: House, letter: bytes, start: int = 0) -> bytes:
    return b"".join(files.read(house.node, house.person, letter, start))


async def test_a_file_that_is_too_large_is_refused_before_any_of_it_is_read(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        source, to = io.BytesIO(b"the beginning"), ben.person.identity
        with pytest.raises(UsageError, match="at most 8 GiB"):
            await files.send(ann.node, ann.person, to, source, name="film", size_bytes=FILE_MAX_BYTES + 1)
        assert source.tell() == 0


@pytest.mark.parametrize("size", [0, 1, PLAIN_BYTES, PLAIN_BYTES + 1, 3_000_000])
async def test_a_file_of_any_size_comes_over_a_link_and_its_sender_is_told_when_it_is_whole(
    tmp_path: Path, size: int
) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(size)
        letter = await send(ann, ben, data)
        assert events(ann, letter) == ["kept"]
        await meet(ann, ben)
        await ben.until(lambda: is_here(ben, letter))
        assert read(ben, letter) == data
        await ann.until(lambda: "received" in events(ann, letter))
        assert events(ann, letter) == ["kept", "copied", "received"]
        [message] = service.inbox(ben.person)
        assert (message.letter, message.text, message.unread) == (letter, "photo.jpg", True)
        assert [one.letter for one in service.search(ben.person, "PHOTO")] == [letter]
        await service.send(ben.node, ben.person, ann.person.identity, "whose is it?", reply_to=letter)


async def test_a_file_goes_by_stick(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(2_000_000)
        letter = await send(ann, ben, data)
        await ann.carry_to(ben)
        assert events(ann, letter) == ["kept", "copied"]
        await ben.until(lambda: is_here(ben, letter))
        assert read(ben, letter) == data
        await ben.until(lambda: not ben.person.parcels_from(ann.person.identity))
        await ben.carry_to(ann)
        await ann.until(lambda: "received" in events(ann, letter))
        again = io.BytesIO()
        await ann.person.write_bundle(again, to=ben.person.identity)
        assert len(again.getvalue()) < 1_000_000


async def test_a_stick_that_was_cut_is_gone_on_with_by_the_next_one(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(6_000_000)
        letter = await send(ann, ben, data)
        sizes = []
        for _ in range(4):
            stick = io.BytesIO()
            await ann.person.write_bundle(stick, to=ben.person.identity)
            sizes.append(len(stick.getvalue()))
            stick.truncate(sizes[0] // 3)
            stick.seek(0)
            await ben.person.read_bundle(stick)
            await ben.until(lambda: bool(ben.person.parcels_from(ann.person.identity)) != is_here(ben, letter))
            await ben.carry_to(ann)
        assert read(ben, letter) == data
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[1] < sizes[0] * 0.8
        assert sizes[3] < sizes[0] * 0.3
        await ann.until(lambda: "received" in events(ann, letter))


async def test_a_file_larger_than_the_stick_goes_by_several_trips(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(5_000_000)
        letter = await send(ann, ben, data)
        trips = 0
        while not is_here(ben, letter):
            stick = io.BytesIO()
            report = await ann.person.write_bundle(stick, to=ben.person.identity, max_bytes=1_500_000)
            await ann.person.bundle_left(report)
            assert len(stick.getvalue()) <= 1_500_000
            stick.seek(0)
            await ben.person.read_bundle(stick)
            await ben.until(lambda: bool(ben.person.parcels_from(ann.person.identity)) != is_here(ben, letter))
            assert report.left_out == (not is_here(ben, letter))
            await ben.carry_to(ann)
            trips += 1
            assert trips <= 4
        assert read(ben, letter) == data
        await ann.until(lambda: "received" in events(ann, letter))


async def test_any_part_of_a_file_can_be_read(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(5 * PLAIN_BYTES + 17)
        letter = await send(ann, ben, data)
        for start in (1, PLAIN_BYTES - 1, PLAIN_BYTES, 3 * PLAIN_BYTES + 5, len(data) - 1, len(data)):
            assert read(ann, letter, start) == data[start:]


async def test_a_large_file_waits_to_be_asked_for(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        ben.node.files_auto_bytes = 1_000_000
        data = content(2_000_000)
        letter = await send(ann, ben, data)
        await meet(ann, ben)
        await ben.until(lambda: service.inbox(ben.person))
        await ben.until(lambda: len(ben.node.query("SELECT 1 FROM file")) == 1)
        assert files.find(ben.node, ben.person, letter).state == "offered"
        assert events(ann, letter) == ["kept"]
        with pytest.raises(NotFoundError):
            read(ben, letter)
        assert (await files.ask(ben.node, ben.person, letter)).state == "coming"
        assert (await files.wait(ben.node, ben.person, letter)).state == "here"
        assert read(ben, letter) == data
        await ann.until(lambda: "received" in events(ann, letter))


async def test_who_is_not_concerned_carries_a_file_and_learns_nothing(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cy") as (ann, ben, cy):
        data = content(300_000)
        letter = await send(ann, ben, data, "secret-name.pdf")
        await meet(ann, cy)
        await ann.until(lambda: "copied" in events(ann, letter))
        assert files.listing(cy.node, cy.person) == []
        await ann.node.neighbours.stop()
        await meet(cy, ben)
        await ben.until(lambda: is_here(ben, letter))
        assert read(ben, letter) == data
        headers = cy.node.query(
            "SELECT header FROM entry JOIN space ON space.n = entry.space WHERE space.id = ?", (PARCEL_SPACE,)
        )
        assert len(headers) == 1
        assert b"secret-name" not in headers[0][0]


async def test_a_file_that_was_let_go_takes_no_space_and_can_be_asked_for_again(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(1_000_000)
        letter = await send(ann, ben, data)
        await meet(ann, ben)
        await ben.until(lambda: is_here(ben, letter))
        await files.let_go(ben.node, ben.person, letter)
        assert files.find(ben.node, ben.person, letter).state == "gone"
        assert files.space_bytes(ben.node, ben.person) == 0
        while ben.node.query("SELECT 1 FROM chunk"):
            await ben.node.write(lambda: None)
        await files.ask(ben.node, ben.person, letter)
        await ben.until(lambda: is_here(ben, letter))
        assert read(ben, letter) == data


async def test_a_file_that_never_left_is_taken_back_with_all_that_it_takes(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        letter = await send(ann, ben, content(1_000_000))
        await service.take_back(ann.node, ann.person, letter)
        assert files.listing(ann.node, ann.person) == []
        assert not ann.node.query("SELECT 1 FROM entry e JOIN space s ON s.n = e.space WHERE s.id = ?", (PARCEL_SPACE,))
        while ann.node.query("SELECT 1 FROM chunk"):
            await ann.node.write(lambda: None)


async def test_what_breaks_off_while_it_is_packed_leaves_nothing(tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield content(3_000_000)
        raise ConnectionError

    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        with pytest.raises(ConnectionError):
            await files.send(ann.node, ann.person, ben.person.identity, breaks(), name="film")
        await ben.person.block(ann.person.identity)
        with pytest.raises(UsageError, match="blocked"):
            await send(ben, ann, b"x")
        assert service.sent(ann.person) == []
        assert ann.node.query("SELECT 1 FROM stage") == []
        while ann.node.query("SELECT 1 FROM chunk"):
            await ann.node.write(lambda: None)


async def test_a_file_for_a_group_reaches_its_members_and_nobody_else_can_open_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cy") as (ann, ben, cy):
        space = await circle(ann, ben)
        data = content(400_000)
        file = await files.send(ann.node, ann.person, space, stream(data), name="map.png")
        await meet(ann, cy)
        await ann.node.neighbours.stop()
        await meet(ann, ben)
        await ben.until(lambda: is_here(ben, file))
        assert read(ben, file) == read(ann, file) == data
        assert files.listing(cy.node, cy.person) == []
        [own] = files.listing(ann.node, ann.person, peer=space)
        assert (own.file.name, own.file.outgoing, own.state) == ("map.png", True, "here")
        lines = [line for line in groups.read(ben.person, space) if line.event == group_view.TEXT]
        assert [(line.id, line.text) for line in lines] == [(file, "map.png")]
        scene = groups.scene(ann.person, space)
        await ann.until(lambda: scene.received(groups.read(ann.person, space)[-1]) == (1, 1))
        assert [line.id for line in groups.search(ben.person, "MAP png")] == [file]
        await groups.post(ben.node, ben.person, space, "thanks", reply_to=file)
        await groups.hide(ann.node, ann.person, file)
        await ben.until(lambda: not files.listing(ben.node, ben.person))
        assert groups.search(ben.person, "MAP png") == []


async def test_a_file_for_a_group_goes_by_stick(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        data = content(300_000)
        file = await files.send(ann.node, ann.person, space, stream(data), name="map.png")
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, file))
        assert read(ben, file) == data


async def test_the_small_picture_of_a_file_in_a_group_goes_by_stick_with_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        most = files.preview_bytes(ann.person, space)
        small, name, type_ = content(most), "n" * 196 + ".jpg", "a" * 64 + "/" + "b" * 64
        file = await files.send(ann.node, ann.person, space, stream(b"x"), name=name, type=type_, preview=small)
        with pytest.raises(UsageError, match="preview"):
            await files.send(ann.node, ann.person, space, stream(b"x"), name=name, preview=content(most + 1))
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, file))
        assert files.find(ben.node, ben.person, file).file.preview == small


@pytest.mark.parametrize("room", range(0, 60, 6))
async def test_a_file_that_the_disk_has_no_room_for_is_refused_or_arrives_whole(tmp_path: Path, room: int) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        data = content(1_000_000)
        letter = None
        with Disk() as disk:
            disk.fill(room + 1)
            with suppress(StorageError):
                letter = await send(ann, ben, data)
            disk.make_room()
            await ann.person.outbox.flush()
        assert len(files.listing(ann.node, ann.person)) == (letter is not None)
        assert len(service.sent(ann.person)) == (letter is not None)
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        if letter is None:
            assert not ann.node.query(
                "SELECT 1 FROM entry e JOIN space s ON s.n = e.space WHERE s.id = ?", (PARCEL_SPACE,)
            )
            return
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, letter))
        assert read(ben, letter) == data
