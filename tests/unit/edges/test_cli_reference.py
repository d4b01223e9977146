"""The reference pages say what the program does."""

from __future__ import annotations

import runpy
from pathlib import Path

MAKE = Path(__file__).parents[3] / "docs" / "reference" / "make.py"


def test_the_reference_pages_are_as_the_program_makes_them() -> None:
    pages: dict[Path, str] = runpy.run_path(str(MAKE))["pages"]()
    assert {page.name for page in pages} == {"cli.md", "api.md"}
    stale = [page.name for page, content in pages.items() if page.read_text(encoding="utf-8") != content]
    assert not stale, "run: python docs/reference/make.py"
