"""A resolver that is asked over HTTPS (RFC 8484), through a carrier that cuts its first flights where needed."""

from __future__ import annotations

import asyncio
import http.client
import io
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from outlast.address import Target
from outlast.errors import ProtocolError
from outlast.rooms.reach.io.carrier import Carrier, Refusal
from outlast.rooms.reach.proto.doh import AAAA, MESSAGE_MAX_BYTES, A, read_answer, write_question

if TYPE_CHECKING:
    from outlast.rooms.reach.proto.bridge import Tricks

ASKED_MAX: Final = 128
KNOWN_MAX: Final = 2048
LEAST_S: Final = 30.0
FAILED_S: Final = 3.0
PATIENCE_S: Final = 10.0
_ANSWER_MAX_BYTES: Final = MESSAGE_MAX_BYTES + 16 * 1024


class Doh:
    """Looks names up, each once at a time, and remembers answers as long as they say; the contract is ``Names``'."""

    def __init__(self, carrier: Carrier, way: Tricks, trust: ssl.SSLContext) -> None:
        self._loop = asyncio.get_running_loop()
        self._carrier = carrier
        self._way = way
        self._trust = trust
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._asked: dict[str, list[Callable[[Sequence[str]], None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
        """Find the addresses of a host; there are no others that ask."""
        host = host.lower().rstrip(".")
        known = self._known.get(host)
        if known is not None and known[0] > self._loop.time():
            found(known[1])
        elif host in self._asked:
            self._asked[host].append(found)
        elif len(self._asked) >= ASKED_MAX:
            found(())
        else:
            self._asked[host] = [found]
            task = self._loop.create_task(self._look_up(host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Forget what is asked."""
        self._asked.clear()
        for task in self._tasks:
            task.cancel()

    async def _look_up(self, host: str) -> None:
        answers = await asyncio.gather(self._ask(host, A), self._ask(host, AAAA))
        addresses = tuple(dict.fromkeys(address for found, _ in answers for address in found))
        lasting_s = max(LEAST_S, min(ttl_s for found, ttl_s in answers if found)) if addresses else FAILED_S
        self._known[host] = (self._loop.time() + lasting_s, addresses)
        self._known.move_to_end(host)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        for found in self._asked.pop(host, ()):
            found(addresses)

    async def _ask(self, host: str, kind: int) -> tuple[tuple[str, ...], float]:
        with suppress(OSError, ProtocolError, ValueError, http.client.HTTPException):
            async with asyncio.timeout(PATIENCE_S):
                answer = read_answer(await self._post(write_question(host, kind)), host, kind)
                return answer.addresses, answer.ttl_s
        return (), FAILED_S

    async def _post(self, question: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):
            one.setblocking(False)
        client = _Client(self._way.at, theirs)
        try:
            self._carrier.carry(client)
            await client.taken
            name = self._way.name or self._way.at.host
            reader, writer = await asyncio.open_connection(sock=ours, ssl=self._trust, server_hostname=name)
            try:
                authority = f"[{name}]" if ":" in name else name
                head = (
                    f"POST {self._way.path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/dns-message\r\n"
                    f"Content-Type: application/dns-message\r\nContent-Length: {len(question)}\r\n"
                    "Connection: close\r\n\r\n"
                )
                writer.write(head.encode() + question)
                data = b""
                while len(data) < _ANSWER_MAX_BYTES and (more := await reader.read(_ANSWER_MAX_BYTES)):
                    data += more
                return _body(data)
            finally:
                writer.close()
        finally:
            client.gone = True
            ours.close()


class _Client:
    """A client of the carrier that is this resolver."""

    isolation = b""

    def __init__(self, target: Target, sock: socket.socket) -> None:
        self._target = target
        self._socket = sock
        self.gone = False
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def target(self) -> Target:
        """The resolver."""
        return self._target

    def take(self) -> tuple[socket.socket, bytes]:
        """The way is open."""
        if not self.taken.done():
            self.taken.set_result(None)
        return self._socket, b""

    def refuse(self, refusal: Refusal) -> None:
        """There is none."""
        self._socket.close()
        if not self.taken.done():
            self.taken.set_exception(ConnectionError(refusal.name))


def _body(data: bytes) -> bytes:
    answer = http.client.HTTPResponse(_Read(data))  # type: ignore[arg-type]
    answer.begin()
    if answer.status != 200:
        raise http.client.HTTPException(answer.status)
    return answer.read(MESSAGE_MAX_BYTES)


class _Read:
    """What was read of a connection, as the standard library's parser of answers wants to have it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """All of it."""
        return io.BytesIO(self._data)
