"""What every command shares: asking the node, answers as text or JSON, tables, questions, progress.

A room's commands are a typer app named in ``Room.cli``. A command calls an operation by its name and shows the answer::

    @app.command()
    def inbox() -> None:
        '''What was sent to you.'''
        show(call("carry.inbox"), lambda messages: table(("FROM", "TEXT"), ((m["from"], m["text"]) for m in messages)))

Nothing heavy is imported: a running node answers through its local API, and a command stays fast.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from outlast.errors import LockedError, OutlastError, UsageError

GAP: Final = "  "
_WIDTH_WITHOUT_TERMINAL: Final = 10_000
_PASSPHRASE_MAX_BYTES: Final = 4096


class Caller(Protocol):
    """Carries out an operation: on the running node, or on the stopped home within this process."""

    def __call__(self, operation: str, params: dict[str, Any], /) -> Any:
        """The answer as JSON holds it; raises the OutlastError that the operation raised."""
        ...


@dataclass(frozen=True, slots=True)
class Terminal:
    """How this run of the command line asks and answers: ``json`` for programs, else lines for people."""

    call: Caller
    json: bool = False
    home: Path = Path()
    passphrase_file: Path | None = None


_current: ContextVar[Terminal] = ContextVar("terminal")


@contextmanager
def using(terminal: Terminal) -> Iterator[None]:
    """Within the block, commands ask and answer through ``terminal``."""
    token = _current.set(terminal)
    try:
        yield
    finally:
        _current.reset(token)


def terminal() -> Terminal:
    """The terminal of the command that is running."""
    return _current.get()


def call(operation: str, /, **params: Any) -> Any:
    """What the operation of that name answers: dicts, lists, text, numbers. Parameters that are None are left out.

    Raises UsageError for what is no text.
    """
    given = {name: value for name, value in params.items() if value is not None}
    refuse_no_text(*given.values())
    return _current.get().call(operation, given)


def show(answer: Any, lines: Callable[[Any], Iterable[str]]) -> None:
    """Print an answer: with ``--json`` as one line of JSON, else the ``lines`` made of it, stripped of controls."""
    if _current.get().json:
        narrow = sys.stdout.encoding.lower() != "utf-8"
        print(json.dumps(answer, ensure_ascii=narrow, separators=(",", ":")))
    else:
        for line in lines(answer):
            print(clean(line))
    sys.stdout.flush()


def print_no_more() -> None:
    """Whoever read the output is gone: what is printed from now on, and what is still buffered, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_no_text(*typed: object) -> None:
    """Raises UsageError for bytes that are no UTF-8, which arrive as halves of surrogate pairs."""
    for one in typed:
        if isinstance(one, list | tuple):
            refuse_no_text(*one)
        elif isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                raise UsageError(
                    f"{one[-80:]!r} is no text in UTF-8: write it so, or give the file or folder such a name"
                ) from None


def clean(text: str) -> str:
    """The text without what could steer a terminal: controls and bidirectional overrides; line breaks become spaces."""
    text = " ".join(text.splitlines()) if text.splitlines()[1:] else text
    return "".join(character for character in text.expandtabs(4) if not _steers(character))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, width: int | None = None) -> list[str]:
    """Lines of aligned columns; the last one is cut to the terminal's ``width``. No rows, no lines."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return []
    cells.insert(0, list(heads))
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    widths = [max(_columns(row[at]) for row in cells) for at in range(len(heads) - 1)]
    room = max(width - sum(widths) - len(GAP) * len(widths), 10)
    return [
        GAP.join([*(_pad(cell, wide) for cell, wide in zip(row[:-1], widths, strict=True)), _cut(row[-1], room)])
        for row in cells
    ]


def local_time(at_ms: int, now_ms: int | None = None) -> str:
    """A time (ms UTC) on the local clock: ``14:02`` within the last 12 hours, else with its date."""
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    recent = abs(now_ms - at_ms) < 12 * 3_600_000
    return time.strftime("%H:%M" if recent else "%Y-%m-%d %H:%M", time.localtime(at_ms / 1000))


def date(day: int) -> str:
    """A day (since 1970, UTC) as ``2026-11-21``."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))


def size(count: int) -> str:
    """A number of bytes for people: ``480 B``, ``1.5 KiB``, ``3.0 GiB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def say(line: str) -> None:
    """Tell the person something that is no part of the answer: on stderr, as one line."""
    print(clean(line), file=sys.stderr, flush=True)


def confirm(question: str, word: str) -> None:
    """Ask for ``word`` to be typed before what cannot be undone; raises UsageError when it is not."""
    if not sys.stdin.isatty():
        raise UsageError(f"this cannot be undone: add --yes, or answer {word!r} at a terminal")
    sys.stderr.write(f"{question} Type {word} to go on: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != word:
        raise UsageError("nothing was done")


def ask_passphrase(file: Path | None, *, new: bool = False, what: str = "Passphrase") -> str:
    """A passphrase from the first line of ``file``, else typed without echo; a ``new`` one is typed twice.

    Raises LockedError when there is neither a file nor a terminal, UsageError when the two differ or it is empty.
    """
    if file is not None:
        return read_passphrase(file)
    if not sys.stdin.isatty():
        raise LockedError("a passphrase is needed: give --passphrase-file FILE, or run this at a terminal")
    typed = getpass.getpass(f"{what}: ")
    if not typed:
        raise UsageError("the passphrase is empty")
    if new and getpass.getpass("The same again: ") != typed:
        raise UsageError("the two passphrases differ; nothing was done")
    return typed


def read_passphrase(file: Path) -> str:
    """The first line of a file, without its line break; raises UsageError when it cannot be read or is empty."""
    try:
        with file.open("rb") as source:
            first = source.readline(_PASSPHRASE_MAX_BYTES + 1).rstrip(b"\r\n")
        text = first.decode()
    except OSError as error:
        raise UsageError(f"the passphrase file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the passphrase file {file} is no text in UTF-8") from None
    if not 0 < len(first) <= _PASSPHRASE_MAX_BYTES:
        raise UsageError(f"the first line of the passphrase file {file} is empty or too long")
    return text


class Bar:
    """A progress bar on stderr: drawn only at a terminal, at most ten times a second, wiped at the end."""

    def __init__(self, label: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Label the work; nothing is drawn before it has lasted half a second."""
        self._label = label
        self._clock = clock
        self._next_s = clock() + 0.5
        self._drawn = False
        self._shown = sys.stderr.isatty()

    def __call__(self, done: int, total: int | None) -> None:
        """Draw how far the work has come."""
        if not self._shown or self._clock() < self._next_s:
            return
        self._next_s = self._clock() + 0.1
        self._drawn = True
        if total:
            full = min(20, 20 * done // total)
            state = f"[{'#' * full}{'.' * (20 - full)}] {min(100, 100 * done // total):3d} %"
        else:
            state = f"{done}"
        sys.stderr.write(f"\r{self._label} {state}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Wipe the bar."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def report(error: OutlastError, *, as_json: bool) -> int:
    """Print an error as one line on stderr, or as ``{"error","code"}``; returns the exit code."""
    line = clean(" ".join(str(error).split()))
    told = json.dumps({"error": line, "code": error.exit_code}, ensure_ascii=False) if as_json else f"outlast: {line}"
    with suppress(OSError):  # where the line cannot be written, as in a log on a full disk, the code still tells
        print(told, file=sys.stderr)
    return error.exit_code


def _steers(character: str) -> bool:
    # Cc: control characters. The rest are the bidirectional controls, which reorder what stands around them, and the
    # line and paragraph separators. Zero-width joiners stay: scripts and emoji need them.
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI


_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _columns(text: str) -> int:
    return sum(_wide(character) for character in text)


def _wide(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    used = 0
    for at, character in enumerate(text):
        used += _wide(character)
        if used > width - 1:
            return text[:at] + "…"
    return text
