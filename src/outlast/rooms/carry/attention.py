"""What waits to be read, without what is muted or by somebody who is blocked; and places by what people call them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Node, Person
from outlast.rooms.carry import groups, places, service, view


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much waits: letters and texts of groups, invitations to groups, posts in channels."""

    letters: int
    invitations: int
    posts: int

    @property
    def talk(self) -> int:
        """What is to be seen among the conversations."""
        return self.letters + self.invitations


@dataclass(frozen=True, slots=True)
class Where:
    """A person, group or channel, by its key (32 B), and the page where one talks there."""

    place: bytes
    name: str
    page: str


_known: WeakKeyDictionary[Person, tuple[int, Waiting]] = WeakKeyDictionary()


def waiting(node: Node, person: Person) -> Waiting:
    """What waits for the person; counted once for each change."""
    revision = node.revision
    seen = _known.get(person)
    if seen is None or seen[0] != revision:
        seen = _known[person] = (revision, _count(node, person))
    return seen[1]


def _count(node: Node, person: Person) -> Waiting:
    quiet = places.muted(person)
    unheard = quiet | {contact.identity for contact in person.contacts() if contact.blocked}
    letters = sum(count for peer, count in view.unread(person, node.now_ms()).items() if peer not in unheard)
    texts = sum(group.unread for group in groups.groups(person) if group.space not in quiet)
    posts = sum(channel.unread for channel in service.channels(node, person) if channel.space not in quiet)
    return Waiting(letters + texts, len(groups.invitations(person)), posts)


def is_quiet(person: Person) -> bool:
    """Whether the person wants open pages to tell of nothing; counts stay."""
    return places.find(person, person.identity).muted


async def set_quiet(node: Node, person: Person, quiet: bool) -> None:
    """Let open pages tell of nothing, or do so again."""
    await places.mute(node, person, person.identity, quiet)


def where(node: Node, person: Person, place: bytes) -> Where:
    """The contact, followed channel or joined group of that key; raises NotFoundError."""
    with contextlib.suppress(NotFoundError):
        contact = person.contact(place)
        return Where(place, contact.name, f"/carry/with/{contact.id}")
    for channel in service.channels(node, person):
        if channel.space == place:
            return Where(place, channel.name, f"/carry/channels/{channel.id}")
    group = groups.get(person, place)
    return Where(place, group.name, f"/carry/groups/{group.id}")


def find(node: Node, person: Person, text: str) -> Where:
    """The place that a link, an ID, a name, or the beginning of an ID means; raises NotFoundError or UsageError."""
    found: list[bytes] = []
    with contextlib.suppress(NotFoundError):
        found.append(person.find(text).identity)
    with contextlib.suppress(NotFoundError):
        found.append(service.find_channel(node, person, text).space)
    with contextlib.suppress(NotFoundError):
        found.append(groups.find(person, text).space)
    if not found:
        raise NotFoundError("no person, group or channel here is called %(text)r", text=text[:80])
    if len(found) > 1:
        raise UsageError("%(n)s places match %(text)r: use the whole ID", n=len(found), text=text[:80])
    return where(node, person, found[0])
