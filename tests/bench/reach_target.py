"""What is asked through the ways that `bench_reach` measures: a process that sends, takes and answers at full speed.

A client says one line: ``down SIZE``, ``up SIZE`` or ``one``. To the first it answers with so many bytes; of the second
it takes so many and answers with their SHA-256; to the third with one byte. CPU seconds of this process do not count.
"""

from __future__ import annotations

import hashlib
import random
import select
import socket
import sys
from contextlib import suppress
from threading import Thread

BLOCK = random.Random(7).randbytes(1 << 20)


def digest_of(size: int) -> str:
    """SHA-256 of what is sent for ``down SIZE`` or ``up SIZE``."""
    whole, rest = divmod(size, len(BLOCK))
    found = hashlib.sha256()
    for _ in range(whole):
        found.update(BLOCK)
    found.update(BLOCK[:rest])
    return found.hexdigest()


def send(one: socket.socket, size: int) -> None:
    """Send so many bytes."""
    block, at = memoryview(BLOCK), 0
    while size:
        sent = one.send(block[at : at + min(size, 1 << 18)])
        size, at = size - sent, (at + sent) % len(block)


def serve(one: socket.socket, line: list[bytes]) -> None:
    """Send or take much; the client may go at any time."""
    with one, suppress(OSError):
        match line:
            case [b"down", size]:
                send(one, int(size))
            case [b"up", size, hashed]:
                one.sendall(take(one, int(size), hashed == b"1").encode())


def take(one: socket.socket, size: int, hashed: bool) -> str:
    """Take so many bytes; their SHA-256 if that is asked for."""
    buffer = memoryview(bytearray(1 << 19))
    found = hashlib.sha256()
    while size:
        count = one.recv_into(buffer)
        if not count:
            break
        size -= count
        if hashed:
            found.update(buffer[:count])
    return found.hexdigest() if not size else "-" * 64


def answer(one: socket.socket) -> bool:
    """Answer a client that has said its line; whether that was all, so that the connection is to be closed.

    Raises BlockingIOError when it has said nothing yet.
    """
    try:
        line = one.recv(4, socket.MSG_DONTWAIT)
        if line == b"one\n":
            one.send(b"!")
        elif line:
            line += one.recv(80, socket.MSG_PEEK).partition(b"\n")[0]
            one.recv(len(line) + 1 - 4)
            Thread(target=serve, args=(one, line.split()), daemon=True).start()
            return False
    except BlockingIOError:
        raise
    except OSError:
        pass
    return True


def main() -> None:
    """Say the port, then serve until stdin ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, select.epoll() as ready:
        # Whoever connects speaks first: the kernel keeps it until then, and nobody waits for it here.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        print(listener.getsockname()[1], flush=True)
        ready.register(listener.fileno(), select.EPOLLIN)
        ready.register(sys.stdin.fileno(), select.EPOLLIN)
        silent: dict[int, socket.socket] = {}
        while True:
            for file, _ in ready.poll():
                if file == listener.fileno():
                    one, _ = listener.accept()
                    try:
                        if answer(one):
                            one.close()
                    except BlockingIOError:
                        silent[one.fileno()] = one
                        ready.register(one.fileno(), select.EPOLLIN)
                elif file in silent:
                    one = silent.pop(file)
                    if answer(one):
                        one.close()  # which also takes it out of what is watched
                    else:
                        ready.unregister(file)
                else:
                    return


if __name__ == "__main__":
    main()
