"""Whether things that must tell nothing do: what is the same in them, and whether what differs differs by chance.

Limits lie so far out (beyond six standard deviations) that pure chance passes them less than once in a million runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry, encode_header
from outlast.kernel.mail import MAIL_KIND, MAIL_SPACE, PAYLOAD_CLASSES

RUN_BYTES = 8
"""So many equal bytes in two envelopes are no chance: a million of them have one such pair in 30 million tries."""
FAR = 6.5
"""Standard deviations; with all the places that are looked at, chance goes so far once in a million runs."""

Bits = NDArray[np.int8]


def have_equal_headers(envelopes: Sequence[Entry]) -> None:
    """In a header only keys, tag, hash and signature are an envelope's own; the hour gives its times."""
    for field in ("author", "tags", "payload_hash"):
        values = [getattr(one.header, field) for one in envelopes]
        assert len(set(values)) == len(values), f"two envelopes have one {field}"
    blank = {"author": bytes(32), "tags": (bytes(16),), "payload_hash": bytes(32)}
    shapes: dict[tuple[int, int], set[bytes]] = {}
    for one in envelopes:
        h = one.header
        assert h.ts_ms % HOUR_MS == 0
        assert h.expires_day == h.ts_ms // DAY_MS + 31
        assert (h.version, h.space, h.kind, h.seq, h.prev, h.clock) == (1, MAIL_SPACE, MAIL_KIND, 0, None, 0)
        assert (h.priority, h.stamp_nonce) == (1, 0)
        assert [len(tag) for tag in h.tags] == [16]
        assert h.payload_size in PAYLOAD_CLASSES
        assert one.payload is not None
        assert len(one.payload) == h.payload_size
        assert sha256(one.payload).digest() == h.payload_hash
        assert one.header_bytes == encode_header(h)
        shape = shapes.setdefault((h.ts_ms, h.payload_size), set())
        shape.add(encode_header(msgspec.structs.replace(h, **blank)))
    assert all(len(shape) == 1 for shape in shapes.values()), "of one hour and class, two headers differ elsewhere too"


def share_no_keys(envelopes: Sequence[Entry]) -> None:
    """Keys of HPKE and halves of signatures are used once, and no key of one place stands in another."""
    parts = [
        part
        for one in envelopes
        for part in (one.header.author, (one.payload or b"")[:32], one.signature[:32], one.signature[32:], one.id)
    ]
    assert len(set(parts)) == len(parts), "a key or a signature stands in two places"


def share_no_run(things: Sequence[bytes]) -> None:
    """Nowhere do two of these share ``RUN_BYTES`` bytes in a row, at whatever places."""
    seen: dict[bytes, int] = {}
    for number, data in enumerate(things):
        for run in {data[at : at + RUN_BYTES] for at in range(len(data) - RUN_BYTES + 1)}:
            assert run not in seen, f"{run.hex()} stands in number {seen[run]} and {number}"
            seen[run] = number


def own_bytes(envelope: Entry) -> bytes:
    """All of an envelope that is its own."""
    h = envelope.header
    return h.author + h.tags[0] + envelope.signature + (envelope.payload or b"")


def look_random(data: bytes) -> None:
    """All 256 bytes occur alike, and each follows on the one before without regard to it."""
    values = np.frombuffer(data, np.uint8)
    for sample in (values, values[1:] ^ values[:-1]):
        counts = np.bincount(sample, minlength=256)
        expected = sample.size / 256
        assert expected >= 20, "too little to tell"
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert 120 < chi < 450, f"bytes are not spread evenly: chi-squared is {chi:.0f}, and should be about 255"


def bits_of(envelopes: Sequence[Entry]) -> Bits:
    """Shape (envelopes, bits): 1 or -1 for each bit of author, tag, hash, signature and the first 512 bytes sealed.

    Left out are the bits that the curves fix: the highest of an X25519 key, the four highest of a signature.
    """
    rows = [
        one.header.author + one.header.tags[0] + one.header.payload_hash + (one.payload or b"")[:512] + one.signature
        for one in envelopes
    ]
    packed = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
    bits = np.unpackbits(packed, axis=1).astype(np.int8) * 2 - 1
    enc_top = (32 + 16 + 32 + 31) * 8
    return np.delete(bits, [enc_top, *range(bits.shape[1] - 8, bits.shape[1] - 4)], axis=1)


def have_no_mark(bits: Bits) -> None:
    """No bit at any place is more often one than zero."""
    count = bits.shape[0]
    assert count > FAR**2 + 2, "too few to tell"
    lean = np.abs(bits.sum(axis=0, dtype=np.int64)) / count**0.5
    assert lean.max() < FAR, f"bit {lean.argmax()} is nearly always the same"


def do_not_cluster(bits: Bits, labels: Sequence[Hashable]) -> None:
    """Two envelopes with one label are as unlike each other as two with different labels.

    The bits of two envelopes agree by half; by how much they do in the mean, over all couples of each sort, is compared
    with that, which is exact for independent random bits.
    """
    gram = bits.astype(np.float32) @ bits.astype(np.float32).T  # exact: below 2**24
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    kinds = np.array([numbers[label] for label in labels])
    same = kinds[:, None] == kinds[None, :]
    couples = np.triu(np.ones_like(same), 1)
    for what, chosen in (("alike", couples & same), ("unlike", couples & ~same)):
        number = int(chosen.sum())
        assert number > 0, "no such couple"
        lean = float(gram[chosen].sum(dtype=np.float64)) / (number * bits.shape[1]) ** 0.5
        assert abs(lean) < FAR, f"envelopes of labels that are {what} agree by {lean:+.1f} deviations"


def sizes_of(envelopes: Sequence[Entry]) -> Counter[int]:
    """How many there are of each size of payload."""
    return Counter(one.header.payload_size for one in envelopes)


def agree_by_half(one: bytes, other: bytes) -> None:
    """Of the bits of two things of one size half are equal."""
    assert len(one) == len(other)
    differ = int(np.unpackbits(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())
    lean = (differ - 4 * len(one)) / (2 * len(one)) ** 0.5
    assert abs(lean) < FAR, f"their bits agree by {-lean:+.1f} deviations"
