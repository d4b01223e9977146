"""Files of others: unpacked by what they are, capped by what comes out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
from collections import deque
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, ProtocolError, UsageError
from outlast.rooms.watch.io.files import lines, open_capped, read_capped

TEXT = b"Time,Value\n2026-01-08,1\n" * 50


@pytest.mark.parametrize(
    "packed",
    [
        TEXT,
        gzip.compress(TEXT, mtime=0),
        bz2.compress(TEXT),
        gzip.compress(TEXT[:500], mtime=0) + gzip.compress(TEXT[500:], mtime=0),
    ],
    ids=["plain", "gzip", "bzip2", "two gzip members"],
)
def test_the_content_comes_out_whatever_it_is_packed_in(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "file.csv").write_bytes(packed)
    assert read_capped(tmp_path / "file.csv", len(TEXT)) == TEXT


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_one_byte_more_than_allowed_is_refused(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "file.csv").write_bytes(pack(TEXT))
    with pytest.raises(ProtocolError, match="holds more than"):
        read_capped(tmp_path / "file.csv", len(TEXT) - 1)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gzip", "bzip2"])
def test_a_bomb_costs_neither_its_memory_nor_its_time(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "bomb").write_bytes(pack(bytes(64 << 20)))
    tracemalloc.start()
    try:
        with open_capped(tmp_path / "bomb", 8 << 20) as source, pytest.raises(ProtocolError):
            deque(iter(lambda: source.read(1 << 16), b""), maxlen=0)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress], ids=["gzip", "bzip2"])
def test_cut_or_damaged_compression_is_a_clear_error(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    whole = pack(TEXT)
    for damaged in (whole[:-9], whole[:20] + b"\xff\x00\xff" + whole[23:], whole[:3]):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(ProtocolError, match="damaged or cut"):
            read_capped(tmp_path / "file", 1 << 20)


@pytest.mark.parametrize(
    ("packed", "packer"),
    [
        (lzma.compress(TEXT), "xz"),
        (b"\x28\xb5\x2f\xfd" + TEXT, "zstd"),
        (b"\x04\x22\x4d\x18" + TEXT, "lz4"),
        (b"PK\x03\x04" + TEXT, "zip"),
        (b"7z\xbc\xaf\x27\x1c" + TEXT, "7z"),
    ],
    ids=["xz", "zstd", "lz4", "zip", "7z"],
)
def test_what_must_be_unpacked_first_is_told(tmp_path: Path, packed: bytes, packer: str) -> None:
    (tmp_path / "file.csv").write_bytes(packed)
    with pytest.raises(UsageError, match=f"file.csv is packed by {packer}: unpack it first"):
        read_capped(tmp_path / "file.csv", 1 << 20)


def test_what_is_not_there_and_what_is_no_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_capped(tmp_path / "nothing", 1)
    with pytest.raises(UsageError):
        read_capped(tmp_path, 1)


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert read_capped(tmp_path / "file", 0) == b""


def test_lines_come_without_their_ends_and_an_endless_one_is_refused() -> None:
    assert list(lines(io.BytesIO(b"a\r\nbc\n\nd"), 2)) == [b"a", b"bc", b"", b"d"]
    with pytest.raises(ProtocolError, match="line 2"):
        list(lines(io.BytesIO(b"ab\nabc\n"), 2))
