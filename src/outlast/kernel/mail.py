"""Mail: how a letter travels without saying for whom. The wire is docs/spec/mail.md.

An *envelope* is an ordinary entry of the one mail space in which everything is constant or random:
who seals, who receives and what kind of letter it is stand in no field. The only handle is a *tag*
used once, which just the two devices can compute. A *letter* is what is sealed inside; nothing
inside is signed, so nobody can prove to others who wrote it, while the receiver knows (HPKE's Auth
mode). The first letter to somebody who does not know the sender yet is an *introduction*: it
travels by the secret of a contact link and brings the sender's device certificate.

What goes to many devices can lie *apart*, once: the body in an envelope of its own under a fresh
key, and in each device's envelope its *place*: where it is, its key, and the hash of the sealed
bytes. Who reads it can therefore not put another body in its place for others.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.errors import ProtocolError
from outlast.kernel import hpke
from outlast.kernel.entry import (
    DAY_MS,
    HOUR_MS,
    KIND_MAX_BYTES,
    Entry,
    Header,
    common_genesis,
    day_of,
    encode_header,
    entry_id,
    expiry_day,
    sign_entry,
)
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Device,
    IdentityError,
    SealingKey,
    SigningKey,
    derive,
    is_usable,
    read_certificate,
)

MAIL_KIND: Final = "mail"
MAIL_PRIORITY: Final = 1
MAIL_LIFE_DAYS: Final = 30
PAYLOAD_CLASSES: Final = (512, 1024, 4096, 16384)
"""The sizes a sealed payload can have, in bytes."""
TAG_BYTES: Final = 16
LETTER_VERSION: Final = 1
LETTER_APART: Final = 2
"""The version of a letter whose body lies in an envelope of its own: ``body`` is a ``Place``."""
LETTER_ID_BYTES: Final = 16
LETTER_MAX_BYTES: Final = 15 * 1024
"""Largest body of a letter; it fits the largest class also as an introduction."""
CERTIFICATE_MAX_BYTES: Final = 700
"""Largest device certificate in an introduction."""
INTRO_TAGS: Final = 1024
"""Introductions have counters below this: their writers do not know of each other which are taken."""
_INTRO_HALF_BITS: Final = 5

MAIL_GENESIS: Final = common_genesis(b"outlast/mail/1")
"""The header that names the mail space."""
MAIL_SPACE: Final = entry_id(encode_header(MAIL_GENESIS))

_INFO: Final = b"outlast/mail/1"
_INTRO_INFO: Final = b"outlast/mail/intro/1"
_INTRO_PSK_ID: Final = b"outlast/intro"
_DIRECTION_LABEL: Final = b"outlast/mail/direction/1"
_INTRO_LABEL: Final = b"outlast/mail/intro/1"
_INTRO_ORDER_LABEL: Final = b"outlast/mail/intro-order/1"
_INTRO_PSK_LABEL: Final = b"outlast/mail/psk/1"
_BODY_LABEL: Final = b"outlast/mail/body/1"
_BODY_OVERHEAD_BYTES: Final = 32 + 16
"""A public key, as each envelope begins with one, and the tag of the cipher."""
_ENVELOPE_BYTES: Final = 214
"""A packed envelope without its payload."""
_PLACE_BYTES: Final = 16 + 32 + 32 + 7

Rand = Callable[[int], bytes]
"""Returns that many random bytes; ``os.urandom`` outside of tests."""


class MailError(ProtocolError):
    """An envelope or letter is malformed, altered, or sealed for another key."""


class SealedLetter(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is sealed in an envelope. Field order is the wire order."""

    version: int = LETTER_VERSION
    id: bytes  # 16 B, chosen by the sender; the same for all of the receiver's devices
    kind: str
    sent_ms: int
    life_ms: int = 0  # how long the letter is shown; 0 = no limit
    prekey: bytes | None = None  # 32 B, the sender's newest one if the receiver may not know it
    prekey_day: int | None = None
    body: bytes  # msgpack, by its kind


class Place(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Where the body of a letter lies that travels apart."""

    tag: bytes  # 16 B, random: of the body's envelope
    hash: bytes  # 32 B, SHA-256 of its payload
    key: bytes  # 32 B, opens it and nothing else


class Introduction(NamedTuple):
    """The first letter of a device that the receiver did not know; authenticated by ``device``."""

    device: Device
    prekey: bytes  # 32 B, of the sender
    prekey_day: int
    letter: SealedLetter


_encoder = msgspec.msgpack.Encoder()
_letter_decoder = msgspec.msgpack.Decoder(SealedLetter)
_place_decoder = msgspec.msgpack.Decoder(Place)


def is_wellformed_envelope(header: Header) -> bool:
    """Whether a header is as every envelope's: the admission rule of the mail space."""
    return (
        header.version == 1
        and header.kind == MAIL_KIND
        and header.space == MAIL_SPACE
        and header.seq == 0
        and header.prev is None
        and header.clock == 0
        and header.ts_ms % HOUR_MS == 0
        and header.expires_day == expiry_day(header.ts_ms, MAIL_LIFE_DAYS * DAY_MS)
        and header.priority == MAIL_PRIORITY
        and header.payload_size in PAYLOAD_CLASSES
        and len(header.tags) == 1
        and len(header.tags[0]) == TAG_BYTES
        and header.stamp_nonce == 0
    )


def direction_key(key: SealingKey, sender: Device, receiver: Device) -> bytes:
    """The 32-byte key of the tags from ``sender`` to ``receiver``; ``key`` seals for one of them.

    Raises IdentityError when the other device's seal key is of low order.
    """
    other = receiver if key.public == sender.seal else sender
    return derive(key.exchange(other.seal), _DIRECTION_LABEL, _party(sender) + _party(receiver))


def intro_key(secret: bytes, receiver: Device) -> bytes:
    """The 32-byte key of introductions' tags; ``secret`` is the contact link's (16 to 32 B)."""
    return derive(secret, _INTRO_LABEL, _party(receiver))


def intro_counter(own_secret: bytes, receiver: Device, day: int, number: int) -> int:
    """The counter of the sender's introduction ``number`` (0, 1, ...) to ``receiver`` on ``day``.

    None comes twice on a day before all INTRO_TAGS have come: two envelopes with one tag would show
    that they have one receiver. ``own_secret`` (32 B) is the sender's; in its order the counters
    look random to others. It is a Feistel network of four rounds over the bits of ``number``.
    """
    key = derive(own_secret, _INTRO_ORDER_LABEL, _party(receiver))
    mask = (1 << _INTRO_HALF_BITS) - 1
    left, right = number >> _INTRO_HALF_BITS & mask, number & mask
    for turn in range(4):
        mixed = hmac.digest(key, day.to_bytes(4, "big") + bytes((turn, right)), "sha256")[0] & mask
        left, right = right, left ^ mixed
    return left << _INTRO_HALF_BITS | right


def tag(key: bytes, day: int, counter: int) -> bytes:
    """The tag (16 B) of the envelope number ``counter`` (u32) on ``day`` (days since 1970, UTC)."""
    return hmac.digest(key, day.to_bytes(4, "big") + counter.to_bytes(4, "big"), "sha256")[:TAG_BYTES]


def seal_letter(
    letter: SealedLetter,
    *,
    key: bytes,
    counter: int,
    sender: Device,
    sender_seal: OpeningKey,
    receiver: Device,
    prekey: bytes,
    now_ms: int,
    rand: Rand,
) -> Entry:
    """The envelope of a letter for one device.

    ``key`` is the ``direction_key``, ``counter`` the next unused one of the day of ``now_ms``,
    ``prekey`` (32 B) the receiver's newest one. Raises MailError when the letter is malformed, its
    body longer than LETTER_MAX_BYTES, or the prekey of low order.
    """
    data = _encode_letter(letter)
    author = SigningKey.from_seed(rand(32))
    day = day_of(now_ms)
    room = _class_of(2 + len(data) + hpke.OVERHEAD_BYTES) - hpke.OVERHEAD_BYTES
    payload = hpke.seal(
        prekey,
        _pad(data, room),
        info=_INFO,
        aad=_associated(sender, receiver, author.public, day),
        ephemeral=rand(32),
        sender=sender_seal,
    )
    return _envelope(author, now_ms, tag(key, day, counter), payload)


def open_letter(entry: Entry, *, prekeys: Sequence[OpeningKey], sender: Device, receiver: Device) -> SealedLetter:
    """The letter in an envelope from ``sender`` to ``receiver``.

    ``prekeys`` are the receiver's, newest first. The entry's signature must have been verified
    (``admit``). Raises MailError when the payload is absent or altered, no prekey opens it, or the
    letter is malformed.
    """
    payload = _payload(entry)
    aad = _associated(sender, receiver, entry.header.author, day_of(entry.header.ts_ms))
    for prekey in prekeys:
        plaintext = hpke.unseal(prekey, payload, info=_INFO, aad=aad, sender=sender.seal)
        if plaintext is not None:
            return _decode_letter(plaintext)
    raise MailError("the envelope opens with none of the prekeys: it is altered or its key is gone")


def seal_introduction(
    letter: SealedLetter,
    *,
    intro_secret: bytes,
    sender: Device,
    sender_seal: OpeningKey,
    receiver: Device,
    counter: int,
    prekey: bytes,
    now_ms: int,
    rand: Rand,
) -> Entry:
    """The envelope of a first letter, by the secret and the prekey of the receiver's contact link.

    The letter must carry the sender's prekey, ``intro_secret`` has 16 to 32 B, ``counter`` is an
    ``intro_counter``. Raises MailError as ``seal_letter`` does.
    """
    if letter.prekey is None:
        raise MailError("an introduction must carry the sender's prekey")
    if len(sender.certificate) > CERTIFICATE_MAX_BYTES:
        raise MailError("a device certificate has at most %(most)s bytes", most=CERTIFICATE_MAX_BYTES)
    data = _encode_letter(letter)
    author = SigningKey.from_seed(rand(32))
    day = day_of(now_ms)
    head = len(sender.certificate).to_bytes(2, "big") + sender.certificate
    around = len(head) + 2 * hpke.OVERHEAD_BYTES
    inner = hpke.seal(
        prekey,
        _pad(data, _class_of(2 + len(data) + around) - around),
        info=_INFO,
        aad=_associated(sender, receiver, author.public, day),
        ephemeral=rand(32),
        sender=sender_seal,
    )
    payload = inner and hpke.seal(
        prekey,
        head + inner,
        info=_INTRO_INFO,
        aad=_associated(None, receiver, author.public, day),
        ephemeral=rand(32),
        psk=derive(intro_secret, _INTRO_PSK_LABEL, _party(receiver)),
        psk_id=_INTRO_PSK_ID,
    )
    return _envelope(author, now_ms, tag(intro_key(intro_secret, receiver), day, counter), payload)


def open_introduction(
    entry: Entry, *, intro_secret: bytes, prekeys: Sequence[OpeningKey], receiver: Device
) -> Introduction:
    """The introduction in an envelope that a tag of ``intro_key`` found.

    ``prekeys`` are the receiver's, newest first. Raises MailError as ``open_letter`` does, and when
    the sender's certificate does not hold.
    """
    payload = _payload(entry)
    day = day_of(entry.header.ts_ms)
    aad = _associated(None, receiver, entry.header.author, day)
    psk = derive(intro_secret, _INTRO_PSK_LABEL, _party(receiver))
    for prekey in prekeys:
        plaintext = hpke.unseal(prekey, payload, info=_INTRO_INFO, aad=aad, psk=psk, psk_id=_INTRO_PSK_ID)
        if plaintext is not None:
            break
    else:
        raise MailError("the introduction opens with none of the prekeys: it is altered or its key is gone")
    end = 2 + int.from_bytes(plaintext[:2], "big")
    if not 2 < end <= 2 + CERTIFICATE_MAX_BYTES:
        raise MailError("the introduction holds no device certificate")
    try:
        sender = read_certificate(plaintext[2:end])
    except IdentityError as error:
        raise MailError("the introduction is not usable: %(error)s", error=error) from None
    aad = _associated(sender, receiver, entry.header.author, day)
    inner = hpke.unseal(prekey, plaintext[end:], info=_INFO, aad=aad, sender=sender.seal)
    if inner is None:
        raise MailError("the introduction was not written by the device that it names")
    letter = _decode_letter(inner)
    if letter.prekey is None or letter.prekey_day is None:
        raise MailError("the introduction holds no prekey")
    return Introduction(sender, letter.prekey, letter.prekey_day, letter)


def seal_body(body: bytes, *, now_ms: int, rand: Rand) -> tuple[Entry, Place]:
    """The envelope that holds the body of a letter apart, and where letters say that it is.

    Raises MailError when the body is longer than LETTER_MAX_BYTES.
    """
    if len(body) > LETTER_MAX_BYTES:
        raise MailError(
            "a letter holds at most %(most)s bytes, this has %(size)s", most=LETTER_MAX_BYTES, size=len(body)
        )
    author, handle = SigningKey.from_seed(rand(32)), rand(TAG_BYTES)
    key = OpeningKey.from_secret(rand(32))
    room = _class_of(2 + len(body) + _BODY_OVERHEAD_BYTES) - _BODY_OVERHEAD_BYTES
    # Like each other envelope it begins with a public key: bytes without any form would stand out among these.
    payload = key.public + _body_cipher(key.secret).encrypt(
        bytes(12), _pad(body, room), _associated(None, None, author.public, day_of(now_ms))
    )
    entry = _envelope(author, now_ms, handle, payload)
    return entry, Place(handle, entry.header.payload_hash, key.secret)


def open_body(entry: Entry, place: Place) -> bytes:
    """The body that lies in an envelope; raises MailError when it is another one, or altered.

    The entry's signature, and that its payload has the hash in its header, must have been verified (``admit``).
    """
    payload = _payload(entry)
    if entry.header.payload_hash != place.hash or entry.header.tags != (place.tag,):
        raise MailError("this is not the body that the letter names")
    aad = _associated(None, None, entry.header.author, day_of(entry.header.ts_ms))
    try:
        plaintext = _body_cipher(place.key).decrypt(bytes(12), payload[32:], aad)
    except InvalidTag:
        raise MailError("the body does not open by its letter's key") from None
    if payload[:32] != OpeningKey.from_secret(place.key).public:
        raise MailError("the body was sealed by another key")
    return _unpad(plaintext)


def apart(letter: SealedLetter, place: Place) -> SealedLetter:
    """The letter whose body lies there."""
    return msgspec.structs.replace(letter, version=LETTER_APART, body=_encoder.encode(place))


def place_of(letter: SealedLetter) -> Place | None:
    """Where the body of a letter lies that was opened; None when it holds it itself."""
    return read_place(letter.body) if letter.version == LETTER_APART else None


def read_place(data: bytes) -> Place:
    """What the body of a letter that travels apart says; raises MailError when it is malformed."""
    try:
        place = _place_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise MailError("the letter does not say where its body is") from None
    if (len(place.tag), len(place.hash), len(place.key)) != (TAG_BYTES, 32, 32):
        raise MailError("the letter does not say where its body is")
    return place


def is_better_apart(letter: SealedLetter, introduces: Sequence[bool], certificate_bytes: int) -> bool:
    """Whether a letter takes fewer bytes with its body apart.

    For each device it goes to ``introduces`` says whether the letter must bring the sender's certificate.
    """
    fixed = len(_encoder.encode(msgspec.structs.replace(letter, body=b"")))

    def together(body_bytes: int) -> int:
        around = (fixed + 5 + body_bytes + hpke.OVERHEAD_BYTES, certificate_bytes + 2 + hpke.OVERHEAD_BYTES)
        sizes = {new: _class_of(around[0] + new * around[1]) + _ENVELOPE_BYTES for new in set(introduces)}
        return sum(sizes[new] for new in introduces)

    once = _class_of(2 + len(letter.body) + _BODY_OVERHEAD_BYTES) + _ENVELOPE_BYTES
    return once + together(_PLACE_BYTES) < together(len(letter.body))


def _body_cipher(key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive(key, _BODY_LABEL))


def _party(device: Device) -> bytes:
    # The identity stands beside the device key: one device may serve two identities, and what was
    # sealed for the one must not open for the other.
    return device.identity + device.device


def _associated(sender: Device | None, receiver: Device | None, author: bytes, day: int) -> bytes:
    expires_day = day + MAIL_LIFE_DAYS + 1
    parties = (_party(sender) if sender else b"") + (_party(receiver) if receiver else b"")
    return parties + MAIL_SPACE + author + expires_day.to_bytes(4, "big")


def _class_of(size: int) -> int:
    for size_class in PAYLOAD_CLASSES:
        if size <= size_class:
            return size_class
    raise MailError("a letter holds at most %(most)s bytes", most=LETTER_MAX_BYTES)


def _pad(data: bytes, size: int) -> bytes:
    return (len(data).to_bytes(2, "big") + data).ljust(size, b"\0")


def _envelope(author: SigningKey, now_ms: int, handle: bytes, payload: bytes | None) -> Entry:
    if not payload:
        raise MailError("the receiver's prekey is not usable")
    ts_ms = now_ms - now_ms % HOUR_MS
    header = Header(
        version=1,
        space=MAIL_SPACE,
        kind=MAIL_KIND,
        author=author.public,
        seq=0,
        prev=None,
        clock=0,
        ts_ms=ts_ms,
        expires_day=expiry_day(ts_ms, MAIL_LIFE_DAYS * DAY_MS),
        priority=MAIL_PRIORITY,
        payload_hash=sha256(payload).digest(),
        payload_size=len(payload),
        tags=(handle,),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)


def _payload(entry: Entry) -> bytes:
    if not is_wellformed_envelope(entry.header):
        raise MailError("this entry is no envelope")
    if entry.payload is None:
        raise MailError("the envelope's content has not arrived yet")
    return entry.payload


def _check_letter(letter: SealedLetter) -> None:
    if letter.version not in (LETTER_VERSION, LETTER_APART):
        raise MailError("the letter has version %(version)s; a newer program reads it", version=letter.version)
    if len(letter.body) > LETTER_MAX_BYTES:
        raise MailError(
            "a letter holds at most %(most)s bytes, this has %(size)s", most=LETTER_MAX_BYTES, size=len(letter.body)
        )
    if len(letter.id) != LETTER_ID_BYTES or not 0 < len(letter.kind.encode()) <= KIND_MAX_BYTES:
        raise MailError("the letter's id or kind is malformed")
    if not (0 <= letter.sent_ms < 2**53 and 0 <= letter.life_ms < 2**53):
        raise MailError("the letter's times are out of range")
    if (letter.prekey is None) != (letter.prekey_day is None):
        raise MailError("the letter's prekey and its day come together")
    if letter.prekey is not None and (len(letter.prekey) != 32 or not 0 <= (letter.prekey_day or 0) < 2**31):
        raise MailError("the letter's prekey is malformed")
    if letter.prekey is not None and not is_usable(letter.prekey):
        raise MailError("nothing can be sealed to the letter's prekey")
    if letter.version == LETTER_APART:
        read_place(letter.body)


def _encode_letter(letter: SealedLetter) -> bytes:
    _check_letter(letter)
    return _encoder.encode(letter)


def _unpad(plaintext: bytes) -> bytes:
    end = 2 + int.from_bytes(plaintext[:2], "big")
    if len(plaintext) < 2 or end > len(plaintext) or plaintext[end:].strip(b"\0"):
        raise MailError("the letter's padding is malformed")
    return plaintext[2:end]


def _decode_letter(plaintext: bytes) -> SealedLetter:
    try:
        letter = _letter_decoder.decode(_unpad(plaintext))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise MailError("the letter is malformed: %(error)s", error=error) from None
    _check_letter(letter)
    return letter
