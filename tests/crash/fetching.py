"""A node that fetches a file from a neighbour and stops in the middle of a write to its disk, for the kill.

``python -m tests.crash.fetching HOME NODE HOST PORT WRITE``: the neighbour's ID in hex, and which write to stop in,
counted from the first of the file's bytes (0: none). One line goes to standard output whenever more is durable, as the
node says: ``held BYTES``; and ``stopped``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

from outlast.kernel import Home
from tests.crash.child import tell
from tests.crash.disk import Disk, Write
from tests.crash.toy import house


async def fetch(home: Path, node: bytes, host: str, port: int, stop: int) -> None:
    """Fetch what the neighbour has, and say how far it is."""
    first = 0

    def on_write(write: Write) -> bool:
        nonlocal first
        if not first and write.path.endswith(".chunks"):
            first = write.number
        if first and write.number - first + 1 == stop:
            write.put(write.size // 2)
            tell("stopped")
            threading.Event().wait()
        return False

    async with house(Home(home), dial=True) as own:
        with Disk(on_write):
            await own.node.peer_add(node, host, port)
            while True:
                revision = own.node.revision
                tell("held", own.node.query("SELECT ifnull(sum(held_bytes), 0) FROM file")[0][0])
                await own.node.wait(revision)


if __name__ == "__main__":
    asyncio.run(fetch(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
