"""The local network: announcing a node to it, and hearing others, by multicast DNS (RFC 6762, RFC 6763).

Each network gets an instance and a host name of its own, random and new each time: who sees two of them, here and
there or now and later, cannot tell that they are one node.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from outlast.kernel.links.link import LinkError

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE: Final = "_outlast._tcp.local."
NETWORKS_MAX: Final = 4
NAME_BYTES: Final = 8


class Heard(NamedTuple):
    """What somebody announced. All of it is a claim."""

    name: str
    address: IPv4Address
    port: int  # 1 to 65,535
    fields: Mapping[bytes, bytes | None]


def networks() -> list[IPv4Interface]:
    """The private networks that this machine is in, with its address in each; at most 4."""
    import ifaddr

    found = [
        ipaddress.IPv4Interface(f"{ip.ip}/{ip.network_prefix}")
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str)
    ]
    return sorted(one for one in found if one.is_private and not one.is_loopback)[:NETWORKS_MAX]


class Segment:
    """One network, listened to."""

    def __init__(self, network: IPv4Interface, on_heard: Callable[[Heard], None]) -> None:
        """Made by ``open``."""
        self.network = network
        self.name = ""
        """Under which this node is announced here, if it is."""
        self._on_heard = on_heard
        self._zeroconf: AsyncZeroconf
        self._browser: AsyncServiceBrowser

    @classmethod
    async def open(cls, network: IPv4Interface, on_heard: Callable[[Heard], None]) -> Self:
        """Listen; ``on_heard`` gets each announcement of another node in this network, and each change of one.

        Raises LinkError when the network takes no multicast.
        """
        from zeroconf import IPVersion
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # what others announce goes into no log
        segment = cls(network, on_heard)
        try:
            segment._zeroconf = AsyncZeroconf(interfaces=[str(network.ip)], ip_version=IPVersion.V4Only)
        except OSError as error:
            raise LinkError("nothing can be announced at %(ip)s: %(error)s", ip=network.ip, error=error) from None
        segment._browser = AsyncServiceBrowser(segment._zeroconf.zeroconf, [SERVICE], handlers=[segment._changed])
        return segment

    async def announce(self, port: int, fields: Mapping[bytes, bytes]) -> None:
        """Say that a node listens at ``port`` of this machine's address here, under a fresh name.

        Raises LinkError when the network has gone meanwhile.
        """
        from zeroconf import Error
        from zeroconf.asyncio import AsyncServiceInfo

        self.name = os.urandom(NAME_BYTES).hex()
        info = AsyncServiceInfo(
            SERVICE,
            f"{self.name}.{SERVICE}",
            addresses=[self.network.ip.packed],
            port=port,
            properties=dict(fields),
            server=f"{os.urandom(NAME_BYTES).hex()}.local.",
        )
        # Names of 64 random bits need not be asked for first, and nobody can keep this node silent by claiming each.
        try:
            await self._zeroconf.async_register_service(info, cooperating_responders=True)
        except (Error, OSError):
            raise LinkError("nothing can be announced at %(ip)s", ip=self.network.ip) from None

    async def close(self) -> None:
        """Take the announcement back, and listen no more."""
        await self._browser.async_cancel()
        await self._zeroconf.async_unregister_all_services()
        await self._zeroconf.async_close()

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        from zeroconf import IPVersion, ServiceStateChange
        from zeroconf.asyncio import AsyncServiceInfo

        instance = name.removesuffix(f".{SERVICE}")
        if state_change is ServiceStateChange.Removed or instance == self.name:
            return
        info: AsyncServiceInfo = AsyncServiceInfo(service_type, name)
        # An announcement comes whole in one packet: nothing is asked again for the sake of one that did not.
        if not info.load_from_cache(zeroconf):
            return
        addresses = info.addresses_by_version(IPVersion.V4Only)
        if len(addresses) != 1 or not 1 <= (info.port or 0) <= 65_535:
            return
        address = IPv4Address(addresses[0])
        if address in self.network.network:
            self._on_heard(Heard(instance, address, info.port or 0, info.properties))
