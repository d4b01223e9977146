"""What open pages do for who talks: they keep what is typed, and tell of what comes without a word of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from outlast.kernel import id_text
from outlast.rooms.carry import places, service
from tests.browser.fit import speak
from tests.browser.phone import WAIT_MS, Album, phone
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial


def bring(start: Served, end: Served, text: str) -> None:
    """A letter comes by stick."""
    start.run(service.send(start.node, start.person, end.person.identity, text))
    stick = io.BytesIO()
    start.run(start.person.bundle_left(start.run(start.person.write_bundle(stick, to=end.person.identity))))
    stick.seek(0)
    end.run(end.person.read_bundle(stick))


def test_a_page_keeps_drafts_and_tells_of_what_comes(chromium: Any, album: Album, tmp_path: Path) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as ala, served(tmp_path / "b", name="Bo", rooms=None) as bo:
        bo.run(bo.person.add_contact(ala.run(ala.person.link())))
        ala.run(ala.person.add_contact(bo.run(bo.person.link())))
        with phone(chromium, album, "Ala", ala.url) as open_page:
            open_page.enter(ala.serving.launch_url)
            page = open_page.page
            open_page.go("/people")
            bring(bo, ala, "Nobody may see this here")
            page.get_by_text("1 new message").wait_for(timeout=WAIT_MS)
            assert page.title().startswith("(1) ")
            assert "Nobody may see this here" not in page.content()

            talk = f"/carry/with/{id_text(bo.person.identity)}"
            open_page.go(talk)
            with page.expect_response(lambda answer: answer.url.endswith("/draft")) as saved:
                page.fill("textarea[name=text]", "half a thought")
            assert saved.value.status == 204
            open_page.go(talk)
            assert page.input_value("textarea[name=text]") == "half a thought"
            page.click("form.composer button")
            page.locator(".bubble.mine").get_by_text("half a thought").wait_for(timeout=WAIT_MS)
            assert page.input_value("textarea[name=text]") == ""
            assert places.find(ala.person, bo.person.identity).draft == ""


def test_a_page_counts_in_its_own_digits_and_reads_what_came_meanwhile_once_somebody_looks_at_it(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as ala, served(tmp_path / "b", name="Bo", rooms=None) as bo:
        bo.run(bo.person.add_contact(ala.run(ala.person.link())))
        ala.run(ala.person.add_contact(bo.run(bo.person.link())))
        bring(bo, ala, "one")
        with phone(chromium, album, "Ala", ala.url) as open_page:
            open_page.enter(ala.serving.launch_url)
            speak(open_page, "fa")
            page = open_page.page
            page.add_init_script(
                "let away = true; Object.defineProperty(document, 'hidden', { get: () => away });"
                "look = () => { away = false; document.dispatchEvent(new Event('visibilitychange')); }"
            )
            open_page.go(f"/carry/with/{id_text(bo.person.identity)}")
            bare = page.title().removeprefix("(۱) ")
            assert bare != page.title()
            bring(bo, ala, "two")
            page.locator(".bubble").get_by_text("two").wait_for(timeout=WAIT_MS)
            assert page.title() == f"(۲) {bare}"
            page.evaluate("look()")
            page.wait_for_function("bare => document.title === bare", arg=bare, timeout=WAIT_MS)
            assert not [one.text for one in service.conversation(ala.person, bo.person.identity) if one.unread]


def test_a_draft_that_is_slow_comes_before_its_message_and_never_back(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as ala, served(tmp_path / "b", name="Bo", rooms=None) as bo:
        ala.run(ala.person.add_contact(bo.run(bo.person.link())))
        with phone(chromium, album, "Ala", ala.url) as open_page:
            open_page.enter(ala.serving.launch_url)
            page, held = open_page.page, []
            page.route("**/draft", lambda route: held.append(route))
            open_page.go(f"/carry/with/{id_text(bo.person.identity)}")
            with page.expect_request("**/draft"):
                page.fill("textarea[name=text]", "sent once")
            page.click("form.composer button")
            page.evaluate("() => new Promise((go) => setTimeout(go))")  # what the press set off has begun
            with page.expect_response("**/draft"):
                held[0].continue_()
            page.locator(".bubble.mine").get_by_text("sent once").wait_for(timeout=WAIT_MS)
            assert places.find(ala.person, bo.person.identity).draft == ""


def test_what_is_typed_while_a_message_is_slow_is_kept_after_it(chromium: Any, album: Album, tmp_path: Path) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as ala, served(tmp_path / "b", name="Bo", rooms=None) as bo:
        ala.run(ala.person.add_contact(bo.run(bo.person.link())))
        with phone(chromium, album, "Ala", ala.url) as open_page:
            open_page.enter(ala.serving.launch_url)
            page, held, talk = open_page.page, [], f"/carry/with/{id_text(bo.person.identity)}"
            open_page.go(talk)
            page.clock.install()
            page.route(
                f"**{talk}", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
            )
            page.fill("textarea[name=text]", "first")
            with page.expect_request(lambda request: request.method == "POST"):
                page.click("form.composer button")
            page.fill("textarea[name=text]", "second")
            drafts: list[str] = []
            page.on("requestfinished", lambda request: drafts.append(request.url) if "/draft" in request.url else None)
            page.clock.run_for(1500)
            assert drafts == []
            held[0].continue_()
            page.locator(".bubble.mine").get_by_text("first").wait_for(timeout=WAIT_MS)
            with page.expect_response("**/draft"):
                page.clock.run_for(1500)
            assert places.find(ala.person, bo.person.identity).draft == "second"


def test_a_hidden_page_tells_of_nothing_while_somebody_looks_at_another_one(
    chromium: Any, album: Album, tmp_path: Path
) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as ala, served(tmp_path / "b", name="Bo", rooms=None) as bo:
        bo.run(bo.person.add_contact(ala.run(ala.person.link())))
        ala.run(ala.person.add_contact(bo.run(bo.person.link())))
        with phone(chromium, album, "Ala", ala.url) as open_page:
            open_page.enter(ala.serving.launch_url)
            hidden = open_page.page.context.new_page()
            hidden.add_init_script(
                "told = []; Object.defineProperty(document, 'hidden', { get: () => true });"
                "Notification = class { static permission = 'granted'; constructor(text) { told.push(text); } }"
            )
            hidden.goto(ala.url + "/people")
            told = hidden.get_by_text("1 new message")
            bring(bo, ala, "one")
            open_page.sees("1 new message", where="body")
            told.wait_for(timeout=WAIT_MS)
            assert hidden.evaluate("navigator.locks.query().then(() => told)") == []
            open_page.page.close()
            bring(bo, ala, "two")
            hidden.wait_for_function("() => told.length", timeout=WAIT_MS)
            assert hidden.evaluate("told") == ["2 new messages"]
