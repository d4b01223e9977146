"""What people do with watch, and what it does by itself: measure, keep, publish, follow, read series, find outages.

Pages, commands and the local API call these functions and decide nothing themselves. Nothing leaves this node but
what was switched on, scrubbed before it is signed, under a key that is nobody's device and changes every week.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from outlast import __version__
from outlast.errors import NotFoundError, OutlastError, ProtocolError, Sentence, UsageError
from outlast.kernel import (
    DAY_MS,
    Delete,
    Level,
    Node,
    Person,
    Put,
    RowChanges,
    Status,
    Taken,
    Transaction,
    Update,
    Value,
    key_of_seed,
    make_channel_link,
    parse_channel,
)
from outlast.rooms.watch import agenda, asks, lamps, signals, timeline, view
from outlast.rooms.watch.agenda import (
    PUBLISHABLE,
    SCHEDULES_H,
    TARGETS_MAX,
    AskServers,
    Duty,
    ProbeRound,
    Rotate,
    SayHere,
    SayOutage,
    SayWitness,
    Settings,
    Situation,
    Vouch,
)
from outlast.rooms.watch.entries import (
    HEARTBEAT,
    HEARTBEAT_LIFE_MS,
    HOUR_S,
    KEY,
    KEY_LIFE_DAYS,
    OBSERVATION,
    OBSERVATION_LIFE_MS,
    WITNESS,
    WITNESS_LIFE_MS,
    Heartbeat,
    Observation,
    WatchKey,
    Witness,
    clean_input,
    pack_raw,
    token,
    unpack_raw,
)
from outlast.rooms.watch.io.consent import consent as keep_consent
from outlast.rooms.watch.io.consent import has_consented, withdraw
from outlast.rooms.watch.io.files import unpack_capped
from outlast.rooms.watch.io.link import TARGETS_MAX as LINK_TARGETS_MAX
from outlast.rooms.watch.io.link import any_answers, any_proves_itself, gateway_answers, read_target
from outlast.rooms.watch.lamps import Lamp
from outlast.rooms.watch.places import country_codes
from outlast.rooms.watch.proto import recognise
from outlast.rooms.watch.proto.heartbeats import KNOWN_S
from outlast.rooms.watch.proto.series import Origin
from outlast.rooms.watch.report import MEASURED_OF_ONE, Report
from outlast.rooms.watch.scrub import scrub, without_secrets
from outlast.rooms.watch.timeline import Line
from outlast.rooms.watch.view import Channel, Cut, Measured
from outlast.terms import EVIDENCE_MAX, OUTAGE, OUTAGE_LIFE_DAYS, ROUTE_LIFE_DAYS, WITNESSES_MAX, Outage, read_place
from outlast.ui.languages import marked

if TYPE_CHECKING:
    from outlast.rooms.watch.proto.classify import Verdict

log = logging.getLogger("outlast")
ROOM_NAME: Final = "watch"
LOOK_S: Final = 60.0
PAUSE_S: Final = 0.3
"""However much comes in, what is due is looked at no more often than this."""
STRANGERS_MAX: Final = 50
"""Outages are shown of so many whom nobody here knows,"""
OUTAGES_OF_ONE: Final = 50
"""and of each whom somebody here knows."""
WITNESSED_S: Final = 14 * 86_400
WITNESSES_OF_ONE: Final = WITNESSED_S // 3600
"""The newest words of one person that are looked at: one an hour."""
HEARTBEATS: Final = marked("nodes that say that they are there")
HEARTBEATS_SHOWN_S: Final = 31 * 86_400
ROUTES: Final = marked("nodes that tried a way out")
DAY_S: Final = DAY_MS // 1000
ROUTES_SHOWN_S: Final = ROUTE_LIFE_DAYS * DAY_S
ABLE: Final = "able"
"""Under this name it stands when this node was last able to hear somebody,"""
ABLE_EVERY_S: Final = 300
SETTLED: Final = "settled"
"""and under this up to when heartbeats are in the series."""
AWAY_KEPT_S: Final = HEARTBEATS_SHOWN_S + DAY_MS // 1000
SERIES_MAX_BYTES: Final = 64 << 20
TOKEN_MAX_CHARS: Final = 256
EXPORTED_MAX: Final = 5000
"""The newest so many measurements of one's own, and of strangers, are exported,"""
EXPORTED_BYTES_MAX: Final = 64 << 20
"""as far as they fit into this: 1 KiB of a stranger's can stand for 1 MiB."""
EXPORTED_AT_ONCE: Final = 16
NO_CONSENT: Final = Sentence("read what measuring can bring upon you, and agree to it, first")


@dataclass(frozen=True, slots=True)
class Lamps:
    """The three lamps, with what each stands on."""

    site: Lamp
    link: Lamp
    country: Lamp
    measured: Sequence[Measured]
    check: view.LinkCheck | None
    cuts: Sequence[Cut]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Standing:
    """An outage with who stands for it: ``agreeing`` counts, one of each person and network; ``said`` are all."""

    cut: Cut
    agreeing: Sequence[view.Seen]
    said: Sequence[view.Seen]

    @property
    def confirmed(self) -> bool:
        """Whether enough known people in distinct networks stand for it."""
        return bool(self.agreeing)


# ---- settings ----


def settings(person: Person) -> Settings:
    """What the person has chosen."""
    found = view.settings(person)
    channel = bytes.fromhex(found.get("channel", ""))
    return Settings(
        country=found.get("country", ""),
        asn=int(found.get("asn", "0")),
        publish=frozenset(found.get("publish", "").split()),
        channel=channel or None,
        every_h=int(found.get("every_h", "0")),
        targets=tuple(found.get("targets", "").splitlines()),
        consented=has_consented(person.node.home.path),
        domestic=tuple(found.get("domestic", "").split()),
        abroad=tuple(found.get("abroad", "").split()),
        control=found.get("control", ""),
        control_token=found.get("control_token", ""),
        fetch_h=int(found.get("fetch_h", "0")),
    )


def fetch_problems(person: Person) -> list[Sentence]:
    """What went wrong when public servers were last asked by themselves, a line each."""
    return msgspec.json.decode(view.settings(person).get("fetch_failures", "[]"), type=list[Sentence])


async def set_place(node: Node, person: Person, country: str, asn: int | str) -> None:
    """Say in which country and network this node is; raises UsageError for what can be neither."""
    country, asn = read_place(country, asn)
    if country and country not in country_codes():
        raise UsageError("there is no country with these two letters")
    await _set(node, person, {"country": country, "asn": str(asn)})


async def set_schedule(node: Node, person: Person, every_h: int, targets: Iterable[str]) -> None:
    """Measure these targets every so many hours, 0 = never; raises UsageError, also without consent."""
    named = tuple(dict.fromkeys(one for one in (clean_input(line) for line in targets) if one))
    if every_h not in SCHEDULES_H:
        raise UsageError("measure every 1, 6 or 24 hours, or 0 for never")
    if len(named) > TARGETS_MAX:
        raise UsageError("at most %(most)s targets are measured by themselves", most=TARGETS_MAX)
    if any(not one.startswith(("http://", "https://")) for one in named):
        raise UsageError("each target is an address that begins with https:// or http://, one a line")
    if every_h and not settings(person).consented:
        raise UsageError(NO_CONSENT)
    await _set(node, person, {"every_h": str(every_h), "targets": "\n".join(named)})


async def set_fetching(node: Node, person: Person, every_h: int) -> None:
    """Ask public servers for the own country's signals every so many hours, 0 = never; raises UsageError."""
    if every_h not in SCHEDULES_H:
        raise UsageError("ask every 1, 6 or 24 hours, or 0 for never")
    if every_h and not settings(person).country:
        raise UsageError("say first in which country this node is")
    await _set(node, person, {"fetch_h": str(every_h)})


async def consent(node: Node, agreed: bool) -> None:
    """Remember that who runs this node has read about the risks of measuring and agrees; or does not any more."""
    if agreed:
        await asyncio.to_thread(keep_consent, node.home.path, node.now_ms())
    else:
        await asyncio.to_thread(withdraw, node.home.path)
    node.touch()


async def set_controls(node: Node, person: Person, domestic: Iterable[str], abroad: Iterable[str]) -> None:
    """What the own line is tried with: addresses in the country, and abroad. Raises UsageError for what is none."""
    chosen = {"domestic": tuple(domestic), "abroad": tuple(abroad)}
    for targets in chosen.values():
        if len(targets) > LINK_TARGETS_MAX:
            raise UsageError("at most %(most)s addresses each", most=LINK_TARGETS_MAX)
        for one in targets:
            read_target(one)
    await _set(node, person, {name: " ".join(targets) for name, targets in chosen.items()})


async def publish(node: Node, person: Person, what: Iterable[str], channel: bytes | None = None) -> Settings:
    """Publish these from now on, of ``PUBLISHABLE``, in a followed channel; nothing for an empty list.

    Without a channel it is the one that was chosen before, or the only one. Raises UsageError.
    """
    chosen = frozenset(what)
    if chosen - set(PUBLISHABLE):
        raise UsageError("what can be published: observations, heartbeats, outages")
    followed = [one.space for one in channels(node, person)]
    if channel is None:
        before = settings(person).channel
        channel = before if before in followed else followed[0] if len(followed) == 1 else None
    if chosen and (channel is None or channel not in followed):
        raise UsageError("choose a channel to publish in: found one, or follow one, first")
    if chosen & {"heartbeats", "outages"} and not settings(person).country:
        raise UsageError("say first in which country this node is")
    await _set(
        node, person, {"publish": " ".join(sorted(chosen)), "channel": channel.hex() if chosen and channel else ""}
    )
    return settings(person)


async def set_control(node: Node, person: Person, url: str, token: str | None) -> None:
    """Compare measurements with this test helper elsewhere, none for an empty URL.

    A token of None stays as it was, for the same address: another one must not learn it.

    Raises UsageError for what is no address or no token.
    """
    from outlast.rooms.watch.proto.http import parse_url

    chosen = {"control": parse_url(url).text if url else ""}
    if token is not None or chosen["control"] != settings(person).control:
        token = token or ""
        if len(token) > TOKEN_MAX_CHARS or not token.isprintable() or not token.isascii() or " " in token:
            raise UsageError("a control's token is one word, as its operator gave it")
        chosen["control_token"] = token
    await _set(node, person, chosen)


# ---- channels ----


def channels(node: Node, person: Person) -> list[Channel]:
    """The channels that are followed for watch."""
    return view.channels(node, person)


def spaces(node: Node, person: Person) -> list[bytes]:
    """The spaces (32 B) of these channels."""
    return [one.space for one in channels(node, person)]


async def found_channel(node: Node, person: Person, name: str) -> Channel:
    """Found a channel in which everybody may publish what they measure; raises UsageError for a bad name."""
    space = await node.new_space(person, name, writers="anyone")
    await _remember(node, person, [_follow_row(node, space, " ".join(name.split()))])
    return next(one for one in channels(node, person) if one.space == space)


async def follow(node: Node, person: Person, text: str) -> Channel:
    """Follow a channel by its link or ID; raises UsageError when it is neither."""
    space, name = parse_channel(text)
    await node.follow(space)
    if space not in spaces(node, person):
        await _remember(node, person, [_follow_row(node, space, name)])
    return next(one for one in channels(node, person) if one.space == space)


async def unfollow(node: Node, person: Person, space: bytes) -> None:
    """Follow a channel no more; publishing in it ends. What is here of it goes, unless others here watch it."""
    if space not in spaces(node, person):
        raise NotFoundError("you do not follow this channel")
    changes: list[Put | Delete] = [Delete(view.FOLLOW, {"space": space})]
    if settings(person).channel == space:
        changes += [Put(view.SETTING, {"name": name, "value": ""}) for name in ("channel", "publish")]
    await _remember(node, person, changes)
    await node.let_go(space)


def link_of(channel: Channel) -> str:
    """The link by which others follow a channel."""
    return make_channel_link(channel.space, channel.name)


# ---- what is known ----


def measured(node: Node, person: Person, *, limit: int = 500) -> list[Measured]:
    """What was measured here, by people whom one knows, and by others in followed channels; the newest first.

    However much strangers publish, it takes no room from the others.
    """
    strangers = view.observations(node, spaces(node, person), node.now_ms(), limit=limit // 2)
    found = trusted(node, person, limit=limit)
    seen = {one.id for one in found if one.id}
    return sorted([*found, *(one for one in strangers if one.id not in seen)], key=lambda one: -one.at_s)[:limit]


def trusted(node: Node, person: Person, *, sought: view.Sought = view.EVERYTHING, limit: int = 500) -> list[Measured]:
    """What was measured here, and by people whom one knows; the newest first, and of each so much at most."""
    own = view.runs(person, sought=sought, limit=limit)
    mine = {one.id for one in own if one.id}
    where, now_ms = spaces(node, person), node.now_ms()
    known = [
        one
        for keys in _keys_of(people(node, person))
        for one in view.observations(node, where, now_ms, keys=keys, sought=sought, limit=limit)
    ]
    return sorted([*own, *(one for one in known if one.id not in mine)], key=lambda one: -one.at_s)


def outages(node: Node, person: Person, entity: str = "") -> list[Cut]:
    """The outages that are known here, one for each, the latest first.

    First count those that somebody known published and enough known people stand for, then what this node's own signals
    show; what somebody else claims comes last, and takes the place of neither.
    """
    known, claimed = _known_outages(node, person, entity)
    return lamps.merged(*known, claimed)


def believed(node: Node, person: Person, entity: str = "") -> list[Cut]:
    """The same without what is only claimed."""
    known, _claimed = _known_outages(node, person, entity)
    return lamps.merged(*known)


def _known_outages(node: Node, person: Person, entity: str) -> tuple[list[list[Cut]], list[Cut]]:
    """What is known here, what counts more first; and what is only claimed.

    First is what somebody known published and enough known people stand for, then what of it is said to be less than
    these see, what this node's own signals show, and what was published and nobody spoke of for long. Witnesses say
    how grave an outage is, when it began, and whether it goes on after an end that somebody gives.
    """
    known = people(node, person)
    by_known = _outages_of(node, person, known, entity)
    strangers = view.outages(node, spaces(node, person), node.now_ms(), entity=entity, limit=STRANGERS_MAX)
    witnesses = _witnesses(node, person, known, 0, entity)
    claimed = [cut for cut in strangers if cut.key not in known]
    confirmed, softened, quiet = list[Cut](), list[Cut](), list[Cut]()
    now_s = node.now_ms() // 1000
    for told in by_known:
        cut, agreeing = _agreed(told, by_known, witnesses, known, now_s)
        if not agreeing:
            claimed.append(told)
        elif (over := view.faded(cut, agenda.last_heard(cut, witnesses, known), now_s)).fades_out:
            quiet.append(over)
        else:
            (softened if agenda.is_softened(cut, witnesses, known) else confirmed).append(cut)
    claimed = [view.faded(cut, cut.at_s, now_s) for cut in claimed]
    return [confirmed, softened, view.alarms(person, now_s, entity), quiet], claimed


def standing(node: Node, person: Person, cut: Cut) -> Standing:
    """Who stands for an outage: for what a stranger published nobody does."""
    since_s, known = cut.start_s - agenda.FRESH_S, people(node, person)
    said = view.witnesses(node, spaces(node, person), node.now_ms(), since_s=since_s, entity=cut.entity)
    if cut.key is not None and cut.key not in known:
        return Standing(cut, (), said)
    by_known = _outages_of(node, person, known, cut.entity)
    told = next((one for one in by_known if one.id == cut.id), cut)  # as its author tells it
    witnesses = _witnesses(node, person, known, 0, cut.entity)
    return Standing(cut, _agreed(told, by_known, witnesses, known, node.now_ms() // 1000)[1], said)


def _agreed(
    told: Cut, said: Sequence[Cut], witnesses: Sequence[view.Seen], known: Mapping[bytes, bytes], now_s: int
) -> tuple[Cut, list[view.Seen]]:
    """An outage as it was told, with the beginning that those see who stand for it; and who these are.

    Nobody does where the others see it go on after its end, or begin later than that, or where that is still to come.
    """
    agreeing = agenda.agreeing_with(told, witnesses, known)
    if not agreeing:
        return told, []
    cut = replace(told, start_s=agenda.beginning(agreeing))
    if cut.end_s is not None and not cut.start_s <= cut.end_s <= now_s:
        return told, []
    return (told, []) if agenda.goes_on(cut, said, witnesses, known) else (cut, agreeing)


def _outages_of(node: Node, person: Person, known: Mapping[bytes, bytes], entity: str) -> list[Cut]:
    """What known people published of outages: of each so much that none of them leaves no room for the others."""
    where, now_ms = spaces(node, person), node.now_ms()
    return [
        cut
        for keys in _keys_of(known)
        for cut in view.outages(node, where, now_ms, entity=entity, keys=keys, limit=OUTAGES_OF_ONE)
    ]


def _witnesses(node: Node, person: Person, known: Mapping[bytes, bytes], since_s: int, entity: str) -> list[view.Seen]:
    """What known people witness: of each so much that none of them leaves no room for the others."""
    where, now_ms = spaces(node, person), node.now_ms()
    return [
        one
        for keys in _keys_of(known)
        for one in view.witnesses(
            node, where, now_ms, since_s=since_s, entity=entity, keys=keys, limit=WITNESSES_OF_ONE
        )
    ]


def _keys_of(known: Mapping[bytes, bytes]) -> list[list[bytes]]:
    """The keys of each person."""
    found = defaultdict[bytes, list[bytes]](list)
    for key, who in known.items():
        found[who].append(key)
    return list(found.values())


def people(node: Node, person: Person) -> dict[bytes, bytes]:
    """Whose key it is (identity, 32 B), by key, as far as contacts told: verified ones, and the person's own."""
    verified = {contact.identity for contact in person.contacts() if contact.verified_ms and not contact.blocked}
    return view.vouched(person, node.today(), verified) | {one.key: person.identity for one in view.own_keys(person)}


def three_lamps(node: Node, person: Person) -> Lamps:
    """Is it this site, my link, or the country?"""
    now_ms = node.now_ms()
    now_s, chosen = now_ms // 1000, settings(person)
    # One's own may be dated ahead too, by a clock that was wrong: they would stand before all that is measured now.
    recent = [one for one in trusted(node, person) if now_s - lamps.RECENT_S <= one.at_s <= now_s + HOUR_S]
    # What somebody finds in another country says nothing of a site here.
    latest = lamps.latest_by_target([one for one in recent if one.key is None or chosen.country in ("", one.country)])
    check = view.link_check(person)
    link = lamps.link_lamp(check, now_ms)
    cuts = [cut for cut in believed(node, person, chosen.country) if chosen.country and cut.end_s is None]
    worst = lamps.worst_of(cuts)
    confirmed = worst is not None and standing(node, person, worst).confirmed
    latest_s = view.latest_signals(person).get(chosen.country)
    age_s = None if latest_s is None else now_s - latest_s
    country = lamps.country_lamp(chosen.country, cuts, confirmed, age_s, link)
    return Lamps(lamps.site_lamp(latest), link, country, latest, check, cuts, chosen)


def lines_of(node: Node, person: Person, code: str, now_s: int) -> list[Line]:
    """A country's signals as they were read, and the heartbeats of the followed channels."""
    lines = [Line(f"{one.signal} · {one.source}", one.points, one.step_s) for one in view.series(person, code)]
    beats = view.beats(node, spaces(node, person), node.now_ms(), code, now_s - HEARTBEATS_SHOWN_S, now_s + 1)
    if beats:
        by_hour = {one.hour_s: float(one.keys) for one in beats}
        # That nobody was there, and that this node heard nobody, cannot be told apart: an hour without is a gap.
        hours = range(beats[0].hour_s, now_s + 1, HOUR_S)
        lines.append(Line(HEARTBEATS, [(hour, by_hour.get(hour)) for hour in hours], HOUR_S))
    ways = view.routes(node, spaces(node, person), node.now_ms(), code, now_s - ROUTES_SHOWN_S, now_s + 1)
    for outcome, counts in ways.items():
        by_day = {day_s: float(keys) for day_s, keys in counts}
        days = range(counts[0][0], now_s + 1, DAY_S)
        lines.append(Line(f"{ROUTES}: {outcome}", [(day_s, by_day.get(day_s)) for day_s in days], DAY_S))
    return lines


def report_of(node: Node, person: Person, code: str, name: str, from_s: int, to_s: int) -> Report:
    """What a report of a country between two times tells, as far as it is known here."""
    now_s = node.now_ms() // 1000
    sites = trusted(node, person, sought=view.Sought(from_s, to_s, code), limit=MEASURED_OF_ONE)
    lines = lines_of(node, person, code, now_s)
    return Report(code, name, from_s, to_s, now_s, lines, believed(node, person, code), sites)


def span_of(node: Node, person: Person, code: str) -> tuple[int, int] | None:
    """From when to when (UTC seconds) there is anything here that a report of a country can tell; None for nothing."""
    now_s = node.now_ms() // 1000
    cuts = believed(node, person, code)
    times = [one.at_s for one in trusted(node, person, sought=view.Sought(country=code), limit=MEASURED_OF_ONE)]
    times += [at_s for cut in cuts for at_s in (cut.start_s, now_s if cut.end_s is None else cut.end_s)]
    times += timeline.span(lines_of(node, person, code, now_s)) or ()
    return (min(times), max(max(times), min(times) + 60)) if times else None


# ---- the own line, and series ----


async def look_at_link(node: Node, person: Person) -> view.LinkCheck:
    """Try the own line now; what it says of the country is kept as an outage that begins, changes or ends."""
    chosen = settings(person)
    gateway, domestic, abroad = await asyncio.gather(
        gateway_answers(), any_answers(chosen.domestic), any_proves_itself(chosen.abroad)
    )
    if gateway is None and (domestic or abroad):
        gateway = True  # whoever reaches anything has a way out
    return await note_link(node, person, gateway, domestic, abroad)


async def note_link(
    node: Node, person: Person, gateway: bool | None, domestic: bool | None, abroad: bool | None
) -> view.LinkCheck:
    """Keep how the own line was found."""
    check = view.LinkCheck(node.now_ms(), gateway, domestic, abroad)
    country = settings(person).country
    changes: list[Put | Delete] = [view.link_row(check)]
    if country:
        before = next((cut for cut in view.alarms(person, check.at_ms // 1000, country) if cut.own), None)
        if (cut := signals.own_cut(check, before, country)) is not None:
            changes.append(view.alarm_row(cut))
    await _remember(node, person, changes)
    return check


async def read_series(node: Node, person: Person, packed: bytes, name: str, country: str) -> int:
    """Keep the series in a file (of IODA, Tor Metrics, OONI, Monash) and look for outages in them; how many series.

    ``country``, two letters, is whose rows are kept, with those that name none; the file may be packed by gzip or
    bzip2. Raises ProtocolError; UsageError where it says nothing of this country.
    """
    if country not in country_codes():
        raise UsageError("there is no country with these two letters")
    now_ms = node.now_ms()

    def work() -> tuple[list[Put], list[Cut]]:
        raw = io.BufferedReader(io.BytesIO(packed))
        with unpack_capped(raw, name, SERIES_MAX_BYTES) as source:  # type: ignore[arg-type]
            data = source.read()
        digest = sha256(data)
        points = recognise.read_series(io.BytesIO(data), Origin(now_ms // 1000, digest.hexdigest()))
        found = signals.stored(points, country, now_ms, digest.digest())
        return _looked_through(kept, found, country, now_ms // 1000)

    kept = signals.of_country(view.series(person), country)
    rows, cuts = await asyncio.to_thread(work)
    await _remember(node, person, [*rows, *_found_anew(person, country, cuts)])
    return len(rows)


def _looked_through(
    kept: Sequence[view.StoredSeries], found: Sequence[view.StoredSeries], country: str, now_s: int
) -> tuple[list[Put], list[Cut]]:
    """The rows of the series that were found, and the outages in all that there are then."""
    cuts, judged = signals.look_through(signals.renewed(kept, found), country, now_s)
    return [view.series_row(one, judged=(one.source, one.entity, one.signal) in judged) for one in found], cuts


async def fetch_series(node: Node, person: Person, country: str) -> list[Sentence]:
    """Ask the public servers for a country's signals and keep them; a line for each that gave nothing of use.

    They are asked at once, each as ``io.fetch`` does it: by HTTPS, and through the proxy that the environment names.
    """
    from outlast.rooms.watch.io.fetch import fetch, proxy_of
    from outlast.rooms.watch.proto.endpoints import endpoints

    try:
        proxy, asked = proxy_of(os.environ), endpoints(country, node.now_ms() // 1000)
    except UsageError as error:
        return [error.line]
    problems: list[Sentence] = []
    answers = await asyncio.gather(*(fetch(one, country, proxy) for one in asked), return_exceptions=True)
    for one, answer in zip(asked, answers, strict=True):
        try:
            if isinstance(answer, BaseException):
                raise answer
            await read_series(node, person, answer, one.file, country)
        except OutlastError as error:
            problems.append(error.line)
    return problems


async def forget_series(node: Node, person: Person, country: str) -> None:
    """Delete a country's series, and the outages that were found in them."""
    kept = signals.of_country(view.series(person), country)
    await _remember(node, person, [*map(view.series_gone, kept), *_found_anew(person, country, [])])


def _found_anew(person: Person, country: str, cuts: Sequence[Cut]) -> list[Put | Delete]:
    """A country's outages by its series, instead of those that were found in them before."""
    gone = [view.alarm_gone(cut) for cut in view.alarms(person, 0, country) if not cut.own]
    return [*gone, *map(view.alarm_row, cuts)]


# ---- measurements ----


async def probe(node: Node, person: Person, targets: Sequence[str]) -> int:
    """Measure these targets now, one after another kept as it is done; how many. Raises UsageError without consent."""
    from outlast.rooms.watch.io.measurements import own_fingerprints
    from outlast.rooms.watch.io.run import encode, plan, run_list
    from outlast.rooms.watch.proto.classify import classify
    from outlast.rooms.watch.proto.measurement import from_object
    from outlast.rooms.watch.proto.web_connectivity import publishable

    chosen = settings(person)
    if not chosen.consented:
        raise UsageError(NO_CONSENT)
    named = list(targets)[:TARGETS_MAX]
    asked = await asyncio.to_thread(plan, named, most=TARGETS_MAX, control=chosen.control or None)
    if asked.control is not None:
        asked = replace(asked, control=replace(asked.control, token=chosen.control_token))
    known = None
    try:
        known = await asyncio.to_thread(own_fingerprints, node.home.path)
    except OutlastError as error:
        log.warning("measuring without the lists of block pages: %s", error)
    count = 0
    async for done in run_list(asked):
        raw = encode(publishable(done))
        verdict = await asyncio.to_thread(classify, from_object(done), known)
        await keep(node, person, judged(verdict, done["test_name"], node.now_ms(), settings(person)), raw)
        count += 1
    return count


def judged(verdict: Verdict, test: str, at_ms: int, chosen: Settings) -> Measured:
    """A verdict on a measurement of one's own, as it is kept."""
    blocking = {None: "", False: "false", True: "true"}.get(verdict.blocking, verdict.blocking)  # type: ignore[arg-type]
    layers = verdict.layers
    return Measured(
        None,
        None,
        0,
        at_ms // 1000,
        test,
        clean_input(verdict.input),
        chosen.country,
        chosen.asn,
        str(blocking),
        verdict.accessible,
        layers.dns,
        layers.tcp,
        layers.tls,
        layers.http,
        layers.throttled,
        token(verdict.fingerprint or ""),
        f"outlast {__version__}",
        0,
    )


async def keep(node: Node, person: Person, one: Measured, raw: bytes) -> None:
    """Keep a measurement that was made here; publish it when that is switched on."""
    row = view.run_row(one, node.now_ms(), raw)

    def act(tx: Transaction) -> int:
        tx.apply([row], ROOM_NAME)
        return view.last_run(tx)

    number = await node.write(lambda: person.vault.write(act))
    node.touch()
    if settings(person).says("observations"):
        await publish_run(node, person, number)


async def publish_run(node: Node, person: Person, number: int) -> bytes:
    """Publish one measurement of one's own, scrubbed; returns the entry's id (32 B).

    Raises UsageError when nothing is to be published, NotFoundError when there is no such measurement.
    """
    chosen = settings(person)
    if not chosen.says("observations") or chosen.channel is None:
        raise UsageError("nothing is published: switch observations on first")
    one = view.find_run(person, number)
    if one is None:
        raise NotFoundError("there is no such measurement here")
    if one.id is not None:
        return one.id
    seed = await _seed(node, person)
    raw = view.raw_runs(person, [number])[0]
    body = await asyncio.to_thread(lambda: published(one, scrub(raw) if raw else b"", chosen))
    entry = await node.append_apart(
        person,
        chosen.channel,
        OBSERVATION.name,
        body,
        seed=seed,
        life_ms=OBSERVATION_LIFE_MS,
    )
    await _remember(node, person, [Update(view.RUN, {"n": number}, {"entry": entry.id})])
    return entry.id


def published(one: Measured, scrubbed: bytes, chosen: Settings) -> Observation:
    """A measurement as it is published: the hour, the place that was chosen, and the scrubbed record."""
    return Observation(
        test=token(one.test) or "unknown",
        input=clean_input(without_secrets(one.input)),
        at_s=one.at_s - one.at_s % HOUR_S,
        country=chosen.country,
        asn=chosen.asn,
        blocking=token(one.blocking),
        accessible=one.accessible,
        layers=(one.dns, one.tcp, one.tls, one.http, one.throttled),  # type: ignore[arg-type]  # read from a verdict
        fingerprint=token(one.fingerprint),
        software=token(one.software),
        raw=pack_raw(scrubbed) if scrubbed else b"",
    )


async def export(node: Node, person: Person) -> bytes:
    """OONI measurements as JSON lines, scrubbed: one's own, then what people whom one knows published, then others'.

    Of each the newest first, as many as fit into EXPORTED_BYTES_MAX: strangers take no room from the others.
    """
    runs = view.runs(person, limit=EXPORTED_MAX)
    known = [one for one in trusted(node, person) if one.key is not None]
    others = view.observations(node, spaces(node, person), node.now_ms(), limit=EXPORTED_MAX)
    mine, numbers = {one.id for one in runs}, [one.n for one in runs]
    ids = list(dict.fromkeys(one.id for one in (*known, *others) if one.id and one.raw_bytes and one.id not in mine))

    def batches() -> Iterator[list[Callable[[], bytes]]]:
        for at in range(0, len(numbers), EXPORTED_AT_ONCE):
            raws = view.raw_runs(person, numbers[at : at + EXPORTED_AT_ONCE])
            yield [partial(scrub, raw) for raw in reversed(raws)]
        for at in range(0, len(ids), EXPORTED_AT_ONCE):
            entries = node.open_store.load(ids[at : at + EXPORTED_AT_ONCE])
            # Whatever a stranger's record holds, it comes out as one line, and scrubbed.
            yield [partial(_record, entry.payload or b"") for entry in entries]

    def work(batch: Sequence[Callable[[], bytes]]) -> bool:
        for make in batch:
            with contextlib.suppress(ProtocolError):
                line = make()
                if exported.tell() + len(line) >= EXPORTED_BYTES_MAX:
                    return False
                exported.write(line + b"\n")
        return True

    exported = io.BytesIO()
    for batch in batches():
        if not await asyncio.to_thread(work, batch):
            break
    return exported.getvalue()


def _record(payload: bytes) -> bytes:
    return scrub(unpack_raw(OBSERVATION.decode(payload).raw))


# ---- by itself ----


def status(node: Node, person: Person) -> Status:
    """How the place is where this node stands, as a code."""
    found = three_lamps(node, person)
    level = {"ok": Level.OK, "warn": Level.WARN, "bad": Level.CUT, "unknown": Level.OFF}[found.country.light]
    evidence: dict[str, Value] = {"country": found.settings.country, "link": found.link.code, "site": found.site.code}
    since = lamps.worst_of(found.cuts)
    return Status(level, since.start_s * 1000 if since else None, found.country.code, evidence)


def space(_node: Node, person: Person) -> Sequence[Taken]:
    """What was measured here, and what was read of signals."""
    what = marked("What was measured, and signals that were read")
    return [Taken("measurements", what, view.kept_bytes(person), "/watch/runs", in_vault=True)]


async def run(node: Node) -> None:
    """While the node is open: whatever is due. Nothing waits for measuring, which takes long, but other measuring."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_whenever(node, _turn))
        tasks.create_task(_whenever(node, _measure))


async def _whenever(node: Node, act: Callable[[Node, Person], Awaitable[bool]]) -> None:
    """Do this for everybody who is here, whenever anything changed or a minute is over, again while it says so."""
    while True:
        revision = node.revision
        for key, person in list(node.people.items()):
            with contextlib.suppress(OutlastError):
                while node.people.get(key) is person and await act(node, person):
                    pass
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await node.wait(revision)
        await asyncio.sleep(PAUSE_S)


async def _turn(node: Node, person: Person) -> bool:
    """Hold the channels, and do what is due but for measuring; whether to look at the situation again at once."""
    for space in spaces(node, person):
        if space not in node.spaces():
            await node.follow(space)  # after a restore the store does not know it yet
    duties = [duty for duty in agenda.due(situation(node, person)) if not isinstance(duty, ProbeRound)]
    for duty in duties:
        await _carry_out(node, person, duty)
    await _listen(node, person)
    return any(isinstance(duty, Rotate) for duty in duties)


async def _listen(node: Node, person: Person) -> None:
    """While this node can hear others: note it, and take the hours that are settled into the series of heartbeats."""
    now_s, said = node.now_ms() // 1000, view.said(person)
    link_is_up = lamps.link_lamp(view.link_check(person), node.now_ms()).light != "bad"
    if not link_is_up or not any(peer.connected for peer in node.peers()):
        return
    able_s = _noted_s(said, ABLE, now_s)
    gone, away = signals.gone_away(able_s, now_s), view.away(person)
    if gone is not None:
        old = [
            Delete(view.AWAY, {"begin_s": begin_s})
            for begin_s, end_s in away
            if not -HOUR_S <= now_s - end_s <= AWAY_KEPT_S
        ]
        new = Put(view.AWAY, {"begin_s": gone[0], "end_s": gone[1]})
        await _remember(node, person, [*old, new, _said_row(node, ABLE)])
        return
    if able_s is None or not 0 <= now_s - able_s < ABLE_EVERY_S:
        await _remember(node, person, [_said_row(node, ABLE)])
    has_caught_up = all(end_s <= now_s - signals.CAUGHT_UP_S for _, end_s in away)
    if has_caught_up and signals.final_s(now_s) > (_noted_s(said, SETTLED, now_s) or 0):
        await _settle(node, person)


def _noted_s(said: Mapping[str, int], what: str, now_s: int) -> int | None:
    """When this was noted (UTC seconds); None for never, and where a clock that ran far ahead noted it."""
    at_s = said[what] // 1000 if what in said else None
    return at_s if at_s is None or at_s <= now_s + HOUR_S else None


async def _settle(node: Node, person: Person) -> None:
    """Take the heartbeats of the hours that are settled since into the series, and look for outages in them."""
    now_ms, said = node.now_ms(), view.said(person)
    end_s = signals.final_s(now_ms // 1000)
    settled_s = _noted_s(said, SETTLED, now_ms // 1000)
    begin_s = end_s - HOUR_S if settled_s is None else max(settled_s, end_s - HEARTBEATS_SHOWN_S)
    # One's own are always heard.
    others = {key: peer for key, peer in people(node, person).items() if peer != person.identity}
    rows = view.heard(node, spaces(node, person), now_ms, list(others), begin_s - KNOWN_S, end_s)
    heard = [(others[key].hex(), at_s, country, asn) for key, at_s, country, asn in rows]
    away, known = view.away(person), view.series(person)

    def work(country: str) -> tuple[list[Put], list[Cut]]:
        kept = signals.of_country(known, country)
        found = signals.heartbeats_of(heard, country, begin_s, end_s, away, kept, now_ms)
        return _looked_through(kept, found, country, now_ms // 1000) if found else ([], [])

    changes: list[Put | Delete] = [Put(view.SAID, {"what": SETTLED, "at_ms": end_s * 1000})]
    for country in sorted({settings(person).country, *view.signalled(person)} - {""}):
        found, cuts = await asyncio.to_thread(work, country)
        if found:
            changes += [*found, *_found_anew(person, country, cuts)]
    if view.series(person) == known:  # else a file was read meanwhile, and it is done again with it
        await _remember(node, person, changes)


async def _measure(node: Node, person: Person) -> bool:
    """The round that is due, and one wish of a contact; whether there was a wish."""
    for duty in agenda.due(situation(node, person)):
        if isinstance(duty, ProbeRound):
            await _carry_out(node, person, duty)
    return await asks.answer_one(node, person)


def situation(node: Node, person: Person) -> Situation:
    """All that the agenda needs to know."""
    chosen = settings(person)
    keys = view.own_keys(person)
    now_ms = node.now_ms()
    week, known = agenda.week_of(now_ms), people(node, person)
    contacts = [one for one in person.contacts() if one.verified_ms and not one.blocked]
    return Situation(
        now_ms=now_ms,
        settings=chosen,
        said=view.said(person),
        key_day=next((one.day for one in keys if one.seed and one.day == week), None),
        verified=[one.identity for one in contacts],
        alarms=view.alarms(person, now_ms // 1000, chosen.country) if chosen.country else (),
        witnesses=_witnesses(node, person, known, now_ms // 1000 - WITNESSED_S, chosen.country),
        people=known,
        link_is_up=lamps.link_lamp(view.link_check(person), now_ms).light != "bad",
    )


async def _carry_out(node: Node, person: Person, duty: Duty) -> None:
    chosen = settings(person)
    match duty:
        case Rotate():
            await _seed(node, person)
            node.touch()
        case Vouch(peer, day):
            # Whoever cannot be written to learns of the next key.
            with contextlib.suppress(UsageError, NotFoundError):
                own = next(one for one in view.own_keys(person) if one.day == day)
                await person.send(peer, KEY.name, WatchKey(own.key, day))
            await _remember(node, person, [_said_row(node, agenda.vouch_name(peer, day))])
        case SayHere():
            beat = Heartbeat(chosen.country, chosen.asn)
            await _say(node, person, "beat", HEARTBEAT.name, beat, HEARTBEAT_LIFE_MS)
        case SayWitness(cut):
            said = Witness(cut.entity, cut.state, cut.start_s, chosen.country, chosen.asn)
            await _say(node, person, agenda.witness_name(cut), WITNESS.name, said, WITNESS_LIFE_MS)
        case SayOutage(cut, witnesses):
            outage = Outage(
                cut.entity, cut.state, cut.start_s, cut.end_s, cut.evidence[:EVIDENCE_MAX], witnesses[:WITNESSES_MAX]
            )
            await _say(node, person, agenda.outage_name(cut), OUTAGE.name, outage, OUTAGE_LIFE_DAYS * DAY_MS)
        case ProbeRound(targets):
            await _remember(node, person, [_said_row(node, "round")])
            # Whatever the network or a site does to one round, the next one comes.
            with contextlib.suppress(OSError):
                await look_at_link(node, person)
                await probe(node, person, targets)
        case AskServers(country):
            await _remember(node, person, [_said_row(node, "fetch")])
            problems = await fetch_series(node, person, country)
            await _set(node, person, {"fetch_failures": msgspec.json.encode(problems).decode()})
        case _:
            assert_never(duty)


async def _say(node: Node, person: Person, what: str, kind: str, body: msgspec.Struct, life_ms: int) -> None:
    """Publish, and remember in one transaction that this was said."""
    channel = settings(person).channel
    if channel is None:
        raise UsageError("nothing is published: switch it on first")
    seed = await _seed(node, person)
    await node.append_apart(person, channel, kind, body, seed=seed, life_ms=life_ms, local=[_said_row(node, what)])


async def _seed(node: Node, person: Person) -> bytes:
    """The seed of this week's key, which is made when it is first needed; those of earlier weeks go.

    With them goes what was said in those weeks and decides nothing any more: to whom, for one.
    """
    now_ms = node.now_ms()
    day, seed = agenda.week_of(now_ms), os.urandom(32)

    def act(tx: Transaction) -> bytes:
        known = view.own_keys(tx)
        for one in known:
            if one.day == day and one.seed:
                return one.seed
        changes: list[Put | Delete] = [Put(view.OWN_KEY, {"day": day, "seed": seed, "key": key_of_seed(seed)})]
        changes += [Delete(view.SAID, {"what": what}) for what in agenda.past(view.said(tx), now_ms)]
        for one in known:
            if one.day < day - KEY_LIFE_DAYS:
                changes.append(Delete(view.OWN_KEY, {"day": one.day}))
            elif one.seed:
                changes.append(Put(view.OWN_KEY, {"day": one.day, "seed": None}))
        tx.apply(changes, ROOM_NAME)
        return seed

    return await node.write(lambda: person.vault.write(act))


def _said_row(node: Node, what: str) -> Put:
    return Put(view.SAID, {"what": what, "at_ms": node.now_ms()})


async def _set(node: Node, person: Person, chosen: Mapping[str, str]) -> None:
    await _remember(node, person, [Put(view.SETTING, {"name": name, "value": value}) for name, value in chosen.items()])


async def _remember(node: Node, person: Person, changes: RowChanges) -> None:
    await node.write(lambda: person.vault.transaction(changes, ROOM_NAME))
    node.touch()


def _follow_row(node: Node, space: bytes, name: str) -> Put:
    return Put(view.FOLLOW, {"space": space, "name": name, "added_ms": node.now_ms()})
