"""Each system gets what the lock says for it, whichever system is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outlast.edges.spread.install import File, Locked, read_lock
from outlast.edges.spread.wheels import SYSTEMS, System, covered, listed, missing, needed, tags_of
from tests.architecture.tree import ROOT

LOCK = read_lock((ROOT / "requirements.lock").read_text())
# A system that the program does not run on yet; its libraries differ most from ours.
WINDOWS = System("Windows", "win32", "Windows", "AMD64", ("win_amd64",))
A, B, C, D = (letter * 64 for letter in "abcd")
TOY = [
    Locked("plain", "1.0", "", frozenset({A})),
    Locked("fast", "2.0", "", frozenset({B, C})),
    Locked("colorama", "0.4.6", "sys_platform == 'win32'", frozenset({D})),
]
PLAIN = File("wheels/plain-1.0-py3-none-any.whl", 1, A)
LINUX = File("wheels/fast-2.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", 1, B)
OTHER = File("wheels/fast-2.0-cp311-cp311-win_amd64.whl", 1, C)
COLORAMA = File("wheels/colorama-0.4.6-py2.py3-none-any.whl", 1, D)


def names(system: System) -> set[str]:
    """What the program's own list names for a system."""
    return {one.name for one in needed(LOCK, system, (3, 11))}


def test_the_whole_list_is_read() -> None:
    written = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert [one.name for one in LOCK] == [name.lower() for name in written]
    assert all(one.hashes for one in LOCK)


def test_what_only_windows_needs_is_not_forgotten() -> None:
    assert "colorama" in names(WINDOWS)
    assert "colorama" not in names(SYSTEMS["linux-x86_64"])
    assert "uvloop" in names(SYSTEMS["linux-aarch64"]) & names(SYSTEMS["macos-arm64"])
    assert "uvloop" not in names(WINDOWS)


def test_each_python_gets_its_own_version() -> None:
    versions = [
        [one.version for one in needed(LOCK, SYSTEMS["linux-x86_64"], python) if one.name == "numpy"]
        for python in ((3, 11), (3, 13))
    ]
    assert [len(found) for found in versions] == [1, 1]
    assert versions[0] != versions[1]


def test_a_system_is_covered_when_every_library_is_there_for_it() -> None:
    linux = SYSTEMS["linux-x86_64"]
    files = [PLAIN, LINUX, OTHER]
    assert missing(TOY, files, linux, (3, 11)) == []
    assert missing(TOY, files, linux, (3, 12)) == ["fast"]
    assert missing(TOY, files, WINDOWS, (3, 11)) == ["colorama"]
    assert missing(TOY, [*files, COLORAMA], WINDOWS, (3, 11)) == []
    assert covered(TOY, files) == {"linux-x86_64": ["3.11"]}


def test_a_wheel_with_another_hash_does_not_count() -> None:
    changed = LINUX._replace(sha256=D)
    assert missing(TOY, [PLAIN, changed], SYSTEMS["linux-x86_64"], (3, 11)) == ["fast"]


@pytest.mark.parametrize("name", ["wheels/rubbish.whl", "wheels/fast.whl", "install.py"])
def test_what_is_no_wheel_is_passed_over(name: str) -> None:
    assert missing(TOY, [PLAIN, File(name, 1, B)], SYSTEMS["linux-x86_64"], (3, 11)) == ["fast"]


def test_only_what_the_lock_pins_is_handed_on(tmp_path: Path) -> None:
    (tmp_path / "plain-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    assert listed(tmp_path, TOY) == []


@pytest.mark.parametrize("key", SYSTEMS)
def test_each_system_has_tags_of_its_own(key: str) -> None:
    found = {str(tag) for tag in tags_of(SYSTEMS[key], (3, 11))}
    assert "py3-none-any" in found
    others = {str(tag) for other in SYSTEMS if other != key for tag in tags_of(SYSTEMS[other], (3, 11))}
    assert found - others
