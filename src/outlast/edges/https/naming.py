"""Tells the local network where this node's name is, by multicast DNS (RFC 6762): phones find ``NAME.local`` by it.

Unlike what discovery announces, this name stays the same: the certificate is for it alone. It is said only while the
encrypted door for phones is open.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

SERVICE: Final = "_https._tcp.local."


class Naming:
    """What is said of one name; nothing at first."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self._said: tuple[str, int, tuple[str, ...]] | None = None
        self._zeroconf: AsyncZeroconf | None = None

    async def say(self, name: str, port: int, addresses: Sequence[str]) -> None:
        """From now on answer that ``name`` is at these addresses of this machine; where that fails, say nothing."""
        from zeroconf import Error, IPVersion
        from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

        here = tuple(one for one in addresses if ":" not in one and not ip_address(one).is_loopback)
        if (name, port, here) == self._said:
            return
        await self.stop()
        self._said = name, port, here
        if not here:
            return
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # what others announce goes into no log
        packed = [ip_address(one).packed for one in here]
        info = AsyncServiceInfo(
            SERVICE, f"{name.partition('.')[0]}.{SERVICE}", addresses=packed, port=port, server=f"{name}."
        )
        with suppress(Error, OSError):
            self._zeroconf = AsyncZeroconf(interfaces=list(here), ip_version=IPVersion.V4Only)
            await self._zeroconf.async_register_service(info, cooperating_responders=True)

    async def stop(self) -> None:
        """Take it back."""
        self._said, zeroconf, self._zeroconf = None, self._zeroconf, None
        if zeroconf is not None:
            with suppress(OSError):
                await zeroconf.async_unregister_all_services()
                await zeroconf.async_close()
