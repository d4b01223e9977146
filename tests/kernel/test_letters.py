"""What Node and Person promise of letters: each arrives once, in any order, after any delay that mail may have."""

from __future__ import annotations

import asyncio
import io
import os
import random
import time
from pathlib import Path

import pytest

from outlast.errors import NotFoundError, ProtocolError, UsageError
from outlast.kernel import mail
from outlast.kernel.entry import DAY_MS, HOUR_MS, day_of
from outlast.kernel.identity import NAME_MAX_CHARS, Device, read_certificate
from outlast.kernel.inbox import WINDOW
from outlast.kernel.node import BUILT_MS
from outlast.kernel.person import CUSTODY_DAYS, Person
from outlast.testing.clock import FakeClock
from tests.kernel.forger import Forger, note
from tests.kernel.society import (
    NOTE,
    Note,
    Society,
    befriend,
    bundle,
    carry,
    envelopes,
    events,
    friends,
    hand_over,
    hears,
    ids,
    meet,
    notes,
    settle,
    society,
    story,
    until,
    write,
)


async def after_a_letter(nodes: Society) -> tuple[Person, Person]:
    """Friends, the first of whom has written to the other."""
    anna, boris = await friends(nodes)
    await write(anna, boris, "first")
    await meet(anna, boris)
    return anna, boris


class TestContacts:
    @story
    async def test_one_link_is_enough_for_both(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris", called="Боря")
            added = await boris.add_contact(await anna.link())
            assert (added.identity, added.name, added.verified_ms) == (anna.identity, "anna", None)
            letter = await write(boris, anna, "it is Boris")
            await meet(boris, anna)
            (known,) = anna.contacts()
            assert (known.identity, known.name, known.words) == (boris.identity, "Боря", boris.words())
            assert notes(anna) == ["it is Boris"]
            assert events(boris, letter) == ["kept", "received"]
            await write(anna, boris, "hello Boris")
            await meet(anna, boris)
            assert notes(boris) == ["hello Boris"]

    @story
    async def test_several_letters_before_the_first_answer_all_arrive(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            texts = [f"letter {number:03}" for number in range(100)]
            await asyncio.gather(*(write(boris, anna, text) for text in texts))
            sent = envelopes(boris)
            random.Random(1).shuffle(sent)
            for at in range(0, len(sent), 7):
                await hand_over(sent[at : at + 7], anna)
            assert notes(anna) == texts

    @story
    async def test_a_blocked_contact_is_not_opened_and_not_answered_until_unblocked(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await boris.block(anna.identity)
            letter = await write(anna, boris, "are you there?")
            await meet(anna, boris)
            assert notes(boris) == ["first"]
            assert events(anna, letter) == ["kept"]
            with pytest.raises(UsageError, match="blocked"):
                await write(boris, anna, "no")
            with pytest.raises(UsageError, match="unblock"):
                await boris.write_bundle(io.BytesIO(), to=anna.identity)
            boris = await nodes.come_back("boris")
            await settle(boris)
            assert notes(boris) == ["first"]
            await boris.block(anna.identity, blocked=False)
            await settle(boris)
            assert notes(boris) == ["are you there?", "first"]
            await meet(anna, boris)
            assert events(anna, letter) == ["kept", "received"]

    @story
    async def test_who_is_blocked_and_introduces_themselves_again_stays_blocked(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger, now = Forger(), nodes.clock()
            link = await anna.link()
            await hand_over([forger.introduce(forger.letter(note("one"), now), link, now)], anna)
            await anna.block(forger.identity.public)
            again = Forger("Mallory", forger.identity)
            for one in (forger, again):
                await hand_over([one.introduce(one.letter(note("two"), now), link, now)], anna)
            assert notes(anna) == ["one"]
            assert anna.query("SELECT count(*) FROM device") == [(1,)]

    @pytest.mark.parametrize(
        "name",
        ["<script>alert(1)</script>", "' OR 1=1 --", "{{7*7}}", "a" * NAME_MAX_CHARS, "\U0001f600" * 64, "%s%n"],
    )
    @story
    async def test_a_hostile_name_is_a_name(self, tmp_path: Path, name: str) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            forger, now = Forger(name), nodes.clock()
            await hand_over([forger.introduce(forger.letter(note("hi"), now), await anna.link(), now)], anna)
            (contact,) = anna.contacts()
            assert contact.name == name
            assert anna.find(name).identity == forger.identity.public
            await anna.send(contact.identity, NOTE.name, Note("hello"))

    @story
    async def test_two_of_one_name_are_told_apart_by_their_ids(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            now, link = nodes.clock(), await anna.link()
            two = [Forger("Boris"), Forger("Boris")]
            await hand_over([one.introduce(one.letter(note("hi"), now), link, now) for one in two], anna)
            for contact in anna.contacts():
                await anna.rename(contact.identity, "Boris")
            with pytest.raises(UsageError, match="2 contacts"):
                anna.find("boris")
            for contact in anna.contacts():
                assert anna.find(contact.id) == anna.find(contact.id[:12]) == contact
            with pytest.raises(NotFoundError):
                anna.find("carl")

    @story
    async def test_the_own_link_and_an_expired_one_are_refused_in_one_line(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            with pytest.raises(UsageError, match="your own link"):
                await anna.add_contact(await anna.link())
            link = await anna.link()
            nodes.clock.advance(days=91)
            with pytest.raises(UsageError, match="expired"):
                await boris.add_contact(link)


class TestOrder:
    @story
    async def test_letters_in_any_order_over_several_restarts_arrive_once_each(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            texts = ["first"]
            for day in range(4):
                for number in range(40):
                    texts.append(f"day {day} letter {number:02}")
                    await write(anna, boris, texts[-1])
                nodes.clock.advance(days=1)
            sent = [e for e in envelopes(anna) if e.id not in ids(envelopes(boris))]
            random.Random(2).shuffle(sent)
            for at in range(0, len(sent), 23):
                await hand_over(sent[at : at + 23], boris)
                boris = await nodes.come_back("boris")
                await settle(boris)
            await hand_over(sent, boris)
            assert notes(boris) == sorted(texts)
            await meet(boris, anna)
            for letter in {bytes(row[0]) for row in anna.query("SELECT letter FROM custody")}:
                assert "received" in events(anna, letter)

    @story
    async def test_after_a_restart_the_window_stands_where_it_stood(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await meet(boris, anna)
            texts = [f"{number:02}" for number in range(2 * WINDOW)]
            for text in texts:
                await write(anna, boris, text)
            await meet(anna, boris)
            boris = await nodes.come_back("boris")
            await settle(boris)
            before = ids(envelopes(anna))
            await write(anna, boris, "the next one")
            await hand_over([e for e in envelopes(anna) if e.id not in before], boris)
            assert notes(boris) == sorted(["first", *texts, "the next one"])

    @story
    async def test_the_last_of_a_full_window_arrives_before_the_others(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await write(boris, anna, "hello")
            await meet(boris, anna)
            before = ids(envelopes(anna))
            for number in range(3 * WINDOW):
                await write(anna, boris, f"{number:02}")
            sent = [e for e in envelopes(anna) if e.id not in before]
            # The farthest first that the window reaches, and then what lies between.
            for at in (WINDOW - 2, 2 * WINDOW - 3, 3 * WINDOW - 4):
                await hand_over([sent[at]], boris)
            boris = await nodes.come_back("boris")
            await hand_over(sent, boris)
            assert notes(boris) == sorted(["first", *(f"{number:02}" for number in range(3 * WINDOW))])

    @story
    async def test_who_missed_a_month_still_finds_todays(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            for _ in range(3 * WINDOW):
                await write(anna, boris, "lost")
            nodes.clock.advance(days=33)
            before = ids(envelopes(anna))
            await write(anna, boris, "today")
            await hand_over([e for e in envelopes(anna) if e.id not in before], boris)
            assert notes(boris) == ["first", "today"]


class TestCustody:
    @story
    async def test_what_a_receiver_did_is_told_step_by_step(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            letter = await write(anna, boris, "hello")
            assert events(anna, letter) == ["kept"]
            file, report = await bundle(anna, boris)
            assert events(anna, letter) == ["kept", "copied"]
            assert report.entries == report.new
            await boris.read_bundle(io.BytesIO(file))
            await settle(boris)
            assert events(anna, letter) == ["kept", "copied"], "received is said when the receipt is here"
            nodes.clock.advance(HOUR_MS)
            await carry(boris, anna)
            assert events(anna, letter) == ["kept", "copied", "received"]
            await boris.mark_read([letter])
            await carry(boris, anna)
            assert events(anna, letter) == ["kept", "copied", "received", "read"]
            assert anna.custody([letter])[letter][2].at_ms == nodes.clock()
            nodes.clock.advance(days=CUSTODY_DAYS + 2)
            await anna.node.confirm_clock()
            assert events(anna, letter) == []

    @story
    async def test_a_letter_that_waits_is_said_to_wait_however_long_a_cut_lasts(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            letter = await write(anna, boris, "hello")
            nodes.clock.advance(days=CUSTODY_DAYS + 2)
            await anna.node.confirm_clock()
            assert events(anna, letter) == ["kept"]
            await bundle(anna, boris)
            await anna.node.confirm_clock()
            assert events(anna, letter) == ["kept", "copied"], "a journey is forgotten as a whole"
            nodes.clock.advance(days=CUSTODY_DAYS + 2)
            await anna.node.confirm_clock()
            assert events(anna, letter) == []

    @story
    async def test_nobody_waits_for_a_letter_that_is_over(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            letter = await write(anna, boris, "hello")
            nodes.clock.advance(days=mail.MAIL_LIFE_DAYS + 2)
            await anna.node.confirm_clock()
            assert events(anna, letter) == []

    @story
    async def test_a_file_that_was_not_safely_written_is_no_copy(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            letter = await write(anna, boris, "hello")
            await anna.write_bundle(io.BytesIO(), to=boris.identity)
            assert events(anna, letter) == ["kept"]

    @story
    async def test_letters_of_others_that_are_carried_along_are_nobodys_news(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            carl = await nodes.join("carl")
            await befriend(carl, boris)
            letter = await write(anna, boris, "by way of Carl")
            await hand_over(envelopes(anna), carl)
            await carry(carl, boris)
            assert events(anna, letter) == ["kept"]
            assert notes(boris) == ["by way of Carl", "first"]
            assert carl.query("SELECT count(*) FROM custody") == [(0,)]

    @story
    async def test_marking_unknown_letters_as_read_tells_nobody(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            before = len(envelopes(boris))
            await boris.mark_read([os.urandom(16)])
            await settle(boris)
            assert len(envelopes(boris)) == before
            assert anna.query("SELECT 1 FROM custody WHERE event = 'read'") == []


class TestBundles:
    @story
    async def test_the_second_carries_what_is_new_and_a_lost_one_is_made_up_for(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await carry(anna, boris)
            await carry(boris, anna)
            await write(anna, boris, "one")
            lost, report = await bundle(anna, boris)
            held = report.entries
            await write(anna, boris, "two")
            again, report = await bundle(anna, boris)
            assert report.entries == held + 1, "the first was not acknowledged, so it is all in again"
            await boris.read_bundle(io.BytesIO(again))
            await settle(boris)
            assert notes(boris) == ["first", "one", "two"]
            await carry(boris, anna)
            await write(anna, boris, "three")
            _, report = await bundle(anna, boris)
            assert report.entries <= 3, "only the third letter and receipts"
            late = await boris.read_bundle(io.BytesIO(lost))
            assert late.new == 0

    @story
    async def test_two_that_are_written_at_once_are_two_and_each_stands_for_itself(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await write(anna, boris, "one")
            (first, _), (second, _) = await asyncio.gather(bundle(anna, boris), bundle(anna, boris))
            for file in (first, second):
                assert (await boris.read_bundle(io.BytesIO(file))).problems == ()
            await settle(boris)
            assert notes(boris) == ["first", "one"]
            assert anna.query("SELECT number FROM bundle_out WHERE acked = 0 ORDER BY number") == [(1,), (2,)]
            await carry(boris, anna)
            assert anna.query("SELECT count(*) FROM bundle_out WHERE acked = 0") == [(0,)]
            _, report = await bundle(anna, boris)
            assert report.entries <= 2, "receipts alone"

    @story
    async def test_what_came_from_somebody_is_not_brought_back_to_them(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            for number in range(20):
                await write(anna, boris, f"{number:02}")
            await carry(anna, boris)
            _, report = await bundle(boris, anna)
            assert report.entries < 20

    @story
    async def test_a_small_stick_takes_what_is_for_its_receiver_and_then_the_newest(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            carl = await nodes.join("carl")
            await befriend(anna, carl)
            await write(anna, boris, "to Boris, and old")
            for number in range(12):
                nodes.clock.advance(HOUR_MS)
                await write(anna, carl, f"to Carl {number}" + "." * 12_000)
            file = io.BytesIO()
            report = await anna.write_bundle(file, to=boris.identity, max_bytes=140_000)
            assert report.left_out
            assert len(file.getvalue()) == report.size_bytes <= 140_000
            large = sorted(one.header.ts_ms for one in envelopes(anna) if len(one.payload or b"") > 4096)
            taken = sorted(
                one.header.ts_ms for one in anna.node.open_store.load(report.written) if len(one.payload or b"") > 4096
            )
            assert 0 < len(taken) < len(large)
            assert taken == large[-len(taken) :]
            await boris.read_bundle(io.BytesIO(file.getvalue()))
            await settle(boris)
            assert "to Boris, and old" in notes(boris)

    @story
    async def test_what_had_no_room_goes_with_the_next_stick_and_nothing_goes_twice(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            for number in range(12):
                await write(anna, boris, f"{number:02}" + "." * 12_000)
            await anna.write_bundle(io.BytesIO(), to=boris.identity, max_bytes=140_000)  # this one is lost
            trips = 0
            seen: set[bytes] = set()
            while True:
                file = io.BytesIO()
                report = await anna.write_bundle(file, to=boris.identity, max_bytes=140_000)
                await anna.bundle_left(report)
                assert seen.isdisjoint(report.written)
                seen.update(report.written)
                await boris.read_bundle(io.BytesIO(file.getvalue()))
                await carry(boris, anna)
                trips += 1
                if not report.left_out:
                    break
            assert 1 < trips < 6
            assert len(notes(boris)) == 13
            assert anna.query("SELECT DISTINCT number FROM bundle_part") == [(1,)], "of the lost one alone"

    @story
    async def test_a_file_for_which_there_is_no_room_at_all_is_refused(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            with pytest.raises(UsageError, match="at least"):
                await anna.write_bundle(io.BytesIO(), to=boris.identity, max_bytes=60_000)

    @story
    async def test_a_bundle_for_somebody_else_is_refused_and_a_stranger_learns_nothing(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            carl = await nodes.join("carl")
            await write(anna, boris, "for Boris")
            file, _ = await bundle(anna, boris)
            with pytest.raises(ProtocolError, match="somebody else"):
                await carl.read_bundle(io.BytesIO(file))
            assert carl.node.open_store.usage().entries == 0

    @story
    async def test_a_bundle_is_for_every_device_of_the_receiver(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            second = await nodes.join("boris' phone", backup=await boris.backup("backup words"))
            await anna.add_contact(await second.link())
            assert anna.contact(boris.identity).warnings == ("unknown_device",)
            await anna.accept_device(boris.identity)
            await write(anna, boris, "to both")
            file, _ = await bundle(anna, boris)
            for reader in (boris, second):
                await reader.read_bundle(io.BytesIO(file))
                await settle(reader)
                assert "to both" in notes(reader)

    @story
    async def test_damage_costs_what_it_touches_and_is_named(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            for number in range(60):
                await anna.send(boris.identity, NOTE.name, Note(f"{number:02}" + "x" * 6000))
            file, _ = await bundle(anna, boris)
            damaged = bytearray(file)
            damaged[len(file) // 2] ^= 1
            report = await boris.read_bundle(io.BytesIO(bytes(damaged)))
            await settle(boris)
            assert report.damaged == 1
            assert 40 < len(notes(boris)) < 61
            assert "damaged" in str(report.problems[0])
            cut = await boris.read_bundle(io.BytesIO(file[: len(file) - 70_000]))
            assert "ends too early" in "; ".join(map(str, cut.problems))
            whole = await boris.read_bundle(io.BytesIO(file))
            await settle(boris)
            assert (len(notes(boris)), whole.problems) == (61, ())


class TestLimits:
    @story
    async def test_the_largest_letter_arrives_and_a_larger_one_is_refused_with_its_size(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            largest = "x" * (NOTE.max_bytes - 4)
            await write(anna, boris, largest)
            await meet(anna, boris)
            assert largest in notes(boris)
            with pytest.raises(ProtocolError, match="15001"):
                await write(anna, boris, largest + "x")
            space = await anna.node.new_space(anna, "News")
            with pytest.raises(UsageError, match="65536"):
                await anna.node.append(anna, space, "toy.post", Note("x" * 66_000), life_ms=DAY_MS)
            with pytest.raises(UsageError, match="longer than its kind"):
                await anna.node.append(anna, space, "toy.post", Note("x"), life_ms=31 * DAY_MS)
            with pytest.raises(UsageError, match="no room here"):
                await anna.node.append(anna, space, "toy.what", Note("x"), life_ms=DAY_MS)
            assert anna.node.open_store.usage_of(space).entries == 1

    @story
    async def test_a_post_of_several_pieces_arrives_by_an_open_bundle(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            space = await anna.node.new_space(anna, "News")
            await anna.node.append(anna, space, "toy.post", Note("x" * 60_000), life_ms=DAY_MS)
            file = io.BytesIO()
            await anna.write_bundle(file, space=space)
            held = await boris.read_bundle(io.BytesIO(file.getvalue()))
            assert (held.new, "nobody here follows" in str(held.problems[0])) == (0, True)
            await boris.node.follow(space)
            assert boris.node.open_store.usage_of(space).entries == 2

    @story
    async def test_a_hundred_contacts_are_no_burden(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            now, link = nodes.clock(), await anna.link()
            crowd = [Forger(f"Person {number:03}") for number in range(100)]
            began = time.process_time()
            await hand_over([one.introduce(one.letter(note(one.name), now), link, now) for one in crowd], anna)
            later = [
                one.write(one.letter(note(f"{one.name} on day {day:02}"), now), link, now - day * DAY_MS)
                for one in crowd
                for day in range(0, 30, 6)
            ]
            await hand_over(later, anna)
            await asyncio.gather(*(anna.send(one.identity.public, NOTE.name, Note("hello all")) for one in crowd))
            assert len(notes(anna)) == 600
            assert len(anna.contacts()) == 100
            anna = await nodes.come_back("anna")
            await settle(anna)
            took = time.process_time() - began
            assert took < 20, f"{took:.1f} s of CPU for 600 letters in and 100 out"

    @story
    async def test_for_one_contact_more_those_of_all_others_are_not_verified_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verified: list[bytes] = []

        def count(certificate: bytes) -> Device:
            verified.append(certificate)
            return read_certificate(certificate)

        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            now, link = nodes.clock(), await anna.link()
            *crowd, last = [Forger(f"Person {number:03}") for number in range(30)]
            await hand_over([one.introduce(one.letter(note(one.name), now), link, now) for one in crowd], anna)
            monkeypatch.setattr("outlast.kernel.inbox.read_certificate", count)
            await hand_over([last.introduce(last.letter(note(last.name), now), link, now)], anna)
            assert len(notes(anna)) == 30
            assert len(verified) == 1


class TestKeys:
    @story
    async def test_each_day_of_meeting_brings_a_new_prekey_and_old_ones_are_gone(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            seen: dict[bytes, bytes] = {}
            await write(anna, boris, "on the first day")
            (old,) = [e for e in envelopes(anna) if e.id not in ids(envelopes(boris))]
            for day in range(60):
                nodes.clock.advance(days=1)
                await write(anna, boris, f"day {day:02}")
                await hand_over([e for e in envelopes(anna)[-3:] if e.id != old.id], boris)
                await boris.met_somebody()
                await boris.mark_read([bytes(row[0]) for row in boris.query("SELECT letter FROM seen_letter")][-1:])
                await settle(boris)
                await hand_over(envelopes(boris)[-2:], anna)
                seen |= {bytes(p): bytes(s) for p, s in boris.query("SELECT public, secret FROM prekey")}
                await boris.node.confirm_clock()
            kept = {bytes(row[0]) for row in boris.query("SELECT public FROM prekey")}
            assert len(seen) >= 60
            assert len(kept) <= mail.MAIL_LIFE_DAYS + 1 + 7 + 4
            assert {key.public for key in boris.inbox.prekeys} == kept, "nor are they in memory"
            gone = [secret for public, secret in seen.items() if public not in kept]
            assert gone
            await hand_over([old], boris)
            assert "on the first day" not in notes(boris)

    @story
    async def test_who_was_silent_for_long_is_still_heard(self, tmp_path: Path) -> None:
        """Anna's node was off for two months, while Boris met people every day."""
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await write(boris, anna, "take care")
            await meet(boris, anna)
            for _ in range(60):
                nodes.clock.advance(days=1)
                await boris.met_somebody()
                await boris.node.confirm_clock()
            before = ids(envelopes(anna))
            await write(anna, boris, "I am back")
            await hand_over([e for e in envelopes(anna) if e.id not in before], boris)
            assert "I am back" in notes(boris)

    @story
    async def test_a_link_is_good_for_its_90_days_whatever_was_met_meanwhile(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await anna.met_somebody()
            link = await anna.link()
            for _ in range(89):
                nodes.clock.advance(days=1)
                await anna.met_somebody()
                await anna.node.confirm_clock()
            await boris.add_contact(link)
            await write(boris, anna, "found it in my pocket")
            await meet(boris, anna)
            assert notes(anna) == ["found it in my pocket"]


class TestClocks:
    @pytest.mark.parametrize("days", [-3000, -40, 40, 3000])
    @story
    async def test_a_clock_years_off_on_one_side_keeps_nobody_from_writing(self, tmp_path: Path, days: int) -> None:
        async with society(tmp_path) as nodes:
            away = FakeClock(nodes.clock())
            anna, boris = await nodes.join("anna"), await nodes.join("boris", clock=away)
            relay = await nodes.join("relay")
            await befriend(anna, boris)
            await befriend(boris, relay)
            away.advance(days=days)
            for number in range(3):
                letters = [await write(anna, boris, f"to {number}"), await write(boris, anna, f"fro {number}")]
                for one, other in ((anna, boris), (boris, anna)):
                    await hand_over(envelopes(one), relay)
                    await hand_over(envelopes(relay), other)
                await meet(anna, boris)
                assert "received" in events(anna, letters[0])
                assert "received" in events(boris, letters[1])
                nodes.clock.advance(days=1)
                away.advance(days=1)
            assert notes(boris) == [f"to {number}" for number in range(3)]
            assert notes(anna) == [f"fro {number}" for number in range(3)]
            await write(relay, boris, "by stick")
            await carry(relay, boris)
            assert "by stick" in notes(boris)
            # What others wrote is carried on, whatever this clock says of its age.
            await hand_over(envelopes(anna), boris)
            _, report = await bundle(boris, relay)
            assert report.entries >= 1

    @story
    async def test_mail_ends_when_every_clock_agrees_and_not_before(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            entries = anna.node.open_store.usage().entries
            nodes.clock.advance(days=mail.MAIL_LIFE_DAYS)
            await anna.node.confirm_clock()
            assert anna.node.open_store.usage().entries == entries
            nodes.clock.advance(days=2)
            await anna.node.confirm_clock()
            assert anna.node.open_store.usage().entries == 0
            for table in ("opened", "sent", "seen_letter"):
                assert anna.query(f"SELECT count(*) FROM {table}") == [(0,)], table
            # The same envelopes once more are no news.
            await hand_over(envelopes(boris), anna)
            assert anna.node.open_store.usage().entries == 0

    @story
    async def test_a_clock_that_leapt_ahead_ends_nothing_by_itself(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            _, boris = await after_a_letter(nodes)
            entries = boris.node.open_store.usage().entries
            nodes.clock.advance(days=4000)
            boris = await nodes.come_back("boris")
            await boris.node._tidy()
            assert boris.node.open_store.usage().entries == entries
            assert boris.node.pruning_stopped() is not None

    @story
    async def test_a_clock_before_the_programs_making_is_not_believed(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna", clock=FakeClock(0))
            assert anna.node.now_ms() >= BUILT_MS
            assert "set the clock" in str(anna.node.clock_warning())

    @story
    async def test_changes_that_came_and_went_unread_do_not_hold_up_the_inbox(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await write(anna, boris, "soon over")
            async with anna.inbox.reading:
                nodes.clock.advance(days=mail.MAIL_LIFE_DAYS + 3)
                await anna.node.confirm_clock()
                assert not anna.node.open_store.changes(anna.inbox.cursor), "nothing is left to read"
            await anna.inbox.read()
            assert anna.inbox.cursor == anna.node.open_store.cursor()


class TestRestore:
    @story
    async def test_a_restored_person_warns_contacts_is_accepted_and_is_written_to_again(self, tmp_path: Path) -> None:
        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            await write(boris, anna, "before")
            await meet(boris, anna)
            again = await nodes.join("anna again", backup=await anna.backup("backup words"))
            await nodes.leave("anna")
            assert (again.identity, again.device == anna.device) == (anna.identity, False)
            assert notes(again) == ["before"]
            assert [device.device for device in again.old_devices()] == [anna.device]
            assert again.contact(boris.identity).verified_ms is not None
            await write(again, boris, "I have a new computer")
            await meet(again, boris)
            assert "I have a new computer" in notes(boris)
            assert boris.contact(anna.identity).warnings == ("unknown_device",)
            await write(boris, again, "to the old one alone")
            await meet(boris, again)
            assert notes(again) == ["before"], "nothing is sealed to it before it is accepted"
            await boris.accept_device(again.identity)
            assert boris.contact(anna.identity).warnings == ()
            await write(boris, again, "welcome back")
            await meet(boris, again)
            assert notes(again) == ["before", "welcome back"]

    @story
    async def test_who_cannot_be_told_of_the_new_device_is_not_written_to_in_vain(self, tmp_path: Path) -> None:
        """Boris introduced himself: Anna never had his link, so nothing would find him a letter of her new device."""
        async with society(tmp_path) as nodes:
            anna, boris = await nodes.join("anna"), await nodes.join("boris")
            await boris.add_contact(await anna.link())
            await write(boris, anna, "hello")
            await meet(boris, anna)
            await write(anna, boris, "hello Boris")
            await meet(anna, boris)
            again = await nodes.join("anna again", backup=await anna.backup("backup words"))
            with pytest.raises(UsageError, match="add their link again"):
                await write(again, boris, "into the void")
            await again.add_contact(await boris.link())
            await write(again, boris, "it is me, on another computer")
            await meet(again, boris)
            assert "it is me, on another computer" in notes(boris)

    @story
    async def test_the_24_words_bring_the_identity_back_and_nothing_else(self, tmp_path: Path) -> None:
        from outlast.kernel.identity import entropy_of
        from outlast.kernel.node import Node
        from tests.kernel.society import TOY

        async with society(tmp_path) as nodes:
            anna, boris = await after_a_letter(nodes)
            words = " ".join(anna.secret_words())
            home = nodes.home("from words")
            await Node.create(home, "anna", passphrase=None, entropy=entropy_of(words), rooms=[TOY])
            async with await Node.open(home, rooms=[TOY], system_ms=nodes.clock) as node:
                (again,) = node.people.values()
                assert again.identity == anna.identity
                assert again.device != anna.device
                assert again.contacts() == []
                assert boris.contact(again.identity).words == again.words()

    @story
    async def test_any_shares_of_enough_bring_the_secret_back_and_fewer_do_not(self, tmp_path: Path) -> None:
        from itertools import permutations

        from outlast.kernel.identity import entropy_of

        async with society(tmp_path) as nodes:
            anna = await nodes.join("anna")
            shares = [" ".join(one) for one in anna.secret_shares(3, 5)]
            others = [" ".join(one) for one in anna.secret_shares(2, 2)]
            for chosen in permutations(shares, 3):
                assert entropy_of("\n".join(chosen)) == anna.entropy
            assert entropy_of(" ".join(shares)) == anna.entropy
            with pytest.raises(UsageError, match="3 shares are needed, 2 were given"):
                entropy_of(" ".join(shares[:2]))
            with pytest.raises(UsageError, match="do not belong together"):
                entropy_of(" ".join([*shares[:2], others[0]]))
            for threshold, count in ((1, 3), (4, 3), (2, 17), (0, 0)):
                with pytest.raises(UsageError, match="at least 2"):
                    anna.secret_shares(threshold, count)


@story
async def test_a_locked_person_gets_mail_later_and_sends_no_receipt_before(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        boris = await nodes.join("boris")
        await befriend(anna, boris)
        letter = await write(anna, boris, "while you were out")
        key, node = boris.key, boris.node
        await node._close_person(key)
        await node.ingest(envelopes(anna))
        assert len(envelopes_of(node)) == 1
        boris = await node._open_person(key, node.home.open_key(key))
        await settle(boris)
        assert notes(boris) == ["while you were out"]
        await meet(boris, anna)
        assert events(anna, letter) == ["kept", "received"]
        await until(lambda: True, anna)
        await hears(boris, "while you were out")


def envelopes_of(node: object) -> list[object]:
    return list(node.open_store.changes(0))  # type: ignore[attr-defined]


@story
async def test_days_of_letters_are_those_of_their_envelopes(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await after_a_letter(nodes)
        await write(anna, boris, "hello")
        for entry in envelopes(anna):
            assert entry.header.ts_ms % HOUR_MS == 0
            assert day_of(entry.header.ts_ms) in (day_of(nodes.clock()), day_of(nodes.clock() - HOUR_MS))
