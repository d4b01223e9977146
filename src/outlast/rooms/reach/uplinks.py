"""The uplink between neighbours: whom one lends it, and whose one borrows. All of it by letters."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from outlast.address import Target
from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Node, Person
from outlast.rooms.reach import view
from outlast.rooms.reach.agenda import NameBridges, Offer, Settings, hash_of, week_of
from outlast.rooms.reach.entries import (
    HOSTS_MAX,
    KEY_BYTES,
    NUMBER_BYTES,
    QUOTA_MAX_BYTES,
    REVOKED,
    TARGETS_MAX,
    THROUGH,
    UPLINK,
    Revoked,
    Through,
    Uplink,
)
from outlast.rooms.reach.handing import remember
from outlast.rooms.reach.io.hops import Hop, is_far
from outlast.rooms.reach.io.lending import Lent, Share, Shares
from outlast.rooms.reach.proto.links import read_bridge

MEMBERS_MAX: Final = 32
OFFER_DAYS: Final = 28
PORTS: Final = range(20_000, 60_000)


async def lend(node: Node, person: Person, peer: bytes, *, day_bytes: int = 0) -> None:
    """Let a contact (identity, 32 B) use the own uplink while it is shared: so many bytes a day, 0 = no own bound.

    Raises UsageError, NotFoundError.
    """
    person.contact(peer)
    if not 0 <= day_bytes <= QUOTA_MAX_BYTES:
        raise UsageError("a quota is a number of bytes a day; 0 is none")
    lent = view.lent(person)
    known = next((one for one in lent if one.peer == peer), None)
    if known is None and len(lent) >= MEMBERS_MAX:
        raise UsageError("the uplink is lent to %(most)s at most", most=MEMBERS_MAX)
    fresh = known or view.Lent(
        secrets.token_bytes(NUMBER_BYTES), peer, secrets.token_bytes(KEY_BYTES), 0, node.today(), 0, (), b""
    )
    await remember(node, person, [view.lent_row(fresh._replace(day_bytes=day_bytes))])


async def stop_lending(node: Node, person: Person, peer: bytes) -> None:
    """Let a contact use the own uplink no more, and tell them. Raises NotFoundError."""
    known = next((one for one in view.lent(person) if one.peer == peer), None)
    if known is None:
        raise NotFoundError("this contact does not use your uplink")
    gone = [view.lent_gone(known.number)]
    try:
        await person.send(peer, REVOKED.name, Revoked(known.number), local=lambda _: gone)
    except (UsageError, NotFoundError):
        await remember(node, person, gone)


def shares_of(person: Person, chosen: Settings, hosts: tuple[str, ...], spent: Mapping[bytes, int]) -> Shares | None:
    """What the relaying process lends, at these addresses; None for nothing."""
    lent = view.lent(person)
    if not chosen.share or not lent or not hosts:
        return None
    members = tuple(
        Share(
            one.number,
            one.key,
            port_of(one.number),
            tuple(Target(host, port) for host, port in one.targets),
            one.day_bytes,
            spent.get(one.number, 0),
        )
        for one in lent
    )
    return Shares(hosts, members, chosen.share_day_bytes)


def port_of(number: bytes) -> int:
    """The port at which a share is looked for first: the same after each start, so that few letters tell of it."""
    return PORTS[int.from_bytes(number[:4], "big") % len(PORTS)]


def offers_of(
    person: Person, chosen: Settings, hosts: tuple[str, ...], now: Mapping[bytes, Lent], now_ms: int
) -> dict[bytes, Uplink]:
    """What those who may use the own uplink are to know of it, once their listeners are there."""
    if not chosen.share or not hosts:
        return {}
    until_day = week_of(now_ms) + OFFER_DAYS
    return {
        one.number: Uplink(
            one.number,
            hosts[:HOSTS_MAX],
            now[one.number].port,
            one.key,
            one.day_bytes or chosen.share_day_bytes,
            chosen.metered,
            until_day,
        )
        for one in view.lent(person)
        if one.number in now
    }


def hops_of(person: Person) -> tuple[Hop, ...]:
    """The neighbours' uplinks that may be used."""
    return tuple(
        Hop(one.offer.number.hex()[:8], one.offer.hosts, one.offer.port, one.offer.key, one.offer.is_metered)
        for one in view.borrowed(person)
        if one.accepted
    )


def targets_of(person: Person) -> tuple[tuple[str, int], ...]:
    """The addresses of the own bridges, as a neighbour is told them who lets one through."""
    found = dict.fromkeys(
        one.at for one in map(read_bridge, (held.link for held in view.bridges(person))) if is_far(one)
    )
    return tuple((at.host, at.port) for at in found)[:TARGETS_MAX]


async def carry_out(person: Person, duty: Offer | NameBridges) -> None:
    """Tell who is to know. Raises what sending a letter raises."""
    match duty:
        case Offer(lent, uplink):
            told = view.offered_row(lent.number, hash_of(uplink))
            await person.send(lent.peer, UPLINK.name, uplink, local=lambda _: [told])
        case NameBridges(borrowed, targets):
            row = view.named_row(borrowed.offer.number, hash_of(targets))
            await person.send(
                borrowed.peer, THROUGH.name, Through(borrowed.offer.number, targets), local=lambda _: [row]
            )
