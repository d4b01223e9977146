"""A website that is a bridge, put together: the client's tunnel through it; the server's site, certificate and hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from msgspec.structs import replace

from outlast.address import Target
from outlast.errors import OutlastError, StorageError
from outlast.rooms.reach.io import web_server
from outlast.rooms.reach.io.acme import Acme, certified
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.site import open_site
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.io.web_client import WebOpener
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import write_bridge


class WebServer(msgspec.Struct, frozen=True, tag="web"):
    """A website that is a bridge to those who know a secret of it."""

    listen: Target
    name: str  # what TLS and HTTP call it
    site: str  # a folder, or the URL of the server behind it
    secrets: tuple[bytes, ...]  # 32 B each, one for each user
    folder: str  # where its keys are kept when the certificate is not somebody else's work
    certificate: tuple[str, str] | None = None  # PEM files: chain, key; neither this nor ``acme``: it signs its own
    site_tls: str = ""  # HOST:PORT where the server behind it speaks TLS itself
    acme: str = ""  # URL of an authority's directory
    http: Target | None = None  # where plain HTTP is answered while ``acme`` is set; None: port 80
    host: str = ""  # in its links: an address where one is known; empty: the name


def web_tunnel(bridge: WebBridge, tell: Callable[[OutlastError], None], hop_bytes: int = 0) -> Tunnel:
    """The carrier that such a bridge is; ``tell`` hears each time why it could not be reached."""

    def changed(up: bool, error: OutlastError | None) -> None:
        if error is not None:
            tell(error)

    return Tunnel(WebOpener(bridge), bridge.secret, changed=changed, hop_bytes=hop_bytes)


class ServedSite:
    """A site and the bridge in it: ``at`` is where it listens, ``links`` has one for each user."""

    def __init__(self) -> None:
        self.at = Target("", 0)
        self.links: tuple[str, ...] = ()
        self._stack = AsyncExitStack()
        self._front: web_server.WebServer | None = None
        self._pattern: WebBridge | None = None
        self._hub: Hub | None = None

    @classmethod
    async def start(cls, exit_: Exit, server: WebServer) -> ServedSite:
        """Serve; raises OutlastError with what to do."""
        served = cls()
        stack = served._stack
        try:
            listener = stack.enter_context(listen(server.listen))
            host, port, *_ = listener.getsockname()
            served.at = Target(host, port)
            certificate, pin = await _certificate(stack, server, port)
            hub = served._hub = Hub(exit_)
            stack.callback(hub.close)

            def accept(outer: Outer, user: str) -> None:
                hub.accept(outer, (bytes.fromhex(user),))

            pages = await stack.enter_async_context(open_site(server.site, server.site_tls))
            front = web_server.WebServer(asyncio.get_running_loop(), certificate.context, pages, {}, accept)
            served._pattern = WebBridge(Target(server.host or server.name, port), server.name, b"", pin)
            served._front = front
            served.admit(server.secrets)
            front.listen(listener)
            stack.callback(front.close)
        except BaseException:
            await stack.aclose()
            raise
        return served

    def admit(self, secrets: tuple[bytes, ...]) -> None:
        """From now on these secrets (32 B each) let in, and whoever has another one is out."""
        assert self._front is not None
        assert self._pattern is not None
        self._front.admit({secret.hex(): secret for secret in secrets})
        self.links = tuple(write_bridge(replace(self._pattern, secret=secret)) for secret in secrets)
        if self._hub is not None:
            self._hub.keep(secrets)

    async def close(self) -> None:
        """End it with all its streams."""
        await self._stack.aclose()


async def _certificate(stack: AsyncExitStack, server: WebServer, port: int) -> tuple[Certificate, bytes]:
    """The certificate, and what links have to say of it so that a client trusts it."""
    folder = Path(server.folder)
    if server.acme:
        acme = Acme(server.acme, server.name, folder)
        http = server.http or Target(server.listen.host, 80)
        await stack.enter_async_context(certified(acme, http, server.name, port))
        return Certificate(acme.certificate, acme.key), b""
    if server.certificate is not None:
        chain, key = server.certificate
        certificate = Certificate(Path(chain), Path(key))
        return certificate, b"" if certificate.vouched_for(server.name) else certificate.pin
    try:
        certificate = self_signed(folder, server.name)
    except OSError as error:
        raise StorageError(
            "the certificate cannot be kept in %(folder)s: %(error)s", folder=folder, error=error
        ) from None
    return certificate, certificate.pin
