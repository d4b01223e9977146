"""Letters through people who meet, beside pons-dtn's protocols on the same contacts and letters.

Without a list of contacts: towns of 36 and of 500 people, 5 days, 1,000 letters between any two. Their lives are a day
and end at the exact hour, for every protocol. A transmission is a copy of a letter that goes from one to another.

Up to 100 people Outlast's figures are those of its real sessions, above that of a model that sends what those send
(tests/town/test_contacts.py).

Outlast's sessions find out what the other side lacks before they send; pons-dtn's epidemic sends to everybody whom it
has not sent a letter yet, and counts that. ``new`` has the transmissions by which somebody got what they did not hold:
an epidemic that knew what others hold would send no more, and Outlast sends no less. docs/why/design.md says why.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from outlast.testing import (
    Contact,
    Letter,
    contact_lines,
    letters_between,
    read_contacts,
    spread,
    spread_in_town,
    town_contacts,
)

PEOPLE: Final = (36, 500)
DAYS: Final = 5
DAY_S: Final = 86_400
SEEDS: Final = 20
PEER: Final = Path(__file__).with_name("peer_pons.py")
OURS: Final = "Outlast"
EPIDEMIC: Final = "epidemic"
SESSIONS_PEOPLE_MAX: Final = 100
POINTS: Final = 2.0
"""Delivery may lie so many points below the epidemic's,"""
SHARE: Final = 0.5
"""with no more than this share of its transmissions."""


def run(peer_python: str | None, contacts: str | None) -> Iterator[dict[str, Any]]:
    """Rows of each protocol, and whether the bar holds; without pons-dtn Outlast's alone."""
    if contacts is not None:
        try:
            met, people = read_contacts(contact_lines(Path(contacts).read_bytes()))
        except (OSError, ValueError) as error:
            raise SystemExit(f"{contacts}: {error}") from None
        if not met:
            raise SystemExit(f"{contacts}: nobody meets anybody there")
        letters = letters_between(people, 0, met[-1].at_s)
        # Columns or times that were taken for others show in these numbers.
        place = f"{people} people of {Path(contacts).name}, {len(met):,} contacts in {met[-1].at_s / DAY_S:.1f} days"
        yield from rows(place, [(met, letters)], people, peer_python)
        return
    for people in PEOPLE:
        towns = [
            (town_contacts(people, seed, DAYS), letters_between(people, seed, DAYS * DAY_S)) for seed in range(SEEDS)
        ]
        yield from rows(f"towns of {people} people, {len(towns)} seeds", towns, people, peer_python)


def rows(
    place: str, towns: Sequence[tuple[Sequence[Contact], Sequence[Letter]]], people: int, peer_python: str | None
) -> Iterator[dict[str, Any]]:
    """A row for each protocol, all towns together, and two for the bar: the worst town counts."""
    found: dict[str, list[Counter[str]]] = {OURS: []}
    for contacts, letters in towns:
        by_sessions = people <= SESSIONS_PEOPLE_MAX
        outcome = spread_in_town(contacts, letters, people) if by_sessions else spread(contacts, letters)
        sent = outcome.transmissions
        found[OURS].append(Counter(delivered=outcome.delivered, transmissions=sent, new=sent, letters=len(letters)))
        if peer_python is not None:
            for line in peer(peer_python, people, contacts, letters):
                found.setdefault(line.pop("protocol"), []).append(Counter(line, letters=len(letters)))
    epidemic = sum(found.get(EPIDEMIC, []), Counter[str]())
    for protocol, outcomes in found.items():
        total = sum(outcomes, Counter[str]())
        letters_count = total["letters"]
        yield {
            "work": f"letters through {place}",
            "protocol": protocol,
            "unit": "transmissions a letter",
            "delivered": round(total["delivered"] / letters_count, 4),
            "ours": round(total["transmissions"] / letters_count, 2),
            "new": round(total["new"] / letters_count, 2),
            "per_delivered": round(total["transmissions"] / max(1, total["delivered"]), 2),
            "peer": round(epidemic["transmissions"] / letters_count, 2) if epidemic else None,
            "peer_name": "pons-dtn 0.2.1, epidemic" if epidemic else None,
            "ratio": round(total["transmissions"] / epidemic["transmissions"], 3) if epidemic else None,
            "bar": None,
            "holds": None,
        }
    if epidemic:
        pairs = list(zip(found[OURS], found[EPIDEMIC], strict=True))
        points = max(100 * (theirs["delivered"] - ours["delivered"]) / ours["letters"] for ours, theirs in pairs)
        share = max(ours["transmissions"] / max(1, theirs["transmissions"]) for ours, theirs in pairs)
        yield worst(f"delivery below the epidemic's, worst of {place}", "points", points, POINTS)
        yield worst(f"transmissions to the epidemic's, worst of {place}", "share", share, SHARE)
        new = max(ours["new"] / max(1, theirs["new"]) for ours, theirs in pairs)
        yield worst(f"transmissions to the new ones of the epidemic's, worst of {place}", "share", new, None)


def worst(work: str, unit: str, ours: float, bar: float | None) -> dict[str, Any]:
    """A row of what may not be more than the bar."""
    none = {"peer": None, "peer_name": None, "ratio": None}
    holds = None if bar is None else ours <= bar
    return {"work": work, "unit": unit, "ours": round(ours, 3), **none, "bar": bar, "holds": holds}


def peer(python: str, people: int, contacts: Sequence[Contact], letters: Sequence[Letter]) -> Iterator[dict[str, Any]]:
    """What pons-dtn's protocols make of it, one after the other."""
    given = json.dumps({"people": people, "contacts": contacts, "letters": letters})
    done = subprocess.run([python, PEER], input=given, stdout=subprocess.PIPE, text=True, check=True)
    yield from map(json.loads, done.stdout.splitlines())
