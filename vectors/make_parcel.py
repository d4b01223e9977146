"""Writes parcel.json: python vectors/make_parcel.py

Files as they travel to a person. A change of the file is a change of the wire.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import msgspec

from outlast.kernel.chunks import PLACES_MAX
from outlast.kernel.entry import encode_header
from outlast.kernel.identity import SigningKey
from outlast.kernel.parcel import PARCEL_GENESIS, PARCEL_SPACE, PLAIN_BYTES, Sealer, counts_of, make_parcel
from outlast.rooms.carry.entries import File

HERE = Path(__file__).parent
NOW_MS = 1_795_305_912_345
SIZES = (0, 1, PLAIN_BYTES, PLAIN_BYTES + 1, 9 * PLAIN_BYTES, PLACES_MAX * PLAIN_BYTES + 1, 2 << 30)


def secret(*names: object) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + "/".join(map(str, names)).encode()).digest()


def content(size: int) -> bytes:
    """Bytes of a file: SHA-256 of numbers, one after another."""
    return b"".join(sha256(number.to_bytes(4, "big")).digest() for number in range(-(-size // 32)))[:size]


def case(size: int) -> dict[str, object]:
    """A file of that size, its parcels and its letter."""
    key = secret("key", size)
    counts = counts_of(size)
    sealer, data, first, parcels = Sealer(key), content(size), 0, []
    for number, count in enumerate(counts):
        plain = data[first * PLAIN_BYTES : (first + count) * PLAIN_BYTES].ljust(count * PLAIN_BYTES, b"\0")
        cuts = sealer.seal(plain, first)
        first += count
        author = SigningKey.from_seed(secret("author", size, number))
        payload = cuts[0].data if count == 1 else b"".join(cut.hash for cut in cuts)
        parcels.append(make_parcel(author, [cut.hash for cut in cuts], payload, NOW_MS))
    file = File("файл.bin", "application/octet-stream", size, key, tuple(one.id for one in parcels), b"")
    return {
        "size": size,
        "key": key.hex(),
        "counts": counts,
        "headers": [one.header_bytes.hex() for one in parcels],
        "signatures": [one.signature.hex() for one in parcels],
        "letter": msgspec.msgpack.encode(file).hex(),
    }


def main() -> None:
    """Write the file."""
    made = {
        "genesis": encode_header(PARCEL_GENESIS).hex(),
        "space": PARCEL_SPACE.hex(),
        "counts": {str(size): counts_of(size) for size in SIZES},
        "files": [case(size) for size in SIZES[:5]],
    }
    (HERE / "parcel.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
