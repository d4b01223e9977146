"""Every page fits a small phone, in each language and both themes, can be used by keyboard and at twice the size of
text; each target can be hit, and axe-core finds nothing that would keep somebody from using it. What differs between
languages and themes is looked at here; all of it in each of them in ``tests/soak/test_pages.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.first_run import HOWS
from tests.browser.fit import NARROWEST, SMALL, magnified, skips, speak, too_wide, unreachable
from tests.browser.phone import Album, Phone, phone
from tests.browser.places import NAME, filled, overlooked
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial

LONG = ("de", "fa", "ru")
"""Of the languages, those with long words, and one from right to left."""
BY_KEYBOARD = ("/", "/more", "/people", "/people/add", "/carry/", "/settings", "/backup", "/stick", "/watch/", "/help")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, list[str]]]:
    """A node with something on every page, and where all its pages are."""
    folder = tmp_path_factory.mktemp("home")
    with (
        served(folder / "a", rooms=None) as node,
        served(folder / "b", name=NAME, rooms=None) as other,
    ):
        yield node, filled(node, other, folder)


def test_no_page_is_overlooked(home: tuple[Served, list[str]]) -> None:
    node, places = home
    assert overlooked(node, [*places, "/join/nothing"]) == [], "pages at which nobody looks"


def test_every_page_fits_and_axe_finds_nothing(chromium: Any, album: Album, home: tuple[Served, list[str]]) -> None:
    node, places = home
    with phone(chromium, album, "light", node.url) as page:
        page.enter(node.serving.launch_url)
        for path in places:
            page.go(path)
            page.shot(path)
            assert page.page.evaluate(SMALL) == [], path
            assert page.barriers() == [], path
            page.page.emulate_media(color_scheme="dark")
            assert page.barriers("color-contrast") == [], f"{path} in the dark"
            page.page.emulate_media(color_scheme="light")
        page.go("/backup")
        page.page.locator("form[action='/backup/shares'] button").click()
        page.page.wait_for_load_state("load")
        page.shot("/backup/shares")
        assert page.page.locator(".sheet").count() == 3
        assert page.barriers() == []
        page.page.evaluate("document.documentElement.removeAttribute('lang')")
        assert page.barriers(), "axe-core looks"
        page.page.emulate_media(color_scheme="dark")
        page.page.evaluate("document.querySelector('h1').style.color = '#223'")
        assert page.barriers("color-contrast"), "it looks at the theme that is shown"


@pytest.mark.parametrize("language", LONG)
def test_every_page_fits_the_narrowest_screen_and_text_of_twice_the_size(
    chromium: Any, album: Album, home: tuple[Served, list[str]], language: str
) -> None:
    node, places = home
    wrong: dict[str, list[str]] = {}
    with phone(chromium, album, language, node.url) as page:
        page.enter(node.serving.launch_url)
        speak(page, language)
        page.page.set_viewport_size({"width": NARROWEST, "height": 568})
        for path in places:
            page.go(path)
            wrong[path] = [*too_wide(page), *magnified(page)]
        html = page.page.locator("html")
        assert html.get_attribute("lang") == language
        assert html.get_attribute("dir") == ("rtl" if language == "fa" else "ltr")
        page.page.evaluate("document.querySelector('h1').style.overflow = 'hidden'")
        page.page.evaluate("document.querySelector('h1').style.blockSize = '1rem'")
        assert magnified(page), "what is cut off is seen"
    assert {path: found for path, found in wrong.items() if found} == {}


def test_everything_is_reached_by_keyboard_in_reading_order(
    chromium: Any, album: Album, home: tuple[Served, list[str]]
) -> None:
    node, places = home
    talk = [path for path in places if path.startswith(("/carry/with/", "/carry/channels/", "/carry/groups/"))]
    with phone(chromium, album, "keys", node.url) as page:
        page.enter(node.serving.launch_url)
        for path in (*BY_KEYBOARD, *talk):
            page.go(path)
            assert unreachable(page) == [], path
        page.go("/people")
        assert skips(page)
        page.page.evaluate("document.querySelector('main a').tabIndex = -1")
        page.page.evaluate("document.querySelector('.top a').tabIndex = 7")
        assert unreachable(page), "the keyboard is tried"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_pages_before_anybody_is_let_in_fit_too(chromium: Any, album: Album, tmp_path: Path, dark: bool) -> None:
    def look(page: Phone, *paths: str) -> None:
        for path in paths:
            page.go(path)
            page.shot(path)
            assert page.page.evaluate(SMALL) == [], path
            assert page.barriers() == [], path

    with served(tmp_path / "new", name=None) as node, phone(chromium, album, "new", node.url, dark=dark) as page:
        look(page, "/")
        page.enter(node.serving.launch_url)
        look(page, "/first/how", *(f"/first/name?how={how}" for how in HOWS))
    with served(tmp_path / "a", passphrase="heron, river, stone", lan=True) as node:
        with phone(chromium, album, "guest", node.lan_url, dark=dark) as page:
            look(page, "/", "/join/nothing")
        with phone(chromium, album, "host", node.url, dark=dark) as page:
            look(page, "/")
            page.enter(node.serving.launch_url)
            look(page, "/")
