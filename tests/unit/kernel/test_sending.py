"""What goes to the peer of a session: within its credit, and nothing counts as copied that the peer did not keep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import INLINE_MAX_BYTES, Entry, unpack_all
from outlast.kernel.forward import Offer
from outlast.kernel.sending import LACKED_MAX, WANTED_MAX, WINDOW_BYTES, Sending
from outlast.kernel.setrec import SetView
from outlast.kernel.steps import Limits
from outlast.kernel.wire import CREDIT_CAP, ENTRIES_MAX_BYTES, WANT_IDS_MAX, Kept, SyncError, Type, decode
from tests.unit.kernel.entries import SPACE, post
from tests.unit.kernel.people import secret

POSTS = [post(n) for n in range(4)]
IDS = [one.id for one in POSTS]
LARGE = post(9, payload=bytes(40_000))


def sending(credit: int = CREDIT_CAP, limits: Limits | None = None) -> Sending:
    return Sending({SPACE}, credit, limits or Limits())


def sent(machine: Sending, entries: Sequence[Entry] = POSTS) -> Sending:
    """The machine, once it has sent these."""
    machine.push([Offer(one) for one in entries])
    out = [one.id for data in machine.messages() for one in unpack_all(data[1:])]
    assert set(out) == {one.id for one in entries}
    return machine


@given(st.permutations(range(4)), st.integers(0, 4), st.integers(0, 4))
def test_only_what_the_peer_kept_whole_counts_as_copied(order: list[int], refused: int, partial: int) -> None:
    machine = sent(sending())
    going = machine.unacknowledged
    without = order[:refused], order[refused : refused + partial]
    whole = machine.kept(Kept(4, *without))
    left = [one for n, one in enumerate(going) if n not in order[: refused + partial]]
    assert whole == left
    assert set(machine.unacknowledged) == {going[n] for n in without[1]}, "what is refused is settled, the rest is not"
    assert machine.idle
    assert set(machine.whole(IDS)) == {going[n] for n in without[1]}
    assert machine.whole(IDS) == machine.unacknowledged == []


@pytest.mark.parametrize(
    "kept",
    [Kept(0, [], []), Kept(5, [], []), Kept(4, [4], []), Kept(4, [1, 1], []), Kept(4, [1], [1]), Kept(2, [2], [])],
    ids=["nothing", "more than was sent", "beyond", "twice", "both", "behind its count"],
)
def test_nobody_acknowledges_what_they_were_not_sent(kept: Kept) -> None:
    machine = sent(sending())
    with pytest.raises(SyncError, match="not sent"):
        machine.kept(kept)


def test_what_was_acknowledged_once_is_not_acknowledged_again() -> None:
    machine = sent(sending())
    assert len(machine.kept(Kept(2, [], []))) == 2
    for again in (Kept(2, [], []), Kept(1, [], []), Kept(3, [1], [])):
        with pytest.raises(SyncError, match="not sent"):
            machine.kept(again)
    assert len(machine.kept(Kept(4, [], []))) == 2


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_nothing_is_sent_beyond_the_peers_credit_and_the_bytes_of_the_day(credit: int, output: int) -> None:
    machine = sending(credit, Limits(output_bytes=output))
    entries = [post(n) for n in range(20)]
    machine.push([Offer(one) for one in entries])
    messages = list(machine.messages())
    size = sum(map(len, messages))
    assert size <= min(credit, output)
    machine.grant(10_000)
    messages += machine.messages()
    assert sum(map(len, messages)) <= min(credit + 10_000, output)


def test_no_more_is_on_the_way_unacknowledged_than_the_window() -> None:
    entries = [post(n, payload=bytes(1000)) for n in range(4 * WINDOW_BYTES // 1000 // 3)]
    machine = sending()
    machine.push([Offer(one) for one in entries])
    flying = [one for data in machine.messages() for one in unpack_all(data[1:])]
    assert len(flying) < len(entries)
    assert len(flying) * 1000 <= WINDOW_BYTES
    machine.kept(Kept(len(flying), [], []))
    rest = [one for data in machine.messages() for one in unpack_all(data[1:])]
    assert len(flying) + len(rest) == len(entries), "what was acknowledged makes room"


def test_a_payload_frees_the_window_by_all_its_pieces_when_it_is_acknowledged() -> None:
    machine, full = sending(), WINDOW_BYTES // 40_000 + 1
    for number in range(1, 3 * full):
        machine.want(Type.WANT_PAYLOAD, [LARGE.id])
        assert machine.next_load() is not None
        assert machine.loaded([LARGE]) is None
        pieces = [decode(data)[1] for data in machine.messages()]
        assert [(one.id, one.offset) for one in pieces] == [(LARGE.id, 0), (LARGE.id, 32 * 1024)]
        assert b"".join(one.data for one in pieces) == LARGE.payload
        assert machine.kept(Kept(number, [], [])) == [LARGE.id]
    assert machine.idle


def on_the_way(machine: Sending) -> list[Entry]:
    """The entries that go out now, in messages no longer than allowed."""
    messages = list(machine.messages())
    assert all(len(data) <= ENTRIES_MAX_BYTES for data in messages)
    return [one for data in messages for one in unpack_all(data[1:])]


def test_after_many_payloads_no_more_is_on_the_way_than_before() -> None:
    entries = [post(n, payload=bytes(1000)) for n in range(4 * WINDOW_BYTES // 1000 // 3)]
    fresh, used = sending(), sending()
    for number in range(1, 20):
        used.want(Type.WANT_PAYLOAD, [LARGE.id])
        assert used.next_load() is not None
        used.loaded([LARGE])
        assert len(list(used.messages())) == 2
        used.kept(Kept(number, [], []))
    for machine in (fresh, used):
        machine.push([Offer(one) for one in entries])
    assert len(on_the_way(used)) == len(on_the_way(fresh))


@given(st.integers(0, 400))
def test_of_a_whole_bucket_all_is_sent_and_then_the_message_that_closes_it(count: int) -> None:
    entries = {one.id: one for one in (post(n) for n in range(count))}
    machine, came = sending(), list[bytes]()
    machine.pull(b"end", SetView.from_items((n, id) for n, id in enumerate(entries)))
    while (load := machine.next_load()) is not None:
        assert machine.loaded([entries[one] for one in load.ids]) is None
        for data in machine.messages():
            assert b"end" not in came
            came += [data] if data == b"end" else [one.id for one in unpack_all(data[1:])]
    came += machine.messages()
    assert came[-1] == b"end"
    assert sorted(came[:-1]) == sorted(entries)


def test_what_is_loaded_ahead_is_bounded_and_answers_that_nobody_waits_for_are_passed_over() -> None:
    entries = [post(n, payload=bytes(1000)) for n in range(1000)]
    machine = sending(credit=0)
    assert machine.loaded(entries) is None
    assert on_the_way(machine) == []
    machine.offer(one.id for one in entries)
    loaded = 0
    while (load := machine.next_load()) is not None:
        assert machine.next_load() is None, "one at a time"
        loaded += len(load.ids)
        machine.loaded([one for one in entries if one.id in load.ids])
    assert 0 < loaded < 300
    machine.grant(CREDIT_CAP)
    assert len(on_the_way(machine)) == loaded
    assert machine.next_load() is not None


def test_one_turn_takes_a_few_messages_and_what_is_left_waits_for_the_next() -> None:
    machine = sending(limits=Limits(turn_bytes=3000, step_bytes=1000))
    machine.push([Offer(post(n)) for n in range(60)])
    turns = [len(on_the_way(machine))]
    assert machine.has_more
    assert on_the_way(machine) == []
    while machine.has_more:
        machine.begin_turn()
        turns.append(len(on_the_way(machine)))
    assert sum(turns) == 60
    assert len(turns) > 2
    machine.want(Type.WANT_PAYLOAD, [LARGE.id])
    assert machine.next_load() is not None
    machine.loaded([LARGE])
    machine.begin_turn()
    assert sum(map(len, machine.messages())) < 5000
    assert machine.has_more


def test_a_large_payload_waits_to_be_asked_for() -> None:
    small, large = post(1, payload=bytes(INLINE_MAX_BYTES)), post(2, payload=bytes(INLINE_MAX_BYTES + 1))
    machine = sending()
    machine.offer([small.id, large.id])
    assert machine.next_load() is not None
    machine.loaded([small, large])
    assert {one.id: one.payload for one in on_the_way(machine)} == {small.id: small.payload, large.id: None}


@pytest.mark.parametrize(
    "ids", [[secret("another")], [POSTS[0].id, POSTS[0].id], [POSTS[0].id, secret("another")]], ids=str
)
def test_nobody_takes_what_they_were_not_offered(ids: list[bytes]) -> None:
    machine = sending()
    with pytest.raises(SyncError, match="not offered"):
        machine.taken([])
    machine.pool([(one, 100) for one in IDS])
    assert machine.next_offer() is not None
    with pytest.raises(SyncError, match="not offered"):
        machine.taken(ids)


def test_of_what_strangers_brought_one_offer_is_open_at_a_time_and_none_beyond_what_the_peer_takes() -> None:
    machine = sending(limits=Limits(pool_bytes=250))
    machine.pool([(one, 100) for one in IDS])
    offer = machine.next_offer()
    assert offer is not None
    assert decode(offer)[1].ids == [IDS[3], IDS[2]], "the newest first"
    assert machine.next_offer() is None
    assert (machine.awaits, machine.pool_settled) == (True, False)
    machine.taken([IDS[3]])
    assert machine.next_load() is not None
    assert machine.loaded([POSTS[3]]) is None
    assert [one.id for data in machine.messages() for one in unpack_all(data[1:])] == [IDS[3]]
    assert not machine.pool_settled, "what was chosen is on the way"
    machine.kept(Kept(1, [], []))
    assert machine.next_offer() is None
    assert machine.pool_settled


def test_of_another_space_nothing_is_sent_whatever_is_asked() -> None:
    other = post(1, space=secret("another"))
    machine = sending()
    machine.want(Type.WANT, [other.id, IDS[0]])
    assert machine.next_load() is not None
    lack = machine.loaded([other, POSTS[0]])
    assert lack is not None
    kind, body = decode(lack)
    assert (kind, body.ids) == (Type.LACK, [other.id])
    assert [one.id for data in machine.messages() for one in unpack_all(data[1:])] == [IDS[0]]


def test_nobody_asks_for_more_than_can_wait_or_again_and_again_in_vain() -> None:
    machine = sending()
    for _ in range(WANTED_MAX // WANT_IDS_MAX):
        machine.want(Type.WANT, [secret("id")] * WANT_IDS_MAX)
    with pytest.raises(SyncError, match="at once"):
        machine.want(Type.WANT, [secret("id")] * (WANTED_MAX % WANT_IDS_MAX + 1))
    machine, ids = sending(), [secret("id", n) for n in range(128)]
    for _ in range(LACKED_MAX // len(ids)):
        machine.want(Type.WANT, ids)
        assert machine.next_load() is not None
        lack = machine.loaded([])
        assert lack is not None
        assert decode(lack)[1].ids == ids
    machine.want(Type.WANT, ids[:1])
    assert machine.next_load() is not None
    with pytest.raises(SyncError, match="again and again"):
        machine.loaded([])
