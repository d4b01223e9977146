"""The control's server: looks at sites for probes that know its word, and gives them bytes to compare speeds with."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from outlast.errors import StorageError, UsageError, port_taken
from outlast.rooms.watch.io.probe import Hands, Patience, own_networks
from outlast.rooms.watch.proto.control import REQUEST_MAX_BYTES, ControlError, Rate, answer, read_request
from outlast.rooms.watch.proto.probe import Network, Probe

LOOKS_AT_ONCE: Final = 8
CONNECTIONS_MAX: Final = 64
CONNECTIONS_EACH: Final = 16
"""Of one address."""
REQUEST_S: Final = 10.0
CONNECTION_S: Final = 75.0
"""A connection ends after so long, whatever becomes of it: a request, its turn, a look, and the answer."""
PATIENCE: Final = Patience(lookup_s=8.0, connect_s=8.0, tls_s=8.0, fetch_s=15.0)
LOOK_S: Final = 40.0
SPEED_CHUNK_BYTES: Final = 128 * 1024
SPEED_CHUNKS: Final = 8
SPEED_EVERY_S: Final = 0.25
"""4 Mbit/s for two seconds: throttled lines have a tenth of that, and a small control can bear it."""


def control_app(token: str, allowed: Sequence[Network] = ()) -> Starlette:
    """The application: POST / is OONI's test helper, GET /speed the bytes. ``token`` is asked for at both."""
    looks = asyncio.Semaphore(LOOKS_AT_ONCE)
    rate = Rate()

    def refusal(request: Request) -> Response | None:
        word = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(word.encode("latin-1"), token.encode()):
            return JSONResponse({"error": "the control's token is missing or wrong"}, 401)
        who = request.client.host if request.client else ""
        if not rate.allows(who, time.monotonic()):
            return JSONResponse({"error": "too many requests: wait a little"}, 429)
        return None

    async def look(request: Request) -> Response:
        if refused := refusal(request):
            return refused
        try:
            async with asyncio.timeout(REQUEST_S):
                asked = read_request(await _body(request), allowed)
        except ControlError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (ClientDisconnect, TimeoutError):
            return Response(status_code=408)
        async with looks:
            machine = Probe(asked.url, asked.settings(allowed, own_networks()))
            async with Hands(PATIENCE, None) as hands:
                # What was seen until the time is over is the answer.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await hands.drive(machine)
        return JSONResponse(answer(machine))

    async def speed(request: Request) -> Response:
        if refused := refusal(request):
            return refused
        return StreamingResponse(_paced(looks), media_type="application/octet-stream")

    return Starlette(routes=[Route("/", look, methods=["POST"]), Route("/speed", speed)])


def serve(
    listen: socket.socket, token: str, allowed: Sequence[Network] = (), certificate: tuple[Path, Path] | None = None
) -> None:
    """Serve until a signal ends it; ``certificate`` is a chain and its key, in PEM."""
    config = server_config(control_app(token, allowed), certificate)
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise StorageError("the certificate or its key cannot be read: %(error)s", error=error) from None
    uvicorn.Server(config).run(sockets=[listen])


def server_config(app: Starlette, certificate: tuple[Path, Path] | None = None) -> uvicorn.Config:
    """How it is served; raises nothing before it is loaded."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_keep_alive=5,
        ssl_certfile=str(certificate[0]) if certificate else None,
        ssl_keyfile=str(certificate[1]) if certificate else None,
    )


class Connection(H11Protocol):
    """A connection to the control: within the bounds of how many there may be, and of how long each may last.

    uvicorn bounds neither: whoever does not know the word could hold all there are by saying nothing.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or end it at once."""
        super().connection_made(transport)
        whose = [one for one in self.connections if isinstance(one, Connection) and _address(one) == _address(self)]
        if len(self.connections) > CONNECTIONS_MAX or len(whose) > CONNECTIONS_EACH:
            transport.abort()
        self._limit = self.loop.call_later(REQUEST_S, self._ask_for_request)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended."""
        self._limit.cancel()
        super().connection_lost(exc)

    def _ask_for_request(self) -> None:
        if self.scope is None:
            self.transport.abort()
        self._limit = self.loop.call_later(CONNECTION_S - REQUEST_S, self.transport.abort)


def listener(host: str, port: int) -> socket.socket:
    """A listening socket; raises UsageError or StorageError when the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(f"{host}:{port}") from None
        raise UsageError(
            "cannot listen at %(host)s port %(port)s: %(error)s", host=host, port=port, error=error
        ) from None


def _address(one: Connection) -> str:
    return one.client[0] if one.client else ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > REQUEST_MAX_BYTES:
            raise ControlError("this request is too long")
    return bytes(body)


async def _paced(looks: asyncio.Semaphore) -> AsyncIterator[bytes]:
    async with looks:
        for _ in range(SPEED_CHUNKS):
            yield bytes(SPEED_CHUNK_BYTES)
            await asyncio.sleep(SPEED_EVERY_S)
