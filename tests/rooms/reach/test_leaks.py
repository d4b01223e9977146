"""What leaves a machine whose browser goes through the gate: traffic to the bridge, and no question for any name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from tempfile import TemporaryDirectory

import pytest

from tests.rooms.reach.border import BRIDGES, STANDING, Border
from tests.rooms.reach.capture import TCP, captured
from tests.rooms.reach.ways import Way, connected

pytestmark = pytest.mark.serial


@pytest.fixture(scope="module")
def way(land: Border, ways: dict[str, str]) -> Iterator[Way]:
    with connected(land, [ways["web"]]) as made:
        yield made


def browse(land: Border, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page with a picture of another site's in Chromium; what it made of the page."""
    with TemporaryDirectory() as profile:
        own = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--ignore-certificate-errors",
            f"--user-data-dir={profile}",
        ]
        return land.ask("client", "chromium", *own, *flags, "--dump-dom", "https://site.example.net/", timeout_s=60)


@pytest.mark.parametrize(
    "setting", ["--proxy-server=socks5://%s", "--proxy-server=http://%s", "--proxy-pac-url=http://%s/proxy.pac"]
)
def test_a_browser_behind_the_gate_asks_for_no_name_and_writes_to_the_bridge_alone(
    land: Border, way: Way, setting: str
) -> None:
    with captured(land.networks["client"], "uplink") as seen:
        assert "Welcome." in browse(land, setting % way.at).stdout
    assert (TCP, STANDING[0], 443) in seen.to()
    # Kernels may still see to connections of programs that have ended.
    assert {(protocol, address) for protocol, address, _ in seen.to()} <= {
        (TCP, bridge) for bridge in BRIDGES + STANDING
    }
    assert not seen.asked()


def test_without_the_gate_the_same_browser_asks_aloud(land: Border) -> None:
    with captured(land.networks["client"], "uplink") as seen:
        assert "Welcome." in browse(land).stdout
    assert "DNS" in seen.asked()
    assert seen.told(b"banned")
