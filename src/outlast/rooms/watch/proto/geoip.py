"""Ranges of addresses by country, from the files geoip and geoip6 of Debian's package tor-geoipdb.

The format is Tor's (geoip.c, ``geoip_parse_entry``): a line is ``first,last,CC``, both inclusive, as decimal numbers
for IPv4 and as addresses for IPv6; ``#`` begins a comment. The data is IPFire's (CC BY-SA 4.0) and no part of this
program.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Address

from outlast.errors import ProtocolError
from outlast.rooms.watch.proto.mrt import prefix_start

RANGES_MAX = 1_000_000  # of one country; the United States have some 150,000
_NUMBER = re.compile(rb"\d{1,10}\Z")


class Ranges:
    """The ranges of one country in one family, and whether an address lies within."""

    def __init__(self, ranges: Iterable[tuple[int, int]], *, ipv6: bool = False) -> None:
        """(first, last) of each, inclusive, in any order."""
        ordered = sorted(ranges)
        self._firsts = [first for first, _ in ordered]
        self._lasts = [last for _, last in ordered]
        self._ipv6 = ipv6

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._firsts)

    def holds(self, prefix: int) -> bool:
        """Whether a prefix (as ``mrt`` packs it) begins within a range."""
        _, first = prefix_start(prefix, ipv6=self._ipv6)
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and first <= self._lasts[at]


def read_ranges(lines: Iterable[bytes], country: str, *, ipv6: bool = False) -> Ranges:
    """The ranges of a country (two letters) in a file of Tor's format; ProtocolError at a line that breaks it."""
    ending = b"," + country.upper().encode("ascii", "replace")
    found: list[tuple[int, int]] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(ending):
            continue
        first, _, last = line[: -len(ending)].partition(b",")
        try:
            found.append((_address(first, ipv6=ipv6), _address(last, ipv6=ipv6)))
        except (ValueError, AddressValueError):
            raise ProtocolError("line %(number)s of the ranges is no range", number=number) from None
        if len(found) > RANGES_MAX:
            raise ProtocolError("more than %(most)s ranges of one country", most=RANGES_MAX)
    return Ranges(found, ipv6=ipv6)


def _address(text: bytes, *, ipv6: bool) -> int:
    if ipv6:
        return int(IPv6Address(text.decode("ascii")))
    if not _NUMBER.match(text):
        raise ValueError("no number")
    return int(text)
