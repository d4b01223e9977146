"""Every page fits a small phone, in both themes and both directions of writing; each target can be hit, and axe-core
finds nothing that would keep somebody from using it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outlast.address import Target
from outlast.edges import pages
from outlast.edges.first_run import HOWS
from outlast.edges.web import room_routes
from outlast.rooms.carry import groups, service
from outlast.rooms.reach import service as reach
from outlast.rooms.reach import uplinks
from outlast.rooms.reach.entries import Uplink
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.serving import Served as OwnBridge
from outlast.rooms.reach.view import Borrowed, Want, borrowed_row, bridge_row, want_row
from outlast.rooms.reach.web import routes as reach_routes
from outlast.rooms.watch import service as watch
from outlast.rooms.watch.view import Measured
from outlast.rooms.watch.web import routes as watch_routes
from tests.browser.phone import Album, Phone, phone
from tests.unit.edges.served import Served, served
from tests.unit.edges.spread.test_get import hand_on

pytestmark = pytest.mark.serial

NAME = "Somebody-with-a-name-that-has-no-place-to-break"
SMALL = """() => [...document.querySelectorAll(
    "a.button, a.card, button, nav a, .top a, .list a, .actions a, input, select, textarea, summary")]
    .filter(e => e.type !== "hidden" && !["radio", "checkbox"].includes(e.type) && e.checkVisibility())
    .filter(e => e.getBoundingClientRect().height < 44).map(e => e.outerHTML.slice(0, 80))"""

NO_PAGES = {
    "/carry/files/{file}/picture",
    "/carry/files/{file}/play",
    "/carry/files/{file}/save",
    "/carry/files/{file}/small",
    "/carry/waiting/{upload}",
    "/events",
    "/get/wheels/{name}",
    "/get/{name}",
    "/static/{digest}/{name}",
    "/watch/country/{code}/report",
    "/watch/go",
}
"""Where a browser gets something else than a page to look at: streams, files, answers to a script."""


def overlooked(node: Served, places: Iterable[str]) -> list[str]:
    """The pages by the routes of the program and its rooms at which none of the places leads."""
    routes = [*pages.routes(), *room_routes(node.serving.web.site)]
    named = {route.path: route.path_regex for route in routes if "GET" in (route.methods or ())}
    paths = [place.partition("?")[0] for place in places]
    return [path for path, form in named.items() if path not in NO_PAGES and not any(map(form.match, paths))]


def filled(node: Served, other: Served, folder: Path) -> list[str]:
    """Put something on every page; all addresses that a person can look at."""
    hand_on(node, folder)
    contact = node.run(node.person.add_contact(other.run(other.person.link())))
    node.run(service.send(node.node, node.person, contact.identity, "x" * 300))
    node.run(node.person.renew())
    channel = node.run(service.create_channel(node.node, node.person, NAME))
    node.run(service.post(node.node, node.person, channel.space, "Вода и хлеб " * 20))
    node.run(node.node.peer_add(other.node.transport_id, "a-host-name-without-end." * 5 + "example", 8485))
    group = node.run(groups.create(node.node, node.person, NAME, [contact.identity]))
    node.run(groups.post(node.node, node.person, group.space, "Хто прынясе муку? " * 20))
    plain = [route.path for route in pages.routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    rooms = [
        "/carry/",
        "/carry/search",
        "/carry/channels",
        "/carry/files",
        "/carry/notices",
        f"/carry/with/{contact.id}/files",
        f"/carry/with/{contact.id}",
        f"/carry/channels/{channel.id}",
        "/carry/groups/new",
        f"/carry/groups/{group.id}",
        f"/carry/groups/{group.id}/members",
    ]
    seen = [*watched(node), *ways_out(node)]
    topics = [f"/help/{topic}" for topic in pages.HELP]
    return [*(path for path in plain if path != "/events"), *rooms, *seen, *topics, f"/people/{contact.id}", "/nowhere"]


def watched(node: Served) -> list[str]:
    """Put something on every page of watch: signals with an outage that lasts, a blocked site, a line cut abroad."""
    now_s = node.node.now_ms() // 1_800_000 * 1800
    rows = ["Time (UTC),Google (Search),A-signal-with-a-name-that-has-no-place-to-break-at-all"]
    for number in range(-6 * 48, 0):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s + number * 1800))
        rows.append(f"{at},{3 if number > -12 else ['90', '95', '100', ''][number % 4]},{40 + number % 9}")
    node.run(watch.consent(node.node, True))
    node.run(watch.set_place(node.node, node.person, "BY", 6697))
    node.run(watch.set_controls(node.node, node.person, ["www.example.by"], ["www.example.org"]))
    node.run(watch.found_channel(node.node, node.person, NAME))
    node.run(watch.read_series(node.node, node.person, "\n".join(rows).encode(), "ioda.csv", "BY"))
    node.run(watch.note_link(node.node, node.person, True, True, False))
    blocked = Measured(
        None, None, 0, now_s, "web_connectivity", "https://example.org/" + "x" * 200, "BY", 6697, "dns", False,
        "blocked", "ok", "down", "unknown", "ok", "a-block-page", "outlast", 0,
    )  # fmt: skip
    node.run(watch.keep(node.node, node.person, blocked, b"{}"))
    cut = watch.outages(node.node, node.person)[0]
    cost = "/watch/cost?country=BY&days=1&year=2019&reported=56400000"
    plain = [route.path for route in watch_routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    plain.remove("/watch/go")
    return [*plain, cost, "/watch/country/BY", "/watch/country/AF", f"/watch/outage/BY/{cut.start_s}"]


def ways_out(node: Served) -> list[str]:
    """Put something on every page of reach: bridges, a request, lines lent and borrowed, a served bridge."""
    contact = node.person.contacts()[0].identity
    at = Target("a-host-name-without-end." * 3 + "example", 443)
    bridge = WebBridge(at, "www.example.org", bytes(32), label=NAME)
    held = node.run(reach.add_bridge(node.node, node.person, write_bridge(bridge)))
    offer = Uplink(bytes(16), ("192.168.1.7",), 8388, bytes(32), 5_000_000, True, node.call(node.node.today) + 9)
    rows = [
        want_row(Want(bytes(16), contact, False, b"", None, False, False, node.call(node.node.now_ms))),
        borrowed_row(Borrowed(contact, offer, False, b"")),
        bridge_row(replace(held, id="f" * 16, peer=contact, number=bytes(16), failing_ms=1, outcome="freeze")),
    ]
    node.run(reach.remember(node.node, node.person, rows))
    node.run(uplinks.lend(node.node, node.person, contact, day_bytes=3_000_000))
    node.run(reach.serve(node.node, node.person, OwnBridge("ss", "127.0.0.1:8388", at, label=NAME)))
    plain = [route.path for route in reach_routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    return [*plain, f"/reach/bridge/{held.id}"]


@pytest.mark.parametrize(
    ("language", "dark"), [("en", False), ("en", True), ("fa", False)], ids=["light", "dark", "rtl"]
)
def test_every_page_fits(chromium: Any, album: Album, tmp_path: Path, language: str, dark: bool) -> None:
    with served(tmp_path / "a", rooms=None) as node, served(tmp_path / "b", name=NAME, rooms=None) as other:
        places = filled(node, other, tmp_path)
        assert overlooked(node, [*places, "/join/nothing"]) == [], "pages at which nobody looks"
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
            page.go("/backup")
            page.page.locator("form[action='/backup/shares'] button").click()
            page.page.wait_for_load_state("load")
            page.shot("/backup/shares")
            assert page.page.locator(".sheet").count() == 3
            assert page.barriers() == []
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
