"""A newcomer comes from a fresh clone to a served first page by the first of the two commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, files_of_the_project


@contextmanager
def started(clone: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python3 dev.py up ARGUMENTS` from another folder; end it and all that it started."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    process = subprocess.Popen(
        ["python3", clone / "dev.py", "up", *arguments],
        cwd=clone.parent,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def first_page(process: subprocess.Popen[str]) -> str:
    """Return the page at the address that the node prints.

    Raises AssertionError with everything that was printed when it ends without an address.
    """
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if found := re.search(r"http://localhost:\d+\S*", line):
            with urllib.request.urlopen(found.group(), timeout=30) as answer:
                return str(answer.read().decode())
    raise AssertionError("".join(printed))


@pytest.mark.serial
@pytest.mark.timeout(420)
def test_a_fresh_clone_serves_its_first_page(tmp_path: Path) -> None:
    clone = tmp_path / "some dir with spaces" / "out last"
    for name in files_of_the_project():
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    home = str(tmp_path / "home")

    with started(clone, "--home", home, "--port", "0") as process:
        while not (clone / ".venv" / "wheels").exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                pytest.fail(f"ended before anything was fetched: {process.communicate()[0]}")
    assert not (clone / ".venv" / "installed.json").exists(), "was not cut short"

    with started(clone, "--home", home, "--port", "0") as process:
        try:
            page = first_page(process)
        except AssertionError as error:
            if "is not ready" in str(error) and os.environ.get("CI") != "true":
                pytest.skip("the packages cannot be fetched here")
            raise
    assert "<html" in page
    assert "Outlast" in page

    # Without pip nothing can be installed again: what is there must do.
    for pip in (clone / ".venv").glob("lib/python3*/site-packages/pip"):
        shutil.rmtree(pip)
    with started(clone, "--home", home, "--port", "0") as process:
        assert "<html" in first_page(process)
