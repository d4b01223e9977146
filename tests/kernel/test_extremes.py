"""Entries with every field at its ends, validly signed: what passes the door is stored, folded, carried, removed."""

from __future__ import annotations

import io
import random
from hashlib import sha256
from pathlib import Path

from outlast.kernel.admit import Admitted, Verdict
from outlast.kernel.entry import (
    DAY_MS,
    Entry,
    EntryError,
    Header,
    encode_header,
    entry_id,
    expiry_day,
    pack,
    signing_input,
    travel_size,
)
from outlast.kernel.identity import SigningKey
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.person import Person
from tests.kernel.society import POST, Note, settle, society, story, until

AUTHORS = [SigningKey.from_seed(bytes([n]) * 32) for n in range(3)]
NUMBERS = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**53 - 1, 2**63 - 1, 2**63, 2**64 - 1)
COUNT = 1500


def some_entry(chance: random.Random, space: bytes, now_ms: int) -> Entry | None:
    """An entry with a valid signature, or None when no entry has such fields."""
    payload = chance.choice(
        (b"", b"\xc0", POST.encode(Note("hello")), chance.randbytes(512), bytes(1025), bytes(65_536))
    )
    size = chance.choice((len(payload), len(payload), 65_537, 2**27))
    ts_ms = chance.choice((*NUMBERS[:8], now_ms, now_ms, now_ms - now_ms % 3_600_000))
    life = expiry_day(ts_ms, chance.choice((0, 1, 30, 90, 91)) * DAY_MS)
    seq = chance.choice((0, 0, 1, 2, 3, *NUMBERS))
    where = chance.choice((space, space, space, MAIL_SPACE, bytes(32), chance.randbytes(32)))
    author = chance.choice(AUTHORS)
    header = Header(
        version=chance.choice((1, 1, 1, 2, 127)),
        space=where,
        kind=chance.choice(("toy.post", "toy.post", "mail", "genesis", "post", "a", "x" * 32)),
        author=author.public,
        seq=seq,
        prev=chance.choice((None, bytes(32), chance.randbytes(32))) if seq > 1 else None,
        clock=chance.choice(NUMBERS),
        ts_ms=ts_ms,
        expires_day=chance.choice((life, life, 0, 1, 2**31 - 1)),
        priority=chance.randrange(8),
        payload_hash=sha256(payload).digest(),
        payload_size=size,
        tags=tuple(sorted({chance.randbytes(chance.choice((1, 7, 8, 16, 32))) for _ in range(chance.randrange(9))})),
        stamp_nonce=chance.choice(NUMBERS),
    )
    try:
        data = encode_header(header)
    except EntryError:
        return None
    held = payload if size == len(payload) == travel_size(size) and chance.random() < 0.9 else None
    return Entry(header, data, author.sign(signing_input(data)), entry_id(data), held)


def admitted(verdicts: list[Verdict]) -> set[bytes]:
    """The ids of those that were let in."""
    return {verdict.entry.id for verdict in verdicts if isinstance(verdict, Admitted)}


def holds(person: Person) -> set[bytes]:
    """All ids in a store."""
    return {bytes(row[0]) for row in person.node.query("SELECT id FROM entry")}


@story
async def test_a_node_lives_on_whatever_is_signed(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with society(tmp_path) as nodes:
        anna, boris = await nodes.join("anna"), await nodes.join("boris")
        space = await anna.node.new_space(anna, "News")
        await boris.node.follow(space)
        made = [entry for entry in (some_entry(chance, space, nodes.clock()) for _ in range(COUNT)) if entry]
        inside: set[bytes] = set()
        for at in range(0, len(made), 100):
            inside |= admitted(await anna.node.ingest([pack(entry) for entry in made[at : at + 100]]))
        assert len(inside) > COUNT / 20
        assert not anna.node.failed.done()
        assert holds(anna) >= inside
        # Read back as it came in, folded anew, and opened again.
        by_id = {entry.id: entry for entry in made}
        for id in inside:
            kept = anna.node.open_store.get(id)
            assert kept is not None
            assert (kept.header, kept.signature) == (by_id[id].header, by_id[id].signature)
        views = anna.node.query("SELECT * FROM view_toy_post ORDER BY id")
        await anna.node.rebuild()
        assert anna.node.query("SELECT * FROM view_toy_post ORDER BY id") == views
        anna = await nodes.come_back("anna")
        await settle(anna)

        # Over a link: both end up with the same.
        port = await anna.node.listen("127.0.0.1", 0)
        await boris.node.peer_add(anna.node.transport_id, "127.0.0.1", port)
        alive = {e.id for e in map(anna.node.open_store.get, holds(anna)) if e and _travels(e, anna)}
        await until(lambda: holds(boris) >= alive, boris)
        # By a stick: what has its payload.
        file = io.BytesIO()
        report = await anna.write_bundle(file, space=space)
        carl = await nodes.join("carl")
        await carl.node.follow(space)
        read = await carl.read_bundle(io.BytesIO(file.getvalue()))
        assert (read.entries, read.new, read.problems) == (report.entries, report.entries, ())

        nodes.clock.advance(days=400)
        await anna.node.confirm_clock()
        await anna.node.unfollow(space)
        left = anna.node.query("SELECT count(*) FROM entry e JOIN space s ON s.n = e.space WHERE s.id = ?", (space,))
        assert left == [(0,)]
        for one in (anna, boris, carl):
            assert not one.node.failed.done()


def _travels(entry: Entry, holder: Person) -> bool:
    """Whether a neighbour of the same day is told of it."""
    return entry.header.expires_day == 0 or entry.header.expires_day >= holder.node.today()
