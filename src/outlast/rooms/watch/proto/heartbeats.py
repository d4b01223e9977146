"""The federation's own heartbeats as a series: which share of the nodes that are usually there was heard.

A node that knows a dozen others over several ways is a monitor that no authority runs. Its rows say who was heard when
and where that node stands; out come two series, of the nodes in the country and of those abroad. Both falling with the
own gateway down is the own outage: see ``fusion``.
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


class Heard(Struct, frozen=True):
    """One heartbeat that arrived: of ``node``, at ``t_s`` (s UTC), which stands in the ``domestic`` network or not."""

    node: str
    t_s: int
    domestic: bool


def read_rows(
    rows: Iterable[Heard], country: str, begin_s: int, end_s: int, step_s: int, origin: Origin
) -> list[Point]:
    """Shares from 0 to 1 for each step of ``[begin_s, end_s)``; None while nobody of the kind is known at all.

    Raises SeriesError when the steps are too many. The time runs over steps x nodes.
    """
    if step_s <= 0 or (end_s - begin_s) // step_s > POINTS_MAX:
        raise SeriesError("the steps are too short for the time asked for")
    heard: defaultdict[int, set[tuple[bool, str]]] = defaultdict(set)
    for row in rows:
        if begin_s - KNOWN_S <= row.t_s < end_s:
            heard[(row.t_s - begin_s) // step_s].add((row.domestic, row.node))
    last: dict[tuple[bool, str], int] = {}
    found: list[Point] = []
    for number in range(-(KNOWN_S // step_s) - 1, max(0, -(-(end_s - begin_s) // step_s))):
        here = heard.get(number, set())
        last.update(dict.fromkeys(here, number))
        last = {who: when for who, when in last.items() if (number - when) * step_s <= KNOWN_S}
        if number < 0:
            continue
        for signal, domestic in ((DOMESTIC, True), (FOREIGN, False)):
            known = sum(1 for kind, _ in last if kind is domestic)
            there = sum(1 for kind, _ in here if kind is domestic)
            at = begin_s + number * step_s
            value = there / known if known else None
            found.append(Point(SOURCE, country, signal, at, value, step_s, origin.fetched_at, origin.sha256))
    return stepped(found)
