"""What waits on the disk is sealed, is kept block by block, and comes out as it went in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.rooms.carry.io.waiting import BLOCK_BYTES, Waiting

KEY = bytes(range(32))


@pytest.mark.parametrize("size", [1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES - 1])
def test_it_comes_out_as_it_went_in_and_the_disk_tells_nothing(tmp_path: Path, size: int) -> None:
    data = (b"needle of ann " * (size // 14 + 1))[:size]
    waiting = Waiting(tmp_path / "w" / "x", KEY, size)
    for at in range(0, size, BLOCK_BYTES):
        assert waiting.held_bytes == at
        waiting.append(data[at : at + BLOCK_BYTES])
    waiting.settle()
    again = Waiting(tmp_path / "w" / "x", KEY, size)
    assert again.held_bytes == size
    assert again.read(0, size + 9) == data
    assert again.read(size // 2, 5) == data[size // 2 :][:5]
    assert b"needle" not in (tmp_path / "w" / "x").read_bytes()
    assert (tmp_path / "w" / "x").stat().st_mode & 0o077 == 0


def test_a_block_that_was_cut_is_written_anew(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "x", KEY, 2 * BLOCK_BYTES)
    waiting.append(b"a" * BLOCK_BYTES)
    with open(tmp_path / "x", "ab") as file:
        file.write(b"half of a record")
    assert waiting.held_bytes == BLOCK_BYTES
    waiting.append(b"b" * BLOCK_BYTES)
    assert waiting.read(BLOCK_BYTES - 1, 2) == b"ab"


def test_a_damaged_or_exchanged_block_is_found_out(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "x", KEY, 2 * BLOCK_BYTES)
    waiting.append(b"a" * BLOCK_BYTES)
    waiting.append(b"b" * BLOCK_BYTES)
    data = (tmp_path / "x").read_bytes()
    half = len(data) // 2
    (tmp_path / "x").write_bytes(data[half:] + data[:half])
    with pytest.raises(StorageError, match="damaged"):
        waiting.read(0, 1)


def test_dropping_it_leaves_nothing(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path / "x", os.urandom(32), 5)
    waiting.append(b"abcde")
    waiting.drop()
    waiting.drop()
    assert list(tmp_path.iterdir()) == []
    assert waiting.held_bytes == 0
