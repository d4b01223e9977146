"""The commands ``outlast carry group ...``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from outlast.rooms.carry import talk_cli
from outlast.rooms.carry.console import Limit, Words, message_text, show_messages
from outlast.ui.command import call, local_time, show, table

app = typer.Typer(
    help="Groups: what is said there is for their members alone.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="ID, name, or the beginning of an ID.")]
Contact = Annotated[str, typer.Argument(metavar="WHO", help="A contact: ID, name, or the beginning of an ID.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    who: Annotated[list[str] | None, typer.Argument(metavar="[WHO]...", help="Contacts to ask in.")] = None,
) -> None:
    """Found a group and ask contacts in."""
    show(call("carry.group.create", name=name, members=who or []), _group_lines)


@app.command("list")
def list_() -> None:
    """The groups that you have joined, and those that wait for your answer."""
    joined, waiting = call("carry.group.list"), call("carry.group.invitations")

    def lines(answer: dict[str, Any]) -> Iterator[str]:
        yield from table(
            ("ID", "UNREAD", "MEMBERS", "YOU ARE", "NAME"),
            ((g["id"], g["unread"] or "", g["members"], g["role"] or "removed", g["name"]) for g in answer["groups"]),
        )
        for one in answer["invitations"]:
            who, how = one["from"] or "Somebody", f"`outlast carry group join {one['id'][:8]}`"
            yield f"{who} asks you into {one['name']!r}: {how}"

    show({"groups": joined, "invitations": waiting}, lines)


@app.command()
def invite(
    group: Group,
    who: Contact,
    lead: Annotated[
        bool, typer.Option("--lead", help="They may add and remove others, and take messages away.")
    ] = False,
) -> None:
    """Ask a contact into a group, let a member lead it, or tell them everything once more."""
    answer = call("carry.group.invite", group=group, who=who, leads=lead)
    show(answer, lambda _: ["Asked; they are in it once their answer has come back."])


@app.command()
def join(group: Group) -> None:
    """Join a group that you were asked into."""
    show(call("carry.group.join", group=group), _group_lines)


@app.command()
def leave(group: Group) -> None:
    """Leave a group, or decline an invitation; what is here of it goes."""
    show(call("carry.group.leave", group=group), lambda _: ["Left; what was here of it is deleted."])


@app.command()
def members(group: Group) -> None:
    """Who belongs to a group."""
    show(
        call("carry.group.members", group=group),
        lambda found: table(
            ("ID", "ROLE", "JOINED", "YOUR CONTACT", "NAME"),
            (
                (m["id"], m["role"], "yes" if m["joined"] else "asked", "yes" if m["contact"] else "", m["name"])
                for m in found
            ),
        ),
    )


@app.command()
def remove(
    group: Group,
    who: Annotated[str, typer.Argument(metavar="WHO", help="A member: ID, name, or the beginning of an ID.")],
) -> None:
    """Remove a member: what is said from now on is for the others alone."""
    show(call("carry.group.remove", group=group, who=who), lambda _: ["Removed; the group has a new key."])


@app.command()
def rename(group: Group, name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.")]) -> None:
    """Call a group by another name, here alone."""
    show(call("carry.group.rename", group=group, name=name), _group_lines)


@app.command()
def post(group: Group, text: Words, for_: talk_cli.For = None) -> None:
    """Say something in a group."""
    answer = call("carry.group.post", group=group, text=message_text(text), life=talk_cli.life_of(for_))
    show(answer, lambda a: [f"Kept here; `outlast carry group read` tells how many have it.  {a['id']}"])


@app.command()
def read(
    group: Group,
    limit: Limit = None,
    mark: Annotated[bool, typer.Option("--mark-read", help="Mark it as read; nobody is told.")] = False,
) -> None:
    """Read a group."""
    found = call("carry.group.read", group=group, limit=limit)
    if mark and any(one["unread"] for one in found):
        call("carry.group.mark_read", group=group)
    show_messages(found, _lines)


def _lines(messages: list[dict[str, Any]]) -> Iterator[str]:
    for one in messages:
        has = sum(event["event"] == "received" for event in one["custody"]) if one["custody"][:1] else 0
        kept = one["custody"][:1] and one["custody"][0]["event"] == "kept"
        yield f"{local_time(one['at_ms'])}  {one['name']}  {one['id']}" + (f"  (received by {has})" if kept else "")
        yield from (f"  {line}" for line in one["text"].splitlines())


def _group_lines(group: dict[str, Any]) -> Iterator[str]:
    yield f"name     {group['name']}"
    yield f"ID       {group['id']}"
    yield f"members  {group['members']}"
