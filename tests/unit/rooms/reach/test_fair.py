"""What is shared is never all somebody's, and comes back to whoever has little."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.fair import Fair

WHOSE = st.binary(max_size=1)


def takes_all(fair: Fair, whose: bytes | None) -> int:
    taken = 0
    while fair.take(whose):
        taken += 1
    return taken


def test_one_alone_has_half_and_the_next_a_part_of_what_is_left() -> None:
    fair = Fair(32)
    assert [takes_all(fair, bytes((one,))) for one in range(8)] == [16, 8, 4, 2, 1, 1, 0, 0]
    assert fair.taken == 32


def test_who_has_none_gets_a_spare_one() -> None:
    fair = Fair(8, 3)
    assert [takes_all(fair, bytes((one,))) for one in range(9)] == [4, 2, 1, 1, 1, 1, 1, 0, 0]
    assert takes_all(fair, None) == 0
    fair.give(bytes((0,)))
    assert not fair.take(bytes((0,)))
    assert fair.take(bytes((7,)))


def test_what_comes_free_is_for_who_has_less() -> None:
    fair = Fair(8)
    assert takes_all(fair, b"greedy") == 4
    assert takes_all(fair, b"other") == 2
    fair.give(b"greedy")
    assert not fair.take(b"greedy")
    assert fair.take(b"other")


def test_who_has_nobody_to_share_with_has_all() -> None:
    assert takes_all(Fair(5), None) == 5


@given(st.integers(0, 40), st.integers(0, 5), st.lists(st.tuples(WHOSE, st.booleans()), max_size=200))
def test_there_are_never_more_than_there_are_and_all_that_is_given_back_is_there_again(
    most: int, spare: int, wishes: list[tuple[bytes, bool]]
) -> None:
    fair, own = Fair(most, spare), Counter[bytes]()
    for whose, wants in wishes:
        if wants:
            left = most - fair.taken
            right = own[whose] < left or (not own[whose] and left + spare > 0)
            assert fair.take(whose) is right
            own[whose] += right
        elif own[whose]:
            fair.give(whose)
            own[whose] -= 1
        assert fair.taken == own.total() <= most + spare
    for whose in own.elements():
        fair.give(whose)
    assert takes_all(fair, None) == most
