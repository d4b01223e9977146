"""A town: places that hold entries and meet over memory links, by the real machines.

A place is what a node is without its people: admission, sync sessions, expiry and (with a
``FileShelf``) the store are the kernel's own. Everything is decided by the seed, also the order in
which the answers of a place's store come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from random import Random
from typing import Final, assert_never

import msgspec

from outlast.kernel.admit import AdmissionState, Admitted, Held, Known, Refused, Signed, admit
from outlast.kernel.chunks import Chunk, Downloads, Loaded, Manifest, Splitter, Wanted, is_chunked
from outlast.kernel.entry import (
    CONTENT_MAX_BYTES,
    DAY_MS,
    VERSION,
    Entry,
    Header,
    day_of,
    expiry_day,
    sign_entry,
)
from outlast.kernel.expiry import Prune, leapt, prune_before, sane_now
from outlast.kernel.forward import Offer, Tier
from outlast.kernel.identity import SigningKey, certify, verify
from outlast.kernel.kinds import Kind, Kinds
from outlast.kernel.log import Head, next_entry
from outlast.kernel.space import OPEN, SpaceBody, make_genesis, space_of
from outlast.kernel.steps import (
    Bucket,
    BucketLoaded,
    BucketsLoaded,
    BulkSent,
    ChunksIngested,
    ChunksLoaded,
    Close,
    Command,
    ContentGrew,
    Copied,
    CutOff,
    EntriesLoaded,
    Event,
    Fate,
    Ingest,
    IngestChunk,
    Ingested,
    InStep,
    Limits,
    LinkClosed,
    LoadBucket,
    LoadBuckets,
    LoadChunks,
    LoadEntries,
    LoadUrgent,
    LoadWanted,
    LocalAppended,
    MessageArrived,
    MoreWanted,
    OfferWeighed,
    Send,
    SendBulk,
    Started,
    TakenByLink,
    Tick,
    UrgentLoaded,
    WantedLoaded,
    WeighOffer,
)
from outlast.kernel.sync import Session
from outlast.testing.clock import START_MS, FakeClock
from outlast.testing.link import MemoryLink
from outlast.testing.shelf import MemoryShelf, Shelf


class NoteBody(msgspec.Struct, array_like=True, frozen=True):
    """What people of a town post."""

    text: str


NOTE = Kind("town.note", NoteBody, max_bytes=1024 * 1024, max_life_days=30)
BUILT_MS: Final = START_MS - 60 * DAY_MS
"""When the program of the places was made: their clocks show no less."""
CLAIM_DAYS: Final = 7
"""How long it counts what a neighbour took for the date."""
FILE = Kind("town.file", None, max_bytes=CONTENT_MAX_BYTES, max_life_days=30, priority=7)


class Place:
    """One node of a town. Its clock can be wrong; its shelf, its spaces and what it knows of the date are durable."""

    def __init__(self, name: str, clock: FakeClock, seed: int, shelf: Shelf | None = None) -> None:
        """An empty place; ``seed`` makes its keys. Without a shelf its entries stand in memory."""
        self.name = name
        self.clock = clock
        self.skew_ms = 0
        """How far its own clock is ahead of the town's."""
        self.random = Random(f"{seed}/{name}")
        self.key = SigningKey.from_seed(self.random.randbytes(32))
        self.transport = self.random.randbytes(32)
        self.kinds = Kinds([NOTE, FILE])
        self.followed: set[bytes] = set()
        self.shelf: Shelf = MemoryShelf() if shelf is None else shelf
        self.chunks: dict[bytes, dict[int, bytes]] = {}
        """What is here of large contents: id -> place -> chunk."""
        self.files: list[Entry] = []
        """Entries with a manifest, as they came."""
        self.auto_bytes = CONTENT_MAX_BYTES
        """Content up to this size is fetched."""
        self.downloads = Downloads()
        self.copies: dict[bytes, set[bytes]] = {}
        """Which neighbours are known to hold an entry whole: id -> their transport keys."""
        self.refused: list[Refused] = []
        self.received = 0
        """Entries that were sent to this place, also those it knew."""
        self.pruned_day = 0
        self.listeners: list[list[Offer]] = []
        """For each open session what became whole here and it was not told yet."""
        self.content_listeners: list[list[ContentGrew | MoreWanted]] = []
        """The same of what came of large contents."""
        self._tidy_day: int | None = None
        self._confirmed_day: int | None = None
        self._claims: dict[bytes, tuple[int, int]] = {}  # neighbour -> the day it named, the day it was met here

    @property
    def entries(self) -> Mapping[bytes, Entry]:
        """What is held, by id."""
        return self.shelf.entries

    def now_ms(self) -> int:
        """The time it goes by: its clock's, but none that has certainly passed."""
        return sane_now(self.clock() + self.skew_ms, max(BUILT_MS, self.pruned_day * DAY_MS)).ms

    @property
    def today(self) -> int:
        """The day it goes by."""
        return day_of(self.now_ms())

    def found(self, name: str) -> bytes:
        """Found an open space and follow it; returns its id."""
        body = SpaceBody(
            OPEN,
            name,
            certify(self.key, self.key, self.random.randbytes(32), 0, self.name),
            "anyone",
            (),
            self.random.randbytes(16),
        )
        genesis = make_genesis(self.key, body, self.now_ms())
        self.followed.add(genesis.id)
        self.ingest([genesis], None)
        return genesis.id

    def post(
        self,
        space: bytes,
        text: str,
        *,
        life_days: int = 30,
        priority: int = 2,
        payload: bytes | None = None,
    ) -> Entry:
        """Write a note into a space, or ``payload`` as an entry of a kind that nobody knows."""
        kind = NOTE.name if payload is None else "town.unknown"
        payload = NOTE.encode(NoteBody(text)) if payload is None else payload
        entry = self._sign(space, kind, payload, len(payload), life_days, priority)
        self.ingest([entry], None)
        return entry

    def post_file(self, space: bytes, content: bytes) -> Entry:
        """Put content of more than 64 KiB into a space."""
        splitter = Splitter(CONTENT_MAX_BYTES)
        chunks = splitter.feed(content)
        last, manifest = splitter.finish()
        assert manifest is not None, "a file has more than one chunk"
        entry = self._sign(space, FILE.name, manifest.hashes, len(content), 30, FILE.priority)
        self.chunks[entry.id] = {place: bytes(chunk.data) for place, chunk in enumerate([*chunks, last])}
        self.ingest([entry], None)
        return entry

    def content(self, entry_id: bytes) -> bytes:
        """What is here of a file, in order."""
        return b"".join(chunk for _, chunk in sorted(self.chunks.get(entry_id, {}).items()))

    def _sign(self, space: bytes, kind: str, payload: bytes, payload_size: int, life_days: int, priority: int) -> Entry:
        ts_ms = self.now_ms()
        header = Header(
            version=VERSION,
            space=space,
            kind=kind,
            author=self.key.public,
            seq=0,
            prev=None,
            clock=0,
            ts_ms=ts_ms,
            expires_day=expiry_day(ts_ms, life_days * DAY_MS),
            priority=priority,
            payload_hash=sha256(payload).digest(),
            payload_size=payload_size,
            tags=(),
            stamp_nonce=self.random.getrandbits(32),
        )
        return sign_entry(header, self.key, payload)

    def continue_chain(self, space: bytes, text: str, key: SigningKey | None = None) -> Entry:
        """Write the next note of a chain as this place knows it: its own, or that of a key that was copied here."""
        author = key or self.key
        entry = next_entry(
            author,
            self.head(space, author.public),
            space=space,
            kind=NOTE.name,
            payload=NOTE.encode(NoteBody(text)),
            clock=0,
            ts_ms=self.now_ms(),
            life_ms=30 * DAY_MS,
            priority=NOTE.priority,
        )
        self.ingest([entry], None)
        return entry

    def head(self, space: bytes, author: bytes) -> Head | None:
        """The last entry of a chain that is held here."""
        return self.shelf.head(space, author)

    def ingest(self, entries: Sequence[Entry], source: bytes | None) -> list[Fate]:
        """Send entries through the one door and keep what is admitted."""
        ids = [entry.id for entry in entries]
        state = AdmissionState(
            kinds=self.kinds,
            spaces=self.followed,
            pruned_day=self.pruned_day,
            known=self.shelf.known(ids),
            incomplete=self.shelf.incomplete(ids),
        )
        verdicts = admit(entries, state, verify_each)
        admitted = [verdict.entry for verdict in verdicts if isinstance(verdict, Admitted)]
        if admitted:
            self.shelf.append(admitted)
        files = [entry for entry in admitted if entry.payload is not None and is_chunked(entry.header)]
        self.files += files
        for changes in self.content_listeners:
            changes.extend(MoreWanted() for _ in files)
        for news in self.listeners:
            news.extend(Offer(entry, Tier.FOLLOWED, source) for entry in admitted if entry.payload is not None)
        self.refused += [verdict for verdict in verdicts if isinstance(verdict, Refused)]
        bare = self.shelf.incomplete(ids)
        return [self._fate(verdict, bare) for verdict in verdicts]

    def _fate(self, verdict: Admitted | Known | Held | Refused, bare: set[bytes]) -> Fate:
        match verdict:
            case Admitted(entry) | Known(entry):
                if entry.id in bare:
                    return Fate.WANTS_PAYLOAD
                return Fate.WANTS_CONTENT if self._missing(entry.id) else Fate.KEPT
            case Refused() | Held():
                return Fate.REFUSED
            case _:
                assert_never(verdict)

    def _manifest(self, entry_id: bytes) -> Manifest | None:
        found = self.shelf.load([entry_id])
        return Manifest.of(found[0]) if found else None

    def _missing(self, entry_id: bytes) -> int:
        """The places of an entry's chunks that are not here; of equal ones only the first."""
        manifest = self._manifest(entry_id)
        if manifest is None:
            return 0
        held = self.chunks.get(entry_id, {})
        first = {manifest.hash_at(place): place for place in reversed(range(len(manifest)))}
        return sum(1 << place for place in first.values() if place not in held)

    def _held(self, entry_id: bytes) -> int:
        return sum(1 << place for place in self.chunks.get(entry_id, {}))

    def _next_content(self, spaces: Collection[bytes], passed: Collection[bytes]) -> Wanted | None:
        for entry in self.files:
            manifest = self._manifest(entry.id) if space_of(entry) in spaces and entry.id not in passed else None
            if manifest and manifest.size_bytes <= self.auto_bytes and (missing := self._missing(entry.id)):
                return Wanted(entry.id, manifest, missing)
        return None

    def keep_chunk(self, chunk: Chunk) -> None:
        """Keep a chunk wherever its content has it, and tell the sessions."""
        manifest = self._manifest(chunk.id)
        if manifest is None:
            return  # its entry expired meanwhile
        held = self.chunks.setdefault(chunk.id, {})
        held.update((place, bytes(chunk.data)) for place, _ in manifest.places_of([chunk.hash]))
        whole = [] if self._missing(chunk.id) else [chunk.id]
        for changes in self.content_listeners:
            changes.append(ContentGrew({chunk.id: self._held(chunk.id)}, whole))

    def prune(self, before_day: int) -> None:
        """Drop what expires before a day."""
        self.pruned_day = before_day
        self.shelf.expire(before_day)

    def tidy(self, *, confirmed: bool = False) -> None:
        """Prune as a node does each hour: by its own date and by what those it met lately took for the date.

        ``confirmed``: its owner has just looked at the clock and found it right.
        """
        local = day_of(self.clock() + self.skew_ms)
        if confirmed:
            self._confirmed_day = self._tidy_day = local
        claims = [day for day, met in self._claims.values() if 0 <= local - met <= CLAIM_DAYS]
        verdict = prune_before(local, self._tidy_day, claims, self._confirmed_day)
        if not leapt(local, self._tidy_day, self._confirmed_day) and (self._tidy_day is None or local > self._tidy_day):
            self._tidy_day = local
        if isinstance(verdict, Prune) and verdict.before_day > self.pruned_day:
            self.prune(verdict.before_day)

    def hear_date(self, peer: bytes, day: int) -> None:
        """Note what a neighbour takes for the date; in a node this comes from letters of verified contacts."""
        self._claims[peer] = day, self.today

    def restart(self) -> None:
        """End the process and begin it again: what is not durable is gone."""
        self.shelf.reopen()
        self.listeners.clear()
        self.content_listeners.clear()
        self.downloads = Downloads()

    def session(self, *, initiator: bool, key: bytes, peer: bytes, limits: Limits | None = None) -> Session:
        """A new session with a neighbour."""
        return Session(
            initiator=initiator,
            key=key,
            peer=peer,
            spaces=self.followed,
            today=self.today,
            pruned_day=self.pruned_day,
            rand=self.random.randbytes,
            downloads=self.downloads,
            limits=limits or Limits(),
        )

    def answer(self, command: Command, peer: bytes) -> Event | None:
        """Carry out one command of a session with ``peer``; None if it asks nothing."""
        match command:
            case LoadBuckets(spaces, floor_day, priority_max):
                buckets = [
                    Bucket(space, day, count)
                    for space in sorted(spaces)
                    for day, count in self.shelf.buckets(space, priority_max)
                    if day == 0 or day >= floor_day
                ]
                return BucketsLoaded(buckets, self.shelf.bare())
            case LoadBucket(space, day, priority_max):
                return BucketLoaded(space, day, self.shelf.bucket(space, day, priority_max))
            case LoadEntries(ids):
                return EntriesLoaded(self.shelf.load(ids))
            case Ingest(entries):
                self.received += len(entries)
                return Ingested(self.ingest(entries, peer))
            case LoadUrgent(buckets):
                return UrgentLoaded(self.shelf.urgent(buckets))
            case WeighOffer(ids):
                return OfferWeighed([one for one in ids if one not in self.entries])
            case LoadWanted(spaces, passed):
                return WantedLoaded(self._next_content(spaces, passed))
            case LoadChunks(wanted):
                loaded = [self._load_chunk(entry_id, place) for entry_id, place in wanted]
                return ChunksLoaded(loaded, {one.id: self._held(one.id) for one in loaded if one.data is None})
            case IngestChunk(chunk):
                self.keep_chunk(chunk)
                return ChunksIngested([chunk])
            case Copied(ids):
                for one in ids:
                    self.copies.setdefault(one, set()).add(peer)
                return None
            case Send() | SendBulk() | InStep() | Close() | CutOff():
                return None
            case _:
                assert_never(command)

    def _load_chunk(self, entry_id: bytes, place: int) -> Loaded:
        found = self.shelf.load([entry_id])
        data = self.chunks.get(entry_id, {}).get(place)
        return Loaded(entry_id, place, space_of(found[0]) if found else None, data)


class Meeting:
    """Two places, a session at each, and a link between them."""

    def __init__(
        self,
        places: tuple[Place, Place],
        link: MemoryLink,
        *,
        seed: int = 0,
        limits: tuple[Limits, Limits] | None = None,
    ) -> None:
        """Start both sessions; the first place called the second one."""
        self.places = places
        self.link = link
        self.in_step = [False, False]
        self.ended: list[Close | CutOff | None] = [None, None]
        """How each side's session ended, None if it did not by itself."""
        self.log: list[tuple[int, bytes]] = []
        """All messages, with the end that sent them."""
        self.copied: tuple[set[bytes], set[bytes]] = (set(), set())
        """What each side has learnt to be durable and whole at the other."""
        self.unfounded: set[bytes] = set()
        """What of that the other side did not hold when it was learnt."""
        self._random = Random(f"{seed}/{places[0].name}/{places[1].name}")
        key = self._random.randbytes(32)
        self.sessions = tuple(
            places[end].session(
                initiator=end == 0,
                key=key,
                peer=places[1 - end].transport,
                limits=limits[end] if limits else None,
            )
            for end in (0, 1)
        )
        # Answers of the store come in any order, except that batches are ingested one by one.
        self._answers: list[list[Event]] = [[], []]
        self._ingests: list[deque[Ingest | IngestChunk]] = [deque(), deque()]
        self.news: tuple[list[Offer], list[Offer]] = ([], [])
        """What each side's place has taken in and its session was not told yet."""
        self.content_news: tuple[list[ContentGrew | MoreWanted], list[ContentGrew | MoreWanted]] = ([], [])
        for place, news, changes in zip(places, self.news, self.content_news, strict=True):
            place.listeners.append(news)
            place.content_listeners.append(changes)
        for end in (0, 1):
            self.feed(end, Started())

    def feed(self, end: int, event: Event) -> None:
        """Hand one event to the session at ``end`` and carry out what it returns."""
        place = self.places[end]
        peer = self.places[1 - end].transport
        for command in self.sessions[end].step(event):
            match command:
                case Send(data):
                    self.log.append((end, data))
                    self.link.send(end, data)
                case SendBulk(messages):
                    for data in messages:
                        self.log.append((end, data))
                        self.link.send(end, data)
                    self._answers[end].append(BulkSent())
                case Ingest() | IngestChunk():
                    self._ingests[end].append(command)
                case Copied(ids):
                    self.copied[end].update(ids)
                    self.unfounded.update(set(ids) - self.places[1 - end].shelf.known(ids))
                    place.answer(command, peer)
                case InStep():
                    self.in_step[end] = True
                    place.hear_date(peer, self.sessions[end].peer_today or 0)
                case Close() | CutOff():
                    self.ended[end] = command
                    self.link.close()
                case _:
                    answer = place.answer(command, peer)
                    if answer is not None:
                        self._answers[end].append(answer)
        if self.sessions[end].has_more:
            self._answers[end].append(TakenByLink())

    def turn(self) -> bool:
        """Let one thing happen somewhere; False when nothing can without time passing."""
        choices: list[tuple[int, str]] = []
        for end in (0, 1):
            if self._answers[end]:
                choices.append((end, "answer"))
            if self._ingests[end]:
                choices.append((end, "ingest"))
            if self.news[end] or self.content_news[end]:
                choices.append((end, "news"))
            choices.append((end, "link"))
        self._random.shuffle(choices)
        return any(self._happen(end, what) for end, what in choices)

    def _happen(self, end: int, what: str) -> bool:
        place = self.places[end]
        if what == "answer":
            answers = self._answers[end]
            self.feed(end, answers.pop(self._random.randrange(len(answers))))
        elif what == "ingest":
            answer = place.answer(self._ingests[end].popleft(), self.places[1 - end].transport)
            assert answer is not None
            self.feed(end, answer)
        elif what == "news":
            offers = self.news[end].copy()
            self.news[end].clear()
            if offers:
                self.feed(end, LocalAppended(offers))
            changes = self.content_news[end].copy()
            self.content_news[end].clear()
            for change in changes:
                self.feed(end, change)
        else:
            message = self.link.receive(end)
            if message is None:
                return False
            self.feed(end, MessageArrived(message))
        return True

    def run(self, *, max_turns: int = 1_000_000) -> None:
        """Go on until nothing is on the way and nothing is left to do."""
        clock = self.places[0].clock
        for _ in range(max_turns):
            if self.turn():
                continue
            arrival = self.link.next_arrival_ms()
            if arrival is None or not self.link.open:
                break
            clock.advance(max(0, arrival - clock()))
        else:
            raise AssertionError("the meeting does not come to rest")
        if not self.link.open:
            self.end()

    def crash(self, end: int) -> None:
        """The process at ``end`` is gone: what it had not made durable, and what it was about to do, with it."""
        self.link.close()
        self.sessions[end].closed = True
        self._answers[end].clear()
        self._ingests[end].clear()
        self.news[end].clear()
        self.content_news[end].clear()

    def end(self) -> None:
        """Cut the link, if it is still there, and tell both sides."""
        self.link.close()
        for end in (0, 1):
            self.feed(end, LinkClosed())
            listeners = self.places[end].listeners
            listeners[:] = [news for news in listeners if news is not self.news[end]]
            watchers = self.places[end].content_listeners
            watchers[:] = [changes for changes in watchers if changes is not self.content_news[end]]

    def tick(self) -> None:
        """Tell both sides the time."""
        for end in (0, 1):
            self.feed(end, Tick(self.places[end].clock()))


class Town:
    """``n`` places with one clock, all decided by ``seed``."""

    def __init__(self, n: int, seed: int = 0, shelf: Callable[[str], Shelf] | None = None) -> None:
        """Places are called "place-0" to "place-{n-1}"; ``shelf`` makes what each of them keeps its entries on."""
        self.clock = FakeClock()
        self.seed = seed
        names = [f"place-{i}" for i in range(n)]
        self.places = [Place(name, self.clock, seed, shelf(name) if shelf else None) for name in names]
        self._meetings = 0

    def follow(self, space: bytes, places: Iterable[int] | None = None) -> None:
        """Let the given places, or all, follow a space."""
        for index in range(len(self.places)) if places is None else places:
            self.places[index].followed.add(space)

    def meeting(
        self,
        a: int,
        b: int,
        link: MemoryLink | None = None,
        limits: tuple[Limits, Limits] | None = None,
    ) -> Meeting:
        """Bring two places together; nothing has been exchanged yet."""
        self._meetings += 1
        return Meeting(
            (self.places[a], self.places[b]),
            link or MemoryLink(self.clock),
            seed=self.seed * 1_000_003 + self._meetings,
            limits=limits,
        )

    def meet(self, a: int, b: int, link: MemoryLink | None = None) -> Meeting:
        """Let two places exchange all they can, and part."""
        meeting = self.meeting(a, b, link)
        meeting.run()
        meeting.end()
        return meeting


def verify_each(batch: list[Signed]) -> list[bool]:
    """Verify signatures one after the other."""
    return [verify(public, signature, message) for public, signature, message in batch]
