"""What a screen reader needs of a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Outline(HTMLParser):
    """What a screen reader needs of a page: language, headings, labels, names of links and buttons."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.unnamed: list[str] = []
        self.labels = 0
        self._open: list[tuple[str, dict[str, str | None], str]] = []
        self.lang = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "html":
            self.lang = str(found.get("lang"))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "label":
            self.labels += 1
        fields = ("input", "textarea", "select")
        if (
            tag in fields
            and found.get("type") not in ("hidden", "submit")
            and not self.labels
            and "aria-label" not in found
        ):
            self.unnamed.append(f"{tag} {found}")
        if tag == "svg" and found.get("aria-hidden") != "true" and "aria-label" not in found:
            self.unnamed.append("svg")
        if tag in ("a", "button", "h1", "h2"):
            self._open.append((tag, found, ""))

    def handle_data(self, data: str) -> None:
        self._open = [(tag, found, text + data) for tag, found, text in self._open]

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self.labels -= 1
        if self._open and self._open[-1][0] == tag:
            name, found, text = self._open.pop()
            if not text.strip() and "aria-label" not in found:
                self.unnamed.append(f"{name} {found}")

    def faults(self) -> list[str]:
        """What is wrong with the page; nothing, one hopes."""
        found = [f"no name: {one}" for one in self.unnamed]
        if self.headings[:1] != [1] or self.headings.count(1) != 1:
            found.append(f"not one first heading: {self.headings}")
        if any(b - a > 1 for a, b in zip(self.headings, self.headings[1:], strict=False)):
            found.append(f"a heading skips a level: {self.headings}")
        if len(self.ids) != len(set(self.ids)):
            found.append(f"an id stands twice: {self.ids}")
        if not self.lang:
            found.append("no language")
        return found
