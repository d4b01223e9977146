"""Beacons: how neighbours recognise each other in a local network, where nobody else can.

An announcement holds a nonce and a set of beacons, one for each neighbour of the node that makes it::

    key    = HKDF(X25519(own transport key, neighbour's), "outlast/lan/1")
    beacon = HMAC-SHA256(key, announcer's transport key || nonce || IPv4 address || port)[:8]

filled up with random ones to a multiple of 8. The neighbour computes the same; to everybody else all of them are
random, and other ones the next time. Address and port are in it so that an announcement cannot be played elsewhere to
see who comes.

Pure; docs/spec/link.md is the wire.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from outlast.kernel.identity import IdentityError, SealingKey, derive

NONCE_BYTES: Final = 16
BEACON_BYTES: Final = 8
BEACONS_STEP: Final = 8
BEACONS_MAX: Final = 120
"""In one announcement, which is to fit into one packet."""

_BEACONS_IN_FIELD: Final = 31  # 248 B: a field has 255, its name among them
_FIELDS: Final = tuple(b"b%d" % number for number in range(-(-BEACONS_MAX // _BEACONS_IN_FIELD)))


class Announcement(NamedTuple):
    """What a node says of itself to a local network."""

    nonce: bytes  # 16 B
    beacons: frozenset[bytes]  # 8 B each
    strangers: bool
    """Whether it takes calls of those that it does not know."""


def pair_keys(own: SealingKey, neighbours: Iterable[bytes]) -> dict[bytes, bytes]:
    """The key that this node shares with each neighbour (transport keys, 32 B); without those that can have none."""
    keys = {}
    for neighbour in neighbours:
        try:
            keys[neighbour] = derive(own.exchange(neighbour), b"outlast/lan/1")
        except IdentityError:
            continue
    return keys


def announce(
    own: bytes, keys: Iterable[bytes], where: tuple[IPv4Address, int], rand: Callable[[int], bytes], *, strangers: bool
) -> Announcement:
    """An announcement of the node with the transport key ``own`` (32 B), for those who hold one of ``keys``.

    ``where`` is what else is announced: address and port. Neighbours beyond 120 are left out.
    """
    nonce = rand(NONCE_BYTES)
    beacons = {_beacon(key, own, nonce, where) for key in list(keys)[:BEACONS_MAX]}
    while len(beacons) % BEACONS_STEP or not beacons:
        beacons.add(rand(BEACON_BYTES))
    return Announcement(nonce, frozenset(beacons), strangers)


def recognise(heard: Announcement, keys: Mapping[bytes, bytes], where: tuple[IPv4Address, int]) -> bytes | None:
    """The neighbour who announces itself at ``where``, by its transport key; None when it is nobody known.

    ``keys`` are those of ``pair_keys``.
    """
    for neighbour, key in keys.items():
        if _beacon(key, neighbour, heard.nonce, where) in heard.beacons:
            return neighbour
    return None


def to_fields(announcement: Announcement) -> dict[bytes, bytes]:
    """The fields of the TXT record (RFC 6763 §6). The beacons stand in order, which is a random one."""
    packed = b"".join(sorted(announcement.beacons))
    step = _BEACONS_IN_FIELD * BEACON_BYTES
    fields = {b"n": announcement.nonce}
    fields |= {name: packed[at * step : (at + 1) * step] for at, name in enumerate(_FIELDS) if packed[at * step :]}
    return fields | ({b"s": b"1"} if announcement.strangers else {})


def read_fields(fields: Mapping[bytes, bytes | None]) -> Announcement | None:
    """What the fields of a TXT record say; None when they are no announcement. Unknown fields are ignored."""
    nonce = fields.get(b"n") or b""
    packed = b"".join(fields.get(name) or b"" for name in _FIELDS)
    if len(nonce) != NONCE_BYTES or not packed or len(packed) % (BEACON_BYTES * BEACONS_STEP):
        return None
    if len(packed) > BEACON_BYTES * BEACONS_MAX:
        return None
    beacons = frozenset(packed[at : at + BEACON_BYTES] for at in range(0, len(packed), BEACON_BYTES))
    return Announcement(nonce, beacons, fields.get(b"s") == b"1")


def _beacon(key: bytes, announcer: bytes, nonce: bytes, where: tuple[IPv4Address, int]) -> bytes:
    address, port = where
    message = announcer + nonce + address.packed + port.to_bytes(2, "big")
    return hmac.digest(key, message, "sha256")[:BEACON_BYTES]
