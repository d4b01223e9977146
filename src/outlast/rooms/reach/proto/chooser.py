"""Which way out is used: candidates race, the first that proves itself wins, and what worked is remembered.

The machine does nothing itself: ``step(event, now_s)`` takes what happened and returns commands, and whoever drives it
carries them out. Its law:

- A **race** starts the candidates one after another, 250 ms apart (less when there are many, so that all have started
  in 2.75 s), and the next at once when one fails (Outline's smart dialer; RFC 8305 §5). What worked on this network
  comes first, then the kinds take turns, so that no filter of one kind costs three starts. Last resorts come last.
- A test that moved 64 KB both ways is **proof**: its candidate is used, all others are stopped. A test that could only
  see a first byte is not, for filters freeze connections later: such a candidate waits for 2.5 s after the race's
  beginning while others may still prove themselves, then it is used while there is no better one, and the race goes on.
- While none is used the gate has no way out (it fails closed); rounds of the race follow one another with growing
  pauses, shortened while somebody waits.
- Streams that the carrier loses one after another make the one in use **suspect**: a new race runs, with it as one of
  the runners, and it is used until another passes its test or it fails its own. So does one that brings nothing of a
  page that is known to answer; what a target does is no fault of a carrier's. A carrier that broke is dropped at once.
- Candidates that failed are tried again in the background, one at a time, after 30 s to 30 min, doubled each time, with
  jitter. One that works again is noted, and changes nothing while the one in use works. When that one breaks, what is
  being tried so begins anew with the others, unless it is slow by nature.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, assert_never

STAGGER_S: Final = 0.25
ALL_STARTED_S: Final = 2.75
"""Within this time of a race's beginning its last candidate is started."""
PROOF_WAIT_S: Final = 2.5
"""So long after a race's beginning a first byte waits for somebody's proof: streams that begin on it would freeze."""
ATTEMPT_LIMIT_S: Final = 45.0
"""Attempts end by themselves; one that has not after this time is stopped."""
STRIKES: Final = 3
"""So many streams that fail in a row make the candidate in use suspect."""
ROUND_PAUSE_S: Final = (1.0, 60.0)
RETRY_S: Final = (30.0, 1800.0)
CANDIDATES_MAX: Final = 64
NETWORKS_MAX: Final = 8
WORKED_MAX: Final = 12
MEMORY_DAYS: Final = 14


class Candidate(NamedTuple):
    """A way out that can be tried."""

    id: str
    kind: str  # its transport, such as "web", "ss", "obfs4"
    rank: int = 0  # among those of which nothing is known, smaller ones come first
    last_resort: bool = False  # hides nothing, or costs somebody money: only when no other is left to start
    limit_s: float = ATTEMPT_LIMIT_S  # an attempt that takes longer is stopped


class Worked(NamedTuple):
    """That a bridge worked on a network, and on which day (days since 1970)."""

    id: str
    day: int


Memory = Mapping[str, tuple[Worked, ...]]
"""What worked, by network, the latest first. It tells who was where when: it is kept sealed and for 14 days."""


# ---- events ----


@dataclass(frozen=True, slots=True)
class Offered:
    """The candidates there are now; those of before that are missing are gone."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """This machine is on another network; ``network`` is what ``network_key`` gives."""

    network: str
    today: int


@dataclass(frozen=True, slots=True)
class Passed:
    """An attempt went well; ``proof`` is whether 64 KB went both ways."""

    id: str
    proof: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt failed."""

    id: str
    failure: str  # the name of its class


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """A person's stream failed for a reason that lies with the carrier: it was lost on the way to the bridge."""

    id: str


@dataclass(frozen=True, slots=True)
class LedNowhere:
    """Nothing came through the carrier from a page that is known to answer."""

    id: str


@dataclass(frozen=True, slots=True)
class StreamWorked:
    """Bytes came through the carrier."""

    id: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The carrier has no connection to its bridge at the moment, or failed a test; what it holds may yet go on."""

    id: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The carrier is broken for good; nothing can be sent through it."""

    id: str
    failure: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody waits for a way out."""


@dataclass(frozen=True, slots=True)
class AllWanted:
    """Somebody wants to know of each candidate how it stands now."""


@dataclass(frozen=True, slots=True)
class Woke:
    """The time of the last ``Wake`` has come."""


Event = (
    Offered
    | NetworkChanged
    | Passed
    | Failed
    | StreamFailed
    | LedNowhere
    | StreamWorked
    | Doubted
    | Lost
    | Wanted
    | AllWanted
    | Woke
)


# ---- commands ----


@dataclass(frozen=True, slots=True)
class Try:
    """Begin an attempt; its end comes back as Passed or Failed."""

    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the attempt that runs; nothing comes back."""

    id: str


@dataclass(frozen=True, slots=True)
class Use:
    """From now on streams go through this candidate, by the carrier of its last attempt."""

    id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """No stream goes through this candidate any more. When a ``Use`` follows, streams that run may end in peace."""

    id: str


@dataclass(frozen=True, slots=True)
class Remember:
    """What worked on a network: to be kept sealed, in place of what was kept for it."""

    network: str
    worked: tuple[Worked, ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Call with Woke at this time, and not at the one that was named before; None: at none."""

    at_s: float | None


Command = Try | Stop | Use | Drop | Remember | Wake


class State(StrEnum):
    """How a candidate stands."""

    UNTRIED = "untried"
    TRYING = "trying"
    WORKS = "works"
    FAILED = "failed"
    IN_USE = "in-use"


class Standing(NamedTuple):
    """How a candidate stands, for a screen; times are those of ``step``."""

    id: str
    state: State
    since_s: float
    failure: str  # of the last attempt; "" when it went well or there was none
    next_try_s: float | None


def network_key(key: bytes, gateway: str, ssid: str = "", asn: int = 0) -> str:
    """What a network is called: 32 hex digits, HMAC-SHA256 under a key (32 B) that never leaves this machine."""
    text = "\0".join(("outlast/reach/network/1", gateway, ssid, str(asn)))
    return hmac.new(key, text.encode("utf-8", "surrogateescape"), sha256).hexdigest()[:32]


class _Runner:
    """A candidate, and what became of it on this network."""

    def __init__(self, candidate: Candidate, now_s: float) -> None:
        self.candidate = candidate
        self.trying = False
        self.works = False
        self.since_s = now_s
        self.failure = ""
        self.failures = 0
        self.retry_at_s: float | None = None


class Chooser:
    """The machine; ``draw`` gives numbers from 0 to 1 for the jitter."""

    def __init__(self, draw: Callable[[], float], network: str, today: int, memory: Memory | None = None) -> None:
        """Begin without candidates on a network."""
        self._draw = draw
        self._network = network
        self._today = today
        self._memory = fresh(memory or {}, today)
        self._runners: dict[str, _Runner] = {}
        self._queue: list[str] = []  # of the race: who has not started yet
        self._racing = False
        self._raced_s = 0.0
        self._first: str | None = None  # the first that showed a first byte, while others may prove themselves
        self._next_start_s = 0.0
        self._rounds = 0
        self._round_over_s = 0.0
        self._next_round_s: float | None = None
        self._using: str | None = None
        self._proven = False
        self._suspect = False
        self._strikes = 0
        self._wake: float | None = None

    @property
    def using(self) -> str | None:
        """The candidate in use."""
        return self._using

    def step(self, event: Event, now_s: float) -> list[Command]:
        """What is to be done after an event; ``now_s`` never goes back."""
        out: list[Command] = []
        match event:
            case Offered(candidates):
                self._offer(candidates, now_s, out)
            case NetworkChanged(network, today):
                self._move(network, today, now_s, out)
            case Passed(id_, proof):
                self._pass(id_, proof, now_s, out)
            case Failed(id_, failure):
                self._fail(id_, failure, now_s, out)
            case StreamFailed(id_):
                if id_ == self._using:
                    self._strikes += 1
                    if self._strikes >= STRIKES:
                        self._prefer_others(id_, now_s)
            case LedNowhere(id_):
                if id_ == self._using:
                    self._prefer_others(id_, now_s)
            case Doubted(id_):
                if id_ == self._using:
                    self._doubt(now_s)
            case StreamWorked(id_):
                if id_ == self._using:
                    self._strikes = 0
            case Lost(id_, failure):
                self._lose(id_, failure, now_s, out)
            case Wanted():
                self._rounds = 0
                if self._next_round_s is not None:
                    self._next_round_s = min(self._next_round_s, self._round_over_s + ROUND_PAUSE_S[0])
            case AllWanted():
                self._try_all(now_s)
            case Woke():
                pass
            case never:
                assert_never(never)
        self._advance(now_s, out)
        wake = self._deadline()
        if wake != self._wake or isinstance(event, Woke):
            self._wake = wake
            out.append(Wake(wake))
        return out

    def standings(self) -> list[Standing]:
        """How each candidate stands, in the order in which a race would start them now."""
        found = []
        for id_ in self._ordered():
            runner = self._runners[id_]
            if id_ == self._using:
                state = State.IN_USE
            elif runner.trying:
                state = State.TRYING
            elif runner.works:
                state = State.WORKS
            else:
                state = State.FAILED if runner.failure else State.UNTRIED
            found.append(Standing(id_, state, runner.since_s, runner.failure, self._next_try(id_)))
        return found

    def _next_try(self, id_: str) -> float | None:
        runner = self._runners[id_]
        if runner.trying:
            return None
        if id_ in self._queue:
            return self._next_start_s + self._queue.index(id_) * self._stagger_s()
        return runner.retry_at_s if self._using else self._next_round_s

    # ---- what happened ----

    def _offer(self, candidates: Iterable[Candidate], now_s: float, out: list[Command]) -> None:
        there = {candidate.id: candidate for candidate in list(candidates)[:CANDIDATES_MAX]}
        for id_ in [id_ for id_ in self._runners if id_ not in there]:
            self._stop(id_, out)
            if id_ == self._using:
                self._leave(out)
            del self._runners[id_]
        new = [id_ for id_ in there if id_ not in self._runners]
        for id_, candidate in there.items():
            if id_ in self._runners:
                self._runners[id_].candidate = candidate
            else:
                self._runners[id_] = _Runner(candidate, now_s)
        self._queue = [id_ for id_ in self._queue if id_ in there]
        if self._racing:
            order = self._ordered()
            self._queue = sorted([*self._queue, *new], key=order.index)
        elif self._using is None and there and (new or self._next_round_s is None):
            self._race(now_s)

    def _move(self, network: str, today: int, now_s: float, out: list[Command]) -> None:
        self._today = today
        before, self._memory = self._memory, fresh(self._memory, today)
        out.extend(Remember(one, self._memory.get(one, ())) for one in before if before[one] != self._memory.get(one))
        if network == self._network:
            return
        self._network = network
        for id_, runner in self._runners.items():
            self._stop(id_, out)
            if id_ != self._using:
                self._runners[id_] = _Runner(runner.candidate, now_s)
        # What is used may go on working: it is one of those that run.
        self._suspect = self._using is not None
        self._rounds = 0
        self._race(now_s)

    def _pass(self, id_: str, proof: bool, now_s: float, out: list[Command]) -> None:
        runner = self._runners.get(id_)
        if runner is None or not runner.trying:
            return
        runner.trying, runner.works, runner.since_s = False, True, now_s
        runner.failure, runner.failures, runner.retry_at_s = "", 0, None
        if self._using is not None and not self._suspect and not (proof and not self._proven):
            return
        if self._using is None and not proof and self._proof_may_come(now_s):
            self._first = self._first or id_
            return
        self._take(id_, proof, out)
        if proof:
            self._remember(id_, out)
            self._racing = False
            self._queue.clear()
            for other in self._runners:
                self._stop(other, out)

    def _take(self, id_: str, proof: bool, out: list[Command]) -> None:
        if self._using not in (None, id_):
            self._leave(out)
        if self._using is None or self._suspect:
            out.append(Use(id_))
        self._using, self._proven, self._first = id_, proof, None
        self._suspect, self._strikes, self._rounds, self._next_round_s = False, 0, 0, None

    def _proof_may_come(self, now_s: float) -> bool:
        others = (self._runners[id_] for id_ in self._queue), (one for one in self._runners.values() if one.trying)
        able = any(not one.candidate.last_resort for some in others for one in some)
        return able and now_s < self._raced_s + PROOF_WAIT_S

    def _fail(self, id_: str, failure: str, now_s: float, out: list[Command]) -> None:
        runner = self._runners.get(id_)
        if runner is None or not runner.trying:
            return
        self._note_failure(runner, failure, now_s)
        if id_ == self._using and self._suspect:
            self._leave(out)
        self._next_start_s = min(self._next_start_s, now_s)

    def _doubt(self, now_s: float) -> None:
        if not self._suspect:
            self._suspect = True
            self._race(now_s)

    def _prefer_others(self, id_: str, now_s: float) -> None:
        if self._suspect:
            return
        self._doubt(now_s)
        # Its test may go well all the same: a bridge answers that itself, also when it leads nowhere.
        # So equals come first; last resorts do not, else whoever makes streams fail could force them.
        equal = [one for one in self._queue if not self._runners[one].candidate.last_resort]
        self._queue = [one for one in equal if one != id_] or self._queue

    def _try_all(self, now_s: float) -> None:
        for runner in self._runners.values():
            if not runner.trying:
                runner.failures, runner.retry_at_s = 0, now_s
        if self._using is None and not self._racing:
            self._rounds = 0
            self._race(now_s)

    def _lose(self, id_: str, failure: str, now_s: float, out: list[Command]) -> None:
        if id_ != self._using:
            return
        self._stop(id_, out)
        self._note_failure(self._runners[id_], failure, now_s)
        self._leave(out)
        if not self._racing:
            # What is tried in the background may hang in what the censor did before. What is slow by nature goes on.
            for other, runner in self._runners.items():
                if runner.candidate.limit_s <= ATTEMPT_LIMIT_S:
                    self._stop(other, out)
        self._rounds = 0
        self._race(now_s)

    # ---- what follows ----

    def _note_failure(self, runner: _Runner, failure: str, now_s: float) -> None:
        runner.trying, runner.works, runner.since_s, runner.failure = False, False, now_s, failure
        least, most = RETRY_S
        runner.retry_at_s = now_s + min(most, least * 2.0 ** min(runner.failures, 16)) * (0.75 + 0.5 * self._draw())
        runner.failures += 1

    def _leave(self, out: list[Command]) -> None:
        if self._using is not None:
            out.append(Drop(self._using))
        self._using, self._proven, self._suspect, self._strikes = None, False, False, 0

    def _stop(self, id_: str, out: list[Command]) -> None:
        runner = self._runners[id_]
        if runner.trying:
            runner.trying = False
            out.append(Stop(id_))

    def _race(self, now_s: float) -> None:
        self._racing, self._raced_s, self._first = True, now_s, None
        self._queue = [id_ for id_ in self._ordered() if not self._runners[id_].trying]
        self._next_start_s = now_s
        self._next_round_s = None

    def _stagger_s(self) -> float:
        return min(STAGGER_S, ALL_STARTED_S / max(1, len(self._runners)))

    def _advance(self, now_s: float, out: list[Command]) -> None:
        for id_, runner in self._runners.items():
            if runner.trying and now_s >= runner.since_s + runner.candidate.limit_s:
                out.append(Stop(id_))
                self._fail(id_, "unknown", now_s, out)
        if self._first is not None and not self._proof_may_come(now_s):
            first, self._first = self._runners.get(self._first), None
            if self._using is None and first is not None and first.works:
                self._take(first.candidate.id, False, out)
        if not self._racing and self._next_round_s is not None and now_s >= self._next_round_s:
            self._race(now_s)
        while self._queue and now_s >= self._next_start_s:
            self._start(self._queue.pop(0), now_s, out)
            self._next_start_s = now_s + self._stagger_s()
        if any(runner.trying for runner in self._runners.values()) or self._queue:
            return
        if self._suspect and self._using is not None:  # no other one is better, so it is looked at itself
            self._start(self._using, now_s, out)
            return
        if self._racing:
            self._racing, self._round_over_s = False, now_s
        if self._using is None:
            if self._runners and self._next_round_s is None:
                least, most = ROUND_PAUSE_S
                pause_s = min(most, least * 2.0 ** min(self._rounds, 16)) * (0.75 + 0.5 * self._draw())
                self._next_round_s = self._round_over_s + max(least, pause_s)
                self._rounds += 1
            return
        waiting = [(at, id_) for id_, at in self._retries()]
        if waiting and min(waiting)[0] <= now_s:
            self._start(min(waiting)[1], now_s, out)

    def _retries(self) -> Iterable[tuple[str, float]]:
        for id_, runner in self._runners.items():
            if runner.retry_at_s is not None and id_ != self._using:
                yield id_, runner.retry_at_s

    def _start(self, id_: str, now_s: float, out: list[Command]) -> None:
        runner = self._runners[id_]
        runner.trying, runner.since_s, runner.retry_at_s = True, now_s, None
        out.append(Try(id_))

    def _deadline(self) -> float | None:
        limits = [one.since_s + one.candidate.limit_s for one in self._runners.values() if one.trying]
        if self._queue:
            limits.append(self._next_start_s)
        if self._first is not None:
            limits.append(self._raced_s + PROOF_WAIT_S)
        if limits:
            return min(limits)
        if self._using is None:
            return self._next_round_s
        return min((at for _, at in self._retries()), default=None)

    def _ordered(self) -> list[str]:
        worked = {one.id: place for place, one in enumerate(self._memory.get(self._network, ()))}
        unknown = len(worked)

        def place(runner: _Runner) -> tuple[bool, int, int, int]:
            candidate = runner.candidate
            known = worked.get(candidate.id, unknown)
            return candidate.last_resort, runner.failures if known == unknown else 0, known, candidate.rank

        left = sorted(self._runners.values(), key=place)
        order: list[str] = []
        turns: dict[str, int] = {}
        while left:
            # The best of the kind that had the fewest turns; last resorts wait until all others are through.
            best = min(left, key=lambda one: (one.candidate.last_resort, turns.get(one.candidate.kind, 0)))
            left.remove(best)
            turns[best.candidate.kind] = turns.get(best.candidate.kind, 0) + 1
            order.append(best.candidate.id)
        return order

    def _remember(self, id_: str, out: list[Command]) -> None:
        before = self._memory.get(self._network, ())
        worked = (Worked(id_, self._today), *(one for one in before if one.id != id_))[:WORKED_MAX]
        if worked == before:
            return
        others = {network: there for network, there in self._memory.items() if network != self._network}
        while len(others) >= NETWORKS_MAX:
            oldest = min(others, key=lambda network: max(one.day for one in others[network]))
            del others[oldest]
            out.append(Remember(oldest, ()))
        self._memory = {**others, self._network: worked}
        out.append(Remember(self._network, worked))


def fresh(memory: Memory, today: int) -> dict[str, tuple[Worked, ...]]:
    """What of a memory is not older than 14 days, and no more than its bounds allow."""
    found = {}
    for network, worked in memory.items():
        kept: dict[str, Worked] = {}
        for one in worked:
            if today - MEMORY_DAYS <= one.day <= today:
                kept.setdefault(one.id, one)
        if kept:
            found[network] = tuple(kept.values())[:WORKED_MAX]
    newest = sorted(found, key=lambda network: found[network][0].day, reverse=True)[:NETWORKS_MAX]
    return {network: found[network] for network in newest}
