"""Pictures of every page, to look at: ``python -m tests.browser.screenshots FOLDER [--language LANGUAGE]...``.

Each page by the table of routes, with something on it, on a phone and on a laptop, light and dark, in each language
that was named (English, Russian and Persian without one); and contact sheets of them, to see many at once.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw

from outlast.edges.first_run import HOWS
from outlast.ui.page import LANGUAGE_COOKIE
from tests.browser.phone import ARGUMENTS, CHROMIUM
from tests.browser.places import NAME, filled, lived_in, overlooked
from tests.unit.edges.served import Served, served

SIZES: Final = {360: 640, 1280: 800}
LANGUAGES: Final = ("en", "ru", "fa")
SHEET_WIDTH: Final = 1560
SHEET_ROWS: Final = 2
PER_ROW: Final = {360: 6, 1280: 3}
CUT: Final = {360: 2.4, 1280: 0.95}
"""A thumbnail shows so many times its width of a long page."""


def main() -> None:
    """Take the pictures and make the sheets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", action="append", metavar="LANGUAGE")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright, nodes(Path(folder)) as visits:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for language, width, dark in product(asked.language or LANGUAGES, SIZES, (False, True)):
            name = f"{language}-{width}-{'dark' if dark else 'light'}"
            taken = list(take(browser, visits, language, width, dark, asked.folder / name))
            for number, sheet in enumerate(sheets(taken, width), 1):
                sheet.save(asked.folder / f"{name}-{number}.png")
            print(f"{name}: {len(taken)} pages", flush=True)
        browser.close()


Visit = tuple[Served, bool, Sequence[str]]
"""A node, whether one was let in there, and the pages to look at."""


@contextmanager
def nodes(folder: Path) -> Iterator[list[Visit]]:
    """Nodes in all the states that have pages of their own."""
    with (
        served(folder / "a", name="Ала", rooms=None) as node,
        served(folder / "b", name="Барыс", rooms=None) as friend,
        served(folder / "c", name=NAME, rooms=None) as other,
        served(folder / "new", name=None) as new,
        served(folder / "locked", passphrase="heron, river, stone", lan=True) as locked,
    ):
        places = [*lived_in(node, friend), *filled(node, other, folder)]
        if missed := overlooked(node, [*places, "/join/nothing"]):
            raise SystemExit(f"tests/browser/places.py leads to no page at {', '.join(missed)}")
        yield [
            (new, False, ["/"]),
            (new, True, ["/first/language", "/first/how", *(f"/first/name?how={how}" for how in HOWS)]),
            (locked, False, ["/", "/join/nothing"]),
            (node, True, list(dict.fromkeys(places))),
        ]


def take(
    browser: Any, visits: Sequence[Visit], language: str, width: int, dark: bool, folder: Path
) -> Iterator[tuple[str, Path]]:
    """Take each page, whole; what is to stand above the picture, and where it is."""
    folder.mkdir(exist_ok=True)
    for number, (node, entered, paths) in enumerate(visits):
        context = browser.new_context(
            viewport={"width": width, "height": SIZES[width]}, color_scheme="dark" if dark else "light"
        )
        context.add_cookies([{"name": LANGUAGE_COOKIE, "value": language, "url": node.url}])
        page = context.new_page()
        if entered:
            page.goto(node.serving.launch_url)
            page.wait_for_url(re.compile(r"/$|/first/"))
        for path in paths:
            page.goto(node.url + path)
            file = folder / f"{number}{re.sub(r'[^a-z0-9]+', '-', path, flags=re.IGNORECASE)}.png"
            # As high as the page: what stays at the bottom of the screen is then at the bottom of the picture.
            page.set_viewport_size({"width": width, "height": SIZES[width]})
            height = page.evaluate("document.documentElement.scrollHeight")
            page.set_viewport_size({"width": width, "height": max(SIZES[width], height)})
            page.screenshot(path=file)
            yield path, file
        context.close()


def sheets(taken: Sequence[tuple[str, Path]], width: int) -> Iterator[Image.Image]:
    """Contact sheets, each picture under the address of its page; long ones are cut."""
    across = PER_ROW[width]
    wide = SHEET_WIDTH // across
    high = int(wide * CUT[width])
    for first in range(0, len(taken), across * SHEET_ROWS):
        sheet = Image.new("RGB", (SHEET_WIDTH, SHEET_ROWS * (high + 20)), "gray")
        for place, (title, file) in enumerate(taken[first : first + across * SHEET_ROWS]):
            x, y = place % across * wide, place // across * (high + 20)
            with Image.open(file) as picture:
                small = picture.convert("RGB").resize((wide - 6, picture.height * (wide - 6) // picture.width))
            ImageDraw.Draw(sheet).text((x + 3, y + 4), title[: wide // 6], "white")
            sheet.paste(small.crop((0, 0, wide - 6, min(small.height, high))), (x + 3, y + 20))
        yield sheet


if __name__ == "__main__":
    main()
