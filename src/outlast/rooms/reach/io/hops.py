"""Neighbours' uplinks: each bridge once more, through the hop that a neighbour in the local network lets one use."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import ifaddr
import msgspec

from outlast.address import Target
from outlast.rooms.reach.io.choosing import Other
from outlast.rooms.reach.io.forward import Forward
from outlast.rooms.reach.io.lending import METHOD
from outlast.rooms.reach.io.shadowsocks import Shadowsocks
from outlast.rooms.reach.proto.bridge import Bridge, ShadowsocksBridge, Tricks
from outlast.rooms.reach.proto.links import bridge_id


class Hop(msgspec.Struct, frozen=True):
    """A neighbour's offer."""

    name: str  # 8 hex digits of its number
    hosts: tuple[str, ...]
    port: int
    key: bytes  # 32 B
    is_metered: bool


def way_id(bridge: str, hop: str) -> str:
    """What a bridge through a hop is called: ``BRIDGE+HOP``."""
    return f"{bridge}+{hop}"


def bridge_of(way: str) -> str:
    """The bridge of a way, whatever it goes through."""
    return way.partition("+")[0]


def is_far(bridge: Bridge) -> bool:
    """Whether a way out leads to one address, which a hop can then lead to."""
    return not isinstance(bridge, Tricks)


class Hops:
    """All ways through neighbours: a port on loopback for each bridge and hop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """None before ``match``."""
        self._loop = loop
        self._carriers: dict[Hop, Shadowsocks] = {}
        self._forwards: dict[tuple[Hop, str], Forward] = {}

    def match(self, hops: Sequence[Hop], bridges: Sequence[Bridge]) -> list[Other]:
        """Have ways to these bridges through these hops; those that are there already stay. Raises OutlastError."""
        wanted = [(hop, bridge_id(bridge), bridge) for hop in hops for bridge in bridges if is_far(bridge)]
        for key in self._forwards.keys() - {(hop, id_) for hop, id_, _ in wanted}:
            self._forwards.pop(key).close()
        for hop in self._carriers.keys() - set(hops):
            self._carriers.pop(hop).close()
        for hop, id_, bridge in wanted:
            if hop not in self._carriers:
                at = Target(nearest(hop.hosts), hop.port)
                password = b64encode(hop.key).decode()
                self._carriers[hop] = Shadowsocks(self._loop, ShadowsocksBridge(at, METHOD, password))
            if (hop, id_) not in self._forwards:
                self._forwards[hop, id_] = Forward(self._loop, self._carriers[hop], bridge.at)
        return [
            Other(
                way_id(id_, hop.name),
                msgspec.structs.replace(bridge, at=self._forwards[hop, id_].at),
                hop.is_metered,
            )
            for hop, id_, bridge in wanted
        ]

    def close(self) -> None:
        """End all."""
        self.match((), ())


def nearest(hosts: Sequence[str]) -> str:
    """The first of these addresses that lies in a network of this machine, else the first."""
    networks = [
        ip_network(f"{ip.ip if isinstance(ip.ip, str) else ip.ip[0]}/{ip.network_prefix}", strict=False)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]
    return next((host for host in hosts if any(ip_address(host) in network for network in networks)), hosts[0])
