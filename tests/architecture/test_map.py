"""ARCHITECTURE.md shows the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.codemap import BEGIN, END, PAGE, code_map, with_map
from tests.architecture.tree import ROOT


def test_the_map_in_architecture_md_equals_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_map(page, ROOT / "src") == page, "run: python3 dev.py map"


def test_a_module_stands_in_the_map_with_its_first_sentence_and_its_imports(tmp_path: Path) -> None:
    (tmp_path / "outlast" / "rooms" / "carry").mkdir(parents=True)
    module = tmp_path / "outlast" / "rooms" / "carry" / "view.py"
    module.write_text('"""What is\nshown: rows. More."""\nfrom outlast import errors, terms\n')
    drawn = code_map(tmp_path).splitlines()
    assert drawn[1].split(maxsplit=1) == ["outlast/rooms/carry/view.py", "What is shown: rows"]
    assert drawn[-1] == "| rooms.carry | errors, terms |"


def test_only_the_place_between_the_markers_is_written(tmp_path: Path) -> None:
    page = with_map(f"before\n{BEGIN}\nold\n{END}\nafter\n", tmp_path)
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page


def test_a_page_without_a_place_for_the_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_map("no markers", tmp_path)
