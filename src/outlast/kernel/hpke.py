"""HPKE (RFC 9180) in the one suite of this program, single-shot, with randomness as an argument.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305; sealed bytes are ``enc 32 B || ciphertext``. The
mode follows from the arguments: Base, PSK with ``psk``, Auth with ``sender``. The primitives are OpenSSL's; what stands
here is the RFC's composition of them. Mail seals and opens by the same two static keys again and again: their shared
secret is computed once.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.kernel.identity import SealingKey

ENC_BYTES: Final = 32
OVERHEAD_BYTES: Final = ENC_BYTES + 16
"""What sealing adds: the encapsulated key and the Poly1305 tag."""

_KEM: Final = b"HPKE-v1KEM\x00\x20"
_SUITE: Final = b"HPKE-v1HPKE\x00\x20\x00\x01\x00\x03"
_NO_SALT: Final = bytes(32)
_PAIRS_MAX: Final = 1024
_pairs: dict[tuple[bytes, bytes], bytes] = {}


@dataclass(frozen=True, slots=True)
class OpeningKey(SealingKey):
    """A sealing key imported once for HPKE: importing costs as much as a Diffie-Hellman."""

    private: X25519PrivateKey

    @classmethod
    def from_secret(cls, secret: bytes) -> Self:
        """The key pair of a 32-byte secret."""
        private = X25519PrivateKey.from_private_bytes(secret)
        return cls(secret, private.public_key().public_bytes_raw(), private)


def seal(
    public: bytes,
    plaintext: bytes,
    *,
    info: bytes,
    aad: bytes,
    ephemeral: bytes,
    sender: OpeningKey | None = None,
    psk: bytes = b"",
    psk_id: bytes = b"",
) -> bytes | None:
    """``enc || ciphertext`` for the owner of ``public`` (32 B); None when that is of low order.

    ``ephemeral`` is the secret of the encapsulated key: 32 fresh random bytes, never used twice.
    """
    key = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = key.public_key().public_bytes_raw()
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        if sender is not None:
            shared += _between(sender, public)
    except ValueError:
        return None
    context = enc + public + (sender.public if sender is not None else b"")
    cipher, nonce = _schedule(shared, context, sender is not None, info, psk, psk_id)
    return enc + cipher.encrypt(nonce, plaintext, aad)


def unseal(
    key: OpeningKey,
    sealed: bytes,
    *,
    info: bytes,
    aad: bytes,
    sender: bytes | None = None,
    psk: bytes = b"",
    psk_id: bytes = b"",
) -> bytes | None:
    """The plaintext; None when it is not for ``key``, not by ``sender`` (32 B), or altered."""
    enc = sealed[:ENC_BYTES]
    try:
        shared = key.private.exchange(X25519PublicKey.from_public_bytes(enc))
        if sender is not None:
            shared += _between(key, sender)
        context = enc + key.public + (sender or b"")
        cipher, nonce = _schedule(shared, context, sender is not None, info, psk, psk_id)
        return cipher.decrypt(nonce, sealed[ENC_BYTES:], aad)
    except (InvalidTag, ValueError):
        return None


def _between(key: OpeningKey, public: bytes) -> bytes:
    """The shared secret of two static keys; raises ValueError when ``public`` is of low order.

    What is remembered opens nothing by itself, and names keys by their public halves: a destroyed prekey stays so.
    """
    pair = (key.public, public)
    shared = _pairs.get(pair)
    if shared is None:
        shared = key.private.exchange(X25519PublicKey.from_public_bytes(public))
        if len(_pairs) >= _PAIRS_MAX:
            _pairs.clear()
        _pairs[pair] = shared
    return shared


def _schedule(
    shared: bytes, kem_context: bytes, auth: bool, info: bytes, psk: bytes, psk_id: bytes
) -> tuple[ChaCha20Poly1305, bytes]:
    """The cipher and the nonce of the first and only message: ExtractAndExpand (§4.1), KeySchedule (§5.1)."""
    secret = _expand(_KEM, _extract(_KEM, _NO_SALT, b"eae_prk", shared), b"shared_secret", kem_context, 32)
    mode = (2 if auth else 0) + (1 if psk else 0)
    context = bytes((mode,)) + _context(info, psk_id)
    secret = _extract(_SUITE, secret, b"secret", psk)
    return ChaCha20Poly1305(_expand(_SUITE, secret, b"key", context, 32)), _expand(
        _SUITE, secret, b"base_nonce", context, 12
    )


@lru_cache(16)
def _context(info: bytes, psk_id: bytes) -> bytes:
    return _extract(_SUITE, _NO_SALT, b"psk_id_hash", psk_id) + _extract(_SUITE, _NO_SALT, b"info_hash", info)


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract (§4)."""
    return hmac.digest(salt, suite + label + material, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand (§4) of at most one block."""
    return hmac.digest(key, size.to_bytes(2, "big") + suite + label + info + b"\x01", "sha256")[:size]
