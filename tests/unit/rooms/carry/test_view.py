"""Carry's tables: the same whatever the order of arrival; only those count whom the channel names."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.kernel.entry import DAY_MS, Entry
from outlast.kernel.identity import certify
from outlast.kernel.revocation import is_ended, revocation_in
from outlast.kernel.room import Change, Delete, Event, Letter, Put, Value
from outlast.kernel.store import Incoming, Store
from outlast.kernel.vault import Vault
from outlast.rooms.carry import ROOM, file_view, view
from outlast.rooms.carry.entries import DEVICE, HIDE, POST, SHARED, TEXT, File, Shared
from outlast.rooms.carry.view import fold, message_row, receive
from outlast.rooms.carry.words import SEARCH_MAX
from tests.unit.kernel.entries import KEY
from tests.unit.kernel.people import NOW_MS, Person, person, secret
from tests.unit.rooms.carry.said import (
    OWNER,
    SECOND,
    STRANGER,
    channel,
    device,
    ended,
    entry,
    hide,
    letter,
    post,
)

NEWS = channel()
OTHER_KIND = entry(OWNER.signing, NEWS.id, "carry.content", b"bytes", seq=1)
PEER = secret("peer")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store with carry's view."""
    opened = Store.open(tmp_path / "store.db", KEY, rooms=[ROOM])
    yield opened
    opened.close()


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """An empty vault with carry's tables."""
    opened = Vault.open(tmp_path / "vault.db", KEY, rooms=[ROOM])
    yield opened
    opened.close()


def add(store: Store, *entries: Entry) -> None:
    """Append entries one by one and fold them."""
    for one in entries:
        store.append([Incoming(one)])
    while store.fold("carry"):
        pass


def texts(store: Store, space: Entry = NEWS, now_ms: int = NOW_MS) -> list[str]:
    """What is shown in a channel."""
    return [one.text for one in view.posts(store, space.id, now_ms)]


def forked(store: Store) -> bool:
    """Whether the channel is said to have parted."""
    head = view.channel_head(store, NEWS.id)
    assert head is not None
    return head.forked


def take(vault: Vault, *letters: Letter) -> None:
    """Receive letters as the node does."""
    for one in letters:
        vault.write(lambda tx, one=one: tx.apply(receive(one, tx), "carry"))


def put(vault: Vault, number: int, text: str, at_ms: int = NOW_MS, peer: bytes = PEER) -> bytes:
    """Remember a letter that was sent; returns its id."""
    id = secret("sent", number)[:16]
    vault.transaction([message_row(id, peer, text, None, at_ms, None)], "carry")
    return id


# ---- channels ----


def test_posts_are_shown_in_the_order_of_their_clocks(store: Store) -> None:
    add(store, post(NEWS, "three", clock=3), NEWS, post(NEWS, "one", clock=1), post(NEWS, "two", clock=2))
    assert texts(store) == ["one", "two", "three"]
    shown = view.posts(store, NEWS.id, NOW_MS)
    assert {one.author for one in shown} == {OWNER.identity.public}
    head = view.channel_head(store, NEWS.id)
    assert head is not None
    assert (head.name, head.owner, head.writers, head.forked) == ("News", OWNER.identity.public, "owner", False)


def test_only_the_owner_is_shown_and_only_the_owner_removes(store: Store) -> None:
    real = post(NEWS, "real")
    other = post(NEWS, "removed", clock=2)
    add(
        store,
        NEWS,
        real,
        other,
        post(NEWS, "by a stranger", author=STRANGER.signing),
        hide(NEWS, real, author=STRANGER.signing),
        hide(NEWS, other),
    )
    assert texts(store) == ["real"]
    assert view.find_post(store, other.id, NOW_MS) is None


def test_the_owner_is_shown_also_where_the_genesis_names_no_signers_or_only_others(store: Store) -> None:
    alone, others = channel("Alone", signers=()), channel("Others", signers=(STRANGER,))
    for one in (alone, others):
        by_stranger = post(one, "by a stranger", author=STRANGER.signing)
        add(store, one, post(one, "by the owner"), by_stranger, hide(one, by_stranger))
        assert texts(store, one) == ["by the owner"]


def test_an_open_channel_shows_everybody_and_says_whom_nobody_vouches_for(store: Store) -> None:
    square = channel("Square", writers="anyone")
    mine = post(square, "regretted", author=STRANGER.signing, clock=2)
    add(
        store,
        square,
        post(square, "hello", author=STRANGER.signing),
        mine,
        post(square, "welcome", clock=3),
        hide(square, mine, author=STRANGER.signing),
    )
    assert [(one.text, one.author) for one in view.posts(store, square.id, NOW_MS)] == [
        ("hello", None),
        ("welcome", OWNER.identity.public),
    ]


def test_what_a_device_says_behind_its_end_is_not_the_owners(store: Store) -> None:
    last, lost = post(NEWS, "last", seq=2, clock=2), post(NEWS, "by the thief", seq=3, clock=3)
    other_branch = post(NEWS, "the same number", seq=2, clock=4)
    first = post(NEWS, "first", seq=1)
    add(store, NEWS, lost, hide(NEWS, first, seq=4), ended(NEWS, last), other_branch, last, first)
    add(store, post(NEWS, "outside of the chain", clock=5), device(NEWS), post(NEWS, "anew", author=SECOND, clock=9))
    assert texts(store) == ["first", "last", "anew"]
    add(store, hide(NEWS, first, author=SECOND, seq=1))
    assert texts(store) == ["last", "anew"]


def test_a_strangers_revocation_changes_nothing(store: Store) -> None:
    said = post(NEWS, "said", seq=1)
    add(store, NEWS, said, ended(NEWS, None, identity=STRANGER.identity), ended(channel("Other"), None))
    assert texts(store) == ["said"]


@settings(max_examples=20, deadline=None)
@given(bounds=st.lists(st.integers(0, 4), max_size=3), seqs=st.permutations(range(5)))
def test_the_view_counts_as_the_kernel_does(bounds: list[int], seqs: list[int]) -> None:
    said = [post(NEWS, str(seq), seq=seq, clock=seq) for seq in range(5)]
    ends = [ended(NEWS, said[bound] if bound else None, number=number) for number, bound in enumerate(bounds)]
    revocations = [one for end in ends if (one := revocation_in(end)) is not None]
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.db", KEY, rooms=[ROOM])
        add(store, *(said[seq] for seq in seqs), NEWS, *ends)
        shown = texts(store)
        store.close()
    kept = [p for p in said if not is_ended(p.header, p.id, OWNER.identity.public, revocations)]
    assert shown == [str(one.header.seq) for one in kept]


def test_a_removal_in_one_channel_removes_nothing_in_another(store: Store) -> None:
    other = channel("Other", owner=STRANGER)
    told = post(NEWS, "told")
    add(store, NEWS, other, told, hide(other, told, author=STRANGER.signing))
    assert texts(store) == ["told"]


def test_a_further_device_speaks_once_its_certificate_is_there(store: Store) -> None:
    add(store, NEWS, post(NEWS, "after the restore", author=SECOND))
    assert texts(store) == []
    assert view.author_of(store, NEWS.id, SECOND.public, NOW_MS) is None
    add(store, device(NEWS))
    assert texts(store) == ["after the restore"]
    assert view.author_of(store, NEWS.id, SECOND.public, NOW_MS) == OWNER.identity.public
    assert view.author_of(store, NEWS.id, SECOND.public, NOW_MS + 90 * DAY_MS) is None


def test_a_device_of_somebody_else_speaks_for_nobody(store: Store) -> None:
    foreign = device(NEWS, STRANGER.device.certificate, author=STRANGER.signing)
    damaged = device(NEWS, b"no certificate", author=STRANGER.signing)
    add(store, NEWS, foreign, damaged, post(NEWS, "false news", author=STRANGER.signing))
    assert texts(store) == []


def test_a_post_is_hidden_at_its_hour_and_gone_when_the_entry_is(store: Store) -> None:
    add(store, NEWS, post(NEWS, "of today"))
    assert texts(store, now_ms=NOW_MS + 30 * DAY_MS - 1) == ["of today"]
    assert texts(store, now_ms=NOW_MS + 30 * DAY_MS) == []
    while store.expire(NOW_MS // DAY_MS + 40):
        pass
    add(store)
    assert store.query("SELECT count(*) FROM view_carry_post") == [(0,)]


def test_a_channel_that_is_left_leaves_nothing_behind(store: Store) -> None:
    told = post(NEWS, "told")
    add(store, NEWS, told, post(NEWS, "fork", seq=1), post(NEWS, "fork!", seq=1), hide(NEWS, told), device(NEWS))
    while store.remove_space(NEWS.id):
        pass
    add(store)
    for (table,) in store.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'view_carry_*'"):
        assert store.query(f'SELECT count(*) FROM "{table}"') == [(0,)], table


def test_two_posts_in_one_place_of_the_owners_chain_are_both_shown_and_reported(store: Store) -> None:
    add(store, NEWS, post(NEWS, "come", seq=1), post(NEWS, "stay away", seq=1, clock=2))
    assert texts(store) == ["come", "stay away"]
    assert forked(store)


def test_a_strangers_fork_does_not_discredit_the_owner(store: Store) -> None:
    forks = [post(NEWS, text, seq=1, author=STRANGER.signing) for text in ("a", "b")]
    add(store, NEWS, *forks)
    assert not forked(store)


@pytest.mark.parametrize("other", [hide(NEWS, NEWS, seq=1), device(NEWS, author=OWNER.signing, seq=1), OTHER_KIND])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_fork_is_reported_whatever_stands_on_its_branches(store: Store, other: Entry, is_first: bool) -> None:
    said = post(NEWS, "said", seq=1)
    add(store, NEWS, *((other, said) if is_first else (said, other)))
    assert forked(store)
    store.remove([other.id])
    store.remove([said.id])
    add(store)
    assert not forked(store)


@pytest.mark.parametrize("is_first", [True, False])
def test_of_a_fork_where_the_device_was_ended_one_branch_counts_and_nothing_is_open(
    store: Store, is_first: bool
) -> None:
    last, other = post(NEWS, "last", seq=2), post(NEWS, "by the thief", seq=2)
    add(store, NEWS, *((other, last) if is_first else (last, other)), ended(NEWS, last))
    assert texts(store) == ["last"]
    assert not forked(store)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_device_that_two_signers_claim_speaks_for_the_same_one_everywhere(store: Store, is_first: bool) -> None:
    news = channel("Two", signers=[OWNER, STRANGER])
    claim = device(
        news, certify(STRANGER.identity, SECOND, secret("seal"), 20_000, "stranger"), author=STRANGER.signing
    )
    add(store, news, *((claim, device(news)) if is_first else (device(news), claim)), post(news, author=SECOND))
    [shown] = view.posts(store, news.id, NOW_MS)
    assert shown.author == min(OWNER.identity.public, STRANGER.identity.public)
    assert view.author_of(store, news.id, SECOND.public, NOW_MS) == shown.author


def test_a_payload_that_comes_late_is_shown_then_and_one_dropped_is_not(store: Store) -> None:
    told = post(NEWS, "late")
    store.append([Incoming(Entry(told.header, told.header_bytes, told.signature, told.id, None))])
    add(store, NEWS)
    assert texts(store) == []
    add(store, told)
    assert texts(store) == ["late"]
    store.drop_payload(told.id)
    add(store)
    assert texts(store) == []


def test_removed_posts_are_due_to_be_dropped_after_three_days(store: Store) -> None:
    told, other = post(NEWS, "removed"), post(NEWS, "kept", clock=2)
    add(store, NEWS, told, other, hide(NEWS, told), hide(NEWS, other, author=STRANGER.signing))
    assert view.due_to_drop(store, NOW_MS + 3 * DAY_MS) == []
    assert view.due_to_drop(store, NOW_MS + 3 * DAY_MS + 1) == [view.Due(told.id, NEWS.id, told.header.author, None)]
    store.drop_payload(told.id)
    add(store)
    assert view.due_to_drop(store, NOW_MS + 4 * DAY_MS) == []


def test_a_clock_beyond_what_the_database_holds_stops_nothing(store: Store) -> None:
    add(store, NEWS, post(NEWS, "far", clock=2**64 - 1), post(NEWS, "near", clock=5))
    assert texts(store) == ["near", "far"]


def test_who_claims_a_clock_beyond_all_bounds_does_not_stand_behind_everything_for_ever(store: Store) -> None:
    far = [post(NEWS, f"far {n}", clock=clock, at_ms=NOW_MS) for n, clock in enumerate((2**53, 2**60, 2**63))]
    assert view.newest_clock(store, NEWS.id) == 0
    add(store, NEWS, *far, post(NEWS, "not the owner's", author=STRANGER.signing, clock=2**40))
    seen = view.newest_clock(store, NEWS.id)
    add(store, post(NEWS, "answer", clock=seen + 1, at_ms=NOW_MS + 1), post(NEWS, "late", clock=seen + 9, at_ms=NOW_MS))
    assert sorted(texts(store)[:4]) == ["far 0", "far 1", "far 2", "late"]
    assert texts(store)[4:] == ["answer"]


def test_older_posts_are_found_page_by_page(store: Store) -> None:
    add(store, NEWS, *(post(NEWS, str(number), clock=number // 2, at_ms=NOW_MS + number) for number in range(7)))
    newest = view.posts(store, NEWS.id, NOW_MS + 9, limit=3)
    before = view.posts(store, NEWS.id, NOW_MS + 9, before=newest[0].id, limit=3)
    assert [one.text for one in (*before, *newest)] == ["1", "2", "3", "4", "5", "6"]


def unread(store: Store, read_n: int, device: bytes, identity: bytes) -> int:
    return view.unread_posts(store, view.channel_head(store, NEWS.id), read_n, device, identity, NOW_MS)


def test_unread_are_the_posts_of_others_that_arrived_since(store: Store) -> None:
    add(store, NEWS, post(NEWS, "one"), post(NEWS, "two", clock=2))
    read = max(one.n for one in view.posts(store, NEWS.id, NOW_MS))
    add(store, post(NEWS, "earlier, but later here", clock=1, at_ms=NOW_MS - 1))
    assert unread(store, read, STRANGER.device.device, STRANGER.identity.public) == 1
    assert unread(store, 0, STRANGER.device.device, STRANGER.identity.public) == 3
    assert unread(store, 0, secret("their next device"), OWNER.identity.public) == 0


def test_any_number_of_posts_by_strangers_hides_none_that_counts_from_the_count_of_unread(store: Store) -> None:
    add(store, NEWS, post(NEWS, "a word that matters"))
    many = (
        post(NEWS, f"noise {number}", clock=number, author=STRANGER.signing) for number in range(view.UNREAD_MAX + 9)
    )
    add(store, *many)
    assert unread(store, 0, secret("reader"), secret("who reads")) == 1


def test_a_contact_who_names_any_number_of_files_keeps_none_of_others_waiting(vault: Vault) -> None:
    def named(by: str, number: int) -> Put:
        file = File("photo.jpg", "", 1, bytes(32), (secret(by, number),))
        return file_view.file_row(secret(by, number)[:16], secret(by), file, number, outgoing=False)

    rows = [named("ann", 1), *(named("mal", number) for number in range(2, file_view.AWAITED_MAX + 9))]
    vault.transaction(rows, "carry")
    found = [one.peer for one in file_view.awaited(vault)]
    assert len(found) == file_view.AWAITED_MAX
    assert secret("ann") in found


def test_unread_posts_are_counted_among_the_last_that_came_however_many_there_are(store: Store) -> None:
    add(store, NEWS, *(post(NEWS, f"post {number}", clock=number) for number in range(view.UNREAD_MAX + 50)))
    reader = STRANGER.device.device, STRANGER.identity.public
    assert unread(store, 0, *reader) == view.UNREAD_MAX
    read = view.posts(store, NEWS.id, NOW_MS)[-11].n
    assert unread(store, read, *reader) == 10


ONE, TWO = post(NEWS, "one", seq=1), post(NEWS, "two", clock=2, seq=1)
TALE = [
    NEWS,
    ONE,
    TWO,
    post(NEWS, "removed", clock=3),
    hide(NEWS, post(NEWS, "removed", clock=3)),
    hide(NEWS, ONE, author=STRANGER.signing),
    post(NEWS, "false", author=STRANGER.signing),
    device(NEWS),
    post(NEWS, "second device", author=SECOND, clock=4),
]


HISTORY = [
    *TALE,
    ended(NEWS, TWO),
    entry(OWNER.signing, NEWS.id, SHARED.name, SHARED.encode(Shared("map", "", 5, OTHER_KIND.id)), seq=3),
    hide(NEWS, TWO, seq=3),
    OTHER_KIND,
    device(NEWS, author=OWNER.signing, seq=1),
]


@settings(max_examples=20)
@given(st.permutations(TALE), st.booleans())
def test_the_view_is_the_same_in_whatever_order_entries_arrive(entries: Sequence[Entry], rebuilt: bool) -> None:
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.db", KEY, rooms=[ROOM])
        add(store, *entries)
        if rebuilt:
            store.rebuild()
        assert texts(store) == ["one", "two", "second device"]
        assert forked(store)
        store.close()


def seen(store: Store) -> tuple[object, ...]:
    """What a channel shows, and what is to go of it, but for the order of arrival."""
    rows = store.query("SELECT id, author, hidden_ms, clock, until_ms, text FROM view_carry_said ORDER BY id")
    due = sorted((one.post, one.content or b"") for one in view.due_to_drop(store, NOW_MS + 9 * DAY_MS))
    files = [one.id for one in view.shared_files(store, NEWS.id, NOW_MS)]
    return view.channel_head(store, NEWS.id), texts(store), rows, due, files


@settings(max_examples=60, deadline=None)
@given(st.permutations(HISTORY), st.permutations(HISTORY), st.integers(0, len(HISTORY)), st.booleans())
def test_whoever_holds_the_same_is_shown_the_same(
    one: list[Entry], other: list[Entry], count: int, together: bool
) -> None:
    told = []
    held = {entry.id for entry in one[:count]}
    for order in (one, other):
        with TemporaryDirectory() as folder:
            store = Store.open(Path(folder) / "store.db", KEY, rooms=[ROOM])
            entries = [entry for entry in order if entry.id in held]
            if together:
                store.append([Incoming(entry) for entry in entries])
            add(store, *entries)
            told.append(seen(store))
            store.close()
    assert told[0] == told[1]


FATES = ("comes", "comes bare", "its payload goes", "is ended", "goes")


def suffer(store: Store, one: Entry, fate: str) -> None:
    """Something that can happen to an entry in a store."""
    match fate:
        case "comes":
            store.append([Incoming(one)])
        case "comes bare":
            store.append([Incoming(Entry(one.header, one.header_bytes, one.signature, one.id, None))])
        case "its payload goes":
            store.drop_payload(one.id)
        case "is ended":
            store.end(one.id)
        case "goes":
            store.remove([one.id])


def rows_of(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """All that the view holds."""
    tables = store.query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'view_carry_*'")
    return {table: sorted(store.query(f'SELECT * FROM "{table}"')) for (table,) in tables}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(HISTORY) - 1), st.sampled_from(FATES), st.booleans()), max_size=60))
def test_a_view_made_anew_is_the_one_that_grew(events: list[tuple[int, str, bool]]) -> None:
    with TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store.db", KEY, rooms=[ROOM])
        for number, fate, looks in events:
            suffer(store, HISTORY[number], fate)
            if looks:
                add(store)
        add(store)
        grown = rows_of(store)
        store.rebuild()
        assert rows_of(store) == grown
        store.close()


@given(st.sampled_from([POST.name, HIDE.name, DEVICE.name, "genesis", "mail", "other"]), st.binary(max_size=200))
def test_no_payload_stops_the_fold(kind: str, payload: bytes) -> None:
    for event in Event:
        fold(Change(1, event, entry(STRANGER.signing, NEWS.id, kind, payload)), _NoRows())


# ---- letters ----


class _NoRows:
    """A database without rows."""

    def query(self, _sql: str, _args: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """None."""
        return []


@given(st.binary(max_size=300), st.integers(0, 2**53 - 1))
def test_no_body_stops_the_receiving_of_letters(body: bytes, sent_ms: int) -> None:
    receive(Letter(bytes(16), TEXT.name, body, sent_ms, PEER, PEER, NOW_MS), _NoRows())


def test_a_letter_is_kept_cleaned_and_unread(vault: Vault) -> None:
    take(vault, letter(1, " hi\x1b[2J there\r\n"))
    [message] = view.messages(vault, NOW_MS, outgoing=False)
    assert (message.text, message.unread, message.peer) == ("hi[2J there", True, OWNER.identity.public)
    assert (message.at_ms, message.received_ms) == (NOW_MS, NOW_MS + 1000)


def test_a_letter_that_shows_nothing_is_not_kept(vault: Vault) -> None:
    take(vault, letter(1, "\u200b"))
    assert view.messages(vault, NOW_MS, outgoing=False) == []


def test_a_letter_from_the_future_stands_at_the_time_it_came(vault: Vault) -> None:
    take(vault, letter(1, sent_ms=NOW_MS + 10 * DAY_MS, received_ms=NOW_MS))
    assert view.messages(vault, NOW_MS, outgoing=False)[0].at_ms == NOW_MS


def test_no_sender_can_overwrite_what_the_person_wrote(vault: Vault) -> None:
    mine = put(vault, 1, "I will come", peer=OWNER.identity.public)
    forged = letter(1, "I will not come")._replace(id=mine)
    take(vault, forged)
    found = view.find_message(vault, mine, NOW_MS)
    assert found is not None
    assert (found.text, found.outgoing) == ("I will come", True)
    assert view.messages(vault, NOW_MS, outgoing=False) == []


def test_conversations_stand_by_their_last_letter_with_what_is_unread(vault: Vault) -> None:
    people: list[Person] = [person(name) for name in ("ann", "ben", "cid")]
    ann, ben, cid = (one.identity.public for one in people)
    take(vault, *(letter(n, f"ann {n}", sender=ann, sent_ms=NOW_MS + n, received_ms=NOW_MS + 60) for n in range(3)))
    take(vault, letter(10, "ben", sender=ben, sent_ms=NOW_MS + 50, received_ms=NOW_MS + 60))
    put(vault, 1, "to cid", NOW_MS + 20, peer=cid)
    found = view.conversations(vault, NOW_MS)
    assert [(one.peer, one.last.text, one.unread) for one in found] == [
        (ben, "ben", 1),
        (cid, "to cid", 0),
        (ann, "ann 2", 3),
    ]
    assert view.unread(vault, NOW_MS) == {ann: 3, ben: 1}


def test_letters_that_wait_are_counted_without_a_look_at_any_of_them(vault: Vault) -> None:
    plan: list[str] = []

    class Plan:
        """Asks how it would be done."""

        def query(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
            plan.extend(row[-1] for row in vault.query(f"EXPLAIN QUERY PLAN {sql}", args))
            return []

    view.unread(Plan(), NOW_MS)
    view.conversations(Plan(), NOW_MS)
    counts = [line for line in plan if "local_carry_message_waiting" in line]
    assert len(counts) == 2
    assert all("USING COVERING INDEX" in line for line in counts)


def test_there_are_no_conversations_in_an_empty_vault(vault: Vault) -> None:
    assert view.conversations(vault, NOW_MS) == []


def test_a_conversation_is_read_page_by_page(vault: Vault) -> None:
    for number in range(5):
        put(vault, number, str(number), NOW_MS)
    newest = view.conversation(vault, PEER, NOW_MS, limit=2)
    older = view.conversation(vault, PEER, NOW_MS, before=newest[0].letter)
    assert [one.text for one in (*older, *newest)] == ["0", "1", "2", "3", "4"]


def index(vault: Vault) -> int:
    """Index letters until none is left; how many there were."""
    steps = 0
    while vault.write(lambda tx: tx.execute(view.LETTERS.fill, (2,))):
        steps += 1
    return steps


def test_a_word_that_stands_in_most_letters_brings_few_of_them_into_memory(vault: Vault) -> None:
    text = "the bakery " + "x" * 2000
    rows = [
        message_row(secret(number)[:16], PEER, text, None, NOW_MS + number, None) for number in range(4 * SEARCH_MAX)
    ]
    vault.transaction(rows, "carry")
    vault.write(lambda tx: tx.execute(view.LETTERS.fill, (len(rows),)))
    tracemalloc.start()
    try:
        found = view.search(vault, ["bakery"], NOW_MS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == SEARCH_MAX
    assert peak < 2 * SEARCH_MAX * len(text)


@pytest.mark.parametrize("indexed", [0, 3, 5])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Хлеба", ["Купи хлеба и соли"]),
        ("ХЛЕБ", ["Купи хлеба и соли"]),
        ("соли купи", ["Купи хлеба и соли"]),
        ("и", ["Купи хлеба и соли", "Приду в 8"]),
        ("хлеб 8", []),
        ("сол И", ["Купи хлеба и соли"]),
        ("電気", ["電気がない"]),
        ("straße", ["Die Straße ist frei"]),
        ('"', ['say "yes"']),
        ('"yes"', ['say "yes"']),
        ("yes OR хлеба", []),
        ("%", []),
    ],
)
def test_letters_are_found_by_parts_of_words_in_any_script_and_case(
    vault: Vault, words: str, found: list[str], indexed: int
) -> None:
    for number, text in enumerate(['say "yes"', "Die Straße ist frei", "電気がない", "Приду в 8", "Купи хлеба и соли"]):
        put(vault, number, text, NOW_MS - number)
        if number + 1 == indexed:
            index(vault)
    assert sorted(one.text for one in view.search(vault, words.split(), NOW_MS)) == sorted(found)


@pytest.mark.parametrize("indexed", [True, False])
def test_what_was_taken_back_is_not_found(vault: Vault, indexed: bool) -> None:
    put(vault, 0, "stays here")
    for number in (1, 2):
        id = put(vault, number, "not for you")
        if indexed:
            index(vault)
        vault.transaction([Delete(view.MESSAGE, {"letter": id})], "carry")
        assert view.search(vault, ["not"], NOW_MS) == []
        assert view.search(vault, ["for", "y"], NOW_MS) == []
    index(vault)
    assert [one.text for one in view.search(vault, ["stays"], NOW_MS)] == ["stays here"]


def test_letters_are_indexed_once(vault: Vault) -> None:
    for number in range(5):
        put(vault, number, "hello")
    assert index(vault) == 3
    assert index(vault) == 0
    assert len(view.search(vault, ["hello"], NOW_MS)) == 5


def test_a_restored_backup_is_searchable(vault: Vault, tmp_path: Path) -> None:
    put(vault, 1, "before the fire")
    index(vault)
    restored = Vault.open(tmp_path / "restored.db", KEY, rooms=[ROOM], restore=vault.room_rows())
    assert [one.text for one in view.search(restored, ["fire"], NOW_MS)] == ["before the fire"]
    assert index(restored) == 1
    assert [one.text for one in view.search(restored, ["fire"], NOW_MS)] == ["before the fire"]
    restored.close()
