"""Heartbeats as a signal: stories of who is heard when, and what this node says of the country by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from outlast.kernel import DAY_MS, Entry, Put
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import loose_entry
from outlast.rooms.watch import service, signals, view
from outlast.rooms.watch.entries import HEARTBEAT, Heartbeat
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, SOURCE
from outlast.rooms.watch.view import Cut, StoredSeries
from tests.unit.rooms.watch.test_service import Clock, House, houses

HOUR_S = 3600
BEGIN_S = 1_800_000_000 // HOUR_S * HOUR_S
DAYS = 12
CUT_H = 10 * 24
"""The hour in which something happens in these stories."""

Row = tuple[str, int, str, int]


def beats(speaks: Callable[[int, int], bool], country: str, people: int = 12, networks: int = 4) -> list[Row]:
    """Twelve people in four networks of a country, each heard in the hours in which they speak."""
    return [
        (f"{country} {one}", BEGIN_S + hour * HOUR_S, country, one % networks + 1)
        for hour in range(DAYS * 24)
        for one in range(people)
        if speaks(one, hour)
    ]


def always(_one: int, _hour: int) -> bool:
    return True


def until_the_cut(_one: int, hour: int) -> bool:
    return hour < CUT_H


def series_of(
    rows: Iterable[Row],
    away: Iterable[tuple[int, int]] = (),
    before: Iterable[StoredSeries] = (),
    span: range | None = None,
) -> list[StoredSeries]:
    """Belarus's series out of these rows."""
    hours = span or range(DAYS * 24)
    begin_s, end_s = BEGIN_S + hours[0] * HOUR_S, BEGIN_S + (hours[-1] + 1) * HOUR_S
    return signals.heartbeats_of(list(rows), "BY", begin_s, end_s, list(away), list(before), end_s * 1000)


def found(rows: Iterable[Row], away: Iterable[tuple[int, int]] = ()) -> list[Cut]:
    """The outages of Belarus that they show at the end of the story."""
    return signals.look_through(series_of(rows, away), "BY", BEGIN_S + DAYS * 24 * HOUR_S)[0]


def test_where_everybody_goes_on_nothing_is_raised() -> None:
    assert found([*beats(always, "BY"), *beats(always, "PL")]) == []


def test_a_country_whose_heartbeats_stop_while_foreign_ones_go_on_is_raised() -> None:
    [cut] = found([*beats(until_the_cut, "BY"), *beats(always, "PL")])
    assert (cut.start_s, cut.end_s, cut.state) == (BEGIN_S + CUT_H * HOUR_S, None, "degraded")
    assert any(english(line).startswith(DOMESTIC) for line in cut.evidence)


def test_foreign_heartbeats_that_stop_while_domestic_ones_go_on_are_a_whitelist() -> None:
    [cut] = found([*beats(always, "BY"), *beats(until_the_cut, "PL")])
    assert (cut.start_s, cut.end_s, cut.state) == (BEGIN_S + CUT_H * HOUR_S, None, "whitelist")


def test_an_outage_ends_when_they_come_back() -> None:
    def speaks(_one: int, hour: int) -> bool:
        return not CUT_H <= hour < CUT_H + 10

    [cut] = found([*beats(speaks, "BY"), *beats(always, "PL")])
    assert cut.end_s == BEGIN_S + (CUT_H + 10) * HOUR_S


def test_a_laptop_that_slept_raises_nothing() -> None:
    def heard(_one: int, hour: int) -> bool:
        return hour % 24 < 16  # asleep for eight hours of each day

    def also_long(one: int, hour: int) -> bool:
        return heard(one, hour) and not CUT_H <= hour < CUT_H + 30

    nights = [(BEGIN_S + (day * 24 + 16) * HOUR_S, BEGIN_S + (day + 1) * 24 * HOUR_S) for day in range(DAYS)]
    away = [*nights, (BEGIN_S + CUT_H * HOUR_S - 60, BEGIN_S + (CUT_H + 30) * HOUR_S + 60)]
    # Nothing came from home in these hours, but a little from abroad: a sleeper must not call that an outage.
    stories = [*beats(also_long, "BY"), *beats(lambda one, hour: also_long(one, hour) or one < 4, "PL")]
    assert found(stories, away) == []
    assert found(stories) != [], "that it slept is what keeps it silent"
    for one in series_of(stories, away):
        values = dict(one.points)
        assert values[BEGIN_S + (CUT_H + 5) * HOUR_S] is None
        assert values[BEGIN_S + (CUT_H - 20) * HOUR_S] is not None


def test_a_laptop_that_is_cut_off_itself_within_an_outage_calls_it_no_end_and_no_worse() -> None:
    rows = [*beats(until_the_cut, "BY"), *beats(lambda _one, hour: hour < CUT_H + 12, "PL")]
    [cut] = found(rows, [(BEGIN_S + (CUT_H + 12) * HOUR_S, BEGIN_S + DAYS * 24 * HOUR_S)])
    assert (cut.end_s, cut.state) == (None, "degraded")


def test_when_all_fall_at_once_the_node_itself_may_be_the_one_that_is_cut_off() -> None:
    assert found([*beats(until_the_cut, "BY"), *beats(until_the_cut, "PL")]) == []


def test_a_provider_s_own_outage_is_not_the_country_s() -> None:
    rows = beats(lambda one, hour: hour < CUT_H or one % 4 != 0, "BY")
    crowd = [(f"crowd {one}", at_s, "BY", 1) for _, at_s, _, asn in rows if asn == 2 for one in range(9)]
    before = [row for row in crowd if row[1] < BEGIN_S + CUT_H * HOUR_S]
    assert found([*rows, *before, *beats(always, "PL")]) == []


def test_of_too_few_networks_nothing_is_said() -> None:
    rows = [*beats(until_the_cut, "BY", networks=2), *beats(always, "PL", networks=2)]
    assert series_of(rows) == []


@given(st.lists(st.integers(1, DAYS * 24 - 1), max_size=5), st.integers(0, 11))
@tries(max_examples=10, deadline=None)
def test_hours_taken_in_piece_by_piece_are_the_same(cuts: list[int], quiet: int) -> None:
    rows = [*beats(lambda one, hour: one != quiet or hour < CUT_H, "BY"), *beats(always, "PL")]
    away = [(BEGIN_S + 50 * HOUR_S, BEGIN_S + 60 * HOUR_S)]
    edges = [0, *sorted(set(cuts)), DAYS * 24]
    kept: list[StoredSeries] = []
    for begin, end in pairwise(edges):
        heard = [row for row in rows if row[1] < BEGIN_S + end * HOUR_S]
        kept = series_of(heard, away, kept, range(begin, end))
    assert [one.points for one in kept] == [one.points for one in series_of(rows, away)]


def test_what_comes_after_an_hour_was_settled_changes_nothing() -> None:
    rows = [*beats(until_the_cut, "BY"), *beats(always, "PL")]
    early = series_of([row for row in rows if row[1] < BEGIN_S + CUT_H * HOUR_S], before=(), span=range(CUT_H))
    late = [row for row in beats(always, "BY", people=200, networks=50) if row[1] < BEGIN_S + CUT_H * HOUR_S]
    whole = series_of([*rows, *late], before=early, span=range(CUT_H, DAYS * 24))
    assert whole[0].points[:CUT_H] == early[0].points


@pytest.mark.parametrize(
    ("able", "now", "expected"), [(None, 50, (0, 50)), (50, 60, None), (50, 5000, (50, 5000)), (50, 40, None)]
)
def test_a_node_that_looked_away_for_a_moment_was_not_away(
    able: int | None, now: int, expected: tuple[int, int] | None
) -> None:
    assert signals.gone_away(able, now) == expected


def test_an_alarm_that_lasts_in_an_old_file_does_not_last_because_heartbeats_come() -> None:
    levels = [100.0] * 200 + [3.0] * 20
    points = tuple((BEGIN_S - 90 * 86_400 + at * HOUR_S, level) for at, level in enumerate(levels))
    old = StoredSeries("BY", "file", "ping-slash24", HOUR_S, 0, b"", points)
    now_s = BEGIN_S + DAYS * 24 * HOUR_S
    rows = [*beats(always, "BY"), *beats(always, "PL")]
    [cut], _judged = signals.look_through([old, *series_of(rows)], "BY", now_s)
    faded = view.faded(cut, cut.at_s, now_s)
    assert (faded.end_s, faded.fades_out) == (points[-1][0], True)


async def test_a_node_counts_the_contacts_it_hears_while_it_has_a_neighbour(tmp_path: Path) -> None:
    clock = Clock(BEGIN_S * 1000)
    async with houses(tmp_path, clock, "ann", "ben", "eve", "dan") as [ann, ben, *_]:
        channel = await service.found_channel(ann.node, ann.person, "Watch")
        await service.set_place(ann.node, ann.person, "BY", 1)
        # Three contacts speak under a key each, one of them under fifty more, and a stranger; and ann herself.
        keys = [SigningKey.from_seed(bytes([number + 1]) * 32) for number in range(54)]
        peers = [one.identity for one in ann.person.contacts()]
        peers += [peers[0]] * 50
        await put(
            ann,
            [
                Put(view.VOUCHED, {"key": keys[at].public, "peer": peer, "until_day": 2**31})
                for at, peer in enumerate(peers)
            ],
        )

        def say(number: int, hour: int) -> Entry:
            return loose_entry(
                keys[number], space=channel.space, kind=HEARTBEAT.name,
                payload=HEARTBEAT.encode(Heartbeat("BY", 10 + number)), ts_ms=(BEGIN_S + hour * HOUR_S) * 1000,
                life_ms=20 * DAY_MS, priority=HEARTBEAT.priority,
            )  # fmt: skip

        await ann.node.ingest(
            [*(say(number, 0) for number in range(54)), *(say(number, 1) for number in (0, 1, 3, 53))]
        )
        await service.publish(ann.node, ann.person, ["heartbeats"])
        for _ in range(2):  # what was said at the second look shows that the first one is over
            clock.ms += 4 * HOUR_S * 1000
            ann.node.touch()
            await ann.until(lambda: view.said(ann.person).get("beat") == clock.ms)
        assert service.ABLE not in view.said(ann.person), "without a neighbour nobody is heard"
        # It has heard since the first hour, and settled nothing.
        await put(ann, [Put(view.AWAY, {"begin_s": 0, "end_s": BEGIN_S}), said(service.ABLE, clock.ms)])
        await put(ann, [said(service.SETTLED, BEGIN_S * 1000)])
        port = await ben.node.listen("127.0.0.1", 0)
        await ann.node.peer_add(ben.node.transport_id, "127.0.0.1", port)
        await ann.until(lambda: view.said(ann.person)[service.SETTLED] == (BEGIN_S + 2 * HOUR_S) * 1000)
        [series] = view.series(ann.person, "BY")
        assert series.signal == DOMESTIC
        assert [t_s for t_s, _ in series.points] == [BEGIN_S + hour * HOUR_S for hour in range(2)]
        assert [value for _, value in series.points] == [1.0, 2 / 3]
        assert service.three_lamps(ann.node, ann.person).country.code == "no-signals", "that makes nobody well"
        clock.ms += HOUR_S * 1000  # as a laptop that slept
        ann.node.touch()
        await ann.until(lambda: len(view.away(ann.person)) == 2)
        assert view.away(ann.person)[1] == (clock.ms // 1000 - HOUR_S, clock.ms // 1000)


async def test_a_clock_that_was_years_ahead_for_a_while_stops_no_counting_of_heartbeats(tmp_path: Path) -> None:
    clock = Clock(BEGIN_S * 1000)
    ahead_s = BEGIN_S + 24 * 365 * 86_400
    wrong = StoredSeries("BY", SOURCE, DOMESTIC, HOUR_S, 0, b"", ((BEGIN_S - 24 * HOUR_S, 1.0), (ahead_s, None)))
    async with houses(tmp_path, clock, "ann", "ben") as [ann, ben]:
        await service.set_place(ann.node, ann.person, "BY", 1)
        await put(ann, [Put(view.AWAY, {"begin_s": BEGIN_S, "end_s": ahead_s}), view.series_row(wrong, judged=False)])
        await put(ann, [said(service.ABLE, ahead_s * 1000), said(service.SETTLED, ahead_s * 1000)])
        port = await ben.node.listen("127.0.0.1", 0)
        await ann.node.peer_add(ben.node.transport_id, "127.0.0.1", port)
        await ann.until(lambda: view.said(ann.person)[service.ABLE] == clock.ms)
        assert view.away(ann.person) == [(0, BEGIN_S)], "what the wrong clock told is not known"
        for _ in range(44):  # awake all the time, as the node looks each minute
            clock.ms += 600_000
            ann.node.touch()
            await ann.until(lambda: view.said(ann.person)[service.ABLE] == clock.ms)
        end_s = signals.final_s(clock.ms // 1000)
        await ann.until(lambda: view.said(ann.person)[service.SETTLED] == end_s * 1000)
        [series] = view.series(ann.person, "BY")
        times = [t_s for t_s, _ in series.points]
        assert times == sorted(times)
        assert times[-1] < clock.ms // 1000


def said(what: str, at_ms: int) -> Put:
    """The row by which a node remembers when something was."""
    return Put(view.SAID, {"what": what, "at_ms": at_ms})


async def put(house: House, rows: list[Put]) -> None:
    """Rows come into somebody's vault."""
    await house.node.write(lambda: house.person.vault.transaction(rows, "watch"))
    house.node.touch()
