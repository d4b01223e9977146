"""Shadowsocks with AEAD ciphers (SIP004), and what its edition of 2022 shares with it: the chunks of a stream.

A stream is a salt, then chunks: a sealed length of 2 bytes and that many sealed bytes. Keys are of one direction of one
stream, derived from the salt; nonces count. In SIP004 the first bytes a client seals are the address, a UDP packet is a
salt and one sealed address with its payload, and the password is stretched as OpenSSL once did (EVP_BytesToKey).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from outlast import address
from outlast.address import ADDRESS_MAX_BYTES, AddressError, Target
from outlast.errors import ProtocolError, Sentence, UsageError
from outlast.rooms.reach.proto.replay import Replays

TAG_BYTES: Final = 16
LENGTH_BYTES: Final = 2 + TAG_BYTES
READ_BYTES: Final = 1 << 18  # as a pump reads
DATAGRAM_MAX_BYTES: Final = 65507
_INFO: Final = b"ss-subkey"
_ZERO_NONCE: Final = bytes(12)

AEAD = AESGCM | ChaCha20Poly1305
Chance = Callable[[int], bytes]
"""Returns so many bytes by chance (``secrets.token_bytes``)."""
Clock = Callable[[], float]
"""Returns the time in seconds since 1970 (``time.time``)."""
Head = Callable[[memoryview], tuple[bytes, int]]
"""Given what is to be said first, returns what to write before any chunk, and how much of it that already says."""


class ShadowsocksError(ProtocolError):
    """What came is not Shadowsocks under this key, or was tampered with."""


class ClockError(ShadowsocksError):
    """The other side's clock differs from this one by more than 30 s; ``skew_s`` is how far theirs is ahead."""

    def __init__(self, skew_s: float) -> None:
        super().__init__(
            Sentence(
                "the clocks differ by %(skew_s)d s: set the clock of this device, then try again",
                {"skew_s": round(abs(skew_s))},
            )
        )
        self.skew_s = skew_s


class ReplayError(ShadowsocksError):
    """The same first bytes came before: somebody recorded and replays them."""


@dataclass(frozen=True, slots=True)
class Method:
    """A cipher by the name that links and settings give it; keys and salts have the same size."""

    name: str
    key_bytes: int
    aead: Callable[[bytes], AEAD]
    chunk_max_bytes: int


METHODS: Final = {
    method.name: method
    for method in (
        Method("aes-128-gcm", 16, AESGCM, 0x3FFF),
        Method("aes-256-gcm", 32, AESGCM, 0x3FFF),
        Method("chacha20-ietf-poly1305", 32, ChaCha20Poly1305, 0x3FFF),
    )
}


class Sealer:
    """The codec from plain bytes to chunks; ``head`` writes what comes first.

    ``eager``: the head goes out when the pump is nudged or when the stream ends, even if nothing was said.
    """

    __slots__ = ("_aead", "_count", "_eager", "_head", "_most")

    def __init__(self, aead: AEAD, most: int, head: Head, *, count: int, eager: bool) -> None:
        self._aead, self._most, self._count, self._eager = aead, most, count, eager
        self._head: Head | None = head

    def room(self, into: memoryview) -> memoryview:
        """As many whole chunks as one reading gives."""
        return into[: READ_BYTES // self._most * self._most]

    def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview:
        """What came, in chunks, after the head if that was not written yet."""
        at = put = 0
        if self._head and (size or self._eager):
            raw, at = self._head(into[:size])
            put = len(raw)
            out[:put] = raw
            self._head = None
        count, seal, most = self._count, self._aead.encrypt_into, self._most
        while at < size:
            take = size - at
            if take > most:
                take = most
            begin = put + LENGTH_BYTES
            seal(count.to_bytes(12, "little"), take.to_bytes(2, "big"), None, out[put:begin])
            put = begin + take + TAG_BYTES
            seal((count + 1).to_bytes(12, "little"), into[at : at + take], None, out[begin:put])
            at += take
            count += 2
        self._count = count
        return out[:put]

    def end(self) -> bytes:
        """The head, if it has to be said and was not."""
        head, self._head = self._head, None
        return head(memoryview(b""))[0] if head and self._eager else b""


@dataclass(frozen=True, slots=True)
class Begun:
    """What the first bytes of a stream said: the cipher, the next nonce, and the size of an announced first chunk."""

    aead: AEAD
    count: int
    first_bytes: int = 0


class Opener:
    """The codec from chunks to plain bytes; ``begin`` reads the first ``begin_bytes``, which come before any chunk.

    Raises ShadowsocksError. After that, as after an end within a chunk, nothing more comes out of it.
    """

    __slots__ = ("_begin", "_begin_bytes", "_count", "_gather", "_gathered", "_kept", "_most", "_open", "_want")

    def __init__(self, most: int, begin_bytes: int, begin: Callable[[bytes], Begun]) -> None:
        self._most, self._begin_bytes = most, begin_bytes
        self._begin: Callable[[bytes], Begun] | None = begin
        self._open: Callable[[bytes, memoryview, None, memoryview], int] = _open_nothing
        self._count = self._want = self._gathered = 0
        self._kept = b""  # the begin of something that is not yet whole
        self._gather: memoryview | None = None  # a chunk that comes in small pieces is put together here

    def room(self, into: memoryview) -> memoryview:
        """A place behind what is kept, or in the chunk that is being put together."""
        if self._gather is not None:
            return self._gather[self._gathered :]
        kept = len(self._kept)
        if not kept:
            return into[:READ_BYTES]
        into[:kept] = self._kept
        return into[kept : kept + READ_BYTES]

    def turn(self, into: memoryview, size: int, out: memoryview) -> memoryview:
        """The plain bytes of the chunks that are whole now."""
        if self._gather is not None:
            return self._turn_gathered(size, out)
        at, end = 0, len(self._kept) + size
        if self._begin:
            if end < self._begin_bytes:
                self._kept = bytes(into[:end])
                return out[:0]
            begun, at = self._begin(bytes(into[: self._begin_bytes])), self._begin_bytes
            self._begin = None
            self._open, self._count, self._want = begun.aead.decrypt_into, begun.count, begun.first_bytes
        put, start = 0, at
        count, want, open_into = self._count, self._want, self._open
        try:
            while True:
                if not want:
                    begin = at + LENGTH_BYTES
                    if end < begin:
                        break
                    open_into(count.to_bytes(12, "little"), into[at:begin], None, out[put : put + 2])
                    want, at, count = out[put] << 8 | out[put + 1], begin, count + 1
                    if not 0 < want <= self._most:
                        raise ShadowsocksError("a chunk has no size that a chunk may have")
                begin = at + want + TAG_BYTES
                if end < begin:
                    break
                open_into(count.to_bytes(12, "little"), into[at:begin], None, out[put : put + want])
                put, at, count, want = put + want, begin, count + 1, 0
        except InvalidTag:
            raise ShadowsocksError("the key does not fit, or what came was changed on its way") from None
        self._count, self._want = count, want
        if want and at == start and end > at:  # nothing became whole: do not move the same bytes over and over
            self._gather = memoryview(bytearray(want + TAG_BYTES))
            self._gather[: end - at] = into[at:end]
            self._gathered, self._kept = end - at, b""
        else:
            self._kept = bytes(into[at:end])
        return out[:put]

    def _turn_gathered(self, size: int, out: memoryview) -> memoryview:
        gather = self._gather
        assert gather is not None
        self._gathered += size
        if self._gathered < len(gather):
            return out[:0]
        want = self._want
        try:
            self._open(self._count.to_bytes(12, "little"), gather, None, out[:want])
        except InvalidTag:
            raise ShadowsocksError("the key does not fit, or what came was changed on its way") from None
        self._count, self._want, self._gather, self._gathered = self._count + 1, 0, None, 0
        return out[:want]

    def end(self) -> bytes:
        """Nothing; raises ShadowsocksError when the stream was cut within a chunk."""
        if self._kept or self._want or self._gather is not None:
            raise ShadowsocksError("the stream was cut short")
        return b""


def _open_nothing(nonce: bytes, data: memoryview, more: None, into: memoryview) -> int:
    raise ShadowsocksError("the stream has not begun")


def turn_whole(codec: Sealer | Opener, data: bytes, into: memoryview, out: memoryview) -> bytes:
    """Seal or open bytes that were read elsewhere, with the buffers of a pump; empty where nothing was said."""
    said = b""
    view = memoryview(data)
    while view:
        room = codec.room(into)
        size = min(len(room), len(view))
        room[:size] = view[:size]
        said += codec.turn(into, size, out)
        view = view[size:]
    return said


@dataclass(frozen=True, slots=True)
class Request:
    """What a client of a server asks: to where, with what it said already, and the codecs of the stream."""

    target: Target
    said: bytes
    opener: Opener
    sealer: Sealer
    user: bytes = b""  # whose key it was under, where a server has users


class Acceptor(Protocol):
    """The begin of one stream at a server."""

    def feed(self, data: bytes, into: memoryview, out: memoryview) -> Request | None:
        """Take what came; the request once it is whole. Raises ShadowsocksError (then feed it no more)."""
        ...


class Packets(Protocol):
    """The datagrams of one client."""

    def seal(self, target: Target, data: bytes) -> bytes:
        """Return the packet that takes these bytes there; raises ShadowsocksError when they are too many."""
        ...

    def open(self, packet: bytes) -> tuple[Target, bytes]:
        """Return where a packet's bytes came from, and them; raises ShadowsocksError."""
        ...


class PacketServer(Protocol):
    """The datagrams of all clients of a server. A session is known by some bytes; where it is, the caller keeps."""

    def open(self, packet: bytes, now: float) -> tuple[bytes, Target, bytes]:
        """Return session (empty: the address it came from is all there is), target and bytes; or ShadowsocksError."""
        ...

    def user_of(self, session: bytes) -> bytes:
        """Whose key a session is under, where a server has users; else nothing."""
        ...

    def seal(self, session: bytes, source: Target, data: bytes) -> bytes:
        """Return the packet that brings the session these bytes from there; raises ShadowsocksError."""
        ...


class Cipher(Protocol):
    """One edition of Shadowsocks with its method and key: makes both ends of its streams and datagrams."""

    def request(self, target: Target) -> tuple[Sealer, Opener]:
        """Return a client's codecs for a new stream to ``target``."""
        ...

    def acceptor(self, seen: Replays) -> Acceptor:
        """Return a server's begin of a new stream."""
        ...

    def replays(self) -> Replays:
        """Return the memory that a server's streams share."""
        ...

    def packets(self) -> Packets:
        """Return a client's codec for datagrams."""
        ...

    def packet_server(self) -> PacketServer:
        """Return a server's codec for datagrams."""
        ...


def bytes_to_key(password: bytes, size: int) -> bytes:
    """OpenSSL's EVP_BytesToKey with MD5, no salt and one round, as SIP004 asks; ``size`` bytes."""
    key = part = b""
    while len(key) < size:
        part = md5(part + password, usedforsecurity=False).digest()
        key += part
    return key[:size]


def subkey(key: bytes, salt: bytes) -> bytes:
    """HKDF-SHA1 (RFC 5869) with the info ``ss-subkey``: as many bytes as the key has."""
    secret = hmac.digest(salt, key, "sha1")
    part = hmac.digest(secret, _INFO + b"\1", "sha1")
    return (part + hmac.digest(secret, part + _INFO + b"\2", "sha1"))[: len(key)]


class Sip004:
    """SIP004: methods of METHODS, a password of any text."""

    def __init__(self, method: str, password: str, chance: Chance, clock: Clock) -> None:
        """Raises UsageError for a method that is not known or a password that is none."""
        if method not in METHODS:
            raise UsageError(
                "Shadowsocks method %(method)r is not supported: use one of %(known)s",
                method=method[:40],
                known=", ".join(METHODS),
            )
        if not password:
            raise UsageError("Shadowsocks needs a password")
        self.method = METHODS[method]
        self._chance, self._clock = chance, clock
        self._key = bytes_to_key(password.encode(), self.method.key_bytes)

    def request(self, target: Target) -> tuple[Sealer, Opener]:
        """A client's codecs; address and what is said first go into one chunk."""
        begin = address.encode(target)
        return self._sealer(begin), self._opener(lambda salt: Begun(self._aead(salt), 0))

    def acceptor(self, seen: Replays) -> Acceptor:
        """A server's begin of a stream."""
        return _Acceptor(self, seen)

    def replays(self) -> Replays:
        """The last million salts at least: SIP004 has no clock that would let them be forgotten earlier."""
        return Replays(self._chance(16))

    def packets(self) -> Packets:
        """A client's datagrams."""
        return _Packets(self)

    def packet_server(self) -> PacketServer:
        """A server's datagrams."""
        return _PacketServer(self)

    def seal_packet(self, target: Target, data: bytes) -> bytes:
        """Salt, then address and bytes sealed."""
        plain = address.encode(target) + data
        if len(plain) > DATAGRAM_MAX_BYTES - self.method.key_bytes - TAG_BYTES:
            raise ShadowsocksError("a datagram is too long")
        salt = self._chance(self.method.key_bytes)
        return salt + self._aead(salt).encrypt(_ZERO_NONCE, plain, None)

    def open_packet(self, packet: bytes) -> tuple[bytes, Target, bytes]:
        """Salt, address and bytes of a packet; raises ShadowsocksError."""
        size = self.method.key_bytes
        if len(packet) < size + TAG_BYTES:
            raise ShadowsocksError("a packet is too short")
        salt = packet[:size]
        try:
            plain = self._aead(salt).decrypt(_ZERO_NONCE, packet[size:], None)
        except InvalidTag:
            raise ShadowsocksError("a packet is of another key") from None
        target, at = read_address(plain)
        return salt, target, plain[at:]

    def _aead(self, salt: bytes) -> AEAD:
        return self.method.aead(subkey(self._key, salt))

    def _opener(self, begin: Callable[[bytes], Begun]) -> Opener:
        return Opener(self.method.chunk_max_bytes, self.method.key_bytes, begin)

    def _sealer(self, begin: bytes) -> Sealer:
        salt = self._chance(self.method.key_bytes)
        aead, most = self._aead(salt), self.method.chunk_max_bytes

        def head(first: memoryview) -> tuple[bytes, int]:
            take = min(len(first), most - len(begin)) if begin else 0
            return salt + (_chunk(aead, 0, begin + first[:take]) if begin else b""), take

        return Sealer(aead, most, head, count=2 if begin else 0, eager=bool(begin))


class _Acceptor:
    def __init__(self, cipher: Sip004, seen: Replays) -> None:
        self._cipher, self._seen = cipher, seen
        self._salt = self._said = b""
        self._opener = cipher._opener(self._begin)

    def _begin(self, salt: bytes) -> Begun:
        self._salt = salt
        return Begun(self._cipher._aead(salt), 0)

    def feed(self, data: bytes, into: memoryview, out: memoryview) -> Request | None:
        said = turn_whole(self._opener, data, into, out)
        if said and self._salt:  # the first chunk opened: whoever sent it knew the key
            if not self._seen.first(self._salt, self._cipher._clock()):
                raise ReplayError("a stream began as one did before")
            self._salt = b""
        self._said += said
        try:
            found = address.decode(self._said)
        except AddressError as wrong:
            raise ShadowsocksError(wrong.line) from wrong
        if found is None:
            return None
        return Request(found[0], self._said[found[1] :], self._opener, self._cipher._sealer(b""))


class _Packets:
    def __init__(self, cipher: Sip004) -> None:
        self._cipher = cipher

    def seal(self, target: Target, data: bytes) -> bytes:
        return self._cipher.seal_packet(target, data)

    def open(self, packet: bytes) -> tuple[Target, bytes]:
        return self._cipher.open_packet(packet)[1:]


class _PacketServer:
    def __init__(self, cipher: Sip004) -> None:
        self._cipher = cipher
        self._seen = cipher.replays()

    def open(self, packet: bytes, now: float) -> tuple[bytes, Target, bytes]:
        salt, target, data = self._cipher.open_packet(packet)
        if not self._seen.first(salt, now):
            raise ReplayError("a packet came before")
        return b"", target, data

    def user_of(self, session: bytes) -> bytes:
        return b""

    def seal(self, session: bytes, source: Target, data: bytes) -> bytes:
        return self._cipher.seal_packet(source, data)


def _chunk(aead: AEAD, count: int, plain: bytes) -> bytes:
    size = aead.encrypt(count.to_bytes(12, "little"), len(plain).to_bytes(2, "big"), None)
    return size + aead.encrypt((count + 1).to_bytes(12, "little"), plain, None)


def read_address(plain: bytes) -> tuple[Target, int]:
    """The address that these bytes begin with and where it ends; raises ShadowsocksError."""
    try:
        found = address.decode(plain[:ADDRESS_MAX_BYTES])
    except AddressError as wrong:
        raise ShadowsocksError(wrong.line) from wrong
    if found is None:
        raise ShadowsocksError("an address is cut short")
    return found
