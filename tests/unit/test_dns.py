"""DNS messages: queries, answers with compression and aliases, and what a hostile resolver sends."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import dns
from outlast.dns import AAAA, CNAME, A, DnsError, Record
from tests import nameserver

QUERY = dns.encode_query(0x1234, "www.example.com", A)
# An alias and two addresses, the names compressed.
REPLY = (
    bytes.fromhex("123481800001000300000000")
    + b"\3www\7example\3com\0\0\1\0\1"
    + bytes.fromhex("c00c00050001000000ff0006") + b"\3cdn\xc0\x10"
    + bytes.fromhex("c02d000100010000003c00045db8d822")
    + bytes.fromhex("c02d000100010000003c00045db8d823")
)  # fmt: skip


def test_a_query_is_what_the_rfc_draws() -> None:
    assert bytes.fromhex("123401000001000000000000") + b"\3www\7example\3com\0\0\1\0\1" == QUERY


def test_an_answer_holds_aliases_and_addresses() -> None:
    reply = dns.decode_reply(REPLY)
    assert (reply.id, reply.name, reply.type, reply.rcode) == (0x1234, "www.example.com", A, 0)
    assert reply.records == (
        Record("www.example.com", CNAME, "cdn.example.com", 255),
        Record("cdn.example.com", A, "93.184.216.34", 60),
        Record("cdn.example.com", A, "93.184.216.35", 60),
    )
    assert reply.addresses == ("93.184.216.34", "93.184.216.35")
    assert dns.failure_of(reply) is None


@pytest.mark.parametrize(
    ("rcode", "failure"),
    [
        (0, "dns_no_answer"),
        (2, "dns_servfail_error"),
        (3, "dns_nxdomain_error"),
        (5, "dns_refused_error"),
        (4, "dns_server_misbehaving"),
    ],
)
def test_a_refusal_has_its_name_in_the_data_format(rcode: int, failure: str) -> None:
    assert dns.failure_of(dns.decode_reply(nameserver.reply(QUERY, (), rcode=rcode))) == failure


def test_a_truncated_reply_does_not_say_that_there_is_no_address() -> None:
    empty = nameserver.reply(QUERY, ())
    cut = dns.decode_reply(empty[:2] + bytes([empty[2] | 2]) + empty[3:])
    assert dns.failure_of(cut) == "unknown_failure: truncated DNS reply"


def test_a_reply_answers_only_its_own_query() -> None:
    reply = dns.decode_reply(REPLY)
    assert dns.answers(reply, 0x1234, "WWW.example.com.", A)
    assert not dns.answers(reply, 0x1235, "www.example.com", A)
    assert not dns.answers(reply, 0x1234, "example.com", A)
    assert not dns.answers(reply, 0x1234, "www.example.com", AAAA)


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".org", "a." * 127 + "org", "пример.org"])
def test_a_name_that_cannot_be_asked_for_is_refused(name: str) -> None:
    with pytest.raises(DnsError):
        dns.encode_query(1, name, A)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        REPLY[:11],
        REPLY[:-1],
        REPLY[:40],
        QUERY,
        REPLY[:12] + b"\xc0\x0c" + REPLY[14:],
        REPLY[:12] + b"\x80",
        REPLY[:4] + b"\0\2" + REPLY[6:],
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(DnsError):
        dns.decode_reply(data)


@given(st.binary(max_size=300))
def test_noise_ends_in_an_error_of_the_format(noise: bytes) -> None:
    for data in (noise, REPLY[:12] + noise, REPLY[:33] + noise):
        with contextlib.suppress(DnsError):
            dns.decode_reply(data)


@given(st.lists(st.ip_addresses(v=6).map(str), max_size=5))
def test_addresses_come_back_as_they_were_sent(addresses: list[str]) -> None:
    query = dns.encode_query(7, "example.org", AAAA)
    assert dns.decode_reply(nameserver.reply(query, (*addresses, "10.0.0.1"))).addresses == tuple(addresses)
