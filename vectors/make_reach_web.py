"""Makes ``reach-web.json``: paths of users and days, a request, and its answer. Run it as a script."""

from __future__ import annotations

import base64
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from outlast.rooms.reach.proto.web import path_of, write_accept, write_request

DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


def secret(*names: object) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + "/".join(map(str, names)).encode()).digest()


def made() -> dict[str, Any]:
    """The vectors."""
    paths = [
        {"secret": secret("user", user).hex(), "day": day, "path": path_of(secret("user", user), day).decode()}
        for user in range(4)
        for day in (0, 20_779, 20_780, 20_781)
    ]
    exchanges = []
    for number, (host, size) in enumerate((("bread.example", 0), ("bread.example:8443", 40), ("192.0.2.7", 511))):
        key, padding = secret("key", number)[:16], (secret("padding", number) * 16)[:size]
        path = path_of(secret("user", number), 20_780)
        exchanges.append(
            {
                "host": host,
                "path": path.decode(),
                "key": key.hex(),
                "padding": padding.hex(),
                "request": write_request(host, path, key, padding).decode(),
                "date": DATE,
                "answer": write_accept(base64.b64encode(key), DATE.encode(), padding).decode(),
            }
        )
    return {"paths": paths, "exchanges": exchanges}


def main() -> None:
    """Write the file."""
    Path(__file__).with_name("reach-web.json").write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
