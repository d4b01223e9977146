"""Entries have one form each: whatever is not in it is refused, with EntryError alone."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from outlast.kernel.entry import (
    CHUNK_BYTES,
    CONTENT_MAX_BYTES,
    DAY_MS,
    HEADER_MAX_BYTES,
    KIND_MAX_BYTES,
    PAYLOAD_MAX_BYTES,
    TAG_MAX_BYTES,
    TAGS_MAX,
    Entry,
    EntryError,
    Header,
    day_of,
    decode_header,
    encode_header,
    entry_id,
    expiry_day,
    pack,
    pack_header,
    signing_input,
    travel_size,
    unpack,
    unpack_all,
)
from outlast.kernel.identity import SigningKey, verify
from tests.unit.kernel.people import entry, secret

AUTHOR = SigningKey.from_seed(secret("author"))

hashes = st.binary(min_size=32, max_size=32)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def headers(draw: st.DrawFn, versions: tuple[int, int] = (1, 1)) -> Header:
    seq = draw(st.one_of(st.integers(0, 3), u64))
    tags = draw(st.sets(st.binary(min_size=1, max_size=TAG_MAX_BYTES), max_size=TAGS_MAX))
    return Header(
        version=draw(st.integers(*versions)),
        space=draw(hashes),
        kind=draw(st.from_regex(r"[a-z][a-z0-9._-]{0,31}", fullmatch=True)),
        author=draw(hashes),
        seq=seq,
        prev=draw(hashes) if seq > 1 else None,
        clock=draw(u64),
        ts_ms=draw(st.integers(0, 2**53 - 1)),
        expires_day=draw(st.integers(0, 2**31 - 1)),
        priority=draw(st.integers(0, 7)),
        payload_hash=draw(hashes),
        payload_size=draw(st.integers(0, CONTENT_MAX_BYTES)),
        tags=tuple(sorted(tags)),
        stamp_nonce=draw(u64),
    )


def some_header(**changed: object) -> Header:
    return msgspec.structs.replace(entry(AUTHOR, b"hello").header, **changed)


def encode_long(value: object) -> bytes:
    """The value in msgpack's longest form, which says the same."""
    match value:
        case None:
            return b"\xc0"
        case int():
            return b"\xcf" + value.to_bytes(8, "big")
        case str():
            return b"\xdb" + len(value).to_bytes(4, "big") + value.encode()
        case bytes():
            return b"\xc6" + len(value).to_bytes(4, "big") + value
        case tuple():
            return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(encode, value))
    raise AssertionError(value)


def encode(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


class TestHeader:
    @given(headers())
    def test_comes_back_from_its_bytes(self, header: Header) -> None:
        data = encode_header(header)
        assert decode_header(data) == header
        assert len(data) <= HEADER_MAX_BYTES

    @given(headers(), st.integers(0, 13))
    def test_longer_forms_of_the_same_values_are_refused(self, header: Header, place: int) -> None:
        values = msgspec.structs.astuple(header)
        parts = [encode(value) for value in values]
        assert b"\x9e" + b"".join(parts) == encode_header(header)
        longer = encode_long(values[place])
        assume(longer != parts[place])
        parts[place] = longer
        with pytest.raises(EntryError, match="shortest form"):
            decode_header(b"\x9e" + b"".join(parts))

    @pytest.mark.parametrize("array", [b"\xdc\x00\x0e", b"\xdd\x00\x00\x00\x0e"])
    def test_a_longer_array_head_is_refused(self, array: bytes) -> None:
        with pytest.raises(EntryError, match="shortest form"):
            decode_header(array + encode_header(some_header())[1:])

    @given(headers(), st.binary(min_size=1, max_size=20))
    def test_bytes_behind_it_are_refused(self, header: Header, more: bytes) -> None:
        with pytest.raises(EntryError):
            decode_header(encode_header(header) + more)

    @given(headers(), st.data())
    def test_cut_short_it_is_refused(self, header: Header, data: st.DataObject) -> None:
        whole = encode_header(header)
        with pytest.raises(EntryError):
            decode_header(whole[: data.draw(st.integers(0, len(whole) - 1))])

    def test_more_elements_are_refused_in_version_1(self) -> None:
        data = b"\x9f" + encode_header(some_header())[1:] + b"\x01"
        with pytest.raises(EntryError, match="shortest form"):
            decode_header(data)

    @given(headers(versions=(2, 127)), st.binary(max_size=50), u64)
    def test_later_versions_may_carry_more(self, header: Header, extra: bytes, more: int) -> None:
        plain = encode_header(header)
        data = b"\xdc\x00\x10" + plain[1:] + encode(extra) + encode(more)
        assert decode_header(data) == header
        assert decode_header(plain) == header

    def test_later_versions_are_refused_in_longer_forms_too(self) -> None:
        data = b"\x9f" + encode_header(some_header(version=2))[1:] + b"\xcc\x01"
        with pytest.raises(EntryError, match="shortest form"):
            decode_header(data)

    @given(st.binary(max_size=200))
    def test_hostile_bytes_are_refused_with_one_kind_of_error(self, data: bytes) -> None:
        with pytest.raises(EntryError):
            decode_header(data)

    @given(st.lists(st.recursive(
        st.none() | st.booleans() | st.floats() | u64 | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    ), max_size=16))  # fmt: skip
    def test_other_values_are_refused_with_one_kind_of_error(self, values: list[object]) -> None:
        with pytest.raises(EntryError):
            decode_header(encode(values))

    @pytest.mark.parametrize(
        "extra",
        [
            b"\x81\x90\x01",  # a map whose key is an array
            b"\x81\x81\x01\x01\x01",  # a map whose key is a map
            b"\x82\x01\x01\x01\x01",  # a key that stands twice
            b"\xd6\xff\xff\xff\xff\xff",  # a time stamp
            b"\xc7\x0c\xff" + b"\xff" * 12,  # a time stamp far outside of all years
            b"\xd4\x05\x00",  # an extension
            b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01",  # not a number
            b"\xa1\xff",  # text that is no UTF-8
            b"\xc1",  # what msgpack never uses
            b"\x91" * 700 + b"\x90",  # arrays in arrays
            b"\xdd\xff\xff\xff\xff",  # an array of four billion elements
        ],
    )
    def test_what_later_versions_carry_never_escapes_as_another_error(self, extra: bytes) -> None:
        data = b"\x9f" + encode_header(some_header(version=2))[1:] + extra
        with suppress(EntryError):
            assert decode_header(data).version == 2

    @given(headers(), st.data())
    def test_altered_bytes_are_refused_or_are_another_canonical_header(
        self, header: Header, data: st.DataObject
    ) -> None:
        altered = bytearray(encode_header(header))
        altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            decoded = decode_header(bytes(altered))
        except EntryError:
            return
        assert decoded != header
        if decoded.version == 1:
            assert encode_header(decoded) == altered

    @pytest.mark.parametrize(
        "changed",
        [
            {"version": 0},
            {"version": 128},
            {"space": bytes(31)},
            {"author": bytes(33)},
            {"payload_hash": b""},
            {"kind": ""},
            {"kind": "Post"},
            {"kind": "1post"},
            {"kind": "post\n"},
            {"kind": "a" * (KIND_MAX_BYTES + 1)},
            {"kind": "é"},
            {"seq": -1},
            {"seq": 2**64},
            {"seq": 2, "prev": None},
            {"seq": 1, "prev": bytes(32)},
            {"seq": 0, "prev": bytes(32)},
            {"seq": 2, "prev": bytes(31)},
            {"clock": -1},
            {"clock": 2**64},
            {"ts_ms": -1},
            {"ts_ms": 2**53},
            {"expires_day": -1},
            {"expires_day": 2**31},
            {"priority": 8},
            {"priority": -1},
            {"payload_size": -1},
            {"payload_size": CONTENT_MAX_BYTES + 1},
            {"stamp_nonce": 2**64},
            {"tags": (b"",)},
            {"tags": (b"b", b"a")},
            {"tags": (b"a", b"a")},
            {"tags": (bytes(TAG_MAX_BYTES + 1),)},
            {"tags": tuple(bytes([n]) for n in range(TAGS_MAX + 1))},
        ],
    )
    def test_values_out_of_bounds_are_refused_in_both_directions(self, changed: dict[str, object]) -> None:
        header = some_header(**changed)
        with pytest.raises(EntryError):
            encode_header(header)
        try:
            data = encode(header)
        except OverflowError:
            return  # more than 64 bits cannot be written at all
        with pytest.raises(EntryError):
            decode_header(data)

    def test_no_header_is_longer_than_the_longest_allowed(self) -> None:
        longest = some_header(
            version=127,
            kind="k" * KIND_MAX_BYTES,
            seq=2**64 - 1,
            prev=bytes(32),
            clock=2**64 - 1,
            ts_ms=2**53 - 1,
            expires_day=2**31 - 1,
            payload_size=CONTENT_MAX_BYTES,
            tags=tuple(bytes([n]) * TAG_MAX_BYTES for n in range(TAGS_MAX)),
            stamp_nonce=2**64 - 1,
        )
        data = encode_header(longest)
        assert len(data) <= HEADER_MAX_BYTES
        more = b"\xdc\x00\x0f" + data[1:] + encode(bytes(HEADER_MAX_BYTES - len(data)))
        with pytest.raises(EntryError, match="at most"):
            decode_header(more)

    def test_one_of_the_greatest_length_is_read(self) -> None:
        data = encode_header(some_header(version=2))
        filler = encode(bytes(HEADER_MAX_BYTES - len(data) - 3))  # whose own head takes 3 bytes
        longest = bytes((data[0] + 1,)) + data[1:] + filler
        assert len(longest) == HEADER_MAX_BYTES
        assert decode_header(longest).version == 2


class TestIdentification:
    @given(headers())
    def test_id_and_signature_are_of_different_domains(self, header: Header) -> None:
        data = encode_header(header)
        assert entry_id(data) == sha256(b"outlast/id/1" + data).digest()
        assert signing_input(data) == b"outlast/entry/1" + data

    @given(headers(), headers())
    def test_different_headers_have_different_ids(self, one: Header, other: Header) -> None:
        ids = entry_id(encode_header(one)), entry_id(encode_header(other))
        assert (ids[0] == ids[1]) == (one == other)


class TestPacking:
    @given(st.binary(max_size=3000))
    def test_an_entry_comes_back_with_its_payload(self, payload: bytes) -> None:
        packed = pack(entry(AUTHOR, payload))
        read, end = unpack(packed)
        assert end == len(packed)
        assert read.payload == payload
        assert pack(read) == packed
        assert verify(read.header.author, read.signature, signing_input(read.header_bytes))

    @given(st.binary(max_size=300))
    def test_a_header_travels_without_its_payload(self, payload: bytes) -> None:
        whole = entry(AUTHOR, payload)
        read, end = unpack(pack_header(whole))
        assert end == len(pack_header(whole))
        assert read.payload is None
        assert (read.id, read.header, read.signature) == (whole.id, whole.header, whole.signature)

    def test_an_empty_payload_is_not_an_absent_one(self) -> None:
        assert unpack(pack(entry(AUTHOR, b"")))[0].payload == b""
        assert unpack(pack(entry(AUTHOR, None)))[0].payload is None

    @given(st.lists(st.binary(max_size=50), max_size=5))
    def test_entries_back_to_back_come_back_in_order(self, payloads: list[bytes]) -> None:
        data = b"".join(pack(entry(AUTHOR, payload)) for payload in payloads)
        assert [read.payload for read in unpack_all(data)] == payloads

    def test_cut_at_any_byte_it_is_refused(self) -> None:
        packed = pack(entry(AUTHOR, b"hello"))
        for size in range(len(packed)):
            with pytest.raises(EntryError):
                unpack(packed[:size])

    def test_no_bit_can_be_changed_without_being_refused_or_breaking_the_signature(self) -> None:
        whole = entry(AUTHOR, b"hello")
        packed = pack(whole)
        for bit in range(len(packed) * 8):
            altered = bytearray(packed)
            altered[bit // 8] ^= 1 << bit % 8
            try:
                read, end = unpack(bytes(altered))
            except EntryError:
                continue
            if end == len(altered):
                message = signing_input(read.header_bytes)
                assert not verify(read.header.author, read.signature, message)
            else:  # the bit that says whether the payload follows
                assert (read.id, read.payload) == (whole.id, None)

    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_hostile_bytes_are_refused_with_one_kind_of_error(self, data: bytes, at: int) -> None:
        with pytest.raises(EntryError):
            unpack(data, at)

    def test_a_payload_of_another_size_or_hash_is_refused(self) -> None:
        whole = entry(AUTHOR, b"hello")
        packed = pack(whole)
        with pytest.raises(EntryError, match="hash"):
            unpack(packed[:-1] + b"!")
        other = Entry(whole.header, whole.header_bytes, whole.signature, whole.id, b"hell")
        with pytest.raises(EntryError, match="too early"):
            unpack(pack(other))


class TestSizesAndDays:
    @given(st.integers(0, CONTENT_MAX_BYTES))
    @example(PAYLOAD_MAX_BYTES)
    @example(PAYLOAD_MAX_BYTES + 1)
    def test_what_travels_is_the_content_or_its_manifest(self, size: int) -> None:
        travels = travel_size(size)
        assert travels <= PAYLOAD_MAX_BYTES
        if size <= PAYLOAD_MAX_BYTES:
            assert travels == size
        else:
            assert (travels // 32 - 1) * CHUNK_BYTES < size <= travels // 32 * CHUNK_BYTES

    @given(st.integers(0, 2**53 - 1), st.integers(0, 400 * DAY_MS))
    def test_the_day_of_expiry_begins_after_the_life_ends(self, ts_ms: int, life_ms: int) -> None:
        end_ms = ts_ms + life_ms
        assert end_ms < expiry_day(ts_ms, life_ms) * DAY_MS <= end_ms + DAY_MS
        assert day_of(ts_ms) == ts_ms // 86_400_000
