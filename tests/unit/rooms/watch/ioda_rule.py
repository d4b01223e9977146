"""The rule by which IODA says that it finds outages: a peer to run the detector against."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from outlast.rooms.watch.proto.series import DAY_S, Point


class PublishedRule(Struct, frozen=True):
    """An alert stands while the value is below ``warning`` times the median of ``window_s``."""

    window_s: int
    warning: float


PUBLISHED: Final = {
    "routes": PublishedRule(DAY_S, 0.99),
    "probing": PublishedRule(7 * DAY_S, 0.80),
    "darknet": PublishedRule(7 * DAY_S, 0.25),
}
"""IODA's help page, "Detection Criteria" (ioda.inetintel.cc.gatech.edu/help; its text is in the repository
InetIntel/ioda-ui, assets/js/Ioda/pages/help/Help.js, read at commit 1032915 of September 2025)."""


def published_alerts(rows: Sequence[Point], rule: PublishedRule) -> list[tuple[int, int | None]]:
    """When IODA's own rule warns on a series in order: (begin, end) in s, end None when it stands at the end.

    The window is of the values before the current one and takes in the outage itself, so that in a long one the
    median follows the fall and the alert ends. Missing values are skipped. Nothing is said before a tenth of it.
    """
    window: deque[tuple[int, float]] = deque()
    ordered: list[float] = []
    alerts: list[tuple[int, int | None]] = []
    for row in rows:
        if row.value is None:
            continue
        while window and window[0][0] < row.t_s - rule.window_s:
            del ordered[bisect_left(ordered, window.popleft()[1])]
        low = len(ordered) * row.step_s * 10 >= rule.window_s and row.value < rule.warning * ordered[len(ordered) // 2]
        standing = bool(alerts) and alerts[-1][1] is None
        if low and not standing:
            alerts.append((row.t_s, None))
        elif standing and not low:
            alerts[-1] = (alerts[-1][0], row.t_s)
        window.append((row.t_s, row.value))
        insort(ordered, row.value)
    return alerts
