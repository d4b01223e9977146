"""Chains: what comes next, what is beyond a chain's head, and what stands outside of every chain."""

from __future__ import annotations

from outlast.kernel.entry import Entry
from outlast.kernel.identity import SigningKey
from outlast.kernel.log import Head, is_beyond, loose_entry, next_entry

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


def chain(length: int) -> list[Entry]:
    entries = [written(None)]
    while len(entries) < length:
        entries.append(written(head_of(entries[-1])))
    return entries


def head_of(entry: Entry) -> Head:
    return Head(entry.header.seq, entry.id)


def is_news(head: Entry | None, entry: Entry) -> bool:
    return is_beyond(head_of(head) if head is not None else None, entry.header.seq, entry.id)


def test_each_entry_has_the_next_number_and_names_the_one_before() -> None:
    first, second, third = chain(3)
    assert [entry.header.seq for entry in (first, second, third)] == [1, 2, 3]
    assert [entry.header.prev for entry in (first, second, third)] == [None, first.id, second.id]


def test_what_continues_a_chain_is_beyond_its_head_with_a_gap_or_without() -> None:
    first, second, _, fourth = chain(4)
    assert is_news(None, first)
    assert is_news(first, second)
    assert is_news(first, fourth)
    assert is_news(None, fourth)


def test_the_head_itself_and_what_lies_below_it_are_known() -> None:
    first, second, _, fourth = chain(4)
    assert not is_news(fourth, fourth)
    assert not is_news(fourth, second)
    assert not is_news(second, first)


def test_another_entry_of_the_heads_number_is_beyond_it() -> None:
    first, second = chain(2)
    other = written(head_of(first), b"other")
    assert is_news(second, other)
    assert is_news(other, second)


def test_a_loose_entry_has_no_place_in_any_chain() -> None:
    loose = loose_entry(
        AUTHOR, space=b"s" * 32, kind="test.note", payload=b"", ts_ms=1_800_000_000_000, life_ms=1000, priority=2
    )
    assert (loose.header.seq, loose.header.prev, loose.header.clock) == (0, None, 0)
