"""Asks a node: the running one through its Unix socket, or the stopped home, opened within this process.

The running node's socket ``api.sock`` lies in the home and is its owner's alone (0600). An answer arrives as lines of
JSON: ``{"progress":[done,total]}`` any number of times, then ``{"result":...}`` or ``{"error","code"}``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from outlast.errors import (
    LockedError,
    NotFoundError,
    OutlastError,
    ProtocolError,
    StorageError,
    UsageError,
)
from outlast.secrecy import no_core_dumps
from outlast.ui.command import Bar, ask_passphrase

SOCKET: Final = "api.sock"
LINES: Final = "application/x-ndjson"
_ERRORS: Final = {
    error.exit_code: error for error in (UsageError, LockedError, NotFoundError, StorageError, ProtocolError)
}


class NotRunning(NotFoundError):
    """No process answers at the home's socket."""


@contextmanager
def socket_path(home: Path) -> Iterator[str]:
    """A path to the home's socket that is short enough for the system, however long the home's own is."""
    path = str(home / SOCKET)
    if len(os.fsencode(path)) < 100 or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)


class _Connection(HTTPConnection):
    def __init__(self, home: Path) -> None:
        super().__init__("localhost")
        self._home = home

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_path(self._home) as path:
                self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise NotRunning("no node is running on this home: start it with `outlast up`") from None


def ask_running(home: Path, operation: str, params: dict[str, Any], whose: str = "") -> Any:
    """The running node's answer; raises NotRunning, and the error that the node answered with."""
    connection = _Connection(home)
    bar = Bar(operation.replace(".", " "))
    try:
        body = json.dumps(params).encode()
        headers = {"Accept": LINES, "Content-Type": "application/json", "Outlast-Person": quote(whose)}
        connection.request("POST", "/api/v1/" + operation.replace(".", "/"), body, headers)
        return _read(connection.getresponse(), bar)
    except (HTTPException, ConnectionError):
        raise StorageError("the node stopped before it answered: look whether it was done, then try again") from None
    finally:
        bar.close()
        connection.close()


def ask_stopped(
    home: Path, operation: str, params: dict[str, Any], passphrase_file: Path | None, whose: str = ""
) -> Any:
    """The answer of the home opened here, without listeners, for this one question."""
    import asyncio

    from outlast.edges.api import on_stopped_home

    no_core_dumps()
    bar = Bar(operation.replace(".", " "))
    try:
        return asyncio.run(
            on_stopped_home(home, operation, params, lambda: ask_passphrase(passphrase_file), bar, whose)
        )
    finally:
        bar.close()


class Client:
    """The command line's Caller: asks the running node if there is one, else the stopped home."""

    def __init__(self, home: Path, passphrase_file: Path | None, whose: str = "") -> None:
        """Ask the node of ``home``; a passphrase that is needed comes from the file, else from the person.

        ``whose`` vault is meant: a name or the beginning of a key, empty where one alone is open.
        """
        self._home = home
        self._passphrase_file = passphrase_file
        self._whose = whose

    def __call__(self, operation: str, params: dict[str, Any], /) -> Any:
        """The answer as JSON holds it."""
        with suppress(NotRunning):
            return ask_running(self._home, operation, params, self._whose)
        return ask_stopped(self._home, operation, params, self._passphrase_file, self._whose)


def _read(lines: Any, watch: Callable[[int, int | None], None]) -> Any:
    for line in lines:
        match json.loads(line):
            case {"progress": [done, total]}:
                watch(done, total)
            case {"result": result}:
                return result
            case {"error": error, "code": code}:
                raise _ERRORS.get(code, OutlastError)(error)
    raise ConnectionError
