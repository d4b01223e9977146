"""The probe's hands: carries out the commands of ``proto.probe`` on sockets, one task for each, and reports events.

Each step has a time limit and ends in exactly one event. Nothing is decided here. Bytes that come are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import Any, Final, Protocol, assert_never

import ifaddr
import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from outlast import dns, tls
from outlast.errors import ProtocolError
from outlast.rooms.watch.io.wire import (
    READ_BYTES,
    End,
    Refused,
    Slots,
    Wire,
    dial,
    failure_of,
    getaddrinfo,
    open_socket,
    reach,
    receive,
    secured,
    strict_context,
)
from outlast.rooms.watch.proto import quic
from outlast.rooms.watch.proto.http import HEADERS, Exchange, Url, parse_url
from outlast.rooms.watch.proto.probe import (
    Answered,
    AskControl,
    AskDoh,
    AskOver,
    Close,
    Command,
    Connect,
    Connected,
    ControlAnswered,
    Event,
    Fetch,
    Fetched,
    Handshake,
    InitialAnswered,
    LookedUp,
    Lookup,
    MeasureSpeed,
    Network,
    Probe,
    Query,
    SendInitial,
    Settings,
    Shaken,
    SpeedMeasured,
    is_address,
    is_deep,
)
from outlast.rooms.watch.proto.web_connectivity import Json, measurement

CONTROL_MAX_BYTES: Final = 1 << 20
SPEED_MAX_BYTES: Final = 1 << 22
REPLIES_MAX: Final = 16
HOME_BITS: Final = 56
"""A home gets an IPv6 network of this size or a greater one (RIPE-690): its other wires are within as well."""
URL_S: Final = 180.0
"""So long a probe of one URL may last in all."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each kind of step may take, seconds."""

    lookup_s: float = 15.0
    dns_s: float = 5.0
    connect_s: float = 10.0
    tls_s: float = 10.0
    fetch_s: float = 20.0
    quic_s: float = 3.0
    control_s: float = 45.0


@dataclass(frozen=True, slots=True)
class Control:
    """Whom to ask for a look from elsewhere: a test helper's URL, and the word by which it knows us."""

    url: Url
    token: str = ""


async def probe_url(
    url: Url,
    settings: Settings,
    *,
    control: Control | None = None,
    patience: Patience = Patience(),
) -> Json:
    """Probe one URL; returns the measurement in OONI's format. Raises nothing for what the network does."""
    at_s = time.time()
    machine = Probe(url, replace(settings, refused=own_networks()))
    async with Hands(patience, control) as hands:
        # A site that sends the probe about, or trickles, ends here: what was seen until then is the measurement.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(URL_S):
                await hands.drive(machine)
        return measurement(machine, at_s, hands.own_addresses)


class Machine(Protocol):
    """What decides what comes next."""

    finished: bool

    def start(self) -> list[Command]:
        """The first commands."""
        ...

    def handle(self, event: Event) -> list[Command]:
        """Take the end of a step."""
        ...


class Hands:
    """Carries out commands; their events come in ``events``."""

    def __init__(self, patience: Patience, control: Control | None) -> None:
        """Begin the clock."""
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.own_addresses: set[str] = set()
        self._patience = patience
        self._control = control
        self._began = time.monotonic()
        self._wires: dict[int, Wire] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._secure: ssl.SSLContext | None = None

    async def __aenter__(self) -> Hands:
        """Start."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all steps and close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self._wires.values():
            wire.close()

    async def drive(self, machine: Machine) -> None:
        """Carry out what a machine asks for until it is finished."""
        self.take(machine.start())
        while not machine.finished:
            self.take(machine.handle(await self.events.get()))

    def take(self, commands: Sequence[Command]) -> None:
        """Begin these steps."""
        for command in commands:
            if isinstance(command, Close):
                if command.id in self._wires:
                    self._wires.pop(command.id).close()
                continue
            task = asyncio.create_task(self._carry_out(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _clock(self) -> float:
        return round(time.monotonic() - self._began, 6)

    async def _carry_out(self, command: Command) -> None:
        t0 = self._clock()
        match command:
            case Lookup():
                event: Event = await self._look_up(command, t0)
            case Query():
                event = await self._query(command, t0)
            case AskDoh():
                event = await self._ask_doh(command, t0)
            case AskOver():
                event = await self._ask_over(command, t0)
            case Connect():
                event = await self._connect(command, t0)
            case Handshake():
                event = await self._shake(command, t0)
            case Fetch():
                event = await self._fetch(command, t0)
            case SendInitial():
                event = await self._send_initial(command, t0)
            case AskControl():
                event = await self._ask_control(command, t0)
            case MeasureSpeed():
                event = await self._measure_speed(command, t0)
            case Close():
                return
            case _:
                assert_never(command)
        self.events.put_nowait(event)

    # ---- names ----

    async def _look_up(self, command: Lookup, t0: float) -> LookedUp:
        try:
            async with asyncio.timeout(self._patience.lookup_s):
                addresses, cname = await getaddrinfo(_as_it_is(command.host))
        except OSError as error:
            return LookedUp(id=command.id, t0=t0, t=self._clock(), failure=failure_of(error))
        alias = cname if cname and cname.rstrip(".").lower() != command.host.lower() else None
        return LookedUp(id=command.id, t0=t0, t=self._clock(), addresses=addresses, cname=alias)

    async def _query(self, command: Query, t0: float) -> Answered:
        host, port = split_address(command.resolver, 53)
        asked = {secrets.randbelow(1 << 16): dns.A}
        while len(asked) < 2:
            asked.setdefault(secrets.randbelow(1 << 16), dns.AAAA)
        replies: list[tuple[float, dns.Reply]] = []
        failure: str | None = None
        with open_socket(host, socket.SOCK_DGRAM) as sock:
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(sock, (host, port))
                self._note(sock)
                for id, type in asked.items():
                    await loop.sock_sendall(sock, dns.encode_query(id, command.host, type))
                limit = asyncio.timeout(self._patience.dns_s)
                async with limit:
                    while len(replies) < REPLIES_MAX:
                        data = await receive(sock, dns.MESSAGE_MAX_BYTES)
                        with contextlib.suppress(dns.DnsError):
                            reply = dns.decode_reply(data)
                            if not dns.answers(reply, reply.id, command.host, asked.get(reply.id, 0)):
                                continue
                            replies.append((self._clock(), reply))
                        if {reply.type for _, reply in replies} == {dns.A, dns.AAAA}:
                            limit.reschedule(min(loop.time() + command.listen_s, limit.when() or 0.0))
            except (OSError, dns.DnsError) as error:
                failure = failure_of(error)
        done = {reply.type for _, reply in replies} == {dns.A, dns.AAAA}
        return Answered(
            id=command.id, t0=t0, t=self._clock(), replies=tuple(replies), failure=None if done else failure
        )

    async def _ask_doh(self, command: AskDoh, t0: float) -> Answered:
        url = parse_url(command.url)
        return await self._ask_both(command.id, command.host, t0, lambda query: self._post_dns(url, query))

    async def _ask_over(self, command: AskOver, t0: float) -> Answered:
        wire = self._wires.pop(command.id)
        url = command.url
        first = True

        async def ask(query: bytes) -> bytes:
            nonlocal first
            if url is None:
                return await _over_stream(wire, query)
            # One connection carries one exchange: the second question has one of its own, to the same address.
            on, first = (
                wire if first else await self._second(*split_address(command.resolver, 443), url.host),
                False,
            )
            with contextlib.closing(on):
                return await _over_http(on, url, query)

        with contextlib.closing(wire):
            return await self._ask_both(command.id, command.host, t0, ask)

    async def _ask_both(self, id: int, host: str, t0: float, ask: Callable[[bytes], Awaitable[bytes]]) -> Answered:
        """Ask for A, then for AAAA."""
        replies: list[tuple[float, dns.Reply]] = []
        failure: str | None = None
        try:
            async with asyncio.timeout(self._patience.dns_s):
                for type in (dns.A, dns.AAAA):
                    reply = dns.decode_reply(await ask(dns.encode_query(0, host, type)))
                    if not dns.answers(reply, 0, host, type):
                        raise Refused("dns_server_misbehaving")
                    replies.append((self._clock(), reply))
        except ProtocolError:
            failure = "dns_server_misbehaving"
        except (OSError, End, Refused) as error:
            failure = failure_of(error)
        return Answered(id=id, t0=t0, t=self._clock(), replies=tuple(replies), failure=failure)

    async def _post_dns(self, url: Url, query: bytes) -> bytes:
        wire = await self._wire_to(url)
        with contextlib.closing(wire):
            return await _over_http(wire, url, query)

    # ---- connections ----

    async def _connect(self, command: Connect, t0: float) -> Connected:
        try:
            async with asyncio.timeout(self._patience.connect_s):
                self._wires[command.id] = await self._dial(command.ip, command.port)
        except OSError as error:
            return Connected(id=command.id, t0=t0, t=self._clock(), failure=failure_of(error))
        return Connected(id=command.id, t0=t0, t=self._clock())

    async def _shake(self, command: Handshake, t0: float) -> Shaken:
        wire = self._wires[command.id]
        context = self._context() if command.verify else _careless()
        failure: str | None = None
        try:
            async with asyncio.timeout(self._patience.tls_s):
                await wire.shake(context, command.server_name)
        except (OSError, End) as error:
            failure = failure_of(error)
            self._wires.pop(command.id).close()
        flight = tls.read_flight(bytes(wire.first))
        secure = wire.tls
        done = secure is not None and failure is None
        certificate = secure.getpeercert(True) if secure is not None and done else None
        cipher = secure.cipher() if secure is not None and done else None
        return Shaken(
            id=command.id,
            t0=t0,
            t=self._clock(),
            failure=failure,
            version=(secure.version() or "") if secure is not None and done else "",
            cipher=cipher[0] if cipher else "",
            alpn=(secure.selected_alpn_protocol() or "") if secure is not None and done else "",
            certificates=(certificate,) if certificate else (),
            first=flight.kind,
            alert=flight.alert,
            io=tuple(wire.io),
        )

    async def _fetch(self, command: Fetch, t0: float) -> Fetched:
        exchange = Exchange()
        wire = self._wires.pop(command.id)
        slots = Slots(self._clock)
        failure: str | None = None
        try:
            async with asyncio.timeout(self._patience.fetch_s):
                await wire.send(exchange.send(command.method, command.url, HEADERS))
                await wire.receive(exchange, slots)
        except (OSError, End) as error:
            failure = failure_of(error)
        finally:
            wire.close()
        return Fetched(
            id=command.id,
            t0=t0,
            t=self._clock(),
            failure=failure or exchange.failure,
            status=exchange.status,
            headers=tuple(exchange.headers),
            body=exchange.body,
            truncated=exchange.truncated or (failure is not None and bool(exchange.body)),
            slots=slots.taken(),
        )

    async def _send_initial(self, command: SendInitial, t0: float) -> InitialAnswered:
        dcid, scid = secrets.token_bytes(8), secrets.token_bytes(8)
        public = X25519PrivateKey.generate().public_key().public_bytes_raw()
        name = None if command.server_name is None or is_address(command.server_name) else command.server_name
        packet = quic.client_initial(name, dcid, scid, secrets.token_bytes(32), public)
        answer, failure = quic.Answer(""), None
        with open_socket(command.ip, socket.SOCK_DGRAM) as sock:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._patience.quic_s):
                    await loop.sock_connect(sock, (command.ip, command.port))
                    await loop.sock_sendall(sock, packet)
                    while answer.kind in ("", "invalid"):
                        answer = quic.read_answer(await receive(sock, READ_BYTES), dcid, scid)
            except OSError as error:
                failure = failure_of(error)
        return InitialAnswered(
            id=command.id, t0=t0, t=self._clock(), failure=failure, answer=answer.kind, versions=answer.versions
        )

    # ---- the control ----

    async def _ask_control(self, command: AskControl, t0: float) -> ControlAnswered:
        response: Any = None
        failure: str | None = None
        headers = (("Content-Type", "application/json"), ("Accept", "application/json"), *self._authority())
        try:
            async with asyncio.timeout(self._patience.control_s):
                body = json.dumps(command.request).encode()
                exchange = await self._post(self._whom(), headers, body, CONTROL_MAX_BYTES)
            failure = None if exchange.status == 200 else "http_request_failed"
            response = msgspec.json.decode(exchange.body) if failure is None else None
            if failure is None and (not isinstance(response, dict) or is_deep(response)):
                response, failure = None, "json_parse_error"
        except (msgspec.MsgspecError, ValueError, RecursionError):
            failure = "json_parse_error"
        except (OSError, End, Refused) as error:
            failure = failure_of(error)
        return ControlAnswered(id=command.id, t0=t0, t=self._clock(), failure=failure, response=response)

    async def _measure_speed(self, command: MeasureSpeed, t0: float) -> SpeedMeasured:
        slots = Slots(self._clock)
        failure: str | None = None
        url = self._whom()
        url = parse_url(f"{url.scheme}://{url.origin}/speed")
        exchange = Exchange(SPEED_MAX_BYTES)
        try:
            async with asyncio.timeout(self._patience.fetch_s):
                wire = await self._wire_to(url)
                with contextlib.closing(wire):
                    await wire.send(exchange.send("GET", url, self._authority()))
                    slots = Slots(self._clock)
                    await wire.receive(exchange, slots)
            failure = exchange.failure or (None if exchange.status == 200 else "http_request_failed")
        except (OSError, End, Refused) as error:
            failure = failure_of(error)
        return SpeedMeasured(id=command.id, t0=t0, t=self._clock(), failure=failure, slots=slots.taken())

    def _whom(self) -> Url:
        assert self._control is not None, "the machine asks a control that was not given"
        return self._control.url

    def _authority(self) -> tuple[tuple[str, str], ...]:
        token = self._control.token if self._control else ""
        return (("Authorization", f"Bearer {token}"),) if token else ()

    async def _post(self, url: Url, headers: Sequence[tuple[str, str]], body: bytes, limit: int) -> Exchange:
        """POST on a connection of its own, whose certificate must be valid; raises OSError, End and Refused."""
        wire = await self._wire_to(url)
        with contextlib.closing(wire):
            exchange = Exchange(limit)
            await wire.send(exchange.send("POST", url, headers, body))
            await wire.receive(exchange, None)
        if exchange.failure:
            raise Refused(exchange.failure)
        return exchange

    async def _wire_to(self, url: Url) -> Wire:
        return await reach(url, self._patience.connect_s, self._dial, self._context)

    async def _second(self, ip: str, port: int, name: str) -> Wire:
        return await secured(await self._dial(ip, port), self._context(), name)

    async def _dial(self, ip: str, port: int) -> Wire:
        wire = await dial(ip, port, self._clock)
        self._note(wire.sock)
        return wire

    def _note(self, sock: socket.socket) -> None:
        # Whoever answers may repeat the operator's address; what it is must be known to be taken out.
        self.own_addresses.add(sock.getsockname()[0])

    def _context(self) -> ssl.SSLContext:
        if self._secure is None:
            self._secure = strict_context()
        return self._secure


async def _over_http(wire: Wire, url: Url, query: bytes) -> bytes:
    """Ask by HTTP (RFC 8484); raises OSError, End and Refused."""
    kind = "application/dns-message"
    exchange = Exchange(dns.MESSAGE_MAX_BYTES)
    await wire.send(exchange.send("POST", url, (("Content-Type", kind), ("Accept", kind)), query))
    await wire.receive(exchange, None)
    if exchange.failure or exchange.status != 200:
        raise Refused(exchange.failure or "http_request_failed")
    return exchange.body


async def _over_stream(wire: Wire, query: bytes) -> bytes:
    """Ask with a length before each message (RFC 7766, 7858); raises OSError and End."""
    await wire.send(len(query).to_bytes(2) + query)
    came = b""
    while len(came) < 2 or len(came) < 2 + int.from_bytes(came[:2]):
        more = await wire.read()
        if not more:
            raise End
        came += more
    return came[2 : 2 + int.from_bytes(came[:2])]


def _as_it_is(host: str) -> str:
    """A name to which the C library adds nothing: of one that is not found it would ask anew with the network's own
    domain behind it, and that may name who runs the network, and lead to a page of theirs."""
    return host if "." not in host or host.endswith(".") else f"{host}."


def split_address(text: str, port: int) -> tuple[str, int]:
    """``IP``, ``IP:PORT`` or ``[IPv6]:PORT`` in its parts; raises ValueError for what is no port."""
    if is_address(text):
        return text, port
    host, _, given = text.rpartition(":")
    if not 0 <= (number := int(given)) <= 0xFFFF:
        raise ValueError(f"there is no port {number}")
    return host.removeprefix("[").removesuffix("]"), number


def own_networks() -> tuple[Network, ...]:
    """The networks that this computer is in: what is there may trust whoever is within, public addresses or not."""
    found = set[Network]()
    for ip in (ip for adapter in ifaddr.get_adapters() for ip in adapter.ips):
        address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
        network = ip_interface(f"{address.partition('%')[0]}/{ip.network_prefix}").network
        if network.version == 6 and network.prefixlen > HOME_BITS and network.is_global:
            network = network.supernet(new_prefix=HOME_BITS)
        found.add(network)
    return tuple(found)


def _careless() -> ssl.SSLContext:
    """A context that takes any certificate: it is looked at, and nothing is sent after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
