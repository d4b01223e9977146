"""Evidence is data until it is shown: English for programs, the reader's own language on pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import Sentence
from outlast.rooms.watch import words
from outlast.rooms.watch.proto.cost import METHODS
from outlast.rooms.watch.proto.detector import REGIONS_UP
from outlast.rooms.watch.proto.evidence import FORMS, Unit, english, fact
from outlast.rooms.watch.proto.heartbeats import FOREIGN
from outlast.rooms.watch.service import ROUTES
from outlast.terms import NUMBER_MAX, OUTAGE, OUTCOMES, Fact, Outage, is_evidence
from outlast.ui.languages import Catalogues

AT_S = 1_767_000_000
LANGUAGES = ("be", "de", "fa", "ja", "ru")
VALUES: dict[Unit, Any] = {
    Unit.NAME: "ping-slash24",
    Unit.COUNT: 7,
    Unit.AMOUNT: 1234.5,
    Unit.CHANGE: -0.97,
    Unit.TIME: AT_S,
    Unit.SPAN: 5400.0,
    Unit.ANSWER: False,
}
LATIN = re.compile("[A-Za-z]+")


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (fact("changed", "bgp", -0.514, AT_S, 2.0), "bgp: 51% lower since 2025-12-29T09:20:00Z, at worst 200% higher"),
        (
            fact("own-line", True, None, False),
            "own line: the gateway answers, a target in the country was not asked, a target abroad does not answer",
        ),
        (
            fact("like-power-regions", "bgp", 5400, 90_000, 6, 10, 60),
            "hint, no finding: like a power cut or damage (bgp lay at its worst for 1.5 h and has been coming back for"
            " 25 h; 6 of 10 regions lost half, nine in ten of them within 0.0167 h)",
        ),
        (fact("signals-end"), "the signals end here: whether it went on is not known"),
    ],
)
def test_a_fact_is_said_in_english_with_its_figures(one: Fact, told: str) -> None:
    assert english(one) == told


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fact_is_said_in_every_language_with_its_figures(language: str, kind: str) -> None:
    _ = Catalogues().translation(language)
    units = {name: Unit(str(unit)) for name, unit in FORMS[kind].parts.items()}
    told = words.evidence(fact(kind, *(VALUES[unit] for unit in units.values())), _)
    names = [unit for unit in units.values() if unit is Unit.NAME]
    assert told.count("\u2068ping-slash24\u2069") == len(names)
    if language != "de":
        # What stands in Latin letters is a name; German has an h for hours, too.
        assert LATIN.findall(told.replace("ping-slash24", "")) == []
    for unit, written in ((Unit.COUNT, "7"), (Unit.CHANGE, "97")):
        assert told.count(_.digits(written)) >= list(units.values()).count(unit)


def test_numbers_and_times_are_written_as_the_language_writes_them() -> None:
    one = fact("value", 1234.5, 9000, -0.86, -0.2)
    assert "1\u202f234" in told_in("ru", one).replace("\xa0", "\u202f")
    assert "86\xa0%" in told_in("ru", one)
    assert "\u061c۸۶٪" in told_in("fa", one)  # so that the sign is left of it
    assert "1.234" in told_in("de", one)
    assert "5,5 ч" in told_in("ru", fact("like-power", "bgp", 19_800, 90_000))


def test_what_this_program_counts_itself_has_a_name_in_words() -> None:
    names = [FOREIGN, f"ping: {REGIONS_UP}", *(f"{ROUTES}: {outcome}" for outcome in OUTCOMES)]
    for name in names:
        told = words.signal(name, Catalogues().translation("ru"))
        assert LATIN.findall(told.replace("ping", "")) == [], told
    assert words.signal("bgp · ioda", Catalogues().translation("ru")) == "bgp · ioda"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("the gateway answers", "the gateway answers"),
        ("100 %(n)s", "100 %(n)s"),
        (Fact("from-a-later-version", ("bgp", 1, None)), "from-a-later-version: bgp, 1, None"),
        (fact("changed", "bgp"), "changed: bgp"),
        (fact("changed", "bgp", -0.5, "today", -0.5), "changed: bgp, -0.5, today, -0.5"),
        (fact("changed", "bgp", True, AT_S, -0.5), f"changed: bgp, True, {AT_S}, -0.5"),
        (fact("silent", "bgp", -1, 3), "silent: bgp, -1, 3"),
    ],
)
def test_what_is_none_of_our_facts_is_shown_as_it_stands(line: str | Fact, shown: str) -> None:
    for language in ("en", "ru"):
        assert words.evidence(line, Catalogues().translation(language)) == shown
    assert english(line) == shown


@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=7),
)
def test_whatever_somebody_signs_is_refused_or_can_be_told(kind: str, values: list[Any]) -> None:
    line = Fact(kind, tuple(values))
    if is_evidence(line):
        assert OUTAGE.decode(OUTAGE.encode(Outage("BY", "blackout", 0, None, (line,), ()))).evidence == (line,)
        for language in ("en", "ru", "fa"):
            assert len(words.evidence(line, Catalogues().translation(language))) < 5000
        assert len(english(line)) < 5000


@pytest.mark.parametrize(
    "line",
    [
        "x" * 301,
        "two\nlines",
        Fact("changed", ("x" * 301, -1, AT_S, -1)),
        Fact("changed", ("\u202ebgp", -1, AT_S, -1)),
        Fact("x" * 301),
        Fact("regions", (1,) * 17),
        Fact("regions", (float("nan"),)),
        Fact("regions", (float("inf"),)),
        Fact("regions", (NUMBER_MAX + 1,)),
    ],
    ids=repr,
)
def test_evidence_out_of_bounds_is_none(line: str | Fact) -> None:
    assert not is_evidence(line)


def test_what_is_said_of_a_method_is_a_sentence_to_translate() -> None:
    assert all(isinstance(method.note, Sentence) for method in METHODS)


def told_in(language: str, one: Fact) -> str:
    """A fact in a language."""
    return words.evidence(one, Catalogues().translation(language))
