"""The project's folder and what belongs to the project in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files_of_the_project() -> list[str]:
    """Return the paths, relative to ROOT, of all files that git keeps or would keep."""
    # safe.directory: the folder may belong to somebody else than who runs the suite.
    git = ["git", "-c", "safe.directory=*"]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
