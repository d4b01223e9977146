"""Bundle: entries in one file, for a stick, a mail attachment or a phone that carries it.

    file   = magic 8 B || version u8 || flags u8 || [4 slots of 80 B] || chunk || chunk ...
    chunk  = 65,536 B || tag 16 B; inside: first u16 || 65,534 B of the stream of records
    record = length u32 || type u8 || body

A *sealed* bundle is for one to four devices. Each slot wraps the file key by HPKE; slots that
nobody needs wrap it to nobody, so that the number of devices shows nowhere. Chunks are sealed by
ChaCha20-Poly1305 with a counter and a final flag in the nonce (the STREAM construction: Hoang et
al., CRYPTO 2015), so that none can be swapped, repeated or cut off unseen. An *open* bundle, for
public channels, has no slots: its tags, under a key that everybody knows, are checksums, and nothing
in it says who wrote the file.

``first`` says where in the chunk the first record begins (0xFFFF: none does). A damaged chunk
therefore loses only the records that touch it. Files have one of few sizes. Nothing is compressed,
so nothing is ever decompressed. The wire is docs/spec/bundle.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.errors import ProtocolError
from outlast.kernel import hpke
from outlast.kernel.chunks import PLACES_MAX, padded, padding_step, to_bytes
from outlast.kernel.entry import (
    HEADER_MAX_BYTES,
    PAYLOAD_MAX_BYTES,
    Entry,
    EntryError,
    pack,
    unpack,
)
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    Device,
    IdentityError,
    SealingKey,
    SigningKey,
    derive,
    read_certificate,
    verify,
)

MAGIC: Final = b"OUTLAST\n"
BUNDLE_VERSION: Final = 1
SLOTS: Final = 4
"""The most devices that one sealed bundle can be for."""
CHUNK_BYTES: Final = 64 * 1024
_FIRST_BYTES: Final = 2
DATA_BYTES: Final = CHUNK_BYTES - _FIRST_BYTES
"""Bytes of the stream of records in each chunk."""
ACKS_MAX: Final = 1000
"""The most acknowledgements told to one receiver; the newest count."""
RECORD_MAX_BYTES: Final = 2 + HEADER_MAX_BYTES + 64 + PAYLOAD_MAX_BYTES
"""Longest body of a record: a packed entry with the largest payload."""

_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32
_SLOT_BYTES: Final = hpke.OVERHEAD_BYTES + _KEY_BYTES
_PREFIX_BYTES: Final = len(MAGIC) + 2
MIN_BYTES: Final = _PREFIX_BYTES + SLOTS * _SLOT_BYTES + CHUNK_BYTES + _TAG_BYTES
"""A sealed bundle in which there is next to nothing."""
_HEAD_BYTES: Final = 5
_CONTENT_HEAD_BYTES: Final = 34
_SEALED: Final = 0
_OPEN: Final = 1
_NONE: Final = 0xFFFF
_INFO: Final = b"outlast/bundle/1"
_CHUNK_LABEL: Final = b"outlast/bundle-chunk/1"
_OPEN_DOMAIN: Final = b"outlast/bundle-open/1"
_SIGN_DOMAIN: Final = b"outlast/bundle-sign/1"

Rand = Callable[[int], bytes]
"""Returns that many random bytes; ``os.urandom`` outside of tests."""


class BundleError(ProtocolError):
    """A file is no bundle, is for somebody else, or breaks the format from its beginning."""


class ElsewhereError(BundleError):
    """A bundle that was not written for who reads it."""


class Record(IntEnum):
    """The types of records; those of other numbers are passed over."""

    MANIFEST = 1
    ENTRY = 2
    TRAILER = 3
    CONTENT = 4
    HOLDING = 5


class Receiver(msgspec.Struct, array_like=True, frozen=True):
    """A device that a sealed bundle is for."""

    device: bytes  # 32 B
    acks: tuple[int, ...]  # the numbers of this device's bundles that the writer has read whole


class Manifest(msgspec.Struct, array_like=True, frozen=True):
    """What a bundle says of itself, in its first record. Field order is the wire order.

    Nobody vouches for it before the end of the file says ``Summary.signature_ok``.
    """

    version: int
    certificate: bytes  # of the writer's device; empty in an open bundle
    receivers: tuple[Receiver, ...]  # one to four; none in an open bundle
    number: int  # the writer's count of bundles for these receivers; 0 in an open bundle
    made_day: int
    entries: int | None  # how many there are, if the writer knew

    def acks_for(self, device: bytes) -> tuple[int, ...]:
        """The numbers of the bundles of ``device`` (32 B) that the writer has read whole."""
        return next((r.acks for r in self.receivers if r.device == device), ())


class Content(NamedTuple):
    """A chunk of an entry's content (see ``chunks``); nothing is checked but its length."""

    id: bytes
    place: int
    data: bytes | memoryview
    hash: bytes  # SHA-256 of the data: whoever has it already need not hash again

    @classmethod
    def of(cls, id: bytes, place: int, data: bytes | memoryview) -> Content:
        """The chunk with this data."""
        return cls(id, place, data, sha256(data).digest())


class Holding(NamedTuple):
    """What the writer holds of the receiver's content: the places of its chunks, as a set (see ``chunks``)."""

    id: bytes
    held: int


Item = Manifest | Entry | Content | Holding


@dataclass(frozen=True, slots=True)
class Summary:
    """What a reader knows at the end of a file."""

    manifest: Manifest | None  # None: its chunk is damaged
    writer: Device | None  # None: open, or the manifest's chunk is damaged
    entries: int  # handed on
    malformed: int  # records that break the format; no damage makes them, only a writer does
    whole: bool  # all records were read, and they are those that the writer wrote
    signature_ok: bool | None  # by the writer, over manifest and digest; None: open or damaged
    truncated: bool  # the file ends before its last chunk
    damaged_chunks: tuple[int, ...]  # by place in the file, from 0


class BundleWriter:
    """Writes a bundle: the bytes of ``start``, of each ``add`` and of ``finish`` make the file."""

    def __init__(self, header: bytes, chunks: _Chunks, manifest: Manifest, signer: SigningKey | None):
        """Take over what ``sealed`` and ``open`` prepare; use those."""
        self._header = header
        self._chunks = chunks
        self._manifest = msgspec.msgpack.encode(manifest)
        self._signer = signer
        self._digest = sha256()
        self._plain = bytearray(_FIRST_BYTES)
        self._first = _NONE
        self._index = 0

    @classmethod
    def sealed(
        cls,
        receivers: Sequence[tuple[bytes, bytes]],
        *,
        certificate: bytes,
        signer: SigningKey,
        number: int,
        made_day: int,
        rand: Rand,
        acks: Mapping[bytes, Sequence[int]] = {},
        entries: int | None = None,
    ) -> Self:
        """A bundle for one to four ``receivers``: (device 32 B, its prekey or seal key 32 B) each.

        ``signer`` is the device that ``certificate`` certifies; ``acks`` are, for each receiving
        device, the numbers of its bundles that were read whole (the last ACKS_MAX are told).
        Raises BundleError when there are too many receivers or one's key is of low order.
        """
        if not 1 <= len(receivers) <= SLOTS:
            raise BundleError("a bundle is for 1 to %(most)s devices, not for %(n)s", most=SLOTS, n=len(receivers))
        manifest = Manifest(
            BUNDLE_VERSION,
            certificate,
            tuple(Receiver(device, tuple(acks.get(device, ())[-ACKS_MAX:])) for device, _ in receivers),
            number,
            made_day,
            entries,
        )
        prefix = MAGIC + bytes((BUNDLE_VERSION, _SEALED))
        file_key = rand(_KEY_BYTES)
        publics = [public for _, public in receivers]
        # A slot of random bytes would show: half of all strings are no point of the curve.
        while len(publics) < SLOTS:
            publics.append(SealingKey.from_secret(rand(32)).public)
        publics.sort(key=lambda _: rand(8))
        slots = [hpke.seal(public, file_key, info=_INFO, aad=prefix, ephemeral=rand(32)) for public in publics]
        if None in slots:
            raise BundleError("a receiver's key is not usable")
        header = prefix + b"".join(slot or b"" for slot in slots)
        return cls(header, _SealedChunks(file_key, prefix), manifest, signer)

    @classmethod
    def open(cls, *, made_day: int) -> Self:
        """A bundle that everybody can read, of public entries; it does not say who wrote it."""
        prefix = MAGIC + bytes((BUNDLE_VERSION, _OPEN))
        manifest = Manifest(BUNDLE_VERSION, b"", (), 0, made_day, None)
        return cls(prefix, _OpenChunks(prefix), manifest, None)

    def start(self) -> bytes:
        """The first bytes of the file; to be called once, before all else."""
        return self._header + self._record(Record.MANIFEST, self._manifest)

    def room(self, max_bytes: int) -> int:
        """Bytes of records (``record_bytes``) that still fit into a file of at most ``max_bytes``.

        Below 0: not even what is there.
        """
        count = (max_bytes - len(self._header)) // (CHUNK_BYTES + _TAG_BYTES)
        trailer = _HEAD_BYTES + 32 + (64 if self._signer is not None else 0)
        # A chunk that was filled to its end is followed by another one.
        return (_below(count) - self._index) * DATA_BYTES - (len(self._plain) - _FIRST_BYTES) - trailer - 1

    def add(self, entry: Entry) -> bytes:
        """The bytes that became ready by adding an entry; often none."""
        return self._record(Record.ENTRY, pack(entry))

    def add_content(self, content: Content) -> bytes:
        """The bytes that became ready by adding a chunk of an entry's content, behind all entries."""
        id, place, data, hash = content
        return self._record(Record.CONTENT, id + place.to_bytes(2, "big"), data, hash)

    def add_holding(self, holding: Holding) -> bytes:
        """The bytes that became ready by saying what is held of a content that the receiver has sent."""
        return self._record(Record.HOLDING, holding.id + to_bytes(holding.held))

    def finish(self) -> Iterator[bytes | bytearray]:
        """The last bytes of the file, one chunk at a time; must be run to its end."""
        digest = self._digest.digest()
        signature = b""
        if self._signer is not None:
            signature = self._signer.sign(_signed(self._manifest, digest))
        yield self._record(Record.TRAILER, digest + signature)
        last = padded(self._index + 1) - 1
        for index in range(self._index, last + 1):
            self._plain += bytes(CHUNK_BYTES - len(self._plain))
            yield self._chunk(final=index == last)

    def _record(self, record: Record, body: bytes, data: bytes | memoryview = b"", hash: bytes = b"") -> bytes:
        """A record of the body and the data behind it, for which its hash stands in the digest."""
        if self._first == _NONE:
            self._first = len(self._plain) - _FIRST_BYTES
        head = b"".join(((len(body) + len(data)).to_bytes(4, "big"), bytes((record,)), body))
        self._digest.update(head + hash)
        ready = []
        for part in (memoryview(head), memoryview(data)):
            while len(part) >= (room := CHUNK_BYTES - len(self._plain)):
                self._plain += part[:room]
                part = part[room:]
                ready.append(self._chunk(final=False))
            self._plain += part
        return b"".join(ready)

    def _chunk(self, *, final: bool) -> bytes | bytearray:
        """What is full, as it stands in the file; the next one begins."""
        self._plain[:_FIRST_BYTES] = self._first.to_bytes(_FIRST_BYTES, "big")
        chunk = self._chunks.close(self._plain, self._index, final)
        self._plain = bytearray(_FIRST_BYTES)
        self._first = _NONE
        self._index += 1
        return chunk


class BundleReader:
    """Reads a bundle fed in pieces of any size; holds at most a chunk and a record of it.

    ``keys`` are all that can open it (the device's seal key and prekeys), ``devices`` (32 B each) are
    the reader's own: what was written for others and passed on is refused. Open bundles need neither.
    """

    def __init__(self, keys: Sequence[OpeningKey] = (), *devices: bytes) -> None:
        """Begin before the first byte."""
        self._keys = keys
        self._devices = devices
        self._input = b""
        self._prefix = b""
        self._chunks: _Chunks | None = None
        self._index = 0
        self._ended = False  # the last chunk was read
        self._damaged: list[int] = []
        # What is left of the stream after the last whole record; None after damage, until a chunk
        # says where a record begins.
        self._rest: bytes | memoryview | None = b""
        self._records = 0
        self._digest = sha256()
        self._manifest: Manifest | None = None
        self._manifest_bytes = b""
        self._writer: Device | None = None
        self._trailer: bytes | None = None
        self._entries = 0
        self._malformed = 0

    def feed(self, data: bytes) -> list[Item]:
        """The items that these bytes complete, in order; entries are not verified (see ``admit``).

        Raises BundleError when the file is no bundle, is for somebody else, is of a newer version,
        or its manifest breaks the format.
        """
        self._input += data
        items: list[Item] = []
        if self._chunks is None and not self._begin():
            return items
        assert self._chunks is not None
        size = CHUNK_BYTES + _TAG_BYTES
        start = 0
        view = memoryview(self._input)
        while len(view) - start >= size and not self._ended:
            chunk = view[start : start + size]
            start += size
            plaintext = self._chunks.open(chunk, self._index, False)
            if plaintext is None:
                plaintext = self._chunks.open(chunk, self._index, True)
                self._ended = plaintext is not None
            if plaintext is None:
                self._damaged.append(self._index)
                self._rest = None
            else:
                items += self._read(plaintext)
            self._index += 1
        self._input = b"" if self._ended else bytes(view[start:])
        return items

    def finish(self) -> Summary:
        """What is known at the end of the file; raises BundleError when that is in its header."""
        if self._chunks is None:
            if self._input and MAGIC.startswith(self._input[: len(MAGIC)]):
                raise BundleError("the bundle was cut off at its beginning: copy the file again")
            raise BundleError("this file is no bundle")
        signed: bool | None = None
        whole = self._trailer is not None and self._trailer[:32] == self._digest.digest()
        whole = whole and self._manifest is not None and not self._malformed
        if self._writer is not None and self._trailer is not None:
            message = _signed(self._manifest_bytes, self._trailer[:32])
            signed = verify(self._writer.device, self._trailer[32:], message)
            whole = whole and signed
        at_end = self._ended or (bool(self._damaged) and self._damaged[-1] == self._index - 1 and not self._input)
        return Summary(
            manifest=self._manifest,
            writer=self._writer,
            entries=self._entries,
            malformed=self._malformed,
            whole=whole,
            signature_ok=signed,
            truncated=not at_end,
            damaged_chunks=tuple(self._damaged),
        )

    def _begin(self) -> bool:
        """Read the header if it is complete; whether it was."""
        head = self._input[:_PREFIX_BYTES]
        if head[: len(MAGIC)] != MAGIC[: len(head)]:
            raise BundleError("this file is no bundle")
        if len(head) < _PREFIX_BYTES:
            return False
        version, flags = head[len(MAGIC) :]
        if version != BUNDLE_VERSION or flags not in (_SEALED, _OPEN):
            raise BundleError("this bundle was made by a newer Outlast: update this one to read it")
        if flags == _OPEN:
            self._input = self._input[_PREFIX_BYTES:]
            self._chunks = _OpenChunks(head)
            return True
        end = _PREFIX_BYTES + SLOTS * _SLOT_BYTES
        if len(self._input) < end:
            return False
        slots = [self._input[start : start + _SLOT_BYTES] for start in range(_PREFIX_BYTES, end, _SLOT_BYTES)]
        self._input = self._input[end:]
        for key in self._keys:
            for slot in slots:
                file_key = hpke.unseal(key, slot, info=_INFO, aad=head)
                if file_key is not None and len(file_key) == _KEY_BYTES:
                    self._chunks = _SealedChunks(file_key, head)
                    return True
        raise ElsewhereError("this bundle is for somebody else")

    def _read(self, plaintext: bytes | memoryview) -> list[Item]:
        """The items that one good chunk completes."""
        if self._trailer is not None:
            return []
        if self._rest is None:
            first = int.from_bytes(plaintext[:2], "big")
            if first >= DATA_BYTES:
                return []
            data = memoryview(plaintext)[2 + first :]
        else:
            data = memoryview(b"".join((self._rest, memoryview(plaintext)[2:])))
        items: list[Item] = []
        at = 0
        while self._trailer is None and len(data) - at >= _HEAD_BYTES:
            body_at = at + _HEAD_BYTES
            end = body_at + int.from_bytes(data[at : at + 4], "big")
            if end - body_at > RECORD_MAX_BYTES:
                self._malformed += 1
                self._rest = None
                return items
            if end > len(data):
                break
            items += self._take(data[body_at - 1], data[body_at:end], data[at:end])
            at = end
        self._rest = data[at:]
        return items

    def _take(self, kind: int, content: memoryview, encoded: memoryview) -> list[Item]:
        self._records += 1
        if self._index == 0 and self._records == 1 and kind != Record.MANIFEST:
            raise BundleError("the bundle does not begin with its manifest: its writer is broken")
        if kind == Record.TRAILER:
            self._trailer = bytes(content)
            return []
        if kind == Record.CONTENT and _CONTENT_HEAD_BYTES < len(content) <= _CONTENT_HEAD_BYTES + PAYLOAD_MAX_BYTES:
            place = int.from_bytes(content[32:_CONTENT_HEAD_BYTES], "big")
            part = Content.of(bytes(content[:32]), place, bytes(content[_CONTENT_HEAD_BYTES:]))
            self._digest.update(b"".join((encoded[: _HEAD_BYTES + _CONTENT_HEAD_BYTES], part.hash)))
            return [part]
        self._digest.update(encoded)
        body = bytes(content)
        if kind == Record.MANIFEST and self._manifest is None:
            self._manifest = self._read_manifest(body)
            self._manifest_bytes = body
            return [self._manifest]
        if kind == Record.ENTRY:
            try:
                entry, end = unpack(body)
            except EntryError:
                end = -1
            if end == len(body):
                self._entries += 1
                return [entry]
            self._malformed += 1
        if kind == Record.CONTENT:
            self._malformed += 1
        if kind == Record.HOLDING:
            if 32 <= len(body) <= 32 + PLACES_MAX // 8:
                return [Holding(body[:32], int.from_bytes(body[32:], "little"))]
            self._malformed += 1
        return []

    def _read_manifest(self, body: bytes) -> Manifest:
        try:
            manifest = _manifest_decoder.decode(body)
            is_open = isinstance(self._chunks, _OpenChunks)
            self._writer = None if is_open else read_certificate(manifest.certificate)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, IdentityError):
            raise BundleError("the bundle's manifest is malformed: its writer is broken") from None
        receivers = manifest.receivers
        numbers = [manifest.number, manifest.made_day, manifest.entries or 0]
        for receiver in receivers:
            numbers += receiver.acks
        if (
            manifest.version != BUNDLE_VERSION
            or len(receivers) > SLOTS
            or any(len(receiver.acks) > ACKS_MAX for receiver in receivers)
            or not all(0 <= number < 2**53 for number in numbers)
        ):
            raise BundleError("the bundle's manifest is malformed: its writer is broken")
        devices = [receiver.device for receiver in receivers]
        if not is_open and self._devices and not set(self._devices).intersection(devices):
            raise ElsewhereError("this bundle was written for somebody else and passed on")
        return manifest


class _SealedChunks:
    """Chunks under ChaCha20-Poly1305; the nonce is an 11-byte counter and the final flag."""

    def __init__(self, file_key: bytes, prefix: bytes) -> None:
        self._cipher = ChaCha20Poly1305(derive(file_key, _CHUNK_LABEL))
        # Not the slots: damage to those of others would take every chunk with it.
        self._prefix = prefix

    def close(self, plaintext: bytearray, index: int, final: bool) -> bytes:
        return self._cipher.encrypt(_nonce(index, final), plaintext, self._prefix)

    def open(self, chunk: memoryview, index: int, final: bool) -> bytes | None:
        try:
            return self._cipher.decrypt(_nonce(index, final), chunk, self._prefix)
        except InvalidTag:
            return None


class _OpenChunks:
    """Chunks in clear; the tag is a checksum against damage, not against people."""

    def __init__(self, prefix: bytes) -> None:
        self._cipher = ChaCha20Poly1305(sha256(_OPEN_DOMAIN + prefix).digest())

    def close(self, plaintext: bytearray, index: int, final: bool) -> bytearray:
        plaintext += self._cipher.encrypt(_nonce(index, final), b"", plaintext)
        return plaintext

    def open(self, chunk: memoryview, index: int, final: bool) -> memoryview | None:
        plaintext = chunk[:CHUNK_BYTES]
        try:
            self._cipher.decrypt(_nonce(index, final), chunk[CHUNK_BYTES:], plaintext)
        except InvalidTag:
            return None
        return plaintext


_Chunks = _SealedChunks | _OpenChunks
_manifest_decoder = msgspec.msgpack.Decoder(Manifest)


def _nonce(index: int, final: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes((final,))


def _signed(manifest: bytes, digest: bytes) -> bytes:
    return _SIGN_DOMAIN + sha256(manifest).digest() + digest


def record_bytes(entry: Entry) -> int:
    """What an entry takes in a bundle."""
    return _HEAD_BYTES + len(pack(entry))


def contents_bytes(size_bytes: int) -> int:
    """The most that content of this size takes in a bundle, in chunks."""
    count = -(-size_bytes // PAYLOAD_MAX_BYTES)
    return size_bytes + count * (_HEAD_BYTES + _CONTENT_HEAD_BYTES)


def _below(count: int) -> int:
    """The most chunks, of at most ``count``, that are padded to themselves; 0 for none."""
    if count <= 0:
        return 0
    step = padding_step(count)
    return count // step * step
