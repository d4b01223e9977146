"""The commands ``outlast carry ...``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.errors import NotFoundError
from outlast.rooms.carry import group_cli, talk_cli
from outlast.rooms.carry.console import Limit, Words, message_text, show_messages
from outlast.ui.command import call, local_time, say, show, size, table

app = typer.Typer(
    help="Messages and channels that wait while there is no connection.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
_channel = typer.Typer(help="Channels of your own.", rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(_channel, name="channel")
_file = typer.Typer(help="Files.", rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)
app.add_typer(_file, name="file")
app.add_typer(group_cli.app, name="group")
talk_cli.commands(app)

Who = Annotated[str, typer.Argument(metavar="ID", help="A contact: ID, name, or the beginning of an ID.")]
Channel = Annotated[str, typer.Argument(metavar="CHANNEL", help="Link, ID, name, or the beginning of an ID.")]


@app.command()
def send(who: Who, text: Words, for_: talk_cli.For = None) -> None:
    """Send a message to a contact."""
    answer = call("carry.send", to=who, text=message_text(text), life=talk_cli.life_of(for_))
    show(answer, lambda a: [f"Kept here; `outlast carry sent` tells where it has been.  {a['id']}"])


@app.command()
def inbox(
    limit: Limit = None,
    read: Annotated[bool, typer.Option("--mark-read", help="Mark them as read and tell the senders.")] = False,
) -> None:
    """The messages that came."""
    messages = call("carry.inbox", limit=limit)
    unread = [message["id"] for message in messages if message["unread"]]
    if read and unread:
        call("carry.mark_read", ids=unread)
    show_messages(messages, _inbox_lines)


@app.command()
def sent(limit: Limit = None) -> None:
    """The messages that you sent, and where each has been."""
    show_messages(call("carry.sent", limit=limit), _sent_lines)


@app.command()
def search(text: Annotated[str, typer.Argument(metavar="TEXT", help="Words that must all occur.")]) -> None:
    """Look for words in your messages."""
    show_messages(call("carry.search", text=text), _inbox_lines)


@_channel.command("create")
def channel_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    signer: Annotated[
        list[str] | None, typer.Option("--signer", metavar="ID", help="A contact who writes, too.")
    ] = None,
) -> None:
    """Found a channel that everybody may read, and you and its signers write; who these are cannot be changed."""
    show(call("carry.channel.create", name=name, signers=signer or []), _channel_lines)


@app.command()
def post(channel: Channel, text: Words, for_: talk_cli.For = None) -> None:
    """Post in a channel of your own."""
    answer = call("carry.post", channel=channel, text=message_text(text), life=talk_cli.life_of(for_))
    show(answer, lambda a: [f"Posted here; it travels with every meeting and stick.  {a['id']}"])


@app.command()
def follow(channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Its link or ID.")]) -> None:
    """Follow a channel."""
    show(call("carry.follow", channel=channel), _channel_lines)


@app.command()
def unfollow(channel: Channel) -> None:
    """Stop following a channel; what is here of it goes."""
    show(call("carry.unfollow", channel=channel), lambda _: ["Not followed any more."])


@app.command()
def channels() -> None:
    """The channels that you follow."""
    show(
        call("carry.channels"),
        lambda found: table(
            ("ID", "UNREAD", "YOURS", "NAME"),
            ((c["id"], c["unread"] or "", "yes" if c["may_post"] else "", c["name"]) for c in found),
        ),
    )


@app.command()
def read(channel: Channel, limit: Limit = None) -> None:
    """Read a channel."""
    show_messages(call("carry.read", channel=channel, limit=limit), _post_lines)


@app.command()
def retract(
    id_: Annotated[str, typer.Argument(metavar="MESSAGE-ID", help="Of a message that you sent, or of your post.")],
) -> None:
    """Take back a message that never left, or remove a post from your channel or a message from a group."""
    show(call("carry.retract", id=id_), lambda _: ["Done."])


@_file.command("send")
def file_send(
    where: talk_cli.Where,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file.")],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What it is called there.")] = None,
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="With all that it tells; without, only what can be cleaned leaves.")
    ] = False,
) -> None:
    """Send a file to a contact, a group or a channel.

    What a photo, film or recording tells about place, time and device is taken out before it leaves.
    """
    answer = call("carry.file.send", to=where, file=str(path.absolute()), name=name, as_it_is=as_it_is)
    if answer["cleaned"]:
        say("What it told about place, time and device was taken out.")
    show(answer, lambda a: [f"Kept here; `outlast carry file list` tells where it has been.  {a['id']}"])


@_file.command("get")
def file_get(
    id_: Annotated[str, typer.Argument(metavar="FILE-ID", help="As `outlast carry file list` shows it.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="PATH", help="Where it is to go.")] = ".",
    wait: Annotated[bool, typer.Option("--wait", help="Come back when all of it is here.")] = False,
) -> None:
    """Fetch a file that was sent to you, and write it down."""
    path = Path(output)
    if output.endswith("/") and not path.is_dir():
        raise NotFoundError(f"there is no folder {output}: make it first")
    answer = call("carry.file.get", id=id_, file=str(path.absolute()), wait=wait)
    show(answer, lambda a: [f"{a['file']}  {size(a['bytes'])}"])


@_file.command("list")
def file_list(limit: Limit = None) -> None:
    """The files that were sent and that came."""
    show(
        call("carry.file.list", limit=limit),
        lambda found: table(
            ("ID", "WHEN", "WITH", "SIZE", "WHERE IT IS", "NAME"),
            ((f["id"], local_time(f["at_ms"]), f["who"], size(f["bytes"]), _whereabouts(f), f["name"]) for f in found),
        ),
    )


@_file.command("remove")
def file_remove(
    id_: Annotated[str, typer.Argument(metavar="FILE-ID", help="Of a file that was sent or came.")],
) -> None:
    """Let go of a file here: what it takes becomes free."""
    show(call("carry.file.remove", id=id_), lambda _: ["Done."])


def _whereabouts(file: dict[str, Any]) -> str:
    if file["custody"]:
        return _journey(file["custody"])
    part = 100 * file["held"] // max(1, file["bytes"])
    return f"{file['state']} {part} %" if file["state"] == "coming" else str(file["state"])


def _inbox_lines(messages: list[dict[str, Any]]) -> Iterable[str]:
    return table(
        ("", "WHEN", "WITH", "TEXT"),
        (("*" if m["unread"] else "", local_time(m["at_ms"]), m["name"], m["text"]) for m in messages),
    )


def _sent_lines(messages: list[dict[str, Any]]) -> Iterable[str]:
    return table(
        ("WHEN", "TO", "WHERE IT HAS BEEN", "TEXT"),
        ((local_time(m["at_ms"]), m["name"], _journey(m["custody"]), m["text"]) for m in messages),
    )


def _post_lines(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        mark = "" if message["verified"] else "  (nobody vouches for the writer)"
        yield f"{local_time(message['at_ms'])}  {message['id']}{mark}"
        yield from (f"  {line}" for line in message["text"].splitlines())


def _channel_lines(channel: dict[str, Any]) -> Iterator[str]:
    yield f"name  {channel['name']}"
    yield f"ID    {channel['id']}"
    yield f"link  {channel['link']}"


def _journey(custody: list[dict[str, Any]]) -> str:
    seen: dict[str, int] = {}
    for one in custody:
        seen.setdefault(one["event"], one["at_ms"])
    return ", ".join(f"{event} {local_time(at_ms)}" for event, at_ms in seen.items())
