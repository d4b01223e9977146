"""Where in its requests a connection is, as who looks on can tell; messages themselves are read in test_http_proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.http_message import Place, Requests

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
