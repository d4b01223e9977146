"""What carry says is short on the wire, and its text shows what was typed and steers nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.kernel.entry import pack
from outlast.kernel.log import Head, next_entry
from outlast.kernel.mail import LETTER_MAX_BYTES
from outlast.rooms.carry.entries import (
    HIDE,
    LETTER_TEXT_MAX_BYTES,
    POST,
    POST_LIFE_MS,
    POST_TEXT_MAX_BYTES,
    TEXT,
    UNNAMED,
    Post,
    Text,
    clean,
    file_name,
    is_blank,
    letter_text,
    post_text,
)
from tests.unit.kernel.people import NOW_MS, secret
from tests.unit.rooms.carry.said import OWNER


def test_a_public_post_of_300_bytes_takes_at_most_560_on_the_wire() -> None:
    post = next_entry(
        OWNER.signing,
        Head(99_999, secret("prev")),
        space=secret("space"),
        kind=POST.name,
        payload=POST.encode(Post("x" * 300)),
        clock=200_000,
        ts_ms=NOW_MS,
        life_ms=POST_LIFE_MS,
        priority=POST.priority,
    )
    assert len(pack(post)) <= 560


@given(st.text())
def test_cleaned_text_has_lines_and_no_other_controls(text: str) -> None:
    cleaned = clean(text)
    assert not {c for c in cleaned if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - {"\n", "\t"}
    assert clean(cleaned) == cleaned
    assert cleaned == cleaned.strip()


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  two\r\nlines\r", "two\nlines"),
        ("bell\a and \x1b[31mcolour", "bell and [31mcolour"),
        ("one\u2028two\u2029three", "one\ntwo\nthree"),
        ("e\u0301", "é"),
        ("half \ud83d of a pair", "half  of a pair"),
        ("👩\u200d🚒 \u200fשלום", "👩\u200d🚒 \u200fשלום"),
    ],
)
def test_text_is_kept_as_it_was_meant(typed: str, kept: str) -> None:
    assert clean(typed) == kept


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\u200e", "\x00", "\ufeff ", "\u3164 \u2800", "\u200f\ufe0f"])
def test_text_that_shows_nothing_is_refused_in_one_line(text: str) -> None:
    assert is_blank(clean(text))
    with pytest.raises(UsageError, match="empty"):
        letter_text(text)
    with pytest.raises(UsageError, match="empty"):
        post_text(text)


@pytest.mark.parametrize("letter", ["x", "ы", "火", "🚒"])
def test_the_longest_texts_fit_their_frames_and_longer_ones_are_refused(letter: str) -> None:
    size = len(letter.encode())
    longest = letter_text(letter * (LETTER_TEXT_MAX_BYTES // size))
    assert len(TEXT.encode(Text(longest, bytes(16)))) <= LETTER_MAX_BYTES
    POST.encode(Post(post_text(letter * (POST_TEXT_MAX_BYTES // size)), bytes(32)))
    with pytest.raises(UsageError, match="at most"):
        letter_text(letter * (LETTER_TEXT_MAX_BYTES // size + 1))
    with pytest.raises(UsageError, match="at most"):
        post_text(letter * (POST_TEXT_MAX_BYTES // size + 1))


def test_what_removes_a_post_may_live_longer_than_any_post() -> None:
    assert HIDE.max_life_days >= 2 * POST.max_life_days


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("می\u200cخواهم.pdf", "می\u200cخواهم.pdf"),
        ("ক্\u200dষ.jpg", "ক্\u200dষ.jpg"),
        ("C:\\photos\\\u202efdp.exe", "fdp.exe"),
        ("\u200c \x07..\u200d", UNNAMED),
    ],
)
def test_a_file_s_name_is_shown_as_its_script_is_written_and_hides_nothing(given_name: str, shown: str) -> None:
    assert file_name(given_name) == shown
