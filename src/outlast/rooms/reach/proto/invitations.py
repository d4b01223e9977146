"""Who gets which bridge, and who gets another one after a block: an operator's tree of invitations. Pure.

The idea is Salmon's (Douglas, Rohrer, Caesar, "Salmon: Robust Proxy Distribution for Censorship Circumvention", PoPETs
2016): people come in by invitation, trust grows while their bridge stays unblocked, and a block makes all who knew the
bridge suspects. Here the operator of a few bridges is the only one who sees the tree, by numbers and not by names:

- Those whom one member invites share **buckets** of three. A bucket is always together on one bridge.
- A block divides the suspicion among those who knew the bridge: of ``n``, at least four, each is as suspect as if
  chance ``1/n`` were added. Half of it **climbs** to who invited them, a quarter to who invited those, and so on.
- Who is more suspect than ``SUSPICION_MAX`` gets no bridge any more. The others, the survivors, move: the more suspect
  half of the buckets to one bridge, the less suspect to another, and each among those who are about as suspect. So an
  insider costs a bridge for each halving, and then stands alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import log2
from typing import Final, NamedTuple

BUCKET: Final = 3
MEMBERS_MAX: Final = 600
"""Of one operator, those whom nothing is given any more among them."""
DEPTH_MAX: Final = 8
A_BRIDGE_MAX: Final = 60
"""Members on one bridge: what one block can cost."""
LEAST: Final = 4
"""However few knew a bridge, each is suspected as one of so many: bridges are blocked by chance, too."""
SUSPICION_MAX: Final = 1 / 3
LEVEL_MAX: Final = 4
LEVEL_DAYS: Final = 7
"""The first level of trust takes so many days without a block, each further one twice as many as the one before."""


class Member(NamedTuple):
    """One who was invited."""

    number: bytes  # 16 B; all that the operator need know of them
    parent: bytes | None  # 16 B, by whom they were invited; None = by the operator
    bucket: int
    bridge: str  # id; "" while there is none to give
    since_day: int  # on it, and unblocked, since
    level: int  # of trust on that day
    suspicion: float = 0.0  # 0 to 1
    ended: bool = False


Members = Mapping[bytes, Member]


def trust(member: Member, day: int) -> int:
    """The level of trust by now, 0 to ``LEVEL_MAX``."""
    weeks = max(0, day - member.since_day) // LEVEL_DAYS if member.bridge else 0
    return min(LEVEL_MAX, member.level + (1 + int(log2(weeks)) if weeks else 0))


def may_invite(members: Members, number: bytes, day: int) -> bool:
    """Whether a member may have somebody else invited: one bucket for each level, while little is suspected."""
    member = members.get(number)
    if member is None or member.ended or not member.bridge or member.suspicion > SUSPICION_MAX / 2:
        return False
    invited = sum(one.parent == number for one in members.values())
    return invited < BUCKET * trust(member, day) and _depth(members, number) < DEPTH_MAX


def invite(members: Members, bridges: Collection[str], parent: bytes | None, number: bytes, day: int) -> Member | None:
    """A new member on one of these (unblocked) bridges; None when the parent may not, or there is no room.

    Whom the operator invites begins with the first level: they were chosen by whom they endanger.
    """
    if (
        number in members
        or len(members) >= MEMBERS_MAX
        or (parent is not None and not may_invite(members, parent, day))
    ):
        return None
    siblings = [one for one in members.values() if one.parent == parent and not one.ended]
    for bucket in sorted({one.bucket for one in siblings}):
        inside = [one for one in members.values() if one.bucket == bucket]
        bridge = next((one.bridge for one in inside if not one.ended), "")
        if len(inside) < BUCKET and bridge in bridges and not any(one.suspicion for one in inside):
            return Member(number, parent, bucket, bridge, day, int(parent is None))
    # Next to whom invited them: whoever hands a bridge on endangers their own first.
    near = members[parent].bridge if parent is not None else ""
    bridge = _choose(members, bridges, 0.0, near=near)
    if not bridge:
        return None
    fresh = 1 + max((one.bucket for one in members.values()), default=0)
    return Member(number, parent, fresh, bridge, day, int(parent is None))


def blocked(members: Members, bridges: Collection[str], bridge: str, day: int) -> list[Member]:
    """The members who change by the block of a bridge: suspected, moved to one of ``bridges``, or ended."""
    knew = [one for one in members.values() if one.bridge == bridge and not one.ended]
    if not knew:
        return []
    now = dict(members)
    for one in knew:
        now[one.number] = _suspect(one, 1 / max(len(knew), LEAST))._replace(level=max(0, trust(one, day) - 1))
    for one in knew:
        share, parent = 1 / max(len(knew), LEAST), one.parent
        for _ in range(DEPTH_MAX):
            if parent is None:
                break
            share /= 2
            now[parent] = _suspect(now[parent], share)
            parent = now[parent].parent
    for number, one in now.items():
        if one.suspicion > SUSPICION_MAX and not one.ended:
            now[number] = one._replace(ended=True, bridge="")
    survivors = [now[one.number]._replace(bridge="") for one in knew if not now[one.number].ended]
    now |= {one.number: one for one in survivors}
    for one in _placed(now, set(bridges) - {bridge}, survivors, day):
        now[one.number] = one
    return [one for number, one in now.items() if one != members[number]]


def settle(members: Members, bridges: Collection[str], day: int) -> list[Member]:
    """The members without a bridge who get one of these now."""
    return _placed(members, bridges, [one for one in members.values() if not one.bridge and not one.ended], day)


def below(members: Members, number: bytes) -> list[Member]:
    """A member and all who came in through them: whom it concerns when they are revoked."""
    found, queue = list[Member](), [number]
    while queue:
        at = queue.pop()
        found += [members[at]] if at in members else []
        queue += [one.number for one in members.values() if one.parent == at]
    return found


def _suspect(member: Member, chance: float) -> Member:
    return member._replace(suspicion=1 - (1 - member.suspicion) * (1 - chance))


def _depth(members: Members, number: bytes) -> int:
    depth, at = 1, members[number].parent
    while at is not None and depth <= DEPTH_MAX:
        depth, at = depth + 1, members[at].parent
    return depth


def _placed(members: Members, bridges: Collection[str], moving: Iterable[Member], day: int) -> list[Member]:
    """Those who move, with their new bridges: whole buckets, the more suspect half apart from the rest."""
    now, buckets = dict(members), dict[int, list[Member]]()
    for one in moving:
        buckets.setdefault(one.bucket, []).append(one)
    ordered = sorted(buckets.items(), key=lambda item: (-max(one.suspicion for one in item[1]), item[0]))
    half, placed, first = (len(ordered) + 1) // 2, list[Member](), ""
    for at, (_, inside) in enumerate(ordered):
        others = set(bridges) - {first} if at >= half and len(bridges) > 1 else set(bridges)
        near = placed[-1].bridge if placed and at != half else ""
        bridge = _choose(now, others, max(one.suspicion for one in inside), near=near)
        if at == 0:
            first = bridge
        for one in inside if bridge else ():
            moved = one._replace(bridge=bridge, since_day=day)
            now[moved.number] = moved
            placed.append(moved)
    return placed


def _choose(members: Members, bridges: Collection[str], suspicion: float, *, near: str = "") -> str:
    """The bridge for somebody as suspect as this: ``near`` if it has room, else among their like; "" without any."""
    used: dict[str, list[float]] = {one: [] for one in bridges}
    for one in members.values():
        if one.bridge in used and not one.ended:
            used[one.bridge].append(one.suspicion)
    room = {bridge: held for bridge, held in used.items() if len(held) + BUCKET <= A_BRIDGE_MAX}
    if near in room:
        return near
    return min(room, key=lambda bridge: (_unlike(room[bridge], suspicion), len(room[bridge]), bridge), default="")


def _unlike(held: list[float], suspicion: float) -> float:
    """How badly somebody as suspect as this fits to those on a bridge; nobody there is a good fit for anybody."""
    return round(abs(sum(held) / len(held) - suspicion), 2) if held else 0.0
