"""Films and recordings made by hand, with a needle in each place where one could tell something."""

from __future__ import annotations

from outlast.rooms.carry.proto.ogg import checksum

NEEDLE = b"+53.9000+027.5667/"
SOUND = b"what is seen and heard"


def box(type_: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (len(data) + 8).to_bytes(4, "big") + type_ + data


def large_box(type_: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (1).to_bytes(4, "big") + type_ + (len(data) + 16).to_bytes(8, "big") + data


def u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def track(handler: bytes, chunks: list[int], sizes: list[int], *, wide: bool = False) -> bytes:
    """A track with one sample in each chunk; all tell when and by which program they were made."""
    places = b"".join(start.to_bytes(8 if wide else 4, "big") for start in chunks)
    table = box(
        b"stbl",
        box(b"stsd", u32(0, 0)),
        box(b"stsc", u32(0, 1, 1, 1, 1)),
        box(b"stsz", u32(0, 0, len(sizes), *sizes)),
        box(b"co64" if wide else b"stco", u32(0, len(chunks)), places),
    )
    return box(
        b"trak",
        box(b"tkhd", u32(7, 0x77777777, 0x77777777, 1, 0, 10)),
        box(b"udta", box(b"name", NEEDLE)),
        box(
            b"mdia",
            box(b"mdhd", u32(0, 0x77777777, 0x77777777, 1000, 10)),
            box(b"hdlr", u32(0, 0), handler, bytes(12), NEEDLE),
            box(b"minf", table),
        ),
    )


def film(*, large: bool = False, wide: bool = False, brand: bytes = b"isom") -> bytes:
    """A film whose second track tells the place all the time."""
    head = box(b"ftyp", brand, u32(0)) + box(b"wide")
    media = (large_box if large else box)(b"mdat", SOUND, NEEDLE, NEEDLE)
    first = len(head) + (16 if large else 8)
    second = first + len(SOUND)
    return b"".join(
        (
            head,
            media,
            box(
                b"moov",
                box(b"mvhd", u32(0, 0x77777777, 0x77777777, 1000, 10)),
                track(b"vide", [first], [len(SOUND)]),
                track(b"meta", [second, second + len(NEEDLE)], [len(NEEDLE)] * 2, wide=wide),
                box(b"udta", box(b"\xa9xyz", NEEDLE)),
                box(b"meta", u32(0), NEEDLE),
                box(b"gps ", NEEDLE),
            ),
            box(b"uuid", bytes(16), NEEDLE),
            box(b"inst", NEEDLE),
            box(b"free", NEEDLE),
        )
    )


def ogg(packets: tuple[bytes, ...] = ()) -> bytes:
    """An Opus recording whose comments tell the place; each packet is on pages of its own."""
    tags = b"OpusTags" + b"\x04\0\0\0lib1" + b"\x01\0\0\0" + len(NEEDLE).to_bytes(4, "little") + NEEDLE
    pages = []
    for number, packet in enumerate(packets or (b"OpusHead" + bytes(11), tags, SOUND)):
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        page = bytearray(
            b"OggS\0"
            + bytes([2 * (number == 0)])
            + bytes(8)
            + b"abcd"
            + number.to_bytes(4, "little")
            + bytes(4)
            + bytes([len(lacing)])
            + lacing
        )
        page += packet
        page[22:26] = checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
    return b"".join(pages)


def element(id_: int, *content: bytes, wide: int = 8) -> bytes:
    data = b"".join(content)
    return id_.to_bytes((id_.bit_length() + 7) // 8, "big") + ((1 << 7 * wide) | len(data)).to_bytes(wide, "big") + data


def webm(*, is_live: bool = False) -> bytes:
    """A WebM film; a live one does not know its length."""
    info = element(0x1549A966, element(0x4461, b"\x07" * 8), element(0x7BA9, NEEDLE), element(0x5741, NEEDLE, wide=1))
    cluster = element(0xE7, b"\0") + element(0xA3, SOUND)
    tags = element(0x1254C367, NEEDLE)
    head = element(0x1A45DFA3, b"webm")
    if not is_live:
        return head + element(0x18538067, info, element(0x1F43B675, cluster), tags)
    return head + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + info + b"\x1f\x43\xb6\x75\xff" + cluster


def mp3() -> bytes:
    """A recording with tags before and behind it."""
    old = (b"TAG" + NEEDLE).ljust(128, b"\0")
    foot = b"APETAGEX" + bytes(4) + (len(NEEDLE) + 32).to_bytes(4, "little") + bytes(16)
    tag = NEEDLE.ljust(200, b"\0")
    return b"ID3\x03\0\0\0\0\x01\x48" + tag + b"\xff\xfb\x90\0" + SOUND + NEEDLE + foot + old
