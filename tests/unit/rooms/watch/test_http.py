"""URLs that can be probed, redirects, and answers of HTTP within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.rooms.watch.proto.http import HEADERS, Exchange, parse_url, redirect_of

URL = parse_url("http://www.example.org/a?b=c#d")


def exchanged(*chunks: bytes, limit: int = 100) -> Exchange:
    exchange = Exchange(limit)
    exchange.send("GET", URL, HEADERS)
    for chunk in chunks:
        if not exchange.done:
            exchange.feed(chunk)
    return exchange


@pytest.mark.parametrize(
    ("text", "host", "port", "target", "origin"),
    [
        ("http://www.example.org/a?b=c#d", "www.example.org", 80, "/a?b=c", "www.example.org"),
        ("https://EXAMPLE.org", "example.org", 443, "/", "example.org"),
        ("https://пример.example:8443/", "xn--e1afmkfd.example", 8443, "/", "xn--e1afmkfd.example:8443"),
        ("http://[2001:db8::1]:81/x", "2001:db8::1", 81, "/x", "[2001:db8::1]:81"),
    ],
)
def test_a_url_is_read_in_its_parts(text: str, host: str, port: int, target: str, origin: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, url.target, url.origin) == (host, port, target, origin)


@pytest.mark.parametrize(
    "text",
    ["", "example.org", "ftp://example.org/", "http://", "http://u:p@example.org/", "http://example.org:0/",
     "http://example.org:99999/", "http://ex ample.org/", "http://ex\xa0ample.org/",
     "http://example.org/\r\nX: y", "http://a..b/",
     "http://example.org/#\x9b31m", "http://example.org/#\u202e", "http://exam\u200bple.org/",
     "http://example.org/" + "x" * 9000, "http://[::1/", "http://[v1.\xe9:x]/", "http://[fe80::1%\xe9]/"],
)  # fmt: skip
def test_what_cannot_be_probed_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_url(text)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for start in ("", "http://", "http://example.org"):
        try:
            url = parse_url(start + text)
        except UsageError:
            continue
        Exchange().send("GET", url, HEADERS)


def test_a_redirect_is_followed_relative_to_its_page() -> None:
    target = redirect_of(URL, 302, "../x")
    assert target is not None
    assert target.text == "http://www.example.org/x"
    assert redirect_of(URL, 200, "/x") is None
    with pytest.raises(UsageError):
        redirect_of(URL, 301, "http:///nowhere")


def test_a_request_looks_like_a_browsers() -> None:
    sent = Exchange().send("GET", URL, HEADERS)
    assert sent.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: www.example.org\r\nAccept: text/html,")
    assert sent.endswith(b"Connection: close\r\n\r\n")


def test_an_answer_in_pieces_is_read() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-One: 1\r\n\r\nhello"
    exchange = exchanged(*(answer[at : at + 1] for at in range(len(answer))))
    assert (exchange.status, exchange.body, exchange.failure, exchange.done) == (200, b"hello", None, True)
    assert exchange.header("x-one") == "1"


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    exchange = exchanged(b"HTTP/1.0 403 No\r\n\r\nblocked", b"")
    assert (exchange.status, exchange.body, exchange.failure) == (403, b"blocked", None)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe"]
)
def test_an_answer_cut_short_is_an_early_end(answer: bytes) -> None:
    exchange = exchanged(*filter(None, [answer]), b"")
    assert (exchange.failure, exchange.done) == ("eof_error", True)


def test_a_large_body_is_cut_at_the_bound() -> None:
    exchange = exchanged(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b"x" * 999)
    assert (len(exchange.body), exchange.truncated, exchange.failure, exchange.done) == (100, True, None, True)


def test_endless_headers_are_given_up() -> None:
    exchange = exchanged(b"HTTP/1.1 200 OK\r\n", *(b"X: " + b"y" * 1000 + b"\r\n" for _ in range(100)))
    assert exchange.failure is not None
    assert exchange.done


@given(st.binary(max_size=200))
def test_noise_ends_the_exchange(noise: bytes) -> None:
    exchange = exchanged(noise, b"")
    assert exchange.done
