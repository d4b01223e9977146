"""The client's end of the transport ``web``: opens outers to one bridge, which looks like visiting a website."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outlast.address import Target
from outlast.errors import ProtocolError
from outlast.rooms.reach.io.names import look_up
from outlast.rooms.reach.io.outer import dial
from outlast.rooms.reach.io.tls import Tls
from outlast.rooms.reach.proto import web
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.failures import BridgeError, Observed, Step, Stop, judge
from outlast.rooms.reach.proto.web import DAY_S

STEP_S: Final = 10.0
"""So long each step may take: the name, the connection, TLS, the answer."""
_DATES: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class WebFailed(BridgeError):
    """An outer could not be opened; ``seen`` is what the class was judged by."""

    def __init__(self, seen: Observed) -> None:
        """The text names neither bridge nor address."""
        super().__init__(judge(seen))
        self.seen = seen


_T = TypeVar("_T")
Dial = Callable[[Target], Awaitable[socket.socket]]
"""Connects a non-blocking socket to the bridge; raises WebFailed."""


class WebOpener:
    """Opens outers to one bridge; remembers its TLS session and its day, so that the next one is cheap."""

    def __init__(
        self,
        bridge: WebBridge,
        *,
        dial: Dial | None = None,
        trust: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``trust`` is for sites that a private authority vouches for; else the system's authorities are asked."""
        self._bridge = bridge
        self._dial = dial or connect
        self._context = _pinning() if bridge.pin else trust or ssl.create_default_context()
        self._context.set_alpn_protocols(["http/1.1"])  # as browsers do for WebSocket
        self._clock = clock
        self._drift_days = 0
        self._session: ssl.SSLSession | None = None

    async def __call__(self) -> Tls:
        """A new outer; raises WebFailed."""
        found = await self._knock()
        if isinstance(found, Declined) and found.day is not None:
            # Only who has the site's certificate could bring this date here.
            drift = found.day - int(self._clock() // DAY_S)
            if abs(drift - self._drift_days) > 1:
                self._drift_days = drift
                found = await self._knock()
        if isinstance(found, Declined):
            raise WebFailed(found.seen)
        return found

    async def _knock(self) -> Tls | Declined:
        began_s = time.monotonic()
        sock = await self._dial(self._bridge.at)
        tls = Tls(asyncio.get_running_loop(), sock)
        step = Step.HELLO
        try:
            await self._shake(tls)
            step = Step.KEYS
            answer = await self._ask(tls)
        except Stopped as stopped:
            seen = _seen(tls, step, stopped.stop, began_s)
            tls.close()
            raise WebFailed(seen) from None
        except BaseException:
            tls.close()
            raise
        self._session = tls.engine.session
        if answer is None:
            return tls
        seen = _seen(tls, step, Stop.ANSWER, began_s)
        tls.finish()
        tls.close()
        return Declined(answer.day, seen)

    async def _shake(self, tls: Tls) -> None:
        shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not shaken.done():
                shaken.set_result(None)

        def failed(error: OSError) -> None:
            if not shaken.done():
                shaken.set_exception(Stopped(_stop_of(error, bytes(tls.first or b""))))

        # A ticket is used once: who listens could else see that two connections are of one client.
        session, self._session = self._session, None
        tls.begin(self._context, done, failed, name=self._bridge.name, session=session)
        await _in_time(shaken)
        if self._bridge.pin and not hmac.compare_digest(_pin_of(tls.engine), self._bridge.pin):
            raise Stopped(Stop.CERTIFICATE)
        if tls.engine.version() != "TLSv1.3":
            raise Stopped(Stop.ANSWER)

    async def _ask(self, tls: Tls) -> web.Declined | None:
        key = secrets.token_bytes(16)
        path = web.path_of(self._bridge.secret, int(self._clock() // DAY_S) + self._drift_days)
        name, port = self._bridge.name, self._bridge.at.port
        name = f"[{name}]" if ":" in name else name
        host = name if port == 443 else f"{name}:{port}"
        asking = _Asking(tls, key)
        tls.listen(asking)
        tls.resume()
        tls.write(web.write_request(host, path, key, secrets.token_bytes(secrets.randbelow(web.PADDING_MAX))))
        return await _in_time(asking.answer)


class Declined(NamedTuple):
    """The site answered in the bridge's place: on which day, and what was seen of it."""

    day: int | None
    seen: Observed


class Stopped(Exception):
    """A step ended before it was done."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop)
        self.stop = stop


async def _in_time(step: asyncio.Future[_T]) -> _T:
    try:
        async with asyncio.timeout(STEP_S):
            return await step
    except TimeoutError:
        raise Stopped(Stop.SILENCE) from None


def _seen(tls: Tls, step: Step, stop: Stop, began_s: float) -> Observed:
    elapsed_ms = round((time.monotonic() - began_s) * 1000)
    return Observed(step, stop, tls.sent_bytes, tls.received_bytes, tls.unacked_bytes, elapsed_ms)


class _Asking:
    """Waits for the answer to a request: None when the bridge took it."""

    def __init__(self, tls: Tls, key: bytes) -> None:
        self._tls = tls
        self.answer: asyncio.Future[web.Declined | None] = asyncio.get_running_loop().create_future()
        self._key = key
        self._data = bytearray()

    def received(self, data: memoryview) -> None:
        self._data += data
        try:
            answer = web.read_answer(bytes(self._data), self._key)
        except ProtocolError:
            self._tls.leave(b"")
            self._stop(Stop.ANSWER)
            return
        match answer:
            case web.Accepted():
                self._tls.leave(answer.rest)
                if not self.answer.done():
                    self.answer.set_result(None)
            case web.Declined():
                self._tls.leave(b"")
                if not self.answer.done():
                    self.answer.set_result(answer)

    def drained(self) -> None:
        pass

    def finished(self) -> None:
        self._stop(Stop.CLOSED)

    def broke(self, error: OSError) -> None:
        self._stop(Stop.RESET)

    def _stop(self, stop: Stop) -> None:
        if not self.answer.done():
            self.answer.set_exception(Stopped(stop))


def _pinning() -> ssl.SSLContext:
    """A context that trusts anybody, for who compares the key afterwards."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _pin_of(engine: ssl.SSLObject) -> bytes:
    certificate = engine.getpeercert(binary_form=True)
    return pin_of(certificate) if certificate else b""


def pin_of(certificate: bytes) -> bytes:
    """The pin of a certificate (DER): SHA-256 of its SubjectPublicKeyInfo, as in RFC 7469 §2.4; empty if it is none."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    except (ValueError, TypeError):
        return b""


def stop_at(error: ssl.SSLCertVerificationError) -> Stop:
    """Whether a certificate is only out of date, or not valid at all."""
    return Stop.DATES if error.verify_code in _DATES else Stop.CERTIFICATE


def _stop_of(error: OSError, first: bytes) -> Stop:
    match error:
        case ssl.SSLCertVerificationError():
            return stop_at(error)
        case ssl.SSLError():
            return Stop.PLAIN if first[:5] == b"HTTP/" or first[:1] == b"<" else Stop.ANSWER
        case ConnectionAbortedError():
            return Stop.CLOSED
        case _:
            return Stop.RESET


async def connect(target: Target) -> socket.socket:
    """A TCP connection to the target, by whichever of its addresses answers; raises WebFailed."""
    loop = asyncio.get_running_loop()
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(STEP_S):
            found = await look_up(target.host)
    except OSError:  # or TimeoutError
        raise WebFailed(Observed(Step.NAME, Stop.NO_NAME)) from None
    stop = Stop.UNREACHABLE
    for address in found:
        try:
            async with asyncio.timeout(STEP_S):
                return await dial(loop, address, target.port)
        except TimeoutError:
            stop = Stop.SILENCE
        except (ConnectionRefusedError, ConnectionResetError):
            stop = Stop.REFUSED
        except OSError:
            pass
    raise WebFailed(Observed(Step.CONNECT, stop, elapsed_ms=round((time.monotonic() - began_s) * 1000)))
