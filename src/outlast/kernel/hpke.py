"""HPKE (RFC 9180) in the one suite of this program, single-shot, with randomness as an argument.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305; sealed bytes are
``enc 32 B || ciphertext``. The mode follows from the arguments: Base, PSK with ``psk``, Auth with
``sender``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from outlast.kernel.identity import SealingKey

if TYPE_CHECKING:
    from pyhpke import CipherSuite

ENC_BYTES: Final = 32
OVERHEAD_BYTES: Final = ENC_BYTES + 16
"""What sealing adds: the encapsulated key and the Poly1305 tag."""


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
    from pyhpke import KEMKey, KEMKeyPair, PyHPKEError

    key = X25519PrivateKey.from_private_bytes(ephemeral)
    load = KEMKey.from_pyca_cryptography_key
    try:
        enc, context = _suite().create_sender_context(
            load(X25519PublicKey.from_public_bytes(public)),
            info,
            load(sender.private) if sender else None,
            psk,
            psk_id,
            KEMKeyPair(load(key), load(key.public_key())),
        )
        return enc + context.seal(plaintext, aad)
    except (PyHPKEError, ValueError):
        return None


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
    from pyhpke import KEMKey, PyHPKEError

    load = KEMKey.from_pyca_cryptography_key
    try:
        context = _suite().create_recipient_context(
            sealed[:ENC_BYTES],
            load(key.private),
            info,
            load(X25519PublicKey.from_public_bytes(sender)) if sender is not None else None,
            psk,
            psk_id,
        )
        return context.open(sealed[ENC_BYTES:], aad)
    except (PyHPKEError, ValueError):
        return None


@cache
def _suite() -> CipherSuite:
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId

    return CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.CHACHA20_POLY1305)
