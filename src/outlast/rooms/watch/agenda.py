"""What watch does by itself next: decisions without a clock, a disk or a network, for the service to carry out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from outlast.kernel import DAY_MS
from outlast.rooms.watch.entries import HOUR_S, WEEK_DAYS
from outlast.rooms.watch.lamps import NEAR_S, is_same
from outlast.rooms.watch.proto.detector import GRAVITY
from outlast.rooms.watch.proto.detector import State as FusedState
from outlast.rooms.watch.proto.fusion import CLOCK_AHEAD_S, STATEMENT_FRESH_S, Statement, witnessed
from outlast.rooms.watch.view import Cut, Seen
from outlast.terms import OUTAGE_LIFE_DAYS

HOUR_MS: Final = 3_600_000
FRESH_S: Final = 86_400
"""A witness counts for an outage when it spoke from so long before its beginning on, and so long after it."""
TARGETS_MAX: Final = 200
SCHEDULES_H: Final = (0, 1, 6, 24)
"""Hours between two rounds of probes, or two times that public servers are asked; 0 = never by itself."""
PUBLISHABLE: Final = ("observations", "heartbeats", "outages")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person has chosen. As long as they choose nothing, nothing is measured and nothing is published."""

    country: str = ""  # ISO 3166-1 alpha-2
    asn: int = 0
    publish: frozenset[str] = frozenset()  # of ``PUBLISHABLE``
    channel: bytes | None = None  # 32 B: where it is published
    every_h: int = 0
    targets: tuple[str, ...] = ()
    consented: bool = False  # whether who runs the node has agreed to the risks of measuring
    domestic: tuple[str, ...] = ()  # what the own line is tried with: in the country,
    abroad: tuple[str, ...] = ()  # and abroad
    control: str = ""  # URL of a test helper elsewhere, which measurements are compared with
    control_token: str = ""  # the word by which it knows this node
    fetch_h: int = 0  # how often public servers are asked for the country's signals

    @property
    def publishes(self) -> bool:
        """Whether anything at all leaves this node."""
        return bool(self.publish) and self.channel is not None

    def says(self, what: str) -> bool:
        """Whether this is published: ``observations``, ``heartbeats`` or ``outages``."""
        return self.channel is not None and what in self.publish


@dataclass(frozen=True, slots=True)
class Rotate:
    """Take a new key for the week that began on ``day``, and forget the seeds of all earlier ones."""

    day: int


@dataclass(frozen=True, slots=True)
class Vouch:
    """Tell a contact (identity, 32 B) which key is one's own this week."""

    peer: bytes
    day: int


@dataclass(frozen=True, slots=True)
class SayHere:
    """Publish a heartbeat."""


@dataclass(frozen=True, slots=True)
class SayWitness:
    """Publish that this node's detector sees this."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class SayOutage:
    """Publish an outage that enough witnesses stand for (ids, 32 B each)."""

    cut: Cut
    witnesses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ProbeRound:
    """Measure these targets."""

    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskServers:
    """Ask public servers for the signals of this country."""

    country: str


Duty = Rotate | Vouch | SayHere | SayWitness | SayOutage | ProbeRound | AskServers


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is to be known to decide what is due; ``said`` is when each thing was last done, in ms."""

    now_ms: int
    settings: Settings
    said: Mapping[str, int]
    key_day: int | None  # the week of the own key, None when there is none
    verified: Collection[bytes]  # contacts (identity, 32 B) who are told of keys
    alarms: Sequence[Cut]
    witnesses: Sequence[Seen]
    people: Mapping[bytes, bytes]  # whose key it is, by key; the own one is among them
    link_is_up: bool  # what answers abroad or at home: with a dead link nobody is a witness of a country


def week_of(now_ms: int) -> int:
    """The day (since 1970) on which the week began; the same for everybody, so that all change keys together."""
    day = now_ms // DAY_MS
    return day - day % WEEK_DAYS


def due(now: Situation) -> list[Duty]:
    """What is to be done now, in this order."""
    settings, duties = now.settings, list[Duty]()
    if settings.publishes:
        week = week_of(now.now_ms)
        if now.key_day != week:
            return [Rotate(week)]  # all else is signed by the new key
        if settings.publish & {"heartbeats", "outages"}:
            duties += [Vouch(peer, week) for peer in sorted(now.verified) if vouch_name(peer, week) not in now.said]
        if settings.says("heartbeats") and settings.country and _is_due(now, "beat", HOUR_MS):
            duties.append(SayHere())
        if settings.says("outages"):
            duties += _outage_duties(now)
    may_probe = settings.consented and settings.every_h and settings.targets
    if may_probe and _is_due(now, "round", settings.every_h * HOUR_MS):
        duties.append(ProbeRound(settings.targets))
    if settings.fetch_h and settings.country and _is_due(now, "fetch", settings.fetch_h * HOUR_MS):
        duties.append(AskServers(settings.country))
    return duties


def _outage_duties(now: Situation) -> list[Duty]:
    duties = list[Duty]()
    for cut in now.alarms:
        if cut.fades_out or now.now_ms - 1000 * (cut.end_s or now.now_ms // 1000) > 7 * DAY_MS:
            continue  # history is read, not witnessed; and nobody is told of an end that nobody saw
        if cut.end_s is None and now.link_is_up and _is_due(now, witness_name(cut), HOUR_MS):
            duties.append(SayWitness(cut))
        agreeing = agreeing_with(cut, now.witnesses, now.people)
        if agreeing and outage_name(cut) not in now.said:
            duties.append(SayOutage(cut, tuple(sorted(one.id for one in agreeing))))
    return duties


def agreeing_with(cut: Cut, witnesses: Sequence[Seen], people: Mapping[bytes, bytes]) -> list[Seen]:
    """Those who stand for an outage: known people in enough networks who said so within one hour; else nobody.

    What they say together is as grave as what the outage is said to be, or graver.

    ``fusion.witnessed`` counts: of each person the newest word, of each network one. Witnesses whose key nobody told
    of, or who name no network, are heard and not counted. An hour in which enough agree is enough: news travel slowly
    in an outage, and a witness who is cut off falls silent.
    """
    gravity = GRAVITY[FusedState(cut.state)]
    if not gravity:
        return []  # that nothing is cut is no outage
    until_s = (cut.end_s or cut.start_s) + FRESH_S
    near = [
        one
        for one in witnesses
        if one.entity == cut.entity
        and one.asn
        and one.key in people
        and cut.start_s - FRESH_S <= one.at_s <= until_s
        and not one.at_s % HOUR_S  # as all that is signed by such keys: any number of other times could be made up
    ]
    said = {(one.at_s, people[one.key], f"AS{one.asn}"): one for one in reversed(near)}
    words = sorted(said.items())
    times = [at_s for (at_s, _, _), _ in words]
    statements = [
        Statement(person.hex(), network, at_s, FusedState(one.state)) for (at_s, person, network), one in words
    ]
    best: list[Seen] = []
    for hour_s in sorted(set(times)):
        first, behind = bisect_left(times, hour_s - STATEMENT_FRESH_S), bisect_right(times, hour_s)
        agreed = witnessed(statements[first : bisect_right(times, hour_s + CLOCK_AHEAD_S)], hour_s)
        if agreed.state is None or GRAVITY[agreed.state] < gravity or len(agreed.agreeing) <= len(best):
            continue
        # Of each person the word that was counted, whatever other networks they name.
        counted = {person: (network, one) for (_at_s, person, network), one in words[first:behind]}
        newest = {network: one for network, one in counted.values() if one.state != "normal"}
        best = [newest[network] for network in agreed.agreeing if network in newest]
    return best


def beginning(agreeing: Sequence[Seen]) -> int:
    """When an outage began (UTC seconds), by the middle one of those who stand for it: no single one moves that far."""
    starts = sorted(one.start_s for one in agreeing)
    return starts[(len(starts) - 1) // 2]


def last_heard(cut: Cut, witnesses: Sequence[Seen], people: Mapping[bytes, bytes]) -> int:
    """When (UTC seconds) anybody known spoke of an outage last."""
    words = _words_on(cut, witnesses, people, cut.at_s)
    return max([cut.at_s, *(one.t_s for one in words if one.state is not FusedState.NORMAL)])


def goes_on(cut: Cut, said: Sequence[Cut], witnesses: Sequence[Seen], people: Mapping[bytes, bytes]) -> bool:
    """Whether enough known people in enough networks see an outage in the hour of the end that ``cut`` gives, or later.

    They are counted as for a beginning: else one person could end what all others see. What somebody saw within the
    hour before an end that they gave themselves (in ``said``, what was published of outages), and until they said so,
    is over for them.
    """
    if cut.end_s is None:
        return False
    over = defaultdict[bytes, list[tuple[int, int]]](list)
    for one in said:
        if one.key and one.key in people and one.end_s is not None and is_same(one, cut):
            over[people[one.key]].append((_fresh_at(one.end_s), one.at_s))
    statements = [
        replace(word, state=FusedState.NORMAL)
        if any(from_s <= word.t_s <= to_s for from_s, to_s in over[bytes.fromhex(word.witness)])
        else word
        for word in _words_on(cut, witnesses, people, _fresh_at(cut.end_s))
    ]
    times = [one.t_s for one in statements]
    end_hour_s = cut.end_s - cut.end_s % HOUR_S
    for hour_s in sorted({end_hour_s, *times[bisect_right(times, end_hour_s) :]}):
        near = statements[bisect_left(times, hour_s - STATEMENT_FRESH_S) : bisect_right(times, hour_s)]
        if witnessed(near, hour_s).agreeing:
            return True
    return False


def is_softened(cut: Cut, witnesses: Sequence[Seen], people: Mapping[bytes, bytes]) -> bool:
    """Whether ``cut`` calls an outage that lasts less grave than enough known people did in the hour when it was said.

    Then it counts less than what they published themselves, and more than what nobody confirms.
    """
    if cut.end_s is not None:
        return False
    hour_s = cut.at_s - cut.at_s % HOUR_S
    words = [one for one in _words_on(cut, witnesses, people, _fresh_at(cut.at_s)) if one.t_s <= hour_s]
    state = witnessed(words, hour_s).state
    return state is not None and GRAVITY[state] > GRAVITY[FusedState(cut.state)]


def _words_on(cut: Cut, witnesses: Sequence[Seen], people: Mapping[bytes, bytes], from_s: int) -> list[Statement]:
    """What known people in named networks witness of one outage from a time on, in order."""
    found = [
        Statement(people[one.key].hex(), f"AS{one.asn}", one.at_s, FusedState(one.state))
        for one in witnesses
        if one.at_s >= from_s
        and one.key in people
        and one.asn
        and not one.at_s % HOUR_S
        and one.entity == cut.entity
        and abs(one.start_s - cut.start_s) <= NEAR_S
    ]
    return sorted(found, key=lambda one: one.t_s)


def _fresh_at(at_s: int) -> int:
    """From when on (an hour's beginning) a word is fresh at a time: words are dated to the hour."""
    return at_s - at_s % HOUR_S - STATEMENT_FRESH_S


def vouch_name(peer: bytes, day: int) -> str:
    """Under which name it stands in ``said`` that a contact was told of a week's key."""
    return f"key:{peer.hex()}:{day}"


def witness_name(cut: Cut) -> str:
    """Under which name it stands in ``said`` when this was last witnessed."""
    return f"witness:{cut.entity}:{cut.start_s}"


def outage_name(cut: Cut) -> str:
    """Under which name it stands in ``said`` that this outage was published as it is."""
    return f"outage:{cut.entity}:{cut.start_s}:{cut.state}:{cut.end_s or ''}"


def past(said: Mapping[str, int], now_ms: int) -> list[str]:
    """What of ``said`` decides nothing any more: of keys and witnesses of earlier weeks, and what has long expired."""
    week_ms, oldest_ms = week_of(now_ms) * DAY_MS, now_ms - OUTAGE_LIFE_DAYS * DAY_MS
    return [
        what
        for what, at_ms in said.items()
        if at_ms < (week_ms if what.startswith(("key:", "witness:")) else oldest_ms)
    ]


def _is_due(now: Situation, what: str, every_ms: int) -> bool:
    # What was done much later than now was done while the clock was wrong: it would hold this up until then.
    return not -HOUR_MS <= now.now_ms - now.said.get(what, -every_ms) < every_ms
