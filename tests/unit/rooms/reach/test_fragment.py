"""A first flight that is cut keeps its handshake, and no segment and no record of it holds the whole name."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.fragment import NAME, TRICKS, Trick, cut, domain_of, flight_size, name_of
from tests.hello import client_hello

names = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z]{2,20}){1,4}", fullmatch=True)
cuts = st.just(NAME) | st.integers(0, 20_000)
tricks = st.sampled_from(TRICKS) | st.builds(Trick, cuts, cuts)


hello = cache(client_hello)


def records_of(data: bytes) -> list[bytes]:
    """The bodies of the records in a stream of them."""
    found = []
    while data:
        size = int.from_bytes(data[3:5], "big")
        assert data[:2] == b"\x16\x03"
        assert 0 < size <= 1 << 14
        found.append(data[5 : 5 + size])
        data = data[5 + size :]
    return found


@given(names, tricks)
def test_the_handshake_is_the_same_however_it_is_cut(name: str, trick: Trick) -> None:
    flight = hello(name)
    assert flight_size(flight) == len(flight)
    assert name_of(flight) == name
    parts = cut(flight, trick)
    assert all(parts)
    assert b"".join(records_of(b"".join(parts))) == flight[5:]


@given(names)
def test_no_segment_or_record_holds_the_name(name: str) -> None:
    flight = hello(name)
    split, fragments = cut(flight, Trick(segment_at=NAME)), cut(flight, Trick(record_at=NAME))
    both = cut(flight, Trick(NAME, NAME))
    raw = name.encode()
    assert not any(raw in part for part in (*split, *both))
    assert not any(raw in record for record in records_of(fragments[0]))
    assert (len(split), len(fragments), len(both)) == (2, 1, 2)
    assert [len(records_of(part)) for part in both] == [1, 1]


@given(st.binary(max_size=80), tricks)
def test_whatever_looks_like_a_record_is_cut_without_a_loss(body: bytes, trick: Trick) -> None:
    flight = b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body
    assert flight_size(flight) == len(flight)
    sent = b"".join(cut(flight, trick))
    if body:
        assert b"".join(records_of(sent)) == body
    else:
        assert sent == flight


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"", None),
        (b"\x16", None),
        (b"\x16\x03\x01\x02", None),
        (b"\x16\x03\x01\x02\x00", 517),
        (b"GET /", 0),
        (b"\x16\x02", 0),
        (b"\x16\x03\x01\xff\xff", 0),
        (b"\x00", 0),
    ],
)
def test_only_a_handshake_of_tls_is_a_flight(data: bytes, size: int | None) -> None:
    assert flight_size(data) == size


def test_a_hello_without_a_name_has_none() -> None:
    assert name_of(hello(None)) is None


@pytest.mark.parametrize(
    ("trick", "text"),
    [
        (Trick(), "direct"),
        (Trick(NAME), "tlsfrag:sni"),
        (Trick(0, 3), "split:3"),
        (Trick(5, NAME), "tlsfrag:5|split:sni"),
    ],
)
def test_a_trick_is_called_as_outline_calls_it(trick: Trick, text: str) -> None:
    assert str(trick) == text


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("www.example.org", "example.org"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("example.org.", "example.org"),
        ("localhost", "localhost"),
        ("t.co", "t.co"),
        ("a.t.co", "t.co"),
        ("news.com.by", "news.com.by"),
    ],
)
def test_names_of_one_site_share_a_domain(name: str, domain: str) -> None:
    assert domain_of(name) == domain
