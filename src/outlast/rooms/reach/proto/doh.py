"""Questions and answers of DNS as DNS over HTTPS carries them (RFC 1035 §4, RFC 8484): addresses of a name, no more."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, NamedTuple

from outlast.errors import ProtocolError
from outlast.rooms.reach.proto.address import AddressError

MESSAGE_MAX_BYTES: Final = 65_535
ADDRESSES_MAX: Final = 16
A, CNAME, AAAA = 1, 5, 28
_HEADER_BYTES: Final = 12
_SIZES: Final = {A: 4, AAAA: 16}
_JUMPS_MAX: Final = 32
_RECORDS_MAX: Final = 64
_CHAIN_MAX: Final = 10


class DohError(ProtocolError):
    """An answer of a resolver is none."""


class Answer(NamedTuple):
    """What a resolver says: addresses as text, none when the name has none, and for how long."""

    addresses: tuple[str, ...]
    ttl_s: int


def write_question(name: str, kind: int) -> bytes:
    """The message that asks for records of a kind; its id is 0, so that answers can be cached (RFC 8484 §4.1).

    Raises AddressError for a text that is no name.
    """
    labels = name.rstrip(".").split(".")
    if not name.isascii() or len(name) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise AddressError(f"{name[:80]!r} is no name of a host")
    asked = b"".join(bytes((len(label),)) + label.encode() for label in labels) + b"\0"
    return b"\0\0\1\0\0\1\0\0\0\0\0\0" + asked + kind.to_bytes(2, "big") + b"\0\1"


def read_answer(data: bytes, name: str, kind: int) -> Answer:
    """The addresses that an answer gives for the name that was asked, aliases followed; raises DohError."""
    if not _HEADER_BYTES <= len(data) <= MESSAGE_MAX_BYTES or not data[2] & 0x80 or data[2] & 2:
        raise DohError("the resolver's answer is cut off or is none")
    code = data[3] & 15
    if code == 3:
        return Answer((), 60)
    if code:
        raise DohError(f"the resolver could not find out (code {code})")
    questions, records = (int.from_bytes(data[at : at + 2], "big") for at in (4, 6))
    if questions != 1 or records > _RECORDS_MAX:
        raise DohError("the resolver's answer is to another question")
    asked, at = _name(data, _HEADER_BYTES)
    if asked != name.lower().rstrip(".") or data[at : at + 4] != kind.to_bytes(2, "big") + b"\0\1":
        raise DohError("the resolver's answer is to another question")
    at += 4
    aliases: dict[str, tuple[str, int]] = {}
    found: list[tuple[str, str, int]] = []
    for _ in range(records):
        owner, at = _name(data, at)
        fixed = data[at : at + 10]
        if len(fixed) < 10:
            raise DohError("the resolver's answer is cut off")
        type_, ttl_s, size = (int.from_bytes(fixed[begin:end], "big") for begin, end in ((0, 2), (4, 8), (8, 10)))
        at += 10
        body = data[at : at + size]
        if len(body) < size:
            raise DohError("the resolver's answer is cut off")
        if type_ == CNAME:
            aliases.setdefault(owner, (_name(data, at)[0], ttl_s))
        elif type_ == kind and size == _SIZES[kind]:
            found.append((owner, str(ip_address(body)), ttl_s))
        at += size
    owner, times = asked, [3600]
    for _ in range(_CHAIN_MAX):
        if owner not in aliases:
            break
        owner, ttl_s = aliases[owner]
        times.append(ttl_s)
    ours = [(address, ttl_s) for of, address, ttl_s in found if of == owner][:ADDRESSES_MAX]
    return Answer(tuple(address for address, _ in ours), max(1, min(times + [ttl_s for _, ttl_s in ours])))


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name that begins here, in small letters, and where what follows it begins."""
    labels: list[bytes] = []
    end: int | None = None
    for _ in range(_JUMPS_MAX + 128):
        if at >= len(data):
            break
        size = data[at]
        if size >= 0xC0:
            if at + 1 >= len(data):
                break
            end = at + 2 if end is None else end
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
        elif size >= 0x40:
            break
        elif size:
            labels.append(data[at + 1 : at + 1 + size])
            at += 1 + size
            if sum(map(len, labels)) + len(labels) > 254:
                break
        else:
            text = b".".join(labels).decode("ascii", "replace").lower()
            return text, at + 1 if end is None else end
    raise DohError("the resolver's answer has a broken name")
