"""What a flood is made of, and who asks for pages in it: both run in processes of their own beside the node."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from collections.abc import Iterable, Sequence
from hashlib import sha256
from http.cookiejar import CookieJar
from pathlib import Path

import msgspec

from outlast.kernel import mail, wire
from outlast.kernel.entry import DAY_MS, Entry, Header, expiry_day, pack, sign_entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.links import tcp
from outlast.rooms.carry.entries import POST, Post
from tests.kernel.test_neighbours import Caller

AT_ONCE = 8


class Flooder(Caller):
    """A stranger that sends all it has, as fast as it may."""

    async def flood(self, today: int, spaces: Sequence[bytes], messages: Sequence[bytes], entries: int) -> None:
        key = self.channel.session_key
        macs = [wire.space_mac(key, initiator=True, space=space) for space in spaces]
        await self.channel.send(wire.encode(wire.Type.HELLO, wire.Hello([1], today, macs, 2**30)))
        await self.channel.send(wire.encode(wire.Type.SUMMARY, wire.Summary([])))
        greeting = await self.hear(wire.Type.HELLO)
        credit = wire.decode(greeting)[1].credit
        settled = 0
        for message in messages:
            while credit < len(message):
                more = await self.hear(wire.Type.CREDIT)
                credit += wire.decode(more)[1].size_bytes
            credit -= len(message)
            await self.channel.send(message)
        while settled < entries:
            kept = await self.hear(wire.Type.KEPT)
            settled = wire.decode(kept)[1].count


class Load(msgspec.Struct):
    """What one hostile node sends: ENTRIES messages."""

    messages: list[bytes]
    entries: int


def write_load(path: Path, entries: Iterable[Entry]) -> None:
    """Put entries into messages of at most 60,000 bytes, and these into a file."""
    load, batch = Load([], 0), bytearray((wire.Type.ENTRIES,))
    for entry in entries:
        packed = pack(entry)
        if len(batch) + len(packed) > wire.ENTRIES_MAX_BYTES:
            load.messages.append(bytes(batch))
            batch = bytearray((wire.Type.ENTRIES,))
        batch += packed
        load.entries += 1
    load.messages.append(bytes(batch))
    path.write_bytes(msgspec.msgpack.encode(load))


def junk(space: bytes, now_ms: int, number: int) -> Entry:
    """A valid entry of a stranger: a post in a channel, or an envelope that nobody can open."""
    author = SigningKey.from_seed(os.urandom(32))
    mailed = space == mail.MAIL_SPACE
    ts_ms = now_ms - now_ms % 3_600_000 if mailed else now_ms + number
    payload = os.urandom(512) if mailed else POST.encode(Post(f"buy now {number}"))
    header = Header(
        version=1,
        space=space,
        kind=mail.MAIL_KIND if mailed else POST.name,
        author=author.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, (mail.MAIL_LIFE_DAYS if mailed else 20) * DAY_MS),
        priority=mail.MAIL_PRIORITY if mailed else 2,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(os.urandom(16),) if mailed else (),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)


def flood(port: int, node: bytes, today: int, spaces: Sequence[bytes], loads: Sequence[Path]) -> float:
    """A hostile node for each load calls the node at ``port`` of loopback; seconds until all is settled there."""
    return asyncio.run(_flood(port, node, today, spaces, loads))


async def _flood(port: int, node: bytes, today: int, spaces: Sequence[bytes], loads: Sequence[Path]) -> float:
    turns = asyncio.Semaphore(AT_ONCE)
    began = time.perf_counter()

    async def storm(path: Path) -> None:
        async with turns:
            load = msgspec.msgpack.decode(path.read_bytes(), type=Load)
            channel = await tcp.connect("127.0.0.1", port, static=os.urandom(32), remote=node)
            try:
                await Flooder(channel).flood(today, spaces, load.messages, load.entries)
            finally:
                await channel.close()

    await asyncio.gather(*map(storm, loads))
    return time.perf_counter() - began


_browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))


def enter(url: str, token: str) -> None:
    """Let this process's browser in, by the token of the launch."""
    _browser.open(f"{url}/enter", data=f"token={token}".encode(), timeout=60).read()


def page_s(url: str, holds: str) -> float:
    """How long a page takes; it must be the one that holds this text."""
    began = time.perf_counter()
    with _browser.open(url, timeout=60) as answer:
        text = answer.read().decode()
    seconds = time.perf_counter() - began
    assert holds in text, f"{url} is not the page that it should be"
    return seconds
