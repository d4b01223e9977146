"""The commands ``outlast reach ...``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from outlast.errors import NotFoundError, UsageError
from outlast.rooms.reach import commands
from outlast.rooms.reach.io.ciphers import settle
from outlast.ui.command import call, clean, read_passphrase, say, terminal

if TYPE_CHECKING:
    from outlast.address import Target
    from outlast.rooms.reach.io.choosing import Attempted
    from outlast.rooms.reach.io.relay import Config, Event, Report, Server
    from outlast.rooms.reach.proto.bridge import Bridge

GATE: Final = "127.0.0.1:1080"

app = typer.Typer(
    help="A way out that keeps working.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="64 KB of it are fetched to try bridges that know no echo."),
]
Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where it listens.")]


@app.callback()
def reach() -> None:
    """A way out that keeps working."""


app.add_typer(commands.bridges, name="bridge")
for _command in (
    commands.status,
    commands.on,
    commands.off,
    commands.share,
    commands.lend,
    commands.shared,
    commands.use,
    commands.publish,
    commands.forget,
):
    app.command()(_command)
app.command("set")(commands.set_)


@app.command()
def connect(
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where programs connect to.")] = GATE,
    bridge: Annotated[
        list[str] | None,
        typer.Option("--bridge", metavar="LINK", help="A way out, several are tried at once; - reads them."),
    ] = None,
    direct: Annotated[
        list[str] | None,
        typer.Option("--direct", metavar="DOMAIN|NETWORK", help="What goes past the bridge, where it can be seen."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Who may use the gate; needed where others reach it.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="FILE", help="The password is its first line.")
    ] = None,
    url: Url = None,
) -> None:
    """Open a gate on this machine (SOCKS 5, SOCKS 4a, HTTP) whose traffic leaves through a bridge, until Ctrl-C."""
    settle("reach", "connect")
    from outlast import address
    from outlast.rooms.reach.io.attempt import read_url
    from outlast.rooms.reach.io.relay import Config, Profile
    from outlast.rooms.reach.proto.request import read_credentials
    from outlast.rooms.reach.proto.rules import read_rules

    if (user is None) != (password_file is None):
        raise UsageError("--user and --password-file go together")
    bridges = _bridges(bridge)
    password = "" if password_file is None else read_passphrase(password_file)
    read_credentials(user or "", password)
    profile = Profile(address.read(listen), user or "", password, read_rules(direct or []))
    _relay(Config(profiles=(profile,), bridges=bridges, test_url="" if url is None else read_url(url)))


@app.command()
def serve(
    listen: Listen,
    transport: Annotated[str, typer.Option("--transport", metavar="web|ss|obfs4", help="What it looks like.")] = "web",
    site: Annotated[
        str | None, typer.Option("--site", metavar="DIR|URL", help="The website in front (web): a folder or a server.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="HOST",
            help="What TLS and the link call it; a link of web has the address where that is public.",
        ),
    ] = None,
    cert: Annotated[Path | None, typer.Option("--cert", metavar="FILE", help="Certificate chain (web), PEM.")] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The certificate's key, PEM.")] = None,
    acme: Annotated[
        str | None,
        typer.Option(
            "--acme",
            metavar="URL",
            help="Directory of an authority that signs the certificate (web); using it agrees to its terms.",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option("--http", metavar="HOST:PORT", help="Where that authority looks (--acme); it must reach port 80."),
    ] = None,
    site_tls: Annotated[
        str | None,
        typer.Option(
            "--site-tls", metavar="HOST:PORT", help="Where the site's own server speaks TLS: it answers what is no TLS."
        ),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let users into the networks of this machine, too.")
    ] = False,
) -> None:
    """Be a bridge for others, until Ctrl-C; prints the link by which they use it."""
    settle("reach", "serve")
    from outlast import address
    from outlast.rooms.reach.io.relay import Config
    from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private

    at = address.read(listen)
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key go together")
    if cert is not None and acme is not None:
        raise UsageError("--cert and --acme are two ways to a certificate: give one")
    match transport:
        case "web":
            if site is None:
                raise UsageError(
                    "--transport web needs a website in front: --site DIR, or --site http://127.0.0.1:PORT"
                )
            pair = None if cert is None else (str(cert), str(key))
            where = None if http is None else address.read(http)
            server = _web_server(at, name, site, pair, site_tls or "", acme or "", where)
        case "ss":
            if site or cert or acme or site_tls:
                raise UsageError("--site, --cert, --acme and --site-tls belong to --transport web")
            server = _shadowsocks_server(at, name or _own_host(at))
        case "obfs4":
            if site or cert or acme or site_tls:
                raise UsageError("--site, --cert, --acme and --site-tls belong to --transport web")
            server = _obfs4_server(at, name or _own_host(at))
        case _:
            raise UsageError(f"{transport[:40]!r} is no transport: choose web, ss or obfs4")
    _relay(Config(servers=(server,), policy=allowing_private() if allow_private else Policy()))


@app.command("test")
def try_bridges(
    bridge: Annotated[
        list[str] | None,
        typer.Option("--bridge", metavar="LINK", help="A way out to try, - reads some; without it all of yours."),
    ] = None,
    url: Url = None,
) -> None:
    """Try each way out for real, with 64 KB there and back, and say which work and what stops the others."""
    from outlast.rooms.reach.io.attempt import read_url
    from outlast.rooms.reach.io.relay import run, try_each

    bridges = _bridges(bridge)
    as_json = terminal().json
    if not as_json:
        say(f"{'bridge':<16}  {'class':<22}  first byte   64 KB both ways")

    def show(one: Attempted) -> None:
        if as_json:
            answer = {"bridge": one.bridge, "ok": one.ok, "class": one.failure}
            print(json.dumps({**answer, "ttfb_ms": one.ttfb_ms, "kbps": one.kbps}, separators=(",", ":")))
        else:
            print(_row(one))
        sys.stdout.flush()

    run(try_each(bridges, show, "" if url is None else read_url(url)))


def _row(one: Attempted) -> str:
    if not one.ok:
        return f"{one.bridge}  {one.failure:<22}  {one.evidence}"
    rate = f"{one.kbps} kbit/s" if one.proof else "not known: for a bridge without echo give --url, of 64 KB or more"
    return f"{one.bridge}  {'works':<22}  {one.ttfb_ms:>7} ms   {rate}"


@app.command()
def pt() -> None:
    """Be a pluggable transport that tor itself starts, at a client and at a bridge; see docs/howto/tor.md."""
    from outlast.rooms.reach.io.managed import main

    main()


def _bridges(links: list[str] | None) -> tuple[Bridge, ...]:
    """The bridges that were named, else those that the node keeps; raises UsageError when there is none."""
    from outlast.kernel import Home
    from outlast.rooms.reach.proto.links import bridge_id, read_bridges

    if not links and Home(terminal().home).exists():
        links = [one["link"] for one in call("reach.bridge.links")]
    found: list[Bridge] = []
    for text in map(commands.links_of, links or ()):
        kept, wrong = read_bridges(text)
        found += kept
        for error in wrong:
            say(f"Not used: {error}.")
    if not found:
        raise UsageError(
            "no way out is known: give --bridge LINK, which somebody abroad makes by `outlast reach serve`"
        )
    return tuple({bridge_id(bridge): bridge for bridge in found}.values())


def _relay(config: Config) -> None:
    from outlast.rooms.reach.io.relay import relay_until_signal, run

    run(relay_until_signal(config, _reporter(config)))


def _reporter(config: Config) -> Report:
    """Shows events: each as a line of JSON, or for people, with the seconds since the start, on stderr."""
    import msgspec

    from outlast.rooms.reach.io.relay import Serving

    began_s = time.monotonic()
    as_json = terminal().json
    story = _Story(config)

    def show(event: Event) -> None:
        elapsed_s = time.monotonic() - began_s
        if as_json:
            answer: dict[str, Any] = {"elapsed_ms": round(elapsed_s * 1000), **msgspec.to_builtins(event)}
            print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
        else:
            for line in story.lines(event):
                say(f"{elapsed_s:6.1f} s  {line}")
            if isinstance(event, Serving):
                for link in event.links:
                    print(clean(link))
        sys.stdout.flush()

    return show


class _Story:
    """What events mean for a person; what was said once is not said again while it stays so."""

    def __init__(self, config: Config) -> None:
        from outlast.rooms.reach.io.choosing import kind_of
        from outlast.rooms.reach.proto.links import bridge_id

        self._names = {
            bridge_id(bridge): getattr(bridge, "label", "") or f"{kind_of(bridge)} {bridge_id(bridge)}"
            for bridge in config.bridges
        }
        self._failures: dict[str, str] = {}
        self._using: str | None = None

    def lines(self, event: Event) -> Iterator[str]:
        """The lines for an event, none for what a person need not know."""
        from outlast import address
        from outlast.rooms.reach.io.choosing import Attempted
        from outlast.rooms.reach.io.relay import Failed, Listening, Serving, Starting, Using
        from outlast.rooms.reach.proto import pac
        from outlast.ui.nearby import reached_at

        match event:
            case Listening():
                at = reached_at(address.read(event.at))
                shown = ", ".join(map(address.show, at))
                yield f"The gate is open at {shown} for SOCKS 5, SOCKS 4a and HTTP. The proxy file: {pac.url(at[0])}"
            case Using(bridge):
                if bridge is None and self._using is not None:
                    yield "The way out is lost; new connections wait while another one is looked for."
                elif bridge is not None and bridge != self._using:
                    yield f"Connected through {self._name(bridge)}."
                self._using = bridge
            case Starting(bridge, percent, step):
                yield f"{self._name(bridge)} starts: {percent} %, {clean(step)}."
            case Attempted():
                yield from self._attempt(event)
            case Serving():
                yield f"Serving at {event.at}. Whoever has this link can use it, and have it blocked:"
            case Failed():
                yield str(event.error)

    def _attempt(self, event: Attempted) -> Iterator[str]:
        from outlast.rooms.reach.proto.failures import ADVICE, Kind

        name = self._name(event.bridge)
        if event.failure is None:
            self._failures.pop(event.bridge, None)
            yield f"{name} works; the first byte came after {event.ttfb_ms} ms."
        elif self._failures.get(event.bridge) != event.failure:
            self._failures[event.bridge] = event.failure
            advice = ADVICE[Kind(event.failure.partition("@")[0])]
            yield f"{name} does not work: {event.failure}, {event.evidence}; {advice}."
            if self._using is None and self._failures.keys() >= self._names.keys():
                yield "No way out works now; all are tried again until one does. New connections wait 20 s for it."

    def _name(self, bridge: str) -> str:
        return self._names.get(bridge, bridge)


def _own_host(at: Target) -> str:
    """The host for a link when the person names none: where it listens, else the address that this machine goes by."""
    import socket

    if at.host not in ("0.0.0.0", "::"):
        return at.host
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in at.host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:  # connecting sends nothing: it only asks for the route
            one.connect((far, 9))
            return str(one.getsockname()[0])
    except OSError:
        raise NotFoundError("this machine has no address that others could use: give --name HOST") from None


def _link_host(at: Target, name: str | None) -> str:
    """The host by which a link finds a website: an address where others can use it, since names are forged."""
    from outlast import address

    if name is None or address.parse(name) is not None:
        return name or _own_host(at)
    with suppress(NotFoundError):
        own = address.parse(_own_host(at))
        if own is not None and own.is_global:
            return str(own)
    return name


def _shadowsocks_server(at: Target, name: str) -> Server:
    from base64 import b64encode

    from outlast.rooms.reach.io.keys import kept_secret
    from outlast.rooms.reach.io.relay import ShadowsocksServer
    from outlast.rooms.reach.io.shadowsocks_server import best_method

    secret = kept_secret(terminal().home, "ss", 32)
    return ShadowsocksServer(at, name, best_method(), b64encode(secret).decode())


def _obfs4_server(at: Target, name: str) -> Server:
    from outlast.rooms.reach.io.keys import folder_of, kept_secret
    from outlast.rooms.reach.io.plugged import PluggedServer

    home = terminal().home
    return PluggedServer(at, name, "obfs4", (kept_secret(home, "obfs4", 32),), str(folder_of(home)))


def _web_server(
    at: Target,
    name: str | None,
    site: str,
    certificate: tuple[str, str] | None,
    site_tls: str,
    acme: str,
    http: Target | None,
) -> Server:
    from outlast.rooms.reach.io.keys import folder_of, kept_secret
    from outlast.rooms.reach.io.web_bridge import WebServer

    home = terminal().home
    secrets = (kept_secret(home, "web", 32),)
    host = _link_host(at, name)
    return WebServer(at, name or host, site, secrets, str(folder_of(home)), certificate, site_tls, acme, http, host)
