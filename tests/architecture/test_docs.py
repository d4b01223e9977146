"""What the documentation shows is what happens."""

from __future__ import annotations

import os
import re
import select
from pathlib import Path

import pytest

from tests.architecture.console import BLOCK, Step, failures, steps
from tests.architecture.tree import ROOT

PAGES = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if path.exists()]
RUNNABLE = [path for path in PAGES if BLOCK.search(path.read_text(encoding="utf-8"))]


def block(text: str) -> str:
    """Return a page with one runnable console block."""
    return f"# Title\n\n```console runnable\n{text}\n```\n"


def test_the_two_commands_stand_first_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z ]*\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for line in "".join(blocks).splitlines() if line.strip()]
    commands = [re.sub(r"\s+#.*", "", line) for line in lines[:2]]
    assert commands == ["python3 dev.py up", "python3 dev.py test"]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    assert failures(page.read_text(encoding="utf-8"), tmp_path) == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/howto/*.md")), ids=lambda page: page.name)
def test_what_a_page_says_to_press_stands_on_the_screen(page: Path) -> None:
    shown = (ROOT / "src/outlast/ui/locales/outlast.pot").read_text(encoding="utf-8")
    named = [name for name in re.findall(r"\*\*([^*]+)\*\*", page.read_text(encoding="utf-8")) if name[-1] != "."]
    assert [name for name in named if f'\nmsgid "{name}"\n' not in shown] == []


def test_the_tutorial_is_among_the_pages_that_run() -> None:
    assert any("tutorial" in path.parts for path in RUNNABLE)


def test_a_command_may_go_on_over_several_lines_and_its_output_is_told_apart() -> None:
    page = block("$ cat <<END\n> one\n> END\none\n$ true")
    assert steps(page) == [Step("cat <<END\none\nEND", ("one",)), Step("true", ())]


def test_a_page_that_shows_the_truth_passes(tmp_path: Path) -> None:
    page = block("$ X=blue; cd /; printf 'id 7f3a\\nend\\n'\nid ...\nend") + block("$ echo $X\nblue")
    assert failures(page, tmp_path) == []


def test_a_session_begins_in_an_empty_home_of_its_own(tmp_path: Path) -> None:
    assert failures(block(f'$ echo "$HOME"; ls\n{tmp_path}'), tmp_path) == []


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        ("$ false", "exit code 1"),
        ("$ echo green\nblue", "not ('blue',)"),
        ("$ echo two; echo one\none\ntwo", "not ('one', 'two')"),
        ("$ exit 0\n$ true", "did not end"),
    ],
)
def test_a_page_that_shows_something_else_is_noticed(tmp_path: Path, shown: str, complaint: str) -> None:
    [wrong] = failures(block(shown), tmp_path)
    assert complaint in wrong


def test_a_command_that_hangs_is_named(tmp_path: Path) -> None:
    page = block("$ true\n$ tail -f /dev/null\n$ true")
    [wrong] = failures(page, tmp_path, timeout_s=0.5)
    assert wrong.startswith("tail -f /dev/null: did not end")


def test_a_program_in_the_background_neither_holds_nor_outlives_the_session(tmp_path: Path) -> None:
    # The pipe that it keeps open for writing reads as ended once it is gone.
    os.mkfifo(tmp_path / "held")
    reader = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    page = block("$ mkfifo ready\n$ (echo > ready; exec tail -f /dev/null) > held &\n$ read < ready")
    assert failures(page, tmp_path) == []
    assert select.select([reader], [], [], 10)[0] == [reader]
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_python_blocks_run_in_their_turn(tmp_path: Path) -> None:
    page = block("$ echo 7 > n") + "```python runnable\nassert open('n').read() == '7\\n'\n```\n"
    assert failures(page, tmp_path) == []
    assert failures("```python runnable\nassert False\n```\n", tmp_path) != []


def test_a_block_must_begin_with_a_command() -> None:
    with pytest.raises(ValueError, match="begins with a command"):
        steps(block("outlast up"))
