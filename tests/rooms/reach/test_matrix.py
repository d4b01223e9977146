"""The censor matrix: under each censor traffic flows within five seconds, and what fails fails by its class."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from outlast.rooms.reach.proto.links import bridge_id, read_bridge
from tests.rooms.reach import censors
from tests.rooms.reach.border import DOH, MINISTRY, STANDING, Border
from tests.rooms.reach.censors import Censor
from tests.rooms.reach.ways import NAMED, connected, tried

pytestmark = pytest.mark.serial

LIMIT_S = 5.0
PAGE = 200_000
BANNED_NAME = "banned.example.net"
SITE = "https://site.example.net"
RESOLVED = f"tricks://dns.example.net@{DOH}:443/dns-query"


# What is done, and the class of each way that fails under it; all others have to work.
MATRIX: dict[str, tuple[Callable[[], Censor] | None, dict[str, str]]] = {
    "none": (None, {}),
    "address": (partial(censors.drop_address, STANDING[0]), {"web": "syn-drop"}),
    "sni": (partial(censors.reset_names, NAMED, depth="records"), {"web-by-name": "rst-after-hello"}),
    "no name": (partial(censors.forge_names, bridge2=""), {"web-by-name": "dns"}),
    # Who has never reached the bridge, and knows no other resolver, cannot know that this is not its address.
    "forged name": (partial(censors.forge_names, bridge2=MINISTRY), {"web-by-name": "refused"}),
    "fully encrypted": (
        censors.drop_encrypted,
        dict.fromkeys(("ss-2022", "ss-stock", "obfs4"), "fully-encrypted-filter"),
    ),
    "curtain": (
        partial(censors.curtain, 16_000),
        {"ss-2022": r"freeze@\d+", "ss-stock": r"freeze@\d+", "socks5": r"freeze@\d+"},
    ),
    "cap": (partial(censors.cap, 3), {}),
    "throttling": (partial(censors.throttle, 4_000, STANDING[0]), {"web": "throttled"}),
    "http": (censors.redirect_http, {}),
    "portal": (censors.portal, {"web": "captive-portal", "web-by-name": "captive-portal"}),
    "forged": (censors.forge_certificates, {"web": "tls-mitm", "web-by-name": "tls-mitm"}),
    "cut": (
        censors.cut,
        dict.fromkeys(("web", "ss-2022", "ss-stock", "obfs4", "socks5"), "syn-drop") | {"web-by-name": "dns"},
    ),
}


@pytest.mark.parametrize("case", MATRIX)
def test_traffic_flows_or_the_class_is_named(land: Border, ways: dict[str, str], case: str) -> None:
    censor, blocked = MATRIX[case]
    links = list(ways.values())
    with ExitStack() as held:
        if censor:
            held.enter_context(land.censored(censor()))
        with connected(land, links) as way:
            seconds = way.page(SITE, PAGE, limit_s=1 if blocked.keys() == ways.keys() else LIMIT_S)
        rows = tried(land, links, "--url", "http://site.example.net/70000")
    if blocked.keys() == ways.keys():
        assert seconds is None
    else:
        assert (seconds or 60) < LIMIT_S, way.events
    found = {name: row["class"] for name, row in zip(ways, rows, strict=True) if not row["ok"]}
    assert found.keys() == blocked.keys()
    assert all(re.fullmatch(blocked[name], found[name]) for name in blocked), found


def test_a_bridge_that_was_reached_is_used_on_when_its_name_is_forged(land: Border, ways: dict[str, str]) -> None:
    with connected(land, [ways["web-by-name"]]) as way:
        assert way.page(SITE, 1000)
        with land.censored(censors.forge_names(bridge2=MINISTRY)), land.struck(0.1) as struck:
            while not struck:
                assert way.page(SITE, PAGE)
            assert way.page(SITE, PAGE)


def test_a_name_that_is_forged_from_the_start_is_asked_of_a_resolver_over_https(
    land: Border, ways: dict[str, str]
) -> None:
    links = [ways["web-by-name"], RESOLVED]
    with land.censored(censors.forge_names(bridge2=MINISTRY)):
        with connected(land, links) as way:
            assert way.page(SITE, PAGE)
            assert bridge_id(read_bridge(links[0])) in {
                one.get("bridge") for one in way.events if one["type"] == "using"
            }
        row, _ = tried(land, links, "--url", "http://site.example.net/70000")
    assert row["ok"], row


def test_a_cap_on_connections_to_one_address_leaves_room_for_many_streams(land: Border, ways: dict[str, str]) -> None:
    urls = [word for number in range(40_000, 40_012) for word in ("-o", "/dev/null", f"{SITE}/{number}")]
    with land.censored(censors.cap(3)), connected(land, [ways["web"]]) as way:
        done = way.curl("--parallel", "--parallel-immediate", "--no-keepalive", "-w", "%{size_download} ", *urls)
    assert sorted(map(int, done.stdout.split())) == list(range(40_000, 40_012))


@pytest.mark.parametrize(("depth", "passes"), [("segment", True), ("stream", True), ("records", False)])
def test_without_a_bridge_tricks_pass_a_filter_that_does_not_put_all_together(
    land: Border, depth: censors.Depth, passes: bool
) -> None:
    hidden = (censors.reset_names(BANNED_NAME, depth=depth), censors.forge_names(banned=MINISTRY))
    with land.censored(*hidden), connected(land, [RESOLVED]) as way:
        seconds = way.page(f"https://{BANNED_NAME}", PAGE, limit_s=LIMIT_S if passes else 2)
    assert (seconds is not None) == passes
