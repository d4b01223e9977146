"""Scrubbing: nothing that says who measured is left, whatever a measurement looks like."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.rooms.watch.entries import pack_raw, unpack_raw
from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.measurement import read
from outlast.rooms.watch.proto.traces import SCRUBBED
from outlast.rooms.watch.scrub import scrub
from tests.real import real

ADDRESS = "203.0.113.7"


def scrubbed(measurement: dict[str, Any]) -> dict[str, Any]:
    """The measurement as it would be published."""
    found: dict[str, Any] = json.loads(scrub(json.dumps(measurement).encode()))
    return found


def test_what_says_who_measured_goes() -> None:
    found = scrubbed(
        {
            "probe_ip": ADDRESS,
            "probe_city": "Homiel",
            "probe_cc": "BY",
            "report_id": "20260108T163000Z_AS6697_x",
            "annotations": {"phone": "mine"},
            "a_field_of_2030": "private until somebody decides",
            "input": f"https://example.org/?sid=deadbeef&q=1&from={ADDRESS}",
            "measurement_start_time": "2026-01-08 16:42:10",
            "test_keys": {
                "client_resolver": "198.51.100.53",
                "queries": [
                    {"hostname": "example.org", "resolver_address": "10.1.2.3:53", "answers": [{"ipv4": "192.0.2.1"}]}
                ],
                "requests": [
                    {
                        "request": {
                            "headers": {"Cookie": "a=b", "User-Agent": "mine"},
                            "url": f"http://x/?ip={ADDRESS}",
                        },
                        "response": {
                            "body": f"hello {ADDRESS}",
                            "code": 200,
                            "headers": {"Set-Cookie": "id=1", "X-Client-Ip": ADDRESS, "Server": "secret"},
                            "headers_list": [["Set-Cookie", "id=1"], ["Server", "secret"]],
                        },
                    }
                ],
            },
        }
    )
    text = json.dumps(found)
    for gone in (
        ADDRESS,
        "198.51.100.53",
        "10.1.2.3",
        "Homiel",
        "deadbeef",
        "hello",
        "id=1",
        "secret",
        "mine",
        "2030",
        "16:42",
    ):
        assert gone not in text, gone
    for kept in ("192.0.2.1", "example.org", "Server", "User-Agent", "2026-01-08 16:00:00", "&q=1"):
        assert kept in text, kept
    assert found["probe_ip"] == "127.0.0.1"


def test_an_address_that_only_pages_know_goes_and_measured_ones_stay() -> None:
    found = scrubbed(
        {
            "probe_ip": "127.0.0.1",
            "input": "https://example.org/?q=1",
            "test_keys": {
                "tcp_connect": [{"ip": "192.0.2.1", "port": 443}],
                "tls_handshakes": [
                    {"failure": None, "peer_certificates": [{"data": "aaaa"}], "address": "[2001:db8::9]:443"}
                ],
                "x_sni_handshakes": [{"failure": None, "no_tls_verify": True, "peer_certificates": [{"data": "bbbb"}]}],
                "requests": [{"request": {"url": f"https://example.org/{ADDRESS}?session=5&to=192.0.2.1"}}],
                "control": {
                    "http_request": {"title": f"You are {ADDRESS} at 192.0.2.1, 2001:db8::9 or ::ffff:{ADDRESS}"}
                },
            },
        }
    )
    text = json.dumps(found)
    for gone in (ADDRESS, "session=5", "aaaa"):
        assert gone not in text
    title = found["test_keys"]["control"]["http_request"]["title"]
    assert title == "You are [scrubbed] at 192.0.2.1, 2001:db8::9 or [scrubbed]"
    assert found["input"] == "https://example.org/?q=1"
    assert "bbbb" in text


@pytest.mark.parametrize("way", ["by address", "by a name that means it"])
def test_a_redirect_to_the_prober_s_own_address_publishes_it_nowhere(way: str) -> None:
    host = ADDRESS if way == "by address" else f"{ADDRESS}.means.example"
    answered = [{"hostname": host, "failure": None, "answers": [{"answer_type": "A", "ipv4": ADDRESS}]}]
    first, site, elsewhere = "192.0.2.1", "198.51.100.8", "198.51.100.9"
    found = scrubbed(
        {
            "test_name": "web_connectivity",
            "input": "https://Site.example/",
            "test_keys": {
                "queries": [
                    {"hostname": "site.example", "failure": None, "answers": [{"answer_type": "A", "ipv4": first}]},
                    *(answered if host != ADDRESS else []),
                ],
                "tcp_connect": [
                    {"ip": ip, "port": 443, "status": {"failure": None, "success": True}}
                    for ip in (first, site, elsewhere, ADDRESS)
                ],
                "network_events": [{"operation": "connect", "address": f"{ADDRESS}:443", "proto": "tcp"}],
                "tls_handshakes": [
                    {"failure": None, "no_tls_verify": False, "server_name": "www.example", "address": f"{site}:443"},
                    {
                        "failure": "ssl_unknown_authority",
                        "server_name": host,
                        "address": f"{ADDRESS}:443",
                        "peer_certificates": [{"data": "the router's", "format": "base64"}],
                    },
                ],
                "requests": [{"request": {"url": f"https://{host}/"}, "failure": "connection_refused"}],
                "control": {"dns": {"addrs": [elsewhere]}, "tcp_connect": {f"{first}:443": {"status": True}}},
            },
        }
    )
    text = json.dumps(found)
    assert ADDRESS not in text
    assert "the router's" not in text
    assert [one["ip"] for one in found["test_keys"]["tcp_connect"]] == [first, site, elsewhere, SCRUBBED]


def test_what_a_site_made_for_one_visitor_is_published_nowhere() -> None:
    answer = {
        "code": 302,
        "headers": {"X-Visitor-4711": "", "Content-Type": "text/html", "X-Site": "1"},
        "headers_list": [["X-Visitor-4711", ""], ["Content-Type", "text/html"], ["x-site", "1"]],
    }
    asked = ("https://example.org/page", "https://www.example.org/page", "https://www.example.org/u/4711?v4711=1#4711", "https://block.example/", "https://other.example?4711")  # fmt: skip # noqa: E501
    found = scrubbed(
        {
            "test_name": "web_connectivity",
            "input": "http://example.org/page",
            "test_keys": {
                "requests": [
                    {"request": {"url": url, "headers": {"User-Agent": "x", "X-Mine": ""}}, "response": answer}
                    for url in asked
                ],
                "control": {"http_request": {"status_code": 200, "headers": {"X-Site": "1", "X-Elsewhere": "2"}}},
            },
        }
    )
    assert "4711" not in json.dumps(found)
    requests = found["test_keys"]["requests"]
    assert [one["request"]["url"] for one in requests] == [
        "https://example.org/page",
        "https://www.example.org/page",
        f"https://www.example.org/{SCRUBBED}",
        "https://block.example/",
        f"https://other.example/{SCRUBBED}",
    ]
    assert requests[0]["response"]["headers"] == {"Content-Type": "", "X-Site": ""}
    assert requests[0]["response"]["headers_list"] == [["Content-Type", ""], ["x-site", ""]]
    assert requests[0]["request"]["headers"] == {"User-Agent": "", "X-Mine": ""}, "what this program sent"


def test_what_looks_like_a_session_goes_from_a_fragment_too() -> None:
    assert scrubbed({"input": "https://example.org/#access_token=abc"})["input"].endswith(f"#access_token={SCRUBBED}")


@pytest.mark.parametrize("name", ["token", "a?x_sid", "?key?x", "Session_Id", "b&apikey"])
def test_a_secret_goes_wherever_a_question_mark_stands_before_its_name(name: str) -> None:
    title = scrubbed({"test_keys": {"title": f"see /?{name}=abcde&q=1"}})["test_keys"]["title"]
    assert title == f"see /?{name}={SCRUBBED}&q=1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(
    st.dictionaries(
        st.sampled_from(["probe_ip", "input", "test_keys", "headers", "measurement_start_time"]), json_values
    )
)
def test_any_object_is_scrubbed_or_refused_and_never_more(measurement: dict[str, Any]) -> None:
    found = scrubbed(measurement)
    assert set(found) <= {"input", "test_keys", "measurement_start_time", "probe_ip", "probe_asn"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 10_000])
def test_what_is_no_measurement_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        scrub(data)


@pytest.mark.parametrize("data", [b"", b"nonsense", pack_raw(b"x" * 100) + b"more", pack_raw(b"x" * 100)[:-3]])
def test_a_damaged_record_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_raw(data)


def test_a_bomb_in_a_record_is_refused() -> None:
    import zlib

    bomb = zlib.compress(bytes(64 << 20), 9)
    with pytest.raises(ProtocolError):
        unpack_raw(bomb)
    assert unpack_raw(pack_raw(b"{}")) == b"{}"


def test_real_measurements_give_others_the_same_verdict_after_scrubbing_and_name_no_resolver() -> None:
    for path in sorted(real("watch/ooni/qa").glob("*/measurement.json")):
        data = path.read_bytes()
        clean = scrub(data)
        assert read(clean).input == read(data).input
        assert b"resolver_ip" not in clean
        assert len(pack_raw(clean)) > 0, "each can be published"
        before, after = classify(read(data)), classify(read(clean))
        assert (after.blocking, after.accessible, after.layers) == (before.blocking, before.accessible, before.layers)
    for path in sorted(real("watch/ooni/real").glob("*.json")):
        with contextlib.suppress(ProtocolError):  # one holds nothing that was measured
            before, after = classify(read(path.read_bytes())), classify(read(scrub(path.read_bytes())))
            assert (after.blocking, after.layers) == (before.blocking, before.layers), path.name
