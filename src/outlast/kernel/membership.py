"""Membership of a closed space: who belongs to it, by acts that each name the acts their author saw.

The acts form a graph that begins with the genesis. ``resolve`` says what follows from any set of them, whatever the
order in which they came. The rules:

- The genesis makes its owner. Owner and admins add, remove and renew; every member may show a device and may leave.
  An act counts when its author had that right by acts that it descends from. Nobody but the owner ends the owner.
- A removal ends the removed and beats every act of theirs that it does not descend from: those made meanwhile, and
  those made later and dated back. Who was added again by an act that descends from the removal is in again.
- Removals that beat each other in a circle all count: two admins who remove each other at once are both out. What hangs
  on such a circle without being part of it is beaten by it.

Every removal, and every renewal, begins an *epoch*: new keys for those who remain (``epoch``). The epochs that no later
one descends from are the current ones; together they make the key, so that of two admins who each removed somebody at
the same time neither's removed has all of it. The removal says up to which number entries of the removed still count.

The ideas are those of p2panda's and Keyhive's group work (strong removal, acts as a graph); attacks among removals are
settled as in Dung's argumentation frameworks (the grounded extension, then circles from their sources on).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

import msgspec

from outlast.kernel.identity import Device, IdentityError, read_certificate
from outlast.kernel.kinds import Kind
from outlast.kernel.revocation import Revocation

ADD: Final = "add"
REMOVE: Final = "remove"
RENEW: Final = "renew"
HERE: Final = "here"
END: Final = "end"
"""No act of its own: the place of a revocation among the acts that were said in knowledge of it."""
MEMBER: Final = "member"
ADMIN: Final = "admin"
OWNER: Final = "owner"
Role = Literal["member", "admin", "owner"]
PARENTS_MAX: Final = 16
LAST_MAX: Final = 16
ACTS_MAX: Final = 4096
"""Acts of a space that count; those of authors nearest to the owner go first."""
LEADER_ACTS_MAX: Final = 1024
"""Of these, by one who was ever an admin,"""
MEMBER_ACTS_MAX: Final = 16
"""and by one who was not."""
WAR_MAX: Final = 64
"""Removals in dispute that are settled; those beyond, by who stands further from the owner, take no effect."""
ROUNDS_MAX: Final = 32
"""Rounds in which removals are looked for that are beyond dispute; the rest counts as disputed."""

_RANKS: Final[Mapping[str, int]] = {MEMBER: 1, ADMIN: 2, OWNER: 3}
_ROLES: Final[Mapping[int, Role]] = {1: "member", 2: "admin", 3: "owner"}


class ActBody(msgspec.Struct, array_like=True, frozen=True):
    """What an entry of kind ``member`` says. Fields that its act does not need are empty."""

    act: str  # "add", "remove", "renew" or "here"
    subject: bytes  # 32 B, the identity added or removed
    role: str  # of the added: "member" or "admin"
    parents: tuple[bytes, ...]  # 32 B each, sorted: acts that the author saw and none of which is behind another
    last: tuple[tuple[bytes, int], ...]  # devices of the removed, sorted, with the last seq that still counts
    commitment: bytes  # 32 B, to the secret of the epoch that a removal or renewal begins
    certificate: bytes  # of the author's device


MEMBER_ACT: Final = Kind("member", ActBody, max_bytes=2048, max_life_days=0, priority=0)


@dataclass(frozen=True, slots=True)
class Founding:
    """The genesis, as far as membership goes."""

    id: bytes  # 32 B, the space
    owner: bytes  # 32 B, identity
    device: bytes  # 32 B
    commitment: bytes  # 32 B


@dataclass(frozen=True, slots=True)
class Act:
    """An act whose signature and certificate hold."""

    id: bytes  # 32 B, of the entry
    device: bytes  # 32 B, its author's
    author: bytes  # 32 B, identity
    seq: int
    act: str
    subject: bytes
    role: str
    parents: tuple[bytes, ...]
    last: tuple[tuple[bytes, int], ...] = ()
    commitment: bytes = b""
    ended: Revocation | None = None
    name: str = ""  # what its author's certificate calls them


@lru_cache(maxsize=4096)
def _device_of(certificate: bytes) -> Device | None:
    try:
        return read_certificate(certificate)
    except IdentityError:
        return None


def read_act(id: bytes, device: bytes, seq: int, body: ActBody) -> Act | None:
    """The act that a body says in an entry of ``device``; None when it is malformed or its certificate does not hold.

    The entry's signature must have been verified (``admit``).
    """
    changes = body.act in (ADD, REMOVE)
    wellformed = (
        body.act in (ADD, REMOVE, RENEW, HERE)
        and len(body.subject) == (32 if changes else 0)
        and (body.role in (MEMBER, ADMIN) if body.act == ADD else body.role == "")
        and len(body.parents) <= PARENTS_MAX
        and all(len(parent) == 32 for parent in body.parents)
        and list(body.parents) == sorted(set(body.parents))
        and len(body.last) <= (LAST_MAX if body.act == REMOVE else 0)
        and all(len(one) == 32 and 0 <= number < 2**64 for one, number in body.last)
        and len(body.commitment) in ((0, 32) if body.act == REMOVE else (32,) if body.act == RENEW else (0,))
    )
    by = _device_of(body.certificate) if wellformed else None
    if by is None or by.device != device:
        return None
    return Act(
        id,
        device,
        by.identity,
        seq,
        body.act,
        body.subject,
        body.role,
        body.parents,
        body.last,
        body.commitment,
        name=by.name,
    )


def revoking_act(id: bytes, device: bytes, revocation: Revocation) -> Act:
    """A revocation as it stands among the acts; in the entry ``id`` of whatever device."""
    return Act(id, device, revocation.identity, 0, END, b"", "", (), ended=revocation)


@dataclass(frozen=True, slots=True)
class Membership:
    """Who belongs to a space by the acts that are here."""

    roles: Mapping[bytes, Role]
    """Identities (32 B) of the present members."""
    devices: Mapping[bytes, bytes]
    """Devices that are or were members', with their identities."""
    heads: tuple[bytes, ...]
    """The acts that no other one descends from, sorted: what the next act names as its parents."""
    epochs: tuple[bytes, ...]
    """The current epochs by the ids of their acts, sorted; the genesis begins the first one."""
    commitments: Mapping[bytes, bytes]
    """All epochs that count, each with the commitment (32 B) to its secret."""
    authors: Mapping[bytes, bytes]
    """Who began each of them, by identity."""
    stale: bool
    """Whether somebody who is no member any more, or an ended device, may know the current key: it is to be renewed."""
    full: frozenset[bytes]
    """Identities that have said so many acts that no more of theirs count."""
    ended: Mapping[bytes, Revocation]
    """Devices that their identities have ended."""
    acts: frozenset[bytes]
    """The ids of all acts and revocations that it rests on, at most four times ACTS_MAX."""
    _ended: Ended = field(repr=False)
    _limits: Mapping[bytes, int] = field(repr=False)
    _begun: Mapping[bytes, int] = field(repr=False)
    """The bit of each epoch,"""
    _adders: Mapping[bytes, Sequence[tuple[bytes, int]]] = field(repr=False)
    """and by member who added them, with the bits of all that the addition descends from."""

    def speaks(self, device: bytes, seq: int, id: bytes) -> bool:
        """Whether the entry ``id``, number ``seq`` of a device, counts: a member's, or from before its end."""
        identity = self.devices.get(device)
        if identity is None or _is_ended(self._ended, (identity, device), seq, id):
            return False
        return identity in self.roles or seq <= self._limits.get(device, 0)

    def adders(self, identity: bytes, epoch: bytes) -> set[bytes]:
        """Who added a member at a time when they could know of that epoch, and so told them its secret."""
        bit = self._begun.get(epoch, 0)
        return {adder for adder, known in self._adders.get(identity, ()) if known & bit}

    def leads(self, identity: bytes) -> bool:
        """Whether this identity may add, remove and renew."""
        return self.roles.get(identity) in (ADMIN, OWNER)


def resolve(founding: Founding, acts: Iterable[Act]) -> Membership:
    """The membership that follows from these acts, in whatever order they come; parents that are not here are ignored.

    Takes time in proportion to the number of acts; of more than ACTS_MAX that could count, and of an author's beyond
    LEADER_ACTS_MAX or MEMBER_ACTS_MAX, those with the lowest numbers do.
    """
    known = {act.id: act for act in acts if act.id != founding.id}
    ended = _ended(known.values())
    chosen, levels, full = _choose(founding, known, ended)
    graph = _Graph(founding, chosen, _cited(chosen, known), levels, ended)
    removals = graph.settle()
    valid = graph.valid(removals)
    return graph.membership(valid, removals, full)


Ended = Mapping[tuple[bytes, bytes], Sequence[tuple[bytes, Revocation]]]
"""By identity and device: the strictest revocations, with their entries; two that name different ones leave neither."""


def _ended(acts: Iterable[Act]) -> Ended:
    ended: dict[tuple[bytes, bytes], list[tuple[bytes, Revocation]]] = {}
    found = [(act.id, act.ended) for act in acts if act.ended is not None]
    for id, one in sorted(found, key=lambda pair: (pair[1].seq, pair[1].last or b"", pair[0])):
        strictest = ended.setdefault((one.identity, one.device), [])
        if not strictest or (
            len(strictest) == 1 and one.seq == strictest[0][1].seq and one.last != strictest[0][1].last
        ):
            strictest.append((id, one))
    return ended


def _choose(
    founding: Founding, acts: Mapping[bytes, Act], ended: Ended
) -> tuple[list[Act], dict[bytes, int], frozenset[bytes]]:
    """The acts that could count, outward from the owner: by those whom somebody added who could.

    With them how far from the owner each identity stands, and of whom no more acts would be among them. Who was added
    by more hands stands behind who was added by fewer: nobody gains by adding any number of others. Of one's own, what
    an ended device said beyond its end comes last: whoever found it takes nobody's place.
    """
    said: defaultdict[bytes, list[Act]] = defaultdict(list)
    for act in (act for act in acts.values() if act.act != END):
        said[act.author].append(act)
    chosen: dict[bytes, Act] = {}
    reached: dict[bytes, bool] = {}
    levels: dict[bytes, int] = {}
    full: dict[bytes, bool] = {}
    number = 0
    level: dict[bytes, bool] = {founding.owner: True}  # identity: whether it may lead

    def place(act: Act) -> tuple[bool, bool, int, bytes]:
        is_void = _is_ended(ended, (act.author, act.device), act.seq, act.id)
        return is_void, act.act != REMOVE and not reached[act.author], act.seq, act.id

    while level:
        now: list[Act] = []
        for identity, leads in level.items():
            levels.setdefault(identity, number)
            reached[identity] = leads
            own = sorted((act for act in said[identity] if leads or _is_plain(act)), key=place)
            most = LEADER_ACTS_MAX if leads else MEMBER_ACTS_MAX
            full[identity] = len(own) >= most
            now += (act for act in own[:most] if act.id not in chosen)
        if len(chosen) + len(now) >= ACTS_MAX:
            full |= dict.fromkeys(level, True)
        now = sorted(now, key=lambda act: (act.seq, act.id))[: ACTS_MAX - len(chosen)]
        chosen |= {act.id: act for act in now}
        level, number = {}, number + 1
        for act in now:
            if act.act == ADD and reached[act.author]:
                leads = act.role == ADMIN
                if reached.get(act.subject) is None or (leads and not reached[act.subject]):
                    level[act.subject] = level.get(act.subject, False) or leads
    return list(chosen.values()), levels, frozenset(identity for identity, is_full in full.items() if is_full)


def _is_plain(act: Act) -> bool:
    """Whether a member without a further right may say it: to show a device, or to leave."""
    return act.act == HERE or (act.act == REMOVE and act.subject == act.author)


def _cited(chosen: Sequence[Act], known: Mapping[bytes, Act]) -> list[Act]:
    """What else the chosen acts descend from: it counts for nothing, but they descend from what it saw."""
    seen = {act.id for act in chosen}
    cited: list[Act] = []
    level = list(chosen)
    while level and len(cited) < ACTS_MAX:
        parents = sorted({parent for act in level for parent in act.parents if parent in known} - seen)
        level = [known[parent] for parent in parents[: ACTS_MAX - len(cited)]]
        seen.update(parents)
        cited += level
    return cited


def _is_ended(ended: Ended, by: tuple[bytes, bytes], seq: int, id: bytes) -> bool:
    return any(one.ends(*by, seq, id) for _, one in ended.get(by, ()))


class _Graph:
    """Acts in an order in which each stands behind those it descends from; sets of them are the bits of a number.

    Number 0 is the genesis.
    """

    def __init__(
        self,
        founding: Founding,
        chosen: Sequence[Act],
        cited: Sequence[Act],
        levels: Mapping[bytes, int],
        ended: Ended,
    ) -> None:
        self.founding = founding
        self.levels = levels
        self.ended = ended
        genesis = Act(
            founding.id, founding.device, founding.owner, 0, ADD, founding.owner, OWNER, (), (), founding.commitment
        )
        self.acts = [genesis, *_sorted([*chosen, *cited])]
        place = {act.id: number for number, act in enumerate(self.acts)}
        self.before = [0] * len(self.acts)
        self.behind = [0] * len(self.acts)
        for number, act in enumerate(self.acts[1:], 1):
            mask = 1
            for parent in act.parents:
                at = place.get(parent)
                if at is not None:
                    mask |= self.before[at] | 1 << at
            self.before[number] = mask
        for number in range(len(self.acts) - 1, 0, -1):
            mask = self.behind[number] | 1 << number
            for parent in self.acts[number].parents:
                at = place.get(parent)
                if at is not None:
                    self.behind[at] |= mask
        self.behind[0] = (1 << len(self.acts)) - 2
        self.adds: defaultdict[bytes, int] = defaultdict(int)
        self.removals_of: defaultdict[bytes, int] = defaultdict(int)
        self.removals = 0
        idle = {act.id for act in cited}
        self.void = 0
        """What counts for nothing, whatever the others do; who descends from it still descends from what it saw."""
        for number, act in enumerate(self.acts):
            by = (act.author, act.device)
            if act.id in idle or (number and _is_ended(ended, by, act.seq, act.id)):
                self.void |= 1 << number
            elif act.act == ADD:
                self.adds[act.subject] |= 1 << number
            elif act.act == REMOVE and (act.subject != founding.owner or act.author == founding.owner):
                self.removals_of[act.subject] |= 1 << number
                self.removals |= 1 << number
        # Removals of its author that an act was not made before.
        self.against = [
            self.removals_of[act.author] & ~self.behind[number] & ~(1 << number) for number, act in enumerate(self.acts)
        ]

    def valid(self, removals: int) -> int:
        """The acts that count if exactly these removals take effect.

        The more of them do, the fewer acts count: nothing else takes a right away.
        """
        valid = 1
        for number in range(1, len(self.acts)):
            act = self.acts[number]
            supports = self.adds[act.author] & self.before[number] & valid
            if supports and not self.void >> number & 1 and (act.act != REMOVE or self.removals >> number & 1):
                needed = 1 if _is_plain(act) else 2
                if self._rank(supports, removals & self.against[number], needed) >= needed:
                    valid |= 1 << number
        return valid

    def _rank(self, supports: int, against: int, enough: int = 3) -> int:
        """The highest rank that some of these additions still give, though these removals end it."""
        best = 0
        while supports and best < enough:
            number = supports.bit_length() - 1
            supports ^= 1 << number
            if not against & ~self.before[number]:
                best = max(best, _RANKS[self.acts[number].role])
        return best

    def settle(self) -> int:
        """The removals that take effect."""
        if not self.removals:
            return 0
        low = high = 0
        for _ in range(ROUNDS_MAX):
            # More removals in effect make fewer of them valid: from below and from above to what is beyond dispute.
            high = self.valid(low) & self.removals
            lower = self.valid(high) & self.removals
            if lower == low:
                break
            low = lower
        disputed = self._foremost(high & ~low)
        beats = {number: disputed & ~self.valid(low | 1 << number) & ~(1 << number) for number in _bits(disputed)}
        return low | _settle_circles(disputed, beats)

    def _foremost(self, removals: int) -> int:
        """At most WAR_MAX of these: by those nearest to the owner, and of each of them the first ones."""
        counts: defaultdict[bytes, int] = defaultdict(int)
        order: list[tuple[int, int, bytes, int]] = []
        for number in sorted(_bits(removals), key=lambda n: (self.acts[n].seq, self.acts[n].id)):
            act = self.acts[number]
            order.append((self.levels[act.author], counts[act.author], act.id, number))
            counts[act.author] += 1
        return sum(1 << number for *_, number in sorted(order)[:WAR_MAX])

    def membership(self, valid: int, removals: int, full: frozenset[bytes]) -> Membership:
        """What these acts and removals come to."""
        acts = self.acts
        roles: dict[bytes, Role] = {}
        for identity, adds in self.adds.items():
            rank = self._rank(adds & valid, removals & self.removals_of[identity])
            if rank:
                roles[identity] = _ROLES[rank]
        counts = valid | removals
        devices: dict[bytes, bytes] = {self.founding.device: self.founding.owner}
        for act in sorted((acts[n] for n in _bits(valid)), key=lambda act: act.author):
            devices.setdefault(act.device, act.author)
        epochs = [n for n in _bits(counts) if acts[n].commitment]
        mask = sum(1 << n for n in epochs)
        current = [n for n in epochs if not self.behind[n] & mask]
        limits: dict[bytes, int] = {}
        ended = {by: found for by, found in self.ended.items() if devices.get(by[1]) == by[0]}
        # Also of a device none of whose acts counts any more it is to be feared that it knows the key.
        heard = {(act.author, act.device) for act in acts if act.ended is None} & self.ended.keys()
        known: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)
        for n, act in enumerate(acts):
            if act.ended is not None:
                known[act.author, act.ended.device] |= 1 << n
        unknown = [by for by in heard if not any(self.before[e] & known[by] for e in current)]
        stale = bool(unknown) or any(acts[n].author not in roles for n in current)
        for identity, every in self.removals_of.items():
            ends = [n for n in _bits(every & removals) if not self.behind[n] & every & removals]
            if not ends or identity in roles:
                continue
            stale = stale or not any(
                acts[e].author != identity and all((self.before[e] | 1 << e) >> n & 1 for n in ends) for e in current
            )
            for device in {device for n in ends for device, _ in acts[n].last}:
                if devices.get(device) == identity:
                    limits[device] = min(dict(acts[n].last).get(device, 0) for n in ends)
        adders = {
            identity: [(acts[n].author, self.before[n]) for n in _bits(adds & valid & ~1)]
            for identity, adds in self.adds.items()
            if identity in roles
        }
        heads = {acts[n].id for n in _bits(counts & ~1) if not self.behind[n] & counts}
        heads.update(self.ended[by][0][0] for by in unknown)
        return Membership(
            roles=roles,
            devices=devices,
            heads=tuple(sorted(heads)),
            epochs=tuple(sorted(acts[n].id for n in current)),
            commitments={acts[n].id: acts[n].commitment for n in epochs},
            authors={acts[n].id: acts[n].author for n in epochs},
            stale=stale,
            full=full,
            ended={device: found[0][1] for (_, device), found in ended.items()},
            acts=frozenset(
                {act.id for act in acts[1:]} | {id for by in ended.keys() | heard for id, _ in self.ended[by]}
            ),
            _ended=ended,
            _limits=limits,
            _begun={acts[n].id: 1 << n for n in epochs},
            _adders=adders,
        )


def _bits(mask: int) -> Iterator[int]:
    """The numbers of a set, rising."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _sorted(acts: Sequence[Act]) -> list[Act]:
    """Each behind its parents; acts that stand behind themselves, which no hash allows, are left out."""
    by_id = {act.id: act for act in acts}
    waits = {act.id: sum(parent in by_id for parent in act.parents) for act in acts}
    children: defaultdict[bytes, list[Act]] = defaultdict(list)
    for act in acts:
        for parent in act.parents:
            children[parent].append(act)
    ready = sorted((act for act in acts if not waits[act.id]), key=lambda act: act.id, reverse=True)
    ordered: list[Act] = []
    while ready:
        act = ready.pop()
        ordered.append(act)
        for child in children[act.id]:
            waits[child.id] -= 1
            if not waits[child.id]:
                ready.append(child)
    return ordered


def _settle_circles(disputed: int, beats: Mapping[int, int]) -> int:
    """Which of the disputed removals take effect: circles from their sources on, all of a circle or none."""
    settled, left = 0, disputed
    while left:
        circles = _circles(left, beats)
        sources = [c for c in circles if not any(beats[number] & c for number in _bits(left & ~c))]
        for circle in sources:
            settled |= circle
            left &= ~circle
            for number in _bits(circle):
                left &= ~beats[number]
    return settled


def _circles(left: int, beats: Mapping[int, int]) -> list[int]:
    """The strongly connected parts (Tarjan's, without recursion), each as a set; a single removal is one too."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    parts: list[int] = []
    for root in _bits(left):
        if root in index:
            continue
        work = [(root, _bits(beats[root] & left))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, _bits(beats[target] & left)))
                    break
                if target in on_stack:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = 0
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        part |= 1 << member
                        if member == node:
                            break
                    parts.append(part)
    return parts
