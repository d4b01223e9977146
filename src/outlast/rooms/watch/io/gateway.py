"""Whether this computer's own router is there: without it, nothing can be said of the network beyond."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

ROUTES: Final = Path("/proc/net/route")
NEIGHBOURS: Final = Path("/proc/net/arp")
WAIT_S: Final = 2.0
_PORT: Final = 53
_DEFAULT: Final = "00000000"
_COMPLETE: Final = 0x2


async def gateway_answers() -> bool | None:
    """Whether the default route's next hop answers, for IPv4 on Linux; None when there is none or it cannot be told.

    A connection is tried, whatever becomes of it: then the kernel knows whether somebody has that address.
    """
    gateway = default_gateway(_read(ROUTES))
    if gateway is None:
        return None
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(WAIT_S):
            await asyncio.get_running_loop().sock_connect(sock, (gateway, _PORT))
    return is_neighbour(_read(NEIGHBOURS), gateway)


def default_gateway(routes: str) -> str | None:
    """The next hop of the default route in the text of /proc/net/route; None when there is none."""
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[1] == _DEFAULT and fields[2] != _DEFAULT:
            with contextlib.suppress(ValueError):
                return str(IPv4Address(int(fields[2], 16).to_bytes(4, "little")))
    return None


def is_neighbour(table: str, address: str) -> bool | None:
    """Whether the text of /proc/net/arp has a complete entry of an address; None when it has none of it."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 2 and fields[0] == address:
            with contextlib.suppress(ValueError):
                return bool(int(fields[2], 16) & _COMPLETE)
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace")
    except OSError:
        return ""
