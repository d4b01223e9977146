"""Public servers of a made-up network on this machine: they answer by TLS under their real names, behind a proxy.

The proxy is SOCKS 5. It takes every name to the one server here, whose certificate an authority of the test signs, and
notes what it was asked for. So what is under test asks for the names that it would ask for, and reaches nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.rooms.watch.country import Authority

NAMES = ("api.ioda.inetintel.cc.gatech.edu", "metrics.torproject.org", "api.ooni.io", "data.ris.ripe.net")
DAY_S = 86_400
Answer = Callable[[str, str], bytes]
"""From the host and the target that were asked for to the whole answer."""


def page(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """An answer with its length."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]).encode() + body


def ioda(country: str = "BY", until_s: int = 1_768_000_000, days: int = 28, value: int = 900) -> bytes:
    """What IODA answers: two signals, one with lists for values, and one that is computed from another."""
    from_s = until_s - days * DAY_S
    common = {"entityType": "country", "entityCode": country, "entityName": "-", "from": from_s, "until": until_s}
    count = days * 48
    rows = [
        common | {"datasource": "bgp", "subtype": "", "step": 1800, "nativeStep": 300, "values": [value] * count},
        common | {"datasource": "gtr-norm", "subtype": "", "step": 1800, "nativeStep": 1800, "values": [1.0] * count},
        common
        | {"datasource": "ping-slash24-loss", "step": 1800, "nativeStep": 600, "values": [[{"agg_values": {}}]] * 9},
    ]
    return json.dumps({"type": "signals", "error": None, "data": [rows]}).encode()


def tor(country: str = "by") -> bytes:
    """What Tor Metrics answers."""
    rows = "".join(f"2026-01-{day:02},{country},{8000 + day},7000,9000,80\n" for day in range(1, 29))
    return f"#\n# The Tor Project\n#\ndate,country,users,lower,upper,frac\n{rows}".encode()


def ooni() -> bytes:
    """What OONI answers: counts by day, without naming the country again."""
    counts = {"anomaly_count": 30, "confirmed_count": 3, "failure_count": 5, "ok_count": 900, "measurement_count": 938}
    rows = [{"measurement_start_day": f"2026-01-{day:02}"} | counts for day in range(1, 29)]
    return json.dumps({"v": 0, "dimension_count": 1, "result": rows}).encode()


def usual(host: str, target: str) -> bytes:
    """What each of them answers on a good day."""
    return page({NAMES[0]: ioda, NAMES[1]: tor, NAMES[2]: ooni}[host]())


@dataclass
class Servers:
    """The proxy's port, the authority's certificate, and what was asked for: names, and request lines with hosts."""

    port: int
    authority: Path
    names: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """What makes a program ask here."""
        return {"ALL_PROXY": f"socks5h://127.0.0.1:{self.port}", "SSL_CERT_FILE": str(self.authority)}


@contextlib.asynccontextmanager
async def serving(
    folder: Path, answer: Answer = usual, *, names: tuple[str, ...] = NAMES, refusal: int = 0, stay: bool = False
) -> AsyncIterator[Servers]:
    """The servers; ``refusal`` is the proxy's word to every request; who should ``stay`` ends no connection."""
    authority = Authority.make("Authority of a test")
    trusted = folder / "authority.pem"
    trusted.write_bytes(authority.certificate.public_bytes(serialization.Encoding.PEM))
    context = authority.context(folder, *names)
    servers = Servers(0, trusted)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            assert await reader.readexactly(3) == b"\x05\x01\x00"
            writer.write(b"\x05\x00")
            head = await reader.readexactly(5)
            host = (await reader.readexactly(head[4])).decode()
            servers.names.append(f"{host}:{int.from_bytes(await reader.readexactly(2))}")
            writer.write(bytes((5, refusal, 0, 1, 127, 0, 0, 1, 0, 0)))
            await writer.drain()
            if refusal:
                return
            await writer.start_tls(context)
            line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            said = next(one.removeprefix("Host: ") for one in fields if one.startswith("Host: "))
            servers.asked.append((said, line))
            writer.write(answer(said, line.split()[1]))
            await writer.drain()
            if stay:
                await reader.read()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    servers.port = server.sockets[0].getsockname()[1]
    async with server:
        yield servers


@contextlib.contextmanager
def served(folder: Path, answer: Answer = usual) -> Iterator[Servers]:
    """The servers in a thread of their own, for programs."""
    ready, over = threading.Event(), threading.Event()
    found: list[Servers] = []

    async def work() -> None:
        async with serving(folder, answer) as servers:
            found.append(servers)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        over.set()
        thread.join()
