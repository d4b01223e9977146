"""Channel: Noise over any link, and on it whole messages of up to 1 MiB in both directions.

``call`` and ``answer`` open a channel by the preamble and handshake of docs/spec/link.md. On the open channel a
message is cut into Noise messages: it ends with the first one that is not full (65,519 B), which may be empty. An
empty one between messages is a sign of life and no message. What goes to the link is cut once more, to its largest
piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from outlast.errors import ProtocolError, Sentence
from outlast.kernel.identity import derive, node_text
from outlast.kernel.links.link import Link, LinkError
from outlast.kernel.noise import (
    PLAINTEXT_MAX_BYTES,
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
HANDSHAKE_TIMEOUT_S: Final = 10.0
"""For a handshake, beside the time that a slow link needs for its bytes."""
KEEPALIVE_S: Final = 20.0
"""An end that has sent nothing for so long sends a sign of life."""
SILENCE_MAX_S: Final = 90.0
"""A link on which nothing has arrived, or that has taken nothing, for so long is closed."""

_HANDSHAKE_BITS: Final = 8 * 512
"""More than a preamble and the three messages of a handshake have."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a finished handshake leaves."""

    transport: Transport
    frames: FrameReader
    early: list[memoryview]  # frames that came together with the last of the handshake
    pattern: Pattern
    remote: bytes | None
    hash: bytes


def session_key(transcript_hash: bytes) -> bytes:
    """32 B that only the two ends of a link know, by the hash of its handshake (32 B)."""
    return derive(transcript_hash, b"outlast/session/1")


class Channel:
    """An open link: whole messages, in order, sealed; made by ``call`` and ``answer``.

    One task may send and one may receive at a time.
    """

    def __init__(self, link: Link, opened: Opened, *, initiator: bool) -> None:
        """Take over a link whose handshake is done."""
        self.link = link
        self.initiator = initiator
        """Whether this end called the other one."""
        self.pattern = opened.pattern
        self.remote = opened.remote
        """The other node's transport key, 32 B, proven; None between strangers (XX)."""
        self.hash = opened.hash
        """The handshake's transcript hash, 32 B, unique to this link."""
        self.session_key = session_key(opened.hash)
        """32 B, the same at both ends and on no other link."""
        self.address = link.address
        """Where the other end is, for people."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self._transport = opened.transport
        self._frames = opened.frames
        self._early = deque(opened.early)
        self._messages: deque[bytes] = deque()
        self._partial: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._sending = asyncio.Lock()
        self._open = True
        self._listens_since: float | None = None
        self._sends_since: float | None = None
        self._tasks = [self._loop.create_task(act) for act in (self._watch(), self._show_life())]

    async def send(self, *messages: bytes) -> None:
        """Send messages (1 B to 1 MiB each); waits while the link can take no more.

        Raises LinkError when the link is closed, ValueError for another length.
        """
        for data in messages:
            if not 1 <= len(data) <= MESSAGE_MAX_BYTES:
                raise ValueError(f"a message has 1 to {MESSAGE_MAX_BYTES} bytes, not {len(data)}")
        async with self._sending:
            await self._write(messages)

    async def drained(self) -> None:
        """Wait until all messages have left this end of the link; raises LinkError when it is closed."""
        await self.link.drained()

    async def receive(self) -> bytes | None:
        """The next message; None when the other end has closed the link or it broke.

        Raises ProtocolError when what arrived was altered or follows no rule.
        """
        while self._early:
            self._take(self._transport.decrypt(self._early.popleft()))
        while not self._messages:
            # Silence counts only while somebody listens: a busy end does not blame the other.
            self._listens_since = self._loop.time()
            try:
                data = await self.link.receive()
            finally:
                self._listens_since = None
            if not data:
                return None
            self.bytes_received += len(data)
            for frame in self._frames.feed(data):
                self._take(self._transport.decrypt(frame))
        return self._messages.popleft()

    async def close(self) -> None:
        """Close the link. Never fails."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await self.link.close()

    async def _write(self, messages: Sequence[bytes]) -> None:
        """Seal and send messages; one of which not all is sent leaves a link on which nothing can follow."""
        if not self._open:
            raise LinkError("the link to %(address)s is closed", address=self.address)
        pieces = [
            memoryview(data)[at : at + PLAINTEXT_MAX_BYTES]
            for data in messages
            for at in range(0, len(data) + 1, PLAINTEXT_MAX_BYTES)
        ]
        frames = b"".join([encode_frame(self._transport.encrypt(piece)) for piece in pieces])
        link, mtu = self.link, self.link.mtu
        try:
            for at in range(0, len(frames), mtu):
                self._sent_at = self._sends_since = self._loop.time()
                await link.send(frames[at : at + mtu])
        except BaseException:
            self._open = False
            raise
        finally:
            self._sends_since = None
        self.bytes_sent += len(frames)

    def _take(self, plain: bytes) -> None:
        """One Noise message; the first that is not full ends a message."""
        if len(self._partial) * PLAINTEXT_MAX_BYTES + len(plain) > MESSAGE_MAX_BYTES:
            raise ProtocolError("the other node sends a message of an impossible length")
        self._partial.append(plain)
        if len(plain) == PLAINTEXT_MAX_BYTES:
            return
        message = b"".join(self._partial)
        self._partial.clear()
        if message:
            self._messages.append(message)

    async def _watch(self) -> None:
        """Give up a link on which nothing arrives, or that takes nothing, for too long."""
        while True:
            await asyncio.sleep(KEEPALIVE_S / 4)
            waits = [since for since in (self._listens_since, self._sends_since) if since is not None]
            if waits and self._loop.time() - min(waits) > SILENCE_MAX_S:
                self._open = False
                await self.link.close()
                return

    async def _show_life(self) -> None:
        """Show a sign of life where one is due."""
        with contextlib.suppress(LinkError):
            while self._open:
                await asyncio.sleep(KEEPALIVE_S / 4)
                if self._loop.time() - self._sent_at >= KEEPALIVE_S and not self._sending.locked():
                    async with self._sending:
                        await self._write([b""])


async def call(link: Link, pattern: Pattern, *, static: bytes, remote: bytes | None, psk: bytes | None) -> Channel:
    """Open a channel as the end that calls; ``remote`` is for XK and ``psk`` for XXpsk0.

    A link on which this fails is closed. Raises HandshakeError when the other node is not the one that was meant, and
    LinkError when it does not answer.
    """
    preamble = encode_preamble(pattern, VERSIONS)
    stream = _Stream(link)

    async def act() -> Opened:
        await stream.write(preamble)
        chosen = accept_version(VERSIONS, (await stream.take(1))[0])
        handshake = Handshake(
            pattern,
            initiator=True,
            prologue=link_prologue(preamble, chosen),
            static=static,
            ephemeral=os.urandom(32),
            remote_static=remote,
            psk=psk if pattern is Pattern.XXPSK0 else None,
        )
        return await _shake(stream, handshake, pattern, initiator=True)

    try:
        async with asyncio.timeout(_patience_s(link)):
            opened = await act()
    except TimeoutError:
        await link.close()
        raise LinkError("%(address)s does not answer as a node of Outlast does", address=link.address) from None
    except _Ended:
        await link.close()
        raise LinkError(
            "%(address)s closed the link: %(doubt)s", address=link.address, doubt=_doubt(pattern, remote)
        ) from None
    except BaseException:
        await link.close()
        raise
    return Channel(link, opened, initiator=True)


async def answer(
    link: Link, *, static: bytes, pairing: Callable[[], bytes | None] = lambda: None, strangers: bool = False
) -> Channel:
    """Open a channel as the end that is called.

    ``pairing`` returns the secret of the pairing code shown now, if any. Calls of strangers (XX) are taken only with
    ``strangers``. A link on which this fails is closed. Raises HandshakeError when the caller breaks the rules, and
    LinkError when it says nothing or leaves.
    """
    try:
        async with asyncio.timeout(_patience_s(link)):
            opened = await _answer(_Stream(link), static, pairing, strangers)
    except (TimeoutError, _Ended):
        await link.close()
        raise LinkError("%(address)s called and did not go on", address=link.address) from None
    except BaseException:
        await link.close()
        raise
    return Channel(link, opened, initiator=False)


async def _answer(stream: _Stream, static: bytes, pairing: Callable[[], bytes | None], strangers: bool) -> Opened:
    received = b""
    while (preamble := parse_preamble(received)) is None:
        received += await stream.some()
    psk = pairing() if preamble.pattern is Pattern.XXPSK0 else None
    if preamble.pattern is Pattern.XXPSK0 and psk is None:
        raise HandshakeError("no pairing code is shown")
    if preamble.pattern is Pattern.XX:
        if not strangers:
            raise HandshakeError("strangers are not let in")
        static = os.urandom(32)
    chosen = choose_version(preamble.versions, VERSIONS)
    await stream.write(bytes([chosen]))
    if not chosen:
        raise HandshakeError("no version in common")
    handshake = Handshake(
        preamble.pattern,
        initiator=False,
        prologue=link_prologue(received, chosen),
        static=static,
        ephemeral=os.urandom(32),
        psk=psk,
    )
    return await _shake(stream, handshake, preamble.pattern, initiator=False)


async def _shake(stream: _Stream, handshake: Handshake, pattern: Pattern, *, initiator: bool) -> Opened:
    frames = FrameReader(initiator=initiator)
    arrived: deque[memoryview] = deque()
    writing = initiator
    while not handshake.done:
        if writing:
            await stream.write(encode_frame(handshake.write()))
        else:
            while not arrived:
                arrived.extend(frames.feed(await stream.some()))
            handshake.read(bytes(arrived.popleft()))
        writing = not writing
    # Throwaway keys name nobody.
    remote = handshake.remote_static if pattern is not Pattern.XX else None
    return Opened(handshake.split(), frames, list(arrived), pattern, remote, handshake.hash)


class _Ended(Exception):
    """The link ended within the handshake."""


class _Stream:
    """A link on which no frames go yet."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._rest = b""

    async def write(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), self._link.mtu):
                await self._link.send(data[at : at + self._link.mtu])
        except LinkError:
            raise _Ended from None

    async def some(self) -> bytes:
        """All that is here, at least one byte."""
        data, self._rest = self._rest, b""
        if not data and not (data := await self._link.receive()):
            raise _Ended
        return data

    async def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += await self.some()
        self._rest = data[count:]
        return data[:count]


def _patience_s(link: Link) -> float:
    return HANDSHAKE_TIMEOUT_S + _HANDSHAKE_BITS / link.bits_per_s


def _doubt(pattern: Pattern, remote: bytes | None) -> Sentence:
    match pattern:
        case Pattern.XK:
            node = node_text(remote) if remote is not None else ""
            return Sentence("it is no node of Outlast, or not the node %(node)s", {"node": node})
        case Pattern.XXPSK0:
            return Sentence("it shows no pairing code now, or another one than this")
        case Pattern.XX:
            return Sentence("it is no node of Outlast, or takes no calls of strangers")
        case _:
            assert_never(pattern)
