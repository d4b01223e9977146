"""Each censor of the matrix, proved with stock programs; without the censor the same thing passes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile

import pytest

from tests.rooms.reach import censors
from tests.rooms.reach.border import BANNED, BRIDGES, MINISTRY, MINISTRY_PAGE, RESOLVER, SITE, STANDING, Border, page_of
from tests.rooms.reach.capture import TCP, UDP, captured

pytestmark = pytest.mark.serial

PAGE = 60_000
BANNED_NAME, FREE = "banned.example.net", "site.example.net"
CANNOT_RESOLVE, CANNOT_CONNECT, TIMED_OUT, NO_TLS, RESET, UNTRUSTED = 6, 7, 28, 35, 56, 60  # curl's exit codes


@contextmanager
def shadowsocks(land: Border) -> Iterator[list[str]]:
    """A stock client and a stock server of Shadowsocks, ready; what curl is to be told of them."""
    both = ["-k", "kingfisher", "-m", "aes-256-gcm", "-s", BRIDGES[0], "-p", "8388"]
    started = [
        land.start("server", "ss-server", *both, "-v"),
        land.start("client", "ss-local", *both, "-b", "127.0.0.1", "-l", "1080", "-v"),
    ]
    try:
        for one in started:
            land.until(one, "listening at")
        yield ["--socks5-hostname", "127.0.0.1:1080"]
    finally:
        for one in started:
            land.end(one)


def passes(land: Border, *arguments: str, size: int = 2_000, place: str = "client", limit_s: float = 10) -> bool:
    """Whether a page of that size comes, byte for byte."""
    with NamedTemporaryFile() as page:
        done = land.curl("-o", page.name, *arguments, place=place, limit_s=limit_s)
        got = Path(page.name).read_bytes()
    assert done.returncode or got == page_of(size)
    return not done.returncode


def https(name: str, size: int = 2_000) -> str:
    return f"https://{name}/{size}"


def test_without_a_censor_everything_passes(land: Border) -> None:
    for name in (FREE, BANNED_NAME):
        assert passes(land, https(name, PAGE), size=PAGE)
        assert passes(land, f"http://{name}/{PAGE}", size=PAGE)
    with shadowsocks(land) as through:
        assert passes(land, *through, https(FREE, PAGE), size=PAGE)


def test_packets_to_an_address_disappear(land: Border) -> None:
    with land.censored(censors.drop_address(BANNED)):
        assert land.curl(https(BANNED_NAME), limit_s=0.7).returncode == TIMED_OUT
        assert passes(land, https(FREE))
    assert passes(land, https(BANNED_NAME))


def hello(name: str) -> bytes:
    """A ClientHello of OpenSSL's."""
    out = ssl.MemoryBIO()
    asking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        asking.do_handshake()
    return out.read()


def sent(kind: str, name: str) -> tuple[bytes, ...]:
    """The segments that such a ClientHello is sent in."""
    whole = hello(name)
    at = whole.index(name.encode()) + 3
    match kind:
        case "whole":
            return (whole,)
        case "split":
            return whole[:at], whole[at:]
        case _:
            parts = whole[5:at], whole[at:]
            return (b"".join(whole[:3] + len(part).to_bytes(2) + part for part in parts),)


@pytest.mark.parametrize(
    ("depth", "kind", "reset"),
    [
        ("segment", "whole", True),
        ("segment", "split", False),
        ("segment", "records", False),
        ("stream", "split", True),
        ("stream", "records", False),
        ("records", "records", True),
    ],
)
def test_a_client_hello_with_a_banned_name_is_reset_as_far_as_the_filter_sees(
    land: Border, depth: censors.Depth, kind: str, reset: bool
) -> None:
    with land.censored(censors.reset_names(BANNED_NAME, depth=depth)):
        for name in (BANNED_NAME, FREE):
            with land.socket("client") as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.connect((BANNED, 443))
                for part in sent(kind, name):
                    client.send(part)
                if reset and name == BANNED_NAME:
                    with pytest.raises(ConnectionResetError):
                        client.recv(1)
                else:
                    assert client.recv(1) == b"\x16"


def test_a_reset_after_the_name_is_what_curl_sees_too(land: Border) -> None:
    with land.censored(censors.reset_names(BANNED_NAME)):
        assert "reset" in land.curl(https(BANNED_NAME)).stderr.lower()
        assert passes(land, "--connect-to", f"::{BANNED}:", https(FREE))


def test_names_are_forged(land: Border) -> None:
    with land.censored(censors.forge_names(hijacked=MINISTRY, banned="")):
        assert land.curl("http://hijacked.example.net/", "-o", "-", "-L").stdout.encode() == MINISTRY_PAGE
        assert land.curl(https(BANNED_NAME)).returncode == CANNOT_RESOLVE
        assert passes(land, https(FREE))
    assert passes(land, "http://hijacked.example.net/2000")


def test_first_packets_that_look_like_chance_disappear(land: Border) -> None:
    with shadowsocks(land) as through:
        assert passes(land, *through, https(FREE))
        with land.censored(censors.drop_encrypted()):
            # One of some hundred streams begins with six printable bytes and is let through.
            assert not all(passes(land, *through, https(FREE), limit_s=0.7) for _ in range(2))
            assert passes(land, https(FREE))
            assert passes(land, f"http://{FREE}/2000")


def test_the_rule_for_first_packets_is_that_of_the_paper() -> None:
    chance = Random(5).randbytes(200)
    assert censors.looks_fully_encrypted(chance)
    for exempt in (
        bytes(200),
        b"\xff" * 200,
        b"SSH-2." + chance,
        chance + b"twenty of these here\n" * 20,
        chance + b"twenty-one printables",
        b"\x16\x03\x01" + chance,
        b"GET " + chance,
    ):
        assert not censors.looks_fully_encrypted(exempt)
    assert censors.looks_fully_encrypted(chance + b"\0only twenty of these")


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_behind_the_curtain_a_connection_freezes_after_some_bytes(land: Border, scheme: str) -> None:
    with land.censored(censors.curtain(16_000)):
        done = land.curl("-o", "/dev/null", "-w", "%{size_download}", f"{scheme}://{FREE}/{PAGE}", limit_s=1)
        assert done.returncode == TIMED_OUT
        assert int(done.stdout) < 16_000
        assert passes(land, f"{scheme}://{FREE}/8000", size=8_000)


def test_more_connections_than_the_cap_are_reset(land: Border) -> None:
    with ExitStack() as held, land.censored(censors.cap(3)):
        for _ in range(3):
            held.enter_context(land.socket("client")).connect((BANNED, 443))
        assert land.curl(https(BANNED_NAME)).returncode == CANNOT_CONNECT
        assert passes(land, https(FREE))
        held.close()
        assert passes(land, https(BANNED_NAME))


def test_throttling_leaves_little(land: Border) -> None:
    def speed() -> float:
        done = land.curl("-o", "/dev/null", "-w", "%{speed_download}", https(BANNED_NAME, 2_000_000))
        return float(done.stdout)

    free = speed()
    with land.censored(censors.throttle(20_000, BANNED)):
        assert speed() < 60_000 < free / 10
        assert passes(land, https(FREE, PAGE), size=PAGE)


def test_plain_http_is_sent_to_the_ministry(land: Border) -> None:
    with land.censored(censors.redirect_http()):
        done = land.curl("-o", "/dev/null", "-w", "%{redirect_url}", f"http://{FREE}/")
        assert done.stdout == "http://ministry.example.net/"
        assert passes(land, https(FREE))


def test_a_portal_answers_tls_in_plain_http(land: Border) -> None:
    with land.censored(censors.portal()):
        done = land.curl("-o", "/dev/null", "-w", "%{redirect_url}", f"http://{FREE}/")
        assert done.stdout == "http://ministry.example.net/"
        assert land.curl(https(FREE)).returncode == NO_TLS


def test_certificates_are_forged_and_who_does_not_look_is_read(land: Border) -> None:
    with land.censored(censors.forge_certificates()):
        assert land.curl(https(FREE)).returncode == UNTRUSTED
        assert passes(land, "--insecure", https(FREE))
        asked = ["-connect", f"{SITE}:443", "-servername", FREE, "-verify_return_error", "-CAfile", str(land.trusted)]
        assert "verify error" in land.ask("client", "openssl", "s_client", *asked).stderr
    asked = ["-connect", f"{SITE}:443", "-servername", FREE, "-verify_return_error", "-CAfile", str(land.trusted)]
    assert "Verification: OK" in land.ask("client", "openssl", "s_client", *asked).stdout


def test_when_all_is_cut_the_neighbours_dish_is_left(land: Border) -> None:
    with land.censored(censors.cut()):
        assert land.curl(https(FREE), limit_s=0.7).returncode in (CANNOT_RESOLVE, TIMED_OUT)
        assert passes(land, https(FREE), place="neighbour")
    assert passes(land, https(FREE))


def test_every_now_and_then_connections_are_reset(land: Border) -> None:
    with land.censored(censors.throttle(200_000, SITE)), land.struck(0.3) as struck:
        assert land.curl("-o", "/dev/null", https(FREE, 10_000_000), limit_s=10).returncode == RESET
    assert struck
    assert passes(land, https(FREE))


def test_a_capture_shows_who_was_written_to_and_which_names_were_asked_for(land: Border) -> None:
    with captured(land.networks["client"], "uplink") as seen:
        assert passes(land, f"http://{FREE}/2000")
    assert {one for one in seen.begun() if one[1] not in BRIDGES + STANDING} == {(UDP, RESOLVER, 53), (TCP, SITE, 80)}
    assert seen.asked() == {"DNS"}
    assert seen.told(FREE.encode())
    assert not seen.told(BANNED_NAME.encode())
