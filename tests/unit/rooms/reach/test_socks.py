"""SOCKS 4, 4a and 5, byte by byte: any split of what comes gives the same, and nothing that comes breaks a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import AddressError, Target, decode, encode
from outlast.rooms.reach.proto.request import Credentials, Ended, Reader, Request, isolation_of
from outlast.rooms.reach.proto.socks import HELD_MAX_BYTES, Socks4, Socks5, reply
from outlast.socks import Asking, Command, Reached, SocksError, unwrap_datagram, wrap_datagram

SITE = Target("example.org", 443)
US = Credentials(b"alice", b"correct horse")


def fed(reader: Reader, pieces: Iterable[bytes]) -> tuple[bytes, Request | Ended | None]:
    said = b""
    outcome: Request | Ended | None = None
    late = b""
    for piece in pieces:
        if outcome is None:
            say, outcome = reader.receive(piece)
            said += say
        else:
            late += piece  # the gate reads no more; it is the stream's
    if isinstance(outcome, Request):
        outcome = outcome._replace(early=outcome.early + late)
    return said, outcome


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} - {0})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


def fives(target: Target = SITE, command: int = 1, user: bytes = b"", password: bytes = b"") -> bytes:
    request = bytes((5, command, 0)) + encode(target)
    if not user:
        return b"\x05\x01\x00" + request
    return b"\x05\x02\x00\x02" + bytes((1, len(user))) + user + bytes((len(password),)) + password + request


@pytest.mark.parametrize("target", [SITE, Target("192.0.2.7", 80), Target("2001:db8::7", 65535)])
@pytest.mark.parametrize("command", [1, 3])
def test_a_request_names_its_target_as_it_came(target: Target, command: int) -> None:
    said, outcome = fed(Socks5(), [fives(target, command) + b"early"])
    assert said == b"\x05\x00"
    assert outcome == Request(Command(command), target, b"", b"early")


def test_a_literal_address_may_come_as_a_name_as_chromium_sends_it() -> None:
    _, outcome = fed(Socks5(), [b"\x05\x01\x00\x05\x01\x00\x03\x09127.0.0.1\x00\x50"])
    assert isinstance(outcome, Request)
    assert outcome.target == Target("127.0.0.1", 80)


def test_credentials_are_the_isolation_where_none_are_asked_for() -> None:
    said, outcome = fed(Socks5(), [fives(user=b"circuit", password=b"7")])
    assert said == b"\x05\x02\x01\x00"
    assert outcome == Request(Command.CONNECT, SITE, isolation_of(b"circuit", b"7"), b"")
    assert isolation_of(b"ab", b"c") != isolation_of(b"a", b"bc")


def test_right_credentials_are_let_in_and_wrong_or_none_are_not() -> None:
    assert isinstance(fed(Socks5(US), [fives(user=US.user, password=US.password)])[1], Request)
    assert fed(Socks5(US), [fives(user=US.user, password=b"wrong")]) == (
        b"\x05\x02\x01\x01",
        Ended("wrong credentials", guessed=True),
    )
    assert fed(Socks5(US), [fives()]) == (b"\x05\xff", Ended("no credentials"))
    assert isinstance(fed(Socks4(US), [b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00"])[1], Ended)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"\x05\x01\x00\x05\x02\x00" + encode(SITE), b"\x05\x00" + reply(7)),  # BIND
        (b"\x05\x01\x00\x05\x01\x00\x02\x00\x00", b"\x05\x00" + reply(8)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00" + reply(8)),
        (b"\x05\x01\x00\x05\x01\x00\x03\x03a b\x00\x50", b"\x05\x00" + reply(8)),
        (b"\x05\x01\x09", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x06", b""),
    ],
)
def test_what_is_no_request_ends_with_its_reply(sent: bytes, said: bytes) -> None:
    answer, outcome = fed(Socks5(), [sent])
    assert answer == said
    assert isinstance(outcome, Ended)


@pytest.mark.parametrize(
    ("sent", "target", "isolation"),
    [
        (b"\x04\x01\x00\x50\xc0\x00\x02\x07\x00", Target("192.0.2.7", 80), b""),
        (b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.org\x00", SITE, b""),
        (b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00example.org\x00", SITE, b"me"),
    ],
)
def test_socks_4_and_4a_are_understood(sent: bytes, target: Target, isolation: bytes) -> None:
    for at in range(len(sent)):
        assert fed(Socks4(), [sent[:at]]) == (b"", None)
    assert fed(Socks4(), [sent + b"x"]) == (
        b"",
        Request(Command.CONNECT, target, isolation_of(isolation, b""), b"x"),
    )


@pytest.mark.parametrize(
    "sent",
    [
        b"\x04\x02\x00\x50\xc0\x00\x02\x07\x00",  # BIND
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"a" * 256 + b"\x00",
        b"\x04\x01\x00\x50\xc0\x00\x02\x07" + b"a" * HELD_MAX_BYTES,
    ],
)
def test_what_is_no_request_of_socks_4_is_refused(sent: bytes) -> None:
    said, outcome = fed(Socks4(), [sent])
    assert said[:2] == b"\x00\x5b"
    assert isinstance(outcome, Ended)


@given(st.data())
def test_any_split_of_the_input_gives_the_same(data: st.DataObject) -> None:
    make: Callable[[], Reader]
    make, whole = data.draw(
        st.sampled_from(
            [
                (Socks5, fives() + b"early bytes"),
                (Socks5, fives(user=b"a", password=b"b") + b"early"),
                (lambda: Socks5(US), fives(Target("2001:db8::1", 1), 3, US.user, US.password)),
                (lambda: Socks5(US), fives(user=US.user, password=b"no")),
                (Socks4, b"\x04\x01\x01\xbb\x00\x00\x00\x01me\x00example.org\x00early"),
            ]
        )
    )
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=len(whole)))
    assert fed(make(), split(whole, cuts)) == fed(make(), [whole])


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.sampled_from([b"", b"\x05", b"\x04", b"\x05\x01\0"])
)
def test_no_bytes_break_a_server(pieces: list[bytes], before: bytes) -> None:
    for reader in (Socks5(), Socks5(US), Socks4()):
        fed(reader, [before, *pieces] if before else pieces)


def answers(asking: Asking, pieces: Iterable[bytes]) -> tuple[bytes, Reached | None]:
    said, reached = b"", None
    for piece in pieces:
        if reached is None:
            say, reached = asking.receive(piece)
            said += say
        else:
            reached = reached._replace(early=reached.early + piece)
    return said, reached


@given(st.sampled_from([None, US]), st.lists(st.integers(0, 60), max_size=9))
def test_a_client_reaches_its_target_through_a_server_in_any_split(
    credentials: Credentials | None, cuts: list[int]
) -> None:
    asking, server = Asking(SITE, credentials), Socks5(credentials)
    said, outcome = fed(server, [asking.first()])
    mine, reached = answers(asking, [said])
    assert reached is None
    while outcome is None:
        said, outcome = fed(server, [mine])
        if said:
            mine, reached = answers(asking, split(said, cuts))
    assert isinstance(outcome, Request)
    assert outcome.target == SITE
    assert answers(asking, split(server.granted() + b"banner", cuts))[1] == Reached(Target("0.0.0.0", 0), b"banner")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 400", 1),
        (b"\x05\xff", 2),
        (b"\x05\x02", 2),
        (b"\x05\x00" + reply(5), 5),
        (b"\x05\x00\x05\x00\x00\x09\x00", 1),
    ],
)
def test_a_proxy_that_refuses_says_why(answer: bytes, code: int) -> None:
    with pytest.raises(SocksError) as error:
        Asking(SITE).receive(answer)
    assert error.value.code == code


@given(st.binary(max_size=60), st.booleans())
def test_no_answer_breaks_a_client(data: bytes, greeted: bool) -> None:
    with suppress(SocksError):
        Asking(SITE).receive(b"\x05\x00" + data if greeted else data)


@given(st.binary(max_size=200))
def test_datagrams_keep_their_address_and_fragments_are_dropped(data: bytes) -> None:
    assert unwrap_datagram(wrap_datagram(SITE, data)) == (SITE, data)
    assert unwrap_datagram(b"\0\0\x01" + wrap_datagram(SITE, data)[3:]) is None
    unwrap_datagram(data)
    unwrap_datagram(b"\0\0\0" + data)


@given(st.binary(min_size=1, max_size=255))
def test_a_name_that_is_read_can_be_passed_on(name: bytes) -> None:
    try:
        found = decode(bytes((3, len(name))) + name + b"\x01\xbb")
    except AddressError:
        return
    assert found is not None
    assert decode(encode(found[0])) is not None
