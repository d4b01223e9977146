"""Inbox: how a person finds and opens the mail that is for them, among all that the node carries.

It follows the store's change log by a cursor and knows the tags to expect: for each day, the next ones of every device
of a contact, and those of introductions. What was opened, what the room made of it, the receipt for it and the cursor
are one transaction of the vault. What costs much to look at, and may be garbage, waits for its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from outlast.errors import ProtocolError, StorageError
from outlast.kernel import devices, mail
from outlast.kernel.database import Transaction
from outlast.kernel.entry import Entry, day_of
from outlast.kernel.expected import Expected
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import Device, read_certificate, spelled, told_apart
from outlast.kernel.kinds import Kind, KindError
from outlast.kernel.outbox import (
    IN,
    OUT,
    READ,
    RECEIPT_IDS,
    RECEIVED,
    RETIRED,
    RETRY_S,
    SILENT,
    Outgoing,
    Party,
    Receipt,
    receipt_bodies,
)
from outlast.kernel.revocation import DEVICES, read_told
from outlast.kernel.room import Change, Event, Letter
from outlast.kernel.space import GENESIS
from outlast.kernel.store import ALL

if TYPE_CHECKING:
    from outlast.kernel.person import Person

WINDOW: Final = 16
"""How many unused tags ahead a receiver looks for each contact device and day; those behind stay expected, since
letters come in any order."""
INTRODUCED_MAX: Final = 1000
"""Contacts that introduced themselves and were neither verified nor added by a link; more are not let in."""
DEVICES_MAX: Final = 8
"""Devices of a contact that letters are sealed to without asking; each makes every letter to them dearer."""
NEAR_DAYS: Final = mail.MAIL_LIFE_DAYS + 3
AHEAD_DAYS: Final = 3
"""Mail dated from NEAR_DAYS before today to AHEAD_DAYS after it is looked at as it comes; the rest waits."""
DAYS_MAX: Final = 128
"""Days whose tags are remembered."""
TRIES_MAX: Final = 8
"""Envelopes with one tag that are tried as they come; who saw a tag can make any number of them."""
FAILURES_MAX: Final = 64
"""Envelopes that may fail to open in one transaction, before the others wait for their turn."""
LATER_MAX: Final = 100_000
"""Envelopes that wait for their turn; those beyond are found again at the next start."""
LATER_SLICE: Final = 4
LATER_PAUSE: Final = 9
"""For each second spent on what waits, so many seconds are left to everything else,"""
LATER_PAUSE_MAX_S: Final = 1.0
"""but no more than this: some of that time went by in waiting for the disk and for other mail."""
REVOKED: Final = "revoked"
"""The warning at a contact's device that their identity has ended."""
INTROS_MAX: Final = 8
"""Secrets of one's own links by which introductions are found; each costs 1024 tags a day."""
ENDED_MAX: Final = 64
"""Devices of a contact that are remembered, the ended ones included."""
AWAITED_MAX: Final = 10_000
"""Letters that wait for bodies which lie apart; more are opened again at another start,"""
AWAITED_OF_ONE: Final = 1000
"""and more of one sender, who may have written about bodies that there are not."""
NOT_BLOCKED: Final = "sender NOT IN (SELECT identity FROM contact WHERE blocked)"
"""Of the letters that wait for their bodies, those that may be delivered: they may wait while somebody is blocked."""
REVOKED_MAX: Final = 64
"""Revocations of one identity that are kept for devices that are not known here."""

Query = Callable[[str], list[tuple[Any, ...]]]
_Told = tuple[Device, bytes, int]  # with its prekey (32 B), and the day of that


class _Source(NamedTuple):
    """Whose tags: a contact's device, or (``device`` None) introductions by the secret of a link; for which own one."""

    own: Party
    device: bytes | None
    secret: bytes


class _Slot(NamedTuple):
    """What an expected tag stands for."""

    source: _Source
    day: int
    counter: int


@dataclass(slots=True)
class _News:
    """What a batch of letters asks for: receipts by sender; an answer to who wrote to an earlier device, and which."""

    receipts: dict[bytes, list[bytes]] = field(default_factory=dict)
    astray: set[tuple[bytes, bytes]] = field(default_factory=set)


class Inbox:
    """A person's mail on its way in."""

    def __init__(self, person: Person) -> None:
        """Read the keys and what is known of contacts' devices out of the vault."""
        self._person = person
        self._node = person.node
        self._vault = person.vault
        self._outbox = person.outbox
        self.cursor = int.from_bytes(person.vault.meta("mail_cursor") or b"", "big")
        """Up to there the store's change log was looked through."""
        self.prekeys: list[OpeningKey] = []
        self.intros: list[bytes] = []
        self.reading = asyncio.Lock()
        self.devices: dict[bytes, Device] = {}
        self.is_elsewhere = False
        """Whether something was seen that this device signed and this vault never wrote."""
        self._founded = False
        """Whether a space's genesis came: it may be one in which an earlier device is still to be ended."""
        self._keys_in: dict[tuple[bytes, bytes], bytes] = {}
        """By own device and contact's device."""
        self._expected: dict[int, Expected] = {}
        """By day: the tags of mail that is for this person."""
        self._sources: list[_Source] = []
        """Whose tags these are,"""
        self._keys: list[bytes] = []
        """by what keys (32 B),"""
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        """and by own device, and contact's device or secret of a link, where among them."""
        self._awaited: set[bytes] = set()
        """Tags of bodies that lie apart, whose letters were opened."""
        self._own: dict[int, set[bytes]] = {}
        """By day: the tags that this device has not used yet and would use next."""
        self._copied = False
        """Whether a letter came that bears one of them and that this vault never wrote."""
        self._next_out: dict[tuple[bytes, int], int] = {}
        self._next_in: dict[tuple[int, bytes, int], int] = {}
        """By direction, device and day."""
        self._failures: dict[bytes, int] = {}
        """How often an envelope with that tag did not open."""
        self._fresh: Sequence[Change] = ()
        """What the door let in last, if it is not looked through yet."""
        self._later: deque[bytes] = deque()
        """Entries that wait for their turn; any thread adds."""
        self._later_arrived = asyncio.Event()
        self._later_arrived.set()
        self._unopened_due = self._odd_dates_due = True
        self.load(person.vault.query)

    async def run(self) -> None:
        """Open what is for this person, as the store's change log grows."""
        while True:
            try:
                await self.read()
            except StorageError:
                # Nothing of that batch is marked as opened: it is taken up again when there is room.
                await asyncio.sleep(RETRY_S)
            else:
                await self._node.wait_store(self.cursor)

    def hear(self, changes: Sequence[Change]) -> None:
        """Take changes as they were made, so that they need not be read again and decoded."""
        self._fresh = changes

    async def read(self) -> None:
        """Open everything in the store up to its present end that is for this person."""
        store = self._node.open_store
        async with self.reading:
            end = store.cursor()
            while changes := self._next():
                await self._look_through(changes)
            # What was at the end may be gone again: the log never returns to those numbers.
            self.cursor = max(self.cursor, end)
        if self.is_elsewhere:
            await self._person.renew()
        if self._copied:
            self._copied = False
            await self._person.doubt_device()
        if self._founded:
            self._founded = False
            await self._person.tell_again()

    async def run_later(self) -> None:
        """Give what was put off its turn, a little at a time: what does not open keeps nobody from their mail."""
        while True:
            await self._later_arrived.wait()
            began = self._node.loop.time()
            try:
                await self._look_again()
            except StorageError:
                await asyncio.sleep(RETRY_S)
            spent_s = self._node.loop.time() - began
            await asyncio.sleep(min(spent_s * LATER_PAUSE, LATER_PAUSE_MAX_S))

    async def learn(self, devices: Sequence[bytes], act: Callable[[Transaction], None]) -> None:
        """Make devices known by ``act``, and open the mail of theirs that is here already, in one transaction."""

        def find(tx: Transaction) -> Iterable[Entry]:
            act(tx)
            self.load(tx.query)
            tags = [tag for d in devices if d in self.devices for tag in self._expect_recent(d)]
            for device in devices:
                tags += [bytes(row[0]) for row in tx.query("SELECT tag FROM awaited WHERE device = ?", (device,))]
            return self._stored(tx, tags)

        async with self.reading:
            await self._open(find, self.cursor)
        self._look_for_odd_dates()

    def load(self, query: Query) -> None:
        """Read prekeys, intro secrets and devices from the vault into memory, by this thread's way to query it."""
        self.prekeys = [
            OpeningKey.from_secret(bytes(row[0]))
            for row in query("SELECT secret FROM prekey ORDER BY superseded_day IS NULL DESC, rowid DESC")
        ]
        self.intros = [
            bytes(row[0])
            for row in query(f"SELECT secret FROM invite WHERE kind = 'intro' ORDER BY rowid DESC LIMIT {INTROS_MAX}")
        ]
        rows = query("SELECT certificate FROM device JOIN contact USING (identity) WHERE NOT blocked")
        # What was read once is not verified again: with thousands of contacts that takes a second for each new one.
        known = {device.certificate: device for device in self.devices.values()}
        found = (known.get(bytes(row[0])) or read_certificate(bytes(row[0])) for row in rows)
        self.devices = {device.device: device for device in found}
        self._awaited = {bytes(row[0]) for row in query(f"SELECT tag FROM awaited WHERE {NOT_BLOCKED}")}
        counters = query("SELECT direction, device, day, next FROM counter")
        self._next_in = {
            (direction, bytes(device), day): number
            for direction, device, day, number in counters
            if direction in (IN, IN + RETIRED)
        }
        self._next_out = {
            (bytes(device), day): number for direction, device, day, number in counters if direction == OUT
        }

    def forget(self, query: Query) -> None:
        """Forget the expected tags and read the vault anew."""
        self.is_elsewhere = False
        self._expected.clear()
        self._sources, self._keys, self._numbers = [], [], {}
        self._own.clear()
        self._failures.clear()
        self.load(query)

    def put_device(self, tx: Transaction, device: Device, prekey: bytes | None, prekey_day: int | None) -> bool:
        """Remember a contact's device; one that no accepted device of theirs signed for waits for the person's word.

        So does any but the first, also when all others are ended. False when it is known as somebody else's, or with
        another key.
        """
        stands = tx.query("SELECT identity, seal FROM device WHERE device = ?", (device.device,))
        if stands and stands[0] != (device.identity, device.seal):
            return False
        others = tx.query("SELECT device, accepted FROM device WHERE identity = ?", (device.identity,))
        known = {bytes(row[0]) for row in others if row[1]}
        trusted = not others or device.device in known or (device.cross in known and len(known) < DEVICES_MAX)
        warning = "" if not others else "new_device" if trusted else "unknown_device"
        if tx.query("SELECT 1 FROM revoked WHERE (device, identity) = (?, ?)", (device.device, device.identity)):
            trusted, warning = False, REVOKED
        tx.execute(
            "INSERT INTO device"
            "(device, identity, seal, created_day, certificate, accepted, warning, prekey, prekey_day)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(device) DO UPDATE SET prekey = excluded.prekey,"
            " prekey_day = excluded.prekey_day"
            " WHERE prekey_day IS NULL OR prekey_day <= excluded.prekey_day OR prekey_day > ?",
            (
                device.device,
                device.identity,
                device.seal,
                device.created_day,
                device.certificate,
                int(trusted),
                warning,
                prekey,
                prekey_day,
                self._node.today() + AHEAD_DAYS,
            ),
        )
        return True

    def put_cursor(self, tx: Transaction, cursor: int) -> None:
        """Remember how far the change log was looked through."""
        tx.execute("INSERT OR REPLACE INTO meta(name, value) VALUES ('mail_cursor', ?)", (cursor.to_bytes(8, "big"),))

    def _next(self) -> Sequence[Change]:
        fresh, self._fresh = self._fresh, ()
        if fresh and fresh[0].cursor == self.cursor + 1:
            return fresh
        return self._node.open_store.changes(self.cursor, 500)

    async def _look_through(self, changes: Sequence[Change]) -> None:
        self._founded = self._founded or any(change.entry.header.kind == GENESIS.name for change in changes)
        self.is_elsewhere = self.is_elsewhere or any(devices.is_elsewhere(self._person, change) for change in changes)
        for signed in filter(None, (devices.ends_this(self._person, change) for change in changes)):
            await self.be_ended(signed)
        found = [
            change.entry
            for change in changes
            if change.event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED)
            and change.entry.header.space == mail.MAIL_SPACE
            and change.entry.payload is not None
            and self._expects(change.entry)
        ]
        cursor = changes[-1].cursor
        if found:
            await self._open(lambda _: found, cursor)
        else:
            await asyncio.sleep(0)  # a long log is walked through in steps
        self.cursor = cursor

    def _expects(self, entry: Entry) -> bool:
        """Whether to open an envelope at once; what may be garbage that is dear to look at is put off."""
        day, tag = day_of(entry.header.ts_ms), entry.header.tags[0]
        if tag in self._awaited:
            return True
        if day not in self._expected:
            if not self._is_near(day):
                self._put_off(entry.id)
                return False
            self._expect_day(day)
        if tag not in self._expected[day]:
            self._copied = self._copied or (tag in self._own[day] and not self._was_sent(entry.id))
            return False
        if self._failures.get(tag, 0) >= TRIES_MAX:
            self._put_off(entry.id)
            return False
        return True

    def _slot_of(self, entry: Entry) -> _Slot | None:
        day = day_of(entry.header.ts_ms)
        found = self._expected[day].get(entry.header.tags[0]) if day in self._expected else None
        return None if found is None else _Slot(self._sources[found[0]], day, found[1])

    def _is_near(self, day: int) -> bool:
        return -NEAR_DAYS <= day - self._node.today() <= AHEAD_DAYS

    def _put_off(self, entry: bytes) -> None:
        if len(self._later) < LATER_MAX:
            self._later.append(entry)
            self._node.loop.call_soon_threadsafe(self._later_arrived.set)

    def _put_off_unopened(self) -> None:
        """Find what an earlier run has put off, or could not open: mail by its tags, and all of odd dates."""
        store = self._node.open_store
        for bucket_day, _ in store.buckets(mail.MAIL_SPACE, ALL):
            day = bucket_day - mail.MAIL_LIFE_DAYS - 1
            if self._is_near(day):
                if day not in self._expected:
                    self._expect_day(day)
                for _, entry in store.by_tags(self._expected[day]):
                    if not self._was_opened(entry):
                        self._put_off(entry)

    def _put_off_odd_dates(self) -> None:
        store = self._node.open_store
        for bucket_day, _ in store.buckets(mail.MAIL_SPACE, ALL):
            if len(self._later) < LATER_MAX and not self._is_near(bucket_day - mail.MAIL_LIFE_DAYS - 1):
                for entry in store.bucket(mail.MAIL_SPACE, bucket_day, ALL)[1][:LATER_MAX]:
                    if not self._was_opened(entry.tobytes()):
                        self._put_off(entry.tobytes())

    def _look_for_odd_dates(self) -> None:
        self._odd_dates_due = True
        self._node.loop.call_soon_threadsafe(self._later_arrived.set)

    def _was_sent(self, entry: bytes) -> bool:
        return bool(self._vault.query("SELECT 1 FROM sent WHERE entry = ?", (entry,)))

    def _was_opened(self, entry: bytes) -> bool:
        return bool(self._vault.query("SELECT 1 FROM opened WHERE entry = ?", (entry,)))

    async def _look_again(self) -> None:
        async with self.reading:
            if self._unopened_due:
                self._put_off_unopened()
                self._unopened_due = False
            if self._odd_dates_due:
                self._odd_dates_due = False
                self._put_off_odd_dates()
            self._later_arrived.clear()
            ids = [self._later.popleft() for _ in range(min(LATER_SLICE, len(self._later)))]
            if self._later:
                self._later_arrived.set()
            entries = [e for e in self._node.open_store.load(ids) if e.payload is not None]
            odd = {day_of(e.header.ts_ms) for e in entries} - self._expected.keys()
            for day in odd:
                self._expect_day(day)
            found = [e for e in entries if self._slot_of(e) is not None and not self._was_opened(e.id)]
            try:
                if found:
                    await self._open(lambda _: found, self.cursor)
            except StorageError:
                self._later.extendleft(reversed(ids))
                self._later_arrived.set()
                raise
            finally:
                # Days on which somebody known wrote stay; any number of others could be made up.
                for day in odd - {day for _, _, day in self._next_in}:
                    self._forget_day(day)

    async def _open(self, find: Callable[[Transaction], Iterable[Entry]], cursor: int) -> None:
        """Open what ``find`` finds, and all stored mail that becomes expected by it, in one transaction.

        With it go the receipts, and ``cursor``: up to there the change log needs no second look. Raises StorageError;
        then nothing of it has happened.
        """

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            news = _News()
            found = find(tx)
            while tags := self._accept_all(tx, found, news):
                found = self._stored(tx, tags)
            self.put_cursor(tx, cursor)
            now = self._node.now_ms()
            receipts = [
                Outgoing(sender, "receipt", body, os.urandom(16), now)
                for sender, ids in news.receipts.items()
                for body in receipt_bodies(RECEIVED, ids)
            ]
            if self._person.is_ended:
                return [], None
            entries = self._outbox.put_letters(tx, receipts)[0]
            for own in self._person.retired:
                body = devices.about_renewal(self._person, tx, own.device)
                again = [
                    Outgoing(sender, DEVICES.name, body, os.urandom(16), now)
                    for sender, to in news.astray
                    if to == own.device.device
                ]
                entries += self._outbox.put_letters(tx, again, own)[0]
            return entries, None

        def commit() -> None:
            try:
                self._outbox.commit(act)
            except BaseException:
                self.forget(self._vault.read)
                raise

        await self._node.write(commit)
        await self._outbox.flush()
        self._node.touch()

    def _accept_all(self, tx: Transaction, entries: Iterable[Entry], news: _News) -> list[bytes]:
        """Open these envelopes and take in their letters; returns the tags that became expected by them."""
        tags: list[bytes] = []
        introduced: set[bytes] = set()
        failures = 0
        for entry in entries:
            if entry.header.tags[0] in self._awaited:
                self._accept_body(tx, entry, news, introduced)
                continue
            slot = self._slot_of(entry)
            if slot is None or tx.query("SELECT 1 FROM opened WHERE entry = ?", (entry.id,)):
                continue
            if failures >= FAILURES_MAX:
                self._put_off(entry.id)
                continue
            result = self._open_one(entry, slot)
            if result is None:
                failures += 1
                self._failures[entry.header.tags[0]] = self._failures.get(entry.header.tags[0], 0) + 1
                continue
            if self._accept_letter(tx, entry, slot, *result, news, introduced):
                tx.execute("INSERT INTO opened(entry, expires_day) VALUES (?, ?)", (entry.id, entry.header.expires_day))
            if slot.source.device is not None:
                tags += self._advance(slot)
        if introduced:
            self.load(tx.query)
            for device in introduced:
                tags += self._expect_recent(device)
            self._look_for_odd_dates()
        return tags

    def _stored(self, tx: Transaction, tags: Sequence[bytes]) -> Iterator[Entry]:
        """The mail here that bears these tags, one in memory at a time; what is likely garbage is put off."""
        store = self._node.open_store
        tried: Counter[bytes] = Counter()
        for tag, id in store.by_tags(tags) if tags else ():
            if tx.query("SELECT 1 FROM opened WHERE entry = ?", (id,)):
                continue
            tried[tag] += 1
            if tried[tag] > TRIES_MAX and tag not in self._awaited:
                self._put_off(id)
                continue
            yield from (entry for entry in store.load([id]) if entry.payload is not None)

    def _open_one(self, entry: Entry, slot: _Slot) -> tuple[Device, mail.SealedLetter, bytes] | None:
        """The sender, the letter, and the prekey by which it opened; None when it does not.

        Anybody who saw the tag can make an envelope with it; the real one stays expected.
        """
        for prekey in self.prekeys:
            with contextlib.suppress(ProtocolError):
                if slot.source.device is None:
                    introduction = mail.open_introduction(
                        entry, intro_secret=slot.source.secret, prekeys=[prekey], receiver=slot.source.own.device
                    )
                    return introduction.device, introduction.letter, prekey.public
                device = self.devices[slot.source.device]
                letter = mail.open_letter(entry, prekeys=[prekey], sender=device, receiver=slot.source.own.device)
                return device, letter, prekey.public
        return None

    def _accept_letter(
        self,
        tx: Transaction,
        entry: Entry,
        slot: _Slot,
        device: Device,
        sealed: mail.SealedLetter,
        prekey: bytes,
        news: _News,
        introduced: set[bytes],
    ) -> bool:
        """Take a letter in; False when it is to be opened again at another start.

        Then it is from somebody who is blocked, or from one too many, or no room here knows what it says.
        """
        now = self._node.now_ms()
        if device.device not in self.devices and device.device not in introduced:
            if device.identity == self._person.identity:
                self._hear_of_own(tx, sealed, now)
                return True
            known = tx.query("SELECT blocked FROM contact WHERE identity = ?", (device.identity,))
            if known and known[0][0]:
                return False
            if not self._has_room_for(tx, device.identity):
                # Which of their devices have ended is heard all the same: that makes room.
                ends = bool(known) and sealed.kind == DEVICES.name
                return ends and self._take_in(tx, entry, device, sealed, news, introduced)
            taken = {spelled(self._person.name), *(spelled(row[0]) for row in tx.query("SELECT name FROM contact"))}
            tx.execute(
                "INSERT OR IGNORE INTO contact(identity, name, verified_ms, blocked, added_ms, intro)"
                " VALUES (?, ?, NULL, 0, ?, NULL)",
                (device.identity, told_apart(device.name, device.identity, taken), now),
            )
            if not self.put_device(tx, device, sealed.prekey, sealed.prekey_day):
                return True
            introduced.add(device.device)
        elif slot.source.device is None and tx.query(
            "SELECT 1 FROM device WHERE device = ? AND (identity, seal) <> (?, ?)",
            (device.device, device.identity, device.seal),
        ):
            return True
        elif sealed.prekey is not None:
            tx.execute(
                "UPDATE device SET prekey = ?, prekey_day = ?"
                # A day that is still to come was a wrong clock's: it must not stay the newest for years.
                " WHERE device = ? AND (prekey_day IS NULL OR prekey_day <= ? OR prekey_day > ?)",
                (
                    sealed.prekey,
                    sealed.prekey_day,
                    device.device,
                    sealed.prekey_day,
                    self._node.today() + AHEAD_DAYS,
                ),
            )
        # They wrote, so they know this device and expect the pair's own tags from it: introductions to them may end.
        tx.execute(
            "INSERT INTO counter(device, day, direction, next) VALUES (?, ?, ?, ?)"
            " ON CONFLICT(device, day, direction) DO UPDATE SET next = max(next, excluded.next)",
            (
                device.device,
                slot.day,
                _direction(slot.source.own),
                slot.counter + 1 if slot.source.device is not None else 0,
            ),
        )
        if slot.source.own.is_retired and not tx.query(
            "SELECT 1 FROM counter WHERE device = ? AND day = ? AND direction = ?",
            (device.device, day_of(now), OUT + RETIRED),
        ):
            news.astray.add((device.identity, slot.source.own.device.device))
        tx.execute("UPDATE device SET used = ? WHERE device = ?", (prekey, device.device))
        room, kind = self._node.letter_rooms.get(sealed.kind), self._node.letters.get(sealed.kind)
        if sealed.kind not in SILENT and (room is None or kind is None):
            return False
        return self._take_in(tx, entry, device, sealed, news, introduced)

    def _take_in(
        self,
        tx: Transaction,
        entry: Entry,
        device: Device,
        sealed: mail.SealedLetter,
        news: _News,
        introduced: set[bytes],
    ) -> bool:
        """Deliver a letter of a device, or have it wait for its body; False when too many wait already."""
        who = device.identity, device.device
        letter = Letter(sealed.id, sealed.kind, sealed.body, sealed.sent_ms, *who, self._node.now_ms(), sealed.life_ms)
        if (place := mail.place_of(sealed)) is not None:
            return self._await_body(tx, entry, letter, place, news, introduced)
        self._deliver(tx, letter, entry.header.expires_day, news, introduced)
        return True

    def _await_body(
        self, tx: Transaction, entry: Entry, letter: Letter, place: mail.Place, news: _News, introduced: set[bytes]
    ) -> bool:
        """Deliver a letter whose body lies apart, now or when that comes; False when too many wait already."""
        tx.execute(
            "INSERT OR IGNORE INTO awaited(envelope, tag, place, letter, kind, sent_ms, life_ms, sender, device,"
            " expires_day) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.id,
                place.tag,
                letter.body,
                letter.id,
                letter.kind,
                letter.sent_ms,
                letter.life_ms,
                letter.sender,
                letter.device,
                entry.header.expires_day,
            ),
        )
        self._awaited.add(place.tag)
        for found in self._stored(tx, [place.tag]):
            self._accept_body(tx, found, news, introduced)
            if place.tag not in self._awaited:
                break
        (of_one,) = tx.query("SELECT count(*) FROM awaited WHERE sender = ?", (letter.sender,))[0]
        if (len(self._awaited) > AWAITED_MAX or of_one > AWAITED_OF_ONE) and place.tag in self._awaited:
            tx.execute("DELETE FROM awaited WHERE envelope = ?", (entry.id,))
            self._awaited.discard(place.tag)
            return False
        return True

    def _accept_body(self, tx: Transaction, found: Entry, news: _News, introduced: set[bytes]) -> None:
        """Deliver the letters that wait for this body; anybody can make others with its tag, but not with its hash."""
        tag = found.header.tags[0]
        rows = tx.query(
            "SELECT envelope, place, letter, kind, sent_ms, life_ms, sender, device, expires_day FROM awaited"
            f" WHERE tag = ? AND {NOT_BLOCKED}",
            (tag,),
        )
        left = len(rows)
        for envelope, place, id, kind, sent_ms, life_ms, sender, device, expires_day in rows:
            try:
                body = mail.open_body(found, mail.read_place(bytes(place)))
            except ProtocolError:
                continue
            now = self._node.now_ms()
            letter = Letter(bytes(id), kind, body, sent_ms, bytes(sender), bytes(device), now, life_ms)
            self._deliver(tx, letter, expires_day, news, introduced)
            tx.execute("DELETE FROM awaited WHERE envelope = ?", (envelope,))
            left -= 1
        if not left:
            self._awaited.discard(tag)

    def _deliver(self, tx: Transaction, letter: Letter, expires_day: int, news: _News, introduced: set[bytes]) -> None:
        """Give a letter, once, to whom its kind is for."""
        if tx.query("SELECT 1 FROM seen_letter WHERE (letter, sender) = (?, ?)", (letter.id, letter.sender)):
            return
        tx.execute(
            "INSERT INTO seen_letter(letter, sender, sent_ms, received_ms, expires_day) VALUES (?, ?, ?, ?, ?)",
            (letter.id, letter.sender, letter.sent_ms, letter.received_ms, expires_day),
        )
        room, kind = self._node.letter_rooms.get(letter.kind), self._node.letters.get(letter.kind)
        if letter.kind == "receipt":
            # One that was ended may be in other hands: that these have a letter is no news of its receiver.
            if not tx.query("SELECT 1 FROM device WHERE device = ? AND warning = ?", (letter.device, REVOKED)):
                self._accept_receipt(tx, letter.sender, letter.body, letter.received_ms)
        elif letter.kind == DEVICES.name:
            news.receipts.setdefault(letter.sender, []).append(letter.id)
            self._hear_of_devices(tx, letter.sender, letter.body, letter.received_ms, introduced)
        elif room is not None and kind is not None and _is_of(kind, letter.body):
            tx.apply(room.receive(letter, tx), room.name)
            # What nobody is ever shown is not said to have been received.
            if letter.kind not in SILENT and kind.acknowledged and not letter.is_over:
                news.receipts.setdefault(letter.sender, []).append(letter.id)

    def _hear_of_devices(self, tx: Transaction, sender: bytes, body: bytes, now: int, introduced: set[bytes]) -> None:
        """Take in what a contact's identity signed of its devices; which of them brought it does not matter."""
        added, revoked = read_told(body, sender)
        left = self._let_in(tx, sender, added, introduced)
        for one in revoked:
            of_theirs = (one.device, sender)
            if tx.query("SELECT 1 FROM device WHERE (device, identity) = (?, ?)", of_theirs) or tx.query(
                "SELECT count(*) < ? FROM revoked WHERE identity = ?", (REVOKED_MAX, sender)
            ) == [(1,)]:
                devices.put_revoked(tx, sender, one.device, one.signed, now)
            tx.execute(
                "UPDATE device SET accepted = 0, warning = ? WHERE (device, identity) = (?, ?)", (REVOKED, *of_theirs)
            )
        self._let_in(tx, sender, left, introduced)  # an end makes room

    def _let_in(self, tx: Transaction, sender: bytes, told: Sequence[_Told], introduced: set[bytes]) -> list[_Told]:
        """Remember devices of a contact; returns those that there was no room for."""
        left: list[_Told] = []
        for device, prekey, day in told:
            known = tx.query("SELECT 1 FROM device WHERE device = ?", (device.device,))
            if not known and not self._has_room_for(tx, sender):
                left.append((device, prekey, day))
            elif self.put_device(tx, device, prekey, day):
                introduced.add(device.device)
        return left

    def _hear_of_own(self, tx: Transaction, sealed: mail.SealedLetter, now: int) -> None:
        """Take in that another device of this person has ended this one."""
        if sealed.kind == DEVICES.name:
            for one in read_told(sealed.body, self._person.identity)[1]:
                if one.device == self._person.device:
                    devices.put_revoked(tx, one.identity, one.device, one.signed, now)
                    self._person.is_ended = True

    async def be_ended(self, signed: bytes) -> None:
        """Take in that another device of this person has ended this one."""
        person, now = self._person, self._node.now_ms()
        await self._node.write(
            lambda: self._vault.write(lambda tx: devices.put_revoked(tx, person.identity, person.device, signed, now))
        )
        person.is_ended = True
        self._node.touch()

    def _has_room_for(self, tx: Transaction, identity: bytes) -> bool:
        """Whether one more who introduces themself is let in, or one more device of a contact."""
        if tx.query("SELECT 1 FROM contact WHERE identity = ?", (identity,)):
            (room,) = tx.query(
                "SELECT count(*) FILTER (WHERE warning <> ?) < ? AND count(*) < ? FROM device WHERE identity = ?",
                (REVOKED, 2 * DEVICES_MAX, ENDED_MAX, identity),
            )[0]
            return bool(room)
        strangers = "SELECT count(*) < ? FROM contact WHERE intro IS NULL AND verified_ms IS NULL AND NOT blocked"
        return bool(tx.query(strangers, (INTRODUCED_MAX,))[0][0])

    def _accept_receipt(self, tx: Transaction, sender: bytes, body: bytes, now: int) -> None:
        try:
            receipt = msgspec.msgpack.decode(body, type=Receipt)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return
        event = {RECEIVED: "received", READ: "read"}.get(receipt.event)
        for letter in receipt.letters[:RECEIPT_IDS] if event else ():
            # Only whom a letter was sent to can acknowledge it.
            if not tx.query("SELECT 1 FROM sent WHERE letter = ? AND to_identity = ?", (letter, sender)):
                continue
            tx.execute("UPDATE parcel SET copied = 2 WHERE letter = ? AND outgoing", (letter,))
            if not tx.execute("DELETE FROM untold WHERE (identity, letter) = (?, ?)", (sender, letter)):
                tx.execute("INSERT OR IGNORE INTO custody(letter, event, at_ms) VALUES (?, ?, ?)", (letter, event, now))

    def _expect_day(self, day: int) -> None:
        """Make the tags of one day known: those of each contact's device, and those of introductions."""
        if len(self._expected) >= DAYS_MAX:
            oldest, gone = next(iter(self._expected.items()))
            self._forget_day(oldest)
            self._failures = {tag: count for tag, count in self._failures.items() if tag not in gone}
        tags = self._expected[day] = Expected(day, self._keys)
        self._own[day] = {
            mail.tag(self._outbox.direction_out(self._person.party, device), day, self._next_out.get((key, day), 0))
            for key, device in self.devices.items()
        }
        for own in self._parties():
            for secret in self.intros:
                tags.add(self._number(own, None, secret), range(mail.INTRO_TAGS))
            for device in self.devices:
                self._expect_window(own, device, day)

    def _parties(self) -> list[Party]:
        return [*reversed(self._person.retired), self._person.party]

    def _expect_window(self, own: Party, device: bytes, day: int) -> list[bytes]:
        return self._expect(own, device, day, range(self._next_in.get((_direction(own), device, day), 0) + WINDOW))

    def _forget_day(self, day: int) -> None:
        self._own.pop(day, None)
        self._expected.pop(day, None)

    def _expect(self, own: Party, device: bytes, day: int, counters: Iterable[int]) -> list[bytes]:
        return self._expected[day].add(self._number(own, device), counters)

    def _number(self, own: Party, device: bytes | None, secret: bytes = b"") -> int:
        """The number of a source of tags, and of its key."""
        where = (own.device.device, device or secret)
        if where not in self._numbers:
            key = self._direction_in(own, device) if device is not None else mail.intro_key(secret, own.device)
            self._numbers[where] = len(self._sources)
            self._sources.append(_Source(own, device, secret))
            self._keys.append(key)
        return self._numbers[where]

    def _advance(self, slot: _Slot) -> list[bytes]:
        """Move the window of one device and day past an opened counter; returns the tags new in it."""
        assert slot.source.device is not None
        where = (_direction(slot.source.own), slot.source.device, slot.day)
        old = self._next_in.get(where, 0)
        if slot.counter + 1 <= old:
            return []
        self._next_in[where] = slot.counter + 1
        return self._expect(
            slot.source.own, slot.source.device, slot.day, range(old + WINDOW, slot.counter + 1 + WINDOW)
        )

    def _expect_recent(self, device: bytes) -> list[bytes]:
        """The tags of a newly known device for all days that stored mail can still have."""
        today = self._node.today()
        days = {*range(today - NEAR_DAYS, today + AHEAD_DAYS + 1), *self._expected}
        tags: list[bytes] = []
        for day in days:
            if day not in self._expected:
                self._expect_day(day)
            for own in self._parties():
                tags += self._expect_window(own, device, day)
        return tags

    def _direction_in(self, own: Party, device: bytes) -> bytes:
        where = (own.device.device, device)
        if where not in self._keys_in:
            self._keys_in[where] = mail.direction_key(own.seal, self.devices[device], own.device)
        return self._keys_in[where]


def _direction(own: Party) -> int:
    """The direction of the counters of what comes in to a device of this person."""
    return IN + RETIRED * own.is_retired


def _is_of(kind: Kind, body: bytes) -> bool:
    try:
        kind.decode(body)
    except KindError:
        return False
    return True
