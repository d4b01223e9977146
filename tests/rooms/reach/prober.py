"""A prober: says things to a TLS port as a censor's would, and writes down all that it can see of the answer."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

Step = tuple[str, bytes] | tuple[str, float] | tuple[str]
"""``send`` in TLS, ``raw`` on the connection as it is, ``wait`` for seconds, ``take`` an answer, ``notify`` by TLS that
nothing more comes, ``fin`` and ``rst`` the same by TCP."""
SILENT_S = 1.0
_DATE = re.compile(rb"(?im)^(date|last-modified): [^\r\n]*")


@dataclass
class Seen:
    """What one probe saw."""

    handshake: tuple[object, ...] = ()
    answers: list[bytes] = field(default_factory=list)  # between two steps; dates are blanked
    raw: bytes = b""  # what came while no TLS was there, or the alert that ended it; dates are blanked
    received: bytes = b""  # all that came on the connection
    end: str = "open"  # "notified" by TLS and closed, "closed", "reset"
    elapsed_s: float = 0.0  # until the first byte of the first answer, or of the end
    lasted_s: float = 0.0


def probe(
    port: int,
    steps: Iterable[Step],
    *,
    tls: bool = True,
    name: str | None = "site.example",
    alpn: tuple[str, ...] = ("http/1.1",),
    version: ssl.TLSVersion | None = None,
    until_s: float = 4.0,
) -> Seen:
    """Go through the steps, then wait for the end."""
    seen = Seen()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        talk = _Talk(sock, seen)
        try:
            if tls:
                talk.shake(name, alpn, version)
            for step in steps:
                talk.do(step)
            talk.read(time.monotonic() + until_s, until_s)
        except ConnectionResetError:
            seen.end = "reset"
        except BrokenPipeError:
            seen.end = "reset"
    seen.lasted_s = time.monotonic() - began
    seen.raw = undated(seen.raw)
    return seen


def undated(raw: bytes) -> bytes:
    """Without dates: the same page asked for twice may fall on two sides of a second."""
    return _DATE.sub(rb"\1: -", raw)


def records(raw: bytes) -> list[tuple[int, int]]:
    """Types and sizes of the records of TLS in what came."""
    found, at = [], 0
    while at + 5 <= len(raw):
        size = int.from_bytes(raw[at + 3 : at + 5], "big")
        found.append((raw[at], size))
        at += 5 + size
    return found


class _Talk:
    def __init__(self, sock: socket.socket, seen: Seen) -> None:
        self.sock = sock
        self.seen = seen
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine: ssl.SSLObject | None = None
        self.shaken = False
        self.asked_at: float | None = None
        self.over = False

    def shake(self, name: str | None, alpn: tuple[str, ...], version: ssl.TLSVersion | None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if version is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = version
        self.engine = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        while True:
            try:
                self.engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    self.seen.end = "closed"
                    self.over = True
                    return
                self.seen.received += data
                self.incoming.write(data)
            except ssl.SSLError as error:
                self.seen.handshake = ("failed", error.reason)
                self.over = True
                return
        self.flush()
        self.shaken = True
        engine = self.engine
        self.seen.handshake = (
            engine.version(),
            engine.cipher(),
            engine.selected_alpn_protocol(),
            engine.getpeercert(binary_form=True),
        )

    def flush(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def do(self, step: Step) -> None:
        match step:
            case ("send", bytes(data)) if self.engine is not None and self.shaken:
                self.engine.write(data)
                self.asked_at = time.perf_counter()
                self.flush()
            case ("raw", bytes(data)):
                self.asked_at = time.perf_counter()
                self.sock.sendall(data)
            case ("wait", float(seconds)):
                time.sleep(seconds)
            case ("take",):
                self.read(time.monotonic() + 5, SILENT_S)
            case ("notify",) if self.engine is not None and self.shaken:
                with suppress(ssl.SSLError):
                    self.engine.unwrap()
                self.asked_at = time.perf_counter()
                self.flush()
            case ("fin",):
                self.asked_at = time.perf_counter()
                self.sock.shutdown(socket.SHUT_WR)
            case _:
                pass  # TLS did not come about

    def read(self, until: float, silent_s: float) -> None:
        """Read until the other side ends it or is silent."""
        got = b""
        while not self.over and (left := until - time.monotonic()) > 0:
            self.sock.settimeout(min(left, silent_s))
            try:
                data = self.sock.recv(1 << 18)
            except TimeoutError:
                break
            if self.asked_at is not None:
                self.seen.elapsed_s = time.perf_counter() - self.asked_at
                self.asked_at = None
            if not data:
                self.over = True
                if self.seen.end == "open":
                    self.seen.end = "closed"
                break
            self.seen.received += data
            if not self.shaken or self.engine is None:
                self.seen.raw += data
                continue
            self.incoming.write(data)
            while True:
                try:
                    piece = self.engine.read(1 << 16)
                except ssl.SSLWantReadError:
                    break
                except ssl.SSLZeroReturnError:
                    piece = b""
                except ssl.SSLError as error:
                    self.seen.raw += str(error.reason).encode()
                    self.shaken = False
                    break
                if not piece:
                    self.seen.end = "notified"
                    break
                got += piece
        self.seen.answers.append(undated(got))
