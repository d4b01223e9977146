"""Each kind of censorship, by a real probe in a country that does it, with the verdict that must come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.measurement import from_object
from outlast.rooms.watch.proto.services import TELEGRAM_POINTS
from tests.rooms.watch.country import (
    AUTHORITY,
    BLOCK_PAGE,
    CONTROL,
    DOH,
    DOMESTIC,
    GATE,
    HOME,
    OFFICE,
    RESOLVERS,
    SITES,
    Country,
    country,
)

pytestmark = pytest.mark.serial

FINE = {"dns": "ok", "tcp": "ok", "tls": "ok", "http": "ok", "throttled": "unknown"}
# What is done to each site: blocking, accessible, and the layers that are not fine.
VERDICTS: dict[str, tuple[Any, bool, dict[str, str]]] = {
    "https://dropped.example.net/": ("tcp_ip", False, {"tcp": "blocked", "tls": "unknown", "http": "unknown"}),
    "https://slow.example.net/": (False, True, {"throttled": "blocked"}),
    "https://free.example.net/": (False, True, {}),
    "https://forged.example.net/": ("dns", False, {"dns": "blocked"}),
    "https://sni.example.net/": ("http-failure", False, {"tls": "blocked", "http": "unknown"}),
    "http://hijacked.example.net/": ("dns", False, {"dns": "blocked", "http": "blocked"}),
    "http://redirected.example.net/": ("http-diff", False, {"http": "blocked"}),
    "https://intercepted.example.net/": ("http-failure", False, {"tls": "blocked", "http": "unknown"}),
}


@pytest.fixture(scope="module")
def nation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Country]:
    with country(tmp_path_factory.mktemp("country")) as made:
        yield made


@pytest.fixture(scope="module")
def run(nation: Country) -> tuple[dict[str, Any], dict[str, Any], tuple[int, int]]:
    """One run over all sites: rows and measurements by input, and the packets that left home."""
    before = nation.counted()
    said, written = nation.probe(*VERDICTS)
    after = nation.counted()
    rows, measurements = ({one["input"]: one for one in each} for each in (said, written))
    return rows, measurements, (after[0] - before[0], after[1] - before[1])


@pytest.mark.parametrize("url", VERDICTS)
def test_each_kind_of_censorship_is_recognised_and_none_is_seen_where_there_is_none(url: str, run: Any) -> None:
    blocking, accessible, layers = VERDICTS[url]
    row = run[0][url]
    assert (row["blocking"], row["accessible"], row["layers"]) == (blocking, accessible, FINE | layers)
    assert (row["control"], row["fingerprint"]) == ("ok", None)


def test_what_was_written_without_pages_texts_gives_the_same_verdict(run: Any) -> None:
    rows, measurements, _ = run
    for url, measured in measurements.items():
        verdict = classify(from_object(measured))
        assert (verdict.blocking, verdict.accessible) == (rows[url]["blocking"], rows[url]["accessible"])
        for request in measured["test_keys"]["requests"]:
            assert "quick brown" not in request["response"]["body"]


def test_packets_go_to_the_targets_the_resolvers_and_the_control_alone(run: Any) -> None:
    ours, all_of_them = run[2]
    assert ours == all_of_them > 100


def test_nothing_that_is_written_names_the_operator(run: Any) -> None:
    for measured in run[1].values():
        assert HOME not in repr(measured)
        assert measured["probe_ip"] == "127.0.0.1"


def test_the_forged_reply_is_there_and_the_true_one_that_came_after_it(run: Any) -> None:
    keys = run[1]["https://forged.example.net/"]["test_keys"]
    first = [one for one in keys["queries"] if one["engine"] == "udp" and one["query_type"] == "A"]
    later = [one for one in keys["x_dns_duplicate_responses"] if one["query_type"] == "A"]
    assert {one["answers"][0]["ipv4"] for one in first} == {DOMESTIC}
    assert {one["answers"][0]["ipv4"] for one in later} == {SITES["forged"]}


def test_filtering_by_name_shows_in_the_names_that_pass(run: Any) -> None:
    keys = run[1]["https://sni.example.net/"]["test_keys"]
    passed = {one["server_name"]: one["failure"] for one in keys["x_sni_handshakes"]}
    assert passed == {"sni.example.net": "connection_reset", "example.org": None, "": None}
    assert [one["answer"] for one in keys["x_quic_initial"]] == ["initial"]


def test_an_intercepted_handshake_keeps_the_foreign_certificate(run: Any) -> None:
    from base64 import b64decode

    from cryptography.x509 import load_der_x509_certificate

    keys = run[1]["https://intercepted.example.net/"]["test_keys"]
    assert [one["failure"] for one in keys["tls_handshakes"]] == ["ssl_unknown_authority"]
    [kept] = [one for one in keys["x_sni_handshakes"] if one["server_name"] == "intercepted.example.net"]
    certificate = load_der_x509_certificate(b64decode(kept["peer_certificates"][0]["data"]))
    assert certificate.issuer.rfc4514_string() == "CN=Ministry"


def test_what_a_network_adds_to_names_makes_no_site_of_one_that_is_gone_and_is_written_nowhere(nation: Country) -> None:
    [row], [measured] = nation.probe("http://gone.example.net/")
    assert (row["accessible"], row["layers"]["dns"]) == (False, "down")
    assert OFFICE not in json.dumps(measured)


def test_a_network_that_lets_nobody_ask_other_resolvers_blocks_no_site(nation: Country) -> None:
    nation.cut(f"ip daddr {{ {', '.join(RESOLVERS)} }} udp dport 53 drop")
    try:
        [row], _ = nation.probe("https://free.example.net/")
    finally:
        nation.cut()
    assert (row["accessible"], row["layers"]) == (True, FINE)


def test_without_a_control_a_valid_certificate_is_the_only_witness(nation: Country) -> None:
    said, _ = nation.probe("https://free.example.net/", "https://sni.example.net/", control=False)
    rows = {one["input"]: one for one in said}
    assert {one["control"] for one in said} == {"none"}
    free, blocked = rows["https://free.example.net/"], rows["https://sni.example.net/"]
    assert (free["blocking"], free["accessible"]) == (False, True)
    assert (blocked["blocking"], blocked["accessible"], blocked["layers"]["tls"]) == (None, None, "blocked")


def test_each_address_of_a_resolver_is_checked_by_each_way_to_ask(nation: Country) -> None:
    ways = ("https://dns.example.net/dns-query", "dot://dns.example.net", "udp://8.8.8.8", "tcp://9.9.9.9")
    _, written = nation.measure("--test", "dnscheck", *ways)
    ended = {one["input"]: {k: v["failure"] for k, v in one["test_keys"]["lookups"].items()} for one in written}
    assert ended == {
        ways[0]: {"https://9.9.9.9:443/dns-query": None},
        ways[1]: {"dot://9.9.9.9:853": None},
        ways[2]: {"udp://8.8.8.8:53": None},
        ways[3]: {"tcp://9.9.9.9:53": "connection_refused"},
    }
    [dot] = [one["test_keys"] for one in written if one["input"] == ways[1]]
    assert dot["bootstrap"]["queries"][0]["answers"][0]["ipv4"] == DOH
    [answer] = dot["lookups"]["dot://9.9.9.9:853"]["queries"][0]["answers"]
    assert answer["ipv4"] == SITES["free"]


def test_telegram_is_reachable_by_any_of_its_points_and_the_web(nation: Country) -> None:
    [row], [measured] = nation.measure("--test", "telegram")
    keys = measured["test_keys"]
    assert (keys["telegram_tcp_blocking"], keys["telegram_http_blocking"]) == (False, False)
    assert (keys["telegram_web_status"], keys["telegram_web_failure"]) == ("ok", None)
    assert len(keys["tcp_connect"]) == 13
    assert row["layers"]["tcp"] == "ok"
    nation.cut(f"ip daddr {{ {', '.join(TELEGRAM_POINTS)} }} reject with tcp reset")
    try:
        [row], [measured] = nation.measure("--test", "telegram")
    finally:
        nation.cut()
    assert measured["test_keys"]["telegram_tcp_blocking"]
    assert row["layers"]["tcp"] == "blocked"


def test_tors_targets_are_reached_and_a_bridge_is_never_named(nation: Country) -> None:
    bridge = SITES["free"]
    file = nation.folder / "tor.json"
    targets = {
        "authority": {"address": f"{AUTHORITY}:9001", "protocol": "or_port_dirauth", "name": "one"},
        "directory": {"address": f"{AUTHORITY}:80", "protocol": "dir_port"},
        "mine": {"address": f"{bridge}:443", "protocol": "obfs4", "name": "secret"},
    }
    file.write_text(json.dumps(targets))
    _, [measured] = nation.measure("--test", "tor", "--list", str(file))
    keys = measured["test_keys"]
    assert {one["target_protocol"]: one["failure"] for one in keys["targets"].values()} == {
        "or_port_dirauth": None,
        "dir_port": None,
        "obfs4": None,
    }
    assert (keys["or_port_dirauth_accessible"], keys["dir_port_accessible"], keys["obfs4_accessible"]) == (1, 1, 1)
    assert not {bridge, "secret", "mine"} & set(json.dumps(measured).replace(":", '"').split('"'))


def test_a_contacts_node_in_the_country_probes_for_somebody_abroad(nation: Country) -> None:
    def at(place: str, *arguments: str) -> Any:
        return ended(nation.outlast(place, "--json", *arguments))

    def ended(done: Any) -> Any:
        said, told = done.communicate(timeout=60)
        assert done.returncode == 0, told
        return json.loads(said.splitlines()[-1]) if said.strip() else None

    def up(place: str, *arguments: str) -> dict[str, str]:
        node = nation.outlast(place, "up", "--port", "0", "--no-lan", *arguments)
        assert node.stdout is not None
        told = [node.stdout.readline().split() for _ in range(2 if arguments else 1)]
        assert all(told), node.communicate(timeout=20)
        return {what: where for what, where in told}

    names = {"home": "Anna", "abroad": "Vera"}
    made = [nation.outlast(place, "--json", "init", "--name", name, "--unattended") for place, name in names.items()]
    for one in made:
        ended(one)
    ids = {place: at(place, "id") for place in names}
    at("home", "contact", "add", ids["abroad"]["link"])
    at("abroad", "contact", "add", ids["home"]["link"])
    at("abroad", "peer", "add", f"{HOME}:1", ids["home"]["node"])
    listen = up("abroad", "--listen", f"{CONTROL}:9000")
    assert listen
    at("home", "peer", "add", f"{CONTROL}:9000", ids["abroad"]["node"])
    at("home", "watch", "probe-for", "Vera", "--yes-i-know")
    up("home")
    at("abroad", "watch", "probe", "https://sni.example.net/", "--from", "Anna")
    deadline = time.monotonic() + 60
    while not (answer := at("abroad", "watch", "answers")[0])["done_ms"]:
        assert time.monotonic() < deadline
    assert (answer["name"], answer["problem"]) == ("Anna", "")
    assert (answer["layers"]["dns"], answer["layers"]["tcp"], answer["accessible"]) == ("unknown", "ok", None)


@pytest.mark.parametrize(
    ("rules", "state", "domestic"),
    [
        (
            [f"ip daddr != {{ 5.22.200.1, {DOMESTIC}, {BLOCK_PAGE} }} reject with icmp admin-prohibited"],
            "whitelist",
            True,
        ),
        ([f"ip daddr != {GATE} reject with icmp net-unreachable", "udp dport 53 drop"], "blackout", None),
    ],
    ids=["whitelist", "total cut"],
)
def test_a_cut_of_the_country_is_told_from_a_blocked_site(
    nation: Country, rules: list[str], state: str, domestic: bool | None
) -> None:
    nation.cut(*rules)
    try:
        said, _ = nation.probe("https://free.example.net/", "--domestic", "https://domestic.example.net/")
    finally:
        nation.cut()
    link = said.pop()
    rows = {one["input"]: one for one in said}
    assert link["link"] == state
    assert rows["https://domestic.example.net/"]["accessible"] is domestic
    assert rows["https://free.example.net/"]["accessible"] is None
