"""Person: one unlocked vault and what it can do: contacts, letters, custody, bundles, backup.

The node owns the threads: everything that writes runs on its single writer thread through ``node.write``, what reads
runs on the event loop. A letter is sealed, put into the vault's outbox together with what the room wants to remember of
it, and only then handed to the node's one door; at the next start the outbox is replayed, so nothing that was
acknowledged is lost between the two files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeVar

import msgspec

from outlast.errors import LockedError, NotFoundError, ProtocolError, StorageError, UsageError
from outlast.kernel import backup as backups
from outlast.kernel import bundle as bundles
from outlast.kernel import invite, keyslot, mail
from outlast.kernel.admit import Admitted, Held, Known, Refused
from outlast.kernel.database import Transaction
from outlast.kernel.entry import DAY_MS, Entry, day_of, pack, unpack
from outlast.kernel.home import local_cost
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Device,
    SealingKey,
    SigningKey,
    certify,
    check_name,
    fingerprint_words,
    id_text,
    identity_key,
    parse_id,
    read_certificate,
    sign_prekey,
    words_of,
)
from outlast.kernel.kinds import Kind, KindError
from outlast.kernel.log import Head, next_entry
from outlast.kernel.room import Change, Event, Letter, RowChanges, Value
from outlast.kernel.space import space_of
from outlast.kernel.vault import Vault

if TYPE_CHECKING:
    from outlast.kernel.node import Node

T = TypeVar("T")

WINDOW: Final = 16
"""How many unused tags ahead a receiver looks for each contact device and day; those behind stay expected, since
letters come in any order."""
RETRY_S: Final = 5.0
"""How long after the disk refused it is tried again."""
POST_BATCH: Final = 200
"""Letters sealed and committed at a time: the first of many leave while the others are still being sealed."""
CUSTODY_DAYS: Final = 7
PREKEY_SPARE_DAYS: Final = 7
LINK_DAYS: Final = 90
CLAIMS: Final = 32
"""How many of the newest verified letters' dates count as claims about the time."""
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
"""For each second spent on what waits, so many seconds are left to everything else."""
HELD_BY_MAX: Final = 200_000
"""Entries of one bundle that its writer is remembered to have; those beyond travel once more."""

OUT: Final = 0
INTRODUCING: Final = 2
"""Directions of counters, beside 1 for what comes in."""

RECEIVED: Final = 1
READ: Final = 2
RECEIPT_IDS: Final = 200

CustodyEvent = Literal["kept", "copied", "received", "read"]
_EVENTS: Final[tuple[CustodyEvent, ...]] = ("kept", "copied", "received", "read")


class Receipt(msgspec.Struct, array_like=True, frozen=True):
    """Kernel letter ``receipt``: which letters were received (1) or read (2)."""

    event: int
    letters: list[bytes]


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody in this person's vault. ``warnings`` are codes, told by the pages in words."""

    identity: bytes  # 32 B
    name: str
    verified_ms: int | None
    blocked: bool
    added_ms: int
    warnings: tuple[str, ...]

    @property
    def id(self) -> str:
        """The ``ID`` that people type."""
        return id_text(self.identity)

    @property
    def words(self) -> list[str]:
        """The six words to compare aloud."""
        return fingerprint_words(self.identity)


@dataclass(frozen=True, slots=True)
class Custody:
    """One thing that is known about where a letter has been."""

    event: CustodyEvent
    at_ms: int


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What a bundle held: entries and bytes, how many entries were new here, and what was wrong with it."""

    entries: int
    size_bytes: int
    new: int
    damaged: int = 0
    problems: tuple[str, ...] = ()
    written: tuple[bytes, ...] = ()


Progress = Callable[[int, int | None], None]
"""Told of long work: how much is done, and of how much, None while that is unknown."""


def _silent(_done: int, _total: int | None) -> None:
    """The progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A letter on its way into the outbox."""

    to: bytes
    kind: str
    body: bytes
    letter: bytes
    sent_ms: int
    local: Callable[[bytes], RowChanges] | None = None


@dataclass(slots=True)
class _Waiting:
    """A letter whose sender waits until it is durable."""

    letter: _Outgoing
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


@dataclass(slots=True)
class _Slot:
    """What an expected tag stands for: a contact's device and counter, or (device None) an introduction."""

    device: bytes | None
    day: int
    counter: int
    secret: bytes = b""


class Person:
    """A person on this node whose vault is open. Made by the node only."""

    def __init__(self, node: Node, key: str, vault: Vault) -> None:
        """Read the keys out of the vault; ``key`` names the vault's folder."""
        self.node = node
        self.key = key
        self.vault = vault
        self._entropy = _must(vault.meta("entropy"))
        self.identity = identity_key(self._entropy).public
        self.name = _must(vault.meta("name")).decode()
        self.certificate = _must(vault.meta("certificate"))
        self.signing_key = SigningKey.from_seed(_must(vault.meta("device")))
        self._own = read_certificate(self.certificate)
        self._seal = OpeningKey.from_secret(_must(vault.meta("seal")))
        self._cursor = int.from_bytes(vault.meta("mail_cursor") or b"", "big")
        self._prekeys: list[OpeningKey] = []
        self._intros: list[bytes] = []
        self._devices: dict[bytes, Device] = {}
        self._keys_in: dict[bytes, bytes] = {}
        self._keys_out: dict[bytes, bytes] = {}
        self._expected: dict[int, dict[bytes, _Slot]] = {}
        """By day: the tags of mail that is for this person."""
        self._next_in: dict[tuple[bytes, int], int] = {}
        self._failures: dict[bytes, int] = {}
        """How often an envelope with that tag did not open."""
        self._later: deque[bytes] = deque()
        """Entries that wait for their turn; any thread adds."""
        self._later_arrived = asyncio.Event()
        self._later_arrived.set()
        self._unopened_due = self._odd_dates_due = True
        self._pending: deque[Entry] = deque()
        """In the outbox, and on their way to the store; the writer thread adds, the loop takes."""
        self._flushed: deque[bytes] = deque()
        """In the store by now, and to be struck out of the outbox; the loop adds, the writer thread takes."""
        self._speaking = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._retrying = False
        self._closed = False
        self.fresh: set[bytes] = set()
        self._queue: list[_Waiting] = []
        self._queued = asyncio.Event()
        self._load(vault.query)

    async def start(self) -> None:
        """Bring what the last run had acknowledged, and not yet handed on, to the node's door."""
        rows = self.query("SELECT packed FROM outbox ORDER BY rowid")
        self._pending.extend(unpack(bytes(row[0]))[0] for row in rows)
        await self._flush()

    def leave(self, tx: Transaction) -> None:
        """Write down, before the vault is closed, what a restart need not look through again."""
        self._strike(tx)
        self._put_cursor(tx, self._cursor)

    # ---- who this is ----

    @property
    def device(self) -> bytes:
        """The public key (32 B) of this person's device, which signs entries."""
        return self._own.device

    @property
    def id(self) -> str:
        """The ``ID`` of this person: 56 characters."""
        return id_text(self.identity)

    def words(self) -> list[str]:
        """The six words by which others compare this identity."""
        return fingerprint_words(self.identity)

    def secret_words(self) -> list[str]:
        """The 24 words that restore this identity; whoever has them is this person."""
        return words_of(self._entropy)

    async def link(self) -> str:
        """A contact link: with it somebody's first letter can be sealed; it is good for 90 days from today."""
        await self.met_somebody()
        row = self.query("SELECT public, made_day FROM prekey ORDER BY made_day DESC LIMIT 1")[0]
        public, day = bytes(row[0]), int(row[1])

        def keep(tx: Transaction) -> None:
            tx.execute("INSERT OR IGNORE INTO invite(secret, made_day, kind) VALUES (?, ?, 'prekey')", (public, day))

        if not self.query("SELECT 1 FROM invite WHERE secret = ? AND kind = 'prekey'", (public,)):
            await self.node.write(lambda: self.vault.write(keep))
        return invite.make_link(
            self.certificate, public, day, sign_prekey(self.signing_key, public, day), self._intros[0]
        )

    def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT on this person's vault."""
        return self.vault.query(sql, args)

    # ---- contacts ----

    def contacts(self) -> list[Contact]:
        """All contacts by name."""
        return self._contacts("ORDER BY lower(name), identity", ())

    def contact(self, identity: bytes) -> Contact:
        """The contact with that identity; raises NotFoundError."""
        for contact in self._contacts("WHERE identity = ?", (identity,)):
            return contact
        raise NotFoundError("no such contact here: add them with their link first")

    def _contacts(self, which: str, args: Sequence[Value]) -> list[Contact]:
        rows = self.query(
            "SELECT identity, name, verified_ms, blocked, added_ms, (SELECT group_concat(DISTINCT warning) FROM device"
            f" WHERE device.identity = contact.identity AND warning <> '') FROM contact {which}",
            args,
        )
        return [
            Contact(bytes(i), n, v, bool(b), a, tuple(sorted(w.split(","))) if w else ()) for i, n, v, b, a, w in rows
        ]

    def find(self, text: str) -> Contact:
        """The contact meant by a whole ID, a name, or the beginning of an ID; raises NotFoundError or UsageError."""
        text = text.strip()
        if len(text) == 56:
            with contextlib.suppress(UsageError):
                return self.contact(parse_id(text))
        contacts = self.contacts()
        found = [c for c in contacts if c.name.casefold() == text.casefold()]
        if not found and len(text) >= 4:
            found = [c for c in contacts if c.id.startswith(text.lower())]
        if not found:
            raise NotFoundError(f"no contact is called {text[:80]!r}: add them with their link first")
        if len(found) > 1:
            raise UsageError(f"{len(found)} contacts match {text[:80]!r}: use the whole ID")
        return found[0]

    async def add_contact(self, link: str, name: str | None = None) -> Contact:
        """Add somebody by their contact link, or renew what is known of them; raises UsageError or ProtocolError."""
        invitation = invite.read_link(link, today=self.node.today())
        device = invitation.device
        if device.identity == self.identity:
            raise UsageError("this is your own link: give it to others")
        chosen = check_name(name if name is not None else device.name)

        def add(tx: Transaction) -> None:
            now = self.node.now_ms()
            tx.execute(
                "INSERT INTO contact(identity, name, verified_ms, blocked, added_ms, intro)"
                " VALUES (?, ?, NULL, 0, ?, ?)"
                " ON CONFLICT(identity) DO UPDATE SET intro = excluded.intro"
                + (", name = excluded.name" if name is not None else ""),
                (device.identity, chosen, now, invitation.intro_secret),
            )
            if not self._put_device(tx, device, invitation.prekey, invitation.prekey_day):
                raise UsageError("the device of this link is known here as somebody else's: ask for a link of another")

        await self._learn([device.device], add)
        return self.contact(device.identity)

    async def verify(self, identity: bytes) -> None:
        """Remember that the six words were compared with this contact."""
        await self._update_contact(identity, "verified_ms", self.node.now_ms())

    async def block(self, identity: bytes, blocked: bool = True) -> None:
        """Stop opening this contact's mail (or begin again); what is already here stays."""
        self.contact(identity)
        devices = [bytes(row[0]) for row in self.query("SELECT device FROM device WHERE identity = ?", (identity,))]

        def update(tx: Transaction) -> None:
            tx.execute("UPDATE contact SET blocked = ? WHERE identity = ?", (int(blocked), identity))

        if blocked:
            async with self._reading:
                await self.node.write(lambda: self.vault.write(update))
                self._forget_expected(self.query)
            self.node.touch()
        else:
            await self._learn(devices, update)

    async def rename(self, identity: bytes, name: str) -> None:
        """Call a contact by another name."""
        await self._update_contact(identity, "name", check_name(name))

    async def accept_device(self, identity: bytes) -> None:
        """Accept the contact's new devices after they were warned about; from now on letters are sealed to them too."""
        self.contact(identity)

        def accept(tx: Transaction) -> None:
            tx.execute("UPDATE device SET accepted = 1, warning = '' WHERE identity = ?", (identity,))

        await self.node.write(lambda: self.vault.write(accept))
        self._load(self.query)
        self.node.touch()

    async def _update_contact(self, identity: bytes, column: str, value: Value) -> None:
        self.contact(identity)

        def update(tx: Transaction) -> None:
            tx.execute(f"UPDATE contact SET {column} = ? WHERE identity = ?", (value, identity))

        await self.node.write(lambda: self.vault.write(update))
        self.node.touch()

    # ---- letters out ----

    async def send(
        self, to: bytes, kind: str, body: msgspec.Struct, *, local: Callable[[bytes], RowChanges] | None = None
    ) -> bytes:
        """Seal a letter to every accepted device of a contact; returns its 16-byte id once it is durable here.

        ``local`` gives the rows that the room remembers with it, in the same transaction. Raises NotFoundError,
        UsageError (blocked, nothing to seal to, too large) and StorageError (nothing was kept).
        """
        contact = self.contact(to)
        if contact.blocked:
            raise UsageError(f"{contact.name} is blocked here: unblock them first")
        letter_kind = self.node.letters.get(kind)
        if letter_kind is None:
            raise UsageError(f"no room here knows letters of kind {kind!r}")
        data = letter_kind.encode(body)
        if len(data) > mail.LETTER_MAX_BYTES:
            raise UsageError(
                f"a letter holds at most {mail.LETTER_MAX_BYTES} bytes, this has {len(data)}: make it shorter"
            )
        return await self._enqueue(to, kind, data, local)

    async def mark_read(self, letters: Sequence[bytes]) -> None:
        """Tell the senders of these letters that they were read."""
        by_sender: dict[bytes, list[bytes]] = {}
        for letter in letters:
            for (sender,) in self.query("SELECT sender FROM seen_letter WHERE letter = ?", (letter,)):
                by_sender.setdefault(bytes(sender), []).append(letter)
        await self._send_receipts(READ, by_sender)

    def custody(self, letters: Sequence[bytes]) -> dict[bytes, list[Custody]]:
        """For each letter the events known of it, in order; kept for seven days."""
        result: dict[bytes, list[Custody]] = {letter: [] for letter in letters}
        for start in range(0, len(letters), 500):
            part = list(letters[start : start + 500])
            marks = ",".join("?" * len(part))
            for letter, event, at_ms in self.query(
                f"SELECT letter, event, at_ms FROM custody WHERE letter IN ({marks})", part
            ):
                result[bytes(letter)].append(Custody(event, at_ms))
        for known in result.values():
            known.sort(key=lambda one: (one.at_ms, _EVENTS.index(one.event)))
        return result

    async def take_back(self, letter: bytes, *, local: RowChanges = ()) -> bool:
        """Remove a letter that certainly never left this node, with ``local``; False when it may have left."""
        ids = [bytes(row[0]) for row in self.query("SELECT entry FROM sent WHERE letter = ?", (letter,))]

        def keep_whole(tx: Transaction) -> None:
            self._strike(tx)
            rows = [(entry.id, pack(entry)) for entry in entries]
            tx.executemany("INSERT OR IGNORE INTO outbox(entry_id, packed) VALUES (?, ?)", rows)

        def forget(tx: Transaction) -> None:
            tx.executemany("DELETE FROM outbox WHERE entry_id = ?", [(i,) for i in ids])
            devices = tx.query(
                "SELECT device, certificate FROM sent JOIN device USING (device) WHERE letter = ?", (letter,)
            )
            tx.execute("DELETE FROM sent WHERE letter = ?", (letter,))
            tx.execute("DELETE FROM custody WHERE letter = ?", (letter,))
            for day in {day_of(entry.header.ts_ms) for entry in entries}:
                for device, certificate in devices:
                    self._close_gap(tx, device, read_certificate(certificate), day)
            tx.apply(local)

        async with self._flushing:
            if not ids or not self.fresh.issuperset(ids) or self.node.has_left(ids):
                return False
            if len(self.custody([letter])[letter]) > 1:
                return False
            entries = self.node.open_store.load(ids)
            # Until it is forgotten everywhere, a restart brings the letter back whole.
            await self.node.write(lambda: self.vault.write(keep_whole))
            try:
                await self.node.remove(ids)
                gone = not self.node.has_left(ids)
                if gone:
                    await self.node.write(lambda: self.vault.write(forget))
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
        await self._flush()
        self.node.touch()
        return gone

    def _close_gap(self, tx: Transaction, device: bytes, receiver: Device, day: int) -> None:
        """Let the next letter of that day take the tags of those taken back: receivers look only WINDOW tags ahead."""
        where = (device, day)
        rows = tx.query("SELECT next FROM counter WHERE device = ? AND day = ? AND direction = 0", where)
        free = rows[0][0] if rows else 0
        key, waiting = self._direction_out(receiver), {entry.header.tags for entry in self._pending}
        while free:
            tag = mail.tag(key, day, free - 1)
            if (tag,) in waiting or self.node.open_store.by_tags([tag]):
                break
            free -= 1
        tx.execute("UPDATE counter SET next = ? WHERE device = ? AND day = ? AND direction = 0", (free, *where))

    def _enqueue(
        self, to: bytes, kind: str, body: bytes, local: Callable[[bytes], RowChanges] | None
    ) -> asyncio.Future[bytes]:
        if self._closed:
            raise LockedError("this person is locked: unlock them first")
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(_Outgoing(to, kind, body, os.urandom(16), self.node.now_ms(), local), done))
        self._queued.set()
        return done

    async def _send_receipts(self, event: int, by_sender: dict[bytes, list[bytes]]) -> None:
        for sender, letters in by_sender.items():
            for body in _receipts(event, letters):
                with contextlib.suppress(UsageError):
                    await self._enqueue(sender, "receipt", body, None)

    async def run_outbox(self) -> None:
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
                        await self.node.write(partial(self._post, batch))
                    await self._flush()
                except StorageError as error:
                    refused = error
                for one in batch:
                    one.answer(refused)
                if batch:
                    self.node.touch()
        except Exception as error:
            failure = error
            raise
        finally:
            self._closed = True
            for one in (*batch, *self._queue):
                one.answer(failure)

    async def _flush(self) -> None:
        """Hand what waits in the outbox to the node's door; while the disk is full it is tried again and again."""
        async with self._flushing:
            entries = [self._pending.popleft() for _ in range(len(self._pending))]
            if not entries:
                return
            try:
                await self.node.admit_own(entries)
            except BaseException as error:
                self._pending.extendleft(reversed(entries))
                if not isinstance(error, StorageError):
                    raise
                if not self._retrying:
                    self._retrying = True
                    self.node.loop.call_later(RETRY_S, self._retry)
                return
            self._flushed.extend(entry.id for entry in entries)

    def _retry(self) -> None:
        self._retrying = False
        self._queued.set()

    def _commit(self, act: Callable[[Transaction], tuple[list[Entry], T]]) -> T:
        """On the writer thread: one transaction that puts the entries that ``act`` returns into the outbox."""
        struck: list[bytes] = []

        def write(tx: Transaction) -> tuple[list[Entry], T]:
            struck.extend(self._strike(tx))
            entries, result = act(tx)
            tx.executemany("INSERT INTO outbox(entry_id, packed) VALUES (?, ?)", [(e.id, pack(e)) for e in entries])
            for entry in entries:
                self._put_head(tx, entry)
            return entries, result

        try:
            entries, result = self.vault.write(write)
        except BaseException:
            self._flushed.extendleft(reversed(struck))
            raise
        self._pending.extend(entries)
        return result

    def _strike(self, tx: Transaction) -> list[bytes]:
        flushed = [self._flushed.popleft() for _ in range(len(self._flushed))]
        tx.executemany("DELETE FROM outbox WHERE entry_id = ?", [(entry,) for entry in flushed])
        return flushed

    def _post(self, batch: Sequence[_Waiting]) -> None:
        """On the writer thread: seal a batch and make it durable in the vault, in one transaction."""

        def act(tx: Transaction) -> tuple[list[Entry], dict[bytes, Exception]]:
            entries, failures = self._put_letters(tx, [one.letter for one in batch])
            self.fresh.update(entry.id for entry in entries)
            return entries, failures

        failures = self._commit(act)
        for one in batch:
            one.outcome = failures.get(one.letter.letter, one.letter.letter)

    def _put_letters(self, tx: Transaction, batch: Sequence[_Outgoing]) -> tuple[list[Entry], dict[bytes, Exception]]:
        """Seal letters and write down all that is to be known of them; those that nothing can be sealed for fail."""
        entries: list[Entry] = []
        failures: dict[bytes, Exception] = {}
        devices: dict[bytes, list[tuple[Device, bytes, bytes | None]]] = {}
        counters: dict[tuple[bytes, int, int], int] = {}
        sent: list[tuple[Value, ...]] = []
        custody: list[tuple[Value, ...]] = []
        prekey, prekey_day = self._newest_prekey(tx)
        for item in batch:
            if item.to not in devices:
                devices[item.to] = self._sealable(tx, item.to)
            if not devices[item.to]:
                failures[item.letter] = UsageError("nothing can be sealed to this contact yet: add their link again")
                continue
            for device, their_prekey, intro in devices[item.to]:
                sealed = mail.SealedLetter(
                    id=item.letter,
                    kind=item.kind,
                    sent_ms=item.sent_ms,
                    body=item.body,
                    prekey=prekey,
                    prekey_day=prekey_day,
                )
                entry = self._seal_one(tx, counters, sealed, device, their_prekey, intro)
                entries.append(entry)
                sent.append((entry.id, item.letter, item.to, device.device, entry.header.expires_day))
            if item.kind != "receipt":
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

    def _seal_one(
        self,
        tx: Transaction,
        counters: dict[tuple[bytes, int, int], int],
        sealed: mail.SealedLetter,
        device: Device,
        their_prekey: bytes,
        intro: bytes | None,
    ) -> Entry:
        day = day_of(sealed.sent_ms)
        slot = (device.device, day, OUT if intro is None else INTRODUCING)
        if slot not in counters:
            row = tx.query("SELECT next FROM counter WHERE device = ? AND day = ? AND direction = ?", slot)
            counters[slot] = row[0][0] if row else 0
        counter = counters[slot]
        counters[slot] = counter + 1
        if intro is not None:
            return mail.seal_introduction(
                sealed,
                intro_secret=intro,
                sender=self._own,
                sender_seal=self._seal,
                receiver=device,
                counter=mail.intro_counter(self._seal.secret, device, day, counter),
                prekey=their_prekey,
                now_ms=sealed.sent_ms,
                rand=os.urandom,
            )
        return mail.seal_letter(
            sealed,
            key=self._direction_out(device),
            counter=counter,
            sender=self._own,
            sender_seal=self._seal,
            receiver=device,
            prekey=their_prekey,
            now_ms=sealed.sent_ms,
            rand=os.urandom,
        )

    def _sealable(self, tx: Transaction, identity: bytes) -> list[tuple[Device, bytes, bytes | None]]:
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
        return [(read_certificate(bytes(c)), bytes(p), None if known else secret) for c, p, known in rows]

    # ---- letters in ----

    async def run_mail(self) -> None:
        """Open what is for this person, as the store's change log grows."""
        while True:
            try:
                await self.read_mail()
            except StorageError:
                # Nothing of that batch is marked as opened: it is taken up again when there is room.
                await asyncio.sleep(RETRY_S)
            else:
                await self.node.wait_store(self._cursor)

    async def read_mail(self) -> None:
        """Open everything in the store up to its present end that is for this person."""
        store = self.node.open_store
        async with self._reading:
            while changes := store.changes(self._cursor, 500):
                await self._look_through(changes)

    async def _look_through(self, changes: Sequence[Change]) -> None:
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
        self._cursor = cursor

    def _expects(self, entry: Entry) -> bool:
        """Whether to open an envelope at once; what may be garbage that is dear to look at is put off."""
        day, tag = day_of(entry.header.ts_ms), entry.header.tags[0]
        if day not in self._expected:
            if not self._is_near(day):
                self._put_off(entry.id)
                return False
            self._expect_day(day)
        if tag not in self._expected[day]:
            return False
        if self._failures.get(tag, 0) >= TRIES_MAX:
            self._put_off(entry.id)
            return False
        return True

    def _slot_of(self, entry: Entry) -> _Slot | None:
        return self._expected.get(day_of(entry.header.ts_ms), {}).get(entry.header.tags[0])

    def _is_near(self, day: int) -> bool:
        return -NEAR_DAYS <= day - self.node.today() <= AHEAD_DAYS

    def _put_off(self, entry: bytes) -> None:
        if len(self._later) < LATER_MAX:
            self._later.append(entry)
            self.node.loop.call_soon_threadsafe(self._later_arrived.set)

    async def run_later(self) -> None:
        """Give what was put off its turn, a little at a time: what does not open keeps nobody from their mail."""
        while True:
            await self._later_arrived.wait()
            began = self.node.loop.time()
            try:
                await self._look_again()
            except StorageError:
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep((self.node.loop.time() - began) * LATER_PAUSE)

    def _put_off_unopened(self) -> None:
        """Find what an earlier run has put off, or could not open: mail by its tags, and all of odd dates."""
        store = self.node.open_store
        for bucket_day, _ in store.buckets(mail.MAIL_SPACE):
            day = bucket_day - mail.MAIL_LIFE_DAYS - 1
            if self._is_near(day):
                if day not in self._expected:
                    self._expect_day(day)
                for _, entry in store.by_tags(self._expected[day]):
                    if not self._was_opened(entry):
                        self._put_off(entry)

    def _put_off_odd_dates(self) -> None:
        store = self.node.open_store
        for bucket_day, _ in store.buckets(mail.MAIL_SPACE):
            if len(self._later) < LATER_MAX and not self._is_near(bucket_day - mail.MAIL_LIFE_DAYS - 1):
                for entry in store.bucket(mail.MAIL_SPACE, bucket_day)[1][:LATER_MAX]:
                    if not self._was_opened(entry.tobytes()):
                        self._put_off(entry.tobytes())

    def _look_for_odd_dates(self) -> None:
        self._odd_dates_due = True
        self.node.loop.call_soon_threadsafe(self._later_arrived.set)

    def _was_opened(self, entry: bytes) -> bool:
        return bool(self.query("SELECT 1 FROM opened WHERE entry = ?", (entry,)))

    async def _look_again(self) -> None:
        async with self._reading:
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
            entries = [e for e in self.node.open_store.load(ids) if e.payload is not None]
            odd = {day_of(e.header.ts_ms) for e in entries} - self._expected.keys()
            for day in odd:
                self._expect_day(day)
            found = [e for e in entries if self._slot_of(e) is not None and not self._was_opened(e.id)]
            try:
                if found:
                    await self._open(lambda _: found, self._cursor)
            except StorageError:
                self._later.extendleft(reversed(ids))
                self._later_arrived.set()
                raise
            finally:
                # Days on which somebody known wrote stay; any number of others could be made up.
                for day in odd - {day for _, day in self._next_in}:
                    self._expected.pop(day, None)

    async def _open(self, find: Callable[[Transaction], Sequence[Entry]], cursor: int) -> None:
        """Open what ``find`` finds, and all stored mail that becomes expected by it, in one transaction.

        With it go the receipts, and ``cursor``: up to there the change log needs no second look. Raises StorageError;
        then nothing of it has happened.
        """

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            receipts: dict[bytes, list[bytes]] = {}
            found = find(tx)
            while found:
                found = self._stored(tx, self._accept_all(tx, found, receipts))
            self._put_cursor(tx, cursor)
            now = self.node.now_ms()
            letters = [
                _Outgoing(sender, "receipt", body, os.urandom(16), now)
                for sender, ids in receipts.items()
                for body in _receipts(RECEIVED, ids)
            ]
            return self._put_letters(tx, letters)[0], None

        def commit() -> None:
            try:
                self._commit(act)
            except BaseException:
                self._forget_expected(self.vault.read)
                raise

        await self.node.write(commit)
        await self._flush()
        self.node.touch()

    def _accept_all(self, tx: Transaction, entries: Sequence[Entry], receipts: dict[bytes, list[bytes]]) -> list[bytes]:
        """Open these envelopes and take in their letters; returns the tags that became expected by them."""
        tags: list[bytes] = []
        introduced: set[bytes] = set()
        failures = 0
        for entry in entries:
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
            if self._accept_letter(tx, entry, slot, *result, receipts, introduced):
                tx.execute("INSERT INTO opened(entry, expires_day) VALUES (?, ?)", (entry.id, entry.header.expires_day))
            if slot.device is not None:
                tags += self._advance(slot)
        if introduced:
            self._load(tx.query)
            for device in introduced:
                tags += self._expect_recent(device)
            self._look_for_odd_dates()
        return tags

    def _stored(self, tx: Transaction, tags: Sequence[bytes]) -> list[Entry]:
        ids = [id for _, id in self.node.open_store.by_tags(tags)] if tags else []
        fresh = [id for id in ids if not tx.query("SELECT 1 FROM opened WHERE entry = ?", (id,))]
        return [entry for entry in self.node.open_store.load(fresh) if entry.payload is not None]

    def _put_cursor(self, tx: Transaction, cursor: int) -> None:
        tx.execute("INSERT OR REPLACE INTO meta(name, value) VALUES ('mail_cursor', ?)", (cursor.to_bytes(8, "big"),))

    def _open_one(self, entry: Entry, slot: _Slot) -> tuple[Device, mail.SealedLetter, bytes] | None:
        """The sender, the letter, and the prekey by which it opened; None when it does not.

        Anybody who saw the tag can make an envelope with it; the real one stays expected.
        """
        for prekey in self._prekeys:
            with contextlib.suppress(ProtocolError):
                if slot.device is None:
                    introduction = mail.open_introduction(
                        entry, intro_secret=slot.secret, prekeys=[prekey], receiver=self._own
                    )
                    return introduction.device, introduction.letter, prekey.public
                device = self._devices[slot.device]
                letter = mail.open_letter(entry, prekeys=[prekey], sender=device, receiver=self._own)
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
        receipts: dict[bytes, list[bytes]],
        introduced: set[bytes],
    ) -> bool:
        """Take a letter in; False when it is to be opened again at another start.

        Then it is from somebody who is blocked, or from one too many, or no room here knows what it says.
        """
        now = self.node.now_ms()
        if device.device not in self._devices and device.device not in introduced:
            if device.identity == self.identity:
                return True
            known = tx.query("SELECT blocked FROM contact WHERE identity = ?", (device.identity,))
            if (known and known[0][0]) or not self._has_room_for(tx, device.identity):
                return False
            tx.execute(
                "INSERT OR IGNORE INTO contact(identity, name, verified_ms, blocked, added_ms, intro)"
                " VALUES (?, ?, NULL, 0, ?, NULL)",
                (device.identity, device.name, now),
            )
            if not self._put_device(tx, device, sealed.prekey, sealed.prekey_day):
                return True
            introduced.add(device.device)
        elif slot.device is None and tx.query(
            "SELECT 1 FROM device WHERE device = ? AND (identity, seal) <> (?, ?)",
            (device.device, device.identity, device.seal),
        ):
            return True
        elif sealed.prekey is not None:
            tx.execute(
                "UPDATE device SET prekey = ?, prekey_day = ?"
                " WHERE device = ? AND (prekey_day IS NULL OR prekey_day <= ?)",
                (sealed.prekey, sealed.prekey_day, device.device, sealed.prekey_day),
            )
        # They wrote, so they know this device and expect the pair's own tags from it: introductions to them may end.
        tx.execute(
            "INSERT INTO counter(device, day, direction, next) VALUES (?, ?, 1, ?)"
            " ON CONFLICT(device, day, direction) DO UPDATE SET next = max(next, excluded.next)",
            (device.device, slot.day, slot.counter + 1 if slot.device is not None else 0),
        )
        tx.execute("UPDATE device SET used = ? WHERE device = ?", (prekey, device.device))
        room, kind = self.node.letter_rooms.get(sealed.kind), self.node.letters.get(sealed.kind)
        if sealed.kind != "receipt" and (room is None or kind is None):
            return False
        if tx.query("SELECT 1 FROM seen_letter WHERE letter = ?", (sealed.id,)):
            return True
        tx.execute(
            "INSERT INTO seen_letter(letter, sender, sent_ms, received_ms, expires_day) VALUES (?, ?, ?, ?, ?)",
            (sealed.id, device.identity, sealed.sent_ms, now, entry.header.expires_day),
        )
        if sealed.kind == "receipt":
            self._accept_receipt(tx, device.identity, sealed.body, now)
        elif room is not None and kind is not None and _is_of(kind, sealed.body):
            letter = Letter(sealed.id, sealed.kind, sealed.body, sealed.sent_ms, device.identity, device.device, now)
            tx.apply(room.receive(letter, tx), room.name)
            receipts.setdefault(device.identity, []).append(sealed.id)
        return True

    def _has_room_for(self, tx: Transaction, identity: bytes) -> bool:
        """Whether one more who introduces themself is let in, or one more device of a contact."""
        if tx.query("SELECT 1 FROM contact WHERE identity = ?", (identity,)):
            return bool(
                tx.query("SELECT count(*) < ? FROM device WHERE identity = ?", (2 * DEVICES_MAX, identity))[0][0]
            )
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
            if tx.query("SELECT 1 FROM sent WHERE letter = ? AND to_identity = ?", (letter, sender)):
                tx.execute("INSERT OR IGNORE INTO custody(letter, event, at_ms) VALUES (?, ?, ?)", (letter, event, now))

    def _put_device(self, tx: Transaction, device: Device, prekey: bytes | None, prekey_day: int | None) -> bool:
        """Remember a contact's device; one that no accepted device of theirs signed for waits for the person's word.

        False when it is known as somebody else's, or with another key.
        """
        stands = tx.query("SELECT identity, seal FROM device WHERE device = ?", (device.device,))
        if stands and stands[0] != (device.identity, device.seal):
            return False
        others = tx.query("SELECT device FROM device WHERE identity = ? AND accepted = 1", (device.identity,))
        known = {bytes(row[0]) for row in others}
        trusted = not known or device.device in known or (device.cross in known and len(known) < DEVICES_MAX)
        expected = not known or device.device in known
        warning = "" if expected else "new_device" if trusted else "unknown_device"
        tx.execute(
            "INSERT INTO device"
            "(device, identity, seal, created_day, certificate, accepted, warning, prekey, prekey_day)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(device) DO UPDATE SET prekey = excluded.prekey,"
            " prekey_day = excluded.prekey_day WHERE prekey_day IS NULL OR prekey_day <= excluded.prekey_day",
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
            ),
        )
        return True

    # ---- expected tags ----

    def _load(self, query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        """Read prekeys, intro secrets and devices from the vault into memory, by this thread's way to query it."""
        self._prekeys = [
            OpeningKey.from_secret(bytes(row[0])) for row in query("SELECT secret FROM prekey ORDER BY made_day DESC")
        ]
        self._intros = [
            bytes(row[0]) for row in query("SELECT secret FROM invite WHERE kind = 'intro' ORDER BY made_day DESC")
        ]
        rows = query("SELECT certificate FROM device JOIN contact USING (identity) WHERE NOT blocked")
        self._devices = {device.device: device for device in (read_certificate(bytes(row[0])) for row in rows)}
        self._next_in = {
            (bytes(device), day): number
            for device, day, number in query("SELECT device, day, next FROM counter WHERE direction = 1")
        }

    def _forget_expected(self, query: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._expected.clear()
        self._failures.clear()
        self._load(query)

    def _expect_day(self, day: int) -> None:
        """Make the tags of one day known: those of each contact's device, and those of introductions."""
        if len(self._expected) >= DAYS_MAX:
            for tag in self._expected.pop(next(iter(self._expected))):
                self._failures.pop(tag, None)
        tags = self._expected[day] = {}
        for secret in self._intros:
            key, slot = mail.intro_key(secret, self._own), _Slot(None, day, 0, secret)
            for counter in range(mail.INTRO_TAGS):
                tags[mail.tag(key, day, counter)] = slot
        for device in self._devices:
            self._expect(device, day, range(self._next_in.get((device, day), 0) + WINDOW))

    def _expect(self, device: bytes, day: int, counters: Iterable[int]) -> list[bytes]:
        key = self._direction_in(device)
        tags = []
        for counter in counters:
            tag = mail.tag(key, day, counter)
            self._expected[day][tag] = _Slot(device, day, counter)
            tags.append(tag)
        return tags

    def _advance(self, slot: _Slot) -> list[bytes]:
        """Move the window of one device and day past an opened counter; returns the tags new in it."""
        assert slot.device is not None
        where = (slot.device, slot.day)
        old = self._next_in.get(where, 0)
        if slot.counter + 1 <= old:
            return []
        self._next_in[where] = slot.counter + 1
        return self._expect(slot.device, slot.day, range(old + WINDOW, slot.counter + 1 + WINDOW))

    def _expect_recent(self, device: bytes) -> list[bytes]:
        """The tags of a newly known device for all days that stored mail can still have."""
        today = self.node.today()
        days = {*range(today - NEAR_DAYS, today + AHEAD_DAYS + 1), *self._expected}
        tags: list[bytes] = []
        for day in days:
            if day not in self._expected:
                self._expect_day(day)
            tags += self._expect(device, day, range(self._next_in.get((device, day), 0) + WINDOW))
        return tags

    async def _learn(self, devices: Sequence[bytes], act: Callable[[Transaction], None]) -> None:
        """Make devices known by ``act``, and open the mail of theirs that is here already, in one transaction."""

        def find(tx: Transaction) -> list[Entry]:
            act(tx)
            self._load(tx.query)
            return self._stored(tx, [tag for d in devices if d in self._devices for tag in self._expect_recent(d)])

        async with self._reading:
            await self._open(find, self._cursor)
        self._look_for_odd_dates()

    def _direction_in(self, device: bytes) -> bytes:
        if device not in self._keys_in:
            self._keys_in[device] = mail.direction_key(self._seal, self._devices[device], self._own)
        return self._keys_in[device]

    def _direction_out(self, device: Device) -> bytes:
        if device.device not in self._keys_out:
            self._keys_out[device.device] = mail.direction_key(self._seal, self._own, device)
        return self._keys_out[device.device]

    # ---- entries on the log ----

    async def append(self, space: bytes, kind: Kind, payload: bytes, life_ms: int, local: RowChanges) -> Entry:
        """Sign the next entry of this device's chain in a space and keep it (see ``Node.append``)."""
        async with self._speaking:
            head, clock = self._head(space)
            entry = next_entry(
                self.signing_key,
                head,
                space=space,
                kind=kind.name,
                payload=payload,
                clock=clock + 1,
                ts_ms=self.node.now_ms(),
                life_ms=life_ms,
                priority=kind.priority,
            )
            await self.keep([entry], local)
        return entry

    async def keep(self, entries: Sequence[Entry], local: RowChanges = ()) -> None:
        """Put finished entries into the outbox, with what the room remembers of them, and hand them to the door.

        Raises UsageError when the door would refuse one, StorageError when the disk is full; then nothing is kept.
        """
        self.node.check_own(entries)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            tx.apply(local)
            return list(entries), None

        await self.node.write(lambda: self._commit(act))
        await self._flush()

    def _put_head(self, tx: Transaction, entry: Entry) -> None:
        # The store may lack an entry that is in the outbox, or a space that was left: only the vault knows for certain.
        h = entry.header
        if h.seq:
            value = h.seq.to_bytes(8, "big") + h.clock.to_bytes(8, "big") + entry.id
            tx.execute("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (f"head/{h.space.hex()}", value))

    def _head(self, space: bytes) -> tuple[Head | None, int]:
        value = self.vault.meta(f"head/{space.hex()}")
        known = (
            (Head(int.from_bytes(value[:8], "big"), value[16:]), int.from_bytes(value[8:16], "big")) if value else None
        )
        found = self.node.open_store.head(space, self.device)
        last = self.node.open_store.get(found[1]) if found else None
        if last is None or (known is not None and known[0].seq >= last.header.seq):
            return known or (None, 0)
        return Head(last.header.seq, last.id), last.header.clock

    # ---- bundles ----

    async def write_bundle(
        self, out: BinaryIO, *, to: bytes | None = None, space: bytes | None = None, progress: Progress = _silent
    ) -> BundleReport:
        """Write a bundle: mail that a contact's node may lack, sealed to their devices, or a public space, open to all.

        What they confirmed to have read, and what came from them, is left out. The caller makes the file durable and
        then calls ``bundle_left``. Raises NotFoundError and UsageError.
        """
        if (to is None) == (space is None):
            raise UsageError("name either a contact or a channel to write a bundle for")
        store = self.node.open_store
        today, over, upto = self.node.today(), self.node.over_before(), store.cursor()
        held: set[bytes] = set()
        base = number = 0
        devices: list[bytes] = []
        if to is not None:
            contact = self.contact(to)
            await self.met_somebody()
            rows = self.query(
                "SELECT device, prekey FROM device WHERE identity = ? AND accepted = 1 AND prekey IS NOT NULL"
                " ORDER BY created_day DESC LIMIT ?",
                (to, bundles.SLOTS),
            )
            if not rows or contact.blocked:
                raise UsageError(f"nothing can be sealed to {contact.name}: add their link again, or unblock them")
            devices = [bytes(device) for device, _ in rows]
            base, number, acks, held = self._bundle_state(devices)
            writer = bundles.BundleWriter.sealed(
                [(bytes(device), bytes(prekey)) for device, prekey in rows],
                certificate=self.certificate,
                signer=self.signing_key,
                number=number,
                made_day=today,
                acks=acks,
                rand=os.urandom,
            )
        else:
            assert space is not None
            if space not in self.node.spaces() or space == mail.MAIL_SPACE:
                raise UsageError("only a channel that is followed here can be written as an open bundle")
            writer = bundles.BundleWriter.open(made_day=today)

        def reserve(tx: Transaction) -> None:
            tx.executemany(
                "INSERT INTO bundle_out(device, number, upto_cursor, acked) VALUES (?, ?, ?, 0)",
                [(device, number, upto) for device in devices],
            )

        if devices:
            # Before a byte of the file exists: of two files with one number, the acknowledgement of the first would
            # stand for what only the second holds.
            await self.node.write(lambda: self.vault.write(reserve))
        size = out.write(writer.start())
        count, cursor = 0, base
        written: list[bytes] = []
        while cursor < upto and (changes := store.changes(cursor, 500)):
            cursor = changes[-1].cursor
            for event, entry in ((change.event, change.entry) for change in changes):
                wanted = space_of(entry) == (mail.MAIL_SPACE if space is None else space)
                whole = entry.payload is not None and event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED)
                if wanted and whole and entry.id not in held and not 0 < entry.header.expires_day < over:
                    size += out.write(writer.add(entry))
                    written.append(entry.id)
                    count += 1
            self.node.leaves(written[-len(changes) :])
            progress(min(cursor, upto) - base, upto - base)
            await asyncio.sleep(0)
        for piece in writer.finish():
            size += out.write(piece)
        return BundleReport(count, size, count, written=tuple(written))

    async def bundle_left(self, report: BundleReport) -> None:
        """The bundle is whole on its medium: its letters have one more copy."""
        await self.node.copied(report.written)

    def _bundle_state(self, devices: Sequence[bytes]) -> tuple[int, int, dict[bytes, list[int]], set[bytes]]:
        """For a bundle to these devices: the cursor up to which they have all, its number, acks, and held entries."""
        base, number, acks = None, 0, dict[bytes, list[int]]()
        held: set[bytes] | None = None
        for device in devices:
            row = self.query(
                "SELECT ifnull(max(number), 0), ifnull(max(upto_cursor * acked), 0) FROM bundle_out WHERE device = ?",
                (device,),
            )[0]
            number = max(number, row[0])
            base = row[1] if base is None else min(base, row[1])
            rows = self.query("SELECT number FROM bundle_in WHERE device = ? ORDER BY number", (device,))
            acks[device] = [n for (n,) in rows]
            mine = {bytes(e) for (e,) in self.query("SELECT entry FROM held_by WHERE device = ?", (device,))}
            held = mine if held is None else held & mine
        return base or 0, number + 1, acks, held or set()

    async def read_bundle(self, source: BinaryIO, *, progress: Progress = _silent) -> BundleReport:
        """Take in what is whole of a bundle; raises BundleError when the file is none or is for somebody else."""
        keys = [self._seal, *self._prekeys]
        reader = bundles.BundleReader(keys, self.device)
        entries: list[Entry] = []
        writer: Device | None = None
        size = count = new = refused = 0
        reasons: set[str] = set()
        theirs: list[tuple[bytes, int]] = []

        async def take() -> None:
            nonlocal new, refused
            batch, entries[:] = entries[:], []
            verdicts = await self.node.ingest(batch)
            held = [v.entry for v in verdicts if isinstance(v, Admitted | Known)]
            new += sum(isinstance(v, Admitted) for v in verdicts)
            for verdict in verdicts:
                if isinstance(verdict, Refused | Held):
                    refused += 1
                    reasons.add(verdict.rule.line)
            theirs.extend((e.id, e.header.expires_day) for e in held[: HELD_BY_MAX - len(theirs)])

        while data := await asyncio.to_thread(source.read, bundles.CHUNK_BYTES):
            size += len(data)
            for item in reader.feed(data):
                if isinstance(item, Entry):
                    count += 1
                    entries.append(item)
                elif item.certificate:
                    writer = read_certificate(item.certificate)
            if len(entries) >= 500:
                await take()
            progress(size, None)
        summary = reader.finish()
        await take()
        await self.met_somebody()
        manifest = summary.manifest
        known = self._devices.get(writer.device) if writer is not None else None
        if summary.signature_ok and known is not None and manifest is not None:
            device, number, acks = known.device, manifest.number, manifest.acks_for(self.device)

            def note(tx: Transaction) -> None:
                # Only what the writer signed counts: others could claim that he has what he has not.
                tx.executemany(
                    "INSERT OR IGNORE INTO held_by(device, entry, expires_day) VALUES (?, ?, ?)",
                    [(device, entry, day) for entry, day in theirs],
                )
                if not summary.whole:
                    return
                tx.execute("INSERT OR IGNORE INTO bundle_in(device, number) VALUES (?, ?)", (device, number))
                tx.executemany(
                    "UPDATE bundle_out SET acked = 1 WHERE device = ? AND number = ?", [(device, ack) for ack in acks]
                )

            await self.node.write(lambda: self.vault.write(note))
        problems = []
        if summary.damaged_chunks:
            problems.append(f"{len(summary.damaged_chunks)} damaged pieces of the file were passed over: copy it again")
        if summary.truncated:
            problems.append("the file ends too early: what was whole is here, copy it again for the rest")
        if summary.signature_ok is False or summary.malformed:
            problems.append("the file was not written as its writer says; each entry was checked by itself")
        if refused:
            problems.append(f"{refused} entries were not taken: {'; '.join(sorted(reasons))}")
        self.node.touch()
        damaged = len(summary.damaged_chunks) + summary.malformed + int(summary.truncated)
        return BundleReport(count, size, new, damaged, tuple(problems))

    # ---- backup ----

    async def backup(self, passphrase: str) -> bytes:
        """The backup file under its own passphrase: identity, contacts, the rooms' private rows; no device's keys."""
        devices: dict[bytes, list[backups.BackupDevice]] = {}
        for identity, certificate, accepted, warning, prekey, day in self.query(
            "SELECT identity, certificate, accepted, warning, prekey, prekey_day FROM device ORDER BY created_day"
        ):
            devices.setdefault(bytes(identity), []).append(
                backups.BackupDevice(certificate, bool(accepted), warning, prekey, day)
            )
        contacts = [
            backups.BackupContact(i, name, verified, bool(blocked), added, intro, devices.get(bytes(i), []))
            for i, name, verified, blocked, added, intro in self.query(
                "SELECT identity, name, verified_ms, blocked, added_ms, intro FROM contact ORDER BY added_ms"
            )
        ]
        old = [bytes(row[0]) for row in self.query("SELECT value FROM meta WHERE name GLOB 'old_device/*'")]
        body = backups.BackupBody(
            backups.VERSION,
            self.node.now_ms(),
            self._entropy,
            self.name,
            [*old, self.certificate],
            contacts,
            self.vault.room_rows(),
        )
        salt, nonce = os.urandom(keyslot.SALT_BYTES), os.urandom(keyslot.NONCE_BYTES)
        return await asyncio.to_thread(backups.seal_backup, body, passphrase, salt=salt, nonce=nonce, cost=local_cost())

    def old_devices(self) -> list[Device]:
        """The devices that were this person's before a restore; to be revoked."""
        rows = self.query("SELECT value FROM meta WHERE name GLOB 'old_device/*' ORDER BY name")
        return [read_certificate(bytes(row[0])) for row in rows]

    # ---- custody, prekeys, housekeeping ----

    def copied(self, tx: Transaction, entries: Iterable[bytes]) -> int:
        """Remember that these entries are durable somewhere else; entries of other people are passed over."""
        now = self.node.now_ms()
        count = 0
        for entry in entries:
            for (letter,) in tx.query("SELECT letter FROM sent WHERE entry = ?", (entry,)):
                tx.execute(
                    "INSERT OR IGNORE INTO custody(letter, event, at_ms)"
                    " SELECT ?, 'copied', ? WHERE EXISTS (SELECT 1 FROM custody WHERE letter = ? AND event = 'kept')",
                    (letter, now, letter),
                )
                count += 1
        return count

    def newest_ms(self, upto_ms: int) -> int:
        """The newest time up to ``upto_ms`` at which this person wrote; 0 when it is not known any more."""
        rows = self.query("SELECT max(at_ms) FROM custody WHERE event = 'kept' AND at_ms <= ?", (upto_ms,))
        return int(rows[0][0] or 0)

    def authored(self, entries: Iterable[bytes]) -> list[bytes]:
        """Those of the entries that are this person's letters."""
        return [e for e in entries if self.query("SELECT 1 FROM sent WHERE entry = ?", (e,))]

    def claims(self) -> list[int]:
        """The newest days claimed by letters of verified contacts; evidence against a wrong clock."""
        return [
            day_of(row[0])
            for row in self.query(
                "SELECT max(sent_ms) FROM seen_letter JOIN contact ON contact.identity = seen_letter.sender"
                " WHERE verified_ms IS NOT NULL AND seen_letter.received_ms > ? GROUP BY sender LIMIT ?",
                (self.node.now_ms() - 7 * DAY_MS, CLAIMS),
            )
        ]

    async def met_somebody(self) -> None:
        """Somebody was met today: make the day's prekey, and destroy those that no mail can need any more."""
        today = self.node.today()
        if self.query("SELECT 1 FROM prekey WHERE made_day >= ?", (today,)):
            return
        await self.node.write(lambda: self.vault.write(lambda tx: new_prekey(tx, today)))
        self._load(self.query)

    def tidy(self, tx: Transaction, over_before: int, pruned_day: int) -> None:
        """Drop what has outlived its purpose: custody after seven days, marks of expired entries, old prekeys."""
        tx.execute("DELETE FROM custody WHERE at_ms < ?", ((over_before - CUSTODY_DAYS) * DAY_MS,))
        for table in ("opened", "sent", "seen_letter", "held_by"):
            tx.execute(f"DELETE FROM {table} WHERE expires_day > 0 AND expires_day < ?", (pruned_day,))
        tx.execute("DELETE FROM counter WHERE day < ?", (pruned_day - mail.MAIL_LIFE_DAYS - 2,))
        keep = mail.MAIL_LIFE_DAYS + 1 + PREKEY_SPARE_DAYS
        tx.execute("DELETE FROM invite WHERE kind = 'prekey' AND made_day < ?", (pruned_day - LINK_DAYS - keep,))
        # Who was silent for long still has the prekey of their last letter, or the last one that they were told.
        gone = tx.execute(
            "DELETE FROM prekey WHERE superseded_day < ?"
            " AND public NOT IN (SELECT secret FROM invite WHERE kind = 'prekey')"
            " AND (superseded_day < ? OR public NOT IN (SELECT told FROM device WHERE told IS NOT NULL"
            " UNION SELECT used FROM device WHERE used IS NOT NULL))",
            (pruned_day - keep, pruned_day - keep - LINK_DAYS),
        )
        if gone:
            self._load(tx.query)

    def _newest_prekey(self, tx: Transaction) -> tuple[bytes, int]:
        public, day = tx.query("SELECT public, made_day FROM prekey ORDER BY made_day DESC LIMIT 1")[0]
        return bytes(public), int(day)


def new_prekey(tx: Transaction, today: int) -> None:
    """Make a prekey for today and mark the earlier ones superseded."""
    key = SealingKey.from_secret(os.urandom(32))
    tx.execute("UPDATE prekey SET superseded_day = ? WHERE superseded_day IS NULL", (today,))
    tx.execute(
        "INSERT INTO prekey(public, secret, made_day, superseded_day) VALUES (?, ?, ?, NULL)",
        (key.public, key.secret, today),
    )


def new_person(vault: Vault, name: str, entropy: bytes, today: int) -> None:
    """Write a new person's keys into an empty vault: identity from ``entropy``, a new device, its first prekey."""
    identity, device, seal = (
        identity_key(entropy),
        SigningKey.from_seed(os.urandom(32)),
        SealingKey.from_secret(os.urandom(32)),
    )
    name = check_name(name)
    meta = {
        "entropy": entropy,
        "name": name.encode(),
        "device": device.seed,
        "seal": seal.secret,
        "certificate": certify(identity, device, seal.public, today, name),
    }

    def write(tx: Transaction) -> None:
        tx.executemany("INSERT INTO meta(name, value) VALUES (?, ?)", list(meta.items()))
        tx.execute("INSERT INTO invite(secret, made_day, kind) VALUES (?, ?, 'intro')", (os.urandom(16), today))
        new_prekey(tx, today)

    vault.write(write)


def restore_person(vault: Vault, body: backups.BackupBody) -> None:
    """Write a backup's contacts into a new person's vault; room rows were restored when the vault was opened."""

    def write(tx: Transaction) -> None:
        for number, certificate in enumerate(body.devices):
            tx.execute("INSERT INTO meta(name, value) VALUES (?, ?)", (f"old_device/{number:04d}", certificate))
        for contact in body.contacts:
            tx.execute(
                "INSERT INTO contact(identity, name, verified_ms, blocked, added_ms, intro) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    contact.identity,
                    contact.name,
                    contact.verified_ms,
                    int(contact.blocked),
                    contact.added_ms,
                    contact.intro,
                ),
            )
            for kept in contact.devices:
                device = read_certificate(kept.certificate)
                tx.execute(
                    "INSERT INTO device"
                    "(device, identity, seal, created_day, certificate, accepted, warning, prekey, prekey_day)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        device.device,
                        device.identity,
                        device.seal,
                        device.created_day,
                        kept.certificate,
                        int(kept.accepted),
                        kept.warning or "",
                        # Without their link nothing tells them of the new device, and they would not find the letter.
                        kept.prekey if contact.intro is not None else None,
                        kept.prekey_day if contact.intro is not None else None,
                    ),
                )

    vault.write(write)


def _is_of(kind: Kind, body: bytes) -> bool:
    try:
        kind.decode(body)
    except KindError:
        return False
    return True


def _must(value: bytes | None) -> bytes:
    if value is None:
        raise StorageError("this vault is incomplete: restore it from its backup file")
    return value


def _receipts(event: int, letters: Sequence[bytes]) -> list[bytes]:
    """The bodies of as many receipts as these letters need."""
    parts = (list(letters[start : start + RECEIPT_IDS]) for start in range(0, len(letters), RECEIPT_IDS))
    return [msgspec.msgpack.encode(Receipt(event, part)) for part in parts]
