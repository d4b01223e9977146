"""Doors, sessions, invitations and tries as plain machines: time is a number here."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.doors import IDLE_MS, JOIN_MS, LIFE_MS, Door, DoorKind, Invitations, Sessions, Tries, Turns, same

NOW = 1_800_000_000_000


def test_the_names_of_a_door_follow_the_addresses() -> None:
    addresses = ["192.168.1.5"]
    door = Door("lan", 8484, lambda: addresses)
    assert door.names() == ["192.168.1.5:8484"]
    addresses[:] = ["10.42.0.1", "fd00::1"]
    assert door.names() == ["10.42.0.1:8484", "[fd00::1]:8484"]
    assert Door("localhost", 80, lambda: ["127.0.0.1"]).names() == [
        "localhost:80",
        "127.0.0.1:80",
        "localhost",
        "127.0.0.1",
    ]


@given(st.lists(st.integers(0, IDLE_MS["lan"] * 2), max_size=20))
def test_a_session_lives_while_it_is_visited_and_never_beyond_its_end(pauses: list[int]) -> None:
    sessions = Sessions()
    sessions.open("secret", "lan", "ab", "", NOW)
    now = NOW
    for pause in pauses:
        now += pause
        if pause > IDLE_MS["lan"] or now - NOW > LIFE_MS["lan"]:
            assert sessions.find("secret", "lan", now) is None
            assert sessions.find("secret", "lan", NOW) is None
            return
        assert sessions.find("secret", "lan", now) is not None


def test_a_session_is_found_by_its_secret_at_its_door() -> None:
    sessions = Sessions()
    sessions.open("secret", "lan", "ab", "", NOW)
    other: DoorKind = "localhost"
    assert sessions.find("secret", other, NOW) is None
    assert sessions.find("Secret", "lan", NOW) is None
    assert sessions.find("", "lan", NOW) is None
    assert sessions.find("\udcff", "lan", NOW) is None


def test_closing_a_session_tells_its_streams() -> None:
    sessions = Sessions()
    session = sessions.open("secret", "lan", "ab", "", NOW)
    told: list[int] = []
    session.watchers.add(lambda: told.append(1))
    sessions.close_streams()
    assert sessions.find("secret", "lan", NOW) is session
    sessions.close(session)
    assert told == [1, 1]


def test_the_form_token_differs_for_each_session_and_is_not_its_secret() -> None:
    sessions = Sessions()
    tokens = {sessions.open(secret, "lan", "", "", NOW).csrf for secret in ("a", "b", "c")}
    assert len(tokens) == 3
    assert all(len(token) == 43 for token in tokens)
    assert not tokens & {"a", "b", "c"}


def test_an_invitation_is_over_after_five_minutes_or_when_the_clock_was_turned_back() -> None:
    secrets = (f"{n:024}{n:016}" for n in count())
    invitations = Invitations(lambda: next(secrets))
    made = invitations.make("ab", NOW)
    assert invitations.find(made.token, NOW + JOIN_MS) is made
    assert invitations.find(made.token, NOW + JOIN_MS + 1) is None
    assert invitations.find(made.token, NOW - 1) is None
    newer = invitations.make("ab", NOW)
    assert invitations.find(made.token, NOW) is None
    invitations.drop(newer)
    assert invitations.of("ab", NOW) is None


def test_a_phone_that_waits_too_long_is_out() -> None:
    sessions = Sessions()
    session = sessions.open("secret", "lan", "ab", "", NOW)
    session.waiting_code = "123 456"
    assert sessions.find("secret", "lan", NOW + JOIN_MS) is session
    assert sessions.find("secret", "lan", NOW + JOIN_MS + 1) is None


@given(st.integers(1, 10), st.integers(1, 100_000), st.lists(st.integers(0, 50_000), max_size=60))
def test_tries_never_exceed_their_rate(limit: int, every_ms: int, pauses: list[int]) -> None:
    tries = Tries(limit, every_ms)
    now, allowed = NOW, 0
    for pause in pauses:
        now += pause
        wait_s = tries.take("x", now)
        allowed += wait_s == 0
        assert allowed <= limit + (now - NOW) // every_ms
        if wait_s:
            assert tries.take("y", now) == 0
            tries.forgive("y")
    assert tries.take("x", now + limit * every_ms) == 0


def test_the_wait_that_is_told_is_long_enough() -> None:
    tries = Tries(2, 15_000)
    assert [tries.take("x", NOW) for _ in range(3)] == [0, 0, 16]
    assert tries.take("x", NOW + 16_000) == 0


def test_nothing_equals_an_empty_secret() -> None:
    assert same("a", "a")
    assert not same("", "")
    assert not same("a", "b")
    assert not same("é", "e")


def test_one_page_looks_at_once_and_many_take_turns_that_leave_half_of_the_time_to_others() -> None:
    turns = Turns()
    assert turns.take(100.0) == 0
    for _ in range(100):
        turns.took(0.01)
    assert turns.take(200.0) == 0
    waits_s = [turns.take(200.0) for _ in range(200)]
    assert waits_s == pytest.approx([0.02 * place for place in range(1, 201)], rel=0.01)
    assert turns.take(300.0) == 0, "a turn that is past is nobody's"


def test_however_quickly_they_look_there_are_at_most_a_hundred_in_a_second() -> None:
    turns = Turns()
    waits_s = [turns.take(100.0) for _ in range(200)]
    assert waits_s == pytest.approx([place / 100 for place in range(200)])
