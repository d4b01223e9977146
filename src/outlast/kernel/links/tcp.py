"""TCP links: Noise over a stream, and on it whole messages of up to 1 MiB in both directions.

``connect`` and ``serve`` open links by the preamble and handshake of docs/spec/link.md. On the open
link a message is cut into Noise messages: it ends with the first one that is not full (65,519 B), which
may be empty. An empty one between messages is a sign of life and no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from outlast.errors import OutlastError, ProtocolError
from outlast.kernel.identity import derive, node_text
from outlast.kernel.noise import (
    PLAINTEXT_MAX_BYTES,
    PREAMBLE_MAX_BYTES,
    FrameReader,
    Handshake,
    HandshakeError,
    Pattern,
    Transport,
    accept_version,
    choose_version,
    encode_frame,
    encode_preamble,
    link_prologue,
    parse_preamble,
)

VERSIONS: Final = (1,)
"""Link versions spoken here, rising."""
MESSAGE_MAX_BYTES: Final = 1024 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
KEEPALIVE_S: Final = 20.0
"""An end that has sent nothing for so long sends a sign of life."""
SILENCE_MAX_S: Final = 90.0
"""A link on which nothing has arrived for so long is closed."""
CLOSE_TIMEOUT_S: Final = 5.0
BACKLOG_MAX_BYTES: Final = 8 * 1024 * 1024
"""What may wait to be written; above it ``send`` waits. It is more than two honest sessions ever owe
each other, so that two ends which both write before they read never wait for each other."""
OPENING_MAX: Final = 64
"""Callers that may be in the middle of their handshake at a time."""

_READ_BYTES: Final = 256 * 1024
_Closed = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)


class LinkError(OutlastError):
    """No link to another node could be opened, or it broke; try again later."""

    status = 502


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a finished handshake leaves."""

    transport: Transport
    frames: FrameReader
    early: list[bytes]  # frames that came together with the last of the handshake
    pattern: Pattern
    remote: bytes | None
    hash: bytes


class Channel:
    """An open link: whole messages, in order, sealed; made by ``connect`` and ``serve``.

    One task may send and one may receive at a time.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        opened: _Opened,
        *,
        initiator: bool,
    ) -> None:
        """Take over a stream whose handshake is done."""
        self.initiator = initiator
        """Whether this end called the other one."""
        self.pattern = opened.pattern
        self.remote = opened.remote
        """The other node's transport key, 32 B, proven; None between strangers (XX)."""
        self.hash = opened.hash
        """The handshake's transcript hash, 32 B, unique to this link."""
        self.session_key = derive(opened.hash, b"outlast/session/1")
        """32 B, the same at both ends and on no other link."""
        self.address = _address(writer)
        """Where the other end is, for people."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self._reader = reader
        self._writer = writer
        self._transport = opened.transport
        self._frames = opened.frames
        self._early = deque(opened.early)
        self._messages: deque[bytes] = deque()
        self._partial = bytearray()
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._heard_at = self._loop.time()
        self._reading = False
        self._full_since: float | None = None
        writer.transport.set_write_buffer_limits(high=BACKLOG_MAX_BYTES)
        self._timer = self._loop.call_later(KEEPALIVE_S / 4, self._beat)

    async def send(self, data: bytes) -> None:
        """Send one message (1 B to 1 MiB); waits while more than 8 MiB are still to be written.

        Raises LinkError when the link is closed, ValueError for another length.
        """
        if not 1 <= len(data) <= MESSAGE_MAX_BYTES:
            raise ValueError(f"a message has 1 to {MESSAGE_MAX_BYTES} bytes, not {len(data)}")
        if self._writer.is_closing():
            raise LinkError(f"the link to {self.address} is closed")
        self._write(data)
        try:
            await self._writer.drain()
        except _Closed:
            raise LinkError(f"the link to {self.address} broke") from None

    async def receive(self) -> bytes | None:
        """The next message; None when the other end has closed the link or it broke.

        Raises ProtocolError when what arrived was altered or follows no rule.
        """
        while self._early:
            self._take(self._transport.decrypt(self._early.popleft()))
        while not self._messages:
            # Silence counts only while somebody listens: a busy end does not blame the other.
            try:
                self._reading, self._heard_at = True, self._loop.time()
                data = await self._reader.read(_READ_BYTES)
            except _Closed:
                return None
            finally:
                self._reading = False
            if not data:
                return None
            self.bytes_received += len(data)
            for frame in self._frames.feed(data):
                self._take(self._transport.decrypt(frame))
        return self._messages.popleft()

    async def close(self) -> None:
        """Close the link, once what was sent is out or 5 s have passed. Never fails."""
        self._timer.cancel()
        self._writer.close()
        with contextlib.suppress(*_Closed):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    def _write(self, data: bytes) -> None:
        self._sent_at = self._loop.time()
        for at in range(0, len(data) + 1, PLAINTEXT_MAX_BYTES):
            frame = encode_frame(self._transport.encrypt(data[at : at + PLAINTEXT_MAX_BYTES]))
            self.bytes_sent += len(frame)
            self._writer.write(frame)

    def _take(self, plain: bytes) -> None:
        """One Noise message; the first that is not full ends a message."""
        if len(self._partial) + len(plain) > MESSAGE_MAX_BYTES:
            raise ProtocolError("the other node sends a message of an impossible length")
        if len(plain) == PLAINTEXT_MAX_BYTES:
            self._partial += plain
            return
        message = bytes(self._partial) + plain
        self._partial.clear()
        if message:
            self._messages.append(message)

    def _beat(self) -> None:
        """Show a sign of life where one is due, and give up on an end that shows none."""
        now = self._loop.time()
        if self._writer.is_closing():
            return
        full = self._writer.transport.get_write_buffer_size() > BACKLOG_MAX_BYTES
        self._full_since = (self._full_since or now) if full else None
        silent_since = self._full_since or (self._heard_at if self._reading else now)
        if now - silent_since > SILENCE_MAX_S:
            self._writer.transport.abort()
            return
        if now - self._sent_at >= KEEPALIVE_S:
            self._write(b"")
        self._timer = self._loop.call_later(KEEPALIVE_S / 4, self._beat)


class Listener:
    """A listening socket; ``port`` is the one it got."""

    def __init__(self, server: asyncio.Server, tasks: set[asyncio.Task[None]]) -> None:
        """Made by ``serve``."""
        self.port: int = server.sockets[0].getsockname()[1]
        self._server = server
        self._tasks = tasks

    async def close(self) -> None:
        """Take no more calls, and end the links that were opened by calls."""
        self._server.close()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def connect(
    host: str,
    port: int,
    *,
    static: bytes | None = None,
    remote: bytes | None = None,
    psk: bytes | None = None,
) -> Channel:
    """Call a node and open a link.

    ``static`` is this node's private transport key (32 B). With ``remote``, the public one of the
    node to reach, the link is XK; with ``psk``, the 32-byte secret of a pairing code, XXpsk0; with
    neither it is a stranger's (XX) with throwaway keys, and ``static`` is not used.

    Raises LinkError with one line for a person when the node cannot be reached, and HandshakeError
    when it is not the one that was meant.
    """
    where = _where(host, port)
    pattern = Pattern.XK if remote is not None else Pattern.XXPSK0 if psk else Pattern.XX
    if pattern is Pattern.XX:
        static = os.urandom(32)
    elif static is None:
        raise ValueError("a link to a node that is known needs the own transport key")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise LinkError(f"{where} does not answer: check address and network") from None
    except socket.gaierror:
        raise LinkError(f"{host} is no address that can be found: check its spelling") from None
    except ConnectionRefusedError:
        raise LinkError(f"nothing listens at {where}: is the other node up?") from None
    except OSError as error:
        raise LinkError(f"{where} cannot be reached: {error.strerror or error}") from None
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            opened = await _call(reader, writer, pattern, static, remote, psk)
        return Channel(reader, writer, opened, initiator=True)
    except HandshakeError:
        writer.transport.abort()
        raise
    except TimeoutError:
        writer.transport.abort()
        raise LinkError(f"{where} does not answer as a node of Outlast does") from None
    except _Closed:
        writer.transport.abort()
        raise LinkError(f"{where} closed the link: {_DOUBTS[pattern]}{_name(remote)}") from None
    except BaseException:
        writer.transport.abort()
        raise


async def serve(
    host: str,
    port: int,
    *,
    static: bytes,
    on_channel: Callable[[Channel], Awaitable[None]],
    pairing: Callable[[], bytes | None] = lambda: None,
    strangers: bool = False,
) -> Listener:
    """Take calls at ``host`` and ``port`` (0: any free one) and run ``on_channel`` for each link.

    ``static`` is this node's private transport key (32 B). ``pairing`` returns the secret of the
    pairing code shown now, if any. Calls of strangers (XX) are taken only with ``strangers``. The
    link is closed when ``on_channel`` returns. A caller that breaks the rules is dropped in silence,
    and so is the slowest when there are too many.

    Raises LinkError when the port cannot be had.
    """
    opening: dict[asyncio.StreamWriter, None] = {}

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(opening) >= OPENING_MAX:
            # The one that has dawdled longest makes room: idle callers cannot keep others out.
            slowest = next(iter(opening))
            del opening[slowest]
            slowest.transport.abort()
        opening[writer] = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                opened = await _answer(reader, writer, static, pairing, strangers)
            channel = Channel(reader, writer, opened, initiator=False)
        except (ProtocolError, *_Closed):
            writer.transport.abort()
            return
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            opening.pop(writer, None)
        try:
            await on_channel(channel)
        finally:
            await channel.close()

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(called(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    try:
        server = await asyncio.start_server(begin, host, port)
    except OSError as error:
        raise LinkError(f"cannot listen at {_where(host, port)}: {error.strerror or error}") from None
    return Listener(server, tasks)


async def _call(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    pattern: Pattern,
    static: bytes,
    remote: bytes | None,
    psk: bytes | None,
) -> _Opened:
    preamble = encode_preamble(pattern, VERSIONS)
    writer.write(preamble)
    chosen = accept_version(VERSIONS, (await reader.readexactly(1))[0])
    handshake = Handshake(
        pattern,
        initiator=True,
        prologue=link_prologue(preamble, chosen),
        static=static,
        ephemeral=os.urandom(32),
        remote_static=remote,
        psk=psk if pattern is Pattern.XXPSK0 else None,
    )
    return await _shake(reader, writer, handshake, pattern, initiator=True)


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    static: bytes,
    pairing: Callable[[], bytes | None],
    strangers: bool,
) -> _Opened:
    received = b""
    while (preamble := parse_preamble(received)) is None:
        data = await reader.read(PREAMBLE_MAX_BYTES + 1)
        if not data:
            raise ConnectionResetError
        received += data
    psk = pairing() if preamble.pattern is Pattern.XXPSK0 else None
    if preamble.pattern is Pattern.XXPSK0 and psk is None:
        raise HandshakeError("no pairing code is shown")
    if preamble.pattern is Pattern.XX:
        if not strangers:
            raise HandshakeError("strangers are not let in")
        static = os.urandom(32)
    chosen = choose_version(preamble.versions, VERSIONS)
    writer.write(bytes([chosen]))
    if not chosen:
        await writer.drain()
        writer.close()
        raise HandshakeError("no version in common")
    handshake = Handshake(
        preamble.pattern,
        initiator=False,
        prologue=link_prologue(received, chosen),
        static=static,
        ephemeral=os.urandom(32),
        psk=psk,
    )
    return await _shake(reader, writer, handshake, preamble.pattern, initiator=False)


async def _shake(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handshake: Handshake,
    pattern: Pattern,
    *,
    initiator: bool,
) -> _Opened:
    frames = FrameReader(initiator=initiator)
    arrived: deque[bytes] = deque()
    writing = initiator
    while not handshake.done:
        if writing:
            writer.write(encode_frame(handshake.write()))
        else:
            while not arrived:
                data = await reader.read(_READ_BYTES)
                if not data:
                    raise ConnectionResetError
                arrived.extend(frames.feed(data))
            handshake.read(arrived.popleft())
        writing = not writing
    # Throwaway keys name nobody.
    remote = handshake.remote_static if pattern is not Pattern.XX else None
    return _Opened(handshake.split(), frames, list(arrived), pattern, remote, handshake.hash)


_DOUBTS: Final = {
    Pattern.XK: "it is no node of Outlast, or not the node ",
    Pattern.XXPSK0: "it shows no pairing code now, or another one than this",
    Pattern.XX: "it is no node of Outlast, or takes no calls of strangers",
}


def _name(remote: bytes | None) -> str:
    return node_text(remote) if remote is not None else ""


def _address(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return _where(name[0], name[1]) if isinstance(name, tuple) else "the other node"


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
