"""An exit tries addresses side by side, gives up in time, and its end waits for no resolver."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest

from outlast.rooms.reach.io import exit as exits
from outlast.rooms.reach.io.carrier import Refusal
from outlast.rooms.reach.io.exit import ECHO, ECHO_MAX_BYTES, SYNC, Exit
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private
from tests.rooms.reach.gates import Place, place, serving, until_end


class Book:
    """Knows the addresses of names without a resolver."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self._addresses = addresses

    def look_up(self, host: str, found: Callable[[Sequence[str]], None]) -> None:
        """Say at once what stands here."""
        found(self._addresses.get(host, ()))

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


def opened(here: Place, exit_: Exit, target: Target) -> socket.socket | Refusal:
    """What comes of an opening: a socket that waits, or why not."""
    came: list[socket.socket | Refusal] = []
    done = threading.Event()

    def take(what: socket.socket | Refusal) -> None:
        came.append(what)
        done.set()

    here.do(lambda: exit_.open(target, take, take))
    assert done.wait(20)
    if isinstance(came[0], socket.socket):
        came[0].settimeout(20)
    return came[0]


@contextmanager
def silent(host: str) -> Iterator[int]:
    """A port where connections are neither taken nor refused: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, 0), backlog=0))
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_target_that_never_answers_is_given_up_in_time(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "CONNECT_S", 0.2)
    monkeypatch.setattr(exits, "SWEEP_S", 0.1)
    with silent("127.0.0.1") as port:
        exit_ = here.do(lambda: Exit(here.loop, allowing_private()))
        assert opened(here, exit_, Target("127.0.0.1", port)) is Refusal.TIMED_OUT


def test_a_silent_address_of_a_name_does_not_keep_its_others_waiting(here: Place) -> None:
    with silent("127.0.0.9") as port, socket.create_server(("127.0.0.1", port)) as live:
        book = Book(site=("127.0.0.9", "127.0.0.1"))
        exit_ = here.do(lambda: Exit(here.loop, allowing_private(), names=book))
        one = opened(here, exit_, Target("site", port))
        assert isinstance(one, socket.socket)
        assert one.getpeername() == live.getsockname()
        one.close()


def test_of_a_name_only_the_addresses_that_the_policy_takes_are_tried(here: Place) -> None:
    with serving(lambda one: None, host="127.0.0.1") as inside:
        book = Book(rebinding=("127.0.0.1", "127.0.0.2"), both=("127.0.0.1", "127.0.0.3"))
        exit_ = here.do(lambda: Exit(here.loop, Policy(allowed=("127.0.0.3/32",)), names=book))
        assert opened(here, exit_, Target("rebinding", inside.port)) is Refusal.NOT_ALLOWED
        assert opened(here, exit_, Target("both", inside.port)) is Refusal.REFUSED
        assert opened(here, exit_, Target("none", inside.port)) is Refusal.HOST_UNREACHABLE
        assert opened(here, exit_, Target("127.0.0.3", 25)) is Refusal.NOT_ALLOWED


def test_the_echo_gives_back_what_it_is_sent_up_to_its_bound(here: Place) -> None:
    exit_ = here.do(lambda: Exit(here.loop, Policy()))
    one = opened(here, exit_, ECHO)
    assert isinstance(one, socket.socket)
    data = os.urandom(ECHO_MAX_BYTES + 1000)

    def send() -> None:
        with suppress(OSError):  # what is over the bound meets a closed end
            one.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    back = b""
    with one:
        while len(back) < ECHO_MAX_BYTES:
            back += one.recv(65_536)
        assert back == data[:ECHO_MAX_BYTES]
        with pytest.raises(OSError, match=r"reset|Broken"):
            one.sendall(bytes(1 << 20))
    sender.join(10)


def test_sync_leads_to_the_own_listener_alone(here: Place) -> None:
    with serving(lambda one: one.sendall(b"sync")) as at:
        led = here.do(lambda: Exit(here.loop, Policy(), at))
        one = opened(here, led, SYNC)
        assert isinstance(one, socket.socket)
        assert until_end(one) == b"sync"
        one.close()
        assert opened(here, led, at) is Refusal.NOT_ALLOWED
    not_led = here.do(lambda: Exit(here.loop, Policy()))
    assert opened(here, not_led, SYNC) is Refusal.NOT_ALLOWED


def test_an_address_that_names_an_interface_is_none_and_nothing_is_told_of_it(
    here: Place, caplog: pytest.LogCaptureFixture
) -> None:
    exit_ = here.do(lambda: Exit(here.loop, Policy(), names=Book()))
    target = Target("2606:4700:4700::1111%nowhere", 443)
    assert opened(here, exit_, target) is Refusal.HOST_UNREACHABLE
    assert not caplog.records


def test_the_end_of_the_process_waits_for_no_resolver() -> None:
    code = """
import asyncio, time
from outlast.rooms.reach.io import exit as exits, names
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.exit_policy import Policy
asked = []
def slow(host):
    asked.append(host)
    time.sleep(60)
names._addresses = slow
async def main():
    exit_ = exits.Exit(asyncio.get_running_loop(), Policy())
    exit_.open(Target("site.example", 80), print, print)
    while not asked:
        await asyncio.sleep(0.01)
    exit_.close()
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
