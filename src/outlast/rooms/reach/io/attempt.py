"""Tries one bridge for real: 64 KB to an echo and back, for a handshake proves nothing where streams freeze later.

Outlast's own servers answer ``echo.outlast.invalid:7`` themselves. Others know no echo: of them 64 KB of a URL are
fetched that the operator chose, and without one the first byte of any answer has to do, which is no proof. What goes
wrong is seen at a tap on the wire and by what the transport says, and gets its class (``proto/failures.py``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from outlast import address
from outlast.address import Target
from outlast.errors import OutlastError, Sentence, UsageError, reason_of
from outlast.rooms.reach.io.carrier import Carrier, Refusal
from outlast.rooms.reach.io.names import look_up
from outlast.rooms.reach.io.plugged import Plugged
from outlast.rooms.reach.io.tap import Tap
from outlast.rooms.reach.io.tricks import Tricking
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.io.web_client import WebFailed, WebOpener, stop_at
from outlast.rooms.reach.proto.bridge import (
    Bridge,
    PluggedBridge,
    ProxyBridge,
    ShadowsocksBridge,
    TorBridge,
    Tricks,
    WebBridge,
)
from outlast.rooms.reach.proto.failures import OUT_OF_DATE, BridgeError, Failure, Kind, Observed, Step, Stop, judge
from outlast.rooms.reach.proto.links import host_of

ECHO: Final = Target("echo.outlast.invalid", 7)
PROOF_BYTES: Final = 64 * 1024
HEAD_BYTES: Final = 512
SILENCE_S: Final = 4.0
"""So long nothing may come closer: TCP sends its first packet again after 1 and 3 s."""
LEADS_S: Final = 8.0
"""So long the first byte of a page may take through a carrier in use."""
ATTEMPT_S: Final = 14.0
FAR_S: Final = 60.0
"""So long an attempt through a child may take whose connections the tap does not see: it finds its way by itself."""
ECHO_GRACE_S: Final = 1.5
"""So long an echo is waited for when another answer was there first."""
ANSWERING: Final = "http://connectivitycheck.gstatic.com/generate_204"
"""What is asked for a first byte: a page that phones ask for all the time, and that is blocked almost nowhere."""
SECURE: Final = "https://connectivitycheck.gstatic.com/generate_204"
"""The same for tricks, which are tricks with TLS, and for proxies that let nobody through to the port of HTTP."""
_LOOK_S: Final = 0.25
_STATUS_BYTES: Final = 12
_RANDOM: Final = frozenset({"obfs2", "obfs3", "obfs4", "scramblesuit"})
_FROM_INSIDE: Final = frozenset({Kind.TLS_MITM, Kind.WRONG_CLOCK, Kind.WRONG_KEY, Kind.CAPTIVE_PORTAL})
"""What only the transport can see."""
_FORGEABLE: Final = frozenset({Kind.DNS, Kind.REFUSED, Kind.SYN_DROP, Kind.TLS_MITM})
"""How a bridge fails whose name leads elsewhere here."""
LED_NOWHERE: Final = Failure(Kind.FREEZE, Sentence("streams are opened, and nothing comes back through them"))


class Tried(NamedTuple):
    """What came of an attempt."""

    bridge: Bridge  # as it was given, or by the address that answered, where it has a name
    failure: Failure | None  # None: it works
    proof: bool = False  # whether 64 KB went through
    ttfb_ms: int | None = None  # from the attempt's beginning to the first byte from behind the bridge
    kbps: int | None = None  # kbit/s, measured over the 64 KB
    address: str = ""  # by which the bridge answered; of one that failed, what its name led to
    hop_bytes: int = 0  # how much a connection is given at most, for what froze in the test; 0: nothing did


Tell = Callable[[OutlastError], None]
"""Hears why a carrier could not connect to its bridge, each time, while it goes on trying."""


class Make(Protocol):
    """Makes the carrier of a bridge; raises OutlastError when it cannot be made at all."""

    def __call__(self, bridge: Bridge, tell: Tell, hop_bytes: int = 0, /) -> Awaitable[Carrier]:
        """``hop_bytes`` is what a test found out."""
        ...


def read_url(text: str) -> str:
    """The URL of a test, checked; raises UsageError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError("the test's URL is none; it is as in http://192.0.2.1/64k") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or len(text) > 2000:
        raise UsageError("the test's URL begins with http:// or https:// and names a host")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("the test's URL has signs that belong percent-encoded")
    host_of(parts.hostname)
    return text


async def attempt(
    bridge: Bridge, make: Make, *, url: str = "", known: str = "", others: Iterable[Bridge] = ()
) -> Tried:
    """Try a bridge; ``url`` is the operator's, ``known`` an address by which the bridge's name worked before.

    When the name fails that never worked, the resolver that one of the ``others`` names is asked too.
    """
    tried, seen = await _once(bridge, make, url, known)
    if tried.failure is None or isinstance(bridge, TorBridge | Tricks):
        return tried
    if seen is not None and seen.new_address:
        again, _ = await _once(_at(bridge, known), make, url, "")
        return again if again.failure is None else tried
    if known or tried.failure.kind not in _FORGEABLE or address.parse(bridge.at.host) is not None:
        return tried
    if not (elsewhere := await _second_opinion(bridge.at.host, others)):
        return tried
    again, _ = await _once(_at(bridge, elsewhere), make, url, "")
    if again.failure is None:
        return again
    text = Sentence(
        "a resolver over HTTPS gives another address than this network, which fails too (%(failure)s)",
        {"failure": again.failure.name},
    )
    return tried._replace(failure=Failure(Kind.DNS, text))


def _at(bridge: Bridge, host: str) -> Bridge:
    return msgspec.structs.replace(bridge, at=Target(host, bridge.at.port))


async def _second_opinion(host: str, others: Iterable[Bridge]) -> str:
    """An address that a resolver over HTTPS gives for a name and this network does not; "" for none."""
    way = next((one for one in others if isinstance(one, Tricks)), None)
    if way is None:
        return ""
    here: tuple[str, ...] = ()
    with suppress(OSError):
        here = await look_up(host)
    tricking = Tricking(way)
    try:
        return next((one for one in await tricking.look_up(host) if one not in here), "")
    finally:
        tricking.close()


async def leads_somewhere(bridge: Bridge, carrier: Carrier, url: str = "") -> bool:
    """Whether anything comes through a carrier that is in use: one page is asked for (``url``, else a usual one)."""
    test = _Test(bridge, None, url)
    return await test.hears(carrier, LEADS_S)


async def reconsider(bridge: Bridge, tried: Tried, carrier: Carrier) -> Tried:
    """What came of an attempt, with a second opinion on the bridge's name from behind a ``carrier`` that works.

    Where the name leads to the bridge from there, and the address that it led to here is not the bridge's from there
    either, the network's answer was forged: then the class is ``dns``.
    """
    if tried.failure is None or not isinstance(bridge, WebBridge) or tried.address in ("", bridge.at.host):
        return tried
    if tried.failure.kind in (Kind.DNS, Kind.WRONG_KEY, Kind.WRONG_CLOCK, Kind.THROTTLED):
        return tried
    try:
        async with asyncio.timeout(ATTEMPT_S):
            if not await _leads_to(bridge, bridge.at.host, carrier) or await _leads_to(bridge, tried.address, carrier):
                return tried
    except TimeoutError:
        return tried
    text = Sentence("behind another bridge the name leads to this one, and the address that the network gives does not")
    return tried._replace(failure=Failure(Kind.DNS, text))


async def _leads_to(bridge: WebBridge, host: str, carrier: Carrier) -> bool:
    """Whether the bridge is at that host, as seen from behind a carrier."""
    streams = []

    async def dial(target: Target) -> socket.socket:
        stream = _Stream(Target(host, target.port), asyncio.Event())
        streams.append(stream)
        carrier.carry(stream)
        try:
            await stream.wait()
        except OSError:
            raise WebFailed(Observed(Step.CONNECT, Stop.REFUSED)) from None
        return stream.ours

    try:
        (await WebOpener(bridge, dial=dial)()).close()
    except BridgeError:
        return False
    finally:
        for stream in streams:
            stream.close()
    return True


async def _once(bridge: Bridge, make: Make, url: str, known: str) -> tuple[Tried, Observed | None]:
    async with AsyncExitStack() as stack:
        tap, inside = None, bridge
        if not isinstance(bridge, TorBridge | Tricks):
            try:
                tap = await stack.enter_async_context(Tap(bridge.at, known))
            except OSError as error:
                return Tried(
                    bridge,
                    Failure(
                        Kind.UNKNOWN, Sentence("it could not be tried here (%(error)s)", {"error": reason_of(error)})
                    ),
                ), None
            inside = msgspec.structs.replace(bridge, at=tap.at)
        test = _Test(bridge, tap, url)
        try:
            async with asyncio.timeout(FAR_S):
                carrier = await make(inside, test.tell)
        except OutlastError as error:
            return Tried(bridge, _of_error(error)), None
        except TimeoutError:
            return Tried(bridge, Failure(Kind.UNKNOWN, Sentence("its program was not ready in time"))), None
        except OSError as error:  # no room on the disk, no more files
            return Tried(
                bridge,
                Failure(Kind.UNKNOWN, Sentence("it could not be tried here (%(error)s)", {"error": reason_of(error)})),
            ), None
        stack.callback(carrier.close)
        return await test.run(carrier)


class _Test:
    """One test of one carrier."""

    def __init__(self, bridge: Bridge, tap: Tap | None, url: str) -> None:
        self._bridge = bridge
        self._tap = tap
        self._url = url
        self._began_s = time.monotonic()
        self._streams: list[_Stream] = []
        self._error: OutlastError | None = None
        self._news = asyncio.Event()

    def tell(self, error: OutlastError) -> None:
        """Take the reason why a connection to the bridge failed; the first counts."""
        self._error = self._error or error
        self._news.set()

    async def run(self, carrier: Carrier) -> tuple[Tried, Observed | None]:
        """Send the streams, and wait for how it ends."""
        runs = []
        if not isinstance(self._bridge, Tricks):
            runs.append(asyncio.create_task(self._echo(carrier)))
        if not isinstance(self._bridge, WebBridge | PluggedBridge):
            runs.append(asyncio.create_task(self._fetch(carrier)))
        try:
            while True:
                self._news.clear()
                if (passed := self._passed(all(run.done() for run in runs))) is not None:
                    tunnel = carrier.tunnel if isinstance(carrier, Plugged) else carrier
                    hop_bytes = tunnel.hop_bytes if isinstance(tunnel, Tunnel) else 0
                    return passed._replace(hop_bytes=hop_bytes), None
                if (stop := self._stopped(all(run.done() for run in runs))) is not None:
                    return self._failed(stop)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._news.wait()
        finally:
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

    async def hears(self, carrier: Carrier, limit_s: float) -> bool:
        """Whether a page brings its first byte in time."""
        run = asyncio.create_task(self._fetch(carrier))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while not run.done() and not self._heard:
                        self._news.clear()
                        await self._news.wait()
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        return self._heard

    @property
    def _heard(self) -> bool:
        return any(one.first_s is not None for one in self._streams)

    # ---- how it ends ----

    def _passed(self, over: bool) -> Tried | None:
        answered = [one for one in self._streams if one.first_s is not None]
        best = max(answered, key=lambda one: (one.proof_s is not None, one.end_s is not None), default=None)
        if best is None or best.first_s is None:
            return None
        if best.proof_s is None:
            if best.end_s is None:
                return None  # what began and does not go on may be frozen
            if not over and time.monotonic() < best.end_s + ECHO_GRACE_S:
                return None
        bridge, address = self._bridge, self._tap.address if self._tap else ""
        if address:
            bridge = msgspec.structs.replace(bridge, at=Target(address, bridge.at.port))
        ttfb_ms = round((best.first_s - self._began_s) * 1000)
        if best.proof_s is None:
            return Tried(bridge, None, False, ttfb_ms, None, address)
        took_ms = max(1, round((best.proof_s - best.opened_s) * 1000))
        return Tried(bridge, None, True, ttfb_ms, 8 * PROOF_BYTES // took_ms, address)

    def _stopped(self, over: bool) -> Stop | None:
        now_s, tap = time.monotonic(), self._tap
        if over or (self._error is not None and not self._heard):
            return Stop.CLOSED
        if tap is None or not tap.wires:
            return Stop.SILENCE if now_s > self._began_s + FAR_S else None
        tap.look()
        if now_s > max(tap.moved_s, *(one.moved_s for one in self._streams)) + SILENCE_S:
            return Stop.SILENCE
        return Stop.SLOW if now_s > self._began_s + ATTEMPT_S else None

    def _failed(self, stop: Stop) -> tuple[Tried, Observed | None]:
        """The class: what the transport could tell from the inside comes first, then what was seen on the wire."""
        seen = None
        if self._tap is not None:
            random = isinstance(self._bridge, ShadowsocksBridge) or (
                isinstance(self._bridge, PluggedBridge) and self._bridge.transport in _RANDOM
            )
            plain = isinstance(self._bridge, ProxyBridge) and self._bridge.scheme == "http"
            seen = self._tap.observed(stop, looks_random=random, speaks_http=plain, taken=self._heard)
        inside = self._error.failure if isinstance(self._error, BridgeError) else None
        if inside is not None and (inside.kind in _FROM_INSIDE or inside == OUT_OF_DATE):
            failure = inside
            if seen is not None and seen.new_address:
                failure = judge(seen)
        elif seen is not None and seen.step is Step.KEYS and any(one.refusal for one in self._streams):
            failure = self._of_refusal()
        elif seen is not None:
            failure = judge(seen)
        elif self._error is not None:
            failure = _of_error(self._error)
        else:
            failure = Failure(Kind.UNKNOWN, Sentence("its program found no way to it in time"))
        return Tried(self._bridge, failure, address=self._tap.address if self._tap else ""), seen

    def _of_refusal(self) -> Failure:
        """The bridge was heard, and the stream was refused: by it, or because it ended the connection."""
        if isinstance(self._bridge, ProxyBridge) and all(one.refusal is Refusal.NOT_ALLOWED for one in self._streams):
            return Failure(Kind.WRONG_KEY, Sentence("the proxy does not let us in: its user or password is another"))
        return Failure(Kind.UNKNOWN, Sentence("the bridge answers, and reaches nothing"))

    # ---- streams ----

    def _open(self, carrier: Carrier, target: Target) -> _Stream:
        stream = _Stream(target, self._news)
        self._streams.append(stream)
        carrier.carry(stream)
        return stream

    async def _echo(self, carrier: Carrier) -> None:
        stream = self._open(carrier, ECHO)
        try:
            await stream.wait()
            loop = asyncio.get_running_loop()
            data = os.urandom(PROOF_BYTES)
            # A little first: where uploads crawl, it is soon known that the bridge takes us.
            await loop.sock_sendall(stream.ours, data[:HEAD_BYTES])
            found = await stream.read(1)
            stream.opened_s = time.monotonic()
            sending = loop.create_task(loop.sock_sendall(stream.ours, data[HEAD_BYTES:]))
            try:
                found += await stream.read(PROOF_BYTES - 1)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            if found == data:
                stream.proof_s = time.monotonic()
        except OSError:
            pass
        finally:
            stream.close()

    async def _fetch(self, carrier: Carrier) -> None:
        url = self._url or (SECURE if isinstance(self._bridge, Tricks) else ANSWERING)
        stream, odd = await self._get(carrier, url)
        if url == ANSWERING and stream.refusal is Refusal.NOT_ALLOWED:
            url = SECURE  # proxies of HTTP often open tunnels to the port of TLS alone
            stream, odd = await self._get(carrier, url)
        if odd is not None and isinstance(self._bridge, ProxyBridge):
            # Where one has to sign in, every CONNECT is answered with 200, and every page is the portal's.
            if url != ANSWERING:
                second, other = await self._get(carrier, ANSWERING)
                self._streams.remove(second)  # it proves nothing about the page that was to be had
            if url == ANSWERING or other is not None:
                text = Sentence(
                    "the proxy opens its way, and another page than the one that was asked for stands behind it"
                )
                self.tell(BridgeError(Failure(Kind.CAPTIVE_PORTAL, text)))
                return
        if odd is Stop.CERTIFICATE:
            text = Sentence("behind it the test's site shows a certificate that is not valid for it")
            self.tell(BridgeError(Failure(Kind.TLS_MITM, text)))
        elif odd is Stop.DATES:
            self.tell(BridgeError(OUT_OF_DATE))
        elif odd is Stop.ANSWER:
            stream.moved()
            stream.end_s = time.monotonic()

    async def _get(self, carrier: Carrier, url: str) -> tuple[_Stream, Stop | None]:
        """Ask for a page; the stream, and what is odd about the answer, which then is not taken for one."""
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        stream = self._open(carrier, Target(host, parts.port or (443 if secure else 80)))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nConnection: close\r\n\r\n"
        try:
            await stream.wait()
            reader, writer = await asyncio.open_connection(
                sock=stream.ours,
                ssl=ssl.create_default_context() if secure else None,
                server_hostname=host if secure else None,
            )
            try:
                writer.write(request.encode())
                first = b""
                while len(first) < _STATUS_BYTES and (data := await reader.read(PROOF_BYTES)):
                    first += data
                if first and _is_odd(first, empty=url == ANSWERING):
                    return stream, Stop.ANSWER
                size = len(first)
                if size:
                    stream.moved()
                while size < PROOF_BYTES and (data := await reader.read(PROOF_BYTES)):
                    stream.moved()
                    size += len(data)
                if size >= PROOF_BYTES:
                    stream.proof_s = time.monotonic()
                elif size:
                    stream.end_s = time.monotonic()
            finally:
                writer.close()
        except ssl.SSLCertVerificationError as error:
            return stream, stop_at(error)
        except ssl.SSLEOFError:
            pass
        except ssl.SSLError:
            return stream, Stop.PLAIN
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            stream.close()
        return stream, None


class _Stream:
    """A client of the carrier that nobody's program stands behind."""

    def __init__(self, target: Target, news: asyncio.Event) -> None:
        self.ours, self._theirs = socket.socketpair()
        for one in (self.ours, self._theirs):
            one.setblocking(False)
        self._target = target
        self._news = news
        self._decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.moved_s = self.opened_s = time.monotonic()
        self.first_s: float | None = None
        self.proof_s: float | None = None
        self.end_s: float | None = None  # when an answer was over in order, before it was proof
        self.refusal: Refusal | None = None

    @property
    def target(self) -> Target:
        """The echo, or the host of the URL."""
        return self._target

    @property
    def isolation(self) -> bytes:
        """Nobody's."""
        return b""

    @property
    def gone(self) -> bool:
        """Whether the test is over."""
        return self.ours.fileno() < 0

    def take(self) -> tuple[socket.socket, bytes]:
        """The way is open."""
        self.opened_s = time.monotonic()
        if not self._decided.done():
            self._decided.set_result(None)
        return self._theirs, b""

    def refuse(self, refusal: Refusal) -> None:
        """There is no way."""
        self.refusal = refusal
        self._theirs.close()
        if not self._decided.done():
            self._decided.set_exception(ConnectionError("refused"))

    async def wait(self) -> None:
        """Until it is taken; raises ConnectionError when it is refused."""
        await self._decided

    async def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        loop = asyncio.get_running_loop()
        found = bytearray()
        while len(found) < size and (data := await loop.sock_recv(self.ours, size - len(found))):
            self.moved()
            found += data
        return bytes(found)

    def moved(self) -> None:
        """Bytes came from behind the bridge."""
        self.moved_s = time.monotonic()
        if self.first_s is None:
            self.first_s = self.moved_s
            self._news.set()

    def close(self) -> None:
        """End it; the other socket is closed by whoever takes it, or by what refuses it."""
        self._decided.cancel()
        self.ours.close()
        self._news.set()


def _is_odd(first: bytes, *, empty: bool) -> bool:
    """Whether an answer leads elsewhere, or asks to sign in; or is none that a page has that is ``empty``."""
    if first[:7] != b"HTTP/1.":
        return empty or first[:1] == b"<"
    return first[9:10] == b"3" or first[9:12] == b"511" or (empty and first[9:12] == b"200")


def _of_error(error: OutlastError) -> Failure:
    if isinstance(error, BridgeError):
        return error.failure
    return Failure(Kind.UNKNOWN, error.line)
