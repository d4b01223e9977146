"""The commands ``outlast watch ...``."""

from __future__ import annotations

import typer

app = typer.Typer(
    help="What is blocked, what is cut, and what it costs.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


@app.callback()
def watch() -> None:
    """What is blocked, what is cut, and what it costs."""
