"""Analysis: which steps failed as the control's did, which failed alone, and how near the two last responses are.

A failure is *expected* when the control failed too, *unexpected* when the control went well, *unexplained* when the
control says nothing of it (it sees the first request and the last response, no redirect between). Sets hold
transactions. Names and content of the encoded form are those of OONI's own minipipeline; the rules stand in
docs/spec/watch-classify.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, cast

import msgspec

from outlast.rooms.watch.proto import nat64
from outlast.rooms.watch.proto.observations import SUCCESS, Expectations, Observation, Observations, ooni_name

NO_ANSWER: Final = "dns_no_answer"
WORD_MIN_BYTES: Final = 5
"""Words of a title that count (ts-017: longer than four characters)."""
COMMON_HEADERS: Final = frozenset(
    (
        "accept-ranges",
        "age",
        "cache-control",
        "cf-ray",
        "content-encoding",
        "content-language",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "link",
        "location",
        "p3p",
        "pragma",
        "server",
        "set-cookie",
        "strict-transport-security",
        "vary",
        "via",
        "x-content-type-options",
        "x-frame-options",
        "x-powered-by",
        "x-varnish",
        "x-xss-protection",
    )
)
"""Headers that say nothing of a site, because most responses have them (the list of OONI's probes)."""
_UNKNOWN: Final = "unknown_failure"

Network = Callable[[str], int | None]


class Analysis(msgspec.Struct, frozen=True, rename=ooni_name):
    """See the module. Tuples of numbers are transactions, in order, each once."""

    control_expectations: Expectations | None
    dns_lookup_success: tuple[int, ...] = ()
    dns_lookup_success_with_invalid_addresses: tuple[int, ...] = ()
    dns_lookup_success_with_valid_address: tuple[int, ...] = ()
    dns_lookup_success_with_bogon_addresses: tuple[int, ...] = ()
    dns_lookup_success_with_invalid_addresses_classic: tuple[int, ...] = ()
    dns_lookup_success_with_valid_address_classic: tuple[int, ...] = ()
    dns_lookup_unexpected_failure: tuple[int, ...] = ()
    dns_lookup_unexplained_failure: tuple[int, ...] = ()
    dns_experiment_failure: str | None = None
    dns_lookup_expected_failure: tuple[int, ...] = ()
    dns_lookup_expected_success: tuple[int, ...] = ()
    tcp_connect_expected_failure: tuple[int, ...] = ()
    tcp_connect_unexpected_failure: tuple[int, ...] = ()
    tcp_connect_unexpected_failure_during_web_fetch: tuple[int, ...] = ()
    tcp_connect_unexpected_failure_during_connectivity_check: tuple[int, ...] = ()
    tcp_connect_unexplained_failure: tuple[int, ...] = ()
    tcp_connect_unexplained_failure_during_web_fetch: tuple[int, ...] = ()
    tcp_connect_unexplained_failure_during_connectivity_check: tuple[int, ...] = ()
    tls_handshake_expected_failure: tuple[int, ...] = ()
    tls_handshake_unexpected_failure: tuple[int, ...] = ()
    tls_handshake_unexpected_failure_during_web_fetch: tuple[int, ...] = ()
    tls_handshake_unexpected_failure_during_connectivity_check: tuple[int, ...] = ()
    tls_handshake_unexplained_failure: tuple[int, ...] = ()
    tls_handshake_unexplained_failure_during_web_fetch: tuple[int, ...] = ()
    tls_handshake_unexplained_failure_during_connectivity_check: tuple[int, ...] = ()
    http_round_trip_unexpected_failure: tuple[int, ...] = ()
    http_round_trip_unexplained_failure: tuple[int, ...] = ()
    http_final_response_success_tls_without_control: int | None = None
    http_final_response_success_tls_with_control: int | None = None
    http_final_response_success_tcp_without_control: int | None = None
    http_final_response_success_tcp_with_control: int | None = None
    http_final_response_diff_body_proportion_factor: float | None = None
    http_final_response_diff_status_code_match: bool | None = None
    http_final_response_diff_title_different_long_words: tuple[str, ...] | None = None
    http_final_response_diff_uncommon_headers_intersection: tuple[str, ...] | None = None
    linear: tuple[Observation, ...] = ()


def analyse(found: Observations, network: Network) -> Analysis:
    """Compare each observation with the control's; ``network`` gives the ASN of an address, None when unknown."""
    sets: defaultdict[str, set[int]] = defaultdict(set)
    _answers(found, network, sets)
    first_failure = _lookup_failures(found, sets)
    for one in found.known_tcp_endpoints.values():
        _endpoint("tcp_connect", one, one.tcp_connect_failure, one.control_tcp_connect_failure, sets)
        _endpoint("tls_handshake", one, one.tls_handshake_failure, one.control_tls_handshake_failure, sets)
        if one.http_failure and one.control_http_failure is None:
            sets["http_round_trip_unexplained_failure"].add(one.transaction_id)
        elif one.http_failure and one.control_http_failure == SUCCESS:
            sets["http_round_trip_unexpected_failure"].add(one.transaction_id)
    analysis = Analysis(
        found.control_expectations,
        dns_experiment_failure=first_failure,
        linear=_linear(found),
        **cast("Any", {name: tuple(sorted(transactions)) for name, transactions in sets.items()}),
    )
    final = next((one for one in found.known_tcp_endpoints.values() if one.http_response_is_final), None)
    return analysis if final is None else _final_response(analysis, final)


# ---- lookups ----


def _answers(found: Observations, network: Network, sets: defaultdict[str, set[int]]) -> None:
    """Addresses are good when the control has one of them, or one of the same network, or a handshake proved one."""
    for one, transaction in _once(found.dns_lookup_successes):
        if one.tag_depth != 0:
            continue
        sets["dns_lookup_success"].add(transaction)
        if one.ip_address_bogon:
            # Some sites do have such addresses, for everybody: this alone does not make the answer wrong.
            sets["dns_lookup_success_with_bogon_addresses"].add(transaction)
        if one.control_dns_resolved_addrs is None:
            continue
        good = _meet(one.dns_resolved_addrs or (), one.control_dns_resolved_addrs, network)
        kind = "valid_address" if good else "invalid_addresses"
        sets[f"dns_lookup_success_with_{kind}"].add(transaction)
        sets[f"dns_lookup_success_with_{kind}_classic"].add(transaction)
    for one in found.known_tcp_endpoints.values():
        if one.tls_handshake_failure == SUCCESS and (one.dns_transaction_id or 0) > 0:
            transaction = one.dns_transaction_id or 0
            sets["dns_lookup_success_with_invalid_addresses"].discard(transaction)
            sets["dns_lookup_success_with_valid_address"].add(transaction)


def _meet(here: Iterable[str], there: Iterable[str], network: Network) -> bool:
    ours, theirs = ({nat64.goal_of(one) for one in side} - {""} for side in (here, there))
    if ours & theirs:
        return True
    return bool({network(one) for one in ours} & {network(one) for one in theirs} - {None, 0})


def _lookup_failures(found: Observations, sets: defaultdict[str, set[int]]) -> str | None:
    """Sort the failed lookups; returns the first failure at the URL itself."""
    first = None
    for one, transaction in _once(found.dns_lookup_failures):
        if one.dns_engine == "doh":
            continue  # it tells of the DoH service, not of the site
        if one.dns_query_type == "AAAA" and one.failure == NO_ANSWER:
            continue  # many names have no AAAA
        if one.tag_depth != 0:
            sets["dns_lookup_unexplained_failure"].add(transaction)
            continue
        first = first or one.failure
        control = one.control_dns_lookup_failure
        if control is None:
            continue
        # A control that resolved to nothing had no answer either, though it does not say so.
        if control or (one.failure == NO_ANSWER and one.control_dns_resolved_addrs == ()):
            sets["dns_lookup_expected_failure"].add(transaction)
        else:
            sets["dns_lookup_unexpected_failure"].add(transaction)
    return first


def _once(observations: Iterable[Observation]) -> Iterator[tuple[Observation, int]]:
    """The first observation of each DNS transaction: A and AAAA can share one."""
    seen: set[int] = set()
    for one in observations:
        if one.transaction_id not in seen:
            seen.add(one.transaction_id)
            yield one, one.transaction_id


# ---- connections ----


def _endpoint(
    step: str, one: Observation, failure: str | None, control: str | None, sets: defaultdict[str, set[int]]
) -> None:
    """Sort a failed connect or handshake by what the control knows of it."""
    if not failure:
        return
    at_url = one.tag_depth == 0
    if at_url and control:
        sets[f"{step}_expected_failure"].add(one.transaction_id)
        return
    if (at_url and control is None) or (step == "tcp_connect" and _without_ipv6(one)):
        return
    kind = "unexpected" if at_url else "unexplained"
    sets[f"{step}_{kind}_failure"].add(one.transaction_id)
    if one.tag_fetch_body is not None:
        during = "web_fetch" if one.tag_fetch_body else "connectivity_check"
        sets[f"{step}_{kind}_failure_during_{during}"].add(one.transaction_id)


def _without_ipv6(one: Observation) -> bool:
    """Whether the failure looks like a network without IPv6."""
    if one.tcp_connect_failure not in ("network_unreachable", "host_unreachable"):
        return False
    try:
        return isinstance(ip_address(one.ip_address or ""), IPv6Address)
    except ValueError:
        return False


# ---- the last response ----


def _final_response(analysis: Analysis, one: Observation) -> Analysis:
    over = "tls" if one.tls_handshake_failure == SUCCESS else "tcp"
    beside = "without" if one.control_http_failure is None else "with"
    found: dict[str, object] = {f"http_final_response_success_{over}_{beside}_control": one.transaction_id}
    if one.control_http_failure is not None:
        found["http_final_response_diff_body_proportion_factor"] = body_proportion(one)
        found["http_final_response_diff_status_code_match"] = status_match(
            one.http_response_status_code or 0, one.control_http_response_status_code or 0
        )
        if (one.control_http_response_status_code or 0) > 0:
            found["http_final_response_diff_title_different_long_words"] = different_words(
                one.http_response_title or "", one.control_http_response_title or ""
            )
            found["http_final_response_diff_uncommon_headers_intersection"] = common_rare_headers(
                one.http_response_headers_keys or (), one.control_http_response_headers_keys or ()
            )
    return msgspec.structs.replace(analysis, **found)


def body_proportion(one: Observation) -> float | None:
    """The shorter body's share of the longer one; None when either is empty or ours was cut."""
    here, there = one.http_response_body_length or 0, one.control_http_response_body_length or 0
    if here <= 0 or there <= 0 or one.http_response_body_is_truncated is not False:
        return None
    return min(here, there) / max(here, there)


def status_match(here: int, there: int) -> bool | None:
    """Whether two status codes are the same; None when they differ because the control itself was turned away."""
    if here <= 0 or there <= 0 or (here != there and there // 100 != 2):
        return None
    return here == there


def different_words(here: str, there: str) -> tuple[str, ...]:
    """The long words that only one of two titles has."""
    ours, theirs = (
        {word.lower() for word in title.split(" ") if len(word.encode(errors="replace")) >= WORD_MIN_BYTES}
        for title in (here, there)
    )
    return tuple(sorted(ours ^ theirs))


def common_rare_headers(here: Iterable[str], there: Iterable[str]) -> tuple[str, ...]:
    """The names of headers that both responses have and most do not."""
    return tuple(sorted({name.lower() for name in here} & {name.lower() for name in there} - COMMON_HEADERS))


# ---- in a line ----


def _linear(found: Observations) -> tuple[Observation, ...]:
    """From the last redirect to the first request, from HTTP down to DNS, and of each the successes first."""

    def place(one: Observation) -> tuple[int, int, str, int]:
        depth = -1 if one.tag_depth is None else one.tag_depth
        return -depth, -one.type, _UNKNOWN if one.failure is None else one.failure, -one.transaction_id

    return tuple(
        sorted(
            (*found.dns_lookup_failures, *found.dns_lookup_successes, *found.known_tcp_endpoints.values()), key=place
        )
    )
