"""The greetings of the mux: what a stranger may say first, and that nobody without the secret greets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto import mux
from outlast.rooms.reach.proto.mux import COUNTS_MAX, HEADER_BYTES, Hello, MuxError, Status, Type, Welcome

SECRET, OTHER, PROOF = b"s" * 32, b"o" * 32, b"p" * 32
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
COUNTS = st.lists(st.tuples(U32, U64), max_size=COUNTS_MAX).map(tuple)
HELLOS = st.builds(
    Hello,
    session=st.binary(min_size=16, max_size=16),
    new=st.booleans(),
    number=U32,
    nonce=st.binary(min_size=16, max_size=16),
    time_s=U64,
    budget_bytes=U32,
    counts=COUNTS,
)
WELCOMES = st.builds(Welcome, st.sampled_from(Status), U64, COUNTS)
HELLO = Hello(bytes(16), True, 1, bytes(16), 1_800_000_000, 0)
WELCOME = Welcome(Status.NEW, 1_800_000_000)
FULL = tuple((number, number) for number in range(COUNTS_MAX))


def said(frame: bytes, kind: int) -> bytes:
    """The data of a frame of the session as a whole."""
    assert mux.HEADER.unpack_from(frame) == (0, kind, len(frame) - HEADER_BYTES)
    return frame[HEADER_BYTES:]


def hello(what: Hello = HELLO, padding_bytes: int = 0) -> bytes:
    return said(mux.write_hello(what, SECRET, padding_bytes), Type.HELLO)


def welcome(what: Welcome = WELCOME, padding_bytes: int = 0) -> bytes:
    return said(mux.write_welcome(what, SECRET, PROOF, padding_bytes), Type.WELCOME)


def proved(body: bytes, side: bytes) -> bytes:
    """What somebody with the secret says, whatever form it has."""
    return body + mux._proof(SECRET, side, body)


@given(HELLOS, st.integers(0, 1000))
def test_a_hello_comes_back_however_much_is_added_that_says_nothing(what: Hello, padding_bytes: int) -> None:
    data = hello(what, padding_bytes)
    assert mux.read_hello(data)[0] == what
    assert len(data) == len(hello(what)) + padding_bytes
    assert mux.proves(data, SECRET)
    assert not mux.proves(data, OTHER)


@given(WELCOMES, st.integers(0, 1000))
def test_a_welcome_comes_back_to_who_said_that_hello(what: Welcome, padding_bytes: int) -> None:
    data = welcome(what, padding_bytes)
    assert mux.read_welcome(data, SECRET, PROOF) == what
    assert len(data) == len(welcome(what)) + padding_bytes
    for secret, proof in ((OTHER, PROOF), (SECRET, OTHER)):
        with pytest.raises(MuxError, match="secret"):
            mux.read_welcome(data, secret, proof)


def test_a_hello_is_no_welcome() -> None:
    data = hello(HELLO, 100)
    with pytest.raises(MuxError, match="secret"):
        mux.read_welcome(data, SECRET, PROOF)


@given(st.integers(0), st.integers(0, 7))
def test_no_bit_of_a_greeting_can_be_changed(at: int, bit: int) -> None:
    for data in (bytearray(hello()), bytearray(welcome())):
        data[at % len(data)] ^= 1 << bit
        assert not mux.proves(bytes(data), SECRET)
        with pytest.raises(MuxError):
            mux.read_welcome(bytes(data), SECRET, PROOF)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\1"]))
def test_any_bytes_are_a_hello_or_are_refused_with_one_kind_of_error(data: bytes, begin: bytes) -> None:
    try:
        mux.read_hello(begin + data)
    except MuxError:
        return
    assert len(begin + data) >= len(hello())


@given(st.binary(max_size=120))
def test_any_bytes_that_the_bridge_proves_are_a_welcome_or_are_refused_with_one_kind_of_error(body: bytes) -> None:
    data = proved(body, b"server" + PROOF)
    try:
        mux.read_welcome(data, SECRET, PROOF)
    except MuxError:
        return
    assert len(data) >= len(welcome())


def test_cut_short_it_is_no_greeting() -> None:
    whole, answer = hello(), welcome()
    for size in range(len(whole)):
        with pytest.raises(MuxError, match="too short"):
            mux.read_hello(whole[:size])
    body = answer[:-32]
    for size in range(len(body)):
        with pytest.raises(MuxError, match="too short"):
            mux.read_welcome(proved(body[:size], b"server" + PROOF), SECRET, PROOF)


def test_a_greeting_tells_of_no_more_than_it_holds_and_of_few() -> None:
    """The number of counts is a byte: what it promises beyond the data would be read out of the proof."""
    for full, read, side in (
        (hello(Hello(bytes(16), True, 1, bytes(16), 0, 0, FULL)), mux.read_hello, b"client"),
        (
            welcome(Welcome(Status.NEW, 0, FULL)),
            lambda data: mux.read_welcome(data, SECRET, PROOF),
            b"server" + PROOF,
        ),
    ):
        body, counts = full[:-32], COUNTS_MAX * 12
        read(proved(body, side))
        place = len(body) - counts - 1
        assert body[place] == COUNTS_MAX
        more = body[:place] + bytes((COUNTS_MAX + 1,)) + body[place + 1 :] + bytes(12)
        for wrong in (more, body[:-1], body[: place + 1], body[:-12]):
            with pytest.raises(MuxError, match="wrong size"):
                read(proved(wrong, side))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused_by_name(version: int) -> None:
    with pytest.raises(MuxError, match="update Outlast"):
        mux.read_hello(proved(bytes((version,)) + hello()[1:-32], b"client"))
    with pytest.raises(MuxError, match="update Outlast"):
        mux.read_welcome(proved(bytes((version,)) + welcome()[1:-32], b"server" + PROOF), SECRET, PROOF)


def test_a_status_that_is_none_is_refused() -> None:
    body = bytearray(welcome()[:-32])
    body[1] = max(Status) + 1
    with pytest.raises(MuxError, match="update Outlast"):
        mux.read_welcome(proved(bytes(body), b"server" + PROOF), SECRET, PROOF)


@given(st.binary(max_size=20))
def test_numbers_and_counts_have_one_size(data: bytes) -> None:
    for read, size in ((mux.read_number, 8), (mux.read_count, 12)):
        if len(data) == size:
            read(data)
        else:
            with pytest.raises(MuxError, match="wrong size"):
                read(data)


@given(U32, U64)
def test_what_was_received_of_an_outer_comes_back(number: int, received: int) -> None:
    assert mux.read_count(said(mux.count_frame(Type.ACK, number, received), Type.ACK)) == (number, received)
