"""The one door: what is let in, what is not and why, and that garbage cannot shut out what is real."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel.admit import (
    PACKED_MAX_BYTES,
    AdmissionState,
    Admitted,
    Candidate,
    Held,
    Known,
    Refused,
    Rule,
    Verdict,
    admit,
    examine,
    refusal_digest,
)
from outlast.kernel.entry import (
    CHUNK_BYTES,
    CONTENT_MAX_BYTES,
    DAY_MS,
    HOUR_MS,
    PAYLOAD_MAX_BYTES,
    Entry,
    Header,
    day_of,
    expiry_day,
    pack,
    pack_header,
    sign_entry,
    signing_input,
)
from outlast.kernel.epoch import SEALED_CLASSES, SEALED_KIND, SEALED_PRIORITY
from outlast.kernel.identity import SigningKey, certify
from outlast.kernel.kinds import DEFAULT_LIFE_DAYS, Kind, Kinds
from outlast.kernel.mail import MAIL_LIFE_DAYS, MAIL_SPACE
from outlast.kernel.parcel import PARCEL_KIND, PARCEL_LIFE_DAYS, PARCEL_PRIORITY, PARCEL_SPACE
from outlast.kernel.space import GENESIS, NO_SPACE, SEALED, SpaceBody, make_genesis
from outlast.testing.town import verify_each

NOW_MS = 1_800_000_000_000
AUTHOR = SigningKey.from_seed(b"a" * 32)
SPACE = b"s" * 32


class Body(msgspec.Struct, array_like=True, frozen=True):
    text: str


class Other(msgspec.Struct, array_like=True, frozen=True):
    text: str
    more: int = 0


NOTE = Kind("test.note", Body, max_bytes=1000, max_life_days=10)
FILE = Kind("test.file", Body, max_bytes=CONTENT_MAX_BYTES, max_life_days=10)
RECORD = Kind("test.record", Body, max_bytes=1000, max_life_days=0)


def made(payload: bytes | None = None, *, key: SigningKey = AUTHOR, size: int | None = None, **fields: Any) -> Entry:
    """A signed entry; ``fields`` replace the header's."""
    body = NOTE.encode(Body("hello")) if payload is None else payload
    header = Header(
        **{
            "version": 1,
            "space": SPACE,
            "kind": NOTE.name,
            "author": key.public,
            "seq": 0,
            "prev": None,
            "clock": 0,
            "ts_ms": NOW_MS,
            "expires_day": expiry_day(NOW_MS, DAY_MS),
            "priority": 2,
            "payload_hash": sha256(body).digest(),
            "payload_size": len(body) if size is None else size,
            "tags": (),
            "stamp_nonce": 0,
            **fields,
        }
    )
    return sign_entry(header, key, body)


def bare(entry: Entry) -> Entry:
    """The entry without its payload."""
    return msgspec.structs.replace(entry, payload=None)


def state(**fields: Any) -> AdmissionState:
    return AdmissionState(
        **{"kinds": Kinds([NOTE, FILE, RECORD]), "spaces": frozenset({SPACE}), "pruned_day": 0, **fields}
    )


def verdict_on(entry: Entry | bytes, **fields: Any) -> Verdict:
    (verdict,) = admit([entry], state(**fields), verify_each)
    return verdict


def rule_of(entry: Entry | bytes, **fields: Any) -> Rule | None:
    verdict = verdict_on(entry, **fields)
    return verdict.rule if isinstance(verdict, Refused | Held) else None


def test_a_signed_entry_within_all_bounds_is_admitted_packed_or_unpacked() -> None:
    entry = made()
    assert verdict_on(entry) == Admitted(entry)
    packed = verdict_on(pack(entry))
    assert isinstance(packed, Admitted)
    assert packed.entry.id == entry.id
    header_only = verdict_on(pack_header(entry))
    assert isinstance(header_only, Admitted)
    assert header_only.entry.payload is None


@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_an_entry_with_any_bit_flipped_is_never_admitted(at: int, bit: int) -> None:
    data = bytearray(pack(made()))
    data[at % len(data)] ^= 1 << bit
    verdict = verdict_on(bytes(data))
    # The first bit says that the payload follows: without it the bytes are too many, and refused.
    assert isinstance(verdict, Refused | Held)


@given(st.binary(max_size=400))
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    assert rule_of(data) is Rule.FORM


def test_more_bytes_than_an_entry_can_have_are_refused_unread() -> None:
    assert rule_of(bytes(PACKED_MAX_BYTES + 1)) is Rule.SIZE
    assert rule_of(pack(made()) + b"\0") is Rule.FORM


def test_a_signature_by_another_key_is_refused_and_worth_remembering() -> None:
    entry = made()
    signature = SigningKey.from_seed(b"b" * 32).sign(signing_input(entry.header_bytes))
    forged = msgspec.structs.replace(entry, signature=signature)
    verdict = verdict_on(forged)
    assert isinstance(verdict, Refused)
    assert verdict.rule is Rule.SIGNATURE
    assert verdict.rule.lasting
    assert rule_of(forged, refused={verdict.digest}) is Rule.REMEMBERED
    assert verdict_on(entry, refused={verdict.digest}) == Admitted(entry)


def test_garbage_under_an_entrys_id_does_not_shut_out_the_entry() -> None:
    entry = made()
    forged = msgspec.structs.replace(entry, signature=bytes(64))
    assert forged.id == entry.id
    first, second, third = admit([forged, entry, entry], state(), verify_each)
    assert isinstance(first, Refused)
    assert second == Admitted(entry)
    assert third == Known(entry)


def test_what_is_held_is_known_and_needs_no_signature_check() -> None:
    entry = made()

    def refuse_to_verify(batch: Sequence[object]) -> list[bool]:
        raise AssertionError("nothing is to be verified")

    copies = [entry, bare(entry)]
    assert admit(copies, state(known={entry.id}), refuse_to_verify) == [Known(copy) for copy in copies]


def test_a_payload_completes_a_header_that_is_held() -> None:
    entry = made()
    incomplete = {"known": {entry.id}, "incomplete": {entry.id}}
    assert verdict_on(entry, **incomplete) == Admitted(entry, completes=True)
    assert isinstance(verdict_on(bare(entry), **incomplete), Known)
    wrong = made(b"\xc0")
    assert rule_of(wrong, known={wrong.id}, incomplete={wrong.id}) is Rule.BODY


def test_entries_of_spaces_that_nobody_follows_are_held() -> None:
    verdict = verdict_on(made(space=b"x" * 32))
    assert isinstance(verdict, Held)
    assert verdict.rule is Rule.SPACE


def test_what_has_been_pruned_does_not_come_back() -> None:
    entry = made()
    day = entry.header.expires_day
    assert verdict_on(entry, pruned_day=day) == Admitted(entry)
    assert rule_of(entry, pruned_day=day + 1) is Rule.EXPIRED


# Kinds


@pytest.mark.parametrize(
    ("kind", "days", "admitted"),
    [
        (NOTE.name, 10, True),
        (NOTE.name, 11, False),
        (NOTE.name, None, False),
        (RECORD.name, None, True),
        (RECORD.name, 5000, True),
        ("unknown", DEFAULT_LIFE_DAYS, True),
        ("unknown", DEFAULT_LIFE_DAYS + 1, False),
        ("unknown", None, False),
    ],
)
def test_nothing_is_kept_longer_than_its_kind_allows(kind: str, days: int | None, admitted: bool) -> None:
    entry = made(kind=kind, expires_day=expiry_day(NOW_MS, days * DAY_MS) if days else 0)
    assert rule_of(entry) is (None if admitted else Rule.LIFE)


def test_a_body_must_be_what_its_kind_says_in_its_one_canonical_form() -> None:
    assert rule_of(made(NOTE.encode(Body("x" * 900)))) is None
    assert rule_of(made(NOTE.encode(Body("x" * 900)) + b"y" * 200)) is Rule.KIND_SIZE
    assert rule_of(made(b"\xc1")) is Rule.BODY
    assert rule_of(made(msgspec.msgpack.encode(["text", "more"]))) is Rule.BODY
    assert rule_of(made(b"\x91\xd9\x02hi")) is Rule.BODY  # not the shortest form
    assert rule_of(made(bytes(PAYLOAD_MAX_BYTES), kind=FILE.name)) is Rule.BODY
    assert Rule.BODY.lasting


def test_a_body_is_checked_as_soon_as_it_is_there_and_its_size_before() -> None:
    assert rule_of(bare(made(b"\xc1"))) is None
    assert rule_of(bare(made(b"", size=1000))) is None
    assert rule_of(bare(made(b"", size=1001))) is Rule.KIND_SIZE


def test_unknown_kinds_are_carried_whatever_they_say() -> None:
    assert rule_of(made(b"\xc1 anything", kind="unknown")) is None
    assert rule_of(made(bytes(PAYLOAD_MAX_BYTES), kind="unknown")) is None
    assert rule_of(bare(made(b"", size=PAYLOAD_MAX_BYTES + 1, kind="unknown"))) is None


def test_a_manifest_is_no_body() -> None:
    chunks = bytes(64)
    assert rule_of(made(chunks, size=PAYLOAD_MAX_BYTES + 1, kind=FILE.name)) is None


def test_entries_of_a_later_version_are_carried_as_unknown_kinds() -> None:
    assert rule_of(made(b"\xc1 anything", version=2)) is None
    assert rule_of(made(version=2, expires_day=0)) is Rule.LIFE


# Mail


def envelope(**fields: Any) -> Entry:
    ts_ms = NOW_MS // HOUR_MS * HOUR_MS
    return made(
        bytes(512),
        **{
            "space": MAIL_SPACE,
            "kind": "mail",
            "ts_ms": ts_ms,
            "expires_day": expiry_day(ts_ms, MAIL_LIFE_DAYS * DAY_MS),
            "priority": 1,
            "tags": (b"t" * 16,),
            **fields,
        },
    )


def test_envelopes_are_admitted_by_everybody() -> None:
    assert rule_of(envelope(), spaces=frozenset()) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": NOTE.name},
        {"ts_ms": NOW_MS + 1},
        {"expires_day": day_of(NOW_MS) + 3},
        {"priority": 0},
        {"tags": ()},
        {"tags": (b"t" * 17,)},
        {"seq": 1},
        {"clock": 1},
        {"stamp_nonce": 1},
        {"version": 2},
    ],
)
def test_an_entry_that_does_not_look_like_every_envelope_is_no_mail(fields: dict[str, Any]) -> None:
    assert rule_of(envelope(**fields)) is Rule.ENVELOPE


def parcel(**fields: Any) -> Entry:
    ts_ms = NOW_MS // HOUR_MS * HOUR_MS
    return made(
        bytes(32),
        **{
            "size": CHUNK_BYTES,
            "space": PARCEL_SPACE,
            "kind": PARCEL_KIND,
            "ts_ms": ts_ms,
            "expires_day": expiry_day(ts_ms, PARCEL_LIFE_DAYS * DAY_MS),
            "priority": PARCEL_PRIORITY,
            **fields,
        },
    )


def sealed(**fields: Any) -> Entry:
    ts_ms = NOW_MS // HOUR_MS * HOUR_MS
    return made(
        bytes(min(SEALED_CLASSES)),
        **{
            "kind": SEALED_KIND,
            "seq": 1,
            "ts_ms": ts_ms,
            "expires_day": expiry_day(ts_ms, DAY_MS),
            "priority": SEALED_PRIORITY,
            **fields,
        },
    )


@pytest.mark.parametrize("fields", [{"kind": NOTE.name}, {"ts_ms": NOW_MS + 1}, {"priority": 0}, {"tags": (b"t",)}])
def test_parcels_and_what_is_said_in_sealed_groups_look_alike_each_among_its_own(fields: dict[str, Any]) -> None:
    closed = {SPACE: SEALED}
    assert rule_of(parcel(), spaces=frozenset()) is None
    assert rule_of(sealed(), closed=closed) is None
    assert rule_of(parcel(**fields), spaces=frozenset()) is Rule.PARCEL
    assert rule_of(sealed(**fields), closed=closed) is Rule.SEALED


# Spaces


def space_body(**fields: Any) -> SpaceBody:
    certificate = certify(SigningKey.from_seed(b"i" * 32), AUTHOR, b"x" * 32, 0, "Ann")
    return SpaceBody(
        **{
            "type": "open",
            "name": "News",
            "owner": certificate,
            "writers": "owner",
            "signers": (),
            "nonce": b"n" * 16,
            **fields,
        }
    )


def genesis_of(body: SpaceBody, *, key: SigningKey = AUTHOR, **fields: Any) -> Entry:
    """A genesis that says ``body``, also one that ``make_genesis`` would refuse."""
    return made(
        GENESIS.encode(body),
        key=key,
        **{"space": NO_SPACE, "kind": "genesis", "expires_day": 0, "priority": 0, **fields},
    )


def test_the_genesis_of_a_followed_space_is_admitted() -> None:
    genesis = make_genesis(AUTHOR, space_body(), NOW_MS)
    assert rule_of(genesis, spaces={genesis.id}) is None
    assert rule_of(bare(genesis), spaces={genesis.id}) is None
    assert rule_of(genesis) is Rule.SPACE


def test_nobody_can_found_a_space_that_has_another_name() -> None:
    genesis = make_genesis(AUTHOR, space_body(), NOW_MS)
    other = make_genesis(AUTHOR, space_body(nonce=b"m" * 16), NOW_MS)
    assert genesis.id != other.id
    assert rule_of(other, spaces={genesis.id}) is Rule.SPACE


def test_a_space_of_an_unknown_type_is_held_until_this_node_knows_better() -> None:
    for unknown in ("members", "sealed", "later"):
        genesis = genesis_of(space_body(type=unknown))
        verdict = verdict_on(genesis, spaces={genesis.id})
        assert isinstance(verdict, Held)
        assert verdict.rule is Rule.SPACE_TYPE


@pytest.mark.parametrize(
    "genesis",
    [
        genesis_of(space_body(name="")),
        genesis_of(space_body(name="two\nlines")),
        genesis_of(space_body(writers="nobody")),
        genesis_of(space_body(nonce=b"short")),
        genesis_of(space_body(signers=(b"short",))),
        genesis_of(space_body(signers=tuple(bytes([i]) * 32 for i in range(17)))),
        genesis_of(space_body(owner=b"no certificate")),
        genesis_of(space_body(), key=SigningKey.from_seed(b"c" * 32)),
        genesis_of(space_body(), seq=1),
        genesis_of(space_body(), expires_day=expiry_day(NOW_MS, DAY_MS)),
        genesis_of(space_body(), kind=NOTE.name),
        bare(genesis_of(space_body(), kind=NOTE.name)),
        genesis_of(space_body(), version=2),
        made(b"\xc1", space=NO_SPACE, kind="genesis", expires_day=0),
        made(GENESIS.encode(space_body()) + b"\xc0", space=NO_SPACE, kind="genesis", expires_day=0),
        bare(made(b"", size=5000, space=NO_SPACE, kind="genesis", expires_day=0)),
    ],
)
def test_a_malformed_genesis_founds_nothing(genesis: Entry) -> None:
    assert rule_of(genesis, spaces={genesis.id}) is Rule.GENESIS


# Shares


def test_a_neighbour_delivers_no_more_than_its_share_and_forgeries_count() -> None:
    entries = [made(stamp_nonce=number) for number in range(10)]
    size = len(pack(entries[0]))
    forged = [msgspec.structs.replace(entry, signature=bytes(64)) for entry in entries[:5]]
    exactly = state(share_left=size)
    assert admit(entries[5:6], exactly, verify_each) == [Admitted(entries[5])]
    assert exactly.share_left == 0
    left = state(share_left=7 * size + size // 2)
    verdicts = admit([*forged, *entries[5:]], left, verify_each)
    rules = [verdict.rule if isinstance(verdict, Refused) else None for verdict in verdicts]
    assert rules == [Rule.SIGNATURE] * 5 + [None] * 2 + [Rule.SHARE] * 3
    assert left.share_left == size // 2
    assert not Rule.SHARE.lasting


def test_what_is_known_or_out_of_bounds_costs_no_share() -> None:
    entry = made()
    untouched = state(share_left=1000, known={entry.id})
    admit([entry, made(expires_day=0)], untouched, verify_each)
    assert untouched.share_left == 1000


def test_examination_alone_verifies_nothing() -> None:
    forged = msgspec.structs.replace(made(), signature=bytes(64))
    assert examine(forged, state()) == Candidate(forged)


def test_a_refusal_is_remembered_by_all_its_bytes() -> None:
    entry = made()
    others = [bare(entry), msgspec.structs.replace(entry, signature=bytes(64)), made(stamp_nonce=1)]
    assert len({refusal_digest(one) for one in [entry, *others]}) == 4


def test_every_rule_tells_people_in_one_line_what_is_wrong() -> None:
    for rule in Rule:
        assert rule.line
        assert "\n" not in str(rule.line)
        assert Rule(str(rule)) is rule
