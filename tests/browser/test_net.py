"""Two nodes on two machines with one cable between them: network namespaces joined by a veth pair, and no other way."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.browser.phone import ARGUMENTS, CHROMIUM, Album, phone
from tests.e2e.program import Program

pytestmark = pytest.mark.serial

NEW_NETWORK = 0x40000000
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SYNC_PORT = 8485


@dataclass(frozen=True)
class Elsewhere(Program):
    """The command line on another machine: in the network namespace ``network``."""

    network: str

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command there."""
        return super().start(*arguments, preexec_fn=partial(enter, self.network), **more)


def enter(network: str) -> None:
    """Move this process into a network namespace: setns(2)."""
    with open(f"/run/netns/{network}", "rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"cannot enter {network}")


def ip(*arguments: str) -> None:
    """Run iproute2's ``ip``."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@contextmanager
def two_machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them; their names."""
    names = (f"outlast{os.getpid()}a", f"outlast{os.getpid()}b")
    made: list[str] = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"network namespaces cannot be made here: {error}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            ip("netns", "delete", name)


def test_a_message_crosses_a_cable_and_both_pages_tell_it_by_themselves(
    playwright: Any, album: Album, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        names = stack.enter_context(two_machines())
        pages = []
        for who, network, address in zip(("Ala", "Boris"), names, ADDRESSES, strict=True):
            program = Elsewhere(tmp_path / who, network)
            program.json("init", "--name", who, "--unattended")
            node = stack.enter_context(program.up("--no-lan", "--listen", f"{address}:{SYNC_PORT}", listeners=3))
            chromium = tmp_path / f"chromium of {who}"
            chromium.write_text(f'#!/bin/sh\nexec ip netns exec {network} {CHROMIUM} "$@"\n')
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
        boris.fill("Its address", f"{ADDRESSES[0]}:{SYNC_PORT}")
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
