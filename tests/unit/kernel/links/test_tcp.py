"""TCP links: who may open one, that messages arrive whole, and what a broken or hostile end sees and costs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from outlast.errors import ProtocolError, StorageError
from outlast.kernel.identity import SealingKey, node_text
from outlast.kernel.links import channel as channels
from outlast.kernel.links import tcp
from outlast.kernel.links.channel import MESSAGE_MAX_BYTES, Channel
from outlast.kernel.links.link import LinkError
from outlast.kernel.links.tcp import Listener, connect, serve
from outlast.kernel.noise import (
    PLAINTEXT_MAX_BYTES,
    Handshake,
    HandshakeError,
    Pattern,
    Transport,
    encode_frame,
    encode_preamble,
    link_prologue,
)

HERE = SealingKey.from_secret(b"h" * 32)
THERE = SealingKey.from_secret(b"t" * 32)
SECRET = b"p" * 32


@asynccontextmanager
async def listening(
    on_channel: Callable[[Channel], Awaitable[None]], *, pairing: bytes | None = None, strangers: bool = False
) -> AsyncIterator[Listener]:
    listener = await serve(
        "127.0.0.1", 0, static=THERE.secret, on_channel=on_channel, pairing=lambda: pairing, strangers=lambda: strangers
    )
    try:
        yield listener
    finally:
        await listener.close()


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of one XK link: the caller's and the called one's."""
    called: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep(channel: Channel) -> None:
        called.set_result(channel)
        await over.wait()

    async with listening(keep) as listener:
        caller = await connect("127.0.0.1", listener.port, static=HERE.secret, remote=THERE.public)
        try:
            yield caller, await called
        finally:
            over.set()
            await caller.close()


async def echo(channel: Channel) -> None:
    while (message := await channel.receive()) is not None:
        await channel.send(message)


async def nothing(channel: Channel) -> None:
    await channel.receive()


def test_nodes_that_know_each_other_see_each_others_key_and_share_a_session_key() -> None:
    async def run() -> None:
        async with linked() as (caller, called):
            assert caller.pattern is called.pattern is Pattern.XK
            assert caller.remote == THERE.public
            assert called.remote == HERE.public
            assert caller.session_key == called.session_key
            assert caller.initiator
            assert not called.initiator
            first = caller.session_key
        async with linked() as (caller, _):
            assert caller.session_key != first

    asyncio.run(run())


@pytest.mark.parametrize(
    "size",
    [
        1,
        2,
        PLAINTEXT_MAX_BYTES - 1,
        PLAINTEXT_MAX_BYTES,
        PLAINTEXT_MAX_BYTES + 1,
        2 * PLAINTEXT_MAX_BYTES,
        MESSAGE_MAX_BYTES,
    ],
)
def test_messages_of_any_size_arrive_whole(size: int) -> None:
    async def run() -> None:
        message = os.urandom(size)
        async with linked() as (caller, called):
            await caller.send(message)
            await caller.send(b"next")
            assert await called.receive() == message
            assert await called.receive() == b"next"
            assert caller.bytes_sent > size

    asyncio.run(run())


def test_messages_longer_than_1_mib_or_empty_are_not_sent() -> None:
    async def run() -> None:
        async with linked() as (caller, _):
            for size in (0, MESSAGE_MAX_BYTES + 1):
                with pytest.raises(ValueError, match="a message has"):
                    await caller.send(bytes(size))

    asyncio.run(run())


def test_both_ends_can_write_first_without_blocking_each_other() -> None:
    """Each owes the other what a session may have on the way, and only then begins to read."""

    async def run() -> None:
        async with linked() as (caller, called):
            for _ in range(6):
                await caller.send(bytes(MESSAGE_MAX_BYTES))
                await called.send(bytes(MESSAGE_MAX_BYTES))
            for _ in range(6):
                assert len(await caller.receive() or b"") == len(await called.receive() or b"") == MESSAGE_MAX_BYTES

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_sender_waits_for_an_end_that_does_not_read() -> None:
    async def run() -> None:
        async with linked() as (caller, called):

            async def flood() -> None:
                for _ in range(64):
                    await caller.send(bytes(MESSAGE_MAX_BYTES))

            sending = asyncio.create_task(flood())
            for _ in range(64):
                assert await called.receive() is not None
            await sending

            waiting = asyncio.create_task(flood())
            # The kernel's buffers and the backlog fill up; then the sender stands still.
            sent = -1
            while sent != caller.bytes_sent:
                sent = caller.bytes_sent
                await turns(1000)
            assert not waiting.done()
            assert sent < (64 + 64) * MESSAGE_MAX_BYTES
            waiting.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_pairing_opens_a_link_by_the_secret_and_both_learn_the_key() -> None:
    async def run() -> None:
        seen = []

        async def note(channel: Channel) -> None:
            seen.append((channel.pattern, channel.remote))

        async with listening(note, pairing=SECRET) as listener:
            channel = await connect("127.0.0.1", listener.port, static=HERE.secret, psk=SECRET)
            assert channel.remote == THERE.public
            assert await channel.receive() is None
            await channel.close()
            assert seen == [(Pattern.XXPSK0, HERE.public)]
            with pytest.raises(LinkError, match="pairing code"):
                await connect("127.0.0.1", listener.port, static=HERE.secret, psk=b"q" * 32)
        async with listening(note) as listener:
            with pytest.raises(LinkError, match="pairing code"):
                await connect("127.0.0.1", listener.port, static=HERE.secret, psk=SECRET)

    asyncio.run(run())


def test_strangers_are_let_in_only_where_they_may_and_name_nobody() -> None:
    async def run() -> None:
        seen = []

        async def note(channel: Channel) -> None:
            seen.append((channel.pattern, channel.remote))

        async with listening(note) as listener:
            with pytest.raises(LinkError, match="closed the link"):
                await connect("127.0.0.1", listener.port)
        async with listening(note, strangers=True) as listener:
            channel = await connect("127.0.0.1", listener.port)
            assert channel.remote is None
            assert await channel.receive() is None
            await channel.close()
        assert seen == [(Pattern.XX, None)]

    asyncio.run(run())


def test_a_node_with_another_key_is_not_taken_for_the_one_that_was_meant() -> None:
    async def run() -> None:
        async with listening(nothing) as listener:
            with pytest.raises(LinkError, match=node_text(HERE.public)) as caught:
                await connect("127.0.0.1", listener.port, static=HERE.secret, remote=HERE.public)
            assert "\n" not in str(caught.value)

    asyncio.run(run())


def test_a_prober_without_the_key_gets_the_version_byte_and_nothing_more() -> None:
    async def run() -> None:
        async with listening(nothing) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(encode_preamble(Pattern.XK, [1]))
            assert await reader.readexactly(1) == b"\x01"
            writer.write(encode_frame(os.urandom(48)))
            assert await rest(reader) == b""
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"OL\x09\x01\x01", b"OL\x00\x00"])
def test_who_speaks_another_protocol_gets_no_answer(data: bytes) -> None:
    async def run() -> None:
        async with listening(nothing) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(data)
            assert await rest(reader) == b""
            writer.close()

    asyncio.run(run())


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that still comes; a reset connection brings nothing more."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_versions_without_a_common_one_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with listening(nothing) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(encode_preamble(Pattern.XK, [9]))
            assert await rest(reader) == b"\x00"
            writer.close()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(5)
            writer.write(b"\x00")
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HandshakeError, match="share no link version"):
            await connect("127.0.0.1", port, static=HERE.secret, remote=THERE.public)
        server.close()

    asyncio.run(run())


def test_an_end_that_stays_silent_in_the_handshake_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "HANDSHAKE_TIMEOUT_S", 0.05)

    async def run() -> None:
        async with listening(nothing) as listener:
            for said in (b"", b"OL", encode_preamble(Pattern.XK, [1])):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(said)
                await rest(reader)
                writer.close()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkError, match="does not answer as a node"):
            await connect("127.0.0.1", port, static=HERE.secret, remote=THERE.public)
        server.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_of_too_many_callers_in_their_handshake_the_slowest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "OPENING_MAX", 2)

    async def run() -> None:
        async with listening(nothing) as listener:
            waiting = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
            for reader, writer in waiting:
                writer.write(encode_preamble(Pattern.XK, [1]))
                assert await reader.readexactly(1) == b"\x01"
            channel = await connect("127.0.0.1", listener.port, static=HERE.secret, remote=THERE.public)
            await channel.close()
            (first, _), (second, writer) = waiting
            assert await rest(first) == b""
            writer.write(bytes(2))
            assert await rest(second) == b""
            for _, one in waiting:
                one.transport.abort()

    asyncio.run(run())


def test_what_cannot_be_reached_is_told_in_one_line() -> None:
    async def run() -> None:
        async with listening(nothing) as listener:
            port = listener.port
        with pytest.raises(LinkError, match="nothing listens at"):
            await connect("127.0.0.1", port, static=HERE.secret, remote=THERE.public)
        with pytest.raises(LinkError, match="no address that can be found"):
            await connect("no-such-host.invalid", port, static=HERE.secret, remote=THERE.public)
        async with listening(nothing) as listener:
            with pytest.raises(StorageError, match="in use by another program"):
                await serve("127.0.0.1", listener.port, static=THERE.secret, on_channel=nothing)

    asyncio.run(run())


def test_the_end_of_a_link_is_no_error_and_a_closed_one_takes_nothing() -> None:
    async def run() -> None:
        async with linked() as (caller, called):
            await caller.send(b"last words")
            await caller.close()
            assert await called.receive() == b"last words"
            assert await called.receive() is None
            with pytest.raises(LinkError):
                await caller.send(b"more")
            await caller.close()

    asyncio.run(run())


def test_a_link_that_is_closed_with_much_still_to_be_written_writes_it_first() -> None:
    async def run() -> None:
        async with linked() as (caller, called):
            for _ in range(7):
                await caller.send(bytes(MESSAGE_MAX_BYTES))

            async def read() -> int:
                count = 0
                while await called.receive() is not None:
                    count += 1
                return count

            reading = asyncio.create_task(read())
            await caller.close()
            await caller.close()
            assert await reading == 7

    asyncio.run(run())


def test_an_idle_link_stays_open_by_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(channels, "SILENCE_MAX_S", 0.5)

    async def run() -> None:
        async with linked() as (caller, called):
            hearing = asyncio.create_task(caller.receive())
            answering = asyncio.create_task(called.receive())
            while caller.bytes_received < 50 * 18:
                await turns(1)
            assert not hearing.done()
            assert not answering.done()
            hearing.cancel()
            answering.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_link_on_which_nothing_arrives_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(channels, "SILENCE_MAX_S", 0.05)

    async def run() -> None:
        over: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        async def listen(channel: Channel) -> None:
            over.set_result(await channel.receive())

        async with listening(listen) as listener:
            _, writer, _ = await raw_link(listener)
            assert await over is None
            writer.transport.abort()

    asyncio.run(asyncio.wait_for(run(), 20))


async def turns(count: int) -> None:
    """Let everything else run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def raw_link(listener: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Transport]:
    """An XK link whose caller follows no rule by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    preamble = encode_preamble(Pattern.XK, [1])
    writer.write(preamble)
    chosen = (await reader.readexactly(1))[0]
    handshake = Handshake(
        Pattern.XK,
        initiator=True,
        prologue=link_prologue(preamble, chosen),
        static=HERE.secret,
        ephemeral=os.urandom(32),
        remote_static=THERE.public,
    )
    writer.write(encode_frame(handshake.write()))
    handshake.read(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
    writer.write(encode_frame(handshake.write()))
    return reader, writer, handshake.split()


# A link cut or changed at any byte


def test_a_stream_cut_or_changed_at_any_byte_brings_whole_messages_or_none(soaking: bool) -> None:
    messages = [b"first", b"second" * 20, b"third" * 3]

    async def run() -> None:
        recorded = await through(messages, None, None)
        assert recorded[0] == messages
        start, total = recorded[2], recorded[1]
        assert start < total
        step = 1 if soaking else 7
        for cut in range(0, total, step):
            got, _, _ = await through(messages, cut, None)
            assert got == messages[: len(got)]
        for at in range(start, total, step):
            got, _, _ = await through(messages, None, at)
            assert got == messages[: len(got)]
            assert len(got) < len(messages)

    asyncio.run(run())


async def through(messages: list[bytes], cut: int | None, flip: int | None) -> tuple[list[bytes], int, int]:
    """Send messages through somebody in the middle who cuts or changes the caller's stream at one byte.

    Returns what arrived, the number of bytes that the caller sent, and where the messages began.
    """
    arrived: list[bytes] = []
    over = asyncio.Event()

    async def collect(channel: Channel) -> None:
        try:
            while (message := await channel.receive()) is not None:
                arrived.append(message)
        except ProtocolError:
            pass
        finally:
            over.set()

    passed = 0

    async with listening(collect) as listener:

        async def middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal passed
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", listener.port)

            async def back() -> None:
                while data := await rest_of(onward_reader):
                    writer.write(data)
                writer.close()

            answering = asyncio.create_task(back())
            while data := await rest_of(reader):
                if flip is not None and passed <= flip < passed + len(data):
                    changed = bytearray(data)
                    changed[flip - passed] ^= 1
                    data = bytes(changed)
                if cut is not None and passed + len(data) > cut:
                    onward.write(data[: cut - passed])
                    break
                passed += len(data)
                onward.write(data)
            onward.close()
            await answering

        proxy = await asyncio.start_server(middle, "127.0.0.1", 0)
        begun = 0
        try:
            port = proxy.sockets[0].getsockname()[1]
            caller = await connect("127.0.0.1", port, static=HERE.secret, remote=THERE.public)
        except (LinkError, HandshakeError):
            proxy.close()
            return arrived, passed, begun
        begun = 5 + 2 + 48 + 2 + 64  # preamble, and the two handshake frames of an XK initiator
        try:
            for message in messages:
                await caller.send(message)
        except LinkError:
            pass
        if cut is None:
            await caller.close()
            await over.wait()
        else:
            assert await caller.receive() is None  # the called end has seen the cut, and closed
            await caller.close()
        proxy.close()
    return arrived, passed, begun


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except ConnectionError:
        return b""


def test_a_message_without_end_is_refused() -> None:
    async def run() -> None:
        failed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        async def collect(channel: Channel) -> None:
            try:
                await channel.receive()
                failed.set_result(None)
            except ProtocolError as error:
                failed.set_result(error)

        async with listening(collect) as listener:
            _, writer, transport = await raw_link(listener)
            for _ in range(MESSAGE_MAX_BYTES // PLAINTEXT_MAX_BYTES + 1):
                writer.write(encode_frame(transport.encrypt(bytes(PLAINTEXT_MAX_BYTES))))
            assert isinstance(await failed, ProtocolError)
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_link_is_drained_when_the_other_end_has_taken_what_was_sent_and_not_before() -> None:
    async def run() -> None:
        async with linked() as (caller, called):
            await asyncio.wait_for(caller.drained(), 10)
            for _ in range(6):
                await caller.send(bytes(MESSAGE_MAX_BYTES))
            draining = asyncio.ensure_future(caller.drained())
            # While it waits, what is small goes on being taken, behind what was sent before.
            await caller.send(b"urgent")
            await asyncio.sleep(0)
            assert not draining.done()
            for _ in range(6):
                assert len(await called.receive() or b"") == MESSAGE_MAX_BYTES
            assert await called.receive() == b"urgent"
            await asyncio.wait_for(draining, 10)

    asyncio.run(run())


def test_waiting_for_a_link_to_drain_ends_with_the_link() -> None:
    async def run() -> None:
        async with linked() as (caller, called):
            for _ in range(6):
                await caller.send(bytes(MESSAGE_MAX_BYTES))
            draining = asyncio.ensure_future(caller.drained())
            await asyncio.sleep(0)
            await called.close()
            with pytest.raises(LinkError):
                await asyncio.wait_for(draining, 10)

    asyncio.run(run())
