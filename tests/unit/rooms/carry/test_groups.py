"""Groups as people use them, on whole nodes: who reads what, who is told of it, and what is forgotten."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from outlast.edges.sneakernet import waiting_to_leave
from outlast.errors import NotFoundError, UsageError
from outlast.kernel import DAY_MS, Home, Node, Person, id_text, open_backup, space_text
from outlast.kernel.epoch import Inner, seal_entry
from outlast.kernel.groups import Said
from outlast.kernel.vault import Vault
from outlast.rooms.carry import ROOM, group_view, groups
from outlast.rooms.carry.entries import HIDE, POST, Hide, Post
from tests.unit.kernel.entries import KEY
from tests.unit.kernel.people import NOW_MS, secret
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


async def test_what_is_new_is_counted_until_it_is_read_and_own_words_are_not_new(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        for text in ("one", "two", "three"):
            await groups.post(ann.node, ann.person, space, text)
        await groups.post(ben.node, ben.person, space, "mine")
        await trips(ann, ben, until=lambda: len(texts(ben, space)) == 4)
        assert (groups.get(ben.person, space).unread, groups.get(ann.person, space).unread) == (3, 1)
        [second] = [line for line in groups.read(ben.person, space) if line.text == "two"]
        assert await groups.mark_read(ben.node, ben.person, space, second.n) == 2
        assert groups.get(ben.person, space).unread == 1
        assert await groups.mark_read(ben.node, ben.person, space) == 1
        assert await groups.mark_read(ben.node, ben.person, space) == 0


async def test_who_wrote_is_told_how_many_have_it_and_nobody_what_was_read(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        said = await groups.post(ann.node, ann.person, space, "Who has it?")

        def received() -> tuple[int, int]:
            line = group_view.find(ann.person, said)
            assert line is not None
            return groups.scene(ann.person, space).received(line)

        assert received() == (0, 2)
        await ann.carry_to(ben)
        await ben.until(lambda: texts(ben, space))
        await ben.settled()
        await ben.carry_to(ann)
        await ann.until(lambda: received() == (1, 2))
        written = len(ben.person.query("SELECT DISTINCT letter FROM sent"))
        await groups.mark_read(ben.node, ben.person, space)
        await ben.settled()
        assert len(ben.person.query("SELECT DISTINCT letter FROM sent")) == written
        await trips(ann, ben, cleo, until=lambda: received() == (2, 2))


async def test_what_is_said_in_a_group_waits_to_be_carried_and_what_is_answered_by_itself_does_not(
    tmp_path: Path,
) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        assert waiting_to_leave(ann.person) == 0
        await groups.create(ann.node, ann.person, "Reading circle", [ben.person.identity])
        assert waiting_to_leave(ann.person) == 1, "an invitation is nowhere but here"
        space = await circle(ann, ben, cleo)
        assert [waiting_to_leave(one.person) for one in (ann, ben, cleo)] == [0, 0, 0]
        await groups.post(ann.node, ann.person, space, "Who has it?")
        assert waiting_to_leave(ann.person) == 1
        await ann.carry_to(ben)
        await ben.until(lambda: texts(ben, space))
        await ben.settled()
        assert waiting_to_leave(ann.person) == 0
        assert waiting_to_leave(ben.person) == 0, "who said nothing has nothing to carry out"


async def test_only_its_writer_and_who_leads_take_a_text_away_and_it_is_gone_from_every_vault(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        own = await groups.post(ben.node, ben.person, space, "a slip")
        bad = await groups.post(ben.node, ben.person, space, "a rumour")
        await trips(ann, ben, cleo, until=lambda: len(texts(cleo, space)) == 2 == len(texts(ann, space)))
        with pytest.raises(UsageError, match="who leads"):
            await groups.hide(cleo.node, cleo.person, bad)
        await groups.hide(ben.node, ben.person, own)
        await groups.hide(ann.node, ann.person, bad)
        with pytest.raises(NotFoundError):
            await groups.hide(ann.node, ann.person, bad)
        await trips(ann, ben, cleo, until=lambda: not any(texts(one, space) for one in (ann, ben, cleo)))
        for one in (ann, ben, cleo):
            kept = one.person.query(f"SELECT text FROM {group_view.SAID} WHERE id IN (?, ?)", (own, bad))
            assert kept == [("",), ("",)]
            assert groups.search(one.person, "rumour") == []


async def test_a_removal_by_somebody_without_that_right_takes_nothing_away(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        said = await groups.post(ann.node, ann.person, space, "stays")
        await trips(ann, ben, cleo, until=lambda: texts(ben, space) and texts(cleo, space))
        await cleo.node.append(cleo.person, space, HIDE.name, Hide(said), life_ms=DAY_MS)
        await groups.post(cleo.node, cleo.person, space, "after it")
        await trips(ann, ben, cleo, until=lambda: len(texts(ann, space)) == 2 == len(texts(ben, space)))
        for one in (ann, ben, cleo):
            assert texts(one, space) == ["stays", "after it"]


async def test_a_removal_that_comes_before_the_text_takes_it_away_too(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        said = await groups.post(ann.node, ann.person, space, "too late")
        await groups.hide(ann.node, ann.person, said)
        entries = ann.node.open_store.load([id for _, id in ann.node.open_store.arrived(space, 0)])
        for entry in reversed(entries):
            await ben.node.ingest([entry])
            await ben.settled()
            await groups.catch_up(ben.node, ben.person)
        assert texts(ben, space) == []
        assert group_view.find(ben.person, said) is not None


async def test_members_are_told_who_joined_who_leads_and_who_is_gone(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        told = events(ben, space)
        assert ("joined", cleo.person.identity) in told
        await groups.add(ann.node, ann.person, space, ben.person.identity, groups.ADMIN)
        await trips(ann, ben, cleo, until=lambda: events(ben, space)[-1] == ("leads", ben.person.identity))
        assert groups.get(ben.person, space).leads
        await groups.demote(ann.node, ann.person, space, ben.person.identity)
        await trips(ann, ben, cleo, until=lambda: groups.get(ben.person, space).role == "member")
        await groups.leave(cleo.node, cleo.person, space)
        await trips(ann, ben, cleo, until=lambda: events(ben, space)[-1] == ("left", cleo.person.identity))
        assert groups.groups(cleo.person) == []
        for table in (group_view.SAID, group_view.MEMBER):
            assert cleo.person.query(f"SELECT * FROM {table}") == []
        with pytest.raises(NotFoundError):
            groups.read(cleo.person, space)


async def test_who_was_removed_is_told_reads_on_and_says_nothing_more(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        await groups.post(ann.node, ann.person, space, "before")
        await trips(ann, ben, until=lambda: texts(ben, space))
        await groups.remove(ann.node, ann.person, space, ben.person.identity)
        await groups.post(ann.node, ann.person, space, "after")
        await trips(ann, ben, until=lambda: groups.get(ben.person, space).role == "")
        assert texts(ben, space) == ["before"]
        with pytest.raises(UsageError, match="no member"):
            await groups.post(ben.node, ben.person, space, "let me in")
        await groups.add(ann.node, ann.person, space, ben.person.identity)
        await trips(ann, ben, until=lambda: groups.get(ben.person, space).role == "member")
        await trips(ann, ben, until=lambda: "after" in texts(ben, space))


async def test_groups_are_there_after_the_node_starts_anew_and_after_a_restore(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        await groups.post(ann.node, ann.person, space, "kept by both")
        await trips(ann, ben, until=lambda: texts(ben, space))
        await groups.rename(ben.node, ben.person, space, "Evenings")
        saved = await ben.person.backup("backup words")
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        assert texts(ben, space) == ["kept by both"]
        assert (
            groups.find(ben.person, "EVENINGS").space == groups.find(ben.person, space_text(space)[:6]).space == space
        )
    await Node.create(
        Home(tmp_path / "again"), "ben", passphrase=None, backup=open_backup(saved, "backup words"), rooms=[ROOM]
    )
    async with await Node.open(Home(tmp_path / "again"), rooms=[ROOM]) as node:
        again = House(node, next(iter(node.people.values())))
        assert texts(again, space) == ["kept by both"]
        assert [line.text for line in groups.search(again.person, "BOTH kept")] == ["kept by both"]


async def test_somebody_who_is_blocked_is_not_read_in_groups_either(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        await groups.post(cleo.node, cleo.person, space, "noise")
        await trips(ann, ben, cleo, until=lambda: texts(ben, space))
        await ben.person.block(cleo.person.identity)
        assert (texts(ben, space), groups.get(ben.person, space).unread) == ([], 0)
        assert groups.search(ben.person, "noise") == []
        with pytest.raises(UsageError, match="unblock"):
            await groups.create(ben.node, ben.person, "Another", [cleo.person.identity])


async def test_unknown_members_go_by_the_names_they_gave_themselves(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben), houses(tmp_path / "far", "cleo") as (cleo,):
        await ben.person.add_contact(await cleo.person.link())
        await cleo.person.add_contact(await ben.person.link())
        space = await circle(ann, ben)
        await groups.add(ann.node, ann.person, space, ben.person.identity, groups.ADMIN)
        await trips(ann, ben, until=lambda: groups.get(ben.person, space).leads)
        await groups.add(ben.node, ben.person, space, cleo.person.identity)
        await trips(ben, cleo, until=lambda: groups.invitations(cleo.person))
        await groups.join(cleo.node, cleo.person, space)
        await trips(ben, cleo, until=lambda: len(joined(ben.person, space)) == 3)
        await trips(ann, ben, until=lambda: len(groups.members(ann.person, space)) == 3)
        [unknown] = [one for one in groups.members(ann.person, space) if one.contact is None and one.name != "ann"]
        assert unknown.identity == cleo.person.identity
        assert unknown.name in ("cleo", id_text(cleo.person.identity)[:8])
        assert groups.find_member(ann.person, space, unknown.id).identity == cleo.person.identity
        assert groups.scene(cleo.person, space).name(ann.person.identity) == "ann"
        await cleo.person.rename(ben.person.identity, "ANN")
        named = groups.scene(cleo.person, space).name(ann.person.identity)
        assert named == f"ann ({id_text(ann.person.identity)[:8]})", "nobody goes by a contact's name"


async def test_nothing_in_the_nodes_stores_says_a_word_or_a_name_of_a_group(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben, name="Reading circle")
        await groups.post(ann.node, ann.person, space, "a word in confidence")
        await trips(ann, ben, until=lambda: texts(ben, space))
        for house in (ann, ben):
            everything = b"".join(
                bytes(value) if isinstance(value, bytes) else str(value).encode()
                for (table,) in house.node.query("SELECT name FROM sqlite_schema WHERE type = 'table'")
                for row in house.node.query(f'SELECT * FROM "{table}"')
                for value in row
            )
            for needle in (
                b"Reading circle",
                b"in confidence",
                ann.person.identity,
                ben.person.identity,
                b"carry.heard",
            ):
                assert needle not in everything


async def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        space = await circle(ann, ben)
        for text, line in ((" \n", "empty"), ("x" * 4000, "at most")):
            with pytest.raises(UsageError, match=line):
                await groups.post(ann.node, ann.person, space, text)
        with pytest.raises(NotFoundError, match="not in this group"):
            await groups.post(ann.node, ann.person, space, "hello", reply_to=bytes(32))
        with pytest.raises(NotFoundError):
            await groups.post(ann.node, ann.person, secret("nowhere"), "hello")
        with pytest.raises(NotFoundError, match="no such contact"):
            await groups.create(ann.node, ann.person, "Another", [secret("nobody")])
        with pytest.raises(UsageError, match="1 to 64"):
            await groups.create(ann.node, ann.person, "")
        with pytest.raises(NotFoundError, match="there is no group"):
            groups.find(ann.person, "nothing")
        with pytest.raises(UsageError, match="only the founder"):
            await groups.remove(ben.node, ben.person, space, ann.person.identity)
        await groups.create(ann.node, ann.person, "Reading circle")
        with pytest.raises(UsageError, match="2 groups match"):
            groups.find(ann.person, "reading circle")
        assert [one.name for one in groups.groups(ann.person)] == ["Reading circle", "Reading circle"]


async def test_texts_that_were_not_indexed_yet_are_found_too(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann") as (ann,):
        space = (await groups.create(ann.node, ann.person, "Notes")).space
        await groups.post(ann.node, ann.person, space, "Хлеб на рынке")
        found = [line.text for line in groups.search(ann.person, "ХЛЕБ рын")]
        assert found == ["Хлеб на рынке"]
        while await ann.node.write(lambda: ann.person.vault.write(lambda t: t.execute(group_view.TEXTS.fill, (5,)))):
            pass
        assert [line.text for line in groups.search(ann.person, "хлеб")] == ["Хлеб на рынке"]
        with pytest.raises(UsageError, match="look for"):
            groups.search(ann.person, " ")


async def link(one: House, other: House) -> None:
    """The one keeps a session with the other."""
    port = await other.node.listen("127.0.0.1", 0)
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", port)


async def test_over_a_network_a_text_is_there_at_once_and_its_writer_knows(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben") as (ann, ben):
        await link(ann, ben)
        group = await groups.create(ann.node, ann.person, "Reading circle", [ben.person.identity])
        await ben.until(lambda: groups.invitations(ben.person))
        await groups.join(ben.node, ben.person, group.space)
        await ann.until(lambda: len(joined(ann.person, group.space)) == 2)
        said = await groups.post(ann.node, ann.person, group.space, "x" * 3000)
        await ben.until(lambda: texts(ben, group.space) == ["x" * 3000])
        await ann.until(lambda: group_view.hearing(ann.person, said).keys() == {ben.person.identity})


async def test_a_large_group_travels_by_sync_alone_and_nobody_is_told_who_has_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        monkeypatch.setattr("outlast.kernel.groups.MAILED_MAX", 2)
        monkeypatch.setattr("outlast.rooms.carry.groups.ACKNOWLEDGED_MAX", 2)
        before = [len(one.person.query("SELECT entry FROM sent")) for one in (ann, ben)]
        said = await groups.post(ann.node, ann.person, space, "to all of you")
        await ann.carry_to(ben)
        await ben.settled()
        assert texts(ben, space) == []
        await link(ann, ben)
        await ben.until(lambda: texts(ben, space) == ["to all of you"])
        await ben.settled()
        assert [len(one.person.query("SELECT entry FROM sent")) for one in (ann, ben)] == before
        assert group_view.hearing(ann.person, said) == {}


async def test_who_claims_a_clock_beyond_all_bounds_does_not_put_what_others_say_out_of_order(tmp_path: Path) -> None:
    async with houses(tmp_path, "ann", "ben", "cleo") as (ann, ben, cleo):
        space = await circle(ann, ben, cleo)
        head, _ = ben.person.outbox.head(space)
        assert head is not None
        membership = ben.person.groups.membership(space)
        secrets = {epoch: ben.person.groups._readings[space].secrets[epoch] for epoch in membership.epochs}
        inner = Inner(POST.name, ben.node.now_ms(), POST.encode(Post("far")))
        far = seal_entry(
            ben.person.signing_key,
            head,
            inner,
            space=space,
            secrets=secrets,
            clock=2**63,
            life_ms=DAY_MS,
            rand=os.urandom,
        )
        for one in (ann, cleo):
            await one.node.ingest([far])
            await one.until(lambda one=one: texts(one, space) == ["far"])
        said = ["far"]
        for number in range(4):
            said.append(f"one {number}")
            await groups.post(ann.node, ann.person, space, said[-1])
        await ann.carry_to(cleo)
        await cleo.until(lambda: len(texts(cleo, space)) == len(said))
        said.append("two")
        await groups.post(cleo.node, cleo.person, space, "two")
        await cleo.carry_to(ann)
        await ann.until(lambda: len(texts(ann, space)) == len(said))
        assert texts(ann, space) == said == texts(cleo, space)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_texts_of_one_clock_stand_in_one_order_in_every_vault(order: tuple[int, ...], tmp_path: Path) -> None:
    hour_ms, space, body = 3_600_000, secret("space"), POST.encode(Post("a text"))
    claims = (NOW_MS + hour_ms, NOW_MS, NOW_MS + hour_ms)  # two clocks run ahead
    vault = Vault.open(tmp_path / "vault.db", KEY, rooms=[ROOM])
    for came, number in enumerate(order):
        one = Said(secret(number), POST.name, body, secret("device"), None, number, 5, claims[number], counts=True)
        row = group_view.text_row(one, space, secret("me"), NOW_MS + came * 1000)
        assert row is not None
        vault.transaction([row], "carry")
    lines = group_view.lines(vault, space)
    assert [line.id for line in lines] == [secret(1), *sorted((secret(0), secret(2)))]
    for n, line in enumerate(lines):
        assert group_view.lines(vault, space, before=line.n) == lines[:n]
    vault.close()
