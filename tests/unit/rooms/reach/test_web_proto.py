"""The transport ``web``: paths, requests and answers."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.web import (
    ANSWER_MAX_BYTES,
    DAY_S,
    PADDING_MAX,
    REQUEST_MAX_BYTES,
    Accepted,
    Declined,
    Doors,
    WebError,
    accept_of,
    day_of,
    key_asked,
    path_asked,
    path_of,
    read_answer,
    write_accept,
    write_request,
)

SECRET = bytes(range(32))
DATE = b"Mon, 23 Nov 2026 08:00:00 GMT"
secrets = st.binary(min_size=32, max_size=32)
days = st.integers(0, 100_000)


@given(secrets, days, st.binary(min_size=16, max_size=16), st.binary(max_size=PADDING_MAX))
def test_a_server_reads_from_a_request_what_the_client_put_there(
    secret: bytes, day: int, key: bytes, padding: bytes
) -> None:
    request = write_request("site.example", path_of(secret, day), key, padding)
    assert len(request) <= REQUEST_MAX_BYTES
    assert path_asked(request) == path_of(secret, day)
    assert key_asked(request) == base64.b64encode(key)


@given(secrets, days)
def test_a_path_looks_like_a_file_named_by_a_hash(secret: bytes, day: int) -> None:
    assert re.fullmatch(rb"/[a-z]+/[0-9a-f]{40}", path_of(secret, day))


@given(secrets, secrets, days, days)
def test_users_and_days_have_different_paths(one: bytes, other: bytes, day: int, another: int) -> None:
    assert (path_of(one, day) == path_of(other, another)) == ((one, day) == (other, another))


def test_a_door_is_open_yesterday_today_and_tomorrow_and_on_no_other_day() -> None:
    doors = Doors({"one": SECRET, "two": bytes(32)}, b"k" * 32)
    today = 20_000
    open_on = [day for day in range(today - 5, today + 6) if doors.user_of(path_of(SECRET, day), today * DAY_S + 7)]
    assert open_on == [today - 1, today, today + 1]
    assert doors.user_of(path_of(bytes(32), today), today * DAY_S) == "two"
    assert doors.user_of(path_of(SECRET, today), (today + 2) * DAY_S) is None


@pytest.mark.parametrize("end", [1, 30, 100, -1, -2])
def test_a_part_of_a_request_is_none(end: int) -> None:
    request = write_request("site.example", path_of(SECRET, 1), bytes(16), b"")
    assert path_asked(request[:end]) is None


def test_a_request_with_something_behind_it_or_without_its_headers_is_none() -> None:
    request = write_request("site.example", path_of(SECRET, 1), bytes(16), b"")
    assert key_asked(request + b"GET / HTTP/1.1\r\n\r\n") is None
    for line in (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: "):
        assert key_asked(request.replace(line, b"X-" + line)) is None


def test_the_key_is_answered_as_rfc_6455_says() -> None:
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # §1.3


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=PADDING_MAX), st.binary(max_size=40), st.data())
def test_an_answer_is_read_however_it_is_cut(key: bytes, padding: bytes, rest: bytes, data: st.DataObject) -> None:
    answer = write_accept(base64.b64encode(key), DATE, padding)
    cut = data.draw(st.integers(0, len(answer) - 1))
    assert read_answer(answer[:cut], key) is None
    assert read_answer(answer + rest, key) == Accepted(rest)
    with pytest.raises(WebError):
        read_answer(answer, bytes(15) + bytes((key[0] ^ 1,)))


def test_the_sites_answer_tells_its_day() -> None:
    answer = b"HTTP/1.1 404 Not Found\r\ndate: %b\r\nContent-Length: 0\r\n\r\n" % DATE
    assert read_answer(answer, bytes(16)) == Declined(404, day_of(DATE))
    assert day_of(DATE) == 20_780
    assert read_answer(b"HTTP/1.1 404 Not Found\r\nDate: soon\r\n\r\n", bytes(16)) == Declined(404, None)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 404 " + b"x" * ANSWER_MAX_BYTES, b"\r\n\r\n"]
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(WebError):
        read_answer(answer, bytes(16))
