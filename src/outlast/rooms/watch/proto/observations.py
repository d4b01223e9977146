"""Observations: the events of a measurement laid side by side with what the control saw of the same thing.

One observation is a lookup that failed, an address that a lookup gave, or a connection with what was done on it: its
type is the last step that was tried, its failure that step's. Names and content of the encoded form are those of OONI's
own (github.com/ooni/probe-cli, internal/minipipeline), so that the two can be compared; the rules stand in
docs/spec/watch-classify.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final

import msgspec

from outlast.address import show
from outlast.rooms.watch.proto import nat64
from outlast.rooms.watch.proto.measurement import Connect, Control, Exchange, Lookup, Measurement

SUCCESS: Final = ""
"""A failure that says: it went well. None says: it was not tried, or nothing is known."""
SYSTEM_ENGINES: Final = frozenset(("getaddrinfo", "golang_net_resolver", "system"))
"""Lookups by the operating system's resolver; "system" is what probes before 3.16 called it."""
FROM_DNS: Final = "dns"
FROM_CONTROL: Final = "th"
_TITLE: Final = re.compile(r"<title>([^<]{1,512})</title>", re.IGNORECASE)
_TITLE_WITHIN_BYTES: Final = 1 << 20


class Step(IntEnum):
    """How far an observation goes."""

    DNS = 0
    TCP = 1
    TLS = 2
    HTTP = 3


def ooni_name(name: str) -> str:
    """``dns_transaction_id`` as OONI writes it: ``DNSTransactionID``."""
    whole = {
        "dns": "DNS",
        "id": "ID",
        "ip": "IP",
        "asn": "ASN",
        "tcp": "TCP",
        "tls": "TLS",
        "http": "HTTP",
        "url": "URL",
    }
    return "".join(whole.get(word, word.title()) for word in name.split("_"))


class Observation(msgspec.Struct, rename=ooni_name):
    """See the module; fields that are None are unknown. It is filled step by step and not changed afterwards."""

    type: Step
    failure: str | None
    transaction_id: int
    tag_depth: int | None = None
    tag_fetch_body: bool | None = None
    dns_transaction_id: int | None = None
    dns_domain: str | None = None
    dns_lookup_failure: str | None = None
    dns_query_type: str | None = None
    dns_engine: str | None = None
    dns_resolved_addrs: tuple[str, ...] | None = None
    ip_address_origin: str | None = None
    ip_address: str | None = None
    ip_address_asn: int | None = None
    ip_address_bogon: bool | None = None
    endpoint_transaction_id: int | None = None
    endpoint_proto: str | None = None
    endpoint_port: str | None = None
    endpoint_address: str | None = None
    tcp_connect_failure: str | None = None
    tls_handshake_failure: str | None = None
    tls_server_name: str | None = None
    http_request_url: str | None = None
    http_failure: str | None = None
    http_response_status_code: int | None = None
    http_response_body_length: int | None = None
    http_response_body_is_truncated: bool | None = None
    http_response_headers_keys: tuple[str, ...] | None = None
    http_response_location: str | None = None
    http_response_title: str | None = None
    http_response_is_final: bool | None = None
    control_dns_domain: str | None = None
    control_dns_lookup_failure: str | None = None
    control_dns_resolved_addrs: tuple[str, ...] | None = None
    control_tcp_connect_failure: str | None = None
    control_tls_handshake_failure: str | None = None
    control_http_failure: str | None = None
    control_http_response_status_code: int | None = None
    control_http_response_body_length: int | None = None
    control_http_response_headers_keys: tuple[str, ...] | None = None
    control_http_response_title: str | None = None


class Expectations(msgspec.Struct, frozen=True, rename=ooni_name):
    """What the control leads one to expect: addresses, and how the last response ended there."""

    dns_addresses: tuple[str, ...]
    final_response_failure: str | None


class Observations(msgspec.Struct, frozen=True, rename=ooni_name):
    """All of a measurement. ``known_tcp_endpoints`` is by transaction; lookups of A and AAAA may share one."""

    dns_lookup_failures: tuple[Observation, ...]
    dns_lookup_successes: tuple[Observation, ...]
    known_tcp_endpoints: dict[int, Observation]
    control_expectations: Expectations | None


def observe(measurement: Measurement, asn_of: Callable[[str], int | None] | None = None) -> Observations:
    """The observations of a web_connectivity measurement.

    ``asn_of`` gives the network of an address; without it those count that the measurement names.
    """
    network = asn_of or measurement.asns.get
    control = measurement.control
    failures = [_failed(lookup) for lookup in measurement.lookups if lookup.failure is not None]
    successes = [one for lookup in measurement.lookups if lookup.failure is None for one in _found(lookup, network)]
    first: dict[str, Observation] = {}
    for one in successes:
        first.setdefault(one.ip_address or "", one)
    endpoints = {
        connect.transaction: _connected(connect, first.get(connect.ip), network) for connect in measurement.connects
    }
    for handshake in measurement.handshakes:
        if here := endpoints.get(handshake.transaction):
            here.type = Step.TLS
            here.failure = here.tls_handshake_failure = _ended(handshake.failure)
            here.tls_server_name = handshake.server_name
    for exchange in measurement.exchanges:
        if here := endpoints.get(exchange.transaction):
            _fetched(here, exchange)
    if control is not None:
        for one in (*failures, *successes):
            _lookup_beside(one, control)
        for one in endpoints.values():
            _endpoint_beside(one, control)
        for one in (*failures, *successes, *endpoints.values()):
            _response_beside(one, control)
    expected = None if control is None else Expectations(control.addresses, _ended(control.http_failure))
    return Observations(tuple(failures), tuple(successes), endpoints, expected)


def classic(found: Observations) -> Observations:
    """What probes before 0.5 would have seen: the system's resolver, its addresses, and connections meant for the page.

    A measurement whose events tell nothing of one of these, neither which resolver is the system's nor which connection
    fetches, counts whole in that respect.
    """
    lookups = (*found.dns_lookup_failures, *found.dns_lookup_successes)
    any_system = any(_by_system(one) for one in lookups)
    any_fetch = any(one.tag_fetch_body is not None for one in found.known_tcp_endpoints.values())
    failures = tuple(one for one in found.dns_lookup_failures if _by_system(one) or not any_system)
    successes = tuple(one for one in found.dns_lookup_successes if _by_system(one) or not any_system)
    known = {one.ip_address for one in successes}
    endpoints = {
        transaction: one
        for transaction, one in found.known_tcp_endpoints.items()
        if one.ip_address_origin != FROM_CONTROL
        and (one.ip_address_origin != FROM_DNS or one.ip_address in known)
        and (one.tag_fetch_body or not any_fetch)
    }
    return Observations(failures, successes, endpoints, found.control_expectations)


def is_bogon(address: str) -> bool:
    """Whether an address can be no site's: private, reserved, documentation (RFC 6890), or such within 6to4 and Teredo.

    What is no address counts as one, as with OONI.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        return any(found in network for network in _BOGONS_6) or _wraps_bogon(found)
    return any(found in network for network in _BOGONS_4)


def is_loopback(address: str) -> bool:
    """Whether an address is the host itself; what is no address counts as such, as with OONI."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True


def title_of(body: bytes) -> str:
    """The title of a page, as OONI cuts it out: up to 512 characters in one ``<title>`` without attributes; else ""."""
    found = _TITLE.search(body[:_TITLE_WITHIN_BYTES].decode(errors="replace"))
    return found[1] if found else ""


_BOGONS_4: Final = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's translation
        "127.0.0.0/8",  # the host itself
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112
    )
)
_BOGONS_6: Final = tuple(
    ip_network(one)
    for one in (
        "::/96",  # unspecified, the host itself, and the old form of IPv4-compatible addresses
        "::ffff:0:0/96",  # IPv4-mapped
        "100::/64",  # discard, RFC 6666
        "2001:10::/28",  # ORCHID, RFC 4843
        "2001:db8::/32",  # documentation
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, RFC 3879
        "ff00::/8",  # multicast
    )
)


def _wraps_bogon(address: IPv6Address) -> bool:
    """Whether 6to4 (RFC 3056), Teredo (RFC 4380: its server) or NAT64 wraps a bogon of IPv4."""
    inner = address.sixtofour or (address.teredo[0] if address.teredo else nat64.translated(address))
    return inner is not None and any(inner in network for network in _BOGONS_4)


def _ended(failure: str | None) -> str:
    return SUCCESS if failure is None else failure


def _by_system(one: Observation) -> bool:
    return one.dns_engine in SYSTEM_ENGINES


def _failed(lookup: Lookup) -> Observation:
    return Observation(
        type=Step.DNS,
        failure=lookup.failure,
        transaction_id=lookup.transaction,
        tag_depth=lookup.depth,
        dns_transaction_id=lookup.transaction,
        dns_domain=lookup.hostname,
        dns_lookup_failure=lookup.failure,
        dns_query_type=lookup.query_type,
        dns_engine=lookup.engine,
    )


def _found(lookup: Lookup, network: Callable[[str], int | None]) -> Iterator[Observation]:
    for address in lookup.addresses:
        yield Observation(
            type=Step.DNS,
            failure=SUCCESS,
            transaction_id=lookup.transaction,
            tag_depth=lookup.depth,
            dns_transaction_id=lookup.transaction,
            dns_domain=lookup.hostname,
            dns_lookup_failure=SUCCESS,
            dns_query_type=lookup.query_type,
            dns_engine=lookup.engine,
            dns_resolved_addrs=lookup.addresses,
            ip_address_origin=FROM_DNS,
            ip_address=address,
            ip_address_asn=network(address),
            ip_address_bogon=is_bogon(address),
        )


def _connected(connect: Connect, source: Observation | None, network: Callable[[str], int | None]) -> Observation:
    """A connection, with the lookup that first gave its address."""
    failure = None if connect.assumed else _ended(connect.failure)
    from_dns: dict[str, Any] = {}
    if source is not None:
        from_dns = {
            "dns_transaction_id": source.dns_transaction_id,
            "dns_domain": source.dns_domain,
            "dns_lookup_failure": source.dns_lookup_failure,
            "dns_resolved_addrs": source.dns_resolved_addrs,
            "ip_address_origin": source.ip_address_origin,
        }
    return Observation(
        type=Step.TCP,
        failure=failure,
        transaction_id=connect.transaction,
        tag_depth=connect.depth,
        tag_fetch_body=connect.fetch_body,
        ip_address=connect.ip,
        ip_address_asn=network(connect.ip),
        ip_address_bogon=is_bogon(connect.ip) if connect.ip else None,
        endpoint_transaction_id=connect.transaction,
        endpoint_proto="tcp",
        endpoint_port=str(connect.port),
        endpoint_address=show((connect.ip, connect.port)),
        tcp_connect_failure=failure,
        **from_dns,
    )


def _fetched(here: Observation, exchange: Exchange) -> None:
    here.type = Step.HTTP
    here.failure = here.http_failure = _ended(exchange.failure)
    here.http_request_url = exchange.url
    if exchange.failure is None:
        here.http_response_status_code = exchange.status
        here.http_response_body_length = len(exchange.body)
        here.http_response_body_is_truncated = exchange.truncated
        here.http_response_headers_keys = tuple(sorted(exchange.headers))
        here.http_response_title = title_of(exchange.body)
        here.http_response_location = next(
            (value for name, value in exchange.headers.items() if name.lower() == "location"), None
        )
        here.http_response_is_final = exchange.status // 100 in (2, 4, 5)


def _lookup_beside(one: Observation, control: Control) -> None:
    """The control's lookup, beside one for the same name or the address that came of it."""
    if one.dns_domain == control.domain:
        one.control_dns_domain = control.domain
        one.control_dns_lookup_failure = _ended(control.dns_failure)
        if control.dns_failure is None:
            one.control_dns_resolved_addrs = control.addresses


def _endpoint_beside(one: Observation, control: Control) -> None:
    if not one.dns_domain and one.ip_address in control.addresses:
        # No lookup here gave that address: it was tried because the control named it.
        one.ip_address_origin = FROM_CONTROL
        one.control_dns_domain = control.domain
        one.control_dns_lookup_failure = _ended(control.dns_failure)
        one.control_dns_resolved_addrs = control.addresses
    elif one.dns_domain:
        _lookup_beside(one, control)
    address = one.endpoint_address or ""
    if address not in control.tcp:  # a control cannot go by our network's NAT64
        address = show((nat64.goal_of(one.ip_address or ""), int(one.endpoint_port or 0)))
    if address in control.tcp:
        one.control_tcp_connect_failure = _ended(control.tcp[address])
    if one.tls_server_name is not None and address in control.tls:
        server_name, failure = control.tls[address]
        if server_name == one.tls_server_name:
            one.control_tls_handshake_failure = _ended(failure)


def _response_beside(one: Observation, control: Control) -> None:
    """The control's last response, beside everything: whatever failed here, the control came that far."""
    one.control_http_failure = _ended(control.http_failure)
    if control.http_failure is None:
        one.control_http_response_status_code = control.status
        one.control_http_response_body_length = control.body_length
        one.control_http_response_headers_keys = control.header_names
        one.control_http_response_title = control.title
