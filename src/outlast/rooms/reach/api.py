"""What can be asked of reach through the local API and the command line."""

from __future__ import annotations

from typing import Any

import msgspec

from outlast import address
from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Person, id_text, space_text
from outlast.rooms.reach import handing, service, view
from outlast.rooms.reach.proto import invitations
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.serving import Served as ServedBridge
from outlast.ui.operation import Call, Nothing, Operation


class Who(msgspec.Struct, frozen=True):
    """A contact."""

    id: str
    name: str


class StepState(msgspec.Struct, frozen=True):
    """A way out and what it is doing: ``state`` is waiting, trying, passed, working or failed.

    ``outcome`` is how the last attempt ended: ok, or the name of a class. Without ``proof`` only an answer's first
    byte came. ``through`` is the contact whose uplink it goes through, null for none.
    """

    bridge: str
    label: str
    transport: str
    through: Who | None
    state: str
    since_ms: int | None
    next_ms: int | None
    outcome: str | None
    evidence: str
    ttfb_ms: int | None
    kbps: int | None
    proof: bool


class Serving(msgspec.Struct, frozen=True):
    """A bridge that this node serves; ``at`` is where members find it. It is not ``open`` when it counts as blocked."""

    bridge: str
    transport: str
    listen: str
    at: str
    open: bool
    running: bool
    members: int
    label: str


class Status(msgspec.Struct, frozen=True):
    """How it stands: ``code`` is off, starting, trying, working, no-bridge, nothing-works, gate-closed or failed.

    ``using`` is the way out that works now, since ``since_ms``; ``listens`` is where programs connect to.
    """

    code: str
    since_ms: int | None
    using: str | None
    listens: list[str]
    pac_url: str
    problem: str
    steps: list[StepState]
    serving: list[Serving]
    shared: bool
    published: bool


class Bridge(msgspec.Struct, frozen=True):
    """A bridge that can be used; ``by`` is the contact who handed it, null when it was added here."""

    id: str
    label: str
    transport: str
    by: Who | None
    may_invite: bool
    added_ms: int
    until_day: int | None
    outcome: str


class Added(msgspec.Struct, frozen=True):
    """The bridges of a text that are kept now, and what is wrong with the other links in it, a line each."""

    kept: list[Bridge]
    wrong: list[str]


class Link(msgspec.Struct, frozen=True):
    """The text of a bridge. Whoever has it can use the bridge, and have it blocked."""

    id: str
    link: str


class Member(msgspec.Struct, frozen=True):
    """One who uses a bridge of this node: ``by`` is whose letters reach them, ``direct`` whether that is themselves.

    ``trust`` is 0 to 4, ``suspicion`` 0 to 1; who has ended gets no bridge any more.
    """

    number: str
    parent: str | None
    by: Who
    direct: bool
    bridge: str | None
    trust: int
    suspicion: float
    ended: bool
    failed: str


class Request(msgspec.Struct, frozen=True):
    """A contact who asks for a bridge."""

    id: str
    by: Who
    at_ms: int


class Share(msgspec.Struct, frozen=True):
    """A contact who may use the own uplink; ``day_bytes`` null = no bound of their own."""

    to: Who
    day_bytes: int | None
    spent_today: int


class Uplink(msgspec.Struct, frozen=True):
    """A contact's offer of their uplink; it is used when it is ``accepted``."""

    id: str
    by: Who
    accepted: bool
    is_metered: bool
    day_bytes: int | None


class Shared(msgspec.Struct, frozen=True):
    """What is shared: ``day_bytes`` is for all together, null = no bound."""

    on: bool
    day_bytes: int | None
    metered: bool
    to: list[Share]
    offered: list[Uplink]


class Settings(msgspec.Struct, frozen=True):
    """What the person has chosen."""

    on: bool
    listen: list[str]
    user: str
    direct: list[str]
    country: str
    asn: int
    publish: bool
    channel: str | None
    test_url: str


class Count(msgspec.Struct, frozen=True):
    """How many."""

    count: int


class SwitchParams(msgspec.Struct, frozen=True):
    """Whether to keep a way out open."""

    on: bool


class LinksParams(msgspec.Struct, frozen=True):
    """A text with links of bridges and lines of Tor's, one or several, with prose between them or not."""

    links: str


class BridgeParams(msgspec.Struct, frozen=True):
    """A bridge's id, or the beginning of it."""

    id: str


class InviteParams(msgspec.Struct, frozen=True):
    """Which contact: ID, name, or the beginning of an ID; and, of bridges added here, which one."""

    to: str
    bridge: str = ""


class WhoParams(msgspec.Struct, frozen=True):
    """Which contact: ID, name, or the beginning of an ID."""

    to: str


class AnswerParams(msgspec.Struct, frozen=True):
    """Which request, and whether to give a bridge."""

    id: str
    give: bool = True


class ServeParams(msgspec.Struct, frozen=True):
    """A bridge to serve: ``transport`` is web or ss, ``listen`` HOST:PORT, ``at`` HOST:PORT as members find it."""

    transport: str
    listen: str
    at: str
    name: str = ""
    site: str = ""
    cert: str = ""
    key: str = ""
    site_tls: str = ""
    acme: str = ""
    http: str = ""
    takes_sync: bool = True
    label: str = ""


class ShareParams(msgspec.Struct, frozen=True):
    """Whether the own uplink is shared; ``day_bytes`` for all together, 0 = no bound. What is left out stays."""

    on: bool
    day_bytes: int | None = None
    metered: bool | None = None
    hosts: list[str] | None = None


class LendParams(msgspec.Struct, frozen=True):
    """Which contact may use the own uplink, or not any more, and how many bytes a day (0 = no bound of their own)."""

    to: str
    allowed: bool = True
    day_bytes: int = 0


class UseParams(msgspec.Struct, frozen=True):
    """Which offer, and whether to use it."""

    id: str
    accepted: bool = True


class SettingsParams(msgspec.Struct, frozen=True):
    """What is to change; what is left out stays."""

    listen: list[str] | None = None
    user: str | None = None
    password: str | None = None
    direct: list[str] | None = None
    country: str | None = None
    asn: int | None = None
    test_url: str | None = None


class PublishParams(msgspec.Struct, frozen=True):
    """Whether to publish which kinds of ways out work, and in which channel (its link or ID)."""

    on: bool
    channel: str = ""


async def _status(call: Call[Nothing]) -> Status:
    node, person = call.node, call.person
    now = service.state(node, person)
    running = service.relaying(node, person).serving
    return Status(
        code=now.code,
        since_ms=now.since_ms,
        using=now.using or None,
        listens=list(now.listens),
        pac_url=now.pac_url,
        problem=str(now.problem or ""),
        steps=[
            StepState(
                one.id,
                one.label,
                one.transport,
                None if one.through is None else _who(person, one.through),
                one.state,
                one.since_ms,
                one.next_ms,
                one.outcome,
                str(one.evidence or ""),
                one.ttfb_ms,
                one.kbps,
                one.proof,
            )
            for one in now.steps
        ],
        serving=[_serving(person, one, is_open, one.listen in running) for one, is_open in service.served(person)],
        shared=service.settings(person).share,
        published=service.settings(person).publishes,
    )


async def _switch(call: Call[SwitchParams]) -> Status:
    await service.switch(call.node, call.person, on=call.params.on)
    return await _status(call)  # type: ignore[arg-type]  # it looks at no parameter


async def _bridges(call: Call[Nothing]) -> list[Bridge]:
    return [_bridge(call.person, one) for one in service.bridges(call.person)]


async def _links(call: Call[Nothing]) -> list[Link]:
    return [Link(one.id, one.link) for one in service.bridges(call.person)]


async def _add(call: Call[LinksParams]) -> Added:
    held, wrong = await service.add_bridges(call.node, call.person, call.params.links)
    return Added([_bridge(call.person, one) for one in held], [str(one) for one in wrong])


async def _remove(call: Call[BridgeParams]) -> Nothing:
    await service.remove_bridge(call.node, call.person, call.params.id)
    return Nothing()


async def _link(call: Call[BridgeParams]) -> Link:
    one = service.find_bridge(call.person, call.params.id)
    return Link(one.id, one.link)


async def _invite(call: Call[InviteParams]) -> Nothing:
    to, bridge = call.person.find(call.params.to), call.params.bridge
    named = service.find_bridge(call.person, bridge).id if bridge else ""
    await service.invite(call.node, call.person, to.identity, named)
    return Nothing()


async def _ask(call: Call[WhoParams]) -> Nothing:
    await service.ask(call.node, call.person, call.person.find(call.params.to).identity)
    return Nothing()


async def _revoke(call: Call[WhoParams]) -> Count:
    return Count(await service.revoke(call.node, call.person, call.person.find(call.params.to).identity))


async def _requests(call: Call[Nothing]) -> list[Request]:
    return [Request(one.request.hex(), _who(call.person, one.peer), one.at_ms) for one in service.wants(call.person)]


async def _answer(call: Call[AnswerParams]) -> Nothing:
    request = _number(call.params.id)
    if call.params.give:
        await service.answer(call.node, call.person, request)
    else:
        await service.refuse(call.node, call.person, request)
    return Nothing()


async def _members(call: Call[Nothing]) -> list[Member]:
    today = call.node.today()
    return [
        Member(
            number=one.member.number.hex(),
            parent=None if one.member.parent is None else one.member.parent.hex(),
            by=_who(call.person, one.peer),
            direct=one.member.parent is None,
            bridge=one.member.bridge or None,
            trust=invitations.trust(one.member, today),
            suspicion=round(one.member.suspicion, 3),
            ended=one.member.ended,
            failed=one.failed,
        )
        for one in service.invited(call.person)
    ]


async def _serve(call: Call[ServeParams]) -> Serving:
    asked = call.params
    if asked.transport not in ("web", "ss"):
        raise UsageError(f"{asked.transport[:40]!r} is no transport: choose web or ss")
    for text in (asked.listen, asked.site_tls, asked.http):
        if text:
            address.read(text)
    if asked.transport == "web" and not asked.site:
        raise UsageError("a website needs something in front: a folder, or the URL of a server")
    new = ServedBridge(
        transport="web" if asked.transport == "web" else "ss",
        listen=asked.listen,
        at=address.read(asked.at),
        name=asked.name,
        site=asked.site,
        cert=asked.cert,
        key=asked.key,
        site_tls=asked.site_tls,
        acme=asked.acme,
        http=asked.http,
        takes_sync=asked.takes_sync,
        label=asked.label,
    )
    return _serving(call.person, await service.serve(call.node, call.person, new), True, False)


async def _stop(call: Call[BridgeParams]) -> Nothing:
    await service.stop_serving(call.node, call.person, _own(call))
    return Nothing()


async def _blocked(call: Call[BridgeParams]) -> Nothing:
    await service.lose(call.node, call.person, _own(call))
    return Nothing()


async def _shared(call: Call[Nothing]) -> Shared:
    return _all_shared(call)


async def _share(call: Call[ShareParams]) -> Shared:
    asked = call.params
    await service.share(
        call.node, call.person, on=asked.on, day_bytes=asked.day_bytes, metered=asked.metered, hosts=asked.hosts
    )
    return _all_shared(call)


async def _lend(call: Call[LendParams]) -> Shared:
    to = call.person.find(call.params.to).identity
    if call.params.allowed:
        await service.lend(call.node, call.person, to, day_bytes=call.params.day_bytes)
    else:
        await service.stop_lending(call.node, call.person, to)
    return _all_shared(call)


async def _use(call: Call[UseParams]) -> Shared:
    await service.accept(call.node, call.person, _number(call.params.id), accepted=call.params.accepted)
    return _all_shared(call)


async def _settings(call: Call[Nothing]) -> Settings:
    return _settings_of(call)


async def _set(call: Call[SettingsParams]) -> Settings:
    asked, now = call.params, service.settings(call.person)
    if any(one is not None for one in (asked.listen, asked.user, asked.password, asked.direct)):
        await service.set_gate(
            call.node,
            call.person,
            now.listen if asked.listen is None else asked.listen,
            now.user if asked.user is None else asked.user,
            now.password if asked.password is None else asked.password,
            now.direct if asked.direct is None else asked.direct,
        )
    if asked.country is not None or asked.asn is not None:
        country = now.country if asked.country is None else asked.country
        await service.set_place(call.node, call.person, country, now.asn if asked.asn is None else asked.asn)
    if asked.test_url is not None:
        await service.set_test_url(call.node, call.person, asked.test_url)
    return _settings_of(call)


async def _publish(call: Call[PublishParams]) -> Settings:
    await service.publish(call.node, call.person, on=call.params.on, channel=call.params.channel)
    return _settings_of(call)


async def _forget(call: Call[Nothing]) -> Nothing:
    await service.forget_all(call.node, call.person)
    return Nothing()


OPERATIONS: list[Operation[Any, Any]] = [
    Operation("reach.status", Nothing, Status, _status, "What works now, since when, and each attempt."),
    Operation("reach.switch", SwitchParams, Status, _switch, "Look for a way out and keep one, or stop.", unsafe=True),
    Operation("reach.bridges", Nothing, list[Bridge], _bridges, "The bridges that can be used, without their links."),
    Operation("reach.bridge.links", Nothing, list[Link], _links, "The links of all bridges.", unsafe=True),
    Operation("reach.bridge.add", LinksParams, Added, _add, "Keep the bridges of a text.", unsafe=True),
    Operation("reach.bridge.remove", BridgeParams, Nothing, _remove, "Forget a bridge.", unsafe=True),
    Operation("reach.bridge.link", BridgeParams, Link, _link, "The link of a bridge.", unsafe=True),
    Operation("reach.bridge.invite", InviteParams, Nothing, _invite, "Give a contact a bridge.", unsafe=True),
    Operation("reach.bridge.ask", WhoParams, Nothing, _ask, "Ask a contact for a bridge.", unsafe=True),
    Operation("reach.bridge.revoke", WhoParams, Count, _revoke, "Take back what a contact got from here.", unsafe=True),
    Operation("reach.requests", Nothing, list[Request], _requests, "Contacts who ask for a bridge."),
    Operation("reach.answer", AnswerParams, Nothing, _answer, "Give who asks a bridge, or not.", unsafe=True),
    Operation("reach.members", Nothing, list[Member], _members, "Who uses the bridges of this node, as a tree."),
    Operation("reach.serve", ServeParams, Serving, _serve, "Serve a bridge to those who are invited.", unsafe=True),
    Operation("reach.stop", BridgeParams, Nothing, _stop, "Serve a bridge no more.", unsafe=True),
    Operation("reach.blocked", BridgeParams, Nothing, _blocked, "A served bridge is blocked.", unsafe=True),
    Operation("reach.shared", Nothing, Shared, _shared, "Whom the own uplink is lent to, and who offers theirs."),
    Operation("reach.share", ShareParams, Shared, _share, "Share the own uplink, or not.", unsafe=True),
    Operation("reach.lend", LendParams, Shared, _lend, "Choose a contact who may use the own uplink.", unsafe=True),
    Operation("reach.use", UseParams, Shared, _use, "Use a neighbour's uplink, or not.", unsafe=True),
    Operation("reach.settings", Nothing, Settings, _settings, "What reach was told."),
    Operation("reach.set", SettingsParams, Settings, _set, "Change the gate, the place, the test URL.", unsafe=True),
    Operation("reach.publish", PublishParams, Settings, _publish, "Publish which kinds of ways out work.", unsafe=True),
    Operation("reach.forget", Nothing, Nothing, _forget, "Wipe all bridges and what worked where.", unsafe=True),
]


def _who(person: Person, identity: bytes) -> Who:
    name = next((one.name for one in person.contacts() if one.identity == identity), "")
    return Who(id_text(identity), name)


def _bridge(person: Person, one: view.Held) -> Bridge:
    bridge = read_bridge(one.link)
    return Bridge(
        id=one.id,
        label=service.label_of(bridge),
        transport=service.transport_of(bridge),
        by=None if one.peer is None else _who(person, one.peer),
        may_invite=one.may_invite,
        added_ms=one.added_ms,
        until_day=one.until_day or None,
        outcome=one.outcome,
    )


def _serving(person: Person, one: ServedBridge, is_open: bool, running: bool) -> Serving:
    members = sum(other.member.bridge == one.id for other in service.invited(person))
    return Serving(one.id, one.transport, one.listen, address.show(one.at), is_open, running, members, one.label)


def _own(call: Call[BridgeParams]) -> str:
    found = [id for id in handing.servers(call.person) if call.params.id and id.startswith(call.params.id.lower())]
    if len(found) != 1:
        raise NotFoundError("this node serves no such bridge: `outlast reach status` lists them")
    return found[0]


def _all_shared(call: Call[Any]) -> Shared:
    person, chosen = call.person, service.settings(call.person)
    today = call.node.today()
    return Shared(
        on=chosen.share,
        day_bytes=chosen.share_day_bytes or None,
        metered=chosen.metered,
        to=[
            Share(_who(person, one.peer), one.day_bytes or None, one.spent if one.day == today else 0)
            for one in service.shares(person)
        ],
        offered=[
            Uplink(
                one.offer.number.hex(),
                _who(person, one.peer),
                one.accepted,
                one.offer.is_metered,
                one.offer.day_bytes or None,
            )
            for one in service.neighbours(person)
        ],
    )


def _settings_of(call: Call[Any]) -> Settings:
    found = service.settings(call.person)
    return Settings(
        found.on,
        list(found.listen),
        found.user,
        list(found.direct),
        found.country,
        found.asn,
        found.publishes,
        space_text(found.channel) if found.channel and found.publishes else None,
        found.test_url,
    )


def _number(text: str) -> bytes:
    try:
        return bytes.fromhex(text.strip())
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no number of a request or an offer") from None
