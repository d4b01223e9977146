"""The relay's gate goes through whichever bridge works, and changes to another when that one ends."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest

from outlast.address import Target
from outlast.rooms.reach.io import attempt, choosing
from outlast.rooms.reach.io import relay as relay_
from outlast.rooms.reach.io.carrier import Carrier, Refusal
from outlast.rooms.reach.io.choosing import Attempted, Remembered
from outlast.rooms.reach.io.direct import Dialled
from outlast.rooms.reach.io.outer import Outer
from outlast.rooms.reach.io.relay import Config, Event, Listening, Profile, Relay, Using
from outlast.rooms.reach.io.tunnel import WAYS_MAX, Tunnel
from outlast.rooms.reach.proto.bridge import Bridge, ProxyBridge
from outlast.rooms.reach.proto.chooser import STRIKES, Worked
from outlast.rooms.reach.proto.links import bridge_id
from outlast.rooms.reach.proto.rules import Rules
from tests.rooms.reach.gates import ANY, Place, datagram_through, dialled, place, serving, through, until_end

LOOPBACK = "127.0.0.1"


class Running:
    """A relay, in a place, and what it told."""

    def __init__(self, here: Place, config: Config) -> None:
        self._here = here
        self.told: list[Event] = []
        self._news = threading.Condition()
        self._relay = here.do(lambda: Relay(self._hear))
        self._config = config
        self.change()

    def change(self, **others: object) -> None:
        """Tell it something new."""
        self._config = msgspec.structs.replace(self._config, **others)
        asyncio.run_coroutine_threadsafe(self._relay.start(self._config), self._here.loop).result(20)

    def _hear(self, event: Event) -> None:
        with self._news:
            self.told.append(event)
            self._news.notify_all()

    def until(self, event: Event) -> None:
        """Wait until it is the last of its kind that was told."""
        with self._news:
            assert self._news.wait_for(
                lambda: [one for one in self.told if type(one) is type(event)][-1:] == [event], 20
            ), self.told

    def until_count(self, is_one: Callable[[Event], bool], count: int) -> None:
        """Wait until so many of these were told."""
        with self._news:
            assert self._news.wait_for(lambda: sum(map(is_one, self.told)) >= count, 20), self.told

    @property
    def gate(self) -> Target:
        """Where the gate listens."""
        return next(
            Target(LOOPBACK, int(event.at.rpartition(":")[2])) for event in self.told if isinstance(event, Listening)
        )

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._relay.close(), self._here.loop).result(20)


@contextmanager
def relaying(here: Place, *bridges: Bridge, **others: object) -> Iterator[Running]:
    chosen: dict[str, object] = {"profiles": (Profile(ANY),), "bridges": bridges, **others}
    made = Running(here, Config(**chosen))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


@contextmanager
def using(here: Place, first: Bridge, second: Bridge, **others: object) -> Iterator[Running]:
    """A relay that takes the first of two bridges, however fast the second one is."""
    with relaying(here, first, **others) as relay:
        relay.until(Using(bridge_id(first)))
        relay.change(bridges=(first, second))
        yield relay


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def site() -> Iterator[Target]:
    def greet(one: socket.socket) -> None:
        one.sendall(b"welcome")

    with serving(greet) as at:
        yield at


def dead() -> ProxyBridge:
    with socket.create_server((LOOPBACK, 0)) as closed:
        return ProxyBridge(Target(LOOPBACK, closed.getsockname()[1]), "socks5")


def test_the_gate_goes_through_the_bridge_that_works(here: Place, site: Target) -> None:
    works, off = ProxyBridge(here.gate().at, "socks5"), dead()
    with relaying(here, off, works, network="home") as relay:
        relay.until(Using(bridge_id(works)))
        with through(relay.gate, site) as stream:
            assert until_end(stream) == b"welcome"
        failed = [event for event in relay.told if isinstance(event, Attempted) and not event.ok]
        assert [(event.bridge, event.failure) for event in failed] == [(bridge_id(off), "refused")]
        (kept,) = [event for event in relay.told if isinstance(event, Remembered)]
        assert (kept.network, [one.id for one in kept.worked]) == ("home", [bridge_id(works)])


def test_a_stream_waits_while_there_is_no_way_and_goes_when_there_is_one(here: Place, site: Target) -> None:
    with place() as before:
        port = before.gate().at.port
    works = ProxyBridge(Target(LOOPBACK, port), "socks5")
    with relaying(here, works) as relay, socket.create_connection(relay.gate) as stream:
        stream.sendall(b"\x05\x01\x00")
        assert stream.recv(2) == b"\x05\x00"
        stream.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(site.host) + site.port.to_bytes(2, "big"))
        here.gate(at=Target(LOOPBACK, port))
        relay.until(Using(bridge_id(works)))
        assert until_end(stream) == b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00welcome"


def test_when_the_bridge_in_use_ends_another_one_takes_over(here: Place, site: Target) -> None:
    there = Place()
    first, second = ProxyBridge(there.gate().at, "socks5"), ProxyBridge(here.gate().at, "socks5")
    with using(here, first, second) as relay:
        there.close()
        for _ in range(STRIKES):
            with pytest.raises(ConnectionError):
                through(relay.gate, site)
        relay.until(Using(bridge_id(second)))
        with through(relay.gate, site) as stream:
            assert until_end(stream) == b"welcome"


def test_what_works_is_remembered_by_the_day_on_which_it_did_however_long_the_relay_has_run(
    here: Place, site: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Place()
    first, second = ProxyBridge(there.gate().at, "socks5"), ProxyBridge(here.gate().at, "socks5")
    with using(here, first, second, network="home") as relay:
        today = choosing._today() + 20
        monkeypatch.setattr(choosing, "_today", lambda: today)
        there.close()
        for _ in range(STRIKES):
            with pytest.raises(ConnectionError):
                through(relay.gate, site)
        relay.until(Using(bridge_id(second)))
        relay.until(Remembered("home", (Worked(bridge_id(second), today),)))


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is looked at soon."""
    monkeypatch.setattr(choosing, "LOOK_S", 0.1)
    monkeypatch.setattr(choosing, "SILENT_S", 0.2)


def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer soon brings nothing: for bridges that were taken already, as a busy machine is slow too."""
    monkeypatch.setattr(attempt, "LEADS_S", 0.5)
    monkeypatch.setattr(attempt, "SILENCE_S", 0.3)


def page(one: socket.socket) -> None:
    """What a site answers that is asked whether a bridge leads anywhere."""
    one.recv(1000)
    one.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    asked.set()


asked = threading.Event()


def test_a_site_that_is_gone_changes_no_bridge(here: Place, site: Target) -> None:
    with serving(lambda one: None) as gone:
        pass
    asked.clear()
    first, second = ProxyBridge(here.gate().at, "socks5"), ProxyBridge(here.gate().at, "socks5")
    with (
        serving(page) as answers,
        using(here, first, second, test_url=f"http://{LOOPBACK}:{answers.port}/") as relay,
    ):
        for _ in range(3 * STRIKES):
            with pytest.raises(ConnectionError, match="5"):
                through(relay.gate, gone)
        assert asked.wait(20)
        with through(relay.gate, site) as stream:
            assert until_end(stream) == b"welcome"
        assert {event.bridge for event in relay.told if isinstance(event, Using)} == {bridge_id(first)}


def test_a_slow_site_changes_no_bridge(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)

    def slow(one: socket.socket) -> None:
        one.recv(100)
        assert asked.wait(20)
        one.sendall(b"at last")

    asked.clear()
    first, second = ProxyBridge(here.gate().at, "socks5"), ProxyBridge(here.gate().at, "socks5")
    with (
        serving(page) as answers,
        serving(slow) as at,
        using(here, first, second, test_url=f"http://{LOOPBACK}:{answers.port}/") as relay,
    ):
        with through(relay.gate, at) as stream:
            stream.sendall(b"?")
            assert until_end(stream) == b"at last"
        assert {event.bridge for event in relay.told if isinstance(event, Using)} == {bridge_id(first)}


def test_a_bridge_that_opens_streams_and_brings_nothing_is_left_and_has_its_class(
    here: Place, site: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    proxy = here.gate().at
    filtering = threading.Event()

    def opening(near: socket.socket) -> None:
        if not filtering.is_set():
            with dialled(proxy) as far:
                back = threading.Thread(target=copy, args=(far, near), daemon=True)
                back.start()
                copy(near, far)
                back.join()
            return
        near.recv(100)
        near.sendall(b"\x05\x00")
        near.recv(300)
        near.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        while near.recv(1000):
            pass

    with serving(opening) as at:
        first, second = ProxyBridge(at, "socks5"), ProxyBridge(here.gate().at, "socks5")
        with using(here, first, second) as relay:
            strict(monkeypatch)
            filtering.set()
            with through(relay.gate, site) as stream:
                stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
                relay.until(Using(bridge_id(second)))
            failed = [one for one in relay.told if isinstance(one, Attempted) and one.bridge == bridge_id(first)]
            assert [one.failure for one in failed] == [None, "freeze@0"]


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass all on, and the end."""
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_all_bridges_are_tried_when_somebody_wants_to_know(here: Place) -> None:
    works, off = ProxyBridge(here.gate().at, "socks5"), dead()
    with relaying(here, off, works) as relay:
        relay.until(Using(bridge_id(works)))
        relay.change(tests=1)
        relay.until_count(lambda one: isinstance(one, Attempted) and one.bridge == bridge_id(off), 2)
        relay.until(Using(bridge_id(works)))


def test_what_may_go_directly_does_so_in_datagrams_too(here: Place) -> None:
    rules = Rules(suffixes=("localhost",), networks=("127.0.0.0/8",))
    with relaying(here, profiles=(Profile(ANY, rules=rules),)) as relay:
        assert datagram_through(relay.gate) == b"pong"


def test_a_bridge_that_stays_silent_is_found_out_while_streams_are_opened(
    here: Place, site: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    proxy = here.gate().at
    filtering = threading.Event()

    def censored(near: socket.socket) -> None:
        with dialled(proxy) as far:
            back = threading.Thread(target=pass_on, args=(far, near), daemon=True)
            back.start()
            pass_on(near, far)
            back.join()

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not filtering.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with serving(censored) as at:
        first, second = ProxyBridge(at, "socks5"), ProxyBridge(here.gate().at, "socks5")
        with using(here, first, second) as relay:
            strict(monkeypatch)
            filtering.set()
            with dialled(relay.gate) as stream:
                stream.sendall(b"\x05\x01\x00\x05\x01\x00\x01" + socket.inet_aton(site.host) + bytes(2))
                relay.until(Using(bridge_id(second)))
            with through(relay.gate, site) as stream:
                assert until_end(stream) == b"welcome"


def test_who_hung_up_while_it_waited_keeps_nobody_from_waiting(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_, "WAITING_MAX", 2)

    def waiting(gate: Target) -> socket.socket:
        stream = dialled(gate)
        stream.sendall(b"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x07")
        assert stream.recv(2) == b"\x05\x00"
        return stream

    with relaying(here, dead()) as relay:
        for _ in range(6):
            waiting(relay.gate).close()
        with waiting(relay.gate) as first, waiting(relay.gate) as second, waiting(relay.gate) as third:
            assert third.recv(2) == b"\x05\x01"
            for one in (first, second):
                one.settimeout(0)
                with pytest.raises(BlockingIOError):
                    one.recv(1)


def test_a_test_that_is_over_before_its_stream_is_there_breaks_no_carrier(here: Place) -> None:
    opening: list[Callable[[socket.socket], None]] = []

    def dial(target: Target, opened: Callable[[socket.socket], None], failed: object) -> Callable[[], None]:
        opening.append(opened)
        return lambda: None

    def story() -> None:
        carrier = Dialled(here.loop, dial)
        stream = attempt._Stream(attempt.ECHO, asyncio.Event())
        carrier.carry(stream)
        stream.close()
        opening[0](far)
        carrier.close()

    far, end = socket.socketpair()
    far.setblocking(False)
    with end:
        here.do(story)
        assert end.recv(1) == b""


def test_programs_ask_again_for_a_way_for_datagrams_when_the_bridge_is_another_one(here: Place) -> None:
    there = Place()
    first, second = ProxyBridge(there.gate().at, "socks5"), ProxyBridge(here.gate().at, "socks5")
    with using(here, first, second) as relay:
        with dialled(relay.gate) as control:
            control.sendall(b"\x05\x01\x00")
            assert control.recv(2) == b"\x05\x00"
            control.sendall(b"\x05\x03\x00\x01" + bytes(6))
            assert control.recv(10)[:2] == b"\x05\x00"
            there.close()
            for _ in range(STRIKES):
                with pytest.raises(ConnectionError):
                    through(relay.gate, Target("192.0.2.1", 7))
            relay.until(Using(bridge_id(second)))
            assert control.recv(1) == b""
        assert datagram_through(relay.gate) == b"pong"


def test_a_machine_without_room_can_try_no_bridge_and_says_so() -> None:
    async def full(bridge: Bridge, tell: object, hop_bytes: int = 0, /) -> Carrier:
        raise OSError(errno.ENOSPC, "No space left on device")

    tried = asyncio.run(attempt.attempt(dead(), full))
    assert tried.failure is not None
    assert str(tried.failure.evidence) == "it could not be tried here (No space left on device)"


def test_more_programs_at_once_than_a_bridge_keeps_apart_say_nothing_about_the_bridge() -> None:
    class Asks:
        target, gone = Target("192.0.2.1", 7), False

        def __init__(self, isolation: bytes) -> None:
            self.isolation = isolation

        def take(self) -> tuple[socket.socket, bytes]:
            raise AssertionError("nothing is opened here")

        def refuse(self, refusal: Refusal) -> None:
            refused.append(refusal)

    async def story() -> None:
        async def never() -> Outer:
            await asyncio.Event().wait()
            raise AssertionError

        tunnel = Tunnel(never, bytes(32))
        for number in range(WAYS_MAX + 3):
            tunnel.carry(Asks(bytes((number,))))
        assert len(refused) == 3
        assert Refusal.LOST not in refused
        tunnel.close()
        assert len(refused) == WAYS_MAX + 3

    refused: list[Refusal] = []
    asyncio.run(story())
