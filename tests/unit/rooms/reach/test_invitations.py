"""Invitations: buckets of three, trust that grows, suspicion that climbs, survivors who move."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.rooms.reach.proto.invitations import (
    A_BRIDGE_MAX,
    BUCKET,
    LEVEL_DAYS,
    LEVEL_MAX,
    MEMBERS_MAX,
    SUSPICION_MAX,
    Member,
    below,
    blocked,
    invite,
    may_invite,
    settle,
    trust,
)


@dataclass
class Operator:
    """Somebody who has bridges, with a day that the test turns."""

    bridges: list[str]
    day: int = 20_000
    members: dict[bytes, Member] = field(default_factory=dict)

    def invite(self, parent: bytes | None = None) -> bytes | None:
        """Invite one more; their number."""
        number = len(self.members).to_bytes(16, "big")
        member = invite(self.members, self.bridges, parent, number, self.day)
        if member is not None:
            self.members[number] = member
        return member and number

    def must_invite(self, parent: bytes | None = None) -> bytes:
        """The same where there is no doubt."""
        number = self.invite(parent)
        assert number is not None
        return number

    def lose(self, bridge: str) -> None:
        """A censor blocks one."""
        self.bridges.remove(bridge)
        self.take(blocked(self.members, self.bridges, bridge, self.day))

    def take(self, changed: list[Member]) -> None:
        """Remember who changed."""
        self.members |= {one.number: one for one in changed}

    def bridge_of(self, number: bytes) -> str:
        """Where somebody is now."""
        return self.members[number].bridge


def test_three_whom_one_invites_share_a_bucket_and_its_bridge() -> None:
    operator = Operator(["a", "b"])
    invited = [operator.members[operator.must_invite()] for _ in range(4)]
    assert [one.bucket for one in invited] == [1, 1, 1, 2]
    assert len({one.bridge for one in invited[:3]}) == 1
    assert invited[3].bridge != invited[0].bridge


def test_trust_grows_by_weeks_without_a_block_and_each_level_takes_twice_as_long() -> None:
    operator = Operator(["a"])
    member = operator.members[operator.must_invite()]
    days = [0, LEVEL_DAYS - 1, LEVEL_DAYS, 2 * LEVEL_DAYS, 4 * LEVEL_DAYS, 400]
    assert [trust(member._replace(level=0), operator.day + day) for day in days] == [0, 0, 1, 2, 3, LEVEL_MAX]


def test_whom_the_operator_chose_may_have_three_invited_and_those_may_only_after_a_week() -> None:
    operator = Operator(["a", "b"])
    chosen = operator.must_invite()
    children = [operator.must_invite(chosen) for _ in range(BUCKET)]
    assert operator.invite(chosen) is None
    assert not may_invite(operator.members, children[0], operator.day)
    operator.day += LEVEL_DAYS
    assert operator.invite(children[0]) is not None


def test_whom_a_member_invites_is_on_that_members_bridge() -> None:
    operator = Operator(["a", "b", "c"])
    chosen = operator.must_invite()
    assert operator.bridge_of(operator.must_invite(chosen)) == operator.bridge_of(chosen)


def test_after_a_block_survivors_are_on_other_bridges_in_two_halves() -> None:
    operator = Operator(["a", "b", "c"])
    while len(operator.members) < 24:
        operator.must_invite()
    lost = operator.bridge_of(bytes(16))
    knew = [number for number, one in operator.members.items() if one.bridge == lost]
    operator.lose(lost)
    now = [operator.bridge_of(number) for number in knew]
    assert set(now) == {"a", "b", "c"} - {lost}
    for number in knew:
        inside = {one.bridge for one in operator.members.values() if one.bucket == operator.members[number].bucket}
        assert len(inside) == 1


def test_who_stands_alone_on_a_bridge_that_is_blocked_gets_one_other_and_no_third() -> None:
    operator = Operator(["a", "b", "c"])
    alone = operator.must_invite()
    operator.lose(operator.bridge_of(alone))
    assert operator.bridge_of(alone) in operator.bridges
    operator.lose(operator.bridge_of(alone))
    assert operator.members[alone].ended
    assert operator.bridge_of(alone) == ""


def test_suspicion_climbs_to_those_who_invited_and_halves_on_its_way() -> None:
    operator = Operator(["a", "b", "c"])
    top = operator.must_invite()
    child = operator.must_invite(top)
    # Another of the tree, on a bridge of their own, as after an earlier block.
    for _ in range(9):
        operator.must_invite()
    members = operator.members
    members[child] = members[child]._replace(bridge="c", bucket=99)
    for number, one in members.items():
        if one.bridge == "c" and number != child:
            members[number] = one._replace(bridge="b")
    operator.lose("c")
    assert operator.members[child].suspicion == pytest.approx(1 / 4)
    assert operator.members[top].suspicion == pytest.approx(1 / 8)
    assert not may_invite(operator.members, child, operator.day + 100)


def test_who_waits_for_a_bridge_gets_the_next_one() -> None:
    operator = Operator(["a"])
    numbers = [operator.must_invite() for _ in range(12)]
    operator.lose("a")
    assert {operator.bridge_of(number) for number in numbers} == {""}
    operator.bridges = ["new"]
    operator.take(settle(operator.members, operator.bridges, operator.day))
    assert {operator.bridge_of(number) for number in numbers} == {"new"}


def test_all_who_came_in_through_somebody_are_found() -> None:
    operator = Operator(["a"])
    top, other = operator.must_invite(), operator.must_invite()
    child = operator.must_invite(top)
    operator.day += LEVEL_DAYS
    grandchild = operator.must_invite(child)
    assert {one.number for one in below(operator.members, top)} == {top, child, grandchild}
    assert {one.number for one in below(operator.members, other)} == {other}


@given(
    st.lists(st.tuples(st.sampled_from(["invite", "child", "lose", "gain", "wait"]), st.integers(0, 999)), max_size=60)
)
def test_whatever_happens_bounds_hold_and_buckets_stay_together(steps: list[tuple[str, int]]) -> None:
    operator, made = Operator(["b0", "b1"]), 2
    for what, chance in steps:
        numbers = sorted(operator.members)
        match what:
            case "invite":
                operator.invite()
            case "child" if numbers:
                operator.invite(numbers[chance % len(numbers)])
            case "lose" if operator.bridges:
                operator.lose(operator.bridges[chance % len(operator.bridges)])
            case "gain":
                operator.bridges.append(f"b{made}")
                made += 1
                operator.take(settle(operator.members, operator.bridges, operator.day))
            case _:
                operator.day += chance % 30
        for one in operator.members.values():
            assert one.bridge == "" or one.bridge in operator.bridges
            assert 0 <= one.suspicion <= 1
            assert one.ended == (one.suspicion > SUSPICION_MAX)
            inside = [other for other in operator.members.values() if other.bucket == one.bucket]
            assert len(inside) <= BUCKET
            assert len({other.bridge for other in inside if not other.ended}) <= 1
        on = [one.bridge for one in operator.members.values() if one.bridge]
        assert all(on.count(bridge) <= A_BRIDGE_MAX + BUCKET for bridge in operator.bridges)


def test_there_is_an_end_to_how_many_are_invited() -> None:
    operator = Operator([f"b{number}" for number in range(20)])
    while operator.invite() is not None:
        pass
    assert len(operator.members) == MEMBERS_MAX


def live(seed: int, *, by_trust: bool) -> tuple[float, int]:
    """120 days with 3 insiders among 60, who have every bridge blocked that they are told of.

    Returns which share of the honest has a bridge at the end, and how many bridges were lost.
    """
    chance = random.Random(seed)
    operator, insiders, made, lost = Operator([f"b{number}" for number in range(12)]), set[bytes](), 12, 0
    for day in range(120):
        operator.day += 1
        for _ in range(3 if len(operator.members) < 60 else 0):
            able = [number for number in operator.members if may_invite(operator.members, number, operator.day)]
            parent = chance.choice(able) if len(operator.members) >= 9 and able else None
            number = operator.invite(parent)
            if number and parent and len(insiders) < 3 and chance.random() < 0.1:
                insiders.add(number)
        if day % 10 == 0:
            operator.bridges.append(f"b{made}")
            made += 1
        operator.take(settle(operator.members, operator.bridges, operator.day))
        for bridge in sorted({operator.bridge_of(number) for number in insiders} & set(operator.bridges)):
            if chance.random() < 0.5:
                lost += 1
                if by_trust:
                    operator.lose(bridge)
                    continue
                operator.bridges.remove(bridge)
                for number, one in operator.members.items():
                    if one.bridge == bridge:
                        other = chance.choice(operator.bridges) if operator.bridges else ""
                        operator.members[number] = one._replace(bridge=other)
    honest = [one for number, one in operator.members.items() if number not in insiders]
    return sum(bool(one.bridge) for one in honest) / len(honest), lost


@pytest.mark.parametrize("seed", range(4))
def test_with_insiders_who_block_all_they_learn_most_others_keep_a_bridge(seed: int) -> None:
    share, lost = live(seed, by_trust=True)
    assert share >= 0.6
    assert lost <= 12
    share_by_chance, lost_by_chance = live(seed, by_trust=False)
    assert share_by_chance < 0.3 < share
    assert lost_by_chance > lost
