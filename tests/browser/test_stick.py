"""Two nodes that share no network: a message written in a browser here is read in a browser there, and says so here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.phone import Album, Phone, phone
from tests.e2e.program import Program, Running
from tests.unit.edges.served import Served, served

pytestmark = pytest.mark.serial

WORDS = "Мы дома, все здоровы. Приезжай в субботу!"


@contextmanager
def people(chromium: Any, album: Album, tmp_path: Path, js: bool) -> Iterator[tuple[Phone, Phone]]:
    """Ala and Boris, each at a node of their own made by the first run, who know each other's link."""
    with ExitStack() as stack:
        found = []
        for name in ("Ala", "Boris"):
            running: Running = stack.enter_context(Program(tmp_path / name).up("--no-lan", listeners=1))
            url = f"http://localhost:{running.port}"
            browser = stack.enter_context(phone(chromium, album, name, url, js=js))
            browser.go("/")
            browser.shot("door")
            browser.enter(running.at["page"])
            browser.set_up(name)
            found.append(browser)
        ala, boris = found
        ala.add(boris.link(), "Boris")
        boris.add(ala.link(), "Ala")
        yield ala, boris


@pytest.mark.parametrize("js", [True, False], ids=["js", "plain"])
def test_a_message_crosses_by_stick_and_its_receipt_comes_back(
    chromium: Any, album: Album, tmp_path: Path, js: bool
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with people(chromium, album, tmp_path, js) as (ala, boris):
        ala.go("/")
        ala.shot("home")
        ala.write("Boris", WORDS)
        ala.sees("kept here")
        ala.sees("no copy elsewhere yet")
        ala.shot("message kept here")
        there = ala.save_file("Boris", stick)
        assert WORDS.encode() not in there.read_bytes()
        ala.open_conversation("Boris")
        ala.sees("copied onward")

        boris.hand_in(there)
        boris.go("/")
        boris.sees("1 new message")
        boris.shot("home with a new message")
        boris.open_conversation("Ala")
        boris.sees(WORDS)
        boris.mark_read()
        boris.shot("message read")
        boris.write("Ala", "Приедем!")
        back = boris.save_file("Ala", stick)

        ala.hand_in(back)
        ala.open_conversation("Boris")
        ala.sees("Приедем!")
        ala.sees("received")
        ala.page.locator(".custody", has_text=re.compile("received.*read")).wait_for()
        ala.shot("receipt came back")


# ---- a phone carries the file ----


def join(chromium: Any, album: Album, node: Served, who: str, js: bool) -> Any:
    """A phone that is let in by the QR code's address, confirmed on the host's screen."""
    with phone(chromium, album, f"host of {who}", node.url) as host:
        host.enter(node.serving.launch_url)
        host.go("/phones")
        if host.page.get_by_role("button", name="Open the door").count():
            host.click("Open the door")
        host.click("Let a phone in")
        address = host.page.locator("code").first.text_content()
        host.shot("code to scan")
        guest = phone(chromium, album, who, node.lan_url, js=js)
        opened = guest.__enter__()
        opened.page.goto(address)
        opened.fill("What to call this phone", who)
        opened.shot("joining")
        opened.click("Join")
        code = opened.page.locator(".code").text_content()
        opened.shot("code")
        host.page.locator(".code", has_text=code).wait_for()  # the host's page goes on by itself
        host.shot("code to compare")
        host.click("Yes, let it in")
        host.sees("The phone is in.")
        host.shot("phones")
        opened.page.locator("nav.tabs").wait_for()  # and so does the phone's
        return guest, opened


@pytest.mark.parametrize("js", [True, False], ids=["js", "plain"])
def test_a_phone_is_the_courier_between_two_nodes(chromium: Any, album: Album, tmp_path: Path, js: bool) -> None:
    with served(tmp_path / "a", name="Ala", rooms=None) as a, served(tmp_path / "b", name="Boris", rooms=None) as b:
        a.run(a.person.add_contact(b.run(b.person.link())))
        b.run(b.person.add_contact(a.run(a.person.link())))
        with ExitStack() as stack:
            opened = []
            for node, who in ((a, "courier at A"), (b, "courier at B"), (b, "Boris phone")):
                guest, page = join(chromium, album, node, who, js)
                stack.push(guest)
                opened.append(page)
            at_a, at_b, boris = opened
            at_a.write("Boris", WORDS)
            at_a.shot("message written on the phone")
            at_b.hand_in(at_a.save_file("Boris", tmp_path))
            boris.open_conversation("Ala")
            boris.sees(WORDS)
            boris.mark_read()
            boris.shot("message read on the other phone")
            at_a.hand_in(at_b.save_file("Ala", tmp_path))
            at_a.open_conversation("Boris")
            at_a.page.locator(".custody", has_text=re.compile("received.*read")).wait_for()
            at_a.shot("receipt on the courier's phone")
