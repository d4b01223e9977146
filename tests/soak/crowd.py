"""Phones as live.js has them, in a process of their own: each holds a stream of news open, looks again when told, and
posts by its form. Plain HTTP over asyncio, so that they cost little beside the node that they load."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

LIVE: Final = {"x-fragment": "1"}
IDLE_S: Final = 3.0
"""A connection that rested so long may have been closed by the node, as a browser knows too."""


@dataclass
class Seen:
    """What the phones met. Times are seconds from the request to the answer's last byte, by the path asked for."""

    page_s: list[float] = field(default_factory=list)
    post_s: list[float] = field(default_factory=list)
    shown_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    news: int = 0


class Wire:
    """One keep-alive connection to the node."""

    def __init__(self, host: str, port: int, cookie: str) -> None:
        self._at = host, port
        self._headers = f"host: {host}:{port}\r\ncookie: {cookie}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used = 0.0

    async def send(self, method: str, path: str, more: dict[str, str], body: bytes = b"") -> asyncio.StreamReader:
        """Send a request; what comes back is read from the result."""
        if self._streams is None or time.monotonic() - self._used > IDLE_S:
            self.close()
            self._streams = await asyncio.open_connection(*self._at)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{self._headers}{lines}\r\n".encode() + body)
        await writer.drain()
        return reader

    async def ask(
        self, method: str, path: str, more: dict[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, str], str]:
        """The status, headers and text of an answer that has a length."""
        reader = await self.send(method, path, more, body)
        status, headers = await head(reader)
        text = await reader.readexactly(int(headers.get("content-length", "0")))
        self._used = time.monotonic()
        if headers.get("connection") == "close":
            self.close()
        return status, headers, text.decode()

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    return int(first.split()[1]), {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }


class Phone:
    """One phone that has the channel at ``path`` open."""

    def __init__(self, host: str, port: int, cookie: str, path: str, seen: Seen) -> None:
        self._path, self._seen = path, seen
        self._wire, self._writing, self._news = (Wire(host, port, cookie) for _ in range(3))
        self._turn = asyncio.Lock()
        self._csrf, self._looking, self._again = "", False, False
        self.latest = ""

    async def open(self) -> asyncio.Task[None]:
        """Open the page and its stream."""
        status, _, text = await self._wire.ask("GET", self._path, {})
        assert status == 200, text
        self._csrf = re.findall(r'name="csrf" value="([^"]+)"', text)[0]
        events = re.findall(r'data-events="([^"]+)"', text)[0]
        reader = await self._news.send("GET", events, {"accept": "text/event-stream"})
        status, _ = await head(reader)
        assert status == 200, "the stream opens"
        return asyncio.create_task(self._listen(reader))

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        looks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            if line.startswith(b"event: fragment"):
                self._seen.news += 1
                look = asyncio.create_task(self.look())
                looks.add(look)
                look.add_done_callback(looks.discard)
        self._seen.wrong.append("a stream ended")

    async def look(self) -> None:
        """Fetch the page again, and once more if there was news meanwhile."""
        self._again = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._again:
                self._again = False
                began = time.perf_counter()
                status, _, text = await self._wire.ask("GET", self._path, LIVE)
                self._seen.page_s.append(time.perf_counter() - began)
                if status != 200:
                    self._seen.wrong.append(f"GET: {status}")
                self.latest = text
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.wrong.append(f"GET: {error!r}")
        finally:
            self._looking = False

    async def post(self, text: str) -> None:
        """Submit the form when the one before it is through, and follow to the page that shows it."""
        async with self._turn:
            await self._post(text)

    async def _post(self, text: str) -> None:
        body = urlencode({"csrf": self._csrf, "text": text}).encode()
        form = {**LIVE, "content-type": "application/x-www-form-urlencoded", "content-length": str(len(body))}
        began = time.perf_counter()
        try:
            status, headers, answer = await self._writing.ask("POST", self._path, form, body)
            self._seen.post_s.append(time.perf_counter() - began)
            if status != 303:
                self._seen.wrong.append(f"POST: {status} {answer[:200]}")
                return
            began = time.perf_counter()
            status, _, page = await self._writing.ask("GET", headers["location"].partition("#")[0], LIVE)
            self._seen.page_s.append(time.perf_counter() - began)
            if text not in page:
                self._seen.wrong.append(f"{text} is not shown to who wrote it")
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.wrong.append(f"POST: {error!r}")


def crowd(host: str, port: int, cookies: Sequence[str], path: str, seconds: float, each_s: float) -> Seen:
    """A phone for each cookie; together they post `post N.` each so many seconds, in turn."""
    return asyncio.run(_crowd(host, port, cookies, path, seconds, each_s))


async def _crowd(host: str, port: int, cookies: Sequence[str], path: str, seconds: float, each_s: float) -> Seen:
    seen = Seen()
    phones = [Phone(host, port, cookie, path, seen) for cookie in cookies]
    streams = [await phone.open() for phone in phones]
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    posts: list[asyncio.Task[None]] = []
    count = round(seconds / each_s)
    for number in range(count):
        await asyncio.sleep(began + number * each_s - loop.time())
        posts.append(asyncio.create_task(phones[number % len(phones)].post(f"post {number}.")))
    await asyncio.gather(*posts)
    last, written = f"post {count - 1}.", loop.time()
    for phone in phones:
        while last not in phone.latest and loop.time() - written < 60:
            await asyncio.sleep(0.01)
        seen.shown_s.append(loop.time() - written)
        if last not in phone.latest:
            seen.wrong.append("a phone never showed the last post")
    for stream in streams:
        stream.cancel()
    return seen
