"""Letters to many devices, whose body lies apart: they are shown once, and nobody puts another body in its place."""

from __future__ import annotations

import io
import itertools
import os
import tracemalloc
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.kernel import mail
from outlast.kernel.entry import Entry, pack
from outlast.kernel.mail import MAIL_SPACE, Place
from outlast.kernel.outbox import Outgoing
from outlast.kernel.person import Person
from tests.kernel.forger import garbage
from tests.kernel.society import (
    NOTE,
    Note,
    Society,
    befriend,
    carry,
    envelopes,
    events,
    hand_over,
    notes,
    settle,
    society,
    story,
    write,
)

TEXT = "a long tale " * 200
BODY = NOTE.encode(Note(TEXT))


async def town(nodes: Society, *names: str) -> list[Person]:
    """People of whom the first knows all others, and each of them has written to them."""
    people = [await nodes.join(name) for name in names]
    for one in people[1:]:
        await befriend(people[0], one)
        await write(one, people[0], "hello")
        await hand_over(envelopes(one), people[0])
        await hand_over(envelopes(people[0]), one)
    return people


async def write_to(sender: Person, *receivers: Person, body: bytes = BODY) -> tuple[bytes, list[Entry]]:
    """One letter to several people; its id, and its envelopes."""
    before = {entry.id for entry in envelopes(sender)}
    letter = os.urandom(mail.LETTER_ID_BYTES)
    now = sender.node.now_ms()
    await sender.outbox.keep([], (), [Outgoing(one.identity, NOTE.name, body, letter, now) for one in receivers])
    made = [entry for entry in envelopes(sender) if entry.id not in before]
    sender.outbox.fresh.update(entry.id for entry in made)
    return letter, made


def parts(made: list[Entry]) -> tuple[Entry, list[Entry]]:
    """What holds the body, which is larger, and the envelopes that say where it is."""
    (once,) = [entry for entry in made if entry.header.payload_size > 1024]
    return once, [entry for entry in made if entry is not once]


def receipts(person: Person) -> int:
    """How many letters this person has written beside the first."""
    return len(person.query("SELECT DISTINCT letter FROM sent")) - 1


@story
async def test_a_long_letter_to_several_has_one_body_and_each_reads_it(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, *others = await town(nodes, "anna", "boris", "clara", "dora")
        letter, made = await write_to(anna, *others)
        once, places = parts(made)
        assert sorted(entry.header.payload_size for entry in places) == [512, 512, 512]
        for one in others:
            await hand_over(made, one)
            assert notes(one) == [TEXT]
            await hand_over(envelopes(one), anna)
        assert events(anna, letter) == ["kept", "received"]
        assert once.header.space == MAIL_SPACE


@story
async def test_a_letter_that_takes_no_fewer_bytes_apart_travels_whole(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, *others = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, *others, body=NOTE.encode(Note("short")))
        assert [entry.header.payload_size for entry in made] == [512, 512]
        _, made = await write_to(anna, others[0])
        assert [entry.header.payload_size for entry in made] == [4096]


@pytest.mark.parametrize("order", [*itertools.permutations((0, 1, 2))])
@story
async def test_it_is_shown_once_in_whatever_order_it_comes_and_however_often(
    order: tuple[int, ...], tmp_path: Path
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, boris, clara)
        for at in (*order, *order):
            await hand_over([made[at]], boris)
        boris = await nodes.come_back("boris")
        await settle(boris)
        assert notes(boris) == [TEXT]
        assert receipts(boris) == 1
        assert boris.query("SELECT * FROM awaited") == []


@pytest.mark.parametrize("first", ["body", "places"])
@story
async def test_it_is_shown_once_when_the_node_starts_anew_between_the_two(first: str, tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        now, later = ([once], places) if first == "body" else (places, [once])
        await hand_over(now, boris)
        assert (notes(boris), receipts(boris)) == ([], 0)
        boris = await nodes.come_back("boris")
        await hand_over(later, boris)
        assert (notes(boris), receipts(boris)) == ([TEXT], 1)


@story
async def test_nothing_is_shown_or_acknowledged_while_the_body_is_lost_and_it_is_when_that_comes_again(
    tmp_path: Path,
) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        letter, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        await hand_over([once], boris)
        await boris.node.write(lambda: boris.node.open_store.remove([once.id]))
        await hand_over(places, boris)
        await hand_over(envelopes(boris), anna)
        assert (notes(boris), events(anna, letter)) == ([], ["kept"])
        await hand_over([once], boris)
        await hand_over(envelopes(boris), anna)
        assert (notes(boris), events(anna, letter)) == ([TEXT], ["kept", "received"])


@story
async def test_a_body_that_comes_while_its_sender_is_blocked_waits_until_they_no_longer_are(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        letter, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        await hand_over(places, boris)
        await boris.block(anna.identity)
        await hand_over([once], boris)
        await hand_over(envelopes(boris), anna)
        assert (notes(boris), events(anna, letter)) == ([], ["kept"])
        boris = await nodes.come_back("boris")
        assert notes(boris) == []
        await boris.block(anna.identity, False)
        await hand_over(envelopes(boris), anna)
        assert (notes(boris), events(anna, letter)) == ([TEXT], ["kept", "received"])


@story
async def test_a_receiver_cannot_put_another_body_in_its_place_for_others(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        await hand_over(places, boris)
        (packed,) = boris.query("SELECT place FROM awaited")[0]
        place = mail.read_place(bytes(packed))
        # Boris knows key and tag, and makes bodies of his own that open by them.
        forged = forge(place, NOTE.encode(Note("something else")), once)
        await hand_over([forged, *places], clara)
        assert notes(clara) == []
        await hand_over([once], clara)
        assert notes(clara) == [TEXT]


@story
async def test_any_number_of_false_bodies_costs_no_memory_and_hides_no_letter(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        await hand_over([*garbage(once, 1000, size_bytes=16_384), once], boris)
        tracemalloc.start()
        try:
            await hand_over(places, boris)
            assert tracemalloc.get_traced_memory()[1] < 6 << 20
        finally:
            tracemalloc.stop()
        assert notes(boris) == [TEXT]


def forge(place: Place, body: bytes, like: Entry) -> Entry:
    """Another body with the tag and the key of one."""
    given = iter((os.urandom(32), place.tag, place.key))
    entry, made = mail.seal_body(body, now_ms=like.header.ts_ms, rand=lambda _: next(given))
    assert (made.tag, made.key, made.hash != place.hash) == (place.tag, place.key, True)
    return entry


@story
async def test_taking_it_back_removes_all_of_it(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        letter, made = await write_to(anna, boris, clara)
        assert len(made) == 3
        assert await anna.take_back(letter)
        assert anna.node.open_store.known([entry.id for entry in made]) == set()
        again, made = await write_to(anna, boris, clara)
        await hand_over(made, boris)
        assert notes(boris) == [TEXT]
        assert not await anna.take_back(again) or events(anna, again) == []


@story
async def test_it_counts_as_copied_when_body_and_place_are_elsewhere(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        letter, made = await write_to(anna, boris, clara)
        once, places = parts(made)
        await anna.node.copied([places[0].id])
        assert events(anna, letter) == ["kept"]
        await anna.node.copied([once.id])
        assert events(anna, letter) == ["kept", "copied"]
        letter, made = await write_to(anna, boris, clara)
        await carry(anna, boris)
        assert events(anna, letter) == ["kept", "copied"]
        assert notes(boris) == [TEXT, TEXT]


@story
async def test_introductions_bring_a_body_that_lies_apart(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = [await nodes.join(name) for name in ("anna", "boris", "clara")]
        for one in (boris, clara):
            await anna.add_contact(await one.link())
        _, made = await write_to(anna, boris, clara)
        assert len(made) == 3
        for one in (boris, clara):
            await hand_over(made, one)
            assert notes(one) == [TEXT]
            assert [contact.identity for contact in one.contacts()] == [anna.identity]


@story
async def test_outside_it_looks_like_any_other_mail(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        _, made = await write_to(anna, boris, clara)
        for entry in made:
            header = entry.header
            assert mail.is_wellformed_envelope(header)
            assert (entry.payload or b"")[31] < 128  # a public key, as in each other envelope
            assert len(pack(entry)) == header.payload_size + 214
        assert len({entry.header.tags for entry in made}) == len({entry.header.author for entry in made}) == 3


@story
async def test_a_small_stick_takes_the_body_with_its_place(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris, clara = await town(nodes, "anna", "boris", "clara")
        large = NOTE.encode(Note("x" * 14_000))
        for _ in range(5):
            await write_to(anna, clara, body=large)
        await write_to(anna, boris, clara)
        for _ in range(5):
            await write_to(anna, clara, body=large)
        stick = io.BytesIO()
        report = await anna.write_bundle(stick, to=boris.identity, max_bytes=70_000)
        assert (report.left_out > 0, len(stick.getvalue()) <= 70_000) == (True, True)
        stick.seek(0)
        await boris.read_bundle(stick)
        await settle(boris)
        assert notes(boris) == [TEXT]


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(happens=st.lists(st.sampled_from(["body", "place", "lost", "restart"]), min_size=2, max_size=7))
def test_whatever_happens_to_its_parts_it_is_shown_and_acknowledged_once_or_not_at_all(
    happens: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    @story
    async def live(tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris, clara = await town(nodes, "anna", "boris", "clara")
            _, made = await write_to(anna, boris, clara)
            body, places = parts(made)
            is_here = has_place = is_shown = False
            for one in happens:
                match one:
                    case "body":
                        await hand_over([body], boris)
                        is_here = True
                    case "place":
                        await hand_over(places, boris)
                        has_place = True
                    case "lost":
                        store = boris.node.open_store
                        await boris.node.write(partial(store.remove, [body.id]))
                        is_here = False
                    case _:
                        boris = await nodes.come_back("boris")
                        await settle(boris)
                is_shown = is_shown or (is_here and has_place)
                assert (notes(boris), receipts(boris)) == ([TEXT] * is_shown, int(is_shown))

    live(tmp_path_factory.mktemp("town"))
