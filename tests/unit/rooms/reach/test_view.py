"""What letters of contacts may change in the vault, and what they may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel import DAY_MS
from outlast.rooms.reach import view
from outlast.rooms.reach.entries import (
    FAILED,
    HANDED,
    LETTERS,
    REVOKED,
    THROUGH,
    UPLINK,
    WANTED,
    Failed,
    Handed,
    Revoked,
    Through,
    Uplink,
    Wanted,
)
from outlast.rooms.reach.proto.chooser import Worked
from outlast.rooms.reach.proto.invitations import Member
from tests.unit.rooms.reach.rows import Tables, letter
from tests.unit.rooms.reach.towns import NOW_MS

TODAY = NOW_MS // DAY_MS
ANN, BOB, EVE = b"a" * 32, b"b" * 32, b"e" * 32
NUMBER, OTHER, REQUEST = b"n" * 16, b"o" * 16, b"r" * 16


def link(port: int = 8388) -> str:
    """A bridge."""
    return f"ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:{port}"


def handed(number: bytes = NUMBER, port: int = 8388, request: bytes = b"", until_day: int = TODAY + 30) -> Handed:
    """A letter with a bridge."""
    return Handed(number, link(port), until_day, False, request)


def test_a_bridge_that_comes_is_kept_with_who_gave_it() -> None:
    tables = Tables()
    assert tables.hear(HANDED, handed(), ANN)
    (held,) = view.bridges(tables)
    assert (held.peer, held.number, held.until_day) == (ANN, NUMBER, TODAY + 30)


def test_no_bridge_is_kept_longer_than_ninety_days_and_none_that_is_over() -> None:
    tables = Tables()
    assert tables.hear(HANDED, handed(until_day=TODAY + 4000), ANN)
    assert view.bridges(tables)[0].until_day == TODAY + view.LIFE_DAYS
    assert not tables.hear(HANDED, handed(OTHER, 1, until_day=TODAY - 1), ANN)


@pytest.mark.parametrize("text", ["tricks://9.9.9.9:443/dns-query", "socks5://192.0.2.9:1080", "http://192.0.2.9:3128"])
def test_what_hides_nothing_from_the_own_network_comes_by_no_letter(text: str) -> None:
    assert not Tables().hear(HANDED, Handed(NUMBER, text, TODAY + 9, False), ANN)


def test_another_bridge_under_the_number_takes_the_place_of_the_first() -> None:
    tables = Tables()
    tables.hear(HANDED, handed(), ANN)
    tables.hear(HANDED, handed(port=9999), ANN)
    (held,) = view.bridges(tables)
    assert ":9999" in held.link


def test_nobody_else_replaces_or_revokes_what_a_contact_gave() -> None:
    tables = Tables()
    tables.hear(HANDED, handed(), ANN)
    before = tables.rows()
    assert not tables.hear(HANDED, handed(port=9999), EVE)
    assert not tables.hear(REVOKED, Revoked(NUMBER), EVE)
    assert not tables.hear(HANDED, handed(OTHER), EVE), "the same bridge from somebody else changes nothing"
    assert tables.rows() == before


def test_what_the_person_added_as_well_stays_theirs_when_who_handed_it_takes_it_back_or_replaces_it() -> None:
    for ending in (REVOKED, Revoked(NUMBER)), (HANDED, handed(port=9999)):
        tables = Tables()
        tables.hear(HANDED, handed(), ANN)
        (held,) = view.bridges(tables)
        tables.apply([view.added_row(held.id)])
        assert tables.hear(HANDED, handed(), ANN)
        assert tables.hear(*ending, ANN)
        (own,) = [one for one in view.bridges(tables) if one.id == held.id]
        assert (own.peer, own.number, own.until_day, own.link) == (None, None, 0, held.link)


def test_no_contact_fills_the_list_of_bridges() -> None:
    tables = Tables()
    for number in range(3 * view.OF_ONE_MAX):
        tables.hear(HANDED, handed(bytes([number]) * 16, 1000 + number), EVE)
    assert len(view.bridges(tables)) == view.OF_ONE_MAX


def test_an_answer_counts_only_from_whom_was_asked() -> None:
    tables = Tables()
    tables.apply([view.want_row(view.Want(REQUEST, ANN, True, b"", None, False, False, NOW_MS))])
    assert not tables.hear(HANDED, handed(request=REQUEST), EVE)
    assert not tables.hear(HANDED, handed(request=OTHER), ANN)
    assert tables.hear(HANDED, handed(request=REQUEST), ANN)
    assert view.wants(tables) == []


def test_what_is_for_somebody_else_is_passed_on_and_is_no_bridge_of_ones_own() -> None:
    tables = Tables()
    tables.apply([view.want_row(view.Want(REQUEST, ANN, True, OTHER, BOB, False, False, NOW_MS))])
    tables.hear(HANDED, handed(request=REQUEST), ANN)
    assert view.bridges(tables) == []
    (passed,) = view.passed(tables)
    assert (passed.upper, passed.peer, passed.due, passed.request) == (ANN, BOB, "bridge", b"")
    assert not tables.hear(HANDED, handed(port=1), EVE)
    assert not tables.hear(FAILED, Failed(NUMBER, "freeze"), EVE)
    assert not tables.hear(REVOKED, Revoked(NUMBER), BOB)
    assert not tables.hear(WANTED, Wanted(b"x" * 16, NUMBER), EVE)
    assert tables.hear(WANTED, Wanted(b"x" * 16, NUMBER), BOB)
    (want,) = view.wants(tables)
    assert (want.peer, want.whom, want.mine, want.due) == (ANN, BOB, True, True)


def test_only_who_is_a_member_asks_for_more_on_that_number_and_says_that_it_fails() -> None:
    tables = Tables()
    member = view.Invited(Member(NUMBER, None, 1, "b", TODAY, 1), BOB, bytes(32), "b", TODAY + 9, "")
    tables.apply([view.invited_row(member)])
    assert not tables.hear(WANTED, Wanted(REQUEST, NUMBER), EVE)
    assert not tables.hear(FAILED, Failed(NUMBER, "freeze"), EVE)
    assert not tables.hear(FAILED, Failed(NUMBER, "ok"), BOB)
    assert tables.hear(WANTED, Wanted(REQUEST, NUMBER), BOB)
    assert tables.hear(FAILED, Failed(NUMBER, "freeze"), BOB)
    assert view.members(tables)[NUMBER].failed == "freeze"
    assert view.members(tables)[NUMBER].member == member.member


def test_no_contact_asks_without_end() -> None:
    tables = Tables()
    for number in range(3 * view.OF_ONE_MAX):
        tables.hear(WANTED, Wanted(bytes([number]) * 16), EVE)
    assert len(view.wants(tables)) == view.OF_ONE_MAX


def uplink(number: bytes = NUMBER, host: str = "192.168.1.7") -> Uplink:
    """An offer."""
    return Uplink(number, (host,), 8388, b"k" * 32, 0, False, TODAY + 30)


def test_an_offer_is_not_used_before_it_is_accepted_and_stays_accepted_when_its_host_moves() -> None:
    tables = Tables()
    tables.hear(UPLINK, uplink(), ANN)
    (offer,) = view.borrowed(tables)
    assert not offer.accepted
    tables.apply([view.borrowed_row(offer._replace(accepted=True))])
    tables.hear(UPLINK, uplink(host="192.168.1.8"), ANN)
    assert [(one.offer.hosts, one.accepted) for one in view.borrowed(tables)] == [(("192.168.1.8",), True)]
    tables.hear(UPLINK, uplink(OTHER), ANN)
    assert [(one.offer.number, one.accepted) for one in view.borrowed(tables)] == [(OTHER, False)]


@pytest.mark.parametrize("host", ["198.51.100.7x", "8.8.8.8", "example.org", "0.0.0.0", "", "::"])
def test_an_offer_leads_nowhere_but_into_the_local_network(host: str) -> None:
    assert not Tables().hear(UPLINK, uplink(host=host), ANN)


def test_where_a_member_is_let_through_to_only_they_say() -> None:
    tables = Tables()
    tables.apply([view.lent_row(view.Lent(NUMBER, BOB, b"k" * 32, 0, TODAY, 0, (), b""))])
    assert not tables.hear(THROUGH, Through(NUMBER, (("192.0.2.9", 443),)), EVE)
    assert not tables.hear(THROUGH, Through(NUMBER, (("192.0.2.9", 0),)), BOB)
    assert tables.hear(THROUGH, Through(NUMBER, (("192.0.2.9", 443),)), BOB)
    assert view.lent(tables)[0].targets == (("192.0.2.9", 443),)


def test_what_is_over_is_wiped_and_what_is_not_stays() -> None:
    tables = Tables()
    for number, days in ((NUMBER, 1), (OTHER, 30)):
        tables.hear(HANDED, handed(number, 1000 + days, until_day=TODAY + days), ANN)
    tables.apply(
        [
            *view.worked_rows("net", [Worked("new", TODAY), Worked("old", TODAY - 13)]),
            view.own_key_row(TODAY - TODAY % 7, bytes(32)),
            view.own_key_row(TODAY - TODAY % 7 - 7, bytes(32)),
        ]
    )
    tables.apply(view.forgotten(tables, TODAY + 2, TODAY - TODAY % 7))
    assert [one.number for one in view.bridges(tables)] == [OTHER]
    assert view.worked(tables) == {"net": (Worked("new", TODAY),)}
    assert view.own_key(tables, TODAY - TODAY % 7)
    assert view.own_key(tables, TODAY - TODAY % 7 - 7) is None
    assert view.forgotten(tables, TODAY + 2, TODAY - TODAY % 7) == []


def test_what_worked_is_kept_for_each_network_in_its_order() -> None:
    tables = Tables()
    tables.apply(view.worked_rows("net", [Worked("a", TODAY), Worked("b", TODAY)]))
    tables.apply(view.worked_rows("other", [Worked("a", TODAY)]))
    tables.apply(view.worked_rows("net", [Worked("c", TODAY), Worked("a", TODAY)]))
    assert view.worked(tables) == {"net": (Worked("c", TODAY), Worked("a", TODAY)), "other": (Worked("a", TODAY),)}


@given(st.sampled_from([kind.name for kind in LETTERS] + ["reach.other"]), st.binary(max_size=200))
def test_whatever_a_letter_holds_it_raises_nothing(kind: str, body: bytes) -> None:
    assert view.receive(letter(kind, body, EVE), Tables()) is not None


def test_of_a_bridge_that_is_removed_it_is_not_remembered_anew_where_it_worked() -> None:
    tables = Tables()
    tables.hear(HANDED, handed(), ANN)
    (held,) = view.bridges(tables)
    worked = [Worked("removed", TODAY), Worked(f"{held.id}+0a0b0c0d", TODAY), Worked(held.id, TODAY)]
    assert view.still_held(tables, worked) == worked[1:]
    tables.apply(view.every_row())
    assert view.still_held(tables, worked) == []
