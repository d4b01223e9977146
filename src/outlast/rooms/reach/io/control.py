"""How the node and the relaying process speak: JSON lines over an inherited pair of sockets.

Down goes a configuration, as a whole, whenever it changes; up come events. Secrets stand in no argument and no file.
The child ends when the pair closes, however the node ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import msgspec

from outlast.errors import OutlastError
from outlast.rooms.reach.io.children import own_program
from outlast.rooms.reach.io.relay import Config, Event, Failed, Relay, run

LINE_MAX_BYTES: Final = 4 << 20
ENDING_S: Final = 5.0


class Child:
    """The relaying process of a node: started, told what to do, and heard."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> Child:
        """Start it; it does nothing before it is told."""
        here, there = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(*own_program("outlast.rooms.reach.io.child"), str(there.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
            )
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
        return cls(process, *await asyncio.open_connection(sock=here, limit=LINE_MAX_BYTES))

    async def configure(self, config: Config) -> None:
        """Say what it is to do from now on."""
        self._writer.write(msgspec.json.encode(config) + b"\n")
        with suppress(ConnectionError):  # that it has ended is told by its events
            await self._writer.drain()

    async def events(self) -> AsyncIterator[Event]:
        """What it tells, until it has ended, or says what is no event: half of one, if it was killed meanwhile."""
        decoder = msgspec.json.Decoder(Event)
        while True:
            try:
                event = decoder.decode(await self._reader.readline())
            except (ConnectionError, ValueError):  # the latter also for a line that is too long
                return
            yield event

    async def close(self) -> None:
        """End it."""
        self._writer.close()
        with suppress(ProcessLookupError):
            try:
                async with asyncio.timeout(ENDING_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


def obey() -> None:
    """The child's main: relay what comes down, until the pair closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the node ends it in order
    run(_obey(socket.socket(fileno=int(sys.argv[1]))))


async def _obey(control: socket.socket) -> None:
    os.set_inheritable(control.fileno(), False)
    reader, writer = await asyncio.open_connection(sock=control, limit=LINE_MAX_BYTES)

    def report(event: Event) -> None:
        writer.write(msgspec.json.encode(event) + b"\n")

    decoder = msgspec.json.Decoder(Config)
    relay = Relay(report, report)
    try:
        with suppress(ConnectionError):  # the node has ended
            while line := await reader.readline():
                try:
                    await relay.start(decoder.decode(line))
                except OutlastError as error:
                    report(Failed(error.line, error.exit_code))
    finally:
        await relay.close()
