"""Who meets whom, and who writes to whom: days of a town drawn from a seed, or read from any list of contacts."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from random import Random
from typing import Final, NamedTuple

HOUR_S: Final = 3600
DAY_S: Final = 86_400
LIFE_S: Final = DAY_S
"""How long a letter is worth carrying."""
TIME_MAX_S: Final = 1 << 40
"""Times of contacts lie nearer to their zero than this."""

_HOME_SIZES: Final = (1, 2, 2, 3, 4, 5)
_WORKPLACE_PEOPLE: Final = 25
_BUS_PEOPLE: Final = 40
_SHOP_PEOPLE: Final = 60
_AWAY: Final = 0.1
"""Share of people whom nobody meets on a day."""


class Contact(NamedTuple):
    """Two people, by their numbers from 0, near each other for a moment, in seconds from the first midnight."""

    at_s: int
    a: int
    b: int


class Letter(NamedTuple):
    """Somebody writes to somebody, in seconds from the first midnight; at ``ends_s`` its life is over."""

    at_s: int
    writer: int
    receiver: int
    ends_s: int


def town_contacts(people: int, seed: int, days: int = 5) -> list[Contact]:
    """Contacts of a town with households, schools or offices, buses and shops, in order of time."""
    rnd = Random(f"town/{people}/{seed}")
    everyone = list(range(people))
    rnd.shuffle(everyone)
    homes = list(_homes(everyone, rnd))
    workplaces, buses, shops = (max(1, people // size) for size in (_WORKPLACE_PEOPLE, _BUS_PEOPLE, _SHOP_PEOPLE))
    works_at = {one: rnd.randrange(workplaces) for one in everyone if rnd.random() < 0.8}
    rides = {one: rnd.randrange(buses) for one in everyone if rnd.random() < 0.4}
    buys_at = {one: rnd.randrange(shops) for one in everyone}
    sociable = {one: min(3.0, rnd.paretovariate(1.5)) for one in everyone}
    found: list[Contact] = []
    for midnight in range(0, days * DAY_S, DAY_S):
        here = [one for one in everyone if rnd.random() >= _AWAY]
        for home in homes:
            family = [one for one in home if one in here]
            found += _together(family, midnight, (6.0, 8.0), 2.0, rnd)
            found += _together(family, midnight, (18.0, 23.0), 1.0, rnd)
        for staff in _groups(here, works_at, 0.9, rnd):
            weights = [sociable[one] for one in staff]
            for _ in range(8 * len(staff)):
                a, b = rnd.choices(staff, weights, k=2)
                found += _pair(a, b, midnight, (8.5, 16.5), rnd)
        for leaves in (7.5, 17.0):
            for passengers in _groups(here, rides, 0.8, rnd):
                halves = passengers[::2], passengers[1::2]
                for half in halves:
                    found += _together(half, midnight, (leaves, leaves + 0.5), 0.5, rnd)
        for customers in _groups(here, buys_at, 0.5, rnd):
            hours = {one: rnd.randrange(9, 20) for one in customers}
            for hour in range(9, 20):
                queue = [one for one in customers if hours[one] == hour]
                found += _together(queue, midnight, (hour, hour + 1.0), 0.5, rnd)
        weights = [sociable[one] for one in here]
        for _ in range(people // 2):
            a, b = rnd.choices(here, weights)[0], rnd.choice(here)
            found += _pair(a, b, midnight, (9.0, 21.0), rnd)
    return sorted(found)


def letters_between(people: int, seed: int, until_s: int, count: int = 1000) -> list[Letter]:
    """Letters between any two, in order of time, whose lives end at a full hour and before ``until_s``.

    Where a life is longer than that, all are written at the first moment.
    """
    rnd = Random(f"letters/{people}/{seed}")
    letters = []
    for _ in range(count):
        at_s = rnd.randrange(max(1, until_s - LIFE_S))
        writer, receiver = rnd.sample(range(people), 2)
        letters.append(Letter(at_s, writer, receiver, (at_s + LIFE_S) // HOUR_S * HOUR_S))
    return sorted(letters)


def contact_lines(data: bytes) -> list[str]:
    """The lines of a file with a list of contacts, plain or as gzip; raises ValueError when that is damaged.

    People's names may be in any encoding.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            raise ValueError("this gzip is damaged or cut short") from None
    return data.decode("utf-8-sig", "surrogateescape").splitlines()


def read_contacts(lines: Iterable[str]) -> tuple[list[Contact], int]:
    """Contacts out of lines ``t i j`` in any order, what follows in a line passed over, and how many people they name.

    Lines ``t CONN i j up`` of the ONE simulator are read as well, and its ``down`` passed over. Times are seconds and
    count from the earliest one on, people are numbered anew. Raises ValueError with the line's number.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[1] == "CONN":
                if words[4].lower() == "down":
                    continue
                del words[1]
            at_s, a, b = float(words[0]), words[1], words[2]
            if not abs(at_s) < TIME_MAX_S:  # nor what is no number at all, ``nan``
                raise ValueError
        except (ValueError, IndexError):
            raise ValueError(f"line {number} is not of the form: t i j, with t in seconds") from None
        if a != b:
            rows.append((at_s, a, b))
    rows.sort()
    names: dict[str, int] = {}
    contacts = []
    for at_s, first, second in rows:
        one, other = (names.setdefault(name, len(names)) for name in (first, second))
        contacts.append(Contact(int(at_s - rows[0][0]), min(one, other), max(one, other)))
    return contacts, len(names)


def _homes(people: Sequence[int], rnd: Random) -> Iterator[Sequence[int]]:
    at = 0
    while at < len(people):
        size = rnd.choice(_HOME_SIZES)
        yield people[at : at + size]
        at += size


def _groups(here: Collection[int], group_of: dict[int, int], share: float, rnd: Random) -> list[list[int]]:
    """Who of each group comes today: about ``share`` of them."""
    groups: dict[int, list[int]] = {}
    for one in here:
        if one in group_of and rnd.random() < share:
            groups.setdefault(group_of[one], []).append(one)
    return list(groups.values())


def _together(
    group: Sequence[int], midnight: int, hours: tuple[float, float], rate_per_h: float, rnd: Random
) -> Iterator[Contact]:
    """Each two of a group come near each other at chance, so often an hour."""
    for number, a in enumerate(group):
        for b in group[number + 1 :]:
            at_h = hours[0] + rnd.expovariate(rate_per_h)
            while at_h < hours[1]:
                yield Contact(midnight + int(at_h * HOUR_S), min(a, b), max(a, b))
                at_h += rnd.expovariate(rate_per_h)


def _pair(a: int, b: int, midnight: int, hours: tuple[float, float], rnd: Random) -> Iterator[Contact]:
    at_s = midnight + int(rnd.uniform(*hours) * HOUR_S)
    if a != b:
        yield Contact(at_s, min(a, b), max(a, b))
