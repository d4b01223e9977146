"""Outlast beside the real tor, in a tor network of its own: as its pluggable transport, and as its parent."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from outlast.address import Target
from outlast.rooms.reach.io import tor as tor_module
from outlast.rooms.reach.io.carrier import Refusal
from outlast.rooms.reach.io.choosing import Attempted
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.managed import OR_PORT as TO_TOR
from outlast.rooms.reach.io.managed import ToTor
from outlast.rooms.reach.io.relay import Using
from outlast.rooms.reach.io.tor import Through, Tor, Tors
from outlast.rooms.reach.io.upstream import NEAR
from outlast.rooms.reach.proto import bootstrap
from outlast.rooms.reach.proto.bridge import TorBridge
from outlast.rooms.reach.proto.ext_or_port import COOKIE_HEADER
from outlast.rooms.reach.proto.failures import BridgeError
from outlast.rooms.reach.proto.links import bridge_id, read_bridge
from outlast.rooms.reach.proto.pluggable import ServerDemand
from tests.architecture.tree import ROOT
from tests.rooms.reach.gates import place
from tests.rooms.reach.pages import PAGE, serving_page
from tests.rooms.reach.programs import program
from tests.rooms.reach.test_choosing import dead, relaying
from tests.rooms.reach.tor_network import OR_PORT, Running, TorNetwork, tor_network

pytestmark = pytest.mark.serial

OUTLAST = Path(sys.executable).with_name("outlast")
PAGES = (ROOT / "docs/howto/tor.md").read_text(encoding="utf-8")


def shown(network: TorNetwork, name: str, **instead: str) -> str:
    """The lines of a torrc as the how-to page shows them, with what differs here.

    Tor takes no path with a space in it, and this checkout may lie under one.
    """
    (text,) = re.findall(rf"^```torrc {name}\n(.*?)^```$", PAGES, re.DOTALL | re.MULTILINE)
    for old, new in instead.items():
        assert old in text
        text = text.replace(old, new)
    return text.replace("/usr/local/bin/outlast", str(network.root / "outlast"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorNetwork]:
    with tor_network(tmp_path_factory.mktemp("tor")) as found:
        (found.root / "outlast").symlink_to(OUTLAST)
        yield found


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with serving_page() as url:
        yield url


@pytest.fixture(scope="module")
def bridge(network: TorNetwork, page: str) -> Running:
    """A stock bridge whose transport is Outlast."""
    at = f"{network.host}.9"
    found = network.start(
        "bridge",
        shown(network, "bridge", **{"127.0.0.1:9001": f"{at}:{OR_PORT}", "0.0.0.0:8443": f"{at}:8443"}),
        shown(network, "site", **{"http://127.0.0.1:8080": page.rstrip("/")}),
        f"Nickname bridge\nPublishServerDescriptor 0\nAddress {at}",
        f"Log [net]debug file {network.root / 'bridge.log'}",
    )
    found.until(r"Registered server transport 'outlast'")
    found.until(r"Bootstrapped 100%")
    return found


@pytest.fixture(scope="module")
def line(network: TorNetwork, bridge: Running) -> str:
    """The bridge's line, as its operator finds it."""
    fingerprint = bridge.until(r"Your Tor server's identity key fingerprint is '\w+ (\w{40})'")[1]
    told = (network.root / "bridge/pt_state/rooms/reach/bridge-line.txt").read_text().splitlines()[-1]
    return told.removeprefix("Bridge ").replace("FINGERPRINT", fingerprint)


def fetch(port: object, url: str, *options: str) -> bytes:
    """Fetch a page as curl does."""
    proxy = f"socks5h://127.0.0.1:{port}"
    return subprocess.run(
        [program("curl"), "-sS", "--retry", "5", "--retry-all-errors", "-m", "20", *options, "-x", proxy, url],
        check=True,
        capture_output=True,
    ).stdout


def test_a_stock_tor_bootstraps_through_a_stock_bridge_with_outlast_as_their_transport(
    network: TorNetwork, line: str, page: str
) -> None:
    client = network.start(
        "client",
        "SocksPort 127.0.0.1:auto",
        re.sub("Bridge outlast .*", f"Bridge {line}", shown(network, "client")),
    )
    port = client.until(r"Opened Socks listener connection \(ready\) on 127\.0\.0\.1:(\d+)")[1]
    client.until(r"Bootstrapped 100%")
    assert fetch(port, page) == PAGE
    to_others = f"https://{network.host}.9:8443/"
    assert subprocess.run([program("curl"), "-sSk", to_others], check=True, capture_output=True).stdout == PAGE
    log = (network.root / "bridge.log").read_text()
    # The Extended ORPort took our word: tor puts the client's address in the place of the loopback connection's.
    assert re.search(r"Received USERADDR.We rewrite our address from '127\.0\.0\.1:\d+' to '127\.0\.0\.1:\d+'", log)
    client.process.terminate()
    client.process.wait(20)
    client.until("^ended$")


def test_tor_as_a_child_is_a_carrier_that_needs_only_a_bridge_line(
    network: TorNetwork, line: str, page: str, tmp_path: Path, born: Callable[[], object]
) -> None:
    steps: list[int] = []

    async def story() -> None:
        found = read_bridge(line)
        assert isinstance(found, TorBridge)
        tor = Tor((found,), lambda percent, _: steps.append(percent), folder=tmp_path / "tor", more=network.common)
        await tor.ready()
        carrier = Through(tor)
        gate = Gate(asyncio.get_running_loop(), Target("127.0.0.1", 0), carrier.carry, carrier.associate)
        port = gate.at.port
        for credentials in ((), ("--proxy-user", "one:x"), ("--proxy-user", "two:x")):
            assert await asyncio.to_thread(fetch, port, page, *credentials) == PAGE
        gate.close()
        carrier.close()
        await tor.close()

    asyncio.run(story())
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == 100
    assert not born()


def test_a_tor_that_nobody_uses_lingers_for_who_comes_next(
    network: TorNetwork, line: str, page: str, monkeypatch: pytest.MonkeyPatch, born: Callable[[], object]
) -> None:
    monkeypatch.setattr(tor_module, "Tor", partial(Tor, more=network.common))

    async def story() -> None:
        tors = Tors()
        steps: list[tuple[int, str]] = []
        tors.told = lambda bridge, percent, step: steps.append((percent, step))
        found = read_bridge(line)
        assert isinstance(found, TorBridge)
        first, second = await asyncio.gather(tors.carrier(found), tors.carrier(found))
        assert (steps[0], steps[-1]) == ((0, "Starting"), (100, "Done"))
        one = born()
        assert isinstance(one, set)
        assert len(one) == 1
        first.close()
        second.close()
        monkeypatch.setattr(tor_module, "LINGER_S", 0.0)
        third = await tors.carrier(found)
        assert born() == one
        gate = Gate(asyncio.get_running_loop(), Target("127.0.0.1", 0), third.carry, third.associate)
        assert await asyncio.to_thread(fetch, gate.at.port, page) == PAGE
        gate.close()
        third.close()
        while born():
            await asyncio.sleep(0.02)

    asyncio.run(story())


def test_the_chooser_passes_by_a_dead_bridge_and_proves_a_tor_bridge(
    network: TorNetwork, line: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tor_module, "Tor", partial(Tor, more=network.common))
    found, off = read_bridge(line), dead()
    with place() as here, relaying(here, off, found, test_url=page) as relay:
        relay.until(Using(bridge_id(found)))
        assert fetch(relay.gate.port, page) == PAGE
        told = {event.bridge: event for event in relay.told if isinstance(event, Attempted)}
        assert (told[bridge_id(off)].failure, told[bridge_id(off)].ok) == ("refused", False)
        assert (told[bridge_id(found)].ok, told[bridge_id(found)].proof) == (True, True)


def test_what_stops_tor_is_told_in_a_persons_words(
    network: TorNetwork, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "STALLED_S", 4.0)
    wrong = {
        "refused": line.replace("outlast ", "").replace(":8443 ", ":1 ").partition(" key=")[0],
        "wrong-key": re.sub(r" [0-9A-F]{40} ", f" {'AB' * 20} ", line),
        "tls-mitm": re.sub(r"cert=\S", "cert=_", line),
    }

    async def one(kind: str, text: str) -> None:
        found = read_bridge(text)
        assert isinstance(found, TorBridge)
        tor = Tor((found,), folder=tmp_path / kind, more=network.common)
        with pytest.raises(BridgeError) as caught:
            await tor.ready()
        assert caught.value.failure.name == kind
        assert network.host not in str(caught.value)
        await tor.close()

    async def story() -> None:
        await asyncio.gather(*(one(kind, text) for kind, text in wrong.items()))

    asyncio.run(story())


def knock(demand: ServerDemand) -> bytes | Refusal:
    """What a way to tor brings back for the first bytes of a link: VERSIONS, inside of TLS, so a TLS hello."""

    async def story() -> bytes | Refusal:
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[socket.socket | Refusal] = loop.create_future()
        exit_ = Exit(loop, NEAR)
        ToTor(exit_, demand, Target("192.0.2.77", 7)).open(TO_TOR, reached.set_result, reached.set_result)
        found = await reached
        exit_.close()
        if isinstance(found, Refusal):
            return found
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(sock=found, ssl=context, server_hostname="www.example.org")
        writer.close()
        return writer.get_extra_info("ssl_object").version().encode()

    return asyncio.run(story())


def test_the_extended_orport_of_the_real_tor_takes_who_knows_its_cookie_and_nobody_else(
    network: TorNetwork, bridge: Running, tmp_path: Path
) -> None:
    port = int(bridge.until(r"Extended OR listener listening on port (\d+)")[1])
    cookie = network.root / "bridge" / "extended_orport_auth_cookie"
    demand = ServerDemand("", True, ("outlast",), None, extended=Target("127.0.0.1", port), cookie=str(cookie))
    assert knock(demand).startswith(b"TLSv1")
    log = (network.root / "bridge.log").read_text()
    assert re.search(r"We rewrite our address from '127\.0\.0\.1:\d+' to '192\.0\.2\.77:7'", log)
    wrong = tmp_path / "cookie"
    wrong.write_bytes(COOKIE_HEADER + secrets.token_bytes(32))
    assert knock(demand._replace(cookie=str(wrong))) is Refusal.FAILED
    wrong.write_bytes(b"")
    assert knock(demand._replace(cookie=str(wrong))) is Refusal.FAILED
    assert knock(demand._replace(extended=None, or_port=Target(f"{network.host}.9", OR_PORT))).startswith(b"TLSv1")
