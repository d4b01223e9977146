"""One machine for each series: what is usual here at this hour, and when is it an alarm.

Usual is the median of the last 14 days at this hour of the day, noise is the median of how far values were off. Both
stand still while an alarm lasts: a rule whose window swallows the outage forgets it after some days. A level that stays
is taken as the new usual only when the operator says so. Time comes from the rows alone; a missing value changes
nothing but a count. Every constant has its reason in docs/spec/watch-signals.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from enum import StrEnum
from itertools import pairwise
from typing import Final, assert_never

from msgspec import Struct

from outlast.rooms.watch.proto.series import DAY_S, HOUR_S, Point

HISTORY_S: Final = 14 * DAY_S
HISTORY_MIN_POINTS: Final = 28
"""A daily series keeps four weeks: 14 values are too few for a median of deviations."""
STEP_MIN_S: Final = 60
"""Values closer than this are passed over: 14 days of minutes are as much history as a machine keeps."""
LEARN_S: Final = DAY_S
LEARN_POINTS: Final = 12
SEASON_DAYS: Final = 3
SEASON_STEP_MAX_S: Final = 6 * HOUR_S
SHARP_SIGMAS: Final = 6.0
SUSTAINED_SIGMAS: Final = 4.0
SIGMA_OF_MAD: Final = 1.4826
TAIL: Final = 0.98
TAIL_FACTOR: Final = 1.25
THRESHOLD_MAX: Final = 0.95
SCORE_MAX: Final = 6.9
SHARP_GRAINS: Final = 2.5
SUSTAINED_GRAINS: Final = 1.5
CONFIRM_POINTS: Final = 3
RECOVER_S: Final = 2 * HOUR_S
RECOVER_SHARE: Final = 0.75
GONE: Final = 0.75
RETURNED: Final = 0.5
SILENT_POINTS: Final = 3
COVERED: Final = 0.9
ACCEPT_POINTS: Final = 48


class State(StrEnum):
    """What a series or a country is in, from the design; the order of GRAVITY is how grave each is."""

    NORMAL = "normal"
    DEGRADED = "degraded"
    ROUTES_UP = "routes-up-traffic-down"
    WHITELIST = "whitelist"
    BLACKOUT = "blackout"
    RESTORING = "restoring"


GRAVITY: Final = {
    State.NORMAL: 0,
    State.RESTORING: 1,
    State.DEGRADED: 2,
    State.WHITELIST: 3,
    State.ROUTES_UP: 4,
    State.BLACKOUT: 5,
}


class Kind(Struct, frozen=True):
    """What a kind of signal counts, and which loss of it (a share of the usual) is an alarm.

    ``sharp``: one value suffices; ``sustained``: CONFIRM_POINTS in a row. ``rises``: more is worse. ``primary``: with
    ``sharp`` lost it speaks for a country alone; else two must agree. ``reach``: with it gone, people are cut off.
    """

    name: str
    sharp: float
    sustained: float
    primary: bool = False
    rises: bool = False
    reach: bool = True


ROUTES: Final = Kind("routes", sharp=0.05, sustained=0.01, primary=True, reach=False)
PROBING: Final = Kind("probing", sharp=0.20, sustained=0.10, primary=True)
REGIONS: Final = Kind("regions", sharp=0.20, sustained=0.10, primary=True)
TRAFFIC: Final = Kind("traffic", sharp=0.60, sustained=0.50, primary=True)
DARKNET: Final = Kind("darknet", sharp=0.75, sustained=0.60)
USERS: Final = Kind("users", sharp=0.75, sustained=0.50)
HEARTBEATS: Final = Kind("heartbeats", sharp=0.75, sustained=0.50)
SERVICES: Final = Kind("services", sharp=0.75, sustained=0.50, reach=False)
TOOLS: Final = Kind("tools", sharp=0.75, sustained=0.50, reach=False)
BLOCKING: Final = Kind("blocking", sharp=0.50, sustained=0.25, reach=False)
LATENCY: Final = Kind("latency", sharp=2.0, sustained=1.0, rises=True, reach=False)

REGIONS_UP: Final = "regions up"
"""The name of the share of a country's regions that have not lost half, after the name of their signal."""

_KINDS: Final = (
    ((REGIONS_UP,), REGIONS),
    (("bgp", "prefixes"), ROUTES),
    (("heartbeat",), HEARTBEATS),
    (("latency", "rtt", "loss", "delay"), LATENCY),
    (("ok-share",), BLOCKING),
    (("tor-", "ooni-"), TOOLS),
    (("telescope", "ucsd-nt", "merit-nt", "darknet"), DARKNET),
    (("probing", "ping-slash24", "connectivity"), PROBING),
    (("search",), TRAFFIC),
    (("google", "gtr"), SERVICES),
)


def kind_of(signal: str) -> Kind:
    """The kind of a signal by its name; what is unknown counts as ``users``, the most careful one."""
    name = signal.lower()
    return next((kind for words, kind in _KINDS if any(word in name for word in words)), USERS)


class LevelAccepted(Struct, frozen=True):
    """The operator says: what comes now is the new usual; at ``t_s`` s UTC."""

    t_s: int


class Raised(Struct, frozen=True):
    """An alarm begins at ``t_s``: the value, what is usual, the loss as a share of it, and the threshold it passed."""

    t_s: int
    value: float
    usual: float
    loss: float
    threshold: float
    sharp: bool


class Restoring(Struct, frozen=True):
    """Within an alarm at least half of the loss has come back, since ``t_s``."""

    t_s: int


class FellAgain(Struct, frozen=True):
    """Within an alarm, what had come back is gone again."""

    t_s: int


class Ended(Struct, frozen=True):
    """The alarm ended: values are usual since ``t_s``, or the operator accepted the level."""

    t_s: int
    accepted: bool = False


class Silent(Struct, frozen=True):
    """A series that used to report has said nothing since ``t_s``."""

    t_s: int


Event = Point | LevelAccepted
Change = Raised | Restoring | FellAgain | Ended | Silent


class Detector:
    """The machine of one series: rows in, changes out. Rows come in order; older and too close ones are ignored."""

    def __init__(self, kind: Kind, step_s: int) -> None:
        """A machine that knows nothing yet; ``step_s`` is the distance of the rows in s."""
        self.kind = kind
        self._step_s = max(step_s, STEP_MIN_S)
        self._history = _History(kind, self._step_s)
        self._last_s: int | None = None
        self._pending: list[tuple[Point, float]] = []
        self._back_since: int | None = None
        self._half_since: int | None = None
        self._alarmed: deque[Point] = deque(maxlen=ACCEPT_POINTS)
        self._missing = 0
        self._missing_since = 0
        self._worth_telling = False
        self._seen: deque[bool] = deque(maxlen=HISTORY_MIN_POINTS)
        self.state = State.NORMAL
        self.loss = 0.0
        self.worst = 0.0
        self.threshold = 0.0
        self.alarm_since: int | None = None
        self.silent_since: int | None = None

    @property
    def learning(self) -> bool:
        """Whether too little is known to judge: less than a day or fewer than LEARN_POINTS values."""
        return not self._history.enough

    @property
    def judging(self) -> bool:
        """Whether its silence means anything: it knows enough, and a loss of everything would be news here."""
        return self.alarm_since is not None or (self._history.enough and not self._history.often_all_gone)

    def step(self, event: Event) -> list[Change]:
        """Take one row or the operator's word; returns what changed, in order."""
        match event:
            case Point():
                if self._last_s is not None and event.t_s < self._last_s + STEP_MIN_S:
                    return []
                self._last_s = event.t_s
                if event.value is None:
                    return self._miss(event)
                self._missing = 0
                self.silent_since = None
                self._seen.append(True)
                return self._judge(event, event.value) if self._history.enough else self._learn(event)
            case LevelAccepted(t_s=t_s):
                return self._accept(t_s)
            case _:
                assert_never(event)

    def _miss(self, point: Point) -> list[Change]:
        if not self._missing:
            self._missing_since = point.t_s
            usually = bool(self._seen) and sum(self._seen) >= COVERED * len(self._seen)
            self._worth_telling = usually and self._history.enough
        self._missing += 1
        self._seen.append(False)
        if self._missing == SILENT_POINTS and self._worth_telling:
            self.silent_since = self._missing_since
            return [Silent(self._missing_since)]
        return []

    def _learn(self, point: Point) -> list[Change]:
        assert point.value is not None
        self._history.add(point.t_s, point.value, 0.0)
        return []

    def _judge(self, point: Point, value: float) -> list[Change]:
        usual = self._history.usual(point.t_s)
        score = score_of(value, usual, self.kind)
        self.loss = loss = share_of(score, self.kind)
        if self.alarm_since is not None:
            self._alarmed.append(point)
            return self._watch(point.t_s, loss)
        sharp, sustained = self._history.thresholds()
        if score >= sustained:
            self._pending.append((point, score))
            if score >= sharp or len(self._pending) >= CONFIRM_POINTS:
                return self._raise(point, value, usual, sharp if score >= sharp else sustained, sharp=score >= sharp)
            return []
        for held, held_score in self._pending:
            self._history.add(held.t_s, held.value or 0.0, held_score)
        self._pending.clear()
        self._history.add(point.t_s, value, score)
        return []

    def _raise(self, point: Point, value: float, usual: float, threshold: float, *, sharp: bool) -> list[Change]:
        self.worst = share_of(max(score for _, score in self._pending), self.kind)
        self.alarm_since, self.threshold = point.t_s, share_of(self._history.thresholds()[1], self.kind)
        self._alarmed.extend(held for held, _ in self._pending)
        self._pending.clear()
        self._back_since = self._half_since = None
        self.state = self._depth(self.loss)
        return [Raised(point.t_s, value, usual, self.loss, share_of(threshold, self.kind), sharp)]

    def _watch(self, t_s: int, loss: float) -> list[Change]:
        self.worst = max(self.worst, loss)
        if loss >= self.threshold * RECOVER_SHARE:
            self._back_since = None
        else:
            self._back_since = t_s if self._back_since is None else self._back_since
            long_s = max(RECOVER_S, (CONFIRM_POINTS - 1) * self._step_s)
            return [self._end(self._back_since)] if t_s - self._back_since >= long_s else []
        if loss > self.worst * RETURNED:
            self._half_since = None
            was, self.state = self.state, self._depth(loss)
            return [FellAgain(t_s)] if was is State.RESTORING else []
        self._half_since = t_s if self._half_since is None else self._half_since
        if self.state is not State.RESTORING and t_s - self._half_since >= (CONFIRM_POINTS - 1) * self._step_s:
            self.state = State.RESTORING
            return [Restoring(self._half_since)]
        return []

    def _depth(self, loss: float) -> State:
        gone = loss >= GONE and (self.kind.reach or self.kind is ROUTES)
        return State.BLACKOUT if gone else State.DEGRADED

    def _end(self, t_s: int, *, accepted: bool = False) -> Ended:
        self.alarm_since = self._back_since = self._half_since = None
        self.state, self.loss, self.worst = State.NORMAL, 0.0, 0.0
        self._alarmed.clear()
        return Ended(t_s, accepted)

    def _accept(self, t_s: int) -> list[Change]:
        """The values of the alarm become the history; without an alarm everything is learnt anew."""
        kept = list(self._alarmed)
        alarmed = self.alarm_since is not None
        self._history = _History(self.kind, self._step_s)
        self._pending.clear()
        for point in kept:
            self._learn(point)
        return [self._end(t_s, accepted=True)] if alarmed else []


def score_of(value: float, usual: float, kind: Kind) -> float:
    """How bad a value is: the logarithm of usual / value (the other way where more is worse), within SCORE_MAX.

    Noise of counts is a share of them, so it is symmetrical in logarithms, and six times a large noise still leaves
    room for an alarm: on a scale of shares it would lie beyond a loss of everything.
    """
    if usual <= 0:
        return 0.0
    ratio = value / usual if kind.rises else usual / value if value > 0 else math.inf
    return min(
        max(math.log(ratio) if 0 < ratio < math.inf else math.copysign(SCORE_MAX, ratio - 1), -SCORE_MAX), SCORE_MAX
    )


def share_of(score: float, kind: Kind) -> float:
    """A score as the share of the usual that is gone, or has come on top where more is worse."""
    return math.expm1(score) if kind.rises else -math.expm1(-score)


def _score_of_share(share: float, kind: Kind) -> float:
    return math.log1p(share) if kind.rises else -math.log1p(-share)


class _History:
    """The last values, by hour of the day; the window is counted in values learnt, so that no gap empties it."""

    def __init__(self, kind: Kind, step_s: int) -> None:
        self._kind = kind
        self._sharp, self._sustained = _score_of_share(kind.sharp, kind), _score_of_share(kind.sustained, kind)
        self._top = SCORE_MAX if kind.rises else _score_of_share(THRESHOLD_MAX, kind)
        per_day = max(DAY_S // step_s, 1)
        self._max = max(HISTORY_S // step_s, HISTORY_MIN_POINTS)
        self._learn_points = max(LEARN_POINTS, LEARN_S // step_s)
        # Three days, so that the median of an hour and its neighbours is not that of one bad day.
        self._season_points = SEASON_DAYS * per_day if step_s <= SEASON_STEP_MAX_S else self._max + 1
        self._seasonal = False
        self._grain = 0.0  # the smallest difference between two values: what the scale of the file can tell apart
        self._width_s = max(step_s, HOUR_S)
        self._slots: list[list[float]] = [[] for _ in range(-(-DAY_S // self._width_s))]
        self._kept: deque[tuple[int, float, float]] = deque()
        self._values: list[float] = []
        self._off: list[float] = []  # how far values were off, either way
        self._bad: list[float] = []  # how far on the bad side

    @property
    def enough(self) -> bool:
        return len(self._kept) >= self._learn_points

    def add(self, t_s: int, value: float, score: float) -> None:
        """Take a usual value; ``score`` is how it was judged when it came."""
        if len(self._kept) >= self._max:
            self._forget(*self._kept.popleft())
        self._kept.append((t_s, value, score))
        insort(self._values, value)
        for slot in self._near(t_s):
            insort(slot, value)
        insort(self._off, abs(score))
        insort(self._bad, max(score, 0.0))
        if len(self._kept) in (self._learn_points, self._season_points):
            self._seasonal = len(self._kept) >= self._season_points
            self._judge_again()

    def usual(self, t_s: int) -> float:
        """The median at this hour of the day and its neighbours; of all values while there are fewer than 3 days."""
        if self._seasonal:
            slot = self._slots[t_s % DAY_S // self._width_s]
            if len(slot) >= CONFIRM_POINTS:
                return _middle(slot)
        return _middle(self._values)

    @property
    def often_all_gone(self) -> bool:
        """Whether two usual values, and more than one in fifty, are as low as the highest threshold may be."""
        return len(self._bad) - bisect_left(self._bad, self._top) > max(1, (1 - TAIL) * len(self._bad))

    def thresholds(self) -> tuple[float, float]:
        """(sharp, sustained) as scores: the kind's own, or more where this series is noisier or coarser than that."""
        if self.often_all_gone:
            return math.inf, math.inf
        # Of fewer than fifty values the worst counts: it may be the one night that was seen.
        worst = self._bad[min(math.ceil(TAIL * len(self._bad)), len(self._bad) - 1)]
        sigma, tail = SIGMA_OF_MAD * _middle(self._off), TAIL_FACTOR * worst
        middle = _middle(self._values)
        grain = self._grain / middle if middle > 0 else 0.0
        top = self._top
        return (
            min(max(self._sharp, SHARP_SIGMAS * sigma, tail, self._coarse(SHARP_GRAINS * grain)), top),
            min(max(self._sustained, SUSTAINED_SIGMAS * sigma, tail, self._coarse(SUSTAINED_GRAINS * grain)), top),
        )

    def _coarse(self, share: float) -> float:
        return _score_of_share(min(share, THRESHOLD_MAX), self._kind)

    def _judge_again(self) -> None:
        # What is usual has become known, or is now known by the hour: deviations from the old notion mean nothing.
        self._grain = min(
            (later - earlier for earlier, later in pairwise(self._values) if later > earlier), default=0.0
        )
        kept = [(t_s, value, score_of(value, self.usual(t_s), self._kind)) for t_s, value, _ in self._kept]
        self._kept = deque(kept)
        self._off = sorted(abs(score) for _, _, score in kept)
        self._bad = sorted(max(score, 0.0) for _, _, score in kept)

    def _forget(self, t_s: int, value: float, score: float) -> None:
        _remove(self._values, value)
        for slot in self._near(t_s):
            _remove(slot, value)
        _remove(self._off, abs(score))
        _remove(self._bad, max(score, 0.0))

    def _near(self, t_s: int) -> list[list[float]]:
        at, count = t_s % DAY_S // self._width_s, len(self._slots)
        return [self._slots[place] for place in {(at - 1) % count, at, (at + 1) % count}]


def _middle(ordered: list[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _remove(ordered: list[float], value: float) -> None:
    del ordered[bisect_left(ordered, value)]
