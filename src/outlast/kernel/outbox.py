"""Outbox: what a person says, from the moment it is durable in their vault until it is in the node's store.

A letter is sealed and put into the outbox together with what the room wants to remember of it, in one transaction of
the vault; only then it is handed to the node's one door. The two files do not commit together: at the next start the
outbox is replayed, idempotent by id, so nothing that was acknowledged is lost between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from outlast.errors import LockedError, StorageError, UsageError
from outlast.kernel import mail
from outlast.kernel.circular import CIRCULAR
from outlast.kernel.database import Transaction
from outlast.kernel.entry import Entry, day_of, pack, unpack
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import Device, read_certificate
from outlast.kernel.kinds import Kind
from outlast.kernel.log import Head, next_entry
from outlast.kernel.revocation import DEVICES
from outlast.kernel.room import RowChanges, Value
from outlast.kernel.stamp import STAMP_BITS

if TYPE_CHECKING:
    from outlast.kernel.person import Person

T = TypeVar("T")

RETRY_S: Final = 5.0
"""How long after the disk refused it is tried again."""
POST_BATCH: Final = 200
"""Letters sealed and committed at a time: the first of many leave while the others are still being sealed."""

OUT: Final = 0
IN: Final = 1
INTRODUCING: Final = 2
"""Directions of counters."""

RECEIVED: Final = 1
READ: Final = 2
RECEIPT_IDS: Final = 200
ANSWERS: Final = ("receipt", DEVICES.name)
"""Letters that the kernel writes by itself: nobody waits for news of them."""
SILENT: Final = (*ANSWERS, CIRCULAR.name)
"""Letters of the kernel; only ``devices`` is acknowledged."""
RETIRED: Final = 3
"""Added to the directions OUT and IN for this person's earlier devices."""


class Receipt(msgspec.Struct, array_like=True, frozen=True):
    """Kernel letter ``receipt``: which letters were received (1) or read (2)."""

    event: int
    letters: list[bytes]


class Party(NamedTuple):
    """A device of this person, as mail is sealed by it and opened for it; ``is_retired``: it has renewed itself."""

    device: Device
    seal: OpeningKey
    is_retired: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A letter on its way into the outbox."""

    to: bytes
    kind: str
    body: bytes
    letter: bytes
    sent_ms: int
    local: Callable[[bytes], RowChanges] | None = None
    life_ms: int = 0
    is_told: bool = True
    """Whether its person is told where it has been."""


@dataclass(slots=True)
class _Waiting:
    """A letter whose sender waits until it is durable."""

    letter: Outgoing
    done: asyncio.Future[bytes]
    outcome: Exception | bytes | None = None
    """Its id once it is durable; None while nothing is."""

    def answer(self, otherwise: Exception) -> None:
        """Tell the sender."""
        if self.done.done():
            return
        if isinstance(self.outcome, bytes):
            self.done.set_result(self.outcome)
        else:
            self.done.set_exception(self.outcome or otherwise)


class Outbox:
    """A person's letters and entries on their way out."""

    def __init__(self, person: Person) -> None:
        """Empty until ``start``."""
        self._person = person
        self._node = person.node
        self._vault = person.vault
        self._keys_out: dict[tuple[bytes, bytes], bytes] = {}
        """By own device and contact's device."""
        self._pending: deque[Entry] = deque()
        """In the outbox, and on their way to the store; the writer thread adds, the loop takes."""
        self._flushed: deque[bytes] = deque()
        """In the store by now, and to be struck out of the outbox; the loop adds, the writer thread takes."""
        self.speaking = asyncio.Lock()
        """Held while an entry of this device's chains is made, and while the device changes."""
        self._flushing = asyncio.Lock()
        self._retrying = False
        self._closed = False
        self.fresh: set[bytes] = set()
        """Entries of letters that were sealed since this process began."""
        self._queue: list[_Waiting] = []
        self._queued = asyncio.Event()

    async def start(self) -> None:
        """Bring what the last run had acknowledged, and not yet handed on, to the node's door."""
        rows = self._vault.query("SELECT packed FROM outbox ORDER BY rowid")
        self._pending.extend(unpack(bytes(row[0]))[0] for row in rows)
        await self.flush()

    def waiting(self) -> int:
        """Letters that are to be sealed, and entries that are to go to the door."""
        return len(self._queue) + len(self._pending)

    def pending(self) -> set[bytes]:
        """The ids of entries that are to go to the door."""
        return {entry.id for entry in self._pending}

    def enqueue(
        self,
        to: bytes,
        kind: str,
        body: bytes,
        local: Callable[[bytes], RowChanges] | None,
        life_ms: int = 0,
        is_told: bool = True,
    ) -> asyncio.Future[bytes]:
        """Seal and keep a letter in its turn; its id (16 B) comes when it is durable.

        Raises LockedError, and UsageError when this device was ended.
        """
        if self._closed:
            raise LockedError("this person is locked: unlock them first")
        self._person.check_device()
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        letter = Outgoing(to, kind, body, os.urandom(16), self._node.now_ms(), local, life_ms, is_told)
        self._queue.append(_Waiting(letter, done))
        self._queued.set()
        return done

    async def send_receipts(self, event: int, by_sender: dict[bytes, list[bytes]]) -> None:
        """Tell senders that these letters of theirs were received or read."""
        for sender, letters in by_sender.items():
            for body in receipt_bodies(event, letters):
                with contextlib.suppress(UsageError):
                    await self.enqueue(sender, "receipt", body, None)

    async def run(self) -> None:
        """Carry letters from the queue into the outbox and on to the node's door, many in one commit."""
        batch: list[_Waiting] = []
        failure: Exception = LockedError("the node was closed before this letter was kept: send it again")
        try:
            while True:
                await self._queued.wait()
                batch, self._queue = self._queue[:POST_BATCH], self._queue[POST_BATCH:]
                if not self._queue:
                    self._queued.clear()
                refused: Exception = failure
                try:
                    if batch:
                        await self._node.write(partial(self._post, batch))
                    await self.flush()
                except StorageError as error:
                    refused = error
                for one in batch:
                    one.answer(refused)
                if batch:
                    self._node.touch()
        except Exception as error:
            failure = error
            raise
        finally:
            self._closed = True
            for one in (*batch, *self._queue):
                one.answer(failure)

    async def take_back(self, letter: bytes, local: RowChanges) -> bool:
        """Remove a letter that certainly never left this node, with ``local``; False when it may have left."""
        ids = [bytes(row[0]) for row in self._vault.query("SELECT entry FROM sent WHERE letter = ?", (letter,))]
        parcels = [bytes(row[0]) for row in self._vault.query("SELECT entry FROM parcel WHERE letter = ?", (letter,))]

        def keep_whole(tx: Transaction) -> None:
            self.strike(tx)
            rows = [(entry.id, pack(entry)) for entry in entries]
            tx.executemany("INSERT OR IGNORE INTO outbox(entry_id, packed) VALUES (?, ?)", rows)

        def forget(tx: Transaction) -> None:
            tx.executemany("DELETE FROM outbox WHERE entry_id = ?", [(i,) for i in ids])
            devices = tx.query(
                "SELECT device, certificate FROM sent JOIN device USING (device) WHERE letter = ?", (letter,)
            )
            tx.execute("DELETE FROM sent WHERE letter = ?", (letter,))
            tx.execute("DELETE FROM custody WHERE letter = ?", (letter,))
            tx.execute("DELETE FROM parcel WHERE letter = ?", (letter,))
            for day in {day_of(entry.header.ts_ms) for entry in entries}:
                for device, certificate in devices:
                    self._close_gap(tx, device, read_certificate(certificate), day)
            tx.apply(local)

        async with self._flushing:
            if not ids or not self.fresh.issuperset(ids) or self._node.has_left(ids):
                return False
            if len(self._person.custody([letter])[letter]) > 1:
                return False
            entries = self._node.open_store.load(ids)
            # Until it is forgotten everywhere, a restart brings the letter back whole.
            await self._node.write(lambda: self._vault.write(keep_whole))
            try:
                await self._node.remove(ids)
                gone = not self._node.has_left(ids)
                if gone:
                    await self._node.write(lambda: self._vault.write(forget))
            except BaseException:
                self._pending.extend(entries)
                raise
            if gone:
                for entry in [e for e in self._pending if e.id in ids]:
                    self._pending.remove(entry)
            else:
                self._pending.extend(entries)  # a link had taken it already
        if gone:
            self.fresh.difference_update(ids)
            if parcels:
                await self._node.remove(parcels)  # nobody has their key: they are of no use wherever they may be
        await self.flush()
        self._node.touch()
        return gone

    async def append(
        self,
        space: bytes,
        make: Callable[[], Entry],
        also: Callable[[Entry], tuple[RowChanges, Sequence[Outgoing]]],
    ) -> Entry:
        """Keep the next entry of this device's chain in a space, as ``make`` signs it (see ``Node.append``).

        With it go the rows and letters that ``also`` gives for it.
        """
        async with self.speaking:
            self._person.check_device()
            head, _ = self.head(space)
            found = self._node.open_store.head(space, self._person.device)
            in_line = found is None or (head is not None and found[0] <= head.seq)
            if in_line:
                entry = make()
                await self._keep([entry], *also(entry))
        if in_line:
            # The next one need not wait for the store: who speaks meanwhile goes through the door with this one.
            await self.flush()
            return entry
        await self._person.renew()
        raise UsageError("this device wrote somewhere else too, so a new one has begun here just now: do it again")

    def next(
        self, space: bytes, kind: Kind, payload: bytes, life_ms: int, size_bytes: int | None = None, clock: int = 0
    ) -> Entry:
        """The next entry of this device's chain in a space, later than ``clock``; who keeps it holds ``speaking``."""
        head, own = self.head(space)
        return next_entry(
            self._person.signing_key,
            head,
            space=space,
            kind=kind.name,
            payload=payload,
            size_bytes=size_bytes,
            clock=max(own, clock) + 1,
            ts_ms=self._node.now_ms(),
            life_ms=life_ms,
            priority=kind.priority,
            stamp_bits=STAMP_BITS if self._node.is_open_to_all(space) else 0,
        )

    async def keep(self, entries: Sequence[Entry], local: RowChanges = (), letters: Sequence[Outgoing] = ()) -> None:
        """Put finished entries into the outbox, with what a room remembers of them, and hand them to the door.

        ``letters`` go with them, to those whom something can be sealed for. Raises UsageError when the door would
        refuse an entry, StorageError when the disk is full; then nothing is kept.
        """
        await self._keep(entries, local, letters)
        await self.flush()

    async def _keep(self, entries: Sequence[Entry], local: RowChanges, letters: Sequence[Outgoing]) -> None:
        self._node.door.check_own(entries)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            tx.apply(local)
            envelopes = self.put_letters(tx, letters)[0] if letters else []
            return [*entries, *envelopes], None

        await self._node.write(lambda: self.commit(act))

    async def send_parcels(self, letter: Outgoing, parcels: Sequence[Entry]) -> None:
        """Keep a letter and the parcels that it names, all or nothing; they go to the door when this returns.

        Raises UsageError when nothing can be sealed to that contact, StorageError when the disk is full.
        """
        self._person.check_device()
        self._node.door.check_own(parcels)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            envelopes, failures = self.put_letters(tx, [letter])
            if failures:
                raise failures[letter.letter]
            self._person.note_parcels(tx, letter.letter, letter.to, parcels, outgoing=True)
            self.fresh.update(entry.id for entry in envelopes)
            return [*parcels, *envelopes], None

        await self._node.write(lambda: self.commit(act))
        await self.flush()
        self._node.touch()

    async def keep_parcels(self, parcels: Sequence[Entry], peer: bytes) -> None:
        """Keep parcels that an entry of a group (its space, 32 B) is to name; raises as ``send_parcels``."""
        self._person.check_device()
        self._node.door.check_own(parcels)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            self._person.note_parcels(tx, parcels[0].id, peer, parcels, outgoing=True)
            return list(parcels), None

        await self._node.write(lambda: self.commit(act))
        await self.flush()

    async def flush(self) -> None:
        """Hand what waits in the outbox to the node's door; while the disk is full it is tried again and again."""
        async with self._flushing:
            entries = [self._pending.popleft() for _ in range(len(self._pending))]
            if not entries:
                return
            try:
                await self._node.door.admit_own(entries)
            except BaseException as error:
                self._pending.extendleft(reversed(entries))
                if not isinstance(error, StorageError):
                    raise
                if not self._retrying:
                    self._retrying = True
                    self._node.loop.call_later(RETRY_S, self._retry)
                return
            self._flushed.extend(entry.id for entry in entries)

    def commit(self, act: Callable[[Transaction], tuple[list[Entry], T]]) -> T:
        """On the writer thread: one transaction that puts the entries that ``act`` returns into the outbox."""
        struck: list[bytes] = []

        def write(tx: Transaction) -> tuple[list[Entry], T]:
            struck.extend(self.strike(tx))
            entries, result = act(tx)
            tx.executemany("INSERT INTO outbox(entry_id, packed) VALUES (?, ?)", [(e.id, pack(e)) for e in entries])
            for entry in entries:
                self._put_head(tx, entry)
            return entries, result

        try:
            entries, result = self._vault.write(write)
        except BaseException:
            self._flushed.extendleft(reversed(struck))
            raise
        self._pending.extend(entries)
        return result

    def strike(self, tx: Transaction) -> list[bytes]:
        """Strike out of the outbox what is in the store by now; returns its ids."""
        flushed = [self._flushed.popleft() for _ in range(len(self._flushed))]
        tx.executemany("DELETE FROM outbox WHERE entry_id = ?", [(entry,) for entry in flushed])
        return flushed

    def put_letters(
        self, tx: Transaction, batch: Sequence[Outgoing], by: Party | None = None
    ) -> tuple[list[Entry], dict[bytes, Exception]]:
        """Seal letters and write down all that is to be known of them; those that nothing can be sealed for fail.

        A letter that goes to several people bears one id, and has one body: apart, where that takes fewer bytes.
        ``by`` is the device that writes, the present one by default.
        """
        by = by or self._person.party
        entries: list[Entry] = []
        failures: dict[bytes, Exception] = {}
        devices: dict[bytes, list[tuple[Device, bytes, bytes | None]]] = {}
        counters: dict[tuple[bytes, int, int], int] = {}
        sent: list[tuple[Value, ...]] = []
        custody: list[tuple[Value, ...]] = []
        prekey, prekey_day = newest_prekey(tx)
        for item in batch:
            if item.to not in devices:
                devices[item.to] = self._sealable(tx, item.to, by)
        # By letter: whether it must introduce, for each device of everybody it goes to.
        introduces: defaultdict[bytes, list[bool]] = defaultdict(list)
        for item in batch:
            introduces[item.letter] += (intro is not None for _, _, intro in devices[item.to])
        places: dict[bytes, mail.Place] = {}
        for item in batch:
            if not devices[item.to]:
                failures[item.letter] = UsageError("nothing can be sealed to this contact yet: add their link again")
                continue
            sealed = mail.SealedLetter(
                id=item.letter,
                kind=item.kind,
                sent_ms=item.sent_ms,
                life_ms=item.life_ms,
                body=item.body,
                prekey=prekey,
                prekey_day=prekey_day,
            )
            to = introduces[item.letter]
            pays = len(to) > 1 and mail.is_better_apart(sealed, to, len(by.device.certificate))
            if pays and item.letter not in places:
                once, places[item.letter] = mail.seal_body(item.body, now_ms=item.sent_ms, rand=os.urandom)
                entries.append(once)
                sent.append((once.id, item.letter, b"", b"", once.header.expires_day))
            if item.letter in places:
                sealed = mail.apart(sealed, places[item.letter])
            for device, their_prekey, intro in devices[item.to]:
                entry = self._seal_one(tx, counters, sealed, by, device, their_prekey, intro)
                entries.append(entry)
                sent.append((entry.id, item.letter, item.to, device.device, entry.header.expires_day))
            if item.is_told and item.kind not in ANSWERS:
                custody.append((item.letter, "kept", item.sent_ms))
            if item.local is not None:
                tx.apply(item.local(item.letter))
        tx.executemany("INSERT INTO sent(entry, letter, to_identity, device, expires_day) VALUES (?, ?, ?, ?, ?)", sent)
        tx.executemany("UPDATE device SET told = ? WHERE device = ?", {(prekey, row[3]) for row in sent})
        tx.executemany("INSERT OR IGNORE INTO custody(letter, event, at_ms) VALUES (?, ?, ?)", custody)
        tx.executemany(
            "INSERT INTO counter(device, day, direction, next) VALUES (?, ?, ?, ?)"
            " ON CONFLICT(device, day, direction) DO UPDATE SET next = excluded.next",
            [(*slot, number) for slot, number in counters.items()],
        )
        return entries, failures

    def _retry(self) -> None:
        self._retrying = False
        self._queued.set()

    def _post(self, batch: Sequence[_Waiting]) -> None:
        """On the writer thread: seal a batch and make it durable in the vault, in one transaction."""

        def act(tx: Transaction) -> tuple[list[Entry], dict[bytes, Exception]]:
            entries, failures = self.put_letters(tx, [one.letter for one in batch])
            self.fresh.update(entry.id for entry in entries)
            return entries, failures

        failures = self.commit(act)
        for one in batch:
            one.outcome = failures.get(one.letter.letter, one.letter.letter)

    def _seal_one(
        self,
        tx: Transaction,
        counters: dict[tuple[bytes, int, int], int],
        sealed: mail.SealedLetter,
        by: Party,
        device: Device,
        their_prekey: bytes,
        intro: bytes | None,
    ) -> Entry:
        day = day_of(sealed.sent_ms)
        slot = (device.device, day, OUT + RETIRED * by.is_retired if intro is None else INTRODUCING)
        if slot not in counters:
            row = tx.query("SELECT next FROM counter WHERE device = ? AND day = ? AND direction = ?", slot)
            counters[slot] = row[0][0] if row else 0
        counter = counters[slot]
        counters[slot] = counter + 1
        if intro is not None:
            return mail.seal_introduction(
                sealed,
                intro_secret=intro,
                sender=by.device,
                sender_seal=by.seal,
                receiver=device,
                counter=mail.intro_counter(by.seal.secret, device, day, counter),
                prekey=their_prekey,
                now_ms=sealed.sent_ms,
                rand=os.urandom,
            )
        return mail.seal_letter(
            sealed,
            key=self.direction_out(by, device),
            counter=counter,
            sender=by.device,
            sender_seal=by.seal,
            receiver=device,
            prekey=their_prekey,
            now_ms=sealed.sent_ms,
            rand=os.urandom,
        )

    def _sealable(self, tx: Transaction, identity: bytes, by: Party) -> list[tuple[Device, bytes, bytes | None]]:
        """The devices to seal to, each with its prekey, and the intro secret as long as it never wrote to this one."""
        contact = tx.query("SELECT intro FROM contact WHERE identity = ? AND blocked = 0", (identity,))
        if not contact:
            return []
        secret = bytes(contact[0][0]) if contact[0][0] is not None else None
        rows = tx.query(
            "SELECT certificate, prekey,"
            " EXISTS (SELECT 1 FROM counter WHERE counter.device = device.device AND direction = 1)"
            " FROM device WHERE identity = ? AND accepted = 1 AND prekey IS NOT NULL",
            (identity,),
        )
        # Whom a retired device writes to, they have known it.
        return [
            (read_certificate(bytes(c)), bytes(p), None if known or by.is_retired else secret) for c, p, known in rows
        ]

    def direction_out(self, by: Party, device: Device) -> bytes:
        """The key (32 B) of the tags from a device of this person to one of a contact."""
        where = (by.device.device, device.device)
        if where not in self._keys_out:
            self._keys_out[where] = mail.direction_key(by.seal, by.device, device)
        return self._keys_out[where]

    def _close_gap(self, tx: Transaction, device: bytes, receiver: Device, day: int) -> None:
        """Let the next letter of that day take the tags of those taken back: receivers look only WINDOW tags ahead."""
        where = (device, day)
        rows = tx.query("SELECT next FROM counter WHERE device = ? AND day = ? AND direction = 0", where)
        free = rows[0][0] if rows else 0
        key, waiting = self.direction_out(self._person.party, receiver), {entry.header.tags for entry in self._pending}
        while free:
            tag = mail.tag(key, day, free - 1)
            if (tag,) in waiting or self._node.open_store.by_tags([tag]):
                break
            free -= 1
        tx.execute("UPDATE counter SET next = ? WHERE device = ? AND day = ? AND direction = 0", (free, *where))

    def _put_head(self, tx: Transaction, entry: Entry) -> None:
        # The store may lack an entry that is in the outbox, or a space that was left: only the vault knows for certain.
        h = entry.header
        if h.seq:
            tx.execute(
                "INSERT OR REPLACE INTO head(device, space, seq, clock, id) VALUES (?, ?, ?, ?, ?)",
                (h.author, h.space, h.seq.to_bytes(8, "big"), h.clock.to_bytes(8, "big"), entry.id),
            )

    def head(self, space: bytes) -> tuple[Head | None, int]:
        """The head of this device's chain in a space, and the clock of what this person said there last."""
        device = self._person.device
        rows = self._vault.query("SELECT seq, id FROM head WHERE device = ? AND space = ?", (device, space))
        # A new device goes on where the earlier one stood, else its words would be sorted before theirs.
        clocks = self._vault.query("SELECT max(clock) FROM head WHERE space = ?", (space,))
        head = Head(int.from_bytes(rows[0][0], "big"), bytes(rows[0][1])) if rows else None
        return head, int.from_bytes(clocks[0][0] or b"", "big")


def newest_prekey(tx: Transaction) -> tuple[bytes, int]:
    """This person's newest prekey (32 B) and the day it was made."""
    public, day = tx.query("SELECT public, made_day FROM prekey WHERE superseded_day IS NULL")[0]
    return bytes(public), int(day)


def receipt_bodies(event: int, letters: Sequence[bytes]) -> list[bytes]:
    """The bodies of as many receipts as these letters need."""
    parts = (list(letters[start : start + RECEIPT_IDS]) for start in range(0, len(letters), RECEIPT_IDS))
    return [msgspec.msgpack.encode(Receipt(event, part)) for part in parts]
