"""Who stands for a release: its keys, of which two of three must have signed, and the six words that name it.

A signature (Ed25519) is over ``outlast/release/1`` and the bytes of the manifest. The keys that count are those in
``release_keys.txt`` of the program that checks, never those of the release that is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib import resources
from typing import Final

import msgspec

from outlast import __version__
from outlast.edges.spread.install import InstallError, Manifest, read_manifest
from outlast.errors import ProtocolError, UsageError
from outlast.kernel import SigningKey, fingerprint_words, verify

DOMAIN: Final = b"outlast/release/1"
NEEDED: Final = 2
SIGNATURES_MAX: Final = 16


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key's word for a manifest, both in hex."""

    key: str  # 32 B
    signature: str  # 64 B


class Signatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file ``manifest.sig``."""

    signatures: list[Signature]


def pinned_keys() -> list[bytes]:
    """The release keys (32 B each) that this program was made with."""
    return read_keys(resources.files("outlast.edges.spread").joinpath("release_keys.txt").read_text(encoding="utf-8"))


def read_keys(text: str) -> list[bytes]:
    """The keys of a list: 64 hex digits a line; what follows, and what stands behind ``#``, is for people."""
    return [bytes.fromhex(one) for one in re.findall(r"(?m)^([0-9a-f]{64})\b", text)]


def sign(key: SigningKey, manifest: bytes, signatures: bytes = b"") -> bytes:
    """``manifest.sig`` with this key's signature beside those that were there."""
    before = [one for one in read_signatures(signatures) if one.key != key.public.hex()]
    made = Signature(key.public.hex(), key.sign(DOMAIN + manifest).hex())
    return msgspec.json.format(msgspec.json.encode(Signatures([*before, made]))) + b"\n"


def read_signatures(data: bytes) -> Sequence[Signature]:
    """What ``manifest.sig`` holds, nothing when it is empty; raises ProtocolError."""
    if not data:
        return ()
    try:
        found = msgspec.json.decode(data, type=Signatures).signatures
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProtocolError("the signatures of this release are damaged: get it again") from None
    return found[:SIGNATURES_MAX]


def signers(manifest: bytes, signatures: bytes, keys: Iterable[bytes]) -> set[bytes]:
    """Which of ``keys`` signed the manifest; raises ProtocolError for what is no list of signatures."""
    given = read_signatures(signatures)
    return {
        key
        for key in keys
        for one in given
        if one.key == key.hex() and verify(key, _from_hex(one.signature), DOMAIN + manifest)
    }


def check_renewal(manifest: bytes, signatures: bytes, keys: Sequence[bytes], installed: str = __version__) -> Manifest:
    """The manifest that may take the place of the ``installed`` version.

    Raises UsageError when there are no keys to check by or it is no newer one, ProtocolError when too few signed it.
    """
    if len(keys) < NEEDED:
        raise UsageError("this program was made without release keys, so it cannot know a release: install it anew")
    count = len(signers(manifest, signatures, keys))
    if count < NEEDED:
        raise ProtocolError(f"{count} of the release keys signed this, {NEEDED} are needed: it is refused")
    try:
        read = read_manifest(manifest)
    except InstallError as error:
        raise ProtocolError(str(error)) from None
    if number(read.version) <= number(installed):
        raise UsageError(f"this is version {read.version}, and {installed} is installed: only newer ones are taken")
    return read


def number(version: str) -> tuple[int, ...]:
    """A version ``1.2.3`` as what can be compared; another form stands before all."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", version) else ()


def words_of_release(manifest: bytes) -> str:
    """Six words by which people compare a release: the same wherever it came from."""
    return " ".join(fingerprint_words(sha256(DOMAIN + manifest).digest()))


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
