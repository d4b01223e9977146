"""Shadowsocks' two editions: what one end seals the other opens, in any pieces; what is not theirs opens nothing."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.io.pump import GROWTH_BYTES, KEPT_BYTES, READ_BYTES
from outlast.rooms.reach.proto import shadowsocks, shadowsocks_2022
from outlast.rooms.reach.proto.replay import Replays
from outlast.rooms.reach.proto.shadowsocks import (
    Cipher,
    ClockError,
    Opener,
    ReplayError,
    Request,
    Sealer,
    ShadowsocksError,
    Sip004,
    bytes_to_key,
    subkey,
    turn_whole,
)
from outlast.rooms.reach.proto.shadowsocks_2022 import Sip022, Window, session_key

TARGET = Target("site.example", 443)
OLD, NEW = list(shadowsocks.METHODS), list(shadowsocks_2022.METHODS)
NOW_S = 1_600_000_000.0
into = memoryview(bytearray(READ_BYTES + KEPT_BYTES))
out = memoryview(bytearray(READ_BYTES + KEPT_BYTES + GROWTH_BYTES))


def key_text(method: str, of: str = "key") -> str:
    return base64.b64encode(sha256(of.encode()).digest()[: shadowsocks_2022.METHODS[method].key_bytes]).decode()


def cipher_of(method: str, *, seed: int = 1, now_s: float = NOW_S, of: str = "key") -> Cipher:
    chance = random.Random(seed).randbytes
    if method in OLD:
        return Sip004(method, of, chance, lambda: now_s)
    return Sip022(method, key_text(method, of), chance, lambda: now_s)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data cut by these sizes, again and again."""
    parts, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        parts.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return parts


def seal(sealer: Sealer, parts: list[bytes]) -> bytes:
    return b"".join(turn_whole(sealer, part, into, out) for part in parts)


def open_all(opener: Opener, parts: list[bytes]) -> bytes:
    return b"".join(turn_whole(opener, part, into, out) for part in parts)


def accept(cipher: Cipher, parts: list[bytes], seen: Replays | None = None) -> tuple[Request, list[bytes]]:
    """The request, and the parts that came after it."""
    acceptor = cipher.acceptor(seen or cipher.replays())
    for turn, part in enumerate(parts):
        if request := acceptor.feed(part, into, out):
            return request, parts[turn + 1 :]
    raise AssertionError("no request")


SIZES = st.lists(st.sampled_from([1, 7, 18, 50, 1448, 16_383, 65_535, 70_000, 131_072]), min_size=1, max_size=5)


@pytest.mark.parametrize("method", [*OLD, *NEW])
@settings(max_examples=20)
@given(said=st.integers(1, 300_000), plain_sizes=SIZES, wire_sizes=SIZES)
def test_what_is_sealed_is_opened_whatever_the_pieces(
    method: str, said: int, plain_sizes: list[int], wire_sizes: list[int]
) -> None:
    said = min(said, 500 * min(plain_sizes + wire_sizes))
    plain = random.Random(said).randbytes(said)
    client, server = cipher_of(method, seed=2), cipher_of(method, seed=3)
    sealer, opener = client.request(TARGET)
    request, later = accept(server, in_pieces(seal(sealer, in_pieces(plain, plain_sizes)), wire_sizes))
    assert request.target == TARGET
    assert request.said + open_all(request.opener, later) == plain
    assert request.opener.end() == b""
    answer = seal(request.sealer, in_pieces(plain[::-1], plain_sizes))
    assert open_all(opener, in_pieces(answer, wire_sizes)) == plain[::-1]
    assert opener.end() == b""


@pytest.mark.parametrize("method", [*OLD, *NEW])
def test_a_client_that_says_nothing_is_still_told_where_to_go(method: str) -> None:
    for finish in ("nudged", "ended"):
        sealer, _ = cipher_of(method, seed=2).request(TARGET)
        first = bytes(sealer.turn(into, 0, out)) if finish == "nudged" else sealer.end()
        request, _ = accept(cipher_of(method), [first])
        assert (request.target, request.said) == (TARGET, b"")
        assert not sealer.turn(into, 0, out)
        assert not request.sealer.turn(into, 0, out)


@pytest.mark.parametrize("method", [*OLD, *NEW])
@settings(max_examples=30)
@given(st.data())
def test_a_changed_byte_opens_nothing_from_there_on(method: str, data: st.DataObject) -> None:
    plain = random.Random(5).randbytes(1000)
    sealer, _ = cipher_of(method, seed=2).request(TARGET)
    wire = seal(sealer, [plain[:500], plain[500:]])
    at = data.draw(st.integers(0, len(wire) - 1))
    changed = wire[:at] + bytes((wire[at] ^ 1 << data.draw(st.integers(0, 7)),)) + wire[at + 1 :]
    said = b""
    with pytest.raises(ShadowsocksError):
        said = _said(cipher_of(method), changed)
    assert plain.startswith(said)


def _said(server: Cipher, wire: bytes) -> bytes:
    request, later = accept(server, in_pieces(wire, [100]))
    return request.said + open_all(request.opener, later)


@pytest.mark.parametrize("method", [*OLD, *NEW])
def test_another_key_opens_nothing(method: str) -> None:
    sealer, _ = cipher_of(method, of="another").request(TARGET)
    with pytest.raises(ShadowsocksError):
        accept(cipher_of(method), [seal(sealer, [b"hello"])])


@pytest.mark.parametrize("method", OLD)
def test_a_stream_that_begins_with_no_address_is_refused(method: str) -> None:
    sealer, _ = cipher_of(method, seed=2).request(TARGET)
    request, _ = accept(cipher_of(method, seed=3), [seal(sealer, [b"hello"])])
    with pytest.raises(ShadowsocksError, match="type 9"):  # a server's stream has a client's form, but no address
        accept(cipher_of(method), [seal(request.sealer, [bytes((9,)) * 40])])


@pytest.mark.parametrize("method", [*OLD, *NEW])
def test_an_end_within_a_chunk_is_told(method: str) -> None:
    sealer, _ = cipher_of(method, seed=2).request(TARGET)
    wire = seal(sealer, [b"hello"])
    rest = seal(sealer, [bytes(1000)])
    for cut in (1, 17, 18, 500, len(rest) - 1):
        request, _ = accept(cipher_of(method), [wire])
        turn_whole(request.opener, rest[:cut], into, out)
        with pytest.raises(ShadowsocksError, match="cut short"):
            request.opener.end()


@pytest.mark.parametrize("method", [*OLD, *NEW])
def test_what_was_recorded_passes_no_second_time(method: str) -> None:
    sealer, _ = cipher_of(method, seed=2).request(TARGET)
    server, wire = cipher_of(method), seal(sealer, [b"hello"])
    seen = server.replays()
    accept(server, [wire], seen)
    with pytest.raises(ReplayError):
        accept(server, [wire], seen)


@pytest.mark.parametrize("method", NEW)
@pytest.mark.parametrize("skew_s", [-31, 31, 86_400])
def test_a_wrong_clock_is_told_apart_from_a_wrong_key_and_by_how_much(method: str, skew_s: int) -> None:
    sealer, opener = cipher_of(method, seed=2, now_s=NOW_S + skew_s).request(TARGET)
    wire = seal(sealer, [b"hello"])
    with pytest.raises(ClockError) as told:
        accept(cipher_of(method), [wire])
    assert told.value.skew_s == skew_s
    request, _ = accept(cipher_of(method, now_s=NOW_S + skew_s / 2), [wire]) if abs(skew_s) < 60 else (None, None)
    if request:
        late = seal(request.sealer, [b"answer"])
        assert turn_whole(opener, late, into, out) == b"answer"


@pytest.mark.parametrize("method", NEW)
def test_an_answer_to_another_stream_is_refused(method: str) -> None:
    client = cipher_of(method, seed=2)
    (first, _), (_, opener) = client.request(TARGET), client.request(TARGET)
    request, _ = accept(cipher_of(method), [seal(first, [b"hello"])])
    with pytest.raises(ShadowsocksError, match="another stream"):
        turn_whole(opener, seal(request.sealer, [b"answer"]), into, out)


def test_users_are_known_by_their_keys() -> None:
    method = NEW[1]
    users = tuple(base64.b64decode(key_text(method, of)) for of in ("ann", "ben"))
    server = Sip022(method, key_text(method), random.Random(1).randbytes, lambda: NOW_S, users)
    for of, known in (("ann", True), ("ben", True), ("cat", False)):
        password = f"{key_text(method)}:{key_text(method, of)}"
        client = Sip022(method, password, random.Random(2).randbytes, lambda: NOW_S)
        sealer, opener = client.request(TARGET)
        wire, packet = seal(sealer, [b"hello"]), client.packets().seal(TARGET, b"hello")
        if known:
            request, _ = accept(server, [wire])
            assert request.said == b"hello"
            assert turn_whole(opener, seal(request.sealer, [b"answer"]), into, out) == b"answer"
            assert server.packet_server().open(packet, NOW_S)[1:] == (TARGET, b"hello")
        else:
            with pytest.raises(ShadowsocksError, match="no user"):
                accept(server, [wire])
            with pytest.raises(ShadowsocksError, match="no user"):
                server.packet_server().open(packet, NOW_S)


@pytest.mark.parametrize("method", [*OLD, *NEW])
@settings(max_examples=30)
@given(data=st.binary(max_size=1500), answer=st.binary(max_size=1500))
def test_datagrams_go_there_and_back_once(method: str, data: bytes, answer: bytes) -> None:
    client, server = cipher_of(method, seed=2).packets(), cipher_of(method).packet_server()
    packet = client.seal(Target("192.0.2.1", 53), data)
    session, target, heard = server.open(packet, NOW_S)
    assert (target, heard) == (Target("192.0.2.1", 53), data)
    with pytest.raises(ReplayError):
        server.open(packet, NOW_S)
    assert client.open(server.seal(session, target, answer)) == (target, answer)


@pytest.mark.parametrize("method", NEW)
def test_an_answer_comes_once_and_to_its_session_alone(method: str) -> None:
    server = cipher_of(method).packet_server()
    first, second = (cipher_of(method, seed=seed).packets() for seed in (2, 3))
    session, target, _ = server.open(first.seal(TARGET, b"question"), NOW_S)
    answer = server.seal(session, target, b"answer")
    with pytest.raises(ShadowsocksError, match="not for this session"):
        second.open(answer)
    first.open(answer)
    with pytest.raises(ReplayError):
        first.open(answer)


@pytest.mark.parametrize("method", [*OLD, *NEW])
@settings(max_examples=30)
@given(junk=st.binary(max_size=200))
def test_packets_of_strangers_raise_nothing_unexpected(method: str, junk: bytes) -> None:
    for opening in (cipher_of(method).packets().open, lambda raw: cipher_of(method).packet_server().open(raw, NOW_S)):
        with pytest.raises(ShadowsocksError):
            opening(junk)


@settings(max_examples=30)
@given(junk=st.binary(max_size=100))
def test_packets_of_strangers_raise_nothing_unexpected_where_users_have_keys_of_their_own(junk: bytes) -> None:
    method = "2022-blake3-aes-128-gcm"
    users = (base64.b64decode(key_text(method, "ann")),)
    server = Sip022(method, key_text(method), random.Random(1).randbytes, lambda: NOW_S, users).packet_server()
    with pytest.raises(ShadowsocksError):
        server.open(junk, NOW_S)


@pytest.mark.parametrize("method", [*OLD, *NEW])
def test_a_datagram_that_cannot_be_sent_is_refused(method: str) -> None:
    with pytest.raises(ShadowsocksError, match="too long"):
        cipher_of(method).packets().seal(TARGET, bytes(65_500))


@given(st.lists(st.integers(0, 6000), max_size=300))
def test_a_window_admits_each_number_once_and_none_far_behind(numbers: list[int]) -> None:
    window, seen = Window(), set[int]()
    for number in numbers:
        far_behind = bool(seen) and number <= max(seen) - shadowsocks_2022.WINDOW_PACKETS
        assert window.admit(number) is (number not in seen and not far_behind)
        if not far_behind:
            seen.add(number)


@pytest.mark.parametrize("step", [1, 7, 2**40])
def test_a_window_takes_no_more_memory_however_many_packets_come(step: int) -> None:
    window = Window()
    for number in range(0, 3 * shadowsocks_2022.WINDOW_PACKETS * step, step):
        assert window.admit(number)
    assert window._seen.bit_length() <= shadowsocks_2022.WINDOW_PACKETS


def test_salts_are_remembered_and_forgotten_by_number_or_by_time() -> None:
    salts = [sha256(bytes((number,))).digest() for number in range(250)]
    by_number = Replays(b"k", capacity=100)
    assert all(by_number.first(salt, 0) for salt in salts)
    assert not any(by_number.first(salt, 0) for salt in salts[-100:])
    by_time = Replays(b"k", capacity=100, lasting_s=60)
    assert by_time.first(salts[0], 0)
    assert not by_time.first(salts[0], 59)
    assert by_time.first(salts[1], 61)
    assert not by_time.first(salts[1], 119)
    assert by_time.first(salts[0], 1000)


@pytest.mark.parametrize("method", NEW)
@pytest.mark.parametrize("password", ["", "secret", base64.b64encode(bytes(7)).decode(), "ключ"])
def test_a_password_that_is_no_key_is_refused_with_what_is_needed(method: str, password: str) -> None:
    with pytest.raises(UsageError, match="bytes in base64"):
        Sip022(method, password, random.Random(1).randbytes, lambda: NOW_S)


@pytest.mark.parametrize("make", [Sip004, Sip022])
def test_a_method_that_is_not_known_is_refused_with_those_that_are(make: Callable[..., Cipher]) -> None:
    with pytest.raises(UsageError, match="use one of"):
        make("rc4-md5", "secret", random.Random(1).randbytes, lambda: NOW_S)


def test_keys_are_derived_as_the_standards_say() -> None:
    # OpenSSL: openssl enc -aes-256-cbc -md md5 -nosalt -pass pass:foobar -P
    assert bytes_to_key(b"foobar", 32).hex() == "3858f62230ac3c915f300c664312c63f568378529614d22ddb49237d2f60bfdf"
    # RFC 5869 gives HKDF-SHA1 no case with this info; the cryptography library's HKDF is the second opinion.
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    for size in (16, 32):
        key, salt = bytes(range(size)), bytes(range(100, 100 + size))
        assert subkey(key, salt) == HKDF(SHA1(), size, salt, b"ss-subkey").derive(key)
    assert len(session_key(bytes(16), bytes(16))) == 16
