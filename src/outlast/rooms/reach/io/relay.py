"""The relaying process: gates, the carrier that works now, and servers, told apart from what the node decides.

It is the process of ``outlast reach connect`` and ``serve``, or a child that the node starts (``control``)::

    python -m outlast.rooms.reach.io.relay FD
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from outlast.errors import OutlastError, UsageError
from outlast.rooms.reach.io.carrier import Association, Carrier, Client, Refusal
from outlast.rooms.reach.io.direct import direct
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.shadowsocks import Shadowsocks
from outlast.rooms.reach.io.shadowsocks_server import ShadowsocksListener
from outlast.rooms.reach.io.upstream import upstream
from outlast.rooms.reach.io.web_bridge import ServedSite, web_tunnel
from outlast.rooms.reach.proto import address
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.bridge import Bridge, ProxyBridge, ShadowsocksBridge, WebBridge
from outlast.rooms.reach.proto.exit_policy import Policy
from outlast.rooms.reach.proto.links import bridge_id
from outlast.rooms.reach.proto.pac import PATH
from outlast.rooms.reach.proto.request import Credentials
from outlast.rooms.reach.proto.rules import Rules

PATIENCE_S: Final = 20.0
"""So long a stream waits for a way out, before it is refused."""
WAITING_MAX: Final = 512


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


class WebServer(msgspec.Struct, frozen=True, tag="web"):
    """A website that is a bridge to those who know a secret of it."""

    listen: Target
    name: str  # the host in its link; what TLS and HTTP call it
    site: str  # a folder, or the URL of the server behind it
    secrets: tuple[bytes, ...]  # 32 B each, one for each user
    folder: str  # where its key is kept when it signs its certificate itself
    certificate: tuple[str, str] | None = None  # PEM files: chain, key


Server = ShadowsocksServer | WebServer


class Config(msgspec.Struct, frozen=True):
    """What a relay does; a new one replaces the old one as a whole."""

    profiles: tuple[Profile, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    servers: tuple[Server, ...] = ()
    policy: Policy = Policy()  # of the servers' exit


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """A gate is there."""

    at: str  # HOST:PORT
    pac: str  # the URL of its PAC file


class Using(msgspec.Struct, frozen=True, tag="using"):
    """Streams now take this bridge; None: there is no way out, and they wait."""

    bridge: str | None


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """A bridge cannot be used as it is; ``error`` says what to do."""

    bridge: str
    error: str


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """A server is there."""

    transport: str
    at: str  # HOST:PORT
    links: tuple[str, ...]  # whoever has one can use it


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The relay cannot do what it was told."""

    error: str
    code: int


Event = Listening | Using | Broken | Serving | Failed
Report = Callable[[Event], None]


class Running(Protocol):
    """A server that runs."""

    at: Target
    links: tuple[str, ...]

    async def close(self) -> None:
        """End it."""
        ...


async def carrier_of(loop: asyncio.AbstractEventLoop, bridge: Bridge) -> Carrier:
    """The carrier that a bridge is; what it needs has been started. Raises OutlastError with what to do."""
    match bridge:
        case ProxyBridge():
            return upstream(loop, bridge)
        case ShadowsocksBridge():
            return Shadowsocks(loop, bridge)
        case WebBridge():
            return web_tunnel(bridge, lambda error: None)
        case _:
            raise UsageError("this version has no way to use that kind of bridge")


async def server_of(exit_: Exit, server: Server) -> Running:
    """Start a server; raises OutlastError with what to do."""
    match server:
        case ShadowsocksServer():
            return ShadowsocksListener(exit_, server.listen, server.method, server.password, server.name)
        case WebServer():
            files = None if server.certificate is None else (Path(server.certificate[0]), Path(server.certificate[1]))
            return await ServedSite.start(
                exit_, server.listen, server.name, server.site, server.secrets, Path(server.folder), files
            )


class Relay:
    """All that one process relays."""

    def __init__(self, report: Report) -> None:
        self._loop = asyncio.get_running_loop()
        self._report = report
        self._gates: list[Gate] = []
        self._servers: list[Running] = []
        self._exit: Exit | None = None
        self._direct: Carrier | None = None
        self._carrier: Carrier | None = None
        self._waiting: dict[Client, asyncio.TimerHandle] = {}

    async def start(self, config: Config) -> None:
        """Do what the configuration says; raises OutlastError when an address or a server cannot be had."""
        for profile in config.profiles:
            self._open_gate(profile)
        if config.servers:
            self._exit = Exit(self._loop, config.policy)
        for server in config.servers:
            assert self._exit is not None
            running = await server_of(self._exit, server)
            self._servers.append(running)
            self._report(Serving(str(server.__struct_config__.tag), address.show(running.at), running.links))
        for bridge in config.bridges:
            try:
                self._use(await carrier_of(self._loop, bridge), bridge)
            except OutlastError as error:
                self._report(Broken(bridge_id(bridge), str(error)))
            else:
                break

    async def close(self) -> None:
        """End all of it."""
        for gate in self._gates:
            gate.close()
        for client in tuple(self._waiting):
            self._give_up(client)
        for carrier in (self._carrier, self._direct):
            if carrier is not None:
                carrier.close()
        for server in self._servers:
            await server.close()
        if self._exit is not None:
            self._exit.close()

    def _open_gate(self, profile: Profile) -> None:
        credentials = Credentials(profile.user.encode(), profile.password.encode()) if profile.user else None
        carry = partial(self._carry, profile.rules)
        gate = Gate(self._loop, profile.listen, carry, self._associate, credentials)
        self._gates.append(gate)
        at = address.show(gate.at)
        self._report(Listening(at, f"http://{at}{PATH}"))

    def _use(self, carrier: Carrier, bridge: Bridge) -> None:
        self._carrier = carrier
        self._report(Using(bridge_id(bridge)))
        for client, limit in self._waiting.items():
            limit.cancel()
            carrier.carry(client)
        self._waiting.clear()

    def _carry(self, rules: Rules, client: Client) -> None:
        if rules.direct(client.target):
            self._directly(rules).carry(client)
        elif self._carrier is not None:
            self._carrier.carry(client)
        elif len(self._waiting) >= WAITING_MAX:
            client.refuse(Refusal.FAILED)
        else:
            self._waiting[client] = self._loop.call_later(PATIENCE_S, self._give_up, client)

    def _give_up(self, client: Client) -> None:
        self._waiting.pop(client).cancel()
        client.refuse(Refusal.FAILED)

    def _directly(self, rules: Rules) -> Carrier:
        # Names that may go directly may lead into the networks that may, and to the public internet: a name that
        # leads elsewhere would open this machine's own services to whoever owns the name.
        if self._direct is None:
            self._direct = direct(Exit(self._loop, Policy(allowed=rules.networks, ports_refused=())))
        return self._direct

    def _associate(self, isolation: bytes, deliver: Callable[[Target, bytes], None]) -> Association | None:
        return None if self._carrier is None else self._carrier.associate(isolation, deliver)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run until it is done, on the fast loop where there is one."""
    factory = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)


async def relay_until_signal(config: Config, report: Report) -> None:
    """Relay until SIGINT or SIGTERM; raises what ``Relay.start`` raises."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, told.set)
    relay = Relay(report)
    try:
        await relay.start(config)
        await told.wait()
    finally:
        await relay.close()


if __name__ == "__main__":
    from outlast.rooms.reach.io.control import obey

    obey()
