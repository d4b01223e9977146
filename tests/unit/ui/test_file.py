"""Files that operations write: whole under their name or not there, and on the disk as they grow."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import StorageError
from outlast.ui.file import STEP_BYTES, new_file


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


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    with new_file(path, 0o600) as out:
        out.write(b"first")
        assert not path.exists()

    def fails() -> None:
        with new_file(path, 0o600) as out:
            out.write(b"second")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with pytest.raises(StorageError, match="nothing of it was kept"), new_file(tmp_path / "no" / "folder", 0o600):
        pass
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"first", 0o600)
    assert list(tmp_path.iterdir()) == [path], "no draft is left"
