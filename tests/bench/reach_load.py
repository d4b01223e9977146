"""Opens connections through a SOCKS 5 port as fast as so many workers can: ``PORT TARGET WORKERS SECONDS``.

It spends as little as it can on each, since it shares the machine with what it measures.
"""

from __future__ import annotations

import select
import socket
import sys
import time

from outlast import address
from outlast.address import Target


class Worker:
    """One connection after another: greeting, request, a line, the first byte of the answer."""

    def __init__(self, port: int, ask: bytes) -> None:
        self.port, self.ask, self.step = port, ask, 0
        self.one = self.begin()

    def begin(self) -> socket.socket:
        """Connect, which the kernel of one machine does at once."""
        self.one = socket.socket()  # and not create_connection, which asks the resolver first
        self.one.connect(("127.0.0.1", self.port))
        self.one.send(b"\5\1\0")
        self.step = 0
        return self.one

    def go_on(self) -> bool:
        """Take an answer, and say the next thing; whether the connection is done."""
        came = self.one.recv(16)
        self.step += 1
        if self.step == 1:
            self.one.send(self.ask)
        elif self.step == 2:
            if came[1]:
                raise SystemExit(f"refused with {came[1]}")
            self.one.send(b"one\n")
        elif came == b"!":
            self.one.close()
            return True
        else:
            raise SystemExit("no answer")
        return False


def main(port: int, target: int, workers: int, seconds: float) -> float:
    """Connections a second."""
    ask = b"\5\1\0" + address.encode(Target("127.0.0.1", target))
    done = 0
    by_file = {}
    with select.epoll() as ready:
        for _ in range(workers):
            worker = Worker(port, ask)
            by_file[worker.one.fileno()] = worker
            ready.register(worker.one.fileno(), select.EPOLLIN)
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            for file, _ in ready.poll(1):
                worker = by_file[file]
                if worker.go_on():  # closing has taken it out of what is watched
                    done += 1
                    del by_file[file]
                    by_file[worker.begin().fileno()] = worker
                    ready.register(worker.one.fileno(), select.EPOLLIN)
    return done / passed


if __name__ == "__main__":
    print(main(*map(int, sys.argv[1:4]), float(sys.argv[4])))
