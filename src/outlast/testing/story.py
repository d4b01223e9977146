"""Stories: what happens in a town by chance, told to the real machines, and what must be true in the end.

A story is a list of events that stand for themselves, drawn from a seed: people write, chains fork because a device was
copied, nodes meet over links that lose messages or die at any of them, processes end in the middle of a session, clocks
are wrong by hours and (one in each town) by days or decades, the town is parted and joined again, payloads are dropped.
``tell`` lets all of it happen, then joins the town, lets everybody meet until nothing moves, and returns its flaws.

What must be true: no honest node is cut off, and who parts over a whole link parts in step. Nothing that was written
durably is missing anywhere where it is to be held: in every place that follows its space and did not let it go, unless
its day has passed for somebody. Nobody holds anything else. Nobody pruned a day that is not over. What one place takes
for copied is held where it says, or is over or was let go there. What was let go is not sent again. And once all are in
step a further round carries nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Final, assert_never

from outlast.kernel.entry import CHUNK_BYTES, DAY_MS, HOUR_MS, Entry
from outlast.kernel.space import NO_SPACE, space_of
from outlast.kernel.steps import CutOff, Limits
from outlast.testing.link import MemoryLink
from outlast.testing.shelf import Shelf
from outlast.testing.town import Meeting, Place, Town

PLACES: Final = 5
SPACES: Final = 2
SCENES: Final = 400
NARROW: Final = Limits(turn_bytes=6000, step_bytes=2048, priority_max=1)
_ROUNDS_MAX: Final = 6
_TURNS_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes."""

    ms: int


@dataclass(frozen=True, slots=True)
class Write:
    """A note; ``known`` False: of a kind that no place knows."""

    place: int
    space: int
    size: int = 10
    life_days: int = 20
    priority: int = 2
    known: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """A file in chunks of 64 KiB, of which many can be alike."""

    place: int
    space: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The next note in a chain of ``author``'s, written at ``place``: a copied device where the two differ."""

    place: int
    space: int
    author: int


@dataclass(frozen=True, slots=True)
class Follow:
    """A place follows a space from now on."""

    place: int
    space: int


@dataclass(frozen=True, slots=True)
class Tidy:
    """A place prunes; ``looked``: its owner looks at the clock first, and confirms it if it is right."""

    place: int
    looked: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """A place runs out of room and drops the payloads of so many entries, the oldest first."""

    place: int
    count: int


@dataclass(frozen=True, slots=True)
class LetGo:
    """A place runs out of room and lets go of so many entries that others wrote, the oldest first."""

    place: int
    count: int


@dataclass(frozen=True, slots=True)
class SetClock:
    """A clock is ahead by so much from now on (negative: behind)."""

    place: int
    skew_ms: int


@dataclass(frozen=True, slots=True)
class Restart:
    """A process ends, with every session that it has, and begins again."""

    place: int


@dataclass(frozen=True, slots=True)
class Part:
    """Until the next one of these only places of one group meet; without groups all do."""

    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Meet:
    """Sessions at one time between some pairs; ``meanwhile`` happens after so many turns of theirs.

    ``narrow``: over links so slow that a little is sent at a time, and only what is urgent is compared.
    """

    pairs: tuple[tuple[int, int], ...]
    delay_ms: int = 0
    loss: float = 0.0
    cut_after: int | None = None
    narrow: bool = False
    meanwhile: tuple[tuple[int, Happening], ...] = ()


Happening = Wait | Write | Share | Chain | Follow | Tidy | Drop | LetGo | SetClock | Restart
Scene = Happening | Part | Meet
Script = Sequence[Scene]


def write_script(seed: int) -> list[Scene]:
    """The script of a seed."""
    random = Random(f"story/{seed}")
    unlucky = random.randrange(PLACES)  # whose clock can be wrong by decades
    script: list[Scene] = [Follow(place, 0) for place in range(PLACES)]
    while len(script) < SCENES:
        chance = random.random()
        if chance < 0.45:
            script.append(_meet(random, unlucky))
        elif chance < 0.52:
            places = random.sample(range(PLACES), PLACES)
            cut = random.randrange(1, PLACES)
            script.append(Part((tuple(places[:cut]), tuple(places[cut:]))) if random.random() < 0.6 else Part())
        else:
            script.append(_happening(random, unlucky))
    return script


def _meet(random: Random, unlucky: int) -> Meet:
    everybody = list(combinations(range(PLACES), 2))
    turns = sorted(random.randrange(60) for _ in range(random.choice((0, 0, 1, 2, 4))))
    return Meet(
        tuple(random.sample(everybody, random.choice((1, 1, 1, 2, 4)))),
        delay_ms=random.choice((0, 0, 20, 900)),
        loss=random.choice((0, 0, 0.02, 0.2)),
        cut_after=random.choice((None, None, random.randrange(40))),
        narrow=random.random() < 0.15,
        meanwhile=tuple((turn, _happening(random, unlucky)) for turn in turns),
    )


def _happening(random: Random, unlucky: int) -> Happening:
    place, space = random.randrange(PLACES), random.randrange(SPACES)
    chance = random.random()
    if chance < 0.35:
        return Write(
            place,
            space,
            size=random.choice((10, 10, 10, 500, 3000, 50_000)),
            life_days=random.choice((1, 2, 5, 10, 20, 30)),
            priority=random.choice((0, 1, 2, 7)),
            known=random.random() < 0.8,
        )
    if chance < 0.39:
        return Share(place, space, random.choice((2, 3, 6)))
    if chance < 0.55:
        return Chain(place, space, place if random.random() < 0.7 else random.randrange(PLACES))
    if chance < 0.72:
        return Wait(random.choice((1, 1000, HOUR_MS, 10 * HOUR_MS, DAY_MS, 3 * DAY_MS)))
    if chance < 0.82:
        return Tidy(place, looked=random.random() < 0.5)
    if chance < 0.86:
        return Follow(place, space)
    if chance < 0.88:
        return Drop(place, random.randrange(1, 4))
    if chance < 0.90:
        return LetGo(place, random.randrange(1, 8))
    if chance < 0.95:
        return Restart(place)
    if random.random() < 0.5:
        far = (2 * DAY_MS, -2 * DAY_MS, 40 * DAY_MS, -40 * DAY_MS, 30 * 365 * DAY_MS, -30 * 365 * DAY_MS)
        return SetClock(unlucky, random.choice(far))
    return SetClock(place, random.randrange(-10, 11) * HOUR_MS)


class Teller:
    """Lets the scenes of a story happen in a town."""

    def __init__(self, seed: int, shelf: Callable[[str], Shelf] | None = None) -> None:
        """A town whose first place founded the spaces; its last place has no room for notes and carries them all the
        same.
        """
        self.town = Town(PLACES, seed, shelf)
        first, *_, last = self.town.places
        last.kinds = type(last.kinds)()
        self.spaces = [first.found(f"space {number}") for number in range(SPACES)]
        self.written: dict[bytes, Entry] = dict(first.entries)
        """All that was durable anywhere once."""
        self.dropped: set[bytes] = set()
        """What somebody dropped the payload of."""
        self.gone: dict[str, set[bytes]] = {place.name: set() for place in self.town.places}
        """What each place let go."""
        self.shared: dict[bytes, bytes] = {}
        """The content of files, by the id of their entries."""
        self.flaws: list[str] = []
        self._groups: tuple[tuple[int, ...], ...] = ()
        self._open: list[tuple[tuple[int, int], Meeting]] = []

    def tell(self, script: Script) -> list[str]:
        """All scenes, then the end; what is wrong, in lines."""
        for scene in script:
            match scene:
                case Part(groups):
                    self._groups = groups
                case Meet():
                    self._meet(scene)
                case _:
                    self._happen(scene)
        self._groups = ()
        self._settle()
        self._judge()
        return self.flaws

    def _happen(self, scene: Happening) -> None:
        town = self.town
        match scene:
            case Wait(ms):
                town.clock.advance(ms)
            case Write(place, space, size, life_days, priority, known):
                writer = town.places[place]
                text = "x" * size
                payload = None if known else text.encode()
                if self.spaces[space] in writer.followed:
                    self._wrote(
                        writer,
                        writer.post(self.spaces[space], text, life_days=life_days, priority=priority, payload=payload),
                    )
            case Share(place, space, chunks):
                writer = town.places[place]
                if self.spaces[space] in writer.followed:
                    content = b"".join(bytes([number % 2]) * CHUNK_BYTES for number in range(chunks))[:-1]
                    entry = writer.post_file(self.spaces[space], content)
                    self._wrote(writer, entry)
                    self.shared[entry.id] = content
            case Chain(place, space, author):
                writer = town.places[place]
                if self.spaces[space] in writer.followed:
                    text = f"{place} at {town.clock()}"
                    key = town.places[author].key
                    self._wrote(writer, writer.continue_chain(self.spaces[space], text, key))
            case Follow(place, space):
                town.places[place].followed.add(self.spaces[space])
            case Tidy(place, looked):
                one = town.places[place]
                one.tidy(confirmed=looked and abs(one.skew_ms) < DAY_MS)
            case Drop(place, count):
                shelf = town.places[place].shelf
                large = [entry for entry in shelf.entries.values() if entry.payload and len(entry.payload) > 1024]
                for entry in large[:count]:
                    shelf.drop_payload(entry.id)
                    self.dropped.add(entry.id)
            case LetGo(place, count):
                one = town.places[place]
                foreign = [
                    entry.id
                    for entry in one.entries.values()
                    if entry.header.author != one.key.public and entry.header.space != NO_SPACE
                ]
                one.shelf.let_go(foreign[:count])
                self.gone[one.name].update(foreign[:count])
            case SetClock(place, skew_ms):
                town.places[place].skew_ms = skew_ms
            case Restart(place):
                for pair, meeting in self._open:
                    if place in pair:
                        meeting.crash(pair.index(place))
                town.places[place].restart()
            case _:
                assert_never(scene)

    def _wrote(self, place: Place, entry: Entry) -> None:
        if place.shelf.known([entry.id]):
            self.written[entry.id] = entry

    def _meet(self, scene: Meet) -> None:
        """Hold all sessions of a scene at one time, and let happen what happens meanwhile."""
        town = self.town
        pairs = [pair for pair in scene.pairs if self._may_meet(*pair)]
        self._open = [
            (
                (a, b),
                town.meeting(
                    a,
                    b,
                    MemoryLink(
                        town.clock,
                        delay_ms=scene.delay_ms,
                        loss=scene.loss,
                        seed=number,
                        cut_after=scene.cut_after,
                    ),
                    limits=(NARROW, NARROW) if scene.narrow else None,
                ),
            )
            for number, (a, b) in enumerate(pairs)
        ]
        waiting = list(scene.meanwhile)
        for turn in range(_TURNS_MAX):
            while waiting and waiting[0][0] <= turn:
                self._happen(waiting.pop(0)[1])
            if any([meeting.turn() for _, meeting in self._open]):
                continue
            arrivals = [at for _, one in self._open if (at := one.link.next_arrival_ms()) is not None]
            if arrivals:
                town.clock.advance(max(0, min(arrivals) - town.clock()))
            elif waiting:
                self._happen(waiting.pop(0)[1])
            else:
                break
        else:
            self.flaws.append(f"{scene} does not come to rest")
        for pair, meeting in self._open:
            if meeting.link.open and meeting.in_step != [True, True]:
                self.flaws.append(f"{pair} have a whole link and are not in step: {meeting.in_step}")
            self.flaws += [f"{pair} cut off: {end.reason}" for end in meeting.ended if isinstance(end, CutOff)]
            gone = set[bytes]().union(*(self.gone[place.name] for place in meeting.places))
            for one in meeting.unfounded - gone:
                if not 0 < self.written[one].header.expires_day < max(place.pruned_day for place in meeting.places):
                    self.flaws.append(f"{pair} say of what is not durable that it is: {self._describe(one)}")
            meeting.end()
        self._open = []

    def _may_meet(self, a: int, b: int) -> bool:
        return not self._groups or any(a in group and b in group for group in self._groups)

    def _settle(self) -> None:
        """Everybody meets everybody until nothing moves."""
        before = -1
        places = self.town.places
        for _ in range(_ROUNDS_MAX):
            declined = [self.gone[place.name] - place.entries.keys() for place in places]
            for pair in combinations(range(PLACES), 2):
                self._meet(Meet((pair,)))
            for place, ids in zip(places, declined, strict=True):
                self._complain(place, "was sent again what it had let go,", ids & place.entries.keys())
            received = sum(place.received for place in places)
            if received == before:
                return
            before = received
        self.flaws.append(f"after {_ROUNDS_MAX} rounds of everybody with everybody entries still move")

    def _judge(self) -> None:
        town, held = self.town, [dict(place.entries) for place in self.town.places]
        true_day = town.clock.today
        floor = max(max(place.pruned_day, _day_within_reach(place, true_day)) for place in town.places)
        gone = set[bytes]().union(*self.gone.values())
        due = {
            one: entry
            for one, entry in self.written.items()
            if (entry.header.expires_day == 0 or entry.header.expires_day >= floor)
            and (one not in gone or any(one in entries for entries in held))
        }
        for place, entries in zip(town.places, held, strict=True):
            wanted = {one for one, entry in due.items() if space_of(entry) in place.followed} - self.gone[place.name]
            bare = [one for one in wanted & entries.keys() if entries[one].payload is None]
            self._complain(place, "lacks", wanted - entries.keys())
            self._complain(place, "lacks the payload of", set(bare) - self.dropped - gone)
            partial = [one for one in (wanted - gone) & self.shared.keys() if place.content(one) != self.shared[one]]
            self._complain(place, "lacks chunks of", partial)
            self._complain(place, "holds what nobody wrote,", entries.keys() - self.written.keys())
            if place.pruned_day > true_day + 1:
                self.flaws.append(f"{place.name} pruned up to day {place.pruned_day}, and it is {true_day}")
            for rule in {refusal.rule.name for refusal in place.refused} - {"EXPIRED"}:
                self.flaws.append(f"{place.name} refused honest entries: {rule}")
            for other, theirs in zip(town.places, held, strict=True):
                copied = {one for one, peers in place.copies.items() if other.transport in peers}
                over = {one for one in copied if 0 < self.written[one].header.expires_day < other.pruned_day}
                over |= self.gone[other.name]
                self._complain(place, f"took for copied to {other.name}", copied - theirs.keys() - over)
            views = place.shelf.views()
            if views is not None and views[0] != views[1]:
                self.flaws.append(f"{place.name}: the view folded anew is not the live one")

    def _complain(self, place: Place, what: str, ids: Iterable[bytes]) -> None:
        self.flaws += [f"{place.name} {what} {self._describe(one)}" for one in sorted(ids)]

    def _describe(self, one: bytes) -> str:
        entry = self.written.get(one)
        return one.hex()[:8] if entry is None else f"{one.hex()[:8]} (expires on {entry.header.expires_day})"


def _day_within_reach(place: Place, true_day: int) -> int:
    """The place's date, if others let it narrow what is reconciled."""
    return place.today if abs(place.today - true_day) <= 4 else 0


def shrink(script: Script, fails: Callable[[Script], bool]) -> list[Scene]:
    """The scenes that a failing story needs to fail, found by leaving out ever smaller parts of it."""
    left = list(script)
    size = len(left) // 2
    while size:
        before = len(left)
        at = 0
        while at < len(left):
            shorter = left[:at] + left[at + size :]
            if fails(shorter):
                left = shorter
            else:
                at += size
        if len(left) == before or size > 1:
            size //= 2
    return left
