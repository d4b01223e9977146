"""A client whose line is cut goes out by a neighbour's dish: to its bridge, within its share, and nobody else does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlast.address import Target
from outlast.rooms.reach.io.hops import Hop
from outlast.rooms.reach.io.lending import Share, Shares
from outlast.rooms.reach.io.relay import Config, Profile
from outlast.rooms.reach.io.web_bridge import WebServer
from outlast.rooms.reach.proto.bridge import Bridge
from outlast.rooms.reach.proto.links import read_bridge, write_bridge
from tests.e2e.machines import Elsewhere
from tests.e2e.program import made
from tests.e2e.test_cli_messages import until
from tests.rooms.reach.border import BRIDGES, Border
from tests.rooms.reach.capture import TCP, captured
from tests.rooms.reach.censors import cut

pytestmark = pytest.mark.serial

NEIGHBOUR = "192.168.77.1"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
NUMBER = bytes(16)
GATE = "127.0.0.1:1080"
AT = Target(BRIDGES[0], 443)


@contextmanager
def relaying(land: Border, place: str, folder: Path, config: Config, *words: str) -> Iterator[dict[str, Any]]:
    """A relaying process in a namespace, once it has said all these words; what it said last."""
    file = folder / f"{place}.json"
    file.write_bytes(msgspec.json.encode(config))
    program = land.start(place, sys.executable, "-m", "tests.rooms.reach.relaying", file)
    try:
        said = ""
        for word in words:
            said = land.until(program, word)
        yield json.loads(said.splitlines()[-1]) if said else {}
    finally:
        program.terminate()
        program.communicate(timeout=20)
        land.programs.remove(program)


@contextmanager
def bridge_abroad(land: Border, folder: Path) -> Iterator[Bridge]:
    """A web bridge on the free side; how it is reached."""
    site = folder / "site"
    site.mkdir()
    (site / "index.html").write_text("Bread.")
    server = WebServer(AT, AT.host, str(site), (KEY,), str(folder / "keys"))
    with relaying(land, "server", folder, Config(servers=(server,)), '"serving"') as event:
        yield read_bridge(event["links"][0])


def lent(*targets: Target, day_bytes: int = 0) -> Config:
    """What the neighbour lends."""
    return Config(shares=Shares((NEIGHBOUR,), (Share(NUMBER, KEY, 0, targets, day_bytes),)))


def out(bridge: Bridge, port: int, key: bytes = KEY) -> Config:
    """What the client does: its own line first, then the neighbour's."""
    hop = Hop(NUMBER.hex()[:8], (NEIGHBOUR,), port, key, is_metered=False)
    return Config(profiles=(Profile(Target("127.0.0.1", 1080)),), bridges=(bridge,), hops=(hop,))


def fetch(land: Border, size: int = 500, limit_s: float = 10) -> subprocess.CompletedProcess[str]:
    """Ask the site for a page, by the client's gate."""
    url = f"http://site.example.net/{size}"
    return land.curl(
        "--socks5-hostname", GATE, "-o", "/dev/null", "-w", "%{http_code} %{size_download}", url, limit_s=limit_s
    )


def test_a_client_that_is_cut_goes_through_a_neighbour_who_sees_the_bridge_alone(land: Border, tmp_path: Path) -> None:
    with (
        bridge_abroad(land, tmp_path) as bridge,
        relaying(land, "neighbour", tmp_path, lent(AT), '"lent"') as event,
        land.censored(cut()),
        relaying(land, "client", tmp_path, out(bridge, event["port"]), '"using"') as using,
    ):
        assert using["bridge"].endswith("+" + NUMBER.hex()[:8])
        with captured(land.networks["neighbour"], "dish") as seen:
            assert fetch(land, 200_000).stdout.split() == ["200", "200000"]
        assert seen.to() == {(TCP, AT.host, AT.port)}
        assert not seen.told(b"site.example.net")


def test_without_the_key_nobody_is_let_through(land: Border, tmp_path: Path) -> None:
    with (
        bridge_abroad(land, tmp_path) as bridge,
        land.censored(cut()),
        relaying(land, "neighbour", tmp_path, lent(AT), '"lent"') as event,
        captured(land.networks["neighbour"], "dish") as seen,
        relaying(land, "client", tmp_path, out(bridge, event["port"], OTHER_KEY), '"listening"'),
    ):
        assert fetch(land, limit_s=3).returncode
    assert seen.to() == set()


def test_a_member_is_let_through_to_nothing_but_what_the_host_was_told(land: Border, tmp_path: Path) -> None:
    refused = f'+{NUMBER.hex()[:8]}","ok":false'
    with (
        bridge_abroad(land, tmp_path) as bridge,
        land.censored(cut()),
        relaying(land, "neighbour", tmp_path, lent(Target(BRIDGES[1], 443)), '"lent"') as event,
        captured(land.networks["neighbour"], "dish") as seen,
        relaying(land, "client", tmp_path, out(bridge, event["port"]), refused),
    ):
        assert fetch(land, limit_s=1).returncode
    assert seen.to() == set()


def test_who_has_used_their_share_of_the_day_is_let_through_no_more(land: Border, tmp_path: Path) -> None:
    quota = 1 << 20
    with (
        bridge_abroad(land, tmp_path) as bridge,
        land.censored(cut()),
        relaying(land, "neighbour", tmp_path, lent(AT, day_bytes=quota), '"lent"') as event,
        relaying(land, "client", tmp_path, out(bridge, event["port"]), '"using"'),
    ):
        assert fetch(land, 100_000).stdout.split() == ["200", "100000"]
        assert int(fetch(land, 4 * quota, limit_s=3).stdout.split()[1]) < quota + (1 << 18)
        assert fetch(land, 500, limit_s=1).returncode


def test_two_nodes_agree_by_letters_and_a_page_comes_by_the_neighbour_until_the_days_quota_is_used_up(
    land: Border, tmp_path: Path
) -> None:
    quota = 1 << 20
    with ExitStack() as stack:
        bridge = stack.enter_context(bridge_abroad(land, tmp_path))
        stack.enter_context(land.censored(cut()))
        ala, boris = (
            Elsewhere(made(tmp_path / name, name).home, land.networks[place])
            for name, place in (("Ala", "client"), ("Boris", "neighbour"))
        )
        ids = {one: one.json("id") for one in (ala, boris)}
        for me, you in ((ala, boris), (boris, ala)):
            me.json("contact", "add", ids[you]["link"])
        ala.json("reach", "bridge", "add", write_bridge(bridge))
        at = stack.enter_context(boris.up("--no-lan", "--listen", f"{NEIGHBOUR}:0", listeners=3)).at["nodes"]
        ala.json("peer", "add", at, ids[boris]["node"])
        stack.enter_context(ala.up("--no-lan"))
        boris.json("reach", "lend", "Ala", "--quota", str(quota))
        boris.json("reach", "share", "on", "--host", NEIGHBOUR)
        [offer] = until(lambda: ala.json("reach", "shared")["offered"])
        assert (offer["by"]["name"], offer["day_bytes"]) == ("Boris", quota)
        ala.json("reach", "use", offer["id"])
        ala.json("reach", "set", "--listen", GATE)
        ala.json("reach", "on")
        now = until(lambda: (found := ala.json("reach", "status"))["code"] == "working" and found)
        assert "+" in now["using"]
        [step] = [one for one in now["steps"] if one["bridge"] == now["using"]]
        assert step["through"]["name"] == "Boris"
        assert fetch(land, 100_000).stdout.split() == ["200", "100000"]
        assert int(fetch(land, 4 * quota).stdout.split()[1]) < quota + (1 << 18)
        [lent] = until(
            lambda: [one for one in boris.json("reach", "shared")["to"] if one["spent_today"] >= one["day_bytes"]]
        )
        assert lent["to"]["name"] == "Ala"
        ended = until(lambda: (found := ala.json("reach", "status"))["code"] == "nothing-works" and found)
        [step] = [one for one in ended["steps"] if one["bridge"] == now["using"]]
        assert "today's share may be used up" in step["evidence"]
