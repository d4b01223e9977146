"""A store within its quotas: who pays when room is short, and what is never let go."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from outlast.kernel.chunks import Chunk
from outlast.kernel.entry import CHUNK_BYTES, Entry, encode_header, entry_id
from outlast.kernel.eviction import Eviction
from outlast.kernel.mail import MAIL_SPACE
from outlast.kernel.metrics import Metrics
from outlast.kernel.quota import POOL_PART
from outlast.kernel.room import Event
from outlast.kernel.space import NO_SPACE
from outlast.kernel.store import ALL, DECLINED_MAX, Incoming, Scope, Store
from tests.unit.kernel.entries import DAY, KEY, SPACE, TOY, post
from tests.unit.kernel.people import NOW_MS, secret

FRIEND, FLOODER = secret("friend"), secret("flooder")
SIZE = len(post(1).header_bytes) + 64 + 5
PLENTY = 1 << 40


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store.db", KEY, rooms=[TOY])
    opened.put_space(MAIL_SPACE)
    opened.put_space(SPACE)
    yield opened
    opened.close()


class Keeping:
    """A store and its eviction, with what a node would tell it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.metrics = Metrics()
        self.eviction = Eviction(store, self.metrics)
        self.devices: set[bytes] = set()
        self.letters: set[bytes] = set()
        self.contacts: set[bytes] = set()

    def bring(self, source: bytes | None, *entries: Entry, pooled: bool = False) -> None:
        for change in self.store.append([Incoming(one, pooled) for one in entries]):
            entry = change.entry
            size = len(entry.header_bytes) + 64 + len(entry.payload or b"")
            self.eviction.payers.charge(source, change.cursor, size)

    def make_room(self, capacity_bytes: int) -> int:
        return self.eviction.make_room(capacity_bytes, 1, self.devices, lambda: self.letters, self.contacts)

    def holds(self, *entries: Entry) -> list[bool]:
        return [self.store.get(one.id) is not None for one in entries]


@pytest.fixture
def keeping(store: Store) -> Keeping:
    return Keeping(store)


def test_nothing_goes_while_there_is_room(keeping: Keeping) -> None:
    keeping.bring(FRIEND, post(1), post(2))
    assert keeping.make_room(PLENTY) == 0
    assert keeping.holds(post(1), post(2)) == [True, True]


def test_strangers_pay_before_anybody_else_and_the_sets_stay_as_they_are(keeping: Keeping) -> None:
    friendly, strange = [post(n) for n in range(100)], [post(n) for n in range(100, 200)]
    keeping.bring(FRIEND, *friendly)
    keeping.bring(FLOODER, *strange, pooled=True)
    before = keeping.store.buckets(SPACE)
    keeping.make_room(150 * SIZE)
    assert all(keeping.holds(*friendly))
    assert keeping.store.pool_usage().bytes <= 150 * SIZE // POOL_PART
    assert keeping.store.pool_usage().entries > 0
    left = keeping.store.bucket(SPACE, DAY)[1]
    assert {one.tobytes() for one in left} >= {one.id for one in friendly}
    assert before == [(DAY, 100)]


def test_the_fullest_neighbour_pays_and_the_other_one_does_not(keeping: Keeping) -> None:
    few, many = [post(n) for n in range(50)], [post(n) for n in range(50, 1550)]
    keeping.bring(FRIEND, *few)
    keeping.bring(FLOODER, *many)
    keeping.make_room(800 * SIZE)
    assert keeping.store.usage().bytes <= 800 * SIZE
    assert all(keeping.holds(*few))


def test_payloads_go_before_headers(keeping: Keeping) -> None:
    large = [post(n, payload=bytes(4096) + secret("payload", n)) for n in range(20)]
    keeping.bring(FLOODER, *large)
    keeping.make_room(10 * 4300)
    assert all(keeping.holds(*large))
    assert sum(keeping.store.get(one.id).payload is None for one in large) >= 10  # type: ignore[union-attr]
    assert keeping.store.bare() == [], "what was dropped is not asked for again"
    assert (keeping.metrics.payloads_dropped >= 10, keeping.metrics.evicted) == (True, 0)
    numbers = [change.cursor for change in keeping.store.changes(0, 20)]
    assert not any(map(keeping.eviction.payers.is_earlier, numbers)), "who brought them is still known"


def test_no_more_goes_than_has_to_when_several_pay(keeping: Keeping) -> None:
    many, few = [post(n) for n in range(40)], [post(n) for n in range(40, 70)]
    keeping.bring(FLOODER, *many)
    keeping.bring(FRIEND, *few)
    keeping.contacts = {many[0].header.author}
    freed = keeping.make_room(10 * SIZE)
    assert 60 * SIZE < freed < 62 * SIZE
    assert keeping.store.usage().entries == 9


def test_a_channel_pays_for_itself_and_mail_for_no_channel(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.kernel.quota.SPACE_MAX_BYTES", 100 * SIZE)
    full = secret("full")
    keeping.store.put_space(full)
    earliest = NOW_MS - 1  # whatever looks at all spaces takes these first
    quiet = [post(n, ts_ms=earliest) for n in range(90)]
    mail = [post(n, space=MAIL_SPACE, ts_ms=earliest) for n in range(300)]
    loud = [post(n, space=full) for n in range(150)]
    keeping.bring(FLOODER, *quiet, *mail, *loud)
    keeping.make_room(PLENTY)
    assert all(keeping.holds(*quiet, *mail))
    assert 90 < sum(keeping.holds(*loud)) <= 100


def test_what_came_before_this_run_does_not_go_at_the_cost_of_who_brings_now(keeping: Keeping) -> None:
    keeping.bring(FLOODER, *(post(n) for n in range(150)))
    keeping.eviction = Eviction(keeping.store, keeping.metrics)
    now = [post(n, ts_ms=NOW_MS - 1) for n in range(150, 170)]
    keeping.bring(FRIEND, *now)
    keeping.make_room(100 * SIZE)
    assert keeping.store.usage().bytes <= 100 * SIZE
    assert all(keeping.holds(*now))


def test_contents_that_nobody_asked_for_go_with_the_payloads(keeping: Keeping) -> None:
    store, (content, asked) = keeping.store, [large_content(b"a"), large_content(b"b")]
    keeping.bring(FLOODER, content[0], asked[0])
    store.want(asked[0].id)
    bring_content(store, content, asked)
    keeping.make_room(150_000)
    assert store.content_bytes(()) == 0
    assert store.progress(content[0].id) == (0, 200_000)
    assert store.progress(asked[0].id) == (200_000, 200_000)


@pytest.mark.parametrize("size_bytes", [200_000, 40 * CHUNK_BYTES], ids=["small manifest", "large manifest"])
def test_a_flood_takes_nothing_of_what_somebody_here_asked_for(keeping: Keeping, size_bytes: int) -> None:
    store, asked = keeping.store, large_content(b"b", size_bytes=size_bytes)
    keeping.bring(FLOODER, asked[0])
    store.want(asked[0].id)
    bring_content(store, asked)
    keeping.bring(FLOODER, *(post(n, payload=bytes(4096)) for n in range(20)), *(post(n) for n in range(20, 100)))
    keeping.make_room(20 * SIZE)
    assert store.used_bytes(()) <= 20 * SIZE
    assert store.progress(asked[0].id) == (size_bytes, size_bytes)


def test_large_files_of_ones_own_push_nobodys_mail_out(keeping: Keeping) -> None:
    store, (written, asked) = keeping.store, [large_content(b"a", "own"), large_content(b"b")]
    mail = [post(n) for n in range(10)]
    keeping.devices = {written[0].header.author}
    keeping.bring(None, written[0], asked[0])
    keeping.bring(FRIEND, *mail)
    store.want(asked[0].id)
    bring_content(store, written, asked)
    assert store.content_bytes(keeping.devices) == store.content_bytes(keeping.devices, SPACE) == 0
    assert store.content_bytes(()) == store.content_bytes((), SPACE) == 200_000
    assert keeping.make_room(100_000) == 0
    assert all(keeping.holds(*mail))


def bring_content(store: Store, *contents: tuple[Entry, list[bytes]]) -> None:
    for entry, chunks in contents:
        wanted, _ = store.open_content(entry.id)
        assert wanted is not None
        with store.laying() as laid:
            store.put_chunks(laid, [Chunk(entry.id, n, sha256(data).digest(), data) for n, data in enumerate(chunks)])


def large_content(letter: bytes, author: str = "other", size_bytes: int = 200_000) -> tuple[Entry, list[bytes]]:
    """An entry whose bytes of content differ from chunk to chunk, and its chunks."""
    data = b"".join(letter + number.to_bytes(3, "big") for number in range(size_bytes // 4))
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    manifest = b"".join(sha256(chunk).digest() for chunk in chunks)
    header = msgspec.structs.replace(post(payload=manifest, author=author, seq=1).header, payload_size=len(data))
    encoded = encode_header(header)
    return Entry(header, encoded, bytes(64), entry_id(encoded), manifest), chunks


def test_own_entries_never_go_and_contacts_entries_go_last(keeping: Keeping) -> None:
    own, contact, other = post(1), post(2, author="contact"), post(3)
    keeping.letters, keeping.contacts = {own.id}, {contact.header.author}
    keeping.bring(FLOODER, own, contact, other)
    keeping.make_room(3 * SIZE - 1)
    assert keeping.holds(own, contact, other) == [True, True, False]
    keeping.make_room(1)
    assert keeping.holds(own, contact) == [True, False]
    keeping.make_room(1)
    assert keeping.holds(own) == [True]


def test_what_devices_here_wrote_and_what_founds_a_space_never_goes(keeping: Keeping) -> None:
    own, founding, other = post(1, author="own"), post(2, space=NO_SPACE), post(3)
    keeping.devices = {own.header.author}
    keeping.bring(FLOODER, own, founding, other)
    keeping.make_room(1)
    assert keeping.holds(own, founding, other) == [True, True, False]


def test_what_cannot_go_is_not_looked_for_again_and_again(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [post(n) for n in range(10)]
    keeping.letters = {one.id for one in own}
    keeping.bring(None, *own)
    keeping.make_room(SIZE)
    monkeypatch.setattr(Store, "holdings", None)
    keeping.make_room(SIZE)


def test_what_is_let_go_is_in_the_set_and_in_the_log_and_is_not_served(keeping: Keeping) -> None:
    keeping.bring(FLOODER, *[post(n) for n in range(20)])
    keeping.make_room(10 * SIZE)
    store = keeping.store
    assert store.buckets(SPACE) == [(DAY, 20)]
    assert {one.tobytes() for one in store.bucket(SPACE, DAY)[1]} == {post(n).id for n in range(20)}
    gone = [change.entry.id for change in store.changes(0) if change.event is Event.EXPIRED]
    assert len(gone) == 20 - store.usage().entries > 0
    assert store.declined([post(n).id for n in range(20)]) == set(gone)
    assert store.load(gone) == []


def test_what_was_declined_and_came_all_the_same_stands_in_the_set_once(keeping: Keeping) -> None:
    keeping.store.decline([post(1), post(2)])
    keeping.bring(FRIEND, post(1))
    times, ids = keeping.store.bucket(SPACE, DAY)
    assert sorted(one.tobytes() for one in ids) == sorted([post(1).id, post(2).id])
    assert len(times) == 2


def test_declined_ids_are_forgotten_with_their_bucket_with_their_space_and_beyond_a_number(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = keeping.store
    store.decline([post(1), post(2, day=DAY + 9)])
    while store.expire(DAY + 1):
        pass
    assert store.declined([post(1).id, post(2, day=DAY + 9).id]) == {post(2, day=DAY + 9).id}
    store.remove_space(SPACE)
    assert store.declined([post(2, day=DAY + 9).id]) == set()
    monkeypatch.setattr("outlast.kernel.store.DECLINED_MAX", 3)
    store.decline([post(n) for n in range(5)])
    assert store.declined([post(n).id for n in range(5)]) == {post(n).id for n in (2, 3, 4)}
    assert DECLINED_MAX > 3


def test_the_pool_stands_outside_the_sets_until_somebody_known_has_it_too(keeping: Keeping) -> None:
    store = keeping.store
    keeping.bring(FLOODER, post(1), post(2), pooled=True)
    assert store.buckets(SPACE) == []
    assert len(store.bucket(SPACE, DAY)[1]) == 0
    assert store.buckets(SPACE, ALL) == [(DAY, 2)]
    assert len(store.bucket(SPACE, DAY, ALL)[1]) == 2
    assert [one for one, _ in store.pool([SPACE], FRIEND)] == [post(2).id, post(1).id]
    assert store.pool([MAIL_SPACE], FRIEND) == []
    store.put_peer(FRIEND, "127.0.0.1", 1)
    store.tell_peer(FRIEND, 1)
    assert [one for one, _ in store.pool([SPACE], FRIEND)] == [post(2).id]
    assert store.promote([post(1).id, post(9).id]) == {post(1).id}
    assert store.promote([post(1).id]) == set()
    assert store.pooled([post(1).id, post(2).id]) == {post(2).id}
    assert store.buckets(SPACE) == [(DAY, 1)]
    assert store.usage().entries == 2
    assert store.usage().bytes == 2 * SIZE + len(post(2).header_bytes) - len(post(1).header_bytes)


def test_what_was_written_here_stands_in_the_sets_however_it_looks_in_the_store(keeping: Keeping) -> None:
    store = keeping.store
    keeping.bring(FLOODER, post(1), post(2), post(3, day=DAY + 1), pooled=True)
    own = frozenset({post(2).id, post(3, day=DAY + 1).id})
    assert store.buckets(SPACE, Scope(also=own)) == [(DAY, 1), (DAY + 1, 1)]
    assert [one.tobytes() for one in store.bucket(SPACE, DAY, Scope(also=own))[1]] == [post(2).id]
    assert len(store.bucket(SPACE, DAY, Scope(pool=True, also=own))[1]) == 2


def test_an_entry_can_be_given_the_looks_of_those_that_came(keeping: Keeping) -> None:
    store = keeping.store
    assert not store.looks_pooled(SPACE, 1)
    keeping.bring(FLOODER, post(1), pooled=True)
    keeping.bring(FRIEND, post(2))
    assert [store.looks_pooled(SPACE, number) for number in (1, 2, 3)] == [True, False, False]
    assert not store.looks_pooled(MAIL_SPACE, 1)


def test_what_was_let_go_is_counted(keeping: Keeping) -> None:
    keeping.bring(FLOODER, *(post(n) for n in range(100)), pooled=True)
    keeping.make_room(50 * SIZE)
    gone = 100 - sum(keeping.holds(*(post(n) for n in range(100))))
    assert keeping.metrics.evicted == gone > 0


def test_what_strangers_put_into_a_channel_is_fetched_only_when_somebody_asks(keeping: Keeping) -> None:
    strange = post(1, payload=bytes(64), payload_size=2 * CHUNK_BYTES)
    keeping.bring(FLOODER, strange, pooled=True)
    assert keeping.store.wanted(1 << 30) == []
    keeping.store.want(strange.id)
    assert [one[0] for one in keeping.store.wanted(0)] == [strange.id]


def test_what_has_yet_to_come_whole_is_neither_offered_nor_unwanted(keeping: Keeping) -> None:
    store = keeping.store
    bare = post(1, payload=None, content=b"hello")
    keeping.bring(FLOODER, bare, post(2), pooled=True)
    store.decline([post(3)])
    assert [one for one, _ in store.pool([SPACE], FRIEND)] == [post(2).id]
    assert store.unwanted([bare.id, post(2).id, post(3).id, post(4).id]) == {post(2).id, post(3).id}
