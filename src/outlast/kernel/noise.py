"""The start of a TCP link: preamble, Noise handshake, frames. Pure; docs/spec/link.md is the wire.

    initiator                                  responder
    preamble: "OL" pattern n versions   -->    parse_preamble, choose_version
    accept_version                      <--    one byte, the chosen version (0 = none: it closes)
    encode_frame(handshake message 1)   -->
                                        <--    encode_frame(handshake message 2)
    encode_frame(handshake message 3)   -->
    encode_frame(transport message)     <->    encode_frame(transport message)

Handshakes are the Noise Protocol Framework, revision 34, with the suite 25519_ChaChaPoly_SHA256
and the patterns XK, XXpsk0 and XX. The caller brings every key, the ephemeral one too, so that a
handshake depends on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from hmac import digest as hmac
from itertools import pairwise
from struct import Struct
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import RuntimeError as SodiumError

from outlast.errors import ProtocolError, Sentence

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MESSAGE_MAX_BYTES: Final = 65535
"""Largest Noise message, and so the largest frame without its length (Noise §3)."""
PLAINTEXT_MAX_BYTES: Final = MESSAGE_MAX_BYTES - TAG_BYTES
"""Largest plaintext of one transport message."""
HANDSHAKE_MAX_BYTES: Final = 4096
"""Largest handshake message: all that a peer which has proven nothing can make this node hold."""

_MAGIC: Final = b"OL"
_PROLOGUE_DOMAIN: Final = b"outlast/link/1"
_NONCE: Final = Struct("<4xQ")  # Noise §12.3: 32 zero bits, then the counter, little-endian
_NONCE_RESERVED: Final = 2**64 - 1  # Noise §5.1 keeps it out of use
_LENGTH: Final = Struct(">H")
_BROKEN: Final = -1

_Token = Literal["e", "s", "ee", "es", "se", "psk"]
_Buffer = bytes | bytearray | memoryview


class HandshakeError(ProtocolError):
    """No link can be opened with what the other side sent; close the connection."""


class FrameError(ProtocolError):
    """A frame is altered, out of order or of a length that no peer sends; close the connection."""


class Pattern(IntEnum):
    """The handshake patterns of a link (Noise §7.5, §9.4); the value is the preamble's byte."""

    XK = 0
    """Nodes that know each other: the initiator has the responder's key, and only the holder of
    that key learns who calls. A prober without the key gets no answer."""
    XXPSK0 = 1
    """Pairing: both hold the 32-byte secret of one QR code and learn each other's key."""
    XX = 2
    """Strangers: both bring throwaway static keys, so that nothing is shown and nothing proven."""


@dataclass(frozen=True, slots=True)
class _Law:
    """What a pattern prescribes."""

    name: str
    responder_known: bool  # the pre-message "<- s"
    messages: tuple[tuple[_Token, ...], ...]  # by turns, the initiator first
    doubt: Sentence  # what a person should think of when verification fails

    @property
    def psk(self) -> bool:
        return "psk" in self.messages[0]


_LAWS: Final = {
    Pattern.XK: _Law(
        name="XK",
        responder_known=True,
        messages=(("e", "es"), ("e", "ee"), ("s", "se")),
        doubt=Sentence("it was altered on the way or the other node has a new key: pair the nodes again"),
    ),
    Pattern.XXPSK0: _Law(
        name="XXpsk0",
        responder_known=False,
        messages=(("psk", "e"), ("e", "ee", "s", "es"), ("s", "se")),
        doubt=Sentence("the two pairing codes differ or it was altered on the way: scan a fresh code"),
    ),
    Pattern.XX: _Law(
        name="XX",
        responder_known=False,
        messages=(("e",), ("e", "ee", "s", "es"), ("s", "se")),
        doubt=Sentence("it was altered on the way: connect again, or over another link"),
    ),
}


class _Cipher:
    """One key and its counter; no nonce is used twice (CipherState, Noise §5.1)."""

    __slots__ = ("_aead", "_count")

    def __init__(self, key: bytes) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._count = 0

    def encrypt(self, plaintext: _Buffer, ad: bytes | None) -> bytes:
        sealed = self._aead.encrypt(self._nonce(), plaintext, ad)
        self._count += 1
        return sealed

    def decrypt(self, sealed: _Buffer, ad: bytes | None) -> bytes:
        """Raises InvalidTag, and then the counter stays where it was."""
        plaintext = self._aead.decrypt(self._nonce(), sealed, ad)
        self._count += 1
        return plaintext

    def _nonce(self) -> bytes:
        if self._count >= _NONCE_RESERVED:
            raise FrameError("this link has carried all that its keys allow: connect again")
        return _NONCE.pack(self._count)


def _hkdf(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes, bytes]:
    """Three outputs of HKDF, 32 B each; who needs two takes the first two (Noise §4.3)."""
    temporary = hmac(chaining_key, secret, "sha256")
    first = hmac(temporary, b"\x01", "sha256")
    second = hmac(temporary, first + b"\x02", "sha256")
    return first, second, hmac(temporary, second + b"\x03", "sha256")


class _Symmetric:
    """Chaining key, transcript hash and the key of the moment (SymmetricState, Noise §5.2)."""

    __slots__ = ("_chaining_key", "_cipher", "hash")

    def __init__(self, protocol_name: bytes) -> None:
        fits = len(protocol_name) <= KEY_BYTES
        self.hash = protocol_name.ljust(KEY_BYTES, b"\0") if fits else _sha256(protocol_name)
        self._chaining_key = self.hash
        self._cipher: _Cipher | None = None

    def mix_hash(self, data: bytes) -> None:
        self.hash = _sha256(self.hash + data)

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key, _ = _hkdf(self._chaining_key, secret)
        self._cipher = _Cipher(key)

    def mix_key_and_hash(self, secret: bytes) -> None:
        self._chaining_key, hashed, key = _hkdf(self._chaining_key, secret)
        self.mix_hash(hashed)
        self._cipher = _Cipher(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = self._cipher.encrypt(plaintext, self.hash) if self._cipher else plaintext
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plaintext = self._cipher.decrypt(sealed, self.hash) if self._cipher else sealed
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Keys of initiator -> responder and of responder -> initiator, 32 B each."""
        first, second, _ = _hkdf(self._chaining_key, b"")
        return first, second


def _sha256(data: bytes) -> bytes:
    return sha256(data).digest()


class Transport:
    """An open link: seals and opens messages, each direction in strict order (Noise §5.1, §11.3).

    The two directions are independent; neither is safe for two threads at once.
    """

    __slots__ = ("_receive", "_send")

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        """Keys of 32 B that no other Transport has: a nonce used twice gives plaintexts away."""
        self._send = _Cipher(send_key)
        self._receive = _Cipher(receive_key)

    def encrypt(self, plaintext: _Buffer) -> bytes:
        """The next message to the other side, 16 B longer than ``plaintext``.

        Raises ValueError for a plaintext above 65,519 B and FrameError after 2^64 - 1 messages.
        """
        if len(plaintext) > PLAINTEXT_MAX_BYTES:
            raise ValueError(f"a message takes {PLAINTEXT_MAX_BYTES} B, not {len(plaintext)}")
        return self._send.encrypt(plaintext, None)

    def decrypt(self, sealed: _Buffer) -> bytes:
        """The plaintext of the other side's next message.

        Raises FrameError when it is altered, repeated, reordered or one before it was left out;
        the link is then to be closed.
        """
        if len(sealed) > MESSAGE_MAX_BYTES:
            raise FrameError("a message of %(size)s B is longer than any: connect again", size=len(sealed))
        try:
            return self._receive.decrypt(sealed, None)
        except InvalidTag:
            raise FrameError("a message was altered or lost on the way: connect again") from None


class Handshake:
    """One party of one handshake (HandshakeState, Noise §5.3): write and read by turns to ``done``.

    The initiator writes first. What has failed once stays failed: every later call raises
    HandshakeError.
    """

    __slots__ = (
        "_index",
        "_initiator",
        "_law",
        "_private",
        "_psk",
        "_remote",
        "_spent",
        "_state",
    )

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        prologue: bytes,
        static: bytes,
        ephemeral: bytes,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        """``static`` and ``ephemeral``: X25519 private keys, 32 B; a fresh ephemeral each time.

        ``remote_static``: the responder's public key, 32 B, for XK's initiator and nobody else.
        ``psk``: 32 B, for XXpsk0 and no other pattern. Raises ValueError when a key is missing,
        superfluous or of another length.
        """
        law = _LAWS[pattern]
        if (remote_static is not None) is not (initiator and law.responder_known):
            raise ValueError(f"{law.name}: remote_static is for the initiator of XK")
        if (psk is not None) is not law.psk:
            raise ValueError(f"{law.name}: psk is for XXpsk0")
        for key in (static, ephemeral, remote_static, psk):
            if key is not None and len(key) != KEY_BYTES:
                raise ValueError(f"{law.name}: a key has {KEY_BYTES} B, not {len(key)}")

        self._law = law
        self._initiator = initiator
        self._private = {"e": ephemeral, "s": static}
        self._remote = {"s": remote_static} if remote_static else {}
        self._psk = psk or b""
        self._index = 0
        self._spent = False
        self._state = _Symmetric(f"Noise_{law.name}_25519_ChaChaPoly_SHA256".encode())
        self._state.mix_hash(prologue)
        if law.responder_known:
            self._state.mix_hash(remote_static or crypto_scalarmult_base(static))

    @property
    def done(self) -> bool:
        """True once every message of the pattern was written or verified."""
        return self._index == len(self._law.messages)

    @property
    def remote_static(self) -> bytes | None:
        """The other side's public key, 32 B, as soon as a verified message named it.

        XK's initiator has it from the start, and nobody has it after a failure. Only ``done`` says
        that the other side holds the private key and is there now.
        """
        return None if self._index == _BROKEN else self._remote.get("s")

    @property
    def hash(self) -> bytes:
        """Channel binding, 32 B: equal on both sides and unique to this link (Noise §11.2).

        Raises RuntimeError before ``done``.
        """
        self._require_done()
        return self._state.hash

    def write(self, payload: bytes = b"") -> bytes:
        """The next handshake message; docs/spec/link.md says who can read its ``payload``.

        Raises HandshakeError when it is not this side's turn or the other side's key was a
        low-order point, and ValueError when the message would be longer than 4,096 B.
        """
        index = self._take_turn(writing=True)
        state, message = self._state, b""
        for token in self._law.messages[index]:
            match token:
                case "e":
                    public = crypto_scalarmult_base(self._private["e"])
                    message += public
                    self._mix_ephemeral(public)
                case "s":
                    message += state.encrypt_and_hash(crypto_scalarmult_base(self._private["s"]))
                case "psk":
                    state.mix_key_and_hash(self._psk)
                case "ee" | "es" | "se":
                    self._mix_shared(token)
        message += state.encrypt_and_hash(payload)
        if len(message) > HANDSHAKE_MAX_BYTES:
            raise ValueError(f"a handshake message takes {HANDSHAKE_MAX_BYTES} B: {len(message)}")
        self._index = index + 1
        return message

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's next handshake message.

        Raises HandshakeError when the message is out of turn, too long, cut short, a low-order
        point or not verified.
        """
        index = self._take_turn(writing=False)
        if len(message) > HANDSHAKE_MAX_BYTES:
            raise HandshakeError("the other side's greeting is longer than any: do not trust it")
        state, rest = self._state, message
        try:
            for token in self._law.messages[index]:
                match token:
                    case "e":
                        self._remote["e"], rest = _cut(rest, KEY_BYTES)
                        self._mix_ephemeral(self._remote["e"])
                    case "s":
                        # In each of the patterns a static key travels after "ee", and so sealed.
                        sealed, rest = _cut(rest, KEY_BYTES + TAG_BYTES)
                        self._remote["s"] = state.decrypt_and_hash(sealed)
                    case "psk":
                        state.mix_key_and_hash(self._psk)
                    case "ee" | "es" | "se":
                        self._mix_shared(token)
            payload = state.decrypt_and_hash(rest)
        except InvalidTag:
            raise HandshakeError("the link is not safe; %(doubt)s", doubt=self._law.doubt) from None
        self._index = index + 1
        return payload

    def split(self) -> Transport:
        """The transport of the finished handshake; two would repeat nonces, so it gives one.

        Raises RuntimeError before ``done`` and at the second call.
        """
        self._require_done()
        if self._spent:
            raise RuntimeError("this handshake has given its Transport")
        self._spent = True
        outward, inward = self._state.split()
        return Transport(outward, inward) if self._initiator else Transport(inward, outward)

    def _take_turn(self, *, writing: bool) -> int:
        """Index of the message at hand; the handshake is broken until that message is through."""
        if self.done:
            raise HandshakeError("the greeting is over, and more of it came: connect again")
        index, self._index = self._index, _BROKEN
        ours = (index % 2 == 0) is self._initiator
        if index == _BROKEN or ours is not writing:
            raise HandshakeError("the greeting came out of turn or had failed: connect again")
        return index

    def _require_done(self) -> None:
        if not self.done:
            raise RuntimeError("the handshake is not done")

    def _mix_ephemeral(self, public: bytes) -> None:
        self._state.mix_hash(public)
        if self._law.psk:  # Noise §9.2
            self._state.mix_key(public)

    def _mix_shared(self, token: Literal["ee", "es", "se"]) -> None:
        """Mix in a Diffie-Hellman secret; a token names the initiator's key, then the other's."""
        ours, theirs = token if self._initiator else reversed(token)
        try:
            secret = crypto_scalarmult(self._private[ours], self._remote[theirs])
        except SodiumError:  # RFC 7748 §6.1: a low-order point, the secret would be all zeros
            raise HandshakeError("the other side's key is none: do not trust it") from None
        self._state.mix_key(secret)


def _cut(message: bytes, size: int) -> tuple[bytes, bytes]:
    """The first ``size`` bytes and the rest; libsodium reads 32 B of a key, however short it is."""
    if len(message) < size:
        raise HandshakeError("the greeting was cut short: connect again")
    return message[:size], message[size:]


def encode_frame(message: bytes) -> bytes:
    """``u16 length, big-endian || message`` for one Noise message of 16 to 65,535 B.

    Raises ValueError for another length.
    """
    if not TAG_BYTES <= len(message) <= MESSAGE_MAX_BYTES:
        raise ValueError(f"a frame has {TAG_BYTES} to {MESSAGE_MAX_BYTES} B, not {len(message)}")
    return _LENGTH.pack(len(message)) + message


class FrameReader:
    """Cuts a byte stream into Noise messages; keeps at most one unfinished frame between calls.

    The handshake's frames come first (two at the responder, one at the initiator) and have 32 to
    4,096 B, later ones 16 to 65,535 B: who has proven nothing can fill little memory.
    """

    __slots__ = ("_handshakes", "_refused", "_rest")

    def __init__(self, *, initiator: bool) -> None:
        self._rest = b""
        self._handshakes = 1 if initiator else 2
        self._refused = False

    def feed(self, data: bytes) -> list[memoryview]:
        """The messages that ``data`` completes, in order.

        Raises FrameError as soon as a length is in that no peer sends, and ever after; the
        messages before it in the same ``data`` are dropped with the stream.
        """
        if self._refused:
            raise FrameError("this stream was refused: connect again")
        view = memoryview(self._rest + data)
        messages: list[memoryview] = []
        start = 0
        while len(view) >= start + _LENGTH.size:
            (size,) = _LENGTH.unpack_from(view, start)
            self._check(size)
            end = start + _LENGTH.size + size
            if end > len(view):
                break
            messages.append(view[end - size : end])
            self._handshakes = max(0, self._handshakes - 1)
            start = end
        self._rest = bytes(view[start:])
        return messages

    def _check(self, size: int) -> None:
        least, most = TAG_BYTES, MESSAGE_MAX_BYTES
        if self._handshakes:
            least, most = KEY_BYTES, HANDSHAKE_MAX_BYTES
        if not least <= size <= most:
            self._refused = True
            raise FrameError("a frame of %(size)s B fits no message of a link: connect again", size=size)


@dataclass(frozen=True, slots=True)
class Preamble:
    """What an initiator announces: its pattern and its link versions, each 1 to 255, rising."""

    pattern: Pattern
    versions: tuple[int, ...]


def encode_preamble(pattern: Pattern, versions: Iterable[int]) -> bytes:
    """``"OL" || pattern u8 || n u8 || n version bytes``, 5 to 259 B.

    Raises ValueError for no version or one outside 1 to 255.
    """
    rising = sorted(set(versions))
    if not rising or not 1 <= rising[0] <= rising[-1] <= 255:
        raise ValueError("a preamble offers one version or more, each 1 to 255")
    return _MAGIC + bytes([pattern, len(rising), *rising])


def parse_preamble(data: bytes) -> Preamble | None:
    """The preamble, given all bytes received so far; None while some are missing.

    Raises HandshakeError at the first byte that no initiator sends, one that follows the preamble
    included: an initiator has nothing more to say before the answer.
    """
    if data[:2] != _MAGIC[: len(data)]:
        raise HandshakeError("the caller does not speak Outlast's link protocol")
    if len(data) > 2 and data[2] not in _LAWS:
        raise HandshakeError("the caller asks for handshake %(number)s: update this node", number=data[2])
    count, versions = data[3:4], tuple(data[4:])
    if count and (count[0] == 0 or count[0] < len(versions)):
        raise HandshakeError("the caller's offer is empty or longer than it says")
    if any(low >= high for low, high in pairwise((0, *versions))):
        raise HandshakeError("the caller's offered versions do not rise from 1")
    return Preamble(Pattern(data[2]), versions) if count and len(versions) == count[0] else None


def choose_version(offered: Collection[int], supported: Collection[int]) -> int:
    """The highest version in both, for the responder's answering byte; 0 when there is none."""
    return max(set(offered) & set(supported), default=0)


def accept_version(offered: Collection[int], answer: int) -> int:
    """The version that the responder chose by its answering byte, seen by the initiator.

    Raises HandshakeError when the nodes have none in common or the chosen one was not offered.
    """
    if answer == 0:
        ours = ", ".join(map(str, sorted(offered)))
        raise HandshakeError("the nodes share no link version (here: %(versions)s): update the older", versions=ours)
    if answer not in offered:
        raise HandshakeError("link version %(version)s was chosen and never offered: do not trust it", version=answer)
    return answer


def link_prologue(preamble: bytes, chosen: int) -> bytes:
    """``"outlast/link/1" || preamble || chosen u8``, with the preamble's bytes as they travelled.

    Both handshakes are bound to it: nobody between them can lower the version or change the
    pattern.
    """
    return _PROLOGUE_DOMAIN + preamble + bytes([chosen])
