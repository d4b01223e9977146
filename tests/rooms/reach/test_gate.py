"""The gate as curl, Chromium's kin and hostile programs meet it."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import subprocess
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Queue

import pytest

from outlast.address import Target, encode
from outlast.errors import StorageError, UsageError
from outlast.rooms.reach.io import exit as exits
from outlast.rooms.reach.io import gate as gates
from outlast.rooms.reach.io.carrier import Client
from outlast.rooms.reach.io.direct import Dialled, direct
from outlast.rooms.reach.io.exit import Exit
from outlast.rooms.reach.io.gate import Gate
from outlast.rooms.reach.io.upstream import upstream
from outlast.rooms.reach.proto.bridge import ProxyBridge
from outlast.rooms.reach.proto.exit_policy import Policy, allowing_private
from outlast.rooms.reach.proto.request import Credentials
from outlast.rooms.reach.proto.socks import reply
from outlast.socks import NOWHERE, unwrap_datagram, wrap_datagram
from tests.rooms.reach.gates import Place, associated, curl, dialled, exactly, place, serving, through, until_end

US = Credentials(b"alice", b"correct horse")
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture(scope="module")
def open_gate(here: Place) -> Gate:
    return here.gate()


@pytest.fixture(scope="module")
def site() -> Iterator[Target]:
    def page(one: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := one.recv(65_536)):
                return
            head += more
        one.sendall(PAGE)

    with serving(page) as at:
        yield at


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    def back(one: socket.socket) -> None:
        while data := one.recv(65_536):
            one.sendall(data)
        one.sendall(b"end")

    with serving(back) as at:
        yield at


@pytest.mark.parametrize(
    "by",
    [
        ["--socks5-hostname", "{}"],
        ["--socks5", "{}"],
        ["--socks4", "{}"],
        ["--socks4a", "{}"],
        ["--proxy", "http://{}"],
        ["--proxytunnel", "--proxy", "http://{}"],
        ["--proxy-user", "any:body", "--proxy", "socks5h://{}"],
    ],
)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_curl_gets_its_page_by_every_protocol(by: list[str], host: str, open_gate: Gate, site: Target) -> None:
    at = f"127.0.0.1:{open_gate.at.port}"
    done = curl(*(one.format(at) for one in by), f"http://{host}:{site.port}/page")
    assert (done.returncode, done.stdout) == (0, b"yes"), done.stderr


def test_ipv6_is_reached(here: Place, open_gate: Gate) -> None:
    with serving(lambda one: one.sendall(b"six"), host="::1") as at, through(open_gate, at) as one:
        assert until_end(one) == b"six"


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize("credentials", [None, US])
def test_a_proxy_is_a_way_out(
    scheme: str, credentials: Credentials | None, here: Place, site: Target, echo: Target
) -> None:
    proxy = here.gate(credentials=credentials)
    user, password = (credentials.user.decode(), credentials.password.decode()) if credentials else ("", "")
    bridge = ProxyBridge(proxy.at, scheme, user, password)
    front = here.gate(here.do(lambda: upstream(here.loop, bridge)))
    done = curl("--socks5-hostname", f"127.0.0.1:{front.at.port}", f"http://localhost:{site.port}/")
    assert (done.returncode, done.stdout) == (0, b"yes"), done.stderr
    with serving(lambda one: one.sendall(b"banner at once")) as at, through(front, at) as one:
        assert until_end(one) == b"banner at once"
    with serving(lambda one: None) as at:
        gone = at
    with pytest.raises(ConnectionError):
        through(front, gone)


def test_wrong_credentials_of_a_proxy_are_told_as_not_allowed(here: Place, site: Target) -> None:
    proxy = here.gate(credentials=US)
    for scheme in ("socks5", "http"):
        bridge = ProxyBridge(proxy.at, scheme, "alice", "wrong")
        front = here.gate(here.do(lambda: upstream(here.loop, bridge)))  # noqa: B023
        with pytest.raises(ConnectionError, match="2"):
            through(front, site)


def test_a_stream_is_byte_exact_both_ways_through_tiny_buffers_and_keeps_its_half_close(
    open_gate: Gate, echo: Target
) -> None:
    data = os.urandom(100_000)
    with through(open_gate, echo) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def send() -> None:
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = until_end(one)
        sender.join()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data + b"end").digest()


def test_a_request_may_come_one_byte_at_a_time_and_what_comes_early_is_kept(open_gate: Gate, echo: Target) -> None:
    with dialled(open_gate) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\x05\x01\x00\x05\x01\x00" + encode(echo) + b"early":
            one.sendall(bytes((byte,)))
        one.shutdown(socket.SHUT_WR)
        assert until_end(one)[12:] == b"earlyend"


def test_a_second_request_on_a_connection_does_not_reach_the_first_one_s_origin(open_gate: Gate) -> None:
    seen: list[bytes] = []
    ended = threading.Event()

    def origin(one: socket.socket) -> None:
        seen.append(until_end(one))
        ended.set()

    with serving(origin) as at, dialled(open_gate) as one:
        one.sendall(b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nContent-Length: 2\r\n\r\nok" % at.port)
        one.sendall(b"GET http://other.example/secret HTTP/1.1\r\n\r\n")
        one.shutdown(socket.SHUT_WR)
        assert ended.wait(10)
    assert seen[0].endswith(b"\r\n\r\nok")


def page_of(name: bytes, seen: list[bytes]) -> Callable[[socket.socket], None]:
    """A site that says its name and how much it was sent, once for each connection, and notes how it was asked."""

    def serve(one: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(65_536)
        head, _, body = head.partition(b"\r\n\r\n")
        if b"chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += one.recv(65_536)
        seen.append(head)
        said = b"" if head.startswith(b"HEAD") else b"%b %d" % (name, len(body))
        if b"/endless" in head:
            one.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + said)
        elif b"/chunks" in head:
            one.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(said), said)
            )
        else:
            one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
            if b"/more" in head:
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            one.recv(1)

    return serve


def answer(one: socket.socket, *, head_only: bool = False) -> tuple[bytes, bytes]:
    """One answer on a connection that goes on: its head and its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(one, 1)
    if b"chunked" in head:
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += exactly(one, 1)
        return head, body
    size = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
    return head, b"" if head_only else exactly(one, size)


def test_a_program_asks_several_sites_on_one_connection(open_gate: Gate) -> None:
    seen: list[bytes] = []
    with serving(page_of(b"one", seen)) as here, serving(page_of(b"two", seen)) as there, dialled(open_gate) as one:

        def ask(method: bytes, at: Target, path: bytes, more: bytes = b"\r\n") -> bytes:
            return b"%b http://127.0.0.1:%d%b HTTP/1.1\r\n%b" % (method, at.port, path, more)

        one.sendall(ask(b"GET", here, b"/"))
        assert answer(one)[1] == b"one 0"
        one.sendall(ask(b"POST", there, b"/chunks", b"Transfer-Encoding: chunked\r\n\r\n2\r\n"))
        one.sendall(b"hi\r\n0\r\n\r\n" + ask(b"HEAD", here, b"/") + ask(b"GET", there, b"/more"))
        assert answer(one)[1] == b"6\r\ntwo 12\r\n0\r\n\r\n"
        assert answer(one, head_only=True)[0].startswith(b"HTTP/1.1 200 OK")
        assert answer(one)[1] == b"two 0"
        one.sendall(ask(b"GET", here, b"/"))  # what the other site said behind its answer is not this one's
        assert answer(one)[1] == b"one 0"
        one.sendall(ask(b"GET", there, b"/endless"))
        last = until_end(one)
        assert last.endswith(b"two 0")
        assert b"\r\nConnection: close\r\n" in last
    assert len(seen) == 6
    assert all(head.endswith(b"\r\nConnection: close") for head in seen)


def test_curl_has_several_pages_of_several_sites_by_one_connection(open_gate: Gate) -> None:
    seen: list[bytes] = []
    with serving(page_of(b"one", seen)) as here, serving(page_of(b"two", seen)) as there:
        pages = [f"http://127.0.0.1:{here.port}/{{a,b}}", f"http://127.0.0.1:{there.port}/{{chunks,endless}}"]
        by = ("--proxy", f"http://127.0.0.1:{open_gate.at.port}")
        done = curl(*by, "-w", "%{num_connects}|", *pages, f"http://localhost:{here.port}/")
    assert done.stdout == b"one 01|one 00|two 00|two 00|one 01|", done


def test_a_refused_request_ends_its_connection_and_a_broken_one_is_cut(open_gate: Gate, site: Target) -> None:
    asked = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n" % site.port
    with dialled(open_gate) as one:
        one.sendall(asked + b"\r\n")
        assert answer(one)[1] == b"yes"
        one.sendall(b"POST http://a.example/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert until_end(one).startswith(b"HTTP/1.1 400 ")
    with serving(lambda one: exactly(one, 65_536)) as at, dialled(open_gate) as one:
        one.sendall(b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" % at.port)
        one.sendall(b"5\nhello\r\n0\r\n\r\n" + asked + b"\r\n")
        with suppress(ConnectionResetError):
            assert until_end(one)[:13] in (b"", b"HTTP/1.1 400 ")  # told, if it was seen with the head


def test_who_asks_nothing_more_is_let_go_in_time(here: Place, site: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "HANDSHAKE_S", 0.2)
    monkeypatch.setattr(gates, "SWEEP_S", 0.1)
    with dialled(here.gate()) as one:
        one.sendall(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n\r\n" % site.port)
        assert until_end(one).endswith(b"yes")


def test_chromium_has_many_plain_pages_by_few_connections(open_gate: Gate, tmp_path: Path) -> None:
    asked: Counter[bytes] = Counter()
    connections: list[socket.socket] = []

    def pages(one: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += one.recv(65_536)
        path = head.split(b" ")[1]
        asked[path] += 1
        if path == b"/":
            shown = b"".join(
                b"<img src=/%d.svg><img src=http://localhost:%d/%d.svg>" % (n, at.port, n) for n in range(20)
            )
            kind, body = b"text/html", b"<body>" + shown + b"<p id=end>Welcome."
        else:
            kind, body = b"image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body))

    def between(one: socket.socket) -> None:
        connections.append(one)
        with dialled(open_gate) as far:
            back = threading.Thread(target=pass_on, args=(far, one), daemon=True)
            back.start()
            pass_on(one, far)
            back.join()

    with serving(pages) as at, serving(between) as proxy:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        flags += [f"--proxy-server=http://127.0.0.1:{proxy.port}", "--proxy-bypass-list=<-loopback>"]
        command = ["chromium", *flags, "--dump-dom", f"http://127.0.0.1:{at.port}/"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        connected = len(connections)
    assert b"Welcome." in done.stdout
    images = {b"/%d.svg" % n: 2 for n in range(20)}
    assert {path: count for path, count in asked.items() if path in images} == images
    assert connected < 20


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """All that comes, and its end."""
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_refusals_say_why(here: Place, open_gate: Gate, site: Target) -> None:
    with serving(lambda one: None) as at:
        gone = at
    with pytest.raises(ConnectionError, match="5"):
        through(open_gate, gone)
    with pytest.raises(ConnectionError, match="4"):
        through(open_gate, Target("no-such-host.invalid", 80))
    strict = here.gate(policy=Policy())
    with pytest.raises(ConnectionError, match="2"):
        through(strict, site)
    done = curl("--proxy", f"http://127.0.0.1:{strict.at.port}", "-w", "%{http_code}", f"http://127.0.0.1:{site.port}/")
    assert done.stdout.endswith(b"403"), done


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
def test_an_exit_leads_nobody_into_its_own_network_however_the_address_is_written(host: str, here: Place) -> None:
    reached: list[object] = []
    with serving(reached.append) as at, pytest.raises(ConnectionError, match="2"):
        through(here.gate(policy=Policy()), Target(host, at.port))
    assert reached == []


def test_others_are_served_only_with_credentials(here: Place, site: Target) -> None:
    with pytest.raises(UsageError, match="can be reached by others"):
        here.gate(at=Target("0.0.0.0", 0))
    gate = here.gate(at=Target("0.0.0.0", 0), credentials=US)
    url = f"http://127.0.0.1:{site.port}/"
    at = f"127.0.0.1:{gate.at.port}"
    for way in ("socks5h", "http"):
        assert curl("--proxy", f"{way}://{at}", "--proxy-user", "alice:correct horse", url).stdout == b"yes"
        for user in ("alice:wrong", ""):
            assert curl("--fail", "--proxy", f"{way}://{at}", "--proxy-user", user, url).returncode != 0
    assert curl("--socks4a", at, url).returncode != 0


def test_a_port_in_use_and_an_address_of_somebody_else_are_told_in_one_line(here: Place, open_gate: Gate) -> None:
    with pytest.raises(StorageError, match="in use by another program"):
        here.gate(at=open_gate.at)
    with pytest.raises(UsageError, match="cannot listen at"):
        here.gate(at=Target("203.0.113.9", 1080), credentials=US)


def test_who_says_nothing_is_sent_away_in_time(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "HANDSHAKE_S", 0.2)
    monkeypatch.setattr(gates, "SWEEP_S", 0.1)
    with dialled(here.gate()) as one:
        one.sendall(b"\x05")
        assert until_end(one) == b""


def test_the_oldest_of_too_many_that_say_nothing_goes_for_the_newest(
    here: Place, monkeypatch: pytest.MonkeyPatch, site: Target
) -> None:
    monkeypatch.setattr(gates, "HALF_OPEN_MAX", 3)
    gate = here.gate()
    silent = [dialled(gate) for _ in range(4)]
    assert until_end(silent[0]) == b""
    assert through(gate, site)
    for one in silent:
        one.close()


def test_a_client_that_hung_up_while_it_waited_is_gone(here: Place, site: Target) -> None:
    waiting: list[Client] = []
    came = threading.Event()

    class Later:
        def carry(self, client: Client) -> None:
            waiting.append(client)
            came.set()

        def associate(self, isolation: bytes, deliver: object) -> None:
            return None

        def close(self) -> None:
            for one in waiting:
                one.refuse(gates.Refusal.FAILED)

    one = dialled(here.gate(Later()))
    one.sendall(b"\x05\x01\x00\x05\x01\x00" + encode(site))
    assert came.wait(10)
    assert not here.do(lambda: waiting[0].gone)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    assert here.do(lambda: waiting[0].gone)


def test_datagrams_go_and_come_and_end_with_their_connection(here: Place, open_gate: Gate) -> None:
    control, udp, at = associated(open_gate)
    with control, udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(10)
        target = Target("localhost", far.getsockname()[1])
        udp.sendto(wrap_datagram(target, b"ping"), at)
        data, whose = far.recvfrom(100)
        assert data == b"ping"
        far.sendto(b"pong", whose)
        assert unwrap_datagram(udp.recv(100)) == (Target("127.0.0.1", target.port), b"pong")
        # Nobody else may send through it: who spoke first owns it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(wrap_datagram(target, b"stolen"), at)
        # Fragments are dropped, and so is what is no datagram.
        udp.sendto(b"\0\0\1" + wrap_datagram(target, b"fragment")[3:], at)
        udp.sendto(b"\xff", at)
        udp.sendto(wrap_datagram(target, b"again"), at)
        assert far.recv(100) == b"again"
        control.close()
        assert until_closed(udp, at, target)


def test_the_kernel_finds_out_when_who_sent_datagrams_is_gone(open_gate: Gate) -> None:
    control, udp, _ = associated(open_gate)
    with control, udp:
        keepalive = "02"  # the timer that runs on a connection, in its fifth column
        ports = f":{open_gate.at.port:04X}", f":{control.getsockname()[1]:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        (ours,) = [line for line in lines if line[1].endswith(ports[0]) and line[2].endswith(ports[1])]
        assert ours[5].startswith(keepalive)


def test_a_proxy_that_refused_datagrams_once_is_not_asked_again_and_programs_are_told(here: Place) -> None:
    refused = threading.Semaphore(0)

    def refuse(one: socket.socket) -> None:
        assert exactly(one, 3) == b"\x05\x01\x00"
        one.sendall(b"\x05\x00")
        assert exactly(one, 10)[1] == 3
        one.sendall(reply(7))
        with suppress(ConnectionResetError):
            until_end(one)
        refused.release()

    with serving(refuse) as proxy:
        gate = here.gate(here.do(lambda: upstream(here.loop, ProxyBridge(proxy, "socks5"))))
        first, udp, _ = associated(gate)
        with first, udp:
            assert refused.acquire(timeout=10)
            with dialled(gate) as second:
                second.sendall(b"\x05\x01\x00\x05\x03\x00" + encode(NOWHERE))
                assert exactly(second, 4) == b"\x05\x00\x05\x07"


def test_a_proxy_that_ended_a_way_for_datagrams_is_asked_for_another_one(here: Place) -> None:
    proxy = here.gate()
    gate = here.gate(here.do(lambda: upstream(here.loop, ProxyBridge(proxy.at, "socks5"))))
    control, udp, at = associated(gate)
    with control, udp, serving_datagrams() as (far, target):
        far.settimeout(0.2)
        for word in (b"first", b"again"):
            for _ in range(50):  # those that are on their way meanwhile may be lost
                udp.sendto(wrap_datagram(target, word), at)
                with suppress(TimeoutError):
                    if far.recv(100) == word:
                        break
            else:
                pytest.fail(f"{word!r} does not come")
            here.do(proxy.end_datagrams)


@pytest.mark.parametrize("named", [Target("127.0.0.1", 7), Target("0.0.0.0", 7)])
def test_who_says_from_which_port_they_send_is_heard_from_there_alone(open_gate: Gate, named: Target) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, serving_datagrams() as (far, target):
        ours.bind(("127.0.0.1", 0))
        control, other, at = associated(open_gate, named._replace(port=ours.getsockname()[1]))
        with control, other:
            other.sendto(wrap_datagram(target, b"another's"), at)
            ours.sendto(wrap_datagram(target, b"ours"), at)
            assert far.recv(100) == b"ours"


@pytest.mark.parametrize("named", [Target("192.0.2.7", 53), Target("site.example", 53), Target("2001:db8::7", 53)])
def test_who_names_the_target_where_their_own_address_belongs_is_heard(open_gate: Gate, named: Target) -> None:
    control, udp, at = associated(open_gate, named)
    with control, udp, serving_datagrams() as (far, target):
        udp.sendto(wrap_datagram(target, b"ours"), at)
        assert far.recv(100) == b"ours"


@contextmanager
def serving_datagrams() -> Iterator[tuple[socket.socket, Target]]:
    """Somebody who is sent datagrams, and where."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(10)
        yield far, Target(*far.getsockname())


def until_closed(udp: socket.socket, at: tuple[str, int], target: Target) -> bool:
    """Whether the port goes: then sending to it is refused by the kernel."""
    udp.connect(at)
    udp.settimeout(0.05)
    for _ in range(200):
        try:
            udp.send(wrap_datagram(target, b"x"))
            with suppress(TimeoutError):
                udp.recv(100)
        except ConnectionRefusedError:
            return True
    return False


def test_answers_are_a_few_times_as_large_as_what_was_asked_and_only_of_who_was_asked(here: Place) -> None:
    exit_ = here.do(lambda: Exit(here.loop, allowing_private()))
    control, udp, at = associated(here.gate(Dialled(here.loop, exit_.open, partial(exit_.datagrams, whose=b"a user"))))
    with control, udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(10)
        udp.sendto(wrap_datagram(Target("127.0.0.1", far.getsockname()[1]), b"ask"), at)
        _, whose = far.recvfrom(100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"unasked", whose)
        for _ in range(50):
            far.sendto(bytes(1000), whose)
        udp.settimeout(0.5)
        got = 0
        with suppress(TimeoutError):
            while found := unwrap_datagram(udp.recv(2000)):
                assert found[1] == bytes(1000)
                got += len(found[1])
    assert got == 4000  # 4096 + 8 * 3, in whole datagrams


def test_what_goes_directly_is_answered_in_full_and_also_after_a_long_silence(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits, "SILENCE_S", 0.05)
    exit_ = here.do(lambda: Exit(here.loop, allowing_private()))
    control, udp, at = associated(here.gate(direct(exit_)))
    with control, udp, serving_datagrams() as (far, target):
        udp.sendto(wrap_datagram(target, b"ask"), at)
        _, whose = far.recvfrom(100)
        for _ in range(50):
            far.sendto(bytes(1000), whose)
            assert udp.recv(2000).endswith(bytes(1000))
        here.do(lambda: exit_.datagrams(lambda source, data: None, b"a user"))
        while here.do(lambda: exit_.associations.taken) > 1:
            pass  # a user's way that is silent for as long as this one ends
        udp.sendto(wrap_datagram(target, b"again"), at)
        assert far.recv(100) == b"again"


def test_datagrams_into_the_exit_s_own_network_are_dropped(here: Place) -> None:
    control, udp, at = associated(here.gate(policy=Policy()))
    with control, udp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(0.3)
        for host in ("127.0.0.1", "localhost", "169.254.169.254"):
            udp.sendto(wrap_datagram(Target(host, far.getsockname()[1]), b"in"), at)
        with pytest.raises(TimeoutError):
            far.recv(100)


def test_whatever_programs_do_no_socket_stays_behind(here: Place, site: Target, echo: Target) -> None:
    with serving(lambda one: None) as at:
        gone = at
    gate = here.gate()

    def some() -> None:
        with dialled(gate) as one:
            one.sendall(b"\x05")  # and never the rest
        with dialled(gate) as one:
            one.sendall(b"\x05\x01\x00\x05\x01\x00" + encode(echo))  # gone before it is there
        with through(gate, echo) as one:
            one.sendall(b"x")
            assert exactly(one, 1) == b"x"
        with through(gate, echo) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for target in (gone, Target("no-such-host.invalid", 80), Target("127.0.0.1", 25)):
            with pytest.raises(ConnectionError):
                through(gate, target)
        asked = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\n" % site.port
        with dialled(gate) as one:
            one.sendall(asked + b"\r\n" + asked + b"Connection: close\r\n\r\n")
            assert until_end(one).endswith(b"yes")
        control, udp, relay = associated(gate)
        udp.sendto(wrap_datagram(Target("127.0.0.1", gone.port), b"x"), relay)
        udp.close()
        control.close()

    for _ in range(3):
        some()
    before = open_files()
    for _ in range(30):
        some()
    until = time.monotonic() + 10
    while open_files() > before and time.monotonic() < until:
        pass
    assert open_files() <= before


def test_a_reset_right_behind_the_last_bytes_is_a_reset(here: Place) -> None:
    told: Queue[bytes] = Queue()

    def hear(one: socket.socket) -> None:
        with suppress(ConnectionError):
            while one.recv(100):
                pass
        told.put(b"over")

    gate = here.gate()
    with serving(hear) as at:
        for _ in range(50):
            with through(gate, at) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.sendall(b"last words")
        assert [told.get(timeout=20) for _ in range(50)] == [b"over"] * 50


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def tried(gate: Gate, password: bytes, by: str) -> bytes:
    """What a gate says to a password, by SOCKS or HTTP; nothing: no answer in half a second."""
    with dialled(gate) as one:
        one.settimeout(0.5)
        if by == "http":
            words = b64encode(US.user + b":" + password)
            one.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nProxy-Authorization: Basic " + words + b"\r\n\r\n")
        else:
            one.sendall(b"\5\1\2\1" + bytes((len(US.user),)) + US.user + bytes((len(password),)) + password)
        try:
            return one.recv(12 if by == "http" else 4)
        except TimeoutError:
            return b""


@pytest.mark.parametrize("by", ["http", "socks"])
def test_of_one_address_few_passwords_are_tried_and_then_one_now_and_then(
    here: Place, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(gates, "GUESSES_AT_ONCE", 3)
    monkeypatch.setattr(gates, "GUESS_S", 1.5)
    gate = here.gate(credentials=US)
    right, wrong = (b"HTTP/1.1 502", b"HTTP/1.1 407") if by == "http" else (b"\5\2\1\0", b"\5\2\1\1")
    for _ in range(10):
        assert tried(gate, US.password, by) == right
    answers = [tried(gate, b"wrong", by) for _ in range(5)]
    assert answers[:3] == [wrong] * 3
    assert answers[3:].count(wrong) <= 1
    here.do(lambda: gate._guessers["127.0.0.1"].take(1, here.loop.time()))
    assert tried(gate, US.password, by) == b""  # what is right is not told sooner than what is wrong
    until = time.monotonic() + 10
    while tried(gate, US.password, by) != right:
        assert time.monotonic() < until
    here.do(lambda: gate.guessed("192.0.2.1"))
    assert here.do(lambda: gate.wait_s("192.0.2.2")) == 0


def test_programs_that_first_ask_without_a_password_are_not_taken_for_who_guesses(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "GUESSES_AT_ONCE", 1)
    gate = here.gate(credentials=US)
    for _ in range(3):
        with dialled(gate) as one:
            one.sendall(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
            assert exactly(one, 12) == b"HTTP/1.1 407"
    assert not gate._guessers
