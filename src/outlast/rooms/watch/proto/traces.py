"""What texts from elsewhere tell of whoever asked: addresses that pages and headers repeat, and keys in URLs. Pure.

Behind a router the operator's public address is not known here, so any address counts as theirs that is none of those
measured. Reads hostile text in time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final

from outlast.errors import UsageError
from outlast.rooms.watch.proto.http import parse_url

SCRUBBED: Final = "[scrubbed]"
_DEPTH_MAX: Final = 16
_ADDRESS: Final = re.compile(
    r"(?<![0-9.])[0-9]{1,3}([.-])[0-9]{1,3}\1[0-9]{1,3}\1[0-9]{1,3}(?!\.?[0-9])"
    r"|(?<![\w:])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{2,39}(?:\.[0-9]{1,3}){0,3}(?![\w:])"
)
_BEHIND_HOST: Final = re.compile(r"(://[^/?#\s]{1,512})([/?#]\S*)")
_VALUE: Final = re.compile(r"([?&;][^=&;#\s]{0,256})=[^&;#\s]+")


def measured(measurement: Mapping[str, Any]) -> set[str]:
    """The addresses that a measurement is about: all that stand by themselves in it, also with a port.

    Of a page's (web_connectivity) only those that were found for the host which the operator named, here or by the
    control, and those that proved by a certificate whose they are. Where a redirect leads is the page's word: it
    may lead to the operator's own address, also by a name that means that one. Headers' values do not count.
    """
    keys = measurement.get("test_keys")
    if measurement.get("test_name") != "web_connectivity" or not isinstance(keys, dict):
        return {one for text in _texts(measurement, 0) if (one := _plain(text))}
    host = _host(measurement.get("input"))
    control = keys.get("control")
    found = [host, keys.get("x_control_request"), control]
    found += [one.get("answers") for one in _objects(keys, "queries") if one.get("hostname") == host]
    found += [
        one.get("address")
        for one in _objects(keys, "tls_handshakes")
        if one.get("failure") is None and not one.get("no_tls_verify") and not _plain(str(one.get("server_name")))
    ]
    # What the control was asked to connect to, and its answers, have addresses as names too.
    control = control if isinstance(control, dict) else {}
    for part in ("tcp_connect", "tls_handshake", "ip_info"):
        found += control[part] if isinstance(control.get(part), dict) else ()
    return {one for text in _texts(found, 0) if (one := _plain(text))}


def without_addresses(text: str, known: Collection[str]) -> str:
    """A text in which no address stands but the known ones, also none written with dashes."""

    def strike(found: re.Match[str]) -> str:
        address = _plain(found[0].replace("-", ".") if found[1] == "-" else found[0])
        return found[0] if not address or address in known else SCRUBBED

    return _ADDRESS.sub(strike, text)


def without_values(url: str) -> str:
    """A URL without what its query's names are set to: a session, or who asked."""
    return _VALUE.sub(r"\1=" + SCRUBBED, url)


def without_paths(text: str, own: Any) -> str:
    """A text without what stands behind the hosts of URLs in it, which a site can make for one visitor.

    What stands behind the host of the URL ``own`` may stay, behind every host.
    """
    named = _BEHIND_HOST.search(own) if isinstance(own, str) else None
    kept = ("/", named[2] if named else "/")
    return _BEHIND_HOST.sub(lambda found: found[0] if found[2] in kept else f"{found[1]}/{SCRUBBED}", text)


def _texts(value: Any, depth: int) -> Iterator[str]:
    match value:
        case str() if len(value) <= 64:
            yield value
        case dict() if depth < _DEPTH_MAX:
            for name, one in value.items():
                if name not in ("headers", "headers_list", "body"):
                    yield from _texts(one, depth + 1)
        case list() if depth < _DEPTH_MAX:
            for one in value:
                yield from _texts(one, depth + 1)


def _objects(keys: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = keys.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _host(url: Any) -> str:
    try:
        return parse_url(url).host if isinstance(url, str) else ""
    except UsageError:
        return ""


def _plain(text: str) -> str:
    """The address that a text is, in its usual form, "" for none; a port after it does not matter."""
    host, _, port = text.rpartition(":")
    for one in (text, host.removeprefix("[").removesuffix("]") if port.isdigit() else ""):
        try:
            return str(ip_address(one))
        except ValueError:
            continue
    return ""
