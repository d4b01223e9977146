"""Every page fits a small phone, in both themes and both directions of writing; each target can be hit, and axe-core
finds nothing that would keep somebody from using it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outlast.edges import pages
from outlast.edges.first_run import HOWS
from outlast.rooms.carry import service
from outlast.ui.languages import Catalogues
from tests.browser.phone import Album, Phone, phone
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial

NAME = "Somebody-with-a-name-that-has-no-place-to-break"
SMALL = """() => [...document.querySelectorAll(
    "a.button, a.card, button, nav a, .top a, .list a, .actions a, input, select, textarea, summary")]
    .filter(e => e.type !== "hidden" && !["radio", "checkbox"].includes(e.type) && e.checkVisibility())
    .filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML.slice(0, 80))"""


def filled(node: Served, other: Served) -> list[str]:
    """Put something on every page; all addresses that a person can look at."""
    contact = node.run(node.person.add_contact(other.run(other.person.link())))
    node.run(service.send(node.node, node.person, contact.identity, "x" * 300))
    node.run(node.person.renew())
    channel = node.run(service.create_channel(node.node, node.person, NAME))
    node.run(service.post(node.node, node.person, channel.space, "Вода и хлеб " * 20))
    node.run(node.node.peer_add(other.node.transport_id, "a-host-name-without-end." * 5 + "example", 8485))
    plain = [route.path for route in pages.routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    rooms = [
        "/carry/",
        "/carry/search",
        "/carry/channels",
        f"/carry/with/{contact.id}",
        f"/carry/channels/{channel.id}",
    ]
    topics = [f"/help/{topic}" for topic in pages.HELP]
    return [*(path for path in plain if path != "/events"), *rooms, *topics, f"/people/{contact.id}", "/nowhere"]


@pytest.mark.parametrize(
    ("language", "dark"), [("en", False), ("en", True), ("fa", False)], ids=["light", "dark", "rtl"]
)
def test_every_page_fits(chromium: Any, album: Album, tmp_path: Path, language: str, dark: bool) -> None:
    (tmp_path / "fa.po").write_text('msgid "Home"\nmsgstr "خانه"\n', encoding="utf-8")
    with served(tmp_path / "a", rooms=None) as node, served(tmp_path / "b", name=NAME, rooms=None) as other:
        node.serving.web.site.catalogues = Catalogues(tmp_path)
        places = filled(node, other)
        with phone(chromium, album, language, node.url, dark=dark) as page:
            page.enter(node.serving.launch_url)
            page.go("/settings")
            page.page.locator(f"button[name=language][value={language}]").click()
            page.page.wait_for_load_state("load")
            for path in places:
                page.go(path)
                page.shot(path)
                assert page.page.evaluate(SMALL) == [], path
                assert page.barriers() == [], path
            page.page.evaluate("document.documentElement.removeAttribute('lang')")
            assert page.barriers(), "axe-core looks"
            page.page.set_viewport_size({"width": 320, "height": 568})
            for path in places:
                page.go(path)
                assert page.page.evaluate("document.documentElement.scrollWidth") <= 320, path


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
