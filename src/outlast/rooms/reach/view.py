"""Reach's tables: all in the vault, encrypted and short-lived, and the questions that are asked of them. Pure.

The node's store gets nothing of it: which bridges somebody has, who gave them, whom they gave them to, and what worked
in which network would name people in a raid. Rows carry the day on which they go, and ``forgotten`` takes them then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from outlast.errors import OutlastError, ProtocolError
from outlast.kernel import DAY_MS, Delete, Letter, Put, RowChange, RowChanges, Rows, Update, Value
from outlast.rooms.reach.entries import (
    FAILED,
    HANDED,
    REVOKED,
    THROUGH,
    UPLINK,
    WANTED,
    Handed,
    Uplink,
    is_sane_failed,
    is_sane_handed,
    is_sane_through,
    is_sane_uplink,
    is_sane_wanted,
)
from outlast.rooms.reach.proto.bridge import Bridge, ProxyBridge, Tricks
from outlast.rooms.reach.proto.chooser import MEMORY_DAYS, Worked
from outlast.rooms.reach.proto.invitations import Member
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, write_bridge

SETTING: Final = "local_reach_setting"
BRIDGE: Final = "local_reach_bridge"
WANT: Final = "local_reach_want"
PASSED: Final = "local_reach_passed"
MEMBER: Final = "local_reach_member"
SERVED: Final = "local_reach_served"
WORKED: Final = "local_reach_worked"
LENT: Final = "local_reach_lent"
BORROWED: Final = "local_reach_borrowed"
OWN_KEY: Final = "local_reach_own_key"
SAID: Final = "local_reach_said"

OF_ONE_MAX: Final = 16
"""Bridges, requests and passed numbers of one contact that are kept at a time."""
BRIDGES_MAX: Final = 200
WANT_DAYS: Final = 30
LIFE_DAYS: Final = 90
"""So long a bridge is good that was handed on, and no contact can make it longer."""

MIGRATIONS: Final = (
    f"CREATE TABLE {SETTING} (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    f"CREATE TABLE {BRIDGE} (id TEXT PRIMARY KEY, link TEXT, peer BLOB, number BLOB, may_invite INTEGER,"
    " added_ms INTEGER, until_day INTEGER, failing_ms INTEGER, outcome TEXT, told INTEGER) WITHOUT ROWID",
    f"CREATE TABLE {WANT} (request BLOB PRIMARY KEY, peer BLOB, mine INTEGER, about BLOB, whom BLOB, keeps INTEGER,"
    " due INTEGER, at_ms INTEGER) WITHOUT ROWID",
    f"CREATE TABLE {PASSED} (number BLOB PRIMARY KEY, upper BLOB, peer BLOB, link TEXT, may_invite INTEGER,"
    " until_day INTEGER, request BLOB, failed TEXT, due TEXT) WITHOUT ROWID",
    f"CREATE TABLE {MEMBER} (number BLOB PRIMARY KEY, parent BLOB, bucket INTEGER, bridge TEXT, since_day INTEGER,"
    " level INTEGER, suspicion REAL, ended INTEGER, peer BLOB, secret BLOB, told TEXT, until_day INTEGER, failed TEXT)"
    " WITHOUT ROWID",
    f"CREATE TABLE {SERVED} (id TEXT PRIMARY KEY, config BLOB, blocked_ms INTEGER, added_ms INTEGER) WITHOUT ROWID",
    f"CREATE TABLE {WORKED} (network TEXT, bridge TEXT, place INTEGER, day INTEGER, PRIMARY KEY (network, bridge))"
    " WITHOUT ROWID",
    f"CREATE TABLE {LENT} (number BLOB PRIMARY KEY, peer BLOB, key BLOB, day_bytes INTEGER, day INTEGER,"
    " spent INTEGER, targets BLOB, told BLOB) WITHOUT ROWID",
    f"CREATE TABLE {BORROWED} (number BLOB PRIMARY KEY, peer BLOB, offer BLOB, accepted INTEGER, told BLOB,"
    " until_day INTEGER) WITHOUT ROWID",
    f"CREATE TABLE {OWN_KEY} (day INTEGER PRIMARY KEY, seed BLOB)",
    f"CREATE TABLE {SAID} (what TEXT PRIMARY KEY, at_ms INTEGER) WITHOUT ROWID",
)


# ---- rows as the service reads them ----


@dataclass(frozen=True, slots=True)
class Held:
    """A bridge that the person can use. Without a ``peer`` they added it themselves.

    What a contact handed and they added as well has both a ``peer`` and no last day: it stays until they remove it.
    """

    id: str  # first 16 hex digits of SHA-256 of the canonical link
    link: str
    peer: bytes | None  # 32 B: the contact who handed it
    number: bytes | None  # 16 B: under which invitation
    may_invite: bool
    added_ms: int
    until_day: int  # 0 = until it is removed
    failing_ms: int | None  # since when it fails while others work
    outcome: str  # how it ended last, "" = not tried yet
    told: bool  # whether who handed it was told that it fails


class Want(NamedTuple):
    """A bridge that somebody wants.

    By ``mine`` we asked ``peer``, else they asked us. ``about`` is the invitation it goes on, empty when they want one
    for themselves and the person here is to decide. What comes is passed to ``whom``, if anybody.
    """

    request: bytes
    peer: bytes
    mine: bool
    about: bytes
    whom: bytes | None
    keeps: bool  # whether ``whom`` asked, and is answered under this request
    due: bool  # whether it is still to be asked
    at_ms: int


class Passed(NamedTuple):
    """What came from ``upper`` under a number and goes to ``peer``. ``due``: "bridge", "failed", "revoked" or ""."""

    number: bytes
    upper: bytes
    peer: bytes
    link: str
    may_invite: bool
    until_day: int
    request: bytes
    failed: str
    due: str


class Invited(NamedTuple):
    """A member of the own tree, and by whose letters they are reached."""

    member: Member
    peer: bytes  # 32 B, contact: the member, or who passes it on to them
    secret: bytes  # 32 B
    told: str  # the bridge that they were told of last
    until_day: int
    failed: str  # how it failed, as they say


class Lent(NamedTuple):
    """A share of the own uplink, given to a contact."""

    number: bytes
    peer: bytes
    key: bytes
    day_bytes: int
    day: int
    spent: int
    targets: tuple[tuple[str, int], ...]
    told: bytes  # what was offered last, hashed


class Borrowed(NamedTuple):
    """A neighbour's offer; used, and told of one's bridges, once it is accepted."""

    peer: bytes
    offer: Uplink
    accepted: bool
    told: bytes


# ---- what letters say ----


def receive(letter: Letter, rows: Rows) -> RowChanges:
    """The rows that a contact's letter brings, changes or takes; what was not asked for takes no more than a bound."""
    try:
        match letter.kind:
            case HANDED.name:
                return _handed(letter, rows)
            case WANTED.name:
                return _wanted(letter, rows)
            case FAILED.name:
                return _failed(letter, rows)
            case REVOKED.name:
                return _revoked(letter, rows)
            case UPLINK.name:
                return _uplink(letter, rows)
            case THROUGH.name:
                return _through(letter, rows)
            case _:
                return ()
    except ProtocolError:
        return ()


def _handed(letter: Letter, rows: Rows) -> RowChanges:
    body: Handed = HANDED.decode(letter.body)
    today = letter.received_ms // DAY_MS
    if not is_sane_handed(body) or body.until_day < today:
        return ()
    body = msgspec.structs.replace(body, until_day=min(body.until_day, today + LIFE_DAYS))
    passed = find_passed(rows, body.number)
    if passed is not None:
        if passed.upper != letter.sender:
            return ()
        again = passed._replace(
            link=body.link, until_day=body.until_day, may_invite=body.may_invite, request=b"", failed="", due="bridge"
        )
        return [passed_row(again)]
    want = find_want(rows, body.request) if body.request else None
    if body.request and (want is None or not want.mine or want.peer != letter.sender):
        return ()
    done = [want_gone(body.request)] if want else []
    if want is not None and want.whom is not None:
        request = want.request if want.keeps else b""
        fresh = Passed(
            body.number, letter.sender, want.whom, body.link, body.may_invite, body.until_day, request, "", "bridge"
        )
        return [*done, passed_row(fresh)]
    return [*done, *_held(letter, body, rows)]


def _held(letter: Letter, body: Handed, rows: Rows) -> RowChanges:
    """The rows of a bridge for oneself: in the place of what came under its number."""
    try:
        bridge = read_bridge(body.link)
        id, link = bridge_id(bridge), write_bridge(bridge)
    except OutlastError:
        return ()
    if not is_for_others(bridge):
        return ()
    known = bridges(rows)
    before = [one for one in known if one.number == body.number]
    if any(one.peer != letter.sender for one in before):
        return ()
    same = next((one for one in known if one.id == id), None)
    if same is not None and same.number != body.number:
        return ()  # it is here already, by oneself or somebody else
    others = [one for one in known if one.peer == letter.sender and one.number != body.number]
    if len(others) >= OF_ONE_MAX or len(known) >= BRIDGES_MAX:
        return ()
    gone = [_taken_back(one) for one in before]
    until_day = 0 if same is not None and not same.until_day else body.until_day
    fresh = Held(id, link, letter.sender, body.number, body.may_invite, letter.received_ms, until_day, None, "", False)
    return [*gone, bridge_row(fresh)]


def _taken_back(one: Held) -> RowChange:
    """The row of a bridge that who handed it wants back: what the person added as well is theirs alone from now on."""
    if one.until_day:
        return bridge_gone(one.id)
    return Update(BRIDGE, {"id": one.id}, {"peer": None, "number": None, "may_invite": 0})


def is_for_others(bridge: Bridge) -> bool:
    """Whether a way out may come by letter: not one that lets one's own network see where one goes."""
    return not isinstance(bridge, ProxyBridge | Tricks)


def _wanted(letter: Letter, rows: Rows) -> RowChanges:
    body = WANTED.decode(letter.body)
    if not is_sane_wanted(body) or find_want(rows, body.request) is not None:
        return ()
    if len([one for one in wants(rows) if letter.sender in (one.peer, one.whom)]) >= OF_ONE_MAX:
        return ()
    fresh = Want(body.request, letter.sender, False, body.on, None, False, False, letter.received_ms)
    if not body.on:
        return [want_row(fresh)]
    member = find_member(rows, body.on)
    if member is not None and member.peer == letter.sender:
        return [want_row(fresh._replace(due=True))]
    passed = find_passed(rows, body.on)
    if passed is not None and passed.peer == letter.sender:
        return [want_row(fresh._replace(peer=passed.upper, mine=True, whom=letter.sender, keeps=True, due=True))]
    return ()


def _failed(letter: Letter, rows: Rows) -> RowChanges:
    body = FAILED.decode(letter.body)
    if not is_sane_failed(body):
        return ()
    member = find_member(rows, body.number)
    if member is not None and member.peer == letter.sender:
        return [Put(MEMBER, {"number": body.number, "failed": body.outcome})]
    passed = find_passed(rows, body.number)
    if passed is not None and passed.peer == letter.sender and not passed.due:
        return [passed_row(passed._replace(failed=body.outcome, due="failed"))]
    return ()


def _revoked(letter: Letter, rows: Rows) -> RowChanges:
    body = REVOKED.decode(letter.body)
    passed = find_passed(rows, body.number)
    if passed is not None:
        return [passed_row(passed._replace(due="revoked"))] if passed.upper == letter.sender else ()
    gone = [_taken_back(one) for one in bridges(rows) if one.number == body.number and one.peer == letter.sender]
    offers = [one for one in borrowed(rows) if one.offer.number == body.number and one.peer == letter.sender]
    return [*gone, *(borrowed_gone(one.offer.number) for one in offers)]


def _uplink(letter: Letter, rows: Rows) -> RowChanges:
    body = UPLINK.decode(letter.body)
    today = letter.received_ms // DAY_MS
    if not is_sane_uplink(body) or body.until_day < today:
        return ()
    body = msgspec.structs.replace(body, until_day=min(body.until_day, today + LIFE_DAYS))
    known = borrowed(rows)
    if any(one.offer.number == body.number and one.peer != letter.sender for one in known):
        return ()
    mine = [one for one in known if one.peer == letter.sender]
    if not mine and len(known) >= OF_ONE_MAX:
        return ()
    # One offer of each contact: a later one, from wherever they are now, takes the place of the one before.
    accepted = any(one.accepted and one.offer.number == body.number for one in mine)
    gone = [borrowed_gone(one.offer.number) for one in mine if one.offer.number != body.number]
    return [*gone, borrowed_row(Borrowed(letter.sender, body, accepted, b""))]


def _through(letter: Letter, rows: Rows) -> RowChanges:
    body = THROUGH.decode(letter.body)
    if not is_sane_through(body):
        return ()
    if not any(one.number == body.number and one.peer == letter.sender for one in lent(rows)):
        return ()
    return [Put(LENT, {"number": body.number, "targets": msgspec.msgpack.encode(body.targets)})]


# ---- questions, and rows ----


def settings(vault: Rows) -> dict[str, str]:
    """What the person has chosen, by name."""
    return dict(vault.query(f"SELECT name, value FROM {SETTING}"))


def setting_rows(chosen: dict[str, str]) -> list[RowChange]:
    """The rows of what the person chooses."""
    return [Put(SETTING, {"name": name, "value": value}) for name, value in chosen.items()]


_HELD: Final = "id, link, peer, number, may_invite, added_ms, until_day, failing_ms, outcome, told"


def bridges(vault: Rows) -> list[Held]:
    """All bridges, those that were added first first."""
    rows = vault.query(f"SELECT {_HELD} FROM {BRIDGE} ORDER BY added_ms, id")
    return [
        Held(id, link, peer, number, bool(may), added, until, failing, outcome, bool(told))
        for id, link, peer, number, may, added, until, failing, outcome, told in rows
    ]


def bridge_row(one: Held) -> RowChange:
    """The row of a bridge."""
    row: dict[str, Value] = {name: getattr(one, name) for name in _HELD.split(", ")}
    return Put(BRIDGE, row | {"may_invite": int(one.may_invite), "told": int(one.told)})


def added_row(id: str) -> RowChange:
    """The row of a bridge that a contact handed, and the person adds: it has no last day any more."""
    return Update(BRIDGE, {"id": id}, {"until_day": 0})


def bridge_gone(id: str) -> RowChange:
    """The row of a bridge that goes."""
    return Delete(BRIDGE, {"id": id})


def told_of_failure_row(id: str) -> RowChange:
    """The row of a bridge whose giver was told that it fails."""
    return Update(BRIDGE, {"id": id}, {"told": 1})


def noted_row(one: Held) -> RowChange:
    """The row of a bridge with how it went."""
    row = {"failing_ms": one.failing_ms, "outcome": one.outcome, "told": int(one.told)}
    return Update(BRIDGE, {"id": one.id}, row)


_WANT: Final = ", ".join(Want._fields)


def wants(vault: Rows) -> list[Want]:
    """All requests, the oldest first."""
    rows = vault.query(f"SELECT {_WANT} FROM {WANT} ORDER BY at_ms, request")
    return [_want(row) for row in rows]


def find_want(vault: Rows, request: bytes) -> Want | None:
    """The request of that number."""
    rows = vault.query(f"SELECT {_WANT} FROM {WANT} WHERE request = ?", (request,))
    return _want(rows[0]) if rows else None


def _want(row: Sequence[Any]) -> Want:
    request, peer, mine, about, whom, keeps, due, at_ms = row
    return Want(request, peer, bool(mine), about, whom, bool(keeps), bool(due), at_ms)


def want_row(one: Want) -> RowChange:
    """The row of a request."""
    return Put(WANT, {**one._asdict(), "mine": int(one.mine), "keeps": int(one.keeps), "due": int(one.due)})


def asked_row(request: bytes) -> RowChange:
    """The row of a request that was sent."""
    return Update(WANT, {"request": request}, {"due": 0})


def want_gone(request: bytes) -> RowChange:
    """The row of a request that goes."""
    return Delete(WANT, {"request": request})


_PASSED: Final = ", ".join(Passed._fields)


def passed(vault: Rows) -> list[Passed]:
    """All that was passed on."""
    return [_passed(row) for row in vault.query(f"SELECT {_PASSED} FROM {PASSED} ORDER BY number")]


def find_passed(vault: Rows, number: bytes) -> Passed | None:
    """What was passed on under a number."""
    rows = vault.query(f"SELECT {_PASSED} FROM {PASSED} WHERE number = ?", (number,))
    return _passed(rows[0]) if rows else None


def _passed(row: Sequence[Any]) -> Passed:
    return Passed(*row)._replace(may_invite=bool(row[4]))


def passed_row(one: Passed) -> RowChange:
    """The row of what is passed on."""
    return Put(PASSED, {**one._asdict(), "may_invite": int(one.may_invite)})


def passed_gone(number: bytes) -> RowChange:
    """The row of what was passed on and is over."""
    return Delete(PASSED, {"number": number})


_INVITED: Final = (
    "number, parent, bucket, bridge, since_day, level, suspicion, ended, peer, secret, told, until_day, failed"
)


def members(vault: Rows) -> dict[bytes, Invited]:
    """The tree of those who were invited to the own bridges, by number."""
    rows = vault.query(f"SELECT {_INVITED} FROM {MEMBER} ORDER BY bucket, number")
    return {row[0]: _invited(row) for row in rows}


def find_member(vault: Rows, number: bytes) -> Invited | None:
    """The member of that number."""
    rows = vault.query(f"SELECT {_INVITED} FROM {MEMBER} WHERE number = ?", (number,))
    return _invited(rows[0]) if rows else None


def _invited(row: Sequence[Any]) -> Invited:
    return Invited(Member._make((*row[:7], bool(row[7]))), *row[8:])


def invited_row(one: Invited) -> RowChange:
    """The row of a member."""
    rest = {name: value for name, value in one._asdict().items() if name != "member"}
    return Put(MEMBER, {**one.member._asdict(), "ended": int(one.member.ended), **rest})


def member_row(one: Member) -> RowChange:
    """The row of a member whose place in the tree changes; a failure that they told of was that of another bridge."""
    return Update(MEMBER, {"number": one.number}, {**one._asdict(), "ended": int(one.ended), "failed": ""})


def told_row(number: bytes, bridge: str, until_day: int) -> RowChange:
    """The row of a member who was told where they are."""
    return Update(MEMBER, {"number": number}, {"told": bridge, "until_day": until_day})


def member_gone(number: bytes) -> RowChange:
    """The row of a member who goes."""
    return Delete(MEMBER, {"number": number})


def served(vault: Rows) -> list[tuple[str, bytes, int | None]]:
    """The own bridges: (id, configuration as JSON, since when it is blocked)."""
    return vault.query(f"SELECT id, config, blocked_ms FROM {SERVED} ORDER BY added_ms, id")


def served_row(id: str, config: bytes, now_ms: int) -> RowChange:
    """The row of an own bridge that is new."""
    return Put(SERVED, {"id": id, "config": config, "blocked_ms": None, "added_ms": now_ms})


def blocked_row(id: str, now_ms: int | None) -> RowChange:
    """The row of an own bridge that is blocked since then, or is not (None)."""
    return Update(SERVED, {"id": id}, {"blocked_ms": now_ms})


def served_gone(id: str) -> RowChange:
    """The row of an own bridge that goes."""
    return Delete(SERVED, {"id": id})


def worked(vault: Rows) -> dict[str, tuple[Worked, ...]]:
    """What worked, by the key of the network, the latest first."""
    found: dict[str, tuple[Worked, ...]] = {}
    for network, bridge, day in vault.query(f"SELECT network, bridge, day FROM {WORKED} ORDER BY network, place"):
        found[network] = (*found.get(network, ()), Worked(bridge, day))
    return found


def worked_rows(network: str, those: Sequence[Worked]) -> list[RowChange]:
    """The rows of what worked on a network, in place of what was kept for it."""
    rows = [
        Put(WORKED, {"network": network, "bridge": one.id, "place": place, "day": one.day})
        for place, one in enumerate(those)
    ]
    return [Delete(WORKED, {"network": network}), *rows]


def still_held(vault: Rows, worked: Sequence[Worked]) -> list[Worked]:
    """What of that may be kept: a relaying process still knows where bridges worked that were removed since."""
    held = {one.id for one in bridges(vault)}
    return [one for one in worked if one.id.partition("+")[0] in held]


_LENT: Final = ", ".join(Lent._fields)


def lent(vault: Rows) -> list[Lent]:
    """All shares of the own uplink."""
    rows = vault.query(f"SELECT {_LENT} FROM {LENT} ORDER BY number")
    return [Lent(*row)._replace(targets=_targets(row[6])) for row in rows]


def lent_row(one: Lent) -> RowChange:
    """The row of a share."""
    return Put(LENT, {**one._asdict(), "targets": msgspec.msgpack.encode(one.targets)})


def offered_row(number: bytes, told: bytes) -> RowChange:
    """The row of a share whose holder was told where it is."""
    return Update(LENT, {"number": number}, {"told": told})


def spent_row(number: bytes, day: int, spent: int) -> RowChange:
    """The row of what a member has used of a day."""
    return Update(LENT, {"number": number}, {"day": day, "spent": spent})


def unnamed_row(number: bytes) -> RowChange:
    """The row of a share whose holder's bridges are forgotten; they are offered it anew, and then name theirs."""
    return Update(LENT, {"number": number}, {"targets": msgspec.msgpack.encode(()), "told": b""})


def lent_gone(number: bytes) -> RowChange:
    """The row of a share that ends."""
    return Delete(LENT, {"number": number})


def borrowed(vault: Rows) -> list[Borrowed]:
    """All offers of neighbours."""
    rows = vault.query(f"SELECT peer, offer, accepted, told FROM {BORROWED} ORDER BY number")
    return [
        Borrowed(peer, msgspec.msgpack.decode(offer, type=Uplink), bool(accepted), told)
        for peer, offer, accepted, told in rows
    ]


def borrowed_row(one: Borrowed) -> RowChange:
    """The row of an offer."""
    row: dict[str, Value] = {
        "number": one.offer.number,
        "peer": one.peer,
        "offer": msgspec.msgpack.encode(one.offer),
        "accepted": int(one.accepted),
        "told": one.told,
        "until_day": one.offer.until_day,
    }
    return Put(BORROWED, row)


def accepted_row(number: bytes, *, accepted: bool) -> RowChange:
    """The row of an offer that is used from now on, or no more; its host is told anew."""
    return Update(BORROWED, {"number": number}, {"accepted": int(accepted), "told": b""})


def named_row(number: bytes, told: bytes) -> RowChange:
    """The row of an offer whose host was told of the own bridges."""
    return Update(BORROWED, {"number": number}, {"told": told})


def borrowed_gone(number: bytes) -> RowChange:
    """The row of an offer that is over."""
    return Delete(BORROWED, {"number": number})


def own_key(vault: Rows, day: int) -> bytes | None:
    """The seed (32 B) of the key under which is published in the week from ``day`` on."""
    rows = vault.query(f"SELECT seed FROM {OWN_KEY} WHERE day = ?", (day,))
    return rows[0][0] if rows else None


def own_key_row(day: int, seed: bytes) -> RowChange:
    """The row of the key of a week."""
    return Put(OWN_KEY, {"day": day, "seed": seed})


def said_row(what: str, now_ms: int) -> RowChange:
    """The row by which it stands when something was done."""
    return Put(SAID, {"what": what, "at_ms": now_ms})


def said(vault: Rows) -> dict[str, int]:
    """When something was last done, in ms, by what it was."""
    return dict(vault.query(f"SELECT what, at_ms FROM {SAID}"))


def forgotten(vault: Rows, today: int, week: int) -> list[RowChange]:
    """The rows whose time is over: bridges, offers, what was passed on, what was tried, keys of earlier weeks."""
    now_ms = today * DAY_MS
    gone: list[RowChange] = [bridge_gone(one.id) for one in bridges(vault) if 0 < one.until_day < today]
    gone += [borrowed_gone(one.offer.number) for one in borrowed(vault) if one.offer.until_day < today]
    gone += [passed_gone(one.number) for one in passed(vault) if one.until_day < today]
    gone += [want_gone(one.request) for one in wants(vault) if one.at_ms < now_ms - WANT_DAYS * DAY_MS]
    old = vault.query(f"SELECT network, bridge FROM {WORKED} WHERE day < ?", (today - MEMORY_DAYS,))
    gone += [Delete(WORKED, {"network": network, "bridge": bridge}) for network, bridge in old]
    keys = vault.query(f"SELECT day FROM {OWN_KEY} WHERE day <> ?", (week,))
    gone += [Delete(OWN_KEY, {"day": day}) for (day,) in keys]
    gone += [Delete(SAID, {"what": what}) for what, at_ms in said(vault).items() if at_ms < now_ms - LIFE_DAYS * DAY_MS]
    return gone


def every_row() -> list[RowChange]:
    """Deletes all that is held of others' bridges, and where they worked."""
    return [Delete(table, {}) for table in (WORKED, BRIDGE, WANT, PASSED, BORROWED)]


def _targets(data: bytes) -> tuple[tuple[str, int], ...]:
    return msgspec.msgpack.decode(data, type=tuple[tuple[str, int], ...])
