"""Writes MRT files as RFC 6396 and RFC 8050 describe them, so that tests have every type of record; shows prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from struct import pack

from outlast.rooms.watch.proto import mrt

AT_S = 1_267_286_400
MARKER = b"\xff" * 16


def record(kind: int, subtype: int, body: bytes, *, at_s: int = AT_S) -> bytes:
    """One record with its header."""
    return pack(">IHHI", at_s, kind, subtype, len(body)) + body


def octets(address: str) -> bytes:
    """An address as it travels."""
    return ip_address(address).packed


def nlri(*prefixes: str, path_ids: Iterable[int] | None = None) -> bytes:
    """Prefixes as RFC 4271 §4.3 writes them, or with path identifiers, RFC 7911 §3."""
    ids = list(path_ids) if path_ids is not None else [None] * len(prefixes)
    return b"".join(
        (b"" if path is None else pack(">I", path)) + _prefix(ip_network(prefix))
        for prefix, path in zip(prefixes, ids, strict=True)
    )


def _prefix(network: IPv4Network | IPv6Network) -> bytes:
    return bytes((network.prefixlen,)) + network.network_address.packed[: (network.prefixlen + 7) // 8]


def prefix_text(prefix: int, *, ipv6: bool = False) -> str:
    """A prefix as people write it: ``10.1.0.0/16``."""
    bits, first = mrt.prefix_start(prefix, ipv6=ipv6)
    return f"{IPv6Address(first) if ipv6 else IPv4Address(first)}/{bits}"


def attribute(code: int, value: bytes, *, flags: int = 0x40) -> bytes:
    """One path attribute; its length takes two octets where one does not do."""
    if len(value) > 255:
        return pack(">BBH", flags | 0x10, code, len(value)) + value
    return pack(">BBB", flags, code, len(value)) + value


def as_path(*asns: int, width: int = 4, kind: int = mrt.AS_SEQUENCE) -> bytes:
    """One segment of a path."""
    return bytes((kind, len(asns))) + b"".join(asn.to_bytes(width) for asn in asns)


def usual(width: int = 4) -> bytes:
    """The three attributes that every announcement has."""
    return (
        attribute(mrt.ORIGIN, b"\0")
        + attribute(mrt.AS_PATH, as_path(64500, 64501, width=width))
        + attribute(mrt.NEXT_HOP, octets("192.0.2.1"))
    )


def reach(prefixes: bytes, *, afi: int = 2, safi: int = 1, hop: bytes | None = None) -> bytes:
    """MP_REACH_NLRI (RFC 4760 §3)."""
    hop = octets("2001:db8::1") if hop is None else hop
    return attribute(mrt.MP_REACH, pack(">HBB", afi, safi, len(hop)) + hop + b"\0" + prefixes, flags=0x80)


def unreach(prefixes: bytes, *, afi: int = 2, safi: int = 1) -> bytes:
    """MP_UNREACH_NLRI (RFC 4760 §4)."""
    return attribute(mrt.MP_UNREACH, pack(">HB", afi, safi) + prefixes, flags=0x80)


def routes(announced: bytes = b"", withdrawn: bytes = b"", attributes: bytes = b"") -> bytes:
    """What an UPDATE holds behind its header (RFC 4271 §4.3)."""
    return pack(">H", len(withdrawn)) + withdrawn + pack(">H", len(attributes)) + attributes + announced


def message(body: bytes, kind: int = mrt.UPDATE) -> bytes:
    """A BGP message with its header."""
    return MARKER + pack(">HB", 19 + len(body), kind) + body


def session(width: int, *, peer: str = "198.51.100.1", asn: int = 64500) -> bytes:
    """What stands before the message of BGP4MP: who told whom; AS numbers of ``width`` octets."""
    packed = octets(peer)
    numbers = asn.to_bytes(width) + (64999).to_bytes(width)
    return numbers + pack(">HH", 0, 1 if len(packed) == 4 else 2) + packed + packed


def bgp4mp(body: bytes, subtype: int = 4, *, peer: str = "198.51.100.1", at_s: int = AT_S, width: int = 4) -> bytes:
    """A BGP4MP record with an UPDATE."""
    return record(mrt.BGP4MP, subtype, session(width, peer=peer) + message(body), at_s=at_s)


def bgp4mp_et(body: bytes, microseconds: int, subtype: int = 4) -> bytes:
    """The same with microseconds."""
    return record(mrt.BGP4MP_ET, subtype, pack(">I", microseconds) + session(4) + message(body))


def table(prefix: str, attributes: bytes, *, peer: str, asn: int = 64500) -> bytes:
    """A TABLE_DUMP record."""
    network = ip_network(prefix)
    body = pack(">HH", 0, 1) + network.network_address.packed + bytes((network.prefixlen, 1)) + pack(">I", AT_S - 60)
    body += octets(peer) + pack(">HH", asn, len(attributes)) + attributes
    return record(mrt.TABLE_DUMP, 2 if network.version == 6 else 1, body)


def peer_index(*peers: tuple[str, int]) -> bytes:
    """PEER_INDEX_TABLE of TABLE_DUMP_V2, for peers with addresses and AS numbers of each size."""
    body = octets("203.0.113.1") + pack(">H", 4) + b"view" + pack(">H", len(peers))
    for address, asn in peers:
        packed = octets(address)
        body += bytes(((len(packed) == 16) | (asn > 0xFFFF) << 1,)) + b"\1\2\3\4" + packed
        body += asn.to_bytes(4 if asn > 0xFFFF else 2)
    return record(mrt.TABLE_DUMP_V2, 1, body)


def rib(subtype: int, prefix: str, *entries: tuple[int, bytes], path_ids: Iterable[int] | None = None) -> bytes:
    """A RIB record of TABLE_DUMP_V2: (peer's place in the table, attributes) each."""
    body = pack(">I", 7) + nlri(prefix) + pack(">H", len(entries))
    ids = list(path_ids) if path_ids is not None else [None] * len(entries)
    for (peer, attributes), path in zip(entries, ids, strict=True):
        body += pack(">HI", peer, AT_S - 60) + (b"" if path is None else pack(">I", path))
        body += pack(">H", len(attributes)) + attributes
    return record(mrt.TABLE_DUMP_V2, subtype, body)


def short_reach(hop: str) -> bytes:
    """MP_REACH_NLRI as TABLE_DUMP_V2 has it: the next hop alone (RFC 6396 §4.3.4)."""
    return attribute(mrt.MP_REACH, bytes((len(octets(hop)),)) + octets(hop), flags=0x80)


def everything() -> dict[str, bytes]:
    """A file of each kind, by its name."""
    v4, v6 = nlri("10.0.0.0/8", "192.0.2.0/24", "10.0.0.0/8"), nlri("2001:db8::/32", "2001:db8:4::/46")
    both = routes(v4, nlri("198.51.100.0/25"), usual() + reach(v6) + unreach(nlri("2001:db8:ffff::/48")))
    old = routes(v4, nlri("198.51.100.0/25"), usual(2))
    paths = routes(
        nlri("10.0.0.0/8", "10.0.0.0/8", path_ids=(1, 2)),
        nlri("192.0.2.0/24", path_ids=(1 << 31,)),
        usual() + reach(nlri("2001:db8::/32", path_ids=(7,))),
    )
    peers = peer_index(("198.51.100.1", 64500), ("2001:db8::9", 4_200_000_000))
    return {
        "BGP4MP_MESSAGE": bgp4mp(old, 1, width=2),
        "BGP4MP_MESSAGE_AS4": bgp4mp(both),
        "BGP4MP_MESSAGE_AS4 of an IPv6 peer": bgp4mp(both, peer="2001:db8::9"),
        "BGP4MP_MESSAGE_LOCAL": bgp4mp(old, 6, width=2) + bgp4mp(both, 7),
        "BGP4MP_MESSAGE_ADDPATH": bgp4mp(paths, 9),
        "BGP4MP_MESSAGE_LOCAL_ADDPATH": bgp4mp(paths, 11),
        "BGP4MP_ET": bgp4mp_et(both, 123_456) + bgp4mp(both),
        "other messages and changes of state": record(16, 5, session(4) + pack(">HH", 6, 1))
        + record(16, 4, session(4) + message(b"", 4))
        + record(16, 4, session(4) + message(pack(">BB", 6, 2), 3))
        + record(16, 4, session(4) + message(pack(">BHHIB", 4, 23456, 180, 1, 0), 1)),
        "End-of-RIB": bgp4mp(routes()) + bgp4mp(routes(attributes=unreach(b""))),
        "TABLE_DUMP": table("10.0.0.0/8", usual(2), peer="198.51.100.1")
        + table("2001:db8::/32", usual(2), peer="2001:db8::9"),
        "TABLE_DUMP_V2": peers
        + rib(2, "10.0.0.0/8", (0, usual()), (1, usual()))
        + rib(3, "224.0.0.0/4", (0, usual()))
        + rib(4, "2001:db8::/32", (1, usual() + short_reach("2001:db8::1")))
        + rib(4, "2001:db8:5::/48", (1, usual() + reach(nlri("2001:db8:5::/48")))),
        "TABLE_DUMP_V2 with ADD-PATH": peers
        + rib(8, "10.0.0.0/8", (0, usual()), (0, usual()), path_ids=(1, 2))
        + rib(10, "2001:db8::/32", (1, usual() + short_reach("2001:db8::1")), path_ids=(3,)),
        "RIB_GENERIC": peers + record(13, 6, pack(">IHB", 1, 1, 128) + b"\0" * 9) + rib(2, "10.0.0.0/8", (0, usual())),
        "OSPF between": record(11, 0, b"\0" * 30) + bgp4mp(both),
    }
