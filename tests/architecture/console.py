"""Runs what the documentation shows: the fenced blocks marked `console runnable`, in order.

All blocks of a file are one session of bash in an empty home, so that a later block goes on where
an earlier one stopped. A line `$ command` is run and must succeed; `> more` continues it. The lines
under it, if there are any, must appear in its output in this order; `...` stands for any text
within a line. What a session started in the background ends with it. A block marked
`python runnable` is run as one command by the same Python.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(console|python) runnable\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a document and the lines that it must print."""

    command: str
    expected: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """Return the runnable steps of a document, in their order.

    Raises ValueError when a console block does not begin with a command.
    """
    found: list[Step] = []
    for language, text in BLOCK.findall(page):
        if language == "python":
            found.append(Step(f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}", ()))
            continue
        if not text.startswith("$ "):
            raise ValueError(f"A runnable block begins with a command, not with: {text[:60]!r}")
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            lines = part.rstrip("\n").split("\n")
            more = next((i for i, line in enumerate(lines[1:], 1) if line[:2] != "> "), len(lines))
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:more])])
            found.append(Step(command, tuple(filter(None, lines[more:]))))
    return found


def failures(page: str, home: Path, *, timeout_s: float = 120) -> list[str]:
    """Run a document's steps in the empty folder `home`; return what went wrong, one line each."""
    todo = steps(page)
    mark = secrets.token_hex(8)  # parts the outputs; no command can print it by accident
    # At its end the session ends what it left in the background, itself included.
    script = "trap 'kill -9 0' EXIT\n"
    script += "".join(f"{step.command}\nprintf '\\n%s %d\\n' {mark} $?\n" for step in todo)
    environ = {name: value for name, value in os.environ.items() if name[:4] not in ("XDG_", "OUTL")}
    environ["HOME"] = str(home)
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    output = home / ".session"
    with output.open("wb") as sink:
        # A file and not a pipe: a program left in the background would hold a pipe open.
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=home,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            shell.wait(timeout_s)
        except subprocess.TimeoutExpired:  # the step that hangs prints no mark and is named below
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = re.split(rf"\n{mark} (\d+)\n", output.read_text("utf-8", "replace"))
    results = dict(enumerate(zip(printed[::2], printed[1::2], strict=False)))
    wrong = []
    for number, step in enumerate(todo):
        if number not in results:
            return [*wrong, f"{step.command}: did not end; it printed {printed[-1]!r}"]
        text, status = results[number]
        if status != "0":
            wrong.append(f"{step.command}: exit code {status}; it printed {text!r}")
        elif not appear(step.expected, text):
            wrong.append(f"{step.command}: printed {text!r}, not {step.expected!r}")
    return wrong


def appear(expected: tuple[str, ...], text: str) -> bool:
    """Whether the lines stand in the text in this order, with `...` for anything on a line."""
    lines = iter(text.splitlines())
    patterns = [".*".join(map(re.escape, line.split("..."))) for line in expected]
    return all(any(re.fullmatch(pattern, line.rstrip()) for line in lines) for pattern in patterns)
