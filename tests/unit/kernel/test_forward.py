"""Who is offered what, in which order, and how a day's bytes are shared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.forward import (
    METERED_DAY_BYTES,
    SLOW_BITS_PER_S,
    Choice,
    Offer,
    Tier,
    carriage,
    in_turn,
    offered,
    rank,
    share_left,
    tier_of,
)
from outlast.testing import Town

A, B, C, D = (bytes([i]) * 32 for i in range(4))


def notes(count: int = 1, *, priority: int = 2) -> tuple[bytes, list[Entry]]:
    """A space and notes in it, a second apart."""
    place = Town(1).places[0]
    space = place.found("news")
    written = []
    for number in range(count):
        place.clock.advance(1000)
        written.append(place.post(space, f"note {number}", priority=priority))
    return space, written


def test_the_tier_is_the_nearest_that_fits() -> None:
    _, (note,) = notes()
    author = note.header.author
    assert tier_of(note, {author}, {author}) is Tier.OWN
    assert tier_of(note, set(), {author}) is Tier.CONTACT
    assert tier_of(note, set(), set()) is Tier.FOLLOWED


def test_alarms_first_then_the_nearest_then_the_newest() -> None:
    _, (old, new) = notes(2)
    _, (alarm,) = notes(1, priority=0)
    order = sorted(
        [
            (rank(new, Tier.STRANGER), 3),
            (rank(old, Tier.OWN), 1),
            (rank(new, Tier.OWN), 0.5),
            (rank(alarm, Tier.STRANGER), 0),
        ]
    )
    assert [place for _, place in order] == [0, 0.5, 1, 3]


def test_nothing_is_offered_to_whom_it_came_from_nor_out_of_its_space_nor_after_its_time() -> None:
    space, (note,) = notes()
    day = note.header.expires_day
    offers = [Offer(note, source=source) for source in (None, A, B)]
    assert [offer.source for offer in offered(offers, A, {space}, day)] == [None, B]
    assert offered(offers, A, set(), day) == []
    assert offered(offers, A, {space}, day + 1) == []
    assert day > note.header.ts_ms // DAY_MS


def test_what_never_expires_is_always_offered() -> None:
    place = Town(1).places[0]
    genesis = place.entries[place.found("news")]
    assert len(offered([Offer(genesis)], A, {genesis.id}, 10**6)) == 1


def test_strangers_together_have_what_one_paired_neighbour_has() -> None:
    paired = {A, B}
    spent = {A: 100, C: 30, D: 50}
    assert share_left(A, paired, spent, 900) == 200
    assert share_left(B, paired, spent, 900) == 300
    assert share_left(C, paired, spent, 900) == share_left(D, paired, spent, 900) == 220


@given(
    st.dictionaries(st.binary(min_size=1, max_size=1), st.integers(0, 5000)),
    st.sets(st.binary(min_size=1, max_size=1), max_size=5),
    st.integers(0, 10_000),
)
def test_nobody_can_use_up_the_share_of_a_paired_neighbour(
    spent: dict[bytes, int], paired: set[bytes], day_bytes: int
) -> None:
    for neighbour in paired:
        others = {name: 10**9 for name in spent.keys() - {neighbour}}
        mine = {name: used for name, used in spent.items() if name == neighbour}
        assert share_left(neighbour, paired, {**others, **mine}, day_bytes) == share_left(
            neighbour, paired, mine, day_bytes
        )
    total = sum(share_left(name, paired, {}, day_bytes) for name in [*paired, b"stranger"])
    assert total <= day_bytes


def test_a_slow_link_is_offered_what_is_urgent_alone_and_a_fast_one_everything() -> None:
    assert carriage(SLOW_BITS_PER_S - 1).priority_max == 1
    assert carriage(SLOW_BITS_PER_S).priority_max == 7
    assert carriage(SLOW_BITS_PER_S, half_duplex=True) == carriage(SLOW_BITS_PER_S // 2)
    assert carriage(10**9, metered=True).priority_max == 1
    assert carriage(10**9).day_bytes is None


def test_what_is_above_the_priority_of_a_link_is_not_offered_there() -> None:
    space, (note,) = notes(priority=2)
    assert offered([Offer(note)], A, {space}, 0, 1) == []
    assert len(offered([Offer(note)], A, {space}, 0, 2)) == 1


@given(st.integers(1, 10**10), st.booleans())
def test_whatever_a_link_carries_an_alarm_waits_for_seconds_and_a_day_has_its_bound(bits: int, metered: bool) -> None:
    bounds = carriage(bits, metered=metered)
    bytes_per_s = max(1, bits // 8)
    assert 2048 <= bounds.step_bytes <= bounds.turn_bytes <= 1 << 20
    if bytes_per_s >= 512:
        assert bounds.step_bytes <= 5 * bytes_per_s
    if metered:
        assert bounds.day_bytes is not None
        assert bounds.day_bytes <= METERED_DAY_BYTES
    if bits < SLOW_BITS_PER_S:
        assert bounds.day_bytes == min(bytes_per_s * 43_200, METERED_DAY_BYTES if metered else 2**62)
        # Twice the turns of both sides pass before somebody is said to stall.
        assert bounds.stall_ms / 1000 >= 120 + 4 * bounds.turn_bytes / bytes_per_s - 1


def test_who_brings_much_to_the_door_makes_others_wait_for_one_of_its_own() -> None:
    assert in_turn([A, A, A, B, None, C, A, B, None]) == [4, 8, 0, 3, 5, 1, 7, 2, 6]


@given(st.lists(st.sampled_from([None, A, B, C])))
def test_at_the_door_each_neighbour_keeps_its_own_order_and_is_behind_as_many_of_another_as_of_its_own(
    sources: list[bytes | None],
) -> None:
    order = in_turn(sources)
    assert sorted(order) == list(range(len(sources)))
    went: dict[bytes | None, int] = {}
    for position, place in enumerate(order):
        mine = sources[place]
        assert [one for one in order[:position] if sources[one] == mine] == sorted(
            one for one in order[:position] if sources[one] == mine
        )
        went[mine] = went.get(mine, 0) + 1
        if mine is not None:
            assert all(count <= went[mine] for other, count in went.items() if other is not None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=60), st.integers(0, 300))
def test_of_what_waits_the_best_goes_as_far_as_there_is_room(items: list[tuple[int, int]], room: int) -> None:
    choice = Choice(room)
    ranked = [((priority, 0, 0, bytes([place])), size) for place, (priority, size) in enumerate(items)]
    for one in ranked:
        choice.add(*one)
    fits, used = set(), 0
    for rank_of, size in sorted(ranked):
        used += size
        if used > room:
            break
        fits.add(rank_of[-1])
    assert choice.ids() == fits
    assert choice.left_out == len(items) - len(fits)


def test_a_choice_holds_little_more_than_there_is_room_for() -> None:
    choice = Choice(1000)
    for place in range(10_000):
        choice.add((1, 0, -place, place.to_bytes(4, "big")), 10)
        assert len(choice._best) <= 201
    assert choice.ids() == {place.to_bytes(4, "big") for place in range(9_900, 10_000)}
