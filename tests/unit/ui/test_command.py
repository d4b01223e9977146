"""Answers of commands: safe for a terminal, aligned, and the same for programs."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import LockedError, UsageError
from outlast.ui.command import (
    Bar,
    Terminal,
    ask_passphrase,
    call,
    clean,
    confirm,
    date,
    local_time,
    read_passphrase,
    report,
    show,
    size,
    table,
    using,
)
from tests.e2e.program import converse

HOUR_MS = 3_600_000


def echo(operation: str, params: dict[str, Any]) -> Any:
    return {"operation": operation, **params}


def test_a_command_asks_by_name_and_leaves_out_what_was_not_given() -> None:
    with using(Terminal(echo)):
        assert call("peer.add", address="a:1", name=None) == {"operation": "peer.add", "address": "a:1"}


def test_an_answer_is_one_line_of_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with using(Terminal(echo, json=True)):
        show({"text": "при\nвет"}, lambda _: ["not shown"])
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": "при\nвет"}
    assert out.count("\n") == 1


def test_an_answer_is_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with using(Terminal(echo)):
        show({"name": "Ada\x1b[31m"}, lambda answer: [f"Hello {answer['name']}", "bye"])
    assert capsys.readouterr().out == "Hello Ada[31m\nbye\n"


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    cleaned = clean(text)
    assert not set(cleaned) & set("\x1b\x07\x9b\r\n\u202e\u2066")
    assert clean(cleaned) == cleaned


def test_letters_of_all_scripts_stay() -> None:
    text = "Прывітанне, سلام, 日本語, 👩‍🚀"
    assert clean(text) == text


def test_columns_are_aligned_also_with_wide_letters() -> None:
    lines = table(("NAME", "TEXT"), [("Ada", "x"), ("日本", "y")])
    assert lines == ["NAME  TEXT", "Ada   x", "日本  y"]


def test_a_table_without_rows_has_no_head() -> None:
    assert table(("NAME", "TEXT"), []) == []


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=60)), min_size=1), st.integers(20, 60))
def test_a_line_never_exceeds_the_terminal_by_its_last_column(rows: list[tuple[str, str]], width: int) -> None:
    lines = table(("A", "B"), rows, width=width)
    assert len(lines) == len(rows) + 1
    assert all(clean(line) == line for line in lines)
    plain = [("a" * len(a), "x" * len(b)) for a, b in rows]
    assert all(len(line) <= width for line in table(("A", "B"), plain, width=width))


def test_a_long_last_cell_is_cut_with_an_ellipsis() -> None:
    assert table(("A", "B"), [("a", "b" * 30)], width=20)[1] == "a  " + "b" * 16 + "…"


def test_times_show_their_date_when_they_are_not_recent() -> None:
    now = 1_700_000_000_000
    assert len(local_time(now - HOUR_MS, now)) == len("14:02")
    assert len(local_time(now - 13 * HOUR_MS, now)) == len("2023-11-14 14:02")


def test_a_day_is_a_date_everywhere() -> None:
    assert date(0) == "1970-01-01"
    assert date(20_000) == "2024-10-04"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**50, "1024.0 TiB")]
)
def test_sizes_are_told_in_binary_units(count: int, text: str) -> None:
    assert size(count) == text


def test_an_error_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(LockedError("the node\nis locked\x1b[2J"), as_json=False) == 3
    assert capsys.readouterr().err == "outlast: the node is locked[2J\n"


def test_an_error_is_an_object_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(UsageError("no «such» thing"), as_json=True) == 2
    assert json.loads(capsys.readouterr().err) == {"error": "no «such» thing", "code": 2}


def test_a_passphrase_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes("корова  лошадь \r\nsecond line\n".encode())
    assert ask_passphrase(file) == "корова  лошадь "


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n", b"x" * 5000])
def test_a_passphrase_file_without_a_passphrase_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="secret"):
        read_passphrase(file)


def test_a_missing_passphrase_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_passphrase(tmp_path / "nowhere")


def test_without_file_and_terminal_no_passphrase_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    with pytest.raises(LockedError, match="--passphrase-file"):
        ask_passphrase(None)


def test_what_cannot_be_undone_is_not_done_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wipe\n"))
    with pytest.raises(UsageError, match="--yes"):
        confirm("All will be lost.", "wipe")


def at_terminal(action: Callable[[], object], *typed: str) -> str:
    """Run ``action`` in a child process at a terminal where somebody types; returns what stood there."""
    child, terminal = pty.fork()
    if child == 0:
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        try:
            outcome = f"<{action()}>"
        except BaseException as error:
            outcome = f"<{type(error).__name__}: {error}>"
        os.write(1, outcome.encode())
        os._exit(0)
    return converse(child, terminal, typed)[1]


def test_a_new_passphrase_is_typed_twice_and_never_shown() -> None:
    seen = at_terminal(lambda: len(ask_passphrase(None, new=True)), "kingfisher", "kingfisher")
    assert seen.endswith("<10>")
    assert "kingfisher" not in seen


def test_two_different_new_passphrases_are_refused() -> None:
    assert "UsageError" in at_terminal(lambda: ask_passphrase(None, new=True), "kingfisher", "kingfishes")


def test_a_typed_word_confirms_and_another_does_not() -> None:
    assert at_terminal(lambda: confirm("Gone.", "wipe"), "wipe").endswith("<None>")
    assert "UsageError" in at_terminal(lambda: confirm("Gone.", "wipe"), "yes")


def test_a_progress_bar_appears_at_a_terminal_and_is_wiped() -> None:
    clock = iter([0.0, 0.1, 1.0, 1.0])

    def work() -> str:
        bar = Bar("Reading", clock=lambda: next(clock))
        bar(1, 10)
        bar(5, 10)
        bar.close()
        return "done"

    seen = at_terminal(work)
    assert "[##########..........]  50 %" in seen
    assert "10 %" not in seen
    assert seen.endswith("\x1b[K<done>")


def test_no_progress_bar_is_drawn_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("Reading", clock=iter(range(0, 100, 10)).__next__)
    bar(5, 10)
    bar.close()
    assert capsys.readouterr().err == ""
