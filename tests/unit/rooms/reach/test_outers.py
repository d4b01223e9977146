"""The policy of outer connections where a curtain freezes them after few bytes."""

from __future__ import annotations

from outlast.rooms.reach.proto.outers import HOP_BYTES, WELL_MIN, Open, Outers
from outlast.rooms.reach.proto.session import Ending


def opened(outers: Outers, now: float) -> list[Open]:
    found = [one for one in outers.plan(now, 1, {}) if isinstance(one, Open)]
    for one in found:
        outers.up(one.number)
    return found


def freeze(outers: Outers, now: float, carried: int) -> None:
    (first, *_) = opened(outers, now)
    outers.over(first.number, now + 2, carried, carried, Ending.FROZEN)


def do_well(outers: Outers) -> None:
    for _ in range(20 * WELL_MIN):
        for one in opened(outers, 103.0):
            outers.over(one.number, 103.0, one.budget_bytes, one.budget_bytes, Ending.DONE)


def test_a_bound_grows_while_outers_within_it_do_well_and_not_beyond_where_one_froze() -> None:
    outers = Outers(lambda: 0.5)
    freeze(outers, 100.0, 6000)
    assert outers.hop_bytes == 4500
    do_well(outers)
    assert outers.hop_bytes == HOP_BYTES
    freeze(outers, 104.0, 10_000)
    assert outers.hop_bytes == 7500
    do_well(outers)
    assert outers.hop_bytes == 7500


def test_what_another_session_found_out_bounds_the_first_outer() -> None:
    assert [one.budget_bytes for one in opened(Outers(lambda: 0.5, 100.0, 6000), 100.0)] == [6000] * 3
    assert [one.budget_bytes for one in opened(Outers(lambda: 0.5, 100.0), 100.0)] == [0]
