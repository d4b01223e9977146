"""The relaying process: gates, the carrier that works now, and servers, told apart from what the node decides.

It is the process of ``outlast reach connect`` and ``serve``, or a child that the node starts (``control``).
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, assert_never

import msgspec

from outlast import address, descriptors
from outlast.address import Target
from outlast.errors import OutlastError, Sentence
from outlast.rooms.reach.io import names
from outlast.rooms.reach.io.attempt import Tell, Tried, attempt, reconsider
from outlast.rooms.reach.io.carrier import Association, Carrier, Client, Refusal
from outlast.rooms.reach.io.choosing import Attempted, Choosing, Remembered, Standings, attempted
from outlast.rooms.reach.io.direct import direct
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.hops import Hop, Hops
from outlast.rooms.reach.io.lending import Lending, Lent, Shares
from outlast.rooms.reach.io.plugged import Plugged, PluggedListener, PluggedServer
from outlast.rooms.reach.io.shadowsocks import Shadowsocks
from outlast.rooms.reach.io.shadowsocks_server import ShadowsocksListener
from outlast.rooms.reach.io.tor import Tors
from outlast.rooms.reach.io.tricks import Tricking
from outlast.rooms.reach.io.upstream import upstream
from outlast.rooms.reach.io.web_bridge import ServedSite, WebServer, web_tunnel
from outlast.rooms.reach.proto import pac
from outlast.rooms.reach.proto.bridge import (
    Bridge,
    PluggedBridge,
    ProxyBridge,
    ShadowsocksBridge,
    TorBridge,
    Tricks,
    WebBridge,
)
from outlast.rooms.reach.proto.chooser import Worked
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.links import bridge_id
from outlast.rooms.reach.proto.request import read_credentials
from outlast.rooms.reach.proto.rules import Rules
from outlast.rooms.reach.proto.token_bucket import Allowance
from outlast.secrecy import no_core_dumps
from outlast.ui.faults import be_discreet, tell_faults_of
from outlast.ui.nearby import reached_at

PATIENCE_S: Final = 20.0
"""So long a stream waits for a way out, before it is refused."""
WAITING_MAX: Final = 512
FILES_MAX: Final = 1 << 16
REOPEN_S: Final = (1.0, 60.0)
"""A gate whose address is taken is tried again after so long, doubled each time."""
SERVE_AGAIN_S: Final = (4.0, 900.0)
"""So is a server that cannot be had: ever more rarely, for authorities count how often they looked in vain."""
AT_ONCE: Final = 4
"""So many bridges are tested at a time; more would share one uplink and look slow."""


class Profile(msgspec.Struct, frozen=True):
    """A gate: where it listens, who may come in, and what of theirs may go directly."""

    listen: Target
    user: str = ""
    password: str = ""
    rules: Rules = Rules()


class ShadowsocksServer(msgspec.Struct, frozen=True, tag="ss"):
    """A server of Shadowsocks for the free side."""

    listen: Target
    name: str  # the host in its link
    method: str
    password: str
    users: tuple[bytes, ...] = ()  # 32 B each: keys of those who have one of their own, beside the password


Server = ShadowsocksServer | WebServer | PluggedServer


class Config(msgspec.Struct, frozen=True):
    """What a relay does; a new one replaces the old one as a whole."""

    profiles: tuple[Profile, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    servers: tuple[Server, ...] = ()
    policy: Policy = Policy()  # of the servers' exit
    test_url: str = ""  # 64 KB of it are fetched to test bridges that know no echo
    network: str = ""  # the key of the network that this machine is on
    worked: dict[str, tuple[Worked, ...]] = {}  # by network, what ``Remembered`` told
    sync_at: Target | None = None  # where the own node takes sync that comes by the servers
    shares: Shares | None = None  # of the own uplink
    hops: tuple[Hop, ...] = ()  # uplinks of neighbours, which may be used
    tests: int = 0  # how often somebody wanted to know how all bridges are now


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """A gate is there."""

    at: str  # HOST:PORT
    pac: str  # the URL of its PAC file, for programs of this computer


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """A gate cannot be opened; it is tried again, and the same follows without an error when it is there."""

    at: str  # HOST:PORT, where it is to listen
    error: Sentence | None


class Using(msgspec.Struct, frozen=True, tag="using"):
    """Streams now take this bridge; None: there is no way out, and they wait."""

    bridge: str | None


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """A server is there."""

    transport: str
    at: str  # HOST:PORT
    links: tuple[str, ...]  # whoever has one can use it


class Down(msgspec.Struct, frozen=True, tag="down"):
    """A server cannot be had; it is tried again, and the same follows without an error when it is there."""

    at: str  # HOST:PORT, where it is to listen
    error: Sentence | None


class Starting(msgspec.Struct, frozen=True, tag="starting"):
    """The program that a bridge needs comes up, which may take a minute."""

    bridge: str
    percent: int
    step: str  # what it does now, in its own words


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The relay cannot do what it was told."""

    error: Sentence
    code: int


Event = Listening | Closed | Using | Starting | Attempted | Remembered | Standings | Serving | Down | Lent | Failed
Report = Callable[[Event], None]


class Running(Protocol):
    """A server that runs."""

    at: Target
    links: tuple[str, ...]

    def admit(self, users: tuple[bytes, ...], /) -> None:
        """From now on these secrets or keys let in."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


_tors: Final = Tors()


async def carrier_of(bridge: Bridge, tell: Tell, hop_bytes: int = 0) -> Carrier:
    """The carrier that a bridge is; what it needs has been started. Raises OutlastError with what to do.

    ``tell`` hears each time why a connection to the bridge failed, of carriers that go on trying by themselves;
    ``hop_bytes`` is what a tunnel to it found out before.
    """
    loop = asyncio.get_running_loop()
    match bridge:
        case ProxyBridge():
            return upstream(loop, bridge)
        case ShadowsocksBridge():
            return Shadowsocks(loop, bridge)
        case WebBridge():
            return web_tunnel(bridge, tell, hop_bytes)
        case PluggedBridge():
            return Plugged(bridge, tell, hop_bytes)
        case TorBridge():
            return await _tors.carrier(bridge)
        case Tricks():
            return Tricking(bridge)
        case other:
            assert_never(other)


async def server_of(exit_: Exit, server: Server) -> Running:
    """Start a server; raises OutlastError with what to do."""
    match server:
        case ShadowsocksServer():
            return ShadowsocksListener(exit_, server.listen, server.method, server.password, server.name, server.users)
        case WebServer():
            return await ServedSite.start(exit_, server)
        case PluggedServer():
            return await PluggedListener.start(exit_, server)
        case other:
            assert_never(other)


class Relay:
    """All that one process relays."""

    def __init__(self, report: Report, stood: Callable[[Standings], None] | None = None) -> None:
        """``stood`` hears how all bridges stand whenever that changed: for screens."""
        self._stood = stood
        self._loop = asyncio.get_running_loop()
        self._report = report
        _tors.told = lambda bridge, percent, step: report(Starting(bridge_id(bridge), percent, step))
        self._config = Config()
        self._gates: dict[Profile, Gate] = {}
        self._closed: dict[Profile, OutlastError] = {}
        self._reopening: asyncio.TimerHandle | None = None
        self._reopen_s = REOPEN_S[0]
        self._servers: dict[Server, Running] = {}
        self._down: dict[Server, OutlastError] = {}
        self._serving: asyncio.Task[None] | None = None  # what is down
        self._exit: Exit | None = None
        self._lending: Lending | None = None
        self._used: dict[bytes, Allowance] = {}  # of the lent uplink today, by the offer's number
        self._direct: dict[Rules, tuple[Carrier, Exit]] = {}
        self._hops = Hops(self._loop)
        self._carrier: Carrier | None = None
        self._choosing: Choosing | None = None
        self._waiting: dict[Client, asyncio.TimerHandle] = {}

    async def start(self, config: Config) -> None:
        """Do what the configuration says, and no more what the one before said; what is in both goes on undisturbed.

        Everything that is there afterwards is reported anew. A gate that cannot be opened, and a server that cannot be
        had, are tried again and again. Raises OutlastError when a place to lend at cannot be had, after all the rest
        was done.
        """
        await self._rest()
        before, self._config, is_first = self._config, config, self._choosing is None
        for profile in self._gates.keys() - set(config.profiles):
            self._gates.pop(profile).close()
        self._closed.clear()
        for profile in config.profiles:
            if profile in self._gates:
                self._tell_gate(profile)
            else:
                self._open_gate(profile)
        self._reopen_s = REOPEN_S[0]
        self._reopen_later()
        if self._choosing is None or config.test_url != before.test_url:
            if self._choosing is not None:
                await self._choosing.close()
                self._use(None, None)
            self._choosing = Choosing(
                carrier_of,
                self._use,
                self._report,
                network=config.network,
                memory=config.worked,
                url=config.test_url,
                stood=self._stood,
            )
        elif config.network != before.network:
            self._choosing.moved(config.network)
        if (config.bridges, config.hops) != (before.bridges, before.hops):
            self._choosing.offer(config.bridges, self._hops.match(config.hops, config.bridges))
        if not is_first and config.tests != before.tests:
            self._choosing.try_all()
        if not is_first:
            self._report(Using(self._choosing.using))
        # Last, for a server may wait for its certificate.
        await self._serve(config, anew=(before.policy, before.sync_at) != (config.policy, config.sync_at))
        await self._lend(config.shares)

    async def _serve(self, config: Config, *, anew: bool) -> None:
        """Run the servers of a configuration; one that only has other users lets these in."""
        wanted = {_without_users(server): server for server in config.servers}
        for server in list(self._servers):
            new = None if anew else wanted.get(_without_users(server))
            running = self._servers.pop(server)
            if new is None:
                await running.close()
            elif new == server:
                self._servers[server] = running
            else:
                running.admit(_users_of(new))
                self._servers[new] = running
        if config.servers and (anew or self._exit is None):
            if self._exit is not None:
                self._exit.close()
            self._exit = Exit(self._loop, config.policy, config.sync_at)
        for server in config.servers:
            if server in self._servers:
                self._tell_server(server)
            else:
                await self._start_server(server)
        if self._down:
            self._serving = asyncio.create_task(self._serve_again())

    async def _start_server(self, server: Server) -> None:
        assert self._exit is not None
        at = address.show(server.listen)
        try:
            self._servers[server] = await server_of(self._exit, server)
        except OutlastError as error:
            if server not in self._down:
                self._report(Down(at, error.line))
            self._down[server] = error
        else:
            if self._down.pop(server, None) is not None:
                self._report(Down(at, None))
            self._tell_server(server)

    def _tell_server(self, server: Server) -> None:
        running = self._servers[server]
        transport = server.transport if isinstance(server, PluggedServer) else str(server.__struct_config__.tag)
        self._report(Serving(transport, address.show(running.at), running.links))

    async def _serve_again(self) -> None:
        """Its port may be another program's still, its authority or the network itself may not be there yet."""
        wait_s, most_s = SERVE_AGAIN_S
        while self._down:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, most_s)
            for server in tuple(self._down):
                await self._start_server(server)

    async def _rest(self) -> None:
        """Try no more what is down."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None
        self._down.clear()

    async def _lend(self, shares: Shares | None) -> None:
        """Lend the uplink so, or no more."""
        if self._lending is None:
            self._lending = None if shares is None else Lending(self._loop, shares, self._report, used=self._used)
        elif shares is not None:
            self._lending.match(shares)
        else:
            lending, self._lending = self._lending, None
            await lending.close()

    async def close(self) -> None:
        """End all of it."""
        await self._rest()
        if self._reopening is not None:
            self._reopening.cancel()
        for gate in self._gates.values():
            gate.close()
        for client in tuple(self._waiting):
            self._give_up(client)
        if self._choosing is not None:
            await self._choosing.close()
        for carrier, exit_ in self._direct.values():
            carrier.close()
            exit_.close()
        for server in self._servers.values():
            await server.close()
        if self._lending is not None:
            await self._lending.close()
        self._hops.close()
        if self._exit is not None:
            self._exit.close()

    @property
    def problem(self) -> OutlastError | None:
        """Why a gate is not open, or a server not there."""
        return next(iter((*self._closed.values(), *self._down.values())), None)

    def _open_gate(self, profile: Profile) -> None:
        carry, associate = partial(self._carry, profile.rules), partial(self._associate, profile.rules)
        try:
            credentials = read_credentials(profile.user, profile.password)
            self._gates[profile] = Gate(self._loop, profile.listen, carry, associate, credentials)
        except OutlastError as error:
            if profile not in self._closed:
                self._report(Closed(address.show(profile.listen), error.line))
            self._closed[profile] = error
        else:
            if self._closed.pop(profile, None) is not None:
                self._report(Closed(address.show(profile.listen), None))
            self._tell_gate(profile)

    def _tell_gate(self, profile: Profile) -> None:
        at = self._gates[profile].at
        self._report(Listening(address.show(at), pac.url(reached_at(at)[0])))

    def _reopen_later(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = self._loop.call_later(self._reopen_s, self._reopen) if self._closed else None

    def _reopen(self) -> None:
        for profile in tuple(self._closed):
            self._open_gate(profile)
        self._reopen_s = min(2 * self._reopen_s, REOPEN_S[1])
        self._reopen_later()

    def _use(self, carrier: Carrier | None, bridge: str | None) -> None:
        self._carrier = carrier
        self._report(Using(bridge))
        for gate in self._gates.values():
            gate.end_datagrams()
        if carrier is not None and self._choosing is not None:
            waiting, self._waiting = self._waiting, {}
            for client, limit in waiting.items():
                limit.cancel()
                self._choosing.carry(client)

    def _carry(self, rules: Rules, client: Client) -> None:
        if rules.direct(client.target):
            self._directly(rules).carry(client)
        elif self._choosing is not None and self._carrier is not None:
            self._choosing.carry(client)
        elif self._choosing is None or not self._has_room():
            client.refuse(Refusal.FAILED)
        else:
            self._waiting[client] = self._loop.call_later(PATIENCE_S, self._give_up, client)
            self._choosing.wanted()

    def _has_room(self) -> bool:
        """Whether another client can wait; those that have hung up meanwhile make room."""
        if len(self._waiting) >= WAITING_MAX:
            for client in [client for client in self._waiting if client.gone]:
                self._give_up(client)
        return len(self._waiting) < WAITING_MAX

    def _give_up(self, client: Client) -> None:
        self._waiting.pop(client).cancel()
        client.refuse(Refusal.FAILED)

    def _directly(self, rules: Rules) -> Carrier:
        # Names that may go directly may lead into the networks that may, and to the public internet: a name that
        # leads elsewhere would open this machine's own services to whoever owns the name.
        if rules not in self._direct:
            exit_ = Exit(self._loop, Policy(allowed=rules.networks, ports_refused=()))
            self._direct[rules] = direct(exit_), exit_
        return self._direct[rules][0]

    def _associate(
        self, rules: Rules, isolation: bytes, deliver: Callable[[Target, bytes], None]
    ) -> Association | None:
        far = None if self._carrier is None else self._carrier.associate(isolation, deliver)
        if rules == Rules():
            return far
        return _Sorted(rules, far, lambda: self._directly(rules).associate(isolation, deliver))


class _Sorted:
    """Datagrams of one program: each goes directly or by the carrier, as the rules say; without one it is lost."""

    def __init__(self, rules: Rules, far: Association | None, open_direct: Callable[[], Association | None]) -> None:
        self._rules = rules
        self._far = far
        self._open_direct = open_direct
        self._near: Association | None = None

    def send(self, target: Target, data: bytes) -> None:
        """Pass one on, or drop it."""
        if not self._rules.direct(target):
            if self._far is not None:
                self._far.send(target, data)
            return
        self._near = self._near or self._open_direct()
        if self._near is not None:
            self._near.send(target, data)

    def close(self) -> None:
        """End both."""
        for one in (self._far, self._near):
            if one is not None:
                one.close()


def _without_users(server: Server) -> Server:
    """What stays the same when only its users change; a server that has none is another one."""
    match server:
        case WebServer() | PluggedServer():
            return msgspec.structs.replace(server, secrets=())
        case ShadowsocksServer():
            return msgspec.structs.replace(server, users=server.users[:1] and (b"",))


def _users_of(server: Server) -> tuple[bytes, ...]:
    return server.users if isinstance(server, ShadowsocksServer) else server.secrets


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run until it is done, on the fast loop where there is one."""
    factory = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    names.end_in_time()
    no_core_dumps()  # keys and targets are in its memory
    descriptors.allow(FILES_MAX)  # a stream has two or three
    # Streams come and go by the thousand: no collection is to walk through all that was imported, for few of them.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    be_discreet()
    with asyncio.Runner(loop_factory=factory) as runner:
        tell_faults_of(runner.get_loop())
        runner.run(coroutine)


async def try_each(bridges: Sequence[Bridge], show: Callable[[Attempted], None], url: str) -> None:
    """Try bridges, few at a time, and show what came of each, in their order."""
    few = asyncio.Semaphore(AT_ONCE)

    async def one(bridge: Bridge) -> Tried:
        async with few:
            return await attempt(bridge, carrier_of, url=url, others=bridges)

    async def opinion(bridge: Bridge, tried: Tried) -> Tried:
        """With what others see that work, who are asked when all are through."""
        if tried.failure is not None and isinstance(bridge, WebBridge):
            for other in await asyncio.gather(*tasks):
                if other.proof:
                    carrier = await carrier_of(other.bridge, lambda error: None, other.hop_bytes)
                    try:
                        return await reconsider(bridge, tried, carrier)
                    finally:
                        carrier.close()
        return tried

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(bridge)) for bridge in bridges]
        for bridge, task in zip(bridges, tasks, strict=True):
            show(attempted(bridge_id(bridge), await opinion(bridge, await task)))


async def relay_until_signal(config: Config, report: Report) -> None:
    """Relay until SIGINT or SIGTERM; raises what ``Relay.start`` raises."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    relay = Relay(report)
    starting = loop.create_task(relay.start(config))

    def tell() -> None:
        told.set()
        starting.cancel()  # a server may wait for its program, or for its certificate

    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, tell)
    try:
        await asyncio.wait((starting,))
        if not starting.cancelled():
            starting.result()
            if relay.problem is not None:
                raise relay.problem
        await told.wait()
    finally:
        await relay.close()
