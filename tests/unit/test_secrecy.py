"""Memory and folders of a node are its owner's alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.errors import StorageError
from outlast.rooms.reach.io.keys import kept_secret
from outlast.secrecy import make_private

SAYS = """
import ctypes, resource
def say():
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
NODE = "from outlast.secrecy import no_core_dumps\nno_core_dumps()\nsay()"
RELAY = "from outlast.rooms.reach.io.relay import run\nasync def main(): say()\nrun(main())"


@pytest.mark.parametrize("program", [NODE, RELAY], ids=["node", "relay"])
def test_what_holds_keys_leaves_no_core_file_and_lets_no_debugger_in(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", SAYS + program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(0, 0) 0"


def test_a_folder_is_private_with_all_that_was_missing_above_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_private(tmp_path / "new" / "home")
        kept_secret(tmp_path / "served", "web", 32)
    finally:
        os.umask(before)
    for made in ("new", "new/home", "served", "served/rooms", "served/rooms/reach"):
        assert (tmp_path / made).stat().st_mode & 0o777 == 0o700, made


def test_a_folder_above_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path / "home")
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_where_no_folder_can_be_made_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot make .*; name another folder by --home"):
        make_private(tmp_path / "file" / "home")


def test_nothing_is_kept_where_a_disk_keeps_no_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda _path, _mode: None)  # as exFAT by FUSE takes it
    with pytest.raises(StorageError, match="its disk keeps no permissions; name a folder on another disk by --home"):
        make_private(tmp_path)
