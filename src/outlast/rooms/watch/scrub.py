"""Scrubbing: an OONI measurement without what could say who made it, before anybody signs it.

What stays is named here; everything else goes: a new field of a later version is private until somebody decides
otherwise. The hour stays of each time, the network and the country of the place. Bodies, cookies and the values of
headers go; of headers' names those stay that others' classifiers read, and that no site made for one visitor: usual
ones, and those that the control was answered with as well. So do hosts of redirects, and not their paths. Wherever the
prober's own address still stands, also inside of longer text, it is struck out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from outlast.errors import ProtocolError
from outlast.rooms.watch.proto.analysis import COMMON_HEADERS
from outlast.rooms.watch.proto.traces import SCRUBBED, measured, without_addresses, without_paths, without_values

MEASUREMENT_MAX_BYTES: Final = 16 << 20
_DEPTH_MAX: Final = 12
_TEXT_MAX: Final = 2048
_ITEMS_MAX: Final = 2000

_TOP: Final = frozenset(
    (
        "data_format_version",
        "input",
        "measurement_start_time",
        "probe_asn",
        "probe_cc",
        "software_name",
        "software_version",
        "test_name",
        "test_start_time",
        "test_version",
        "test_runtime",
        "test_keys",
    )
)
_TIMES: Final = frozenset(("measurement_start_time", "test_start_time"))
_GONE: Final = re.compile(
    r"body|cookie|resolver|client|probe|report_id|annotation|location|^id$|server_name_indication_leak", re.I
)
"""Names of test keys that go at any depth; ``location`` are the prober's place and redirects with sessions in them."""
_KEPT: Final = frozenset(("body_length_match", "body_proportion", "body_is_truncated", "body_experiment"))
_HEADERS: Final = frozenset(("headers", "headers_list", "response_headers", "request_headers"))
_SECRETS: Final = re.compile(r"(?<=[?&#])([^=&#?\s]*(?:token|session|sid|auth|key|pass)[^=&#\s]*)=[^&#\s]*", re.I)
"""A name ends at the next question mark, where another may begin: else a text of many would be read again for each."""


def scrub(measurement: bytes) -> bytes:
    """The scrubbed JSON of one measurement; raises ProtocolError when it is none."""
    if len(measurement) > MEASUREMENT_MAX_BYTES:
        raise ProtocolError("the measurement is larger than one can be")
    try:
        found = msgspec.json.decode(measurement)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolError("the measurement is no JSON: %(error)s", error=error) from None
    if not isinstance(found, dict):
        raise ProtocolError("the measurement is no JSON object")
    kept = {name: found[name] for name in _TOP & found.keys()}
    addresses = _addresses(found)
    strike = _striker(addresses, measured(_clean(kept, str, 0)) - addresses, found.get("input"))
    kept = {name: _clean(value, strike, 0) for name, value in found.items() if name in _TOP}
    if kept.get("test_name") == "web_connectivity":
        _strike_rare_names(kept.get("test_keys"))
    for name in _TIMES & kept.keys():
        kept[name] = _hour(kept[name])
    if "probe_asn" not in kept:
        kept["probe_asn"] = "AS0"
    kept["probe_ip"] = "127.0.0.1"  # as OONI's own probes write it when it is not told
    return msgspec.json.encode(kept)


def without_secrets(url: str) -> str:
    """A URL without what looks like a session or a password in its query or fragment."""
    return _SECRETS.sub(r"\1=" + SCRUBBED, url)


def _clean(value: Any, strike: Callable[[str], str], depth: int) -> Any:
    """A value without what must go; what is too deep or too much is cut."""
    if depth > _DEPTH_MAX:
        return None
    match value:
        case str():
            return strike(value[:_TEXT_MAX])
        case list():
            return [_clean(item, strike, depth + 1) for item in value[:_ITEMS_MAX]]
        case dict():
            return {
                name: _names_only(item, strike) if name in _HEADERS else _clean(item, strike, depth + 1)
                for name, item in list(value.items())[:_ITEMS_MAX]
                if name in _KEPT or not _GONE.search(name)
                if name != "peer_certificates" or _tells_of_the_network(value, strike)
            }
    return value


def _tells_of_the_network(handshake: Mapping[str, Any], strike: Callable[[str], str]) -> bool:
    """Whether a handshake's certificates may stay.

    A valid one proves no more than that, and what signs on this computer may be on no other. What answers at an
    address that was not measured may be the operator's own router.
    """
    address, failed = handshake.get("address"), handshake.get("failure") is not None or handshake.get("no_tls_verify")
    return bool(failed) and not (isinstance(address, str) and strike(address) != address)


def _names_only(headers: Any, strike: Callable[[str], str]) -> Any:
    """Headers without their values: ``{name: value}`` and ``[[name, value], ...]`` alike."""
    if isinstance(headers, Mapping):
        return {strike(str(name)[:_TEXT_MAX]): "" for name in list(headers)[:_ITEMS_MAX] if not _GONE.search(str(name))}
    if isinstance(headers, list):
        named = [item[0] for item in headers[:_ITEMS_MAX] if isinstance(item, list) and item and _is_text(item[0])]
        return [[strike(name[:_TEXT_MAX]), ""] for name in named if not _GONE.search(name)]
    return {}


def _strike_rare_names(keys: Any) -> None:
    """Take from the answers that came the headers that are neither usual nor in the control's answer."""
    if not isinstance(keys, dict):
        return
    control = keys.get("control")
    there = control.get("http_request") if isinstance(control, dict) else None
    headers = there.get("headers") if isinstance(there, dict) else None
    known = COMMON_HEADERS | ({name.lower() for name in headers} if isinstance(headers, dict) else set())
    requests = keys.get("requests")
    for one in requests if isinstance(requests, list) else ():
        response = one.get("response") if isinstance(one, dict) else None
        if not isinstance(response, dict):
            continue
        for place in _HEADERS & response.keys():
            found = response[place]
            response[place] = (
                {name: "" for name in found if name.lower() in known}
                if isinstance(found, dict)
                else [pair for pair in found if pair[0].lower() in known]
            )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _addresses(measurement: Mapping[str, Any]) -> set[str]:
    """The addresses by which the prober and their resolver are known in the measurement."""
    keys = measurement.get("test_keys")
    places: list[Mapping[str, Any]] = [measurement, keys if isinstance(keys, dict) else {}]
    names = ("probe_ip", "client_resolver", "resolver_ip")
    found = {str(place[name]) for place in places for name in names if isinstance(place.get(name), str)}
    return {one for one in found if len(one) > 6 and one not in ("127.0.0.1", "0.0.0.0", SCRUBBED)}


def _striker(addresses: Iterable[str], known: Collection[str], own: Any) -> Callable[[str], str]:
    """What takes the prober's addresses out of a text, and all others that were not measured; ``own`` is the input."""
    pattern = re.compile("|".join(re.escape(one) for one in sorted(addresses, key=len, reverse=True)) or r"(?!)")

    def strike(text: str) -> str:
        text = text if text == own or "://" not in text else without_values(without_paths(text, own))
        return without_secrets(without_addresses(pattern.sub(SCRUBBED, text), known))

    return strike


def _hour(time: Any) -> Any:
    """``2026-01-08 16:42:10`` as the hour's beginning; anything else is struck out."""
    found = re.match(r"\d{4}-\d\d-\d\d[ T]\d\d", time) if isinstance(time, str) else None
    return f"{found[0].replace('T', ' ')}:00:00" if found else SCRUBBED
