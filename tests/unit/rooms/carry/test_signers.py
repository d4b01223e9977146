"""Channels with several signers: each writes and removes, by devices that certify themselves; nobody else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.carry import files, service, view
from tests.unit.kernel.people import secret
from tests.unit.rooms.carry.houses import houses
from tests.unit.rooms.carry.test_files import stream


async def test_each_signer_writes_and_the_reader_sees_by_whom(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "eve") as (ann, ben, eve):
        news = await service.create_channel(ann.node, ann.person, "Street", [ben.person.identity])
        assert news.signers == (ben.person.identity,)
        first = await service.post(ann.node, ann.person, news.space, "by Ann")
        for one in (ben, eve):
            await service.follow(one.node, one.person, news.link)
            await ann.carry_to(one, space=news.space)
        assert service.channels(ben.node, ben.person)[0].may_post
        assert not service.channels(eve.node, eve.person)[0].may_post

        second = await service.post(ben.node, ben.person, news.space, "by Ben", first)
        await ben.carry_to(eve, space=news.space)
        posts = service.read_channel(eve.node, eve.person, news.space)
        assert [(one.text, one.author) for one in posts] == [
            ("by Ann", ann.person.identity),
            ("by Ben", ben.person.identity),
        ]
        with pytest.raises(UsageError, match="whom they named"):
            await service.post(eve.node, eve.person, news.space, "by Eve")
        with pytest.raises(UsageError, match="whom they named"):
            await service.retract(eve.node, eve.person, first)

        await service.retract(ben.node, ben.person, first)
        await ben.carry_to(ann, space=news.space)
        await service.retract(ann.node, ann.person, second)
        await ann.carry_to(eve, space=news.space)
        assert service.read_channel(ann.node, ann.person, news.space) == []
        await ben.carry_to(eve, space=news.space)
        assert service.read_channel(eve.node, eve.person, news.space) == []
        assert view.due_to_drop(eve.node, eve.node.now_ms() + view.HIDDEN_KEPT_MS + 60_000)


async def test_who_writes_after_what_they_have_read_is_read_after_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "eve") as (ann, ben, eve):
        news = await service.create_channel(ann.node, ann.person, "Street", [ben.person.identity])
        for number in range(5):
            await service.post(ann.node, ann.person, news.space, f"by Ann, {number}")
        for one in (ben, eve):
            await service.follow(one.node, one.person, news.link)
            await ann.carry_to(one, space=news.space)
        await service.post(ben.node, ben.person, news.space, "by Ben")
        await files.send(ben.node, ben.person, news.space, stream(b"a map"), name="map.txt")
        await ben.carry_to(ann, space=news.space)
        await service.post(ann.node, ann.person, news.space, "by Ann again")
        await ann.carry_to(eve, space=news.space)
        posts = service.read_channel(eve.node, eve.person, news.space)
        assert [one.text for one in posts[5:]] == ["by Ben", "map.txt", "by Ann again"]


async def test_what_a_signers_ended_device_says_later_does_not_count(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        news = await service.create_channel(ann.node, ann.person, "Street", [ben.person.identity])
        await service.follow(ben.node, ben.person, news.link)
        await ann.carry_to(ben, space=news.space)
        await service.post(ben.node, ben.person, news.space, "before")
        await ben.person.renew()
        await service.post(ben.node, ben.person, news.space, "by the new device")
        await ben.carry_to(ann, space=news.space)
        posts = service.read_channel(ann.node, ann.person, news.space)
        assert [(one.text, one.author) for one in posts] == [
            ("before", ben.person.identity),
            ("by the new device", ben.person.identity),
        ]
        assert len({one.device for one in posts}) == 2


async def test_only_contacts_who_are_not_blocked_and_not_too_many_can_sign(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        with pytest.raises(NotFoundError):
            await service.create_channel(ann.node, ann.person, "Street", [secret("nobody")])
        await ann.person.block(ben.person.identity)
        with pytest.raises(UsageError, match="blocked"):
            await service.create_channel(ann.node, ann.person, "Street", [ben.person.identity])
        assert service.channels(ann.node, ann.person) == []
