"""HPKE a second time, from RFC 9180 alone and over libsodium: what the program seals, this opens.

One suite: DHKEM(X25519, HKDF-SHA256) 0x0020, HKDF-SHA256 0x0001, ChaCha20Poly1305 0x0003.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)

KEM = b"KEM\x00\x20"
HPKE = b"HPKE\x00\x20\x00\x01\x00\x03"


class Context(NamedTuple):
    """The key and the nonce of the first and only message."""

    key: bytes
    nonce: bytes


def extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract of RFC 9180 §4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand of RFC 9180 §4, for at most one block."""
    labeled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\x01", "sha256")[:size]


def schedule(shared: list[bytes], keys: list[bytes], info: bytes, psk: bytes, psk_id: bytes) -> Context:
    """ExtractAndExpand (§4.1), KeySchedule (§5.1); `keys` are enc, receiver and in Auth sender."""
    eae_prk = extract(KEM, b"", b"eae_prk", b"".join(shared))
    secret = expand(KEM, eae_prk, b"shared_secret", b"".join(keys), 32)
    mode = (1 if psk else 0) + (2 if len(keys) == 3 else 0)
    context = bytes([mode]) + extract(HPKE, b"", b"psk_id_hash", psk_id)
    context += extract(HPKE, b"", b"info_hash", info)
    secret = extract(HPKE, secret, b"secret", psk)
    return Context(expand(HPKE, secret, b"key", context, 32), expand(HPKE, secret, b"base_nonce", context, 12))


def seal(
    receiver: bytes,
    plaintext: bytes,
    info: bytes,
    aad: bytes,
    ephemeral: bytes,
    sender: bytes | None = None,
    psk: bytes = b"",
    psk_id: bytes = b"",
) -> bytes:
    """enc and ciphertext for a public key; `ephemeral` and `sender` are secret keys."""
    keys = [crypto_scalarmult_base(ephemeral), receiver]
    shared = [crypto_scalarmult(ephemeral, receiver)]
    if sender is not None:
        keys.append(crypto_scalarmult_base(sender))
        shared.append(crypto_scalarmult(sender, receiver))
    key, nonce = schedule(shared, keys, info, psk, psk_id)
    return keys[0] + crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, nonce, key)


def unseal(
    secret: bytes,
    sealed: bytes,
    info: bytes,
    aad: bytes,
    sender: bytes | None = None,
    psk: bytes = b"",
    psk_id: bytes = b"",
) -> bytes:
    """The plaintext by a secret key; `sender` is public. Raises CryptoError when altered."""
    keys = [sealed[:32], crypto_scalarmult_base(secret)]
    shared = [crypto_scalarmult(secret, sealed[:32])]
    if sender is not None:
        keys.append(sender)
        shared.append(crypto_scalarmult(secret, sender))
    key, nonce = schedule(shared, keys, info, psk, psk_id)
    return crypto_aead_chacha20poly1305_ietf_decrypt(sealed[32:], aad, nonce, key)
