"""Two nodes on two machines of one network, and no other way between them."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.browser.phone import ARGUMENTS, CHROMIUM, Album, phone
from tests.e2e.machines import Elsewhere, machines

pytestmark = pytest.mark.serial

SYNC_PORT = 8485


def test_a_message_crosses_a_cable_and_both_pages_tell_it_by_themselves(
    playwright: Any, album: Album, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        places = stack.enter_context(machines(2))
        pages = []
        for who, place in zip(("Ala", "Boris"), places, strict=True):
            program = Elsewhere(tmp_path / who, place.network)
            program.json("init", "--name", who, "--unattended")
            node = stack.enter_context(program.up("--no-lan", "--listen", f"{place.address}:{SYNC_PORT}", listeners=3))
            chromium = tmp_path / f"chromium of {who}"
            chromium.write_text(f'#!/bin/sh\nexec ip netns exec {place.network} {CHROMIUM} "$@"\n')
            chromium.chmod(0o755)
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            stack.callback(browser.close)
            page = stack.enter_context(phone(browser, album, who, f"http://localhost:{node.port}"))
            page.enter(node.at["page"])
            pages.append(page)
        ala, boris = pages
        ala.add(boris.link(), "Boris")
        boris.add(ala.link(), "Ala")
        ala.go("/nodes")
        id_ = ala.page.locator("textarea[readonly]").input_value()

        boris.go("/nodes")
        boris.fill("Its address", f"{places[0].address}:{SYNC_PORT}")
        boris.fill("Its node ID", id_)
        boris.click("Add")
        boris.sees("Connected to 1 other node.", where="body")
        boris.shot("connected")
        ala.sees("Connected to 1 other node.", where="body")

        boris.open_conversation("Ala")
        ala.write("Boris", "Is the line open?")
        boris.sees("Is the line open?")
        ala.page.locator(".custody", has_text=re.compile("received.*read")).wait_for()
        ala.shot("read at once")
        boris.fill("Message", "half a sentence")
        ala.write("Boris", "Write back!")
        boris.sees("Write back!")
        assert boris.page.get_by_label("Message").input_value() == "half a sentence"
        boris.shot("typing goes on")
