"""Keys of closed groups, and what is sealed under them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry, Header, encode_header, entry_id, expiry_day, pack, unpack
from outlast.kernel.epoch import (
    EPOCHS_MAX,
    LASTING_MAX_BYTES,
    SEALED_CLASSES,
    SEALED_LIFE_DAYS,
    EpochError,
    Inner,
    access_key,
    commitment,
    epoch_key,
    epochs_of,
    is_wellformed_sealed,
    open_entry,
    seal_entry,
)
from outlast.kernel.identity import SigningKey, derive
from outlast.kernel.log import Head, finish_entry
from tests.unit.kernel.people import NOW_MS, secret, stream

SPACE = secret("space")
AUTHOR = SigningKey.from_seed(secret("author"))
SECRETS = {secret("epoch", n): secret("secret", n) for n in range(2)}
INNER = Inner("post", NOW_MS, b"hello")


def sealed(inner: Inner = INNER, **fields: Any) -> Entry:
    standing: dict[str, Any] = {
        "space": SPACE,
        "secrets": SECRETS,
        "clock": 7,
        "life_ms": DAY_MS,
        "rand": stream("nonce"),
    }
    return seal_entry(AUTHOR, fields.pop("head", None), inner, **(standing | fields))


def altered(entry: Entry, payload: bytes | None = None, **fields: Any) -> Entry:
    """The entry with other fields or another payload, signed by its author again."""
    header = msgspec.structs.replace(entry.header, **fields)
    return finish_entry(AUTHOR, header, entry.payload if payload is None else payload)  # type: ignore[arg-type]


class TestKeys:
    def test_a_key_is_made_of_all_current_secrets_and_of_the_space(self) -> None:
        keys = {
            epoch_key(SPACE, SECRETS),
            epoch_key(secret("another"), SECRETS),
            *(epoch_key(SPACE, {epoch: one}) for epoch, one in SECRETS.items()),
        }
        assert len(keys) == 4
        assert epoch_key(SPACE, dict(reversed(SECRETS.items()))) == epoch_key(SPACE, SECRETS)
        assert access_key(epoch_key(SPACE, SECRETS)) not in keys

    def test_a_commitment_fits_one_secret(self) -> None:
        assert commitment(secret("one")) != commitment(secret("other"))


class TestSealing:
    @given(st.text(max_size=20), st.integers(0, 2**52), st.binary(max_size=60_000))
    def test_what_was_sealed_is_opened(self, kind: str, ts_ms: int, body: bytes) -> None:
        inner = Inner(kind, ts_ms, body)
        assert open_entry(sealed(inner), SECRETS) == inner

    @given(st.integers(0, 17_000), st.integers(1, EPOCHS_MAX))
    def test_it_travels_and_has_the_smallest_size_that_holds_it(self, size: int, epochs: int) -> None:
        secrets = {secret("epoch", n): secret("secret", n) for n in range(epochs)}
        inner = Inner("a", NOW_MS, bytes(size))
        entry = sealed(inner, secrets=secrets)
        assert pack(unpack(pack(entry))[0]) == pack(entry)
        assert len(entry.payload or b"") == entry.header.payload_size
        assert open_entry(entry, secrets) == inner
        least = 1 + 32 * epochs + 24 + 4 + len(msgspec.msgpack.encode(inner)) + 16
        assert entry.header.payload_size == min(one for one in SEALED_CLASSES if one >= least)

    @pytest.mark.parametrize("size_class", SEALED_CLASSES)
    def test_each_size_is_used_up_to_its_last_byte(self, size_class: int) -> None:
        room = size_class - (1 + 32 * len(SECRETS) + 24 + 4 + 16)
        around = len(msgspec.msgpack.encode(Inner("a", NOW_MS, bytes(room - 40)))) - (room - 40)
        full, larger = (Inner("a", NOW_MS, bytes(room - around + more)) for more in (0, 1))
        assert sealed(full).header.payload_size == size_class
        if size_class == LASTING_MAX_BYTES:
            assert sealed(full, life_ms=0).header.expires_day == 0
        if size_class == max(SEALED_CLASSES):
            with pytest.raises(EpochError, match="shorter"):
                sealed(larger)
        else:
            assert sealed(larger).header.payload_size > size_class

    def test_without_any_epoch_nothing_is_sealed(self) -> None:
        with pytest.raises(EpochError, match="renew"):
            sealed(secrets={})

    def test_what_a_store_sees_is_the_same_for_all(self) -> None:
        entries = [sealed(Inner(kind, NOW_MS + n, b"x" * n), life_ms=DAY_MS) for n, kind in enumerate(("a", "post"))]
        shown = [
            (h.kind, h.priority, h.tags, h.stamp_nonce, h.ts_ms, h.expires_day, h.payload_size)
            for h in (entry.header for entry in entries)
        ]
        assert shown[0] == shown[1]
        assert shown[0][4] % HOUR_MS == 0
        assert all(is_wellformed_sealed(entry.header) for entry in entries)

    def test_payloads_have_five_sizes(self) -> None:
        sizes = {sealed(Inner("a", NOW_MS, bytes(size))).header.payload_size for size in range(0, 65_000, 97)}
        assert sizes == set(SEALED_CLASSES)

    def test_what_is_too_large_is_refused(self) -> None:
        with pytest.raises(EpochError, match="shorter"):
            sealed(Inner("a", NOW_MS, bytes(66_000)))
        with pytest.raises(EpochError, match="shorter"):
            sealed(Inner("a", NOW_MS, bytes(LASTING_MAX_BYTES)), life_ms=0)

    def test_too_many_epochs_at_once_ask_for_a_renewal(self) -> None:
        many = {secret("epoch", n): secret("secret", n) for n in range(EPOCHS_MAX + 1)}
        with pytest.raises(EpochError, match="renew"):
            sealed(secrets=many)

    def test_it_continues_its_authors_chain(self) -> None:
        entry = sealed(head=Head(4, secret("before")))
        assert (entry.header.seq, entry.header.prev) == (5, secret("before"))


class TestOpening:
    def test_all_of_its_secrets_are_needed(self) -> None:
        for epoch in SECRETS:
            with pytest.raises(EpochError, match="not known"):
                open_entry(sealed(), {epoch: SECRETS[epoch]})
            with pytest.raises(EpochError, match="altered"):
                open_entry(sealed(), SECRETS | {epoch: secret("wrong")})

    def test_more_secrets_do_no_harm(self) -> None:
        assert open_entry(sealed(), SECRETS | {secret("later"): secret("more")}) == INNER

    @pytest.mark.parametrize(
        "fields",
        [
            {"space": secret("another")},
            {"seq": 2, "prev": secret("before")},
            {"clock": 8},
            {"ts_ms": NOW_MS - NOW_MS % HOUR_MS + HOUR_MS},
            {"expires_day": NOW_MS // DAY_MS + 5},
        ],
    )
    def test_nothing_can_be_moved_into_another_header(self, fields: dict[str, Any]) -> None:
        with pytest.raises(EpochError, match="altered"):
            open_entry(altered(sealed(), **fields), SECRETS)

    def test_nobody_passes_off_what_another_one_said(self) -> None:
        entry, thief = sealed(), SigningKey.from_seed(secret("thief"))
        header = msgspec.structs.replace(entry.header, author=thief.public)
        with pytest.raises(EpochError, match="altered"):
            open_entry(finish_entry(thief, header, entry.payload or b""), SECRETS)

    @given(st.data())
    def test_no_byte_can_be_changed(self, data: st.DataObject) -> None:
        entry = sealed()
        payload = bytearray(entry.payload or b"")
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(EpochError):
            open_entry(altered(entry, bytes(payload)), SECRETS)

    def test_a_time_outside_of_the_shown_hour_is_refused(self) -> None:
        begins_ms = NOW_MS - NOW_MS % HOUR_MS
        for outside in (begins_ms - 1, begins_ms + HOUR_MS):
            with pytest.raises(EpochError, match="hour"):
                open_entry(by_hand(sealed().header, Inner("post", outside, b"hello")), SECRETS)
        for within in (begins_ms, begins_ms + HOUR_MS - 1):
            assert open_entry(by_hand(sealed().header, Inner("post", within, b"hello")), SECRETS).ts_ms == within

    @pytest.mark.parametrize(("says", "behind"), [(0, b"x"), (0, b"\0\0x"), (400, b""), (2**32 - 1 - 50, b"")])
    def test_a_length_that_does_not_fit_and_what_stands_behind_the_end_are_refused(
        self, says: int, behind: bytes
    ) -> None:
        """Else a member could hide in each entry what others never see, under one id that all hold for the same."""
        with pytest.raises(EpochError, match="malformed"):
            open_entry(by_hand(sealed().header, INNER, says=says, behind=behind), SECRETS)

    @pytest.mark.parametrize("count", [0, 1, 3, EPOCHS_MAX + 1, 255])
    def test_epochs_that_are_not_named_as_they_must_be_are_refused(self, count: int) -> None:
        entry = sealed()
        payload = bytes((count,)) + bytes(len(entry.payload or b"") - 1)
        wrong = altered(entry, payload)
        with pytest.raises(EpochError):
            open_entry(wrong, {bytes(32): secret("zeros")})
        if count != 1:
            with pytest.raises(EpochError, match="no epochs"):
                epochs_of(wrong)

    def test_what_has_not_arrived_is_not_opened(self) -> None:
        with pytest.raises(EpochError, match="not arrived"):
            open_entry(msgspec.structs.replace(sealed(), payload=None), SECRETS)


def by_hand(header: Header, inner: Inner, *, says: int = 0, behind: bytes = b"") -> Entry:
    """An entry whose content says what its header does not, as a member could make it.

    It says to be ``says`` bytes longer than it is, and has something behind its end.
    """
    epochs, nonce = sorted(SECRETS), bytes(24)
    plain = msgspec.msgpack.encode(inner)
    room = header.payload_size - 1 - 32 * len(epochs) - 24 - 16
    bound = encode_header(msgspec.structs.replace(header, payload_hash=bytes(32)))
    box = crypto_aead_xchacha20poly1305_ietf_encrypt(
        ((len(plain) + says).to_bytes(4, "big") + plain + behind).ljust(room, b"\0"),
        bound,
        nonce,
        derive(epoch_key(SPACE, SECRETS), b"outlast/epoch/seal/1"),
    )
    return finish_entry(AUTHOR, header, bytes((len(epochs),)) + b"".join(epochs) + nonce + box)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "post"},
        {"priority": 0},
        {"seq": 0},
        {"ts_ms": NOW_MS},
        {"payload_size": 513},
        {"tags": (b"x",)},
        {"stamp_nonce": 1},
        {"version": 2},
        {"expires_day": NOW_MS // DAY_MS + 92},
        {"expires_day": 0, "payload_size": 16384},
    ],
)
def test_what_differs_from_all_others_is_not_wellformed(fields: dict[str, Any]) -> None:
    header = sealed().header
    assert is_wellformed_sealed(header)
    assert not is_wellformed_sealed(msgspec.structs.replace(header, **fields))
    longest = expiry_day(header.ts_ms, SEALED_LIFE_DAYS * DAY_MS)
    assert is_wellformed_sealed(msgspec.structs.replace(header, expires_day=longest))
    assert not is_wellformed_sealed(msgspec.structs.replace(header, expires_day=longest + 1))


def test_ids_follow_from_the_header() -> None:
    entry = sealed()
    assert entry.id == entry_id(encode_header(entry.header))
