"""Tests marked `serial` run one after another, also when the suite runs on two workers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.architecture.tree import ROOT

SUITE = """
import os, pathlib, pytest

@pytest.mark.serial
@pytest.mark.parametrize("n", range(6))
def test_serial(n):
    with pathlib.Path("workers").open("a") as log:
        print(os.environ["PYTEST_XDIST_WORKER"], file=log)

@pytest.mark.parametrize("n", range(6))
def test_any(n):
    pass
"""


def test_all_serial_tests_have_the_same_worker(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "test_suite.py").write_text(SUITE)
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run([*pytest, "test_suite.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 6
    assert len(set(workers)) == 1
