"""The rules by which a measurement is judged, each by the smallest measurement that shows it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from outlast.rooms.watch.proto.classify import Verdict, classify
from outlast.rooms.watch.proto.fingerprints import Fingerprint, Fingerprints
from outlast.rooms.watch.proto.measurement import from_object
from outlast.rooms.watch.proto.observations import is_bogon, is_loopback, title_of

URL = "http://a.example/"
OURS, THEIRS, ELSEWHERE = "1.2.3.4", "1.2.3.4", "5.6.7.8"
PAGE = "<title>A perfectly ordinary page</title>" + "x" * 500


def lookup(*addresses: str, failure: str | None = None, transaction: int = 1, depth: int = 0, **more: Any) -> Any:
    """A query of the system's resolver."""
    answers = [
        {"answer_type": "AAAA" if ":" in one else "A", "ipv6" if ":" in one else "ipv4": one} for one in addresses
    ]
    host = "a.example" if depth == 0 else "b.example"
    common = {"hostname": host, "engine": "getaddrinfo", "failure": failure, "query_type": "A"}
    return {**common, "answers": answers, "transaction_id": transaction, "tags": [f"depth={depth}"], **more}


def connect(ip: str = OURS, failure: str | None = None, transaction: int = 5, depth: int = 0, port: int = 80) -> Any:
    """A TCP connect."""
    tags = [f"depth={depth}", "fetch_body=true"]
    return {"ip": ip, "port": port, "status": {"failure": failure}, "transaction_id": transaction, "tags": tags}


def handshake(ip: str = OURS, failure: str | None = None, transaction: int = 5, depth: int = 0) -> Any:
    """A TLS handshake."""
    common = {"address": f"{ip}:443", "server_name": "a.example", "failure": failure, "transaction_id": transaction}
    return {**common, "tags": [f"depth={depth}", "fetch_body=true"]}


def request(
    failure: str | None = None, transaction: int = 5, depth: int = 0, code: int = 200, body: str = PAGE, **response: Any
) -> Any:
    """An HTTP round trip."""
    return {
        "failure": failure,
        "request": {"url": URL},
        "response": {"code": code, "body": body, "headers": {"X-Own": "1"}, "body_is_truncated": False, **response},
        "transaction_id": transaction,
        "tags": [f"depth={depth}", "fetch_body=true"],
    }


def control(
    *addresses: str,
    dns: str | None = None,
    tcp: str | None = None,
    tls: str | None = None,
    http: str | None = None,
    port: int = 80,
) -> Any:
    """What the control saw."""
    found = addresses or (THEIRS,)
    page = {
        "status_code": 200,
        "body_length": len(PAGE),
        "title": "A perfectly ordinary page",
        "headers": {"X-Own": "1"},
    }
    return {
        "dns": {"failure": dns, "addrs": [] if dns else list(found)},
        "tcp_connect": {f"{OURS}:{port}": {"failure": tcp}},
        "tls_handshake": {f"{OURS}:443": {"failure": tls, "server_name": "a.example"}},
        "http_request": {"failure": http, **({} if http else page)},
    }


def judged(
    *,
    queries: Any = None,
    tcp_connect: Any = None,
    tls_handshakes: Any = None,
    requests: Any = None,
    seen: Any = None,
    known: Fingerprints | None = None,
    **more: Any,
) -> Verdict:
    """The verdict on a measurement of web_connectivity with these events."""
    keys = {
        "queries": queries if queries is not None else [lookup(OURS)],
        "tcp_connect": tcp_connect,
        "tls_handshakes": tls_handshakes,
        "requests": requests,
        "control": seen,
        "x_control_request": {"http_request": URL},
        **more,
    }
    top = {"test_name": "web_connectivity", "input": URL, "probe_cc": "IR", "test_keys": keys}
    return classify(from_object(top), known)


def said(verdict: Verdict) -> tuple[Any, ...]:
    """The legacy values, then dns, tcp, tls, http."""
    layers = verdict.layers
    return verdict.blocking, verdict.accessible, layers.dns, layers.tcp, layers.tls, layers.http


def test_the_controls_page_is_no_blocking() -> None:
    verdict = judged(tcp_connect=[connect()], requests=[request()], seen=control())
    assert said(verdict) == (False, True, "ok", "ok", "unknown", "ok")
    assert verdict.evidence == ()


def test_another_page_over_http_is_a_difference() -> None:
    other = request(code=403, body="no", headers={})
    verdict = judged(tcp_connect=[connect()], requests=[other], seen=control())
    assert said(verdict) == ("http-diff", False, "ok", "ok", "unknown", "blocked")


@pytest.mark.parametrize(
    "other",
    [
        request(body="<title>Something altogether different</title>" + "x" * 480, headers={}),
        request(body="<title>A perfectly ordinary page</title>", headers={}),
        request(body="no", headers={"x-own": "2"}),
    ],
    ids=["length", "title", "rare header"],
)
def test_one_likeness_beside_the_status_is_enough(other: Any) -> None:
    assert judged(tcp_connect=[connect()], requests=[other], seen=control()).blocking is False


def test_a_page_over_tls_is_the_site_whatever_it_says() -> None:
    verdict = judged(
        tcp_connect=[connect(port=443)],
        tls_handshakes=[handshake()],
        requests=[request(code=503, body="")],
        seen=control(),
    )
    assert said(verdict) == (False, True, "ok", "ok", "ok", "ok")


def test_a_page_without_control_says_nothing() -> None:
    verdict = judged(tcp_connect=[connect()], requests=[request()])
    assert said(verdict) == (None, None, "unknown", "ok", "unknown", "unknown")


@pytest.mark.parametrize(
    ("events", "seen", "expected"),
    [
        (
            {"queries": [lookup(failure="dns_nxdomain_error")]},
            control(),
            ("dns", False, "blocked", "unknown", "unknown", "unknown"),
        ),
        (
            {"queries": [lookup(failure="dns_nxdomain_error")]},
            control(dns="nxdomain", http="nxdomain"),
            (False, False, "down", "unknown", "unknown", "down"),
        ),
        (
            {"queries": [lookup(failure="dns_no_answer")]},
            control() | {"dns": {"failure": None, "addrs": []}},
            (False, False, "down", "unknown", "unknown", "unknown"),
        ),
        (
            {"tcp_connect": [connect(failure="connection_refused")]},
            control(),
            ("tcp_ip", False, "ok", "blocked", "unknown", "unknown"),
        ),
        (
            {"tcp_connect": [connect(failure="connection_refused")]},
            control(tcp="x", http="x"),
            (False, False, "ok", "down", "unknown", "down"),
        ),
        (
            {"tcp_connect": [connect(port=443)], "tls_handshakes": [handshake(failure="connection_reset")]},
            control(port=443),
            ("http-failure", False, "ok", "ok", "blocked", "unknown"),
        ),
        (
            {"tcp_connect": [connect(port=443)], "tls_handshakes": [handshake(failure="ssl_invalid")]},
            control(port=443, tls="ssl_invalid", http="ssl_invalid"),
            (False, False, "ok", "ok", "down", "down"),
        ),
        (
            {"tcp_connect": [connect()], "requests": [request(failure="connection_reset", code=0)]},
            control(),
            ("http-failure", False, "ok", "ok", "unknown", "blocked"),
        ),
        (
            {"tcp_connect": [connect()], "requests": [request(failure="eof_error", code=0)]},
            control(http="eof_error"),
            (False, False, "ok", "ok", "unknown", "down"),
        ),
    ],
    ids=["dns", "dns down", "no such address", "tcp", "tcp down", "tls", "tls down", "http", "http down"],
)
def test_a_step_is_blocked_when_it_fails_alone_and_down_when_the_control_fails_too(
    events: dict[str, Any], seen: Any, expected: tuple[Any, ...]
) -> None:
    assert said(judged(**events, seen=seen)) == expected


def test_wrong_addresses_explain_what_came_of_them() -> None:
    verdict = judged(
        queries=[lookup("10.10.34.36")], tcp_connect=[connect("10.10.34.36", "generic_timeout_error")], seen=control()
    )
    assert said(verdict)[:3] == ("dns", False, "blocked")


def test_a_certificate_proves_an_address_that_the_control_did_not_have() -> None:
    verdict = judged(
        queries=[lookup(ELSEWHERE)],
        tcp_connect=[connect(ELSEWHERE, port=443)],
        tls_handshakes=[handshake(ELSEWHERE)],
        requests=[request()],
        seen=control(),
    )
    assert said(verdict) == (False, True, "ok", "ok", "ok", "ok")


def test_an_address_in_the_controls_network_is_as_good_as_the_same() -> None:
    queries = [lookup(ELSEWHERE, answers=[{"answer_type": "A", "ipv4": ELSEWHERE, "asn": 64500}])]
    for asn, layer in ((64500, "ok"), (64501, "blocked")):
        seen = control() | {"ip_info": {THEIRS: {"asn": asn}}}
        assert judged(queries=queries, tcp_connect=[connect(ELSEWHERE)], seen=seen).layers.dns == layer


def test_addresses_for_a_name_that_does_not_exist_are_forged() -> None:
    verdict = judged(tcp_connect=[connect()], requests=[request()], seen=control(dns="nxdomain", http="nxdomain"))
    assert (verdict.blocking, verdict.layers.dns) == ("dns", "blocked")


def test_a_bogon_where_another_resolver_had_a_real_address_needs_no_control() -> None:
    queries = [lookup("10.10.34.36"), lookup(OURS, transaction=2, engine="udp")]
    assert judged(queries=queries).layers.dns == "blocked"
    assert judged(queries=queries[:1]).layers.dns == "unknown"


RESET = "connection_reset"


@pytest.mark.parametrize(
    ("first", "again", "neutral", "more", "layer"),
    [
        (RESET, RESET, None, {}, "blocked"),
        ("generic_timeout_error", "generic_timeout_error", None, {}, "blocked"),
        (RESET, None, None, {}, "unknown"),
        (RESET, RESET, RESET, {}, "unknown"),
        ("ssl_failed_handshake", "ssl_failed_handshake", None, {}, "unknown"),
        ("ssl_unknown_authority", None, None, {}, "unknown"),
        (RESET, RESET, None, {"seen": control(OURS, tls=RESET, http=RESET, port=443)}, "down"),
        (RESET, RESET, None, {"elsewhere": True}, "unknown"),
    ],
    ids=["reset", "silence", "only once", "both", "alert", "interception", "down", "another address"],
)
def test_a_name_at_which_an_address_falls_silent_is_filtered_when_it_answers_to_another(
    first: str, again: str | None, neutral: str | None, more: dict[str, Any], layer: str
) -> None:
    at = ELSEWHERE if more.pop("elsewhere", False) else OURS
    others = [handshake(at, again, 7), handshake(at, neutral, 8) | {"server_name": "example.org"}]
    others.append(handshake(at, None, 9) | {"server_name": ""})
    verdict = judged(
        tcp_connect=[connect(port=443)], tls_handshakes=[handshake(failure=first)], x_sni_handshakes=others, **more
    )
    assert verdict.layers.tls == layer
    assert len(verdict.evidence) == (layer == "blocked")


def test_many_handshakes_by_name_are_soon_judged() -> None:
    shaken = [handshake(failure=RESET)] * 4000
    begin = time.process_time()
    verdict = judged(tcp_connect=[connect(port=443)], tls_handshakes=shaken, x_sni_handshakes=shaken)
    assert verdict.layers.tls == "unknown"
    assert time.process_time() - begin < 1


def test_failures_of_doh_and_a_missing_aaaa_say_nothing_of_the_site() -> None:
    queries = [
        lookup(OURS),
        lookup(failure="connection_reset", engine="doh", transaction=2),
        lookup(failure="dns_no_answer", query_type="AAAA", transaction=3),
    ]
    assert judged(queries=queries, tcp_connect=[connect()], requests=[request()], seen=control()).layers.dns == "ok"


SIX, THEIR_SIX = "2a03:2880:f201:e5::1", "2a03:2880:f242:e0::1"


def test_where_no_ipv6_gets_through_and_ipv4_does_nothing_is_said_of_a_silent_address() -> None:
    four = [connect(), connect("1.2.3.5", transaction=7)]
    seen = control(THEIRS, SIX)
    seen["tcp_connect"] |= {f"[{SIX}]:80": {"failure": None}}
    queries = [lookup(OURS, SIX)]

    def tcp(failure: str | None, others: Any) -> str:
        silent = connect(SIX, failure, transaction=6)
        return judged(queries=queries, tcp_connect=[silent, *others], requests=[request()], seen=seen).layers.tcp

    assert tcp("generic_timeout_error", four) == "ok"
    assert tcp("generic_timeout_error", [connect(SIX, transaction=8), *four]) == "blocked"  # IPv6 leads elsewhere
    assert tcp("generic_timeout_error", [connect(failure="generic_timeout_error")]) == "blocked"  # nor does IPv4


def test_other_ipv6_addresses_that_nobody_can_compare_are_not_forged_where_ipv4_is_proven() -> None:
    queries = [lookup(ELSEWHERE), lookup(SIX, transaction=2, query_type="AAAA")]
    proven: Any = {"tcp_connect": [connect(ELSEWHERE, port=443)], "tls_handshakes": [handshake(ELSEWHERE)]}
    seen = control(THEIRS, THEIR_SIX)
    assert judged(queries=queries, **proven, seen=seen).layers.dns == "ok"
    assert judged(queries=queries, seen=seen).layers.dns == "blocked"  # nothing was proven
    for other in (
        lookup(SIX, transaction=2, engine="udp"),
        lookup("5.6.7.9", transaction=2),
        lookup("fe80::1", transaction=2),
    ):
        assert judged(queries=[queries[0], other], **proven, seen=seen).layers.dns == "blocked"
    theirs_known = seen | {"ip_info": {THEIR_SIX: {"asn": 32934, "flags": 0}}}
    ours_known = lookup(SIX, transaction=2)
    ours_known["answers"][0]["asn"] = 6697
    assert judged(queries=[queries[0], ours_known], **proven, seen=seen).layers.dns == "ok"
    assert judged(queries=queries, **proven, seen=theirs_known).layers.dns == "ok"
    assert judged(queries=[queries[0], ours_known], **proven, seen=theirs_known).layers.dns == "blocked"


TRANSLATED = "64:ff9b::102:304"
"""OURS, as a network without IPv4 has it by DNS64."""


def test_what_a_network_without_ipv4_makes_of_an_address_is_that_address() -> None:
    none = "network_unreachable"
    resolver, four = lookup(failure=none, transaction=2, engine="udp"), connect(failure=none, transaction=6)
    doh = lookup(OURS, transaction=3, engine="doh")
    reached = judged(
        queries=[lookup(TRANSLATED), resolver, doh],
        tcp_connect=[connect(TRANSLATED), four],
        requests=[request()],
        seen=control(),
    )
    assert said(reached) == (False, True, "ok", "ok", "unknown", "ok")
    silent = connect(TRANSLATED, "generic_timeout_error")
    blocked = judged(queries=[lookup(TRANSLATED)], tcp_connect=[silent], seen=control())
    assert said(blocked) == ("tcp_ip", False, "ok", "blocked", "unknown", "unknown")
    down = judged(queries=[lookup(TRANSLATED)], tcp_connect=[silent], seen=control(tcp="generic_timeout_error"))
    assert down.layers.tcp == "down"
    forged = judged(queries=[lookup("64:ff9b::506:708")], seen=control())
    assert forged.layers.dns == "blocked", "translated is what the provider's resolver said"


@pytest.mark.parametrize("failure", ["generic_timeout_error", "network_unreachable", "connection_refused"])
def test_a_resolver_from_which_nothing_comes_says_nothing_of_a_site_whose_addresses_another_gives(failure: str) -> None:
    def dns(system: Any, udp: Any) -> str:
        return judged(queries=[system, udp], tcp_connect=[connect()], requests=[request()], seen=control()).layers.dns

    unheard = lookup(failure=failure, transaction=2, engine="udp")
    assert dns(lookup(OURS), unheard) == "ok"
    assert dns(lookup(failure="generic_timeout_error"), unheard) == "blocked"
    assert dns(lookup(ELSEWHERE), unheard) == "blocked"
    assert dns(lookup(OURS), lookup(failure="dns_nxdomain_error", transaction=2, engine="udp")) == "blocked"


def test_where_ipv4_is_silent_and_ipv6_goes_well_it_is_only_no_news_without_any_ipv4() -> None:
    six = connect("2600::1", transaction=7)

    def tcp(failure: str) -> str:
        return judged(tcp_connect=[connect(failure=failure), six], seen=control()).layers.tcp

    assert (tcp("network_unreachable"), tcp("generic_timeout_error")) == ("ok", "blocked")


def test_a_host_without_ipv6_is_not_blocked() -> None:
    six = "2001:4860::8"
    seen = control(OURS, six)
    seen["tcp_connect"][f"[{six}]:80"] = {"failure": None}
    connects = [connect(), connect(six, "network_unreachable", transaction=6)]
    assert judged(queries=[lookup(OURS, six)], tcp_connect=connects, requests=[request()], seen=seen).layers.tcp == "ok"


def test_a_failure_within_redirects_counts_when_the_control_got_through() -> None:
    events = {
        "queries": [lookup(OURS), lookup(ELSEWHERE, transaction=2, depth=1)],
        "tcp_connect": [connect(), connect(ELSEWHERE, "connection_reset", transaction=6, depth=1)],
        "requests": [request(code=302, body="")],
    }
    verdict = judged(**events, seen=control())
    assert (verdict.blocking, verdict.layers.tcp) == ("http-failure", "blocked")
    assert judged(**events).layers.tcp == "ok"
    assert judged(**events, seen=control(http="unknown_error")).layers.tcp == "ok"
    arrived = {**events, "requests": [request()]}
    assert judged(**arrived, seen=control()).layers.tcp == "ok", "what followed it led to the page all the same"


def test_only_what_the_systems_resolver_led_to_counts_for_the_legacy_values() -> None:
    queries = [lookup(failure="dns_nxdomain_error"), lookup(OURS, transaction=2, engine="udp")]
    verdict = judged(queries=queries, tcp_connect=[connect()], requests=[request()], seen=control())
    assert (verdict.blocking, verdict.layers.http) == ("dns", "ok")


def test_without_any_tag_everything_is_classic() -> None:
    def bare(events: list[Any]) -> list[Any]:
        return [{**event, "tags": [tag for tag in event["tags"] if tag.startswith("depth")]} for event in events]

    verdict = judged(
        queries=bare([lookup(OURS, engine="udp")]),
        tcp_connect=bare([connect()]),
        requests=bare([request()]),
        seen=control(),
    )
    assert (verdict.blocking, verdict.accessible) == (False, True)


# ---- before web_connectivity 0.5 ----


def old(events: list[Any]) -> list[Any]:
    """The events as old probes wrote them."""
    return [
        {name: value for name, value in event.items() if name not in ("tags", "transaction_id")} for event in events
    ]


def test_an_old_control_without_handshakes_compares_the_whole_request() -> None:
    def judged_with(http: str | None) -> Verdict:
        seen = {name: value for name, value in control(port=443, http=http).items() if name != "tls_handshake"}
        return judged(
            tcp_connect=old([connect(port=443)]), tls_handshakes=old([handshake(failure="ssl_invalid")]), seen=seen
        )

    assert said(judged_with("unknown_error"))[:2] == (False, False)
    assert said(judged_with(None))[:2] == ("http-failure", False)


def test_old_requests_stand_last_first() -> None:
    requests = old([request(), request(code=301, body="")])
    verdict = judged(queries=old([lookup(OURS)]), tcp_connect=old([connect()]), requests=requests, seen=control())
    assert said(verdict) == (False, True, "ok", "ok", "unknown", "ok")


def test_an_old_request_that_no_connection_could_carry_says_nothing_of_http() -> None:
    verdict = judged(
        queries=old([lookup(OURS)]),
        tcp_connect=old([connect(failure="generic_timeout_error")]),
        requests=old([request(failure="generic_timeout_error", code=0)]),
        seen=control(),
    )
    assert said(verdict) == ("tcp_ip", False, "ok", "blocked", "unknown", "unknown")


def test_an_old_request_that_found_no_address_in_a_redirect_is_dns() -> None:
    failed = request(failure="dns_nxdomain_error", code=0)
    failed["request"] = {"url": "http://b.example/"}
    requests = old([failed, request(code=301, body="")])
    verdict = judged(queries=old([lookup(OURS)]), tcp_connect=old([connect()]), requests=requests, seen=control())
    assert (verdict.blocking, verdict.layers.dns, verdict.layers.http) == ("dns", "blocked", "unknown")


# ---- speed ----


def samples(bytes_a_second: int, seconds: float) -> list[list[float]]:
    """What came so far, every 250 ms."""
    return [[step / 4, int(bytes_a_second * step / 4)] for step in range(int(seconds * 4) + 1)]


@pytest.mark.parametrize(
    ("target", "comparison", "layer"),
    [
        (samples(16_000, 5), samples(500_000, 2), "blocked"),
        (samples(300_000, 5), samples(500_000, 2), "ok"),
        (samples(16_000, 0.75), samples(500_000, 2), "unknown"),
        (samples(16_000, 5), [], "unknown"),
        (samples(16_000, 5), [[1, 5], [1, 5]], "unknown"),
        ([], samples(500_000, 2), "unknown"),
    ],
    ids=["slow", "fine", "short", "no control", "no time passed", "nothing came"],
)
def test_throttling_needs_a_comparison(target: Any, comparison: Any, layer: str) -> None:
    assert judged(x_throttling={"target": target, "control": comparison}).layers.throttled == layer


def test_a_page_that_began_and_did_not_end_in_time_is_throttled_when_the_controls_did() -> None:
    stalled = request(failure="generic_timeout_error")
    assert judged(tcp_connect=[connect()], requests=[stalled], seen=control()).layers.throttled == "blocked"
    assert judged(tcp_connect=[connect()], requests=[stalled], seen=control(http="x")).layers.throttled == "unknown"
    never = request(failure="generic_timeout_error", code=0)
    assert judged(tcp_connect=[connect()], requests=[never], seen=control()).layers.throttled == "unknown"


# ---- fingerprints ----


def known(scope: str) -> Fingerprints:
    """A block page by its text, and a forged address."""
    return Fingerprints(
        [
            Fingerprint("page", scope, "body", "contains", "this site is forbidden", 5, frozenset()),
            Fingerprint("address", scope, "dns", "full", OURS, 5, frozenset()),
        ]
    )


def test_a_known_page_is_blocking_without_any_control() -> None:
    page = request(body="<p>this site is forbidden</p>")
    verdict = judged(tcp_connect=[connect()], requests=[page], known=known("nat"))
    assert (verdict.fingerprint, verdict.layers.http, verdict.layers.dns) == ("page", "blocked", "blocked")
    assert verdict.blocking is None


def test_a_known_false_positive_is_never_blocking() -> None:
    page = request(code=403, body="<p>this site is forbidden</p>", headers={})
    verdict = judged(tcp_connect=[connect()], requests=[page], seen=control(), known=known("fp"))
    assert (verdict.fingerprint, verdict.layers.http, verdict.layers.dns) == (None, "unknown", "ok")
    assert verdict.blocking == "http-diff"


def test_a_page_that_is_known_to_be_nothing_takes_back_what_it_says_itself_and_no_more() -> None:
    """A block must not vanish for somebody's list: another page, a failed request and a forged answer stay."""
    strange = request(code=403, body="nobody knows this page", headers={})
    fine = request(body="<p>this site is forbidden</p>", transaction=6)
    failed = request(failure="connection_reset", transaction=7)
    for requests in ([strange], [failed], [fine, failed]):
        connects = [connect(transaction=number) for number in (5, 6, 7)]
        verdict = judged(tcp_connect=connects, requests=requests, seen=control(), known=known("fp"))
        assert verdict.layers.http == "blocked"
    forged = [lookup("10.0.0.1"), lookup(OURS, transaction=2, engine="udp")]
    verdict = judged(queries=forged, tcp_connect=[connect()], requests=[fine], seen=control(), known=known("fp"))
    assert verdict.layers.dns == "blocked"


def test_what_was_recognised_stands_in_the_evidence_whether_it_blocks_or_not() -> None:
    page = request(body="<p>this site is forbidden</p>")
    for scope in ("nat", "fp"):
        evidence = judged(requests=[page], seen=control(), known=known(scope)).evidence
        assert {f"fingerprint {name} ({scope}, 5 of 10)" for name in ("address", "page")} <= set(evidence)


def test_what_comes_by_tor_or_with_a_failed_request_is_not_recognised() -> None:
    page = request(body="<p>this site is forbidden</p>")
    by_tor = request(body="<p>this site is forbidden</p>")
    by_tor["request"] = {"url": URL, "tor": {"is_tor": True}}
    broken = request(failure="eof_error", body="<p>this site is forbidden</p>")
    for one, name in ((page, "page"), (by_tor, None), (broken, None)):
        verdict = judged(queries=[lookup(ELSEWHERE)], requests=[one], known=known("nat"))
        assert verdict.fingerprint == name


# ---- other tests ----


def layers_of(test_name: str, **keys: Any) -> tuple[str, ...]:
    """dns, tcp, tls, http of a measurement of another test."""
    verdict = classify(from_object({"test_name": test_name, "input": None, "test_keys": keys}))
    assert (verdict.blocking, verdict.accessible) == (None, None)
    return verdict.layers.dns, verdict.layers.tcp, verdict.layers.tls, verdict.layers.http


def test_telegrams_addresses_stand_for_each_other() -> None:
    web = {"queries": [lookup(OURS)], "tls_handshakes": [handshake()], "tcp_connect": [connect()]}
    assert layers_of("telegram", **web)[:3] == ("ok", "ok", "ok")
    one_failed = [connect(), connect("149.154.167.50", "x"), connect("149.154.167.51")]
    assert layers_of("telegram", **web | {"tcp_connect": one_failed})[1] == "ok"
    all_failed = [connect(), connect("149.154.167.50", "x"), connect("149.154.167.51", "x")]
    assert layers_of("telegram", **web | {"tcp_connect": all_failed})[1] == "blocked"
    dead = [connect(failure="x"), connect("149.154.167.50", "x")]
    assert layers_of("telegram", queries=[lookup(OURS)], tcp_connect=dead)[1] == "unknown"


def test_one_of_signals_hosts_that_does_not_shake_hands_is_blocked() -> None:
    other = {**handshake(failure="connection_reset"), "server_name": "b.example"}
    assert layers_of("signal", tls_handshakes=[handshake(), other])[2] == "blocked"
    assert layers_of("signal", tls_handshakes=[other])[2] == "unknown"


def test_a_kind_of_tors_targets_none_of_which_answers_is_blocked() -> None:
    def target(protocol: str, connected: str | None, whole: str | None) -> Any:
        return {"target_protocol": protocol, "failure": whole, "tcp_connect": [connect(failure=connected)]}

    good, deaf = target("dir_port", None, None), target("or_port", None, "connection_reset")
    assert layers_of("tor", targets={"a": good, "b": deaf}) == ("unknown", "ok", "blocked", "ok")
    closed = target("obfs4", "connection_refused", "connection_refused")
    assert layers_of("tor", targets={"a": good, "b": closed})[1] == "blocked"
    assert layers_of("tor", targets={"b": closed})[1] == "unknown"


def test_most_of_tors_authorities_are_enough_and_bridges_may_be_gone() -> None:
    def targets(protocol: str, good: int, bad: int) -> Any:
        ends = [None] * good + ["generic_timeout_error"] * bad
        return {
            f"{protocol} {number}": {"target_protocol": protocol, "failure": end, "tcp_connect": [connect(failure=end)]}
            for number, end in enumerate(ends)
        }

    def tcp(**found: tuple[int, int]) -> str:
        every = [targets(protocol, *ended) for protocol, ended in found.items()]
        return layers_of("tor", targets={name: one for each in every for name, one in each.items()})[1]

    assert tcp(or_port_dirauth=(1, 9)) == tcp(dir_port=(10, 0), or_port_dirauth=(4, 6)) == "blocked"
    assert tcp(or_port_dirauth=(5, 5)) == tcp(or_port_dirauth=(10, 0), obfs4=(1, 14)) == "ok"
    assert tcp(or_port_dirauth=(0, 10)) == "unknown"


@pytest.mark.parametrize(
    ("test", "engine", "started", "tls"),
    [
        ("0.2.0", "3.14.1", "2022-10-18 23:59:59", "blocked"),
        ("0.2.0", "3.14.1", "2022-10-19 00:00:00", "unknown"),
        ("0.2.2", "3.17.1", "2023-05-01 08:00:00", "blocked"),
        ("0.2.2", "3.17.1", "2023-05-30 18:08:35", "unknown"),
        ("0.2.2", "", "2023-05-30 18:08:35", "unknown"),
        ("0.2.3", "3.17.2", "2023-11-06 12:00:00", "blocked"),
        ("0.2.4", "3.20.0", "2023-12-01 12:00:00", "unknown"),
        ("0.2.5", "3.20.1-alpha", "2024-01-01 12:00:00", "blocked"),
        ("0.2.10", "3.24.0", "2026-01-01 12:00:00", "blocked"),
    ],
)
def test_a_probe_that_signal_has_outgrown_says_nothing(test: str, engine: str, started: str, tls: str) -> None:
    other = {**handshake(failure="ssl_unknown_authority"), "server_name": "b.example"}
    top = {
        "test_name": "signal",
        "test_version": test,
        "annotations": {"engine_version": engine},
        "measurement_start_time": started,
        "test_keys": {"tls_handshakes": [handshake(), other]},
    }
    assert classify(from_object(top)).layers.tls == tls


def test_the_request_through_tor_is_the_control_of_the_direct_one() -> None:
    def through(tor: bool, **fields: Any) -> Any:
        made = request(**fields)
        made["request"] = {"url": URL, "tor": {"is_tor": tor}}
        return made

    assert layers_of("http_requests", requests=[through(False), through(True)])[3] == "ok"
    other = through(False, code=403, body="no", headers={})
    assert layers_of("http_requests", requests=[other, through(True)])[3] == "blocked"
    failed = {"failure": "connection_reset"}
    assert layers_of("http_requests", requests=[through(False, **failed), through(True)])[3] == "blocked"
    assert layers_of("http_requests", requests=[through(False, **failed), through(True, **failed)])[3] == "down"
    assert layers_of("http_requests", requests=[through(False), through(True, **failed)])[3] == "unknown"
    assert layers_of("http_requests", requests=[through(False)])[3] == "unknown"


@pytest.mark.parametrize(
    ("direct", "layer"),
    [
        ({"body": "<title>Something altogether different</title>" + "x" * 480, "headers": {}}, "ok"),
        ({"body": "<title>A perfectly ordinary page</title>", "headers": {}}, "ok"),
        ({"body": "no", "headers": {"X-Own": "2"}}, "ok"),
        ({"body": "no", "headers": {}}, "blocked"),
        ({"code": 403}, "blocked"),
        ({"body": "", "headers": {}}, "blocked"),
    ],
    ids=["length", "title", "rare header", "status alone", "all but status", "nothing"],
)
def test_beside_the_status_one_likeness_with_the_page_through_tor_is_enough_and_needed(
    direct: dict[str, Any], layer: str
) -> None:
    here, there = request(**direct), request()
    there["request"] = {"url": URL, "tor": {"is_tor": True}}
    assert layers_of("http_requests", requests=[here, there])[3] == layer


@pytest.mark.parametrize(
    ("ours", "layer"),
    [
        ({"addresses": [OURS]}, "ok"),
        ({"addresses": ["10.10.34.36"]}, "blocked"),
        ({"addresses": [], "failure": "dns_nxdomain_error"}, "blocked"),
        ({"addresses": [ELSEWHERE]}, "unknown"),
    ],
)
def test_resolvers_are_compared_with_the_control_resolver(ours: dict[str, Any], layer: str) -> None:
    there = {"resolver_hostname": "9.9.9.9", "resolver_port": 57004}
    here = {"resolver_hostname": "127.0.1.1", "resolver_port": 53}
    queries = [lookup(OURS, **there), lookup(*ours["addresses"], failure=ours.get("failure"), **here)]
    assert layers_of("dns_consistency", queries=queries, control_resolver="9.9.9.9:57004")[0] == layer


def test_other_tests_say_nothing() -> None:
    assert layers_of("ndt", requests=[request()]) == ("unknown",) * 4


# ---- addresses and titles ----


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "100.64.1.1",
        "240.0.0.1",
        "::1",
        "fe80::1",
        "2002:0a00:0001::1",
        "2001:0:0a00:1::1",
        "64:ff9b::a0a:2222",
        "x",
    ],
)
def test_bogons(address: str) -> None:
    assert is_bogon(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "2002:5db8:d822::1"])
def test_no_bogons(address: str) -> None:
    assert not is_bogon(address)
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("body", "title"),
    [
        (b"<TITLE>A page</title>", "A page"),
        (b'<title lang="en">A page</title>', ""),
        (b"<title></title><title>second</title>", "second"),
        (b"<title>" + b"x" * 513 + b"</title>", ""),
        (b"<title>\xff</title>", "\ufffd"),
    ],
)
def test_titles_are_cut_out_as_ooni_does(body: bytes, title: str) -> None:
    assert title_of(body) == title
