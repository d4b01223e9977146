"""Where neighbours find this machine: its addresses in private networks."""

from ipaddress import ip_address
from typing import Final

from outlast.address import Target

ANYWHERE: Final = ("0.0.0.0", "::")


def heard_at(host: str) -> list[str]:
    """Where neighbours reach now what listens at ``host``; one socket listens at addresses of one kind."""
    return [one for one in local_addresses() if (":" in one) == (":" in host)] if host in ANYWHERE else [host]


def reached_at(at: Target) -> list[Target]:
    """Where programs reach what listens ``at`` an address: this computer's own first, then neighbours'."""
    if at.host not in ANYWHERE:
        return [at]
    own = "::1" if ":" in at.host else "127.0.0.1"
    return [Target(one, at.port) for one in (own, *heard_at(at.host))]


def local_addresses() -> list[str]:
    """The addresses by which neighbours on the same private network reach this machine, IPv4 first."""
    import ifaddr

    found = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    return sorted((one for one in found if is_neighbourly(one)), key=lambda address: ":" in address)


def is_neighbourly(address: str) -> bool:
    """Whether an address is one of a private network, where a phone in the same room can be."""
    at = ip_address(address)
    return at.is_private and not at.is_loopback and not (at.version == 6 and at.is_link_local)
