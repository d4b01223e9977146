"""The kernel's links through reach: to another node over whatever way out works now, by the gate on this machine."""

from __future__ import annotations

import asyncio
from typing import Final

from outlast import address
from outlast.address import Target
from outlast.errors import OutlastError
from outlast.kernel import Cost, LinkError, TcpLink
from outlast.rooms.reach.proto.request import Credentials
from outlast.socks import Asking

KIND: Final = "reach"
BITS_PER_S: Final = 5_000_000
"""Less than a direct link is taken to carry: where both can be had, the direct one stays."""
OPENING_S: Final = 40.0
"""The gate itself waits 20 s for a way out."""
WAITING_MAX: Final = 16
"""Links that came and that nobody has taken yet."""
_READ_BYTES: Final = 256 * 1024
_ANSWER_BYTES: Final = 4096


def _link(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str, cost: Cost = Cost.FREE, first: bytes = b""
) -> TcpLink:
    return TcpLink(reader, writer, kind=KIND, address=where, bits_per_s=BITS_PER_S, cost=cost, first=first)


class Landing:
    """Where the servers of this node's relaying process bring sync: a port on loopback; each link is taken once."""

    def __init__(self, server: asyncio.Server, links: asyncio.Queue[TcpLink]) -> None:
        """Made by ``open``."""
        self._server = server
        self._links = links
        self.at = Target("127.0.0.1", int(server.sockets[0].getsockname()[1]))

    @classmethod
    async def open(cls) -> Landing:
        """Listen; raises LinkError."""
        links: asyncio.Queue[TcpLink] = asyncio.Queue()

        def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if links.qsize() >= WAITING_MAX:
                writer.transport.abort()
            else:
                links.put_nowait(_link(reader, writer, "a caller through reach"))

        try:
            return cls(await asyncio.start_server(came, "127.0.0.1", 0, limit=_READ_BYTES), links)
        except OSError as error:
            raise LinkError("cannot listen for sync through reach: %(error)s", error=error) from None

    async def take(self) -> TcpLink:
        """The next link that somebody opens."""
        return await self._links.get()

    def close(self) -> None:
        """Take no more; links that were taken go on."""
        self._server.close()
        while not self._links.empty():
            self._links.get_nowait().abort()


async def through(gate: Target, credentials: Credentials, target: Target, cost: Cost = Cost.FREE) -> TcpLink:
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
                        raise LinkError("%(where)s: the gate has closed", where=where)
                    say, reached = asking.receive(data)
                    writer.write(say)
                    if reached is not None:
                        return _link(reader, writer, where, cost, reached.early)
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise LinkError(
            "%(where)s: no way out answers; `outlast reach status` shows what is tried", where=where
        ) from None
    except OSError as error:
        raise LinkError("%(where)s: the gate cannot be reached: %(error)s", where=where, error=error) from None
    except LinkError:
        raise
    except OutlastError as error:
        raise LinkError("%(where)s: %(error)s", where=where, error=error) from None
