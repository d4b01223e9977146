"""Open pages go on by themselves: a lost phone's goes blank, a locked node's asks, and what is typed is never lost."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.browser.phone import WAIT_MS, Album, phone
from tests.e2e.program import Program
from tests.unit.edges.served import served

pytestmark = pytest.mark.serial

PASSPHRASE = "heron, river, stone"


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
    with served(tmp_path / "b", name="Boris", rooms=None) as b:
        link = b.run(b.person.link())
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
        page.sees("The node did not answer, so nothing was sent. Try again.")
        assert page.page.get_by_label("Message").input_value() == "second, a long one"
        page.shot("node is gone")
    assert [letter["text"] for letter in program.json("carry", "sent")] == ["first"]


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
