"""The commands ``outlast watch ...``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from outlast.errors import ProtocolError
from outlast.ui.command import show, table

STDIN: Final = "-"
MRT_RATIO_MAX: Final = 200  # tables of the early years are packed to a sixtieth by bzip2
MRT_MIN_MAX_BYTES: Final = 1 << 28
MRT_STDIN_MAX_BYTES: Final = 1 << 34

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


@app.command()
def mrt(
    file: Annotated[str, typer.Argument(metavar="FILE", help="gz, bz2 or plain; - reads standard input.")],
) -> None:
    """Count what a file of a route collector announces and withdraws."""
    from outlast.rooms.watch.io.files import pieces
    from outlast.rooms.watch.proto.mrt import summarise

    with _mrt_file(file) as source:
        summary = summarise(pieces(source))
    counts = {name: getattr(summary, name) for name in ("records", "announced", "withdrawn", "prefixes")}
    show(counts, lambda counts: table(tuple(name.upper() for name in counts), [tuple(counts.values())]))
    if summary.damage is not None:
        raise ProtocolError(f"{summary.damage}; what could be read is counted")


@contextmanager
def _mrt_file(name: str) -> Iterator[BinaryIO]:
    from outlast.rooms.watch.io.files import open_capped, unpack_capped

    if name == STDIN:
        with unpack_capped(sys.stdin.buffer, "standard input", MRT_STDIN_MAX_BYTES) as source:  # type: ignore[arg-type]
            yield source
        return
    path = Path(name)
    packed = path.stat().st_size if path.is_file() else 0
    with open_capped(path, max(packed * MRT_RATIO_MAX, MRT_MIN_MAX_BYTES)) as source:
        yield source
