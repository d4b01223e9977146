"""What of TLS can be read without keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import tls
from outlast.tls import Flight, name_at, protocols_of
from tests.hello import client_hello


@pytest.mark.parametrize("name", ["www.example.org", None])
def test_the_name_in_a_real_client_hello_is_read(name: str | None) -> None:
    assert tls.read_flight(client_hello(name)) == Flight("client_hello", server_name=name)


@pytest.mark.parametrize("name", ["www.example.org", None])
def test_our_own_client_hello_is_one_that_is_read(name: str | None) -> None:
    hello = tls.client_hello(name, bytes(32), bytes(32), alpn=("h3",), quic=b"\1\0")
    assert tls.read_handshake(hello) == Flight("client_hello", server_name=name)


def test_an_alert_says_which() -> None:
    assert tls.read_flight(bytes.fromhex("15030300020270")) == Flight("alert", alert=tls.UNRECOGNIZED_NAME)


def test_a_page_where_tls_should_be_is_no_tls() -> None:
    assert tls.read_flight(b"HTTP/1.1 403 Forbidden\r\n").kind == "not_tls"
    assert tls.read_flight(b"").kind == ""


def test_a_server_hello_tells_its_version() -> None:
    old = bytes.fromhex("160303002a020000260303") + bytes(32) + bytes.fromhex("00c02f00")
    assert tls.read_flight(old) == Flight("server_hello", version="TLSv1.2")


@given(st.binary(max_size=200))
def test_noise_is_read_without_harm(noise: bytes) -> None:
    for start in (b"", b"\x16\3\1\0\xff\1\0\0\xff\3\3" + bytes(32), b"\x16\3\3\0\xff\2\0\0\xff\3\3" + bytes(32)):
        tls.read_flight(start + noise)


@pytest.mark.parametrize("offered", [["http/1.1"], ["h2", "http/1.1"], ["h2"], []])
def test_the_protocols_that_openssl_offers_are_read_from_its_first_bytes(offered: list[str]) -> None:
    hello = client_hello(protocols=offered)
    assert protocols_of(hello) == ([name.encode() for name in offered] or None)
    for end in range(len(hello)):
        assert protocols_of(hello[:end]) is None


def test_a_hello_in_many_records_is_read() -> None:
    hello = client_hello(protocols=["h2"])[5:]
    cut = [hello[at : at + 50] for at in range(0, len(hello), 50)]
    assert protocols_of(b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in cut)) == [b"h2"]


@given(st.binary(max_size=400))
def test_of_broken_hellos_no_name_is_told(data: bytes) -> None:
    flight = b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data
    found = name_at(flight)
    assert found is None or 5 <= found[0] < found[1] <= len(flight)
