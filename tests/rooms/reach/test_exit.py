"""An exit tries addresses side by side, gives up in time, and its end waits for no resolver."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Queue

import ifaddr
import pytest

from outlast.address import Target
from outlast.rooms.reach.io import exit as exits
from outlast.rooms.reach.io import names
from outlast.rooms.reach.io.carrier import Refusal
from outlast.rooms.reach.io.exit import ECHO, ECHO_MAX_BYTES, SYNC, Exit
from outlast.rooms.reach.io.gate import listen
from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private
from tests.rooms.reach.gates import Place, place, serving, until_end


class Book:
    """Knows the addresses of names without a resolver."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self._addresses = addresses

    def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
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


def test_neither_end_of_a_stream_keeps_small_writes_back(here: Place) -> None:
    with listen(Target("127.0.0.1", 0)) as gate:
        exit_ = here.do(lambda: Exit(here.loop, allowing_private()))
        far = opened(here, exit_, Target(*gate.getsockname()))
        assert isinstance(far, socket.socket)
        near, _ = gate.accept()
        with far, near:
            assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in (far, near))


def test_what_is_refused_at_once_is_told_after_the_opening_has_returned(here: Place) -> None:
    book = Book(inside=("127.0.0.1",), two=("127.0.0.1", "127.0.0.2"))
    targets = [Target("127.0.0.1", 80), Target("inside", 80), Target("two", 80), Target("none", 80), SYNC]
    exit_ = here.do(lambda: Exit(here.loop, Policy(), names=book))
    told: list[Refusal] = []

    def open_all() -> int:
        for target in targets:
            exit_.open(target, lambda one: one.close(), told.append)
        return len(told)

    assert here.do(open_all) == 0
    assert opened(here, exit_, SYNC) is Refusal.NOT_ALLOWED  # the others were told before
    assert told == [Refusal.NOT_ALLOWED] * 3 + [Refusal.HOST_UNREACHABLE, Refusal.NOT_ALLOWED]


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


class Slow:
    """A resolver whose names hang while they are meant to, and which says which ones it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()
        monkeypatch.setattr(names, "_addresses", self.answer)

    def answer(self, host: str) -> tuple[str, ...]:
        """Say where every host is."""
        self.asked.append(host)
        if host.startswith("hang"):
            self.free.wait(20)
        return ("127.0.0.1",)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    resolver = Slow(monkeypatch)
    yield resolver
    resolver.free.set()


Found = Queue[tuple[str, Sequence[str]]]


def ask(here: Place, known: names.Names, found: Found, hosts: Iterable[str], whose: bytes | None) -> None:
    here.do(lambda: [known.look_up(host, partial(_put, found, host), whose) for host in hosts])


def _put(found: Found, host: str, addresses: Sequence[str]) -> None:
    found.put((host, addresses))


def test_one_user_s_names_that_hang_keep_no_other_s_waiting(here: Place, slow: Slow) -> None:
    known = here.do(lambda: names.Names(here.loop))
    hanging, found = Found(), Found()
    ask(here, known, hanging, [f"hang{one}" for one in range(100)] + ["site"], b"one")
    ask(here, known, hanging, [f"hang too{one}" for one in range(100)], b"two")
    for host in ("site", "other"):  # also a name that waits in somebody else's queue
        ask(here, known, found, [host], b"three")
        assert found.get(timeout=5) == (host, ("127.0.0.1",))
    assert hanging.get(timeout=5) == ("site", ("127.0.0.1",))
    assert len(slow.asked) <= names.LOOKUPS_AT_ONCE
    slow.free.set()
    assert {hanging.get(timeout=5)[0] for _ in range(200)} >= {"hang99", "hang too99"}
    here.do(known.close)


def test_users_who_let_names_hang_together_keep_no_other_waiting(here: Place, slow: Slow) -> None:
    known = here.do(lambda: names.Names(here.loop))
    hanging, found = Found(), Found()
    for user in range(20):
        ask(here, known, hanging, [f"hang{user} {one}" for one in range(40)], b"%d" % user)
    ask(here, known, found, ["site"], b"other")
    assert found.get(timeout=5) == ("site", ("127.0.0.1",))
    assert names.LOOKUPS_AT_ONCE < len(slow.asked) < names.LOOKUPS_AT_ONCE + 20
    slow.free.set()
    assert {hanging.get(timeout=5)[0] for _ in range(800)} >= {"hang0 39", "hang19 39"}
    here.do(known.close)


@pytest.mark.parametrize(
    ("settings", "given", "told"),
    [
        ("nameserver 192.0.2.1\n", {}, names.RESOLVER),
        ("nameserver 192.0.2.1\n", {"RES_OPTIONS": "timeout:9"}, "timeout:9"),
        ("options timeout:7 attempts:1\n", {}, None),
    ],
)
def test_the_resolver_has_a_limit_where_the_machine_sets_none(
    settings: str, given: dict[str, str], told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(names, "_SETTINGS", tmp_path / "resolv.conf")
    names._SETTINGS.write_text(settings)
    names.end_in_time()
    assert given.get("RES_OPTIONS") == told


def test_a_lookup_ends_soon_when_no_server_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf, tempfile.NamedTemporaryFile("w") as settings:
        deaf.bind(("127.0.0.77", 53))
        settings.write("nameserver 127.0.0.77\n")
        settings.flush()
        code = (
            "import asyncio, time; from outlast.rooms.reach.io import names, relay; began = time.monotonic();"
            "relay.run(asyncio.sleep(0)); assert not names._addresses('a.example'); print(time.monotonic() - began)"
        )
        lay = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", lay, "sh", settings.name, sys.executable, "-c", code]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60)
    assert 2 < float(done.stdout) < names.LOOKUP_S / 2, done


def test_a_name_that_hangs_is_none_in_time_and_what_waits_behind_it_is_forgotten(
    here: Place, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "LOOKUP_S", 0.2)
    monkeypatch.setattr(names, "SWEEP_S", 0.05)
    monkeypatch.setattr(names, "LOOKUPS_AT_ONCE", 4)
    known = here.do(lambda: names.Names(here.loop))
    found = Found()
    ask(here, known, found, [f"hang{one}" for one in range(10)], b"one")
    assert [found.get(timeout=5) for _ in range(10)] == [(f"hang{one}", ()) for one in range(10)]
    assert len(slow.asked) == 2
    slow.free.set()
    ask(here, known, found, ["site"], b"one")
    assert found.get(timeout=5) == ("site", ("127.0.0.1",))
    assert "hang9" not in slow.asked
    assert not known._asked
    assert not known._queues
    here.do(known.close)


def test_one_user_s_questions_are_bounded_and_leave_room_for_others(
    here: Place, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "ASKERS_MAX", 20)
    known = here.do(lambda: names.Names(here.loop))
    hanging, found = Found(), Found()
    ask(here, known, hanging, ["hang"] * 30, b"one")
    assert [hanging.get(timeout=5) for _ in range(20)] == [("hang", ())] * 20
    ask(here, known, found, ["site"], b"two")
    assert found.get(timeout=5) == ("site", ("127.0.0.1",))
    here.do(known.close)


def test_datagrams_that_wait_for_a_name_are_bounded(here: Place) -> None:
    class Waiting(Book):
        def look_up(self, host: str, found: Callable[[Sequence[str]], None], whose: bytes | None = None) -> None:
            asked.append(found)

    asked: list[Callable[[Sequence[str]], None]] = []
    exit_ = here.do(lambda: Exit(here.loop, allowing_private(), names=Waiting()))
    way = here.do(lambda: exit_.datagrams(lambda source, data: None))
    assert way is not None
    for size, count in ((30_000, 2), (0, exits.WAITING_MAX_BYTES // 512)):
        asked.clear()
        here.do(lambda size=size: [way.send(Target("site", 9), bytes(size)) for _ in range(1000)])  # type: ignore[misc]
        assert len(asked) == count
        here.do(lambda: [found(()) for found in asked])
    here.do(way.close)


def test_the_end_of_the_process_waits_for_no_resolver() -> None:
    code = """
import asyncio, time
from outlast.rooms.reach.io import exit as exits, names
from outlast.address import Target
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


def test_a_printer_with_a_public_address_in_the_own_network_is_not_led_to(monkeypatch: pytest.MonkeyPatch) -> None:
    home = [
        ifaddr.IP("192.168.1.7", 24, "lan"),
        ifaddr.IP(("2606:4700:1:2::7", 0, 2), 64, "lan"),
        ifaddr.IP(("2606:4700:5::7", 0, 2), 0, "tunnel"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [ifaddr.Adapter("lan", "lan", home)])

    async def story() -> None:
        exit_ = Exit(asyncio.get_running_loop(), Policy())
        assert exit_.refuses("2606:4700:1:2::9")
        assert exit_.refuses("2606:4700:5::7")
        assert not exit_.refuses("2606:4700:5::8"), "all of IPv6 is no link"
        assert not exit_.refuses("2606:4700:1:3::9")
        exit_.close()

    asyncio.run(story())
