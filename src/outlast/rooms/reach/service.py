"""What people do with reach, and what it does by itself.

Pages, commands and the local API call these functions and decide nothing themselves. The relaying itself runs in a
child process; what it says becomes state here, and what worked is remembered in the vault for each network, for two
weeks. Nothing is published and nothing shared until it is switched on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import msgspec

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import (
    Level,
    Node,
    Person,
    RowChange,
    Status,
    Transaction,
    Value,
    parse_space,
    read_channel_link,
)
from outlast.rooms.reach import agenda, handing, view
from outlast.rooms.reach.agenda import Duty, NameBridges, Offer, Publish, Settings, Situation, week_of
from outlast.rooms.reach.handing import answer, ask, invite, lose, remember, revoke
from outlast.rooms.reach.proto.bridge import Bridge, PluggedBridge, TorBridge
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, write_bridge
from outlast.rooms.reach.serving import Served
from outlast.rooms.reach.view import Borrowed, Held, Invited, Lent, Want
from outlast.terms import ROUTE, ROUTE_LIFE_DAYS, Outcome, Route

__all__ = ["answer", "ask", "invite", "lose", "revoke"]

ROOM_NAME: Final = "reach"
LOOK_S: Final = 60.0
PAUSE_S: Final = 0.3
"""However much comes in, what is due is looked at no more often than this."""
LINK_PREFIX: Final = "outlast://"
ASN_MAX: Final = 2**32 - 1
LISTENS_MAX: Final = 4


# ---- what the page shows ----


@dataclass(frozen=True, slots=True)
class Step:
    """One way out as the page lists it, with what it is doing now."""

    id: str  # of the bridge, or "direct"
    label: str
    transport: str  # web, ss, obfs4, tor, proxy, direct
    state: str  # "waiting", "trying", "passed", "working", "failed"
    began_ms: int | None  # of the attempt that runs, or ran last
    elapsed_ms: int | None  # how long it took, once it is over
    next_ms: int | None  # when it is tried again
    outcome: Outcome | None  # how the last attempt ended
    ttfb_ms: int | None
    kbps: int | None


@dataclass(frozen=True, slots=True)
class State:
    """How it stands: ``code`` is off, starting, trying, working, no-bridge, nothing-works or failed.

    ``listens`` are the gate's addresses as the child says them, once it listens; ``using`` is the way out that works
    now, since ``since_ms``. ``problem`` is one line, when the child could not start or ended.
    """

    code: str
    since_ms: int | None
    using: str
    listens: Sequence[str]
    pac_url: str
    steps: Sequence[Step]
    problem: str = ""


def state(node: Node, person: Person) -> State:
    """What works now and since when, each attempt with its elapsed time, next try and class: the main screen."""
    if not settings(person).on:
        return State("off", None, "", (), "", ())
    return State("starting", None, "", (), "", [_waiting(one) for one in bridges(person)])


def _waiting(one: Held) -> Step:
    bridge = read_bridge(one.link)
    return Step(one.id, label_of(bridge), transport_of(bridge), "waiting", None, None, None, None, None, None)


def transport_of(bridge: Bridge) -> str:
    """The kind of a way out, of ``outlast.terms.TRANSPORTS``."""
    match bridge:
        case PluggedBridge():
            return bridge.transport if bridge.transport == "obfs4" else "other"
        case TorBridge():
            return "tor"
        case _:
            return str(bridge.__struct_config__.tag)


def label_of(bridge: Bridge) -> str:
    """What people call a bridge; empty when it says nothing."""
    return str(getattr(bridge, "label", ""))


# ---- settings ----


def settings(person: Person) -> Settings:
    """What the person has chosen."""
    found = view.settings(person)
    channel = bytes.fromhex(found.get("channel", ""))
    return Settings(
        on=found.get("on") == "1",
        listen=tuple(found.get("listen", "127.0.0.1:1080").split()),
        country=found.get("country", ""),
        asn=int(found.get("asn", "0")),
        publish=found.get("publish") == "1",
        channel=channel or None,
        share=found.get("share") == "1",
        share_port=int(found.get("share_port", "0")),
        share_day_bytes=int(found.get("share_day_bytes", "0")),
        metered=found.get("metered") == "1",
        test_url=found.get("test_url", ""),
    )


async def switch(node: Node, person: Person, *, on: bool) -> None:
    """The one button: begin to look for a way out and keep one, or stop."""
    await _set(node, person, {"on": "1" if on else "0"})


async def set_place(node: Node, person: Person, country: str, asn: int) -> None:
    """Say in which country and network this node is; raises UsageError for what can be neither."""
    country = country.strip().upper()
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise UsageError("a country is named by two letters, as in BY")
    if not 0 <= asn <= ASN_MAX:
        raise UsageError("a network has a number from 1 to 4294967295; 0 when you do not know it")
    await _set(node, person, {"country": country, "asn": str(asn)})


async def publish(node: Node, person: Person, *, on: bool, channel: str = "") -> None:
    """Publish from now on which kinds of ways out work and fail here, in a channel (its link or ID); or no more.

    Everybody who follows the channel can read it, and it says that somebody in this country and network uses such ways
    out. Raises UsageError.
    """
    if not on:
        await _set(node, person, {"publish": "0", "channel": ""})
        return
    if not settings(person).country:
        raise UsageError("say first in which country this node is")
    text = channel.strip()
    before = settings(person).channel
    if not text and before is None:
        raise UsageError("choose a channel to publish in, by its link or ID: best the one where you watch")
    space = before if not text else read_space(text)
    assert space is not None
    await node.follow(space)
    await _set(node, person, {"publish": "1", "channel": space.hex()})


def read_space(text: str) -> bytes:
    """The space (32 B) of a channel's link or ID; raises UsageError."""
    return read_channel_link(text).space if text.lower().startswith(LINK_PREFIX) else parse_space(text)


# ---- bridges ----


def bridges(person: Person) -> list[Held]:
    """The bridges that the person can use, those that were added first first."""
    return view.bridges(person)


async def add_bridge(node: Node, person: Person, text: str) -> Held:
    """Keep a bridge by its link: ``outlast://bridge/``, ``ss://``, a line of Tor's, or a proxy.

    One that is here already is that one. Raises UsageError with one line that says what is wrong with the link.
    """
    bridge = read_bridge(text)
    id = bridge_id(bridge)
    known = next((one for one in bridges(person) if one.id == id), None)
    if known is not None:
        return known
    if len(bridges(person)) >= view.BRIDGES_MAX:
        raise UsageError(f"at most {view.BRIDGES_MAX} bridges are kept: remove some first")
    one = Held(id, write_bridge(bridge), None, None, False, node.now_ms(), 0, None, "", False)
    await remember(node, person, [view.bridge_row(one)])
    return one


async def remove_bridge(node: Node, person: Person, id: str) -> None:
    """Forget a bridge; raises NotFoundError."""
    await remember(node, person, [view.bridge_gone(find_bridge(person, id).id)])


def find_bridge(person: Person, id: str) -> Held:
    """The bridge of that id, or of the only one that begins so; raises NotFoundError, UsageError."""
    found = [one for one in bridges(person) if id and one.id.startswith(id.strip().lower())]
    if not found:
        raise NotFoundError(f"there is no bridge {id[:40]!r} here: `outlast reach bridge list` shows all")
    if len(found) > 1:
        raise UsageError(f"{len(found)} bridges begin with {id[:40]!r}: write more of it")
    return found[0]


async def forget_all(node: Node, person: Person) -> None:
    """Wipe all bridges, whom they came from and went to, and what worked where; the own bridges and settings stay."""
    await remember(node, person, view.every_row())


def wants(person: Person) -> list[Want]:
    """Contacts who ask for a bridge, for the person to decide (``answer`` or ``refuse``), the oldest first."""
    return [one for one in view.wants(person) if not one.mine and not one.about]


def asked(person: Person) -> list[Want]:
    """Whom the person asked for a bridge without an answer yet; ``whom`` is whom it is for, None = for oneself."""
    return [one for one in view.wants(person) if one.mine]


async def refuse(node: Node, person: Person, request: bytes) -> None:
    """Forget a request (16 B); who asked is not told."""
    await remember(node, person, [view.want_gone(request)])


def invited(person: Person) -> list[Invited]:
    """All who use the own bridges: each with trust, suspicion, the bridge they are on, and by whose letters."""
    return list(view.members(person).values())


# ---- serving, on the free side ----


def served(person: Person) -> list[tuple[Served, bool]]:
    """The bridges that this node serves, and whether each is open (not blocked)."""
    return [(one, handing.serving(person)[id]) for id, one in handing.servers(person).items()]


async def serve(node: Node, person: Person, new: Served) -> Served:
    """Serve a bridge from now on, also after a restart; whoever waits for one gets it. Raises UsageError."""
    if new.id in handing.servers(person):
        raise UsageError("a bridge is served at this address already: stop that one first")
    if new.transport == "ss" and not new.server_key:
        new = msgspec.structs.replace(new, server_key=os.urandom(32))
    await remember(node, person, [view.served_row(new.id, msgspec.json.encode(new), node.now_ms())])
    await handing.settle(node, person)
    return new


async def stop_serving(node: Node, person: Person, id: str) -> None:
    """Serve a bridge no more; who is on it moves to the others, without suspicion. Raises NotFoundError."""
    if id not in handing.servers(person):
        raise NotFoundError("this node serves no such bridge")
    members = [one.member for one in invited(person) if one.member.bridge == id]
    gone: list[RowChange] = [view.served_gone(id), *(view.member_row(one._replace(bridge="")) for one in members)]
    await remember(node, person, gone)
    await handing.settle(node, person)


# ---- the uplink ----


def shares(person: Person) -> list[Lent]:
    """Contacts whom the own uplink is offered to, with what they used today."""
    return view.lent(person)


async def share(
    node: Node, person: Person, *, on: bool, day_bytes: int | None = None, metered: bool | None = None
) -> None:
    """Offer the own uplink to the chosen contacts in the local network, or no more; ``day_bytes`` for all together.

    0 bytes are no bound. Own traffic goes first. Raises UsageError.
    """
    if day_bytes is not None and not 0 <= day_bytes <= 1 << 50:
        raise UsageError("a quota is a number of bytes a day; 0 is none")
    chosen = {"share": "1" if on else "0"}
    chosen |= {} if day_bytes is None else {"share_day_bytes": str(day_bytes)}
    chosen |= {} if metered is None else {"metered": "1" if metered else "0"}
    await _set(node, person, chosen)


def neighbours(person: Person) -> list[Borrowed]:
    """Offers of neighbours: one that is not ``accepted`` is not used, and its host learns nothing."""
    return view.borrowed(person)


async def accept(node: Node, person: Person, number: bytes, *, accepted: bool) -> None:
    """Use a neighbour's uplink from now on, or no more; its host is told the addresses of one's bridges, and sees when
    and how much one sends to which. Raises NotFoundError.
    """
    offer = next((one for one in neighbours(person) if one.offer.number == number), None)
    if offer is None:
        raise NotFoundError("this neighbour offers no uplink any more")
    await remember(node, person, [view.borrowed_row(offer._replace(accepted=accepted, told=b""))])


# ---- by itself ----


def status(node: Node) -> Status:
    """How it is with ways out on this node, as a code."""
    person = next(iter(node.people.values()), None)
    if person is None:
        return Status(Level.OFF, None, "locked")
    now = state(node, person)
    level = {"off": Level.OFF, "working": Level.OK, "starting": Level.OK}.get(now.code, Level.WARN)
    if now.code in ("nothing-works", "failed"):
        level = Level.CUT
    evidence: dict[str, Value] = {"using": now.using, "bridges": len(bridges(person))}
    return Status(level, now.since_ms, now.code, evidence)


async def run(node: Node) -> None:
    """While the node is open: whatever is due, for everybody who is here."""
    while True:
        revision = node.revision
        for key, person in list(node.people.items()):
            with contextlib.suppress(OutlastError):
                if node.people.get(key) is person:
                    await _turn(node, person)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await node.wait(revision)
        await asyncio.sleep(PAUSE_S)


async def _turn(node: Node, person: Person) -> None:
    gone = view.forgotten(person, node.today(), week_of(node.now_ms()))
    if gone:
        await remember(node, person, gone)
    for duty in agenda.due(situation(node, person)):
        # One that cannot be done now, for a contact is blocked or has no device, keeps no other from being done.
        with contextlib.suppress(UsageError, NotFoundError):
            await carry_out(node, person, duty)


def situation(node: Node, person: Person) -> Situation:
    """All that the agenda needs to know."""
    return Situation(
        now_ms=node.now_ms(),
        settings=settings(person),
        said=view.said(person),
        held=bridges(person),
        wants=view.wants(person),
        passed=view.passed(person),
        members=view.members(person),
        serving=handing.serving(person),
        lent=view.lent(person),
        where=b"",
        borrowed=view.borrowed(person),
        targets=(),
    )


async def carry_out(node: Node, person: Person, duty: Duty) -> None:
    """Do what is due."""
    match duty:
        case Publish(transport, outcome):
            await _publish(node, person, transport, outcome)
        case NameBridges() | Offer():
            pass
        case agenda.Ask() | agenda.Admit() | agenda.PassOn() | agenda.Tell() | agenda.Report() | agenda.Block():
            await handing.carry_out(node, person, duty)
        case _:
            assert_never(duty)


async def _publish(node: Node, person: Person, transport: str, outcome: Outcome) -> None:
    """Publish under this week's key, and remember in one transaction that this was said."""
    chosen, now_ms = settings(person), node.now_ms()
    if chosen.channel is None or not chosen.publishes:
        raise UsageError("nothing is published: switch it on first")
    at_s = now_ms // 1000
    body = Route(transport, outcome, at_s - at_s % 3600, chosen.country, chosen.asn)
    name = agenda.route_name(transport, outcome)
    seed = await _seed(node, person)
    await node.append_apart(
        person,
        chosen.channel,
        ROUTE.name,
        body,
        seed=seed,
        life_ms=ROUTE_LIFE_DAYS * 86_400_000,
        local=[view.said_row(name, now_ms)],
    )


async def _seed(node: Node, person: Person) -> bytes:
    """The seed of this week's key, made when it is first needed; it is not watch's, so that nobody links the two."""
    day, seed = week_of(node.now_ms()), os.urandom(32)

    def act(tx: Transaction) -> bytes:
        known = view.own_key(tx, day)
        if known is not None:
            return known
        tx.apply([view.own_key_row(day, seed)], ROOM_NAME)
        return seed

    return await node.write(lambda: person.vault.write(act))


async def _set(node: Node, person: Person, chosen: dict[str, str]) -> None:
    await remember(node, person, view.setting_rows(chosen))


def listen_addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Addresses to listen on, each ``HOST:PORT``; raises UsageError."""
    found = tuple(dict.fromkeys(one.strip() for one in texts if one.strip()))
    if not 0 < len(found) <= LISTENS_MAX:
        raise UsageError(f"name 1 to {LISTENS_MAX} addresses to listen on, each HOST:PORT")
    for one in found:
        host, colon, port = one.rpartition(":")
        if not host or not colon or not port.isdigit() or not 0 <= int(port) < 65_536:
            raise UsageError(f"{one[:60]!r} is no address to listen on: write HOST:PORT, as in 127.0.0.1:1080")
    return found
