"""Closed groups on real nodes: who reads them, by which ways their entries travel, and what others learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from outlast.errors import StorageError
from outlast.kernel.database import Database
from outlast.kernel.person import Person
from outlast.kernel.room import Value
from tests.kernel.society import (
    POST,
    Note,
    Society,
    befriend,
    carry,
    entries_of,
    envelopes,
    friends,
    hand_over,
    ids,
    meet,
    said_in,
    settle,
    society,
    story,
    until,
)

LIFE_MS = 86_400_000
TYPES = ["members", "sealed"]


async def trio(nodes: Society) -> tuple[Person, Person, Person]:
    """Three people who know each other."""
    anna, boris, clara = [await nodes.join(name) for name in ("anna", "boris", "clara")]
    await befriend(anna, boris)
    await befriend(anna, clara)
    await befriend(boris, clara)
    return anna, boris, clara


async def say(person: Person, space: bytes, text: str) -> None:
    await person.node.append(person, space, POST.name, Note(text), life_ms=LIFE_MS)


def texts(person: Person, space: bytes) -> list[str]:
    """What counts of what was said, in order."""
    return [POST.decode(said.body).text for said in said_in(person, space) if said.counts and said.kind == POST.name]


def members(person: Person, space: bytes) -> set[str]:
    """The names by which this person knows the members."""
    names = {contact.identity: contact.name for contact in person.contacts()} | {person.identity: person.name}
    return {names[identity] for identity in person.node.members(space).roles}


async def everybody_meets(*people: Person) -> None:
    """All mail goes everywhere, until nobody has anything new."""
    while True:
        mail = {entry.id: entry for one in people for entry in envelopes(one)}
        news = [[mail[id] for id in mail.keys() - one.node.open_store.known(list(mail))] for one in people]
        if not any(news):
            break
        for one, entries in zip(people, news, strict=True):
            await one.node.ingest(entries)
        await settle(*people)
        for one in people:
            await one.groups.tend()
        await settle(*people)


def stored(person: Person) -> bytes:
    """All that stands in this person's node's store of entries."""
    return b"".join(
        bytes(header) + bytes(payload or b"")
        for header, payload in person.node.query(
            "SELECT header, ifnull(payload, (SELECT data FROM payload WHERE payload.n = entry.n)) FROM entry"
        )
    )


async def group(type: str, founder: Person, *others: Person) -> bytes:
    """A closed group that all of these have joined."""
    space = await founder.node.new_space(founder, "reading circle", type)
    for one in others:
        await founder.add_member(space, one.identity)
    await everybody_meets(founder, *others)
    for one in others:
        assert [g.name for g in one.invitations()] == ["reading circle"]
        await one.join_space(space)
    await everybody_meets(founder, *others)
    return space


async def quartet(nodes: Society) -> tuple[Person, Person, Person, Person, bytes]:
    """Four people in Anna's sealed group, and the group: Boris is an admin, and Dora knows him alone."""
    anna, boris, clara = await trio(nodes)
    dora = await nodes.join("dora")
    await befriend(boris, dora)
    space = await group("sealed", anna, boris, clara)
    await anna.add_member(space, boris.identity, "admin")
    await everybody_meets(anna, boris, clara)
    await boris.add_member(space, dora.identity)
    await everybody_meets(anna, boris, clara, dora)
    await dora.join_space(space)
    await everybody_meets(anna, boris, clara, dora)
    return anna, boris, clara, dora, space


@pytest.mark.parametrize("type", TYPES)
@story
async def test_what_a_member_says_comes_to_the_others_by_mail(type: str, tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await trio(nodes)
        space = await group(type, anna, boris, clara)
        await say(boris, space, "hello")
        await everybody_meets(anna, boris, clara)
        for one in (anna, boris, clara):
            assert texts(one, space) == ["hello"]
            assert members(one, space) == {"anna", "boris", "clara"}


async def link(one: Person, other: Person) -> None:
    """The one keeps a session with the other."""
    port = await other.node.listen("127.0.0.1", 0)
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", port)


def holds(person: Person, space: bytes) -> set[bytes]:
    """The ids of all that this person's node holds of a space."""
    store = person.node.open_store
    return {id.tobytes() for day, _ in store.buckets(space) for id in store.bucket(space, day)[1]}


@pytest.mark.parametrize("type", TYPES)
@story
async def test_a_member_whose_device_began_anew_goes_on_and_the_old_device_counts_no_more(
    type: str, tmp_path: Path
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await trio(nodes)
        space = await group(type, anna, boris, clara)
        await say(boris, space, "before")
        await everybody_meets(anna, boris, clara)
        copy = await nodes.copy("boris", "copy")
        boris = nodes.person("boris")
        await copy.renew()
        await everybody_meets(anna, copy, clara)
        await say(copy, space, "anew")
        await say(boris, space, "by the copied device")
        await everybody_meets(anna, copy, clara)
        await hand_over([e for e in entries_of(boris) if e.header.space == space], anna)
        for one in (anna, copy):
            assert texts(one, space) == ["before", "anew"]
            assert members(one, space) == {"anna", "boris", "clara"}
        # The copied device learns of it within the group, too, and is still.
        await hand_over([e for e in entries_of(anna) if e.header.space == space], boris)
        await boris.groups.tend()
        assert boris.is_ended


class TestJoining:
    @story
    async def test_nothing_of_a_group_is_in_the_node_before_its_person_has_joined(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await anna.node.new_space(anna, "reading circle", "sealed")
            await anna.add_member(space, boris.identity)
            await everybody_meets(anna, boris)
            (invitation,) = boris.invitations()
            assert (invitation.space, invitation.name, invitation.sender) == (space, "reading circle", anna.identity)
            assert (holds(boris, space), space in boris.node.spaces()) == (set(), False)
            await boris.leave_space(space)
            await say(anna, space, "hello")
            await everybody_meets(anna, boris)
            assert (boris.invitations(), holds(boris, space)) == ([], set())

    @story
    async def test_what_comes_before_the_invitation_is_not_lost(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris)
            await anna.add_member(space, clara.identity)
            await meet(anna, boris)
            await boris.groups.tend()
            before = ids(envelopes(boris))
            await say(boris, space, "welcome")
            await hand_over([one for one in envelopes(boris) if one.id not in before], clara)
            assert clara.invitations() == []
            await meet(anna, clara)
            await clara.join_space(space)
            assert texts(clara, space) == ["welcome"]

    @story
    async def test_a_group_is_there_again_after_a_restart(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            await say(anna, space, "hello")
            anna = await nodes.come_back("anna")
            await anna.groups.tend()
            assert (texts(anna, space), members(anna, space)) == (["hello"], {"anna", "boris"})
            assert anna.node.named()[1].keys() == {space}

    @pytest.mark.parametrize("type", TYPES)
    @story
    async def test_who_restores_a_backup_is_still_a_member(self, type: str, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group(type, anna, boris, clara)
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris)
            await say(anna, space, "before")
            await everybody_meets(anna, boris)
            backup = await boris.backup("backup words")
            await nodes.leave("boris")
            again = await nodes.join("boris again", backup=backup)
            await again.groups.tend()
            assert again.node.members(space).roles.keys() == {anna.identity, boris.identity}
            assert again.groups.access[space] == anna.groups.access[space]
            await link(again, anna)
            await until(lambda: texts(again, space) == ["before"], again)

    @story
    async def test_what_a_store_let_go_of_changes_no_membership(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            store = anna.node.open_store
            lasting = [id for _, id in store.lasting(space)]
            await anna.node.write(lambda: store.remove(lasting))
            anna = await nodes.come_back("anna")
            await anna.groups.tend()
            assert members(anna, space) == {"anna", "boris"}

    @story
    async def test_who_leaves_holds_nothing_any_more_and_does_not_know_the_next_key(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            before = anna.groups.access[space]
            await boris.leave_space(space)
            assert (holds(boris, space), boris.query("SELECT * FROM local_group_secret")) == (set(), [])
            await everybody_meets(anna, boris, clara)
            assert members(clara, space) == {"anna", "clara"}
            assert anna.groups.access[space] == clara.groups.access[space] != before
            await say(clara, space, "among us")
            await everybody_meets(anna, boris, clara)
            assert texts(anna, space) == ["among us"]

    @story
    async def test_what_a_broken_off_leaving_has_left_goes_with_the_next_look(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("members", anna, boris)

            async def refuse(_: bytes) -> None:
                raise StorageError("the disk is full")

            with monkeypatch.context() as full:
                full.setattr(boris.node, "unfollow", refuse)
                with pytest.raises(StorageError):
                    await boris.leave_space(space)
            assert holds(boris, space) != set()
            boris = await nodes.come_back("boris")
            await boris.groups.tend()
            assert (holds(boris, space), space in boris.node.spaces()) == (set(), False)


class TestRemoving:
    @pytest.mark.parametrize("type", TYPES)
    @story
    async def test_the_removed_reads_nothing_that_is_said_afterwards(self, type: str, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group(type, anna, boris, clara)
            await say(clara, space, "before")
            await everybody_meets(anna, boris, clara)
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris, clara)
            await say(boris, space, "afterwards")
            await everybody_meets(anna, boris, clara)
            assert texts(anna, space) == texts(boris, space) == ["before", "afterwards"]
            assert texts(clara, space) == ["before"]
            assert anna.groups.access[space] == boris.groups.access[space] != clara.groups.access.get(space)

    @story
    async def test_what_the_removed_says_afterwards_is_kept_and_does_not_count(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            await anna.remove_member(space, clara.identity)
            await say(clara, space, "I know nothing of it")
            await everybody_meets(anna, boris, clara)
            assert texts(anna, space) == texts(boris, space) == []
            said = [one for one in said_in(boris, space) if one.kind == POST.name]
            assert [(one.author, one.counts) for one in said] == [(clara.identity, False)]

    @story
    async def test_two_admins_who_remove_somebody_at_once_agree_on_one_key(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            dora, emil = await nodes.join("dora"), await nodes.join("emil")
            for one in (anna, boris, clara):
                await befriend(one, dora)
                await befriend(one, emil)
            space = await group("sealed", anna, boris, clara, dora, emil)
            await anna.add_member(space, boris.identity, "admin")
            await everybody_meets(anna, boris, clara, dora, emil)
            await anna.remove_member(space, dora.identity)
            await boris.remove_member(space, emil.identity)
            await everybody_meets(anna, boris, clara, dora, emil)
            keys = [one.groups.access[space] for one in (anna, boris, clara)]
            assert len(set(keys)) == 1
            assert members(clara, space) == {"anna", "boris", "clara"}
            for one in (dora, emil):
                assert one.groups.access.get(space) not in keys
            await say(clara, space, "the three of us")
            await everybody_meets(anna, boris, clara, dora, emil)
            assert (texts(anna, space), texts(dora, space), texts(emil, space)) == (["the three of us"], [], [])


class TestTelling:
    @story
    async def test_who_does_not_know_the_remover_gets_the_new_key_from_somebody_who_does(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara, dora, space = await quartet(nodes)
            await anna.remove_member(space, clara.identity)
            await everybody_meets(anna, boris, clara, dora)
            assert dora.groups.access[space] == anna.groups.access[space] != clara.groups.access.get(space)
            await say(boris, space, "all of us")
            await everybody_meets(anna, boris, clara, dora)
            assert texts(anna, space) == texts(dora, space) == ["all of us"]

    @story
    async def test_a_key_is_told_once_and_again_when_an_admin_adds_somebody_anew(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            await everybody_meets(anna, boris)
            before = len(envelopes(anna))
            for _ in range(3):
                await anna.groups.tend()
            assert len(envelopes(anna)) == before
            await anna.add_member(space, boris.identity)
            assert len(envelopes(anna)) > before

    @story
    async def test_a_group_goes_on_without_its_founder(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            await anna.add_member(space, boris.identity, "admin")
            await everybody_meets(anna, boris, clara)
            before = clara.groups.access[space]
            await anna.leave_space(space)
            await everybody_meets(anna, boris, clara)
            assert boris.groups.access[space] == clara.groups.access[space] != before
            await say(clara, space, "the two of us")
            await everybody_meets(anna, boris, clara)
            assert texts(boris, space) == ["the two of us"]


class TestDevices:
    @story
    async def test_a_new_device_goes_on_and_the_ended_one_does_not_know_the_next_key(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            await say(boris, space, "from the old one")
            await everybody_meets(anna, boris, clara)
            old, before = boris.device, anna.groups.access[space]
            await boris.renew()
            await everybody_meets(anna, boris, clara)
            await say(boris, space, "from the new one")
            await everybody_meets(anna, boris, clara)
            for one in (anna, boris, clara):
                assert texts(one, space) == ["from the old one", "from the new one"]
                assert one.node.members(space).ended.keys() == {old}
                assert one.groups.access[space] != before


class TestSync:
    @pytest.mark.parametrize("type", TYPES)
    @story
    async def test_members_nodes_exchange_the_group(self, type: str, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group(type, anna, boris)
            await link(anna, boris)
            await say(anna, space, "hello")
            await until(lambda: texts(boris, space) == ["hello"], boris)
            await until(lambda: holds(anna, space) == holds(boris, space), anna, boris)

    @story
    async def test_the_removed_cannot_name_the_group_any_more(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, _, clara = await trio(nodes)
            space = await group("sealed", anna, clara)
            await anna.remove_member(space, clara.identity)
            await say(anna, space, "without her")
            before = holds(clara, space)
            await link(clara, anna)
            letter = await clara.send(anna.identity, "toy.note", Note("a letter shows that the two are in step"))
            await until(lambda: "received" in [one.event for one in clara.custody([letter])[letter]], clara)
            # All that came is that she was removed, by mail.
            assert len(holds(clara, space) - before) == 1
            assert texts(clara, space) == []
            assert anna.identity not in clara.groups.access

    @story
    async def test_a_session_with_the_removed_ends_before_the_next_thing_is_said(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, _, clara = await trio(nodes)
            space = await group("members", anna, clara)
            await link(clara, anna)
            await say(anna, space, "with her")
            await until(lambda: texts(clara, space) == ["with her"], clara)
            await anna.remove_member(space, clara.identity)
            await say(anna, space, "without her")
            letter = await anna.send(clara.identity, "toy.note", Note("a letter shows that the two are in step"))
            await until(lambda: "received" in [one.event for one in anna.custody([letter])[letter]], anna)
            assert texts(clara, space) == ["with her"]

    @story
    async def test_a_locked_node_does_not_speak_of_its_groups(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            node = anna.node
            assert space in node.named()[0]
            await node._close_person(anna.key)
            assert space in node.spaces()
            assert space not in node.named()[0]


class TestElsewhere:
    @story
    async def test_entries_come_over_a_stick(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await trio(nodes)
            space = await group("sealed", anna, boris, clara)
            await say(anna, space, "by stick")
            await carry(anna, boris)
            await boris.groups.tend()
            assert texts(boris, space) == ["by stick"]
            await carry(boris, clara)
            await clara.groups.tend()
            assert texts(clara, space) == ["by stick"]

    @story
    async def test_a_strangers_relay_learns_neither_the_group_nor_its_members(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            relay = await nodes.join("relay")
            space = await anna.node.new_space(anna, "reading circle", "sealed")
            await link(anna, relay)
            await link(relay, boris)
            await anna.add_member(space, boris.identity)
            await until(lambda: bool(boris.invitations()), boris)
            await boris.join_space(space)
            await until(lambda: members(anna, space) == {"anna", "boris"}, anna)
            await say(anna, space, "hello")
            await until(lambda: texts(boris, space) == ["hello"], boris)
            assert holds(relay, space) == set()
            everything = stored(relay)
            for needle in (
                space,
                b"reading circle",
                b"hello",
                anna.identity,
                anna.device,
                boris.identity,
                boris.device,
            ):
                assert needle not in everything

    @story
    async def test_a_sealed_group_shows_its_members_stores_no_name_and_no_text(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, _ = await trio(nodes)
            space = await group("sealed", anna, boris)
            await say(anna, space, "hello to all of you")
            everything = stored(anna)
            for needle in (b"reading circle", b"hello to all", anna.identity, boris.identity, b"toy.post", b"member"):
                assert needle not in everything
            assert {kind for (kind,) in _kinds(anna, space)} == {"genesis", "sealed"}


def _kinds(person: Person, space: bytes) -> set[tuple[str]]:
    return {(entry.header.kind,) for entry in person.node.open_store.load(holds(person, space))}


@story
async def test_news_of_the_node_costs_little_in_groups_where_nothing_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has many groups would else look all of them through, each through the list of all, for every letter."""
    rows: list[int] = []
    select = Database._select

    def count(self: Database, connection: apsw.Connection, sql: str, args: Sequence[Value]) -> list[tuple[Any, ...]]:
        found = select(self, connection, sql, args)
        rows.append(len(found))
        return found

    async def cost(anna: Person) -> int:
        await settle(anna)
        await anna.groups.tend()
        monkeypatch.setattr(Database, "_select", count)
        rows.clear()
        await anna.groups.tend()
        monkeypatch.undo()
        return sum(rows)

    async with society(tmp_path) as nodes:
        anna, boris = await friends(nodes)
        for number in range(5):
            await anna.node.new_space(anna, f"circle {number}", "sealed")
        few = await cost(anna)
        for number in range(5, 25):
            await anna.node.new_space(anna, f"circle {number}", "sealed")
        assert await cost(anna) < few + 20 * 10
        await anna.add_member(anna.groups.held()[0].space, boris.identity)
        await everybody_meets(anna, boris)
        assert len(boris.invitations()) == 1
