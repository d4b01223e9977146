"""Filters that look for a name in one segment or one record are passed by cutting the first flight of TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from outlast.address import Target
from outlast.rooms.reach.io import tricks
from outlast.rooms.reach.io.carrier import Refusal
from outlast.rooms.reach.io.certificates import self_signed
from outlast.rooms.reach.io.tricks import Tricking
from outlast.rooms.reach.proto.bridge import Tricks
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.fragment import NAME, TRICKS, Trick, flight_size
from tests.rooms.reach import censors
from tests.rooms.reach.border import BANNED, Border, enter
from tests.rooms.reach.gates import Place, curl, place, serving
from tests.rooms.reach.programs import program

SITE = "blocked.example"
LOOPBACK = "127.0.0.1"


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in (SITE, LOOPBACK):
        self_signed(folder / name, name)
    return folder


@contextmanager
def resolver(keys: Path, asked: list[str]) -> Iterator[Tricks]:
    """A resolver over HTTPS that knows where the site is, and notes what it was asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / LOOPBACK / "web-certificate.pem", keys / LOOPBACK / "web-key.pem")

    def answer(one: socket.socket) -> None:
        with context.wrap_socket(one, server_side=True) as connection:
            data = b""
            while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < int(
                data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            ):
                data += connection.recv(4096)
            head, _, question = data.partition(b"\r\n\r\n")
            assert head.startswith(b"POST /dns-query HTTP/1.1\r\n")
            labels, at = [], 12
            while question[at]:
                labels.append(question[at + 1 : at + 1 + question[at]].decode())
                at += 1 + question[at]
            kind = int.from_bytes(question[at + 1 : at + 3], "big")
            asked.append(".".join(labels))
            known = kind == 1 and asked[-1] == SITE
            record = b"\xc0\x0c\0\1\0\1\0\0\1\0\0\4" + ip_address(LOOPBACK).packed
            reply = (
                b"\0\0\x81\x80\0\1\0" + bytes((known,)) + bytes(4) + question[12 : at + 5] + (record if known else b"")
            )
            half = len(reply) // 2
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (reply[:half], reply[half:]))
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    with serving(answer) as at:
        yield Tricks(at)


@contextmanager
def openssl(keys: Path) -> Iterator[Target]:
    """OpenSSL's own server, with a page."""
    with socket.create_server((LOOPBACK, 0)) as free:
        at = Target(LOOPBACK, free.getsockname()[1])
    files = [str(keys / SITE / f"web-{name}.pem") for name in ("certificate", "key")]
    command = [
        program("openssl"),
        "s_server",
        "-accept",
        f"{at.host}:{at.port}",
        "-cert",
        files[0],
        "-key",
        files[1],
        "-www",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            assert server.stdout is not None
            while b"ACCEPT" not in server.stdout.readline():
                pass
            yield at
        finally:
            server.terminate()


@contextmanager
def censored(to: Target, name: str = SITE, silently: bool = False) -> Iterator[tuple[Target, list[int]]]:
    """Somebody on the way who looks for the name in the first record, and resets, or swallows; how many they saw."""
    seen: list[int] = []
    over = threading.Event()

    def judge(near: socket.socket) -> None:
        first = b""
        while (size := flight_size(first)) is None or len(first) < size:
            if not (data := near.recv(4096)):
                return
            first += data
        seen.append(size)
        if name.encode() in first[:size]:
            if silently:
                over.wait(20)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        with socket.create_connection(to) as far:
            far.sendall(first)
            back = threading.Thread(target=pass_on, args=(far, near), daemon=True)
            back.start()
            pass_on(near, far)
            back.join()

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with serving(judge) as at:
        try:
            yield at, seen
        finally:
            over.set()


@contextmanager
def tricking(here: Place, keys: Path, asked: list[str]) -> Iterator[Tricking]:
    with resolver(keys, asked) as way:
        trust = ssl.create_default_context(cafile=str(keys / LOOPBACK / "web-certificate.pem"))
        yield here.do(lambda: Tricking(way, allowing_private(), trust=trust))


def page(gate: Target, keys: Path, at: Target) -> subprocess.CompletedProcess[bytes]:
    """Ask curl for the site's page."""
    trusted = ["--cacert", str(keys / SITE / "web-certificate.pem")]
    return curl("--socks5-hostname", f"{gate.host}:{gate.port}", *trusted, f"https://{SITE}:{at.port}/")


@pytest.mark.parametrize("silently", [False, True])
def test_a_site_behind_a_filter_of_names_is_reached_and_its_trick_is_remembered(
    here: Place, keys: Path, silently: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tricks, "ANSWER_S", 1.0)
    asked: list[str] = []
    with openssl(keys) as site, censored(site, silently=silently) as (at, seen), tricking(here, keys, asked) as carrier:
        gate = here.gate(carrier).at
        for reached in (2, 3):
            done = page(gate, keys, at)
            assert (done.returncode, done.stderr) == (0, b"")
            assert b"Ciphers common between both SSL end points" in done.stdout
            assert len(seen) == reached
        assert here.do(lambda: carrier.tricks_for(SITE))[0] == Trick(record_at=NAME)
        # The name was asked of that resolver alone: once, for both kinds of addresses.
        assert asked == [SITE, SITE]


def test_a_site_that_nobody_filters_is_reached_without_a_trick(here: Place, keys: Path) -> None:
    asked: list[str] = []
    with openssl(keys) as site, censored(site, "another.example") as (at, seen), tricking(here, keys, asked) as carrier:
        assert not page(here.gate(carrier).at, keys, at).returncode
        assert here.do(lambda: carrier.tricks_for(SITE))[0] == Trick()
        assert len(seen) == 1


@pytest.mark.parametrize("trick", TRICKS, ids=str)
def test_a_stock_server_takes_a_flight_however_it_is_cut(
    here: Place, keys: Path, trick: Trick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tricks, "TRICKS", (trick, trick))
    with openssl(keys) as site, tricking(here, keys, []) as carrier:
        assert not page(here.gate(carrier).at, keys, site).returncode


def test_where_no_trick_helps_the_client_sees_a_reset(here: Place, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tricks, "TRICKS", (Trick(), Trick(segment_at=1)))
    with openssl(keys) as site, censored(site) as (at, seen), tricking(here, keys, []) as carrier:
        assert page(here.gate(carrier).at, keys, at).returncode == 35
        assert len(seen) == 2


def test_what_is_not_tls_passes_as_it_is_and_who_speaks_first_is_heard(here: Place, keys: Path) -> None:
    def greet(one: socket.socket) -> None:
        one.sendall(b"220 hello\r\n" + one.recv(100))

    with serving(greet) as at, tricking(here, keys, []) as carrier:
        for said in (b"", b"QUIT\r\n"):
            with client(here, carrier, at) as ours:
                if said:
                    ours.sendall(said)
                else:
                    ours.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda: ours.recv(100), b"")) == b"220 hello\r\n" + said


def test_a_name_that_the_resolver_does_not_know_leads_nowhere(here: Place, keys: Path) -> None:
    asked: list[str] = []
    with tricking(here, keys, asked) as carrier:
        # The system's resolver would know it.
        with pytest.raises(ConnectionRefusedError), client(here, carrier, Target("localhost", 443)):
            pass
        assert asked == ["localhost", "localhost"]


def test_a_resolver_with_another_certificate_is_not_believed(here: Place, keys: Path) -> None:
    asked: list[str] = []
    with resolver(keys, asked) as way:
        carrier = here.do(lambda: Tricking(way, allowing_private()))
        with pytest.raises(ConnectionRefusedError), client(here, carrier, Target(SITE, 443)):
            pass
        assert not asked


@contextmanager
def client(here: Place, carrier: Tricking, target: Target) -> Iterator[socket.socket]:
    """A client of a carrier without a gate; raises ConnectionRefusedError when it is refused."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    theirs.setblocking(False)
    decided, refusals = threading.Event(), list[Refusal]()

    class Asking:
        isolation = b""
        gone = False

        @property
        def target(self) -> Target:
            return target

        def take(self) -> tuple[socket.socket, bytes]:
            decided.set()
            return theirs, b""

        def refuse(self, refusal: Refusal) -> None:
            refusals.append(refusal)
            theirs.close()
            decided.set()

    with ours:
        here.do(lambda: carrier.carry(Asking()))
        assert decided.wait(20)
        if refusals:
            raise ConnectionRefusedError(refusals[0])
        yield ours


# ---- across a border that looks at packets ----


@pytest.mark.serial
@pytest.mark.parametrize(
    ("depth", "trick", "passes"),
    [
        ("segment", Trick(), False),
        ("segment", Trick(segment_at=NAME), True),
        ("segment", Trick(record_at=NAME), True),
        ("stream", Trick(segment_at=NAME), False),
        ("stream", Trick(record_at=NAME), True),
        ("stream", Trick(NAME, NAME), True),
        ("records", Trick(NAME, NAME), False),
    ],
    ids=str,
)
def test_which_filter_is_passed_by_which_trick(
    land: Border, depth: censors.Depth, trick: Trick, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tricks, "TRICKS", (trick, trick))
    name = "banned.example.net"
    context = ssl.create_default_context(cafile=str(land.trusted))
    with ExitStack() as stack:
        here = stack.enter_context(place())
        here.do(lambda: enter(land.networks["client"]))
        carrier = here.do(lambda: Tricking(Tricks(Target(BANNED, 443)), allowing_private()))
        stack.enter_context(land.censored(censors.reset_names(name, depth=depth)))
        ours = stack.enter_context(client(here, carrier, Target(BANNED, 443)))
        if passes:
            with context.wrap_socket(ours, server_hostname=name) as tls:
                assert tls.version() == "TLSv1.3"
        else:
            with pytest.raises(OSError, match=r"reset|EOF|closed"):
                context.wrap_socket(ours, server_hostname=name)
