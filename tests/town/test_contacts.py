"""Letters through people who meet: what the sessions make of contacts, and what the model says that they do."""

from __future__ import annotations

import gzip
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from outlast.testing import (
    Contact,
    Letter,
    contact_lines,
    letters_between,
    read_contacts,
    spread,
    spread_in_town,
    town_contacts,
)
from tests.bench.bench_town import run

DAY_S = 86_400


@pytest.mark.parametrize("seed", range(2))
def test_real_sessions_deliver_and_send_what_the_model_says_and_nothing_twice(seed: int) -> None:
    contacts = town_contacts(12, seed, days=2)
    letters = letters_between(12, seed, 2 * DAY_S, count=60)
    modelled = spread(contacts, letters)
    assert 0 < modelled.delivered < modelled.letters, "a town in which all or nothing arrives shows nothing"
    assert spread_in_town(contacts, letters, 12, seed) == modelled


def test_a_letter_goes_from_hand_to_hand_in_the_order_of_time_alone() -> None:
    letter = Letter(0, 0, 2, DAY_S)
    assert spread([Contact(10, 0, 1), Contact(20, 1, 2)], [letter]) == (1, 1, 2)
    assert spread([Contact(10, 1, 2), Contact(20, 0, 1)], [letter]) == (1, 0, 1)


def test_who_holds_a_letter_is_sent_it_no_second_time() -> None:
    contacts = [Contact(10, 0, 1), Contact(20, 0, 1), Contact(30, 0, 2), Contact(40, 1, 2)]
    assert spread(contacts, [Letter(0, 0, 2, DAY_S)]) == (1, 1, 2)


def test_of_letters_to_everybody_as_many_arrive_as_copies_of_one_are_made() -> None:
    """Who spared a copy would spare a receiver: carriers know nobody's, and send nothing that is held already."""
    contacts = town_contacts(9, 0, days=1)
    letters = [Letter(0, writer, receiver, 12 * 3600) for writer, receiver in permutations(range(9), 2)]
    for outcome in (spread(contacts, letters), spread_in_town(contacts, letters, 9)):
        assert 0 < outcome.delivered < outcome.letters
        assert outcome.transmissions == outcome.delivered * 8


def test_at_its_hour_a_letter_ends_everywhere() -> None:
    contacts = [Contact(3599, 0, 1), Contact(3600, 1, 2)]
    for town in (spread, lambda *given: spread_in_town(*given, 3)):
        assert town(contacts, [Letter(0, 0, 2, 3600)]) == (1, 0, 1)
        assert town(contacts, [Letter(0, 0, 2, 7200)]) == (1, 1, 2)


def test_a_town_is_the_same_for_the_same_seed_and_another_one_for_another() -> None:
    assert town_contacts(36, 1) == town_contacts(36, 1) != town_contacts(36, 2)
    assert letters_between(36, 1, 5 * DAY_S) == letters_between(36, 1, 5 * DAY_S) != letters_between(36, 2, 5 * DAY_S)


@pytest.mark.parametrize("people", [36, 500])
def test_in_a_town_everybody_meets_somebody_and_nobody_at_night_or_themselves(people: int) -> None:
    contacts = town_contacts(people, 1)
    assert {one for contact in contacts for one in contact[1:]} == set(range(people))
    assert all(contact.a < contact.b and 6 <= contact.at_s % DAY_S // 3600 < 23 for contact in contacts)
    assert all(one.at_s <= other.at_s for one, other in pairwise(contacts))


def test_lives_of_letters_end_at_full_hours_before_the_town_does() -> None:
    for letter in letters_between(36, 1, 5 * DAY_S):
        assert letter.writer != letter.receiver
        assert letter.ends_s % 3600 == 0
        assert 23 * 3600 < letter.ends_s - letter.at_s <= DAY_S
        assert letter.ends_s <= 5 * DAY_S


def test_any_list_of_contacts_is_read_whatever_people_are_called_and_wherever_it_starts() -> None:
    lines = ["# t i j", "1130493332 7 12", "", "1130493330,12,9,extra", "1130493340 7 7", "1130493350.5\t9\t7"]
    assert read_contacts(lines) == ([(0, 0, 1), (2, 0, 2), (20, 1, 2)], 3)


def test_a_list_of_contacts_is_read_plain_or_packed_with_line_ends_and_names_of_any_kind() -> None:
    data = "\ufeff31220\t1558\t1567\t3B\t3B\r\n31220 1558 ".encode() + "Мама\r\n".encode("koi8-r")
    for file in (data, gzip.compress(data)):
        assert read_contacts(contact_lines(file)) == ([(0, 0, 1), (0, 0, 2)], 3)
    for cut in range(2, len(gzip.compress(data))):
        with pytest.raises(ValueError, match="damaged or cut short"):
            contact_lines(gzip.compress(data)[:cut])


def test_connections_as_the_one_simulator_writes_them_are_contacts_where_they_begin() -> None:
    lines = ["3\tCONN\t2\t9\tup", "185.5\tCONN\t9\t4\tup", "190\tCONN\t2\t9\tdown", "200 CONN 9 4 DOWN"]
    assert read_contacts(lines) == ([(0, 0, 1), (182, 1, 2)], 3)
    with pytest.raises(ValueError, match="line 2"):
        read_contacts(["1 CONN 2 3 up", "2 CONN 2 3"])


@pytest.mark.parametrize(
    "line", ["1 2", "morning 1 2", "t i j", "nan 1 2", "inf 1 2", "1e300 1 2", "1563000000000 1 2"]
)
def test_what_is_no_list_of_contacts_in_seconds_is_named_by_its_line(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is not of the form: t i j, with t in seconds"):
        read_contacts(["1 2 3", line])


def test_the_bench_says_how_many_meet_how_often_and_how_long_so_that_columns_taken_for_others_are_seen(
    tmp_path: Path,
) -> None:
    file = tmp_path / "met.txt"
    file.write_text("0 1 2\n43200 2 3\n216000 1 3\n")
    (row,) = run(None, str(file))
    assert row["work"] == "letters through 3 people of met.txt, 3 contacts in 2.5 days"
