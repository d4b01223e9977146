"""Watching sockets of streams: what is told, what is told no more, and what a number means that was given anew."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import weakref
from collections.abc import Iterator

import pytest
import uvloop

from outlast.rooms.reach.io import ready
from outlast.rooms.reach.io.ready import Ready, watcher_of

LIMIT_S = 10


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of each kind."""
    found: asyncio.AbstractEventLoop = request.param()
    yield found
    found.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two joined sockets."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


def turns(loop: asyncio.AbstractEventLoop, count: int = 3) -> None:
    """Let the loop go round a few times."""
    for _ in range(count):
        loop.run_until_complete(asyncio.sleep(0))


def test_a_loop_has_one_watcher_and_keeps_it_no_longer_than_itself() -> None:
    loop = uvloop.new_event_loop()
    watcher = watcher_of(loop)
    assert watcher_of(loop) is watcher
    gone = weakref.ref(watcher)
    loop.close()
    del loop, watcher
    gc.collect()
    assert gone() is None


def test_without_an_epoll_the_loop_watches(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ready.select, "epoll")
    near, _far = pair
    heard: list[str] = []
    watcher = watcher_of(loop)
    watcher.add_writer(near.fileno(), heard.append, "write")
    turns(loop)
    assert set(heard) == {"write"}
    heard.clear()
    watcher.forget(near.fileno())
    turns(loop)
    assert not heard
    assert not loop.remove_writer(near.fileno())


def test_what_is_ready_is_told_until_it_is_read(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    told = asyncio.Event()
    watcher = Ready(loop)
    watcher.add_reader(near.fileno(), told.set)
    turns(loop)
    assert not told.is_set()
    far.send(b"bread")
    for _ in range(2):
        told.clear()
        loop.run_until_complete(asyncio.wait_for(told.wait(), LIMIT_S))
    assert near.recv(10) == b"bread"
    told.clear()
    turns(loop)
    assert not told.is_set()


def test_a_new_callback_takes_the_place_of_the_old_one_and_gets_its_arguments(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, _far = pair
    heard: list[str] = []
    watcher = Ready(loop)
    watcher.add_writer(near.fileno(), heard.append, "old")
    watcher.add_writer(near.fileno(), heard.append, "new")
    turns(loop)
    assert set(heard) == {"new"}


def test_reading_and_writing_come_and_go_apart(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    heard: list[str] = []
    watcher = Ready(loop)

    def told() -> set[str]:
        heard.clear()
        turns(loop)
        return set(heard)

    far.send(b"bread")
    fd = near.fileno()
    watcher.add_reader(fd, heard.append, "read")
    watcher.add_writer(fd, heard.append, "write")
    assert told() == {"read", "write"}
    assert watcher.remove_writer(fd)
    assert told() == {"read"}
    watcher.add_writer(fd, heard.append, "write")
    assert watcher.remove_reader(fd)
    assert told() == {"write"}
    assert watcher.remove_writer(fd)
    assert told() == set()
    assert not watcher.remove_writer(fd)
    assert not watcher.remove_reader(fd)


def test_what_is_left_is_told_to_nobody_and_wakes_the_loop_once(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    told: list[str] = []
    watcher = Ready(loop)
    watcher.add_reader(near.fileno(), told.append, "read")
    watcher.remove_reader(near.fileno())
    far.send(b"bread")
    turns(loop)
    assert not told
    assert not watcher._poll(0)  # the kernel says no more of it
    watcher.add_reader(near.fileno(), told.append, "read again")
    turns(loop)
    assert set(told) == {"read again"}


@pytest.mark.parametrize("forgotten", [True, False])
def test_what_is_closed_after_it_was_left_takes_nothing_from_the_one_that_has_its_number_next(
    loop: asyncio.AbstractEventLoop, forgotten: bool
) -> None:
    told: list[str] = []
    watcher = Ready(loop)
    old, written = os.pipe()
    watcher.add_reader(old, told.append, "old")
    watcher.remove_reader(old)
    if forgotten:
        watcher.forget(old)
    os.close(old)
    new, write = os.pipe()
    assert new == old  # else this shows nothing
    watcher.add_reader(new, told.append, "new")
    turns(loop)
    assert not told
    os.write(write, b"x")
    turns(loop)
    assert set(told) == {"new"}
    watcher.forget(new)
    for fd in (new, write, written):
        os.close(fd)


def test_what_is_forgotten_is_told_to_nobody_in_the_same_turn_either(loop: asyncio.AbstractEventLoop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    told: list[int] = []
    watcher = Ready(loop)

    def closes(own: int) -> None:
        told.append(own)
        for one, _ in pairs:
            watcher.forget(one.fileno())
            one.close()

    (first, _), (second, _) = pairs
    watcher.add_writer(first.fileno(), closes, 1)
    watcher.add_writer(second.fileno(), closes, 2)
    turns(loop)
    assert len(told) == 1
    for _, far in pairs:
        far.close()


def test_a_reset_behind_data_that_was_read_is_told_too(loop: asyncio.AbstractEventLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    came: list[bytes] = []
    ended = asyncio.Event()
    watcher = Ready(loop)

    def readable() -> None:
        try:
            came.append(near.recv(10))
        except ConnectionResetError:
            watcher.remove_reader(near.fileno())
            ended.set()

    with near:
        far.send(b"bread")
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        watcher.add_reader(near.fileno(), readable)
        loop.run_until_complete(asyncio.wait_for(ended.wait(), LIMIT_S))
    assert b"".join(came) in (b"", b"bread")  # Linux drops what was not read, or does not


def test_an_event_of_a_closed_file_is_not_told_to_the_one_that_has_its_number_now(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Both are ready in one turn; whoever comes first closes the other, and opens a new one under its number."""
    ones = [os.pipe() for _ in range(2)]
    watcher = Ready(loop)
    anew: list[int] = []
    told: list[int] = []

    def first(own: int, other: int) -> None:
        watcher.remove_reader(own)
        watcher.remove_reader(other)
        os.close(other)
        read, write = os.pipe()
        anew.extend((read, write))
        watcher.add_reader(read, told.append, read)

    for (read, write), (other, _) in zip(ones, reversed(ones), strict=True):
        os.write(write, b"x")
        watcher.add_reader(read, first, read, other)
    turns(loop)
    assert anew[0] in {read for read, _ in ones}  # else this shows nothing
    assert not told
    os.write(anew[1], b"x")
    turns(loop)
    assert set(told) == {anew[0]}
    watcher.remove_reader(anew[0])
    for fd in {*anew, *(fd for one in ones for fd in one)}:
        os.close(fd)


def test_one_callback_that_fails_leaves_the_others(
    loop: asyncio.AbstractEventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    wrong: list[object] = []
    told = asyncio.Event()
    loop.set_exception_handler(lambda _, context: wrong.append(context["exception"]))
    watcher = Ready(loop)

    def fails() -> None:
        watcher.remove_writer(near.fileno())
        raise ZeroDivisionError

    watcher.add_writer(near.fileno(), fails)
    watcher.add_writer(far.fileno(), told.set)
    loop.run_until_complete(asyncio.wait_for(told.wait(), LIMIT_S))
    watcher.remove_writer(far.fileno())
    assert [type(one) for one in wrong] == [ZeroDivisionError]


def test_more_than_one_turn_takes_are_all_told(loop: asyncio.AbstractEventLoop) -> None:
    watcher = Ready(loop)
    pairs = [socket.socketpair() for _ in range(ready.EVENTS_MAX + 10)]
    left = {near.fileno() for near, _ in pairs}
    done = asyncio.Event()

    def told(fd: int) -> None:
        watcher.remove_writer(fd)
        left.discard(fd)
        if not left:
            done.set()

    for near, _ in pairs:
        watcher.add_writer(near.fileno(), told, near.fileno())
    loop.run_until_complete(asyncio.wait_for(done.wait(), LIMIT_S))
    for one in pairs:
        for end in one:
            end.close()
