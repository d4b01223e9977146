"""MRT (RFC 6396): the files in which route collectors keep BGP messages and tables, read as a stream.

``Reader.updates`` takes the unpacked bytes of a file in pieces and gives one ``Update`` for each BGP UPDATE and each
entry of a table, every attribute decoded. ``summarise`` counts them. docs/spec/watch-mrt.md has the rules.

    RFC 6396   MRT: TABLE_DUMP, TABLE_DUMP_V2, BGP4MP and its microseconds; appendix B: BGP, BGP4PLUS, BGP4MP_ENTRY
    RFC 8050   ADD-PATH in MRT          RFC 4271, 8654  BGP-4 and messages of up to 65,535 octets
    RFC 4760   MP_REACH, MP_UNREACH     RFC 6793        AS numbers of four octets
    RFC 7606   a malformed attribute does not make the rest of its message unreadable

A prefix is one int: its length in bits and then its octets, as NLRI writes them, the bits behind the length cleared
(RFC 4271 §4.3: they are irrelevant). 10.1.0.0/16 is 0x10_0a01. IPv4 and IPv6 are kept apart, for they share numbers.

The same attributes come again and again, from many peers and for many prefixes: what was decoded once is remembered, in
a bounded amount, and given again. Whoever is given an attribute's value does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from struct import error as StructError
from typing import Any, Final, NamedTuple

import msgspec

from outlast.errors import ProtocolError

RECORD_MAX_BYTES: Final = 1 << 24  # the longest real ones, tables of all peers for one prefix, have some 100 KiB
PREFIXES_MAX: Final = 1 << 22  # distinct ones, some 400 MB; all of the world's tables hold 1.3 million
PEERS_REMEMBERED_MAX: Final = 1 << 14
REMEMBERED_BYTES_MAX: Final = 512  # of one attribute, or one set of them
# Of all attributes and sets of one file: an octet can stand for twenty in memory, and what is short for some hundred.
REMEMBERED_ALL_BYTES_MAX: Final = 8 << 20
REMEMBERED_EXTRA_BYTES: Final = 150

Address = IPv4Address | IPv6Address
Prefixes = list[int] | tuple[int, ...]

# Types of records (RFC 6396 §4, appendix B, and IANA's registry "MRT Types").
BGP, BGP4PLUS, BGP4PLUS_01, TABLE_DUMP, TABLE_DUMP_V2, BGP4MP, BGP4MP_ET = 5, 9, 10, 12, 13, 16, 17
REGISTERED: Final = frozenset({*range(1, 14), 16, 17, 32, 33, 48, 49})

# Codes of attributes that others ask for by name (IANA: BGP Path Attributes).
ORIGIN, AS_PATH, NEXT_HOP, MED, LOCAL_PREF, ATOMIC_AGGREGATE, AGGREGATOR, COMMUNITIES = range(1, 9)
ORIGINATOR_ID, CLUSTER_LIST = 9, 10
MP_REACH, MP_UNREACH, EXTENDED_COMMUNITIES, AS4_PATH, AS4_AGGREGATOR = range(14, 19)
IPV6_EXTENDED_COMMUNITIES, AIGP, LARGE_COMMUNITIES, ONLY_TO_CUSTOMER, ATTR_SET = 25, 26, 32, 35, 128
AS_SET, AS_SEQUENCE, CONFED_SEQUENCE, CONFED_SET = 1, 2, 3, 4
IPV4, IPV6 = 1, 2
PREFIX_SAFIS: Final = frozenset({1, 2, 3})  # unicast, multicast, both (RFC 2858); others are no plain prefixes

UPDATE, KEEPALIVE = 2, 4  # types of BGP messages


class MrtError(ProtocolError):
    """A record whose content contradicts its own lengths; the text says what does."""


class Peer(NamedTuple):
    """Who told the collector."""

    asn: int
    address: Address


class Segment(NamedTuple):
    """What stands in a path beside AS numbers in their order: AS_SET, CONFED_SEQUENCE or CONFED_SET."""

    kind: int
    asns: tuple[int, ...]


Path = tuple[int | Segment, ...]


class Malformed(msgspec.Struct, frozen=True):
    """An attribute that breaks its own format; its octets as they came, flags, code and length included."""

    octets: bytes


class Reach(msgspec.Struct, frozen=True):
    """MP_REACH (RFC 4760 §3) or, without next hops, MP_UNREACH (§4).

    ``rest`` holds the NLRI where they are no plain prefixes (VPNs, labels, EVPN, flow specifications).
    """

    afi: int
    safi: int
    next_hops: tuple[Address | bytes, ...] = ()
    prefixes: tuple[int, ...] = ()
    path_ids: tuple[int, ...] = ()
    rest: bytes = b""


class Update(msgspec.Struct, frozen=True, gc=False):
    """One BGP UPDATE, or one peer's entry for one prefix of a table.

    ``attributes`` has a value for each code that came: ``ORIGIN`` 0 IGP, 1 EGP, 2 incomplete; ``AS_PATH`` and
    ``AS4_PATH`` tuples of AS numbers in their order and Segments of other kinds, the former merged with the latter as
    RFC 6793 §4.2.3 says; addresses as ``ipaddress`` has them; communities tuples of ints, large ones of triples;
    ``MP_REACH`` and ``MP_UNREACH`` a Reach; ``AGGREGATOR`` (AS number, address); flags True; tunnels and their like
    (type, octets) pairs; ``Malformed`` what breaks its format; bytes what has no structure that is known here.

    ``path_ids`` are those of announced, announced6, withdrawn and withdrawn6 in this order (RFC 7911), else empty.
    """

    at_s: int
    microseconds: int
    peer: Peer
    announced: Prefixes
    withdrawn: Prefixes
    announced6: Prefixes
    withdrawn6: Prefixes
    attributes: Mapping[int, Any]
    path_ids: Prefixes = ()
    originated_s: int | None = None  # in tables: when the collector got it


class Summary(msgspec.Struct, frozen=True):
    """What a file held: records of every type, elements announced and withdrawn, distinct prefixes.

    ``damage`` is None, or one line that says at which record the file is damaged and how; the counts are of all that
    could be read.
    """

    records: int
    announced: int
    withdrawn: int
    prefixes: int
    damage: str | None = None


_HEADER: Final = Struct(">IHHI")
# Of BGP4MP, by the octets of AS numbers, for IPv4 and IPv6: the family, and behind both addresses and BGP's marker the
# length of the message, its type, and of an UPDATE the length of what is withdrawn. The last two are padding in others.
_HEADS: Final = {
    octets: (Struct(f">{2 * octets + 2}xH8x16xHBH"), Struct(f">{2 * octets + 2}xH32x16xHBH")) for octets in (2, 4)
}
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_RIB_ENTRY: Final = Struct(">HIH")
_RIB_ENTRY_PATH: Final = Struct(">HIIH")
_STEP4: Final = [1 + (bits + 7) // 8 for bits in range(33)]
_STEP6: Final = [1 + (bits + 7) // 8 for bits in range(129)]
_TAIL: Final = [(1 << (-bits % 8)) - 1 for bits in range(129)]  # bits of the last octet that say nothing
_AS2: Final = [Struct(f">{count}H") for count in range(256)]
_AS4: Final = [Struct(f">{count}I") for count in range(256)]
_NONE: Final = ()


def prefix_start(prefix: int, *, ipv6: bool = False) -> tuple[int, int]:
    """(length in bits, first address as an int) of a prefix."""
    octets = max((prefix.bit_length() + 7) // 8 - 1, 0)  # behind the length, which is 0 for the default route alone
    bits = prefix >> (8 * octets)
    return bits, (prefix & ((1 << 8 * octets) - 1)) << ((128 if ipv6 else 32) - 8 * octets)


class Reader:
    """Reads one file: ``records`` counts those of every type so far; ``damage`` is the first that was met, or None."""

    def __init__(self) -> None:
        self.records = 0
        self.damage: str | None = None
        self._peers: list[Peer] | None = None  # of TABLE_DUMP_V2
        self._names: dict[bytes, Peer] = {}
        self._decoders: dict[tuple[int, bool, int], _Attributes] = {}
        self._memory = _Memory()
        # Subtypes of BGP4MP that hold a message -> octets of an AS number, heads of IPv4 and IPv6, what decodes.
        self._messages = {
            subtype: (octets, *_HEADS[octets], self._decoder(octets, add_path))
            for octets, add_path, subtypes in (
                (2, False, (1, 6)),
                (4, False, (4, 7)),
                (2, True, (8, 10)),
                (4, True, (9, 11)),
            )
            for subtype in subtypes
        }

    def updates(self, pieces: Iterable[bytes]) -> Iterator[Update]:
        """All that announces or withdraws, in the order of the file; never raises for what the file holds.

        A ProtocolError of ``pieces`` (damaged compression, a cap) ends the file like damage in it.
        """
        for at_s, kind, subtype, body in self._split(pieces):
            try:
                if kind == BGP4MP:
                    update = self._bgp4mp(at_s, 0, subtype, body)
                elif kind == TABLE_DUMP_V2:
                    yield from self._table_v2(at_s, subtype, body)
                    continue
                elif kind == BGP4MP_ET:
                    update = self._bgp4mp(at_s, _U32.unpack_from(body)[0], subtype, body[4:])
                elif kind == TABLE_DUMP:
                    update = self._table(at_s, subtype, body)
                elif kind == BGP and subtype == 1:
                    update = self._old_bgp(at_s, body, 4)
                elif kind in (BGP4PLUS, BGP4PLUS_01) and subtype == 1:
                    update = self._old_bgp(at_s, body, 16)
                else:
                    continue
            except (MrtError, IndexError, StructError) as error:
                reason = str(error) if isinstance(error, MrtError) else "it ends before what it announces"
                self._hurt(f"record {self.records} is damaged: {reason}")
                continue
            if update is not None:
                yield update

    def _hurt(self, reason: str) -> None:
        if self.damage is None:
            self.damage = reason

    def _split(self, pieces: Iterable[bytes]) -> Iterator[tuple[int, int, int, bytes]]:
        """(time, type, subtype, body) of each whole record."""
        left = b""
        wanted = 12
        parts: list[bytes] = []
        have = 0
        source = iter(pieces)
        while True:
            try:
                piece = next(source, None)
            except ProtocolError as error:
                return self._hurt(f"after record {self.records}: {error}")
            if piece is None:
                break
            parts.append(piece)
            have += len(piece)
            if have < wanted:
                continue
            data = b"".join(parts) if len(parts) > 1 else piece
            at, end, wanted = 0, have, 12
            while end - at >= 12:
                at_s, kind, subtype, length = _HEADER.unpack_from(data, at)
                if length > RECORD_MAX_BYTES or kind not in REGISTERED:
                    return self._hurt(f"record {self.records + 1} is damaged: type {kind}, {length} bytes")
                stop = at + 12 + length
                if stop > end:
                    wanted = 12 + length
                    break
                self.records += 1
                yield at_s, kind, subtype, data[at + 12 : stop]
                at = stop
            left = data[at:]
            parts, have = [left], len(left)
        if have:
            self._hurt(f"record {self.records + 1} is cut: the file ends within it")

    def _decoder(self, as_octets: int, add_path: bool, table_afi: int = 0) -> _Attributes:
        key = (as_octets, add_path, table_afi)
        if key not in self._decoders:
            self._decoders[key] = _Attributes(*key, self._memory)
        return self._decoders[key]

    def _name(self, octets: bytes, as_octets: int, width: int) -> Peer:
        """Who the first octets of a BGP4MP record name; the peer's address is at their end."""
        return self._remember(octets, Peer(int.from_bytes(octets[:as_octets]), _address(octets[-width:])))

    def _remember(self, octets: bytes, peer: Peer) -> Peer:
        if len(self._names) >= PEERS_REMEMBERED_MAX:
            self._names.clear()
        self._names[octets] = peer
        return peer

    def _bgp4mp(self, at_s: int, microseconds: int, subtype: int, body: bytes) -> Update | None:
        layout = self._messages.get(subtype)
        if layout is None:  # a change of state, a name of a snapshot, or what is not registered
            return self._entry(at_s, microseconds, body) if subtype == 2 else None
        as_octets, head4, head6, decoder = layout
        width = 4
        try:
            afi, length, kind, withdrawn = head4.unpack_from(body)
            if afi == IPV6:
                width = 16
                _, length, kind, withdrawn = head6.unpack_from(body)
        except StructError:
            if body and body[-1] == KEEPALIVE and len(body) in (head4.size - 2, head6.size - 2):
                return None  # the only message that is shorter than these heads
            raise
        if afi != IPV4 and afi != IPV6:
            raise MrtError(f"addresses of family {afi}")
        if kind != UPDATE:
            return None
        name_end = 2 * as_octets + 4 + width
        name = body[:name_end]
        message = name_end + width
        end = message + length
        if length < 23 or end > len(body):
            raise MrtError(f"a BGP message of {length} bytes in {len(body) - message}")
        peer = self._names.get(name) or self._name(name, as_octets, width)
        return self._update(at_s, microseconds, peer, body, message + 21, end, withdrawn, decoder)

    def _update(
        self,
        at_s: int,
        microseconds: int,
        peer: Peer,
        body: bytes,
        at: int,
        end: int,
        withdrawn: int,
        decoder: _Attributes,
    ) -> Update | None:
        """An UPDATE (RFC 4271 §4.3) whose withdrawn routes begin at ``at`` and that reaches to ``end``."""
        middle = at + withdrawn + 2
        if middle > end:
            raise MrtError("withdrawn routes that reach beyond their message")
        start = middle + (body[middle - 2] << 8 | body[middle - 1])
        if start > end:
            raise MrtError("attributes that reach beyond their message")
        block = body[middle:start]
        attributes = decoder.remembered.get(block)
        if attributes is None:
            attributes = decoder.decode(block)
        gone: Prefixes = _NONE
        came: Prefixes = _NONE
        ids: Prefixes = _NONE
        gone_ids: Prefixes = _NONE
        read = decoder.nlri
        if start < end:
            came, ids = read(body, start, end, _STEP4)
        if withdrawn:
            gone, gone_ids = read(body, at, middle - 2, _STEP4)
        if MP_REACH not in attributes and MP_UNREACH not in attributes:
            if not came and not gone:
                return None  # End-of-RIB (RFC 4724 §2), or attributes alone
            return Update(
                at_s,
                microseconds,
                peer,
                came,
                gone,
                _NONE,
                _NONE,
                attributes,
                (*ids, *gone_ids) if ids or gone_ids else _NONE,
            )
        return self._multiprotocol(at_s, microseconds, peer, came, gone, ids, gone_ids, attributes)

    def _multiprotocol(
        self,
        at_s: int,
        microseconds: int,
        peer: Peer,
        came: Prefixes,
        gone: Prefixes,
        ids: Prefixes,
        gone_ids: Prefixes,
        attributes: Mapping[int, Any],
    ) -> Update | None:
        came6: Prefixes = _NONE
        gone6: Prefixes = _NONE
        ids6: tuple[int, ...] = ()
        gone_ids6: tuple[int, ...] = ()
        for code in (MP_REACH, MP_UNREACH):
            reach = attributes.get(code)
            if isinstance(reach, Malformed):
                self._hurt(f"record {self.records} is damaged: its {_MP_NAMES[code]} cannot be read")
            if not isinstance(reach, Reach) or not reach.prefixes:
                continue
            if reach.afi == IPV6:
                if code == MP_REACH:
                    came6, ids6 = reach.prefixes, reach.path_ids
                else:
                    gone6, gone_ids6 = reach.prefixes, reach.path_ids
            elif code == MP_REACH:
                came, ids = [*came, *reach.prefixes], [*ids, *reach.path_ids]
            else:
                gone, gone_ids = [*gone, *reach.prefixes], [*gone_ids, *reach.path_ids]
        if not came and not gone and not came6 and not gone6:
            return None
        paths = (*ids, *ids6, *gone_ids, *gone_ids6)
        return Update(at_s, microseconds, peer, came, gone, came6, gone6, attributes, paths)

    def _entry(self, at_s: int, microseconds: int, body: bytes) -> Update:
        """BGP4MP_ENTRY (RFC 6396 appendix B.2.4): a route of a table, before there was TABLE_DUMP_V2."""
        afi = _U16.unpack_from(body, 6)[0]
        if afi not in (IPV4, IPV6):
            raise MrtError(f"addresses of family {afi}")
        width = 4 if afi == IPV4 else 16
        peer = self._name(body[: 8 + width], 2, width)
        at = 8 + 2 * width + 4  # view, status
        originated_s = _U32.unpack_from(body, at)[0]
        prefix_afi = _U16.unpack_from(body, at + 4)[0]
        if prefix_afi not in (IPV4, IPV6):
            raise MrtError(f"a prefix of family {prefix_afi}")
        at += 8 + body[at + 7]  # family, kind, next hop
        prefix, at = _one(body, at, _STEP4 if prefix_afi == IPV4 else _STEP6)
        attributes = self._block(body, at, 2, prefix_afi)
        return _in_table(at_s, microseconds, peer, prefix, prefix_afi, attributes, originated_s)

    def _table(self, at_s: int, subtype: int, body: bytes) -> Update:
        """TABLE_DUMP (RFC 6396 §4.2); subtypes 3 and 4 are libbgpdump's, with AS numbers of four octets."""
        if subtype not in (1, 2, 3, 4):
            raise MrtError(f"a table of family {subtype}")
        afi = IPV4 if subtype in (1, 3) else IPV6
        as_octets = 2 if subtype < 3 else 4
        width = 4 if afi == IPV4 else 16
        at = 4 + width
        bits = body[at]
        if bits > 8 * width:
            raise MrtError(f"a prefix of {bits} bits")
        octets = (bits + 7) // 8
        prefix = int.from_bytes(bytes((bits,)) + body[4 : 4 + octets]) & ~_TAIL[bits]
        originated_s = _U32.unpack_from(body, at + 2)[0]
        at += 6
        name = body[at : at + width + as_octets]
        peer = self._names.get(name)
        if peer is None:
            peer = self._remember(name, Peer(int.from_bytes(name[width:]), _address(name[:width])))
        attributes = self._block(body, at + width + as_octets, as_octets, afi)
        return _in_table(at_s, 0, peer, prefix, afi, attributes, originated_s)

    def _block(self, body: bytes, at: int, as_octets: int, table_afi: int) -> Mapping[int, Any]:
        """The attributes behind their length at ``at``."""
        end = at + 2 + _U16.unpack_from(body, at)[0]
        if end > len(body):
            raise MrtError("attributes that reach beyond their record")
        return self._decoder(as_octets, False, table_afi).decode(body[at + 2 : end])

    def _old_bgp(self, at_s: int, body: bytes, width: int) -> Update | None:
        """An UPDATE of types BGP (RFC 6396 appendix B.2.1) and BGP4PLUS (B.2.3): without BGP's own header."""
        at = 4 + 2 * width
        peer = Peer(_U16.unpack_from(body)[0], _address(body[2 : 2 + width]))
        withdrawn = _U16.unpack_from(body, at)[0]
        return self._update(at_s, 0, peer, body, at + 2, len(body), withdrawn, self._decoder(2, False))

    def _table_v2(self, at_s: int, subtype: int, body: bytes) -> Iterator[Update]:
        """TABLE_DUMP_V2 (RFC 6396 §4.3, RFC 8050 §4)."""
        if subtype == 1:
            self._peers = _peer_index(body)
            return
        if subtype in (2, 3, 8, 9):
            afi, steps = IPV4, _STEP4
        elif subtype in (4, 5, 10, 11):
            afi, steps = IPV6, _STEP6
        else:
            return  # RIB_GENERIC (other families), where the peers stand, or what is not registered
        add_path = subtype >= 8
        prefix, at = _one(body, 4, steps)
        count = _U16.unpack_from(body, at)[0]
        at += 2
        entry = _RIB_ENTRY_PATH if add_path else _RIB_ENTRY
        decoder = self._decoder(4, add_path, afi)
        remembered, decode, peers = decoder.remembered, decoder.decode, self._peers or []
        came = (prefix,) if afi == IPV4 else _NONE
        came6 = (prefix,) if afi == IPV6 else _NONE
        ids: Prefixes = _NONE
        for _ in range(count):
            if add_path:
                index, originated_s, path_id, length = _RIB_ENTRY_PATH.unpack_from(body, at)
                ids = (path_id,)
            else:
                index, originated_s, length = _RIB_ENTRY.unpack_from(body, at)
            at += entry.size + length
            if at > len(body):
                raise MrtError("attributes that reach beyond their record")
            block = body[at - length : at]
            attributes = remembered.get(block)
            if attributes is None:
                attributes = decode(block)
            if index >= len(peers):
                raise MrtError(f"peer {index} stands in no table of peers")
            yield Update(at_s, 0, peers[index], came, _NONE, came6, _NONE, attributes, ids, originated_s)


def summarise(pieces: Iterable[bytes], also: Callable[[Update], None] | None = None) -> Summary:
    """Count what an unpacked file holds, and show ``also`` each update; memory grows with the distinct prefixes."""
    reader = Reader()
    announced = withdrawn = 0
    seen: set[int] = set()
    seen6: set[int] = set()
    add, add6 = seen.update, seen6.update
    for update in reader.updates(pieces):
        if also is not None:
            also(update)
        if came := update.announced:
            announced += len(came)
            add(came)
        if gone := update.withdrawn:
            withdrawn += len(gone)
            add(gone)
        if came := update.announced6:
            announced += len(came)
            add6(came)
        if gone := update.withdrawn6:
            withdrawn += len(gone)
            add6(gone)
        if len(seen) + len(seen6) > PREFIXES_MAX:
            reader.damage = f"record {reader.records}: more than {PREFIXES_MAX} distinct prefixes"
            break
    return Summary(reader.records, announced, withdrawn, len(seen) + len(seen6), reader.damage)


class _Memory:
    """What was decoded in one file, in all tables of its decoders together: full it is forgotten, and begun anew."""

    def __init__(self) -> None:
        self._tables: list[dict[bytes, Any]] = []
        self._left = REMEMBERED_ALL_BYTES_MAX

    def table(self) -> dict[bytes, Any]:
        """Another table, empty."""
        self._tables.append({})
        return self._tables[-1]

    def keep(self, table: dict[bytes, Any], octets: bytes, value: Any) -> None:
        """Put into a table of this memory what these octets mean, unless they are many."""
        if len(octets) > REMEMBERED_BYTES_MAX:
            return
        self._left -= len(octets) + REMEMBERED_EXTRA_BYTES
        if self._left < 0:
            for one in self._tables:
                one.clear()
            self._left = REMEMBERED_ALL_BYTES_MAX
        table[octets] = value


class _Attributes:
    """Decodes sets of attributes, and remembers what it decoded.

    AS numbers have ``as_octets`` octets. In a table of family ``table_afi`` MP_REACH is cut to its next hop (RFC 6396
    §4.3.4), though some collectors wrote it whole. ATTR_SET (RFC 6368) holds attributes itself; one within another is
    left as octets.
    """

    def __init__(
        self, as_octets: int, add_path: bool, table_afi: int, memory: _Memory, *, nesting: bool = True
    ) -> None:
        self._memory = memory
        self.remembered: dict[bytes, Mapping[int, Any]] = memory.table()
        self._values: dict[bytes, Any] = memory.table()
        self.nlri = _nlri_paths if add_path else _nlri
        self._table_afi = table_afi
        self._decode: dict[int, Callable[[bytes], Any]] = {
            **_DECODE,
            AS_PATH: _as_path(_AS2, 2) if as_octets == 2 else _as_path(_AS4, 4),
            MP_REACH: self._reach,
            MP_UNREACH: self._unreach,
        }
        if nesting:
            inner = _Attributes(4, add_path, 0, memory, nesting=False)
            self._decode[ATTR_SET] = lambda value: (_U32.unpack_from(value)[0], inner.decode(value[4:]))

    def decode(self, block: bytes) -> Mapping[int, Any]:
        """Each attribute of a block by its code; never raises. Of two with one code the first counts (RFC 7606 §3)."""
        found: dict[int, Any] = {}
        values = self._values
        at, end = 0, len(block)
        while at < end:
            try:
                stop = at + (4 + (block[at + 2] << 8 | block[at + 3]) if block[at] & 16 else 3 + block[at + 2])
            except IndexError:
                stop = end + 1
            raw = block[at:stop]
            if stop > end:
                found.setdefault(raw[1] if len(raw) > 1 else 0, Malformed(raw))
                break
            value = values.get(raw)
            if value is None:
                value = self._value(raw)
            code = raw[1]
            if code not in found:
                found[code] = value
            at = stop
        if AS4_PATH in found:
            _merge(found)
        self._memory.keep(self.remembered, block, found)
        return found

    def _value(self, raw: bytes) -> Any:
        octets = raw[4:] if raw[0] & 16 else raw[3:]
        decode = self._decode.get(raw[1])
        try:
            value = octets if decode is None else decode(octets)
        except (IndexError, StructError, ValueError, MrtError):
            value = Malformed(raw)
        self._memory.keep(self._values, raw, value)
        return value

    def _reach(self, value: bytes) -> Reach:
        if self._table_afi and value[0] != 0:  # a length, not the first octet of a family
            return Reach(self._table_afi, 1, _next_hops(value[1 : 1 + value[0]]))
        afi, safi = value[0] << 8 | value[1], value[2]
        end = 4 + value[3]
        if end >= len(value):
            raise MrtError("its next hop reaches beyond it")
        # The octet behind the next hop was the number of SNPAs in RFC 2858 and is reserved since; nobody sent any.
        return self._nlri(afi, safi, _next_hops(value[4:end]), value, end + 1)

    def _unreach(self, value: bytes) -> Reach:
        return self._nlri(value[0] << 8 | value[1], value[2], (), value, 3)

    def _nlri(self, afi: int, safi: int, hops: tuple[Address | bytes, ...], value: bytes, at: int) -> Reach:
        if afi not in (IPV4, IPV6) or safi not in PREFIX_SAFIS:
            return Reach(afi, safi, hops, rest=value[at:])
        prefixes, ids = self.nlri(value, at, len(value), _STEP4 if afi == IPV4 else _STEP6)
        return Reach(afi, safi, hops, tuple(prefixes), tuple(ids))


def _nlri(data: bytes, at: int, end: int, steps: list[int]) -> tuple[Prefixes, Prefixes]:
    """Prefixes from ``at`` to ``end`` (RFC 4271 §4.3), and path identifiers where they have some after all.

    Some collectors wrote ADD-PATH into records that are not for it. An identifier is small as a rule, so that its first
    octets read as default routes: where these come more than once, or nothing fits, ADD-PATH is tried.
    """
    found: list[int] = []
    add, number, tail, first = found.append, int.from_bytes, _TAIL, at
    try:
        while at < end:
            bits = data[at]
            if bits == 24:  # the commonest by far
                stop = at + 4
                add(number(data[at:stop]))
                at = stop
                continue
            stop = at + steps[bits]
            prefix = number(data[at:stop])
            at = stop
            if prefix & tail[bits]:
                prefix &= ~tail[bits]
            add(prefix)
    except IndexError:
        at = -1
    if at == end and (not found or data[first] or found.count(0) < 2):
        return found, _NONE
    if not data[first]:
        try:
            return _nlri_paths(data, first, end, steps)
        except (MrtError, IndexError):
            pass
    if at != end:
        raise MrtError("prefixes that do not fit into their length")
    return found, _NONE


def _nlri_paths(data: bytes, at: int, end: int, steps: list[int]) -> tuple[Prefixes, Prefixes]:
    """Prefixes and their path identifiers (RFC 7911 §3)."""
    found: list[int] = []
    ids: list[int] = []
    while at < end:
        if end - at < 5 or data[at + 4] >= len(steps):
            raise MrtError("prefixes that do not fit into their length")
        ids.append(int.from_bytes(data[at : at + 4]))
        at += 4
        bits = data[at]
        stop = at + steps[bits]
        found.append(int.from_bytes(data[at:stop]) & ~_TAIL[bits])
        at = stop
    if at != end:
        raise MrtError("prefixes that do not fit into their length")
    return found, ids


def _one(data: bytes, at: int, steps: list[int]) -> tuple[int, int]:
    """The prefix at ``at``, and where it ends."""
    bits = data[at]
    if bits >= len(steps):
        raise MrtError(f"a prefix of {bits} bits")
    stop = at + steps[bits]
    if stop > len(data):
        raise MrtError("a prefix that reaches beyond its record")
    return int.from_bytes(data[at:stop]) & ~_TAIL[bits], stop


def _in_table(
    at_s: int,
    microseconds: int,
    peer: Peer,
    prefix: int,
    afi: int,
    attributes: Mapping[int, Any],
    originated_s: int,
) -> Update:
    came, came6 = ((prefix,), _NONE) if afi == IPV4 else (_NONE, (prefix,))
    return Update(at_s, microseconds, peer, came, _NONE, came6, _NONE, attributes, _NONE, originated_s)


def _peer_index(body: bytes) -> list[Peer]:
    """PEER_INDEX_TABLE (RFC 6396 §4.3.1)."""
    at = 6 + _U16.unpack_from(body, 4)[0]
    count = _U16.unpack_from(body, at)[0]
    at += 2
    peers = []
    for _ in range(count):
        width, as_octets = 16 if body[at] & 1 else 4, 4 if body[at] & 2 else 2
        end = at + 5 + width + as_octets
        if end > len(body):
            raise MrtError("peers that reach beyond their record")
        peers.append(Peer(int.from_bytes(body[at + 5 + width : end]), _address(body[at + 5 : at + 5 + width])))
        at = end
    return peers


def _address(octets: bytes) -> Address:
    if len(octets) == 4:
        return IPv4Address(octets)
    if len(octets) == 16:
        return IPv6Address(octets)
    raise MrtError(f"an address of {len(octets)} bytes")


def _next_hops(octets: bytes) -> tuple[Address | bytes, ...]:
    """One address, or two: a global and a link-local one (RFC 2545 §3); else (VPNs) the octets."""
    if len(octets) in (4, 16):
        return (_address(octets),)
    if len(octets) == 32:
        return (IPv6Address(octets[:16]), IPv6Address(octets[16:]))
    return (octets,)


def _as_path(formats: list[Struct], width: int) -> Callable[[bytes], Path]:
    def decode(octets: bytes) -> Path:
        end = len(octets)
        if end and octets[0] == AS_SEQUENCE and end == 2 + octets[1] * width:
            return formats[octets[1]].unpack_from(octets, 2)
        found: list[int | Segment] = []
        at = 0
        while at < end:
            kind, count = octets[at], octets[at + 1]
            asns = formats[count].unpack_from(octets, at + 2)
            if kind == AS_SEQUENCE:
                found += asns
            else:
                found.append(Segment(kind, asns))
            at += 2 + count * width
        return tuple(found)

    return decode


def _counts(part: int | Segment) -> bool:
    """Whether a part makes a path longer: a set as much as one AS, a confederation not (RFC 5065 §5.3)."""
    return isinstance(part, int) or part.kind == AS_SET


def _merge(found: dict[int, Any]) -> None:
    """Put the path of four octets together from AS_PATH and AS4_PATH (RFC 6793 §4.2.3)."""
    path, path4 = found.get(AS_PATH), found[AS4_PATH]
    if isinstance(path, Malformed) or isinstance(path4, Malformed) or path is None:
        return
    path4 = tuple(filter(_counts, path4))
    lead = sum(map(_counts, path)) - len(path4)
    if lead < 0:
        return
    kept = []
    for part in path:
        if _counts(part):
            if not lead:
                break
            lead -= 1
        kept.append(part)
    found[AS_PATH] = (*kept, *path4)


def _exactly(octets: int) -> Callable[[bytes], int]:
    def decode(value: bytes) -> int:
        if len(value) != octets:
            raise MrtError(f"{len(value)} bytes instead of {octets}")
        return int.from_bytes(value)

    return decode


def _each(width: int) -> Callable[[bytes], tuple[int, ...]]:
    def decode(value: bytes) -> tuple[int, ...]:
        if len(value) % width:
            raise MrtError(f"{len(value)} bytes are no multiple of {width}")
        return tuple([int.from_bytes(value[at : at + width]) for at in range(0, len(value), width)])

    return decode


def _aggregator(value: bytes) -> tuple[int, Address]:
    # The length tells the size of the AS number; sessions of two octets have been seen with four.
    if len(value) not in (6, 8):
        raise MrtError(f"{len(value)} bytes")
    return int.from_bytes(value[:-4]), IPv4Address(value[-4:])


def _flag(value: bytes) -> bool:
    if value:
        raise MrtError(f"{len(value)} bytes instead of none")
    return True


def _large(value: bytes) -> tuple[tuple[int, int, int], ...]:
    numbers = _each(4)(value)
    if len(numbers) % 3:
        raise MrtError("no triples")
    return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _tlvs(type_octets: int, *, whole: bool = False) -> Callable[[bytes], tuple[tuple[int, bytes], ...]]:
    """Type, length (2 octets), value; ``whole`` where the length counts all three."""
    head = type_octets + 2

    def decode(value: bytes) -> tuple[tuple[int, bytes], ...]:
        found = []
        at = 0
        while at < len(value):
            length = int.from_bytes(value[at + type_octets : at + head])
            stop = at + length if whole else at + head + length
            if stop < at + head or stop > len(value):
                raise MrtError("a part that reaches beyond it")
            found.append((int.from_bytes(value[at : at + type_octets]), value[at + head : stop]))
            at = stop
        return tuple(found)

    return decode


_MP_NAMES: Final = {MP_REACH: "MP_REACH_NLRI", MP_UNREACH: "MP_UNREACH_NLRI"}
# What is the same in every session. Other codes are kept as octets: PMSI tunnels (22), BGPsec (33) and their like.
_DECODE: Final[dict[int, Callable[[bytes], Any]]] = {
    ORIGIN: _exactly(1),
    NEXT_HOP: _address,
    MED: _exactly(4),
    LOCAL_PREF: _exactly(4),
    ATOMIC_AGGREGATE: _flag,
    AGGREGATOR: _aggregator,
    COMMUNITIES: _each(4),
    ORIGINATOR_ID: _address,
    CLUSTER_LIST: lambda value: tuple(IPv4Address(number) for number in _each(4)(value)),
    EXTENDED_COMMUNITIES: _each(8),
    AS4_PATH: _as_path(_AS4, 4),
    AS4_AGGREGATOR: _aggregator,
    23: _tlvs(2),  # tunnel encapsulation (RFC 9012)
    IPV6_EXTENDED_COMMUNITIES: _each(20),
    AIGP: _tlvs(1, whole=True),  # RFC 7311
    29: _tlvs(2),  # BGP-LS (RFC 9552)
    LARGE_COMMUNITIES: _large,
    ONLY_TO_CUSTOMER: _exactly(4),
    40: _tlvs(1),  # prefix SID (RFC 8669)
}
