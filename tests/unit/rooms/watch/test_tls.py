"""What of TLS can be read without keys."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.watch.proto import tls
from outlast.rooms.watch.proto.tls import Flight


def hello_of_openssl(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize("name", ["www.example.org", None])
def test_the_name_in_a_real_client_hello_is_read(name: str | None) -> None:
    assert tls.read_flight(hello_of_openssl(name)) == Flight("client_hello", server_name=name)


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
