"""Drives the installed command ``outlast`` as a person or a program would: by its arguments, its output and signals."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

OUTLAST = Path(sys.executable).with_name("outlast")
PASSPHRASE = "kingfisher over the river"
LIMIT_S = 60


@dataclass(frozen=True)
class Program:
    """The command line on one home."""

    home: Path

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command whose output is read later."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        return subprocess.Popen(
            [OUTLAST, "--home", str(self.home), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            **more,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=LIMIT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        """What a command that succeeds answers to a program."""
        done = self("--json", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout)

    def fails(self, code: int, *arguments: str) -> str:
        """The one line by which a command fails with that exit code."""
        done = self(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert re.fullmatch(r"outlast: [^\n]+\n", done.stderr), done.stderr
        return done.stderr

    @contextmanager
    def up(self, *arguments: str, listeners: int = 2) -> Iterator[Running]:
        """A running node, once it told of so many listeners; it is stopped at the end unless it has ended."""
        process = self.start("up", "--port", "0", *arguments)
        assert process.stdout is not None
        try:
            told = [process.stdout.readline().split() for _ in range(listeners)]
            if [] in told:
                raise AssertionError(process.communicate(timeout=LIMIT_S))
            yield Running(process, {what: at for what, at in told})
        finally:
            process.kill() if process.poll() is None and sys.exc_info()[0] else process.terminate()
            process.communicate(timeout=LIMIT_S)


@dataclass(frozen=True)
class Running:
    """A node that is up, and where it told that it listens."""

    process: subprocess.Popen[str]
    at: dict[str, str]

    @property
    def port(self) -> int:
        """The page's port."""
        found = re.fullmatch(r"http://localhost:(\d+)/\?t=[\w-]+", self.at["page"])
        assert found, self.at
        return int(found[1])

    def end(self, sign: signal.Signals) -> tuple[int, str]:
        """Send a signal and wait for the end: the exit code, and what was told on stderr."""
        self.process.send_signal(sign)
        _, err = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, err


def at_terminal(arguments: Sequence[str], *typed: str) -> tuple[int, str]:
    """Run a command at a terminal where somebody types an answer to each prompt; its exit code and what was seen."""
    child, terminal = pty.fork()
    if child == 0:
        # A shell lets what it starts in the background ignore Ctrl-C; what is started at a terminal does not.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(OUTLAST, ["outlast", *arguments])
    return converse(child, terminal, typed)


def converse(child: int, terminal: int, typed: Sequence[str]) -> tuple[int, str]:
    """Type an answer to each prompt of a child process, until it ends; its exit code and what was seen."""
    seen = b""
    answers = list(typed)
    try:
        while chunk := os.read(terminal, 4096):
            seen += chunk
            if answers and seen.endswith(b": "):
                os.write(terminal, answers.pop(0).encode() + b"\n")
    except OSError:
        pass  # the terminal goes with the child
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


@cache
def _template(name: str, passphrase: str | None) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    secret = ["--passphrase-file", secret_file(Path(folder.name), passphrase)] if passphrase else ["--unattended"]
    Program(Path(folder.name) / "home").json("init", "--name", name, *secret)
    return folder


def made(home: Path, name: str, passphrase: str | None = None) -> Program:
    """A home with this person, unattended without a passphrase; copied from one made before, which saves a second."""
    shutil.copytree(Path(_template(name, passphrase).name) / "home", home)
    return Program(home)


def secret_file(folder: Path, text: str = PASSPHRASE) -> str:
    """The name of a file with a passphrase."""
    file = folder / "passphrase"
    file.write_text(text + "\n")
    return str(file)
