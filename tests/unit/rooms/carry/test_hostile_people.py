"""A contact, a member or a writer who names what is not theirs: nothing of others goes, comes or is told by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.errors import NotFoundError
from outlast.kernel import DAY_MS, Put
from outlast.kernel.epoch import Inner, seal_entry
from outlast.kernel.groups import Said
from outlast.kernel.space import GENESIS, OPEN, SpaceBody
from outlast.rooms.carry import file_view, files, forgetting, group_view, groups, places, service, view
from outlast.rooms.carry.entries import DEVICE, FILE, HIDE, POST, SHARED, ChannelDevice, File, Hide, Post, Shared
from outlast.rooms.carry.private import remember
from outlast.rooms.carry.words import SEARCH_MAX
from tests.unit.kernel.people import secret
from tests.unit.rooms.carry.houses import House, houses
from tests.unit.rooms.carry.said import entry
from tests.unit.rooms.carry.test_files import content, is_here, meet, read, send, stream
from tests.unit.rooms.carry.test_forgetting import Clock
from tests.unit.rooms.carry.test_groups import circle, texts, trips
from tests.unit.rooms.carry.test_shared import channel, put


async def name_parcels(
    writer: House, to: House, *parcels: bytes, life_ms: int = 0, size: int = 1, key: bytes = bytes(32)
) -> bytes:
    """A letter with a file whose parts are these, whatever they are."""
    file = File("photo.jpg", "", size, key, parcels)
    letter = await writer.person.send(to.person.identity, FILE.name, file, life_ms=life_ms)
    await writer.carry_to(to)
    await to.until(lambda: view.find_message(to.person, letter, to.node.now_ms()))
    return letter


async def test_a_letter_that_names_what_stands_elsewhere_ends_nothing_of_it(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", "mal", now_ms=clock) as (ann, ben, mal):
        space = await channel(ann, ben)
        post = await service.post(ann.node, ann.person, space, "where there is water")
        shared = await put(ann, space, content(100_000))
        await ann.carry_to(ben, space=space)
        await ben.until(lambda: is_here(ben, shared))
        [bytes_of_it] = files.find(ben.node, ben.person, shared).file.parcels
        own = await service.send(ben.node, ben.person, ann.person.identity, "to Ann")
        [mail] = [bytes(row[0]) for row in ben.person.query("SELECT entry FROM sent WHERE letter = ?", (own,))]
        for id in (post, bytes_of_it, mail):
            passing = await name_parcels(mal, ben, id, life_ms=places.HOUR_MS)
            lasting = await name_parcels(mal, ben, id)
            await files.let_go(ben.node, ben.person, lasting)
            assert files.find(ben.node, ben.person, passing).state != "here"
        clock.at_ms += places.HOUR_MS
        await forgetting.destroy(ben.node, ben.person)
        assert [one.id for one in service.read_channel(ben.node, ben.person, space)] == [post, shared]
        assert read(ben, shared) == content(100_000)
        assert ben.node.open_store.get(mail).payload is not None  # type: ignore[union-attr]


async def test_who_names_the_parts_of_somebody_elses_file_takes_nothing_of_it_away(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", "mal", now_ms=clock) as (ann, ben, mal):
        data = content(200_000)
        letter = await send(ann, ben, data)
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, letter))
        parts = files.find(ben.node, ben.person, letter).file.parcels
        passing = await name_parcels(mal, ben, *parts, life_ms=places.HOUR_MS, size=len(data))
        lasting = await name_parcels(mal, ben, *parts, size=len(data))
        await ben.settled()
        await files.let_go(ben.node, ben.person, lasting)
        clock.at_ms += places.HOUR_MS
        await forgetting.destroy(ben.node, ben.person)
        assert file_view.find(ben.person, passing, 0) is None
        assert read(ben, letter) == data


async def test_a_file_that_is_carried_for_others_goes_by_nobodys_letter(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", "cid", "mal", now_ms=clock) as (ann, ben, cid, mal):
        data = content(200_000)
        letter = await send(ann, cid, data)
        await meet(ann, ben)
        [parcel] = files.find(ann.node, ann.person, letter).file.parcels
        await ben.until(lambda: (one := ben.node.open_store.progress(parcel)) and one.is_whole)
        await name_parcels(mal, ben, parcel, life_ms=places.HOUR_MS, size=len(data))
        await ben.settled()
        clock.at_ms += places.HOUR_MS
        await forgetting.destroy(ben.node, ben.person)
        assert ben.node.content(parcel).is_whole


async def test_a_member_who_names_a_file_of_the_group_elsewhere_takes_it_from_nobody(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, "ann", "ben", "mal", now_ms=clock) as (ann, ben, mal):
        space, data = await circle(ann, ben, mal), content(200_000)
        id = await files.send(ann.node, ann.person, space, stream(data), name="map.png")
        for one in (ben, mal):
            await trips(ann, one, until=lambda one=one: is_here(one, id))
        file = files.find(mal.node, mal.person, id).file
        for one in (ann, ben):
            for life_ms in (places.HOUR_MS, 0):
                again = await name_parcels(mal, one, *file.parcels, life_ms=life_ms, size=file.size_bytes, key=file.key)
            await one.settled()
            await files.let_go(one.node, one.person, again)
        clock.at_ms += places.HOUR_MS
        for one in (ann, ben):
            await forgetting.destroy(one.node, one.person)
            assert read(one, id) == data
            assert set(file.parcels) <= one.node.spared()


async def test_who_cannot_open_a_file_is_not_told_who_has_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "mal") as (ann, ben, mal):
        data = content(200_000)
        letter = await send(ann, ben, data)
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, letter))
        parts = files.find(ben.node, ben.person, letter).file.parcels
        asked = await name_parcels(mal, ben, *parts, size=len(data))
        await ben.settled()
        await ben.until(lambda: not file_view.awaited(ben.person))
        await ben.carry_to(mal)
        await mal.settled()
        assert [one.event for one in mal.person.custody([asked])[asked]] == ["kept", "copied"]


async def test_somebody_who_is_blocked_hides_no_news_of_a_group_by_any_number_of_texts(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "mal") as (ann, ben, mal):
        space = await circle(ann, ben, mal)
        heard = await groups.post(ann.node, ann.person, space, "What a noise!")
        await trips(ann, ben, until=lambda: texts(ben, space))
        await groups.mark_read(ben.node, ben.person, space)
        await ben.person.block(mal.person.identity)
        membership = ben.person.groups.membership(space)
        [device] = [one for one, who in membership.devices.items() if who == mal.person.identity]

        def said(number: int) -> Put:
            body, now = POST.encode(Post("noise")), ben.node.now_ms()
            one = Said(secret(number), POST.name, body, device, mal.person.identity, number, number, now, counts=True)
            row = group_view.text_row(one, space, ben.person.identity, now)
            assert row is not None
            return row

        await remember(ben.node, ben.person, [said(number) for number in range(group_view.UNREAD_MAX + 9)])
        await groups.post(ann.node, ann.person, space, "come home")
        await trips(ann, ben, until=lambda: groups.get(ben.person, space).unread)
        assert groups.get(ben.person, space).unread == 1
        assert SEARCH_MAX < group_view.UNREAD_MAX + 9
        assert [line.id for line in groups.search(ben.person, "noise")] == [heard]
        assert groups.find_shown(ben.person, space, secret(3)) is None
        with pytest.raises(NotFoundError, match="not in this group"):
            await groups.post(ben.node, ben.person, space, "what noise?", secret(3))


async def test_a_file_of_somebody_who_is_blocked_or_was_removed_is_not_shown_and_its_bytes_are_not_asked_for(
    tmp_path: Path,
) -> None:
    async with houses(tmp_path, "ann", "ben", "mal") as (ann, ben, mal):
        space = await circle(ann, ben, mal)
        await ben.person.block(mal.person.identity)
        await groups.remove(ann.node, ann.person, space, mal.person.identity)
        id = await files.send(mal.node, mal.person, space, stream(content(200_000)), name="nasty.jpg")
        parts = files.find(mal.node, mal.person, id).file.parcels
        said = mal.node.open_store.load([*parts, *(id for _, id in mal.node.open_store.arrived(space, 0))])
        for one in (ann, ben):
            await one.node.ingest(said)
            await one.settled()
            assert group_view.find(one.person, id) is not None
            assert files.listing(one.node, one.person) == []
            assert files.files_of(one.node, one.person, [id]) == {}
            with pytest.raises(NotFoundError, match="no such file"):
                files.find(one.node, one.person, id)
        letter = await send(ann, ben, content(100))
        await ann.carry_to(ben)
        await ben.until(lambda: is_here(ben, letter))
        assert not any(ben.person.names_parcel(part) for part in parts)


async def test_an_admin_who_was_removed_takes_away_no_text_of_others_by_a_number_of_before(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        await groups.add(ann.node, ann.person, space, ben.person.identity, groups.ADMIN)
        said = await groups.post(ann.node, ann.person, space, "stays")
        await trips(ann, ben, until=lambda: texts(ben, space) and groups.get(ben.person, space).leads)
        secrets = ben.person.groups._readings[space].secrets
        await groups.remove(ann.node, ann.person, space, ben.person.identity)
        inner = Inner(HIDE.name, ben.node.now_ms(), HIDE.encode(Hide(said)))
        forged = seal_entry(
            ben.person.signing_key,
            None,
            inner,
            space=space,
            secrets=secrets,
            clock=1,
            life_ms=DAY_MS,
            rand=os.urandom,
        )
        await ann.node.ingest([forged])
        await groups.catch_up(ann.node, ann.person)
        assert ann.person.query(f"SELECT id FROM {group_view.REMOVAL}") == [(forged.id,)]
        assert texts(ann, space) == ["stays"]


async def test_who_removes_a_post_removes_no_file_of_others_that_it_names(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "mal") as (ann, mal):
        space = (await service.create_channel(ann.node, ann.person, "News", [mal.person.identity])).space
        data = content(100_000)
        good = await put(ann, space, data)
        [bytes_of_it] = files.find(ann.node, ann.person, good).file.parcels
        payload = SHARED.encode(Shared("theirs.jpg", "", 100_000, bytes_of_it))
        false = entry(mal.person.signing_key, space, SHARED.name, payload, at_ms=ann.node.now_ms())
        certificate = DEVICE.encode(ChannelDevice(mal.person.certificate))
        shown = entry(mal.person.signing_key, space, DEVICE.name, certificate, at_ms=ann.node.now_ms(), life_days=60)
        await ann.node.ingest([shown, false])
        await ann.until(lambda: view.find_post(ann.node, false.id, ann.node.now_ms()))
        await service.retract(ann.node, ann.person, false.id)
        assert read(ann, good) == data


async def test_a_channel_begins_nowhere_but_in_its_own_beginning(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "mal") as (ann, ben, mal):
        space = await channel(mal, ben)
        body = SpaceBody(
            OPEN, "Ann's news", ann.person.certificate, "owner", (ann.person.identity, mal.person.identity), bytes(16)
        )
        false = entry(
            mal.person.signing_key, space, GENESIS.name, GENESIS.encode(body), at_ms=ben.node.now_ms(), life_days=1
        )
        await ben.node.ingest([false])
        await ben.settled()
        assert view.channel_head(ben.node, false.id) is None
        assert ben.node.open_store.get(false.id) is None
