"""Bundles: what is damaged loses only itself, nothing is invented, and strangers read nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.kernel import hpke
from outlast.kernel.bundle import (
    ACKS_MAX,
    CHUNK_BYTES,
    DATA_BYTES,
    MAGIC,
    RECORD_MAX_BYTES,
    SLOTS,
    BundleError,
    BundleReader,
    BundleWriter,
    Content,
    Holding,
    Item,
    Manifest,
    Receiver,
    Record,
    Summary,
    record_bytes,
)
from outlast.kernel.chunks import padded
from outlast.kernel.entry import Entry, pack
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import SigningKey, verify
from tests.unit.kernel.people import Person, entry, person, secret, stream

ALICE, BOB, CAROL, MALLORY = (person(name) for name in ("alice", "bob", "carol", "mallory"))
WIRE_CHUNK = CHUNK_BYTES + 16
OPEN_HEADER = len(MAGIC) + 2
SEALED_HEADER = OPEN_HEADER + SLOTS * 80
# Few and large, many and small, one that fills a chunk to its last byte: all meet chunk borders.
SIZES = [300, 65_536, 0, 5_000, 40_000, *[700] * 150, 65_536, 65_535, 1, 30_000, *[64] * 200]


@cache
def entries(sizes: tuple[int, ...] = tuple(SIZES)) -> tuple[Entry, ...]:
    return tuple(entry(ALICE.signing, stream("payload", n)(size), number=n) for n, size in enumerate(sizes))


def sealed_writer(
    *receivers: Person, writer: Person = ALICE, signer: SigningKey | None = None, **changed: Any
) -> BundleWriter:
    given: dict[str, Any] = {
        "certificate": writer.device.certificate,
        "signer": signer or writer.signing,
        "number": 7,
        "made_day": 20_778,
        "rand": stream("bundle"),
    }
    keys = [(r.device.device, r.prekeys[0].public) for r in receivers or (BOB,)]
    return BundleWriter.sealed(keys, **given | changed)


def open_writer() -> BundleWriter:
    return BundleWriter.open(made_day=20_778)


def write(writer: BundleWriter, content: Sequence[Entry]) -> bytes:
    return b"".join([writer.start(), *map(writer.add, content), *writer.finish()])


@cache
def sealed_file(sizes: tuple[int, ...] = tuple(SIZES)) -> bytes:
    return write(sealed_writer(), entries(sizes))


@cache
def open_file(sizes: tuple[int, ...] = tuple(SIZES)) -> bytes:
    return write(open_writer(), entries(sizes))


class Reading(NamedTuple):
    items: list[Item]
    summary: Summary

    @property
    def ids(self) -> list[bytes]:
        return [item.id for item in self.items if isinstance(item, Entry)]


def reader_of(who: Person | None) -> BundleReader:
    if who is None:
        return BundleReader()
    return BundleReader([who.seal, *who.prekeys], who.device.device)


def read(data: bytes, who: Person | None = BOB, piece: int = 1 << 20) -> Reading:
    reader = reader_of(who)
    items = [i for at in range(0, len(data), piece) for i in reader.feed(data[at : at + piece])]
    return Reading(items, reader.finish())


def chunks_of_entries(content: Sequence[Entry], manifest: Manifest) -> list[range]:
    """For each entry the chunks that its record touches."""
    first = 5 + len(msgspec.msgpack.encode(manifest))
    ends = list(accumulate((5 + len(pack(e)) for e in content), initial=first))
    return [range(start // DATA_BYTES, (end - 1) // DATA_BYTES + 1) for start, end in pairwise(ends)]


def survivors(content: Sequence[Entry], manifest: Manifest, damaged: set[int]) -> list[bytes]:
    """The entries that no damaged chunk touches.

    One in front may make the beginning of the next unknown: a chunk tells where its first record
    begins, so that whatever begins in a good chunk is found.
    """
    touched = chunks_of_entries(content, manifest)
    return [e.id for e, chunks in zip(content, touched, strict=True) if not damaged & set(chunks)]


class TestWhole:
    @pytest.mark.parametrize("piece", [1, 79, 4096, 65_552, 1 << 20])
    def test_a_sealed_bundle_comes_back_in_order(self, piece: int) -> None:
        content = entries((300, 65_536, 0, 5_000)) if piece == 1 else entries()
        data = write(sealed_writer(), content)
        items, summary = read(data, piece=piece)
        assert [pack(i) for i in items[1:] if isinstance(i, Entry)] == [pack(e) for e in content]
        assert summary.manifest == items[0]
        assert summary.writer == ALICE.device
        assert summary == Summary(
            manifest=summary.manifest,
            writer=ALICE.device,
            entries=len(content),
            malformed=0,
            whole=True,
            signature_ok=True,
            truncated=False,
            damaged_chunks=(),
        )

    def test_the_manifest_says_what_the_writer_said(self) -> None:
        acks = {BOB.device.device: [1, 2, 5], CAROL.device.device: [4]}
        data = write(sealed_writer(BOB, CAROL, acks=acks, entries=0), ())
        manifest = read(data).summary.manifest
        assert manifest == Manifest(
            1,
            ALICE.device.certificate,
            (Receiver(BOB.device.device, (1, 2, 5)), Receiver(CAROL.device.device, (4,))),
            7,
            20_778,
            0,
        )
        assert manifest.acks_for(CAROL.device.device) == (4,)
        assert manifest.acks_for(ALICE.device.device) == ()

    def test_of_many_acknowledgements_the_newest_are_told(self) -> None:
        acks = {who.device.device: range(5000) for who in (ALICE, BOB, CAROL, MALLORY)}
        manifest = read(write(sealed_writer(ALICE, BOB, CAROL, MALLORY, acks=acks), ())).items[0]
        assert isinstance(manifest, Manifest)
        assert manifest.acks_for(BOB.device.device) == tuple(range(5000 - ACKS_MAX, 5000))

    def test_an_open_bundle_is_read_without_keys(self) -> None:
        reading = read(open_file(), None)
        assert reading.ids == [e.id for e in entries()]
        assert reading.summary == replace(
            read(sealed_file()).summary,
            manifest=Manifest(1, b"", (), 0, 20_778, None),
            writer=None,
            signature_ok=None,
        )

    def test_an_open_bundle_names_nobody(self) -> None:
        data = write(open_writer(), ())
        assert data == write(open_writer(), ())
        for named in (ALICE, BOB):
            for key in (named.identity.public, named.device.device, named.device.seal):
                assert key not in data

    def test_headers_without_their_payload_travel_too(self) -> None:
        bare = entry(ALICE.signing, None, size=70_000_000)
        (item,) = read(write(sealed_writer(), [bare])).items[1:]
        assert isinstance(item, Entry)
        assert (item.id, item.payload) == (bare.id, None)

    @given(st.lists(st.one_of(st.integers(0, 300), st.integers(0, 65_536)), max_size=12))
    @settings(max_examples=30)
    def test_entries_of_any_sizes_come_back(self, sizes: list[int]) -> None:
        content = entries(tuple(sizes))
        reading = read(write(open_writer(), content), None)
        assert reading.ids == [e.id for e in content]
        assert reading.summary.whole

    @pytest.mark.parametrize("left", range(-45, 8))
    def test_records_may_end_anywhere_about_the_end_of_a_chunk(self, left: int) -> None:
        """The border is moved byte by byte over the entry's end, the trailer's head and its end."""
        content = entries((self.up_to_the_border(left),))
        reading = read(write(open_writer(), content), None)
        assert reading.ids == [content[0].id]
        assert reading.summary.whole

    @pytest.mark.parametrize("left", range(-8, 8))
    def test_a_record_that_begins_behind_the_border_needs_no_chunk_before_it(self, left: int) -> None:
        """Also when the record before it ends with its chunk."""
        content = entries((self.up_to_the_border(left), 300))
        altered = bytearray(write(open_writer(), content))
        altered[OPEN_HEADER] ^= 1
        assert read(bytes(altered), None).ids == ([content[1].id] if left >= 0 else [])

    def test_a_chunk_in_which_no_record_begins_is_passed_over_after_damage(self) -> None:
        """The longest entry begins in the first chunk's last bytes and ends in the third."""
        content = entries((self.up_to_the_border(-50), 65_536, 300))
        manifest = read(write(open_writer(), content), None).summary.manifest
        assert manifest is not None
        assert chunks_of_entries(content, manifest)[1] == range(3)
        altered = bytearray(write(open_writer(), content))
        altered[OPEN_HEADER] ^= 1
        reading = read(bytes(altered), None)
        assert reading.ids == [content[2].id]
        assert reading.summary.malformed == 0

    def up_to_the_border(self, left: int) -> int:
        """The size with which a first entry's record ends `left` bytes behind the first chunk."""
        around = len(pack(entries((60_000,))[0])) - 60_000
        manifest = 5 + len(msgspec.msgpack.encode(Manifest(1, b"", (), 0, 20_778, None)))
        return DATA_BYTES - manifest - 5 - around + left


class TestForWhom:
    def test_each_of_the_receivers_opens_it_with_any_of_their_keys(self) -> None:
        data = write(sealed_writer(BOB, CAROL), entries((300,)))
        for who in (BOB, CAROL):
            assert read(data, who).summary.whole
        to_seal_key = sealed_writer()
        keys = [(BOB.device.device, BOB.seal.public)]
        to_seal_key = BundleWriter.sealed(
            keys,
            certificate=ALICE.device.certificate,
            signer=ALICE.signing,
            number=1,
            made_day=1,
            rand=stream("bundle"),
        )
        assert read(write(to_seal_key, ())).summary.whole

    @pytest.mark.parametrize("who", [MALLORY, None])
    def test_nobody_else_opens_it(self, who: Person | None) -> None:
        with pytest.raises(BundleError, match="for somebody else"):
            read(sealed_file((300,)), who)

    def test_what_was_written_for_another_and_passed_on_is_refused(self) -> None:
        """Bob may open Alice's bundle; sealing its inside to Carol does not make it one for her."""
        writer = sealed_writer()
        forwarded = BundleWriter.sealed(
            [(CAROL.device.device, CAROL.prekeys[0].public)],
            certificate=ALICE.device.certificate,
            signer=ALICE.signing,
            number=7,
            made_day=20_778,
            rand=stream("mallory"),
        )
        forwarded._manifest = writer._manifest
        with pytest.raises(BundleError, match="for somebody else and passed on"):
            read(write(forwarded, ()), CAROL)

    def test_the_number_of_receivers_shows_nowhere(self) -> None:
        everybody = [ALICE, BOB, CAROL, MALLORY]
        for number in range(1, SLOTS + 1):
            data = write(sealed_writer(*everybody[:number]), entries((300,)))
            assert len(data) == SEALED_HEADER + WIRE_CHUNK
            slots = [data[OPEN_HEADER + 80 * n :][:80] for n in range(SLOTS)]
            assert len(set(slots)) == SLOTS
            # A random string would have its top bit set half of the time; no X25519 key has it.
            assert not any(slot[31] & 0x80 for slot in slots)

    def test_receivers_stand_in_no_fixed_order(self) -> None:
        def place(seed: int) -> int:
            data = write(sealed_writer(rand=stream(seed)), ())
            for n in range(SLOTS):
                slot = data[OPEN_HEADER + 80 * n :][:80]
                if hpke.unseal(BOB.prekeys[0], slot, info=b"outlast/bundle/1", aad=data[:10]):
                    return n
            raise AssertionError

        assert {place(seed) for seed in range(40)} == set(range(SLOTS))

    @pytest.mark.parametrize("number", [0, SLOTS + 1])
    def test_it_is_for_one_to_four_devices(self, number: int) -> None:
        keys = [(BOB.device.device, BOB.prekeys[0].public)] * number
        with pytest.raises(BundleError, match=f"1 to 4 devices, not for {number}"):
            BundleWriter.sealed(keys, certificate=b"", signer=ALICE.signing, number=1, made_day=1, rand=stream())

    def test_a_key_of_low_order_is_refused(self) -> None:
        with pytest.raises(BundleError, match="not usable"):
            BundleWriter.sealed(
                [(BOB.device.device, bytes(32))],
                certificate=b"",
                signer=ALICE.signing,
                number=1,
                made_day=1,
                rand=stream(),
            )

    def test_nothing_of_a_sealed_bundle_stands_in_clear(self) -> None:
        data = sealed_file()
        for known in (ALICE, BOB):
            for key in (known.identity.public, known.device.device, known.prekeys[0].public):
                assert key not in data
        assert not any(e.id in data or e.signature in data for e in entries())
        assert bytes(16) not in data


class TestDamage:
    @given(
        st.lists(
            st.tuples(st.integers(0, 10**9), st.integers(1, 70_000), st.integers(0, 255)),
            min_size=1,
            max_size=4,
        ),
        st.booleans(),
    )
    def test_every_undamaged_entry_is_recovered_and_none_invented(
        self, hits: list[tuple[int, int, int]], is_open: bool
    ) -> None:
        original = open_file() if is_open else sealed_file()
        start = OPEN_HEADER if is_open else SEALED_HEADER
        altered = bytearray(original)
        for at, size, value in hits:
            at = start + at % (len(original) - start)
            end = min(at + size, len(original))
            altered[at:end] = bytes([value]) * (end - at)
        damaged = {
            n
            for n in range((len(original) - start) // WIRE_CHUNK)
            if original[start + n * WIRE_CHUNK :][:WIRE_CHUNK] != altered[start + n * WIRE_CHUNK :][:WIRE_CHUNK]
        }
        who = None if is_open else BOB
        manifest = read(original, who).summary.manifest
        assert manifest is not None
        reading = read(bytes(altered), who, piece=100_000)
        assert reading.ids == survivors(entries(), manifest, damaged)
        assert reading.summary.damaged_chunks == tuple(sorted(damaged))
        assert reading.summary.malformed == 0
        last_record = sum(5 + len(pack(e)) for e in entries()) // DATA_BYTES
        if min(damaged, default=last_record + 2) <= last_record:
            assert not reading.summary.whole
            assert reading.summary.signature_ok in ({None} if is_open else {None, True})

    @given(st.integers(0, SEALED_HEADER - 1), st.integers(1, 255))
    @example(at=9, change=1)  # a sealed file that says it is open
    def test_damage_to_the_header_loses_all_or_nothing(self, at: int, change: int) -> None:
        altered = bytearray(sealed_file((300, 700)))
        altered[at] ^= change
        try:
            reading = read(bytes(altered))
        except BundleError:
            return
        if reading.summary.whole:
            assert reading.ids == [e.id for e in entries((300, 700))]
        else:
            assert reading.items == []

    def test_damage_to_the_slots_of_others_loses_nothing(self) -> None:
        original = sealed_file((300, 700))
        opened = 0
        for n in range(SLOTS):
            altered = bytearray(original)
            altered[OPEN_HEADER + n * 80 + 40] ^= 1
            try:
                opened += read(bytes(altered)).summary.whole
            except BundleError:
                continue
        assert opened == SLOTS - 1

    def test_chunks_cannot_change_places(self) -> None:
        for data, start, who in (
            (sealed_file(), SEALED_HEADER, BOB),
            (open_file(), OPEN_HEADER, None),
        ):
            one, two = (data[start + n * WIRE_CHUNK :][:WIRE_CHUNK] for n in (1, 2))
            swapped = data[: start + WIRE_CHUNK] + two + one + data[start + 3 * WIRE_CHUNK :]
            assert read(swapped, who).summary.damaged_chunks == (1, 2)

    def test_chunks_of_another_bundle_are_damage(self) -> None:
        data, other = sealed_file(), write(sealed_writer(rand=stream("other")), entries())
        at = SEALED_HEADER + WIRE_CHUNK
        mixed = data[:at] + other[at : at + WIRE_CHUNK] + data[at + WIRE_CHUNK :]
        assert read(mixed).summary.damaged_chunks == (1,)

    def test_with_its_manifest_lost_the_entries_are_still_there(self) -> None:
        altered = bytearray(sealed_file())
        altered[SEALED_HEADER + 5] ^= 1
        reading = read(bytes(altered))
        assert reading.ids
        assert reading.summary.manifest is None
        assert reading.summary.signature_ok is None

    def test_the_writer_is_vouched_for_although_an_entry_is_lost(self) -> None:
        altered = bytearray(sealed_file())
        altered[SEALED_HEADER + 2 * WIRE_CHUNK] ^= 1
        summary = read(bytes(altered)).summary
        assert summary.signature_ok
        assert not summary.whole

    def test_damage_to_padding_loses_nothing(self) -> None:
        data = sealed_file((500_000 // 8,) * 9)  # nine chunks, padded to ten
        assert len(data) == SEALED_HEADER + 10 * WIRE_CHUNK
        altered = bytearray(data)
        altered[-1] ^= 1
        reading = read(bytes(altered))
        assert len(reading.ids) == 9
        assert reading.summary.whole
        assert reading.summary.damaged_chunks == (9,)
        assert not reading.summary.truncated


class TestTruncation:
    @pytest.mark.parametrize("is_open", [True, False])
    def test_cut_at_any_byte_it_is_noticed_and_what_came_before_is_there(self, is_open: bool) -> None:
        sizes = (300, 40_000, 30_000, 300)
        data = open_file(sizes) if is_open else sealed_file(sizes)
        who = None if is_open else BOB
        start = OPEN_HEADER if is_open else SEALED_HEADER
        assert len(data) == start + 2 * WIRE_CHUNK
        manifest = read(data, who).summary.manifest
        assert manifest is not None
        first = survivors(entries(sizes), manifest, {1})
        assert 0 < len(first) < len(sizes)
        reader = reader_of(who)
        ids: list[bytes] = []
        for size in range(len(data)):
            if size < start:
                with pytest.raises(BundleError, match=r"no bundle|cut off"):
                    reader.finish()
            else:
                summary = reader.finish()
                assert summary.truncated
                assert not summary.whole
                assert ids == (first if size >= start + WIRE_CHUNK else [])
            items = reader.feed(data[size : size + 1])
            ids += [i.id for i in items if isinstance(i, Entry)]
        assert reader.finish().whole
        assert ids == [e.id for e in entries(sizes)]

    def test_what_a_program_appends_is_passed_over(self) -> None:
        reading = read(sealed_file() + b"-- \nsent from a phone", piece=1000)
        assert reading.summary.whole
        assert not reading.summary.truncated


class TestContent:
    def test_parts_come_in_order_behind_the_entries_and_one_that_damage_touches_is_lost(self) -> None:
        [entry] = entries((300,))
        parts = [
            Content.of(entry.id, place, bytes([place]) * size) for place, size in ((0, 65_536), (1, 65_536), (2, 7))
        ]
        writer = open_writer()
        file = [writer.start(), writer.add(entry), *map(writer.add_content, parts), *writer.finish()]
        data = b"".join(file)
        reading = read(data, None, piece=777)
        assert reading.ids == [entry.id]
        assert [item for item in reading.items if isinstance(item, Content)] == parts
        assert reading.summary.whole
        torn = bytearray(data)
        torn[10 + 65_552 + 5] ^= 1
        reading = read(bytes(torn), None)
        assert [item for item in reading.items if isinstance(item, Content)] == parts[2:]
        assert not reading.summary.whole

    def test_the_signature_covers_the_data_that_only_its_hash_stands_for(self) -> None:
        [entry] = entries((300,))

        def file(part: Content, signer: SigningKey) -> bytes:
            writer = sealed_writer(signer=signer)
            return b"".join([writer.start(), writer.add(entry), writer.add_content(part), *writer.finish()])

        told = Content.of(entry.id, 0, b"bread")
        honest = file(told, ALICE.signing)
        assert read(honest).summary.whole
        replayed = Replayed(ALICE.signing, read_trailer(honest)[32:])
        other = read(file(Content.of(entry.id, 0, b"stone"), replayed)).summary  # type: ignore[arg-type]
        assert (other.whole, other.signature_ok) == (False, False)

    @pytest.mark.parametrize("sealed", [True, False])
    def test_a_hash_that_is_not_the_datas_is_noticed(self, sealed: bool) -> None:
        [entry] = entries((300,))
        writer = sealed_writer() if sealed else open_writer()
        lie = Content.of(entry.id, 0, b"bread")._replace(data=b"stone")
        data = b"".join([writer.start(), writer.add(entry), writer.add_content(lie), *writer.finish()])
        reading = read(data) if sealed else read(data, None)
        assert Content.of(entry.id, 0, b"stone") in reading.items
        assert not reading.summary.whole

    @pytest.mark.parametrize("body", [b"", b"i" * 34, b"i" * 34 + bytes(65_537)])
    def test_a_part_of_an_impossible_length_is_malformed(self, body: bytes) -> None:
        hostile = TestHostileWriters()
        summary = read(hostile.raw((1, hostile.MANIFEST), (4, body), (3, bytes(32))), None).summary
        assert summary.malformed == 1
        assert not summary.whole


class TestHostileWriters:
    def raw(self, *records: tuple[int, bytes], head: bytes | None = None) -> bytes:
        """An open bundle of these records, whatever they are."""
        writer = open_writer()
        writer.start()
        del writer._plain[2:]
        writer._first = 0xFFFF
        writer._digest = sha256()
        out = [MAGIC + b"\x01\x01"]
        for kind, body in records:
            out.append(writer._record(kind, body))  # type: ignore[arg-type]
        if head is not None:
            writer._plain += head
        return b"".join([*out, *writer.finish()])

    MANIFEST = msgspec.msgpack.encode(Manifest(1, b"", (), 0, 1, None))

    @pytest.mark.parametrize("signer", [MALLORY.signing, BOB.signing])
    def test_a_signature_by_another_is_noticed(self, signer: SigningKey) -> None:
        summary = read(write(sealed_writer(signer=signer), entries((300,)))).summary
        assert summary.signature_ok is False
        assert not summary.whole

    def test_the_signature_covers_manifest_and_records(self) -> None:
        """Whoever has the file key can seal chunks of their own, but not sign for the writer."""
        trailer = read_trailer(write(sealed_writer(), entries((300,))))
        for content, changed in (
            (entries((301,)), {}),
            ((), {}),
            (entries((300,)), {"acks": {BOB.device.device: [1]}}),
            (entries((300,)), {"number": 8}),
        ):
            writer = sealed_writer(**changed)
            data = [writer.start(), *map(writer.add, content)]
            writer._signer = Replayed(ALICE.signing, trailer[32:])  # type: ignore[assignment]
            summary = read(b"".join([*data, *writer.finish()])).summary
            assert summary.signature_ok is False

    def test_a_replayed_trailer_vouches_for_its_own_manifest_alone(self) -> None:
        trailer = read_trailer(write(sealed_writer(), entries((300,))))
        for changed, vouched in (
            ({}, True),
            ({"acks": {BOB.device.device: [1]}}, False),
            ({"number": 8}, False),
        ):
            writer = sealed_writer(**changed)
            data = [writer.start(), writer._record(Record.TRAILER, trailer), *writer.finish()]
            summary = read(b"".join(data)).summary
            assert summary.signature_ok is vouched
            assert not summary.whole

    def test_records_of_unknown_types_are_passed_over(self) -> None:
        packed = pack(entries((300,))[0])
        data = self.raw((1, self.MANIFEST), (9, b"future"), (2, packed), (0, b""))
        reading = read(data, None)
        assert reading.ids == [entries((300,))[0].id]
        assert reading.summary.malformed == 0
        assert reading.summary.whole

    def test_what_follows_the_trailer_is_no_record(self) -> None:
        packed = pack(entries((300,))[0])
        reading = read(self.raw((1, self.MANIFEST), (3, bytes(32)), (2, packed)), None)
        assert reading.ids == []
        assert reading.summary.entries == 0
        assert not reading.summary.whole

    @pytest.mark.parametrize("body", [b"", b"entry", pack(entries((9,))[0])[:-1], pack(entries((9,))[0]) + b"!"])
    def test_what_is_no_entry_is_counted_and_passed_over(self, body: bytes) -> None:
        good = entries((300,))[0]
        reading = read(self.raw((1, self.MANIFEST), (2, body), (2, pack(good))), None)
        assert reading.ids == [good.id]
        assert reading.summary.malformed == 1
        assert not reading.summary.whole

    @pytest.mark.parametrize("length", [RECORD_MAX_BYTES + 1, 2**31, 2**32 - 1])
    def test_a_record_without_end_is_not_waited_for(self, length: int) -> None:
        head = length.to_bytes(4, "big") + b"\x02"
        data = self.raw((1, self.MANIFEST), head=head)
        summary = read(data, None).summary
        assert summary.malformed == 1
        assert not summary.whole

    @pytest.mark.parametrize(
        "manifest",
        [
            b"",
            b"\x90",
            msgspec.msgpack.encode(Manifest(2, b"", (), 0, 1, None)),
            msgspec.msgpack.encode(Manifest(1, b"", (), -1, 1, None)),
            msgspec.msgpack.encode(Manifest(1, b"", (), 2**63, 1, None)),
            msgspec.msgpack.encode(Manifest(1, b"", (), 1, 1, -1)),
            msgspec.msgpack.encode(Manifest(1, b"", (Receiver(bytes(32), (-1,)),), 1, 1, 0)),
            msgspec.msgpack.encode(Manifest(1, b"", (Receiver(b"", ()),) * 5, 1, 1, 0)),
            msgspec.msgpack.encode(Manifest(1, b"", (Receiver(b"", (1,) * 1001),), 1, 1, 0)),
        ],
    )
    def test_a_malformed_manifest_is_refused(self, manifest: bytes) -> None:
        with pytest.raises(BundleError, match="malformed"):
            read(self.raw((1, manifest)), None)

    def test_a_sealed_bundle_needs_a_certificate_that_holds(self) -> None:
        with pytest.raises(BundleError, match="malformed"):
            read(write(sealed_writer(certificate=b"certificate"), ()))

    def test_a_bundle_begins_with_its_manifest(self) -> None:
        with pytest.raises(BundleError, match="does not begin with its manifest"):
            read(self.raw((2, pack(entries((300,))[0])), (1, self.MANIFEST)), None)

    def test_a_second_manifest_says_nothing(self) -> None:
        other = msgspec.msgpack.encode(Manifest(1, b"", (), 5, 1, None))
        reading = read(self.raw((1, self.MANIFEST), (1, other)), None)
        assert [i for i in reading.items if isinstance(i, Manifest)] == [reading.summary.manifest]
        assert reading.summary.manifest == Manifest(1, b"", (), 0, 1, None)

    @given(st.binary(max_size=500), st.booleans())
    def test_hostile_files_are_refused_with_one_kind_of_error(self, data: bytes, with_magic: bool) -> None:
        with pytest.raises(BundleError) as caught:
            read((MAGIC if with_magic else b"") + data)
        assert isinstance(caught.value, ProtocolError)
        assert str(caught.value).isprintable()

    @given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=300)), max_size=8))
    def test_hostile_records_are_refused_with_one_kind_of_error(self, records: list[tuple[int, bytes]]) -> None:
        try:
            reading = read(self.raw((1, self.MANIFEST), *records), None)
        except BundleError:
            return
        assert reading.ids == []

    @pytest.mark.parametrize(
        ("data", "line"),
        [
            (b"", "no bundle"),
            (b"hello", "no bundle"),
            (b"PK\x03\x04" + bytes(100), "no bundle"),
            (MAGIC[:5], "cut off"),
            (MAGIC, "cut off"),
            (MAGIC + b"\x01\x00" + bytes(319), "cut off"),
            (MAGIC + b"\x01\x00" + bytes(320), "for somebody else"),
            (MAGIC + b"\x02\x00", "newer"),
            (MAGIC + b"\x01\x02", "newer"),
            (MAGIC + b"\x00\x00", "newer"),
        ],
    )
    def test_other_files_get_one_clear_line(self, data: bytes, line: str) -> None:
        with pytest.raises(BundleError, match=line):
            read(data)


class TestSizes:
    def test_files_have_one_of_few_sizes(self) -> None:
        sizes = {len(sealed_file((n * 1000,))) for n in range(60)}
        assert sizes == {SEALED_HEADER + WIRE_CHUNK}

    @pytest.mark.parametrize(
        ("chunks", "padded"),
        [(1, 1), (2, 2), (7, 7), (8, 8), (9, 10), (11, 12), (15, 16), (17, 18), (33, 36)],
    )
    def test_the_steps_grow_with_the_file(self, chunks: int, padded: int) -> None:
        content = entries((65_000,) * chunks)  # less than a chunk each, with head and signature
        data = write(open_writer(), content)
        assert len(data) == OPEN_HEADER + padded * WIRE_CHUNK

    def test_the_padding_costs_at_most_an_eighth(self) -> None:
        for count in range(1, 70_000):
            assert count <= padded(count) <= count * 1.12
            assert padded(padded(count)) == padded(count)
        assert len({padded(count) for count in range(1, 70_000)}) < 200

    @pytest.mark.parametrize("sealed", [False, True])
    @pytest.mark.parametrize("max_bytes", [70_000, 140_000, 600_000, 719_000, 1_300_000])
    def test_what_there_is_room_for_makes_no_larger_file_and_one_more_record_would(
        self, max_bytes: int, sealed: bool
    ) -> None:
        made = []
        for more in (0, 1):
            writer = sealed_writer(BOB) if sealed else open_writer()
            data = bytearray(writer.start())
            content = entry(ALICE.signing, bytes(1000))
            while writer.room(max_bytes) >= 2 * record_bytes(content):
                data += writer.add(content)
            last = entry(ALICE.signing, bytes(1000 + writer.room(max_bytes) - record_bytes(content) + more))
            assert (writer.room(max_bytes) >= record_bytes(last)) is not bool(more)
            data += writer.add(last)
            made.append(len(data + b"".join(writer.finish())))
        assert made[0] <= max_bytes < made[1]

    def test_a_hundred_megabytes_pass_through_little_memory(self) -> None:
        part = entry(ALICE.signing, bytes(65_536))
        number = 100_000_000 // 65_536

        def pieces(writer: BundleWriter) -> Iterator[bytes]:
            yield writer.start()
            for _ in range(number):
                yield writer.add(part)
            yield from writer.finish()

        reader = reader_of(BOB)
        seen = 0
        tracemalloc.start()
        try:
            for data in pieces(sealed_writer()):
                seen += sum(isinstance(item, Entry) for item in reader.feed(data))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert seen == number
        assert reader.finish().whole
        assert peak < 2_000_000

    def test_piece_by_piece_a_reader_holds_a_chunk_and_a_record(self) -> None:
        reader = reader_of(None)
        head = (RECORD_MAX_BYTES).to_bytes(4, "big") + b"\x02"
        data = TestHostileWriters().raw((1, TestHostileWriters.MANIFEST), head=head)
        reader.feed(data)
        assert len(reader._input) < WIRE_CHUNK
        assert len(reader._rest or b"") <= RECORD_MAX_BYTES + 5 + CHUNK_BYTES

    def test_behind_the_trailer_nothing_piles_up(self) -> None:
        reader = reader_of(None)
        writer = TestHostileWriters()
        much = [(9, bytes(60_000))] * 20
        reader.feed(writer.raw((1, writer.MANIFEST), (3, bytes(32)), *much))
        assert len(reader._rest or b"") < CHUNK_BYTES


class Replayed:
    """Signs nothing new: gives back a signature that was seen."""

    def __init__(self, key: SigningKey, signature: bytes) -> None:
        self.public = key.public
        self.signature = signature

    def sign(self, message: bytes) -> bytes:
        assert not verify(self.public, self.signature, message)
        return self.signature


def read_trailer(data: bytes) -> bytes:
    """The digest and the signature at the end of Bob's bundle."""
    reader = reader_of(BOB)
    reader.feed(data)
    assert reader._trailer is not None
    return reader._trailer


def test_a_key_that_opens_no_slot_is_no_reason_to_stop_looking() -> None:
    keys = [OpeningKey.from_secret(secret("lost", n)) for n in range(20)]
    reader = BundleReader([*keys, BOB.prekeys[0]], BOB.device.device)
    reader.feed(sealed_file((300,)))
    assert reader.finish().whole


def test_what_is_held_comes_as_it_was_said_and_other_lengths_are_malformed() -> None:
    said = [Holding(bytes([number]) * 32, held) for number, held in enumerate((0, 1, 1 << 2047, (1 << 2048) - 1))]
    writer = sealed_writer()
    reading = read(b"".join((writer.start(), *map(writer.add_holding, said), *writer.finish())))
    assert reading.items[1:] == said
    assert reading.summary.whole
    for body in (bytes(31), bytes(32 + 257)):
        writer = sealed_writer()
        reading = read(b"".join((writer.start(), writer._record(Record.HOLDING, body), *writer.finish())))
        assert reading.items[1:] == []
        assert reading.summary.malformed == 1
