"""The transport ``web`` on loopback: who knows the path is let in, everybody else is at the site."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from outlast.address import Target
from outlast.errors import StorageError, UsageError
from outlast.rooms.reach.io import web_server
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.site import open_site
from outlast.rooms.reach.io.tls import LONG_BYTES
from outlast.rooms.reach.io.web_client import Dial, WebFailed, WebOpener
from outlast.rooms.reach.io.web_server import READ_BYTES, UNSENT_MAX_BYTES, Site
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.failures import Kind, Step, Stop
from tests.rooms.reach.bridges import NAME, Collector, running_bridge, write_site
from tests.rooms.reach.gates import serving
from tests.rooms.reach.prober import probe
from tests.rooms.reach.websites import free_port


def test_who_knows_the_secret_gets_an_outer_that_carries_bytes_both_ways(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            outer = await WebOpener(running.bridge())()
            mine = Collector(outer)
            sent = random.Random(1).randbytes(5_000_000)
            mine.outer.write(sent)
            await mine.until(lambda: len(mine.data) == len(sent))
            assert mine.data == sent
            assert running.users == ["one"]
            assert outer.engine.version() == "TLSv1.3"
            outer.close()

    asyncio.run(story())


def test_the_next_outer_resumes_the_tls_session_of_the_last_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            opener = WebOpener(running.bridge())
            reused = []
            for _ in range(3):
                outer = await opener()
                reused.append(outer.engine.session_reused)
                outer.close()
            assert reused == [False, True, True]

    asyncio.run(story())


def test_an_outer_with_slow_sides_and_tiny_buffers_loses_nothing(tmp_path: Path) -> None:
    async def dial(target: Target) -> socket.socket:
        sock = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 2048)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, tuple(target))
        return sock

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            outer = await WebOpener(running.bridge(), dial=dial)()
            mine = Collector(outer)
            chance = random.Random(2)
            sent = bytearray()
            for turn in range(300):
                piece = chance.randbytes(chance.choice((1, 2, 100, 5_000, 40_000)))
                sent += piece
                outer.write(bytearray(piece))
                if turn % 7 == 0:
                    outer.pause()
                    await asyncio.sleep(0)
                    outer.resume()
                if outer.unsent > 100_000:
                    drains = mine.drains
                    await mine.until(lambda drains=drains: mine.drains > drains)  # type: ignore[misc]
            await mine.until(lambda: len(mine.data) == len(sent))
            assert mine.data == sent
            assert outer.received_bytes > len(sent) < outer.sent_bytes

    asyncio.run(story())


def test_a_reset_and_an_end_are_told_to_the_owner_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path, accept=Collector) as running:
            mine = Collector(await WebOpener(running.bridge())())
            running.outers[0].close()
            await mine.until(lambda: bool(mine.over))
            assert mine.over == [None]
            other = Collector(await WebOpener(running.bridge())())
            abort = running.outers[1].abort  # type: ignore[attr-defined]
            abort()
            await other.until(lambda: bool(other.over))
            other.outer.write(b"into the void")
            assert [str(error) for error in other.over if error]
            assert len(other.over) == 1

    asyncio.run(story())


def test_a_client_whose_clock_is_weeks_off_learns_the_day_from_the_site_and_gets_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            for off_s in (-40 * 86_400, 400 * 86_400):
                opener = WebOpener(running.bridge(), clock=lambda off_s=off_s: time.time() + off_s)
                for _ in range(2):
                    (await opener()).close()
            assert running.users == ["one"] * 4

    asyncio.run(story())


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_a_clock_that_is_a_day_off_needs_no_second_try(tmp_path: Path, days: int) -> None:
    asked = []

    async def dial(target: Target) -> socket.socket:
        asked.append(target)
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, tuple(target))
        return sock

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            opener = WebOpener(running.bridge(), dial=dial, clock=lambda: time.time() + days * 86_400)
            (await opener()).close()
            assert len(asked) == 1

    asyncio.run(story())


def test_a_strangers_secret_leads_to_the_site_and_is_told_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            with pytest.raises(WebFailed) as failed:
                await WebOpener(running.bridge(bytes(32)))()
            assert failed.value.failure.kind is Kind.WRONG_KEY
            assert running.users == []

    asyncio.run(story())


def test_somebody_in_the_middle_with_another_certificate_hears_no_path(tmp_path: Path) -> None:
    async def story() -> None:
        other = self_signed(tmp_path / "other", NAME)
        async with running_bridge(tmp_path) as running:
            with pytest.raises(WebFailed) as failed:
                await WebOpener(running.bridge(pin=other.pin))()
            assert failed.value.failure.kind is Kind.TLS_MITM
            with pytest.raises(WebFailed) as failed:
                await WebOpener(running.bridge(pin=b""))()
            assert (failed.value.seen.step, failed.value.seen.stop) == (Step.HELLO, Stop.CERTIFICATE)
            trust = ssl.create_default_context(cafile=str(tmp_path / "keys" / "web-certificate.pem"))
            (await WebOpener(running.bridge(pin=b""), trust=trust)()).close()
            with pytest.raises(WebFailed) as failed:
                await WebOpener(running.bridge(pin=b"", name="other.example"), trust=trust)()
            assert failed.value.failure.kind is Kind.TLS_MITM
            assert running.users == ["one"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "kind", "stop"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n", Kind.CAPTIVE_PORTAL, Stop.PLAIN),
        (b"220 mail.example ESMTP\r\n", Kind.UNKNOWN, Stop.ANSWER),
        (b"", Kind.UNKNOWN, Stop.CLOSED),
        (None, Kind.RST_AFTER_HELLO, Stop.RESET),
    ],
)
def test_what_answers_in_place_of_the_bridge_is_told_apart(
    tmp_path: Path, answer: bytes | None, kind: Kind, stop: Stop
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if answer is None:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            await reader.read(1000)
            writer.write(answer)
            writer.close()

    async def story() -> None:
        async with running_bridge(tmp_path) as running, await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(WebFailed) as failed:
                await WebOpener(running.bridge(at=Target("127.0.0.1", port)))()
            assert (failed.value.failure.kind, failed.value.seen.stop) == (kind, stop)

    asyncio.run(story())


def test_a_port_where_nothing_listens_and_a_name_that_is_none_are_told_apart(tmp_path: Path) -> None:
    async def story() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        async with running_bridge(tmp_path) as running:
            for at, kind in ((Target("127.0.0.1", port), Kind.REFUSED), (Target("x.invalid", 1), Kind.DNS)):
                with pytest.raises(WebFailed) as failed:
                    await WebOpener(running.bridge(at=at))()
                assert failed.value.failure.kind is kind

    asyncio.run(story())


def test_a_certificate_that_changes_is_taken_over_and_half_a_change_is_not(tmp_path: Path) -> None:
    now = [0.0]
    self_signed(tmp_path / "own", NAME)
    files = (tmp_path / "own" / "web-certificate.pem", tmp_path / "own" / "web-key.pem")
    certificate = Certificate(*files, clock=lambda: now[0])
    before, pin = certificate.context(), certificate.pin
    self_signed(tmp_path / "new", NAME)
    for file, same in zip(files, (True, False), strict=True):
        file.write_bytes((tmp_path / "new" / file.name).read_bytes())
        now[0] += 60
        assert (certificate.context() is before) is same
    assert certificate.pin != pin
    assert not certificate.vouched_for(NAME)
    assert self_signed(tmp_path / "new", NAME).pin == certificate.pin
    files[0].write_text("no certificate")
    with pytest.raises(StorageError, match="cannot be used"):
        Certificate(*files)


def test_nobody_at_a_terminal_is_asked_for_the_passphrase_of_a_key_while_all_stands(tmp_path: Path) -> None:
    self_signed(tmp_path, NAME)
    files = (tmp_path / "web-certificate.pem", tmp_path / "web-key.pem")
    key = load_pem_private_key(files[1].read_bytes(), None)
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"locked")))
    load = f"from outlast.rooms.reach.io.web_server import server_context; server_context{tuple(map(str, files))}"
    terminal = f"import pty, sys; pty.spawn([sys.executable, '-c', {load!r}])"
    said = subprocess.run([sys.executable, "-c", terminal], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert b"the key has a passphrase" in said.stdout


def test_a_site_that_is_off_keeps_nobody_out_who_knows_the_path(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path, Site(("127.0.0.1", free_port()))) as running:
            (await WebOpener(running.bridge())()).close()
            seen = await asyncio.to_thread(probe, running.port, [("send", b"GET / HTTP/1.1\r\n\r\n")])
            assert (seen.answers, seen.end) == ([], "reset")
            assert running.server.connections == 0

    asyncio.run(story())


def test_visitors_who_read_slowly_hold_no_memory_and_leave_nothing_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            before = len(os.listdir("/proc/self/fd"))
            visits = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", running.port, ssl=trusting(), limit=1024, server_hostname=NAME
                )
                writer.write(b"GET /bread.bin HTTP/1.1\r\nHost: site.example\r\n\r\n" * 8)
                await writer.drain()
                await reader.readexactly(1000)
                visits.append(writer)
            assert running.server.connections == 20
            waiting = [visit.tls.unsent for visit in running.server._visits]
            assert max(waiting) <= UNSENT_MAX_BYTES + READ_BYTES + 10_000
            for writer in visits:
                writer.transport.abort()
            async with asyncio.timeout(10):
                while running.server.connections or len(os.listdir("/proc/self/fd")) > before:
                    await asyncio.sleep(0.01)
            assert running.server.shaking == {}

    asyncio.run(story())


def test_a_visitor_who_reads_on_slowly_gets_the_whole_answer_also_after_the_site_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "LINGER_S", 0.5)
    size = 240_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(bytes(size))
        writer.close()

    def read(port: int) -> int:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.connect(("127.0.0.1", port))
        came = 0
        with trusting().wrap_socket(sock, server_hostname=NAME, suppress_ragged_eofs=True) as one:
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while data := one.recv(16_384):
                came += len(data)
                time.sleep(0.1)  # a slow line
        return came

    async def story() -> None:
        site = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with site, running_bridge(tmp_path, Site(site.sockets[0].getsockname()[:2])) as running:
            for listener in running.server._listening:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            assert await asyncio.to_thread(read, running.port) == size

    asyncio.run(story())


def test_a_listener_of_ipv6_serves(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
            running.server.listen(listener)
            port = listener.getsockname()[1]
            (await WebOpener(running.bridge(at=Target("::1", port)))()).close()

    asyncio.run(story())


def test_who_says_nothing_is_not_held_for_ever_when_the_site_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "LINGER_S", 0.2)

    async def story() -> None:
        with socket.socket() as nobody:  # keeps its port from being anybody's, the bridge's own least of all
            nobody.bind(("127.0.0.1", 0))
            async with running_bridge(tmp_path, Site(nobody.getsockname())) as running:
                _, raw = await asyncio.open_connection("127.0.0.1", running.port)
                _, shaken = await asyncio.open_connection(
                    "127.0.0.1", running.port, ssl=trusting(), server_hostname=NAME
                )
                assert running.server.connections == 2
                async with asyncio.timeout(5):
                    while running.server.connections:
                        await asyncio.sleep(0.05)
                for writer in (raw, shaken):
                    writer.transport.abort()

    asyncio.run(story())


def test_of_one_address_so_many_are_served_the_next_wait_and_others_get_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "CONNECTIONS_EACH", 3)
    monkeypatch.setattr(web_server, "WAITING_MAX", 2)

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            opened = [socket.create_connection(("127.0.0.1", running.port), 5) for _ in range(5)]
            turned_away = socket.create_connection(("127.0.0.1", running.port), 5)
            assert await asyncio.to_thread(ended, turned_away)
            other = socket.create_connection(("127.0.0.1", running.port), 5, ("127.0.0.2", 0))
            outer = await WebOpener(running.bridge(), dial=dialled(other))()
            outer.close()
            entering = asyncio.create_task(WebOpener(running.bridge(), dial=dialled(opened[3]))())
            await asyncio.wait((entering,), timeout=0.2)
            assert not entering.done()
            assert running.server.connections == 3
            opened[0].close()
            (await entering).close()
            for sock in (*opened, turned_away):
                sock.close()
            async with asyncio.timeout(10):
                while running.server.connections:
                    await asyncio.sleep(0.01)

    asyncio.run(story())


def test_who_never_ends_a_handshake_and_who_waits_for_a_turn_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "CONNECTIONS_EACH", 1)
    monkeypatch.setattr(web_server, "PATIENCE_S", 0.3)
    monkeypatch.setattr(web_server, "_SWEEP_S", 0.1)

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            opened = [socket.create_connection(("127.0.0.1", running.port), 5) for _ in range(2)]
            opened[0].sendall(CLIENT_HELLO[:50])
            assert [await asyncio.to_thread(ended, one) for one in opened] == [True, True]
            assert running.server.shaking == {}

    asyncio.run(story())


CLIENT_HELLO = b"\x16\x03\x01\x40\x00" + b"\x01\x01\xff\xf0\x03\x03" + bytes(32)
"""The begin of one that says that it is 131,056 bytes long."""


def test_long_beginnings_of_handshakes_are_few_at_a_time_and_short_ones_go_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "LONG_MAX", 2)
    monkeypatch.setattr(web_server, "CONNECTIONS_EACH", 300)

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            opened = [socket.create_connection(("127.0.0.1", running.port), 5) for _ in range(200)]
            for number, one in enumerate(opened):
                one.sendall((CLIENT_HELLO, CLIENT_HELLO[:3] + b"\0\1\1" + CLIENT_HELLO[:3])[number % 2])
            server = running.server
            async with asyncio.timeout(10):
                while len(server._long) + len(server._waiting_long) < 200:
                    await asyncio.sleep(0.01)
            assert len(server._long) == 2
            (await WebOpener(running.bridge())()).close()
            for one in opened:
                one.close()
            async with asyncio.timeout(10):
                while server.connections:
                    await asyncio.sleep(0.01)
            assert (server.shaking, server._long, len(server._waiting_long)) == ({}, set(), 0)

    asyncio.run(story())


def test_a_long_client_hello_that_waited_for_others_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "LONG_MAX", 1)

    async def story() -> None:
        async with running_bridge(tmp_path) as running:
            first = socket.create_connection(("127.0.0.1", running.port), 5)
            first.sendall(CLIENT_HELLO)
            while not running.server._long:
                await asyncio.sleep(0.01)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            engine = long_hello().wrap_bio(incoming, outgoing, server_hostname=NAME)
            with contextlib.suppress(ssl.SSLWantReadError):
                engine.do_handshake()
            said = outgoing.read()
            assert len(said) > LONG_BYTES
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(said)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(1)
            first.close()
            assert (await reader.readexactly(6))[5] == 2  # a ServerHello
            writer.close()

    asyncio.run(story())


def long_hello() -> ssl.SSLContext:
    """A client whose first message is long: it offers many protocols."""
    context = trusting()
    context.set_alpn_protocols(["http/1.1", *(f"protocol {number:04} {'x' * 200}" for number in range(60))])
    return context


def test_a_site_on_this_computer_sees_each_visitor_come_from_an_address_of_their_own_and_never_from_its_own(
    tmp_path: Path,
) -> None:
    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def story() -> None:
        site = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with site, running_bridge(tmp_path, Site(site.sockets[0].getsockname()[:2])) as running:
            for own in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
                local = (own, 0)
                _, writer = await asyncio.open_connection("127.0.0.1", running.port, local_addr=local)
                count = len(seen)
                async with asyncio.timeout(5):
                    while len(seen) == count:
                        await asyncio.sleep(0.01)
                writer.close()

    asyncio.run(story())
    assert seen[0] == seen[1] != seen[2]
    assert all(one.startswith("127.") and not one.startswith("127.0.") for one in seen)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_reset_of_the_site_s_behind_its_answer_is_the_visitor_s_too(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def answer(one: socket.socket) -> None:
        one.recv(1000)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def story() -> None:
        with serving(answer) as site:
            async with running_bridge(tmp_path, Site(tuple(site))) as running:
                for _ in range(10):
                    reader, writer = await asyncio.open_connection(
                        "127.0.0.1", running.port, ssl=trusting(), server_hostname=NAME
                    )
                    writer.write(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
                    with contextlib.suppress(OSError):
                        async with asyncio.timeout(5):
                            await reader.read(-1)
                    writer.transport.abort()
                async with asyncio.timeout(5):
                    while running.server.connections:
                        await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def dialled(sock: socket.socket) -> Dial:
    async def dial(target: Target) -> socket.socket:
        sock.setblocking(False)
        return sock

    return dial


def test_a_bridge_at_an_address_of_ipv6_is_asked_as_a_browser_would(tmp_path: Path) -> None:
    heard = bytearray()

    async def story() -> None:
        certificate = self_signed(tmp_path, "::1")

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def answer() -> None:
                heard.extend(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                writer.close()

            tasks.append(asyncio.create_task(answer()))

        tasks: list[asyncio.Task[None]] = []
        async with await asyncio.start_server(accept, "::1", 0, ssl=certificate.context()) as server:
            at = Target("::1", server.sockets[0].getsockname()[1])
            with pytest.raises(WebFailed):
                await WebOpener(WebBridge(at, "::1", bytes(32), certificate.pin))()
            assert f"\r\nHost: [::1]:{at.port}\r\n".encode() in heard

    asyncio.run(story())


def test_a_visitor_of_a_folder_who_stops_amid_a_request_is_not_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        write_site(tmp_path / "pages")
        async with (
            open_site(str(tmp_path / "pages")) as site,
            running_bridge(tmp_path, site._replace(patience_s=0.4)) as running,
        ):
            seen = await asyncio.to_thread(probe, running.port, [("send", b"GET / HT")])
            assert (seen.answers, seen.end) == ([b""], "closed")
            assert seen.lasted_s > 0.4
            assert running.server.connections == 0

    asyncio.run(story())


def test_visitors_whose_first_bytes_have_a_reset_behind_them_leave_nothing(tmp_path: Path) -> None:
    def knock(port: int) -> None:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", port)) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(b"\x16\x03\x01\x02\x00\x01")

    async def story() -> None:
        write_site(tmp_path / "pages")
        async with open_site(str(tmp_path / "pages")) as site, running_bridge(tmp_path, site) as running:
            await asyncio.to_thread(knock, running.port)
            async with asyncio.timeout(20):
                while running.server.connections:
                    await asyncio.sleep(0.01)

    uvloop.run(story())


def test_visitors_who_say_and_do_anything_leave_a_bridge_as_it_was(tmp_path: Path) -> None:
    chance = random.Random(5)
    wrong: list[dict[str, object]] = []

    async def visit(port: int, seed: int) -> None:
        """Begin as a client does, cut or change something somewhere, and leave in some way."""
        own = random.Random(seed)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = trusting().wrap_bio(incoming, outgoing, server_hostname=NAME)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError, ssl.SSLError):
            for _ in range(own.randrange(6)):
                with contextlib.suppress(ssl.SSLWantReadError):
                    engine.do_handshake()
                    engine.write(own.choice([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"G", own.randbytes(9_000)]))
                    if own.random() < 0.3:
                        engine.unwrap()
                said = bytearray(outgoing.read())
                if said and own.random() < 0.3:
                    said[own.randrange(len(said))] ^= 1 << own.randrange(8)
                if own.random() < 0.2:
                    said = said[: own.randrange(len(said) + 1)]
                writer.write(bytes(said))
                if own.random() < 0.2:
                    writer.write_eof()
                    await asyncio.wait_for(reader.read(65_536), 5)
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        incoming.write(await reader.read(65_536))
            if own.random() < 0.5:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        async with running_bridge(tmp_path) as running:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(12):
                await asyncio.gather(*(visit(running.port, chance.getrandbits(32)) for _ in range(25)))
            async with asyncio.timeout(10):
                while running.server.connections or len(os.listdir("/proc/self/fd")) > before:
                    await asyncio.sleep(0.01)
            assert running.server.shaking == {}
            (await WebOpener(running.bridge())()).close()

    asyncio.run(story())
    assert wrong == []


def test_a_folders_server_is_begun_again_when_it_dies_and_ends_with_its_parent(tmp_path: Path) -> None:
    def children() -> list[psutil.Process]:
        # What has ended and was not waited for yet, such as a child of another test, has no command line.
        born = [(one, one.as_dict(["cmdline"])["cmdline"] or []) for one in psutil.Process().children()]
        return [one for one, words in born if any(word.endswith("folder.py") for word in words)]

    async def story() -> None:
        write_site(tmp_path / "pages")
        async with open_site(str(tmp_path / "pages")) as site, running_bridge(tmp_path, site) as running:
            (first,) = children()
            first.kill()
            async with asyncio.timeout(20):
                while True:
                    seen = await asyncio.to_thread(probe, running.port, [("send", PAGE)], until_s=0.5)
                    if seen.answers and seen.answers[0].startswith(b"HTTP/1.1 200 OK"):
                        break
            assert children() != [first]
        assert children() == []

    asyncio.run(story())


def test_a_site_is_found_by_its_name() -> None:
    async def story() -> None:
        async with open_site("http://localhost:8080", "localhost:8443") as site:
            assert site.with_tls is not None
            assert isinstance(site.plain, tuple)
            assert {site.plain[1], site.with_tls[1]} == {8080, 8443}
            assert {site.plain[0], site.with_tls[0]} <= {"127.0.0.1", "::1"}

    asyncio.run(story())


def test_a_site_that_is_none_is_named(tmp_path: Path) -> None:
    async def story(where: str, with_tls: str = "") -> None:
        async with open_site(where, with_tls):
            pass

    for where, with_tls in (
        (str(tmp_path / "nothing"), ""),
        ("https://127.0.0.1:8443", ""),
        ("http://127.0.0.1:8080/path", ""),
        ("http://127.0.0.1:99999", ""),
        ("http://127.0.0.1:8080", "127.0.0.1:x"),
        ("http://nowhere.invalid", ""),
    ):
        with pytest.raises(UsageError):
            asyncio.run(story(where, with_tls))


PAGE = b"GET / HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n"
