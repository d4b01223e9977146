"""Devices: which ones are a person's own, how one is revoked, and how one renews itself.

A device's chains can go on in one place only. When its own signature is seen under something that this vault never
wrote, the vault was copied: the device says nothing more, and a new one goes on from here. What the old one wrote up to
then stays valid, and mail that is still sealed to it is opened for as long as there can be any.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import mail, people
from outlast.kernel.database import Transaction
from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import Device, SigningKey, certify, identity_key, read_certificate, sign_prekey
from outlast.kernel.log import Fork, Gap, Head, Next, next_entry, position
from outlast.kernel.outbox import IN, INTRODUCING, OUT, RETIRED, Outgoing, Party, newest_prekey
from outlast.kernel.revocation import DEVICES, REVOKE, TOLD_MAX, Revoke, Told, revocation_in, tell
from outlast.kernel.revocation import revoke as sign_revocation
from outlast.kernel.room import Change, Event

if TYPE_CHECKING:
    from outlast.kernel.person import Contact, Person

TELL_AGAIN_DAYS: Final = 25
"""Mail lives for 30 days."""
RENEWED: Final = "renewed"
"""In the vault's meta while the person was not told that the device has renewed itself: when, in ms (8 B)."""


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """A device of this person. ``ended_ms`` is when it was revoked, as far as known here."""

    device: Device
    is_present: bool
    revoked: bool


def devices(person: Person) -> list[OwnDevice]:
    """This person's devices, the present one first, then the earlier ones, the latest first."""
    revoked = {
        bytes(row[0]) for row in person.query("SELECT device FROM revoked WHERE identity = ?", (person.identity,))
    }
    rows = person.query("SELECT certificate FROM own_device ORDER BY ended_day DESC, rowid DESC")
    earlier = [read_certificate(bytes(row[0])) for row in rows]
    return [OwnDevice(one, one.device == person.device, one.device in revoked) for one in (person.own, *earlier)]


def is_elsewhere(person: Person, change: Change) -> bool:
    """Whether a change shows that somebody else, with a copy of this vault, writes as this device.

    Only this device signs its entries, and the vault knows the last of each chain before any of them leaves it.
    """
    header = change.entry.header
    if header.author != person.device or not header.seq:
        return False
    if change.event is Event.FORKED:
        return True
    if change.event is not Event.ADMITTED:
        return False
    head, _ = person.outbox.head(header.space)
    return isinstance(position(head, header, change.entry.id), Next | Gap | Fork)


def ends_this(person: Person, change: Change) -> bytes | None:
    """The revocation of this very device that an entry carries, if it does and the person's identity signed it."""
    found = revocation_in(change.entry) if change.event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED) else None
    mine = found is not None and (found.identity, found.device) == (person.identity, person.device)
    return found.signed if found is not None and mine else None


def put_revoked(tx: Transaction, identity: bytes, device: bytes, signed: bytes, now_ms: int) -> None:
    """Write down that an identity has ended a device; the first time counts."""
    tx.execute(
        "INSERT OR IGNORE INTO revoked(device, identity, signed, at_ms) VALUES (?, ?, ?, ?)",
        (device, identity, signed, now_ms),
    )


def told(person: Person, tx: Transaction) -> Told:
    """The present device as contacts are told of it."""
    prekey, day = newest_prekey(tx)
    return Told(person.certificate, prekey, day, sign_prekey(person.signing_key, prekey, day))


def about_renewal(person: Person, tx: Transaction, earlier: Device) -> bytes:
    """The body of the letter by which an earlier device that has renewed itself names the present one."""
    return tell([told(person, tx)], [sign_revocation(identity_key(person.entropy), earlier.device)])


async def revoke(person: Person, device: bytes) -> None:
    """End an earlier device (32 B): contacts seal nothing more to it, and in the followed spaces what lies beyond
    its last entry known here has no authority. Once more, it is ended in the spaces that were not known before.

    Raises NotFoundError, and UsageError for the present device.
    """
    if device == person.device:
        raise UsageError("this is the device that you use: `outlast device renew` ends it and begins a new one")
    if all(one.device.device != device for one in devices(person)):
        raise NotFoundError("no such device of yours: see `outlast device list`")
    person.check_device()
    outbox, now = person.outbox, person.node.now_ms()
    identity = identity_key(person.entropy)
    async with outbox.speaking:
        entries = []
        said = ended_in(person, device)
        for space, head in known_heads(person, device).items():
            if space in said:
                continue
            body = Revoke(sign_revocation(identity, device, space, head.seq, head.id))
            entries.append(outbox.next(space, REVOKE, REVOKE.encode(body), 0))
        signed = sign_revocation(identity, device)
        letters = letters_to(person.contacts(), tell([], [signed]), now)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            sealed = put_told(person, tx, letters)
            put_revoked(tx, person.identity, device, signed, now)
            # Its mail is for whoever has it now.
            tx.execute("UPDATE own_device SET seal = NULL WHERE device = ?", (device,))
            return [*sealed, *entries], None

        await person.node.write(lambda: outbox.commit(act))
    await refresh(person)


async def renew(person: Person) -> None:
    """Go on as a new device, and end the present one at the last entries of it that are known here.

    The new one is certified by the identity and by the old one, and the old one tells contacts of it; so does a letter
    to the old device itself, which a copy of this vault elsewhere opens. Raises StorageError; then nothing has happened
    and the old one goes on saying nothing.
    """
    before = person.device
    async with person.inbox.reading, person.outbox.speaking:
        if person.device == before:
            heads = known_heads(person, before)
            await person.node.write(partial(_renew, person, heads))
    await refresh(person)


async def refresh(person: Person) -> None:
    """Send what was made, and go by the keys and devices that now stand in the vault."""
    async with person.inbox.reading:
        person.inbox.forget(person.query)
    await person.outbox.flush()
    person.node.touch()


def ended_in(person: Person, device: bytes) -> set[bytes]:
    """The open spaces in which this person has ended a device already, as far as it is known here."""
    store = person.node.open_store
    rows = store.query(
        "SELECT e.id FROM ending x JOIN entry e ON e.n = x.n WHERE x.target = ? AND x.who = ?",
        (device, person.identity),
    )
    found = (revocation_in(entry) for entry in store.load(bytes(row[0]) for row in rows))
    return {one.space for one in found if one is not None}


def known_heads(person: Person, device: bytes) -> dict[bytes, Head]:
    """The last entry of a device in each followed open space, as far as it is known; ``groups`` ends it in others."""
    store = person.node.open_store
    closed = store.closed()
    heads = {space: known_head(person, device, space) for space in store.spaces() if space not in closed}
    return {space: head for space, head in heads.items() if head is not None}


def known_head(person: Person, device: bytes, space: bytes) -> Head | None:
    """The last entry of an own device in a space, as far as it is known here."""
    rows = person.query("SELECT seq, id FROM head WHERE device = ? AND space = ?", (device, space))
    kept = Head(int.from_bytes(rows[0][0], "big"), bytes(rows[0][1])) if rows else None
    found = person.node.open_store.head(space, device)
    if found is None or (kept is not None and kept.seq >= found[0]):
        return kept
    return Head(*found)


def letters_to(contacts: Iterable[Contact], body: bytes, now_ms: int) -> list[Outgoing]:
    """A letter about devices to each of these contacts."""
    return [Outgoing(contact.identity, DEVICES.name, body, os.urandom(16), now_ms) for contact in contacts]


def put_told(person: Person, tx: Transaction, letters: Sequence[Outgoing]) -> list[Entry]:
    """Seal letters about devices, and remember to say it again to whom they are for until they have them."""
    entries, failures = person.outbox.put_letters(tx, letters)
    tx.executemany(
        "INSERT OR REPLACE INTO untold(identity, letter, told_ms) VALUES (?, ?, ?)",
        [(one.to, one.letter, 0 if one.letter in failures else one.sent_ms) for one in letters],
    )
    return entries


async def tell_again(person: Person) -> None:
    """Tell contacts which devices were ended who have not acknowledged it, before mail of the last time is gone."""
    now = person.node.now_ms()
    before_ms = now - TELL_AGAIN_DAYS * DAY_MS
    rows = person.query("SELECT identity FROM untold WHERE told_ms < ?", (before_ms,))
    due = {bytes(row[0]) for row in rows}
    contacts = [contact for contact in person.contacts() if contact.identity in due and not contact.blocked]
    if not contacts or person.is_ended:
        return

    def act(tx: Transaction) -> tuple[list[Entry], None]:
        ended = tx.query(
            "SELECT signed FROM revoked WHERE identity = ? ORDER BY at_ms DESC LIMIT ?", (person.identity, TOLD_MAX)
        )
        body = tell([told(person, tx)], [bytes(row[0]) for row in ended])
        return put_told(person, tx, letters_to(contacts, body, now)), None

    await person.node.write(lambda: person.outbox.commit(act))
    await person.outbox.flush()


def _renew(person: Person, heads: dict[bytes, Head]) -> None:
    """On the writer thread: make the new device, and have the old one say its last."""
    node, outbox, old = person.node, person.outbox, person.party
    now, today = node.now_ms(), node.today()
    identity = identity_key(person.entropy)
    signing, seal = SigningKey.from_seed(os.urandom(32)), OpeningKey.from_secret(os.urandom(32))
    certificate = certify(identity, signing, seal.public, today, person.name, cross=person.signing_key)
    new = Party(read_certificate(certificate), seal)
    ended = sign_revocation(identity, old.device.device)
    contacts = letters_to(person.contacts(), b"", now)
    intro = person.inbox.intros[0]

    def act(tx: Transaction) -> tuple[list[Entry], None]:
        old_prekey = newest_prekey(tx)[0]
        people.new_prekey(tx, today)
        tx.execute("INSERT INTO invite(secret, made_day, kind) VALUES (?, ?, 'intro')", (os.urandom(16), today))
        prekey, day = newest_prekey(tx)
        body = tell([Told(certificate, prekey, day, sign_prekey(signing, prekey, day))], [ended])
        letters = [Outgoing(one.to, one.kind, body, one.letter, one.sent_ms) for one in contacts]
        entries = put_told(person, tx, letters)
        letter = mail.SealedLetter(
            id=os.urandom(16), kind=DEVICES.name, sent_ms=now, body=body, prekey=prekey, prekey_day=day
        )
        entries.append(
            mail.seal_introduction(
                letter,
                intro_secret=intro,
                sender=new.device,
                sender_seal=seal,
                receiver=old.device,
                counter=int.from_bytes(os.urandom(2), "big") % mail.INTRO_TAGS,
                prekey=old_prekey,
                now_ms=now,
                rand=os.urandom,
            )
        )
        for space, head in heads.items():
            rows = tx.query("SELECT max(clock) FROM head WHERE space = ?", (space,))
            entries.append(
                next_entry(
                    signing,
                    None,
                    space=space,
                    kind=REVOKE.name,
                    payload=REVOKE.encode(Revoke(sign_revocation(identity, old.device.device, space, *head))),
                    clock=int.from_bytes(rows[0][0] or b"", "big") + 1,
                    ts_ms=now,
                    life_ms=0,
                    priority=REVOKE.priority,
                )
            )
        put_revoked(tx, person.identity, old.device.device, ended, now)
        tx.execute(
            "INSERT OR REPLACE INTO own_device(device, certificate, seal, ended_day) VALUES (?, ?, ?, ?)",
            (old.device.device, old.device.certificate, old.seal.secret, today),
        )
        # The pairs with the new device begin anew; those with the old one go on being expected.
        tx.execute("DELETE FROM counter WHERE direction = ?", (INTRODUCING,))
        for direction in (OUT, IN):
            tx.execute(
                "INSERT INTO counter(device, day, direction, next) SELECT device, day, ?, next FROM counter c"
                " WHERE direction = ?"
                " ON CONFLICT(device, day, direction) DO UPDATE SET next = max(next, excluded.next)",
                (direction + RETIRED, direction),
            )
            tx.execute("DELETE FROM counter WHERE direction = ?", (direction,))
        meta = {
            "device": signing.seed,
            "seal": seal.secret,
            "certificate": certificate,
            RENEWED: now.to_bytes(8, "big"),
        }
        tx.executemany("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", list(meta.items()))
        return entries, None

    outbox.commit(act)
    person.take_keys(person.vault.read)
