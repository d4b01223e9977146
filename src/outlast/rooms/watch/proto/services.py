"""Reachability of services: telegram (ts-020), tor (ts-023) and dnscheck (ts-028) as chains of steps. Pure.

A chain is one address: connect, TLS if it has any, then one question. What the chains are is known beforehand, or once
the names among the targets were looked up. The lists are those that the services publish:

- Telegram's access points: ts-020, from the desktop client's source.
- Tor's directory authorities: ``src/app/config/auth_dirs.inc``, as compiled into Tor 0.4.9.11.
- Resolvers: those of OONI's own dnscheck whose operators offer them to everybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from outlast.address import show
from outlast.errors import ProtocolError, UsageError
from outlast.rooms.watch.proto.http import Url, parse_url
from outlast.rooms.watch.proto.probe import (
    Answered,
    AskOver,
    Close,
    Command,
    Connect,
    Connected,
    Done,
    Event,
    Fetch,
    Fetched,
    Handshake,
    LookedUp,
    Lookup,
    Query,
    Shaken,
    is_address,
    is_public,
)
from outlast.rooms.watch.proto.traces import SCRUBBED
from outlast.rooms.watch.proto.web_connectivity import Json, collect

AT_ONCE: Final = 8
TARGETS_MAX: Final = 500
TARGETS_MAX_BYTES: Final = 1 << 20
TESTS: Final = ("web_connectivity", "dnscheck", "telegram", "tor")
TELEGRAM_POINTS: Final = (
    "149.154.175.50",
    "149.154.167.51",
    "149.154.175.100",
    "149.154.167.91",
    "149.154.171.5",
    "95.161.76.100",
)
TELEGRAM_WEB: Final = "https://web.telegram.org/"
AUTHORITIES: Final = {
    # name: address, port for clients, directory port
    "moria1": ("128.31.0.39", 9201, 9231),
    "tor26": ("217.196.147.77", 443, 80),
    "dizum": ("45.66.35.11", 443, 80),
    "gabelmoo": ("131.188.40.189", 443, 80),
    "dannenberg": ("193.23.244.244", 443, 80),
    "maatuska": ("171.25.193.9", 80, 443),
    "longclaw": ("199.58.81.140", 443, 80),
    "bastet": ("204.13.164.118", 443, 80),
    "faravahar": ("216.218.219.41", 443, 80),
}
RESOLVERS: Final = (
    "https://dns.google/dns-query",
    "https://cloudflare-dns.com/dns-query",
    "https://dns.quad9.net/dns-query",
    "dot://dns.google:853",
    "dot://dns.quad9.net:853",
)
DNSCHECK_NAME: Final = "example.org"
_CONSENSUS: Final = "tor/status-vote/current/consensus.z"
_PORTS: Final = {"dot": 853, "https": 443, "udp": 53, "tcp": 53}
_TLS_PROTOCOLS: Final = frozenset({"or_port", "or_port_dirauth"})


@dataclass(frozen=True, slots=True)
class Chain:
    """One address and what is done there, one after the other, until a step fails. ``key`` tells whose it is.

    ``then`` is the last step, its id still 0: Fetch, AskOver, or Query, which needs no connection.
    """

    key: str
    ip: str
    port: int
    shake: Handshake | None = None
    then: Fetch | AskOver | Query | None = None


Found = Mapping[str, Sequence[str]]


class Chains:
    """Looks the ``hosts`` up, then goes through the chains that ``plan`` makes of the addresses, some at once."""

    def __init__(self, hosts: Sequence[str], plan: Callable[[Found], Sequence[Chain]]) -> None:
        """Begin with what is to be looked up; nothing is when ``hosts`` is empty."""
        self.steps: list[Done] = []
        self.finished = False
        self._hosts = tuple(dict.fromkeys(hosts))
        self._plan = plan
        self._found: dict[str, Sequence[str]] = {}
        self._running: dict[int, Chain] = {}
        self._commands: dict[int, Command] = {}
        self._waiting: list[Chain] = []
        self._next_id = 1

    def start(self) -> list[Command]:
        """The first commands."""
        if not self._hosts:
            return self._go_on(self._plan({}))
        return [self._begin(Lookup(self._id(), host)) for host in self._hosts]

    def handle(self, event: Event) -> list[Command]:
        """Take the end of a step; returns the steps that come next."""
        command = self._commands.pop(event.id)
        chain = self._running.get(event.id)
        self.steps.append(Done(command, event, (chain.key,) if chain else ("bootstrap",), _NOWHERE))
        if isinstance(event, LookedUp):
            self._found[self._host_of(command)] = event.addresses
            return self._go_on(self._plan(self._found)) if len(self._found) == len(self._hosts) else []
        assert chain is not None, "only lookups stand outside of a chain"
        following = self._following(chain, event) if event.failure is None else None
        if following is not None:
            return [self._begin(following)]
        del self._running[event.id]
        close = [Close(event.id)] if isinstance(event, Connected | Shaken | Answered) and event.failure is None else []
        return [*close, *self._go_on(())]

    def of(self, key: str) -> list[Done]:
        """The steps of one chain, or of several with one key; ``bootstrap`` are the lookups."""
        return [step for step in self.steps if key in step.tags]

    def _following(self, chain: Chain, event: Event) -> Command | None:
        if isinstance(event, Connected) and chain.shake is not None:
            return replace(chain.shake, id=event.id)
        if isinstance(event, Connected | Shaken) and chain.then is not None:
            return replace(chain.then, id=event.id)
        return None

    def _go_on(self, more: Sequence[Chain]) -> list[Command]:
        self._waiting += more
        out: list[Command] = []
        while self._waiting and len(self._running) < AT_ONCE:
            chain = self._waiting.pop(0)
            id = self._id()
            self._running[id] = chain
            first = replace(chain.then, id=id) if isinstance(chain.then, Query) else Connect(id, chain.ip, chain.port)
            out.append(self._begin(first))
        self.finished = not self._running and not self._waiting
        return out

    def _begin(self, command: Command) -> Command:
        self._commands[command.id] = command
        return command

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    @staticmethod
    def _host_of(command: Command) -> str:
        assert isinstance(command, Lookup)
        return command.host


_NOWHERE: Final = parse_url("http://localhost/")
"""A chain belongs to no URL."""


# ---- telegram ----


def telegram() -> Chains:
    """The access points by HTTP on both ports, and the web client."""
    web = parse_url(TELEGRAM_WEB)

    def plan(found: Found) -> list[Chain]:
        chains = []
        for ip in TELEGRAM_POINTS:
            for port in (80, 443):
                url = parse_url(f"http://{show((ip, port))}/")
                chains.append(Chain("point", ip, port, then=Fetch(0, url, "POST")))
        for ip in found[web.host][:2]:
            if is_public(ip):
                chains.append(Chain("web", ip, 443, Handshake(0, web.host), Fetch(0, web)))
        return chains

    return Chains([web.host], plan)


def telegram_keys(done: Chains) -> Json:
    """Test keys of ts-020."""
    points = done.of("point")
    connected = any(isinstance(step.event, Connected) and step.event.failure is None for step in points)
    answered = any(isinstance(step.event, Fetched) and step.event.failure is None for step in points)
    web = [*done.of("bootstrap"), *done.of("web")]
    fine = any(isinstance(step.event, Fetched) and step.event.failure is None for step in web)
    failure = None if fine else next((step.event.failure for step in web if step.event.failure), "dns_no_answer")
    return collect(done.steps) | {
        "telegram_tcp_blocking": not connected,
        "telegram_http_blocking": not answered,
        "telegram_web_failure": failure,
        "telegram_web_status": "ok" if fine else "blocked",
    }


# ---- tor ----


@dataclass(frozen=True, slots=True)
class TorTarget:
    """A directory authority or a bridge; ``private`` ones are never named in a measurement."""

    id: str
    ip: str
    port: int
    protocol: str
    name: str = ""
    private: bool = False


def authorities() -> tuple[TorTarget, ...]:
    """Tor's directory authorities, each by its port for clients and its directory port."""
    found = []
    for name, (ip, or_port, dir_port) in AUTHORITIES.items():
        for protocol, port in (("or_port_dirauth", or_port), ("dir_port", dir_port)):
            found.append(TorTarget(show((ip, port)), ip, port, protocol, name))
    return tuple(found)


def read_tor_targets(data: bytes) -> tuple[TorTarget, ...]:
    """Targets in the JSON of ts-023; a bridge counts as private unless it is a directory authority's port.

    Raises ProtocolError.
    """
    try:
        given = json.loads(data)
        rows = [
            (str(key), row["address"], str(row["protocol"]), str(row.get("name", ""))) for key, row in given.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ProtocolError("this is no list of Tor targets as ts-023 has it: {ID: {address, protocol}}") from None
    if not 0 < len(rows) <= TARGETS_MAX:
        raise ProtocolError("a list of Tor targets has 1 to %(most)s of them", most=TARGETS_MAX)
    found = []
    for key, address, protocol, name in rows:
        ip, _, port = str(address).rpartition(":")
        ip = ip.removeprefix("[").removesuffix("]")
        if not is_address(ip) or not is_public(ip) or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ProtocolError("the Tor target %(key)r has no public address with a port", key=key[:20])
        public = protocol in ("dir_port", "or_port_dirauth")
        id = key if public else sha256(address.encode()).hexdigest()
        found.append(TorTarget(id, ip, int(port), protocol, name if public else "", not public))
    return tuple(found)


def tor(targets: Sequence[TorTarget]) -> Chains:
    """Each target by what its protocol begins with: HTTP, TLS, or TCP alone (obfs4 too: its handshake is not made)."""

    def chain(one: TorTarget) -> Chain:
        if one.protocol == "dir_port":
            url = parse_url(f"http://{show((one.ip, one.port))}/{_CONSENSUS}")
            return Chain(one.id, one.ip, one.port, then=Fetch(0, url))
        shake = Handshake(0, None, verify=False) if one.protocol in _TLS_PROTOCOLS else None
        return Chain(one.id, one.ip, one.port, shake)

    return Chains([], lambda _: [chain(one) for one in targets])


def tor_keys(done: Chains, targets: Sequence[TorTarget]) -> Json:
    """Test keys of ts-023; of private targets no address is in them."""
    keys: Json = {"targets": {}}
    for protocol in ("dir_port", "obfs4", "or_port", "or_port_dirauth"):
        keys[f"{protocol}_total"] = sum(one.protocol == protocol for one in targets)
        keys[f"{protocol}_accessible"] = 0
    for one in targets:
        steps = done.of(one.id)
        failure = next((step.event.failure for step in steps if step.event.failure), None)
        summary = {
            name: {"failure": step.event.failure}
            for step in steps
            for kind, name in ((Connected, "connect"), (Shaken, "handshake"))
            if isinstance(step.event, kind)
        }
        if failure is None and f"{one.protocol}_accessible" in keys:
            keys[f"{one.protocol}_accessible"] += 1
        lists = collect(steps)
        # Tor's certificates say nothing of a name: whoever is asked need not prove one.
        lists["tls_handshakes"] += lists.pop("x_sni_handshakes")
        target: Json = lists | {
            "agent": "redirect",
            "failure": failure,
            "summary": summary,
            "target_address": show((one.ip, one.port)),
            "target_name": one.name,
            "target_protocol": one.protocol,
        }
        keys["targets"][one.id] = _without(target, one.ip) if one.private else target
    return keys


def _without(value: Any, ip: str) -> Any:
    """Everything without an address, also where it stands within a text."""
    match value:
        case str():
            return value.replace(ip, SCRUBBED)
        case dict():
            # A bridge's certificate is as good as its address.
            return {key: None if key == "peer_certificates" else _without(one, ip) for key, one in value.items()}
        case list():
            return [_without(one, ip) for one in value]
        case _:
            return value


# ---- dnscheck ----


@dataclass(frozen=True, slots=True)
class Resolver:
    """A resolver to check: ``scheme`` is dot, https, udp or tcp."""

    text: str
    scheme: str
    host: str
    port: int
    url: Url | None


def read_resolver(text: str) -> Resolver:
    """Read ``dot://HOST:PORT``, ``https://HOST/PATH``, ``udp://HOST`` or ``tcp://HOST``; raises UsageError."""
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        port, host, parts = None, "", urlsplit("")
    if parts.scheme not in _PORTS or not host:
        raise UsageError(
            "%(text)r is no resolver: write dot://, https://, udp:// or tcp:// and its host", text=text[:80]
        )
    url = parse_url(text) if parts.scheme == "https" else None
    return Resolver(text, parts.scheme, url.host if url else host, port or _PORTS[parts.scheme], url)


def dnscheck(resolver: Resolver) -> Chains:
    """Every address of a resolver, asked for one name."""

    def plan(found: Found) -> list[Chain]:
        addresses = [resolver.host] if is_address(resolver.host) else found[resolver.host]
        chains = []
        for ip in addresses[:8]:
            if ip != resolver.host and not is_public(ip):
                continue
            at = show((ip, resolver.port))
            if resolver.scheme == "udp":
                chains.append(
                    Chain(_lookup_key(resolver, ip), ip, resolver.port, then=Query(0, at, DNSCHECK_NAME, 1.0))
                )
                continue
            shake = Handshake(0, resolver.host) if resolver.scheme in ("dot", "https") else None
            ask = AskOver(0, DNSCHECK_NAME, at, resolver.url)
            chains.append(Chain(_lookup_key(resolver, ip), ip, resolver.port, shake, ask))
        return chains

    return Chains([] if is_address(resolver.host) else [resolver.host], plan)


def dnscheck_keys(done: Chains, resolver: Resolver) -> Json:
    """Test keys of ts-028."""
    boot = done.of("bootstrap")
    lookups = {}
    for key in dict.fromkeys(step.tags[0] for step in done.steps if step.tags != ("bootstrap",)):
        steps = done.of(key)
        failed = [step for step in steps if step.event.failure]
        operation = {Connected: "connect", Shaken: "tls_handshake"}
        lookups[key] = collect(steps) | {
            "agent": "redirect",
            "failed_operation": operation.get(type(failed[0].event), "resolve") if failed else None,
            "failure": failed[0].event.failure if failed else None,
        }
    return {
        "domain": DNSCHECK_NAME,
        "bootstrap": collect(boot) if boot else None,
        "bootstrap_failure": next((step.event.failure for step in boot), None),
        "lookups": lookups,
    }


def _lookup_key(resolver: Resolver, ip: str) -> str:
    path = resolver.url.target if resolver.url else ""
    return f"{resolver.scheme}://{show((ip, resolver.port))}{path}"
