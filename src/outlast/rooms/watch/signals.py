"""Series of signals as watch keeps them, and the outages that the detector finds in them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from outlast.errors import UsageError
from outlast.rooms.watch.places import two_letters
from outlast.rooms.watch.proto.detector import State
from outlast.rooms.watch.proto.evidence import fact
from outlast.rooms.watch.proto.fusion import COUNTRY, Alarm, Controls, detect, own_state, without_own_outage
from outlast.rooms.watch.proto.heartbeats import DOMESTIC, FOREIGN, SOURCE, Heard, read_rows
from outlast.rooms.watch.proto.series import DAY_S, HOUR_S, Key, Origin, Point, country_of, gather
from outlast.rooms.watch.view import LIVE_S, Cut, LinkCheck, StoredSeries, last_s
from outlast.terms import EVIDENCE_MAX, STATES, is_evidence
from outlast.terms import State as Said

GRACE_S: Final = 6 * HOUR_S
"""So long after an hour its heartbeats may come; who comes by a stick that is slower is never heard in time."""
AWAY_S: Final = 15 * 60
"""Without a neighbour for longer than this, a node hears nobody: it looks each minute."""
CAUGHT_UP_S: Final = HOUR_S
"""So long after it was away a node has what it missed; until then it settles no hour."""
KEPT_S: Final = 60 * DAY_S
AHEAD_S: Final = DAY_S
"""Rows up to so long ahead of this node's clock are kept: it may be wrong by hours, and the newest rows matter most."""
OTHERS_MAX: Final = 5
"""So many countries are named of a file that is about others."""


def stored(points: Iterable[Point], country: str, fetched_ms: int, sha256: bytes) -> list[StoredSeries]:
    """Rows as they are kept, under the two letters of their country; with the mean of its regions where it has none.

    Rows that name no country are taken as this one's, and so are those of a code that it once had, where no row has its
    own: few still come under SU. Those of others, of continents and of networks are left out, and those of times to
    come, which would make the country well, or cut, for as long. Raises UsageError when none is left.
    """
    others: set[str] = set()
    moved: list[Point] = []
    # Of two rows of one time the later one stands.
    for point in sorted(points, key=lambda point: country_of(point.entity) in ("", country)):
        named = country_of(point.entity)
        if named and two_letters(named) != country:
            others.add(named)
        else:
            moved.append(_of_country(point, country))
    if not moved:
        raise UsageError(
            "this file says nothing of %(country)s: it is about %(others)s",
            country=country,
            others=", ".join(sorted(others)[:OTHERS_MAX]) + ("…" if len(others) > OTHERS_MAX else ""),
        )
    latest_s = fetched_ms // 1000 + AHEAD_S
    moved = [point for point in moved if point.t_s <= latest_s]
    if not moved:
        raise UsageError("all of this file is dated in the future: look at this computer's date, and at the file's")
    kept = gather([*moved, *_means(moved, country)])
    return [
        StoredSeries(
            entity,
            source,
            signal,
            rows[0].step_s,
            fetched_ms,
            sha256,
            tuple((row.t_s, row.value) for row in rows),
        )
        for (source, entity, signal), rows in sorted(kept.items())
    ]


def of_country(series: Iterable[StoredSeries], country: str) -> list[StoredSeries]:
    """A country's own series, and those of its regions."""
    return [one for one in series if one.entity.partition("/")[0] == country]


def renewed(kept: Sequence[StoredSeries], found: Sequence[StoredSeries]) -> list[StoredSeries]:
    """All of these, ``found`` instead of what was kept under the same name."""
    replaced = {(one.source, one.entity, one.signal) for one in found}
    return [*(one for one in kept if (one.source, one.entity, one.signal) not in replaced), *found]


def look_through(series: Sequence[StoredSeries], country: str, now_s: int) -> tuple[list[Cut], set[Key]]:
    """The outages of a country in its series, the fused ones; and which of these series are enough to be judged."""
    # What ended long ago is judged for itself: what still comes must not make its alarm one that lasts.
    lasting: tuple[list[StoredSeries], list[StoredSeries]] = ([], [])
    for one in series:
        lasting[now_s - (last_s(one) or 0) <= LIVE_S].append(one)
    cuts: dict[int, Cut] = {}
    judged: set[Key] = set()
    for part in lasting:
        reports = detect(
            Point(one.source, one.entity, one.signal, t_s, value, one.step_s)
            for one in part
            for t_s, value in one.points
        )
        judged |= {report.key for report in reports if report.key and report.judged}
        known_s = max((last_s(one) or 0 for one in part), default=0)
        for alarm in (alarm for report in reports if report.signal == COUNTRY for alarm in report.alarms):
            cuts[alarm.start_s] = _cut(alarm, country, known_s)
    return [cuts[start_s] for start_s in sorted(cuts)], judged


def final_s(now_s: int) -> int:
    """Up to when (UTC seconds, an hour's beginning) it is settled who was heard; what comes later changes nothing."""
    return (now_s - GRACE_S) // HOUR_S * HOUR_S


def heartbeats_of(
    heard: Sequence[tuple[str, int, str, int]],
    country: str,
    begin_s: int,
    end_s: int,
    away: Sequence[tuple[int, int]],
    before: Sequence[StoredSeries],
    now_ms: int,
) -> list[StoredSeries]:
    """A country's two series of heartbeats, with the hours of ``[begin_s, end_s)`` after those of ``before``.

    ``heard`` is (person, UTC seconds, country, network) of that time and KNOWN_S before it, ``away`` the times in which
    this node could hear nobody: of these hours it knows nothing. A series without any value is none yet.
    """
    rows = [Heard(who, t_s, where == country, f"AS{asn}") for who, t_s, where, asn in heard]
    points = read_rows(rows, country, begin_s, end_s, HOUR_S, Origin(now_ms // 1000))
    found: list[StoredSeries] = []
    for signal in (DOMESTIC, FOREIGN):
        old = next((one for one in before if one.signal == signal and one.source == SOURCE), None)
        new = ((row.t_s, row.value) for row in without_own_outage(points, away) if row.signal == signal)
        # A clock that ran ahead may have settled hours that have not been.
        kept = [*(point for point in (old.points if old else ()) if point[0] < begin_s), *new]
        start = next((at for at, (_, value) in enumerate(kept) if value is not None), len(kept))
        kept = kept[max(start, len(kept) - KEPT_S // HOUR_S) :]
        if kept:
            found.append(StoredSeries(country, SOURCE, signal, HOUR_S, now_ms, b"", tuple(kept)))
    return found


def gone_away(heard_s: int | None, now_s: int) -> tuple[int, int] | None:
    """The time in which this node could hear nobody, when it was last able to at ``heard_s`` and is again now.

    None when it was but a moment: sessions begin anew. A node that was never able to is away since ever.
    """
    if heard_s is None:
        return (0, now_s)
    return (heard_s, now_s) if now_s - heard_s > AWAY_S else None


def own_word(check: LinkCheck) -> State | None:
    """What the own line allows to say of the country; None when it allows nothing."""
    return own_state(Controls(check.gateway, check.domestic, check.abroad))


def own_cut(check: LinkCheck, before: Cut | None, country: str) -> Cut | None:
    """The outage that the own line sees, going on from the one ``before``; that one ended, when all is well again.

    None when there is nothing to change: when the line allows no word, an outage that lasts stays as it was seen last.
    """
    word, at_s = own_word(check), check.at_ms // 1000
    if word is None:
        return None
    lasting = before if before is not None and before.end_s is None else None
    if word is State.NORMAL:
        return None if lasting is None else replace(lasting, at_s=at_s, end_s=at_s)
    evidence = (fact("own-line", check.gateway, check.domestic, check.abroad),)
    if lasting is None:
        return Cut(None, None, at_s, country, _said(word.value), at_s, None, evidence, (), own=True)
    return replace(lasting, at_s=at_s, state=_said(word.value), evidence=evidence)


def _cut(alarm: Alarm, country: str, known_s: int) -> Cut:
    """An alarm as it is kept; ``known_s`` is when the last value is that it stands on."""
    lines = tuple([line for line in alarm.evidence if is_evidence(line)][:EVIDENCE_MAX])
    state = _said(alarm.state.value)
    return Cut(None, None, known_s, country, state, alarm.start_s, alarm.end_s, lines, ())


def _said(state: str) -> Said:
    return next(one for one in STATES if one == state)


def _of_country(point: Point, country: str) -> Point:
    _, slash, region = point.entity.partition("/")
    return Point(point.source, country + slash + region, point.signal, point.t_s, point.value, point.step_s)


def _means(points: Sequence[Point], country: str) -> list[Point]:
    own = {(point.source, point.signal) for point in points if point.entity == country}
    sums: dict[tuple[str, str, int], list[float]] = {}
    steps: dict[tuple[str, str], int] = {}
    for point in points:
        name = (point.source, point.signal)
        if point.entity != country and name not in own:
            steps.setdefault(name, point.step_s)
            values = sums.setdefault((*name, point.t_s), [])
            if point.value is not None:
                values.append(point.value)
    return [
        Point(source, country, signal, t_s, sum(values) / len(values) if values else None, steps[source, signal])
        for (source, signal, t_s), values in sums.items()
    ]
