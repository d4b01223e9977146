"""The control: OONI's web_connectivity test helper protocol, its requests and answers. Pure.

A stranger must not reach through it what they could not reach themselves: only addresses of the public internet, ports
80, 443 and those above 1023, and of the headers asked for only those that a browser sends with any page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import unescape
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from outlast.address import show
from outlast.errors import ProtocolError, UsageError
from outlast.rooms.watch.proto.http import Url, parse_url
from outlast.rooms.watch.proto.probe import (
    ADDRESSES_MAX,
    Connect,
    Connected,
    Fetched,
    Handshake,
    LookedUp,
    Network,
    Probe,
    Settings,
    Shaken,
    is_address,
    is_of_the_web,
    is_public,
)

REQUEST_MAX_BYTES: Final = 1 << 16
ENDPOINTS_MAX: Final = 64
_TITLE: Final = re.compile(rb"<title[^<>]{0,128}>([^<]{1,512})</title>", re.IGNORECASE)
_LEGACY: Final = {
    # What readers of the protocol expect of a helper, see ts-017.
    "dns_nxdomain_error": "dns_name_error",
    "connection_refused": "connection_refused_error",
}


class ControlError(ProtocolError):
    """A request that the control does not carry out."""


class _Request(msgspec.Struct):
    http_request: str
    tcp_connect: list[str] = []
    http_request_headers: dict[str, list[str]] = {}
    x_quic_enabled: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked for: a URL, and the addresses that the probe found for its host."""

    url: Url
    addresses: tuple[str, ...]

    def settings(self, allowed: Sequence[Network], own: Iterable[Network]) -> Settings:
        """How the control itself looks; its ``own`` networks hold what its firewall keeps from others."""
        return Settings(
            quic=False, isolate=False, named=self.addresses, allowed=tuple(allowed), refused=tuple(own), typed=False
        )


def read_request(body: bytes, allowed: Sequence[Network] = ()) -> Look:
    """Read a request; raises ControlError with one line that says why it is not carried out."""
    if len(body) > REQUEST_MAX_BYTES:
        raise ControlError("this request is too long")
    try:
        asked = msgspec.json.decode(body, type=_Request)
        url = parse_url(asked.http_request)
    except (msgspec.MsgspecError, UsageError, UnicodeDecodeError, RecursionError):
        raise ControlError("this is no request of the web_connectivity protocol") from None
    if not is_of_the_web(url):
        raise ControlError("this port or this name is none of the public web")
    if is_address(url.host) and not is_public(url.host, allowed):
        raise ControlError("this address is none of the public internet")
    found = dict.fromkeys(ip for text in asked.tcp_connect[:ENDPOINTS_MAX] if (ip := _ip(text)))
    return Look(url, tuple(ip for ip in found if is_public(ip, allowed))[:ADDRESSES_MAX])


def answer(probe: Probe) -> dict[str, Any]:
    """The answer of a helper, from the steps of its own look."""
    tcp: dict[str, Any] = {}
    shaken: dict[str, Any] = {}
    dns: dict[str, Any] = {"failure": None, "addrs": [probe.url.host] if is_address(probe.url.host) else []}
    at = {step.command.id: step.command for step in probe.steps if isinstance(step.command, Connect)}
    page: Fetched | None = None
    failure: str | None = None
    for step in probe.steps:
        first = "depth=0" in step.tags
        match step.command, step.event:
            case _, LookedUp() as event if first:
                missing = event.failure in (None, "dns_no_answer")
                dns = {"failure": None if missing else _legacy(event.failure), "addrs": list(event.addresses)}
                failure = "dns_lookup_error" if event.failure else failure
            case Connect() as command, Connected() as event:
                failure = event.failure or failure
                if first:
                    tcp[show((command.ip, command.port))] = _status(event.failure)
            case Handshake() as command, Shaken() as event:
                failure = event.failure or failure
                if first:
                    one = at[command.id]
                    name = {"server_name": command.server_name or ""}
                    shaken[show((one.ip, one.port))] = name | _status(event.failure)
            case _, Fetched() as event:
                page = event
            case _:
                pass
    failure = (page.failure or probe.redirect_failure) if page is not None else failure or "dns_lookup_error"
    return {
        "tcp_connect": tcp,
        "tls_handshake": shaken,
        "quic_handshake": {},
        "http_request": _page(page, _legacy(failure)),
        "http3_request": None,
        "dns": dns,
        "ip_info": {},
    }


def _page(page: Fetched | None, failure: str | None) -> dict[str, Any]:
    if page is None or failure is not None:
        nothing = {"body_length": -1, "title": "", "headers": {}, "status_code": -1}
        return {"discovered_h3_endpoint": "", "failure": failure, **nothing}
    title = _TITLE.search(page.body)
    return {
        "body_length": len(page.body),
        "discovered_h3_endpoint": "",
        "failure": None,
        "title": unescape(title[1].decode("utf-8", "replace")).strip() if title else "",
        "headers": dict(reversed(page.headers)),
        "status_code": page.status,
    }


def _status(failure: str | None) -> dict[str, Any]:
    return {"status": failure is None, "failure": _legacy(failure)}


def _legacy(failure: str | None) -> str | None:
    return None if failure is None else _LEGACY.get(failure, failure)


def _ip(text: str) -> str | None:
    host = text.rpartition(":")[0].removeprefix("[").removesuffix("]")
    return str(ip_address(host)) if is_address(host) else None


@dataclass(slots=True)
class Rate:
    """How often each address may ask: ``burst`` at once, then one every ``every_s``. Of no more than ``_KNOWN_MAX``."""

    burst: int = 10
    every_s: float = 2.0
    _free_at: dict[str, float] = field(default_factory=dict)

    def allows(self, who: str, now_s: float) -> bool:
        """Whether this one may ask now; it counts when they may."""
        if len(self._free_at) >= _KNOWN_MAX:
            self._free_at = {one: at for one, at in self._free_at.items() if at > now_s}
            if len(self._free_at) >= _KNOWN_MAX and who not in self._free_at:
                return False
        at = max(self._free_at.get(who, now_s), now_s)
        if at - now_s > (self.burst - 1) * self.every_s:
            return False
        self._free_at[who] = at + self.every_s
        return True


_KNOWN_MAX: Final = 10_000
