"""Keys and what they certify: identities, devices, prekeys; how a person reads and compares them.

- An *identity* is an Ed25519 key made from 24 words. It certifies devices and can stay offline.
- A *device* has an Ed25519 key that signs entries and an X25519 key that seals mail.
- A *prekey* is an X25519 key of a device for one day or more, replaced often, for forward secrecy by epochs.
- A *node* has an X25519 transport key, which is none of these.

Every signed object has a domain string of its own.
"""

from __future__ import annotations

import base64
import hmac
import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Self

import msgspec
from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from outlast.errors import ProtocolError, UsageError

NAME_MAX_CHARS: Final = 64
SHARE_WORDS: Final = 33
_NO_WORDS: Final = re.compile(r"(?m)^.*:[ \t\r]*$|(?<!\S)\d+[.):]*")
SHARES_MAX: Final = 16

_DEVICE_DOMAIN: Final = b"outlast/device/1"
JOINERS: Final = "\u200c\u200d"
"""What joins letters or keeps them apart: Persian and the scripts of India are written with it, as are some emoji."""
_JOINING: Final = re.compile(rf"(?<=[^\s{JOINERS}])[{JOINERS}](?=[^\s{JOINERS}])")
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What a name may have that shows nothing by itself: of Unicode's Default_Ignorable_Code_Point, and the empty Braille
pattern."""
_PREKEY_DOMAIN: Final = b"outlast/prekey/1"
_CHECK_BYTES: Final = 3
_EXPONENT_MAX: Final = 5
_P: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)


class IdentityError(ProtocolError):
    """A key, certificate or prekey is malformed or not signed by whom it says."""


def derive(secret: bytes, label: bytes, context: bytes = b"") -> bytes:
    """32 bytes derived from ``secret``: HKDF-SHA-256 (RFC 5869) with an empty salt and one block of output."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, label + context + b"\x01", "sha256")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key pair (RFC 8032). ``seed`` and ``public`` are 32 bytes each."""

    seed: bytes = field(repr=False)
    public: bytes
    _secret: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key pair of a 32-byte seed."""
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(seed, public, secret)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``."""
        return crypto_sign(message, self._secret)[:64]


def key_of_seed(seed: bytes) -> bytes:
    """The public key (32 B) of what ``Node.append_apart`` signs by this seed (32 B)."""
    return SigningKey.from_seed(seed).public


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 B) over ``message`` is by ``public`` (32 B); releases the GIL."""
    try:
        crypto_sign_open(signature + message, public)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class SealingKey:
    """An X25519 key pair (RFC 7748). ``secret`` and ``public`` are 32 bytes each."""

    secret: bytes = field(repr=False)
    public: bytes

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """The key pair of a 32-byte secret."""
        return cls(secret, crypto_scalarmult_base(secret))

    def exchange(self, public: bytes) -> bytes:
        """The 32-byte shared secret with ``public``; raises IdentityError for a key of low order."""
        try:
            return crypto_scalarmult(self.secret, public)
        except (CryptoError, RuntimeError, ValueError, TypeError):
            raise IdentityError("the other side's key is not usable") from None


def is_usable(public: bytes) -> bool:
    """Whether something can be sealed to an X25519 key (32 B): those of low order share no secret (RFC 7748 §6.1)."""
    return (int.from_bytes(public, "little") & (2**255 - 1)) % _P not in _LOW_ORDER


class DeviceBody(msgspec.Struct, array_like=True, frozen=True):
    """What an identity says of a device."""

    identity: bytes  # 32 B
    device: bytes  # 32 B, Ed25519
    seal: bytes  # 32 B, X25519
    created_day: int
    name: str  # what the person calls themself, at most 64 characters


class Certificate(msgspec.Struct, array_like=True, frozen=True):
    """A device certificate: its body as signed by the identity, by the device, and by an older device or by none."""

    body: bytes
    by_identity: bytes  # 64 B
    by_device: bytes  # 64 B: without it anybody could pass off somebody else's device as their own
    by_cross: bytes | None = None  # 64 B
    cross: bytes | None = None  # 32 B, the older device


@dataclass(frozen=True, slots=True)
class Device:
    """A certified device as others know it."""

    identity: bytes
    device: bytes
    seal: bytes
    created_day: int
    name: str
    cross: bytes | None
    certificate: bytes  # as encoded


def device_key(device: Device) -> str:
    """16 hex digits, the beginning of a device's key, by which people tell devices apart."""
    return device.device[:8].hex()


_encoder = msgspec.msgpack.Encoder()
_certificate_decoder = msgspec.msgpack.Decoder(Certificate)
_device_decoder = msgspec.msgpack.Decoder(DeviceBody)


def check_name(name: str) -> str:
    """A person's or channel's name, trimmed; raises UsageError when empty, too long or with control characters."""
    name = " ".join(name.split())
    if not name or len(name) > NAME_MAX_CHARS or not without_joiners(name).isprintable():
        raise UsageError("a name has 1 to %(most)s printable characters", most=NAME_MAX_CHARS)
    return name


def without_joiners(text: str) -> str:
    """The text without the zero-width joiners and non-joiners that stand between two of its characters."""
    return _JOINING.sub("", text)


def spelled(name: str) -> str:
    """A name as it is compared: two that differ in case, form of their letters, or in what nobody sees are one."""
    return " ".join(_UNSEEN.sub("", unicodedata.normalize("NFKC", name)).split()).casefold()


def told_apart(name: str, identity: bytes, taken: Container[str]) -> str:
    """What somebody calls themself, with the beginning of their ID when somebody else is called so (``spelled``).

    So also where nobody sees anything.
    """
    spelling = spelled(name)
    if spelling and spelling not in taken:
        return name
    mark = f" ({id_text(identity)[:8]})"
    return name[: NAME_MAX_CHARS - len(mark)] + mark


def certify(
    identity: SigningKey, device: SigningKey, seal: bytes, created_day: int, name: str, cross: SigningKey | None = None
) -> bytes:
    """An encoded certificate by ``identity`` for a device, cross-signed by the older device ``cross`` if given."""
    body = _encoder.encode(DeviceBody(identity.public, device.public, seal, created_day, check_name(name)))
    message = _DEVICE_DOMAIN + body
    return _encoder.encode(
        Certificate(
            body,
            identity.sign(message),
            device.sign(message),
            cross.sign(message) if cross else None,
            cross.public if cross else None,
        )
    )


def read_certificate(data: bytes) -> Device:
    """The device that an encoded certificate certifies; raises IdentityError unless form and signatures hold."""
    try:
        certificate = _certificate_decoder.decode(data)
        body = _device_decoder.decode(certificate.body)
        is_named = body.name == check_name(body.name)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, UsageError):
        raise IdentityError("this is no device certificate") from None
    message = _DEVICE_DOMAIN + certificate.body
    is_sized = len(body.identity) == len(body.device) == len(body.seal) == 32
    if not is_named or not is_sized or not 0 <= body.created_day < 2**31:
        raise IdentityError("this is no device certificate")
    if not verify(body.identity, certificate.by_identity, message):
        raise IdentityError("the device certificate is not signed by its identity")
    if not verify(body.device, certificate.by_device, message):
        raise IdentityError("the device certificate is not signed by its device")
    if not is_usable(body.seal):
        raise IdentityError("the device certificate holds a key that nothing can be sealed to")
    cross = certificate.cross
    if cross is not None and not verify(cross, certificate.by_cross or b"", message):
        raise IdentityError("the device certificate is not signed by the older device it names")
    return Device(body.identity, body.device, body.seal, body.created_day, body.name, cross, data)


def sign_prekey(device: SigningKey, prekey: bytes, day: int) -> bytes:
    """The 64-byte signature of a device over its prekey (32 B) of ``day``."""
    return device.sign(_PREKEY_DOMAIN + day.to_bytes(4, "big") + prekey)


def verify_prekey(device: bytes, prekey: bytes, day: int, signature: bytes) -> bool:
    """Whether ``signature`` is the device's over its prekey of ``day``."""
    return 0 <= day < 2**32 and verify(device, signature, _PREKEY_DOMAIN + day.to_bytes(4, "big") + prekey)


def _to_text(kind: bytes, public: bytes) -> str:
    check = sha256(b"outlast/text/1/" + kind + public).digest()[:_CHECK_BYTES]
    return base64.b32encode(public + check).decode().lower()


def _from_text(kind: bytes, text: str) -> bytes:
    try:
        raw = base64.b32decode(text.strip().upper())
    except ValueError:
        raw = b""
    public, check = raw[:32], raw[32:]
    if len(raw) != 32 + _CHECK_BYTES or check != sha256(b"outlast/text/1/" + kind + public).digest()[:_CHECK_BYTES]:
        raise UsageError("%(text)r is no ID: it has 56 characters of a-z and 2-7; copy it whole", text=text[:80])
    return public


def id_text(identity: bytes) -> str:
    """An identity (32 B) as 56 characters of base32 with a checksum: the ``ID`` that people type."""
    return _to_text(b"id", identity)


def parse_id(text: str) -> bytes:
    """The identity that ``id_text`` wrote; raises UsageError with what to do."""
    return _from_text(b"id", text)


def node_text(transport: bytes) -> str:
    """A node's transport key (32 B) as 56 characters: the ``NODE-ID`` of ``peer add``."""
    return _to_text(b"node", transport)


def parse_node(text: str) -> bytes:
    """The transport key that ``node_text`` wrote; raises UsageError with what to do."""
    return _from_text(b"node", text)


def space_text(space: bytes) -> str:
    """A space's id (32 B) as 56 characters: how a channel is named."""
    return _to_text(b"space", space)


def parse_space(text: str) -> bytes:
    """The space id that ``space_text`` wrote; raises UsageError with what to do."""
    return _from_text(b"space", text)


def fingerprint_words(identity: bytes) -> list[str]:
    """Six words (66 bits of SHA-256, BIP39's English list) by which two people compare an identity aloud."""
    bits = int.from_bytes(sha256(b"outlast/words/1" + identity).digest()[:9], "big") >> 6
    words = _wordlist()
    return [words[bits >> shift & 2047] for shift in range(55, -1, -11)]


def words_of(entropy: bytes) -> list[str]:
    """The 24 words (BIP39) of a person's 32-byte secret."""
    from mnemonic import Mnemonic

    return str(Mnemonic("english").to_mnemonic(entropy)).split()


def entropy_of(words: str) -> bytes:
    """The 32-byte secret of 24 words, or of enough shares of it (SLIP-39, 33 words each) one after another.

    Words may be numbered, and lines that end with a colon are headings, as ``outlast backup shares`` writes them.
    Raises UsageError that names the first wrong word or share, and how many are needed.
    """
    from mnemonic import Mnemonic

    known = Mnemonic("english")
    parts = _NO_WORDS.sub(" ", words).lower().split()
    if parts and len(parts) % SHARE_WORDS == 0:
        return _entropy_of_shares([parts[at : at + SHARE_WORDS] for at in range(0, len(parts), SHARE_WORDS)])
    if len(parts) != 24:
        raise UsageError(
            "24 words are needed, %(n)s were given; a share has %(words)s", n=len(parts), words=SHARE_WORDS
        )
    for number, word in enumerate(parts, 1):
        if word not in known.wordlist:
            raise UsageError("word %(number)s is not in the list; check its spelling", number=number)
    if not known.check(" ".join(parts)):
        raise UsageError("the words do not fit together: one is wrong or two are swapped")
    return bytes(known.to_entropy(parts))


def _entropy_of_shares(given: list[list[str]]) -> bytes:
    from shamir_mnemonic import MnemonicError, Share, combine_mnemonics

    if len(given) > SHARES_MAX:
        raise UsageError("there are at most %(most)s shares, %(n)s were given", most=SHARES_MAX, n=len(given))
    shares: dict[Share, None] = {}
    for number, words in enumerate(given, 1):
        try:
            shares[Share.from_mnemonic(" ".join(words))] = None
        except (MnemonicError, ValueError):
            raise UsageError("share %(number)s has a wrong word, or two that are swapped", number=number) from None
    first = next(iter(shares))
    if any(one.common_parameters() != first.common_parameters() for one in shares):
        raise UsageError("these shares do not belong together")
    if first.iteration_exponent > _EXPONENT_MAX:
        raise UsageError("these shares were made by another program, to take hours to open")
    enough = list(shares)
    if first.group_count == 1:
        if len(shares) < first.member_threshold:
            raise UsageError(
                "%(least)s shares are needed, %(n)s were given", least=first.member_threshold, n=len(shares)
            )
        enough = enough[: first.member_threshold]
    try:
        secret = bytes(combine_mnemonics([one.mnemonic() for one in enough]))
    except (MnemonicError, ValueError):
        raise UsageError("these shares do not fit together, or some are missing") from None
    if len(secret) != 32:
        raise UsageError("these shares are of something else")
    return secret


def identity_key(entropy: bytes) -> SigningKey:
    """The identity's signing key of a person's 32-byte secret."""
    return SigningKey.from_seed(derive(entropy, b"outlast/identity/1"))


def _wordlist() -> list[str]:
    from mnemonic import Mnemonic

    return list(Mnemonic("english").wordlist)
