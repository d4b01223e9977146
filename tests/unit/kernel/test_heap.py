"""The heap: what was put is got back under its hash and no other, and all slots look alike."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import StorageError
from outlast.kernel.entry import CHUNK_BYTES
from outlast.kernel.heap import Heap
from tests.crash.disk import Disk

KEY = bytes(range(32))
SLOT_BYTES = CHUNK_BYTES + 32


@pytest.fixture
def heap(tmp_path: Path) -> Iterator[Heap]:
    opened = Heap.open(tmp_path / "store.chunks", KEY)
    yield opened
    opened.close()


def hash_of(data: bytes) -> bytes:
    return sha256(data).digest()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES])
def test_a_chunk_of_any_size_is_got_back_after_reopening(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    for slot in (1, 3):
        heap = Heap.open(tmp_path / "store.chunks", KEY)
        heap.put([(slot, hash_of(data), data)])
        heap.close()
    heap = Heap.open(tmp_path / "store.chunks", KEY)
    assert heap.get((slot, hash_of(data)) for slot in (1, 2, 3, 4)) == [data, None, data, None]
    heap.close()


@given(st.lists(st.integers(1, 60)), st.sets(st.integers(1, 60)))
def test_slots_are_read_in_any_order_and_each_by_itself(
    tmp_path_factory: pytest.TempPathFactory, asked: list[int], put: set[int]
) -> None:
    heap = Heap.open(tmp_path_factory.mktemp("heap") / "store.chunks", KEY)
    data = {slot: slot.to_bytes(1, "big") * slot for slot in range(1, 61)}
    heap.put((slot, hash_of(data[slot]), data[slot]) for slot in put)
    found = heap.get((slot, hash_of(data[slot])) for slot in asked)
    assert found == [data[slot] if slot in put else None for slot in asked]
    heap.close()


def test_what_is_durable_leaves_the_page_cache_and_nothing_beside_it(
    heap: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, size, advice: let_go.append((at, size)), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    heap.put((slot, hash_of(b"bread"), b"bread") for slot in (7, 1, 2, 3))
    assert let_go == [(0, 3 * SLOT_BYTES), (6 * SLOT_BYTES, SLOT_BYTES)]


def test_the_file_is_its_owners_alone_and_shows_neither_chunks_nor_how_long_they_are(
    tmp_path: Path, heap: Heap
) -> None:
    path, data = tmp_path / "store.chunks", b"kingfisher " * 100
    heap.put([(1, hash_of(data), data)])
    first = path.read_bytes()
    heap.put([(1, hash_of(data), data)])
    assert (len(first), stat.S_IMODE(path.stat().st_mode)) == (SLOT_BYTES, 0o600)
    assert b"kingfisher" not in first
    assert bytes(64) not in first
    assert path.read_bytes()[:12] != first[:12], "a nonce is used once"


def test_a_slot_opens_for_the_chunk_that_was_put_last_and_for_no_other_key(tmp_path: Path, heap: Heap) -> None:
    old, new = b"old", b"new"
    heap.put([(1, hash_of(old), old)])
    heap.put([(1, hash_of(new), new)])
    assert heap.get([(1, hash_of(old)), (1, hash_of(new))]) == [None, new]
    other = Heap.open(tmp_path / "store.chunks", bytes(32))
    assert other.get([(1, hash_of(new))]) == [None]
    other.close()


def test_a_damaged_or_cut_slot_gives_nothing(tmp_path: Path, heap: Heap) -> None:
    path, data = tmp_path / "store.chunks", b"data"
    heap.put([(1, hash_of(data), data)])
    sealed = path.read_bytes()
    for damaged in (sealed[:-1], sealed[:5], b"", bytes([sealed[0] ^ 1]) + sealed[1:], sealed[:-1] + b"\0"):
        if damaged != sealed:
            path.write_bytes(damaged)
            assert heap.get([(1, hash_of(data))]) == [None]


def test_a_disk_without_room_is_said_and_what_was_there_stays(heap: Heap) -> None:
    data = os.urandom(CHUNK_BYTES)
    heap.put([(1, hash_of(data), data)])
    with Disk() as disk:
        disk.fill(1)
        with pytest.raises(StorageError, match="full"):
            heap.put([(2, hash_of(data), data)])
        disk.make_room()
        heap.put([(2, hash_of(data), data)])
    assert heap.get((slot, hash_of(data)) for slot in (1, 2)) == [data, data]


def test_what_stands_behind_the_last_chunk_is_given_back_to_the_disk(tmp_path: Path, heap: Heap) -> None:
    data = b"data"
    for slot in (1, 2, 3):
        heap.put([(slot, hash_of(data), data)])
    heap.shorten(1)
    heap.shorten(5)
    assert (tmp_path / "store.chunks").stat().st_size == SLOT_BYTES
    assert heap.get([(1, hash_of(data))]) == [data]
