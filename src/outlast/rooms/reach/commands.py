"""Those of the commands ``outlast reach ...`` that ask the node: what works, bridges, sharing, settings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.errors import UsageError
from outlast.rooms.reach.proto.links import TEXT_MAX_CHARS
from outlast.ui.command import call, confirm, local_time, show, table

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

Who = Annotated[str, typer.Argument(metavar="NAME", help="A contact: name, ID, or the beginning of an ID.")]
BridgeId = Annotated[str, typer.Argument(metavar="ID", help="The bridge's id, or the beginning of it.")]

bridges = typer.Typer(
    help="Ways out: kept, handed on, taken back.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


def status() -> None:
    """What works now and since when, each way out that is tried, and what this node serves."""
    show(call("reach.status"), _status_lines)


def on() -> None:
    """Have the node look for a way out and keep one open, also after a restart."""
    show(call("reach.switch", on=True), _status_lines)


def off() -> None:
    """Close the node's gate."""
    show(call("reach.switch", on=False), _status_lines)


def _status_lines(now: dict[str, Any]) -> Iterator[str]:
    match now["code"]:
        case "off":
            yield "Off. `outlast reach on` looks for a way out and keeps one open."
        case "working":
            yield f"Works by {now['using']} since {local_time(now['since_ms'])}."
        case "no-bridge":
            yield "There is no bridge to try: `outlast reach bridge add LINK`, or ask a contact for one."
        case "nothing-works":
            yield "No way out works at the moment; each is tried again."
        case "failed":
            yield f"Does not run: {now['problem']}"
        case "gate-closed":
            yield f"Programs cannot connect: {now['problem']}. It is tried again."
        case _:
            yield "Looking for a way out."
    if now["problem"] and now["code"] not in ("failed", "gate-closed"):
        yield f"Not all of it runs: {now['problem']}"
    if now["listens"]:
        yield f"Programs connect to {', '.join(now['listens'])} (SOCKS 5, SOCKS 4a, HTTP); or by {now['pac_url']}"
    rows = [
        (
            one["bridge"],
            one["transport"],
            one["state"],
            "-" if one["ttfb_ms"] is None else f"{one['ttfb_ms']} ms",
            one["outcome"] or "-",
            one["evidence"] or one["label"] or "-",
        )
        for one in now["steps"]
    ]
    yield from table(("WAY OUT", "KIND", "STATE", "FIRST BYTE", "OUTCOME", "WHAT WAS SEEN"), rows)
    served = [
        (
            one["bridge"],
            one["transport"],
            one["at"],
            "blocked" if not one["open"] else "serving" if one["running"] else "not up",
            one["members"],
        )
        for one in now["serving"]
    ]
    yield from table(("SERVED HERE", "KIND", "ADDRESS", "STATE", "MEMBERS"), served)


@bridges.callback()
def bridge() -> None:
    """Ways out: kept, handed on, taken back."""


@bridges.command()
def add(
    links: Annotated[
        str,
        typer.Argument(
            metavar="LINK",
            help="outlast://bridge/, ss://, a proxy, a line of Tor's; or a text with several; - reads it.",
        ),
    ],
) -> None:
    """Keep a bridge, or all that stand in a text."""
    show(call("reach.bridge.add", links=links_of(links)), _added_lines)


def _added_lines(added: dict[str, Any]) -> Iterator[str]:
    for one in added["kept"]:
        yield f"Bridge {one['id']} ({one['transport']}) is kept."
    for problem in added["wrong"]:
        yield f"Not kept: {problem}."


@bridges.command("list")
def list_bridges() -> None:
    """The bridges that can be used, without their secrets."""
    show(call("reach.bridges"), _bridge_lines)


def _bridge_lines(found: list[dict[str, Any]]) -> Iterable[str]:
    rows = [
        (
            one["id"],
            one["transport"],
            one["by"]["name"] if one["by"] else "you",
            one["outcome"] or "-",
            "yes" if one["may_invite"] or not one["by"] else "no",
            one["label"] or "-",
        )
        for one in found
    ]
    return table(("BRIDGE", "KIND", "FROM", "LAST", "MAY BE HANDED ON", "LABEL"), rows) or [
        "There is no bridge here yet."
    ]


@bridges.command("link")
def print_link(
    id: BridgeId,
    qr: Annotated[
        Path | None, typer.Option("--qr", metavar="FILE", help="Write it as a QR code: .svg or .png.")
    ] = None,
) -> None:
    """Print a bridge's link. Whoever has it can use the bridge, and have it blocked."""
    found = call("reach.bridge.link", id=id)
    if qr is not None:
        _write_qr(found["link"], qr)
    show(found, lambda one: [one["link"]])


@bridges.command()
def remove(id: BridgeId) -> None:
    """Forget a bridge."""
    show(call("reach.bridge.remove", id=id), lambda _: ["Forgotten."])


@bridges.command()
def invite(
    name: Who,
    which: Annotated[
        str | None, typer.Option("--bridge", metavar="ID", help="Which one, of those that you added yourself.")
    ] = None,
) -> None:
    """Give a contact a bridge, by a letter: a secret of their own on one that is served here, else a copy."""
    show(
        call("reach.bridge.invite", to=name, bridge=which), lambda _: ["A letter with a bridge is on its way to them."]
    )


@bridges.command()
def ask(name: Who) -> None:
    """Ask a contact for a bridge; whether they give one is theirs to decide."""
    show(call("reach.bridge.ask", to=name), lambda _: ["A letter that asks for a bridge is on its way."])


@bridges.command()
def revoke(name: Who) -> None:
    """Take back what a contact got from here, with all that came in through them."""
    show(call("reach.bridge.revoke", to=name), lambda done: [f"{done['count']} invitations are over."])


@bridges.command()
def requests() -> None:
    """Contacts who ask for a bridge."""
    show(
        call("reach.requests"),
        lambda found: table(
            ("REQUEST", "FROM", "AT"), [(one["id"], one["by"]["name"], local_time(one["at_ms"])) for one in found]
        ),
    )


@bridges.command()
def answer(
    id: Annotated[str, typer.Argument(metavar="REQUEST", help="As `requests` lists it.")],
    no: Annotated[bool, typer.Option("--no", help="Forget the request; who asked is not told.")] = False,
) -> None:
    """Give who asks a bridge."""
    show(call("reach.answer", id=id, give=not no), lambda _: ["Done."])


@bridges.command()
def serve(
    transport: Annotated[str, typer.Option("--transport", metavar="web|ss", help="What it looks like.")],
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where the node listens.")],
    at: Annotated[str, typer.Option("--at", metavar="HOST:PORT", help="Where members find it.")],
    site: Annotated[str, typer.Option("--site", metavar="DIR|URL", help="The website in front (web).")] = "",
    name: Annotated[str, typer.Option("--name", metavar="HOST", help="What TLS calls it (web).")] = "",
    cert: Annotated[str, typer.Option("--cert", metavar="FILE", help="Certificate chain (web), PEM.")] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="The certificate's key, PEM.")] = "",
    site_tls: Annotated[
        str, typer.Option("--site-tls", metavar="HOST:PORT", help="Where the site's own server speaks TLS (web).")
    ] = "",
    acme: Annotated[
        str, typer.Option("--acme", metavar="URL", help="An authority's directory, for a certificate (web).")
    ] = "",
    http: Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="Where that authority looks (--acme).")] = "",
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What members see.")] = "",
) -> None:
    """Have the node serve a bridge to those who are invited, each with a secret of their own, also after a restart."""
    found = call(
        "reach.serve",
        transport=transport,
        listen=listen,
        at=at,
        site=site,
        name=name,
        cert=cert,
        key=key,
        site_tls=site_tls,
        acme=acme,
        http=http,
        label=label,
    )
    show(found, lambda one: [f"Bridge {one['bridge']} is served at {one['at']}: `outlast reach bridge invite NAME`."])


@bridges.command()
def stop(id: BridgeId) -> None:
    """Serve a bridge no more; who is on it moves to the others."""
    show(call("reach.stop", id=id), lambda _: ["It is served no more."])


@bridges.command()
def blocked(id: BridgeId) -> None:
    """Say that a bridge that is served here is blocked: suspicion falls on who knew it, and the others move."""
    show(call("reach.blocked", id=id), lambda _: ["Noted; who is left moves."])


@bridges.command()
def members() -> None:
    """Who uses the bridges that are served here, as a tree of invitations."""
    show(call("reach.members"), _member_lines)


def _member_lines(found: list[dict[str, Any]]) -> Iterable[str]:
    rows = [
        (
            one["number"][:8],
            one["by"]["name"] if one["direct"] else f"invited by {(one['parent'] or '')[:8]}",
            "ended" if one["ended"] else one["bridge"] or "waits",
            one["trust"],
            one["suspicion"],
            one["failed"] or "-",
        )
        for one in found
    ]
    return table(("MEMBER", "WHO", "BRIDGE", "TRUST", "SUSPICION", "SAYS"), rows) or ["Nobody was invited yet."]


def share(
    what: Annotated[str, typer.Argument(metavar="on|off", help="Whether the own uplink is shared.")],
    quota: Annotated[
        str | None, typer.Option("--quota", metavar="SIZE", help="For all together in a day, as in 500M; 0 = no bound.")
    ] = None,
    metered: Annotated[
        bool | None, typer.Option("--metered/--not-metered", help="Whether somebody pays for this line by the byte.")
    ] = None,
    to: Annotated[list[str] | None, typer.Option("--to", metavar="NAME", help="Let this contact use it.")] = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="ADDRESS", help="Only at this address of this machine.")
    ] = None,
) -> None:
    """Share the own uplink with chosen contacts in the local network: they get through to their bridges alone."""
    if what not in ("on", "off"):
        raise UsageError(f"share is on or off, not {what[:40]!r}")
    for name in to or ():
        call("reach.lend", to=name)
    day_bytes = None if quota is None else size_of(quota)
    show(call("reach.share", on=what == "on", day_bytes=day_bytes, metered=metered, hosts=host), _shared_lines)


def lend(
    name: Who,
    no: Annotated[bool, typer.Option("--no", help="Not any more.")] = False,
    quota: Annotated[
        str, typer.Option("--quota", metavar="SIZE", help="Theirs in a day, as in 500M; 0 = no bound of their own.")
    ] = "0",
) -> None:
    """Choose a contact who may use the own uplink while it is shared."""
    show(call("reach.lend", to=name, allowed=not no, day_bytes=size_of(quota)), _shared_lines)


def use(
    id: Annotated[str, typer.Argument(metavar="OFFER", help="As `outlast reach shared` lists it.")],
    no: Annotated[bool, typer.Option("--no", help="Not any more.")] = False,
) -> None:
    """Use a neighbour's uplink: they learn the addresses of your bridges, and when and how much you send there."""
    show(call("reach.use", id=id, accepted=not no), _shared_lines)


def shared() -> None:
    """Whom the own uplink is lent to, and which neighbours offer theirs."""
    show(call("reach.shared"), _shared_lines)


def _shared_lines(now: dict[str, Any]) -> Iterator[str]:
    bound = f", at most {_size(now['day_bytes'])} a day" if now["day_bytes"] else ""
    yield f"The uplink is {'shared' if now['on'] else 'not shared'}{bound}."
    lent = [(one["to"]["name"], _size(one["spent_today"]), _size(one["day_bytes"])) for one in now["to"]]
    yield from table(("LENT TO", "TODAY", "OF"), lent)
    offers = [
        (one["id"], one["by"]["name"], "used" if one["accepted"] else "not used", "yes" if one["is_metered"] else "no")
        for one in now["offered"]
    ]
    yield from table(("OFFER", "FROM", "STATE", "METERED"), offers)


def set_(
    listen: Annotated[
        list[str] | None, typer.Option("--listen", metavar="HOST:PORT", help="Where programs connect to.")
    ] = None,
    direct: Annotated[
        list[str] | None, typer.Option("--direct", metavar="DOMAIN|NETWORK", help="What goes past the bridges.")
    ] = None,
    country: Annotated[str | None, typer.Option("--country", metavar="CC", help="Where this node is.")] = None,
    asn: Annotated[int | None, typer.Option("--asn", metavar="NUMBER", help="In which network; 0 = not told.")] = None,
    test_url: Annotated[
        str | None, typer.Option("--test-url", metavar="URL", help="Fetched through bridges that know no echo.")
    ] = None,
) -> None:
    """Change the node's gate and place; without options, show what is set."""
    chosen = {"listen": listen, "direct": direct, "country": country, "asn": asn, "test_url": test_url}
    if all(one is None for one in chosen.values()):
        show(call("reach.settings"), _setting_lines)
    else:
        show(call("reach.set", **chosen), _setting_lines)


def publish(
    what: Annotated[str, typer.Argument(metavar="on|off", help="Whether it is published.")],
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="LINK", help="Best the channel in which you watch.")
    ] = None,
) -> None:
    """Publish which kinds of ways out work and fail here, and nothing else, for those who watch; or stop."""
    if what not in ("on", "off"):
        raise UsageError(f"publish is on or off, not {what[:40]!r}")
    show(call("reach.publish", on=what == "on", channel=channel), _setting_lines)


def _setting_lines(now: dict[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        told = ", ".join(value) if isinstance(value, list) else value
        yield f"{name.replace('_', ' ')}: {told or '-'}"


def forget(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Wipe all bridges that you could use, whom they came from and went to, and what worked where."""
    if not yes:
        confirm("All bridges and what worked where go for good.", "forget")
    show(call("reach.forget"), lambda _: ["Forgotten."])


def links_of(typed: str) -> str:
    """What was typed, or for - standard input: what stands in a command is seen by every program of this machine."""
    return sys.stdin.read(TEXT_MAX_CHARS + 1) if typed == "-" else typed


def size_of(text: str) -> int:
    """A number of bytes as people write it: 500M, 2G, 0; raises UsageError."""
    bare = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (bare[:-1], bare[-1]) if bare[-1:].isalpha() else (bare, "")
    if not number.isascii() or not number.isdigit() or len(number) > 15 or unit not in UNITS:
        raise UsageError(f"{text[:40]!r} is no size: write 500M or 2G")
    return int(number) * UNITS[unit]


def _size(count: int | None) -> str:
    if count is None:
        return "no bound"
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _write_qr(text: str, file: Path) -> None:
    import segno

    if file.suffix.lower() not in (".svg", ".png"):
        raise UsageError("a QR code is written as .svg or .png")
    try:
        segno.make(text, error="m", micro=False).save(str(file), scale=6, border=4)
    except (OSError, segno.DataOverflowError) as error:
        raise UsageError(f"{file} cannot be written: {error}") from None
