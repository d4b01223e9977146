"""Neighbours over real links: who is let in, what a peer that lies is told, and what is said to be copied."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outlast.errors import OutlastError
from outlast.kernel import neighbours as shells
from outlast.kernel import wire
from outlast.kernel.entry import Entry, day_of, unpack_all
from outlast.kernel.identity import SealingKey
from outlast.kernel.links import tcp
from outlast.kernel.links.channel import Channel
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.person import Person
from tests.kernel.society import (
    Note,
    befriend,
    bundle,
    carry,
    envelopes,
    events,
    friends,
    hears,
    meet,
    settle,
    society,
    story,
    until,
    write,
)


async def link(one: Person, other: Person) -> None:
    """The one keeps a session with the other."""
    port = await other.node.listen("127.0.0.1", 0)
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", port)
    await until(lambda: is_connected(one) and is_connected(other), one, other)


def is_connected(person: Person) -> bool:
    return any(peer.connected for peer in person.node.peers())


class Caller:
    """A peer made by hand: it speaks the session, and does with it what it likes."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    @classmethod
    @asynccontextmanager
    async def calling(cls, person: Person, port: int, key: SealingKey | None = None) -> AsyncIterator[Caller]:
        """A link to that person's node, under a fresh key or ``key``."""
        static = key.secret if key else os.urandom(32)
        channel = await tcp.connect("127.0.0.1", port, static=static, remote=person.node.transport_id)
        try:
            yield cls(channel)
        finally:
            await channel.close()

    async def greet(self, person: Person) -> None:
        """Say HELLO as somebody who follows the mail space, grants credit and holds nothing."""
        mac = wire.space_mac(self.channel.session_key, initiator=True, space=MAIL_SPACE)
        hello = wire.Hello([1], day_of(person.node.now_ms()), [mac], 2**30)
        await self.channel.send(wire.encode(wire.Type.HELLO, hello))
        await self.channel.send(wire.encode(wire.Type.SUMMARY, wire.Summary([])))

    async def hear(self, kind: wire.Type) -> bytes:
        """The next message of that kind."""
        while True:
            message = await self.channel.receive()
            assert message is not None, "the node hung up"
            if message[0] == kind:
                return message

    async def is_dropped(self) -> None:
        """Wait until the node hangs up."""
        while await self.channel.receive() is not None:
            pass


@pytest.mark.parametrize("turns", range(8))
def test_a_neighbour_removed_while_its_session_ends_is_called_again_when_it_is_added(
    turns: int, tmp_path: Path
) -> None:
    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await link(anna, boris)
            [session] = anna.node.neighbours._live
            assert session.task is not None
            session.task.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            await anna.node.peer_remove(boris.node.transport_id)
            await link(anna, boris)

    run()


@pytest.mark.parametrize("turns", range(4))
def test_the_link_to_a_stranger_is_closed_however_often_the_visit_is_ended(turns: int, tmp_path: Path) -> None:
    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
            ours, theirs = anna.node.neighbours, boris.node.neighbours
            ours.strangers = theirs.strangers = True
            ours.visit("127.0.0.1", await boris.node.listen("127.0.0.1", 0))
            await until(lambda: ours.hears and theirs.hears, anna, boris)
            [visit] = ours._visits.values()
            visit.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            visit.cancel()
            await until(lambda: not theirs.hears, boris)

    run()


@pytest.mark.parametrize("where", ["read", "write"])
def test_what_a_thread_has_begun_is_waited_for_however_often_the_waiting_task_is_cancelled(
    where: str, tmp_path: Path
) -> None:
    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            go_on = threading.Event()
            task = asyncio.create_task(getattr(anna.node, where)(go_on.wait))
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
                    task.cancel()
                assert not task.done()
            finally:
                go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    run()


@story
async def test_a_neighbour_that_has_moved_is_called_where_it_was_said_to_be_last(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await friends(nodes)
        await anna.node.peer_add(boris.node.transport_id, "127.0.0.1", 9)
        await until(lambda: anna.node.peers()[0].error is not None, anna)
        await link(anna, boris)
        boris = await nodes.come_back("boris")
        await until(lambda: not is_connected(anna), anna)
        await link(anna, boris)
        await write(anna, boris, "you moved")
        await hears(boris, "you moved")


class TestCustody:
    @story
    async def test_a_letter_is_copied_when_the_neighbour_says_that_it_is_durable_there(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, relay = [await nodes.join(name) for name in ("anna", "boris", "relay")]
            await befriend(anna, boris)
            await link(anna, relay)
            letter = await write(anna, boris, "by way of a relay")
            await until(lambda: events(anna, letter) == ["kept", "copied"], anna)
            assert relay.node.open_store.usage().entries == 1
            await link(relay, boris)
            await hears(boris, "by way of a relay")
            await until(lambda: "received" in events(anna, letter), anna)

    @story
    async def test_what_a_peer_was_sent_and_never_acknowledged_is_neither_copied_nor_taken_back(
        self, tmp_path: Path
    ) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            port = await anna.node.listen("127.0.0.1", 0)
            async with Caller.calling(anna, port) as caller:
                await caller.greet(anna)
                await caller.hear(wire.Type.SUMMARY)
                letter = await write(anna, boris, "hello")
                await caller.hear(wire.Type.ENTRIES)
                assert await anna.take_back(letter) is False
            await until(lambda: not is_connected(anna), anna)
            assert await anna.take_back(letter) is False
            assert events(anna, letter) == ["kept"]

    @story
    async def test_a_header_is_no_news_before_its_payload_has_come(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await befriend(anna, boris)
            await write(boris, anna, "long " * 300)
            (whole,) = envelopes(boris)
            bare = Entry(whole.header, whole.header_bytes, whole.signature, whole.id, None)
            port = await anna.node.listen("127.0.0.1", 0)
            async with Caller.calling(anna, port) as caller:
                await caller.greet(anna)
                await caller.hear(wire.Type.SUMMARY)
                await anna.node.ingest([bare], os.urandom(32))
                await write(anna, boris, "short")
                await anna.node.ingest([whole], os.urandom(32))
                heard = [entry.id for _ in range(2) for entry in unpack_all((await caller.hear(wire.Type.ENTRIES))[1:])]
                assert len(heard) == 2
                assert heard[1] == whole.id

    @story
    async def test_a_peer_cannot_acknowledge_what_it_was_not_sent(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            letter = await write(anna, boris, "hello")
            port = await anna.node.listen("127.0.0.1", 0)
            async with Caller.calling(anna, port) as caller:
                await caller.greet(anna)
                await caller.hear(wire.Type.SUMMARY)
                await caller.channel.send(wire.encode(wire.Type.KEPT, wire.Kept(1, [], [])))
                await caller.is_dropped()
            assert events(anna, letter) == ["kept"]

    @story
    async def test_a_letter_can_be_taken_back_only_until_it_left(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            letter = await write(anna, boris, "never mind")
            assert await anna.take_back(letter) is True
            assert (events(anna, letter), await anna.take_back(letter)) == ([], False)
            assert anna.node.open_store.usage().entries == 0
            kept = await write(anna, boris, "on a stick")
            await anna.write_bundle(io.BytesIO(), to=boris.identity)
            assert await anna.take_back(kept) is False, "the file may be anywhere, safe or not"
            assert events(anna, kept) == ["kept"]
            await carry(anna, boris)
            await hears(boris, "on a stick")
            anna = await nodes.come_back("anna")
            old = await write(anna, boris, "before the restart")
            anna = await nodes.come_back("anna")
            assert await anna.take_back(old) is False, "nobody knows any more whether it left"

    @story
    async def test_taking_back_many_letters_leaves_no_gap_that_hides_the_next(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            await write(boris, anna, "hello")
            await meet(boris, anna)
            for number in range(40):
                assert await anna.take_back(await write(anna, boris, f"no {number}"))
            many = [await write(anna, boris, f"nor {number}") for number in range(40)]
            for letter in many:
                assert await anna.take_back(letter)
            await write(anna, boris, "yes")
            await meet(anna, boris)
            await hears(boris, "yes")


class TestDoor:
    @story
    async def test_who_calls_again_replaces_the_older_session(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            port = await anna.node.listen("127.0.0.1", 0)
            key = SealingKey.from_secret(os.urandom(32))
            async with Caller.calling(anna, port, key) as first:
                await first.greet(anna)
                await first.hear(wire.Type.SUMMARY)
                async with Caller.calling(anna, port, key) as second:
                    await second.greet(anna)
                    await second.hear(wire.Type.SUMMARY)
                    await first.is_dropped()
                    assert [peer.node for peer in anna.node.peers()] == [key.public]

    @story
    async def test_strangers_cannot_take_the_places_of_neighbours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shells, "STRANGERS_MAX", 3)
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            port = await anna.node.listen("127.0.0.1", 0)
            await anna.node.peer_add(boris.node.transport_id, "127.0.0.1", 1)
            callers = [Caller.calling(anna, port) for _ in range(5)]
            opened = []
            try:
                for one in callers:
                    caller = await one.__aenter__()
                    opened.append(caller)
                    with_place = len(opened) <= 3
                    try:
                        await caller.greet(anna)
                        await caller.hear(wire.Type.SUMMARY)
                    except (AssertionError, OutlastError):
                        assert not with_place
                    else:
                        assert with_place
                await boris.node.peer_add(anna.node.transport_id, "127.0.0.1", port)
                await until(lambda: is_connected(boris), boris)
            finally:
                for one in callers:
                    await one.__aexit__(None, None, None)

    @story
    async def test_nothing_is_remembered_of_strangers_that_left(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            port = await anna.node.listen("127.0.0.1", 0)
            for _ in range(5):
                async with Caller.calling(anna, port) as caller:
                    await caller.greet(anna)
                    await caller.hear(wire.Type.SUMMARY)
                    await caller.channel.send(b"\xff")
                    await caller.is_dropped()
            await until(lambda: not anna.node.neighbours._live, anna)
            shell = anna.node.neighbours
            for memory in (shell._errors, shell._seen, shell._claims, shell._unconfirmed):
                assert not memory

    @story
    async def test_the_dates_of_strangers_raise_no_doubt_about_the_clock(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            port = await anna.node.listen("127.0.0.1", 0)
            async with Caller.calling(anna, port) as caller:
                mac = wire.space_mac(caller.channel.session_key, initiator=True, space=MAIL_SPACE)
                await caller.channel.send(wire.encode(wire.Type.HELLO, wire.Hello([1], 99_999, [mac], 2**30)))
                await caller.hear(wire.Type.SUMMARY)
                assert anna.node.clock_warning() is None

    @story
    async def test_two_that_call_each_other_at_once_end_up_with_one_session(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await friends(nodes)
            ports = [await one.node.listen("127.0.0.1", 0) for one in (anna, boris)]
            await asyncio.gather(
                anna.node.peer_add(boris.node.transport_id, "127.0.0.1", ports[1]),
                boris.node.peer_add(anna.node.transport_id, "127.0.0.1", ports[0]),
            )
            await write(anna, boris, "over whichever it is")
            await hears(boris, "over whichever it is")
            await until(lambda: len(anna.node.neighbours._live) == len(boris.node.neighbours._live) == 1, anna, boris)


class TestSpaces:
    @story
    async def test_a_channel_is_fetched_while_it_is_followed_and_forgotten_after(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "News")
            await anna.node.append(anna, space, "toy.post", Note("first"), life_ms=86_400_000)
            await link(boris, anna)
            await boris.node.follow(space)
            await until(lambda: posts(boris) == 1, boris)
            await anna.node.append(anna, space, "toy.post", Note("second"), life_ms=86_400_000)
            await until(lambda: posts(boris) == 2, boris)
            await boris.node.unfollow(space)
            assert boris.node.open_store.usage_of(space).entries == 0
            await boris.node.follow(space)
            await until(lambda: boris.node.open_store.usage_of(space).entries == 3, boris)

    @story
    async def test_a_peer_learns_only_of_spaces_that_it_names(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            space = await anna.node.new_space(anna, "News")
            (genesis,) = anna.node.query("SELECT id FROM entry")[0]
            port = await anna.node.listen("127.0.0.1", 0)
            async with Caller.calling(anna, port) as caller:
                await caller.greet(anna)
                summary = await caller.hear(wire.Type.SUMMARY)
                assert wire.decode(summary)[1].buckets == []
                await caller.channel.send(wire.encode(wire.Type.WANT, wire.IdList([genesis])))
                lack = await caller.hear(wire.Type.LACK)
                assert wire.decode(lack)[1].ids == [space]


def posts(person: Person) -> int:
    return int(person.node.query("SELECT count(*) FROM view_toy_post")[0][0])


@story
async def test_a_bundle_that_was_made_twice_counts_once(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await friends(nodes)
        await write(anna, boris, "hello")
        file, _ = await bundle(anna, boris)
        first = await boris.read_bundle(io.BytesIO(file))
        again = await boris.read_bundle(io.BytesIO(file))
        assert (first.new, again.new, again.problems) == (1, 0, ())
        await settle(boris)
        await hears(boris, "hello")
