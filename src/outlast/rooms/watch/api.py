"""What can be asked of watch through the local API and the command line."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from outlast.errors import ProtocolError, UsageError
from outlast.kernel import id_text, parse_space, space_text
from outlast.rooms.watch import asks, report, service
from outlast.rooms.watch.asked import Wish
from outlast.rooms.watch.entries import LAYERS, unpack_raw
from outlast.rooms.watch.io.files import read_capped
from outlast.rooms.watch.lamps import Lamp
from outlast.rooms.watch.places import entity_name, find_country
from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.evidence import english
from outlast.rooms.watch.proto.measurement import read
from outlast.rooms.watch.view import Channel as FollowedChannel
from outlast.rooms.watch.view import Cut, Measured
from outlast.terms import LAST_S
from outlast.ui.operation import Call, Nothing, Operation

LIMIT_MAX = 5000


class AskParams(msgspec.Struct, frozen=True):
    """Whom to ask: ID, name, or the beginning of an ID; and a URL."""

    to: str
    url: str


class AllowParams(msgspec.Struct, frozen=True):
    """Which contact may ask, or not any more."""

    who: str
    allowed: bool = True


class Asked(msgspec.Struct, frozen=True):
    """The number of what was asked."""

    id: str


class Answer(msgspec.Struct, frozen=True):
    """What a contact was asked and told: without ``done_ms`` nothing yet, with a ``problem`` no measurement."""

    id: str
    to: str
    name: str
    input: str
    at_ms: int
    done_ms: int | None
    problem: str
    blocking: str | bool | None = None
    accessible: bool | None = None
    layers: dict[str, str] = {}


class LampState(msgspec.Struct, frozen=True):
    """One lamp: ``light`` is ok, warn, bad or unknown; ``code`` says why."""

    light: str
    code: str


class Outage(msgspec.Struct, frozen=True):
    """An outage; times ISO 8601 in UTC, ``end`` null while it lasts.

    ``id`` is null for what this node's own signals show. ``witnesses`` counts known people in distinct networks who
    stand for it; it is ``confirmed`` when they are enough.
    """

    id: str | None
    entity: str
    state: str
    start: str
    end: str | None
    evidence: list[str]
    witnesses: int
    confirmed: bool


class Lamps(msgspec.Struct, frozen=True):
    """This site, my link, the country: and the outages of it that last; what is published from here."""

    site: LampState
    link: LampState
    country: LampState
    entity: str
    outages: list[Outage]
    published: list[str]


class Observation(msgspec.Struct, frozen=True):
    """A measurement: by this node (``key`` null), or published; ``by`` is the ID of a contact who told of that key."""

    id: str | None
    key: str | None
    by: str | None
    at: str
    test: str
    input: str
    country: str
    asn: int
    verdict: str
    blocking: str
    accessible: bool | None
    layers: dict[str, str]
    fingerprint: str
    software: str


class Settings(msgspec.Struct, frozen=True):
    """What the person has chosen; an empty ``publish`` means that nothing is published."""

    country: str
    asn: int
    publish: list[str]
    channel: str | None
    every_h: int
    fetch_h: int
    targets: list[str]
    consented: bool
    domestic: list[str]
    abroad: list[str]
    control: str


class Channel(msgspec.Struct, frozen=True):
    """A channel that is followed for watch."""

    id: str
    name: str
    link: str


class ListParams(msgspec.Struct, frozen=True):
    """Only the newest ``limit``, at most 5000."""

    limit: int = 100


class PublishParams(msgspec.Struct, frozen=True):
    """``what`` is published from now on: observations, heartbeats, outages; an empty list stops all of it."""

    what: list[str]
    channel: str | None = None


class SettingsParams(msgspec.Struct, frozen=True):
    """What is to change; what is left out stays. ``every_h`` and ``fetch_h`` are 0, 1, 6 or 24."""

    country: str | None = None
    asn: int | None = None
    every_h: int | None = None
    fetch_h: int | None = None
    targets: list[str] | None = None
    domestic: list[str] | None = None
    abroad: list[str] | None = None
    control: str | None = None
    control_token: str | None = None


class SeriesParams(msgspec.Struct, frozen=True):
    """A file on the node's computer, by its absolute path, and its country, by two letters or English name."""

    file: str
    country: str


class Series(msgspec.Struct, frozen=True):
    """How many series were kept."""

    series: int


class NameParams(msgspec.Struct, frozen=True):
    """What the channel is to be called."""

    name: str


class LinkParams(msgspec.Struct, frozen=True):
    """A channel's link or ID."""

    channel: str


class ReportParams(msgspec.Struct, frozen=True):
    """A country by its two letters or English name; times ISO 8601, taken as UTC where they name no zone."""

    country: str
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None


class Text(msgspec.Struct, frozen=True):
    """A whole document."""

    text: str


async def _status(call: Call[Nothing]) -> Lamps:
    found = service.three_lamps(call.node, call.person)
    return Lamps(
        site=_lamp(found.site),
        link=_lamp(found.link),
        country=_lamp(found.country),
        entity=found.settings.country,
        outages=[_outage(call, cut) for cut in found.cuts],
        published=sorted(found.settings.publish) if found.settings.publishes else [],
    )


async def _outages(call: Call[ListParams]) -> list[Outage]:
    return [_outage(call, cut) for cut in service.outages(call.node, call.person)[: _limit(call.params.limit)]]


async def _observations(call: Call[ListParams]) -> list[Observation]:
    known = service.people(call.node, call.person)
    found = service.measured(call.node, call.person, limit=_limit(call.params.limit))
    return [_observation(one, known) for one in found]


async def _publish(call: Call[PublishParams]) -> Settings:
    channel = _channel_of(call, call.params.channel) if call.params.channel else None
    await service.publish(call.node, call.person, call.params.what, channel)
    return _settings_of(call)


async def _settings(call: Call[Nothing]) -> Settings:
    return _settings_of(call)


async def _set(call: Call[SettingsParams]) -> Settings:
    asked, now = call.params, service.settings(call.person)
    if asked.country is not None or asked.asn is not None:
        country = now.country if asked.country is None else asked.country
        await service.set_place(call.node, call.person, country, now.asn if asked.asn is None else asked.asn)
    if asked.domestic is not None or asked.abroad is not None:
        domestic = now.domestic if asked.domestic is None else asked.domestic
        await service.set_controls(
            call.node, call.person, domestic, now.abroad if asked.abroad is None else asked.abroad
        )
    if asked.control is not None or asked.control_token is not None:
        url = now.control if asked.control is None else asked.control
        await service.set_control(call.node, call.person, url, asked.control_token)
    if asked.every_h is not None or asked.targets is not None:
        every_h = now.every_h if asked.every_h is None else asked.every_h
        targets = now.targets if asked.targets is None else asked.targets
        await service.set_schedule(call.node, call.person, every_h, targets)
    if asked.fetch_h is not None:
        await service.set_fetching(call.node, call.person, asked.fetch_h)
    return _settings_of(call)


async def _channels(call: Call[Nothing]) -> list[Channel]:
    return [_channel(one) for one in service.channels(call.node, call.person)]


async def _create(call: Call[NameParams]) -> Channel:
    return _channel(await service.found_channel(call.node, call.person, call.params.name))


async def _follow(call: Call[LinkParams]) -> Channel:
    return _channel(await service.follow(call.node, call.person, call.params.channel))


async def _unfollow(call: Call[LinkParams]) -> Nothing:
    await service.unfollow(call.node, call.person, _channel_of(call, call.params.channel))
    return Nothing()


async def _link(call: Call[Nothing]) -> Lamps:
    await service.look_at_link(call.node, call.person)
    return await _status(call)


async def _read(call: Call[SeriesParams]) -> Series:
    path = Path(call.params.file)
    if not path.is_absolute():
        raise UsageError("name the file by its whole path")
    code = find_country(call.params.country)
    if path.is_fifo():
        # The node would wait for who writes, and one named /dev/fd/63 is its own.
        raise UsageError("%(name)s is a pipe: name a file", name=path.name)
    data = await asyncio.to_thread(read_capped, path, service.SERIES_MAX_BYTES)
    return Series(await service.read_series(call.node, call.person, data, path.name, code))


async def _export(call: Call[Nothing]) -> Text:
    return Text((await service.export(call.node, call.person)).decode("utf-8", "replace"))


async def _report(call: Call[ReportParams]) -> Text:
    code = find_country(call.params.country)
    now_s = call.node.now_ms() // 1000
    first, last = service.span_of(call.node, call.person, code) or (now_s - 31 * 86_400, now_s)
    from_s = first if call.params.from_ is None else _time(call.params.from_)
    to_s = last if call.params.to is None else _time(call.params.to)
    if from_s >= to_s:
        raise UsageError("--from lies before --to")
    told = service.report_of(call.node, call.person, code, entity_name(code, "en"), from_s, to_s)
    return Text(await asyncio.to_thread(report.page, told))


async def _ask(call: Call[AskParams]) -> Asked:
    to = call.person.find(call.params.to)
    return Asked((await asks.ask(call.node, call.person, to.identity, call.params.url)).hex())


async def _answers(call: Call[Nothing]) -> list[Answer]:
    names = {one.identity: one.name for one in call.person.contacts()}
    found = asks.answers(call.person)
    return await asyncio.to_thread(lambda: [_answer(one, names.get(one.peer, "")) for one in found])


def _answer(wish: Wish, name: str) -> Answer:
    told = Answer(wish.number.hex(), id_text(wish.peer), name, wish.target, wish.at_ms, wish.done_ms, wish.problem)
    if not wish.raw:
        return told
    try:
        verdict = classify(read(unpack_raw(wish.raw)))
    except ProtocolError:
        return msgspec.structs.replace(told, problem="what was told is no measurement")
    layers = {layer: getattr(verdict.layers, layer) for layer in LAYERS}
    return msgspec.structs.replace(told, blocking=verdict.blocking, accessible=verdict.accessible, layers=layers)


async def _allow(call: Call[AllowParams]) -> Nothing:
    who = call.person.find(call.params.who)
    await asks.allow(call.node, call.person, who.identity, allowed=call.params.allowed)
    return Nothing()


OPERATIONS: list[Operation[Any, Any]] = [
    Operation("watch.status", Nothing, Lamps, _status, "Is it this site, my link, or the country?"),
    Operation("watch.outages", ListParams, list[Outage], _outages, "The outages that are known here, latest first."),
    Operation(
        "watch.observations", ListParams, list[Observation], _observations, "What was measured, the newest first."
    ),
    Operation("watch.settings", Nothing, Settings, _settings, "What watch was told: place, publishing, schedule."),
    Operation(
        "watch.set", SettingsParams, Settings, _set, "Change the place, the schedule, the controls.", unsafe=True
    ),
    Operation("watch.publish", PublishParams, Settings, _publish, "Publish from now on, or nothing.", unsafe=True),
    Operation("watch.link", Nothing, Lamps, _link, "Try the own line now.", unsafe=True),
    Operation(
        "watch.read", SeriesParams, Series, _read, "Keep the series in a file, and look through them.", unsafe=True
    ),
    Operation("watch.channels", Nothing, list[Channel], _channels, "The channels that are followed for watch."),
    Operation(
        "watch.channel.create", NameParams, Channel, _create, "Found a channel to publish measurements in.", unsafe=True
    ),
    Operation("watch.follow", LinkParams, Channel, _follow, "Follow a channel of people who watch.", unsafe=True),
    Operation("watch.unfollow", LinkParams, Nothing, _unfollow, "Follow such a channel no more.", unsafe=True),
    Operation("watch.ask", AskParams, Asked, _ask, "Ask a contact to probe a URL from where they are.", unsafe=True),
    Operation("watch.answers", Nothing, list[Answer], _answers, "What contacts were asked to probe, the newest first."),
    Operation(
        "watch.allow", AllowParams, Nothing, _allow, "Let a contact have this computer probe, or not.", unsafe=True
    ),
    Operation("watch.export", Nothing, Text, _export, "Measurements as OONI's JSON lines, scrubbed."),
    Operation("watch.report", ReportParams, Text, _report, "A country's report, as one HTML document."),
]


def _lamp(lamp: Lamp) -> LampState:
    return LampState(lamp.light, lamp.code)


def _outage(call: Call[Any], cut: Cut) -> Outage:
    standing = service.standing(call.node, call.person, cut)
    return Outage(
        cut.id.hex() if cut.id else None,
        cut.entity,
        cut.state,
        _iso(cut.start_s),
        None if cut.end_s is None else _iso(cut.end_s),
        [english(line) for line in cut.evidence],
        len(standing.agreeing),
        standing.confirmed,
    )


def _observation(one: Measured, known: dict[bytes, bytes]) -> Observation:
    by = known.get(one.key) if one.key else None
    return Observation(
        one.id.hex() if one.id else None,
        one.key.hex() if one.key else None,
        id_text(by) if by else None,
        _iso(one.at_s),
        one.test,
        one.input,
        one.country,
        one.asn,
        one.verdict,
        one.blocking,
        one.accessible,
        one.layers,
        one.fingerprint,
        one.software,
    )


def _settings_of(call: Call[Any]) -> Settings:
    found = service.settings(call.person)
    return Settings(
        found.country,
        found.asn,
        sorted(found.publish) if found.publishes else [],
        space_text(found.channel) if found.channel else None,
        found.every_h,
        found.fetch_h,
        list(found.targets),
        found.consented,
        list(found.domestic),
        list(found.abroad),
        found.control,
    )


def _channel(one: FollowedChannel) -> Channel:
    return Channel(space_text(one.space), one.name, service.link_of(one))


def _channel_of(call: Call[Any], text: str) -> bytes:
    named = [one.space for one in service.channels(call.node, call.person) if one.name.casefold() == text.casefold()]
    return named[0] if len(named) == 1 else parse_space(text)


def _time(text: str) -> int:
    try:
        at = datetime.fromisoformat(text.strip())
        at_s = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        at_s = -1
    if not 0 <= at_s <= LAST_S:
        raise UsageError(f"{text[:40]!r} is no time since 1970: write 2026-01-08 or 2026-01-08T16:30")
    return at_s


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise UsageError(f"a limit is 1 to {LIMIT_MAX}")
    return limit
