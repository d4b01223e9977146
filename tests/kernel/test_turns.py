"""Neighbours take turns: who pulls or brings much, falls behind or comes with many others costs the rest little."""

from __future__ import annotations

import asyncio
import gc
import os
from hashlib import sha256
from pathlib import Path

import pytest

from outlast.kernel import neighbours as shells
from outlast.kernel import steps
from outlast.kernel.door import BATCH_MAX
from outlast.kernel.entry import DAY_MS, Entry, Header, expiry_day, sign_entry
from outlast.kernel.forward import Offer
from outlast.kernel.identity import SigningKey
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.person import Person
from outlast.kernel.snapshots import Snapshots
from outlast.kernel.store import SETS
from tests.kernel.society import POST, Note, befriend, hears, society, story, until, write


def posts(space: bytes, now_ms: int, count: int) -> list[Entry]:
    """Valid posts of nobody in particular."""
    key = SigningKey.from_seed(os.urandom(32))
    made = []
    for number in range(count):
        payload = POST.encode(Note(f"post {number} ".ljust(300, ".")))
        header = Header(
            version=1, space=space, kind=POST.name, author=key.public, seq=0, prev=None, clock=0,
            ts_ms=now_ms + number, expires_day=expiry_day(now_ms, 20 * DAY_MS), priority=POST.priority,
            payload_hash=sha256(payload).digest(), payload_size=len(payload), tags=(), stamp_nonce=0,
        )  # fmt: skip
        made.append(sign_entry(header, key, payload))
    return made


def held(person: Person, space: bytes) -> int:
    return person.node.open_store.usage_of(space).entries


async def connect(caller: Person, port: int, called: Person) -> None:
    await caller.node.peer_add(called.node.transport_id, "127.0.0.1", port)
    await until(lambda: any(peer.connected for peer in caller.node.peers()), caller)


BOUND_ENTRIES = 3 * BATCH_MAX
"""What is at the door, what goes in together with the letter, and what goes in while its receiver opens it; what may be
on the way to one neighbour is less."""


@pytest.mark.parametrize("brings", [False, True], ids=["pulled", "brought"])
def test_a_letter_does_not_wait_until_another_neighbour_has_moved_a_whole_channel(
    tmp_path: Path, soaking: bool, brings: bool
) -> None:
    count = 100_000 if soaking else 9000

    @story
    async def run() -> None:
        async with society(tmp_path) as nodes:
            anna, boris, vera = [await nodes.join(name) for name in ("anna", "boris", "vera")]
            await befriend(anna, boris)
            source, follower = (vera, anna) if brings else (anna, vera)
            writer, reader = (boris, anna) if brings else (anna, boris)
            space = await source.node.new_space(source, "News")
            await source.node.ingest(posts(space, source.node.now_ms(), count))
            await follower.node.follow(space)
            port = await anna.node.listen("127.0.0.1", 0)
            await connect(boris, port, anna)
            await connect(vera, port, anna)
            await until(lambda: held(follower, space) > 100, follower)
            before = held(follower, space)
            await write(writer, reader, "hello")
            await hears(reader, "hello")
            meanwhile = held(follower, space) - before
            assert meanwhile <= BOUND_ENTRIES, meanwhile
            assert held(follower, space) < count, "the letter came first"

    run()


@story
async def test_a_session_that_falls_too_far_behind_with_the_news_begins_anew_and_misses_none(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
        space = await anna.node.new_space(anna, "News")
        await boris.node.follow(space)
        port = await anna.node.listen("127.0.0.1", 0)
        await connect(boris, port, anna)
        await until(lambda: held(boris, space) == 1, boris)
        (live,) = anna.node.neighbours._live
        many = posts(space, anna.node.now_ms(), shells.NEWS_MAX + 10)
        await anna.node.ingest(many[:10])
        # The session does not come to see to any of it while all this is told; the first ten may still wait, too.
        anna.node.neighbours.offer([Offer(one) for one in many[: shells.NEWS_MAX - 15]])
        assert 0 < len(live.news) <= shells.NEWS_MAX
        waiting: list[steps.Event] = list(live.events._queue)  # type: ignore[attr-defined]
        assert sum(isinstance(one, steps.LocalAppended) for one in waiting) <= 2, "all news that waits is one event"
        anna.node.neighbours.offer([Offer(one) for one in many])
        assert live.behind
        assert not live.news
        await anna.node.ingest(many)
        await until(lambda: held(boris, space) == len(many) + 1, boris)
        assert live.over.is_set()


@story
async def test_what_strangers_brought_while_a_session_fell_behind_is_offered_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
        space = await anna.node.new_space(anna, "News")
        await boris.node.follow(space)
        await anna.node.peer_add(boris.node.transport_id, "127.0.0.1", 9)
        await connect(boris, await anna.node.listen("127.0.0.1", 0), anna)
        await until(lambda: held(boris, space) == 1, boris)
        (live,) = anna.node.neighbours._live
        monkeypatch.setattr(shells, "NEWS_MAX", 20)
        many = posts(space, anna.node.now_ms(), 30)
        await anna.node.ingest(many, os.urandom(32))
        assert live.behind
        await until(lambda: held(boris, space) == len(many) + 1, boris)


@story
async def test_sessions_that_compare_a_bucket_at_a_time_share_one_snapshot_of_it(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = [await nodes.join(name) for name in ("anna", "boris")]
        await befriend(anna, boris)
        await write(anna, boris, "hello")
        store = anna.node.open_store
        ((day, count),) = store.buckets(MAIL_SPACE)
        snapshots = Snapshots(store)
        views = await asyncio.gather(*(snapshots.take(MAIL_SPACE, day, SETS) for _ in range(20)))
        assert len({id(view) for view in views}) == 1
        assert len(views[0]) == count
        assert await snapshots.take(MAIL_SPACE, day, SETS) is views[0]
        await write(anna, boris, "again")
        newer = await snapshots.take(MAIL_SPACE, day, SETS)
        assert len(newer) > len(views[0])
        await anna.node.remove([newer.ids(0, 1)])
        assert len(await snapshots.take(MAIL_SPACE, day, SETS)) == len(newer) - 1
        del views, newer
        await asyncio.sleep(0)  # the tasks that made them let go
        gc.collect()
        assert not len(snapshots._views), "nobody uses them any more"


@story
async def test_who_speaks_does_not_wait_until_the_store_has_what_was_said_before(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space = await anna.node.new_space(anna, "News")
        async with anna.outbox._flushing:  # the store takes its time
            said = [
                asyncio.create_task(
                    anna.node.append(anna, space, POST.name, Note(f"post {number}"), life_ms=20 * DAY_MS)
                )
                for number in range(20)
            ]
            while anna.outbox.waiting() < len(said):
                await anna.node.write(lambda: None)
            rows = anna.query("SELECT entry_id FROM outbox")
            assert {bytes(row[0]) for row in rows} >= anna.outbox.pending(), "what waits outlasts a crash"
            assert not any(one.done() for one in said), "nobody is told that it is kept before it can be read"
        made = [entry.id for entry in await asyncio.gather(*said)]
        assert anna.node.open_store.held(made) == set(made)
        assert len({entry.header.seq for entry in anna.node.open_store.load(made)}) == len(made)


@story
async def test_who_writes_does_not_wait_until_all_views_are_made_anew(tmp_path: Path) -> None:
    count = 10_000
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        space = await anna.node.new_space(anna, "news")
        await anna.node.ingest(list(posts(space, nodes.clock(), count)))
        before = anna.node.query("SELECT * FROM view_toy_post ORDER BY id")
        rebuilding = asyncio.ensure_future(anna.node.rebuild())
        turns, said = 0, list[Entry]()
        while not rebuilding.done():
            await anna.node.write(lambda: None)
            turns += 1
            if turns == 2:
                said.append(await anna.node.append(anna, space, POST.name, Note("meanwhile"), life_ms=DAY_MS))
        await rebuilding
        assert turns > 5
        assert anna.node.query("SELECT * FROM view_toy_post ORDER BY id") == sorted([*before, (said[0].id, space)])
