"""How letters spread through people who meet: by the real machines of a town, or by a model of what those do.

Both count a transmission for each copy of a letter that goes from one to another, and both let a letter's life end at
its exact hour. Who holds a letter does not know for whom it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from outlast.testing.contacts import Contact, Letter
from outlast.testing.shelf import MemoryShelf
from outlast.testing.town import Town


class Outcome(NamedTuple):
    """What became of letters: how many of them, how many were at their receiver in time, and how many copies went."""

    letters: int
    delivered: int
    transmissions: int


def spread(contacts: Sequence[Contact], letters: Sequence[Letter]) -> Outcome:
    """What two who meet do by their sessions: each gets what it lacks, once, and of all that is alive.

    ``letters`` are sorted. One integer for each person, with one bit for each letter, so that a town of 500 takes less
    than a second.
    """
    held: dict[int, int] = {}
    addressed: dict[int, int] = {}
    for number, letter in enumerate(letters):
        addressed[letter.receiver] = addressed.get(letter.receiver, 0) | 1 << number
    alive = transmissions = delivered = 0
    for contact, begun, ended in _with_lives(contacts, letters):
        for number in begun:
            writer = letters[number].writer
            held[writer] = held.get(writer, 0) | 1 << number
            alive |= 1 << number
        for number in ended:
            alive &= ~(1 << number)
        of_a, of_b = held.get(contact.a, 0) & alive, held.get(contact.b, 0) & alive
        held[contact.a] = held[contact.b] = of_a | of_b
        transmissions += (of_a ^ of_b).bit_count()
        for one, new in ((contact.a, of_b & ~of_a), (contact.b, of_a & ~of_b)):
            delivered += (new & addressed.get(one, 0)).bit_count()
    return Outcome(len(letters), delivered, transmissions)


def spread_in_town(contacts: Sequence[Contact], letters: Sequence[Letter], people: int, seed: int = 0) -> Outcome:
    """The same by real sessions over memory links: every contact is a link, a session, and its end."""
    shelves: list[MemoryShelf] = []

    def shelf(_name: str) -> MemoryShelf:
        shelves.append(MemoryShelf())
        return shelves[-1]

    town = Town(people, seed, shelf)
    space = town.places[0].found("letters")
    town.follow(space)
    for place in town.places[1:]:
        place.ingest(town.places[0].shelf.load([space]), None)
    ids: dict[int, bytes] = {}
    waited_for: list[set[int]] = [set() for _ in range(people)]
    start_ms, delivered = town.clock(), 0
    for contact, begun, ended in _with_lives(contacts, letters):
        town.clock.now_ms = max(town.clock.now_ms, start_ms + contact.at_s * 1000)
        for number in begun:
            letter = letters[number]
            ids[number] = town.places[letter.writer].post(space, str(number)).id
            waited_for[letter.receiver].add(number)
        for number in ended:
            waited_for[letters[number].receiver].discard(number)
            for held in shelves:
                held.entries.pop(ids[number], None)
        town.meet(contact.a, contact.b)
        for one in (contact.a, contact.b):
            arrived = {number for number in waited_for[one] if ids[number] in shelves[one].entries}
            waited_for[one] -= arrived
            delivered += len(arrived)
    return Outcome(len(letters), delivered, sum(place.received for place in town.places))


def _with_lives(
    contacts: Sequence[Contact], letters: Sequence[Letter]
) -> Iterator[tuple[Contact, list[int], list[int]]]:
    """Each contact, with the numbers of the letters that were begun since the one before, and of those that ended."""
    by_end = sorted(range(len(letters)), key=lambda number: letters[number].ends_s)
    begun = ended = 0
    for contact in contacts:
        first, last = begun, ended
        while begun < len(letters) and letters[begun].at_s <= contact.at_s:
            begun += 1
        while ended < begun and letters[by_end[ended]].ends_s <= contact.at_s:
            ended += 1
        yield contact, list(range(first, begun)), by_end[last:ended]
