"""Takes the connections of a listening socket, a few at a time, and none for a while when there is no room for one."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

ACCEPTS_AT_ONCE: Final = 64
PAUSE_S: Final = 1.0


class Listener:
    """Takes connections from now on until ``close``."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, took: Callable[[socket.socket, Any], None]
    ) -> None:
        """``took`` gets each connection, non-blocking, with its address; the socket becomes the listener's own."""
        self._loop = loop
        self._sock = sock
        self._took = took
        self._listen()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._sock.fileno() < 0

    def close(self) -> None:
        """Take no more. Closing twice is harmless."""
        if not self.closed:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _listen(self) -> None:
        if not self.closed:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                one, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # The socket stays readable: without a pause this would be all that is done.
                    self._loop.remove_reader(self._sock)
                    self._loop.call_later(PAUSE_S, self._listen)
                    return
                continue  # that one is gone again
            one.setblocking(False)
            self._took(one, address)
