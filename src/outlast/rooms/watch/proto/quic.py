"""QUIC's Initial packets (RFC 9000, 9001): one of a client's own making, and what comes back to it.

An answer that is made with the Initial's keys, a Retry or a Version Negotiation that repeats its connection ids shows
that a QUIC server is reachable; nothing further is exchanged. Pure: connection ids, randomness and keys are arguments.
Reads hostile bytes; ``read_answer`` raises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from outlast import tls

VERSION_1: Final = 1
DATAGRAM_MIN_BYTES: Final = 1200
"""A datagram with an Initial of a client has at least so many (RFC 9000, 14.1); servers drop smaller ones."""

_SALT: Final = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
_TAG: Final = 16
_SAMPLE: Final = 16
_NUMBER: Final = 4
_CID_MAX: Final = 20
_INITIAL, _RETRY = 0, 3
_RETRY_KEY: Final = bytes.fromhex("be0c690b9f66575a1d766b54e368c84e")
_RETRY_NONCE: Final = bytes.fromhex("461599d35d632bf2239825bb")


@dataclass(frozen=True, slots=True)
class Keys:
    """The protection of one side's Initial packets: AES-128-GCM key, IV (12 B) and header protection key."""

    key: bytes
    iv: bytes
    hp: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``kind`` is "initial", "retry", "version_negotiation", or "invalid".

    ``versions`` are those of a Version Negotiation; ``hello`` says what an Initial's CRYPTO frame holds; ``close`` is
    the error code of an Initial that closes the connection.
    """

    kind: str
    versions: tuple[int, ...] = ()
    hello: str = ""
    close: int | None = None


def keys(cid: bytes, side: str) -> Keys:
    """The keys of Initial packets by the connection id that the client chose first; ``side`` is client or server."""
    extract = HMAC(_SALT, hashes.SHA256())
    extract.update(cid)
    secret = _expand(extract.finalize(), f"{side} in", 32)
    return Keys(_expand(secret, "quic key", 16), _expand(secret, "quic iv", 12), _expand(secret, "quic hp", 16))


def client_initial(server_name: str | None, dcid: bytes, scid: bytes, random: bytes, public_key: bytes) -> bytes:
    """A datagram with a ClientHello for HTTP/3: connection ids of 8 to 20 bytes, 32 random bytes, an X25519 key."""
    parameters = b"\x0f" + _varint(len(scid)) + scid + bytes.fromhex("01048000753004048010000008024064")
    hello = tls.client_hello(server_name, random, public_key, alpn=("h3",), quic=parameters)
    frame = b"\x06\x00" + _varint(len(hello)) + hello
    head = _head(_INITIAL, VERSION_1, dcid, scid)
    room = DATAGRAM_MIN_BYTES - len(head) - 2 - _NUMBER - _TAG
    return seal(head, 0, frame.ljust(room, b"\0"), keys(dcid, "client"))


def seal(head: bytes, number: int, payload: bytes, side: Keys) -> bytes:
    """Protect a packet: ``head`` ends before the length; the packet number takes 4 bytes."""
    head += (0x4000 | (_NUMBER + len(payload) + _TAG)).to_bytes(2) + number.to_bytes(_NUMBER)
    body = AESGCM(side.key).encrypt(_nonce(side.iv, number), payload, head)
    mask = _mask(side.hp, body[:_SAMPLE])
    first = head[0] ^ mask[0] & 0x0F
    masked = bytes(a ^ b for a, b in zip(head[-_NUMBER:], mask[1:], strict=True))
    return first.to_bytes(1) + head[1:-_NUMBER] + masked + body


def open_initial(packet: bytes, side: Keys) -> bytes | None:
    """The payload of an Initial packet at the beginning of a datagram; None when it is none, or not by these keys."""
    parts = _parse(packet)
    if parts is None or parts.type != _INITIAL:
        return None
    at = parts.rest
    token, at = _read_varint(packet, at)
    length, at = _read_varint(packet, at + token)
    if length < _NUMBER + _SAMPLE or at + length > len(packet):
        return None
    mask = _mask(side.hp, packet[at + 4 : at + 4 + _SAMPLE])
    first = packet[0] ^ mask[0] & 0x0F
    size = (first & 3) + 1
    number = bytes(a ^ b for a, b in zip(packet[at : at + size], mask[1:], strict=False))
    head = first.to_bytes(1) + packet[1:at] + number
    try:
        body = packet[at + size : at + length]
        return AESGCM(side.key).decrypt(_nonce(side.iv, int.from_bytes(number)), body, head)
    except InvalidTag:
        return None


def read_answer(datagram: bytes, dcid: bytes, scid: bytes) -> Answer:
    """What a datagram answers to the Initial with these connection ids; whatever does not repeat them is invalid."""
    parts = _parse(datagram)
    if parts is None or parts.dcid != scid:
        return Answer("invalid")
    if parts.version == 0:
        rest = datagram[parts.rest :]
        if parts.scid != dcid or not rest or len(rest) % 4:
            return Answer("invalid")
        return Answer("version_negotiation", tuple(int.from_bytes(rest[at : at + 4]) for at in range(0, len(rest), 4)))
    if parts.type == _RETRY:
        return Answer("retry" if _is_retry(datagram, dcid) else "invalid")
    payload = open_initial(datagram, keys(dcid, "server"))
    if payload is None:
        return Answer("invalid")
    return _read_frames(payload)


@dataclass(frozen=True, slots=True)
class _Parts:
    type: int
    version: int
    dcid: bytes
    scid: bytes
    rest: int


def _parse(packet: bytes) -> _Parts | None:
    """The invariant part of a long header (RFC 8999)."""
    if len(packet) < 7 or not packet[0] & 0x80:
        return None
    cids, at = [], 5
    for _ in range(2):
        size = packet[at] if at < len(packet) else _CID_MAX + 1
        if size > _CID_MAX or at + 1 + size > len(packet):
            return None
        cids.append(packet[at + 1 : at + 1 + size])
        at += 1 + size
    return _Parts(packet[0] >> 4 & 3, int.from_bytes(packet[1:5]), cids[0], cids[1], at)


def _read_frames(payload: bytes) -> Answer:
    """The first frames of an Initial's payload, until one says what it is about."""
    at = 0
    while at < len(payload):
        kind, at = payload[at], at + 1
        if kind in (0, 1):
            continue
        if kind in (2, 3):
            at = _after_ack(payload, at, ecn=kind == 3)
        elif kind == 6:
            _, at = _read_varint(payload, at)
            size, at = _read_varint(payload, at)
            return Answer("initial", hello=tls.read_handshake(payload[at : at + size]).kind)
        elif kind in (0x1C, 0x1D):
            return Answer("initial", close=_read_varint(payload, at)[0])
        else:
            break
    return Answer("initial")


def _after_ack(payload: bytes, at: int, *, ecn: bool) -> int:
    for _ in range(2):
        _, at = _read_varint(payload, at)
    ranges, at = _read_varint(payload, at)
    for _ in range(min(2 * ranges + 1 + 3 * ecn, len(payload))):
        _, at = _read_varint(payload, at)
    return at


def _is_retry(datagram: bytes, dcid: bytes) -> bool:
    """Whether a Retry's integrity tag is right (RFC 9001, 5.8)."""
    pseudo = len(dcid).to_bytes(1) + dcid + datagram[:-_TAG]
    try:
        AESGCM(_RETRY_KEY).decrypt(_RETRY_NONCE, datagram[-_TAG:], pseudo)
    except InvalidTag:
        return False
    return True


def _head(type: int, version: int, dcid: bytes, scid: bytes) -> bytes:
    first = 0xC0 | type << 4 | _NUMBER - 1
    cids = len(dcid).to_bytes(1) + dcid + len(scid).to_bytes(1) + scid
    return first.to_bytes(1) + version.to_bytes(4) + cids + b"\0"


def server_initial(client: bytes, scid: bytes, payload: bytes) -> bytes | None:
    """An Initial that answers a client's datagram; None when that is none. For servers that test the probe."""
    parts = _parse(client)
    if parts is None or open_initial(client, keys(parts.dcid, "client")) is None:
        return None
    return seal(_head(_INITIAL, parts.version, parts.scid, scid), 0, payload, keys(parts.dcid, "server"))


def _expand(secret: bytes, label: str, size: int) -> bytes:
    full = b"tls13 " + label.encode("ascii")
    info = size.to_bytes(2) + len(full).to_bytes(1) + full + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def _mask(hp: bytes, sample: bytes) -> bytes:
    # One block of AES is what header protection is defined by (RFC 9001, 5.4.3).
    return Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sample)[:5]


def _nonce(iv: bytes, number: int) -> bytes:
    return (int.from_bytes(iv) ^ number).to_bytes(12)


def _varint(value: int) -> bytes:
    return value.to_bytes(1) if value < 64 else (0x4000 | value).to_bytes(2)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000, 16), and where what follows begins; zeros stand for what is missing."""
    if at >= len(data):
        return 0, len(data) + 1
    size = 1 << (data[at] >> 6)
    return int.from_bytes(data[at : at + size].ljust(size, b"\0")) & (1 << 8 * size - 2) - 1, at + size
