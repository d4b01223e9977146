"""Which network this machine is on, as a key that tells nobody which: by the hardware address of the gateway."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Final

import ifaddr

from outlast.rooms.reach.proto.chooser import network_key

HOSTS_MAX: Final = 4
_ROUTES: Final = Path("/proc/net/route")
_NEIGHBOURS: Final = Path("/proc/net/arp")


def local_hosts() -> tuple[str, ...]:
    """The IPv4 addresses of this machine in local networks, at most 4."""
    ips = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    local = [one for one in map(ip_address, ips) if one.is_private and not one.is_loopback and not one.is_link_local]
    return tuple(sorted(str(one) for one in local))[:HOSTS_MAX]


class Networks:
    """Sees which network this machine is on, now and again."""

    def __init__(self) -> None:
        self._hardware: dict[str, str] = {}

    def now(self, key: bytes) -> str:
        """What the present network is called under this key (32 B); "" where the machine does not show its routes.

        A gateway that nobody has spoken to lately is no longer among the neighbours; it is the one it was then.
        """
        try:
            routes, neighbours = _ROUTES.read_text("ascii", "replace"), _NEIGHBOURS.read_text("ascii", "replace")
        except OSError:
            return ""
        address, hardware = gateway_in(routes, neighbours)
        if hardware:
            self._hardware = {address: hardware}
        return network_key(key, self._hardware.get(address, address)) if address else ""


def gateway_in(routes: str, neighbours: str) -> tuple[str, str]:
    """The default gateway's IP address and hardware address, each "" when it is not there.

    From the texts of ``/proc/net/route`` and ``/proc/net/arp``, as Linux has them.
    """
    for line in routes.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 3 or columns[1] != "00000000" or columns[2] == "00000000":
            continue
        try:
            address = ".".join(str(part) for part in reversed(bytes.fromhex(columns[2])))
        except ValueError:
            continue
        for neighbour in neighbours.splitlines()[1:]:
            fields = neighbour.split()
            if len(fields) > 3 and fields[0] == address and fields[3] != "00:00:00:00:00:00":
                return address, fields[3].lower()
        return address, ""
    return "", ""
