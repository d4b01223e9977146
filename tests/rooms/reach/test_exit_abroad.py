"""What a bridge refuses to its users and to strangers: the network it stands in, floods for others, an open proxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from outlast.address import Target, encode
from tests.rooms.reach.border import (
    AMPLIFIED_BYTES,
    AMPLIFIER_PORT,
    BRIDGES,
    INNER_PORT,
    METADATA,
    PRIVATE,
    SERVER,
    SITE,
    STANDING,
    Border,
)
from tests.rooms.reach.ways import Way, connected, serving

pytestmark = pytest.mark.serial

EMPTY, RESET, PROXY = 52, 56, 97  # curl's exit codes; Shadowsocks has no word for a refusal


@pytest.fixture(scope="module", params=["ss-2022", "web"])
def way(request: pytest.FixtureRequest, land: Border, ways: dict[str, str]) -> Iterator[Way]:
    with connected(land, [ways[request.param]]) as made:
        yield made


WITHIN = [
    f"127.0.0.1:{INNER_PORT}",
    f"localhost:{INNER_PORT}",
    f"127.1:{INNER_PORT}",
    f"2130706433:{INNER_PORT}",
    f"0.0.0.0:{INNER_PORT}",
    f"[::ffff:127.0.0.1]:{INNER_PORT}",
    f"loopback.example.net:{INNER_PORT}",
    f"{SERVER}:{INNER_PORT}",
    f"{BRIDGES[1]}:{INNER_PORT}",
    f"{PRIVATE}:80",
    "private.example.net:80",
    f"{METADATA}:80",
    "metadata.example.net:80",
]


@pytest.mark.parametrize("target", WITHIN)
def test_users_are_not_let_into_the_bridges_own_network(way: Way, target: str) -> None:
    refused = way.curl(f"http://{target}/", limit_s=5)
    assert (refused.returncode in (EMPTY, RESET, PROXY), refused.stdout) == (True, ""), refused


def ask(way: Way, target: Target, payload: bytes, wait_s: float) -> list[bytes]:
    """Send a datagram through the gate; what came back until nothing did."""
    host, port = way.at.split(":")
    with way.land.socket("client") as control, way.land.socket("client", socket.SOCK_DGRAM) as datagrams:
        control.connect((host, int(port)))
        control.sendall(b"\5\1\0")
        assert control.recv(2) == b"\5\0"
        control.sendall(b"\5\3\0" + encode(Target("0.0.0.0", 0)))
        answer = control.recv(10)
        assert answer[:2] == b"\5\0"
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        datagrams.connect((host, int.from_bytes(answer[8:10])))
        datagrams.send(b"\0\0\0" + encode(target) + payload)
        datagrams.settimeout(wait_s)
        got = []
        try:
            while True:
                got.append(datagrams.recv(65536)[10:])
        except TimeoutError:
            return got


def test_a_flood_of_answers_stops_at_what_was_asked_for_and_little_more(way: Way) -> None:
    question = bytes(500)
    got = sum(map(len, ask(way, Target(SITE, AMPLIFIER_PORT), question, 0.5)))
    assert 0 < got <= 8 * len(question) + 4096 < AMPLIFIED_BYTES / 10


@pytest.mark.parametrize("host", [PRIVATE, "private.example.net"])
def test_datagrams_are_refused_the_same_network(way: Way, host: str) -> None:
    assert ask(way, Target(host, AMPLIFIER_PORT), b"hello", 0.3) == []


def test_a_bridge_whose_owner_allows_it_reaches_all_of_these_places(land: Border) -> None:
    allowing = serving(land, "--transport", "ss", "--listen", f"{BRIDGES[3]}:8388", "--allow-private")
    with allowing as link, connected(land, [link]) as way:
        missed = [one for one in WITHIN if "Welcome." not in way.curl(f"http://{one}/", limit_s=5).stdout]
        assert not missed
        assert ask(way, Target(PRIVATE, AMPLIFIER_PORT), b"hello", 0.3)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
@pytest.mark.parametrize("at", [f"{STANDING[0]}:443", f"{STANDING[1]}:8388", f"{STANDING[2]}:4443"])
def test_strangers_find_no_proxy_at_the_bridges_port(land: Border, ways: dict[str, str], at: str, scheme: str) -> None:
    asked = land.curl("--proxy", f"{scheme}://{at}", f"http://{SITE}/", limit_s=0.5)
    assert "Welcome." not in asked.stdout
