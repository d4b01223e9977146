"""MRT beside pybgpkit-parser: the same elements, of the same peers, with the same attributes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from outlast.rooms.watch.io.files import open_capped, pieces
from outlast.rooms.watch.proto import mrt
from outlast.rooms.watch.proto.mrt import Malformed, Reader, Segment, Update
from outlast.rooms.watch.proto.mrt import Path as AsPath
from tests.real import real
from tests.unit.rooms.watch import mrt_files as write

pytestmark = pytest.mark.skipif(
    find_spec("pybgpkit_parser") is None and os.environ.get("CI") != "true",
    reason="pybgpkit-parser has no wheel for this machine",
)

Element = tuple[Any, ...]
"""(A or W, prefix, peer's address and AS number, and of an announcement: path, origin, MED, local preference)."""
ORIGINS = ("IGP", "EGP", "INCOMPLETE")


ROUTES = write.routes(write.nlri("10.0.0.0/8", "192.0.2.0/24"), attributes=write.usual())
GOOD = write.bgp4mp(write.routes(write.nlri("198.51.100.0/24"), attributes=write.usual()))
PEERS = write.peer_index(("198.51.100.1", 64500))
ENTRY = pack(">HIH", 0, 1, len(write.usual())) + write.usual()
ODD = {
    "prefixes that do not fit": write.bgp4mp(write.routes(b"\x18\x0a")) + GOOD,
    "a prefix of 33 bits": write.bgp4mp(write.routes(b"\x21\x0a\0\0\0\0")) + GOOD,
    "attributes too long": write.bgp4mp(b"\0\0\xff\xff") + GOOD,
    "a path too long": write.bgp4mp(write.routes(write.nlri("10.0.0.0/8"), attributes=b"\x40\x02\x09abc")) + GOOD,
    "MP_REACH that does not fit": write.bgp4mp(write.routes(write.nlri("10.0.0.0/8"), b"", write.reach(b"\x30\x20"))),
    "a message longer than its record": write.record(16, 4, write.session(4) + write.message(ROUTES)[:-2]) + GOOD,
    "a message shorter than its record": write.record(16, 4, write.session(4) + write.message(ROUTES) + b"xx") + GOOD,
    "a file that is cut": GOOD + write.bgp4mp(ROUTES)[:-3],
    "ADD-PATH in a record that is not for it": write.bgp4mp(
        write.routes(write.nlri("10.0.0.0/8", "192.0.2.0/24", path_ids=(1, 2)))
    ),
    "unicast and multicast at once": write.bgp4mp(
        write.routes(attributes=write.reach(write.nlri("10.0.0.0/8"), afi=1, safi=3, hop=b"\1\2\3\4"))
    ),
    "VPNs": write.bgp4mp(
        write.routes(write.nlri("10.0.0.0/8"), b"", write.reach(b"\x70" + bytes(14), afi=1, safi=128, hop=bytes(12)))
    ),
    "a table without peers": write.rib(2, "10.0.0.0/8", (0, write.usual())),
    "a peer nobody knows": PEERS + write.rib(2, "10.0.0.0/8", (0, write.usual()), (3, b""), (0, write.usual())),
    "an entry that is cut": PEERS
    + write.record(13, 2, pack(">I", 7) + write.nlri("10.0.0.0/8") + pack(">H", 2) + ENTRY + b"\0\0")
    + write.rib(2, "192.0.2.0/24", (0, write.usual())),
}


def ours(path: Path) -> Iterator[Element]:
    """The elements of a file as we read them."""
    reader = Reader()
    with open_capped(path, 1 << 26) as source:
        for update in reader.updates(pieces(source)):
            yield from elements(update)


def elements(update: Update) -> Iterator[Element]:
    """One for each prefix of an update."""
    peer = (str(update.peer.address), update.peer.asn)
    known = {code: value for code, value in update.attributes.items() if not isinstance(value, Malformed)}
    origin = known.get(mrt.ORIGIN)
    about = (
        path_text(known.get(mrt.AS_PATH)),
        None if origin is None else ORIGINS[origin],
        known.get(mrt.MED, 0),  # the other has 0 for what did not come
        known.get(mrt.LOCAL_PREF, 0),
    )
    for ipv6, came, gone in ((False, update.announced, update.withdrawn), (True, update.announced6, update.withdrawn6)):
        yield from (("A", write.prefix_text(prefix, ipv6=ipv6), *peer, *about) for prefix in came)
        yield from (("W", write.prefix_text(prefix, ipv6=ipv6), *peer) for prefix in gone)


def path_text(path: AsPath | None) -> str | None:
    """A path as the other writes it: a set in braces."""
    if path is None:
        return None
    return " ".join(f"{{{','.join(map(str, p.asns))}}}" if isinstance(p, Segment) else str(p) for p in path)


def theirs(path: Path) -> Iterator[Element]:
    """The elements of a file as pybgpkit-parser reads them."""
    from pybgpkit_parser import Parser

    for element in Parser(url=str(path)):
        peer = (element.elem_type, element.prefix, element.peer_ip, element.peer_asn)
        if element.elem_type == "W":
            yield peer
        else:
            yield (*peer, element.as_path, element.origin, element.med, element.local_pref)


@pytest.mark.parametrize("file", ["rrc15_updates.20100227.1600.gz", "routeviews_jinx_updates.20150401.0000.bz2"])
def test_real_files_hold_the_same_elements(file: str) -> None:
    path = real("watch/bgp") / file
    assert Counter(ours(path)) == Counter(theirs(path))


@pytest.mark.parametrize("kind", write.everything())
def test_each_type_of_record_holds_the_same_elements(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file.mrt").write_bytes(write.everything()[kind])
    assert Counter(ours(tmp_path / "file.mrt")) == Counter(theirs(tmp_path / "file.mrt"))


@pytest.mark.parametrize("kind", ODD)
def test_of_odd_and_damaged_records_the_same_is_left(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file.mrt").write_bytes(ODD[kind])
    left = Counter(element[:4] for element in ours(tmp_path / "file.mrt"))
    assert left == Counter(element[:4] for element in theirs(tmp_path / "file.mrt"))
