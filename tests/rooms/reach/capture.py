"""Everything that a namespace sends over one device: who is written to, and which questions for names are asked."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from tests.e2e.machines import enter

ALL_FRAMES, OUTGOING = 0x0003, 4  # ETH_P_ALL, PACKET_OUTGOING: linux/if_ether.h, linux/if_packet.h
TCP, UDP = 6, 17
SYN, ACK = 0x02, 0x10  # RFC 9293 §3.1
NAME_PORTS = {53: "DNS", 853: "DNS over TLS", 5353: "mDNS", 5355: "LLMNR", 137: "NetBIOS"}


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that left: protocol (of IP), where to, and what was in it."""

    protocol: int
    address: str
    port: int
    payload: bytes
    begins: bool  # UDP, and of TCP a SYN without an ACK: not what is still sent of an older connection


@dataclass
class Capture:
    """What left, of TCP and UDP; questions that the kernel asks its own neighbours (ARP, ICMPv6) are none of it."""

    sent: list[Sent] = field(default_factory=list)

    def to(self) -> set[tuple[int, str, int]]:
        """Protocol, address and port of whatever was written to."""
        return {(one.protocol, one.address, one.port) for one in self.sent}

    def begun(self) -> set[tuple[int, str, int]]:
        """The same of what began meanwhile: kernels still see to connections of programs that have ended."""
        return {(one.protocol, one.address, one.port) for one in self.sent if one.begins}

    def asked(self) -> set[str]:
        """By which protocols names were asked for, as far as a port tells."""
        return {NAME_PORTS[one.port] for one in self.sent if one.port in NAME_PORTS}

    def told(self, words: bytes) -> bool:
        """Whether these bytes left in the clear."""
        return any(words in one.payload for one in self.sent)


@contextmanager
def captured(network: str, device: str) -> Iterator[Capture]:
    """Watch a device of a network namespace; what was sent within stands in the capture once this has ended."""
    seen, ready, ended = Capture(), threading.Event(), threading.Event()

    def watch() -> None:
        enter(network)
        # Of no protocol until it is bound: before that it would hear every device.
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as frames:
            frames.bind((device, ALL_FRAMES))
            frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
            frames.settimeout(0.1)
            ready.set()
            while True:
                try:
                    frame, (_, _, kind, _, _) = frames.recvfrom(1 << 17)
                except TimeoutError:
                    if ended.is_set():
                        return
                    continue
                if kind == OUTGOING and (packet := _read(frame)):
                    seen.sent.append(packet)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield seen
    finally:
        ended.set()
        thread.join(10)


def _read(frame: bytes) -> Sent | None:
    (kind,) = struct.unpack_from("!H", frame, 12)
    packet = frame[14:]
    if kind == 0x0800:
        protocol, address, body = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
    elif kind == 0x86DD:
        protocol, address, body = packet[6], packet[24:40], packet[40:]
    else:
        return None
    if protocol not in (TCP, UDP):
        return None
    head = (body[12] >> 4) * 4 if protocol == TCP else 8
    begins = protocol == UDP or body[13] & (SYN | ACK) == SYN
    return Sent(protocol, str(ip_address(address)), int.from_bytes(body[2:4]), body[head:], begins)
