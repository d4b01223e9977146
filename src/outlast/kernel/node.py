"""Node: the asyncio shell that carries out what the kernel's machines return.

One process has a home open. Inside it there is one event loop, which reads, and one writer thread, which alone writes
to the store and the vaults. Everything that enters the store, from this node or from outside, goes through
``ingest``: one queue, one door (``admit``), one transaction for all that waits. Rooms fold what changed, people open
their mail, and the sessions with neighbours offer what is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Container,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import msgspec

from outlast.errors import LockedError, NotFoundError, OutlastError, Sentence, StorageError, UsageError
from outlast.kernel import expiry, mail, quota
from outlast.kernel.admit import Verdict
from outlast.kernel.backup import BackupBody
from outlast.kernel.bundle import Content
from outlast.kernel.chunks import BATCHES, Chunk, Cut, Manifest, Splitter, Wanted, is_chunked
from outlast.kernel.circular import GROUPS
from outlast.kernel.devices import is_named
from outlast.kernel.discovery import Discovery, Lookout
from outlast.kernel.door import SPACE_LOW_BYTES, Door
from outlast.kernel.entry import CHUNK_BYTES, DAY_MS, HOUR_MS, PAYLOAD_MAX_BYTES, Entry, day_of
from outlast.kernel.home import Home, Keys
from outlast.kernel.identity import SealingKey, SigningKey, check_name
from outlast.kernel.keyslot import check_passphrase
from outlast.kernel.kinds import Kind, Kinds
from outlast.kernel.log import loose_entry
from outlast.kernel.membership import MEMBER_ACT, Membership
from outlast.kernel.metrics import Metrics
from outlast.kernel.neighbours import Neighbours, PeerState
from outlast.kernel.overlap import Overlap
from outlast.kernel.parcel import PARCEL_SPACE
from outlast.kernel.people import new_person, restore_person
from outlast.kernel.person import Person
from outlast.kernel.revocation import REVOKE
from outlast.kernel.room import Level, Room, RowChanges, Status, Value
from outlast.kernel.space import ANYONE, CLOSED, GENESIS, OPEN, SEALED, SpaceBody, make_genesis, read_genesis, space_of
from outlast.kernel.stamp import STAMP_BITS
from outlast.kernel.store import Grown, Progress, Store
from outlast.kernel.tombstone import ENDED_MAX, LASTING, TOMBSTONE, Tombstone, life_for
from outlast.kernel.vault import Vault

T = TypeVar("T")

BLOCK_BYTES: Final = 3 << 20
"""Of content that is read or written at a time."""
FILES_AUTO_BYTES: Final = 16 << 20
"""Content up to this size is fetched without anybody asking for it."""
COMMON_SPACES: Final = (mail.MAIL_SPACE, PARCEL_SPACE)
"""Spaces that all nodes follow."""
PROGRESS_S: Final = 0.25
"""How soon whoever follows the node hears that more of a large content is here: not of each part."""
STAGE_DAYS: Final = 30
"""So long chunks wait for the entry that names them, if a crash came between the two."""
PEOPLE_MAX: Final = 16
"""Who may live on one node: a wrong passphrase costs a second of computing for each."""
TIDY_S: Final = 3600.0
BUILT_MS: Final = 1_793_491_200_000
"""1 November 2026: no clock that shows less is right."""


def find_rooms() -> tuple[Room, ...]:
    """The installed rooms, by the entry point group ``outlast.rooms``, sorted by name."""
    return tuple(sorted((point.load() for point in entry_points(group="outlast.rooms")), key=lambda room: room.name))


class Node:
    """One node, open. Made by ``Node.open``; use it as an async context manager."""

    def __init__(self, home: Home, rooms: Sequence[Room], system_ms: Callable[[], int], dial: bool) -> None:
        """Made by ``open`` alone."""
        self.home = home
        self.rooms: Mapping[str, Room] = {room.name: room for room in rooms}
        self.kinds = Kinds([GENESIS, MEMBER_ACT, REVOKE, TOMBSTONE, *(kind for room in rooms for kind in room.kinds)])
        private = (GROUPS, *rooms)
        self.letters = Kinds([kind for room in private for kind in room.letters])
        self.letter_rooms: Mapping[str, Room] = {kind.name: room for room in private for kind in room.letters}
        self.store: Store | None = None
        self.people: dict[str, Person] = {}
        self.files_auto_bytes = FILES_AUTO_BYTES
        """Content in chunks up to this size is fetched without anybody asking for it."""
        self.fixed_discovery: Discovery | None = None
        """Whom this node is to look for, whatever is chosen here, as who runs it has said."""
        self.revision = 0
        self.metrics = Metrics()
        self.loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self.loop.create_future()
        """Ends with the error when a part of the node fails; who runs the node waits for it."""
        self.door = Door(self)
        self.dials = dial
        """Whether it calls others; else it stays by itself, as when a command opens a home for a moment."""
        self.neighbours = Neighbours(self, dial=dial)
        self.lookout = Lookout(self)
        self._system_ms = system_ms
        self._floor_ms = BUILT_MS
        self._progress: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self.cursor = 0
        """Up to there this loop has seen the store's change log grow."""
        self._left: set[bytes] = set()
        self.pruned_day = 0
        self._stopped: Sentence | None = None
        self._transport: SealingKey | None = None
        self._store_key = b""
        self._turning = asyncio.Lock()
        self._writer = ThreadPoolExecutor(1, "outlast-writer")
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._exit = contextlib.ExitStack()

    # ---- life ----

    @classmethod
    async def create(
        cls,
        home: Home,
        name: str,
        *,
        passphrase: str | None,
        entropy: bytes | None = None,
        backup: BackupBody | None = None,
        rooms: Sequence[Room] | None = None,
    ) -> None:
        """Make a node and its first person in an empty home; without a passphrase both open by key files (unattended).

        ``entropy`` (32 B) is the secret of an identity that is restored from its 24 words, ``backup`` an opened backup
        file. Either way the person starts with a new device.
        """
        name = check_name(name)
        if passphrase is not None:
            check_passphrase(passphrase)
        secret = backup.entropy if backup is not None else entropy or os.urandom(32)

        def make() -> None:
            found = find_rooms() if rooms is None else rooms
            home.create()
            with home.lock():
                key = home.new_key(None, passphrase)
                store = Store.open(home.store_path, key, rooms=found)
                store.set_meta("transport", os.urandom(32))
                for space in COMMON_SPACES:
                    store.put_space(space)
                store.close()
                _make_person(home, name, passphrase, secret, backup, found)
                home.finish()

        await asyncio.to_thread(make)

    @classmethod
    async def open(
        cls,
        home: Home,
        *,
        rooms: Sequence[Room] | None = None,
        system_ms: Callable[[], int] | None = None,
        dial: bool = True,
        files_auto_bytes: int = FILES_AUTO_BYTES,
    ) -> Self:
        """Take hold of a home; it is locked afterwards unless its key files open it.

        Without ``dial`` it stays by itself: no neighbour is called. Files of followed spaces up to
        ``files_auto_bytes`` are fetched without anybody asking for them.
        Raises NotFoundError when there is no node, StorageError when another process has it open.
        """
        if not home.exists():
            raise NotFoundError(
                "there is no node in %(path)s: make one with `outlast init --name NAME`", path=home.path
            )
        node = cls(home, find_rooms() if rooms is None else rooms, system_ms or _system_ms, dial)
        node.files_auto_bytes = files_auto_bytes
        try:
            node._exit.enter_context(home.lock())
            if home.unattended:
                await node._open_store(home.open_key(None))
                await node._open_unattended()
        except BaseException:
            await node.close()
            raise
        return node

    async def __aenter__(self) -> Self:
        """The open node."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the node."""
        await self.close()

    @property
    def locked(self) -> bool:
        """Whether the store is closed."""
        return self.store is None

    @property
    def open_store(self) -> Store:
        """The store; raises LockedError while it is locked."""
        if self.store is None:
            raise LockedError("the node is locked: unlock it with `outlast unlock`, or on its page")
        return self.store

    async def unlock(self, passphrase: str) -> Person:
        """Open the store and the vault that this passphrase opens; raises LockedError when it opens no vault."""
        found = await self.read(partial(self.home.whose, passphrase))
        async with self._turning:
            if self.store is None:
                open_key = partial(self.home.open_key, None, passphrase)
                await self._open_store(found.store or await self.read(open_key))
                await self._open_unattended()
            return self.people.get(found.person) or await self._open_person(found.person, found.vault)

    async def add_person(
        self, name: str, passphrase: str, *, entropy: bytes | None = None, backup: BackupBody | None = None
    ) -> Person:
        """Somebody more lives here from now on, with a vault under a passphrase of their own; returns them, unlocked.

        ``entropy`` and ``backup`` as in ``create``. Raises LockedError while the store is closed, UsageError for a
        passphrase that opens another vault here, since by it people are told apart.
        """
        name, store_key = check_name(name), self._store_key
        check_passphrase(passphrase)
        if not store_key:
            raise LockedError("the node is locked: somebody who lives here has to unlock it first")
        if len(self.home.people()) >= PEOPLE_MAX:
            raise UsageError("at most %(most)s people live on one node: set up another one", most=PEOPLE_MAX)
        secret = backup.entropy if backup is not None else entropy or os.urandom(32)

        def make() -> Keys:
            if any(self.home.needs_passphrase(one) for one in self.home.people()):
                with contextlib.suppress(LockedError):
                    self.home.whose(passphrase)
                    raise UsageError("this passphrase cannot be used here: choose another one")
            _make_person(self.home, name, passphrase, secret, backup, tuple(self.rooms.values()), store_key)
            return self.home.whose(passphrase)

        async with self._turning:
            made = await self.read(make)
            return await self._open_person(made.person, made.vault)

    async def lock_person(self, key: str) -> None:
        """Close one person's vault, if it is open; the node goes on, and their mail waits sealed."""
        async with self._turning:
            if key in self.people:
                await self._close_person(key)
                self.touch()

    async def remove_person(self, key: str) -> None:
        """Destroy one person's vault, open or closed; there is no way back but their backup.

        The node and what it carries stay. Raises NotFoundError when they do not live here, UsageError when nobody else
        does.
        """
        async with self._turning:
            if key in self.people and len(self.home.people()) > 1:
                await self._close_person(key)
            await self.write(partial(self.home.remove_person, key))
            self.touch()

    async def lock(self) -> None:
        """Close all vaults and the store, end all sessions; what is acknowledged is durable already."""
        async with self._turning:
            await self._lock()

    async def _lock(self) -> None:
        await self.lookout.stop()
        await self.neighbours.stop()
        for key in list(self.people):
            await self._close_person(key)
        await self._cancel("node")
        if self.store is not None:
            store, self.store = self.store, None
            self.door.turn_away()
            await self.write(store.close)
        self._transport, self._store_key = None, b""
        self.touch()

    async def close(self) -> None:
        """Lock, and let go of the home."""
        await self.lock()
        self._writer.shutdown()
        self.door.close()
        self._exit.close()

    async def wipe(self) -> None:
        """Destroy the keys, then the files, of this home. There is no way back but the backup."""
        await self.lock()
        await self.write(self.home.wipe)
        self.touch()  # whoever runs the node sees that its home is gone, and ends

    async def _open_store(self, key: bytes) -> None:
        store = await self._open_file(lambda: Store.open(self.home.store_path, key, rooms=tuple(self.rooms.values())))
        try:
            transport = store.meta("transport")
            if transport is None:
                raise StorageError("the store is incomplete: restore this node from its backup file")
            self._transport = SealingKey.from_secret(transport)
            self.pruned_day = _number(store.meta("pruned_day"))
            self._floor_ms = max(BUILT_MS, self.pruned_day * DAY_MS, _number(store.meta("floor_ms")))
            if PARCEL_SPACE not in store.spaces():  # a store of an earlier version
                await self.write(partial(store.put_space, PARCEL_SPACE))
            await self._fold(store)
        except BaseException:
            await self.write(store.close)
            raise
        self.cursor = store.cursor()
        self.door.open(store)
        self.store, self._store_key = store, key
        self._spawn(
            "node",
            self.door.run(),
            self._run_tidy(),
            self._run_sweep(),
            *(room.run(self) for room in self.rooms.values() if room.run),
        )
        self.neighbours.start()
        self.touch()

    async def _open_file(self, open: Callable[[], T]) -> T:
        """Open store or vault, on a full disk with what was held in reserve: much is there to be read, or removed."""

        def act() -> T:
            try:
                return open()
            except StorageError:
                if not self.home.release_reserve():
                    raise
                return open()

        return await self.write(act)

    async def _open_unattended(self) -> None:
        for key in self.home.people():
            if not self.home.needs_passphrase(key):
                await self._open_person(key, self.home.open_key(key))

    async def _open_person(self, key: str, secret: bytes) -> Person:
        rooms = (GROUPS, *self.rooms.values())
        vault = await self._open_file(lambda: Vault.open(self.home.vault_path(key), secret, rooms=rooms))
        try:
            person = Person(self, key, vault)
            await person.outbox.start()
        except BaseException:
            await self.write(vault.close)
            raise
        self.people[key] = person
        self._spawn(key, person.outbox.run(), person.inbox.run(), person.inbox.run_later(), person.groups.run())
        self.touch()
        return person

    async def _close_person(self, key: str) -> None:
        await self._cancel(key)
        person = self.people.pop(key)
        if person.groups.access:
            self.neighbours.refresh()
        with contextlib.suppress(StorageError):
            await self.write(partial(person.vault.write, person.leave))
        await self.write(person.vault.close)

    def _spawn(self, group: str, *tasks: Coroutine[Any, Any, None]) -> None:
        for coroutine in tasks:
            task = self.loop.create_task(coroutine)
            task.add_done_callback(self._ended)
            self._tasks.setdefault(group, []).append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends by an error is a defect: the node must not go on half alive."""
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()

    async def _cancel(self, group: str) -> None:
        tasks = self._tasks.pop(group, [])
        for task in tasks:
            task.remove_done_callback(self._ended)
        # However those end that are told to end, it is no defect: what they wait for may be locked under them.
        told = [task for task in tasks if task.cancel()]
        await asyncio.gather(*told, return_exceptions=True)
        for task in set(tasks).difference(told):
            with contextlib.suppress(asyncio.CancelledError, OutlastError):
                task.result()

    # ---- the threads ----

    async def write(self, act: Callable[[], T]) -> T:
        """Run ``act`` on the one writer thread and wait for it, also when the waiting task is cancelled."""
        return await self._run_to_end(self._writer, act)

    async def read(self, act: Callable[[], T]) -> T:
        """Run ``act``, which only reads, on a thread beside the loop, and wait for it likewise."""
        return await self._run_to_end(None, act)

    async def _run_to_end(self, threads: ThreadPoolExecutor | None, act: Callable[[], T]) -> T:
        done = self.loop.run_in_executor(threads, act)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            # What was begun is finished, however often it is cancelled: its callers' files must not be closed under it.
            while not done.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((done,))
            raise

    async def is_sound(self) -> bool:
        """Whether nothing of the store is damaged; reads all of it, and lets others write meanwhile."""
        last, sound = 0, await self.write(self.open_store.is_sound)
        while sound:
            last, sound = await self.write(partial(self.open_store.look_at_chunks, last))
            if not last:
                break
        return sound

    def touch(self) -> None:
        """Something that a page may show has changed."""
        self.revision += 1
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, revision: int) -> int:
        """The present revision, as soon as it is greater than ``revision``."""
        while self.revision <= revision:
            await self._news.wait()
        return self.revision

    async def wait_store(self, cursor: int) -> None:
        """Return as soon as the change log goes beyond ``cursor``."""
        while self.cursor <= cursor:
            await self._news.wait()

    # ---- time ----

    def now_ms(self) -> int:
        """The time to go by, in ms UTC: the system's, but never before what has certainly passed."""
        return max(self._system_ms(), self._floor_ms)

    def today(self) -> int:
        """Days since 1970, UTC, by ``now_ms``."""
        return day_of(self.now_ms())

    def clock_warning(self) -> Sentence | None:
        """One line when this device's clock cannot be right."""
        return expiry.sane_now(self._system_ms(), self._floor_ms, self.neighbours.claims(), self._claims()).warning

    def pruning_stopped(self) -> Sentence | None:
        """One line when something is over and is not deleted, because the date is in doubt."""
        return self._stopped

    def over_before(self) -> int:
        """The day before which what expires is over: today, or while the date is in doubt what is pruned already."""
        return self.pruned_day if self._is_date_in_doubt() else self.today()

    def _is_date_in_doubt(self) -> bool:
        system = self._system_ms()
        wrong = expiry.sane_now(system, self._floor_ms, self._claims()).warning is not None
        return wrong or expiry.leapt(day_of(system), self._day("tidy_day"), self._day("confirmed_day"))

    def _day(self, name: str) -> int | None:
        value = self.open_store.meta(name)
        return None if value is None else _number(value)

    async def confirm_clock(self) -> None:
        """The owner looked: today's date is right, so what is over may be deleted, and no later day has passed yet."""
        system, store = self._system_ms(), self.open_store
        day = day_of(system)
        floor, pruned = max(BUILT_MS, min(self._floor_ms, system)), min(self.pruned_day, day)

        def act() -> None:
            for name, value in (("confirmed_day", day), ("tidy_day", day), ("floor_ms", floor), ("pruned_day", pruned)):
                store.set_meta(name, _bytes(value))

        await self.write(lambda: store.together(act))
        self._floor_ms, self.pruned_day = floor, pruned
        await self._tidy()
        self.touch()

    def _claims(self) -> list[int]:
        return [day for person in self.people.values() for day in person.claims()]

    async def _run_tidy(self) -> None:
        shown: list[list[tuple[str, Status]]] = []
        while True:
            with contextlib.suppress(StorageError):
                await self._tidy()
            now = [self.status(one) for one in (None, *self.people.values())]
            if now != shown:  # there is a warning to show, or none any more
                shown = now
                self.touch()
            await asyncio.sleep(TIDY_S)

    async def _tidy(self) -> None:
        """Prune what is over by every clock that counts, and remember that this hour has passed."""
        store, system = self.open_store, self._system_ms()
        await self.write(self.home.keep_reserve)
        local, last, confirmed = day_of(system), self._day("tidy_day"), self._day("confirmed_day")
        verdict = expiry.prune_before(local, last, self._claims(), confirmed)
        if not expiry.leapt(local, last, confirmed) and (last is None or local > last):
            await self.write(lambda: store.set_meta("tidy_day", _bytes(local)))
        if isinstance(verdict, expiry.Prune):
            self._stopped = None
            before = verdict.before_day
            if before > self.pruned_day:
                await self.write(lambda: store.set_meta("pruned_day", _bytes(before)))
                self.pruned_day = before
                while removed := await self.write(lambda: store.expire(before)):
                    self.metrics.expired += removed
                    await self._fold(store)
                    self.log_grew()
                await self.write(partial(store.close_stages, before - STAGE_DAYS))
        else:
            waiting = store.query(
                "SELECT 1 FROM bucket WHERE expires_day BETWEEN 1 AND ? AND entries > 0", (local - 1,)
            )
            self._stopped = verdict.reason if waiting else None
        if not self._is_date_in_doubt():
            # A date that ran ahead would become one that no later correction could take back.
            # To the day: this stands in the store, and when somebody last wrote is nobody's business.
            written = (day_of(person.newest_ms(system)) * DAY_MS for person in self.people.values())
            newest = max([self._floor_ms, self.pruned_day * DAY_MS, *written])
            if newest > self._floor_ms:
                await self.write(lambda: store.set_meta("floor_ms", _bytes(newest)))
                self._floor_ms = newest
        over, pruned = self.over_before(), self.pruned_day
        for person in list(self.people.values()):
            with contextlib.suppress(LockedError):  # who is locked meanwhile is tidied up the next time
                await self.write(partial(person.vault.write, partial(person.tidy, over_before=over, pruned_day=pruned)))
                await person.tell_again()
                await self.write(person.vault.forget_deleted)

    # ---- what comes in ----

    async def ingest(
        self, batch: Sequence[bytes | Entry], source: bytes | None = None, offered: Container[bytes] = ()
    ) -> list[Verdict]:
        """Let packed entries in; their verdicts in order, once those admitted are durable.

        ``source`` is the neighbour (32 B) whose share is charged, None for what a person here brought; ``offered`` are
        the ids that it had from a stranger itself. Raises StorageError when the disk refuses; nothing of the batch is
        then said to be kept.
        """
        return await self.door.ingest(batch, source, offered)

    def is_open_to_all(self, space: bytes) -> bool:
        """Whether strangers may write in a space, as far as its genesis is known here."""
        genesis = self.open_store.get(space)
        if genesis is None or genesis.payload is None:
            return False
        body = read_genesis(genesis)
        return body.type == OPEN and body.writers == ANYONE

    async def _fold(self, store: Store) -> None:
        """Bring the rooms' views up to date with what was removed, or was not folded when the last run ended."""
        for name in self.rooms:
            while await self.write(partial(store.fold, name)):
                pass

    def log_grew(self) -> None:
        """The store's change log may have grown: who follows it looks."""
        self.cursor = self.open_store.cursor()
        self.touch()

    async def remove(self, entries: Sequence[bytes]) -> None:
        """Remove entries that never left this node (see ``Person.take_back``)."""
        store = self.open_store
        await self.write(lambda: store.remove(entries))
        await self._fold(store)
        self.log_grew()

    def has_left(self, entries: Iterable[bytes]) -> bool:
        """Whether any of these was handed to a link or a bundle since this process began."""
        return not self._left.isdisjoint(entries)

    def leaves(self, entries: Iterable[bytes]) -> None:
        """Note that these are about to be handed to a link or a bundle."""
        fresh = set().union(*(person.outbox.fresh for person in self.people.values()))
        self._left.update(fresh.intersection(entries))

    def own_pooled(self) -> set[bytes]:
        """The ids of mail written here that looks in the store as if a stranger had brought it."""
        return self.open_store.pooled(self.own_mail())

    def own_mail(self) -> frozenset[bytes]:
        """The ids of mail written here that may still be on its way."""
        return frozenset(id for person in list(self.people.values()) for id in person.own_mail())

    def outgoing(self) -> set[bytes]:
        """The ids of what people here wrote and the store has not taken in yet, because the disk is full."""
        return set().union(*(person.outbox.pending() for person in self.people.values()))

    def spared(self) -> frozenset[bytes]:
        """The ids of mail that stays whatever happens: what people here wrote, and parcels for them."""
        expected = (id for person in list(self.people.values()) for id in person.expected_parcels())
        return self.own_mail().union(expected)

    def devices(self) -> frozenset[bytes]:
        """The public keys (32 B) with which people write here."""
        return frozenset(person.device for person in list(self.people.values()))

    async def copied(self, entries: Sequence[bytes]) -> None:
        """These are durable at somebody else now: tell the people who wrote them."""
        for person in list(self.people.values()):
            note = partial(person.copied, entries=entries)
            with contextlib.suppress(LockedError):
                if person.authored(entries):
                    changed: int = await self.write(partial(person.vault.write, note))
                    if changed:
                        self.touch()

    # ---- speaking on the log ----

    async def append(
        self,
        person: Person,
        space: bytes,
        kind: str,
        body: msgspec.Struct,
        *,
        life_ms: int,
        local: RowChanges = (),
        clock: int = 0,
    ) -> Entry:
        """Sign an entry in a followed space and keep it; durable in the vault's outbox first, then by the one door.

        ``life_ms`` 0 = never expires, where the kind allows it. ``local`` is written in the vault together with it.
        ``clock`` is the Lamport time of what the person has read in an open space, where only the room knows whose
        words count; in a group it is known here.
        """
        known = self._speakable(space, kind)
        payload = known.encode(body)
        if space in self.open_store.closed():
            return await person.groups.append(space, known, payload, life_ms, local)
        if len(payload) > PAYLOAD_MAX_BYTES:
            raise UsageError(
                "an entry holds at most %(most)s bytes, this has %(size)s", most=PAYLOAD_MAX_BYTES, size=len(payload)
            )
        return await self._append(person, space, known, payload, life_ms, local, clock=clock)

    async def _append(
        self,
        person: Person,
        space: bytes,
        kind: Kind,
        payload: bytes,
        life_ms: int,
        local: RowChanges = (),
        *,
        size_bytes: int | None = None,
        clock: int = 0,
    ) -> Entry:
        make = partial(person.outbox.next, space, kind, payload, life_ms, size_bytes, clock)
        return await person.outbox.append(space, make, lambda _: (local, ()))

    async def append_apart(
        self,
        person: Person,
        space: bytes,
        kind: str,
        body: msgspec.Struct,
        *,
        seed: bytes,
        life_ms: int,
        local: RowChanges = (),
    ) -> Entry:
        """Sign an entry in a followed open space by a key of ``seed`` (32 B) that is no device, outside of every chain.

        Nothing in it says who wrote it, nor what they wrote under other keys; its time is the hour's beginning. A key
        stands for what was written under it, so who should not be known by it takes another one in time. Durable like
        what ``append`` keeps; raises as it does.
        """
        known = self._speakable(space, kind)
        if space in self.open_store.closed():
            raise UsageError("in a group nobody can speak as somebody unknown")
        now_ms = self.now_ms()
        entry = loose_entry(
            SigningKey.from_seed(seed),
            space=space,
            kind=known.name,
            payload=known.encode(body),
            ts_ms=now_ms - now_ms % HOUR_MS,
            life_ms=life_ms,
            priority=known.priority,
            stamp_bits=STAMP_BITS if self.is_open_to_all(space) else 0,
        )
        await person.outbox.keep([entry], local)
        return entry

    async def end(self, person: Person, space: bytes, ids: Sequence[bytes]) -> Entry:
        """End entries of a followed space before their time: their payloads go, here and wherever this arrives.

        Their author may, and whom the space's genesis names. Returns the tombstone. Raises NotFoundError, UsageError.
        """
        targets = self.open_store.load(ids)
        if len(targets) != len(ids) or any(target.header.space != space for target in targets):
            raise NotFoundError("what is to be ended is not here: wait until it has arrived")
        if self.open_store.closed().get(space) == SEALED:
            raise UsageError("in a sealed group nothing can be ended before its time yet")
        if not 0 < len(ids) <= ENDED_MAX or any(target.header.kind in LASTING for target in targets):
            raise UsageError("1 to %(most)s entries can be ended at once, and none that ends others", most=ENDED_MAX)
        named = is_named(person, space)
        if not named and any(target.header.author != person.device for target in targets):
            raise UsageError("only its author, or whom the channel's beginning names, can end this")
        # Whose device somebody else's is nobody needs to know.
        body = Tombstone(tuple(ids), person.certificate if named else b"")
        life_ms = life_for([target.header for target in targets], self.now_ms())
        return await self.append(person, space, TOMBSTONE.name, body, life_ms=life_ms)

    def _speakable(self, space: bytes, kind: str) -> Kind:
        known = self.kinds.get(kind)
        if known is None:
            raise UsageError("no room here knows entries of kind %(kind)r", kind=kind)
        if space not in self.open_store.spaces():
            raise UsageError("follow this channel first")
        return known

    # ---- content in chunks ----

    async def append_content(
        self,
        person: Person,
        space: bytes,
        kind: str,
        source: Path | AsyncIterable[bytes],
        *,
        life_ms: int,
    ) -> Entry:
        """Put a file, or bytes as they come, into a followed space, as an entry of a kind without a body.

        Some MiB of it are in memory at a time. Entry and content are durable when this returns. Raises UsageError
        when it is larger than its kind allows, StorageError when the disk is full; then nothing is kept.
        """
        known, store = self._speakable(space, kind), self.open_store
        if store.closed().get(space) == SEALED:
            raise UsageError("a sealed group holds no files yet: share this another way")
        if known.body is not None:
            raise UsageError("entries of kind %(kind)r are made of a body: use append", kind=kind)
        splitter, first, stage = Splitter(known.max_bytes), 0, None
        try:
            async with Overlap(BATCHES) as staging:
                async for chunks in _cuts(source, splitter):
                    if stage is None:
                        stage = await self.write(partial(store.open_stage, space, self.today()))
                    await staging.begin(partial(self.stage_chunks, stage, first, chunks))
                    first += len(chunks)
            last, manifest = splitter.finish()
            if manifest is None:
                return await self._append(person, space, known, bytes(last.data), life_ms)
            assert stage is not None
            await self.stage_chunks(stage, first, [last])
            entry = await self._append(person, space, known, manifest.hashes, life_ms, size_bytes=manifest.size_bytes)
            if not store.known([entry.id]):
                stage = None  # the disk is full: the entry takes its chunks from there when it comes in
            return entry
        finally:
            if stage is not None:
                # A disk that is full by now changes nothing about what was kept; what is left of the stage goes later.
                with contextlib.suppress(StorageError):
                    await self.write(partial(store.close_stage, stage))
                    await self.free_chunks(store)

    async def stage_chunks(self, stage: int, first: int, chunks: Sequence[Cut]) -> None:
        """Make chunks of a stage durable from a place on (``Store.open_stage``), in any order of the places."""
        store = self.open_store
        with store.laying() as laid:
            await self.write(partial(store.reserve_stage, laid, stage, chunks))
            await self.read(partial(store.lay, laid, chunks))
            await self.write(partial(store.stage_chunks, laid, stage, first, chunks))

    def read_content(self, entry: bytes, start: int = 0) -> Iterator[bytes]:
        """The content of an entry from a byte on, in pieces of at most 64 KiB.

        Raises NotFoundError when not all of it is here.
        """
        store = self.open_store
        found, progress = store.get(entry), store.progress(entry)
        if found is None or found.payload is None or progress is None or not progress.is_whole:
            raise NotFoundError("this is not here, or not all of it: fetch it and wait until it is")
        manifest = Manifest.of(found)
        if manifest is None:
            yield found.payload[start:]
            return
        for place in range(start // CHUNK_BYTES, len(manifest)):
            data = store.chunk(entry, place).data
            if data is None:
                raise NotFoundError(
                    "a part of this is damaged on this disk, or was dropped: drop it and fetch it again"
                )
            yield bytes(data[max(0, start - place * CHUNK_BYTES) :])

    def content(self, entry: bytes) -> Progress:
        """How much of an entry's content is here; raises NotFoundError when the entry is not."""
        progress = self.open_store.progress(entry)
        if progress is None:
            raise NotFoundError("there is no such entry here")
        return progress

    async def fetch(self, entry: bytes) -> Progress:
        """Fetch an entry's content from any neighbour that has it, whatever its size; how much is here so far."""
        store = self.open_store
        progress = self.content(entry)
        if not progress.is_whole:
            if await self.write(partial(store.want, entry)):
                self.neighbours.refresh()  # sessions ask for payloads when they start
            self.neighbours.more_wanted(entry)
        return progress

    async def keep_content(self, entries: Sequence[bytes]) -> None:
        """Contents that nobody would hold unasked count as asked for here: they take nothing of what neighbours may."""
        store = self.open_store
        large = [one.id for one in store.load(entries) if one.header.payload_size > self.files_auto_bytes]
        for entry in large:
            await self.write(partial(store.want, entry))

    async def drop_content(self, entry: bytes) -> None:
        """Forget an entry's content; it is not fetched again unless somebody here asks."""
        store = self.open_store
        found = store.get(entry)
        drop = store.drop_content if found is not None and is_chunked(found.header) else store.drop_payload
        if await self.write(partial(drop, entry)) is not None:
            await self._fold(store)
            self.log_grew()

    async def next_content(self, spaces: Container[bytes], passed: Container[bytes]) -> Wanted | None:
        """What is to be fetched next, of these spaces and besides those passed over; None when there is nothing."""
        store = self.open_store
        used_bytes = cache(partial(store.used_bytes, self.devices()))
        # Files push nothing out: they take what is left.
        capacity = self.door.capacity(store)
        room = min(capacity - used_bytes(None), self.space_left() - SPACE_LOW_BYTES)
        for id, space, missing, asked in store.wanted(self.files_auto_bytes):
            if id in passed or space not in spaces or missing > room:
                continue
            if not asked and used_bytes(space) + missing > quota.space_limit(space, capacity):
                continue
            wanted, grown = await self.write(partial(store.open_content, id))
            await self._content_grown(store, grown)
            if wanted is not None:
                return wanted
        return None

    def verify_content(self, parts: Sequence[Content]) -> list[Chunk]:
        """Take parts of contents that a person brought in, whatever their size, and return those that are right.

        They are still to be kept (``keep_chunks``).
        """
        store = self.open_store
        manifests: dict[bytes, Manifest] = {}
        for entry in store.load({part.id for part in parts}):
            if (manifest := Manifest.of(entry)) is not None and space_of(entry) in store.spaces():
                manifests[entry.id] = manifest
        return [
            Chunk(part.id, part.place, part.hash, part.data)
            for part in parts
            if (manifest := manifests.get(part.id)) is not None and manifest.hash_at(part.place) == part.hash
        ]

    async def keep_chunks(self, chunks: Sequence[Chunk], source: bytes | None) -> None:
        """Make chunks durable that a neighbour (32 B) sent, or a person brought.

        Raises StorageError when the disk refuses; then none of them is kept.
        """
        store = self.open_store
        with store.laying() as laid:
            await self.write(partial(store.reserve_chunks, laid, chunks))
            await self.read(partial(store.lay, laid, chunks))
            grown = await self.write(partial(store.put_chunks, laid, chunks))
        if source is not None:
            await self.door.charge(store, source, sum(len(chunk.data) for chunk in chunks if not chunk.requested))
        await self._content_grown(store, grown)

    async def _content_grown(self, store: Store, grown: Grown) -> None:
        if not grown.holdings:
            return
        if grown.changes:
            await self._fold(store)
            self.log_grew()
        elif self._progress is None or self._progress.when() < self.loop.time():
            self._progress = self.loop.call_later(PROGRESS_S, self.touch)
        self.neighbours.content_grew(grown)

    async def free_chunks(self, store: Store) -> None:
        """Remove chunks that no entry names any more, a few at a time."""
        while store.has_loose_chunks():
            await self.write(store.free_chunks)

    async def _run_sweep(self) -> None:
        """Remove chunks whose entries expired, were ended or dropped: a few at a time, so that nobody waits long."""
        while True:
            cursor = self.cursor
            with contextlib.suppress(StorageError):
                await self.free_chunks(self.open_store)
            await self.wait_store(cursor)

    async def new_space(
        self,
        person: Person,
        name: str,
        type: str = OPEN,
        *,
        writers: Literal["owner", "anyone"] = "owner",
        signers: Sequence[bytes] = (),
    ) -> bytes:
        """Found a space whose owner is ``person``; returns its id (32 B). It is followed from now on.

        ``type`` is "open", "members" (what it holds stands readable in members' nodes) or "sealed"; ``writers`` says
        who is meant to speak in an open one. ``signers`` are further identities (32 B) that speak for an open one, for
        ever: its id is the hash of what is said here.
        """
        if type in CLOSED:
            return await person.groups.found(name, type)
        if type != OPEN:
            raise UsageError("a space is of one of the types %(types)s", types=", ".join((OPEN, *CLOSED)))
        everybody = tuple(dict.fromkeys((person.identity, *signers)))
        body = SpaceBody(OPEN, check_name(name), person.certificate, writers, everybody, os.urandom(16))
        genesis = make_genesis(person.signing_key, body, self.now_ms())
        await self.follow(genesis.id)
        await person.outbox.keep([genesis])
        return genesis.id

    def members(self, space: bytes) -> Membership:
        """Who belongs to a closed space; raises NotFoundError when nobody who is unlocked here has joined it."""
        for person in self.people.values():
            with contextlib.suppress(NotFoundError):
                return person.groups.membership(space)
        raise NotFoundError("nobody who is unlocked here belongs to this group")

    def named(self) -> tuple[list[bytes], dict[bytes, bytes]]:
        """The spaces to speak of with neighbours, and the access keys of those that are closed.

        A closed space whose members are locked is not spoken of.
        """
        access = {space: key for person in self.people.values() for space, key in person.groups.access.items()}
        closed = self.open_store.closed()
        return [space for space in self.spaces() if space not in closed or space in access], access

    async def follow(self, space: bytes, type: str = OPEN) -> None:
        """Hold this space and reconcile it with neighbours; what was held back for it is let in.

        A closed one is joined by ``Person.join_space``, which calls this.
        """
        store = self.open_store

        def act() -> list[bytes]:
            store.put_space(space, type=type)
            return store.release(space)

        held = await self.write(act)
        await self.ingest(held)
        self.neighbours.refresh()
        self.touch()

    async def unfollow(self, space: bytes) -> None:
        """Stop holding a space; what is here of it is removed."""
        if space in COMMON_SPACES:
            raise UsageError("what everybody's mail and files travel in is always followed")
        store = self.open_store
        while await self.write(lambda: store.remove_space(space)):
            await self._fold(store)
            self.log_grew()
        self.neighbours.refresh()
        self.touch()

    async def let_go(self, space: bytes) -> None:
        """Stop holding an open space that nobody here follows through any room.

        While somebody is locked it stays, since they may follow it.
        """
        everybody_is_here = len(self.people) == len(self.home.people())
        if everybody_is_here and not any(space in self.followed_by(one) for one in self.people.values()):
            await self.unfollow(space)

    def followed_by(self, person: Person) -> set[bytes]:
        """The open spaces that a person follows through some room: the others that are held here are not theirs."""
        return {space for room in self.rooms.values() if room.follows for space in room.follows(self, person)}

    def spaces(self) -> list[bytes]:
        """The spaces that are followed, the mail space first."""
        return self.open_store.spaces()

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT on the store: entries and the rooms' public views."""
        return self.open_store.query(sql, args)

    async def rebuild(self) -> None:
        """Fold every room's view anew from the change log, a part at a time: who writes meanwhile does not wait."""
        store = self.open_store
        for name in self.rooms:
            with store.rebuilding(name):
                await self.write(partial(store.drop_view, name))
                while await self.write(partial(store.fold, name)):
                    pass
        await self._fold(store)  # what came between the last part and now
        self.log_grew()

    # ---- neighbours ----

    @property
    def transport(self) -> SealingKey:
        """The node's transport key; raises LockedError while locked."""
        if self._transport is None:
            raise LockedError("the node is locked: unlock it with `outlast unlock`, or on its page")
        return self._transport

    @property
    def transport_id(self) -> bytes:
        """The node's public transport key (32 B), which neighbours pin."""
        return self.transport.public

    async def listen(self, host: str, port: int) -> int:
        """Wait for neighbours on this address; returns the port. Raises StorageError when it is taken."""
        return await self.neighbours.listen(host, port)

    @property
    def heard_at(self) -> list[tuple[str, int]]:
        """Where neighbours can call now: each a host, as it was given to ``listen``, and a port."""
        return self.neighbours.heard_at

    def ways_changed(self) -> None:
        """A room's ways have come, gone, or may lead somewhere now: its ``links`` is asked again."""
        if self.store is not None:
            self.neighbours.refresh_ways()

    async def stop_listening(self) -> None:
        """Wait for neighbours no more; sessions that they began end."""
        await self.neighbours.stop_listening()

    async def peer_add(self, node_id: bytes, host: str, port: int) -> None:
        """Keep a session with this neighbour from now on."""
        if node_id == self.transport_id:
            raise UsageError("this is the node itself: name another one")
        await self.write(lambda: self.open_store.put_peer(node_id, host, port))
        self.neighbours.refresh_peers()
        self.lookout.refresh()
        self.touch()

    async def peer_remove(self, node_id: bytes) -> None:
        """Forget a neighbour; raises NotFoundError."""
        if not await self.write(lambda: self.open_store.remove_peer(node_id)):
            raise NotFoundError("no such neighbour: see `outlast peer list`")
        self.neighbours.refresh_peers()
        self.lookout.refresh()
        self.touch()

    @property
    def discovery(self) -> Discovery:
        """Whom this node is to look for in the local network while it runs: nobody, until somebody here has said so."""
        if self.fixed_discovery is not None:
            return self.fixed_discovery
        chosen = (self.open_store.meta("discovery") or b"").decode()
        return Discovery(chosen) if chosen in Discovery.__members__.values() else Discovery.OFF

    async def set_discovery(self, mode: Discovery) -> None:
        """Look for these in the local network, now and at every later start; UsageError where that is fixed."""
        if self.fixed_discovery not in (None, mode):
            raise UsageError("whom this node looks for is said in its config.toml: change `discovery` there")
        await self.write(lambda: self.open_store.set_meta("discovery", mode.encode()))
        self.touch()

    def peers(self) -> list[PeerState]:
        """The neighbours, and how it stands with each."""
        return self.neighbours.states()

    # ---- how it is ----

    def status(self, person: Person | None) -> list[tuple[str, Status]]:
        """Each room's state for one person, and the kernel's own as ``node``; without a person that alone."""
        locked = Status(Level.OFF, None, "locked")
        if self.locked:
            return [("node", locked)]
        own = ("node", self._own_status())
        if person is None:
            return [own]
        return [own, *((room.name, room.status(self, person)) for room in self.rooms.values() if room.status)]

    def _own_status(self) -> Status:
        try:
            left = self.space_left()
        except StorageError:
            return Status(Level.CUT, None, "disk-gone")
        if left < SPACE_LOW_BYTES:
            return Status(Level.CUT, None, "disk-full", {"bytes": left})
        if self.clock_warning():
            return Status(Level.WARN, None, "clock")
        if self.pruning_stopped():
            return Status(Level.WARN, None, "pruning-stopped")
        if self.peers() and not any(peer.connected for peer in self.peers()):
            return Status(Level.WARN, None, "no-neighbour")
        return Status(Level.OK, None, "ok")

    def space_left(self) -> int:
        """Bytes free on the home's disk; raises StorageError when that was taken away."""
        try:
            return shutil.disk_usage(self.home.path).free
        except OSError as error:
            raise StorageError(
                "%(path)s cannot be opened or written: check that the folder is yours and the disk is there",
                path=self.home.path,
            ) from error


async def _cuts(source: Path | AsyncIterable[bytes], splitter: Splitter) -> AsyncIterator[list[Cut]]:
    """What is cut off a source, about 3 MiB at a time: one transaction each."""

    def cut(parts: Iterable[bytes]) -> list[Cut]:
        return splitter.feed(b"".join(parts))

    if isinstance(source, Path):
        with await asyncio.to_thread(source.open, "rb") as file:
            while chunks := await asyncio.to_thread(lambda: splitter.feed(file.read(BLOCK_BYTES + 1))):
                yield chunks
        return
    block: list[bytes] = []
    size = 0
    async for part in source:
        block.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            yield await asyncio.to_thread(cut, block)
            block, size = [], 0
    if chunks := await asyncio.to_thread(cut, block):
        yield chunks


def _make_person(
    home: Home,
    name: str,
    passphrase: str | None,
    entropy: bytes,
    backup: BackupBody | None,
    rooms: Sequence[Room],
    store_key: bytes = b"",
) -> None:
    key = os.urandom(8).hex()
    secret = home.begin_person(key)
    vault = Vault.open(home.vault_path(key), secret, rooms=(GROUPS, *rooms), restore=backup.rooms if backup else None)
    try:
        new_person(vault, name, entropy, day_of(max(_system_ms(), BUILT_MS)))
        if backup is not None:
            restore_person(vault, backup)
    finally:
        vault.close()
    home.set_passphrase(key, secret + store_key, passphrase)


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _bytes(value: int) -> bytes:
    return value.to_bytes(8, "big")
