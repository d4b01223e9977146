"""Fingerprints and ranks by definition, sessions that find every difference, hostile bytes."""

from __future__ import annotations

import os
import tracemalloc
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from math import isqrt
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.kernel.setrec import (
    FRAME_LIMIT_MIN_BYTES,
    TIMESTAMP_MAX,
    VERSION,
    Bound,
    Initiator,
    Responder,
    SetrecError,
    SetView,
    random_cuts,
)

Item = tuple[int, bytes]
SEED = b"s" * 32
END = bytes((0, 0))
SKIP, FINGERPRINT, ID_LIST = b"\x00", b"\x01", b"\x02"


def some_items(count: int, *, per_timestamp: int = 1, first: int = 1_700_000_000_000) -> list[Item]:
    """Items in order of time, ``per_timestamp`` of them at each."""
    return [(first + 1_000 * (i // per_timestamp), sha256(b"item %d" % i).digest()) for i in range(count)]


def message(*ranges: bytes) -> bytes:
    """A message of encoded ranges."""
    return bytes((VERSION,)) + b"".join(ranges)


def session(
    initiator: Initiator, responder: Responder, *, limits: tuple[int, int] = (0, 0)
) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Run to the end: what was told as have, as need, and all messages."""
    have: list[bytes] = []
    need: list[bytes] = []
    messages = [initiator.initiate()]
    while True:
        answer = responder.step(messages[-1])
        step = initiator.step(answer)
        messages.append(answer)
        have += step.have
        need += step.need
        if step.reply is None:
            break
        messages.append(step.reply)
    for limit, sent in zip(limits, (messages[::2], messages[1::2]), strict=True):
        assert all(len(each) <= limit for each in sent) or not limit
    assert len(set(have)) == len(have), "an id was told twice"
    assert len(set(need)) == len(need), "an id was told twice"
    return have, need, messages


def two_sets(draw: int, count: int, per_timestamp: int) -> tuple[list[Item], list[Item]]:
    """Two sets with much in common: scattered differences, and sometimes a stretch only one has."""
    random = Random(draw)
    items = some_items(count, per_timestamp=per_timestamp)
    rates = [random.choice((0, 0.001, 0.03, 0.5)) for _ in range(2)]
    start = random.randrange(count + 1)
    stretch = range(start, min(count, start + random.randrange(1, 600)))
    behind = random.choice((None, 0, 1))
    both = [
        [
            item
            for rank, item in enumerate(items)
            if random.random() >= rates[side] and not (side == behind and rank in stretch)
        ]
        for side in range(2)
    ]
    return both[0], both[1]


def ids_of(items: list[Item]) -> set[bytes]:
    return {item_id for _, item_id in items}


pairs_of_sets = st.builds(
    two_sets,
    st.integers(0, 2**32),
    st.integers(0, 200) | st.integers(0, 4000),
    st.sampled_from((1, 3, 5000)),
)
limits = st.just(0) | st.just(FRAME_LIMIT_MIN_BYTES) | st.integers(FRAME_LIMIT_MIN_BYTES, 30_000)


class TestSetView:
    @given(count=st.integers(0, 60), cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)))
    def test_a_fingerprint_is_the_hash_of_sum_and_count(self, count: int, cuts: tuple[int, int]) -> None:
        ids = [b"\xff" * 24 + sha256(b"%d" % i).digest()[:8] for i in range(count)]
        view = SetView.from_items(enumerate(ids))
        lower, upper = sorted(min(cut, count) for cut in cuts)
        total = sum(int.from_bytes(i, "little") for i in ids[lower:upper]) % 2**256
        plain = total.to_bytes(32, "little") + bytes((upper - lower,))
        assert view.fingerprint(lower, upper) == sha256(plain).digest()[:16]

    @given(
        items=st.sets(st.tuples(st.integers(0, 3), st.binary(min_size=2, max_size=2)), max_size=40),
        timestamp=st.integers(0, 4) | st.just(TIMESTAMP_MAX + 1),
        prefix=st.binary(max_size=3),
    )
    def test_a_rank_counts_the_items_below_a_bound(self, items: set[Item], timestamp: int, prefix: bytes) -> None:
        whole = sorted((ts, head + bytes(30)) for ts, head in items)
        expected = sum(item < (timestamp, prefix.ljust(32, b"\0")) for item in whole)
        view = SetView.from_items(whole)
        assert view.rank(Bound(timestamp, prefix)) == expected
        assert view.rank(Bound(timestamp, prefix), lower=expected) == expected

    @given(st.sets(st.tuples(st.integers(0, 2), st.binary(min_size=2, max_size=2)), min_size=2, max_size=40))
    def test_a_boundary_is_the_shortest_bound_between_two_items(self, items: set[Item]) -> None:
        whole = sorted((ts, bytes(20) + tail + bytes(10)) for ts, tail in items)
        view = SetView.from_items(whole)
        for rank in range(1, len(whole)):
            bound = view.boundary(rank)
            assert view.rank(bound) == rank
            if bound.prefix:
                assert view.rank(Bound(bound.timestamp, bound.prefix[:-1])) < rank

    def test_columns_and_pairs_make_the_same_view(self) -> None:
        items = sorted(some_items(100, per_timestamp=7))
        ts = np.array([ts for ts, _ in items], np.uint64)
        ids = np.frombuffer(b"".join(i for _, i in items), np.uint8).reshape(-1, 32).copy()
        view = SetView.from_sorted(ts, ids)
        whole = view.fingerprint(0, 100)
        assert whole == SetView.from_items(reversed(items)).fingerprint(0, 100)
        ts[:] = 0
        ids[:] = 0
        assert [view.item(rank) for rank in range(100)] == items
        assert view.fingerprint(0, 100) == whole, "changed by what happened to the arrays later"

    @pytest.mark.parametrize(
        "items",
        [
            [(1, bytes(32)), (1, bytes(32))],
            [(1, bytes(31))],
            [(-1, bytes(32))],
            [(TIMESTAMP_MAX + 1, bytes(32))],
            [(TIMESTAMP_MAX + 2, bytes(32))],
        ],
        ids=["twice", "short id", "negative", "infinity", "above 64 bits"],
    )
    def test_items_that_no_set_can_hold_are_refused(self, items: list[Item]) -> None:
        with pytest.raises(ValueError, match=r"item|id|timestamp"):
            SetView.from_items(items)

    def test_columns_out_of_order_are_refused(self) -> None:
        ids = np.zeros((3, 32), np.uint8)
        ids[:, 31] = (1, 2, 3)
        good = np.array([5, 5, 6], np.uint64)
        assert len(SetView.from_sorted(good, ids)) == 3
        with pytest.raises(ValueError, match="order"):
            SetView.from_sorted(good[::-1].copy(), ids)
        with pytest.raises(ValueError, match="order"):
            SetView.from_sorted(good, ids[[1, 0, 2]])
        with pytest.raises(ValueError, match="order"):
            SetView.from_sorted(good, ids[[0, 0, 2]])
        with pytest.raises(ValueError, match="uint64"):
            SetView.from_sorted(good.astype(np.int64), ids)
        with pytest.raises(ValueError, match="x 32"):
            SetView.from_sorted(good, ids[:, :31])
        with pytest.raises(ValueError, match="infinity"):
            SetView.from_sorted(np.array([1, 2, 2**64 - 1], np.uint64), ids)

    def test_an_item_takes_44_bytes(self) -> None:
        count = 100_000
        ts = np.arange(count, dtype=np.uint64)
        ids = np.random.default_rng(1).integers(0, 256, (count, 32), np.uint8)
        tracemalloc.start()
        try:
            view = SetView.from_sorted(ts, ids)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(view) == count
        assert held <= 44 * count + 10_000
        assert peak <= 76 * count + 100_000


class TestSessions:
    @given(sets=pairs_of_sets, both=st.tuples(limits, limits), seed=st.binary(min_size=32))
    @example(sets=two_sets(1, 4000, 1), both=(4096, 4096), seed=SEED)
    def test_find_exactly_the_differences(
        self, sets: tuple[list[Item], list[Item]], both: tuple[int, int], seed: bytes
    ) -> None:
        ours, theirs = sets
        initiator = Initiator(SetView.from_items(ours), seed=seed[:32], frame_size_limit=both[0])
        responder = Responder(SetView.from_items(theirs), frame_size_limit=both[1])
        have, need, _ = session(initiator, responder, limits=both)
        assert set(have) == ids_of(ours) - ids_of(theirs)
        assert set(need) == ids_of(theirs) - ids_of(ours)

    @given(sets=pairs_of_sets, limit=limits, limited=st.integers(0, 1))
    def test_aligned_find_exactly_the_differences_with_one_side_limited(
        self, sets: tuple[list[Item], list[Item]], limit: int, limited: int
    ) -> None:
        ours, theirs = sets
        both = (0, limit) if limited else (limit, 0)
        initiator = Initiator(SetView.from_items(ours), aligned=True, frame_size_limit=both[0])
        responder = Responder(SetView.from_items(theirs), aligned=True, frame_size_limit=both[1])
        have, need, _ = session(initiator, responder, limits=both)
        assert set(have) == ids_of(ours) - ids_of(theirs)
        assert set(need) == ids_of(theirs) - ids_of(ours)

    @given(sets=pairs_of_sets, both=st.tuples(limits, limits))
    def test_an_aligned_peer_with_a_limit_hides_nothing_from_one_that_is_not(
        self, sets: tuple[list[Item], list[Item]], both: tuple[int, int]
    ) -> None:
        ours, theirs = sets
        differences = ids_of(ours) - ids_of(theirs), ids_of(theirs) - ids_of(ours)
        for aligned in ("initiator", "responder"):
            initiator = Initiator(
                SetView.from_items(ours),
                seed=b"" if aligned == "initiator" else SEED,
                aligned=aligned == "initiator",
                frame_size_limit=both[0],
            )
            responder = Responder(
                SetView.from_items(theirs),
                aligned=aligned == "responder",
                frame_size_limit=both[1],
            )
            have, need, _ = session(initiator, responder, limits=both)
            assert (set(have), set(need)) == differences

    def test_one_responder_serves_sessions_side_by_side(self) -> None:
        items = some_items(500)
        responder = Responder(SetView.from_items(items))
        views = [SetView.from_items(items[:400]), SetView.from_items(items[100:])]
        initiators = [Initiator(view, seed=SEED) for view in views]
        replies: list[bytes | None] = [initiator.initiate() for initiator in initiators]
        need: list[set[bytes]] = [set(), set()]
        while any(replies):
            for side, reply in enumerate(replies):
                if reply is not None:
                    step = initiators[side].step(responder.step(reply))
                    need[side] |= set(step.need)
                    replies[side] = step.reply
        assert need == [ids_of(items[400:]), ids_of(items[:100])]

    @given(seed=st.binary(min_size=32, max_size=32), count=st.integers(3, 300))
    def test_never_offer_one_fingerprint_for_a_whole_set(self, seed: bytes, count: int) -> None:
        items = some_items(count)
        view = SetView.from_items(items)
        first = Initiator(view, seed=seed).initiate()
        assert view.fingerprint(0, count) not in first
        assert first.count(FINGERPRINT) >= 2

    def test_cut_at_other_ranks_in_every_session(self) -> None:
        view = SetView.from_items(some_items(10_000))
        first = {Initiator(view, seed=bytes((i,)) * 32).initiate() for i in range(50)}
        assert len(first) == 50
        assert Initiator(view, seed=SEED).initiate() == Initiator(view, seed=SEED).initiate()

    @pytest.mark.parametrize("count", [0, 1, 20, 1_000, 5_000])
    @pytest.mark.parametrize("differences", [0, 1, 10])
    def test_take_no_more_bytes_than_aligned_ones(self, count: int, differences: int) -> None:
        items = some_items(count)
        lacking = set(Random(1).sample(range(count), min(differences, count)))
        ours = SetView.from_items(items)
        theirs = SetView.from_items(item for i, item in enumerate(items) if i not in lacking)
        aligned = session(Initiator(ours, aligned=True), Responder(theirs, aligned=True))[2]
        taken = [sum(map(len, session(Initiator(ours, seed=bytes((i,)) * 32), Responder(theirs))[2])) for i in range(5)]
        assert sum(taken) <= 5 * sum(map(len, aligned))

    def test_a_full_frame_ends_with_all_that_is_left_under_one_fingerprint(self) -> None:
        view = SetView.from_items(some_items(1_000, first=0))
        nothing = END + FINGERPRINT + SetView.from_items([]).fingerprint(0, 0)
        to_118, to_119 = b"\x87\x99\x71\x00", b"\x87\x69\x00"  # 118,000 ms, and 1,000 more
        asked = message(to_118 + ID_LIST + b"\x00", to_119 + SKIP, nothing)
        answers = {
            aligned: Responder(view, frame_size_limit=4096, aligned=aligned).step(asked) for aligned in (False, True)
        }
        listed = message(to_118 + ID_LIST + b"\x76" + view.ids(0, 118))
        rest = END + FINGERPRINT + view.fingerprint(119, 1_000)
        assert answers[False] == listed + to_119 + SKIP + rest
        assert answers[True] == listed + nothing, "the reference's way, which vectors pin as well"

    def test_a_full_frame_ends_with_an_empty_list_when_nothing_is_left(self) -> None:
        initiator = Initiator(SetView.from_items([]), seed=SEED, frame_size_limit=4096)
        initiator.initiate()
        part = b"\x02\x00"
        reply = initiator.step(message(*[part + FINGERPRINT + bytes(16)] * 1_000)).reply
        assert reply is not None
        asked = message(*[part + ID_LIST + b"\x00"] * 973)  # the next would leave less than 200
        assert reply == asked + END + ID_LIST + b"\x00"

    def test_a_full_frame_ends_where_nothing_is_left_to_say(self) -> None:
        view = SetView.from_items(some_items(122, first=0))
        responder = Responder(view, frame_size_limit=4096)
        listed = ID_LIST + b"\x7a" + view.ids(0, 122)
        assert responder.step(message(END + ID_LIST + b"\x00")) == message(END + listed)
        behind = b"\x87\xd3\x49\x00"  # 125,384 ms, behind all items here: the peer may have more
        asked = message(behind + ID_LIST + b"\x00", END + FINGERPRINT + bytes(16))
        assert responder.step(asked) == message(behind + listed, END + ID_LIST + b"\x00")

    def test_refuse_arguments_that_break_their_rules(self) -> None:
        view = SetView.from_items([])
        for limit in (-1, 1, FRAME_LIMIT_MIN_BYTES - 1):
            with pytest.raises(ValueError, match="frame limit"):
                Responder(view, frame_size_limit=limit)
            with pytest.raises(ValueError, match="frame limit"):
                Initiator(view, seed=SEED, frame_size_limit=limit)
        with pytest.raises(ValueError, match="seed"):
            Initiator(view)
        with pytest.raises(ValueError, match="seed"):
            Initiator(view, seed=SEED, aligned=True)


class TestRandomCuts:
    @given(st.binary(min_size=32, max_size=32), st.integers(0, 1_000), st.integers(1, 5_000))
    def test_lie_within_a_quarter_of_a_part_of_the_even_ones(self, seed: bytes, lower: int, size: int) -> None:
        cuts = random_cuts(seed)(lower, lower + size)
        parts = min(16, isqrt(3 * size // 2))
        assert len(cuts) == max(0, parts - 1)
        assert all(before < after for before, after in pairwise((lower, *cuts, lower + size)))
        for i, cut in enumerate(cuts, 1):
            assert (i - 0.25) * size / parts - 1 <= cut - lower <= (i + 0.25) * size / parts

    def test_reach_all_of_that_and_are_new_each_time(self) -> None:
        cuts = random_cuts(SEED)
        moves = [cut - i * 1_000 for _ in range(50) for i, cut in enumerate(cuts(0, 16_000), 1)]
        assert min(moves) < -240
        assert max(moves) > 240
        assert len(set(moves)) > 300


MALFORMED = {
    "nothing": b"",
    "version of another protocol": b"\x5f",
    "version beyond": b"\x70" + END + SKIP,
    "a bound and no mode": message(END),
    "a timestamp cut short": message(b"\x81"),
    "a timestamp with leading zeros": message(b"\x80\x01\x00" + SKIP),
    "a timestamp that adds up to infinity": message(
        b"\x81" + b"\x80" * 8 + b"\x01\x00" + SKIP, b"\x81" + b"\x80" * 8 + b"\x00\x00" + SKIP
    ),
    "a timestamp of 65 bits": message(b"\x83" + b"\xff" * 8 + b"\x7f\x00" + SKIP),
    "a timestamp without end": message(b"\xff" * 40),
    "infinity written as a number": message(b"\x82" + b"\x80" * 9 + b"\x00" + SKIP),
    "a timestamp past infinity": message(
        b"\x81" + b"\xff" * 8 + b"\x7f\x00" + SKIP, b"\x81" + b"\xff" * 8 + b"\x7f\x00" + SKIP
    ),
    "a bound longer than an id": message(b"\x05\x21" + bytes(33) + SKIP),
    "a bound cut short": message(b"\x05\x20" + bytes(31)),
    "an id behind infinity": message(b"\x00\x01\x00" + SKIP),
    "ids of bounds out of order": message(b"\x05\x01\x02" + SKIP, b"\x01\x01\x01" + SKIP),
    "a bound behind infinity": message(END + SKIP, b"\x01\x00" + SKIP),
    "an unknown mode": message(END + b"\x03"),
    "a mode of two bytes": message(END + b"\x81\x00"),
    "a fingerprint cut short": message(END + FINGERPRINT + bytes(15)),
    "a list without its length": message(END + ID_LIST),
    "a list cut short": message(END + ID_LIST + b"\x02" + bytes(63)),
    "a list of 2**60 ids": message(END + ID_LIST + b"\x90" + b"\x80" * 7 + b"\x00" + bytes(64)),
}


class TestHostileBytes:
    @pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
    def test_every_malformed_message_is_refused(self, data: bytes) -> None:
        view = SetView.from_items(some_items(100))
        with pytest.raises(SetrecError):
            Responder(view).step(data)
        initiator = Initiator(view, seed=SEED)
        initiator.initiate()
        with pytest.raises(SetrecError):
            initiator.step(data)
        with pytest.raises(SetrecError, match="nothing was asked"):
            initiator.step(message())

    def test_a_message_is_refused_for_its_tail_even_when_a_full_frame_left_it_unread(self) -> None:
        view = SetView.from_items(some_items(5_000))
        full = message(END + ID_LIST + b"\x00")
        responder = Responder(view, frame_size_limit=FRAME_LIMIT_MIN_BYTES)
        assert len(responder.step(full)) > FRAME_LIMIT_MIN_BYTES // 2
        with pytest.raises(SetrecError):
            responder.step(full + b"\x01")

    def test_a_newer_version_is_answered_with_the_version_spoken_here(self) -> None:
        responder = Responder(SetView.from_items([]))
        assert responder.step(b"\x62\xaa\xbb") == b"\x61"
        assert responder.step(message(END + ID_LIST + b"\x00")) == message(END + ID_LIST + b"\x00")

    def test_an_answer_in_another_version_ends_the_session_with_one_clear_line(self) -> None:
        initiator = Initiator(SetView.from_items([]), seed=SEED)
        initiator.initiate()
        with pytest.raises(SetrecError, match="another version, update"):
            initiator.step(b"\x62")

    def test_an_answer_to_nothing_is_refused(self) -> None:
        initiator = Initiator(SetView.from_items([]), seed=SEED)
        with pytest.raises(SetrecError, match="nothing was asked"):
            initiator.step(message())
        initiator.initiate()
        assert initiator.step(message()).reply is None
        with pytest.raises(SetrecError, match="nothing was asked"):
            initiator.step(message())

    @given(
        data=st.binary(max_size=200) | st.binary(max_size=200).map(message),
        limit=st.sampled_from((0, 4096)),
    )
    def test_any_bytes_are_answered_or_refused(self, data: bytes, limit: int) -> None:
        view = SetView.from_items(some_items(100, first=0))
        initiator = Initiator(view, seed=SEED, frame_size_limit=limit)
        initiator.initiate()
        for step in (Responder(view, frame_size_limit=limit).step, initiator.step):
            with suppress(ProtocolError):
                step(data)

    @given(
        cut=st.floats(0, 1),
        flip=st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    )
    def test_a_damaged_message_is_answered_or_refused(self, cut: float, flip: tuple[float, int]) -> None:
        items = some_items(1_000, per_timestamp=3)
        responder = Responder(SetView.from_items(items[::2]))
        whole = Initiator(SetView.from_items(items), seed=SEED).initiate()
        flipped = bytearray(whole)
        flipped[int(flip[0] * len(whole))] ^= flip[1]
        for data in (whole[: int(cut * len(whole))], bytes(flipped)):
            with suppress(ProtocolError):
                responder.step(data)

    @given(
        st.lists(
            st.tuples(
                st.integers(1, 40),
                st.sampled_from((SKIP, FINGERPRINT + bytes(16), ID_LIST + b"\x00")),
            ),
            max_size=60,
        ),
        st.sampled_from((0, 4096)),
    )
    def test_a_reply_stays_within_its_stated_size(self, steps: list[tuple[int, bytes]], limit: int) -> None:
        view = SetView.from_items((i, sha256(b"%d" % i).digest()) for i in range(600))
        asked = message(*(bytes((delta, 0)) + mode for delta, mode in steps))
        initiator = Initiator(view, seed=SEED, frame_size_limit=limit)
        initiator.initiate()
        most = limit or 32 * len(view) + 90 * len(steps) + 1
        assert len(Responder(view, frame_size_limit=limit).step(asked)) <= most
        assert len(initiator.step(asked).reply or b"") <= most

    def test_memory_does_not_grow_with_the_number_of_ranges(self) -> None:
        responder = Responder(SetView.from_items(some_items(1_000)))
        skips = message(*([b"\x02\x00" + SKIP] * 100_000))
        tracemalloc.start()
        try:
            assert responder.step(skips) == message()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 100_000

    def test_a_peer_that_invents_ids_costs_what_it_sends(self) -> None:
        invented = os.urandom(32 * 10_000)
        initiator = Initiator(SetView.from_items([]), seed=SEED)
        initiator.initiate()
        answer = message(END + ID_LIST + b"\xce\x10" + invented)
        tracemalloc.start()
        try:
            step = initiator.step(answer)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(step.need) == 10_000
        assert peak < 15 * len(answer)
