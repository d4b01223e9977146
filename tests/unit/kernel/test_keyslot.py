"""Key slots open by their passphrase alone, and cannot be weakened or made to exhaust the machine."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import LockedError, OutlastError, StorageError, UsageError
from outlast.kernel.keyslot import Cost, cost_for, open_slot, seal, seal_slot, unseal
from tests.unit.kernel.people import secret

CHEAP = Cost(1, 8)
MAGIC = b"a kind of file\n\0"
PASSES_AT, MEMORY_AT, HEAD_BYTES = 16, 20, 64


def slot(passphrase: str = "correct horse", cost: Cost = CHEAP) -> bytes:
    """A slot that holds the key `secret("key")`."""
    return seal_slot(secret("key"), passphrase, salt=secret("salt")[:16], nonce=secret("nonce")[:24], cost=cost)


def checked(body: bytes) -> bytes:
    """The bytes with a fresh check at their end, as a forger would make it."""
    return body[:-8] + sha256(body[:-8]).digest()[:8]


def test_a_slot_gives_back_its_key() -> None:
    assert open_slot(slot(), "correct horse") == secret("key")
    assert len(slot()) == 120


def test_a_wrong_passphrase_gets_one_line() -> None:
    with pytest.raises(LockedError, match="wrong passphrase") as error:
        open_slot(slot(), "correct house")
    assert "\n" not in str(error.value)


def test_the_key_stands_nowhere_in_the_slot() -> None:
    assert secret("key")[:8] not in slot()


def test_one_passphrase_typed_on_two_keyboards_is_one() -> None:
    assert open_slot(slot("пароль \u0439 \u00e9"), "пароль \u0438\u0306 e\u0301") == secret("key")
    assert open_slot(slot("\udcff"), "\udcff") == secret("key")


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        slot("")


@given(at=st.integers(0, 119), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_a_flipped_bit_anywhere_is_called_damage(at: int, bit: int) -> None:
    damaged = bytearray(slot())
    damaged[at] ^= 1 << bit
    with pytest.raises(StorageError):
        open_slot(bytes(damaged), "correct horse")


@given(at=st.integers(0, 111), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_a_forger_who_mends_the_check_opens_nothing(at: int, bit: int) -> None:
    forged = bytearray(slot())
    forged[at] ^= 1 << bit
    forged[PASSES_AT:MEMORY_AT] = min(int.from_bytes(forged[PASSES_AT:MEMORY_AT], "big"), 2).to_bytes(4, "big")
    forged[MEMORY_AT : MEMORY_AT + 2] = bytes(2)
    if bytes(forged[:112]) == slot()[:112]:
        return
    with pytest.raises(OutlastError):
        open_slot(checked(bytes(forged)), "correct horse")


@given(st.binary(max_size=200))
def test_what_is_no_slot_is_refused(data: bytes) -> None:
    for wrong in (data, slot()[: len(data)], slot() + data + b"x"):
        with pytest.raises(StorageError):
            open_slot(wrong, "correct horse")


def test_a_lower_cost_than_it_was_sealed_at_opens_nothing() -> None:
    costly = bytearray(slot(cost=Cost(2, 16)))
    costly[PASSES_AT : MEMORY_AT + 4] = (1).to_bytes(4, "big") + (8).to_bytes(4, "big")
    with pytest.raises(LockedError):
        open_slot(checked(bytes(costly)), "correct horse")


@pytest.mark.parametrize(
    ("passes", "memory_kib"),
    [(3, 1024 * 1024 + 1), (3, 2**32 - 1), (17, 8), (2**32 - 1, 8), (0, 8), (3, 7), (3, 0)],
)
def test_a_cost_that_no_honest_file_has_is_refused_before_it_is_paid(passes: int, memory_kib: int) -> None:
    greedy = bytearray(slot())
    greedy[PASSES_AT : MEMORY_AT + 4] = passes.to_bytes(4, "big") + memory_kib.to_bytes(4, "big")
    with pytest.raises(StorageError, match="honest"):
        open_slot(checked(bytes(greedy)), "correct horse")


def test_small_machines_pay_less_but_not_little() -> None:
    assert cost_for(8 * 1024**3) == cost_for(2 * 1024**3) == Cost(3, 256 * 1024)
    assert cost_for(2 * 1024**3 - 1) == cost_for(256 * 1024**2) == Cost(3, 64 * 1024)


@given(st.binary(max_size=300), st.text(min_size=1, max_size=20))
@settings(max_examples=30)
def test_larger_secrets_are_sealed_alike(content: bytes, passphrase: str) -> None:
    sealed = seal(MAGIC, content, passphrase, salt=bytes(16), nonce=bytes(24), cost=CHEAP)
    assert unseal(MAGIC, sealed, passphrase) == content
    assert len(sealed) == len(content) + HEAD_BYTES + 16 + 8
    with pytest.raises(LockedError):
        unseal(MAGIC, sealed, passphrase + "!")
    with pytest.raises(StorageError):
        unseal(b"another kind\n\0\0\0", sealed, passphrase)


@pytest.mark.parametrize("sizes", [(31, 16, 24), (32, 15, 24), (32, 16, 12)])
def test_parts_of_the_wrong_length_are_a_mistake_of_the_caller(sizes: tuple[int, int, int]) -> None:
    key, salt, nonce = (bytes(size) for size in sizes)
    with pytest.raises(ValueError, match="bytes"):
        seal_slot(key, "x", salt=salt, nonce=nonce, cost=CHEAP)


def test_a_slot_of_another_secret_than_a_key_is_no_slot() -> None:
    other = seal(slot()[:16], b"short", "x", salt=bytes(16), nonce=bytes(24), cost=CHEAP)
    with pytest.raises(StorageError, match="key slot"):
        open_slot(other, "x")
