"""People for the kernel's tests: their keys come from their names, the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import count

from outlast.kernel.entry import Entry, Header, sign_entry
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import Device, SigningKey, certify, read_certificate

NOW_MS = 1_795_305_912_345
"""An hour that is not full, on a day that is not over."""


def secret(*parts: object) -> bytes:
    """32 bytes that depend on the parts alone."""
    return sha256("/".join(map(str, parts)).encode()).digest()


def stream(*seed: object) -> Callable[[int], bytes]:
    """A source of bytes that gives the same ones in every run."""
    blocks = count()

    def take(size: int) -> bytes:
        return b"".join(secret(*seed, next(blocks)) for _ in range(-(-size // 32)))[:size]

    return take


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with one device and two prekeys, the newest first."""

    identity: SigningKey
    signing: SigningKey
    seal: OpeningKey
    prekeys: tuple[OpeningKey, OpeningKey]
    device: Device


def person(name: str, shown: str | None = None) -> Person:
    """The person of that name, who calls themself `shown`."""
    identity = SigningKey.from_seed(secret(name, "identity"))
    signing = SigningKey.from_seed(secret(name, "signing"))
    seal = OpeningKey.from_secret(secret(name, "seal"))
    newest, older = (OpeningKey.from_secret(secret(name, "prekey", n)) for n in (2, 1))
    certificate = certify(identity, signing, seal.public, 20_000, shown or name)
    return Person(identity, signing, seal, (newest, older), read_certificate(certificate))


def entry(author: SigningKey, payload: bytes | None, *, number: int = 0, size: int = 0) -> Entry:
    """A signed entry of no particular space; with `payload` None the header alone, of that size."""
    content = payload if payload is not None else bytes(size)
    header = Header(
        version=1,
        space=secret("space"),
        kind="test.post",
        author=author.public,
        seq=0,
        prev=None,
        clock=number,
        ts_ms=NOW_MS,
        expires_day=20_800,
        priority=2,
        payload_hash=sha256(content).digest(),
        payload_size=len(content),
        tags=(),
        stamp_nonce=0,
    )
    return sign_entry(header, author, payload)
