"""Writes carry.json: python vectors/make_carry.py

What people say in letters and channels. A change of the file is a change of the wire.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from outlast.kernel.outbox import Receipt
from outlast.rooms.carry.entries import DEVICE, HEARD, HIDE, POST, TEXT, ChannelDevice, Heard, Hide, Post, Text

HERE = Path(__file__).parent


def id_of(text: str, size: int = 32) -> bytes:
    """An id that stands for that of something."""
    return sha256(b"outlast/vectors/1/" + text.encode()).digest()[:size]


def plain(value: Any) -> Any:
    """Bytes as hex, however deep they lie."""
    if isinstance(value, bytes):
        return value.hex()
    return [plain(one) for one in value] if isinstance(value, list) else value


def case(kind: str, body: bytes) -> dict[str, Any]:
    """A body in words and in bytes."""
    return {"kind": kind, "fields": plain(msgspec.msgpack.decode(body)), "body": body.hex()}


def main() -> None:
    """Write the file."""
    letters = [id_of("letter 1", 16), id_of("letter 2", 16)]
    certificate = bytes.fromhex(
        json.loads((HERE / "identity.json").read_text(encoding="utf-8"))["certificates"][0]["certificate"]
    )
    text, post = "Хлеб ёсць. 🍞", "Все на месте.\nЖдём."
    long = Post(text, id_of("post"), 3_600_000)
    made = {
        "about": "Bodies of docs/spec/carry.md. Byte strings are in hex. `letters` are bodies of letters, `short` such"
        " whose last elements are missing; `entries` are bodies in channels; `refused` are bodies of entries that are"
        " not in their one form.",
        "letters": [
            case("carry.text", TEXT.encode(Text(text))),
            case("carry.text", TEXT.encode(Text(text, letters[0]))),
            case("carry.heard", HEARD.encode(Heard((id_of("text 1"), id_of("text 2"))))),
            case("receipt", msgspec.msgpack.encode(Receipt(1, letters))),
            case("receipt", msgspec.msgpack.encode(Receipt(2, letters[:1]))),
        ],
        "short": [case("carry.text", msgspec.msgpack.encode([text]))],
        "entries": [
            case("post", POST.encode(Post(post))),
            case("post", POST.encode(long)),
            case("carry.hide", HIDE.encode(Hide(id_of("post")))),
            case("carry.device", DEVICE.encode(ChannelDevice(certificate))),
        ],
        "refused": [
            case("post", msgspec.msgpack.encode([post])),
            case("post", msgspec.msgpack.encode([post, None])),
            case("post", msgspec.msgpack.encode([post, None, 0, 0])),
            case("post", msgspec.msgpack.encode([post.encode(), None, 0])),
            case("carry.hide", msgspec.msgpack.encode([id_of("post").hex()])),
        ],
    }
    (HERE / "carry.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
