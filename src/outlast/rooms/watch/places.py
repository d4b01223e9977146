"""Countries: their codes, their names in the page's language, their outlines."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import msgspec

from outlast.errors import NotFoundError

OUTLINES: Final = Path(__file__).parent / "data" / "outlines.json"
# Codes of CLDR that are no country: unions, the world, what is unknown, and pseudo-languages' places.
_NO_COUNTRY: Final = frozenset(("EU", "EZ", "UN", "QO", "XA", "XB", "ZZ"))

_KOSOVO: Final = {"XKX": "XK", "XKO": "XK"}  # CLDR has no three letters of it; the World Bank and GADM have these


class Outlines(msgspec.Struct, frozen=True):
    """The map: a path for each country, in units of ``width`` by ``height``; a dot for those that are too small."""

    width: int
    height: int
    countries: dict[str, str]
    dots: dict[str, tuple[int, int]]


@cache
def outlines() -> Outlines:
    """The outlines that come with the program; see ``data/OUTLINES.txt``."""
    return msgspec.json.decode(OUTLINES.read_bytes(), type=Outlines)


@cache
def country_names(language: str) -> dict[str, str]:
    """The names of all countries in a language (BCP 47), by their two letters, sorted by name; English if unknown."""
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        locale = Locale.parse("en")
    named = {
        code: name
        for code, name in locale.territories.items()
        if re.fullmatch("[A-Z]{2}", code) and code not in _NO_COUNTRY
    }
    return dict(sorted(named.items(), key=lambda item: item[1].casefold()))


def country_codes() -> frozenset[str]:
    """The two letters of all countries (ISO 3166-1 alpha-2, and XK)."""
    return frozenset(country_names("en"))


@lru_cache(1024)  # each row of a file asks
def two_letters(code: str) -> str:
    """A country's two letters by its two or three; what is no such code stays as it is."""
    from babel.core import get_global

    named: list[str] = get_global("territory_aliases").get(code) or [_KOSOVO.get(code, code)]
    return named[0]


def find_country(text: str) -> str:
    """The two letters of a country by its two or three letters or its English name; raises NotFoundError."""
    text, names = text.strip(), country_names("en")
    code = two_letters(text.upper())
    if code in names:
        return code
    found = [code for code, name in names.items() if name.casefold() == text.casefold()]
    if not found:
        raise NotFoundError("there is no country %(name)r: give its two letters, as in BY", name=text[:80])
    return found[0]


def entity_name(entity: str, language: str) -> str:
    """What a place is called: a country by its name, a part of one or a network by its code."""
    country, _, part = entity.partition("-")
    name = country_names(language).get(country)
    if name is None:
        return entity
    return f"{name} ({part})" if part else name
