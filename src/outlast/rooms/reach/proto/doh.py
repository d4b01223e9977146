"""Questions to a resolver over HTTPS, and its answers (RFC 8484): the addresses of a name, no more."""

from __future__ import annotations

from typing import Final, NamedTuple

from outlast import dns
from outlast.address import AddressError
from outlast.dns import AAAA, CNAME, MESSAGE_MAX_BYTES, A
from outlast.errors import ProtocolError

__all__ = ["AAAA", "MESSAGE_MAX_BYTES", "A", "Answer", "DohError", "read_answer", "write_question"]

ADDRESSES_MAX: Final = 16
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
    try:
        return dns.encode_query(0, name, kind)
    except dns.DnsError:
        raise AddressError("%(name)r is no name of a host", name=name[:80]) from None


def read_answer(data: bytes, name: str, kind: int) -> Answer:
    """The addresses that an answer gives for the name that was asked, aliases followed; raises DohError."""
    try:
        reply = dns.decode_reply(data)
    except dns.DnsError as error:
        raise DohError("the resolver's answer is none: %(error)s", error=error) from error
    if reply.truncated:
        raise DohError("the resolver's answer is cut off")
    if int.from_bytes(data[6:8]) > _RECORDS_MAX:
        raise DohError("the resolver's answer has more records than a site needs")
    if reply.rcode == dns.NXDOMAIN:
        return Answer((), 60)
    if reply.rcode:
        raise DohError("the resolver could not find out (code %(code)s)", code=reply.rcode)
    if not dns.answers(reply, reply.id, name, kind):
        raise DohError("the resolver's answer is to another question")
    aliases = {one.name.lower(): one for one in reversed(reply.records) if one.type == CNAME}
    owner, times = reply.name.lower(), [3600]
    for _ in range(_CHAIN_MAX):
        if owner not in aliases:
            break
        times.append(aliases[owner].ttl_s)
        owner = aliases[owner].value.lower()
    ours = [one for one in reply.records if one.type == kind and one.name.lower() == owner][:ADDRESSES_MAX]
    return Answer(tuple(one.value for one in ours), max(1, min(times + [one.ttl_s for one in ours])))
