"""A website that is a bridge, put together: the client's tunnel through it; the server's site, certificate and hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec.structs import replace

from outlast.errors import OutlastError, StorageError
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.io.hub import Hub
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.site import open_site
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.io.web_client import WebOpener
from outlast.rooms.reach.io.web_server import WebServer
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import write_bridge


def web_tunnel(bridge: WebBridge, tell: Callable[[OutlastError], None]) -> Tunnel:
    """The carrier that such a bridge is; ``tell`` hears each time why it could not be reached."""

    def changed(up: bool, error: OutlastError | None) -> None:
        if error is not None:
            tell(error)

    return Tunnel(WebOpener(bridge), bridge.secret, changed=changed)


class ServedSite:
    """A site and the bridge in it: ``at`` is where it listens, ``links`` has one for each user."""

    def __init__(self) -> None:
        self.at = Target("", 0)
        self.links: tuple[str, ...] = ()
        self._stack = AsyncExitStack()
        self._server: WebServer | None = None
        self._pattern: WebBridge | None = None

    @classmethod
    async def start(
        cls,
        exit_: Exit,
        at: Target,
        name: str,
        site: str,
        secrets: tuple[bytes, ...],
        folder: Path,
        files: tuple[Path, Path] | None,
    ) -> ServedSite:
        """Serve; ``files`` are certificate and key, without them the folder's own are made, and pinned in the links.

        ``secrets`` have 32 B each. Raises OutlastError with what to do.
        """
        served = cls()
        stack = served._stack
        try:
            certificate = _certificate(folder, name, files)
            listener = stack.enter_context(listen(at))
            host, port, *_ = listener.getsockname()
            served.at = Target(host, port)
            hub = Hub(exit_)
            stack.callback(hub.close)

            def accept(outer: Outer, user: str) -> None:
                hub.accept(outer, (bytes.fromhex(user),))

            pages = await stack.enter_async_context(open_site(site))
            server = WebServer(asyncio.get_running_loop(), certificate.context, pages, {}, accept)
            served._pattern = WebBridge(Target(name, port), name, b"", b"" if files else certificate.pin)
            served._server = server
            served.admit(secrets)
            server.listen(listener)
            stack.callback(server.close)
        except BaseException:
            await stack.aclose()
            raise
        return served

    def admit(self, secrets: tuple[bytes, ...]) -> None:
        """From now on these secrets (32 B each) let in; who is in stays in."""
        assert self._server is not None
        assert self._pattern is not None
        self._server.admit({secret.hex(): secret for secret in secrets})
        self.links = tuple(write_bridge(replace(self._pattern, secret=secret)) for secret in secrets)

    async def close(self) -> None:
        """End it with all its streams."""
        await self._stack.aclose()


def _certificate(folder: Path, name: str, files: tuple[Path, Path] | None) -> Certificate:
    if files is not None:
        return Certificate(*files)
    try:
        return self_signed(folder, name)
    except OSError as error:
        raise StorageError(f"the certificate cannot be kept in {folder}: {error.strerror}") from None
