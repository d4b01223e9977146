"""Bridges go from contact to contact by letters, along a tree of numbers, and come back the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.address import Target
from outlast.errors import NotFoundError, UsageError
from outlast.kernel import DAY_MS
from outlast.rooms.reach import agenda, service, view
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge, WebBridge
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.serving import Served
from tests.unit.rooms.carry.houses import House
from tests.unit.rooms.reach.towns import Clock, houses

SS = "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:8388#mine"


def web(host: str = "192.0.2.1") -> Served:
    """A bridge behind a website."""
    return Served("web", "0.0.0.0:443", Target(host, 443), "news.example")


async def carried(one: House, other: House) -> None:
    """What one had to say has come to the other."""
    await one.until(lambda: not nothing_due(one) and not on_the_way(one))
    await one.carry_to(other)


def on_the_way(house: House) -> list[bytes]:
    """Letters that are kept in the vault, and that the store, of which sticks are made, has not yet."""
    waiting = [id for (id,) in house.person.query("SELECT entry_id FROM outbox")]
    return [id for id in waiting if not house.node.query("SELECT 1 FROM entry WHERE id = ?", (id,))]


def nothing_due(house: House) -> list[agenda.Duty]:
    """What is still to be done there."""
    return agenda.due(service.situation(house.node, house.person))


def only(house: House) -> view.Held:
    """The one bridge that somebody has."""
    (held,) = service.bridges(house.person)
    return held


async def test_who_serves_a_bridge_gives_each_contact_a_secret_of_their_own(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob", "Cat") as (ann, bob, cat):
        await service.serve(ann.node, ann.person, web())
        for other in (bob, cat):
            await service.invite(ann.node, ann.person, other.person.identity)
            await ann.carry_to(other)
            await other.until(lambda other=other: service.bridges(other.person))
        links = [read_bridge(only(other).link) for other in (bob, cat)]
        assert [link.at for link in links] == [Target("192.0.2.1", 443)] * 2
        assert all(isinstance(link, WebBridge) and link.node == ann.node.transport_id for link in links)
        secrets = {link.secret for link in links if isinstance(link, WebBridge)}
        assert secrets == {one.secret for one in service.invited(ann.person)}
        assert len(secrets) == 2
        assert only(bob).peer == ann.person.identity
        assert not any(one.member.ended for one in service.invited(ann.person))


async def test_inviting_somebody_again_sends_the_same_bridge_again(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        await service.serve(ann.node, ann.person, web())
        for _ in range(2):
            await service.invite(ann.node, ann.person, bob.person.identity)
            await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        assert len(service.invited(ann.person)) == 1
        assert only(bob).may_invite


async def test_a_bridge_is_handed_on_with_a_number_of_the_operators_who_does_not_learn_to_whom(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob", "Cat", apart={"AnnCat"}) as (ann, bob, cat):
        await service.serve(ann.node, ann.person, web())
        await service.invite(ann.node, ann.person, bob.person.identity)
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        await service.invite(bob.node, bob.person, cat.person.identity)
        assert [one.whom for one in service.asked(bob.person)] == [cat.person.identity]
        await bob.carry_to(ann)
        await ann.until(lambda: len(service.invited(ann.person)) == 2)
        await carried(ann, bob)
        await bob.until(lambda: view.passed(bob.person))
        await carried(bob, cat)
        await cat.until(lambda: service.bridges(cat.person))
        of_bob, of_cat = sorted(service.invited(ann.person), key=lambda one: one.member.parent or b"")
        assert of_cat.member.parent == of_bob.member.number
        assert of_cat.peer == bob.person.identity
        assert only(cat).number == of_cat.member.number
        assert not only(cat).may_invite
        with pytest.raises(UsageError, match="no bridge here that can be handed on"):
            await service.invite(cat.node, cat.person, bob.person.identity)


async def test_after_a_block_survivors_get_another_bridge_along_the_way_that_the_first_one_came(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "Ann", "Bob", "Cat", "Dan", apart={"AnnCat"}) as (ann, bob, cat, dan):
        await service.serve(ann.node, ann.person, web("192.0.2.1"))
        for other in (bob, dan):
            await service.invite(ann.node, ann.person, other.person.identity)
            await ann.carry_to(other)
            await other.until(lambda other=other: service.bridges(other.person))
        await service.invite(bob.node, bob.person, cat.person.identity)
        await bob.carry_to(ann)
        await ann.until(lambda: len(service.invited(ann.person)) == 3)
        # Enough others on it that nobody stands alone under suspicion.
        for number in range(6):
            one = service.invited(ann.person)[0]
            member = one.member._replace(number=bytes([number]) * 16, parent=None, bucket=50 + number // 3)
            await service.remember(ann.node, ann.person, [view.invited_row(one._replace(member=member))])
        await carried(ann, bob)
        await bob.until(lambda: view.passed(bob.person))
        await carried(bob, cat)
        await cat.until(lambda: service.bridges(cat.person))
        await service.serve(ann.node, ann.person, web("198.51.100.1"))
        # Cat's bridge fails for hours while another works; what she says of it goes by Bob to Ann, and Dan says so too.
        for other in (cat, dan):
            failing = only(other)
            row = view.bridge_row(agenda.noted(failing, "syn-drop", clock.ms, others_work=True))
            await service.remember(other.node, other.person, [row])
        clock.ms += agenda.FAILING_MS
        for other in (cat, dan, bob, ann):
            other.node.touch()
        await cat.until(lambda: only(cat).told)
        await cat.carry_to(bob)
        await bob.until(lambda: any(one.failed for one in view.passed(bob.person)))
        await carried(bob, ann)
        await dan.until(lambda: only(dan).told)
        await dan.carry_to(ann)
        await ann.until(lambda: next(iter(view.served(ann.person)))[2] is not None)
        await carried(ann, bob)
        await ann.carry_to(dan)
        await dan.until(lambda: "198.51.100.1" in str(read_bridge(only(dan).link)))
        await bob.until(lambda: "198.51.100.1" in str(read_bridge(only(bob).link)))
        await bob.until(lambda: any(not one.failed and not one.due for one in view.passed(bob.person)))
        await carried(bob, cat)
        await cat.until(lambda: "198.51.100.1" in str(read_bridge(only(cat).link)))
        assert only(cat).failing_ms is None


async def test_what_is_revoked_is_forgotten_by_all_who_came_in_through_it(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob", "Cat", apart={"AnnCat"}) as (ann, bob, cat):
        await service.serve(ann.node, ann.person, web())
        await service.invite(ann.node, ann.person, bob.person.identity)
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        await service.invite(bob.node, bob.person, cat.person.identity)
        await bob.carry_to(ann)
        await ann.until(lambda: len(service.invited(ann.person)) == 2)
        await carried(ann, bob)
        await bob.until(lambda: view.passed(bob.person))
        await carried(bob, cat)
        await cat.until(lambda: service.bridges(cat.person))
        assert await service.revoke(ann.node, ann.person, bob.person.identity) == 2
        assert service.invited(ann.person) == []
        await ann.carry_to(bob)
        await bob.until(lambda: not service.bridges(bob.person) and not view.passed(bob.person))
        await carried(bob, cat)
        await cat.until(lambda: not service.bridges(cat.person))
        with pytest.raises(NotFoundError, match="no bridge from you"):
            await service.revoke(ann.node, ann.person, bob.person.identity)


async def test_a_bridge_that_one_added_is_handed_on_as_it_is(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        [held], _ = await service.add_bridges(ann.node, ann.person, SS)
        await service.invite(ann.node, ann.person, bob.person.identity)
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        assert only(bob).link == held.link
        assert isinstance(read_bridge(only(bob).link), ShadowsocksBridge)
        [proxy], _ = await service.add_bridges(ann.node, ann.person, "socks5://192.0.2.9:1080")
        with pytest.raises(UsageError, match="own network see where one goes"):
            await service.invite(ann.node, ann.person, bob.person.identity, proxy.id)


async def test_who_asks_for_a_bridge_gets_one_when_the_other_says_so(tmp_path: Path) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        await service.serve(ann.node, ann.person, web())
        await service.ask(bob.node, bob.person, ann.person.identity)
        await bob.carry_to(ann)
        await ann.until(lambda: service.wants(ann.person))
        (want,) = service.wants(ann.person)
        assert want.peer == bob.person.identity
        await service.answer(ann.node, ann.person, want.request)
        assert service.wants(ann.person) == []
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        assert service.asked(bob.person) == []


async def test_a_member_gets_the_bridge_anew_before_its_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "Ann", "Bob") as (ann, bob):
        await service.serve(ann.node, ann.person, web())
        await service.invite(ann.node, ann.person, bob.person.identity)
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        before = only(bob)
        clock.ms += (view.LIFE_DAYS - agenda.RENEW_DAYS + 1) * DAY_MS
        ann.node.touch()
        await carried(ann, bob)
        await bob.until(lambda: only(bob).until_day > before.until_day)
        assert only(bob).link == before.link


async def test_with_one_bridge_alone_the_person_says_whether_it_is_blocked_and_members_stay_let_in(
    tmp_path: Path,
) -> None:
    async with houses(tmp_path, Clock(), "Ann", "Bob") as (ann, bob):
        node, person = ann.node, ann.person
        one = await service.serve(node, person, web())
        await service.invite(node, person, bob.person.identity)
        [invited] = service.invited(person)
        await service.remember(node, person, [view.invited_row(invited._replace(failed="syn-drop"))])
        assert not [duty for duty in nothing_due(ann) if isinstance(duty, agenda.Block)]
        await service.lose(node, person, one.id)
        [invited] = service.invited(person)
        assert invited.member.bridge == ""
        assert service._is_let_in(invited, one.id)


async def test_a_bridge_that_was_handed_on_is_forgotten_with_its_day(tmp_path: Path) -> None:
    clock = Clock()
    async with houses(tmp_path, clock, "Ann", "Bob") as (ann, bob):
        await service.serve(ann.node, ann.person, web())
        await service.invite(ann.node, ann.person, bob.person.identity)
        await ann.carry_to(bob)
        await bob.until(lambda: service.bridges(bob.person))
        await service.add_bridges(bob.node, bob.person, SS)
        clock.ms += (view.LIFE_DAYS + 1) * DAY_MS
        bob.node.touch()
        await bob.until(lambda: len(service.bridges(bob.person)) == 1)
        assert only(bob).peer is None
