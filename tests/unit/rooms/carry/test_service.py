"""What people do with carry, on whole nodes: letters and posts arrive, and nothing is done that may not be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Home, Node, space_text
from outlast.kernel.entry import DAY_MS
from outlast.rooms.carry import ROOM, service, view
from outlast.rooms.carry.entries import POST, Post
from tests.crash.disk import Disk, Write
from tests.unit.kernel.people import secret
from tests.unit.rooms.carry.houses import House, houses


async def test_a_letter_goes_there_and_its_receipts_come_back(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        question = await service.send(ann.node, ann.person, ben.person.identity, "Are you safe?")
        assert [one.event for one in ann.person.custody([question])[question]] == ["kept"]

        await ann.carry_to(ben)
        assert [one.event for one in ann.person.custody([question])[question]] == ["kept", "copied"]
        await ben.until(lambda: service.inbox(ben.person))
        [came] = service.inbox(ben.person)
        assert (came.text, came.peer, came.unread) == ("Are you safe?", ann.person.identity, True)
        assert came.letter == question
        assert [one.unread for one in service.conversations(ben.person)] == [1]

        await service.send(ben.node, ben.person, ann.person.identity, "Yes", question)
        assert await service.mark_read(ben.node, ben.person, [question]) == 1
        assert await service.mark_read(ben.node, ben.person, [question]) == 0
        await ben.carry_to(ann)
        await ann.until(lambda: "read" in [one.event for one in ann.person.custody([question])[question]])
        events = [one.event for one in ann.person.custody([question])[question]]
        assert set(events) == {"kept", "copied", "received", "read"}
        [answer] = service.inbox(ann.person)
        assert (answer.text, answer.reply_to) == ("Yes", question)
        assert [one.text for one in service.conversation(ann.person, ben.person.identity)] == ["Are you safe?", "Yes"]
        assert [one.text for one in service.sent(ann.person)] == ["Are you safe?"]
        assert [one.text for one in service.search(ann.person, "SAFE you")] == ["Are you safe?"]


async def test_letters_are_there_after_the_node_starts_anew(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        letter = await service.send(ann.node, ann.person, ben.person.identity, "kept")
    async with houses(tmp_path, "ann") as (ann,):
        assert [one.letter for one in service.sent(ann.person)] == [letter]


async def test_what_cannot_be_sent_is_refused_in_one_line_and_not_kept(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        node, person, to = ann.node, ann.person, ben.person.identity
        with pytest.raises(UsageError, match="empty"):
            await service.send(node, person, to, " \n")
        with pytest.raises(UsageError, match="at most"):
            await service.send(node, person, to, "x" * 16_000)
        with pytest.raises(NotFoundError, match="no such contact"):
            await service.send(node, person, secret("nobody"), "hello")
        with pytest.raises(NotFoundError, match="not in this conversation"):
            await service.send(node, person, to, "hello", reply_to=bytes(16))
        await person.block(to)
        with pytest.raises(UsageError, match="blocked"):
            await service.send(node, person, to, "hello")
        assert service.sent(person) == []
        with pytest.raises(UsageError, match="look for"):
            service.search(person, "  ")


async def test_a_letter_can_be_taken_back_only_before_it_leaves(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        regretted = await service.send(ann.node, ann.person, ben.person.identity, "regretted")
        await service.take_back(ann.node, ann.person, regretted)
        assert service.sent(ann.person) == []
        left = await service.send(ann.node, ann.person, ben.person.identity, "left")
        await ann.carry_to(ben)
        with pytest.raises(UsageError, match="may have left"):
            await service.take_back(ann.node, ann.person, left)
        with pytest.raises(NotFoundError):
            await service.take_back(ann.node, ann.person, regretted)
        await ben.until(lambda: service.inbox(ben.person))
        assert [one.text for one in service.inbox(ben.person)] == ["left"]
        assert [one.text for one in service.sent(ann.person)] == ["left"]


async def test_a_channel_is_followed_by_link_and_read_after_a_trip(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, " Street   news ")
        assert (news.name, news.owner, news.may_post) == ("Street news", ann.person.identity, True)
        first = await service.post(ann.node, ann.person, news.space, "Water at 10")
        await service.post(ann.node, ann.person, news.space, "Water at 11", first)

        followed = await service.follow(ben.node, ben.person, news.link)
        assert (followed.name, followed.owner, followed.may_post) == ("Street news", None, False)
        await ann.carry_to(ben, space=news.space)
        [channel] = service.channels(ben.node, ben.person)
        assert (channel.owner, channel.unread, channel.may_post) == (ann.person.identity, 2, False)
        posts = service.read_channel(ben.node, ben.person, news.space)
        assert [(one.text, one.author, one.reply_to) for one in posts] == [
            ("Water at 10", ann.person.identity, None),
            ("Water at 11", ann.person.identity, first),
        ]
        await service.mark_channel_read(ben.node, ben.person, news.space, posts[-1].n)
        assert service.channels(ben.node, ben.person)[0].unread == 0
        for text in (news.id, news.id[:6], "STREET NEWS", news.link):
            assert service.find_channel(ben.node, ben.person, text).space == news.space
        with pytest.raises(UsageError, match="only this channel's owner"):
            await service.post(ben.node, ben.person, news.space, "false")
        with pytest.raises(UsageError, match="only this channel's owner"):
            await service.retract(ben.node, ben.person, first)

        await service.unfollow(ben.node, ben.person, news.space)
        assert service.channels(ben.node, ben.person) == []
        assert ben.node.query("SELECT count(*) FROM view_carry_post") == [(0,)]
        with pytest.raises(NotFoundError):
            await service.unfollow(ben.node, ben.person, news.space)


async def test_a_removed_post_disappears_wherever_the_removal_arrives(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "News")
        wrong = await service.post(ann.node, ann.person, news.space, "wrong")
        await service.follow(ben.node, ben.person, news.id)
        await ann.carry_to(ben, space=news.space)
        assert len(service.read_channel(ben.node, ben.person, news.space)) == 1
        await service.retract(ann.node, ann.person, wrong)
        with pytest.raises(NotFoundError):
            await service.retract(ann.node, ann.person, wrong)
        await ann.carry_to(ben, space=news.space)
        assert service.read_channel(ben.node, ben.person, news.space) == []


async def test_nothing_is_said_in_a_channel_that_is_not_there(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        with pytest.raises(UsageError, match="is no ID"):
            await service.follow(ann.node, ann.person, "nonsense")
        with pytest.raises(NotFoundError, match="follow it"):
            await service.post(ann.node, ann.person, secret("nowhere"), "hello")
        with pytest.raises(NotFoundError, match="follow it"):
            service.read_channel(ann.node, ann.person, secret("nowhere"))
        channel = await service.follow(ann.node, ann.person, space_text(secret("not here yet")))
        with pytest.raises(UsageError, match="not arrived yet"):
            await service.post(ann.node, ann.person, channel.space, "hello")


async def test_two_channels_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        one = await service.create_channel(ann.node, ann.person, "News")
        await service.create_channel(ann.node, ann.person, "News")
        with pytest.raises(UsageError, match="2 channels"):
            service.find_channel(ann.node, ann.person, "news")
        assert service.find_channel(ann.node, ann.person, one.id).space == one.space


async def test_a_restored_owner_speaks_in_the_old_channel_from_the_new_device(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "News")
        await service.post(ann.node, ann.person, news.space, "before")
        await service.follow(ben.node, ben.person, news.link)
        await ann.carry_to(ben, space=news.space)

        home = Home(tmp_path / "ann again")
        entropy = ann.person.entropy
        await Node.create(home, "ann", passphrase=None, entropy=entropy, rooms=[ROOM])
        async with await Node.open(home, rooms=[ROOM]) as node:
            again = House(node, next(iter(node.people.values())))
            assert again.person.device != ann.person.device
            await service.follow(again.node, again.person, news.link)
            await again.person.add_contact(await ben.person.link())
            await ben.carry_to(again, space=news.space)
            await service.post(again.node, again.person, news.space, "after")
            await service.post(again.node, again.person, news.space, "once more")
            assert again.node.query("SELECT count(*) FROM view_carry_device") == [(2,)]
            await again.carry_to(ben, space=news.space)
        posts = service.read_channel(ben.node, ben.person, news.space)
        assert [one.text for one in posts] == ["before", "after", "once more"]
        assert {one.author for one in posts} == {ann.person.identity}


async def test_an_owner_whose_device_began_anew_goes_on_in_the_channel(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "News")
        await service.post(ann.node, ann.person, news.space, "before")
        await ann.person.renew()
        await service.post(ann.node, ann.person, news.space, "after")
        await service.follow(ben.node, ben.person, news.link)
        await ann.carry_to(ben, space=news.space)
        posts = service.read_channel(ben.node, ben.person, news.space)
        assert [one.text for one in posts] == ["before", "after"]
        assert {one.author for one in posts} == {ann.person.identity}


async def test_a_letter_of_an_ended_device_is_shown_with_doubt(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        await service.send(ann.node, ann.person, ben.person.identity, "from the first")
        await ann.carry_to(ben)
        await ben.until(lambda: len(service.inbox(ben.person)) == 1)
        (first,) = service.inbox(ben.person)
        assert service.doubts(ben.person, first) == ""
        await ann.person.renew()
        await ann.carry_to(ben)
        later = replace(first, received_ms=ben.node.now_ms() + 60_000)
        await ben.until(lambda: service.doubts(ben.person, later) == "revoked")
        assert service.doubts(ben.person, first) == "", "what had come before is as it was"


async def test_channels_in_the_vault_are_held_again_by_a_store_that_lost_them(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        news = await service.create_channel(ann.node, ann.person, "News")
        await service.mark_channel_read(ann.node, ann.person, news.space, 1000)
        await ann.node.unfollow(news.space)
    async with houses(tmp_path, "ann") as (ann,):
        await ann.until(lambda: news.space in ann.node.spaces() and view.follows(ann.person)[0].read_n == 0)


async def test_a_post_removed_three_days_ago_is_dropped_from_the_disk(tmp_path: Path) -> None:
    home = Home(tmp_path / "ann")
    await Node.create(home, "ann", passphrase=None, rooms=[ROOM])
    async with await Node.open(home, rooms=[ROOM]) as node:
        person = next(iter(node.people.values()))
        news = await service.create_channel(node, person, "News")
        wrong = await service.post(node, person, news.space, "wrong")
        await service.retract(node, person, wrong)
        later_ms = node.now_ms() + 4 * DAY_MS
    async with await Node.open(home, rooms=[ROOM], system_ms=lambda: later_ms) as node:
        ann = House(node, next(iter(node.people.values())))
        await ann.until(lambda: node.query("SELECT count(*) FROM view_carry_post") == [(0,)])
        entry = node.open_store.get(wrong)
        assert entry is not None
        assert entry.payload is None


async def test_a_stranger_with_the_space_id_cannot_make_the_owner_say_anything(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "News")
        await service.follow(ben.node, ben.person, news.link)
        await ann.carry_to(ben, space=news.space)
        await ben.node.append(ben.person, news.space, POST.name, Post("false"), life_ms=DAY_MS)
        await ben.carry_to(ann, space=news.space)
        assert service.read_channel(ann.node, ann.person, news.space) == []
        assert service.read_channel(ben.node, ben.person, news.space) == []


async def test_letters_are_indexed_when_it_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "QUIET_S", 0.01)
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        for number in range(3):
            await service.send(ann.node, ann.person, ben.person.identity, f"number {number}")
        async with asyncio.timeout(30):
            while ann.person.query("SELECT count(*) FROM local_carry_search_docsize") != [(3,)]:
                await ann.node.write(lambda: None)
        assert len(service.search(ann.person, "number")) == 3


async def test_a_disk_that_is_full_when_the_node_opens_ends_nothing(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        news = await service.create_channel(ann.node, ann.person, "news")
        store = ann.node.open_store
        await ann.node.write(lambda: store.remove_space(news.space))
    refused, loop = asyncio.Event(), asyncio.get_running_loop()

    def refuse(_: Write) -> bool:
        loop.call_soon_threadsafe(refused.set)
        return True

    with Disk() as disk:
        async with houses(tmp_path, "ann") as (ann,):
            disk.on_write = refuse
            await refused.wait()
            await ann.node.write(lambda: None)
            disk.make_room()
            ann.node.touch()
            await ann.until(lambda: news.space in ann.node.spaces())
            assert not ann.node.failed.done()
