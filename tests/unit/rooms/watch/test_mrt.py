"""MRT: each type of record, what becomes of damage, and what two real files hold."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import repeat
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import ProtocolError
from outlast.rooms.watch.io.files import open_capped, pieces
from outlast.rooms.watch.proto import mrt
from outlast.rooms.watch.proto.mrt import Malformed, Reach, Reader, Segment, Summary, Update, summarise
from tests.real import real
from tests.unit.rooms.watch import mrt_files as write

V4 = write.nlri("10.0.0.0/8", "192.0.2.0/24")


def updates(file: bytes) -> list[Update]:
    reader = Reader()
    found = list(reader.updates([file]))
    assert reader.damage is None
    return found


def only(file: bytes) -> Update:
    (update,) = updates(file)
    return update


def texts(update: Update) -> list[str]:
    return [
        *(f"+{write.prefix_text(prefix)}" for prefix in update.announced),
        *(f"+{write.prefix_text(prefix, ipv6=True)}" for prefix in update.announced6),
        *(f"-{write.prefix_text(prefix)}" for prefix in update.withdrawn),
        *(f"-{write.prefix_text(prefix, ipv6=True)}" for prefix in update.withdrawn6),
    ]


@pytest.mark.parametrize(
    ("file", "counts"),
    [("rrc15_updates.20100227.1600.gz", (6615, 52468, 1318, 49049)),
     ("routeviews_jinx_updates.20150401.0000.bz2", (1756, 8160, 451, 6220))],
)  # fmt: skip
def test_real_files_hold_what_is_known_of_them(file: str, counts: tuple[int, int, int, int]) -> None:
    with open_capped(real("watch/bgp") / file, 1 << 24) as source:
        assert summarise(pieces(source)) == Summary(*counts)


COUNTS = {
    "BGP4MP_MESSAGE": (1, 3, 1, 3),
    "BGP4MP_MESSAGE_AS4": (1, 5, 2, 6),
    "BGP4MP_MESSAGE_AS4 of an IPv6 peer": (1, 5, 2, 6),
    "BGP4MP_MESSAGE_LOCAL": (2, 8, 3, 6),
    "BGP4MP_MESSAGE_ADDPATH": (1, 3, 1, 3),
    "BGP4MP_MESSAGE_LOCAL_ADDPATH": (1, 3, 1, 3),
    "BGP4MP_ET": (2, 10, 4, 6),
    "other messages and changes of state": (4, 0, 0, 0),
    "End-of-RIB": (2, 0, 0, 0),
    "TABLE_DUMP": (2, 2, 0, 2),
    "TABLE_DUMP_V2": (5, 5, 0, 4),
    "TABLE_DUMP_V2 with ADD-PATH": (3, 3, 0, 2),
    "RIB_GENERIC": (3, 1, 0, 1),
    "OSPF between": (2, 5, 2, 6),
}


@pytest.mark.parametrize("kind", write.everything())
def test_every_type_of_record_is_counted(kind: str) -> None:
    assert summarise([write.everything()[kind]]) == Summary(*COUNTS[kind])


@pytest.mark.parametrize("size", [1, 7, 11, 13, 64])
def test_it_does_not_matter_how_the_bytes_come(size: int) -> None:
    file = b"".join(write.everything().values())
    whole = summarise([file])
    assert whole.damage is None
    assert summarise(file[at : at + size] for at in range(0, len(file), size)) == whole


def test_an_update_names_its_peer_and_all_that_it_says() -> None:
    update = only(
        write.bgp4mp_et(
            write.routes(
                V4, write.nlri("198.51.100.0/25"), write.usual() + write.reach(write.nlri("2001:db8::/32"))
                + write.unreach(write.nlri("2001:db8:ffff::/48")),
            ), 250_000,
        )
    )  # fmt: skip
    assert (update.at_s, update.microseconds) == (write.AT_S, 250_000)
    assert update.peer == (64500, IPv4Address("198.51.100.1"))
    assert texts(update) == [
        "+10.0.0.0/8", "+192.0.2.0/24", "+2001:db8::/32", "-198.51.100.0/25", "-2001:db8:ffff::/48"
    ]  # fmt: skip
    assert update.attributes[mrt.AS_PATH] == (64500, 64501)


A = IPv4Address("192.0.2.9")
ATTRIBUTES = [
    (mrt.ORIGIN, b"\2", 2),
    (mrt.AS_PATH, b"", ()),
    (mrt.AS_PATH, write.as_path(1, 2) + write.as_path(3, 4, kind=mrt.AS_SET), (1, 2, Segment(mrt.AS_SET, (3, 4)))),
    (mrt.AS_PATH, write.as_path(1) + write.as_path(2), (1, 2)),
    (mrt.NEXT_HOP, A.packed, A),
    (mrt.MED, pack(">I", 70), 70),
    (mrt.LOCAL_PREF, pack(">I", 100), 100),
    (mrt.ATOMIC_AGGREGATE, b"", True),
    (mrt.AGGREGATOR, pack(">I", 4_200_000_000) + A.packed, (4_200_000_000, A)),
    (mrt.COMMUNITIES, pack(">II", 0xFBF40001, 0xFFFFFF01), (0xFBF40001, 0xFFFFFF01)),
    (mrt.ORIGINATOR_ID, A.packed, A),
    (mrt.CLUSTER_LIST, A.packed * 2, (A, A)),
    (mrt.EXTENDED_COMMUNITIES, pack(">Q", 0x0002_FBF4_0000_0001), (0x0002_FBF4_0000_0001,)),
    (mrt.AS4_AGGREGATOR, pack(">I", 5) + A.packed, (5, A)),
    (mrt.IPV6_EXTENDED_COMMUNITIES, b"\0\2" + b"\1" * 18, (int.from_bytes(b"\0\2" + b"\1" * 18),)),
    (mrt.AIGP, b"\1\0\x0b" + pack(">Q", 9), ((1, pack(">Q", 9)),)),
    (mrt.LARGE_COMMUNITIES, pack(">III", 1, 2, 3), ((1, 2, 3),)),
    (mrt.ONLY_TO_CUSTOMER, pack(">I", 64500), 64500),
    (mrt.ATTR_SET, pack(">I", 64500) + write.attribute(mrt.ORIGIN, b"\1"), (64500, {mrt.ORIGIN: 1})),
    (23, pack(">HH", 8, 2) + b"ab", ((8, b"ab"),)),
    (29, pack(">HH", 1026, 1) + b"x", ((1026, b"x"),)),
    (40, b"\1\0\2hi", ((1, b"hi"),)),
    (99, b"\xde\xad", b"\xde\xad"),
    (mrt.COMMUNITIES, pack(">I", 7) * 200, (7,) * 200),
]


@pytest.mark.parametrize(("code", "octets", "value"), ATTRIBUTES)
def test_attributes_are_decoded(code: int, octets: bytes, value: object) -> None:
    assert only(write.bgp4mp(write.routes(V4, attributes=write.attribute(code, octets)))).attributes == {code: value}


@pytest.mark.parametrize(
    ("code", "octets"),
    [(mrt.ORIGIN, b""), (mrt.AS_PATH, b"\2\5\0\0"), (mrt.AS_PATH, b"\2"), (mrt.NEXT_HOP, b"\1\2"), (mrt.MED, b"\1"),
     (mrt.ATOMIC_AGGREGATE, b"\1"), (mrt.AGGREGATOR, b"\1"), (mrt.COMMUNITIES, b"\1\2\3"), (mrt.AIGP, b"\1\0\1"),
     (mrt.LARGE_COMMUNITIES, b"\0" * 16), (mrt.ATTR_SET, b"\1"), (23, b"\0\1\0\5a")],
)  # fmt: skip
def test_a_malformed_attribute_is_kept_and_the_rest_is_read(code: int, octets: bytes) -> None:
    raw = write.attribute(code, octets)
    update = only(write.bgp4mp(write.routes(V4, attributes=raw + write.attribute(99, b"x"))))
    assert update.attributes == {code: Malformed(raw), 99: b"x"}
    assert texts(update) == ["+10.0.0.0/8", "+192.0.2.0/24"]


def test_attributes_within_attributes_go_one_deep() -> None:
    nested = b""
    for _ in range(7_000):
        nested = write.attribute(mrt.ATTR_SET, pack(">I", 1) + nested)
    update = only(write.bgp4mp(write.routes(V4, attributes=nested)))
    assert len(update.announced) == 2
    two = write.attribute(mrt.ATTR_SET, pack(">I", 1) + write.attribute(mrt.ATTR_SET, b"\0\0\0\2"))
    inner = only(write.bgp4mp(write.routes(V4, attributes=two))).attributes[mrt.ATTR_SET]
    assert inner == (1, {mrt.ATTR_SET: b"\0\0\0\2"})


def test_an_attribute_that_reaches_beyond_the_others_ends_them_and_not_the_prefixes() -> None:
    attributes = write.attribute(mrt.ORIGIN, b"\0") + b"\x40\x63\x09abc"
    update = only(write.bgp4mp(write.routes(V4, attributes=attributes)))
    assert update.attributes == {mrt.ORIGIN: 0, 99: Malformed(b"\x40\x63\x09abc")}
    assert len(update.announced) == 2


def test_of_two_attributes_with_one_code_the_first_counts() -> None:
    attributes = write.attribute(mrt.MED, pack(">I", 1)) + write.attribute(mrt.MED, pack(">I", 2))
    assert only(write.bgp4mp(write.routes(V4, attributes=attributes))).attributes == {mrt.MED: 1}


@pytest.mark.parametrize(
    ("path", "path4", "whole"),
    [
        ((64500, 23456, 23456), (196_608, 196_609), (64500, 196_608, 196_609)),
        ((64500,), (1, 2), (64500,)),  # longer than the path itself: ignored
        ((64500, 23456), (), (64500, 23456)),
    ],
)
def test_paths_of_two_octets_are_completed(
    path: tuple[int, ...], path4: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    attributes = write.attribute(mrt.AS_PATH, write.as_path(*path, width=2))
    attributes += write.attribute(mrt.AS4_PATH, write.as_path(*path4))
    update = only(write.bgp4mp(write.routes(V4, attributes=attributes), 1, width=2))
    assert update.attributes == {mrt.AS_PATH: whole, mrt.AS4_PATH: path4}


def test_confederations_do_not_count_when_paths_are_completed() -> None:
    path = write.as_path(65001, width=2, kind=mrt.CONFED_SEQUENCE) + write.as_path(64500, 23456, width=2)
    attributes = write.attribute(mrt.AS_PATH, path) + write.attribute(mrt.AS4_PATH, write.as_path(196_608))
    update = only(write.bgp4mp(write.routes(V4, attributes=attributes), 1, width=2))
    assert update.attributes[mrt.AS_PATH] == (Segment(mrt.CONFED_SEQUENCE, (65001,)), 64500, 196_608)


def test_add_path_keeps_its_identifiers() -> None:
    body = write.routes(
        write.nlri("10.0.0.0/8", "10.0.0.0/8", path_ids=(1, 2)),
        write.nlri("192.0.2.0/24", path_ids=(1 << 31,)),
        write.reach(write.nlri("2001:db8::/32", path_ids=(7,))),
    )
    update = only(write.bgp4mp(body, 9))
    assert texts(update) == ["+10.0.0.0/8", "+10.0.0.0/8", "+2001:db8::/32", "-192.0.2.0/24"]
    assert update.path_ids == (1, 2, 7, 1 << 31)


def test_add_path_in_a_record_that_is_not_for_it_is_seen() -> None:
    update = only(write.bgp4mp(write.routes(write.nlri("10.0.0.0/8", "192.0.2.0/24", path_ids=(1, 2)))))
    assert texts(update) == ["+10.0.0.0/8", "+192.0.2.0/24"]
    assert update.path_ids == (1, 2)


@pytest.mark.parametrize("prefixes", [("0.0.0.0/0",), ("0.0.0.0/0", "10.0.0.0/8"), ("10.0.0.0/8", "0.0.0.0/0")])
def test_a_default_route_is_a_route(prefixes: tuple[str, ...]) -> None:
    assert texts(only(write.bgp4mp(write.routes(write.nlri(*prefixes))))) == [f"+{prefix}" for prefix in prefixes]


def test_bits_behind_the_length_make_no_other_prefix() -> None:
    assert summarise([write.bgp4mp(write.routes(b"\x14\x0a\x01\x1f" + b"\x14\x0a\x01\x10"))]).prefixes == 1


def test_multicast_counts_and_what_is_no_plain_prefix_is_kept_as_octets() -> None:
    v4 = write.reach(V4, afi=1, safi=2, hop=A.packed)
    assert len(only(write.bgp4mp(write.routes(attributes=v4))).announced) == 2
    vpn = write.reach(b"\x70" + b"\0" * 14, afi=1, safi=128, hop=b"\0" * 12)
    update = only(write.bgp4mp(write.routes(V4, attributes=vpn)))
    assert update.attributes[mrt.MP_REACH] == Reach(1, 128, (b"\0" * 12,), rest=b"\x70" + b"\0" * 14)
    assert len(update.announced) == 2


def test_a_next_hop_may_bring_its_link_local_address() -> None:
    hops = ("2001:db8::1", "fe80::1")
    attributes = write.reach(write.nlri("2001:db8::/32"), hop=b"".join(map(write.octets, hops)))
    reach = only(write.bgp4mp(write.routes(attributes=attributes))).attributes[mrt.MP_REACH]
    assert reach.next_hops == tuple(map(IPv6Address, hops))


def test_entries_of_a_table_name_their_peer_and_since_when_they_hold() -> None:
    file = write.peer_index(("198.51.100.1", 64500), ("2001:db8::9", 4_200_000_000))
    file += write.rib(4, "2001:db8::/32", (1, write.short_reach("2001:db8::1")))
    update = only(file)
    assert update.peer == (4_200_000_000, IPv6Address("2001:db8::9"))
    assert update.originated_s == write.AT_S - 60
    assert update.attributes == {mrt.MP_REACH: Reach(2, 1, (IPv6Address("2001:db8::1"),))}
    assert texts(update) == ["+2001:db8::/32"]


def test_records_from_before_bgp4mp_are_read() -> None:
    body = write.routes(V4, write.nlri("198.51.100.0/25"), write.usual(2))
    old = pack(">H", 64500) + write.octets("198.51.100.1") + pack(">H", 64999) + write.octets("198.51.100.2") + body
    update = only(write.record(5, 1, old) + write.record(5, 3, b"\0" * 10))
    assert update.peer == (64500, IPv4Address("198.51.100.1"))
    assert update.attributes[mrt.AS_PATH] == (64500, 64501)
    assert texts(update) == ["+10.0.0.0/8", "+192.0.2.0/24", "-198.51.100.0/25"]
    six = pack(">H", 64500) + write.octets("2001:db8::9") + pack(">H", 64999) + write.octets("2001:db8::8") + body
    assert only(write.record(9, 1, six)).peer == (64500, IPv6Address("2001:db8::9"))


def test_an_entry_of_bgp4mp_is_a_route_of_a_table() -> None:
    hop, attributes = A.packed, write.usual(2)
    body = write.session(2) + pack(">HHIHBB", 0, 1, write.AT_S - 9, 1, 1, len(hop)) + hop
    body += write.nlri("10.0.0.0/8") + pack(">H", len(attributes)) + attributes
    update = only(write.record(16, 2, body))
    assert (texts(update), update.originated_s) == (["+10.0.0.0/8"], write.AT_S - 9)
    assert update.attributes[mrt.AS_PATH] == (64500, 64501)


GOOD = write.bgp4mp(write.routes(V4, attributes=write.usual()))


@pytest.mark.parametrize("cut", [1, 11, 12, 30, len(GOOD) - 1])
def test_a_file_that_is_cut_is_read_to_there(cut: int) -> None:
    summary = summarise([GOOD * 3 + GOOD[:cut]])
    assert (summary.records, summary.announced) == (3, 6)
    assert summary.damage is not None
    assert "record 4 is cut" in summary.damage


@pytest.mark.parametrize("header", [pack(">IHHI", 1, 16, 4, 1 << 31), pack(">IHHI", 1, 999, 4, 20), bytes(12)])
def test_what_is_no_record_ends_the_file(header: bytes) -> None:
    summary = summarise([GOOD * 2 + header + GOOD])
    assert (summary.records, summary.announced) == (2, 4)
    assert "record 3 is damaged" in str(summary.damage)


BAD = {
    "prefixes that do not fit": write.bgp4mp(write.routes(b"\x18\x0a")),
    "a prefix of 33 bits": write.bgp4mp(write.routes(b"\x21\x0a\0\0\0\0")),
    "attributes too long": write.bgp4mp(b"\0\0\xff\xff"),
    "withdrawn too long": write.bgp4mp(b"\xff\xff\0\0"),
    "nothing in it": write.record(16, 4, b""),
    "no message": write.record(16, 4, write.session(4)),
    "another family": write.record(16, 4, b"\0" * 40),
    "a message longer than its record": write.record(16, 4, write.session(4) + write.message(b"\0" * 4)[:-1]),
    "MP_REACH that does not fit": write.bgp4mp(write.routes(V4, attributes=write.reach(b"\x30\x20"))),
    "a peer nobody knows": write.rib(2, "10.0.0.0/8", (3, b"")),
    "a table cut": write.record(13, 2, b"\0\0\0\1\x08\x0a\0\5"),
    "an index cut": write.record(13, 1, b"\0\0\0\1\0\0\0\5"),
    "a table of nothing": write.record(12, 9, b""),
    "microseconds cut": write.record(17, 4, b"\0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_record_that_contradicts_itself_is_named_and_passed_over(kind: str) -> None:
    summary = summarise([GOOD + BAD[kind] + GOOD])
    assert summary.records == 3
    assert summary.announced == (6 if kind.startswith("MP_REACH") else 4)
    assert "record 2 is damaged" in str(summary.damage)


@given(st.binary(max_size=400), st.sampled_from(sorted(mrt.REGISTERED)), st.integers(0, 13))
def test_no_content_makes_it_fail(body: bytes, kind: int, subtype: int) -> None:
    summary = summarise([write.peer_index(("198.51.100.1", 1)) + write.record(kind, subtype, body)])
    assert summary.records == 2


@given(st.data())
def test_no_flipped_byte_makes_it_fail(data: st.DataObject) -> None:
    file = bytearray(b"".join(write.everything().values()))
    for at in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=4)):
        file[at] = data.draw(st.integers(0, 255))
    assert summarise([bytes(file)]).records >= 0


def networks(version: int) -> st.SearchStrategy[str]:
    bits = 32 if version == 4 else 128
    kind = IPv4Network if version == 4 else IPv6Network
    return st.builds(
        lambda address, length: str(kind((address >> (bits - length) << (bits - length), length))),
        st.integers(0, (1 << bits) - 1), st.integers(0, bits),
    )  # fmt: skip


@given(
    st.lists(networks(4).filter(lambda text: text != "0.0.0.0/0"), max_size=20),
    st.lists(networks(4).filter(lambda text: text != "0.0.0.0/0"), max_size=20),
    st.lists(networks(6).filter(lambda text: text != "::/0"), max_size=10),
    st.lists(networks(6).filter(lambda text: text != "::/0"), max_size=10), st.booleans(),
)  # fmt: skip
def test_what_was_written_is_read(
    came: list[str], gone: list[str], came6: list[str], gone6: list[str], add_path: bool
) -> None:
    def encode(prefixes: list[str]) -> bytes:
        return write.nlri(*prefixes, path_ids=range(len(prefixes)) if add_path else None)

    attributes = write.usual() + write.reach(encode(came6)) + write.unreach(encode(gone6))
    found = updates(write.bgp4mp(write.routes(encode(came), encode(gone), attributes), 9 if add_path else 4))
    wanted = [*(f"+{p}" for p in [*came, *came6]), *(f"-{p}" for p in [*gone, *gone6])]
    assert [text for update in found for text in texts(update)] == wanted
    if add_path and found:
        assert found[0].path_ids == tuple(n for part in (came, came6, gone, gone6) for n in range(len(part)))


@given(networks(4), networks(6))
def test_a_prefix_reads_as_it_was_written(v4: str, v6: str) -> None:
    assert write.prefix_text(int.from_bytes(write.nlri(v4))) == v4
    assert write.prefix_text(int.from_bytes(write.nlri(v6)), ipv6=True) == v6


def test_ipv4_and_ipv6_prefixes_of_the_same_octets_are_two() -> None:
    body = write.routes(write.nlri("32.1.0.0/16"), attributes=write.reach(write.nlri("2001::/16")))
    assert summarise([write.bgp4mp(body)]).prefixes == 2


def test_a_long_file_takes_no_more_memory_than_a_short_one() -> None:
    piece = b"".join(write.everything().values())
    tracemalloc.start()
    try:
        assert summarise(repeat(piece, 3_000)).damage is None
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_what_comes_out_before_damaged_compression_is_counted(tmp_path: Path) -> None:
    noise = b"".join(write.bgp4mp(write.routes(write.nlri(f"10.{n % 256}.{n // 256}.0/24"))) for n in range(5000))
    for packed in (gzip.compress(noise), bz2.compress(noise, 1)):
        (tmp_path / "cut").write_bytes(packed[: len(packed) * 2 // 3])
        with open_capped(tmp_path / "cut", 1 << 24) as source:
            summary = summarise(pieces(source))
        assert 1000 < summary.records < 5000
        assert "damaged or cut" in str(summary.damage)


def test_the_cap_on_what_comes_out_ends_the_file(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(gzip.compress(GOOD * 10_000))
    with open_capped(tmp_path / "long", 100_000) as source:
        summary = summarise(pieces(source))
    assert 0 < summary.records <= 100_000 // len(GOOD)
    assert "more than 100000 bytes" in str(summary.damage)


def test_a_source_that_fails_ends_the_file() -> None:
    def source() -> Iterator[bytes]:
        yield GOOD
        raise ProtocolError("no more of it")

    assert summarise(source()) == Summary(1, 2, 0, 2, "after record 1: no more of it")


def test_there_is_an_end_to_distinct_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mrt, "PREFIXES_MAX", 3)
    file = b"".join(write.bgp4mp(write.routes(write.nlri(f"10.{n}.0.0/16"))) for n in range(9))
    summary = summarise([file])
    assert (summary.records, summary.prefixes) == (4, 4)
    assert "distinct prefixes" in str(summary.damage)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mrt, "PEERS_REMEMBERED_MAX", 4)
    monkeypatch.setattr(mrt, "REMEMBERED_ALL_BYTES_MAX", 4 * mrt.REMEMBERED_EXTRA_BYTES)
    file = b"".join(
        write.bgp4mp(write.routes(V4, attributes=write.attribute(mrt.MED, pack(">I", n))), peer=str(ip_address(n)))
        for n in range(50)
    )
    assert [update.attributes[mrt.MED] for update in updates(file)] == list(range(50))


def test_what_is_remembered_of_a_file_is_bounded_by_its_size_whatever_kinds_of_records_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mrt, "REMEMBERED_ALL_BYTES_MAX", 1 << 20)

    def made() -> Iterator[bytes]:
        for number in range(3_000):
            addresses = b"".join(pack(">I", 0x01000000 + number * 131 + place * 7919) for place in range(124))
            body = write.routes(V4, attributes=write.attribute(mrt.CLUSTER_LIST, addresses))
            yield write.bgp4mp(body, 4) if number % 2 else write.bgp4mp(body, 1, width=2)

    tracemalloc.start()
    try:
        assert summarise(made()).announced == 6_000
        assert tracemalloc.get_traced_memory()[1] < 15 << 20
    finally:
        tracemalloc.stop()
