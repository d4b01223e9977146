"""The transport ``web`` on loopback: who knows the path is let in, everybody else is at the site."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest

from outlast.rooms.reach.io.certificates import self_signed
from outlast.rooms.reach.io.web_client import WebFailed, WebOpener
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.failures import Kind, Step, Stop
from tests.rooms.reach.bridges import NAME, Collector, running_bridge


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
