"""A program in a process of its own can do its work and little else, and ends when it takes too much."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outlast.ui.limited import MEMORY_BYTES, OUT_MAX_BYTES, run


def program(folder: Path, work: str) -> Path:
    """A program that does this with ``data`` and ``words``."""
    path = folder / "program.py"
    path.write_text(f"import os, socket\ndef prepare(): pass\ndef work(data, *words):\n    {work}\n")
    return path


def test_it_makes_bytes_of_bytes_and_words(tmp_path: Path) -> None:
    made = asyncio.run(run(program(tmp_path, "return data[::-1] + ' '.join(words).encode()"), b"abc", "x", "y"))
    assert made == b"cbax y"


@pytest.mark.parametrize(
    "work",
    [
        f"return bytes({MEMORY_BYTES})[:1]",
        "return open('/etc/hostname', 'rb').read() + b'x'",
        "return socket.socket().fileno().to_bytes(4, 'big')",
        "return os.pipe()[0].to_bytes(4, 'big')",
        "raise ValueError",
    ],
)
def test_more_memory_another_file_or_the_network_are_refused(tmp_path: Path, work: str) -> None:
    assert asyncio.run(run(program(tmp_path, work), b"")) is None


def test_it_says_no_more_than_fits_into_the_memory_of_who_started_it(tmp_path: Path) -> None:
    endless = program(tmp_path, f"[os.write(1, bytes(1 << 20)) for _ in range({OUT_MAX_BYTES >> 20})]; return b'x'")
    assert asyncio.run(run(endless, b"")) is None


def test_it_may_leave_what_it_was_given_unread(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import os\ndef prepare():\n    os.write(1, b'enough'); os._exit(0)\n")
    assert asyncio.run(run(path, bytes(1 << 22))) == b"enough"


def test_it_has_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLAST_SECRET", "needle")
    assert b"needle" not in (asyncio.run(run(program(tmp_path, "return repr(dict(os.environ)).encode()"), b"")) or b"")


def test_files_that_were_open_before_cannot_grow(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    target = tmp_path / "x"
    path.write_text(
        f"def prepare():\n    global out\n    out = open({str(target)!r}, 'wb')\n"
        "def work(data):\n    out.write(b'x' * 10_000); out.flush(); return b'written'\n"
    )
    assert asyncio.run(run(path, b"")) is None
    assert target.read_bytes() == b""
