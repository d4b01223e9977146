"""The three lamps: is it this site, my link, or the country? What is known in, one code for each lamp out.

A lamp that nothing is known about says so; it never shows green for want of news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from outlast.rooms.watch.view import Cut, LinkCheck, Measured

RECENT_S: Final = 86_400
LINK_FRESH_MS: Final = 2 * 3_600_000
NEAR_S: Final = 6 * 3600
"""Of one place, what begins within so long of each other is one outage."""
LIGHTS: Final = ("ok", "warn", "bad", "unknown")


@dataclass(frozen=True, slots=True)
class Lamp:
    """One lamp: its ``light`` (of ``LIGHTS``), what it says as a code, and numbers that belong into the sentence."""

    light: str
    code: str
    numbers: Mapping[str, int] = field(default_factory=dict)


def site_lamp(latest: Sequence[Measured]) -> Lamp:
    """Of the latest measurements of each target: how many are blocked, down, well."""
    verdicts = [one.verdict for one in latest]
    numbers = {"n": len(verdicts), "blocked": verdicts.count("blocked"), "down": verdicts.count("down")}
    if not verdicts:
        return Lamp("unknown", "nothing-measured")
    if numbers["blocked"]:
        return Lamp("bad", "blocked", numbers)
    if numbers["down"]:
        return Lamp("warn", "down", numbers)
    return Lamp("ok", "ok", numbers) if "ok" in verdicts else Lamp("unknown", "unclear", numbers)


def latest_by_target(measured: Sequence[Measured]) -> list[Measured]:
    """The newest measurement of each target, the blocked ones first; ``measured`` is newest first.

    Of those at one time, which came in any order, it is the worst.
    """
    order = ("blocked", "down", "unknown", "ok")
    found: dict[str, Measured] = {}
    for one in measured:
        held = found.setdefault(one.input, one)
        if held.at_s == one.at_s and order.index(one.verdict) < order.index(held.verdict):
            found[one.input] = one
    return sorted(found.values(), key=lambda one: (order.index(one.verdict), one.input))


def link_lamp(check: LinkCheck | None, now_ms: int) -> Lamp:
    """How the way from this computer into the network is."""
    # In either direction: a clock that ran ahead then would let the look stand for fresh until that time.
    if check is None or abs(now_ms - check.at_ms) > LINK_FRESH_MS:
        return Lamp("unknown", "not-looked" if check is None else "long-ago")
    match check.domestic, check.abroad:
        case True, True:
            return Lamp("ok", "ok")
        case (True, False):
            return Lamp("warn", "only-inside")
        case (False | None, True):
            return Lamp("ok", "ok") if check.domestic is None else Lamp("warn", "only-abroad")
        case (False, False) | (None, False):
            return Lamp("bad", "no-gateway" if check.gateway is False else "nothing-answers")
    return Lamp("bad", "no-gateway") if check.gateway is False else Lamp("unknown", "unclear")


def country_lamp(
    country: str, open_cuts: Sequence[Cut], confirmed: bool, signals_age_s: int | None, link: Lamp
) -> Lamp:
    """How the country is: ``open_cuts`` last and are of it; ``confirmed`` when enough witnesses stand for one.

    ``signals_age_s`` is how old the newest signal is, None when there is none.
    """
    if not country:
        return Lamp("unknown", "no-country")
    worst = worst_of(open_cuts)
    if worst is not None:
        light = "warn" if worst.state in ("degraded", "restoring") or not confirmed else "bad"
        return Lamp(light, worst.state if confirmed else f"perhaps-{worst.state}")
    if link.light == "bad":
        return Lamp("unknown", "own-link")
    if signals_age_s is None:
        return Lamp("unknown", "no-signals")
    return Lamp("ok", "normal") if signals_age_s <= RECENT_S else Lamp("unknown", "old-signals")


_SEVERITY: Final = ("normal", "restoring", "degraded", "routes-up-traffic-down", "whitelist", "blackout")


def worst_of(cuts: Sequence[Cut]) -> Cut | None:
    """The worst of some outages, None when there is none; of equals the earliest."""
    return max(cuts, key=lambda cut: (_SEVERITY.index(cut.state), -cut.start_s), default=None)


def merged(*ranked: Sequence[Cut]) -> list[Cut]:
    """One outage for what several said of the same, the latest first.

    What an earlier one of ``ranked`` says goes before what a later one says; the newest word goes before older ones.
    Words of one hour may have come in any order: an end goes before none, then the graver state.
    """
    found: list[Cut] = []
    for cuts in ranked:
        for cut in sorted(cuts, key=_newest_first):
            if not any(is_same(one, cut) for one in found):
                found.append(cut)
    return sorted(found, key=lambda cut: (-cut.start_s, cut.entity))


def is_same(one: Cut, other: Cut) -> bool:
    """Whether two words are on one outage."""
    return one.entity == other.entity and abs(one.start_s - other.start_s) <= NEAR_S


def _newest_first(cut: Cut) -> tuple[int, int, int, int, bytes]:
    return (-cut.at_s, -(cut.end_s or 0), -_SEVERITY.index(cut.state), cut.start_s, cut.id or b"")
