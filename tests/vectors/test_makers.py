"""Each file of vectors is what its maker writes, so that none falls behind the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "vectors"
MAKERS = sorted(one.name for one in FOLDER.glob("make*.py"))


@pytest.mark.parametrize("maker", MAKERS)
def test_a_maker_writes_what_stands(maker: str, tmp_path: Path) -> None:
    there = tmp_path / "vectors"
    shutil.copytree(FOLDER, there, ignore=shutil.ignore_patterns("__pycache__"))
    paths = {"PYTHONPATH": os.pathsep.join((str(FOLDER.parent / "src"), str(FOLDER.parent)))}
    subprocess.run([sys.executable, there / maker], check=True, env=os.environ | paths, timeout=120)
    changed = [one.name for one in there.glob("*.json") if one.read_bytes() != (FOLDER / one.name).read_bytes()]
    assert not changed
