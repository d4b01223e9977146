"""Where in its requests a connection is, as who looks on can tell; what a head may be. See also test_http_proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.http_message import (
    HEAD_MAX_BYTES,
    Answer,
    HttpError,
    Place,
    Requests,
    read_request_head,
)

PAGE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def after(*pieces: bytes) -> tuple[Place, list[bool]]:
    requests = Requests()
    said = [requests.said(piece) for piece in pieces]
    return requests.place, said


@pytest.mark.parametrize(
    ("pieces", "place", "said"),
    [
        ([], Place.BETWEEN, []),
        ([PAGE], Place.BETWEEN, [True]),
        ([PAGE, PAGE[:1]], Place.HEAD, [True, True]),
        ([PAGE, b"\r\n"], Place.HEAD, [True, True]),
        ([b"\r\n" + PAGE], Place.BETWEEN, [True]),
        ([POST], Place.BODY, [True]),
        ([POST, b"hell", b"o"], Place.BETWEEN, [True, False, False]),
        ([POST, b"hello" + PAGE], Place.BETWEEN, [True, True]),
        ([POST + b"hello" + PAGE[:9]], Place.HEAD, [True]),
        ([CHUNKED, b"5\r\nhel"], Place.BODY, [True, False]),
        ([CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"], Place.BETWEEN, [True, False]),
        ([CHUNKED, b"no chunk\r\n", b"more"], Place.UNKNOWN, [True, True, True]),
        ([b"SSH-2.0\r\n\r\n", PAGE], Place.UNKNOWN, [True, True]),
        ([PAGE[:-2] + b"X: " + b"a" * 9_000], Place.UNKNOWN, [True]),
        ([PAGE[:-2] + b"X: " + b"a" * 9_000 + b"\r\n\r\n"], Place.UNKNOWN, [True]),
    ],
)
def test_a_connection_is_between_requests_or_within_the_head_or_body_of_one(
    pieces: list[bytes], place: Place, said: list[bool]
) -> None:
    assert after(*pieces) == (place, said)


@given(st.lists(st.sampled_from([PAGE, POST, CHUNKED, b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"\r\n", b"a"])), st.data())
def test_where_it_is_depends_on_what_was_said_and_not_on_the_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert after(*pieces)[0] == after(whole)[0] == after(*(bytes((one,)) for one in whole))[0]


@pytest.mark.parametrize("method", [b"", b"GE\0T", b"GET\x7f", b"G(T)", b"GET\t"])
def test_a_method_is_a_token(method: bytes) -> None:
    with pytest.raises(HttpError):
        read_request_head(method + b" / HTTP/1.1\r\n\r\n")


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=20))
def test_of_an_answer_without_an_end_of_its_head_only_so_much_is_held(sizes: list[int]) -> None:
    answer = Answer(b"GET", keep=True)
    begin = b"HTTP/1.1 200 OK\r\nX: "
    assert answer.passed(begin) == b""
    held = len(begin)
    for size in [*sizes, HEAD_MAX_BYTES]:
        held += size
        if held > HEAD_MAX_BYTES:
            with pytest.raises(HttpError):
                answer.passed(b"a" * size)
            return
        assert answer.passed(b"a" * size) == b""


def test_a_head_of_the_greatest_length_is_passed_on_and_a_longer_one_is_not() -> None:
    begin, end = b"HTTP/1.1 204 No Content\r\nX: ", b"\r\n\r\n"
    longest = begin + b"a" * (HEAD_MAX_BYTES - len(begin) - len(end)) + end
    assert Answer(b"GET", keep=True).passed(longest) == longest
    with pytest.raises(HttpError):
        Answer(b"GET", keep=True).passed(begin + b"a" + longest[len(begin) :])


def test_a_line_that_goes_on_brings_no_control_characters_into_a_field() -> None:
    head = b"HTTP/1.1 204 No Content\r\nX: a\r\n b\r\nY: c\r\n \x01d\r\n\r\n"
    assert Answer(b"GET", keep=True).passed(head) == b"HTTP/1.1 204 No Content\r\nX: a b\r\nY: c\r\n\r\n"
