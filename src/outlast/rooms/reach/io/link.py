"""The kernel's links through reach: to another node over whatever way out works now, by the gate on this machine."""

from __future__ import annotations

import asyncio
from typing import Final

from outlast.errors import OutlastError
from outlast.kernel import Cost, Duplex, LinkError
from outlast.rooms.reach.proto import address
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.request import Credentials
from outlast.rooms.reach.proto.socks import Asking

KIND: Final = "reach"
BITS_PER_S: Final = 5_000_000
"""Less than a direct link is taken to carry: where both can be had, the direct one stays."""
OPENING_S: Final = 40.0
"""The gate itself waits 20 s for a way out."""
CLOSE_S: Final = 5.0
WAITING_MAX: Final = 16
"""Links that came and that nobody has taken yet."""
BACKLOG_MAX_BYTES: Final = 8 << 20
_READ_BYTES: Final = 256 * 1024
_ANSWER_BYTES: Final = 4096
_Closed = (OSError, asyncio.IncompleteReadError, TimeoutError)


class ReachLink:
    """A stream through the gate, as a ``Link``."""

    kind: Final = KIND
    mtu: Final = 1 << 20
    bits_per_s: Final = BITS_PER_S
    duplex: Final = Duplex.FULL

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes, where: str, cost: Cost
    ) -> None:
        """Take over a stream whose way is open; ``first`` came after the gate's answer already."""
        self.address = where
        self.cost = cost
        self._first = first
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Take up to 1 MiB; waits while more than 8 MiB are still to be written."""
        if self._writer.is_closing():
            raise LinkError(f"the link to {self.address} is closed")
        self._writer.write(data)
        await self._wait(BACKLOG_MAX_BYTES, BACKLOG_MAX_BYTES - _READ_BYTES)

    async def drained(self) -> None:
        """Wait until nothing waits to be written here."""
        await self._wait(0, 0)

    async def receive(self) -> bytes:
        """What has arrived, at most 256 KiB; none at the end."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await self._reader.read(_READ_BYTES)
        except _Closed:
            return b""

    async def close(self) -> None:
        """Close it, once what was sent is out or 5 s have passed."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        except _Closed:
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise

    def abort(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()

    async def _wait(self, high: int, low: int) -> None:
        transport = self._writer.transport
        try:
            while transport.get_write_buffer_size() > high:
                transport.set_write_buffer_limits(high, low)
                await self._writer.drain()
        except _Closed:
            raise LinkError(f"the link to {self.address} broke") from None


class Landing:
    """Where the servers of this node's relaying process bring sync: a port on loopback; each link is taken once."""

    def __init__(self, server: asyncio.Server, links: asyncio.Queue[ReachLink]) -> None:
        """Made by ``open``."""
        self._server = server
        self._links = links
        self.at = Target("127.0.0.1", int(server.sockets[0].getsockname()[1]))

    @classmethod
    async def open(cls) -> Landing:
        """Listen; raises LinkError."""
        links: asyncio.Queue[ReachLink] = asyncio.Queue()

        def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if links.qsize() >= WAITING_MAX:
                writer.transport.abort()
            else:
                links.put_nowait(ReachLink(reader, writer, b"", "a caller through reach", Cost.FREE))

        try:
            return cls(await asyncio.start_server(came, "127.0.0.1", 0, limit=_READ_BYTES), links)
        except OSError as error:
            raise LinkError(f"cannot listen for sync through reach: {error.strerror or error}") from None

    async def take(self) -> ReachLink:
        """The next link that somebody opens."""
        return await self._links.get()

    def close(self) -> None:
        """Take no more; links that were taken go on."""
        self._server.close()
        while not self._links.empty():
            self._links.get_nowait().abort()


async def through(gate: Target, credentials: Credentials, target: Target, cost: Cost = Cost.FREE) -> ReachLink:
    """A link to ``target`` by the gate (SOCKS 5) at ``gate``; raises LinkError with one line for a person."""
    where = f"{address.show(target)} through reach"
    try:
        async with asyncio.timeout(OPENING_S):
            reader, writer = await asyncio.open_connection(gate.host, gate.port, limit=_READ_BYTES)
            try:
                asking = Asking(target, credentials)
                writer.write(asking.first())
                while True:
                    data = await reader.read(_ANSWER_BYTES)
                    if not data:
                        raise LinkError(f"{where}: the gate has closed")
                    say, reached = asking.receive(data)
                    writer.write(say)
                    if reached is not None:
                        return ReachLink(reader, writer, reached.early, where, cost)
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise LinkError(f"{where}: no way out answers; `outlast reach status` shows what is tried") from None
    except OSError as error:
        raise LinkError(f"{where}: the gate cannot be reached: {error.strerror or error}") from None
    except LinkError:
        raise
    except OutlastError as error:
        raise LinkError(f"{where}: {error}") from None
