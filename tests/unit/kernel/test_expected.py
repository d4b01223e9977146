"""The tags that a person expects: each is found and stands for what it was made of, however many there are."""

from __future__ import annotations

import tracemalloc

from outlast.kernel import mail
from outlast.kernel.expected import LOOSE_MIN, Expected
from tests.unit.kernel.people import secret

DAY = 20_780
EACH = 16


def keys(count: int) -> list[bytes]:
    return [secret("key", number) for number in range(count)]


def test_each_tag_is_found_and_stands_for_its_key_and_counter_however_many_came_one_by_one() -> None:
    known = keys(3 * LOOSE_MIN // EACH)
    tags = Expected(DAY, known)
    for number in range(len(known)):
        made = tags.add(number, range(EACH))
        assert made == [mail.tag(known[number], DAY, counter) for counter in range(EACH)]
    for number, key in enumerate(known):
        for counter in (0, EACH - 1):
            assert tags.get(mail.tag(key, DAY, counter)) == (number, counter)
    assert len(tags) == len(known) * EACH
    assert set(tags) == {mail.tag(key, DAY, counter) for key in known for counter in range(EACH)}


def test_what_was_expected_is_expected_once() -> None:
    tags = Expected(DAY, keys(1))
    first = tags.add(0, range(LOOSE_MIN + 1))
    assert tags.add(0, range(8, LOOSE_MIN + 9)) == [*first[8:], *list(tags)[:8]]
    assert len(tags) == LOOSE_MIN + 9


def test_a_tag_that_only_begins_like_an_expected_one_is_not_expected() -> None:
    tags = Expected(DAY, keys(1))
    for tag in (*tags.add(0, range(4)), *tags.add(0, range(LOOSE_MIN + 1))):
        assert tag in tags
        assert tag[:8] + bytes(8) not in tags
        assert tags.get(tag[:8] + bytes(8)) is None


def test_the_tags_of_thousands_of_contacts_take_few_bytes_each() -> None:
    known = keys(2000)
    tracemalloc.start()
    try:
        tags = Expected(DAY, known)
        for number in range(len(known)):
            tags.add(number, range(EACH))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 48 * len(tags)
