"""Groups: the closed spaces of a person: founding, joining, speaking in them, and seeing to it that all members can.

What the members are follows from the acts in the node's store (``membership``), read with the secrets in this vault and
kept in memory while the vault is open. What a member says goes into the store, to neighbours that prove to be members'
nodes, and by mail to the members among this person's contacts (``circular``), so that groups work across towns that
meet only by sticks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outlast.errors import NotFoundError, ProtocolError, StorageError, UsageError
from outlast.kernel import circular
from outlast.kernel import devices as own_devices
from outlast.kernel.admit import Held
from outlast.kernel.circular import CIRCULAR, INVITED, JOINED, LEFT
from outlast.kernel.entry import CLOCK_MAX, PAYLOAD_MAX_BYTES, Entry, pack, unpack
from outlast.kernel.epoch import EPOCHS_MAX, Inner, access_key, commitment, epoch_key, open_entry, seal_entry
from outlast.kernel.identity import check_name, identity_key, read_certificate
from outlast.kernel.kinds import Kind
from outlast.kernel.log import next_entry
from outlast.kernel.mail import LETTER_ID_BYTES, LETTER_MAX_BYTES
from outlast.kernel.membership import (
    ACTS_MAX,
    ADD,
    ADMIN,
    HERE,
    LAST_MAX,
    MEMBER,
    MEMBER_ACT,
    OWNER,
    PARENTS_MAX,
    REMOVE,
    RENEW,
    Act,
    ActBody,
    Founding,
    Membership,
    read_act,
    resolve,
    revoking_act,
)
from outlast.kernel.outbox import RETRY_S, Outgoing
from outlast.kernel.revocation import REVOKE, Revoke, revocation_of, revoke
from outlast.kernel.room import Delete, Put, RowChange, RowChanges
from outlast.kernel.space import GENESIS, SEALED, SpaceBody, make_closed_genesis, open_genesis

if TYPE_CHECKING:
    from outlast.kernel.person import Person

MAILED_MAX: Final = 50
"""Members up to which entries go to each of them by mail; larger groups have them by sync alone."""
READ_SLICE: Final = 1000
"""Entries that never expire of which it is looked at a time whether they are acts."""
SPARE_MAX: Final = 4 * ACTS_MAX
"""Acts that count for nothing yet and are kept in mind; those beyond are read again when they may come to count."""
WELCOMING: Final = 50
"""The newest entries that somebody who is new is brought."""
DRAIN: Final = 500
"""Entries that came by mail and are let in at a time."""


@dataclass(frozen=True, slots=True)
class Group:
    """A closed space as this person's vault knows it."""

    space: bytes  # 32 B
    state: str  # "invited", "joined" or "left"
    type: str  # "members" or "sealed"
    name: str
    owner: bytes  # 32 B, identity
    sender: bytes | None  # 32 B, the identity that invited this person
    at_ms: int  # when it was founded here, or the invitation came


@dataclass(frozen=True, slots=True)
class Said:
    """An entry of a closed space, opened. ``counts``: by a member, or from before its author's removal."""

    id: bytes  # 32 B
    kind: str
    body: bytes
    device: bytes  # 32 B
    author: bytes | None  # 32 B, identity; None while the device was not shown by a member
    seq: int
    clock: int  # at most CLOCK_MAX
    at_ms: int  # its author's claim
    counts: bool


class _Reading:
    """What was read of one space so far."""

    def __init__(self) -> None:
        self.secrets: dict[bytes, bytes] = {}
        self.acts: dict[bytes, Act] = {}
        self.through = self.led = 0
        """Up to these numbers of the store all was read that never expires, and what leaders' devices signed."""
        self.leading: frozenset[bytes] = frozenset()
        self.bare: list[bytes] = []
        """Some of what was looked at before its payload came."""
        self.passed: tuple[object, ...] | None = None
        """On what it rests that something was passed over: when that is another one, all is read again."""
        self.more = False
        """Whether something is left to be read."""
        self.key: tuple[object, ...] = ()
        self.membership: Membership | None = None

    def standing(self) -> tuple[object, ...]:
        """What decides whether an entry can be opened and may count."""
        assert self.membership is not None
        return len(self.secrets), self.membership.roles, self.membership.ended


class Groups:
    """A person's closed spaces."""

    def __init__(self, person: Person) -> None:
        """Nothing is read before it is asked for."""
        self._person = person
        self._node = person.node
        self._readings: dict[bytes, _Reading] = {}
        self._tended: dict[bytes, tuple[object, ...]] = {}
        """By space: on what rests that nothing is due there."""
        self._tending = asyncio.Lock()
        self.access: dict[bytes, bytes] = {}
        """By space: the key (32 B) by which its members' nodes name it now."""

    # ---- what is known ----

    def held(self, state: str | None = None) -> list[Group]:
        """The closed spaces that this person founded, joined, left or is invited to, by name."""
        return self._held("state = ifnull(?, state) ORDER BY lower(name), space", state)

    def find(self, space: bytes, *states: str) -> Group:
        """The closed space of that id in one of these states; raises NotFoundError."""
        for group in self._held("space = ?", space):
            if group.state in states:
                return group
        raise NotFoundError("you belong to no such group: somebody in it must add you first")

    def _held(self, which: str, arg: str | bytes | None) -> list[Group]:
        columns = "space, state, type, name, owner, sender, at_ms"
        return [
            Group(*row) for row in self._person.query(f"SELECT {columns} FROM {circular.HELD} WHERE {which}", (arg,))
        ]

    def membership(self, space: bytes) -> Membership:
        """Who belongs to a joined space by what is here; raises NotFoundError when it is not joined here.

        Of what was not read yet a slice is, and what stands in the vault: by that the present members are known.
        """
        group = self.find(space, JOINED)
        store = self._node.open_store
        reading = self._readings.setdefault(space, _Reading())
        mark = store.lasting_mark(space)
        kept = self._person.query(f"SELECT count(*) FROM {circular.ACT} WHERE space = ?", (space,))[0][0]
        rows = self._person.query(f"SELECT epoch, secret FROM {circular.SECRET} WHERE space = ?", (space,))
        bare = store.incomplete(reading.bare) if reading.bare else set()
        key = (mark, kept, len(rows), len(bare))
        if reading.membership is not None and reading.key == key and not reading.more:
            return reading.membership
        genesis = self._genesis(space)
        reading.secrets = {e: s for e, s in rows if e == space and commitment(s) == _commitment(genesis)}
        body = self._founding(space)
        owner = read_certificate(body.owner)
        commitments = {space: body.commitment}
        founding = Founding(space, owner.identity, owner.device, body.commitment)
        known, fresh = 0, True
        waiting: list[Entry] | None = None
        while fresh:
            # Each secret that proves to be right may open the acts that vouch for the next one.
            for act in reading.acts.values():
                if act.commitment:
                    commitments[act.id] = act.commitment
            reading.secrets.update({e: s for e, s in rows if commitments.get(e) == commitment(s)})
            if waiting is None:
                if reading.passed is not None and reading.passed != reading.standing():
                    reading.through, reading.led, reading.passed = 0, 0, None
                known, waiting = len(reading.acts), self._lasting(space, reading, owner.device, mark[1])
            opened = {
                entry.id: _act_of(entry, inner)
                for entry in waiting
                if (inner := _inner(group, entry, reading.secrets)) is not None
            }
            reading.acts.update({id: act for id, act in opened.items() if act is not None})
            waiting = [entry for entry in waiting if entry.id not in opened]
            fresh = bool(opened)
        if reading.membership is None or len(reading.acts) > known:
            reading.membership = resolve(founding, reading.acts.values())
        reading.bare = [entry.id for entry in waiting or () if entry.payload is None][:READ_SLICE]
        self._forget_spare(reading, passed=bool(waiting))
        bare = store.incomplete(reading.bare) if reading.bare else set()
        reading.key = (mark, kept, len(rows), len(bare))
        return reading.membership

    def _forget_spare(self, reading: _Reading, *, passed: bool) -> None:
        """Keep no more than so many acts that count for nothing: a flood of them is not to fill the memory."""
        assert reading.membership is not None
        spare = [id for id in reading.acts if id not in reading.membership.acts][:-SPARE_MAX]
        for id in spare:
            del reading.acts[id]
        if (spare or passed) and reading.passed is None:
            reading.passed = reading.standing()
        reading.more = reading.more or (reading.passed is not None and reading.passed != reading.standing())

    async def _read_all(self, space: bytes) -> Membership:
        """The membership by all that is here, read slice by slice: others have their turns meanwhile."""
        membership = self.membership(space)
        while self._readings[space].more:
            await asyncio.sleep(0)
            membership = self.membership(space)
        return membership

    def names(self, space: bytes) -> dict[bytes, str]:
        """What members of a joined space call themselves, by identity (32 B); those who have said nothing are missing.

        Anybody can take any name: what a person calls their contacts goes before it.
        """
        self.membership(space)
        reading, owner = self._readings[space], read_certificate(self._founding(space).owner)
        return {owner.identity: owner.name} | {act.author: act.name for act in reading.acts.values() if act.name}

    def secrets(self, space: bytes) -> int:
        """How many epochs' secrets are known here: with one more, more entries can be opened."""
        self.membership(space)
        return len(self._readings[space].secrets)

    def open(self, space: bytes, ids: Iterable[bytes]) -> list[Said]:
        """Those entries (32 B ids) of a joined space that can be opened here, in order; acts are not among them."""
        group, membership = self.find(space, JOINED), self.membership(space)
        secrets = self._readings[space].secrets
        found: list[Said] = []
        for entry in self._node.open_store.load(ids):
            inner = _inner(group, entry, secrets) if entry.header.space == space else None
            if inner is None or inner.kind in (GENESIS.name, MEMBER_ACT.name, REVOKE.name):
                continue
            h = entry.header
            author, counts = membership.devices.get(h.author), membership.speaks(h.author, h.seq, entry.id)
            clock = min(h.clock, CLOCK_MAX)
            found.append(Said(entry.id, inner.kind, inner.body, h.author, author, h.seq, clock, inner.ts_ms, counts))
        return sorted(found, key=lambda said: (said.clock, said.at_ms, said.id))

    # ---- what a person does ----

    async def found(self, name: str, type: str) -> bytes:
        """Found a closed space; returns its id (32 B)."""
        person, secret = self._person, os.urandom(32)
        now = self._node.now_ms()
        genesis = make_closed_genesis(
            person.signing_key, person.certificate, name, type, now, secret=secret, nonce=os.urandom(16)
        )
        space = genesis.id
        await self._node.follow(space, type)
        local = [
            circular.held_row(space, genesis, type, check_name(name), person.identity, JOINED, now),
            _secret_row(space, space, secret),
        ]
        await person.outbox.keep([genesis], local)
        self._name(space)
        return space

    async def join(self, space: bytes) -> None:
        """Follow a space that this person is invited to, and show this device to its members."""
        self.find(space, INVITED, JOINED)
        await self._set_state(space, JOINED)
        await self.tend()

    async def leave(self, space: bytes) -> None:
        """Say that this person leaves, stop holding the space, and forget its secrets."""
        group = self.find(space, INVITED, JOINED)
        if group.state == JOINED and self._person.identity in self.membership(space).roles:
            await self._act(space, REMOVE, subject=self._person.identity)
        changes: list[RowChange] = [
            Delete(table, {"space": space})
            for table in (circular.SECRET, circular.TOLD, circular.WAITING, circular.ACT)
        ]
        # That it was left is remembered, so that nothing of it is taken in; what it was is nobody's business any more.
        changes.append(Put(circular.HELD, {"space": space, "name": "", "owner": b"", "genesis": b"", "sender": None}))
        async with self._tending:
            await self._set_state(space, LEFT, changes)
            self._readings.pop(space, None)
            self._tended.pop(space, None)
            self._name(space)
            await self._let_go(space)

    async def add(self, space: bytes, identity: bytes, role: str = MEMBER) -> None:
        """Add a contact, or tell a member everything once more; ``role`` is "member" or "admin".

        Who is an admin already must be removed first to become a plain member. Raises UsageError, NotFoundError.
        """
        if role not in (MEMBER, ADMIN):
            raise UsageError("somebody is added as %(member)s or %(admin)s", member=MEMBER, admin=ADMIN)
        contact = self._person.contact(identity)
        if identity not in self._reachable():
            raise UsageError(
                "nothing can be sealed to %(name)s: add their link again, or unblock them", name=contact.name
            )
        self._lead(space)
        forgotten = Delete(circular.TOLD, {"space": space, "identity": identity})
        await self._act(space, ADD, subject=identity, role=role, local=[forgotten])
        await self.tend()

    async def remove(self, space: bytes, identity: bytes) -> None:
        """Remove a member; what is said from now on is for the others alone. Raises UsageError, NotFoundError."""
        membership = self._lead(space)
        if identity not in membership.roles:
            raise NotFoundError("this is no member of the group")
        if membership.roles[identity] == OWNER or identity == self._person.identity:
            raise UsageError("the founder of a group stays until they leave, and who leaves says so themself")
        await self._act(space, REMOVE, subject=identity, secret=os.urandom(32))
        await self.tend()

    async def append(self, space: bytes, kind: Kind, payload: bytes, life_ms: int, local: RowChanges) -> Entry:
        """Say something in a joined space (see ``Node.append``); raises UsageError for who is no member."""
        group, membership = self.find(space, JOINED), self.membership(space)
        if self._person.identity not in membership.roles:
            raise UsageError("you are no member of this group any more")
        if not self._knows_key(space, membership):
            raise UsageError("the group's new key has not come yet: wait for mail of its members")
        self._name(space)
        secrets = {epoch: self._readings[space].secrets[epoch] for epoch in membership.epochs}
        return await self._say(group, kind.name, payload, kind.priority, life_ms, secrets, membership, lambda _: local)

    # ---- by itself ----

    async def run(self) -> None:
        """Let in what came by mail, show this device, tell secrets to those who lack them, renew stale keys."""
        while True:
            revision = self._node.revision
            try:
                await self.tend()
            except StorageError:
                await asyncio.sleep(RETRY_S)
            except UsageError:
                pass  # the device began anew or was ended meanwhile: what is due comes up again with that news
            await self._node.wait(revision)

    async def tend(self) -> None:
        """Do for every joined space what is due, and let go of those that were left.

        The node has news many times a minute: where what a space rests on is as it was, nothing more is looked at.
        """
        async with self._tending:
            for group in self.held(LEFT):
                await self._let_go(group.space)
            arrived = {bytes(row[0]) for row in self._person.query(f"SELECT DISTINCT space FROM {circular.WAITING}")}
            joined, followed = self.held(JOINED), set(self._node.spaces())
            begun = self._node.open_store.known([group.space for group in joined])
            around = self._reachable(), self._ended(), self._person.device
            for group in joined:
                space = group.space
                if space not in followed:
                    await self._node.follow(space, group.type)
                if space in arrived or space not in begun:
                    await self._let_in(space)
                await self._read_all(space)
                due = self._readings[space].key, *around
                if self._tended.get(space) != due:
                    self._tended.pop(space, None)
                    if await self._tend(group):
                        self._tended[space] = due
                    self._name(space)

    async def _tend(self, group: Group) -> bool:
        """Do what is due in a joined space; whether that was all."""
        membership = before = self.membership(group.space)
        if self._person.identity in membership.roles:
            await self._hear_of_end(membership)
            if self._person.is_ended:
                return False
            membership = await self._show_device(group.space, membership)
            await self._end_devices(group, membership)
            membership = self.membership(group.space)
            if membership.stale and self._is_first_leader(membership):
                await self._act(group.space, RENEW, secret=os.urandom(32))
                membership = self.membership(group.space)
            await self._spread(group, membership)
        await self._keep_what_counts(group.space, membership)
        return membership is before

    def _name(self, space: bytes) -> None:
        """Name a space to neighbours by its present key, or no more; sessions under another one end."""
        access: bytes | None = None
        if self._held("space = ?", space)[0].state == JOINED:
            membership = self.membership(space)
            if self._person.identity in membership.roles and self._knows_key(space, membership):
                secrets = self._readings[space].secrets
                access = access_key(epoch_key(space, {epoch: secrets[epoch] for epoch in membership.epochs}))
        if access != self.access.get(space):
            self.access = {one: key for one, key in (self.access | {space: access or b""}).items() if key}
            self._node.neighbours.refresh()

    async def _let_go(self, space: bytes) -> None:
        """Remove what the node holds of a space that this person has left, unless somebody else here may belong to it.

        ``leave`` may have ended before it came to that, or somebody was locked.
        """
        if space not in self._node.spaces():
            return
        everybody_is_here = len(self._node.people) == len(self._node.home.people())
        joined = any(group.space == space for one in self._node.people.values() for group in one.groups.held(JOINED))
        if everybody_is_here and not joined:
            await self._node.unfollow(space)

    async def _let_in(self, space: bytes) -> None:
        """Take what came by mail through the node's one door, the genesis first."""
        if not self._node.open_store.known([space]):
            await self._node.ingest([self._genesis(space)])
        while True:
            rows = self._person.query(
                f"SELECT id, packed FROM {circular.WAITING} WHERE space = ? LIMIT ?", (space, DRAIN)
            )
            if not rows:
                return
            verdicts = await self._node.ingest([bytes(packed) for _, packed in rows])
            done = [bytes(id) for (id, _), verdict in zip(rows, verdicts, strict=True) if not isinstance(verdict, Held)]
            await self._write([Delete(circular.WAITING, {"id": id}) for id in done])
            if len(done) < len(rows):
                return

    async def _show_device(self, space: bytes, membership: Membership) -> Membership:
        me = self._person.identity
        if membership.devices.get(self._person.device) == me or me in membership.full:
            return membership
        await self._act(space, HERE)
        return self.membership(space)

    async def _hear_of_end(self, membership: Membership) -> None:
        """Stop when another device of this person has ended this one, and told it here."""
        ended = membership.ended.get(self._person.device)
        if ended is not None and ended.identity == self._person.identity and not self._person.is_ended:
            await self._person.inbox.be_ended(ended.signed)

    async def _end_devices(self, group: Group, membership: Membership) -> None:
        """Say of each device that this person has ended up to where it counts here."""
        space, me = group.space, self._person.identity
        for device in sorted(self._ended()):
            if membership.devices.get(device) == me and device not in membership.ended:
                head = own_devices.known_head(self._person, device, space)
                body = Revoke(revoke(identity_key(self._person.entropy), device, space, *(head or ())))
                await self._say_lasting(group, membership, REVOKE, REVOKE.encode(body))

    async def _spread(self, group: Group, membership: Membership) -> None:
        """Tell members among the contacts the secrets that they may lack, and who is new all there is to know."""
        space, me = group.space, self._person.identity
        secrets = self._readings[space].secrets
        knowing: dict[bytes, set[bytes]] = {}
        # Of others a plain member may say so to shut them out. In a large group that is believed all the same: there
        # everybody would else tell everybody.
        by_all = len(membership.roles) > MAILED_MAX
        for of, identity, sender in self._person.query(
            f"SELECT commitment, identity, sender FROM {circular.TOLD} WHERE space = ?", (space,)
        ):
            if by_all or sender in (identity, me) or membership.leads(sender):
                knowing.setdefault(bytes(of), set()).add(bytes(identity))
        told = {epoch: {me} | knowing.get(commitment(secret), set()) for epoch, secret in secrets.items()}
        welcomed: list[bytes] = []
        lacking: dict[tuple[bytes, ...], list[bytes]] = {}
        for identity in sorted(membership.roles.keys() & self._reachable() - {me}):
            epochs = tuple(
                epoch
                for epoch in sorted(secrets)
                if identity not in told[epoch] | {membership.authors.get(epoch)}
                and self._is_mine_to_tell(membership, identity, epoch)
            )
            if space in epochs:
                welcomed.append(identity)
                epochs = tuple(sorted(secrets))
            elif epochs:
                lacking.setdefault(epochs, []).append(identity)
            for epoch in epochs:
                told[epoch].add(identity)
        letters: list[Outgoing] = []
        rows: list[RowChange] = []
        if not welcomed and not lacking:
            return
        kept = {entry.id: entry for entry in self._kept(space, ())}
        store = self._node.open_store
        everything = [*kept.values(), *store.load(membership.acts - kept.keys())]
        newest = store.load(id for _, id in store.arrived(space, 0)[-WELCOMING:]) if welcomed else []
        for epochs, people in [*lacking.items(), *([(tuple(sorted(secrets)), welcomed)] if welcomed else [])]:
            bodies = circular.circulars(
                space,
                genesis=self._genesis(space) if people is welcomed else None,
                entries=[*everything, *newest] if people is welcomed else [e for e in everything if e.id in epochs],
                secrets=[(epoch, secrets[epoch]) for epoch in epochs],
                told=sorted(set.intersection(*(told[epoch] for epoch in epochs))),
            )
            letters += self._letters(people, bodies)
            rows += [circular.told_row(space, secrets[epoch], identity, me) for epoch in epochs for identity in people]
        await self._person.outbox.keep([], rows, letters)

    def _is_mine_to_tell(self, membership: Membership, identity: bytes, epoch: bytes) -> bool:
        """Who adds somebody tells them what there was; what came later everybody does who got to know it."""
        adders = membership.adders(identity, epoch)
        if adders:
            return self._person.identity in adders
        return epoch in membership.epochs or membership.authors.get(epoch) == self._person.identity

    def _is_first_leader(self, membership: Membership) -> bool:
        """Whether it is for this person to renew the key, so that not all admins do at once."""
        able = [one for one in membership.roles if membership.leads(one) and one not in membership.full]
        leaders = sorted((membership.roles[one] != OWNER, one) for one in able)
        return bool(leaders) and leaders[0][1] == self._person.identity

    # ---- saying ----

    def _lead(self, space: bytes) -> Membership:
        self.find(space, JOINED)
        membership = self.membership(space)
        if not membership.leads(self._person.identity):
            raise UsageError("only the founder and the admins of a group may do this")
        if self._person.identity in membership.full:
            raise UsageError("this group has changed so often that no more changes count: found a new one")
        return membership

    async def _act(
        self,
        space: bytes,
        act: str,
        *,
        subject: bytes = b"",
        role: str = "",
        secret: bytes | None = None,
        local: RowChanges = (),
    ) -> None:
        """Say an act; one that begins an epoch keeps its ``secret`` here, and who is to know it is told by ``tend``."""
        group, membership = self.find(space, JOINED), self.membership(space)
        while len(membership.heads) > PARENTS_MAX and act != HERE and self._person.identity not in membership.full:
            await self._act(space, HERE)
            membership = self.membership(space)
        body = ActBody(
            act=act,
            subject=subject,
            role=role,
            parents=membership.heads[:PARENTS_MAX],
            last=self._last_of(space, membership, subject) if act == REMOVE else (),
            commitment=commitment(secret) if secret is not None else b"",
            certificate=self._person.certificate,
        )

        def rows(entry: Entry) -> RowChanges:
            return [*local, *([_secret_row(space, entry.id, secret)] if secret is not None else ())]

        # Who is added is told all of it together, and who is removed that alone; to the others what begins an epoch
        # goes with its secret.
        without = membership.roles.keys() - {subject} if secret is not None else {subject}
        await self._say_lasting(group, membership, MEMBER_ACT, MEMBER_ACT.encode(body), rows, without)

    async def _say_lasting(
        self,
        group: Group,
        membership: Membership,
        kind: Kind,
        payload: bytes,
        local: Callable[[Entry], RowChanges] = lambda _: (),
        without: Set[bytes] = frozenset(),
    ) -> None:
        """Say what never expires, under the newest key known here: it may be what brings the others a newer one."""
        known = self._readings[group.space].secrets
        current = [epoch for epoch in membership.epochs if epoch in known][:EPOCHS_MAX] or [group.space]
        secrets = {epoch: known[epoch] for epoch in current}
        await self._say(group, kind.name, payload, kind.priority, 0, secrets, membership, local, without)

    async def _say(
        self,
        group: Group,
        kind: str,
        payload: bytes,
        priority: int,
        life_ms: int,
        secrets: Mapping[bytes, bytes],
        membership: Membership,
        local: Callable[[Entry], RowChanges],
        without: Set[bytes] = frozenset(),
    ) -> Entry:
        space, now = group.space, self._node.now_ms()

        def make() -> Entry:
            author = self._person.signing_key
            head, own = self._person.outbox.head(space)
            clock = max(own, self._clock(space, membership)) + 1
            if group.type == SEALED:
                inner = Inner(kind, now, payload)
                return seal_entry(
                    author, head, inner, space=space, secrets=secrets, clock=clock, life_ms=life_ms, rand=os.urandom
                )
            if len(payload) > PAYLOAD_MAX_BYTES:
                raise UsageError(
                    "an entry holds at most %(most)s bytes, this has %(size)s",
                    most=PAYLOAD_MAX_BYTES,
                    size=len(payload),
                )
            return next_entry(
                author,
                head,
                space=space,
                kind=kind,
                payload=payload,
                clock=clock,
                ts_ms=now,
                life_ms=life_ms,
                priority=priority,
            )

        def also(entry: Entry) -> tuple[RowChanges, Sequence[Outgoing]]:
            if len(membership.roles) > MAILED_MAX or len(pack(entry)) > LETTER_MAX_BYTES - 256:
                return local(entry), ()
            others = membership.roles.keys() & self._reachable() - {self._person.identity} - without
            return local(entry), self._letters(others, circular.circulars(space, entries=[entry]))

        entry = await self._person.outbox.append(space, make, also)
        self._node.touch()
        return entry

    def _clock(self, space: bytes, membership: Membership) -> int:
        """The Lamport time of what members have said here, as far as it is believed."""
        store = self._node.open_store
        heads = [store.head(space, device) for device in membership.devices]
        said = store.load(head[1] for head in heads if head is not None)
        return max((min(entry.header.clock, CLOCK_MAX) for entry in said), default=0)

    def _letters(self, people: Iterable[bytes], bodies: Sequence[bytes]) -> list[Outgoing]:
        now, to = self._node.now_ms(), sorted(people)
        letters = [(body, os.urandom(LETTER_ID_BYTES), body is bodies[0]) for body in bodies]
        # What takes several letters is one message to people, which is here alone until the first of them is not.
        return [
            Outgoing(one, CIRCULAR.name, body, letter, now, is_told=is_first)
            for body, letter, is_first in letters
            for one in to
        ]

    def _last_of(self, space: bytes, membership: Membership, identity: bytes) -> tuple[tuple[bytes, int], ...]:
        """The last entries here by the devices of somebody who is removed: those up to them still count."""
        devices = sorted(device for device, owner in membership.devices.items() if owner == identity)
        heads = [(device, self._node.open_store.head(space, device)) for device in devices[:LAST_MAX]]
        return tuple((device, head[0]) for device, head in heads if head is not None)

    async def _keep_what_counts(self, space: bytes, membership: Membership) -> None:
        """Keep in the vault what membership rests on: a store may let go of it, and a restored node has none.

        Of secrets so many that soon no more would be taken in, only those stay that were shown to be right.
        """
        kept = {bytes(row[0]) for row in self._person.query(f"SELECT id FROM {circular.ACT} WHERE space = ?", (space,))}
        fresh = self._node.open_store.load(membership.acts - kept)
        changes: list[RowChange] = [
            *(Put(circular.ACT, {"id": e.id, "space": space, "packed": pack(e)}) for e in fresh),
            *(Delete(circular.ACT, {"id": id}) for id in kept - membership.acts),
        ]
        rows = self._person.query(f"SELECT epoch, secret FROM {circular.SECRET} WHERE space = ?", (space,))
        if len(rows) > circular.SECRETS_MAX // 2:
            right = self._readings[space].secrets
            changes += [
                Delete(circular.SECRET, {"space": space, "epoch": epoch, "secret": secret})
                for epoch, secret in rows
                if right.get(epoch) != secret
            ]
        await self._write(changes)

    # ---- rows ----

    def _lasting(self, space: bytes, reading: _Reading, founder: bytes, last: int) -> list[Entry]:
        """A slice of what never expires in a space and was not read yet: kept in the vault, or in the store.

        ``last`` is the number up to which there is any in the store. What leaders' devices signed comes first: who
        floods the group keeps nobody from removing them, and in the end from nothing else.
        """
        store, membership = self._node.open_store, reading.membership
        leading = {founder, self._person.device}  # what is not found of its own this device would say again and again
        if membership is not None:
            leading |= {device for device, one in membership.devices.items() if membership.leads(one)}
        if leading != reading.leading:
            reading.leading, reading.led = frozenset(leading), reading.through
        first = store.lasting(space, reading.led, READ_SLICE, reading.leading)
        if len(first) < READ_SLICE:
            others, reading.led = store.lasting(space, reading.through, READ_SLICE), last
            reading.through = others[-1][0] if len(others) == READ_SLICE else last
            reading.more = len(others) == READ_SLICE
        else:
            others, reading.led = [], first[-1][0]
            reading.more = True
        found = self._kept(space, reading.acts)
        known = reading.acts.keys() | {entry.id for entry in found}
        ids = dict.fromkeys((*reading.bare, *(id for _, id in (*first, *others))))
        return [*found, *store.load(id for id in ids if id not in known)]

    def _kept(self, space: bytes, read: Container[bytes]) -> list[Entry]:
        """The acts and revocations in the vault that were not read yet."""
        ids = self._person.query(f"SELECT id FROM {circular.ACT} WHERE space = ?", (space,))
        rows = [
            self._person.query(f"SELECT packed FROM {circular.ACT} WHERE id = ?", row)
            for row in ids
            if row[0] not in read
        ]
        return [unpack(bytes(packed))[0] for ((packed,),) in rows]

    def _founding(self, space: bytes) -> SpaceBody:
        return open_genesis(self._genesis(space), self._readings[space].secrets[space])

    def _genesis(self, space: bytes) -> Entry:
        packed = self._person.query(f"SELECT genesis FROM {circular.HELD} WHERE space = ?", (space,))[0][0]
        return unpack(bytes(packed))[0]

    def _reachable(self) -> set[bytes]:
        """The contacts to whom something can be sealed."""
        rows = self._person.query(
            "SELECT DISTINCT identity FROM contact JOIN device USING (identity)"
            " WHERE NOT blocked AND accepted = 1 AND prekey IS NOT NULL"
        )
        return {bytes(row[0]) for row in rows}

    def _ended(self) -> set[bytes]:
        """The devices that this person has ended."""
        rows = self._person.query("SELECT device FROM revoked WHERE identity = ?", (self._person.identity,))
        return {bytes(row[0]) for row in rows}

    def _knows_key(self, space: bytes, membership: Membership) -> bool:
        return all(epoch in self._readings[space].secrets for epoch in membership.epochs)

    async def _set_state(self, space: bytes, state: str, changes: RowChanges = ()) -> None:
        await self._write([Put(circular.HELD, {"space": space, "state": state}), *changes])

    async def _write(self, changes: RowChanges) -> None:
        if changes:
            await self._node.write(lambda: self._person.vault.transaction(changes, circular.GROUPS.name))
            self._node.touch()


def _act_of(entry: Entry, inner: Inner) -> Act | None:
    """The act or revocation in an entry that was opened, None when it is another one or malformed."""
    h = entry.header
    if inner.kind == REVOKE.name:
        revocation = revocation_of(inner.body, h.space)
        return revoking_act(entry.id, h.author, revocation) if revocation is not None else None
    if inner.kind != MEMBER_ACT.name:
        return None
    try:
        return read_act(entry.id, h.author, h.seq, MEMBER_ACT.decode(inner.body))
    except ProtocolError:
        return None


def _inner(group: Group, entry: Entry, secrets: Mapping[bytes, bytes]) -> Inner | None:
    """What an entry says; None while its payload or its key is not here, or when it is altered."""
    if entry.payload is None:
        return None
    if group.type != SEALED or entry.id == group.space:
        return Inner(entry.header.kind, entry.header.ts_ms, entry.payload)
    try:
        return open_entry(entry, secrets)
    except ProtocolError:
        return None


def _commitment(genesis: Entry) -> bytes:
    body = GENESIS.decode(genesis.payload or b"")
    return bytes(body.commitment)


def _secret_row(space: bytes, epoch: bytes, secret: bytes) -> Put:
    return Put(circular.SECRET, {"space": space, "epoch": epoch, "secret": secret})
