"""A language is one file: found when it is there, read when it is used, English where it says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel import Locale
from babel.messages.pofile import read_po

from outlast.errors import UsageError
from outlast.rooms.watch.agenda import PUBLISHABLE
from outlast.ui.languages import AUTONYMS, LOCALES, Catalogues, renewed, sources, template

ESPERANTO = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

msgid "Help"
msgstr "Helpo"

msgid "Hello, %(name)s"
msgstr "Saluton, %(name)s"

msgid "Messages"
msgstr "Mesaĝoj por %(nobody)s"

#, fuzzy
msgid "People"
msgstr "Hundoj"

msgid "%(n)d entry"
msgid_plural "%(n)d entries"
msgstr[0] "%(n)d ero"
msgstr[1] "%(n)d eroj"
"""


@pytest.fixture
def catalogues(tmp_path: Path) -> Catalogues:
    (tmp_path / "eo.po").write_text(ESPERANTO, encoding="utf-8")
    (tmp_path / "fa.po").write_text('msgid "Help"\nmsgstr "راهنما"\n', encoding="utf-8")
    (tmp_path / "zh_Hant.po").write_text('msgid "Help"\nmsgstr "說明"\n', encoding="utf-8")
    (tmp_path / "xx.po").write_text('msgid "Help"\nmsgstr "[Help]"\n', encoding="utf-8")
    return Catalogues(tmp_path)


def test_every_file_is_a_language_under_its_own_name(catalogues: Catalogues) -> None:
    assert catalogues.languages() == {
        "en": "English",
        "eo": "Esperanto",
        "fa": "فارسی",
        "xx": "xx",
        "zh-Hant": "中文 (繁體)",
    }


def test_the_languages_that_come_along_have_the_names_that_the_cldr_has() -> None:
    assert {path.stem for path in LOCALES.glob("*.po")} == AUTONYMS.keys()
    assert {code: (Locale.parse(code).get_display_name() or "").capitalize() for code in AUTONYMS} == AUTONYMS


def test_a_translation_fills_in_values_and_plurals(catalogues: Catalogues) -> None:
    _ = catalogues.translation("eo")
    assert _("Help") == "Helpo"
    assert _("Hello, %(name)s", name="Ala 100 %") == "Saluton, Ala 100 %"
    assert [_.ngettext("%(n)d entry", "%(n)d entries", n) for n in (1, 2)] == ["1 ero", "2 eroj"]


def test_no_line_breaks_within_a_name_of_ours_and_what_people_called_something_stays_as_it_is(
    catalogues: Catalogues,
) -> None:
    _ = catalogues.translation("eo")
    assert _("No Wi-Fi is called %(name)s", name="My-Wi-Fi") == "No Wi\u2011Fi is called My-Wi-Fi"
    assert _.ngettext("%(n)d Wi-Fi", "%(n)d Wi-Fis", 2) == "2 Wi\u2011Fis"


def test_what_is_missing_fuzzy_or_wrong_stays_english(catalogues: Catalogues) -> None:
    _ = catalogues.translation("eo")
    assert _("Settings") == "Settings"
    assert _("People") == "People"
    assert _("Messages", n=1) == "Messages"
    assert _("") == ""


def test_languages_that_are_written_from_the_right_say_so(catalogues: Catalogues) -> None:
    assert catalogues.translation("fa").direction == "rtl"
    assert catalogues.translation("eo").direction == "ltr"
    assert catalogues.translation("xx").direction == "ltr"


def test_what_an_error_quotes_runs_its_own_way_in_a_language_from_the_right() -> None:
    error = UsageError("cannot remove %(path)s: %(error)s", path="/media/stick/", error="it is in use")
    assert "\u2068/media/stick/\u2069" in Catalogues().translation("fa")(error)
    assert str(error) == Catalogues().translation("en")(error) == "cannot remove /media/stick/: it is in use"
    assert "\u2068" not in Catalogues().translation("ru")(error)


def test_a_changed_file_is_read_again(catalogues: Catalogues, tmp_path: Path) -> None:
    assert catalogues.translation("xx")("Help") == "[Help]"
    file = tmp_path / "xx.po"
    file.write_text('msgid "Help"\nmsgstr "<Help>"\n', encoding="utf-8")
    import os

    os.utime(file, (1, 1))
    assert catalogues.translation("xx")("Help") == "<Help>"


@pytest.mark.parametrize(
    ("cookie", "accepted", "chosen"),
    [
        ("", "", "en"),
        ("fa", "eo", "fa"),
        ("../../etc/passwd", "", "en"),
        ("", "de, eo;q=0.8", "eo"),
        ("", "fa-IR,fa;q=0.9,en;q=0.8", "fa"),
        ("", "zh-Hant", "zh-Hant"),
        ("", "*", "en"),
    ],
)
def test_the_chosen_language_comes_before_the_browser_s(
    catalogues: Catalogues, cookie: str, accepted: str, chosen: str
) -> None:
    assert catalogues.choose(cookie, accepted) == chosen


def test_a_name_that_is_no_language_of_ours_is_english_and_opens_no_file(catalogues: Catalogues) -> None:
    assert catalogues.translation("../fa").language == "en"


def test_everything_that_is_said_stands_in_the_template_for_translators() -> None:
    written = (LOCALES / "outlast.pot").read_bytes()
    assert written == template(sources()), "run: python -m outlast.ui.languages"


def test_the_template_finds_what_is_marked_and_what_exceptions_say(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'class OddError(Exception): ...\n_("one")\nmarked("two")\nraise OddError("three")\nraise OddError(f"no {1}")\n'
    )
    (tmp_path / "b.html").write_text('{{ _("four") }} {{ ngettext("five", "fives", 2) }} <p title="{{ _(\'six\') }}">')
    found = template(tmp_path.iterdir()).decode()
    assert all(f'"{word}"' in found for word in ("one", "two", "three", "four", "five", "fives", "six"))
    assert "no " not in found


def test_a_catalogue_is_renewed_with_what_it_knew_and_empty_places_for_what_is_new() -> None:
    wanted = (
        b'msgid "Help"\nmsgstr ""\n\nmsgid "New"\nmsgstr ""\n\n'
        b'#, python-format\nmsgid "%(n)d entry"\nmsgid_plural "%(n)d entries"\nmsgstr[0] ""\nmsgstr[1] ""\n'
    )
    found = renewed(ESPERANTO.encode(), "eo", wanted).decode()
    assert 'msgid "Help"\nmsgstr "Helpo"\n' in found
    assert 'msgid "New"\nmsgstr ""\n' in found
    assert 'msgstr[1] "%(n)d eroj"\n' in found
    assert "Hundoj" not in found
    assert renewed(found.encode(), "eo", wanted).decode() == found
    russian = renewed(b"", "ru", wanted).decode()
    assert "nplurals=3" in russian
    assert 'msgstr[2] ""' in russian


@pytest.mark.parametrize("code", ["be", "de", "fa", "ja", "ru"])
def test_a_language_says_everything_and_nothing_in_doubt(code: str) -> None:
    path = LOCALES / f"{code}.po"
    written = path.read_bytes()
    assert written == renewed(written, code, (LOCALES / "outlast.pot").read_bytes()), (
        "run: python -m outlast.ui.languages"
    )
    with path.open("rb") as file:
        catalogue = read_po(file, locale=code)
    for message in catalogue:
        if not message.id:
            continue
        said = message.string if isinstance(message.string, tuple) else (message.string,)
        assert all(said), f"not translated: {message.id}"
        assert not message.fuzzy, message.id
        asked = message.id[0] if isinstance(message.id, tuple) else message.id
        for one in said:
            # A form for one may leave out how many they are; nothing else may be missing or made up.
            assert places(one) | {"n"} == places(asked) | {"n"}, (message.id, one)


@pytest.mark.parametrize("code", ["be", "de", "fa", "ja", "ru"])
def test_what_is_to_be_typed_stands_in_every_language_as_it_is_typed(code: str) -> None:
    for asked, said in pairs(code):
        commands = " ".join(re.findall(r"`([^`]+)`", asked)).split()
        typed = [word for word in commands if word.islower()] + re.findall(r"--[a-z-]+", asked)
        if asked.startswith("what can be published:"):
            typed += PUBLISHABLE
        assert all(one in said for one in typed), (asked, said)


@pytest.mark.parametrize("code", ["be", "ru"])
def test_what_stands_for_a_value_is_written_in_the_reader_s_letters(code: str) -> None:
    for _, said in pairs(code):
        assert not re.search(r"--[a-z-]+ (?!ID\b)[A-Z]{2}", said), said


@pytest.mark.parametrize("code", ["be", "ru"])
def test_the_form_for_one_is_that_of_21_too_and_speaks_of_no_single_one(code: str) -> None:
    with (LOCALES / f"{code}.po").open("rb") as file:
        forms = [message.string[0] for message in read_po(file, locale=code) if isinstance(message.id, tuple)]
    assert forms
    assert not [one for one in forms if re.search(r"\b(н?его|н?её|котор\w+|яго|яе|якога|якую)\b", one)]


def test_in_german_they_are_not_you() -> None:
    """Where a sentence begins, both are ``Sie``: who others are has to be said there."""
    others, reader = re.compile(r"(^|[.:;] )(They|they|Their) "), re.compile(r"(^|[.:;] )[Yy]ou")
    spoken_to = re.compile(r"(^|[.:;] )(Sie (sind|\w+en)|Ihre?) ")
    told = [said for asked, said in pairs("de") if others.search(asked) and not reader.search(asked)]
    assert told
    assert not [said for said in told if spoken_to.search(said)]


def pairs(code: str) -> Iterator[tuple[str, str]]:
    """Each sentence in English, and in this language; a plural gives a pair for each of its forms."""
    with (LOCALES / f"{code}.po").open("rb") as file:
        catalogue = read_po(file, locale=code)
    for message in catalogue:
        asked = message.id[-1] if isinstance(message.id, tuple) else message.id
        for said in message.string if isinstance(message.string, tuple) else (message.string,):
            if asked:
                yield asked, said


def test_the_signs_of_addresses_and_options_keep_their_place_in_a_sentence_from_the_right() -> None:
    for said in sentences("fa"):
        # A sign at the edge of a Latin word goes to the other side of it unless a mark stands there.
        assert not re.search(r"(://|=\.\.\.)(?=[\s،؛»]|$)", said), said
        assert not re.search(r"(?:^|[\s(«])--\w", re.sub(r"`.*?`", "", said)), said
        # So do first digits in front of letters, which stand as a number of the sentence.
        assert not re.search(r"(?<![\w\u200e./:\[-])\d+[-:][\w-]*[a-z]", said), said
        # What joins two values puts them in the order of the sentence, and not of an address, unless it is bounded.
        assert not re.search(r"(?<![\u200e/])(?:/%\(\w+\)s|%\(\w+\)s(?::%|[*/]))", said), said


def test_what_fills_a_sentence_from_the_right_keeps_its_own_direction() -> None:
    catalogues = Catalogues()
    _ = catalogues.translation("fa")
    assert "\u2068/media/anna\u2069" in _("%(path)s is no file", path="/media/anna")
    inner = _("%(where)s does not answer: check address and network", where="[fe80::1]:7000")
    assert "\u2068[fe80::1]:7000\u2069" in inner
    assert _("this cannot be kept: %(line)s", line=inner).endswith(f"\u2068{inner}\u2069")
    assert "\u2068" not in _("There is one %(n)d", n=1) + _.ngettext("%(n)d day", "%(n)d days", 2)
    assert "\u2068" not in catalogues.translation("ja")("%(path)s is no file", path="/media/anna")


def test_japanese_sentences_have_the_signs_of_japanese_writing() -> None:
    letter = "[ぁ-んァ-ヶ一-龥]"
    for said in sentences("ja"):
        assert not re.search(rf"{letter}(?:: |[,;!?(])| %%", said), said


@pytest.mark.parametrize(
    ("one", "other"), [("Later", "Later on"), ("By", "Through"), ("read", "fetched"), ("asked", "asked in")]
)
def test_a_word_that_pages_need_in_two_senses_is_said_in_two_words(one: str, other: str) -> None:
    _ = Catalogues().translation("ja")
    assert len({_(one), _(other), one, other}) == 4


def sentences(code: str) -> list[str]:
    """All that a language says."""
    with (LOCALES / f"{code}.po").open("rb") as file:
        catalogue = read_po(file, locale=code)
    said = [message.string for message in catalogue if message.id]
    return [form for one in said for form in ([one] if isinstance(one, str) else one)]


def places(text: str) -> set[str]:
    """The names of the values that a sentence is filled with."""
    return set(re.findall(r"%\((\w+)\)", text))
