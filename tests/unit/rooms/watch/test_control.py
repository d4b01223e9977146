"""The control: what it looks at for others, and what nobody can make it look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.watch.io import control
from outlast.rooms.watch.io.control import CONNECTIONS_EACH, control_app, server_config
from outlast.rooms.watch.io.probe import Control, Patience, probe_url
from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.control import REQUEST_MAX_BYTES, ControlError, Rate, read_request
from outlast.rooms.watch.proto.http import HEADERS, Exchange, parse_url
from outlast.rooms.watch.proto.measurement import from_object
from outlast.rooms.watch.proto.probe import Settings

TOKEN = "the-word"
LOOPBACK = [ip_network("127.0.0.0/8")]
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n<title>Hello there</title>ok"


def request(url: str, *endpoints: str) -> bytes:
    return json.dumps({"http_request": url, "tcp_connect": endpoints, "x_quic_enabled": False}).encode()


@contextlib.asynccontextmanager
async def serving(allowed: Any = ()) -> AsyncIterator[str]:
    listen = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(control_app(TOKEN, allowed)))
    task = asyncio.create_task(server.serve([listen]))
    try:
        yield f"http://127.0.0.1:{listen.getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def site(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A site on this machine, and the requests that it got."""
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            got.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", got


async def post(url: str, body: bytes, token: str = TOKEN) -> tuple[int, Any]:
    target = parse_url(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    exchange = Exchange()
    writer.write(exchange.send("POST", target, (*HEADERS, ("Authorization", f"Bearer {token}")), body))
    while not exchange.done:
        exchange.feed(await reader.read(65536))
    writer.close()
    return exchange.status, json.loads(exchange.body)


@pytest.mark.parametrize(
    "inner",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.3.4", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "[::1]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]", "[ff02::1]", "[::]", "[::10.0.0.1]", "[64:ff9b:1::a00:1]", "[fec0::1]",
    ],
)  # fmt: skip
def test_no_address_of_an_own_network_is_looked_at(inner: str) -> None:
    with pytest.raises(ControlError):
        read_request(request(f"http://{inner}/"))
    assert read_request(request("http://example.org/", f"{inner}:80")).addresses == ()


@pytest.mark.parametrize("url", ["http://example.org:22/", "http://example.org:25/", "https://example.org:993/",
                                 "http://router/", "http://nas.lan/", "http://metadata.google.internal/"])  # fmt: skip
def test_only_ports_and_names_of_the_web_are_looked_at(url: str) -> None:
    with pytest.raises(ControlError):
        read_request(request(url))


@pytest.mark.parametrize("odd", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://localhost/"])
async def test_a_name_that_leads_home_is_not_connected_to(odd: str) -> None:
    async with serving() as to:
        status, answer = await post(to, request(odd))
    assert status in (200, 400)
    assert answer.get("tcp_connect", {}) == {}
    assert answer.get("http_request", {"failure": "refused"})["failure"]


async def test_a_redirect_into_the_own_network_is_not_followed() -> None:
    async with site(PAGE) as (inner, got):
        away = b"HTTP/1.1 302 Found\r\nLocation: " + inner.replace("127.0.0.1", "127.0.0.2").encode()
        async with (
            site(away + b"\r\nContent-Length: 0\r\n\r\n") as (outer, _),
            serving([ip_network("127.0.0.1/32")]) as to,
        ):
            status, answer = await post(to, request(outer))
    assert status == 200
    assert answer["http_request"]["status_code"] == 302
    assert got == []


async def test_who_does_not_know_the_word_gets_nothing() -> None:
    async with site(PAGE) as (url, got), serving(LOOPBACK) as to:
        assert (await post(to, request(url), token="another"))[0] == 401
        assert got == []


async def test_it_looks_as_the_probe_does_and_answers_in_oonis_words() -> None:
    async with site(PAGE) as (url, got), serving(LOOPBACK) as to:
        status, answer = await post(to, request(url))
    at = url.removeprefix("http://").strip("/")
    assert status == 200
    assert answer["tcp_connect"] == {at: {"status": True, "failure": None}}
    assert answer["dns"] == {"failure": None, "addrs": ["127.0.0.1"]}
    assert answer["http_request"] == {
        "body_length": 27,
        "discovered_h3_endpoint": "",
        "failure": None,
        "title": "Hello there",
        "headers": {"Content-Length": "27"},
        "status_code": 200,
    }
    assert len(got) == 1
    assert b"Authorization" not in got[0]


async def test_what_is_not_there_is_down_for_both() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with serving(LOOPBACK) as to:
        _, answer = await post(to, request(f"http://127.0.0.1:{port}/"))
    assert answer["tcp_connect"] == {f"127.0.0.1:{port}": {"status": False, "failure": "connection_refused_error"}}
    assert answer["http_request"]["failure"] == "connection_refused_error"


async def test_a_probe_asks_it_and_keeps_the_answer() -> None:
    async with site(PAGE) as (url, _), serving(LOOPBACK) as to:
        settings = Settings(control=True, quic=False)
        measured = await probe_url(parse_url(url), settings, control=Control(parse_url(to), TOKEN), patience=Patience())
    keys = measured["test_keys"]
    assert (keys["control_failure"], keys["control"]["http_request"]["status_code"]) == (None, 200)
    assert to.removeprefix("http://").strip("/") not in json.dumps(measured), "who looked is nobody's business"
    assert TOKEN not in json.dumps(measured)
    assert classify(from_object(measured)).layers.http == "ok"


async def test_a_probe_without_the_word_says_that_it_had_no_control() -> None:
    async with site(PAGE) as (url, _), serving(LOOPBACK) as to:
        measured = await probe_url(parse_url(url), Settings(control=True, quic=False), control=Control(parse_url(to)))
    assert measured["test_keys"]["control_failure"] == "http_request_failed"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"[]",
        b"[" * 100_000,
        b'{"x": %s}' % (b"[" * 700 + b"7" + b"]" * 700),
        b'{"dns": {"addrs": {"a": 1}}}',
        b'{"dns": 7, "tcp_connect": []}',
        b'{"dns": {"addrs": ["::1"]}, "x": NaN}',
        b'{"x": 1e999}',
    ],
    ids=["nothing", "nonsense", "list", "deep", "less deep", "odd", "odder", "no number", "infinite"],
)
async def test_a_hostile_control_harms_no_probe(answer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer)
    async with site(PAGE) as (url, _), site(head + answer) as (to, _):
        settings = Settings(control=True, quic=False)
        measured = await probe_url(parse_url(url), settings, control=Control(parse_url(to)))
    classify(from_object(measured))
    json.dumps(measured, allow_nan=False)
    assert measured["test_keys"]["requests"][0]["response"]["code"] == 200


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_S", 0.2)
    monkeypatch.setattr(control, "CONNECTION_S", 0.5)
    async with serving() as at:
        target = parse_url(at)
        for beginning in (
            b"",
            b"POST / HTTP/1.1\r\nHost: x\r\n",
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(target.host, target.port)
            writer.write(beginning)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(5):
                    await reader.read()
            writer.close()


async def test_one_address_cannot_hold_all_connections() -> None:
    async with serving() as at:
        target = parse_url(at)
        held = [await asyncio.open_connection(target.host, target.port) for _ in range(CONNECTIONS_EACH + 1)]
        with contextlib.suppress(ConnectionError):
            assert await held[-1][0].read() == b""
        for _, writer in held[:2]:
            writer.close()
        with contextlib.suppress(ConnectionError):
            await held[0][0].read()
        assert (await post(at, b"{}"))[0] == 400
        for _, writer in held:
            writer.close()


async def test_asking_too_often_is_refused() -> None:
    async with serving() as to:
        codes = [(await post(to, b"{}"))[0] for _ in range(12)]
    assert codes == [400] * 10 + [429] * 2


def test_a_rate_is_kept_for_each_and_forgotten_with_time() -> None:
    rate = Rate(burst=2, every_s=1.0)
    assert [rate.allows("a", 0.0) for _ in range(3)] == [True, True, False]
    assert rate.allows("b", 0.0)
    assert rate.allows("a", 1.0)
    assert not rate.allows("a", 1.0)


def test_a_long_request_is_refused() -> None:
    with pytest.raises(ControlError):
        read_request(b" " * (REQUEST_MAX_BYTES + 1))


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    _refused_or_public(read_request, noise)
    _refused_or_public(read_request, b'{"http_request":"http://' + noise + b'"}')


def _refused_or_public(read: Callable[[bytes], Any], data: bytes) -> None:
    with contextlib.suppress(ControlError):
        assert read(data).url.scheme in ("http", "https")
