"""The commands ``outlast carry mute|unmute|disappear|forget|restore``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from outlast.errors import UsageError
from outlast.ui.command import call, show

LIVES = {"hour": "hour", "1h": "hour", "day": "day", "1d": "day", "week": "week", "1w": "week", "7d": "week"}
NEVER = "never"

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A contact, group or channel: ID, name, link.")]
Who = Annotated[str, typer.Argument(metavar="ID", help="A contact: ID, name, or the beginning of an ID.")]
For = Annotated[
    str | None, typer.Option("--for", metavar="LIFE", help="Disappears there and here after 1h, 1d or 1w; or never.")
]


def life_of(for_: str | None) -> str | None:
    """What ``--for`` says, as the API knows it; None without it."""
    return None if for_ is None else life(for_) or "always"


def life(text: str) -> str | None:
    """A time for which letters are shown, as the API knows it; None for ever; raises UsageError."""
    if text == NEVER:
        return None
    if text not in LIVES:
        raise UsageError(f"messages can disappear after 1h, 1d or 1w, or {NEVER}")
    return LIVES[text]


def commands(app: typer.Typer) -> None:
    """Add them to the commands of carry."""
    app.command()(mute)
    app.command()(unmute)
    app.command()(disappear)
    app.command()(forget)
    app.command()(restore)


def mute(where: Where) -> None:
    """Count nothing that comes there as new, and let nothing tell of it."""
    show(call("carry.mute", where=where), lambda _: ["Muted."])


def unmute(where: Where) -> None:
    """Count and tell of what comes there again."""
    show(call("carry.mute", where=where, muted=False), lambda _: ["Not muted any more."])


def disappear(
    where: Where,
    after: Annotated[str, typer.Argument(metavar="LIFE", help="1h, 1d, 1w, or never.")],
) -> None:
    """Let what you write somewhere from now on disappear after a while, at theirs and here."""
    show(call("carry.life", **{"with": where}, life=life(after)), lambda _: ["Set for what you write from now on."])


def forget(
    id_: Annotated[str | None, typer.Argument(metavar="MESSAGE-ID", help="Of a message that came or was sent.")] = None,
    with_: Annotated[str | None, typer.Option("--with", metavar="ID", help="All messages with this contact.")] = None,
) -> None:
    """Remove messages from your own vault; `outlast carry restore` brings them back for ten minutes.

    What others have of them stays there.
    """
    answer = call("carry.forget", id=id_, **{"with": with_})
    show(answer, lambda a: [f"Removed here: {_messages(a)}."])


def restore(who: Who) -> None:
    """Bring back what was removed of a conversation in the last ten minutes."""
    show(call("carry.restore", **{"with": who}), lambda a: [f"Restored: {_messages(a)}."])


def _messages(answer: dict[str, Any]) -> str:
    return "1 message" if answer["letters"] == 1 else f"{answer['letters']} messages"
