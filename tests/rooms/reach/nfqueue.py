"""Packets that the kernel hands over for a decision (NFQUEUE, through nfnetlink), and what was decided about each.

``nft queue`` is missing in some kernels; the rule of iptables-legacy is there. Messages as in linux/netfilter/
nfnetlink_queue.h.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

NUMBER = 1
_NETFILTER, _REQUEST, _ACKNOWLEDGE, _ERROR = 12, 1, 4, 2
_PACKET, _VERDICT, _CONFIG = (3 << 8 | one for one in range(3))
_ACCEPT = 1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class Verdict(IntEnum):
    """What becomes of the packet and its connection; the number is the mark that the border's rules act on."""

    PASS = 0
    DROP = 1
    RESET = 2


@dataclass(frozen=True, slots=True)
class Segment:
    """What a TCP packet of the client's says: its connection, its place in the stream, its bytes."""

    flow: tuple[bytes, bytes, bytes]  # source and destination address, ports
    sequence: int
    payload: bytes


class Queue:
    """The queue of the network namespace that the calling thread is in; its event loop reads it."""

    def __init__(self, judge: Callable[[Segment], Verdict]) -> None:
        self._judge = judge
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.bind((0, 0))
        self._configure(1, struct.pack("!BBH", 1, 0, socket.AF_INET))  # bind
        self._configure(2, struct.pack("!IB", 0xFFFF, 2))  # copy packets whole
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _configure(self, kind: int, value: bytes) -> None:
        self._send(_CONFIG, _attribute(kind, value), _ACKNOWLEDGE)
        answer = self._socket.recv(65536)
        _, type, _, _, _ = _HEADER.unpack_from(answer)
        (error,) = struct.unpack_from("=i", answer, _HEADER.size)
        if type == _ERROR and error:
            raise OSError(-error, os.strerror(-error))

    def _send(self, type: int, attributes: bytes, flags: int = 0) -> None:
        body = struct.pack("!BBH", 0, 0, NUMBER) + attributes
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), type, _REQUEST | flags, 0, 0) + body)

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(1 << 17)
            except BlockingIOError:
                return
            size, type, _, _, _ = _HEADER.unpack_from(message)
            if type != _PACKET:
                continue
            found: dict[int, bytes] = {}
            at = _HEADER.size + 4
            while at + 4 <= size:
                length, kind = _ATTRIBUTE.unpack_from(message, at)
                found[kind & 0x3FFF] = message[at + 4 : at + length]
                at += (length + 3) & ~3
            segment = _segment(found[10])
            verdict = self._judge(segment) if segment.payload else Verdict.PASS
            said = _attribute(2, struct.pack("!I", _ACCEPT) + found[1][:4]) + _attribute(3, struct.pack("!I", verdict))
            self._send(_VERDICT, said)


def _attribute(kind: int, value: bytes) -> bytes:
    return (_ATTRIBUTE.pack(4 + len(value), kind) + value).ljust((len(value) + 7) & ~3, b"\0")


def _segment(packet: bytes) -> Segment:
    tcp = packet[(packet[0] & 15) * 4 : int.from_bytes(packet[2:4])]
    return Segment((packet[12:16], packet[16:20], tcp[:4]), int.from_bytes(tcp[4:8]), tcp[(tcp[12] >> 4) * 4 :])
