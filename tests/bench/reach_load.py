"""Opens connections through a SOCKS 5 port as fast as so many workers can: ``PORT TARGET WORKERS SECONDS``."""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections.abc import Iterator

from outlast.rooms.reach.proto import address
from outlast.rooms.reach.proto.address import Target


def stream(port: int, ask: bytes) -> Iterator[tuple[socket.socket, int]]:
    """One connection after another, each to its first byte; yields what has to be waited for."""
    while True:
        with socket.socket() as one:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            yield one, selectors.EVENT_WRITE
            one.send(b"\5\1\0")
            yield one, selectors.EVENT_READ
            one.recv(2)
            one.send(ask)
            yield one, selectors.EVENT_READ
            if one.recv(10)[1]:
                raise SystemExit("refused")
            one.send(b"one\n")
            yield one, selectors.EVENT_READ
            if one.recv(1) != b"!":
                raise SystemExit("no answer")
        yield one, 0


def main(port: int, target: int, workers: int, seconds: float) -> float:
    """Connections a second."""
    ask = b"\5\1\0" + address.encode(Target("127.0.0.1", target))
    done = 0
    with selectors.DefaultSelector() as ready:

        def go_on(worker: Iterator[tuple[socket.socket, int]]) -> int:
            one, event = next(worker)
            if not event:
                ready.unregister(one)
                one, event = next(worker)
                ready.register(one, event, worker)
                return 1
            ready.modify(one, event, worker)
            return 0

        for _ in range(workers):
            worker = stream(port, ask)
            one, event = next(worker)
            ready.register(one, event, worker)
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            for key, _ in ready.select(1):
                done += go_on(key.data)
    return done / passed


if __name__ == "__main__":
    print(main(*map(int, sys.argv[1:4]), float(sys.argv[4])))
