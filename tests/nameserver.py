"""What a name server does with DNS messages (RFC 1035): reads what is asked, and answers with addresses."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

from outlast import dns


def asked(query: bytes) -> dns.Reply:
    """What a query asks for: a reply that holds nothing yet. Raises DnsError."""
    return dns.decode_reply(query[:2] + b"\x81\x80" + query[4:6] + bytes(6) + query[12:])


def reply(query: bytes, addresses: tuple[str, ...], *, rcode: int = dns.NOERROR) -> bytes:
    """The reply to a query, with those addresses that are of the type asked for; raises DnsError."""
    type = asked(query).type
    version = 4 if type == dns.A else 6
    found = [address.packed for address in map(ip_address, addresses) if address.version == version]
    question = query[12 : query.index(0, 12) + 5]
    answers = (b"\xc0\x0c" + pack("!HHIH", type, 1, 60, len(packed)) + packed for packed in found)
    return query[:2] + pack("!5H", 0x8180 | rcode, 1, len(found), 0, 0) + question + b"".join(answers)
