"""What two rooms read: bodies of entries that one room says and another one acts on.

``Outage``: the room watch says it, and rooms that hold a deadline still while a country is cut off read it.
``Route``: the room reach says it, and watch counts how many in a country say the same.
"""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

import msgspec

from outlast.errors import UsageError
from outlast.kernel import Kind

State = Literal["normal", "degraded", "routes-up-traffic-down", "whitelist", "blackout", "restoring"]
"""How a place is connected. ``whitelist``: what is inside of it answers, what is outside does not."""
STATES: Final[tuple[State, ...]] = get_args(State)

EVIDENCE_MAX: Final = 40
EVIDENCE_MAX_CHARS: Final = 300
VALUES_MAX: Final = 16
NUMBER_MAX: Final = 10**15
WITNESSES_MAX: Final = 64
OUTAGE_LIFE_DAYS: Final = 400
LAST_S: Final = 253_402_300_799
"""The last second of the year 9999: no later time is one."""

_ENTITY: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?|AS[1-9][0-9]{0,9}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}|")


Value = str | int | float | bool | None


class Fact(msgspec.Struct, array_like=True, frozen=True):
    """A line of evidence as data, which who shows it puts in words: its kind, and values in the order of that kind.

    The kinds stand in docs/spec/watch.md. Times are UTC, in seconds; shares are fractions of one.
    """

    kind: str
    values: tuple[Value, ...] = ()


class Outage(msgspec.Struct, array_like=True, frozen=True):
    """A place was cut off, or is: says who signs the entry that bears it."""

    entity: str  # "BY" (ISO 3166-1), "BY-HM" (ISO 3166-2) or "AS6697"
    state: State
    start_s: int  # UTC, seconds since 1970
    end_s: int | None  # None while it lasts
    evidence: tuple[str | Fact, ...]  # a line each: what each signal showed, hints too; a text says it in words
    witnesses: tuple[bytes, ...]  # 32 B each: ids of the entries ``watch.witness`` that it stands on


OUTAGE: Final = Kind("watch.outage", Outage, max_bytes=32 * 1024, max_life_days=OUTAGE_LIFE_DAYS, priority=1)


Outcome = Literal[
    "ok",
    "dns",
    "syn-drop",
    "rst-after-hello",
    "freeze",
    "tls-mitm",
    "fully-encrypted-filter",
    "refused",
    "wrong-key",
    "wrong-clock",
    "captive-portal",
    "throttled",
    "unknown",
]
"""How a way out ended, as far as whoever went it could tell. ``freeze``: it stood still after some bytes."""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
TRANSPORTS: Final = ("web", "ss", "obfs4", "tor", "proxy", "direct", "other")
ROUTE_LIFE_DAYS: Final = 14
_HOUR_S: Final = 3600
_ASN_MAX: Final = 2**32 - 1


class Route(msgspec.Struct, array_like=True, frozen=True):
    """A kind of way out worked for somebody, or did not: never which bridge, nor where they wanted to go."""

    transport: str  # of ``TRANSPORTS``
    outcome: Outcome
    at_s: int  # the hour's beginning; UTC, seconds since 1970
    country: str  # ISO 3166-1, where it was tried
    asn: int  # their network, 0 = not told


ROUTE: Final = Kind("reach.route", Route, max_bytes=64, max_life_days=ROUTE_LIFE_DAYS, priority=4)


def is_sane_route(route: Route) -> bool:
    """Whether what somebody signed of a way out keeps to what its fields may hold."""
    return (
        route.transport in TRANSPORTS
        and route.outcome in OUTCOMES
        and 0 <= route.at_s <= LAST_S
        and route.at_s % _HOUR_S == 0
        and bool(route.country)
        and is_place(route.country, route.asn)
    )


def is_place(country: str, asn: int) -> bool:
    """Whether these can be a country's two letters, "" = not told, and the number of a network, 0 = not told."""
    return _COUNTRY.fullmatch(country) is not None and 0 <= asn <= _ASN_MAX


def read_place(country: str, asn: int | str) -> tuple[str, int]:
    """The place that a person names, a network also as ``AS6697``; raises UsageError when ``is_place`` says no."""
    country, number = country.strip().upper(), str(asn).strip().upper().removeprefix("AS").strip() or "0"
    if not is_place(country, 0):
        raise UsageError("a country is named by two letters, as in BY")
    if not re.fullmatch("[0-9]{1,10}", number) or not is_place(country, int(number)):
        raise UsageError("a network has a number from 1 to 4294967295; 0 when you do not know it")
    return country, int(number)


def is_entity(text: str) -> bool:
    """Whether a text names a country, a part of one, or a network, as ``Outage.entity`` does."""
    return _ENTITY.fullmatch(text) is not None


def is_sane(outage: Outage) -> bool:
    """Whether an outage that somebody signed keeps to what its fields may hold."""
    end_s = outage.end_s
    return (
        is_entity(outage.entity)
        and outage.state in STATES
        and 0 <= outage.start_s <= LAST_S
        and (end_s is None or outage.start_s <= end_s <= LAST_S)
        and len(outage.evidence) <= EVIDENCE_MAX
        and all(is_evidence(one) for one in outage.evidence)
        and len(outage.witnesses) <= WITNESSES_MAX
        and all(len(one) == 32 for one in outage.witnesses)
    )


def is_evidence(line: str | Fact) -> bool:
    """Whether this is one line of evidence: its texts not long, without controls and what turns the direction of
    writing; its numbers such as something was measured in."""
    if isinstance(line, str):
        return len(line) <= EVIDENCE_MAX_CHARS and line.isprintable()
    return len(line.values) <= VALUES_MAX and all(
        is_evidence(one) if isinstance(one, str) else one is None or abs(one) <= NUMBER_MAX
        for one in (line.kind, *line.values)
    )
