"""What a country is in, from the states of its signals and from its witnesses; why, only as a hint with its evidence.

Signals fall and come back at different times, and a vote among them is later than the best of them: so each keeps its
own state (``detector``), and the country is in alarm from the first signal that may speak alone until the last has come
back. What witnesses of the federation say is counted by networks, never by heads; see ``witnessed``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from outlast.rooms.watch.proto.detector import (
    GONE,
    GRAVITY,
    HEARTBEATS,
    LATENCY,
    REGIONS,
    REGIONS_UP,
    RETURNED,
    ROUTES,
    TRAFFIC,
    Change,
    Detector,
    Ended,
    FellAgain,
    Kind,
    LevelAccepted,
    Raised,
    Restoring,
    Silent,
    State,
    kind_of,
)
from outlast.rooms.watch.proto.evidence import fact
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, FOREIGN
from outlast.rooms.watch.proto.series import HOUR_S, Key, Point, SeriesError, country_of, gather, key_of
from outlast.terms import EVIDENCE_MAX, Fact

COUNTRY: Final = "country"
ALARMS_MIN: Final = 2
REGIONS_MIN_SHARE: Final = 0.5
REGIONS_MIN: Final = 30
CELLS_MAX: Final = 30_000_000
WITNESSES_MIN: Final = 3
STATEMENT_FRESH_S: Final = HOUR_S
CLOCK_AHEAD_S: Final = 300
DEEP_SHARE: Final = 0.9
HELD_S: Final = 6 * HOUR_S
SWITCHED_S: Final = 90 * 60
SWITCHED_LOSS: Final = 0.9
ROUTES_KEPT_LOSS: Final = 0.2
RETURN_S: Final = 3 * HOUR_S
COURSE_MAX: Final = 4096


class Alarm(Struct, frozen=True):
    """One alarm: s UTC, ``end_s`` None while it lasts; the gravest state it reached; evidence as ``evidence.FORMS``."""

    start_s: int
    end_s: int | None
    state: State
    evidence: tuple[Fact, ...]


class Report(Struct, frozen=True):
    """The alarms of one signal in order of time; ``signal`` is the file's name of it, or COUNTRY for all together.

    ``judged`` is False where there was too little to say anything: then no alarm means nothing. Nor does it mean
    anything from ``silent_since_s`` on, where values that used to come came no more; None where they came to the end.
    ``key`` is the series', None for all together.
    """

    signal: str
    country: str
    alarms: tuple[Alarm, ...]
    judged: bool = True
    silent_since_s: int | None = None
    key: Key | None = None


def detect(points: Iterable[Point], *, regions: bool = False) -> list[Report]:
    """Run the machines over rows in any order: for each country one report of all together, then one a signal.

    With ``regions`` each region's signals follow. Where a file has several countries, names end with the country's.
    Raises SeriesError when a country's series times its moments are more than CELLS_MAX.
    """
    nations: dict[str, Nation] = {}
    series = gather(points)
    _check_size(series)
    rows = sorted((row for one in series.values() for row in one), key=lambda row: (row.t_s, country_of(row.entity)))
    for (_, country), batch in groupby(rows, key=lambda row: (row.t_s, country_of(row.entity))):
        nations.setdefault(country, Nation(country)).step(list(batch))
    several = len(nations) > 1
    return [
        replace(report, signal=f"{report.signal} {country}") if several else report
        for country, nation in sorted(nations.items())
        for report in nation.reports(regions=regions)
    ]


def _check_size(series: Mapping[Key, Sequence[Point]]) -> None:
    """Every moment looks at every series of its country, also where a file was made so that none has two rows."""
    sizes: Counter[str] = Counter(country_of(entity) for _, entity, _ in series)
    moments: dict[str, set[int]] = {}
    for (_, entity, _), rows in series.items():
        moments.setdefault(country_of(entity), set()).update(row.t_s for row in rows)
    if any(count * len(moments[country]) > CELLS_MAX for country, count in sizes.items()):
        raise SeriesError("too many series at too many different times: more than %(most)s together", most=CELLS_MAX)


class Nation:
    """All series of one country together: rows in, in order of time; reports out at any time."""

    def __init__(self, country: str) -> None:
        """A country that nothing is known of yet."""
        self._country = country
        self._signals: dict[Key, _Course] = {}
        self._regions: dict[Key, _Course] = {}
        self._known: Counter[tuple[str, str]] = Counter()
        self._fused = _Fused()

    def step(self, batch: Sequence[Point]) -> None:
        """Take the rows of one time, of the country and of its regions. Regions make up a mean for the country."""
        own = [point for point in batch if "/" not in point.entity]
        regional = [point for point in batch if "/" in point.entity]
        for point in regional:
            if key_of(point) not in self._regions:
                self._known[point.source, point.signal] += 1
            _course(self._regions, point).step(point)
        own_signals = {(point.source, point.signal) for point in own}
        for point in (*self._means(regional), *self._shares(regional)):
            if (point.source, point.signal) not in own_signals:
                own.append(point)
        for point in own:
            _course(self._signals, point).step(point)
        if own:
            self._fused.step(own[0].t_s, list(self._signals.values()), list(self._regions.values()))

    def accept(self, t_s: int, signal: str) -> None:
        """The operator says that this signal's present level is the new usual."""
        for key, course in self._signals.items():
            if key[2] == signal:
                course.accept(t_s)
        self._fused.step(t_s, list(self._signals.values()), list(self._regions.values()))

    @property
    def state(self) -> State:
        """What the country is in now."""
        return self._fused.state

    def reports(self, *, regions: bool = False) -> list[Report]:
        """All together first, then each signal; with ``regions`` each region's signals as well."""
        sources = Counter(signal for _, _, signal in self._signals)
        known = [course.machine.silent_since for course in self._signals.values() if course.machine.judging]
        ends = [since_s for since_s in known if since_s is not None]
        silent_s = max(ends) if ends and len(ends) == len(known) else None  # it is blind once the last is silent
        found = [Report(COUNTRY, self._country, self._fused.alarms(), bool(known), silent_s)]
        for key, course in self._signals.items():
            source, _, signal = key
            name = f"{signal} ({source})" if sources[signal] > 1 else signal
            found.append(course.report(name, self._country, key))
        if regions:
            for key, course in self._regions.items():
                found.append(course.report(f"{key[2]}: {key[1]}", self._country, key))
        return found

    def _means(self, regional: Sequence[Point]) -> list[Point]:
        found = []
        by_signal = sorted(regional, key=lambda point: (point.source, point.signal))
        for (source, signal), rows in groupby(by_signal, key=lambda point: (point.source, point.signal)):
            there = list(rows)
            values = [point.value for point in there if point.value is not None]
            known = self._known[source, signal]
            # Of a rest of the regions a mean would tell which are missing, not how the country is.
            enough = bool(values) and len(values) >= REGIONS_MIN_SHARE * known
            mean = sum(values) / len(values) if enough else None
            first = there[0]
            found.append(
                Point(
                    source, self._country, signal, first.t_s, mean, first.step_s, first.fetched_at, first.sha256
                )
            )  # fmt: skip
        return found

    def _shares(self, regional: Sequence[Point]) -> list[Point]:
        """Where regions are many: the share of them that has not lost half. A mean hides a province that is cut off."""
        there: dict[tuple[str, str], list[Point]] = {}
        for point in regional:
            if point.value is not None and self._known[point.source, point.signal] >= REGIONS_MIN:
                there.setdefault((point.source, point.signal), []).append(point)
        found = []
        for (source, signal), rows in there.items():
            machines = [self._regions[key_of(row)].machine for row in rows]
            judged = [machine for machine in machines if machine.judging and not machine.kind.rises]
            if len(judged) >= REGIONS_MIN_SHARE * self._known[source, signal]:
                up = sum(machine.loss < 1 - RETURNED for machine in judged) / len(judged)
                first = rows[0]
                name = f"{signal}: {REGIONS_UP}"
                found.append(
                    Point(source, self._country, name, first.t_s, up, first.step_s, first.fetched_at, first.sha256)
                )
        return found


class _Course:
    """A series' machine, the alarms that it raised, and how its losses ran in the last of them."""

    def __init__(self, signal: str, step_s: int) -> None:
        self.signal = signal
        self.step_s = step_s
        self.machine = Detector(kind_of(signal), step_s)
        self.worst = (0.0, 0)
        self.deep = (0, 0)
        self.now_s = 0
        self._scanned = 0.0
        self._run: deque[tuple[int, float]] = deque(maxlen=COURSE_MAX)
        self.half_gone_s: int | None = None
        self.raised: Raised | None = None
        self.ended_s: int | None = None
        self._gravest = State.NORMAL
        self._lines: list[Fact] = []
        self._past: list[Alarm] = []

    @property
    def kind(self) -> Kind:
        return self.machine.kind

    def step(self, point: Point) -> None:
        self._take(self.machine.step(point))
        if self.machine.alarm_since is None:
            self.half_gone_s = None
        elif point.value is not None:
            self._follow(point.t_s, self.machine.loss)

    def accept(self, t_s: int) -> None:
        self._take(self.machine.step(LevelAccepted(t_s)))

    def alarms(self) -> tuple[Alarm, ...]:
        if self.raised is None:
            return tuple(self._past)
        return (*self._past, Alarm(self.raised.t_s, None, self._gravest, self._evidence()))

    def report(self, name: str, country: str, key: Key) -> Report:
        return Report(name, country, self.alarms(), self.machine.judging, self.machine.silent_since, key)

    def told(self) -> Fact:
        """This signal in one line of the country's evidence."""
        assert self.raised is not None
        return fact("changed", self.signal, self.change(self.raised.loss), self.raised.t_s, self.change(self.worst[0]))

    def change(self, loss: float) -> float:
        """A loss as a change of the usual."""
        return loss if self.kind.rises else -loss

    def _follow(self, t_s: int, loss: float) -> None:
        """Keep how deep it went, and from when to when it lay within a tenth of that."""
        self.now_s = t_s
        self._run.append((t_s, loss))
        if self.half_gone_s is None and loss >= 1 - RETURNED:
            self.half_gone_s = t_s
        self._gravest = max(self._gravest, self.machine.state, key=GRAVITY.__getitem__)
        self.worst = max(self.worst, (loss, t_s), key=lambda one: one[0])
        if self.worst[0] > self._scanned * 1.01:
            self._scanned = self.worst[0]
            self.deep = (next(at for at, one in self._run if one >= DEEP_SHARE * self._scanned), t_s)
        elif loss >= DEEP_SHARE * self._scanned:
            self.deep = (self.deep[0], t_s)

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case Raised():
                    self.raised, self._gravest, self._lines = change, self.machine.state, [self._why(change)]
                    self.worst, self._scanned = (change.loss, change.t_s), 0.0
                    self._run.clear()
                case Restoring(t_s=t_s):
                    self._lines.append(fact("half-back", t_s))
                case FellAgain(t_s=t_s):
                    self._lines.append(fact("again", t_s))
                case Silent(t_s=t_s):
                    if self.raised is not None:
                        self._lines.append(fact("missing", t_s))
                case Ended(t_s=t_s, accepted=accepted):
                    assert self.raised is not None
                    if accepted:
                        self._lines.append(fact("accepted"))
                    self._past.append(Alarm(self.raised.t_s, t_s, self._gravest, self._evidence(ended=True)))
                    self.raised, self.half_gone_s, self.ended_s = None, None, t_s

    def _why(self, raised: Raised) -> Fact:
        kind = "value" if raised.sharp else "values"
        return fact(kind, raised.value, raised.usual, self.change(raised.loss), self.change(raised.threshold))

    def _evidence(self, *, ended: bool = False) -> tuple[Fact, ...]:
        lines = list(self._lines[:EVIDENCE_MAX])
        lines.insert(1, fact("worst", self.change(self.worst[0]), self.worst[1]))
        if not ended and self.machine.silent_since is not None and lines[-1].kind != "missing":
            lines.append(fact("missing", self.machine.silent_since))
        return tuple(lines)


class _Fused:
    """The country's own alarms, out of the states of its signals."""

    def __init__(self) -> None:
        self.state = State.NORMAL
        self._start_s = 0
        self._gravest = State.NORMAL
        self._lines: dict[str, Fact] = {}
        self._past: list[Alarm] = []
        self._hints: tuple[Fact, ...] = ()
        self._most_gone = 0

    def step(self, t_s: int, signals: Sequence[_Course], regions: Sequence[_Course]) -> None:
        before, self.state = self.state, decide([c.machine for c in signals], [c.signal for c in signals], self.state)
        if self.state is State.NORMAL:
            if before is not State.NORMAL:
                ends = [course.ended_s for course in signals if course.ended_s is not None]
                end_s = max([end for end in ends if end > self._start_s], default=t_s)
                self._past.append(Alarm(self._start_s, end_s, self._gravest, self._evidence()))
            return
        if before is State.NORMAL:
            self._start_s, self._gravest, self._lines, self._hints, self._most_gone = t_s, self.state, {}, (), 0
        elif self.state is not before and self.state is State.RESTORING:
            self._lines["restoring"] = fact("restoring", t_s)
        if self.state is not State.RESTORING:
            self._lines.pop("restoring", None)
        self._gravest = max(self._gravest, self.state, key=GRAVITY.__getitem__)
        live = sum(1 for course in signals if course.machine.silent_since is None)
        for course in signals:
            silent_s = course.machine.silent_since
            if course.raised is not None:
                self._lines[course.signal] = course.told()
            if silent_s is not None and live:
                self._lines[f"{course.signal} silent"] = fact("silent", course.signal, silent_s, live)
        gone = [course for course in regions if course.half_gone_s is not None]
        if len(gone) > self._most_gone:
            self._most_gone = len(gone)
            self._lines["regions"] = fact("regions", len(gone), len(regions), t_s)
        self._hints = (
            hints([course for course in signals if course.raised is not None], signals, regions) or self._hints
        )

    def alarms(self) -> tuple[Alarm, ...]:
        if self.state is State.NORMAL:
            return tuple(self._past)
        return (*self._past, Alarm(self._start_s, None, self._gravest, self._evidence()))

    def _evidence(self) -> tuple[Fact, ...]:
        return (*list(self._lines.values())[:EVIDENCE_MAX], *self._hints)


def decide(machines: Sequence[Detector], names: Sequence[str], before: State = State.NORMAL) -> State:
    """The country's state from its signals' machines and their names, in the same order, and what it was ``before``.

    In alarm is the country while a primary signal is that has lost as much as is an alarm at once, or any two. A signal
    that fell silent within its alarm counts as long as no primary one that reaches people is back to normal. Traffic to
    one company that alone is gone, while others reach people, may be that company's block: it degrades, and no more.

    The two series of heartbeats are one voice, since one node hears both: it may be the one that is cut off. Where one
    is gone while the other goes on, the node does hear, and they speak alone: never of more than a whitelist.
    """
    well = any(
        m.kind.primary and m.kind.reach and m.alarm_since is None and m.silent_since is None and m.judging
        for m in machines
    )
    alarmed = [m for m in machines if m.alarm_since is not None and not (well and m.silent_since is not None)]
    by_name = dict(zip(names, machines, strict=True))
    foreign, domestic = by_name.get(FOREIGN), by_name.get(DOMESTIC)
    cut_from_abroad = _gone_beside(foreign, domestic, alarmed, before)
    cut_within = _gone_beside(domestic, foreign, alarmed, before)
    beats = [m for m in alarmed if m.kind is HEARTBEATS]
    voices = len(alarmed) - max(len(beats) - 1, 0)
    lasting = before is not State.NORMAL and len(beats) > 1
    if (
        voices < ALARMS_MIN
        and not any(m.kind.primary and m.worst >= m.kind.sharp for m in alarmed)
        and not (cut_from_abroad or cut_within or lasting)
    ):
        return State.NORMAL
    if cut_from_abroad and foreign is not None and foreign.loss >= GONE:
        return State.WHITELIST
    if all(m.state is State.RESTORING for m in alarmed):
        return State.RESTORING
    if len(beats) == len(alarmed):
        return State.DEGRADED
    gone = [m for m in alarmed if m.kind.reach and m.loss >= GONE]
    cut = before in (State.ROUTES_UP, State.BLACKOUT) or not well or any(m.kind is not TRAFFIC for m in gone)
    if gone and cut:
        routes = [m for m in machines if m.kind is ROUTES and m.silent_since is None]
        return State.ROUTES_UP if routes and all(m.loss < 1 - RETURNED for m in routes) else State.BLACKOUT
    return State.DEGRADED


def _gone_beside(one: Detector | None, other: Detector | None, alarmed: Sequence[Detector], before: State) -> bool:
    """Whether one series of heartbeats was gone in its alarm while the other goes on as usual.

    When both fall silent within such an alarm, the node hears nobody for now, and knows nothing new.
    """
    if one is None or other is None or one not in alarmed or one.worst < GONE:
        return False
    deaf = one.silent_since is not None and before in (State.WHITELIST, State.DEGRADED, State.RESTORING)
    return other.alarm_since is None and not other.learning and (other.silent_since is None or deaf)


def hints(alarmed: Sequence[_Course], signals: Sequence[_Course], regions: Sequence[_Course]) -> tuple[Fact, ...]:
    """What the course of the alarm looks like, each with the figures it rests on; nothing when it looks like nothing.

    Ordered: nearly all gone within 90 minutes and flat for six hours and more, while the routes are known to be up: a
    switch, where batteries hold out for hours when a grid fails. Without a signal of routes nothing tells them apart.
    Power: it comes back by and by, for longer than it lay at the bottom, and it was no switch. Cable: a part is gone,
    abroad only, or with the latency up.
    """
    reaching = [course for course in alarmed if course.kind.reach and course.raised is not None]
    if not reaching:
        return ()
    leading = max(reaching, key=lambda course: (course.kind.primary and course.kind is not REGIONS, course.worst[0]))
    assert leading.raised is not None
    worst, (deep_s, last_s) = leading.worst[0], leading.deep
    fall_s, held_s, back_s = deep_s - leading.raised.t_s, last_s - deep_s, leading.now_s - last_s
    spread = _spread(regions)
    more = "-regions" if spread else ""
    routes = [course for course in signals if course.kind is ROUTES and course.machine.silent_since is None]
    kept = bool(routes) and all(course.raised is None or course.worst[0] < ROUTES_KEPT_LOSS for course in routes)
    switched = worst >= SWITCHED_LOSS and fall_s <= max(SWITCHED_S, leading.step_s)
    if kept and switched and held_s >= HELD_S and held_s >= back_s:
        return (fact(f"like-ordered{more}", leading.signal, leading.change(worst), fall_s, held_s, *spread),)
    if worst >= 1 - RETURNED and back_s >= RETURN_S and back_s >= held_s and leading.machine.loss <= RETURNED * worst:
        return (fact(f"like-power{more}", leading.signal, held_s, back_s, *spread),)
    if 1 - GONE <= worst < GONE and held_s >= HELD_S and held_s >= back_s:
        latency = [course.signal for course in alarmed if course.kind is LATENCY]
        abroad = [course.signal for course in alarmed if course.kind is HEARTBEATS and course.signal == FOREIGN]
        if latency or abroad:
            with_it = ", ".join(latency + abroad)
            return (fact("like-cable", leading.signal, leading.change(worst), held_s, with_it),)
    return ()


def _spread(regions: Sequence[_Course]) -> tuple[int, ...]:
    """How many regions lost half, of how many, and within how many s nine in ten of them; nothing for too few."""
    times = sorted(course.half_gone_s for course in regions if course.half_gone_s is not None)
    if len(times) < WITNESSES_MIN:
        return ()
    spread_s = times[int(0.9 * (len(times) - 1))] - times[int(0.1 * (len(times) - 1))]
    return len(times), len(regions), spread_s


class Controls(Struct, frozen=True):
    """What a node reached just now: its gateway, a domestic and a foreign control target; None where not tried."""

    gateway: bool | None = None
    domestic: bool | None = None
    foreign: bool | None = None


def own_state(controls: Controls) -> State | None:
    """What this node may say of the network beyond its own; None when it may say nothing.

    Without its gateway a node knows only that its own line or router is down. What was not tried is not down.
    """
    if not controls.gateway:
        return None
    match controls.domestic, controls.foreign:
        case True, True:
            return State.NORMAL
        case True, False:
            return State.WHITELIST
        case False, True:
            return State.DEGRADED
        case False, False:
            return State.BLACKOUT
        case _:
            return None


class Statement(Struct, frozen=True):
    """What one witness says: an identity, the network (AS) it sits in, when (s UTC), and its ``own_state``.

    ``trust`` is how much its hearer gives to it, from 0 to 1; more is cut to 1.
    """

    witness: str
    network: str
    t_s: int
    state: State
    trust: float = 1.0


class Witnessed(Struct, frozen=True):
    """What witnesses say together: the state, networks that say so, and networks that said anything."""

    state: State | None
    agreeing: tuple[str, ...]
    reporting: tuple[str, ...]


def witnessed(statements: Iterable[Statement], now_s: int) -> Witnessed:
    """The country by its witnesses: an alarm needs WITNESSES_MIN distinct networks and more than half of all weight.

    Of each identity the newest statement of the last hour counts, once, whatever networks it names; a network weighs
    what its most trusted witness does, at most 1, however many sit in it. So neither one person with many keys in one
    network nor one key in many networks makes an outage. The state is the gravest that enough support, and a
    graver word supports a milder state.
    """
    newest: dict[str, Statement] = {}
    for statement in statements:
        if not now_s - STATEMENT_FRESH_S <= statement.t_s <= now_s + CLOCK_AHEAD_S or not statement.trust > 0:
            continue
        held = newest.get(statement.witness)
        if held is None or (statement.t_s, statement.network) > (held.t_s, held.network):
            newest[statement.witness] = statement
    networks: dict[str, dict[State, float]] = {}
    for statement in newest.values():
        said = networks.setdefault(statement.network, {})
        said[statement.state] = max(said.get(statement.state, 0.0), min(statement.trust, 1.0))
    # Within a network the more trusted word stands; of equals the milder one.
    word = {name: max(said, key=lambda state: (said[state], -GRAVITY[state])) for name, said in networks.items()}
    weight = {name: networks[name][word[name]] for name in word}
    total = sum(weight.values())
    reporting = tuple(sorted(word))
    for state in sorted(set(word.values()) - {State.NORMAL}, key=GRAVITY.__getitem__, reverse=True):
        agreeing = tuple(name for name in reporting if GRAVITY[word[name]] >= GRAVITY[state])
        if len(agreeing) >= WITNESSES_MIN and sum(weight[name] for name in agreeing) * 2 > total:
            return Witnessed(state, agreeing, reporting)
    return Witnessed(State.NORMAL if reporting else None, (), reporting)


def without_own_outage(points: Iterable[Point], outages: Sequence[tuple[int, int]]) -> list[Point]:
    """Rows that this node measured itself, missing where they overlap its own outages: (begin, end) in s UTC."""
    return [
        replace(row, value=None)
        if any(begin < row.t_s + row.step_s and row.t_s < end for begin, end in outages)
        else row
        for row in points
    ]


def _course(courses: dict[Key, _Course], point: Point) -> _Course:
    key = key_of(point)
    if key not in courses:
        courses[key] = _Course(point.signal, point.step_s)
    return courses[key]
