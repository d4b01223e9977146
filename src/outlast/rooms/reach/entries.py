"""What reach says: in open channels how ways out ended (``outlast.terms.Route``), and all about bridges in letters.

A bridge that is published is a bridge that is blocked, so bridges go from contact to contact, sealed. An **operator**
runs bridges and gives each member a secret of their own under a number. Whoever may hand on asks their operator for
another number, and passes what comes under it to one of their contacts: so an operator knows a tree of numbers, and
nobody but the two of them knows who invited whom. Numbers also name offers of an uplink. Bodies are msgpack arrays.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

import msgspec

from outlast.kernel import Kind
from outlast.terms import OUTCOMES, Outcome

NUMBER_BYTES: Final = 16
KEY_BYTES: Final = 32
LINK_MAX_BYTES: Final = 4096
HOST_MAX_CHARS: Final = 255
HOSTS_MAX: Final = 8
TARGETS_MAX: Final = 16
"""Addresses of bridges that one member may be carried to."""
QUOTA_MAX_BYTES: Final = 1 << 50


class Handed(msgspec.Struct, array_like=True, frozen=True):
    """Here is a bridge, or another one in the place of what came under this number."""

    number: bytes  # 16 B: the invitation
    link: str  # "outlast://bridge/...", "ss://..." or a bridge line of Tor
    until_day: int  # days since 1970; then the receiver forgets it
    may_invite: bool  # whether the operator takes requests for others from this receiver
    request: bytes = b""  # 16 B: what this answers; empty when nobody asked


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """A bridge, please: for me, or (``on`` is my invitation) for somebody whom I answer for."""

    request: bytes  # 16 B
    on: bytes = b""  # 16 B


class Failed(msgspec.Struct, array_like=True, frozen=True):
    """The bridge that came under this number does not work here any more, and others do."""

    number: bytes
    outcome: Outcome


class Revoked(msgspec.Struct, array_like=True, frozen=True):
    """What came under this number is over."""

    number: bytes


class Uplink(msgspec.Struct, array_like=True, frozen=True):
    """Through me you can reach your bridges while your own line is cut: a Shadowsocks 2022 hop in our local network."""

    number: bytes
    hosts: tuple[str, ...]  # literal addresses in the local network
    port: int
    key: bytes  # 32 B, this member's
    day_bytes: int  # what this member may use in a day, 0 = not told
    is_metered: bool
    until_day: int


class Through(msgspec.Struct, array_like=True, frozen=True):
    """The addresses of my bridges: let me through to these, under that offer. A target is ``(host, port)``."""

    number: bytes
    targets: tuple[tuple[str, int], ...]


HANDED: Final = Kind("reach.bridge", Handed, max_bytes=LINK_MAX_BYTES + 128)
WANTED: Final = Kind("reach.want", Wanted, max_bytes=64)
FAILED: Final = Kind("reach.failed", Failed, max_bytes=64)
REVOKED: Final = Kind("reach.revoked", Revoked, max_bytes=32)
UPLINK: Final = Kind("reach.uplink", Uplink, max_bytes=HOSTS_MAX * 48 + 192)
THROUGH: Final = Kind("reach.through", Through, max_bytes=TARGETS_MAX * (HOST_MAX_CHARS + 8) + 64)
LETTERS: Final = (HANDED, WANTED, FAILED, REVOKED, UPLINK, THROUGH)


def is_sane_handed(one: Handed) -> bool:
    """Whether a bridge that somebody handed on keeps to what its fields may hold; its link is read by who uses it."""
    return (
        len(one.number) == NUMBER_BYTES
        and 0 < len(one.link.encode()) <= LINK_MAX_BYTES
        and one.link.isprintable()
        and 0 <= one.until_day < 2**31
        and len(one.request) in (0, NUMBER_BYTES)
    )


def is_sane_wanted(one: Wanted) -> bool:
    """Whether a request has its numbers."""
    return len(one.request) == NUMBER_BYTES and len(one.on) in (0, NUMBER_BYTES)


def is_sane_failed(one: Failed) -> bool:
    """Whether what is told of a bridge is a failure."""
    return len(one.number) == NUMBER_BYTES and one.outcome in OUTCOMES and one.outcome != "ok"


def is_sane_uplink(one: Uplink) -> bool:
    """Whether an offer of an uplink names addresses of a local network, keys and a share."""
    return (
        len(one.number) == NUMBER_BYTES
        and 0 < len(one.hosts) <= HOSTS_MAX
        and all(is_nearby(host) for host in one.hosts)
        and 0 < one.port < 65_536
        and len(one.key) == KEY_BYTES
        and 0 <= one.day_bytes <= QUOTA_MAX_BYTES
        and 0 <= one.until_day < 2**31
    )


def is_sane_through(one: Through) -> bool:
    """Whether these are targets that a bridge can have."""
    return (
        len(one.number) == NUMBER_BYTES
        and len(one.targets) <= TARGETS_MAX
        and all(_is_host(host) and 0 < port < 65_536 for host, port in one.targets)
    )


def is_nearby(host: str) -> bool:
    """Whether a host is a literal address of a local network, or of this machine: a letter sends nobody elsewhere."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (address.is_private or address.is_link_local) and not address.is_unspecified


def _is_host(host: str) -> bool:
    return 0 < len(host) <= HOST_MAX_CHARS and host.isascii() and host.isprintable() and " " not in host
