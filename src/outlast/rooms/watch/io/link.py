"""How the way from this computer into the network is: does the gateway answer, something at home, something abroad?

Only what the person named is asked, by one TCP connect each, and abroad by one TLS handshake; the gateway by one
datagram on the own wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from outlast.errors import UsageError
from outlast.rooms.watch.io.wire import strict_context
from outlast.rooms.watch.proto.probe import is_address

TIMEOUT_S: Final = 8.0
TARGETS_MAX: Final = 8
ROUTES: Final = Path("/proc/net/route")
NEIGHBOURS: Final = Path("/proc/net/arp")
HTTPS_PORT: Final = 443
_DISCARD_PORT: Final = 9
_COMPLETE: Final = 0x2


def read_target(text: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT`` or a URL; port 443 when none is named. Raises UsageError."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else HTTPS_PORT)
    except ValueError:
        host, port = "", 0
    if not host or len(host) > 253 or not host.isprintable() or " " in host:
        raise UsageError("%(text)r is no address: write HOST, HOST:PORT or a URL", text=text[:80])
    return host, port


async def any_answers(targets: Sequence[str]) -> bool | None:
    """Whether any of these accepts a connection, or refuses it in person; None when none is named."""
    if not targets:
        return None
    return any(await asyncio.gather(*(_answers(*read_target(one)) for one in targets[:TARGETS_MAX])))


async def any_proves_itself(targets: Sequence[str]) -> bool | None:
    """Whether any of these is there itself, and not what stands on the way to it; None when none is named.

    A portal, a resolver that lies and a proxy that takes every connection are no way out. So a name at port 443 has to
    show its certificate, and who refuses may be a firewall. None also where something answers that proves nothing: the
    fault may lie with this computer's clock.
    """
    if not targets:
        return None
    found = await asyncio.gather(*(proves_itself(*read_target(one)) for one in targets[:TARGETS_MAX]))
    return True if any(found) else None if None in found else False


async def proves_itself(host: str, port: int) -> bool | None:
    """The same of one; at other ports, and of an address, a connection is all that there is."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return None
    except (OSError, TimeoutError, UnicodeError):
        return False
    try:
        if port == HTTPS_PORT and not is_address(host):
            async with asyncio.timeout(TIMEOUT_S):
                await writer.start_tls(strict_context(), server_hostname=host)
    except (OSError, TimeoutError):
        return None
    finally:
        writer.close()
    return True


async def gateway_answers() -> bool | None:
    """Whether the default gateway is there; None when this machine does not show its routes (Linux does)."""
    try:
        gateway = default_gateway(ROUTES.read_text("ascii", "replace"))
    except OSError:
        return None
    if gateway is None:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(b"", (gateway, _DISCARD_PORT))
    await asyncio.sleep(1)  # the kernel asks three times, a second apart; an entry that was there is there at once
    try:
        return is_neighbour(NEIGHBOURS.read_text("ascii", "replace"), gateway)
    except OSError:
        return None


def default_gateway(table: str) -> str | None:
    """The address of the default gateway in ``/proc/net/route``; None when there is none."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 3 and columns[1] == "00000000" and columns[2] != "00000000":
            with contextlib.suppress(ValueError, OSError):
                return socket.inet_ntoa(bytes.fromhex(columns[2])[::-1])
    return None


def is_neighbour(table: str, address: str) -> bool:
    """Whether ``/proc/net/arp`` has a complete entry of an address."""
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 3 and columns[0] == address:
            with contextlib.suppress(ValueError):
                return bool(int(columns[2], 16) & _COMPLETE)
    return False


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError, UnicodeError):
        return False
    writer.close()
    return True
