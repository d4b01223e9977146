"""HTTP as a proxy reads it: CONNECT, whole URLs made fit for their origin, the PAC file, and what is turned away."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.address import Target
from outlast.rooms.reach.proto.http_message import HEAD_MAX_BYTES, HttpError
from outlast.rooms.reach.proto.http_proxy import Exchange, HttpAsking, HttpProxy
from outlast.rooms.reach.proto.request import Credentials, Ended, Request, isolation_of
from outlast.socks import Command, Reached, SocksError
from tests.hello import client_hello

HERE = Target("127.0.0.1", 1080)
FEW = settings(max_examples=15)
US = Credentials(b"alice", b"correct horse")


def read(*pieces: bytes, credentials: Credentials | None = None) -> tuple[bytes, Request | Ended | None]:
    return read_by(HttpProxy(HERE, credentials), pieces)


def read_by(reader: HttpProxy, pieces: Iterable[bytes]) -> tuple[bytes, Request | Ended | None]:
    said, outcome = b"", None
    for piece in pieces:
        if outcome is None:
            say, outcome = reader.receive(piece)
            said += say
        elif isinstance(outcome, Request):
            more = reader.exchange.outward(piece) if reader.exchange else piece
            outcome = outcome._replace(early=outcome.early + more)
    return said, outcome


def forwarded(request: bytes) -> tuple[Target, bytes]:
    reader = HttpProxy(HERE)
    _, outcome = read_by(reader, [request])
    assert isinstance(outcome, Request), outcome
    assert reader.exchange
    return outcome.target, outcome.early


def exchange(request: bytes = b"GET http://example.org/ HTTP/1.1\r\n\r\n") -> Exchange:
    """One that is being forwarded."""
    reader = HttpProxy(HERE)
    read_by(reader, [request])
    assert reader.exchange
    return reader.exchange


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    """The same in pieces."""
    places = sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)} - {0})
    return [whole[a:b] for a, b in zip([0, *places], places, strict=False) if a < b]


def test_connect_opens_a_tunnel() -> None:
    reader = HttpProxy(HERE)
    said, outcome = read_by(reader, [b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\nearly"])
    assert (said, outcome) == (b"", Request(Command.CONNECT, Target("example.org", 443), b"", b"early"))
    assert reader.granted() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert reader.refused(2).startswith(b"HTTP/1.1 403 ")
    assert read(b"CONNECT [2001:db8::7]:443 HTTP/1.0\n\n")[1] == Request(
        Command.CONNECT, Target("2001:db8::7", 443), b"", b""
    )


def test_a_whole_url_becomes_a_request_to_its_origin_without_what_is_for_proxies() -> None:
    target, early = forwarded(
        b"GET http://me:secret@example.org:8080/a?b=c#d HTTP/1.1\r\nHost: other.example\r\nAccept: */*\r\n"
        b"Proxy-Connection: keep-alive\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Authorization: Basic eDp5\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n"
    )
    assert target == Target("example.org", 8080)
    assert early == (b"GET /a?b=c HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("line", "origin"),
    [
        (b"GET http://example.org HTTP/1.1", b"GET / HTTP/1.1"),
        (b"GET http://example.org?q HTTP/1.1", b"GET /?q HTTP/1.1"),
        (b"GET HTTP://example.org/ HTTP/1.0", b"GET / HTTP/1.0"),
        (b"OPTIONS http://example.org HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    ],
)
def test_paths_take_origin_form(line: bytes, origin: bytes) -> None:
    assert forwarded(line + b"\r\n\r\n") == (
        Target("example.org", 80),
        origin + b"\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    )


SECOND = b"GET http://second.example/secret HTTP/1.1\r\n\r\n"
POST = b"POST http://example.org/ HTTP/1.1\r\n"
CHUNKED = b"5;ext=1\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (b"GET http://example.org/ HTTP/1.1\r\n\r\n", b""),
        (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED, CHUNKED),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    ],
)
@given(cuts=st.lists(st.integers(0, 200), max_size=30))
def test_the_body_goes_through_in_any_split_and_what_follows_it_is_the_next_request(
    request_: bytes, body: bytes, cuts: list[int]
) -> None:
    reader = HttpProxy(HERE)
    _, outcome = read_by(reader, cut(request_ + SECOND, cuts))
    assert isinstance(outcome, Request)
    assert outcome.early.partition(b"\r\n\r\n")[2] == body
    assert reader.exchange
    assert not reader.exchange.over
    reader.exchange.inward(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert reader.exchange.over
    assert reader.exchange.behind == SECOND
    following = read(reader.exchange.behind)[1]
    assert isinstance(following, Request)
    assert following.target == Target("second.example", 80)


def test_who_sends_much_behind_a_request_that_has_no_answer_yet_loses_the_connection_behind_it() -> None:
    one = exchange()
    for _ in range(100):
        assert one.outward(bytes(4096)) == b""
    assert len(one.behind) <= HEAD_MAX_BYTES + 4096
    one.inward(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert not one.over


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"0\r\nContent-Length : 5\r\n\r\n",
        pytest.param(b"5;" + b"a" * 5000, id="long"),
    ],
)
@FEW
@given(cuts=st.lists(st.integers(0, 60), max_size=10))
def test_chunks_that_two_could_read_differently_are_refused_both_ways(chunks: bytes, cuts: list[int]) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert read(head + chunks)[0].startswith(b"HTTP/1.1 400 ")
    asking, answered = exchange(head), exchange()
    assert answered.inward(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for pass_on in (asking.outward, answered.inward):
        with pytest.raises(HttpError):
            list(map(pass_on, cut(chunks, cuts)))


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        POST + b"Content-Length: 5, 5\r\n\r\n",
        POST + b"Content-Length:\r\n\r\n",
        POST + b"Content-Length: \r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n , identity\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n",
        POST + b"X: a\rContent-Length: 5\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        POST + b"Bad Field: x\r\n\r\n",
        POST + b" folded: x\r\n\r\n",
        b"GET https://example.org/ HTTP/1.1\r\n\r\n",
        b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
        b"GET http://:80/ HTTP/1.1\r\n\r\n",
        b"GET http://exa mple.org/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
        b"GET http://a:99999/ HTTP/1.1\r\n\r\n",
        b"GET http://example.org/ HTTP/2.0\r\n\r\n",
        b"CONNECT example.org HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443/x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /proxy.pac HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_for_a_proxy_is_turned_away(request_: bytes) -> None:
    said, outcome = read(request_)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert isinstance(outcome, Ended)


@pytest.mark.parametrize("begun", [pytest.param(client_hello(), id="hello"), b"\x16", b"\x01", b"\r\n\x16"])
def test_who_speaks_tls_to_it_or_no_http_at_all_is_told_so_at_once(begun: bytes) -> None:
    said, outcome = read(begun)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert isinstance(outcome, Ended)


def test_a_head_without_end_is_not_kept() -> None:
    reader = HttpProxy(HERE)
    outcome = None
    sent = 0
    while outcome is None:
        say, outcome = reader.receive(b"a" * 4096)
        sent += 4096
        assert sent <= HEAD_MAX_BYTES + 4096
    assert say.startswith(b"HTTP/1.1 431 ")


def test_credentials_are_asked_for_and_keep_streams_apart() -> None:
    def asked(word: bytes, credentials: Credentials | None) -> tuple[bytes, Request | Ended | None]:
        field = b"Proxy-Authorization: Basic " + b64encode(word) + b"\r\n" if word else b""
        return read(b"CONNECT a.example:1 HTTP/1.1\r\n" + field + b"\r\n", credentials=credentials)

    for word in (b"", b"alice:wrong", b"alice"):
        said, outcome = asked(word, US)
        assert said.startswith(b"HTTP/1.1 407 ")
        assert b"Proxy-Authenticate: Basic" in said
        assert isinstance(outcome, Ended)
    for credentials in (US, None):
        outcome = asked(b"alice:correct horse", credentials)[1]
        assert isinstance(outcome, Request)
        assert outcome.isolation == isolation_of(*US)


def test_the_pac_file_names_the_gate_and_no_second_choice() -> None:
    said, outcome = read(b"GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:1080\r\n\r\n", credentials=US)
    assert isinstance(outcome, Ended)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"application/x-ns-proxy-autoconfig" in said
    assert b'return "PROXY 127.0.0.1:1080";' in said
    assert b"DIRECT" not in said


@pytest.mark.parametrize("name", [b"localhost:1080", b"LOCALHOST", b"[::1]:1080", b"192.0.2.7:1080", b""])
def test_the_pac_file_is_had_by_every_address_of_the_gate(name: bytes) -> None:
    said, _ = read(b"GET /proxy.pac HTTP/1.1\r\nHost: " + name + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "field", [b"Origin: http://evil.example", b"Sec-Fetch-Site: cross-site", b"Host: made-to-lead-here.example:1080"]
)
def test_a_page_of_the_web_does_not_learn_from_the_pac_file_that_a_gate_is_here(field: bytes) -> None:
    said, _ = read(b"GET /proxy.pac HTTP/1.1\r\n" + field + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"PROXY" not in said


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    read(*pieces)
    read(b"GET http://a/ HTTP/1.1\r\n", *pieces, b"\r\n\r\n")
    with suppress(HttpError):
        read(POST + b"Transfer-Encoding: chunked\r\n\r\n", *pieces)


def test_a_client_asks_for_a_tunnel_and_takes_nothing_of_what_follows_the_answer() -> None:
    asking = HttpAsking(Target("2001:db8::7", 443), US)
    _, outcome = read(asking.first(), credentials=US)
    assert outcome == Request(Command.CONNECT, Target("2001:db8::7", 443), isolation_of(*US), b"")
    assert asking.receive(b"HTTP/1.1 20") == (b"", None)
    assert asking.receive(b"0 OK\r\nX: y\r\n\r\nSSH-2.0") == (b"", Reached(Target("0.0.0.0", 0), b"SSH-2.0"))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"SSH-2.0", 1),
        (b"HTTP/1.1 407 No\r\n\r\n", 2),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", 2),  # tinyproxy, to a wrong password
        (b"HTTP/1.1 403 No\r\n\r\n", 2),
        (b"HTTP/1.1 302 Found\r\n\r\n", 1),
        (b"HTTP/1.1 504 No\r\n\r\n", 6),
        (b"HTTP/1.1 200" + b"x" * 20_000, 1),
    ],
)
def test_a_proxy_that_opens_no_tunnel_says_why(answer: bytes, code: int) -> None:
    with pytest.raises(SocksError) as error:
        HttpAsking(Target("a.example", 1)).receive(answer)
    assert error.value.code == code


KEPT = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.0 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nhi", None),
        (KEPT + b"Transfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nA: b\r\n\r\n", None),
        (KEPT + b"Content-Length: 0\r\nKeep-Alive: 5\r\n\r\n", KEPT + b"Content-Length: 0\r\n\r\n"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", None),
        (b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\nHTTP/1.1 204 No\r\n\r\n", None),
        (b"HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nno", None),  # some sites have codes of their own
        # A length beside chunks means nothing (RFC 9112 §6.3), and who reads behind us must not think so.
        (
            KEPT + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            KEPT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (KEPT + b"A: b\n\tc\nContent-Length: 0\n\r\n", KEPT + b"A: b c\r\nContent-Length: 0\r\n\r\n"),
        (KEPT + b"no field\r\nContent-Length: 0\r\n\r\n", KEPT + b"Content-Length: 0\r\n\r\n"),
    ],
)
@FEW
@given(cuts=st.lists(st.integers(0, 200), max_size=30))
def test_a_program_goes_on_behind_an_answer_whose_end_is_clear_and_gets_nothing_that_stands_there(
    answer: bytes, told: bytes | None, cuts: list[int]
) -> None:
    one = exchange()
    if told is None:
        told = answer.replace(b"Connection: close, X-Hop\r\nX-Hop: 1\r\n", b"").replace(b"HTTP/1.0", b"HTTP/1.1")
    assert b"".join(map(one.inward, cut(answer + KEPT + b"\r\nof another", cuts))) == told
    assert one.over


def test_an_answer_to_a_question_for_the_head_has_no_body() -> None:
    one = exchange(b"HEAD http://example.org/ HTTP/1.1\r\n\r\n")
    head = KEPT + b"Content-Length: 9\r\n\r\n"
    assert one.inward(head + b"123456789") == head
    assert one.over


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b""),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b"Content-Length: 5\r\nContent-Length: 4\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b"Content-Length: 5, 5\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b"Content-Length: +5\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\n\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\nConnection: Close\r\n\r\n", b"Content-Length: 5\r\n"),
        (b"GET http://a.example/ HTTP/1.1\r\nProxy-Connection: close\r\n\r\n", b"Content-Length: 5\r\n"),
        (b"GET http://a.example/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"Content-Length: 5\r\n"),
    ],
)
def test_where_it_is_not_clear_or_not_wished_the_program_is_told_that_its_connection_closes(
    request_: bytes, fields: bytes
) -> None:
    one = exchange(request_)
    came = KEPT + fields + b"Connection: keep-alive\r\n\r\nbody\r\n\r\nmore"
    assert one.inward(came) == KEPT + fields + b"Connection: close\r\n\r\nbody\r\n\r\nmore"
    assert one.end() == b""
    assert not one.over


def test_chunks_of_http_1_0_are_no_end() -> None:
    one = exchange()
    assert b"Connection: close" in one.inward(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert not one.over


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"SSH-2.0\r\n\r\n",
        b"\r\n\r\n" + KEPT + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        pytest.param(KEPT + b"X: " + b"a" * HEAD_MAX_BYTES, id="long"),
        pytest.param(KEPT + b"X: " + b"a" * HEAD_MAX_BYTES + b"\r\n\r\n", id="long and whole"),
    ],
)
@FEW
@given(cuts=st.lists(st.integers(0, 200), max_size=10))
def test_what_is_no_answer_is_told_as_a_page_and_nothing_of_it_is_passed_on(answer: bytes, cuts: list[int]) -> None:
    one = exchange()
    told = b"".join(map(one.inward, cut(answer, cuts))) + one.end()
    assert told.startswith(b"HTTP/1.1 502 ")
    assert b"Connection: close" in told
    assert told.count(b"HTTP/") == 1
    assert one.failed
    assert not one.over


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6))
def test_an_answer_is_the_same_however_it_comes(pieces: list[bytes]) -> None:
    for head in (b"", KEPT, KEPT + b"Transfer-Encoding: chunked\r\n\r\n", KEPT + b"Content-Length: 7\r\n\r\n"):
        told = []
        for came in ([head + b"".join(pieces)], [head, *pieces]):
            one = exchange()
            try:
                told.append((b"".join(map(one.inward, came)) + one.end(), one.over))
            except HttpError:
                told.append((b"", one.over))
        assert told[0] == told[1]
