"""Groups as people use them, on whole nodes: who reads what, who is told of it, and what is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from outlast.kernel import Person
from outlast.rooms.carry import group_view, groups
from tests.unit.rooms.carry.houses import House, houses


def texts(house: House, space: bytes) -> list[str]:
    """What the person reads in a group, oldest first."""
    return [line.text for line in groups.read(house.person, space) if line.event == group_view.TEXT]


def events(house: House, space: bytes) -> list[tuple[str, bytes | None]]:
    """What the person is told of members."""
    return [(line.event, line.author) for line in groups.read(house.person, space) if line.event != group_view.TEXT]


async def trips(*all: House, until: Callable[[], object]) -> None:
    """Sticks go between everybody and everybody, until something holds."""
    for _ in range(8):
        if until():
            return
        for one in all:
            for other in all:
                if one is not other:
                    await one.carry_to(other)
        for one in all:
            await one.settled()
    assert until()


async def circle(founder: House, *others: House, name: str = "Reading circle") -> bytes:
    """A group that all of these have joined."""
    space = (await groups.create(founder.node, founder.person, name, [one.person.identity for one in others])).space
    await trips(founder, *others, until=lambda: all(groups.invitations(one.person) for one in others))
    for one in others:
        await groups.join(one.node, one.person, space)
    await trips(
        founder,
        *others,
        until=lambda: all(len(joined(one.person, space)) == 1 + len(others) for one in (founder, *others)),
    )
    return space


def joined(person: Person, space: bytes) -> list[bytes]:
    """Who has shown a device."""
    return [one.identity for one in groups.members(person, space) if one.has_joined]


async def test_a_group_is_founded_joined_and_read_by_everybody_in_it(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        founded = await groups.create(
            ann.node, ann.person, " Reading  circle ", [ben.person.identity, cleo.person.identity]
        )
        assert (founded.name, founded.role, founded.members, founded.leads) == ("Reading circle", "owner", 3, True)
        assert [one.has_joined for one in groups.members(ann.person, founded.space)] == [True, False, False]
        space = founded.space
        await trips(ann, ben, cleo, until=lambda: groups.invitations(ben.person) and groups.invitations(cleo.person))
        [asked] = groups.invitations(ben.person)
        assert (asked.space, asked.name, asked.sender) == (space, "Reading circle", "ann")
        await groups.join(ben.node, ben.person, space)
        await groups.join(cleo.node, cleo.person, space)
        assert groups.invitations(ben.person) == []

        first = await groups.post(ann.node, ann.person, space, "Who brings tea?")
        await trips(ann, ben, cleo, until=lambda: texts(ben, space) and texts(cleo, space))
        await groups.post(ben.node, ben.person, space, "I do", first)
        await trips(ann, ben, cleo, until=lambda: len(texts(cleo, space)) == 2)
        for house in (ann, ben, cleo):
            assert texts(house, space) == ["Who brings tea?", "I do"]
        answer = groups.read(cleo.person, space)[-1]
        scene = groups.scene(cleo.person, space)
        assert (scene.author(answer), answer.reply_to) == (ben.person.identity, first)
        assert scene.name(ben.person.identity) == "ben"
