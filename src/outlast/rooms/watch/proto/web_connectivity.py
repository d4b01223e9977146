"""Measurements in OONI's data format df-000, from the steps of a probe: test keys of web_connectivity (ts-017). Pure.

What identifies the operator is not in them: the probe's address is 127.0.0.1 as OONI writes it, the system's resolver
is not named, cookies are ``[scrubbed]``, and so are the operator's own addresses wherever an answer repeats them.
``publishable`` takes the pages' texts out as well.

Besides OONI's keys: ``x_sni_handshakes`` (TLS with another name or none to an address that failed with the real one),
``x_quic_initial`` (what came back to an Initial) and ``x_throttling`` (bytes received in all, in slots of 250 ms, of
the page and of the control for comparison). OONI's ``blocking`` and ``accessible`` are left null: the verdict is the
classifier's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from html import escape, unescape
from typing import Any, Final

from outlast import __version__
from outlast.address import show
from outlast.dns import AAAA, CNAME, TYPE_NAMES, A, Record, Reply, failure_of
from outlast.rooms.watch.proto import traces
from outlast.rooms.watch.proto.http import HEADERS
from outlast.rooms.watch.proto.probe import (
    Answered,
    AskControl,
    AskDoh,
    AskOver,
    Connect,
    ControlAnswered,
    Done,
    Fetch,
    Fetched,
    Handshake,
    InitialAnswered,
    LookedUp,
    Lookup,
    Probe,
    Query,
    SendInitial,
    Shaken,
    SpeedMeasured,
    Step,
)
from outlast.rooms.watch.proto.traces import SCRUBBED

Json = dict[str, Any]

VERSIONS: Final = {"web_connectivity": "0.5.28", "dnscheck": "0.9.2", "telegram": "0.3.1", "tor": "0.4.0"}
"""Of OONI's tests whose keys these are."""
SLOT_S: Final = 0.25
NO_CONTROL: Final = "unknown_failure: no control was asked"
_COOKIES: Final = frozenset({"set-cookie", "cookie", "set-cookie2"})
_LOCATIONS: Final = frozenset({"location", "content-location", "refresh", "link"})
_EXTENSIONS: Final = {"dnst": 0, "httpt": 0, "netevents": 0, "tcpconnect": 0, "tlshandshake": 0, "tunnel": 0}
_TITLE: Final = re.compile(r"<title[^<>]{0,128}>([^<]{1,512})</title>", re.IGNORECASE)


def envelope(test_name: str, target: str | None, at_s: float, steps: Sequence[Done], keys: Json) -> Json:
    """A measurement of any test around its test keys; ``at_s`` is seconds since 1970. Scrub it before anything."""
    at = datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return {
        "annotations": {},
        "data_format_version": "0.2.0",
        "extensions": _EXTENSIONS,
        "input": target,
        "measurement_start_time": at,
        "probe_asn": "AS0",
        "probe_cc": "ZZ",
        "probe_ip": "127.0.0.1",
        "probe_network_name": "",
        "report_id": "",
        "resolver_asn": "AS0",
        "resolver_ip": "127.0.0.1",
        "resolver_network_name": "",
        "software_name": "outlast",
        "software_version": __version__,
        "test_keys": keys,
        "test_name": test_name,
        "test_runtime": max((step.event.t for step in steps), default=0.0),
        "test_start_time": at,
        "test_version": VERSIONS[test_name],
    }


def measurement(probe: Probe, at_s: float, own_addresses: Iterable[str] = ()) -> Json:
    """What a finished probe found; who looked from elsewhere stands nowhere in it."""
    return scrub(envelope("web_connectivity", probe.url.text, at_s, probe.steps, test_keys(probe)), own_addresses)


def test_keys(probe: Probe) -> Json:
    """The test keys of ts-017, with the raw events."""
    keys: Json = {"agent": "redirect", "client_resolver": "", "retries": None, "socksproxy": None}
    keys |= {"x_control_request": None, "control": None, "control_failure": NO_CONTROL}
    keys |= collect(probe.steps)
    keys["requests"] = list(reversed(keys["requests"]))
    for step in probe.steps:
        if isinstance(step.command, AskControl) and isinstance(step.event, ControlAnswered):
            keys["x_control_request"] = step.command.request
            keys["control"], keys["control_failure"] = step.event.response, step.event.failure
    page = keys["requests"][0] if keys["requests"] else None
    keys["dns_experiment_failure"] = _first_failure(keys["queries"], "getaddrinfo")
    keys["http_experiment_failure"] = probe.redirect_failure or (page["failure"] if page else _why_no_page(keys))
    nothing = ("dns_consistency", "body_length_match", "headers_match", "status_code_match", "title_match")
    return keys | dict.fromkeys((*nothing, "blocking", "accessible")) | {"body_proportion": 0}


def collect(steps: Sequence[Done]) -> Json:
    """The archival lists of df-001 to df-008 of some steps, and this program's own."""
    lists: dict[str, list[Json]] = {
        name: []
        for name in (
            "queries",
            "x_dns_duplicate_responses",
            "tcp_connect",
            "tls_handshakes",
            "x_sni_handshakes",
            "network_events",
            "requests",
            "x_quic_initial",
        )
    }
    throttling: Json = {"slot_s": SLOT_S, "target": [], "control": []}
    for step in steps:
        base = _base(step)
        match step.command, step.event:
            case Lookup() as command, LookedUp() as event:
                lists["queries"].append(_lookup(base, command, event))
            case Query() | AskDoh() | AskOver() as command, Answered() as event:
                firsts, more = _queries(base, command, event)
                lists["queries"] += firsts
                lists["x_dns_duplicate_responses"] += more
            case Connect() as command, event if "sni_experiment" not in step.tags:
                status = {"failure": event.failure, "success": event.failure is None}
                lists["tcp_connect"].append(base | {"ip": command.ip, "port": command.port, "status": status})
                address = show((command.ip, command.port))
                lists["network_events"].append(_net(base, "connect", event.t, address, failure=event.failure))
            case Handshake() as command, Shaken() as event:
                name = "tls_handshakes" if command.verify else "x_sni_handshakes"
                lists[name].append(_handshake(base, _address(steps, command.id), command, event))
                lists["network_events"] += [
                    _net(base, operation, t, num_bytes=size) for operation, t, size in event.io if command.verify
                ]
            case Fetch() as command, Fetched() as event:
                address = _address(steps, command.id)
                lists["requests"].append(_request(base, address, command, event))
                lists["network_events"] += [
                    _net(base, "bytes_received_cumulative", t, address, num_bytes=size) for t, size in event.slots
                ]
                throttling["target"] = [list(slot) for slot in event.slots]
            case SendInitial() as command, InitialAnswered() as event:
                answer = {"answer": event.answer, "versions": [f"{version:08x}" for version in event.versions]}
                address = show((command.ip, command.port))
                asked = {"address": address, "failure": event.failure, "server_name": command.server_name or ""}
                lists["x_quic_initial"].append(base | asked | answer)
            case _, SpeedMeasured() as event:
                throttling["control"] = [list(slot) for slot in event.slots]
            case _:
                pass
    return lists | {"x_throttling": throttling}


def scrub(measured: Json, own_addresses: Iterable[str]) -> Json:
    """Everything without cookies and without the operator's own addresses."""
    own = sorted((one for one in own_addresses if one not in ("127.0.0.1", "::1")), key=len, reverse=True)
    pattern = re.compile(r"(?<![\w.:])(?:" + "|".join(map(re.escape, own)) + r")(?![\w:]|\.\w)") if own else None
    scrubbed: Json = _scrub(measured, pattern)
    return scrubbed


def publishable(measured: Json) -> Json:
    """A measurement for others: pages' texts are replaced by their title and as many blanks as there was text.

    So whoever compares titles and lengths with the control comes to the same verdict; ``x_body_scrubbed`` says that
    the text is not what came. In titles, headers and redirects no address stands but those that were measured, and of
    redirects' queries the names alone.
    """
    keys = measured["test_keys"]
    known = traces.measured(measured)
    of = partial(_without_texts, known=known, own=measured["input"])
    targets = {key: of(target) for key, target in keys.get("targets", {}).items()}
    return measured | {"test_keys": of(keys) | ({"targets": targets} if targets else {})}


def _without_texts(keys: Json, known: Collection[str], own: str | None) -> Json:
    if "requests" not in keys:
        return keys
    return keys | {"requests": [_without_traces(_without_text(one, known), known, own) for one in keys["requests"]]}


def _without_traces(request: Json, known: Collection[str], own: str | None) -> Json:
    asked, response = request.get("request") or {}, request.get("response") or {}

    def clean(text: str) -> str:
        return text if text == own else traces.without_addresses(traces.without_values(text), known)

    def header(name: str, value: str) -> str:
        return clean(value) if name.lower() in _LOCATIONS else traces.without_addresses(value, known)

    told = {
        "headers": {name: header(name, value) for name, value in response.get("headers", {}).items()},
        "headers_list": [[name, header(name, value)] for name, value in response.get("headers_list", [])],
    }
    return request | {"request": asked | {"url": clean(asked.get("url", ""))}, "response": response | told}


def _without_text(request: Json, known: Collection[str]) -> Json:
    response = request.get("response") or {}
    body = response.get("body")
    binary = isinstance(body, dict)
    text: str = base64.b64decode(body["data"]).decode("latin-1") if isinstance(body, dict) else body or ""
    size = len(text if binary else text.encode())
    title = _TITLE.search(text)
    words = traces.without_addresses(unescape(title[1]).strip(), known) if title else ""
    skeleton = f"<title>{escape(words, quote=False)}</title>" if title else ""
    blank = skeleton + " " * (size - len(skeleton.encode()))
    return request | {"response": response | {"body": blank}, "x_body_scrubbed": bool(text)}


def _scrub(value: Any, own: re.Pattern[str] | None) -> Any:
    match value:
        case str():
            return own.sub(SCRUBBED, value) if own else value
        case Mapping():
            return {
                _scrub(key, own): SCRUBBED if isinstance(key, str) and key.lower() in _COOKIES else _scrub(one, own)
                for key, one in value.items()
            }
        case [str() as name, str()] if name.lower() in _COOKIES:
            return [name, SCRUBBED]
        case list() | tuple():
            return [_scrub(one, own) for one in value]
        case _:
            return value


def _base(step: Done) -> Json:
    event: Step = step.event
    return {"t0": event.t0, "t": event.t, "tags": list(step.tags), "transaction_id": step.command.id}


def _lookup(base: Json, command: Lookup, event: LookedUp) -> Json:
    records = [Record(command.host, AAAA if ":" in ip else A, ip, 0) for ip in event.addresses]
    if event.cname:
        records.append(Record(command.host, CNAME, event.cname, 0))
    return _query(base, "getaddrinfo", "ANY", command.host, "", event.failure, records)


def _queries(base: Json, command: Query | AskDoh | AskOver, event: Answered) -> tuple[list[Json], list[Json]]:
    """The first reply to each question, or why there is none; and the replies that came after it."""
    match command:
        case Query():
            engine, resolver = "udp", command.resolver
        case AskDoh():
            engine, resolver = "doh", command.url
        case AskOver():
            engine, resolver = ("doh", command.url.text) if command.url else ("dot", command.resolver)
    firsts: dict[int, Json] = {}
    more: list[Json] = []
    for t, reply in event.replies:
        found = _query(base | {"t": t}, engine, TYPE_NAMES[reply.type], command.host, resolver, *_said(reply))
        if firsts.setdefault(reply.type, found) is not found:
            more.append(found)
    for type in (A, AAAA):
        failure = event.failure or "generic_timeout_error"
        firsts.setdefault(type, _query(base, engine, TYPE_NAMES[type], command.host, resolver, failure, []))
    return [firsts[A], firsts[AAAA]], more


def _said(reply: Reply) -> tuple[str | None, Sequence[Record]]:
    return failure_of(reply), reply.records


def _query(
    base: Json, engine: str, type: str, host: str, resolver: str, failure: str | None, records: Sequence[Record]
) -> Json:
    return base | {
        "answers": [_answer(record) for record in records] or None,
        "engine": engine,
        "failure": failure,
        "hostname": host,
        "query_type": type,
        "resolver_hostname": None,
        "resolver_port": None,
        "resolver_address": resolver,
    }


def _answer(record: Record) -> Json:
    field = {A: "ipv4", AAAA: "ipv6", CNAME: "hostname"}[record.type]
    return {"answer_type": TYPE_NAMES[record.type], field: record.value, "ttl": record.ttl_s or None}


def _handshake(base: Json, address: str, command: Handshake, event: Shaken) -> Json:
    certificates = [{"data": _base64(one), "format": "base64"} for one in event.certificates]
    return base | {
        "network": "tcp",
        "address": address,
        "cipher_suite": event.cipher,
        "failure": event.failure,
        "negotiated_protocol": event.alpn,
        "no_tls_verify": not command.verify,
        "peer_certificates": certificates or None,
        "server_name": command.server_name or "",
        "tls_version": event.version,
        "x_first_bytes": event.first,
        "x_alert": event.alert,
    }


def _request(base: Json, address: str, command: Fetch, event: Fetched) -> Json:
    sent = [("Host", command.url.origin), *HEADERS]
    secure = command.url.scheme == "https"
    return base | {
        "network": "tcp",
        "address": address,
        "alpn": "http/1.1" if secure else "",
        "failure": event.failure,
        "request": {
            "body": "",
            "body_is_truncated": False,
            "headers_list": [list(pair) for pair in sent],
            "headers": dict(sent),
            "method": command.method,
            "tor": {"exit_ip": None, "exit_name": None, "is_tor": False},
            "x_transport": "tcp",
            "url": command.url.text,
        },
        "response": {
            "body": _text(event.body),
            "body_is_truncated": event.truncated,
            "code": event.status,
            "headers_list": [list(pair) for pair in event.headers],
            "headers": dict(reversed(event.headers)),
        },
    }


def _net(
    base: Json, operation: str, t: float, address: str = "", *, num_bytes: int = 0, failure: str | None = None
) -> Json:
    event: Json = base | {"failure": failure, "operation": operation, "t": t}
    event |= {"address": address, "proto": "tcp"} if address else {}
    return event | ({"num_bytes": num_bytes} if num_bytes else {})


def _address(steps: Sequence[Done], id: int) -> str:
    """Where the connection of that id leads."""
    found = (step.command for step in steps if isinstance(step.command, Connect) and step.command.id == id)
    return next((show((one.ip, one.port)) for one in found), "")


def _first_failure(entries: Iterable[Json], engine: str) -> str | None:
    return next((one["failure"] for one in entries if one["engine"] == engine), None)


def _why_no_page(keys: Json) -> str | None:
    """Why nothing could be fetched: the last step's failure."""
    for name in ("tls_handshakes", "tcp_connect", "queries"):
        for entry in keys[name]:
            failure: str | None = entry["status"]["failure"] if name == "tcp_connect" else entry["failure"]
            if failure:
                return failure
    return None


def _text(body: bytes) -> str | Json:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"data": _base64(body), "format": "base64"}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
