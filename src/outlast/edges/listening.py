"""Listening sockets, and how many connections they have at a time: a process may have so many files and no more.

A connection takes a place from its first packet on, whether anything is asked by it or not, and before an encrypted one
has shaken hands.
"""

import errno
import socket
from typing import Any, Final
from weakref import WeakKeyDictionary

from outlast import descriptors
from outlast.edges.doors import host_of
from outlast.errors import StorageError, port_taken

FILES: Final = 2560
"""That a node has open at most; half of them are phones' connections."""


class Places:
    """How many connections some listeners have together.

    While half of the places are free, whoever comes gets one. Then an address that has its share gets no more, so that
    nobody takes the places of all others.
    """

    def __init__(self, most: int, share: int) -> None:
        """All ``most`` are free."""
        self.most = most
        self.share = share
        self._lines: WeakKeyDictionary[socket.socket, str] = WeakKeyDictionary()

    @classmethod
    def for_phones(cls) -> "Places":
        """Each phone keeps a stream and up to two connections open; a browser has at most six to one host.

        Two hundred phones may come from one address, where a router stands between.
        """
        return cls(descriptors.allow(FILES) // 2, 16)

    @classmethod
    def for_host(cls) -> "Places":
        """Whoever sits at the computer comes from one address; a browser has at most 256 connections in all."""
        return cls(320, 320)

    def take(self, line: socket.socket, host: str) -> bool:
        """Whether there is a place for a connection from ``host``, which then has it until it is closed."""
        hosts = [of for one, of in self._lines.items() if one.fileno() != -1]
        if len(hosts) >= self.most or (2 * len(hosts) >= self.most and hosts.count(host) >= self.share):
            return False
        self._lines[line] = host
        return True


class Listener(socket.socket):
    """A listening socket that hangs up on whom there is no place for; but on Windows, where asyncio does not ask it."""

    places: Places

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; raises ConnectionAbortedError, which asyncio passes over, when there is no place."""
        line, peer = super().accept()
        if not self.places.take(line, peer[0]):
            line.close()
            raise ConnectionAbortedError
        return line, peer


def bind(address: str, port: int, places: Places) -> socket.socket:
    """A TCP socket bound to an address of this machine; raises StorageError when the port is taken or not allowed."""
    # asyncio switches Nagle's algorithm off (40 ms a page) only where the protocol is named.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.places = places
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        # Two sockets can be bound to one port; only one can listen.
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken(f"{host_of(address)}:{port}") from None
        raise StorageError(
            "cannot listen on %(host)s:%(port)s: %(error)s; choose another port with --port",
            host=host_of(address),
            port=port,
            error=error,
        ) from None
    listener.setblocking(False)
    return listener
