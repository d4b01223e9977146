"""Outlast as a pluggable transport of tor's: ``outlast reach pt``, started by tor at a client and at a bridge.

What goes over the wire is the transport ``web``: TLS to a website whose secret path leads to the mux. Each connection
of tor's is a stream of the mux, so it goes on over another outer connection when one freezes. A client learns from its
bridge line whom it must meet (``cert``, the pin of the certificate's key) and how it is known (``key``)::

    outlast ADDRESS:PORT FINGERPRINT cert=PIN key=SECRET [name=HOST]

A bridge introduces each stream to tor by the Extended ORPort, when tor has one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, assert_never

from outlast.address import Target, show
from outlast.errors import OutlastError, StorageError, UsageError
from outlast.rooms.reach.io.carrier import Association, Client, Refusal
from outlast.rooms.reach.io.certificates import Certificate, self_signed
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate, listen
from outlast.rooms.reach.io.hub import SESSIONS_MAX, Hub
from outlast.rooms.reach.io.keys import folder_of, kept_secret
from outlast.rooms.reach.io.relay import run
from outlast.rooms.reach.io.site import open_site
from outlast.rooms.reach.io.tls import Tls
from outlast.rooms.reach.io.tunnel import Tunnel
from outlast.rooms.reach.io.upstream import NEAR, Proxy, dialled
from outlast.rooms.reach.io.web_client import Dial, WebOpener
from outlast.rooms.reach.io.web_server import WebServer
from outlast.rooms.reach.proto.bridge import ProxyBridge, WebBridge
from outlast.rooms.reach.proto.ext_or_port import (
    COOKIE_FILE_BYTES,
    ExtOrPortError,
    Introducer,
    Introduction,
    read_cookie,
)
from outlast.rooms.reach.proto.pluggable import (
    ClientDemand,
    CMethod,
    CMethodsDone,
    Demand,
    DemandError,
    Log,
    Message,
    ProxyDone,
    ProxyError,
    ServerDemand,
    SMethod,
    SMethodError,
    SMethodsDone,
    Status,
    Version,
    decode_args,
    read_demand,
    write_line,
)
from outlast.rooms.reach.proto.pluggable import Proxy as NamedProxy
from outlast.ui.faults import fault

TRANSPORT: Final = "outlast"
OR_PORT: Final = Target("or.outlast.invalid", 1)
"""The one target of a bridge's streams: its tor."""
TUNNELS_MAX: Final = 64
"""Bridges that one tor uses at once."""
CONNECT_S: Final = 10.0
KEY_BYTES: Final = 32
OPTIONS: Final = frozenset({"site", "name", "cert", "key"})
"""What ServerTransportOptions may have; ``cert`` and ``key`` are files there."""


def main() -> None:
    """Be what the parent wants, until it is enough; raises DemandError, after the parent was told."""
    say = teller()
    run(serve(demanded(os.environ, say), say))


def demanded(environ: Mapping[str, str], say: Callable[[Message], None]) -> Demand:
    """What tor wants; raises DemandError after having told tor."""
    try:
        demand = read_demand(environ)
    except DemandError as error:
        say(error.message)
        raise
    say(Version())
    say(Status({"TYPE": "version", "IMPLEMENTATION": "outlast", "VERSION": version("outlast")}))
    return demand


async def serve(demand: Demand, say: Callable[[Message], None]) -> None:
    """Do what tor wants until it is enough."""
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, enough.set)
    if demand.ends_with_stdin:
        _when_stdin_closes(loop, enough.set)
    async with AsyncExitStack() as stack:
        match demand:
            case ClientDemand():
                _be_client(demand, say, stack)
            case ServerDemand():
                await _be_server(demand, say, stack)
            case other:
                assert_never(other)
        await enough.wait()


def teller() -> Callable[[Message], None]:
    """Says messages on standard output; what tor does not read in time is dropped, so that nobody waits for it."""
    out = sys.stdout.fileno()
    os.set_blocking(out, False)

    def say(message: Message) -> None:
        with suppress(OSError):
            os.write(out, write_line(message))

    return say


def _when_stdin_closes(loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
    stdin = sys.stdin.fileno()
    os.set_blocking(stdin, False)

    def readable() -> None:
        try:
            data = os.read(stdin, 4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(stdin)
            then()

    try:
        loop.add_reader(stdin, readable)
    except PermissionError:  # a file or /dev/null, whose end is there from the start
        then()


# The client's side


def _be_client(demand: ClientDemand, say: Callable[[Message], None], stack: AsyncExitStack) -> None:
    dial = None
    if demand.proxy is not None:
        if demand.proxy.scheme == "socks4a":
            say(ProxyError("SOCKS 4 cannot be used; name a proxy of SOCKS 5 or HTTP"))
            raise UsageError("SOCKS 4 cannot be used; name a proxy of SOCKS 5 or HTTP")
        dial = _dial_through(demand.proxy)
        say(ProxyDone())
    if TRANSPORT in demand.transports:
        bridges = Bridges(say, dial)
        gate = Gate(asyncio.get_running_loop(), Target("127.0.0.1", 0), bridges.carry, lambda *_: None)
        stack.callback(bridges.close)
        stack.callback(gate.close)
        say(CMethod(TRANSPORT, "socks5", gate.at))
    say(CMethodsDone())


def _dial_through(named: NamedProxy) -> Dial:
    way = Proxy(asyncio.get_running_loop(), ProxyBridge(named.at, named.scheme, named.user, named.password))

    async def dial(target: Target) -> socket.socket:
        try:
            return await dialled(way, target)
        except ConnectionError:
            raise OutlastError("the proxy does not lead to the bridge; try another proxy or bridge") from None

    return dial


class Bridges:
    """The bridges that tor asks for, each with a tunnel that its connections share."""

    def __init__(self, say: Callable[[Message], None], dial: Dial | None) -> None:
        self._say = say
        self._dial = dial
        self._tunnels: dict[WebBridge, Tunnel] = {}
        self._waiting: dict[WebBridge, set[_ToTor]] = {}

    def carry(self, client: Client) -> None:
        """Take a connection of tor's to the bridge that it names."""
        try:
            user_bytes = client.isolation[0] if client.isolation else 0
            user, password = client.isolation[1 : 1 + user_bytes], client.isolation[1 + user_bytes :]
            bridge = bridge_of(client.target, decode_args(user, password))
            tunnel = self._tunnel(bridge)
        except OutlastError as error:
            self._say(Log("error", f"a bridge line cannot be used: {error}"))
            client.refuse(Refusal.NOT_ALLOWED)
            return
        tunnel.carry(_ToTor(client, self._waiting[bridge]))

    def close(self) -> None:
        """End all."""
        for tunnel in self._tunnels.values():
            tunnel.close()

    def _tunnel(self, bridge: WebBridge) -> Tunnel:
        found = self._tunnels.get(bridge)
        if found is None:
            if len(self._tunnels) >= TUNNELS_MAX:
                raise UsageError(f"there are more than {TUNNELS_MAX} bridges")
            opener = WebOpener(bridge, dial=self._dial)
            changed = partial(self._changed, bridge)
            found = self._tunnels[bridge] = Tunnel(opener, bridge.secret, changed=changed)
            self._waiting[bridge] = set()
        return found

    def _changed(self, bridge: WebBridge, up: bool, error: OutlastError | None) -> None:
        """There is no way: tor hears it now, and decides itself when it tries again."""
        if not up and error is not None:
            self._say(Log("warning", str(error)))
            for client in tuple(self._waiting[bridge]):
                client.refuse(Refusal.HOST_UNREACHABLE)


def bridge_of(at: Target, args: Mapping[str, str]) -> WebBridge:
    """The bridge of a line's address and arguments; raises UsageError."""
    secret, pin = _key(args, "key"), _key(args, "cert")
    if not secret or not (pin or args.get("name")):
        raise UsageError("it lacks key=..., or cert=...; copy the whole line")
    return WebBridge(at, args.get("name") or at.host, secret, pin)


def _key(args: Mapping[str, str], name: str) -> bytes:
    text = args.get(name, "")
    try:
        key = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        key = b"?"
    if text and len(key) != KEY_BYTES:
        raise UsageError(f"its {name}=... is damaged; copy the whole line")
    return key


def _key_text(key: bytes) -> str:
    return urlsafe_b64encode(key).decode().rstrip("=")


class _ToTor:
    """A connection of tor's whose stream leads to the bridge's tor; it may be refused before its tunnel does that."""

    def __init__(self, client: Client, waiting: set[_ToTor]) -> None:
        self._client = client
        self._waiting = waiting
        waiting.add(self)

    @property
    def target(self) -> Target:
        return OR_PORT

    @property
    def isolation(self) -> bytes:
        return b""

    @property
    def gone(self) -> bool:
        return self not in self._waiting or self._client.gone

    def take(self) -> tuple[socket.socket, bytes]:
        self._waiting.discard(self)
        return self._client.take()

    def refuse(self, refusal: Refusal) -> None:
        if self in self._waiting:
            self._waiting.discard(self)
            self._client.refuse(refusal)


# The bridge's side


async def _be_server(demand: ServerDemand, say: Callable[[Message], None], stack: AsyncExitStack) -> None:
    if TRANSPORT in demand.transports:
        try:
            say(await _open_bridge(demand, stack))
        except OutlastError as error:
            say(SMethodError(TRANSPORT, str(error)))
    say(SMethodsDone())


async def _open_bridge(demand: ServerDemand, stack: AsyncExitStack) -> SMethod:
    options = demand.options.get(TRANSPORT, {})
    if unknown := options.keys() - OPTIONS:
        raise UsageError(f"{min(unknown)[:40]!r} is no option; there are {', '.join(sorted(OPTIONS))}")
    state = Path(demand.state)
    folder = folder_of(state)
    secret = kept_secret(state, "user", KEY_BYTES)
    sock = listen(demand.listen.get(TRANSPORT, Target("0.0.0.0", 0)))
    stack.callback(sock.close)
    at = Target(*sock.getsockname()[:2])
    name = options.get("name", "")
    args = {"key": _key_text(secret)} | ({"name": name} if name else {})
    if "cert" in options or "key" in options:
        certificate = Certificate(Path(options.get("cert", "")), Path(options.get("key", "")))
        if not name:
            raise UsageError("a certificate of files belongs to a name: add name=HOST")
    else:
        # A name that self-signed certificates often have: no address of ours to collect, and no name of ours.
        certificate = self_signed(folder, name or "localhost")
        args["cert"] = _key_text(certificate.pin)
    site = await stack.enter_async_context(open_site(options.get("site") or _empty_site(folder)))
    loop = asyncio.get_running_loop()
    exit_ = Exit(loop, NEAR)
    hub = Hub(_Nowhere(loop), sessions_of_user_max=SESSIONS_MAX)

    def accept(outer: Tls, user: str) -> None:
        hub.accept(outer, (secret,), ToTor(exit_, demand, outer.peer))

    server = WebServer(loop, certificate.context, site, {TRANSPORT: secret}, accept)
    stack.callback(exit_.close)
    stack.callback(hub.close)
    stack.callback(server.close)
    server.listen(sock)
    method = SMethod(TRANSPORT, at, args)
    _write_bridge_line(folder, method)
    return method


def _empty_site(folder: Path) -> str:
    site = folder / "site"
    try:
        site.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{site} cannot be made: {error.strerror}") from None
    return str(site)


def _write_bridge_line(folder: Path, method: SMethod) -> None:
    line = " ".join((method.transport, show(method.at), "FINGERPRINT", *(f"{k}={v}" for k, v in method.args.items())))
    text = "# What people put into their torrc; the address is where they reach you, the fingerprint your tor's.\n"
    try:
        with open(os.open(folder / "bridge-line.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{text}Bridge {line}\n")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}") from None


class ToTor:
    """Where the streams of one session leave: to tor's Extended ORPort with an introduction, or to its ORPort."""

    def __init__(self, exit_: Exit, demand: ServerDemand, address: Target | None) -> None:
        """``address`` is the client's, which tor counts by country and forgets."""
        self._exit = exit_
        self._demand = demand
        self._address = address

    def open(
        self,
        target: Target,
        opened: Callable[[socket.socket], None],
        failed: Callable[[Refusal], None],
        whose: bytes | None = None,
    ) -> Callable[[], None]:
        """Connect to tor, and to nothing else; the contract is ``Exit.open``'s."""
        at = self._demand.extended or self._demand.or_port
        if target != OR_PORT or at is None:
            return self._exit.loop.call_soon(failed, Refusal.NOT_ALLOWED).cancel
        if self._demand.extended is None:
            return self._exit.open(at, opened, failed, whose)
        try:
            introducer = self._introducer()
        except (ExtOrPortError, OSError):
            return self._exit.loop.call_soon(failed, Refusal.FAILED).cancel
        return _Introducing(self._exit, at, introducer, opened, failed, whose).cancel

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        """Tor takes none."""
        return None

    def _introducer(self) -> Introducer:
        # Tor writes a new one whenever it starts.
        with open(self._demand.cookie, "rb") as file:
            cookie = read_cookie(file.read(COOKIE_FILE_BYTES + 1))
        return Introducer(cookie, Introduction(TRANSPORT, self._address), secrets.token_bytes(32))


class _Nowhere:
    """For sessions that nobody gave a way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def open(
        self,
        target: Target,
        opened: Callable[[socket.socket], None],
        failed: Callable[[Refusal], None],
        whose: bytes | None = None,
    ) -> Callable[[], None]:
        return self._loop.call_soon(failed, Refusal.NOT_ALLOWED).cancel

    def datagrams(self, deliver: Callable[[Target, bytes], None], whose: bytes | None = None) -> Association | None:
        return None


class _Introducing:
    """A connection to the Extended ORPort until tor has said OKAY."""

    def __init__(
        self,
        exit_: Exit,
        at: Target,
        introducer: Introducer,
        opened: Callable[[socket.socket], None],
        failed: Callable[[Refusal], None],
        whose: bytes | None,
    ) -> None:
        self._loop = exit_.loop
        self._introducer = introducer
        self._opened = opened
        self._failed = failed
        self._sock: socket.socket | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._call_off = exit_.open(at, self._connected, failed, whose)

    def cancel(self) -> None:
        if self._sock is None:
            self._call_off()
        else:
            self._leave().close()

    def _connected(self, sock: socket.socket) -> None:
        self._sock = sock
        self._limit = self._loop.call_later(CONNECT_S, self._fail, Refusal.TIMED_OUT)
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            # What comes behind tor's answers is the stream's; tor sends nothing there before the client does.
            data = self._sock.recv(4096)
            answer = self._introducer.take(data)
            if not data or self._introducer.rest:
                raise ConnectionError
            self._sock.sendall(answer)
        except BlockingIOError:
            return
        except (ExtOrPortError, OSError):
            self._fail(Refusal.FAILED)
            return
        if self._introducer.done:
            self._opened(self._leave())

    def _fail(self, why: Refusal) -> None:
        self._leave().close()
        self._failed(why)

    def _leave(self) -> socket.socket:
        assert self._sock is not None
        assert self._limit is not None
        self._limit.cancel()
        self._loop.remove_reader(self._sock.fileno())
        return self._sock


if __name__ == "__main__":
    try:
        main()
    except OutlastError as error:
        sys.exit(error.exit_code)
    except Exception as error:  # its text is of what this process knows
        sys.exit(f"outlast: {fault(error)}")
