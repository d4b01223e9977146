"""dev.py soak flood: what friends wrote stays, they go on hearing each other, and later syncs cost no more.

In the suite 600 posts and 600 envelopes of strangers, in the soak 100,000 of each, through 20 hostile nodes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from outlast.kernel import mail, quota, wire
from outlast.kernel.entry import DAY_MS, Entry, Header, expiry_day, pack, sign_entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.links import tcp
from outlast.kernel.person import Person
from tests.kernel.society import POST, Note, Society, befriend, hears, society, until, write
from tests.kernel.test_neighbours import Caller, is_connected

HOSTILE = 20
AT_ONCE = 8
LETTERS = 12


class Flooder(Caller):
    """A stranger that sends all it has, as fast as it may."""

    async def flood(self, person: Person, spaces: list[bytes], entries: list[Entry]) -> None:
        key = self.channel.session_key
        macs = [wire.space_mac(key, initiator=True, space=space) for space in spaces]
        hello = wire.Hello([1], person.node.today(), macs, 2**30)
        await self.channel.send(wire.encode(wire.Type.HELLO, hello))
        await self.channel.send(wire.encode(wire.Type.SUMMARY, wire.Summary([])))
        greeting = await self.hear(wire.Type.HELLO)
        credit = wire.decode(greeting)[1].credit
        settled = 0
        for message in messages(entries):
            while credit < len(message):
                more = await self.hear(wire.Type.CREDIT)
                credit += wire.decode(more)[1].size_bytes
            credit -= len(message)
            await self.channel.send(message)
        while settled < len(entries):
            kept = await self.hear(wire.Type.KEPT)
            settled = wire.decode(kept)[1].count


def messages(entries: list[Entry]) -> Iterator[bytes]:
    """ENTRIES messages of at most 60,000 bytes."""
    batch = bytearray((wire.Type.ENTRIES,))
    for entry in entries:
        packed = pack(entry)
        if len(batch) + len(packed) > wire.ENTRIES_MAX_BYTES:
            yield bytes(batch)
            batch = bytearray((wire.Type.ENTRIES,))
        batch += packed
    yield bytes(batch)


def junk(space: bytes, now_ms: int, number: int) -> Entry:
    """A valid entry of a stranger: a post in a channel, or an envelope that nobody can open."""
    author = SigningKey.from_seed(os.urandom(32))
    mailed = space == mail.MAIL_SPACE
    ts_ms = now_ms - now_ms % 3_600_000 if mailed else now_ms + number
    payload = os.urandom(512) if mailed else POST.encode(Note(f"buy now {number}"))
    header = Header(
        version=1,
        space=space,
        kind=mail.MAIL_KIND if mailed else POST.name,
        author=author.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, (mail.MAIL_LIFE_DAYS if mailed else 20) * DAY_MS),
        priority=mail.MAIL_PRIORITY if mailed else 2,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(os.urandom(16),) if mailed else (),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)


async def pair(one: Person, other: Person) -> None:
    """Both have added each other, and are in step."""
    ports = [await person.node.listen("127.0.0.1", 0) for person in (one, other)]
    await one.node.peer_add(other.node.transport_id, "127.0.0.1", ports[1])
    await other.node.peer_add(one.node.transport_id, "127.0.0.1", ports[0])
    await in_step(one, other)


async def in_step(one: Person, other: Person) -> None:
    def both() -> bool:
        return all(
            any(live.peer == peer.node.transport_id and live.session.pool_settled for live in me.node.neighbours._live)
            for me, peer in ((one, other), (other, one))
        )

    await until(both, one, other)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, int]:
    """Bytes of sessions by the transport key they were sent to, counted as they go."""
    counts: dict[bytes, int] = {}
    send = tcp.Channel.send

    async def counted(channel: tcp.Channel, data: bytes) -> None:
        counts[channel.remote or b""] = counts.get(channel.remote or b"", 0) + len(data)
        await send(channel, data)

    monkeypatch.setattr(tcp.Channel, "send", counted)
    return counts


def test_a_flood_by_strangers_moves_nothing_and_costs_friends_nothing_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: dict[bytes, int], soaking: bool
) -> None:
    each = 100_000 if soaking else 600
    monkeypatch.setattr(quota, "capacity", lambda _used, _free: quota.POOL_PART * each * 500)
    monkeypatch.setattr(quota, "WEIGH_BYTES", each * 10)
    patience_s = 1800 if soaking else 60

    async def flooded() -> None:
        async with society(tmp_path) as nodes:
            anna, boris, carl = [await nodes.join(name) for name in ("anna", "boris", "carl")]
            await befriend(boris, carl)
            await befriend(boris, anna)
            space = await boris.node.new_space(boris, "news")
            await anna.node.follow(space)
            await pair(anna, boris)
            for number in range(LETTERS):
                await write(boris, carl, f"to carl {number}")
                await boris.node.append(boris, space, POST.name, Note(f"post {number}"), life_ms=20 * DAY_MS)
            await until(lambda: anna.node.open_store.usage().entries == 2 * LETTERS + 1, anna)
            dear = set(ids_of(anna))
            await nodes.leave("boris")
            await pair(anna, carl)
            await hears(carl, *(f"to carl {number}" for number in range(LETTERS)))
            await met_again(nodes, anna, "carl", sent)
            before = await met_again(nodes, anna, "carl", sent)

            port = await anna.node.listen("127.0.0.1", 0)
            now_ms = nodes.clock()
            many = [junk(where, now_ms, number) for where in (space, mail.MAIL_SPACE) for number in range(each)]
            turns = asyncio.Semaphore(AT_ONCE)

            async def storm(part: int) -> None:
                async with turns, Flooder.calling(anna, port) as caller:
                    assert isinstance(caller, Flooder)
                    await caller.flood(anna, [mail.MAIL_SPACE, space], many[part::HOSTILE])

            waits = Waits()
            began = time.perf_counter()
            await asyncio.gather(*(storm(part) for part in range(HOSTILE)))
            print(f"flood: it took {time.perf_counter() - began:.0f} s; {waits.stop()}")

            assert dear <= set(ids_of(anna)), "what friends wrote is in its place"
            pool = anna.node.open_store.pool_usage()
            assert pool.bytes <= each * 500 + quota.WEIGH_BYTES
            assert 0 < pool.entries < 2 * each, "some of the flood was let go of"
            print(f"flood: {2 * each} brought, {pool.entries} in the pool, {anna.node.metrics.evicted} let go of")
            costs = [await met_again(nodes, anna, "carl", sent) for _ in range(10)]
            print(f"flood: a sync took {before} bytes before it and {costs} after it")
            assert max(costs[1:]) <= before + 64, f"syncs grew from {before} to {costs}"
            boris = await nodes.come_back("boris")
            await write(boris, anna, "still with you")
            await hears(anna, "still with you")

    asyncio.run(asyncio.wait_for(flooded(), patience_s))


class Waits:
    """How long whoever asks for a page would wait for the loop that the node and its flooders share."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds: list[float] = []
        self._beat(self._loop.time())

    def _beat(self, due: float) -> None:
        self._seconds.append(self._loop.time() - due)
        due = self._loop.time() + 0.02
        self._next = self._loop.call_at(due, self._beat, due)

    def stop(self) -> str:
        self._next.cancel()
        waits_ms = [round(second * 1000) for second in sorted(self._seconds)]
        return f"the loop was {waits_ms[len(waits_ms) * 99 // 100]} ms late in 1 of 100 cases, {waits_ms[-1]} at most"


def ids_of(person: Person) -> list[bytes]:
    return [bytes(row[0]) for row in person.node.query("SELECT id FROM entry")]


async def met_again(nodes: Society, anna: Person, name: str, sent: dict[bytes, int]) -> int:
    """That person's node starts anew and meets anna's; the bytes of their session until both have all."""
    await nodes.leave(name)
    await until(lambda: not is_connected(anna), anna)
    sent.clear()
    person = await nodes.come_back(name)
    await in_step(anna, person)
    return sum(sent.values())
