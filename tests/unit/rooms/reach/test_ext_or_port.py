"""The Extended ORPort by the text of ext-orport-spec; beside the real tor in tests/rooms/reach/test_tor_network.py."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import Target
from outlast.rooms.reach.proto.ext_or_port import (
    COOKIE_HEADER,
    ExtOrPortError,
    Introducer,
    Introduction,
    Receiver,
    make_cookie,
    read_cookie,
)

COOKIE, NONCE, THEIRS = bytes(range(32)), b"n" * 32, b"t" * 32
WHO = Introduction("outlast", Target("2001:db8::1", 5678))
OKAY, DENY, CONTROL = (bytes((0x10, code, 0, 0)) for code in range(3))
TOLD = b"\0\1\0\x12[2001:db8::1]:5678" + b"\0\2\0\7outlast" + b"\0\0\0\0"


def proof(side: bytes) -> bytes:
    return hmac.new(COOKIE, b"ExtORPort authentication " + side + b" hash" + NONCE + THEIRS, sha256).digest()


SERVER = b"\1\0" + proof(b"server-to-client") + THEIRS + b"\1" + OKAY
CLIENT = b"\1" + NONCE + proof(b"client-to-server") + TOLD


@given(st.lists(st.integers(1, 40), max_size=20), st.binary(max_size=9))
def test_however_torn_the_answers_come_the_introduction_is_made(sizes: list[int], rest: bytes) -> None:
    introducer = Introducer(COOKIE, WHO, NONCE)
    data, sent = SERVER + rest, b""
    for size in [*sizes, len(data)]:
        sent += introducer.take(data[:size])
        data = data[size:]
    assert sent == CLIENT
    assert introducer.done
    assert introducer.rest == rest


def test_other_ways_to_prove_oneself_and_unknown_replies_are_passed_over() -> None:
    introducer = Introducer(COOKIE, Introduction("outlast"), NONCE)
    assert introducer.take(b"\3\1\2\0") == b"\1" + NONCE
    assert introducer.take(SERVER[2:-4]).endswith(b"\0\2\0\7outlast\0\0\0\0")
    assert introducer.take(CONTROL[:3] + b"\3abc") == b""
    assert not introducer.done
    introducer.take(OKAY)
    assert introducer.done


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\2\3\0", "no way to prove"),
        (b"\0", "no way to prove"),
        (b"HTTP/1.1 400 " * 20, "no Extended ORPort"),
        (b"\1\0" + b"x" * 64, "does not know the cookie"),
        (SERVER[:-5] + b"\0", "did not accept"),
        (SERVER[:-4] + DENY, "takes nobody"),
        (SERVER[:-4] + CONTROL * 20, "no Extended ORPort"),
    ],
)
def test_who_is_not_the_tor_of_the_cookie_is_left(answer: bytes, why: str) -> None:
    with pytest.raises(ExtOrPortError, match=why):
        Introducer(COOKIE, WHO, NONCE).take(answer)


def test_the_cookie_stands_behind_its_header() -> None:
    assert read_cookie(COOKIE_HEADER + COOKIE) == COOKIE
    for wrong in (b"", COOKIE_HEADER, COOKIE_HEADER + COOKIE + b"x", b"?" * 32 + COOKIE):
        with pytest.raises(ExtOrPortError, match="still starting"):
            read_cookie(wrong)


def receive(data: bytes, sizes: list[int]) -> tuple[Receiver, bytes]:
    receiver = Receiver(COOKIE, THEIRS)
    sent = receiver.first()
    for size in [*sizes, len(data)]:
        sent += receiver.take(data[:size])
        data = data[size:]
    return receiver, sent


@given(st.lists(st.integers(1, 40), max_size=20))
def test_the_other_side_answers_as_tor_does(sizes: list[int]) -> None:
    receiver, sent = receive(CLIENT, sizes)
    assert sent == SERVER
    assert receiver.done
    assert receiver.transport == "outlast"


@given(st.lists(st.integers(1, 40), max_size=20))
def test_both_sides_come_to_an_end_with_each_other(sizes: list[int]) -> None:
    introducer, receiver = Introducer(COOKIE, WHO, NONCE), Receiver(COOKIE, THEIRS)
    there, back = b"", receiver.first()
    for size in [*sizes, *[9999] * 9]:
        there += introducer.take(back[:size])
        back = back[size:] + receiver.take(there[:size])
        there = there[size:]
    assert introducer.done
    assert receiver.done


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0", "not offered"),
        (b"\2" + NONCE, "not offered"),
        (b"GET / HTTP/1.1\r\n", "not offered"),
        (b"\1" + NONCE + b"x" * 32, "does not know the cookie"),
        (CLIENT + b"early", "before it was taken"),
        (CLIENT[:-4] + b"\0\7\0\0" * 20, "does not end"),
        (CLIENT[: 1 + 64] + b"\0\1\xff\xff", "too long"),
        (CLIENT[: 1 + 64] + b"\0\2\0\3../", "no name"),
    ],
)
def test_who_does_not_keep_to_it_is_not_heard(data: bytes, why: str) -> None:
    with pytest.raises(ExtOrPortError, match=why):
        Receiver(COOKIE, THEIRS).take(data)


def test_a_cookie_that_is_made_is_read() -> None:
    assert read_cookie(make_cookie(COOKIE)) == COOKIE
