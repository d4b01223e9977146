"""The project speaks of itself alone: no registry's host, no path of anybody's machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ELSEWHERE = {
    "a package registry's host": re.compile(
        r"\b(pypi|pythonhosted|npmjs|crates|(deb|security)\.debian)\.(org|com|io)\b"
    ),
    "a path of somebody's machine": re.compile(r"(?<![\w.~-])/(work|root|home/\w+|Users/\w+)/"),
}


def found_elsewhere(text: str) -> list[str]:
    """Return what of ELSEWHERE the text names."""
    return [what for what, pattern in ELSEWHERE.items() if pattern.search(text)]


def test_no_file_of_the_project_names_a_registry_or_a_machine() -> None:
    # safe.directory: the folder may belong to somebody else than who runs the suite.
    git = ["git", "-c", "safe.directory=*"]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert paths, "git lists no file"
    named = {
        path.relative_to(ROOT).as_posix(): what
        for path in paths
        if path.is_file() and (what := found_elsewhere(path.read_text("utf-8", "replace")))
    }
    assert named == {}


def test_a_registry_and_a_path_are_noticed() -> None:
    host, home = ".".join(["files", "pythonhosted", "org"]), "/".join(["", "root", "notes"])
    assert found_elsewhere(f"see {host} and {home}") == list(ELSEWHERE)
