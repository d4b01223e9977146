"""The probe's hands on real sockets of this machine: what the network does becomes the right failure."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from outlast import dns, tls
from outlast.rooms.watch.io.probe import Hands, Patience, probe_url
from outlast.rooms.watch.io.wire import failure_of, receive
from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.http import HEADERS, Exchange, parse_url
from outlast.rooms.watch.proto.measurement import from_object
from outlast.rooms.watch.proto.probe import Answered, Query, Settings
from outlast.rooms.watch.proto.web_connectivity import publishable
from tests import nameserver
from tests.real import real
from tests.unit.rooms.watch.pcap import RST, Packet, packets

QUICK = Patience(dns_s=1.0, connect_s=1.0, tls_s=1.0, fetch_s=1.0)
ALONE = Settings(quic=False, isolate=False)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HELD: list[asyncio.StreamWriter] = []


@contextlib.asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """A server on this machine; its address with port."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        while HELD:
            HELD.pop().close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def probed(scheme: str, talk: Talk) -> dict[str, Any]:
    async with listening(talk) as at:
        return await probe_url(parse_url(f"{scheme}://{at}/"), ALONE, patience=QUICK)


def answering(*pieces: bytes, then: Callable[[asyncio.StreamWriter], None] = lambda writer: writer.close()) -> Talk:
    """A server that reads something, says this and ends."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        then(writer)

    return talk


def stay(writer: asyncio.StreamWriter) -> None:
    """Keep the connection open until the server ends: from 3.13 on Python closes what nobody holds."""
    HELD.append(writer)


@pytest.mark.parametrize(
    ("talk", "failure"),
    [
        (answering(then=reset), "connection_reset"),
        (answering(), "eof_error"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe"), "eof_error"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhe", then=stay), "generic_timeout_error"),
        (answering(b"no HTTP at all\r\n\r\n"), "unknown_failure: malformed HTTP response"),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhe"), None),
    ],
    ids=["reset", "end", "cut short", "stalled", "no HTTP", "page"],
)
async def test_what_happens_to_a_request_has_its_name(talk: Talk, failure: str | None) -> None:
    keys = (await probed("http", talk))["test_keys"]
    assert [one["failure"] for one in keys["requests"]] == [failure]
    assert keys["http_experiment_failure"] == failure


@pytest.mark.parametrize(
    ("talk", "failure", "first"),
    [
        (answering(then=reset), "connection_reset", ""),
        (answering(), "eof_error", ""),
        (answering(then=stay), "generic_timeout_error", ""),
        (answering(b"HTTP/1.1 403 Forbidden\r\n\r\n", then=stay), "ssl_failed_handshake", "not_tls"),
        (answering(bytes.fromhex("15030300020270"), then=stay), "ssl_failed_handshake", "alert"),
    ],
    ids=["reset", "end", "stalled", "page", "alert"],
)
async def test_what_happens_to_a_handshake_has_its_name(talk: Talk, failure: str, first: str) -> None:
    [shaken] = (await probed("https", talk))["test_keys"]["tls_handshakes"]
    assert (shaken["failure"], shaken["x_first_bytes"]) == (failure, first)
    assert shaken["x_alert"] == (tls.UNRECOGNIZED_NAME if first == "alert" else None)


async def test_a_port_where_nobody_listens_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    keys = (await probe_url(parse_url(f"http://127.0.0.1:{port}/"), ALONE, patience=QUICK))["test_keys"]
    assert [one["status"]["failure"] for one in keys["tcp_connect"]] == ["connection_refused"]
    assert keys["requests"] == []


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (10, "ssl_invalid_certificate"),
        (18, "ssl_unknown_authority"),
        (20, "ssl_unknown_authority"),
        (62, "ssl_invalid_hostname"),
        (64, "ssl_invalid_hostname"),
    ],
)
def test_a_bad_certificate_has_its_name(code: int, failure: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    assert failure_of(error) == failure


async def test_all_replies_to_a_query_are_heard_and_those_to_others_are_not() -> None:
    loop = asyncio.get_running_loop()

    class Resolver(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"noise", addr)
            self.transport.sendto(nameserver.reply(bytes([data[0] ^ 1]) + data[1:], ("9.9.9.9",)), addr)
            for address in ("10.10.34.35", "93.184.216.34"):
                self.transport.sendto(nameserver.reply(data, (address,)), addr)

    transport, _ = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    async with Hands(QUICK, None) as hands:
        hands.take([Query(1, f"127.0.0.1:{port}", "example.org", 0.2)])
        event = await hands.events.get()
    transport.close()
    assert isinstance(event, Answered)
    heard = [reply.addresses for _, reply in event.replies if reply.type == dns.A]
    assert heard == [("10.10.34.35",), ("93.184.216.34",)]


@contextlib.contextmanager
def flooding(data: bytes) -> Iterator[int]:
    """A server, not of this loop, that sends this without end to who connects first; its port."""
    over = threading.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    sock.settimeout(10.0)

    def send() -> None:
        with contextlib.suppress(OSError), sock.accept()[0] as wire:
            wire.settimeout(10.0)
            end = time.monotonic() + 10.0
            while not over.is_set() and time.monotonic() < end:
                wire.send(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        over.set()
        thread.join()
        sock.close()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 100 C\r\n\r\n" * 3000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 60_000,
        b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 3000,
    ],
    ids=["informational", "a number of zeros", "headers"],
)
async def test_an_answer_without_end_ends_in_time(data: bytes) -> None:
    with flooding(data) as port:
        began = time.monotonic()
        patience = replace(QUICK, connect_s=5.0, fetch_s=5.0)  # the sender takes this process's time, too
        keys = (await probe_url(parse_url(f"http://127.0.0.1:{port}/"), ALONE, patience=patience))["test_keys"]
        assert time.monotonic() - began < 8
    assert keys["requests"][0]["failure"] == "unknown_failure: malformed HTTP response"


async def test_who_sends_faster_than_is_read_leaves_others_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        for _ in range(5):
            theirs.send(b"noise")
        task = asyncio.create_task(other())
        for _ in range(5):
            assert await receive(ours, 100) == b"noise"
        task.cancel()
    assert turns >= 4


async def test_cookies_are_struck_and_pages_texts_leave_only_their_title_and_length() -> None:
    page = "<title>A &amp; B</title>Your address is secret. Grüße".encode()
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=77\r\nContent-Length: %d\r\n\r\n" % len(page)
    measured = await probed("http", answering(head + page))
    assert "id=77" not in json.dumps(measured)
    [request] = publishable(measured)["test_keys"]["requests"]
    body = request["response"]["body"]
    assert body.strip() == "<title>A &amp; B</title>"
    assert len(body.encode()) == len(page)
    assert request["x_body_scrubbed"]


async def test_no_address_that_a_page_repeats_and_no_session_of_a_redirect_is_in_what_others_get() -> None:
    # Behind a router the public address is known to the page alone.
    page = b"<title>Blocked for 5.22.200.77</title>"
    head = (
        b"HTTP/1.1 200 OK\r\nX-Client-Ip: 5.22.200.77\r\nX-Host: a-5-22-200-77.isp.example\r\nX-Six: 2a00:1:2::77\r\n"
    )
    head += b"X-Mapped: ::ffff:5.22.200.77\r\nX-Server: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(page)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        away = b"HTTP/1.1 302 Found\r\nLocation: /?sid=77777&ip=5.22.200.77\r\nContent-Length: 0\r\n\r\n"
        writer.write(away if b"sid" not in asked else head + page)
        writer.close()

    measured = await probed("http", talk)
    text = json.dumps(publishable(measured))
    assert "77777" in json.dumps(measured)
    for gone in ("5.22.200", "5-22-200", "2a00:1:2", "77777"):
        assert gone not in text
    assert '"X-Server": "127.0.0.1"' in text
    assert classify(from_object(publishable(measured))) == classify(from_object(measured))


# ---- packets of a real middlebox ----


def streams(name: str) -> list[list[Packet]]:
    """The connections of a capture at the server, one after the other."""
    found: dict[tuple[str, int], list[Packet]] = {}
    for packet in packets(real(f"watch/pcap/{name}")):
        client = packet.source if packet.target[1] == 80 else packet.target
        found.setdefault(client, []).append(packet)
    return list(found.values())


def forged(stream: list[Packet]) -> list[Packet]:
    """Resets in the client's name that came from elsewhere: the way here took another number of hops."""
    theirs = [packet for packet in stream if packet.target[1] == 80]
    return [packet for packet in theirs if packet.flags & RST and packet.ttl != theirs[0].ttl]


@pytest.mark.parametrize("name", ["airtel_http_injection.pcap", "airtel_https_rst.pcap"])
def test_the_middlebox_reset_every_connection_of_the_captures(name: str) -> None:
    assert all(forged(stream) for stream in streams(name))


def test_the_name_for_which_it_did_stands_in_its_clients_hello() -> None:
    for stream in streams("airtel_https_rst.pcap"):
        [hello] = [packet.payload for packet in stream if packet.target[1] == 80 and packet.payload]
        read = tls.read_flight(hello)
        assert read.kind == "client_hello"
        assert read.server_name is not None


@pytest.mark.parametrize(
    ("name", "scheme", "layer"),
    [("airtel_http_injection.pcap", "http", "http"), ("airtel_https_rst.pcap", "https", "tls")],
)
async def test_its_resets_replayed_to_a_probe_are_blocking_when_the_control_got_through(
    name: str, scheme: str, layer: str
) -> None:
    for stream in streams(name):
        assert forged(stream)
        measured = await probed(scheme, answering(then=reset))
        keys = measured["test_keys"]
        at = f"{keys['tcp_connect'][0]['ip']}:{keys['tcp_connect'][0]['port']}"
        good = {"status": True, "failure": None}
        keys["control_failure"] = None
        keys["control"] = {
            "tcp_connect": {at: good},
            "tls_handshake": {at: good | {"server_name": "127.0.0.1"}} if scheme == "https" else {},
            "http_request": {"failure": None, "status_code": 200, "body_length": 9, "title": "", "headers": {}},
            "dns": {"failure": None, "addrs": ["127.0.0.1"]},
        }
        verdict = classify(from_object(measured))
        assert getattr(verdict.layers, layer) == "blocked"


def test_the_servers_own_answer_in_the_capture_is_read() -> None:
    pages = []
    for stream in streams("airtel_http_injection.pcap"):
        exchange = Exchange()
        exchange.send("GET", parse_url("http://www.example.org/"), HEADERS)
        seen: set[bytes] = set()
        for packet in stream:
            if packet.source[1] == 80 and packet.payload and packet.payload not in seen and not exchange.done:
                seen.add(packet.payload)
                exchange.feed(packet.payload)
        pages.append((exchange.status, len(exchange.body) > 5000))
    assert pages == [(200, True)] * 3
