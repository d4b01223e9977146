"""A bridge is tried with 64 KB there and back, and what stops it gets its class."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from outlast.address import Target
from outlast.errors import OutlastError, UsageError
from outlast.rooms.reach.io import attempt as attempts
from outlast.rooms.reach.io import names
from outlast.rooms.reach.io.attempt import PROOF_BYTES, Tried, attempt, read_url, reconsider
from outlast.rooms.reach.io.certificates import self_signed
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.relay import Running, Server, ShadowsocksServer, WebServer, carrier_of, server_of
from outlast.rooms.reach.io.tap import Tap
from outlast.rooms.reach.proto.bridge import Bridge, ProxyBridge, WebBridge
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.failures import Failure, Kind
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, write_bridge
from outlast.rooms.reach.proto.request import Credentials
from tests.rooms.reach.gates import ANY, Place, place

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture(scope="module")
def proxy(here: Place) -> Gate:
    """A SOCKS server with one of our exits behind it, which answers the echo."""
    return here.gate()


@pytest.fixture
def forged(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody trusts."""
    self_signed(tmp_path, "test.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web-certificate.pem", tmp_path / "web-key.pem")
    return context


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is known for what it is after a moment."""
    monkeypatch.setattr(attempts, "SILENCE_S", 0.5)


def trying(bridge: Bridge, url: str = "", known: str = "") -> Tried:
    return asyncio.run(attempt(bridge, carrier_of, url=url, known=known))


def behind(serve: Serve, bridge: Callable[[Target], Bridge], url: str = "") -> Tried:
    """What an attempt finds at a server."""

    async def run() -> Tried:
        server = await asyncio.start_server(serve, LOOPBACK, 0)
        async with server:
            at = Target(LOOPBACK, server.sockets[0].getsockname()[1])
            return await attempt(bridge(at), carrier_of, url=url)

    return asyncio.run(run())


def socks(at: Target) -> ProxyBridge:
    return ProxyBridge(at, "socks5")


def name_of(tried: Tried) -> str | None:
    return tried.failure and tried.failure.name


def passing_on(to: Target, limit_bytes: int | None = None) -> Serve:
    """Somebody on the way, who goes silent after so many bytes that came back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*to)

        async def out() -> None:
            while data := await reader.read(4096):
                far_writer.write(data)
                await far_writer.drain()

        async def back() -> None:
            passed = 0
            while data := await far_reader.read(1000):
                if limit_bytes is not None and passed >= limit_bytes:
                    await asyncio.Event().wait()
                writer.write(data)
                passed += len(data)
                await writer.drain()

        with suppress(OSError):
            await asyncio.gather(out(), back())

    return serve


def test_a_bridge_that_answers_the_echo_passes_and_its_speed_is_known(proxy: Gate) -> None:
    tried = trying(ProxyBridge(Target("localhost", proxy.at.port), "socks5"))
    assert tried.failure is None
    assert tried.proof
    assert tried.kbps
    assert tried.ttfb_ms is not None
    assert tried.address == LOOPBACK
    assert tried.bridge == socks(proxy.at)


def test_a_stream_that_freezes_fails_although_its_handshake_went_well(proxy: Gate) -> None:
    tried = behind(passing_on(proxy.at, 16_000), socks)
    assert tried.failure is not None
    assert tried.failure.name == f"freeze@{tried.failure.at_bytes}"
    assert 16_000 <= tried.failure.at_bytes < 17_000


def test_a_closed_port_is_refused() -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    assert name_of(trying(socks(Target(LOOPBACK, port)))) == "refused"


def test_a_full_queue_that_answers_no_handshake_is_a_dropped_syn() -> None:
    with socket.socket() as deaf:
        deaf.bind((LOOPBACK, 0))
        deaf.listen(0)
        at = Target(LOOPBACK, deaf.getsockname()[1])
        with socket.create_connection(at), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(at)
            assert name_of(trying(socks(at))) == "syn-drop"


def test_a_name_without_address_is_dns() -> None:
    assert name_of(trying(socks(Target("nothing.invalid", 1080)))) == "dns"


def test_a_name_that_leads_elsewhere_is_passed_by_with_the_address_that_worked(proxy: Gate) -> None:
    at = Target("localhost", proxy.at.port)
    assert name_of(trying(socks(at), known="127.0.0.9")) is None

    async def run() -> Tried:
        async def elsewhere(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        # The name leads to somebody else, whose port is open.
        server = await asyncio.start_server(elsewhere, LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        true = await asyncio.start_server(passing_on(proxy.at), "127.0.0.9", port)
        async with server, true:
            return await attempt(socks(Target("localhost", port)), carrier_of, known="127.0.0.9")

    tried = asyncio.run(run())
    assert tried.failure is None
    assert tried.bridge.at.host == "127.0.0.9"


def test_a_reset_after_the_first_bytes_is_one() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    assert name_of(behind(reset, socks)) == "rst-after-hello"


def test_of_a_server_that_says_nothing_nothing_is_claimed() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert name_of(behind(silent, socks)) == "unknown"


def test_a_proxy_that_wants_another_password_says_so(here: Place) -> None:
    gate = here.gate(credentials=Credentials(b"alice", b"correct horse"))
    assert name_of(trying(ProxyBridge(gate.at, "socks5", "alice", "correct horse"))) is None
    assert name_of(trying(ProxyBridge(gate.at, "socks5", "alice", "battery"))) == "wrong-key"


# ---- our own servers ----


@pytest.fixture(scope="module")
def own(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Bridge]]:
    """A server of each kind."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("<title>Bread</title>")
    key = base64.b64encode(bytes(32)).decode()
    kinds: dict[str, Server] = {
        "web": WebServer(ANY, LOOPBACK, str(folder / "site"), (bytes(32),), str(folder)),
        "ss-2022": ShadowsocksServer(ANY, LOOPBACK, "2022-blake3-aes-256-gcm", key),
        "ss": ShadowsocksServer(ANY, LOOPBACK, "aes-256-gcm", "kingfisher"),
    }

    async def start() -> dict[str, Running]:
        exit_ = Exit(here.loop, allowing_private())
        return {name: await server_of(exit_, server) for name, server in kinds.items()}

    async def close() -> None:
        for one in running.values():
            await one.close()

    running = asyncio.run_coroutine_threadsafe(start(), here.loop).result(20)
    yield {name: read_bridge(one.links[0]) for name, one in running.items()}
    asyncio.run_coroutine_threadsafe(close(), here.loop).result(20)


@pytest.mark.parametrize("kind", ["web", "ss-2022", "ss"])
def test_our_own_servers_answer_the_echo(own: dict[str, Bridge], kind: str) -> None:
    tried = trying(own[kind])
    assert (name_of(tried), tried.proof) == (None, True)


@pytest.mark.parametrize(
    ("kind", "wrong", "name"),
    [
        ("web", {"secret": bytes(31) + b"x"}, "wrong-key"),
        ("web", {"pin": bytes(32)}, "tls-mitm"),
        ("web", {"pin": b""}, "tls-mitm"),
        ("ss-2022", {"password": base64.b64encode(bytes(31) + b"x").decode()}, "wrong-key"),
        ("ss", {"password": "halcyon"}, "wrong-key"),
    ],
)
def test_a_link_with_something_wrong_in_it_fails_by_its_class(
    own: dict[str, Bridge], kind: str, wrong: dict[str, object], name: str
) -> None:
    assert name_of(trying(msgspec.structs.replace(own[kind], **wrong))) == name


@pytest.mark.parametrize("other", ["web", "ss"])
@pytest.mark.parametrize(
    ("led_to", "name"),
    [("127.0.0.9", "dns"), (LOOPBACK, "refused"), ("", "refused")],
    ids=["elsewhere", "to the bridge", "unknown"],
)
def test_another_bridge_tells_whether_a_name_was_forged(
    own: dict[str, Bridge], other: str, led_to: str, name: str
) -> None:
    bridge = msgspec.structs.replace(own["web"], at=Target("localhost", own["web"].at.port))
    failed = Tried(bridge, Failure(Kind.REFUSED, "nobody there"), address=led_to)

    async def run() -> Tried:
        carrier = await carrier_of(own[other], lambda error: None)
        try:
            return await reconsider(bridge, failed, carrier)
        finally:
            carrier.close()

    assert name_of(asyncio.run(run())) == name


def test_plain_http_in_place_of_tls_is_a_captive_portal(own: dict[str, Bridge]) -> None:
    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n")
        writer.close()

    assert name_of(behind(portal, lambda at: msgspec.structs.replace(own["web"], at=at))) == "captive-portal"


@pytest.mark.parametrize(("kind", "cut_bytes"), [("ss", 0), ("web", 10_000)], ids=["stands", "was cut meanwhile"])
def test_a_stream_that_crawls_is_throttled_whatever_became_of_its_first_connection(
    own: dict[str, Bridge], monkeypatch: pytest.MonkeyPatch, kind: str, cut_bytes: int
) -> None:
    monkeypatch.setattr(attempts, "SILENCE_S", 60.0)
    left = [cut_bytes] if cut_bytes else []

    async def crawl(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection(*own[kind].at)
        cut_at = left.pop() if left else None

        async def up() -> None:
            while data := await reader.read(4096):
                out.write(data)
                await out.drain()

        with suppress(OSError, asyncio.CancelledError):
            upward = asyncio.create_task(up())
            passed = 0
            while (cut_at is None or passed < cut_at) and (data := await far.read(1000)):
                writer.write(data)
                passed += len(data)
                if cut_at is None and passed > 2000:
                    monkeypatch.setattr(attempts, "ATTEMPT_S", 0.0)  # now the time is over
                    await upward
            writer.close()
            upward.cancel()

    assert name_of(behind(crawl, lambda at: msgspec.structs.replace(own[kind], at=at))) == "throttled"
    assert not left


def test_a_server_of_others_that_reaches_nothing_is_not_said_to_have_another_key(own: dict[str, Bridge]) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    assert name_of(behind(end, lambda at: msgspec.structs.replace(own["ss"], at=at))) == "unknown"


# ---- bridges that know no echo ----


def test_a_page_that_stands_still_is_no_first_byte() -> None:
    async def freezing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"echo.outlast.invalid" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(bytes(16_000))
            await reader.read()
        writer.close()

    assert name_of(behind(freezing, http, "http://192.0.2.1/64k")) == "freeze@16019"


def test_a_proxy_that_reaches_nothing_is_no_captive_portal() -> None:
    async def bad_gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        writer.close()

    assert name_of(behind(bad_gateway, http)) == "unknown"


@pytest.mark.parametrize("status", [b"302 Found", b"511 Network Authentication Required"])
def test_a_proxy_in_whose_place_somebody_asks_to_sign_in_is_a_captive_portal(status: bytes) -> None:
    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %b\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    assert name_of(behind(portal, http)) == "captive-portal"


@pytest.mark.parametrize("url", ["", "https://test.example/64k", "http://test.example/64k"])
@pytest.mark.parametrize("says_at_once", [True, False])
def test_a_portal_that_opens_every_way_and_stands_behind_it_itself_is_a_captive_portal(
    url: str, says_at_once: bool, forged: ssl.SSLContext
) -> None:
    async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if says_at_once:
            writer.write(b"<html>sign in</html>")
        elif b":443" in head:
            with suppress(ConnectionError):
                await writer.start_tls(forged)
        else:
            await reader.read(1)
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1)
        writer.close()

    assert name_of(behind(portal, http, url)) == "captive-portal"


def test_a_proxy_behind_which_a_certificate_is_forged_is_no_captive_portal(forged: ssl.SSLContext) -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if b":443" in head:
            with suppress(ConnectionError):
                await writer.start_tls(forged)
        elif b"echo.outlast.invalid" not in head:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    assert name_of(behind(proxy, http, "https://test.example/64k")) == "tls-mitm"


def only_to_tls(page: bytes, context: ssl.SSLContext) -> Serve:
    """A proxy as squid is when it comes: it opens tunnels to port 443 alone, where ``page`` is the answer."""

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b":443 " not in head:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        elif not page:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with suppress(ConnectionError):
                await writer.start_tls(context)
                await reader.readuntil(b"\r\n\r\n")
                writer.write(page)
        writer.close()

    return proxy


def test_a_proxy_that_opens_tunnels_to_the_port_of_tls_alone_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    self_signed(tmp_path, "connectivitycheck.gstatic.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web-certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web-certificate.pem", tmp_path / "web-key.pem")
    tried = behind(only_to_tls(b"HTTP/1.1 204 No Content\r\n\r\n", context), http)
    assert (name_of(tried), tried.proof) == (None, False)


@pytest.mark.parametrize("is_proxy", [True, False], ids=["proxy", "web"])
@pytest.mark.parametrize("days", [-4000, 30], ids=["expired", "not yet valid"])
def test_a_certificate_that_is_out_of_date_is_nobody_on_the_way_for_the_clock_here_may_be_wrong(
    days: int, is_proxy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    self_signed(tmp_path, "connectivitycheck.gstatic.com", now)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "web-certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web-certificate.pem", tmp_path / "web-key.pem")
    page = only_to_tls(b"HTTP/1.1 204 No Content\r\n\r\n", context)

    async def site(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            await writer.start_tls(context)
        writer.close()

    def web(at: Target) -> WebBridge:
        return WebBridge(at, "connectivitycheck.gstatic.com", bytes(32))

    tried = behind(page, http) if is_proxy else behind(site, web)
    assert tried.failure is not None
    assert tried.failure.name == "unknown"
    assert "out of date, unless the clock here is wrong" in str(tried.failure.evidence)


def test_a_proxy_that_refuses_some_ports_and_reaches_nothing_is_not_said_to_want_another_password(
    forged: ssl.SSLContext,
) -> None:
    assert name_of(behind(only_to_tls(b"", forged), http)) == "unknown"


def test_behind_a_proxy_that_opens_tunnels_to_the_port_of_tls_alone_a_forged_certificate_is_seen(
    forged: ssl.SSLContext,
) -> None:
    assert name_of(behind(only_to_tls(b"HTTP/1.1 204 No Content\r\n\r\n", forged), http)) == "tls-mitm"


def test_a_test_page_that_was_moved_is_no_captive_portal() -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"echo.outlast.invalid" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            asked = await reader.readuntil(b"\r\n\r\n")
            moved = b"301 Moved Permanently\r\nLocation: https://test.example/64k"
            status = moved if b"/64k" in asked else b"204 No Content"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    assert behind(proxy, http, "http://test.example/64k").failure is None


def test_the_resolver_of_a_loop_that_is_over_is_let_go() -> None:
    for _ in range(3):
        assert asyncio.run(names.look_up("localhost"))
    assert len(names._of_loops) == 1


def test_a_tap_without_files_for_connections_waits_and_takes_no_time(proxy: Gate) -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        async with Tap(proxy.at) as tap:
            with socket.socket() as caller:
                caller.setblocking(False)
                limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (caller.fileno() + 1, limits[1]))
                try:
                    await loop.sock_connect(caller, (tap.at.host, tap.at.port))
                    began_s = time.process_time()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(1.2):
                            await loop.sock_recv(caller, 1)
                    took_s = time.process_time() - began_s
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                await loop.sock_sendall(caller, b"\x05\x01\x00")
                assert await loop.sock_recv(caller, 2) == b"\x05\x00"
        return took_s

    assert asyncio.run(run()) < 0.4


async def echoless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A proxy that takes anybody anywhere, as long as that is 64 KB of a page."""
    with suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"echo.outlast.invalid" in head:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            request = await reader.readuntil(b"\r\n\r\n")
            large = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(PROOF_BYTES)
            writer.write(large if b"/64k" in request else b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()


def http(at: Target) -> ProxyBridge:
    return ProxyBridge(at, "http")


def test_of_a_bridge_without_echo_64_kb_of_the_operators_url_are_proof() -> None:
    tried = behind(echoless, http, "http://192.0.2.1/64k")
    assert (name_of(tried), tried.proof) == (None, True)
    assert tried.kbps


def test_of_a_bridge_without_echo_a_first_byte_has_to_do_and_is_no_proof() -> None:
    tried = behind(echoless, http)
    assert (name_of(tried), tried.proof, tried.kbps) == (None, False, None)
    assert tried.ttfb_ms is not None


@pytest.mark.parametrize("text", ["ftp://a.example/", "http://", "64k", "http://a b/", "http://1.2.3/", "http://a:x/"])
def test_a_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_url(text)


def test_a_carrier_that_cannot_be_made_says_why() -> None:
    async def broken(_bridge: Bridge, _tell: object) -> None:
        raise OutlastError("install obfs4proxy")

    tried = asyncio.run(attempt(socks(Target(LOOPBACK, 9)), broken))  # type: ignore[arg-type]
    assert tried.failure is not None
    assert str(tried.failure.evidence) == "install obfs4proxy"


def test_attempts_leave_nothing_behind_however_they_end(own: dict[str, Bridge]) -> None:
    dead = ProxyBridge(Target(LOOPBACK, 1), "socks5")
    # The server, which is in this process, keeps sessions of the mux for a while, so that they can be resumed.
    bridges = [own["ss"], own["ss-2022"], msgspec.structs.replace(own["web"], secret=b"x" * 32), dead]

    async def run(called_off_after_s: float | None) -> None:
        runs = [asyncio.create_task(attempt(bridge, carrier_of)) for bridge in bridges]
        if called_off_after_s is not None:
            await asyncio.wait(runs, timeout=called_off_after_s)
            for one in runs:
                one.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def files() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    async def all_of_them() -> None:
        await run(None)
        before = len(files()), len(asyncio.all_tasks())
        for after_s in (0, 0.001, 0.003, 0.01, 0.03, None):
            await run(after_s)
        for _ in range(100):
            if (len(files()), len(asyncio.all_tasks())) <= before:
                break
            await asyncio.sleep(0.05)
        assert (len(files()), len(asyncio.all_tasks())) <= before

    asyncio.run(all_of_them())


# ---- the command ----


def test_the_command_shows_each_way_out_in_a_line_without_a_home(proxy: Gate) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        dead = socks(Target(LOOPBACK, closed.getsockname()[1]))
    works = socks(proxy.at)
    links = [part for bridge in (works, dead) for part in ("--bridge", write_bridge(bridge))]
    program = "from outlast.edges.main import main; main()"
    command = [sys.executable, "-c", program, "--home", "/nonexistent", "reach", "test", *links]
    said = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True)
    answers = {answer["bridge"]: answer for answer in map(json.loads, said.stdout.splitlines())}
    assert answers[bridge_id(works)] | {"ttfb_ms": 1, "kbps": 1} == {
        "bridge": bridge_id(works),
        "ok": True,
        "class": None,
        "ttfb_ms": 1,
        "kbps": 1,
    }
    assert answers[bridge_id(dead)] == {
        "bridge": bridge_id(dead),
        "ok": False,
        "class": "refused",
        "ttfb_ms": None,
        "kbps": None,
    }
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "works" in said.stdout
    assert "refused" in said.stdout
    assert LOOPBACK not in said.stdout + said.stderr
