"""Writes lan.json: python vectors/make_lan.py

Announcements in a local network. A change of the file is a change of the wire.
"""

from __future__ import annotations

import json
from hashlib import sha256
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path

from outlast.kernel.identity import SealingKey
from outlast.kernel.links.beacon import announce, pair_keys, to_fields

HERE = Path(__file__).parent
WHERE = (IPv4Address("192.168.1.20"), 8485)


def secret(*names: object) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + "/".join(map(str, names)).encode()).digest()


def case(neighbours: int, *, strangers: bool) -> dict[str, object]:
    """An announcement of one node with so many neighbours."""
    own = SealingKey.from_secret(secret("own"))
    known = [SealingKey.from_secret(secret("neighbour", number)) for number in range(neighbours)]
    keys = pair_keys(own, [one.public for one in known])
    numbers = count()
    said = announce(
        own.public,
        keys.values(),
        WHERE,
        lambda size: secret("chance", neighbours, next(numbers))[:size],
        strangers=strangers,
    )
    return {
        "secret": own.secret.hex(),
        "public": own.public.hex(),
        "address": str(WHERE[0]),
        "port": WHERE[1],
        "neighbours": [
            {"secret": one.secret.hex(), "public": one.public.hex(), "key": keys[one.public].hex()} for one in known
        ],
        "fields": {name.decode(): value.hex() for name, value in to_fields(said).items()},
    }


def main() -> None:
    """Write the file."""
    cases = [case(0, strangers=False), case(3, strangers=True), case(8, strangers=False), case(33, strangers=False)]
    (HERE / "lan.json").write_text(json.dumps({"announcements": cases}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
