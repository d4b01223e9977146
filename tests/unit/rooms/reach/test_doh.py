"""Questions and answers of DNS, as DNS over HTTPS carries them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.address import AddressError
from outlast.rooms.reach.proto.doh import AAAA, A, Answer, DohError, read_answer, write_question

QUESTION = write_question("www.example.com", A)


def answer(*records: bytes, question: bytes = QUESTION, flags: bytes = b"\x81\x80") -> bytes:
    return b"\0\0" + flags + b"\0\1" + len(records).to_bytes(2, "big") + bytes(4) + question[12:] + b"".join(records)


def record(kind: int, body: bytes, owner: bytes = b"\xc0\x0c", ttl_s: int = 300) -> bytes:
    return owner + kind.to_bytes(2, "big") + b"\0\1" + ttl_s.to_bytes(4, "big") + len(body).to_bytes(2, "big") + body


def test_a_question_is_that_of_rfc_8484() -> None:
    """RFC 8484 §4.1.1, whose first example asks for www.example.com."""
    assert QUESTION.hex() == "00000100000100000000000003777777076578616d706c6503636f6d0000010001"


def test_addresses_are_read_and_aliases_followed() -> None:
    alias = b"\x03cdn\xc0\x10"
    cname = record(5, alias, ttl_s=60)
    data = answer(cname, record(1, b"\xc0\0\2\1", owner=alias), record(1, b"\xc0\0\2\2", owner=alias))
    assert read_answer(data, "WWW.example.com.", A) == Answer(("192.0.2.1", "192.0.2.2"), 60)


def test_addresses_of_other_names_are_passed_over() -> None:
    data = answer(record(1, b"\xc0\0\2\1", owner=b"\x05other\0"), record(1, b"\xc0\0\2\2"))
    assert read_answer(data, "www.example.com", A).addresses == ("192.0.2.2",)


def test_the_long_form_is_read() -> None:
    question = write_question("a.example", AAAA)
    data = answer(record(28, bytes.fromhex("20010db8" + "0" * 23 + "1")), question=question)
    assert read_answer(data, "a.example", AAAA).addresses == ("2001:db8::1",)


def test_a_name_that_is_not_there_has_no_address() -> None:
    assert read_answer(answer(flags=b"\x81\x83"), "www.example.com", A).addresses == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        answer(flags=b"\x01\x00"),
        answer(flags=b"\x83\x80"),
        answer(flags=b"\x81\x82"),
        answer(question=write_question("other.example", A)),
        answer(question=write_question("www.example.com", AAAA)),
        answer(record(1, b"\xc0\0\2\1"))[:-1],
        answer(*[record(1, b"\xc0\0\2\1")] * 65),
        answer(question=QUESTION[:-1] + b"\3"),
        answer(record(1, b"\xc0\0\2\1", owner=b"\xc0\xff")),
        answer(record(1, b"\xc0\0\2\1", owner=b"\xc0\x21")),
    ],
)
def test_what_is_no_answer_to_the_question_is_refused(data: bytes) -> None:
    with pytest.raises(DohError):
        read_answer(data, "www.example.com", A)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".example", "ü.example", "a." * 130])
def test_a_name_that_is_none_is_not_asked_for(name: str) -> None:
    with pytest.raises(AddressError):
        write_question(name, A)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    try:
        found = read_answer(answer()[:8] + data, "www.example.com", A)
    except DohError:
        return
    assert found.ttl_s > 0
