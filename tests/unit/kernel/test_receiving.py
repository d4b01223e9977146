"""What comes from the peer of a session: nothing that was not agreed on, asked for or paid, and all of it answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import INLINE_MAX_BYTES, PAYLOAD_MAX_BYTES, Entry, pack, pack_header
from outlast.kernel.receiving import PAYLOADS_ASKED_MAX, PAYLOADS_NEEDED_MAX, Receiving
from outlast.kernel.steps import Fate, Ingest, Limits, WeighOffer
from outlast.kernel.wire import (
    ENTRIES_MAX_BYTES,
    PIECE_MAX_BYTES,
    POOL_OFFERS_MAX,
    WANT_IDS_MAX,
    Credit,
    Kept,
    Piece,
    SyncError,
    Type,
    decode,
)
from tests.unit.kernel.entries import SPACE, post
from tests.unit.kernel.people import secret

PLENTY = Limits()
LARGE = post(1, payload=bytes(40_000))


def receiving(limits: Limits = PLENTY) -> Receiving:
    return Receiving({SPACE}, limits)


def message(*entries: Entry) -> bytes:
    """The ENTRIES message that holds these."""
    return bytes((Type.ENTRIES,)) + b"".join(map(pack, entries))


def pieces(entry: Entry, size: int = PIECE_MAX_BYTES) -> list[Piece]:
    """All pieces of an entry's payload."""
    payload = entry.payload or b""
    return [Piece(entry.id, at, payload[at : at + size]) for at in range(0, len(payload), size)]


def asked(machine: Receiving, *entries: Entry) -> Receiving:
    """The machine, once the payloads of these were asked for."""
    machine.need_payloads(entries)
    assert [decode(one)[0] for one in machine.requests()] == [Type.WANT_PAYLOAD]
    return machine


def answers(machine: Receiving, ingest: Sequence[Entry], fates: Sequence[Fate]) -> list[tuple[Type, object]]:
    return [decode(one) for one in machine.ingested(ingest, fates)]


def test_entries_of_an_agreed_space_are_to_be_ingested_and_are_asked_for_no_more() -> None:
    machine, entries = receiving(), [post(1), post(2)]
    machine.need([one.id for one in entries])
    assert [decode(one)[1].ids for one in machine.requests()] == [[one.id for one in entries]]
    assert (machine.awaits, machine.idle) == (True, False)
    ingest = machine.entries(message(*entries))
    assert [one.id for one in ingest.entries] == [one.id for one in entries]
    assert (machine.awaits, machine.busy, machine.idle) == (False, True, False)
    assert answers(machine, entries, [Fate.KEPT, Fate.KEPT]) == [(Type.KEPT, Kept(2, [], []))]
    assert (machine.busy, machine.idle) == (False, True)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (message(post(1), post(2, space=secret("another"))), "not agreed on"),
        (message(post(1, payload=bytes(INLINE_MAX_BYTES + 1))), "not asked for"),
        (message(), "nothing"),
        (message(*(post(n) for n in range(500))).ljust(ENTRIES_MAX_BYTES + 1, b"\0"), "too long"),
    ],
    ids=["another space", "a large payload", "nothing", "too long"],
)
def test_what_was_not_agreed_on_ends_the_session(sent: bytes, why: str) -> None:
    with pytest.raises(SyncError, match=why):
        receiving().entries(sent)


def test_a_payload_of_the_greatest_size_that_travels_inline_is_taken() -> None:
    assert len(receiving().entries(message(post(1, payload=bytes(INLINE_MAX_BYTES)))).entries) == 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(0, 6000))
def test_nobody_sends_more_than_was_granted(counts: list[int], intake: int) -> None:
    """What is granted is never more than the share, whatever is acknowledged in between."""
    machine = receiving(Limits(credit_bytes=2000, intake_bytes=intake))
    granted, sent, number = machine.grant, 0, 0
    assert granted <= intake
    for count in counts:
        batch = [post(number + n) for n in range(count + 1)]
        number += len(batch)
        data = message(*batch)
        if sent + len(data) > granted:
            with pytest.raises(SyncError, match="allowed"):
                machine.entries(data)
            return
        sent += len(data)
        machine.entries(data)
        for kind, body in answers(machine, batch, [Fate.KEPT] * len(batch)):
            if kind is Type.CREDIT:
                assert isinstance(body, Credit)
                granted += body.size_bytes
        assert sent <= granted <= intake
        assert machine.budget == intake - granted


@given(st.integers(1, PIECE_MAX_BYTES))
def test_a_payload_is_whole_with_its_last_piece(size: int) -> None:
    machine = asked(receiving(), LARGE)
    *firsts, last = pieces(LARGE, size)
    assert [machine.piece(b"m", one) for one in firsts] == [None] * len(firsts)
    whole = machine.piece(b"m", last)
    assert isinstance(whole, Ingest)
    assert [pack(one) for one in whole.entries] == [pack(LARGE)]
    assert not machine.awaits
    with pytest.raises(SyncError, match="not asked for"):
        machine.piece(b"m", last)


OTHER = post(2, payload=bytes(40_000))
FIRST, LAST = pieces(LARGE)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ([Piece(post(3).id, 0, b"x")], "not asked for"),
        ([FIRST, pieces(OTHER)[0]], "not asked for"),
        ([LAST], "do not fit"),
        ([FIRST, FIRST], "do not fit"),
        ([FIRST, Piece(LARGE.id, PIECE_MAX_BYTES, bytes(40_001 - PIECE_MAX_BYTES))], "do not fit"),
        ([FIRST, Piece(LARGE.id, PIECE_MAX_BYTES, b"\1" * (40_000 - PIECE_MAX_BYTES))], "hash"),
    ],
    ids=["of no entry", "two at once", "the end first", "twice", "one byte more", "other bytes"],
)
def test_pieces_that_are_not_those_of_the_payload_end_the_session(sent: list[Piece], why: str) -> None:
    machine = asked(receiving(), LARGE, OTHER)
    for one in sent[:-1]:
        machine.piece(b"m", one)
    with pytest.raises(SyncError, match=why):
        machine.piece(b"m", sent[-1])


def test_pieces_are_paid_for_and_their_cost_comes_back_once_the_payload_is_durable() -> None:
    limits = Limits(credit_bytes=45_000, intake_bytes=100_000)
    machine = asked(receiving(limits), LARGE, OTHER)
    *_, whole = [machine.piece(bytes(len(one.data)), one) for one in pieces(LARGE)]
    assert whole is not None
    with pytest.raises(SyncError, match="allowed"):
        machine.piece(bytes(5_001), pieces(OTHER)[0])
    machine = asked(receiving(limits), LARGE, OTHER)
    *_, whole = [machine.piece(bytes(len(one.data)), one) for one in pieces(LARGE)]
    assert whole is not None
    assert answers(machine, whole.entries, [Fate.KEPT])[1:] == [(Type.CREDIT, Credit(40_000))]
    assert machine.piece(bytes(5_001), pieces(OTHER)[0]) is None


def test_the_answer_says_of_each_entry_what_became_of_it_counted_over_the_session() -> None:
    machine, batch = receiving(), [post(n) for n in range(4)]
    machine.entries(message(post(9)))
    assert answers(machine, [post(9)], [Fate.REFUSED]) == [(Type.KEPT, Kept(1, [0], []))]
    machine.entries(message(*batch))
    fates = [Fate.WANTS_CONTENT, Fate.REFUSED, Fate.KEPT, Fate.WANTS_PAYLOAD]
    assert answers(machine, batch, fates) == [(Type.KEPT, Kept(5, [2], [1, 4]))]
    ids = [one.id for one in batch]
    assert machine.whole(ids) == [ids[0]], "its chunks are announced when all of them are here"
    assert machine.whole(ids) == []


def test_a_header_whose_payload_is_wanted_is_asked_for_and_one_with_its_payload_is_not() -> None:
    machine, bare = receiving(), post(1, payload=None, content=b"hello")
    machine.entries(bytes((Type.ENTRIES,)) + pack_header(bare))
    answers(machine, [bare], [Fate.WANTS_PAYLOAD])
    assert [decode(one)[1].ids for one in machine.requests()] == [[bare.id]]
    machine.entries(message(post(1)))
    assert not machine.awaits, "it came inline meanwhile"


def test_as_many_are_answered_as_came() -> None:
    machine = receiving()
    machine.entries(message(post(1)))
    with pytest.raises(ValueError, match="were to be ingested"):
        list(machine.ingested([post(1)], []))


def test_only_so_much_is_asked_for_at_a_time() -> None:
    machine = receiving()
    machine.need([secret("id", n) for n in range(5 * WANT_IDS_MAX)])
    sizes = [len(decode(one)[1].ids) for one in machine.requests()]
    assert sizes == [WANT_IDS_MAX, WANT_IDS_MAX]
    assert machine.backlog == 3 * WANT_IDS_MAX
    assert list(machine.requests()) == []
    machine.lacked([secret("id", n) for n in range(WANT_IDS_MAX)])
    assert [len(decode(one)[1].ids) for one in machine.requests()] == [WANT_IDS_MAX]


def test_only_so_many_payloads_are_asked_for_and_wait() -> None:
    machine = receiving()
    machine.need_payloads(post(n, payload=None) for n in range(PAYLOADS_NEEDED_MAX + 100))
    machine.need_payloads([post(1, payload=None, space=secret("another"))])
    assert [len(decode(one)[1].ids) for one in machine.requests()] == [PAYLOADS_ASKED_MAX // 2]
    total = PAYLOADS_ASKED_MAX // 2
    while True:
        found = [one for data in machine.requests() for one in decode(data)[1].ids]
        if not found:
            break
        total += len(found)
        machine.lacked(found)
    assert total == PAYLOADS_NEEDED_MAX


def test_what_the_peer_lacks_is_waited_for_no_more_but_for_what_it_is_sending() -> None:
    machine = asked(receiving(), LARGE, OTHER)
    machine.piece(b"m", FIRST)
    machine.lacked([LARGE.id, OTHER.id])
    with pytest.raises(SyncError, match="not asked for"):
        machine.piece(b"m", pieces(OTHER)[0])
    assert machine.piece(b"m", LAST) is not None


def test_what_came_during_the_comparison_is_not_asked_for_and_afterwards_nothing_is_remembered() -> None:
    machine = receiving()
    machine.entries(message(post(1)))
    machine.need([post(1).id, post(2).id])
    assert [decode(one)[1].ids for one in machine.requests()] == [[post(2).id]]
    machine.forget_news()
    machine.need([post(1).id])
    assert [decode(one)[1].ids for one in machine.requests()] == [[post(1).id]]


def test_of_what_strangers_brought_one_offer_is_weighed_at_a_time_and_not_too_many() -> None:
    machine, ids = receiving(), [secret("id", n) for n in range(WANT_IDS_MAX)]
    assert machine.offered(ids) == WeighOffer(ids)
    with pytest.raises(SyncError, match="weigh"):
        machine.offered(ids)
    machine = receiving()
    for _ in range(POOL_OFFERS_MAX // WANT_IDS_MAX):
        machine.offered(ids)
        machine.weighed([])
    machine.offered(ids[: POOL_OFFERS_MAX % WANT_IDS_MAX])
    machine.weighed([])
    with pytest.raises(SyncError, match="weigh"):
        machine.offered(ids[:1])


def test_what_was_chosen_of_an_offer_is_waited_for_and_known_as_a_strangers_when_it_comes() -> None:
    machine, chosen, other = receiving(), post(1), post(2)
    machine.offered([chosen.id, other.id])
    assert decode(machine.weighed([chosen.id]))[1].ids == [chosen.id]
    assert machine.awaits
    assert machine.entries(message(chosen, other)).offered == {chosen.id}
    assert not machine.awaits


@pytest.mark.parametrize("change", [lambda m: m.need([post(1).id]), lambda m: m.need_payloads([LARGE])])
def test_nothing_more_is_awaited_once_the_share_of_the_day_is_used_up(change: Callable[[Receiving], None]) -> None:
    for intake, exhausted in ((ENTRIES_MAX_BYTES - 1, True), (ENTRIES_MAX_BYTES, False)):
        machine = receiving(Limits(credit_bytes=ENTRIES_MAX_BYTES, intake_bytes=intake))
        change(machine)
        list(machine.requests())
        assert (machine.exhausted, machine.awaits) == (exhausted, not exhausted)


def test_the_largest_payload_is_put_together() -> None:
    largest = post(1, payload=bytes(PAYLOAD_MAX_BYTES))
    machine = asked(receiving(), largest)
    assert [machine.piece(b"m", one) is not None for one in pieces(largest)] == [False, True]
