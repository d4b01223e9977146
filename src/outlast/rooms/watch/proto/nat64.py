"""NAT64 (RFC 6052): IPv6 addresses that stand for IPv4 ones, as DNS64 (RFC 6147) gives them where there is no IPv4.

Known is the well-known prefix; that a network has one of its own can only be asked of its resolver (RFC 7050).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

PREFIX: Final = IPv6Network("64:ff9b::/96")


def translated(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address to which packets for this one come; None where it stands for none."""
    return IPv4Address(address.packed[-4:]) if address in PREFIX else None


def goal_of(text: str) -> str:
    """An address as others see its goal: the IPv4 one that it stands for, or itself; what is none stays as it is."""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    return str((translated(address) if isinstance(address, IPv6Address) else None) or text)
