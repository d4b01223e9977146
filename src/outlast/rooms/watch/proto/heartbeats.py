"""The federation's own heartbeats as a series: which share of the people who are usually there was heard.

A node that knows a dozen others over several ways is a monitor that no authority runs. Its rows say who was heard when
and where they are; out come two series, of those in the country and of those abroad. Each person counts once in each,
in the network that they named last; each network weighs the same, so that the fall of one provider, or a crowd in one,
is not the country. Both falling may be the own outage: see ``fusion``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from outlast.rooms.watch.proto.series import DAY_S, POINTS_MAX, Origin, Point, SeriesError, stepped

SOURCE: Final = "heartbeats"
DOMESTIC: Final = "heartbeats-domestic"
FOREIGN: Final = "heartbeats-foreign"
KNOWN_S: Final = 7 * DAY_S
"""A node counts as usually there for seven days after it was last heard: then it has moved on."""
NETWORKS_MIN: Final = 3
"""Of fewer networks one provider's fault would look like a country's; witnesses need as many."""


class Heard(Struct, frozen=True):
    """One heartbeat that arrived: of ``node`` at ``t_s`` (s UTC), whether in the country, and in which network."""

    node: str
    t_s: int
    domestic: bool
    network: str


def read_rows(
    rows: Iterable[Heard], country: str, begin_s: int, end_s: int, step_s: int, origin: Origin
) -> list[Point]:
    """Shares from 0 to 1 for each step of ``[begin_s, end_s)``: the mean of the networks' shares of people heard.

    None while fewer than NETWORKS_MIN networks of the kind are known. Raises SeriesError when the steps are too many.
    The time runs over steps x nodes.
    """
    if step_s <= 0 or (end_s - begin_s) // step_s > POINTS_MAX:
        raise SeriesError("the steps are too short for the time asked for")
    heard: defaultdict[int, dict[tuple[bool, str], str]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row.t_s, row.network)):
        if begin_s - KNOWN_S <= row.t_s < end_s:
            heard[(row.t_s - begin_s) // step_s][row.domestic, row.node] = row.network
    last: dict[tuple[bool, str], tuple[int, str]] = {}
    found: list[Point] = []
    for number in range(-(KNOWN_S // step_s) - 1, max(0, -(-(end_s - begin_s) // step_s))):
        for who, network in heard.get(number, {}).items():
            last[who] = (number, network)
        last = {who: seen for who, seen in last.items() if (number - seen[0]) * step_s <= KNOWN_S}
        if number < 0:
            continue
        for signal, domestic in ((DOMESTIC, True), (FOREIGN, False)):
            known: defaultdict[str, list[bool]] = defaultdict(list)
            for (kind, _), (seen, network) in last.items():
                if kind is domestic:
                    known[network].append(seen == number)
            shares = [sum(there) / len(there) for there in known.values()]
            value = sum(shares) / len(shares) if len(shares) >= NETWORKS_MIN else None
            at = begin_s + number * step_s
            found.append(Point(SOURCE, country, signal, at, value, step_s, origin.fetched_at, origin.sha256))
    return stepped(found)
