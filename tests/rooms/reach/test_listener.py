"""Listening sockets: who connects is taken, and a computer without files left goes on when it has some again."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from outlast.rooms.reach.io.listener import Listener


class Loop:
    """As much of an event loop as a listener needs, whose turns the test takes."""

    def __init__(self) -> None:
        self.readers: dict[socket.socket, Callable[[], None]] = {}
        self.later: list[Callable[[], None]] = []

    def add_reader(self, sock: socket.socket, act: Callable[[], None]) -> None:
        self.readers[sock] = act

    def remove_reader(self, sock: socket.socket) -> None:
        self.readers.pop(sock, None)

    def call_later(self, _delay_s: float, act: Callable[[], None]) -> None:
        self.later.append(act)

    def turn(self) -> None:
        for act in list(self.readers.values()):
            act()


class Port(socket.socket):
    """A listening socket on a computer that may have no files left."""

    wrong: OSError | None = None

    def accept(self) -> Any:
        if self.wrong is not None:
            raise self.wrong
        return super().accept()


@pytest.fixture
def port() -> Iterator[Port]:
    with Port() as port:
        port.bind(("127.0.0.1", 0))
        port.listen()
        port.setblocking(False)
        yield port


def test_all_who_came_are_taken_with_their_addresses_and_none_after_the_close(port: Port) -> None:
    loop, took = Loop(), list[tuple[socket.socket, Any]]()
    listener = Listener(loop, port, lambda one, address: took.append((one, address)))  # type: ignore[arg-type]
    callers = [socket.create_connection(port.getsockname()) for _ in range(3)]
    loop.turn()
    assert [address for _, address in took] == [caller.getsockname() for caller in callers]
    assert not any(one.getblocking() for one, _ in took)
    listener.close()
    listener.close()
    assert listener.closed
    assert not loop.readers
    for one in (*callers, *(one for one, _ in took)):
        one.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_room_for_one_more_it_rests_and_then_takes_who_waited(port: Port, code: int) -> None:
    loop, took = Loop(), list[socket.socket]()
    listener = Listener(loop, port, lambda one, _: took.append(one))  # type: ignore[arg-type]
    with socket.create_connection(port.getsockname()):
        port.wrong = OSError(code, "no more")
        loop.turn()
        assert not loop.readers, "else it would be asked again at once, and all else would wait"
        port.wrong = None
        (go_on,) = loop.later
        go_on()
        loop.turn()
        (one,) = took
        one.close()
    listener.close()


def test_what_is_closed_while_it_rests_stays_closed(port: Port) -> None:
    loop = Loop()
    listener = Listener(loop, port, lambda _one, _: None)  # type: ignore[arg-type]
    port.wrong = OSError(errno.EMFILE, "no more")
    loop.turn()
    listener.close()
    (go_on,) = loop.later
    go_on()
    assert not loop.readers


def test_one_that_is_gone_again_does_not_keep_the_next_one_out(port: Port) -> None:
    loop, took = Loop(), list[socket.socket]()

    class Gone(Port):
        def accept(self) -> Any:
            first, self.wrong = self.wrong, None
            if first is not None:
                raise first
            return super().accept()

    with Gone(fileno=port.detach()) as gone, socket.create_connection(gone.getsockname()):
        gone.wrong = ConnectionAbortedError(errno.ECONNABORTED, "gone")
        listener = Listener(loop, gone, lambda one, _: took.append(one))  # type: ignore[arg-type]
        loop.turn()
        (one,) = took
        one.close()
        listener.close()
