"""Towns: places that meet by chance over bad links, and end up with the same entries."""

from __future__ import annotations

from random import Random

import pytest

from outlast.kernel.wire import Type
from outlast.testing import Meeting, MemoryLink, Town


def everywhere_the_same(town: Town) -> bool:
    first, *others = town.places
    return all(
        place.entries.keys() == first.entries.keys()
        and all(entry.payload is not None for entry in place.entries.values())
        for place in [first, *others]
    )


@pytest.mark.parametrize("seed", range(5))
def test_places_that_meet_by_chance_over_links_that_die_agree_in_the_end(seed: int) -> None:
    town = Town(6, seed)
    random = Random(seed)
    space = town.places[0].found("news")
    town.follow(space)
    for hour in range(40):
        town.clock.advance(3_600_000)
        writer = random.choice(town.places)
        for number in range(random.randrange(6)):
            text = "long " * 500 if random.random() < 0.2 else "short"
            writer.post(space, f"{hour}.{number} {text}", life_days=random.randrange(20, 30))
        a, b = random.sample(range(6), 2)
        link = MemoryLink(
            town.clock,
            delay_ms=random.choice((0, 20, 900)),
            loss=random.choice((0, 0.02, 0.2)),
            seed=hour,
            cut_after=random.choice((None, None, random.randrange(30))),
        )
        town.meet(a, b, link)
    assert not everywhere_the_same(town)  # chance alone was not enough
    for _ in range(2):
        for index in range(5):
            town.meet(index, index + 1)
            town.meet(5 - index, 4 - index)
    assert everywhere_the_same(town)
    assert not any(place.refused for place in town.places)


def test_news_crosses_a_street_of_open_links_and_each_place_is_sent_it_once() -> None:
    town = Town(5)
    space = town.places[0].found("news")
    town.follow(space)
    meetings = [town.meeting(index, index + 1) for index in range(4)]
    settle(meetings)
    before = [place.received for place in town.places]
    notes = [town.places[2].post(space, f"note {number}") for number in range(10)]
    settle(meetings)
    for place in town.places:
        assert {note.id for note in notes} <= place.entries.keys()
    received = [place.received - count for place, count in zip(town.places, before, strict=True)]
    assert received == [10, 10, 0, 10, 10]


def test_in_a_ring_news_comes_from_both_sides_and_goes_round_no_second_time() -> None:
    town = Town(4)
    space = town.places[0].found("news")
    town.follow(space)
    meetings = [town.meeting(index, (index + 1) % 4) for index in range(4)]
    settle(meetings)
    before = [place.received for place in town.places]
    note = town.places[0].post(space, "round and round")
    settle(meetings)
    assert all(note.id in place.entries for place in town.places)
    received = sum(place.received - count for place, count in zip(town.places, before, strict=True))
    assert received <= 5  # three places needed it; the two waves meet on one link at most in both directions


def test_a_place_that_follows_less_carries_what_it_follows_and_nothing_else() -> None:
    town = Town(3)
    a, b, c = town.places
    public, quiet = a.found("public"), a.found("quiet")
    town.follow(public)
    town.follow(quiet, [0, 2])
    a.post(public, "for all")
    secret = a.post(quiet, "for two")
    town.meet(0, 1)
    meeting = town.meet(1, 2)
    assert secret.id not in b.entries
    assert secret.id not in c.entries
    assert not any(quiet in data or secret.id in data for _, data in meeting.log)
    assert len(c.entries) == 2
    town.meet(2, 0)
    assert secret.id in c.entries


def test_a_wrong_clock_in_one_place_deletes_nothing_elsewhere() -> None:
    town = Town(3)
    a, b, c = town.places
    space = a.found("news")
    town.follow(space)
    for number in range(20):
        a.post(space, f"note {number}", life_days=3)
    town.meet(0, 1)
    b.prune(town.clock.today + 400)
    assert len(b.entries) == 1
    town.meet(1, 0)
    town.meet(1, 2)
    assert len(a.entries) == 21
    town.meet(0, 2)
    assert len(c.entries) == 21


def test_after_their_day_entries_leave_all_places_and_none_brings_them_back() -> None:
    town = Town(3)
    a = town.places[0]
    space = a.found("news")
    town.follow(space)
    for number in range(20):
        a.post(space, f"note {number}", life_days=1 + number % 3)
    town.meet(0, 1)
    town.clock.advance(days=3)
    a.prune(town.clock.today)
    left = set(a.entries)
    meeting = town.meet(1, 0)
    assert set(a.entries) == left
    assert not any(data[0] == Type.ENTRIES for _, data in meeting.log)
    town.meet(1, 2)
    for place in town.places:
        place.prune(town.clock.today)
        assert set(place.entries) == left


def settle(meetings: list[Meeting]) -> None:
    """Let all open sessions go on until nothing happens."""
    while any([meeting.turn() for meeting in meetings]):
        pass
