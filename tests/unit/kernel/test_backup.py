"""A backup file gives back all it was given, to its passphrase alone, and says nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import LockedError, OutlastError, StorageError, UsageError
from outlast.kernel.backup import (
    BackupBody,
    BackupContact,
    BackupDevice,
    BackupHead,
    BackupRevocation,
    RoomRows,
    TableRows,
    count,
    open_backup,
    seal_backup,
)
from outlast.kernel.keyslot import Cost, seal
from tests.unit.kernel.people import NOW_MS, secret

CHEAP = Cost(1, 8)
PASSPHRASE = "three words more"

cells = st.none() | st.binary(max_size=40) | st.text(max_size=20) | st.integers(-(2**63), 2**63 - 1) | st.floats()


@st.composite
def tables(draw: st.DrawFn) -> TableRows:
    """A table with rows as long as its columns."""
    columns = draw(st.lists(st.text("abc_", min_size=1), max_size=4, unique=True))
    return TableRows(columns, draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=5)))


def body(**changed: Any) -> BackupBody:
    """A backup of somebody with one contact and two rows."""
    devices = [BackupDevice(secret("certificate") * 5, True, None, secret("prekey"), 20_000)]
    fields: dict[str, Any] = {
        "version": 1,
        "made_ms": NOW_MS,
        "entropy": secret("entropy"),
        "name": "Алена",
        "devices": [secret("own") * 5],
        "contacts": [BackupContact(secret("friend"), "Ян", None, False, NOW_MS, secret("intro")[:16], devices)],
        "rooms": {"toy": RoomRows(2, {"local_toy_note": TableRows(["id", "text"], [[1, "x"], [2, b"y"]])})},
        "revoked": [BackupRevocation(secret("revocation") * 3, NOW_MS)],
        "heads": [BackupHead(secret("device"), secret("space"), 2**64 - 1, 0, secret("entry"))],
    }
    return BackupBody(**{**fields, **changed})


def sealed(backup: BackupBody, passphrase: str = PASSPHRASE) -> bytes:
    """The backup file."""
    return seal_backup(backup, passphrase, salt=secret("salt")[:16], nonce=secret("nonce")[:24], cost=CHEAP)


def forged(content: object) -> bytes:
    """A file that seals some other content under the right passphrase."""
    data = msgspec.msgpack.encode(content)
    padded = len(data).to_bytes(4, "big") + data
    return seal(sealed(body())[:16], padded, PASSPHRASE, salt=bytes(16), nonce=bytes(24), cost=CHEAP)


@given(rooms=st.dictionaries(st.text("abc", min_size=1), tables(), max_size=3))
@settings(max_examples=50)
def test_a_backup_gives_back_what_it_was_given(rooms: dict[str, TableRows]) -> None:
    backup = body(rooms={name: RoomRows(1, {"t": table}) for name, table in rooms.items()})
    # Compared as bytes, because nan is not equal to itself.
    assert msgspec.msgpack.encode(open_backup(sealed(backup), PASSPHRASE)) == msgspec.msgpack.encode(backup)


def test_a_trial_counts_and_tells_nothing_more() -> None:
    counts = count(open_backup(sealed(body()), PASSPHRASE))
    assert (counts.made_ms, counts.name, counts.devices, counts.contacts, counts.rows) == (NOW_MS, "Алена", 1, 1, 2)


def test_a_wrong_passphrase_and_an_empty_one_get_one_line() -> None:
    with pytest.raises(LockedError, match="wrong passphrase"):
        open_backup(sealed(body()), PASSPHRASE + " ")
    with pytest.raises(UsageError, match="empty"):
        sealed(body(), "")


def test_nothing_of_the_content_stands_in_the_file() -> None:
    data = sealed(body())
    for part in (secret("entropy")[:6], "Алена".encode(), "Ян".encode(), b"local_toy", b"note"):
        assert part not in data


def test_the_size_tells_little() -> None:
    def size(length: int) -> int:
        return len(sealed(body(name="x" * length)))

    assert {size(n) for n in (1, 500, 2000)} == {size(1)}
    sizes = sorted({size(n) for n in range(100_000, 200_000, 997)})
    assert len(sizes) <= 32
    assert size(150_000) < 150_000 * 1.1


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_a_damaged_file_is_called_damaged(at: int, bit: int) -> None:
    data = bytearray(sealed(body()))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(StorageError):
        open_backup(bytes(data), PASSPHRASE)


@given(st.integers(0, 10**6))
@settings(max_examples=50)
def test_a_file_cut_short_is_called_damaged(at: int) -> None:
    data = sealed(body())
    with pytest.raises(StorageError):
        open_backup(data[: at % len(data)], PASSPHRASE)


@given(st.binary(max_size=300).filter(lambda data: not data.startswith(b"outlast backup\n\0")))
def test_another_file_is_no_backup(data: bytes) -> None:
    with pytest.raises(StorageError, match="no backup file"):
        open_backup(data, PASSPHRASE)


def fields(**changed: Any) -> list[Any]:
    """The content of a backup as a plain list, with some of it replaced."""
    backup = body()
    return [changed.get(name, getattr(backup, name)) for name in BackupBody.__struct_fields__]


@pytest.mark.parametrize(
    "content",
    [
        fields(version=2),
        fields(entropy=bytes(31)),
        fields()[:-1],
        [],
        {"version": 1},
        "text",
        fields(rooms={"toy": [1, {"t": [["a"], [[1, 2]]]}]}),
        fields(rooms={"toy": [1, {"t": [["a"], [[]]]}]}),
        fields(rooms={"toy": [1, {"t": [["a"], [[2**63]]]}]}),
        fields(rooms={"toy": [1, {"t": [["a"], [[[]]]]}]}),
        fields(rooms={"toy": [1, {"t": [["a"], [[{}]]]}]}),
    ],
    ids=range(11),
)
def test_content_that_this_version_never_writes_is_refused(content: object) -> None:
    with pytest.raises(OutlastError, match=r"newer Outlast|no Outlast wrote"):
        open_backup(forged(content), PASSPHRASE)


def test_a_later_version_may_append_fields() -> None:
    assert open_backup(forged([*fields(), "more"]), PASSPHRASE) == body()


def test_a_length_that_lies_is_refused() -> None:
    data = (2**32 - 1).to_bytes(4, "big") + msgspec.msgpack.encode(body())
    lying = seal(sealed(body())[:16], data, PASSPHRASE, salt=bytes(16), nonce=bytes(24), cost=CHEAP)
    with pytest.raises(StorageError):
        open_backup(lying, PASSPHRASE)
