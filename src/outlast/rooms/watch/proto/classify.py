"""Verdicts: what a measurement says of a site, layer by layer, and in OONI's legacy words.

``blocking`` and ``accessible`` are what ts-017 defines and OONI's probes compute (github.com/ooni/spec,
nettests/ts-017-web-connectivity.md). The layers are this room's own. All is computed from raw events; every rule and
where it comes from stands in docs/spec/watch-classify.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Final, Literal

import msgspec

from outlast.rooms.watch.proto import fingerprints as prints
from outlast.rooms.watch.proto.analysis import (
    NO_ANSWER,
    Analysis,
    Network,
    analyse,
    common_rare_headers,
    different_words,
    status_match,
)
from outlast.rooms.watch.proto.measurement import Exchange, Lookup, Measurement, host_of
from outlast.rooms.watch.proto.observations import (
    SUCCESS,
    Observation,
    Observations,
    Step,
    classic,
    is_bogon,
    is_loopback,
    observe,
    title_of,
)

Layer = Literal["ok", "blocked", "down", "unknown"]
Blocking = Literal["dns", "tcp_ip", "http-failure", "http-diff"] | bool | None
BODY_PROPORTION: Final = 0.7
"""Bodies match above it (ts-017)."""
SPEED_MIN_S: Final = 1.0
"""What came in less time says nothing of a speed."""
SLOWER_THAN: Final = 0.2
"""Two servers can differ by much without anybody's doing; a fifth is more than they usually do."""
TIMEOUT: Final = "generic_timeout_error"
AUTHORITIES: Final = frozenset({"dir_port", "or_port_dirauth"})
"""Tor's directory authorities, as ts-023 names their two kinds of target."""
SIGNAL_FAILS: Final = (
    # Before this version the test fails for everybody since this day (OONI's own list: fastpath's score_signal).
    ("test", (0, 2, 2), "2022-10-19"),  # another root signs Signal's certificates
    ("engine", (3, 17, 2), "2023-05-02"),  # one of the names that are asked for is no more
    ("test", (0, 2, 5), "2023-11-07"),  # certificates again, and an own fault of 0.2.4
)
NO_NETWORK: Final = "network_unreachable"
_NOTHING_CAME: Final = frozenset({TIMEOUT, NO_NETWORK, "host_unreachable", "connection_refused", "network_down"})
_SILENCED: Final = frozenset({TIMEOUT, "connection_reset", "eof_error"})


class Layers(msgspec.Struct, frozen=True):
    """A verdict for each layer: "ok", "blocked" (failed where the control did not), "down" (both failed), "unknown"."""

    dns: Layer = "unknown"
    tcp: Layer = "unknown"
    tls: Layer = "unknown"
    http: Layer = "unknown"
    throttled: Layer = "unknown"


class Verdict(msgspec.Struct, frozen=True):
    """What a measurement says.

    ``blocking`` and ``accessible`` have the legacy meaning of ts-017 and are None for every other test. ``fingerprint``
    names the block page or forged answer that was recognised. ``evidence`` is one line for each thing that counted.
    """

    input: str
    blocking: Blocking = None
    accessible: bool | None = None
    layers: Layers = Layers()
    fingerprint: str | None = None
    evidence: tuple[str, ...] = ()


Rule = Callable[[Measurement], tuple[Layers, list[str]]]


def classify(measurement: Measurement, known: prints.Fingerprints | None = None) -> Verdict:
    """The verdict on one measurement of any test; ``known`` are fingerprints to look for."""
    blocking: Blocking = None
    accessible: bool | None = None
    if measurement.test_name == "web_connectivity":
        network = measurement.asns.get
        found = observe(measurement)
        analysis = analyse(found, network)
        as_before = analyse(classic(found), network)
        blocking, accessible = legacy(as_before)
        layers, evidence = _web(found, analysis, network)
        if layers.tls == "unknown" and layers.dns != "blocked" and (filtered := _filtered_by_name(measurement)):
            layers = msgspec.structs.replace(layers, tls="blocked")
            evidence.append(filtered)
    else:
        layers, evidence = _OTHERS.get(measurement.test_name, _nothing)(measurement)
    throttled, why = _throttled(measurement)
    layers = msgspec.structs.replace(layers, throttled=throttled)
    evidence += why
    name = None
    if known is not None:
        layers, name, more = _recognised(measurement, layers, known)
        evidence += more
    return Verdict(measurement.input, blocking, accessible, layers, name, tuple(evidence))


# ---- the legacy values ----


def legacy(analysis: Analysis) -> tuple[Blocking, bool | None]:
    """``blocking`` and ``accessible`` of ts-017, from the analysis of classic observations.

    Observations are walked from the last redirect and from HTTP downwards: the first that says something decides.
    """
    inconsistent = _inconsistent(analysis)
    for one in analysis.linear:
        said = _said(one, analysis)
        if said is None:
            continue
        blocking, accessible = said
        # Wrong addresses explain whatever came of them: only a page that is the right one outweighs them.
        return ("dns", False) if inconsistent and accessible is not True else (blocking, accessible)
    return None, None


def _inconsistent(analysis: Analysis) -> bool:
    """ts-017 ``dns_consistency``: other addresses or failures than the control, or addresses where it has none."""
    expected = analysis.control_expectations
    return bool(
        analysis.dns_lookup_unexpected_failure
        or analysis.dns_lookup_success_with_invalid_addresses_classic
        or (
            not analysis.dns_lookup_success_with_valid_address_classic
            and not analysis.dns_lookup_expected_failure
            and analysis.dns_lookup_success
            and expected is not None
            and not expected.dns_addresses
        )
    )


DOWN: Final = (False, False)
FINE: Final = (False, True)
UNKNOWN: Final = (None, None)


def _said(one: Observation, analysis: Analysis) -> tuple[Blocking, bool | None] | None:
    """What one observation says by itself; None when nothing."""
    if one.http_response_is_final:
        if one.tls_handshake_failure == SUCCESS:
            return FINE  # only the site itself can prove its name
        if one.control_http_failure is None:
            return UNKNOWN
        return FINE if alike(analysis) else ("http-diff", False)
    if one.failure == SUCCESS:
        return _loopback(one) if one.type is Step.DNS else None
    if one.failure is None:
        return None
    control, blocked = {
        Step.HTTP: (one.control_http_failure, "http-failure"),
        Step.TLS: (one.control_tls_handshake_failure, "http-failure"),
        Step.TCP: (one.control_tcp_connect_failure, "tcp_ip"),
        Step.DNS: (one.control_dns_lookup_failure, "dns"),
    }[one.type]
    if control is None:
        # The control saw no such step: in a redirect, or it was not reached.
        if one.control_http_failure is None:
            return FINE if one.type is Step.DNS and one.tag_depth else UNKNOWN
        blocked = "http-failure" if one.type is Step.TCP else blocked
        if one.type is Step.TLS and not one.tag_depth and one.control_http_failure != SUCCESS:
            return DOWN  # controls before 0.5 did no handshakes apart: there the whole request is the comparison
    elif control != SUCCESS or (one.failure == NO_ANSWER and one.control_dns_resolved_addrs == ()):
        return DOWN  # a control that resolved to nothing had no answer either, though it does not say so
    return blocked, False  # type: ignore[return-value]  # one of the four words above


def _loopback(one: Observation) -> tuple[Blocking, bool | None] | None:
    """Nobody connects to a loopback address: then the lookup alone decides."""
    theirs = one.control_dns_resolved_addrs
    if one.control_dns_lookup_failure != SUCCESS or theirs is None or not _only_loopback(one.dns_resolved_addrs or ()):
        return None
    return DOWN if _only_loopback(theirs) else ("dns", False)


def _only_loopback(names: Iterable[str]) -> bool:
    """Whether there are addresses, and all are the host itself; aliases among them count nothing."""
    addresses = [name for name in names if _is_address(name)]
    return bool(addresses) and all(map(is_loopback, addresses))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def alike(analysis: Analysis) -> bool:
    """Whether the last response is the control's: the same status, alike in length, rare headers or title (ts-017)."""
    proportion = analysis.http_final_response_diff_body_proportion_factor
    words = analysis.http_final_response_diff_title_different_long_words
    return bool(analysis.http_final_response_diff_status_code_match) and (
        (proportion is not None and proportion > BODY_PROPORTION)
        or bool(analysis.http_final_response_diff_uncommon_headers_intersection)
        or words == ()
    )


# ---- layers of web_connectivity ----


def _web(found: Observations, analysis: Analysis, network: Network) -> tuple[Layers, list[str]]:
    endpoints = found.known_tcp_endpoints.values()
    expected = analysis.control_expectations
    final = next((one for one in endpoints if one.http_response_is_final), None)
    # A failure within redirects counts when the control got through and nothing else came of it here.
    through = final is None and expected is not None and expected.final_response_failure == SUCCESS
    unreached = _family_unreached(found)
    dns, of_dns = _web_dns(found, analysis, network, through)
    tcp, of_tcp = _web_step(
        "tcp",
        _without(analysis.tcp_connect_unexpected_failure, unreached),
        _without(analysis.tcp_connect_unexplained_failure, unreached) if through else (),
        analysis.tcp_connect_expected_failure,
        [one.tcp_connect_failure for one in endpoints],
    )
    tls, of_tls = _web_step(
        "tls",
        analysis.tls_handshake_unexpected_failure,
        analysis.tls_handshake_unexplained_failure if through else (),
        analysis.tls_handshake_expected_failure,
        [one.tls_handshake_failure for one in endpoints],
    )
    http, of_http = _web_http(analysis, final)
    return Layers(dns, tcp, tls, http), [*of_dns, *of_tcp, *of_tls, *of_http]


def _lines(layer: str, *because: tuple[Sequence[int], str]) -> list[str]:
    """A line for each thing that counts against a layer, of those that happened: in which transactions, and what."""
    return [f"{layer}: {what} ({len(which)})" for which, what in because if which]


def _web_dns(found: Observations, analysis: Analysis, network: Network, through: bool) -> tuple[Layer, list[str]]:
    expected = analysis.control_expectations
    resolved_there = expected is not None and any(map(_is_address, expected.dns_addresses))
    good = analysis.dns_lookup_success_with_valid_address
    ghosts = () if resolved_there or expected is None or good else analysis.dns_lookup_success
    unheard = _unheard(found) if good else frozenset[int]()
    unproven = _ipv6_unproven(found, analysis, network)
    forged = _without(analysis.dns_lookup_success_with_invalid_addresses, unproven)
    evidence = _lines(
        "dns",
        (
            _without(analysis.dns_lookup_unexpected_failure, unheard) if resolved_there else (),
            "the lookup failed, the control's did not",
        ),
        (
            forged if resolved_there else (),
            "addresses that are not the control's, and no certificate proves them",
        ),
        (ghosts, "addresses for a name that the control found none for"),
        (
            _without(analysis.dns_lookup_unexplained_failure, unheard) if through else (),
            "a lookup failed within redirects",
        ),
        (_bogons_apart(found), "addresses that no site can have, where another resolver gave real ones"),
    )
    if evidence:
        return "blocked", evidence
    if good:
        return "ok", []
    down = analysis.dns_lookup_expected_failure or (analysis.dns_lookup_unexpected_failure and not resolved_there)
    return "down" if down else "unknown", []


def _web_step(
    step: str,
    unexpected: Sequence[int],
    unexplained: Sequence[int],
    both: Sequence[int],
    tried: Sequence[str | None],
) -> tuple[Layer, list[str]]:
    """The verdict on connects or handshakes: transactions that failed here alone, or also there; how each try ended."""
    evidence = _lines(
        step,
        (unexpected, "failed where the control did not"),
        (unexplained, "failed within redirects, and the control got through"),
    )
    if evidence:
        return "blocked", evidence
    if SUCCESS in tried:
        return "ok", []
    return "down" if both else "unknown", []


def _web_http(analysis: Analysis, final: Observation | None) -> tuple[Layer, list[str]]:
    """The verdict on requests; ``final`` is that whose answer is no redirect."""
    compared, expected = analysis.http_final_response_success_tcp_with_control, analysis.control_expectations
    other = (compared,) if final is not None and compared is not None and not alike(analysis) else ()
    evidence = _lines(
        "http",
        (analysis.http_round_trip_unexpected_failure, "the request failed, the control's did not"),
        (other, "another page than the control's"),
    )
    if evidence:
        return "blocked", evidence
    if final is not None:
        return "ok" if final.tls_handshake_failure == SUCCESS or compared is not None else "unknown", []
    return "down" if expected is not None and expected.final_response_failure else "unknown", []


def _without(transactions: Iterable[int], left_out: frozenset[int]) -> tuple[int, ...]:
    return tuple(one for one in transactions if one not in left_out)


def _family_unreached(found: Observations) -> frozenset[int]:
    """Connects of one family of addresses none of which went well, where one of the other did.

    A network whose IPv6 leads nowhere looks the same as a filter; that one has no IPv4 shows by NO_NETWORK alone.
    """
    tried = {True: dict[int, str | None](), False: dict[int, str | None]()}
    for transaction, one in found.known_tcp_endpoints.items():
        tried[":" in (one.ip_address or "")][transaction] = one.tcp_connect_failure
    six, four = tried[True], tried[False]
    if SUCCESS in four.values() and SUCCESS not in six.values():
        return frozenset(six)
    if SUCCESS in six.values() and set(four.values()) == {NO_NETWORK}:
        return frozenset(four)
    return frozenset()


def _unheard(found: Observations) -> frozenset[int]:
    """Lookups at a resolver of the probe's own choice from which nothing came: it may be out of reach for any name."""
    failures: dict[int, bool] = {}
    for one in found.dns_lookup_failures:
        silent = one.dns_engine == "udp" and one.failure in _NOTHING_CAME
        failures[one.transaction_id] = silent and failures.get(one.transaction_id, True)
    return frozenset(transaction for transaction, silent in failures.items() if silent)


def _ipv6_unproven(found: Observations, analysis: Analysis, network: Network) -> frozenset[int]:
    """Lookups of IPv6 alone that nobody can compare, as a network of theirs or of the control's addresses is not known.

    They count for nothing where the same engine gave addresses that are valid.
    """
    valid = set(analysis.dns_lookup_success_with_valid_address)
    engines = {one.dns_engine for one in found.dns_lookup_successes if one.transaction_id in valid}
    compared = {
        one.transaction_id
        for one in found.dns_lookup_successes
        if ":" not in (one.ip_address or "")
        or one.ip_address_bogon
        or (one.ip_address_asn and any(map(network, one.control_dns_resolved_addrs or ())))
    }
    return frozenset(
        one.transaction_id
        for one in found.dns_lookup_successes
        if one.dns_engine in engines and one.transaction_id not in compared
    )


def _bogons_apart(found: Observations) -> tuple[int, ...]:
    """Lookups of the URL's name with bogons alone, where another lookup of the name had none."""
    at_url = [one for one in found.dns_lookup_successes if one.tag_depth == 0]
    by_lookup: dict[int, list[bool]] = {}
    for one in at_url:
        by_lookup.setdefault(one.transaction_id, []).append(one.ip_address_bogon is True)
    bogons = tuple(transaction for transaction, kinds in by_lookup.items() if all(kinds))
    return bogons if any(not any(kinds) for kinds in by_lookup.values()) else ()


def _filtered_by_name(measurement: Measurement) -> str:
    """One line that says so when an address falls silent at the site's name, twice, and answers to another; else "".

    Whoever does not serve a name says so by an alert or another certificate; that counts for nothing here.
    """
    again: dict[tuple[str, str], set[str | None]] = {}
    passed: dict[str, str] = {}
    for one in measurement.by_name:
        again.setdefault((one.address, one.server_name), set()).add(one.failure)
        if one.failure is None and one.server_name:
            passed.setdefault(one.address, one.server_name)
    for one in measurement.handshakes:
        failures, other = again.get((one.address, one.server_name)), passed.get(one.address)
        if one.failure in _SILENCED and failures and failures <= _SILENCED and other:
            return f"tls: {one.failure} at {one.address} for {one.server_name}, twice, and none for {other}"
    return ""


# ---- speed ----


def _throttled(measurement: Measurement) -> tuple[Layer, list[str]]:
    """Whether a page came slowly, or began and did not end in time, where the control's did not; else "unknown"."""
    control = measurement.control
    if control is not None and control.http_failure is None:
        begun = [one for one in measurement.exchanges if one.failure == TIMEOUT and one.status > 0]
        if begun:
            return "blocked", ["throttled: the page began to come and did not end in time, the control's did"]
    speed = measurement.speed
    if speed is None:
        return "unknown", []
    ours, theirs = _bytes_a_second(speed.target), _bytes_a_second(speed.control)
    if not ours or not theirs or speed.target[-1][0] - speed.target[0][0] < SPEED_MIN_S:
        return "unknown", []
    if ours < SLOWER_THAN * theirs:
        return "blocked", [f"throttled: {ours / 1000:.1f} kB/s, the comparison {theirs / 1000:.1f} kB/s"]
    return "ok", []


def _bytes_a_second(samples: Sequence[tuple[float, int]]) -> float:
    """Between the first sample and the last; 0 when nothing can be said."""
    (begin, before), (end, after) = samples[0], samples[-1]
    return (after - before) / (end - begin) if end > begin else 0.0


# ---- other tests ----


def _nothing(_measurement: Measurement) -> tuple[Layers, list[str]]:
    return Layers(), []


Ended = tuple[str, bool]
"""Who was tried, and whether it went well."""


def _services(measurement: Measurement) -> tuple[Layers, list[str]]:
    """Services with many servers: the ones that answer are the control of those that do not."""
    names = {address: lookup.hostname for lookup in measurement.lookups for address in lookup.addresses}
    # Servers without a name are one group: Telegram's data centres stand for each other.
    dns = [(one.hostname, one.failure is None) for one in measurement.lookups if not _no_aaaa(one)]
    tcp = [(names.get(one.ip, ""), one.failure is None) for one in measurement.connects]
    tls = [(one.server_name, one.failure is None) for one in measurement.handshakes]
    http = [
        ("" if _is_address(host_of(one.url)) else host_of(one.url), one.failure is None)
        for one in measurement.exchanges
    ]
    alive = any(well for ended in (tcp, tls, http) for _, well in ended)
    evidence: list[str] = []
    layers = [
        _of_groups(layer, ended, alive, evidence)
        for layer, ended in (("dns", dns), ("tcp", tcp), ("tls", tls), ("http", http))
    ]
    return Layers(*layers), evidence


def _signal(measurement: Measurement) -> tuple[Layers, list[str]]:
    """ts-029; of probes that ask Signal for what it no longer has, or distrust the certificates it has now, nothing."""
    versions = {"test": _version(measurement.test_version), "engine": _version(measurement.engine_version)}
    for what, mended, since in SIGNAL_FAILS:
        if versions[what] < mended and measurement.started >= since:
            return Layers(), [f"signal: this version of the test fails for everybody since {since}"]
    return _services(measurement)


def _version(text: str) -> tuple[int, ...]:
    """As numbers, what follows them left out; a version that is not told is older than all."""
    numbers = itertools.takewhile(str.isdecimal, text.partition("-")[0].split("."))
    return tuple(int(number[:9]) for number in numbers)


def _no_aaaa(one: Lookup) -> bool:
    return one.query_type == "AAAA" and one.failure is not None


def _of_groups(
    layer: str, ended: Iterable[Ended], alive: bool, evidence: list[str], by_most: frozenset[str] = frozenset()
) -> Layer:
    """Groups fail when all in them do, those of ``by_most`` when more than half do."""
    tried: dict[str, list[bool]] = {}
    for name, success in ended:
        tried.setdefault(name, []).append(success)
    if not tried:
        return "unknown"
    failed = sorted(
        name for name, well in tried.items() if (2 * sum(well) < len(well) if name in by_most else not any(well))
    )
    if not failed:
        return "ok"
    if not alive:
        return "unknown"
    told = (f"{name or 'the addresses'} ({tried[name].count(False)} of {len(tried[name])})" for name in failed[:5])
    evidence.append(f"{layer}: {', '.join(told)} failed, others did not")
    return "blocked"


def _tor(measurement: Measurement) -> tuple[Layers, list[str]]:
    """ts-023: each kind of target has several; a kind none of which answers, while others do, is blocked.

    Bridges come and go; authorities stand for years, so that it takes but most of them.
    """
    ended: dict[str, list[Ended]] = {"tcp": [], "tls": [], "http": []}
    for target in measurement.targets:
        if target.connect is not None:
            ended["tcp"].append((target.protocol, target.connect == SUCCESS))
        if target.connect == SUCCESS:
            # A directory's port speaks HTTP; the others shake hands, by TLS or obfs4.
            ended["http" if target.protocol == "dir_port" else "tls"].append((target.protocol, target.whole == SUCCESS))
    alive = any(well for _, well in ended["tcp"])
    evidence: list[str] = []
    layers = {layer: _of_groups(layer, tried, alive, evidence, AUTHORITIES) for layer, tried in ended.items()}
    return Layers(**layers), evidence


def _http_requests(measurement: Measurement) -> tuple[Layers, list[str]]:
    """ts-003: the same request directly and through Tor, which is the control."""
    direct = next((one for one in measurement.exchanges if not one.tor), None)
    control = next((one for one in measurement.exchanges if one.tor), None)
    if direct is None or control is None:
        return Layers(), []
    if direct.failure is not None:
        if control.failure is not None:
            return Layers(http="down"), []
        return Layers(http="blocked"), ["http: the request failed, the control's did not"]
    if control.failure is not None:
        return Layers(), []
    if _same_page(direct, control):
        return Layers(http="ok"), []
    return Layers(http="blocked"), ["http: another page than the control's"]


def _same_page(one: Exchange, other: Exchange) -> bool:
    lengths = sorted((len(one.body), len(other.body)))
    return bool(status_match(one.status, other.status)) and (
        (lengths[0] > 0 and lengths[0] / lengths[1] > BODY_PROPORTION)
        or bool(common_rare_headers(one.headers, other.headers))
        or (one.status // 100 != 3 and different_words(title_of(one.body), title_of(other.body)) == ())
    )


def _dns_consistency(measurement: Measurement) -> tuple[Layers, list[str]]:
    """ts-002: each resolver beside the one that nobody between here and there should touch."""
    queries = [one for one in measurement.lookups if one.query_type in ("A", "AAAA")]
    theirs = [one for one in queries if one.resolver == measurement.control_resolver]
    ours = [one for one in queries if one.resolver != measurement.control_resolver]
    real = {address for one in theirs for address in one.addresses}
    if not ours or not theirs:
        return Layers(), []
    if not real:
        return Layers(dns="down" if all(one.failure is not None for one in ours) else "unknown"), []
    networks = {measurement.asns.get(address) for address in real} - {None}
    wrong: list[str] = []
    unsure = False
    for one in ours:
        if real & set(one.addresses) or networks & {measurement.asns.get(address) for address in one.addresses}:
            continue
        if one.failure is not None or (
            one.addresses and all(map(is_bogon, one.addresses)) and not all(map(is_bogon, real))
        ):
            wrong.append(one.resolver)
        else:
            unsure = True  # other addresses alone: a site can have many
    if wrong:
        return Layers(dns="blocked"), [f"dns: {', '.join(wrong[:5])} failed or gave addresses that no site can have"]
    return Layers(dns="unknown" if unsure else "ok"), []


_OTHERS: Final[dict[str, Rule]] = {
    "telegram": _services,
    "signal": _signal,
    "whatsapp": _services,
    "facebook_messenger": _services,
    "tor": _tor,
    "http_requests": _http_requests,
    "dns_consistency": _dns_consistency,
}


# ---- fingerprints ----


def _recognised(
    measurement: Measurement, layers: Layers, known: prints.Fingerprints
) -> tuple[Layers, str | None, list[str]]:
    """Block pages and forged answers that are known by sight; what is known to be no block takes the verdict back."""
    country = measurement.probe_cc.upper()
    dns = known.of_answers({address for one in measurement.lookups for address in one.addresses})
    http = [
        found
        for one in measurement.exchanges
        if one.failure is None and not one.tor
        for found in known.of_response(one.headers, one.body)
    ]
    evidence = [f"fingerprint {one.name} ({one.scope}, {one.confidence} of 10)" for one in _best((*dns, *http))[:5]]
    if blocks := _best(one for one in dns if one.blocks(country)):
        layers = msgspec.structs.replace(layers, dns="blocked")
    name = blocks[0].name if blocks else None
    if blocks := _best(one for one in http if one.blocks(country)):
        layers = msgspec.structs.replace(layers, http="blocked")
        name = blocks[0].name
    elif (
        any(one.scope == prints.FALSE_POSITIVE for one in http)
        and layers.http == "blocked"
        and not _failed(measurement)
    ):
        layers = msgspec.structs.replace(layers, http="unknown")
    return layers, name, evidence


def _failed(measurement: Measurement) -> bool:
    return any(one.failure is not None and not one.tor for one in measurement.exchanges)


def _best(found: Iterable[prints.Fingerprint]) -> list[prints.Fingerprint]:
    """The surest first, each once."""
    return sorted(set(found), key=lambda one: (-one.confidence, one.name))
