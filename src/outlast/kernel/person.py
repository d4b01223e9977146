"""Person: one unlocked vault: who this is, their contacts, what they send and what is known of it.

The node owns the threads: everything that writes runs on its single writer thread through ``node.write``, what reads
runs on the event loop. ``outbox`` carries what leaves, ``inbox`` opens what comes, ``trips`` writes and reads bundles.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal

import msgspec

from outlast.errors import NotFoundError, StorageError, UsageError
from outlast.kernel import devices as own_devices
from outlast.kernel import invite, mail, people, trips
from outlast.kernel.bundle import Holding
from outlast.kernel.chunks import to_bytes
from outlast.kernel.circular import INVITED, JOINED
from outlast.kernel.database import Transaction
from outlast.kernel.devices import OwnDevice
from outlast.kernel.entry import DAY_MS, Entry, day_of
from outlast.kernel.groups import Group, Groups
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    SHARES_MAX,
    Device,
    SigningKey,
    check_name,
    entropy_of,
    fingerprint_words,
    id_text,
    identity_key,
    parse_id,
    read_certificate,
    sign_prekey,
    words_of,
)
from outlast.kernel.inbox import REVOKED, Inbox, Query
from outlast.kernel.keyslot import check_passphrase
from outlast.kernel.outbox import READ, RECEIVED, Outbox, Outgoing, Party
from outlast.kernel.packing import Packing
from outlast.kernel.room import RowChanges, Value
from outlast.kernel.trips import BundleReport, Glance, Progress
from outlast.kernel.vault import Vault

if TYPE_CHECKING:
    from outlast.kernel.node import Node

CUSTODY_DAYS: Final = 7  # after the last that was heard of a letter
PREKEY_SPARE_DAYS: Final = 7
LINK_DAYS: Final = 90
INTRO_DAYS: Final = 60
"""How long links have one intro secret; each that lives costs 1024 tags a day."""
RETIRED_MAX: Final = 4
"""Earlier devices whose mail is still looked for; each doubles the tags."""
CLAIMS: Final = 32
"""How many of the newest verified letters' dates count as claims about the time."""

CustodyEvent = Literal["kept", "copied", "received", "read"]
DeviceState = Literal["ok", "copied", "renewed", "ended"]
_EVENTS: Final[tuple[CustodyEvent, ...]] = ("kept", "copied", "received", "read")
_PARCELS: Final = "SELECT entry, peer FROM parcel WHERE letter = ?"


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
class ContactDevice:
    """A device of a contact. ``warning`` is a code: ``unknown_device``, ``new_device``, ``revoked``, or empty."""

    device: Device
    accepted: bool
    warning: str


@dataclass(frozen=True, slots=True)
class Custody:
    """One thing that is known about where a letter has been."""

    event: CustodyEvent
    at_ms: int


class Person:
    """A person on this node whose vault is open. Made by the node only."""

    def __init__(self, node: Node, key: str, vault: Vault) -> None:
        """Read the keys out of the vault; ``key`` names the vault's folder."""
        self.node = node
        self.key = key
        self.vault = vault
        self.entropy = _must(vault.meta("entropy"))
        self.identity = identity_key(self.entropy).public
        self.name = _must(vault.meta("name")).decode()
        self.take_keys(vault.query)
        self.outbox = Outbox(self)
        self.inbox = Inbox(self)
        self.groups = Groups(self)

    def take_keys(self, query: Query) -> None:
        """Read out of the vault by which device this person speaks, and which of theirs still get mail."""
        meta: dict[str, bytes] = dict(
            query("SELECT name, value FROM meta WHERE name IN ('certificate', 'device', 'seal')")
        )
        self.certificate = _must(meta.get("certificate"))
        self.signing_key = SigningKey.from_seed(_must(meta.get("device")))
        self.own = read_certificate(self.certificate)
        self.seal = OpeningKey.from_secret(_must(meta.get("seal")))
        self.party = Party(self.own, self.seal)
        self.retired = [
            Party(read_certificate(bytes(certificate)), OpeningKey.from_secret(bytes(seal)), is_retired=True)
            for certificate, seal in query(
                "SELECT certificate, seal FROM own_device WHERE seal IS NOT NULL ORDER BY ended_day DESC, rowid DESC"
                f" LIMIT {RETIRED_MAX}"
            )
        ]
        """Devices that have renewed themselves here, the latest first."""
        mine = query(
            f"SELECT 1 FROM revoked WHERE device = x'{self.own.device.hex()}' AND identity = x'{self.identity.hex()}'"
        )
        self.is_ended = bool(mine)
        """Whether another device of this person has revoked this one."""

    def leave(self, tx: Transaction) -> None:
        """Write down, before the vault is closed, what a restart need not look through again."""
        self.outbox.strike(tx)
        self.inbox.put_cursor(tx, self.inbox.cursor)

    # ---- who this is ----

    @property
    def device(self) -> bytes:
        """The public key (32 B) of this person's device, which signs entries."""
        return self.own.device

    @property
    def id(self) -> str:
        """The ``ID`` of this person: 56 characters."""
        return id_text(self.identity)

    def words(self) -> list[str]:
        """The six words by which others compare this identity."""
        return fingerprint_words(self.identity)

    def secret_words(self) -> list[str]:
        """The 24 words that restore this identity; whoever has them is this person."""
        return words_of(self.entropy)

    def secret_shares(self, threshold: int, count: int) -> list[list[str]]:
        """The same secret cut into ``count`` shares of 33 words (SLIP-39), of which any ``threshold`` restore it.

        Fewer tell nothing. Shares of different calls do not mix. Raises UsageError for numbers that make no sense.
        """
        from shamir_mnemonic import generate_mnemonics

        if not 2 <= threshold <= count <= SHARES_MAX:
            raise UsageError("shares are from 2 to %(most)s, and at least 2 of them restore you", most=SHARES_MAX)
        [made] = generate_mnemonics(1, [(threshold, count)], self.entropy)
        if entropy_of(" ".join(made[-threshold:])) != self.entropy:
            raise StorageError("this computer reckons wrongly: the shares did not restore the secret")
        return [one.split() for one in made]

    async def link(self) -> str:
        """A contact link: with it somebody's first letter can be sealed; it is good for 90 days from today."""
        await self.met_somebody()
        self.check_device()
        row = self.query("SELECT public, made_day FROM prekey WHERE superseded_day IS NULL")[0]
        public, day = bytes(row[0]), int(row[1])

        def keep(tx: Transaction) -> None:
            tx.execute("INSERT OR IGNORE INTO invite(secret, made_day, kind) VALUES (?, ?, 'prekey')", (public, day))

        if not self.query("SELECT 1 FROM invite WHERE secret = ? AND kind = 'prekey'", (public,)):
            await self.node.write(lambda: self.vault.write(keep))
        await self._renew_intro()
        return invite.make_link(
            self.certificate, public, day, sign_prekey(self.signing_key, public, day), self.inbox.intros[0]
        )

    async def _renew_intro(self) -> None:
        """Give links a new intro secret now and then: who knows an old one cannot count introductions for ever."""
        today = self.node.today()
        newest = self.query("SELECT max(made_day) FROM invite WHERE kind = 'intro' AND made_day <= ?", (today,))[0][0]
        if newest is not None and today - newest < INTRO_DAYS:
            return

        def keep(tx: Transaction) -> None:
            tx.execute("INSERT INTO invite(secret, made_day, kind) VALUES (?, ?, 'intro')", (os.urandom(16), today))

        async with self.inbox.reading:
            await self.node.write(lambda: self.vault.write(keep))
            self.inbox.forget(self.query)

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
            raise NotFoundError("no contact is called %(text)r: add them with their link first", text=text[:80])
        if len(found) > 1:
            raise UsageError("%(n)s contacts match %(text)r: use the whole ID", n=len(found), text=text[:80])
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
            if not self.inbox.put_device(tx, device, invitation.prekey, invitation.prekey_day):
                raise UsageError("the device of this link is known here as somebody else's: ask for a link of another")

        await self.inbox.learn([device.device], add)
        await own_devices.tell_again(self)
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
            async with self.inbox.reading:
                await self.node.write(lambda: self.vault.write(update))
                self.inbox.forget(self.query)
            self.node.touch()
        else:
            await self.inbox.learn(devices, update)
            await own_devices.tell_again(self)

    async def rename(self, identity: bytes, name: str) -> None:
        """Call a contact by another name."""
        await self._update_contact(identity, "name", check_name(name))

    async def accept_device(self, identity: bytes) -> None:
        """Accept the contact's new devices after they were warned about; from now on letters are sealed to them too."""
        self.contact(identity)

        def accept(tx: Transaction) -> None:
            tx.execute(
                "UPDATE device SET accepted = 1, warning = '' WHERE identity = ? AND warning <> ?", (identity, REVOKED)
            )

        await self.node.write(lambda: self.vault.write(accept))
        self.inbox.load(self.query)
        self.node.touch()

    def _contacts(self, which: str, args: Sequence[Value]) -> list[Contact]:
        rows = self.query(
            "SELECT identity, name, verified_ms, blocked, added_ms, (SELECT group_concat(DISTINCT warning) FROM device"
            f" WHERE device.identity = contact.identity AND warning NOT IN ('', '{REVOKED}')) FROM contact {which}",
            args,
        )
        return [
            Contact(bytes(i), n, v, bool(b), a, tuple(sorted(w.split(","))) if w else ()) for i, n, v, b, a, w in rows
        ]

    async def _update_contact(self, identity: bytes, column: str, value: Value) -> None:
        self.contact(identity)

        def update(tx: Transaction) -> None:
            tx.execute(f"UPDATE contact SET {column} = ? WHERE identity = ?", (value, identity))

        await self.node.write(lambda: self.vault.write(update))
        self.node.touch()

    # ---- letters ----

    async def send(
        self,
        to: bytes,
        kind: str,
        body: msgspec.Struct,
        *,
        life_ms: int = 0,
        local: Callable[[bytes], RowChanges] | None = None,
        is_told: bool = True,
    ) -> bytes:
        """Seal a letter to every accepted device of a contact; returns its 16-byte id once it is durable here.

        ``life_ms`` tells the receiver how long it is to be shown, from now on (0: no limit); nothing outside shows it.
        ``local`` gives the rows that the room remembers with it, in the same transaction; ``is_told`` is false for what
        the room writes by itself: it counts nowhere, and nobody is told where it has been. Raises NotFoundError,
        UsageError (blocked, nothing to seal to, too large) and StorageError (nothing was kept).
        """
        return await self.outbox.enqueue(to, kind, self._encoded(to, kind, body), local, life_ms, is_told)

    def _encoded(self, to: bytes, kind: str, body: msgspec.Struct) -> bytes:
        """The body of a letter as it is sealed; raises when it is none that can be sent to this contact."""
        contact = self.contact(to)
        if contact.blocked:
            raise UsageError("%(name)s is blocked here: unblock them first", name=contact.name)
        letter_kind = self.node.letters.get(kind)
        if letter_kind is None:
            raise UsageError("no room here knows letters of kind %(kind)r", kind=kind)
        data = letter_kind.encode(body)
        if len(data) > mail.LETTER_MAX_BYTES:
            raise UsageError(
                "a letter holds at most %(most)s bytes, this has %(size)s: make it shorter",
                most=mail.LETTER_MAX_BYTES,
                size=len(data),
            )
        return data

    async def send_parcels(
        self,
        to: bytes,
        kind: str,
        body: msgspec.Struct,
        packing: Packing,
        *,
        life_ms: int = 0,
        local: Callable[[bytes], RowChanges] | None = None,
    ) -> bytes:
        """Send what was packed by a letter whose body names its parcels and key; returns the letter's id (16 B).

        Raises as ``send`` does.
        """
        data = self._encoded(to, kind, body)
        letter = Outgoing(to, kind, data, os.urandom(mail.LETTER_ID_BYTES), self.node.now_ms(), local, life_ms)
        await self.outbox.send_parcels(letter, packing.parcels)
        await self.node.keep_content([parcel.id for parcel in packing.parcels])
        return letter.letter

    async def keep_parcels(self, space: bytes, packing: Packing) -> None:
        """Keep what was packed for the members of a group, before an entry there names it; raises StorageError."""
        await self.outbox.keep_parcels(packing.parcels, space)
        await self.node.keep_content([parcel.id for parcel in packing.parcels])

    async def expect_parcels(self, letter: bytes, sender: bytes, parcels: Sequence[bytes]) -> None:
        """Remember that a letter that came names these parcels: what is here of them is not let go when room is short.

        Only what is a parcel of its file may be named (see ``parcels_here``); call again when there is news.
        """
        entries = self.node.open_store.load(parcels)

        def note(tx: Transaction) -> None:
            self.note_parcels(tx, letter, sender, entries, outgoing=False)

        await self.node.write(lambda: self.vault.write(note))
        self.node.touch()

    def note_parcels(
        self, tx: Transaction, letter: bytes, peer: bytes, parcels: Sequence[Entry], *, outgoing: bool
    ) -> None:
        """Write down which parcels a letter from or to somebody names."""
        tx.executemany(
            "INSERT OR IGNORE INTO parcel(letter, entry, peer, outgoing, expires_day) VALUES (?, ?, ?, ?, ?)",
            [(letter, one.id, peer, int(outgoing), one.header.expires_day) for one in parcels],
        )

    async def forget_parcels(self, letters: Sequence[bytes], spare: Container[bytes] = ()) -> None:
        """Let go of the parcels that these letters name: their chunks are dropped, unless other letters here name them.

        Those in ``spare`` are not dropped: they are somebody else's (see ``strange_parcels``). Those of a group stay
        while somebody is locked who may belong to it.
        """
        everybody_is_here = len(self.node.people) == len(self.node.home.people())
        shared: Collection[bytes] = () if everybody_is_here else self.node.open_store.closed()

        def forget(tx: Transaction) -> set[bytes]:
            named = [row for letter in letters for row in tx.query(_PARCELS, (letter,))]
            tx.executemany("DELETE FROM parcel WHERE letter = ?", [(letter,) for letter in letters])
            return {bytes(entry) for entry, peer in named if peer not in shared}

        for entry in await self.node.write(lambda: self.vault.write(forget)):
            if entry not in spare and not any(one.names_parcel(entry) for one in list(self.node.people.values())):
                await self.node.drop_content(entry)

    def parcels_for(self, to: bytes) -> dict[bytes, int]:
        """The parcels for a contact who has not acknowledged them, and those of groups that they belong to.

        With each the places that are known to be there already.
        """
        peers = [to, *(group.space for group in self.groups.held(JOINED) if self._belongs(group.space, to))]
        rows = [
            row
            for peer in peers
            for row in self.query("SELECT entry, held FROM parcel WHERE peer = ? AND outgoing AND copied < 2", (peer,))
        ]
        return {bytes(entry): int.from_bytes(held or b"", "little") for entry, held in rows}

    def _belongs(self, space: bytes, identity: bytes) -> bool:
        with contextlib.suppress(NotFoundError):
            return identity in self.groups.membership(space).roles
        return False

    def parcels_from(self, sender: bytes) -> list[bytes]:
        """The parcels that letters of a contact name, as long as they were not told that all of them are here."""
        rows = self.query("SELECT entry FROM parcel WHERE peer = ? AND NOT outgoing AND copied < 2", (sender,))
        return [bytes(row[0]) for row in rows]

    def note_holdings(self, tx: Transaction, peer: bytes, holdings: Sequence[Holding]) -> None:
        """A contact says which chunks of parcels for them they hold."""
        tx.executemany(
            "UPDATE parcel SET held = ? WHERE entry = ? AND peer = ? AND outgoing",
            [(to_bytes(held), entry, peer) for entry, held in holdings],
        )

    def names_parcel(self, entry: bytes) -> bool:
        """Whether a letter of this person names this parcel."""
        return bool(self.query("SELECT 1 FROM parcel WHERE entry = ?", (entry,)))

    async def mark_received(self, letters: Sequence[bytes]) -> None:
        """Tell the senders of these letters that all that they announced is here."""
        await self._acknowledge(RECEIVED, letters)
        done = [(letter,) for letter in letters]
        await self.node.write(
            lambda: self.vault.write(
                lambda tx: tx.executemany("UPDATE parcel SET copied = 2 WHERE letter = ? AND NOT outgoing", done)
            )
        )

    async def mark_read(self, letters: Sequence[bytes]) -> None:
        """Tell the senders of these letters that they were read."""
        await self._acknowledge(READ, letters)

    async def _acknowledge(self, event: int, letters: Sequence[bytes]) -> None:
        by_sender: dict[bytes, list[bytes]] = {}
        for letter in letters:
            for (sender,) in self.query("SELECT sender FROM seen_letter WHERE letter = ?", (letter,)):
                by_sender.setdefault(bytes(sender), []).append(letter)
        await self.outbox.send_receipts(event, by_sender)

    async def take_back(self, letter: bytes, *, local: RowChanges = ()) -> bool:
        """Remove a letter that certainly never left this node, with ``local``; False when it may have left."""
        return await self.outbox.take_back(letter, local)

    def custody(self, letters: Sequence[bytes]) -> dict[bytes, list[Custody]]:
        """For each letter the events known of it, in order; forgotten seven days after the last one."""
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

    def copied(self, tx: Transaction, entries: Iterable[bytes]) -> int:
        """Remember that these entries are durable somewhere else; entries of other people are passed over."""
        now = self.node.now_ms()
        count = 0
        for entry in entries:
            tx.execute("UPDATE parcel SET copied = max(copied, 1) WHERE entry = ? AND outgoing", (entry,))
            tx.execute("UPDATE sent SET copied = 1 WHERE entry = ?", (entry,))
            # A letter that names parcels is somewhere else when all of these are: it goes before them. One whose body
            # lies apart when that is, and an envelope that tells somebody where.
            named = "SELECT letter FROM parcel WHERE outgoing"
            for (letter,) in tx.query(
                f"SELECT letter FROM sent m WHERE entry = ?1 AND letter NOT IN ({named})"
                " AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.letter = m.letter AND s.device = x'' AND NOT s.copied)"
                " AND EXISTS (SELECT 1 FROM sent s WHERE s.letter = m.letter AND s.device <> x'' AND s.copied)"
                f" UNION {named} AND entry = ?1"
                " AND NOT EXISTS (SELECT 1 FROM parcel p WHERE p.letter = parcel.letter AND NOT p.copied)",
                (entry,),
            ):
                tx.execute(
                    "INSERT OR IGNORE INTO custody(letter, event, at_ms)"
                    " SELECT ?, 'copied', ? WHERE EXISTS (SELECT 1 FROM custody WHERE letter = ? AND event = 'kept')",
                    (letter, now, letter),
                )
                count += 1
        return count

    def mail_to(self, identity: bytes | None) -> set[bytes]:
        """The ids of this person's letters to a contact that may be on their way, with the bodies that lie apart."""
        rows = self.query(
            "SELECT entry FROM sent WHERE to_identity = ?1"
            " OR (device = x'' AND letter IN (SELECT letter FROM sent WHERE to_identity = ?1))",
            (identity,),
        )
        return {bytes(row[0]) for row in rows}

    def own_mail(self) -> list[bytes]:
        """The ids of this person's letters that may still be on their way, and of the parcels that these name."""
        mine = "SELECT entry FROM sent UNION SELECT entry FROM parcel WHERE outgoing"
        return [bytes(row[0]) for row in self.query(mine)]

    def expected_parcels(self) -> list[bytes]:
        """The ids of parcels here that letters to this person name."""
        return [bytes(row[0]) for row in self.query("SELECT entry FROM parcel WHERE NOT outgoing")]

    def authored(self, entries: Iterable[bytes]) -> list[bytes]:
        """Those of the entries that are this person's letters, or the parcels that these name."""
        mine = "SELECT 1 FROM sent WHERE entry = ?1 UNION SELECT 1 FROM parcel WHERE entry = ?1 AND outgoing"
        return [e for e in entries if self.query(mine, (e,))]

    def verified_devices(self) -> list[bytes]:
        """The devices of verified contacts, by their public keys (32 B)."""
        return [
            bytes(row[0])
            for row in self.query(
                "SELECT device FROM device JOIN contact USING (identity)"
                " WHERE verified_ms IS NOT NULL AND NOT blocked AND accepted"
            )
        ]

    # ---- groups ----

    def invitations(self) -> list[Group]:
        """The closed spaces that somebody has added this person to, and that wait for ``join_space``."""
        return self.groups.held(INVITED)

    async def join_space(self, space: bytes) -> None:
        """Join a closed space that this person was added to; until then nothing of it is in the node's store."""
        await self.groups.join(space)

    async def leave_space(self, space: bytes) -> None:
        """Leave a closed space, or decline an invitation to it; what is here of it goes."""
        await self.groups.leave(space)

    async def add_member(self, space: bytes, identity: bytes, role: str = "member") -> None:
        """Add a contact to a closed space as "member" or "admin", or tell a member everything once more."""
        await self.groups.add(space, identity, role)

    async def remove_member(self, space: bytes, identity: bytes) -> None:
        """Remove a member of a closed space; what is said from now on is for the others alone."""
        await self.groups.remove(space, identity)

    # ---- bundles and backup ----

    async def write_bundle(
        self,
        out: BinaryIO,
        *,
        to: bytes | None = None,
        space: bytes | None = None,
        max_bytes: int | None = None,
        progress: Progress = trips.silent,
    ) -> BundleReport:
        """Write a bundle for a contact or of a channel (see ``trips.write_bundle``); then call ``bundle_left``."""
        return await trips.write_bundle(self, out, to=to, space=space, max_bytes=max_bytes, progress=progress)

    async def bundle_left(self, report: BundleReport) -> None:
        """The bundle is whole on its medium: its letters have one more copy."""
        await self.node.copied(report.written)

    def glance(self, beginning: bytes) -> Glance:
        """Whom a bundle is for, by its first ``PEEK_BYTES`` (see ``trips.glance``); raises BundleError."""
        return trips.glance(self, beginning)

    async def read_bundle(self, source: BinaryIO, *, progress: Progress = trips.silent) -> BundleReport:
        """Take in what is whole of a bundle; raises BundleError when the file is none or is for somebody else."""
        return await trips.read_bundle(self, source, progress=progress)

    async def backup(self, passphrase: str) -> bytes:
        """The backup file under its own passphrase: identity, contacts, the rooms' private rows; no device's keys.

        Raises UsageError for a passphrase under 8 characters, StorageError when there is too much for one file.
        """
        check_passphrase(passphrase)
        return await people.backup(self, passphrase)

    # ---- devices ----

    def check_device(self) -> None:
        """Raise UsageError when this device was revoked by another one of this person: it says nothing any more."""
        if self.is_ended:
            raise UsageError(
                "this device was ended by another of yours; if it is to go on, start it anew: `outlast device renew`"
            )

    def devices(self) -> list[OwnDevice]:
        """This person's devices, the present one first, then the earlier ones, the latest first."""
        return own_devices.devices(self)

    def old_devices(self) -> list[Device]:
        """The earlier devices of this person that are not revoked yet, the latest first."""
        return [one.device for one in self.devices()[1:] if not one.revoked]

    @property
    def device_state(self) -> DeviceState:
        """``ended`` by another device; ``renewed`` by itself, or perhaps ``copied``, and nobody was told; else ``ok``.

        A contact's device could forge the letter that makes it ``copied``: the person decides what to do.
        """
        if self.is_ended:
            return "ended"
        if self.vault.meta(own_devices.RENEWED) is not None:
            return "renewed"
        return "ok" if self.vault.meta(own_devices.COPIED) is None else "copied"

    async def doubt_device(self) -> None:
        """Remember that a letter was seen that this device seems to have sent and this vault never wrote."""
        await self.node.write(
            lambda: self.vault.write(
                lambda tx: tx.execute("INSERT OR REPLACE INTO meta(name, value) VALUES (?, x'')", (own_devices.COPIED,))
            )
        )
        self.node.touch()

    async def note_renewal(self) -> None:
        """The person was told that the device has renewed itself, or may have been copied."""
        names = (own_devices.RENEWED, own_devices.COPIED)
        await self.node.write(
            lambda: self.vault.write(lambda tx: tx.execute("DELETE FROM meta WHERE name IN (?, ?)", names))
        )
        self.node.touch()

    async def revoke_device(self, device: bytes) -> None:
        """End an earlier device (see ``devices.revoke``); raises NotFoundError, UsageError."""
        await own_devices.revoke(self, device)

    async def renew(self) -> None:
        """Go on as a new device and end the present one (see ``devices.renew``)."""
        await own_devices.renew(self)

    def contact_devices(self, identity: bytes) -> list[ContactDevice]:
        """The devices of a contact, the newest first."""
        return [
            ContactDevice(read_certificate(bytes(certificate)), bool(accepted), warning or "")
            for certificate, accepted, warning in self.query(
                "SELECT certificate, accepted, warning FROM device WHERE identity = ? ORDER BY rowid DESC", (identity,)
            )
        ]

    def doubts(self, device: bytes, received_ms: int) -> str:
        """Why a letter of a contact's device, received then, may not be theirs; empty when nothing speaks against it.

        ``revoked``: their identity had ended the device before; ``unknown_device``: nobody has accepted it yet.
        """
        rows = self.query(
            "SELECT warning, (SELECT at_ms FROM revoked WHERE revoked.device = device.device"
            " AND revoked.identity = device.identity) FROM device WHERE device = ?",
            (device,),
        )
        if not rows:
            return ""
        warning, ended_ms = rows[0]
        if ended_ms is not None:
            # Heard by a clock that ran ahead: which letters came later is not known.
            return REVOKED if received_ms >= ended_ms or ended_ms > self.node.now_ms() else ""
        return "unknown_device" if warning == "unknown_device" else ""

    # ---- time and housekeeping ----

    def newest_ms(self, upto_ms: int) -> int:
        """The newest time up to ``upto_ms`` at which this person wrote; 0 when it is not known any more."""
        rows = self.query("SELECT max(at_ms) FROM custody WHERE event = 'kept' AND at_ms <= ?", (upto_ms,))
        return int(rows[0][0] or 0)

    def claims(self) -> list[int]:
        """The newest days claimed by letters of verified contacts; evidence against a wrong clock."""
        # What came on a day that is still to come, by a clock that ran ahead, did not come lately for years.
        now = self.node.now_ms()
        return [
            day_of(row[0])
            for row in self.query(
                "SELECT max(sent_ms) FROM seen_letter JOIN contact ON contact.identity = seen_letter.sender"
                " WHERE verified_ms IS NOT NULL AND seen_letter.received_ms BETWEEN ? AND ? GROUP BY sender LIMIT ?",
                (now - 7 * DAY_MS, now, CLAIMS),
            )
        ]

    async def met_somebody(self) -> None:
        """Somebody was met today: make the day's prekey, and destroy those that no mail can need any more."""
        today = self.node.today()
        if self.is_ended or self.query("SELECT 1 FROM prekey WHERE made_day = ? AND superseded_day IS NULL", (today,)):
            return
        await self.node.write(lambda: self.vault.write(lambda tx: people.new_prekey(tx, today)))
        self.inbox.load(self.query)

    async def tell_again(self) -> None:
        """Say what is still to be said of ended devices, to contacts and in spaces."""
        await own_devices.tell_again(self)
        await own_devices.end_in_spaces(self)

    def tidy(self, tx: Transaction, over_before: int, pruned_day: int) -> None:
        """Drop what has outlived its purpose: journeys that ended long ago, marks of expired entries, old prekeys."""
        for table in ("opened", "sent", "seen_letter", "held_by", "awaited", "bundle_part", "parcel"):
            tx.execute(f"DELETE FROM {table} WHERE expires_day > 0 AND expires_day < ?", (pruned_day,))
        # A letter that is nowhere but here says so for as long as it may still leave: a cut can last for weeks.
        tx.execute(
            "DELETE FROM custody WHERE letter IN (SELECT letter FROM custody GROUP BY letter"
            " HAVING max(at_ms) < ? AND (max(event <> 'kept') OR letter NOT IN (SELECT letter FROM sent)))",
            ((over_before - CUSTODY_DAYS) * DAY_MS,),
        )
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
        # What is sealed to earlier devices comes by links as well, and by those who were silent for long.
        gone += tx.execute(
            "UPDATE own_device SET seal = NULL WHERE seal IS NOT NULL AND ended_day < ?",
            (pruned_day - keep - LINK_DAYS,),
        )
        gone += tx.execute(
            "DELETE FROM invite WHERE kind = 'intro' AND made_day < ? AND rowid < (SELECT max(rowid) FROM invite"
            " WHERE kind = 'intro')",
            (pruned_day - keep - LINK_DAYS - INTRO_DAYS,),
        )
        if gone:
            self.inbox.load(tx.query)


def _must(value: bytes | None) -> bytes:
    if value is None:
        raise StorageError("this vault is incomplete: restore it from its backup file")
    return value
