"""A measurement of OONI (df-000) of any age: the raw events in it, and nothing that anybody concluded from them.

What a measurement says of itself (``blocking``, ``accessible``, ``dns_consistency`` and the like) is not read at all.
Data formats: df-000 base, df-001 HTTP, df-002 DNS, df-005 TCP connect, df-006 TLS handshake, and the
test keys of ts-017 (control), ts-023 (targets) and ts-002 (control resolver), as github.com/ooni/spec has them.

Probes before web_connectivity 0.5 (2022) tell neither which redirect an event belongs to nor which connection a request
used. Such a measurement is brought into today's form by ``_joined``: see docs/spec/watch-classify.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from itertools import count, islice
from typing import Any, Final, cast

import msgspec

from outlast.address import show
from outlast.errors import ProtocolError
from outlast.rooms.watch.proto.records import decode

EVENTS_MAX: Final = 4_000
"""Of each list of events so many at most are read: a probe follows ten redirects and makes some hundred."""
ANSWERS_MAX: Final = 64
"""So many addresses of a lookup at most, four times as many of the control's, and EVENTS_MAX of all lookups."""
_TEXT_MAX: Final = 4096
_NUMBER_MAX: Final = 2**53


class MeasurementError(ProtocolError):
    """Bytes that are no OONI measurement, or one without test keys."""


class Lookup(msgspec.Struct, frozen=True):
    """One DNS query (df-002): ``failure`` is None when it was answered, ``addresses`` may still be empty then."""

    transaction: int
    hostname: str
    engine: str
    query_type: str
    failure: str | None
    addresses: tuple[str, ...] = ()
    resolver: str = ""
    depth: int | None = None


class Connect(msgspec.Struct, frozen=True):
    """One TCP connect (df-005). ``assumed``: it is not recorded, but a request shows that there was a connection."""

    transaction: int
    ip: str
    port: int
    failure: str | None
    depth: int | None = None
    fetch_body: bool | None = None
    assumed: bool = False


class Handshake(msgspec.Struct, frozen=True):
    """One TLS handshake (df-006) on the connection of the same transaction."""

    transaction: int
    address: str
    server_name: str
    failure: str | None
    depth: int | None = None


class Exchange(msgspec.Struct, frozen=True):
    """One HTTP round trip (df-001); ``headers`` as they came, names included. ``tor``: it was made through Tor."""

    transaction: int
    url: str
    failure: str | None
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    truncated: bool = False
    depth: int | None = None
    tor: bool = False


class Speed(msgspec.Struct, frozen=True):
    """How fast a page came, and what the control sent for comparison: (seconds, bytes so far), every 250 ms."""

    target: tuple[tuple[float, int], ...]
    control: tuple[tuple[float, int], ...]


class Control(msgspec.Struct, frozen=True):
    """What the control saw (ts-017 ``control``); ``tls`` has the server name and failure of each endpoint."""

    domain: str
    dns_failure: str | None
    addresses: tuple[str, ...]  # in order, each once; ts-017 has names among them as well
    tcp: Mapping[str, str | None]
    tls: Mapping[str, tuple[str, str | None]]
    http_failure: str | None
    status: int
    body_length: int
    header_names: tuple[str, ...]
    title: str


class Target(msgspec.Struct, frozen=True):
    """One target of the test tor (ts-023): how the connect and all of it ended; "" is success, None not tried."""

    name: str
    protocol: str
    connect: str | None
    whole: str


class Measurement(msgspec.Struct, frozen=True):
    """The raw events of one measurement. ``asns``: the networks of addresses, as probe and control looked them up.

    ``by_name`` are handshakes with the site's name and others, unchecked, to an address where TLS failed; only this
    room's probe makes them.
    """

    test_name: str
    input: str
    started: str = ""
    probe_cc: str = ""
    probe_asn: str = ""
    test_version: str = ""
    engine_version: str = ""
    lookups: tuple[Lookup, ...] = ()
    connects: tuple[Connect, ...] = ()
    handshakes: tuple[Handshake, ...] = ()
    by_name: tuple[Handshake, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    speed: Speed | None = None
    control: Control | None = None
    targets: tuple[Target, ...] = ()
    control_resolver: str = ""
    asns: Mapping[str, int] = {}


def read(data: bytes) -> Measurement:
    """The measurement that ``data``, one JSON object, holds; raises MeasurementError: one line that says why not."""
    found = decode(data)
    if isinstance(found, str):
        raise MeasurementError(found)
    return from_object(found)


def from_object(top: Mapping[str, Any]) -> Measurement:
    """The measurement in a decoded JSON object; raises MeasurementError when it is none."""
    test_name = _text(top.get("test_name"))
    if not test_name:
        raise MeasurementError("it is no measurement: it has no test_name")
    keys = top.get("test_keys")
    if not isinstance(keys, dict):
        raise MeasurementError("it has no test_keys: nothing was measured")
    given = _input(top.get("input"))
    control = _control(keys, given)
    lookups = tuple(_lookups(keys))
    connects = tuple(_connects(keys))
    handshakes = tuple(_handshakes(keys, "tls_handshakes"))
    exchanges = tuple(_exchanges(keys))
    events: tuple[Lookup | Connect | Handshake | Exchange, ...] = (*lookups, *connects, *handshakes, *exchanges)
    if test_name == "web_connectivity" and all(event.depth is None for event in events):
        lookups, connects, handshakes, exchanges = _joined(lookups, connects, handshakes, exchanges)
    return Measurement(
        test_name=test_name,
        input=given,
        started=_text(top.get("measurement_start_time")),
        probe_cc=_text(top.get("probe_cc")),
        probe_asn=_text(top.get("probe_asn")),
        test_version=_text(top.get("test_version")),
        engine_version=_text(_dict(top.get("annotations")).get("engine_version")),
        lookups=lookups,
        connects=connects,
        handshakes=handshakes,
        by_name=tuple(_handshakes(keys, "x_sni_handshakes")),
        exchanges=exchanges,
        speed=_speed(keys),
        control=control,
        targets=tuple(_targets(keys)),
        control_resolver=_text(keys.get("control_resolver")),
        asns=_asns(keys),
    )


def host_of(url: str) -> str:
    """The host in a URL as it is written there, without brackets; "" when there is none."""
    rest = url.partition("://")[2]
    for end in "/?#":
        rest = rest.partition(end)[0]
    rest = rest.rpartition("@")[2]
    return rest[1:].partition("]")[0] if rest.startswith("[") else rest.partition(":")[0]


def port_of(url: str) -> int:
    """The port that a URL names, else its scheme's: 443 for https, 80 for all others."""
    behind = url.partition("://")[2].partition("/")[0].rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    return int(behind[:5]) if behind.isascii() and behind.isdecimal() else 443 if url.startswith("https:") else 80


# ---- values that strangers wrote ----


def _text(value: object, max_length: int = _TEXT_MAX) -> str:
    """A string that can be printed; "" for everything else."""
    if not isinstance(value, str):
        return ""
    value = value[:max_length]
    return value if value.isascii() else value.encode(errors="replace").decode()


def _input(value: object) -> str:
    return " ".join(map(_text, value[:16])) if isinstance(value, list) else _text(value)


def _number(value: object) -> int:
    """A whole number; 0 for everything else, and for numbers that no probe writes."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        found = int(value[:20] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return 0
    return found if abs(found) < _NUMBER_MAX else 0


def _seconds(value: object) -> float:
    in_range = isinstance(value, int | float) and 0 <= value < 1_000_000_000
    return float(cast("float", value)) if in_range else 0.0


def _failure(value: object) -> str | None:
    return None if value is None else _text(value) or "unknown_failure"


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    """The objects of a list; what is no object in it is passed over."""
    for one in value[:EVENTS_MAX] if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def _tags(event: Mapping[str, Any]) -> tuple[str, ...]:
    tags = event.get("tags")
    return tuple(_text(tag) for tag in tags[:32]) if isinstance(tags, list) else ()


def _depth(tags: Iterable[str]) -> int | None:
    found = None
    for tag in tags:
        name, _, value = tag.partition("=")
        if name == "depth" and value.isascii() and value.isdecimal() and len(value) < 4:
            found = int(value)
    return found


def _fetch_body(tags: Iterable[str]) -> bool | None:
    found = None
    for tag in tags:
        name, _, value = tag.partition("=")
        if name == "fetch_body":
            found = value == "true"
    return found


def _address(value: object) -> str:
    """An IP address as text; "" when it is none."""
    text = _text(value, 64)
    try:
        ip_address(text)
    except ValueError:
        return ""
    return text


def _content(value: object) -> bytes:
    """A body or header value: text, or ``{"format": "base64", "data": ...}`` (df-001) with or without its padding."""
    if isinstance(value, str):
        return value.encode(errors="replace")
    data = _dict(value).get("data")
    if not isinstance(data, str):
        return b""
    try:
        return base64.b64decode(data.rstrip("=") + "=" * (-len(data.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return b""


def _pairs(message: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a message: an object, a list of pairs, or (before 2016) a list of names with lists of values."""
    found: dict[str, str] = {}
    given = message.get("headers") or message.get("headers_list")
    listed: Iterable[Any] = given.items() if isinstance(given, dict) else given if isinstance(given, list) else ()
    for pair in list(listed)[:EVENTS_MAX]:
        if isinstance(pair, list | tuple) and len(pair) == 2:
            name, value = pair
            value = value[0] if isinstance(value, list) and value else value
            found[_text(name)] = _text(_content(value).decode(errors="replace"))
    return found


# ---- lists of events ----


def _lookups(keys: Mapping[str, Any]) -> Iterator[Lookup]:
    left = EVENTS_MAX
    for event in _dicts(keys.get("queries")):
        given = (
            _address(answer.get("ipv4" if answer.get("answer_type") == "A" else "ipv6"))
            for answer in _dicts(event.get("answers"))
            if answer.get("answer_type") in ("A", "AAAA")
        )
        addresses = {address for address in islice(given, min(ANSWERS_MAX, left)) if address}
        left -= len(addresses)
        resolver = _text(event.get("resolver_address"))
        if not resolver and event.get("resolver_hostname"):
            resolver = f"{_text(event['resolver_hostname'])}:{_number(event.get('resolver_port'))}"
        yield Lookup(
            transaction=_number(event.get("transaction_id")),
            hostname=_text(event.get("hostname")),
            engine=_text(event.get("engine")) or "system",
            query_type=_text(event.get("query_type")),
            failure=_failure(event.get("failure")),
            addresses=tuple(sorted(addresses)),
            resolver=resolver,
            depth=_depth(_tags(event)),
        )


def _connects(keys: Mapping[str, Any]) -> Iterator[Connect]:
    for event in _dicts(keys.get("tcp_connect")):
        status, tags = _dict(event.get("status")), _tags(event)
        failure = _failure(status.get("failure"))
        if failure is None and status.get("success") is False and "failure" not in status:
            failure = "unknown_failure"
        yield Connect(
            transaction=_number(event.get("transaction_id")),
            ip=_text(event.get("ip"), 64),
            port=_number(event.get("port")),
            failure=failure,
            depth=_depth(tags),
            fetch_body=_fetch_body(tags),
        )


def _handshakes(keys: Mapping[str, Any], name: str) -> Iterator[Handshake]:
    for event in _dicts(keys.get(name)):
        yield Handshake(
            transaction=_number(event.get("transaction_id")),
            address=_text(event.get("address")),
            server_name=_text(event.get("server_name")),
            failure=_failure(event.get("failure")),
            depth=_depth(_tags(event)),
        )


def _exchanges(keys: Mapping[str, Any]) -> Iterator[Exchange]:
    for event in _dicts(keys.get("requests")):
        request, response = _dict(event.get("request")), _dict(event.get("response"))
        yield Exchange(
            transaction=_number(event.get("transaction_id")),
            url=_text(request.get("url")),
            failure=_failure(event.get("failure")),
            status=_number(response.get("code")),
            headers=_pairs(response),
            body=_content(response.get("body")),
            truncated=response.get("body_is_truncated") is True,
            depth=_depth(_tags(event)),
            tor=_dict(request.get("tor")).get("is_tor") is True,
        )


def _speed(keys: Mapping[str, Any]) -> Speed | None:
    """``x_throttling``, as this room's own probe writes it; OONI's have samples, but none of a control."""
    given = _dict(keys.get("x_throttling"))
    target, control = _samples(given.get("target")), _samples(given.get("control"))
    return Speed(target, control) if target and control else None


def _samples(value: object) -> tuple[tuple[float, int], ...]:
    pairs = (pair for pair in (value[:EVENTS_MAX] if isinstance(value, list) else ()) if isinstance(pair, list))
    return tuple((_seconds(pair[0]), max(_number(pair[1]), 0)) for pair in pairs if len(pair) == 2)


def _targets(keys: Mapping[str, Any]) -> Iterator[Target]:
    for name, target in list(_dict(keys.get("targets")).items())[:EVENTS_MAX]:
        if not isinstance(target, dict):
            continue
        tried = [one.failure for one in _connects(target)] or [
            _failure(event.get("failure"))
            for event in _dicts(target.get("network_events"))
            if event.get("operation") == "connect"
        ]
        connect = None if not tried else "" if None in tried else tried[0]
        whole = _failure(target.get("failure"))
        yield Target(_text(name), _text(target.get("target_protocol")), connect, whole or "")


# ---- the control ----


def _control(keys: Mapping[str, Any], given: str) -> Control | None:
    """What the control saw; None when it was not reached, or when it says nothing."""
    control = keys.get("control")
    if not isinstance(control, dict) or keys.get("control_failure") is not None:
        return None
    dns, http = _dict(control.get("dns")), _dict(control.get("http_request"))
    if not dns and not http:
        return None
    addresses = dns.get("addrs")
    headers = http.get("headers")
    return Control(
        domain=host_of(_text(_dict(keys.get("x_control_request")).get("http_request")) or given),
        dns_failure=_failure(dns.get("failure")),
        addresses=tuple(sorted({*map(_text, addresses[: 4 * ANSWERS_MAX])})) if isinstance(addresses, list) else (),
        tcp={
            _text(name): _failure(_dict(ended).get("failure"))
            for name, ended in list(_dict(control.get("tcp_connect")).items())[:EVENTS_MAX]
        },
        tls={
            _text(name): (_text(_dict(ended).get("server_name")), _failure(_dict(ended).get("failure")))
            for name, ended in list(_dict(control.get("tls_handshake")).items())[:EVENTS_MAX]
        },
        http_failure=_failure(http.get("failure")),
        status=_number(http.get("status_code")),
        body_length=_number(http.get("body_length")),
        header_names=tuple(sorted(map(_text, list(headers)[:EVENTS_MAX]))) if isinstance(headers, dict) else (),
        title=_text(http.get("title")),
    )


def _asns(keys: Mapping[str, Any]) -> dict[str, int]:
    """The networks of addresses: ``asn`` beside each answer, and the control's ``ip_info``."""
    found: dict[str, int] = {}
    for address, info in list(_dict(_dict(keys.get("control")).get("ip_info")).items())[:EVENTS_MAX]:
        found[_text(address)] = _number(_dict(info).get("asn"))
    for event in _dicts(keys.get("queries")):
        for answer in islice(_dicts(event.get("answers")), ANSWERS_MAX):
            for key in ("ipv4", "ipv6"):
                if answer.get(key) and answer.get("asn"):
                    found[_text(answer[key])] = _number(answer["asn"])
    return {address: asn for address, asn in found.items() if asn > 0}


# ---- measurements before web_connectivity 0.5 ----


def _joined(
    lookups: tuple[Lookup, ...],
    connects: tuple[Connect, ...],
    handshakes: tuple[Handshake, ...],
    exchanges: tuple[Exchange, ...],
) -> tuple[tuple[Lookup, ...], tuple[Connect, ...], tuple[Handshake, ...], tuple[Exchange, ...]]:
    """The events of an old measurement with transactions and depths.

    ts-017: lookups, connects and handshakes are about the URL itself; requests stand in time-reverse order, the first
    of the list is the last redirect. A request is put on a connection to its port that stood and carries none yet.
    """
    replace = msgspec.structs.replace
    fresh = count(1)
    looked_up = [replace(lookup, transaction=next(fresh), depth=0) for lookup in lookups]
    connected = [replace(connect, transaction=next(fresh), depth=0, fetch_body=True) for connect in connects]
    free: dict[str, list[Connect]] = {}
    for connect in connected:
        free.setdefault(show((connect.ip, connect.port)), []).append(connect)
    shaken: list[Handshake] = []
    for handshake in handshakes:
        if waiting := free.get(handshake.address):
            shaken.append(replace(handshake, transaction=waiting.pop(0).transaction, depth=0))
    fetched: list[Exchange] = []
    dead = {handshake.transaction for handshake in shaken if handshake.failure is not None}
    secured = {handshake.transaction for handshake in shaken}
    usable = [connect for connect in connected if connect.failure is None and connect.transaction not in dead]
    lookups_failed = bool(lookups) and not any(lookup.addresses for lookup in lookups)
    hopeless = (bool(connects) or lookups_failed) and not usable
    for depth, exchange in enumerate(reversed(exchanges)):
        if exchange.failure is not None and depth == 0 and hopeless:
            continue  # it never got as far as HTTP: what stopped it is among the other events
        host, port = host_of(exchange.url), port_of(exchange.url)
        if exchange.failure is not None and exchange.failure.startswith("dns_"):
            looked_up.append(Lookup(next(fresh), host, "system", "A", exchange.failure, depth=depth))
            continue
        used = next((one for one in usable if one.port == port), None) if depth == 0 else None
        if used is None:
            used = Connect(next(fresh), "", port, None, depth, fetch_body=True, assumed=True)
            connected.append(used)
        if exchange.url.startswith("https:") and exchange.failure is None and used.transaction not in secured:
            shaken.append(Handshake(used.transaction, "", host, None, depth))
        fetched.append(replace(exchange, transaction=used.transaction, depth=depth))
    return tuple(looked_up), tuple(connected), tuple(shaken), tuple(reversed(fetched))
