"""MRT beside pybgpkit-parser: the same elements, of the same peers, with the same attributes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from outlast.rooms.watch.io.files import open_capped, pieces
from outlast.rooms.watch.proto import mrt
from outlast.rooms.watch.proto.mrt import Malformed, Reader, Segment, Update, prefix_text
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


def ours(path: Path) -> Iterator[Element]:
    """The elements of a file as we read them."""
    reader = Reader()
    with open_capped(path, 1 << 26) as source:
        for update in reader.updates(pieces(source)):
            yield from elements(update)
    assert reader.damage is None


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
        yield from (("A", prefix_text(prefix, ipv6=ipv6), *peer, *about) for prefix in came)
        yield from (("W", prefix_text(prefix, ipv6=ipv6), *peer) for prefix in gone)


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
