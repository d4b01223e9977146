"""The commands ``outlast stick``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from outlast.errors import UsageError
from outlast.ui.command import call, confirm, local_time, show, size, table

WHICH = Annotated[
    str | None,
    typer.Argument(metavar="STICK", help="Its name or folder; may be left out when there is one.", show_default=False),
]
HOLDS: Final = {
    "mine": "for you",
    "followed": "a channel that you follow",
    "read": "for you, read already",
    "channel": "an open channel",
    "written": "written here",
    "other": "for somebody else",
    "damaged": "damaged",
    "half": "half a file, of a stick that was pulled",
}
FLASH: Final = (
    "A stick keeps old blocks in reserve: who takes its chips off may still find remains. They are sealed, but for "
    "channels."
)

app = typer.Typer(
    help="Sticks that are plugged in: what they hold, reading, writing, erasing.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("list")
def stick_list() -> None:
    """The sticks that are there, and what each holds as far as this node can tell."""
    show(call("stick.list"), _lines)


@app.command("read")
def stick_read(stick: WHICH = None) -> None:
    """Take in everything on a stick that is for you, and the channels that you follow."""
    show(call("stick.read", stick=_which(stick)), _taken)


@app.command("write")
def stick_write(
    stick: WHICH = None,
    to: Annotated[list[str] | None, typer.Option(metavar="WHO", help="Sealed, for this contact; repeatable.")] = None,
    channel: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Open, of this channel; can be repeated.")
    ] = None,
) -> None:
    """Write what contacts lack, and channels, on a stick; what was written for the same before is replaced.

    It returns when all of it is on the stick and was read back.
    """
    if not to and not channel:
        raise UsageError("say for whom: --to WHO for a contact, --channel ID for a channel; both can be repeated")
    show(call("stick.write", stick=_which(stick), to=to or [], channels=channel or []), _given)


@app.command("erase")
def stick_erase(stick: WHICH = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Overwrite and delete Outlast's files on a stick, also those for others; nothing else on it is touched."""
    if not yes:
        confirm("Everything of Outlast on the stick will be gone, also what others are to get.", "erase")
    show(call("stick.erase", stick=_which(stick)), lambda a: [f"Files erased: {a['files']}.", FLASH])


@app.command("out")
def stick_out(stick: WHICH = None) -> None:
    """Finish writing and unmount a stick, so that it can be pulled out."""
    show(call("stick.out", stick=_which(stick)), _out)


def _which(stick: str | None) -> str | None:
    """A folder is meant as seen from here; everything else is a name."""
    return stick if stick is None or not Path(stick).is_dir() else str(Path(stick).absolute())


def _lines(sticks: list[dict[str, Any]]) -> Iterator[str]:
    if not sticks:
        yield "No stick was found. Name a folder instead: outlast stick read FOLDER"
    for one in sticks:
        locked = ", read-only" if one["read_only"] else ""
        yield f"{one['name']}: {one['folder']}, {size(one['free'])} of {size(one['bytes'])} free{locked}"
        if one["error"]:
            yield f"  {one['error']}"
        rows = ((f"  {HOLDS[f['holds']]}", size(f["bytes"]), local_time(f["changed_ms"])) for f in one["files"])
        yield from table(("  WHAT", "SIZE", "WRITTEN"), rows)


def _taken(answer: dict[str, Any]) -> Iterator[str]:
    yield f"Files read: {answer['files']}, entries in them: {answer['entries']}; new: {answer['new']}."
    yield from answer["problems"]


def _given(answer: dict[str, Any]) -> Iterator[str]:
    yield f"Files written: {answer['files']}, {size(answer['bytes'])}; all of it is on the stick."
    if answer["left_out"]:
        yield f"There was no room for {answer['left_out']} entries more: they go with the next trip."
    yield from answer["problems"]
    yield "Before you pull it out: outlast stick out"


def _out(answer: dict[str, Any]) -> Iterator[str]:
    if answer["unmounted"]:
        yield "Safe to remove now."
    else:
        yield "All of it is on the stick. This node may not unmount it: eject it in the file manager, then pull it out."
