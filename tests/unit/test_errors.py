"""An error is one line with named parts: in English everywhere, and on pages in the language of whoever reads it."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import msgspec
import pytest

from outlast.errors import REASONS, NotFoundError, OutlastError, Sentence, StorageError, UsageError, reason_of
from outlast.ui.languages import Catalogues
from outlast.ui.operation import Problem

ESPERANTO = """
msgid "no %(what)r in %(path)s: %(error)s"
msgstr "en %(path)s mankas «%(what)s»: %(error)s"

msgid "No space left on device"
msgstr "Neniom da loko restas"

msgid "the letter is damaged: %(error)s"
msgstr "la letero estas difektita: %(error)s"

msgid "at most %(most)d of them"
msgstr "maksimume %(plej)d"

msgid "100 % of it is gone"
msgstr "100 % malaperis"
"""


@pytest.fixture
def catalogues(tmp_path: Path) -> Catalogues:
    (tmp_path / "eo.po").write_text(f'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n{ESPERANTO}')
    return Catalogues(tmp_path)


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_says_its_line_in_english() -> None:
    error = StorageError("no %(what)r in %(path)s: %(error)s", what="ĝardeno", path=Path("/x"), error=full())
    assert str(error) == f"{error}" == "no 'ĝardeno' in /x: No space left on device"
    assert (str(UsageError("100 % of it is gone")), str(OutlastError())) == ("100 % of it is gone", "")
    assert Problem.of(error) == Problem(str(error), error.exit_code)


def test_a_page_translates_the_line_and_the_errors_among_its_parts(catalogues: Catalogues) -> None:
    _ = catalogues.translation("eo")
    inner = StorageError("no %(what)r in %(path)s: %(error)s", what="No space left on device", path="/x", error=full())
    outer = UsageError("the letter is damaged: %(error)s", error=inner)
    told = "la letero estas difektita: en /x mankas «No space left on device»: Neniom da loko restas"
    assert _(outer) == _(outer.line) == told, "what is no line, such as a name, is never translated"
    assert _(UsageError(outer.line)) == told
    assert _(UsageError("100 % of it is gone")) == "100 % malaperis"


def test_a_translation_with_a_wrong_place_shows_english_with_the_parts(catalogues: Catalogues) -> None:
    assert catalogues.translation("eo")(UsageError("at most %(most)d of them", most=3)) == "at most 3 of them"


def test_errors_and_their_lines_survive_the_way_to_another_process() -> None:
    error = NotFoundError("no %(what)r in %(path)s: %(error)s", what="x", path=Path("/x"), error=full())
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.line, str(copy)) == (NotFoundError, error.line, str(error))
    assert msgspec.json.decode(msgspec.json.encode(error.line), type=Sentence) == error.line


def test_the_reasons_of_the_system_are_those_that_linux_gives() -> None:
    known = {os.strerror(code) for code in errno.errorcode} | {"Name or service not known"}
    assert {str(reason) for reason in REASONS} <= known
    assert reason_of(full()) in REASONS


def test_who_gives_no_reason_is_told_by_the_kind_of_failure() -> None:
    assert str(reason_of(TimeoutError())) == "TimeoutError"
