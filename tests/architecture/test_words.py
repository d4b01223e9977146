"""The project speaks of itself alone: no registry's host, no path of anybody's machine."""

from __future__ import annotations

import re

from tests.architecture.tree import ROOT, files_of_the_project

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
    names = files_of_the_project()
    assert names, "git lists no file"
    named = {name: what for name in names if (what := found_elsewhere((ROOT / name).read_text("utf-8", "replace")))}
    assert named == {}


def test_a_registry_and_a_path_are_noticed() -> None:
    host, home = ".".join(["files", "pythonhosted", "org"]), "/".join(["", "root", "notes"])
    assert found_elsewhere(f"see {host} and {home}") == list(ELSEWHERE)
