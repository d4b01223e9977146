"""The command ``outlast``: its tree, its exit codes, and how every command ends.

Exit codes: 0 done, 1 an error of the program, 2 wrong use, 3 locked, 4 not found, 5 storage, 6 damaged or foreign data,
130 interrupted, 141 nobody reads the output any more. An error is one line on stderr, with ``--json`` the object
``{"error","code"}``.

A room's commands are mounted by its entry point: ``outlast --help`` names the room and reads the first line of its
docstring, and only ``outlast carry ...`` imports it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from outlast.edges.client import Client
from outlast.edges.commands import app
from outlast.edges.config import default_home
from outlast.errors import OutlastError, StorageError, UsageError
from outlast.ui.command import Terminal, print_no_more, refuse_no_text, report, using
from outlast.ui.faults import fault

VALUED = {"--home": "DIR", "--passphrase-file": "FILE", "--person": "NAME"}
INTERRUPTED = 130
UNREAD = 141


def main() -> None:
    """Carry out the command line that this process was started with, and end the process."""
    _complete_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns its exit code. Errors are told on stderr."""
    as_json = "--json" in arguments
    try:
        terminal, rest = read_settings(arguments)
        as_json = terminal.json
        with using(terminal):
            return tree().main(rest or ["--help"], prog_name="outlast", standalone_mode=False) or 0
    except OutlastError as error:
        return report(error, as_json=as_json)
    except typer.TyperException as error:
        return report(UsageError(_one_line(error)), as_json=as_json)
    except SystemExit as end:  # typer's own for a closed pipe, whose 1 would say that the program has a fault
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        print_no_more()
        return UNREAD
    except OSError as error:
        return report(StorageError(_of_the_system(error)), as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("OUTLAST_DEBUG"):
            raise
        return report(OutlastError(f"{fault(error)}; OUTLAST_DEBUG=1 shows more"), as_json=as_json)


def read_settings(arguments: Sequence[str]) -> tuple[Terminal, list[str]]:
    """Split what may stand before or behind any command from the rest; what follows ``--`` is text.

    Raises UsageError when a value is missing, or one is no text.
    """
    given: dict[str, str] = {}
    rest: list[str] = []
    as_json = False
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *left]
        elif argument == "--json":
            as_json = True
        elif name in VALUED:
            given[name] = value if equals else next(left, "")
            if not given[name]:
                raise UsageError(f"{name} needs a value: {name} {VALUED[name]}")
        else:
            rest.append(argument)
    file = given.get("--passphrase-file") or os.environ.get("OUTLAST_PASSPHRASE_FILE")
    try:
        home = Path(given["--home"]).expanduser() if "--home" in given else default_home(os.environ)
        passphrase_file = Path(file).expanduser() if file else None
    except RuntimeError:  # of a user whom the system does not know, or who is named by ~ and is not there
        raise UsageError(
            "this user has no home directory: name folders and files by their whole path, as --home DIR"
        ) from None
    whose = given.get("--person") or os.environ.get("OUTLAST_PERSON", "")
    refuse_no_text(str(home.absolute()), whose)
    return Terminal(Client(home, passphrase_file, whose), as_json, home, passphrase_file), rest


def tree() -> Any:
    """All commands; a room is there by its name until it is called."""
    group: Any = get_command(app)
    for point in sorted(entry_points(group="outlast.rooms")):
        group.add_command(RoomCommands(point))
    return group


class RoomCommands(TyperCommand):
    """Stands in for a room's commands, so that nothing of the room is imported before one of them is wanted."""

    def __init__(self, point: EntryPoint) -> None:
        """Take the name from the entry point, and the help from the source of the room's package."""
        self._point = point
        super().__init__(name=point.name, help=_first_line(point.module), rich_markup_mode=None)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Give way to the room's own commands."""
        from outlast.ui.operation import load

        try:
            room = self._point.load()
            commands = load(room.cli) if room.cli else None
        except ImportError as error:
            raise UsageError(f"the room {self.name} cannot be loaded: {error}; install it again") from error
        if commands is None:
            raise UsageError(f"the room {self.name} has no commands")
        commands.rich_markup_mode = None
        return get_command(commands).make_context(info_name, args or ["--help"], parent=parent, **extra)


def _complete_streams() -> None:
    # Without them the first files that are opened, perhaps a vault's, would be taken for what is printed to.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters that this terminal has not are no reason to stop
        sys.stdout.reconfigure(errors="replace")


def _of_the_system(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename is None:  # of all that looks for a file, getcwd(3) alone
        return "the folder that you are in is there no more: change to another one"
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}{error.strerror or error}"


def _first_line(module: str) -> str:
    doc = None
    with contextlib.suppress(ImportError, OSError):  # what is missing is told when the room is called
        spec = find_spec(module)
        if spec and spec.origin:
            doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return doc.splitlines()[0] if doc else f"The room {module.rpartition('.')[2]}."


def _one_line(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    where = f"; see `{context.command_path} --help`" if context else ""
    line = error.format_message().strip().rstrip(".")
    commands = getattr(context.command, "commands", None) if context else None
    if commands and ("\n" in line or line == "Missing command"):  # some groups say all of their help instead
        line = f"name a command: {', '.join(commands)}"
    return " ".join(line.split()) + where
