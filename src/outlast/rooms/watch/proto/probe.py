"""What the probe of one URL does next: events of finished steps in, commands for new steps out. Pure.

Each redirect is a *depth* of its own (ts-017, E002): names are looked up in several ways at once, each address that any
of them named is connected to, TLS shows whether it has a certificate for the name, and one connection fetches the page,
one to an address of the system's resolver if there is any. The control is asked at the first depth alone. Where TLS
failed, the address is then asked with the real name, a neutral one and none: who answers to the neutral one but not to
the real one filters by name.

A command bears an id, the ``transaction_id`` of OONI's formats; the shell answers each with exactly one event.
Times are seconds since the probe began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import islice
from typing import Any, Final, assert_never

from outlast.address import show
from outlast.dns import Reply
from outlast.errors import UsageError
from outlast.rooms.watch.proto import nat64
from outlast.rooms.watch.proto.http import HEADERS, Url, redirect_of

REDIRECTS_MAX: Final = 10
ADDRESSES_MAX: Final = 4
"""Of the system's resolver, and again so many of all others: at each depth."""
SNI_ADDRESSES_MAX: Final = 2
QUIC_ADDRESSES_MAX: Final = 2
NEUTRAL_NAME: Final = "example.org"
SPEED_MIN_BYTES: Final = 16 * 1024
SPEED_MIN_S: Final = 2.0
"""A page that took less time, or had fewer bytes, says nothing of throttling; then the control is not asked either."""

_FIRST_ID: Final = {
    "getaddrinfo": 10001,
    "udp": 20001,
    "doh": 30001,
    80: 40001,
    443: 50001,
    "quic": 60001,
    "sni": 70001,
}
Network = IPv4Network | IPv6Network
_PUBLIC6: Final = IPv6Network("2000::/3")
"""All that IANA gives out of IPv6; Python takes much of what is reserved for global."""
_LOCAL4: Final = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
"""Not public, although Python 3.11 takes them for global: of special use (RFC 6890), and a cloud's own service."""
_WEB_PORTS: Final = frozenset({80, 443})
_PORT_MIN: Final = 1024
_LOCAL_NAMES: Final = frozenset(
    {
        *("alt", "arpa", "corp", "home", "i2p", "internal", "intranet", "invalid", "lan", "local", "localdomain"),
        *("localhost", "mail", "onion", "private", "test"),
    }
)
"""Last labels under which the public web has nothing: RFC 6761, 6762, 8375, 9476, ICANN's of 2018 and 2024, customs."""
_CONTROL_ADDRESSES_MAX: Final = 64
CONTROL_DEPTH_MAX: Final = 16
"""An answer of OONI's helpers has four levels."""
SPEED_ID: Final = 80001
CONTROL_ID: Final = 90001


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure with: resolvers as ``IP:PORT``, a DoH URL, whether there is a control, and whether QUIC is tried.

    ``listen_s`` is for how long forged and true replies are waited for after the first one. ``named`` are addresses of
    the URL's host that somebody else found, ``isolate`` whether filtering by name is looked for where TLS failed.
    Addresses of ``allowed`` networks may be reached although they are not public, else none of ``refused``; but where
    the URL is the operator's own (``typed``) and its host an address, that one may be whatever it is.
    """

    resolvers: tuple[str, ...] = ()
    doh: str | None = None
    control: bool = False
    quic: bool = True
    listen_s: float = 2.5
    named: tuple[str, ...] = ()
    isolate: bool = True
    allowed: tuple[Network, ...] = ()
    refused: tuple[Network, ...] = ()
    typed: bool = True


# ---- commands ----


@dataclass(frozen=True, slots=True)
class Lookup:
    """Ask the system's resolver: getaddrinfo."""

    id: int
    host: str


@dataclass(frozen=True, slots=True)
class Query:
    """Ask a resolver by UDP for A and AAAA, and keep listening."""

    id: int
    resolver: str
    host: str
    listen_s: float


@dataclass(frozen=True, slots=True)
class AskDoh:
    """Ask a resolver by HTTPS for A and AAAA."""

    id: int
    url: str
    host: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a TCP connection and keep it under the id."""

    id: int
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Handshake:
    """TLS on the connection of that id."""

    id: int
    server_name: str | None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for the URL on the connection of that id, which is closed then."""

    id: int
    url: Url
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class AskOver:
    """Ask a resolver for A and AAAA on the connection of that id: by HTTP at ``url``, else with length prefixes."""

    id: int
    host: str
    resolver: str
    url: Url | None


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection; no event follows."""

    id: int


@dataclass(frozen=True, slots=True)
class SendInitial:
    """Send a QUIC Initial and wait for an answer."""

    id: int
    ip: str
    port: int
    server_name: str | None


@dataclass(frozen=True, slots=True)
class AskControl:
    """Send the control this request of OONI's test helper protocol."""

    id: int
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MeasureSpeed:
    """Fetch bytes from the control, to compare."""

    id: int


Command = (
    Lookup | Query | AskDoh | AskOver | Connect | Handshake | Fetch | Close | SendInitial | AskControl | MeasureSpeed
)

# ---- events ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What every event says: which command ended, when it began and ended, and why it failed (df-007) if it did."""

    id: int
    t0: float
    t: float
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp(Step):
    """getaddrinfo returned."""

    addresses: tuple[str, ...] = ()
    cname: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Step):
    """A resolver's replies to both questions as they came, with their times; forged ones come first."""

    replies: tuple[tuple[float, Reply], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Step):
    """A connection stands, or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaken(Step):
    """A handshake ended. ``io`` are reads and writes meanwhile: (operation, time, bytes)."""

    version: str = ""
    cipher: str = ""
    alpn: str = ""
    certificates: tuple[bytes, ...] = ()
    first: str = ""  # what the other side's first bytes were, see tls.Flight.kind
    alert: int | None = None
    io: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched(Step):
    """An answer of HTTP, as far as it came. ``slots`` are the bytes received in all, every 250 ms: (time, bytes)."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    truncated: bool = False
    slots: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialAnswered(Step):
    """What came back to an Initial, see quic.Answer.kind."""

    answer: str = ""
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAnswered(Step):
    """The control's answer."""

    response: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedMeasured(Step):
    """How fast bytes came from the control, as ``Fetched.slots``."""

    slots: tuple[tuple[float, int], ...] = ()


Event = LookedUp | Answered | Connected | Shaken | Fetched | InitialAnswered | ControlAnswered | SpeedMeasured


@dataclass(frozen=True, slots=True)
class Done:
    """A step that ended, with what it was a part of: ``tags`` as OONI writes them, and the URL of its depth."""

    command: Command
    event: Event
    tags: tuple[str, ...]
    url: Url


# ---- the machine ----


@dataclass(slots=True)
class _Endpoint:
    """An address and port, what it is for, and how far it is."""

    ip: str
    port: int
    tls: bool
    classic: bool
    fetch: bool
    url: Url
    depth: int
    state: str = "connecting"  # shaking, ready, fetching, over
    sni: Handshake | None = None  # the handshake of a probe that only isolates filtering by name

    @property
    def tags(self) -> tuple[str, ...]:
        if self.sni is not None:
            return ("sni_experiment", f"depth={self.depth}")
        rest = ("tcptls_experiment", f"depth={self.depth}", f"fetch_body={str(self.fetch).lower()}")
        return ("classic", *rest) if self.classic else rest


@dataclass(slots=True)
class _Depth:
    """The URL that is being looked at."""

    url: Url
    number: int
    system: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    endpoints: list[_Endpoint] = field(default_factory=list)
    fetched: bool = False


class Probe:
    """The probe of one URL: ``start``, then ``handle`` each event, until ``finished``; ``steps`` is what was done."""

    def __init__(self, url: Url, settings: Settings) -> None:
        """Begin with what the operator named."""
        self.url = url
        self.settings = settings
        self.steps: list[Done] = []
        self.redirect_failure: str | None = None
        self.finished = False
        self._depth = _Depth(url, 0)
        self._typed = {url.host} if settings.typed and is_address(url.host) else set[str]()
        self._pending: dict[int, Command] = {}
        self._tags: dict[int, tuple[str, ...]] = {}
        self._urls: dict[int, Url] = {}
        self._endpoints: dict[int, _Endpoint] = {}
        self._next_id = dict(_FIRST_ID)
        self._looking = True
        self._control = settings.control  # whether its answer is waited for
        self._over = False  # the page came, or cannot come any more
        self._extra = False  # the last phase was begun

    def start(self) -> list[Command]:
        """The first commands."""
        out = self._enter(self.url, 0)
        self.finished = not out  # an address that may not be reached
        return out

    def handle(self, event: Event) -> list[Command]:
        """Take the end of a step; returns the steps that come next."""
        command = self._pending.pop(event.id)
        self.steps.append(Done(command, event, self._tags[event.id], self._urls[event.id]))
        match event:
            case LookedUp():
                _add(self._depth.system, event.addresses)
                out: list[Command] = []
            case Answered():
                for _, reply in event.replies:
                    _add(self._depth.others, reply.addresses)
                out = []
            case Connected() | Shaken():
                out = self._advance(event)
            case Fetched():
                self._endpoints[event.id].state = "over"
                out = self._follow(event)
            case ControlAnswered():
                self._control = False
                out = self._widen(event.response)
            case InitialAnswered() | SpeedMeasured():
                out = []
            case _:
                assert_never(event)
        if self._looking and not any(isinstance(one, Lookup | Query | AskDoh) for one in self._pending.values()):
            self._looking = False
            out += self._reach()
        out += self._choose()
        if self._over and not self._pending:
            out += self._isolate()
            self.finished = not self._pending
        return out

    def _enter(self, url: Url, number: int) -> list[Command]:
        """Look up a depth's host in all ways."""
        self._depth = depth = _Depth(url, number)
        self._looking = True
        if is_address(url.host):
            depth.system.append(url.host)
            self._looking = False
            return self._reach()
        if number == 0:
            depth.others += self.settings.named
        tag = f"depth={number}"
        listen_s = self.settings.listen_s if number == 0 else 0.0
        out = [self._begin(Lookup(self._id("getaddrinfo"), url.host), "classic", tag)]
        for resolver in self.settings.resolvers:
            out.append(self._begin(Query(self._id("udp"), resolver, url.host, listen_s), tag))
        if self.settings.doh is not None:
            out.append(self._begin(AskDoh(self._id("doh"), self.settings.doh, url.host), tag))
        return out

    def _reach(self) -> list[Command]:
        """Connect to the addresses that were found; at the first depth the control does the same."""
        depth = self._depth
        system = [ip for ip in depth.system if self._may_reach(ip)][:ADDRESSES_MAX]
        others = [ip for ip in depth.others if ip not in system and self._may_reach(ip)][:ADDRESSES_MAX]
        out: list[Command] = []
        for ip in (*system, *others):
            out += self._open(ip, classic=ip in system)
        if depth.number == 0 and self.settings.quic and depth.url.scheme == "https":
            name = None if is_address(depth.url.host) else depth.url.host
            for ip in (*system, *others)[:QUIC_ADDRESSES_MAX]:
                out.append(self._begin(SendInitial(self._id("quic"), ip, depth.url.port, name), "depth=0"))
        if depth.number == 0 and self._control:
            goals = dict.fromkeys(map(nat64.goal_of, (*system, *others)))
            request = {
                "http_request": depth.url.text,
                "http_request_headers": {name: [value] for name, value in HEADERS},
                "tcp_connect": [show((ip, port)) for ip in goals for port in _ports(depth.url)],
                "x_quic_enabled": False,
            }
            out.append(self._begin(AskControl(CONTROL_ID, request)))
        return out

    def _open(self, ip: str, *, classic: bool) -> list[Command]:
        """Connect to the URL's port at an address; for http to 443 too: its certificate tells whose it is (E001)."""
        depth = self._depth
        made = [_Endpoint(ip, depth.url.port, depth.url.scheme == "https", classic, True, depth.url, depth.number)]
        if depth.url.scheme == "http" and not depth.url.explicit_port and not is_address(depth.url.host):
            made.append(_Endpoint(ip, 443, True, classic, False, depth.url, depth.number))
        depth.endpoints += made
        return [self._connect(one) for one in made]

    def _connect(self, one: _Endpoint) -> Command:
        id = self._id("sni" if one.sni is not None else 443 if one.tls else 80)
        self._endpoints[id] = one
        return self._begin(Connect(id, one.ip, one.port), *one.tags)

    def _advance(self, event: Connected | Shaken) -> list[Command]:
        """A connection stands or failed, or its handshake did."""
        one = self._endpoints[event.id]
        if event.failure is not None:
            one.state = "failed" if isinstance(event, Shaken) else "over"
            return []
        if isinstance(event, Connected) and one.tls:
            one.state = "shaking"
            shake = one.sni or Handshake(0, one.url.host)
            return [self._begin(replace(shake, id=event.id), *one.tags)]
        wanted = one.fetch and one.depth == self._depth.number
        one.state = "ready" if wanted else "over"
        return [] if wanted else [Close(event.id)]

    def _choose(self) -> list[Command]:
        """Fetch on one connection, as soon as it is clear which; close those that are not needed."""
        depth = self._depth
        mine = {id: one for id, one in self._endpoints.items() if one.fetch and one.depth == depth.number}
        out: list[Command] = []
        if not depth.fetched and not self._over and not self._looking:
            ready = [(not one.classic, id) for id, one in mine.items() if one.state == "ready"]
            trying = [one for one in mine.values() if one.state in ("connecting", "shaking")]
            if ready and (not min(ready)[0] or not any(one.classic for one in trying)):
                id = min(ready)[1]
                depth.fetched = True
                mine[id].state = "fetching"
                out.append(self._begin(Fetch(id, depth.url), *mine[id].tags))
            elif not ready and not trying and not (self._control and depth.number == 0):
                self._over = True
        if depth.fetched or self._over:
            for id, one in mine.items():
                if one.state == "ready":
                    one.state = "over"
                    out.append(Close(id))
        return out

    def _follow(self, event: Fetched) -> list[Command]:
        """Go where the answer sends, or be done with the page."""
        location = next((value for name, value in event.headers if name.lower() == "location"), None)
        try:
            target = None if event.failure else redirect_of(self._depth.url, event.status, location)
            if target is not None and not is_of_the_web(target) and target.origin != self.url.origin:
                raise UsageError("a page sends the probe to the public web alone")
        except UsageError:
            target, self.redirect_failure = None, "http_invalid_redirect_location_host"
        if target is not None and self._depth.number < REDIRECTS_MAX:
            return self._enter(target, self._depth.number + 1)
        self._over = True
        return []

    def _widen(self, response: Mapping[str, Any] | None) -> list[Command]:
        """Connect to the addresses that only the control found (E005), while they can still matter."""
        if response is None or self._depth.number > 0 or is_address(self.url.host):
            return []
        known = {one.ip for one in self._depth.endpoints}
        found = (ip for ip in control_addresses(response) if ip not in known and self._may_reach(ip))
        out: list[Command] = []
        for ip in islice(found, ADDRESSES_MAX):
            out += self._open(ip, classic=False)
        return out

    def _isolate(self) -> list[Command]:
        """The last phase, once: are names filtered where TLS failed; how fast is the control if the page was slow."""
        if self._extra:
            return []
        self._extra = True
        out: list[Command] = []
        failed = [one for one in self._endpoints.values() if one.state == "failed" and not is_address(one.url.host)]
        for one in failed[:SNI_ADDRESSES_MAX] if self.settings.isolate else ():
            for name in (one.url.host, NEUTRAL_NAME, None):
                shake = Handshake(0, name, verify=False)
                out.append(self._connect(replace(one, classic=False, fetch=False, state="connecting", sni=shake)))
        pages = [step.event for step in self.steps if isinstance(step.event, Fetched)]
        if self.settings.control and any(_is_slow(page) for page in pages):
            out.append(self._begin(MeasureSpeed(SPEED_ID), "control"))
        return out

    def _may_reach(self, ip: str) -> bool:
        """Whether an address may be connected to.

        One that is not public is only when the operator wrote it: no reply and no redirect sends the probe into the
        operator's own network.
        """
        return ip in self._typed or is_public(ip, self.settings.allowed, self.settings.refused)

    def _id(self, kind: str | int) -> int:
        self._next_id[kind] += 1
        return self._next_id[kind] - 1

    def _begin(self, command: Command, *tags: str) -> Command:
        self._pending[command.id] = command
        self._tags[command.id] = tags
        self._urls[command.id] = self._depth.url
        return command


def control_addresses(response: Mapping[str, Any]) -> list[str]:
    """The addresses that a control's answer names; whatever else stands there is passed over."""
    dns = response.get("dns")
    found = dns.get("addrs") if isinstance(dns, Mapping) else None
    some = found[:_CONTROL_ADDRESSES_MAX] if isinstance(found, list) else []
    return [ip for ip in some if isinstance(ip, str) and is_address(ip)]


def is_deep(value: Any, most: int = CONTROL_DEPTH_MAX) -> bool:
    """Whether in a value of JSON more than ``most`` lists and objects stand within one another."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(inner) and (most == 0 or any(is_deep(one, most - 1) for one in inner))


def is_address(text: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_public(text: str, allowed: Iterable[Network] = (), refused: Iterable[Network] = ()) -> bool:
    """Whether an IP address is one of the public internet and of no network that is refused, or is allowed.

    What counts is where packets go: of an IPv6 address that leads to an IPv4 one, that.
    """
    ip = ip_address(text)
    if any(ip in network for network in allowed):
        return True
    goal: IPv4Address | IPv6Address = ip
    if isinstance(ip, IPv6Address):
        goal = nat64.translated(ip) or ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1]) or ip
        if ip.scope_id is not None:
            return False
    if any(ip in network or goal in network for network in refused) or any(goal in network for network in _LOCAL4):
        return False
    return goal.is_global and not goal.is_multicast and (goal.version == 4 or goal in _PUBLIC6)


def is_of_the_web(url: Url) -> bool:
    """Whether others may name a URL: a port of the web, and no name that only a network of one's own has.

    What an address leads to is another question, see ``is_public``.
    """
    if url.port not in _WEB_PORTS and url.port < _PORT_MIN:
        return False
    if is_address(url.host):
        return True
    last = url.host.rstrip(".").rpartition(".")
    # A last label that is a number makes the C library take the name for an address, in whatever base (127.1, 0x7f.1).
    return bool(last[0]) and last[2].lower() not in _LOCAL_NAMES and not last[2][0].isdigit()


def _ports(url: Url) -> tuple[int, ...]:
    return (url.port,) if url.explicit_port else (443, 80)


def _is_slow(page: Fetched) -> bool:
    received = page.slots[-1][1] if page.slots else 0
    return received >= SPEED_MIN_BYTES and page.t - page.t0 >= SPEED_MIN_S


def _add(known: list[str], found: tuple[str, ...]) -> None:
    known[:] = dict.fromkeys((*known, *found))
