"""A small reader of pcap files: TCP payloads and flags of IPv4 packets, in their order."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

RST = 0x04
_LINKS = {1: 14, 101: 0, 228: 0, 113: 16}


@dataclass(frozen=True)
class Packet:
    """One TCP segment."""

    at_s: float
    source: tuple[str, int]
    target: tuple[str, int]
    flags: int
    ttl: int
    payload: bytes


def packets(file: Path) -> Iterator[Packet]:
    """The TCP segments of a file in libpcap's classic format."""
    data = file.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = _LINKS[struct.unpack_from(order + "I", data, 20)[0]]
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, size, _ = struct.unpack_from(order + "4I", data, at)
        frame = data[at + 16 : at + 16 + size][link:]
        at += 16 + size
        if len(frame) < 20 or frame[0] >> 4 != 4 or frame[9] != 6:
            continue
        inner = (frame[0] & 15) * 4
        length = int.from_bytes(frame[2:4])
        segment = frame[inner:length]
        source, target = struct.unpack_from("!HH", segment)
        yield Packet(
            seconds + fraction / 1e6,
            (str(IPv4Address(frame[12:16])), source),
            (str(IPv4Address(frame[16:20])), target),
            segment[13],
            frame[8],
            segment[(segment[12] >> 4) * 4 :],
        )
