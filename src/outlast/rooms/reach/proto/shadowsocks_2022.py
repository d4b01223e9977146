"""Shadowsocks 2022 (SIP022), with identity headers (SIP023): keys by BLAKE3, times, typed headers, UDP sessions.

Who begins a stream or sends a packet says when; more than 30 s off is refused, and what is less old is remembered, so
that nothing recorded passes twice. Keys are base64, of exactly the size that the method has; ``KEY1:KEY2`` names the
server's key and then the user's.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt
from nacl.exceptions import CryptoError

from outlast import address
from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.proto.replay import Replays
from outlast.rooms.reach.proto.shadowsocks import (
    AEAD,
    DATAGRAM_MAX_BYTES,
    TAG_BYTES,
    Acceptor,
    Begun,
    Chance,
    Clock,
    ClockError,
    Method,
    Opener,
    Packets,
    PacketServer,
    ReplayError,
    Request,
    Sealer,
    ShadowsocksError,
    read_address,
    turn_whole,
)

TOLERANCE_S: Final = 30
PADDING_MAX_BYTES: Final = 900
SESSIONS_MAX: Final = 4096
"""Sessions of datagrams that a server remembers; each of its users has the same share."""
IDENTITY_BYTES: Final = 16
WINDOW_PACKETS: Final = 2048
_FROM_CLIENT, _FROM_SERVER = 0, 1
_FIXED_BYTES: Final = 1 + 8 + 2
_SESSION_CONTEXT: Final = "shadowsocks 2022 session subkey"
_IDENTITY_CONTEXT: Final = "shadowsocks 2022 identity subkey"
_XCHACHA_NONCE_BYTES: Final = 24

METHODS: Final = {
    method.name: method
    for method in (
        Method("2022-blake3-aes-128-gcm", 16, AESGCM, 0xFFFF),
        Method("2022-blake3-aes-256-gcm", 32, AESGCM, 0xFFFF),
        Method("2022-blake3-chacha20-poly1305", 32, ChaCha20Poly1305, 0xFFFF),
    )
}


def session_key(key: bytes, salt: bytes) -> bytes:
    """The key of one direction of a stream, or of one session of datagrams; as long as ``key``."""
    return blake3(key + salt, derive_key_context=_SESSION_CONTEXT).digest(length=len(key))


def identity_key(key: bytes, salt: bytes) -> bytes:
    """The key that an identity header of a stream is under; as long as ``key``."""
    return blake3(key + salt, derive_key_context=_IDENTITY_CONTEXT).digest(length=len(key))


def identity_of(key: bytes) -> bytes:
    """What a key is called in an identity header: 16 bytes of its BLAKE3 hash."""
    return blake3(key).digest(length=IDENTITY_BYTES)


class Window:
    """Which packets of a session came: none passes twice, and none that is far behind passes."""

    __slots__ = ("_next", "_seen")

    def __init__(self) -> None:
        self._next, self._seen = 0, 0

    def admit(self, number: int) -> bool:
        """Whether packet ``number`` (64 bits) comes for the first time; from now on it came."""
        if number >= self._next:
            ahead = number + 1 - self._next
            self._seen = (self._seen << min(ahead, WINDOW_PACKETS) | 1) & ((1 << WINDOW_PACKETS) - 1)
            self._next = number + 1
            return True
        behind = self._next - 1 - number
        if behind >= WINDOW_PACKETS or self._seen >> behind & 1:
            return False
        self._seen |= 1 << behind
        return True


class Sip022:
    """SIP022: methods of METHODS, a password of one key or several (of the server, then of the user)."""

    def __init__(self, method: str, password: str, chance: Chance, clock: Clock, users: tuple[bytes, ...] = ()) -> None:
        """``users``: a server's users' keys, when its streams say whose they are. Raises UsageError."""
        if method not in METHODS:
            raise UsageError(
                "Shadowsocks method %(method)r is not supported: use one of %(known)s",
                method=method[:40],
                known=", ".join(METHODS),
            )
        self.method = METHODS[method]
        self.chance, self.clock = chance, clock
        self.keys = tuple(read_key(part, self.method) for part in password.split(":"))
        self.admit(users)
        self.blocks = self.method.aead is AESGCM
        if not self.blocks and (users or len(self.keys) > 1):
            raise UsageError("%(method)s knows no users: give one key, or use 2022-blake3-aes-256-gcm", method=method)

    def admit(self, users: tuple[bytes, ...]) -> None:
        """From now on these are a server's users."""
        self.users = {identity_of(key): key for key in users}

    def knows(self, key: bytes) -> bool:
        """Whether what is under this key may go on."""
        return not self.users or identity_of(key) in self.users

    def request(self, target: Target) -> tuple[Sealer, Opener]:
        """A client's codecs; where to, and what is said first, are in the head."""
        salt = self.chance(self.method.key_bytes)
        where = address.encode(target)
        aead = self.method.aead(session_key(self.keys[-1], salt))

        def head(first: memoryview) -> tuple[bytes, int]:
            take = min(len(first), self.method.chunk_max_bytes - len(where) - 2 - PADDING_MAX_BYTES)
            padding = b"" if take > PADDING_MAX_BYTES else self.padding()
            variable = where + len(padding).to_bytes(2, "big") + padding + first[:take]
            fixed = bytes((_FROM_CLIENT,)) + self.now() + len(variable).to_bytes(2, "big")
            sealed = aead.encrypt(_nonce(0), fixed, None) + aead.encrypt(_nonce(1), variable, None)
            return salt + self._identities(salt) + sealed, take

        def begin(raw: bytes) -> Begun:
            size = self.method.key_bytes
            answer = self.method.aead(session_key(self.keys[-1], raw[:size]))
            fixed = _open(answer, 0, raw[size:])
            if fixed[0] != _FROM_SERVER or fixed[9 : 9 + size] != salt:
                raise ShadowsocksError("this is the answer to another stream")
            self.check_time(fixed[1:9])
            return Begun(answer, 1, int.from_bytes(fixed[9 + size :], "big"))

        sealer = Sealer(aead, self.method.chunk_max_bytes, head, count=2, eager=True)
        before = self.method.key_bytes + _FIXED_BYTES + self.method.key_bytes + TAG_BYTES
        return sealer, Opener(self.method.chunk_max_bytes, before, begin)

    def acceptor(self, seen: Replays) -> Acceptor:
        """A server's begin of a stream."""
        return _Acceptor(self, seen)

    def replays(self) -> Replays:
        """All salts for as long as their times are taken, twice 30 s."""
        return Replays(self.chance(16), lasting_s=2 * TOLERANCE_S)

    def packets(self) -> Packets:
        """A client's datagrams: one session."""
        return _Packets(self)

    def packet_server(self) -> PacketServer:
        """A server's datagrams."""
        return _PacketServer(self)

    def padding(self) -> bytes:
        """1 to 900 bytes."""
        return self.chance(1 + int.from_bytes(self.chance(2), "big") % PADDING_MAX_BYTES)

    def now(self) -> bytes:
        """The time as headers say it."""
        return int(self.clock()).to_bytes(8, "big")

    def check_time(self, said: bytes) -> None:
        """Raise ClockError when that is not about now."""
        skew = int.from_bytes(said, "big") - self.clock()
        if abs(skew) > TOLERANCE_S:
            raise ClockError(skew)

    def _identities(self, salt: bytes) -> bytes:
        return b"".join(
            _encrypt_block(identity_key(key, salt), identity_of(following))
            for key, following in zip(self.keys, self.keys[1:], strict=False)
        )


class _Acceptor:
    def __init__(self, cipher: Sip022, seen: Replays) -> None:
        self._cipher, self._seen = cipher, seen
        size = cipher.method.key_bytes
        identities = IDENTITY_BYTES if cipher.users else 0
        self._opener = Opener(cipher.method.chunk_max_bytes, size + identities + _FIXED_BYTES + TAG_BYTES, self._begin)
        self._header_bytes = 0
        self._salt = self._key = self._said = b""

    def _begin(self, raw: bytes) -> Begun:
        cipher, size = self._cipher, self._cipher.method.key_bytes
        salt, sealed, key = raw[:size], raw[size:], cipher.keys[-1]
        if cipher.users:
            identity = _decrypt_block(identity_key(key, salt), sealed[:IDENTITY_BYTES])
            sealed = sealed[IDENTITY_BYTES:]
            if (found := cipher.users.get(identity)) is None:
                raise ShadowsocksError("no user of that name")
            key = found
        aead = cipher.method.aead(session_key(key, salt))
        fixed = _open(aead, 0, sealed)
        self._header_bytes = int.from_bytes(fixed[9:], "big")
        if fixed[0] != _FROM_CLIENT or not self._header_bytes:
            raise ShadowsocksError("a stream does not begin as a client's")
        cipher.check_time(fixed[1:9])
        if not self._seen.first(salt, cipher.clock()):
            raise ReplayError("a stream began as one did before")
        self._salt, self._key = salt, key
        return Begun(aead, 1, self._header_bytes)

    def feed(self, data: bytes, into: memoryview, out: memoryview) -> Request | None:
        self._said += turn_whole(self._opener, data, into, out)
        if not self._header_bytes or len(self._said) < self._header_bytes:
            return None
        header = self._said[: self._header_bytes]
        target, at = read_address(header)
        padded = int.from_bytes(header[at : at + 2], "big")
        if len(header) < at + 2 + padded:
            raise ShadowsocksError("a header is cut short")
        return Request(target, self._said[at + 2 + padded :], self._opener, self._sealer(), self._key)

    def _sealer(self) -> Sealer:
        cipher, asked = self._cipher, self._salt
        salt = cipher.chance(cipher.method.key_bytes)
        aead = cipher.method.aead(session_key(self._key, salt))

        def head(first: memoryview) -> tuple[bytes, int]:
            take = min(len(first), cipher.method.chunk_max_bytes)
            fixed = bytes((_FROM_SERVER,)) + cipher.now() + asked + take.to_bytes(2, "big")
            chunk = aead.encrypt(_nonce(1), first[:take], None)
            return salt + aead.encrypt(_nonce(0), fixed, None) + chunk, take

        return Sealer(aead, cipher.method.chunk_max_bytes, head, count=2, eager=False)


@dataclass(slots=True)
class _Theirs:
    """A session that the other side numbers: its cipher and which of its packets came."""

    aead: AEAD | None
    window: Window = field(default_factory=Window)


_Known = Callable[[bytes], _Theirs | None]


class _Packets:
    def __init__(self, cipher: Sip022) -> None:
        self._cipher = cipher
        self._ours = _Numbered(cipher, cipher.keys[-1], cipher.keys)
        # An answer comes from the server's session or, since that may have begun anew, from the one before.
        self._theirs: OrderedDict[bytes, _Theirs] = OrderedDict()

    def seal(self, target: Target, data: bytes) -> bytes:
        cipher = self._cipher
        padding = cipher.padding() if target.port == 53 else b""
        head = bytes((_FROM_CLIENT,)) + cipher.now() + len(padding).to_bytes(2, "big") + padding
        return self._ours.seal(head + address.encode(target) + data)

    def open(self, packet: bytes) -> tuple[Target, bytes]:
        cipher = self._cipher
        session, number, plain = _open_packet(cipher, cipher.keys[-1], packet, self._theirs.get)
        if len(plain) < 1 + 8 + 8 + 2 or plain[0] != _FROM_SERVER or plain[9:17] != self._ours.session:
            raise ShadowsocksError("a packet is not for this session")
        cipher.check_time(plain[1:9])
        theirs = self._theirs.get(session) or _Theirs(_session_aead(cipher, cipher.keys[-1], session))
        if not theirs.window.admit(number):
            raise ReplayError("a packet came before")
        self._theirs[session] = theirs
        if len(self._theirs) > 2:
            self._theirs.popitem(last=False)
        return _read_packet(plain, 17)


@dataclass(slots=True)
class _Session:
    """A client's session at a server, and the one by which it is answered."""

    theirs: _Theirs
    ours: _Numbered
    key: bytes


class _PacketServer:
    def __init__(self, cipher: Sip022) -> None:
        self._cipher = cipher
        self._sessions: dict[bytes, _Session] = {}
        self._own: dict[bytes, OrderedDict[bytes, None]] = {}  # by user; the one that was used last comes last

    def open(self, packet: bytes, now: float) -> tuple[bytes, Target, bytes]:
        cipher, key = self._cipher, self._cipher.keys[-1]
        if cipher.users:
            key, packet = self._whose(packet)
        session, number, plain = _open_packet(cipher, key, packet, self._known, self._cipher.keys[-1])
        if len(plain) < 1 + 8 + 2 or plain[0] != _FROM_CLIENT:
            raise ShadowsocksError("a packet is not a client's")
        cipher.check_time(plain[1:9])
        if (found := self._sessions.get(session)) is None:
            found = _Session(_Theirs(_session_aead(cipher, key, session)), _Numbered(cipher, key, (key,)), key)
        elif found.key != key:
            raise ShadowsocksError("a session is somebody else's")
        if not found.theirs.window.admit(number):
            raise ReplayError("a packet came before")
        self._sessions[session] = found
        self._used(key, session)
        target, data = _read_packet(plain, 9)
        return session, target, data

    def _used(self, key: bytes, session: bytes) -> None:
        """Remember the session in its user's share, and none of who is no user any more."""
        if key not in self._own:
            for gone in [one for one in self._own if not self._cipher.knows(one)]:
                for ended in self._own.pop(gone):
                    del self._sessions[ended]
        own = self._own.setdefault(key, OrderedDict())
        own[session] = None
        own.move_to_end(session)
        while len(own) > max(1, SESSIONS_MAX // max(1, len(self._cipher.users))):
            del self._sessions[own.popitem(last=False)[0]]

    def user_of(self, session: bytes) -> bytes:
        return self._sessions[session].key if self._cipher.users else b""

    def seal(self, session: bytes, source: Target, data: bytes) -> bytes:
        if (found := self._sessions.get(session)) is None:
            raise ShadowsocksError("the session has ended")
        if not self._cipher.knows(found.key):
            raise ShadowsocksError("no user of that name")
        head = bytes((_FROM_SERVER,)) + self._cipher.now() + session + b"\0\0"
        return found.ours.seal(head + address.encode(source) + data)

    def _known(self, session: bytes) -> _Theirs | None:
        found = self._sessions.get(session)
        return found.theirs if found else None

    def _whose(self, packet: bytes) -> tuple[bytes, bytes]:
        """The key of the user that a packet names, and the packet without that name."""
        first = self._cipher.keys[-1]
        if len(packet) < 2 * IDENTITY_BYTES:
            raise ShadowsocksError("a packet is too short")
        header = _decrypt_block(first, packet[:IDENTITY_BYTES])
        identity = _xor(_decrypt_block(first, packet[IDENTITY_BYTES : 2 * IDENTITY_BYTES]), header)
        if (key := self._cipher.users.get(identity)) is None:
            raise ShadowsocksError("no user of that name")
        return key, packet[:IDENTITY_BYTES] + packet[2 * IDENTITY_BYTES :]


class _Numbered:
    """A session that this side numbers."""

    __slots__ = ("_aead", "_chance", "_key", "_keys", "_next", "session")

    def __init__(self, cipher: Sip022, key: bytes, keys: tuple[bytes, ...]) -> None:
        self._key, self._keys, self._chance = key, keys, cipher.chance
        self._next = 0
        self.session = cipher.chance(8)
        self._aead = _session_aead(cipher, key, self.session)

    def seal(self, plain: bytes) -> bytes:
        header = self.session + self._next.to_bytes(8, "big")
        self._next += 1
        if self._aead is None:
            nonce = self._chance(_XCHACHA_NONCE_BYTES)
            packet = nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(header + plain, b"", nonce, self._key)
        else:
            identities = b"".join(
                _encrypt_block(key, _xor(identity_of(following), header))
                for key, following in zip(self._keys, self._keys[1:], strict=False)
            )
            body = self._aead.encrypt(header[4:], plain, None)
            packet = _encrypt_block(self._keys[0], header) + identities + body
        if len(packet) > DATAGRAM_MAX_BYTES:
            raise ShadowsocksError("a datagram is too long")
        return packet


def _session_aead(cipher: Sip022, key: bytes, session: bytes) -> AEAD | None:
    """The cipher of a session; None where packets are under the key itself (XChaCha20)."""
    return cipher.method.aead(session_key(key, session)) if cipher.blocks else None


def _open_packet(
    cipher: Sip022, key: bytes, packet: bytes, known: _Known, header_key: bytes | None = None
) -> tuple[bytes, int, bytes]:
    """Session, number and plain bytes of a packet; raises ShadowsocksError."""
    try:
        if not cipher.blocks:
            if len(packet) < _XCHACHA_NONCE_BYTES + 16 + TAG_BYTES:
                raise ShadowsocksError("a packet is too short")
            nonce, sealed = packet[:_XCHACHA_NONCE_BYTES], packet[_XCHACHA_NONCE_BYTES:]
            plain = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, b"", nonce, key)
            return plain[:8], int.from_bytes(plain[8:16], "big"), plain[16:]
        if len(packet) < 16 + TAG_BYTES:
            raise ShadowsocksError("a packet is too short")
        header = _decrypt_block(header_key or key, packet[:16])
        theirs = known(header[:8])
        aead = (theirs and theirs.aead) or cipher.method.aead(session_key(key, header[:8]))
        return header[:8], int.from_bytes(header[8:], "big"), aead.decrypt(header[4:], packet[16:], None)
    except (InvalidTag, CryptoError):
        raise ShadowsocksError("a packet is of another key") from None


def _read_packet(plain: bytes, at: int) -> tuple[Target, bytes]:
    """Address and bytes behind the padding, whose size stands at ``at``."""
    begin = at + 2 + int.from_bytes(plain[at : at + 2], "big")
    target, size = read_address(plain[begin:])
    return target, plain[begin + size :]


def read_key(text: str, method: Method) -> bytes:
    """A key in base64; raises UsageError, which says how long it has to be."""
    try:
        key = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != method.key_bytes:
        raise UsageError(
            "%(name)s needs a key of %(key_bytes)s bytes in base64, not a password of any text",
            name=method.name,
            key_bytes=method.key_bytes,
        )
    return key


def _open(aead: AEAD, count: int, sealed: bytes) -> bytes:
    try:
        return aead.decrypt(_nonce(count), sealed, None)
    except InvalidTag:
        raise ShadowsocksError("the key does not fit, or what came was changed on its way") from None


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "little")


def _encrypt_block(key: bytes, block: bytes) -> bytes:
    return BlockCipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def _decrypt_block(key: bytes, block: bytes) -> bytes:
    return BlockCipher(algorithms.AES(key), modes.ECB()).decryptor().update(block)


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=True))
