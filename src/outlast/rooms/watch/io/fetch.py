"""Fetches what public servers tell of a country: over HTTPS with its certificate checked, bounded in bytes and time.

Where the environment names a SOCKS proxy (``ALL_PROXY=socks5h://HOST:PORT``, as for Tor) everything goes through it,
names as well. A proxy of another kind is an error before anything is sent: to go past a proxy that somebody set would
show them to those from whom it hides them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from outlast.address import Target
from outlast.errors import NotFoundError, ProtocolError, Sentence, UsageError
from outlast.rooms.watch.io.files import pieces, unpack_capped
from outlast.rooms.watch.io.series import SERIES_MAX_BYTES
from outlast.rooms.watch.io.wire import (
    End,
    Refused,
    Wire,
    dial,
    failure_of,
    getaddrinfo,
    need_authorities,
    reach,
    secured,
    strict_context,
)
from outlast.rooms.watch.proto.endpoints import Endpoint, read_answer
from outlast.rooms.watch.proto.http import HEADERS, MALFORMED, REDIRECTS, Exchange, Url, parse_url, redirect_of
from outlast.rooms.watch.proto.mrt import summarise
from outlast.rooms.watch.proto.probe import is_address
from outlast.rooms.watch.proto.series import Origin
from outlast.socks import Asking, SocksError

CONNECT_S: Final = 15.0
FETCH_S: Final = 90.0
"""So long one request may last in all; through Tor the larger answers take half a minute."""
REDIRECTS_MAX: Final = 3
PROXY_NAMES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""The first of these that is set counts, as with curl."""
COLLECTOR_MAX_BYTES: Final = 1 << 29
"""A collector's file unpacked: five minutes of the busiest are a tenth of it."""


def proxy_of(environ: Mapping[str, str]) -> Target | None:
    """The SOCKS 5 proxy that the environment names; raises UsageError for one that cannot be used here."""
    text = next((environ[name] for name in PROXY_NAMES if environ.get(name)), "")
    if not text:
        return None
    try:
        parts = urlsplit(text)
        if parts.scheme in ("socks5", "socks5h") and parts.hostname and parts.username is None:
            return Target(parts.hostname, parts.port or 1080)
    except ValueError:
        pass
    raise UsageError("nothing was asked: of proxies only ALL_PROXY=socks5h://HOST:PORT is known here, without password")


_UNKNOWN_NAME: Final = Sentence("its name is not known")
_NO_LOOKUP: Final = Sentence("its name could not be looked up")
_BAD_CERTIFICATE: Final = Sentence("its certificate is not valid")
_FAILURES: Final = {
    "connection_aborted": Sentence("the connection was reset"),
    "connection_refused": Sentence("the connection was refused"),
    "connection_reset": Sentence("the connection was reset"),
    "dns_no_answer": _UNKNOWN_NAME,
    "dns_non_recoverable_failure": _NO_LOOKUP,
    "dns_nxdomain_error": _UNKNOWN_NAME,
    "dns_server_misbehaving": _NO_LOOKUP,
    "dns_temporary_failure": _NO_LOOKUP,
    "eof_error": Sentence("the connection ended too early"),
    "generic_timeout_error": Sentence("no answer in time"),
    "host_unreachable": Sentence("No route to host"),
    "network_down": Sentence("Network is down"),
    "network_unreachable": Sentence("Network is unreachable"),
    "ssl_failed_handshake": Sentence("no encryption could be agreed on"),
    "ssl_invalid_certificate": _BAD_CERTIFICATE,
    "ssl_invalid_hostname": Sentence("its certificate is for another name"),
    "ssl_unknown_authority": _BAD_CERTIFICATE,
    MALFORMED: Sentence("what came is no answer in HTTP"),
}
"""What a failure of ``failure_of`` means for a person."""


async def fetch(asked: Endpoint, country: str, proxy: Target | None, fetch_s: float = FETCH_S) -> bytes:
    """The answer of a public server as it came, read once to see that it is one.

    Raises NotFoundError when the server does not answer or has none, ProtocolError for what is no such answer.
    """
    url = parse_url(asked.url)
    await asyncio.to_thread(need_authorities)
    try:
        async with asyncio.timeout(fetch_s):
            data = await _follow(url, asked.max_bytes, proxy)
    except (OSError, End, Refused) as error:
        failure = failure_of(error)
        reason = _FAILURES.get(failure) or Sentence(failure.replace("_", " "))
        raise NotFoundError("%(host)s gave no answer: %(reason)s", host=url.host, reason=reason) from None
    except SocksError as error:
        raise NotFoundError("%(host)s was not reached: %(error)s", host=url.host, error=error) from None
    try:
        await asyncio.to_thread(_check, asked, country, data)
    except ProtocolError as error:
        raise ProtocolError("what %(host)s sent cannot be used: %(error)s", host=url.host, error=error) from None
    return data


async def _follow(url: Url, max_bytes: int, proxy: Target | None) -> bytes:
    first = url
    for _ in range(REDIRECTS_MAX + 1):
        got = await _get(url, max_bytes, proxy)
        if got.status == 200:
            _whole(url, got, max_bytes)
            return got.body
        if got.status not in REDIRECTS:
            raise _refusal(url, got)
        try:
            there = redirect_of(url, got.status, got.header("location"))
        except UsageError:
            there = None
        if there is None or (there.scheme, there.origin) != (first.scheme, first.origin):
            raise ProtocolError("%(host)s sends to another server, which is not asked", host=url.host)
        url = there
    raise ProtocolError("%(host)s sends around in circles", host=url.host)


async def _get(url: Url, max_bytes: int, proxy: Target | None) -> Exchange:
    exchange = Exchange(max_bytes)
    wire = await _reach(url, proxy)
    with contextlib.closing(wire):
        await wire.send(exchange.send("GET", url, HEADERS))
        await wire.receive(exchange, None)
    if exchange.failure:
        raise Refused(exchange.failure)
    return exchange


async def _reach(url: Url, proxy: Target | None) -> Wire:
    async def direct(ip: str, port: int) -> Wire:
        return await dial(ip, port, time.monotonic)

    if proxy is None:
        return await reach(url, CONNECT_S, direct, strict_context)
    ip = proxy.host if is_address(proxy.host) else (await getaddrinfo(proxy.host))[0][0]
    wire = await direct(ip, proxy.port)
    try:
        asking, reached = Asking(Target(url.host, url.port)), None
        await wire.send(asking.first())
        while reached is None:
            if not (came := await wire.read()):
                raise End
            say, reached = asking.receive(came)
            await wire.send(say)
        if reached.early:
            raise SocksError("the proxy speaks no SOCKS 5")  # a server of TLS does not speak first
    except BaseException:
        wire.close()
        raise
    return await secured(wire, strict_context(), url.host)


def _whole(url: Url, got: Exchange, max_bytes: int) -> None:
    if got.truncated:
        raise ProtocolError("%(host)s sends more than %(most)s bytes", host=url.host, most=max_bytes)
    # Else the end of the connection is the end of the answer, and anybody on the way can end that.
    if got.header("content-length") is None and got.header("transfer-encoding") is None:
        raise ProtocolError("%(host)s does not say how long its answer is", host=url.host)


def _refusal(url: Url, got: Exchange) -> NotFoundError:
    if got.status == 429:
        wait = (got.header("retry-after") or "").strip()
        if wait.isascii() and wait.isdigit() and len(wait) < 7:
            return NotFoundError(
                "%(host)s was asked too often: try again in %(wait)s seconds", host=url.host, wait=wait
            )
        return NotFoundError("%(host)s was asked too often: try again in a while", host=url.host)
    if got.status >= 500:
        return NotFoundError(
            "%(host)s cannot answer at present (status %(status)d): try again later", host=url.host, status=got.status
        )
    return NotFoundError("%(host)s does not give this (status %(status)d)", host=url.host, status=got.status)


def _check(asked: Endpoint, country: str, data: bytes) -> None:
    raw = io.BufferedReader(io.BytesIO(data))
    # No series greater than this could be read from a file either.
    most = SERIES_MAX_BYTES if asked.is_series else COLLECTOR_MAX_BYTES
    with unpack_capped(raw, asked.file, most) as source:  # type: ignore[arg-type]
        if asked.is_series:
            read_answer(asked, country, source, Origin())
        elif (damage := summarise(pieces(source)).damage) is not None:
            raise ProtocolError("%(damage)s", damage=damage)
