"""What an exit refuses to connect to: everything that is not the public internet, in whichever form it is written.

A bridge that let its users reach the network it stands in would hand them its owner's router, printer and cloud
credentials (server-side request forgery). What counts is the address that is connected to, after the lookup, so a name
that resolves to another address the second time gains nothing. Sources: the IANA registries of special-purpose
addresses (RFC 6890), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4291 §2.5.5 (IPv4-mapped).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

SMTP: Final = 25
EVERYTHING: Final = ("0.0.0.0/0", "::/0")

_PRIVATE4: Final = tuple(
    IPv4Network(one)
    for one in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service among it
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's metadata service, inside a public range
        "169.254.0.0/16",  # link-local; the metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_PUBLIC6: Final = IPv6Network("2000::/3")
_PRIVATE6: Final = tuple(IPv6Network(one) for one in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")


class Policy(msgspec.Struct, frozen=True):
    """What an exit may connect to beside the public internet, and which ports it refuses."""

    allowed: tuple[str, ...] = ()  # networks in CIDR form
    ports_refused: tuple[int, ...] = (SMTP,)

    def refuses_port(self, port: int) -> bool:
        """Whether nothing is to be connected to at this port."""
        return port == 0 or port in self.ports_refused

    def refuses(self, host: str, own: frozenset[str] = frozenset(), links: tuple[str, ...] = ()) -> bool:
        """Whether this address, as text, is none for the exit.

        ``own`` are the addresses of its machine, ``links`` the networks of IPv6 (CIDR) that it stands in: there the
        printer has a public address too, and the router keeps nobody out who asks from inside.
        """
        refused = not own.isdisjoint(_forms(host)) or not is_public(host) or within(host, links)
        return refused and not within(host, self.allowed)


def allowing_private() -> Policy:
    """For networks of one's own, and tests: nothing is refused but port 25."""
    return Policy(allowed=EVERYTHING)


@lru_cache(4096)
def is_public(host: str) -> bool:
    """Whether an address, as text, belongs to the public internet; False for what is no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        embedded = _embedded(address)
        if embedded is None:
            return address in _PUBLIC6 and not any(address in network for network in _PRIVATE6)
        address = embedded
    return not any(address in network for network in _PRIVATE4)


@lru_cache(4096)
def _forms(host: str) -> tuple[str, ...]:
    """How systems write the address, and the one that a connection to it would reach."""
    try:
        address = ip_address(host)
    except ValueError:
        return (host,)
    embedded = _embedded(address) if isinstance(address, IPv6Address) else None
    return (str(address),) if embedded is None else (str(address), str(embedded))


@lru_cache(4096)
def within(host: str, networks: tuple[str, ...]) -> bool:
    """Whether an address, as text, lies in one of the networks; False for what is no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(address in ip_network(network) for network in networks)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a connection to this one would reach."""
    if address in _MAPPED or address in _NAT64:
        return IPv4Address(address.packed[12:])
    if address in _SIX_TO_FOUR:
        return IPv4Address(address.packed[2:6])
    return None
