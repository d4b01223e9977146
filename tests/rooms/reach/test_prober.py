"""Whoever probes a bridge sees the site and nothing else: the same bytes, the same ends, no other times."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from outlast.address import Target
from outlast.rooms.reach.io.site import open_site
from outlast.rooms.reach.io.web_client import WebOpener
from outlast.rooms.reach.io.web_server import Site
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.proto.web import Doors, path_of, write_request
from tests.hello import client_hello
from tests.rooms.reach.bridges import SECRET, running_bridge, write_site
from tests.rooms.reach.prober import Seen, Step, probe, records
from tests.rooms.reach.websites import nginx

HOST = b"Host: site.example\r\n"
PAGE = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
SLOW_S = 2
"""nginx's patience here; what a site's own is, its bridge has."""


@dataclass
class Probe:
    """What a prober does."""

    steps: list[Step] = field(default_factory=list)
    tls: bool = True
    name: str | None = "site.example"
    alpn: tuple[str, ...] = ("http/1.1",)
    version: ssl.TLSVersion | None = None
    whole: bool = False  # compare the records of TLS, too

    def at(self, port: int) -> Seen:
        return probe(port, self.steps, tls=self.tls, name=self.name, alpn=self.alpn, version=self.version)


def ask(path: bytes = b"/", *fields: bytes, method: bytes = b"GET", host: bytes = HOST) -> bytes:
    lines = b"".join(one + b"\r\n" for one in fields)
    return method + b" " + path + b" HTTP/1.1\r\n" + host + lines + b"\r\n"


UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
LAST = b"Connection: close"
TAKE: Step = ("take",)
PATHS = [
    b"/",
    b"/news",
    b"/news/",
    b"/nothing",
    b"/old/",
    b"/private/",
    b"/%2e%2e/etc/passwd",
    b"/bread.bin",
    b"*",
    b"//",
]
METHODS = [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"get", b"PROPFIND"]
MALFORMED = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /\r\n",
    b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\n" + HOST + b"\n",
    b"GET  /  HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GXT\0 / HTTP/1.1\r\n\r\n",
    b"\r\n\r\n" + PAGE,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    bytes(range(256)),
    ask(host=b"Host: a b\r\n"),
    ask(b"/" + b"a" * 9_000),
    ask(b"/", b"X: " + b"a" * 40_000),
    ask(b"/", b"no colon"),
    ask(b"/", b"Content-Length: 5", b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n\r\n",
    ask(b"/assets/" + b"0" * 40, *UPGRADE),
    ask(b"/assets/" + b"0" * 40),
    ask(b"/assets/" + b"0" * 40, *UPGRADE) + PAGE,
    # The right path in a request that is not a whole Upgrade; it is right, so it leads nowhere else.
    write_request("site.example", path_of(bytes(32), 20_000), bytes(16), b"")[:-2],
]


def probes() -> dict[str, Probe]:
    """What is tried, by name."""
    hello = client_hello(protocols=["http/1.1"])
    found = {f"path {path!r}": Probe([("send", ask(path, LAST))]) for path in PATHS}
    found |= {f"method {method!r}": Probe([("send", ask(b"/", LAST, method=method))]) for method in METHODS}
    found |= {f"malformed {data[:30]!r} {len(data)}": Probe([("send", data)]) for data in MALFORMED}
    found |= {f"raw {data[:30]!r} {len(data)}": Probe([("raw", data)], tls=False) for data in (PAGE, *MALFORMED)}
    found |= {
        "pieces": Probe(sum(([("send", PAGE[at : at + 1]), ("wait", 0.01)] for at in range(len(PAGE))), list[Step]())),
        "pipelined": Probe([("send", PAGE * 2 + ask(b"/nothing", LAST))]),
        "kept alive, then an Upgrade": Probe([("send", PAGE), TAKE, ("send", ask(b"/x", *UPGRADE)), TAKE]),
        "body": Probe([("send", ask(b"/", b"Content-Length: 5", LAST, method=b"POST") + b"hello")]),
        "range": Probe([("send", ask(b"/bread.bin", b"Range: bytes=7-20", LAST))]),
        "silence in TLS": Probe(whole=True),
        "silence in TLS 1.2": Probe(version=ssl.TLSVersion.TLSv1_2, whole=True),
        "silence": Probe(tls=False),
        "a request that stops": Probe([("send", PAGE[:10])]),
        "a request that stops at its path": Probe(
            [("send", write_request("s", path_of(bytes(32), 1), bytes(16), b"")[:60])]
        ),
        "speaking on after the end": Probe([("send", ask(b"/", LAST)), TAKE] + [("send", b"x"), ("wait", 0.2)] * 2),
        "speaking on without a break": Probe(
            [("send", ask(b"/", LAST) + b"more"), TAKE] + [("send", b"x"), ("wait", 0.4)] * (5 * SLOW_S)
        ),
        "ended by TLS": Probe([("notify",)]),
        "ended by TCP": Probe([("fin",)]),
        "request, then ended by TLS": Probe([("send", ask(b"/", LAST)), ("wait", 0.2), ("notify",)]),
        "part of a request, then ended by TLS": Probe([("send", PAGE[:9]), ("notify",)]),
        "part of a request, then ended by TCP": Probe([("send", PAGE[:9]), ("fin",)]),
        "ended at once": Probe([("fin",)], tls=False),
        "a broken hello": Probe([("raw", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03")], tls=False),
        "a part of a hello": Probe([("raw", hello[:100])], tls=False),
        "a part of a hello, then ended": Probe([("raw", hello[:100]), ("fin",)], tls=False),
        "a hello, then silence": Probe([("raw", hello)], tls=False, whole=True),
        "a hello, then ended": Probe([("raw", hello), TAKE, ("fin",)], tls=False, whole=True),
        "a hello in pieces": Probe([("raw", hello[:60]), ("wait", 0.1), ("raw", hello[60:])], tls=False, whole=True),
        "a hello, then an alert": Probe(
            [("raw", hello), ("raw", b"\x15\x03\x03\x00\x02\x02\x30")], tls=False, whole=True
        ),
        "a hello, then garbage": Probe(
            [("raw", hello), TAKE, ("raw", b"\x17\x03\x03\x00\x40" + bytes(64))], tls=False, whole=True
        ),
        "a record that is too long": Probe([("raw", b"\x16\x03\x01\xff\xff" + bytes(2_000))], tls=False),
        "SSL 2": Probe([("raw", b"\x80\x2e\x01\0\2\0\x15\0\0\0\x10" + b"\1\0\x80" * 7 + bytes(16))], tls=False),
        "garbage in TLS": Probe([("raw", b"\x17\x03\x03\x00\x40" + b"z" * 64)]),
        "plain HTTP in TLS": Probe([("raw", PAGE)]),
        "another name": Probe([("send", ask(b"/", LAST))], name="other.example"),
        "no name": Probe([("send", ask(b"/", LAST))], name=None),
        "another host": Probe([("send", ask(b"/", LAST, host=b"Host: other.example\r\n"))]),
        "ALPN none": Probe([("send", ask(b"/", LAST))], alpn=()),
        "ALPN h2": Probe([("send", ask(b"/", LAST))], alpn=("h2",)),
        "ALPN h2 and http/1.1": Probe([("send", ask(b"/", LAST))], alpn=("h2", "http/1.1")),
        "ALPN http/1.0": Probe([("send", ask(b"/", LAST))], alpn=("http/1.0",)),
        "ALPN of a certificate authority": Probe([("send", ask(b"/", LAST))], alpn=("acme-tls/1",)),
        "TLS 1.2": Probe([("send", ask(b"/", LAST))], version=ssl.TLSVersion.TLSv1_2),
        "TLS 1.1": Probe(version=ssl.TLSVersion.TLSv1_1),
    }
    return found | unfinished()


def unfinished() -> dict[str, Probe]:
    """Requests that the site answers before their bodies are there, and what then never comes: by name."""
    post = ask(b"/", b"Content-Length: 5", method=b"POST")
    drop: list[Step] = [("send", ask(b"/drop/"))]
    chunked = ask(b"/", b"Transfer-Encoding: chunked", method=b"POST")
    long = ask(b"/", b"X: " + b"a" * 40_000)[:-2]
    expecting = ask(b"/", b"Expect: 100-continue", b"Content-Length: 5", LAST, method=b"POST")
    said: dict[str, list[Step]] = {
        "a body behind its answer": [("send", post), TAKE, ("send", b"hello")],
        "a body behind its answer, in chunks": [("send", chunked), TAKE, ("send", b"5\r\nhello\r\n0\r\n\r\n")],
        "a body behind its answer, pipelined": [("send", PAGE * 3 + post), TAKE, ("send", b"hello")],
        "a body behind its answer, then another page": [("send", post), TAKE, ("send", b"hello" + PAGE)],
        "a body that is waited for": [("send", expecting), TAKE, ("send", b"hello")],
        "a body in pieces": [("send", ask(b"/", b"Content-Length: 2", LAST, method=b"POST")), TAKE]
        + [("send", b"a"), ("wait", 0.4)] * 2,
        "a part of a body": [("send", post + b"hell")],
        "a part of a body, of a last request": [("send", ask(b"/", b"Content-Length: 9", LAST, method=b"POST"))],
        "a part of a body, in chunks": [("send", chunked + b"5\r\nhel")],
        "a page with a body that does not come": [("send", ask(b"/", b"Content-Length: 5"))],
        "a page, then the begin of another": [("send", PAGE), TAKE, ("send", PAGE[:9])],
        "a page, then another in pieces": [("send", PAGE), TAKE]
        + [step for one in PAGE[:12] for step in (("send", bytes((one,))), ("wait", 0.3))],
        "a page, then an empty line": [("send", PAGE + b"\r\n")],
        "a page, then nothing": [("send", PAGE)],
        "a request that is dropped": drop,
        "a page, then a request that is dropped": [("send", PAGE), TAKE, *drop],
        "a head that is too long": [("send", long)],
    }
    return {name: Probe(steps) for name, steps in said.items()}


@contextlib.contextmanager
def in_background(folder: Path, site: Site | Path, *each: dict[str, bytes]) -> Iterator[list[int]]:
    """Ports of bridges with these users, which run in one thread; their site is a folder, or another server."""
    told: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, list[int]]] = []
    ready = threading.Event()

    async def serve() -> None:
        stop = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            found = site if isinstance(site, Site) else await stack.enter_async_context(open_site(str(site)))
            found = found._replace(patience_s=found.patience_s and float(SLOW_S))
            running = [await stack.enter_async_context(running_bridge(folder, found, users=users)) for users in each]
            told.append((asyncio.get_running_loop(), stop, [one.port for one in running]))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield told[0][2]
    finally:
        loop, stop, _ = told[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def compare(one: int, other: int, probes: dict[str, Probe]) -> list[str]:
    """What is seen otherwise at one port than at the other."""
    with ThreadPoolExecutor(16) as pool:
        tried = {name: (pool.submit(each.at, one), pool.submit(each.at, other)) for name, each in probes.items()}
        seen = {name: (a.result(), b.result()) for name, (a, b) in tried.items()}
    # Beside fifteen others one may wait for the processor: what took longer has to take longer alone, too.
    seen |= {name: (probes[name].at(one), probes[name].at(other)) for name, (a, b) in seen.items() if not as_long(a, b)}
    return [
        f"{name}:\n    {what(a, whole)} after {a.lasted_s:.1f} s\n    {what(b, whole)} after {b.lasted_s:.1f} s"
        for name, (a, b) in seen.items()
        if what(a, whole := probes[name].whole) != what(b, whole) or not as_long(a, b)
    ]


def as_long(a: Seen, b: Seen) -> bool:
    return abs(a.lasted_s - b.lasted_s) <= SLOW_S / 2


def what(seen: Seen, whole: bool) -> tuple[object, ...]:
    """All that is to be the same."""
    raw = b"" if whole else seen.raw
    return seen.handshake, seen.answers, raw, seen.end, shape(seen.received) if whole else []


def shape(received: bytes) -> list[tuple[int, int]]:
    """The records of TLS; of tickets only how many there are: nginx's are a block longer, for it names its context."""
    found = records(received)
    tickets = {one for one, other in itertools.pairwise(found) if one == other and one[0] == 23}
    return [(23, 0) if one in tickets else one for one in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pages, which nginx's worker may read, and a certificate whose signatures have all one size."""
    folder = tmp_path_factory.mktemp("prober")
    for each in (folder, folder.parent, folder.parent.parent):
        each.chmod(0o755)
    write_site(folder / "pages")
    write_certificate(folder / "keys")
    return folder


def write_certificate(folder: Path) -> None:
    import datetime

    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from outlast.rooms.reach.io.certificates import signed

    key = rsa.generate_private_key(65537, 2048)
    folder.mkdir()
    made = signed("site.example", key, datetime.datetime.now(datetime.UTC))
    (folder / "web-certificate.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "web-key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@contextlib.contextmanager
def site_alone(place: Path) -> Iterator[tuple[int, int]]:
    named = ("client_header_timeout", "client_body_timeout", "keepalive_timeout", "lingering_timeout", "lingering_time")
    settings = " ".join(f"{each} {SLOW_S};" for each in named)
    keys = place / "keys"
    with nginx(place / "nginx", place / "pages", keys / "web-certificate.pem", keys / "web-key.pem", settings) as ports:
        yield ports


def test_a_bridge_before_nginx_answers_as_nginx_alone(place: Path) -> None:
    with site_alone(place) as (with_tls, plain), served(place, with_tls, plain) as bridge:
        recorded = recording(bridge)
        replays = {
            f"replay of {len(part)} bytes": Probe([("raw", part)], tls=False, whole=True)
            for part in (recorded, recorded[: len(recorded) // 2], recorded + recorded)
        }
        assert compare(with_tls, bridge.at.port, probes() | replays) == []


@contextlib.contextmanager
def served(place: Path, with_tls: int, plain: int) -> Iterator[WebBridge]:
    """A bridge as the command serves it: how it sets OpenSSL up shows, too."""
    keys = place / "keys"
    command = [sys.executable, "-c", "from outlast.edges.main import main; main()", "--home", str(place / "home")]
    command += [
        "reach",
        "serve",
        "--transport",
        "web",
        "--listen",
        "127.0.0.1:0",
        "--name",
        "site.example",
    ]
    command += ["--site", f"http://127.0.0.1:{plain}", "--site-tls", f"127.0.0.1:{with_tls}"]
    command += ["--cert", str(keys / "web-certificate.pem"), "--key", str(keys / "web-key.pem")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            bridge = read_bridge(process.stdout.readline().strip())
            assert isinstance(bridge, WebBridge)
            yield msgspec.structs.replace(bridge, at=Target("127.0.0.1", bridge.at.port))
        finally:
            process.terminate()


def test_a_bridge_before_a_folder_answers_as_the_folder_alone(place: Path) -> None:
    with in_background(place, place / "pages", {}, {"one": SECRET}) as (alone, bridge):
        assert compare(alone, bridge, probes()) == []


def test_no_time_tells_a_bridge_from_the_same_site_without_users(place: Path) -> None:
    door = ask(b"/assets/" + b"0" * 40, *UPGRADE, LAST)
    with in_background(place, place / "pages", {}, {str(n): bytes([n]) * 32 for n in range(100)}) as ports:
        alone, bridge = visits(ports, [door, ask(b"/", LAST)], 120)
        for one, other in zip(alone, bridge, strict=True):
            assert abs(separation(one, other)) < SURE


def test_the_measure_of_time_would_show_a_door_that_thinks_for_five_milliseconds(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(self: Doors, path: bytes, now_s: float) -> str | None:
        until = time.perf_counter() + 0.005
        while self._users and time.perf_counter() < until:  # who has users, has to look
            pass
        return None

    monkeypatch.setattr(Doors, "user_of", slowly)
    door = ask(b"/assets/" + b"0" * 40, *UPGRADE, LAST)
    with in_background(place, place / "pages", {}, {"one": SECRET}) as ports:
        (_, alone), (_, bridge) = visits(ports, [door], 120)
        assert separation(alone, bridge) < -SURE


@pytest.mark.serial
def test_a_bridge_takes_no_longer_than_a_reverse_proxy_within_a_millisecond(place: Path) -> None:
    with site_alone(place) as (with_tls, plain), reverse_proxy(place, plain) as proxy:
        site = Site(("127.0.0.1", plain), ("127.0.0.1", with_tls))
        with in_background(place, site, {"one": SECRET}) as (bridge,):
            by_proxy, by_bridge = visits([proxy, bridge], [ask(b"/", LAST)], 100)
            for one, other in zip(by_proxy, by_bridge, strict=True):
                assert statistics.quantiles(other)[0] < statistics.quantiles(one)[0] + 0.001


SURE = 5.0
"""In standard deviations: by chance once in 1.7 million times."""


def visits(ports: list[int], requests: list[bytes], count: int) -> list[list[list[float]]]:
    """For each port, times in s: of handshakes, and for each request of its answers; taken in turns by lot."""
    times: dict[int, list[list[float]]] = {port: [[] for _ in range(len(requests) + 1)] for port in ports}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    lots = [(port, number) for port in ports for number in range(len(requests))] * count
    random.Random(1).shuffle(lots)
    for port, number in lots:
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(sock, server_hostname="site.example") as visit:
                times[port][0].append(time.perf_counter() - began)
                asked = time.perf_counter()
                visit.sendall(requests[number])
                visit.recv(65536)
                times[port][number + 1].append(time.perf_counter() - asked)
    return [times[port] for port in ports]


def separation(some: list[float], others: list[float]) -> float:
    """Mann and Whitney's U in its standard deviations: below 0 when ``some`` are smaller; 0 by expectation if alike."""
    ranks = {at: rank for rank, (_, at) in enumerate(sorted((value, at) for at, value in enumerate(some + others)))}
    n, m = len(some), len(others)
    u = sum(ranks[at] for at in range(n)) - n * (n - 1) / 2
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


@contextlib.contextmanager
def reverse_proxy(place: Path, plain: int) -> Iterator[int]:
    """nginx with TLS before the site, as many sites are."""
    keys = place / "keys"
    files = (keys / "web-certificate.pem", keys / "web-key.pem")
    passing = f"location / {{ proxy_pass http://127.0.0.1:{plain}; }}"
    with nginx(place / "proxy", place / "pages", *files, server=passing) as (with_tls, _):
        yield with_tls


def recording(bridge: WebBridge) -> bytes:
    """All that a client of the bridge sends until it is in."""
    said = bytearray()

    async def dial(target: Target) -> socket.socket:
        mine, his = socket.socketpair()
        reader, writer = await asyncio.open_connection(*target)
        near_reader, near_writer = await asyncio.open_connection(sock=his)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, keep: bool) -> None:
            while data := await source.read(65536):
                if keep:
                    said.extend(data)
                sink.write(data)
            sink.close()

        tasks.append(asyncio.create_task(pass_on(near_reader, writer, True)))
        tasks.append(asyncio.create_task(pass_on(reader, near_writer, False)))
        mine.setblocking(False)
        return mine

    tasks: list[asyncio.Task[None]] = []

    async def visit() -> None:
        outer = await WebOpener(bridge, dial=dial)()
        outer.close()
        await asyncio.gather(*tasks)

    asyncio.run(visit())
    return bytes(said)
