"""Stories drawn from seeds: the real machines bring every town to what must be true, and broken ones do not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import pytest

from outlast.kernel import expiry, receiving, sending, steps, sync, wire
from outlast.kernel.entry import Entry
from outlast.kernel.steps import Fate, Ingest
from outlast.testing import MemoryShelf, Teller, shrink, write_script
from outlast.testing import shelf as shelves
from outlast.testing import town as towns
from outlast.testing.story import Drop, Follow, LetGo, Meet, Restart, SetClock, Share, Tidy, Wait, Write
from tests.town.telling import check_story, file_shelves, told

SEEDS = (6, 1, 0, 2, 3, 4, 5, 7, 8, 9, 10, 11)
"""At least one of them shows each planted fault: the first two do today, so that none is looked for long."""


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_to_a_town_all_who_can_meet_hold_what_they_must(seed: int) -> None:
    check_story(seed)


def test_the_same_story_happens_to_real_stores_and_their_views_are_those_folded_anew(tmp_path: Path) -> None:
    check_story(3, tmp_path)


def test_a_seed_tells_the_same_story_again() -> None:
    assert write_script(7) == write_script(7) != write_script(8)
    first, again = Teller(7), Teller(7)
    assert first.tell(write_script(7)) == again.tell(write_script(7)) == []
    assert first.written.keys() == again.written.keys()
    assert [place.received for place in first.town.places] == [place.received for place in again.town.places]


def test_stories_hold_all_that_they_are_to_try() -> None:
    scenes = [scene for seed in range(20) for scene in write_script(seed)]
    meanwhile = [happening for one in scenes if isinstance(one, Meet) for _, happening in one.meanwhile]
    assert {type(one).__name__ for one in scenes} >= {"Write", "Chain", "Meet", "Part", "Wait", "SetClock", "Follow"}
    assert {type(one) for one in meanwhile} >= {Write, Share, Tidy, Restart, Drop, LetGo, SetClock, Wait, Follow}
    assert any(one.narrow for one in scenes if isinstance(one, Meet))
    teller = Teller(0)
    teller.tell(write_script(0))
    entries = teller.written.values()
    chains = [(entry.header.author, entry.header.space, entry.header.seq) for entry in entries if entry.header.seq]
    assert len(chains) > len(set(chains)), "no chain forked"
    assert any(place.pruned_day for place in teller.town.places), "nothing was pruned"
    assert any(place.refused for place in teller.town.places), "nobody was too late"


# Planted faults: each must be seen


class Forgetful(MemoryShelf):
    """A store that says it is durable too soon: the last batch is gone after a restart."""

    def append(self, entries: Sequence[Entry]) -> None:
        self.last = [entry.id for entry in entries]
        super().append(entries)

    def reopen(self) -> None:
        for one in getattr(self, "last", ()):
            self.entries.pop(one, None)


class OneBranch(MemoryShelf):
    """A store that holds one entry for each place in a chain."""

    def append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            h = entry.header
            taken = [
                one
                for one in self.entries.values()
                if h.seq and (one.header.author, one.header.space, one.header.seq) == (h.author, h.space, h.seq)
            ]
            super().append([] if taken else [entry])


class Greedy(MemoryShelf):
    """A store that does not remember what it let go."""

    def let_go(self, ids: Collection[bytes]) -> None:
        super().let_go(ids)
        self.declined.clear()


def plant_greedy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(towns, "MemoryShelf", Greedy)


def plant_forgetful(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(towns, "MemoryShelf", Forgetful)


def plant_one_branch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(towns, "MemoryShelf", OneBranch)


def plant_silence(patch: pytest.MonkeyPatch) -> None:
    """A session that does not say what it lacks."""
    loaded = sending.Sending.loaded

    def silent(outbox: sending.Sending, entries: Iterable[Entry]) -> None:
        loaded(outbox, entries)

    patch.setattr(sending.Sending, "loaded", silent)


def plant_hasty(patch: pytest.MonkeyPatch) -> None:
    """A session that acknowledges what it has yet to make durable."""
    entries, piece = receiving.Receiving.entries, receiving.Receiving.piece
    hasty: deque[tuple[receiving.Receiving, Ingest]] = deque()

    def taken(inbox: receiving.Receiving, message: bytes) -> Ingest:
        ingest = entries(inbox, message)
        hasty.append((inbox, ingest))
        return ingest

    def taken_whole(inbox: receiving.Receiving, message: bytes, part: wire.Piece) -> Ingest | None:
        ingest = piece(inbox, message, part)
        if ingest is not None:
            hasty.append((inbox, ingest))
        return ingest

    take = sync.Session._take

    def taking(session: sync.Session, event: steps.Event) -> None:
        if isinstance(event, steps.Ingested):
            session._ingests.popleft()
            return
        take(session, event)
        while hasty:
            inbox, ingest = hasty.popleft()
            for message in inbox.ingested(ingest.entries, [Fate.KEPT] * len(ingest.entries)):
                session._out.append(steps.Send(message))

    patch.setattr(receiving.Receiving, "entries", taken)
    patch.setattr(receiving.Receiving, "piece", taken_whole)
    patch.setattr(sync.Session, "_take", taking)


def plant_own_clock(patch: pytest.MonkeyPatch) -> None:
    """A node that prunes by its own date alone."""
    patch.setattr(towns, "prune_before", lambda local, last, claims, confirmed: expiry.Prune(local))


def plant_peer_date(patch: pytest.MonkeyPatch) -> None:
    """A session that lets any date of the other side narrow what is reconciled."""
    arrived = sync.Session._hello_arrived

    def believing(session: sync.Session, hello: wire.Hello) -> None:
        session._today = hello.today
        arrived(session, hello)

    patch.setattr(sync.Session, "_hello_arrived", believing)


def plant_known_kinds_only(patch: pytest.MonkeyPatch) -> None:
    """A node that carries only what its rooms know."""
    ingest = towns.Place.ingest

    def choosy(place: towns.Place, entries: Sequence[Entry], source: bytes | None) -> list[Fate]:
        taken = [one for one in entries if one.header.kind == "genesis" or place.kinds.get(one.header.kind)]
        fates = dict(zip([one.id for one in taken], ingest(place, taken, source), strict=True))
        return [fates.get(one.id, Fate.REFUSED) for one in entries]

    patch.setattr(towns.Place, "ingest", choosy)


def plant_no_pull(patch: pytest.MonkeyPatch) -> None:
    """A session that never asks for a bucket of which it has nothing."""
    plan = sync.Session._plan

    def planned(session: sync.Session) -> None:
        plan(session)
        session._to_pull.clear()

    patch.setattr(sync.Session, "_plan", planned)


FAULTS = [
    plant_forgetful,
    plant_greedy,
    plant_one_branch,
    plant_silence,
    plant_hasty,
    plant_own_clock,
    plant_peer_date,
    plant_known_kinds_only,
    plant_no_pull,
]


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_a_planted_fault_is_seen(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(told(seed, write_script(seed)) for seed in SEEDS)


def test_a_view_that_forgets_to_forget_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "VIEWER", shelves.Room("town", 1, views=shelves.VIEWER.views, fold=keep_all))
    flaws = told(3, write_script(3), file_shelves(tmp_path))
    assert flaws
    assert all("folded anew" in flaw for flaw in flaws)


def keep_all(change: shelves.Change, rows: shelves.Rows) -> shelves.RowChanges:
    """A fold that leaves rows of what is gone."""
    return () if change.event is shelves.Event.EXPIRED else shelves.fold_entries(change, rows)


def test_a_failing_story_is_told_in_the_scenes_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_forgetful(monkeypatch)
    seed = next(seed for seed in sorted(SEEDS) if told(seed, write_script(seed)))
    script = shrink(write_script(seed), lambda shorter: bool(told(seed, shorter)))
    assert 1 <= len(script) <= 6
    assert told(seed, script)
    assert all(not told(seed, script[:at] + script[at + 1 :]) for at in range(len(script)))
