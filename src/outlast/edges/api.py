"""The node's own operations, and the local API: what is asked through ``api.sock`` in the home.

The socket belongs to the home's owner alone (mode 0600), so whoever reaches it is the owner: it asks for no further
secret, and it opens files by the paths it is given. Browsers cannot reach it.

::

    POST /api/v1/contact/add   {"link": ...}     every operation; their document is /api/v1/openapi.json
    GET  /api/v1/contact/list                    those that change nothing
    GET  /metrics                                counts as OpenMetrics text: no names, no IDs

An answer is JSON. Who accepts ``application/x-ndjson`` gets lines: the progress, then the result or the error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from outlast.edges.client import LINES
from outlast.edges.metrics import METRICS, TEXT, exposition
from outlast.edges.operations import OPERATIONS
from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Home, Node, Room
from outlast.ui.faults import fault
from outlast.ui.operation import (
    PERSON_HEADER,
    PREFIX,
    Call,
    Nothing,
    Operation,
    Operations,
    Problem,
    Progress,
    collect,
    is_meant,
    openapi,
    pick,
    silent,
)

BODY_MAX_BYTES: Final = 1024 * 1024
PROGRESS_S: Final = 0.2
DOCUMENT: Final = PREFIX + "openapi.json"
JSON: Final = "application/json"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger("outlast.api")


def operations_of(rooms: Iterable[Room]) -> Operations:
    """The node's own operations and those of its rooms, by name."""
    return collect(OPERATIONS, rooms)


async def on_stopped_home(
    home: Path,
    name: str,
    params: dict[str, Any],
    passphrase: Callable[[], str],
    progress: Progress = silent,
    whose: str = "",
) -> Any:
    """Open a home that no process has open, carry one operation out, and close it.

    ``passphrase`` is asked only when the operation needs an open vault and no key file opens it. Raises what
    ``Node.open`` and the operation raise.
    """
    async with await Node.open(Home(home), dial=False) as node:
        operation = pick(operations_of(node.rooms.values()), name)
        read = operation.read(params)
        here = [one for one in node.people.values() if not whose or is_meant(one, whose)]
        if not here and not operation.while_locked:
            await node.unlock(passphrase())
        return await operation.answer(Call(node, read, progress, whose))


class MethodError(UsageError):
    """The address is right and the method is not."""

    status = 405


class TooLargeError(UsageError):
    """The request has more than 1 MiB."""

    status = 413


class LocalApi:
    """The ASGI application behind ``api.sock``."""

    def __init__(self, node: Node) -> None:
        """Answer for ``node``, open or locked."""
        self._node = node
        self._operations = operations_of(node.rooms.values())
        self._paths = {operation.path: operation for operation in self._operations.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; other protocols are not spoken here."""
        if scope["type"] != "http":
            return
        try:
            match scope["path"]:
                case "/metrics":
                    counts = await METRICS.answer(Call(self._node, Nothing()))
                    await _send(send, 200, TEXT, exposition(counts).encode())
                case path if path == DOCUMENT:
                    await _send(send, 200, JSON, msgspec.json.encode(openapi(self._operations.values())))
                case path:
                    await self._carry_out(path, scope, receive, send)
        except OutlastError as error:
            await _send(send, error.status, JSON, msgspec.json.encode(Problem.of(error)))

    async def _carry_out(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._paths.get(path)
        if operation is None:
            raise NotFoundError(f"there is nothing at {path[:80]}: see {DOCUMENT}")
        if scope["method"] == "POST":
            params = operation.read(_object(await _body(receive)))
        elif scope["method"] == "GET" and not operation.unsafe:
            params = operation.read(dict(parse_qsl(scope["query_string"].decode("ascii", "replace"))), lax=True)
        else:
            raise MethodError(f"{operation.name} is asked by POST")
        whose = unquote(dict(scope["headers"]).get(PERSON_HEADER.lower().encode(), b"").decode("ascii", "replace"))
        if (b"accept", LINES.encode()) in scope["headers"]:
            await self._in_lines(operation, params, whose, send)
        else:
            status, answer = await self._outcome(operation, Call(self._node, params, whose=whose))
            await _send(send, status, JSON, msgspec.json.encode(answer))

    async def _in_lines(self, operation: Operation[Any, Any], params: Any, whose: str, send: Send) -> None:
        latest: tuple[int, int | None] | None = None

        def note(done: int, total: int | None) -> None:
            nonlocal latest
            latest = done, total

        await send(_start(200, LINES))
        work = asyncio.create_task(self._outcome(operation, Call(self._node, params, note, whose)))
        try:
            while not (await asyncio.wait({work}, timeout=PROGRESS_S))[0]:
                if latest is not None:
                    progress, latest = latest, None
                    await send(_piece(msgspec.json.encode({"progress": progress}) + b"\n", more=True))
            _, answer = work.result()
            line = answer if isinstance(answer, Problem) else {"result": answer}
            await send(_piece(msgspec.json.encode(line) + b"\n"))
        finally:
            work.cancel()

    async def _outcome(self, operation: Operation[Any, Any], call: Call[Any]) -> tuple[int, Any]:
        try:
            return 200, await operation.answer(call)
        except OutlastError as error:
            return error.status, Problem.of(error)
        except Exception as error:
            log.error("%s", fault(error))
            return 500, Problem(fault(error), OutlastError.exit_code)


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_MAX_BYTES:
            raise TooLargeError("a request holds at most 1 MiB: name files by their paths")
        if not message.get("more_body", False):
            return body


def _object(body: bytes) -> dict[str, Any]:
    try:
        # Stricter than the standard library's: half a surrogate pair is no text to anything behind it.
        value = msgspec.json.decode(body or b"{}")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UsageError("the request is no JSON object in UTF-8")
    return value


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    await send(_start(status, kind))
    await send(_piece(body))


def _start(status: int, kind: str) -> dict[str, Any]:
    headers = [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return {"type": "http.response.start", "status": status, "headers": headers}


def _piece(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}
