"""DNS messages (RFC 1035, 3596): queries for A and AAAA, and what an answer says. Pure; reads hostile bytes.

``decode_reply`` raises DnsError and nothing else. Its work is bounded: a name is at most 255 bytes and follows at most
``_JUMPS_MAX`` pointers, a message is read only as far as its records reach, and no more than ``_RECORDS_MAX`` of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final

from outlast.errors import ProtocolError

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
TYPE_NAMES: Final = {A: "A", CNAME: "CNAME", AAAA: "AAAA"}
MESSAGE_MAX_BYTES: Final = 65_535
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5

_IN: Final = 1
_HEADER: Final = Struct("!6H")
_FIXED: Final = Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RECURSE = 0x8000, 0x0200, 0x0100
_NAME_MAX: Final = 255
_LABEL_MAX: Final = 63
_JUMPS_MAX: Final = 32
_RECORDS_MAX: Final = 256


class DnsError(ProtocolError):
    """These bytes are no DNS message, or this name cannot be asked for."""


@dataclass(frozen=True, slots=True)
class Record:
    """One answer: an address as text, or the name that a CNAME points to. ``ttl_s`` is as claimed."""

    name: str
    type: int
    value: str
    ttl_s: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a message answers: ``records`` holds the A, AAAA and CNAME records of its answer section in their order."""

    id: int
    name: str
    type: int
    rcode: int
    truncated: bool
    records: tuple[Record, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the type that was asked for."""
        return tuple(record.value for record in self.records if record.type == self.type)


def encode_query(id: int, name: str, type: int) -> bytes:
    """A recursive query; raises DnsError when the name cannot stand in one."""
    return _HEADER.pack(id, _RECURSE, 1, 0, 0, 0) + _encode_name(name) + type.to_bytes(2) + _IN.to_bytes(2)


def decode_reply(data: bytes) -> Reply:
    """Read a response; raises DnsError for anything else."""
    if len(data) > MESSAGE_MAX_BYTES or len(data) < _HEADER.size:
        raise DnsError("a DNS message has 12 to %(most)s bytes, not %(size)s", most=MESSAGE_MAX_BYTES, size=len(data))
    id, flags, questions, count, _, _ = _HEADER.unpack_from(data)
    if not flags & _RESPONSE or questions != 1:
        raise DnsError("this DNS message is no response with one question")
    name, at = _name(data, _HEADER.size)
    if at + 4 > len(data):
        raise DnsError("a DNS message ends within its question")
    type = int.from_bytes(data[at : at + 2])
    if int.from_bytes(data[at + 2 : at + 4]) != _IN:
        raise DnsError("this DNS message asks for nothing of the internet")
    records, at = [], at + 4
    for _ in range(min(count, _RECORDS_MAX)):
        owner, at = _name(data, at)
        if at + _FIXED.size > len(data):
            raise DnsError("a DNS message ends within a record")
        kind, family, ttl_s, size = _FIXED.unpack_from(data, at)
        at += _FIXED.size
        if at + size > len(data):
            raise DnsError("a DNS record is longer than its message")
        if family == _IN and (value := _value(data, at, kind, size)) is not None:
            records.append(Record(owner, kind, value, ttl_s))
        at += size
    return Reply(id, name, type, flags & 0xF, bool(flags & _TRUNCATED), tuple(records))


def answers(reply: Reply, id: int, name: str, type: int) -> bool:
    """Whether a reply is to this query: id, name (letters' case aside) and type."""
    return (reply.id, reply.name.lower(), reply.type) == (id, name.lower().rstrip("."), type)


def failure_of(reply: Reply) -> str | None:
    """The reply as a failure string of df-007, None when it holds an address of the type that was asked for."""
    if reply.rcode != NOERROR:
        known = {SERVFAIL: "dns_servfail_error", NXDOMAIN: "dns_nxdomain_error", REFUSED: "dns_refused_error"}
        return known.get(reply.rcode, "dns_server_misbehaving")
    if reply.addresses:
        return None
    # Where there was no room for an address, it is not known that there is none.
    return "unknown_failure: truncated DNS reply" if reply.truncated else "dns_no_answer"


def _value(data: bytes, at: int, kind: int, size: int) -> str | None:
    content = data[at : at + size]
    if kind == A and size == 4:
        return str(IPv4Address(content))
    if kind == AAAA and size == 16:
        return str(IPv6Address(content))
    return _name(data, at)[0] if kind == CNAME else None


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name at an offset, and where what follows it begins."""
    labels: list[str] = []
    end, length, jumps = -1, 0, 0
    while True:
        if at >= len(data):
            raise DnsError("a name in a DNS message runs over its end")
        size = data[at]
        if size & 0xC0 == 0xC0:
            if at + 1 >= len(data) or (jumps := jumps + 1) > _JUMPS_MAX:
                raise DnsError("a name in a DNS message points nowhere")
            end = at + 2 if end < 0 else end
            at = (size & 0x3F) << 8 | data[at + 1]
            continue
        if size > _LABEL_MAX:
            raise DnsError("a name in a DNS message has a label that cannot be")
        at += 1
        if size == 0:
            return ".".join(labels), at if end < 0 else end
        if at + size > len(data) or (length := length + size + 1) > _NAME_MAX:
            raise DnsError("a name in a DNS message is too long")
        labels.append(data[at : at + size].decode("ascii", "backslashreplace"))
        at += size


def _encode_name(name: str) -> bytes:
    try:
        labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    except UnicodeEncodeError:
        raise DnsError("%(name)r is no name for DNS: write it in punycode", name=name[:80]) from None
    encoded = b"".join(len(label).to_bytes(1) + label for label in labels if len(label) <= _LABEL_MAX) + b"\0"
    if not all(0 < len(label) <= _LABEL_MAX for label in labels) or len(encoded) > _NAME_MAX:
        raise DnsError("%(name)r is no name for DNS", name=name[:80])
    return encoded
