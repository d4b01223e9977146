"""Devices: which ones are a person's own, how one is revoked, and how one renews itself.

A device's chains can go on in one place only. When its own signature is seen under something that this vault never
wrote, the vault was copied: the device says nothing more, and a new one goes on from here. What the old one wrote up to
then stays valid, and mail that is still sealed to it is opened for as long as there can be any.
"""

from __future__ import annotations

import contextlib
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
from outlast.kernel.kinds import KindError
from outlast.kernel.log import Head, is_beyond, next_entry
from outlast.kernel.outbox import IN, INTRODUCING, OUT, RETIRED, Outgoing, Party, newest_prekey
from outlast.kernel.revocation import DEVICES, REVOKE, TOLD_MAX, Revocation, Revoke, Told, revocation_in, tell
from outlast.kernel.revocation import revoke as sign_revocation
from outlast.kernel.room import Change, Event
from outlast.kernel.space import read_genesis
from outlast.kernel.tombstone import LASTING, allowed

if TYPE_CHECKING:
    from outlast.kernel.person import Contact, Person

TELL_AGAIN_DAYS: Final = 25
"""Mail lives for 30 days."""
RENEWED: Final = "renewed"
"""In the vault's meta while the person was not told that the device has renewed itself: when, in ms (8 B)."""

COPIED: Final = "copied"
"""In the vault's meta while the person was not told that somebody else may send letters as this device."""


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """A device of this person. ``revoked``: their identity has ended it, as far as is known here."""

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
    return is_beyond(head, header.seq, change.entry.id)


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
    its last entry known here has no authority.

    Raises NotFoundError, and UsageError for the present device.
    """
    if device == person.device:
        raise UsageError("this is the device that you use: `outlast device renew` ends it and begins a new one")
    if all(one.device.device != device for one in devices(person)):
        raise NotFoundError("no such device of yours: see `outlast device list`")
    person.check_device()
    outbox, now = person.outbox, person.node.now_ms()
    async with outbox.speaking:
        store = person.node.open_store
        heads = {space: known_head(person, device, space) for space in store.spaces() if space not in store.closed()}
        signed = sign_revocation(identity_key(person.entropy), device)
        letters = letters_to(person.contacts(), tell([], [signed]), now)

        def act(tx: Transaction) -> tuple[list[Entry], None]:
            sealed = put_told(person, tx, letters)
            put_revoked(tx, person.identity, device, signed, now)
            # What comes of it from now on does not move the end, also where it can only be said later.
            tx.executemany(
                "INSERT OR REPLACE INTO head(device, space, seq, clock, id) VALUES (?, ?, ?, ifnull((SELECT clock"
                " FROM head WHERE device = ? AND space = ?), zeroblob(8)), ?)",
                [
                    (device, space, head.seq.to_bytes(8, "big"), device, space, head.id)
                    for space, head in heads.items()
                    if head is not None
                ],
            )
            # Its mail is for whoever has it now.
            tx.execute("UPDATE own_device SET seal = NULL WHERE device = ?", (device,))
            return sealed, None

        await person.node.write(lambda: outbox.commit(act))
    async with person.inbox.reading:
        person.take_keys(person.query)
        person.inbox.forget(person.query)
    await outbox.flush()
    await end_in_spaces(person)
    person.node.touch()


async def end_in_spaces(person: Person) -> None:
    """Say of each revoked device where it ends, in the open spaces whose genesis names this person and is here now."""
    if person.is_ended:
        return
    identity = identity_key(person.entropy)
    for (ended,) in person.query("SELECT device FROM revoked WHERE identity = ?", (person.identity,)):
        device = bytes(ended)
        rows = person.query("SELECT space, seq, id FROM head WHERE device = ?", (device,))
        said = {one.space for one in revocations_of(person, device)}
        for space, seq, last in ((bytes(space), int.from_bytes(seq, "big"), bytes(id)) for space, seq, id in rows):
            if space not in said and space in person.node.spaces() and is_named(person, space):
                payload = REVOKE.encode(Revoke(sign_revocation(identity, device, space, seq, last)))
                make = partial(person.outbox.next, space, REVOKE, payload, 0)
                with contextlib.suppress(UsageError):  # a device that was ended meanwhile says nothing
                    await person.outbox.append(space, make, lambda _: ((), ()))


async def renew(person: Person) -> None:
    """Go on as a new device, and end the present one at the last entries of it that are known here.

    The new one is certified by the identity and by the old one, and the old one tells contacts of it; so does a letter
    to the old device itself, which a copy of this vault elsewhere opens. What was said here behind an end that another
    device has set is said again. Raises StorageError; then nothing has happened, and the old one goes on being still.
    """
    before = person.device
    async with person.inbox.reading, person.outbox.speaking:
        if person.device == before:
            said = {one.space for one in revocations_of(person, before)}
            heads = {space: head for space, head in known_heads(person, before).items() if space not in said}
            again = {space: _unheard(person, before, space) for space in person.node.open_store.spaces()}
            await person.node.write(partial(_renew, person, heads, again))
            # What was seen of the old device's copy is no reason to begin anew once more.
            person.inbox.forget(person.query)
    await person.outbox.flush()
    person.node.touch()


def revocations_of(person: Person, device: bytes) -> list[Revocation]:
    """What this person's identity has said of a device in open spaces, as far as it is here."""
    store = person.node.open_store
    rows = store.query(
        "SELECT e.id FROM ending x JOIN entry e ON e.n = x.n WHERE x.target = ? AND x.who = ?",
        (device, person.identity),
    )
    found = (revocation_in(entry) for entry in store.load(bytes(row[0]) for row in rows))
    return [one for one in found if one is not None]


def is_named(person: Person, space: bytes) -> bool:
    """Whether an open space's genesis, which all can read, names this person."""
    store = person.node.open_store
    genesis = None if space in store.closed() else store.get(space)
    try:
        return genesis is not None and person.identity in allowed(read_genesis(genesis))
    except KindError:
        return False


def known_heads(person: Person, device: bytes) -> dict[bytes, Head]:
    """The last entry of a device, as far as it is known, in each followed open space that names this person.

    Elsewhere a revocation would say whose device it was, and the device has no authority to lose. For closed spaces see
    ``groups``.
    """
    spaces = (space for space in person.node.open_store.spaces() if is_named(person, space))
    heads = {space: known_head(person, device, space) for space in spaces}
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
    if not due or person.is_ended:
        return
    contacts = [contact for contact in person.contacts() if contact.identity in due and not contact.blocked]
    if not contacts:
        return

    def act(tx: Transaction) -> tuple[list[Entry], None]:
        rows = tx.query("SELECT signed FROM revoked WHERE identity = ? ORDER BY at_ms", (person.identity,))
        ended = [bytes(row[0]) for row in rows]
        parts = [ended[at : at + TOLD_MAX] for at in range(0, len(ended), TOLD_MAX)]
        bodies = [tell([told(person, tx)], part) for part in parts]
        return put_told(person, tx, [one for body in bodies for one in letters_to(contacts, body, now)]), None

    await person.node.write(lambda: person.outbox.commit(act))
    await person.outbox.flush()


def _unheard(person: Person, device: bytes, space: bytes) -> list[Entry]:
    """What this vault wrote by a device in a space behind the end that the person has set to it elsewhere; in order."""
    store = person.node.open_store
    ends = [one.seq for one in revocations_of(person, device) if one.space == space]
    rows = person.query("SELECT id FROM head WHERE device = ? AND space = ?", (device, space))
    said: list[Entry] = []
    entry = store.get(bytes(rows[0][0])) if rows and ends else None
    while entry is not None and entry.header.seq > min(ends):
        if entry.payload is not None and entry.header.kind not in LASTING:
            said.append(entry)
        entry = store.get(entry.header.prev) if entry.header.prev is not None else None
    return said[::-1]


def _anew(device: SigningKey, last: Head | None, entry: Entry, clock: int) -> Entry:
    """The same words by another device, of the same time and life."""
    header = entry.header
    life_ms = max(1, (header.expires_day - 1) * DAY_MS - header.ts_ms) if header.expires_day else 0
    return next_entry(
        device,
        last,
        space=header.space,
        kind=header.kind,
        payload=entry.payload or b"",
        size_bytes=header.payload_size,
        clock=clock,
        ts_ms=header.ts_ms,
        life_ms=life_ms,
        priority=header.priority,
    )


def _renew(person: Person, heads: dict[bytes, Head], again: dict[bytes, list[Entry]]) -> None:
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
        for space in heads.keys() | again.keys():
            rows = tx.query("SELECT max(clock) FROM head WHERE space = ?", (space,))
            clock, last = int.from_bytes(rows[0][0] or b"", "big"), None
            if space in heads:
                revocation = sign_revocation(identity, old.device.device, space, *heads[space])
                payload = REVOKE.encode(Revoke(revocation))
                said = next_entry(
                    signing,
                    None,
                    space=space,
                    kind=REVOKE.name,
                    payload=payload,
                    clock=clock + 1,
                    ts_ms=now,
                    life_ms=0,
                    priority=REVOKE.priority,
                )
                last, clock = Head(1, said.id), clock + 1
                entries.append(said)
            for entry in again.get(space, ()):
                clock += 1
                said = _anew(signing, last, entry, clock)
                last = Head(said.header.seq, said.id)
                entries.append(said)
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
        tx.execute("DELETE FROM meta WHERE name = ?", (COPIED,))
        return entries, None

    outbox.commit(act)
    person.take_keys(person.vault.read)
