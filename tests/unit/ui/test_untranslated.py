"""No page says anything that the reader's language does not have: whatever stays in Latin letters is a name.

All pages are asked for in a language of which every sentence is nothing but strokes. What can still be read there did
not come through the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

from babel.messages.pofile import read_po, write_po
from mnemonic import Mnemonic

from outlast.ui.languages import LOCALES, Catalogues
from outlast.ui.page import LANGUAGE_COOKIE
from tests.browser.places import NAME, STICK
from tests.browser.screenshots import nodes

LANGUAGE: Final = "ru"
"""Names of countries and months come from elsewhere: they are Cyrillic here."""
PLACE: Final = re.compile(r"%\(\w+\)[a-z]|%%")
FOR_MACHINES: Final = ("script", "style", "code", "textarea", "cite")
"""What a browser or another program reads, to be copied as it is; and titles of what was published."""
SAID: Final = ("alt", "aria-label", "placeholder", "title")
EMPTY: Final = ("br", "circle", "hr", "img", "input", "link", "meta", "path", "rect", "use", "wbr")
WORDS: Final = frozenset(Mnemonic("english").wordlist)
NAMES: Final = {
    "the program": r"Outlast|outlast(?!:)|install\.py",
    "other programs, and what is called so in them": r"Firefox|Chrome, Edge, Chromium|Telegram|curl|Python"
    r"|Shadowsocks 2022|web_connectivity|ioda",
    "what a language calls itself": "English",
    "methods, as their authors are known": r"(brookings|deloitte|icrier|oecd)-\d{4}(-gdp|-people)?",
    "countries and networks by their codes": r"BY|AS\d+",
    "identities, nodes and devices": r"[a-z2-7]{20,56}|[0-9a-f]{16}",
    "addresses": r"(https?|outlast)://[^ ]+|[\w.-]+\.(example|org|by)(:\d+)?",
    "what people called something": rf"{NAME}|{STICK}|дом\.jpg|a-block-page|A-signal-with-a-name-that[\w-]*",
    "signals, as their source calls them": r"Google \(Search\)",
    "what people wrote": r"Good\. The bus leaves at 18:30, I will send the stick with it\.|OK|x{200,}"
    r"|Water is at the school from nine to noon\.",
}


class Said(HTMLParser):
    """The texts of a page that people see or hear, each with the element that it stands in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.texts += [(f"{tag} {name}", value) for name, value in attrs if value and is_said(name, value)]
        if tag not in EMPTY:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not set(FOR_MACHINES) & set(self.inside):
            self.texts.append((" ".join(self.inside[-2:]), data))


def is_said(name: str, value: str) -> bool:
    """Whether an attribute is for people; scripts show what ``data-`` attributes hold, addresses apart."""
    return name in SAID or (name.startswith("data-") and not value.startswith("/"))


def strokes(sentence: str) -> str:
    """The sentence with a stroke for each Latin letter outside of the places for its parts."""
    texts, places = PLACE.split(sentence), PLACE.findall(sentence)
    veiled = [re.sub("[A-Za-z]", "ж", text) for text in texts]
    return "".join(text + place for text, place in zip(veiled, [*places, ""], strict=True))


def in_strokes(folder: Path) -> Catalogues:
    """A language that has every sentence, and no word."""
    with (LOCALES / f"{LANGUAGE}.po").open("rb") as file:
        catalogue = read_po(file, locale=LANGUAGE)
    for message in catalogue:
        if isinstance(message.id, tuple):
            one, many = message.id
            message.string = (strokes(one), *[strokes(many)] * (catalogue.num_plurals - 1))
        elif message.id:
            message.string = strokes(message.id)
    with (folder / f"{LANGUAGE}.po").open("wb") as file:
        write_po(file, catalogue)
    return Catalogues(folder)


def left_over(html: str) -> Iterator[str]:
    """What of a page can be read and is no name, each with where it stands."""
    for where, text in Said(html).texts:
        told = " ".join(text.split())
        rest = re.sub(rf"(?<![A-Za-z])({'|'.join(NAMES.values())})(?![A-Za-z])", "", told)
        if re.search("[A-Za-z]", rest) and not (where == "ol li" and told in WORDS):
            yield f"{where}: {told}"


def test_no_page_says_anything_that_is_not_translated(tmp_path: Path) -> None:
    (tmp_path / "strokes").mkdir()
    language = in_strokes(tmp_path / "strokes")
    found: dict[str, list[str]] = {}
    with nodes(tmp_path) as visits:
        for node, entered, paths in visits:
            node.serving.web.site.catalogues = language
            with node.owner() if entered else node.stranger() as browser:
                browser.cookies.set(LANGUAGE_COOKIE, LANGUAGE)
                for path in paths:
                    answer = browser.get(path, follow_redirects=True)
                    assert f'lang="{LANGUAGE}"' in answer.text, path
                    found[path] = list(left_over(answer.text))
    assert len(found) > 70
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_a_sentence_that_nobody_translated_is_seen() -> None:
    page = '<h1>жжж BY</h1><p>own line: down</p><img alt="a map"><p data-done="Sent">жжж <code>curl -v</code></p>'
    assert list(left_over(page)) == ["p: own line: down", "img alt: a map", "p data-done: Sent"]
    assert strokes("%(n)d of %(all)s sites, 5 %%") == "%(n)d жж %(all)s жжжжж, 5 %%"
