"""Bridges from contact to contact, by letters: asking, inviting, passing on, moving after a block, revoking."""

from __future__ import annotations

import secrets
from typing import Final, assert_never

import msgspec

from outlast.errors import NotFoundError, UsageError
from outlast.kernel import Node, Person, RowChange, RowChanges
from outlast.rooms.reach import agenda, view
from outlast.rooms.reach.agenda import Admit, Ask, Block, PassOn, Report, Tell
from outlast.rooms.reach.entries import (
    FAILED,
    HANDED,
    KEY_BYTES,
    NUMBER_BYTES,
    REVOKED,
    WANTED,
    Failed,
    Handed,
    Revoked,
    Wanted,
)
from outlast.rooms.reach.proto import invitations
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.serving import Served, link_for
from outlast.rooms.reach.view import Held, Invited, Passed, Want
from outlast.terms import Outcome

ROOM_NAME: Final = "reach"
NOTHING: Final = b""


def servers(person: Person) -> dict[str, Served]:
    """The own bridges by id, those that were added first first."""
    return {id: msgspec.json.decode(config, type=Served) for id, config, _ in view.served(person)}


def serving(person: Person) -> dict[str, bool]:
    """The own bridges, and whether each is not blocked."""
    return {id: blocked_ms is None for id, _, blocked_ms in view.served(person)}


async def invite(node: Node, person: Person, peer: bytes, bridge: str = "", request: bytes = NOTHING) -> None:
    """Give a contact (identity, 32 B) a bridge; returns once the letter is durable here.

    Who runs bridges gives a secret of the contact's own, under a number of the own tree. Who got a bridge that may be
    handed on asks its operator for another number, and what comes is passed on by itself. Else the contact gets a copy
    of the bridge that was named, or the only one that the person added themselves. Raises UsageError when there is none
    of these, and what sending a letter raises. ``request`` (16 B) is what this answers.
    """
    person.contact(peer)
    members = view.members(person).values()
    known = next((one for one in members if one.peer == peer and one.member.parent is None), None)
    if not bridge and known is not None and known.member.bridge:
        await _tell(node, person, known, request)
        return
    if not bridge and any(serving(person).values()):
        await _admit(node, person, None, peer, request)
        return
    held = view.bridges(person)
    generous = next((one for one in held if one.may_invite and one.peer is not None), None)
    if not bridge and generous is not None and generous.number is not None and generous.peer is not None:
        request = secrets.token_bytes(NUMBER_BYTES)
        want = Want(request, generous.peer, True, generous.number, peer, False, False, node.now_ms())
        await person.send(
            generous.peer, WANTED.name, Wanted(request, generous.number), local=lambda _: [view.want_row(want)]
        )
        return
    own = [one for one in held if one.peer is None and bridge in ("", one.id)]
    if bridge and not own:
        raise UsageError("this bridge is not yours to hand on: its operator did not say that you may")
    if len(own) != 1:
        if own:
            raise UsageError("say which bridge, by its id")
        raise UsageError("there is no bridge here that can be handed on: run or add one")
    if not view.is_for_others(read_bridge(own[0].link)):
        raise UsageError(
            "this way lets one's own network see where one goes: tell them of it yourself, if they want that"
        )
    await _send_copy(node, person, peer, own[0], request)


async def answer(node: Node, person: Person, request: bytes) -> None:
    """Give whoever asked for a bridge (request, 16 B) one; raises NotFoundError, and as ``invite`` does."""
    want = view.find_want(person, request)
    if want is None or want.mine or want.about:
        raise NotFoundError("nobody asks for a bridge under this number any more")
    await invite(node, person, want.peer, request=request)
    await remember(node, person, [view.want_gone(request)])


async def ask(node: Node, person: Person, peer: bytes) -> None:
    """Ask a contact for a bridge; whether they give one is theirs to decide. Raises what sending a letter raises."""
    request = secrets.token_bytes(NUMBER_BYTES)
    want = Want(request, peer, True, NOTHING, None, False, False, node.now_ms())
    await person.send(peer, WANTED.name, Wanted(request), local=lambda _: [view.want_row(want)])


async def revoke(node: Node, person: Person, peer: bytes) -> int:
    """Take back every bridge that a contact got from here, with all that came in through them; how many there were.

    An own bridge lets them in no more. Of a copy, or of what was only passed on, their node is told to forget it; who
    kept the link can still use it.
    """
    tree = {number: one.member for number, one in view.members(person).items()}
    tops = [number for number, one in view.members(person).items() if one.peer == peer]
    ended = {one.number for top in tops for one in invitations.below(tree, top)}
    handed_on = [one for one in view.passed(person) if one.peer == peer]
    for number in ended:
        whom = view.members(person)[number].peer
        await _tell_if_possible(person, whom, number, [view.member_gone(number)])
    for one in handed_on:
        await _tell_if_possible(person, one.peer, one.number, [view.passed_gone(one.number)])
    await remember(node, person, [])
    if not ended and not handed_on:
        raise NotFoundError("this contact has no bridge from you")
    return len(ended) + len(handed_on)


async def lose(node: Node, person: Person, bridge: str) -> None:
    """An own bridge is blocked: suspicion climbs, and who is left moves to the others."""
    now_ms = node.now_ms()
    open_before = serving(person)
    if not open_before.get(bridge):
        raise NotFoundError("there is no such bridge of yours, or it counts as blocked already")
    changed = agenda.moved(view.members(person), open_before | {bridge: False}, bridge, node.today())
    await remember(node, person, [view.blocked_row(bridge, now_ms), *map(view.member_row, changed)])


async def settle(node: Node, person: Person) -> None:
    """Whoever waits for a bridge gets one of the open ones."""
    changed = agenda.moved(view.members(person), serving(person), "", node.today())
    await remember(node, person, [view.member_row(one) for one in changed])


async def carry_out(node: Node, person: Person, duty: Ask | Admit | PassOn | Tell | Report | Block) -> None:
    """Do what is due of letters. Raises what sending a letter raises; then it is tried again, or dropped by age."""
    match duty:
        case Ask(want):
            row = view.asked_row(want.request)
            await person.send(want.peer, WANTED.name, Wanted(want.request, want.about), local=lambda _: [row])
        case Admit(want):
            try:
                await _admit(node, person, want.about, want.peer, want.request)
            finally:  # whoever may not is not told: a refusal would tell an insider how suspect they are
                await remember(node, person, [view.want_gone(want.request)])
        case PassOn(passed):
            await _pass_on(person, passed)
        case Tell(invited):
            await _tell(node, person, invited)
        case Report(held):
            await _report(person, held)
        case Block(bridge):
            await lose(node, person, bridge)
        case _:
            assert_never(duty)


async def _admit(node: Node, person: Person, parent: bytes | None, peer: bytes, request: bytes) -> None:
    """Put one more into the own tree, and send them what they were invited to."""
    tree = {number: one.member for number, one in view.members(person).items()}
    open_ones = [bridge for bridge, serves in serving(person).items() if serves]
    number = secrets.token_bytes(NUMBER_BYTES)
    member = invitations.invite(tree, open_ones, parent, number, node.today())
    if member is None:
        raise UsageError("nobody more can be invited now: add a bridge, or wait until trust has grown")
    until_day = node.today() + view.LIFE_DAYS
    invited = Invited(member, peer, secrets.token_bytes(KEY_BYTES), member.bridge, until_day, "")
    # One transaction: who is in the tree was told of it.
    body = _letter(node, person, invited, until_day, request)
    await person.send(peer, HANDED.name, body, local=lambda _: [view.invited_row(invited)])


async def _tell(node: Node, person: Person, invited: Invited, request: bytes = NOTHING) -> None:
    """Send a member the bridge on which they are now."""
    until_day = node.today() + view.LIFE_DAYS
    told = view.told_row(invited.member.number, invited.member.bridge, until_day)
    body = _letter(node, person, invited, until_day, request)
    await person.send(invited.peer, HANDED.name, body, local=lambda _: [told])


def _letter(node: Node, person: Person, invited: Invited, until_day: int, request: bytes) -> Handed:
    member = invited.member
    server = servers(person)[member.bridge]
    tree = {number: one.member for number, one in view.members(person).items()} | {member.number: member}
    link = link_for(server, invited.secret, node.transport_id if server.takes_sync else NOTHING)
    may_invite = invitations.may_invite(tree, member.number, node.today())
    return Handed(member.number, link, until_day, may_invite, request)


async def _send_copy(node: Node, person: Person, peer: bytes, held: Held, request: bytes) -> None:
    number, until_day = secrets.token_bytes(NUMBER_BYTES), node.today() + view.LIFE_DAYS
    given = Passed(number, person.identity, peer, "", False, until_day, NOTHING, "", "")
    body = Handed(number, held.link, until_day, False, request)
    await person.send(peer, HANDED.name, body, local=lambda _: [view.passed_row(given)])


async def _pass_on(person: Person, passed: Passed) -> None:
    body: msgspec.Struct
    done: RowChange = view.passed_row(passed._replace(due="", request=NOTHING, link=""))
    match passed.due:
        case "failed":
            outcome: Outcome = msgspec.convert(passed.failed, Outcome)
            if passed.upper != person.identity:
                await person.send(passed.upper, FAILED.name, Failed(passed.number, outcome), local=lambda _: [done])
        case "revoked":
            await _tell_if_possible(person, passed.peer, passed.number, [view.passed_gone(passed.number)])
        case _:
            body = Handed(passed.number, passed.link, passed.until_day, passed.may_invite, passed.request)
            await person.send(passed.peer, HANDED.name, body, local=lambda _: [done])


async def _report(person: Person, held: Held) -> None:
    if held.peer is None or held.number is None:
        return
    body = Failed(held.number, msgspec.convert(held.outcome, Outcome))
    row = view.told_of_failure_row(held.id)
    await person.send(held.peer, FAILED.name, body, local=lambda _: [row])


async def _tell_if_possible(person: Person, peer: bytes, number: bytes, changes: list[RowChange]) -> None:
    """Tell somebody that a number is over, with these changes; who is no contact any more is told nothing."""
    try:
        await person.send(peer, REVOKED.name, Revoked(number), local=lambda _: changes)
    except (UsageError, NotFoundError):
        await remember(person.node, person, changes)


async def remember(node: Node, person: Person, changes: RowChanges) -> None:
    """Write rows of the vault, and say that a page may show something else."""
    await node.write(lambda: person.vault.transaction(changes, ROOM_NAME))
    node.touch()
