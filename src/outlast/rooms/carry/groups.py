"""What people do with groups: found them, ask others in, speak and read there, take texts away, leave.

A group is a sealed space of the kernel. What is said there is opened as it arrives and kept in the person's vault, for
search and for when the store has let go of it; the node's store never has a text or a name of it in clear.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import (
    DAY_MS,
    Contact,
    Delete,
    Membership,
    Node,
    Packing,
    Person,
    Put,
    RowChange,
    RowChanges,
    Said,
    Transaction,
    Update,
    check_name,
    id_text,
    space_text,
    spelled,
    told_apart,
)
from outlast.kernel import Group as Space
from outlast.rooms.carry import file_view, group_view, places
from outlast.rooms.carry.entries import (
    FILE,
    HEARD,
    HEARD_MAX,
    HIDE,
    OUTLIVING_MS,
    POST,
    POST_LIFE_MS,
    File,
    Heard,
    Hide,
    Post,
    group_text,
)
from outlast.rooms.carry.group_view import Line
from outlast.rooms.carry.private import ROOM_NAME, is_here, pause, remember

SEALED: Final = "sealed"
JOINED: Final = "joined"
INVITED: Final = "invited"
ADMIN: Final = "admin"
MEMBER: Final = "member"
PREFIX_MIN_CHARS: Final = 4
ACKNOWLEDGED_MAX: Final = 50
"""Members up to which writers are told who has their texts; in larger groups that would cost more than the texts."""
ACKNOWLEDGED_MS: Final = 7 * DAY_MS
"""Of texts that are older nobody is told: where they have been is forgotten by then."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a group. ``name`` is what the person calls them, or else what they call themself."""

    identity: bytes  # 32 B
    name: str
    role: str  # "owner", "admin" or "member"
    contact: Contact | None
    has_joined: bool  # they have shown a device; else they were asked and have not answered yet

    @property
    def id(self) -> str:
        """Their ID as people copy it."""
        return id_text(self.identity)


@dataclass(frozen=True, slots=True)
class Group:
    """A group that the person has joined. ``role`` is empty when they were removed."""

    space: bytes  # 32 B
    name: str
    role: str
    members: int
    unread: int
    last: Line | None
    since_ms: int  # when the person founded it, or was asked into it

    @property
    def id(self) -> str:
        """The group's id as people copy it; it lets nobody in."""
        return space_text(self.space)

    @property
    def leads(self) -> bool:
        """Whether the person may add and remove others, and take any text away."""
        return self.role in ("owner", ADMIN)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A group that somebody has added the person to, and that waits for their answer."""

    space: bytes  # 32 B
    name: str
    sender: str  # what the person calls who asked

    @property
    def id(self) -> str:
        """The group's id as people copy it."""
        return space_text(self.space)


# ---- asking ----


def groups(person: Person) -> list[Group]:
    """The groups that the person has joined, the one with the latest text first."""
    found = [_group(person, one) for one in person.groups.held(JOINED) if one.type == SEALED]
    return sorted(found, key=lambda group: max(group.last.at_ms if group.last else 0, group.since_ms), reverse=True)


def invitations(person: Person) -> list[Invitation]:
    """The groups that wait for the person's answer, by name."""
    names = {contact.identity: contact.name for contact in person.contacts()}
    return [
        Invitation(one.space, one.name, names.get(one.sender or b"", ""))
        for one in person.invitations()
        if one.type == SEALED
    ]


def find(person: Person, text: str) -> Group:
    """The joined group meant by an ID, a name, or the beginning of an ID; raises NotFoundError or UsageError."""
    return _group(person, _meant(person, text, JOINED))


def find_invitation(person: Person, text: str) -> bytes:
    """The space (32 B) of the invitation meant by an ID, a name, or the beginning of an ID."""
    return _meant(person, text, INVITED).space


def find_any(person: Person, text: str) -> bytes:
    """The space (32 B) of the joined group or the invitation that is meant."""
    with contextlib.suppress(NotFoundError):
        return find(person, text).space
    return find_invitation(person, text)


def find_member(person: Person, space: bytes, text: str) -> Member:
    """The member meant by an ID, a name, or the beginning of an ID; raises NotFoundError or UsageError."""
    text, everybody = text.strip().lower(), members(person, space)
    found = [one for one in everybody if one.id == text]
    found = found or [one for one in everybody if one.name.casefold() == text.casefold()]
    if not found and len(text) >= PREFIX_MIN_CHARS:
        found = [one for one in everybody if one.id.startswith(text)]
    if not found:
        raise NotFoundError("this is no member of the group")
    if len(found) > 1:
        raise UsageError("%(n)s members match %(text)r: use the whole ID", n=len(found), text=text[:80])
    return found[0]


def get(person: Person, space: bytes) -> Group:
    """The joined group of that id; raises NotFoundError."""
    return _group(person, person.groups.find(space, JOINED))


def members(person: Person, space: bytes) -> list[Member]:
    """Who belongs to a joined group: those who lead it first, then by name."""
    here = scene(person, space)
    contacts = {contact.identity: contact for contact in person.contacts()}
    shown = {person.identity, *here.membership.devices.values()}
    found = [
        Member(identity, here.name(identity), role, contacts.get(identity), identity in shown)
        for identity, role in here.membership.roles.items()
    ]
    order = ("owner", ADMIN, MEMBER)
    return sorted(found, key=lambda one: (order.index(one.role), not one.has_joined, one.name.casefold()))


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known of those who speak in a group."""

    person: Person
    membership: Membership
    names: Mapping[bytes, str]
    """By identity: contacts by the person's own names for them, others by what they call themselves."""

    def author(self, line: Line) -> bytes | None:
        """The identity (32 B) that wrote a line, or of whom it tells; None while nobody has shown the device."""
        return line.author if line.device is None else self.membership.devices.get(line.device)

    def name(self, identity: bytes) -> str:
        """What to call somebody."""
        return self.names.get(identity) or id_text(identity)[:8]

    def received(self, line: Line) -> tuple[int, int]:
        """How many of the other members are known to have a text, and how many others there are."""
        others = self.membership.roles.keys() - {self.person.identity}
        return len(others & group_view.hearing(self.person, line.id or b"").keys()), len(others)


def scene(person: Person, space: bytes) -> Scene:
    """Who speaks in a joined group; raises NotFoundError."""
    membership = person.groups.membership(space)
    known = {contact.identity: contact.name for contact in person.contacts()} | {person.identity: person.name}
    claimed = {identity: name for identity, name in person.groups.names(space).items() if identity not in known}
    # Anybody can take any name: no stranger goes by that of somebody else.
    spellings = Counter(map(spelled, (*known.values(), *claimed.values())))
    taken = {spelling for spelling, count in spellings.items() if count > 1}
    return Scene(person, membership, known | {one: told_apart(name, one, taken) for one, name in claimed.items()})


def read(person: Person, space: bytes, before: bytes | None = None, limit: int = -1) -> list[Line]:
    """The newest lines of a joined group, oldest first; only those before the text ``before`` (32 B)."""
    earlier = group_view.find(person, before) if before is not None else None
    membership, blocked = person.groups.membership(space), _blocked(person)
    found: list[Line] = []
    at = earlier.n if earlier else None
    while True:
        # What does not count is passed over, so a page may take more than one look.
        wanted = limit - len(found)
        part = group_view.lines(person, space, before=at, limit=wanted)
        found = [line for line in part if _is_shown(line, membership, blocked, person.node.now_ms())] + found
        if limit < 0 or len(part) < wanted or len(found) >= limit:
            return found
        at = part[0].n


def find_line(person: Person, id: bytes) -> Line | None:
    """The text of that id (32 B), if it has not disappeared."""
    line = group_view.find(person, id)
    return None if line is None or line.is_over(person.node.now_ms()) else line


def find_shown(person: Person, space: bytes, id: bytes) -> Line | None:
    """The text of that id (32 B) in a joined group, if it is shown there."""
    line = group_view.find(person, id)
    if line is None or line.space != space:
        return None
    membership = person.groups.membership(space)
    return line if _is_shown(line, membership, _blocked(person), person.node.now_ms()) else None


def search(person: Person, text: str) -> list[Line]:
    """The texts of joined groups with all words of ``text`` in them, the newest first; raises UsageError for none."""
    words = text.split()
    if not words:
        raise UsageError("say what to look for")
    return group_view.search(person, words, showing(person))


def showing(person: Person) -> Callable[[Line], bool]:
    """Tells of a line whether it is shown now: in a joined group, by somebody who may speak and is not blocked."""
    joined = {one.space for one in person.groups.held(JOINED)}
    memberships: dict[bytes, Membership] = {}
    blocked, now = _blocked(person), person.node.now_ms()

    def is_shown(line: Line) -> bool:
        if line.space in joined and line.space not in memberships:
            memberships[line.space] = person.groups.membership(line.space)
        return line.space in memberships and _is_shown(line, memberships[line.space], blocked, now)

    return is_shown


# ---- doing ----


async def create(node: Node, person: Person, name: str, identities: Iterable[bytes] = ()) -> Group:
    """Found a group and ask these contacts (identities) in; raises UsageError, NotFoundError when nothing was made."""
    name = check_name(name)
    asked = [person.contact(identity) for identity in dict.fromkeys(identities)]
    if any(contact.blocked for contact in asked):
        raise UsageError("somebody whom you have blocked cannot be asked into a group: unblock them first")
    space = await node.new_space(person, name, SEALED)
    await _take_in(node, person, space)
    for contact in asked:
        await person.add_member(space, contact.identity)
    await _take_in(node, person, space)
    return get(person, space)


async def join(node: Node, person: Person, space: bytes) -> Group:
    """Join a group that the person was asked into; what still exists of it can then be read."""
    await person.join_space(space)
    await look(node, person, space)
    return get(person, space)


async def leave(node: Node, person: Person, space: bytes) -> None:
    """Leave a group, or decline an invitation; what is here of it goes."""
    await person.leave_space(space)
    await _forget(node, person, space)


async def add(node: Node, person: Person, space: bytes, identity: bytes, role: str = MEMBER) -> None:
    """Ask a contact into a group, let a member lead it, or tell somebody everything once more."""
    await person.add_member(space, identity, role)
    await _take_in(node, person, space)


async def remove(node: Node, person: Person, space: bytes, identity: bytes) -> None:
    """Remove a member: what is said from now on is for the others alone; what they have stays theirs."""
    await person.remove_member(space, identity)
    await _take_in(node, person, space)


async def demote(node: Node, person: Person, space: bytes, identity: bytes) -> None:
    """Make somebody who leads a group a plain member: they are removed, and asked in again."""
    person.contact(identity)
    await person.remove_member(space, identity)
    await person.add_member(space, identity)
    await _take_in(node, person, space)


async def rename(node: Node, person: Person, space: bytes, name: str) -> None:
    """Call a group by another name, in this vault alone."""
    person.groups.find(space, JOINED)
    await remember(node, person, [Put(group_view.CALLED, {"space": space, "name": check_name(name)})])


async def post(
    node: Node,
    person: Person,
    space: bytes,
    text: str,
    reply_to: bytes | None = None,
    life_ms: int | None = None,
) -> bytes:
    """Say something in a group; returns the text's id (32 B) once it is durable here. ``life_ms`` as for letters.

    Raises UsageError (empty, too long, not a member any more), NotFoundError (no such group, nothing there to answer).
    """
    text = group_text(text)
    person.groups.find(space, JOINED)
    life_ms = places.life_for(person, space, life_ms)
    if reply_to is not None and find_shown(person, space, reply_to) is None:
        raise NotFoundError("the message that this answers is not in this group")
    local = [places.sent(space)]
    entry = await node.append(
        person, space, POST.name, Post(text, reply_to, life_ms), life_ms=POST_LIFE_MS, local=local
    )
    await _take_in(node, person, space, person.groups.open(space, [entry.id]))
    return entry.id


async def put_file(
    node: Node, person: Person, space: bytes, packing: Packing, file: File, also: RowChanges = ()
) -> bytes:
    """Put a file that was packed into a group; returns the id (32 B) by which it is known. Raises as ``post``.

    ``also`` is written into the vault together with the entry.
    """
    if not get(person, space).role:
        raise UsageError("you are no member of this group any more")
    await person.keep_parcels(space, packing)
    entry = await node.append(person, space, FILE.name, file, life_ms=POST_LIFE_MS, local=also)
    await _take_in(node, person, space, person.groups.open(space, [entry.id]))
    return entry.id


async def hide(node: Node, person: Person, id: bytes) -> None:
    """Take a text away wherever this arrives: one's own, or any text where one leads; raises NotFoundError, UsageError.

    What others have read or copied cannot be forced away.
    """
    line = find_line(person, id)
    if line is None or line.hidden_ms is not None:
        raise NotFoundError("there is no such message in your groups")
    if scene(person, line.space).author(line) != person.identity and not get(person, line.space).leads:
        raise UsageError("only who wrote it, or who leads the group, can take a message away")
    entry = await node.append(person, line.space, HIDE.name, Hide(id), life_ms=OUTLIVING_MS)
    await _take_in(node, person, line.space, person.groups.open(line.space, [entry.id]))


async def mark_read(node: Node, person: Person, space: bytes, upto_n: int | None = None) -> int:
    """Remember that a group's texts were read, up to number ``upto_n``; how many were unread. Nobody is told."""
    now, marked = node.now_ms(), 0
    while found := [line for line in group_view.unread(person, space) if upto_n is None or line.n <= upto_n]:
        marked += len(found)
        await remember(node, person, [Update(group_view.SAID, {"n": line.n}, {"read_ms": now}) for line in found])
    return marked


# ---- by itself ----


@dataclass(slots=True)
class _Place:
    """Up to where a group was looked through, and what could not be opened yet."""

    upto: int = 0
    secrets: int = 0
    bare: set[bytes] = field(default_factory=set)
    sealed: set[bytes] = field(default_factory=set)


async def run(node: Node) -> None:
    """Take into each open vault what arrives in its groups, and forget those that were left."""
    places: dict[str, dict[bytes, _Place]] = {}
    while True:
        revision, began = node.revision, node.loop.time()
        for person in list(node.people.values()):
            # The disk is full, the person is locked or has left meanwhile: with the next news it is looked again.
            with contextlib.suppress(OutlastError):
                await _look_at_all(node, person, places.setdefault(person.key, {}))
        for key in places.keys() - node.people.keys():
            del places[key]
        await pause(node, began)
        await node.wait(revision)


async def catch_up(node: Node, person: Person) -> None:
    """Take in at once what a running node takes in by itself: for commands on a node that was stopped until now."""
    await person.groups.tend()
    await _look_at_all(node, person, {})


async def _look_at_all(node: Node, person: Person, places: dict[bytes, _Place]) -> None:
    joined = {one.space for one in person.groups.held(JOINED) if one.type == SEALED}
    for space in (*(group_view.spaces(person) - joined), *(places.keys() - joined)):
        places.pop(space, None)
        await _forget(node, person, space)
    for space in joined:
        if not is_here(node, person):
            return
        await look(node, person, space, places.setdefault(space, _Place()))


async def look(node: Node, person: Person, space: bytes, place: _Place | None = None) -> None:
    """Take in what has arrived in a joined group; ``place`` is where the last look ended, without it all is seen."""
    place = place or _Place()
    store = node.open_store
    came = store.arrived(space, place.upto)
    secrets = person.groups.secrets(space)
    fresh = {id for _, id in came}
    if not place.upto:
        fresh -= group_view.known(person, space)
    tried = fresh | (place.bare - store.incomplete(list(place.bare)))
    if secrets != place.secrets:
        tried |= place.sealed
    said = person.groups.open(space, tried)
    await _take_in(node, person, space, said)
    opened = {one.id for one in said}
    place.bare = store.incomplete([*place.bare, *fresh])
    place.sealed = (place.sealed | tried) - opened - place.bare
    place.upto, place.secrets = came[-1][0] if came else place.upto, secrets


async def _take_in(node: Node, person: Person, space: bytes, said: Sequence[Said] = ()) -> None:
    """Keep these texts, take away what is to go, and note who has joined and left."""
    now, me = node.now_ms(), person.identity
    membership = person.groups.membership(space)
    texts = {one.id: row for one in said if one.kind == POST.name and (row := group_view.text_row(one, space, me, now))}
    named = [one for one in said if one.kind == FILE.name]
    files = {one.id: rows for one in named if (rows := group_view.file_rows(one, space, me, now))}
    texts |= {id: row for id, (row, _) in files.items()}
    removals = [row for one in said if one.kind == HIDE.name and (row := group_view.removal_row(one, space))]
    fresh = [one for one in said if one.id in texts and group_view.find(person, one.id) is None]
    # Told first: a kill between the two repeats it, in the other order it would be lost.
    recent = [one for one in fresh if now - one.at_ms < ACKNOWLEDGED_MS and one.id not in files]
    await _acknowledge(person, membership, [(one.author, one.id) for one in recent if one.counts])

    def write(tx: Transaction) -> tuple[bool, bool]:
        still = [one.id for one in fresh if not group_view.find(tx, one.id)]
        changes: list[RowChange] = [*removals, *(texts[id] for id in still)]
        changes += [files[id][1] for id in still if id in files]
        tx.apply(changes, ROOM_NAME)
        hidden: list[RowChange] = []
        for line, id, device, seq in group_view.due(tx, space):
            if _may_remove(membership, line, id, device, seq):
                hidden.append(Update(group_view.SAID, {"n": line.n}, {"text": "", "hidden_ms": now}))
                hidden += [file_view.end(file.letter) for file in file_view.named(tx, [line.id or b""])]
        events = _events(tx, space, membership, now)
        tx.apply([*hidden, *events], ROOM_NAME)
        return bool(changes or hidden or events), bool(hidden)

    if fresh or removals or _is_news(person, space, membership):
        has_changed, has_hidden = await node.write(lambda: person.vault.write(write))
        if has_hidden:
            await node.write(person.vault.forget_deleted)
        if has_changed:
            node.touch()


async def acknowledge_file(person: Person, space: bytes, id: bytes) -> None:
    """Tell who put a file into a group that all of it has arrived."""
    line = group_view.find(person, id)
    if line is not None:
        here = scene(person, space)
        await _acknowledge(person, here.membership, [(here.author(line), id)])


async def _acknowledge(person: Person, membership: Membership, texts: Iterable[tuple[bytes | None, bytes]]) -> None:
    """Tell the writers of these texts, by identity, that they have arrived, as far as they can be written to."""
    if len(membership.roles) > ACKNOWLEDGED_MAX:
        return
    by_author: dict[bytes, list[bytes]] = {}
    for author, id in texts:
        if author is not None and author != person.identity:
            by_author.setdefault(author, []).append(id)
    for identity, ids in by_author.items():
        with contextlib.suppress(NotFoundError, UsageError):  # not among the contacts, or blocked
            for start in range(0, len(ids), HEARD_MAX):
                part = tuple(ids[start : start + HEARD_MAX])
                await person.send(identity, HEARD.name, Heard(part), is_told=False)


def _may_remove(membership: Membership, line: Line, id: bytes, device: bytes, seq: int) -> bool:
    who = membership.devices.get(device)
    if who is None or not membership.speaks(device, seq, id):
        return False
    return membership.leads(who) or who == membership.devices.get(line.device or b"")


def _seen(membership: Membership) -> dict[bytes, str]:
    """The members with their roles; of those who have not joined yet "invited"."""
    shown = set(membership.devices.values())
    return {one: role if one in shown else INVITED for one, role in membership.roles.items()}


def _is_news(person: Person, space: bytes, membership: Membership) -> bool:
    return group_view.members(person, space) != _seen(membership) or bool(group_view.due(person, space))


def _events(tx: Transaction, space: bytes, membership: Membership, now_ms: int) -> list[RowChange]:
    """The rows that tell what became of members since the last look, and who they are now."""
    before, after = group_view.members(tx, space), _seen(membership)
    clock = group_view.newest_clock(tx, space)
    changes: list[RowChange] = []
    for identity in sorted(before.keys() | after.keys()):
        old, new = before.get(identity), after.get(identity)
        if new == old:
            continue
        if new is None:
            changes.append(Delete(group_view.MEMBER, {"space": space, "identity": identity}))
        else:
            changes.append(Put(group_view.MEMBER, {"space": space, "identity": identity, "role": new}))
        if before and (event := _event(old, new)):
            changes.append(group_view.event_row(space, event, identity, clock, now_ms))
    return changes


def _event(old: str | None, new: str | None) -> str:
    if new is None:
        return "left"
    if new == INVITED:
        return "asked"
    if old in (None, INVITED):
        return "joined"
    return "leads" if new != MEMBER else "follows"


async def _forget(node: Node, person: Person, space: bytes) -> None:
    tables = (group_view.SAID, group_view.REMOVAL, group_view.MEMBER, group_view.CALLED)

    def forget(tx: Transaction) -> None:
        rows: list[RowChange] = [Delete(table, {"space": space}) for table in tables]
        rows += [Delete(group_view.HEARING, {"said": text}) for text in group_view.heard(tx, space)]
        rows += [file_view.end(file.letter) for file in file_view.of(tx, space)]
        tx.apply([*rows, places.forget(space)], ROOM_NAME)

    await node.write(lambda: person.vault.write(forget))
    await node.write(person.vault.forget_deleted)
    node.touch()


# ---- rows as they are shown ----


def _group(person: Person, one: Space) -> Group:
    membership, blocked = person.groups.membership(one.space), _blocked(person)
    # Others can leave any number of texts that are not shown.
    heard = [device for device, who in membership.devices.items() if who in membership.roles.keys() - blocked]
    unread = group_view.unread(person, one.space, heard)
    latest = read(person, one.space, limit=1)
    return Group(
        space=one.space,
        name=group_view.called(person, one.space) or one.name,
        role=membership.roles.get(person.identity, ""),
        members=len(membership.roles),
        unread=sum(_is_shown(line, membership, blocked, person.node.now_ms()) for line in unread),
        last=latest[0] if latest else None,
        since_ms=one.at_ms,
    )


def _meant(person: Person, text: str, state: str) -> Space:
    text = text.strip()
    held = [one for one in person.groups.held(state) if one.type == SEALED]
    found = [one for one in held if space_text(one.space) == text.lower()]
    found = found or [
        one
        for one in held
        if text.casefold() in {one.name.casefold(), (group_view.called(person, one.space) or "").casefold()}
    ]
    if not found and len(text) >= PREFIX_MIN_CHARS:
        found = [one for one in held if space_text(one.space).startswith(text.lower())]
    if not found:
        raise NotFoundError("there is no group %(text)r here: see `outlast carry group list`", text=text[:80])
    if len(found) > 1:
        raise UsageError("%(n)s groups match %(text)r: use the whole ID", n=len(found), text=text[:80])
    return found[0]


def _blocked(person: Person) -> set[bytes]:
    return {contact.identity for contact in person.contacts() if contact.blocked}


def _is_shown(line: Line, membership: Membership, blocked: set[bytes], now_ms: int) -> bool:
    """Whether a line is there still, by somebody who may speak and is not blocked; what tells of members always is."""
    if line.hidden_ms is not None or line.is_over(now_ms):
        return False
    if line.device is None or line.id is None:
        return True
    return membership.speaks(line.device, line.seq, line.id) and membership.devices.get(line.device) not in blocked
