"""One node in a process of its own, driven by JSON lines: what the kernel's measurements time.

    python -m tests.bench.node_process HOME

Each line of standard input is ``[command, arguments...]``; each answer is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from outlast.kernel import Home, Kind, Node, Person, Room, find_rooms, parse_space
from outlast.kernel.links import tcp
from outlast.memory import reuse_freed_memory
from outlast.rooms.carry import service
from outlast.ui.file import new_file

FILE = Kind("bench.file", None, max_bytes=128 << 20)
ROOM = Room("bench", 1, kinds=(FILE,))
DAY_MS = 86_400_000


class Driver:
    """The commands of one node."""

    def __init__(self, node: Node, person: Person) -> None:
        self.node = node
        self.person = person
        self.to = b""

    async def about(self) -> dict[str, Any]:
        port = await self.node.listen("127.0.0.1", 0)
        return {"link": await self.person.link(), "node": self.node.transport_id.hex(), "port": port}

    async def meet(self, link: str, node: str, port: int) -> dict[str, Any]:
        """Add a contact and their node, and exchange one letter so that no introduction is left."""
        self.to = (await self.person.add_contact(link)).identity
        await self.node.peer_add(bytes.fromhex(node), "127.0.0.1", port)
        await self._deliver(["hello"])
        return {}

    async def letters(self, count: int, size: int) -> dict[str, Any]:
        """Send letters and wait until each is acknowledged by its receiver."""
        before, cpu, start = _sent(), _cpu(), time.perf_counter()
        await self._deliver([f"{number:06d}".ljust(size, "x") for number in range(count)])
        return {"seconds": time.perf_counter() - start, "cpu": _cpu() - cpu, **_since(before)}

    async def channel(self, name: str) -> dict[str, Any]:
        return {"space": (await service.create_channel(self.node, self.person, name)).id}

    async def follow(self, space: str) -> dict[str, Any]:
        await service.follow(self.node, self.person, space)
        return {}

    async def posts(self, space: str, count: int, size: int) -> dict[str, Any]:
        before = _sent()
        where = parse_space(space)
        for number in range(count):
            await service.post(self.node, self.person, where, f"{number:06d}".ljust(size, "x"))
        return _since(before)

    async def wait_posts(self, space: str, count: int) -> dict[str, Any]:
        revision = 0
        while len(service.read_channel(self.node, self.person, parse_space(space))) < count:
            revision = await self.node.wait(revision)
        return {}

    async def file(self, space: str, path: str) -> dict[str, Any]:
        """Put a file into a channel."""
        start = time.perf_counter()
        entry = await self.node.append_content(self.person, parse_space(space), FILE.name, Path(path), life_ms=DAY_MS)
        return {"id": entry.id.hex(), "seconds": time.perf_counter() - start}

    async def fetch(self, ids: list[str]) -> dict[str, Any]:
        """Fetch files that are known here, and wait until all of each is durable."""
        wanted = [bytes.fromhex(one) for one in ids]
        revision, store = 0, self.node.open_store
        while len(store.known(wanted)) < len(wanted):
            revision = await self.node.wait(revision)
        cpu, start = _cpu(), time.perf_counter()
        for one in wanted:
            await self.node.fetch(one)
        while not all(self.node.content(one).is_whole for one in wanted):
            revision = await self.node.wait(revision)
        return {"seconds": time.perf_counter() - start, "cpu": _cpu() - cpu}

    async def write_bundle(self, space: str, path: str) -> dict[str, Any]:
        """Write a channel and its files into a bundle, durable."""
        with new_file(Path(path), 0o600) as out:
            await self.person.write_bundle(out, space=parse_space(space))
        return {}

    async def read_bundle(self, path: str, ids: list[str]) -> dict[str, Any]:
        """Read it; whether it brought these files whole."""
        with Path(path).open("rb") as source:
            await self.person.read_bundle(source)
        return {"whole": all(self.node.content(bytes.fromhex(one)).is_whole for one in ids)}

    async def cpu(self) -> dict[str, Any]:
        return {"cpu": _cpu()}

    async def sessions(self) -> dict[str, Any]:
        return {"count": sum(peer.connected for peer in self.node.peers())}

    async def in_step(self) -> dict[str, Any]:
        return {"yes": any(live.in_step for live in self.node.neighbours._live)}

    async def holds(self, ids: list[str]) -> dict[str, Any]:
        return {"count": len(self.node.open_store.known([bytes.fromhex(one) for one in ids]))}

    async def sent(self) -> dict[str, Any]:
        return _since((0, 0))

    async def _deliver(self, texts: list[str]) -> None:
        wanted = self._received() + len(texts)
        await asyncio.gather(*(service.send(self.node, self.person, self.to, text) for text in texts))
        revision = 0
        while self._received() < wanted:
            revision = await self.node.wait(revision)

    def _received(self) -> int:
        return int(self.person.query("SELECT count(*) FROM custody WHERE event = 'received'")[0][0])


_channels: list[tcp.Channel] = []


def _sent() -> tuple[int, int]:
    return sum(one.bytes_sent for one in _channels), sum(one.bytes_received for one in _channels)


def _since(before: tuple[int, int]) -> dict[str, Any]:
    sent, received = _sent()
    return {"bytes_sent": sent - before[0], "bytes_received": received - before[1]}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def main(home: Path) -> None:
    open_channel = tcp.Channel.__init__

    def counted(channel: tcp.Channel, *args: Any, **options: Any) -> None:
        open_channel(channel, *args, **options)
        _channels.append(channel)

    tcp.Channel.__init__ = counted  # type: ignore[method-assign]
    rooms = [*find_rooms(), ROOM]
    if not Home(home).exists():
        await Node.create(Home(home), home.name, passphrase=None, rooms=rooms)
    async with await Node.open(Home(home), rooms=rooms) as node:
        driver = Driver(node, next(iter(node.people.values())))
        while line := await asyncio.to_thread(sys.stdin.readline):
            command, *arguments = json.loads(line)
            print(json.dumps(await getattr(driver, command)(*arguments)), flush=True)


if __name__ == "__main__":
    reuse_freed_memory()
    asyncio.run(main(Path(sys.argv[1])))
