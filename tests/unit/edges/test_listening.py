"""Places for connections: who holds many leaves the others theirs."""

from __future__ import annotations

import socket

import pytest

from outlast.edges.listening import Places


def test_who_holds_many_places_leaves_the_others_theirs() -> None:
    places, lines = Places(8, 2), [socket.socket() for _ in range(12)]
    try:
        greedy = [places.take(line, "10.0.0.1") for line in lines[:6]]
        assert greedy == [True] * 4 + [False] * 2, "while half of them are free anybody gets one"
        assert [places.take(line, "10.0.0.2") for line in lines[6:9]] == [True, True, False]
        assert [places.take(line, "10.0.0.3") for line in lines[9:]] == [True, True, False], "all are taken"
        lines[0].close()
        assert places.take(lines[4], "10.0.0.4"), "what is closed is free again"
    finally:
        for line in lines:
            line.close()


def test_two_hundred_phones_behind_one_router_have_their_places() -> None:
    places = Places.for_phones()
    if places.most < 1280:
        pytest.skip("this system lets a process have too few files")
    lines = [socket.socket() for _ in range(600)]  # of each a stream, what it reads by and what it writes by
    try:
        assert all(places.take(line, "192.168.1.1") for line in lines)
        assert places.take(socket.socket(), "192.168.1.2")
    finally:
        for line in lines:
            line.close()
