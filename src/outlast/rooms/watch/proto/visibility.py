"""Which of a country's prefixes the rest of the world sees, over time, from the messages of a route collector.

A prefix is visible while at least one peer's last word on it was an announcement. It is a country's when its first
address lies in one of the country's ranges. What a file does not speak of is not known: a table first and updates after
it (both can stand in one file, or come through one pipe) give the whole, updates alone only what moved. A session that
ends takes nothing away: that a collector lost a peer says nothing of a country.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from outlast.rooms.watch.proto.geoip import Ranges
from outlast.rooms.watch.proto.mrt import Peer, Update, prefix_start
from outlast.rooms.watch.proto.series import Point

SOURCE: Final = "mrt"
STEP_S: Final = 300  # RIS's files of updates are as long, and IODA's bins of BGP
STEPS_MAX: Final = 120_000  # more than a year
PEERS_MAX: Final = 4096  # the largest collectors have some hundreds; what comes after shares one place
GAP_MAX: Final = 288  # steps: within a day silence is filled with missing values, beyond it is another file
PREFIXES: Final = "bgp-visible-prefixes"
SLASH24S: Final = "bgp-visible-slash24s"


class Step(msgspec.Struct, frozen=True, gc=False):
    """What was seen at the end of an interval that begins at ``t_s``, and what was said within it.

    ``prefixes`` are visible ones of both families, ``slash24s`` the blocks of 256 IPv4 addresses that they cover,
    ``announced`` and ``withdrawn`` elements of the country. ``heard`` is False where the collector said nothing of
    anybody: then nothing is known, and the counts are those of before.
    """

    t_s: int
    prefixes: int
    slash24s: int
    announced: int
    withdrawn: int
    heard: bool


class Visibility:
    """Takes updates in the order of a file and keeps what they say of one country."""

    def __init__(self, ranges: Ranges, ranges6: Ranges) -> None:
        """The country's ranges."""
        self._ranges = {False: ranges, True: ranges6}
        self._seen: dict[tuple[bool, int], int] = {}  # (IPv6?, prefix) -> a bit for each peer that announces it
        self._foreign: set[tuple[bool, int]] = set()
        self._peers: dict[Peer, int] = {}
        self._steps: list[Step] = []
        self._step: int | None = None
        self._announced = self._withdrawn = 0
        self._visible = self._covered = 0
        self._changed = False
        self.full = False

    def take(self, update: Update) -> None:
        """Take what one peer says; ``full`` turns True, and nothing more is taken, after STEPS_MAX intervals."""
        if self.full:
            return
        step = update.at_s // STEP_S
        if self._step is None:
            self._step = step
        elif step > self._step:  # an earlier time counts for now: peers' clocks and merged files are not in order
            self._close(step)
        if self.full:
            return
        place = self._peers.get(update.peer, PEERS_MAX)
        if place == PEERS_MAX > len(self._peers):
            place = self._peers[update.peer] = len(self._peers)
        bit = 1 << place
        for ipv6, came, gone in (
            (False, update.announced, update.withdrawn),
            (True, update.announced6, update.withdrawn6),
        ):
            for prefix in gone:
                if self._is_ours(key := (ipv6, prefix)):
                    self._withdrawn += 1
                    self._set(key, self._seen.get(key, 0) & ~bit)
            for prefix in came:
                if self._is_ours(key := (ipv6, prefix)):
                    self._announced += 1
                    self._set(key, self._seen.get(key, 0) | bit)

    def steps(self) -> list[Step]:
        """All intervals so far, the one that still runs among them."""
        return [*self._steps, *([] if self._step is None or self.full else [self._now(self._step, heard=True)])]

    def points(self, country: str) -> Iterator[Point]:
        """The visible prefixes and their /24s as rows of series; an interval in which nothing was heard is missing."""
        for step in self.steps():
            for signal, value in ((PREFIXES, step.prefixes), (SLASH24S, step.slash24s)):
                yield Point(SOURCE, country, signal, step.t_s, float(value) if step.heard else None, STEP_S)

    def _is_ours(self, key: tuple[bool, int]) -> bool:
        if key in self._seen:
            return True
        if key in self._foreign:
            return False
        if self._ranges[key[0]].holds(key[1]):
            return True
        if len(self._foreign) > 1 << 20:
            self._foreign.clear()
        self._foreign.add(key)
        return False

    def _set(self, key: tuple[bool, int], peers: int) -> None:
        turned = bool(peers) - bool(self._seen.get(key))
        self._seen[key] = peers
        if turned:
            self._visible += turned
            self._changed = True

    def _close(self, step: int) -> None:
        """End the running interval, and put silence between it and the next."""
        assert self._step is not None
        self._steps.append(self._now(self._step, heard=True))
        self._announced = self._withdrawn = 0
        if step - self._step <= GAP_MAX:
            self._steps += [self._now(silent, heard=False) for silent in range(self._step + 1, step)]
        self._step = step
        self.full = len(self._steps) > STEPS_MAX

    def _now(self, step: int, *, heard: bool) -> Step:
        if self._changed:
            self._covered = _slash24s(prefix for (ipv6, prefix), peers in self._seen.items() if peers and not ipv6)
            self._changed = False
        return Step(step * STEP_S, self._visible, self._covered, self._announced, self._withdrawn, heard)


def _slash24s(prefixes: Iterator[int]) -> int:
    """How many blocks of 256 addresses IPv4 prefixes cover, each once; a smaller prefix takes its whole block."""
    blocks = []
    for prefix in prefixes:
        bits, first = prefix_start(prefix)
        blocks.append((first >> 8, (first + (1 << (32 - bits)) - 1) >> 8))
    covered, end = 0, -1
    for first_block, last_block in sorted(blocks):
        covered += max(0, last_block - max(first_block, end + 1) + 1)
        end = max(end, last_block)
    return covered
