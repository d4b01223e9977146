"""Open pages go on by themselves: a lost phone's goes blank, a locked node's asks, and what is typed is never lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel import id_text
from outlast.rooms.carry import places, service
from outlast.rooms.carry.entries import LETTER_TEXT_MAX_BYTES
from tests.browser.fit import speak, unreachable
from tests.browser.phone import WAIT_MS, Album, Phone, phone
from tests.e2e.program import Program
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial

PASSPHRASE = "heron, river, stone"
VERAS = "lamp, winter, ferry"


def test_a_lost_phone_s_open_page_stops_showing_anything(chromium: Any, album: Album, tmp_path: Path) -> None:
    with served(tmp_path / "home", name="Ala", rooms=None) as node, node.phone("lost one") as joined:
        name = f"outlast-{node.serving.port}"
        with phone(chromium, album, "phone", node.lan_url) as found, node.owner() as owner:
            cookie = {"name": name, "value": joined.cookies[name], "url": node.lan_url}
            found.page.context.add_cookies([cookie])
            found.go("/")
            found.sees("Hello, Ala")
            session = node.serving.web.sessions.phones(node.person.key)[0]
            owner.submit("/phones/lost", phone=session.digest.hex())
            found.sees("This phone has not joined yet")
            found.shot("shut out")


def test_a_page_asks_for_the_passphrase_when_the_node_is_locked_elsewhere(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with (
        served(tmp_path / "home", name="Ala", passphrase=PASSPHRASE, rooms=None) as node,
        phone(chromium, album, "Ala", node.url) as page,
    ):
        page.enter(node.serving.launch_url)
        page.fill("Passphrase", PASSPHRASE)
        page.click("Unlock")
        page.sees("Hello, Ala")
        node.run(node.node.lock())
        page.page.get_by_label("Passphrase").wait_for(timeout=WAIT_MS)
        page.shot("locked")


def test_what_was_typed_stays_when_the_node_is_gone_and_nothing_is_sent_twice(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    link = link_of(tmp_path / "b", "Boris")
    program = Program(tmp_path / "a")
    program.json("init", "--name", "Ala", "--unattended")
    program.json("contact", "add", link)
    with program.up("--no-lan") as node, phone(chromium, album, "Ala", f"http://localhost:{node.port}") as page:
        page.enter(node.at["page"])
        page.go("/carry/")
        page.page.get_by_role("link", name="Boris").click()
        page.write("Boris", "first")
        page.fill("Message", "second, a long one")
        node.end(signal.SIGTERM)
        page.page.get_by_role("button", name="Send").click()
        page.sees("The node did not answer. What you sent may not have arrived: try again.", where="body")
        assert page.page.get_by_label("Message").input_value() == "second, a long one"
        page.shot("node is gone")
    assert [letter["text"] for letter in program.json("carry", "sent")] == ["first"]


@contextmanager
def writing(chromium: Any, album: Album, folder: Path, *, js: bool) -> Iterator[tuple[Served, Phone]]:
    """Ala's node, under a passphrase, and her page of the letters to Boris."""
    with served(folder / "b", name="Boris", rooms=None) as b:
        link, boris = b.run(b.person.link()), id_text(b.person.identity)
    with (
        served(folder / "a", name="Ala", passphrase=PASSPHRASE, rooms=None) as node,
        phone(chromium, album, "Ala", node.url, js=js) as page,
    ):
        node.run(node.run(node.node.unlock(PASSPHRASE)).add_contact(link))
        page.enter(node.serving.launch_url)
        page.go(f"/carry/with/{boris}")
        yield node, page


@pytest.mark.parametrize("js", [True, False])
def test_what_was_typed_stands_on_the_page_that_says_that_one_is_shut_out(
    chromium: Any, album: Album, tmp_path: Path, js: bool
) -> None:
    with writing(chromium, album, tmp_path, js=js) as (node, page):
        page.fill("Message", "typed a moment before")
        node.run(node.node.lock())
        if not js:
            page.click("Send")
        page.page.get_by_label("Passphrase").wait_for(timeout=WAIT_MS)
        assert page.page.get_by_label("What you wrote").input_value() == "typed a moment before"
        page.shot("typed and locked")
        page.fill("Passphrase", PASSPHRASE)
        page.click("Unlock")
        page.sees("Hello, Ala")


def test_a_file_that_is_sent_from_a_locked_node_does_not_claim_to_go_on_by_itself(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("what was seen")
    with writing(chromium, album, tmp_path, js=True) as (node, page):
        page.page.route("**/events*", lambda route: route.abort())  # nothing tells it before it sends
        page.click("File")
        page.page.get_by_label("Any file").set_input_files(tmp_path / "notes.txt")
        node.run(node.node.lock())
        page.click("Send")
        page.page.get_by_label("Passphrase").wait_for(timeout=WAIT_MS)


def test_an_answer_that_is_no_page_of_ours_takes_nothing_away(chromium: Any, album: Album, tmp_path: Path) -> None:
    with writing(chromium, album, tmp_path, js=True) as (_node, page):
        page.page.route("**/carry/with/*", lambda route: route.fulfill(status=503, body="Service Unavailable"))
        page.fill("Message", "a long thought")
        page.click("Send")
        page.sees("The node did not answer. What you sent may not have arrived: try again.", where="body")
        assert page.page.get_by_label("Message").input_value() == "a long thought"


def test_a_file_that_is_sent_shows_how_much_has_left_and_then_what_came_of_it(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    file = tmp_path / "no bundle"
    file.write_bytes(bytes(2_000_000))
    with (
        served(tmp_path / "home", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url) as page,
    ):
        page.enter(node.serving.launch_url)
        page.go("/stick")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
        page.page.context.new_cdp_session(page.page).send("Network.emulateNetworkConditions", slow)
        page.page.get_by_label("File from the stick or phone").set_input_files(file)
        page.page.get_by_role("button", name="Read it").click()
        page.page.locator("progress[value]").wait_for(timeout=WAIT_MS)
        page.shot("file leaving")
        page.sees("This file is no bundle")
        assert page.page.locator("progress").count() == 0


@pytest.mark.parametrize("has_them_too", [True, False])
def test_a_page_that_one_left_open_shows_and_says_nothing_once_another_has_unlocked_in_the_same_browser(
    chromium: Any, album: Album, tmp_path: Path, has_them_too: bool
) -> None:
    with writing(chromium, album, tmp_path, js=True) as (node, page):
        page.go("/settings")
        page.click("Lock now")
        page.fill("Passphrase", PASSPHRASE)
        page.click("Unlock")
        page.sees("Hello, Ala")
        ala = node.person
        vera = node.run(node.node.add_person("Vera", VERAS))
        [boris] = ala.contacts()
        node.run(service.send(node.node, ala, boris.identity, "only for Boris"))
        if has_them_too:
            node.run(vera.add_contact(link_of(tmp_path / "b", "Boris")))
        left = page.page.context.new_page()
        left.route("**/events*", lambda route: route.abort())  # one of many: it has no stream
        left.goto(f"{node.url}/carry/with/{boris.id}")
        left.get_by_label("Message").fill("typed by Ala")
        page.go("/settings")
        page.click("Lock now")
        page.fill("Passphrase", VERAS)
        page.click("Unlock")
        page.sees("Hello, Vera")
        with left.expect_navigation(wait_until="load"):
            left.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        assert "only for Boris" not in left.content()
        assert left.get_by_label("What you wrote").input_value() == "typed by Ala"
        assert places.drafts(vera) == set()


# ---- slow and broken connections ----


def texts(node: Served) -> list[str]:
    return [one.text for one in service.sent(node.person)]


@pytest.mark.parametrize("js", [True, False])
def test_what_is_sent_again_because_no_answer_came_is_sent_once(
    chromium: Any, album: Album, tmp_path: Path, js: bool
) -> None:
    with writing(chromium, album, tmp_path, js=js) as (node, page):
        form = "**/carry/with/*"

        def cut(route: Any) -> None:
            if route.request.method != "POST":
                route.continue_()
                return
            route.fetch(max_redirects=0)  # it arrives, and its answer does not
            route.abort("connectionreset")

        page.page.route(form, cut)
        page.fill("Message", "the bridge is closed")
        send = page.page.get_by_role("button", name="Send")
        if js:
            send.click()
            page.sees("What you sent may not have arrived", where="form.composer")
            page.shot("cut")
            page.page.unroute(form)
            send.click()
            page.sees("the bridge is closed", where=".bubble")
            assert page.page.locator("#away").count() == 0
        else:
            with page.page.expect_event("requestfailed"):
                send.click(no_wait_after=True)
            page.page.unroute(form)
            page.page.reload()
        assert texts(node) == ["the bridge is closed"]


def test_what_is_typed_while_a_message_is_on_its_way_to_the_node_stays(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with writing(chromium, album, tmp_path, js=True) as (node, page):
        held: list[Any] = []

        def hold(route: Any) -> None:
            if held or route.request.method != "POST":
                route.continue_()
            else:
                held.append(route)

        page.page.route("**/carry/with/*", hold)
        page.fill("Message", "first")
        with page.page.expect_request(lambda request: request.method == "POST"):
            page.page.get_by_role("button", name="Send").click()
        page.fill("Message", "second, begun already")
        held[0].continue_()
        page.sees("first", where=".bubble")
        assert page.page.get_by_label("Message").input_value() == "second, begun already"
        page.page.get_by_role("button", name="Send").click()
        page.sees("second, begun already", where=".bubble")
        assert sorted(texts(node)) == ["first", "second, begun already"]


def test_the_same_words_are_sent_as_often_as_somebody_sends_them(chromium: Any, album: Album, tmp_path: Path) -> None:
    with writing(chromium, album, tmp_path, js=True) as (node, page):
        for count in (1, 2, 3):
            page.fill("Message", "ok")
            page.click("Send")
            page.page.wait_for_function("n => document.querySelectorAll('.bubble').length === n", arg=count)
        assert texts(node) == ["ok"] * 3


def test_why_something_was_not_sent_stands_where_one_looks_on_the_smallest_screen(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with writing(chromium, album, tmp_path, js=True) as (node, page):
        peer = node.person.contacts()[0].identity
        for number in range(12):
            node.run(service.send(node.node, node.person, peer, f"letter {number}, which is read above"))
        page.page.reload()
        page.page.evaluate("document.querySelector('textarea').removeAttribute('maxlength')")
        page.fill("Message", "x" * (LETTER_TEXT_MAX_BYTES + 1))
        page.click("Send")
        page.page.get_by_role("alert").wait_for(timeout=WAIT_MS)
        page.shot("refused")
        assert page.page.get_by_role("alert").evaluate(UNCOVERED)
        page.page.evaluate("scrollTo(0, 0)")
        assert page.page.get_by_role("alert").evaluate(UNCOVERED)
        page.page.reload()
        assert unreachable(page) == [], "what has the focus never stands under the form"


UNCOVERED = """line => { const at = line.getBoundingClientRect();
    return [at.top + 4, at.bottom - 4].every(y => line.contains(document.elementFromPoint(at.left + 20, y))) }"""


# ---- several pages of one browser ----


def test_a_node_answers_a_browser_that_has_many_pages_open_and_keeps_each_up_to_date(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with (
        served(tmp_path / "home", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url) as first,
    ):
        first.enter(node.serving.launch_url)
        others = [first.page.context.new_page() for _ in range(8)]
        for page in others:
            page.goto(f"{node.url}/people", timeout=WAIT_MS)
        node.run(node.person.add_contact(link_of(tmp_path / "b", "Boris")))
        for page in (others[0], others[-1]):
            page.get_by_role("main").get_by_text("Boris").wait_for(timeout=2 * WAIT_MS)


def test_an_open_page_goes_on_in_its_language_when_another_one_is_chosen_beside_it(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with (
        served(tmp_path / "home", name="Ala", rooms=None) as node,
        phone(chromium, album, "Ala", node.url) as page,
    ):
        page.enter(node.serving.launch_url)
        page.go("/people")
        speak(page, "fa")
        node.run(node.person.add_contact(link_of(tmp_path / "b", "Boris")))
        page.sees("Boris")
        assert page.page.get_by_role("navigation").get_by_role("link", name="People").count() == 1
        page.go("/people")
        assert page.page.evaluate("document.dir") == "rtl"


def link_of(folder: Path, name: str) -> str:
    with served(folder, name=name, rooms=None) as node:
        return node.run(node.person.link())
