"""Measurements of sites that nobody made, drawn from a seed in OONI's format, to try an archive or to test one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

NETWORKS: Final = (("XA", 64500), ("XA", 64501), ("XB", 64502), ("XC", 64503))
"""Countries of user-assigned codes and networks of documentation: nothing here is about anybody."""
DOMAINS: Final = ("example.com", "example.net", "example.org")
BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
PAGE: Final = "<html><head><title>Example pages</title></head><body>" + "words " * 200 + "</body></html>"
BLOCK_PAGE: Final = "<html><head><title>Access denied</title></head><body>By order.</body></html>"
_CUT_FROM: Final = 0.5  # of the days
_BLOCKED: Final = {("XA", 64500): "dns", ("XA", 64501): "tls", ("XB", 64502): "http"}
_ACCIDENT: Final = 0.02


def drawn(seed: int, count: int, days: int = 30) -> Iterator[bytes]:
    """``count`` measurements over ``days``, each a line of JSON without its end.

    In the second half of them example.org is blocked: in XA by one network's DNS and another's TLS filter, in XB by a
    page that says so, in XC nowhere. One measurement in fifty meets a connection that breaks by itself.
    """
    random = Random(seed)
    for number in range(count):
        network, domain = random.choice(NETWORKS), random.choice(DOMAINS)
        passed = number / count
        blocked = _BLOCKED.get(network) if domain == DOMAINS[2] and passed >= _CUT_FROM else None
        how = blocked or ("tcp" if random.random() < _ACCIDENT else None)
        yield msgspec.json.encode(measurement(domain, *network, BEGIN + timedelta(days=days * passed), how))


def measurement(domain: str, country: str, asn: int, at: datetime, how: str | None = None) -> dict[str, Any]:
    """One measurement of a site; ``how`` is the layer that fails: dns, tcp, tls, http or None.

    By HTTPS, but where ``how`` is http: another page can be put in the place of an unprotected one alone.
    """
    address, tags = "192.0.2.80", ["depth=0"]
    timed: dict[str, Any] = {"t0": 0.0, "t": 0.1, "transaction_id": 1, "tags": tags}
    scheme, port = ("http", 80) if how == "http" else ("https", 443)
    url, endpoint = f"{scheme}://{domain}/", f"{address}:{port}"
    answers = [{"answer_type": "A", "ipv4": address}]
    failure = {"dns": "dns_nxdomain_error", "tcp": "generic_timeout_error", "tls": "connection_reset"}.get(how or "")
    page = BLOCK_PAGE if how == "http" else PAGE
    keys: dict[str, Any] = {
        "queries": [
            {
                **timed,
                "engine": "getaddrinfo",
                "hostname": domain,
                "query_type": "ANY",
                "failure": failure if how == "dns" else None,
                "answers": [] if how == "dns" else answers,
            }
        ],
        "tcp_connect": [],
        "tls_handshakes": [],
        "requests": [],
        "control_failure": None,
        "control": {
            "dns": {"failure": None, "addrs": [address]},
            "tcp_connect": {endpoint: {"status": True, "failure": None}},
            "tls_handshake": {endpoint: {"server_name": domain, "status": True, "failure": None}}
            if port == 443
            else {},
            "http_request": {
                "failure": None,
                "status_code": 200,
                "body_length": len(PAGE),
                "title": "Example pages",
                "headers": {"Content-Type": "text/html"},
            },
        },
        "x_control_request": {"http_request": url},
    }
    if how != "dns":
        broken = failure if how == "tcp" else None
        status = {"failure": broken, "success": broken is None}
        keys["tcp_connect"] = [
            {**timed, "tags": [*tags, "fetch_body=true"], "ip": address, "port": port, "status": status}
        ]
    if how in (None, "tls"):
        broken = failure if how == "tls" else None
        keys["tls_handshakes"] = [{**timed, "address": endpoint, "server_name": domain, "failure": broken}]
    if how in (None, "http"):
        response = {"code": 200, "body": page, "headers": {"Content-Type": "text/html"}}
        keys["requests"] = [{**timed, "request": {"url": url}, "response": response, "failure": None}]
    return {
        "test_name": "web_connectivity",
        "data_format_version": "0.2.0",
        "input": url,
        "measurement_start_time": at.strftime("%Y-%m-%d %H:%M:%S"),
        "probe_cc": country,
        "probe_asn": f"AS{asn}",
        "test_keys": keys,
    }
