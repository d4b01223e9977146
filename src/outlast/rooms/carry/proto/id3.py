"""MPEG audio (MP3) and ADTS (AAC) with tags before and behind it: ID3v2, ID3v1 and APE. Tags become silence."""

from __future__ import annotations

from typing import Final

from outlast.rooms.carry.proto.patch import MediaError, Patch, Read

TAGS_MAX: Final = 8
_OLD_BYTES: Final = 128
_APE_BYTES: Final = 32


def patches(read: Read, size: int) -> list[Patch]:
    """What is to be overwritten in a file of ``size`` bytes; raises MediaError."""
    found: list[Patch] = []
    at = 0
    for _ in range(TAGS_MAX):
        head = read(at, 10)
        if head[:3] != b"ID3":
            break
        if len(head) < 10 or any(byte & 0x80 for byte in head[6:10]):
            raise MediaError("a tag of this recording is damaged")
        length = sum(byte << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
        end = at + 10 + length + (10 if head[5] & 0x10 else 0)
        if end > size:
            raise MediaError("a tag of this recording is cut off")
        # A tag without flags that is padding alone.
        found.append(Patch(at, end - at, b"ID3\x04\0\0" + _seven(end - at - 10)))
        at = end
    if not _is_sound(read(at, 4)):
        raise MediaError("no sound follows the tags of this recording")
    end = size
    if end - at >= _OLD_BYTES and read(end - _OLD_BYTES, 3) == b"TAG":
        end -= _OLD_BYTES
        found.append(Patch(end, _OLD_BYTES))
    if end - at >= _APE_BYTES and (foot := read(end - _APE_BYTES, _APE_BYTES))[:8] == b"APETAGEX":
        length = int.from_bytes(foot[12:16], "little") + (_APE_BYTES if foot[23] & 0x80 else 0)
        if length > end - at:
            raise MediaError("a tag of this recording is damaged")
        found.append(Patch(end - length, length))
    return found


def _is_sound(head: bytes) -> bool:
    return len(head) == 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _seven(number: int) -> bytes:
    return bytes(number >> 7 * place & 0x7F for place in (3, 2, 1, 0))
