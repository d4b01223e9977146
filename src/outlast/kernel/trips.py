"""Trips: bundles as a person writes and reads them, and what is remembered of who has what.

A bundle to a contact leaves out what their device confirmed, by the numbers of the bundles it has read, and what came
from it. What is remembered rests on signatures: nobody can claim that somebody else holds an entry.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

from outlast.errors import Sentence, UsageError
from outlast.kernel import bundle as bundles
from outlast.kernel import forward, mail
from outlast.kernel.admit import Admitted, Held, Known, Refused
from outlast.kernel.chunks import BATCHES, is_chunked, places
from outlast.kernel.database import Transaction
from outlast.kernel.entry import CHUNK_BYTES, Entry
from outlast.kernel.identity import Device, read_certificate
from outlast.kernel.overlap import Overlap
from outlast.kernel.room import Event
from outlast.kernel.space import space_of

if TYPE_CHECKING:
    from outlast.kernel.hpke import OpeningKey
    from outlast.kernel.person import Person

READ_BYTES: Final = 1 << 18
ITEMS_READ: Final = 64
"""Entries and chunks that are read from a bundle at a time while those before are taken in."""
ENTRIES_TOGETHER: Final = 500
"""Entries that go to the door together when a bundle is read."""
CONTENTS_TOGETHER: Final = 128
"""Chunks of contents that are made durable in one transaction when a bundle is read."""
CONTENTS_LOADED: Final = 64
"""Chunks that are loaded at a time while those before are written."""
HOLDINGS_MAX: Final = 4096
"""Contents of which a bundle may say what its writer holds."""
LINK: Final = "bundle"
"""The kind of link that a bundle counts as."""
A_CHUNK: Final = bundles.contents_bytes(CHUNK_BYTES)
"""Bytes that a whole chunk takes in a bundle."""
_STRANGE_PARTS: Final = Sentence("parts of a file belong to no entry here, or are not what the entry names")
HELD_BY_MAX: Final = 200_000
"""Entries of one bundle that its writer is remembered to have; those beyond travel once more."""


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What a bundle held: entries and bytes, how many entries were new here, and what was wrong with it.

    Of one that was written: how many entries and files there was no room for.
    """

    entries: int
    size_bytes: int
    new: int
    damaged: int = 0
    problems: tuple[Sentence, ...] = ()
    left_out: int = 0
    written: tuple[bytes, ...] = ()


Progress = Callable[[int, int | None], None]
"""Told of long work: how much is done, and of how much, None while that is unknown."""


def silent(_done: int, _total: int | None) -> None:
    """The progress that nobody watches."""


async def write_bundle(
    person: Person,
    out: BinaryIO,
    *,
    to: bytes | None = None,
    space: bytes | None = None,
    max_bytes: int | None = None,
    progress: Progress = silent,
) -> BundleReport:
    """Write a bundle: mail that a contact's node may lack, sealed to their devices, or a public space, open to all.

    Of a space the contents in chunks go behind the entries, as far as they are here; likewise the parcels that letters
    to the contact name, unless the contact has them. Where not all fits into a file of ``max_bytes``, what is written
    to this contact goes first, then by ``forward.rank``, and behind it what there is room for of parcels, and of a
    space the contents that fit as a whole.

    What they confirmed to have read, and what came from them, is left out. The caller makes the file durable and
    then calls ``bundle_left``. Raises NotFoundError and UsageError.
    """
    if to is not None and space is None:
        trip = await _to_contact(person, to)
    elif space is not None and to is None:
        trip = _to_space(person, space)
    else:
        raise UsageError("name either a contact or a channel to write a bundle for")
    store, writer = person.node.open_store, trip.writer
    # The next bundle to here need not bring again what is here.
    holdings = [bundles.Holding(id, store.holding(id)) for id in trip.expected]
    head = writer.start() + b"".join(map(writer.add_holding, holdings))
    chosen, left_out = (None, 0) if max_bytes is None else await _choose(person, trip, to, max_bytes)
    size = out.write(head)
    written: dict[bytes, int] = {}
    chunked: list[bytes] = []
    async for reached, found in _lacking(person, trip):
        going = [entry for entry in found if chosen is None or entry.id in chosen]
        for entry in going:
            size += out.write(writer.add(entry))
            written[entry.id] = entry.header.expires_day
            if is_chunked(entry.header):
                chunked.append(entry.id)
        person.node.leaves([entry.id for entry in going])
        progress(reached - trip.base, trip.upto - trip.base)

    room_bytes = math.inf if max_bytes is None else writer.room(max_bytes)
    contents_bytes, incomplete, cut = await _write_contents(person, trip, out, chunked, room_bytes, progress)
    size += contents_bytes
    for piece in writer.finish():
        size += out.write(piece)
    person.node.metrics.link_bytes_out[LINK] += size
    whole = {id: day for id, day in written.items() if id not in incomplete}
    if trip.devices:
        parts = [(device, trip.number, id, day) for device in trip.devices for id, day in whole.items()]

        def remember(tx: Transaction) -> None:
            # Who acknowledges a file that had no room for all has what was in it, and no more.
            if chosen is None:
                tx.executemany(
                    "UPDATE bundle_out SET upto_cursor = ? WHERE device = ? AND number = ?",
                    [(trip.upto, device, trip.number) for device in trip.devices],
                )
            else:
                tx.executemany("INSERT INTO bundle_part(device, number, entry, expires_day) VALUES (?, ?, ?, ?)", parts)

        await person.node.write(lambda: person.vault.write(remember))
    return BundleReport(len(written), size, len(written), left_out=left_out + cut, written=tuple(whole))


@dataclass(frozen=True, slots=True)
class _Trip:
    """A bundle to be written: for whom, of what, and what is known to be there already."""

    writer: bundles.BundleWriter
    kept_in: bytes
    """The space whose entries it carries."""
    upto: int
    """The cursor up to which it carries what came."""
    base: int = 0
    """The cursor up to which the receivers have everything."""
    devices: Sequence[bytes] = ()
    """Those who can open it; none for an open one."""
    number: int = 0
    """Which one to these devices it is."""
    held: Collection[bytes] = ()
    """Entries behind ``base`` that the receivers have."""
    parcels: Mapping[bytes, int] = field(default_factory=dict)
    """Parcels that go with it, each with the places that are there already."""
    expected: Sequence[bytes] = ()
    """Parcels that the receiver is to bring."""


async def _to_contact(person: Person, to: bytes) -> _Trip:
    """A sealed bundle to a contact's devices; raises NotFoundError, or UsageError when nothing can be sealed to any."""
    today, upto = person.node.today(), person.node.open_store.cursor()
    contact = person.contact(to)
    await person.met_somebody()
    rows = person.query(
        "SELECT device, prekey FROM device WHERE identity = ? AND accepted = 1 AND prekey IS NOT NULL"
        " ORDER BY created_day DESC LIMIT ?",
        (to, bundles.SLOTS),
    )
    if not rows or contact.blocked:
        raise UsageError("nothing can be sealed to %(name)s: add their link again, or unblock them", name=contact.name)
    devices = [bytes(device) for device, _ in rows]
    base, acks, held = _bundle_state(person, devices)
    # Before a byte of the file exists: of two files with one number, the acknowledgement of the first would
    # stand for what only the second holds.
    number = await person.node.write(lambda: person.vault.write(partial(_reserve, devices=devices, base=base)))
    writer = bundles.BundleWriter.sealed(
        [(bytes(device), bytes(prekey)) for device, prekey in rows],
        certificate=person.certificate,
        signer=person.signing_key,
        number=number,
        made_day=today,
        acks=acks,
        rand=os.urandom,
    )
    parcels, expected = person.parcels_for(to), person.parcels_from(to)
    return _Trip(writer, mail.MAIL_SPACE, upto, base, devices, number, held, parcels, expected)


def _to_space(person: Person, space: bytes) -> _Trip:
    """An open bundle of a public space; raises UsageError for any other."""
    store = person.node.open_store
    if space not in person.node.spaces() or space == mail.MAIL_SPACE or space in store.closed():
        raise UsageError("only a channel that is followed here can be written as an open bundle")
    return _Trip(bundles.BundleWriter.open(made_day=person.node.today()), space, store.cursor())


async def _choose(person: Person, trip: _Trip, to: bytes | None, max_bytes: int) -> tuple[set[bytes] | None, int]:
    """The entries that a file of ``max_bytes`` has room for, None when that is all, and how many there is none for.

    Raises UsageError when there is room for no bundle at all.
    """
    if (room := trip.writer.room(max_bytes)) < 0:
        raise UsageError("a bundle takes at least %(least)s bytes", least=bundles.MIN_BYTES)
    letters = person.mail_to(to)
    choice, contents_bytes = forward.Choice(room), 0
    async for _, found in _lacking(person, trip):
        for entry in found:
            # Of the writer's other letters none goes before anybody else's: who reads the file would know them.
            tier = forward.Tier.OWN if entry.id in letters else forward.Tier.FOLLOWED
            takes = bundles.record_bytes(entry)
            choice.add(forward.rank(entry, tier), takes)
            room -= takes
            if is_chunked(entry.header):
                contents_bytes += bundles.contents_bytes(person.node.open_store.content_size(entry.id))
    best = choice.ids()
    return best if contents_bytes > room else None, choice.left_out


async def _write_contents(
    person: Person, trip: _Trip, out: BinaryIO, chunked: Sequence[bytes], room_bytes: float, progress: Progress
) -> tuple[int, set[bytes], int]:
    """Write what is here of contents, as far as ``room_bytes`` go.

    Returns how many bytes were written, which contents are not in the file as a whole, and for how many of them there
    was no room.
    """
    store = person.node.open_store
    incomplete: set[bytes] = set()
    size = left_out = 0
    total, done = sum(store.content_size(id) for id in chunked), 0

    def contents(asked: Sequence[tuple[bytes, int]]) -> list[bytes]:
        """The next bytes of the file, with these chunks in them."""
        pieces = []
        for id, place, _, data, hash in store.chunks(asked, once=True):
            if data is None:
                incomplete.add(id)  # damaged, or dropped meanwhile
            else:
                pieces.append(trip.writer.add_content(bundles.Content(id, place, data, hash)))
        return pieces

    async with Overlap() as writing:
        for id in chunked:
            held_here, held_there = store.holding(id), trip.parcels.get(id, 0)
            if held_here.bit_count() * CHUNK_BYTES < store.content_size(id):
                incomplete.add(id)
            here = [(id, place) for place in places(held_here & ~held_there)]
            done += held_there.bit_count() * CHUNK_BYTES
            if len(here) * A_CHUNK > room_bytes:
                incomplete.add(id)
                left_out += 1
                # A contact says what of it came; who reads a channel does not, and would be brought the same again.
                here = here[: int(room_bytes // A_CHUNK)] if trip.devices else []
            room_bytes -= len(here) * A_CHUNK
            for at in range(0, len(here), CONTENTS_LOADED):
                done += CONTENTS_LOADED * CHUNK_BYTES
                progress(min(done, total), total)
                pieces = await person.node.read(partial(contents, here[at : at + CONTENTS_LOADED]))
                size += sum(map(len, pieces))
                await writing.begin(partial(asyncio.to_thread, out.writelines, pieces))
    return size, incomplete, left_out


async def _lacking(person: Person, trip: _Trip) -> AsyncIterator[tuple[int, list[Entry]]]:
    """What a bundle may carry of what came and is alive, but for what the receivers have, and the cursor up to there.

    It comes in the order of the change log, behind ``base`` and up to ``upto``, some hundred entries at a time.
    """
    store, over = person.node.open_store, person.node.over_before()
    told, cursor = set(trip.held), trip.base
    while cursor < trip.upto and (changes := store.changes(cursor, 500)):
        cursor = changes[-1].cursor
        found: list[Entry] = []
        for event, entry in ((change.event, change.entry) for change in changes):
            whole = entry.payload is not None and event in (Event.ADMITTED, Event.PAYLOAD_ARRIVED)
            wanted = space_of(entry) == trip.kept_in or entry.id in trip.parcels
            if whole and wanted and entry.id not in told and not 0 < entry.header.expires_day < over:
                found.append(entry)
                told.add(entry.id)  # its payload may have come later, and its content later still
        yield min(cursor, trip.upto), found
        await asyncio.sleep(0)


def _reserve(tx: Transaction, devices: Sequence[bytes], base: int) -> int:
    """The number of the next bundle to these devices, which no other has; as yet it brings nothing beyond ``base``."""
    marks = ",".join("?" * len(devices))
    rows = tx.query(f"SELECT ifnull(max(number), 0) + 1 FROM bundle_out WHERE device IN ({marks})", devices)
    number = int(rows[0][0])
    tx.executemany(
        "INSERT INTO bundle_out(device, number, upto_cursor, acked) VALUES (?, ?, ?, 0)",
        [(device, number, base) for device in devices],
    )
    return number


def _bundle_state(person: Person, devices: Sequence[bytes]) -> tuple[int, dict[bytes, list[int]], set[bytes]]:
    """For a bundle to these devices: the cursor up to which they have all, acks, and held entries."""
    base, acks = None, dict[bytes, list[int]]()
    held: set[bytes] | None = None
    for device in devices:
        rows = person.query("SELECT ifnull(max(upto_cursor * acked), 0) FROM bundle_out WHERE device = ?", (device,))
        base = rows[0][0] if base is None else min(base, rows[0][0])
        rows = person.query("SELECT number FROM bundle_in WHERE device = ? ORDER BY number", (device,))
        acks[device] = [n for (n,) in rows]
        mine = {bytes(e) for (e,) in person.query("SELECT entry FROM held_by WHERE device = ?", (device,))}
        held = mine if held is None else held & mine
    return base or 0, acks, held or set()


PEEK_BYTES: Final = bundles.MIN_BYTES
"""What is read of a bundle to tell whom it is for: its header and its first chunk."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What the beginning of a bundle tells this person: whether it is for them, or open, and of which channel."""

    mine: bool
    is_open: bool = False
    space: bytes | None = None  # of an open one, when its first entry tells


def glance(person: Person, beginning: bytes) -> Glance:
    """Tell whom a bundle is for by its first ``PEEK_BYTES``, as far as that can be known here.

    Raises BundleError when it is none, is damaged at its beginning or is of a newer version.
    """
    keys, devices = _openers(person)
    reader = bundles.BundleReader(keys, *devices)
    try:
        items = reader.feed(beginning)
    except bundles.ElsewhereError:
        return Glance(False)
    manifest = reader.finish().manifest
    if manifest is None:
        raise bundles.BundleError("the bundle is damaged at its beginning: copy the file again")
    if manifest.receivers:
        return Glance(True)
    return Glance(False, True, next((space_of(item) for item in items if isinstance(item, Entry)), None))


def _openers(person: Person) -> tuple[list[OpeningKey], list[bytes]]:
    """The keys that open what is for this person, and their devices."""
    own = [person.party, *person.retired]
    return [*(party.seal for party in own), *person.inbox.prekeys], [party.device.device for party in own]


async def read_bundle(person: Person, source: BinaryIO, *, progress: Progress = silent) -> BundleReport:
    """Take in what is whole of a bundle; raises BundleError when the file is none or is for somebody else."""
    keys, devices = _openers(person)
    reader = bundles.BundleReader(keys, *devices)
    entries: list[Entry] = []
    writer: Device | None = None
    size = count = new = 0
    refused: Counter[str] = Counter()
    theirs: list[tuple[bytes, int]] = []
    contents: list[bundles.Content] = []
    holdings: list[bundles.Holding] = []

    def read() -> list[bundles.Item]:
        """What comes next, some MiB of it; nothing at the end."""
        nonlocal size
        items: list[bundles.Item] = []
        while len(items) < ITEMS_READ and (data := source.read(READ_BYTES)):
            size += len(data)
            items += reader.feed(data)
        return items

    async def take(entries: Sequence[Entry], contents: Sequence[bundles.Content]) -> None:
        nonlocal new
        verdicts = await person.node.ingest(entries)
        held = [v.entry for v in verdicts if isinstance(v, Admitted | Known)]
        new += sum(isinstance(v, Admitted) for v in verdicts)
        for verdict in verdicts:
            if isinstance(verdict, Refused | Held):
                refused[verdict.rule.line.text] += 1
        theirs.extend((e.id, e.header.expires_day) for e in held[: HELD_BY_MAX - len(theirs)])
        if contents:  # their manifests are among the entries before them
            right = person.node.verify_content(contents)
            if len(right) < len(contents):
                refused[_STRANGE_PARTS.text] += 1
            await keeping.begin(partial(person.node.keep_chunks, right, None))

    async with Overlap(BATCHES) as keeping, Overlap() as taking:
        while items := await asyncio.to_thread(read):
            for item in items:
                if isinstance(item, Entry):
                    count += 1
                    entries.append(item)
                elif isinstance(item, bundles.Content):
                    contents.append(item)
                elif isinstance(item, bundles.Holding):
                    if len(holdings) < HOLDINGS_MAX:
                        holdings.append(item)
                elif item.certificate:
                    writer = read_certificate(item.certificate)
            if len(entries) >= ENTRIES_TOGETHER or len(contents) >= CONTENTS_TOGETHER:
                await taking.begin(partial(take, entries, contents))
                entries, contents = [], []
            progress(size, None)
        summary = reader.finish()
        await taking.begin(partial(take, entries, contents))
    await person.met_somebody()
    if summary.signature_ok and writer is not None:
        await _note_read(person, devices, writer.device, summary, theirs, holdings)
    person.node.metrics.link_bytes_in[LINK] += size
    person.node.touch()
    damaged = len(summary.damaged_chunks) + summary.malformed + int(summary.truncated)
    return BundleReport(count, size, new, damaged, _problems(summary, refused))


async def _note_read(
    person: Person,
    own: Sequence[bytes],
    device: bytes,
    summary: bundles.Summary,
    theirs: Sequence[tuple[bytes, int]],
    holdings: Sequence[bundles.Holding],
) -> None:
    """Remember what a contact's device signed: what it has, and which bundles of these own devices it has read."""
    known, manifest = person.inbox.devices.get(device), summary.manifest
    if known is None or manifest is None:
        return
    acks = [ack for one in own for ack in manifest.acks_for(one)]

    def note(tx: Transaction) -> None:
        # Only what the writer signed counts: others could claim that he has what he has not.
        tx.executemany(
            "INSERT OR IGNORE INTO held_by(device, entry, expires_day) VALUES (?, ?, ?)",
            [(device, entry, day) for entry, day in theirs],
        )
        person.note_holdings(tx, known.identity, holdings)
        if not summary.whole:
            return
        tx.execute("INSERT OR IGNORE INTO bundle_in(device, number) VALUES (?, ?)", (device, manifest.number))
        for ack in acks:
            confirmed = (device, ack)
            tx.execute("UPDATE bundle_out SET acked = 1 WHERE device = ? AND number = ?", confirmed)
            tx.execute(
                "INSERT OR IGNORE INTO held_by(device, entry, expires_day)"
                " SELECT device, entry, expires_day FROM bundle_part WHERE device = ? AND number = ?",
                confirmed,
            )
            tx.execute("DELETE FROM bundle_part WHERE device = ? AND number = ?", confirmed)

    await person.node.write(lambda: person.vault.write(note))


def _problems(summary: bundles.Summary, refused: Mapping[str, int]) -> tuple[Sentence, ...]:
    """What was wrong with a bundle, a sentence each; ``refused`` counts entries by the reason they were not taken."""
    problems: list[Sentence] = []
    if summary.damaged_chunks:
        pieces = len(summary.damaged_chunks)
        problems.append(Sentence("damaged pieces of the file passed over: %(n)d; copy it again", {"n": pieces}))
    if summary.truncated:
        problems.append(Sentence("the file ends too early: what was whole is here, copy it again for the rest"))
    if summary.signature_ok is False or summary.malformed:
        problems.append(Sentence("the file was not written as its writer says; each entry was checked by itself"))
    for reason, n in sorted(refused.items()):
        problems.append(
            Sentence("entries that were not taken: %(n)d; %(reason)s", {"n": n, "reason": Sentence(reason)})
        )
    return tuple(problems)
