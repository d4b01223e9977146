"""Fingerprints: what they match, which are refused, and that no list and no page takes long."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.watch.proto.fingerprints import (
    ALIKE_MAX,
    ALL_PATTERNS_MAX_BYTES,
    EXPRESSIONS_MAX,
    PATTERN_MAX_BYTES,
    PATTERNS_MAX,
    Fingerprint,
    Fingerprints,
    Refused,
    read_list,
)
from tests.real import real

HEAD = "name,scope,other_names,location_found,pattern_type,pattern,confidence_no_fp,expected_countries,a,b,c"


def one(pattern: str, kind: str = "contains", location: str = "body", scope: str = "nat") -> Fingerprint:
    """A fingerprint of that pattern."""
    return Fingerprint(pattern, scope, location, kind, pattern, 5, frozenset())


def rows(*lines: str) -> list[Fingerprint | Refused]:
    """What a list with these rows gives."""
    return list(read_list([HEAD + "\n", *(line + "\n" for line in lines)]))


def names(found: Iterable[Fingerprint]) -> set[str]:
    """Their names."""
    return {fingerprint.name for fingerprint in found}


@given(
    patterns=st.lists(st.binary(min_size=4, max_size=12).map(lambda raw: raw.hex()), unique=True, max_size=40),
    body=st.binary(max_size=300).map(lambda raw: raw.hex()),
    chosen=st.sets(st.integers(0, 39)),
)
def test_one_look_finds_what_looking_for_each_finds(patterns: list[str], body: str, chosen: set[int]) -> None:
    body += "".join(pattern for at, pattern in enumerate(patterns) if at in chosen)
    known = Fingerprints(map(one, patterns))
    assert names(known.of_response({}, body.encode())) == {pattern for pattern in patterns if pattern in body}


PIECES = st.lists(
    st.sampled_from(["abcd", "ab", "a", "b", r"\.", r"\(", ".", ".*", ".+", ".*?", "{x", "}"]), max_size=8
)
LINES = st.lists(st.sampled_from(["abcd", "ab", "a", "b", ".", "(", "\n", "x", "{x", "}"]), max_size=30).map("".join)


@given(pieces=PIECES, text=LINES)
def test_an_expression_that_is_taken_matches_as_an_engine_does(pieces: list[str], text: str) -> None:
    pattern = "abcd" + "".join(pieces)
    known = Fingerprints([one(pattern, "regexp", "header.x")])
    assert len(known) == 1
    assert bool(known.of_response({"X": text}, b"")) == bool(re.search(pattern, text))


@given(pattern=st.text("ab().*+?[]{}|^$\\1,d", min_size=1, max_size=12), text=st.text("ab(1,d\n", max_size=40))
def test_an_expression_is_matched_rightly_or_refused(pattern: str, text: str) -> None:
    [row] = rows(f'x,nat,,header.x,regexp,"{pattern}",5,,,,')
    if isinstance(row, Refused):
        return
    assert bool(Fingerprints([row]).of_response({"x": text}, b"")) == bool(re.search(pattern, text))


def test_headers_and_answers_have_their_own_patterns() -> None:
    known = Fingerprints(
        [
            one("http://block.example/", "prefix", "header.location"),
            one("10.10.34.36", "full", "dns"),
            one("Netsweeper", "contains", "header.server"),
        ]
    )
    assert names(known.of_response({"Location": "http://block.example/why"}, b"")) == {"http://block.example/"}
    assert names(known.of_response({"Server": "a Netsweeper box"}, b"")) == {"Netsweeper"}
    assert not known.of_response({"Location": "see http://block.example/"}, b"Netsweeper")
    assert names(known.of_answers(["10.10.34.36", "1.1.1.1"])) == {"10.10.34.36"}
    assert not known.of_answers(["10.10.34.3"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,nat,,body,regexp,(a+)+$,5,,,,", "only text"),
        ("x,nat,,body,regexp,[a-z]*blocked,5,,,,", "only text"),
        (r"x,nat,,body,regexp,abcd\d,5,,,,", "escape"),
        ("x,nat,,body,regexp,.*ab.*,5,,,,", "no text of 4 bytes"),
        ("x,nat,,body,contains,abc,5,,,,", "shorter"),
        ("x,nat,,body,contains,,5,,,,", "no pattern"),
        ("x,nat,,cookie,contains,abcd,5,,,,", "location_found"),
        ("x,nat,,body,fuzzy,abcd,5,,,,", "pattern_type"),
        (f"x,nat,,body,contains,{'x' * 5000},5,,,,", "longer"),
    ],
)
def test_a_row_that_cannot_be_used_safely_is_refused_with_its_line(line: str, reason: str) -> None:
    [refused] = rows(line)
    assert isinstance(refused, Refused)
    assert refused.line == 2
    assert reason in refused.reason


@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_text_is_a_list_and_none_raises(lines: list[str]) -> None:
    known = Fingerprints(read_list([HEAD, *lines]))
    known.of_response({"server": "x"}, b"some page")
    known.of_answers(["1.2.3.4"])


@pytest.mark.parametrize(
    ("scope", "confidence", "countries", "country", "blocks"),
    [
        ("nat", 5, "IR", "IR", True),
        ("isp", 10, "", "IR", True),
        ("nat", 5, "IR", "", True),
        ("nat", 5, "IR", "DE", False),
        ("nat", 4, "IR", "IR", False),
        ("fp", 10, "", "IR", False),
        ("vbw", 10, "", "IR", False),
        ("unheard of", 10, "", "IR", False),
    ],
)
def test_a_match_means_blocking_only_by_scope_confidence_and_country(
    scope: str, confidence: int, countries: str, country: str, blocks: bool
) -> None:
    [row] = rows(f'x,{scope},,body,contains,blocked,{confidence},"{countries}",,,')
    assert isinstance(row, Fingerprint)
    assert row.blocks(country) is blocks


def test_the_real_lists_are_taken_but_for_one_expression() -> None:
    known = Fingerprints(
        row
        for name in ("dns", "http")
        for row in read_list(
            (real("watch/ooni/fingerprints") / f"fingerprints_{name}.csv").read_text().splitlines(keepends=True)
        )
    )
    assert len(known) > 1900
    assert len(known.refused) <= 2


def hostile() -> dict[str, tuple[list[Fingerprint], bytes]]:
    """Lists and pages made to take long."""
    page = 1 << 20
    return {
        "all alike": ([one("a" * 99 + str(number)) for number in range(1000)], b"a" * page),
        "many": ([one(f"{number:05}blocked") for number in range(PATTERNS_MAX + 5)], b"blocked" * (page // 7)),
        "expressions": ([one(".*".join(["aaaa"] * 15) + "b", "regexp")] * EXPRESSIONS_MAX, b"a" * page),
        "dots": ([one("a.b.c.d.aaaa" + ".a" * 9 + "b", "regexp")] * EXPRESSIONS_MAX, b"a" * page),
        "lines": ([one("aaaa.*b", "regexp")] * EXPRESSIONS_MAX, b"aaaa\n" * (page // 5)),
    }


@pytest.mark.parametrize("name", hostile())
def test_no_list_makes_a_page_take_long(name: str) -> None:
    patterns, page = hostile()[name]
    known = Fingerprints(patterns)
    begin = time.process_time()
    known.of_response({}, page)
    assert time.process_time() - begin < 5
    assert len(known) <= PATTERNS_MAX


def test_patterns_beyond_the_bounds_are_refused() -> None:
    alike = Fingerprints(one("aaaa" if number == 0 else "aaaa" * 2) for number in range(ALIKE_MAX * 3))
    assert len(alike) == ALIKE_MAX
    assert len(alike.refused) == ALIKE_MAX * 2
    expressions = Fingerprints(one(f"abcd{number}.*x", "regexp", "header.x") for number in range(EXPRESSIONS_MAX + 2))
    assert len(expressions) == EXPRESSIONS_MAX
    fit = ALL_PATTERNS_MAX_BYTES // PATTERN_MAX_BYTES
    large = Fingerprints(one(f"{number:0{PATTERN_MAX_BYTES}}", location="header.x") for number in range(fit + 2))
    assert len(large) == fit
    assert "bytes" in large.refused[0].reason


def test_a_list_of_as_many_headers_as_patterns_is_soon_made_ready() -> None:
    begin = time.process_time()
    known = Fingerprints(one("abcd", location=f"header.{number}") for number in range(PATTERNS_MAX))
    assert time.process_time() - begin < 5
    assert names(known.of_response({"7": "abcd"}, b"")) == {"abcd"}
