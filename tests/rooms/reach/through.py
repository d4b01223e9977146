"""What tests send through a proxy: streams and datagrams by SOCKS 5, to targets that answer what they are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from itertools import count
from random import Random
from typing import cast

from outlast import address
from outlast.address import Target

PIECE_BYTES = 1 << 16


class Echoes:
    """A target on loopback that gives back every byte and every datagram; ends after its client has."""

    def __init__(self, tcp: int, udp: int) -> None:
        self.streams = Target("127.0.0.1", tcp)
        self.datagrams = Target("127.0.0.1", udp)


@asynccontextmanager
async def echoes() -> AsyncIterator[Echoes]:
    """Run one."""

    class Back(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.send_to = cast(asyncio.DatagramTransport, transport).sendto

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.send_to(data, addr)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Back, local_addr=("127.0.0.1", 0))
    async with server:
        yield Echoes(server.sockets[0].getsockname()[1], transport.get_extra_info("sockname")[1])
    transport.close()


async def connect(proxy: Target, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream through a SOCKS 5 proxy."""
    reader, writer = await asyncio.open_connection(*proxy)
    writer.write(b"\5\1\0")
    assert await reader.readexactly(2) == b"\5\0"
    writer.write(b"\5\1\0" + address.encode(target))
    answer = await reader.readexactly(4)
    assert answer[1] == 0, f"refused with {answer[1]}"
    await reader.readexactly({1: 4, 4: 16}[answer[3]] + 2)
    return reader, writer


async def echo_hashes(
    proxy: Target, target: Target, size: int, pieces: Sequence[int] = (PIECE_BYTES,), *, half_close: bool = True
) -> None:
    """Send bytes by chance to an echo and compare the hashes of what went and what came.

    ``half_close``: the stream is ended on this side first, and then has to end on the other side too.
    """
    reader, writer = await connect(proxy, target)
    chance, went, came = Random(size), sha256(), sha256()

    async def send() -> None:
        left = size
        for turn in count():
            if not left:
                break
            piece = chance.randbytes(min(left, pieces[turn % len(pieces)]))
            left -= len(piece)
            went.update(piece)
            writer.write(piece)
            await writer.drain()
        if half_close:
            writer.write_eof()

    async def receive() -> None:
        left = size
        while (left or half_close) and (data := await reader.read(PIECE_BYTES)):
            left -= len(data)
            came.update(data)

    await asyncio.gather(send(), receive())
    writer.close()
    assert came.digest() == went.digest()


async def echo_datagrams(proxy: Target, target: Target, sizes: Sequence[int], *, attempts: int = 5) -> None:
    """Send datagrams by UDP ASSOCIATE to an echo, one after another, each again until it comes back."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(*proxy)
    writer.write(b"\5\1\0")
    assert await reader.readexactly(2) == b"\5\0"
    writer.write(b"\5\3\0" + address.encode(Target("0.0.0.0", 0)))
    answer = await reader.readexactly(10)
    assert answer[:4] == b"\5\0\0\1", answer
    where, _ = address.decode(answer, 3) or (None, 0)
    assert where
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.bind(("127.0.0.1", 0))
        one.connect(where)
        for size in sizes:
            packet = b"\0\0\0" + address.encode(target) + Random(size).randbytes(size)
            for attempt in count():
                one.send(packet)
                try:
                    assert await asyncio.wait_for(loop.sock_recv(one, 1 << 16), 1) == packet
                    break
                except TimeoutError:
                    assert attempt + 1 < attempts
    writer.close()
