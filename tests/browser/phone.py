"""What people do with a phone-sized browser: open a node's page, join it, write, carry a file, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PHONE = {"width": 360, "height": 640}
WAIT_MS = 20_000


@cache
def axe_core() -> str:
    """The script of axe-core, as the package for Python brings it."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@dataclass
class Album:
    """Numbered pictures of one test."""

    folder: Path
    name: str
    taken: int = 0

    def take(self, page: Any, title: str) -> None:
        """A picture of what the phone shows, after a look whether it fits the screen."""
        self.taken += 1
        name = re.sub(r"\W+", "-", f"{self.name} {self.taken:02} {title}").strip("-")
        page.screenshot(path=self.folder / f"{name}.png")


@dataclass
class Phone:
    """One browser context at one node. ``who`` names it in pictures."""

    page: Any
    who: str
    album: Album
    js: bool
    url: str
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page of the node."""
        self.page.goto(self.url + path)

    def click(self, name: str) -> None:
        """Press a button or a link by what it says, and wait for the page that follows."""
        button = self.page.get_by_role("button", name=name, exact=True)
        button.or_(self.page.get_by_role("link", name=name, exact=True)).first.click()
        self.page.wait_for_load_state("load")

    def fill(self, label: str, text: str) -> None:
        """Type into the field with that label."""
        self.page.get_by_label(re.compile(f"^{re.escape(label)}")).fill(text)

    def sees(self, text: str, *, where: str = "main") -> None:
        """Wait until the page shows ``text``; without JavaScript the person looks again."""
        found = self.page.locator(where).get_by_text(text).first
        if not self.js and not found.is_visible():
            self.page.reload()
        found.wait_for(state="visible", timeout=WAIT_MS)

    def shot(self, title: str) -> None:
        """Take a picture. Nothing may be wider than the screen."""
        self.album.take(self.page, f"{self.who} {title}")
        if self.js:
            width = self.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], f"{self.page.url} is {width} pixels wide"

    def barriers(self, *rules: str) -> list[str]:
        """What axe-core finds on the page that would keep somebody from using it, a line for each place.

        By all its rules, or by those that are named.
        """
        self.page.evaluate(axe_core())
        found = self.page.evaluate(
            "rules => axe.run(rules.length ? {runOnly: rules} : {}).then(told => told.violations)", list(rules)
        )
        return [f"{one['id']}: {place['html'][:120]}" for one in found for place in one["nodes"]]

    # ---- what people do ----

    def enter(self, launch_url: str) -> None:
        """Open the link from the terminal."""
        self.page.goto(launch_url)
        if not self.js:
            self.click("Open Outlast")
        self.page.wait_for_url(re.compile(r"/$|/first/"))

    def set_up(self, name: str) -> None:
        """Go through the first run, unattended."""
        self.click("English")
        self.page.get_by_role("link", name="I am new here").click()
        self.fill("Name", name)
        self.page.locator("[name=protection][value=unattended]").check()
        self.shot("first run name")
        self.click("Go on")
        self.sees("This is you")
        self.shot("first run words")
        self.click("Go on")
        self.shot("first run phone")
        self.click("Done")
        self.sees(f"Hello, {name}")

    def link(self) -> str:
        """The own contact link, as the page shows it."""
        self.go("/people")
        self.click("My link")
        return str(self.page.get_by_label("Link to copy").input_value())

    def add(self, link: str, name: str) -> None:
        """Add somebody by their link, and compare the six words."""
        self.go("/people/add")
        self.fill("Link", link)
        self.click("Add from the link")
        self.sees(name)
        self.click("The words are the same")
        self.sees("Verified.")

    def open_conversation(self, name: str) -> None:
        """Open the letters with somebody."""
        self.go("/carry/")
        self.page.locator("main li a", has_text=name).first.click()
        self.page.get_by_role("heading", name=name).wait_for()

    def write(self, name: str, text: str) -> None:
        """Write somebody a letter."""
        self.open_conversation(name)
        self.fill("Message", text)
        self.click("Send")
        self.sees(text)

    def save_file(self, name: str, folder: Path) -> Path:
        """Save the bundle for somebody into a folder: the stick, or the phone's downloads."""
        self.go("/stick")
        self.page.locator("select[name=to]").select_option(label=name)
        self.shot("file to take along")
        with self.page.expect_download() as waiting:
            self.page.get_by_role("button", name="Save the file").click()
        file = folder / waiting.value.suggested_filename
        waiting.value.save_as(file)
        return file

    def hand_in(self, file: Path) -> None:
        """Hand in a file that arrived."""
        self.go("/stick")
        self.page.get_by_label("File from the stick or phone").set_input_files(file)
        self.click("Read it")
        self.sees("Read. What it brought stands below.")
        self.shot("file handed in")

    def mark_read(self) -> None:
        """Say that the letters on the page were read; with JavaScript the page does it."""
        if not self.js:
            self.click("Mark as read")
        self.page.get_by_role("button", name="Mark as read").wait_for(state="detached", timeout=WAIT_MS)


@contextmanager
def phone(chromium: Any, album: Album, who: str, url: str, *, js: bool = True, dark: bool = False) -> Iterator[Phone]:
    """A phone-sized browser context. Errors of scripts and of the policy fail the test."""
    context = chromium.new_context(
        viewport=PHONE, java_script_enabled=js, accept_downloads=True, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    made = Phone(page, who, album, js, url)
    page.on("pageerror", lambda error: made.problems.append(str(error)))
    page.on("console", lambda line: made.problems.append(line.text) if "Content Security" in line.text else None)
    try:
        yield made
    finally:
        context.close()
    assert not made.problems
