"""What reach does by itself next: decisions without a clock, a disk or a network, for the service to carry out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import msgspec

from outlast.kernel import DAY_MS
from outlast.rooms.reach.entries import Uplink
from outlast.rooms.reach.proto.invitations import Member, blocked, settle
from outlast.rooms.reach.view import Borrowed, Held, Invited, Lent, Passed, Want
from outlast.terms import OUTCOMES, Outcome

HOUR_MS: Final = 3_600_000
WEEK_DAYS: Final = 7
FAILING_MS: Final = 6 * HOUR_MS
"""A bridge that fails for so long, while others work, is told of to who handed it."""
SAY_MS: Final = DAY_MS
"""How a transport ended is published at most so often."""
RENEW_DAYS: Final = 30
"""A member's bridge is sent anew when so many days are left of its time."""
BLOCKS_AFTER: Final = 2
"""So many members, or all if they are fewer, say that a bridge fails before it counts as blocked."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person has chosen. As long as they choose nothing, nothing runs, is published or is shared."""

    on: bool = False
    listen: tuple[str, ...] = ("127.0.0.1:1080",)  # where programs connect to
    user: str = ""  # of the gate; empty = anybody who reaches it
    password: str = ""
    direct: tuple[str, ...] = ()  # domains and networks that go past the bridges
    country: str = ""  # ISO 3166-1 alpha-2
    asn: int = 0
    publish: bool = False
    channel: bytes | None = None  # 32 B: where it is published
    share: bool = False
    share_hosts: tuple[str, ...] = ()  # addresses of this machine where the uplink is offered; empty = all local ones
    share_day_bytes: int = 0  # for all members together, 0 = without a bound
    metered: bool = False  # whether somebody pays for the own line by the byte
    test_url: str = ""  # what is fetched through bridges that know no echo
    network_key: str = ""  # 32 B as hex: under which networks are remembered

    @property
    def publishes(self) -> bool:
        """Whether anything at all is published."""
        return self.publish and self.channel is not None and bool(self.country)


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request to who can fulfil it."""

    want: Want


@dataclass(frozen=True, slots=True)
class Admit:
    """A member wants an invitation for somebody: give it, or forget it."""

    want: Want


@dataclass(frozen=True, slots=True)
class PassOn:
    """Send what came under a number on: down, or up when it says that the bridge failed."""

    passed: Passed


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a member the bridge on which they are now."""

    invited: Invited


@dataclass(frozen=True, slots=True)
class Report:
    """Tell who handed a bridge that it fails here."""

    held: Held


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish how a kind of way out ended, and when."""

    transport: str
    outcome: Outcome
    at_ms: int


@dataclass(frozen=True, slots=True)
class NameBridges:
    """Tell a neighbour, whose uplink is used, the addresses of the own bridges."""

    borrowed: Borrowed
    targets: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """Tell a contact where the own uplink is now."""

    lent: Lent
    uplink: Uplink


@dataclass(frozen=True, slots=True)
class Block:
    """This own bridge is blocked, as its members say."""

    bridge: str


Duty = Ask | Admit | PassOn | Tell | Report | Publish | NameBridges | Offer | Block


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is to be known to decide what is due."""

    now_ms: int
    settings: Settings
    said: Mapping[str, int]
    held: Sequence[Held]
    wants: Sequence[Want]
    passed: Sequence[Passed]
    members: Mapping[bytes, Invited]
    serving: Mapping[str, bool]  # the own bridges, and whether each is not blocked
    lent: Sequence[Lent]
    offers: Mapping[bytes, Uplink]  # what is to be offered now, by the share's number
    borrowed: Sequence[Borrowed]
    targets: tuple[tuple[str, int], ...]  # where the own bridges are
    ended: Sequence[tuple[str, Outcome, int]] = ()  # how ways out of each transport ended, and when last (ms)


def week_of(now_ms: int) -> int:
    """The day (since 1970) on which the week began; the same for everybody, so that all change keys together."""
    day = now_ms // DAY_MS
    return day - day % WEEK_DAYS


def route_name(transport: str, outcome: str) -> str:
    """Under this it stands when something was last published."""
    return f"route {transport} {outcome}"


def hash_of(thing: object) -> bytes:
    """16 bytes by which it is seen that something changed since it was told."""
    return sha256(msgspec.msgpack.encode(thing)).digest()[:16]


def due(now: Situation) -> list[Duty]:
    """What is to be done now, in this order."""
    duties: list[Duty] = []
    for bridge, serves in now.serving.items():
        # One by one: with the last bridge nobody could be moved, so that is for the person to say.
        if serves and sum(now.serving.values()) > 1 and _is_blocked(now, bridge):
            return [Block(bridge)]
    for want in now.wants:
        if want.due:
            duties.append(Ask(want) if want.mine else Admit(want))
    duties += [PassOn(one) for one in now.passed if one.due]
    renewed_day = now.now_ms // DAY_MS + RENEW_DAYS
    duties += [
        Tell(one)
        for one in now.members.values()
        if one.member.bridge and (one.member.bridge != one.told or one.until_day < renewed_day)
    ]
    duties += [Report(one) for one in now.held if _is_to_report(now, one)]
    if now.settings.publishes:
        for transport, outcome, at_ms in now.ended:
            last = now.said.get(route_name(transport, outcome))
            if 0 <= now.now_ms - at_ms < SAY_MS and (last is None or not 0 <= now.now_ms - last < SAY_MS):
                duties.append(Publish(transport, outcome, at_ms))
    for lent in now.lent:
        offer = now.offers.get(lent.number)
        if offer is not None and lent.told != hash_of(offer):
            duties.append(Offer(lent, offer))
    for borrowed in now.borrowed:
        if borrowed.accepted and borrowed.told != hash_of(now.targets):
            duties.append(NameBridges(borrowed, now.targets))
    return duties


def moved(members: Mapping[bytes, Invited], serving: Mapping[str, bool], lost: str, day: int) -> list[Member]:
    """The members who change when an own bridge is lost; with none named, those who wait and get one."""
    tree = {number: one.member for number, one in members.items()}
    open_ones = [bridge for bridge, serves in serving.items() if serves]
    return blocked(tree, open_ones, lost, day) if lost else settle(tree, open_ones, day)


def outcome_of(failure: str | None) -> Outcome:
    """How an attempt ended, from the name of its class: without the number of bytes after which it froze."""
    name = "ok" if failure is None else failure.partition("@")[0]
    return next((one for one in OUTCOMES if one == name), "unknown")


def noted(held: Held, outcome: Outcome, now_ms: int, *, others_work: bool) -> Held:
    """A bridge with how it went this time: it fails since when it first failed while another one worked."""
    if outcome == "ok":
        return replace(held, failing_ms=None, outcome="ok", told=False)
    failing_ms = held.failing_ms if held.failing_ms is not None else now_ms if others_work else None
    return replace(held, failing_ms=failing_ms, outcome=outcome)


def _is_to_report(now: Situation, held: Held) -> bool:
    return (
        held.number is not None
        and not held.told
        and held.failing_ms is not None
        and now.now_ms - held.failing_ms >= FAILING_MS
        and held.outcome not in ("", "ok")
    )


def _is_blocked(now: Situation, bridge: str) -> bool:
    on = [one for one in now.members.values() if one.member.bridge == bridge and one.told == bridge]
    return bool(on) and sum(bool(one.failed) for one in on) >= min(BLOCKS_AFTER, len(on))
