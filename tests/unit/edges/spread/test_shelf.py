"""What is handed on by stick, onto a stick that may be anybody's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.edges.spread.install import INSTALLER, MANIFEST, SIGNATURES, WHEELS
from outlast.edges.spread.shelf import Shelf
from outlast.errors import OutlastError


def shelf(folder: Path) -> Shelf:
    """A set with one wheel."""
    wheel = folder / "plain-1.0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    files: dict[str, Path | bytes] = {MANIFEST: b"{}", INSTALLER: b"abc", f"{WHEELS}/{wheel.name}": wheel}
    return Shelf(b"{}", b"", files, {})


def test_a_set_is_written_over_an_older_one_which_loses_its_signatures(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / WHEELS).mkdir(parents=True)
    for name in (INSTALLER, SIGNATURES):
        (stick / name).write_bytes(b"of before")
    shelf(tmp_path).write(stick)
    written = {str(path.relative_to(stick)): path.read_bytes() for path in stick.rglob("*") if path.is_file()}
    assert written == {MANIFEST: b"{}", INSTALLER: b"abc", f"{WHEELS}/plain-1.0-py3-none-any.whl": b"a wheel"}


@pytest.mark.parametrize("name", [MANIFEST, INSTALLER, f"{WHEELS}/plain-1.0-py3-none-any.whl"])
def test_a_link_on_a_stick_leads_no_writing_elsewhere(tmp_path: Path, name: str) -> None:
    stick, letters = tmp_path / "stick", tmp_path / "letters.txt"
    (stick / WHEELS).mkdir(parents=True)
    letters.write_text("mine")
    (stick / name).symlink_to(letters)
    with pytest.raises(OutlastError, match="is no file"):
        shelf(tmp_path).write(stick)
    assert letters.read_text() == "mine"


def test_a_folder_that_is_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    stick, elsewhere = tmp_path / "stick", tmp_path / "elsewhere"
    elsewhere.mkdir()
    stick.symlink_to(elsewhere)
    with pytest.raises(OutlastError, match="is a link"):
        shelf(tmp_path).write(stick)
    assert os.listdir(elsewhere) == []


def test_a_folder_of_wheels_that_is_elsewhere_is_not_written_to(tmp_path: Path) -> None:
    stick, elsewhere = tmp_path / "stick", tmp_path / "elsewhere"
    stick.mkdir()
    elsewhere.mkdir()
    (stick / WHEELS).symlink_to(elsewhere)
    with pytest.raises(OutlastError, match="is a link"):
        shelf(tmp_path).write(stick)
    assert os.listdir(elsewhere) == []


def test_a_pipe_on_a_stick_is_not_waited_for(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    os.mkfifo(stick / INSTALLER)
    with pytest.raises(OutlastError, match="is no file"):
        shelf(tmp_path).write(stick)
