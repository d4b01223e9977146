"""What people do with reach, and what it does by itself.

Pages, commands and the local API call these functions and decide nothing themselves. The relaying itself runs in a
child process; what it says becomes state here, and what worked is remembered in the vault for each network, for two
weeks. Nothing is published and nothing shared until it is switched on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final, assert_never
from weakref import WeakKeyDictionary

import msgspec

from outlast import address
from outlast.address import Target
from outlast.errors import NotFoundError, OutlastError, Sentence, UsageError
from outlast.kernel import (
    DAY_MS,
    Cost,
    Level,
    Link,
    LinkError,
    Node,
    Person,
    RowChange,
    Status,
    Transaction,
    Value,
    Way,
    parse_channel,
)
from outlast.rooms.reach import agenda, handing, uplinks, view
from outlast.rooms.reach.agenda import (
    Duty,
    NameBridges,
    Offer,
    Publish,
    Settings,
    Situation,
    noted,
    outcome_of,
    week_of,
)
from outlast.rooms.reach.entries import HOSTS_MAX, is_nearby
from outlast.rooms.reach.handing import answer, ask, invite, lose, remember, revoke
from outlast.rooms.reach.io.attempt import read_url
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.choosing import Attempted, Remembered
from outlast.rooms.reach.io.control import Child
from outlast.rooms.reach.io.exit import SYNC
from outlast.rooms.reach.io.hops import Hop, bridge_of, way_id
from outlast.rooms.reach.io.keys import folder_of
from outlast.rooms.reach.io.lending import Lent as LentNow
from outlast.rooms.reach.io.link import Landing, through
from outlast.rooms.reach.io.network import Networks, local_hosts
from outlast.rooms.reach.io.relay import Config, Event, Profile, Starting
from outlast.rooms.reach.proto import pac
from outlast.rooms.reach.proto.bridge import Bridge, PluggedBridge, TorBridge, WebBridge
from outlast.rooms.reach.proto.chooser import Memory
from outlast.rooms.reach.proto.failures import Kind
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, read_bridges, write_bridge
from outlast.rooms.reach.proto.request import Credentials, read_credentials
from outlast.rooms.reach.proto.rules import read_rules
from outlast.rooms.reach.serving import Served, server_of
from outlast.rooms.reach.supervisor import Now, Supervisor
from outlast.rooms.reach.uplinks import lend, stop_lending
from outlast.rooms.reach.view import Borrowed, Held, Invited, Lent, Want
from outlast.terms import ROUTE, ROUTE_LIFE_DAYS, Outcome, Route, read_place
from outlast.ui.nearby import reached_at

__all__ = ["answer", "ask", "invite", "lend", "lose", "revoke", "stop_lending"]

ROOM_NAME: Final = "reach"
LOOK_S: Final = 60.0
PAUSE_S: Final = 0.3
"""However much comes in, what is due is looked at no more often than this."""
LISTENS_MAX: Final = 4
BY_NEIGHBOUR: Final = Sentence(
    "the neighbour's line gave no answer: today's share may be used up, or the bridge is off"
)
"""What is said where a neighbour's uplink ends connections; its protocol does not tell why."""
OWN_GATES: Final = 1
"""The first gate of a configuration is the node's own, for its sync."""
OWN_USER: Final = "node"


# ---- what the page shows ----


@dataclass(frozen=True, slots=True)
class Step:
    """One way out as the page lists it, with what it is doing now."""

    id: str  # of the bridge; with "+" and a hop behind it when it goes through a neighbour's uplink
    through: bytes | None  # 32 B: the contact whose uplink that is
    label: str
    transport: str  # web, ss, obfs4, tor, proxy, direct
    state: str  # "waiting", "trying", "passed", "working", "failed"
    since_ms: int | None  # since when it is so; of "trying": when the attempt began
    next_ms: int | None  # when it is tried next
    outcome: str | None  # how the last attempt ended: "ok", or the name of a class such as "freeze@16384"
    evidence: Sentence | None  # what was seen
    ttfb_ms: int | None
    kbps: int | None
    proof: bool  # whether 64 KB went both ways; else only an answer's first byte came


@dataclass(frozen=True, slots=True)
class State:
    """How it stands: ``code`` is off, starting, trying, working, no-bridge, nothing-works, gate-closed or failed.

    ``listens`` are the gate's addresses as the child says them, once it listens; ``using`` is the way out that works
    now, since ``since_ms``. ``problem`` is one line, when the child could not start or ended, when the gate cannot
    be opened at one of its addresses (``closed``), or a bridge not served: then that is tried again.
    """

    code: str
    since_ms: int | None
    using: str
    listens: Sequence[str]
    pac_url: str
    steps: Sequence[Step]
    problem: Sentence | None = None
    closed: Sequence[str] = ()


def state(node: Node, person: Person) -> State:
    """What works now and since when, each attempt with its elapsed time, next try and class: the main screen."""
    if not settings(person).on:
        return State("off", None, "", (), "", ())
    if not node.dials:
        return State("failed", None, "", (), "", (), Sentence("the node does not run: start it with `outlast up`"))
    now = relaying(node, person)
    lenders = {hop.name: one.peer for hop, one in _lenders(person)}
    ways = [(one, "") for one in bridges(person)] + [(one, hop) for hop in lenders for one in bridges(person)]
    steps = [_step(one, hop, lenders.get(hop), now) for one, hop in ways]
    gates = now.listens[OWN_GATES:]
    if now.closed and not gates:
        code, since_ms = "gate-closed", None
    elif now.using is not None:
        code, since_ms = "working", now.using_since_ms
    elif now.problem:
        code, since_ms = "failed", None
    elif not now.since_ms:
        code, since_ms = "starting", None
    elif not steps:
        code, since_ms = "no-bridge", now.since_ms
    else:
        code, since_ms = "trying" if any(one.state != "failed" for one in steps) else "nothing-works", now.since_ms
    places = [one for gate in gates for one in reached_at(address.read(gate.at))]
    listens, pac_url = [address.show(one) for one in places], pac.url(places[0]) if places else ""
    return State(code, since_ms, now.using or "", listens, pac_url, steps, now.lacking, tuple(now.closed))


def _of_starting(one: Starting) -> Sentence:
    return Sentence("%(percent)d%%: %(step)s", {"percent": one.percent, "step": Sentence(one.step)})


STEPS: Final = {"untried": "waiting", "trying": "trying", "works": "passed", "failed": "failed", "in-use": "working"}


def _lenders(person: Person) -> list[tuple[Hop, Borrowed]]:
    return list(zip(uplinks.hops_of(person), [one for one in neighbours(person) if one.accepted], strict=True))


def _step(one: Held, hop: str, through: bytes | None, now: Now) -> Step:
    bridge, id = read_bridge(one.link), way_id(one.id, hop) if hop else one.id
    stand = next((stand for stand in now.standings if stand.bridge == id), None)
    last, starting = now.attempts.get(id), now.starting.get(id)
    evidence = None if last is None else last.event.evidence
    if through is not None and last is not None and last.event.failure == Kind.UNKNOWN:
        evidence = BY_NEIGHBOUR
    return Step(
        id=id,
        through=through,
        label=label_of(bridge),
        transport=transport_of(bridge),
        state="waiting" if stand is None else STEPS[stand.state],
        since_ms=None if stand is None else stand.since_ms,
        next_ms=None if stand is None else stand.next_ms,
        outcome=None if last is None else last.event.failure or "ok",
        evidence=evidence if starting is None else _of_starting(starting),
        ttfb_ms=None if last is None else last.event.ttfb_ms,
        kbps=None if last is None else last.event.kbps,
        proof=last is not None and last.event.proof,
    )


def relaying(node: Node, person: Person) -> Now:
    """How the relaying process of this person stands."""
    found = _running_of(node, person)
    return found.supervisor.now if found else Now()


def _running_of(node: Node, person: Person) -> _Running | None:
    house = _houses.get(node)
    return None if house is None else house.running.get(person.key)


@dataclass(slots=True)
class _Running:
    person: Person
    supervisor: Supervisor
    task: asyncio.Task[None]
    password: str  # of the node's own gate
    worked: Memory
    """What worked when the child began; it keeps that by itself then."""
    spent: dict[bytes, int]
    """What members had used of the day when the child began."""
    ended: dict[tuple[str, Outcome], int] = field(default_factory=dict)
    """How ways out of each transport ended, and when last."""
    tests: int = 0
    """How often the person wanted to know how all bridges are now."""


@dataclass(slots=True, weakref_slot=True)
class _House:
    """What belongs to one open node."""

    landing: Landing
    running: dict[str, _Running] = field(default_factory=dict)
    networks: Networks = field(default_factory=Networks)


_houses: WeakKeyDictionary[Node, _House] = WeakKeyDictionary()
"""By node; there is one in a process but for tests."""


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
        user=found.get("user", ""),
        password=found.get("password", ""),
        direct=tuple(found.get("direct", "").split()),
        country=found.get("country", ""),
        asn=int(found.get("asn", "0")),
        publish=found.get("publish") == "1",
        channel=channel or None,
        share=found.get("share") == "1",
        share_hosts=tuple(found.get("share_hosts", "").split()),
        share_day_bytes=int(found.get("share_day_bytes", "0")),
        metered=found.get("metered") == "1",
        test_url=found.get("test_url", ""),
        network_key=found.get("network_key", ""),
    )


async def switch(node: Node, person: Person, *, on: bool) -> None:
    """The one button: begin to look for a way out and keep one, or stop."""
    chosen = {"on": "1" if on else "0"}
    if not settings(person).network_key:
        chosen["network_key"] = secrets.token_hex(32)
    await _set(node, person, chosen)


async def set_gate(
    node: Node, person: Person, listen: Iterable[str], user: str, password: str, direct: Iterable[str]
) -> None:
    """Say where programs connect to (each ``HOST:PORT``), who may, and what goes past the bridge, where it is seen.

    Beyond this computer the gate is open only to who has the password. ``direct`` are domains and networks. Raises
    UsageError.
    """
    places = tuple(dict.fromkeys(address.read(one) for one in listen))
    if not 0 < len(places) <= LISTENS_MAX:
        raise UsageError("name 1 to %(most)s addresses to listen on, each HOST:PORT", most=LISTENS_MAX)
    if read_credentials(user, password) is None and any(not is_loopback(one.host) for one in places):
        raise UsageError("a gate that others in the network can reach needs a user and a password")
    named = [one.strip() for one in direct if one.strip()]
    read_rules(named)
    chosen = {"listen": " ".join(map(address.show, places)), "user": user, "password": password}
    await _set(node, person, chosen | {"direct": " ".join(named)})


async def set_place(node: Node, person: Person, country: str, asn: int | str) -> None:
    """Say in which country and network this node is; raises UsageError for what can be neither."""
    country, asn = read_place(country, asn)
    await _set(node, person, {"country": country, "asn": str(asn)})


async def set_test_url(node: Node, person: Person, url: str) -> None:
    """Fetch 64 KB of this URL through bridges that know no echo, to test them; none: their first byte has to do.

    Raises UsageError for what is no URL.
    """
    await _set(node, person, {"test_url": read_url(url) if url.strip() else ""})


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
    space = before if not text else parse_channel(text).space
    assert space is not None
    await node.follow(space)
    await _set(node, person, {"publish": "1", "channel": space.hex()})


# ---- bridges ----


def bridges(person: Person) -> list[Held]:
    """The bridges that the person can use, those that were added first first."""
    return view.bridges(person)


async def add_bridges(node: Node, person: Person, text: str) -> tuple[list[Held], list[UsageError]]:
    """Keep the bridges of a text: links ``outlast://bridge/`` and ``ss://``, lines of Tor's, proxies, prose or none.

    One that is here already is that one, and stays even if it goes with who handed it. Beside them comes what is wrong
    with the other links of the text, each in one line. Raises UsageError when the text has no bridge, and when they are
    too many together; then none is kept.
    """
    found, wrong = read_bridges(text)
    known = {one.id: one for one in bridges(person)}
    named = {bridge_id(bridge): bridge for bridge in found}
    new = {
        id: Held(id, write_bridge(bridge), None, None, False, node.now_ms(), 0, None, "", False)
        for id, bridge in named.items()
        if id not in known
    }
    if len(known) + len(new) > view.BRIDGES_MAX:
        raise UsageError("at most %(most)s bridges are kept: remove some first", most=view.BRIDGES_MAX)
    handed = [view.added_row(id) for id in named if id in known and known[id].until_day]
    await remember(node, person, [*handed, *(view.bridge_row(one) for one in new.values())])
    held = {one.id: one for one in bridges(person)}
    return [held[id] for id in named if id in held], wrong


async def remove_bridge(node: Node, person: Person, id: str) -> None:
    """Forget a bridge; raises NotFoundError."""
    await remember(node, person, [view.bridge_gone(find_bridge(person, id).id)])


def try_all(node: Node, person: Person) -> None:
    """Try all bridges now, one after another; how each does is told by ``state``. Raises UsageError while it is off."""
    one = _running_of(node, person)
    if one is None or not settings(person).on:
        raise UsageError("bridges are tried while a way out is looked for: switch that on first")
    one.tests += 1
    node.touch()


def find_bridge(person: Person, id: str) -> Held:
    """The bridge of that id, or of the only one that begins so; raises NotFoundError, UsageError."""
    found = [one for one in bridges(person) if id and one.id.startswith(id.strip().lower())]
    if not found:
        raise NotFoundError("there is no bridge %(id)r here: `outlast reach bridge list` shows all", id=id[:40])
    if len(found) > 1:
        raise UsageError("%(n)s bridges begin with %(id)r: write more of it", n=len(found), id=id[:40])
    return found[0]


async def forget_all(node: Node, person: Person) -> None:
    """Wipe all bridges, whom they came from and went to, and what worked where; the own bridges and settings stay.

    Those whom the uplink is lent keep it. Which bridges are theirs is forgotten until they name them anew.
    """
    unnamed = [view.unnamed_row(one.number) for one in view.lent(person)]
    await remember(node, person, [*view.every_row(), *unnamed])


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
    """Serve a bridge from now on, also after a restart; whoever waits for one gets it.

    Raises UsageError, or StorageError for a certificate that cannot be used.
    """
    if new.id in handing.servers(person):
        raise UsageError("a bridge is served at this address already: stop that one first")
    if new.transport == "ss" and not new.server_key:
        new = msgspec.structs.replace(new, server_key=os.urandom(32))
    if bool(new.cert) != bool(new.key) or (new.cert and new.acme):
        raise UsageError("a certificate and its key go together, and instead of an authority that gives one")
    if new.transport == "web" and not new.acme and not new.pin:
        name = new.name or new.at.host
        if new.cert:
            own = await asyncio.to_thread(Certificate, Path(new.cert), Path(new.key))
        else:
            own = await asyncio.to_thread(self_signed, folder_of(node.home.path) / new.id, name)
        if not await asyncio.to_thread(own.vouched_for, name):
            new = msgspec.structs.replace(new, pin=own.pin)
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
    node: Node,
    person: Person,
    *,
    on: bool,
    day_bytes: int | None = None,
    metered: bool | None = None,
    hosts: Iterable[str] | None = None,
) -> None:
    """Offer the own uplink to the chosen contacts (``lend``) in the local network, or no more.

    ``day_bytes`` is for all together, 0 = no bound. ``hosts`` are addresses of this machine there, none = all of them.
    Own traffic goes first. What is None stays as it was. Raises UsageError.
    """
    if day_bytes is not None and not 0 <= day_bytes <= 1 << 50:
        raise UsageError("a quota is a number of bytes a day; 0 is none")
    chosen = {"share": "1" if on else "0"}
    chosen |= {} if day_bytes is None else {"share_day_bytes": str(day_bytes)}
    chosen |= {} if metered is None else {"metered": "1" if metered else "0"}
    if hosts is not None:
        named = tuple(hosts)
        if len(named) > HOSTS_MAX or not all(is_nearby(one) for one in named):
            raise UsageError("name at most %(most)s addresses of this machine in the local network", most=HOSTS_MAX)
        chosen["share_hosts"] = " ".join(named)
    await _set(node, person, chosen)


def neighbours(person: Person) -> list[Borrowed]:
    """Offers of neighbours: one that is not ``accepted`` is not used, and its host learns nothing."""
    return view.borrowed(person)


async def accept(node: Node, person: Person, number: bytes, *, accepted: bool) -> None:
    """Use a neighbour's uplink from now on, or no more; its host is told the addresses of one's bridges, and sees when
    and how much one sends to which. Raises NotFoundError.
    """
    if all(one.offer.number != number for one in neighbours(person)):
        raise NotFoundError("this neighbour offers no uplink any more")
    await remember(node, person, [view.accepted_row(number, accepted=accepted)])


# ---- by itself ----


def status(node: Node, person: Person) -> Status:
    """How it is with ways out on this node, as a code."""
    now = state(node, person)
    level = {"off": Level.OFF, "working": Level.OK, "starting": Level.OK}.get(now.code, Level.WARN)
    if now.code in ("nothing-works", "gate-closed", "failed"):
        level = Level.CUT
    evidence: dict[str, Value] = {"using": now.using, "bridges": len(bridges(person))}
    return Status(level, now.since_ms, now.code, evidence)


async def run(node: Node) -> None:
    """While the node is open: whatever is due, for everybody who is here, and a relaying process for who wants one."""
    house = _houses[node] = _House(await Landing.open())
    ways: object = None
    try:
        while True:
            revision = node.revision
            for key in [key for key, one in house.running.items() if node.people.get(key) is not one.person]:
                await _end(house.running.pop(key))
            for key, person in list(node.people.items()):
                with contextlib.suppress(OutlastError):
                    if node.people.get(key) is person:
                        if node.dials:
                            _relay(node, person)
                        await _turn(node, person)
            for one in house.running.values():
                if one.task.done():
                    one.task.result()
            if (there := _ways_now(node)) != ways:
                ways = there
                node.ways_changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await node.wait(revision)
            await asyncio.sleep(PAUSE_S)
    finally:
        del _houses[node]
        house.landing.close()
        await asyncio.gather(*(_end(one) for one in house.running.values()), return_exceptions=True)


async def _end(one: _Running) -> None:
    one.task.cancel()
    await asyncio.gather(one.task, return_exceptions=True)


def _relay(node: Node, person: Person) -> None:
    """Have the relaying process do what is chosen now."""
    running = _houses[node].running
    if person.key not in running:
        supervisor = Supervisor(Child.start, partial(_heard, node, person), node.now_ms)
        task = node.loop.create_task(supervisor.run())
        running[person.key] = _Running(
            person, supervisor, task, secrets.token_hex(16), view.worked(person), _spent(person, node.today())
        )
    running[person.key].supervisor.want(config_of(node, person))


def config_of(node: Node, person: Person) -> Config:
    """What the relaying process is to do: gates and bridges while it is switched on, and the own bridges always."""
    chosen, house = settings(person), _houses[node]
    profiles: list[Profile] = []
    if chosen.on:
        # The node's own gate, for its sync; whoever else is on this computer has not the password.
        profiles.append(Profile(Target("127.0.0.1", 0), OWN_USER, house.running[person.key].password))
        rules = read_rules(list(chosen.direct))
        profiles += [Profile(address.read(one), chosen.user, chosen.password, rules) for one in chosen.listen]
    members = view.members(person).values()
    servers = [
        server_of(one, [member.secret for member in members if _is_let_in(member, id)], node.home.path)
        for id, one in handing.servers(person).items()
    ]
    bridges_now = tuple(read_bridge(one.link) for one in bridges(person)) if chosen.on else ()
    takes_sync = any(one.takes_sync for one in handing.servers(person).values())
    return Config(
        profiles=tuple(profiles),
        bridges=bridges_now,
        servers=tuple(servers),
        sync_at=house.landing.at if takes_sync else None,
        test_url=chosen.test_url,
        network=house.networks.now(bytes.fromhex(chosen.network_key)) if chosen.on else "",
        worked=dict(house.running[person.key].worked),
        shares=uplinks.shares_of(person, chosen, _hosts(chosen), house.running[person.key].spent),
        hops=uplinks.hops_of(person) if chosen.on else (),
        tests=house.running[person.key].tests,
    )


def _is_let_in(invited: Invited, bridge: str) -> bool:
    """Whether a member's secret opens a bridge: the one they are on, or while there is none for them the one before."""
    return bridge == (invited.member.bridge or invited.told) and not invited.member.ended


def _hosts(chosen: Settings) -> tuple[str, ...]:
    """Where the own uplink is offered."""
    return (chosen.share_hosts or local_hosts()) if chosen.share else ()


# ---- sync through reach ----


def links(node: Node) -> list[Way]:
    """The ways of the kernel's sync: to nodes behind bridges, to neighbours elsewhere, and from those who come in."""
    house = _houses.get(node)
    if house is None:
        return []
    ways: list[Way] = []
    for person in list(node.people.values()):
        if any(one.takes_sync for one in handing.servers(person).values()):
            ways.append(Way("reach in", house.landing.take))
        if not settings(person).on:
            continue
        for held in bridges(person):
            behind = node_of(read_bridge(held.link))
            if behind and behind != node.transport_id:
                ways.append(Way(f"reach {held.id}", partial(_open, node, person, SYNC, held.id), behind))
        for peer in node.peers():
            # Behind a bridge there are no neighbours of this network.
            if peer.added and peer.host and not is_nearby(peer.host):
                target = Target(peer.host, peer.port)
                ways.append(Way(f"reach {peer.host}:{peer.port}", partial(_open, node, person, target, ""), peer.node))
    return list({(one.name, one.remote): one for one in ways}.values())


def node_of(bridge: Bridge) -> bytes:
    """The transport key (32 B) of the node behind a bridge that takes its sync; empty for none."""
    return bridge.node if isinstance(bridge, WebBridge | PluggedBridge) else b""


def _ways_now(node: Node) -> object:
    """What decides where ways lead; when it changes they are asked for again."""
    using = [(one.person.key, one.supervisor.now.using) for one in _houses[node].running.values()]
    return using, [(one.name, one.remote) for one in links(node)]


async def _open(node: Node, person: Person, target: Target, bridge: str) -> Link:
    """A link over what works now; to the node behind a bridge while that bridge is what works. Raises LinkError."""
    one = _running_of(node, person)
    now = Now() if one is None else one.supervisor.now
    if one is None or now.using is None or not now.listens:
        raise LinkError("there is no way out at the moment")
    if bridge and bridge_of(now.using) != bridge:
        raise LinkError("another bridge is used at the moment")
    credentials = Credentials(OWN_USER.encode(), one.password.encode())
    cost = Cost.METERED if settings(person).metered else Cost.FREE
    return await through(address.read(now.listens[0].at), credentials, target, cost)


async def _heard(node: Node, person: Person, event: Event | None) -> None:
    """Something is new from the relaying process, or it has ended (None)."""
    one = _running_of(node, person)
    if one is not None and node.people.get(person.key) is person:
        match event:
            case None:
                one.worked, one.spent = view.worked(person), _spent(person, node.today())
            case Attempted():
                await _note(node, person, one, event)
            case Remembered(network, worked):
                await remember(node, person, view.worked_rows(network, view.still_held(person, worked)))
            case LentNow(number, _, spent):
                await remember(node, person, [view.spent_row(number, node.today(), spent)])
            case _:
                pass
    node.touch()


async def _note(node: Node, person: Person, one: _Running, event: Attempted) -> None:
    """Remember how it went with a bridge: whether it fails while others work, and for whoever watches."""
    held = next((held for held in bridges(person) if held.id == event.bridge), None)
    if held is None:
        return
    outcome = outcome_of(event.failure)
    one.ended[transport_of(read_bridge(held.link)), outcome] = node.now_ms()
    using = one.supervisor.now.using
    others_work = using is not None and bridge_of(using) != held.id
    after = noted(held, outcome, node.now_ms(), others_work=others_work)
    if after != held:
        await remember(node, person, [view.noted_row(after)])


def _spent(person: Person, today: int) -> dict[bytes, int]:
    return {one.number: one.spent for one in shares(person) if one.day == today}


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
    chosen = settings(person)
    return Situation(
        now_ms=node.now_ms(),
        settings=chosen,
        said=view.said(person),
        held=bridges(person),
        wants=view.wants(person),
        passed=view.passed(person),
        members=view.members(person),
        serving=handing.serving(person),
        lent=view.lent(person),
        offers=uplinks.offers_of(person, chosen, _hosts(chosen), relaying(node, person).lent, node.now_ms()),
        borrowed=view.borrowed(person),
        targets=uplinks.targets_of(person),
        ended=() if (one := _running_of(node, person)) is None else [(*way, at) for way, at in one.ended.items()],
    )


async def carry_out(node: Node, person: Person, duty: Duty) -> None:
    """Do what is due."""
    match duty:
        case Publish():
            await _publish(node, person, duty)
        case NameBridges() | Offer():
            await uplinks.carry_out(person, duty)
        case agenda.Ask() | agenda.Admit() | agenda.PassOn() | agenda.Tell() | agenda.Report() | agenda.Block():
            await handing.carry_out(node, person, duty)
        case _:
            assert_never(duty)


async def _publish(node: Node, person: Person, duty: Publish) -> None:
    """Publish under this week's key, and remember in one transaction that this was said."""
    chosen = settings(person)
    if chosen.channel is None or not chosen.publishes:
        raise UsageError("nothing is published: switch it on first")
    at_s = duty.at_ms // 1000
    body = Route(duty.transport, duty.outcome, at_s - at_s % 3600, chosen.country, chosen.asn)
    name = agenda.route_name(duty.transport, duty.outcome)
    seed = await _seed(node, person)
    await node.append_apart(
        person,
        chosen.channel,
        ROUTE.name,
        body,
        seed=seed,
        life_ms=ROUTE_LIFE_DAYS * DAY_MS,
        local=[view.said_row(name, node.now_ms())],
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


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches that host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _set(node: Node, person: Person, chosen: dict[str, str]) -> None:
    await remember(node, person, view.setting_rows(chosen))
