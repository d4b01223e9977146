"""Chains: what comes next, what is missing, and the proof of a fork."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.kernel.entry import Entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import Fork, Gap, Head, Next, Old, next_entry, position

AUTHOR = SigningKey.from_seed(b"a" * 32)


def written(head: Head | None, text: bytes = b"") -> Entry:
    return next_entry(
        AUTHOR,
        head,
        space=b"s" * 32,
        kind="test.note",
        payload=text,
        clock=0,
        ts_ms=1_800_000_000_000,
        life_ms=1000,
        priority=2,
    )


def chain(length: int, head: Head | None = None, text: bytes = b"") -> list[Entry]:
    entries = []
    for _ in range(length):
        entry = written(head, text)
        head = head_of(entry)
        entries.append(entry)
    return entries


def head_of(entry: Entry) -> Head:
    return Head(entry.header.seq, entry.id)


def test_entries_in_order_come_next_one_by_one() -> None:
    head = None
    for entry in chain(5):
        assert position(head, entry.header, entry.id) == Next()
        head = head_of(entry)


def test_a_gap_names_what_is_missing() -> None:
    first, _, _, fourth = chain(4)
    assert position(head_of(first), fourth.header, fourth.id) == Gap(2, 3)
    assert position(None, fourth.header, fourth.id) == Gap(1, 3)


def test_what_fills_a_gap_is_old() -> None:
    _, second, _, fourth = chain(4)
    assert position(head_of(fourth), second.header, second.id) == Old()


def test_the_same_entry_again_is_old() -> None:
    first, second = chain(2)
    assert position(head_of(second), second.header, second.id, second.id) == Old()
    assert position(head_of(second), first.header, first.id, first.id) == Old()


def test_two_entries_of_one_number_are_a_fork_at_the_head_and_below() -> None:
    first, second, third = chain(3)
    other = written(head_of(first), b"other")
    assert position(head_of(second), other.header, other.id) == Fork(2)
    assert position(head_of(third), other.header, other.id, second.id) == Fork(2)


def test_an_entry_whose_prev_is_another_is_a_fork_at_the_number_before() -> None:
    first, second = chain(2)
    third = written(head_of(written(head_of(first), b"other")))
    assert position(head_of(second), third.header, third.id) == Fork(2)


def test_entries_without_a_chain_are_never_a_fork() -> None:
    loose = written(None)
    header = loose.header
    unchained = type(header)(*[0 if name == "seq" else getattr(header, name) for name in header.__struct_fields__])
    assert position(Head(9, b"h" * 32), unchained, loose.id) == Old()


@given(st.permutations(range(8)), st.integers(0, 7))
def test_in_any_order_a_fork_is_found_exactly_when_there_is_one(order: list[int], parted: int) -> None:
    honest = chain(8)
    before = head_of(honest[parted - 1]) if parted else None
    branch = written(before, b"branch")
    for entries, forked in ((honest, False), ([*honest[:parted], branch, *honest[parted:]], True)):
        held: dict[int, bytes] = {}
        head: Head | None = None
        found = False
        arrival = [entries[i] for i in order] + ([entries[8]] if forked else [])
        for entry in arrival:
            where = position(head, entry.header, entry.id, held.get(entry.header.seq))
            found = found or isinstance(where, Fork)
            held.setdefault(entry.header.seq, entry.id)
            if isinstance(where, Next | Gap):
                head = head_of(entry)
        assert found is forked
