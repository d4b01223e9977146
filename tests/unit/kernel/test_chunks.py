"""Content above 64 KiB: cut, described, and fetched chunk by chunk from any number of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.kernel.chunks import (
    ASKED_MAX,
    PLACES_MAX,
    Chunk,
    ChunkError,
    Downloads,
    Fetching,
    Holds,
    Manifest,
    Splitter,
    Wanted,
    places,
    to_bytes,
)
from outlast.kernel.entry import CHUNK_BYTES, CONTENT_MAX_BYTES, PAYLOAD_MAX_BYTES, Entry, unpack_all
from outlast.kernel.steps import BulkSent, Close, CutOff, Limits, MessageArrived, MoreWanted
from outlast.kernel.wire import Type
from outlast.testing import FakeClock, MemoryLink, Town

KIB = 1024


def some_bytes(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


def cut(content: bytes, step: int = 100_000) -> tuple[list[bytes], Manifest | None]:
    """The chunks of a content that comes in steps, and its manifest."""
    splitter = Splitter(CONTENT_MAX_BYTES)
    chunks = [chunk for at in range(0, len(content), step) for chunk in splitter.feed(content[at : at + step])]
    last, manifest = splitter.finish()
    return [chunk.data for chunk in [*chunks, last]], manifest


# Manifests


@given(size=st.integers(0, 5 * CHUNK_BYTES), step=st.integers(1, 3 * CHUNK_BYTES))
@settings(max_examples=40)
def test_chunks_join_to_what_was_cut_however_it_came(size: int, step: int) -> None:
    content = some_bytes(size)
    chunks, manifest = cut(content, max(step, 1 + size // 50))
    assert b"".join(chunks) == content
    assert all(len(chunk) == CHUNK_BYTES for chunk in chunks[:-1])
    if size <= PAYLOAD_MAX_BYTES:
        assert (manifest, chunks) == (None, [content])
        return
    assert manifest is not None
    assert len(manifest) == len(chunks)
    for place, chunk in enumerate(chunks):
        assert manifest.hash_at(place) == sha256(chunk).digest()
        assert manifest.size_at(place) == len(chunk) > 0


def test_content_that_is_too_much_is_refused_before_it_is_read_to_its_end() -> None:
    splitter = Splitter(3 * CHUNK_BYTES)
    splitter.feed(bytes(3 * CHUNK_BYTES))
    with pytest.raises(UsageError, match="196608"):
        splitter.feed(b"x")


@pytest.mark.parametrize("size", [PAYLOAD_MAX_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1, CONTENT_MAX_BYTES])
def test_a_manifest_has_one_hash_for_each_chunk_and_no_other_number_of_bytes(size: int) -> None:
    count = -(-size // CHUNK_BYTES)
    assert len(Manifest(size, bytes(32 * count))) == count
    for wrong in (0, 32 * (count - 1), 32 * count - 1, 32 * count + 1, 32 * (count + 1)):
        with pytest.raises(ChunkError):
            Manifest(size, bytes(wrong))


@pytest.mark.parametrize("size", [0, PAYLOAD_MAX_BYTES, CONTENT_MAX_BYTES + 1])
def test_what_fits_one_payload_or_nowhere_has_no_manifest(size: int) -> None:
    with pytest.raises(ChunkError):
        Manifest(size, bytes(32 * -(-size // CHUNK_BYTES)))


@given(st.sets(st.integers(0, PLACES_MAX - 1)))
def test_a_set_of_places_travels_as_bits(chosen: set[int]) -> None:
    bits = sum(1 << place for place in chosen)
    assert list(places(bits)) == sorted(chosen)
    data = to_bytes(bits)
    assert {8 * at + bit for at, byte in enumerate(data) for bit in range(8) if byte >> bit & 1} == chosen
    assert int.from_bytes(data, "little") == bits
    assert not data.endswith(b"\0")


def test_equal_chunks_are_found_at_all_their_places() -> None:
    content = bytes(3 * CHUNK_BYTES) + some_bytes(CHUNK_BYTES) + bytes(CHUNK_BYTES)
    _, manifest = cut(content)
    assert manifest is not None
    zeros, other = sha256(bytes(CHUNK_BYTES)).digest(), manifest.hash_at(3)
    assert manifest.places_of([zeros]) == [(0, zeros), (1, zeros), (2, zeros), (4, zeros)]
    assert manifest.places_of([other, zeros])[2:] == [(2, zeros), (3, other), (4, zeros)]
    assert manifest.places_of([b"x" * 32]) == []
    # A hash that stands across two others is none of them.
    assert manifest.places_of([manifest.hashes[5:37]]) == []


# Downloads


@given(st.data())
@settings(max_examples=60)
def test_no_place_is_given_to_two_sessions_and_none_is_forgotten(data: st.DataObject) -> None:
    downloads, count = Downloads(), 30
    missing = (1 << count) - 1
    for _ in range(2):
        downloads.open(b"file", missing)
    taken: list[set[int]] = [set(), set()]
    here: set[int] = set()
    for _ in range(60):
        side = data.draw(st.integers(0, 1))
        match data.draw(st.sampled_from(("take", "settle", "return"))):
            case "take":
                fresh = downloads.take(b"file", missing, data.draw(st.integers(1, 9)))
                assert not {*fresh} & (taken[0] | taken[1] | here)
                taken[side] |= {*fresh}
            case "settle" if taken[side]:
                place = taken[side].pop()
                downloads.settle(b"file", place)
                here.add(place)
            case "return" if taken[side]:
                downloads.give_back(b"file", taken[side].pop())
    assert {*places(downloads.free(b"file"))} == {*range(count)} - here - taken[0] - taken[1]
    assert downloads.is_over(b"file") is (len(here) == count)


def test_content_that_is_wanted_while_the_store_is_asked_for_the_next_is_not_missed() -> None:
    fetching = Fetching(Downloads())
    assert fetching.begin_load()
    fetching.look_again()  # the store had looked already
    fetching.loaded(None)
    assert fetching.begin_load()
    fetching.loaded(None)
    assert not fetching.begin_load()
    fetching.look_again()
    assert fetching.begin_load()


@given(st.data())
@settings(max_examples=200)
def test_no_chunk_is_asked_of_a_peer_again_while_the_one_that_came_is_made_durable(data: st.DataObject) -> None:
    chunks, manifest = cut(some_bytes(11 * CHUNK_BYTES))
    assert manifest is not None
    everywhere = st.integers(0, (1 << len(manifest)) - 1)
    fetching, id = Fetching(Downloads()), bytes(32)
    asked: set[int] = set()
    arrived: list[Chunk] = []
    here: set[int] = set()
    for _ in range(40):
        if fetching.begin_load():
            missing = (1 << len(manifest)) - 1 - sum(1 << place for place in here)
            fetching.loaded(Wanted(id, manifest, missing, requested=True) if missing else None)
        for _, fresh, _ in fetching.asks(0):
            assert not {*fresh} & (asked | here | {chunk.place for chunk in arrived})
            asked |= {*fresh}
        match data.draw(st.sampled_from(("comes", "is durable", "lacks"))):
            case "comes" if asked:
                place = asked.pop()
                chunk = fetching.piece(id, place, 0, chunks[place])
                assert chunk is not None
                arrived.append(chunk)
            case "is durable" if arrived:
                made = data.draw(st.integers(1, len(arrived)))
                fetching.durable(arrived[:made])
                here |= {chunk.place for chunk in arrived[:made]}
                del arrived[:made]
            case "lacks":
                held = data.draw(everywhere)
                lacked = sorted(place for place in asked if not held >> place & 1)
                fetching.holds(Holds(id, lacked, held))
                asked.difference_update(lacked)
    assert fetching.awaits is bool(asked)
    assert fetching.busy is bool(arrived)


# Sessions


def message(kind: Type, *fields: object) -> bytes:
    return bytes([kind]) + msgspec.msgpack.encode(list(fields))


def fields(data: bytes) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(data[1:])
    return found


def town_with_file(content: bytes, n: int = 2, seed: int = 1) -> tuple[Town, Entry]:
    """Places that follow one space; the first one has a file in it."""
    town = Town(n, seed)
    space = town.places[0].found("news")
    town.follow(space)
    return town, town.places[0].post_file(space, content)


def pieces_sent(log: list[tuple[int, bytes]], end: int | None = None) -> list[tuple[bytes, int, int]]:
    """Entry, place and offset of all pieces of chunks."""
    return [
        (found[0], found[1], found[2])
        for sender, data in log
        if data[0] == Type.CHUNK and end in (None, sender)
        for found in [fields(data)]
    ]


@pytest.mark.parametrize("size", [PAYLOAD_MAX_BYTES + 1, 2 * CHUNK_BYTES, 40 * CHUNK_BYTES + 77, 150 * CHUNK_BYTES])
def test_a_file_comes_over_in_pieces_each_sent_once(size: int) -> None:
    content = some_bytes(size)
    town, entry = town_with_file(content)
    meeting = town.meet(0, 1)
    assert (meeting.ended, meeting.in_step) == ([None, None], [True, True])
    assert town.places[1].content(entry.id) == content
    sent = pieces_sent(meeting.log)
    assert len(sent) == len(set(sent)) == len(cut(content)[0])
    assert {end for end, data in meeting.log if data[0] == Type.CHUNK} == {0}


def test_chunks_that_repeat_themselves_come_once() -> None:
    content = bytes(50 * CHUNK_BYTES) + b"the end"
    town, entry = town_with_file(content)
    meeting = town.meet(0, 1)
    assert town.places[1].content(entry.id) == content
    assert {place for _, place, _ in pieces_sent(meeting.log)} == {0, 50}


def test_a_file_is_copied_only_when_all_of_it_is_durable_at_the_other_side() -> None:
    town, entry = town_with_file(some_bytes(30 * CHUNK_BYTES))
    a, b = town.places
    meeting = town.meeting(0, 1)
    while meeting.turn():
        assert (entry.id in meeting.copied[0]) <= (b.content(entry.id) == a.content(entry.id))
    assert entry.id in meeting.copied[0]


def test_a_file_beyond_what_a_place_wants_is_not_asked_for_and_not_called_copied() -> None:
    town, entry = town_with_file(some_bytes(10 * CHUNK_BYTES))
    town.places[1].auto_bytes = 9 * CHUNK_BYTES
    meeting = town.meet(0, 1)
    assert meeting.in_step == [True, True]
    assert town.places[1].entries.keys() == town.places[0].entries.keys()
    assert Type.WANT_CHUNKS not in {data[0] for _, data in meeting.log}
    assert entry.id not in meeting.copied[0]
    assert entry.id in meeting.sessions[0].unacknowledged  # it may be whole there some day


@given(cut_after=st.lists(st.integers(0, 900_000), min_size=1, max_size=6), seed=st.integers(0, 2**16))
@settings(max_examples=25)
def test_a_link_that_dies_at_any_bytes_goes_on_with_the_chunks_that_are_missing(
    cut_after: list[int], seed: int
) -> None:
    content = some_bytes(12 * CHUNK_BYTES + 5, seed)
    town, entry = town_with_file(content, seed=seed)
    logs = []
    for size in cut_after:
        held = {*town.places[1].chunks.get(entry.id, {})}
        meeting = town.meet(0, 1, MemoryLink(town.clock, cut_after_bytes=size))
        assert not held & {place for _, place, _ in pieces_sent(meeting.log)}
        logs.append(meeting.log)
    held = {*town.places[1].chunks.get(entry.id, {})}
    logs.append(town.meet(0, 1).log)
    assert not held & {place for _, place, _ in pieces_sent(logs[-1])}
    assert town.places[1].content(entry.id) == content


def test_a_text_overtakes_a_file_and_waits_behind_one_piece_at_most() -> None:
    town, entry = town_with_file(some_bytes(100 * CHUNK_BYTES))
    a, b = town.places
    meeting = town.meeting(0, 1)
    while len(b.chunks.get(entry.id, {})) < 10 or BulkSent() not in meeting._answers[0]:
        assert meeting.turn()
    # The link has not taken this piece yet: nothing of the file goes after it, and a text goes at once.
    meeting._answers[0].remove(BulkSent())
    before = len(meeting.log)
    meeting.run()
    note = a.post(entry.header.space, "help")
    meeting.run()
    assert note.id in b.entries
    assert [data[0] for end, data in meeting.log[before:] if end == 0].count(Type.CHUNK) == 0
    meeting.feed(0, BulkSent())
    meeting.run()
    assert b.content(entry.id) == a.content(entry.id)


def test_several_files_come_side_by_side() -> None:
    town, first = town_with_file(some_bytes(60 * CHUNK_BYTES))
    others = [town.places[0].post_file(first.header.space, some_bytes(60 * CHUNK_BYTES, seed)) for seed in (2, 3)]
    meeting = town.meet(0, 1)
    order = [entry for entry, _, _ in pieces_sent(meeting.log)]
    assert {*order[:100]} == {first.id, *(one.id for one in others)}
    for one in (first, *others):
        assert town.places[1].content(one.id) == town.places[0].content(one.id)


def test_two_neighbours_that_hold_a_file_each_send_a_part_of_it() -> None:
    content = some_bytes(200 * CHUNK_BYTES)
    town, entry = town_with_file(content, n=3)
    c = town.places[2]
    town.meet(0, 1)
    meetings = [town.meeting(0, 2), town.meeting(1, 2)]
    random = Random(4)
    while any([meeting.turn() for meeting in random.sample(meetings, 2)]):
        pass
    assert c.content(entry.id) == content
    sent = [{place for _, place, _ in pieces_sent(meeting.log, 0)} for meeting in meetings]
    assert not sent[0] & sent[1]
    assert min(map(len, sent)) > 40


def test_a_file_passes_through_a_place_that_is_still_fetching_it() -> None:
    content = some_bytes(150 * CHUNK_BYTES)
    town, entry = town_with_file(content, n=3)
    _, b, c = town.places
    onward = town.meeting(1, 2)
    onward.run()
    inward = town.meeting(0, 1)
    passed_on_early = False
    while inward.turn() | onward.turn():
        passed_on_early |= 0 < len(c.chunks.get(entry.id, {})) < len(b.chunks.get(entry.id, {})) < 150
    assert passed_on_early
    assert c.content(entry.id) == content
    assert entry.id in onward.copied[0]


def test_what_a_dead_session_had_asked_for_is_asked_of_another() -> None:
    content = some_bytes(100 * CHUNK_BYTES)
    town, entry = town_with_file(content, n=3)
    town.meet(0, 1)
    c = town.places[2]
    slow, other = town.meeting(0, 2), town.meeting(1, 2)
    while not any(data[0] == Type.WANT_CHUNKS for _, data in slow.log):
        assert slow.turn()
    slow.link.close()
    slow.end()
    other.run()
    assert c.content(entry.id) == content


def test_chunks_are_charged_to_the_neighbours_share() -> None:
    town, entry = town_with_file(some_bytes(100 * CHUNK_BYTES))
    share = Limits(credit_bytes=64 * KIB, intake_bytes=64 * KIB + 50 * CHUNK_BYTES)
    meeting = town.meeting(0, 1, limits=(Limits(), share))
    meeting.run()
    assert 40 <= len(town.places[1].chunks[entry.id]) <= 50
    assert meeting.ended == [None, None]


def test_content_that_waits_for_the_share_comes_when_a_person_asks_for_it() -> None:
    content = some_bytes(100 * CHUNK_BYTES)
    town, entry = town_with_file(content)
    share = Limits(credit_bytes=64 * KIB, intake_bytes=64 * KIB + 50 * CHUNK_BYTES)
    meeting = town.meeting(0, 1, limits=(Limits(), share))
    meeting.run()
    before = meeting.sessions[1]._receiving.budget
    meeting.feed(1, MoreWanted(entry.id))
    meeting.run()
    assert town.places[1].content(entry.id) == content
    assert meeting.sessions[1]._receiving.budget == before


def test_a_link_that_carries_what_is_urgent_alone_carries_no_chunks() -> None:
    town, entry = town_with_file(some_bytes(10 * CHUNK_BYTES))
    a, b = town.places
    b.ingest(a.shelf.load([entry.header.space, entry.id]), None)
    narrow = Limits(priority_max=1)
    meeting = town.meeting(0, 1, limits=(narrow, Limits()))
    meeting.run()
    assert meeting.in_step == [True, True]
    assert not {data[0] for _, data in meeting.log} & {Type.WANT_CHUNKS, Type.CHUNK, Type.HOLDS}
    meeting.feed(0, MessageArrived(message(Type.WANT_CHUNKS, entry.id, [0])))
    assert isinstance(meeting.ended[0], CutOff)


def test_pieces_are_no_larger_than_the_steps_of_the_link() -> None:
    town, entry = town_with_file(some_bytes(3 * CHUNK_BYTES))
    meeting = town.meeting(0, 1, limits=(Limits(step_bytes=5000), Limits()))
    meeting.run()
    assert town.places[1].content(entry.id) == town.places[0].content(entry.id)
    sizes = [len(fields(data)[3]) for _, data in meeting.log if data[0] == Type.CHUNK]
    assert max(sizes) == 5000


# Hostile sides


class Liar:
    """A meeting of a place that fetches a file, with what the other end says to it made by hand."""

    def __init__(self, size: int = 30 * CHUNK_BYTES) -> None:
        self.town, self.entry = town_with_file(some_bytes(size))
        self.honest = self.town.places[1]
        self.meeting = self.town.meeting(0, 1)
        while not self.asked():
            assert self.meeting.turn()

    def asked(self) -> list[tuple[bytes, int]]:
        """What the honest side asked for."""
        return [
            (found[0], place)
            for end, data in self.meeting.log
            if end == 1 and data[0] == Type.WANT_CHUNKS
            for found in [fields(data)]
            for place in found[1]
        ]

    def says(self, data: bytes) -> CutOff | Close | None:
        """What the honest side makes of a message."""
        self.meeting.feed(1, MessageArrived(data))
        return self.meeting.ended[1]


def chunk(liar: Liar, place: int) -> bytes:
    return liar.town.places[0].chunks[liar.entry.id][place]


@pytest.mark.parametrize(
    "lie",
    [
        lambda liar: message(Type.CHUNK, b"e" * 32, 0, 0, b"x"),
        lambda liar: message(Type.CHUNK, liar.entry.id, 29, 0, chunk(liar, 29)),
        lambda liar: message(Type.CHUNK, liar.entry.id, 0, 1, b"x"),
        lambda liar: message(Type.CHUNK, liar.entry.id, 0, 0, b"x" * (CHUNK_BYTES + 1)),
        lambda liar: message(Type.CHUNK, liar.entry.id, 0, 0, b""),
        lambda liar: message(Type.CHUNK, liar.entry.id, PLACES_MAX, 0, b"x"),
        lambda liar: message(Type.HOLDS, liar.entry.id, [29], b"\xff"),
        lambda liar: message(Type.HOLDS, liar.entry.id, [0] * (ASKED_MAX + 1), b""),
        lambda liar: message(Type.HOLDS, liar.entry.id, [], b"\xff" * (PLACES_MAX // 8 + 1)),
        lambda liar: message(Type.WANT_CHUNKS, liar.entry.id, []),
        lambda liar: message(Type.WANT_CHUNKS, liar.entry.id, [0] * (ASKED_MAX + 1)),
        lambda liar: message(Type.WHOLE, []),
    ],
)
def test_who_says_what_was_not_asked_or_cannot_be_is_cut_off(lie: Callable[[Liar], bytes]) -> None:
    liar = Liar()
    liar.meeting.link.close()
    # Of 30 chunks the last ones were asked for too; they are taken out so that place 29 is none of them.
    liar.meeting.sessions[1]._fetching._asked.pop((liar.entry.id, 29), None)
    assert isinstance(liar.says(lie(liar)), CutOff)


def test_a_chunk_that_is_not_the_one_of_the_manifest_is_not_kept_and_cuts_the_peer_off() -> None:
    liar = Liar()
    liar.meeting.link.close()
    assert liar.says(message(Type.CHUNK, liar.entry.id, 0, 0, bytes(32_768))) is None
    assert isinstance(liar.says(message(Type.CHUNK, liar.entry.id, 0, 32_768, bytes(32_768))), CutOff)
    liar.meeting.run()
    assert liar.honest.chunks == {}


def test_a_peer_that_asks_for_more_than_it_may_have_on_the_way_is_cut_off() -> None:
    liar = Liar(200 * CHUNK_BYTES)
    liar.meeting.link.close()
    ask = message(Type.WANT_CHUNKS, liar.entry.id, [*range(ASKED_MAX)])
    assert liar.says(ask) is None
    assert isinstance(liar.says(ask), CutOff)


def test_a_peer_that_owes_a_chunk_and_talks_of_other_things_is_cut_off() -> None:
    liar = Liar()
    liar.meeting.link.close()
    clock: FakeClock = liar.town.clock
    for _ in range(40):
        liar.meeting.tick()
        clock.advance(10_000)
        liar.says(message(Type.HOLDS, liar.entry.id, [], b"\xff\xff\xff\xff"))
        if liar.meeting.ended[1] is not None:
            break
    assert isinstance(liar.meeting.ended[1], CutOff)


def test_nothing_is_served_or_told_of_a_space_that_was_not_agreed_on() -> None:
    town, entry = town_with_file(some_bytes(3 * CHUNK_BYTES))
    secret = town.places[0].found("private")
    other = town.places[0].post_file(secret, some_bytes(3 * CHUNK_BYTES, 9))
    assert secret not in town.places[1].followed
    meeting = town.meeting(0, 1)
    meeting.run()
    for asked in (other.id, b"nowhere".ljust(32)):
        before = len(meeting.log)
        meeting.feed(0, MessageArrived(message(Type.WANT_CHUNKS, asked, [0, 1])))
        while meeting._answers[0]:
            meeting._happen(0, "answer")
        assert [data for _, data in meeting.log[before:]] == [message(Type.HOLDS, asked, [0, 1], b"")]
    # Nor what it is told later.
    meeting.feed(0, MessageArrived(message(Type.WANT_CHUNKS, entry.id, [2000])))
    meeting.run()
    assert meeting.ended == [None, None] or isinstance(meeting.ended[1], CutOff)


def test_entries_of_the_log_are_what_a_session_sends_besides() -> None:
    town, entry = town_with_file(some_bytes(3 * CHUNK_BYTES))
    meeting = town.meet(0, 1)
    headers = [one.id for end, data in meeting.log if data[0] == Type.ENTRIES for one in unpack_all(data[1:])]
    assert headers.count(entry.id) == 1


def test_places_without_the_file_are_asked_in_vain_once_and_not_again() -> None:
    town, entry = town_with_file(some_bytes(30 * CHUNK_BYTES), n=3)
    a, b, c = town.places
    b.auto_bytes = 0
    town.meet(0, 1)
    meeting = town.meet(1, 2)
    wants = [data for end, data in meeting.log if data[0] == Type.WANT_CHUNKS]
    holds = [data for end, data in meeting.log if data[0] == Type.HOLDS]
    assert len(wants) <= 4
    assert len(holds) <= len(wants)
    assert c.chunks == {}
    town.meet(0, 2)
    assert c.content(entry.id) == a.content(entry.id)
