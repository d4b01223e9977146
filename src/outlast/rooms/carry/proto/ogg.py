"""Ogg (RFC 3533) with Opus (RFC 7845) or Vorbis: the comments become empty, and the pages get new checksums."""

from __future__ import annotations

from typing import Final

from outlast.rooms.carry.proto.patch import MediaError, Patch, Read

PAGE_MAX: Final = 27 + 255 + 255 * 255
HEADER_PAGES_MAX: Final = 512
PAGES_MAX: Final = 1 << 20
_BEGINS: Final = 2
"""The flag of a recording's first page: others may follow the first one in a file."""
_TABLE: Final[list[int]] = []


def patches(read: Read, size: int) -> list[Patch]:
    """What is to be overwritten in a file of ``size`` bytes, of one recording or several in turn; raises MediaError."""
    found: list[Patch] = []
    at = 0
    while True:
        comments, at = _comments(read, at)
        found += comments
        for _ in range(PAGES_MAX):
            if at >= size:
                return found
            head = read(at, 27 + 255)
            if head[:4] != b"OggS" or len(head) < 27:
                # What is left over is no page; it may say anything.
                return [*found, Patch(at, size - at)]
            if head[5] & _BEGINS:
                break
            at += 27 + head[26] + sum(head[27 : 27 + head[26]])
        else:
            raise MediaError("too many pages are in this recording")


def _comments(read: Read, at: int) -> tuple[list[Patch], int]:
    """What is to be overwritten of the recording that begins there, and where its sound begins."""
    pages: list[tuple[int, bytearray, int]] = []  # where a page starts, its bytes, how long its head is
    packet, found = bytearray(), 0
    where: list[tuple[int, int, int]] = []  # of the packet: in which page, from where, how many bytes
    serial = b""
    while len(pages) < HEADER_PAGES_MAX:
        page = bytearray(read(at, PAGE_MAX))
        if page[:4] != b"OggS" or len(page) < 27:
            raise MediaError("a page of this recording is damaged")
        head = 27 + page[26]
        lacing = page[27:head]
        end = head + sum(lacing)
        if end > len(page):
            raise MediaError("this recording ends within a page")
        if serial and bytes(page[14:18]) != serial:
            raise MediaError("several recordings stand in one another")
        serial = bytes(page[14:18])
        pages.append((at, page[:end], head))
        start = head
        for length in lacing:
            where.append((len(pages) - 1, start, length))
            packet += page[start : start + length]
            start += length
            if length < 255:
                found += 1
                if found == 2:
                    return _blank(pages, where, bytes(packet)), at + end
                if not packet.startswith((b"OpusHead", b"\x01vorbis")):
                    raise MediaError("what is recorded here is not known")
                packet, where = bytearray(), []
        at += end
    raise MediaError("the head of this recording has no end")


def _blank(pages: list[tuple[int, bytearray, int]], where: list[tuple[int, int, int]], packet: bytes) -> list[Patch]:
    if packet.startswith(b"OpusTags"):
        empty = b"OpusTags" + bytes(8)
    elif packet.startswith(b"\x03vorbis"):
        empty = b"\x03vorbis" + bytes(8) + b"\x01"
    else:
        raise MediaError("the comments of this recording are missing")
    if len(packet) < len(empty):
        raise MediaError("the comments of this recording are cut off")
    empty = empty.ljust(len(packet), b"\0")
    for number, start, length in where:
        pages[number][1][start : start + length] = empty[:length]
        empty = empty[length:]
    touched = sorted({number for number, _start, _length in where})
    for number in touched:
        page = pages[number][1]
        page[22:26] = bytes(4)
        page[22:26] = checksum(page).to_bytes(4, "little")
    return [Patch(pages[number][0], len(pages[number][1]), bytes(pages[number][1])) for number in touched]


def checksum(page: bytes | bytearray) -> int:
    """The checksum of a page whose field for it is zero (RFC 3533 §6: polynomial 0x04c11db7)."""
    if not _TABLE:
        for byte in range(256):
            value = byte << 24
            for _ in range(8):
                value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
            _TABLE.append(value & 0xFFFFFFFF)
    crc = 0
    for byte in page:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ _TABLE[(crc >> 24) ^ byte]
    return crc
