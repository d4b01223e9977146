"""The chooser: candidates race, proof wins, what fails is left and looked at again, and a network is remembered."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.rooms.reach.proto.chooser import (
    ATTEMPT_LIMIT_S,
    MEMORY_DAYS,
    NETWORKS_MAX,
    PROOF_WAIT_S,
    STAGGER_S,
    STRIKES,
    WORKED_MAX,
    AllWanted,
    Candidate,
    Chooser,
    Command,
    Doubted,
    Drop,
    Event,
    Failed,
    LedNowhere,
    Lost,
    NetworkChanged,
    Offered,
    Passed,
    Remember,
    State,
    Stop,
    StreamFailed,
    StreamWorked,
    Try,
    Use,
    Wake,
    Wanted,
    Woke,
    Worked,
    fresh,
    network_key,
)

TODAY = 20_779
HOME = "home"


def chooser(
    *candidates: Candidate, memory: dict[str, tuple[Worked, ...]] | None = None
) -> tuple[Chooser, list[Command]]:
    """A chooser without jitter that was just offered these."""
    made = Chooser(lambda: 0.5, HOME, TODAY, memory)
    return made, made.step(Offered(candidates), 0.0)


def ids(commands: list[Command], kind: type) -> list[str]:
    return [command.id for command in commands if isinstance(command, kind)]


WEB, WEB2, WEB3 = (Candidate(f"web{number}", "web") for number in range(3))
SS, TOR = Candidate("ss", "ss", 1), Candidate("tor", "tor", 2)
DIRECT = Candidate("direct", "tricks", last_resort=True)


# ---- scripts ----


def test_candidates_start_a_quarter_of_a_second_apart_and_the_first_that_proves_itself_stops_the_others() -> None:
    machine, out = chooser(WEB, SS, TOR)
    assert out == [Try("web0"), Wake(0.25)]
    assert machine.step(Woke(), 0.25) == [Try("ss"), Wake(0.5)]
    out = machine.step(Passed("ss", proof=True), 0.4)
    assert out == [Use("ss"), Remember(HOME, (Worked("ss", TODAY),)), Stop("web0"), Wake(None)]
    assert machine.using == "ss"


def test_a_failure_starts_the_next_candidate_at_once() -> None:
    machine, _ = chooser(WEB, SS)
    assert ids(machine.step(Failed("web0", "refused"), 0.1), Try) == ["ss"]


def test_kinds_take_turns_and_last_resorts_come_last() -> None:
    machine, _ = chooser(WEB, WEB2, WEB3, DIRECT, SS, TOR)
    assert [one.id for one in machine.standings()] == ["web0", "ss", "tor", "web1", "web2", "direct"]


def test_what_worked_on_this_network_comes_first() -> None:
    memory = {HOME: (Worked("tor", TODAY - 1), Worked("web2", TODAY - 2)), "cafe": (Worked("ss", TODAY),)}
    machine, out = chooser(WEB, WEB2, WEB3, SS, TOR, memory=memory)
    assert ids(out, Try) == ["tor"]
    assert [one.id for one in machine.standings()] == ["tor", "web2", "ss", "web0", "web1"]


def test_a_first_byte_is_used_until_something_proves_itself() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Woke(), 0.25)
    machine.step(Passed("ss", proof=False), 0.3)
    assert machine.using is None
    assert machine.step(Woke(), PROOF_WAIT_S)[0] == Use("ss")
    out = machine.step(Passed("web0", proof=True), 2.9)
    assert out[:2] == [Drop("ss"), Use("web0")]
    assert machine.using == "web0"


def test_a_first_byte_waits_for_those_that_may_prove_themselves_and_for_nobody_else() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Woke(), 0.25)
    machine.step(Passed("ss", proof=False), 0.3)
    assert machine.step(Failed("web0", "refused"), 0.4)[0] == Use("ss")
    machine, _ = chooser(WEB, SS)
    machine.step(Woke(), 0.25)
    machine.step(Passed("ss", proof=False), 0.3)
    assert ids(machine.step(Passed("web0", proof=True), 1.7), Use) == ["web0"]


def test_a_first_byte_does_not_take_over_from_proof() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Failed("web0", "refused"), 0.1)
    machine.step(Passed("ss", proof=True), 0.2)
    assert ids(machine.step(Woke(), 40.0), Try) == ["web0"]
    assert not ids(machine.step(Passed("web0", proof=False), 40.1), Use)
    assert machine.using == "ss"


def test_without_any_that_works_rounds_follow_with_growing_pauses_that_a_waiting_person_shortens() -> None:
    machine, _ = chooser(WEB)
    now, starts = 0.0, []
    for _ in range(5):
        out = machine.step(Failed("web0", "syn-drop"), now)
        wake = next(command for command in out if isinstance(command, Wake))
        assert wake.at_s is not None
        starts.append(wake.at_s - now)
        now = wake.at_s
        assert ids(machine.step(Woke(), now), Try) == ["web0"]
    assert starts == [1, 2, 4, 8, 16]
    machine.step(Failed("web0", "syn-drop"), now)
    assert machine.step(Wanted(), now + 0.1) == [Wake(now + 1)]


def test_a_bridge_that_passes_every_test_and_carries_no_stream_is_left_for_one_that_passes_later() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    started = [ids(machine.step(StreamFailed("web0"), 5.0), Try) for _ in range(STRIKES + 1)]
    assert started == [[], [], ["ss"], []]
    assert not ids(machine.step(Woke(), 5.9), Try)
    out = machine.step(Passed("ss", proof=True), 6.0)
    assert (ids(out, Drop), ids(out, Use)) == (["web0"], ["ss"])


def test_a_bridge_that_leads_nowhere_is_left_for_one_that_passes_and_kept_where_there_is_none() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    assert ids(machine.step(LedNowhere("web0"), 5.0), Try) == ["ss"]
    assert machine.using == "web0"
    assert ids(machine.step(Passed("ss", proof=True), 5.5), Use) == ["ss"]
    assert ids(machine.step(LedNowhere("web0"), 6.0), Try) == []  # of one that is not used it means nothing
    assert ids(machine.step(LedNowhere("ss"), 7.0), Try) == ["web0"]
    assert ids(machine.step(Failed("web0", "syn-drop"), 8.0), Try) == ["ss"]
    assert ids(machine.step(Passed("ss", proof=True), 9.0), Use) == ["ss"]


def test_who_wants_to_know_has_all_others_tried_one_after_another_and_the_one_in_use_stays() -> None:
    machine, _ = chooser(WEB, SS, TOR)
    machine.step(Passed("web0", proof=True), 0.1)
    assert ids(machine.step(AllWanted(), 5.0), Try) == ["ss"]
    assert ids(machine.step(Failed("ss", "refused"), 6.0), Try) == ["tor"]
    out = machine.step(Passed("tor", proof=True), 7.0)
    assert (ids(out, Use), ids(out, Try), machine.using) == ([], [], "web0")


def test_who_wants_to_know_while_nothing_works_need_not_wait_for_the_next_round() -> None:
    machine, _ = chooser(WEB)
    machine.step(Failed("web0", "refused"), 1.0)
    assert ids(machine.step(AllWanted(), 1.1), Try) == ["web0"]


@pytest.mark.parametrize("others", [(DIRECT,), (DIRECT, SS)])
def test_streams_that_fail_force_nobody_to_a_last_resort(others: tuple[Candidate, ...]) -> None:
    machine, _ = chooser(WEB, *others)
    machine.step(Passed("web0", proof=True), 0.1)
    tried = [one for _ in range(STRIKES) for one in ids(machine.step(StreamFailed("web0"), 5.0), Try)]
    if SS in others:
        tried += ids(machine.step(Failed("ss", "refused"), 5.1), Try)
    assert tried == [*(one.id for one in others if one == SS), "web0"]
    assert ids(machine.step(Passed("web0", proof=True), 5.2), Use) == ["web0"]


def test_streams_that_fail_in_a_row_make_it_look_again_and_the_one_in_use_stays_until_its_test_fails() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    for _ in range(STRIKES - 1):
        assert not machine.step(StreamFailed("web0"), 5.0)
    machine.step(StreamWorked("web0"), 5.0)
    for _ in range(STRIKES - 1):
        assert not machine.step(StreamFailed("web0"), 6.0)
    assert ids(machine.step(StreamFailed("web0"), 6.0), Try) == ["ss"]
    assert ids(machine.step(Failed("ss", "refused"), 6.1), Try) == ["web0"]
    assert machine.using == "web0"
    out = machine.step(Failed("web0", "freeze@16000"), 6.2)
    assert ids(out, Drop) == ["web0"]
    assert ids(machine.step(Woke(), 7.2), Try) == ["web0"]
    assert ids(machine.step(Woke(), 7.5), Try) == ["ss"]
    assert machine.step(Passed("ss", proof=True), 7.6)[0] == Use("ss")


def test_one_that_was_doubted_wrongly_stays_with_the_carrier_of_its_test() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    for _ in range(STRIKES):
        machine.step(StreamFailed("web0"), 5.0)
    machine.step(Failed("ss", "refused"), 5.0)
    out = machine.step(Passed("web0", proof=True), 5.1)
    assert (ids(out, Use), ids(out, Drop)) == (["web0"], [])


def test_a_carrier_that_broke_is_dropped_at_once_and_the_race_begins() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    out = machine.step(Lost("web0", "unknown"), 9.0)
    assert (ids(out, Drop), ids(out, Try)) == (["web0"], ["web0"])
    assert machine.using is None


def test_what_failed_is_tried_again_in_the_background_one_at_a_time_and_ever_more_rarely() -> None:
    starts: dict[str, list[int]] = {"web0": [], "ss": [], "tor": []}
    most = 0

    def fates(id_: str, now: float) -> Fate:
        nonlocal most
        most = max(most, len(world.running) if now > 1 else 0)
        starts[id_].append(round(now))
        return fate_of(id_, id_ == "tor", 0.1, "soon")

    world = World(Chooser(lambda: 0.5, HOME, TODAY), fates)
    world.tell(Offered((WEB, SS, TOR)))
    world.run(10_000)
    pauses = [later - before for before, later in pairwise(starts["web0"])]
    assert pauses == [pytest.approx(pause, abs=1) for pause in (30, 60, 120, 240, 480, 960, *4 * [1800])]
    assert starts["tor"] == [0]
    assert (world.using, most) == ("tor", 1)


def test_what_is_tried_in_the_background_begins_anew_when_the_carrier_breaks_unless_it_is_slow() -> None:
    for limit_s, stopped in ((ATTEMPT_LIMIT_S, ["ss"]), (2 * ATTEMPT_LIMIT_S, [])):
        machine, _ = chooser(WEB, SS._replace(limit_s=limit_s))
        machine.step(Woke(), 0.25)
        machine.step(Failed("ss", "refused"), 0.3)
        machine.step(Passed("web0", proof=True), 0.4)
        assert ids(machine.step(Woke(), 100.0), Try) == ["ss"]
        out = machine.step(Lost("web0", "freeze@16000"), 103.0)
        assert ids(out, Stop) == stopped
        assert ids(machine.step(Woke(), 103.0 + STAGGER_S), Try) == stopped


def test_an_attempt_without_end_is_stopped() -> None:
    machine, _ = chooser(WEB)
    assert ids(machine.step(Woke(), ATTEMPT_LIMIT_S), Stop) == ["web0"]


def test_on_another_network_everything_is_open_again_and_what_is_used_is_used_until_something_passes() -> None:
    machine, _ = chooser(WEB, SS, memory={"cafe": (Worked("ss", TODAY),)})
    machine.step(Passed("web0", proof=True), 0.1)
    out = machine.step(NetworkChanged("cafe", TODAY), 60.0)
    assert ids(out, Try) == ["ss"]
    assert machine.using == "web0"
    out = machine.step(Passed("ss", proof=True), 60.3)
    assert (ids(out, Drop), ids(out, Use)) == (["web0"], ["ss"])


def test_a_candidate_that_is_taken_away_is_stopped_and_left() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    out = machine.step(Offered((SS,)), 1.0)
    assert (ids(out, Drop), ids(out, Try)) == (["web0"], ["ss"])
    assert ids(machine.step(Offered(()), 1.1), Stop) == ["ss"]


def test_what_a_stopped_attempt_still_says_changes_nothing() -> None:
    for late in (Passed("web0", proof=True), Passed("web0", proof=False), Failed("web0", "refused")):
        machine, _ = chooser(WEB, SS)
        machine.step(Woke(), 0.25)
        machine.step(Passed("ss", proof=True), 0.4)
        before = machine.standings()
        assert not machine.step(late, 0.5)
        assert (machine.using, machine.standings()) == ("ss", before)
        assert not machine.step(Passed("taken away", proof=True), 0.6)


def test_the_one_in_use_is_looked_at_with_all_others_when_it_is_doubted_and_nobody_else_is() -> None:
    machine, _ = chooser(WEB, SS)
    machine.step(Passed("web0", proof=True), 0.1)
    assert not machine.step(Doubted("ss"), 5.0)
    assert ids(machine.step(Doubted("web0"), 6.0), Try) == ["web0"]
    assert not machine.step(Doubted("web0"), 6.1), "it is looked at already"
    assert machine.using == "web0"


def test_one_that_is_offered_during_a_race_starts_in_its_turn() -> None:
    machine, _ = chooser(WEB, DIRECT)
    out = machine.step(Offered((WEB, DIRECT, SS)), 0.1)
    assert not ids(out, Try)
    assert [ids(machine.step(Woke(), at), Try) for at in (0.25, 0.5)] == [["ss"], ["direct"]]


def test_an_offer_begins_a_race_where_nothing_is_in_use_and_something_is_new() -> None:
    machine, _ = chooser(WEB)
    machine.step(Failed("web0", "refused"), 0.1)
    assert not machine.step(Offered((WEB,)), 0.2), "the next round comes in its time"
    assert ids(machine.step(Offered((SS, WEB)), 0.3), Try) == ["ss"]
    machine.step(Passed("ss", proof=True), 0.4)
    assert not ids(machine.step(Offered((SS, WEB, TOR)), 0.5), Try)
    assert machine.using == "ss"


def test_on_another_network_nothing_is_known_of_what_failed_before() -> None:
    machine, _ = chooser(WEB, SS, TOR)
    machine.step(Failed("web0", "refused"), 0.1)
    machine.step(Passed("ss", proof=True), 0.2)
    machine.step(NetworkChanged("cafe", TODAY), 60.0)
    states = {one.id: (one.state, one.failure) for one in machine.standings()}
    assert states["tor"] == (State.UNTRIED, "")
    assert states["web0"] == (State.TRYING, "")
    assert states["ss"][0] is State.IN_USE
    machine.step(Failed("web0", "refused"), 60.1)
    machine.step(Failed("tor", "refused"), 60.2)
    assert machine.step(Failed("ss", "refused"), 60.3)[0] == Drop("ss"), "it was looked at as well, and is out"


def test_a_screen_sees_each_step() -> None:
    machine, _ = chooser(WEB, SS, TOR)
    machine.step(Failed("web0", "syn-drop"), 0.1)
    web, ss, tor = (next(one for one in machine.standings() if one.id == id_) for id_ in ("web0", "ss", "tor"))
    assert (web.state, web.failure, web.since_s) == (State.FAILED, "syn-drop", 0.1)
    assert ss.state is State.TRYING
    assert (tor.state, tor.next_try_s) == (State.UNTRIED, 0.35)


# ---- memory ----


def test_a_network_has_another_name_under_another_key_and_never_its_own() -> None:
    name = network_key(bytes(32), "00:11:22:33:44:55", "Kupala", 6697)
    assert name == network_key(bytes(32), "00:11:22:33:44:55", "Kupala", 6697)
    assert name != network_key(b"\1" * 32, "00:11:22:33:44:55", "Kupala", 6697)
    assert name != network_key(bytes(32), "00:11:22:33:44:55", "Kupala")
    assert len(name) == 32


def test_what_worked_is_remembered_for_so_many_days_and_so_many_networks() -> None:
    oldest, older = Worked("web0", TODAY - MEMORY_DAYS), Worked("web0", TODAY - MEMORY_DAYS - 1)
    assert fresh({"a": (oldest,), "b": (older,), "c": (Worked("web0", TODAY + 1),)}, TODAY) == {"a": (oldest,)}
    full = {f"network {number}": (Worked("web0", TODAY - 1),) for number in range(1, NETWORKS_MAX)}
    machine, _ = chooser(WEB, memory={**full, "network 0": (Worked("web0", TODAY - 2),)})
    remembered = [one for one in machine.step(Passed("web0", proof=True), 0.1) if isinstance(one, Remember)]
    assert remembered == [Remember("network 0", ()), Remember(HOME, (Worked("web0", TODAY),))]
    machine, _ = chooser(WEB, memory=dict(list(full.items())[1:]) | {HOME: (Worked("web0", TODAY),)})
    assert not [one for one in machine.step(Passed("web0", proof=True), 0.1) if isinstance(one, Remember)]


@given(
    st.dictionaries(
        st.text("ab", min_size=1, max_size=4),
        st.lists(st.builds(Worked, st.text("xyz", max_size=3), st.integers(TODAY - 30, TODAY + 5)), max_size=30).map(
            tuple
        ),
        max_size=20,
    ),
    st.lists(st.tuples(st.text("ab", min_size=1, max_size=4), st.integers(0, 3)), max_size=20),
)
def test_memory_is_bounded_and_short_lived(memory: dict[str, tuple[Worked, ...]], moves: list[tuple[str, int]]) -> None:
    machine = Chooser(lambda: 0.5, HOME, TODAY, memory)
    machine.step(Offered(tuple(Candidate(f"c{number}", "web") for number in range(3))), 0.0)
    kept: dict[str, tuple[Worked, ...]] = {}
    today = TODAY
    for now, (network, later) in enumerate(moves, 1):
        today += later
        out = machine.step(NetworkChanged(network, today), float(now))
        for id_ in ids(out, Try):
            out += machine.step(Passed(id_, proof=True), float(now))
        for command in out:
            if isinstance(command, Remember):
                kept[command.network] = command.worked
    for worked in kept.values():
        assert len(worked) <= WORKED_MAX
        assert len({one.id for one in worked}) == len(worked)
        assert all(today - MEMORY_DAYS <= one.day <= today for one in worked)
    assert sum(map(bool, kept.values())) <= NETWORKS_MAX


# ---- against censors ----


@dataclass(frozen=True)
class Fate:
    """What an attempt at one candidate leads to: after so many seconds it passes, passes a first byte, or fails."""

    end: Passed | Failed | None
    after_s: float


@dataclass
class World:
    """Candidates behind a censor, and a clock that jumps from event to event."""

    machine: Chooser
    fates: Callable[[str, float], Fate]
    now: float = 0.0
    running: dict[str, int] = field(default_factory=dict)
    using: str | None = None
    passed: set[str] = field(default_factory=set)
    _numbers: count[int] = field(default_factory=count)
    _heap: list[tuple[float, int, Event]] = field(default_factory=list)
    _wake: int = -1

    def tell(self, event: Event) -> None:
        """Hand the machine an event and carry out what it says, checking that it may say so."""
        match event:
            case Passed(id_, _):
                self.passed.add(id_)
            case Failed(id_, _):
                self.passed.discard(id_)
        for command in self.machine.step(event, self.now):
            match command:
                case Try(id_):
                    assert id_ not in self.running
                    number = self.running[id_] = next(self._numbers)
                    fate = self.fates(id_, self.now)
                    if fate.end is not None:
                        heapq.heappush(self._heap, (self.now + fate.after_s, number, fate.end))
                case Stop(id_):
                    del self.running[id_]
                case Use(id_):
                    assert id_ in self.passed
                    assert self.using in (None, id_)
                    self.using = id_
                case Drop(id_):
                    assert self.using == id_
                    self.using = None
                case Wake(at_s):
                    self._wake = next(self._numbers)
                    if at_s is not None:
                        heapq.heappush(self._heap, (max(at_s, self.now), self._wake, Woke()))
                case Remember():
                    pass
        assert self.machine.using == self.using

    def run(self, until_s: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now, number, event = heapq.heappop(self._heap)
            if isinstance(event, Woke):
                if number == self._wake:
                    self.tell(event)
            elif isinstance(event, Passed | Failed) and self.running.get(event.id) == number:
                del self.running[event.id]
                self.tell(event)
        self.now = until_s


durations = st.floats(0.01, 1.99)
KINDS = ("web", "ss", "tor", "obfs4")


def fate_of(id_: str, works: bool, after_s: float, how: str) -> Fate:
    if works:
        return Fate(Passed(id_, proof=how != "first byte"), after_s)
    return Fate(None if how == "hangs" else Failed(id_, "refused"), after_s * 20 if how == "late" else after_s)


worlds = st.lists(
    st.tuples(
        st.booleans(), durations, st.sampled_from(["soon", "late", "hangs", "first byte"]), st.sampled_from(KINDS)
    ),
    min_size=1,
    max_size=64,
)


@settings(max_examples=100)
@given(worlds, st.randoms(use_true_random=False))
def test_whatever_subset_works_one_is_in_use_within_five_seconds(
    plan: list[tuple[bool, float, str, str]], chance: random.Random
) -> None:
    candidates = tuple(Candidate(f"c{number}", kind) for number, (*_, kind) in enumerate(plan))
    fates = {f"c{number}": fate_of(f"c{number}", *one[:3]) for number, one in enumerate(plan)}
    world = World(Chooser(chance.random, HOME, TODAY), lambda id_, _now: fates[id_])
    world.tell(Offered(candidates))
    world.run(5.0)
    assert (world.using is not None) == any(works for works, *_ in plan)
    # The censor changes the rules: what works now is what did not.
    world.run(400.0)
    fates = {f"c{number}": fate_of(f"c{number}", not one[0], *one[1:3]) for number, one in enumerate(plan)}
    if world.using is not None:
        world.tell(Lost(world.using, "freeze@16000"))
        world.run(405.0)
    else:
        world.tell(Wanted())
        world.run(400.0 + ATTEMPT_LIMIT_S + 7.0)
    assert (world.using is not None) == any(not works for works, *_ in plan)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stream failed", "stream worked", "doubted", "lost", "wanted", "move", "offer", "wait"]),
            st.integers(0, 7),
            st.floats(0, 50),
        ),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_it_never_rests_while_none_is_in_use(
    script: list[tuple[str, int, float]], chance: random.Random
) -> None:
    def fates(id_: str, _now: float) -> Fate:
        return fate_of(
            id_, chance.random() < 0.3, chance.uniform(0.01, 3), chance.choice(["soon", "hangs", "first byte"])
        )

    world = World(Chooser(chance.random, HOME, TODAY), fates)
    offered = tuple(Candidate(f"c{number}", KINDS[number % 4], last_resort=number == 7) for number in range(8))
    world.tell(Offered(offered))
    for what, number, later in script:
        id_ = world.using or f"c{number}"
        match what:
            case "stream failed":
                world.tell(StreamFailed(id_))
            case "stream worked":
                world.tell(StreamWorked(id_))
            case "doubted":
                world.tell(Doubted(id_))
            case "lost":
                world.tell(Lost(id_, "unknown"))
            case "wanted":
                world.tell(Wanted())
            case "move":
                world.tell(NetworkChanged(f"n{number % 3}", TODAY))
            case "offer":
                world.tell(Offered(offered[number:] or offered))
            case "wait":
                world.run(world.now + later)
        assert len(world.machine.standings()) <= len(offered)
    world.tell(Offered(offered))
    for _ in range(200):
        if world.using is not None:
            break
        world.run(world.now + 100)
    assert world.using is not None
