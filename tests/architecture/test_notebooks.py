"""The notebooks of docs/notebooks run from their first cell to their last, and are kept without what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.tree import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code_of(notebook: Path) -> list[dict[str, Any]]:
    """The cells of code, in their order."""
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["watch.ipynb"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_to_its_end(notebook: Path, tmp_path: Path) -> None:
    program = "\n\n".join("".join(cell["source"]) for cell in code_of(notebook))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_its_output(notebook: Path) -> None:
    assert [(cell["execution_count"], cell["outputs"]) for cell in code_of(notebook)] == [(None, [])] * len(
        code_of(notebook)
    )
