"""Files that operations write: whole under their name or not at all, on the disk as they grow, in no device's place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import StorageError, UsageError
from outlast.ui.file import STEP_BYTES, new_file


def test_a_new_file_takes_the_place_of_an_older_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bundle"
    path.write_bytes(b"older")
    with new_file(path, 0o644) as out:
        out.write(b"newer")
        assert path.read_bytes() == b"older"
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    def write_half() -> None:
        with new_file(tmp_path / "a", 0o644) as out:
            out.write(b"half")
            raise OSError("the stick was pulled")

    with pytest.raises(StorageError, match="nothing of it was kept"):
        write_half()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, STEP_BYTES), max_size=6))
def test_a_file_that_grows_reaches_the_disk_step_by_step(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    path, on_disk = tmp_path_factory.mktemp("stick") / "bundle", [0]
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            on_disk.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", seen)
        with new_file(path, 0o600) as out:
            for size in sizes:
                out.write(bytes(size))
                out.flush()
                assert out.tell() - on_disk[-1] < STEP_BYTES, "no more waits at the end"
    assert on_disk[-1] == path.stat().st_size == sum(sizes)


@pytest.mark.parametrize("kind", ["pipe", "link", "link that leads to itself", "folder"])
def test_what_is_no_file_stays_what_it_is(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "name", tmp_path / "target"
    target.write_bytes(b"theirs")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(target)
        case "link that leads to itself":
            path.symlink_to(path)
        case _:
            path.mkdir()
    before = path.lstat()
    with pytest.raises(UsageError, match="is no file"), new_file(path, 0o644):
        pass
    assert path.lstat() == before
    assert target.read_bytes() == b"theirs"
