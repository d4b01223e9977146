"""Expiry: what may be pruned, and what time it is, without trusting any one clock.

A clock that runs ahead would delete what others still wait for. So nothing is pruned that is not
over by the local date *and* by the median date of contacts met lately, and a clock that leapt
stops pruning until the owner has looked at it. A clock that runs behind only keeps things longer.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from statistics import median_low
from typing import Final, NamedTuple

from outlast.errors import Sentence
from outlast.kernel.entry import DAY_MS, day_of
from outlast.kernel.mail import MAIL_LIFE_DAYS

JUMP_MAX_DAYS: Final = 2
"""A clock may move so far between two runs of pruning without being asked about."""
LATE_DAYS: Final = MAIL_LIFE_DAYS + 7
"""So much later it may be than when a letter was written that came in the last 7 days: sticks take their time."""


class Prune(NamedTuple):
    """Entries with 0 < ``expires_day`` < ``before_day`` may go."""

    before_day: int


class Stopped(NamedTuple):
    """Nothing may be pruned; ``reason`` is one line that says what to do."""

    reason: Sentence


class Now(NamedTuple):
    """The time to go by, and one line for the owner when the clock cannot be right."""

    ms: int
    warning: Sentence | None


def prune_before(
    local_day: int,
    last_run_day: int | None,
    claims: Sequence[int],
    confirmed_day: int | None = None,
) -> Prune | Stopped:
    """The day before which entries may be pruned (days since 1970, UTC).

    ``last_run_day`` is the local day of the last run, None before the first one. ``claims`` are the
    days that verified contacts, met lately, took it to be. ``confirmed_day`` is the local day on
    which the owner last said that the date is right: on that day and the two after it only the
    local date counts when there is no claim, and a jump to it is no reason to stop.
    """
    confirmed = _is_confirmed(local_day, confirmed_day)
    if leapt(local_day, last_run_day, confirmed_day):
        return Stopped(
            Sentence(
                "The date moved to %(date)s since this node last cleaned up: "
                "nothing but messages that disappear is deleted until you confirm that it is right.",
                {"date": _date(local_day)},
            )
        )
    if claims:
        return Prune(min(local_day, median_low(claims)))
    if confirmed:
        return Prune(local_day)
    return Stopped(
        Sentence(
            "No verified contact was met lately to compare the date %(date)s with: "
            "nothing but messages that disappear is deleted until one is, or you confirm that it is right.",
            {"date": _date(local_day)},
        )
    )


def leapt(local_day: int, last_run_day: int | None, confirmed_day: int | None = None) -> bool:
    """Whether the date moved further since the last run than it may without the owner's word."""
    far = last_run_day is not None and local_day - last_run_day > JUMP_MAX_DAYS
    return far and not _is_confirmed(local_day, confirmed_day)


def _is_confirmed(local_day: int, confirmed_day: int | None) -> bool:
    return confirmed_day is not None and 0 <= local_day - confirmed_day <= JUMP_MAX_DAYS


def sane_now(system_ms: int, floor_ms: int, claims: Sequence[int] = (), letters: Sequence[int] = ()) -> Now:
    """The time to go by: the system's, but never before ``floor_ms``.

    ``floor_ms`` is a time that has certainly passed: of the program's making, or of the newest own
    entry. ``claims`` are the days that others take it to be now, and ``letters`` those that it was for
    others when they wrote what came lately; both only warn: others cannot set this clock.
    """
    if system_ms < floor_ms:
        return Now(
            floor_ms,
            Sentence(
                "This device's clock shows %(date)s, and it is at least %(least)s: set the clock.",
                {"date": _date(day_of(system_ms)), "least": _date(day_of(floor_ms))},
            ),
        )
    local = day_of(system_ms)
    # A letter that is old says only that it is no earlier: of the days that it may be by now the nearest one counts.
    days = [*claims, *(max(day, min(local, day + LATE_DAYS)) for day in letters)]
    if days and abs(local - median_low(days)) > JUMP_MAX_DAYS:
        return Now(
            system_ms,
            Sentence(
                "This device's clock shows %(date)s, and your contacts' clocks show %(others)s: set the clock.",
                {"date": _date(local), "others": _date(median_low([*claims, *letters]))},
            ),
        )
    return Now(system_ms, None)


def _date(day: int) -> str:
    """A day as people write it; days no calendar has are named by their number."""
    try:
        return datetime.datetime.fromtimestamp(day * DAY_MS // 1000, datetime.UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"day {day}"
