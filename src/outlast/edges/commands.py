"""The node's own commands: from ``init`` to ``wipe``. Rooms bring theirs (``Room.cli``)."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from outlast import __version__
from outlast.address import read as read_address
from outlast.edges.client import NotRunning, ask_running
from outlast.edges.config import Config, read_config
from outlast.edges.spread import commands as spread
from outlast.edges.stick.commands import app as sticks
from outlast.errors import ProtocolError, UsageError
from outlast.ui.command import (
    ask_passphrase,
    call,
    confirm,
    date,
    local_time,
    print_no_more,
    say,
    show,
    size,
    table,
    terminal,
)

UNATTENDED: Final = (
    "This home opens by itself, by key files in it (mode 0600): the node starts again after a power cut without you."
    " It is not protected against seizure: whoever takes the disk can read everything on it."
)
EVERYWHERE: Final = (
    "--home DIR, --json, --passphrase-file FILE and --person NAME may stand before or behind any command. A command"
    " asks the running node; when none is running, it opens the home by itself."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"outlast {__version__}")
        raise typer.Exit


def _everywhere(
    _home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", envvar="OUTLAST_HOME", help="Where the node is.")
    ] = None,
    _json: Annotated[bool, typer.Option("--json", help="Answer with one line of JSON.")] = False,
    _file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            metavar="FILE",
            envvar="OUTLAST_PASSPHRASE_FILE",
            help="Read the passphrase from its first line.",
        ),
    ] = None,
    _person: Annotated[
        str | None,
        typer.Option(
            "--person",
            metavar="NAME",
            envvar="OUTLAST_PERSON",
            help="Who asks, where several people have their vaults open.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    # main.read_settings took them away, since they may stand anywhere; they are declared to be told of and completed.
    pass


def _group(help_: str, **more: Any) -> typer.Typer:
    return typer.Typer(help=help_, rich_markup_mode=None, pretty_exceptions_enable=False, **more)


app = _group(
    "Outlast keeps people connected when a state cuts the internet.",
    epilog=EVERYWHERE,
    callback=_everywhere,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_peers = _group("Other nodes that this one connects to.")
_bundles = _group("Files that carry entries by hand, on a stick or a phone.")
_contacts = _group("The people you know.")
_devices = _group("Your own devices: this one, and those that you had before.")

_persons = _group("The people who live on this node, each with a vault of their own.")
_phones = _group("Phones that joined over the local network, and lost ones.")

Who = Annotated[str, typer.Argument(metavar="WHO", help="ID, name, or the beginning of an ID.")]

Resident = Annotated[str, typer.Argument(metavar="WHO", help="Name of an open vault, or the beginning of a key.")]


@app.command()
def init(
    name: Annotated[str, typer.Option(help="What others see you as.", metavar="NAME")],
    unattended: Annotated[
        bool, typer.Option("--unattended", help="No passphrase: opens by itself, not protected against seizure.")
    ] = False,
    words_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Be again the person whose 24 words, or shares, stand in FILE.")
    ] = None,
) -> None:
    """Make a node and a person on it."""
    from outlast.edges import homes

    here = terminal()
    if unattended and here.passphrase_file:
        raise UsageError("choose one: --unattended, or a passphrase file")
    words = read_words(words_file) if words_file else None
    homes.refuse_existing(here.home)
    passphrase = None if unattended else ask_passphrase(here.passphrase_file, new=True, what="New passphrase")
    answer = homes.make(here.home, name, passphrase, words)
    if unattended:
        say(UNATTENDED)
    elif sys.stdin.isatty():
        say("Nobody can recover a forgotten passphrase: make a backup (`outlast backup FILE`), and keep the 24 words.")
    show(answer, _identity_lines)


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port of the page on this machine; 0 picks one.")
    ] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Let other nodes connect here.")] = None,
    lan: Annotated[
        bool | None, typer.Option("--lan/--no-lan", help="Serve phones of this network. [default: as set on the page]")
    ] = None,
) -> None:
    """Run the node and serve its page, until interrupted."""
    from outlast.edges.daemon import run

    here = terminal()
    flags = {"port": port, "listen": listen, "lan": lan, "passphrase_file": _text(here.passphrase_file)}
    config: Config = read_config(here.home, os.environ, flags)

    def announce(what: str, at: str) -> None:
        try:
            show({"what": what, "at": at}, lambda _: [f"{what:<8}  {at}"])
        except OSError:  # a closed pipe or terminal, a log on a full disk: no reason for a node to end
            print_no_more()

    run(here.home, config, announce)


@app.command("id")
def id_() -> None:
    """Your ID, six words to compare aloud, and link to give away."""
    show(call("id"), _identity_lines)


@app.command()
def status() -> None:
    """How the node and its rooms are doing."""
    show(call("status"), _status_lines)


@app.command()
def unlock() -> None:
    """Open the running node with your passphrase."""
    here = terminal()
    # A stopped home is opened by each command for itself, so there is nothing to unlock.
    show(
        ask_running(here.home, "unlock", {"passphrase": ask_passphrase(here.passphrase_file)}),
        lambda answer: [f"Unlocked: {answer['name']}."],
    )


@app.command()
def space(
    let_go: Annotated[bool, typer.Option("--let-go", help="Let go of the files that are carried for others.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """What fills the disk, by kind, and how much is free; `outlast carry file remove` lets go of files of yours."""
    if let_go:
        if not yes:
            confirm("Files on their way to other people will be gone from here.", "let go")
        show(call("space.free"), lambda answer: [f"Freed: {size(answer['bytes'])}."])
        return
    show(call("space"), _space_lines)


@app.command()
def doctor() -> None:
    """Look for what is wrong.

    The answer names nobody and no place, so that it can be shown to others.
    """
    show(call("doctor"), lambda answer: table(("", "CHECK", "FOUND"), _checks(answer["checks"])))


@app.command()
def metrics(
    openmetrics: Annotated[bool, typer.Option("--openmetrics", help="As text for Prometheus and its like.")] = False,
) -> None:
    """Counts for a monitor, which name nobody.

    How much there is now, and how much has happened since the node was started.
    """
    from outlast.edges.metrics import exposition, samples

    counts = call("metrics")
    if openmetrics:
        print(exposition(counts), end="")
        return
    rows = ((f"{one.name} {one.label}".strip(), one.value, one.text) for one in samples(counts))
    show(counts, lambda _: table(("COUNT", "NOW", "WHAT IT IS"), rows))


@app.command()
def rebuild() -> None:
    """Make all views anew from the entries."""
    show(call("rebuild"), lambda answer: [f"Made anew from {answer['entries']} entries."])


@app.command()
def wipe(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy the keys, then everything else in the home.

    There is no way back without a backup.
    """
    from outlast.edges import homes

    here = terminal()
    homes.refuse_missing(here.home)
    if not yes:
        confirm(f"Everything in {here.home} will be destroyed.", "wipe")
    try:
        answer = ask_running(here.home, "wipe", {})
    except NotRunning:
        answer = homes.wipe(here.home)
    say("On flash memory old bytes can survive: there only your passphrase protects what was written.")
    show(answer, lambda _: ["Wiped."])


class FileFirst(TyperGroup):
    """Commands of which the one called ``file`` may be left unsaid: ``backup FILE``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant, and what it is given."""
        known = args[0] in self.commands or args[0].startswith("-")
        return super().resolve_command(ctx, args if known else ["file", *args])


_backups = _group("A backup file (FILE without a command), or shares on paper.", cls=FileFirst, no_args_is_help=True)


@_backups.command("file")
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
) -> None:
    """Write a backup file under a passphrase.

    It holds the identity, the contacts and the messages.
    """
    passphrase = ask_passphrase(terminal().passphrase_file, new=True, what="Passphrase for the backup")
    answer = call("backup", file=_absolute(file), passphrase=passphrase)
    show(answer, lambda a: [f"Wrote {a['file']} ({size(a['bytes'])}). Test it: outlast restore {a['file']} --test"])


@_backups.command("shares")
def backup_shares(
    of: Annotated[int, typer.Option("--of", metavar="N", help="How many shares to make.")] = 3,
    threshold: Annotated[int, typer.Option(metavar="N", help="How many of them restore you.")] = 2,
) -> None:
    """Cut what the 24 words stand for into shares for people whom you trust.

    Fewer than the threshold tell nothing; whoever brings together so many is you. `outlast init --words-file FILE` with
    enough of them in FILE makes you again.
    """
    answer = call("backup.shares", threshold=threshold, count=of)
    say("Write each on a sheet of its own, and give each to somebody else. They are not kept, and not shown again.")
    show(answer, _share_lines)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup file.")],
    test: Annotated[bool, typer.Option("--test", help="Only open it and tell what it holds.")] = False,
    unattended: Annotated[
        bool, typer.Option("--unattended", help="No passphrase here: opens by itself, not protected against seizure.")
    ] = False,
) -> None:
    """Make a node from a backup file, or test one.

    The backup's passphrase opens the new home too, unless it is unattended.
    """
    from outlast.edges import homes

    here = terminal()
    if not test:
        homes.refuse_existing(here.home)
    passphrase = ask_passphrase(here.passphrase_file, what="Passphrase of the backup")
    if test:
        show(homes.test_backup(file, passphrase), _backup_lines)
        return
    answer = homes.restore(here.home, file, passphrase, unattended=unattended)
    if unattended:
        say(UNATTENDED)
    show(answer, _restored_lines)


@_peers.command("add")
def peer_add(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where it listens.")],
    node: Annotated[str, typer.Argument(metavar="NODE-ID", help="Its node ID, from `outlast id` there.")],
) -> None:
    """Connect to another node from now on."""
    read_address(address)
    show(call("peer.add", address=address, node=node), lambda peer: [f"Will connect to {peer['address']}."])


@_peers.command("list")
def peer_list() -> None:
    """The nodes that this one connects to."""
    show(call("peer.list"), _peer_lines)


@_peers.command("remove")
def peer_remove(
    node: Annotated[str, typer.Argument(metavar="NODE-ID", help="Its node ID.")],
) -> None:
    """Stop connecting to a node."""
    show(call("peer.remove", node=node), lambda _: ["Removed."])


@_peers.command("find")
def peer_find(
    whom: Annotated[str | None, typer.Argument(metavar="WHOM", help="off, neighbours or strangers.")] = None,
) -> None:
    """Look for nodes in the local networks of this computer.

    "neighbours" finds those that were added on both sides, wherever they are; others see that Outlast runs here, and
    not whose it is. "strangers" meets all others that look for strangers too. Without WHOM, tells how it is set.
    """
    if whom is not None and whom not in _LOOKING:
        raise UsageError(f"{whom!r} is nobody who can be looked for: choose {', '.join(_LOOKING)}")
    answer = call("peer.looking") if whom is None else call("peer.look", mode=whom)
    show(answer, lambda one: [_LOOKING[one["mode"]]])


@app.command()
def hotspot(
    ssid: Annotated[str, typer.Option(metavar="NAME", help="What the Wi-Fi is called.")] = "outlast",
    password: Annotated[
        str | None, typer.Option(metavar="PASSWORD", help="Its password; without one, a new one is made.")
    ] = None,
) -> None:
    """Show the code by which phones join a Wi-Fi that you make, and how to make it.

    Nothing is started: the page of the node does that where NetworkManager is there.
    """
    from outlast.edges.hotspot import checked, new_password, wifi_text

    network = checked(ssid, new_password() if password is None else password)
    answer = {"ssid": network.ssid, "password": network.password, "code": wifi_text(network)}
    show(answer, _hotspot_lines)


@_bundles.command("write")
def bundle_write(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; in a folder it gets a random name.")],
    to: Annotated[str | None, typer.Option(metavar="ID", help="Sealed, for this contact.")] = None,
    space: Annotated[str | None, typer.Option(metavar="ID", help="Open, of this channel.")] = None,
    max_mb: Annotated[
        int | None, typer.Option(metavar="MB", min=1, help="No larger than this; the most urgent and newest first.")
    ] = None,
) -> None:
    """Write what somebody lacks into a file that can be carried to them."""
    if (to is None) == (space is None):
        raise UsageError("say for whom: --to ID for a contact (sealed), or --space ID for a channel (readable by all)")
    max_bytes = None if max_mb is None else max_mb * 1_000_000
    show(call("bundle.write", file=_absolute(file), to=to, space=space, max_bytes=max_bytes), _written_lines)


@_bundles.command("read")
def bundle_read(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file.")],
) -> None:
    """Take in what a bundle brings."""
    show(call("bundle.read", file=_absolute(file)), _bundle_lines)


@_contacts.command("add")
def contact_add(
    link: Annotated[str, typer.Argument(metavar="LINK", help="Their link, from `outlast id` there.")],
    name: Annotated[str | None, typer.Option(metavar="N", help="What you call them.")] = None,
) -> None:
    """Add somebody by their link."""
    show(
        call("contact.add", link=link, name=name),
        lambda contact: [f"{contact['name']}: {contact['words']}", "Compare these six words with them aloud."],
    )


@_contacts.command("verify")
def contact_verify(
    who: Who,
    words: Annotated[list[str] | None, typer.Argument(help="The six words they read to you; compared for you.")] = None,
) -> None:
    """Say that you compared the six words with somebody, aloud or on their screen."""
    contact = call("contact.get", who=who)
    if words:
        given, right = " ".join(words).lower().split(), contact["words"].split()
        if len(given) != len(right):
            raise UsageError(f"there are {len(right)} words, {len(given)} were given; nothing was done")
        if given != right:
            raise ProtocolError(
                f"these are not {contact['name']}'s words: somebody may be between you; nothing was done"
            )
    elif sys.stdin.isatty() and not terminal().json:
        confirm(f"{contact['name']}: {contact['words']}\nIs this what they read to you?", "yes")
    show(call("contact.verify", who=contact["id"]), lambda one: [f"{one['name']} is verified: {one['words']}"])


@_contacts.command("accept")
def contact_accept(who: Who) -> None:
    """Trust somebody's new devices, after you asked them in person whether these are theirs."""
    contact = call("contact.get", who=who)
    if not any(one["state"] in ("new", "unknown") for one in contact["devices"]):
        say(f"{contact['name']} has no new device.")
    elif sys.stdin.isatty() and not terminal().json:
        lines = "\n".join(_device_lines(contact["devices"]))
        confirm(f"{contact['name']}:\n{lines}\nDid they tell you, not by message, that the new one is theirs?", "yes")
    show(call("contact.accept", who=contact["id"]), lambda one: _device_lines(one["devices"]))


@_contacts.command("list")
def contact_list() -> None:
    """Everybody you know."""
    show(call("contact.list"), _contact_lines)


@_contacts.command("block")
def contact_block(
    who: Who,
    undo: Annotated[bool, typer.Option("--undo", help="Unblock them.")] = False,
) -> None:
    """Open no more mail of somebody."""
    answer = call("contact.block", who=who, blocked=not undo)
    show(answer, lambda one: [f"{one['name']} is {'blocked' if one['blocked'] else 'not blocked'}."])


@_devices.command("list")
def device_list() -> None:
    """This device and those before it."""
    show(call("device.list"), _device_lines)


@_devices.command("revoke")
def device_revoke(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="The beginning of its key.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All earlier devices.")] = False,
) -> None:
    """End an earlier device: your contacts seal nothing more to it.

    In channels what it says after its last post known here no longer counts as yours. There is no way back.
    """
    if (key is None) != everything:
        raise UsageError("name one device by its key (`outlast device list`), or all of them by --all")
    show(call("device.revoke", key=key, all=everything), _device_lines)


@_devices.command("renew")
def device_renew() -> None:
    """Go on as a new device and end this one, for instance when its files may have been copied.

    Your contacts are told. There is no way back.
    """
    show(call("device.renew"), _device_lines)


@_persons.command("add")
def person_add(
    name: Annotated[str, typer.Option(help="What others see them as.", metavar="NAME")],
    new_passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the newcomer's passphrase from its first line.")
    ] = None,
    words_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The person whose 24 words stand in FILE.")
    ] = None,
) -> None:
    """Let somebody more live here, with a vault under a passphrase of their own.

    They type it themselves. --passphrase-file is that of somebody who lives here already.
    """
    words = read_words(words_file) if words_file else None
    passphrase = ask_passphrase(new_passphrase_file, new=True, what=f"New passphrase of {name}")
    show(call("person.add", name=name, passphrase=passphrase, words=words), lambda one: _person_lines([one]))


@_persons.command("list")
def person_list() -> None:
    """Who lives here; the names of those whose vaults are open."""
    show(call("person.list"), _person_lines)


@_persons.command("lock")
def person_lock(who: Resident) -> None:
    """Close one vault of the running node; the others stay open, and its mail waits sealed."""
    show(ask_running(terminal().home, "person.lock", {"who": who}), lambda _: ["Locked."])


@_persons.command("remove")
def person_remove(
    who: Resident,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy one person's vault; the node and the others stay.

    There is no way back without their backup.
    """
    if not yes:
        confirm(f"The vault of {who} will be destroyed.", "remove")
    show(call("person.remove", who=who), lambda _: ["Removed."])


@_phones.command("list")
def phone_list() -> None:
    """The phones that are in, and when each was last seen (to the day)."""
    show(call("phone.list"), _phone_lines)


@_phones.command("end")
def phone_end(
    phone: Annotated[str | None, typer.Argument(metavar="PHONE", help="The beginning of its key.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All phones.")] = False,
) -> None:
    """Shut a lost phone out at once; its open pages stop."""
    if (phone is None) != everything:
        raise UsageError("name one phone by its key (`outlast phone list`), or all of them by --all")
    answer = call("phone.end", phone=phone, all=everything)
    show(
        answer, lambda ended: [f"Shut out: {one['phone'][:8]} {one['label']}" for one in ended] or ["No phone was in."]
    )


@app.command()
def trust(
    on: Annotated[bool | None, typer.Option("--on/--off", help="Open or close the encrypted door for phones.")] = None,
    anew: Annotated[bool, typer.Option("--new", help="Make a new name and certificate, for all phones.")] = False,
) -> None:
    """The encrypted door for phones, and the certificate that they install."""
    answer = call("trust.get") if on is None and not anew else call("trust.set", on=on is not False, anew=anew)
    show(answer, _trust_lines)


app.add_typer(_peers, name="peer")
app.add_typer(_persons, name="person")
app.add_typer(_phones, name="phone")
app.add_typer(_bundles, name="bundle")
app.add_typer(_contacts, name="contact")
app.add_typer(_devices, name="device")
app.add_typer(_backups, name="backup")
app.add_typer(sticks, name="stick")
spread.mount(app)


_LOOKING: Final = {
    "off": "Nobody is looked for in local networks.",
    "neighbours": "The running node looks for the nodes that were added to it.",
    "strangers": "The running node looks for all nodes that look for strangers.",
}


def read_words(file: Path) -> str:
    """The text with the 24 words in a file; raises UsageError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"the file of words {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the file of words {file} is no text") from None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _absolute(file: Path) -> str:
    return str(Path.cwd() / file.expanduser())


def _identity_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield f"name   {answer['name']}"
    yield f"ID     {answer['id']}"
    yield f"words  {answer['words']}"
    yield f"node   {answer['node']}"
    yield f"link   {answer['link']}"


def _restored_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield from _identity_lines(answer)
    yield "Your contacts will be asked whether this new device is yours. These were yours before:"
    yield from _device_lines(answer["old_devices"])
    yield "End those that are lost or in other hands: outlast device revoke KEY, or --all."


def _device_lines(devices: list[dict[str, Any]]) -> list[str]:
    return table(("KEY", "SINCE", "STATE"), ((d["key"], date(d["made_day"]), d["state"]) for d in devices))


def _status_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield "Locked: your passphrase opens it." if answer["locked"] else f"Unlocked: {answer['name']}."
    if answer["device"] == "renewed":
        yield "A copy of this home is in use somewhere, so it went on as a new device: see `outlast device list`."
    elif answer["device"] == "copied":
        yield "A message went out as this device that was not written here: perhaps its files were copied."
        yield "If you did not write it elsewhere, begin anew: `outlast device renew`."
    elif answer["device"] == "ended":
        yield "This device was ended by another of yours; if it is to go on: `outlast device renew`."
    if answer["clock_warning"]:
        yield f"Clock: {answer['clock_warning']}"
    if answer["pruning_stopped"]:
        yield answer["pruning_stopped"]
    yield f"{answer['entries']} entries, {size(answer['bytes'])}; {size(answer['space_left'])} left on the disk."
    yield from table(("ROOM", "LEVEL", "REASON"), ((r["room"], r["level"], r["reason"]) for r in answer["rooms"]))
    yield from _peer_lines(answer["peers"])


def _peer_lines(peers: list[dict[str, Any]]) -> list[str]:
    def state(peer: dict[str, Any]) -> str:
        if peer["connected"]:
            return "connected"
        seen = f"last seen {local_time(peer['last_seen_ms'])}" if peer["last_seen_ms"] else "not seen yet"
        return f"{seen}; {peer['error']}" if peer["error"] else seen

    return table(("NODE", "ADDRESS", "STATE"), ((p["node"], p["address"] or "(it called)", state(p)) for p in peers))


def _trust_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield f"The encrypted door is {'open' if answer['on'] else 'closed'}."
    if answer["on"]:
        yield f"Address:      {answer['url'] or 'by `outlast trust` as soon as a running node has opened it'}"
        yield f"Six words:    {answer['words']}"
        yield f"Fingerprint:  {answer['fingerprint']}"
        yield f"Certificates until {local_time(answer['ends_ms'])}. Phones find it at /trust of their door."


def _person_lines(people: list[dict[str, Any]]) -> list[str]:
    def state(one: dict[str, Any]) -> str:
        return ("open" if one["open"] else "locked") + ("" if one["passphrase"] else ", opens by itself")

    return table(("PERSON", "NAME", "VAULT"), ((p["person"], p["name"] or "-", state(p)) for p in people))


def _phone_lines(phones: list[dict[str, Any]]) -> list[str]:
    rows = ((p["phone"][:8], local_time(p["joined_ms"]), local_time(p["seen_ms"]), p["label"]) for p in phones)
    return table(("PHONE", "JOINED", "SEEN", "LABEL"), rows)


def _contact_lines(contacts: list[dict[str, Any]]) -> list[str]:
    def state(contact: dict[str, Any]) -> str:
        marks = ["verified" if contact["verified"] else "not verified", *contact["warnings"]]
        return ", ".join([*marks, *(["blocked"] if contact["blocked"] else [])])

    return table(("NAME", "ID", "STATE"), ((c["name"], c["id"], state(c)) for c in contacts))


def _hotspot_lines(answer: dict[str, Any]) -> Iterator[str]:
    import io

    import segno

    drawn = io.StringIO()
    segno.make_qr(answer["code"]).terminal(drawn, compact=True)
    yield from drawn.getvalue().splitlines()
    yield f"Wi-Fi     {answer['ssid']}"
    yield f"password  {answer['password'] or '(none: everybody nearby can read along)'}"
    yield "Make it in the settings of this computer, or with NetworkManager:"
    secret = f" password {shlex.quote(answer['password'])}" if answer["password"] else ""
    yield f"  nmcli device wifi hotspot ssid {shlex.quote(answer['ssid'])}{secret}"


def _written_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield f"Entries written: {answer['entries']}, {size(answer['bytes'])}, to {answer['file']}."
    if answer["left_out"]:
        yield f"There was no room for {answer['left_out']} more: they go with the next trip."


def _bundle_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield f"Entries read: {answer['entries']}, {size(answer['bytes'])}; new: {answer['new']}."
    yield from answer["problems"]


def _backup_lines(answer: dict[str, Any]) -> Iterator[str]:
    yield f"This backup opens. It is {answer['name']}'s, made {local_time(answer['made_ms'])}."
    yield f"Contacts: {answer['contacts']}; devices: {answer['devices']}; rows of the rooms: {answer['rows']}."


def _share_lines(answer: dict[str, Any]) -> Iterator[str]:
    for number, words in enumerate(answer["shares"], 1):
        yield f"Share {number} of {len(answer['shares'])}; {answer['threshold']} restore you:"
        yield f"  {words}"


def _space_lines(answer: Any) -> Iterator[str]:
    taken, free, limit = (size(answer[name]) for name in ("bytes", "free", "limit"))
    yield f"{taken} are taken, {free} are free. What others bring may take {limit}."
    yield from table(("SIZE", "WHAT"), ((size(one["bytes"]), one["what"]) for one in answer["parts"]))


def _checks(checks: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for check in checks:
        yield check["level"], check["name"], check["found"]
