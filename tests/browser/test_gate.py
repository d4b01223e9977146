"""Chromium browses through the gate: by SOCKS 5, as an HTTP proxy, and by the PAC file."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from outlast.address import Target
from outlast.rooms.reach.io.carrier import Association, Client
from outlast.rooms.reach.io.direct import Dialled
from outlast.rooms.reach.io.exit import Exit, Failed, Opened
from outlast.rooms.reach.proto.exit_policy import allowing_private
from tests.browser.phone import ARGUMENTS, CHROMIUM
from tests.rooms.reach.gates import Place, place, serving

PAGE = b"""<!doctype html><title>waiting</title><script src="/a.js"></script><img src="http://other.test/i.png">
<script>fetch("/posted", {method: "POST", body: "x".repeat(50000)}).then(r => r.text()).then(t => document.title = t)
</script>"""


class Elsewhere:
    """A carrier in whose network every name is one server's; it notes what it was asked for."""

    def __init__(self, here: Place, site: Target) -> None:
        exit_ = Exit(here.loop, allowing_private())
        self.asked: list[Target] = []

        def dial(target: Target, opened: Opened, failed: Failed) -> Callable[[], None]:
            self.asked.append(target)
            return exit_.open(site, opened, failed)

        self._dialled = Dialled(here.loop, dial)

    def carry(self, client: Client) -> None:
        self._dialled.carry(client)

    def associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        return None

    def close(self) -> None:
        self._dialled.close()


def site(one: socket.socket) -> None:
    """Answer requests until the connection ends."""
    held = b""
    while more := one.recv(65_536):
        held += more
        while b"\r\n\r\n" in held:
            head, _, rest = held.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            if len(rest) < length:
                break
            held = rest[length:]
            path = head.split(b" ", 2)[1]
            body = {b"/": PAGE, b"/posted": b"got %d" % length}.get(path, b"")
            kind = b"text/javascript" if path == b"/a.js" else b"text/html"
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
            one.sendall(answer + body)


@pytest.mark.parametrize("way", ["socks5", "http", "pac"])
def test_chromium_browses_through_the_gate_and_every_name_goes_to_the_far_end(playwright: Any, way: str) -> None:
    with place() as here, serving(site) as at:
        elsewhere = here.do(lambda: Elsewhere(here, at))
        gate = here.gate(elsewhere)
        named = f"127.0.0.1:{gate.at.port}"
        how = f"--proxy-pac-url=http://{named}/proxy.pac" if way == "pac" else f"--proxy-server={way}://{named}"
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*ARGUMENTS, how, "--proxy-bypass-list=<-loopback>"]
        )
        try:
            page = browser.new_page()
            page.goto("http://site.test/")
            page.wait_for_function("document.title.startsWith('got')")
            assert page.title() == "got 50000"
            page.goto("http://192.0.2.7:81/")
            page.wait_for_function("document.title.startsWith('got')")
        finally:
            browser.close()
    assert {Target("site.test", 80), Target("other.test", 80), Target("192.0.2.7", 81)} <= set(elsewhere.asked)
