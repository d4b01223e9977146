"""Languages: English in the code, and one catalogue file ``locales/<language>.po`` for each other one.

Catalogues are read at run time, when first used; adding a file adds the language. What there is to translate stands in
``locales/outlast.pot``, written by ``python -m outlast.ui.languages``, which also brings the catalogues up to date.
"""

from __future__ import annotations

import gettext
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from outlast.errors import OutlastError, Sentence

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

LOCALES: Final = Path(__file__).parent / "locales"
SOURCE_LANGUAGE: Final = "en"
ERROR_CLASS: Final = re.compile(r"^class (\w+Error)\(", re.MULTILINE)
_DIGITS: Final = {"arab": "٠١٢٣٤٥٦٧٨٩", "arabext": "۰۱۲۳۴۵۶۷۸۹"}
"""By the names of numbering systems in Unicode's CLDR, which languages name as theirs."""
_NUMBER: Final = re.compile(r"%\((\w+)\)d")
AUTONYMS: Final = {"be": "Беларуская", "de": "Deutsch", "fa": "فارسی", "ja": "日本語", "ru": "Русский"}
"""As the CLDR has them, which takes a MiB of memory for each language that it is asked about."""
FSI: Final = "\N{FIRST STRONG ISOLATE}"
PDI: Final = "\N{POP DIRECTIONAL ISOLATE}"
KEYWORDS: Final = {"_": None, "ngettext": (1, 2), "marked": None, "Sentence": None}


class Translation:
    """The sentences of one language; calling it translates, and puts ``values`` into the result."""

    def __init__(self, language: str, direction: str, catalogue: gettext.NullTranslations) -> None:
        """``language`` is a BCP 47 tag, ``direction`` is ``ltr`` or ``rtl``."""
        self.language = language
        self.direction = direction
        self._catalogue = catalogue
        self._digits = own_digits(language)

    def __call__(self, message: str | Sentence | OutlastError, **values: object) -> str:
        """``message`` in this language, with ``%(name)s`` filled from ``values``, or by what it brings itself."""
        if isinstance(message, OutlastError):
            message = message.line
        if isinstance(message, Sentence):
            values = {name: self(part) if isinstance(part, Sentence) else part for name, part in message.parts.items()}
            message = message.text
        text = _whole(self._catalogue.gettext(message)) if message else ""
        return self._filled(text, message, values) if values else text

    def ngettext(self, one: str, many: str, n: int, **values: object) -> str:
        """The form of a sentence for the number ``n``, which fills ``%(n)d``."""
        text = _whole(self._catalogue.ngettext(one, many, n))
        return self._filled(text, one if n == 1 else many, {"n": n, **values})

    def digits(self, number: object) -> str:
        """A number, or a time, in the digits that this language writes."""
        return str(number).translate(self._digits)

    def _filled(self, text: str, source: str, values: Mapping[str, object]) -> str:
        if self.direction == "rtl":
            values = {name: isolated(value) for name, value in values.items()}
        if self._digits:
            numbers = {name: self.digits(values[name]) for name in _NUMBER.findall(source)}
            text, source = _NUMBER.sub(r"%(\1)s", text), _NUMBER.sub(r"%(\1)s", source)
            values = {**values, **numbers}
        return fill(text, source, values)


def _whole(text: str) -> str:
    """``text`` in which a name with a hyphen is not broken over two lines."""
    return text.replace("Wi-Fi", "Wi\u2011Fi")


def isolated(value: object) -> object:
    """Text that is put into a sentence from the right, between marks (UAX #9, FSI and PDI); a number as it is.

    Without them a path's first slash, an address's first digits or brackets stand at its other end.
    """
    return value if isinstance(value, int | float) else f"{FSI}{value}{PDI}"


def fill(text: str, source: str, values: Mapping[str, object]) -> str:
    """``text`` with its ``%(name)s`` filled; the English ``source`` instead where a translation has a wrong one."""
    try:
        return text % values
    except (KeyError, TypeError, ValueError):
        return source % values


class Catalogues:
    """The languages at hand: English, and one for each ``<language>.po`` in a folder, read when first used."""

    def __init__(self, folder: Path = LOCALES) -> None:
        """Languages are found in ``folder`` each time they are asked for."""
        self._folder = folder
        self._read: dict[str, tuple[float, Translation]] = {}

    def languages(self) -> Mapping[str, str]:
        """Each language's tag with the name it gives itself, English first."""
        return named(tuple(os.listdir(self._folder)))

    def translation(self, language: str) -> Translation:
        """The sentences of ``language`` (a tag that ``languages`` names; any other gives English)."""
        path = self._folder / f"{language.replace('-', '_')}.po"
        if language not in self.languages() or not path.exists():
            return Translation(SOURCE_LANGUAGE, "ltr", gettext.NullTranslations())
        changed = path.stat().st_mtime
        at, known = self._read.get(language, (0.0, None))
        if known is None or at != changed:
            known = Translation(language, direction(path.stem), read_catalogue(path))
            self._read[language] = changed, known
        return known

    def choose(self, cookie: str, accepted: str) -> str:
        """The language of a visitor: what they chose, else the first they accept (RFC 9110 §12.5.4), else English."""
        here = self.languages()
        wanted = [cookie, *(part.partition(";")[0].strip() for part in accepted.split(","))]
        for language in wanted:
            for name in (language, language.partition("-")[0]):
                if name in here:
                    return name
        return SOURCE_LANGUAGE


@lru_cache(maxsize=4)
def named(files: tuple[str, ...]) -> Mapping[str, str]:
    """The languages of the catalogues among these files, as ``Catalogues.languages`` gives them."""
    codes = sorted(file.removesuffix(".po") for file in files if file.endswith(".po"))
    return MappingProxyType({SOURCE_LANGUAGE: "English"} | {tag(code): autonym(code) for code in codes})


def marked(message: str) -> str:
    """A sentence that is to be translated where it is shown."""
    return message


def tag(code: str) -> str:
    """The BCP 47 tag of a catalogue's file name: ``zh_Hant`` is ``zh-Hant``."""
    return code.replace("_", "-")


@cache
def own_digits(language: str) -> Mapping[int, str]:
    """The digits of a language that does not write 0 to 9, each by the one that it stands for."""
    from babel import Locale, UnknownLocaleError

    if language == SOURCE_LANGUAGE:
        return {}
    try:
        system = Locale.parse(language.replace("-", "_")).default_numbering_system
    except (UnknownLocaleError, ValueError):
        return {}
    return {ord("0") + n: digit for n, digit in enumerate(_DIGITS.get(system, ""))}


@cache
def autonym(code: str) -> str:
    """What a language calls itself, or its code when nobody knows."""
    if code in AUTONYMS:
        return AUTONYMS[code]
    from babel import Locale, UnknownLocaleError

    try:
        return (Locale.parse(code).get_display_name() or code).capitalize()
    except (UnknownLocaleError, ValueError):
        return code


@cache
def direction(code: str) -> str:
    """``rtl`` for a language written from right to left, else ``ltr``."""
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(code).text_direction
    except (UnknownLocaleError, ValueError):
        return "ltr"


def read_catalogue(path: Path) -> gettext.NullTranslations:
    """The catalogue in a ``.po`` file; sentences that it lacks, or marks as fuzzy, stay English."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with path.open("rb") as file:
        catalogue = read_po(file, locale=None)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def template(sources: Iterable[Path]) -> bytes:
    """What there is to translate in the ``.py`` and ``.html`` files of ``sources``, as a gettext template (.pot).

    Besides what is marked, these are the lines of exceptions.
    """
    from babel.messages.catalog import Catalog
    from babel.messages.extract import extract

    paths = sorted(sources)
    errors = {name for path in paths for name in ERROR_CLASS.findall(path.read_text(encoding="utf-8"))}
    catalogue = Catalog(charset="utf-8")
    for path in paths:
        method = "jinja2.ext:babel_extract" if path.suffix == ".html" else "python"
        for keywords in (KEYWORDS, dict.fromkeys(errors)):
            with path.open("rb") as file:
                for _line, message, comments, _context in extract(method, file, keywords, ("Translators:",)):
                    catalogue.add(message, locations=[(path.name, 0)], auto_comments=comments)
    return _written(catalogue)


def renewed(catalogue: bytes, code: str, template: bytes) -> bytes:
    """A ``.po`` file of the language ``code`` with exactly the sentences of ``template``; new ones are empty.

    Nothing is guessed from similar sentences.
    """
    from babel.messages.plurals import get_plural
    from babel.messages.pofile import read_po

    old = read_po(BytesIO(catalogue), locale=code)
    old.update(read_po(BytesIO(template)), no_fuzzy_matching=True)
    old.obsolete.clear()
    plural = get_plural(code)
    header = [
        "Content-Type: text/plain; charset=UTF-8",
        f"Language: {code}",
        f"Plural-Forms: nplurals={plural.num_plurals}; plural={plural.plural_expr};",
    ]
    return "\n".join(['msgid ""', 'msgstr ""', *(f'"{line}\\n"' for line in header), "\n"]).encode() + _written(old)


def _written(catalogue: Catalog) -> bytes:
    from babel.messages.pofile import write_po

    written = BytesIO()
    write_po(written, catalogue, width=100, omit_header=True, sort_output=True, include_lineno=False)
    return written.getvalue()


def sources() -> list[Path]:
    """The files of this program that may speak to people."""
    package = LOCALES.parent.parent
    return [*package.rglob("*.py"), *package.rglob("*.html")]


def main() -> None:
    """Write the template, and each catalogue with its sentences: ``python -m outlast.ui.languages``."""
    written = template(sources())
    (LOCALES / "outlast.pot").write_bytes(written)
    for path in LOCALES.glob("*.po"):
        path.write_bytes(renewed(path.read_bytes(), path.stem, written))


if __name__ == "__main__":
    main()
