"""What carry's commands share: texts from the command line or standard input, and messages as they are shown."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from outlast.errors import UsageError
from outlast.ui.command import show, terminal

STDIN: Final = "-"
STDIN_MAX_BYTES: Final = 1 << 20
MESSAGE_KEYS: Final = ("id", "from", "to", "text", "at_ms", "verified", "custody")

Words = Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads it from standard input.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the newest N.")]


def message_text(text: str) -> str:
    """A text as it was given, or standard input for ``-``; raises UsageError when that is none."""
    if text != STDIN:
        return text
    read = sys.stdin.buffer.read(STDIN_MAX_BYTES + 1)
    if len(read) > STDIN_MAX_BYTES:
        raise UsageError("that is too long for a message")
    try:
        return read.decode()
    except UnicodeDecodeError:
        raise UsageError("standard input is no text in UTF-8") from None


def show_messages(messages: list[dict[str, Any]], lines: Any) -> None:
    """Print messages: for programs exactly the documented keys, for people a table."""
    if terminal().json:
        messages = [{key: message[key] for key in MESSAGE_KEYS} for message in messages]
    show(messages, lines)
